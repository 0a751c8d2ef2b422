"""Writes ema_vfi.safetensors: two frames, and what EMA-VFI draws between them with made-up weights.

    python tests/golden/make_ema_vfi.py

With these weights and frames the authors' program (github.com/MCG-NJU/EMA-VFI, commit 75b6f6a, on a CPU) drew the same
pictures: the largest difference was 1.7e-6. Both official sizes, filled in the same way and read from a file by
load_official, differed from it by at most 2.6e-5 at 128×128, 100×140 and three other sizes. So the file stands for that
program: a change of mpfnet.motion.ema_vfi that changes these numbers changes what the official weights mean. Do not
write it anew to make a test pass.
"""
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mpfnet.motion.ema_vfi import EMAVFI

FILE = Path(__file__).with_name('ema_vfi.safetensors')
# the small official size, and a narrow one as deep as the large: (width, depths), times, columns kept
CASES = {'small': ((16, (2, 2)), (.25, .8)), 'deep': ((8, (4, 4)), (.4,))}
COLUMNS = slice(40, 104)


@torch.no_grad()
def fill(net, seed=0):
    """Weights from the seed alone, in the order of their names: spread ±√3/√(fan-in), slopes and scales 0.4–1.2,
    offsets ±0.35."""
    r, state = np.random.default_rng(seed), net.state_dict()
    for name in sorted(state):
        p = state[name]
        u = torch.from_numpy(r.random(tuple(p.shape), dtype=np.float32))
        if p.ndim > 1: p.copy_((2 * u - 1) * math.sqrt(3 / p[0].numel()))
        else: p.copy_(.4 + .8 * u if name.endswith('.weight') else .7 * u - .35)
    return net.eval().requires_grad_(False)


def frames(h=40, w=140, seed=0):
    "Two frames, uint8 (2, 1, 3, h, w): waves that move by two pixels, under noise."
    r = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    waves = [[.5 + .3 * np.sin((x + d) / (5 + c)) * np.cos((y - d) / (7 + c)) for c in range(3)] for d in (0, 2)]
    return torch.from_numpy(
        (255 * np.clip(waves + 0.1 * (r.random((2, 3, h, w)) - 0.5), 0, 1)).round().astype(np.uint8)
    )[:, None]


def draw(images, case):
    "(len(times), 3, h, 64): what a case draws between the frames."
    size, times = CASES[case]
    net, (I0, I1) = fill(EMAVFI(*size)), images / 255
    return torch.cat([net(I0, I1, t) for t in times])[..., COLUMNS].contiguous()


if __name__ == '__main__':
    torch.set_num_threads(1)
    images = frames()
    save_file({'frames': images, **{case: draw(images, case) for case in CASES}}, FILE)
    print(FILE.name, FILE.stat().st_size, 'bytes')
