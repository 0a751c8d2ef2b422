"""FMANet: the leakage canary for its variants, determinism, edges, bad settings."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import four_subjects, subject_as_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold
from mpfnet.methods import check_input, settings_preset
from mpfnet.rivals.fmanet import (
    FMANET_VARIANTS,
    FMANet,
    FMANetConfig,
    FMANetNet,
    PhaseFlows,
    fmanet_preset,
    magnitudes,
    mirrored,
    mm_cof,
    unit_flow,
)

SMALL = dict(widths=(4, 8), blocks=1, stem=2, embedding=8, epochs=2, batch=8, lr=5e-3)
VARIANTS = [dict(), dict(variant='mm_cof', theta=.7), dict(average=.8, jitter=1.)]
TEST = ('demo', 's2')


def dataset(seed=0):
    "24 clips of four subjects; every fifth clip has no fall."
    r = np.random.default_rng(seed)
    clips = four_subjects()
    x = r.normal(size=(24, 2, 2, 16, 16))
    x[::5, :, 1] = 0
    return clips, x.astype(np.float16)


def context(watch=None, **kwargs):
    return SimpleNamespace(settings=SimpleNamespace(fmanet=FMANetConfig(**(SMALL | kwargs))), device='cpu', watch=watch)


def fit(clips, x, seed=0, watch=None, **kwargs):
    fold = Fold(clips, x, [TEST], n_classes=3, seed=seed)
    return fold, FMANet(fold, context(watch, **kwargs))


def sha(*args, **kwargs): return sha256_of(fit(*args, **kwargs)[1].state())


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_canary_and_the_same_bytes_every_time(kwargs):
    clips, x = dataset()
    clean, epochs = sha(clips, x, **kwargs), []
    assert sha(*subject_as_noise(clips, x, TEST[1]), **kwargs) == clean
    assert sha(*subject_as_noise(clips, x, 's1'), **kwargs) != clean, 'the same noise on a training subject must matter'
    torch.manual_seed(torch.initial_seed() + 1)
    before = torch.random.get_rng_state()
    assert sha(clips, x, watch=lambda epoch, model: epochs.append((epoch, model.scores(x).shape)), **kwargs) == clean
    assert torch.equal(before, torch.random.get_rng_state()), 'the global generator was used'
    assert epochs == [(1, (24, 3)), (2, (24, 3))] and sha(clips, x, seed=1, **kwargs) != clean


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_predicting_changes_nothing_and_looks_at_one_clip_at_a_time(kwargs):
    clips, x = dataset()
    fold, model = fit(clips, x, **kwargs)
    fold.seal(model.state())
    x = fold.test_features()
    scores, weights = model.scores(x), model.weights(x)
    fold.check_unchanged(model.state())
    assert scores.shape == (6, 3) and np.allclose(scores.sum(1), 1, atol=1e-5) and np.isfinite(scores).all()
    assert weights is None if model.cfg.variant == 'mm_cof' else torch.allclose(weights.sum(1), torch.ones(6, 4, 4))
    one_by_one = np.concatenate([model.scores(x[i : i + 1]) for i in range(6)])
    assert np.allclose(one_by_one, scores, atol=1e-5), 'a clip was judged by its neighbours'
    assert np.allclose(model.scores(mirrored(x)), scores, atol=1e-5), 'a mirrored clip shows the same expression'
    assert np.isfinite(model.scores(torch.zeros_like(x))).all()


@pytest.mark.parametrize('variant', FMANET_VARIANTS)
def test_a_model_comes_back_from_its_state(variant):
    clips, x = dataset()
    _, model = fit(clips, x, variant=variant, mirror=False)
    about = dict(shape=x.shape[1:], n_classes=3)
    again = FMANet.restore(model.state(), about, context(variant=variant, mirror=False))
    assert np.array_equal(model.scores(x), again.scores(x)) and sha256_of(again.state()) == sha256_of(model.state())
    other = {k: v for k, v in model.state().items() if k != 'head.bias'}
    with pytest.raises(ValueError, match='fmanet: the weights of another network: .*head.bias is missing'):
        FMANet.restore(other, about, context(variant=variant))


def test_both_phases_are_read():
    clips, x = dataset()
    for k in range(2):
        other = x.copy()
        other[:, :, k] = np.roll(other[:, :, k], 5, -1)
        assert sha(clips, other) != sha(clips, x)


def test_a_dataset_of_rises_only_is_refused_a_clip_is_not():
    clips, x = dataset()
    mine = (clips['subject'] == TEST[1]).to_numpy()
    test_only = x*mine[:, None, None, None, None]
    for rises in (x*np.array([1, 0]).reshape(2, 1, 1), test_only):
        with pytest.raises(ValueError, match='fmanet, training clips with frames after the apex: expected at least 1'):
            fit(clips, rises.astype(np.float16))
    for wrong in (x[:, :, :1], np.repeat(x, 2, 1), x[:, 0]):
        with pytest.raises(ValueError, match=r'two flows, \(2, 2, S, S\)'): fit(clips, wrong)


def test_no_epochs_and_a_class_that_training_lacks():
    clips, x = dataset()
    assert fit(clips, x, epochs=0)[1].losses == []
    labels = [2 if s == TEST[1] else 0 if y == 0 else 1 for s, y in zip(clips['subject'], clips['label'])]
    model = fit(clips.assign(label=labels), x, epochs=4)[1]
    assert model.scores(x).shape == (24, 3) and np.isfinite(model.losses).all()


@settings(max_examples=30)
@given(st.floats(1e-3, 100), st.floats(.05, .95), st.integers(0, 3))
def test_mm_cof(gain, theta, still):
    "Of no unit; a phase that is not there counts nothing; a clip without motion is zeros."
    x = torch.randn(2, 2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    if still & 1: x[0, :, 0] = 0
    if still & 2: x[0, :, 1] = 0
    z, m = mm_cof(gain*x, theta), magnitudes(gain*x)
    assert torch.allclose(z, mm_cof(x, theta), atol=1e-3) and torch.isfinite(z).all()
    assert m.min() >= 0 and m.max() <= 1 and unit_flow(gain*x).abs().max() <= 1.0001
    assert torch.allclose(z[:, 2], theta*m[:, 0] + (1 - theta)*m[:, 1], atol=1e-5)
    assert z[0].any() == (still != 3)


def test_shapes_and_sizes():
    def size(cfg):
        with torch.device('meta'): return sum(p.numel() for p in FMANetNet(3, cfg).parameters())
    for variant in FMANET_VARIANTS:
        cfgs = [replace(fmanet_preset(k), variant=variant) for k in ('tiny', 'light', 'paper')]
        assert size(cfgs[2]) > 50*size(cfgs[1]) > 50*size(cfgs[0])
        for side in (28, 33):
            assert FMANetNet(5, cfgs[0]).eval()(torch.randn(2, 2, 2, side, side)).shape == (2, 5)
    with pytest.raises(ValueError, match='known: light, paper, tiny'): fmanet_preset('big')
    with pytest.raises(ValueError, match='unknown flow method'): PhaseFlows(flow='raft')


@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(variant='FMANet'), 'variant: expected one of fmanet, mm_cof'),
        (dict(theta=0.), 'theta'),
        (dict(widths=(8, 0)), 'widths'),
        (dict(widths=8), 'widths'),
        (dict(blocks=0), 'blocks: expected .*at least 1, found 0'),
        (dict(grid=0), 'grid: expected .*at least 1, found 0'),
        (dict(embedding=1.5), 'embedding: expected a whole number, at least 1, found 1.5'),
        (dict(batch=1), 'batch: expected .*at least 2, found 1'),
        (dict(dropout=1.0), 'dropout'),
        (dict(smoothing=1), 'smoothing'),
        (dict(flip=1.1), 'flip'),
        (dict(jitter=-1), 'jitter'),
        (dict(balanced=1), 'true or false'),
        (dict(mirror='yes'), 'true or false'),
        (dict(lr=float('nan')), 'finite'),
        (dict(schedule='linear'), 'constant, step or cosine'),
    ],
    ids=str,
)
def test_bad_settings(wrong, says):
    with pytest.raises(ValueError, match=says): FMANetConfig(**wrong)


@pytest.mark.parametrize('method', ['fmanet', 'skd_tstsan'])
def test_flow_of_one_phase_is_refused_by_a_sentence(method):
    "The public release has one flow a clip and no frames: before anything is read, and with what can be done."
    with pytest.raises(
        ValueError,
        match=f'{method} needs recorded frames, this dataset has ready-made flow images; methods that can take them: '
              '.*ststnet, bi_woof',
    ):
        check_input(method, settings_preset('tiny', released_flow=True), 'flow28')
