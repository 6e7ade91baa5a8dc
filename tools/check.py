"""Fail, naming the files, unless the notebooks are clean, fcnet/ and README.md are what they give, every lesson can
install itself on Colab, stores no errors and keeps the sizes of the house, and all addresses are those of settings.ini."""
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
# Where fcnet is missing, as on Colab and Kaggle, install it, with the lessons' files
import importlib.util
if not importlib.util.find_spec('fcnet'):
    !git clone -q --depth 1 {git_url} /tmp/fcnet
    %pip install -q /tmp/fcnet
    %cd -q /tmp/fcnet/nbs"""

def astray(root):
    "Lessons that cannot install themselves on Colab or show what they should not; files with an address of another owner."
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    for path in sorted(root.glob('nbs/[0-9]*.ipynb')):
        nb = json.loads(path.read_text(encoding='utf-8'))
        cells = nb['cells']
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

def lines_of_code(source): return [s for s in source.splitlines() if s.strip() and not s.lstrip().startswith('#')]

def untidy(root):
    "Places that are too long, or where machinery stands in a reader's way."
    for path in sorted(root.glob('fcnet/*.py')):
        n = len(path.read_text(encoding='utf-8').splitlines())
        if n > 300 and path.name != '_modidx.py': yield f'fcnet/{path.name}: {n} lines, wanted at most 300'
    for path in sorted(root.glob('nbs/*.ipynb')):
        nb = json.loads(path.read_text(encoding='utf-8'))
        cells = nb['cells']
        if 'widgets' in nb['metadata']: yield f'{path.name}: holds the state of progress bars'
        if len(cells) > 70: yield f'{path.name}: {len(cells)} cells, wanted at most 70'
        sources = [''.join(cell['source']) for cell in cells]
        end = next((i for i, source in enumerate(sources) if source.startswith('## What we built')), len(cells))
        if end == len(cells) and path.name[0].isdigit(): yield f'{path.name}: has no "## What we built"'
        for i, (cell, source) in enumerate(zip(cells, sources)):
            if cell['cell_type'] != 'code': continue
            where, code = f'{path.name}, cell {i}', lines_of_code(source)
            long = [s for s in source.splitlines() if len(s) > 88 and not s.startswith('#|')]
            if long: yield f'{where}: a line of {len(long[0])} characters, wanted at most 88: {long[0].strip()[:50]}'
            if re.search(r'^#\|\s*export', source, re.M) and len(code) > 30:
                yield f'{where}: {len(code)} exported lines, wanted at most 30'
            folded = cell['metadata'].get('jupyter', {}).get('source_hidden') and 'cellView' in cell['metadata']
            if i > end and not folded: yield f'{where}: code after "What we built" that is not folded'
            if i > end or folded or not re.match(r'#\|\s*hide', source): continue
            imports = all(re.match(r'(from|import)\s|\s+\w|\)', s) for s in code)
            if len(code) > 8 and not imports: yield f'{where}: a hidden cell of {len(code)} lines, wanted at the end, folded'
        prose = '\n'.join(source for cell, source in zip(cells, sources) if cell['cell_type'] == 'markdown')
        exercises, solutions = (re.findall(rf'<a id="{kind}-(\d+)"></a>\*\*(\d+)\.\*\*', prose)
                                for kind in ('exercise', 'solution'))
        if exercises != solutions or any(a != b for a, b in exercises):
            yield f'{path.name}: exercises {exercises}, but solutions {solutions}'
        for kind, other in (('exercise', 'solution'), ('solution', 'exercise')):
            for k, _ in exercises:
                if f'](#{kind}-{k})' not in prose: yield f'{path.name}: {other} {k} has no link to its {kind}'

def main():
    here = Path(__file__).resolve().parent.parent
    if found := [*astray(here), *untidy(here)]: sys.exit('\n'.join(found))
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
