"""What the repository promises about itself: notebooks that are notebooks, a library that runs without Jupyter, one
source of settings."""
import ast
import graphlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from configparser import ConfigParser
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

import pytest
from conftest import FEW_FACES

from mpfnet.synthetic.synth import make_synth

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted([*ROOT.glob('nbs/**/*.ipynb'), *ROOT.glob('paper_figures/*.ipynb')])
NOTEBOOKS = [p for p in NOTEBOOKS if '.ipynb_checkpoints' not in p.parts]
SOURCES = [p for p in NOTEBOOKS if p.is_relative_to(ROOT / 'nbs')]
LIBRARY = [p for p in sorted(ROOT.glob('mpfnet/**/*.py')) if not p.stem.startswith('_')]
def module_name(path): return '.'.join(path.relative_to(ROOT/'mpfnet').with_suffix('').parts)
MODULES = sorted(map(module_name, LIBRARY))
NO_MODULE = {'index'}  # pages that export nothing
NOT_IN_THE_LIBRARY = [
    'nbdev', 'fastcore', 'execnb', 'papermill', 'jupyter', 'jupyter_core', 'jupyter_client', 'jupyterlab',
    'IPython', 'ipykernel', 'nbformat', 'nbclient', 'nbconvert', 'matplotlib', 'seaborn', 'skimage', 'captum',
    'pytest', 'hypothesis', 'ray', 'pyrtools', 'dlib',
    'openpyxl', 'xlrd', 'rich']  # installed with it, and wanted only where a sheet is read or a table drawn


def name(path): return path.relative_to(ROOT).with_suffix('').as_posix()
@cache
def notebook(path): return json.loads(path.read_text(encoding='utf-8'))
def cells(path): return notebook(path)['cells']
@cache
def parsed(path): return ast.parse(path.read_text(encoding='utf-8'))
def source(cell): return ''.join(cell['source'])
def directives(cell): return [re.sub(r'\s+', ' ', m) for m in re.findall(r'^#\|\s*(.+?)\s*$', source(cell), re.M)]
def exported(cell):
    return cell['cell_type'] == 'code' and any(d.split()[0] in ('export', 'exporti', 'exports')
                                               for d in directives(cell))


def default_exp(path):
    found = [d.split()[1] for c in cells(path) for d in directives(c) if d.startswith('default_exp ')]
    return found[0] if found else None


def wrong(check, paths):
    "What a check says about files, {file: complaint}; nothing where it says nothing."
    return {name(p): said for p in paths if (said := check(p))}


def tracked():
    "Text files of the repository: tracked, or new and not ignored."
    out = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=ROOT, capture_output=True,
                         text=True)
    if out.returncode: pytest.skip('not a git checkout')
    return [ROOT / f for f in out.stdout.split('\0') if f and (ROOT / f).is_file()]


def test_there_are_notebooks_and_modules():
    assert SOURCES and MODULES


PARAMETERISED = [
    p for p in NOTEBOOKS
    if p.parent.name == 'paper_figures' or p.stem in (
        '05_loso', '06_benchmark', '06_protocol_audit', '08_learning_curve', '09_sequence', '07_predict', '09_spotting')
]


def test_notebooks_open_and_say_what_can_be_set():
    """What JupyterLab asks of a notebook before it opens it without a question, and what papermill needs: exactly one
    `parameters` cell.

    Without the tag papermill exits 0 and runs the defaults, whatever was asked for."""
    from nbformat import ValidationError, validate

    def check(path):
        try: validate(notebook(path), relax_add_props=False)
        except ValidationError as e: return str(e)
        if notebook(path)['metadata']['kernelspec']['name'] != 'python3': return 'another kernel'
        if notebook(path)['nbformat'] != 4: return 'another version of the format'
        ids = [c['id'] for c in cells(path)]
        if len(set(ids)) < len(ids): return 'two cells have one id'
        tagged = [c['cell_type'] for c in cells(path) if 'parameters' in c['metadata'].get('tags', [])]
        if tagged != ['code']*(path in PARAMETERISED): return f'cells tagged `parameters`: {tagged}'
    assert not wrong(check, NOTEBOOKS)


