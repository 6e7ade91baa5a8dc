// The site in Firefox, over WebDriver BiDi: every page loads clean with its formulas, search finds, the playground draws,
// predicts and steps. node firefox.mjs <where node_modules is> <firefox> <address> <page> ...
import { createRequire } from 'node:module';

const [modules, executablePath, address, ...pages] = process.argv.slice(2);
const puppeteer = createRequire(modules + '/')('puppeteer-core');
const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true, defaultViewport: { width: 1280, height: 900 } });
const page = await browser.newPage(), wrong = [];
const must = (fact, what) => fact || wrong.push(`${page.url()}: ${what}`);
// Firefox complains of a formula of which only the first half has arrived; the whole page is judged below
const complain = what => /Invalid markup: Incorrect number of children/.test(what) || wrong.push(`${page.url()}: ${what}`);
page.on('console', message => ['error', 'warn'].includes(message.type()) && complain(message.text()));
page.on('pageerror', complain);
page.on('requestfailed', request => {
  const why = request.failure()?.errorText; // an icon may still be on its way when the next page is asked for
  if (!/NS_BINDING_ABORTED/.test(why)) wrong.push(`failed: ${request.url()}: ${why}`);
});
page.on('request', request => must(request.url().startsWith(address) || /^(data|blob):/.test(request.url()), `asks ${request.url()}`));

for (const name of pages) {
  await page.goto(address + name, { waitUntil: 'load' });
  const { maths, rendered, odd, broken, wide } = await page.evaluate(async () => {
    const parts = { mfrac: 2, mroot: 2, mover: 2, munder: 2, msub: 2, msup: 2, munderover: 3, msubsup: 3 };
    const odd = Object.entries(parts).flatMap(([tag, n]) => [...document.querySelectorAll(tag)].filter(e => e.children.length !== n));
    const shown = [...document.images].filter(i => getComputedStyle(i).display !== 'none');
    shown.forEach(i => { i.loading = 'eager'; });
    await Promise.all(shown.map(i => i.decode().catch(() => 0)));
    return {
      odd: odd.map(e => e.outerHTML), maths: document.querySelectorAll('.math').length, rendered: document.querySelectorAll('.math .katex').length,
      broken: shown.filter(i => !i.naturalWidth).length, wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    };
  });
  must(maths === rendered, `${rendered} of ${maths} formulas`);
  must(!odd.length, `a formula lacks a part: ${odd}`);
  must(!broken, `${broken} pictures are broken`);
  must(wide <= 0, `scrolls sideways by ${wide}`);
}

await page.goto(address + 'index.html');
for (const [word, lesson] of [['vanishing', 'init'], ['overfitting', 'regularize']]) {
  await page.$eval('#quarto-search input', input => { input.value = ''; });
  await page.type('#quarto-search input', word);
  must(await page.waitForSelector(`.search-result[href^="${lesson}.html"]`, { timeout: 10000 }).catch(() => null), `search for ${word}`);
}

await page.goto(address + 'playground.html');
const verdict = () => page.$eval('#verdict', e => e.textContent);
await page.waitForFunction(() => document.getElementById('verdict').textContent);
const empty = await verdict(), pad = await (await page.$('#pad')).boundingBox();
await page.mouse.move(pad.x + pad.width * 0.5, pad.y + pad.height * 0.2);
await page.mouse.down();
await page.mouse.move(pad.x + pad.width * 0.5, pad.y + pad.height * 0.8, { steps: 12 });
await page.mouse.up();
await new Promise(done => setTimeout(done, 500));
must(await verdict() !== empty, 'drawing changes nothing');
const drawn = await verdict();
await page.click('#truth input[value="4"], #truth label:nth-of-type(5) input');
await page.select('#rate', '1e-2');
for (let i = 0; i < 5; i++) await page.click('#step');
await new Promise(done => setTimeout(done, 500));
must(await verdict() !== drawn, 'steps change nothing');

await browser.close();
console.log(wrong.length ? wrong.join('\n') : `${pages.length} pages in Firefox, none with a fault`);
process.exit(wrong.length ? 1 : 0);
