"""How many clips go through an encoder, forward and back, for the paper's runs: priors shared, against every run by
itself.

    python benchmarks/loso_passes.py [--quick]

A count, not a time: the same on every machine. First a small LOSO is run and its passes are counted, to see that the
formula of `mpfnet.paper.plan.clip_passes`
tells the truth and that priors are in fact shared; then the formula is read for the paper's settings.
"""
import tempfile
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from turns import parser, publish, verdict

from mpfnet.ca_i3d import CAI3D
from mpfnet.core.artefacts import Artefacts
from mpfnet.folds import loso_folds
from mpfnet.methods import Context, fit, override, settings_preset
from mpfnet.paper.plan import clip_passes, paid_epochs
from mpfnet.plsm import copies_of
from mpfnet.train import ComputeConfig

TABLE4 = ('scratch', 'pltn', 'plsm', 'mpfnet_p', 'mpfnet_c')   # P, C and the ablations
GAMMAS = 11                                                    # values of Fig. 8
CLIPS, COPIES, FOLDS = 442, 4022 - 442, 68                     # the composite, Table I
ASKED = .45
SMALL = 'preprocess.size=16,encoder.width=0.125,meta.shot=2,meta.queries=2,meta.episodes=1'


def dataset(subjects=4, n=4):
    "Clips of one kind each, so that a fold's share of clips and copies is the same for all."
    r = np.random.default_rng(0)
    clips = pd.DataFrame(
        [
            dict(dataset='demo', subject=f's{s}', clip=f'c{s}{k}', label=k % 3, input='frames') for s in range(subjects)
            for k in range(n)
        ]
    )
    return clips, r.normal(size=(len(clips), 5, 2, 16, 16)).astype(np.float16)


def counted(settings, methods, artefacts):
    "Clips that pass an encoder in training mode, over all folds of `methods`."
    clips, x = dataset()
    copies = {(i, p): i for i in range(len(clips)) for p in range(1, 15)}
    seen = []
    forward = CAI3D.features
    def count(self, x):
        if self.training and torch.is_grad_enabled(): seen.append(len(x))
        return forward(self, x)
    CAI3D.features = count
    try:
        for method in methods:
            for fold in loso_folds(clips, x, copies=copies, n_classes=3):
                fit(method, fold, Context(settings=settings, artefacts=Artefacts(artefacts)))
    finally: CAI3D.features = forward
    return sum(seen)


def total(settings, methods=TABLE4, shared=True, n=CLIPS, copies=COPIES, folds=FOLDS, gammas=GAMMAS):
    """Passes of all folds of all runs; γ costs nothing where the parts of the score are kept, and a run of MPFNet-P
    each where they are not. Every subject has its share of clips and copies."""
    stages, share = {}, (folds - 1)/folds
    for k, m in enumerate((*methods, *['mpfnet_p']*(0 if shared else gammas - 1))):
        for stage, passes in clip_passes(m, settings, n * share, copies * share, folds).items():
            stages[stage if shared and stage != 'meta' else (k, stage)] = passes
    return folds*sum(stages.values())


def measured(trunk=0.):
    "A small LOSO: (passes counted with shared priors, without, what the formula says of either)."
    settings = override(
        settings_preset('tiny'),
        f'{SMALL},pltn.epochs=2,plsm.epochs=2,plsm.phi_limit=2,meta.updates=0,pltn.batch=4,plsm.batch=5,compute.trunk={trunk},compute.group=2',
    )
    clips, _ = dataset()
    # the same for every subject, so a fold has its share exactly
    copies = copies_of(clips, 3, 2).sum()
    with tempfile.TemporaryDirectory() as d: shared = counted(settings, TABLE4, d)
    said = [total(settings, shared=s, n=len(clips), copies=copies, folds=4, gammas=1) for s in (True, False)]
    return shared, counted(settings, TABLE4, None) if not trunk else 0, *said


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    torch.set_num_threads(1)
    shared, naive, *said = measured()
    forked, _, formula, _ = measured(trunk=.5)
    assert np.allclose([shared, naive, forked], [*said, formula]), (
        f'counted {shared}, {naive} and, with a trunk, {forked}; the formula says {said}, {formula}'
    )
    paper = settings_preset('paper')
    with_gamma, without = total(paper)/total(paper, shared=False), total(paper)/total(paper, shared=False, gammas=1)
    stop = replace(paper, plsm=replace(paper.plsm, stop=40))
    both = replace(stop, compute=ComputeConfig(trunk=.75))
    lines = [
        f'A small LOSO of the priors of five methods, counted: {shared} clips with shared priors, {naive} without '
        f'({shared / naive:.2f}); with a trunk {forked}; the formula says the same. What episodes take is an upper '
        f'bound: 120 clips an update, drawn with repetitions.',
        '',
        f'Preset `paper`, {CLIPS} clips and {COPIES} magnified copies, {FOLDS} folds: MPFNet-P and -C, the three '
        f'ablations of Table IV, {GAMMAS} values of γ. Millions of clips through an encoder, forward and back:',
        '',
        '| | passes | of naive | asked | |',
        '|---|---|---|---|---|',
        f'| every run by itself | {total(paper, shared=False) / 1e6:.0f} M | 1 | | |',
        f'| priors shared, γ from the kept parts | {total(paper) / 1e6:.0f} M | {with_gamma:.2f} | {ASKED} | '
        f'{verdict(ASKED, with_gamma, False)} |',
        f'| the same without varying γ: {total(paper, shared=False, gammas=1) / 1e6:.0f} M naive | '
        f'{total(paper) / 1e6:.0f} M | {without:.3f} | (≤ {ASKED}) | {verdict(ASKED, without, False)} |',
        f'| and PLSM without its dead epochs (`plsm.stop=40`) | {total(stop) / 1e6:.0f} M | '
        f'{total(stop) / total(paper, shared=False):.2f} | | |',
        f'| and a trunk for groups of 8 (`compute.trunk=0.75`, opt-in) | {total(both) / 1e6:.0f} M | '
        f'{total(both) / total(paper, shared=False):.3f} | | |',
        '',
        f'A trunk makes the priors of a fold {paper.plsm.last / paid_epochs(paper.plsm, both.compute, FOLDS):.1f} '
        f'times cheaper; groups are of seven or eight subjects.',
    ]
    publish(args, 'loso_passes', 'Encoder passes of a LOSO', lines)
    if with_gamma > ASKED: raise SystemExit(f'{with_gamma:.2f} of the naive passes, asked for {ASKED}')


if __name__ == '__main__': main()
