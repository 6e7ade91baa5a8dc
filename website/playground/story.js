// A story in eight chapters over the same board. A chapter says where its words stand, what it puts on the board, and may
// offer a thing to do; its words are written anew when the board changes.
import {
  board, watch, choose, take, reset, use, step as takeStep, example, examplesRight, countRight, labels, largestAt,
  copy, read,
} from './board.js';
import { crossEntropy, step as stepOf } from './network.js';
import { number, small } from './pictures.js';
import { unitName, nudge } from './unit.js';

const $ = id => document.getElementById(id), MISREAD = 10, WORSE = 11, RATES = [1e-5, 1e-4, 1e-3, 1e-2];
const a = digit => digit === 8 ? 'an' : 'a';
const share = p => `${number(100 * p)}%`, fixed = v => v.toFixed(3).replace(/^-(?!0\.000)/, '−').replace('-', '');
const last = () => board.network.layers.length - 1;
const table = (heads, rows) => {
  const head = heads.map(h => `<th scope="col">${h}</th>`).join('');
  const cells = row => row.map((v, k) => k ? `<td>${v}</td>` : `<th scope="row">${v}</th>`).join('');
  return `<div class="scroll" tabindex="0" role="region" aria-label="${heads.join(', ')}"><table>
    <thead><tr>${head}</tr></thead><tbody>${rows.map(row => `<tr>${cells(row)}</tr>`).join('')}</tbody></table></div>`;
};
const strongestAt = values => largestAt(values.map(Math.abs));
const fresh = k => { // this example, and the page's network as it was
  if (board.trained) use(null, false);
  else reset();
  take(k);
};
const misread = (k = MISREAD) => fresh(k);
const setRate = value => {
  $('rate').value = value;
  $('rate').dispatchEvent(new Event('change'));
};
const ready = () => board.grads ? '' : '<p>Take an example below, or draw a digit and say which one it is, and the story goes on.</p>';
const countWeights = () => board.network.layers.reduce((sum, { w, b }) => sum + w.length + b.length, 0);
const reads = () => largestAt(board.pass.scores);
const strongestAwake = () => strongestAt(board.grads.layers.at(-1).inp.map((g, i) => board.pass.inps.at(-1)[i] > 0 ? g : 0));

