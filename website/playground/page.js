// The playground page: loads the network, furnishes the board, starts the parts, and keeps the state in the address.
import { loadNetwork } from './files.js';
import { board, open, watch, whenChanged, take, clear, say, step, reset, use, steps, example, labels, examplesRight, largestAt } from './board.js';
import { small, paintInk } from './pictures.js';
import { boardState, restoreBoard } from './link.js';
import * as pad from './pad.js';
import * as unit from './unit.js';
import * as weights from './weights.js';
import * as fool from './fool.js';
import * as story from './story.js';
import * as live from './live.js';

const $ = id => document.getElementById(id);
const percent = p => `${(100 * p).toFixed(p > 0.9995 || p < 0.0005 ? 0 : 1)}%`;
const rate = () => Number($('rate').value);

// ---- the board

let printed; // what the pad shows, if it was not drawn there
function showBoard() {
  const { pass, probabilities, pixels, digit, before, source } = board;
  if (source !== null && printed !== pixels) pad.print(printed = pixels);
  document.querySelector('.draw').classList.toggle('empty', !pixels);
  $('verdict').textContent = pass ? `The network reads: ${largestAt(pass.scores)}` : 'Draw a digit'; // short: the pad must not move while one draws
  paintInk($('seen'), pixels || new Float64Array(784));
  [...$('bars').children].forEach((row, i) => {
    const p = probabilities ? probabilities[i] : 0, old = row.querySelector('.before');
    row.classList.toggle('true', i === digit);
    row.querySelector('.bar').style.width = `${100 * p}%`;
    row.querySelector('.share').textContent = probabilities ? percent(p) : '';
    old.hidden = !before;
    if (before) old.style.left = `calc(${100 * before.probabilities[i]}% - 1px)`;
  });
  document.querySelectorAll('#truth input').forEach(radio => { radio.checked = Number(radio.value) === digit && digit !== null; });
}

function showBar() {
  const { pixels, loss, before, digit, pass, trained } = board, text = [];
  paintInk($('thumb'), pixels || new Float64Array(784));
  if (loss === null) text.push(pixels ? 'Choose the true digit to see the loss and the gradients.' : 'Draw a digit, or take an example.');
  else {
    text.push(`Reads <b>${largestAt(pass.scores)}</b>, should be <b>${digit}</b>.`);
    text.push(before ? `Loss ${small(before.loss)} → <b>${small(loss)}</b>.` : `Loss <b>${small(loss)}</b>.`);
  }
  if (steps()) text.push(steps() === 1 ? '1 step taken.' : `${steps()} steps taken.`);
  text.push(`${examplesRight()} of ${labels().length} examples right.`);
  if (trained) text.push('The network is your own.');
  $('progress').innerHTML = text.join(' ');
  $('step').disabled = loss === null;
  $('reset').disabled = !steps() && !trained;
  $('reset').textContent = trained && !steps() ? 'Page’s network' : 'Reset';
}

function furnish() {
  labels().forEach((label, k) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('aria-label', `Example: ${label}${k < 10 ? '' : ', misread'}`);
    button.innerHTML = '<canvas role="presentation"></canvas>';
    button.addEventListener('click', () => take(k));
    paintInk(button.firstChild, example(k), 28, [128, 128, 124]);
    $(k < 10 ? 'examples' : 'misread').append(button);
  });
  for (let d = 0; d < 10; d++) {
    const choice = document.createElement('label'), row = document.createElement('li');
    choice.innerHTML = `<input type="radio" name="truth" value="${d}"><span>${d}</span>`;
    choice.firstChild.addEventListener('change', () => say(d));
    $('truth').append(choice);
    row.innerHTML = `<span>${d}</span><span class="track"><span class="bar"></span><span class="before" hidden></span></span><span class="share"></span>`;
    $('bars').append(row);
  }
}

function listen() {
  pad.listen();
  $('clear').addEventListener('click', () => { pad.print(printed = null); clear(); });
  $('step').addEventListener('click', () => step(rate()));
  $('reset').addEventListener('click', () => { if (board.trained && !steps()) use(null, false); else reset(); });
  $('rate').addEventListener('change', address);
  document.addEventListener('click', event => {
    if (!event.target.matches('.copy')) return;
    address();
    const { target } = event, words = target.textContent, say = text => { target.textContent = text; setTimeout(() => { target.textContent = words; }, 1500); };
    navigator.clipboard ? navigator.clipboard.writeText(location.href).then(() => say('Copied'), () => say('It is in the address')) : say('It is in the address');
  });
}

// ---- the address

let later = null;
function address() { // browsers allow few changes a second, so not at once
  clearTimeout(later);
  later = setTimeout(() => {
    const state = { ...boardState(rate()), ...story.state(), ...live.state() }, query = new URLSearchParams(state).toString();
    history.replaceState(null, '', `${location.pathname}${query && `?${query}`}${location.hash}`);
  }, 250);
}

async function restore() {
  const params = new URLSearchParams(location.search), wanted = params.get('rate'), at = Number(params.get('story'));
  const option = wanted && [...$('rate').options].find(({ value }) => Number(value) === Number(wanted));
  if (option) $('rate').value = option.value;
  const ready = live.restore(params);
  if (params.has('own')) {
    await ready;
    if (live.trained()) use(live.trained(), true);
  }
  if (params.has('digit') || params.has('steps')) {
    restoreBoard(params);
    story.restore(at, false);
  } else { take(10); story.restore(at, true); }
  if (board.source === null && board.pixels) pad.print(printed = board.pixels);
}

// In a frame of another page only one part is shown, that of the address: playground.html#unit
function embed() {
  if (window.self === window.top || !location.hash) return;
  const here = document.getElementById(location.hash.slice(1)), part = here && here.closest('.part');
  if (!part) return;
  document.documentElement.classList.add('embedded');
  part.classList.add('shown');
  if (part.dataset.part.includes('board')) $('bar').classList.add('shown');
  window.addEventListener('storage', () => location.reload()); // the theme of the page around it has changed
}

try {
  const { tensors, info } = await loadNetwork();
  open(tensors, info);
  embed();
  furnish();
  listen();
  const openBoard = () => $('board').scrollIntoView({ block: 'center' });
  unit.start();
  weights.start();
  fool.start();
  story.start(address);
  live.start(address, openBoard);
  watch($('board'), ['weights', 'reading'], showBoard);
  watch($('bar'), ['weights', 'reading'], showBar);
  await restore();
  whenChanged(address);
  $('playground').removeAttribute('inert');
  const { layers } = board.network, count = layers.reduce((s, { w, b }) => s + w.length + b.length, 0).toLocaleString('en-US');
  $('about').textContent = `The page's network has layers of ${JSON.parse(info.sizes).join(', ')} units: ${count} weights and biases, each rounded to 16 bits. ` +
    'It was trained by the library of this course on MNIST, and on drawn 1s with a flag and 7s with a bar, which MNIST hardly has. ' +
    `It reads ${(100 * info.accuracy).toFixed(2)}% of the 10,000 validation digits right ` +
    `(${(100 * info.exact).toFixed(2)}% before rounding). The examples are the first of each kind among those, and five of the first twenty that it misreads: the second is the one on which a step does most harm to the others. ` +
    'A drawing is scaled to 20 pixels and centered by its mass, as the digits of MNIST were.';
} catch (error) {
  $('playground').removeAttribute('inert');
  $('playground').classList.add('broken');
  $('trouble').hidden = false;
  $('trouble').textContent = `The network could not be loaded. ${error.message}`;
  throw error;
}
