"Write README.md from nbs/index.ipynb: prose, shown code and its printed output, with links as the repository sees them."
import re
import sys
from pathlib import Path

import nbformat

HIDDEN = re.compile(r'^#\|\s*hide', re.M)
DIRECTIVE = re.compile(r'^#\|.*\n', re.M)
RELATIVE_LINK = re.compile(r'(\]\()(?!https?:|#)')

def printed(cell):
    "Plain text that a code cell wrote or returned."
    parts = [out.get('text') or out.get('data', {}).get('text/plain', '') for out in cell.outputs]
    return ''.join(parts).strip()

def to_markdown(cell):
    if cell.cell_type == 'markdown': return RELATIVE_LINK.sub(r'\1nbs/', cell.source)
    if HIDDEN.search(cell.source): return ''
    blocks = ['```python\n' + DIRECTIVE.sub('', cell.source).strip() + '\n```']
    if text := printed(cell): blocks.append('```\n' + text + '\n```')
    return '\n\n'.join(blocks)

def main(root):
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    head = '<!-- Written by tools/readme.py from nbs/index.ipynb: edit that. -->'
    parts = [head] + [md for cell in nb.cells if (md := to_markdown(cell))]
    (root/'README.md').write_text('\n\n'.join(parts) + '\n', encoding='utf-8')

if __name__ == '__main__': main(Path(sys.argv[1] if len(sys.argv) > 1 else '.'))
