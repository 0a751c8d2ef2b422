"""Whole LOSO runs of the public flow release (442 clips, 68 subjects), on the GPU and on the CPU."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flow_lookalike import write_flow_release

from gpu_parts.children import begin, end
from gpu_parts.tools import DEVICE, SCRATCH, SMOKE, attempt, cores, emit, here, judge, seconds_left
from mpfnet.metrics import evaluate

# of the made-up release
SMALL = dict(method='scratch', subjects='samm/sa00', overrides='meta.updates=2', workers=1)
FOLDS = 68
CHILD = 'import json, sys\nfrom mpfnet.loso import run\nif __name__ == "__main__": run(**json.loads(sys.argv[1]))'


def data():
    "(folder above megc2019_flow, what its clips are): the real release where it is given, else one that is made up."
    given = os.environ.get('MPFNET_DATA')
    if given and (Path(given)/'megc2019_flow').is_dir() and not SMOKE: return given, 'real'
    made = SCRATCH/'flow'          # runs on it never overlap
    if not (made/'megc2019_flow').is_dir(): write_flow_release(made)
    return str(made), 'made up'


def whole(seconds, **parameters):
    "Run LOSO in a process of its own for at most so long; what its folds say, and how long it took."
    root, what = data()
    out = Path(tempfile.mkdtemp(prefix=here.part, dir=SCRATCH))           # nothing is found there from before
    parameters |= dict(dataset='megc2019_flow', data_root=root, out_dir=str(out)) | (SMALL if SMOKE else {})
    start = time.perf_counter()
    job = begin([sys.executable, '-c', CHILD, json.dumps(parameters)], SCRATCH/f'children-{here.part}')
    try: status = job.wait(max(1., seconds))
    except subprocess.TimeoutExpired: status = 'out of time'
    end(job.pid)
    took = time.perf_counter() - start
    records = [json.loads(f.read_text(encoding='utf-8')) for f in out.glob('megc2019_flow-*/folds/*.json')]
    return dict(records=records, wall_s=took, status=status, data=what)


def uf1_of(records, subjects=None): # of some (dataset, subject) pairs; None = of all
    "UF1 of what folds predicted."
    some = [r for r in records if subjects is None or (r['dataset'], r['subject']) in subjects]
    return evaluate(*(np.concatenate([r[k] for r in some]) for k in ('labels', 'predictions')), 3)['uf1']


def told(name, found, **more):
    "The line of a run; returns the seconds on the clock of all folds, extrapolated if some are missing."
    records, of = found['records'], 1 if SMOKE else FOLDS
    if not records: raise RuntimeError(f'no fold was finished in {found["wall_s"]:.0f} s ({found["status"]})')
    seconds = found['wall_s']*(1 if found['status'] == 0 else of/len(records))
    each, clips = statistics.median(r['seconds'] for r in records), sum(len(r['labels']) for r in records)
    emit(name, folds=len(records), of=of, wall_s=found['wall_s'], whole_s=seconds, fold_s=each, uf1=uf1_of(records),
         clips=clips, data=found['data'], status=found['status'], **more)
    return seconds


def on_the_cpu():
    "Tiny, on the processor, while nothing is timed: what the GPU's scores are compared with."
    with attempt('cpu'):
        found = whole(seconds_left() - 3, method='mpfnet_p', preset='tiny', seed='0', device='cpu', workers=cores(4))
        told('cpu', found, method='mpfnet_p', preset='tiny', workers=cores(4))
        (SCRATCH/'cpu.json').write_text(json.dumps(found['records']), encoding='utf-8')


def at_paper_width():
    "MPFNet-C with the paper's widths and epochs, all folds, or as many as the time allows."
    with attempt('paper'):
        preset = 'tiny' if SMOKE else 'paper'
        found = whole(seconds_left() - 3, method='mpfnet_c', preset=preset, seed='0', device=DEVICE, workers=cores(2))
        seconds = told('paper', found, method='mpfnet_c', preset=preset, workers=cores(2))
        judge('LOSO of the public flow at paper width, 68 folds', 2.5, seconds/3600, False, 'h')


def tiny():
    """Seed 0 with both priors, for the clock, as it is and with recorded updates; then as many seeds as there is time
    for, for the noise."""
    runs, took = [], {}
    for seed, record in ([('0', False)]
                         if SMOKE else [('0', False), ('0', True), ('1', False), ('2', False), ('3', False)]):
        if took and seconds_left() < 1.2*max(took.values()) + 5: break
        with attempt(f'seed {seed}, record={record}'):
            what = dict(method='mpfnet_p', preset='tiny', seed=seed, workers=cores(2),
                        overrides=f'compute.record={record}')
            found = whole(seconds_left() - 3, device=DEVICE, **what)
            took[seed, record] = told('gpu', found, **what)
            if not record: runs.append(found['records'])
    for (seed, record), seconds in took.items():
        how = ', recorded updates' if record else ''
        if seed == '0': judge(f'tiny LOSO of the public flow, 68 folds, both priors{how}', 60, seconds, False, 's')
    path = SCRATCH/'cpu.json'
    if path.exists() and runs: against(json.loads(path.read_text(encoding='utf-8')), runs)
    else: emit('uf1', skipped='it takes a run on the CPU and one on the GPU')


def against(cpu, gpu): # records of a run; of runs with seed 0, 1, …
    """UF1 of the folds that all runs have. Two seeds differ by √2 standard deviations of one; twice that is noise."""
    folds = set.intersection(*({(r['dataset'], r['subject']) for r in run} for run in (cpu, *gpu)))
    if not folds: return emit('uf1', skipped='no fold that all runs have')
    here, there = uf1_of(cpu, folds), [uf1_of(run, folds) for run in gpu]
    noise = 2*2**.5*statistics.stdev(there) if len(there) > 1 else None
    emit('uf1', folds=len(folds), cpu=here, gpu=there, noise=noise)
    if noise is None: return
    judge(f'UF1 of seed 0, {len(folds)} folds: GPU from CPU, beside the noise of {len(there)} seeds', max(noise, 0.01),
          abs(there[0] - here), False)
