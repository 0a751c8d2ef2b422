"""Tables and figures: which runs they need, what of them is found, and that a number never stands under the wrong
name."""
import hashlib
import json
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from conftest import CHEAP, ROOT
from hypothesis import given
from hypothesis import strategies as st
from warm import warm

from mpfnet import loso
from mpfnet.core.files import as_json, hash_of
from mpfnet.metrics import evaluate, read_predictions
from mpfnet.paper import plan as paper
from mpfnet.paper import tables
from mpfnet.paper.plan import Paper, Wanted, find_runs, look_for, merged_runs, plan, runs_of, save_figure
from mpfnet.results.records import with_hash
from mpfnet.results.runs import stamp_of

TWO = dict(
    table3=[Wanted(dataset='megc2019_flow', method='majority'), Wanted(dataset='megc2019_flow', method='pca_lda')]
)


@pytest.fixture
def few(monkeypatch):
    "Two quick runs instead of the paper's."
    monkeypatch.setattr(paper, 'runs_of', lambda data, lengths=None: TWO)


@pytest.fixture(scope='module')
def parallel(flow_root, tmp_path_factory):
    "A run of MPFNet-P on three subjects of the flow look-alike."
    out = tmp_path_factory.mktemp('p')
    return loso.run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(out), method='mpfnet_p',
                    subjects='samm/sa00,smic/sm01,casme2/ca02', overrides=CHEAP, keep_weights=True)


PRINTED = {'fig9_class_std': '78b6aecb016dde09', 'siblings': '358699d2421f4949', 'table1_balance': 'ceb601d36a8c0028',
           'table2_sde': '497b7ec7212613c6', 'table3_cde': '955b20751cfcf6b4', 'table4_priors': 'e169637602d17140',
           'table5_features': '1cb02465c02e6e55'}


@pytest.mark.parametrize('name', paper.REFERENCE)
def test_reference(name):
    "The paper's numbers are the bytes that were handed to us."
    assert hashlib.sha256((ROOT / 'mpfnet' / 'reference' / f'{name}.csv').read_bytes()).hexdigest()[:16] == PRINTED[
        name
    ] and len(paper.reference(name))


def test_every_run_is_one_that_loso_accepts():
    for data in paper.DATA:
        for w in merged_runs(runs_of(data)): loso.check_parameters(Paper(data=data).parameters(w))


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
    assert (second.loc['megc2019_flow-3class-majority', 'to_train'] == 0
            and second.loc['megc2019_flow-3class-pca_lda', 'to_train'] == first['folds'][0])
    victims = sorted((run / 'folds').glob('*.json'))[:3]
    victims[0].unlink()
    victims[1].write_text('{')
    victims[2].write_text(victims[2].read_text().replace('"config": "', '"config": "0'))
    assert plan(p).set_index('run').loc['megc2019_flow-3class-majority', 'to_train'] == 3
    assert 'to train' in paper.plan_text(p, plan(p)) and not find_runs(tmp_path, method='majority')


def test_other_settings_or_other_code_are_other_runs(few, flow_root, tmp_path, monkeypatch):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path))
    w = TWO['table3'][1]
    run = loso.run(**p.parameters(w) | dict(subjects='samm/sa00,smic/sm01'))
    assert look_for(p, w, 0).folder == run and look_for(p, w, 1).folder is None
    assert look_for(p, Wanted(dataset='megc2019_flow', method='pca_lda', features='flow'), 0).folder is None
    monkeypatch.setattr(paper, 'code_deciding', lambda method: 'another')
    assert look_for(p, w, 0).folder is None


def test_auto_stands_for_what_it_comes_to_for_the_clips_of_a_run(monkeypatch):
    "A run of crops is the expected one everywhere; one of whole frames where `auto` finds faces as it did there."
    wanted = dict(method='plsm', settings=dict(preprocess=dict(face='auto', size=32), features='both'))

    def config(face, crops):
        return dict(method='plsm', settings=dict(preprocess=dict(face=face, size=32), features='both'),
                    data=dict(clips=10, cropped=crops))
    for finder, other in (('blaze', 'haar'), ('haar', 'blaze')):
        monkeypatch.setattr('mpfnet.preprocess.best_finder', lambda: finder)
        right = [('precropped', 10), (finder, 0), (f'precropped+{finder}', 4)]
        wrong = [(finder, 10), ('precropped', 0), (other, 0), (f'precropped+{other}', 4), (finder, 4), ('auto', 10)]
        assert [paper.is_wanted(config(*c), wanted) for c in right + wrong] == [True]*3 + [False]*6
    named = dict(wanted, settings=dict(preprocess=dict(face='blaze', size=32), features='both'))
    assert paper.is_wanted(config('blaze', 0), named) and not paper.is_wanted(config('haar', 0), named)


