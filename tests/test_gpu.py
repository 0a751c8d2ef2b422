"""What a GPU needs of the training code. Most of it can be tested without one: tensors of PyTorch's `meta` device have
shapes and no values, so a tensor that was left on the CPU, or a value that is read, is an error there."""
import json
import warnings

import numpy as np
import pytest
import torch
from conftest import CHEAP, ROOT
from test_leakage import SETTINGS, TEST, dataset, weights
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mpfnet import ca_i3d, episodes, harness, loso, priors
from mpfnet.ca_i3d import CAI3D
from mpfnet.core.artefacts import Artefacts
from mpfnet.folds import Fold
from mpfnet.methods import METHODS as TABLE
from mpfnet.methods import Context, build, fit, fit_matcher, override, settings_preset
from mpfnet.motion.inputs import NO_AUGMENT, AugmentConfig, moved_to
from mpfnet.plsm import Copies, train_plsm
from mpfnet.pltn import train_pltn
from mpfnet.priors import Prepared
from mpfnet.results.machines import environment
from mpfnet.train import ComputeConfig, SGDConfig, generator, repeatable, seeded, train, watch_update

FRAMES = dataset('frames')
METHODS = ('scratch', 'pltn', 'plsm', 'mpfnet_p', 'mpfnet_c')
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def a_fold(features=None):
    return Fold(FRAMES[0], FRAMES[1] if features is None else features, [TEST], copies=FRAMES[2], n_classes=3)


class Untrained(Artefacts):
    "Instead of a prior, the weights that it would start from."
    def get(self, stage, key, make): return CAI3D(5, embedding=None, preset=SETTINGS.encoder).state_dict()


def stages(data, aug=None):
    "Each stage of training, ready to be called. Networks are made on the CPU, and then moved."
    aug = aug or AugmentConfig()
    yield lambda: train_pltn(data, SETTINGS.encoder, SETTINGS.pltn, aug)
    yield lambda: train_plsm(data, SETTINGS.encoder, SETTINGS.plsm, aug, 3)
    for m in METHODS:
        matcher = build(m, Prepared(a_fold()), Context(settings=SETTINGS, artefacts=Untrained())).to(data.device)
        yield lambda matcher=matcher: episodes.train_episodes(matcher, data, SETTINGS.meta, aug, 3)


@pytest.mark.parametrize('aug', [AugmentConfig(noise=.1), NO_AUGMENT])
@pytest.mark.parametrize('resident', [False, True])
def test_a_step_runs_elsewhere(monkeypatch, aug, resident):
    "Forward and back of every stage, where no value can be read and no other device's tensor can join in."
    steps = []
    def rehearse(module, loss_of, updates, *args, inputs=None, **kwargs):
        given = inputs or ((k,) for k in range(updates))
        for k in range(min(2, updates)):
            with Waits() as waits:
                loss = loss_of(*moved_to('meta', next(given)))
                loss.backward()
            assert not waits.found or not k, waits.found  # in the first update constants move, too
            assert loss.device.type == 'meta' and all(p.grad.device.type == 'meta' for p in module.parameters()
                                                      if p.grad is not None)
        steps.append(sum(p.grad is not None for p in module.parameters()))
        return []
    for module in (priors, episodes): monkeypatch.setattr(module, 'train', rehearse)
    data = Prepared(a_fold(torch.from_numpy(FRAMES[1]).to('meta') if resident else None), device='meta')
    for stage in stages(data, aug): stage()
    assert len(steps) == 2 + len(METHODS) and min(steps) > 20


def test_a_tensor_left_behind_is_noticed():
    "The test above can fail."
    with pytest.raises((RuntimeError, NotImplementedError)): (torch.ones(2, device='meta') + torch.ones(2)).sum()
    with pytest.raises((RuntimeError, NotImplementedError)): torch.ones(2, device='meta').sum().item()
    x = torch.ones(4, device='meta')
    for wait in (lambda: x[np.array([0, 2])], lambda: torch.ones(2).to('meta'), lambda: torch.ones(2).sum().item()):
        with Waits() as waits: wait()
        assert len(waits.found) == 1
    with Waits() as waits: x[torch.tensor([0, 2]).to('meta', non_blocking=True)]
    assert not waits.found


