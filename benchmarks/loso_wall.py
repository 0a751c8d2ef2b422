"""Folds in processes against one after the other, and a Ray cluster on this machine against plain processes.

    python benchmarks/loso_wall.py [--quick]

Time on the clock of whole runs, features there already, everything else trained anew each time; predictions are compared. Look-alike clips of SMIC, MPFNet-C, `tiny`.
"""
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

from turns import in_turns, machine, parser, publish, ratio, shown, verdict, wall

from mpfnet.loso import run
from mpfnet.synth import make_lookalike

FOLDS = 'smic/s01,smic/s02,smic/s03,smic/s04,smic/s05,smic/s06'
WAYS = {'one after the other': dict(workers=1), 'two processes': dict(workers=2), 'Ray, two workers': dict(workers=2, engine='ray')}


def trained(out, parameters):
    "() → a run without any cached prior or record."
    def step():
        for p in [*out.glob('smic-*'), out/'cache'/'priors']: shutil.rmtree(p, ignore_errors=True)
        step.predictions = (run(**parameters, out_dir=str(out))/'predictions.csv').read_bytes()
    return step


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    warnings.simplefilter('ignore')
    ways = {k: v for k, v in WAYS.items() if 'Ray' not in k or find_spec('ray')}
    with tempfile.TemporaryDirectory() as d:
        data = Path(d)/'data'
        make_lookalike('smic', data, subjects=4 if args.quick else None, progress=False)
        what = dict(dataset='smic', data_root=str(data), method='mpfnet_c', preset='tiny', device='cpu')
        if not args.quick: what |= dict(subjects=FOLDS)
        if args.quick: what |= dict(overrides='preprocess.size=16,pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2')
        steps = {}
        for name, how in ways.items():
            out = Path(d)/how.get('engine', 'local')/str(how['workers'])
            run(**what | dict(method='majority', out_dir=str(out)))
            steps[name] = trained(out, what | how)
        t = in_turns(steps, 1, clock=wall, warm=0)
        assert len({s.predictions for s in steps.values()}) == 1, 'the ways do not predict the same'
    best = {k: min(v) for k, v in t.items()}
    rows = [f'| {k} | {best[k]:.0f} s | {shown(t, "one after the other", k)} |' for k in best]
    r = ratio(t, 'one after the other', 'two processes')[0]
    lines = [f'{len(t["two processes"])} round, on the clock; {machine()}. Six folds of the SMIC look-alike (164 clips, synthetic faces), MPFNet-C, `tiny`, priors and all. The ways predict the same digits.', '',
             '| | best | speed, of one after the other |', '|---|---|---|', *rows, '',
             f'Two processes ≥ 1.7: {r:.2f}, {verdict(1.7, r)}.']
    if 'Ray, two workers' in t:
        r = ratio(t, 'Ray, two workers', 'two processes')[0]
        lines[-1] += f' Ray takes {r:.2f} times as long as two plain processes (asked: ≤ 1.10 on runs over a minute)' + (f', {verdict(1.1, r, False)}.' if best['two processes'] > 60 else '; the runs are shorter than a minute, so this says nothing.')
    publish(args, 'loso_wall', 'Whole runs', lines)


if __name__ == '__main__': main()
