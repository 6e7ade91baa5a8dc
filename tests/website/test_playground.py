"The playground page in a real browser: its pictures against the numbers, its buttons, its keyboard, its links."
import base64
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from built_site import VIEWS
from test_network import Network, net # noqa: F401, a fixture
from test_site import serious

def probabilities(page): return page.eval_on_selector_all('#bars .bar', 'all => all.map(b => parseFloat(b.style.width)/100)')
def marks(page):
    return page.eval_on_selector_all('#bars .before:not([hidden])', 'all => all.map(b => parseFloat(b.style.left.match(/[\\d.e-]+/)[0])/100)')
def progress(page): return page.inner_text('#progress')
def number(text): return float(text.replace('−', '-'))
def choose(page, digit):
    page.evaluate('document.getElementById("truth").scrollIntoView({ block: "center" })') # clear of the bar
    page.check(f'#truth input[value="{digit}"]', force=True)
def example(page, k): page.locator('.take button').nth(k).click()

def stroke(page, *points, up=True, steps=8):
    "Draw a line through points of the pad, in pixels of its 280."
    page.locator('#pad').scroll_into_view_if_needed()
    box = page.locator('#pad').bounding_box()
    place = [(box['x'] + x*box['width']/280, box['y'] + y*box['height']/280) for x, y in points]
    page.mouse.move(*place[0])
    page.mouse.down()
    for point in place[1:]: page.mouse.move(*point, steps=steps)
    if up: page.mouse.up()
    page.wait_for_timeout(100)

def pixels_of(page, selector):
    "Red, green, blue and opacity of a canvas, `(height, width, 4)`, from 0 to 255."
    width, data = page.evaluate('''s => {
        const c = document.querySelector(s), { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height), text = [];
        for (let i = 0; i < data.length; i += 9999) text.push(String.fromCharCode(...data.subarray(i, i + 9999)));
        return [c.width, btoa(text.join(''))] }''', selector)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(-1, width, 4).astype(float)

def pad_ink(page):
    "Opacity of the pad, `(280, 280)` in [0, 1], and the color of its ink."
    rgba = pixels_of(page, '#pad')
    return rgba[..., 3]/255, rgba[rgba[..., 3] == 255][:1, :3]

def decoded(page, selector):
    "The numbers of a picture, from -1 to 1, read back from its colors; pictures are painted when they come into view."
    page.locator(selector).scroll_into_view_if_needed()
    page.wait_for_function('s => document.querySelector(s).width > 1 && document.querySelector(s).closest("figure").textContent', arg=selector)
    page.wait_for_timeout(100)
    got = page.evaluate('''selector => {
        const c = document.querySelector(selector), style = getComputedStyle(document.getElementById('playground'));
        return { positive: style.getPropertyValue('--positive'), negative: style.getPropertyValue('--negative') }
    }''', selector)
    rgba = pixels_of(page, selector)
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
    size = lambda *tensors: max(t.abs().max().item() for t in tensors)
    full = {'activations': size(*hidden), 'weights': size(*net.params[::2])} # in full color
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
        np.testing.assert_allclose(got, values/full.get(name[:-2], abs(largest)), atol=0.01, err_msg=name)
        caption = page.inner_text(f'#{name} figcaption')
        assert number(caption.rsplit('Strongest: ')[1]) == pytest.approx(largest, rel=0.006), caption
    seen = page.evaluate('[...document.getElementById("seen").getContext("2d").getImageData(0, 0, 28, 28).data]')
    pixels = net.examples[k]*float(net.info['std']) + float(net.info['mean'])
    np.testing.assert_allclose(np.array(seen)[3::4]/255, pixels/pixels.max(), atol=0.01)

