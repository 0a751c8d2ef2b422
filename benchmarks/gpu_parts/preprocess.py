"""Features on the GPU: the whole recipe, and flow, interpolation and magnification alone. As fast as is asked, and
what the CPU gives."""
import tempfile
from dataclasses import fields

import numpy as np
import torch

from gpu_parts.tools import DEVICE, SCRATCH, SMOKE, attempt, cores, emit, few_faces, judge, ms, timed
from mpfnet.clips import load_clips
from mpfnet.core.workers import one_thread
from mpfnet.motion.flow import flow
from mpfnet.motion.interpolate import interpolate
from mpfnet.motion.magnify import magnify
from mpfnet.preprocess import PreprocessConfig
from mpfnet.store import FeatureStore

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


def recipe(device): return PreprocessConfig(size=SIZE, interpolate_flow='ilk', device=device)


def rows(device):
    "Rows a second of the whole recipe, from synthetic clips to the store; and two copies of each of two clips."
    clips, few = load_clips('synth', str(SCRATCH/'clips')), device == 'cpu' or SMOKE
    clips, copies = (clips.iloc[:2], 2) if few else (clips, 10)
    i, phis = np.repeat(np.arange(len(clips)), copies), np.tile(np.arange(copies), len(clips))
    for turn in ('first', 'second'):                                          # the first one starts libraries
        store = FeatureStore(tempfile.mkdtemp(dir=SCRATCH), recipe(device), 'frames')
        workers = 1 if few else cores(2)
        found, seconds = timed(lambda: store.ensure(clips.iloc[i], phis, workers=workers, progress=False))
        emit('rows', device=device, turn=turn, rows=len(found), workers=workers, seconds=seconds,
             rows_a_second=len(found) / seconds)
    some = store.F[found.reshape(len(clips), copies)[:2, :2]]
    return some.astype(np.float32), len(found)/seconds


def whole_recipe():
    "On the card against the processor."
    if not {'device', 'interpolate_flow'} <= {f.name for f in fields(PreprocessConfig)}:
        return emit('rows', skipped='this version of the library makes rows on the processor only')
    (there, _), (made, speed) = rows('cpu'), rows(DEVICE)
    gap = np.abs(there - made)
    flow_px, differences = float(gap[:, :, :2].max()), float(gap[:, :, 2:].max())
    emit('rows_from_the_cpu', flow_px=flow_px, differences=differences)
    judge('features: rows a second (4022 in a minute)', ROWS/MINUTE, speed)
    judge('features: flow from the CPU, px', 1e-3, flow_px, False)


def main():
    few_faces()
    with attempt('rows'): whole_recipe()
    found = {}
    for device in ('cpu', DEVICE):
        with attempt(device), one_thread():
            found[device], steps, clips = results(device)
            took = {name: ms(step, 3, 1, device)['ms'] for name, step in steps.items()}
            for name, t in took.items(): emit('step', device=device, what=name, ms=t)
            emit('clips', device=device, flow_a_second=1e3*clips/took['flow of many clips'])
    if len(found) == 2 or DEVICE == 'cpu':
        gap = {k: float((found[DEVICE][k].cpu() - found['cpu'][k]).abs().max()) for k in found['cpu']}
        emit('from_the_cpu', **gap)
        judge('flow: from the CPU, px', 1e-3, gap['flow'], False)
