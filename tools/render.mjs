// What the build asks of packages from npm, in one process: JSON from standard input, JSON to standard output.
// Formulas become HTML and MathML by KaTeX; PurgeCSS leaves of a stylesheet what the pages use.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.argv[2] + '/'); // where npm installed them
const katex = require('katex'), { PurgeCSS } = require('purgecss');
const { formulas, css, words } = JSON.parse(readFileSync(0, 'utf8'));

const rendered = formulas.map(({ tex, display }) => katex.renderToString(tex, { displayMode: display, throwOnError: true, strict: 'error' }));
const [{ css: used }] = await new PurgeCSS().purge({
  content: [{ raw: words.join(' '), extension: 'html' }], css: [{ raw: css }], keyframes: true,
  defaultExtractor: text => text.split(' '), safelist: { greedy: [/data-bs-theme/, /data-scheme/, /quarto-dark/] },
});
process.stdout.write(JSON.stringify({ rendered, css: used }));
