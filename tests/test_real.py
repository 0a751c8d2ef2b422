"""The public flow release: 442 real micro-expressions. An independent run of the same deterministic model gives these
digits."""
import json

import pytest

from mpfnet.clips import load_clips
from mpfnet.loso import run


def metrics(root, out, method):
    m = json.loads(
        (
            run(dataset='megc2019_flow', data_root=str(root), out_dir=str(out), method=method, workers=2, device='cpu')
            / 'metrics.json'
        ).read_text()
    )
    return {'pooled': m['pooled']} | m['per_dataset']


def test_release_is_the_one_the_numbers_stand_on(real_root):
    report = load_clips('megc2019_flow', real_root).report
    assert report['source']['checksum'] == report['source']['expected'] and not report['findings']


def test_pca_lda_to_the_digit(real_root, tmp_path):
    m = metrics(real_root, tmp_path, 'pca_lda')
    found = {k: (round(v['uf1'], 4), round(v['uar'], 4)) for k, v in m.items()}
    assert found == {'pooled': (.7270, .7459), 'smic': (.6717, .6809), 'casme2': (.8676, .8854), 'samm': (.6110, .6481)}


def test_majority(real_root, tmp_path):
    m = metrics(real_root, tmp_path, 'majority')['pooled']
    assert m['uf1'] == pytest.approx(.2408, abs=1e-4) and m['uar'] == pytest.approx(1 / 3) and m['n'] == 442
