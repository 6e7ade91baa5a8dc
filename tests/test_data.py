"Tests of `fcnet.data`: checks of arguments, files, splits, and what the pictures show."
import gzip
import hashlib
import io
import math
import struct
import tracemalloc
from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fcnet.data import (Data, check_choice, check_count, check_range, check_shape,
                        file_kind, find_idx, get_data, normalize, read_idx,
                        read_idx_head, show_digits, show_weights)

IMAGES = 'train-images-idx3-ubyte'
LABELS = 'train-labels-idx1-ubyte'
MNIST = files('fcnet')/'mnist'


def idx(*shape, fill=0):
    "The bytes of an IDX file whose values are all `fill`."
    head = bytes([0, 0, 8, len(shape)]) + struct.pack(f'>{len(shape)}I', *shape)
    return head + bytes([fill])*math.prod(shape)


def write_pair(folder, images, labels):
    (folder/IMAGES).write_bytes(images)
    (folder/LABELS).write_bytes(labels)


def published(name):
    "The values of one of MNIST's files, read without `read_idx`."
    offset = 16 if 'images' in name else 8
    raw = gzip.decompress((MNIST/f'{name}.gz').read_bytes())
    return np.frombuffer(raw, np.uint8, offset=offset)


@pytest.fixture(scope='module')
def mnist():
    return get_data()


# Checks of arguments

@pytest.mark.parametrize('limits, value', [
    ({'at_least': 0}, 0), ({'at_least': 0}, 3), ({'above': 0}, 1e-300),
    ({'at_most': 1}, 1), ({'below': 1}, 0.999), ({'below': 1}, -5),
    ({'at_least': 0, 'at_most': 1}, 0), ({'at_least': 0, 'at_most': 1}, 1),
    ({'above': 0}, np.float32(0.5)), ({'above': 0}, np.int64(2)), ({}, -1e300)])
def test_check_range_takes_numbers_in_the_range(limits, value):
    assert check_range('here', **limits, x=value) is None


@pytest.mark.parametrize('limits, value, expected', [
    ({'at_least': 0}, -1e-300, 'at least 0'),
    ({'above': 0}, 0, 'above 0'), ({'above': 0.5}, 0.4, 'above 0.5'),
    ({'at_most': 1}, 1.001, 'at most 1'),
    ({'below': 1}, 1, 'below 1'), ({'below': 1}, 2, 'below 1'),
    ({'at_least': 0, 'below': 1}, 1., 'at least 0 and below 1'),
    ({'at_least': 0, 'below': 1}, -1., 'at least 0 and below 1'),
    ({'above': 2, 'at_most': 5}, 2, 'above 2 and at most 5')])
def test_check_range_refuses_numbers_outside(limits, value, expected):
    with pytest.raises(ValueError) as e:
        check_range('SGD', **limits, lr=value)
    assert str(e.value) == f'SGD: lr is {value!r}, expected {expected}'


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, '1', None, [1],
                                   1j, torch.tensor(1.)])
def test_check_range_refuses_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match='here: x is'):
        check_range('here', at_least=-10, x=value)


def test_check_range_checks_every_argument():
    with pytest.raises(ValueError, match="here: third is '3', expected at least 0"):
        check_range('here', at_least=0, first=1, second=2, third='3')


@pytest.mark.parametrize('at_least, value', [(1, 1), (1, 10**9), (0, 0), (-1, -1),
                                             (6, np.int64(6))])
def test_check_count_takes_integers(at_least, value):
    assert check_count('here', at_least=at_least, n=value) is None


@pytest.mark.parametrize('value', [0, -1, 1., 2.5, True, '3', None, math.nan,
                                   torch.tensor(3)])
def test_check_count_refuses_what_is_no_count(value):
    with pytest.raises(ValueError) as e:
        check_count('MLP', good=2, n_hidden=value)
    assert str(e.value) == (f'MLP: n_hidden is {value!r}, '
                            'expected an integer, at least 1')


def test_check_count_has_a_lower_limit():
    with pytest.raises(ValueError, match='n is 5, expected an integer, at least 6'):
        check_count('here', at_least=6, n=5)
    with pytest.raises(ValueError, match='n is False'):
        check_count('here', at_least=0, n=False)


