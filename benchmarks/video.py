"""How fast is a video of one's own analysed, in how much memory, and how soon does it say something?

    python benchmarks/video.py            # writes the section "Own video" of benchmarks/RESULTS.md
    python benchmarks/video.py --quick    # prints only; half a minute instead of ten
    python benchmarks/video.py --look     # prints only; what the second reading and the copy cost

A drawn face of 400 px, 1920×1080 px, 20 frames a second, ten seconds long; the ten minutes are the same frames sixty
times: an mp4 whose index names the same bytes again and again. Each command runs in a process of its own, on two
threads; seconds of its CPU time stand beside those of the clock, since another process may be at work.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import write_section

from mpfnet.synthetic.films import Act, Film, Person, _edit_index, _put, draw_film, write_film

FPS, SECONDS, TIMES, QUICK = 20, 10, 60, 3


def repeated(source, path, times):
    "The frames of an mp4 with one stream, several times one after the other; the file grows by its index only."
    path.write_bytes(source.read_bytes())
    def edit(box):
        def numbers(name, at): return np.frombuffer(box[name][1], '>u4', offset=at).astype(int)
        def put(name, head, values):
            data = np.concatenate(values).astype('>u4').tobytes()
            box[name][1] = box[name][1][:head - 4] + struct.pack('>I', len(data)//per[name]) + data
        per = dict.fromkeys((b'stsz', b'stco', b'stss'), 4) | {b'stts': 8, b'stsc': 12}
        sizes, chunks, keys = numbers(b'stsz', 12), numbers(b'stco', 8), numbers(b'stss', 8)
        spans, parts = numbers(b'stts', 8).reshape(-1, 2), numbers(b'stsc', 8).reshape(-1, 3)
        steps = [(k*np.array([len(sizes), len(chunks)])) for k in range(times)]
        put(b'stsz', 12, [sizes]*times)
        put(b'stco', 8, [chunks]*times)
        put(b'stss', 8, [keys + n for n, _ in steps])
        put(b'stts', 8, [spans.ravel()]*times)
        put(b'stsc', 8, [(parts + (c, 0, 0)).ravel() for _, c in steps])
        for name, at in ((b'mvhd', 16), (b'tkhd', 20), (b'mdhd', 16), (b'elst', 8)):
            _put(box[name], at, '>I', times*struct.unpack_from('>I', box[name][1], at)[0])
    _edit_index(path, edit)
    return path


def measured(*command):
    "Run `mpfnet`: seconds of the clock, of CPU time, until its first line; most memory (MB)."
    env = os.environ | dict(OMP_NUM_THREADS='1', MPFNET_PROGRESS='bar')
    began, first = time.monotonic(), None
    process = subprocess.Popen([sys.executable, '-m', 'mpfnet', *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env=env)
    while piece := os.read(process.stderr.fileno(), 4096):
        first = first or (time.monotonic() - began if piece.strip() else None)
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return dict(clock=time.monotonic() - began, cpu=used.ru_utime + used.ru_stime, first=first,
                memory=used.ru_maxrss/1024)


def short_film(folder):
    acts = (Act(kind='micro', start=2., units=(1, 2), peak=1.8), Act(kind='blink', start=5., units=(43,), peak=7))
    film = Film(people=(Person(subject=1, size=400, acts=acts),), times=tuple(np.arange(SECONDS*FPS)/FPS), seed=1,
                width=1920, height=1080)
    return write_film(folder/'short.mp4', draw_film(film), fps=FPS)


def row(name, frames, m):
    first = '' if m['first'] is None else f'{m["first"]:.1f}'
    rate = f'{frames/m["clock"]:.0f} | {frames/m["cpu"]:.0f}' if frames else ' | '
    return f'| {name} | {m["clock"]:.1f} | {m["cpu"]:.1f} | {rate} | {first} | {m["memory"]:.0f} |'


def table(folder, times):
    "Rows: a short video, a long one, its signal once more."
    short, out = short_film(folder), folder/'out'
    long = repeated(short, folder/'long.mp4', times)
    yield '| what | seconds | CPU seconds | frames a second | a CPU second | first line after (s) | most memory (MB) |'
    yield '|---'*7 + '|'
    yield row(f'{SECONDS} s', SECONDS*FPS, measured('predict', short, '--out', out))
    yield row(f'{times*SECONDS} s', times*SECONDS*FPS, measured('predict', long, '--out', out))
    yield row('the second, `--again`', 0, measured('predict', long, '--out', out, '--again', '--sensitivity', 8))


def readings(folder):
    "What each reading of the short video costs."
    from mpfnet.predict import predict
    from mpfnet.video.name import strips_of
    from mpfnet.video.overlay import write_overlay
    from mpfnet.video.read import open_video
    from mpfnet.video.spot import signal_of
    short = short_film(folder)
    def timed(f):
        began = time.process_time()
        f()
        return time.process_time() - began
    found = predict(short, progress=False)
    what = dict(decoding=lambda: sum(1 for _ in open_video(short).frames()),
                first=lambda: signal_of(open_video(short).frames()),
                second=lambda: list(strips_of(found.video, found.events, found.signal, True)),
                copy=lambda: write_overlay(found.video, found.events, found.signal, folder/'a.webm'))
    seconds = {k: timed(f) for k, f in what.items()}
    return (f'CPU seconds for {SECONDS*FPS} frames: decoding alone {seconds["decoding"]:.2f}, the first reading '
            f'{seconds["first"]:.2f}, the second, as far as the last event, {seconds["second"]:.2f}, a copy with the '
            f'events marked {seconds["copy"]:.2f}.')


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('--quick', action='store_true', help='print only, with a long video of half a minute')
    p.add_argument('--look', action='store_true', help='print only what each reading costs')
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.look: return print(readings(Path(folder)))
        lines = list(table(Path(folder), QUICK if args.quick else TIMES))
        if not args.quick: lines += ['', readings(Path(folder))]
    lines += ['', '1080p, one drawn face of 400 px. It must be: 40 frames a second on two cores, the same memory for a '
                  'minute as for ten, a first line within 5 s, `--again` within 2 s. Drawn: says nothing of people.']
    print('\n'.join(lines))
    if not args.quick: write_section('own video', 'Own video', 'python benchmarks/video.py', lines)


if __name__ == '__main__': main()
