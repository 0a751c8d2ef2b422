"""Writes magnet.safetensors: frames, factors and what the network of `mpfnet.motion.magnet` with the weights
`seeded(3)` makes of them.

The numbers were compared with the public PyTorch port on the day this was made:
ZhengPeng7/motion_magnification_learning-based, commit 6093402, `MagNet.forward(..., mode='evaluate')` on 2x − 1 with
the same weights, clipped, and at the odd size cut to the input's. Largest absolute difference: 0 (torch 2.13, CPU).
Only this project's code is used here.

    python tests/golden/make_magnet.py
"""
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mpfnet.motion.magnet import random_magnet

SEED = 3
CASES = {'even': (2, 40, 48, [2., 8.]), 'odd': (1, 33, 46, [5.])}  # frames, H, W, one factor a frame


def pattern(n, h, w, shift, seed):
    "Waves of several lengths, moved to the right by `shift` px, stored in float16: (n, 3, h, w) in [0, 1]."
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:h, :w]
    fx, fy, phase = (rng.uniform(0.1, 0.6, (5, n, 3, 1, 1)), rng.uniform(-0.5, 0.5, (5, n, 3, 1, 1)),
                     rng.uniform(0, 6.28, (5, n, 3, 1, 1)))
    return torch.from_numpy(.5 + .08 * np.sin(fx * (x - shift) + fy * y + phase).sum(0)).clamp(0, 1).half()


if __name__ == '__main__':
    torch.set_num_threads(1)
    net, out = random_magnet(SEED), {}
    for seed, (name, (n, h, w, factors)) in enumerate(CASES.items()):
        a, b = pattern(n, h, w, 0, seed), pattern(n, h, w, .2, seed)
        alpha = torch.tensor(factors)
        out |= {f'{name}.A': a, f'{name}.B': b, f'{name}.alpha': alpha,
                f'{name}.magnified': net(a.float(), b.float(), alpha)}
    save_file({k: v.contiguous() for k, v in out.items()}, Path(__file__).with_name('magnet.safetensors'))
