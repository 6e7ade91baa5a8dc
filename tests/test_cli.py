"The four commands as a shell calls them: what they print, write and refuse."
import csv
import errno
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from mnist_folder import write_digits, write_part
from PIL import Image

from fcnet import cli
from fcnet.benchmark import FULL_50, SMALL
from fcnet.checkpoint import load, save
from fcnet.classify import accuracy, confusion, cross_entropy
from fcnet.cli import (build_parser, choose_device, claim, fcnet_bench, fcnet_evaluate,
                       fcnet_predict, fcnet_train, main, printable)
from fcnet.config import Settings, load_model
from fcnet.data import get_data, normalize
from fcnet.images import digit_from_image, open_as_is
from fcnet.recipes import RECIPES

COMMANDS = Path(sys.executable).parent # where the shell finds them
ENV = os.environ | {'OMP_NUM_THREADS': '1', 'TQDM_DISABLE': '1'}
SHORT = '--data few --epochs 2 --hidden 10 --bs 50'.split() # a quick run

def called(*words):
    "Exit code, stdout and stderr of a command, without the seconds for a new process."
    words = [str(word) for word in words]
    out = io.StringIO()
    err = io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, 'argv', words):
        try: main()
        except SystemExit as e: code = e.code or 0
    return code, out.getvalue(), err.getvalue()

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
        fcnet_train(data='few', epochs=8, hidden='20', bs=50, out='runs/first')
        fcnet_evaluate('runs/first')
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
    assert listed('first') == ['.lock', 'confusion.png', 'curves.png', 'history.csv',
                               'model.safetensors']
    rows = list(csv.DictReader(open('runs/first/history.csv')))
    read = [{name: json.loads(value) for name, value in row.items()} for row in rows]
    assert read == training_of('first')['history'] and len(rows) == 8
    model, info = load_model('runs/first')
    assert info['sizes'] == [784, 20, 10] and info['training']['step'] == 8*10
    data = os.path.realpath('few')
    settings = {field.name: info[field.name] for field in fields(Settings)}
    assert settings == asdict(Settings(epochs=8, hidden='20', bs=50, data=data))
    for figure in ('curves', 'confusion'):
        assert Image.open(f'runs/first/{figure}.png').size > (300, 200)

def test_what_a_run_prints(shop):
    code, out, err = called('fcnet_train', *SHORT, '--out', 'runs/second')
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
    assert called('fcnet_train', *SHORT)[0] == 0
    new, = set(os.listdir('runs')) - {'first'}
    assert new[:2] == '20' and (Path('runs')/new/'model.safetensors').exists()

@pytest.mark.processes
def test_two_runs_are_the_same_to_the_last_bit(shop, capsys):
    for name in ('one', 'two'): called('fcnet_train', *SHORT, '--out', f'runs/{name}')
    fcnet_train(data='few', epochs=2, hidden='10', bs=50, out='runs/three')
    assert same('one', 'two') and same('one', 'three')
    assert not same('one', 'first')
    texts = {Path(f'runs/{n}/history.csv').read_text() for n in ('one', 'two', 'three')}
    assert len(texts) == 1

def test_a_network_of_pytorch_and_the_random_numbers_of_others(shop, capsys):
    before = torch.get_rng_state()
    fcnet_train(data='few', epochs=8, hidden='20', model='torch', dropout=0.2, bs=20,
                opt='adamw', lr=0.01, distort=True, out='runs/torch')
    assert torch.equal(torch.get_rng_state(), before)
    net, info = load_model('runs/torch')
    x, y = get_data('few')[2:]
    assert accuracy(net(normalize(x, info['mean'], info['std'])), y) > 0.5
    fcnet_predict('runs/torch', 'digit0.png')

def test_norms_shortcuts_and_averages(shop):
    line = ('fcnet_train --data few --epochs 2 --bs 100 --hidden 10,10 --norm layer '
            '--residual --average 0.5 --out runs/helped')
    assert called(*line.split())[0] == 0
    net, info = load_model('runs/helped')
    names = [type(m).__name__ for m in net.layers]
    assert names == ['Linear', 'LayerNorm', 'ReLU', 'Residual', 'Linear']
    x, y = get_data('few')[2:] # the averaged weights are those that were saved
    right = accuracy(net(normalize(x, info['mean'], info['std'])), y)
    out = called('fcnet_evaluate', 'runs/helped')[1]
    assert f'100 validation digits: accuracy {right:.2%}' in out

