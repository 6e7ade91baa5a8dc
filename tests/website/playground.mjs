// The playground in Firefox, over WebDriver BiDi: it draws, reads, steps, opens a unit, tells its story, and trains.
// node playground.mjs <where node_modules is> <firefox> <address>; prints what is wrong and the first losses of a training.
import { createRequire } from 'node:module';

const [modules, executablePath, address] = process.argv.slice(2), puppeteer = createRequire(modules + '/')('puppeteer-core');
const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true, defaultViewport: { width: 1280, height: 900 } });
const page = await browser.newPage(), wrong = [];
const must = (fact, what) => fact || wrong.push(what);
page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
page.on('pageerror', error => wrong.push(String(error)));

const text = selector => page.$eval(selector, e => e.textContent), soon = () => new Promise(done => setTimeout(done, 600));
const show = selector => page.$eval(selector, e => e.scrollIntoView({ block: 'center' }));
await page.goto(address + 'playground.html');
await page.waitForSelector('#playground:not([inert])');
await page.click('#clear');
await show('#pad');
await soon();
const pad = await (await page.$('#pad')).boundingBox(), at = (x, y) => [pad.x + pad.width*x, pad.y + pad.height*y];
await page.mouse.move(...at(0.29, 0.25));
await page.mouse.down();
for (const point of [[0.71, 0.25], [0.46, 0.82]]) await page.mouse.move(...at(...point), { steps: 10 });
await page.mouse.up();
await soon();
must(await text('#verdict') === 'The network reads: 7', `a drawn 7: ${await text('#verdict')}`);
await page.$eval('#truth input[value="2"]', e => e.click());
await page.click('#step');
await soon();
must((await text('#progress')).includes('1 step taken'), `a step: ${await text('#progress')}`);
await show('#net');
await soon();
await page.$eval('.layer button:nth-of-type(4)', e => e.click());
await soon();
must(await text('#unit-name') === 'Unit 3 of layer 1', `an opened unit: ${await text('#unit-name')}`);
for (let k = 1; k <= 8; k++) {
  await page.$eval('#tale-next', e => e.click());
  must(await text('#tale-count') === `Chapter ${k} of 8`, `chapter ${k} of the story`);
}
await show('#live');
await page.waitForFunction(() => document.getElementById('live-says').textContent.includes('steps'));
await page.$eval('#live-play', e => e.click());
const trained = () => Number((document.getElementById('live-says').textContent.match(/([\d.]+)% of the digits held out/) || [])[1]) >= 85;
await page.waitForFunction(trained, { timeout: 60000 }).catch(() => wrong.push(`training: ${wrong}`));
const losses = await page.evaluate(async () => {
  const load = name => import(new URL(`playground/${name}.js`, location.href)), { Training } = await load('train'), { loadDigits } = await load('files');
  const settings = { width: 32, depth: 1, activation: 'relu', start: 'kaiming', optimizer: 'sgd', seed: 1 };
  const training = new Training(await loadDigits(), settings, 0.1);
  return Array.from({ length: 20 }, () => training.step());
});
await browser.close();
console.log(JSON.stringify({ wrong, losses }));
