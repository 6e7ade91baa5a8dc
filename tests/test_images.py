"From a picture to MNIST's form: each step on small pages, and files of every kind."
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from scipy import ndimage

from fcnet import images
from fcnet.data import get_data
from fcnet.images import (NOT_SURE, background, block_means, center, crop, darken_ink,
                          digit_from_image, digit_from_ink, find_ink, fit_pen,
                          keep_digit, open_as_is, open_gray, pen_width, read_digit,
                          resize, select_parts)

# ---- crop, resize, center ----

@pytest.fixture
def bar():
    "Half-black, 60 x 3 pixels, with white on both sides."
    ink = np.zeros((60, 9), dtype=np.float32)
    ink[:,3:6] = 0.5
    return ink

def test_crop_cuts_to_the_ink(bar):
    assert crop(bar).shape == (60, 3)
    assert crop(bar.T).shape == (3, 60)
    assert crop(bar.astype(float)).dtype == np.float32

def test_crop_leaves_out_less_than_a_quarter_of_ink(bar):
    bar[:,2] = 0.25
    assert crop(bar).shape == (60, 3)
    bar[:,2] = 0.26
    assert crop(bar).shape == (60, 4)

def test_crop_takes_separate_parts_as_one():
    ink = np.zeros((9, 9))
    ink[1, 1] = 1
    ink[6, 7] = 1
    assert crop(ink).shape == (6, 7)

@pytest.mark.parametrize('shape, expected', [
    ((60, 3), (20, 1)), ((3, 60), (1, 20)), ((40, 30), (20, 15)), ((5, 10), (10, 20)),
    ((20, 20), (20, 20)), ((100, 1), (20, 1)), ((1, 100), (1, 20))])
def test_resize_brings_the_longer_side_to_20(shape, expected):
    small = resize(np.full(shape, 0.5, np.float32))
    assert small.shape == expected
    assert small.max() == 1

def test_resize_to_another_length():
    assert resize(np.ones((40, 30), np.float32), 14).shape == (14, 10) # 10.5, to even

def test_resize_averages_blocks_when_it_shrinks():
    ink = np.zeros((40, 40), np.float32)
    ink[:,::2] = 1
    np.testing.assert_allclose(resize(ink), np.ones((20, 20)), atol=0.01)

def test_resize_interpolates_when_it_enlarges():
    ink = np.array([[0, 1], [0, 1]], np.float32)
    values = np.unique(resize(ink)[10].round(3))
    assert len(values) > 4 # a ramp, not a step
    assert (np.diff(resize(ink)[10]) >= 0).all()

def test_center_puts_the_center_of_mass_in_the_middle():
    box = np.zeros((15, 10), np.float32)
    box[:10] = 1 # center of mass at row 4.5 and column 4.5
    square = center(box)
    assert square.shape == (28, 28)
    assert square.dtype == np.float32
    rows = np.flatnonzero(square.any(1))
    cols = np.flatnonzero(square.any(0))
    assert [rows[0], rows[-1]] == [10, 19] # 14 - 4.5 = 9.5, to even
    assert [cols[0], cols[-1]] == [10, 19]
    assert square.sum() == box.sum()

@pytest.mark.parametrize('edge, start', [(0, 8), (-1, 0)])
def test_center_keeps_the_digit_inside(edge, start):
    box = np.full((20, 20), 0.001, np.float32)
    box[edge, edge] = 100 # nearly all of the mass is in a corner
    square = center(box)
    rows = np.flatnonzero(square.any(1))
    cols = np.flatnonzero(square.any(0))
    assert [rows[0], rows[-1]] == [start, start+19]
    assert [cols[0], cols[-1]] == [start, start+19]

def test_center_in_another_size():
    square = center(np.ones((3, 3), np.float32), size=10)
    assert square.shape == (10, 10)
    assert square[4:7, 4:7].all() # 10/2 - 1 = 4

def test_form_of_mnist(bar):
    square = center(resize(bar))
    rows = np.flatnonzero(square.any(1))
    assert square.shape == (28, 28)
    assert square.max() == 1
    assert [rows[0], rows[-1]] == [4, 23]

