"Look at the built site (make docs) in a real browser, as a reader would: every page, both themes, a phone, the playground."
import functools
import http.server
import json
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from fcnet.cli import build_model, digit_from_image
from fcnet.data import get_data, normalize
from PIL import Image
from playwright.sync_api import sync_playwright
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT/'_docs'
PAGES = sorted(p.name for p in DOCS.glob('*.html'))
LESSONS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
AXE = Path(sys.prefix)/'node_modules'/'axe-core'/'axe.min.js'
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']
VIEWS = {'light': ('light', 1280, 900), 'dark': ('dark', 1280, 900), 'phone': ('light', 360, 740)}

# ---- a server, a browser, and pages that remember what went wrong

class Handler(http.server.SimpleHTTPRequestHandler):
    "Serves the site, and under /test/ what a test puts into `extra`."
    extra = {}
    def do_GET(self):
        body = self.extra.get(self.path)
        if body is None: return super().do_GET()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

@pytest.fixture(scope='session')
def address():
    assert PAGES, 'there is no site in _docs; run: make docs'
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=DOCS)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture(scope='session')
def browser():
    names = ('chromium', 'chromium-browser', 'google-chrome')
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        how = {'executable_path': found} if found else {'channel': 'chrome'} # macOS keeps Chrome off the path
        try: browser = playwright.chromium.launch(args=QUIET, **how)
        except Exception as e: pytest.exit(f'the browser did not start; install Chromium (apt-get install chromium). {e}', 1)
        yield browser
        browser.close()

@pytest.fixture
def visit(browser, address):
    "`visit(page, view)` opens a page; at the end of the test nothing may have failed or left the site."
    contexts, wrong = [], []
    def visit(name, view='light'):
        scheme, width, height = VIEWS[view]
        contexts.append(browser.new_context(viewport={'width': width, 'height': height}, color_scheme=scheme,
                                            reduced_motion='reduce'))
        page = contexts[-1].new_page()
        page.on('console', lambda m: m.type in ('error', 'warning') and wrong.append(f'{name}: {m.text}'))
        page.on('pageerror', lambda e: wrong.append(f'{name}: {e}'))
        page.on('requestfailed', lambda r: wrong.append(f'{name}: failed {r.url}'))
        page.on('request', lambda r: r.url.startswith((address, 'data:', 'blob:')) or wrong.append(f'{name}: asks {r.url}'))
        page.goto(address + name)
        page.wait_for_load_state('networkidle')
        return page
    visit.wrong = wrong
    yield visit
    for context in contexts: context.close()
    assert not wrong, '\n'.join(wrong)

# ---- every page

@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('name', PAGES)
def test_page(visit, name, view):
    page = visit(name, view)
    seen = page.evaluate('''() => {
        const prose = document.querySelector('main').cloneNode(true);
        prose.querySelectorAll('pre, code, script, .katex').forEach(e => e.remove());
        const cut = e => e.scrollWidth > e.clientWidth + 1;
        return {
            text: prose.textContent,
            broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80)),
            maths: document.querySelectorAll('.math').length,
            rendered: document.querySelectorAll('.math .katex').length,
            errors: [...document.querySelectorAll('.katex-error')].map(e => e.title),
            cut: [...document.querySelectorAll('.math.display')].filter(cut).map(e => e.textContent.slice(0, 60)),
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            background: getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number),
        }}''')
    for raw in ('$$', ':::', '\\(', '\\[', '{=html}', '```'): assert raw not in seen['text'], raw
    assert not seen['broken'] and not seen['errors']
    assert seen['rendered'] == seen['maths']
    assert seen['wide'] <= 0, f'scrolls sideways by {seen["wide"]} pixels'
    assert not seen['cut'], 'cut off'
    assert (sum(seen['background'])/3 < 60) == (view == 'dark')

