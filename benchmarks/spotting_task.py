"""Spotters on drawn long recordings, subject by subject: are they as good as they should be, and as fast?

    python benchmarks/spotting_task.py FOLDER          # writes "Spotting as a task" of benchmarks/RESULTS.md
    python benchmarks/spotting_task.py FOLDER --options subjects=4,each=2,seconds=20,seed=1  # likewise, minutes
    python benchmarks/spotting_task.py FOLDER --hour   # prints only: an hour of 30 frames a second, in two processes
    python benchmarks/spotting_task.py FOLDER --hour 5 # likewise, of five minutes

Drawings only: skin moves in clean patches and light does not change. The constants of `roi_flow` were fixed on other
films (benchmarks/spotting.py); the recordings of `--seed 1`, which are measured here, were looked at by nobody.
"""
import argparse
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


def hour(folder, minutes=60):
    "Measure and mark an hour in two recordings, a process each."
    one = drawn_recordings(FEW)
    both = pd.concat([one.recordings.assign(subject=s, frames=minutes*900) for s in ('s01', 's02')])
    found = Recordings(name=f'hour{minutes}', stamp='SYNTHETIC', recordings=both, truth=one.truth.head(0), images=again)
    began = time.perf_counter()
    run_spotting(found, 'roi_flow', out_dir=folder, workers=2)
    wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f'{minutes} minutes of 30 frames a second: {wall/60:.1f} min in two processes, '
          f'{used.ru_utime/60:.1f} CPU min, largest process {used.ru_maxrss//1024} MB')


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('folder', type=Path, help='of the runs and signals')
    p.add_argument('--workers', type=int, default=2, help='processes that measure')
    p.add_argument('--options', default=OPTIONS, help='of the drawn recordings')
    p.add_argument('--hour', type=int, nargs='?', const=60, help='minutes of recording to be timed; prints only')
    args = p.parse_args()
    if args.hour: hour(args.folder, args.hour)
    else:
        section = 'spotting_task', 'Spotting as a task', COMMAND
        if args.options != OPTIONS:                                  # beside the larger one, and does not replace it
            section = 'spotting_few', 'Spotting as a task, few recordings', f'{COMMAND} --options {args.options}'
        write_section(*section, lines(args.folder, args.workers, args.options))


if __name__ == '__main__': main()
