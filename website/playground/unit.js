// The network drawn, layers as nodes, and one unit opened: what comes in, what it makes of it, and the way back.
import { board, watch, choose, read, largestAt } from './board.js';
import { crossEntropy } from './network.js';
import { number, small, sizeOf, tint, opacity, colors, paintInk, Picture } from './pictures.js';

const $ = id => document.getElementById(id), ROWS = 8, TALL = 16;
let nodes = [], places = [], edges, seen, parts, pictures, nudged, nudging, shape = ''; // nodes[layer][unit], and where they are

export const unitName = ([layer, j]) => layer === board.network.layers.length - 1 ? `the score of ${j}` : `unit ${j} of layer ${layer + 1}`;
const inputName = (layer, i) => layer ? `unit ${i}` : `pixel ${Math.floor(i / 28)}, ${i % 28}`;

// ---- the drawing

function build() { // anew when a network of another shape is on the board
  const sizes = board.network.layers.map(({ b }) => b.length), now = sizes.join();
  if (now === shape) return;
  shape = now;
  $('net').innerHTML = '<canvas class="edges" role="presentation"></canvas>' +
    '<canvas class="seen" width="28" height="28" role="img" aria-label="The 784 pixels"></canvas>';
  [edges, seen] = $('net').children;
  nodes = sizes.map((n, layer) => {
    const column = document.createElement('div'), last = layer === sizes.length - 1;
    column.className = last ? 'layer last' : 'layer';
    column.style.gridTemplateRows = `repeat(${last ? 10 : Math.min(n, TALL)}, auto)`;
    const made = Array.from({ length: n }, (_, j) => {
      const node = document.createElement('button');
      Object.assign(node, { type: 'button', tabIndex: layer || j ? -1 : 0, textContent: last ? j : '' });
      node.setAttribute('aria-label', unitName([layer, j]));
      node.setAttribute('aria-pressed', false);
      node.addEventListener('click', () => choose([layer, j]));
      node.addEventListener('keydown', event => walk(event, layer, j));
      return node;
    });
    column.append(...made);
    $('net').append(column);
    return made;
  });
  measure();
}

function measure() { // once, since asking the browser for places takes it longer than all else here
  const box = $('net').getBoundingClientRect(), at = node => {
    const { left, right, top, bottom } = node.getBoundingClientRect();
    return { left: left - box.left, right: right - box.left, y: (top + bottom) / 2 - box.top };
  };
  places = nodes.map(column => column.map(at));
  places.seen = at(seen);
  edges.width = box.width * devicePixelRatio;
  edges.height = box.height * devicePixelRatio;
}

function walk(event, layer, j) { // from unit to unit: up and down in a layer, left and right also on to the next one
  const tall = layer === nodes.length - 1 ? 10 : Math.min(nodes[layer].length, TALL);
  const by = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -tall, ArrowRight: tall }[event.key];
  if (!by) return;
  event.preventDefault();
  let to = [layer, j + by];
  if (!nodes[layer][j + by]) {
    if (Math.abs(by) === 1 || !nodes[layer + Math.sign(by)]) return;
    const beside = nodes[layer + Math.sign(by)];
    to = [layer + Math.sign(by), by > 0 ? Math.min(j % tall, beside.length - 1) : Math.max(0, beside.length - 1 - (TALL - 1 - j % tall))];
  }
  choose(to);
  nodes[to[0]][to[1]].focus();
}

const values = () => board.pass && board.network.layers.map((_, k) => k < nodes.length - 1 ? board.pass.inps[k + 1] : board.pass.scores);

function showNodes() {
  build();
  const [layer, j] = board.unit, all = values(), hidden = all ? sizeOf(all.slice(0, -1)) : 0;
  paintInk(seen, board.pixels || new Float64Array(784));
  nodes.forEach((column, k) => {
    const scale = all && (k === nodes.length - 1 ? sizeOf([all[k]]) : hidden);
    column.forEach((node, i) => {
      const open = k === layer && i === j;
      node.style.background = all ? tint(all[k][i], scale) : '';
      if (open || node.tabIndex === 0) {
        node.setAttribute('aria-pressed', open);
        node.setAttribute('aria-label', `${unitName([k, i])}${all && open ? `: ${number(all[k][i])}` : ''}`);
        node.tabIndex = open ? 0 : -1;
      }
    });
  });
  nodes.at(-1).forEach((node, i) => node.classList.toggle('read', Boolean(all) && i === largestAt(all.at(-1))));
  showEdges(all);
}