@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('name', PAGES)
def test_accessible(visit, name, view):
    page = visit(name, view)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")['violations']
    serious = [f'{v["id"]}: {v["help"]}: {v["nodes"][0]["html"][:150]} ({len(v["nodes"])} places)'
               for v in found if v['impact'] in ('serious', 'critical')]
    assert not serious, '\n'.join(serious)

@pytest.mark.parametrize('name', PAGES)
def test_pictures_are_opaque(visit, name):
    "A figure with a see-through ground would be dark on dark in one of the themes."
    alphas = visit(name).evaluate('''() => [...document.querySelectorAll('main img')].map(img => {
        const c = Object.assign(document.createElement('canvas'), {width: img.naturalWidth, height: img.naturalHeight});
        const pen = c.getContext('2d');
        pen.drawImage(img, 0, 0);
        return Math.min(...pen.getImageData(0, 0, c.width, 1).data.filter((_, i) => i % 4 == 3));
    })''')
    assert all(a == 255 for a in alphas)

# ---- finding one's way

def test_theme_is_kept(visit):
    page = visit('index.html')
    ground = lambda: page.evaluate('getComputedStyle(document.body).backgroundColor')
    light = ground()
    page.click('.quarto-color-scheme-toggle:visible')
    page.wait_for_timeout(300)
    dark = ground()
    assert dark != light
    page.goto(page.url.replace('index', 'data'))
    assert ground() == dark

@pytest.mark.parametrize('view', ['light', 'dark'])
def test_search(visit, view):
    page = visit('index.html', view)
    page.fill('#quarto-search input', 'relu')
    page.wait_for_selector('.search-result')
    results = page.eval_on_selector_all('.search-result', 'all => all.map(a => a.getAttribute("href"))')
    assert any('forward.html' in r for r in results), results
    page.add_script_tag(path=AXE)
    low = page.evaluate("axe.run('.smalldocs-search-results', {runOnly: ['color-contrast']})")['violations']
    assert not low, [(n['html'][:90], n['any'][0]['message']) for v in low for n in v['nodes']]
    page.click('.search-result[href*="forward.html"]')
    assert 'forward.html' in page.url

def test_next_leads_through_the_whole_site(visit):
    page, seen = visit('index.html'), ['index.html']
    while page.query_selector('.nav-page-next a'):
        page.click('.nav-page-next a')
        seen.append(page.url.rsplit('/', 1)[1])
        assert page.get_attribute('.nav-page-previous a', 'href').endswith(seen[-2])
        assert len(seen) <= len(PAGES), seen
    assert sorted(seen) == PAGES

def test_phone_has_the_menu(visit):
    page = visit('backward.html', 'phone')
    shown = lambda: page.evaluate('''() => { const r = document.querySelector('#quarto-sidebar a[href*="refactor"]')
        .getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= innerWidth }''')
    assert not shown()
    page.click('.quarto-btn-toggle:visible')
    page.wait_for_timeout(400)
    assert shown()

@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_lesson(path):
    "A page for each lesson, with links to Colab and to the source; the source of an export stands there once."
    soup = BeautifulSoup((DOCS/f'{path.stem[3:]}.html').read_text(), 'html.parser')
    links = [a['href'] for a in soup.find_all('a', href=True)]
    assert any(h.startswith('https://colab.') and h.endswith(f'/nbs/{path.name}') for h in links)
    assert any('/blob/' in h and h.endswith(f'/nbs/{path.name}') for h in links)
    assert soup.select_one('.description').text.strip() and soup.select('main p')
    cells = json.loads(path.read_text())['cells']
    own = lambda source: re.sub(r'^#\|.*\n', '', source, flags=re.M).strip()
    shown, codes = {own(''.join(c['source'])) for c in cells}, [c.get_text().strip() for c in soup.select('main pre code')]
    for source in (''.join(c['source']) for c in cells):
        if not source.startswith('#| exports'): continue
        first = next(line for line in source.splitlines() if line.startswith(('def ', 'class ')))
        name = first.split()[1].partition('(')[0].rstrip(':')
        assert sum(code.endswith(own(source)) for code in codes) == 1, f'{path.name}: {first}'
        assert {code for code in codes if first in code} <= shown, f'{path.name}: {first} has a second signature'
        if name.startswith('_'): continue
        heading = next(h for h in soup.select('main h3') if h.get_text().strip().split('.')[-1] == name)
        assert heading.find_previous('a', string='source')['href'].startswith('https://github.com/')

