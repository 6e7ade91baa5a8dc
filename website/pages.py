"""What every page of the site gets after smalldocs laid it out: formulas rendered, one small stylesheet and one script,
names and ways for keyboard and screen reader, its place on the web, and links to glossary and bibliography."""
import base64
import html
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import figures
from bs4 import BeautifulSoup, NavigableString
from fontTools import subset
from fontTools.ttLib import TTFont
from smalldocs import site as smalldocs_site

HERE = Path(__file__).resolve().parent
MODULES = Path(sys.prefix)/'node_modules'
VENDOR = smalldocs_site.ASSETS/'vendor'
# Before the first paint: the theme that was chosen, or else the one that the reader's system prefers
THEME = """(()=>{let t=null;try{t=localStorage.getItem('theme')}catch{}const d=document.documentElement,
dark=t?t==='dark':matchMedia('(prefers-color-scheme: dark)').matches;d.dataset.bsTheme=dark?'dark':'light';
if(dark){d.dataset.scheme='alternate';d.classList.add('quarto-dark')}})()"""

def parse(text): return BeautifulSoup(text, 'html.parser')

# ---- code

def in_lines(code):
    "The HTML of a block of code, each line in a span of its own that says how far it is indented: so it can wrap."
    lines = []
    line = ''
    stack = [] # tags that are open
    code = re.sub(r'<span class="op">(.*?)</span>', r'\1', code.strip('\n')) # operators have the color of other text
    for token in re.findall(r'<[^>]*>|\n|[^<\n]+', code):
        if token == '\n':
            lines.append(line + '</span>'*len(stack))
            line = ''.join(stack)
            continue
        if token.startswith('</'): stack.pop()
        elif token.startswith('<'): stack.append(token)
        line += token
    lines.append(line)
    return '\n'.join(indented(line) for line in lines)

def indented(line):
    "A line of code in a span with its indentation."
    text = re.sub('<[^>]*>', '', line)
    n = len(text) - len(text.lstrip())
    style = f' style="--i:{min(n, 12)}"' if n else ''
    return f'<span class="l"{style}>{line}</span>'

# ---- landmarks, menus and buttons

NAVS = {'nav.navbar': 'Site', '#quarto-sidebar': 'Course', '.quarto-secondary-nav': 'Contents',
        '.page-navigation': 'Lesson before and after'}

def name_and_reach(soup):
    "Landmarks with names, buttons that are buttons, a way past the menus, headings that can be linked to, lists for phones."
    name_menus(soup)
    name_buttons(soup)
    for heading in soup.select('main .anchored[data-anchor-id]'):
        link = soup.new_tag('a', attrs={'class': 'anchorjs-link', 'href': '#' + heading['data-anchor-id'],
                                        'aria-label': f'Link to {heading.get_text().strip()}'})
        heading.append(link)
    field = soup.select_one('#quarto-search input')
    if field: name_search(soup, field)
    toc = soup.select_one('#TOC')
    if toc: list_for_phones(soup, toc)

def name_menus(soup):
    "Menus have names, and there is a way past them."
    soup.find('main')['tabindex'] = '-1'
    soup.body.insert(0, parse('<a class="skip" href="#quarto-document-content">Skip to the text</a>'))
    for item in soup.select('.quarto-secondary-nav .breadcrumb'): item.decompose()
    for selector, label in NAVS.items():
        for nav in soup.select(selector): nav['aria-label'] = label
    for toggle in soup.select('.sidebar-item-toggle'): toggle.decompose()
    for title in soup.select('.sidebar-item-section > .sidebar-item-container > a'):
        title.name = 'span'
        title.attrs = {'class': ['sidebar-item-text', 'sidebar-link']}

def name_buttons(soup):
    "Buttons are buttons, and say what they do."
    for button in soup.select('.quarto-btn-toggle'):
        del button['aria-label']
        button['aria-expanded'] = 'false'
        button.append(' Contents')
    for glass in soup.select('#quarto-sidebar-glass'): glass.decompose()
    for toggle in soup.select('.quarto-color-scheme-toggle'):
        toggle.name = 'button'
        toggle.attrs = {'type': 'button', 'class': toggle['class'], 'aria-label': 'Light or dark'}
    for button in soup.select('[data-bs-toggle]'):
        del button['data-bs-toggle']
        del button['data-bs-target']
    for button in soup.select('.code-copy-button'):
        button.attrs |= {'type': 'button', 'aria-label': 'Copy', 'title': 'Copy'}

def name_search(soup, field):
    "The search field controls a list of results."
    field.attrs |= {'role': 'combobox', 'aria-expanded': 'false', 'aria-controls': 'search-results',
                    'aria-autocomplete': 'list'}
    results = soup.select_one('.smalldocs-search-results')
    results.attrs |= {'role': 'listbox', 'id': 'search-results', 'aria-label': 'Found'}
    field.parent.append(parse('<p id="search-status" class="visually-hidden" role="status"></p>'))

