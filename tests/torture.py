"""Attack what fcnet saves and reads: kill trainings, alter and make up checkpoints,
feed images and options that are none. All must end in success or one clear line; what
does not is listed, and the exit code is 1. Needs Unix; ten minutes on two cores."""
import io
import json
import math
import os
import random
import re
import resource
import shutil
import struct
import sys
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import fields
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from signal import SIGKILL, Signals, alarm
from tempfile import TemporaryDirectory

os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='agg', TQDM_DISABLE='1')
import torch
from fcnet import checkpoint, cli, config
from fcnet.images import digit_from_image
from PIL import Image
from safetensors.torch import save as to_safetensors

SECONDS, GIGABYTES = 60, 2 # that a process may take; SIGALRM ends a longer one

def start(f, folder):
    "Call `f` in a process of its own, in `folder`, with a limit of time and memory."
    for n in (1, 2): Path(f'{folder}.{n}').write_text('') # what it says
    if pid := os.fork(): return pid
    code, streams = 99, (sys.stdout, sys.stderr)
    try:
        os.chdir(folder)
        sys.stdout, sys.stderr = (open(f'{folder}.{n}', 'w', encoding='utf-8', errors=e)
                                  for n, e in ((1, 'strict'), (2, 'backslashreplace')))
        for n, stream in ((1, sys.stdout), (2, sys.stderr)): os.dup2(stream.fileno(), n)
        if (used := Path('/proc/self/statm')).exists():
            most = int(used.read_text().split()[0])*resource.getpagesize() + 2**32
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        alarm(SECONDS)
        f()
        code = 0
    except SystemExit as e: code = e.code or 0
    except BaseException: traceback.print_exc()
    finally:
        try: sys.stdout.flush(), sys.stderr.flush()
        finally: os._exit(code)

def ended(pid, folder):
    "Exit code (99: an exception, below 0: a signal), what it wrote, and what is wrong."
    _, status, usage = os.wait4(pid, 0)
    out, err = (Path(f'{folder}.{n}').read_text('utf-8') for n in (1, 2))
    code, wrong = os.waitstatus_to_exitcode(status), ''
    gigabytes = usage.ru_maxrss/2**(30 if sys.platform == 'darwin' else 20)
    if gigabytes > GIGABYTES: wrong = f'took {gigabytes:.1f} GB'
    if code < 0: wrong = f'ended by {Signals(-code).name}'
    if code == 99:
        places = re.findall(r'File ".*?(fcnet/\w+\.py", line.*)', err)
        wrong = ' in '.join([err.splitlines()[-1], *places[-1:]])
    return code, out, err, wrong

def call(folder, name, *words, most=1):
    "Whether a command, as from the shell, ran, and what is wrong with what it said."
    sys.argv = [name, *map(str, words)]
    code, out, err, wrong = ended(start(cli.main, folder), folder)
    usage = rf'usage: (?s:.)*\n{name}: error: .*\n' # as argparse says it
    said = re.fullmatch(rf'({name}: .*\n){{1,{most}}}|{usage}', err)
    clean = (out + err).replace('\n', '').isprintable()
    if not (wrong or clean and (code == 0 and not err or code == 2 and said)):
        wrong = f'exit code {code}, said {err if clean else out + err!r}'
    counted = f'{name} {"refused" if code else "ran"}'
    return counted, wrong and f'{" ".join(map(repr, sys.argv))}: {wrong}'

def check(f, path):
    "What `f()` gives, or that it refuses `path` in one line, and what is wrong."
    def run():
        try: print(f())
        except (ValueError, FileNotFoundError) as e:
            assert path.name in str(e) and '\n' not in str(e), f'said {e!r}'
            print('refused')
    _, out, err, wrong = ended(start(run, path.parent), path.parent)
    return out.splitlines(), wrong or err and f'printed {err!r}'

# What is attacked: trainings that are whole, and such that stopped within an epoch
COMMON = dict(device='cpu', hidden='10', bs=20, epochs=150)
KINDS = [{}, dict(opt='adamw', lr=0.002, dropout=0.2, distort=True),
         dict(model='torch', opt='adam', lr=0.002)]
TIMES = [] # of whole trainings

def train(out, stop=None, **options):
    "Train; stop after so many steps."
    def after_batch(self, learn): learn.stopped = learn.step == stop
    config.Progress = type('Progress', (config.Progress,), {'after_batch': after_batch})
    cli.fcnet_train(out=out, **COMMON | options)

