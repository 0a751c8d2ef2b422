"""The program as its users start it: papermill on nbs/05_loso.ipynb, from the caller's folder."""
import json
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from conftest import CHEAP, ROOT

from mpfnet.synth import make_lookalike

LOSO = ROOT / 'nbs' / '05_loso.ipynb'


def papermill(tmp_path, *args):
    return subprocess.run([sys.executable, '-m', 'papermill', str(LOSO), str(tmp_path / 'out.ipynb'), '--no-progress-bar', *args], cwd=tmp_path, capture_output=True, text=True, timeout=600)


def of_ours(stderr):
    "What a run says, without papermill's own lines and the kernel's about its sockets and its end."
    own = ('Input Notebook:', 'Output Notebook:', 'Executing notebook with kernel', '[IPKernelApp] WARNING | Kernel is running over TCP', '[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel')
    return [l for l in stderr.splitlines() if l.strip() and not l.startswith(own)]


def test_synth_end_to_end(tmp_path):
    done = papermill(tmp_path, '-p', 'method', 'mpfnet_c', '-p', 'overrides', CHEAP, '-p', 'subjects', 'synth/sub01,synth/sub02', '-p', 'workers', '2')
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = (tmp_path / 'runs').glob('synth-3class-mpfnet_c-*')
    m = json.loads((folder / 'metrics.json').read_text())
    assert m['folds']['done'] == 2 and m['pooled']['n'] == sum(map(sum, m['pooled']['confusion']))
    assert not of_ours(done.stderr)
    text = '\n'.join(str(o) for c in nbformat.read(tmp_path / 'out.ipynb', 4).cells for o in c.get('outputs', []))
    assert 'SYNTHETIC' in text and 'UF1' in text and 'image/png' in text


def test_flow_release_and_its_parameters(flow_root, tmp_path):
    done = papermill(tmp_path, '-p', 'dataset', 'megc2019_flow', '-p', 'data_root', str(flow_root), '-p', 'method', 'pca_lda', '-p', 'subjects', 'samm/sa00,smic/sm01')
    assert done.returncode == 0, done.stderr[-3000:]
    config = json.loads(next((tmp_path / 'runs').glob('megc2019_flow-3class-pca_lda-*/config.json')).read_text())
    assert config['dataset'] == 'megc2019_flow' and config['method'] == 'pca_lda'


def test_a_licensed_dataset_as_its_look_alike(tmp_path):
    make_lookalike('samm', tmp_path / 'data', subjects=4, size=48, progress=False)
    done = papermill(tmp_path, '-p', 'dataset', 'samm', '-p', 'task', '5class', '-p', 'preset', 'tiny', '-p', 'data_root', 'data', '-p', 'overrides', CHEAP, '-p', 'apex', 'midpoint')
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = (tmp_path / 'runs').glob('samm-5class-mpfnet_c-*')
    assert set(pd.DataFrame(json.loads((folder / 'data_report.json').read_text())['findings'])['decision']) >= {'partial-copy'}
    text = '\n'.join(str(o) for c in nbformat.read(tmp_path / 'out.ipynb', 4).cells for o in c.get('outputs', []))
    assert 'LOOK-ALIKE of SAMM' in text and 'partial-copy' in text


@pytest.mark.parametrize('args, says', [(('-p', 'datset', 'samm'), 'unknown parameter(s) datset'), (('-p', 'dataset', 'nothing'), 'known: synth')])
def test_a_slip_is_an_error_and_nothing_runs(tmp_path, args, says):
    done = papermill(tmp_path, *args)
    assert done.returncode != 0 and says in done.stderr and not (tmp_path / 'runs').exists()
