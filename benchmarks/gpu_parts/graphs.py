"""Small updates do not fill a GPU: how many launches they take, and what one CUDA graph saves."""
import torch
import train_step
from fold import composite
from torch.profiler import ProfilerActivity, profile

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, judge, ms, sync, timed
from mpfnet.methods import override, settings_preset
from mpfnet.pltn import train_pltn
from mpfnet.priors import Prepared
from mpfnet.train import ComputeConfig, forward_of

CASES = (('tiny', 16, 6),) if SMOKE else (('tiny', 32, 64), ('light', 64, 64))
LAUNCHES = ('LaunchKernel', 'GraphLaunch')       # parts of the names of the runtime's calls


def launched(make):
    "Kernels and graphs that a call launches."
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA]*(DEVICE == 'cuda')) as p:
        make()
        sync()
    return sum(e.count for e in p.key_averages() if any(name in e.key for name in LAUNCHES))


def of_the_library(preset, size, record):
    "Launches and milliseconds of an update of the triplet stage, as training makes them: a long run less a short one."
    shape, a, b = (5, 4 if SMOKE else 10, size, size), 1 if SMOKE else 2, 2 if SMOKE else 12
    s = override(settings_preset(preset), f'compute.precision=bf16,compute.record={record}' + ',pltn.batch=24'*SMOKE)
    data = Prepared(composite(shape, DEVICE, .05 if SMOKE else .15), s.features, DEVICE, s.compute)
    def train(epochs): return len(train_pltn(data, s.encoder, override(s, f'pltn.epochs={epochs}').pltn, s.augment)[1])
    updates = {n: train(n) for n in (a, b)}
    of = updates[b] - updates[a]
    launches = (launched(lambda: train(b)) - launched(lambda: train(a)))/of
    seconds = (timed(lambda: train(b))[1] - timed(lambda: train(a))[1])/of
    emit('update', preset=preset, how='compute.record' if record else 'eager', launches=launches, ms=1e3*seconds)
    if record: judge(f'{preset}, recorded: launches an update', 5, launches, False)


def by_hand(preset, size, batch):
    "The bare step, eager; and recorded as one graph."
    net, _ = train_step.pair(preset, size, DEVICE)
    x = torch.randn(batch, 5, 4 if SMOKE else 10, size, size, device=DEVICE)
    forward = forward_of(net, ComputeConfig(precision='bf16'), DEVICE)
    step = train_step.updating(net, lambda: forward(x).square().mean())
    emit('step', preset=preset, batch=batch, how='eager', **ms(step))
    if DEVICE != 'cuda': return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3): step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): step()
    emit('step', preset=preset, batch=batch, how='one CUDA graph', **ms(graph.replay))


def main():
    for preset, size, batch in CASES:
        for record in (False, True)[:1 if SMOKE else 2]:                      # only a GPU can record
            with attempt(f'update, {preset}, record={record}'): of_the_library(preset, size, record)
        with attempt(f'step, {preset}'): by_hand(preset, size, batch)
