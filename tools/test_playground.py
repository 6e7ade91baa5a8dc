"The playground page in a real browser: its functions against PyTorch, its pictures against the numbers, its buttons."
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DOCS, VIEWS
from fcnet.data import get_data, normalize
from fcnet.images import _digit_from_ink, digit_from_image
from PIL import Image, ImageDraw
from safetensors import safe_open

MODULE = "const net = await import(new URL('playground/network.js', location.href));\n"

class Network:
    "The rounded network in float64 on autograd: an independent witness for the page."
    def __init__(self):
        with safe_open(DOCS/'playground'/'network.safetensors', 'pt') as f:
            self.info, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
        self.examples, self.labels = self.pixels(tensors['examples']), tensors['labels'].tolist()
        sizes = json.loads(self.info['sizes'])
        self.params = [tensors[f'{2*k}.{name}'].double().requires_grad_() for k in range(len(sizes)-1) for name in 'wb']
        assert [tuple(p.shape) for p in self.params[::2]] == list(zip(sizes, sizes[1:]))
    def pixels(self, digits): return normalize(digits.double()/256, float(self.info['mean']), float(self.info['std']))
    def activations(self, x): # of the hidden layers, and the scores
        out = []
        for w, b in zip(self.params[::2], self.params[1::2]):
            x = (x if not out else x.relu())@w + b
            out.append(x)
        return [a.relu() for a in out[:-1]], out[-1]
    def grads(self, x, label):
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(self.activations(x)[1][None], torch.tensor([label]))
        return loss.item(), torch.autograd.grad(loss, [x, *self.params])
    def step(self, x, label, lr):
        grads = self.grads(x, label)[1][1:]
        self.params = [(p - lr*g).detach().requires_grad_() for p, g in zip(self.params, grads)]
    @torch.no_grad()
    def probabilities(self, x): return self.activations(x)[1].softmax(-1).numpy()

@pytest.fixture
def net(): return Network()

def run(page, body, *args):
    "What a piece of JavaScript returns that has the page's functions as `net` and arguments as `args`."
    return page.evaluate('async args => {' + MODULE + body + '}', args)

# ---- the functions

def test_scores_and_gradients_of_1000_digits(visit, serve, net):
    _, _, x, y = get_data()
    digits, labels = (x[-1000:]*256).round().byte(), y[-1000:]
    expected = []
    for row, label in zip(net.pixels(digits), labels.tolist()):
        expected.append(torch.cat([t.detach().flatten() for t in (net.activations(row)[1], *net.grads(row, label)[1])]).float())
    serve('/test/expected', torch.stack(expected).numpy().tobytes())
    serve('/test/digits', digits.numpy().tobytes())
    serve('/test/labels', labels.byte().numpy().tobytes())
    errors = run(visit('playground.html'), '''
        const load = async path => (await fetch(path)).arrayBuffer();
        const { tensors, info } = net.readTensors(await load('playground/network.safetensors'));
        const network = net.networkFrom(tensors), labels = new Uint8Array(await load('test/labels'));
        const digits = new Uint8Array(await load('test/digits')), expected = new Float32Array(await load('test/expected'));
        let at = 0, scores = 0, grads = 0;
        const differ = values => { // largest difference, and the largest entry
            let worst = 0, size = 0;
            for (const v of values) {
                const difference = Math.abs(v - expected[at]);
                if (!(difference <= worst)) worst = difference; // nan too
                size = Math.max(size, Math.abs(expected[at++]));
            }
            return [worst, size];
        };
        labels.forEach((label, n) => {
            const pixels = Float64Array.from(digits.slice(784*n, 784*(n + 1)), v => v / 256);
            const pass = net.forward(network, net.normalize(pixels, info.mean, info.std));
            const back = net.backward(network, pass, label);
            scores = Math.max(scores, differ(pass.scores)[0]);
            for (const values of [back.inp, ...back.layers.flatMap(l => [l.w, l.b])]) {
                const [worst, size] = differ(values);
                if (size) grads = Math.max(grads, worst / size);
            }
        });
        return { scores, grads, left: expected.length - at, n: labels.length };''')
    print(errors)
    assert errors['n'] == 1000 and errors['left'] == 0
    assert errors['scores'] < 1e-3 and errors['grads'] < 1e-3

