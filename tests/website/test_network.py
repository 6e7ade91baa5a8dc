"The functions of the playground page, in a real browser, against the library and PyTorch."
import base64
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from built_site import DOCS
from fcnet.data import get_data, normalize
from fcnet.images import digit_from_ink, digit_from_image
from PIL import Image, ImageDraw
from safetensors import safe_open

MODULES = 'network', 'ink', 'files', 'train'
IMPORT = f"""const modules = {list(MODULES)}.map(name => import(new URL(`playground/${{name}}.js`, location.href)));
const net = Object.assign({{}}, ...await Promise.all(modules));
"""

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
    return page.evaluate('async args => {' + IMPORT + body + '}', args)

# ---- the functions

def test_scores_and_gradients_of_300_digits(visit, serve, net):
    _, _, x, y = get_data()
    digits, labels = (x[-300:]*256).round().byte(), y[-300:]
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
            const back = net.backward(network, pass, [label]);
            scores = Math.max(scores, differ(pass.scores)[0]);
            for (const values of [back.inp, ...back.layers.flatMap(l => [l.w, l.b])]) {
                const [worst, size] = differ(values);
                if (size) grads = Math.max(grads, worst / size);
            }
        });
        return { scores, grads, left: expected.length - at, n: labels.length };''')
    print(errors)
    assert errors['n'] == 300 and errors['left'] == 0
    assert errors['scores'] < 1e-3 and errors['grads'] < 1e-3

def test_rounding_costs_less_than_a_tenth_of_a_percent(net):
    _, _, x, y = get_data()
    accuracy = (net.probabilities(net.pixels((x*256).round())).argmax(1) == y.numpy()).mean()
    print(f'accuracy {accuracy:.4f}, before rounding {net.info["exact"]}')
    assert abs(accuracy - float(net.info['accuracy'])) < 1e-4 and abs(accuracy - float(net.info['exact'])) < 1e-3

def test_losses_of_any_scores_and_the_corner_of_relu(visit):
    page = visit('playground.html')
    for scores in ([1000., 0., -1000.], [0.3, -0.2, 0.7]):
        losses = run(page, 'return [0, 1, 2].map(k => net.crossEntropy(Float64Array.from(args[0]), [k]))', scores)
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
        const { layers } = network;
        layers[0].w[0] = layers[1].b[0] = 9;
        return [tensors['0.w'][0], tensors['2.b'][0], layers[0].b[0], layers[1].w[0]];''') == [1, 4, 2, 3]

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

def in_the_page(page, ink):
    ink = base64.b64encode((ink/ink.max()).astype(float).tobytes()).decode()
    return run(page, 'return [...net.digitFromInk(new Float64Array(Uint8Array.from(atob(args[0]), c => c.charCodeAt(0)).buffer), 280)]', ink)

def test_any_ink_takes_the_form_that_fcnet_gives_it(visit):
    page = visit('playground.html')
    for ink in [pattern(280, 280, 0), pattern(90, 150, 1), pattern(200, 60, 2), pattern(230, 3, 3), heavy(1), heavy(-1), *DRAWN]:
        wanted = digit_from_ink((ink/ink.max()).astype(np.float32)).flatten()*255/256
        np.testing.assert_allclose(in_the_page(page, ink), wanted, atol=1e-5)

def test_drawing_becomes_the_digit_that_fcnet_predict_would_read(visit, tmp_path):
    page = visit('playground.html')
    for ink in DRAWN:
        Image.fromarray(ink.astype(np.uint8)).save(tmp_path/'ink.png')
        np.testing.assert_allclose(in_the_page(page, ink), digit_from_image(tmp_path/'ink.png').numpy(), atol=1e-5)

def test_drawings_of_nothing_and_of_little(visit):
    page = visit('playground.html')
    assert run(page, 'return net.digitFromInk(new Float64Array(784), 28)') is None
    ink = np.zeros((28, 28))
    ink[3:10, 20:23] = 1
    small = run(page, 'return [...net.digitFromInk(Float64Array.from(args[0]), 28)]', ink.flatten().tolist())
    square = np.array(small).reshape(28, 28) > 0
    assert square.any(1).sum() == 20 and square.any(0).sum() == 4 and square.sum() == 80 # its pen is thinned from 3 to 1
