"""EMA-VFI: the numbers of the published program, its checkpoint format, and what must hold for any weights."""
import pickle

import numpy as np
import pytest
import torch
from golden.make_ema_vfi import CASES, FILE, draw, fill
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mpfnet.motion.ema_vfi import (
    EMAVFI,
    _size_of,
    as_time,
    attention_mask,
    cut,
    ema_vfi,
    interpolate_between,
    load_official,
    pad_to_32,
    paste,
    unpad,
)


@pytest.fixture(scope='module')
def golden(): return load_file(FILE)


@pytest.fixture(scope='module')
def narrow(): return fill(EMAVFI(8))


@pytest.fixture(scope='module')
def small(): return fill(ema_vfi('ours_small'))


def as_published(net):
    "The state dict as the authors save it: prefixed, with the masks of the last training image."
    state = {f'module.{k}': v for k, v in net.state_dict().items()}
    return state | {
        f'module.feature_bone.block{i}.1.{k}': torch.zeros(n) for i in (4, 5)
        for k, n in (('attn_mask', (9, 49, 49)), ('HW', 1))
    }


def pair(*shape, seed=0): return torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('case', CASES)
def test_draws_what_the_published_program_drew(golden, case):
    assert (draw(golden['frames'], case) - golden[case]).abs().max() <= 5e-5 # a GELU by its tanh formula is off by 8e-5


def test_golden_pictures_are_worth_comparing(golden):
    early, late = golden['small']
    assert early.std() > .1 and (early - late).abs().mean() > .01 and ((early > 0) & (early < 1)).float().mean() > .75
    assert (draw(golden['frames'].flip(0), 'small') - golden['small']).abs().mean() > .01
    assert FILE.stat().st_size < 150_000


def test_norms_have_the_published_epsilons():
    "Too small a difference for the pictures."
    eps = {n: m.eps for n, m in ema_vfi('ours', 'meta').named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert len(eps) == 2 * 8 + 2 + 2
    assert all(e == (1e-5 if 'patch_embed' in n else 1e-6) for n, e in eps.items())


@pytest.mark.parametrize('size,parameters,tensors', [('ours', 65_662_359, 266), ('ours_small', 14_489_815, 186)])
def test_official_sizes(size, parameters, tensors):
    net = ema_vfi(size, 'meta')
    assert sum(p.numel() for p in net.parameters()) == parameters and len(net.state_dict()) == tensors
    assert _size_of(net.state_dict()) == size
    some = dict(list(net.state_dict().items())[9:]) # still known without its first layers
    assert _size_of(some) == size


def test_every_weight_matters(narrow):
    net = fill(EMAVFI(8))
    net.requires_grad_(True)
    I0, I1 = pair(1, 3, 64, 128)
    ((net(I0, I1, .4) - pair(3, 64, 128, seed=1)[0])**2).sum().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4}
    # the offset of a coordinate's embedding cancels: motion is a mean of embeddings minus an embedding
    assert idle == {f'feature_bone.block{i}.{j}.attn.cor_embed.bias' for i in (4, 5) for j in (0, 1)}
    moved = fill(EMAVFI(8))
    with torch.no_grad(): moved.feature_bone.block4[0].attn.cor_embed.bias.add_(5)
    assert torch.allclose(moved(I0, I1, .4), narrow(I0, I1, .4), atol=1e-4)


@pytest.mark.parametrize(
    'name,form',
    [
        ('ours_small_t.pkl', 'zip'), ('ours_small_t.pkl', 'old'), ('bare.safetensors', 'safetensors'),
        ('half.pth', 'half'),
    ],
)
def test_loads_the_checkpoint(tmp_path, small, name, form):
    path, state = tmp_path / name, as_published(small)
    if form == 'safetensors': save_file(small.state_dict(), path)
    elif form == 'half': torch.save({k: v.half() for k, v in state.items()}, path)
    # a name without module. is not the network's
    else: torch.save(state | {'epoch': 3}, path, _use_new_zipfile_serialization=form == 'zip')
    net = load_official(path)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    for k, v in small.state_dict().items():
        assert torch.equal(net.state_dict()[k], v.half().float() if form == 'half' else v), k
    I0, I1 = pair(1, 3, 32, 32)
    if form != 'half': assert torch.equal(net(I0, I1, .3), small(I0, I1, .3))