# ---- blocks and background ----

@pytest.mark.parametrize('shape, longest, expected', [
    ((100, 30), 100, (100, 30)), ((101, 30), 100, (51, 15)), ((30, 250), 100, (10, 84)),
    ((10, 10), 100, (10, 10))])
def test_block_means_brings_the_longer_side_down(shape, longest, expected):
    assert block_means(np.zeros(shape), longest).shape == expected

def test_block_means_with_a_shorter_last_block():
    line = np.array([[8., 8, 1, 2, 6, 7, 6, 6, 6]]) # blocks of 5 and 4
    np.testing.assert_array_equal(block_means(line, 2), [[5, 6.25]])
    np.testing.assert_array_equal(block_means(line.T, 2).T, [[5, 6.25]])
    np.testing.assert_array_equal(block_means(line, 9), line)
    assert block_means(line > 5, 3).dtype == np.float32

@pytest.mark.parametrize('size', [30, 300]) # on the page itself, on a smaller copy
def test_background_passes_over_strokes_and_keeps_a_shadow(size):
    step = size//30
    page = np.ones((size, size))
    page[8*step:22*step, 12*step:15*step] = 0
    page[:,20*step:] *= 0.5
    found = background(page)
    assert found.shape == page.shape
    middle = 10*step + step//2
    at = [found[middle, int((c+0.5)*step)] for c in (2, 13, 28)]
    np.testing.assert_allclose(at, [1, 1, 0.5], atol=1e-6)

def test_background_of_a_wide_page():
    assert background(np.ones((20, 250))).shape == (20, 250)

def test_darken_ink_scales_to_1(page):
    np.testing.assert_array_equal(darken_ink(page), page/200)

def test_darken_ink_moves_negative_values_up(page):
    np.testing.assert_array_equal(darken_ink(page - 300), (page - 40)/160)

def test_darken_ink_inverts_light_ink(page):
    np.testing.assert_allclose(darken_ink(240 - page), (page - 40)/200, atol=1e-12)

def test_darken_ink_of_a_half_shadowed_page():
    page = np.full((30, 30), 200.)
    page[8:22, 12:15] = 0
    page[8:22, 24:26] = 0
    page[:,20:] *= 0.5
    np.testing.assert_array_equal(darken_ink(page), page/200)
    np.testing.assert_array_equal(darken_ink(200 - page), page/200)

def test_darken_ink_of_black(): assert not darken_ink(np.zeros((9, 9))).any()

@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('shape', [(3, 2), (1, 2), (5, 5), (2, 1)])
def test_darken_ink_of_a_few_pixels(shape):
    gray = torch.rand(shape).double().numpy()
    found = darken_ink(gray)
    assert found.shape == shape and found.min() >= 0 and found.max() <= 1

def test_darken_ink_leaves_its_argument():
    page = np.full((9, 9), 200.)
    darken_ink(page)
    assert (page == 200).all()

# ---- ink ----

@pytest.fixture
def page():
    "Gray paper with a dark bar."
    gray = np.full((300, 300), 200.)
    gray[100:200, 140:155] = 40
    return gray

def test_find_ink_in_shadow_and_light():
    gray = np.full((30, 30), 200.)
    gray[8:22, 12:15] = 0
    gray[8:22, 24:26] = 0
    gray[:,20:] *= 0.5
    ink = find_ink(gray)
    expected = np.zeros((30, 30))
    expected[8:22, 12:15] = 1
    expected[8:22, 24:26] = 1
    np.testing.assert_allclose(ink, expected, atol=0.005)
    np.testing.assert_array_equal(find_ink(200 - gray), ink)

@pytest.mark.parametrize('value, found', [(197, False), (194, True)])
def test_find_ink_needs_two_percent_of_contrast(page, value, found):
    ink = find_ink(np.where(page < 200, value, page)) # 1.5 % and 3 %
    assert (ink is not None) == found
    if found: assert ink.max() == 1

