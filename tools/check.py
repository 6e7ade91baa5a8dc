"""Fail, naming the place, unless notebooks, fcnet/ and README.md are in step and the house is in order: each lesson has a
number of its own and imports only from lower ones, no private name leaves its module, every lesson can install itself,
stores no errors and links its exercises, and all addresses are those of settings.ini."""
import ast
import configparser
import filecmp
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

COLAB = """#| hide
#| eval: false
# On Colab and Kaggle: fetch the lessons, install fcnet, and work in their folder
from pathlib import Path
if not Path('00_data.ipynb').exists():
    if not Path('fcnet-lessons').exists():
        !git clone -q --depth 1 {git_url} fcnet-lessons
    %pip install -q ./fcnet-lessons
    %cd -q fcnet-lessons/nbs"""
LONGEST = 88 # characters of a line of code, so that it fits the site

def settings(root):
    "The settings of the project."
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']

class Notebook:
    "A notebook with what the checks look at."
    def __init__(self, path):
        nb = json.loads(path.read_text(encoding='utf-8'))
        self.name = path.name
        self.cells = nb['cells']
        self.metadata = nb['metadata']
        self.sources = [''.join(cell['source']) for cell in self.cells]
        self.code = [source for cell, source in zip(self.cells, self.sources) if cell['cell_type'] == 'code']
        self.prose = '\n'.join(source for cell, source in zip(self.cells, self.sources) if cell['cell_type'] == 'markdown')
        self.is_lesson = self.name[:2].isdigit()
        exported = [re.search(r'^#\|\s*default_exp (\w+)', source, re.M) for source in self.code]
        self.module = next((found[1] for found in exported if found), None)

# ---- the house

def numbers(notebooks):
    "Each number is used once."
    counts = Counter(nb.name[:2] for nb in notebooks if nb.is_lesson)
    for number, n in counts.items():
        if n > 1: yield f'{n} notebooks have the number {number}'

def imports(root, notebooks):
    "Modules import only from modules of lower numbers, and no private name."
    number = {nb.module: nb.name[:2] for nb in notebooks if nb.module}
    for path in sorted((root/'fcnet').glob('*.py')):
        if path.stem in ('__init__', '__main__', '_modidx'): continue
        if path.stem not in number:
            yield f'fcnet/{path.name}: no notebook exports it'
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.level == 0: continue
            at_top = node in tree.body
            names = [alias.name for alias in node.names]
            if at_top and number.get(node.module, '99') >= number[path.stem]:
                yield f'fcnet/{path.name} imports from {node.module}, which has no lower number'
            private = [name for name in names if name.startswith('_')]
            if private: yield f'fcnet/{path.name} imports {private[0]}, a private name of {node.module}'

def lesson_imports(notebooks):
    "Lessons, too, use only modules of their own number and lower ones, and no private names."
    number = {nb.module: nb.name[:2] for nb in notebooks if nb.module}
    for nb in notebooks:
        if not nb.is_lesson: continue
        for module, names in re.findall(r'^from fcnet\.(\w+) import \(?([^\n#]*)', '\n'.join(nb.code), re.M):
            if number.get(module, '99') > nb.name[:2]:
                yield f'{nb.name} imports from {module}, which has a higher number'
            if re.search(r'\b_\w', names): yield f'{nb.name} imports a private name of {module}'

def same_names(root):
    "A public name belongs to one module."
    homes = {}
    for path in sorted((root/'fcnet').glob('*.py')):
        if path.stem in ('__init__', '__main__', '_modidx'): continue
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
            if any(isinstance(d, ast.Name) and d.id == 'patch' for d in node.decorator_list): continue
            homes.setdefault(node.name, []).append(path.stem)
    for name, modules in homes.items():
        if len(set(modules)) > 1: yield f'{name} is a public name of {" and ".join(modules)}'

# ---- each notebook

def lesson(nb, cfg):
    "A lesson, and the short road, can install itself on Colab; a lesson ends as all lessons do."
    if nb.sources[1] != COLAB.format(git_url=cfg['git_url']):
        yield f'{nb.name}: its second cell does not install fcnet on Colab'
    if nb.is_lesson and '## What we built' not in nb.prose: yield f'{nb.name}: has no "## What we built"'

def exercises(nb):
    "Exercises and solutions are numbered alike and linked both ways."
    numbered = {kind: re.findall(rf'<a id="{kind}-(\d+)"></a>\*\*(\d+)\.\*\*', nb.prose) for kind in ('exercise', 'solution')}
    found = numbered['exercise']
    if found != numbered['solution'] or any(anchor != shown for anchor, shown in found):
        yield f'{nb.name}: exercises {found}, but solutions {numbered["solution"]}'
    for kind, other in (('exercise', 'solution'), ('solution', 'exercise')):
        for number, _ in found:
            if f'](#{kind}-{number})' not in nb.prose: yield f'{nb.name}: {other} {number} has no link to its {kind}'

