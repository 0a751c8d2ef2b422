"""Dynamic images: weights, orders and phases at their edges, and rows as the feature store makes them."""
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.preprocess import clip_features
from mpfnet.rivals.dynamic import (
    DYNAMIC_IMAGES,
    INTENSITIES,
    DynamicImages,
    GrayFrames,
    by_intensity,
    dynamic_image,
    exact_dynamic_image,
    frame_positions,
    min_max,
    motion_intensity,
    phases,
    rank_weights,
)
from mpfnet.store import FeatureStore

RECIPES = [DynamicImages(size=24), GrayFrames(size=24)]


def random_faces(n, size=24, seed=0):
    "(n, 3, S, S) RGB in [0, 1]."
    return torch.from_numpy(np.random.default_rng(seed).random((n, 3, size, size), np.float32))


def row(recipe, faces, apex=None, first=10):
    times = list(range(first, first + len(faces)))
    out, = recipe.features(faces, times, times[-1] if apex is None else apex)
    assert out.shape == recipe.shape('frames') and out.dtype == np.float16 and np.isfinite(out).all()
    return out


@given(st.integers(1, 400))
def test_weights_are_the_closed_form_and_cancel(n):
    w, k = rank_weights(n), np.arange(1, n + 1)
    h = np.concatenate([[0], np.cumsum(1/k)])
    assert np.allclose(w, 2*(n - k + 1) - (n + 1)*(h[n] - h[k - 1])) and abs(w.sum()) < 1e-8*n
    assert n == 1 or w[0] == w.min() < 0 < w[-1]


def test_weights_by_hand():
    assert (rank_weights(1).tolist() == [0] and rank_weights(2).tolist() == [-0.5, 0.5]
            and np.allclose(rank_weights(3), [-4 / 3, 2 / 3, 2 / 3]))
    for n in (0, -1):
        with pytest.raises(ValueError, match='at least one frame'): rank_weights(n)


@settings(max_examples=50)
@given(st.integers(1, 30), st.floats(-1, 1), st.floats(.01, 10), st.booleans())
def test_what_stays_the_same_cancels(n, shift, gain, scaled):
    x = random_faces(n, 6, n)
    image = dynamic_image(x, scaled)
    assert torch.allclose(dynamic_image(x + shift, scaled), image, atol=1e-5*n)
    assert torch.allclose(dynamic_image(gain*x, scaled), gain*image, rtol=1e-4, atol=1e-5*gain*n)
    assert not dynamic_image(x[:1].expand_as(x), scaled).any(), 'a clip in which nothing moves is exactly zero'
    assert not scaled or image.abs().max() <= 1 + 1e-6


def test_one_two_and_three_frames():
    a, b, c = x = random_faces(3)
    assert not dynamic_image(x[:1]).any()
    assert torch.allclose(dynamic_image(x[:2]), b - a, atol=1e-6) and torch.allclose(dynamic_image(x[:2], scaled=False),
                                                                                     (b - a) / 2, atol=1e-6)
    assert torch.allclose(dynamic_image(x), (b + c)/2 - a, atol=1e-6)
    for n in (1, 2, 3): assert exact_dynamic_image(x[:n]).shape == a.shape
    assert not exact_dynamic_image(x[:1]).any() and exact_dynamic_image(x[:2]).any()


@settings(max_examples=15)
@given(st.integers(2, 25), st.integers(0, 1000))
def test_the_approximation_is_the_limit_of_the_exact(n, seed):
    x = random_faces(n, 5, seed)
    cos = torch.cosine_similarity(exact_dynamic_image(x, 1e-6).flatten(), dynamic_image(x).flatten(), dim=0)
    assert cos > .999


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20))
def test_min_max(values):
    out = min_max(torch.tensor(values))
    assert torch.isfinite(out).all() and (out >= 0).all() and (out <= 1).all()
    if len(set(values)) > 1: assert out.min() == 0 and out.max() == 1
    else: assert (out == .5).all()


@pytest.mark.parametrize('measure', INTENSITIES)
def test_intensity_orders_all_frames_and_starts_at_rest(measure):
    for n in (1, 2, 3, 9):
        x = random_faces(n)
        far, order = motion_intensity(x, measure), by_intensity(x, measure)
        assert (far.shape == (n,) and far[0] == 0 and (far >= 0).all() and sorted(order.tolist()) == list(range(n))
                and order[0] == 0)
        assert (far[order].diff() >= 0).all()
        assert torch.allclose(motion_intensity(torch.cat([x, x[:1]]), measure)[-1], torch.tensor(0.0), atol=1e-4), (
            'back at rest is no motion'
        )
    still = random_faces(1).expand(5, -1, -1, -1)
    if measure != 'flow': assert by_intensity(still, measure).tolist() == list(range(5)), 'ties keep the order of time'


def test_a_square_that_lights_up_is_ordered_backwards_if_filmed_backwards():
    x = torch.zeros(6, 1, 32, 32)
    for k in range(6): x[k, :, 10:14, 8:18] = k/5
    for measure in ('peak', 'difference'):
        assert by_intensity(x, measure).tolist() == list(range(6))
        assert by_intensity(torch.cat([x[:1], x.flip(0)]), measure).tolist()[-1] == 1
    with pytest.raises(ValueError, match='one of peak, difference, flow'): by_intensity(x, 'entropy')


def test_lighting_is_not_motion():
    x = random_faces(1).expand(5, -1, -1, -1)*.5
    lit = x + torch.linspace(0, .3, 5).view(-1, 1, 1, 1)
    assert motion_intensity(lit, 'peak').max() < 1e-5 < .2 < motion_intensity(lit, 'difference').max()


