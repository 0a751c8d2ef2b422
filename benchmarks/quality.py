"""How good are flow, interpolation and magnification? Measured on a photograph that is moved by a known motion.

    python benchmarks/quality.py            # writes the section "Quality" of benchmarks/RESULTS.md
    python benchmarks/quality.py --quick    # two seeds, prints only

Definitions. The photograph is the face in scikit-image's astronaut, 128×128, computed with and never stored. A motion
is three Gaussian pushes
with random places, widths and directions, scaled to a peak in px, all drawn from a seed. A frame is one cubic
resampling of the photograph along the
exact inverse of the motion, plus noise of one grey level, rounded to 8 bits. The moving region is where the motion is
at least REGION of its peak.
"""
import argparse
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from results import RESULTS, write_section
from scipy.ndimage import map_coordinates
from skimage import __version__ as skimage_version
from skimage import data
from skimage.registration import optical_flow_ilk

from mpfnet.core.workers import one_thread
from mpfnet.motion.flow import flow, gray, warp
from mpfnet.motion.interpolate import intermediate_flows, interpolate
from mpfnet.motion.magnify import magnify
from mpfnet.synthetic.faces import invert

N = 128            # px along a side
# of the peak; the mean motion there, which is what the answer "nothing moves" errs by, is 0.58 of the peak
REGION = .3
FIRST_SEED = 1000  # none of the seeds that the notebooks use or that a choice was made on

PEAKS, FACTORS = (.2, .5, 1, 2), (5, 8, 14)
#: what is asked for: table, row → largest (flow, factor) or smallest (psnr) value in each column
TARGETS = {
    ('flow', 'dis'): (0.030, 0.065, 0.105, 0.165),
    ('flow', 'ilk'): (0.035, 0.072, 0.125, 0.235),
    ('ilk against scikit-image', 'difference'): (0.005,) * 4,
    ('interpolation', 'flow'): (47.5, 46.0),
    ('magnification', 'lagrangian'): (35, 31, 26),
    ('factor', 'lagrangian'): (0.12,) * 3,
    ('speed', 'ilk'): (10,),
}
AT_LEAST = ('interpolation', 'magnification', 'speed')


# The moved photograph

def photograph():
    "The face, 200×200×3 in [0, 1], slightly blurred so that it can be resampled."
    return cv2.GaussianBlur(data.astronaut()[:200, 125:325].astype(np.float32)/255, (0, 0), .7)


def pushes(peak, seed, n=N):
    "A smooth motion (2, n, n) with the wanted peak, px, x right, y down."
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:n, :n].astype(np.float32)
    d = np.zeros((2, n, n), np.float32)
    for _ in range(3):
        cy, cx, sy, sx, a = *rng.uniform(.25, .75, 2)*n, *rng.uniform(.06, .14, 2)*n, rng.uniform(0, 2*np.pi)
        d += (
            np.exp(-0.5 * ((y - cy) / sy) ** 2 - 0.5 * ((x - cx) / sx) ** 2)
            * np.array([np.cos(a), np.sin(a)], np.float32)[:, None, None]
        )
    return d*(peak/np.sqrt((d**2).sum(0)).max())


def moved(photo, d):
    "The photograph moved by d, without noise: (3, n, n) in [0, 1]."
    n, b = d.shape[-1], invert(d, 30)
    y, x = np.mgrid[:n, :n]
    at = [(y + b[1] + .5)*len(photo)/n - .5, (x + b[0] + .5)*len(photo)/n - .5]
    return torch.tensor(np.stack([map_coordinates(c, at, order=3, mode='nearest') for c in photo.transpose(2, 0, 1)]),
                        dtype=torch.float32)


def filmed(image, *seed):
    "What a camera makes of it: noise of one grey level, 8 bits."
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    return torch.tensor(np.clip(np.rint(image.numpy()*255 + noise), 0, 255)/255, dtype=torch.float32)