def test_find_ink_on_an_empty_page():
    assert find_ink(np.full((6, 5), 200.)) is None
    assert find_ink(np.zeros((6, 5))) is None

def test_noise_alone_is_ink_once_in_700_pixels(page):
    noise = np.random.default_rng(0).normal(0, 5, page.shape)
    noisy = find_ink(page + noise)
    assert 1/1400 < (noisy[page == 200] > 0).mean() < 1/350
    assert (noisy > 0.25).sum() == (page < 200).sum()
    assert noisy.min() == 0

def test_a_nearly_black_area_is_no_ink(page):
    page[:,180:] = 0
    ink = find_ink(page)
    assert ink[150, 147] > 0.5
    assert ink[:,200:].max() == 0

# ---- the digit alone ----

@pytest.mark.parametrize('length, framed', [(10, False), (11, True)])
@pytest.mark.parametrize('turned', [False, True])
def test_a_frame_has_a_tenth_of_its_size_inside(length, framed, turned):
    mask = np.zeros((114, 54), bool)
    mask[2:112, 2:52] = True
    mask[3:111, 3:51] = False
    mask[7:7+length, 7:10] = True
    if turned: mask = mask.T
    kept = select_parts(mask)
    assert kept[2, 2] != framed and kept[8, 8] == framed

def test_select_parts_leaves_out_a_frame_and_specks():
    mask = np.zeros((40, 40), bool)
    mask[1, 1:39] = mask[38, 1:39] = True # a frame, inset
    mask[1:39, 1] = mask[1:39, 38] = True
    mask[10:30, 15:17] = True             # the digit
    mask[12:17, 25] = True                # a quarter as long: a part of it
    mask[22:26, 25] = True                # less than a quarter: a speck
    kept = select_parts(mask)
    expected = np.zeros_like(mask)
    expected[9:31, 14:18] = True # with the pixels next to them
    expected[11:18, 24:27] = True
    np.testing.assert_array_equal(kept, expected)

def test_select_parts_connects_by_corners():
    mask = np.zeros((20, 20), bool)
    for i in range(5, 15): mask[i, i] = True
    assert select_parts(mask)[np.arange(5, 15), np.arange(5, 15)].all()

@pytest.fixture
def strokes():
    "A stroke with a blurred rim and a pixel that is blacker than the rest."
    ink = np.zeros((60, 60))
    ink[17:43, 27:36] = 0.1
    ink[18:42, 28:35] = 0.3
    ink[20:40, 30:33] = 0.8
    ink[30, 31] = 1
    return ink

def test_keep_digit_keeps_the_rim_and_scales_to_the_median(strokes):
    np.testing.assert_array_equal(keep_digit(strokes), np.minimum(strokes/0.8, 1))

@pytest.mark.parametrize('edge', [np.s_[0, 20:50], np.s_[-1, 20:50],
                                  np.s_[20:50, 0], np.s_[20:50, -1]])
def test_keep_digit_leaves_out_what_touches_the_edge(strokes, edge):
    lined = strokes.copy()
    lined[edge] = 1 # the end of the table
    np.testing.assert_array_equal(keep_digit(lined), np.minimum(strokes/0.8, 1))

def test_keep_digit_leaves_out_two_frames_and_a_speck():
    ink = np.zeros((60, 60))
    ink[20:40, 30:33] = 0.8
    ink[20:23, 36:42] = 0.8
    ink[20:40, 33] = 0.1 # the blur at the rim
    expected = ink/0.8
    framed = ink.copy()
    for inset in (0, 4):
        last = 59 - inset
        framed[inset, inset:last+1] = framed[last, inset:last+1] = 1
        framed[inset:last+1, inset] = framed[inset:last+1, last] = 1
    framed[50:52, 10:12] = 1
    np.testing.assert_array_equal(keep_digit(framed), expected)
    rng = np.random.default_rng(0)
    noisy = keep_digit(framed*(1 + 0.1*rng.normal(size=framed.shape)))
    assert noisy[expected == 1].min() > 0.5
    assert np.median(noisy[expected == 1]) > 0.95

