"""The benchmark: killed at any moment it ends in the same bytes, one method that fails does not stop the others, and
scores of different rules never share a column. The search chooses inside."""
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from mpfnet import benchmark as page
from mpfnet.benchmark import (
    asked_for,
    benchmark,
    forest_picture,
    mean_scores,
    plan_benchmark,
    read_benchmark,
    refused,
    scores_by_rule,
)
from mpfnet.cli import main
from mpfnet.paper import search as searching
from mpfnet.paper.search import random_search
from mpfnet.results.compare import TWO_TABLES, compare
from mpfnet.results.ranks import holm, pair_matrix, ranks_over
from mpfnet.results.words import words_in
from mpfnet.synthetic.lookalike import make_lookalike

pytestmark = pytest.mark.filterwarnings('ignore:s(mic|amm). ')                # look-alikes have few subjects

BROKEN = '''
class Broken:
    def fit(self, fold):
        if fold.clips['dataset'].iat[0] == 'samm': raise ValueError('no patience for SAMM')
        self.k = fold.n_classes
        self.counts = fold.y.bincount(minlength=self.k)
    def scores(self, x): return [[1.] + [0.]*(self.k - 1)]*len(x)
    def state(self): return dict(counts=self.counts)
'''


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Two small look-alikes, and a method that fails on one of them."
    folder = tmp_path_factory.mktemp('two')
    for d in ('smic', 'samm'): make_lookalike(d, folder, subjects=3, size=48, progress=False)
    (folder/'broken.py').write_text(BROKEN, encoding='utf-8')
    return folder


def asked(root, out, **kwargs):
    same = dict(methods='majority,pca_lda', datasets='smic,samm', splits='subject,kfold:2', seeds='0,1',
                data_root=str(root), out_dir=str(out), preset='tiny', device='cpu',
                draws=200, progress=False)
    return same | kwargs


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    "A benchmark that nobody disturbed."
    return benchmark(**asked(root, tmp_path_factory.mktemp('whole')))


def records(out): return len([*out.glob('*/folds/*.json')])


def in_a_group(kwargs):
    os.setsid()
    benchmark(**kwargs)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_killed_three_times_it_ends_in_the_same_bytes(root, whole, tmp_path):
    "SIGKILL of the whole group while folds are trained: what is done is kept, and the rest is as it would have been."
    fork, before = multiprocessing.get_context('fork'), -1
    shutil.copytree(whole.folder.parent/'cache', tmp_path/'cache')
    for wanted in (3, 13, 27):
        p = fork.Process(target=in_a_group, args=(asked(root, tmp_path),))
        p.start()
        end = time.monotonic() + 120
        while records(tmp_path) < wanted and p.is_alive() and time.monotonic() < end: time.sleep(.002)
        os.killpg(p.pid, signal.SIGKILL)
        p.join()
        assert p.exitcode == -signal.SIGKILL and before < records(tmp_path) < 40
        before = records(tmp_path)
    again = benchmark(**asked(root, tmp_path))
    assert again.folder.name == whole.folder.name
    for name in ('benchmark.csv', 'pairs.csv', 'benchmark.json'):
        assert (again.folder/name).read_bytes() == (whole.folder/name).read_bytes(), name


def test_a_second_call_trains_nothing_and_is_quick(root, whole, monkeypatch):
    def never(*args, **kwargs): raise AssertionError('trained again')
    monkeypatch.setattr(page, 'run_seed', never)
    before, began = (whole.folder/'benchmark.csv').read_bytes(), time.process_time()
    again = benchmark(**asked(root, whole.folder.parent))
    assert time.process_time() - began < 10 and (again.folder/'benchmark.csv').read_bytes() == before
    assert not again.table['why'].any() and again.said == whole.said


def test_a_row_for_each_run_and_a_mean(whole):
    t = whole.table
    assert len(t) == 2*2*2*3 and t['seed'].tolist()[:3] == ['0', '1', 'mean']
    assert t['clips'].unique().tolist() == ['look-alike'] and t['stamp'].str.startswith('LOOK-ALIKE').all()
    kept = read_benchmark(whole.folder)
    assert kept.table.equals(t.astype(kept.table.dtypes)) and kept.said == whole.said
    assert kept.ranks.keys() == whole.ranks.keys() and len(whole.ranks) == 2
    three = t[(t['method'] == 'pca_lda') & (t['dataset'] == 'smic') & (t['split'] == 'subject')]
    assert np.isclose(three['fixed.uf1'].iloc[2], three['fixed.uf1'].iloc[:2].mean())
    for s in ('uf1', 'uar', 'acc'): assert (t[f'fixed.{s}_low'] <= t[f'fixed.{s}'] + 1e-6).all()
    assert t['folds'].equals(t['of']) and set(pd.read_csv(whole.folder/'seconds.csv')) >= {'seconds', 'processor'}
    assert 'seconds' not in t and not any('second' in c for c in t)