def cells(nb):
    "No stored errors, no state of progress bars, no lines too long for the site."
    if 'widgets' in nb.metadata: yield f'{nb.name}: holds the state of progress bars'
    for i, (cell, source) in enumerate(zip(nb.cells, nb.sources)):
        if any(out['output_type'] == 'error' for out in cell.get('outputs', [])):
            yield f'{nb.name}, cell {i}: a stored output is an error'
        if cell['cell_type'] != 'code': continue
        for line in source.splitlines():
            if len(line) > LONGEST and not line.startswith('#|'):
                yield f'{nb.name}, cell {i}: a line of {len(line)} characters, wanted at most {LONGEST}: {line.strip()[:50]}'
    if re.search('^:::', nb.prose, re.M): yield f'{nb.name}: a line starts with :::, which only Quarto understands'

def addresses(root, cfg):
    "All addresses of the project are those of settings.ini."
    for path in [*sorted(root.glob('nbs/*.ipynb')), root/'nbs'/'_quarto.yml']:
        text = path.read_text(encoding='utf-8')
        owners = set(re.findall(rf'(?:github(?:\.com)?/|//)([\w-]+)(?:\.github\.io)?/{cfg["repo"]}\b', text))
        wrong = owners - {cfg['user']}
        if wrong: yield f'{path.name}: an address of {", ".join(wrong)}, wanted {cfg["user"]}'

def links(root, notebooks):
    "Links from notebook to notebook lead somewhere."
    for nb in notebooks:
        for target in re.findall(r'\]\(([\w.]+\.(?:ipynb|qmd))(?:#[^)]*)?\)', nb.prose):
            if not (root/'nbs'/target).exists(): yield f'{nb.name}: links to {target}, which is not there'

def sidebar(root, notebooks):
    "The site's contents list every lesson, in order."
    listed = re.findall(r'href: (\d\d_\w+\.ipynb)', (root/'nbs'/'_quarto.yml').read_text(encoding='utf-8').split('sidebar:')[1])
    wanted = [nb.name for nb in notebooks if nb.is_lesson]
    if listed != wanted: yield f'_quarto.yml lists {set(listed) ^ set(wanted) or "the lessons in another order"}'

def main_names(root, notebooks):
    "fcnet/__init__.py lists the main names module by module in reading order, and they exist."
    number = {nb.module: nb.name[:2] for nb in notebooks if nb.module}
    tree = ast.parse((root/'fcnet'/'__init__.py').read_text(encoding='utf-8'))
    table = next(ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict))
    modules = list(table)
    if not set(modules) <= set(number) or modules != sorted(modules, key=number.get):
        yield f'fcnet/__init__.py lists {modules}: not in the order of the lessons'
        return
    for module, names in table.items():
        tree = ast.parse((root/'fcnet'/f'{module}.py').read_text(encoding='utf-8'))
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        missing = set(names) - defined
        if missing: yield f'fcnet/__init__.py: {module} has no {", ".join(sorted(missing))}'

# ---- generated files

def generated(root):
    "The files under `root` that come out of the notebooks, relative to it."
    found = [*root.glob('nbs/*.ipynb'), *root.glob('fcnet/*.py'), root/'README.md']
    return {path.relative_to(root) for path in found if path.exists()}

def out_of_step(root):
    "Files that differ from what a fresh clean and export of the notebooks gives."
    with TemporaryDirectory() as tmp:
        fresh = Path(tmp).resolve()/root.name
        for folder in ('nbs', 'tools'):
            shutil.copytree(root/folder, fresh/folder, ignore=shutil.ignore_patterns('.*', '__pycache__'))
        (fresh/'fcnet').mkdir()
        for file in ('settings.ini', 'pyproject.toml', 'fcnet/__init__.py', 'fcnet/__main__.py'): shutil.copy(root/file, fresh/file)
        for command in (['nbdev_clean'], ['nbdev_export'], [sys.executable, 'tools/readme.py']):
            subprocess.run(command, cwd=fresh, check=True)
        for path in sorted(generated(root) | generated(fresh)):
            here = root/path
            there = fresh/path
            if not (here.exists() and there.exists() and filecmp.cmp(here, there, shallow=False)): yield path

def main():
    root = Path(__file__).resolve().parent.parent
    cfg = settings(root)
    notebooks = [Notebook(path) for path in sorted(root.glob('nbs/*.ipynb'))]
    found = [*numbers(notebooks), *imports(root, notebooks), *lesson_imports(notebooks), *same_names(root),
             *addresses(root, cfg), *links(root, notebooks), *sidebar(root, notebooks), *main_names(root, notebooks)]
    for nb in notebooks:
        found += [*cells(nb), *exercises(nb)]
        if nb.is_lesson or nb.name == 'short.ipynb': found += lesson(nb, cfg)
    if found: sys.exit('\n'.join(found))
    stale = [str(path) for path in out_of_step(root)]
    if stale: sys.exit(f'Out of step: {", ".join(stale)}. Run: nbdev_clean && nbdev_export && python tools/readme.py')
    print('The house is in order; fcnet/ and README.md are what the notebooks give.')

if __name__ == '__main__': main()
