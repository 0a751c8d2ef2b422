"""`make lint`: what ruff.toml refuses, and what notebooks may say."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUFF = shutil.which('ruff', path=str(Path(sys.executable).parent)) or shutil.which('ruff')

pytestmark = pytest.mark.skipif(not RUFF, reason="needs ruff: pip install -e '.[dev]'")


def found(path, text):
    "Rules that a file would break, if it lay there."
    asked = [RUFF, 'check', '--config', str(ROOT / 'ruff.toml'), '--output-format', 'json', '--stdin-filename', path,
             '-']
    done = subprocess.run(asked, input=text, capture_output=True, text=True, encoding='utf-8', cwd=ROOT)
    return {e['code'] for e in json.loads(done.stdout)}


def notebook(*cells):
    code = [dict(cell_type='code', execution_count=None, id=f'c{k}', metadata={}, outputs=[], source=c)
            for k, c in enumerate(cells)]
    return json.dumps(dict(cells=code, metadata=dict(language_info=dict(name='python')), nbformat=4, nbformat_minor=5))


@pytest.mark.parametrize(
    'rule, text',
    [
        ('F401', 'import os\n'),
        ('F821', 'nothing()\n'),
        ('F841', 'def f():\n    x = 1\n'),
        ('I001', 'import sys\nimport os\n\nprint(os, sys)\n'),
        ('B006', 'def f(x=[]):\n    return x\n'),
        ('E501', f'x = "{"a" * 120}"\n'),
        ('E702', 'x = 1; y = 2\n'),
        ('E722', 'try: pass\nexcept: pass\n'),
        ('N801', 'class a: pass\n'),
        ('B904', 'try: pass\nexcept ValueError: raise KeyError\n'),
    ],
)
def test_what_is_refused(rule, text):
    assert found('tests/test_x.py', text) == {rule}


def test_names_of_the_field_are_fine():
    assert not found('tests/test_x.py',
                     'from torch.nn import functional as F\n\n\ndef f(X, T):\n    B = X + T\n    return F.relu(B)\n')


def test_notebooks_are_looked_at_and_may_say_what_notebooks_say():
    page = notebook('#| default_exp x', '#| export\nimport os', '%matplotlib inline\n!ls\nx = os.sep; x', '#| slow\nx;')
    assert not found('nbs/x.ipynb', page)
    assert found('nbs/x.ipynb', notebook('#| export\ndef f(x=[]): return x', '%time nothing()\nnothing_else()')) >= {
        'B006',
        'F821',
    }


def test_export_cells_join_no_statements():
    "They are looked at as modules."
    if 'Until the pages are merged' in (ROOT / 'ruff.toml').read_text(encoding='utf-8'): pytest.skip('not yet')
    assert found('mpfnet/data/x.py', 'x = 1; y = 2\n') == {'E702'}
