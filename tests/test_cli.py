"The program `fcnet` as a shell calls it: what it prints, writes and refuses."
import csv
import errno
import io
import json
import math
import os
import random
import shutil
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from mnist_folder import write_digits, write_part
from PIL import Image

import fcnet
from fcnet.benchmark import FULL_50, SMALL
from fcnet.checkpoint import load, save
from fcnet.classify import accuracy, confusion, cross_entropy
from fcnet.accelerate import choose_device
from fcnet.cli import (COMMANDS, Bench, Evaluate, Predict, Train, build_parser,
                       claim, evaluate, main, predict, printable, train)
from fcnet.cli import compare_speed
from fcnet.config import Config, load_model
from fcnet.data import get_data, normalize
from fcnet.images import digit_from_image, open_as_is
from fcnet.recipes import RECIPES

PROGRAM = Path(sys.executable).parent/'fcnet' # where the shell finds it
ENV = os.environ | {'OMP_NUM_THREADS': '1', 'TQDM_DISABLE': '1'}
SHORT = '--data few --epochs 2 --hidden 10 --bs 50'.split() # a quick run

def called(*words):
    "Exit code, stdout and stderr of `fcnet`, without the seconds for a new process."
    words = ['fcnet', *map(str, words)]
    out = io.StringIO()
    err = io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, 'argv', words):
        try: main()
        except SystemExit as e: code = e.code or 0
    return code, out.getvalue(), err.getvalue()

def run_train(**options): return train(Train(**options))
def run_predict(model, images, **options):
    return predict(Predict(model=model, images=images, **options))
def run_evaluate(model, **options): return evaluate(Evaluate(model=model, **options))

def model_file(name): return Path(f'runs/{name}/model.safetensors')
def training_of(name): return load(model_file(name))['training']
def listed(name): return sorted(os.listdir(f'runs/{name}'))

def same(name, other):
    "Have two runs the same weights and state?"
    a = load(model_file(name))
    b = load(model_file(other))
    tensors = [k for k in a if isinstance(a[k], torch.Tensor)]
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in tensors)

@pytest.fixture(scope='module')
def template(tmp_path_factory):
    "A folder with 600 digits, two drawings, and `runs/first`, which learned them."
    folder = tmp_path_factory.mktemp('template')
    home = os.getcwd()
    os.chdir(folder)
    x, y, x_valid, y_valid = get_data()
    write_digits('few', x[:600], y[:600])
    for i in range(2):
        pixels = 255 - (x_valid[i].view(28, 28)*256).byte().numpy()
        Image.fromarray(pixels).resize((200, 200)).save(f'digit{i}.png')
    with redirect_stdout(io.StringIO()):
        run_train(data='few', epochs=8, hidden=[20], bs=50, out='runs/first')
    os.chdir(home)
    return folder

@pytest.fixture
def shop(template, tmp_path, monkeypatch):
    "The test runs in a copy of the folder."
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    # the data are named by their way from the run, and are copied with it
    return template

@pytest.fixture
def mine(in_tmp):
    "Random images, 600 of ten classes, in the folder `mine`."
    images = torch.randint(0, 256, (600, 28, 28))
    labels = torch.arange(600) % 10
    write_part('mine', images, labels)
    return images, labels

# ---- what a run leaves

def test_the_files_of_a_run(shop):
    assert listed('first') == ['.lock', 'config.json', 'curves.png', 'history.csv',
                               'model.safetensors']
    rows = list(csv.DictReader(open('runs/first/history.csv')))
    read = [{name: json.loads(value) for name, value in row.items()} for row in rows]
    assert read == training_of('first')['history'] and len(rows) == 8
    model, info = load_model('runs/first')
    assert info['sizes'] == [784, 20, 10] and info['training']['step'] == 8*10
    data = os.path.realpath('few')
    settings = {name: info[name] for name in Config.model_fields}
    assert settings == Config(epochs=8, hidden=[20], bs=50, data=data).model_dump()
    assert Image.open('runs/first/curves.png').size > (300, 200)
    saved = json.loads(Path('runs/first/config.json').read_text())
    assert saved == settings | {'data': '../../few'} # seen from the folder

def test_what_a_run_prints(shop):
    code, out, err = called('train', *SHORT, '--out', 'runs/second')
    lines = out.splitlines()
    assert code == 0 and err == ''
    assert lines[0] == '500 training digits of 10 classes, 100 for validation, on cpu'
    assert lines[1] == 'Sequential(Linear(784, 10), ReLU(), Linear(10, 10))'
    assert [line[:9] for line in lines[2:4]] == ['epoch 1/2', 'epoch 2/2']
    valid = training_of('second')['history'][-1]['valid_accuracy']
    assert lines[4] == f'validation accuracy {valid:.2%}'
    assert lines[5] == 'written to runs/second'
    assert lines[6].startswith('7960 parameters, ') and lines[6].endswith(' seconds')
    assert len(lines) == 7

def test_a_run_goes_to_a_folder_named_by_the_time(shop):
    assert called('train', *SHORT)[0] == 0
    new, = set(os.listdir('runs')) - {'first'}
    assert new[:2] == '20' and (Path('runs')/new/'model.safetensors').exists()

@pytest.mark.processes
def test_two_runs_are_the_same_to_the_last_bit(shop, capsys):
    for name in ('one', 'two'): called('train', *SHORT, '--out', f'runs/{name}')
    run_train(data='few', epochs=2, hidden=[10], bs=50, out='runs/three')
    assert same('one', 'two') and same('one', 'three')
    assert not same('one', 'first')
    texts = {Path(f'runs/{n}/history.csv').read_text() for n in ('one', 'two', 'three')}
    assert len(texts) == 1

def test_a_network_of_pytorch_and_the_random_numbers_of_others(shop, capsys):
    before = torch.get_rng_state()
    run_train(data='few', epochs=8, hidden=[20], model='torch', dropout=0.2, bs=20,
              opt='adamw', lr=0.01, distort=True, out='runs/torch')
    assert torch.equal(torch.get_rng_state(), before)
    net, info = load_model('runs/torch')
    x, y = get_data('few')[2:]
    assert accuracy(net(normalize(x, info['mean'], info['std'])), y) > 0.5
    run_predict('runs/torch', ['digit0.png'])

def test_norms_shortcuts_and_averages(shop):
    line = ('train --data few --epochs 2 --bs 100 --hidden 10 10 --norm layer '
            '--residual --ema 0.5 --out runs/helped')
    assert called(*line.split())[0] == 0
    net, info = load_model('runs/helped')
    names = [type(m).__name__ for m in net.layers]
    assert names == ['Linear', 'LayerNorm', 'ReLU', 'Residual', 'Linear']
    x, y = get_data('few')[2:] # the averaged weights are those that were saved
    right = accuracy(net(normalize(x, info['mean'], info['std'])), y)
    out = called('evaluate', 'runs/helped')[1]
    assert f'100 validation digits: accuracy {right:.2%}' in out