def test_rounding_costs_less_than_a_tenth_of_a_percent(net):
    _, _, x, y = get_data()
    accuracy = (net.probabilities(net.pixels((x*256).round())).argmax(1) == y.numpy()).mean()
    print(f'accuracy {accuracy:.4f}, before rounding {net.info["exact"]}')
    assert abs(accuracy - float(net.info['accuracy'])) < 1e-4 and abs(accuracy - float(net.info['exact'])) < 1e-3

def test_losses_of_any_scores_and_the_corner_of_relu(visit):
    page = visit('playground.html')
    for scores in ([1000., 0., -1000.], [0.3, -0.2, 0.7]):
        losses = run(page, 'return [0, 1, 2].map(k => net.crossEntropy(Float64Array.from(args[0]), k))', scores)
        wanted = F.cross_entropy(torch.tensor([scores]*3, dtype=torch.float64), torch.arange(3), reduction='none')
        np.testing.assert_allclose(losses, wanted, rtol=1e-12, atol=1e-12)
        shares = run(page, 'return [...net.softmax(Float64Array.from(args[0]))]', scores)
        np.testing.assert_allclose(shares, torch.tensor(scores, dtype=torch.float64).softmax(0), rtol=1e-12, atol=1e-12)
    assert run(page, 'return [...net.reluGrad(Float64Array.of(5, 6, 7), Float64Array.of(-1, 0, 2))]') == [0, 0, 7]