def prepare(root):
    "A small folder of data, an image, and trainings of all kinds."
    folder, g = root/'data', torch.Generator().manual_seed(0)
    folder.mkdir()
    COMMON['data'] = str(folder)
    x, y = torch.randint(0, 256, (60, 28, 28), generator=g), torch.arange(60) % 10
    for part, (name, t) in product(('train', 't10k'), (('images', x), ('labels', y))):
        head = struct.pack(f'>{1 + t.dim()}I', 0x800 + t.dim(), *t.shape)
        file = folder/f'{part}-{name}-idx{t.dim()}-ubyte'
        file.write_bytes(head + t.byte().numpy().tobytes())
    Image.fromarray(x[0].byte().numpy()).resize((5, 5)).save(root/'digit.png')
    with redirect_stdout(io.StringIO()): # what is imported late is imported once
        cli.fcnet_train(out=root/'first', **COMMON | dict(epochs=1))
        cli.fcnet_evaluate(root/'first')
    for k, kind in enumerate(KINDS):
        begun = time.time()
        for f in (partial(cli.fcnet_train, out=f'whole{k}', **COMMON | kind),
                  partial(train, f'stopped{k}', stop=4, **kind | dict(epochs=3))):
            code, _, err, _ = ended(start(f, root), root)
            if code: sys.exit(f'a training failed, undisturbed: {err}')
            if len(TIMES) == k: TIMES.append(time.time() - begun)

def altered_bytes(content, rng, head):
    "Bytes, some of them flipped, changed, zeroed, cut or inserted; often in the head."
    for _ in range(rng.choice((1, 1, 1, 3))):
        at = rng.randrange(max(1, min(len(content), rng.choice((head, 2**30)))))
        n, how = rng.choice((1, 1, 2, 8, 100, 5000)), rng.randrange(6)
        old, rest = content[at:at+n], content[at+n:]
        new = (bytes(v ^ 1 << rng.randrange(8) for v in old[:1]) + old[1:], b'', b'',
               rng.randbytes(len(old)), bytes(len(old)), rng.randbytes(n) + old)[how]
        content = content[:at] + new + (rest if how != 1 else b'')
    return content

def same(a, b):
    "Are the tensors and values of two files the same, bit for bit?"
    a = checkpoint.load(a)
    b = checkpoint.load(b)
    def equal(v, w):
        if not isinstance(v, torch.Tensor): return v == w
        return isinstance(w, torch.Tensor) and v.dtype == w.dtype and torch.equal(v, w)
    return a.keys() == b.keys() and all(equal(v, b[name]) for name, v in a.items())

# The attacks: each gives what is to be counted, and what is wrong
def kills(i, rng, root, folder):
    "A training is killed; some are resumed, killed again, and resumed to the end."
    run, whole, k = folder/'run', root/f'whole{i % len(KINDS)}', i % len(KINDS)
    model, wanted = 'model.safetensors', {'curves.png', 'history.csv'}
    def kill(f):
        pid = start(f, folder)
        time.sleep(rng.uniform(0, rng.choice((0.1, TIMES[k]))))
        os.kill(pid, SIGKILL)
        assert ended(pid, folder)[0] in (0, -SIGKILL), 'failed before it was killed'
    def names(): # of what is there, and whole
        found = {p.name for p in run.glob('*')} - {'.lock'}
        if model in found: checkpoint.load(run/model)
        if 'curves.png' in found: Image.open(run/'curves.png').load()
        csv = [(at/'history.csv').read_bytes() for at in (run, whole)
               if 'history.csv' in found]
        assert len({*csv}) < 2, 'history.csv is not that of an undisturbed training'
        return found
    kill(partial(cli.fcnet_train, out='run', **COMMON | KINDS[k]))
    left = {name for name in names() if not (name[0] == '.' and name.endswith('.tmp'))}
    assert left <= wanted | {model}, f'left {left}'
    saved = ['left a checkpoint']*(model in left)
    if i % 7: return saved, ''
    if saved: kill(partial(cli.fcnet_train, resume='run', device='cpu')), names()
    said, wrong = call(folder, 'fcnet_train', '--resume', 'run', '--device', 'cpu')
    if wrong or not saved: return saved, wrong
    assert same(run/model, whole/model), 'resumed, it ended with other weights'
    assert names() == wanted | {model}, f'left {names()}'
    return [*saved, 'resumed bit for bit'], ''

def altered(i, rng, root, folder):
    "A checkpoint whose bytes were altered: refused, or the same."
    good, path = root/f'stopped{i%len(KINDS)}/model.safetensors', folder/'altered'
    content = good.read_bytes()
    head = 8 + int.from_bytes(content[:8], 'little')
    path.write_bytes(altered_bytes(content, rng, head))
    return check(lambda: 'the same' if same(path, good) else 1/0, path)

ODD_VALUES = [None, -1, 0, 1, 10**6, 2**63, 10**400, 1e308, 1e-320, math.nan, math.inf,
              '', 'x', '٣', 'a\0b', 'x\ny', '\x1b[2J', '\ud800', '100000,100000',
              [], {}, True, [784, 10**9, 10]]