# ---- faults

@pytest.mark.parametrize('kwargs, words', [
    (dict(lr=-1.), 'lr is -1'), (dict(opt='magic'), "expected 'sgd', 'adam'"),
    (dict(bs=0), 'bs is 0'), (dict(model='keras'), "model is 'keras'"),
    (dict(dropout=1.), 'dropout is 1.0'), (dict(seed=-1), 'seed is -1'),
    (dict(seed=2**63), 'expected less than'),
    (dict(epochs=0), 'epochs is 0'),
    (dict(device='abacus'), "device is 'abacus', expected cpu"),
    (dict(data='no/such'), 'no such folder'),
    (dict(resume='runs/nowhere'), 'no such file'),
    (dict(resume='runs/first', epochs=4, lr=5.), 'leave out --epochs --lr'),
    (dict(resume='runs/first', recipe='linear'), 'leave out --recipe'),
    (dict(resume='runs/first', out='runs/x'), 'leave out --out'),
    (dict(recipe='magic'), "recipe is 'magic', expected one of linear, mse-300")])
def test_arguments_that_cannot_be_used(shop, kwargs, words):
    with pytest.raises((ValueError, OSError), match=words): run_train(**kwargs)
    assert os.listdir('runs') == ['first'] # before anything is made

def test_a_setting_that_is_none(shop):
    with pytest.raises(ValueError, match='no setting colour'): run_train(colour='red')

def test_a_rate_that_is_far_too_large(shop, capsys):
    with pytest.raises(FloatingPointError, match='no longer finite after epoch 1'):
        run_train(data='few', epochs=5, lr=1e9, out='runs/faulty')
    assert training_of('faulty')['step'] == 0

@pytest.mark.parametrize('args', [
    ['--epochs', 'many'], ['--epoch', '3'], ['--x=--'], ['--pdb'], ['--residual=1']])
def test_options_that_do_not_exist_print_the_usage(in_tmp, args):
    code, out, err = called('train', *args)
    assert code == 2 and out == '' and 'usage: fcnet train' in err

@pytest.mark.parametrize('args, line', [
    (['--epochs', 0], 'epochs is 0, expected greater than or equal to 1'),
    (['--lr', 'nan'], 'lr is nan, expected a finite number'),
    (['--hidden', 30, 0], 'hidden.1 is 0, expected greater than or equal to 1'),
    (['--data', 'no/such/folder'], 'no/such/folder: there is no such folder'),
    (['--hidden', 100000, 100000], '10079600010 parameters need about'),
    (['--out', 'runs/first'],
     'runs/first holds config.json; choose another --out, or --resume runs/first'),
    (['--resume', 'runs/first', '--bs', 64], '--resume brings its own settings; leave '
                                             'out --bs'),
    (['--recipe', 'magic'],
     f"recipe is 'magic', expected one of {', '.join(RECIPES)}")])
def test_a_fault_is_one_line_and_the_exit_code_2(shop, args, line):
    code, out, err = called('train', *args)
    assert code == 2 and out == '' and err.count('\n') == 1
    assert err.startswith(f'fcnet train: {line.format(os.path.realpath("."))}')

def test_models_and_data_that_are_none(shop):
    with pytest.raises(ValueError, match='digit0.png: not a whole'):
        run_predict('digit0.png', [])
    with pytest.raises(OSError, match='no such file'): run_evaluate('none')
    with pytest.raises(OSError, match='no such folder'):
        run_evaluate('runs/first', data='none')

def test_a_model_without_a_training_run(shop):
    values = load(model_file('first'))
    del values['training']
    save('bare.safetensors', values)
    assert called('predict', 'bare.safetensors', 'digit0.png')[0] == 0
    code, _, err = called('train', '--resume', 'bare.safetensors')
    assert [code, err] == [2, 'fcnet train: bare.safetensors: holds no training run\n']

def test_interrupted_before_it_starts(in_tmp):
    with patch.object(torch.accelerator, 'is_available', side_effect=KeyboardInterrupt):
        assert called('train') == (130, '', 'fcnet train: interrupted\n')

@pytest.mark.parametrize('error', [MemoryError('full'), torch.OutOfMemoryError('full')])
def test_memory_that_runs_out_is_one_line(in_tmp, error):
    with patch('fcnet.distributed.join', side_effect=error):
        assert called('train') == (2, '', 'fcnet train: full\n')

def test_faults_of_the_program_are_not_hidden(in_tmp):
    with patch('fcnet.distributed.join', side_effect=RuntimeError('a bug')):
        with pytest.raises(RuntimeError, match='a bug'): called('train')

# ---- devices

def test_devices_of_a_machine_with_one_card(monkeypatch):
    gpu = dict(is_available=lambda: True,
               current_accelerator=lambda: torch.device('mps'))
    with patch.multiple(torch.accelerator, **gpu):
        found = [choose_device(name) for name in (None, 'cpu', 'mps')]
        assert found == ['mps', 'cpu', 'mps']
        with pytest.raises(ValueError, match="device is 'cuda', expected cpu or mps"):
            choose_device('cuda')
        monkeypatch.setenv('LOCAL_RANK', '1')
        assert choose_device(None) == 'cpu' # of many processes

def test_each_process_gets_a_card(monkeypatch):
    chosen = []
    gpu = dict(is_available=lambda: True,
               current_accelerator=lambda: torch.device('cuda'))
    cards = dict(device_count=lambda: 2, set_device=chosen.append)
    with patch.multiple(torch.accelerator, **gpu), patch.multiple(torch.cuda, **cards):
        for rank in '01':
            monkeypatch.setenv('LOCAL_RANK', rank)
            assert choose_device('cuda') == 'cuda'
        assert choose_device(None) == 'cpu' and chosen == [0, 1]
        monkeypatch.setenv('LOCAL_RANK', '2')
        with pytest.raises(ValueError, match='no card for process 2, here are 2'):
            choose_device('cuda')
        monkeypatch.delenv('LOCAL_RANK')
        assert choose_device('cuda') == 'cuda' and chosen == [0, 1]

def test_a_machine_without_a_card():
    with patch.object(torch.accelerator, 'is_available', lambda: False):
        assert choose_device(None) == choose_device('cpu') == 'cpu'

# ---- stopping and resuming

def line_of(out):
    return ('train --data some --hidden 20 --epochs 60 --bs 20 --dropout 0.1 '
            f'--out runs/{out}').split()

