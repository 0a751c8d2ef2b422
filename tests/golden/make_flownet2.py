"""Makes flownet2.safetensors: what FlowNet2 answers for known frames and seeded weights. Run it from the repository's
root:

    python tests/golden/make_flownet2.py

It uses only our own code. On the day it was written (with PyTorch 2.13 on a CPU), the public implementation
(github.com/NVIDIA/flownet2-pytorch, commit bce69c881ad2b11bef1e6ce9fd0dfd45bd8a1756) gave the same numbers for the same
frames and weights. Its layers were cut to the same width, and the text of its three CUDA kernels was compiled for the
CPU: every flow stored here was within 4.8e-6 px of its flow, and within 5.8e-6 px with the kernels rewritten as NumPy
loops. At full width, with 162,518,834 random parameters passed through a checkpoint file and frames of 128×128 and
100×140 px, the results differed by at most 4.1e-6 px with the weights of `random_init`, and by at most 2.3e-5 px (of
11) with the weights that the public code draws itself; the four flows before the result by at most 3.9e-5 px (of 84).
In those runs no correlation is negative, so they say nothing about the leaky ReLU behind it. With the biases of
flownetc.conv3 shifted until half of the correlations inside the frame are negative, all five flows differed by at most
7.4e-6 px (also 256×320 px), where leaving the ReLU out moves flow c by 2.3e-3 px.
"""
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mpfnet.motion.flownet2 import random_init

PATH = Path(__file__).with_name('flownet2.safetensors')


def frames(blocks, # (3, 32, 32) uint8
          # two (1, 3, 128, 128) frames: blocks of 4×4 px, and the same moved by 2 px to the right, 1 px up, and half as
          # bright at the bottom
          ):
    "Frames with edges, from a small stored picture: no arithmetic that could round differently elsewhere."
    I0 = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[None].float()
    I1 = I0.roll((-1, 2), (2, 3))
    I1[..., 100:, :] /= 2
    return I0, I1


def answers(net, blocks):
    "Every fourth pixel of the five flows, and of the result for frames of an odd size."
    I0, I1 = frames(blocks)
    flows = net.estimates(I0, I1) | {'odd': net(I0[..., :100, :90], I1[..., :100, :90])}
    return {k: f.detach()[..., 1::4, 2::4].contiguous() for k, f in flows.items()}


if __name__ == '__main__':
    torch.set_num_threads(1)
    blocks = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))
    save_file({'blocks': blocks, **answers(random_init(width=1/16, seed=0), blocks)}, PATH)
    print(f'{PATH.name}: {PATH.stat().st_size} bytes')
