"Recipes that learn, stop and resume; records that agree with them; ensembles; tables."
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mnist_folder import write_digits

from fcnet.checkpoint import load, save
from fcnet.config import Config, build_learner, load_model, upgrade
from fcnet.data import get_data
from fcnet.recipes import (PUBLISHED, RECIPES, ensemble, result_table, run_recipe,
                           test_error as read_error)

FASHION = ['l2-100', '300-100', '800'] # recipes of the second table
NBS = Path(__file__).parent.parent/'nbs'

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "Config for a quick run: 600 digits, four epochs."
    x, y, *_ = get_data()
    folder = tmp_path_factory.mktemp('data')/'few'
    write_digits(folder, x[:600], y[:600])
    return dict(data=str(folder), bs=60, epochs=4)

@pytest.fixture(scope='module')
def pair(small, tmp_path_factory):
    "The folders of two finished runs, of two recipes."
    folder = tmp_path_factory.mktemp('pair')
    for name in ('mse-300', '300-100'):
        run_recipe(name, out=folder/name, hidden=[40], **small)
    return [folder/'mse-300', folder/'300-100']

@pytest.fixture
def digits_read(small):
    "The test digits of the small data, as they are, and their labels."
    *_, x, y = get_data(small['data'], test=True)
    return x, y

# ---- running a recipe

@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_learns(name, small, tmp_path, capsys):
    shrunk = [40]*len(RECIPES[name]['hidden'])
    found = run_recipe(name, out=tmp_path/'run', hidden=shrunk, **small)
    history = load_model(tmp_path/'run')[1]['training']['history']
    assert history[-1]['train_loss'] < history[0]['train_loss']
    assert found['name'] == name and 0 <= found['error'] < 80
    assert 0 <= found['seconds'] < 600 and found['resumed'] is False

def test_a_recipe_that_is_none():
    with pytest.raises(ValueError, match="recipe is 'x', expected one of linear, mse"):
        run_recipe('x')

def test_a_second_call_reads_the_record(small, tmp_path, capsys):
    found = run_recipe('linear', out=tmp_path/'run', **small)
    (tmp_path/'run'/'model.safetensors').unlink() # nothing is trained without it
    assert run_recipe('linear', out=tmp_path/'run', **small) == found
    assert json.loads((tmp_path/'run'/'record.json').read_text()) == found
    with pytest.raises(ValueError, match='record.json has other settings, choose'):
        run_recipe('linear', 1, out=tmp_path/'run', **small)

def test_a_record_that_is_older_than_a_setting(small, tmp_path, capsys):
    found = run_recipe('linear', out=tmp_path/'run', **small)
    older = {k: v for k, v in found.items() if k not in ('noise', 'train_on_all')}
    older |= {'whole': True, 'hidden': 'none'} # as version 0.1.0 wrote them
    (tmp_path/'run'/'record.json').write_text(json.dumps(older))
    assert run_recipe('linear', out=tmp_path/'run', **small) == found

def test_the_usual_folder_and_the_seed(small, in_tmp, capsys):
    found = run_recipe('linear', 3, **small)
    assert (in_tmp/'runs/linear-3/record.json').exists()
    assert [found['seed'], found['train_on_all'], found['lr']] == [3, True, 0.02]

def test_the_record_counts_right(small, pair, digits_read):
    found = json.loads((pair[0]/'record.json').read_text())
    x, y = digits_read # counted by hand
    model, info = load_model(pair[0])
    answers = model((x - info['mean'])/info['std']).argmax(1)
    missed = [i for i in range(len(y)) if answers[i] != y[i]]
    assert found['missed'] == missed
    assert found['error'] == round(100*len(missed)/len(y), 2)
    assert found['parameters'] == 784*40 + 40 + 40*10 + 10
    settings = Config(**RECIPES['mse-300'] | dict(hidden=[40]) | small)
    assert settings.model_dump().items() <= found.items()
    assert found['torch'] == torch.__version__
    assert found['threads'] == torch.get_num_threads()

