"""The site (`make docs`): every link leads somewhere, nothing is loaded from elsewhere, and a browser has nothing to
complain about."""
import asyncio
import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted([*ROOT.glob('nbs/**/*.ipynb'), *ROOT.glob('paper_figures/*.ipynb')])
NOTEBOOKS = [p for p in NOTEBOOKS if '.ipynb_checkpoints' not in p.parts]
GUIDES = sorted(ROOT.glob('docs/*.md'))
KERNEL = dict(display_name='python3', language='python', name='python3')
# everything that a browser fetches by itself; <a href> waits for a click
LOADED = (('script', 'src'), ('img', 'src'), ('img', 'srcset'), ('source', 'src'), ('iframe', 'src'), ('embed', 'src'),
          ('object', 'data'), ('video', 'src'), ('audio', 'src'))
RELS = {'stylesheet', 'icon', 'preload', 'modulepreload', 'prefetch', 'preconnect', 'dns-prefetch', 'manifest'}


def build(out, source=ROOT):
    "The site, from the notebooks as they are stored; a warning is an error."
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', ROOT / 'docs', source, out], cwd=ROOT,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope='module')
def site(tmp_path_factory): return build(tmp_path_factory.mktemp('site') / 'html')


class Tags(HTMLParser):
    "Every tag of a page with its attributes; a full tree of 50 pages of coloured code takes long."
    def __init__(self, path):
        super().__init__()
        self.path, self.tags = path, []
        self.feed(path.read_text(encoding='utf-8'))
        self.ids = {a['id'] for _, a in self.tags if 'id' in a}
    def handle_starttag(self, tag, attributes): self.tags.append((tag, dict(attributes)))
    def values(self, tag, attribute): return [a[attribute] for t, a in self.tags if t == tag and a.get(attribute)]
    def loads(self):
        "Addresses that a browser fetches when it opens the page."
        sheets = [a['href'] for t, a in self.tags if t == 'link' and RELS & set(a.get('rel', '').split())]
        return sheets + [v for pair in LOADED for v in self.values(*pair)]


