"""One whole fold of the composite: PLTN, PLSM on the magnified set, MPFNet-P and MPFNet-C; and what 68 of them would
take.

    python benchmarks/fold.py [--quick] [--preset paper]

442 clips of 68 subjects with the published classes and 3580 copies, in shape; the features are random numbers (64
clips, over and over): nothing is learnt, only timed, and nothing waits for a disk. On a GPU `paper`, else `tiny`.
"""
import time

import numpy as np
import pandas as pd
import torch
from turns import machine, parser, publish, verdict

from mpfnet.core.artefacts import Artefacts
from mpfnet.folds import Fold
from mpfnet.harness import moved
from mpfnet.methods import Context, fit_matcher, override, settings_preset
from mpfnet.plsm import plsm_prior
from mpfnet.pltn import pltn_prior
from mpfnet.priors import Prepared

# subjects, clips of the three classes
CLASSES = dict(smic=(16, (70, 51, 43)), casme2=(24, (88, 32, 25)), samm=(28, (92, 26, 15)))
POOL = 64


def composite(shape, device, share=1.):
    "A fold in the shape of the composite: a subject of SAMM held out. On a GPU its features lie there, as in a run."
    rows = [dict(dataset=d, subject=f's{k % people:02}', clip=f'c{c}{k}', label=c, input='frames') for d,
            (people, counts) in CLASSES.items() for c, n in enumerate(counts) for k in range(int(n * share))]
    clips, x = pd.DataFrame(rows), np.random.default_rng(0).normal(size=(POOL, *shape)).astype(np.float16)
    copies = {(i, p): (i + p) % POOL for i, r in enumerate(rows) for p in range(1, 15)}
    if device == 'cuda': x = moved(x, np.arange(POOL), device)
    return Fold(clips, x, [('samm', 's00')], np.arange(len(clips)) % POOL, copies, 3)


def timed(make, device):
    start = time.perf_counter()
    out = make()
    if device == 'cuda': torch.cuda.synchronize()
    return out, time.perf_counter() - start


def main(argv=None):
    p = parser(__doc__)
    p.add_argument('--preset', default='paper' if torch.cuda.is_available() else 'tiny')
    args = p.parse_args(argv)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cpu': torch.set_num_threads(1)
    s = settings_preset(args.preset)
    if device == 'cuda' and torch.cuda.is_bf16_supported(): s = override(s, 'compute.precision=bf16')
    if args.quick: s = override(s, 'preprocess.size=16,pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2')
    fold = composite(s.preprocess.shape('frames'), device, .1 if args.quick else 1.)
    keep = {}
    class Kept(Artefacts):
        def get(self, stage, key, make):
            return keep[stage, key] if (stage, key) in keep else keep.setdefault((stage, key), make())
    ctx, took = Context(settings=s, artefacts=Kept(), device=device), {}
    data, took['data'] = timed(lambda: Prepared(fold, s.features, device, s.compute), device)
    _, took['PLTN'] = timed(lambda: pltn_prior(data, s.encoder, s.pltn, s.augment, ctx.artefacts), device)
    _, took['PLSM'] = timed(lambda: plsm_prior(data, s.encoder, s.plsm, s.augment, 3, ctx.artefacts), device)
    for m in ('mpfnet_p', 'mpfnet_c'): _, took[m] = timed(lambda m=m: fit_matcher(m, fold, ctx), device)
    total = sum(took.values())
    lines = [
        f'Preset `{args.preset}`, {s.compute.precision}, {"one thread" if device == "cpu" else device}; {machine()}. '
        f'PLTN {s.pltn.last} epochs, PLSM {s.plsm.last} epochs of the magnified set, {s.meta.updates} updates each of '
        f'P and C.',
        '',
        '| ' + ' | '.join(took) + ' | fold | 68 folds, one after the other |',
        '|---' * (len(took) + 2) + '|',
        '| ' + ' | '.join(f'{v:.1f} s' for v in took.values()) + f' | {total:.1f} s | {total * 68 / 3600:.2f} h |',
    ]
    if device == 'cuda' and args.preset == 'paper':
        lines += [
            '',
            f'A fold under 2 minutes: {verdict(120, total, False)}. 68 under 2.5 hours: '
            f'{verdict(2.5, total * 68 / 3600, False)}.',
        ]
    publish(args, 'fold', 'One fold', lines)


if __name__ == '__main__': main()
