"""Attack what fcnet saves and reads: kill training runs, alter and make up checkpoints,
feed images and options that are none. Everything must end in success or one clear line.
What does not is printed at once, and the exit code is 1; so it is if a kind of attack
never reached what it attacks. Needs Unix; ten minutes on two cores."""
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
import warnings
from argparse import ArgumentParser
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from signal import SIGKILL, Signals, alarm
from tempfile import TemporaryDirectory
from typing import NamedTuple

os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='agg', TQDM_DISABLE='1')
import torch
from fcnet import checkpoint, cli, config, learner
from fcnet.data import get_data
from fcnet.images import digit_from_image
from PIL import Image
from safetensors.torch import save as to_safetensors

SECONDS = 60  # that a process may take; SIGALRM ends a longer one
GIGABYTES = 2 # of memory that it may take


# ---- processes

class Ended(NamedTuple):
    "How a process ended."
    code: int  # exit code; 99: an exception, below 0: a signal
    out: str   # what it printed
    err: str   # what it said on stderr
    wrong: str # what is wrong with that, '' if nothing

def said_files(folder):
    "Where the output of the process in a folder goes: stdout, stderr."
    return Path(f'{folder}.out'), Path(f'{folder}.err')

def start(f, folder):
    "Call `f` in a process of its own, in `folder`, with a limit of time and memory."
    out, err = said_files(folder)
    out.write_text('')
    err.write_text('')
    pid = os.fork()
    if pid: return pid
    code = 99
    try:
        os.chdir(folder)
        sys.stdout = open(out, 'w', encoding='utf-8')
        sys.stderr = open(err, 'w', encoding='utf-8', errors='backslashreplace')
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)
        limit_memory()
        alarm(SECONDS)
        f()
        code = 0
    except SystemExit as e:
        code = e.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

def limit_memory():
    "Four GiB more than this process has now."
    used = Path('/proc/self/statm')
    if not used.exists(): return
    n_pages = int(used.read_text().split()[0])
    most = n_pages*resource.getpagesize() + 2**32
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

def ended(pid, folder):
    "Wait for a process that `start` started."
    _, status, usage = os.wait4(pid, 0)
    out, err = (path.read_text('utf-8') for path in said_files(folder))
    code = os.waitstatus_to_exitcode(status)
    gigabytes = usage.ru_maxrss/2**(30 if sys.platform == 'darwin' else 20)
    wrong = ''
    if gigabytes > GIGABYTES: wrong = f'took {gigabytes:.1f} GB'
    if code < 0: wrong = f'ended by {Signals(-code).name}'
    if code == 99:
        places = re.findall(r'File ".*?(fcnet/\w+\.py", line.*)', err)
        wrong = ' in '.join([err.splitlines()[-1], *places[-1:]])
    return Ended(code, out, err, wrong)

def call(folder, name, *words, most=1):
    "Whether a command, as from the shell, ran, and what is wrong with what it said."
    sys.argv = ['fcnet', name, *map(str, words)]
    code, out, err, wrong = ended(start(cli.main, folder), folder)
    lines = re.findall(rf'fcnet {name}: .*\n', err) # errors, and warnings if it ran
    usage = rf'usage: (?s:.)*\nfcnet( {name})?: error: .*\n' # as argparse says it
    as_json = re.findall(r'{"file": ".*", "error": ".*"}\n', out) # of predict --json
    if code == 0: fine = ''.join(lines) == err
    else: fine = re.fullmatch(usage, err) or lines + as_json and ''.join(lines) == err
    fine = fine and code in (0, 2) and (code == 0 or len(lines + as_json) <= most + 2)
    if not (fine and (out + err).replace('\n', '').isprintable()):
        wrong = wrong or f'exit code {code}, said {err if fine else out + err!r}'
    counted = f'{name} {"refused" if code else "ran"}'
    return counted, wrong and f'{" ".join(map(repr, sys.argv))}: {wrong}'