def test_weights_count_where_they_are_wanted(parallel, flow_root):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(parallel.parent), overrides=CHEAP)
    w = Wanted(dataset='megc2019_flow', method='mpfnet_p', keep_weights=True)
    assert look_for(p, w, 0).done == 3
    file = next((parallel / 'weights').glob('*'))
    kept = file.read_bytes()
    file.unlink()
    assert look_for(p, w, 0).done == 2 and look_for(p, Wanted(dataset='megc2019_flow', method='mpfnet_p'), 0).done == 3
    file.write_bytes(kept)


#: `mpfnet paper` with one run of table 3. Its papermills are forks, which know nothing of that; so are their kernels
ONE_RUN = f"""
import sys
from types import SimpleNamespace
from mpfnet.cli import main
from mpfnet.paper import plan as paper
from mpfnet.paper.plan import Wanted
sys.path.append({str(ROOT/'tests')!r})
from warm import run_forked
runs_of, subprocess = paper.runs_of, paper.subprocess
def run(command, preexec_fn, **how):
    def first():
        paper.runs_of, paper.subprocess = runs_of, subprocess
        preexec_fn()
    return run_forked(command, preexec_fn=first, **how)
if hasattr(paper.os, 'fork'):
    paper.subprocess = SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
paper.runs_of = lambda data, lengths=None: dict(table3=[Wanted(dataset="megc2019_flow", method="pca_lda")])
sys.exit(main(sys.argv[1:]))
"""


def test_killed_and_made_again(flow_root, tmp_path, monkeypatch):
    "The second `mpfnet paper` trains only what is missing."
    command = [
        '-c',
        ONE_RUN,
        'paper',
        'public_flow',
        '--only',
        'table3',
        '--out-dir',
        str(tmp_path / 'out'),
        '--data-root',
        str(flow_root),
    ]
    first = warm.begin(*command, cwd=ROOT, kernels=True)
    deadline = time.time() + 240
    while (
        len(list((tmp_path / 'out').glob('*pca_lda*/folds/*.json'))) < 3 and time.time() < deadline
        and first.poll() is None
    ):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(2.5)                                          # the kernel notices that nobody is left to work for
    folder, = (tmp_path / 'out').glob('*pca_lda*/folds')
    before = {f.name: f.stat().st_mtime_ns for f in folder.glob('*.json')}
    time.sleep(1.5)
    assert 3 <= len(before) < 68 and len(list(folder.glob('*.json'))) == len(before)
    second = warm(*command, cwd=ROOT, kernels=True)
    assert second.returncode == 0, second.stderr[-3000:]
    after = {f.name: f.stat().st_mtime_ns for f in folder.glob('*.json')}
    assert {k: after[k] for k in before} == before and len(after) > len(before)
    assert f'{len(before)} of 68 folds are done' in second.stdout
    table = pd.read_csv(tmp_path / 'out' / 'tables' / 'table3.csv')
    ours = table[(table['row'] == 'PCA + LDA (not in the paper)') & (table['column'] == 'megc2019_cd_uf1')]
    assert len(ours) == 1 and ours['ours'].iat[0] == pytest.approx(
        json.loads(next((tmp_path / 'out').glob('*pca_lda*/metrics.json')).read_text())['pooled']['uf1']
    )
    # made-up flow has another checksum than the release
    assert ours['stamp'].iat[0].endswith('NOT the published list') and 'seeds 0' in ours['made_from'].iat[0]
    monkeypatch.setattr(paper, 'runs_of', lambda data, lengths=None: dict(table3=TWO['table3'][1:]))
    assert not plan(Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path / 'out')))['open'].any()