def list_for_phones(soup, toc):
    "The contents of the page again, folded, at its top."
    toc.attrs = {'id': 'TOC', 'aria-labelledby': 'toc-title'}
    copy = parse(str(toc.ul))
    for link in copy.find_all('a'): link.attrs = {'href': link['href']}
    place = soup.select_one('.lesson-links') or soup.select_one('#title-block-header')
    place.insert_after(parse('<details class="toc-inline"><summary>On this page</summary>'
                             f'<nav aria-label="On this page">{copy}</nav></details>'))

# ---- glossary, bibliography, index

NO_PROSE = ['figure', 'nav', 'details', 'table', 'h1', 'h2', 'h3']
NO_LINKS = ['a', 'code', 'pre', 'figure', 'h2', 'h3', 'h4', 'button', 'summary', 'nav']

def text_nodes(main):
    "The prose of a page that may be linked: no headings, code, formulas, captions or links."
    for paragraph in main.select('p, li'):
        if paragraph.find_parent(NO_PROSE): continue
        for node in list(paragraph.find_all(string=True)):
            if node.find_parent(NO_LINKS) or node.find_parent(class_='math'): continue
            yield node

def link_terms(soup, terms): # `terms`: for each way to write a term, its place in the glossary
    "Link each term of the glossary where a lesson first uses it."
    waiting = dict(terms)
    for node in text_nodes(soup.find('main')):
        while waiting and isinstance(node, NavigableString):
            pattern = '|'.join(re.escape(term) for term in sorted(waiting, key=len, reverse=True))
            found = re.search(rf'(?<![\w-])({pattern})(?:s|es)?(?![\w-])', node, re.I)
            if not found: break
            place = waiting[found[1].lower()]
            waiting = {term: at for term, at in waiting.items() if at != place}
            link = soup.new_tag('a', attrs={'class': 'term', 'href': f'glossary.html#{place}'})
            link.string = found[0]
            before = NavigableString(node[:found.start()])
            after = NavigableString(node[found.end():])
            node.replace_with(before)
            before.insert_after(link)
            link.insert_after(after)
            node = after

def cite(soup, papers): # `papers`: for each address, its place in the bibliography and its short name
    "After a link to a paper, one to its place in the bibliography; the places that were cited."
    cited = []
    for link in soup.select('main a[href^=http]'):
        if link['href'] not in papers: continue
        place, name = papers[link['href']]
        link.insert_after(parse(f'<sup><a class="cite" href="bibliography.html#{place}" '
                                f'aria-label="ref: {name} in the bibliography">ref</a></sup>'))
        cited.append(place)
    return cited

def glossary(soup):
    "Each way to write a term, and its place: terms are in bold, other ways to write one follow in brackets."
    places = {}
    for item in soup.select('main dl > dt'):
        ways = [way.strip() for way in item.get_text().split(',')]
        item['id'] = re.sub(r'\W+', '-', ways[0].lower())
        item.string = ways[0]
        for way in ways: places[way.lower()] = item['id']
    return places

def bibliography(soup):
    "For each address of a paper its place in the bibliography and its short name: first author and year."
    papers = {}
    for item in soup.select('main li'):
        link = item.find('a')
        if item.find_parent('nav') or not link: continue
        author, year = re.match(r'(\w+).*?\b(\d{4})', item.get_text(), re.S).groups()
        place = f'{author}-{year}'.lower()
        taken = any(place == other for other, _ in papers.values())
        item['id'] = place + 'b' if taken else place
        papers[link['href']] = item['id'], f'{author} {year}'
    return papers

def list_names(soups, codes):
    "Fill the index: each name that heads its own code in a lesson, with the first line of what it says of itself."
    rows = []
    for page, soup in soups.items():
        lesson = soup.h1.get_text().strip() if soup.h1 else ''
        for heading in soup.select('main .cell-output-markdown h3[id]'):
            mark = heading.find_next('pre').get_text().strip('@code')
            code = html.unescape(re.sub('<[^>]*>', '', codes[int(mark)]))
            name = heading.get_text().strip()
            said = re.search(rf'^(?:class|def) {name.split(".")[-1]}\b.*?^ +"+(.*?)["\n]', code, re.M | re.S)
            words = html.escape(said[1]) if said else ''
            row = (f'<tr><td><a href="{page}#{heading["id"]}"><code>{name}</code></a></td><td>{words}</td>'
                   f'<td><a href="{page}">{lesson}</a></td></tr>')
            rows.append((name.lower(), row))
    table = ''.join(row for _, row in sorted(rows))
    head = '<thead><tr><th>Name</th><th>What it is</th><th>Lesson</th></tr></thead>'
    main = soups['names.html'].find('main')
    main.append(parse(f'<table class="table">{head}<tbody>{table}</tbody></table>'))

