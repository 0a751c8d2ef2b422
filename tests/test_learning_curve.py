"""The learning curve: nothing of those who are tested, the same draws for all, a curve that goes on, and what is
refused."""
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CHEAP

from mpfnet.core.pages import notebook_path, run_page
from mpfnet.paper.learning_curve import learning_curve, order_of, training_sizes

ROOT = Path(__file__).parents[1]
LABELS, WHO = np.tile([0, 1, 2], 12), np.repeat([f's{k:02}' for k in range(9)], 4)


def rows(seed=0):
    x = np.random.default_rng(seed).normal(size=(36, 3, 1, 28, 28)).astype(np.float32)
    for c in range(3): x[LABELS == c, 0, :, 9*c:9*c + 9] += 1
    return x


def go(folder, x=None, labels=LABELS, methods='pca_lda', **more):
    given = dict(sizes='3,all', draws=2) | more
    return learning_curve(methods, dataset=(rows() if x is None else x, labels, WHO), out_dir=str(folder),
                          progress=False, **given)


def records(curve):
    return {p.relative_to(curve.folder): json.loads(p.read_text(encoding='utf-8'))
            for p in sorted(curve.folder.glob('*/*.json'))}


def test_nobody_who_is_tested_decides_anything(tmp_path):
    """Noise in the place of one person: fits that test them say the same of the others, and fits that learn from them
    do not."""
    x, noisy, mine = rows(), rows(), WHO == 's04'
    noisy[mine] = np.random.default_rng(9).normal(5, 9, noisy[mine].shape)
    a, b = (records(go(tmp_path/n, v, sizes='3')) for n, v in (('a', x), ('b', noisy)))
    seen = set()
    for (name, r), (_, s) in zip(a.items(), b.items()):
        held = {who for _, who in r['held'][0]}
        assert r['held'] == s['held'] and r['clips'] == s['clips']
        others = np.array([WHO[int(c)] != 's04' for c in r['clips']])
        same = np.array_equal(np.array(r['scores'])[others], np.array(s['scores'])[others])
        assert same == ('s04' in held), name
        seen.add(same)
        assert len(held) == 6 and sorted({WHO[int(c)] for c in r['clips']}) == sorted(held)
    assert True in seen


def test_every_method_gets_the_same_people_and_sizes_are_nested(tmp_path):
    found = records(go(tmp_path, methods='majority,pca_lda', sizes='3,5'))
    held = {name.parts: {tuple(s) for s in r['held'][0]} for name, r in found.items()}
    for k in (0, 1):
        for n in (3, 5): assert held['majority', f'{n}-{k}.json'] == held['pca_lda', f'{n}-{k}.json']
        assert held['pca_lda', f'5-{k}.json'] < held['pca_lda', f'3-{k}.json']
    assert held['pca_lda', '3-0.json'] != held['pca_lda', '3-1.json']


def test_a_curve_goes_on_and_other_settings_or_data_are_fitted_anew(tmp_path):
    first = go(tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.folder.glob('*/*.json')}
    torn = sorted(before)[0]
    torn.write_text('{')
    with pytest.warns(UserWarning, match='left out'): again = go(tmp_path, methods='pca_lda,majority')
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}
    assert after[torn][1] == before[torn][1]
    assert {p for p in before if after[p] != before[p]} == {torn}
    assert len([*again.folder.glob('majority/*.json')]) == 3 and len(again.table) == 6
    other = go(tmp_path, rows(1))
    assert not again.table['uf1'][:3].equals(other.table['uf1'])


def test_all_is_leave_one_subject_out(tmp_path):
    from mpfnet.loso import run
    record, = records(go(tmp_path, sizes='all', draws=1)).values()
    folder = run(dataset=(rows(), LABELS, WHO), method='pca_lda', out_dir=str(tmp_path), device='cpu', progress=False)
    from mpfnet.metrics import read_predictions
    whole = read_predictions(folder/'predictions.csv').set_index('clip')
    assert whole.loc[record['clips'], 'prediction'].tolist() == record['predictions'] and len(record['clips']) == 36