def test_notebooks_are_small_and_have_no_stored_error():
    def check(path):
        if path.stat().st_size >= 1_500_000: return f'{path.stat().st_size / 1e6:.1f} MB: store smaller figures'
        errors = [o.get('ename') for c in cells(path) for o in c.get('outputs', []) if o['output_type'] == 'error']
        if errors: return f'stored errors: {errors}; run the notebook again'
    assert not wrong(check, NOTEBOOKS)


def test_notebooks_store_no_progress_bars():
    "Nor widgets, which show nothing outside the kernel that made them."
    def check(path):
        outputs = [o for c in cells(path) for o in c.get('outputs', [])]
        streams = [''.join(o['text']) for o in outputs if o['output_type'] == 'stream']
        return ([s for s in streams if '\r' in s or '%|' in s or 'it/s]' in s]
                + [kind for o in outputs for kind in o.get('data', {}) if 'widget' in kind])
    assert not wrong(check, NOTEBOOKS)


def test_export_cells_are_short():
    def check(path):
        lines = [
            (i, sum(bool(l.strip()) and not l.startswith('#|') for l in source(c).splitlines()))
            for i, c in enumerate(cells(path))
            if exported(c)
        ]
        return [f'cell {i}: {n} lines' for i, n in lines if n > 60]
    assert not wrong(check, SOURCES), 'split the cell, one idea each'


def test_notebooks_name_their_modules():
    def check(path):
        if path.stem in NO_MODULE: return default_exp(path) or any(exported(c) for c in cells(path))
        module = '.'.join([*path.parent.relative_to(ROOT / 'nbs').parts, re.sub(r'^\d\d[a-z]?_', '', path.stem)])
        if default_exp(path) != module: return f'{default_exp(path)}, not {module}'
    assert not wrong(check, SOURCES), 'the module is named as the notebook and its folder, without the number'


def test_notebooks_have_title_and_purpose():
    def check(path):
        first = next((source(c) for c in cells(path) if c['cell_type'] == 'markdown'), '')
        if not re.match(r'# \S.*\n+> \S', first): return first or 'no words'
    assert not wrong(check, SOURCES), 'the first markdown cell: "# Title", then a line "> what the page is for"'


def test_nothing_below_a_title_is_taken_for_settings_of_the_page():
    """nbdev reads `- name: value` in the cell of the title as front matter: it warns where that is no YAML, and takes
    it for a setting where it is. A list with `*` is left alone."""
    def check(path): return re.findall(r'^-\s+\S.*:.*\S\s*$', source(cells(path)[0]), re.M)
    assert not wrong(check, NOTEBOOKS)


def test_no_star_imports_in_exported_cells():
    def check(path):
        return [source(c) for c in cells(path) if exported(c)
                and re.search(r'^\s*from\s+\S+\s+import\s+\*', source(c), re.M)]
    assert not wrong(check, SOURCES)


#: a notebook that each of the checks above refuses
WORST = dict(
    nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='python3', display_name='', language='')),
    cells=[
        dict(cell_type='markdown', id='a', metadata={}, source='Words\n- a: b'),
        dict(cell_type='code', id='b', metadata=dict(tags=['parameters']), execution_count=None,
             source='#| export\nfrom os import *\n' + 'x = 1\n'*60,
             outputs=[dict(output_type='error', ename='E', evalue='', traceback=[]),
                      dict(output_type='stream', name='stderr', text=['9%|##'])]),
    ],
)


def test_these_checks_can_fail(tmp_path, monkeypatch):
    "Each of them, by one bad page among good ones, which is named."
    checks = [
        test_notebooks_open_and_say_what_can_be_set, test_notebooks_are_small_and_have_no_stored_error,
        test_notebooks_store_no_progress_bars, test_export_cells_are_short, test_notebooks_name_their_modules,
        test_notebooks_have_title_and_purpose, test_nothing_below_a_title_is_taken_for_settings_of_the_page,
        test_no_star_imports_in_exported_cells,
    ]
    bad = tmp_path/'nbs/core/01_bad.ipynb'
    bad.parent.mkdir(parents=True)
    bad.write_text(json.dumps(WORST), encoding='utf-8')
    for k, v in dict(ROOT=tmp_path, NOTEBOOKS=[bad], SOURCES=[bad]).items(): monkeypatch.setitem(globals(), k, v)
    for check in checks:
        with pytest.raises(AssertionError, match='nbs/core/01_bad'): check()


