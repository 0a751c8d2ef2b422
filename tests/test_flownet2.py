"""FlowNet2 against stored numbers, and against files that are not its checkpoint."""
import os
import pickle

import pytest
import torch
from golden.make_flownet2 import PATH, answers, frames
from safetensors.torch import load_file, save_file

from mpfnet.motion.flownet2 import FlowNet2, correlate, flow_between, load_official, random_init, resample

WIDTH = 1/16
COUNTS = {'flownetc': (39_175_298, 48), 'flownets_1': (38_695_322, 42), 'flownets_2': (38_695_322, 42),
          'flownets_d': (45_371_666, 60), 'flownetfusion': (581_226, 28)}


@pytest.fixture(scope='module')
def net(): return random_init(WIDTH, seed=0)


@pytest.fixture(scope='module')
def golden(): return load_file(PATH)


@pytest.fixture(scope='module')
def pair(golden): return frames(golden['blocks'])


def save(path, state, **more):
    "A file laid out like the published one, in the old format that it has."
    torch.save({'arch': 'FlowNet2', 'epoch': 0, 'best_EPE': 1.5, 'state_dict': state, **more}, path,
               _use_new_zipfile_serialization=False)
    return path


def test_answers_are_the_stored_ones(net, golden):
    found = answers(net, golden['blocks'])
    assert {*found, 'blocks'} == {*golden}
    off = {k: (f - golden[k]).abs().max().item() for k, f in found.items()}
    assert max(off.values()) <= 1e-4, off


def test_the_stored_answers_are_not_trivial(golden):
    for k, f in golden.items():
        if k != 'blocks': assert f.isfinite().all() and f.std((-1, -2)).min() > .1, k


def test_the_stored_case_has_negative_correlations(net, pair):
    "Without one, the leaky ReLU behind the correlation could go missing unnoticed."
    seen = []
    hook = net.flownetc.conv3_1.register_forward_pre_hook(lambda m, i: seen.append(i[0][:, -441:]))
    net(*pair)
    hook.remove()
    assert seen[0].min() < -1e-4 and seen[0].max() > 1e-2


def test_official_counts():
    with torch.device('meta'): full = FlowNet2()
    count = lambda m: (sum(p.numel() for p in m.parameters()), len(m.state_dict()))
    assert {k: count(m) for k, m in full.named_children()} == COUNTS
    assert count(full) == (162_518_834, 220)


def test_official_names_and_shapes():
    "One name of each kind."
    with torch.device('meta'): shapes = {k: tuple(t.shape) for k, t in FlowNet2().state_dict().items()}
    expected = {'flownetc.conv_redir.0.weight': (32, 256, 1, 1), 'flownetc.conv3_1.0.weight': (256, 473, 3, 3),
                'flownetc.upsampled_flow6_to_5.bias': (2,), 'flownets_1.conv1.0.weight': (64, 12, 7, 7),
                'flownets_2.deconv2.0.weight': (386, 64, 4, 4), 'flownets_d.inter_conv5.0.weight': (512, 1026, 3, 3),
                'flownets_d.predict_flow2.weight': (2, 64, 3, 3), 'flownetfusion.inter_conv0.0.weight': (16, 82, 3, 3),
                'flownetfusion.deconv0.0.bias': (16,)}
    assert {k: shapes.get(k) for k in expected} == expected
    assert not [k for k in shapes if k.startswith('flownets_') and 'd.' not in k and 'upsampled' in k
                and k.endswith('bias')]


@pytest.mark.parametrize('layout', ['published', 'new', 'flat', 'safetensors'])
def test_loads_what_was_saved(net, pair, tmp_path, layout):
    state = net.state_dict()
    path = tmp_path / ('w.safetensors' if layout == 'safetensors' else 'w.pth.tar')
    if layout == 'published': save(path, state)
    elif layout == 'new': torch.save({'state_dict': state}, path)
    elif layout == 'flat': torch.save(state, path)
    else: save_file(state, path)
    loaded = load_official(path, width=WIDTH)
    assert torch.equal(loaded(*pair), net(*pair))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32} and {
        p.device.type for p in loaded.parameters()
    } == {'cpu'}


def test_a_checkpoint_that_does_not_fit_says_what_differs(net, tmp_path):
    state = net.state_dict()
    key, other = 'flownetc.conv1.0.weight', 'flownets_d.predict_flow2.bias'
    for change, said in [({k: v for k, v in state.items() if k != key}, f'{key} is missing'),
                         (state | {'flownetc.conv1.1.weight': torch.ones(4)}, 'flownetc.conv1.1.weight is not known'),
                         (state | {other: torch.ones(3)}, rf'{other} has the shape \(3,\), expected \(2,\)'),
                         ({f'module.{k}': v for k, v in state.items()}, '440 of 220 names'), ({}, 'state_dict'),
                         (state | {key: 3}, 'dict of tensors')]:
        with pytest.raises(ValueError, match=said) as e:
            load_official(save(tmp_path / 'w.pth.tar', change), width=WIDTH)
        assert 'NVIDIA/flownet2-pytorch' in str(e.value) and 'w.pth.tar' in str(e.value)


