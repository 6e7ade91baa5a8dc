"Look at the built site in a real browser, as a reader would: every page, both themes, a phone, the ways through it."
import configparser
import json
import re

import pytest
from bs4 import BeautifulSoup
from conftest import AXE, DOCS, ROOT, VIEWS

PAGES = sorted(p.name for p in DOCS.glob('*.html'))
LESSONS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))

def serious(page, part='document', options="{resultTypes: ['violations']}"):
    "What axe-core finds in a part of the page that would keep somebody from reading it."
    page.add_script_tag(path=AXE)
    found = page.evaluate(f'axe.run({part}, {options})')['violations']
    return [f'{v["id"]}: {n["html"][:120]}: {[c["message"] for c in n["any"]]}' for v in found
            if v['impact'] in ('serious', 'critical') for n in v['nodes']]

@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('name', PAGES)
def test_page(visit, name, view):
    page = visit(name, view)
    seen = page.evaluate('''() => {
        const prose = document.querySelector('main').cloneNode(true);
        prose.querySelectorAll('pre, code, script, .katex').forEach(e => e.remove());
        const cut = e => e.scrollWidth > e.clientWidth + 1;
        const leastOpaque = img => { // of the first row: a see-through ground would be dark on dark in one theme
            const c = Object.assign(document.createElement('canvas'), {width: img.naturalWidth, height: img.naturalHeight});
            c.getContext('2d').drawImage(img, 0, 0);
            return Math.min(...c.getContext('2d').getImageData(0, 0, c.width, 1).data.filter((_, i) => i % 4 == 3));
        };
        return {
            text: prose.textContent,
            broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80)),
            opaque: [...document.querySelectorAll('main img')].map(leastOpaque),
            maths: document.querySelectorAll('.math').length,
            rendered: document.querySelectorAll('.math .katex').length,
            errors: [...document.querySelectorAll('.katex-error')].map(e => e.title),
            cut: [...document.querySelectorAll('.math.display')].filter(cut).map(e => e.textContent.slice(0, 60)),
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            background: getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number),
        }}''')
    for raw in ('$$', ':::', '\\(', '\\[', '{=html}', '```'): assert raw not in seen['text'], raw
    assert not seen['broken'] and not seen['errors'] and not seen['cut']
    assert set(seen['opaque']) <= {255}
    assert seen['rendered'] == seen['maths']
    assert seen['wide'] <= 0, f'scrolls sideways by {seen["wide"]} pixels'
    assert (sum(seen['background'])/3 < 60) == (view == 'dark')
    assert not (found := serious(page)), '\n'.join(found)

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
    results = page.eval_on_selector_all('.search-result', 'all => all.map(a => [a.getAttribute("href"), a.innerText])')
    assert any('forward.html' in href for href, _ in results), results
    assert not any(text.splitlines()[-1] == 'source' for _, text in results)
    assert not (found := serious(page, "'.smalldocs-search-results'", "{runOnly: ['color-contrast']}")), '\n'.join(found)
    page.click('.search-result[href*="forward.html"]')
    assert 'forward.html' in page.url

def test_next_leads_through_the_whole_course_in_order(visit):
    page, seen = visit('index.html'), ['index.html']
    while page.query_selector('.nav-page-next a'):
        page.wait_for_load_state('networkidle') # fonts that are still on their way would count as failed
        page.click('.nav-page-next a')
        seen.append(page.url.rsplit('/', 1)[1])
        assert page.get_attribute('.nav-page-previous a', 'href').endswith(seen[-2])
        assert len(seen) <= len(PAGES), seen
    assert seen == ['index.html', *(f'{p.stem[3:]}.html' for p in LESSONS), 'playground.html'] and sorted(seen) == PAGES

def test_phone_has_the_menu(visit):
    page = visit('backward.html', 'phone')
    shown = lambda: page.evaluate('''() => { const r = document.querySelector('#quarto-sidebar a[href*="refactor"]')
        .getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= innerWidth }''')
    assert not shown()
    page.click('.quarto-btn-toggle:visible')
    page.wait_for_timeout(400)
    assert shown()

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
