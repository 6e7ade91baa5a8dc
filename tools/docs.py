"""Build the site into _docs/ without the Quarto program, and fail on anything a reader would stumble over.

nbdev turns nbs/ into _proc/: names in back-ticks become links, exported functions show their documentation.
smalldocs lays _proc/ out as Quarto would, by the same _quarto.yml. pages.py finishes the pages, beside.py makes what
stands beside them. What stands here joins these: nbdev's `output-file` names, its links to the published site, the
figures as files, and one look at every page.
"""
import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urldefrag

import beside
import figures
import nbformat
import pages
from nbdev.config import get_config
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from smalldocs import config, layout, notebook, site

MODULES = Path(sys.prefix)/'node_modules'
SHOW_DOC = re.compile(r'---\n\n(?P<source>\[source\].*#L(?P<line>\d+).*)\n\n(?P<heading>### (?:\w+\.)?(?P<name>\w+))\n')
PLACE = '{user}/{repo}/blob/{branch}/nbs/{name}'
LINKS = { # HTML, for nbdev would lead a link to a notebook to its page
    'Open in Colab': 'https://colab.research.google.com/github/' + PLACE,
    'Kaggle': 'https://kaggle.com/kernels/welcome?src=https://github.com/' + PLACE,
    'Binder': 'https://mybinder.org/v2/gh/{user}/{repo}/{branch}?labpath=nbs/{name}',
    'Download': 'notebooks/{name}" download="{name}',
}

def shown_doc(cell):
    "The match of SHOW_DOC in what nbdev wrote about an exported name; None for any other cell."
    outputs = cell.get('outputs', [])
    return SHOW_DOC.match(outputs[0].get('data', {}).get('text/markdown', '')) if len(outputs) == 1 else None

def is_source(cell): return cell.source.startswith('#| code-fold: show') # as nbdev marks the source of an export

def imports(cells):
    "The imports of a lesson, shown and hidden, in their order, each module once: with them, copied code runs."
    names, plain = {}, {}
    for cell in cells:
        if cell.source.startswith('## Exercises'): break
        if cell.cell_type != 'code' or 'eval: false' in cell.source or '%' in cell.source[:1]: continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import): plain[ast.unparse(node)] = True
            if isinstance(node, ast.ImportFrom): names.setdefault(node.module, {}).update({ast.unparse(a): True for a in node.names})
    lines = [*plain]
    for module, what in names.items():
        line = f'from {module} import {", ".join(what)}'
        if len(line) > 88:
            line = f'from {module} import (\n' + textwrap.fill(', '.join(what), 84, initial_indent='    ', subsequent_indent='    ') + ')'
        lines.append(line)
    return '\n'.join(lines)

def with_files(cell, name, folder):
    "Have the figures of a cell as files: its outputs then are HTML that shows them."
    options, pictures = notebook.cell_options(cell.source)[0], 0
    for n, out in enumerate(cell.outputs):
        if not {'image/svg+xml', 'image/png'} & set(out.get('data', {})): continue
        tags = figures.as_file(out.data, f'{name}-{cell.id}-{n}', str(options.get('fig-alt', '')), folder)
        shown = notebook.figure(tags, {k: options[k] for k in ('fig-cap', 'fig-align') if k in options}, pictures)
        cell.outputs[n] = new_output('display_data', data={'text/html': shown})
        pictures += 1

def tidy(path):
    """Give a lesson its links, its imports, and its figures as files. Where it shows the source of an export, keep of nbdev's
    signature the anchor and source link."""
    nb, cells = nbformat.read(path, as_version=4), []
    for cell in nb.cells:
        if cell.cell_type == 'code': with_files(cell, path.stem, path.parent/'figures')
    for exported, group in groupby(nb.cells, key=lambda c: bool(is_source(c) or shown_doc(c))):
        if not exported:
            cells += group
            continue
        group = list(group)
        docs = sorted(filter(shown_doc, group), key=lambda c: int(shown_doc(c)['line']))
        for cell in filter(is_source, group):
            for name in re.findall(r'^(?:def|class) (\w+)', cell.source, re.M):
                doc = next((d for d in docs if shown_doc(d)['name'] == name), None)
                if doc is None: continue # a private name
                docs.remove(doc)
                doc.outputs[0].data['text/markdown'] = '{source}\n\n{heading}'.format_map(shown_doc(doc).groupdict())
                cells.append(doc)
            cells.append(cell)
        cells += docs
    if path.name[0].isdigit():
        where = {'name': path.name} | {k: get_config()[k] for k in ('user', 'repo', 'branch')}
        links = ' '.join(f'<a href="{url.format(**where)}">{text}</a>' for text, url in LINKS.items())
        source = nbformat.read(get_config().nbs_path/path.name, as_version=4)
        shown = f'#| code-fold: true\n#| code-summary: All imports of this lesson\n{imports(source.cells)}'
        cells[1:1] = [new_markdown_cell(f'```{{=html}}\n<p class="lesson-links">{links}</p>\n```'), new_code_cell(shown)]
    nb.cells = cells
    nbformat.write(nb, path)

