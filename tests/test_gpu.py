"""What a GPU needs of the training code. Most of it can be tested without one: tensors of PyTorch's `meta` device have shapes and no values, so a tensor that was left on the CPU, or a value that is read, is an error there."""
import json

import numpy as np
import pytest
import torch
from conftest import CHEAP
from test_leakage import SETTINGS, TEST, dataset, weights
from torch.utils._python_dispatch import TorchDispatchMode

from mpfnet import ca_i3d, episodes, loso, priors
from mpfnet.ca_i3d import CAI3D
from mpfnet.folds import Fold
from mpfnet.methods import Context, build, fit_matcher, override
from mpfnet.plsm import train_plsm
from mpfnet.pltn import train_pltn
from mpfnet.priors import AugmentConfig, NO_AUGMENT, Prepared

FRAMES = dataset('frames')
METHODS = ('scratch', 'pltn', 'plsm', 'mpfnet_p', 'mpfnet_c')
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def a_fold(features=None): return Fold(FRAMES[0], FRAMES[1] if features is None else features, [TEST], copies=FRAMES[2], n_classes=3)


class Untrained(priors.Artefacts):
    "Instead of a prior, the weights that it would start from."
    def get(self, stage, key, make): return CAI3D(5, embedding=None, preset=SETTINGS.encoder).state_dict()


def stages(data, aug=AugmentConfig()):
    "Each stage of training, ready to be called. Networks are made on the CPU, and then moved."
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
    def rehearse(module, loss_of, updates, *args, **kwargs):
        for k in range(min(2, updates)):
            with Waits() as waits:
                loss = loss_of(k)
                loss.backward()
            assert not waits.found or not k, waits.found          # in the first update constants move, too
            assert loss.device.type == 'meta' and all(p.grad.device.type == 'meta' for p in module.parameters() if p.grad is not None)
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
    "Notes the operations for which a processor waits until a GPU is done: values read, blocking copies, an index that lies elsewhere."
    READS = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'unique_dim', '_unique2'}
    def __init__(self): super().__init__(); self.found = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        here = args[0].device if args and torch.is_tensor(args[0]) else None
        there = torch.device(kwargs['device']) if kwargs.get('device') else here
        if name in self.READS: self.found.append(name)
        if name == '_to_copy' and here != there and not kwargs.get('non_blocking'): self.found.append(f'{name} from {here} to {there}')
        if name in ('index', 'index_put_') and any(i is not None and i.device != here for i in args[1]): self.found.append(f'{name} of {here} by {args[1][0].device}')
        return func(*args, **kwargs)


def test_no_update_waits_for_a_value():
    "However many updates a stage makes, the values read are as many: those at its end."
    counts = []
    for times in (1, 3):
        s = override(SETTINGS, f'pltn.epochs={2*times},plsm.epochs={times},meta.updates={2*times}')
        data, found = Prepared(a_fold()), []
        for stage in (lambda: train_pltn(data, s.encoder, s.pltn, AugmentConfig()), lambda: train_plsm(data, s.encoder, s.plsm, AugmentConfig(), 3),
                      lambda: episodes.train_episodes(build('mpfnet_c', data, Context(settings=s, artefacts=Untrained())), data, s.meta, AugmentConfig(), 3)):
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
    what = dict(dataset='megc2019_flow', data_root=str(flow_root), method='mpfnet_p', subjects='samm/sa00,samm/sa01', overrides=CHEAP, device='cpu')
    def records(run): return [{k: v for k, v in json.loads(f.read_text()).items() if k != 'seconds'} for f in sorted((run/'folds').glob('*.json'))]
    plain, calls = records(loso.run(**what, out_dir=str(tmp_path/'a'))), []
    monkeypatch.setattr(loso, 'fits', lambda need, device, share: True)
    monkeypatch.setattr(loso, '_resident', {})
    move = loso.moved
    monkeypatch.setattr(loso, 'moved', lambda *a, **k: calls.append(a) or move(*a, **k, step=100))
    assert records(loso.run(**what, out_dir=str(tmp_path/'b'))) == plain and len(calls) == 1
    assert not loso._resident[list(loso._resident)[0]].open().is_cuda


def test_frames_in_place_of_3d_convolutions(monkeypatch):
    "An encoder that avoids them gives the same embeddings and gradients."
    torch.manual_seed(0)
    net, x = CAI3D(5, preset='tiny').to(memory_format=torch.channels_last_3d), torch.randn(3, 5, 4, 32, 32)
    net.drop.p = 0.
    def both():
        net.zero_grad(); y = net(x); y.square().mean().backward()
        return y.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])
    y, g = both()
    called = []
    monkeypatch.setattr(ca_i3d, 'faulty_in_3d', lambda x: called.append(1) or True)
    z, h = both()
    assert len(called) == 5 and torch.allclose(y, z, atol=1e-4) and float((g - h).norm()/g.norm()) < 1e-3


def test_compiled_graphs_serve_all_folds(monkeypatch):
    "One graph for a size, one for all further sizes, no break, nothing on another device; the next fold's networks find them."
    graphs, compiled, breaks = [], torch.compile, torch._dynamo.utils.counters['graph_break']
    def note(graph, inputs): graphs.append(graph); return graph.forward
    monkeypatch.setattr(torch, 'compile', lambda net, mode=None: compiled(net, backend=note))
    monkeypatch.setattr(priors, 'train', lambda module, loss_of, updates, *args, **kwargs: [loss_of(k).backward() for k in range(updates)])
    s, found, before = override(SETTINGS, 'compute.compile=default,pltn.batch=10,pltn.epochs=2'), [], dict(breaks)
    for _ in range(2):
        train_pltn(Prepared(a_fold(), device='meta', compute=s.compute), s.encoder, s.pltn, AugmentConfig())
        found.append(len(graphs))
    devices = {v.device.type for g in graphs for node in g.graph.nodes if torch.is_tensor(v := node.meta.get('example_value'))}
    assert found == [found[0]]*2 and 1 <= found[0] <= 2 and devices == {'meta'} and dict(breaks) == before


def test_episodes_use_no_cuda_graphs(monkeypatch):
    modes = []
    monkeypatch.setattr(torch, 'compile', lambda net, mode=None: modes.append(mode) or net)
    s = override(SETTINGS, 'compute.compile=reduce-overhead')
    fit_matcher('pltn', a_fold(), Context(settings=s))
    assert modes == ['reduce-overhead', 'default']


@cuda
@pytest.mark.parametrize('compute', ['compute.precision=float32', 'compute.precision=bf16', 'compute.compile=reduce-overhead'])
def test_a_fold_on_the_gpu(compute):
    "Learns what the CPU learns, up to rounding; twice the same; and nothing from its test subject."
    s = override(SETTINGS, compute)
    clips, x, copies = FRAMES
    def fitted(device, features=x): return fit_matcher('mpfnet_c', a_fold(features), Context(settings=s if device == 'cuda' else SETTINGS, device=device))
    here, there = (fitted(d).scores(torch.from_numpy(x[:6].astype(np.float32))) for d in ('cpu', 'cuda'))
    assert np.abs(here - there).max() < (1e-2 if 'float32' in compute else .5)
    resident = fitted('cuda', loso.moved(x, np.arange(len(x)), 'cuda')).scores(torch.from_numpy(x[:6].astype(np.float32)))
    if not s.compute.compile: assert np.array_equal(there, resident)
    noisy = x.copy(); noisy[6*2:6*3] = 9
    if not s.compute.compile: assert np.array_equal(there, fitted('cuda', noisy).scores(torch.from_numpy(x[:6].astype(np.float32))))
