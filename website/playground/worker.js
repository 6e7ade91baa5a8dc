// Training in a thread of its own, so that the page stays awake. In: { settings, rates, until } starts afresh, { play } goes
// on or pauses, { step } makes one step. Out: the points of the curves and the first layer's weights of what is shown.
import { loadDigits } from './files.js';
import { Training } from './train.js';

const EVERY = 25, SLICE = 40; // steps between two judgements; milliseconds of work before the page hears of it
let loading, trainings = [], playing = false, until = Infinity, timer = null, shown = 0;

function steps(milliseconds) { // all networks step together, on the same digits
  const points = trainings.map(() => ({ losses: [], judged: [] })), end = performance.now() + milliseconds;
  do {
    trainings.forEach((training, k) => {
      points[k].losses.push(training.step());
      if (training.steps % EVERY === 0) points[k].judged.push([training.steps, training.evaluate()]);
    });
  } while (performance.now() < end && trainings[0].steps < until);
  return points;
}

function tell(points) {
  if (trainings[0].steps >= until) [playing, until] = [false, Infinity];
  const show = !playing || performance.now() - shown > 250; // weights are many: not with every message
  if (show) shown = performance.now();
  postMessage({ playing, steps: trainings[0].steps, points, networks: show ? trainings.map(t => t.network) : null });
}

function run() {
  timer = null;
  if (!playing) return;
  tell(steps(SLICE));
  timer = setTimeout(run);
}

onmessage = async ({ data }) => {
  try {
    const digits = await (loading ??= loadDigits()); // one for all, so that what comes in stays in order
    if (data.settings) {
      trainings = data.rates.map(rate => new Training(digits, data.settings, rate));
      [playing, until] = [false, data.until || Infinity];
      tell(trainings.map(training => ({ losses: [], judged: [[0, training.evaluate()]] })));
    }
    if (data.step) tell(steps(0));
    if ('play' in data) {
      playing = data.play;
      if (playing && timer === null) run();
      else if (!playing) tell(trainings.map(() => ({ losses: [], judged: [] })));
    }
  } catch (error) { postMessage({ error: error.message }); }
};
