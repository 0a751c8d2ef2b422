"""LBP-TOP, Bi-WOOF and strain: against slow references, what they must not see, and clips that are hardly clips."""
import warnings
from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.motion.inputs import Scaling
from mpfnet.preprocess import PreprocessConfig, clip_features
from mpfnet.rivals.descriptors import (
    LBPTOP,
    PLANES,
    BiWOOF,
    FlowStrain,
    bi_woof,
    block_numbers,
    in_time,
    lbp_codes,
    lbp_top,
    optical_strain,
    ring,
    stretched,
    uniform_codes,
)
from mpfnet.store import FeatureStore
from mpfnet.synthetic.synth import make_synth

RECIPES = [LBPTOP, BiWOOF, FlowStrain]


def picture(shape, seed=0, levels=256): return np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)


def texture(n=64, seed=0):
    "A smooth random picture (n, n) in [0, 1]."
    x = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(n, n)), (0, 0), 2)
    return (x - x.min())/np.ptp(x)


def faces(frames, size=64, moves=(0, 0), seed=0):
    "Frames (N, 3, S, S) of a picture that moves by `moves` px from the first to the last."
    out = []
    for t in np.linspace(0, 1, frames):
        m = np.float32([[1, 0, t*moves[0]], [0, 1, t*moves[1]]])
        out.append(
            cv2.warpAffine(texture(size, seed), m, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        )
    return torch.from_numpy(np.stack(out)).float().clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def row_of(recipe, x, apex=None):
    return next(recipe.features(x, list(range(len(x))), len(x) - 1 if apex is None else apex))


# ---- local binary patterns

def with_skimage(volume, plane, P, R):
    from skimage.feature import local_binary_pattern
    other = ({0, 1, 2} - set(plane)).pop()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        slices = [local_binary_pattern(s, P, R, 'nri_uniform')[R:-R, R:-R] for s in np.moveaxis(volume, other, 0)]
    return np.moveaxis(np.stack(slices[R:-R]), 0, other)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 6, 8, 12, 16]), st.integers(1, 3), st.sampled_from(PLANES),
       st.tuples(*[st.integers(7, 12)] * 3), st.booleans())
def test_codes_are_those_of_skimage_bit_for_bit(seed, P, R, plane, shape, whole):
    r = np.random.default_rng(seed)
    # no two pixels alike: no ties
    volume = r.permutation(np.prod(shape)).reshape(shape).astype(float) if whole else r.random(shape)
    assert np.array_equal(lbp_codes(volume, plane, P, (R, R, R)), with_skimage(volume, plane, P, R))


def exactly(volume, plane, P, radii):
    "Codes in fractions, pixel by pixel: ties are ties. The uniform numbering is spelled out from its definition."
    margins = radii[::-1]
    offsets = [[Fraction(str(v)) for v in o] for o in ring(P, *(margins[a] for a in plane))]
    out = np.zeros([n - 2*m for n, m in zip(volume.shape, margins)], int)
    for at in np.ndindex(*out.shape):
        centre = [i + m for i, m in zip(at, margins)]
        bits = []
        for offset in offsets:
            value, low = 0, [floor(o) for o in offset]
            for corner in np.ndindex(2, 2):
                weight, place = Fraction(1), list(centre)
                for a, o, l, c in zip(plane, offset, low, corner):
                    weight *= o - l if c else 1 - (o - l)
                    place[a] += l + c
                if weight: value += weight*int(volume[tuple(place)])
            bits.append(value >= int(volume[tuple(centre)]))
        changes = sum(a != b for a, b in zip(bits, bits[1:] + bits[:1]))
        if changes > 2: out[at] = P*(P - 1) + 2
        elif all(bits): out[at] = P*(P - 1) + 1
        elif any(bits):
            begins = next(k for k in range(P) if bits[k] and not bits[k - 1])
            out[at] = 1 + (sum(bits) - 1)*P + (P - begins) % P
    return out


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([3, 4, 8]), st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from(PLANES),
       st.sampled_from([2, 3, 5, 256]))
def test_codes_are_exact_with_ties_and_on_ellipses(seed, P, radii, plane, levels):
    volume = picture([2*r + 2 for r in radii[::-1]], seed, levels)
    assert np.array_equal(lbp_codes(volume, plane, P, radii), exactly(volume, plane, P, radii))


def test_the_slow_reference_is_skimage_where_nothing_is_tied():
    volume = np.random.default_rng(3).permutation(343).reshape(7, 7, 7)
    for plane in PLANES:
        assert np.array_equal(exactly(volume, plane, 8, (2, 2, 2)), with_skimage(volume.astype(float), plane, 8, 2))


