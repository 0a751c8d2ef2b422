"""Features of a clip: its fifteen magnified copies together against one by one, and where the time goes.

    python benchmarks/preprocess.py [--quick]

Drawn faces (a look-alike of MMEW), the default back ends at 128×128, L = 11, one thread. `benchmarks/store.py` measures
whole stores: clips a second, processes, kills.
"""
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from turns import in_turns, machine, parser, publish, shown

from mpfnet.clips import load_clips
from mpfnet.core.workers import one_thread
from mpfnet.motion.flow import flow
from mpfnet.motion.interpolate import interpolate
from mpfnet.motion.magnify import magnify
from mpfnet.preprocess import PreprocessConfig, clip_features
from mpfnet.store import FeatureStore
from mpfnet.synthetic.lookalike import make_lookalike


def together(clips, phis):
    "All copies of each clip through the store, in a folder of its own."
    with tempfile.TemporaryDirectory() as d:
        store = FeatureStore(d, PreprocessConfig(), 'frames')
        rows = store.ensure(clips.iloc[np.repeat(np.arange(len(clips)), len(phis))], np.tile(phis, len(clips)),
                            progress=False)
        return np.array(store.F[rows])


def one_by_one(clips, phis):
    return np.stack([clip_features(clips.iloc[i], PreprocessConfig(), int(p)) for i in range(len(clips)) for p in phis])


def stages(rounds):
    "CPU time of the stages of one clip that is cut already, and of 14 copies of it."
    import torch
    a, b = torch.rand(2, 3, 128, 128).mul(.1).add(torch.linspace(0, .9, 128))
    frames = interpolate(a, b)
    steps = {'interpolation, 11 frames': lambda: interpolate(a, b),
             'flow, 10 pairs': lambda: flow(frames[:-1], frames[1:]),
             'magnification, 1 copy': lambda: magnify(torch.stack([a, b]), [8]),
             'magnification, 14 copies': lambda: magnify(torch.stack([a, b]), list(range(2, 16)))}
    return in_turns(steps, rounds)


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    warnings.simplefilter('ignore')
    phis, rounds, n = (np.arange(3), 1, 1) if args.quick else (np.arange(15), 7, 2)
    with tempfile.TemporaryDirectory() as d, one_thread():
        make_lookalike('mmew', Path(d), subjects=2, size=128, progress=False)
        clips = load_clips('mmew', d, task=None).iloc[:n]
        assert np.array_equal(together(clips, phis), one_by_one(clips, phis)), (
            'copies made together differ from copies made one by one'
        )
        t = in_turns({'one by one': lambda: one_by_one(clips, phis), 'together': lambda: together(clips, phis)}, rounds)
        parts = pd.Series({k: np.median(v)*1e3 for k, v in stages(rounds).items()})
    lines = [
        f'{rounds} rounds in turns, CPU time of one thread, median (smallest–largest); {machine()}. Synthetic faces.',
        '',
        f'The clip and its copies φ = 1…{phis[-1]}, in one go (what the store does: the face is found once, '
        f'interpolation and flow belong to each copy and are nearly all of the work): '
        f'**{shown(t, "one by one", "together")}** times as fast as one by one, the same bytes. '
        f'{np.median(t["together"]) / n / len(phis) * 1e3:.0f} ms a row.',
        '',
        '| stage, 128×128 | ms |',
        '|---|---|',
        *[f'| {k} | {v:.0f} |' for k, v in parts.items()],
    ]
    publish(args, 'preprocess', 'Features of a clip', lines)


if __name__ == '__main__': main()
