"Training in the playground page, in a real browser: the same numbers as the library's, fast, and never in the way."
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from built_site import DOCS, ROOT
from fcnet.classify import CrossEntropy
from fcnet.layers import Linear, ReLU, Sequential, Sigmoid, Tanh
from fcnet.optim import SGD, Adam
from safetensors.torch import load
from test_network import run

ACTIVATIONS = {'relu': ReLU, 'sigmoid': Sigmoid, 'tanh': Tanh}
OPTIMIZERS = {'sgd': lambda p, lr: SGD(p, lr), 'momentum': lambda p, lr: SGD(p, lr, momentum=0.9), 'adam': lambda p, lr: Adam(p, lr)}

def model_with(sizes, activation):
    "The library's model in float64."
    g = torch.Generator().manual_seed(7)
    layers = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        layer = Linear(n_in, n_out, generator=g)
        layer.w, layer.b = layer.w.double(), torch.randn(n_out, generator=g).double()*0.1
        layers += [layer, ACTIVATIONS[activation]()]
    return Sequential(layers[:-1])

@pytest.mark.parametrize('activation, depth, optimizer, rate',
    [('relu', 1, 'sgd', 0.1), ('relu', 2, 'momentum', 0.03), ('tanh', 2, 'adam', 0.003), ('sigmoid', 1, 'sgd', 1.), ('relu', 0, 'adam', 0.001)])
def test_first_20_losses_and_gradients_are_those_of_the_library(visit, serve, activation, depth, optimizer, rate):
    model = model_with([784, *[32]*depth, 10], activation)
    loss = CrossEntropy()
    opt = OPTIMIZERS[optimizer](model.parameters(), rate)
    serve('/test/weights', np.concatenate([p.numpy().flatten() for p in model.parameters()]).tobytes())
    settings = dict(width=32, depth=depth, activation=activation, start='kaiming', optimizer=optimizer, seed=3)
    got = run(visit('playground.html'), '''
        const [settings, rate] = args, training = new net.Training(await net.loadDigits(), settings, rate);
        const weights = new Float64Array(await (await fetch('test/weights')).arrayBuffer());
        let at = 0;
        for (const layer of training.network.layers) for (const name of ['w', 'b']) layer[name] = weights.slice(at, at += layer[name].length);
        const losses = [], rows = [];
        let grads;
        for (let k = 0; k < 20; k++) {
            losses.push(training.step());
            rows.push([...training.rows]);
            if (!k) grads = training.grads.layers.map(layer => [[...layer.w], [...layer.b]]).flat();
        }
        return { losses, rows, grads, left: weights.length - at };''', settings, rate)
    packed = load(zlib.decompress((DOCS/'playground'/'digits.safetensors.zlib').read_bytes()))
    x, y = packed['x'].double()/256, packed['y'].long()
    with open(DOCS/'playground'/'digits.safetensors.zlib', 'rb') as f: text = zlib.decompress(f.read())[8:400].decode(errors='replace')
    mean, std = (float(re.search(rf'"{name}":"([^"]+)"', text)[1]) for name in ('mean', 'std'))
    losses = []
    for k, rows in enumerate(torch.tensor(got['rows'])):
        model.zero_grad()
        losses.append(loss(model((x[rows] - mean)/std), y[rows]).item())
        model.backward(loss.backward())
        if k == 0:
            for p, grad in zip(model.parameters(), got['grads']):
                off = (p.grad.flatten() - torch.tensor(grad, dtype=torch.float64)).abs().max()/p.grad.abs().max()
                assert off < 1e-3, f'gradient off by {off} of its largest entry'
                print(f'gradient off by {off:.1e}')
        opt.step()
    print('losses off by', np.abs(np.array(losses) - got['losses']).max())
    np.testing.assert_allclose(got['losses'], losses, atol=1e-5, rtol=0)
    assert got['left'] == 0 and len({r for rows in got['rows'] for r in rows}) == 640 and losses[-1] != losses[0]

def test_random_starts_are_of_the_rule_and_of_the_seed(visit):
    page = visit('playground.html')
    rule = {'small': (0.001, 0.001), 'kaiming': ((2/784)**0.5, 0.02), 'large': (1, 1)}
    for start, wanted in rule.items():
        same, other, layers = run(page, '''
            const made = [1, 1, 2].map(seed => net.freshNetwork({ width: 64, depth: 1, activation: 'relu', start: args[0], seed }).layers);
            const mean = a => a.reduce((s, v) => s + v, 0) / a.length, first = made.map(layers => layers[0].w.join());
            return [first[0] === first[1], first[0] === first[2],
                    made[0].map(({ w, b }) => [mean(w), Math.sqrt(mean(w.map(v => v*v))), b.some(v => v)])];''', start)
        assert same and not other
        for (mean, std, bias), n in zip(layers, wanted): assert std == pytest.approx(n, rel=0.1) and abs(mean) < 0.15*n and not bias

def says(page): return page.inner_text('#live-says')
def number_of_steps(page): return int(re.match(r'([\d,]+) steps', says(page))[1].replace(',', ''))
def accuracies(page): return [float(v) for v in re.findall(r'([\d.]+)% of the digits held out', says(page))]

def open_training(visit, query='', view='light'):
    page = visit('playground.html' + query, view)
    page.wait_for_selector('#playground:not([inert])')
    page.locator('#train').scroll_into_view_if_needed()
    page.locator('#live').scroll_into_view_if_needed()
    page.wait_for_function('document.getElementById("live-says").textContent.includes("steps")')
    return page

