"Fail, naming the files, unless the notebooks are clean and fcnet/ and README.md are what they give."
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

def generated(root):
    "The files under `root` that come out of the notebooks, relative to it."
    found = [*root.glob('nbs/*.ipynb'), *root.glob('fcnet/*.py'), root/'README.md']
    return {p.relative_to(root) for p in found if p.exists()}

def main():
    here = Path(__file__).resolve().parent.parent
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