@pytest.mark.parametrize('gamma', [0., .3, .7, 1.])
def test_gamma_sweep_is_what_a_run_with_that_gamma_gets(parallel, flow_root, gamma):
    "From the records alone, without training."
    run = loso.run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(parallel.parent), method='mpfnet_p',
                   subjects='samm/sa00,smic/sm01,casme2/ca02', overrides=CHEAP, gamma=gamma)
    t = read_predictions(run / 'predictions.csv')
    assert tables.gamma_sweep([parallel], [gamma])['acc'].iat[0] == pytest.approx(
        evaluate(t['label'], t['prediction'], 3)['acc']
    )


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
    t = pd.DataFrame(
        dict(dataset='smic', subject=[f's{i // 5:02}' for i in range(40)], clip=[f'c{i:02}' for i in range(40)],
             label=np.arange(40) % 3, prediction=r.integers(0, 3, 40))
    )
    t.assign(score_0=0., score_1=0., score_2=0.).to_csv(folder / 'predictions.csv', index=False)
    c = (
        dict(dataset='smic', task='3class', method='lbp_top', seed=0, settings={},
             data=dict(stamp=stamp, subjects=0, clips=40))
        | config
    )
    (folder / 'config.json').write_text(json.dumps(c))
    return folder


def test_kinds_of_data_do_not_mix(tmp_path):
    a, b = (run_with_stamp(tmp_path / 'a', 'REAL clips, SMIC-HS'),
            run_with_stamp(tmp_path / 'b', 'LOOK-ALIKE of SMIC-HS: synthetic faces', method='bi_woof'))
    assert stamp_of([a]) == 'REAL clips' and stamp_of([b]).startswith('LOOK-ALIKES')
    with pytest.raises(ValueError, match='different kinds'): stamp_of([a, b])
    c = run_with_stamp(tmp_path / 'c', 'REAL clips, public flow (MEGC2019 flow-28), NOT the published list',
                       method='ststnet')
    # licensed faces may not pass as the public release
    with pytest.raises(ValueError, match='different kinds'): stamp_of([a, c])
    assert stamp_of([c]).endswith('NOT the published list') and stamp_of([c]).startswith('REAL clips, public flow')
    with pytest.raises(ValueError, match='different kinds'): tables.page('table3', tmp_path, 'real')
    with pytest.raises(ValueError, match='unknown stamp'): save_figure(None, 'fig08', tmp_path, 'nice clips')


def test_a_cell_holds_its_own_run(tmp_path):
    "A run's number stands in its own row and columns and nowhere else; in all three files with the stamp."
    run = run_with_stamp(tmp_path / 'smic-3class-lbp_top-0', 'LOOK-ALIKE of SMIC-HS: synthetic faces')
    html = tables.page('table3', tmp_path, 'lookalike')
    c = pd.read_csv(tmp_path / 'tables' / 'table3.csv')
    mine = c[c['ours'].notna()]
    assert (mine['row'].str.startswith('LBP-TOP').all() and sorted(mine['column']) == ['smic_uar', 'smic_uf1']
            and set(mine['runs']) == {run.name})
    t = read_predictions(run / 'predictions.csv')
    expected = evaluate(t['label'], t['prediction'], 3)
    assert mine.set_index('column')['ours'].to_dict() == pytest.approx(
        {f'smic_{m}': expected[m] for m in ('uf1', 'uar')}
    )
    for text in (html, *((tmp_path / 'tables' / f'table3.{k}').read_text() for k in ('html', 'tex'))):
        assert 'LOOK-ALIKES' in text and f"{expected['uf1']:.3f}" in text
    assert c['stamp'].str.startswith('LOOK-ALIKES').all()
    assert c[c['paper'].notna()].groupby('row')['paper'].count().loc['MPFNet-C (2025)'] == 8


def test_several_seeds_are_a_mean(tmp_path):
    runs = [run_with_stamp(tmp_path / f'r{s}', 'LOOK-ALIKE of SMIC', seed=s) for s in range(3)]
    for s, r in enumerate(runs):
        t = pd.read_csv(r / 'predictions.csv')
        t.assign(prediction=(t['label'] + (np.arange(len(t)) % (s + 2) == 0)) % 3).to_csv(r / 'predictions.csv',
                                                                                          index=False)
    each = [tables.scores_of([r])['uf1'] for r in runs]
    value, low, high = tables.scores_of(runs)['uf1']
    assert (value == pytest.approx(np.mean([v for v, *_ in each])) and low < value < high
            and high - low > min(h - l for _, l, h in each))


@given(st.lists(st.sampled_from(['paper', 'cells', 'a_b%', 'x&y', 'PLTN']), min_size=1, max_size=3, unique=True))
def test_latex_escapes(names):
    rows = [
        dict(row=n, column='smic_uf1', dataset='smic', task='3class', metric='uf1', paper=0.5, ours=0.4, low=0.3,
             high=0.5, note='', runs='')
        for n in names
    ]
    text = tables.as_latex('table3', pd.DataFrame(rows), 'REAL clips')
    assert ('a_b%' not in text and 'x&y' not in text and text.count(r'\midrule') == 1
            and all(n in text for n in names if n.isalpha()))


