"Look at the built site in a real browser, as a reader would: every page, both themes, a phone, the ways through it."
import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from built_site import AXE, DOCS, ROOT, VIEWS
from PIL import Image

PAGES = sorted(p.name for p in DOCS.glob('*.html'))
SOUPS = {page: BeautifulSoup((DOCS/page).read_text(), 'html.parser') for page in PAGES}
LESSONS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
JUDGED = { # by axe-core, in each view; of a theme nothing hangs but the contrast
    'light': "rules: {'target-size': {enabled: true}}",
    'dark': "runOnly: ['color-contrast']",
    'phone': "rules: {'target-size': {enabled: true}, 'color-contrast': {enabled: false}}",
}

def serious(page, part='document', judged=JUDGED['light']):
    "What axe-core finds in a part of the page that would keep somebody from reading it."
    page.add_script_tag(path=AXE)
    found = page.evaluate(f"axe.run({part}, {{resultTypes: ['violations'], {judged}}})")['violations']
    return [f'{v["id"]}: {n["html"][:120]}: {[c["message"] for c in n["any"]]}' for v in found
            if v['impact'] in ('serious', 'critical') for n in v['nodes']]

@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('name', PAGES)
def test_page(visit, name, view):
    page = visit(name, view)
    seen = page.evaluate('''async () => {
        const prose = document.querySelector('main').cloneNode(true);
        prose.querySelectorAll('pre, code, script, .katex').forEach(e => e.remove());
        const cut = e => e.scrollWidth > e.clientWidth + 1;
        const shown = [...document.images].filter(i => getComputedStyle(i).display != 'none');
        shown.forEach(i => i.loading = 'eager');
        await Promise.all(shown.map(i => i.decode().catch(() => 0)));
        const edge = img => { // colors of a row near a figure's edge, which itself may be blended: its ground
            const c = Object.assign(document.createElement('canvas'), {width: img.naturalWidth - 4, height: 1});
            c.getContext('2d').drawImage(img, -2, -2);
            return c.getContext('2d').getImageData(0, 0, c.width, 1).data;
        };
        const figures = shown.filter(i => i.closest('main')), edges = figures.map(edge);
        return {
            text: prose.textContent,
            broken: shown.filter(i => !i.naturalWidth).map(i => i.src.slice(-80)),
            opaque: edges.map(row => Math.min(...row.filter((_, k) => k % 4 == 3))), // see-through would be dark on dark in one theme
            grounds: [...new Set(edges.filter((_, k) => /svg/.test(figures[k].src)).map(row => row.slice(0, 3).join()))],
            sizes: figures.filter(i => !(i.getAttribute('width') && i.getAttribute('height'))).map(i => i.src),
            maths: document.querySelectorAll('.math').length,
            rendered: document.querySelectorAll('.math .katex').length,
            errors: [...document.querySelectorAll('.katex-error')].map(e => e.title),
            cut: [...document.querySelectorAll('.math.display')].filter(cut).map(e => e.textContent.slice(0, 60)),
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            background: getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number),
        }}''')
    for raw in ('$$', ':::', '\\(', '\\[', '{=html}', '```'): assert raw not in seen['text'], raw
    assert not seen['broken'] and not seen['errors'] and not seen['cut']
    assert set(seen['opaque']) <= {255} and not seen['sizes']
    assert set(seen['grounds']) <= {','.join(map(str, seen['background']))}, 'a figure has not the ground of the page'
    assert seen['rendered'] == seen['maths']
    assert seen['wide'] <= 0, f'scrolls sideways by {seen["wide"]} pixels'
    assert (sum(seen['background'])/3 < 60) == (view == 'dark')
    assert not (found := serious(page, 'document', JUDGED[view])), '\n'.join(found)

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
    for word, lesson in (('vanishing', 'init'), ('overfitting', 'regularize'), ('relu', 'forward')): # found by their stem
        page.fill('#quarto-search input', word)
        page.wait_for_selector(f'.search-result[href^="{lesson}.html"]')
    assert page.get_attribute('#quarto-search input', 'aria-expanded') == 'true'
    page.press('#quarto-search input', 'ArrowDown')
    chosen = page.get_attribute('#quarto-search input', 'aria-activedescendant')
    assert page.get_attribute(f'#{chosen}', 'aria-selected') == 'true'
    results = page.eval_on_selector_all('.search-result', 'all => all.map(a => [a.getAttribute("href"), a.innerText])')
    assert any('forward.html' in href for href, _ in results), results
    assert not any(text.splitlines()[-1] == 'source' for _, text in results)
    assert not (found := serious(page, "'#quarto-search'")), '\n'.join(found)
    page.click('.search-result[href*="forward.html"]')
    assert 'forward.html' in page.url