def test_the_small_network_is_not_taken_for_the_official_one(net, tmp_path):
    with pytest.raises(ValueError,
                       match=r'flownetc.conv1.0.weight has the shape \(4, 3, 7, 7\), expected \(64, 3, 7, 7\)'):
        load_official(save(tmp_path / 'w.pth.tar', net.state_dict()))


def test_a_pickle_that_runs_a_program_is_refused(net, tmp_path):
    class Evil:
        def __reduce__(self): return os.system, (f'touch "{tmp_path}/ran"',)
    save(tmp_path / 'evil.pth.tar', net.state_dict(), best_EPE=Evil())
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps({'state_dict': Evil()}, protocol=2))
    for name in ('evil.pth.tar', 'evil.pkl'):
        with pytest.raises(ValueError, match='refused'): load_official(tmp_path / name, width=WIDTH)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('h,w', [(64, 64), (100, 140), (63, 65), (1, 5), (128, 64)])
def test_any_size(net, h, w):
    I0, I1 = 255*torch.rand(2, 2, 3, h, w, generator=torch.Generator().manual_seed(0))
    flow = net(I0, I1)
    assert flow.shape == (2, 2, h, w) and flow.dtype == torch.float32 and flow.isfinite().all()
    assert torch.allclose(flow[1:], net(I0[1:], I1[1:]), atol=1e-4)


def test_both_frames_and_every_part_matter(net, pair):
    I0, I1 = pair
    flow = net(I0, I1)
    assert (net(I1, I0) - flow).abs().mean() > .1 and (net(I0, I0) - flow).abs().mean() > .01
    for name, part in net.named_children():
        hook = part.register_forward_hook(lambda m, i, o: o + .5)
        assert (net(I0, I1) - flow).abs().mean() > 1e-3, name
        hook.remove()
    assert torch.equal(net(I0, I1), flow)


def test_brightness_of_both_frames_does_not_matter(net, pair):
    I0, I1 = pair
    assert torch.allclose(net(I0 + 30, I1 + 30), net(I0, I1), atol=1e-3)
    assert not torch.allclose(net(I0 + 30, I1), net(I0, I1), atol=.05)


def test_flow_between_scales(net, pair):
    I0, I1 = pair
    assert torch.allclose(flow_between(net, I0/255, I1/255), net(I0, I1), atol=1e-3)
    assert not torch.allclose(flow_between(net, I0/255, I1/255), net(I0/255, I1/255), atol=.05)
    for wrong in (I0, I0.byte()):
        with pytest.raises(ValueError, match=r'floats in \[0, 1\]'): flow_between(net, wrong, wrong)


@pytest.mark.parametrize('A,B', [((1, 3, 64, 64), (1, 3, 64, 65)), ((1, 1, 64, 64),)*2, ((3, 64, 64),)*2])
def test_frames_of_a_wrong_shape(net, A, B):
    with pytest.raises(ValueError, match=r'one shape \(B, 3, H, W\)'): net(torch.zeros(A), torch.zeros(B))


def test_warp_by_whole_pixels_and_beyond_the_border():
    image = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    move = lambda x, y: torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    assert torch.equal(resample(image, move(0, 0)), image)
    assert torch.equal(resample(image, move(2, -1))[..., 1:, :-2], image[..., :-1, 2:])
    assert torch.equal(resample(image, move(-99, 0)), image[..., :1].expand_as(image))
    assert torch.equal(resample(image, move(1e30, 1e30)), image[..., -1:, -1:].expand_as(image))
    assert resample(image, move(float('nan'), 0)).isnan().all()


def test_correlation_by_loops():
    a, b = torch.randn(2, 1, 5, 7, 6, generator=torch.Generator().manual_seed(0))
    found = correlate(a, b)
    assert found.shape == (1, 441, 7, 6)
    for y, x, j, i in [(0, 0, 10, 10), (3, 2, 9, 11), (6, 5, 8, 8), (2, 1, 12, 12), (4, 4, 0, 10), (0, 5, 10, 11)]:
        y2, x2 = y + 2*(j - 10), x + 2*(i - 10)
        expected = (sum(a[0, c, y, x] * b[0, c, y2, x2] for c in range(5)) / 5 if 0 <= y2 < 7
                    and 0 <= x2 < 6 else torch.tensor(0.0))
        assert abs(found[0, 21*j + i, y, x] - expected) < 1e-6
