"""A fold of the composite at the paper preset: every stage with few updates, extrapolated to all; and its memory."""
from dataclasses import replace

from fold import composite
from peak import LIMIT, beside, of_episodes, of_prior

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, forget_peak, held_gb, judge, peak_gb, timed
from mpfnet.ca_i3d import CAI3D
from mpfnet.core.artefacts import Artefacts
from mpfnet.methods import Context, fit_matcher, override, settings_preset
from mpfnet.plsm import train_plsm
from mpfnet.pltn import train_pltn
from mpfnet.priors import Prepared


class Untrained(Artefacts):
    "Instead of a prior, the weights that it would start from: an update takes as long."
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
    def get(self, stage, key, make): return CAI3D(5, embedding=None, preset=self.encoder).state_dict()


def settings():
    small = ',preprocess.size=16,pltn.epochs=3,plsm.epochs=3,plsm.phi_limit=1,meta.updates=3'*SMOKE
    return override(settings_preset('tiny' if SMOKE else 'paper'), 'compute.precision=bf16' + small)


def stage_times(fold, s):
    "stage → (updates → seconds, updates of a few, of some more, of all)."
    data = Prepared(fold, s.features, DEVICE, s.compute)
    def prior(stage, epochs):
        cfg = replace(getattr(s, stage), stop=epochs)
        if stage == 'pltn': return len(train_pltn(data, s.encoder, cfg, s.augment)[1])
        return len(train_plsm(data, s.encoder, cfg, s.augment, 3)[1])
    def episodes(method, updates):
        short = override(s, f'meta.updates={updates}')
        fit_matcher(method, fold, Context(settings=short, artefacts=Untrained(s.encoder), device=DEVICE))
        return updates
    yield 'PLTN', lambda n: prior('pltn', n), (1, 2 if SMOKE else 12), s.pltn.last
    yield 'PLSM', lambda n: prior('plsm', n), (1, 2 if SMOKE else 3), s.plsm.last
    for m in ('mpfnet_p', 'mpfnet_c'): yield m, lambda n, m=m: episodes(m, n), (1, 2 if SMOKE else 21), s.meta.updates


def extrapolated(train, few, more, of):
    "Seconds of the whole stage, of one of its updates, and the peak of memory beside what was there."
    # what is slow once: loading, choosing kernels
    if not SMOKE: train(few)
    before = held_gb()
    forget_peak()
    a, seconds_a = timed(lambda: train(few))
    b, seconds_b = timed(lambda: train(more))
    each = (seconds_b - seconds_a)/(more - few)                               # an epoch, or an update of episodes
    return seconds_b + each*(of - more), (seconds_b - seconds_a)/(b - a), peak_gb() - before


def predicted(s):
    "GiB of an update of each stage, as `peak.py` counts them."
    one = dict(PLTN=of_prior(s, s.pltn.batch), PLSM=of_prior(s, s.plsm.batch))
    return one | {m: of_episodes(s, m, s.meta.recompute) for m in ('mpfnet_p', 'mpfnet_c')}


def main():
    s = settings()
    fold, took, peaks = composite(s.preprocess.shape('frames'), DEVICE, .05 if SMOKE else 1.), {}, {}
    for stage, train, cut, of in stage_times(fold, s):
        with attempt(stage):
            took[stage], each, peaks[stage] = extrapolated(train, *cut, of)
            emit('stage', stage=stage, seconds=took[stage], ms_an_update=1e3*each)
            judge(f'fold, {stage}: GiB, with what the composite has on the GPU', LIMIT, peaks[stage] + beside(s), False)
    with attempt('memory'):
        for stage, gb in predicted(s).items():
            emit('memory', stage=stage, predicted_gb=gb, peak_gb=peaks.get(stage))
            if stage in peaks: judge(f'fold, {stage}: memory, of what was predicted', 1.5, peaks[stage]/gb, False)
    if len(took) == 4:
        whole = sum(took.values())
        emit('fold', seconds=whole, hours_68=whole*68/3600)
        judge('composite fold at the paper preset, extrapolated', 120, whole, False, 's')
        judge('its 68 folds, one after the other, extrapolated', 2.5, whole*68/3600, False, 'h')