# ---- faults

@pytest.mark.parametrize('kwargs, words', [
    (dict(lr=-1.), 'lr is -1'), (dict(opt='magic'), 'expected one of sgd, adam'),
    (dict(bs=0), 'bs is 0'), (dict(model='keras'), "model is 'keras'"),
    (dict(dropout=1.), 'dropout is 1.0'), (dict(seed=-1), 'seed is -1'),
    (dict(seed=2**63), 'expected at least 0 and below'),
    (dict(epochs=0), 'epochs is 0'),
    (dict(device='abacus'), "device is 'abacus', here is cpu"),
    (dict(data='no/such'), 'no such folder'),
    (dict(resume='runs/nowhere'), 'no such file'),
    (dict(resume='runs/first', epochs=4, lr=5.), 'leave out --epochs --lr'),
    (dict(resume='runs/first', recipe='linear'), 'leave out --recipe'),
    (dict(resume='runs/first', out='runs/x'), 'leave out --out'),
    (dict(recipe='magic'), "recipe is 'magic', expected one of linear, mse-300")])
def test_arguments_that_cannot_be_used(shop, kwargs, words):
    with pytest.raises((ValueError, OSError), match=words): fcnet_train(**kwargs)
    assert os.listdir('runs') == ['first'] # before anything is made

def test_a_setting_that_is_none(shop):
    with pytest.raises(TypeError, match='colour'): fcnet_train(colour='red')

def test_a_rate_that_is_far_too_large(shop, capsys):
    with pytest.raises(FloatingPointError, match='no longer finite after epoch 1'):
        fcnet_train(data='few', epochs=5, lr=1e9, out='runs/faulty')
    assert training_of('faulty')['step'] == 0

@pytest.mark.parametrize('args', [
    ['--epochs', 'many'], ['--epoch', '3'], ['--x=--'], ['--pdb'], ['--residual=1']])
def test_options_that_do_not_exist_print_the_usage(in_tmp, args):
    code, out, err = called('fcnet_train', *args)
    assert code == 2 and out == '' and 'usage: fcnet_train' in err

@pytest.mark.parametrize('args, line', [
    (['--epochs', 0], 'epochs is 0, expected an integer, at least 1'),
    (['--lr', 'nan'], 'lr is nan, expected above 0'),
    (['--hidden', '30,x'], "hidden is '30,x', expected sizes from 1 to 100000 such as "
                           "300,100, or none"),
    (['--data', 'no/such/folder'], 'no/such/folder: there is no such folder'),
    (['--hidden', '100000,100000'], '10079600010 parameters need about'),
    (['--out', 'runs/first'],
     'runs/first holds confusion.png; choose another --out, or --resume runs/first'),
    (['--resume', 'runs/first', '--bs', 64], '--resume brings its own settings; leave '
                                             'out --bs'),
    (['--recipe', 'magic'],
     f"recipe is 'magic', expected one of {', '.join(RECIPES)}")])
def test_a_fault_is_one_line_and_the_exit_code_2(shop, args, line):
    code, out, err = called('fcnet_train', *args)
    assert code == 2 and out == '' and err.count('\n') == 1
    assert err.startswith(f'fcnet_train: {line.format(os.path.realpath("."))}')

def test_models_and_data_that_are_none(shop):
    with pytest.raises(ValueError, match='digit0.png: not a whole'):
        fcnet_predict('digit0.png', [])
    with pytest.raises(OSError, match='no such file'): fcnet_evaluate('none')
    with pytest.raises(OSError, match='no such folder'):
        fcnet_evaluate('runs/first', data='none')

def test_a_model_without_a_training_run(shop):
    values = load(model_file('first'))
    del values['training']
    save('bare.safetensors', values)
    assert called('fcnet_predict', 'bare.safetensors', 'digit0.png')[0] == 0
    code, _, err = called('fcnet_train', '--resume', 'bare.safetensors')
    assert [code, err] == [2, 'fcnet_train: bare.safetensors: holds no training run\n']

def test_interrupted_before_it_starts(in_tmp):
    with patch.object(torch.accelerator, 'is_available', side_effect=KeyboardInterrupt):
        assert called('fcnet_train') == (130, '', 'fcnet_train: interrupted\n')