@pytest.mark.parametrize('P', [2, 3, 4, 8, 12, 16])
def test_uniform_codes(P):
    codes = uniform_codes(P)
    changes = np.array([bin(n ^ (n >> 1 | (n & 1) << P - 1)).count('1') for n in range(2**P)])
    ones = np.array([bin(n).count('1') for n in range(2**P)])
    assert len(np.unique(codes[changes <= 2])) == P * (P - 1) + 2 == (changes <= 2).sum() and set(
        codes[changes > 2]
    ) <= {P * (P - 1) + 2}
    # numbered by how many ones there are
    assert (np.diff(ones[changes <= 2][np.argsort(codes[changes <= 2])]) >= 0).all()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(PLANES), st.floats(.2, 5), st.integers(1, 50))
def test_a_monotone_change_of_grey_changes_nothing(seed, plane, power, lift):
    volume = picture((9, 8, 7), seed, 12).astype(float)
    assert np.array_equal(lbp_codes((volume + lift)**power, plane), lbp_codes(volume, plane))


def test_a_change_of_order_changes_codes():
    volume = picture((9, 12, 12)).astype(float)
    swapped = np.where(volume == 100, 200, np.where(volume == 200, 100, volume))
    assert not np.array_equal(lbp_codes(-volume), lbp_codes(volume)) and not np.array_equal(lbp_codes(swapped),
                                                                                            lbp_codes(volume))


# ---- LBP-TOP

@settings(max_examples=20)
@given(st.integers(0, 10**6), st.tuples(st.integers(3, 9), st.integers(9, 24), st.integers(9, 24)),
       st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(*[st.sampled_from([4, 8])] * 3))
def test_histograms_count_every_code_once(seed, shape, grid, neighbours):
    volume, radii = picture(shape, seed), (2, 1, 1)
    h = lbp_top(volume, neighbours, radii, grid)
    block, start = block_numbers((shape[1] - 2, shape[2] - 4), grid), 0
    for plane, P in zip(PLANES, neighbours):
        bins, codes = P*(P - 1) + 3, lbp_codes(volume, plane, P, radii)
        for b in range(grid[0]*grid[1]):
            mine = codes[:, block == b]
            assert np.allclose(h[b, start:start + bins], [(mine == k).mean() for k in range(bins)])
        start += bins
    assert start == h.shape[1]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_blocks_cover_the_picture_evenly(h, w, rows, columns):
    if h < rows or w < columns:
        with pytest.raises(ValueError, match='at least as many pixels'): block_numbers((h, w), (rows, columns))
        return
    b = block_numbers((h, w), (rows, columns))
    heights, widths = np.bincount(b[:, 0]//columns), np.bincount(b[0])
    assert (len(heights) == rows and len(widths) == columns and np.ptp(heights) <= 1 and np.ptp(widths) <= 1
            and heights.min() > 0)


def test_a_block_sees_only_its_part_of_the_face():
    volume = picture((9, 52, 52))
    other = volume.copy()
    other[:, 30:, 30:] = picture((9, 22, 22), 9)
    a, b = lbp_top(volume).reshape(5, 5, -1), lbp_top(other).reshape(5, 5, -1)
    assert np.array_equal(a[:2], b[:2]) and np.array_equal(a[:, :2], b[:, :2]) and not np.allclose(a[4, 4], b[4, 4])


def test_time_backwards():
    "XY does not know the direction of time; XT and YT do: their patterns are turned over."
    volume = np.random.default_rng(0).random((9, 20, 20))
    a, b = lbp_top(volume, grid=(2, 2)), lbp_top(volume[::-1], grid=(2, 2))
    codes = uniform_codes(4)
    flip = np.zeros(15, int)
    # neighbours 1 and 3 are before and after
    for n in range(16): flip[codes[n]] = codes[n & 0b0101 | (n & 2) << 2 | (n & 8) >> 2]
    for start in (15, 30): assert np.allclose(b[:, start + flip], a[:, start:start + 15])
    assert np.allclose(a[:, :15], b[:, :15]) and not np.allclose(a, b)


def test_in_time_keeps_recorded_frames_and_makes_up_for_missing_ones():
    x = torch.arange(6.).view(6, 1, 1, 1)
    assert torch.equal(in_time(x, list(range(6)), 6), x) and torch.equal(in_time(x + .3, [1, 2, 3, 4, 5, 7], 0), x + .3)
    assert in_time(x[[0, 1, 5]], [10, 11, 15], 6).flatten().tolist() == pytest.approx([0, 1, 2, 3, 4, 5])
    assert in_time(x[:1], [3], 0, 9).shape == (9, 1, 1, 1) and in_time(
        x[:2], [3, 4], 0, 9
    ).flatten().tolist() == pytest.approx(np.linspace(0, 1, 9), abs=1e-6)


def test_a_pixel_that_stays_the_same_stays_exactly_the_same():
    "Mixing two equal values must not change their last bit: LBP sees it."
    x = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)).expand(13, -1, -1, -1)
    for n in (9, 20, 31): assert torch.equal(in_time(x, list(range(50, 63)), n), x[:1].expand(n, -1, -1, -1))