def start(out):
    threads = str(torch.get_num_threads()) # as here, for the same last bits
    return subprocess.Popen([PROGRAM, *line_of(out)], text=True,
                            env=ENV | {'OMP_NUM_THREADS': threads},
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

def wait_for(process, words):
    for line in process.stdout:
        if words in line: return

@pytest.mark.processes
def test_ctrl_c_and_kill_lose_nothing(in_tmp):
    x, y, *_ = get_data()
    write_digits('some', x[:1500], y[:1500])
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    processes = {number: start(number.name) for number in signals}
    try:
        for number, process in processes.items():
            wait_for(process, 'epoch 2/60') # the first one is saved by then
            process.send_signal(number)
        said = {number: process.communicate(timeout=100)[0]
                for number, process in processes.items()}
    finally:
        for process in processes.values(): process.kill()
    assert called(*line_of('through'))[0] == 0
    for number in signals[:2]:
        assert processes[number].returncode == 128 + number
        assert f'saved in runs/{number.name}/model' in said[number], said
        assert 'written to' in said[number] # what there is of history.csv
    for words in (['predict', 'runs/SIGINT', 'none'],
                  ['evaluate', 'runs/SIGINT']):
        assert 'its training was stopped before the end' in called(*words)[2]
    for name in ('SIGTERM', 'SIGKILL'):
        assert 0 < training_of(name)['step'] < 60*63
        code, _, err = called('train', '--resume', f'runs/{name}')
        assert [code, err] == [0, ''] and same(name, 'through')
        texts = {Path(f'runs/{n}/history.csv').read_text() for n in (name, 'through')}
        assert len(texts) == 1

@pytest.mark.processes
def test_a_file_is_whole_even_if_its_writer_was_killed(in_tmp):
    script = """import torch
from fcnet.checkpoint import save
for i in range(10**6):
    save('often.safetensors', {'w': torch.full((300, 300), float(i)), 'i': i})"""
    writer = subprocess.Popen([sys.executable, '-c', script], env=ENV)
    often = Path('often.safetensors')
    while not often.exists(): time.sleep(0.01)
    time.sleep(0.06)
    writer.kill() # at fifty moments: make torture
    writer.wait()
    values = load(often)
    assert (values['w'] == values['i']).all()

@pytest.mark.parametrize('target', ['runs/first', 'runs/first/model.safetensors'])
def test_a_report_that_is_missing_is_written_by_resume(shop, target):
    Path('runs/first/history.csv').unlink()
    for number, name in enumerate(['.model.safetensors', '.curves.png']):
        Path(f'runs/first/{name}.{number:016x}.tmp').write_text('by a killed writer')
    code, out, err = called('train', '--resume', target)
    assert [code, err, out.splitlines()[0]] == [0, '', '8 of 8 epochs are done']
    assert listed('first') == ['.lock', 'config.json', 'curves.png', 'history.csv',
                               'model.safetensors']

@pytest.mark.processes
def test_a_run_is_resumed_after_torchrun_has_restarted_it(shop):
    line = ['train', *SHORT, '--out', 'runs/one']
    called(*line)
    with patch.dict(os.environ, TORCHELASTIC_RESTART_COUNT='1'):
        code, out, err = called(*line)
        other = called(*line, '--hidden', 11) # it is not that run
    assert [code, err, out.splitlines()[0]] == [0, '', '2 of 2 epochs are done']
    assert [other[0], other[1], other[2].count('\n')] == [2, '', 1]
    assert called(*line)[0] == 2 # without a restart the folder is taken

def test_resume_leaves_a_newer_setting_at_its_default(mine, capsys):
    run_train(data='mine', epochs=2, hidden=[10], out='runs/mine')
    values = load(model_file('mine')) # as if saved before there was such a setting
    del values['adversarial']
    save(model_file('mine'), values)
    run_train(resume='runs/mine')

@pytest.mark.parametrize('row, words', [(550, 'checksum was'), (3, '')])
def test_data_that_have_changed_are_refused(mine, capsys, row, words):
    run_train(data='mine', epochs=1, hidden=[10], out='runs/mine')
    images, labels = mine
    images[row, 4, 5] ^= 1 # in a row of the training part this may change the mean
    write_part('mine', images, labels)
    with pytest.raises(ValueError, match=f'not the run that was trained, {words}'):
        run_train(resume='runs/mine')

@pytest.mark.parametrize('row, label, words', [
    (7, 255, 'labels run to 255, but only 11'),
    (550, 10, 'labels run to 10, but only 10')])
def test_labels_that_teach_nothing(mine, row, label, words):
    images, labels = mine
    labels[row] = label
    write_part('mine', images, labels)
    with pytest.raises(ValueError, match=words): run_train(data='mine')
    assert not Path('runs').exists()

def test_pixels_that_teach_nothing(mine):
    images, labels = mine
    write_part('mine', images*0 + 9, labels)
    with pytest.raises(ValueError, match='all pixels are the same'):
        run_train(data='mine')

@pytest.mark.parametrize('epochs', [1, 3])
def test_a_loss_that_is_no_number_replaces_nothing(mine, epochs):
    line = f'--data mine --epochs {epochs} --bs 600 --lr 1e38 --out runs/huge'
    code, _, err = called('train', *line.split())
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith('fcnet train: ') and 'loss' in last
    assert training_of('huge')['step'] == 0

# ---- a folder for one run

@pytest.mark.processes
def test_a_folder_belongs_to_one_process(shop):
    with claim(Path('runs/shared'), None): # somebody is writing there
        code, out, err = called('train', '--out', 'runs/shared')
        assert [code, listed('shared')] == [2, ['.lock']]
        assert err == 'fcnet train: runs/shared: another training run is here\n'
    assert called('train', *SHORT, '--out', 'runs/shared')[0] == 0

@pytest.mark.parametrize('name', ['history.csv', 'curves.png', 'notes.txt'])
def test_what_is_foreign_is_not_written_over(in_tmp, name):
    file = Path(f'runs/foreign/{name}')
    file.parent.mkdir(parents=True)
    file.write_text('mine')
    with pytest.raises(ValueError, match=f'runs/foreign holds {name}; choose another'):
        run_train(out='runs/foreign', epochs=1)
    assert listed('foreign') == [name] and file.read_text() == 'mine'

def test_a_folder_that_cannot_be_made(shop):
    with pytest.raises(OSError):
        run_train(out='digit0.png/runs', epochs=1, data='few')

def test_a_claim_is_checked_again_once_it_is_held(in_tmp):
    class Slow: # another run ends between the check and the lock
        def __init__(self, *args, **kwargs): pass
        def acquire(self):
            Path('runs/late/model.safetensors').write_text('done')
            return self
        def __enter__(self): return self
        def __exit__(self, *_): pass
    with patch('fcnet.cli.FileLock', Slow):
        with pytest.raises(ValueError, match='runs/late holds model.safetensors'):
            with claim(Path('runs/late'), None): pass
        with claim(Path('runs/late'), 'runs/late'): pass

@pytest.mark.parametrize('error', [
    OSError(errno.ENOLCK, 'No locks available'), OSError(errno.ENOSYS, 'not there'),
    OSError(errno.EOPNOTSUPP, 'not supported'), NotImplementedError('no flock')])
def test_a_file_system_without_locks(shop, error):
    with patch('filelock.FileLock.acquire', side_effect=error):
        code, _, err = called('train', *SHORT, '--out', 'runs/free')
    assert [code, err.count('\n')] == [0, 1]
    assert 'runs/free: cannot be locked' in err and str(error) in err

def test_a_folder_that_may_not_be_written_to(shop):
    error = PermissionError(errno.EACCES, 'Permission denied', 'runs/free/.lock')
    with patch('filelock.FileLock.acquire', side_effect=error):
        code, _, err = called('train', *SHORT, '--out', 'runs/free')
    assert [code, err.count('\n')] == [2, 1] and 'denied' in err and 'runs/free' in err

def test_only_files_of_killed_writers_are_removed(shop):
    folder = Path('runs/first')
    foreign = ['.notes.txt.tmp', '.model.safetensors.tmp', '.x.0123456789abcdef.tmp']
    for name in foreign: (folder/name).write_text('mine')
    (folder/'.curves.png.0123456789abcdef.tmp').mkdir()
    assert called('train', '--resume', folder)[0] == 0
    assert {*foreign, '.curves.png.0123456789abcdef.tmp'} < set(listed('first'))

# ---- data that have moved

@pytest.mark.processes
def test_data_that_have_moved(shop):
    Path('few').rename('elsewhere')
    code, _, err = called('train', '--resume', 'runs/first')
    assert [code, err.count('\n')] == [2, 1] and 'few: there is no such folder' in err
    code, out, err = called('train', '--resume', 'runs/first', '--data', 'elsewhere')
    assert [code, err, out.splitlines()[0]] == [0, '', '8 of 8 epochs are done']
    assert called('evaluate', 'runs/first', '--data', 'elsewhere')[0] == 0
    x, y, *_ = get_data()
    write_digits('others', x[600:1200], y[600:1200])
    code, _, err = called('train', '--resume', 'runs/first', '--data', 'others')
    assert [code, err.count('\n')] == [2, 1] and 'not the run that was trained' in err

def test_a_model_holds_no_absolute_path(shop):
    data = os.path.abspath('few')
    called('train', *SHORT[2:], '--data', data, '--out', os.path.abspath('runs/far'))
    assert os.path.dirname(data).encode() not in model_file('far').read_bytes()
    assert load(model_file('far'))['data'] == '../../few'
    assert called('evaluate', 'runs/far')[0] == 0

# ---- recipes

def test_what_is_on_the_line_goes_before_the_recipe(shop, capsys):
    run_train(recipe='linear', data='few', epochs=1, train_on_all=False, out='runs/recipe')
    net, info = load_model('runs/recipe')
    assert [len(net.layers), info['weight_decay'], info['epochs']] == [1, 0.0001, 1]
    assert 'test error' not in capsys.readouterr().out

@pytest.mark.processes
def test_a_run_on_all_digits_ends_with_the_test_error(shop):
    code, out, _ = called('train', '--recipe', 'linear', '--data', 'few',
                          '--epochs', 1, '--out', 'runs/whole')
    assert code == 0 and '600 training digits' in out
    evaluated = called('evaluate', 'runs/whole', '--test')[1]
    right = float(evaluated.split('accuracy ')[1].split('%')[0])
    assert evaluated.startswith('600 test digits: ')
    assert f'\ntest error {100 - right:.2f} %\n' in out

# ---- predicting and evaluating

def test_predict_reads_each_image(shop):
    files = 'digit0.png', 'digit1.png', 'none.png'
    code, out, err = called('predict', 'runs/first', *files)
    assert [code, err.count('\n'), len(out.splitlines())] == [2, 1, 2]
    assert err.startswith('fcnet predict: none.png: ')
    model, info = load_model('runs/first')
    for line, file in zip(out.splitlines(), files):
        x = normalize(digit_from_image(file)[None], info['mean'], info['std'])
        p = model(x).softmax(1)[0]
        answer = p.argmax().item() if p.max() >= 0.9 else '?'
        shares = [f'{k}:{v:.3f}' for k, v in enumerate(p.tolist())]
        assert line == '  '.join([file, str(answer), *shares])
    assert called('predict', 'runs/first', 'digit0.png')[0] == 0

def test_predict_as_json(shop):
    code, out, err = called('predict', 'runs/first', 'digit0.png', 'none.png',
                            'digit1.png', '--json')
    lines = [json.loads(line) for line in out.splitlines()]
    assert [code, err, len(lines)] == [2, '', 3]
    assert [line['file'] for line in lines] == ['digit0.png', 'none.png', 'digit1.png']
    failed = lines.pop(1)
    assert set(failed) == {'file', 'error'} and 'none.png' in failed['error']
    for line in lines:
        assert abs(sum(line['probabilities']) - 1) < 1e-5
        top = max(range(10), key=line['probabilities'].__getitem__)
        assert line['digit'] in (top, None)

def test_json_is_valid_under_every_name(shop):
    odd = ['new\nline.png', 'bell\x07.png', os.fsdecode(b'broken\xff.png'), '数.png',
           'quote".png', 'back\\slash.png']
    for name in odd: Path(name).write_bytes(Path('digit0.png').read_bytes())
    code, out, err = called('predict', 'runs/first', *odd, 'none\x1b"\udcff', '--json')
    found = [json.loads(line)['file'] for line in out.splitlines()]
    assert [code, err] == [2, ''] and out.isascii() and 'udcff' in found[2]
    assert found[:2] + found[3:6] == odd[:2] + odd[3:]
    for name in found: name.encode() # no lone half of a letter

@pytest.mark.parametrize('threshold, answer', [(0, 'digit'), (0.999999, '?')])
def test_the_threshold_decides_what_is_sure(shop, threshold, answer):
    out = called('predict', 'runs/first', 'digit0.png', '--threshold', threshold)[1]
    assert (out.split()[1] == '?') == (answer == '?')

def scaled(factor):
    "What `runs/first` holds, its weights times a factor."
    return {k: v*factor if k.startswith('model.') else v
            for k, v in load(model_file('first')).items()}

def test_predict_says_when_it_is_not_sure(shop):
    save('unsure.safetensors', scaled(0.01)) # all digits nearly alike
    words = 'predict', 'unsure.safetensors', 'digit0.png'
    assert called(*words)[1].startswith('digit0.png  ?')
    assert json.loads(called(*words, '--json')[1])['digit'] is None
    save('sure.safetensors', scaled(20.))
    out = called('predict', 'sure.safetensors', 'digit0.png')[1]
    assert out.split()[1] in '0123456789'

def test_scores_that_are_no_numbers_are_refused(shop):
    save('wide.safetensors', scaled(1e30))
    with pytest.raises(ValueError, match='wide.safetensors: scores are not finite'):
        run_predict('wide.safetensors', ['digit0.png'])

def test_folders_patterns_and_standard_input(shop, monkeypatch):
    Path('scans').mkdir()
    for name in ('b.png', 'a.png', '.hidden'): shutil.copy('digit0.png', f'scans/{name}')
    for words in (['scans'], ['scans/*.png'], ['scans/[ab].png']):
        code, out, err = called('predict', 'runs/first', *words)
        assert [code, err] == [0, '']
        assert [line.split()[0] for line in out.splitlines()] == ['scans/a.png',
                                                                  'scans/b.png']
    content = io.BytesIO(Path('digit0.png').read_bytes())
    with patch.object(sys, 'stdin', SimpleNamespace(buffer=content)):
        assert called('predict', 'runs/first', '-')[1].startswith('-  ')
    Path('none').mkdir()
    for name in ('none', 'x*.png', '['):
        code, out, err = called('predict', 'runs/first', name, 'digit0.png')
        assert [code, err.count('\n'), out.count('\n')] == [2, 1, 1] and name in err

@pytest.mark.parametrize('change, words', [
    (lambda x: 255/256 - x, 'their border is 1.0'),
    (lambda x: x.view(-1, 28, 28).mT.reshape(-1, 784), 'perhaps transposed')])
def test_a_network_of_other_pictures(shop, change, words):
    x, y, *_ = get_data()
    write_digits('other', change(x[:3000]), y[:3000])
    code, _, err = called('train', '--data', 'other', '--hidden', 20, '--epochs', 4,
                          '--out', 'runs/other')
    assert [code, err.count('\n')] == [0, 1] and words in err
    shown = change(x[4000:4030])
    for i, pixels in enumerate((shown*256).byte().view(-1, 28, 28).numpy()):
        Image.fromarray(pixels).save(f'{i}.png')
    files = [f'{i}.png' for i in range(30)]
    _, out, err = called('predict', 'runs/other', *files)
    assert err.count('\n') == 1 and words in err and '--as-is' in err
    code, out, err = called('predict', 'runs/other', *files, '--as-is')
    assert [code, err] == [0, '']
    model, info = load_model('runs/other')
    pixels = torch.stack([open_as_is(file) for file in files])
    p = model(normalize(pixels, info['mean'], info['std'])).softmax(1)
    said = [line.split()[1] for line in out.splitlines()]
    assert said == [str(q.argmax().item()) if q.max() >= 0.9 else '?' for q in p]
    assert (p.argmax(1) == y[4000:4030]).float().mean() > 0.7

def test_from_python_one_image_or_many(shop, capsys):
    for _ in range(2): assert run_predict('runs/first', ['digit0.png']) is None
    one = capsys.readouterr().out
    assert run_predict('runs/first', ['digit0.png', 'none.png']) == 2
    assert one == 2*capsys.readouterr().out

@pytest.mark.parametrize('place', ['runs/first', 'runs/first/model.safetensors'])
def test_evaluate_counts_right(shop, place):
    before = listed('first')
    code, out, err = called('evaluate', place)
    assert listed('first') == before # it writes only where it is told
    model, info = load_model('runs/first')
    x, y = get_data('few')[2:]
    scores = model(normalize(x, info['mean'], info['std']))
    lines = out.splitlines()
    assert code == 0 and err == ''
    assert lines[0] == (f'100 validation digits: accuracy {accuracy(scores, y):.2%}, '
                        f'loss {cross_entropy(scores, y):.4f}')
    assert lines[2].startswith('true  predicted') and lines[2].endswith('errors')
    assert len(set(map(len, lines[2:14:2]))) == 1 # columns end together
    head, *rows = [line.split() for line in lines[3:14]]
    assert head == list('0123456789')
    counts = confusion(scores, y)
    assert [[int(v) for v in row[1:-1]] for row in rows] == counts.tolist()
    assert [row[0] for row in rows] == head
    errors = [f'{1 - counts[k, k]/counts[k].sum():.1%}' for k in range(10)]
    assert [row[-1] for row in rows] == errors
    assert len(lines) == 14
    out = called('evaluate', place, '--figure', 'confusion.png')[1]
    assert out.splitlines()[:14] == lines
    assert out.splitlines()[-1] == 'written to confusion.png'
    assert Image.open('confusion.png').size > (300, 200)

@pytest.mark.processes
def test_evaluate_on_other_data_and_on_the_test_file(shop):
    x, y, *_ = get_data()
    write_digits('other', x[900:960], y[900:960])
    assert called('evaluate', 'runs/first', '--data', 'other')[1][:20] == \
        '10 validation digits'
    out = called('evaluate', 'runs/first', '--data', 'other', '--test')[1]
    assert out.startswith('60 test digits: accuracy')
    assert called('evaluate', 'runs/first', '--test')[1][:15] == '600 test digits'

def test_a_class_that_is_missing_has_no_error(shop):
    x, y, *_ = get_data()
    keep = (y[:600] != 4).nonzero()[:60, 0]
    write_digits('no4', x[keep], y[keep])
    out = called('evaluate', 'runs/first', '--data', 'no4', '--test')[1]
    rows = out.splitlines()
    assert rows[4 + 4].split()[0] == '4' and rows[4 + 4].split()[-1] == 'nan%'

# ---- what reaches the terminal

def test_names_that_cannot_be_printed(shop):
    odd = ['new\nline.png', 'bell\x07.png', os.fsdecode(b'broken\xff.png')]
    for name in odd: Path(name).write_bytes(Path('digit0.png').read_bytes())
    code, out, err = called('predict', 'runs/first', *odd, 'none\x1b[2J.png')
    assert [code, out.count('\n'), err.count('\n')] == [2, 3, 1]
    assert (out + err).replace('\n', '').isprintable() and 'bell\\x07.png' in out
    _, out, err = called('evaluate', 'runs/first', 'more\x1b[2J\x07')
    assert (out + err).replace('\n', '').isprintable() and 'more' in err

@pytest.mark.parametrize('words, shown', [
    ('plain é', 'plain é'), ('a\nb', 'a\\nb'), ('\x1b[2J', '\\x1b[2J'),
    (Path('x'), 'x'),
    ('\udcff', '\\udcff')])
def test_printable(words, shown):
    assert printable(words) == shown

@pytest.mark.parametrize('encoding', ['ascii', 'cp1252', 'utf-8'])
def test_a_name_that_the_terminal_does_not_know(shop, encoding):
    for name in ('数.png', 'é.png'): shutil.copy('digit0.png', name)
    words = ['fcnet', 'predict', 'runs/first', '数.png', 'é.png', 'none數', 'digit1.png']
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), \
         patch.object(sys, 'argv', words), pytest.raises(SystemExit) as ended: main()
    for stream in streams: stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    assert ended.value.code == 2 # for the one that is not there
    assert [out.count('\n'), err.count('\n')] == [3, 1] and 'digit1.png' in out
    assert ('\\u6570' in out) == (encoding != 'utf-8')