@given(st.data())
def test_phases_share_the_apex(data):
    n = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(0, n - 1))
    times = list(range(100, 100 + 3 * n, 3))
    x = torch.arange(float(n))
    rise, fall = phases(x, times, times[k])
    assert rise.tolist() == list(range(k + 1)) and fall.tolist() == list(range(k, n))
    with pytest.raises(ValueError, match='apex: expected one of the'): phases(x, times, times[k] + 1)


@pytest.mark.parametrize('n', [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize('recipe', RECIPES, ids=lambda r: type(r).__name__)
def test_rows_of_short_clips(recipe, n):
    for apex in range(10, 10 + n): row(recipe, random_faces(n), apex)
    flat = row(recipe, random_faces(1).expand(n, -1, -1, -1), 10)
    assert (flat[0, -1] == .5).all() if isinstance(recipe, GrayFrames) else not flat.any()


def test_the_four_images():
    x, r = random_faces(7), DynamicImages(size=24)
    assert len(DYNAMIC_IMAGES) == 4
    middle, first, last = (row(r, x, a) for a in (13, 10, 16))
    # the apex is the first frame: all of it falls
    assert not first[0, 2].any() and np.array_equal(first[0, 3], first[0, 0])
    assert not last[0, 3].any() and np.array_equal(last[0, 2], last[0, 0])  # … the last: all of it rises
    assert all(middle[0, k].any() for k in range(4)) and np.array_equal(middle[0, :2], last[0, :2]), (
        'the whole clip does not depend on the apex'
    )
    assert not np.array_equal(middle[0, 0], middle[0, 1]) and np.array_equal(row(r, x, 13), middle)
    with pytest.raises(ValueError, match='apex: expected one of the'): row(r, x, 99)


@given(st.integers(1, 200), st.integers(2, 20))
def test_frame_positions(n, k):
    p = frame_positions(n, k)
    assert len(p) == k and p[0] == 0 and p.max() < n and (np.diff(p) >= 0).all()
    assert (p == np.arange(k) * (n // k)).all() if n >= k else np.ptp(np.bincount(p, minlength=n)) <= 1, (
        'evenly, with repeats'
    )


def test_gray_frames_are_grey_frames():
    x = random_faces(20)
    out = row(GrayFrames(size=24), x)
    luma = (x*torch.tensor([.299, .587, .114]).view(3, 1, 1)).sum(1)
    assert np.allclose(out[0, :8], luma[[0, 2, 4, 6, 8, 10, 12, 14]], atol=1e-3)
    assert np.allclose(out[0, 8], min_max(dynamic_image(luma[:16:2])), atol=1e-3)
    assert row(GrayFrames(size=24, frames=3), x).shape == (1, 4, 24, 24)


@pytest.mark.parametrize(
    'make, says',
    [
        (lambda: DynamicImages(intensity='x'), 'motion intensity: expected one of peak, difference, flow'),
        (lambda: DynamicImages(size=8), 'at least 16'),
        (lambda: DynamicImages(size=64.0), 'a whole number'),
        (lambda: GrayFrames(frames=1), 'at least 2'),
        (lambda: GrayFrames(frames=True), 'a whole number'),
        (lambda: GrayFrames(face='none'), 'unknown face method'),
    ],
)
def test_bad_fields(make, says):
    with pytest.raises(ValueError, match=says): make()


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda r: type(r).__name__)
def test_no_magnified_copies_and_no_ready_made_flow(recipe):
    with pytest.raises(ValueError, match='as filmed'): list(recipe.features(random_faces(3), [0, 1, 2], 1, [0, 2]))
    assert len(list(recipe.features(random_faces(3), [0, 1, 2], 1, [0, 0]))) == 2
    assert recipe.kinds == ('frames',)


@pytest.fixture
def clip(tmp_path):
    "A clip of twelve noisy frames 5…16: onset 7, apex 10, offset 14."
    r = np.random.default_rng(3)
    for k in range(5, 17): cv2.imwrite(str(tmp_path/f'{k}.png'), r.integers(0, 256, (30, 30, 3), np.uint8))
    return pd.DataFrame(
        [
            dict(dataset='demo', subject='s1', clip='c1', label=0, onset=7, apex=10, offset=14, input='frames',
                 frames={k: str(tmp_path / f'{k}.png') for k in range(5, 17)})
        ]
    )


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda r: type(r).__name__)
def test_only_frames_from_onset_to_offset_count(clip, tmp_path, recipe):
    before = clip_features(clip.iloc[0], recipe)
    for k in (5, 6, 15, 16): cv2.imwrite(str(tmp_path/f'{k}.png'), np.zeros((30, 30, 3), np.uint8))
    assert np.array_equal(clip_features(clip.iloc[0], recipe), before)
    cv2.imwrite(str(tmp_path/'7.png'), np.zeros((30, 30, 3), np.uint8))
    assert not np.array_equal(clip_features(clip.iloc[0], recipe), before)


def test_another_apex_is_another_row(clip, tmp_path):
    "The phases depend on the apex policy, so a stored row of one policy must not be found by another."
    store = FeatureStore(tmp_path/'features', DynamicImages(size=24))
    a, = store.ensure(clip, progress=False)
    b, = store.ensure(clip.assign(apex=12), progress=False)
    assert (a != b and np.array_equal(store.F[a][0, 0], store.F[b][0, 0])
            and not np.array_equal(store.F[a][0, 2], store.F[b][0, 2]))
    assert store.ensure(clip, progress=False).tolist() == [a]