const STORY = [
  { title: 'It makes a guess', part: 'board', enter: () => fresh(3),
    text: () => `<p>The picture below is 784 numbers, one for each of its 28×28 <b>pixels</b>: 0 for paper, up to 1 for ink.
        A <b>network</b> multiplies these numbers by numbers of its own, its <b>weights</b>, and adds them up, to 64 sums; a sum
        below 0 becomes 0. From the 64 it makes 32 in the same way, and from these ten, a <b>score</b> for each digit. The
        highest score is its answer. The bars show the scores as <b>probabilities</b>: how sure it is of each digit, 100% in
        all.</p>
      ${board.pass ? `<p>It reads <b>${reads()}</b> and is ${share(Math.max(...board.probabilities))} sure of it. Take another example, or draw a digit yourself.</p>` : ''}`
        },
  { title: 'One number for how wrong', part: 'board', enter: () => misread(),
    text: () => ready() || `<p>This should be ${a(board.digit)} <b>${board.digit}</b>, and the network reads <b>${reads()}</b>. How
        wrong is it? To the true digit it gave a probability of ${share(board.probabilities[board.digit])}. The <b>loss</b> makes
        one number of that: 0 if the probability of the true digit is 100%, 0.69 if it is 50%, 2.3 if it is 10%, as for a
        blind guess, and it goes on growing as the probability comes near 0. (It is minus the natural logarithm of the
        probability.)</p>
      <p>Here the loss is <b>${small(board.loss)}</b>. To learn is to make it smaller. Choose another true digit under the
        bars and see how it changes.</p>` },
  { title: 'Blame the scores', part: 'board', enter: () => misread(),
    text: () => ready() || `<p>Which score should change, and which way? Raise one of them by a little, say 0.01. The loss
        changes by a little, too. The change of the loss divided by the change of the score is called the <b>gradient</b> of
        the score. Above 0: this score should fall. Below 0: it should rise. For a score it turns out simple: its
        probability, and from that of the true digit 1 is taken away.</p>
      ${table(['digit', ...board.probabilities.keys()], [
    ['probability', ...Array.from(board.probabilities, fixed)],
    ['gradient', ...Array.from(board.grads.layers.at(-1).out, fixed)],
  ])}
      <p>Only the score of ${board.digit} should rise. The score of ${largestAt(board.grads.layers.at(-1).out)} gets most of
        the blame.</p>` },
  { title: 'Pass the blame back', part: 'unit', enter: () => { misread(); choose([last() - 1, strongestAwake()]); },
    text: () => ready() || `<p>The scores were made from the <b>units</b> of the layer before: each unit is one number, and
        it goes into each of the ten scores, times a <b>weight</b>. So ask of a unit what we asked of a score: if its number
        rose, would the loss? Take the gradient of each score times the weight that leads there, and add up the
        ten.</p>${blame()}
      <p>The sum is the gradient of the unit: below 0, a larger number here would make the loss smaller. In the same way it
        is handed on to the layer before, and so on to the first one. This is <b>backpropagation</b>: blame, handed back from
        layer to layer. Open other units in the drawing below.</p>` },
  { title: 'One weight by hand', part: 'unit', enter: () => {
    misread();
    choose([last(), reads()], strongestAt(columnOf(reads())));
  },
    text: () => ready() || `<p>What the network knows is in its weights, so each weight gets a gradient too: the number that comes in, times
        the gradient of what it goes into${ofWeight()}. Add a little to the weight, and <b>the loss rises by as much, times the
        gradient</b>. Is that true? Try it. At the
        end of this part of the page, under “One weight by hand”, is a slider that adds to the weight chosen in the table, here one into
        ${unitName(board.unit)}. It runs the network again and compares its loss with what the gradient says: the loss
        before, plus the gradient times what was added.</p>
      <p>Near 0 both agree. Farther out they part: the loss is a curve, and the gradient is its slope at the place where we
        stand.</p>`,
    action: ['Add 0.01 to the weight', () => nudge(0.01)] },
  { title: 'Take a step', part: 'board', enter: () => { misread(); setRate('1e-4'); },
    text: () => ready() || `<p>Now all ${countWeights().toLocaleString('en-US')} weights (and biases, a number added to each sum) at once, each against
        its gradient: if more of it would raise the loss, it gets less, and the other way round. How much? The gradient
        times a small number, the <b>learning rate</b>: new weight = weight − rate × gradient.</p>
      <p>${afterStep()}</p>`,
    action: ['Take a step', () => takeStep(Number($('rate').value))] },
  { title: 'Too large a rate', part: 'board', enter: () => misread(WORSE),
    text: () => ready() || `<p>Another digit, read quite wrong: the loss is ${small(board.loss)}. Why not take a larger
        rate, and be done in one step? The gradient speaks for small changes only. From it one can work out by how much the
        loss should fall: each weight moves by rate × gradient, which should lower the loss by gradient times that, and all
        of it is added up. Here is that promise beside what a step really
        brings, for four rates:</p>
      ${table(['rate', 'promised fall', 'real fall', 'examples right after it'], promises())}
      <p>For the smallest rate the promise holds. For the largest the weights moved much farther than this digit needed: a
        loss of ${small(board.loss)} cannot fall by more than that. The last column shows what it does to other digits. A
        rate is too large when its step leaves the place where the gradient holds.</p>` },
  { title: 'What it forgets', part: 'board', enter: () => { misread(WORSE); setRate('1e-2'); },
    text: () => ready() || `<p>The rate in the bar is 0.01 now.
        ${forgotten()}
        Every weight was moved for this one digit, and the others need the same weights.</p>
      <p>So training shows the network thousands of digits in turn and takes a small step for each handful. <a
        href="#train">Train from scratch</a> does it before your eyes. (Its rates are larger: it steps by the mean gradient of
        many digits, which is smaller.) You know all of it now: a gradient says how the loss
        changes with a number, and a step moves every number a little against its gradient.</p>`,
    action: ['Take the step', () => takeStep(Number($('rate').value))] },
];

function afterStep() {
  if (!board.before) return 'Take a step, here or in the bar that stays on the screen.';
  return `The loss went from ${small(board.before.loss)} to <b>${small(board.loss)}</b>, and the network reads <b>${reads()}</b>. ` +
    (reads() === board.digit ? 'It has learned this digit.' : 'Take more steps, until it reads the digit right.') +
    ' The black marks at the bars show where they were before the step.';
}