class Full(io.StringIO):
    "A device that is full, or a pipe that nobody reads."
    def __init__(self, number):
        super().__init__()
        self.error = OSError(number, os.strerror(number))
        self.file = open(os.devnull, 'w')
    def write(self, words): raise self.error
    def fileno(self): return self.file.fileno()

@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EPIPE])
def test_a_run_goes_on_when_nothing_can_be_printed(shop, number):
    stream = Full(number)
    words = ['fcnet', 'train', *SHORT, '--out', 'runs/mute']
    with redirect_stdout(stream), redirect_stderr(stream), \
         patch.object(sys, 'argv', words), pytest.raises(SystemExit) as ended: main()
    assert not ended.value.code and training_of('mute')['step'] == 20

def test_predictions_that_cannot_be_printed_are_a_fault(shop):
    err = io.StringIO()
    with redirect_stdout(Full(errno.ENOSPC)), redirect_stderr(err), pytest.raises(
            SystemExit) as ended, patch.object(sys, 'argv', ['fcnet', 'predict', 'runs/first',
                                                             'digit0.png']): main()
    assert ended.value.code == 2 and 'No space left' in err.getvalue()

@pytest.mark.processes
def test_streams_that_are_closed(shop):
    line = f'"{PROGRAM}" predict --json runs/first none.png digit0.png'
    done = subprocess.run(line + ' 2>&-', shell=True, stdout=subprocess.PIPE, env=ENV)
    assert done.returncode == 2
    files = [json.loads(row)['file'] for row in done.stdout.splitlines()]
    assert files == ['none.png', 'digit0.png']
    words = ['fcnet', 'evaluate', 'runs/first']
    with redirect_stdout(None), patch.object(sys, 'argv', words), pytest.raises(
            SystemExit) as ended: main()
    assert not ended.value.code