@pytest.mark.parametrize(
    'change,complaint',
    [
        (lambda s: s.pop('module.unet.conv.bias'), 'unet.conv.bias is missing'),
        (lambda s: s.pop('module.feature_bone.block1.conv.0.weight'), 'feature_bone.block1.conv.0.weight is missing'),
        (lambda s: s.update({'module.unet.head.bias': torch.ones(3)}), 'unet.head.bias is not known'),
        (
            lambda s: s.update({'module.unet.conv.bias': torch.ones(4)}),
            r'unet.conv.bias has the shape \(4,\), expected \(3,\)',
        ),
        (lambda s: s.update({'module.step': 3}), 'expected a flat dict of tensors, but these are none: step'),
        (lambda s: s.clear(), '186 of 186 names do not fit'),
    ],
)
def test_refuses_weights_that_do_not_fit(tmp_path, small, change, complaint):
    state = as_published(small)
    change(state)
    torch.save(state, tmp_path / 'wrong.pkl')
    with pytest.raises(ValueError, match=complaint): load_official(tmp_path / 'wrong.pkl')


class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')


@pytest.mark.parametrize('write', [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x, 2))], ids=['torch', 'pickle'])
def test_refuses_a_pickle_that_does_something(tmp_path, small, write):
    write(as_published(small) | {'module.evil': Evil(tmp_path / 'ran')}, tmp_path / 'ours_t.pkl')
    with pytest.raises(ValueError, match='refused'): load_official(tmp_path / 'ours_t.pkl')
    assert not (tmp_path / 'ran').exists()


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(ValueError, match='no such file.*github.com/MCG-NJU/EMA-VFI'):
        load_official(tmp_path / 'ours_t.pkl')


@pytest.mark.parametrize('h,w', [(32, 32), (1, 1), (33, 95), (100, 140)])
def test_any_size(narrow, h, w):
    out = narrow(*pair(2, 3, h, w), .5)
    assert (out.shape == (2, 3, h, w) and out.dtype == torch.float32 and out.isfinite().all() and 0 <= out.min()
            and out.max() <= 1)


def test_batch_and_times_do_not_mix(narrow):
    I0, I1 = pair(3, 3, 40, 70)
    together = narrow(I0, I1, torch.tensor([.1, .5, .9]))
    for i, t in enumerate((0.1, 0.5, 0.9)):
        assert torch.allclose(together[i : i + 1], narrow(I0[i : i + 1], I1[i : i + 1], t), atol=1e-5)
    assert torch.allclose(narrow(I0.double(), I1.double(), np.float64(.1))[:1], together[:1], atol=1e-5)


def test_the_backbone_prefers_neither_frame(narrow):
    I0, I1 = pair(2, 3, 64, 64)
    for a, b in zip(sum(narrow.encode(I0, I1)[1:], []), sum(narrow.encode(I1, I0)[1:], [])):
        assert torch.allclose(a, b.flip(0), atol=1e-4)


def test_without_flow_mask_and_residual_it_is_the_mean():
    net = fill(EMAVFI(8))
    for p in (*net.block.parameters(), *net.unet.conv.parameters()): p.zero_()
    I0, I1 = pair(1, 3, 50, 60)
    assert torch.allclose(net(I0, I1, .2), (I0 + I1) / 2, atol=1e-5)


def test_frozen_records_nothing_and_unfrozen_learns(narrow):
    I0, I1 = pair(1, 3, 32, 32).requires_grad_(True)
    assert not narrow(I0, I1, .5).requires_grad
    assert fill(EMAVFI(8)).requires_grad_(True)(I0, I1, .5).requires_grad


def test_makes_no_tensor_on_another_device():
    "Stands in for a GPU: a tensor left on the CPU does not mix with those of the meta device."
    net = ema_vfi('ours', 'meta')
    I0, I1 = torch.empty(2, 1, 3, 60, 140, device='meta')
    frames, *features = net.encode(I0, I1)
    out = net.decode(frames, *features, torch.empty(1, 1, 1, 1, device='meta'))
    assert out.device.type == 'meta' and out.shape == (1, 3, 64, 160)
    assert attention_mask(9, 9, 3, 'meta').device.type == 'meta'


