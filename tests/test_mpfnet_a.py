"""MPFNet with a third encoder: its weights are chosen without the test subject, co-training draws no real clip,
and what has no flow is refused before anything is trained."""
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_leakage import SETTINGS, TEST, dataset, weights, with_noise

from mpfnet import methods
from mpfnet.core.artefacts import Artefacts
from mpfnet.folds import Fold
from mpfnet.loso import run
from mpfnet.methods import METHODS, Context, check_input, fit, fit_matcher, inner_weights, override, restored_matcher
from mpfnet.rivals.mpfnet_a import best_weights, grid_of

FIXED = override(SETTINGS, 'fusion.chosen=false')


def fitted(settings=FIXED, kind='flow28', **more):
    clips, x, copies = dataset(kind, 'mpfnet_a')
    fold = Fold(clips, x, [TEST], copies=copies, n_classes=3)
    return fold, fit('mpfnet_a', fold, Context(settings=settings, artefacts=Artefacts(), **more))


def test_chosen_weights_do_not_see_the_test_subject(monkeypatch):
    "They do not change with him; what they are chosen by is each training clip once."
    seen, x = [], dataset('flow28')
    monkeypatch.setattr(methods, 'best_weights', lambda p, y, *a: seen.append((p, y)) or best_weights(p, y, *a))
    def chosen(clips, x, copies):
        return inner_weights(Fold(clips, x, [TEST], n_classes=3), Context(settings=SETTINGS, artefacts=Artefacts()))
    clean = chosen(*x)
    assert chosen(*with_noise(*x[:2], TEST[1]), {}) == clean and clean in grid_of(SETTINGS.fusion.steps)
    (p, y), (q, z) = seen
    assert np.array_equal(p, q) and np.array_equal(y, z) and p.shape == (3, 18, 3)


def test_the_weights_stand_in_what_is_kept(monkeypatch):
    monkeypatch.setattr(methods, 'inner_weights', lambda fold, ctx: (1., .25, .5))
    fold, model = fitted(override(SETTINGS, 'fusion.chosen=true'))
    assert model.weights == (1., .25, .5)
    fold.seal(state := model.state())
    x, ctx = fold.test_features(), Context(settings=SETTINGS, artefacts=Artefacts())
    kept = {k: torch.as_tensor(np.asarray(v)) for k, v in state.items()}
    again = restored_matcher('mpfnet_a', kept, dict(shape=fold.shape), ctx)
    assert np.allclose(again.scores(x), model.scores(x), atol=1e-5) and again.weights == model.weights
    assert np.allclose(model.scores(x), np.tensordot(model.weights, model.parts(x), 1), atol=1e-6)
    with pytest.raises(ValueError, match='no kept weights|Missing|missing|another model'):
        restored_matcher('mpfnet_a', {k: v for k, v in kept.items() if 'units' not in k}, dict(shape=fold.shape), ctx)


def test_without_the_third_it_has_the_parts_of_mpfnet_p():
    "The same starting points: what the first two were before any episode."
    none = override(FIXED, 'meta.updates=0')
    fold, a = fitted(none)
    _, p = fold, fit_matcher('mpfnet_p', fold, Context(settings=none, artefacts=Artefacts()))
    fold.seal(a.state())
    x = fold.test_features()
    assert np.array_equal(a.parts(x)[:2], p.parts(x))


def test_co_training_is_an_option_and_reads_no_test_clip():
    co, (clips, x, _) = override(FIXED, 'fusion.cotrain=0.5,fusion.synthetic=4'), dataset('flow28')
    alone, clean = (weights('mpfnet_a', clips, x, {}, settings=s) for s in (FIXED, co))
    assert alone != clean == weights('mpfnet_a', *with_noise(clips, x, TEST[1]), {}, settings=co)


def test_what_has_no_flow_is_refused_before_a_run(synth_root, tmp_path):
    with pytest.raises(ValueError, match='mpfnet_a, rows and features: expected u and v'):
        run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='mpfnet_a', features='diff',
            device='cpu', progress=False)
    for kind in ('flow8', 'flow64'):
        with pytest.raises(ValueError, match='mpfnet_a needs recorded .*, this dataset has .* of 8×8.*: .*mpfnet_p'):
            check_input('mpfnet_a', SETTINGS, kind)
    with pytest.raises(ValueError, match='fusion.units: expected 0 or more'): override(SETTINGS, 'fusion.units=-1')
    assert not list(tmp_path.glob('synth-*'))


def test_flow_alone_is_enough():
    fold, model = fitted(replace(FIXED, features='flow'), kind='frames')
    fold.seal(model.state())
    assert np.isfinite(model.scores(fold.test_features())).all()


def test_the_row_says_that_it_is_beyond_the_paper_and_what_decides_it():
    row = METHODS['mpfnet_a']
    assert 'beyond the paper' in row.noted()['note'] and row.copies and row.resident and row.probe is not None
    assert {'unit_flow', 'plau', 'fusion', 'pltn', 'plsm', 'meta'} <= {*row.stages} and 'gamma' not in row.stages


def test_of_equals_the_smallest_weights_are_taken():
    sums = [sum(w) for w in grid_of(4)]
    assert all(a <= b + 1e-9 for a, b in pairwise(sums)) and len(set(grid_of(4))) == 16
    even = np.stack([np.eye(3)[[0, 1, 2]]]*3)
    assert best_weights(even, np.arange(3), 3, 4) == (1., 0., 0.)