def test_a_figure_that_cannot_be_written(shop):
    code, out, err = called('evaluate', 'runs/first', '--figure', 'none/x.png')
    assert [code, err.count('\n')] == [2, 1] and 'accuracy' in out
    assert 'none/x.png' in err

def test_an_allocation_that_fails_is_one_line(in_tmp):
    words = "DefaultCPUAllocator: can't allocate memory: you tried 80 bytes"
    with patch('fcnet.distributed.join', side_effect=RuntimeError(words)):
        assert called('train') == (2, '', f'fcnet train: {words}\n')

@pytest.mark.processes
def test_a_reader_that_stops_reading(shop):
    line = f'"{PROGRAM}" evaluate runs/first | head -1'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=ENV)
    assert [done.stderr, done.stdout.count('\n')] == ['', 1]
    line = f'{PROGRAM} evaluate runs/first | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, env=ENV)
    assert [done.stderr, done.stdout] == ['', '141\n']

# ---- options

@pytest.mark.parametrize('command', COMMANDS)
def test_help_has_every_option_and_its_description(command):
    code, out, err = called(command, '--help')
    options, _ = COMMANDS[command]
    said = ' '.join(out.split())
    assert [code, err] == [0, ''] and f'usage: fcnet {command} ' in out
    assert options.__doc__ in said and '(default: None)' not in said
    for name, field in options.model_fields.items():
        name = (field.alias or name).replace('_', '-')
        words = said.split()
        if field.is_required(): assert name in words
        else: assert f'--{name}' in words or f'--{name},' in words, name
        assert field.description in said, name
        if field.annotation is bool: assert f'--no-{name}' in words