def region(d, share=REGION):
    length = np.sqrt((d**2).sum(0))
    return torch.tensor(length >= share*length.max())


def error(f, d): return float((f - torch.tensor(d)).square().sum(0).sqrt()[region(d)].mean())
def psnr(a, b, mask): return float(-10*torch.log10((a - b).square()[..., mask].mean()))


def pair(photo, peak, seed):
    "Motion, its two filmed frames."
    d = pushes(peak, seed)
    return d, filmed(moved(photo, 0*d), seed, int(10*peak), 0), filmed(moved(photo, d), seed, int(10*peak), 1)


# Flow

def scikit_image_ilk(a, b):
    v, u = optical_flow_ilk(gray(a)[0].numpy(), gray(b)[0].numpy(), radius=7, gaussian=True, prefilter=True)
    return torch.tensor(np.stack([u, v]))


FLOW_METHODS = {'nothing moves': lambda a, b: torch.zeros(2, N, N), 'dis': lambda a, b: flow(a, b, 'dis'), 'ilk': flow,
                'scikit-image ilk': scikit_image_ilk, 'farneback': lambda a, b: flow(a, b, 'farneback'),
                'tvl1': lambda a, b: flow(a, b, 'tvl1'), 'dis as OpenCV ships it': lambda a,
                b: flow(a, b, 'dis', finest_scale=1, patch_stride=3)}


def measure_flow(seeds):
    "End-point error, px; the methods take turns on each pair."
    photo, rows = photograph(), []
    for seed in seeds:
        for peak in PEAKS:
            d, a, b = pair(photo, peak, seed)
            for name, f in FLOW_METHODS.items():
                start = time.perf_counter()
                found = f(a, b)
                rows.append(
                    dict(row=name, column=peak, seed=seed, seconds=time.perf_counter() - start, value=error(found, d))
                )
    return pd.DataFrame(rows)


def measure_speed(rounds, pairs=10):
    "Seconds for the ten pairs of one clip, or the first of them, in turns."
    photo = photograph()
    d, a, b = pair(photo, 1, 0)
    frames = interpolate(a, b)[:pairs + 1]
    ways = {'ilk': lambda: flow(frames[:-1], frames[1:]),
            'ilk, pair by pair': lambda: [flow(i, j) for i, j in zip(frames[:-1], frames[1:])],
            'scikit-image ilk': lambda: [scikit_image_ilk(i, j) for i, j in zip(frames[:-1], frames[1:])]}
    rows = []
    for r in range(rounds + 1):
        for name, f in ways.items():
            start = time.perf_counter()
            f()
            rows.append(dict(round=r, way=name, seconds=time.perf_counter() - start))
    # the first round warms up
    t = pd.DataFrame(rows).query('round > 0').pivot(index='round', columns='way', values='seconds')
    return t.rdiv(t['scikit-image ilk'], axis=0)


# Interpolation

def by_flow(a, b, flows, mode):
    "The `flow` method with a flow that is given."
    t = torch.arange(1, 10)/10
    x, y = (warp(i, f, mode) for i, f in zip((a, b), intermediate_flows(*flows, t)))
    return torch.lerp(x, y, t.view(-1, 1, 1, 1)).clamp(0, 1)


def measure_interpolation(seeds):
    "PSNR against the clean frames between, mean over t = 0.1 … 0.9."
    photo, rows = photograph(), []
    for seed in seeds:
        for peak in (1, 2):
            d, a, b = pair(photo, peak, seed)
            truth, mask, true_flows = (torch.stack([moved(photo, d * t / 10) for t in range(1, 10)]), region(d),
                                       (torch.tensor(d), torch.tensor(invert(d, 30))))
            made = {'blend': interpolate(a, b, 11, 'blend')[1:-1], 'flow': interpolate(a, b)[1:-1],
                    'flow, bicubic lookups': interpolate(a, b, mode='bicubic')[1:-1],
                    'true flow': by_flow(a, b, true_flows, 'spline'),
                    'true flow, bicubic lookups': by_flow(a, b, true_flows, 'bicubic')}
            for name, frames in made.items():
                value, wide = (float(np.mean([psnr(x, y, k) for x, y in zip(frames, truth)]))
                               for k in (mask, region(d, 0.1)))
                rows.append(dict(row=name, column=peak, seed=seed, value=value, wide=wide))
    return pd.DataFrame(rows)


