"""The program as its users start it: papermill on nbs/05_loso.ipynb, from the caller's folder; or Run All in
JupyterLab, again and again."""
import ast
import json
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from conftest import CHEAP, FEW_FACES, ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from warm import warm

from mpfnet.synthetic.lookalike import make_lookalike

LOSO = ROOT / 'nbs' / '05_loso.ipynb'


#: what a kernel does first: synthetic clips are fewer and smaller than a user's
FEWER = f'''from functools import partial
from mpfnet.synthetic import synth
synth.make_synth = partial(synth.make_synth, **{FEW_FACES})
'''


@pytest.fixture(scope='module', autouse=True)
def few_faces(tmp_path_factory):
    "Kernels draw few clips."
    folder = tmp_path_factory.mktemp('ipython')
    (folder / 'profile_default' / 'startup').mkdir(parents=True)
    (folder / 'profile_default' / 'startup' / 'few.py').write_text(FEWER, encoding='utf-8')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('IPYTHONDIR', str(folder))
        yield


def papermill(tmp_path, *args, page=LOSO, cold=False):
    words = '-m', 'papermill', page, tmp_path / 'out.ipynb', '--no-progress-bar', *args
    if not cold: return warm(*words, cwd=tmp_path, kernels=True)
    return subprocess.run([sys.executable, *map(str, words)], cwd=tmp_path, capture_output=True, text=True)


def of_ours(stderr):
    "What a run says, without papermill's own lines and the kernel's about its sockets and its end."
    own = ('Input Notebook:', 'Output Notebook:', 'Executing notebook with kernel',
           '[IPKernelApp] WARNING | Kernel is running over TCP',
           '[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel', 'Task was destroyed but it is pending!',
           "task: <Task pending name=")
    return [l for l in stderr.splitlines() if l.strip() and not l.startswith(own)]


SMALL = 'preprocess.size=16'


@pytest.fixture(scope='module')
def from_nothing(tmp_path_factory):
    """A run whose synthetic clips have to be drawn first, by a papermill, a kernel and processes that begin with
    nothing: its folder, and what papermill said."""
    folder = tmp_path_factory.mktemp('from_nothing')
    return folder, papermill(folder, '-p', 'method', 'mpfnet_c', '-p', 'overrides', f'{CHEAP},{SMALL}', '-p',
                             'subjects', 'synth/sub01,synth/sub02', '-p', 'workers', '2', cold=True)


@pytest.fixture
def drawn(from_nothing, tmp_path):
    "The same clips, with what was computed of them, in the test's own folder: they are not drawn again."
    shutil.copytree(from_nothing[0] / 'runs' / 'cache', tmp_path / 'runs' / 'cache')


def test_synth_end_to_end(from_nothing):
    tmp_path, done = from_nothing
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = (tmp_path / 'runs').glob('synth-3class-mpfnet_c-*')
    m = json.loads((folder / 'metrics.json').read_text())
    assert m['folds']['done'] == 2 and m['pooled']['n'] == sum(map(sum, m['pooled']['confusion']))
    assert not of_ours(done.stderr)
    text = '\n'.join(str(o) for c in nbformat.read(tmp_path / 'out.ipynb', 4).cells for o in c.get('outputs', []))
    assert 'SYNTHETIC' in text and 'UF1' in text and 'image/png' in text


def test_action_units_on_the_same_page(from_nothing):
    done = papermill(from_nothing[0], '-p', 'task', 'au:1+4+12', '-p', 'method', 'majority', '-p', 'subjects',
                     'synth/sub01,synth/sub02')
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = (from_nothing[0] / 'runs').glob('synth-au-majority-*')
    metrics = json.loads((folder / 'metrics.json').read_text())
    assert metrics['folds']['done'] == 2 and metrics['pooled']['mean_f1'] == 0
    cells = nbformat.read(from_nothing[0] / 'out.ipynb', 4).cells
    text = '\n'.join(str(o) for c in cells for o in c.get('outputs', []))
    assert 'macro recall' in text and 'AU12' in text and 'image/png' in text


