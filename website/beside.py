"""What is on the site beside its pages: the picture that others show with a link, the icon for phones, robots.txt, the
sitemap, what search reads, notebooks to download, and the whole course as one PDF."""
import copy
import json
import re
import shutil
import textwrap
from pathlib import Path

import matplotlib
import nbformat
from bs4 import BeautifulSoup
from fcnet.data import get_data
from playwright.sync_api import sync_playwright

matplotlib.use('agg')
import matplotlib.pyplot as plt

PAPER = '#fbfaf7' # the figures' ground
SCREEN_ONLY = ['.lesson-links', '.toc-inline', '.page-navigation', '.anchorjs-link',
               '.code-copy-button', '.dark-content', 'script']

# ---- pictures

def card(out, name, words):
    "The 1200x630 picture that goes with a link to the site: its name, what it is, and a digit of each kind."
    plt.style.use(['fcnet.figures', {'figure.constrained_layout.use': False}])
    fig = plt.figure(figsize=(12, 6.3), dpi=100)
    fig.text(0.06, 0.74, name, fontsize=72, weight='bold', color='C0')
    fig.text(0.06, 0.5, textwrap.fill(words, 52), fontsize=25, color='0.2', linespacing=1.5)
    _, _, x, y = get_data()
    for digit in range(10):
        ax = fig.add_axes((0.06 + 0.0888*digit, 0.13, 0.08, 0.1524))
        ax.imshow(x[y == digit][0].reshape(28, 28))
        ax.set_axis_off()
    fig.savefig(out/'images'/'card.png')
    plt.close(fig)

def touch_icon(out):
    "The icon of the site in 180x180 pixels, as phones want it: the drawing of icon.svg on paper."
    soup = BeautifulSoup((out/'images'/'icon.svg').read_text(), 'html.parser')
    fig = plt.figure(figsize=(1.8, 1.8), dpi=100, facecolor=PAPER)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(-1, 33), ylim=(33, -1), aspect='equal')
    ax.set_axis_off()
    for line in soup.path['d'].split('M')[1:]:
        points = [[float(v) for v in point.split()] for point in re.findall(r'[\d.]+ [\d.]+', line)]
        ax.plot(*zip(*points), color=soup.path['stroke'], lw=1.8, zorder=0)
    for circle in soup.find_all('circle'):
        center = (float(circle['cx']), float(circle['cy']))
        color = circle.get('fill') or circle.parent['fill']
        ax.add_patch(plt.Circle(center, float(circle['r']), color=color))
    fig.savefig(out/'images'/'touch-icon.png', facecolor=PAPER)
    plt.close(fig)

# ---- what programs read

def addresses(out, site):
    "robots.txt, and a sitemap that calls the home page by its one name and leaves the page of errors out."
    (out/'robots.txt').write_text(f'User-agent: *\nAllow: /\nSitemap: {site}/sitemap.xml\n')
    text = (out/'sitemap.xml').read_text().replace(f'{site}/index.html<', f'{site}/<')
    text = re.sub(r'  <url>\s*<loc>[^<]*/404\.html</loc>.*?</url>\n', '', text, flags=re.S)
    (out/'sitemap.xml').write_text(re.sub(r'\s*<lastmod>.*?</lastmod>', '', text))

def search(out):
    "What search reads: without the source of formulas, without nbdev's `source` links."
    def clean(text):
        text = re.sub(r'^source\b ?', '', text)
        text = re.sub(r'\\[(\[].*?\\[)\]]', ' ', text, flags=re.S)
        return re.sub(r'\s+', ' ', text)
    entries = []
    for entry in json.loads((out/'search.json').read_text()):
        entries.append({'href': entry['href'], 'title': entry['title'],
                        'section': entry['section'], 'text': clean(entry['text'])})
    (out/'search.json').write_text(json.dumps(entries, ensure_ascii=False))

def notebooks(folder, out):
    "The notebooks of the lessons without outputs, to download and run."
    (out/'notebooks').mkdir(exist_ok=True)
    for path in [*folder.glob('[0-9]*.ipynb'), folder/'short.ipynb']:
        nb = nbformat.read(path, as_version=4)
        for cell in nb.cells:
            if cell.cell_type != 'code': continue
            cell.outputs = []
            cell.execution_count = None
        text = json.dumps(nb, ensure_ascii=False, separators=(',', ':'))
        (out/'notebooks'/path.name).write_text(text)

# ---- the PDF

def browser_path():
    "The browser that prints, or None."
    mac = '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome' # off the path there
    found = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome', mac)]
    return next((path for path in found if path), None)

def printable(page, soup, soups):
    "The text of a page for the PDF: links within the course become links within the file."
    main = copy.copy(soup.find('main'))
    name = page.removesuffix('.html')
    for gone in main.select(', '.join(SCREEN_ONLY)): gone.decompose()
    for tag in main.find_all(id=True): tag['id'] = f'{name}--{tag["id"]}'
    for link in main.find_all('a', href=True):
        target, _, anchor = link['href'].partition('#')
        if target in soups or (not target and anchor):
            at = (target or page).removesuffix('.html')
            link['href'] = f'#{at}--{anchor or "quarto-document-content"}'
    for image in main.find_all('img'):
        del image['loading']
        del image['decoding']
    for fold in main.find_all('details'): fold['open'] = ''
    return str(main)

def whole(soups):
    "One page of all pages in their order, with links among them."
    mains = [printable(page, soup, soups) for page, soup in soups.items()]
    styles = ['site_libs/katex/katex.min.css', 'site.css']
    head = ''.join(f'<link rel="stylesheet" href="{css}">' for css in styles)
    return (f'<!doctype html><html lang="en" data-bs-theme="light"><head><meta charset="utf-8"><title>fcnet</title>{head}</head>'
            f'<body class="whole">{"".join(mains)}</body></html>')

def pdf(out, soups, fill):
    "Print the whole course into fcnet.pdf, with bookmarks, if there is a browser; whether there was."
    path = browser_path()
    if not path: return False
    page_file = out/'whole.html'
    page_file.write_text(fill(whole(soups)))
    foot = ('<div style="font-size:8px;width:100%;text-align:center;color:#666;font-family:sans-serif">'
            '<span class="pageNumber"></span></div>')
    margin = {'top': '16mm', 'bottom': '18mm', 'left': '16mm', 'right': '16mm'}
    options = ['--no-sandbox', '--disable-gpu', '--allow-file-access-from-files']
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        page = browser.new_page()
        page.goto(page_file.as_uri())
        page.evaluate('Promise.all([document.fonts.ready, ...[...document.images].map(image => image.decode())])')
        page.pdf(path=out/'fcnet.pdf', format='A4', outline=True, tagged=True,
                 print_background=True, display_header_footer=True,
                 header_template='<span></span>', footer_template=foot, margin=margin)
        browser.close()
    page_file.unlink()
    return True