def check(f, path):
    "What `f()` gives, or that it refuses `path` in one line, and what is wrong."
    def run():
        warnings.simplefilter('ignore', UserWarning) # which picture of several is read
        try:
            print(f())
        except (ValueError, FileNotFoundError) as e:
            assert path.name in str(e) and '\n' not in str(e), f'said {e!r}'
            print('refused')
    _, out, err, wrong = ended(start(run, path.parent), path.parent)
    if err and not wrong: wrong = f'printed {err!r}'
    return out.splitlines(), wrong


# ---- what is attacked: runs that are whole, and such that stopped within an epoch

COMMON = dict(device='cpu', hidden=[10], bs=20, epochs=150)
KINDS = [{},
         dict(opt='adamw', lr=0.002, dropout=0.2, distort=True),
         dict(model='torch', opt='adam', lr=0.002)]
TIMES = [] # seconds that a whole run of each kind takes

def train(out, stop=None, **options):
    "Train; stop after so many steps."
    class Progress(learner.Progress): # of the same name, which is saved with the run
        def after_batch(self, learn):
            if learn.step == stop: learn.stopped = True
    learner.Progress = Progress
    cli.train(cli.Train(out=out, **COMMON | options))

def write_digits(folder):
    "Sixty digits of MNIST in its file format, and one as a drawing beside the folder."
    x, y, *_ = get_data()
    x = (256*x[:60]).byte().view(-1, 28, 28)
    folder.mkdir()
    for part in ('train', 't10k'):
        for name, t in (('images', x), ('labels', y[:60].byte())):
            head = struct.pack(f'>{1 + t.dim()}I', 0x800 + t.dim(), *t.shape)
            file = folder/f'{part}-{name}-idx{t.dim()}-ubyte'
            file.write_bytes(head + t.contiguous().numpy().tobytes())
    drawing = Image.fromarray(255 - x[0].numpy()).resize((280, 280))
    drawing.save(folder.parent/'digit.png')

def run_undisturbed(f, root):
    "Run to the end, or the attacks would show nothing."
    code, _, err, _ = ended(start(f, root), root)
    if code: sys.exit(f'failed, though nothing was attacked: {err}')

def prepare(root):
    "A small folder of data, an image, and runs of all kinds."
    write_digits(root/'data')
    COMMON['data'] = str(root/'data')
    with redirect_stdout(io.StringIO()): # what is imported late is imported once
        first = str(root/'first')
        cli.train(cli.Train(out=first, **COMMON | dict(epochs=1)))
        cli.evaluate(cli.Evaluate(model=first, figure=str(root/'first.png')))
        pictures = [str(root/'digit.png')]
        assert cli.predict(cli.Predict(model=first, images=pictures)) is None
    for k, kind in enumerate(KINDS):
        begun = time.time()
        run_undisturbed(partial(train, f'whole{k}', **kind), root)
        TIMES.append(time.time() - begun)
        run_undisturbed(partial(train, f'stopped{k}', 4, **kind | dict(epochs=3)), root)


# ---- altering

def altered_bytes(content, rng, head):
    "Bytes, some of them flipped, changed, zeroed, cut or inserted; often in the head."
    for _ in range(rng.choice((1, 1, 1, 3))):
        within = min(len(content), rng.choice((head, 2**30)))
        at = rng.randrange(max(1, within))
        n = rng.choice((1, 1, 2, 8, 100, 5000))
        old = content[at:at+n]
        rest = content[at+n:]
        flipped = bytes(v ^ 1 << rng.randrange(8) for v in old[:1]) + old[1:]
        new, rest = rng.choice((
            (flipped, rest), (b'', b''), (b'', rest), (rng.randbytes(len(old)), rest),
            (bytes(len(old)), rest), (rng.randbytes(n) + old, rest)))
        content = content[:at] + new + rest
    return content

