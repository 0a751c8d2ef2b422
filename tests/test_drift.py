"""`make drift`: code that the notebooks do not say is refused; a notebook that was only opened or run is not."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ('Makefile', 'settings.ini', 'constraints.txt', 'setup.py', 'README.md', 'nbs', 'paper_figures', 'mpfnet')
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not (shutil.which('make') and (BIN / 'nbdev_export').exists()),
                                reason='needs make and nbdev')


def checkout(folder, pages='*'):
    "Copy what the gate reads, of some pages, and have `make` find everything installed."
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part,
                            ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
        else: shutil.copy2(ROOT/part, folder/part)
    (folder/'.venv').mkdir()
    (folder/'.venv/.installed').touch()
    for path in {*folder.rglob('*.ipynb')} - {p for name in pages.split() for p in folder.rglob(f'{name}.ipynb')}:
        path.unlink()
    return folder


def drift(folder): return subprocess.run(['make', 'drift', f'BIN={BIN}'], cwd=folder, capture_output=True, text=True)


def edit(path, change):
    "Change a notebook's JSON in place."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    change(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding='utf-8')


def as_jupyterlab_saves(notebook):
    """What opening, running and saving leaves behind: a kernel's description, counts, times, a folded cell, other
    outputs."""
    notebook['metadata'] |= dict(
        kernelspec=dict(name='python3', display_name='Python 3 (ipykernel)', language='python'),
        language_info=dict(name='python', version='3.11.7'),
    )
    for k, cell in enumerate(notebook['cells']):
        cell['metadata'] |= dict(collapsed=True)
        if cell['cell_type'] != 'code': continue
        cell |= dict(execution_count=k, outputs=[dict(output_type='stream', name='stdout', text=['another output\n'])])
        cell['metadata'] |= dict(execution={'iopub.execute_input': '2026-01-01T00:00:00Z'})


def test_a_notebook_that_was_opened_and_run_is_not_drift(tmp_path):
    "Every page, the front page among them: README's table does not come from what is stored in it."
    pages = [*checkout(tmp_path).glob('nbs/**/*.ipynb'), *tmp_path.glob('paper_figures/*.ipynb')]
    assert len(pages) > 50
    for path in pages: edit(path, as_jupyterlab_saves)
    done = drift(tmp_path)
    assert done.returncode == 0, done.stderr


def test_code_and_words_that_the_notebooks_do_not_say_are_drift(tmp_path):
    "Two changed pages beside one that is as it was; a module whose page is gone is named, too."
    def another_label(notebook):
        cell = next(
            c
            for c in notebook['cells']
            if c['cell_type'] == 'code' and '#| export\n' in c['source'] and len(c['source']) > 3
        )
        cell['source'].append('\nA_NEW_NAME = 1')
    checkout(tmp_path, 'index 01_labels 07_action_units')
    edit(tmp_path/'nbs/data/01_labels.ipynb', another_label)
    edit(tmp_path/'nbs/index.ipynb', lambda n: n['cells'][0]['source'].append('\nAnother word.'))
    done = drift(tmp_path)
    assert done.returncode != 0 and 'make export' in done.stderr
    assert 'Files mpfnet/data/labels.py and' in done.stderr and 'Files README.md and' in done.stderr
    assert 'Only in mpfnet/data: readers.py' in done.stderr and 'action_units.py' not in done.stderr
