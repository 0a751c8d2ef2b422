"""AFN: the leakage canary for its variants and its augmentation, determinism, edges, bad settings."""
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
from mpfnet.rivals.afn import AFN, AFNConfig, AFNNet, afn_preset, class_weights, phase_samples, to_scale

SMALL = dict(widths=(4, 8), blocks=1, stem=2, embedding=8, epochs=2, batch=8, lr=5e-3)
VARIANTS = [dict(), dict(variant='dianet'), dict(augment='phase'), dict(scale='train', average=0.8),
            dict(scale='clip', jitter=1.0)]
TEST = ('demo', 's2')


def dataset(seed=0):
    "24 clips of four subjects; every fifth clip has no fall."
    r = np.random.default_rng(seed)
    clips = four_subjects()
    x = 0.05 * r.normal(size=(24, 1, 4, 16, 16))
    x[::5, :, 3] = 0
    return clips, x.astype(np.float16)


def fit(clips, x, seed=0, watch=None, **kwargs):
    fold = Fold(clips, x, [TEST], n_classes=3, seed=seed)
    return fold, AFN(
        fold, SimpleNamespace(settings=SimpleNamespace(afn=AFNConfig(**(SMALL | kwargs))), device='cpu', watch=watch)
    )


def sha(*args, **kwargs): return sha256_of(fit(*args, **kwargs)[1].state())


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_canary(kwargs):
    clips, x = dataset()
    clean = sha(clips, x, **kwargs)
    assert sha(*subject_as_noise(clips, x, TEST[1]), **kwargs) == clean
    assert sha(*subject_as_noise(clips, x, 's1'), **kwargs) != clean, 'the same noise on a training subject must matter'


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_the_same_bytes_every_time_watched_or_not(kwargs):
    clips, x = dataset()
    clean, epochs = sha(clips, x, **kwargs), []
    torch.manual_seed(torch.initial_seed() + 1)
    before = torch.random.get_rng_state()
    assert sha(clips, x, **kwargs) == clean != sha(clips, x, seed=1, **kwargs)
    assert torch.equal(before, torch.random.get_rng_state()), 'the global generator was used'
    assert sha(clips, x, watch=lambda epoch, model: epochs.append((epoch, model.scores(x).shape)), **kwargs) == clean
    assert epochs == [(1, (24, 3)), (2, (24, 3))]


@pytest.mark.parametrize('kwargs', VARIANTS, ids=str)
def test_predicting_changes_nothing_and_looks_at_one_clip_at_a_time(kwargs):
    fold, model = fit(*dataset(), **kwargs)
    fold.seal(model.state())
    x = fold.test_features()
    scores, weights = model.scores(x), model.weights(x)
    fold.check_unchanged(model.state())
    assert scores.shape == (6, 3) and weights.shape == (6, 2)
    assert (np.allclose(scores.sum(1), 1, atol=1e-5) and np.allclose(weights.sum(1), 1, atol=1e-5)
            and np.isfinite(scores).all())
    assert np.allclose(np.concatenate([model.scores(x[i : i + 1]) for i in range(6)]), scores, atol=1e-5), (
        'a clip was judged by its neighbours'
    )
    assert np.allclose(model.scores(x.flip(-1)), scores, atol=1e-5), 'a mirrored clip shows the same expression'
    assert np.isfinite(model.scores(torch.zeros_like(x))).all()
    assert all(torch.isfinite(v.float()).all() for v in model.state().values())


def test_streams_read_their_own_images():
    clips, x = dataset()
    other = x.copy()
    other[:, :, 2:] = other[:, :, 1::-1] * 0.5
    def trained(x, **kwargs): return {k: v for k, v in fit(clips, x, **kwargs)[1].state().items() if k != 'rms'}
    assert sha256_of(trained(x)) == sha256_of(trained(other)), 'AFN looks at the first two images'
    for kwargs in (dict(variant='dianet'), dict(augment='phase')):
        assert sha256_of(trained(x, **kwargs)) != sha256_of(trained(other, **kwargs))


def test_the_state_holds_all_that_decides_a_score():
    clips, x = dataset()
    _, a = fit(clips, x, scale='train', mirror=False)
    _, b = fit(clips, x, scale='train', mirror=False, seed=1)
    b.net.load_state_dict({k: v for k, v in a.state().items() if k != 'rms'})
    b.rms = a.state()['rms']
    assert np.array_equal(a.scores(x), b.scores(x))


def test_no_epochs_and_no_phases():
    clips, x = dataset()
    assert fit(clips, x, epochs=0)[1].losses == []
    none = x.copy()
    none[:, :, 2:] = 0
    assert sha(clips, none, augment='phase') == sha(clips, none), 'without phases there is nothing to add'
    assert np.isfinite(fit(clips, none, variant='dianet')[1].scores(none)).all()


