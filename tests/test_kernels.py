"""Our own kernels against PyTorch's operations. Triton's interpreter runs them number by number on CPU tensors; its
compiler turns them into code for a GPU without one. Where a GPU is, they run on it."""
import copy
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mpfnet.ca_i3d import CAI3D, EncoderConfig
from mpfnet.core import kernels
from mpfnet.core.kernels import Kernel, attended, check_kernels, max_pool, norm_relu, use_kernels
from mpfnet.train import ComputeConfig, SGDConfig, forward_of

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
runs = pytest.mark.skipif(not find_spec('triton'),
                          reason='needs the package triton: pip install --no-deps triton==3.9.0')
few = settings(max_examples=5, derandomize=True, phases=[Phase.generate])
SMALL = EncoderConfig(width=.0625, embedding=8, grid=(1, 2, 2))


@pytest.fixture(autouse=True)
def rounded(monkeypatch):
    "The interpreter cuts bfloat16 off where a GPU rounds: so it is given float32, and what it writes is rounded here."
    launch = Kernel.__call__

    def wide(a):
        return (torch.empty_strided(a.shape, a.stride(), dtype=torch.float32).copy_(a) if torch.is_tensor(a) and a.dtype
                == torch.bfloat16 else a)
    def interpreted(self, programs, *args, **sizes):
        given = [wide(a) for a in args]
        launch(self, programs, *given, **sizes)
        for a, b in zip(args, given):
            if a is not b: a.data.copy_(b)
    if DEVICE == 'cpu': monkeypatch.setattr(Kernel, '__call__', interpreted)


def furthest(mine, its):
    "The largest difference, relative to the largest number of its tensor; NaN if there is one."
    return float(
        torch.stack(
            [
                (a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-6)
                for a, b in zip(mine, its, strict=True)
            ]
        ).max()
    )


def norms(*channels):
    found = [nn.BatchNorm3d(c).to(DEVICE) for c in channels]
    for n in found:
        for p in n.parameters(): nn.init.normal_(p)
    return found


def plain(x, *norms): return [F.relu(n(part)) for n, part in zip(norms, x.split([n.num_features for n in norms], 1))]


def trained(f, x, norms, weights):
    "Maps, gradients and running averages after a forward and a backward pass."
    x, norms = x.detach().clone().requires_grad_(), copy.deepcopy(norms)
    y = f(x, *norms)
    sum((v * w.split([n.num_features for n in norms], 1)[i]).sum()
        for i, (v, w) in enumerate(zip(y, [weights] * len(y)))).backward()
    return [
        *y, x.grad,
        *(v for n in norms for v in (n.weight.grad, n.bias.grad, n.running_mean, n.running_var, n.num_batches_tracked)),
    ]


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 6), st.integers(3, 6))


@runs
@few
@given(sizes, st.lists(st.sampled_from([4, 5, 12, 68]), min_size=1, max_size=3), st.booleans(),
       st.sampled_from([torch.float32, torch.bfloat16]))
def test_norm_and_relu(size, channels, last, dtype):
    torch.manual_seed(0)
    b, *axes = size
    x, w = (
        torch.randn(b, sum(channels), *axes, device=DEVICE).to(dtype, memory_format=torch.channels_last_3d
                                                               if last else torch.contiguous_format)
        for _ in range(2)
    )
    with torch.no_grad(): x.mul_(2).add_(3)
    mine, its = (trained(f, x, norms_, w) for norms_ in [norms(*channels)] for f in (norm_relu, plain))
    assert furthest(mine, its) < (2e-4 if dtype == torch.float32 else .05)
    assert [y.dtype for y in mine[:len(channels)]] == len(channels)*[dtype]


@runs
def test_a_slice_of_channels_is_read_where_it_lies():
    "And its gradient comes from a slice, too."
    torch.manual_seed(0)
    wide = torch.randn(2, 20, 2, 3, 5, device=DEVICE).to(memory_format=torch.channels_last_3d)
    x, norm = wide[:, 4:16], norms(12)
    pairs = []
    for f in (norm_relu, plain):
        part = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(
            torch.cat([*f(part, *copy.deepcopy(norm)), part], 1).mul(wide.repeat(1, 2, 1, 1, 1)[:, :24]).sum(), part
        )
        pairs.append([g])
    assert kernels.rows(x).data_ptr() == x.data_ptr() and furthest(*pairs) < 1e-5