class Site(site.Site):
    "A site of smalldocs whose pages have the names that nbdev gave them."
    def read(self, src):
        page = super().read(src)
        page.out = page.out.with_name(page.front.get('output-file', page.out.name))
        return page

    def find_page(self, target):
        return super().find_page(target) or next((p for p in self.pages.values() if p.out == target), None)

    def resolve(self, href, page, record=True):
        return super().resolve(href.removeprefix(self.project.website['site-url'] + '/'), page, record)

def build(proc, out):
    "Lay out `proc` into `out`; the site, with its pages and warnings."
    project = config.load(proc)
    project.config['project']['output-dir'] = str(out)
    config.PAGE_KEYS.add('output-file')
    built = Site(project)
    built.build()
    return built

def libraries(out):
    "Of what smalldocs brings, nothing but its pages; from npm the fonts of formulas, and what search loads."
    shutil.rmtree(out/'site_libs')
    fonts = {f'katex/dist/fonts/{file.name}': f'katex/fonts/{file.name}' for file in (MODULES/'katex'/'dist'/'fonts').glob('*.woff2')}
    for source, target in {**fonts, 'minisearch/dist/es/index.js': 'minisearch.js', 'stemmer/index.js': 'stemmer.js'}.items():
        (out/'site_libs'/target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULES/source, out/'site_libs'/target)
    shutil.copy(Path(__file__).with_name('site.js'), out)

def faults(out, soups):
    "What is wrong with the pages in `out`: dead links and anchors, pictures without words, requests to other hosts."
    anchors = {out/page: {tag['id'] for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in ((out/page, soup) for page, soup in soups.items()):
        for img in soup.find_all('img'):
            if not img.get('alt'): yield f'{page.name}: a picture without alt text: {img.get("src", "")[:60]}'
        loads = [tag['src'] for tag in soup.find_all(src=True)] + [tag['href'] for tag in soup.find_all('link', href=True) if tag['rel'] != ['canonical']]
        links = [tag['href'] for tag in soup.find_all('a', href=True)]
        yield from (f'{page.name}: loads {url}' for url in loads if re.match(r'https?:|//', url))
        for url in loads + links:
            if re.match(r'[a-z]+:|//', url): continue
            path, anchor = map(unquote, urldefrag(re.sub(r'\?[^#]*', '', url)))
            target = (page.parent/path).resolve() if path else page
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): yield f'{page.name}: dead link {url}'
            elif anchor and target.suffix == '.html' and anchor not in anchors.get(target, ()): yield f'{page.name}: dead anchor {url}'
    for css in out.rglob('*.css'):
        yield from (f'{css.name}: loads {url}' for url in re.findall(r'(?:@import|url\()[\s"\']*(?:https?:)?//[^)"\']*', css.read_text()))

def learn_for_playground(folder):
    "Start the process that makes what the playground loads; None if that is there and not older than what makes it."
    made, maker = folder/'network.safetensors', Path(__file__).with_name('playground.py')
    if made.exists() and made.stat().st_mtime > maker.stat().st_mtime: return None
    return subprocess.Popen([sys.executable, maker], env=os.environ | {'TQDM_DISABLE': '1'})

def main(proc=proc_nbs):
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)
    if not (MODULES/'katex').is_dir(): sys.exit('KaTeX is missing. Run: make docs')
    os.environ['PYTHONWARNINGS'] = 'error::UserWarning,error::SyntaxWarning' # for the processes that nbdev starts
    learning = learn_for_playground(root/'nbs'/'playground') # takes half a minute, beside all that follows
    refresh_quarto_yml()
    proc, out, cfg = proc(n_workers=2, force=True), root/'_docs', get_config()
    shutil.rmtree(out, ignore_errors=True)
    for path in sorted(proc.glob('*.ipynb')): tidy(path)
    built = build(proc, out)
    place = {'site': f'{cfg.doc_host}{cfg.doc_baseurl}', 'repo': cfg.git_url, 'branch': cfg.branch, 'name': cfg.lib_name,
             'version': cfg.version, 'description': cfg.description}
    sources = {str(page.out): page.src.name for page in built.pages.values()}
    libraries(out)
    beside.card(out, cfg.lib_name, cfg.description)
    beside.touch_icon(out)
    beside.addresses(out, place['site'])
    beside.search(out)
    beside.notebooks(root/'nbs', out)
    soups, fill = pages.finish(out, sources, place, pdf=bool(beside.browser_path()))
    if learning and learning.wait(): sys.exit('tools/playground.py failed')
    for file in (root/'nbs'/'playground').glob('*.safetensors*'): shutil.copy(file, out/'playground')
    size = sum(f.stat().st_size for f in out.rglob('*') if f.is_file())
    order = ['index.html', *(page for page, name in sources.items() if name[0].isdigit()), 'glossary.html', 'bibliography.html']
    printed = beside.pdf(out, {page: soups[page] for page in order}, fill)
    print(f'fcnet.pdf: {(out/"fcnet.pdf").stat().st_size/1e6:.1f} MB' if printed else 'no fcnet.pdf, for there is no Chromium')
    found = [*built.warnings, *faults(out, soups)] + [f'the site has {size/1e6:.0f} MB, wanted at most 15']*(size > 15e6)
    if found: sys.exit('\n'.join(found))
    print(f'_docs: {len(list(out.glob("*.html")))} pages, {size/1e6:.1f} MB, no warnings, no dead links')

if __name__ == '__main__': main()