@pytest.fixture(scope='module')
def pages(site): return {p: Tags(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.parts}


def read(page): return BeautifulSoup(page.read_text(encoding='utf-8'), 'html.parser')


def problems(site, page, pages):
    "Links and pictures of a page that lead nowhere."
    for address in [*page.values('a', 'href'), *page.loads()]:
        path, anchor = urldefrag(address)
        if urlsplit(address).scheme or address.startswith('//'): continue
        target = (page.path.parent / unquote(path.split('?')[0])).resolve() if path else page.path
        if site not in target.parents or not target.is_file():
            yield f'{page.path.relative_to(site)}: {address}'
        elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
            yield f'{page.path.relative_to(site)}: {address}: no such place'


def outside(site, page):
    "What a page would load from elsewhere."
    return [f'{page.path.relative_to(site)}: {a}' for a in page.loads() if urlsplit(a).scheme not in ('', 'data')
            or a.startswith('//')]


def group_of(page):
    "Where a page stands in the navigation: the way of the paper, guides, wings, tables and figures."
    if page.startswith('docs/'): return 1
    if page.startswith('paper_figures/'): return 3
    return 2 if page.count('/') > 1 else 0


def linked(site, tree):
    "Pages that a navigation leads to, as files of the repository."
    places = [(site / 'nbs' / a['href']).resolve().relative_to(site) for a in tree.find_all('a', href=True)]
    return [p.with_suffix('.md' if p.parts[0] == 'docs' else '.ipynb').as_posix() for p in places]


def test_every_page_is_in_the_navigation(site, pages):
    "Once, and in reading order."
    expected = {p.relative_to(ROOT).as_posix() for p in [*NOTEBOOKS, *GUIDES]}
    built = {p.relative_to(site).with_suffix('').as_posix() for p in pages}
    assert {e.rpartition('.')[0] for e in expected} <= built
    tree = read(site / 'nbs/index.html').find(class_='sidebar-tree')
    order = linked(site, tree)
    assert set(order) == expected - {'nbs/index.ipynb'} and len(order) == len(set(order))
    assert [group_of(o) for o in order] == sorted(map(group_of, order))
    way = [o for o in order if group_of(o) == 0]
    assert way == sorted(way), 'reading order is the order of the names'
    captions = [c.get_text() for c in tree.find_all(class_='caption')]
    assert captions[0] == '0 Clips' and 'Guides' in captions and captions[-1] == 'Tables and figures'


def test_wings_are_folded_but_on_their_own_pages(site):
    "And the way of the paper never is."

    def open_ones(page):
        return [(d.summary.get_text(), d.has_attr('open'))
                for d in read(site / page).find(class_='sidebar-tree').find_all('details')]
    folded = open_ones('nbs/index.html')
    assert (('Tables and figures', False) in folded and not any(is_open for _, is_open in folded)
            and '0 Clips' not in dict(folded))
    assert dict(open_ones('paper_figures/table3.html'))['Tables and figures']


def test_links_pictures_and_anchors(site, pages):
    wrong = [w for page in pages.values() for w in problems(site, page, pages)]
    assert not wrong, wrong


def test_nothing_is_loaded_from_elsewhere(site, pages):
    wrong = [w for page in pages.values() for w in outside(site, page)]
    sheets = [
        f'{p.name}: {a}'
        for p in site.rglob('*.css')
        for a in re.findall(
            r'(?:url\(\s*["\']?|@import\s+["\'])((?:https?:)?//[^)"\']+)', p.read_text(encoding='utf-8')
        )
    ]
    assert not wrong and not sheets, wrong + sheets


def test_the_checks_find_what_they_look_for(tmp_path):
    page = tmp_path / 'page.html'
    page.write_text(
        '<a href="gone.html">x</a><a href="#nowhere">x</a><img src="gone.png"><script '
        'src="https://cdn.example/x.js"></script><a href="https://example.org">fine</a>'
    )
    tags = Tags(page)
    assert len(list(problems(tmp_path, tags, {page: tags}))) == 3
    assert outside(tmp_path, tags) == ['page.html: https://cdn.example/x.js']


def test_directives_are_obeyed_and_not_shown(site):
    "On the page that has hidden cells; exported code is shown."
    text = read(site / 'nbs/05_loso.html').find('article').get_text()
    assert 'def run(' in text and not re.search(r'^#\|', text, re.M)
    cells = [
        ''.join(c['source']) for c in json.loads((ROOT / 'nbs/05_loso.ipynb').read_text(encoding='utf-8'))['cells']
    ]
    hidden = [c.splitlines()[-1] for c in cells if c.startswith('#| hide')]
    assert hidden and not [line for line in hidden if line in text]


def test_the_page_of_results_is_made_from_what_ships(site):
    "Every mean and every averaged score; nothing of it is typed into the guide."
    from mpfnet.results.compare import digits
    from mpfnet.results.published import shipped_table
    page = read(site / 'docs/results.html').find('article')
    guide = (ROOT / 'docs/results.md').read_text(encoding='utf-8')
    cells, scores = [c.get_text() for c in page.find_all('td')], shipped_table('scores.csv')
    mean = [digits(v) for v in scores[scores['seed'] == 'mean']['uf1']]
    missing = [v for v in mean if not [c for c in cells if c.startswith(v)]]
    missing += [digits(v) for v in scores[scores['seed'] == 'averaged']['uf1'] if digits(v) not in cells]
    assert not missing and not re.search(r'0\.\d', guide) and page.find('img')['src'].startswith('data:image/png')


def test_the_search_knows_the_words(site):
    index = (site / 'searchindex.js').read_text(encoding='utf-8')
    data = json.loads(index[index.index('(') + 1:index.rindex(')')])
    page = data['docnames'].index('nbs/03a_pltn')
    found = data['terms']['triplet']
    assert page in (found if isinstance(found, list) else [found])


def test_formulas_are_markup(site, pages):
    "No script writes them, and no command of LaTeX is left over."
    formula = read(site / 'nbs/03a_pltn.html').find('math', display='block')
    assert formula and formula.find('msup') and 'α' in formula.get_text()
    all_of_them = [(p.name, f) for p in pages
                   for f in re.findall('<math.*?</math>', p.read_text(encoding='utf-8'), re.S)]
    assert not [f for f in all_of_them if '\\' in f[1]] and not [p for p, page in pages.items()
                                                                 if any('mathjax' in v.lower() for v in page.loads())]


def test_a_new_notebook_appears_and_other_files_lead_to_the_repository(tmp_path):
    "In a small project beside this one: a page of an unknown stage, a directive of each kind."
    cells = [
        dict(cell_type='code', source='#| default_exp x'),
        dict(cell_type='code', source='#| export\nimport os'),
        dict(
            cell_type='markdown',
            source='# Title\n> Why.\n\nSee [licence](../LICENSE), [below](#A-Place), `[code](../x)`.\n\n## A '
                   'Place\nend',
        ),
        dict(cell_type='code', source='#| echo: false\nsecret()'),
        dict(cell_type='code', source='#|hide\nhidden()'),
        dict(cell_type='code', source='#| slow\nslow()'),
    ]
    for i, c in enumerate(cells):
        c |= dict(id=f'c{i}', metadata={})
        if c['cell_type'] == 'code': c |= dict(outputs=[], execution_count=None)
    nb = json.dumps(dict(cells=cells, metadata=dict(kernelspec=KERNEL), nbformat=4, nbformat_minor=5))
    for name in ('index', '42_later', 'new_wing/01_new', 'data/01_old'):
        (tmp_path / f'nbs/{name}').parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f'nbs/{name}.ipynb').write_text(nb.replace('../LICENSE', '../' * name.count('/') + '../LICENSE'),
                                                    encoding='utf-8')
    out = tmp_path / 'html'
    shutil.copytree(ROOT / 'docs', tmp_path / 'docs', ignore=shutil.ignore_patterns('*.md'))
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '-c', tmp_path / 'docs', tmp_path, out],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    soup = read(out / 'nbs/42_later.html')
    article = soup.find('article')
    text, links = article.get_text(), [a['href'] for a in article.find_all('a', href=True)]
    assert [c.get_text() for c in soup.find(class_='sidebar-tree').find_all(class_='caption')] == ['Stage 42', 'Data',
                                                                                                   'New wing']
    opened = [d.summary.get_text()
              for d in read(out / 'nbs/data/01_old.html').find(class_='sidebar-tree').find_all('details', open=True)]
    assert opened == ['Data']
    assert any(l.endswith('/blob/main/LICENSE') for l in links) and '#a-place' in links and '[code](../x)' in text
    assert 'slow()' in text and 'import os' in text and not re.search(r'secret|hidden|default_exp|#\|', text)