@pytest.mark.parametrize(
    'args, says',
    [
        (('faces',), 'invalid choice'), (('lookalike', '--only', 'table9', '--plan'), 'table9'),
        (('real', '--plan'), 'MPFNET_DATA'), (('lookalike', '--lengths', '2,abc'), '3 to 20'),
        (('public_flow', '--workers', '0'), 'workers'),
    ],
)
def test_slips(tmp_path, args, says):
    env = {k: v for k, v in os.environ.items() if k != 'MPFNET_DATA'}
    done = warm('-m', 'mpfnet', 'paper', *args, '--out-dir', tmp_path, cwd=ROOT, env=env)
    assert done.returncode != 0 and says in done.stderr + done.stdout and 'Traceback' not in done.stderr


def test_pages_show_what_was_asked_for_last(few, flow_root, tmp_path):
    """Another setting in the same folder, newer on disk, does not take the cells of the one that `make paper` was
    told; without its note, two runs are an error."""
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path))
    mine = loso.run(**p.parameters(TWO['table3'][0]))
    paper.note_paper(p)
    twin = tmp_path / 'megc2019_flow-3class-majority-other'
    twin.mkdir()
    read_predictions(mine / 'predictions.csv').assign(prediction=1).to_csv(twin / 'predictions.csv', index=False)
    config = json.loads((mine / 'config.json').read_text()) | dict(code='another')
    (twin / 'config.json').write_text(as_json(config))
    (twin / 'folds').mkdir()
    for f in (mine / 'folds').glob('*.json'):
        (twin / 'folds' / f.name).write_text(
            json.dumps(with_hash(json.loads(f.read_text()) | dict(config=hash_of(config))))
        )
    assert find_runs(tmp_path, method='majority', seed=0) == [mine]
    tables.page('table3', tmp_path, 'public_flow')
    shown = pd.read_csv(tmp_path / 'tables' / 'table3.csv')
    assert set(shown['runs'].dropna()) == {mine.name}
    (tmp_path / 'paper.json').unlink()
    with pytest.raises(ValueError, match='several runs fit'): find_runs(tmp_path, method='majority', seed=0)


def test_changed_clips_are_opened_again(few, flow_root, tmp_path):
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path))
    for w in TWO['table3'][:1]:
        loso.run(**p.parameters(w))
        paper.note_made(p, w)
    assert plan(p)['open'].tolist() == [False, True]
    (tmp_path / 'made.json').write_text(json.dumps({'megc2019_flow-3class-majority/0': 'of other clips'}))
    assert plan(p)['to_train'].tolist() == [68, 68]


def test_a_failure_stops_the_other_chains(monkeypatch, flow_root, tmp_path):
    runs = dict(
        table3=[Wanted(dataset='megc2019_flow', method='majority'),
                *(Wanted(dataset='megc2019_flow', method='pca_lda', features=f) for f in ('flow', 'both'))]
    )
    monkeypatch.setattr(paper, 'runs_of', lambda data, lengths=None: runs)
    begun = []
    def run(notebook, output, parameters, log):
        begun.append(output.stem)
        if 'flow-3class-pca_lda-flow' in output.stem: raise RuntimeError('broken')
        time.sleep(1)
    monkeypatch.setattr(paper, 'papermill', run)
    p = Paper(data='public_flow', data_root=str(flow_root), out_dir=str(tmp_path), workers=2)
    with pytest.raises(RuntimeError, match='broken'): paper.train_runs(p, plan(p), progress=False)
    assert len(begun) == 2                                                # the other chain had two runs, and began one


def test_two_at_a_time_are_refused(tmp_path):
    with paper.alone_in(tmp_path):
        with pytest.raises(ValueError, match='another'):
            with paper.alone_in(tmp_path): pass


@pytest.mark.parametrize('overrides, says',
                         [('foo.bar=1', 'foo'), ('fdp.updates=3', 'no run'), ('pltn.epochs=x', 'int')])
def test_overrides_are_checked(overrides, says):
    with pytest.raises(ValueError, match=says): Paper(data='public_flow', overrides=overrides)