@pytest.mark.parametrize('error', [MemoryError('full'), torch.OutOfMemoryError('full')])
def test_memory_that_runs_out_is_one_line(in_tmp, error):
    with patch.object(cli, 'join', side_effect=error):
        assert called('fcnet_train') == (2, '', 'fcnet_train: full\n')

def test_faults_of_the_program_are_not_hidden(in_tmp):
    with patch.object(cli, 'join', side_effect=RuntimeError('a bug')):
        with pytest.raises(RuntimeError, match='a bug'): called('fcnet_train')

# ---- devices

def test_devices_of_a_machine_with_one_card(monkeypatch):
    gpu = dict(is_available=lambda: True,
               current_accelerator=lambda: torch.device('mps'))
    with patch.multiple(torch.accelerator, **gpu):
        found = [choose_device(name) for name in (None, 'cpu', 'mps')]
        assert found == ['mps', 'cpu', 'mps']
        with pytest.raises(ValueError, match="device is 'cuda', here is cpu and mps"):
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
    return ('fcnet_train --data some --hidden 20 --epochs 8 --bs 20 --dropout 0.1 '
            f'--out runs/{out}').split()

def start(out):
    command, *options = line_of(out)
    threads = str(torch.get_num_threads()) # as here, for the same last bits
    return subprocess.Popen([COMMANDS/command, *options], text=True,
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
            wait_for(process, 'epoch 2/8') # the first one is saved by then
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
    for words in (['fcnet_predict', 'runs/SIGINT', 'none'],
                  ['fcnet_evaluate', 'runs/SIGINT']):
        assert 'its training was stopped before the end' in called(*words)[2]
    for name in ('SIGTERM', 'SIGKILL'):
        assert 0 < training_of(name)['step'] < 8*63
        code, _, err = called('fcnet_train', '--resume', f'runs/{name}')
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
    code, out, err = called('fcnet_train', '--resume', target)
    assert [code, err, out.splitlines()[0]] == [0, '', '8 of 8 epochs are done']
    assert listed('first') == ['.lock', 'confusion.png', 'curves.png', 'history.csv',
                               'model.safetensors']

@pytest.mark.processes
def test_a_run_is_resumed_after_torchrun_has_restarted_it(shop):
    line = ['fcnet_train', *SHORT, '--out', 'runs/one']
    called(*line)
    with patch.dict(os.environ, TORCHELASTIC_RESTART_COUNT='1'):
        code, out, err = called(*line)
        other = called(*line, '--hidden', 11) # it is not that run
    assert [code, err, out.splitlines()[0]] == [0, '', '2 of 2 epochs are done']
    assert [other[0], other[1], other[2].count('\n')] == [2, '', 1]
    assert called(*line)[0] == 2 # without a restart the folder is taken

def test_resume_leaves_a_newer_setting_at_its_default(mine, capsys):
    fcnet_train(data='mine', epochs=2, hidden='10', out='runs/mine')
    values = load(model_file('mine')) # as if saved before there was such a setting
    del values['adversarial']
    save(model_file('mine'), values)
    fcnet_train(resume='runs/mine')

@pytest.mark.parametrize('row, words', [(550, 'checksum was'), (3, '')])
def test_data_that_have_changed_are_refused(mine, capsys, row, words):
    fcnet_train(data='mine', epochs=1, hidden='10', out='runs/mine')
    images, labels = mine
    images[row, 4, 5] ^= 1 # in a row of the training part this may change the mean
    write_part('mine', images, labels)
    with pytest.raises(ValueError, match=f'not what was trained, {words}'):
        fcnet_train(resume='runs/mine')

@pytest.mark.parametrize('row, label, words', [
    (7, 255, 'labels run to 255, but only 11'),
    (550, 10, 'labels run to 10, but only 10')])
def test_labels_that_teach_nothing(mine, row, label, words):
    images, labels = mine
    labels[row] = label
    write_part('mine', images, labels)
    with pytest.raises(ValueError, match=words): fcnet_train(data='mine')
    assert not Path('runs').exists()

def test_pixels_that_teach_nothing(mine):
    images, labels = mine
    write_part('mine', images*0 + 9, labels)
    with pytest.raises(ValueError, match='all pixels are the same'):
        fcnet_train(data='mine')

@pytest.mark.parametrize('epochs', [1, 3])
def test_a_loss_that_is_no_number_replaces_nothing(mine, epochs):
    line = f'--data mine --epochs {epochs} --bs 600 --lr 1e38 --out runs/huge'
    code, _, err = called('fcnet_train', *line.split())
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith('fcnet_train: ') and 'loss' in last
    assert training_of('huge')['step'] == 0

# ---- a folder for one run

@pytest.mark.processes
def test_a_folder_belongs_to_one_process(shop):
    with claim(Path('runs/shared'), None): # somebody is writing there
        code, out, err = called('fcnet_train', '--out', 'runs/shared')
        assert [code, listed('shared')] == [2, ['.lock']]
        assert err == 'fcnet_train: runs/shared: another training is here\n'
    assert called('fcnet_train', *SHORT, '--out', 'runs/shared')[0] == 0

@pytest.mark.parametrize('name', ['history.csv', 'curves.png', 'notes.txt'])
def test_what_is_foreign_is_not_written_over(in_tmp, name):
    file = Path(f'runs/foreign/{name}')
    file.parent.mkdir(parents=True)
    file.write_text('mine')
    with pytest.raises(ValueError, match=f'runs/foreign holds {name}; choose another'):
        fcnet_train(out='runs/foreign', epochs=1)
    assert listed('foreign') == [name] and file.read_text() == 'mine'

def test_a_folder_that_cannot_be_made(shop):
    with pytest.raises(OSError):
        fcnet_train(out='digit0.png/runs', epochs=1, data='few')

def test_a_claim_is_checked_again_once_it_is_held(in_tmp):
    class Slow: # another run ends between the check and the lock
        def __init__(self, *args, **kwargs): pass
        def acquire(self):
            Path('runs/late/model.safetensors').write_text('done')
            return self
        def __enter__(self): return self
        def __exit__(self, *_): pass
    with patch.object(cli, 'FileLock', Slow):
        with pytest.raises(ValueError, match='runs/late holds model.safetensors'):
            with claim(Path('runs/late'), None): pass
        with claim(Path('runs/late'), 'runs/late'): pass

@pytest.mark.parametrize('error', [
    OSError(errno.ENOLCK, 'No locks available'), OSError(errno.ENOSYS, 'not there'),
    OSError(errno.EOPNOTSUPP, 'not supported'), NotImplementedError('no flock')])
def test_a_file_system_without_locks(shop, error):
    with patch.object(cli.FileLock, 'acquire', side_effect=error):
        code, _, err = called('fcnet_train', *SHORT, '--out', 'runs/free')
    assert [code, err.count('\n')] == [0, 1]
    assert 'runs/free: cannot be locked' in err and str(error) in err

def test_a_folder_that_may_not_be_written_to(shop):
    error = PermissionError(errno.EACCES, 'Permission denied', 'runs/free/.lock')
    with patch.object(cli.FileLock, 'acquire', side_effect=error):
        code, _, err = called('fcnet_train', *SHORT, '--out', 'runs/free')
    assert [code, err.count('\n')] == [2, 1] and 'denied' in err and 'runs/free' in err

def test_only_files_of_killed_writers_are_removed(shop):
    folder = Path('runs/first')
    foreign = ['.notes.txt.tmp', '.model.safetensors.tmp', '.x.0123456789abcdef.tmp']
    for name in foreign: (folder/name).write_text('mine')
    (folder/'.curves.png.0123456789abcdef.tmp').mkdir()
    assert called('fcnet_train', '--resume', folder)[0] == 0
    assert {*foreign, '.curves.png.0123456789abcdef.tmp'} < set(listed('first'))

# ---- data that have moved

@pytest.mark.processes
def test_data_that_have_moved(shop):
    Path('few').rename('elsewhere')
    code, _, err = called('fcnet_train', '--resume', 'runs/first')
    assert [code, err.count('\n')] == [2, 1] and 'few: there is no such folder' in err
    code, out, err = called('fcnet_train', '--resume', 'runs/first', '--data', 'elsewhere')
    assert [code, err, out.splitlines()[0]] == [0, '', '8 of 8 epochs are done']
    assert called('fcnet_evaluate', 'runs/first', '--data', 'elsewhere')[0] == 0
    x, y, *_ = get_data()
    write_digits('others', x[600:1200], y[600:1200])
    code, _, err = called('fcnet_train', '--resume', 'runs/first', '--data', 'others')
    assert [code, err.count('\n')] == [2, 1] and 'not what was trained' in err

def test_a_model_holds_no_absolute_path(shop):
    data = os.path.abspath('few')
    called('fcnet_train', *SHORT[2:], '--data', data, '--out', os.path.abspath('runs/far'))
    assert os.path.dirname(data).encode() not in model_file('far').read_bytes()
    assert load(model_file('far'))['data'] == '../../few'
    assert called('fcnet_evaluate', 'runs/far')[0] == 0

# ---- recipes

def test_what_is_on_the_line_goes_before_the_recipe(shop, capsys):
    fcnet_train(recipe='linear', data='few', epochs=1, whole=False, out='runs/recipe')
    net, info = load_model('runs/recipe')
    assert [len(net.layers), info['decay'], info['epochs']] == [1, 0.0001, 1]
    assert 'test error' not in capsys.readouterr().out

@pytest.mark.processes
def test_a_run_on_all_digits_ends_with_the_test_error(shop):
    code, out, _ = called('fcnet_train', '--recipe', 'linear', '--data', 'few',
                          '--epochs', 1, '--out', 'runs/whole')
    assert code == 0 and '600 training digits' in out
    evaluated = called('fcnet_evaluate', 'runs/whole', '--test')[1]
    right = float(evaluated.split('accuracy ')[1].split('%')[0])
    assert evaluated.startswith('600 test digits: ')
    assert f'\ntest error {100 - right:.2f} %\n' in out

# ---- predicting and evaluating

def test_predict_reads_each_image(shop):
    files = 'digit0.png', 'digit1.png', 'none.png'
    code, out, err = called('fcnet_predict', 'runs/first', *files)
    assert [code, err.count('\n'), len(out.splitlines())] == [2, 1, 2]
    assert err.startswith('fcnet_predict: none.png: ')
    model, info = load_model('runs/first')
    for line, file in zip(out.splitlines(), files):
        x = normalize(digit_from_image(file)[None], info['mean'], info['std'])
        p = model(x).softmax(1)[0]
        answer = p.argmax().item() if p.max() >= 0.9 else '?'
        shares = [f'{k}:{v:.3f}' for k, v in enumerate(p.tolist())]
        assert line == '  '.join([file, str(answer), *shares])
    assert called('fcnet_predict', 'runs/first', 'digit0.png')[0] == 0

def test_predict_as_json(shop):
    code, out, err = called('fcnet_predict', 'runs/first', 'digit0.png', 'none.png',
                            'digit1.png', '--json')
    lines = [json.loads(line) for line in out.splitlines()]
    assert [code, err.count('\n'), len(lines)] == [2, 1, 2]
    assert [line['file'] for line in lines] == ['digit0.png', 'digit1.png']
    for line in lines:
        assert abs(sum(line['probabilities']) - 1) < 1e-5
        top = max(range(10), key=line['probabilities'].__getitem__)
        assert line['digit'] in (top, None)

def scaled(factor):
    "What `runs/first` holds, its weights times a factor."
    return {k: v*factor if k.startswith('model.') else v
            for k, v in load(model_file('first')).items()}

def test_predict_says_when_it_is_not_sure(shop):
    save('unsure.safetensors', scaled(0.01)) # all digits nearly alike
    words = 'fcnet_predict', 'unsure.safetensors', 'digit0.png'
    assert called(*words)[1].startswith('digit0.png  ?')
    assert json.loads(called(*words, '--json')[1])['digit'] is None
    save('sure.safetensors', scaled(20.))
    out = called('fcnet_predict', 'sure.safetensors', 'digit0.png')[1]
    assert out.split()[1] in '0123456789'

def test_scores_that_are_no_numbers_are_refused(shop):
    save('wide.safetensors', scaled(1e30))
    with pytest.raises(ValueError, match='wide.safetensors: scores are not finite'):
        fcnet_predict('wide.safetensors', 'digit0.png')

def test_folders_patterns_and_standard_input(shop, monkeypatch):
    Path('scans').mkdir()
    for name in ('b.png', 'a.png', '.hidden'): shutil.copy('digit0.png', f'scans/{name}')
    for words in (['scans'], ['scans/*.png'], ['scans/[ab].png']):
        code, out, err = called('fcnet_predict', 'runs/first', *words)
        assert [code, err] == [0, '']
        assert [line.split()[0] for line in out.splitlines()] == ['scans/a.png',
                                                                  'scans/b.png']
    content = io.BytesIO(Path('digit0.png').read_bytes())
    with patch.object(sys, 'stdin', SimpleNamespace(buffer=content)):
        assert called('fcnet_predict', 'runs/first', '-')[1].startswith('-  ')
    Path('none').mkdir()
    for name in ('none', 'x*.png', '['):
        code, out, err = called('fcnet_predict', 'runs/first', name, 'digit0.png')
        assert [code, err.count('\n'), out.count('\n')] == [2, 1, 1] and name in err

@pytest.mark.parametrize('change, words', [
    (lambda x: 255/256 - x, 'their border is 1.0'),
    (lambda x: x.view(-1, 28, 28).mT.reshape(-1, 784), 'perhaps transposed')])
def test_a_network_of_other_pictures(shop, change, words):
    x, y, *_ = get_data()
    write_digits('other', change(x[:3000]), y[:3000])
    code, _, err = called('fcnet_train', '--data', 'other', '--hidden', 20, '--epochs', 4,
                          '--out', 'runs/other')
    assert [code, err.count('\n')] == [0, 1] and words in err
    shown = change(x[4000:4030])
    for i, pixels in enumerate((shown*256).byte().view(-1, 28, 28).numpy()):
        Image.fromarray(pixels).save(f'{i}.png')
    files = [f'{i}.png' for i in range(30)]
    _, out, err = called('fcnet_predict', 'runs/other', *files)
    assert err.count('\n') == 1 and words in err and '--as-is' in err
    code, out, err = called('fcnet_predict', 'runs/other', *files, '--as-is')
    assert [code, err] == [0, '']
    model, info = load_model('runs/other')
    pixels = torch.stack([open_as_is(file) for file in files])
    p = model(normalize(pixels, info['mean'], info['std'])).softmax(1)
    said = [line.split()[1] for line in out.splitlines()]
    assert said == [str(q.argmax().item()) if q.max() >= 0.9 else '?' for q in p]
    assert (p.argmax(1) == y[4000:4030]).float().mean() > 0.7

def test_from_python_one_image_or_many(shop, capsys):
    assert fcnet_predict('runs/first', 'digit0.png') is None
    assert fcnet_predict('runs/first', Path('digit0.png')) is None
    one = capsys.readouterr().out
    assert fcnet_predict('runs/first', ['digit0.png', 'none.png']) == 2
    assert one == 2*capsys.readouterr().out

@pytest.mark.parametrize('place', ['runs/first', 'runs/first/model.safetensors'])
def test_evaluate_counts_right(shop, place):
    Path('runs/first/confusion.png').unlink()
    code, out, err = called('fcnet_evaluate', place)
    model, info = load_model('runs/first')
    x, y = get_data('few')[2:]
    scores = model(normalize(x, info['mean'], info['std']))
    lines = out.splitlines()
    assert code == 0 and err == ''
    assert lines[0] == (f'100 validation digits: accuracy {accuracy(scores, y):.2%}, '
                        f'loss {cross_entropy(scores, y):.4f}')
    assert lines[2].startswith('true  taken for') and lines[2].endswith('errors')
    assert len(set(map(len, lines[2:14:2]))) == 1 # columns end together
    head, *rows = [line.split() for line in lines[3:14]]
    assert head == list('0123456789')
    counts = confusion(scores, y)
    assert [[int(v) for v in row[1:-1]] for row in rows] == counts.tolist()
    assert [row[0] for row in rows] == head
    errors = [f'{1 - counts[k, k]/counts[k].sum():.1%}' for k in range(10)]
    assert [row[-1] for row in rows] == errors
    assert lines[-1] == 'written to runs/first/confusion.png'
    assert Path('runs/first/confusion.png').exists()

@pytest.mark.processes
def test_evaluate_on_other_data_and_on_the_test_file(shop):
    x, y, *_ = get_data()
    write_digits('other', x[900:960], y[900:960])
    assert called('fcnet_evaluate', 'runs/first', '--data', 'other')[1][:20] == \
        '10 validation digits'
    out = called('fcnet_evaluate', 'runs/first', '--data', 'other', '--test')[1]
    assert out.startswith('60 test digits: accuracy')
    assert called('fcnet_evaluate', 'runs/first', '--test')[1][:15] == '600 test digits'

def test_a_class_that_is_missing_has_no_error(shop):
    x, y, *_ = get_data()
    keep = (y[:600] != 4).nonzero()[:60, 0]
    write_digits('no4', x[keep], y[keep])
    out = called('fcnet_evaluate', 'runs/first', '--data', 'no4', '--test')[1]
    rows = out.splitlines()
    assert rows[4 + 4].split()[0] == '4' and rows[4 + 4].split()[-1] == 'nan%'

# ---- what reaches the terminal

def test_names_that_cannot_be_printed(shop):
    odd = ['new\nline.png', 'bell\x07.png', os.fsdecode(b'broken\xff.png')]
    for name in odd: Path(name).write_bytes(Path('digit0.png').read_bytes())
    code, out, err = called('fcnet_predict', 'runs/first', *odd, 'none\x1b[2J.png')
    assert [code, out.count('\n'), err.count('\n')] == [2, 3, 1]
    assert (out + err).replace('\n', '').isprintable() and 'bell\\x07.png' in out
    _, out, err = called('fcnet_evaluate', 'runs/first', 'more\x1b[2J\x07')
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
    words = ['fcnet_predict', 'runs/first', '数.png', 'é.png', 'none數', 'digit1.png']
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
    words = ['fcnet_train', *SHORT, '--out', 'runs/mute']
    with redirect_stdout(stream), redirect_stderr(stream), \
         patch.object(sys, 'argv', words), pytest.raises(SystemExit) as ended: main()
    assert not ended.value.code and training_of('mute')['step'] == 20

def test_predictions_that_cannot_be_printed_are_a_fault(shop):
    err = io.StringIO()
    with redirect_stdout(Full(errno.ENOSPC)), redirect_stderr(err), pytest.raises(
            SystemExit) as ended, patch.object(sys, 'argv', ['fcnet_predict', 'runs/first',
                                                             'digit0.png']): main()
    assert ended.value.code == 2 and 'No space left' in err.getvalue()

@pytest.mark.processes
def test_streams_that_are_closed(shop):
    line = f'"{COMMANDS}/fcnet_predict" --json runs/first none.png digit0.png'
    done = subprocess.run(line + ' 2>&-', shell=True, stdout=subprocess.PIPE, env=ENV)
    assert done.returncode == 2 # and the line for none.png is not among the JSON
    assert [json.loads(row)['file'] for row in done.stdout.splitlines()] == ['digit0.png']
    words = ['fcnet_evaluate', 'runs/first']
    with redirect_stdout(None), patch.object(sys, 'argv', words), pytest.raises(
            SystemExit) as ended: main()
    assert not ended.value.code

@pytest.mark.parametrize('name', ['fcnet_predict@2', 'fcnet-predict', 'fcnet_predict 0.1',
                                  'my.predict.exe'])
def test_a_program_with_another_name(shop, name):
    out = called(f'some/folder/{name}', '--help')[1]
    assert fcnet_predict.__doc__ in ' '.join(out.split())

def test_the_command_may_be_the_first_argument():
    for word in ('predict', 'fcnet_predict'):
        out = called('cli.py', word, '--help')[1]
        assert fcnet_predict.__doc__ in ' '.join(out.split())
    for words in ([], ['magic']):
        code, _, err = called('cli.py', *words)
        assert code == 2 and 'expected one of train, predict, evaluate, bench' in err

def test_a_model_in_a_folder_to_read_only(shop):
    error = PermissionError(13, 'Permission denied', 'runs/first/confusion.png')
    with patch.object(cli, 'atomic_write', side_effect=error):
        code, out, err = called('fcnet_evaluate', 'runs/first')
    assert [code, err.count('\n')] == [0, 1] and 'accuracy' in out
    assert 'no figure' in err and 'runs/first/confusion.png' in err

def test_an_allocation_that_fails_is_one_line(in_tmp):
    words = "DefaultCPUAllocator: can't allocate memory: you tried 80 bytes"
    with patch.object(cli, 'join', side_effect=RuntimeError(words)):
        assert called('fcnet_train') == (2, '', f'fcnet_train: {words}\n')

@pytest.mark.processes
def test_a_reader_that_stops_reading(shop):
    line = f'"{COMMANDS}/fcnet_evaluate" runs/first | head -1'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=ENV)
    assert [done.stderr, done.stdout.count('\n')] == ['', 1]