@runs
def test_many_stretches_and_a_large_mean(monkeypatch):
    "Where E[x²] − E[x]² has no digits left."
    # three tiles each, the last one short
    monkeypatch.setattr(kernels, 'stretches', lambda n, high: (3*high, -(-n//(3*high))))
    monkeypatch.setattr(kernels, 'tile', lambda n, c, area=0: (dict(R=16, CB=4), (-(-n//16), -(-c//4))))
    x, norm = 1e4 + torch.randn(3, 6, 2, 5, 4, dtype=torch.double), nn.BatchNorm3d(6)
    y, stats = kernels.normed(kernels.rows(x.float()).to(DEVICE), norm.to(DEVICE))
    exact = kernels.rows(x.float()).double()
    assert torch.allclose(stats[0].cpu().double(), exact.mean(0), rtol=1e-6) and torch.allclose(
        stats[1].cpu().double(), (exact.var(0, correction=0) + 1e-5).rsqrt(), rtol=1e-3
    )


@runs
def test_not_a_number_stays_one():
    x = torch.randn(2, 4, 1, 3, 3, device=DEVICE)
    x[0, 1, 0, 0, 0] = float('nan')
    y, = norm_relu(x, *norms(4))
    assert y[:, 1].isnan().all() and not y[:, [0, 2, 3]].isnan().any() and max_pool(x)[0, 1].isnan().sum() == 4


@runs
@few
@given(sizes, st.sampled_from([4, 9]), st.sampled_from([(1, 1), (1, 2), (3, 1)]),
       st.sampled_from([torch.float32, torch.bfloat16]))
def test_max_pools(size, c, window, dtype):
    "The very same numbers, whichever of equal ones PyTorch takes."
    torch.manual_seed(0)
    (b, *axes), (depth, stride) = size, window
    x = (
        torch.randn(b, c, *axes, device=DEVICE) .mul(2) .round() .relu()
        .to(dtype, memory_format=torch.channels_last_3d) .requires_grad_()
    )
    mine, its = max_pool(x, depth, stride), F.max_pool3d(x, (depth, 3, 3), (1, stride, stride), (depth//2, 1, 1))
    g = torch.randn_like(its)
    assert torch.equal(mine, its)
    assert furthest(*(torch.autograd.grad(y, x, g) for y in (mine, its))) < (1e-6 if dtype == torch.float32 else .02)


@runs
@few
@given(sizes, st.sampled_from([4, 12, 70]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_coordinate_attention(size, c, dtype):
    torch.manual_seed(0)
    b, *axes = size
    x = torch.randn(b, c, *axes, device=DEVICE).to(dtype, memory_format=torch.channels_last_3d).requires_grad_()
    net = nn.Sequential(nn.Conv1d(c, 8, 1), nn.Hardswish(), nn.Conv1d(8, c, 1)).to(DEVICE, dtype)
    w = torch.randn_like(x)
    def with_autograd(x, gates_of):
        t, h, v = (
            gates_of(torch.cat([x.mean((3, 4)), x.mean((2, 4)), x.mean((2, 3))], 2)).sigmoid().split(x.shape[2:], 2)
        )
        return x*t[..., None, None]*h[:, :, None, :, None]*v[:, :, None, None]

    both = [[y, *torch.autograd.grad((y * w).sum(), (x, *net.parameters()))]
            for y in (f(x, net) for f in (attended, with_autograd))]
    assert furthest(*both) < (1e-4 if dtype == torch.float32 else .1)


def encoders(*, seed=0):
    "Two with the same weights: one of them with our kernels."
    torch.manual_seed(seed)
    nets = [CAI3D(5, embedding=None, preset=SMALL).to(DEVICE, memory_format=torch.channels_last_3d) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    return use_kernels(nets[0], 'triton'), nets[1]


def learnt(net): return [*(p.grad for p in net.parameters()), *(b.float() for b in net.buffers())]


def losses(net, which, precision, updates, x):
    "Losses of the first updates."
    forward, opt, found = (forward_of(net, ComputeConfig(precision=precision, kernels=which), DEVICE),
                           SGDConfig(lr=0.01).optimizer(net.parameters()), [])
    for _ in range(updates):
        opt.zero_grad()
        loss = forward(x).square().mean()
        loss.backward()
        opt.step()
        found.append(float(loss.detach()))
    return found


@runs
@pytest.mark.parametrize('precision, most', [('float32', 1e-5), ('bf16', 1e-2)])
def test_an_encoder_learns_the_same(monkeypatch, precision, most):
    "Losses of two updates; on a GPU of twenty."
    if DEVICE == 'cpu': monkeypatch.setenv('TRITON_INTERPRET', '1')
    x, n = torch.randn(2, 5, 2, 16, 16, device=DEVICE), 2 if DEVICE == 'cpu' else 20
    mine, its = (losses(net, which, precision, n, x) for net, which in zip(encoders(), ('triton', '')))
    assert max(abs(a/b - 1) for a, b in zip(mine, its)) < most and mine[-1] < mine[0]


@runs
def test_gradients_of_an_encoder_and_twice_computed_ones():
    "Against PyTorch's operations; and with `recompute`, which must not take a batch in twice."
    x = torch.randn(2, 5, 1, 16, 16, device=DEVICE)
    mine, its = encoders()
    twice = copy.deepcopy(mine)
    twice.recompute = True
    for net in (mine, its, twice): net(x).square().mean().backward()
    assert 0 < furthest(learnt(mine), learnt(its)) < 1e-3              # 0: the kernels were not used
    assert all(torch.equal(a, b) for a, b in zip(learnt(mine), learnt(twice)))


@runs
def test_a_cumulative_mean_is_one():
    "What `calibrate_norms` asks for: momentum None."
    mine, its = norms(4), None
    mine[0].momentum = None
    its = copy.deepcopy(mine)
    with torch.no_grad():
        for k in range(3):
            x = torch.randn(2, 4, 1, 2, 3, device=DEVICE)*(k + 1)
            norm_relu(x, *mine), plain(x, *its)
    assert furthest(list(mine[0].buffers()), list(its[0].buffers())) < 1e-5 and int(mine[0].num_batches_tracked) == 3


def test_evaluation_and_weights_know_nothing_of_it():
    mine, its = encoders()
    mine, its, x = mine.eval(), its.eval(), torch.randn(2, 5, 2, 16, 16, device=DEVICE)
    assert torch.equal(mine(x), its(x)) and list(mine.state_dict()) == list(its.state_dict())
    assert mine.train().fused and not use_kernels(mine, '').fused


def test_no_sum_depends_on_who_comes_first():
    "Atomic additions have no order."
    assert 'atomic' not in Path(kernels.__file__).read_text(encoding='utf-8')


def test_without_a_gpu_or_triton_there_is_a_sentence(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(ValueError,
                       match='compute.kernels=triton: expected a GPU, found device=cpu. Leave compute.kernels empty'):
        forward_of(nn.Linear(1, 1), ComputeConfig(kernels='triton'), 'cpu')
    monkeypatch.setitem(sys.modules, 'triton', None)
    with pytest.raises(ImportError, match='compute.kernels=triton needs triton .*: pip install triton'):
        check_kernels('triton', 'cuda')
    with pytest.raises(ValueError, match='expected one of the two'): ComputeConfig(kernels='triton', compile='default')
    with pytest.raises(ValueError, match="'' or 'triton', found 'cuda'"): ComputeConfig(kernels='cuda')
    check_kernels('', 'cpu')


def test_nothing_is_imported_until_it_is_asked_for():
    code = "import sys, mpfnet.ca_i3d, mpfnet.priors; print('triton' in sys.modules, mpfnet.core.kernels.tl)"
    done = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.split() == ['False', 'None'], done.stderr[-2000:]


def test_priors_of_the_one_are_not_priors_of_the_other():
    from test_leakage import TEST, dataset

    from mpfnet.folds import Fold
    from mpfnet.priors import Prepared
    clips, x, copies = dataset('frames')
    keys = [Prepared(fold, compute=ComputeConfig(kernels=k)).identity(fold)
            for fold in [Fold(clips, x, [TEST], copies=copies, n_classes=3)] for k in ('', 'triton')]
    assert [(a, b) for a, b in zip(*keys) if a != b] == [('', 'triton')]


COMPILE = '''
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from mpfnet.ca_i3d import CAI3D
from mpfnet.core.kernels import Kernel, use_kernels
from test_kernels import SMALL
TYPES, found = {torch.bfloat16: '*bf16', torch.float32: '*fp32', torch.uint8: '*u8', int: 'i32', float: 'fp32'}, {}
def compiled(self, programs, *args, **sizes):
    "Instead of a launch: code for an H100, once a kernel and its variant."
    variant = self.f.__name__, *(v for k, v in sizes.items() if k in ('BOTH', 'MORE', 'DEPTH', 'STRIDE'))
    if variant in found: return
    given = {n: TYPES[a.dtype if torch.is_tensor(a) else type(a)] for n, a in zip(self.compiled.arg_names, args)}
    source = ASTSource(fn=self.compiled, signature=given | dict.fromkeys(sizes, 'constexpr'), constexprs=sizes)
    found[variant] = len(triton.compile(source, target=GPUTarget('cuda', 90, 32)).asm['cubin'])
Kernel.__call__ = compiled
net = use_kernels(CAI3D(5, embedding=None, preset=SMALL).to(memory_format=torch.channels_last_3d), 'triton')
with torch.autocast('cpu', torch.bfloat16): y = net(torch.randn(1, 5, 3, 8, 8))
y.float().square().mean().backward()
for name, size in sorted(found.items()): print(*name, size)
'''


@runs
def test_they_compile_for_a_gpu():
    "What the interpreter does not see: types, names, shapes that a compiler must know."
    env = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'} | dict(
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', COMPILE], cwd=Path(__file__).parents[1], env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    names = {line.split()[0] for line in done.stdout.splitlines()}
    assert (names == {name for name, k in vars(kernels).items() if isinstance(k, Kernel)}
            and len(done.stdout.splitlines()) == 13)
    assert all(int(line.split()[-1]) > 1000 for line in done.stdout.splitlines())


@runs
def test_the_page_runs():
    "With the cells that need Triton; in a process of its own, since IPython takes the place of `__main__`."
    program = Path(sys.executable).with_name('nbdev_test')
    if not program.exists(): pytest.skip('needs nbdev')
    root = Path(__file__).parents[1]
    env = os.environ | dict(TRITON_INTERPRET='1', PYTHONPATH=str(root))
    command = [program, '--path', str(root/'nbs'/'core'/'06_kernels.ipynb'), '--flags', 'gpu', '--n_workers', '0']
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert 'Success' in done.stdout + done.stderr
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
