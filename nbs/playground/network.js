// The forward and backward pass of one digit through a fully connected network, as the notebooks have it:
// 02 Forward (linear, relu), 03 Backward (their gradients), 07 Classify (softmax, cross-entropy and its gradient).
// Vectors are Float64Arrays. A matrix of shape (n_in, n_out) is one too, row after row: entry (i, j) is w[i*n_out + j].

// ---- 02 Forward

export function linear(x, w, b) {
  const out = b.slice(), n = b.length;
  for (let i = 0; i < x.length; i++) for (let j = 0; j < n; j++) out[j] += x[i] * w[i*n + j];
  return out;
}

export const relu = x => x.map(v => Math.max(v, 0));

// ---- 03 Backward: the gradient of the output comes first, then what the forward pass took

export function linearGrad(grad, inp, w) {
  const n = grad.length, dInp = new Float64Array(inp.length), dW = new Float64Array(w.length);
  for (let i = 0; i < inp.length; i++) for (let j = 0; j < n; j++) {
    dInp[i] += grad[j] * w[i*n + j];
    dW[i*n + j] = inp[i] * grad[j];
  }
  return { inp: dInp, w: dW, b: grad.slice() };
}

export const reluGrad = (grad, inp) => grad.map((g, i) => inp[i] > 0 ? g : 0);

// ---- 07 Classify: the largest score is taken off first, so that exp cannot overflow

export function logSoftmax(scores) {
  const top = Math.max(...scores), sum = scores.reduce((s, v) => s + Math.exp(v - top), 0);
  return scores.map(v => v - top - Math.log(sum));
}

export const softmax = scores => logSoftmax(scores).map(Math.exp);
export const crossEntropy = (scores, digit) => -logSoftmax(scores)[digit];
export const crossEntropyGrad = (scores, digit) => softmax(scores).map((p, i) => p - (i === digit));

// ---- 04 Refactor: the layers one after the other, and back. A network is a list of {w, b}, a ReLU between each two.

export function forward(network, x) {
  const inps = [], outs = []; // of each linear layer
  network.forEach(({ w, b }, k) => {
    inps.push(k ? relu(outs[k-1]) : x);
    outs.push(linear(inps[k], w, b));
  });
  return { inps, outs, scores: outs.at(-1) };
}

export function backward(network, { inps, outs, scores }, digit) {
  const layers = [];
  let grad = crossEntropyGrad(scores, digit);
  for (let k = network.length - 1; k >= 0; k--) {
    layers[k] = linearGrad(grad, inps[k], network[k].w);
    grad = k ? reluGrad(layers[k].inp, outs[k-1]) : layers[k].inp;
  }
  return { inp: grad, layers };
}

// ---- 08 Train: one step of SGD

export function step(network, grads, lr) {
  network.forEach((layer, k) => {
    for (const name of ['w', 'b']) layer[name] = layer[name].map((v, i) => v - lr * grads.layers[k][name][i]);
  });
}

// ---- 00 Data and 14 Images: pixels. A picture is { values, height, width }.

export const normalize = (pixels, mean, std) => Float64Array.from(pixels, v => (v - mean) / std);

const round = v => Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v); // halves to even, as in Python
const least = a => a.reduce((p, q) => Math.min(p, q)), most = a => a.reduce((p, q) => Math.max(p, q));

function crop({ values, width }, top, left, h, w) { // zeros where there is nothing
  const out = new Float64Array(h * w), height = values.length / width;
  out.forEach((_, i) => {
    const y = top + Math.floor(i / w), x = left + i % w;
    if (y >= 0 && y < height && x >= 0 && x < width) out[i] = values[y*width + x];
  });
  return { values: out, height: h, width: w };
}

function cut(picture) { // the box around the ink
  const rows = [], cols = [], { values, width } = picture;
  values.forEach((v, i) => { if (v > 0.25) { rows.push(Math.floor(i / width)); cols.push(i % width); } });
  if (!rows.length) return null;
  const top = least(rows), left = least(cols);
  return crop(picture, top, left, most(rows) - top + 1, most(cols) - left + 1);
}