@pytest.mark.alone
def test_learns_to_90_percent_in_20_seconds_and_the_page_stays_awake(visit):
    page = open_training(visit)
    page.evaluate('''() => {
        window.frames_ = [];
        let last = performance.now();
        const tick = now => { frames_.push(now - last); last = now; requestAnimationFrame(tick); };
        requestAnimationFrame(tick);
        window.tasks = [];
        new PerformanceObserver(list => tasks.push(...list.getEntries().map(e => e.duration))).observe({ type: 'longtask' });
        window.started = performance.now();
        document.getElementById('live-play').click();
    }''')
    page.wait_for_function(r'''() => { const m = document.getElementById('live-says').textContent.match(/([\d.]+)% of the digits held out/); return m && +m[1] >= 90 }''', timeout=60_000)
    took, tasks, frames = page.evaluate('[(performance.now() - started)/1000, tasks, frames_]')
    print(f'90 % after {took:.1f} s and {number_of_steps(page)} steps; long tasks {tasks}; frames: median {np.median(frames):.0f} ms, '
          f'95 of 100 under {np.percentile(frames, 95):.0f} ms, longest {max(frames):.0f} ms')
    assert took < 20 and np.percentile(frames, 95) < 50

def test_train_pause_step_reset(visit):
    page = open_training(visit, '?lr2=0.01')
    page.select_option('#live-width', '16')
    page.wait_for_function('document.getElementById("live-says").textContent.startsWith("0 steps")')
    for n in (1, 2):
        page.focus('#live-step')
        page.keyboard.press('Enter')
        page.wait_for_function(f'document.getElementById("live-says").textContent.startsWith("{n} steps")')
    page.click('#live-play')
    page.wait_for_function('+document.getElementById("live-says").textContent.split(" ")[0].replace(",", "") > 60')
    assert page.inner_text('#live-play') == 'Pause' and page.is_disabled('#live-step')
    page.click('#live-play')
    page.wait_for_timeout(300)
    paused = number_of_steps(page)
    page.wait_for_timeout(500)
    assert number_of_steps(page) == paused and len(accuracies(page)) == 2 and page.locator('#live-tiles canvas').count() == 2
    fast, slow = (float(v) for v in re.findall(r'loss ([\d.]+)', says(page)))
    assert fast < slow
    ink = page.evaluate('''() => [...document.querySelectorAll('.charts canvas')].map(c => {
        const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height), seen = new Set();
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) seen.add(data.slice(i, i + 3).join());
        return [...seen].length })''')
    assert min(ink) >= 2 # both curves, each in its color
    page.click('#live-reset')
    page.wait_for_function('document.getElementById("live-says").textContent.startsWith("0 steps")')

def test_a_link_restores_the_training(visit):
    page = open_training(visit, '?width=16&activation=tanh&optimizer=adam&lr=0.003&lr2=0.001&seed=2&at=40')
    page.wait_for_function('document.getElementById("live-says").textContent.startsWith("40 steps")')
    page.wait_for_timeout(600)
    first, address = says(page), page.url
    for part in ('width=16', 'activation=tanh', 'optimizer=adam', 'lr=0.003', 'lr2=0.001', 'seed=2', 'at=40'): assert part in address
    page.goto('about:blank')
    page.goto(address)
    page.wait_for_selector('#playground:not([inert])')
    page.locator('#live').scroll_into_view_if_needed()
    page.wait_for_function('document.getElementById("live-says").textContent.startsWith("40 steps")')
    assert says(page) == first

def test_too_large_a_rate_is_told_and_can_be_reset(visit):
    page = open_training(visit, '?start=large&lr=3&depth=3')
    page.click('#live-play')
    page.wait_for_function('document.getElementById("live-says").textContent.includes("no number")', timeout=20_000)
    page.click('#live-play')
    page.select_option('#live-lr', '0.01')
    page.wait_for_function('document.getElementById("live-says").textContent.startsWith("0 steps")')

@pytest.mark.parametrize('query, units', [('?width=16&activation=tanh', 26), ('?depth=0', 10), ('?depth=3&width=8', 34)])
def test_what_was_trained_can_be_opened(visit, query, units):
    page = open_training(visit, query)
    page.click('#live-play')
    page.wait_for_function('+document.getElementById("live-says").textContent.split(" ")[0].replace(",", "") > 100')
    page.click('#live-play')
    page.wait_for_selector('#live-open:enabled')
    page.click('#live-open')
    page.wait_for_timeout(300)
    assert 'your own' in page.inner_text('#progress')
    page.locator('#net').scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert page.locator('.layer button').count() == units and ('tanh' in query) == ('tanh' in page.inner_text('#unit-forward'))
    for k in range(1, 9): page.click(f'#tale-steps li:nth-child({k}) button') # on the page's own network
    assert 'your own' not in page.inner_text('#progress')
    page.click('#live-open')
    page.click('#step')
    page.click('#reset')
    page.click('#reset')
    assert 'your own' not in page.inner_text('#progress') and page.is_disabled('#reset')

def test_firefox(visit, address):
    "The same in Firefox, to the same numbers."
    found = next(filter(None, map(shutil.which, ('firefox-esr', 'firefox'))), None)
    if not found: pytest.skip('there is no Firefox here')
    if not (Path(sys.prefix)/'node_modules'/'puppeteer-core').exists(): pytest.skip('there is no puppeteer-core here')
    done = subprocess.run(['node', Path(__file__).with_name('playground.mjs'), sys.prefix, found, address], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert not got['wrong'], got['wrong']
    here = run(visit('playground.html'), '''
        const settings = { width: 32, depth: 1, activation: 'relu', start: 'kaiming', optimizer: 'sgd', seed: 1 };
        const training = new net.Training(await net.loadDigits(), settings, 0.1);
        return Array.from({ length: 20 }, () => training.step());''')
    np.testing.assert_allclose(got['losses'], here, atol=1e-9)
