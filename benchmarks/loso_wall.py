"""Folds in processes against one after the other, and Ray on this machine against plain processes.

    python benchmarks/loso_wall.py [--quick]

Time on the clock of whole runs, features there already, everything else trained anew each time; predictions are
compared. Look-alike clips of SMIC, MPFNet-C, `tiny`.
"""
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from turns import in_turns, machine, parser, publish, ratio, shown, verdict, wall

from mpfnet.loso import run
from mpfnet.synthetic.lookalike import make_lookalike

FOLDS = 'smic/s01,smic/s02,smic/s03,smic/s04,smic/s05,smic/s06'
ONE, TWO, OWN, THERE = ('one after the other', 'two processes', 'Ray, started and stopped by the run',
                        'Ray, a cluster that runs')
WAYS = {ONE: dict(workers=1), TWO: dict(workers=2), OWN: dict(workers=2, engine='ray'),
        THERE: dict(workers=2, engine='ray')}


@contextmanager
def cluster(way):
    "A Ray cluster of two CPUs on this machine, where the way asks for one that runs."
    if way != THERE:
        yield
        return
    import ray
    from ray.cluster_utils import Cluster
    c = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, include_dashboard=False))
    os.environ['RAY_ADDRESS'] = c.address
    try: yield
    finally:
        ray.shutdown()
        c.shutdown()
        os.environ['RAY_ADDRESS'] = 'local'


def trained(way, out, parameters):
    "() → a run without any cached prior or record."
    def step():
        folder = run(**parameters, out_dir=str(out))
        if way == OWN: __import__('ray').shutdown()
        step.predictions = (folder/'predictions.csv').read_bytes()
    def clock(_step, _device):
        for p in [*out.glob('smic-*'), out/'cache'/'priors']: shutil.rmtree(p, ignore_errors=True)
        with cluster(way): return wall(step)
    step.clock = clock
    return step


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    warnings.simplefilter('ignore')
    os.environ['RAY_ADDRESS'] = 'local'                                     # whatever other cluster there is
    ways = {k: v for k, v in WAYS.items() if 'engine' not in v or find_spec('ray')}
    with tempfile.TemporaryDirectory() as d:
        data = Path(d)/'data'
        make_lookalike('smic', data, subjects=4 if args.quick else None, progress=False)
        what = dict(dataset='smic', data_root=str(data), method='mpfnet_c', preset='tiny', device='cpu')
        short = 'pltn.epochs=1,plsm.epochs=1,meta.updates=2'
        what |= dict(overrides=f'preprocess.size=16,plsm.phi_limit=1,{short}') if args.quick else dict(subjects=FOLDS)
        # features of clips and copies
        run(**dict(overrides=short) | what | dict(subjects='smic/s01', out_dir=d))
        steps = {}
        for k, (name, how) in enumerate(ways.items()):
            out = Path(d)/str(k)
            shutil.copytree(Path(d)/'cache'/'features', out/'cache'/'features')
            steps[name] = trained(name, out, what | how)
        t = in_turns(steps, 1 if args.quick else 2, clock=lambda step, device: step.clock(step, device), warm=0)
        assert len({s.predictions for s in steps.values()}) == 1, 'the ways do not predict the same'
    rows = [f'| {k} | {", ".join(f"{s:.0f}" for s in v)} s | {shown(t, ONE, k)} |' for k, v in t.items()]
    r = ratio(t, ONE, TWO)[0]
    lines = [
        f'{len(t[TWO])} rounds in turns, on the clock; {machine()}. '
        f'{"Four folds of a few" if args.quick else "Six folds of the 164"} clips of the SMIC look-alike (synthetic '
        f'faces), MPFNet-C, `tiny`, priors and all. The ways predict the same digits.',
        '', '| | each round | speed, of one after the other |', '|---|---|---|', *rows, '',
        f'Two processes ≥ 1.7: {r:.2f}, {verdict(1.7, r)}.',
    ]
    for way in (w for w in (OWN, THERE) if w in t):
        r = ratio(t, way, TWO)
        judged = (verdict(1.1, r[0], False)
                  if min(t[TWO]) > 60 else 'the runs are shorter than a minute, so this says nothing')
        lines.append(
            f'{way}: {r[0]:.2f} ({r[1]:.2f}–{r[2]:.2f}) times as long as two plain processes (asked: ≤ 1.10 on runs '
            f'over a minute), {judged}.'
        )
    publish(args, 'loso_wall', 'Whole runs', lines)


if __name__ == '__main__': main()