function around({ values, height, width }, n, choose) { // the largest or smallest of the 2n+1 rows and columns around
  const along = (a, stride, side) => a.map((v, i) => {
    const at = Math.floor(i / stride) % side;
    for (let d = Math.max(-n, -at); d <= Math.min(n, side - 1 - at); d++) v = choose(v, a[i + d*stride]);
    return v;
  });
  return { values: along(along(values, width, height), 1, width), height, width };
}

const pad = (picture, n) => crop(picture, -n, -n, picture.height + 2*n, picture.width + 2*n);

function penOf(picture) { // its width, in pixels
  const full = pad({ ...picture, values: picture.values.map(v => +(v > 0.5)) }, 1), sum = (s, v) => s + v;
  const area = full.values.reduce(sum), inner = around(full, 1, Math.min).values.reduce(sum);
  return 2 * area / (area - inner);
}

function fitPen(box) { // strokes as wide as those of MNIST: a tenth of the longer side
  const { height, width } = box, n = Math.min(Math.trunc((penOf(box) - 0.1 * Math.max(height, width)) / (2 * (1 - 0.1))),
                                              Math.floor((Math.min(height, width) - 1) / 2));
  return n > 0 ? around(pad(box, 1), n, Math.min) : around(pad(box, -n), -n, Math.max);
}

// Ink in [0, 1], `width` columns, brought into MNIST's form: its pen, the longer side 20 pixels, centered by mass in
// 28x28. (For drawings under 20 pixels `digit_from_image` interpolates where this repeats pixels.) Null without ink.
export function digitFromInk(ink, width) {
  const found = cut({ values: ink, height: ink.length / width, width });
  if (!found) return null;
  const box = cut(fitPen(found)), { height: h, width: w } = box;
  const scale = 20 / Math.max(h, w), sh = Math.max(1, round(h * scale)), sw = Math.max(1, round(w * scale));
  const span = (i, side, n) => { // the rows or columns whose middle lies in row or column i of n, as Pillow has it
    const step = side / n, wide = Math.max(step, 1), middle = (i + 0.5) * step, found = [];
    const last = Math.min(side, Math.trunc(middle + 0.5 * wide + 0.5));
    for (let k = Math.max(0, Math.trunc(middle - 0.5 * wide + 0.5)); k < last; k++) {
      const far = (k - middle + 0.5) / wide;
      if (far > -0.5 && far <= 0.5) found.push(k);
    }
    return found;
  };
  const small = new Float64Array(sh * sw);
  for (let r = 0; r < sh; r++) for (let c = 0; c < sw; c++) {
    const rows = span(r, h, sh), cols = span(c, w, sw);
    for (const y of rows) for (const x of cols) small[r*sw + c] += box.values[y*w + x];
    small[r*sw + c] /= rows.length * cols.length;
  }
  const peak = most(small), mass = small.reduce((s, v) => s + v);
  const place = (side, position) => { // so that the center of mass falls on the center
    const center = small.reduce((s, v, i) => s + v * position(i), 0) / mass;
    return Math.min(Math.max(round(14 - center), 0), 28 - side);
  };
  const y0 = place(sh, i => Math.floor(i / sw)), x0 = place(sw, i => i % sw), digit = new Float64Array(784);
  small.forEach((v, i) => { digit[(y0 + Math.floor(i / sw))*28 + x0 + i % sw] = v / peak * 255 / 256; });
  return digit;
}

// ---- the file: safetensors, with weights as 16-bit floats

export const half = bits => { // sign, 5 bits of exponent, 10 of fraction
  const exponent = bits >> 10 & 31, fraction = bits & 1023;
  return (bits & 0x8000 ? -1 : 1) * (exponent ? 2**(exponent - 25) * (1024 + fraction) : 2**-24 * fraction);
};

export function readTensors(buffer) {
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: info, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const tensors = {};
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(entries)) {
    const bytes = buffer.slice(8 + size + start, 8 + size + end);
    tensors[name] = dtype === 'F16' ? Float64Array.from(new Uint16Array(bytes), half) : new Uint8Array(bytes);
  }
  return { tensors, info };
}

export function networkFrom(tensors) {
  const layers = Object.keys(tensors).filter(name => name.endsWith('.w')).map(name => name.slice(0, -2)).sort();
  return layers.map(k => ({ w: tensors[`${k}.w`].slice(), b: tensors[`${k}.b`].slice() }));
}
