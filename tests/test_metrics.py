"""Properties of the metrics that must hold for any predictions, and the bootstrap against a slow oracle."""
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from mpfnet.metrics import (
    check_predictions,
    confusion,
    ensemble,
    evaluate,
    metrics_table,
    read_predictions,
    subject_bootstrap,
    summarise,
)

SCORES = ('acc', 'f1_weighted', 'uf1', 'uar')


@st.composite
def clips(draw, most=60):
    "(labels, predictions, n_classes): any classes may be missing."
    c = draw(st.integers(2, 7))
    pairs = draw(st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=most))
    y, p = map(list, zip(*pairs))
    return y, p, c


def scored(n, seed, n_classes=3):
    "A table of made-up predictions, over three datasets whose subjects share their names."
    rng = np.random.default_rng(seed)
    s = rng.dirichlet(np.ones(n_classes), n)
    return pd.DataFrame(dict(
        dataset=[('smic', 'casme2', 'samm')[i % 3] for i in range(n)], subject=[f'{i % 5:03d}' for i in range(n)],
        clip=[f'{i:03d}_1' for i in range(n)], label=np.arange(n) % n_classes, prediction=s.argmax(1),
    ) | {f'score_{c}': s[:, c] for c in range(n_classes)})


@given(clips())
def test_equals_scikit_learn(case):
    y, p, c = case
    r, every = evaluate(y, p, c), range(c)
    assert r['confusion'] == confusion_matrix(y, p, labels=every).tolist()
    assert r['n'] == len(y)
    assert r['acc'] == pytest.approx(np.mean(np.array(y) == p))
    assert r['uf1'] == pytest.approx(f1_score(y, p, labels=every, average='macro', zero_division=0))
    assert r['f1_weighted'] == pytest.approx(f1_score(y, p, labels=every, average='weighted', zero_division=0))
    assert r['uar'] == pytest.approx(recall_score(y, p, labels=sorted(set(y)), average='macro'))
    if set(p) <= set(y) and len(set(y)) > 1: assert r['uar'] == pytest.approx(balanced_accuracy_score(y, p))


@given(clips(), st.randoms(use_true_random=False))
def test_order_of_clips_and_names_of_classes_do_not_matter(case, random):
    y, p, c = case
    rows, names = list(range(len(y))), list(range(c))
    random.shuffle(rows), random.shuffle(names)
    a, b = evaluate(y, p, c), evaluate([names[y[i]] for i in rows], [names[p[i]] for i in rows], c)
    for k in SCORES: assert a[k] == pytest.approx(b[k]), k


@given(clips())
def test_bounds_and_the_faultless_classifier(case):
    y, p, c = case
    assert all(0 <= evaluate(y, p, c)[k] <= 1 for k in SCORES)
    perfect = evaluate(y, y, c)
    assert perfect['acc'] == perfect['uar'] == 1 and perfect['f1_weighted'] == pytest.approx(1)
    assert perfect['uf1'] == pytest.approx(len(set(y)) / c)  # an absent class counts 0
    wrong = evaluate(y, [(k + 1) % c for k in y], c)
    assert all(wrong[k] == 0 for k in SCORES)


@given(clips())
def test_results_are_plain_json(case):
    r = evaluate(*case)
    assert json.loads(json.dumps(r, allow_nan=False)) == r
    assert {type(v) for v in r.values()} == {int, float, list}


@pytest.mark.parametrize(
    'labels, predictions, n_classes, says',
    [
        ([], [], 3, 'at least one clip'), ([0], [], 3, 'at least one clip'),
        ([0, 1], [0], 3, 'predictions: expected one a label, 2 of them, found 1'), ([0, 3], [0, 0], 3, r'found \[3\]'),
        ([0, 1], [0, -1], 3, r'predictions.*found \[-1\]'), ([0.0, 1.0], [0, 1], 3, 'float64'),
        ([0, 1], ['0', '1'], 3, 'predictions: expected integer'), ([True, False], [0, 1], 3, 'bool'),
        ([0, None], [0, 1], 3, 'object'), ([[0], [1]], [0, 1], 3, 'shape'), (0, 0, 3, 'shape'),
        ([0], [0], 1, 'at least 2'),
    ],
)
def test_bad_input_is_an_error(labels, predictions, n_classes, says):
    with pytest.raises(ValueError, match=says): evaluate(labels, predictions, n_classes)