def test_keep_digit_of_a_digit_that_fills_the_picture():
    zero = np.ones((30, 20))
    zero[5:-5, 5:-5] = 0
    zero[14, 10] = 1 # and a speck in it, too small to make it a frame
    kept = keep_digit(zero)
    assert kept[0, 0] == 1
    assert kept[5, 0] == 1

def test_keep_digit_joins_what_is_less_than_a_block_apart():
    ink = np.zeros((128, 128))
    ink[20:101, 60:64] = 1
    ink[102:104, 60:64] = 1
    np.testing.assert_array_equal(keep_digit(ink), ink)

def test_keep_digit_of_sides_that_blocks_do_not_divide():
    ink = np.zeros((131, 77))
    ink[30:90, 40:44] = 1
    np.testing.assert_array_equal(keep_digit(ink), ink)

# ---- the pen ----

def test_pen_width_of_a_bar():
    assert 7 < pen_width(np.ones((100, 8))) < 8 # its two ends count as well

@pytest.mark.parametrize('pen', [2, 10, 30])
def test_fit_pen_brings_it_to_a_tenth(pen):
    ring = np.ones((120, 120), np.float32)
    ring[pen:-pen, pen:-pen] = 0
    fitted = crop(fit_pen(ring))
    assert 0.09 < pen_width(fitted)/len(fitted) < 0.11

def test_fit_pen_to_another_share():
    ring = np.ones((120, 120), np.float32)
    ring[10:-10, 10:-10] = 0
    fitted = crop(fit_pen(ring, share=0.2))
    assert 0.18 < pen_width(fitted)/len(fitted) < 0.22

def test_fit_pen_leaves_a_pen_that_is_nearly_right():
    ring = np.ones((120, 120), np.float32)
    ring[12:-12, 12:-12] = 0
    np.testing.assert_array_equal(fit_pen(ring), ring)

@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (3, 3), (5, 4), (40, 3)])
def test_fit_pen_leaves_something_of_a_dot(shape):
    assert fit_pen(np.ones(shape, np.float32)).max() == 1

def test_fit_pen_leaves_a_dark_area_with_holes():
    for value in (0, 0.25): # thinned, nothing that counts as ink would be left
        holes = np.ones((60, 60))
        holes[::12, ::12] = value
        np.testing.assert_array_equal(fit_pen(holes), holes)

def test_digit_from_ink_of_a_thick_and_a_thin_bar():
    for width in (3, 40):
        ink = np.zeros((200, 200))
        ink[20:180, 90:90+width] = 1
        square = digit_from_ink(ink)
        assert square.shape == (28, 28)
        rows = np.flatnonzero(square.max(1) > 0.5)
        assert rows[-1] - rows[0] + 1 == 20
        assert 1 <= (square[14] > 0.5).sum() <= 3

# ---- files ----

def picture(digit):
    "A digit of MNIST, drawn large and dark on light paper."
    pixels = (digit.reshape(28, 28).numpy()*256).astype(np.uint8)
    stroke = Image.fromarray(pixels).resize((200, 200))
    canvas = Image.new('L', (320, 280), 240)
    canvas.paste(Image.new('L', (200, 200), 20), (30, 60), stroke)
    return canvas

@pytest.fixture(scope='module')
def originals():
    "Validation digits, with their pixels as they are."
    return get_data().x_valid[:20]

@pytest.fixture
def original(originals): return originals[0]

@pytest.fixture
def image(original): return picture(original)

@pytest.fixture
def base(image, in_tmp):
    image.save('base.png')
    return digit_from_image('base.png')

def on_nothing(image, gray):
    "The same ink in one gray, with the paper transparent."
    drawn = Image.new('RGBA', image.size, (gray, gray, gray, 0))
    drawn.putalpha(ImageOps.invert(image).point(lambda v: max(0, v-20)))
    return drawn

def mean_difference(made, file, base, **options):
    made.save(file, **options)
    return (digit_from_image(file) - base).abs().mean().item()

