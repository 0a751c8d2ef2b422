"""The same seed twice: the same `weights_sha256`? And from features on the GPU what is learnt from features in
memory?"""
import numpy as np
import torch
from fold import composite

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, judge
from mpfnet.methods import Context, fit_matcher, override, settings_preset
from mpfnet.train import repeatable

SHAPE = (5, 4, 16, 16) if SMOKE else (5, 10, 32, 32)
SHORT = ('pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2'
         if SMOKE else 'pltn.epochs=4,plsm.epochs=1,meta.updates=8')


def fitted(method, settings, where):
    "(weights_sha256, scores of six clips) of a method, all of it trained now."
    fold = composite(SHAPE, where, .05 if SMOKE else .15)
    with repeatable(DEVICE, strict=True): model = fit_matcher(method, fold, Context(settings=settings, device=DEVICE))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(6, *SHAPE)).astype(np.float32))
    return fold.seal(model.state()), np.asarray(model.scores(x))


def main():
    for precision in ('bf16',) if SMOKE else ('bf16', 'float32'):
        s = override(settings_preset('tiny'), f'compute.precision={precision},{SHORT}')
        for method in ('mpfnet_c',) if SMOKE else ('mpfnet_c', 'mpfnet_p', 'scratch'):
            with attempt(f'{method}, {precision}'):
                a, b = (fitted(method, s, 'cpu') for _ in range(2))
                resident = fitted(method, s, DEVICE)
                apart, apart_resident = (float(np.abs(a[1] - v[1]).max()) for v in (b, resident))
                emit('twice', method=method, precision=precision, weights_sha256=[v[0][:12] for v in (a, b, resident)],
                     scores_apart=apart, scores_apart_resident=apart_resident)
                judge(f'{method}, {precision}: the same weights_sha256 twice', True, a[0] == b[0])
                judge(f'{method}, {precision}: the same from features on the GPU', True, a[0] == resident[0])
