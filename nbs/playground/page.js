// The playground page: what is drawn and chosen goes through the functions of network.js and becomes pictures.
import { readTensors, networkFrom, normalize, digitFromInk, forward, backward, softmax, crossEntropy, step } from './network.js';

const $ = id => document.getElementById(id);
const pad = $('pad'), pen = pad.getContext('2d', { willReadFrequently: true });
const DIGITS = [...Array(10).keys()];
const percent = p => `${(100 * p).toFixed(p > 0.9995 || p < 0.0005 ? 0 : 1)}%`;

let tensors, info, labels, network; // the file's, and the network with the steps taken
let pixels = null;          // 784 in [0, 1), null for an empty pad
let digit = null;           // the true one, null if nobody said
let printed = false;        // is an example on the pad?
let steps = 0, before = null; // probabilities and loss before the last step

// ---- pictures of numbers

const colors = () => {
  const rgb = color => { // any CSS color, as three numbers
    const dot = new OffscreenCanvas(1, 1).getContext('2d');
    dot.fillStyle = color;
    dot.fillRect(0, 0, 1, 1);
    return [...dot.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const style = getComputedStyle($('playground'));
  return { ink: rgb(style.color), positive: rgb(style.getPropertyValue('--positive')), negative: rgb(style.getPropertyValue('--negative')) };
};

// Values row after row, one pixel each: opaque for the largest, transparent for 0. Numbers with a sign are orange or
// blue, as strong as the root of their size, so that small ones show; without, in ink.
function paint(canvas, values, columns, { ink, positive, negative }, sign = true) {
  canvas.width = columns;
  canvas.height = values.length / columns;
  const largest = values.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1;
  const image = new ImageData(columns, canvas.height);
  values.forEach((v, i) => image.data.set(sign ? [...(v > 0 ? positive : negative), 255 * Math.sqrt(Math.abs(v) / largest)] : [...ink, 255 * v / largest], 4*i));
  canvas.getContext('2d').putImageData(image, 0, 0);
  return largest;
}

// The columns of a matrix (784, n), each as a tile of 28x28, eight tiles a row with a gap between them
function tiles(w, n) {
  const columns = 8*29 - 1, out = new Float64Array(columns * (Math.ceil(n / 8)*29 - 1));
  w.forEach((v, k) => {
    const pixel = Math.floor(k / n), unit = k % n;
    out[(Math.floor(unit / 8)*29 + Math.floor(pixel / 28)) * columns + unit % 8 * 29 + pixel % 28] = v;
  });
  return [out, columns];
}

// One picture with its caption in `place`, made when first asked for
function picture(place, id, label, scale, values, columns, palette) {
  let figure = $(id);
  if (!figure) {
    figure = document.createElement('figure');
    figure.id = id;
    figure.innerHTML = '<canvas role="img"></canvas><figcaption></figcaption>';
    $(place).append(figure);
  }
  const canvas = figure.firstChild;
  const largest = values ? paint(canvas, values, columns, palette) : 0;
  figure.hidden = !values;
  canvas.setAttribute('aria-label', label);
  if (scale) canvas.style.width = `${columns * scale}px`;
  if (scale) figure.style.width = `${Math.max(columns * scale, 125)}px`;
  figure.lastChild.textContent = `${label}. Largest: ${largest.toPrecision(3)}`;
}

// ---- the page

function showBars(probabilities) {
  [...$('bars').children].forEach((row, i) => {
    const p = probabilities ? probabilities[i] : 0, old = row.querySelector('.before');
    row.classList.toggle('true', i === digit);
    row.querySelector('.bar').style.width = `${100 * p}%`;
    row.querySelector('.share').textContent = probabilities ? percent(p) : '';
    old.hidden = !before;
    if (before) old.style.left = `calc(${100 * before.probabilities[i]}% - 1px)`;
  });
}

function examplesRight() { // how many of the examples the network reads rightly now
  return labels.filter((label, k) => {
    const { scores } = forward(network, input(example(k)));
    return scores.indexOf(Math.max(...scores)) === label;
  }).length;
}

const example = k => Float64Array.from(tensors.examples.slice(784*k, 784*(k + 1)), v => v / 256);
const input = values => normalize(values, info.mean, info.std);

function showProgress(loss) {
  const taken = steps === 1 ? '1 step taken' : `${steps} steps taken`;
  const right = steps ? ` ${taken}; of the ${labels.length} examples, ${examplesRight()} are read rightly now.` : '';
  if (loss === null) $('progress').textContent = (pixels ? 'Choose the true digit to see the loss and the gradients.' : 'Draw a digit, or take an example.') + right;
  else $('progress').textContent = (before ? `Loss ${before.loss.toPrecision(3)} before the step, ${loss.toPrecision(3)} after it.` : `Loss ${loss.toPrecision(3)}.`) + right;
}

function show() {
  const palette = colors();
  const pass = pixels && forward(network, input(pixels));
  const probabilities = pass && softmax(pass.scores);
  const loss = pass && digit !== null ? crossEntropy(pass.scores, digit) : null;
  const grads = loss === null ? null : backward(network, pass, digit);
  paint($('seen'), pixels || new Float64Array(784), 28, palette, false);
  const best = probabilities && probabilities.indexOf(Math.max(...probabilities));
  $('verdict').textContent = pass ? `The network reads: ${best}` : '';
  showBars(probabilities);
  showProgress(loss);
  $('step').disabled = loss === null;
  $('reset').disabled = !steps;
  network.slice(1).forEach((layer, k) => {
    const values = pass && pass.inps[k + 1];
    picture('activations', `activations-${k}`, `Layer ${k + 1}: ${layer.w.length / layer.b.length} activations`, 22, values, 8, palette);
  });
  picture('activations', 'scores', 'The ten scores, for 0 to 9', 22, pass && pass.scores, 10, palette);
  network.forEach(({ w, b }, k) => {
    const n = b.length, drawn = values => k ? [values, n] : tiles(values, n);
    const [place, scale] = k ? ['matrices', 4] : ['features', 0];
    picture(place, `weights-${k}`, `Weights of layer ${k + 1}, ${w.length / n}×${n}`, scale, ...drawn(w), palette);
    picture(place, `gradient-${k}`, 'Their gradient', scale, ...(grads ? drawn(grads.layers[k].w) : [null, n]), palette);
  });
  picture('pixels', 'input-gradient', 'Gradient of the loss with respect to the 784 inputs', 7, grads && grads.inp, 28, palette);
}

function take(values, label) { // show `values` on the pad and to the network
  pixels = values;
  digit = label;
  printed = values !== null;
  before = null;
  document.querySelectorAll('#truth input').forEach(radio => { radio.checked = Number(radio.value) === digit; });
  pen.clearRect(0, 0, pad.width, pad.height);
  if (values) {
    const small = new OffscreenCanvas(28, 28);
    paint(small, values, 28, colors(), false);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, pad.width, pad.height);
  }
  show();
}

// ---- drawing

let queued = false;
function redraw() { // at most once a frame
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    const { data } = pen.getImageData(0, 0, pad.width, pad.height);
    pixels = digitFromInk(Float64Array.from({ length: data.length / 4 }, (_, i) => data[4*i + 3] / 255), pad.width);
    before = null;
    show();
  });
}