def test_the_help_of_the_program_lists_its_commands():
    code, out, _ = called('--help')
    assert code == 0 and all(name in out.split() for name in COMMANDS)
    assert called('--version') == (0, fcnet.__version__ + '\n', '')

def test_predict_does_not_promise_ten_classes():
    assert 'ten' not in called('predict', '--help')[1].split()

def parsed(*words):
    found = vars(build_parser().parse_args(words))
    assert found.pop('completion') is None
    return found

OPTIONS = { # words on the command line -> the setting that they give, and its value
    '--hidden': ('hidden', []), '--hidden 300 100': ('hidden', [300, 100]),
    '--model torch': ('model', 'torch'), '--norm=batch': ('norm', 'batch'),
    '--residual': ('residual', True), '--no-residual': ('residual', False),
    '--loss mse': ('loss', 'mse'), '--label-smoothing 0.1': ('label_smoothing', 0.1),
    '--label_smoothing 0.1': ('label_smoothing', 0.1), '--epochs 3': ('epochs', 3),
    '--bs=5': ('bs', 5), '--lr 1e-3': ('lr', 0.001), '--lr 1': ('lr', 1.),
    '--opt adamw': ('opt', 'adamw'), '--weight-decay 0.2': ('weight_decay', 0.2),
    '--weight_decay=0.2': ('weight_decay', 0.2), '--dropout 0.5': ('dropout', 0.5),
    '--max-norm 2': ('max_norm', 2.), '--max_norm 2': ('max_norm', 2.),
    '--distort': ('distort', True), '--no-distort': ('distort', False),
    '--affine 0': ('affine', 0.), '--elastic 3': ('elastic', 3.),
    '--noise 0.5': ('noise', 0.5), '--adversarial 1': ('adversarial', 1.),
    '--ema 0.9': ('ema', 0.9), '--precision bf16': ('precision', 'bf16'),
    '--fuse': ('fuse', True), '--no-fuse': ('fuse', False),
    '--train-on-all': ('train_on_all', True), '--train_on_all': ('train_on_all', True),
    '--no-train-on-all': ('train_on_all', False),
    '--no-train_on_all': ('train_on_all', False), '--seed 7': ('seed', 7),
    '--data few': ('data', 'few'), '--device cpu': ('device', 'cpu'),
    '--out x': ('out', 'x'), '--resume x': ('resume', 'x'),
    '--recipe 800': ('recipe', '800'), '--config x.json': ('config', 'x.json')}

@pytest.mark.parametrize('words', OPTIONS)
def test_every_option_of_train(words):
    given = parsed('train', *words.split())
    name, value = OPTIONS[words]
    assert given.pop('command') == 'train'
    assert list(given) == [name] and given[name] == value # what is not given is left out
    assert type(given[name]) is type(value)
    Train(**given)

def test_every_setting_is_in_the_table_of_options():
    assert {name for name, _ in OPTIONS.values()} == set(Train.model_fields)