function showEdges(all) { // what comes into the unit, and what goes on from it
  const fine = devicePixelRatio, [layer, j] = board.unit, { layers } = board.network, pen = edges.getContext('2d');
  pen.setTransform(fine, 0, 0, fine, 0, 0);
  pen.clearRect(0, 0, edges.width, edges.height);
  if (!all) return;
  const curve = (from, to, v, scale) => {
    const strength = opacity(v, scale)**2, middle = (from.right + to.left) / 2;
    if (strength < 0.03) return;
    pen.strokeStyle = `rgb(${(v > 0 ? colors().positive : colors().negative).join(' ')} / ${0.15 + 0.75*strength})`;
    pen.lineWidth = 0.6 + 2*strength;
    pen.beginPath();
    pen.moveTo(from.right, from.y);
    pen.bezierCurveTo(middle, from.y, middle, to.y, to.left, to.y);
    pen.stroke();
  };
  const here = places[layer][j], sent = (k, i, o) => all[k][i] * layers[k + 1].w[i*layers[k + 1].b.length + o];
  const draw = (ends, values, line) => { const most = sizeOf([values]); ends.forEach((end, i) => line(end, values[i], most)); };
  if (layer) draw(places[layer - 1], places[layer - 1].map((_, i) => sent(layer - 1, i, j)), (end, v, most) => curve(end, here, v, most));
  else curve(places.seen, here, board.pass.outs[0][j], Math.abs(board.pass.outs[0][j]));
  if (places[layer + 1]) draw(places[layer + 1], places[layer + 1].map((_, o) => sent(layer, j, o)), (end, v, most) => curve(here, end, v, most));
}

// ---- the opened unit

function furnish() {
  $('opened').innerHTML = `<h3 id="unit-name" aria-live="polite"></h3><p id="unit-forward"></p><div class="pictures" id="unit-pictures"></div>
    <div class="scroll" tabindex="0" role="region" aria-label="Weights of the unit"><table><thead><tr><th scope="col" id="unit-from"></th><th scope="col">weight <i>w</i></th><th scope="col">× input</th><th scope="col">= part</th>
    <th scope="col">gradient <i>g</i></th><th scope="col">after a step</th></tr></thead><tbody></tbody></table></div>
    <p id="unit-back"></p>
    <fieldset id="nudge"><legend>One weight by hand</legend><p id="nudge-says" aria-live="polite"></p>
    <label>Add to the weight <input type="range" id="nudge-by" min="-1" max="1" step="0.01" value="0"> <output id="nudge-out"></output></label><p id="nudge-result"></p></fieldset>`;
  pictures = [['unit-weights', 'Weights'], ['unit-inputs', 'Inputs'], ['unit-parts', 'Weight × input']].map(([id, label]) =>
    ({ label, picture: new Picture($('unit-pictures'), id, [28, 28], { scale: 5, onPick: i => choose(board.unit, i) }) }));
  parts = Array.from({ length: ROWS + 1 }, (_, r) => {
    const row = document.createElement('tr');
    const first = r < ROWS ? '<label><input type="radio" name="weight"> <span>weight</span></label>' : '<span></span>';
    row.innerHTML = `<th scope="row">${first}</th>${'<td></td>'.repeat(5)}`;
    row.querySelector('input')?.addEventListener('change', event => choose(board.unit, Number(event.target.value)));
    $('opened').querySelector('tbody').append(row);
    return { row, input: row.querySelector('input'), cells: [row.querySelector('span'), ...row.querySelectorAll('td')] };
  });
  $('nudge-by').addEventListener('input', showNudge);
}

function ofUnit() { // all that is known of the opened unit
  const [layer, j] = board.unit, { w, b } = board.network.layers[layer], n = b.length;
  const column = matrix => Float64Array.from({ length: matrix.length / n }, (_, i) => matrix[i*n + j]);
  const weights = column(w), inputs = board.pass && board.pass.inps[layer], grads = board.grads && board.grads.layers[layer];
  return { layer, j, bias: b[j], weights, inputs, parts: inputs && weights.map((v, i) => v * inputs[i]), z: board.pass && board.pass.outs[layer][j],
    grads: grads && column(grads.w), gradZ: grads && grads.out[j], last: layer === board.network.layers.length - 1 };
}

