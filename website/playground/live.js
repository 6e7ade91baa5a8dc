// Training from scratch, as it is seen: choices, buttons, curves, the first layer's weights. The work is done in worker.js.
import { colors, number, small, sizeOf, paint, tiles } from './pictures.js';
import { watch, use } from './board.js';
import { drawChart } from './chart.js';

const CHOICES = { // name: [label, the value that stands at first, values with their words]
  depth: ['Hidden layers', '1', [['0', 'none'], ['1', '1'], ['2', '2'], ['3', '3']]],
  width: ['Units in each', '32', [['8', '8'], ['16', '16'], ['32', '32'], ['64', '64']]],
  activation: ['Activation', 'relu', [['relu', 'ReLU'], ['tanh', 'tanh'], ['sigmoid', 'sigmoid']]],
  start: ['First weights', 'kaiming', [['small', 'too small'], ['kaiming', 'Kaiming'], ['large', 'too large']]],
  optimizer: ['Optimizer', 'sgd', [['sgd', 'SGD'], ['momentum', 'SGD, momentum 0.9'], ['adam', 'Adam']]],
  lr: ['Rate A', '0.1', ['0.0001', '0.001', '0.003', '0.01', '0.03', '0.1', '0.3', '1', '3'].map(v => [v, v])],
  lr2: ['Rate B', '', [['', 'none'], ...['0.0001', '0.001', '0.003', '0.01', '0.03', '0.1', '0.3', '1', '3'].map(v => [v, v])]],
  seed: ['Seed', '1', ['1', '2', '3', '4', '5'].map(v => [v, v])],
};
const $ = id => document.getElementById(id);
const select = name => $(`live-${name}`), chosen = name => select(name).value;
let worker = null, playing = false, steps = 0, curves = [], networks = [], firsts = [], stale = false, told = () => {}, finished = null;

const settings = () => ({ width: +chosen('width'), depth: +chosen('depth'), activation: chosen('activation'), start: chosen('start'),
  optimizer: chosen('optimizer'), seed: +chosen('seed') });
const rates = () => [chosen('lr'), chosen('lr2')].filter(Boolean).map(Number);

// ---- with the worker

function work() {
  if (worker) return;
  worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  worker.onerror = () => fail('the worker did not start');
  worker.onmessage = ({ data }) => data.error ? fail(data.error) : hear(data);
}

function fail(message) {
  $('live-says').textContent = `Training is not possible here. ${message}`;
  playing = false;
  showButtons();
}

function hear(news) {
  news.points.forEach(({ losses, judged }, k) => {
    const curve = curves[k], first = news.steps - losses.length;
    losses.forEach((loss, i) => curve.losses.push([first + i + 1, loss]));
    curve.judged.push(...judged);
  });
  [steps, playing] = [news.steps, news.playing];
  if (news.networks) [networks, stale] = [news.networks, true];
  if (!steps) firsts = networks.map(({ layers }) => layers[0].w);
  requestAnimationFrame(show);
  if (!playing) {
    told();
    if (finished) finished();
  }
}

export function restart(until = null) {
  work();
  [steps, playing, networks] = [0, false, []];
  curves = rates().map(() => ({ losses: [], judged: [] }));
  worker.postMessage({ settings: settings(), rates: rates(), until });
  if (until) worker.postMessage({ play: true });
  show();
}

// ---- what is seen

const accent = k => k ? colors().link : colors().accent;
const percent = v => `${(100 * v).toFixed(1)}%`;

function showButtons() {
  $('live-play').textContent = playing ? 'Pause' : steps ? 'Go on' : 'Train';
  $('live-step').disabled = playing;
  $('live-open').disabled = playing || !steps;
}

function show() {
  showButtons();
  if (!curves.length) return;
  const right = Math.max(100, steps), start = curves[0].losses.slice(0, 1).map(([, loss]) => loss)[0];
  const top = Math.min(start > 2.6 ? 5 : 2.5, 5);
  drawChart($('live-loss'), curves.map(({ losses }, k) => ({ points: losses, color: accent(k) })), { right, top, label: v => v.toFixed(1) });
  drawChart($('live-accuracy'), curves.map(({ judged }, k) => ({ points: judged, color: accent(k) })), { right, top: 1, label: v => `${Math.round(100 * v)}%` });
  const last = curves.map(({ losses, judged }, k) => {
    const recent = losses.slice(-20), loss = recent.reduce((s, [, v]) => s + v, 0) / recent.length;
    const name = `<b class="curve-${k}">${'AB'[k]}, rate ${rates()[k]}:</b> `;
    if (!recent.length) return `${name}${judged.length ? `no step yet, ${percent(judged.at(-1)[1])} read right by chance` : ''}`;
    if (!Number.isFinite(loss)) return `${name}the loss is no number any more: the steps were too long`;
    return `${name}loss ${small(loss)}${judged.length ? `, ${percent(judged.at(-1)[1])} of the digits held out read right` : ''}`;
  });
  $('live-says').innerHTML = `${steps.toLocaleString('en-US')} steps, ${number(steps * 32 / 5000)} times through the digits.<br>${last.join('<br>')}`;
  showTiles();
}

