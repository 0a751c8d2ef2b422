"""FDP: what a fold learns depends on its training clips alone, is the same every time, and can be learnt at all."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold, LeakageError
from mpfnet.rivals.fdp import (
    FDP,
    FDP_VARIANTS,
    DropPath,
    FDPConfig,
    FDPNet,
    RankPool,
    fdp_preset,
    interleave,
    rank_loss,
)

TEST = ('demo', 's2')
CHEAP = dict(updates=3, batch=6)


def config(variant, **changes): return replace(fdp_preset('tiny'), variant=variant, **changes)


def context(cfg, watch=None, device='cpu'):
    return SimpleNamespace(settings=SimpleNamespace(fdp=cfg), device=device, watch=watch)


def dataset(size=32, seed=0):
    "24 clips of four subjects in rows of noise."
    clips = pd.DataFrame(
        dict(dataset='demo', subject=[f's{i // 6}' for i in range(24)], clip=[f'c{i:02}' for i in range(24)],
             label=[0, 0, 0, 1, 1, 2] * 4, input='frames')
    )
    return clips, np.random.default_rng(seed).uniform(size=(24, 1, 9, size, size)).astype(np.float16)


def moving(n=18, size=32, seed=0):
    "Clips in which a patch brightens over a face of their own; where, is their class. The last image is the target."
    r = np.random.default_rng(seed)
    x = np.repeat(r.uniform(.2, .6, (n, 1, 1, size, size)), 9, 2)
    for k in range(n):
        at = 4 + 8 * (k % 3)
        x[k, 0, :8, at:at + 6, 8:24] += np.linspace(0, .2, 8)[:, None, None]
        x[k, 0, 8] = .3
        x[k, 0, 8, at:at + 6, 8:24] = 1.
    clips = pd.DataFrame(
        dict(dataset='demo', subject=[f's{k // 6}' for k in range(n)], clip=[f'c{k:02}' for k in range(n)],
             label=np.arange(n) % 3, input='frames')
    )
    return clips, x.astype(np.float16)


def fit(clips, x, cfg, seed=0, watch=None):
    fold = Fold(clips, x, [TEST], n_classes=3, seed=seed)
    return FDP(fold, context(cfg, watch)), fold


@pytest.mark.parametrize('variant', FDP_VARIANTS)
def test_canary(variant):
    "Noise in the test subject's frames and labels changes nothing; in a training subject's it does; so does the seed."
    clips, x = dataset()
    def sha(subject=None, seed=0):
        noisy, labels = x.copy(), clips['label'].to_numpy().copy()
        mine = np.flatnonzero(clips['subject'] == subject)
        noisy[mine] = np.random.default_rng(9).uniform(size=noisy[mine].shape)
        labels[mine] = 2 - labels[mine]
        return sha256_of(fit(clips.assign(label=labels), noisy, config(variant, **CHEAP), seed)[0].state())
    assert sha() == sha('s2') != sha('s1') != sha(seed=1)


@pytest.mark.parametrize('variant', FDP_VARIANTS)
@pytest.mark.parametrize('average', [0., .9])
def test_determinism_and_watching(variant, average):
    "The same bytes twice, also if somebody looks on after every epoch, and whatever the global generator does."
    clips, x = dataset()
    cfg, seen = config(variant, average=average, drop_path=.3, updates=5, batch=6), []
    first = fit(clips, x, cfg)[0]
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    second = fit(clips, x, cfg, watch=lambda epoch, model: seen.append((epoch, model.scores(x[:2]).shape)))[0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert sha256_of(first.state()) == sha256_of(second.state()) and first.losses == second.losses
    assert seen == [(1, (2, 3))]                                    # 18 clips in batches of 6: three updates an epoch


@pytest.mark.parametrize('variant', FDP_VARIANTS)
def test_prediction_does_not_train(variant):
    clips, x = dataset()
    model, fold = fit(clips, x, config(variant, **CHEAP))
    with pytest.raises(LeakageError): fold.test_features()
    fold.seal(model.state())
    test = fold.test_features()
    scores = model.scores(test)
    fold.check_unchanged(model.state())
    assert (scores.shape == (6, 3) and scores.dtype == np.float64 and np.isfinite(scores).all()
            and np.allclose(scores.sum(1), 1))
    alone = np.concatenate([model.scores(test[i:i + 1]) for i in range(6)])
    assert np.allclose(alone, scores, atol=1e-4)                    # a clip's scores do not depend on its company
    test[:, :, -1] = 0
    assert np.array_equal(model.scores(test), scores)               # nor on its own dynamic image


@pytest.mark.parametrize('variant', FDP_VARIANTS)
def test_normalisation_is_learnt_from_training_clips_only(variant):
    """The public code uses the test set's own mean and maximum; here brighter test clips are brighter input, or scaled
    clip by clip."""
    clips, x = dataset()
    model, _ = fit(clips, x, config(variant, **CHEAP))
    a, b = model.scores(x[12:13]), model.scores(np.concatenate([x[12:13], x[:1] * .1]))
    assert np.allclose(a[0], b[0], atol=1e-4)
    if variant == 'as_released':
        assert np.isclose(model.state()['mean'], x[clips['subject'] != 's2'][:, 0, :8].astype(np.float32).mean(),
                          atol=1e-4)


@pytest.mark.parametrize('variant', FDP_VARIANTS)
def test_a_handful_of_clips_can_be_learnt(variant):
    clips, x = moving()
    model, fold = fit(
        clips,
        x,
        config(variant, batch=12, flip=0.0, jitter=0.0, drop_path=0.0,
               **dict(as_paper=dict(updates=45, lr=6e-3), as_released=dict(updates=80, lr=1e-2))[variant]),
    )
    train = x[clips['subject'] != 's2']
    logits, image, ranks = model.predict(train)
    labels = clips.loc[clips['subject'] != 's2', 'label'].to_numpy()
    assert (logits.argmax(1).numpy() == labels).all()
    error = ((image.numpy() - train[:, 0, -1].astype(np.float32)) ** 2).mean()
    assert error < .5 * train[:, 0, -1].astype(np.float32).var(), 'the decoder learns nothing'
    if variant == 'as_paper': assert (ranks.diff(dim=1) > 0).float().mean() > .9
    else: assert ranks is None


def test_new_faces():
    "What ranking is for: the face of a new subject, which dominates its frames, does not matter to `as_paper`."
    clips, x = moving(36)
    fold = Fold(clips, x, [('demo', 's4'), ('demo', 's5')], n_classes=3)
    model = FDP(fold, context(config('as_paper', updates=60, batch=12)))
    fold.seal(model.state())
    assert (model.scores(fold.test_features()).argmax(1) == np.arange(12) % 3).mean() > .8


@pytest.mark.parametrize('variant', FDP_VARIANTS)
@pytest.mark.parametrize('size, frames, classes, depths',
                         [(32, 8, 3, (1,)), (64, 8, 5, (1, 1)), (64, 5, 2, (2, 1, 1, 1))])
def test_shapes(variant, size, frames, classes, depths):
    cfg = config(variant, size=size, depths=depths)
    logits, image, scores = FDPNet(cfg, classes, frames).eval()(torch.rand(3, frames, size, size))
    assert logits.shape == (3, classes) and image.shape == (3, size, size) and 0 <= image.min() and image.max() <= 1
    assert scores is None if variant == 'as_released' else scores.shape == (3, frames)


def test_frames_of_another_size():
    clips, x = dataset(size=48)
    model, fold = fit(clips, x, config('as_paper', **CHEAP))
    fold.seal(model.state())
    assert model.scores(fold.test_features()).shape == (6, 3) and model.predict(x[:2])[1].shape == (2, 32, 32)


@pytest.mark.parametrize('variant', FDP_VARIANTS)
def test_nothing_moves(variant):
    "Clips of one frame repeated, and black ones, give numbers."
    clips, x = dataset()
    x[:, :, 1:8], x[:3], x[12:15] = x[:, :, :1], 0, 0
    model, fold = fit(clips, x, config(variant, **CHEAP))
    fold.seal(model.state())
    assert np.isfinite(model.scores(fold.test_features())).all() and np.isfinite(model.losses).all()


def test_published_parameter_counts():
    "54.95 M, 0.91 M and 29.45 M with five classes."
    def count(*modules): return sum(p.numel() for m in modules for p in m.parameters())
    with torch.device('meta'): net = FDPNet(FDPConfig(variant='as_released'), 5)
    assert (count(net.encoder), count(net.dynamic, net.classifier), count(net.decoder)) == (54_952_448, 905_293,
                                                                                            29_446_465)
    with torch.device('meta'): paper = FDPNet(FDPConfig(), 5)
    assert count(paper.decoder) == 29_446_465 and count(paper.encoder) > count(net.encoder)


def test_published_settings():
    c = fdp_preset('paper')
    assert (c.lr, c.weight_decay, c.batch, c.updates, c.image_weight, c.depths, c.width, c.size) == (
        1e-4, 1e-3, 36, 500, 100, (3, 4, 10, 3), 1, 64,
    )
    assert (c.schedule, c.average, c.flip, c.jitter) == ('constant', 0, 0, 0)


@given(b=st.integers(1, 3), t=st.integers(0, 7), k=st.integers(0, 4095))
@settings(max_examples=20)
def test_the_released_order_of_memory(b, t, k):
    f = torch.zeros(b, 8, 4096)
    f[b - 1, t, k] = 1
    mixed = interleave(f.view(b, 8, 64, 64))
    assert mixed.sum() == 1 and mixed[b - 1, k % 8, 8 * t + k // 512, k // 8 % 64] == 1


@given(n=st.integers(2, 12), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_pooling_cancels_what_stays(n, seed):
    """Whatever the scorer has learnt: its weights add up to zero, so a still image added to all frames changes
    nothing, nor does the gain."""
    g = torch.Generator().manual_seed(seed)
    pool, f = RankPool(8).eval(), torch.randn(2, n, 8, 8, generator=g)
    torch.nn.init.normal_(pool.scorer.weight, generator=g)
    D, s = pool(f)
    for other in (f + 5 * torch.randn(2, 1, 8, 8, generator=g), 3 * f):
        for a, b in zip(pool(other), (D, s)): assert torch.allclose(a, b, atol=1e-3)
    assert rank_loss(s.sort(dim=1).values) <= rank_loss(s) + 1e-6


def test_drop_path():
    x = torch.ones(400, 2, 3)
    assert DropPath(0.)(x) is x and DropPath(.5).eval()(x) is x
    torch.manual_seed(0)
    y = DropPath(.5, together=4)(x).view(100, -1)
    assert set(y.unique().tolist()) == {0., 2.} and (y.std(1) == 0).all() and 30 < (y[:, 0] == 0).sum() < 70


@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(variant='new'), 'as_paper, as_released'),
        (dict(size=40), 'multiple of 32'),
        (dict(size=0), 'at least 32'),
        (dict(depths=(1, 2, 3, 4, 5)), 'one to four'),
        (dict(depths=3), '3x4x10x3'),
        (dict(batch=1), 'at least 2'),
        (dict(updates=-1), 'at least 0'),
        (dict(width=-1), 'width'),
        (dict(flip=1.5), 'flip'),
        (dict(change='yes'), 'true or false'),
        (dict(image_weight=-1), 'negative'),
        (dict(jitter=float('inf')), 'finite'),
        (dict(lr=0), 'lr: expected more than 0'),
        (dict(schedule='linear'), 'cosine'),
    ],
    ids=str,
)
def test_bad_config(wrong, says):
    with pytest.raises(ValueError, match=says.replace('(', r'\(')): FDPConfig(**wrong)


def test_unknown_preset_and_too_few_clips():
    with pytest.raises(ValueError, match='known: light, paper, tiny'): fdp_preset('large')
    clips, x = dataset()
    some = clips.iloc[[0, 12, 13]].reset_index(drop=True)
    with pytest.raises(ValueError, match='training clips: expected at least 2'):
        fit(some, x[[0, 12, 13]], config('as_paper', **CHEAP))
