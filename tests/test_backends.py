"""The back ends of interpolation, flow and magnification: checkpoints by path, packages that are not there, devices,
batches, recorded frames."""
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.core.workers import one_thread
from mpfnet.motion import flow as flow_module
from mpfnet.motion import flownet2, magnet
from mpfnet.motion.checkpoints import loaded
from mpfnet.motion.ema_vfi import EMAVFI, ema_vfi
from mpfnet.motion.flow import CHUNK, COLOUR, FLOWS, flow, gray, ilk, warp
from mpfnet.motion.flow import LEARNED as LEARNED_FLOWS
from mpfnet.motion.interpolate import (
    INTERPOLATORS,
    by_flow,
    interpolate,
    sample_recorded,
    time_weights,
)
from mpfnet.motion.interpolate import (
    LEARNED as LEARNED_INTERPOLATORS,
)
from mpfnet.motion.magnify import LEARNED as LEARNED_MAGNIFIERS
from mpfnet.motion.magnify import MAGNIFIERS, magnify

REGISTRIES = [(FLOWS, LEARNED_FLOWS), (INTERPOLATORS, LEARNED_INTERPOLATORS), (MAGNIFIERS, LEARNED_MAGNIFIERS)]


def picture(*shape, seed=0):
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(x.reshape(-1, *shape[-3:]), 3, 1, 1).reshape(shape)


@pytest.mark.parametrize('known, learned', REGISTRIES, ids=['flow', 'interpolate', 'magnify'])
def test_registries(known, learned):
    assert set(learned) < set(known) and COLOUR <= set(FLOWS)
    for says in learned.values(): assert 'published at https://' in says


@pytest.mark.parametrize(
    'call',
    [
        lambda: flow(picture(3, 24, 24), picture(3, 24, 24), 'flownet2'),
        lambda: interpolate(picture(3, 24, 24), picture(3, 24, 24), 5, 'ema_vfi'),
        lambda: magnify(picture(2, 3, 24, 24), 2, 'magnet'),
    ],
    ids=['flow', 'interpolate', 'magnify'],
)
def test_a_learned_back_end_without_weights_says_which_file(call):
    with pytest.raises(ValueError, match=r'expects weights=PATH .* published at https://.*Without weights: [a-z]+, '):
        call()


def test_checkpoints_by_path(tmp_path):
    "The official sizes of the two smaller networks; the file is read once."
    clip = picture(2, 3, 40, 40)
    own = magnet.random_magnet(1)
    torch.save(own.state_dict(), tmp_path / 'm.pth')
    with one_thread():
        assert torch.equal(magnify(clip, [2, 5], 'magnet', weights=tmp_path / 'm.pth'),
                           magnet.magnify_frames(own, clip, [2, 5]))
        assert loaded(magnet.load_official, tmp_path / 'm.pth') is loaded(magnet.load_official, str(tmp_path / 'm.pth'))
        torch.manual_seed(0)
        small = ema_vfi('ours_small').eval().requires_grad_(False)
        torch.save({f'module.{k}': v for k, v in small.state_dict().items()}, tmp_path / 'ours_small_t.pkl')
        frames = interpolate(*clip, 4, 'ema_vfi', weights=str(tmp_path / 'ours_small_t.pkl'))
        assert torch.allclose(frames[1], small(clip[:1], clip[1:], 1 / 3)[0], atol=1e-5) and torch.equal(
            frames[[0, -1]], clip
        )


def test_flownet2_by_path(tmp_path, monkeypatch):
    "A small network in place of the official one, whose file has 620 MB."
    net, (a, b) = flownet2.random_init(seed=2), picture(2, 5, 3, 64, 64)
    torch.save({'state_dict': net.state_dict()}, tmp_path / 'f.pth.tar')
    monkeypatch.setattr(flow_module, 'load_official', lambda path: flownet2.load_official(path, width=1/16))
    with one_thread(): found = flow(a, b, 'flownet2', weights=tmp_path / 'f.pth.tar')
    assert torch.allclose(found, flownet2.flow_between(net, a, b), atol=1e-4) and found.abs().max() > .1
    assert torch.allclose(flow(a, b, 'flownet2', weights=net, batch=2), found, atol=1e-4)


def test_learned_flow_inside_other_steps():
    "`flow_weights` reaches the flow that interpolation and magnification ask for."
    net, (a, b) = flownet2.random_init(), picture(2, 3, 64, 64)
    assert torch.equal(by_flow(a, b, torch.tensor([0.5]), flow_method='flownet2', flow_weights=net)[0],
                       interpolate(a, b, 3, flow_method='flownet2', flow_weights=net)[1])
    assert magnify(torch.stack([a, b]), 2, flow_method='flownet2', flow_weights=net).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match='flownet2 expects weights=PATH'): interpolate(a, b, 3, flow_method='flownet2')


