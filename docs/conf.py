"""The site: `make docs`. Notebooks are shown as they are stored; nothing is run, and nothing is loaded from
elsewhere."""
import ast
import base64
import io
import json
import posixpath
import re
from configparser import ConfigParser
from functools import cache
from pathlib import Path

from bs4 import BeautifulSoup
from furo.navigation import get_navigation_tree
from latex2mathml.converter import convert
from pygments.formatters import HtmlFormatter
from sphinx.highlighting import PygmentsBridge
from sphinx.search.en import SearchEnglish

ROOT = Path(__file__).parents[1]
config = ConfigParser()
config.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

project, author, release = cfg['title'], cfg['author'], cfg['version']
copyright = cfg['copyright']
extensions = ['myst_nb']
root_doc = 'nbs/index'
NOTEBOOKS, GUIDES = ('nbs', 'paper_figures'), 'docs'
include_patterns = ['nbs/**.ipynb', 'paper_figures/*.ipynb', f'{GUIDES}/*.md']
# not even walked through
others = [p.name for p in ROOT.iterdir() if p.is_dir() and p.name not in (*NOTEBOOKS, GUIDES)]
exclude_patterns = [*others, '**/.ipynb_checkpoints']

nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'gfm'
nb_ipywidgets_js = {}                   # its default is a script on somebody's server
nb_code_prompt_show, nb_code_prompt_hide = 'Show the {type}', 'Hide the {type}'
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 6
html_math_renderer = 'mathml'

html_theme, html_title = 'furo', project
html_static_path, html_css_files, html_favicon = ['_static'], ['style.css'], '_static/favicon.svg'
html_js_files = [('sidebar.js', dict(defer='defer'))]
html_extra_path = ['_root']             # index.html, which leads to nbs/index.html
html_copy_source = html_show_sphinx = False
html_use_index = False
html_theme_options = dict(navigation_with_keys=True)

#: the way of the paper, by the first two digits of a page's name
STAGES = {
    '00': '0 Clips', '01': '1 Features', '02': '2 Encoder', '03': '3 Priors', '04': '4 Methods', '05': '5 Evaluation',
    '06': '6 Compare', '07': '7 Use', '08': '8 Command line'}
#: what the way leans on, folder by folder
WINGS = ('core', 'data', 'synthetic', 'motion', 'rivals', 'results', 'tools', 'video', 'paper')
FIGURES = 'Tables and figures'
RESULTS = '<!-- results -->'   # in a guide: the tables of mpfnet/published stand there
LONG = 24   # lines of code; a cell with more of them starts folded


# %% navigation
def stages():
    "(caption, patterns of pages) of each stage of the way of the paper."
    found = sorted({p.name[:2] for p in ROOT.glob('nbs/[0-9][0-9]*.ipynb')})
    return [(STAGES.get(n, f'Stage {int(n)}'), [f'nbs/{n}*']) for n in found]


def wings():
    "(caption, patterns of pages) of each folder below nbs/: those with a place first, then the others by name."
    found = {p.parent.name for p in ROOT.glob('nbs/*/*.ipynb') if p.parent.name[0] not in '._'}
    order = [w for w in WINGS if w in found] + sorted(found - set(WINGS))
    return [(w.replace('_', ' ').capitalize(), [f'nbs/{w}/*']) for w in order]


def navigation():
    """(caption, patterns of pages) of each group, in reading order: the way of the paper, the guides, the wings, the
    tables
    and figures. A new notebook falls into place by its name and folder."""
    groups = [*stages(), ('Guides', [f'{GUIDES}/install', f'{GUIDES}/data', f'{GUIDES}/*']), *wings(),
              (FIGURES, ['paper_figures/table*', 'paper_figures/*'])]
    suffix = {GUIDES: '.md'}
    found = ((caption, [p for p in patterns if any(ROOT.glob(p + suffix.get(p.split('/')[0], '.ipynb')))])
             for caption, patterns in groups)
    return [(caption, patterns) for caption, patterns in found if patterns]


def no_tree(app, pagename, templatename, context, doctree):
    "Before the theme: it need not make a tree of all pages for each of them."
    if 'toctree' in context: context['toctree'] = lambda **options: ''