def test_flow_release_and_its_parameters(flow_root, tmp_path):
    done = papermill(tmp_path, '-p', 'dataset', 'megc2019_flow', '-p', 'data_root', str(flow_root), '-p', 'method',
                     'pca_lda', '-p', 'subjects', 'samm/sa00,smic/sm01')
    assert done.returncode == 0, done.stderr[-3000:]
    config = json.loads(next((tmp_path / 'runs').glob('megc2019_flow-3class-pca_lda-*/config.json')).read_text())
    assert config['dataset'] == 'megc2019_flow' and config['method'] == 'pca_lda'


def test_a_licensed_dataset_as_its_look_alike(tmp_path):
    make_lookalike('samm', tmp_path / 'data', subjects=4, size=48, progress=False)
    done = papermill(tmp_path, '-p', 'dataset', 'samm', '-p', 'task', '5class', '-p', 'preset', 'tiny', '-p',
                     'data_root', 'data', '-p', 'overrides', CHEAP, '-p', 'apex', 'midpoint')
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = (tmp_path / 'runs').glob('samm-5class-mpfnet_c-*')
    assert set(pd.DataFrame(json.loads((folder / 'data_report.json').read_text())['findings'])['decision']) >= {
        'partial-copy'
    }
    text = '\n'.join(str(o) for c in nbformat.read(tmp_path / 'out.ipynb', 4).cells for o in c.get('outputs', []))
    assert 'LOOK-ALIKE of SAMM' in text and 'partial-copy' in text


@pytest.mark.parametrize(
    'args, says',
    [(('-p', 'datset', 'samm'), 'unknown parameter(s) datset'), (('-p', 'dataset', 'nothing'), 'known: synth')],
)
def test_a_slip_is_an_error_and_nothing_runs(tmp_path, args, says):
    done = papermill(tmp_path, *args)
    assert done.returncode != 0 and says in done.stderr and not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('page', ['nbs/paper/06_protocol_audit', 'paper_figures/table3'])
def test_a_slip_is_an_error_on_every_page_with_parameters(tmp_path, page):
    done = papermill(tmp_path, '-p', 'sed', '1', page=ROOT / f'{page}.ipynb')
    assert (done.returncode != 0 and 'unknown parameter(s) sed; known: data' in done.stderr
            and not (tmp_path / 'runs').exists())