class Waits(TorchDispatchMode):
    """Notes the operations for which a processor waits until a GPU is done: values read, blocking copies, an index
    that lies elsewhere."""
    READS = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'unique_dim', '_unique2'}

    def __init__(self):
        super().__init__()
        self.found = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        here = args[0].device if args and torch.is_tensor(args[0]) else None
        there = torch.device(kwargs['device']) if kwargs.get('device') else here
        if name in self.READS: self.found.append(name)
        if name == '_to_copy' and here != there and not kwargs.get('non_blocking'):
            self.found.append(f'{name} from {here} to {there}')
        if name in ('index', 'index_put_') and any(i is not None and i.device != here for i in args[1]):
            self.found.append(f'{name} of {here} by {args[1][0].device}')
        return func(*args, **kwargs)


def test_no_update_waits_for_a_value():
    "However many updates a stage makes, the values read are as many: those at its end."
    counts = []
    for times in (1, 3):
        s = override(SETTINGS, f'pltn.epochs={2*times},plsm.epochs={times},meta.updates={2*times}')
        data, found = Prepared(a_fold()), []
        for stage in (
            lambda: train_pltn(data, s.encoder, s.pltn, AugmentConfig()),
            lambda: train_plsm(data, s.encoder, s.plsm, AugmentConfig(), 3),
            lambda: episodes.train_episodes(build('mpfnet_c', data, Context(settings=s, artefacts=Untrained())), data,
                                            s.meta, AugmentConfig(), 3),
        ):
            with Waits() as waits: losses = stage()
            assert len(losses[1] if isinstance(losses, tuple) else losses) >= times
            found.append(len(waits.found))
        counts.append(found)
    assert counts[0] == counts[1] and min(counts[0]) > 0


@pytest.mark.parametrize('method', ['mpfnet_p', 'mpfnet_c'])
def test_features_as_a_tensor(method):
    "What is learnt from features that lie on a device is what is learnt from the file, to the last digit."
    clips, x, copies = FRAMES
    assert weights(method, clips, torch.from_numpy(x), copies) == weights(method, clips, x, copies)


def test_a_run_with_resident_features(flow_root, tmp_path, monkeypatch):
    "The same records; the features are moved once, and not where they do not fit."
    what = dict(dataset='megc2019_flow', data_root=str(flow_root), method='mpfnet_p', subjects='samm/sa00,samm/sa01',
                overrides=CHEAP, device='cpu')

    def records(run):
        return [{k: v for k, v in json.loads(f.read_text()).items() if k != 'seconds'}
                for f in sorted((run / 'folds').glob('*.json'))]
    plain, calls = records(loso.run(**what, out_dir=str(tmp_path/'a'))), []
    monkeypatch.setattr(harness, 'fits', lambda need, device, share: True)
    monkeypatch.setattr(harness, '_resident', {})
    move = harness.moved
    monkeypatch.setattr(harness, 'moved', lambda *a, **k: calls.append(a) or move(*a, **k, step=100))
    assert records(loso.run(**what, out_dir=str(tmp_path/'b'))) == plain and len(calls) == 1
    assert not harness._resident[list(harness._resident)[0]].open().is_cuda


def test_frames_in_place_of_3d_convolutions(monkeypatch):
    "An encoder that avoids them gives the same embeddings and gradients."
    torch.manual_seed(0)
    net, x = CAI3D(5, preset='tiny').to(memory_format=torch.channels_last_3d), torch.randn(3, 5, 4, 32, 32)
    net.drop.p = 0.
    def both():
        net.zero_grad()
        y = net(x)
        y.square().mean().backward()
        return y.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])
    y, g = both()
    called = []
    monkeypatch.setattr(ca_i3d, 'faulty_in_3d', lambda x: called.append(1) or True)
    z, h = both()
    assert len(called) == 5 and torch.allclose(y, z, atol=1e-4) and float((g - h).norm()/g.norm()) < 1e-3


def test_compiled_graphs_serve_all_folds(monkeypatch):
    """One graph for a size, one for all further sizes, no break, nothing on another device; the next fold's networks
    find them."""
    graphs, compiled, breaks = [], torch.compile, torch._dynamo.utils.counters['graph_break']

    def note(graph, inputs):
        graphs.append(graph)
        return graph.forward
    monkeypatch.setattr(torch, 'compile', lambda net, mode=None: compiled(net, backend=note))
    monkeypatch.setattr(
        priors,
        'train',
        lambda module, loss_of, updates, *args, inputs, **kwargs: [loss_of(*moved_to('meta', given)).backward()
                                                                   for given in inputs],
    )
    s, found, before = override(SETTINGS, 'compute.compile=default,pltn.batch=10'), [], dict(breaks)
    for _ in range(2):
        train_pltn(Prepared(a_fold(), device='meta', compute=s.compute), s.encoder, s.pltn, AugmentConfig())
        found.append(len(graphs))
    devices = {v.device.type for g in graphs for node in g.graph.nodes
               if torch.is_tensor(v := node.meta.get('example_value'))}
    assert found == [found[0]]*2 and 1 <= found[0] <= 2 and devices == {'meta'} and dict(breaks) == before