# ---- the playground: its numbers

@pytest.fixture(scope='session')
def playground():
    "The rounded network as our own layers in float64, and what the page's file says of the pixels."
    with safe_open(DOCS/'playground'/'network.safetensors', 'pt') as f:
        info, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    model = build_model({'model': 'handmade', 'sizes': json.loads(info['sizes']), 'dropout': 0})
    model.load_state_dict({k: t.float() for k, t in tensors.items() if k in model.state_dict()})
    for layer in model.layers:
        if hasattr(layer, 'w'): layer.w, layer.b = layer.w.double(), layer.b.double()
    return model, info, tensors

def test_scores_and_gradients_of_1000_digits(visit, playground):
    model, info, _ = playground
    _, _, x, y = get_data()
    x, y = x[-1000:], y[-1000:]
    expected = []
    for row, label in zip(normalize(x.double(), float(info['mean']), float(info['std'])), y):
        inp = row[None].clone()
        leaves = [t.clone().requires_grad_() for layer in model.layers if hasattr(layer, 'w') for t in (layer.w, layer.b)]
        inp.requires_grad_()
        scores = inp # autograd judges the page, not our own backward
        for k in range(0, len(leaves), 2): scores = (scores if k == 0 else scores.relu())@leaves[k] + leaves[k+1]
        torch.nn.functional.cross_entropy(scores, label[None]).backward()
        expected.append(torch.cat([t.flatten() for t in (scores.detach(), inp.grad, *(leaf.grad for leaf in leaves))]))
    Handler.extra = {'/test/expected': torch.stack(expected).float().numpy().tobytes(),
                     '/test/digits': (x*256).round().byte().numpy().tobytes(), '/test/labels': y.byte().numpy().tobytes()}
    errors = visit('playground.html').evaluate('''async () => {
        const net = await import(new URL('playground/network.js', location.href));
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
        return { scores, grads, left: expected.length - at, n: labels.length };
    }''')
    print(errors)
    assert errors['n'] == 1000 and errors['left'] == 0
    assert errors['scores'] < 1e-3 and errors['grads'] < 1e-3

def test_rounding_costs_less_than_a_tenth_of_a_percent(playground):
    model, info, _ = playground
    _, _, x, y = get_data()
    scores = model.predict(normalize(x.double(), float(info['mean']), float(info['std'])))
    accuracy = (scores.argmax(1) == y).double().mean().item()
    print(f'accuracy {accuracy:.4f}, before rounding {info["exact"]}')
    assert abs(accuracy - float(info['accuracy'])) < 1e-3 and abs(accuracy - float(info['exact'])) < 1e-3

