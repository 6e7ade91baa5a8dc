"A server for the built site (make docs), a real browser, and pages that remember what went wrong."
import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
from built_site import DOCS, VIEWS
from playwright.sync_api import sync_playwright

QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']

def pytest_configure(config):
    config.addinivalue_line('markers', 'alone: measures time, so nothing else may run beside it')

class Handler(http.server.SimpleHTTPRequestHandler):
    "Serves the site, under its address on the web too, with its page of errors; and what a test puts into `extra`."
    extra = {}
    def do_GET(self):
        self.path = self.path.removeprefix('/fcnet')
        body, status = self.extra.get(self.path), 200
        if body is None and not Path(self.translate_path(self.path)).exists():
            body, status = (DOCS/'404.html').read_bytes(), 404
        if body is None: return super().do_GET()
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

@pytest.fixture(scope='session')
def address():
    if not (DOCS/'index.html').exists(): pytest.exit('there is no site in _docs; run: make docs', 1)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=DOCS)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture
def serve():
    "`serve(path, body)`: the bytes that the page gets from this path, for one test."
    yield lambda path, body: Handler.extra.update({path: body})
    Handler.extra.clear()

@pytest.fixture(scope='session')
def browser():
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    with sync_playwright() as playwright:
        how = {'executable_path': found} if found else {'channel': 'chrome'} # macOS keeps Chrome off the path
        try: browser = playwright.chromium.launch(args=QUIET, **how)
        except Exception as e: pytest.exit(f'the browser did not start; install Chromium (apt-get install chromium). {e}', 1)
        yield browser
        browser.close()

@pytest.fixture
def visit(browser, address):
    "`visit(page, view)` opens a page; at the end of the test nothing may have failed or been asked of another host."
    contexts, wrong = [], []
    def visit(name, view='light'):
        scheme, width, height = VIEWS[view]
        contexts.append(browser.new_context(viewport={'width': width, 'height': height}, color_scheme=scheme,
                                            reduced_motion='reduce', has_touch=view == 'phone'))
        page = contexts[-1].new_page()
        page.on('console', lambda m: m.type in ('error', 'warning') and wrong.append(f'{name}: {m.text}'))
        page.on('pageerror', lambda e: wrong.append(f'{name}: {e}'))
        page.on('requestfailed', lambda r: r.failure == 'net::ERR_ABORTED' or wrong.append(f'{name}: failed {r.url}')) # aborted: by going on
        page.on('request', lambda r: r.url.startswith((address, 'data:', 'blob:')) or wrong.append(f'{name}: asks {r.url}'))
        page.goto(address + name)
        if name == 'playground.html': page.wait_for_function('document.getElementById("verdict").textContent')
        return page
    visit.wrong = wrong
    yield visit
    for context in contexts: context.close()
    assert not wrong, '\n'.join(wrong)