@pytest.mark.parametrize('asked, says', [
    (dict(sizes='0'), 'sizes: expected a whole number, 1…8'), (dict(sizes='9'), '1…8'), (dict(sizes=''), 'sizes'),
    (dict(sizes='3,3'), 'different numbers'), (dict(draws=0), 'draws: expected a whole number, 1 or more'),
    (dict(methods='pca_lda,pca_lda'), 'each once'), (dict(methods=''), 'one or more'),
    (dict(methods='nothing'), 'nothing'), (dict(sizes='1'), 'ask for more'), (dict(seed='0,1'), 'seed: expected one'),
    (dict(split='kfold:3'), 'parameters: expected'),
])
def test_what_cannot_be_drawn_is_a_sentence(tmp_path, asked, says):
    labels = np.repeat(np.arange(3), 12) if asked == dict(sizes='1') else LABELS
    with pytest.raises(ValueError, match=says): go(tmp_path, labels=labels, **asked)
    assert not [*tmp_path.glob('curve-*/*/*.json')]


def test_copies_of_frames_are_refused(synth_root, tmp_path):
    with pytest.raises(ValueError, match='learning curve of plsm: expected a method without them'):
        learning_curve('plsm', dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), sizes='2', draws=1,
                       preset='tiny', overrides='preprocess.size=16,plsm.phi_limit=1', progress=False)


def test_sizes_and_orders():
    assert training_sizes([4, 2], 9) == [2, 4] and training_sizes(3, 9) == [3] and training_sizes('all', 9) == ['all']
    import pandas as pd
    clips = pd.DataFrame(dict(dataset='d', subject=WHO, label=LABELS))
    assert order_of(clips, 0, 3, seed=0) != order_of(clips, 0, 3, seed=1)


def test_the_page_runs_as_papermill_runs_it(flow_root, tmp_path):
    out = tmp_path/'curve.ipynb'
    run_page(notebook_path('learning_curve'), out, dict(
        dataset='megc2019_flow', methods='majority', sizes='2', draws=1, data_root=str(flow_root),
        out_dir=str(tmp_path/'runs')))
    assert len([*(tmp_path/'runs').glob('curve-*/majority/2-0.json')]) == 1


def test_a_dataset_is_tested_by_what_the_others_taught(flow_root, tmp_path):
    "On the look-alike of the release; the same as a run with split=dataset, clip by clip."
    from mpfnet.loso import run
    from mpfnet.metrics import read_predictions
    shared = dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), device='cpu')
    curve = learning_curve('pca_lda', sizes='datasets', draws=5, progress=False, **shared)
    record, = records(curve).values()
    assert [sorted({d for d, _ in held}) for held in record['held']] == [['casme2'], ['samm'], ['smic']]
    folder = run(method='pca_lda', split='dataset', progress=False, **shared)
    whole = read_predictions(folder/'predictions.csv')                           # sorted by dataset, subject and clip
    assert whole['clip'].tolist() == record['clips'] and whole['prediction'].tolist() == record['predictions']
    assert len(whole) == 442
    with pytest.raises(ValueError, match='datasets of the clips: expected two or more'): go(tmp_path, sizes='datasets')


def test_networks_with_priors_have_a_curve_on_ready_made_flow(flow_root, tmp_path):
    curve = learning_curve('mpfnet_p,au_zero', dataset='megc2019_flow', data_root=str(flow_root), sizes='4', draws=1,
                           out_dir=str(tmp_path), device='cpu', preset='tiny', progress=False,
                           overrides=f'{CHEAP},plau.updates=1,plau.batch=2')
    assert curve.table['method'].tolist() == ['mpfnet_p', 'au_zero'] and curve.table['uf1'].between(0, 1).all()
    assert curve.table['clips'].nunique() == 1