def same(a, b):
    "Are the tensors and values of two files the same, bit for bit?"
    a = checkpoint.load(a)
    b = checkpoint.load(b)
    for values in (a, b): values.pop('data') # where it is, seen from the file
    def equal(v, w):
        if not isinstance(v, torch.Tensor): return v == w
        return isinstance(w, torch.Tensor) and v.dtype == w.dtype and torch.equal(v, w)
    return a.keys() == b.keys() and all(equal(v, b[name]) for name, v in a.items())

def altered(i, rng, root, folder):
    "A checkpoint whose bytes were altered: refused, or the same."
    good = root/f'stopped{i % len(KINDS)}/model.safetensors'
    path = folder/'altered'
    content = good.read_bytes()
    head = 8 + int.from_bytes(content[:8], 'little')
    path.write_bytes(altered_bytes(content, rng, head))
    def read():
        assert same(path, good), 'altered unnoticed'
        return 'the same'
    return check(read, path)


# ---- killing

def whole_files(run, whole):
    "Names of what is there; each that can be read is checked."
    found = {p.name for p in run.glob('*')} - {'.lock'}
    if 'model.safetensors' in found: checkpoint.load(run/'model.safetensors')
    if 'curves.png' in found: Image.open(run/'curves.png').load()
    if 'history.csv' in found:
        mine, right = ((at/'history.csv').read_bytes() for at in (run, whole))
        same = right.startswith(mine) and mine.endswith(b'\n') # it grows
        assert same, 'history.csv is not that of an undisturbed run'
    if 'config.json' in found: config.Config(**config.read_config(run/'config.json'))
    return found

def kills(i, rng, root, folder):
    "A run is killed; some are resumed, killed again, and resumed to the end."
    k = i % len(KINDS)
    run = folder/'run'
    whole = root/f'whole{k}'
    expected = {'model.safetensors', 'config.json', 'curves.png', 'history.csv'}
    def kill(f):
        pid = start(f, folder)
        time.sleep(rng.uniform(0, rng.choice((0.1, TIMES[k], TIMES[k]))))
        os.kill(pid, SIGKILL)
        code = ended(pid, folder).code
        assert code in (0, -SIGKILL), 'failed before it was killed'
    kill(partial(cli.train, cli.Train(out='run', **COMMON | KINDS[k])))
    found = whole_files(run, whole)
    left = {name for name in found if not re.fullmatch(r'\..*\.tmp', name)}
    assert left <= expected, f'left {left}'
    if 'model.safetensors' not in left:
        _, wrong = call(folder, 'train', '--resume', 'run', '--device', 'cpu')
        return ['left no checkpoint'], wrong
    if i % 7: return ['left a checkpoint'], ''
    kill(partial(cli.train, cli.Train(resume='run', device='cpu')))
    whole_files(run, whole)
    _, wrong = call(folder, 'train', '--resume', 'run', '--device', 'cpu')
    if wrong: return ['left a checkpoint'], wrong
    model = 'model.safetensors'
    assert same(run/model, whole/model), 'resumed, it ended with other weights'
    assert whole_files(run, whole) == expected, 'other files than expected'
    return ['left a checkpoint', 'resumed bit for bit'], ''


# ---- making up

ODD_VALUES = [None, -1, 0, 1, 10**6, 2**63, 10**400, 1e308, 1e-320, math.nan, math.inf,
              '', 'x', '٣', 'a\0b', 'x\ny', '\x1b[2J', '\ud800', '100000,100000', [100000]*2,
              [], {}, True, [784, 10**9, 10]]
ODD_TENSORS = [
    lambda t: t*math.nan, lambda t: t*1e30, lambda t: -t, lambda t: t*0 + 255,
    lambda t: t[:1], lambda t: t[None], lambda t: t.flip(0), lambda t: torch.zeros(0),
    lambda t: t.char(), lambda t: t.double(), lambda t: t.half(), lambda t: t.bool(),
    lambda t: t.cfloat(), lambda t: t.to(torch.float8_e4m3fn),
    lambda t: t.view(torch.uint8), lambda t: torch.randint(0, 256, t.shape).to(t.dtype)]