def test_every_module_has_one_notebook():
    exports = [default_exp(p) for p in SOURCES if default_exp(p)]
    assert sorted(exports) == MODULES, 'a module without a notebook, or a notebook that was not exported (make export)'


#: packages are not found, as where they are not installed: other libraries may look for them
BLOCKER = '''
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split('.')[0] in {blocked} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
import importlib
for m in {modules}: importlib.import_module('mpfnet.' + m)
'''


def imports(modules, blocked):
    return subprocess.run([sys.executable, '-c', BLOCKER.format(blocked=set(blocked), modules=modules)], cwd=ROOT,
                          capture_output=True, text=True)


#: what OpenCV 5 lacks
OPENCV_5 = """
import cv2
for name in ('CascadeClassifier', 'data'):
    if hasattr(cv2, name): delattr(cv2, name)
"""


#: method → data set and settings
ELSEWHERE = dict(
    mpfnet_c=('synth', 'preprocess.size=16,pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2,'
                       'encoder.width=0.125'),
    lbp_top=('synth', 'lbp_top.size=32'), ststnet=('megc2019_flow', 'ststnet.epochs=1'),
)


@pytest.fixture(scope='module')
def nothing_else(tmp_path_factory, flow_root):
    """What a machine says without Jupyter, plots or pytest, with an OpenCV that has no cascades: folds are trained,
    then all modules imported, then figures asked for."""
    few, home = dict(FEW_FACES, subjects=2), tmp_path_factory.mktemp('nothing_else')
    make_synth(home/'synth', **few)
    of = {m: dict(method=m, dataset=data, data_root=str(home if data == 'synth' else flow_root), overrides=more,
                  subjects='synth/sub01' if data == 'synth' else 'samm/sa00', out_dir=str(home/m))
          for m, (data, more) in ELSEWHERE.items()}
    code = (
        BLOCKER.format(blocked=set(NOT_IN_THE_LIBRARY), modules=['loso'])
        + OPENCV_5
        + f"""
from functools import partial
from mpfnet.synthetic import synth
from mpfnet.loso import run
synth.make_synth = partial(synth.make_synth, **{few})                # the folder holds fewer than a user's
def there(): return {{m.split('.')[0] for m in sys.modules}} & {set(NOT_IN_THE_LIBRARY)}
for m, what in {of}.items():
    folder = run(preset='tiny', device='cpu', **what)
    print(m, len(list((folder/'folds').glob('*.json'))), there())
for m in {MODULES}: importlib.import_module('mpfnet.' + m)
print('imported', there())
import pandas as pd
from mpfnet.paper import drawings, pictures
from mpfnet.results import report
for ask in (lambda: report.scores_picture(pd.DataFrame(dict(name=['a']))), drawings.Drawing(1, 1).figure, lambda:
            pictures.flow_picture([[0], [0]], 1)):
    try: ask()
    except ImportError as e: print('figure', 'pip install matplotlib' in str(e))"""
    )
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)


def test_a_fold_is_trained_where_there_is_nothing_else(nothing_else):
    "From clips to a record, by methods that learn, that compute descriptors, and that read flow."
    said = [l for l in nothing_else.stdout.splitlines() if l.split(' ')[0] in ELSEWHERE]
    assert said == [f'{m} 1 set()' for m in ELSEWHERE], nothing_else.stderr[-2000:]


def test_library_imports_without_jupyter_and_plotting(nothing_else):
    assert 'imported set()' in nothing_else.stdout.splitlines(), nothing_else.stderr[-2000:]


def test_a_figure_without_matplotlib_is_a_sentence(nothing_else):
    "Not a traceback that ends in a bare name; and nowhere else does the library import what draws."
    assert nothing_else.stdout.splitlines()[-3:] == 3*['figure True'], nothing_else.stderr[-2000:]
    assert nothing_else.returncode == 0
    assert not [p.name for p in LIBRARY if 'import matplotlib' in p.read_text(encoding='utf-8')]