def test_scores_are_those_of_the_runs_and_gaps_those_of_the_comparison(root, whole):
    "The same clips, subjects and swaps: a benchmark adds the correction, and nothing else."
    rows = whole.table[(whole.table['dataset'] == 'smic') & (whole.table['split'] == 'subject')]
    a, b = (whole.folder.parent/rows[(rows['method'] == m) & (rows['seed'] == '0')]['run'].item()
            for m in ('majority', 'pca_lda'))
    one = benchmark(**asked(root, whole.folder.parent, datasets='smic', splits='subject', seeds='0'))
    pair, = one.pairs.to_dict('records')
    found = compare(a, b, n=200).rows.set_index('metric').loc['uf1']
    for k, mine in dict(difference='difference', low='low', high='high', p_swap='p').items():
        assert np.isclose(pair[mine], found[k], atol=1e-6), k
    assert np.isclose(pair['p_holm'], pair['p'])                            # of one pair


def test_one_method_fails_and_the_rest_goes_on(root, tmp_path, whole):
    "Its cell says why; where it works it has a score; ranks and matrices are of those who are there."
    shutil.copytree(whole.folder.parent/'cache', tmp_path/'cache')
    methods = ['majority', dict(name='broken', method=f'{root/"broken.py"}:Broken'), 'pca_lda']
    b = benchmark(**asked(root, tmp_path, methods=methods, splits='subject', seeds='0'))
    t = b.table.set_index(['method', 'dataset'])
    assert t.loc[('broken', 'samm'), 'why'] == 'no patience for SAMM' and t.loc[('broken', 'smic'), 'why'] == ''
    assert t['fixed.uf1'].isna().sum() == 1 and t['fixed.uf1'].notna().sum() == 5
    assert len(b.pairs) == 3 + 1 and b.said[0].endswith('no patience for SAMM.')
    assert [*b.ranks['subject', 'fixed', 'look-alike'].each.index] == ['majority', 'pca_lda']
    assert scores_by_rule(b).loc[('samm', 'subject', 'broken')].item() == 'none: no patience for SAMM'
    plan = plan_benchmark(**asked(root, tmp_path, methods=methods, splits='subject', seeds='0'))
    assert plan.table()['to_train'].sum() == 3


def test_a_dataset_that_is_not_there_is_a_cell_too(root, tmp_path):
    b = benchmark(**asked(root, tmp_path, methods='majority', datasets='smic,casme2', splits='subject', seeds='0'))
    gone = b.table[b.table['dataset'] == 'casme2'].iloc[0]
    assert 'casme2' in gone['why'] and b.table['fixed.uf1'].notna().sum() == 1 and b.pairs.empty


def test_rules_never_share_a_column(root, whole):
    "Nor a matrix, an axis or a rank; and who mixes them reads why not."
    out, methods = whole.folder.parent, 'majority,pca_lda,majority[rule=oracle],pca_lda[features=flow,rule=oracle]'
    b = benchmark(**asked(root, out, methods=methods, splits='subject', seeds='0'))
    fixed, oracle = (b.table[b.table['rule'] == r] for r in ('fixed', 'oracle'))
    assert fixed['fixed.uf1'].notna().all() and fixed['oracle.uf1'].isna().all()
    assert oracle['oracle.uf1'].notna().all() and oracle['fixed.uf1'].isna().all()
    shown = scores_by_rule(b)
    assert list(shown) == ['UF1, fixed', 'UF1, oracle'] and ((shown != '').sum(axis=1) == 1).all()
    assert not [p for p in zip(b.pairs['a'], b.pairs['b']) if len({'oracle' in name for name in p}) > 1]
    assert {k[1] for k in b.ranks} == {'fixed', 'oracle'} and 'Rules.' in b.said[-1]
    titles = [ax.get_title() for ax in forest_picture(b).axes]
    assert len(titles) == 4 and sum('rule: oracle' in t for t in titles) == 2
    assert set(mean_scores(b.table)['rule']) == {'fixed', 'oracle'}


