"Tests of fcnet.streaming: files that are looked up row by row, and orders by blocks."
from copy import deepcopy

import numpy as np
import pytest
import torch

from fcnet.classify import CrossEntropy
from fcnet.data import Data, normalize, read_idx
from fcnet.diagnose import lr_find
from fcnet.layers import Linear, ReLU, Sequential
from fcnet.learner import Callback, Learner, Schedule
from fcnet.optim import SGD
from fcnet.streaming import Blocks, FromFile, block_order, map_idx

MEAN = 0.13
STD = 0.31

def idx_bytes(images):
    "The bytes of an IDX file."
    head = b'\0\0\x08' + bytes([images.ndim]) + np.array(images.shape, '>u4').tobytes()
    return head + images.tobytes()

@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)

@pytest.fixture
def path(tmp_path, images):
    path = tmp_path/'digits'
    path.write_bytes(idx_bytes(images))
    return path

def learner(inputs, first=(), callbacks=(), seed=0, bs=64):
    "A small network on 700 rows: 600 to learn from."
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (700,), generator=g)
    model = Sequential([*first, Linear(784, 20, generator=g), ReLU(),
                        Linear(20, 10, generator=g)])
    data = Data(inputs[:600], y[:600], inputs[600:], y[600:])
    return Learner(model, data, SGD(model.parameters(), 0.05, 0.9), CrossEntropy(),
                   bs=bs, callbacks=[Schedule(), *callbacks], generator=g)

def file_learner(path, **kwargs):
    return learner(torch.arange(700), [FromFile(map_idx(path), MEAN, STD)], **kwargs)

def assert_same(one, other):
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.history == other.history

# ---- map_idx ----

def test_map_idx_holds_what_read_idx_reads(path, images):
    mapped = map_idx(path)
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == (700, 784)
    assert mapped.dtype == np.uint8
    assert np.array_equal(mapped, images.reshape(700, 784))
    assert np.array_equal(mapped, read_idx(path).reshape(700, 784).numpy())

def test_map_idx_gives_rows_of_any_shape(tmp_path):
    for shape in ((6,), (3, 2), (1, 2, 3)):
        values = np.arange(6, dtype=np.uint8).reshape(shape)
        (tmp_path/'x').write_bytes(idx_bytes(values))
        mapped = map_idx(str(tmp_path/'x'))
        assert mapped.shape == (shape[0], 6//shape[0])
        assert mapped.reshape(-1).tolist() == list(range(6))

def test_map_idx_does_not_write(path):
    with pytest.raises(ValueError, match='read-only'): map_idx(path)[0, 0] = 1

@pytest.mark.parametrize('damage, words', [
    (lambda whole: whole[:-1], 'holds 548799 bytes, the header says 548800'),
    (lambda whole: whole + b'x', 'holds 548801 bytes, the header says 548800'),
    (lambda whole: b'\x1f\x8b' + whole, 'is gzip, expected an IDX file'),
    (lambda whole: whole[:10], 'starts with 00 00 08 03, .* an IDX file'),
    (lambda whole: b'', 'starts with nothing'),
    (lambda whole: idx_bytes(np.zeros((0, 28, 28), np.uint8)), 'holds 0 bytes')])
def test_map_idx_refuses_what_is_not_a_whole_idx_file(path, damage, words):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f'{path}: {words}'): map_idx(path)

def test_map_idx_needs_a_file(tmp_path):
    with pytest.raises(FileNotFoundError): map_idx(tmp_path/'none')

# ---- FromFile ----

def test_from_file_looks_rows_up(path, images):
    rows = torch.tensor([5, 3, 5, 699])
    out = FromFile(map_idx(path), MEAN, STD)(rows)
    pixels = torch.from_numpy(images.reshape(700, 784))[rows].float()/256
    assert out.dtype == torch.float32
    assert torch.equal(out, normalize(pixels, MEAN, STD))

def test_training_from_a_file_and_from_memory_is_the_same(path, images):
    pixels = torch.from_numpy(images.reshape(700, 784)).float()/256
    from_memory = learner(normalize(pixels, MEAN, STD))
    from_file = file_learner(path)
    for learn in (from_memory, from_file): learn.fit(2)
    assert_same(from_file, from_memory)

def test_row_numbers_have_no_gradient(path):
    layer = FromFile(map_idx(path), MEAN, STD)
    out = layer(torch.tensor([1, 2]))
    assert layer.backward(torch.ones_like(out)) is None
    assert layer.parameters() == []

def test_a_copy_shares_the_file(path):
    mapped = map_idx(path)
    copy = deepcopy(Sequential([FromFile(mapped, MEAN, STD)])).layers[0]
    assert copy.x is mapped
    assert (copy.mean, copy.std) == (MEAN, STD)

def test_the_search_for_a_rate_works_from_a_file(path):
    learn = file_learner(path)
    before = [p.clone() for p in learn.model.parameters()]
    assert lr_find(learn, n_steps=20) > 0
    for p, old in zip(learn.model.parameters(), before): assert torch.equal(p, old)

