// What the build asks of packages from npm, in one process: JSON from standard input, JSON to standard output.
// Formulas become HTML and MathML by KaTeX; PurgeCSS leaves of a stylesheet what the pages use.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.argv[2] + '/'); // where npm installed them
const katex = require('katex'), { PurgeCSS } = require('purgecss');
const { formulas, css, words } = JSON.parse(readFileSync(0, 'utf8'));

const purge = async (css, words) => (await new PurgeCSS().purge({
  content: [{ raw: words.join(' '), extension: 'html' }], css: [{ raw: css }], keyframes: true,
  defaultExtractor: text => text.split(' '), safelist: { greedy: [/data-bs-theme/, /data-scheme/, /quarto-dark/] },
}))[0].css;

const rendered = formulas.map(({ tex, display }) => katex.renderToString(tex, { displayMode: display, throwOnError: true, strict: 'error' })
  .replace(/<annotation.*?<\/annotation>/s, '')); // the source again, which nobody reads
const katexCss = readFileSync(require.resolve('katex/dist/katex.min.css'), 'utf8').replace(/,url\([^)]*\.(woff|ttf)\) ?format\("\w+"\)/g, '');
process.stdout.write(JSON.stringify({
  rendered, css: await purge(css, words), katexCss: await purge(katexCss, rendered.join(' ').match(/[\w-]+/g)),
}));
