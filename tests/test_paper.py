"""Tables and figures: which runs they need, what of them is found, and that a number never stands under the wrong name."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CHEAP, ROOT
from hypothesis import given, strategies as st

from mpfnet import loso, paper, tables
from mpfnet.metrics import evaluate, read_predictions
from mpfnet.paper import Paper, Wanted, find_runs, look_for, merged, plan, runs_of, save_figure, stamp_of

TWO = dict(table3=[Wanted(dataset='megc2019_flow', method='majority'), Wanted(dataset='megc2019_flow', method='pca_lda')])


@pytest.fixture
def few(monkeypatch):
    "Two quick runs instead of the paper's."
    monkeypatch.setattr(paper, 'runs_of', lambda data, lengths=None: TWO)


@pytest.fixture(scope='module')
def parallel(flow_root, tmp_path_factory):
    "A run of MPFNet-P on three subjects of the flow look-alike."
    out = tmp_path_factory.mktemp('p')
    return loso.run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(out), method='mpfnet_p', subjects='samm/sa00,smic/sm01,casme2/ca02', overrides=CHEAP, keep_weights=True)


@pytest.mark.parametrize('name', paper.REFERENCE)
def test_reference(name):
    "As it was handed to us, where that is at hand."
    shared = ROOT.parent / 'shared' / 'reference' / f'{name}.csv'
    if not shared.exists(): pytest.skip('the source tables are not beside the checkout')
    pd.testing.assert_frame_equal(paper.reference(name), pd.read_csv(shared))


def test_every_run_is_one_that_loso_accepts():
    for data in paper.DATA:
        for w in merged(runs_of(data)): loso.check_parameters(Paper(data=data).parameters(w))


def test_every_page_that_needs_runs_exists():
    pages = {p.stem for p in (ROOT / 'paper_figures').glob('*.ipynb')}
    assert {name for data in paper.DATA for name in runs_of(data)} <= pages
    assert {f'table{i}' for i in range(1, 6)} | {f'fig{i:02}' for i in range(1, 12)} == pages


def test_plan_counts_what_is_there(few, flow_root, tmp_path):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path))
    first = plan(p)
    assert first['done'].sum() == 0 and (first['folds'] == first['folds'][0]).all() and first['minutes'].isna().all()
    run = loso.run(**p.parameters(TWO['table3'][0]))
    second = plan(p).set_index('run')
    assert second.loc['megc2019_flow-3class-majority', 'to_train'] == 0 and second.loc['megc2019_flow-3class-pca_lda', 'to_train'] == first['folds'][0]
    victims = sorted((run / 'folds').glob('*.json'))[:3]
    victims[0].unlink(); victims[1].write_text('{'); victims[2].write_text(victims[2].read_text().replace('"config": "', '"config": "0'))
    assert plan(p).set_index('run').loc['megc2019_flow-3class-majority', 'to_train'] == 3
    assert 'to train' in paper.plan_text(p, plan(p)) and not find_runs(tmp_path, method='majority')


def test_other_settings_or_other_code_are_other_runs(few, flow_root, tmp_path, monkeypatch):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path))
    run, w = loso.run(**p.parameters(TWO['table3'][1])), TWO['table3'][1]
    assert look_for(p, w, 0).folder == run and look_for(p, w, 1).folder is None
    assert look_for(p, Wanted(dataset='megc2019_flow', method='pca_lda', features='flow'), 0).folder is None
    monkeypatch.setattr(paper, 'code_hash', lambda modules: 'another')
    assert look_for(p, w, 0).folder is None


def test_weights_count_where_they_are_wanted(parallel, flow_root):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(parallel.parent), overrides=CHEAP)
    w = Wanted(dataset='megc2019_flow', method='mpfnet_p', keep_weights=True)
    assert look_for(p, w, 0).done == 3
    file = next((parallel / 'weights').glob('*'))
    kept = file.read_bytes()
    file.unlink()
    assert look_for(p, w, 0).done == 2 and look_for(p, Wanted(dataset='megc2019_flow', method='mpfnet_p'), 0).done == 3
    file.write_bytes(kept)


def test_killed_and_made_again(flow_root, tmp_path):
    "The second `mpfnet paper` trains only what is missing."
    command = [sys.executable, '-c', 'import sys; from mpfnet import paper; from mpfnet.cli import main\n'
               'from mpfnet.paper import Wanted\n'
               'paper.runs_of = lambda data, lengths=None: dict(table3=[Wanted(dataset="megc2019_flow", method="majority"), Wanted(dataset="megc2019_flow", method="pca_lda")])\n'
               'sys.exit(main(sys.argv[1:]))', 'paper', 'public_flow', '--only', 'table3', '--out-dir', str(tmp_path / 'out'), '--data-root', str(flow_root), '--overrides', CHEAP]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 240
    while len(list((tmp_path / 'out').glob('*pca_lda*/folds/*.json'))) < 3 and time.time() < deadline and first.poll() is None: time.sleep(.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    folder, = (tmp_path / 'out').glob('*pca_lda*/folds')
    before = {f.name: f.stat().st_mtime_ns for f in folder.glob('*.json')}
    assert 3 <= len(before) < 60
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert second.returncode == 0, second.stderr[-3000:]
    after = {f.name: f.stat().st_mtime_ns for f in folder.glob('*.json')}
    assert {k: after[k] for k in before} == before and len(after) > len(before)
    assert f'{len(before)} folds' not in second.stdout and 'to train' in second.stdout
    table = pd.read_csv(tmp_path / 'out' / 'tables' / 'table3.csv')
    ours = table[(table['row'] == 'majority class (not in the paper)') & (table['column'] == 'megc2019_cd_uf1')]
    assert len(ours) == 1 and ours['ours'].iat[0] == pytest.approx(json.loads(next((tmp_path / 'out').glob('*majority*/metrics.json')).read_text())['pooled']['uf1'])
    assert 'LOOK' in ours['stamp'].iat[0] or 'REAL' in ours['stamp'].iat[0]


@pytest.mark.parametrize('gamma', [0., .3, .7, 1.])
def test_gamma_sweep_is_what_a_run_with_that_gamma_gets(parallel, flow_root, gamma):
    "From the records alone, without training."
    run = loso.run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(parallel.parent), method='mpfnet_p', subjects='samm/sa00,smic/sm01,casme2/ca02', overrides=CHEAP, gamma=gamma)
    t = read_predictions(run / 'predictions.csv')
    assert tables.gamma_sweep([parallel], [gamma])['acc'].iat[0] == pytest.approx(evaluate(t['label'], t['prediction'], 3)['acc'])


def test_the_parts_add_up_to_the_scores(parallel):
    for r in tables.records_of(parallel):
        assert np.allclose(sum(w * np.array(p) for w, p in zip(r['weights'], r['parts'])), r['scores'], atol=3e-6)


def test_no_runs_no_table(tmp_path):
    for name in ('table2', 'table3', 'table4', 'table5'):
        assert 'no finished run' in tables.page(name, tmp_path, 'real') and not (tmp_path / 'tables').exists()


def run_with_stamp(folder, stamp, **config):
    "A folder that looks like a finished run."
    folder.mkdir(parents=True)
    r = np.random.default_rng(0)
    t = pd.DataFrame(dict(dataset='smic', subject=[f's{i // 5:02}' for i in range(40)], clip=[f'c{i:02}' for i in range(40)], label=np.arange(40) % 3, prediction=r.integers(0, 3, 40)))
    t.assign(score_0=0., score_1=0., score_2=0.).to_csv(folder / 'predictions.csv', index=False)
    c = dict(dataset='smic', task='3class', method='lbp_top', seed=0, settings={}, data=dict(stamp=stamp, subjects=0)) | config
    (folder / 'config.json').write_text(json.dumps(c))
    return folder


def test_kinds_of_data_do_not_mix(tmp_path):
    a, b = run_with_stamp(tmp_path / 'a', 'REAL clips, SMIC-HS'), run_with_stamp(tmp_path / 'b', 'LOOK-ALIKE of SMIC-HS: synthetic faces', method='bi_woof')
    assert stamp_of([a]) == 'REAL clips' and stamp_of([b]).startswith('LOOK-ALIKES')
    with pytest.raises(ValueError, match='different kinds'): stamp_of([a, b])
    with pytest.raises(ValueError, match='different kinds'): tables.page('table3', tmp_path, 'real')
    with pytest.raises(ValueError, match='unknown stamp'): save_figure(None, 'fig08', tmp_path, 'nice clips')


def test_a_cell_holds_its_own_run(tmp_path):
    "A run's number stands in its own row and columns and nowhere else; in all three files with the stamp."
    run = run_with_stamp(tmp_path / 'smic-3class-lbp_top-0', 'LOOK-ALIKE of SMIC-HS: synthetic faces')
    html = tables.page('table3', tmp_path, 'lookalike')
    c = pd.read_csv(tmp_path / 'tables' / 'table3.csv')
    mine = c[c['ours'].notna()]
    assert mine['row'].str.startswith('LBP-TOP').all() and sorted(mine['column']) == ['smic_uar', 'smic_uf1'] and set(mine['runs']) == {run.name}
    t = read_predictions(run / 'predictions.csv')
    expected = evaluate(t['label'], t['prediction'], 3)
    assert mine.set_index('column')['ours'].to_dict() == pytest.approx({f'smic_{m}': expected[m] for m in ('uf1', 'uar')})
    for text in (html, *((tmp_path / 'tables' / f'table3.{k}').read_text() for k in ('html', 'tex'))): assert 'LOOK-ALIKES' in text and f"{expected['uf1']:.3f}" in text
    assert c['stamp'].str.startswith('LOOK-ALIKES').all()
    assert c[c['paper'].notna()].groupby('row')['paper'].count().loc['MPFNet-C (2025)'] == 8


def test_several_seeds_are_a_mean(tmp_path):
    runs = [run_with_stamp(tmp_path / f'r{s}', 'LOOK-ALIKE of SMIC', seed=s) for s in range(3)]
    for s, r in enumerate(runs):
        t = pd.read_csv(r / 'predictions.csv')
        t.assign(prediction=(t['label'] + (np.arange(len(t)) % (s + 2) == 0)) % 3).to_csv(r / 'predictions.csv', index=False)
    each = [tables.scores_of([r])['uf1'] for r in runs]
    value, low, high = tables.scores_of(runs)['uf1']
    assert value == pytest.approx(np.mean([v for v, *_ in each])) and low < value < high and high - low > min(h - l for _, l, h in each)


@given(st.lists(st.sampled_from(['paper', 'cells', 'a_b%', 'x&y', 'PLTN']), min_size=1, max_size=3, unique=True))
def test_latex_escapes(names):
    rows = [dict(row=n, column='smic_uf1', dataset='smic', task='3class', metric='uf1', paper=.5, ours=.4, low=.3, high=.5, note='', runs='') for n in names]
    text = tables.as_latex('table3', pd.DataFrame(rows), 'REAL clips')
    assert 'a_b%' not in text and 'x&y' not in text and text.count(r'\midrule') == 1 and all(n in text for n in names if n.isalpha())


@pytest.mark.parametrize('args, says', [(('faces',), 'invalid choice'), (('lookalike', '--only', 'table9', '--plan'), 'table9'), (('real', '--plan'), 'MPFNET_DATA')])
def test_slips(tmp_path, args, says):
    env = {k: v for k, v in os.environ.items() if k != 'MPFNET_DATA'}
    done = subprocess.run([sys.executable, '-m', 'mpfnet', 'paper', *args, '--out-dir', str(tmp_path)], cwd=ROOT, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode != 0 and says in done.stderr + done.stdout and 'Traceback' not in done.stderr