ODD_TEXTS = ['['*10**5, '{"x":'*10**5, '{', '', '9'*5000, '{"x":1e999}', '{"x":1} 2']

def places(value, path=()):
    "The paths of all values in a value."
    found = [path]
    inner = []
    if isinstance(value, dict): inner = value.items()
    if isinstance(value, list): inner = enumerate(value)
    for key, part in inner: found += places(part, (*path, key))
    return found

def replaced(value, path, rng):
    "A value with another one, or none, at a path."
    if path:
        key, *deeper = path
        value = value.copy()
        if not deeper and rng.random() < 0.1: del value[key]
        else: value[key] = replaced(value[key], deeper, rng)
        return value
    near = [[value], {'x': value}, str(value)]
    if type(value) in (int, float): near += [value+1, -value, value*1000, value/3]*3
    return rng.choice(ODD_VALUES + near)

def odd_tensor(t, k):
    "A tensor made odd, or None where that cannot be done, or for the last `k`."
    if k == len(ODD_TENSORS): return None
    try:
        return ODD_TENSORS[k](t).contiguous()
    except (RuntimeError, IndexError):
        return None

def made_up(source, rng):
    "Content of a checkpoint with a value or a tensor changed, and what was changed."
    values = checkpoint.load(source)
    tensors = {k: v for k, v in values.items() if isinstance(v, torch.Tensor)}
    info = {k: v for k, v in values.items() if k not in tensors}
    del info['training']['history'][3:]
    notes = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.65:
            at = rng.choice(places(info))
            info = replaced(info, at, rng)
            notes.append(f'{at} was replaced')
        else:
            name = rng.choice([*tensors, 'model.x', 'opt.99.x', 'opt.x.y', 'random.9'])
            k = rng.randrange(len(ODD_TENSORS) + 1)
            odd = odd_tensor(tensors.pop(name, torch.ones(3)), k)
            if odd is not None: tensors[name] = odd
            notes.append(f'{name} by ODD_TENSORS[{k}]')
    text = json.dumps(info)
    if rng.random() < 0.05: text = rng.choice(ODD_TEXTS)
    header = {'fcnet': text, 'sha256': checkpoint.checksum(tensors, text)}
    return to_safetensors(tensors, header), f'{text[:30]} {notes}'

def crafted(i, rng, root, folder):
    "A checkpoint that somebody made up, with a right checksum: used, or refused."
    torch.manual_seed(i)
    kind = rng.choice(('stopped', 'whole'))
    source = root/f'{kind}{i % len(KINDS)}/model.safetensors'
    content, notes = made_up(source, rng)
    (folder/'made').mkdir()
    (folder/'made/model.safetensors').write_bytes(content)
    counted = []
    for name, *words in (('predict', 'made', root/'digit.png'),
                         ('train', '--resume', 'made', '--device', 'cpu'),
                         ('evaluate', 'made')):
        said, wrong = call(folder, name, *words)
        if wrong: return counted, f'{notes} {wrong}'
        counted.append(said)
    return counted, ''


# ---- images

MODES = '1 L LA P PA RGB RGBA CMYK YCbCr I I;16 F HSV LAB'.split()
FORMATS = ('png', 'jpeg', 'gif', 'webp', 'tiff', 'bmp')
LARGE = ([7000, 7100], [9000, 10_000], [1, 60_000])

