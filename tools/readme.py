"Write README.md from nbs/index.ipynb: badges, prose, and what its code prints, with links to the lessons on the site."
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

HIDDEN = re.compile(r'^#\|\s*hide', re.M)
DIRECTIVE = re.compile(r'^#\|.*\n', re.M)
UNSEEN = re.compile(r'^#\|\s*echo: false', re.M)
LESSON = re.compile(r'\]\((?:\d\d_)?(\w+)\.ipynb')
RELATIVE_LINK = re.compile(r'(\]\()(?!https?:|#)')
BADGES = """[![Tests]({repo}/actions/workflows/test.yaml/badge.svg)]({repo}/actions/workflows/test.yaml)
[![Python 3.11 or later](https://img.shields.io/badge/python-3.11+-blue)](https://www.python.org)
[![Apache License 2.0](https://img.shields.io/badge/license-Apache_2.0-blue)](LICENSE)
[![Course](https://img.shields.io/badge/course-on_the_site-orange)]({site})
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"""

def printed(cell):
    "Plain text that a code cell wrote or returned."
    parts = [out.get('text') or out.get('data', {}).get('text/plain', '') for out in cell.outputs]
    return ''.join(parts).rstrip().strip('\n')

def to_markdown(cell, site):
    if cell.cell_type == 'markdown':
        return RELATIVE_LINK.sub(r'\1nbs/', LESSON.sub(rf']({site}/\1.html', cell.source))
    if HIDDEN.search(cell.source): return ''
    blocks = ['```python\n' + DIRECTIVE.sub('', cell.source).strip() + '\n```']
    if UNSEEN.search(cell.source): blocks = []
    if text := printed(cell): blocks.append('```\n' + text + '\n```')
    return '\n\n'.join(blocks)

def main(root):
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    parser = ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    site = cfg['doc_host'] + cfg['doc_baseurl']
    colab = cfg['git_url'].replace('https://github.com', 'https://colab.research.google.com/github')
    colab += f'/blob/{cfg["branch"]}/nbs/short.ipynb'
    title, *cells = nb.cells
    parts = ['<!-- Written by tools/readme.py from nbs/index.ipynb: edit that. -->', title.source,
             BADGES.format(repo=cfg['git_url'], site=site, colab=colab)]
    parts += [md for cell in cells if (md := to_markdown(cell, site))]
    (root/'README.md').write_text('\n\n'.join(parts) + '\n', encoding='utf-8')

if __name__ == '__main__': main(Path(sys.argv[1] if len(sys.argv) > 1 else '.'))