def test_digit_from_image_is_like_the_original(base, original):
    assert base.shape == (784,)
    assert base.dtype == torch.float32
    assert base.min() == 0
    assert base.max() == 255/256
    assert (base - original).abs().mean() < 0.06

def test_digits_read_from_pictures_are_like_the_originals(originals, in_tmp):
    made = []
    for x in originals:
        picture(x).save('digit.png')
        made.append(digit_from_image('digit.png'))
    assert (torch.stack(made) - originals).abs().mean() < 0.06

@pytest.mark.parametrize('file, options', [
    ('a.jpg', dict(quality=80)), ('a.webp', {}), ('a.bmp', {}), ('a.tif', {})])
def test_other_formats(image, base, file, options):
    assert mean_difference(image, file, base, **options) < 0.06

@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'LA', 'CMYK', 'F', 'I'])
def test_other_modes(image, base, mode):
    file = 'a.tif' if mode in ('CMYK', 'F', 'I') else 'a.png'
    assert mean_difference(image.convert(mode), file, base) < 0.06

def test_gif(image, base):
    assert mean_difference(image.convert('P'), 'a.gif', base) < 0.06

@pytest.mark.parametrize('size', [(1600, 1400), (64, 56)])
def test_other_sizes(image, base, size):
    assert mean_difference(image.resize(size), 'a.png', base) < 0.06

def test_light_on_dark(image, base):
    assert mean_difference(ImageOps.invert(image), 'a.png', base) < 0.06

def test_16_bits(image, base):
    deep = Image.fromarray(np.asarray(image, dtype=np.uint16)*200)
    assert mean_difference(deep, 'a.png', base) < 0.06

def test_black_and_white_only(image, base):
    bits = image.point(lambda v: 255 if v > 128 else 0).convert('1')
    assert mean_difference(bits, 'a.png', base) < 0.1

def test_turned_as_the_camera_says(image, base):
    how = Image.Exif()
    how[0x0112] = 6
    turned = image.rotate(90, expand=True)
    assert mean_difference(turned, 'a.jpg', base, exif=how, quality=95) < 0.06

@pytest.mark.parametrize('gray, tol', [(0, 0.06), (255, 0.06), (180, 0.1)])
def test_ink_on_nothing(image, base, gray, tol):
    assert mean_difference(on_nothing(image, gray), 'a.png', base) < tol

@pytest.mark.parametrize('gray, paper', [(127, 255), (128, 0)])
def test_paper_is_black_under_light_ink(image, in_tmp, gray, paper):
    on_nothing(image, gray).save('a.png')
    assert open_gray('a.png')[0, 0] == paper

@pytest.mark.parametrize('mode', ['LA', 'PA'])
def test_transparency_in_other_modes(image, base, mode):
    if mode == 'PA' and int(PIL.__version__.split('.')[0]) < 12:
        pytest.skip('this Pillow loses the transparency when it writes')
    made = on_nothing(image, 0).convert(mode)
    assert mean_difference(made, 'a.tif', base) < 0.06

def test_page_with_nothing_around(image, base):
    edge = Image.new('RGBA', (400, 400), (0, 0, 0, 0))
    edge.paste(image, (40, 60))
    assert mean_difference(edge, 'a.png', base) < 0.06

def test_open_gray_brings_a_large_picture_down(image, base):
    assert mean_difference(image.resize((6400, 5600)), 'large.bmp', base) < 0.06
    gray = open_gray('large.bmp')
    assert gray.shape == (350, 400)
    assert gray.dtype == np.float32
    assert open_gray('large.bmp', longest=100).shape == (88, 100)

def test_open_gray_of_a_path_object(image, in_tmp):
    image.save('small.png')
    np.testing.assert_array_equal(open_gray(Path('small.png')), np.asarray(image))

def png16(path, values, transparent=None):
    "A PNG of 16 bits, one value of which may be transparent."
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)
    height, width = values.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    clear = b'' if transparent is None else chunk(b'tRNS', struct.pack('>H', transparent))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, 0, 0, 0, 0))
    content = head + clear + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    Path(path).write_bytes(b'\x89PNG\r\n\x1a\n' + content)