@pytest.mark.parametrize('command', [
    fcnet_train, fcnet_predict, fcnet_evaluate, fcnet_bench])
def test_help_has_the_words_of_the_function(command):
    code, out, _ = called(command.__name__, '--help')
    assert code == 0 and command.__doc__ in ' '.join(out.split())
    assert f'usage: {command.__name__}' in out

def test_every_setting_is_an_option():
    said = ' '.join(called('fcnet_train', '--help')[1].split())
    names = [field.name for field in fields(Settings)]
    for name in [*names, 'device', 'out', 'resume', 'recipe']:
        assert f'--{name}' in said.split() or f'--{name},' in said.split()
    assert '(default: 0.05)' in said and '(default: None)' not in said

def test_only_the_options_that_were_given_are_passed_on():
    parser = build_parser(fcnet_train)
    assert vars(parser.parse_args([])) == {}
    words = '--epochs 3 --lr 0.1 --distort --no-fuse --hidden 30'.split()
    given = vars(parser.parse_args(words))
    assert given == dict(epochs=3, lr=0.1, distort=True, fuse=False, hidden='30')
    given = vars(build_parser(fcnet_predict).parse_args(['m', 'a', 'b', '--json']))
    assert given == dict(model='m', images=['a', 'b'], json=True)

# ---- many processes