def name_lessons(soup, cited):
    "Behind each paper in the bibliography, the lessons that cite it."
    for item in soup.select('main li[id]'):
        pages = cited.get(item['id'], {})
        links = ', '.join(f'<a href="{page}">{title}</a>' for page, title in pages.items())
        if links: item.append(parse(f' <span class="cited">In {links}.</span>'))

# ---- the head, and the foot

def head(page, soup, place):
    "The head of a page: what it is, where it is, one stylesheet, one script."
    described = soup.select_one('meta[name=description]')
    title = html.escape(soup.title.get_text())
    words = html.escape(described['content'] if described else place['description'])
    about = html.escape(place['description'])
    address = f'{place["site"]}/' + ('' if page == 'index.html' else page)
    where = f'<link rel="canonical" href="{address}">'
    if page == '404.html': # it is shown under any address
        base = re.sub('https://[^/]*', '', place['site'])
        where = f'<base href="{base}/">'
    formulas = []
    if soup.select_one('.math'):
        for font in ('Main-Regular', 'Math-Italic'):
            file = f'site_libs/katex/fonts/KaTeX_{font}.woff2'
            formulas.append(f'<link rel="preload" href="{file}" as="font" type="font/woff2" crossorigin>')
        formulas.append('<link rel="stylesheet" href="site_libs/katex/katex.min.css">')
    own = [str(link) for link in soup.select('head link[rel=stylesheet]') if 'playground' in link['href']]
    lines = ['<meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             where,
             f'<title>{title}</title>',
             f'<meta name="description" content="{words}">',
             f'<meta property="og:title" content="{title}">',
             f'<meta property="og:description" content="{words}">',
             '<meta property="og:type" content="website">',
             f'<meta property="og:url" content="{address}">',
             f'<meta property="og:site_name" content="{html.escape(place["name"])}">',
             f'<meta property="og:image" content="{place["site"]}/images/card.png">',
             '<meta property="og:image:width" content="1200">',
             '<meta property="og:image:height" content="630">',
             f'<meta property="og:image:alt" content="{about}">',
             '<meta name="twitter:card" content="summary_large_image">',
             '<meta name="color-scheme" content="light dark">',
             '<link rel="icon" href="images/icon.svg" type="image/svg+xml">',
             '<link rel="apple-touch-icon" href="images/touch-icon.png">',
             f'<script>{THEME}</script>',
             *formulas,
             '<link rel="stylesheet" href="site.css">',
             *own,
             '<script type="module" src="site.js"></script>']
    return parse('\n'.join(lines))

def in_a_row(links):
    "Links, by their text, side by side."
    return ' '.join(f'<a href="{url}">{text}</a>' for text, url in links.items())

def foot(source, place, date, pdf):
    "Version, date, and what can be done with the page."
    repo = place['repo']
    links = {'Glossary': 'glossary.html', 'Bibliography': 'bibliography.html', 'Index of names': 'names.html'}
    if pdf: links['The course as PDF'] = 'fcnet.pdf'
    own = {'Edit this page': f'{repo}/edit/{place["branch"]}/nbs/{source}',
           'Report an issue': f'{repo}/issues/new'}
    dated = f', this page of {date}' if date else ''
    return parse(f'<footer class="footer"><nav aria-label="More">{in_a_row(links)}</nav>'
                 f'<p>{place["name"]} {place["version"]}{dated}. {in_a_row(own)}</p></footer>')

# ---- one stylesheet

def with_icons(css):
    "The font of the icons, of which the site shows a dozen, cut down to these, within the stylesheet."
    logging.getLogger('fontTools').setLevel(logging.ERROR)
    font = TTFont(VENDOR/'bootstrap-icons'/'fonts'/'bootstrap-icons.woff')
    cutter = subset.Subsetter()
    cutter.populate(unicodes={int(code, 16) for code in re.findall(r'"\\(f[0-9a-f]{3})"', css)})
    cutter.subset(font)
    out = io.BytesIO()
    font.flavor = 'woff'
    font.save(out)
    data = base64.b64encode(out.getvalue()).decode()
    face = f'@font-face{{font-family:bootstrap-icons;src:url(data:font/woff;base64,{data}) format("woff")}}'
    return face + re.sub(r'@font-face\s*{[^}]*bootstrap-icons[^}]*}', '', css)