@pytest.mark.parametrize('transparent', [None, 1, 240*257])
def test_16_bits_of_which_one_value_is_transparent(image, base, transparent):
    png16('deep.png', np.asarray(image).astype(np.uint16)*257, transparent)
    assert (digit_from_image('deep.png') - base).abs().mean() < 0.06

def test_lab(image, base):
    flat = Image.new('L', image.size, 128)
    assert mean_difference(Image.merge('LAB', [image, flat, flat]), 'a.tif', base) < 0.06

@pytest.mark.parametrize('pen, paper', [('#e00000', '#007200'), ('#b400b4', '#006b00'),
                                        ('#00b0b0', '#e07800'), ('#ffee00', '#e3e3e3')])
@pytest.mark.parametrize('file', ['a.png', 'a.jpg'])
def test_colors_that_are_equally_bright(image, base, pen, paper, file):
    drawn = Image.new('RGB', image.size, paper)
    mask = image.point(lambda v: 255*(v < 130))
    drawn.paste(Image.new('RGB', image.size, pen), (0, 0), mask)
    assert mean_difference(drawn, file, base) < 0.08

@pytest.mark.parametrize('file', ['a.gif', 'a.webp', 'a.png', 'a.tif'])
def test_frames_after_an_empty_one(image, base, file):
    empty = Image.new('L', image.size, 240)
    half = image.copy() # drawn in part
    half.paste(240, (0, 160, 320, 280))
    later = [image.copy(), half] if file == 'a.tif' else [half, image]
    number = 2 if file == 'a.tif' else 3 # the first page; the end of an animation
    with pytest.warns(UserWarning, match=f'{file}: picture {number} of 3 is read'):
        difference = mean_difference(empty, file, base, save_all=True,
                                     append_images=later)
    assert difference < 0.06

def test_as_is_nothing_is_changed(in_tmp, original):
    pixels = (original.view(28, 28)*256).byte().numpy().T
    turn = Image.Exif()
    turn[0x0112] = 6
    for mode in ('L', 'RGB'):
        Image.fromarray(pixels).convert(mode).save('a.png', exif=turn)
        assert torch.equal(open_as_is('a.png'), original.view(28, 28).T.reshape(784))
    Image.fromarray(pixels[:27]).save('a.png')
    with pytest.raises(ValueError, match=r'a.png: pixels has shape \(27, 28\)'):
        open_as_is('a.png')

# ---- what is drawn to the edge

def bold(digit): return ndimage.grey_dilation(digit, (3, 3))
def plain(digit): return digit

@pytest.mark.parametrize('change, enough', [(plain, 0.95), (bold, 0.8)])
@pytest.mark.parametrize('scale', [1, 12])
@pytest.mark.parametrize('sign', [1, -1])
def test_a_margin_changes_nothing(originals, change, enough, scale, sign):
    same = []
    for x in originals:
        pixels = change((x.view(28, 28)*255).numpy())
        rows = np.flatnonzero(pixels.any(1))
        cols = np.flatnonzero(pixels.any(0))
        cut = pixels[rows[0]:rows[-1]+1, cols[0]:cols[-1]+1].repeat(scale, 0)
        cut = cut.repeat(scale, 1)*sign # light on dark, dark on light
        for width in (0, scale, 4*scale):
            dark = darken_ink(np.pad(cut, width))
            same.append(np.median(dark[[0, -1]]) > dark.mean() or dark[0, 0] > 0.5)
    assert np.mean(same) > enough

@pytest.mark.parametrize('change', [plain, bold])
@pytest.mark.parametrize('sign', [1, -1])
def test_a_digit_cut_out_tightly_is_found_like_one_with_a_margin(originals, in_tmp,
                                                                  change, sign):
    alike = []
    for x in originals:
        pixels = change((x.view(28, 28)*255).numpy()).astype(np.uint8)
        rows = np.flatnonzero(pixels.any(1))
        cols = np.flatnonzero(pixels.any(0))
        cut = pixels[rows[0]:rows[-1]+1, cols[0]:cols[-1]+1]
        cut = cut.repeat(12, 0).repeat(12, 1)
        made = []
        for width in (0, 48):
            padded = np.pad(cut, width)
            Image.fromarray(padded if sign == 1 else 255 - padded).save('cut.png')
            try: made.append(digit_from_image('cut.png'))
            except ValueError: made.append(torch.zeros(784)) # "empty"
        alike.append((made[0] - made[1]).abs().mean().item() < 0.03)
    assert np.mean(alike) > 0.8

