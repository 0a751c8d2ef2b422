"""The protocol audit: it trains what a run trains, goes on where it stopped, and choosing on test clips gets more of
them right."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mpfnet.loso import run
from mpfnet.paper.protocol_audit import (
    Curves,
    audit,
    best_epoch_all,
    best_epoch_each,
    best_of,
    last_epoch,
    measure,
    read_curves,
    trainings_of,
    uf1,
)

pytestmark = pytest.mark.filterwarnings('ignore:megc2019_flow. checksum')     # look-alikes are not the release
TWO = 'samm/sa00,smic/sm00'
CHEAP = 'ststnet.epochs=2,pltn.epochs=1,meta.updates=4,encoder.width=0.125'


def arguments(root, out, **kwargs):
    return (
        dict(dataset='megc2019_flow', data_root=str(root), out_dir=str(out), overrides=CHEAP, subjects=TWO,
             device='cpu', method='ststnet', seed='0,1')
        | kwargs
    )


@pytest.mark.parametrize('method', ['ststnet', 'pltn', 'pca_lda'])
def test_what_is_watched_is_what_a_run_trains(method, flow_root, tmp_path):
    folder = audit(**arguments(flow_root, tmp_path, method=method, seed=0))
    ran = run(**arguments(flow_root, tmp_path, method=method, seed=0))
    for path in sorted((ran/'folds').glob('*.json')):
        record, curve = json.loads(path.read_text()), np.load(folder/'seed0'/f'{path.stem}.npz', allow_pickle=False)
        assert str(curve['sha']) == record['weights_sha256'] and np.array_equal(curve['scores'][-1], record['scores'])
        assert curve['clips'].tolist() == record['clips'] and str(curve['config']) == record['config']
        assert len(curve['scores']) == {'ststnet': 3, 'pltn': 5, 'pca_lda': 1}[method]


def test_goes_on_where_it_stopped(flow_root, tmp_path):
    assert set(read_curves(audit(normalise=False, **arguments(flow_root, tmp_path))).scores) == {(0, None), (1, None)}
    folder = audit(**arguments(flow_root, tmp_path))
    records = sorted(folder.rglob('*.npz'))
    assert len(records) == 2*len(trainings_of('ststnet', [0, 1])) == 10
    before, whole = {p: p.stat().st_mtime_ns for p in records}, {p: p.read_bytes() for p in records}
    records[0].write_bytes(whole[records[0]][:200])
    records[3].write_bytes(b'no archive')
    records[5].unlink()
    # a pickle inside: refused, computed again
    np.savez(records[8], scores=np.array([object()], dtype=object))
    again = audit(**arguments(flow_root, tmp_path, workers=2))
    assert again == folder
    for k, p in enumerate(records):
        assert (p.stat().st_mtime_ns == before[p]) == (k not in (0, 3, 5, 8))
        assert all(np.array_equal(a, b) for a, b in zip(np.load(p).values(), np.load(p).values()))
    c = read_curves(folder)
    assert (len(c.honest) == 2 and c.scores[0, None].shape == (3, len(c.labels), 3) and set(c.scores)
            == {(0, None), (1, None), (0, 'training'), (0, 'everyone'), (0, 'own')})
    table = measure(c, n=200)
    assert table['uf1_gap'].iloc[0] == 0 and table.loc['best epoch on each test subject', 'uf1'] >= table['uf1'].iloc[0]


@hypothesis_settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 9))
def test_choosing_on_the_test_clips_flatters(seed, epochs, people):
    r = np.random.default_rng(seed)
    n = 40
    labels, subjects = r.integers(0, 3, n), [('d', f'{k % people}') for k in range(n)]
    curves = [r.random((epochs, n, 3)) for _ in range(2)]
    def right(p): return (p == labels).sum()
    for c in curves:
        assert right(best_epoch_each(c, labels, subjects)) >= max(right(p) for p in c.argmax(-1))
        assert uf1(labels, best_epoch_all(c, labels, subjects), 3) == max(uf1(labels, p, 3) for p in c.argmax(-1))
    assert right(best_of(curves, labels, subjects)) >= max(right(last_epoch(c, labels, subjects)) for c in curves)


def test_gaps_are_paired():
    "Two rules that give the same predictions differ by exactly nothing, whatever the draw."
    r = np.random.default_rng(0)
    one = r.random((1, 60, 3)).repeat(5, 0)                              # every epoch the same
    c = Curves({(0, None): one}, r.integers(0, 3, 60), [('d', str(k % 10)) for k in range(60)], np.arange(5), {})
    row = measure(c, n=100).loc['best epoch on each test subject']
    assert (row['uf1_gap'] == 0 and np.all(row['uf1_gap_ci95'] == 0)
            and row['uf1_ci95'][0] < row['uf1'] < row['uf1_ci95'][1])


def test_the_average_is_watched_where_the_average_is_the_model(flow_root, tmp_path):
    "With `meta.average` the last look is at the model itself, and inner folds are not looked at."
    folder = audit(
        **arguments(flow_root, tmp_path, method='pltn', seed=0, subjects='samm/sa00', overrides=CHEAP
                    + ',meta.average=0.9')
    )
    curve = np.load(folder/'seed0'/'samm__sa00.npz')
    assert np.allclose(curve['scores'][-1], curve['scores'][-2], atol=1e-5) and not np.allclose(
        curve['scores'][0], curve['scores'][-1], atol=1e-4
    )
    rows = np.random.default_rng(0).normal(size=(36, 3, 1, 16, 16)), [0, 1, 2]*12, [f's{k // 6}' for k in range(36)]
    inner = audit(
        **arguments(flow_root, tmp_path, method='mpfnet_p', seed=0, subjects='arrays/s0', overrides=CHEAP
                    + ',plsm.epochs=1,plsm.phi_limit=1', gamma='inner', dataset=rows, data_root=None, preset='tiny')
    )
    assert np.load(inner/'seed0'/'arrays__s0.npz')['epochs'].tolist() == [1, 2, 3, 4, 4]


def test_a_run_cannot_be_told_to_look(flow_root, tmp_path):
    with pytest.raises(ValueError, match='unknown parameter'): run(**arguments(flow_root, tmp_path, watch=True))
