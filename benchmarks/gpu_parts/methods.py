"""Every method on the GPU: a fold of the synthetic clips, twice. Is it the same, where its record says so; how much
memory."""
import json
import shutil

from gpu_parts.tools import DEVICE, SCRATCH, SMOKE, attempt, emit, few_faces, forget_peak, judge, peak_gb, timed
from mpfnet.loso import run
from mpfnet.methods import METHODS, unused

CHEAP = ('preprocess.size=16', 'meta.updates=2', 'fdp.updates=1')
SHORT = ('fdp.updates=3', 'afn.epochs=1', 'fmanet.epochs=1', 'skd_tstsan.updates=3')  # at the paper's widths
# these have no use for one
ON_THE_GPU = tuple(m for m in METHODS if m not in ('lbp_top', 'bi_woof', 'pca_lda', 'majority'))


def of_use(method, overrides): return ','.join(o for o in overrides if not unused(method, o))


def a_fold(method, overrides, **more):
    "The record of a fold; priors and folds of before are removed, features stay."
    out = SCRATCH/'methods'
    for p in [*out.glob('synth-*'), out/'cache'/'priors']: shutil.rmtree(p, ignore_errors=True)
    folder = run(dataset='synth', method=method, device=DEVICE, data_root=str(SCRATCH/'clips'),
                 subjects='synth/sub01', out_dir=str(out),
                 overrides=of_use(method, overrides), **more)
    record, = (json.loads(f.read_text(encoding='utf-8')) for f in (folder/'folds').glob('*.json'))
    return record


def twice(method):
    overrides = CHEAP if SMOKE else ()
    first, _ = timed(lambda: a_fold(method, overrides, preset='tiny'))
    second, seconds = timed(lambda: a_fold(method, overrides, preset='tiny'))
    same = first['weights_sha256'] == second['weights_sha256']
    emit('twice', method=method, seconds=seconds, same=same, deterministic=second['deterministic'])
    if second['deterministic']: judge(f'{method}: a fold twice, the same weights_sha256', True, same)


def large(method):
    "Peak memory of a short training at the paper preset, its features among it."
    forget_peak()
    _, seconds = timed(lambda: a_fold(method, SHORT, preset='paper'))
    emit('paper', method=method, seconds=seconds, peak_gb=peak_gb())


def main():
    few_faces()
    for method in ('scratch',) if SMOKE else ON_THE_GPU:
        with attempt(method): twice(method)
    if SMOKE: return
    for method in ('fdp', 'afn', 'fmanet', 'skd_tstsan'):                      # the others: see the part `fold`
        with attempt(f'{method} at the paper preset'): large(method)
