"""The linear machines behind the descriptors: nothing of the test subject, nothing infinite, and the planes that
scikit-learn finds."""
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold
from mpfnet.loso import run
from mpfnet.rivals.svm import DescriptorSVM, Normaliser, SVMConfig, machines

TEST = ('demo', 's2')


def context(**kwargs):
    return SimpleNamespace(settings=SimpleNamespace(svm=SVMConfig(**kwargs)), device='cpu', watch=None)


def dataset(shape=(25, 8), seed=0, labels=(0, 0, 0, 1, 1, 2), signed=False):
    "24 clips of four subjects; histograms, or anything."
    r = np.random.default_rng(seed)
    y = np.array(list(labels)*4)
    x = r.normal(size=(24, *shape)) if signed else r.dirichlet(np.ones(shape[-1]), (24, *shape[:-1]))
    x[np.arange(24), ..., y] += .5
    clips = pd.DataFrame(
        dict(dataset='demo', subject=[f's{i // 6}' for i in range(24)], clip=[f'c{i:02}' for i in range(24)], label=y,
             input='frames')
    )
    return clips, x.astype(np.float16)


def fitted(clips, x, n_classes=3, **kwargs):
    fold = Fold(clips, x, [TEST], n_classes=n_classes)
    return fold, DescriptorSVM(fold, context(**kwargs))


@pytest.mark.parametrize('shape', [(25, 8), (25, 45), (5, 2, 16, 16), (3, 1, 28, 28)])
@pytest.mark.parametrize('options', [{}, dict(root=False), dict(standardise=False), dict(balanced=False)], ids=str)
def test_canary(shape, options):
    clips, x = dataset(shape, signed=len(shape) == 4)
    def sha(c, v): return sha256_of(fitted(c, v, **options)[1].state())
    def noisy(subject):
        mine, v, c = (clips['subject'] == subject).to_numpy(), x.copy(), clips.copy()
        v[mine] = np.random.default_rng(9).normal(5, 9, (6, *shape))
        c.loc[mine, 'label'] = 2 - c.loc[mine, 'label']
        return c, v
    assert sha(*noisy('s2')) == sha(clips, x) == sha(clips, x)
    assert sha(*noisy('s1')) != sha(clips, x)


def test_predicting_changes_nothing_and_a_clip_is_judged_by_itself():
    fold, model = fitted(*dataset())
    fold.seal(model.state())
    x = fold.test_features()
    s = model.scores(x)
    fold.check_unchanged(model.state())
    assert (s.shape == (6, 3) and np.isfinite(s).all() and np.allclose(model.scores(x[2:3]), s[2:3])
            and np.allclose(model.scores(x.numpy()), s))
    assert (s.argmax(1) == [0, 0, 0, 1, 1, 2]).mean() > .6


def test_the_state_is_all_that_a_prediction_needs():
    fold, model = fitted(*dataset())
    state = model.state()
    fold.seal(state)
    x = fold.test_features()
    z = (np.sqrt(x.numpy().astype(float)).reshape(6, -1) - state['mean'])/state['scale']
    assert np.allclose(z @ state['weights'].T + state['offsets'], model.scores(x)) and state['weights'].shape == (
        3, 200,
    )


@pytest.mark.parametrize('present', [(0, 2), (1, 2), (1,)])
def test_classes_without_training_clips(present):
    clips, x = dataset()
    keep = clips['label'].isin(present) | (clips['subject'] == 's2')
    fold, model = fitted(clips[keep], x[keep])
    fold.seal(model.state())
    s = model.scores(fold.test_features())
    assert s.shape == (6, 3) and np.isfinite(s).all() and set(s.argmax(1)) <= set(present)
    absent = [c for c in range(3) if c not in present]
    assert (s[:, absent].max(1) < s[:, list(present)].min(1)).all()