ODD_TENSORS = [
    lambda t: t*math.nan, lambda t: t*1e30, lambda t: -t, lambda t: t*0 + 255,
    lambda t: t[:1], lambda t: t[None], lambda t: t.flip(0), lambda t: torch.zeros(0),
    lambda t: t.char(), lambda t: t.double(), lambda t: t.half(), lambda t: t.bool(),
    lambda t: t.cfloat(), lambda t: t.to(torch.float8_e4m3fn),
    lambda t: t.view(torch.uint8), lambda t: torch.randint(0, 256, t.shape).to(t.dtype)]
ODD_TEXTS = '['*10**5, '{"x":'*10**5, '{', '', '9'*5000, '{"x":1e999}', '{"x":1} 2'

def places(value, path=()):
    "The paths of all values in a value."
    inner = {dict: dict.items, list: enumerate}.get(type(value), lambda _: ())(value)
    return [path, *(p for key, part in inner for p in places(part, (*path, key)))]

def replaced(value, path, rng):
    "A value with another one, or none, at a path."
    if path:
        value, gone = value.copy(), not path[1:] and rng.random() < 0.1
        if gone: del value[path[0]]
        else: value[path[0]] = replaced(value[path[0]], path[1:], rng)
        return value
    near = [[value], {'x': value}, str(value)]
    if type(value) in (int, float): near += [value+1, -value, value*1000, value/3]*3
    return rng.choice(ODD_VALUES + near)

def crafted(i, rng, root, folder):
    "A checkpoint that somebody made up, with a right checksum: used, or refused."
    path, notes, counted = folder/'made'/'model.safetensors', [], []
    path.parent.mkdir()
    source = root/f'{rng.choice(["stopped", "whole"])}{i % len(KINDS)}'
    values = checkpoint.load(source/'model.safetensors')
    tensors = {k: v for k, v in values.items() if isinstance(v, torch.Tensor)}
    info = {k: v for k, v in values.items() if k not in tensors}
    del info['training']['history'][3:]
    torch.manual_seed(i)
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.65:
            at = rng.choice(places(info))
            info = replaced(info, at, rng)
            notes.append(f'{at} was replaced')
        else:
            name = rng.choice([*tensors, 'model.x', 'opt.99.x', 'opt.x.y', 'random.9'])
            t, k = tensors.pop(name, torch.ones(3)), rng.randrange(len(ODD_TENSORS) + 1)
            try: tensors |= {name: f(t).contiguous() for f in ODD_TENSORS[k:k+1]}
            except (RuntimeError, IndexError): pass # not for this one
            notes.append(f'{name} by ODD_TENSORS[{k}]')
    text = rng.choice(ODD_TEXTS) if rng.random() < 0.05 else json.dumps(info)
    header = {'fcnet': text, 'sha256': checkpoint.checksum(tensors, text)}
    path.write_bytes(to_safetensors(tensors, header))
    for name, *words in (('fcnet_predict', 'made', root/'digit.png'),
                         ('fcnet_train', '--resume', 'made', '--device', 'cpu'),
                         ('fcnet_evaluate', 'made')):
        said, wrong = call(folder, name, *words)
        if wrong: return counted, f'{text[:30]} {notes} {wrong}'
        counted.append(said)
    return counted, ''

MODES = '1 L LA P PA RGB RGBA CMYK YCbCr I I;16 F HSV LAB'.split()

