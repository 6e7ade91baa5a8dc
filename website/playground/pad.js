// The drawing pad, for one pointer at a time. Ink lies on two canvases: the pad, as fine as the screen, and one of SIDE
// pixels a side that is read.
import { put, clear, changed } from './board.js';
import { digitFromInk } from './ink.js';
import { colors, forgetColors, paintInk } from './pictures.js';

const SIDE = 280, WIDTH = 22; // of the pen, in the same pixels
const pad = document.getElementById('pad'), shown = pad.getContext('2d', { willReadFrequently: true });
const ink = new OffscreenCanvas(SIDE, SIDE).getContext('2d', { willReadFrequently: true });
let stroke = null; // the pointer that draws, and where it was last
let queued = false, printed = false; // is a printed digit on the pad, which a stroke replaces?

function wipe() {
  shown.clearRect(0, 0, pad.width, pad.height);
  ink.clearRect(0, 0, SIDE, SIDE);
}

export function print(pixels) { // show these pixels on the pad, or with null nothing
  wipe();
  printed = pixels !== null;
  if (!pixels) return;
  const digit = new OffscreenCanvas(28, 28);
  paintInk(digit, pixels);
  shown.imageSmoothingEnabled = false;
  shown.drawImage(digit, 0, 0, pad.width, pad.height);
}

function read() { // what is on the pad, at most once a frame; in 256 levels, as the digits of MNIST
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    const { data } = ink.getImageData(0, 0, SIDE, SIDE), values = new Float64Array(SIDE * SIDE);
    for (let i = 0; i < values.length; i++) values[i] = data[4*i + 3] / 255;
    const found = digitFromInk(values, SIDE);
    put(found && found.map(v => Math.round(256 * v) / 256));
  });
}

function line(context, from, to, width, color) {
  Object.assign(context, { lineWidth: width, strokeStyle: color, fillStyle: color });
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.beginPath(); // a line of no length leaves no ink: the round end is a disk of its own
  context.arc(...to, width / 2, 0, 2 * Math.PI);
  context.fill();
}

function draw(event) {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  if (printed) { // a new digit on an empty pad
    print(null);
    clear();
  }
  const box = pad.getBoundingClientRect(), to = [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
  const fine = pad.width / SIDE, scaled = at => at.map(v => v * fine), from = stroke.at || to;
  line(ink, from, to, WIDTH, '#000');
  line(shown, scaled(from), scaled(to), WIDTH * fine, `rgb(${colors().ink.join(' ')})`);
  stroke.at = to;
  read();
}

export function listen() {
  pad.width = pad.height = SIDE * Math.min(Math.ceil(devicePixelRatio), 3);
  pad.addEventListener('pointerdown', event => {
    if (stroke || event.button !== 0) return;
    pad.setPointerCapture(event.pointerId);
    stroke = { pointer: event.pointerId, at: null };
    if (!printed) draw(event); // a tap on an example leaves it there
  });
  pad.addEventListener('pointermove', draw);
  for (const end of ['pointerup', 'pointercancel']) {
    pad.addEventListener(end, event => { if (stroke && event.pointerId === stroke.pointer) stroke = null; });
  }
  let color = getComputedStyle(pad).color;
  const theme = new MutationObserver(() => { // ink and paper swap
    if (color === (color = getComputedStyle(pad).color)) return;
    forgetColors();
    shown.globalCompositeOperation = 'source-in';
    shown.fillStyle = `rgb(${colors().ink.join(' ')})`;
    shown.fillRect(0, 0, pad.width, pad.height);
    shown.globalCompositeOperation = 'source-over';
    changed('theme');
  });
  for (const place of [document.documentElement, document.body]) theme.observe(place, { attributes: true });
}