# Magnification

def measure_magnification(seeds):
    """PSNR against the clean magnified frame, in the moving region and where next to nothing moves, and the achieved
    factor: slope of the motion found in the copy on the true one."""
    photo, rows = photograph(), []
    for seed in seeds:
        d, a, b = pair(photo, .5, seed)
        mask, still, motion = region(d), ~region(d, .1), torch.tensor(d)
        truth = {m: moved(photo, m*d) for m in FACTORS}
        ways = {
            name: magnify(torch.stack([a, b]), list(FACTORS), **options)[:, 1]
            for name, options in {'lagrangian': {}, 'lagrangian, spline lookups': dict(mode='spline'),
                                  'lagrangian, dis': dict(flow_method='dis'), 'phase': dict(method='phase')}.items()
        }
        for name, copies in {**ways, 'the true frame': truth.values()}.items():
            for m, copy in zip(FACTORS, copies):
                found = flow(a, copy, levels=4, rounds=8)
                rows.append(
                    dict(row=name, column=m, seed=seed, value=psnr(copy, truth[m], mask),
                         background=psnr(copy, truth[m], still),
                         factor=float((found * motion)[:, mask].sum() / motion.square()[:, mask].sum()))
                )
    return pd.DataFrame(rows)


# The report

def table(found, digits, value='value', first='', drop=()):
    "Markdown: mean ± standard deviation over the seeds."
    stats = found[~found.row.isin(drop)].groupby(['row', 'column'], sort=False)[value].agg(['mean', 'std'])
    columns = list(dict.fromkeys(found.column))
    lines = [f'| {first} | ' + ' | '.join(map(str, columns)) + ' |', '|---'*(len(columns) + 1) + '|']
    for row in dict.fromkeys(i[0] for i in stats.index):
        lines.append(
            f'| {row} | '
            + ' | '.join(f'{stats.loc[(row, c), "mean"]:.{digits}f} ± {stats.loc[(row, c), "std"]:.{digits}f}'
                         for c in columns)
            + ' |'
        )
    return '\n'.join(lines)


def verdicts(flows, speed, between, magnified):
    "Each target and what was found: [(name, row, targets, values, holds), …]."

    def means(found, row, value='value'):
        return [float(v) for v in found[found.row == row].groupby('column', sort=False)[value].mean()]
    off = np.array(means(magnified, 'lagrangian', 'factor'))/FACTORS - 1
    apart = (
        flows[flows.row == 'ilk'].set_index(['column', 'seed']).value
        - flows[flows.row == 'scikit-image ilk'].set_index(['column', 'seed']).value
    )
    values = {('flow', 'dis'): means(flows, 'dis'), ('flow', 'ilk'): means(flows, 'ilk'),
              ('ilk against scikit-image', 'difference'): apart.abs().groupby('column', sort=False).mean().tolist(),
              ('interpolation', 'flow'): means(between, 'flow'),
              ('interpolation', 'flow, bicubic lookups'): means(between, 'flow, bicubic lookups'),
              ('magnification', 'lagrangian'): means(magnified, 'lagrangian'),
              ('factor', 'lagrangian'): np.abs(off).tolist(), ('speed', 'ilk'): [float(speed['ilk'].median())]}
    out = []
    for (name, row), found in values.items():
        goal = TARGETS.get((name, row)) or TARGETS[name, 'flow']
        out.append((name, row, goal, found, all(f >= g if name in AT_LEAST else f <= g for f, g in zip(found, goal))))
    return out