def test_check_choice():
    assert check_choice('here', ['mean', 'sum'], how='sum', again='mean') is None
    assert check_choice('here', {torch.float64: 1}, dtype=torch.float64) is None
    with pytest.raises(ValueError) as e:
        check_choice('here', ['mean', 2], first='mean', how='max')
    assert str(e.value) == "here: how is 'max', expected one of mean, 2"


@pytest.mark.parametrize('shape, tensor', [
    (('n', 784), torch.zeros(3, 784)), (('n', 784), torch.zeros(0, 784)),
    ((3,), np.zeros(3)), (('n',), torch.zeros(7)), ((), torch.tensor(1.)),
    (('n', 'm', 2), torch.zeros(4, 5, 2))])
def test_check_shape_takes_tensors_and_arrays_that_fit(shape, tensor):
    assert check_shape('here', shape, x=tensor) is None


@pytest.mark.parametrize('shape, tensor, expected', [
    (('n', 784), torch.zeros(3, 783), r'\(3, 783\), expected \(n, 784\)'),
    ((3, 784), torch.zeros(4, 784), r'\(4, 784\), expected \(3, 784\)'),
    (('n', 784), torch.zeros(784), r'\(784,\), expected \(n, 784\)'),
    (('n',), torch.zeros(3, 1), r'\(3, 1\), expected \(n,\)'),
    ((5,), np.zeros(4), r'\(4,\), expected \(5,\)'),
    ((5,), np.zeros((5, 1)), r'\(5, 1\), expected \(5,\)'),
    ((2,), torch.tensor(1.), r'\(\), expected \(2,\)'),
    ((), torch.zeros(1), r'\(1,\), expected \(\)')])
def test_check_shape_refuses_other_shapes(shape, tensor, expected):
    with pytest.raises(ValueError, match=f'^here: x has shape {expected}$'):
        check_shape('here', shape, x=tensor)


def test_check_shape_checks_every_tensor():
    with pytest.raises(ValueError, match='here: b has shape'):
        check_shape('here', ('n',), a=torch.zeros(2), b=torch.zeros(2, 2))


# The published files

