"""Paired comparisons: against slow oracles, on simulated runs whose true gap is known, and on folders that are not
what they should be."""
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mpfnet.metrics import evaluate, subject_draws, summarise
from mpfnet.results.compare import (
    AVERAGED,
    MEAN,
    ONE,
    SCORES,
    compare,
    compare_matrices,
    comparison_table,
    differences,
    drawn,
    find_run,
    forest,
    quantiles,
    score_stack,
    seed_matrices,
    seed_weights,
    swap_test,
    verdict,
)

NEVER = np.zeros(3, bool)


def table(labels, predictions, subjects, datasets='made-up', n_classes=3, seed=0):
    "A table of predictions as a run writes it."
    p, r = np.asarray(predictions), np.random.default_rng(seed)
    scores = (.5 * np.eye(n_classes)[p] + .5 * r.dirichlet(np.ones(n_classes), len(p))).round(6)
    return pd.DataFrame(
        dict(dataset=datasets, subject=[f'{s:03d}' for s in subjects], clip=[f'{i:03d}' for i in range(len(p))],
             label=labels, prediction=p)
        | {f'score_{k}': scores[:, k] for k in range(n_classes)}
    )


def simulated(random, gain=0., seeds=1, subjects=68, clips=(250, 109, 83), seed_spread=0., datasets='made-up'):
    "Two methods with subjects that suit them. One list of tables each, one table a seed."
    r = np.random.default_rng(random)
    y = r.permutation(np.repeat([0, 1, 2], clips))
    n = len(y)
    who = np.r_[np.arange(subjects), r.choice(subjects, n - subjects, p=r.dirichlet(np.ones(subjects)))]
    hard = 1.2 + 2 * r.normal(size=subjects)[who] + 1.6 * r.normal(size=n)
    def run(odds):
        odds = odds + seed_spread * r.normal() + 1.4 * r.normal(size=n)
        return np.where(r.random(n) < 1 / (1 + np.exp(-odds)), y, (y + r.integers(1, 3, n)) % 3)
    names = datasets if isinstance(datasets, str) else np.array(datasets)[who % len(datasets)]
    suited = [hard + g + 1.4 * r.normal(size=subjects)[who] for g in (0, gain)]
    return [[table(y, run(s), who, names, seed=k) for k in range(seeds)] for s in suited]


def pair(random=0, **more): return [t[0] for t in simulated(random, **more)]
def uf1(c, scores=ONE):
    return c.rows[(c.rows['data'] == 'pooled') & (c.rows['metric'] == 'uf1') & (c.rows['scores'] == scores)].iloc[0]


# --- against oracles