def test_one_licence_is_enough(tmp_path, capsys):
    from mpfnet.synthetic.lookalike import make_lookalike
    make_lookalike('smic', tmp_path / 'data', subjects=2, size=48, blank=True, progress=False)
    p = Paper(data='real', data_root=str(tmp_path / 'data'), out_dir=str(tmp_path / 'out'), preset='tiny', device='cpu',
              lengths=(11,))
    table = plan(p, ('table2',))
    assert set(table['run'].str.split('-').str[0]) == {'smic'} and 'left out, casme2' in capsys.readouterr().err


def test_figure_8_knows_the_faces_of_every_length(tmp_path):
    a = run_with_stamp(tmp_path / 'a', 'REAL clips, SMIC-HS', method='mpfnet_p',
                       settings=dict(features='both', preprocess=dict(length=11)))
    run_with_stamp(tmp_path / 'b', 'LOOK-ALIKE of SMIC-HS', method='mpfnet_p',
                   settings=dict(features='both', preprocess=dict(length=5)))
    t = tables.length_sweep(tmp_path, 'smic')
    assert t['length'].tolist() == [5, 11]
    with pytest.raises(ValueError, match='different kinds'): stamp_of([a] + [r for row in t['runs'] for r in row])


@pytest.mark.parametrize('table', ['table2', 'table3', 'table4', 'table5'])
def test_every_cell_holds_the_run_of_its_own_column_and_row(tmp_path, table):
    "A distinct run behind every dataset, task, method and choice of features."
    key = lambda w: (w.dataset, w.task, w.method, w.features)
    value, r = {}, np.random.default_rng(1)
    for i, w in enumerate({key(w): w for w in runs_of('real')[table]}.values()):
        settings = dict(preprocess=dict(length=11)) | (
            dict(features=w.features) if w.method in tables.STRATEGIES.values() else {}
        )
        run = run_with_stamp(tmp_path / f'run{i}', 'LOOK-ALIKE of something', dataset=w.dataset, task=w.task,
                             method=w.method, settings=settings)
        k = len(tables.class_names(w.task, w.dataset))
        t = read_predictions(run / 'predictions.csv')
        t = t.assign(label=r.integers(0, k, len(t)), prediction=r.integers(0, k, len(t)))
        t.to_csv(run / 'predictions.csv', index=False)
        value[key(w)] = evaluate(t['label'], t['prediction'], k)
    c = tables.cells(table, tmp_path, 'real')
    names = dict(tables.OURS)
    seen = 0
    for row in c.to_dict('records'):
        method = names.get(row['row'].split(' (')[0].split(',')[0])
        features = {'optical flow': 'flow', 'frame difference': 'diff'}.get(row['row'].partition(', ')[2], 'both')
        if method and (row['dataset'], row['task']) != ('smic', '5class'):
            assert row['ours'] == pytest.approx(value[row['dataset'], row['task'], method, features][row['metric']]), (
                row
            )
            seen += 1
        else: assert np.isnan(row['ours'])
    assert seen == 2 * len(value)                    # two metrics a run


def test_table_four_shows_what_is_beyond_the_paper_with_its_control(monkeypatch, tmp_path):
    "A run of `au_ridge` brings two rows: its own, and that of the control, which says that it is not run yet."
    def runs_for(folder, data, dataset, task, method, features, seeds):
        return (['a-run'], 'pooled', '') if method == 'au_ridge' else ([], '', 'not run yet')
    monkeypatch.setattr(tables, 'runs_for', runs_for)
    monkeypatch.setattr(tables, 'scores_of', lambda runs, part: dict.fromkeys(tables.METRICS, (.7, .6, .8)))
    monkeypatch.setattr(tables, 'stamp_of', lambda runs: 'REAL clips, the public flow release')
    monkeypatch.setattr(tables, 'made_from', lambda runs: '')
    html = tables.page('table4', tmp_path, 'public_flow')
    found = pd.read_csv(tmp_path/'tables'/'table4.csv').set_index('row')
    more = found[found.index.str.contains('beyond the paper')]
    assert more.index.unique().str.split(' ').str[0].tolist() == ['untrained', 'action-unit']
    assert (more.loc[more.index.str.startswith('action-unit'), 'ours'] == .7).any() and more['paper'].isna().all()
    control = more[more.index.str.startswith('untrained')]
    assert control['ours'].isna().all() and {*control['note']} == {'not run yet'}
    assert 'no real label is used' in html and 'random_ridge, its untrained control' in html
    assert 'beyond' not in tables.page('table3', tmp_path, 'public_flow')