def test_files_are_the_published_ones():
    lines = (MNIST/'README').read_text().splitlines()
    sums = dict(line.split()[::-1] for line in lines[-4:])
    assert len(sums) == 4
    for name, expected in sums.items():
        content = gzip.decompress((MNIST/f'{name}.gz').read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected


def test_get_data_splits_off_the_last_ten_thousand(mnist):
    images = published(IMAGES).reshape(60000, 784)
    labels = published(LABELS)
    for i, (x, y) in {0: (mnist.x_train[0], mnist.y_train[0]),
                      123: (mnist.x_train[123], mnist.y_train[123]),
                      49999: (mnist.x_train[-1], mnist.y_train[-1]),
                      50000: (mnist.x_valid[0], mnist.y_valid[0]),
                      59999: (mnist.x_valid[-1], mnist.y_valid[-1])}.items():
        assert (x.numpy() == images[i]/256).all()
        assert y == labels[i]
    assert [t.shape for t in mnist] == [(50000, 784), (50000,), (10000, 784), (10000,)]


def test_get_data_gives_floats_below_one_and_integer_labels(mnist):
    assert [t.dtype for t in mnist] == [torch.float32, torch.int64]*2
    assert mnist.x_train.min() == 0 and mnist.x_train.max() == 255/256
    assert f'{mnist.x_train.mean():.4f} {mnist.x_train.std():.4f}' == '0.1304 0.3073'


def test_get_data_gives_the_test_file_on_request():
    data = get_data(test=True)
    assert [len(t) for t in data] == [60000, 60000, 10000, 10000]
    images = published('t10k-images-idx3-ubyte').reshape(10000, 784)
    assert (data.x_valid[[0, -1]].numpy() == images[[0, -1]]/256).all()
    assert (data.y_valid.numpy() == published('t10k-labels-idx1-ubyte')).all()


# Reading one file

def test_read_idx_keeps_the_order_of_the_values(tmp_path):
    values = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for shape in [(60,), (12, 5), (5, 4, 3)]:
        content = idx(*shape)[:4 + 4*len(shape)] + values.tobytes()
        (tmp_path/'raw').write_bytes(content)
        (tmp_path/'packed.gz').write_bytes(gzip.compress(content))
        for name in ['raw', 'packed.gz']:
            read = read_idx(tmp_path/name)
            assert read.dtype == torch.uint8
            assert (read.numpy() == values.reshape(shape)).all()
        assert torch.equal(read_idx(str(tmp_path/'raw')), read)


def test_read_idx_head_leaves_the_file_at_the_values():
    file = io.BytesIO(idx(2, 3, fill=7))
    assert read_idx_head(file, 'some-file') == (2, 3)
    assert file.read() == bytes([7]*6)


def test_read_idx_names_a_missing_file():
    for name in ['x/y', 'x/y.gz']:
        with pytest.raises(FileNotFoundError, match=name):
            read_idx(name)


@pytest.mark.parametrize('content, message', [
    (idx(12, 28, 28)[:-1], 'holds 9407 bytes, the header says 9408'),
    (idx(12, 28, 28) + b'x', 'holds over 9408 bytes, the header says 9408'),
    (idx(2**10, 2**10) + b'x', 'holds over 1048576 bytes'), # a block, then one byte
    (b'', 'starts with nothing, expected an IDX file of bytes, of 1 to 4 axes: 00 00'),
    (idx(12, 28, 28)[:3], 'starts with 00 00 08,'),
    (idx(12, 28, 28)[:9], 'starts with 00 00 08 03,'),
    (b'\x89PNG' + idx(12), 'is a PNG image, expected'),
    (b'\0\0\x0d' + idx(12)[3:], 'is IDX of float32, expected'),
    (b'\1' + idx(12)[1:], 'starts with 01 00 08 01,'),
    (bytes([0, 0, 8, 0]) + bytes(2000), '1 to 4 axes'),
    (bytes([0, 0, 8, 5]) + bytes(2000), '1 to 4 axes'),
    (bytes([0, 0, 8, 255]) + bytes(2000), '1 to 4 axes'),
    (struct.pack('>4B3I', 0, 0, 8, 3, *[2**31]*3),
     'holds 0 bytes, the header says 9903520314283042199192993792')])
def test_read_idx_refuses_a_broken_file(tmp_path, content, message):
    path = tmp_path/'some-file'
    path.write_bytes(content)
    with pytest.raises(ValueError) as e:
        read_idx(path)
    assert str(e.value).startswith(f'{path}: ') and message in str(e.value)


def damage(packed):
    return packed[:10] + b'\xff' + packed[11:]


@pytest.mark.parametrize('content', [gzip.compress(idx(500))[:-9],
                                     damage(gzip.compress(idx(500)))],
                         ids=['cut short', 'damaged'])
def test_read_idx_refuses_a_broken_gzip_file(tmp_path, content):
    path = tmp_path/'some-file.gz'
    path.write_bytes(content)
    with pytest.raises(ValueError) as e:
        read_idx(path)
    assert str(e.value).startswith(f'{path}: not a whole gzip file (')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('name, pack', [('raw.gz', bytes), ('packed', gzip.compress)])
def test_read_idx_goes_by_the_content_not_the_name(tmp_path, name, pack):
    (tmp_path/name).write_bytes(pack(idx(500, fill=3)))
    assert (read_idx(tmp_path/name) == 3).all()


@pytest.mark.parametrize('head, words', [
    (b'\n<!DOCTYPE html><p>', 'is a web page'), (b'BZh91AY', 'is bzip2'),
    (b'<?xml version="1.0"?>\n<svg>', 'is SVG'),
    (b'\0\0\x09\1', 'is IDX of int8'), (b'\0\0\x0b\1', 'is IDX of int16'),
    (b'\0\0\x0c\1', 'is IDX of int32'), (b'\0\0\x0e\1', 'is IDX of float64'),
    (b'\0\0\0\x18ftypheic\0', 'is HEIC, expected JPEG'), (b'%!PS-Adobe', 'is PostScript'),
    (b'', 'starts with nothing'), (b'abc', 'starts with 61 62 63')])
def test_what_a_file_is_in_words(head, words):
    assert file_kind(head).startswith(words)


def test_read_idx_stops_after_the_bytes_that_the_header_announces(tmp_path):
    bomb = tmp_path/'labels.gz'
    with gzip.open(bomb, 'wb', compresslevel=1) as file:
        file.write(idx(12))
        for _ in range(10):
            file.write(bytes(10**7))
    tracemalloc.start()
    with pytest.raises(ValueError, match='holds over 12 bytes'):
        read_idx(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e7


# Reading a folder

def test_get_data_reads_raw_files(tmp_path):
    write_pair(tmp_path, idx(12, 28, 28, fill=128), idx(12, fill=3))
    data = get_data(tmp_path)
    assert [len(t) for t in data] == [10, 10, 2, 2]
    assert (data.x_train == 0.5).all() and (data.y_valid == 3).all()
    assert all(torch.equal(a, b) for a, b in zip(get_data(str(tmp_path)), data))


def test_get_data_refuses_a_packed_and_a_raw_file_that_differ(tmp_path):
    write_pair(tmp_path, idx(12, 28, 28), idx(12))
    packed = tmp_path/f'{LABELS}.gz'
    packed.write_bytes(gzip.compress(idx(12, fill=7)))
    with pytest.raises(ValueError, match=f'{LABELS} and {LABELS}.gz differ, expected'):
        get_data(tmp_path)
    packed.write_bytes(gzip.compress(idx(12)))
    assert (get_data(tmp_path).y_train == 0).all()


@pytest.mark.parametrize('form', [
    '{}.idx3-ubyte', 'emnist-digits-{}-idx3-ubyte.gz', 'raw/{}-idx3-ubyte',
    'MNIST/raw/{}-idx3-ubyte', '{0}-idx3-ubyte/{0}-idx3-ubyte', '{}-idx3-ubyte.idx',
    'TRAIN-IMAGES.IDX3-UBYTE'])
def test_names_that_files_get_elsewhere(tmp_path, form):
    for other in ('notes.txt', 'train-images.png', 'old-train-images-idx3'):
        (tmp_path/other).write_text('something else')
    file = tmp_path/form.format('train-images')
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(idx(12, 28, 28))
    assert find_idx(tmp_path, IMAGES) == file


def test_the_test_part_may_be_called_test_and_the_nearest_file_is_taken(tmp_path):
    (tmp_path/'raw').mkdir()
    (tmp_path/'raw/t10k-labels-idx1-ubyte').write_bytes(idx(12))
    (tmp_path/'qmnist-test-labels-idx1-ubyte').write_bytes(idx(12))
    assert find_idx(tmp_path, 't10k-labels-idx1-ubyte').name.startswith('qmnist')


def test_of_several_data_sets_none_is_taken_by_chance(tmp_path):
    for kind in ('letters', 'digits'):
        (tmp_path/f'emnist-{kind}-{LABELS}').write_bytes(idx(12, fill=len(kind)))
    with pytest.raises(ValueError, match='emnist-digits-.* and emnist-letters-.* differ'):
        find_idx(tmp_path, LABELS)


@pytest.mark.parametrize('names, here', [
    ([], 'nothing'), (['b.txt', 'a.txt'], 'a.txt, b.txt'),
    (list('edcba'), 'a, b, c, d')]) # four are enough
def test_a_missing_file_is_named_with_what_is_there(tmp_path, names, here):
    for name in names: (tmp_path/name).touch()
    with pytest.raises(FileNotFoundError, match=f'holds no {IMAGES}, but {here}$'):
        find_idx(tmp_path, IMAGES)


@pytest.mark.parametrize('n', [6, 7, 11, 12, 13])
def test_get_data_holds_back_a_sixth(tmp_path, n):
    write_pair(tmp_path, idx(n, 28, 28), idx(n))
    data = get_data(tmp_path)
    assert len(data.x_valid) == len(data.y_valid) == n//6
    assert len(data.x_train) == len(data.y_train) == n - n//6


def test_get_data_needs_six_images_to_split(tmp_path):
    write_pair(tmp_path, idx(5, 28, 28), idx(5))
    with pytest.raises(ValueError, match=f'{tmp_path}: n_images is 5, .* at least 6'):
        get_data(tmp_path)


@pytest.mark.parametrize('images, labels, message', [
    (idx(12, 28, 28), idx(11), r'labels has shape \(11,\), expected \(12,\)'),
    (idx(12, 28, 28), idx(13), r'labels has shape \(13,\), expected \(12,\)'),
    (idx(12, 28, 28), idx(12, 1), r'labels has shape \(12, 1\), expected \(12,\)'),
    (idx(12, 14, 56), idx(12), r'\(12, 14, 56\), expected \(n, 28, 28\)'),
    (idx(12, 32, 32), idx(12), r'\(12, 32, 32\), expected \(n, 28, 28\)'),
    (idx(12, 28, 28, 3), idx(12), r'\(12, 28, 28, 3\), expected \(n, 28, 28\)')])
def test_get_data_refuses_files_that_do_not_fit(tmp_path, images, labels, message):
    write_pair(tmp_path, images, labels)
    name = LABELS if 'labels' in message else IMAGES
    with pytest.raises(ValueError, match=f'{tmp_path/name}: .*{message}'):
        get_data(tmp_path)


@pytest.mark.parametrize('shape', [(12, 784), (12, 28, 28, 1)])
def test_get_data_reads_shapes_that_can_only_mean_one_thing(tmp_path, shape):
    write_pair(tmp_path, idx(*shape, fill=128), idx(12))
    assert get_data(tmp_path).x_train.shape == (10, 784)


@pytest.mark.parametrize('missing', [IMAGES, LABELS])
def test_get_data_names_a_missing_file(tmp_path, missing):
    write_pair(tmp_path, idx(12, 28, 28), idx(12))
    (tmp_path/missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        get_data(tmp_path)


def test_get_data_names_a_missing_folder():
    with pytest.raises(FileNotFoundError, match='no/such/folder: there is no such'):
        get_data('no/such/folder')
    with pytest.raises(TypeError):
        get_data(3)


# Data

def parts():
    return torch.randn(3, 2), torch.arange(3), torch.randn(3, 2), torch.arange(3)


def with_value(t, value):
    "A copy of `t` with one entry replaced."
    t = t.clone()
    t[1, 0] = value
    return t


def test_data_unpacks_and_has_names():
    assert Data(1, 2, 3, 4).y_train == 2
    x_train, y_train, x_valid, y_valid = Data(1, 2, 3, 4)
    assert (x_train, y_train, x_valid, y_valid) == (1, 2, 3, 4)


def test_data_moves_to_a_device():
    moved = Data(*parts()).to('meta')
    assert isinstance(moved, Data) and all(t.is_meta for t in moved)


def test_data_to_takes_other_targets_and_lengths():
    x, y, _, _ = parts()
    assert [len(t) for t in Data(x, y, x[:1], y[:1]).to('cpu')] == [3, 3, 1, 1]
    columns = Data(x, y[:,None].float(), x, y[:,None].float()).to('cpu')
    assert columns.y_train.shape == (3, 1)


@pytest.mark.parametrize('name, fault, message', [
    ('x_train', lambda t: t.numpy(), 'x_train is a ndarray, expected a Tensor'),
    ('y_valid', lambda t: [1, 2, 3], 'y_valid is a list, expected a Tensor'),
    ('x_valid', lambda t: t[:0], 'x_valid has no rows'),
    ('y_train', lambda t: torch.tensor(1), 'y_train has no rows'),
    ('x_train', lambda t: with_value(t, math.nan), 'x_train has nan'),
    ('x_valid', lambda t: with_value(t, math.inf), 'x_valid has nan'),
    ('y_train', lambda t: t[:2], r'y_train has shape \(2,\), expected \(3,\)'),
    ('y_valid', lambda t: t[:2], r'y_valid has shape \(2,\), expected \(3,\)'),
    ('x_valid', lambda t: t[:1], r'y_valid has shape \(3,\), expected \(1,\)')])
def test_data_to_names_the_part_that_is_no_good(name, fault, message):
    data = Data(*parts())
    data = data._replace(**{name: fault(getattr(data, name))})
    with pytest.raises(ValueError, match=f'Data: {message}'):
        data.to('cpu')


# Normalizing

def test_normalize_shifts_and_scales_exactly():
    x = torch.randn(5, 3, dtype=torch.float64)*7 + 3
    kept = x.clone()
    by_numpy = (x.numpy() - x.numpy().mean())/x.numpy().std(ddof=1)
    np.testing.assert_allclose(normalize(x, x.mean(), x.std()), by_numpy, rtol=1e-12)
    by_column = normalize(x, x.mean(0), x.std(0))
    assert by_column.mean(0).abs().max() < 1e-14
    assert (by_column.std(0) - 1).abs().max() < 1e-14
    assert torch.equal(x, kept)


@pytest.mark.parametrize('s', [0., -1., math.nan, torch.tensor([1., 0., 2.]),
                               torch.tensor([1., math.nan, 2.])])
def test_normalize_refuses_a_scale_that_is_not_above_zero(s):
    with pytest.raises(ValueError, match=r'normalize: s\[\d\] is .*, expected above 0'):
        normalize(torch.ones(3), 1., s)


# Pictures

def spot():
    "Five images: one white pixel in the first, nothing in the others."
    x = torch.zeros(5, 28, 28)
    x[0, 0, 1] = 200
    return x


def grid():
    "Rows, columns and size in inches of the figure just made."
    spec = plt.gcf().axes[0].get_gridspec()
    return spec.nrows, spec.ncols, plt.gcf().get_size_inches().round(1).tolist()


def test_show_digits_draws_each_digit_in_its_own_range():
    show_digits(spot(), rows=2, cols=3)
    image = plt.gcf().axes[0].images[0]
    assert image.get_array().shape == (28, 28)
    assert image.get_array()[0, 1] == 200 and image.get_clim() == (0, 200)
    assert not any(ax.axison for ax in plt.gcf().axes)
    assert [len(ax.images) for ax in plt.gcf().axes] == [1, 1, 1, 1, 1, 0]
    assert not any(ax.get_title() for ax in plt.gcf().axes)


def test_show_digits_sizes_its_grid():
    show_digits(spot(), rows=2, cols=3)
    assert grid() == (2, 3, [2.7, 1.8])
    show_digits(spot(), range(5))
    assert grid() == (2, 8, [7.2, 2.2])
    show_digits(spot(), rows=1, cols=1)
    assert grid() == (1, 1, [0.9, 0.9])


@pytest.mark.parametrize('y', [[5, 0, 4, 1, 9], torch.tensor([5, 0, 4, 1, 9]), '50419'])
def test_show_digits_writes_titles(y):
    show_digits(spot(), y)
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes[:5]] == ['5', '0', '4', '1', '9']
    assert [ax.get_title('left') for ax in axes[:5]] == ['']*5
    assert axes[0].title.get_fontsize() == 9


def test_show_digits_takes_rows_images_and_followed_tensors():
    for x in [spot().flatten(1), spot(), spot().requires_grad_()]:
        show_digits(x)
        assert plt.gcf().axes[0].images[0].get_array()[0, 1] == 200
    show_digits(spot()[:0])
    assert not plt.gcf().axes[0].images


@pytest.mark.parametrize('shape', [(2, 783), (784,), (2, 28, 29)])
def test_show_digits_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match='show_digits: x has shape .*784'):
        show_digits(torch.zeros(shape))


@pytest.mark.parametrize('y', [[1, 2], [1, 2, 3, 4]])
def test_show_digits_refuses_titles_that_do_not_fit(y):
    with pytest.raises(ValueError, match=rf'\(3, 784\), expected \({len(y)}, 784\)'):
        show_digits(torch.zeros(3, 784), y)


def test_show_weights_draws_zero_in_the_middle_of_the_colors():
    x = spot()[0]
    show_weights(torch.stack([x, -x - 100, 0*x]), 'abc', 1, 3)
    images = [image for ax in plt.gcf().axes for image in ax.images]
    assert [i.get_clim() for i in images] == [(-200, 200), (-300, 300), (0, 0)]
    above, below = images[0].to_rgba([150., -150.])
    assert above[0] > above[2] and below[0] < below[2] # red, blue
    assert [ax.get_title() for ax in plt.gcf().axes] == [*'abc']
    assert grid()[:2] == (1, 3)


def test_show_weights_has_the_grid_of_show_digits():
    show_weights(spot())
    assert grid()[:2] == (2, 8)
