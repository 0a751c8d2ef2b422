"""Filling the feature store: clips a second, what a second process brings, memory, and what ten kills leave behind.

    python benchmarks/store.py [--quick]

Drawn faces (the look-alike of MMEW, 300 clips), the default back ends at 128×128, L = 11. One run interleaves one and
two processes, so that whatever else the machine does hits both.
"""
import argparse
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from results import write_section

os.environ.setdefault('OMP_NUM_THREADS', '1')

from mpfnet.clips import load_clips
from mpfnet.preprocess import PreprocessConfig
from mpfnet.store import FeatureStore
from mpfnet.synthetic.lookalike import make_lookalike

FILL = """
import sys, warnings; warnings.simplefilter('ignore')
from mpfnet.clips import load_clips
from mpfnet.preprocess import PreprocessConfig
from mpfnet.store import FeatureStore
if __name__ == '__main__':
    root, store, workers = sys.argv[1:]
    FeatureStore(store, PreprocessConfig(), 'frames').ensure(load_clips('mmew', root, task=None), \
workers=int(workers), progress=False)
"""
MEMORY = """
import ctypes, sys, warnings; warnings.simplefilter('ignore')
from mpfnet.clips import load_clips
from mpfnet.preprocess import PreprocessConfig
from mpfnet.store import FeatureStore
def anonymous():
    ctypes.CDLL(None).malloc_trim(0)     # what is in use, not what the allocator keeps for later
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))
root, store, step = sys.argv[1:]
clips, store = load_clips('mmew', root, task=None), FeatureStore(store, PreprocessConfig(), 'frames')
for k in range(0, len(clips), int(step)):
    store.ensure(clips.iloc[:k + int(step)], progress=False)
    print(k + int(step), anonymous())
"""


def rates(clips, rounds):
    "Clips a second with one and with two processes, alternating."
    found = {1: [], 2: []}
    for _ in range(rounds):
        for workers in found:
            with tempfile.TemporaryDirectory() as d:
                start = time.perf_counter()
                FeatureStore(d, PreprocessConfig(), 'frames').ensure(clips, workers=workers, progress=False)
                found[workers].append(len(clips)/(time.perf_counter() - start))
    return found


def memory_slope(root, step):
    "Kilobytes of anonymous memory that each further clip leaves behind, from the second step on."
    with tempfile.TemporaryDirectory() as d:
        lines = subprocess.run([sys.executable, '-c', MEMORY, str(root), d, str(step)], capture_output=True, text=True,
                               encoding='utf-8', check=True).stdout.split('\n')
    n, kb = np.array([l.split() for l in lines if l], float)[1:].T
    return np.polyfit(n, kb, 1)[0], kb.max()/1024


def table_of(store): return FeatureStore(store, PreprocessConfig(), 'frames').table


def killed(root, kills, workers, seed=0):
    "Fill a store in a process that is killed again and again; compare with one that was left in peace."
    rng, recomputed, rows = random.Random(seed), 0, []
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as storm:
        start = time.perf_counter()
        subprocess.run([sys.executable, '-c', FILL, str(root), calm, str(workers)], check=True)
        whole, before = time.perf_counter() - start, []
        for k in range(kills):
            job = subprocess.Popen([sys.executable, '-c', FILL, str(root), storm, str(workers)], start_new_session=True)
            time.sleep(rng.uniform(.5, 1.2)*(4 + whole/kills))
            try: os.killpg(job.pid, signal.SIGKILL)
            except ProcessLookupError: pass
            job.wait()
            now = [e['sha256'] for e in table_of(storm).index]
            recomputed += now[:len(before)] != before
            before = now
            rows.append(len(now))
        subprocess.run([sys.executable, '-c', FILL, str(root), storm, str(workers)], check=True)
        FeatureStore(storm, PreprocessConfig(), 'frames').verify()
        same = table_of(calm).data.read_bytes() == table_of(storm).data.read_bytes()
        return rows, recomputed, same, [e['sha256'] for e in table_of(storm).index][:len(before)] == before


def main(argv=None):
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('--quick', action='store_true', help='a few clips: does it run at all?')
    args = args.parse_args(argv)
    rounds, kills = (1, 2) if args.quick else (2, 10)
    with tempfile.TemporaryDirectory() as d:
        root = make_lookalike('mmew', d, subjects=4 if args.quick else None, size=128, progress=False).parent
        clips = load_clips('mmew', root, task=None)
        n = len(clips)
        rate = rates(clips, rounds)
        one, two = (statistics.median(r) for r in rate.values())
        slope, peak = memory_slope(root, n//6)
        rows, recomputed, same, kept = killed(root, kills, 2)
    ratio = [b/a for a, b in zip(*rate.values())]
    lines = [
        '| what | asked | got |',
        '|---|---|---|',
        f'| clips/s, one process | | {one:.1f} |',
        f'| clips/s, two processes | ≥ 10 | {two:.1f} |',
        f'| two over one, each round | ≥ 1.8 | {", ".join(f"{r:.2f}" for r in ratio)} |',
        f'| anonymous memory, MB per 100 clips | < 1 | {slope * 100 / 1024:.2f} (peak {peak:.0f} MB) |',
        f'| rows on disk after each kill -9 of {len(clips)} | | {", ".join(map(str, rows))} |',
        f'| finished rows computed again, final bytes equal, store valid | 0, yes, yes | {recomputed}, '
        f'{"yes" if same else "NO"}, {"yes" if kept else "NO"} |',
        '',
        f'{len(clips)} clips of drawn faces, {os.cpu_count()} cores, {platform.processor() or platform.machine()}.',
    ]
    print('\n'.join(lines))
    if not args.quick: write_section('store', 'Feature store', 'python benchmarks/store.py', lines)
    return 0 if same and kept and not recomputed else 1


if __name__ == '__main__': sys.exit(main())
