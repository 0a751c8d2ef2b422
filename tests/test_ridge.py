"""The ridge on local motion: nothing of the test subject, nothing of other clips, one class is refused, and whose
statistics a test clip gets."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mpfnet.core.artefacts import Artefacts, sha256_of
from mpfnet.folds import Fold, whole_fold
from mpfnet.rivals import ridge
from mpfnet.rivals.plau import PLAUConfig
from mpfnet.rivals.ridge import LocalMotion, RidgeConfig, own_dataset, restored_ridge
from mpfnet.synthetic.unit_flow import UnitFlowConfig, draw_clips

METHODS = ('hof_ridge', 'random_ridge', 'au_ridge')
CTX = SimpleNamespace(artefacts=Artefacts(), settings=SimpleNamespace(
    ridge=RidgeConfig(), plau=PLAUConfig(updates=2, batch=8), unit_flow=UnitFlowConfig()))


def dataset():
    "36 synthetic clips of six people of three datasets, the last of one person."
    drawn = draw_clips(36, UnitFlowConfig(), np.random.default_rng(0))
    whose = [('a', 's0'), ('a', 's1'), ('b', 's0'), ('b', 's1'), ('b', 's2'), ('c', 's0')]
    d, s = zip(*(whose[i//6] for i in range(36)))
    clips = pd.DataFrame(dict(dataset=d, subject=s, clip=[f'c{i:02}' for i in range(36)], label=[0, 0, 0, 1, 1, 2]*6,
                              input='flow28'))
    return clips, drawn.x[:, :, None].numpy().astype(np.float16)


def fitted(method, clips, x, *held, n_classes=3):
    fold = Fold(clips, x, held, n_classes=n_classes)
    return fold, LocalMotion(method, fold, CTX)


@pytest.mark.parametrize('method', METHODS)
def test_canary_and_that_it_can_fail(method):
    clips, x = dataset()
    def noisy(*who):
        mine = np.array([p == who for p in zip(clips['dataset'], clips['subject'])])
        v, r = x.copy(), np.random.default_rng(9)
        v[mine] = r.uniform(size=v[mine].shape)
        return clips.assign(label=np.where(mine, 2 - clips['label'], clips['label'])), v
    def sha(c, v): return sha256_of(fitted(method, c, v, ('b', 's1'))[1].state())
    clean = sha(clips, x)
    assert sha(*noisy('b', 's1')) == clean
    assert sha(*noisy('b', 's0')) != clean and sha(*noisy('a', 's0')) != clean


@pytest.mark.parametrize('method', METHODS)
def test_a_clip_is_judged_by_itself_and_the_state_is_all_that_is_known(method):
    fold, model = fitted(method, *dataset(), ('b', 's1'))
    fold.seal(state := model.state())
    x = fold.test_features()
    scores = model.scores(x)
    assert np.isfinite(scores).all() and scores.shape == (6, 3)
    assert np.allclose(model.scores(x[[4, 1]]), scores[[4, 1]], atol=1e-12)
    fold.check_unchanged(model.state())
    ridge._read.clear()
    again = restored_ridge(method, {k: torch.as_tensor(np.asarray(v)) for k, v in state.items()}, {}, CTX)
    assert np.array_equal(again.scores(x), scores)
    mirror = x.flip(-1)*torch.tensor([-1., 1, 1])[:, None, None, None]
    assert np.allclose(model.scores(mirror), scores, atol=.02)


def test_whose_statistics_a_test_clip_gets():
    clips, x = dataset()
    def of(*held): return own_dataset(Fold(clips, x, held))
    assert of(('b', 's1')) == 'b' and of(('b', 's1'), ('b', 's2')) == 'b'
    # nobody of its dataset trains; people of two datasets; nobody is held out
    assert of(('c', 's0')) is None and of(('a', 's0'), ('b', 's0')) is None
    assert own_dataset(whole_fold(clips, x)) is None
    with pytest.warns(UserWarning, match='nobody of c trains: .* statistics of all training clips'):
        fold, model = fitted('hof_ridge', clips, x, ('c', 's0'))
    fold.seal(model.state())
    assert np.isfinite(model.scores(fold.test_features())).all()
    # another camera: the same motion with other statistics is read alike where each dataset is read by its own
    mean, spread = model.machines[0].by[0]
    blocks = model.machines[0].reader(ridge.flow_rows(Fold(clips, x, [('c', 's0')]).X()))
    assert np.allclose(mean, blocks[0].mean((0, 1)), atol=1e-5) and (spread > 0).all()


def test_one_class_and_other_rows_are_refused():
    clips, x = dataset()
    with pytest.raises(ValueError, match='ridge, classes of the training clips: expected two or more, found .0.'):
        fitted('hof_ridge', clips.assign(label=0), x, ('a', 's0'))
    with pytest.raises(ValueError, match='shape of the rows: expected .*u, v, strain'):
        fitted('hof_ridge', clips, np.zeros((36, 4, 2, 16, 16), np.float16), ('a', 's0'))
    _, model = fitted('random_ridge', clips, x, ('a', 's0'))
    for state in ({}, {k: v for k, v in model.state().items() if k != '0.alpha'}):
        with pytest.raises(ValueError, match='the state of another model|missing|Missing'):
            restored_ridge('random_ridge', state, {}, CTX)


def test_a_class_without_training_clips_is_never_the_answer_to_all():
    clips, x = dataset()
    few = clips.assign(label=np.minimum(clips['label'], 1))
    fold, model = fitted('hof_ridge', few, x, ('b', 's1'), n_classes=3)
    fold.seal(model.state())
    scores = model.scores(fold.test_features())
    assert np.isfinite(scores).all() and (scores.argmax(1) < 2).all()


def test_the_control_differs_from_the_prior_in_its_filters_only():
    clips, x = dataset()
    (_, a), (_, b) = (fitted(m, clips, x, ('b', 's1')) for m in ('au_ridge', 'random_ridge'))
    assert sha256_of(a.machines[0].state()) == sha256_of(b.machines[0].state())
    assert {k: v.shape for k, v in a.state().items()} == {k: v.shape for k, v in b.state().items()}
    assert sha256_of(a.net.state_dict()) != sha256_of(b.net.state_dict())


def test_what_is_remembered_has_an_end(monkeypatch):
    monkeypatch.setattr(ridge, 'REMEMBERED', 8)
    ridge._read.clear()
    fitted('hof_ridge', *dataset(), ('b', 's1'))
    assert len(ridge._read) == 8
