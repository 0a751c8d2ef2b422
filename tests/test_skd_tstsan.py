"""SKD-TSTSAN: the leakage canary for both ways to magnify, determinism, the public network's size, edges, bad
settings."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import four_subjects, subject_as_noise

from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold
from mpfnet.rivals.skd_tstsan import (
    SKD_MAGNIFY,
    SKDTSTSAN,
    SKDConfig,
    SKDNet,
    ThreeStreams,
    mirrored_inputs,
    rarity,
    skd_preset,
    stream_inputs,
)

SMALL = dict(width=.125, side=16, updates=6, batch=8, flip=.5, mirror=True)
VARIANTS = [dict(), dict(magnify='pictures', average=.8), dict(flip=0., mirror=False, grid=2)]
TEST = ('demo', 's2')


def dataset(seed=0):
    "24 clips of four subjects; every fifth clip ends at its apex."
    r = np.random.default_rng(seed)
    clips = four_subjects()
    x = np.concatenate([r.uniform(size=(24, 3, 1, 16, 16)), r.normal(size=(24, 4, 1, 16, 16))], 1)
    x[::5, 5:] = 0
    return clips, x.astype(np.float16)


def context(watch=None, **kwargs):
    settings = SimpleNamespace(skd_tstsan=SKDConfig(**(SMALL | kwargs)))
    return SimpleNamespace(settings=settings, device='cpu', watch=watch)


def fit(clips, x, seed=0, watch=None, **kwargs):
    fold = Fold(clips, x, [TEST], n_classes=3, seed=seed)
    return fold, SKDTSTSAN(fold, context(watch, **kwargs))


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
    assert epochs == [(1, (24, 3)), (2, (24, 3)), (3, (24, 3))] and sha(clips, x, seed=1, **kwargs) != clean


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_predicting_changes_nothing_and_looks_at_one_clip_at_a_time(kwargs):
    fold, model = fit(*dataset(), **kwargs)
    fold.seal(model.state())
    x = fold.test_features()
    every, scores = model.all_scores(x), model.scores(x)
    fold.check_unchanged(model.state())
    assert every.shape == (3, 6, 3) and np.array_equal(every[-1], scores) and np.isfinite(every).all()
    assert np.allclose(every.sum(2), 1, atol=1e-5)
    one_by_one = np.concatenate([model.scores(x[i : i + 1]) for i in range(6)])
    assert np.allclose(one_by_one, scores, atol=1e-5), 'a clip was judged by its neighbours'
    assert np.isfinite(model.scores(torch.zeros_like(x))).all()


@pytest.mark.parametrize('magnify', SKD_MAGNIFY)
def test_a_model_comes_back_from_its_state(magnify):
    clips, x = dataset()
    _, model = fit(clips, x, magnify=magnify)
    about = dict(shape=x.shape[1:], n_classes=3)
    again = SKDTSTSAN.restore(model.state(), about, context(magnify=magnify))
    assert np.array_equal(model.scores(x), again.scores(x)) and sha256_of(again.state()) == sha256_of(model.state())
    with pytest.raises(ValueError, match='skd_tstsan: the weights of another network'):
        SKDTSTSAN.restore(model.state(), about | dict(n_classes=4), context(magnify=magnify))


def test_which_maps_are_read():
    clips, x = dataset()
    clean = {m: sha(clips, x, magnify=m, updates=1) for m in SKD_MAGNIFY}
    for k in (0, 1, 2, 6):
        other = x.copy()
        other[:, k] = np.roll(other[:, k], 5, -1)
        read = dict(learnt=k != 2, pictures=k not in (0, 1))  # a magnified apex stands for onset and apex
        for m in SKD_MAGNIFY: assert (sha(clips, other, magnify=m, updates=1) != clean[m]) == read[m], (k, m)


@pytest.mark.parametrize('grid, side', [(1, 16), (2, 20), (4, 24)])
def test_a_mirror_of_the_inputs_is_that_of_the_clip(grid, side):
    cfg, x = SKDConfig(grid=grid, side=side), torch.from_numpy(dataset()[1]).float()
    turned = x.flip(-1)
    turned[:, [3, 5]] *= -1
    z = stream_inputs(x, cfg)
    assert z.shape == (24, 2 + 2*grid**2 + 4, side, side) and z.min() >= 0 and z.max() <= 1.0001
    assert torch.allclose(mirrored_inputs(z, grid), stream_inputs(turned, cfg), atol=1e-4)
    assert torch.allclose(mirrored_inputs(mirrored_inputs(z, grid), grid), z, atol=1e-5)


def test_what_is_refused():
    clips, x = dataset()
    rises = x.copy()
    rises[:, 5:] = 0
    with pytest.raises(ValueError, match='skd_tstsan, training clips with frames after the apex: expected'):
        fit(clips, rises)
    for wrong in (x[:, :6], x[:, :, 0]):
        with pytest.raises(ValueError, match=r'shape of a row: expected \(7, 1, S, S\)'): fit(clips, wrong)
    with pytest.raises(ValueError, match='a multiple of grid = 3, found 16'): fit(clips, x, grid=3)


def test_no_updates_and_a_class_that_training_lacks():
    clips, x = dataset()
    assert fit(clips, x, updates=0)[1].losses == []
    labels = [2 if s == TEST[1] else 0 if y == 0 else 1 for s, y in zip(clips['subject'], clips['label'])]
    model = fit(clips.assign(label=labels), x)[1]
    assert model.scores(x).shape == (24, 3) and np.isfinite(model.losses).all()
    assert torch.allclose(rarity(torch.tensor([0, 0, 1]), 3), torch.tensor([1/3, 2/3, 0]))


def test_sizes():
    "That of the public network to the digit; any number of classes, any width."
    def size(cfg, classes=5):
        with torch.device('meta'): return sum(p.numel() for p in SKDNet(classes, cfg).parameters())
    assert size(SKDConfig()) == 2_946_214 > 3*size(skd_preset('light')) > 9*size(skd_preset('tiny'))
    for how in SKD_MAGNIFY:
        net = SKDNet(4, replace(skd_preset('tiny'), magnify=how, width=.1, side=17)).eval()
        assert net(torch.rand(2, 38, 17, 17)).shape == (2, 4)
    with pytest.raises(ValueError, match='known: light, paper, tiny'): skd_preset('big')
    with pytest.raises(ValueError, match='unknown flow method'): ThreeStreams(flow='raft')


@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(magnify='magnet'), 'magnify: expected one of learnt, pictures'),
        (dict(grid=0), 'grid: expected .*at least 1, found 0'),
        (dict(side=8), 'side: expected .*at least 16, found 8'),
        (dict(shift=1), 'shift: expected .*at least 2, found 1'),
        (dict(updates=1.5), 'updates: expected a whole number'),
        (dict(batch=True), 'batch'),
        (dict(factor=0), 'factor: expected more than 0'),
        (dict(width=21), 'width: expected more than 0, at most 20'),
        (dict(temperature=0), 'temperature'),
        (dict(focus=-1), 'focus'),
        (dict(hint=-1e-6), 'hint'),
        (dict(distil=1.1), 'distil: expected 0 to 1'),
        (dict(flip=-.1), 'flip: expected 0 to 1'),
        (dict(dropout=1), 'dropout'),
        (dict(mirror=1), 'true or false'),
        (dict(lr=0), 'lr: expected more than 0'),
    ],
    ids=str,
)
def test_bad_settings(wrong, says):
    with pytest.raises(ValueError, match=says): SKDConfig(**wrong)