def test_next_leads_through_the_whole_course_in_order(visit):
    page, seen = visit('index.html'), ['index.html']
    while page.query_selector('.nav-page-next a'):
        page.wait_for_load_state('load')
        page.evaluate('document.fonts.ready.then(() => 0)') # fonts that are still on their way would count as failed
        page.click('.nav-page-next a')
        seen.append(page.url.rsplit('/', 1)[1])
        assert page.get_attribute('.nav-page-previous a', 'href').endswith(seen[-2])
        assert len(seen) <= len(PAGES), seen
    lessons = [f'{p.stem[3:]}.html' for p in LESSONS]
    after = ['playground.html', 'glossary.html', 'bibliography.html', 'names.html']
    assert seen == ['index.html', 'short.html', *lessons, *after]

def test_phone_has_the_menu(visit):
    page = visit('backward.html', 'phone')
    shown = lambda: page.evaluate('''() => { const r = document.querySelector('#quarto-sidebar a[href*="refactor"]')
        .getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= innerWidth }''')
    assert not shown()
    button = '.quarto-btn-toggle:visible'
    assert page.get_attribute(button, 'aria-expanded') == 'false'
    page.click(button)
    page.wait_for_timeout(400)
    assert shown() and page.get_attribute(button, 'aria-expanded') == 'true'
    page.keyboard.press('Escape')
    page.wait_for_timeout(400)
    assert not shown() and page.evaluate(f'document.activeElement.matches(".quarto-btn-toggle")')
    page.click('.toc-inline summary')
    page.click('.toc-inline a[href="#the-chain-rule"]')
    assert page.evaluate('document.querySelector("#the-chain-rule").getBoundingClientRect().top') < 300

def test_keyboard_leads_past_the_menus(visit):
    page = visit('backward.html')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.getBoundingClientRect().top >= 0 && document.activeElement.className') == 'skip'
    page.keyboard.press('Enter')
    page.keyboard.press('Tab')
    assert page.evaluate('document.querySelector("main").contains(document.activeElement)')
    outlines = page.evaluate('''() => [...document.querySelectorAll('.navbar a, .navbar button, #quarto-sidebar a')].filter(e => e.offsetParent)
        .map(e => { e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle; })''')
    assert outlines and set(outlines) == {'solid'}
    assert not SOUPS['backward.html'].select('a[role=navigation]') and all(n.get('aria-label') or n.get('aria-labelledby') for n in SOUPS['backward.html'].select('nav'))

def test_code_has_room(visit, address):
    "Code and output never scroll; at 1280 no line of code wraps, at 1024 those of at most a tenth of the blocks."
    wrapped, blocks, page = {1280: 0, 1024: 0, 360: 0}, 0, visit('index.html')
    for name in PAGES:
        page.goto(address + name)
        page.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
        for width in wrapped:
            page.set_viewport_size({'width': width, 'height': 800})
            scroll, wraps = page.evaluate('''() => {
                const blocks = [...document.querySelectorAll('main pre')];
                const wraps = pre => [...pre.querySelectorAll('.l')].some(l => l.offsetHeight > 1.6 * parseFloat(getComputedStyle(l).lineHeight));
                return [blocks.map(pre => pre.scrollWidth - pre.clientWidth), blocks.filter(pre => pre.matches('.sourceCode')).map(wraps)];
            }''')
            assert not any(n > 0 for n in scroll), f'{name} at {width}: {scroll}'
            wrapped[width] += sum(wraps)
            if width == 1280: assert not any(wraps), f'{name}: a line wraps in block {wraps.index(True)} of {len(wraps)}'
        blocks += len(wraps)
    print(f'\n{blocks} blocks of code; those with a line that wraps, by width of the window: {wrapped}')
    assert blocks > 500 and wrapped[1024] < blocks/10 and wrapped[360] > 0

def test_weight_and_shift(visit, address):
    "No page asks for 550 kB (a quarter of it packed) but for pictures, and nothing moves."
    page, weights, shifts = visit('404.html'), {}, {}
    for name in PAGES:
        page.goto(address + name)
        page.evaluate('document.fonts.ready.then(() => 0)')
        weights[name], shifts[name] = page.evaluate('''() => new Promise(done => {
            let shift = 0;
            new PerformanceObserver(list => list.getEntries().forEach(e => shift += e.value)).observe({type: 'layout-shift', buffered: true});
            setTimeout(() => {
                const loaded = ['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind));
                const own = loaded.filter(e => e.initiatorType != 'img' && !/safetensors|svg|png/.test(e.name));
                done([own.reduce((sum, e) => sum + e.decodedBodySize, 0), shift]);
            }, 200) })''')
    top = max(weights, key=weights.get)
    print(f'\nheaviest page: {top}, {weights[top]/1000:.0f} kB; largest shift: {max(shifts.values()):.3f}')
    assert weights[top] < 550_000, weights
    assert max(shifts.values()) < 0.05, shifts