# ---- strain

@given(st.integers(0, 10**6), st.floats(-2, 2), st.floats(-2, 2), st.floats(-0.2, 0.2),
       st.tuples(st.integers(2, 9), st.integers(2, 9)))
def test_strain_does_not_see_a_rigid_motion(seed, dx, dy, turn, shape):
    y, x = np.mgrid[:shape[0], :shape[1]].astype(float)
    f = np.random.default_rng(seed).normal(size=(2, *shape))
    rigid = np.stack([dx - turn*y, dy + turn*x])
    assert np.allclose(optical_strain(f + rigid), optical_strain(f), atol=1e-6) and np.allclose(optical_strain(rigid),
                                                                                                0, atol=1e-6)
    assert np.allclose(optical_strain(3 * f), 3 * optical_strain(f)) and np.allclose(
        optical_strain(f[:, ::-1, ::-1].copy()), optical_strain(f).flip(0, 1)
    )


def test_strain_of_stretching_and_shearing():
    y, x = np.mgrid[:6, :5].astype(float)
    for uv, e in [((0.1 * x, 0 * y), 0.1), ((0 * x, 0.1 * y), 0.1), ((0.1 * y, 0 * x), 0.1 / 2**0.5),
                  ((0.1 * y, 0.1 * x), 0.2 / 2**0.5), ((0.1 * x, 0.1 * y), 0.1 * 2**0.5),
                  ((0.1 * x, -0.1 * y), 0.1 * 2**0.5)]:
        assert np.allclose(optical_strain(np.stack(uv)), e)


def test_strain_of_many_and_of_tensors():
    f = torch.randn(4, 3, 2, 7, 6)
    e = optical_strain(f)
    assert e.shape == (4, 3, 7, 6) and e.dtype == torch.float32 and torch.allclose(e[2, 1], optical_strain(f[2, 1]))


# ---- Bi-WOOF

@settings(max_examples=30)
@given(st.integers(0, 10**6), st.tuples(st.integers(5, 30), st.integers(5, 30)),
       st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(2, 12))
def test_bi_woof_against_a_loop_and_under_rotation(seed, shape, grid, bins):
    r = np.random.default_rng(seed)
    f, e = r.normal(size=(2, *shape)), r.random(shape)
    found, block, slow = bi_woof(f, e, grid, bins), block_numbers(shape, grid), np.zeros((grid[0]*grid[1], bins))
    for y, x in np.ndindex(*shape):
        angle = np.degrees(np.arctan2(f[1, y, x], f[0, y, x])) + 180
        slow[block[y, x], min(int(angle/(360/bins)), bins - 1)] += np.hypot(*f[:, y, x])
    slow = slow/slow.sum(1, keepdims=True)*[[e[block == b].mean()] for b in range(len(slow))]
    assert np.allclose(found, slow/np.linalg.norm(slow)) and found.shape == slow.shape
    a = 2*np.pi/bins
    turned = np.stack([np.cos(a)*f[0] - np.sin(a)*f[1], np.sin(a)*f[0] + np.cos(a)*f[1]])
    assert np.allclose(bi_woof(turned, e, grid, bins), np.roll(found, 1, 1), atol=1e-9)


def test_directions_on_the_edge_of_a_bin_belong_to_the_bin_that_begins_there():
    for i, (u, v) in enumerate([(-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1)]):
        for k in (1, 7, 255):
            assert bi_woof(np.full((2, 1, 1), 1) * [[[k * u]], [[k * v]]], np.ones((1, 1)), (1, 1))[0].tolist() == [
                j == i for j in range(8)
            ]


