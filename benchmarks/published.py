"""The numbers and pictures of the front page, on purpose: `make results`, or `python benchmarks/published.py --only
system`.

Runs what is missing below `runs/` (finished folds are kept), then writes `nbs/images/results.json` with the command,
commit,
processor and day of each number, and the pictures beside it. A run that has not finished is an error, and nothing is
written.
The release needs `MPFNET_DATA`; how to fetch it stands in docs/data.md.
"""
import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mpfnet.core.keep import write_atomically  # noqa: E402
from mpfnet.loso import run  # noqa: E402
from mpfnet.results.report import as_markdown, publish  # noqa: E402

IMAGES = ROOT / 'nbs' / 'images'
ONE = dict(preset='tiny', device='cpu')
SEEDS = ONE | dict(seed='0,1,2')
#: key of a table → (title of its picture, data set, method → parameters)
TABLES = dict(
    public_flow=(
        'REAL clips: MEGC2019 flow-28, 3-class, LOSO', 'megc2019_flow',
        dict(majority=ONE, pca_lda=ONE, scratch=SEEDS, pltn=SEEDS, plsm=SEEDS, mpfnet_p=SEEDS, mpfnet_c=SEEDS),
    ),
    demo=('SYNTHETIC clips, 3-class, LOSO', 'synth', dict(majority=ONE, mpfnet_c=ONE)),
)


def command_of(parameters):
    "What a reader would type for these numbers."
    given = ' '.join(f'-p {k} {v}' for k, v in parameters.items())
    return f'papermill nbs/05_loso.ipynb runs/{parameters["method"]}.ipynb {given}'


def ran(key, **where):
    "command → folder of each run of a table; what is there already is found, the rest is trained."
    _, dataset, methods = TABLES[key]
    asked = [dict(dataset=dataset, method=m) | p for m, p in methods.items()]
    folders = {}
    for parameters in asked:
        print(command_of(parameters), flush=True)
        folders[command_of(parameters)] = run(**parameters, **where)
    return folders


def draw_front(folder=IMAGES):
    "Fig. 2, read off the modules; it needs no run."
    from mpfnet.paper.drawings import draw_system
    figure = draw_system('paper').figure()
    return write_atomically(Path(folder) / 'system.png', lambda f: figure.savefig(f, format='png', dpi=86))


def main(args=None):
    "Make what was asked for; returns the exit status."
    known = ('system', *TABLES)
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', default=','.join(known), help=f'of {",".join(known)}')
    p.add_argument('--out-dir', default=str(ROOT / 'runs'), help='the folder of the runs')
    p.add_argument('--workers', type=int, default=2, help='processes that a run folds')
    p.add_argument('--into', default=str(IMAGES), help='where results.json and the pictures are')
    a = p.parse_args(args)
    if unknown := [k for k in a.only.split(',') if k not in known]:
        p.error(f'unknown {", ".join(unknown)}; known: {", ".join(known)}')
    for key in a.only.split(','):
        if key == 'system':
            print(draw_front(a.into))
        else:
            print(
                as_markdown(
                    publish(Path(a.into) / 'results.json', key, ran(key, out_dir=a.out_dir, workers=a.workers),
                            TABLES[key][0])
                )
            )
    return 0


if __name__ == '__main__': sys.exit(main())