@settings(max_examples=25)
@given(clips(most=25), st.integers(2, 6), st.integers(0, 2**31))
def test_bootstrap_equals_resampling_clip_by_clip(case, n_subjects, seed):
    "The oracle repeats every drawn subject's clips and scores each draw with scikit-learn."
    y, p, c = case
    if len(y) < n_subjects: return
    y, p, who = np.array(y), np.array(p), np.arange(len(y)) % n_subjects
    uf1, uar = [], []
    for times in np.random.default_rng(seed).multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), size=40):
        rows = np.repeat(np.arange(len(y)), times[who])
        anywhere, here = set(y) | set(p), set(y[rows]) | set(p[rows])
        counted = sorted((set(range(c)) - anywhere) | here)  # skip only classes that this draw happens to miss
        uf1.append(f1_score(y[rows], p[rows], labels=counted, average='macro', zero_division=0))
        uar.append(recall_score(y[rows], p[rows], labels=sorted(set(y[rows])), average='macro'))
    got = subject_bootstrap(y, p, who.tolist(), c, n=40, seed=seed)
    assert got['uf1_ci95'] == pytest.approx(np.quantile(uf1, [.025, .975]))
    assert got['uar_ci95'] == pytest.approx(np.quantile(uar, [.025, .975]))


def test_bootstrap_is_reproducible_and_its_seed_matters():
    t = scored(90, 0)
    args = t.label, t.prediction, list(zip(t.dataset, t.subject)), 3
    assert subject_bootstrap(*args) == subject_bootstrap(*args)
    assert subject_bootstrap(*args) != subject_bootstrap(*args, seed=1)


def test_same_name_in_two_datasets_is_two_subjects():
    t = scored(90, 0)
    pairs = subject_bootstrap(t.label, t.prediction, list(zip(t.dataset, t.subject)), 3)
    merged = subject_bootstrap(t.label, t.prediction, list(t.subject), 3)
    assert summarise(t, 3)['pooled']['uf1_ci95'] == pairs['uf1_ci95'] != merged['uf1_ci95']


def test_summarise_does_not_depend_on_row_order_and_parts_add_up():
    t = scored(90, 1)
    m = summarise(t, 3)
    assert m == summarise(t.sample(frac=1, random_state=0), 3)
    assert list(m) == ['pooled', 'per_dataset'] and set(m['per_dataset']) == {'smic', 'casme2', 'samm'}
    parts = sum(np.array(r['confusion']) for r in m['per_dataset'].values())
    assert (parts == m['pooled']['confusion']).all() and (parts == confusion(t.label, t.prediction, 3)).all()
    assert list(metrics_table(m).index)[-1] == 'pooled'


def test_predictions_survive_the_file(tmp_path):
    t = check_predictions(scored(30, 2))
    t.to_csv(tmp_path / 'predictions.csv', index=False)
    back = read_predictions(tmp_path / 'predictions.csv')
    assert back.subject.iloc[0] == '000'
    assert summarise(back, 3) == summarise(t, 3)
    assert ensemble([back, t]).prediction.equals(t.prediction)


@pytest.mark.parametrize(
    'broken, says',
    [
        (lambda t: t.drop(columns='subject'), 'subject'), (lambda t: pd.concat([t, t[:1]]), 'occur twice'),
        (lambda t: t.assign(clip=None), 'without a name'),
        (lambda t: t.assign(label=t.label.where(t.index > 0)), 'float64'), (lambda t: t[:0], 'at least one clip'),
    ],
)
def test_summarise_refuses_a_broken_table(broken, says):
    with pytest.raises(ValueError, match=says): summarise(broken(scored(30, 3)), 3)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_ensemble_matches_rows_by_clip(seed, n):
    tables = [scored(30, seed + i) for i in range(n)]
    shuffled = [t.sample(frac=1, random_state=i) for i, t in enumerate(tables)]
    got, want = ensemble(shuffled), check_predictions(tables[0])
    mean = sum(t[['score_0', 'score_1', 'score_2']].to_numpy() for t in map(check_predictions, tables)) / n
    assert got['clip'].tolist() == want['clip'].tolist() and got.label.tolist() == want.label.tolist()
    assert np.allclose(got[['score_0', 'score_1', 'score_2']], mean) and (got.prediction == mean.argmax(1)).all()


@pytest.mark.parametrize(
    'broken, says',
    [
        (lambda t: t[1:], 'other clips'),
        (lambda t: t.assign(clip=t['clip'] + 'x'), 'other clips'),
        (lambda t: t.assign(dataset='samm'), 'other clips'),
        (lambda t: t.assign(label=(t.label + 1) % 3), 'other labels'),
        (lambda t: t.drop(columns='score_2'), 'other score columns'),
        (lambda t: t.assign(score_1=np.nan), 'not finite'),
        (lambda t: pd.concat([t, t[:1]]), 'occur twice'),
    ],
)
def test_ensemble_refuses_runs_that_do_not_belong_together(broken, says):
    with pytest.raises(ValueError, match=says): ensemble([scored(30, 0), broken(scored(30, 1))])