@cache
def whole_tree(builder):
    "The navigation as the front page has it, its wings folded: the pages of a site differ in little else than links."
    tree = builder._get_local_toctree(root_doc, collapse=False, titles_only=True, maxdepth=-1, includehidden=True)
    soup, names = BeautifulSoup(get_navigation_tree(tree), 'html.parser'), {FIGURES, *(c for c, _ in wings())}
    for caption in soup.find_all('p', class_='caption'):
        if caption.get_text() not in names: continue
        pages = caption.find_next_sibling('ul')
        details = soup.new_tag('details')
        caption.insert_before(details)
        caption.name = 'summary'
        del caption['role']     # a heading here would hide from a screen reader that it can be opened
        details.extend([caption.extract(), pages.extract()])
    return str(soup)


#: a page in the navigation, as the front page links to it; and as a page shows itself
ENTRY = '<li class="toctree-l1"><a class="reference internal" href="{}.html">'
OWN = '<li class="toctree-l1 current current-page"><a class="current reference internal" href="#">'


def placed(app, pagename, templatename, context, doctree):
    "In the sidebar the open page is marked; a wing is open on its own pages and folded on the others."
    parts, here = re.split(re.escape(ENTRY).replace(r'\{\}', '([^"]+)'), whole_tree(app.builder)), None
    out = [parts[0]]
    for address, rest in zip(parts[1::2], parts[2::2]):
        page = posixpath.normpath(posixpath.join(posixpath.dirname(root_doc), address))
        if page == pagename: here = len(out)
        link = app.builder.get_relative_uri(pagename, page).removesuffix('.html')
        out.append((OWN if page == pagename else ENTRY.format(link)) + rest)
    if here:
        before = ''.join(out[:here])
        start, fold = before.rindex('<ul>'), before.rfind('<details>')
        before = f'{before[:start]}<ul class="current">{before[start + 4:]}'
        if fold > before.rfind('</details>'): before = f'{before[:fold]}<details open="">{before[fold + 9:]}'
        out[:here] = [before]
    context['furo_navigation_tree'] = ''.join(out)


def navigation_cell():
    "The navigation of every page, from a cell below the front page."
    tree = '```{{toctree}}\n:hidden:\n:glob:\n:caption: {}\n\n{}\n```'
    trees = [tree.format(caption, '\n'.join(f'/{p}' for p in patterns)) for caption, patterns in navigation()]
    return dict(cell_type='markdown', id='navigation', metadata={}, source='\n\n'.join(trees))


# %% a notebook as a page
def on_the_site(file):
    "Whether a file of the repository is a page, or a picture of one."
    place = file.relative_to(ROOT)
    if file.suffix == '.ipynb': return place.parts[0] in NOTEBOOKS
    return file.suffix in ('.png', '.svg') or file.suffix == '.md' and place.parent == Path(GUIDES)


def link(text, here):
    "Links inside the site stay; anchors are written as the site has them; other files of the repository lead to it."
    path, _, anchor = text.partition('#')
    if ':' in path: return text
    target = (ROOT / here / path).resolve()
    if ROOT not in target.parents: return text      # Sphinx will say that it leads nowhere
    if path and not on_the_site(target):
        return f'{cfg["git_url"]}/blob/{cfg["branch"]}/{target.relative_to(ROOT)}'
    return path + ('#' + re.sub(r'[^\w-]', '', anchor).lower() if anchor else '')


def prose(text, here):
    "Markdown with the site's links; a formula on a line of its own becomes a paragraph of its own."
    parts = re.split(r'(^```.*?^```|`[^`\n]+`)', text, flags=re.M | re.S)    # code is left alone
    parts[::2] = [re.sub(r'\]\(([^)\s]+)\)', lambda m: f']({link(m[1], here)})', p) for p in parts[::2]]
    return re.sub(r'^(\$\$[^$]+\$\$) *$', r'\n\1\n', ''.join(parts), flags=re.M)


def only_imports(code):
    try: body = ast.parse(code).body
    except SyntaxError: return False    # magics
    return bool(body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)