def report(flows, speed, between, magnified):
    "The section's text, without its title."
    seconds = flows.groupby('row', sort=False).seconds.median()
    times = ', '.join(f'{name} {s/seconds["dis"]:.2g}' for name, s in seconds.items() if name != 'nothing moves')
    lines = [
        f'| {name} | {row} | {"≥" if name in AT_LEAST else "≤"} {" / ".join(f"{g:g}" for g in goal)} | '
        f'{" / ".join(f"{f:.3g}" for f in found)} | {"holds" if ok else "**missed**"} |'
        for name, row, goal, found, ok in verdicts(flows, speed, between, magnified)
    ]
    wide = ', '.join(
        f'{name} '
        f'{" / ".join(f"{v:.1f}" for v in between[between.row == name].groupby("column", sort=False).wide.mean())}'
        for name in ('flow', 'flow, bicubic lookups')
    )
    ranges = ', '.join(f'{w}: {speed[w].median():.1f} (from {speed[w].min():.1f} to {speed[w].max():.1f})'
                       for w in speed if w != 'scikit-image ilk')
    return f'''{flows.seed.nunique()} seeds, mean ± standard deviation over the seeds; one thread; Python \
{platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}, scikit-image {skimage_version}.

Measured on a photograph (the face in scikit-image's astronaut, 128×128) moved by three Gaussian pushes that the seed \
draws, both frames with noise of one grey level, in 8 bits. The moving region is where the motion is at least \
{REGION:g} of its peak.

| what | method | asked | got | |
|---|---|---|---|---|
{chr(10).join(lines)}

**Optical flow**, end-point error in the moving region, px, by the motion's peak in px.

{table(flows, 3, first='peak')}

Time of a pair, `dis` = 1, in turns on the same pairs: {times}. Ten pairs of a clip at once, speed as a multiple of \
scikit-image's ILK, in turns: {ranges}.

**Interpolation**, PSNR in the moving region, dB, mean over t = 0.1 … 0.9, by the peak in px. `true flow` puts the \
true motion in place of the estimated one; it is the limit that the lookups between pixels set.
The default looks up by a quintic spline; `mode='bicubic'` by torch's bicubic kernel.

{table(between, 1, first='peak')}

These numbers depend on what counts as moving: above a tenth of the peak instead of {REGION:g} they are {wide}.

**Magnification** of a motion of 0.5 px, PSNR in the moving region, dB, by the total factor m.

{table(magnified, 1, first='m', drop=['the true frame'])}

Achieved factor. It is measured by flow (ILK, 4 levels, 8 rounds), which errs itself: the last row is what it finds in \
the true magnified frame.

{table(magnified, 2, 'factor', first='m')}

PSNR in the background, where the motion is less than a tenth of its peak, dB.

{table(magnified, 1, 'background', first='m', drop=['the true frame'])}
'''


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=24, help='how many, at least 2 (24)')
    parser.add_argument('--quick', action='store_true', help='two seeds; writes only where --out says')
    parser.add_argument('--out', type=Path, help='the file whose section is replaced (benchmarks/RESULTS.md)')
    args = parser.parse_args(argv)
    if args.seeds < 2: parser.error(f'--seeds: expected at least 2, found {args.seeds}')
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if args.quick else args.seeds))
    command = 'python benchmarks/quality.py' + (
        ' --quick' if args.quick else f' --seeds {args.seeds}' if args.seeds != 24 else ''
    )
    with one_thread():
        text = report(measure_flow(seeds), measure_speed(*(1, 2) if args.quick else (7,)), measure_interpolation(seeds),
                      measure_magnification(seeds))
    print(text)
    if args.out or not args.quick:
        write_section('quality', 'Quality', command, text.strip().split('\n'), args.out or RESULTS)


if __name__ == '__main__': main()
