"""Build the site into _docs/ without the Quarto program, and fail on anything a reader would stumble over.

nbdev turns nbs/ into _proc/: names in back-ticks become links, exported functions show their documentation.
smalldocs lays _proc/ out as Quarto would, by the same _quarto.yml. What stands here joins the two: nbdev's
`output-file` names, its links to the published site, KaTeX from the site itself, and one look at every page.
"""
import json
import os
import re
import shutil
import sys
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
from bs4 import BeautifulSoup
from nbdev.config import get_config
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell
from smalldocs import config, layout, site

KATEX = Path(sys.prefix)/'node_modules'/'katex'/'dist'
KATEX_FILES = ('katex.min.css', 'katex.min.js', 'contrib/auto-render.min.js', 'fonts/*.woff2')
SHOW_DOC = re.compile(r'---\n\n(?P<source>\[source\].*#L(?P<line>\d+).*)\n\n(?P<heading>### (?:\w+\.)?(?P<name>\w+))\n')
COLAB = 'https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/nbs/{name}'

def shown_doc(cell):
    "The match of SHOW_DOC in what nbdev wrote about an exported name; None for any other cell."
    outputs = cell.get('outputs', [])
    return SHOW_DOC.match(outputs[0].get('data', {}).get('text/markdown', '')) if len(outputs) == 1 else None

def is_source(cell): return cell.source.startswith('#| code-fold: show') # as nbdev marks the source of an export

def tidy(path):
    "Link a lesson to Colab. Where it shows the source of an export, keep of nbdev's signature the anchor and source link."
    nb, cells = nbformat.read(path, as_version=4), []
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
        link = COLAB.format(name=path.name, **{k: get_config()[k] for k in ('user', 'repo', 'branch')})
        cells.insert(1, new_markdown_cell(f'::: {{.lesson-links}}\n[Open in Colab]({link})\n:::'))
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
    "Lay out `proc` into `out`; the warnings."
    project = config.load(proc)
    project.config['project']['output-dir'] = str(out)
    config.PAGE_KEYS.add('output-file')
    layout.KATEX = 'site_libs/katex'
    built = Site(project)
    built.build()
    return built.warnings

def keep_at_home(out):
    "Have the site serve KaTeX itself, and do without the fonts that its themes would load from another host."
    for file in [f for pattern in KATEX_FILES for f in KATEX.glob(pattern)]:
        copy = out/layout.KATEX/file.relative_to(KATEX)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    for css in out.glob('site_libs/themes/*.css'):
        css.write_text(re.sub(r'@import url\(https:.*?\);', '', css.read_text()))

POLISHED = {'<pre': '<pre tabindex="0"', 'role="img"></i>': 'aria-hidden="true"></i>',
            'class="code-fold">\n<summary>Solution<': 'class="code-fold solution">\n<summary>Solution<'}

# A picture that links into the playground, as it stands in Jupyter and on GitHub: the site shows the part itself
LIVE = re.compile(r'<a href="(playground\.html[^"]*#\w+)"[^>]*><img [^>]*?alt="([^"]*)"[^>]*></a>')
FRAME = r'<iframe src="\1" title="\2" loading="lazy" style="width: 100%; height: 40rem; border: 1px solid var(--bs-border-color); border-radius: .4rem"></iframe>'

def polish(out):
    """Code that scrolls can be reached by keyboard, icons in named links are silent, solutions are known by a class
    of their own, nbdev's `source` links are not searched."""
    for page in out.glob('*.html'):
        text = page.read_text()
        for old, new in POLISHED.items(): text = text.replace(old, new)
        text = LIVE.sub(FRAME, text)
        page.write_text(text)
    search = out/'search.json'
    entries = [e | {'text': re.sub(r'^source\b ?', '', e['text'])} for e in json.loads(search.read_text())]
    search.write_text(json.dumps(entries, ensure_ascii=False))

def faults(out):
    "What is wrong with the pages in `out`: dead links and anchors, pictures without words, requests to other hosts."
    pages = {p: BeautifulSoup(p.read_text(), 'html.parser') for p in out.rglob('*.html')}
    anchors = {p: {tag['id'] for tag in soup.find_all(id=True)} for p, soup in pages.items()}
    for page, soup in pages.items():
        for img in soup.find_all('img'):
            if not img.get('alt'): yield f'{page.name}: a picture without alt text: {img.get("src", "")[:60]}'
        loads = [tag['src'] for tag in soup.find_all(src=True)] + [tag['href'] for tag in soup.find_all('link', href=True)]
        links = [tag['href'] for tag in soup.find_all('a', href=True)]
        yield from (f'{page.name}: loads {url}' for url in loads if re.match(r'https?:|//', url))
        for url in loads + links:
            if re.match(r'[a-z]+:|//', url): continue
            path, anchor = map(unquote, urldefrag(re.sub(r'\?[^#]*', '', url)))
            target = (page.parent/path).resolve() if path else page
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): yield f'{page.name}: dead link {url}'
            elif anchor and anchor not in anchors.get(target, ()): yield f'{page.name}: dead anchor {url}'
    for css in out.rglob('*.css'):
        yield from (f'{css.name}: loads {url}' for url in re.findall(r'(?:@import|url\()[\s"\']*(?:https?:)?//[^)"\']*', css.read_text()))

def main():
    root = Path(__file__).resolve().parent.parent
    os.chdir(root)
    if not KATEX.is_dir(): sys.exit('KaTeX is missing. Run: make docs')
    os.environ['PYTHONWARNINGS'] = 'error::UserWarning,error::SyntaxWarning' # for the processes that nbdev starts
    refresh_quarto_yml()
    proc = proc_nbs(n_workers=2, force=True)
    for path in sorted(proc.glob('*.ipynb')): tidy(path)
    out = root/'_docs'
    warnings = build(proc, out)
    keep_at_home(out)
    polish(out)
    size = sum(f.stat().st_size for f in out.rglob('*') if f.is_file())
    found = [*warnings, *faults(out)] + [f'the site has {size/1e6:.0f} MB, wanted at most 15']*(size > 15e6)
    if found: sys.exit('\n'.join(found))
    print(f'_docs: {len(list(out.glob("*.html")))} pages, {size/1e6:.1f} MB, no warnings, no dead links')

if __name__ == '__main__': main()