@pytest.mark.alone
@pytest.mark.parametrize('name', ['index.html', 'backward.html', 'interpret.html'])
def test_first_paint_on_a_slow_phone(visit, address, name):
    "Slow 4G (1.6 Mbit/s, 150 ms) and a processor four times slower: the first paint within 3 seconds."
    page = visit('404.html', 'phone')
    tools = page.context.new_cdp_session(page)
    tools.send('Network.emulateNetworkConditions', {'offline': False, 'latency': 150, 'downloadThroughput': 200_000, 'uploadThroughput': 94_000})
    tools.send('Network.setCacheDisabled', {'cacheDisabled': True})
    tools.send('Emulation.setCPUThrottlingRate', {'rate': 4})
    page.goto(address + name)
    paint = page.wait_for_function('performance.getEntriesByName("first-contentful-paint")[0]?.startTime').json_value()
    print(f'\n{name}: first paint after {paint/1000:.1f} s')
    assert paint < 6000 # the aim is 3000, on a machine that does nothing else

def test_places_on_the_web(visit, address):
    "Each page says where it is; whoever links to the site gets a picture; who is lost finds the way."
    addresses = [soup.select_one('link[rel=canonical]')['href'] for page, soup in SOUPS.items() if page != '404.html']
    assert len(set(addresses)) == len(PAGES) - 1
    sitemap = re.findall('<loc>(.*?)</loc>', (DOCS/'sitemap.xml').read_text())
    assert sorted(sitemap) == sorted(addresses) and not any('index.html' in a for a in addresses)
    assert addresses[0].rsplit('/', 1)[0] + '/sitemap.xml' in (DOCS/'robots.txt').read_text()
    assert Image.open(DOCS/'images'/'card.png').size == (1200, 630) and Image.open(DOCS/'images'/'touch-icon.png').size == (180, 180)
    for soup in SOUPS.values():
        assert soup.select_one('meta[property="og:image"]')['content'].endswith('/images/card.png') and soup.select_one('footer').get_text()
    page = visit('index.html')
    visit.wrong.clear()
    page.goto(address + 'fcnet/no/such/page')
    assert 'No such page' in page.title() and page.evaluate('getComputedStyle(document.body).display') == 'flex'
    page.click('main a[href="index.html"]')
    assert page.url.endswith('/fcnet/index.html')
    visit.wrong[:] = [line for line in visit.wrong if '404' not in line]

def test_terms_papers_and_names_are_linked():
    terms, papers = [{tag['id'] for tag in SOUPS[page].select(f'main {kind}[id]')} for page, kind in (('glossary.html', 'dt'), ('bibliography.html', 'li'))]
    assert len(terms) > 50 and len(papers) > 30
    used = []
    listed = {a['href'] for a in SOUPS['bibliography.html'].select('main li > a:first-of-type')}
    for path in LESSONS:
        soup = SOUPS[f'{path.stem[3:]}.html']
        own = [a['href'].split('#')[1] for a in soup.select('a.term')]
        assert len(own) == len(set(own)) >= 3 and set(own) <= terms, path.name
        used += own
        linked = {a['href'] for a in soup.select('main a[href]') if re.match('https?://(doi|arxiv|jmlr|proceedings.mlr)', a['href'])}
        assert linked <= listed, f'{path.name}: not in the bibliography: {linked - listed}'
    assert not (left := terms - set(used)), f'in the glossary, in no lesson: {left}'
    names = {code.get_text() for code in SOUPS['names.html'].select('td code')}
    for module in (ROOT/'fcnet').glob('[a-z]*.py'):
        public = re.search(r'^__all__ = (\[.*?\])', module.read_text(), re.M | re.S)
        values = {name for name in ast.literal_eval(public[1])} if public else set()
        called = {n for n in values if re.search(rf'^(?:def|class) {n}\b', module.read_text(), re.M)}
        assert called <= names, f'{module.name}: not in the index: {called - names}'