def test_the_sample_is_every_thousandth_row(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2001, 3), np.uint8)
    (tmp_path/'x').write_bytes(idx_bytes(images))
    layer = FromFile(map_idx(tmp_path/'x'), MEAN, STD)
    expected = (images[[0, 1000, 2000]]/256 - MEAN)/STD
    torch.testing.assert_close(layer.sample().double(), torch.tensor(expected),
                               rtol=1e-5, atol=1e-6)
    assert layer.stack == []

# ---- block_order ----

@pytest.mark.parametrize('n, block, mix, parts', [
    (1000, 64, 3, 1), (1001, 64, 3, 4), (10, 1, 1, 3), (12, 100, 1, 1), (0, 5, 2, 1)])
def test_an_order_has_each_row_once_and_parts_take_turns(n, block, mix, parts):
    order = block_order(n, block, mix, parts)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(n))
    for r, part in enumerate(torch.arange(n).tensor_split(parts)):
        assert torch.equal(order[r::parts].sort().values, part) # what rank r reads

@pytest.mark.parametrize('mix', [1, 4])
def test_no_more_blocks_are_in_use_than_are_mixed(mix):
    order = block_order(1024, 64, mix).view(-1, mix*64)
    for window in order: assert len((window//64).unique()) == mix

def test_blocks_and_rows_within_them_are_shuffled():
    order = block_order(1024, 64, 1).view(-1, 64)
    blocks = order[:,0]//64
    assert not torch.equal(blocks, blocks.sort().values)
    for window in order: assert not torch.equal(window, window.sort().values)

def test_the_order_comes_from_the_generator():
    def order(seed):
        return block_order(100, 5, 2, 2, torch.Generator().manual_seed(seed))
    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    torch.manual_seed(3)
    first = block_order(100, 5)
    torch.manual_seed(3)
    assert torch.equal(first, block_order(100, 5))
    before = torch.get_rng_state()
    order(1)
    assert torch.equal(torch.get_rng_state(), before)

@pytest.mark.parametrize('block, least, most', [(16, 9, 10), (4096, 1, 2)])
def test_batches_of_a_sorted_file(block, least, most):
    "Classes in a batch: with many small blocks nearly all, with a large one about one."
    classes = torch.arange(10).repeat_interleave(4096)
    order = block_order(len(classes), block, 4096//block)
    batches = classes[order].split(64)
    mean = sum(len(batch.unique()) for batch in batches)/len(batches)
    assert least <= mean < most

@pytest.mark.parametrize('name', ['block', 'mix', 'parts'])
@pytest.mark.parametrize('make', [lambda **n: block_order(10, **n), Blocks])
def test_numbers_below_1_are_refused(make, name):
    numbers = {'block': 2} | {name: 0}
    expected = f'{name} is 0, expected an integer, at least 1'
    with pytest.raises(ValueError, match=expected): make(**numbers)

# ---- Blocks ----

class Orders(Callback):
    "Keep the order of each epoch; stop once after a step."
    def __init__(self, stop_at=None):
        self.orders = []
        self.stop_at = stop_at
    def before_batch(self, learn):
        if learn.batch == 0: self.orders.append(learn.order.clone())
    def after_batch(self, learn):
        learn.stopped = learn.step == self.stop_at

def test_blocks_orders_every_epoch_from_the_learners_generator(path):
    noted = Orders()
    learn = file_learner(path, callbacks=[Blocks(50, 3, 2), noted])
    twin = deepcopy(learn.generator)
    learn.fit(2)
    for order in noted.orders:
        torch.randperm(600, generator=twin) # the learner's own, which is replaced
        assert torch.equal(order, block_order(600, 50, 3, 2, twin))

@pytest.mark.parametrize('stop_at', [4, 10]) # in the middle of an epoch, and at its end
def test_a_stopped_run_resumes_bit_for_bit(path, tmp_path, stop_at):
    straight = file_learner(path, callbacks=[Blocks(50, 3), Orders()])
    straight.fit(2)
    stopped = file_learner(path, callbacks=[Blocks(50, 3), Orders(stop_at)])
    stopped.fit(2)
    assert stopped.step == stop_at
    stopped.save(tmp_path/'run.safetensors')
    resumed = file_learner(path, callbacks=[Blocks(50, 3), Orders()], seed=1)
    resumed.data.y_train.copy_(straight.data.y_train)
    resumed.data.y_valid.copy_(straight.data.y_valid)
    resumed.load(tmp_path/'run.safetensors')
    resumed.fit()
    assert_same(resumed, straight)

def test_parts_must_divide_the_batch_size(path):
    learn = file_learner(path, callbacks=[Blocks(10, 1, 3)])
    expected = 'Blocks: parts is 3, expected a divisor of the batch size, 64'
    with pytest.raises(ValueError, match=expected): learn.fit(1)
    file_learner(path, callbacks=[Blocks(10, 1, 3)], bs=63).fit(1)
