// The board: one network, one digit on its pad, and what follows from them. Views watch it; a view is shown again when
// something that it depends on has changed, and only while it can be seen.
import { networkFrom } from './files.js';
import { normalize, forward, backward, softmax, crossEntropy, step as takeStep } from './network.js';

export const largestAt = values => values.reduce((best, v, i) => v > values[best] ? i : best, 0);
export const copy = ({ layers, activation }) => ({ activation, layers: layers.map(({ w, b }) => ({ w: w.slice(), b: b.slice() })) });

export const board = {
  network: null, first: null, // as it is now, and before any step
  trained: false,             // is it the visitor's own, from the training below?
  pixels: null,               // 784 in [0, 1), null for an empty pad
  source: null,               // the number of the example on the pad, null for a drawing
  digit: null,                // the true one, null if nobody said
  pass: null, probabilities: null, loss: null, grads: null, // of the digit on the pad, where they can be known
  before: null,               // what was before the last step: { probabilities, loss, grads, rate }
  trail: [],                  // the steps taken: { pixels, source, digit, rate, count }
  unit: [0, 0], weight: null, // the opened unit, [layer, number]; which of its weights is looked at, null for that of the strongest part
};
let file, info;

export const example = k => Float64Array.from(file.examples.subarray(784*k, 784*(k + 1)), v => v / 256);
export const labels = () => [...file.labels];
export const input = pixels => normalize(pixels, info.mean, info.std);
export const read = (pixels, network = board.network) => forward(network, input(pixels));
export const steps = () => board.trail.reduce((sum, { count }) => sum + count, 0);

// ---- views

const versions = { weights: 0, reading: 0, unit: 0, theme: 0 }, views = [];
let told = () => {};

function refresh(view) {
  const now = view.names.map(name => versions[name]).join();
  if (!view.visible || view.shown === now) return;
  view.shown = now;
  view.show();
}

export function watch(element, names, show) {
  const view = { names: [...names, 'theme'], show, visible: false, shown: null };
  views.push(view);
  new IntersectionObserver(entries => {
    view.visible = entries.at(-1).isIntersecting;
    refresh(view);
  }, { rootMargin: '150px' }).observe(element);
}

export function changed(...names) {
  for (const name of names) versions[name] += 1;
  if (names.includes('weights') || names.includes('reading')) {
    const known = board.pixels && board.digit !== null;
    board.pass = board.pixels && read(board.pixels);
    board.probabilities = board.pass && softmax(board.pass.scores);
    board.loss = known ? crossEntropy(board.pass.scores, [board.digit]) : null;
    board.grads = known ? backward(board.network, board.pass, [board.digit]) : null;
  }
  views.forEach(refresh);
  told();
}

export const whenChanged = listener => { told = listener; };

// ---- what can be done on it

export function open(tensors, metadata) {
  [file, info] = [tensors, metadata];
  board.network = networkFrom(tensors);
  board.first = copy(board.network);
}

export function use(network, trained) { // put a network on the board; null for the page's own
  board.first = copy(network || networkFrom(file));
  Object.assign(board, { trained, unit: [0, 0], weight: null });
  reset();
}

export function put(pixels, { digit = board.digit, source = null } = {}) {
  Object.assign(board, { pixels, digit, source, before: null });
  changed('reading');
}

export const take = k => put(example(k), { digit: labels()[k], source: k });
export const clear = () => put(null, { digit: null });

export function say(digit) {
  Object.assign(board, { digit, before: null });
  changed('reading');
}

export function step(rate) {
  const { probabilities, loss, grads, pixels, source, digit, network } = board, last = board.trail.at(-1);
  board.before = { probabilities, loss, grads, rate };
  takeStep(network, grads, rate);
  if (last && last.pixels === pixels && last.digit === digit && last.rate === rate) last.count += 1;
  else board.trail.push({ pixels, source, digit, rate, count: 1 });
  changed('weights', 'reading');
}

export function reset() {
  Object.assign(board, { network: copy(board.first), trail: [], before: null });
  changed('weights', 'reading', 'unit');
}

export function choose(unit, weight = null) {
  Object.assign(board, { unit, weight });
  changed('unit');
}

export const countRight = network => // how many of the examples it reads right
  labels().filter((label, k) => largestAt(read(example(k), network).scores) === label).length;

let counted = [-1, 0];
export function examplesRight() { // of the network on the board; counted again only when its weights have changed
  if (counted[0] !== versions.weights) counted = [versions.weights, countRight(board.network)];
  return counted[1];
}