def test_an_oracle_is_made_of_folds_that_are_there(root, whole):
    "Of one method's settings the best for each test subject: under a rule of its own, and nothing is trained for it."
    out, methods = whole.folder.parent, 'majority,pca_lda,pca_lda[features=flow]'
    b = benchmark(**asked(root, out, methods=methods, datasets='smic', splits='subject'))
    rows = b.table[b.table['method'] == 'pca_lda, best of 2'].set_index('seed')
    assert rows['rule'].eq('oracle').all() and rows['fixed.uf1'].isna().all() and rows['run'].eq('').all()
    for seed in '01':
        each = b.table[b.table['method'].str.startswith('pca_lda') & (b.table['seed'] == seed)]
        settings, right = each[each['rule'] == 'fixed'], 0
        runs = [pd.read_csv(out/r/'predictions.csv') for r in settings['run']]
        for who in runs[0]['subject'].unique():
            right += max((r['label'] == r['prediction'])[r['subject'] == who].sum() for r in runs)
        assert np.isclose(rows.loc[seed, 'oracle.acc'], right/len(runs[0]), atol=1e-6)
        assert rows.loc[seed, 'oracle.acc'] >= settings['fixed.acc'].max()
    assert b.pairs['rule'].eq('fixed').all() and '**Oracle.** pca_lda on smic' in b.said[-1]
    assert len(pd.read_csv(b.folder/'seconds.csv')) == 6 and read_benchmark(b.folder).said == b.said
    broken = benchmark(**asked(root, out, methods='majority,pca_lda', datasets='smic', splits='subject'))
    assert broken.table['rule'].eq('fixed').all()                           # one setting a method: no oracle


def test_what_all_share_is_taken_by_those_that_can(root, whole, flow_root, monkeypatch):
    "Frames and ready-made flow, a licensed dataset and one's own table: each run is the one started by hand."
    a = asked_for('majority,ststnet,pca_lda', f'smic,megc2019_flow,{root}/own.csv', length='5', features='flow',
                  apex='midpoint', strict='true', data_options='modality=vis,cropped=yes,sheet="a,b"')
    def of(c, d): return page.parameters_for(a, a.contenders[c], a.datasets[d], 'subject')
    def given(p): return {k: p[k] for k in ('length', 'features', 'apex', 'data_options')}
    plain = dict(length=11, features='both', apex='given', data_options='')
    own = dict(data_options='cropped=yes,sheet="a,b"', apex='midpoint')
    assert given(of(0, 0)) == plain | dict(apex='midpoint', data_options='modality=vis', length=5)
    assert given(of(1, 0)) == given(of(0, 0)) | dict(features='flow', length=11)
    assert given(of(2, 0)) == given(of(1, 0)) | dict(length=5)
    assert given(of(0, 1)) == plain and given(of(2, 1)) == plain | dict(features='flow')
    assert given(of(2, 2)) == given(of(2, 0)) | own and of(0, 1)['strict'] is True
    for c in range(3): page.check_parameters(of(c, 1) | dict(data_root=str(flow_root)))


def test_without_ray_nothing_is_begun_and_what_is_there_is_read(root, whole, tmp_path, monkeypatch):
    "The engine is one for all: it is refused once, and asked for only where something is to be trained."
    monkeypatch.setattr('mpfnet.tools.processes.find_spec', lambda name: None)
    again = benchmark(**asked(root, whole.folder.parent, engine='ray'))
    assert again.folder == whole.folder and not again.table['why'].any()
    with pytest.raises(ValueError, match="engine='ray' needs Ray: pip install"):
        benchmark(**asked(root, whole.folder.parent, engine='ray', seeds='7', methods='majority'))


def test_a_few_folds_for_a_look(root, whole):
    b = benchmark(**asked(root, whole.folder.parent, methods='pca_lda', datasets='smic', splits='subject', folds=1))
    assert b.table['of'].tolist() == [1, 1, 2] and b.table['subjects'].eq(1).all()
    assert b.table['fixed.uf1_low'].isna().all() and b.folder != whole.folder


