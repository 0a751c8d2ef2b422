"""Anonymous memory of a training process that reads N, 2N and 4N clips from the store.

    python benchmarks/memory.py [--quick]

PLSM learns from magnified copies, which are most of the data; they are read batch by batch from a memory map and must
not pile up. The raw training clips are kept, in float32.
One process for each size; random features of the `light` preset, 64×64.
"""
import multiprocessing
import tempfile

import numpy as np
from turns import machine, parser, publish, verdict


def most_seen(
    path,    # of the features
    raw,     # clips
    copied,  # copies of each
    shape,   # of a clip
):
    "In a process of its own: kB of anonymous memory, the most seen between forward and backward passes of PLSM."
    import pandas as pd
    import torch

    import mpfnet.plsm as plsm
    from mpfnet.ca_i3d import EncoderConfig
    from mpfnet.folds import Fold
    from mpfnet.motion.inputs import AugmentConfig
    from mpfnet.priors import Prepared
    torch.set_num_threads(1)
    features = np.memmap(path, np.float16, 'r', shape=(raw*(1 + copied), *shape))
    clips = pd.DataFrame(dict(dataset='demo', subject=[f's{i//4}' for i in range(raw)],
                              clip=[f'c{i}' for i in range(raw)], label=np.arange(raw) % 3, input='frames'))
    rows = {(i, p): raw*p + i for i in range(raw) for p in range(1, copied + 1)}
    data = Prepared(Fold(clips, features, [('demo', 's0')], copies=rows))
    seen, loss_of = [0], plsm.F.cross_entropy
    def watched(*a, **k):
        out = loss_of(*a, **k)           # between forward and backward pass: all activations are there
        lines = open('/proc/self/status', encoding='utf-8')
        seen.append(next(int(line.split()[1]) for line in lines if line.startswith('RssAnon')))
        return out
    plsm.copies_of = lambda *a: np.full(len(data), copied)
    plsm.F.cross_entropy = watched
    plsm.train_plsm(data, EncoderConfig(width=.125, embedding=16, grid=(1, 4, 4)),
                    plsm.PLSMConfig(epochs=1, batch=16), AugmentConfig(), 3)
    return max(seen)


def anonymous(raw, copied, shape, way): # way: 'spawn', a fresh process; 'fork' need not import anything again
    "MB of anonymous memory, the most seen between forward and backward passes of an epoch of PLSM."
    with tempfile.NamedTemporaryFile() as f, multiprocessing.get_context(way).Pool(1) as pool:
        np.memmap(f.name, np.float16, 'w+', shape=(raw*(1 + copied), *shape)).flush()
        return pool.apply(most_seen, (f.name, raw, copied, shape))/1024


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    shape, n = ((5, 10, 32, 32), 8) if args.quick else ((5, 10, 64, 64), 64)
    clip = 4*np.prod(shape)/2**20                                       # MB of a clip in float32
    way = 'fork' if args.quick else 'spawn'
    first = anonymous(n, 4, shape, way)
    copies = {4: first} | {k: anonymous(n, k, shape, way) for k in (8, 16)}  # the same clips, more copies
    clips = {1: first} | {k: anonymous(k*n, 4, shape, way) for k in (2, 4)}  # more clips
    per_copy = np.polyfit([n*k for k in copies], list(copies.values()), 1)[0]
    per_clip = np.polyfit([n*k for k in clips], list(clips.values()), 1)[0]
    def cells(d): return ' | '.join(f'{v:.0f}' for v in d.values())

    lines = [
        f'MB of anonymous memory, the most seen in an epoch of PLSM with a small encoder; a clip is {clip:.2f} MB in '
        f'float32; {machine()}.',
        '',
        '| | N | 2N | 4N | slope, MB each | asked | |',
        '|---|---|---|---|---|---|---|',
        f'| magnified copies, N = {4 * n} of {n} clips | {cells(copies)} | {per_copy:.4f} | ≤ 5 % of a copy | '
        f'{verdict(0.05 * clip, per_copy, False)} |',
        f'| raw clips, N = {n}, 4 copies each | {cells(clips)} | {per_clip:.3f} | ≤ 1.2 clips: they are kept | '
        f'{verdict(1.2 * clip, per_clip, False)} |',
        '',
        'The store itself, while it is filled: see `python benchmarks/store.py`.',
    ]
    publish(args, 'memory', 'Memory', lines)


if __name__ == '__main__': main()