def test_a_cell_tells_its_number(visit, net):
    page = visit('playground.html')
    example(page, 4)
    unit = int(net.activations(net.examples[4])[0][0].argmax())
    arrive(page, '#activations-0')
    box = page.locator('#activations-0 canvas').bounding_box()
    page.mouse.move(box['x'] + (unit % 8 + 0.5)*box['width']/8, box['y'] + (unit//8 + 0.5)*box['height']/8)
    name, value = page.inner_text('#activations-0 figcaption').split(': ')
    assert name == f'unit {unit}' and number(value) == pytest.approx(net.activations(net.examples[4])[0][0].max().item(), rel=0.006)
    page.mouse.move(box['x'], box['y'] - 30)
    assert 'Strongest' in page.inner_text('#activations-0 figcaption')
    arrive(page, '#weights-0')
    box = page.locator('#weights-0 canvas').bounding_box()
    cell = lambda column, row: page.mouse.move(box['x'] + (column + 0.5)*box['width']/231, box['y'] + (row + 0.5)*box['height']/231)
    cell(29*5 + 11, 29*2 + 17) # tile 2*8+5, its pixel (17, 11)
    name, value = page.inner_text('#weights-0 figcaption').split(': ')
    assert name == 'unit 21, pixel row 17, column 11' and number(value) == pytest.approx(net.params[0][17*28 + 11, 21].item(), rel=0.006)

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
        assert losses(page) == pytest.approx([said(net.grads(net.examples[k], net.labels[k])[0])], rel=0.005)

def said(loss): return loss if loss >= 0.001 else 0.001
def losses(page): return [float(v) for v in re.search(r'Loss <?(\S+?)(?: → <?(\S+?))?\. ', progress(page)).groups() if v]

@pytest.mark.parametrize('rate', ['0.00001', '0.001', '0.01'])
def test_steps_are_those_of_sgd(visit, net, rate):
    page, k, label = visit('playground.html'), 11, 3
    example(page, k)
    choose(page, label) # any digit may be called the true one
    page.select_option('#rate', label=rate)
    for n in (1, 2):
        before, (loss, _) = net.probabilities(net.examples[k]), net.grads(net.examples[k], label)
        net.step(net.examples[k], label, float(rate))
        page.focus('#step')
        page.keyboard.press('Enter')
        np.testing.assert_allclose(probabilities(page), net.probabilities(net.examples[k]), atol=1e-4)
        np.testing.assert_allclose(marks(page), before, atol=1e-4)
        assert losses(page) == pytest.approx([said(loss), said(net.grads(net.examples[k], label)[0])], rel=0.006)
        right = (net.probabilities(net.examples).argmax(1) == net.labels).sum()
        assert f'{n} step' in progress(page) and f'{right} of 15 examples right' in progress(page)
    choose(page, 5)
    assert not marks(page) # they belong to another question
    page.click('#step')
    page.click('#reset')
    assert not marks(page) and page.is_disabled('#reset') and 'taken' not in progress(page)
    np.testing.assert_allclose(probabilities(page), Network().probabilities(net.examples[k]), atol=1e-4)
    page.click('#step')
    example(page, 2)
    assert not marks(page)

@pytest.mark.parametrize('view', VIEWS)
def test_reads_a_drawn_digit_and_learns(visit, view):
    page = visit('playground.html', view)
    page.click('#clear')
    assert page.inner_text('#verdict').startswith('Draw a digit') and page.is_disabled('#step')
    assert not page.query_selector('#truth input:checked')
    page.evaluate('document.getElementById("gradient-0").scrollIntoView()')
    page.wait_for_selector('#gradient-0', state='hidden')
    stroke(page, (80, 70), (200, 70))
    stroke(page, (200, 70), (130, 230)) # a second stroke keeps the first
    assert page.inner_text('#verdict') == 'The network reads: 7' and probabilities(page)[7] > 0.5
    first = probabilities(page)
    assert page.is_disabled('#step') and 'Choose the true digit' in progress(page)
    choose(page, 2) # not what was drawn: the page must learn what it is told
    for figure in ('#gradient-0', '#gradient-1', '#gradient-2', '#input-gradient'):
        page.evaluate('s => document.querySelector(s).scrollIntoView()', figure)
        page.wait_for_selector(figure, state='visible')
    page.select_option('#rate', label='0.01')
    page.click('#step')
    arrive(page, '#bars')
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
    page.evaluate('document.getElementById("verdict").scrollIntoView({ block: "center" }); scrollBy(0, 200)')
    page.wait_for_timeout(300)
    scrolled = page.evaluate('scrollY')
    box, touch = page.locator('#pad').bounding_box(), page.context.new_cdp_session(page)
    def fingers(kind, *points):
        places = [{'x': box['x'] + x*box['width']/280, 'y': box['y'] + y*box['height']/280, 'id': i} for i, (x, y) in enumerate(points)]
        touch.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': places})
    fingers('touchStart', (80, 70))
    for k in range(11): fingers('touchMove', (80 + 12*k, 70))
    for k in range(11): fingers('touchMove', (200 - 7*k, 70 + 16*k), (20, 270))
    fingers('touchEnd')
    page.wait_for_timeout(100)
    assert page.inner_text('#verdict') == 'The network reads: 7' and page.evaluate('scrollY') == scrolled
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
    page.select_option('#rate', label='0.01')
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

STYLES = { # two of each digit, in pixels of the pad: a list of strokes
    '0': ['140,45 90,70 75,140 95,210 140,235 185,205 205,140 185,70 140,45', '150,60 110,85 95,150 120,215 160,225 190,170 185,100 150,60'],
    '1': ['140,40 140,240', '100,95 150,45 150,235 | 105,235 195,235'],
    '2': ['85,85 110,50 160,45 195,80 180,125 130,180 80,230 205,230', '90,75 140,55 180,85 165,135 100,200 95,225 125,205 200,225'],
    '3': ['85,60 150,45 190,80 165,125 125,135 175,150 195,195 150,235 85,220', '90,50 190,50 135,120 185,150 190,200 140,235 85,215'],
    '4': ['165,235 165,45 75,170 215,170', '90,55 85,140 190,140 | 185,55 180,235'],
    '5': ['190,50 100,50 92,125 150,115 190,155 180,210 130,235 80,220', '100,55 95,130 150,130 180,175 145,230 85,220 | 100,55 190,52'],
    '6': ['175,50 120,90 90,160 105,220 155,235 190,195 170,150 120,150 95,180', '150,40 105,130 95,195 130,235 175,215 175,170 135,155 100,185'],
    '7': ['80,60 200,60 130,235', '80,65 195,55 125,235 | 105,145 185,140'],
    '8': ['180,75 140,45 100,75 115,115 165,160 185,205 140,238 95,205 115,160 165,115 180,75', '140,45 100,80 140,130 185,185 140,235 95,190 140,130 180,85 140,45'],
    '9': ['185,90 145,50 100,80 105,130 150,140 185,95 180,170 165,235', '180,85 130,55 95,100 125,145 180,105 185,85 175,180 130,235 90,220'],
}

def test_reads_18_of_20_digits_in_different_styles(visit):
    page, read = visit('playground.html'), {}
    for digit, styles in STYLES.items():
        for k, style in enumerate(styles):
            page.click('#clear')
            for line in style.split(' | '): stroke(page, *(tuple(map(int, point.split(','))) for point in line.split()), steps=2)
            read[digit, k] = page.inner_text('#verdict')[-1]
    wrong = {key: got for key, got in read.items() if got != key[0]}
    print('misread:', wrong)
    assert len(wrong) <= 2, wrong

def arrive(page, selector):
    page.evaluate('s => document.querySelector(s).scrollIntoView({ block: "center" })', selector)
    page.wait_for_timeout(200)

def test_an_opened_unit_shows_its_numbers(visit, net):
    page, k = visit('playground.html'), 12
    example(page, k)
    hidden, _ = net.activations(net.examples[k])
    _, (_, *d_params) = net.grads(net.examples[k], net.labels[k])
    j = int(hidden[1].argmax())
    arrive(page, '#net')
    page.locator('.layer').nth(1).locator('button').nth(j).click()
    arrive(page, '#opened')
    assert page.inner_text('#unit-name') == f'Unit {j} of layer 2'
    z = number(re.search(r'z = (\S+?)\.? ', page.inner_text('#unit-forward'))[1].rstrip('.'))
    assert z == pytest.approx(hidden[1][j].item(), rel=0.006)
    rows = [row.inner_text().split('\t') for row in page.query_selector_all('#opened tbody tr')]
    parts = hidden[0]*net.params[2][:, j]
    for name, w, x, part, g, after in rows[:-1]:
        i = int(name.split()[-1])
        wanted = [net.params[2][i, j].item(), hidden[0][i].item(), parts[i].item(), d_params[2][i, j].item()]
        assert [number(v) for v in (w, x, part, g)] == pytest.approx(wanted, rel=0.006)
        assert number(after) == pytest.approx(wanted[0] - 1e-4*wanted[3], rel=1e-4)
    assert abs(number(rows[0][3])) == pytest.approx(parts.abs().max().item(), rel=0.006)
    assert sum(number(row[3]) for row in rows) == pytest.approx(parts.sum().item(), abs=0.05)

def test_a_nudged_weight_changes_the_loss_as_the_network_says(visit, net):
    page, k = visit('playground.html'), 11
    example(page, k)
    loss, (_, *d_params) = net.grads(net.examples[k], net.labels[k])
    arrive(page, '#net')
    page.locator('.layer.last button').nth(3).click()
    arrive(page, '#nudge')
    i = int(page.locator('#opened tr.chosen label').inner_text().split()[-1])
    for by in (0.05, -0.4):
        page.evaluate('v => { const e = document.getElementById("nudge-by"); e.value = v; e.dispatchEvent(new Event("input")) }', by)
        promised, real = (number(b.inner_text()) for b in page.query_selector_all('#nudge-result b'))
        assert promised == pytest.approx(loss + by*d_params[4][i, 3].item(), rel=1e-3)
        nudged = Network()
        with np.errstate(all='ignore'): nudged.params[4].data[i, 3] += by
        assert real == pytest.approx(nudged.grads(net.examples[k], net.labels[k])[0], rel=1e-3)
    assert losses(page) == pytest.approx([loss], rel=0.005) # the network itself is as it was

def test_fooled_along_the_gradient(visit, net):
    page = visit('playground.html')
    example(page, 4)
    arrive(page, '#fool')
    text = lambda: page.inner_text('#fool-says')
    first = text()
    assert 'reads 4' in first
    page.focus('#fool-by')
    for _ in range(50): page.keyboard.press('ArrowRight')
    _, (d_x, *_) = net.grads(net.examples[4], 4)
    std, mean = float(net.info['std']), float(net.info['mean'])
    pixels = (net.examples[4]*std + mean + 0.5*d_x/d_x.abs().max()).clamp(0, 1)
    p = net.probabilities((pixels - mean)/std)
    assert f'reads {p.argmax()}' in text() and p.argmax() != 4
    assert number(re.search(r'with (\S+)%', text())[1]) == pytest.approx(100*p.max(), rel=0.006)

def test_keyboard_alone(visit):
    page = visit('playground.html')
    def tab_to(selector, most=90):
        for _ in range(most):
            if page.evaluate('s => document.activeElement.matches(s)', selector): return
            page.keyboard.press('Tab')
        raise AssertionError(f'Tab does not lead to {selector}')
    tab_to('#tale-next')
    page.keyboard.press('Enter')
    assert page.inner_text('#tale-count') == 'Chapter 1 of 8' and page.evaluate('document.activeElement.id') == 'story'
    tab_to('#truth input')
    page.keyboard.press('ArrowRight')
    tab_to('#misread button')
    page.keyboard.press('Enter')
    tab_to('#rate')
    tab_to('#step')
    page.keyboard.press('Enter')
    assert '1 step taken' in progress(page)
    tab_to('.layer button')
    for key, name in (('ArrowDown', 'Unit 1 of layer 1'), ('ArrowRight', 'Unit 17 of layer 1'), *[('ArrowRight', None)]*3, ('ArrowRight', 'Unit 17 of layer 2'), ('ArrowRight', 'The score of 1')):
        page.keyboard.press(key)
        page.wait_for_timeout(60)
        if name: assert page.inner_text('#unit-name') == name
    tab_to('#opened input[type=radio]')
    page.keyboard.press('ArrowDown')
    tab_to('#nudge-by')
    page.keyboard.press('ArrowRight')
    assert '+0.01' in page.inner_text('#nudge-out')
    tab_to('#activations-0 canvas')
    page.wait_for_timeout(300)
    for key in ('ArrowRight', 'ArrowRight', 'ArrowDown'): page.keyboard.press(key)
    assert page.inner_text('#activations-0 figcaption').startswith('unit 9: ')
    tab_to('#fool-by')
    page.keyboard.press('ArrowRight')
    tab_to('#live-width')
    tab_to('#live-play')

def test_the_story(visit, net):
    page = visit('playground.html')
    seen = []
    for k in range(1, 9):
        page.click('#tale-next')
        assert page.inner_text('#tale-count') == f'Chapter {k} of 8'
        if page.is_visible('#tale-do'): page.click('#tale-do')
        page.wait_for_timeout(250)
        text = page.inner_text('#tale-text')
        assert not re.search('NaN|undefined|null|Infinity', text), text
        seen.append(text)
    assert len(set(seen)) == 8
    rows = [row.split() for row in seen[6].splitlines() if row.startswith('0.0')] # promises of the gradient
    promised, real = [[float(row[k]) for row in rows] for k in (1, 2)]
    assert promised[0] == pytest.approx(real[0], rel=0.05) and promised[3] > 2*real[3]
    right = [int(row[3]) for row in rows]
    assert right[3] < right[0] # it forgets
    before, now = map(int, re.search(r'read (\d+) of the 15 examples below right, now (\d+)', seen[7]).groups())
    assert now == right[3] and seen[7].count(' as ') >= before - now > 0
    x, label = net.examples[10], int(net.labels[10])
    with torch.no_grad(): hidden, scores = net.activations(x)
    by_score, (*_, d_w, _) = scores.softmax(0) - F.one_hot(torch.tensor(label), 10), net.grads(x, label)[1]
    unit = int(re.search(r'For unit (\d+) of layer 2', seen[3])[1])
    blamed = number(re.search(r'= blame.*\s(\S+)$', seen[3], re.M)[1])
    assert hidden[-1][unit] > 0 and blamed == pytest.approx(float((net.params[-2][unit]@by_score).detach()), abs=0.001)
    weights = d_w[:, scores.argmax()]
    assert number(re.search(r'= (\S+)\. Add a little', seen[4])[1]) == pytest.approx(float(weights[weights.abs().argmax()]), rel=0.01)
    page.click('#tale-next')
    assert page.evaluate('document.getElementById("train").getBoundingClientRect().top') < 200

def state(page):
    page.wait_for_timeout(500)
    return {'progress': progress(page), 'bars': probabilities(page), 'marks': marks(page), 'rate': page.input_value('#rate'),
            'unit': page.inner_text('#unit-name'), 'tale': page.inner_text('#tale'), 'true': page.eval_on_selector_all('#truth input', 'all => all.map(r => r.checked)')}

@pytest.mark.parametrize('drawn', [False, True])
def test_a_link_restores_the_board(visit, drawn):
    page = visit('playground.html')
    if drawn:
        page.click('#clear')
        stroke(page, (80, 70), (200, 70), (130, 230))
    else: example(page, 12)
    choose(page, 2)
    page.select_option('#rate', label='0.003')
    for _ in range(3): page.click('#step')
    arrive(page, '#net')
    page.locator('.layer').nth(1).locator('button').nth(5).click()
    arrive(page, '#opened')
    arrive(page, '#board')
    first = state(page)
    again = visit(page.url.split('/')[-1])
    again.wait_for_selector('#playground:not([inert])')
    arrive(again, '#opened')
    arrive(again, '#board')
    assert state(again) == first

@pytest.mark.parametrize('query', ['?digit=99.77&unit=9.9.9&steps=x.y.z.1&story=70&rate=7&at=x', '?digit=i!!!.3', '?own=1'])
def test_a_wrong_link_does_no_harm(visit, query):
    page = visit('playground.html' + query)
    page.wait_for_selector('#playground:not([inert])')
    example(page, 3)
    assert page.inner_text('#verdict') == 'The network reads: 3'

def test_without_javascript_nothing_can_be_pressed(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + 'playground.html')
    assert 'JavaScript' in page.inner_text('main') and page.get_attribute('#playground', 'inert') is not None
    context.close()

def test_in_a_frame_one_part_is_shown(visit):
    page = visit('index.html')
    page.evaluate("document.body.innerHTML = '<iframe src=\"playground.html#unit\" width=700 height=600></iframe>'")
    frame = page.frame_locator('iframe')
    frame.locator('#net').wait_for(state='visible')
    frame.locator('.layer button').nth(3).click()
    assert frame.locator('#unit-name').inner_text() == 'Unit 3 of layer 1'
    for hidden in ('#board', '#tale', '#train', '#bar', '.navbar'): assert not frame.locator(hidden).first.is_visible()

@pytest.mark.parametrize('view', VIEWS)
def test_nothing_serious_in_any_state(visit, view):
    page = visit('playground.html', view)
    page.add_style_tag(content='#bar, #quarto-header { position: static !important }') # what it covers depends on where one has scrolled to
    for k in range(8):
        page.click('#tale-next')
        page.wait_for_timeout(150)
        if k in (2, 4, 7):
            assert not (found := serious(page)), '\n'.join(found)
            assert page.evaluate('document.documentElement.scrollWidth - innerWidth') <= 0
    arrive(page, '#live')
    page.wait_for_function('document.getElementById("live-says").textContent.includes("steps")')
    assert not (found := serious(page)), '\n'.join(found)

def test_colors_of_ones_own(visit):
    page = visit('playground.html')
    page.emulate_media(forced_colors='active')
    seen = page.evaluate('[".true .bar", ".track"].map(s => getComputedStyle(document.querySelector(s)).backgroundColor)')
    assert seen[0] != seen[1]
