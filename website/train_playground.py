"""Make what the playground page loads, into website/playground/.

`network.safetensors`: a trained network, rounded to 16-bit floats, with examples: one
of each digit that it reads right, and five that it misreads. The second of these is the
one whose own step costs the network most, as the page's story shows.
`digits.safetensors.zlib`: 6,000 digits, packed, for training one in the page.
"""
import json
import math
import zlib
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from fcnet.augment import Distort
from fcnet.classify import CrossEntropy, accuracy
from fcnet.config import Config, build_model
from fcnet.data import Data, get_data, normalize
from fcnet.images import digit_from_ink
from fcnet.learner import Learner, Schedule
from fcnet.optim import AdamW
from PIL import Image, ImageDraw
from safetensors.torch import save, save_file

SIZES = [784, 64, 32, 10]
TRAIN = 5000    # digits to learn from in the page
HELD_OUT = 1000 # digits to judge by
FOLDER = Path(__file__).resolve().parent/'playground'
FILE = FOLDER/'network.safetensors'
DIGITS = FOLDER/'digits.safetensors.zlib'

# ---- digits that MNIST, written in the United States, hardly has:
# ones with a flag and a foot, sevens with a bar

def one(g):
    "Strokes of a 1 with a flag, in a square of side 1. Two in five have a foot as well."
    lean = g.normal(0, 0.06)
    angle = math.radians(g.uniform(25, 65))
    length = g.uniform(0.2, 0.5)
    top = np.array([0.55 + lean, 0.15])
    foot = np.array([0.55 - lean, 0.85])
    flag = top + length*np.array([-math.sin(angle), math.cos(angle)])
    strokes = [[flag, top, foot]]
    half = g.uniform(0.15, 0.3)
    if g.random() < 0.4:
        left = foot - [half, g.normal(0, 0.02)]
        right = foot + [half, g.normal(0, 0.02)]
        strokes.append([left, right])
    return strokes

def seven(g):
    "Strokes of a 7 with a bar."
    corners = np.array([[0.25, 0.2], [0.75, 0.2], [0.4, 0.85]])
    a, b, c = corners + g.normal(0, 0.04, (3, 2))
    middle = b + (c-b)*g.uniform(0.4, 0.6)
    half = g.uniform(0.12, 0.22)
    left = middle - [half, g.normal(0, 0.03)]
    right = middle + [half, g.normal(0, 0.03)]
    return [[a, b, c], [left, right]]

def draw(strokes, g, side=140):
    "The strokes with a round pen of a random width, in MNIST's form: `(784,)` in [0, 1)."
    image = Image.new('L', (side, side))
    width = int(g.integers(6, 20))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        points = [tuple(side*p) for p in stroke]
        pen.line(points, fill=255, width=width, joint='curve')
        for x, y in points: pen.circle((x, y), width/2, fill=255)
    ink = np.asarray(image, np.float32)/255
    return digit_from_ink(ink).reshape(784)*255/256

def drawn(seed=0, ones=1500, sevens=750):
    "Pixels and labels of drawn digits."
    g = np.random.default_rng(seed)
    digits = [draw(one(g), g) for _ in range(ones)]
    digits += [draw(seven(g), g) for _ in range(sevens)]
    pixels = torch.from_numpy(np.stack(digits)).float()
    return pixels, torch.tensor([1]*ones + [7]*sevens)

# ---- the network

def train(epochs=8):
    "The trained model, its data, and the mean and standard deviation of the pixels."
    x, y, x_valid, y_valid = get_data()
    mean = x.mean()
    std = x.std()
    more, labels = drawn()
    data = Data(normalize(torch.cat([x, more]), mean, std), torch.cat([y, labels]),
                normalize(x_valid, mean, std), y_valid)
    g = torch.Generator().manual_seed(0)
    model = build_model(Config(hidden=SIZES[1:-1]), generator=g)
    opt = AdamW(model.parameters(), lr=0.004)
    callbacks = [Schedule(), Distort(g)]
    Learner(model, data, opt, CrossEntropy(), generator=g, callbacks=callbacks).fit(epochs)
    return model, data, mean.item(), std.item()

def right_after_step(model, data, k, examples, rate=0.01):
    "How many of the examples the model reads right after a step on digit `k` alone."
    model = deepcopy(model)
    loss = CrossEntropy()
    x = data.x_valid
    y = data.y_valid
    model.zero_grad()
    loss(model(x[k:k+1]), y[k:k+1])
    model.backward(loss.backward())
    for p in model.parameters(): p -= rate*p.grad
    return (model(x[examples]).argmax(1) == y[examples]).sum().item()

def choose_examples(model, data):
    "Places of one digit of each kind that is read right, and of five that are misread."
    right = model(data.x_valid).argmax(1) == data.y_valid
    first = [(right & (data.y_valid == digit)).nonzero()[0].item() for digit in range(10)]
    misread = (~right).nonzero()[:60, 0].tolist()
    def shown(k): # the five, with `k` as the second
        others = [other for other in misread[1:5] if other != k]
        return first + [misread[0], k, *others][:5]
    def left(k): return right_after_step(model, data, k, shown(k))
    return shown(min(misread[1:], key=left))

# ---- the files

def write_digits():
    "The first digits of the training set and of the validation set, as bytes, deflated."
    x, y, x_valid, y_valid = get_data()
    pixels = torch.cat([x[:TRAIN], x_valid[:HELD_OUT]])
    labels = torch.cat([y[:TRAIN], y_valid[:HELD_OUT]])
    tensors = {'x': (pixels*256).round().byte(), 'y': labels.byte()}
    info = dict(train=str(TRAIN), mean=str(x.mean().item()), std=str(x.std().item()))
    DIGITS.write_bytes(zlib.compress(save(tensors, info), 9))
    size = DIGITS.stat().st_size
    assert size < 1e6
    print(f'{DIGITS.name}: {size/1000:.0f} kB, {TRAIN} digits and {HELD_OUT} held out')

def write_network():
    "The network in 16 bits, with its examples."
    model, data, mean, std = train()
    exact = accuracy(model(data.x_valid), data.y_valid)
    for p in model.parameters(): p.copy_(p.half())
    rounded = accuracy(model(data.x_valid), data.y_valid)
    assert abs(exact - rounded) < 0.001, f'rounding: accuracy {exact} becomes {rounded}'
    examples = choose_examples(model, data)
    tensors = {name: p.half().contiguous() for name, p in model.state_dict().items()}
    tensors['examples'] = (get_data().x_valid[examples]*256).round().byte()
    tensors['labels'] = data.y_valid[examples].byte()
    info = dict(sizes=json.dumps(SIZES), mean=str(mean), std=str(std),
                accuracy=f'{rounded:.4f}', exact=f'{exact:.4f}')
    save_file(tensors, FILE, info)
    print(f'{FILE.name}: {FILE.stat().st_size/1000:.0f} kB, validation accuracy '
          f'{rounded:.2%}, before rounding {exact:.2%}')

def main():
    FOLDER.mkdir(exist_ok=True)
    write_digits()
    write_network()

if __name__ == '__main__': main()