@settings(max_examples=60)
@given(st.integers(2, 5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_stack_scores_as_evaluate_does(c, pairs):
    y, p = (np.array(v) % c for v in zip(*pairs))
    m = evaluate(y, p, c)
    assert score_stack(np.array(m['confusion']), np.bincount(y, minlength=c) == 0) == pytest.approx(
        [m[k] for k in SCORES]
    )


@pytest.mark.parametrize('random, subjects', [(0, 2), (1, 5), (2, 7)])
def test_bootstrap_equals_resampling_clip_by_clip(random, subjects):
    "Every draw's clips are repeated and scored with scikit-learn; classes without clips in a draw are left out."
    r = np.random.default_rng(random)
    y, p, q, who = (np.r_[np.arange(3), r.integers(0, 3, 22)], r.integers(0, 3, 25), r.integers(0, 3, 25),
                    np.arange(25) % subjects)
    # one subject has all clips of a class: many draws miss it
    y = np.where((y == 2) & (who > 0), 0, np.where(who == 0, 2, y))
    rows, n = [], 100
    for times in subject_draws(subjects, n, 3):
        i = np.repeat(np.arange(25), times[who])
        there, scores = sorted(set(y[i])), []
        for z in (p, q):
            scores.append(
                [
                    f1_score(y[i], z[i], labels=there, average='macro', zero_division=0),
                    recall_score(y[i], z[i], labels=there, average='macro', zero_division=0),
                    accuracy_score(y[i], z[i]),
                    f1_score(y[i], z[i], labels=there, average='weighted', zero_division=0),
                ]
            )
        rows.append(np.subtract(*reversed(scores)))
    got = compare(table(y, p, who), table(y, q, who), n=n, seed=3).rows
    assert got[['low', 'high']].to_numpy(float) == pytest.approx(np.quantile(rows, quantiles(subjects), axis=0).T,
                                                                 abs=1e-9)
    # ties may round
    assert got['share_le_0'].tolist() == pytest.approx((np.array(rows) <= 1e-12).mean(0).tolist(), abs=2 / n)
    assert got['difference'].tolist() == pytest.approx([evaluate(y, q, 3)[k] - evaluate(y, p, 3)[k] for k in SCORES])


def test_drawn_means_over_seeds():
    a, _ = simulated(0, seeds=3, subjects=9, clips=(30, 20, 10))
    m, times, w = seed_matrices(a, 3), subject_draws(9, 50, 0), seed_weights([0, 1, 2], 50, 0)
    slow = [sum(w[i, k] * score_stack(np.einsum('s,sij->ij', times[i], m[k]), NEVER) for k in range(3))
            for i in range(50)]
    assert drawn(m, times, w, NEVER) == pytest.approx(np.array(slow))


@pytest.mark.parametrize('seeds', [1, 2])
def test_the_exact_swap_test_equals_trying_every_swap(seeds):
    a, b = (seed_matrices(t, 3) for t in simulated(5, gain=1, seeds=seeds, subjects=6, clips=(14, 8, 6)))
    def gap(swapped):
        x, y = a.copy(), b.copy()
        for s in swapped: x[:, s], y[:, s] = b[:, s], a[:, s]
        return np.mean(
            [score_stack(y[k].sum(0), NEVER) - score_stack(x[k].sum(0), NEVER) for k in range(seeds)], axis=0
        )
    gaps = np.array([gap(s) for k in range(7) for s in itertools.combinations(range(6), k)])
    p, exact = swap_test(a, b, NEVER, 500, 0)
    assert exact and p == pytest.approx((np.abs(gaps) >= np.abs(gaps[0]) - 1e-9).mean(0).tolist())


def test_drawn_swaps_come_close_to_the_exact_test(monkeypatch):
    a, b = (seed_matrices(t, 3) for t in simulated(5, gain=1, subjects=10, clips=(40, 20, 16)))
    exact, whole = swap_test(a, b, NEVER, 500, 0)
    monkeypatch.setattr('mpfnet.results.compare.EXACT', 0)
    by_chance, partly = swap_test(a, b, NEVER, 20_000, 0)
    assert whole and not partly and by_chance == pytest.approx(exact, abs=.02)
    right = a.sum(-1, keepdims=True) * np.eye(3, dtype=int)
    assert swap_test(np.roll(right, 1, axis=-1), right, NEVER, 20_000, 0)[0][2] == pytest.approx(
        2 / 2**10, abs=0.001
    ), 'a drawn p is never 0'
    assert swap_test(np.roll(right, 1, axis=-1), right, NEVER, 9, 1)[0] == [.1] * 4


# --- properties

@settings(max_examples=12)
@given(st.integers(0, 2**31), st.integers(1, 3), st.booleans())
def test_antisymmetric(random, seeds, composite):
    a, b = simulated(random, seeds=seeds, subjects=8, clips=(20, 12, 8), datasets=['smic', 'samm']
                     if composite else 'made-up')
    c, d = compare(a, b, n=200), compare(b, a, n=200)
    for x, y in (('difference', 'difference'), ('low', 'high'), ('high', 'low')):
        assert c.rows[x].to_numpy(float) == pytest.approx(-d.rows[y].to_numpy(float), abs=1e-12)
    for k in ('p_swap', 'resolution'):
        assert c.rows[k].to_numpy(float) == pytest.approx(d.rows[k].to_numpy(float), abs=1e-12)
    assert c.rows['verdict'].tolist() == d.rows['verdict'].tolist()
    assert c.per_seed['difference'].to_numpy(float) == pytest.approx(-d.per_seed['difference'].to_numpy(float))
    assert (c.agreement[['both right', 'only A', 'only B', 'neither']].to_numpy()
            == d.agreement[['both right', 'only B', 'only A', 'neither']].to_numpy()).all()


@pytest.mark.parametrize('seeds, other', [(3, 2), (1, 3)])
def test_antisymmetric_with_unequal_numbers_of_seeds(seeds, other):
    a, b = simulated(1, seeds=3)
    c, d = compare(a[:seeds], b[:other], n=300), compare(b[:other], a[:seeds], n=300)
    assert c.rows['low'].to_numpy(float) == pytest.approx(-d.rows['high'].to_numpy(float))
    assert (pd.isna(uf1(c, MEAN)['p_swap']) == pd.isna(uf1(d, MEAN)['p_swap']) == (min(seeds, other) > 1)
            == any('no swap test' in n for n in c.notes))
    assert len(c.per_seed) == 4 * seeds * other and sorted(c.per_seed['difference']) == pytest.approx(
        sorted(-d.per_seed['difference'])
    )


@pytest.mark.parametrize('seeds, other', [(2, 1), (3, 5)])
def test_the_same_predictions_with_other_numbers_of_seeds_are_no_difference(seeds, other):
    "Shares of 1/3 and of 1/5 sum to 1 but for the last digit, which is no noise of subjects."
    (a, *_), _ = simulated(2, seeds=3)
    c = compare([a]*seeds, [a]*other, n=300)
    assert ((c.rows[['difference', 'low', 'high']] == 0).all(axis=None) and set(c.rows['verdict']) == {'same'}
            and 'within noise' not in verdict(c))


@pytest.mark.parametrize('seeds', [1, 3])
def test_a_run_against_itself_is_exactly_zero(seeds):
    a, _ = simulated(2, seeds=seeds, datasets=['smic', 'samm'])
    c = compare(a, a)
    assert ((c.rows[['difference', 'low', 'high', 'resolution']] == 0).all(axis=None) and (c.rows['p_swap'] == 1).all()
            and set(c.rows['verdict']) == {'same'})
    assert (c.agreement[['only A', 'only B']] == 0).all(axis=None) and 'no difference' in verdict(c)


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_does_not_matter(random):
    a, b = simulated(random, seeds=2, subjects=8, clips=(20, 12, 8), datasets=['smic', 'samm'])
    shuffled = [[t.sample(frac=1, random_state=random % 1000 + i) for i, t in enumerate(x)] for x in (a, b)]
    c, d = compare(a, b, n=150), compare(*shuffled, n=150)
    pd.testing.assert_frame_equal(c.rows, d.rows)
    pd.testing.assert_frame_equal(c.agreement, d.agreement)


def test_the_order_of_seeds_does_not_matter(tmp_path):
    a, b = simulated(2, seeds=3)
    x = write_summary(tmp_path / '1', a, [0, 1, 2]), write_summary(tmp_path / '1', b, [0, 1, 2], 'b')
    y = write_summary(tmp_path / '2', a[::-1], [2, 1, 0]), write_summary(tmp_path / '2', b, [0, 1, 2], 'b')
    c, d = compare(*x), compare(*y)
    assert c.rows[['low', 'high']].to_numpy(float) == pytest.approx(
        d.rows[['low', 'high']].to_numpy(float)
    ) and d.seeds_a == [0, 1, 2]
    assert sorted(c.per_seed['difference']) == pytest.approx(sorted(d.per_seed['difference']))


def test_reproducible_and_the_seed_matters():
    a, b = pair()
    pd.testing.assert_frame_equal(compare(a, b).rows, compare(a, b).rows)
    assert uf1(compare(a, b))['low'] != uf1(compare(a, b, seed=1))['low']


def test_the_same_name_in_two_datasets_is_two_subjects():
    a, b = pair(subjects=6, clips=(20, 12, 8))
    composite = [t.assign(dataset=np.where(np.arange(40) % 2, 'smic', 'samm')) for t in (a, b)]
    assert compare(*composite, n=100).subjects > compare(a, b, n=100).subjects == 6
    assert compare(*composite, n=100).rows['data'].drop_duplicates().tolist() == ['pooled', 'samm', 'smic']


def test_scores_of_a_row_are_those_of_the_run():
    a, b = pair(datasets=['smic', 'samm'])
    rows, m = compare(a, b).rows, summarise(a, 3)
    for data, scores in dict(pooled=m['pooled'], **m['per_dataset']).items():
        for k in SCORES:
            assert rows[(rows['data'] == data) & (rows['metric'] == k)]['a'].item() == pytest.approx(scores[k])


def test_fast():
    import time
    a, b = pair()
    compare(a, b)
    start = time.process_time()
    compare(a, b)
    assert time.process_time() - start < .5


# --- simulated runs: does it keep its word?

def found(random, n=400, **more):
    "UF1 row of a simulated pair."
    a, b = (seed_matrices(t, 3) for t in simulated(random, **more))
    return compare_matrices(a, b, (list(range(len(a))),) * 2, n, 0)[0]


def holds_zero(rows): return np.mean([r['low'] <= 0 <= r['high'] for r in rows])


@pytest.mark.parametrize('subjects, clips', [(68, (250, 109, 83)), (16, (70, 51, 43))], ids=['composite', 'smic'])
def test_without_a_true_gap_the_interval_holds_zero(subjects, clips):
    rows = [found(i, subjects=subjects, clips=clips) for i in range(200)]
    assert .9 <= holds_zero(rows) <= .995
    assert (np.mean([r['p_swap'] <= 0.05 for r in rows]) <= 0.1
            and np.mean([r['verdict'] == 'beyond' for r in rows]) <= 0.08)


@pytest.mark.parametrize('spread', [0., .3])
def test_with_seeds_the_interval_holds_zero(spread):
    "A spread of .3 in the odds is a standard deviation over seeds of about .03 in UF1."
    assert holds_zero([found(i, n=300, seeds=3, seed_spread=spread) for i in range(120)]) >= .88


def test_subjects_alone_would_not_do_with_seeds_that_scatter():
    "The reason for drawing seeds, too: one seed each, and a true gap of zero is called beyond noise far too often."
    assert holds_zero([found(i, n=300, seed_spread=.8) for i in range(100)]) < .85


def test_a_true_gap_is_found():
    rows = [found(i, gain=1.6) for i in range(40)]
    assert np.mean([r['verdict'] == 'beyond' for r in rows]) >= .8
    half = [found(i, gain=.8) for i in range(60)]
    assert np.mean([r['difference'] for r in half]) == pytest.approx(np.mean([r['resolution'] for r in half]), abs=.03)
    assert 0.25 <= np.mean([not r['low'] <= 0 <= r['high'] for r in half]) <= 0.75, (
        'a gap as large as the resolution is found half of the time'
    )


def test_few_subjects_read_the_interval_further_out():
    "Φ(−√(S/(S−1))·t) with t of S − 1 degrees of freedom: from a table, 2.1314 for S = 16, 12.706 for S = 2."
    from statistics import NormalDist

    for s, t in ((16, 2.1314), (68, 1.9960), (2, 12.706)):
        assert quantiles(s) == pytest.approx(
            [NormalDist().cdf(-t * (s / (s - 1)) ** 0.5), NormalDist().cdf(t * (s / (s - 1)) ** 0.5)], abs=2e-5
        )


def test_the_verdict_needs_both_opinions():
    """Three subjects, all better in B: the interval is far from 0, but no swap test of three subjects can say less
    than 2/8."""
    y = np.tile([0, 1, 2, 0], 3)
    c = compare(table(y, (y + np.tile([1, 0, 0, 1], 3)) % 3, np.arange(12) // 4), table(y, y, np.arange(12) // 4))
    assert uf1(c)['low'] > 0 and uf1(c)['p_swap'] == .25 and bool(uf1(c)['exact'])
    assert (set(c.rows['verdict']) == {'doubtful'} and 'doubtful, the interval leaves 0' in verdict(c)
            and '(p = 0.25)' in verdict(c))


def test_no_p_is_printed_as_zero():
    "Where B is better for every one of 30 subjects, no draw says otherwise: that is less than one in so many."
    r = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 60)
    t = pd.DataFrame(
        dict(dataset='d', subject=[f's{k // 6:02}' for k in range(180)], clip=[f'c{k}' for k in range(180)], label=y)
    )
    for n, least in ((2000, '<0.001'), (200, '<0.005')):
        c = compare(t.assign(prediction=(y + 1) % 3), t.assign(prediction=np.where(r.random(180) < .1, 0, y)), n=n)
        shown = comparison_table(c)
        assert set(shown['draws ≤ 0']) == {least} and (c.rows['share_le_0'] == 0).all()
        assert set(shown['swap p']) == ({'<0.001'} if n == 2000 else {'0.005'}) and (c.rows['p_swap'] > 0).all()
    same = comparison_table(compare(t.assign(prediction=y), t.assign(prediction=y)))
    assert set(same['swap p']) == set(same['draws ≤ 0']) == {'1.000'}


def test_a_method_without_chance_has_no_spread():
    "Three seeds that predict the same are one opinion, and the notes say so."
    t = pd.DataFrame(
        dict(dataset='d', subject=[f's{k // 6:02}' for k in range(60)], clip=[f'c{k}' for k in range(60)],
             label=np.tile([0, 1, 2], 20))
    )
    def says(p): return t.assign(prediction=p, **{f'score_{k}': (p == k).astype(float) for k in range(3)})
    fixed, other = says(np.zeros(60, int)), says(t['label'].to_numpy())
    varied = [says(np.roll(t['label'].to_numpy(), k)) for k in range(3)]
    said = compare([fixed]*3, varied).notes
    assert any(n.startswith('A: all 3 seeds predict the same') for n in said) and not any(n.startswith('B: all')
                                                                                          for n in said)
    assert not any('predict the same' in n for n in compare(fixed, other).notes)


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    a, b = pair()
    m = [summarise(t, 3)['pooled']['uf1_ci95'] for t in (a, b)]
    assert uf1(compare(a, b))['resolution'] < np.hypot(*[np.ptp(x) / 2 for x in m])


def test_stretched_seed_weights_have_the_size_of_fresh_seeds():
    w = seed_weights(range(4), 40_000, 0)
    x = np.random.default_rng(0).normal(size=4)
    assert w.sum(1) == pytest.approx(1) and (w @ x).std() == pytest.approx(x.std(ddof=1) / 2, rel=.02)


# --- folders

CONFIG = dict(dataset='megc2019_flow', task='3class', method='pca_lda', seed=0, code='a' * 64, device='cpu',
              settings=dict(preprocess=dict(size=32), grid=[1, 2]),
              data=dict(clips=442, subjects=68, sha256='b' * 64, stamp='REAL clips, public flow', kind='real'))


def write_run(folder, predictions, **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(CONFIG | more), encoding='utf-8')
    predictions.to_csv(folder / 'predictions.csv', index=False)
    return folder


def write_summary(root, tables, seeds, name='a', **more):
    parts = [write_run(root / f'{name}-s{s}', t, seed=s, **more) for s, t in zip(seeds, tables)]
    config = {k: v for k, v in (CONFIG | more).items() if k != 'seed'} | dict(seeds=list(seeds),
                                                                              runs=[p.name for p in parts])
    (root / f'{name}-all').mkdir()
    (root / f'{name}-all' / 'config.json').write_text(json.dumps(config))
    return root / f'{name}-all'


@pytest.fixture
def runs(tmp_path):
    a, b = pair()
    return write_run(tmp_path / 'run-a', a), write_run(tmp_path / 'run-b', b, method='scratch')


def test_folders_say_the_same_as_tables(runs):
    a, b = pair()
    c = compare(*runs)
    pd.testing.assert_frame_equal(c.rows, compare(a, b).rows)
    assert (c.a, c.b, c.stamp, c.clips, c.subjects) == ('run-a', 'run-b', 'REAL clips, public flow', 442, 68)
    assert (verdict(c).endswith('On REAL clips, public flow') and comparison_table(c).columns.name == 'REAL clips'
            and c.stamp in forest(c).axes[0].get_title().replace('\n', ' '))
    assert c.settings.to_numpy().tolist() == [['method', 'pca_lda', 'scratch']] and c.notes == [
        'one seed each: the interval knows other subjects, but not other seeds. Compare summaries of several seeds '
        'for that'
    ]


def test_a_subject_named_006_stays_text(tmp_path):
    a, b = (t.assign(subject='006', clip=[f'006_{i}' for i in range(len(t))]).iloc[:20] for t in pair())
    x = write_run(tmp_path / 'a', a)
    # the table has '006', too: no clip is lost
    assert compare(x, b).clips == 20 and compare(x, write_run(tmp_path / 'b', b)).clips == 20
    with pytest.raises(ValueError, match='no clip in common'): compare(x, b.assign(subject='6'))


def test_a_summary_is_its_seeds(tmp_path):
    a, b = simulated(3, seeds=3)
    x, y = write_summary(tmp_path, a, [0, 1, 2]), write_summary(tmp_path, b, [0, 1, 2], 'b', method='plsm')
    c = compare(x, y)
    pd.testing.assert_frame_equal(c.rows, compare(a, b).rows)
    each = [evaluate(t['label'], t['prediction'], 3)['uf1'] for t in a]
    assert (uf1(c, MEAN)['a'] == pytest.approx(np.mean(each)) and set(c.rows['scores']) == {MEAN, AVERAGED}
            and len(c.per_seed) == 12)
    assert (any(n.startswith('3 seeds say little') for n in c.notes)
            and verdict(c).startswith('Mean of seeds: B − A = ') and 'Scores averaged: B − A = ' in verdict(c))
    one = compare(tmp_path / 'a-s0', y)
    assert any('A has one seed' in n for n in one.notes) and len(one.per_seed) == 12 and one.seeds_a == [0]


@pytest.mark.parametrize(
    'more, says',
    [
        (dict(dataset='casme2'), 'dataset: A has megc2019_flow, B has casme2'),
        (dict(dataset='casme2', task='5class'), 'task: A has 3class, B has 5class'),
        (
            dict(data=CONFIG['data'] | dict(stamp='SYNTHETIC clips: says nothing')),
            'A has REAL clips, public flow; B has SYNTHETIC clips',
        ),
        (
            dict(data=CONFIG['data'] | dict(stamp='LOOK-ALIKE of public flow: synthetic')),
            'B has LOOK-ALIKE of public flow',
        ),
        (dict(data=dict(subjects=68)), 'B has NOT STATED'),
    ],
)
def test_what_cannot_be_compared_says_what_differs(tmp_path, more, says):
    a, b = pair()
    if more.get('task') == '5class': b = table(b['label'], b['prediction'], b['subject'].astype(int), n_classes=5)
    with pytest.raises(ValueError, match='cannot be compared') as e:
        compare(write_run(tmp_path / 'a', a), write_run(tmp_path / 'b', b, **more))
    assert says in str(e.value) and '\n' not in str(e.value)


def test_stamps_that_may_stand_side_by_side(tmp_path):
    a, b = pair()
    doubt = write_run(tmp_path / 'b', b,
                      data=CONFIG['data'] | dict(stamp='REAL clips, public flow, NOT the published list'))
    c = compare(write_run(tmp_path / 'a', a), doubt)
    assert c.stamp == 'REAL clips, public flow (A); REAL clips, public flow, NOT the published list (B)'
    # without hashes nothing says that these are the same clips
    for data in (dict(subjects=68), dict(subjects=68, sha256='c' * 64)):
        with pytest.raises(ValueError, match='NOT STATED'):
            compare(write_run(tmp_path / 'e', a, data=dict(subjects=68, stamp='REAL clips')),
                    write_run(tmp_path / 'f', b, data=data))
    bytes_known = write_run(tmp_path / 'g', b, data=dict(subjects=68, sha256=CONFIG['data']['sha256']))
    assert compare(tmp_path / 'a', bytes_known).stamp.startswith('NOT STATED')
    old = [write_run(tmp_path / n, t, data=dict(subjects=68)) for n, t in (('c', a), ('d', b))]
    assert compare(*old).stamp.startswith('NOT STATED')
    assert (compare(tmp_path / 'a', b).stamp
            == 'NOT STATED whether real or synthetic clips (B); REAL clips, public flow (A)')


def test_other_labels(tmp_path):
    a, b = pair()
    b.loc[9, 'label'] = (b.loc[9, 'label'] + 1) % 3
    with pytest.raises(ValueError, match='other labels to 1 of 442 common clips, the first is made-up/009/009'):
        compare(a, b)


def test_different_folds_are_said_aloud(tmp_path):
    a, b = pair()
    c = compare(write_run(tmp_path / 'a', a[a['subject'] < '040']), write_run(tmp_path / 'b', b[b['subject'] >= '010']))
    both = a['subject'].between('010', '039')
    assert (c.clips, c.subjects) == (both.sum(), 30)
    assert (f'ONLY the {both.sum()} clips that both have: {442 - both.sum()} left out' in c.notes[0] and c.notes[1]
            == '30 of 68 subjects: not all folds are finished')
    pd.testing.assert_frame_equal(c.rows, compare(a[both], b[both]).rows)
    with pytest.raises(ValueError, match='no clip in common'):
        compare(a[a['subject'] < '020'], b[b['subject'] >= '020'])


def test_folds_that_one_seed_lacks(tmp_path):
    a, b = simulated(3, seeds=2)
    x = write_summary(tmp_path, [a[0], a[1][a[1]['subject'] != '005']], [0, 1])
    c = compare(x, b)
    assert c.subjects == 67 and 'not in every seed' in c.notes[0]


def test_every_setting_that_differs_is_listed(tmp_path):
    a, b = pair()
    c = compare(
        write_run(tmp_path / 'a', a),
        write_run(tmp_path / 'b', b, method='plsm', device='cuda',
                  settings=dict(preprocess=dict(size=64), grid=[1, 4], tau=10)),
    )
    assert c.settings.to_numpy().tolist() == [['method', 'pca_lda', 'plsm'], ['settings.grid', '[1, 2]', '[1, 4]'],
                                              ['settings.preprocess.size', '32', '64'], ['settings.tau', '—', '10'],
                                              ['device', 'cpu', 'cuda']]
    # tau is a setting that only one of them has
    assert c.notes[0] == '3 settings differ besides the method: settings.grid, settings.preprocess.size, device'


@settings(max_examples=50)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                 lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3))
)
def test_differences_of_any_config(x):
    assert len(differences(dict(settings=x), dict(settings=x))) == 0 and len(
        differences(dict(settings=x), dict(settings=[x, 'more']))
    )