def test_test_error_takes_any_function(small, digits_read):
    _, y = digits_read
    info = dict(data=small['data'], mean=0., std=1.)
    def always_three(x): return F.one_hot(torch.full((len(x),), 3), 10)
    error, missed = read_error(always_three, info)
    assert missed == (y != 3).nonzero()[:,0].tolist()
    assert error == 100*len(missed)/len(y)

def test_test_error_normalizes_and_keeps_no_graph(small, digits_read):
    x, _ = digits_read
    w = torch.randn(784, 10, requires_grad=True)
    seen = []
    def model(x):
        seen.extend([x, x@w])
        return seen[1]
    read_error(model, dict(data=small['data'], mean=0.5, std=2.))
    torch.testing.assert_close(seen[0], (x - 0.5)/2)
    assert not seen[1].requires_grad

def stop_at(learn, step):
    def stop(learn): learn.stopped = learn.step == step
    learn.callbacks[-1].after_batch = stop

def test_a_stopped_recipe_ends_like_one_that_was_left_alone(small, tmp_path, capsys):
    small = small | dict(hidden=[30])
    (tmp_path/'stopped').mkdir()
    learn = build_learner(Config(**RECIPES['mse-300'] | small),
                          tmp_path/'stopped'/'model.safetensors')
    stop_at(learn, 15)
    learn.fit(4)
    with pytest.raises(ValueError, match='not the run that was trained, lr was 0.003 and is now 0.5'):
        run_recipe('mse-300', out=tmp_path/'stopped', **small, lr=0.5)
    late = run_recipe('mse-300', out=tmp_path/'stopped', **small)
    through = run_recipe('mse-300', out=tmp_path/'through', **small)
    assert [late['resumed'], through['resumed']] == [True, False]
    assert late['missed'] == through['missed']
    a = load_model(tmp_path/'stopped')[0].state_dict()
    b = load_model(tmp_path/'through')[0].state_dict()
    for name in a: assert torch.equal(a[name], b[name])

def test_a_run_that_ended_without_a_record_gets_one(small, tmp_path, capsys):
    found = run_recipe('linear', out=tmp_path/'run', **small)
    (tmp_path/'run'/'record.json').unlink()
    again = run_recipe('linear', out=tmp_path/'run', **small)
    assert again['missed'] == found['missed'] and again['resumed']

def test_a_run_that_is_stopped_has_no_record(small, tmp_path, capsys, monkeypatch):
    from fcnet import recipes
    def build(settings, path):
        learn = build_learner(settings, path)
        stop_at(learn, 15)
        return learn
    monkeypatch.setattr(recipes, 'build_learner', build)
    assert run_recipe('linear', out=tmp_path/'run', **small) == {}
    assert not (tmp_path/'run'/'record.json').exists()
    assert load(tmp_path/'run'/'model.safetensors')['training']['step'] == 15

# ---- ensembles

def test_an_ensemble_of_one_is_that_one(pair):
    found = ensemble('one', pair[:1])
    alone = json.loads((pair[0]/'record.json').read_text())
    assert found == alone | dict(name='one', seed=[0])

def test_an_ensemble_takes_the_mean_of_the_probabilities(pair, digits_read):
    x, y = digits_read
    (model, info), (other, _) = load_model(pair[0]), load_model(pair[1])
    x = (x - info['mean'])/info['std']
    p = (F.softmax(model(x), 1) + F.softmax(other(x), 1))/2
    found = ensemble('pair', pair)
    assert found['missed'] == (p.argmax(1) != y).nonzero()[:,0].tolist()
    assert found['error'] == round(100*len(found['missed'])/len(y), 2)
    alone = [ensemble('alone', [folder]) for folder in pair]
    assert found['missed'] not in [record['missed'] for record in alone]
    assert found['name'] == 'pair' and found['seed'] == [0, 0]
    for key in ('seconds', 'parameters'):
        assert found[key] == sum(record[key] for record in alone)