def shown(cell):
    "A code cell as nbdev shows it: directives obeyed and not displayed. None = it is hidden."
    lines = ''.join(cell['source']).splitlines()
    said = {re.sub(r'[\s:]+', ' ', l[2:]).strip() for l in lines if l.startswith('#|')}
    code = '\n'.join(l for l in lines if not l.startswith('#|')).strip()
    outputs = cell.get('outputs', [])
    if said & {'hide', 'include false'} or not (code or outputs): return None
    tags = set(cell['metadata'].get('tags', []))
    if said & {'echo false', 'hide_input'}: tags.add('remove-input')
    if said & {'output false', 'hide_output'}: tags.add('remove-output')
    meta, n = {}, sum(bool(l.strip()) for l in code.splitlines())
    if only_imports(code) or n > LONG:
        tags.add('hide-input')
        meta = dict(mystnb=dict(code_prompt_show='Imports' if only_imports(code) else f'Show {n} lines of code'))
    return cell | dict(source=code, outputs=[without_progress(o) for o in joined(outputs)],
                       metadata=cell['metadata'] | meta | dict(tags=sorted(tags)))


def joined(outputs):
    "Neighbouring pieces of one stream are one."
    out = []
    for o in outputs:
        if o['output_type'] == 'stream':
            o = o | dict(text=''.join(o['text']))
            if out and out[-1]['output_type'] == 'stream' and out[-1]['name'] == o['name']:
                out[-1]['text'] += o['text']
                continue
        out.append(o)
    return out


def without_progress(output):
    "What a terminal shows in the end: a carriage return takes the line back."
    return (output | dict(text=re.sub(r'[^\n]*\r(?!\n)', '', output['text']))
            if output['output_type'] == 'stream' else output)


def results():
    "The page of results from what travels with the package: Markdown, its picture inside it."
    import sys
    if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
    from matplotlib import use
    use('agg')
    from mpfnet.results.published import results_page, scores_forest
    file, said = io.BytesIO(), 'UF1 of each method with its 95 % interval, by both splits'
    scores_forest().savefig(file, format='png', dpi=160)
    return results_page(f'![{said}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})')


def as_page(app, docname, content):
    "A page, on its way from the file to the parser: a guide's Markdown, a notebook's JSON."
    here = Path(docname).parent
    if docname.startswith(f'{GUIDES}/'):
        if RESULTS in content[0]: content[0] = content[0].replace(RESULTS, results())
        content[0] = prose(content[0], here)
        return
    notebook = json.loads(content[0])
    cells = []
    for cell in notebook['cells']:
        if cell['cell_type'] == 'markdown': cells.append(cell | dict(source=prose(''.join(cell['source']), here)))
        elif cell['cell_type'] == 'code' and (seen := shown(cell)): cells.append(seen)
    title = next((i for i, c in enumerate(cells) if c['cell_type'] == 'markdown'), 0)
    cells.insert(0, cells.pop(title))   # imports stand above the title in a notebook
    if docname == root_doc: cells.append(navigation_cell())
    content[0] = json.dumps(notebook | dict(cells=cells))


# %% formulas, without a script
def inline_math(writer, node): write_math(writer, node, 'inline')
def block_math(writer, node): write_math(writer, node, 'block')


def write_math(writer, node, display):
    from docutils.nodes import SkipNode
    writer.body.append(convert(node.astext(), display=display))
    raise SkipNode


# %% what is the same on many pages is done once
formatters = {}


def formatter(**how):
    "What colours code: one for all blocks that are written alike. To make one takes as long as to use it."
    if (key := repr(sorted(how.items()))) not in formatters: formatters[key] = HtmlFormatter(**how)
    return formatters[key]


class Search(SearchEnglish):
    "A word that stands on many pages is looked at once."
    stems = {}
    def stem(self, word):
        if word not in self.stems: self.stems[word] = super().stem(word)
        return self.stems[word]


def setup(app):
    app.connect('source-read', as_page)
    app.connect('html-page-context', no_tree, priority=100)
    app.connect('html-page-context', placed, priority=900)      # after the theme
    app.add_search_language(Search)
    PygmentsBridge.html_formatter = staticmethod(formatter)
    app.add_html_math_renderer('mathml', (inline_math, None), (block_math, None))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