let last = null;
const position = event => {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
};
function draw(event) {
  if (!last) return;
  const next = position(event);
  Object.assign(pen, { lineWidth: 22, lineCap: 'round', lineJoin: 'round', strokeStyle: getComputedStyle(pad).color });
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...next);
  pen.stroke();
  last = next;
  redraw();
}

// ---- start

function listen() {
  pad.addEventListener('pointerdown', event => {
    if (printed) take(null, null); // a new digit on an empty pad
    pad.setPointerCapture(event.pointerId);
    last = position(event);
    draw(event);
  });
  pad.addEventListener('pointermove', draw);
  for (const end of ['pointerup', 'pointercancel']) pad.addEventListener(end, () => { last = null; });
  $('clear').addEventListener('click', () => take(null, null));
  $('step').addEventListener('click', () => {
    const pass = forward(network, input(pixels));
    before = { probabilities: softmax(pass.scores), loss: crossEntropy(pass.scores, digit) };
    step(network, backward(network, pass, digit), Number($('rate').value));
    steps += 1;
    show();
  });
  $('reset').addEventListener('click', () => {
    network = networkFrom(tensors);
    steps = 0;
    before = null;
    show();
  });
  let color = getComputedStyle(pad).color;
  const theme = new MutationObserver(() => { // ink and paper swap
    if (color === (color = getComputedStyle(pad).color)) return;
    const image = pen.getImageData(0, 0, pad.width, pad.height), { ink } = colors();
    for (let i = 0; i < image.data.length; i += 4) image.data.set(ink, i);
    pen.putImageData(image, 0, 0);
    show();
  });
  for (const place of [document.documentElement, document.body]) theme.observe(place, { attributes: true });
}

function furnish() {
  labels.forEach((label, k) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('aria-label', `Example: ${label}${k < 10 ? '' : ', misread'}`);
    button.innerHTML = '<canvas role="presentation"></canvas>';
    button.addEventListener('click', () => take(example(k), label));
    paint(button.firstChild, example(k), 28, { ink: [138, 138, 133] }, false);
    $(k < 10 ? 'examples' : 'misread').append(button);
  });
  for (const d of DIGITS) {
    const label = document.createElement('label');
    label.innerHTML = `<input type="radio" name="truth" value="${d}"><span>${d}</span>`;
    label.firstChild.addEventListener('change', () => { digit = d; before = null; show(); });
    $('truth').append(label);
    const row = document.createElement('li');
    row.innerHTML = `<span>${d}</span><span class="track"><span class="bar"></span><span class="before" hidden></span></span><span class="share"></span>`;
    $('bars').append(row);
  }
}

try {
  const file = new URL('network.safetensors', import.meta.url), response = await fetch(file);
  if (!response.ok) throw new Error(`${file.pathname}: the server says ${response.status}`);
  const buffer = await response.arrayBuffer();
  ({ tensors, info } = readTensors(buffer));
  labels = [...tensors.labels];
  network = networkFrom(tensors);
  const count = network.reduce((s, { w, b }) => s + w.length + b.length, 0);
  $('about').textContent = `The network has layers of ${JSON.parse(info.sizes).join(', ')} units: ${count.toLocaleString('en-US')} numbers of 16 bits, ` +
    `${Math.round(buffer.byteLength / 1000)} kB with the examples. It reads ${(100 * info.accuracy).toFixed(2)}% of the 10,000 validation digits rightly; ` +
    `before its weights were rounded to 16 bits it was ${(100 * info.exact).toFixed(2)}%. The examples are the first of each kind among those, and the first five that it misreads.`;
  furnish();
  listen();
  take(example(3), 3);
} catch (error) {
  $('trouble').hidden = false;
  $('trouble').textContent = `The network could not be loaded. ${error.message}`;
  throw error;
}