def test_bi_woof_global_weight_is_strain():
    r = np.random.default_rng(0)
    f, e = r.normal(size=(2, 20, 20)), np.ones((20, 20))
    e[:10, :10] = 3
    w = bi_woof(f, e, (2, 2)).sum(1)
    assert np.allclose(w/w[3], [3, 1, 1, 1])
    assert not bi_woof(f, 0*e).any() and not bi_woof(0*f, e).any()


@pytest.mark.parametrize(
    'moves, bin', [((1, 0.5), 4), ((0.5, 1), 5), ((-0.5, 1), 6), ((-1, 0.5), 7), ((-1, -0.5), 0), ((0.5, -1), 2)]
)
def test_bi_woof_knows_where_a_picture_goes(moves, bin):
    "Onset → apex, x right, y down; the strain of a shift is noise, so it only weighs the blocks."
    x = row_of(BiWOOF(size=64), faces(2, moves=moves)).astype(float)
    inner = x.reshape(5, 5, 8)[1:4, 1:4]
    assert (inner.argmax(2) == bin).mean() > .7


def test_bi_woof_of_the_release_is_centred_as_scaling_centres():
    image = picture((28, 28, 3), 5)
    row = torch.from_numpy(image.transpose(2, 0, 1)/np.float32(255))[None, :, None]
    centred = Scaling.by_clip(row)[0, :, 0].numpy()
    # its scale does not matter; fractions would be split at u = v by their rounding
    levels = (centred[:2]/abs(centred[:2])[centred[:2] != 0].min()).round()
    assert abs(levels).max() > 100 and np.allclose(BiWOOF().released(image), bi_woof(levels, centred[2]), atol=1e-3)
    lifted = image.astype(int)
    lifted[..., 0] = lifted[..., 0] // 2 + 60
    half = image.astype(int)
    half[..., 0] = half[..., 0] // 2
    # where the grey of "no motion" lies does not matter
    assert np.array_equal(BiWOOF().released(lifted.astype(np.uint8)), BiWOOF().released(half.astype(np.uint8)))


# ---- recipes

@pytest.mark.parametrize('recipe', RECIPES)
@pytest.mark.parametrize('size', [32, 47, 61, 128])
@pytest.mark.parametrize('frames', [2, 3, 11, 30])
def test_rows_have_their_shape_at_any_size_and_length(recipe, size, frames):
    r = recipe(size=size)
    x = row_of(r, faces(frames, size, (1, .3)))
    assert x.shape == r.shape('frames') and x.dtype == np.float16 and np.isfinite(x).all() and x.any()
    assert np.array_equal(x, row_of(r, faces(frames, size, (1, .3))))


def test_smallest_faces():
    assert row_of(FlowStrain(size=16), faces(2, 16)).shape == (3, 1, 28, 28) and row_of(
        BiWOOF(size=16), faces(2, 16)
    ).shape == (25, 8)
    assert row_of(LBPTOP(size=16), faces(2, 16)).shape == (25, 45)


@pytest.mark.parametrize('frames', [1, 2, 3, 8, 9, 10])
@pytest.mark.parametrize('length', [0, 9, 20])
def test_lbp_top_of_short_clips(frames, length):
    x = row_of(LBPTOP(size=32, frames=length), faces(frames, 32, (1, 0)))
    assert np.allclose(x.astype(float).reshape(25, 3, 15).sum(2), 1, atol=.01)


@pytest.mark.parametrize('grey', [0, .3, 1])
def test_frames_without_anything(grey):
    x = torch.full((12, 3, 40, 40), grey)
    ones = np.zeros((25, 45))
    ones[:, 13::15] = 1  # all neighbours as bright as the centre
    assert np.array_equal(row_of(LBPTOP(size=40), x), ones)
    for r in (BiWOOF(size=40), FlowStrain(size=40), FlowStrain(size=40, stretch=False)): assert not row_of(r, x).any()


def test_a_still_clip_has_nothing_in_time():
    "Frames that are all the same: before and after are ties, and only patterns with both bits set occur."
    x = row_of(LBPTOP(size=40), faces(1, 40).expand(20, -1, -1, -1))
    possible = {int(uniform_codes(4)[n | 0b1010]) for n in range(16)}
    assert x[:, :15].astype(bool).any(0).sum() > 10
    for start in (15, 30): assert set(np.flatnonzero(x[:, start:start + 15].any(0))) <= possible


