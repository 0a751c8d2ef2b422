"""Timing several ways to do one thing in turns, in one process, so that whatever else the machine does hits all of
them alike."""
import argparse
import platform
import statistics
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from results import RESULTS, write_section


def machine():
    "Processor and versions, for RESULTS.md."
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = next(
            (
                line.split(':')[1].strip() for line in open('/proc/cpuinfo', encoding='utf-8')
                if line.startswith('model name')
            ),
            platform.processor(),
        )
    return f'{name}; Python {platform.python_version()}, torch {torch.__version__}'


def seconds(step, device='cpu'):
    "Time of a call: CPU time of this process (one thread), or between two CUDA events."
    if device == 'cpu':
        start = time.process_time()
        step()
        return time.process_time() - start
    a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    a.record()
    step()
    b.record()
    torch.cuda.synchronize()
    return a.elapsed_time(b)/1e3


def in_turns(steps, rounds=9, device='cpu', clock=seconds, warm=None):
    "{name: [seconds of each round]}; `warm` rounds before them are not counted: one, if a quick look is not enough."
    warm = int(rounds > 2) if warm is None else warm
    found = {name: [] for name in steps}
    for k in range(rounds + warm):
        for name, step in steps.items():
            t = clock(step, device)
            if k >= warm: found[name].append(t)
    return found


@contextmanager
def tf32(on):
    "Whether a GPU may round the inputs of float32 products to 10 bits; PyTorch lets convolutions do that unasked."
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [p.allow_tf32 for p in places]
    for p in places: p.allow_tf32 = on
    try: yield
    finally:
        for p, was in zip(places, before): p.allow_tf32 = was


def wall(step, device=None):
    "Time on the clock, for what runs in several processes."
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratio(found, slow, fast):
    "Median of the rounds' ratios, with the smallest and the largest."
    r = sorted(a/b for a, b in zip(found[slow], found[fast]))
    return statistics.median(r), r[0], r[-1]


def shown(found, slow, fast): return '{:.2f} ({:.2f}–{:.2f})'.format(*ratio(found, slow, fast))


def verdict(asked, value, at_least=True):
    return 'holds' if (value >= asked if at_least else value <= asked) else '**missed**'


def parser(doc):
    "Flags that all benchmarks have."
    p = argparse.ArgumentParser(description=doc.splitlines()[0])
    p.add_argument('--quick', action='store_true',
                   help='small and few rounds, to see that it runs; writes only where --out says')
    p.add_argument('--out', type=Path, help='the file whose section is replaced (benchmarks/RESULTS.md)')
    return p


def publish(args, key, title, lines):
    "Print a section, and write it unless this was a quick look."
    print('\n'.join(lines))
    command = f'python benchmarks/{key}.py' + (' --quick' if args.quick else '')
    if args.out or not args.quick: write_section(key, title, command, lines, args.out or RESULTS)