# ---- paper on which nothing is written

row, col = np.mgrid[:300, :400]/400
def grain(size, depth):
    def make(rng):
        noise = ndimage.gaussian_filter(rng.normal(size=row.shape), size)
        return 215 + depth*noise/noise.std()
    return make
def normal(deviation): return lambda rng: 220 + rng.normal(0, deviation, row.shape)
def with_noise(page): return lambda rng: page + rng.normal(0, 3, row.shape)

PAPER = {
 'noise': normal(5), 'much noise': normal(25), 'fine grain': grain(1, 8),
 'coarse grain': grain(10, 6), 'dim': lambda rng: 40 + rng.normal(0, 8, row.shape),
 'woven': with_noise(220 + 5*np.sin(row*130)*np.sin(col*130)),
 'light from a side': with_noise(120 + 50*(row + col)),
 'dark corners': with_noise(225*(1 - 0.35*((row - 0.37)**2 + (col - 0.5)**2)/0.4)),
 'fold': with_noise(220 - 12*np.exp(-((col - 0.45)/0.004)**2)),
 'edge of a shadow': with_noise(220*(1 - 0.35/(1 + np.exp(-(col + 0.2*row - 0.55)/0.01))))}

@pytest.mark.parametrize('make', PAPER.values(), ids=PAPER)
def test_empty_paper(in_tmp, make):
    for seed in range(3):
        page = make(np.random.default_rng(seed)).clip(0, 255).astype(np.uint8)
        Image.fromarray(page).save('page.jpg', quality=85)
        with pytest.raises(ValueError, match='page.jpg: empty'):
            digit_from_image('page.jpg')

@pytest.mark.parametrize('name', ['noise', 'fine grain', 'coarse grain'])
def test_writing_on_such_paper(image, base, name):
    page = PAPER[name](np.random.default_rng(0))[:280, :320]
    dark = page - 70*(np.asarray(image) < 130)
    drawn = Image.fromarray(dark.clip(0, 255).astype(np.uint8))
    assert mean_difference(drawn, 'a.jpg', base) < 0.08

def test_thin_line_is_not_lost(in_tmp):
    line = Image.new('L', (300, 300), 255)
    ImageDraw.Draw(line).line((150, 20, 150, 280), fill=0, width=1)
    line.save('line.png')
    assert digit_from_image('line.png').view(28, 28).any(1).sum() == 20

def test_single_dot_is_not_lost(in_tmp):
    dot = Image.new('L', (50, 50), 0)
    dot.putpixel((10, 40), 255)
    dot.save('dot.png')
    made = digit_from_image('dot.png')
    assert made.isfinite().all()
    assert made.max() > 0.9

# ---- files that are no picture of a digit ----

def write_nan(path):
    pixels = np.where(np.eye(30) > 0, -np.inf, 1).astype(np.float32)
    Image.fromarray(pixels).save(path)

def write_cut(path):
    Image.effect_noise((64, 64), 50).save(path)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:len(whole)//2])

@pytest.mark.parametrize('file, write, words', [
    ('empty.png', Image.new('L', (28, 28), 200).save, 'empty, nothing'),
    ('black.png', Image.new('L', (28, 28)).save, 'empty, nothing'),
    ('nothing.png', Image.new('RGBA', (28, 28)).save, 'empty, nothing'),
    ('wide.png', lambda path: Image.new('1', (11500, 11500)).save(path), # Pillow warns
     'empty, nothing'),
    ('bomb.png', lambda path: Image.new('1', (14000, 14000)).save(path), # and refuses
     'a broken image .Image size'),
    ('words.png', lambda path: Path(path).write_text('not a picture'),
     'not an image that can be read'),
    ('cut.png', write_cut, 'a broken image'),
    ('nan.tif', write_nan, 'pixels that are nan')])