def images(i, rng, root, folder):
    "An image file of any kind, whole or not: read, or refused."
    path = folder/f'image.{rng.choice(("png", "jpeg", "gif", "webp", "tiff", "bmp"))}'
    how, mode, sides = rng.random(), rng.choice(MODES), (3, 40, 300, 300, 2000)
    size = [rng.randint(1, rng.choice(sides)) for _ in range(2)]
    large = [7000, 7100], [9000, 10_000], [1, 60_000]
    if how < 0.02: mode, size = '1', rng.choice(large)
    noise = Image.effect_noise([1 + side//9 for side in size], rng.choice((1, 50, 200)))
    plain = image = noise.resize(size, rng.choice((0, 2))).convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = rng.randint(0, 9) # its orientation
    options = rng.choice(({}, dict(transparency=0), dict(exif=exif),
                          dict(save_all=True, append_images=[plain])))
    try:
        image = image.convert(mode)
        image.save(path, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        plain.resize((50, 60)).save(path) # the format has no such mode, size or option
    content = path.read_bytes()
    if 0.4 < how < 0.9: path.write_bytes(altered_bytes(content, rng, 200))
    if how > 0.9: path.write_bytes(rng.choice((b'', b'no image', rng.randbytes(1000),
        content[:rng.randrange(30)], (root/'whole0'/'model.safetensors').read_bytes())))
    if how > 0.98: path.unlink(), rng.random() < 0.5 and path.mkdir()
    def read():
        x = digit_from_image(path)
        fine = x.shape == (784,) and x.dtype == torch.float32 and x.isfinite().all()
        assert fine and 0 <= x.min() and x.max() < 1, f'read as {x}'
        return 'read'
    counted, wrong = check(read, path)
    return counted, wrong and f'{path.suffix} {mode} {size} {[*options]} {wrong}'

ODD = [*'''- -- 0 -1 -0 1 2 3.5 1_0 ٣ 0x10 1e3 1e-320 1e38 1e400 nan inf -inf x é 漢字
    . .. / /dev/null no/such ~ good good/model.safetensors digit.png digit.png/x 3,3 ,
    3, ../data ../data/train-images-idx3-ubyte 100000,100000 None True [] handmade torch
    sgd adamw batch layer mse medium linear cpu cuda mps --help -h * --colour'''.split(), '', ' ', '5 ', '9'*20,
    '9'*5000, str(2**31), str(2**63), str(2**63-1), 'new\nline',
    '\x1b[2J', 'bad\udcff', 'a'*300, '2,'*200 + '2']
TAKES = {'fcnet_train': [*(field.name for field in fields(config.Settings)), 'device', 'out', 'resume', 'recipe'],
         'fcnet_predict': ['json'], 'fcnet_evaluate': ['data', 'test']}

def options(i, rng, root, folder):
    "A command with values that are odd, too many, or too few."
    shutil.copytree(root/f'whole{i % len(KINDS)}', folder/'good')
    shutil.copy(root/'digit.png', folder)
    name = rng.choice(('fcnet_train', *TAKES))
    names = rng.sample(TAKES[name], rng.randint(0, min(4, len(TAKES[name]))))
    given = {option: rng.choice(ODD) for option in names}
    if given.get('epochs', '').isdigit(): given['epochs'] = given['epochs'][:1]
    if given.get('data') == '': given = {'data': ''} # MNIST, with nothing long
    words = []
    for option, value in given.items():
        if option in ('json', 'test', 'distort', 'residual', 'whole'): words += [f'--{option}']
        else: words += rng.choice(([f'--{option}', value], [f'--{option}={value}']))
    if rng.random() < 0.1: words.insert(rng.randint(0, len(words)), rng.choice(ODD))
    if name == 'fcnet_predict':
        words += rng.choices(['digit.png']*40 + ODD, k=rng.randint(0, 3))
    if name != 'fcnet_train': words.insert(0, rng.choice(['good']*9 + ODD[:9]))
    elif 'resume' not in given: words = ['--epochs', 1, '--out', 'new', '--hidden', 5,
                                         '--data', '../data', '--device', 'cpu', *words]
    said, wrong = call(folder, name, *words, most=max(1, len(words)-1))
    return [said], wrong

PARTS = {kills: 200, altered: 2000, crafted: 600, images: 500, options: 500}

def case(attack, seed, root, i):
    "One attack, in its own folder: what is to be counted, and what is wrong."
    folder, name = root/f'{attack.__name__}{i}', attack.__name__
    folder.mkdir()
    try: counted, wrong = attack(i, random.Random(f'{seed} {name} {i}'), root, folder)
    except Exception as e: counted, wrong = [], f'{type(e).__name__} {e}'
    shutil.rmtree(folder)
    for n in (1, 2): Path(f'{folder}.{n}').unlink(missing_ok=True)
    return counted, wrong and f'{name} {i}: {wrong[:700]}'

def main():
    parser, names = ArgumentParser(description=__doc__), [f.__name__ for f in PARTS]
    parser.add_argument('part', nargs='*', help=f'{", ".join(names)}; all by default')
    parser.add_argument('--count', type=int, help='attacks of each part')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--case', type=int, help='only this one')
    args, found = parser.parse_args(), []
    if other := {*args.part} - {*names}: parser.error(f'no such part: {other.pop()}')
    torch.set_num_threads(1)
    with TemporaryDirectory() as tmp:
        root = Path(tmp).resolve()
        prepare(root)
        for attack, n in PARTS.items():
            if attack.__name__ not in (args.part or names): continue
            cases = range(args.count or n) if args.case is None else [args.case]
            begun, work = time.time(), partial(case, attack, args.seed, root)
            with get_context('fork').Pool(2) as pool: done = pool.map(work, cases, 1)
            wrong = [words for _, words in done if words]
            counts = Counter(word for words, _ in done for word in words)
            said = [f'{k} {word}' for word, k in sorted(counts.items())]
            print(f'{attack.__name__}: {len(done)-len(wrong)} of {len(done)} held',
                  *said, f'{time.time()-begun:.0f} s', sep=', ', flush=True)
            found += wrong
    if found: sys.exit('\n'.join([f'{len(found)} did not hold:', *found]))

if __name__ == '__main__': main()
