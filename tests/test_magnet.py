"""The learned magnifier against stored outputs, wrong and hostile checkpoints, and properties that hold with any
weights."""
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mpfnet.motion.magnet import MAGNET_VARIANTS, MagNet, load_official, magnify_frames, random_magnet

GOLDEN = load_file(Path(__file__).parent / 'golden' / 'magnet.safetensors')
CASES = sorted({k.split('.')[0] for k in GOLDEN})


@pytest.fixture(scope='module')
def net(): return random_magnet(3)  # the seed of golden/make_magnet.py


@pytest.fixture(scope='module')
def small(): return random_magnet(0, width=8, n_blocks=1)


def case(name):
    "A, B, α, magnified B."
    return [GOLDEN[f'{name}.{k}'].float() for k in ('A', 'B', 'alpha', 'magnified')]


def pair(h, w, n=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.rand(n, 3, h, w, generator=g)
    return a, (a + .1 * torch.randn(a.shape, generator=g)).clamp(0, 1)


def saved(path, content):
    save_file(content, path) if path.suffix == '.safetensors' else torch.save(content, path)
    return path


@pytest.mark.parametrize('name', CASES)
def test_equals_the_stored_output(net, name):
    a, b, alpha, expected = case(name)
    assert (net(a, b, alpha) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize('name', CASES)
def test_the_stored_output_is_not_trivial(net, name):
    "It varies, is hardly clipped, and another factor, another frame A and another texture would be noticed."
    a, b, alpha, expected = case(name)
    assert expected.std() > .05 and ((expected <= 0) | (expected >= 1)).float().mean() < .05
    for other in (net(a, b, alpha - 1), net(b, b, alpha), net(a, a, alpha)): assert (other - expected).abs().max() > .02


def test_every_weight_counts():
    "No tensor is loaded and then not used: one per cent more in any of them shows in the output."
    a, b, alpha, expected = case('even')
    net = random_magnet(3)
    for name, w in net.state_dict().items():
        w.mul_(1.01)
        assert (net(a, b, alpha) - expected).abs().max() > 3e-4, name
        w.div_(1.01)
    assert (net(a, b, alpha) - expected).abs().max() <= 1e-4


def test_published_size():
    tensors = MagNet().to('meta').state_dict()
    assert (len(tensors), sum(t.numel() for t in tensors.values())) == (42, 877_968)
    assert MAGNET_VARIANTS[MagNet.variant]['parameters'] == 877_968
    assert len({tuple(v) for v in MAGNET_VARIANTS.values()}) == 1, 'every network is described by the same rows'


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('suffix, key', [('.pth', ''), ('.pth', 'state_dict'), ('.pth', 'model'), ('.safetensors', '')])
def test_accepted_checkpoints(tmp_path, net, suffix, prefix, key):
    state = {prefix + k: v for k, v in net.state_dict().items()}
    loaded = load_official(saved(tmp_path / f'weights{suffix}', {key: state, 'epoch': 12} if key else state))
    assert all(torch.equal(w, net.state_dict()[k]) for k, w in loaded.state_dict().items())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_half_precision_is_read_as_float32(tmp_path, net):
    loaded = load_official(saved(tmp_path / 'half.pth', {k: v.half() for k, v in net.state_dict().items()}))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_wrong_weights_are_listed(tmp_path, net):
    state = net.state_dict()
    gone, shape = 'manipulator.g.conv2d.weight', 'decoder.cba_2.conv2d.weight'
    wrong = {k: v for k, v in state.items() if k != gone} | {
        shape: state[shape][..., 1:, :], 'encoder.extra': torch.ones(1),
    }
    with pytest.raises(ValueError) as e: load_official(saved(tmp_path / 'wrong.pth', wrong))
    for text in (f'{gone} is missing', 'encoder.extra is not known',
                 f'{shape} has the shape (3, 32, 6, 7), expected (3, 32, 7, 7)', '3 of 42', 'wrong.pth'):
        assert text in str(e.value)


def test_other_networks_of_the_same_name_are_recognised(tmp_path):
    with pytest.raises(ValueError, match='postech-ami'):
        load_official(
            saved(tmp_path / 'lab.tar', {'model_state_dict': {'module.res_manipulator.conv1.weight': torch.ones(1)}})
        )
    for name in ('x-1000.index', 'x-1000.meta', 'x-1000.data-00000-of-00001'):
        (tmp_path / name).write_bytes(b'TF')
        with pytest.raises(ValueError, match='TensorFlow'): load_official(tmp_path / name)


@pytest.mark.parametrize(
    'content',
    [
        {}, {'epoch': 12}, {'state_dict': 5}, {'state_dict': {}}, {'state_dict': {1: torch.ones(1)}},
        {'manipulator.g.conv2d.weight': 1.0},
    ],
    ids=str,
)
def test_what_holds_no_weights(tmp_path, content):
    with pytest.raises(ValueError, match='expected tensors by name.*published at'):
        load_official(saved(tmp_path / 'x.pth', content))


def test_half_prefixed_names_are_not_merged(tmp_path, net):
    state = net.state_dict()
    both = state | {'module.' + k: v + 1 for k, v in state.items()}
    with pytest.raises(ValueError, match='module.encoder.cba_1.conv2d.weight is not known'):
        load_official(saved(tmp_path / 'both.pth', both))


class Evil:
    def __init__(self, marker): self.marker = str(marker)
    def __reduce__(self): return os.mkdir, (self.marker,)


@pytest.mark.parametrize('old', [False, True])
def test_a_program_in_a_checkpoint_is_refused(tmp_path, net, old):
    torch.save(net.state_dict() | {'extra': Evil(tmp_path / 'ran')}, tmp_path / 'evil.pth',
               _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match='refused'): load_official(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_missing_file_says_where_it_is_published(tmp_path):
    with pytest.raises(ValueError, match='no such file.*ZhengPeng7'): load_official(tmp_path / 'none.pth')


@settings(max_examples=25)
@given(st.integers(5, 40), st.integers(5, 40), st.integers(1, 3), st.floats(-50, 100))
def test_any_size_and_factor(h, w, n, alpha):
    net = random_magnet(0, width=4, n_blocks=1)
    out = net(*pair(h, w, n), alpha)
    assert out.shape == (n, 3, h, w) and out.dtype == torch.float32 and out.min() >= 0 and out.max() <= 1


def test_no_motion_is_no_motion_at_any_factor(net):
    a, _ = pair(36, 44)
    assert torch.equal(net(a, a, 2), net(a, a, 14))


def test_factor_zero_forgets_the_onset(small):
    a, b = pair(36, 44)
    assert torch.equal(small(a, b, 0), small(b, b, 5)) and not torch.equal(small(a, b, 1), small(b, b, 5))


def test_added_shape_is_proportional_to_the_factor(net):
    (_, a), (_, b) = map(net.encode, pair(36, 44))
    one = net.manipulator(a, b, 1.) - b
    assert one.abs().mean() > .1
    assert torch.allclose(net.manipulator(a, b, 14.) - b, 14 * one, atol=1e-4, rtol=1e-4)


def test_a_factor_for_each_frame(small):
    a, b = pair(20, 24, 3)
    together = small(a, b, torch.tensor([1., 5., 14.]))
    for i, k in enumerate((1, 5, 14)):
        assert torch.allclose(together[i : i + 1], small(a[i : i + 1], b[i : i + 1], k), atol=1e-5)


def test_pixels_stay_where_they_were(small):
    "Cutting a row and a column off, below and to the right, changes the picture near that border only."
    a, b = pair(96, 96)
    whole, part = small(a, b, 3), small(a[..., :95, :95], b[..., :95, :95], 3)
    assert torch.allclose(whole[..., :8, :8], part[..., :8, :8], atol=1e-6) and not torch.allclose(
        whole[..., -8:-1, -8:-1], part[..., -7:, -7:], atol=1e-3
    )


def test_gradients(small):
    a, b = pair(16, 16)
    assert not small(a.requires_grad_(), b, 2).requires_grad
    learning = random_magnet(0, width=8, n_blocks=1).train().requires_grad_(True)
    learning(a.detach(), b, 2).sum().backward()
    assert all(p.grad is not None for p in learning.parameters())


@pytest.mark.parametrize('a, b, alpha, says', [
    (torch.rand(1, 3, 8, 8) * 255, torch.rand(1, 3, 8, 8), 2, 'divide bytes by 255'),
    (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9), 2, 'the same shape'),
    (torch.rand(3, 8, 8), torch.rand(3, 8, 8), 2, r'\(B, 3, H, W\)'),
    (torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), 2, r'\(B, 3, H, W\)'),
    (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 8, 8), 2, 'floating-point'),
    (torch.full((1, 3, 8, 8), float('nan')), torch.rand(1, 3, 8, 8), 2, r'in \[0, 1\]'),
    (torch.rand(1, 3, 4, 8), torch.rand(1, 3, 4, 8), 2, '5×5'),
    (torch.rand(0, 3, 8, 8), torch.rand(0, 3, 8, 8), 2, 'at least one frame'),
    (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), [1., 2., 3.], 'alpha'),
    (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), [[1.], [2.]], 'alpha'),
    (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), float('inf'), 'alpha'),
])
def test_bad_input(small, a, b, alpha, says):
    with pytest.raises(ValueError, match=says): small(a, b, alpha)


@pytest.mark.parametrize('sizes', [dict(width=7), dict(width=0), dict(n_blocks=-1)], ids=str)
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match='even width'): MagNet(**sizes)


def test_magnify_frames(small):
    frames = torch.cat(pair(21, 26, 3))
    out = magnify_frames(small, frames, [2, 8])
    assert out.shape == (2, 6, 3, 21, 26) and out.dtype == torch.float32
    assert torch.equal(out[0, 0], out[1, 0]), 'the onset does not depend on the factor'
    for k, copy in zip((2, 8), out):
        assert torch.allclose(copy, small(frames[:1].expand(6, -1, -1, -1), frames, k), atol=1e-5)
    assert torch.allclose(magnify_frames(small, frames, torch.tensor([2, 8]), batch=4), out, atol=1e-5)
    assert torch.allclose(magnify_frames(small, frames.double(), [2, 8]), out, atol=1e-5)
    assert magnify_frames(small, frames[:1], [2]).shape == (1, 1, 3, 21, 26)
    for bad in ([], [float('nan')]):
        with pytest.raises(ValueError): magnify_frames(small, frames, bad)
