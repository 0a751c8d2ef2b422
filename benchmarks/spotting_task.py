"""Spotters on drawn long recordings, subject by subject: are they as good as they should be, and as fast?

    python benchmarks/spotting_task.py FOLDER          # writes "Spotting as a task" of benchmarks/RESULTS.md
    python benchmarks/spotting_task.py FOLDER --options subjects=4,each=2,seconds=20,seed=1  # minutes; prints only
    python benchmarks/spotting_task.py FOLDER --hour   # writes "Spotting, an hour": six minutes, then sixty
    python benchmarks/spotting_task.py FOLDER --hour 2 # of two minutes; prints only

Drawings only: skin moves in clean patches and light does not change. The constants of `roi_flow` were fixed on other
films (benchmarks/spotting.py); the recordings of `--seed 1`, which are measured here, were looked at by nobody.
"""
import argparse
import os
import resource
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
from results import write_section

from mpfnet.core.files import read_json
from mpfnet.data.recordings import Recordings
from mpfnet.results.intervals import interval_counts, spot_difference
from mpfnet.results.machines import processor_of
from mpfnet.synthetic.recordings import LongConfig, drawn_images, drawn_recordings
from mpfnet.video.spotters import SPOTTERS
from mpfnet.video.spotting import RecordingRow, read_named, run_spotting

COMMAND = 'python benchmarks/spotting_task.py FOLDER'
OPTIONS = 'subjects=8,each=2,seconds=60,seed=1'


def span(m, k): return f'{m[k]:.3f} ({m[k + "_ci95"][0]:.3f}–{m[k + "_ci95"][1]:.3f})' if m[k] is not None else 'n/a'


def number(x): return 'n/a' if x is None else f'{x:.3f}'


def strs_text(m):
    "Spot-then-recognise; of a spotter whose marks nobody names there is none."
    found = m.get('recognition')
    return span(found, 'strs') + f' of {found["n"]}' if found and found['n'] else 'n/a'


def counts_of(folder, kind):
    "What a run hit, missed and marked for nothing, a row a recording."
    return interval_counts(*(read_named(folder/f'{n}.csv') for n in ('spotted', 'truth', 'recordings')), kind)


def lines(folder, workers, options=OPTIONS):
    "The section, line by line."
    runs = {}
    for name in SPOTTERS:
        began = time.perf_counter()
        runs[name] = run_spotting('synth_long', name, options, out_dir=folder, workers=workers)
        print(name, round(time.perf_counter() - began), 's', file=sys.stderr)
    yield f'`{options}`; SYNTHETIC: drawn faces, no person. Leave one subject out; subject bootstrap, 95 %.\n'
    yield ('| spotter | kind | hits, alarms, missed | F1 | precision | recall | false alarms a minute '
           '| F1 as the challenge counts | F1 × UF1 of the hits | the same as the challenge counts |')
    yield '|---'*10 + '|'
    for name, run in runs.items():
        for kind in ('micro', 'macro'):
            m = read_json(run/'metrics.json')[kind]
            three = ', '.join(str(m[k]) for k in ('hits', 'alarms', 'missed'))
            yield (f'| `{name}` | {kind} | {three} | {span(m, "f1")} | {span(m, "precision")} | {span(m, "recall")} '
                   f'| {span(m, "alarms_a_minute")} | {m["challenge"]["f1"]:.3f} | {strs_text(m)} '
                   f'| {number(m["challenge"].get("strs"))} |')
    truth = read_named(runs['learned']/'truth.csv')['kind'].value_counts()
    yield (f'\n{truth.get("micro", 0)} micro- and {truth.get("macro", 0)} macro-expressions in all: `learned`, and the '
           'classes of F1 × UF1, are learnt from those of the other people.\n')
    for name in ('mdmd', 'learned'):
        for kind in ('micro', 'macro'):
            d = spot_difference(*(counts_of(runs[n], kind) for n in ('roi_flow', name)))
            beyond = 'beyond noise' if not d['low'] <= 0 <= d['high'] else 'within noise'
            yield (f'- `{name}` − `roi_flow`, {kind} F1: {d["difference"]:+.3f} ({d["low"]:+.3f} … {d["high"]:+.3f}), '
                   f'{beyond}.')


FEW = LongConfig(subjects=1, each=1, seconds=20, seed=1)


def again(row):
    "The frames of a short drawn recording, again and again."
    few = list(drawn_images(FEW, RecordingRow(subject='s01', video='v1')))
    return islice(cycle(few), int(row['frames']))


HOUR = 6, 60   # minutes of recording
HOUR_HEAD = '| minutes of recording | minutes on the clock | CPU minutes | largest process so far (MB) |'


def measured(folder, minutes):
    "Measure and mark some minutes in two recordings, a process each: a row of the table."
    one, before = drawn_recordings(FEW), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    both = pd.concat([one.recordings.assign(subject=s, frames=minutes*900) for s in ('s01', 's02')])
    found = Recordings(name=f'hour{minutes}', stamp='SYNTHETIC', recordings=both, truth=one.truth.head(0), images=again)
    began = time.perf_counter()
    run_spotting(found, 'roi_flow', out_dir=folder, workers=2)
    wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return f'| {minutes} | {wall/60:.1f} | {(used.ru_utime - before)/60:.1f} | {used.ru_maxrss//1024} |'


def hour(folder, lengths=HOUR):
    "The section, line by line; the shortest first, since the largest process is that of all before."
    yield (f'`roi_flow`, 30 frames a second, in two processes on {os.cpu_count()} cores of {processor_of("cpu")}. '
           'It must be: an hour in less than ten minutes, in memory that does not grow with the length.\n')
    yield f'{HOUR_HEAD}\n{"|---"*4}|'
    yield from (measured(folder, minutes) for minutes in sorted(lengths))


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('folder', type=Path, help='of the runs and signals')
    p.add_argument('--workers', type=int, default=2, help='processes that measure')
    p.add_argument('--options', default=OPTIONS, help='of the drawn recordings')
    p.add_argument('--hour', type=int, nargs='?', const=0, help='time an hour, and a tenth; or so many minutes')
    args = p.parse_args()
    if args.hour is not None: section = 'spotting_hour', 'Spotting, an hour', f'{COMMAND} --hour'
    else: section = 'spotting_task', 'Spotting as a task', COMMAND
    said = hour(args.folder, [args.hour] if args.hour else HOUR) if args.hour is not None else lines(
        args.folder, args.workers, args.options)
    if args.hour or args.options != OPTIONS: print('\n'.join(said))      # to try: no section
    else: write_section(*section, said)


if __name__ == '__main__': main()