function showTiles() {
  if (!networks.length || !stale) return;
  stale = false;
  $('live-tiles').replaceChildren(...networks.map(({ layers: [{ w, b }] }, k) => {
    const figure = $('live-tiles').children[k] || document.createElement('figure');
    const learned = steps ? w.map((v, i) => v - firsts[k][i]) : w, { values, columns } = tiles(learned, b.length);
    if (!figure.firstChild) figure.innerHTML = '<canvas role="img"></canvas><figcaption></figcaption>';
    paint(figure.firstChild, values, columns, sizeOf([learned]));
    figure.firstChild.setAttribute('aria-label', `Weights of the first layer of ${'AB'[k]}, a tile for each unit`);
    figure.lastChild.textContent = (networks.length > 1 ? `${'AB'[k]}: ` : '') + (steps
      ? 'What the units of the first layer have learned, their weights less the random ones of the start'
      : 'The random weights of the first layer, a tile for each unit');
    return figure;
  }));
}

// ---- start

export function state() { // what differs from how the page begins
  const others = Object.keys(CHOICES).filter(name => chosen(name) !== CHOICES[name][1]).map(name => [name, chosen(name)]);
  return { ...Object.fromEntries(others), ...(steps && !playing ? { at: steps } : {}) };
}

export function restore(params) { // the choices of a link; with `at`, train as far. Resolves when it is there
  for (const name of Object.keys(CHOICES)) {
    const value = params.get(name);
    if (value !== null && [...select(name).options].some(option => option.value === value)) select(name).value = value;
  }
  const at = Math.min(Number(params.get('at')) || 0, 20000);
  if (!at) return Promise.resolve();
  return new Promise(resolve => { finished = () => { if (steps >= at) { finished = null; resolve(); } }; restart(at); });
}

export const trained = () => networks[0];

export function start(onChange, openBoard) {
  told = onChange;
  const field = ([name, [label, first, values]]) => `<label>${label} <select id="live-${name}">${values.map(([value, words]) =>
    `<option value="${value}"${value === first ? ' selected' : ''}>${words}</option>`).join('')}</select></label>`;
  $('live').innerHTML = `<div class="choices">${Object.entries(CHOICES).map(field).join('')}</div>
    <div class="row"><button type="button" id="live-play" class="main">Train</button><button type="button" id="live-step">Step</button><button type="button" id="live-reset">Reset</button>
    <button type="button" id="live-open">Open it above</button><button type="button" class="copy">Copy link</button></div>
    <p id="live-says" aria-live="off"></p>
    <div class="charts"><figure><canvas id="live-loss" role="img" aria-label="Loss over the steps"></canvas><figcaption>Loss of each 32 digits, before their step</figcaption></figure>
    <figure><canvas id="live-accuracy" role="img" aria-label="Share of the digits held out that are read right, over the steps"></canvas><figcaption>Share of the 1,000 digits held out that are read right</figcaption></figure></div>
    <div id="live-tiles"></div>`;
  for (const name of Object.keys(CHOICES)) select(name).addEventListener('change', () => { restart(); told(); });
  $('live-play').addEventListener('click', () => {
    if (!worker) restart();
    playing = !playing;
    worker.postMessage({ play: playing });
    showButtons();
    if (!playing) told();
  });
  $('live-step').addEventListener('click', () => { if (!worker) restart(); worker.postMessage({ step: true }); });
  $('live-reset').addEventListener('click', () => { restart(); told(); });
  $('live-open').addEventListener('click', () => { use(trained(), true); openBoard(); });
  watch($('live'), [], () => { if (!worker) restart(); else { stale = true; show(); } }); // load the digits only when they are looked at
  new ResizeObserver(() => requestAnimationFrame(show)).observe($('live-loss').parentElement);
}