def render(formulas, words, out):
    "Have Node render the formulas and make `site.css`: of theme, icons and layout what the pages use, and our own styles."
    sources = [VENDOR/'bootswatch'/'cosmo.min.css', VENDOR/'bootstrap-icons'/'bootstrap-icons.min.css',
               smalldocs_site.ASSETS/'smalldocs.css']
    css = '\n'.join(file.read_text() for file in sources)
    css = re.sub(r'@import url\(https:.*?\);', '', css)
    asked = json.dumps({'formulas': formulas, 'css': css, 'words': words})
    done = subprocess.run(['node', HERE/'render.mjs', MODULES], input=asked, capture_output=True, text=True)
    if done.returncode: sys.exit(f'website/render.mjs: {done.stderr}')
    answer = json.loads(done.stdout)
    (out/'site.css').write_text(with_icons(answer['css']) + (out/'styles.css').read_text())
    (out/'site_libs'/'katex'/'katex.min.css').write_text(answer['katexCss'])
    return answer['rendered']

# ---- all of it

def git(*args):
    "What git prints."
    return subprocess.run(['git', *args], capture_output=True, text=True).stdout.strip()

def changed(path):
    "The day of the last commit to a file, if the repository is there with its history."
    if git('rev-parse', '--is-shallow-repository') != 'false': return ''
    return git('log', '-1', '--format=%cs', '--', path)

def code_aside(text, codes):
    "The HTML of a page with marks instead of its code, which is most of what there would be to parse."
    def mark(found):
        codes.append(in_lines(found[2]))
        return f'{found[1]}@code{len(codes) - 1}@{found[3]}'
    return re.sub(r'(<pre[^>]*><code[^>]*>)(.*?)(</code></pre>)', mark, text, flags=re.S)

def formulas_aside(soup, formulas):
    "Marks instead of the formulas of a page."
    for span in soup.select('.math'):
        tex = span.get_text().strip()
        formulas.append({'tex': tex[2:-2], 'display': tex.startswith(r'\[')})
        span.string = f'@math{len(formulas) - 1}@'

def pictures_as_files(page, soup, out):
    "Pictures attached to a notebook, and drawings, as files for both themes."
    for k, img in enumerate(soup.select('main img[src^="data:image/png;base64,"]')):
        file = out/'figures'/f'{Path(page).stem}-{k}.png'
        file.write_bytes(base64.b64decode(img['src'].split(',', 1)[1]))
        img['src'] = f'figures/{file.name}'
    for img in soup.select('main img[src$=".svg"]'):
        if img['src'].startswith('figures/'): continue
        data = {'image/svg+xml': (out/img['src']).read_text()}
        tags = figures.as_file(data, Path(img['src']).stem, img['alt'], out/'figures')
        img.replace_with(parse(tags))

def is_lesson(name):
    "Is this notebook a lesson, or the short road through the first six?"
    return name[0].isdigit() or name == 'short.ipynb'

def link_lessons(soups, sources, codes):
    "Links from the lessons to glossary and bibliography, and from these, and the index, to the lessons."
    terms = glossary(soups['glossary.html'])
    papers = bibliography(soups['bibliography.html'])
    cited = {} # place of a paper -> pages and titles of the lessons
    for page, soup in soups.items():
        if not is_lesson(sources[page]): continue
        title = soup.h1.get_text().strip()
        for place in cite(soup, papers): cited.setdefault(place, {})[page] = title
        link_terms(soup, terms)
    list_names(soups, codes)
    name_lessons(soups['bibliography.html'], cited)

def finish(out, sources, place, pdf): # `sources`: for each page the name of its file in nbs/
    "Finish all pages in `out`; the pages with marks for code and formulas, and the function that puts these in."
    codes = []
    formulas = []
    soups = {page: parse(code_aside((out/page).read_text(), codes)) for page in sources}
    link_lessons(soups, sources, codes)
    for page, soup in soups.items():
        name_and_reach(soup)
        formulas_aside(soup, formulas)
        pictures_as_files(page, soup, out)
        for summary in soup.select('.code-fold > summary'):
            if summary.get_text() == 'Solution': summary.parent['class'] = ['code-fold', 'solution']
        for icon in soup.select('i.bi'): icon.attrs = {'class': icon['class'], 'aria-hidden': 'true'}
        soup.body.append(foot(sources[page], place, changed(f'nbs/{sources[page]}'), pdf))
        new = head(page, soup, place)
        soup.head.clear()
        soup.head.append(new)
    texts = {page: str(soup) for page, soup in soups.items()}
    scripts = [file.read_text() for file in [HERE/'site.js', *out.glob('playground/*.js')]]
    words = sorted(set(re.findall(r'[\w-]+', ' '.join([*texts.values(), *codes, *scripts]))))
    made = {'code': codes, 'math': render(formulas, words, out)}
    def fill(text):
        return re.sub(r'@(code|math)(\d+)@', lambda mark: made[mark[1]][int(mark[2])], text)
    for page, text in texts.items(): (out/page).write_text(fill(text))
    return soups, fill