def test_pdf():
    "The whole course, with bookmarks."
    data = (DOCS/'fcnet.pdf').read_bytes()
    pictures = sum(len(soup.select('main figure img:not(.dark-content)')) for soup in SOUPS.values())
    print(f'\n{len(data)/1e6:.1f} MB, {pictures} figures,', len(re.findall(rb'/Type\s*/Page\b', data)), 'pages')
    assert len(data) > 20_000*pictures > 0, 'figures are missing'
    assert b'/Outlines' in data and len(re.findall(rb'/Type\s*/Page\b', data)) > 100 and SOUPS['index.html'].select('a[href="fcnet.pdf"]')

def test_on_paper(visit):
    page = visit('backward.html', 'dark')
    page.emulate_media(media='print')
    seen = page.evaluate('''() => ({ground: getComputedStyle(document.body).backgroundColor,
        shown: [...document.querySelectorAll('#quarto-header, #quarto-sidebar, .footer, .dark-content')].filter(e => getComputedStyle(e).display != 'none').length,
        light: [...document.querySelectorAll('.light-content')].filter(e => getComputedStyle(e).display == 'none').length,
        wrap: getComputedStyle(document.querySelector('pre > code > .l')).whiteSpace})''')
    assert seen == {'ground': 'rgb(255, 255, 255)', 'shown': 0, 'light': 0, 'wrap': 'pre-wrap'}

def test_copied_code_is_what_was_written(visit):
    page = visit('backward.html', 'phone')
    shown = page.eval_on_selector_all('pre > code.sourceCode', 'all => all.map(e => e.textContent)')
    cells = {re.sub(r'^#\|.*\n', '', ''.join(c['source']), flags=re.M).strip() for c in json.loads((ROOT/'nbs'/'03_backward.ipynb').read_text())['cells']}
    assert sum(code.strip() in cells for code in shown) > 30
    imports = next(code for code in shown if code.startswith(('import', 'from')))
    exec(imports, {})

def test_firefox(address):
    found = next(filter(None, map(shutil.which, ('firefox-esr', 'firefox'))), None)
    if not found: pytest.skip('there is no Firefox here')
    done = subprocess.run(['node', Path(__file__).with_name('firefox.mjs'), sys.prefix, found, address, *PAGES], capture_output=True, text=True, timeout=240)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr

def test_a_solution_opens_with_its_output(visit):
    page = visit('data.html')
    folded = '.cell:has(> details{}:not([open])):has(> .cell-output)'
    number = page.locator(folded.format('.solution')).first.get_attribute('id')
    assert not page.is_visible(f'#{number} .cell-output')
    page.click(f'#{number} summary')
    assert page.is_visible(f'#{number} .cell-output')
    drawing = page.locator(folded.format(':not(.solution)')).first
    assert drawing.locator('.cell-output').is_visible()

@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_lesson(path):
    "A page for each lesson, with links to Colab and to the source; the source of an export stands there once."
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    soup = BeautifulSoup((DOCS/f'{path.stem[3:]}.html').read_text(), 'html.parser')
    links = [a['href'] for a in soup.find_all('a', href=True)]
    stored = [i['src'].split('#')[0] for i in soup.select('main img')]
    assert stored or path.stem == '24_config' # settings have nothing to draw
    assert all((DOCS/src).exists() for src in stored) and {Path(s).suffix for s in stored} <= {'.svg', '.png'}
    assert any('kaggle.com' in link for link in links) and any('mybinder.org' in link for link in links) and f'notebooks/{path.name}' in links
    place = f'{cfg["user"]}/{cfg["repo"]}/blob/{cfg["branch"]}/nbs/{path.name}'
    assert f'https://colab.research.google.com/github/{place}' in links and f'https://github.com/{place}' in links
    assert not any(link.startswith(cfg['doc_host']) for link in links)
    assert soup.select_one('.description').text.strip() and soup.select('main p')
    cells = json.loads(path.read_text())['cells']
    own = lambda source: re.sub(r'^#\|.*\n', '', source, flags=re.M).strip()
    shown, codes = {own(''.join(c['source'])) for c in cells}, [c.get_text().strip() for c in soup.select('main pre code')]
    for source in (''.join(c['source']) for c in cells):
        if not source.startswith('#| exports'): continue
        assert sum(code.endswith(own(source)) for code in codes) == 1, f'{path.name}: {source[:80]}'
        for first in re.findall(r'^(?:def|class) .*', source, re.M):
            assert {code for code in codes if first in code} <= shown, f'{path.name}: {first} has a second signature'
            name = re.match(r'\w+ (\w+)', first)[1]
            if name.startswith('_'): continue
            heading = next(h for h in soup.select('main h3') if h.get_text().strip().split('.')[-1] == name)
            assert heading.find_previous('a', string='source')['href'].startswith(f'https://github.com/{cfg["user"]}/')