def test_own_tables_with_one_name(tmp_path):
    "What they hold decides which benchmark it is; the same table twice is refused."
    rng, out = np.random.default_rng(0), dict(methods='majority', out_dir=tmp_path, device='cpu', progress=False,
                                              preset='tiny')
    X, y, who = rng.normal(size=(12, 5, 2, 16, 16)), np.tile([0, 1, 2], 4), np.repeat(list('abcd'), 3)
    first, again, other, relabelled = (benchmark(datasets=d, **out) for d in
                                       ((X, y, who), [(X, y, who)], (X + 1, y, who), (X, y[::-1], who)))
    assert first.table['dataset'].tolist() == ['arrays'] and first.table['fixed.uf1'].notna().all()
    assert first.folder == again.folder and len({first.folder, other.folder, relabelled.folder}) == 3
    for same in ([(X, y, who), (X + 1, y, who)], [pd.DataFrame(), pd.DataFrame()], 'a.csv,./a.csv'):
        with pytest.raises(ValueError, match='all different'): asked_for('majority', same)
    with pytest.raises(ValueError, match="kind: expected own or synthetic, found 'mine'"):
        refused(asked_for('majority', (X, y, who), data_options='kind=mine'))
    a, b = (tmp_path/r.table['run'].item() for r in (first, other))
    assert TWO_TABLES not in compare(a, a, n=200).notes
    (tmp_path/'clips.csv').write_text('subject,emotion,onset,offset,frames\n1,fear,1,9,x\n2,happiness,1,9,x\n')
    with pytest.raises(ValueError, match="cropped: expected yes or no, found 'maybe'"):
        refused(asked_for('majority', str(tmp_path/'clips.csv'), data_options='cropped=maybe'))
    relabelled_run = tmp_path/benchmark(datasets=(X, y, np.roll(who, 3)), **out).table['run'].item()
    assert words_in(a)['table'] != words_in(relabelled_run)['table'] and words_in(a)['table'] == words_in(b)['table']


@pytest.mark.parametrize('slip, says', [
    (dict(methods='pca_lda[features=flow,features=diff]'), 'features once'),
    (dict(methods='majority,majority'), 'different names'), (dict(methods='majorty'), 'known: mpfnet_c'),
    (dict(methods='ststnet[epochs=3]'), 'stage.field=value'), (dict(methods='ststnet[ststnet.epoch=3]'), 'ststnet has'),
    (dict(methods='pca_lda[rule=lucky]'), 'known: fixed, oracle, training'), (dict(methods=''), 'one or more'),
    (dict(datasets='smik'), 'known: synth'), (dict(datasets=''), 'one or more'), (dict(splits='sub'), 'known: subject'),
    (dict(splits='subject,subject'), 'all different'), (dict(seeds='0,0'), 'different numbers'),
    (dict(folds=0), '1 or more'), (dict(draws=5), '100 or more'), (dict(method='majority'), 'methods, datasets'),
    (dict(length=9, methods='majority,ststnet', datasets='megc2019_flow'), 'no run here has a use'),
    (dict(apex='motion', datasets='synth'), 'no run here has a use'), (dict(apex='best'), 'known: given, midpoint'),
    (dict(features='flow', methods='lbp_top'), 'no run here has a use'), (dict(length=2), '3…20'),
    (dict(data_options='cropped=yes'), 'one of these datasets knows'), (dict(data_options='colour=red'), 'known names'),
    (dict(overrides='pltn.epochs=3'), 'one of these methods'), (dict(strict='perhaps'), 'true or false'),
    (dict(task='5class', datasets='smic'), 'no 5class labels'), (dict(out_dir='s3://b/runs'), 'this machine'),
])
def test_a_slip_is_refused_before_anything_is_computed(root, tmp_path, slip, says):
    given = {k: v for k, v in asked(root, tmp_path/'runs').items() if k != 'progress'} | slip
    with pytest.raises(ValueError) as e: refused(asked_for(**given))
    assert says in str(e.value), e.value
    assert not (tmp_path/'runs').exists()


def test_the_plan_says_what_it_knows(root, whole):
    "Times from the folds that are there, also of another seed; what nobody knows is said."
    c = plan_benchmark(**asked(root, whole.folder.parent, methods='pca_lda,lbp_top', seeds='0,1,2', splits='subject',
                        overrides='lbp_top.size=32'))
    plan = c.table().set_index(['method', 'dataset'])
    assert plan.loc[('pca_lda', 'smic'), ['done', 'to_train']].tolist() == [6, 3]
    assert plan.loc[('pca_lda', 'smic'), 'time'].endswith(' s')
    assert plan.loc[('lbp_top', 'smic'), 'time'] == 'not known yet'
    assert '36 folds: 12 are there, 24 to train, about' in c.text() and 'of 18 nobody knows' in c.text()


