"""Real clips of the flow with time against the other public release.

    python benchmarks/flow_with_time.py FOLDER [DATA_ROOT]

FOLDER holds files in the format of `Data/OpticalFlowFeatureData.txt` (the release itself, or its `Test_optical.txt` of
single people); DATA_ROOT holds megc2019_flow. Printed are, for each dataset: clips; whether what moves is one stretch
of steps; and how far the sum of the rise goes with the 28×28 flow, u / v (mean over the clips of Pearson's r).
"""
import sys
from pathlib import Path

import cv2
import numpy as np

from mpfnet.clips import load_clips
from mpfnet.data.steps import blocks_in, moving, named_clip, plain_lines, steps_from


def clips_in(folder):
    "(dataset, subject, clip) → steps, of all files; all that is wrong with them."
    found, problems = {}, []
    for path in sorted(Path(folder).rglob('*ptical*.txt')):
        blocks = blocks_in(plain_lines(path.read_bytes(), path), problems)
        found |= {named_clip(b.name): steps_from(b.rows) for b in blocks}
    return found, problems


def one_stretch(steps):
    "Whether the steps with any flow follow each other, the apex among them or beside them."
    rise, fall = moving(steps)
    there = np.flatnonzero(steps.any((0, 2, 3)))
    return np.array_equal(there, np.arange(rise.start, fall.stop))


def agreement(steps, image):
    "Pearson's r of the rise's sum with the 28×28 image, for u and v."
    other = cv2.resize(image[..., :2].astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)
    way = steps[:, moving(steps)[0]].sum(1)
    return [np.corrcoef(way[k].ravel(), other[..., k].ravel())[0, 1] for k in (0, 1)]


def main(folder, root=None):
    clips, problems = clips_in(folder)
    table = load_clips('megc2019_flow', root)
    images = {(r.dataset, r.subject, r.clip): next(iter(r.frames.values())) for r in table.table.itertuples()}
    print(f'{len(clips)} clips, {len(problems)} problems, {sum(map(one_stretch, clips.values()))} in one stretch')
    for d in sorted({d for d, _, _ in clips}):
        mine = {k: s for k, s in clips.items() if k[0] == d and k in images}
        r = np.mean([agreement(s, cv2.imread(images[k])[..., ::-1]) for k, s in mine.items()], 0)
        print(f'{d}: {len(mine)} clips, r of u {r[0]:.2f}, of v {r[1]:.2f}')


if __name__ == '__main__': main(*sys.argv[1:])