def test_episodes_use_no_cuda_graphs(monkeypatch):
    modes = []
    monkeypatch.setattr(torch, 'compile', lambda net, mode=None: modes.append(mode) or net)
    s = override(SETTINGS, 'compute.compile=reduce-overhead')
    fit_matcher('pltn', a_fold(), Context(settings=s))
    assert modes == ['reduce-overhead', 'default']


@pytest.mark.parametrize('stage', ['pltn', 'plsm'])
def test_recorded_updates_are_the_same_updates(monkeypatch, stage):
    """What changes from update to update lies in the inputs: a whole prior, replayed from a tape, ends in the weights
    that it ends in."""
    class Taped(priors.RecordedUpdate):
        def once(self, *inputs): return priors.Update.__call__(self, *inputs)
        def recorded(self, *inputs):
            held, network = [v.clone() for v in inputs], self.network
            before = [v.clone() for v in self.changing(network)]
            with Tape() as tape: loss = priors.Update.__call__(self, *held)
            with torch.no_grad():
                # a graph computes nothing while it is recorded
                for now, then in zip(self.changing(network), before): now.copy_(then)
            tapes.append(len(tape.done))
            return held, tape.play, loss
        def __init__(self, module, cfg, loss_of):
            self.network = module
            super().__init__(module, cfg, loss_of)
        def changing(self, module):
            momentum = [self.optimizer.state[p]['momentum_buffer']
                        for p in module.parameters() if 'momentum_buffer' in self.optimizer.state[p]]
            return [*module.parameters(), *momentum, *module.buffers()]

    tapes, s, train = ([],
                       override(SETTINGS, 'pltn.epochs=4,plsm.epochs=4,pltn.batch=10,plsm.batch=16,encoder.dropout=0'),
                       priors.train)
    def learnt(kind):
        monkeypatch.setattr(priors, 'train', lambda *args, **kwargs: train(*args, **kwargs | dict(kind=kind)))
        data = Prepared(a_fold())
        if stage == 'pltn': return train_pltn(data, s.encoder, s.pltn, AugmentConfig(noise=.1))
        return train_plsm(data, s.encoder, s.plsm, AugmentConfig(), 3)
    (net, losses), (other, again) = learnt(priors.Update), learnt(Taped)
    assert tapes and min(tapes) > 300 and len(losses) >= 8
    assert np.allclose(losses, again, rtol=1e-5) and all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b
                                                         in zip(net.state_dict().values(), other.state_dict().values()))


class Tape(TorchDispatchMode):
    "Notes operations; `play` does them again, into the same memory, as a CUDA graph does."

    def __init__(self):
        super().__init__()
        self.done = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if func.namespace == 'aten': self.done.append((func, args, kwargs or {}, self.tensors(out)))
        return out
    @staticmethod
    def tensors(out): return [v for v in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(v)]
    @torch.no_grad()
    def play(self):
        for func, args, kwargs, before in self.done:
            for old, new in zip(before, self.tensors(func(*args, **kwargs))):
                if old.data_ptr() != new.data_ptr(): old.copy_(new)


@cuda
@pytest.mark.parametrize(
    'compute',
    ['compute.precision=float32', 'compute.precision=bf16', 'compute.compile=reduce-overhead', 'compute.record=true'],
)
def test_a_fold_on_the_gpu(compute):
    "Learns what the CPU learns, up to rounding; twice the same; and nothing from its test subject."
    s = override(SETTINGS, compute)
    clips, x, copies = FRAMES

    def fitted(device, features=x):
        return fit_matcher('mpfnet_c', a_fold(features),
                           Context(settings=s if device == 'cuda' else SETTINGS, device=device))
    here, there = (fitted(d).scores(torch.from_numpy(x[:6].astype(np.float32))) for d in ('cpu', 'cuda'))
    assert np.abs(here - there).max() < (1e-2 if 'float32' in compute else .5)
    resident = fitted('cuda', harness.moved(x, np.arange(len(x)), 'cuda')).scores(
        torch.from_numpy(x[:6].astype(np.float32))
    )
    if not s.compute.compile and not s.compute.record: assert np.array_equal(there, resident)
    noisy = x.copy()
    noisy[6 * 2 : 6 * 3] = 9
    if not s.compute.compile:
        assert np.array_equal(there, fitted('cuda', noisy).scores(torch.from_numpy(x[:6].astype(np.float32))))