@pytest.mark.parametrize('words, options', [
    ('predict m a b', dict(model='m', images=['a', 'b'])),
    ('predict m - --json --as-is', dict(model='m', images=['-'], json=True, as_is=True)),
    ('predict m a --as_is --no-json', dict(model='m', images=['a'], json=False,
                                           as_is=True)),
    ('predict --threshold 0.5 m a', dict(model='m', images=['a'], threshold=0.5)),
    ('evaluate m', dict(model='m')),
    ('evaluate m --test --data d --figure f', dict(model='m', test=True, data='d',
                                                   figure='f')),
    ('evaluate m --no-test', dict(model='m', test=False)),
    ('bench', {}), ('bench --rounds 5 --threads 1', dict(rounds=5, threads=1)),
    ('bench --quick --check --out x', dict(quick=True, check=True, out='x'))])
def test_options_of_the_other_commands(words, options):
    given = parsed(*words.split())
    command = given.pop('command')
    assert given == options
    COMMANDS[command][0](**given)

WRONG = { # words -> what is said; the usage comes first where the words are unreadable
    '': 'usage', 'magic': 'usage', 'train --epochs many': 'usage',
    'train --epochs 1.5': 'usage', 'train --lr fast': 'usage',
    'train --hidden 300,100': 'usage', 'train --hidden x': 'usage',
    'train --model keras': 'usage', 'train --norm x': 'usage', 'train --loss x': 'usage',
    'train --opt magic': 'usage', 'train --precision low': 'usage',
    'train --residual=1': 'usage', 'train --epoch 3': 'usage', 'train --x=--': 'usage',
    'train more': 'usage', 'train --smoothing 0.1': 'usage', 'predict': 'usage',
    'predict m': 'usage', 'predict m a --threshold x': 'usage', 'evaluate': 'usage',
    'evaluate m more': 'usage', 'bench --rounds x': 'usage', '--completion x': 'usage',
    'train --epochs 0': 'epochs is 0, expected greater than or equal to 1',
    'train --bs -3': 'bs is -3, expected', 'train --lr 0': 'lr is 0.0, expected',
    'train --lr nan': 'lr is nan, expected a finite', 'train --seed -1': 'seed is -1',
    'train --hidden 0': 'hidden.0 is 0, expected', 'train --dropout 1': 'dropout is 1.0',
    'train --label-smoothing 1': 'label_smoothing is 1.0', 'train --ema 1': 'ema is 1.0',
    'train --weight-decay -1': 'weight_decay is -1.0', 'train --noise -1': 'noise is',
    'train --max_norm -1': 'max_norm is', 'train --adversarial -1': 'adversarial is',
    'train --affine -1': 'affine is', 'train --elastic -1': 'elastic is',
    'train --model torch --loss mse': "loss is 'mse', expected 'entropy' with model",
    'train --norm batch --ema 0.5': 'ema is 0.5, expected 0 with norm',
    'train --recipe 800 --config x': '--recipe and --config both bring settings',
    'train --resume x --lr 3 --bs 1': 'leave out --bs --lr',
    'train --resume x --out y': 'leave out --out',
    'train --resume x --config y': 'leave out --config',
    'predict m a --threshold 1.5': 'threshold is 1.5', 'bench --rounds 0': 'rounds is 0',
    'bench --threads 0': 'threads is 0'}

@pytest.mark.parametrize('words', WRONG)
def test_every_wrong_value_is_named_and_ends_with_2(in_tmp, words):
    code, out, err = called(*words.split())
    *usage, line = err.splitlines()
    assert [code, out] == [2, ''] and os.listdir() == []
    name = ' '.join(['fcnet', *words.split()[:1]]) if '.' not in words else 'fcnet'
    assert line.startswith(name if words.split()[:1] and words.split()[0] in COMMANDS
                           else 'fcnet')
    if WRONG[words] == 'usage': assert usage[0].startswith('usage: fcnet')
    else: assert usage == [] and WRONG[words] in line

@pytest.mark.processes
def test_help_version_and_wrong_options_load_nothing_heavy(in_tmp):
    script = ('import sys; from fcnet.cli import main\n'
              'try: main()\nfinally: print({"torch._C", "matplotlib", "numpy", "scipy"} & '
              'sys.modules.keys())')
    for words in ('--help', 'train --help', '--version', 'train --lr 0', 'train --x'):
        done = subprocess.run([sys.executable, '-c', script, *words.split()],
                              capture_output=True, text=True, env=ENV)
        assert done.stdout.endswith('set()\n'), (words, done.stdout, done.stderr)

@pytest.mark.processes
def test_the_package_is_a_program(in_tmp):
    done = subprocess.run([sys.executable, '-m', 'fcnet', '--version'], env=ENV,
                          capture_output=True, text=True)
    assert [done.returncode, done.stdout] == [0, fcnet.__version__ + '\n']

@pytest.mark.parametrize('kind', ['bash', 'zsh', 'tcsh'])
def test_completion_knows_the_options(kind):
    code, out, err = called('--completion', kind)
    assert [code, err] == [0, ''] and 'label-smoothing' in out and 'evaluate' in out

def test_an_error_before_the_command_is_known(in_tmp):
    with patch('fcnet.cli.build_parser', side_effect=OSError('no space left')):
        assert called('--help') == (2, '', 'fcnet: no space left\n')

def test_debug_shows_the_traceback_of_an_error(shop):
    code, out, err = called('evaluate', 'none', '--debug')
    assert [code, out] == [2, ''] and 'Traceback' in err
    assert err.splitlines()[-1].startswith('fcnet evaluate: none')
    assert 'Traceback' not in called('evaluate', 'none')[2]

@pytest.mark.parametrize('error, code', [
    (ValueError('bad'), 2), (OSError('bad'), 2), (MemoryError('bad'), 2),
    (FloatingPointError('bad'), 2), (torch.OutOfMemoryError('bad'), 2),
    (RuntimeError('cannot allocate'), 2), (BrokenPipeError('bad'), 141),
    (KeyboardInterrupt(), 130), (RuntimeError('bad'), 1), (TypeError('bad'), 1),
    (AssertionError('bad'), 1), (KeyError('bad'), 1)])
def test_every_error_has_its_exit_code(shop, error, code):
    with patch('fcnet.load_model', side_effect=error):
        if code == 1: # Python prints the traceback, and ends with 1
            with pytest.raises(type(error)): called('evaluate', 'runs/first')
            return
        found, _, err = called('evaluate', 'runs/first')
    assert found == code and err.count('\n') == (code != 141)

def test_commands_that_have_their_own_exit_code(shop, monkeypatch):
    for given, code in ((None, 0), (0, 0), (1, 1), (143, 143)):
        monkeypatch.setitem(COMMANDS, 'train', (Train, lambda options: given))
        assert called('train')[0] == code

def test_one_more_command_is_one_more_entry(monkeypatch):
    class Info(Bench):
        "Say something."
    monkeypatch.setitem(COMMANDS, 'info', (Info, lambda options: print(options.rounds)))
    assert called('info', '--rounds', 4) == (0, '4\n', '')

# ---- where settings come from