@pytest.mark.parametrize(
    'module, call, says',
    [
        (
            'skimage.registration', lambda: flow(picture(3, 24, 24), picture(3, 24, 24), 'tvl1'),
            'pip install scikit-image',
        ),
        ('pyrtools.pyramids', lambda: magnify(picture(2, 3, 24, 24), 2, 'phase'), r"pip install 'mpfnet\[phase\]'"),
    ],
    ids=['tvl1', 'phase'],
)
def test_a_missing_package_is_named(monkeypatch, module, call, says):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=says): call()


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(16, 50), st.integers(16, 50), st.integers(1, 4))
def test_ilk_does_not_depend_on_its_pieces(n, h, w, at_once):
    a, b = picture(2, n, 1, h, w, seed=n)
    with pytest.MonkeyPatch.context() as patch, one_thread():
        whole = ilk(a, b)
        patch.setitem(CHUNK, 'cpu', at_once*h*w)
        assert torch.equal(ilk(a, b), whole)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 3), max_size=2), st.sampled_from([m for m in FLOWS if m not in LEARNED_FLOWS]),
       st.sampled_from([1, 3]))
def test_flow_keeps_leading_sizes(lead, method, channels):
    a, b = picture(2, *lead, channels, 24, 20)
    with one_thread(): found, swapped = flow(a, b, method), flow(a.numpy(), b.numpy(), method)
    assert found.shape == (*lead, 2, 24, 20) and found.dtype == torch.float32 and torch.equal(found, swapped)


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic', 'spline'])
def test_warp_moves_by_whole_pixels_and_repeats_the_border(mode):
    image = picture(3, 16, 20)
    move = torch.tensor([3., -2.]).view(2, 1, 1).expand(2, 16, 20)
    moved = warp(image, move, mode)
    assert torch.allclose(moved[:, 2:, :-3], image[:, :-2, 3:], atol=1e-4)
    assert torch.allclose(moved[:, :2, :-3], image[:, :1, 3:].expand(-1, 2, -1), atol=.05)
    assert torch.allclose(
        warp(image, move[None].expand(4, -1, -1, -1), mode), moved.expand(4, -1, -1, -1), atol=1e-6
    ), 'one image, four flows'


@pytest.mark.parametrize('shape', [(16, 16), (33, 40), (47, 61)])
def test_phase_gives_back_what_does_not_move(shape):
    clip = picture(1, 3, *shape).expand(3, -1, -1, -1)
    out = magnify(clip, [2, 14], 'phase')
    assert (out.shape == (2, 3, 3, *shape) and out.dtype == torch.float32
            and torch.allclose(out, clip.expand(2, -1, -1, -1, -1), atol=1e-4))


@settings(max_examples=40)
@given(st.lists(st.floats(.01, 5), min_size=1, max_size=40), st.integers(2, 20), st.floats(-100, 100))
def test_recorded_frames_keep_steady_motion(gaps, length, start):
    """Whatever the times: weights are a mean, its mean time is the wanted one, the ends are the ends, and early frames
    do not enter late ones."""
    times = start + torch.tensor([0, *gaps], dtype=torch.float64).cumsum(0)
    w, at = time_weights(times, length), torch.linspace(float(times[0]), float(times[-1]), length, dtype=torch.float64)
    assert ((w >= -1e-12).all() and torch.allclose(w.sum(1), torch.ones(length, dtype=torch.float64))
            and torch.allclose(w @ times, at, atol=1e-5))
    assert w[0, 0] == 1 and w[-1, -1] == 1
    reach = (at[1] - at[0]) + max(gaps) + 1e-6
    assert not w[(at[:, None] - times).abs() > reach].any()


def test_recorded_frames():
    torch.manual_seed(0)
    frames = torch.rand(7, 3, 9, 8)
    out = sample_recorded(frames, [10, 11, 12, 14, 15, 16, 17], 20)
    assert out.shape == (20, 3, 9, 8) and out.dtype == torch.float32 and torch.equal(out[[0, -1]], frames[[0, -1]])
    assert torch.equal(sample_recorded(frames.numpy(), torch.arange(7), 5), sample_recorded(frames, range(7), 5))
    assert torch.equal(sample_recorded(frames[:2], [0, 3], 2), frames[:2])
    noise = sample_recorded(.5 + .01*torch.randn(60, 3, 32, 32), range(60), 11) - .5
    assert noise[1:-1].std() < .6*noise[[0, -1]].std(), 'a fast camera is rid of noise'


def test_uneven_times_are_refused_by_the_network():
    with pytest.raises(ValueError, match='even times'):
        INTERPOLATORS['ema_vfi'](*picture(2, 3, 32, 32), torch.tensor([0.2, 0.9]), weights=EMAVFI(8))


def test_luminance_and_colour():
    a, b = picture(2, 3, 64, 64)
    assert torch.equal(flow(a, b), flow(gray(a), gray(b)))
    net = flownet2.random_init()
    assert not torch.allclose(flow(a, b, 'flownet2', weights=net), flow(gray(a), gray(b), 'flownet2', weights=net),
                              atol=1e-3)
