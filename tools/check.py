"""Fail, naming the files, unless the notebooks are clean, fcnet/ and README.md are what they give, every lesson can
install itself on Colab and stores no errors, and the addresses of the project are those of settings.ini."""
import configparser
import filecmp
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

def generated(root):
    "The files under `root` that come out of the notebooks, relative to it."
    found = [*root.glob('nbs/*.ipynb'), *root.glob('fcnet/*.py'), root/'README.md']
    return {p.relative_to(root) for p in found if p.exists()}

COLAB = """#| hide
#| eval: false
# On Colab, install fcnet first
if 'google.colab' in str(get_ipython()):
    %pip install -q git+{git_url}"""

def astray(root):
    "Lessons that cannot install themselves on Colab or show what they should not; files with an address of another owner."
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    for path in sorted(root.glob('nbs/[0-9]*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        second = ''.join(cells[1]['source'])
        if second != COLAB.format(git_url=cfg['git_url']): yield f'{path.name}: its second cell does not install fcnet on Colab'
        outputs = [out for cell in cells for out in cell.get('outputs', [])]
        if any(out['output_type'] == 'error' for out in outputs): yield f'{path.name}: a stored output is an error'
        prose = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
        if re.search('^:::', prose, re.M):
            yield f'{path.name}: a line starts with :::, which only Quarto understands'
    for path in [*sorted(root.glob('nbs/*.ipynb')), root/'nbs'/'_quarto.yml']:
        owners = re.findall(rf'(?:github(?:\.com)?/|//)([\w-]+)(?:\.github\.io)?/{cfg["repo"]}\b', path.read_text(encoding='utf-8'))
        if wrong := set(owners) - {cfg['user']}: yield f'{path.name}: an address of {", ".join(wrong)}, wanted {cfg["user"]}'

def main():
    here = Path(__file__).resolve().parent.parent
    if found := list(astray(here)): sys.exit('\n'.join(found))
    with TemporaryDirectory() as tmp:
        fresh = Path(tmp).resolve()/here.name
        for folder in ('nbs', 'tools'):
            shutil.copytree(here/folder, fresh/folder, ignore=shutil.ignore_patterns('.*', '__pycache__'))
        for file in ('settings.ini', 'pyproject.toml'): shutil.copy(here/file, fresh)
        for cmd in (['nbdev_clean'], ['nbdev_export'], [sys.executable, 'tools/readme.py']):
            subprocess.run(cmd, cwd=fresh, check=True)
        stale = sorted(p for p in generated(here) | generated(fresh)
                       if not ((here/p).exists() and (fresh/p).exists() and filecmp.cmp(here/p, fresh/p, shallow=False)))
    if stale: sys.exit('Out of step: ' + ', '.join(map(str, stale)) +
                       '. Run: nbdev_clean && nbdev_export && python tools/readme.py')
    print('Notebooks are clean; fcnet/ and README.md are what they give.')

if __name__ == '__main__': main()