def test_settings_from_a_file_and_options_that_override_them(shop):
    line = 'train --config runs/first/config.json --epochs 1 --no-fuse --out runs/new'
    assert called(*line.split())[0] == 0
    first = json.loads(Path('runs/first/config.json').read_text())
    new = json.loads(Path('runs/new/config.json').read_text())
    assert new == first | dict(epochs=1, fuse=False) # with data relative to both
    code, _, err = called('train', '--config', 'none.json')
    assert [code, err.count('\n')] == [2, 1] and 'none.json' in err

@pytest.mark.parametrize('text, words', [
    ('{', 'c.json: holds no settings'), ('{"lr": 0}', 'lr is 0, expected'),
    ('{"lr": "x"}', "lr is 'x', expected"), ('{"colour": 1}', 'no setting colour'),
    ('{"model": "torch", "norm": "layer"}', "norm is 'layer', expected 'none'")])
def test_a_file_of_wrong_settings(in_tmp, text, words):
    Path('c.json').write_text(text)
    code, out, err = called('train', '--config', 'c.json')
    assert [code, out, err.count('\n')] == [2, '', 1] and words in err

def test_options_override_a_recipe():
    from fcnet.cli import find_config
    config = find_config(Train(recipe='300-100', train_on_all=False, lr=1.), Path('x'))
    assert config == Config(**RECIPES['300-100'] | dict(train_on_all=False, lr=1.))

@pytest.mark.processes
def test_history_grows_while_a_run_trains(shop):
    seen = []
    with patch('fcnet.learner.Progress.after_epoch',
               lambda self, learn: seen.append(len(learn.history)) or seen.append(
                   Path('runs/grows/history.csv').read_text().count('\n')
                   if Path('runs/grows/history.csv').exists() else 0)):
        called('train', *SHORT, '--out', 'runs/grows')
    assert seen == [1, 0, 2, 2] # before this row, and a head and a row

# ---- many processes

@pytest.mark.processes
def test_two_processes_give_one_report(shop):
    line = 'train --data few --hidden 10 --epochs 3 --bs 48 --out runs/'.split()
    many = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
            '--nproc-per-node=2', '--no-python', PROGRAM, *line[:-1]]
    process = subprocess.Popen([*many, 'runs/two'], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=ENV)
    try: said, errors = process.communicate(timeout=100)
    finally: process.terminate() # and with it, if they are still there, its processes
    assert process.returncode == 0 and said.count('written to') == 1, said + errors
    assert said.count('epoch 3/3') == 1 and said.count(' parameters, ') == 1
    assert called(*line[:-1], 'runs/one')[0] == 0
    one, two = (training_of(name)['history'] for name in ('one', 'two'))
    for a, b in zip(one, two, strict=True): # the numbers are those of one process
        for key in a: assert abs(a[key] - b[key]) < 1e-2*max(1, abs(a[key])), key

# ---- the race (it is not run)

@pytest.fixture
def race(in_tmp, monkeypatch):
    "Call `fcnet bench` with made-up seconds: its exit status, output and request."
    asked = []
    def run(seconds, **options):
        def measured(*args, **few):
            asked.append((args, few))
            return [dict(round=0, workload=SMALL, peer=peer, seconds=s, loss=1.,
                         megabytes=None) for peer, s in (('ours, Learner', seconds),
                                                         ('NumPy', 1.))]
        monkeypatch.setattr('fcnet.benchmark.bench', measured)
        with redirect_stdout(io.StringIO()) as said:
            return compare_speed(Bench(out='race.csv', **options)), said.getvalue(), asked[-1]
    return run

def test_the_race_that_is_asked_for(race):
    assert race(0.9)[2] == ((3, 2), {})
    assert race(0.9, rounds=2, threads=1)[2] == ((2, 1), {})
    few = dict(workloads=[SMALL, FULL_50], repeats=1)
    assert race(0.9, quick=True)[2] == ((1, 2), few)

def test_the_race_writes_and_prints(race):
    _, said, _ = race(0.9)
    assert Path('race.csv').read_text().count('\n') == 4
    assert said.endswith('written to race.csv\n') and 'ours, Learner' in said

def test_an_aim_that_is_missed_is_an_exit_code_if_asked_for(race):
    code, said, _ = race(0.96, check=True)
    assert code == 1 and said.count('takes 0.96 of NumPy') == 1
    assert race(0.96)[0] is None
    assert race(0.9, check=True)[0] is None

def test_the_race_needs_its_folder(in_tmp):
    with pytest.raises(FileNotFoundError, match='none/race.csv: there is no such'):
        compare_speed(Bench(out='none/race.csv')) # before an hour is lost

# ---- checkpoints that somebody made up, right checksum and all

def changed(value, rng):
    "Another value, of the same kind or of another."
    kinds = [None, -1, 0, 10**6, 1e308, math.nan, '', 'x', [], {}, True, [value], -5]
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return [*value[:i], changed(value[i], rng), *value[i+1:]]
    return rng.choice(kinds)

@pytest.mark.processes
def test_a_file_that_somebody_made_up_is_refused_or_as_good_as_new(shop):
    run_train(data='few', epochs=1, hidden=[10], bs=50, out='runs/small')
    values = load(model_file('small'))
    names = sorted(name for name in values if isinstance(values[name], torch.Tensor))
    tensors = {name: values[name] for name in names}
    info = {name: value for name, value in values.items() if name not in tensors}
    Path('runs/made').mkdir()
    rng = random.Random(10)
    ended = {name: [] for name in ('train', 'predict')}
    for case in range(12): # more of them: make torture
        some = dict(tensors)
        said = info
        if rng.random() < 0.7: said = {**info, **without(changed(info, rng), tensors)}
        else:
            name = rng.choice(names)
            t = some[name]
            some[name] = rng.choice([t*math.nan, t[:1], t.char(), t.double(),
                                     torch.zeros(0), t[None]])
        save(model_file('made'), some | said)
        for name, *args in (('train', '--resume', 'runs/made'),
                            ('predict', 'runs/made', 'digit0.png')):
            code, out, err = called(name, *args) # a fault is an error in one line
            assert code == 0 or code == 2 and err.count('\n') == 1, (code, err, said)
            ended[name].append(code)
    assert ended['train'].count(2) > 6 and ended['predict'].count(0) > 1

def without(values, names):
    "A description is always a dictionary in these files."
    return {k: v for k, v in values.items() if k not in names} \
        if isinstance(values, dict) else {}

def test_a_number_of_steps_that_somebody_made_up(shop, capsys):
    run_train(data='few', epochs=1, hidden=[10], bs=50, out='runs/made')
    values = load(model_file('made'))
    training = {**values['training'], 'n_steps': 10*10**6}
    save(model_file('made'), values | {'training': training})
    code, out, err = called('train', '--resume', 'runs/made')
    assert code == 2 and 'not the run that was trained, steps was' in err
