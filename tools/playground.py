"Train the network of the playground page and write it, rounded to 16-bit floats, with examples: one of each digit, and five that it misreads."
import json
from pathlib import Path

import torch
from fcnet.classify import accuracy
from fcnet.data import Data, get_data, normalize
from fcnet.deep import build_model
from fcnet.learner import Learner, Schedule
from fcnet.optim import AdamW
from fcnet.regularize import Distort
from safetensors.torch import save_file

SIZES = [784, 64, 32, 10]
FILE = Path(__file__).resolve().parent.parent/'nbs'/'playground'/'network.safetensors'

def train(epochs=8):
    "The trained model, its data and the mean and standard deviation of the pixels."
    x, y, x_valid, y_valid = get_data()
    mean, std = x.mean(), x.std()
    data = Data(normalize(x, mean, std), y, normalize(x_valid, mean, std), y_valid)
    g = torch.Generator().manual_seed(0)
    model = build_model(SIZES, generator=g)
    opt = AdamW(model.parameters(), lr=0.004)
    Learner(model, data, opt, generator=g, callbacks=[Schedule(), Distort(g)]).fit(epochs)
    return model, data, mean.item(), std.item()

def main():
    model, data, mean, std = train()
    exact = accuracy(model.predict(data.x_valid), data.y_valid)
    for p in model.parameters(): p.copy_(p.half())
    rounded = accuracy(model.predict(data.x_valid), data.y_valid)
    assert abs(exact - rounded) < 0.001, f'rounding changes the accuracy from {exact} to {rounded}'
    first = [(data.y_valid == digit).nonzero()[0].item() for digit in range(10)]
    misread = (model.predict(data.x_valid).argmax(1) != data.y_valid).nonzero()[:5, 0].tolist()
    examples = (get_data().x_valid[first + misread]*256).round().byte()
    labels = data.y_valid[first + misread].byte()
    weights = {name: p.half().contiguous() for name, p in model.state_dict().items()}
    info = dict(sizes=json.dumps(SIZES), mean=str(mean), std=str(std), accuracy=f'{rounded:.4f}', exact=f'{exact:.4f}')
    FILE.parent.mkdir(exist_ok=True)
    save_file({**weights, 'examples': examples, 'labels': labels}, FILE, info)
    print(f'{FILE.name}: {FILE.stat().st_size/1000:.0f} kB, validation accuracy {rounded:.2%}, before rounding {exact:.2%}')

if __name__ == '__main__': main()
