"""Rows of the feature store as they were made before several clips could be computed together: `rows.safetensors`, and
the code that made them.

    python tests/golden/make_rows.py        # writes the file anew; only where rows are meant to change

The functions are what the library computed at that time, one copy of one clip after the other (its matrices of blur,
spline and time, grey levels and DIS are the library's own): on any machine the library's rows must be these, to the
last bit. The file holds some of them in figures: on other processors the last digits differ.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mpfnet.motion.flow import _MEDIAN9, _blur_matrix, dis, finer, gray
from mpfnet.motion.interpolate import time_weights

FILE = Path(__file__).with_name('rows.safetensors')


def drawn(n, size, steps):
    """Frames (steps, 3, size, size) of a texture of waves whose middle moves by up to 1.5 px, in 256 grey levels;
    clip n."""
    r, (y, x) = np.random.default_rng(n), np.mgrid[:size, :size].astype(float)
    waves = r.uniform(.2, 1.2, (9, 2)), r.uniform(0, 7, (9, 3, 1, 1)), 1.5*r.uniform(-1, 1, 2)
    push = np.exp(-((x - size/2)**2 + (y - size/2)**2)/(size/4)**2)

    def frame(t):
        return sum(np.sin(fx * (x - t * waves[2][0] * push) + fy * (y - t * waves[2][1] * push) + phase) for (fx, fy),
                   phase in zip(waves[0], waves[1]))

    return torch.from_numpy(
        np.stack([(frame(t) * 14 + 128).round().clip(0, 255) / 255 for t in np.linspace(0, 1, steps)])
    ).float()


#: name → frames, length, what is asked of `interpolate`, φ of the copies, frame numbers
CASES = {'two frames': (drawn(0, 32, 2), 5, 'flow', (0, 3), None),
         'recorded frames': (drawn(1, 24, 6), 4, 'frames', (0, 2), [0, 1, 3, 4, 5, 9])}


def warp(image, flow, mode):
    h, w = image.shape[-2:]
    if mode == 'spline': image, mode = finer(image), 'bilinear'
    image = image.expand(*flow.shape[:-3], *image.shape[-3:])
    x = torch.arange(w, dtype=flow.dtype) + flow[..., 0, :, :]
    y = torch.arange(h, dtype=flow.dtype)[:, None] + flow[..., 1, :, :]
    grid = torch.stack([x*(2/(w - 1)) - 1, y*(2/(h - 1)) - 1], -1)
    return F.grid_sample(image.reshape(-1, *image.shape[-3:]), grid.reshape(-1, h, w, 2), mode, 'border',
                         align_corners=True)


def blur(x, sigma): return _blur_matrix(x.shape[-2], sigma, x.device) @ x @ _blur_matrix(x.shape[-1], sigma, x.device).T


def median3(x):
    h, w = x.shape[-2:]
    p = F.pad(x, (1, 1, 1, 1), mode='reflect')
    v = [p[..., i:i+h, j:j+w] for i in range(3) for j in range(3)]
    for a, b in _MEDIAN9: v[a], v[b] = torch.minimum(v[a], v[b]), torch.maximum(v[a], v[b])
    return v[4]


def lk_step(a, b, flow, sigma):
    flow = median3(flow)
    moved = warp(b, flow, 'bilinear')
    gx, gy = torch.gradient(moved, dim=-1)[0], torch.gradient(moved, dim=-2)[0]
    u, v = flow[:, :1], flow[:, 1:]
    e = gx*u + gy*v + a - moved
    xx, xy, yy, xe, ye = blur(torch.cat([gx*gx, gx*gy, gy*gy, gx*e, gy*e], 1), sigma).split(1, 1)
    xx, yy = xx + 1e-8, yy + 1e-8
    det = xx*yy - xy*xy
    return torch.cat([yy*xe - xy*ye, xx*ye - xy*xe], 1)/det


def ilk_piece(A, B, radius=7, levels=3, rounds=3):
    pyramid = [(A, B)]
    while len(pyramid) < levels and min(pyramid[-1][0].shape[-2:]) >= 32:
        pyramid.append(tuple(F.interpolate(i, scale_factor=.5, mode='bilinear', antialias=True) for i in pyramid[-1]))
    flow = torch.zeros_like(pyramid[-1][0]).repeat(1, 2, 1, 1)
    for a, b in reversed(pyramid):
        if flow.shape[-2:] != a.shape[-2:]:
            scale = torch.tensor([a.shape[-1]/flow.shape[-1], a.shape[-2]/flow.shape[-2]]).view(2, 1, 1)
            flow = F.interpolate(flow, a.shape[-2:], mode='bilinear')*scale
        for _ in range(rounds): flow = lk_step(a, b, flow, (2*radius + 1)/4)
    return flow


def ilk(A, B):
    A, B = gray(A), gray(B)
    n = max(1, 2**16//A[0].numel())
    return torch.cat([ilk_piece(a, b) for a, b in zip(A.split(n), B.split(n))])


def lagrangian(frames, factors):
    f = ilk(frames[1:], frames[:1].expand(len(frames) - 1, -1, -1, -1))
    return torch.stack([torch.cat([frames[:1], warp(frames[0], m*f, 'bicubic').clamp(0, 1)]) for m in factors])


def intermediate_flows(f01, f10, t):
    t = t.view(-1, 1, 1, 1)
    return -(1 - t)*t*f01 + t*t*f10, (1 - t)**2*f01 - t*(1 - t)*f10


def interpolate(onset, apex, length, flow):
    t = torch.arange(1, length - 1)/(length - 1)
    f01, f10 = flow(torch.stack([onset, apex]), torch.stack([apex, onset]))
    a, b = (warp(x, f, 'spline') for x, f in zip((onset, apex), intermediate_flows(f01, f10, t)))
    return torch.cat([onset[None], torch.lerp(a, b, t.view(-1, 1, 1, 1)).clamp(0, 1), apex[None]])


def sample_recorded(frames, times, length):
    middle = time_weights(torch.as_tensor(times).double(), length)[1:-1].to(frames)
    return torch.cat([frames[:1], (middle @ frames.flatten(1)).unflatten(1, frames.shape[1:]), frames[-1:]])


def fuse(frames): return torch.cat([ilk(frames[:-1], frames[1:]), (frames[1:] - frames[:-1]).abs()], 1).transpose(0, 1)


@torch.no_grad()
def frames_to_features(frames, length, interpolated, phis, times, interpolate_flow='dis'):
    flow = dict(dis=lambda a, b: dis(gray(a), gray(b)), ilk=ilk)[interpolate_flow]
    copies = iter(lagrangian(frames, [1. + p for p in phis if p]) if any(phis) else ())
    for p in phis:
        moved = next(copies) if p else frames
        even = (sample_recorded(moved, times, length) if interpolated == 'frames'
                else interpolate(moved[0], moved[-1], length, flow))
        yield fuse(even).to(torch.float16)


def main():
    torch.set_num_threads(1)
    save_file({name: torch.stack(list(frames_to_features(*case))) for name, case in CASES.items()}, FILE)


if __name__ == '__main__': main()