def test_warnings_go_through_one_place():
    "Python shows the source line of any other; see the page on checks."
    assert [p.name for p in LIBRARY if re.search(r'\bwarnings\.warn', p.read_text(encoding='utf-8'))] == ['checks.py']


def test_the_import_blocker_blocks():
    done = imports(['metrics'], ['pandas'])
    assert done.returncode != 0 and "No module named 'pandas'" in done.stderr


def first_asked(path):
    "Modules of mpfnet that a file asks for before any line of its own has run."
    body = parsed(path).body
    own = next((k for k, n in enumerate(body) if not isinstance(n, (ast.Import, ast.ImportFrom))
                and not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
                and not (isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__')), len(body))
    return asked_for(path, body[:own])


def leaning(asked):
    "{module: modules that stand on it}; each stands on the one, of those that it asks for first, that brings most."
    @cache
    def brings(m): return {m}.union(*map(brings, asked[m]))
    above = {}
    for m in asked: above.setdefault(max(sorted(asked[m]), key=lambda k: len(brings(k)), default=None), []).append(m)
    return above


#: imports modules in processes of their own, each forked from one that has imported what it stands on and nothing else
ALONE = """
import gc, importlib, os, sys
import numpy, pandas, cv2, sklearn, torch
gc.disable()
gc.freeze()                                         # a fork copies what it touches
def stand(on):
    for m in {above}.get(on, []):
        if not (child := os.fork()):
            importlib.import_module('mpfnet.' + m)
            print(m, flush=True)
            stand(m)
            os._exit(0)
        if os.waitpid(child, 0)[1]: os._exit(1)
stand(None)
"""
#: the same where no process can be forked
ONE_BY_ONE = """
import importlib, sys
for m in {above}:
    for k in [k for k in sys.modules if k.split('.')[0] == 'mpfnet']: del sys.modules[k]
    importlib.import_module('mpfnet.' + m)
    print(m)
"""


def test_every_module_imports_by_itself():
    """No module depends on another having been imported before it, and there is no import cycle: each is imported where
    there is nothing but what it asks for itself, before its first line runs, or what that asks for."""
    above = leaning({module_name(p): first_asked(p) for p in LIBRARY}) if hasattr(os, 'fork') else MODULES
    code = ALONE if hasattr(os, 'fork') else ONE_BY_ONE
    done = subprocess.run([sys.executable, '-c', code.format(above=above)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and sorted(done.stdout.split()) == MODULES, done.stderr[-2000:]


#: where a page stands: the number of its stage on the way of the paper; a wing, that of the first page which leans on
#: it
WINGS = dict(core=-1, data=0, synthetic=0, motion=1, rivals=4, results=5, tools=5, video=7, paper=8)


def imported(path):
    "Modules of mpfnet that a file imports, at its top or inside a function."
    return asked_for(path, ast.walk(parsed(path)))


def asked_for(path, nodes):
    "Modules of mpfnet that these lines of a file import."
    package, found = ('mpfnet', *path.relative_to(ROOT/'mpfnet').parent.parts), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = ('.'.join([*package[: len(package) + 1 - node.level], *(node.module or '').split('.')]).strip('.')
                    if node.level else node.module)
            found |= {base, *(f'{base}.{a.name}' for a in node.names)}
        elif isinstance(node, ast.Import): found |= {a.name for a in node.names}
    return {m.removeprefix('mpfnet.') for m in found} & set(MODULES)


def stages():
    "{module: stage}."
    found = {default_exp(p): p.relative_to(ROOT/'nbs').parts for p in SOURCES if default_exp(p)}
    return {m: WINGS[parts[0]] if len(parts) > 1 else int(parts[0][:2]) for m, parts in found.items()}


def climbing(imports, stage):
    return [f'{a} imports {b}' for a, names in imports.items() for b in names if stage[b] > stage[a]]


def test_no_import_cycle_and_none_that_climbs():
    "Who opens the numbered pages in order needs no page that comes later."
    imports = {module_name(p): imported(p) for p in LIBRARY}
    # also inside a function
    assert imports['loso'] >= {'harness', 'tools.ray_engine'} and 'core.checks' in imports['paper.plan']
    graphlib.TopologicalSorter(imports).prepare()
    assert not climbing(imports, stages())
    assert climbing({'folds': {'loso'}}, stages()) == ['folds imports loso']
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(imports | {'tools.ray_engine': {'loso'}}).prepare()


def test_the_wings_stand_in_an_order_too():
    "Each wing taken as one, and the pages on top: no circle among them, and few enough to be seen at once."
    def room(module): return module.partition('.')[0]
    leans = {}
    for p in LIBRARY:
        here = leans.setdefault(room(module_name(p)), set())
        here |= {room(m) for m in imported(p)} - {room(module_name(p))}
    graphlib.TopologicalSorter(leans).prepare()
    with pytest.raises(graphlib.CycleError): graphlib.TopologicalSorter(leans | dict(core={'video'})).prepare()
    assert len(leans) <= 32, sorted(leans)


#: names that several modules define on purpose: each back end has one, and is asked by its module; `fit` is a fold's in
#: methods, and that of all subjects in models
ONE_EACH = {'load_official', 'PUBLISHED', 'LEARNED', 'main', 'fit'}


def defined(path):
    "Public names that a module defines at its top; methods by `patch` belong to their class."
    for node in parsed(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            patched = any(isinstance(d, ast.Name) and d.id == 'patch' for d in node.decorator_list)
            if not patched: yield node.name
        elif isinstance(node, ast.Assign):
            yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))


def meanings(names):
    "{name: modules} of the public names that more than one module defines; `names` is {module: names}."
    found = {}
    for module, own in names.items():
        for n in {n for n in own if not n.startswith('_')} - ONE_EACH: found.setdefault(n, []).append(module)
    return {n: m for n, m in found.items() if len(m) > 1}


def test_each_name_means_one_thing():
    assert meanings({module_name(p): [*defined(p)] for p in LIBRARY}) == {}
    assert meanings(dict(a=['plan'], b=['plan', '_x'])) == dict(plan=['a', 'b'])


def written_twice(module):
    "Functions and classes, not decorated, that a module defines more than once: the second one hides the first."
    counts = Counter(n.name for n in module.body
                     if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.decorator_list)
    return [name for name, n in counts.items() if n > 1]


def test_no_definition_hides_another():
    found = {module_name(p): written_twice(parsed(p)) for p in LIBRARY}
    assert {m: names for m, names in found.items() if names} == {}
    assert written_twice(ast.parse('def a(): pass\n\ndef b(): pass\n\ndef a(): pass')) == ['a']


def test_what_trains_nothing_starts_without_torch():
    "Importing torch takes a second, and `mpfnet --help` or `mpfnet runs` should not."
    code = """
import importlib, sys
for m in ('cli', 'predict', 'results.runs', 'data.readers'):
    importlib.import_module('mpfnet.' + m)
    if 'torch' in sys.modules: sys.exit(m)"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def config():
    c = ConfigParser()
    c.read(ROOT / 'settings.ini', encoding='utf-8')
    return c['DEFAULT']


def test_settings_setup_and_version_agree():
    import mpfnet
    cfg, meta = config(), metadata('mpfnet')
    assert mpfnet.__version__ == cfg['version'] == meta['Version']
    assert (meta['Name'], meta['Summary']) == (cfg['lib_name'], cfg['description'])
    assert cfg['allowed_cell_metadata_keys'] == 'tags' and cfg['update_pyproject'] == 'False'
    assert cfg['nbs_path'] == 'nbs' and cfg['lib_path'] == 'mpfnet'


def test_the_versions_of_python_are_said_once():
    "settings.ini lists them; the package says them, and every one is tested."
    cfg = config()
    versions = cfg['pythons'].split()
    assert versions[0] == cfg['min_python'] and f"{sys.version_info.major}.{sys.version_info.minor}" in versions
    workflow = (ROOT / '.github' / 'workflows' / 'test.yaml').read_text(encoding='utf-8')
    assert f'matrix: {{python: [{", ".join(f"{v!r}" for v in versions)}]}}'.replace("'", '"') in workflow
    import runpy

    import setuptools
    said = {}
    kept, setuptools.setup = setuptools.setup, said.update
    try: runpy.run_path(str(ROOT / 'setup.py'))
    finally: setuptools.setup = kept
    assert [c.rpartition(' ')[2] for c in said['classifiers'] if 'Python :: 3.' in c] == versions and said[
        'python_requires'
    ] == f'>={versions[0]}'


def test_every_requirement_is_pinned():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    cfg = config()
    lines = [
        l for l in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines() if l and not l.startswith('#')
    ]
    pins = dict((canonicalize_name(n), v) for n, v in (l.split('==') for l in lines))
    assert len(pins) == len(lines), 'a package is pinned twice'
    assert not [v for v in pins.values() if '+' in v], 'a local suffix fits one build only'
    for r in map(
        Requirement,
        ' '.join(v for k, v in cfg.items() if k in ('requirements', 'dev_requirements', 'docs_requirements')).split(),
    ):
        assert canonicalize_name(r.name) in pins, f'{r.name} is not in constraints.txt'
        assert pins[canonicalize_name(r.name)] in r.specifier, (
            f'constraints.txt and settings.ini contradict each other about {r}'
        )


def test_no_paths_of_one_machine():
    "Absolute paths of somebody's computer, in any text file."
    pattern = re.compile(
        r'(?<![\w.:/<{$}])/(?:home|root|Users|work|mnt|scratch|opt|tmp)/[\w.-]+|[A-Z]:\\\\?(?:Users|home)'
    )
    found = []
    for p in tracked():
        if p.suffix in {'.png', '.safetensors', '.npz'} or p == Path(__file__): continue
        for i, line in enumerate(p.read_text(encoding='utf-8').splitlines(), 1):
            if m := pattern.search(line): found.append(f'{p.relative_to(ROOT)}:{i}: {m.group()}')
    assert not found, found[:10]


def test_no_licensed_or_opaque_files():
    "No photographs, sheets or pickles: the datasets' licences forbid the first two, and the third can run code."
    bad = [p.name for p in tracked() if p.suffix.lower()
           in {'.jpg', '.jpeg', '.bmp', '.avi', '.mp4', '.xls', '.xlsx', '.pkl', '.pickle', '.pt', '.pth', '.tar'}]
    big = [p.name for p in tracked() if p.stat().st_size > 2_000_000]
    assert not bad and not big, bad + big


@pytest.mark.parametrize('page', ['README.md', 'docs/experiments.md'])
def test_the_parameters_and_their_defaults_are_listed(page):
    "The tables of README.md and of the guide against the parameters cell of the notebook."
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", (ROOT / page).read_text(encoding='utf-8'), re.M)
    cell = next(source(c) for c in cells(ROOT / 'nbs/05_loso.ipynb') if 'parameters' in c['metadata'].get('tags', []))
    defaults = {n.target.id: ast.literal_eval(n.value) for n in ast.parse(cell).body}
    assert {k: ast.literal_eval(v) for k, v in rows} == defaults


def test_library_and_notebook_have_the_same_defaults():
    from dataclasses import asdict

    from mpfnet.parameters import Parameters
    cell = next(source(c) for c in cells(ROOT / 'nbs/05_loso.ipynb') if 'parameters' in c['metadata'].get('tags', []))
    defaults = {n.target.id: ast.literal_eval(n.value) for n in ast.parse(cell).body}
    assert asdict(Parameters()) == defaults


def test_library_and_notebook_have_the_same_types():
    "In the notebook they are words that papermill's help can read: 'int or str' there is `int | str` here."
    from dataclasses import fields

    from mpfnet.parameters import Parameters
    cell = next(source(c) for c in cells(ROOT / 'nbs/05_loso.ipynb') if 'parameters' in c['metadata'].get('tags', []))
    said = {n.target.id: set(re.findall(r'\w+', ast.unparse(n.annotation))) - {'or'} for n in ast.parse(cell).body}
    for f in fields(Parameters):
        types = set(re.findall(r'\w+', f.type.__name__ if isinstance(f.type, type) else str(f.type)))
        assert said[f.name] <= types and {'None', 'int', 'bool'} & types <= said[f.name], f.name


TOP = """
import mpfnet, sys
assert 'run' in dir(mpfnet) and not {'torch', 'pandas', 'mpfnet.loso'} & sys.modules.keys()
import mpfnet.loso, mpfnet.clips
assert mpfnet.run is mpfnet.loso.run and mpfnet.load_clips is mpfnet.clips.load_clips
try: mpfnet.ruin
except AttributeError as e: print(e)
"""


def test_what_most_scripts_begin_with_is_at_the_top_and_costs_nothing_before_it_is_used():
    done = subprocess.run([sys.executable, '-c', TOP], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "module 'mpfnet' has no attribute 'ruin'\n", done.stderr[-2000:]


def test_run_says_what_it_takes():
    "Its signature and its help, made from `Parameters`: name, type, default and meaning of each."
    import inspect
    from dataclasses import fields

    import mpfnet
    from mpfnet.parameters import Parameters
    taken = inspect.signature(mpfnet.run).parameters
    assert [*taken] == ['progress', *(f.name for f in fields(Parameters))]
    help_lines = inspect.getdoc(mpfnet.run).splitlines()
    for f in fields(Parameters):
        assert (taken[f.name].default, taken[f.name].annotation) == (f.default, f.type)
        line, = (l for l in help_lines if l.startswith(f'{f.name}: '))
        assert line.startswith(str(taken[f.name])) and len(line.removeprefix(str(taken[f.name])).strip()) > 4, line
    assert 'megc2019_flow' in '\n'.join(help_lines) and 'pca_lda' in '\n'.join(help_lines)


@pytest.mark.parametrize('jedi', [False, True])
def test_tab_completes_parameters(jedi):
    completer = pytest.importorskip('IPython.core.completer')
    import mpfnet
    tab = completer.IPCompleter(namespace=dict(mpfnet=mpfnet), use_jedi=jedi)
    with completer.provisionalcompleter():
        cases = ('mpfnet.ru', 'run'), ('mpfnet.run(dat', 'dataset='), ('mpfnet.run(seed=1, me', 'method=')
        for text, wanted in cases:
            found = [c.text.lstrip('.') for c in tab.completions(text, len(text))]
            assert wanted in found, (text, found)


@pytest.mark.parametrize(
    'page',
    [
        'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md',
        *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob('docs/*.md')),
    ],
)
def test_links_lead_somewhere(page):
    "Files that are named exist, and so do the headings in them."
    path = ROOT / page
    links = re.findall(r'\]\(([^):]+)\)', path.read_text(encoding='utf-8'))
    missing = [l for l in links if not (path.parent / l.partition('#')[0]).exists()]
    assert not missing
    for file, heading in re.findall(r'\]\(([^):]*\.md)#([^)]+)\)', path.read_text(encoding='utf-8')):
        there = re.findall(r'^#+ (.+)$', (path.parent / file).read_text(encoding='utf-8'), re.M)
        assert heading in [re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in there], f'{file}#{heading}'


def test_the_citation_is_that_of_the_package_and_of_the_paper():
    "The citation file against settings.ini and the first lines of README.md."
    import yaml

    cited, cfg, readme = (yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8')), config(),
                          (ROOT / 'README.md').read_text(encoding='utf-8'))
    assert (cited['cff-version'], cited['version'], cited['title']) == (
        '1.2.0', cfg['version'], cfg['title'],
    ) and cited['repository-code'] == cfg['git_url']
    paper, first = cited['preferred-citation'], ' '.join(readme.partition('## Start')[0].split())
    names = [f"{a['given-names']} {a['family-names']}" for a in paper['authors']]
    assert paper['title'] in first and f"{', '.join(names[:-1])} and {names[-1]}" in first and paper['url'] in first
    assert (
        f"## [{cfg['version']}]" in (log := (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'))
        or '## [Unreleased]' in log
    )