AUDIT = ROOT / 'nbs/paper/06_protocol_audit.ipynb'
PAGES = [LOSO, AUDIT,
         *(ROOT / 'nbs' / f'{n}.ipynb' for n in (
             '06_benchmark', 'paper/08_learning_curve', 'paper/09_sequence', '07_predict', 'video/09_spotting')),
         *sorted(ROOT.glob('paper_figures/*.ipynb'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_every_page_looks_at_the_names_of_its_parameters(page):
    "Right below the cell that papermill fills; and no other cell of the program assigns a parameter."
    cells = [c for c in nbformat.read(page, 4).cells if c.cell_type == 'code']
    k = next(i for i, c in enumerate(cells) if 'parameters' in c.metadata.get('tags', []))
    mine = [n.target.id for n in ast.parse(cells[k].source).body]
    call = next(n for n in ast.walk(ast.parse(cells[k + 1].source)) if isinstance(n, ast.Call) and n.func.id
                == 'given_in')
    if page.parent.name == 'paper_figures': assert list(ast.literal_eval(call.args[1])) == mine
    else:
        later = {n.id for c in cells[k + 1 :] for n in ast.walk(ast.parse(c.source)) if isinstance(n, ast.Name)
                 and isinstance(n.ctx, ast.Store) and n in top_level(c.source)}
        assert not later & {*mine, 'length', 'gamma', 'strict', 'engine'}


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_papermills_help_shows_every_parameter_with_its_type(page):
    "What `papermill --help-notebook` prints: a line that it cannot parse would be missing."
    from papermill.inspection import inspect_notebook
    cell = next(c for c in nbformat.read(page, 4).cells if 'parameters' in c.metadata.get('tags', []))
    defaults = {n.target.id: ast.unparse(n.value) for n in ast.parse(cell.source).body}
    found = inspect_notebook(str(page))
    assert {k: v['default'] for k, v in found.items()} == defaults
    for name, v in found.items():
        of = type(ast.literal_eval(v['default'])).__name__.replace('NoneType', 'None')
        assert of in v['inferred_type_name'].replace(',', '').split(), (name, v)


def top_level(source):
    "Nodes of a cell that are not inside a function, class or comprehension."
    inside = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    todo, found = [*ast.parse(source).body], []
    while todo:
        n = todo.pop()
        found.append(n)
        if not isinstance(n, inside): todo += ast.iter_child_nodes(n)
    return found


def run_all(client, page, **changes):
    "Run All: every code cell in turn; in the parameters cell, some lines are others."
    notebook = nbformat.read(page, 4)
    client.nb.cells = notebook.cells
    for i, c in enumerate(notebook.cells):
        if 'parameters' in c.metadata.get('tags', []):
            lines = [l for l in c.source.splitlines() if l.split('=')[0].split(':')[0].strip() not in changes]
            c.source = '\n'.join([*lines, *changes.values()])
        if c.cell_type == 'code': client.execute_cell(c, i)
    return notebook


@pytest.fixture
def kernel(tmp_path):
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=600, kernel_name='python3',
                            resources=dict(metadata=dict(path=str(tmp_path))))
    with client.setup_kernel(): yield client


def say(kernel, code):
    "The text that a line of code ends on, in the kernel."
    cell = nbformat.v4.new_code_cell(code)
    kernel.nb.cells.append(cell)
    return kernel.execute_cell(cell, len(kernel.nb.cells) - 1).outputs[0]['data']['text/plain']


#: of the report's confusion matrix
TITLE = 'result.confusion_figure().axes[0].get_title()'


def test_run_all_twice_runs_what_the_cell_says(drawn, kernel, tmp_path, monkeypatch):
    "In one kernel, where somebody had a variable of a parameter's name before; a line of the cell has a type."
    monkeypatch.delenv('IN_TEST', raising=False)
    say(kernel, 'seed = 7; seed')
    few = dict(subjects="subjects = 'synth/sub01,synth/sub02'", preset="preset = 'tiny'",
               overrides=f'overrides = {SMALL!r}')
    def text(nb): return '\n'.join(str(o) for c in nb.cells for o in c.get('outputs', []))
    def config(): return json.loads((tmp_path / say(kernel, 'str(folder)').strip("'") / 'config.json').read_text())
    first = text(run_all(kernel, LOSO, method="method = 'majority'", seed='seed = 3', **few))
    assert (config()['method'], config()['seed']) == ('majority', 3) and "majority on synth" in say(kernel, TITLE)
    run_all(kernel, LOSO, method="method: str = 'pca_lda'", seed='seed = 3', **few)
    assert (config()['method'], config()['seed']) == ('pca_lda', 3) and "pca_lda on synth" in say(kernel, TITLE)
    with pytest.raises(CellExecutionError, match=r'unknown parameter\(s\) metod'):
        run_all(kernel, LOSO, method="method = 'pca_lda'", seed='seed = 3', metod="metod = 'majority'", **few)
    # the cell alone, and then the cell that runs: no title of what did not run
    cells = nbformat.read(LOSO, 4).cells
    say(kernel, "method, seed = 'majority', 4; seed")
    kernel.nb.cells = cells
    last = next(i for i, c in enumerate(cells) if 'from mpfnet.loso import run ' in c.source)
    kernel.execute_cell(cells[last], last)
    assert (config()['method'], config()['seed']) == ('majority', 4)
    assert len(list((tmp_path / 'runs').glob('synth-*'))) == 3 and 'SYNTHETIC' in first


def test_an_audit_run_twice_audits_what_the_cell_says(drawn, kernel, tmp_path, monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    few = dict(subjects="subjects = 'synth/sub01,synth/sub02'", normalise='normalise = False', seed='seed = 0',
               overrides=f'overrides = {SMALL!r}')
    run_all(kernel, AUDIT, method="method = 'majority'", **few)
    notebook = run_all(kernel, AUDIT, method="method = 'pca_lda'", **few)
    assert 'audit-synth-3class-pca_lda-' in say(kernel, 'str(folder)') and any(
        'pca_lda, 1 seeds, ' in str(o) for c in notebook.cells for o in c.get('outputs', [])
    )