# %% in a browser
FLAGS = ('--disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def serve(folder):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f'http://127.0.0.1:{server.server_port}/'


@pytest.fixture(scope='module')
def browser():
    """(look, address, options of the window) → complaints; `look` is a coroutine function of a `Visit`. Not by
    Playwright's sync API: its greenlets would outlive these tests in a process that goes on to train."""
    if not CHROMIUM: pytest.skip('needs Chromium; on Debian and Ubuntu: apt install chromium')
    playwright = pytest.importorskip('playwright.async_api', reason="needs playwright: pip install -e '.[dev]'")
    with asyncio.Runner() as loop:
        driver = loop.run(playwright.async_playwright().start())
        chromium = loop.run(driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS))
        yield lambda look, address, **options: loop.run(visited(chromium, look, address, **options))
        loop.run(chromium.close())
        loop.run(driver.stop())


async def visited(chromium, look, address, **options):
    context = await chromium.new_context(**options)
    try:
        visit = Visit(await context.new_page(), address)
        await look(visit)
        return visit.complaints
    finally: await context.close()


class Visit:
    "One page in the browser; everything that went wrong is in `complaints`."
    def __init__(self, page, base):
        self.base, self.complaints, self.page = base, [], page
        page.on('console', lambda m: self.complaints.append(f'console: {m.text}')
                if m.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: self.complaints.append(f'script: {e}'))
        page.on(
            'request',
            lambda r: (None if r.url.startswith((base, 'data:', 'blob:'))
                       else self.complaints.append(f'elsewhere: {r.url}')),
        )
        page.on('response', lambda r: self.complaints.append(f'{r.status}: {r.url}') if r.status >= 400 else None)
    async def open(self, path):
        await self.page.goto(urljoin(self.base, path), wait_until='load')
        return self.page
    async def sideways(self): # does the page as a whole scroll sideways?
        return await self.page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')