def test_fault_of_a_file_is_named_without_a_warning(in_tmp, file, write, words):
    write(file)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(ValueError, match=f'^{file}: {words}'):
            digit_from_image(file)

@pytest.mark.parametrize('file', ['large.png', 'large.jpg'])
@pytest.mark.processes
def test_64_megapixels_are_read(image, base, file):
    assert mean_difference(image.resize((9143, 8000)), file, base) < 0.06

@pytest.mark.parametrize('name', ['photo.heic', 'photo.jpg'])
def test_heic_is_named_with_what_to_do(in_tmp, name):
    Path(name).write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(500))
    with pytest.raises(ValueError, match=f'{name}: .* is HEIC, expected JPEG or PNG'):
        digit_from_image(name)

@pytest.mark.parametrize('before', [b'', b'\xc5\xd0\xd3\xc6\x20' + bytes(27)])
def test_an_image_starts_no_program(in_tmp, monkeypatch, before):
    Path('gs').write_text('#!/bin/sh\ntouch ran\nexit 1\n')
    Path('gs').chmod(0o755)
    monkeypatch.setenv('PATH', f'{in_tmp}:{os.environ["PATH"]}')
    Path('digit.png').write_bytes(before + b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: '
                                  b'0 0 100 100\n%%EndComments\nshowpage\n')
    with pytest.raises(ValueError, match='digit.png: not an image'):
        digit_from_image('digit.png')
    assert not Path('ran').exists()

@pytest.mark.parametrize('error', [KeyError('x'), RecursionError('deep'), MemoryError(),
                                   AssertionError('two\nlines'), ZeroDivisionError()])
def test_whatever_a_decoder_raises_is_one_line(base, monkeypatch, error):
    def fails(image): raise error
    monkeypatch.setattr(images.ImageOps, 'exif_transpose', fails)
    with pytest.raises(ValueError, match='^base.png: a broken image') as found:
        digit_from_image('base.png')
    assert '\n' not in str(found.value)

def test_a_file_that_may_not_be_read_is_called_so(base, monkeypatch):
    def denied(*_): raise PermissionError(13, 'Permission denied', 'base.png')
    monkeypatch.setattr('builtins.open', denied)
    with pytest.raises(PermissionError, match='denied.*base.png'):
        digit_from_image('base.png')

def test_standard_input_and_a_pipe(base, monkeypatch):
    content = Path('base.png').read_bytes()
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(content)))
    assert torch.equal(digit_from_image('-'), base)
    os.mkfifo('pipe')
    writer = threading.Thread(target=lambda: Path('pipe').write_bytes(content))
    writer.start()
    assert torch.equal(digit_from_image('pipe'), base)
    writer.join()

@pytest.mark.parametrize('path', ['none.png', '.'])
def test_missing_file(in_tmp, path):
    with pytest.raises(FileNotFoundError, match=f'^{path}: no such file'):
        digit_from_image(path)

# ---- not sure ----

@pytest.mark.parametrize('probabilities, threshold, expected', [
    ([0.02, 0.95, 0.03], NOT_SURE, 1),
    ([0.2, 0.2, 0.6], NOT_SURE, None),
    ([0.2, 0.2, 0.6], 0.5, 2),
    ([0.25, 0.75, 0.], 0.75, 1), # exactly enough
    ([1., 0., 0.], 1., 0),
    ([0.4, 0.3, 0.3], 0., 0)])
def test_read_digit(probabilities, threshold, expected):
    assert read_digit(torch.tensor(probabilities), threshold) == expected

def test_read_digit_is_not_sure_below_nine_tenths_unless_told():
    assert read_digit(torch.tensor([0.89, 0.11])) is None
    digit = read_digit(torch.tensor([0.91, 0.09]))
    assert digit == 0
    assert type(digit) is int