@pytest.mark.processes
def test_two_processes_give_one_report(shop):
    line = 'fcnet_train --data few --hidden 10 --epochs 3 --bs 48 --out runs/'.split()
    many = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
            '--nproc-per-node=2', '--no-python', COMMANDS/line[0], *line[1:-1]]
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
    "Call `fcnet_bench` with made-up seconds: its exit status, output and request."
    asked = []
    def run(seconds, **options):
        def bench(*args, **few):
            asked.append((args, few))
            return [dict(round=0, workload=SMALL, peer=peer, seconds=s, loss=1.,
                         megabytes=None) for peer, s in (('ours, Learner', seconds),
                                                         ('NumPy', 1.))]
        monkeypatch.setattr(cli, 'bench', bench)
        with redirect_stdout(io.StringIO()) as said:
            return fcnet_bench(out='race.csv', **options), said.getvalue(), asked[-1]
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
        fcnet_bench(out='none/race.csv') # before an hour is lost

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
    fcnet_train(data='few', epochs=1, hidden='10', bs=50, out='runs/small')
    values = load(model_file('small'))
    names = sorted(name for name in values if isinstance(values[name], torch.Tensor))
    tensors = {name: values[name] for name in names}
    info = {name: value for name, value in values.items() if name not in tensors}
    Path('runs/made').mkdir()
    rng = random.Random(10)
    ended = {name: [] for name in ('fcnet_train', 'fcnet_predict')}
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
        for name, *args in (('fcnet_train', '--resume', 'runs/made'),
                            ('fcnet_predict', 'runs/made', 'digit0.png')):
            code, out, err = called(name, *args) # a fault is an error in one line
            assert code == 0 or code == 2 and err.count('\n') == 1, (code, err, said)
            ended[name].append(code)
    assert ended['fcnet_train'].count(2) > 6 and ended['fcnet_predict'].count(0) > 1

def without(values, names):
    "A description is always a dictionary in these files."
    return {k: v for k, v in values.items() if k not in names} \
        if isinstance(values, dict) else {}

def test_a_number_of_steps_that_somebody_made_up(shop, capsys):
    fcnet_train(data='few', epochs=1, hidden='10', bs=50, out='runs/made')
    values = load(model_file('made'))
    training = {**values['training'], 'n_steps': 10*10**6}
    save(model_file('made'), values | {'training': training})
    code, out, err = called('fcnet_train', '--resume', 'runs/made')
    assert code == 2 and 'not what was trained, steps was' in err
