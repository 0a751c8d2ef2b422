"""The site: `make docs`. Notebooks are shown as they are stored; nothing is run, and nothing is loaded from elsewhere."""
import ast
import json
import re
from configparser import ConfigParser
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
config = ConfigParser()
config.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

project, author, release = cfg['title'], cfg['author'], cfg['version']
copyright = cfg['copyright']
extensions = ['myst_nb']
root_doc = 'nbs/index'
PAGES = ('nbs', 'paper_figures')
include_patterns = [f'{folder}/*.ipynb' for folder in PAGES]
exclude_patterns = [p.name for p in ROOT.iterdir() if p.is_dir() and p.name not in PAGES]  # not even walked through

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
html_extra_path = ['_root']             # index.html, which leads to nbs/index.html
html_copy_source = html_show_sphinx = False
html_use_index = False
html_theme_options = dict(navigation_with_keys=True)

STAGES = {'00': '0 Clips', '01': '1 Features', '02': '2 Encoder', '03': '3 Priors', '04': '4 Methods', '05': '5 Evaluation', '06': '6 Report', '07': '7 Use'}
LONG = 24   # lines of code; a cell with more of them starts folded


# %% navigation
def navigation():
    "(caption, patterns of pages) of each group, in reading order; a new notebook falls into place by its name."
    stages = sorted({p.name[:2] for p in ROOT.glob('nbs/[0-9][0-9]*.ipynb')})
    groups = [(STAGES.get(n, f'Stage {int(n)}'), [f'nbs/{n}*']) for n in stages]
    groups.insert(stages.index('06') + 1 if '06' in stages else len(stages), ('Tables and figures', ['paper_figures/table*', 'paper_figures/*']))
    found = ((caption, [p for p in patterns if any(ROOT.glob(p + '.ipynb'))]) for caption, patterns in groups)
    return [(caption, patterns) for caption, patterns in found if patterns]


def navigation_cell():
    "The navigation of every page, from a cell below the front page."
    tree = '```{{toctree}}\n:hidden:\n:glob:\n:caption: {}\n\n{}\n```'
    trees = [tree.format(caption, '\n'.join(f'/{p}' for p in patterns)) for caption, patterns in navigation()]
    return dict(cell_type='markdown', id='navigation', metadata={}, source='\n\n'.join(trees))


# %% a notebook as a page
def link(text, here):
    "Links inside the site stay; anchors are written as the site has them; other files of the repository lead to it."
    path, _, anchor = text.partition('#')
    if ':' in path: return text
    target = (ROOT / here / path).resolve()
    if ROOT not in target.parents: return text      # Sphinx will say that it leads nowhere
    if path and not (target.suffix == '.ipynb' and target.parent.name in PAGES or target.suffix in ('.png', '.svg')):
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
    return cell | dict(source=code, outputs=[without_progress(o) for o in joined(outputs)], metadata=cell['metadata'] | meta | dict(tags=sorted(tags)))


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
    return output | dict(text=re.sub(r'[^\n]*\r(?!\n)', '', output['text'])) if output['output_type'] == 'stream' else output


def as_page(app, docname, content):
    "A notebook's JSON, on its way from the file to the parser."
    notebook, here = json.loads(content[0]), Path(docname).parent
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


def setup(app):
    app.connect('source-read', as_page)
    app.add_html_math_renderer('mathml', (inline_math, None), (block_math, None))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
