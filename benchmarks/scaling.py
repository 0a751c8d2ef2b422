"""How the cost of a leave-one-subject-out run grows with subjects and with clips.

    python benchmarks/scaling.py [--quick]

CPU time of a whole LOSO of MPFNet-P on random 28×28 flow fields, one thread, and the exponent of a fitted power law.
Each fold trains its priors on everybody else, so the cost should grow as
subjects × clips: exponent 2 in the number of subjects with their clips, 1 in the clips of each subject. Features are
random: nothing is learnt, only timed.
"""
import numpy as np
import pandas as pd
import torch
from turns import in_turns, machine, parser, publish

from mpfnet.folds import loso_folds
from mpfnet.methods import Context, fit, override, settings_preset

QUICK = 'pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=1'
SETTINGS = 'pltn.epochs=4,plsm.epochs=2,plsm.phi_limit=2,meta.updates=4'


def loso(subjects, n, settings):
    "() → a whole run."
    r = np.random.default_rng(0)
    clips = pd.DataFrame(
        [
            dict(dataset='demo', subject=f's{s:02}', clip=f'c{s}{k}', label=k % 3, input='flow28')
            for s in range(subjects) for k in range(n)
        ]
    )
    x = r.uniform(size=(len(clips), 3, 1, 28, 28)).astype(np.float16)
    def run():
        for fold in loso_folds(clips, x, n_classes=3): fit('mpfnet_p', fold, Context(settings=settings))
    return run


def exponent(sizes, seconds):
    "Of the power law through medians, in the last doubling and over all."
    t = np.log([np.median(seconds[k]) for k in sizes])
    return np.polyfit(np.log(sizes), t, 1)[0], (t[-1] - t[-2])/np.log(sizes[-1]/sizes[-2])


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    torch.set_num_threads(1)
    chosen = QUICK if args.quick else SETTINGS
    settings = override(settings_preset('tiny', True), chosen)
    sizes, rounds = ((3, 6), 1) if args.quick else ((4, 8, 16, 32), 2)
    subjects = in_turns({k: loso(k, 6, settings) for k in sizes}, rounds, warm=0)
    clips = in_turns(
        {k: loso(4, k, settings) for k in ((6, 12) if args.quick else (6, 12, 24, 48, 96))}, rounds, warm=0
    )
    lines = [f'{rounds} rounds in turns; CPU time of one thread; {machine()}. MPFNet-P, `tiny`, {chosen}.', '',
             '| what grows | sizes | seconds | exponent, fitted | in the last doubling | expected |',
             '|---|---|---|---|---|---|']
    for name, t, expected in (('subjects, 6 clips each', subjects, 2), ('clips of each of 4 subjects', clips, 1)):
        fitted, last = exponent(list(t), t)
        lines.append(
            f'| {name} | {", ".join(map(str, t))} | {", ".join(f"{np.median(v):.2f}" for v in t.values())} | '
            f'{fitted:.2f} | {last:.2f} | {expected} |'
        )
    lines += [
        '',
        'A fixed cost a fold (networks made, episodes of a fixed number of clips) keeps the fitted exponents below '
        'the expected ones; the last doubling is nearer.',
    ]
    publish(args, 'scaling', 'Growth', lines)


if __name__ == '__main__': main()