function showUnit() {
  $('unit-from').textContent = board.unit[0] ? 'from' : 'from (row, column)';
  const u = ofUnit(), rate = Number($('rate').value), { activation } = board.network, name = unitName([u.layer, u.j]);
  $('unit-name').textContent = name[0].toUpperCase() + name.slice(1);
  $('unit-pictures').hidden = u.layer > 0;
  if (!u.inputs) $('unit-forward').textContent = 'Draw a digit to see what the unit makes of it.';
  else {
    const out = u.last ? u.z : board.pass.inps[u.layer + 1][u.j], sum = u.z - u.bias;
    const bends = activation === 'relu' ? 'The ReLU keeps what is above 0 and makes 0 of the rest' : `${activation} makes of it`;
    const bent = u.last ? 'That is the score.' : `${bends}: <b>${number(out)}</b>.`, paper = u.inputs.reduce((p, q) => Math.min(p, q));
    const inputs = u.layer ? 'Each input' : `Each pixel, on a scale where paper is ${number(paper)} and the mean of all digits is 0,`;
    $('unit-forward').innerHTML = `<b>Forward.</b> ${inputs} times its weight, added up: ${number(sum)}. ` +
      `With the bias ${number(u.bias)} that makes <i>z</i> = ${number(u.z)}. ${bent}`;
  }
  if (!u.layer) pictures.forEach(({ label, picture }, k) => {
    const shown = [u.weights, u.inputs, u.parts][k];
    picture.show(shown, { label, columns: 28, full: shown && sizeOf([shown]) });
  });
  const by = u.parts || u.weights, order = Array.from(by.keys()).sort((p, q) => Math.abs(by[q]) - Math.abs(by[p])).slice(0, ROWS);
  u.at = board.weight ?? order[0];
  if (!order.includes(u.at)) order[ROWS - 1] = u.at;
  const rest = by.reduce((s, v, i) => order.includes(i) ? s : s + v, 0);
  parts.forEach(({ row, input, cells }, r) => {
    const i = order[r];
    row.classList.toggle('chosen', i === u.at);
    if (input) Object.assign(input, { value: i, checked: i === u.at });
    const texts = r < ROWS
      ? [inputName(u.layer, i), number(u.weights[i], 5), ...(u.inputs ? [number(u.inputs[i]), number(u.parts[i])] : ['', '']),
        ...(u.grads ? [number(u.grads[i]), number(u.weights[i] - rate*u.grads[i], 5)] : ['', ''])]
      : [`the other ${by.length - ROWS}`, '', '', u.inputs ? number(rest) : '', '', ''];
    cells.forEach((cell, k) => { cell.textContent = texts[k]; });
  });
  $('unit-back').innerHTML = !u.grads ? '<b>Back.</b> Say which digit it is in truth, and the gradients appear.' : `<b>Back.</b> ${back(u, rate)}`;
  $('nudge').hidden = !u.grads;
  if (!u.grads) return;
  const now = [...board.unit, u.at, board.loss].join();
  if (now !== nudging) $('nudge-by').value = 0;
  [nudged, nudging] = [u.at, now];
  showNudge();
}

function back(u, rate) {
  const tail = `Each weight's gradient is its input times that, and a step makes it <i>w</i> − ${rate} × <i>g</i>.`;
  const less = u.j === board.digit ? '1, since it is the true digit' : '0, since another digit is the true one';
  if (u.last) return `For this score the gradient is its probability, ${number(board.probabilities[u.j])}, less ${less}: ${number(u.gradZ)}. ${tail}`;
  const arrived = board.grads.layers[u.layer + 1].inp[u.j];
  const gate = board.network.activation !== 'relu' ? `Through ${board.network.activation} it becomes ${number(u.gradZ)} for <i>z</i>.`
    : u.z > 0 ? `<i>z</i> is above 0, so the ReLU lets it pass.` : `<i>z</i> is not above 0, so the ReLU stops it: 0 for <i>z</i>, and this digit teaches the unit nothing.`;
  return `From the units that it feeds comes the gradient ${number(arrived)}: the sum of each one's gradient times the weight between. ${gate} ${tail}`;
}

function showNudge() { // add to one weight, run the network again, and compare with what the gradient promises
  const u = ofUnit(), by = Number($('nudge-by').value), { w, b } = board.network.layers[u.layer], g = u.grads[nudged];
  const at = nudged*b.length + u.j, kept = w[at];
  w[at] += by;
  const loss = crossEntropy(read(board.pixels).scores, [board.digit]);
  w[at] = kept;
  const signed = v => `${v > 0 ? '+' : ''}${number(v)}`;
  $('nudge-says').innerHTML = `The weight from ${inputName(u.layer, nudged)} is ${number(kept)}; its gradient is ${number(g)}. ` +
    `So for each 1 that the weight grows, the loss should ${g > 0 ? 'rise' : 'fall'} by ${number(Math.abs(g))}, as long as the change is small.`;
  $('nudge-out').textContent = signed(by);
  $('nudge-result').innerHTML = `The loss by the gradient: ${small(board.loss)} ${by*g < 0 ? '−' : '+'} ${number(Math.abs(by*g))} = ` +
    `<b>${number(board.loss + by*g, 5)}</b>. The loss of the network, run again: <b>${number(loss, 5)}</b>.`;
}

export function nudge(by) { // for the story
  showUnit();
  $('nudge-by').value = by;
  showNudge();
  $('nudge').scrollIntoView({ block: 'center' });
}

export function start() {
  build();
  furnish();
  watch($('net'), ['weights', 'reading', 'unit'], showNodes);
  watch($('opened'), ['weights', 'reading', 'unit'], showUnit);
  $('rate').addEventListener('change', showUnit);
  new ResizeObserver(() => { measure(); showEdges(values()); }).observe($('net'));
}
