// A fully connected network, formula by formula, as the notebooks have it; the number of each heading is a notebook's.
// Tensors are Float64Arrays, row after row: x (n, n_in), w (n_in, n_out), b (n_out). One digit is a batch of one row.
// A network is { layers: [{ w, b }, ...], activation }: its activation function stands between each two layers.

// ---- 01 Init: `random()` gives normal numbers

export function normal(nIn, nOut, std, random) {
  return { w: Float64Array.from({ length: nIn * nOut }, () => std * random()), b: new Float64Array(nOut) };
}

export const kaimingNormal = (nIn, nOut, random) => normal(nIn, nOut, Math.sqrt(2 / nIn), random);

// ---- 02 Forward

export function linear(x, w, b) {
  const nOut = b.length, nIn = w.length / nOut, n = x.length / nIn, out = new Float64Array(n * nOut);
  for (let r = 0; r < n; r++) out.set(b, r*nOut);
  for (let i = 0; i < nIn; i++) for (let r = 0; r < n; r++) {
    const v = x[r*nIn + i];
    if (v !== 0) for (let j = 0, o = r*nOut, k = i*nOut; j < nOut; j++) out[o + j] += v * w[k + j];
  }
  return out;
}

export const relu = x => x.map(v => Math.max(v, 0));

// ---- 03 Backward: the gradient of the output comes first, then what the forward pass took

export function linearGrad(grad, inp, w, { n = 1, needInp = true } = {}) {
  const nIn = inp.length / n, nOut = grad.length / n;
  const dInp = needInp && new Float64Array(inp.length), dW = new Float64Array(w.length), dB = new Float64Array(nOut);
  grad.forEach((g, j) => { dB[j % nOut] += g; });
  for (let i = 0; i < nIn; i++) for (let r = 0; r < n; r++) {
    const v = inp[r*nIn + i], o = r*nOut, k = i*nOut;
    if (v !== 0) for (let j = 0; j < nOut; j++) dW[k + j] += v * grad[o + j];
    if (needInp) for (let j = 0; j < nOut; j++) dInp[r*nIn + i] += grad[o + j] * w[k + j];
  }
  return { inp: dInp, w: dW, b: dB };
}

export const reluGrad = (grad, inp) => grad.map((g, i) => inp[i] > 0 ? g : 0);

// ---- 06 Classify: the largest score is taken off first, so that exp cannot overflow

export function logSoftmax(scores, n = 1) {
  const out = scores.slice(), size = scores.length / n;
  for (let r = 0; r < n; r++) {
    const row = out.subarray(r*size, (r + 1)*size), top = Math.max(...row);
    const log = Math.log(row.reduce((sum, v) => sum + Math.exp(v - top), 0));
    row.forEach((v, i) => { row[i] = v - top - log; });
  }
  return out;
}

export const softmax = (scores, n = 1) => logSoftmax(scores, n).map(Math.exp);

export function crossEntropy(scores, targ) { // the mean over all rows; targ is an array, the true digit of each
  const size = scores.length / targ.length, logs = logSoftmax(scores, targ.length);
  return targ.reduce((sum, digit, r) => sum - logs[r*size + digit], 0) / targ.length;
}

export function crossEntropyGrad(scores, targ) {
  const n = targ.length, size = scores.length / n, grad = softmax(scores, n);
  targ.forEach((digit, r) => { grad[r*size + digit] -= 1; });
  return grad.map(v => v / n);
}

export const sigmoid = x => x.map(v => 1 / (1 + Math.exp(-v)));
export const sigmoidGrad = (grad, inp) => sigmoid(inp).map((out, i) => grad[i] * out * (1 - out));
export const tanh = x => x.map(Math.tanh);
export const tanhGrad = (grad, inp) => grad.map((g, i) => g * (1 - Math.tanh(inp[i])**2));

const ACTIVATIONS = { relu: [relu, reluGrad], sigmoid: [sigmoid, sigmoidGrad], tanh: [tanh, tanhGrad] };

// ---- 04 Refactor: the layers one after the other, and back

export function forward({ layers, activation }, x) {
  const [bend] = ACTIVATIONS[activation], inps = [], outs = []; // of each linear layer
  layers.forEach(({ w, b }, k) => {
    inps.push(k ? bend(outs[k-1]) : x);
    outs.push(linear(inps[k], w, b));
  });
  return { inps, outs, scores: outs.at(-1) };
}

export function backward({ layers, activation }, { inps, outs, scores }, targ, needInp = true) {
  const [, bendGrad] = ACTIVATIONS[activation], grads = [], n = targ.length;
  let grad = crossEntropyGrad(scores, targ);
  for (let k = layers.length - 1; k >= 0; k--) {
    grads[k] = { out: grad, ...linearGrad(grad, inps[k], layers[k].w, { n, needInp: needInp || k > 0 }) };
    grad = k ? bendGrad(grads[k].inp, outs[k-1]) : grads[k].inp;
  }
  return { inp: grad, layers: grads }; // of each layer: out, inp, w, b
}

// ---- 08 Optimizers: one tensor, one step, in place; `state` is its memory

export function sgd(p, grad, state, lr, momentum = 0) {
  if (momentum) {
    state.v = state.v ? state.v.map((v, i) => momentum*v + grad[i]) : grad.slice();
    grad = state.v;
  }
  for (let i = 0; i < p.length; i++) p[i] -= lr * grad[i];
}

export function adam(p, grad, state, lr, [beta1, beta2] = [0.9, 0.999], eps = 1e-8) {
  if (!state.t) Object.assign(state, { t: 0, m: new Float64Array(p.length), s: new Float64Array(p.length) });
  const t = state.t += 1, { m, s } = state, share1 = 1 - beta1**t, share2 = Math.sqrt(1 - beta2**t);
  for (let i = 0; i < p.length; i++) {
    m[i] += (1 - beta1) * (grad[i] - m[i]);
    s[i] = beta2*s[i] + (1 - beta2) * grad[i]**2;
    p[i] -= lr * share2 / share1 * m[i] / (Math.sqrt(s[i]) + eps*share2);
  }
}

// A step for every tensor of a network, by one of these rules
export function optimizer(name, lr) {
  const states = new Map(), rules = { sgd, momentum: (p, grad, state) => sgd(p, grad, state, lr, 0.9), adam };
  return ({ layers }, grads) => layers.forEach((layer, k) => {
    for (const part of ['w', 'b']) {
      const p = layer[part];
      if (!states.has(p)) states.set(p, {});
      rules[name](p, grads.layers[k][part], states.get(p), lr);
    }
  });
}

export const step = (network, grads, lr) => optimizer('sgd', lr)(network, grads);

// ---- 00 Data

export const normalize = (pixels, mean, std) => Float64Array.from(pixels, v => (v - mean) / std);
