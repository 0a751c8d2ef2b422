"""Flow, interpolation and magnification on the GPU: as fast as is asked for, and what the CPU gives."""
import torch
from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, judge, ms

from mpfnet.flow import flow, one_thread
from mpfnet.interpolate import interpolate
from mpfnet.magnify import magnify

SIZE, CLIPS = (32, 1) if SMOKE else (128, 32)
ROWS, MINUTE = 4022, 60       # the composite with its copies


def pictures():
    "An onset and an apex: texture on a slope, one px apart."
    torch.manual_seed(0)
    a = torch.rand(3, SIZE, SIZE).mul(.1).add(torch.linspace(0, .9, SIZE))
    return a, a.roll(1, -1)


def results(device):
    "What each step gives; {step: what to time}."
    a, b = (x.to(device) for x in pictures())
    frames = interpolate(a, b, flow_method='ilk')
    many = frames.repeat(CLIPS if device != 'cpu' else 1, 1, 1, 1)
    steps = {'interpolation': lambda: interpolate(a, b, flow_method='ilk'),
             'flow of ten pairs': lambda: flow(frames[:-1], frames[1:], 'ilk'),
             'magnification, 14 copies': lambda: magnify(torch.stack([a, b]), list(range(2, 16))),
             'flow of many clips': lambda: flow(many[:-1], many[1:], 'ilk')}
    made = dict(frames=frames, flow=steps['flow of ten pairs'](), copies=steps['magnification, 14 copies']())
    return made, steps, len(many)/len(frames)


def main():
    found = {}
    for device in ('cpu', DEVICE):
        with attempt(device), one_thread():
            found[device], steps, clips = results(device)
            took = {name: ms(step, 3, 1, device)['ms'] for name, step in steps.items()}
            for name, t in took.items(): emit('step', device=device, what=name, ms=t)
            emit('clips', device=device, flow_a_second=1e3*clips/took['flow of many clips'])
            if device == DEVICE: judge('flow (ilk): clips a second', ROWS/MINUTE, 1e3*clips/took['flow of many clips'])
    if len(found) == 2 or DEVICE == 'cpu':
        gap = {k: float((found[DEVICE][k].cpu() - found['cpu'][k]).abs().max()) for k in found['cpu']}
        emit('from_the_cpu', **gap)
        judge('flow: from the CPU, px', 1e-3, gap['flow'], False)
