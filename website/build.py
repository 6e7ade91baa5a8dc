"""Build the site into _docs/ without the Quarto program, and fail on anything a reader would stumble over.

nbdev turns nbs/ into _proc/: names in back-ticks become links, exported functions show their documentation.
smalldocs lays _proc/ out as Quarto would, by the same _quarto.yml. pages.py finishes the pages, beside.py makes what
is beside them. This file joins these: nbdev's `output-file` names, its links to the published site, the figures as
files, and one look at every page.
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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODULES = Path(sys.prefix)/'node_modules'
MEGABYTES = 18 # that the site may have, without the PDF
SHOW_DOC = re.compile(r'---\n\n(?P<source>\[source\].*#L(?P<line>\d+).*)\n\n'
                      r'(?P<heading>### (?:\w+\.)?(?P<name>\w+))\n')
PLACE = '{user}/{repo}/blob/{branch}/nbs/{name}'
LINKS = { # HTML, for nbdev would lead a link to a notebook to its page
    'Open in Colab': 'https://colab.research.google.com/github/' + PLACE,
    'Kaggle': 'https://kaggle.com/kernels/welcome?src=https://github.com/' + PLACE,
    'Binder': 'https://mybinder.org/v2/gh/{user}/{repo}/{branch}?labpath=nbs/{name}',
    'Download': 'notebooks/{name}" download="{name}',
}

# ---- lessons, before they are laid out

def shown_doc(cell):
    "The match of SHOW_DOC in what nbdev wrote about an exported name; None for any other cell."
    outputs = cell.get('outputs', [])
    if len(outputs) != 1: return None
    return SHOW_DOC.match(outputs[0].get('data', {}).get('text/markdown', ''))

def is_source(cell):
    "Is this the source of an export, as nbdev marks it?"
    return cell.source.startswith('#| code-fold: show')

def imports(cells):
    "The imports of a lesson, shown and hidden, in their order, each module once: with them, copied code runs."
    names = {} # module -> what is imported from it
    plain = {}
    for cell in cells:
        if cell.source.startswith('## Exercises'): break
        if cell.cell_type != 'code' or 'eval: false' in cell.source: continue
        if cell.source.startswith('%'): continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import): plain[ast.unparse(node)] = True
            if not isinstance(node, ast.ImportFrom): continue
            found = names.setdefault(node.module, {})
            for alias in node.names: found[ast.unparse(alias)] = True
    lines = [*plain]
    for module, found in names.items():
        line = f'from {module} import {", ".join(found)}'
        if len(line) > 88:
            inside = textwrap.fill(', '.join(found), 84, initial_indent='    ',
                                   subsequent_indent='    ')
            line = f'from {module} import (\n{inside})'
        lines.append(line)
    return '\n'.join(lines)

def with_files(cell, name, folder):
    "Have the figures of a cell as files: its outputs then are HTML that shows them."
    options = notebook.cell_options(cell.source)[0]
    caption = {key: options[key] for key in ('fig-cap', 'fig-align') if key in options}
    alt = str(options.get('fig-alt', ''))
    pictures = 0
    for n, out in enumerate(cell.outputs):
        if not {'image/svg+xml', 'image/png'} & set(out.get('data', {})): continue
        tags = figures.as_file(out.data, f'{name}-{cell.id}-{n}', alt, folder)
        shown = notebook.figure(tags, caption, pictures)
        cell.outputs[n] = new_output('display_data', data={'text/html': shown})
        pictures += 1

def with_sources(group):
    "Exported cells, each behind the anchor and source link of the name that it defines."
    docs = [cell for cell in group if shown_doc(cell)]
    docs.sort(key=lambda cell: int(shown_doc(cell)['line']))
    cells = []
    for cell in group:
        if not is_source(cell): continue
        for name in re.findall(r'^(?:def|class) (\w+)', cell.source, re.M):
            doc = next((d for d in docs if shown_doc(d)['name'] == name), None)
            if doc is None: continue # a private name
            docs.remove(doc)
            parts = shown_doc(doc).groupdict()
            doc.outputs[0].data['text/markdown'] = f'{parts["source"]}\n\n{parts["heading"]}'
            cells.append(doc)
        cells.append(cell)
    return cells + docs

def lesson_head(name):
    "Links to places where a lesson can be run, and a folded cell with its imports where none is shown."
    where = {key: get_config()[key] for key in ('user', 'repo', 'branch')}
    links = ' '.join(f'<a href="{url.format(name=name, **where)}">{text}</a>'
                     for text, url in LINKS.items())
    source = nbformat.read(get_config().nbs_path/name, as_version=4)
    head = [new_markdown_cell(f'```{{=html}}\n<p class="lesson-links">{links}</p>\n```')]
    first = [cell.source for cell in source.cells[:8] if cell.cell_type == 'code']
    if not any(re.match('import |from ', code) for code in first):
        head.append(new_code_cell('#| code-fold: true\n#| code-summary: All imports of this lesson\n'
                                  + imports(source.cells)))
    return head

def unlink_comments(data):
    "nbdev makes links of names in the comments of a signature, and code has none: take them out."
    data['text/markdown'] = re.sub(
        r'^```.*?^```', lambda code: re.sub(r'\[(`[^`]+`)\]\([^)]+\)', r'\1', code[0]),
        data['text/markdown'], flags=re.M | re.S)

def tidy(path):
    """Give a lesson its links, its imports, and its figures as files. Where it shows the source of an export, keep of nbdev's
    signature the anchor and source link."""
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        with_files(cell, path.stem, path.parent/'figures')
        if shown_doc(cell): unlink_comments(cell.outputs[0].data)
    cells = []
    for exported, group in groupby(nb.cells, key=lambda cell: bool(is_source(cell) or shown_doc(cell))):
        cells += with_sources(list(group)) if exported else group
    if pages.is_lesson(path.name): cells[1:1] = lesson_head(path.name)
    nb.cells = cells
    nbformat.write(nb, path)

# ---- the layout

class Site(site.Site):
    "A site of smalldocs whose pages have the names that nbdev gave them."
    def read(self, src):
        page = super().read(src)
        page.out = page.out.with_name(page.front.get('output-file', page.out.name))
        return page

    def find_page(self, target):
        found = super().find_page(target)
        if found: return found
        return next((page for page in self.pages.values() if page.out == target), None)

    def resolve(self, href, page, record=True):
        own = self.project.website['site-url'] + '/'
        return super().resolve(href.removeprefix(own), page, record)

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
    files = {'minisearch/dist/es/index.js': 'minisearch.js', 'stemmer/index.js': 'stemmer.js'}
    for file in (MODULES/'katex'/'dist'/'fonts').glob('*.woff2'):
        files[f'katex/dist/fonts/{file.name}'] = f'katex/fonts/{file.name}'
    for source, target in files.items():
        (out/'site_libs'/target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULES/source, out/'site_libs'/target)
    shutil.copy(HERE/'site.js', out)

# ---- faults

def dead(url, page, anchors):
    "What is wrong with a link of a page, or None."
    if re.match(r'[a-z]+:|//', url): return None
    path, anchor = map(unquote, urldefrag(re.sub(r'\?[^#]*', '', url)))
    target = (page.parent/path).resolve() if path else page
    if target.is_dir(): target = target/'index.html'
    if not target.exists(): return f'{page.name}: dead link {url}'
    if anchor and target.suffix == '.html' and anchor not in anchors.get(target, ()):
        return f'{page.name}: dead anchor {url}'
    return None

def faults(out, soups):
    "What is wrong with the pages in `out`: dead links and anchors, pictures without words, requests to other hosts."
    anchors = {out/name: {tag['id'] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    for name, soup in soups.items():
        page = out/name
        for img in soup.find_all('img'):
            if not img.get('alt'): yield f'{name}: a picture without alt text: {img.get("src", "")[:60]}'
        loads = [tag['src'] for tag in soup.find_all(src=True)]
        loads += [tag['href'] for tag in soup.find_all('link', href=True) if tag['rel'] != ['canonical']]
        links = [tag['href'] for tag in soup.find_all('a', href=True)]
        for url in loads:
            if re.match(r'https?:|//', url): yield f'{name}: loads {url}'
        for url in loads + links:
            fault = dead(url, page, anchors)
            if fault: yield fault
    elsewhere = r'(?:@import|url\()[\s"\']*(?:https?:)?//[^)"\']*'
    for css in out.rglob('*.css'):
        for url in re.findall(elsewhere, css.read_text()): yield f'{css.name}: loads {url}'

# ---- all of it

def train_playground(folder):
    "Start the process that makes what the playground loads; None if that is there and newer than its maker."
    made = folder/'network.safetensors'
    maker = HERE/'train_playground.py'
    if made.exists() and made.stat().st_mtime > maker.stat().st_mtime: return None
    return subprocess.Popen([sys.executable, maker], env=os.environ | {'TQDM_DISABLE': '1'})

def make_beside(out, place):
    "All that is on the site beside its pages, but the PDF."
    libraries(out)
    beside.card(out, place['name'], place['description'])
    beside.touch_icon(out)
    beside.addresses(out, place['site'])
    beside.search(out)
    beside.notebooks(ROOT/'nbs', out)

def print_pdf(out, soups, sources, fill):
    "Print the course, if there is a browser, and say so."
    lessons = [page for page, name in sources.items() if name[0].isdigit()]
    order = ['index.html', *lessons, 'glossary.html', 'bibliography.html']
    if beside.pdf(out, {page: soups[page] for page in order}, fill):
        print(f'fcnet.pdf: {(out/"fcnet.pdf").stat().st_size/1e6:.1f} MB')
    else:
        print('no fcnet.pdf, for there is no Chromium')

def main(proc=proc_nbs):
    os.chdir(ROOT)
    if not (MODULES/'katex').is_dir(): sys.exit('KaTeX is missing. Run: make docs')
    os.environ['PYTHONWARNINGS'] = 'error::UserWarning,error::SyntaxWarning' # for the processes that nbdev starts
    learning = train_playground(HERE/'playground') # takes half a minute, beside all that follows
    refresh_quarto_yml()
    proc = proc(n_workers=2, force=True)
    out = ROOT/'_docs'
    cfg = get_config()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(HERE/'playground', proc/'playground', dirs_exist_ok=True)
    shutil.copy(HERE/'styles.css', proc)
    for path in sorted(proc.glob('*.ipynb')): tidy(path)
    built = build(proc, out)
    place = {'site': f'{cfg.doc_host}{cfg.doc_baseurl}', 'repo': cfg.git_url,
             'branch': cfg.branch, 'name': cfg.lib_name, 'version': cfg.version,
             'description': cfg.description}
    sources = {str(page.out): page.src.name for page in built.pages.values()}
    make_beside(out, place)
    soups, fill = pages.finish(out, sources, place, pdf=bool(beside.browser_path()))
    if learning and learning.wait(): sys.exit('website/train_playground.py failed')
    for file in (HERE/'playground').glob('*.safetensors*'): shutil.copy(file, out/'playground')
    size = sum(file.stat().st_size for file in out.rglob('*') if file.is_file())/1e6
    print_pdf(out, soups, sources, fill)
    found = [*built.warnings, *faults(out, soups)]
    if size > MEGABYTES: found.append(f'the site has {size:.0f} MB, wanted at most {MEGABYTES}')
    if found: sys.exit('\n'.join(found))
    n_pages = len(list(out.glob('*.html')))
    print(f'_docs: {n_pages} pages, {size:.1f} MB, no warnings, no dead links')

if __name__ == '__main__': main()
