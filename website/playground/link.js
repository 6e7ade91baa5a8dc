// The state of the page in its address, so that a link restores it.
import { board, labels, put, take, say, clear, step, choose } from './board.js';

// A drawing as text: its 784 bytes, each run of zeros as 0 and its length, in base64 with letters that an address may have
function pack(pixels) {
  const bytes = [];
  for (let i = 0; i < 784; i++) {
    const v = Math.min(Math.round(256 * pixels[i]), 255);
    if (v) bytes.push(v);
    else if (bytes.at(-2) === 0 && bytes.at(-1) < 255 && !pixels[i - 1]) bytes[bytes.length - 1] += 1;
    else bytes.push(0, 1);
  }
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function unpack(text) { // of a link that somebody has spoiled, what can be read
  const letters = text.replaceAll('-', '+').replaceAll('_', '/').match(/^[\w+/]*/)[0], whole = letters.slice(0, letters.length % 4 === 1 ? -1 : undefined);
  const bytes = Array.from(atob(whole), c => c.charCodeAt(0)), pixels = new Float64Array(784);
  for (let i = 0, at = 0; i < bytes.length && at < 784; i++) {
    if (bytes[i]) pixels[at++] = bytes[i] / 256;
    else at += bytes[++i];
  }
  return pixels;
}

const sourceOf = ({ source, pixels }) => source === null ? `i${pack(pixels)}` : source;

export function boardState(rate) {
  const { pixels, source, digit, unit, weight, trail } = board, state = {};
  if (pixels) state.digit = `${sourceOf(board)}.${digit ?? ''}`;
  if (rate !== 1e-4) state.rate = rate;
  if (trail.length) state.steps = trail.map(move => [sourceOf(move), move.digit, String(move.rate).replace('.', 'p'), move.count].join('.')).join('~');
  if (unit[0] || unit[1] || weight !== null) state.unit = [...unit, weight ?? ''].join('.');
  if (board.trained) state.own = 1;
  return state;
}

const within = (v, n) => Number.isInteger(v) && v >= 0 && v < n;

function show(source, digit) { // put this on the board
  if (source[0] === 'i') {
    const pixels = unpack(source.slice(1));
    put(pixels.some(v => v) ? pixels : null, { digit: null });
  }
  else if (within(Number(source), labels().length)) take(Number(source));
  if (digit === '') say(null);
  else if (within(Number(digit), 10)) say(Number(digit));
}

export function restoreBoard(params) {
  for (const move of (params.get('steps') || '').split('~').filter(Boolean)) {
    const [source, digit, rate, count] = move.split('.');
    show(source, digit);
    for (let n = 0; board.grads && n < Math.min(Number(count), 1000); n++) step(Number(rate.replace('p', '.')));
  }
  const here = params.get('digit'), last = board.trail.at(-1);
  if (here && !(last && here === `${sourceOf(last)}.${last.digit}`)) show(...here.split('.')); // else it keeps its marks of before
  else if (!here && params.has('steps')) clear();
  const [layer, j, weight] = (params.get('unit') || '').split('.').map(text => text ? Number(text) : NaN), { layers } = board.network;
  if (within(layer, layers.length) && within(j, layers[layer].b.length)) choose([layer, j], within(weight, layers[layer].w.length / layers[layer].b.length) ? weight : null);
}