def test_flow_and_strain_in_px():
    x = row_of(FlowStrain(size=64, stretch=False), faces(2, 64, (1.2, -.6))).astype(float)
    inner = x[:, 0, 6:-6, 6:-6]
    assert (np.median(inner[0]) == pytest.approx(1.2, abs=0.15) and np.median(inner[1]) == pytest.approx(-0.6, abs=0.15)
            and np.median(inner[2]) < 0.1)
    s = row_of(FlowStrain(size=64), faces(2, 64, (1.2, -.6))).astype(float)
    assert np.allclose(s, stretched(x), atol=2e-2)


@given(st.integers(0, 10**6), st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))
def test_stretching(seed, shape):
    x = np.random.default_rng(seed).normal(size=shape)
    s = stretched(x).numpy()
    assert s.min() >= 0 and s.max() <= 1 and np.isfinite(s).all()
    if x[0].size > 1:
        assert (s[0].min() == 0 and s[0].max() == 1
                and np.array_equal(np.argsort(s[0].ravel()), np.argsort(x[0].ravel())))
    assert np.allclose(stretched(5*x - 3), s)


@pytest.mark.parametrize('stretch', [True, False])
def test_released_images_pass_through_as_in_preprocess(stretch):
    image = picture((28, 28, 3), 2)
    r = FlowStrain(stretch=stretch)
    assert np.array_equal(r.released(image), PreprocessConfig().released(image)) and r.shape('flow28') == (3, 1, 28, 28)


def test_bad_settings():
    for make, says in [(lambda: LBPTOP(frames=8), 'at least 9'),
                       (lambda: LBPTOP(neighbours=(4, 4, 17)), 'neighbours: expected 3 whole numbers from 2 to 16'),
                       (lambda: LBPTOP(radii=(1, 1)), 'radii'), (lambda: LBPTOP(radii=(1, 1, 1.5)), 'radii'),
                       (lambda: LBPTOP(grid=(0, 5)), 'grid'), (lambda: LBPTOP(size=16, radii=(6, 6, 1)), '5×5 blocks'),
                       (lambda: LBPTOP(frames=2.5), 'whole'), (lambda: BiWOOF(flow='raft'), 'known: dis'),
                       (lambda: BiWOOF(flow='flownet2'), 'FlowNet2'), (lambda: BiWOOF(bins=1), 'directions'),
                       (lambda: FlowStrain(size=3), 'size'), (lambda: FlowStrain(flow='tvl2'), 'unknown flow')]:
        with pytest.raises(ValueError, match=says): make()
    for r in RECIPES:
        with pytest.raises(ValueError, match='as filmed'): next(r(size=32).features(faces(2, 32), [0, 1], 1, (0, 4)))
    with pytest.raises(ValueError, match='at least 9 frames'): lbp_top(picture((8, 20, 20)))
    with pytest.raises(ValueError, match='expected'): lbp_top(picture((20, 20)))


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = make_synth(tmp_path_factory.mktemp('few')/'synth', subjects=2, clips=6, size=48)
    table = pd.read_csv(root/'annotation.csv').assign(dataset='synth', input='frames')
    table['frames'] = [{int(p.stem[3:]): str(p) for p in sorted((root / 'frames' / c.subject / c.clip).iterdir())}
                       for c in table.itertuples()]
    return table


def with_noise(row, number, folder):
    "The clip with one of its frames replaced by noise."
    path, frames = folder/f'img{number}.png', dict(row['frames'])
    cv2.imwrite(str(path), picture(cv2.imread(frames[number]).shape, 1))
    frames[number] = str(path)
    out = row.copy()
    out['frames'] = frames
    return out


def test_which_frames_are_read(clips, tmp_path):
    row = clips.iloc[0]
    onset, apex, offset = (int(row[k]) for k in ('onset', 'apex', 'offset'))

    def changed(recipe, number):
        return not np.array_equal(clip_features(row, recipe), clip_features(with_noise(row, number, tmp_path), recipe))
    assert all(changed(LBPTOP(size=48), k) for k in (onset, onset + 2, apex, apex + 1, offset))
    for r in (BiWOOF(size=48), FlowStrain(size=48)):
        assert [changed(r, k) for k in (onset, apex, apex - 1, offset)] == [True, True, False, False]


def test_store_is_the_same_from_any_number_of_processes(clips, tmp_path):
    stores = [FeatureStore(tmp_path/str(n), LBPTOP(size=48)) for n in (1, 2)]
    for n, s in enumerate(stores, 1): s.ensure(clips, workers=n, progress=False)
    assert stores[0].table.data.read_bytes() == stores[1].table.data.read_bytes() and len(stores[0].F) == 6
