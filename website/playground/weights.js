// All numbers of the network as pictures: activations, weights, gradients, and the change by the last step.
import { board, watch } from './board.js';
import { sizeOf, tiles, tiledShape, tileName, cellName, Picture } from './pictures.js';

const $ = id => document.getElementById(id);
let shown = {}, shape = '', scales = {}, first = null, asked = []; // the network and the digit that the scales belong to

// A scale stays as long as the numbers do not outgrow it, so that a step can be seen
function scale(name, tensors) {
  const size = sizeOf(tensors);
  if (!(size <= scales[name])) scales[name] = size;
  return scales[name];
}

function build() { // anew when a network of another shape is on the board
  const now = board.network.layers.map(({ b }) => b.length).join();
  if (now === shape) return;
  shape = now;
  shown = {};
  for (const id of ['activations', 'features', 'matrices']) $(id).replaceChildren();
  board.network.layers.forEach(({ w, b }, k) => {
    const n = b.length, last = k === board.network.layers.length - 1, id = last ? 'scores' : `activations-${k}`;
    shown[id] = new Picture($('activations'), id, last ? [10, 1] : [8, Math.ceil(n / 8)], { scale: 22 });
    if (last) shown[id].figure.firstChild.insertAdjacentHTML('beforeend', `<div class="digits" aria-hidden="true">${'0123456789'.replace(/./g, '<span>$&</span>')}</div>`);
    for (const kind of ['weights', 'gradient', 'change']) shown[`${kind}-${k}`] = new Picture($(k ? 'matrices' : 'features'), `${kind}-${k}`, k ? [n, w.length / n] : tiledShape(n));
  });
}

function showActivations() {
  build();
  const { pass, network } = board, hidden = network.layers.slice(1).map((_, k) => pass && pass.inps[k + 1]), full = pass && scale('activations', hidden);
  hidden.forEach((values, k) => shown[`activations-${k}`].show(values, { label: `Layer ${k + 1}: ${network.layers[k].b.length} activations`, columns: 8, full, name: i => `unit ${i}` }));
  shown.scores.show(pass && pass.scores, { label: 'The ten scores', columns: 10, full: pass && scale('scores', [pass.scores]), name: i => `digit ${i}` });
}

function matrix(id, values, k, options) {
  const n = board.network.layers[k].b.length, drawn = values && (k ? { values, columns: n } : tiles(values, n));
  shown[id].show(drawn && drawn.values, { ...options, columns: drawn ? drawn.columns : n, name: drawn && (k ? cellName(n) : tileName(drawn.columns)) });
}

function showWeights(k) {
  build();
  if (first !== board.first) [first, scales] = [board.first, {}];
  const { layers } = board.network, full = scale('weights', layers.map(({ w }) => w)), { w, b } = layers[k];
  matrix(`weights-${k}`, w, k, { label: `Weights of layer ${k + 1}, ${w.length / b.length}×${b.length}`, full });
}

function showGradient(k) { // on the scale of the largest since the digit was put on the pad
  const { grads, before, pixels, digit, network } = board, name = `gradient-${k}`;
  if (asked[k] !== pixels || !before) [asked[k], scales[name]] = [pixels, 0];
  if (before) scale(name, [before.grads.layers[k].w]);
  const full = grads && scale(name, [grads.layers[k].w]);
  matrix(name, grads && grads.layers[k].w, k, { label: `Its gradient for this ${digit}`, full });
  // the change, on the scale of the weights, enlarged as far as it fits there
  const weights = scale('weights', network.layers.map(({ w }) => w)), moved = before && before.grads.layers[k].w.map(v => -before.rate * v);
  const times = moved ? 10**Math.max(0, Math.floor(Math.log10(weights / sizeOf([moved])))) : 1;
  const enlarged = times > 1 ? `, ${times.toLocaleString('en-US')} times enlarged to be seen` : '';
  matrix(`change-${k}`, moved, k, { label: `Change by this step${enlarged}`, full: weights / times });
}

const layersOf = id => board.network.layers.map((_, k) => k).filter(k => (k > 0) === (id === 'matrices'));

export function start() {
  build();
  watch($('activations'), ['weights', 'reading'], showActivations);
  for (const id of ['features', 'matrices']) {
    watch($(id), ['weights'], () => layersOf(id).forEach(showWeights));
    watch($(id), ['weights', 'reading'], () => layersOf(id).forEach(showGradient));
  }
}