def test_a_class_that_training_lacks():
    clips, x = dataset()
    clips = clips.assign(
        label=[2 if s == TEST[1] else 0 if y == 0 else 1 for s, y in zip(clips['subject'], clips['label'])]
    )
    fold, model = fit(clips, x, epochs=4)
    assert model.scores(x).shape == (24, 3) and np.isfinite(model.losses).all()


def test_rows_of_another_recipe_are_refused():
    clips, x = dataset()
    for wrong in (x[:, :, :3], np.repeat(x[:, :, :1], 10, 2), x[:, 0]):
        with pytest.raises(ValueError, match='four dynamic images'): fit(clips, wrong)


@given(st.integers(1, 6), st.integers(0, 63))
def test_phase_samples(n, still):
    "Pairs of what moves, and no others."
    x = torch.arange(1., 1 + n*4*4).view(n, 1, 4, 2, 2)
    flat = [i for i in range(n) if still >> i & 1]
    x[flat, :, 3] = 0
    pairs, clip = phase_samples(x)
    assert pairs.shape == (2 * n - len(flat), 1, 2, 2, 2) and clip.tolist() == [*range(n),
                                                                                *(i for i in range(n) if i not in flat)]
    for p, i in zip(pairs[:n], clip[:n]): assert torch.equal(p[:, 0], x[i, :, 2]) and torch.equal(p[:, 1], x[i, :, 2])
    for p, i in zip(pairs[n:], clip[n:]): assert torch.equal(p[:, 0], x[i, :, 3]) and torch.equal(p[:, 1], -x[i, :, 3])


@settings(max_examples=30)
@given(st.floats(1e-4, 10), st.sampled_from(['minmax', 'clip', 'train']))
def test_scales(gain, scale):
    x = torch.randn(3, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0, :, 0] = 0
    z, rms = to_scale(gain*x, scale, gain*torch.ones(2)), (gain*x).clone()
    assert torch.isfinite(z).all() and not z[0, :, 0].any() and z.abs().max() < 10 and torch.equal(rms, gain*x)
    assert torch.allclose(z, to_scale(x, scale, torch.ones(2)), atol=1e-3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_class_weights_give_each_class_the_same_say(y):
    y = torch.tensor(y)
    w, n = class_weights(y, 4, True), torch.bincount(y, minlength=4)
    says = (w*n)[n > 0]
    assert (torch.allclose(says, says[:1].expand_as(says)) and torch.isclose((w * n).sum(), torch.tensor(float(len(y))))
            and not w[n == 0].any())


@pytest.mark.parametrize(
    'name, variant, classes, size',
    [('tiny', 'afn', 3, 64), ('tiny', 'dianet', 5, 32), ('light', 'afn', 2, 64), ('light', 'dianet', 3, 48)],
)
def test_shapes(name, variant, classes, size):
    cfg = replace(afn_preset(name), variant=variant)
    for channels in (1, 3):
        logits, w = AFNNet(channels, classes, cfg).eval().fuse(torch.randn(2, channels, 2, size, size))
        assert logits.shape == (2, classes) and w.tolist() == [[.5, .5]]*2, 'the gate starts undecided'


def test_paper_is_the_largest():
    def size(name):
        with torch.device('meta'): return sum(p.numel() for p in AFNNet(1, 3, afn_preset(name)).parameters())
    assert size('paper') > 50*size('light') > 50*size('tiny')
    with pytest.raises(ValueError, match='known: light, paper, tiny'): afn_preset('big')


@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(variant='AFN'), 'variant: expected one of afn, dianet'),
        (dict(augment='flip'), 'augment: expected one of none, phase'),
        (dict(scale='std'), 'scale: expected one of minmax, clip, train'),
        (dict(variant='dianet', augment='phase'), 'nothing but phases'),
        (dict(widths=(8, 0)), 'widths'),
        (dict(widths=()), '8x16x32'),
        (dict(widths=(8.0, 16)), 'widths'),
        (dict(widths=8), 'widths'),
        (dict(blocks=0), 'blocks: expected .*at least 1, found 0'),
        (dict(stem=0), 'stem: expected .*at least 1, found 0'),
        (dict(grid=0), 'grid: expected .*at least 1, found 0'),
        (dict(embedding=1.5), 'embedding: expected a whole number, at least 1, found 1.5'),
        (dict(epochs=-1), 'epochs: expected .*at least 0, found -1'),
        (dict(batch=1), 'batch: expected .*at least 2, found 1'),
        (dict(batch=True), 'batch'),
        (dict(dropout=1.0), 'dropout'),
        (dict(flip=1.1), 'flip'),
        (dict(jitter=-1), 'jitter'),
        (dict(smoothing=1), 'smoothing'),
        (dict(balanced=1), 'true or false'),
        (dict(mirror='yes'), 'true or false'),
        (dict(lr=0), 'lr: expected more than 0'),
        (dict(lr=float('nan')), 'finite'),
        (dict(schedule='linear'), 'constant, step or cosine'),
        (dict(average=1), 'average'),
    ],
    ids=str,
)
def test_bad_settings(wrong, says):
    with pytest.raises(ValueError, match=says): AFNConfig(**wrong)
