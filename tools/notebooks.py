"""Run notebooks as tests, like `nbdev_test`, but each in a process of its own.

    python tools/notebooks.py         # all, two at a time
    python tools/notebooks.py 03 29   # those whose names begin with 03 or 29
    python tools/notebooks.py --slow  # with the slow cells, and figures rendered

Without `--slow`, figures are made but not rendered, which saves a quarter of the time.
"""
import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from nbdev import test
from nbdev.config import get_config

LIBRARIES = ['torch._dynamo', 'torch.testing', 'matplotlib.pyplot', 'sympy',
             'scipy.ndimage', 'nbdev.test', 'fcnet.recipes', 'fcnet.benchmark',
             'fcnet.distributed', 'fcnet.cli'] # loaded once, for all

def run(path, slow):
    "Whether the notebook at `path` ran without an error, and its seconds."
    if not slow:
        test.CaptureShell = partial(test.CaptureShell, mpl_format='') # nothing to render
    config = get_config()
    force = ['slow'] if slow else []
    return test.test_nb(path, config.tst_flags.split(), force, basepath=config.config_path)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', default=[''], help='how their names begin')
    parser.add_argument('--slow', action='store_true', help='run slow cells as well')
    args = parser.parse_args()
    folder = Path(__file__).resolve().parents[1]/'nbs'
    found = [path for name in args.names for path in folder.glob(f'{name}*.ipynb')]
    paths = sorted(found, reverse=True) # 29, the longest, goes early
    if not paths: sys.exit(f'no notebook in nbs/ begins with {" or ".join(args.names)}')
    os.environ.setdefault('OMP_NUM_THREADS', '1') # two processes share the cores
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(2, server, max_tasks_per_child=1) as pool:
        results = list(pool.map(partial(run, slow=args.slow), paths))
    for path, (passed, seconds) in zip(paths, results):
        print(f'{path.name}: {"passed" if passed else "FAILED"}, {seconds:.0f} s')
    sys.exit(not all(passed for passed, _ in results))

if __name__ == '__main__': main()