def test_every_16_bit_float(visit):
    bits = np.arange(65536, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    got = run(visit('playground.html'), 'return args[0].map(net.half)', bits.tolist())
    np.testing.assert_array_equal(got, bits.view(np.float16).astype(np.float64))

def test_networks_are_copies_in_order(visit):
    assert run(visit('playground.html'), '''
        const tensors = { '2.w': Float64Array.of(3), '2.b': Float64Array.of(4), '0.w': Float64Array.of(1), '0.b': Float64Array.of(2) };
        const network = net.networkFrom(tensors);
        network[0].w[0] = network[1].b[0] = 9;
        return [tensors['0.w'][0], tensors['2.b'][0], network[0].b[0], network[1].w[0]];''') == [1, 4, 2, 3]

def pattern(rows, cols, seed):
    "A drawing of 280x280 with random blocks in a box of this size at a random place."
    g, ink = np.random.default_rng(seed), np.zeros((280, 280))
    top, left = g.integers(0, 281-rows), g.integers(0, 281-cols)
    blocks = np.kron(g.random((5, 5)) > 0.4, np.ones((-(-rows//5), -(-cols//5))))[:rows,:cols]
    ink[top:top+rows, left:left+cols] = blocks*g.integers(30, 256, (rows, cols))
    return ink

def heavy(corner):
    "An L as large as the pad may be, nearly all of its mass in one corner."
    ink = np.zeros((280, 280))
    ink[20, 20:260] = ink[20:260, 20] = 255
    ink[20:100, 20:100] = 255
    ink[10, 100:150], ink[270, 100:150] = 50, 80 # below and above the threshold of a quarter
    return ink[::corner, ::corner]

def drawn(width, *strokes):
    "Strokes on the pad, with a round pen of this width."
    image = Image.new('L', (280, 280))
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill=255, width=width, joint='curve')
        for x, y in (stroke[0], stroke[-1]): ImageDraw.Draw(image).circle((x, y), width/2, fill=255)
    return np.asarray(image, dtype=float)

FIVE = [(90, 60), (85, 130), (150, 125), (180, 180), (140, 230), (80, 215)], [(90, 60), (180, 55)]
DRAWN = [drawn(22, *FIVE), drawn(5, *FIVE), drawn(40, *FIVE), drawn(22, [(140, 70), (150, 90)])]

def in_the_page(visit, ink):
    return run(visit('playground.html'), 'return [...net.digitFromInk(Float64Array.from(args[0]), 280)]', (ink/ink.max()).flatten().tolist())

@pytest.mark.parametrize('ink', [pattern(280, 280, 0), pattern(90, 150, 1), pattern(200, 60, 2), pattern(230, 3, 3), heavy(1), heavy(-1), *DRAWN])
def test_any_ink_takes_the_form_that_fcnet_gives_it(visit, ink):
    wanted = _digit_from_ink((ink/ink.max()).astype(np.float32)).flatten()*255/256
    np.testing.assert_allclose(in_the_page(visit, ink), wanted, atol=1e-5)

@pytest.mark.parametrize('ink', DRAWN)
def test_drawing_becomes_the_digit_that_fcnet_predict_would_read(visit, tmp_path, ink):
    Image.fromarray(ink.astype(np.uint8)).save(tmp_path/'ink.png')
    np.testing.assert_allclose(in_the_page(visit, ink), digit_from_image(tmp_path/'ink.png').numpy(), atol=1e-5)

def test_drawings_of_nothing_and_of_little(visit):
    page = visit('playground.html')
    assert run(page, 'return net.digitFromInk(new Float64Array(784), 28)') is None
    ink = np.zeros((28, 28))
    ink[3:10, 20:23] = 1
    small = run(page, 'return [...net.digitFromInk(Float64Array.from(args[0]), 28)]', ink.flatten().tolist())
    square = np.array(small).reshape(28, 28) > 0
    assert square.any(1).sum() == 20 and square.any(0).sum() == 4 and square.sum() == 80 # its pen is thinned from 3 to 1

# ---- the page

def probabilities(page): return page.eval_on_selector_all('#bars .bar', 'all => all.map(b => parseFloat(b.style.width)/100)')
def marks(page):
    return page.eval_on_selector_all('#bars .before:not([hidden])', 'all => all.map(b => parseFloat(b.style.left.match(/[\\d.e-]+/)[0])/100)')
def progress(page): return page.inner_text('#progress')
def choose(page, digit): page.check(f'#truth input[value="{digit}"]', force=True)
def example(page, k): page.locator('.take button').nth(k).click()

def stroke(page, *points, up=True):
    "Draw a line through points of the pad, in pixels of its 280."
    page.locator('#pad').scroll_into_view_if_needed()
    box = page.locator('#pad').bounding_box()
    place = [(box['x'] + x*box['width']/280, box['y'] + y*box['height']/280) for x, y in points]
    page.mouse.move(*place[0])
    page.mouse.down()
    for point in place[1:]: page.mouse.move(*point, steps=8)
    if up: page.mouse.up()
    page.wait_for_timeout(100)

def pad_ink(page):
    "Opacity of the pad, `(280, 280)` in [0, 1], and the color of its ink."
    data = page.evaluate('[...document.getElementById("pad").getContext("2d").getImageData(0, 0, 280, 280).data]')
    rgba = np.array(data).reshape(280, 280, 4)
    return rgba[..., 3]/255, rgba[rgba[..., 3] == 255][:1, :3]

def decoded(page, selector):
    "The numbers of a picture, from -1 to 1, read back from its colors."
    got = page.evaluate('''selector => {
        const c = document.querySelector(selector), style = getComputedStyle(document.getElementById('playground'));
        const data = [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];
        return { data, width: c.width, positive: style.getPropertyValue('--positive'), negative: style.getPropertyValue('--negative') }
    }''', selector)
    rgba = np.array(got['data'], dtype=float).reshape(-1, got['width'], 4)
    color = lambda name: np.array([int(got[name].strip()[i:i+2], 16) for i in (1, 3, 5)])
    far = [np.abs(rgba[..., :3] - color(name)).sum(-1) for name in ('positive', 'negative')]
    opaque = rgba[..., 3] > 60 # faint colors are stored too coarsely to tell
    assert (np.minimum(*far)[opaque] < 12).all()
    return np.where(far[0] < far[1], 1, -1)*(rgba[..., 3]/255)**2

@pytest.mark.parametrize('view', ['light', 'dark'])
def test_pictures_show_the_numbers(visit, net, view):
    page = visit('playground.html', view)
    k = 12
    example(page, k)
    if view == 'light': # pictures follow a change of the theme, too
        page.click('.quarto-color-scheme-toggle:visible')
        page.wait_for_timeout(200)
    x, label = net.examples[k], net.labels[k]
    hidden, scores = net.activations(x)
    _, (d_x, *d_params) = net.grads(x, label)
    tiled = lambda w: w.T.reshape(8, 8, 28, 28).permute(0, 2, 1, 3).reshape(224, 224) # unit by unit, without the gaps
    wanted = {'activations-0': hidden[0].reshape(8, 8), 'activations-1': hidden[1].reshape(4, 8), 'scores': scores[None],
              'input-gradient': d_x.reshape(28, 28)}
    for layer, (w, d_w) in enumerate(zip(net.params[::2], d_params[::2])):
        wanted |= {f'weights-{layer}': w if layer else tiled(w), f'gradient-{layer}': d_w if layer else tiled(d_w)}
    for name, values in wanted.items():
        values, got = values.detach().numpy(), decoded(page, f'#{name} canvas')
        if name in ('weights-0', 'gradient-0'):
            inside = np.arange(231) % 29 < 28
            assert (got[~inside] == 0).all() and (got[:, ~inside] == 0).all()
            got = got[inside][:, inside]
        largest = values.flat[np.abs(values).argmax()]
        np.testing.assert_allclose(got, values/abs(largest), atol=0.01, err_msg=name)
        caption = page.inner_text(f'#{name} figcaption')
        assert float(caption.rsplit('Largest: ')[1]) == pytest.approx(largest, rel=0.006), caption
    seen = page.evaluate('[...document.getElementById("seen").getContext("2d").getImageData(0, 0, 28, 28).data]')
    pixels = net.examples[k]*float(net.info['std']) + float(net.info['mean'])
    np.testing.assert_allclose(np.array(seen)[3::4]/255, pixels/pixels.max(), atol=0.01)

def test_a_cell_tells_its_number(visit, net):
    page = visit('playground.html')
    example(page, 4)
    unit = int(net.activations(net.examples[4])[0][0].argmax())
    page.locator('#activations-0').scroll_into_view_if_needed()
    box = page.locator('#activations-0 canvas').bounding_box()
    page.mouse.move(box['x'] + (unit % 8 + 0.5)*box['width']/8, box['y'] + (unit//8 + 0.5)*box['height']/8)
    name, value = page.inner_text('#activations-0 figcaption').split(': ')
    assert name == f'unit {unit}' and float(value) == pytest.approx(net.activations(net.examples[4])[0][0].max().item(), rel=0.006)
    page.mouse.move(box['x'], box['y'] - 30)
    assert 'Largest' in page.inner_text('#activations-0 figcaption')
    page.locator('#weights-0').scroll_into_view_if_needed()
    box = page.locator('#weights-0 canvas').bounding_box()
    cell = lambda column, row: page.mouse.move(box['x'] + (column + 0.5)*box['width']/231, box['y'] + (row + 0.5)*box['height']/231)
    cell(29*5 + 11, 29*2 + 17) # tile 2*8+5, its pixel (17, 11)
    name, value = page.inner_text('#weights-0 figcaption').split(': ')
    assert name == 'unit 21, pixel row 17, column 11' and float(value) == pytest.approx(net.params[0][17*28 + 11, 21].item(), rel=0.006)

def test_buttons_show_and_take_their_examples(visit, net):
    page = visit('playground.html')
    wanted = net.probabilities(net.examples)
    assert net.labels[:10] == list(range(10)) and (wanted.argmax(1) == net.labels)[:10].any()
    assert (wanted.argmax(1) != net.labels)[10:].all()
    for k, button in enumerate(page.query_selector_all('.take button')):
        assert str(net.labels[k]) in button.get_attribute('aria-label')
        small = button.eval_on_selector('canvas', 'c => [...c.getContext("2d").getImageData(0, 0, 28, 28).data]')
        pixels = net.examples[k]*float(net.info['std']) + float(net.info['mean'])
        np.testing.assert_allclose(np.array(small)[3::4]/255, pixels/pixels.max(), atol=0.01)
        button.focus()
        page.keyboard.press('Enter')
        np.testing.assert_allclose(probabilities(page), wanted[k], atol=1e-4)
        shares = page.eval_on_selector_all('#bars .share', 'all => all.map(s => parseFloat(s.textContent)/100)')
        np.testing.assert_allclose(shares, wanted[k], atol=6e-4)
        assert page.inner_text('#verdict') == f'The network reads: {wanted[k].argmax()}'
        assert page.is_checked(f'#truth input[value="{net.labels[k]}"]')
        assert page.eval_on_selector_all('#bars .true', 'rows => rows.map(r => r.textContent[0])') == [str(net.labels[k])]
        shown = float(re.match(r'Loss (\S+)\. ', progress(page))[1])
        assert shown == pytest.approx(net.grads(net.examples[k], net.labels[k])[0], rel=0.005)

@pytest.mark.parametrize('rate', ['0.001', '0.01', '0.1'])
def test_steps_are_those_of_sgd(visit, net, rate):
    page, k, label = visit('playground.html'), 11, 3
    example(page, k)
    choose(page, label) # any digit may be called the true one
    page.select_option('#rate', rate)
    for n in (1, 2):
        before, (loss, _) = net.probabilities(net.examples[k]), net.grads(net.examples[k], label)
        net.step(net.examples[k], label, float(rate))
        page.focus('#step')
        page.keyboard.press('Enter')
        np.testing.assert_allclose(probabilities(page), net.probabilities(net.examples[k]), atol=1e-4)
        np.testing.assert_allclose(marks(page), before, atol=1e-4)
        said = [float(v) for v in re.match(r'Loss (\S+) before the step, (\S+) after it\.', progress(page)).groups()]
        assert said == pytest.approx([loss, net.grads(net.examples[k], label)[0]], rel=0.006)
        right = (net.probabilities(net.examples).argmax(1) == net.labels).sum()
        assert f'{n} step' in progress(page) and f'reads {right} of the 15 examples' in progress(page)
    choose(page, 5)
    assert not marks(page) # they belong to another question
    page.click('#step')
    page.click('#reset')
    assert not marks(page) and page.is_disabled('#reset') and 'step' not in progress(page)
    np.testing.assert_allclose(probabilities(page), Network().probabilities(net.examples[k]), atol=1e-4)
    page.click('#step')
    example(page, 2)
    assert not marks(page)

@pytest.mark.parametrize('view', VIEWS)
def test_reads_a_drawn_digit_and_learns(visit, view):
    page = visit('playground.html', view)
    page.click('#clear')
    assert page.inner_text('#verdict').startswith('Draw a digit') and page.is_disabled('#step')
    assert not page.query_selector('#truth input:checked') and not page.is_visible('#gradient-0')
    stroke(page, (80, 70), (200, 70))
    stroke(page, (200, 70), (130, 230)) # a second stroke keeps the first
    assert page.inner_text('#verdict') == 'The network reads: 7' and probabilities(page)[7] > 0.5
    first = probabilities(page)
    assert page.is_disabled('#step') and 'Choose the true digit' in progress(page)
    choose(page, 2) # not what was drawn: the page must learn what it is told
    for figure in ('#gradient-0', '#gradient-1', '#gradient-2', '#input-gradient'): assert page.is_visible(figure)
    page.select_option('#rate', '0.1')
    page.click('#step')
    assert probabilities(page)[2] > first[2]
    stroke(page, (100, 150), (180, 150))
    assert not marks(page) and page.is_checked('#truth input[value="2"]')

def test_the_pen_draws_where_it_is_and_only_then(visit):
    page = visit('playground.html')
    printed, _ = pad_ink(page)
    stroke(page, (140, 140)) # a tap leaves the example
    np.testing.assert_array_equal(pad_ink(page)[0], printed)
    stroke(page, (60, 210), (61, 210)) # a stroke replaces it
    assert not page.query_selector('#truth input:checked')
    page.click('#clear')
    stroke(page, (60, 210)) # a dot
    ink, _ = pad_ink(page)
    rows, cols = np.nonzero(ink > 0.5)
    assert abs(rows.mean() - 210) < 2 and abs(cols.mean() - 60) < 2 and 300 < len(rows) < 460 # pi*11**2 is 380
    stroke(page, (100, 100), (400, 100)) # begun on the pad, ended outside
    drawn, _ = pad_ink(page)
    box = page.locator('#pad').bounding_box()
    page.mouse.move(box['x'] + 30, box['y'] + 30)
    page.mouse.move(box['x'] + 80, box['y'] + 30)
    page.mouse.down(button='right')
    page.mouse.move(box['x'] + 80, box['y'] + 60)
    page.mouse.up(button='right')
    np.testing.assert_array_equal(pad_ink(page)[0], drawn)
    stroke(page, (30, 30), (60, 30), up=False)
    page.wait_for_timeout(100)
    begun, _ = pad_ink(page)
    page.evaluate('''pad.dispatchEvent(new PointerEvent('pointermove', { pointerId: 77, clientX: 200, clientY: 300 }))''')
    np.testing.assert_array_equal(pad_ink(page)[0], begun) # a second finger
    page.mouse.up()

def test_a_finger_draws_and_a_second_one_does_not(visit):
    page = visit('playground.html', 'phone')
    box, touch = page.locator('#pad').bounding_box(), page.context.new_cdp_session(page)
    def fingers(kind, *points):
        places = [{'x': box['x'] + x*box['width']/280, 'y': box['y'] + y*box['height']/280, 'id': i} for i, (x, y) in enumerate(points)]
        touch.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': places})
    fingers('touchStart', (80, 70))
    for k in range(11): fingers('touchMove', (80 + 12*k, 70))
    for k in range(11): fingers('touchMove', (200 - 7*k, 70 + 16*k), (20, 270))
    fingers('touchEnd')
    page.wait_for_timeout(100)
    assert page.inner_text('#verdict') == 'The network reads: 7' and page.evaluate('scrollY') == 0
    assert pad_ink(page)[0][250:, :60].max() == 0

def test_ink_follows_the_theme(visit):
    page = visit('playground.html')
    page.click('#clear')
    stroke(page, (80, 70), (200, 70), (130, 230))
    read = probabilities(page)
    ink, dark_on_light = pad_ink(page)
    page.click('.quarto-color-scheme-toggle:visible')
    page.wait_for_timeout(300)
    after, light_on_dark = pad_ink(page)
    assert dark_on_light.mean() < 80 and light_on_dark.mean() > 180
    np.testing.assert_allclose(after, ink, atol=0.02)
    np.testing.assert_allclose(probabilities(page), read, atol=0.02)

def test_survives_many_wild_steps(visit):
    page = visit('playground.html')
    choose(page, 8)
    page.select_option('#rate', '0.1')
    for _ in range(30): page.click('#step')
    assert np.isfinite(probabilities(page)).all() and probabilities(page)[8] > 0.9
    assert '30 steps taken' in progress(page)

def test_says_when_its_network_is_missing(visit):
    page = visit('index.html')
    page.route('**/network.safetensors', lambda route: route.fulfill(status=404, body='none'))
    page.goto(page.url.replace('index', 'playground'))
    page.wait_for_selector('#trouble:visible')
    assert re.match(r'The network could not be loaded\. .*network\.safetensors.* 404', page.inner_text('#trouble'))
    assert any('404' in w for w in visit.wrong)
    visit.wrong.clear()