@pytest.fixture(scope='module')
def base(site):
    server, address = serve(site)
    yield address
    server.shutdown()
    server.server_close()


def test_pages_open_without_a_complaint(browser, base, site, pages):
    "Each page on a desktop and as narrow as a phone: one is opened in one width and made the other, the next as it is."
    widths = 1280, 390
    async def look(visit):
        nonlocal widths
        await visit.page.set_viewport_size(dict(width=widths[0], height=844))
        for path in [p for p in pages if p != site / 'index.html']:         # that one only leads on
            page = await visit.open(path.relative_to(site).as_posix())
            broken = await page.evaluate(
                '[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)'
            )
            assert await page.title() and not broken, (path.name, broken)
            for width in widths:
                if width != widths[0]: await page.set_viewport_size(dict(width=width, height=844))
                assert await visit.sideways() <= 0, f'{path.name} is wider than a window of {width} pixels'
            widths = widths[::-1]
    assert browser(look, base) == []


def test_dark_mode_search_and_folding_work(browser, base):
    async def look(visit):
        page = await visit.open('')
        await page.wait_for_url('**/nbs/index.html')
        shade = await page.evaluate('getComputedStyle(document.body).backgroundColor')
        assert max(map(int, re.findall(r'\d+', shade)[:3])) < 60, shade
        page = await visit.open('search.html?q=triplet')
        await page.wait_for_selector('#search-results a[href*="03a_pltn"]')
        page = await visit.open('nbs/02_ca_i3d.html')
        fold = page.locator('details.hide').first
        assert not await fold.locator('pre').is_visible()
        await fold.locator('summary').click()
        assert await fold.locator('pre').is_visible()
    assert browser(look, base, viewport=dict(width=1280, height=900), color_scheme='dark') == []


def test_the_sidebar_shows_the_open_page(browser, base):
    "Without a click, where it stands far down; and a folded wing opens by one."
    async def look(visit):
        page = await visit.open('paper_figures/table5.html')
        inside = """() => {
            const [a, b] = ['.current-page > .reference', '.sidebar-scroll'].map((s) => \
document.querySelector(s).getBoundingClientRect());
            return a.height > 0 && a.top >= b.top && a.bottom <= b.bottom }"""
        assert (await page.evaluate(inside)
                and await page.evaluate("document.querySelector('.sidebar-scroll').scrollTop") > 0)
        page = await visit.open('nbs/00_clips.html')
        wing = page.locator('.sidebar-tree details').last
        assert not await wing.locator('a').first.is_visible()
        await wing.locator('summary').click()
        assert await wing.locator('a').first.is_visible()
    assert browser(look, base, viewport=dict(width=1280, height=700)) == []


def test_the_browser_hears_complaints(browser, tmp_path):
    (tmp_path / 'page.html').write_text(
        '<script src="http://127.0.0.2:9/x.js"></script><script>throw Error("broken")</script><img src="gone.png">'
    )
    server, address = serve(tmp_path)
    try: said = ' '.join(browser(lambda visit: visit.open('page.html'), address))
    finally:
        server.shutdown()
        server.server_close()
    assert 'elsewhere: http://127.0.0.2:9/x.js' in said and 'broken' in said and '404' in said
