"""The paper preset's training step: against the frozen encoder, and against the bytes that it has to move."""
import statistics
from importlib.util import find_spec

import torch
import train_step
from torch.profiler import ProfilerActivity, profile
from traffic import lowest
from traffic import step as counted
from turns import ratio, shown

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, forget_peak, free, judge, lines, ms, peak_gb, sync, timed
from mpfnet.ca_i3d import CAI3D, encoder_preset
from mpfnet.mpfnet_c import MPFNetC
from mpfnet.pltn import triplet_loss
from mpfnet.train import ComputeConfig, forward_of

PRESET, SIZE, BATCHES = ('tiny', 16, (6,)) if SMOKE else ('paper', 128, (128, 64, 32))


def one_function():
    "Both encoders compute the same; an error, if not."
    batch, updates = (BATCHES[0], 2) if SMOKE else (16, 10)
    gaps = train_step.one_function(PRESET, SIZE, batch, DEVICE, updates=updates)
    for precision, (gradients, losses) in gaps.items():
        emit('gap', precision=precision, gradients=gradients, losses=losses)


def against_the_frozen_one():
    "In turns. Where the frozen one does not fit, the batch is halved."
    for batch in BATCHES:
        try:
            times, flops = train_step.step_times(PRESET, SIZE, batch, DEVICE, 1 if SMOKE else 5)
            break
        except torch.OutOfMemoryError: emit('too_large', batch=batch)
        free()
    else: raise MemoryError(f'the frozen encoder does not fit at a batch of {BATCHES[-1]}')
    for name, v in times.items():
        emit('step', what=name, batch=batch, ms=1e3*statistics.median(v), us_a_clip=1e6*statistics.median(v)/batch)
    emit('against_frozen', batch=batch, gflop_a_clip=flops/batch/1e9, float32=shown(times, 'frozen', 'float32'),
         bf16=shown(times, 'frozen', 'bf16'))
    judge(f'step, bf16, batch {batch}: speed, of the frozen encoder', 4, ratio(times, 'frozen', 'bf16')[0])


def alone():
    "The library's own step at the stage's batch, with its memory; milliseconds."
    batch = BATCHES[0]
    net, _ = train_step.pair(PRESET, SIZE, DEVICE)
    x, y = torch.randn(batch, 5, 10, SIZE, SIZE, device=DEVICE), torch.arange(batch, device=DEVICE) % 3
    forward = forward_of(net, ComputeConfig(precision='bf16'), DEVICE)
    losses = {'sum of squares': lambda: forward(x).square().mean(), 'triplets': lambda: triplet_loss(forward(x), y)}
    for name, loss in losses.items():
        forget_peak()
        t = ms(train_step.updating(net, loss))
        emit('library', loss=name, batch=batch, us_a_clip=1e3*t['ms']/batch, peak_gb=peak_gb(), **t)
        if name == 'sum of squares': found = t['ms']
    return found, train_step.updating(net, losses['sum of squares'])


def with_our_kernels(found):
    "The same step with compute.kernels=triton, and what it is of the eager one; Triton compiles first."
    batch = BATCHES[0]
    net, _ = train_step.pair(PRESET, SIZE, DEVICE)
    x = torch.randn(batch, 5, 10, SIZE, SIZE, device=DEVICE)
    forward = forward_of(net, ComputeConfig(precision='bf16', kernels='triton'), DEVICE)
    update = train_step.updating(net, lambda: forward(x).square().mean())
    _, setup = timed(update)
    forget_peak()
    t = ms(update)
    emit('library', loss='sum of squares, our kernels', batch=batch, us_a_clip=1e3 * t['ms'] / batch, peak_gb=peak_gb(),
         setup_s=setup, **t)
    judge('step with our kernels: speed, of the eager one', 1, found/t['ms'])


def where_time_goes(update):
    "The kernels that take longest, and how many are launched."
    update()
    sync()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA]*(DEVICE == 'cuda')
    with profile(activities=activities) as p:
        update()
        sync()
    key = 'self_device_time_total' if DEVICE == 'cuda' else 'self_cpu_time_total'
    events = sorted(p.key_averages(), key=lambda e: -getattr(e, key))
    emit('launches', of='an update', n=sum(e.count for e in events if 'LaunchKernel' in e.key))
    kernels = [e for e in events if DEVICE == 'cpu' or 'CUDA' in str(e.device_type)]
    for e in kernels[:24]: emit('kernel', kernel=e.key[:100], times=e.count, ms=getattr(e, key)/1e3)


def floor(found):
    "What the step needs at least: every byte once, at the rate at which this card copies."
    copies = [r['tb_s'] for r in lines('rates', 'copy') if 'tb_s' in r]
    products = [r['tflop_s'] for r in lines('rates', 'matrix') if r.get('precision') == 'bf16']
    if not copies or not products: return emit('floor', skipped='the part `rates` has measured nothing: run both')
    batch, few = BATCHES[0], 2 if SMOKE else 4
    torch.set_num_threads(4)
    net = CAI3D(5, embedding=None, preset=encoder_preset(PRESET)).to(memory_format=torch.channels_last_3d)
    ops = counted(net, few, SIZE, torch.channels_last_3d, 2)
    least = 1e3*lowest(ops, 1e12*copies[-1], 1e12*products[-1])*batch/few
    emit('floor', batch=batch, mb_a_clip=sum(b for *_, b in ops)/few/1e6, least_ms=least, found_ms=found)
    judge('step, bf16: milliseconds, of those that its bytes need', 1.5, found/least, False)


def cascade():
    "MPFNet-C: two encoders, episodes of up to 120 clips."
    batch = min(BATCHES[0], 120)
    encoders = [CAI3D(5, embedding=None, preset=encoder_preset(PRESET)) for _ in range(2)]
    net = MPFNetC(*encoders).to(DEVICE, memory_format=torch.channels_last_3d)
    forward = forward_of(net, ComputeConfig(precision='bf16'), DEVICE)
    x = torch.randn(batch, 5, 10, SIZE, SIZE, device=DEVICE)
    forget_peak()
    t = ms(train_step.updating(net, lambda: sum(v.square().mean() for v in forward(x))), 5)
    emit('library', loss='MPFNet-C', batch=batch, us_a_clip=1e3*t['ms']/batch, peak_gb=peak_gb(), **t)


def main():
    found = update = None
    with attempt('library'): found, update = alone()
    with attempt('gap'): one_function()
    with attempt('against_frozen'): against_the_frozen_one()
    if found:
        with attempt('floor'): floor(found)
        with attempt('kernel'): where_time_goes(update)
    update = None
    if found and DEVICE == 'cuda' and find_spec('triton'):
        with attempt('our kernels'): with_our_kernels(found)
    with attempt('MPFNet-C'): cascade()