def test_the_command(root, whole, capsys):
    "Numbers, sentences and the table's path; wrong usage is exit status 2."
    own = {k: v for k, v in asked(root, whole.folder.parent).items() if k != 'progress'}
    flags = [x for k, v in own.items() for x in ('-r' if k == 'seeds' else '-p', k, str(v))]
    assert main(['benchmark', *flags, '--no-notebook', '-q']) == 0
    said = capsys.readouterr().out
    assert 'LOOK-ALIKE' in said and 'UF1, fixed' in said and 'Cannot be told apart' in said
    assert str(whole.folder/'benchmark.csv') in said
    assert main(['benchmark', *flags, '--plan', '-q']) == 0
    assert '16 runs, 40 folds: 40 are there' in capsys.readouterr().out
    slips = (['-p', 'methods', 'majority'], '-p datasets'), ([*flags, '-p', 'splits', 'x'], 'known: subject')
    for wrong, says in slips:
        assert main(['benchmark', *wrong]) == 2 and says in capsys.readouterr().err
    assert main(['page', 'benchmark']) == 0 and str(ROOT/'nbs/06_benchmark.ipynb') in capsys.readouterr().out


def test_what_the_comparisons_rest_on():
    "Holm's steps, a matrix that says the same from both sides, and ranks that refuse a missing score."
    assert holm([.04, .01, .03, .02]).tolist() == pytest.approx([.06, .04, .06, .06])
    scores = pd.DataFrame(dict(x=[.3, .2], y=[.1, np.nan]), index=['a', 'b'])
    with pytest.raises(ValueError, match='a missing one'): ranks_over(scores)
    with pytest.raises(ValueError, match='two or more of each'): ranks_over(scores[['x']])
    pairs = pd.DataFrame([dict(a='a', b='b', metric='uf1', difference=.2, low=.1, high=.3, p=.01, p_holm=.01,
                               verdict='apart')])
    m = pair_matrix(pairs)
    assert m.loc['b', 'a'].startswith('+0.200 (+0.100 … +0.300)')
    assert m.loc['a', 'b'].startswith('−0.200 (−0.300 … −0.100)')


# --- the search ---

def searched(root, out, **kwargs):
    same = dict(dataset='smic', data_root=str(root), out_dir=str(out), preset='tiny', device='cpu', n_splits=2,
                overrides='lbp_top.size=32', progress=False)
    return random_search('lbp_top', {'svm.C': (.01, 100, 'log')}, **same | kwargs)


def test_a_search_goes_on_where_it_stopped(root, tmp_path, monkeypatch):
    "A larger budget reuses the smaller one's scores; what is known is not trained again."
    first = searched(root, tmp_path, budget=2)
    count, real = [], searching.run_inner
    monkeypatch.setattr(searching, 'run_inner', lambda *a: count.append(1) or real(*a))
    more = searched(root, tmp_path, budget=3)
    assert len(count) == 3*2 and more.settings[:2] == first.settings and (more.inner[:, :2] == first.inner).all()
    count.clear()
    again = searched(root, tmp_path, budget=3)
    assert not count and again.folder == more.folder and again.table.equals(more.table)
    assert np.isclose(again.optimism, again.inner.max(1).mean() - again.metrics['pooled']['uf1'])
    assert f'{again.optimism:+.3f}' in again.text() and 'LOOK-ALIKE' in again.text()


@pytest.mark.parametrize('slip, says', [
    (dict(n_splits=3), '2…2'), (dict(budget=1), '2 or more'), (dict(seed='0,1'), 'one seed'),
    (dict(method='pca_lda'), 'a use for'), (dict(engine='ray'), 'this machine'), (dict(space={}), 'space: expected'),
    (dict(space={'svm.C': (1, np.inf, 'log')}), r"a list, \(low, high\)"),
    (dict(space={'svm.C': []}), 'not an empty one')])
def test_a_search_that_cannot_be_is_refused(root, tmp_path, slip, says):
    given = dict(method='lbp_top', dataset='smic', data_root=str(root), out_dir=str(tmp_path), n_splits=2) | slip
    with pytest.raises(ValueError, match=says):
        random_search(progress=False, **dict(budget=3, space={'svm.C': [1., 2.]}) | given)
