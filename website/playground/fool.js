// A digit changed along the gradient of its pixels, until the network reads something else.
import { board, watch, read, largestAt } from './board.js';
import { softmax } from './network.js';
import { number, paintInk, sizeOf, Picture } from './pictures.js';

const $ = id => document.getElementById(id), MOST = 0.5; // of full ink, at the pixel with the strongest gradient
let gradient;

function moved(t) {
  const most = sizeOf([board.grads.inp]) || 1;
  return board.pixels.map((v, i) => Math.min(Math.max(v + t * board.grads.inp[i] / most, 0), 1));
}

function show() { // of a new digit
  const inp = board.grads && board.grads.inp;
  gradient.show(inp, { label: 'Gradient of the loss for the 784 pixels', columns: 28, full: inp && sizeOf([inp]) });
  $('fool-by').disabled = !inp;
  $('fool-by').value = 0;
  move();
}

function move() {
  const by = Number($('fool-by').value), pixels = board.grads ? moved(by) : board.pixels || new Float64Array(784);
  paintInk($('fool-digit'), pixels);
  $('fool-out').textContent = `${Math.round(100 * by)}%`;
  if (!board.grads) { $('fool-says').textContent = 'Draw a digit and say which one it is.'; return; }
  const shares = softmax(read(pixels).scores), reads = largestAt(shares), first = largestAt(board.probabilities);
  const change = pixels.reduce((sum, v, i) => sum + Math.abs(v - board.pixels[i]), 0) / board.pixels.reduce((sum, v) => sum + v, 0);
  $('fool-says').innerHTML = `The network reads <b>${reads}</b>, with ${number(100 * shares[reads])}%. ` +
    `For the true digit, ${board.digit}, it gives ${number(100 * shares[board.digit])}%. ` +
    (by ? `Ink moved: ${number(100 * change, 2)}% of what was there. ` : '') + (reads !== first ? `Without the change it read ${first}.` : '');
}

export function start() {
  $('fool').innerHTML = `<div class="pictures"><figure class="picture"><div class="cells"><canvas id="fool-digit" width="28" height="28" role="img" aria-label="The changed digit"></canvas></div>
    <figcaption>The digit with the change</figcaption></figure></div>
    <label>How far along the gradient <input type="range" id="fool-by" min="0" max="${MOST}" step="0.01" value="0"> <output id="fool-out"></output></label>
    <p id="fool-says" aria-live="polite"></p>`;
  gradient = new Picture($('fool').firstChild, 'input-gradient', [28, 28], { scale: 7 });
  $('fool-by').addEventListener('input', move);
  watch($('fool'), ['weights', 'reading'], show);
}