def test_drawing_becomes_the_digit_that_fcnet_predict_would_read(visit, tmp_path):
    page = visit('playground.html')
    g = np.random.default_rng(0)
    for shape in ((280, 280), (90, 150), (200, 60)):
        ink = np.zeros((280, 280), dtype=np.uint8)
        top, left = g.integers(0, 281 - shape[0]), g.integers(0, 281 - shape[1])
        ink[top:top+shape[0], left:left+shape[1]] = np.kron(g.random((5, 5)) > 0.4, np.ones((shape[0]//5, shape[1]//5)))*g.integers(80, 256, shape)
        framed = np.zeros((300, 300), dtype=np.uint8)
        framed[10:290, 10:290] = ink # digit_from_image takes the ground from the border
        Image.fromarray(framed).save(tmp_path/'ink.png')
        wanted = digit_from_image(tmp_path/'ink.png').numpy()
        got = page.evaluate('''async ink => {
            const net = await import(new URL('playground/network.js', location.href));
            return [...net.digitFromInk(Float64Array.from(ink, v => v / 255), 280)];
        }''', (ink/ink.max()*255).flatten().tolist())
        np.testing.assert_allclose(got, wanted, atol=0.01)

# ---- the playground: the page

def stroke(page, *points):
    "Draw a line through points of the pad, in pixels of its 280."
    box = page.locator('#pad').bounding_box()
    place = [(box['x'] + x*box['width']/280, box['y'] + y*box['height']/280) for x, y in points]
    page.mouse.move(*place[0])
    page.mouse.down()
    for point in place[1:]: page.mouse.move(*point, steps=8)
    page.mouse.up()
    page.wait_for_timeout(100)

def probabilities(page):
    return page.eval_on_selector_all('#bars .bar', 'all => all.map(b => parseFloat(b.style.width)/100)')

@pytest.mark.parametrize('view', VIEWS)
def test_playground_reads_a_drawn_digit_and_learns(visit, view):
    page = visit('playground.html', view)
    assert page.inner_text('#verdict') == 'The network reads: 3' # the example it starts with
    page.locator('#pad').scroll_into_view_if_needed()
    page.click('#clear')
    assert page.inner_text('#verdict') == '' and page.is_disabled('#step')
    stroke(page, (80, 70), (200, 70), (130, 230))
    assert page.inner_text('#verdict') == 'The network reads: 7'
    assert probabilities(page)[7] > 0.5 and abs(sum(probabilities(page)) - 1) < 1e-4
    first = probabilities(page)
    page.check('#truth input[value="2"]', force=True) # not what was drawn: the page must learn what it is told
    assert page.inner_text('#progress').startswith('Loss ')
    for figure in ('#gradient-0', '#gradient-1', '#gradient-2', '#input-gradient'): assert page.is_visible(figure)
    page.select_option('#rate', '0.1')
    page.click('#step')
    after = probabilities(page)
    assert after[2] > first[2] and 'before the step' in page.inner_text('#progress')
    marks = page.eval_on_selector_all('#bars .before', 'all => all.map(b => parseFloat(b.style.left.match(/[\\d.e-]+/)[0])/100)')
    np.testing.assert_allclose(marks, first, atol=1e-4)
    page.click('#reset')
    np.testing.assert_allclose(probabilities(page), first, atol=1e-6)
    assert page.is_disabled('#reset')

def test_playground_by_keyboard(visit, playground):
    model, info, tensors = playground
    page = visit('playground.html')
    x = normalize(tensors['examples'].double()/256, float(info['mean']), float(info['std']))
    wanted = model.predict(x).softmax(1)
    labels = tensors['labels'].tolist()
    assert labels[:10] == list(range(10)) and all(p.argmax() != l for p, l in zip(wanted[10:], labels[10:]))
    for k, button in enumerate(page.query_selector_all('.examples button')):
        button.focus()
        page.keyboard.press('Enter')
        np.testing.assert_allclose(probabilities(page), wanted[k], atol=1e-4)
        assert page.is_checked(f'#truth input[value="{labels[k]}"]')
    page.focus('#step')
    page.keyboard.press('Enter')
    assert '1 step taken' in page.inner_text('#progress')

def test_playground_survives_many_wild_steps(visit):
    page = visit('playground.html')
    page.check('#truth input[value="8"]', force=True)
    page.select_option('#rate', '0.1')
    for _ in range(30): page.click('#step')
    assert np.isfinite(probabilities(page)).all() and probabilities(page)[8] > 0.9

def test_playground_says_when_its_network_is_missing(visit):
    page = visit('index.html')
    page.route('**/network.safetensors', lambda route: route.fulfill(status=404, body='none'))
    page.goto(page.url.replace('index', 'playground'))
    page.wait_for_selector('#trouble:visible')
    assert '404' in page.inner_text('#trouble')
    assert any('404' in w for w in visit.wrong)
    visit.wrong.clear()