def test_two_classes():
    clips, x = dataset(labels=(0, 1)*3)
    fold, model = fitted(clips, x, n_classes=2)
    fold.seal(model.state())
    s = model.scores(fold.test_features())
    assert s.shape == (6, 2) and s.argmax(1).tolist() == [0, 1]*3 and np.allclose(s[:, 0], -s[:, 1], atol=5e-3)


def test_the_planes_are_those_of_scikit_learn():
    r = np.random.default_rng(0)
    z, y = r.normal(size=(90, 40)), np.arange(90) % 3
    z[np.arange(90), y] += 1
    for balanced in (True, False):
        _, w, b = machines(z, y, SVMConfig(C=.5, balanced=balanced))
        for c in range(3):
            m = SVC(kernel='linear', C=.5, class_weight='balanced' if balanced else None).fit(z, y == c)
            assert np.allclose(m.coef_[0], w[c], atol=1e-6) and m.intercept_[0] == pytest.approx(b[c], abs=1e-6)


def test_a_plane_known_by_hand():
    "Two clips at ±1 on a line: weight 1, offset 0, each on its margin."
    classes, w, b = machines(np.array([[1., 0], [-1, 0]]), np.array([0, 1]), SVMConfig(C=10))
    assert classes.tolist() == [0, 1] and np.allclose(w, [[1, 0], [-1, 0]], atol=1e-3) and np.allclose(b, 0, atol=1e-3)


def test_the_order_of_the_clips_does_not_matter():
    clips, x = dataset()
    order = np.random.default_rng(1).permutation(24)
    (a, first), (_, second) = fitted(clips, x), fitted(clips.iloc[order], x[order])
    a.seal(first.state())
    assert np.allclose(first.scores(a.test_features()), second.scores(a.test_features()), atol=2e-2)


def test_balance_helps_the_rare_class():
    r = np.random.default_rng(0)
    x, y = np.concatenate([r.normal(0, 1, (90, 5)), r.normal(1, 1, (10, 5))]), np.repeat([0, 1], [90, 10])
    def rare(balanced):
        z = Normaliser(x, SVMConfig(root=False))(x)
        _, w, b = machines(z, y, SVMConfig(balanced=balanced, C=1))
        return ((z @ w.T + b).argmax(1) == 1).sum()
    assert rare(True) > rare(False)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.booleans(),
       st.booleans(), st.sampled_from([0, 1e-6, 1, 1e4]))
def test_normaliser(seed, n, shape, root, standardise, scale):
    x = (np.random.default_rng(seed).normal(size=(n, *shape))*scale).astype(np.float32)
    x[:, ..., 0] = 3                                                    # the same in every clip
    f = Normaliser(x, SVMConfig(root=root, standardise=standardise))
    z = f(torch.from_numpy(x))
    assert (z.shape == (n, int(np.prod(shape))) and np.isfinite(z).all() and np.isfinite(f(x + 1)).all()
            and np.allclose(z.mean(0), 0, atol=1e-6))
    if np.ptp(x, 0).any(): assert (z**2).sum(1).mean() == pytest.approx(1)


def test_bad_settings():
    for kwargs in (dict(C=0), dict(C=-1), dict(C=float('inf')), dict(C='3')):
        with pytest.raises(ValueError): SVMConfig(**kwargs)


def test_bi_woof_on_the_release(real_root, tmp_path):
    "The figures on the page of the descriptors."
    m = json.loads(
        (
            run(dataset='megc2019_flow', data_root=str(real_root), out_dir=str(tmp_path), method='bi_woof', workers=2,
                device='cpu')
            / 'metrics.json'
        ).read_text()
    )
    found = {k: (v['uf1'], v['uar']) for k, v in ({'pooled': m['pooled']} | m['per_dataset']).items()}
    for k, v in dict(
        pooled=(0.7049, 0.7281), smic=(0.6678, 0.6797), casme2=(0.8275, 0.8312), samm=(0.6005, 0.6652)
    ).items():
        assert found[k] == pytest.approx(v, abs=0.006), k