def test_an_ensemble_is_resumed_if_one_of_it_was(pair):
    record = pair[1]/'record.json'
    text = record.read_text()
    record.write_text(json.dumps(json.loads(text) | dict(resumed=True)))
    try:
        assert ensemble('pair', pair)['resumed'] is True
        assert ensemble('one', pair[:1])['resumed'] is False
    finally: record.write_text(text)

def test_an_ensemble_needs_the_same_digits(pair, tmp_path):
    for name in ('model.safetensors', 'record.json'):
        (tmp_path/name).write_bytes((pair[1]/name).read_bytes())
    values = load(tmp_path/'model.safetensors')
    save(tmp_path/'model.safetensors', values | {'checksum': values['checksum'] + 1})
    with pytest.raises(ValueError, match='pair: its networks were trained on diff'):
        ensemble('pair', [pair[0], tmp_path])

# ---- the table

def test_the_table_has_means_and_ranges(tmp_path):
    runs = [dict(name='a', error=1., seed=0, seconds=60, resumed=False),
            dict(name='a', error=2., seed=1, seconds=120, resumed=False),
            dict(name='a x 2', error=0.5, seed=[0, 1], seconds=180, resumed=False),
            dict(name='c', error=3., seed=0, seconds=600, resumed=True),
            dict(name='d', error=3., seed=0, seconds=600, resumed=True),
            dict(name='d', error=3., seed=1, seconds=30, resumed=False)]
    path = tmp_path/'records.json'
    path.write_text(json.dumps(runs))
    names = ('a', 'a x 2', 'b', 'c', 'd')
    table = result_table(path, {name: (3., 'who') for name in names})
    head, *lines = table.splitlines()
    assert head.split() == 'recipe published ours range seeds minutes'.split()
    assert [line.split() for line in lines] == [
        'a 3.00 who 1.50 1.00 to 2.00 2 1.50'.split(),
        'a x 2 3.00 who 0.50 2 3.00'.split(), 'b 3.00 who not run yet'.split(),
        'c 3.00 who 3.00 1 nan'.split(), # minutes of a resumed run are not all of it
        'd 3.00 who 3.00 3.00 to 3.00 2 0.50'.split()]

def test_the_columns_of_the_table():
    path = NBS/'records.json'
    head, *lines = result_table(path).splitlines()
    assert [line[:16].strip() for line in lines] == list(PUBLISHED)
    start = head.index('ours')
    for line in lines: assert re.match(r' ?\d\.\d\d ', line[start-1:]), line

# ---- what is reported

@pytest.mark.parametrize('file, known', [
    ('records.json', list(PUBLISHED)), ('records_fashion.json', FASHION)])
def test_each_record_agrees_with_its_recipe(file, known):
    usual = Config().model_dump()
    records = json.loads((NBS/file).read_text())
    assert len(records) > 5
    for r in map(upgrade, records):
        name, _, n = r['name'].partition(' x ')
        trained = {k: r.get(k, v) for k, v in usual.items()}
        trained |= dict(seed=0, data=None, fuse=True) # they are older than fuse
        if trained['precision'] == 'highest': # auto has numbers as good as these
            trained['precision'] = 'auto'
        assert trained == Config(**RECIPES[name]).model_dump(), r['name']
        assert r['name'] in known and r['error'] == len(r['missed'])/100
        sizes = [784, *r['hidden'], 10]
        n_params = sum((a+1)*b for a, b in zip(sizes, sizes[1:]))
        if r['norm'] == 'batch': n_params += 2*sum(sizes[1:-1])
        assert r['parameters'] == n_params*int(n or 1)

def test_recipes_learn_from_all_digits():
    assert all(recipe['train_on_all'] is True for recipe in RECIPES.values())
    differ = {k for k, v in RECIPES['elastic-deep'].items()
              if v != RECIPES['elastic-wide'][k]}
    assert differ == {'hidden', 'epochs', 'precision'}