function forgotten() {
  const all = labels().length, before = countRight(board.first);
  if (!board.trail.length) return `Before the step it reads ${before} of the ${all} examples below right. Take the step.`;
  const lost = labels().flatMap((label, k) => {
    const [was, now] = [board.first, board.network].map(net => largestAt(read(example(k), net).scores));
    return was === label && now !== label ? [`the ${label} as ${now}`] : [];
  });
  return `Before the step it read ${before} of the ${all} examples below right, now <b>${examplesRight()}</b>. ` +
    (lost.length ? `It reads ${lost.join(', ')}. ` : '');
}

let at = 0, told = () => {}; // 0: not begun

function columnOf(j) { // the gradients of the weights into this score
  const { w, out } = board.grads.layers.at(-1);
  return w.filter((_, k) => k % out.length === j);
}

function ofWeight() { // into a score: from what its gradient is made
  const [layer, j] = board.unit, i = board.weight;
  if (layer !== last() || i === null) return '';
  const came = board.pass.inps.at(-1)[i], into = board.grads.layers.at(-1).out[j];
  return `, here ${number(came)} × ${number(into)} = <b>${number(came * into)}</b>`;
}

function blame() { // of the opened unit, if it is one of the last hidden layer
  const [layer, i] = board.unit, { w, b } = board.network.layers[last()], out = board.grads.layers.at(-1).out;
  if (layer !== last() - 1) return `<p>Open below: ${unitName(board.unit)}.</p>`;
  const weights = Array.from(out, (_, j) => w[i*b.length + j]);
  return `<p>For ${unitName(board.unit)}, the one opened below:</p>` + table(['score of', ...out.keys(), 'sum'], [
    ['gradient', ...Array.from(out, fixed), ''],
    ['× weight', ...weights.map(fixed), ''],
    ['= blame', ...weights.map((v, j) => fixed(v * out[j])), `<b>${fixed(board.grads.layers.at(-1).inp[i])}</b>`],
  ]);
}

function promises() {
  const squares = board.grads.layers.reduce((sum, { w, b }) => [...w, ...b].reduce((s, v) => s + v*v, sum), 0);
  return RATES.map(rate => {
    const tried = copy(board.network);
    stepOf(tried, board.grads, rate);
    const loss = crossEntropy(read(board.pixels, tried).scores, [board.digit]);
    return [rate, number(rate * squares), number(board.loss - loss), `${countRight(tried)} of ${labels().length}`];
  });
}

// ---- the panel, which stands before the part of the page that it talks of

function render() {
  const step = STORY[at - 1];
  $('tale-text').innerHTML = step.text();
}

function go(to, enter = true) {
  at = to;
  const { title, part, enter: prepare, action } = STORY[at - 1], place = document.querySelector(`[data-part~="${part}"]`), tale = $('tale');
  if (enter) prepare();
  if (place.firstElementChild !== tale) place.prepend(tale);
  $('story').textContent = title;
  $('tale-count').textContent = `Chapter ${at} of ${STORY.length}`;
  $('tale-back').disabled = at === 1;
  $('tale-next').textContent = at === STORY.length ? 'Train from scratch' : 'Next';
  $('tale-do').hidden = !action;
  $('tale-do').textContent = action ? action[0] : '';
  [...$('tale-steps').children].forEach((dot, k) => dot.firstChild.setAttribute('aria-current', k + 1 === at ? 'step' : 'false'));
  render();
  told();
}

function turn(to) {
  go(to);
  $('story').focus({ preventScroll: true });
  $('tale').scrollIntoView({ block: 'start' });
}

export const state = () => at ? { story: at } : {};
export const restore = (step, enter) => { if (Number.isInteger(step) && step >= 1 && step <= STORY.length) {
  go(step, enter);
  $('tale').scrollIntoView({ block: 'start' });
} };

export function start(onChange) {
  told = onChange;
  STORY.forEach(({ title }, k) => {
    const item = document.createElement('li');
    item.innerHTML = `<button type="button" aria-label="Chapter ${k + 1}: ${title}" title="${title}">${k + 1}</button>`;
    item.firstChild.addEventListener('click', () => turn(k + 1));
    $('tale-steps').append(item);
  });
  $('tale-back').addEventListener('click', () => turn(at - 1));
  $('tale-back').disabled = true;
  $('tale-next').addEventListener('click', () => {
    if (at < STORY.length) turn(at + 1);
    else $('train').scrollIntoView();
  });
  $('tale-do').addEventListener('click', () => STORY[at - 1].action[1]());
  watch($('tale'), ['weights', 'reading', 'unit'], () => { if (at) render(); });
}