def test_a_run_that_does_not_repeat_itself(tmp_path):
    a, b = pair()
    assert any('do not repeat' in n for n in compare(write_run(tmp_path / 'a', a), write_run(tmp_path / 'b', b)).notes)
    assert not any('do not repeat' in n for n in compare(tmp_path / 'a', write_run(tmp_path / 'c', a)).notes)


def swap_cell(path, row, column, value):
    t = pd.read_csv(path, dtype=str, keep_default_na=False)
    t.loc[row, column] = value
    t.to_csv(path, index=False)


BROKEN = {
    'no folder': (lambda f: [p.unlink() for p in f.iterdir()] + [f.rmdir()], 'config.json', 'cannot be read'),
    'no config': (lambda f: (f / 'config.json').unlink(), 'config.json', 'expected a run'),
    'no predictions': (lambda f: (f / 'predictions.csv').unlink(), 'predictions.csv', 'did any fold'),
    'torn config': (lambda f: (f / 'config.json').write_text('{"dataset": "synth", '), 'config.json', 'is damaged'),
    'NaN in config': (
        lambda f: (f / 'config.json').write_text('{"gamma": NaN}'),
        'config.json',
        'NaN is no JSON number',
    ),
    'config is bytes': (lambda f: (f / 'config.json').write_bytes(b'\xff\xfe'), 'config.json', 'is damaged'),
    'config is deep': (lambda f: (f / 'config.json').write_text('[' * 100_000), 'config.json', ''),
    'config is a list': (lambda f: (f / 'config.json').write_text('[]'), 'config.json',
                         'expected a JSON object, found list'),
    'not a run': (lambda f: (f / 'config.json').write_text('{"dataset": "synth"}'), 'config.json',
                  'task, method, data, settings missing'),
    'unknown task': (lambda f: (f / 'config.json').write_text(json.dumps(CONFIG | dict(task='4class'))), 'config.json',
                     'unknown task'),
    'seed is text': (lambda f: (f / 'config.json').write_text(json.dumps(CONFIG | dict(seed='0'))), 'config.json',
                     'seed missing or of another kind'),
    'empty table': (lambda f: (f / 'predictions.csv').write_text(''), 'predictions.csv', 'No columns'),
    'no rows': (
        lambda f: (f / 'predictions.csv').write_text('dataset,subject,clip,label,prediction,score_0,score_1,score_2\n'),
        'predictions.csv',
        'at least one clip',
    ),
    'table is bytes': (lambda f: (f / 'predictions.csv').write_bytes(b'\xff\xfe\x00'), 'predictions.csv', ''),
    'ragged table': (lambda f: (f / 'predictions.csv').write_text('dataset,subject\na,b\na,b,c,d\n'), 'predictions.csv',
                     ''),
    'no label': (lambda f: swap_cell(f / 'predictions.csv', 3, 'label', ''), 'predictions.csv', 'missing values'),
    'NaN label': (lambda f: swap_cell(f / 'predictions.csv', 3, 'label', 'nan'), 'predictions.csv',
                  'labels: expected integer'),
    'label outside': (lambda f: swap_cell(f / 'predictions.csv', 3, 'label', '3'), 'predictions.csv', 'found [3]'),
    'NaN score': (lambda f: swap_cell(f / 'predictions.csv', 3, 'score_1', 'nan'), 'predictions.csv',
                  'missing or not finite, the first for clip made-up/003/003'),
    'infinite score': (
        lambda f: swap_cell(f / 'predictions.csv', 3, 'score_1', 'inf'),
        'predictions.csv',
        'not finite',
    ),
    'a clip twice': (lambda f: swap_cell(f / 'predictions.csv', [3, 4], ['subject', 'clip'], '003'), 'predictions.csv',
                     'occur twice'),
    'edited prediction': (lambda f: swap_cell(f / 'predictions.csv', slice(None), 'prediction', '1'), 'predictions.csv',
                          'was the file edited'),
    'a score column less': (
        lambda f: (f / 'predictions.csv').write_text(
            '\n'.join(l.rpartition(',')[0] for l in (f / 'predictions.csv').read_text().splitlines())
        ),
        'predictions.csv',
        'expected 3 score columns',
    ),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_folder_is_named(runs, kind):
    break_it, file, says = BROKEN[kind]
    break_it(runs[1])
    for args in (runs, runs[::-1]):
        with pytest.raises(ValueError) as e: compare(*args)
        message = str(e.value)
        assert str(runs[1] / file) in message and says in message and '\n' not in message, message


@pytest.mark.parametrize(
    'kind, says',
    [
        ('gone', 'a-s1/config.json: cannot be read'),
        ('another', 'a-s1/config.json: differs from the summary a-all in settings'),
        ('seed', 'differs from the summary a-all in seed'),
        ('path', 'a-all/config.json: runs missing'),
        ('itself', 'a-all/config.json: differs'),
        ('count', 'one seed for each of runs'),
    ],
)
def test_a_summary_whose_seeds_are_not_what_it_says(tmp_path, kind, says):
    a, b = simulated(3, seeds=2)
    x, part = write_summary(tmp_path, a, [0, 1]), tmp_path / 'a-s1' / 'config.json'
    def edit(path, **more): path.write_text(json.dumps(json.loads(path.read_text()) | more))

    {
        'gone': part.unlink,
        'another': lambda: edit(part, settings={}),
        'seed': lambda: edit(part, seed=7),
        'path': lambda: edit(x / 'config.json', runs=['a-s0', '../a-s1']),
        'itself': lambda: edit(x / 'config.json', runs=['a-s0', 'a-all']),
        'count': lambda: edit(x / 'config.json', seeds=[0]),
    }[kind]()
    with pytest.raises(ValueError) as e: compare(x, b)
    assert says in str(e.value)


@pytest.mark.parametrize(
    'bad, says',
    [
        (lambda t: t.drop(columns='label'), 'missing columns'),
        (lambda t: t.assign(label=np.nan), 'a table of predictions'),
        (lambda t: [], 'a list of them'),
        (lambda t: [t, 'x'], 'a list of them'),
        (lambda t: t[:0], 'at least one clip'),
        (lambda t: t.assign(prediction='negative'), 'a table of predictions'),
        (lambda t: t.assign(score_3=0.0, score_4=0.0), 'classes'),
    ],
)
def test_bad_tables(runs, bad, says):
    a, _ = pair()
    with pytest.raises(ValueError, match=says): compare(runs[0], bad(a))


def test_bad_arguments():
    a, b = pair()
    for kw in (dict(n=99), dict(n=10**9), dict(n=2000.), dict(n=True), dict(seed=-1)):
        with pytest.raises(ValueError, match='expected a whole number'): compare(a, b, **kw)


def test_a_class_that_no_clip_has_and_one_subject(tmp_path):
    y, who = np.array([0, 1, 0, 1]), [0, 0, 1, 1]
    c = compare(table(y, [0, 2, 0, 1], who), table(y, y, who))
    assert uf1(c)['b'] == pytest.approx(2 / 3) and np.isfinite(c.rows[['low', 'high']].to_numpy(float)).all()
    one = compare(table(y, [0, 2, 0, 1], [0] * 4), table(y, y, [0] * 4))
    assert (set(one.rows['verdict']) == {'unknown'} and 'no interval' in verdict(one)
            and comparison_table(one)['95 %'].iloc[0] == 'n/a')
    assert any(n.startswith('1 subject: too few') for n in one.notes) and forest(one)


# --- runs by name

def test_find_run(tmp_path, monkeypatch):
    a, _ = simulated(3, seeds=2)
    for name in ('synth-3class-pltn-aa11bb22', 'synth-3class-plsm-cc33dd44'): write_run(tmp_path / 'runs' / name, a[0])
    monkeypatch.chdir(tmp_path)
    for name in ('synth-3class-pltn-aa11bb22', 'synth-3class-plt', 'aa11', 'runs/synth-3class-pltn-aa11bb22',
                 str(tmp_path / 'runs' / 'synth-3class-pltn-aa11bb22')):
        assert find_run(name).resolve() == tmp_path / 'runs' / 'synth-3class-pltn-aa11bb22'
    for name, says in (
        ('synth-3class-pl', 'the beginning of 2 runs in runs: synth-3class-plsm-cc33dd44, synth-3class-pltn-aa11bb22'),
        ('samm', "no run 'samm' in runs; there are synth-3class-plsm"), ('*', "no run '*'"), ('', "no run ''"),
        ('runs', 'a folder, but not of a run'),
    ):
        with pytest.raises(ValueError) as e: find_run(name)
        assert says in str(e.value)
    with pytest.raises(ValueError, match='no other run'): find_run('x', tmp_path / 'nowhere')


def test_a_summary_stands_for_its_seeds(tmp_path):
    a, _ = simulated(3, seeds=2)
    write_summary(tmp_path, a, [0, 1])
    assert find_run('a-', tmp_path) == tmp_path / 'a-all' and find_run('a-s1', tmp_path) == tmp_path / 'a-s1'
    write_run(tmp_path / 'a-other', a[0])
    with pytest.raises(ValueError, match='the beginning of 4 runs'): find_run('a-', tmp_path)