# --- operations that have no order on a GPU
# ----------------------------------------------------------------------------------

class Unordered(TorchDispatchMode):
    "Notes the operations that PyTorch lists, under `torch.use_deterministic_algorithms`, as without an order on CUDA."

    NAMES = {'_adaptive_avg_pool2d_backward', '_adaptive_avg_pool3d_backward', 'adaptive_max_pool2d_backward',
             'avg_pool3d_backward', 'max_pool3d_with_indices_backward', 'fractional_max_pool2d_backward',
             'fractional_max_pool3d_backward', 'max_unpool2d', 'max_unpool3d', 'upsample_linear1d_backward',
             'upsample_bilinear2d_backward', '_upsample_bilinear2d_aa_backward', 'upsample_bicubic2d_backward',
             'upsample_trilinear3d_backward', 'reflection_pad1d_backward', 'reflection_pad2d_backward',
             'reflection_pad3d_backward', 'replication_pad1d_backward', 'replication_pad2d_backward',
             'replication_pad3d_backward', 'grid_sampler_2d_backward', 'grid_sampler_3d_backward', 'nll_loss2d_forward',
             '_ctc_loss_backward', 'histc', 'kthvalue', 'median', 'put', 'put_', 'cumsum', 'scatter_add',
             'scatter_add_', 'scatter_reduce', 'index_add', 'index_add_'}

    def __init__(self):
        super().__init__()
        self.found = set()
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        floats = any(a.is_floating_point() for a in args if torch.is_tensor(a))
        if name in self.NAMES and floats: self.found.add(name)
        return func(*args, **kwargs or {})


def unordered_of(method, kind='frames', overrides=''):
    clips, x, copies = dataset(kind, method)
    context = Context(settings=override(SETTINGS, overrides) if overrides else SETTINGS)
    with Unordered() as seen: fit(method, Fold(clips, x, [TEST], copies=copies, n_classes=3), context)
    return seen.found


@pytest.mark.parametrize('method', [m for m, row in TABLE.items() if row.ordered and m != 'majority'])
def test_methods_that_promise_an_order_keep_it(method):
    kind = 'flow28' if method == 'scratch' else 'frames'
    more = dict(fdp='fdp.variant=as_released', afn='afn.variant=dianet', fmanet='fmanet.variant=mm_cof',
                skd_tstsan='skd_tstsan.magnify=pictures', mpfnet_p='meta.recompute=true').get(method, '')
    assert unordered_of(method, kind) == unordered_of(method, kind, more) == set()


def test_every_method_of_the_package_promises_one(): assert [m for m, row in TABLE.items() if not row.ordered] == []


def test_an_operation_without_an_order_is_noticed():
    "The tests above can fail."
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    ways = dict(_adaptive_avg_pool2d_backward=lambda: F.adaptive_avg_pool2d(x, 2),
                max_unpool2d=lambda: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
                upsample_bilinear2d_backward=lambda: F.interpolate(x, (9, 9), mode='bilinear'),
                cumsum=lambda: x.cumsum(1), median=lambda: x.flatten(2).median(2).values)
    for name, way in ways.items():
        with Unordered() as seen: way().sum().backward()
        assert seen.found == {name}


@pytest.mark.parametrize('strict', [True, False])
def test_a_method_of_ones_own_without_an_order(monkeypatch, strict):
    "Is an error if its row promises one; else it is noted, and the switches are as before."
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', True)
    def alarm():                                                     # as PyTorch does on a GPU
        text = 'upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation'
        if not torch.is_deterministic_algorithms_warn_only_enabled(): raise RuntimeError(text)
        warnings.warn(text)
    class Card(str):
        type = 'cuda'
    monkeypatch.setattr(torch, 'device', lambda d: Card(d))
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    if strict:
        with pytest.raises(RuntimeError, match='deterministic implementation'), repeatable('cuda', True): alarm()
    else:
        with repeatable('cuda') as unordered:
            alarm()
            alarm()
        assert len(unordered) == 1
    assert not torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory


# --- what a GPU must not change
# --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('precision', ['float32', 'bf16'])
@pytest.mark.parametrize('frames', [1, 2, 3, 4])
def test_gradients_of_short_clips(frames, precision):
    """oneDNN's gradient of a 3-D convolution in half precision is garbage for two time steps; freed memory holds
    something else than zeros here."""
    torch.manual_seed(0)
    net, x = (CAI3D(5, embedding=None, preset='tiny').to(memory_format=torch.channels_last_3d),
              torch.randn(12, 5, frames, 16, 16))
    net.drop.p = 0.
    def gradients(precision):
        junk = [torch.full((n,), float('nan'), dtype=torch.bfloat16) for n in (100, 1000, 10_000, 100_000, 1_000_000)]
        del junk
        net.zero_grad()
        priors.forward_of(net, ComputeConfig(precision=precision))(x).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])
    right, first, again = gradients('float32'), gradients(precision), gradients(precision)
    assert float((first - right).norm()/right.norm()) < (1e-6 if precision == 'float32' else .2)
    assert torch.equal(first, again)


def test_generators_of_gpus_are_kept(monkeypatch):
    "Building a network, dropout of a stage and the audit's look leave a GPU's generator where it was."
    states = {0: torch.tensor([1], dtype=torch.uint8), 1: torch.tensor([2], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_rng_state',
                        lambda d: states[torch.device(d).index if not isinstance(d, int) else d].clone())
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda s,
                        d: states.update({torch.device(d).index if not isinstance(d, int) else d: s}))
    def spoil():
        for k in states: states[k] = torch.tensor([9], dtype=torch.uint8)
        return torch.nn.Linear(1, 1)
    seeded(spoil, generator(0, 'x'))
    net = torch.nn.Linear(1, 1)
    watch_update(lambda k: spoil(), net, 1)
    train(net, lambda k: net(torch.ones(1, 1)).sum(), 1, SGDConfig(), watch=lambda k: spoil())
    assert [int(states[k]) for k in (0, 1)] == [1, 2]


def test_nobody_forks_generators_by_hand():
    "`fork_rng(devices=[])` leaves those of a GPU out."
    library = [p for p in ROOT.glob('mpfnet/**/*.py') if p.name != 'train.py']
    assert library and not [p.name for p in library if 'fork_rng' in p.read_text(encoding='utf-8')]


@pytest.mark.parametrize('resident', [False, True])
def test_the_scale_is_computed_where_training_is(resident):
    "Wherever the rows lie: the order of its sums is that of one device."
    data = Prepared(a_fold(torch.from_numpy(FRAMES[1]).to('meta') if resident else None), device='meta')
    assert data.scaling.scale.device.type == data.x.device.type == 'meta'


def test_rows_go_to_a_gpu_as_they_are_stored():
    "Two bytes a number, for training clips and for copies."
    moved = []
    class Moves(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            to = (kwargs or {}).get('device')
            if (
                func.overloadpacket.__name__ == '_to_copy' and to is not None and args[0].device.type == 'cpu'
                and args[0].ndim == 5
            ):
                moved.append((args[0].dtype, kwargs.get('non_blocking')))
            return func(*args, **kwargs or {})
    with Moves():
        data = Prepared(a_fold(), device='meta')
        copies = Copies(data, np.full(len(data), 1))
        x, _ = copies(*copies.load(np.arange(4)))
    assert moved == [(torch.float16, True)]*2 and x.dtype == torch.float32


def test_presets_of_a_machine_with_a_gpu(monkeypatch):
    "The demonstration stays small; real data are what the paper does."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: True)
    def batch(**p): return loso.resolve(loso.check_parameters(p))[1].pltn.batch
    assert batch(dataset='synth') == batch(dataset='synth', preset='tiny') < batch(dataset='samm')
    assert batch(dataset='megc2019_flow') == batch(dataset='samm') and batch(
        dataset='megc2019_flow', device='cpu'
    ) == batch(dataset='synth')


def test_a_run_on_the_cpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'A card')
    assert environment('cpu')['processor'] != 'A card' == environment('cuda')['processor']


# --- memory
# ----------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def peak(monkeypatch):
    "benchmarks/peak.py"
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    return pytest.importorskip('peak')


def test_memory_is_counted(peak):
    with peak.Memory() as m:
        a = torch.empty(1024, device='meta')
        b = a*2
        view = b[:10]
        del a, b
    assert (m.most, m.now) == (8192, 4096) and len(view) == 10


def test_every_stage_of_the_paper_preset_fits_a_card_of_24_gb(peak):
    "Beside the composite's features. Episodes would not, if their encoders kept all maps."
    found = {name: update + resident*peak.beside(PAPER) for name, update, resident in peak.stages(PAPER)}
    kept = {name for name in found if name.startswith('episodes of mpfnet') and 'twice' not in name}
    assert PAPER.meta.recompute and len(found) == 10 and len(kept) == 2
    assert all((gib > peak.LIMIT) if name in kept else .05 < gib < peak.LIMIT for name, gib in found.items()), found


PAPER = settings_preset('paper')
