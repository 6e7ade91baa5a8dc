"""Make what the playground page loads: a trained network, rounded to 16-bit floats, with examples (one of each digit that
it reads right, and five that it misreads, of which a step on the second costs most); and 6,000 digits, packed, for those
who train one of their own there."""
import json
import math
import zlib
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from fcnet.classify import accuracy
from fcnet.data import Data, get_data, normalize
from fcnet.deep import build_model
from fcnet.images import _digit_from_ink
from fcnet.learner import Learner, Schedule
from fcnet.optim import AdamW
from fcnet.regularize import Distort
from PIL import Image, ImageDraw
from safetensors.torch import save, save_file

SIZES = [784, 64, 32, 10]
TRAIN, HELD_OUT = 5000, 1000 # digits to learn from in the page, and to judge by
FOLDER = Path(__file__).resolve().parent.parent/'nbs'/'playground'
FILE, DIGITS = FOLDER/'network.safetensors', FOLDER/'digits.safetensors.zlib'

# ---- digits that MNIST, written in the United States, hardly has: ones with a flag and a foot, sevens with a bar

def one(g):
    "Strokes of a 1 with a flag, in a square of side 1. Two in five have a foot, too."
    lean, angle, length = g.normal(0, 0.06), math.radians(g.uniform(25, 65)), g.uniform(0.2, 0.5)
    top, foot = np.array([0.55 + lean, 0.15]), np.array([0.55 - lean, 0.85])
    strokes = [[top + length*np.array([-math.sin(angle), math.cos(angle)]), top, foot]]
    half = g.uniform(0.15, 0.3)
    if g.random() < 0.4: strokes.append([foot - [half, g.normal(0, 0.02)], foot + [half, g.normal(0, 0.02)]])
    return strokes

def seven(g):
    "Strokes of a 7 with a bar."
    a, b, c = np.array([[0.25, 0.2], [0.75, 0.2], [0.4, 0.85]]) + g.normal(0, 0.04, (3, 2))
    middle, half = b + (c-b)*g.uniform(0.4, 0.6), g.uniform(0.12, 0.22)
    return [[a, b, c], [middle - [half, g.normal(0, 0.03)], middle + [half, g.normal(0, 0.03)]]]

def draw(strokes, g, side=140):
    "The strokes with a round pen of a random width, in MNIST's form: `(784,)` in [0, 1)."
    image, width = Image.new('L', (side, side)), int(g.integers(6, 20))
    for stroke in strokes:
        points = [tuple(side*p) for p in stroke]
        ImageDraw.Draw(image).line(points, fill=255, width=width, joint='curve')
        for x, y in points: ImageDraw.Draw(image).circle((x, y), width/2, fill=255)
    return _digit_from_ink(np.asarray(image, np.float32)/255).reshape(784)*255/256

def drawn(seed=0, ones=1500, sevens=750):
    "Pixels and labels of drawn digits."
    g = np.random.default_rng(seed)
    digits = [draw(make(g), g) for make, n in ((one, ones), (seven, sevens)) for _ in range(n)]
    return torch.from_numpy(np.stack(digits)).float(), torch.tensor([1]*ones + [7]*sevens)

# ---- what the page loads

def train(epochs=8):
    "The trained model, its data and the mean and standard deviation of the pixels."
    x, y, x_valid, y_valid = get_data()
    mean, std = x.mean(), x.std()
    more, labels = drawn()
    data = Data(normalize(torch.cat([x, more]), mean, std), torch.cat([y, labels]), normalize(x_valid, mean, std), y_valid)
    g = torch.Generator().manual_seed(0)
    model = build_model(SIZES, generator=g)
    opt = AdamW(model.parameters(), lr=0.004)
    Learner(model, data, opt, generator=g, callbacks=[Schedule(), Distort(g)]).fit(epochs)
    return model, data, mean.item(), std.item()

def right_after_step(model, data, k, examples, rate=0.01):
    "How many of the examples the model reads right after a step on digit `k` alone: what the page's story shows."
    model = deepcopy(model)
    x, y = data.x_valid, data.y_valid
    model.zero_grad(), model(x[k:k+1], y[k:k+1]), model.backward()
    for p in model.parameters(): p -= rate*p.grad
    return (model.predict(x[examples]).argmax(1) == y[examples]).sum().item()

def write_digits():
    "The first digits of the training set to learn from and of the validation set to judge by, bytes, deflated."
    x, y, x_valid, y_valid = get_data()
    pixels = torch.cat([x[:TRAIN], x_valid[:HELD_OUT]])
    tensors = {'x': (pixels*256).round().byte(), 'y': torch.cat([y[:TRAIN], y_valid[:HELD_OUT]]).byte()}
    info = dict(train=str(TRAIN), mean=str(x.mean().item()), std=str(x.std().item()))
    DIGITS.write_bytes(zlib.compress(save(tensors, info), 9))
    assert DIGITS.stat().st_size < 1e6
    print(f'{DIGITS.name}: {DIGITS.stat().st_size/1000:.0f} kB, {TRAIN} digits and {HELD_OUT} held out')

def main():
    FOLDER.mkdir(exist_ok=True)
    write_digits()
    model, data, mean, std = train()
    exact = accuracy(model.predict(data.x_valid), data.y_valid)
    for p in model.parameters(): p.copy_(p.half())
    rounded = accuracy(model.predict(data.x_valid), data.y_valid)
    assert abs(exact - rounded) < 0.001, f'rounding changes the accuracy from {exact} to {rounded}'
    right = model.predict(data.x_valid).argmax(1) == data.y_valid
    first = [(right & (data.y_valid == digit)).nonzero()[0].item() for digit in range(10)]
    misread = (~right).nonzero()[:20, 0].tolist()
    costly = min(misread[1:], key=lambda k: right_after_step(model, data, k, first + misread))
    misread = [misread[0], costly, *(k for k in misread[1:5] if k != costly)][:5]
    examples = (get_data().x_valid[first + misread]*256).round().byte()
    labels = data.y_valid[first + misread].byte()
    weights = {name: p.half().contiguous() for name, p in model.state_dict().items()}
    info = dict(sizes=json.dumps(SIZES), mean=str(mean), std=str(std), accuracy=f'{rounded:.4f}', exact=f'{exact:.4f}')
    save_file({**weights, 'examples': examples, 'labels': labels}, FILE, info)
    print(f'{FILE.name}: {FILE.stat().st_size/1000:.0f} kB, validation accuracy {rounded:.2%}, before rounding {exact:.2%}')

if __name__ == '__main__': main()