def write_image(path, mode, size, rng):
    "An image of noise, in this mode if the format has it; the options of its writer."
    noise = Image.effect_noise([1 + side//9 for side in size], rng.choice((1, 50, 200)))
    plain = noise.resize(size, rng.choice((0, 2))).convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = rng.randint(0, 9) # its orientation
    options = rng.choice(({}, dict(transparency=0), dict(exif=exif),
                          dict(save_all=True, append_images=[plain])))
    try:
        plain.convert(mode).save(path, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        plain.resize((50, 60)).save(path) # the format has no such mode, size or option
    return [*options]

def images(i, rng, root, folder):
    "An image file of any kind, whole or not: read, or refused."
    path = folder/f'image.{rng.choice(FORMATS)}'
    how = rng.random()
    mode = rng.choice(MODES)
    size = [rng.randint(1, rng.choice((3, 40, 300, 300, 2000))) for _ in range(2)]
    if how < 0.02:
        mode = '1'
        size = rng.choice(LARGE)
    options = write_image(path, mode, size, rng)
    if 0.02 < how < 0.15: # a digit, so that some can be read
        Image.open(root/'digit.png').convert('RGB').save(path)
    content = path.read_bytes()
    if 0.4 < how < 0.9: path.write_bytes(altered_bytes(content, rng, 200))
    if how > 0.9:
        checkpoint_of = (root/'whole0/model.safetensors').read_bytes()
        path.write_bytes(rng.choice((b'', b'no image', rng.randbytes(1000),
                                     content[:rng.randrange(30)], checkpoint_of)))
    if how > 0.98:
        path.unlink()
        if rng.random() < 0.5: path.mkdir()
    def read():
        x = digit_from_image(path)
        assert x.shape == (784,) and x.dtype == torch.float32 and x.isfinite().all()
        assert 0 <= x.min() and x.max() < 1
        return 'read'
    counted, wrong = check(read, path)
    return counted, wrong and f'{path.suffix} {mode} {size} {options} {wrong}'


# ---- options

ODD = [*'''- -- 0 -1 -0 1 2 3.5 1_0 ٣ 0x10 1e3 1e-320 1e38 1e400 nan inf -inf x é 漢字
    . .. / /dev/null no/such ~ good good/model.safetensors digit.png digit.png/x 3,3 ,
    3, ../data ../data/train-images-idx3-ubyte 100000,100000 None True [] handmade torch
    sgd adamw batch layer mse medium linear cpu cuda mps --help -h * --colour'''.split(),
    '', ' ', '5 ', '9'*20, '9'*5000, str(2**31), str(2**63), str(2**63-1), 'new\nline',
    '\x1b[2J', 'bad\udcff', 'a'*300, '2,'*200 + '2']
TAKES = {name: [field.alias or key for key, field in options.model_fields.items()
                if not field.is_required()]
         for name, (options, _) in cli.COMMANDS.items() if name != 'bench'}
FLAGS = ('json', 'as_is', 'test', 'distort', 'residual', 'train_on_all', 'fuse')

def odd_options(name, rng):
    "Options of a command with odd values."
    names = rng.sample(TAKES[name], rng.randint(0, min(4, len(TAKES[name]))))
    given = {option: rng.choice(ODD) for option in names}
    if given.get('epochs', '').isdigit(): given['epochs'] = given['epochs'][:1]
    if given.get('data') == '': given = {'data': ''} # MNIST, with nothing long
    words = []
    for option, value in given.items():
        if rng.random() < 0.5: option = option.replace('_', '-')
        if option.replace('-', '_') in FLAGS:
            words.append(rng.choice(('--', '--no-')) + option)
        elif rng.random() < 0.5: words += [f'--{option}', value]
        else: words.append(f'--{option}={value}')
    return given, words

def options(i, rng, root, folder):
    "A command with values that are odd, too many, or too few."
    shutil.copytree(root/f'whole{i % len(KINDS)}', folder/'good')
    shutil.copy(root/'digit.png', folder)
    name = rng.choice(('train', *TAKES))
    given, words = odd_options(name, rng)
    if i < len(TAKES): # nothing odd, so that each command runs
        name = [*TAKES][i]
        given = {}
        words = ['digit.png'] if name == 'predict' else []
    elif rng.random() < 0.1: words.insert(rng.randint(0, len(words)), rng.choice(ODD))
    if name == 'predict' and not 'digit.png' in words:
        words += rng.choices(['digit.png']*40 + ODD, k=rng.randint(0, 3))
    if name != 'train':
        odd = ODD[:9] if i >= len(TAKES) else []
        words.insert(0, rng.choice(['good']*9 + odd))
    elif 'resume' not in given:
        words = ['--epochs', 1, '--out', 'new', '--hidden', 5, '--data', '../data',
                 '--device', 'cpu', *words]
    most = max(1, len(words)-1)
    if any(os.path.isdir(folder/str(word)) for word in words): most = math.inf # of their files
    said, wrong = call(folder, name, *words, most=most)
    return [said], wrong


# ---- all of them

class Part(NamedTuple):
    "A kind of attack."
    attack: object # gives what is to be counted, and what is wrong
    count: int     # attacks by default
    reaches: tuple # what must be counted at least once

PARTS = {
    'kills': Part(kills, 200, ('left a checkpoint', 'resumed bit for bit')),
    'altered': Part(altered, 2000, ('refused',)),
    'crafted': Part(crafted, 600, ('predict ran', 'train ran',
                                   'evaluate ran', 'predict refused',
                                   'train refused')),
    'images': Part(images, 500, ('read', 'refused')),
    'options': Part(options, 500, ('train ran', 'predict ran',
                                   'evaluate ran', 'train refused'))}

def case(name, seed, root, i):
    "One attack, in its own folder: what is to be counted, and what is wrong."
    folder = root/f'{name}{i}'
    folder.mkdir()
    (folder/'data').symlink_to(root/'data') # where a copied run looks for its data
    rng = random.Random(f'{seed} {name} {i}')
    try:
        counted, wrong = PARTS[name].attack(i, rng, root, folder)
    except Exception as e:
        counted = []
        wrong = f'{type(e).__name__} {e}'
    shutil.rmtree(folder)
    for path in said_files(folder): path.unlink(missing_ok=True)
    return counted, wrong and f'{name} {i}: {wrong[:700]}'

def run_part(name, seed, root, cases):
    "Run attacks of a kind; print each that did not hold. Their number, and the counts."
    begun = time.time()
    failed = 0
    counts = Counter()
    attack = partial(case, name, seed, root)
    with get_context('fork').Pool(2) as pool:
        for counted, wrong in pool.imap_unordered(attack, cases):
            counts.update(counted)
            if not wrong: continue
            failed += 1
            print(f'did not hold: {wrong}', flush=True)
    numbers = [f'{n} {words}' for words, n in sorted(counts.items())]
    print(f'{name}: {len(cases)-failed} of {len(cases)} held', *numbers,
          f'{time.time()-begun:.0f} s', sep=', ', flush=True)
    return failed, counts

def main():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('part', nargs='*', help=f'{", ".join(PARTS)}; all by default')
    parser.add_argument('--count', type=int, help='attacks of each part')
    parser.add_argument('--seed', type=int, default=0, help='of all attacks')
    parser.add_argument('--case', type=int, help='only this one')
    args = parser.parse_args()
    for name in args.part:
        if name not in PARTS: parser.error(f'no such part: {name}')
    torch.set_num_threads(1)
    wrong = 0
    with TemporaryDirectory() as tmp:
        root = Path(tmp).resolve()
        prepare(root)
        for name in args.part or PARTS:
            cases = [args.case]
            if args.case is None: cases = range(args.count or PARTS[name].count)
            failed, counts = run_part(name, args.seed, root, cases)
            wrong += failed
            if args.case is not None: continue
            for words in PARTS[name].reaches:
                if counts[words]: continue
                wrong += 1
                print(f'{name}: attacked nothing, never "{words}"', flush=True)
    sys.exit(1 if wrong else 0)

if __name__ == '__main__': main()
