// Training from scratch, as notebooks 06 and 08 do it: fresh weights, shuffled digits, a minibatch for each step.
import { normal, kaimingNormal, forward, backward, crossEntropy, optimizer, normalize } from './network.js';

export const BATCH = 32, STARTS = { small: 0.001, kaiming: null, large: 1 }; // the standard deviation of the first weights
const LAST = 0.02; // that of the output layer under Kaiming's rule, as in the notebooks

// The same numbers for the same seed: uniform ones by the mulberry32 generator, normal ones from pairs of them
export function randomness(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = state + 0x6D2B79F5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2**32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const shuffle = n => { // the numbers from 0 to n-1
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  };
  return { normal, shuffle };
}

export function freshNetwork({ width, depth, activation, start, seed }) {
  const sizes = [784, ...Array(depth).fill(width), 10], random = randomness(seed).normal, std = STARTS[start];
  const layer = (nIn, k) => {
    const nOut = sizes[k+1], last = k === depth;
    if (std === null) return last ? normal(nIn, nOut, LAST, random) : kaimingNormal(nIn, nOut, random);
    return normal(nIn, nOut, std, random);
  };
  return { activation, layers: sizes.slice(0, -1).map(layer) };
}

// One network in training. `rows` are the digits that come next, the same for the same seed.
export class Training {
  constructor(digits, settings, rate) {
    Object.assign(this, { digits, steps: 0, order: [], shuffle: randomness(settings.seed + 1).shuffle });
    this.network = freshNetwork(settings);
    this.update = optimizer(settings.optimizer, rate);
  }

  batch(rows) { // normalized pixels and labels of these digits
    const { x, y, mean, std } = this.digits, pixels = new Uint8Array(784 * rows.length);
    rows.forEach((row, r) => pixels.set(x.subarray(784*row, 784*(row + 1)), 784*r));
    return { x: normalize(pixels, 256*mean, 256*std), targ: Array.from(rows, row => y[row]) };
  }

  step() { // the loss of the minibatch before the step
    if (this.order.length < BATCH) this.order = this.shuffle(this.digits.n);
    this.rows = this.order.subarray(0, BATCH);
    this.order = this.order.subarray(BATCH);
    const { x, targ } = this.batch(this.rows), pass = forward(this.network, x);
    this.grads = backward(this.network, pass, targ, false);
    this.update(this.network, this.grads);
    this.steps += 1;
    return crossEntropy(pass.scores, targ);
  }

  evaluate() { // the share of the digits held out that the network reads right
    const { x, y, n } = this.digits;
    this.heldOut ??= this.batch(Uint32Array.from({ length: y.length - n }, (_, i) => n + i));
    const { scores } = forward(this.network, this.heldOut.x);
    const right = this.heldOut.targ.filter((digit, r) => {
      const row = scores.subarray(10*r, 10*r + 10);
      return row.every(v => v <= row[digit]); // false for nan
    });
    return right.length / this.heldOut.targ.length;
  }
}
