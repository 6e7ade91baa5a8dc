// The playground page: what is drawn and chosen goes through the functions of network.js and becomes pictures.
import { readTensors, networkFrom, normalize, digitFromInk, forward, backward, softmax, crossEntropy, step } from './network.js';

const $ = id => document.getElementById(id);
const pad = $('pad'), pen = pad.getContext('2d', { willReadFrequently: true });
const largestAt = values => values.reduce((best, v, i) => v > values[best] ? i : best, 0);
const percent = p => `${(100 * p).toFixed(p > 0.9995 || p < 0.0005 ? 0 : 1)}%`;

let tensors, info, labels, network; // the file's; and the network with the steps taken
let pixels = null;            // 784 in [0, 1), null for an empty pad
let printed = false;          // is an example on the pad?
let digit = null;             // the true one, null if nobody said
let steps = 0, before = null; // probabilities and loss before the last step

const example = k => Float64Array.from(tensors.examples.slice(784*k, 784*(k + 1)), v => v / 256);
const input = values => normalize(values, info.mean, info.std);

// ---- pictures of numbers

function colors() {
  const rgb = color => { // any CSS color, as three numbers
    const dot = new OffscreenCanvas(1, 1).getContext('2d');
    dot.fillStyle = color;
    dot.fillRect(0, 0, 1, 1);
    return [...dot.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const style = getComputedStyle($('playground'));
  return { ink: rgb(style.color), positive: rgb(style.getPropertyValue('--positive')), negative: rgb(style.getPropertyValue('--negative')) };
}

// Values row after row, one pixel each: opaque for the one largest in size, which is returned, transparent for 0.
// With `sign` they are red or blue, as strong as the root of their size, so that small ones show; without, in ink.
function paint(canvas, values, columns, { ink, positive, negative }, sign = true) {
  canvas.width = columns;
  canvas.height = values.length / columns;
  const largest = values[largestAt(values.map(Math.abs))], image = new ImageData(columns, canvas.height);
  values.forEach((v, i) => {
    const size = largest ? v / largest : 0;
    image.data.set(sign ? [...(v > 0 ? positive : negative), 255 * Math.sqrt(Math.abs(size))] : [...ink, 255 * size], 4*i);
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
  return largest;
}

// The columns of a matrix (784, n), each as a tile of 28x28, eight tiles a row with a gap between them
const TILED = 8*29 - 1;
function tiles(w, n) {
  const out = new Float64Array(TILED * (Math.ceil(n / 8)*29 - 1));
  w.forEach((v, k) => {
    const pixel = Math.floor(k / n), unit = k % n;
    out[(Math.floor(unit / 8)*29 + Math.floor(pixel / 28)) * TILED + unit % 8 * 29 + pixel % 28] = v;
  });
  return out;
}

// What the cells of a picture are called
const cell = columns => i => `row ${Math.floor(i / columns)}, column ${i % columns}`;
const tile = i => {
  const y = Math.floor(i / TILED), x = i % TILED;
  return `unit ${Math.floor(y / 29)*8 + Math.floor(x / 29)}, pixel row ${y % 29}, column ${x % 29}`;
};

// A picture with its caption in `place`, made when first asked for; without values it keeps its room
function picture(place, id, { label, values, columns, name = cell(columns), scale = 0 }, palette) {
  let figure = $(id);
  if (!figure) {
    figure = document.createElement('figure');
    figure.id = id;
    figure.innerHTML = '<canvas role="img"></canvas><figcaption></figcaption>';
    if (scale) figure.style.width = `${Math.max(columns * scale, 125)}px`;
    if (scale) figure.firstChild.style.width = `${columns * scale}px`;
    $(place).append(figure);
  }
  const [canvas, caption] = figure.children;
  figure.style.visibility = values ? 'visible' : 'hidden';
  if (!values) return;
  const largest = paint(canvas, values, columns, palette);
  const summary = `${label}. Largest: ${largest.toPrecision(3)}`;
  canvas.setAttribute('aria-label', label);
  caption.textContent = summary;
  canvas.onpointermove = event => {
    const box = canvas.getBoundingClientRect(), rows = values.length / columns;
    const at = (side, from, size, n) => Math.min(Math.max(Math.floor((side - from) / size * n), 0), n - 1);
    const i = at(event.clientY, box.top, box.height, rows) * columns + at(event.clientX, box.left, box.width, columns);
    caption.textContent = `${name(i)}: ${values[i].toPrecision(3)}`;
  };
  canvas.onpointerleave = () => { caption.textContent = summary; };
}

// ---- the page

const examplesRight = () => // how many of the examples the network reads rightly now
  labels.filter((label, k) => largestAt(forward(network, input(example(k))).scores) === label).length;

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

function showProgress(loss) {
  const text = [];
  if (loss !== null && before) text.push(`Loss ${before.loss.toPrecision(3)} before the step, ${loss.toPrecision(3)} after it.`);
  else if (loss !== null) text.push(`Loss ${loss.toPrecision(3)}.`);
  else if (pixels) text.push('Choose the true digit to see the loss and the gradients.');
  if (steps) text.push(steps === 1 ? '1 step taken.' : `${steps} steps taken.`);
  text.push(`The network reads ${examplesRight()} of the ${labels.length} examples rightly.`);
  $('progress').textContent = text.join(' ');
}

function showPictures(pass, grads) {
  const palette = colors();
  paint($('seen'), pixels || new Float64Array(784), 28, palette, false);
  network.slice(1).forEach((layer, k) => {
    const label = `Layer ${k + 1}: ${layer.w.length / layer.b.length} activations`, values = pass && pass.inps[k + 1];
    picture('activations', `activations-${k}`, { label, values, columns: 8, name: i => `unit ${i}`, scale: 22 }, palette);
  });
  const scores = { label: 'The ten scores, for 0 to 9', values: pass && pass.scores, columns: 10, name: i => `digit ${i}`, scale: 22 };
  picture('activations', 'scores', scores, palette);
  network.forEach(({ w, b }, k) => {
    const n = b.length, gradient = grads && grads.layers[k].w;
    const [place, drawn, how] = k ? ['matrices', v => v, { columns: n, scale: 4 }]
                                  : ['features', v => v && tiles(v, n), { columns: TILED, name: tile }];
    picture(place, `weights-${k}`, { label: `Weights of layer ${k + 1}, ${w.length / n}×${n}`, values: drawn(w), ...how }, palette);
    picture(place, `gradient-${k}`, { label: 'Their gradient', values: drawn(gradient), ...how }, palette);
  });
  const back = { label: 'Gradient of the loss for the 784 inputs', values: grads && grads.inp, columns: 28, scale: 7 };
  picture('pixels', 'input-gradient', back, palette);
}

function show() {
  const pass = pixels && forward(network, input(pixels));
  const known = pass && digit !== null;
  document.querySelector('.draw').classList.toggle('empty', !pixels);
  $('verdict').textContent = pass ? `The network reads: ${largestAt(pass.scores)}` : 'Draw a digit'; // short: the pad must not move while one draws
  showBars(pass && softmax(pass.scores));
  showProgress(known ? crossEntropy(pass.scores, digit) : null);
  showPictures(pass, known ? backward(network, pass, digit) : null);
  $('step').disabled = !known;
  $('reset').disabled = !steps;
}

function take(values, label) { // put an example and its label on the board, or with null nothing
  [pixels, digit, before, printed] = [values, label, null, values !== null];
  document.querySelectorAll('#truth input').forEach(radio => { radio.checked = Number(radio.value) === digit && digit !== null; });
  pen.clearRect(0, 0, pad.width, pad.height);
  if (values) {
    const small = new OffscreenCanvas(28, 28);
    paint(small, values, 28, colors(), false);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, pad.width, pad.height);
  }
  show();
}

// ---- drawing, with one pointer at a time

let queued = false;
function read() { // what is on the pad, at most once a frame
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

const WIDTH = 22; // of the pen, in pixels of the pad
let stroke = null; // the pointer that draws, and where it was last
function draw(event) {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  if (printed) take(null, null); // a new digit on an empty pad
  const box = pad.getBoundingClientRect();
  const to = [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
  const color = getComputedStyle(pad).color;
  Object.assign(pen, { lineWidth: WIDTH, strokeStyle: color, fillStyle: color });
  pen.beginPath();
  pen.moveTo(...(stroke.at || to));
  pen.lineTo(...to);
  pen.stroke();
  pen.beginPath(); // a line of no length leaves no ink: the round end is a disk of its own
  pen.arc(...to, WIDTH / 2, 0, 2 * Math.PI);
  pen.fill();
  stroke.at = to;
  read();
}

// ---- start

function listen() {
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
  $('clear').addEventListener('click', () => take(null, null));
  $('step').addEventListener('click', () => {
    const pass = forward(network, input(pixels));
    before = { probabilities: softmax(pass.scores), loss: crossEntropy(pass.scores, digit) };
    step(network, backward(network, pass, digit), Number($('rate').value));
    steps += 1;
    show();
  });
  $('reset').addEventListener('click', () => {
    [network, steps, before] = [networkFrom(tensors), 0, null];
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
  for (let d = 0; d < 10; d++) {
    const choice = document.createElement('label'), row = document.createElement('li');
    choice.innerHTML = `<input type="radio" name="truth" value="${d}"><span>${d}</span>`;
    choice.firstChild.addEventListener('change', () => { [digit, before] = [d, null]; show(); });
    $('truth').append(choice);
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
  const count = network.reduce((s, { w, b }) => s + w.length + b.length, 0).toLocaleString('en-US');
  $('about').textContent = `The network has layers of ${JSON.parse(info.sizes).join(', ')} units: ${count} weights and biases, each rounded to 16 bits, ` +
    `${Math.round(buffer.byteLength / 1000)} kB with the examples. It reads ${(100 * info.accuracy).toFixed(2)}% of the 10,000 validation digits rightly ` +
    `(${(100 * info.exact).toFixed(2)}% before rounding). The examples are the first of each kind among those, and the first five that it misreads.`;
  furnish();
  listen();
  take(example(10), labels[10]);
} catch (error) {
  $('trouble').hidden = false;
  $('trouble').textContent = `The network could not be loaded. ${error.message}`;
  throw error;
}