@pytest.mark.parametrize('I0,I1,t,complaint', [
    (torch.zeros(3, 32, 32), torch.zeros(3, 32, 32), .5, r'expected frames of one shape \(B, 3, H, W\)'),
    (torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32), .5, 'expected frames of one shape'),
    (torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32), .5, 'expected frames of one shape'),
    (torch.zeros(1, 3, 0, 32), torch.zeros(1, 3, 0, 32), .5, 'expected frames of one shape'),
    (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), .5, 'divide by 255'),
    (torch.full((1, 3, 32, 32), 200.), torch.zeros(1, 3, 32, 32), .5, 'found 200: divide by 255'),
    (torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), torch.nan), .5, 'look for the NaN'),
    (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), -.1, 'expected times from 0'),
    (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), float('nan'), 'expected times from 0'),
    (torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), torch.tensor([.5]), 'one for each of 2 pairs'),
])
def test_bad_input_is_explained(narrow, I0, I1, t, complaint):
    with pytest.raises(ValueError, match=complaint): narrow(I0, I1, t)


@pytest.mark.parametrize('length', [2, 3, 11])
def test_interpolate_between(narrow, length):
    onset, apex = pair(3, 36, 36)
    clip = interpolate_between(narrow, onset, apex, length)
    assert clip.shape == (length, 3, 36, 36) and clip.dtype == torch.float32 and not clip.requires_grad
    assert torch.equal(clip[0], onset) and torch.equal(clip[-1], apex)
    for i in {1, length - 2} - {0, length - 1}:
        assert torch.allclose(clip[i], narrow(onset[None], apex[None], i / (length - 1))[0], atol=1e-5)


def test_interpolate_between_needs_two_frames(narrow):
    with pytest.raises(ValueError, match='expected 2 or more'): interpolate_between(narrow, *pair(3, 32, 32), 1)
    with pytest.raises(ValueError, match='divide by 255'): interpolate_between(narrow, *(pair(3, 32, 32) * 255), 11)


sides = st.integers(1, 40)


@given(h=sides, w=sides, shift=st.sampled_from([0, 3]))
def test_windows_and_padding_are_undone(h, w, shift):
    x = torch.arange(2 * h * w).float().view(2, h, w, 1)
    assert torch.equal(paste(cut(x, shift), shift, h, w), x)
    y = x.permute(0, 3, 1, 2)
    assert all(n % 32 == 0 for n in pad_to_32(y).shape[2:]) and torch.equal(unpad(pad_to_32(y), h, w), y)


@given(h=sides, w=sides)
def test_who_may_look_at_whom(h, w):
    "Unshifted: image at image. Shifted: neighbours in the map only, where no padding disturbs."
    inside = cut(torch.ones(1, h, w, 1), 0)[0, :, :, 0].bool()
    mask = attention_mask(h, w, 0)[:, 0]
    assert (mask == -100).any() == bool(-h % 7 or -w % 7)
    assert (not mask[inside[:, :, None] & inside[:, None, :]].any()
            and (mask[inside[:, :, None] & ~inside[:, None, :]] == -100).all())
    H, W = h + -h % 7, w + -w % 7
    at = torch.stack(torch.meshgrid(torch.arange(H), torch.arange(W), indexing='ij'), -1)[None].float()
    at = cut(at, 3)[0]
    near = ((at[:, :, None] - at[:, None, :]).abs() < 7).all(-1)
    shifted = attention_mask(H, W, 3)[:, 0] == 0
    assert not (shifted & ~near).any()
    if H > 7 and W > 7: assert torch.equal(shifted, near)


@pytest.mark.parametrize(
    't', [0, 1, 0.25, np.float32(0.25), torch.tensor(0.25), torch.tensor([0.25, 1], dtype=torch.float64)]
)
def test_time_may_be_given_in_many_ways(t):
    got = as_time(t, torch.zeros(2, 3, 32, 32))
    assert (got.shape == (2, 1, 1, 1) and got.dtype == torch.float32 and got[0].item()
            == float(torch.as_tensor(t).reshape(-1)[0]))


