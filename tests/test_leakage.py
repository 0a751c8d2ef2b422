"""The canary: nothing that a fold learns may change when its test subject's pixels and labels do."""
import copy
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CHEAP, CHEAP_RIVALS, ROOT
from warm import warm

from mpfnet.core.artefacts import Artefacts, sha256_of
from mpfnet.folds import Fold, LeakageError
from mpfnet.loso import run
from mpfnet.methods import (
    METHODS,
    Context,
    Method,
    class_of,
    fit,
    inner_gamma,
    kinds_of,
    one,
    override,
    recipe_of,
    settings_preset,
)
from mpfnet.plsm import balanced_items, copies_of
from mpfnet.train import TrainConfig

SETTINGS = override(
    settings_preset('tiny'),
    'preprocess.size=16,pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=2,meta.updates=2,encoder.width=0.125,meta.shot=2,meta.queries=2,'
    + CHEAP_RIVALS,
)
EVERY = [(m, kind) for m in METHODS for kind in kinds_of(m, SETTINGS)]
TEST = ('demo', 's2')
#: of the methods that one class fits on the same rows, the one with most stages: the others take a part of its way
BY_STAGES = sorted(reversed(METHODS.items()), key=lambda item: len(item[1].stages))
WIDEST = {(class_of(row.fit)[0], row.reads): m for m, row in BY_STAGES}


def dataset(kind, method='mpfnet_c', seed=0):
    """24 clips of four subjects, in rows of what the method reads; magnified copies φ = 1…6 of every clip in the rows
    behind, where it learns from them."""
    r, recipe = np.random.default_rng(seed), recipe_of(method, SETTINGS)
    clips = pd.DataFrame(
        dict(dataset='demo', subject=[f's{i // 6}' for i in range(24)], clip=[f'c{i:02}' for i in range(24)],
             label=[0, 0, 0, 1, 1, 2] * 4, input=kind)
    )
    shape = (5, 2, 16, 16) if METHODS[method].reads == 'preprocess' and kind == 'frames' else recipe.shape(kind)
    copied = kind == 'frames' and METHODS[method].copies
    x = (r.normal(size=(24 * 7 if copied else 24, *shape))
         if METHODS[method].reads == 'preprocess' else r.uniform(size=(24, *shape)))
    return clips, x.astype(np.float16), {(i, p): 24 * p + i for i in range(24) for p in range(1, 7)} if copied else {}


def weights(method, clips, x, copies, artefacts=None, test=TEST, settings=SETTINGS, **kwargs):
    fold = Fold(clips, x, [test], copies=copies, n_classes=3, **kwargs)
    return sha256_of(fit(method, fold, Context(settings=settings, artefacts=Artefacts(artefacts))).state())


def with_noise(clips, x, subject):
    "Pixels (of clips and copies) and labels of a subject, replaced by noise."
    r, mine = np.random.default_rng(99), np.flatnonzero(clips['subject'] == subject)
    noisy, labels = x.copy(), clips['label'].to_numpy().copy()
    for start in range(0, len(x), 24): noisy[start + mine] = r.normal(5, 9, (len(mine), *x.shape[1:]))
    labels[mine] = 2 - labels[mine]
    return clips.assign(label=labels), noisy


@pytest.mark.parametrize('method, kind', EVERY)
def test_canary(method, kind):
    clips, x, copies = dataset(kind, method)
    clean = weights(method, clips, x, copies)
    assert weights(method, *with_noise(clips, x, TEST[1]), copies) == clean


@pytest.mark.parametrize('method', METHODS)
def test_canary_can_fail(method):
    """The same noise on a training subject changes what is learnt; so does the seed, for whoever learns by gradient
    descent. No other chance does."""
    clips, x, copies = dataset('frames', method)
    clean = weights(method, clips, x, copies)
    assert (weights(method, *with_noise(clips, x, 's1'), copies) != clean) == METHODS[method].learns
    if any(isinstance(getattr(SETTINGS, stage), TrainConfig) for stage in METHODS[method].stages):
        assert weights(method, clips, x, copies, seed=1) != clean
    torch.manual_seed(123)
    np.random.seed(123)
    assert weights(method, clips, x, copies) == clean


NEW_ROWS = '''
import numpy as np
from mpfnet.methods import METHODS, Method, one
class Mean:
    "Deterministic, of no stage: the mean of the training clips."
    def __init__(self, fold, ctx): self.mean = self.of(fold)
    def of(self, fold): return fold.X().mean(0).numpy()
    def scores(self, x): return np.tile([.5, .3, .2], (len(x), 1))
    def state(self): return dict(mean=self.mean)
class Leaky(Mean):
    "The mean of all clips, which no fold hands out."
    def of(self, fold): return np.asarray(fold._features, np.float32).mean(0)
for name, cls in dict(new_row=Mean, leaky_row=Leaky).items(): METHODS[name] = Method(fit=one(cls), \
gives='probabilities')
'''


def test_the_canary_covers_a_new_row(tmp_path):
    "Rows that somebody adds are tested by everything above, and caught if they leak; nothing here knows their names."
    (tmp_path / 'new_rows.py').write_text(NEW_ROWS)
    which = '(new_row or leaky_row) and not covers and not (leaky_row and end_to_end)'
    done = warm('-m', 'pytest', __file__, '-q', '-rA', '-p', 'new_rows', '-p', 'no:cacheprovider', '-k', which,
                cwd=Path(__file__).parent, env=os.environ | dict(PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}'))
    ended = {name: how for how, name in re.findall(r'^(PASSED|FAILED) \S+?::(.+?)(?: - .*)?$', done.stdout, re.M)}
    canaries = {f'test_canary[leaky_row-{kind}]' for kind in ('frames', 'flow28', 'array')}
    assert done.returncode == 1 and {n for n in ended if 'leaky_row' in n and ended[n] == 'FAILED'} >= canaries, (
        done.stdout[-3000:]
    )
    assert [how for n, how in ended.items() if 'new_row' in n] == 7*['PASSED'], done.stdout[-3000:]


TRUNK = override(SETTINGS, 'compute.trunk=0.5,compute.group=2,pltn.epochs=2,plsm.epochs=2')


@pytest.mark.parametrize('kind', ['frames', 'flow28'])
def test_canary_of_a_shared_trunk(tmp_path, kind):
    "s0 and s2 share a trunk: neither is in it, and after the fork each fold is blind to its own."
    clips, x, copies = dataset(kind, 'mpfnet_p')
    def learnt(out, c=clips, v=x, test=TEST): return weights('mpfnet_p', c, v, copies, tmp_path / out, test, TRUNK)
    def trunks(out): return {p.parent.name: p.read_bytes() for p in (tmp_path / out).glob('*-trunk/*.safetensors')}
    clean = {s: learnt('clean', test=('demo', s)) for s in ('s0', 's2')}
    assert (sorted(trunks('clean')) == ['plsm-trunk', 'pltn-trunk']
            and len(list((tmp_path / 'clean').glob('*-trunk/*.safetensors'))) == 2)
    for noisy in ('s0', 's2'):
        for s in ('s0', 's2'):
            found = learnt(f'noise {noisy}', *with_noise(clips, x, noisy), test=('demo', s))
            assert (found == clean[s]) == (s == noisy), f'fold of {s}, noise on {noisy}'
        assert trunks(f'noise {noisy}') == trunks('clean')
    assert learnt('noise s1', *with_noise(clips, x, 's1')) != clean['s2'] and trunks('noise s1') != trunks('clean')


def test_inner_folds_have_no_trunk():
    "Also where one subject makes a whole inner group: its trunk would ask for copies that nobody made."
    clips, x, copies = dataset('frames')
    for inner in Fold(clips, x, [TEST], copies=copies, n_classes=3).inner(3):
        assert len(inner.held_out) == 1 and inner.trunk(2) is None


def test_a_prior_is_keyed_by_what_its_trunk_saw(tmp_path):
    "A copy that only the trunk reads changes: another prior, not the cached one."
    clips, x, _ = dataset('frames', 'mpfnet_p')
    x = np.concatenate([x] + [x[:24]]*8)
    copies = {(i, p): 24*p + i for i in range(24) for p in range(1, 15)}
    settings = override(TRUNK, 'plsm.phi_limit=13')
    def read_by(fold):
        i, phi = balanced_items(copies_of(fold.clips, 3, 13))
        return set(fold._copy_rows(i, phi).tolist())

    clips = clips.assign(
        label=[2 if s in ('s0', 's2') and k % 6 == 5 else k % 6 > 2 for k, s in enumerate(clips['subject'])]
    ).astype(dict(label=int))
    clips.loc[[6, 18], 'label'] = 2
    fold = Fold(clips, x, [TEST], copies=copies, n_classes=3)
    only = sorted(read_by(fold.trunk(2)) - read_by(fold))
    assert only, 'the trunk reads nothing of its own: the test shows nothing'
    other = x.copy()
    other[only] *= 3
    def learnt(v): return weights('plsm', clips, v, copies, tmp_path, settings=settings)
    assert learnt(x) == learnt(x) != learnt(other)


PHI = override(SETTINGS, 'plsm.phi=fold,plsm.phi_limit=14')


@pytest.mark.parametrize('kind', ['frames', 'flow28'])
def test_phi_of_the_fold_does_not_see_the_test_subject(kind):
    "A data set of Table I, where φ_max comes from the training clips: his labels count for nothing, another's do."
    clips, x, _ = dataset(kind)
    clips = clips.assign(dataset='casme2')
    x = np.concatenate([x[:24]*(1 + p) for p in range(15)]) if kind == 'frames' else x
    copies, test = {(i, p): 24*p + i for i in range(24) for p in range(1, 15)}, ('casme2', 's2')
    def phis(c, phi): return copies_of(Fold(c, x, [test], copies=copies, n_classes=3).clips, 3, 14, phi).tolist()
    def learnt(c, v): return weights('plsm', c, v, copies, test=test, settings=PHI)
    mine, other = with_noise(clips, x, 's2'), with_noise(clips, x, 's1')
    assert phis(clips, 'fold') == phis(mine[0], 'fold') != phis(clips, 'table')
    # of s0's clips
    assert (phis(other[0], 'fold')[:6] != phis(clips, 'fold')[:6] and phis(other[0], 'table')[:6]
            == phis(clips, 'table')[:6])
    assert learnt(*mine) == learnt(clips, x) != learnt(*other)


def test_a_run_has_the_copies_that_phi_of_a_fold_asks_for(synth_root, tmp_path):
    def ran(phi):
        return run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='plsm',
                   subjects='synth/sub01,synth/sub04', device='cpu', length=5,
                   overrides=f'{CHEAP.replace("phi_limit=1", "phi_limit=14")},preprocess.size=16,plsm.phi={phi}')

    settings = {phi: json.loads((ran(phi) / 'config.json').read_text())['settings']['plsm']['phi']
                for phi in ('fold', 'table')}
    assert settings == dict(fold='fold', table='table')
    with pytest.raises(ValueError, match="plsm.phi: expected 'table' or 'fold'"): ran('outer')


def test_inner_gamma_does_not_see_the_test_subject():
    clips, x, copies = dataset('flow28')

    def chosen(c, v):
        return inner_gamma(Fold(c, v, [TEST], n_classes=3), Context(settings=SETTINGS), grid=np.linspace(0, 1, 5),
                           n_splits=3)
    clean = chosen(clips, x)
    assert chosen(*with_noise(clips, x, TEST[1])) == clean
    assert any(chosen(*with_noise(clips, x, s)) != clean for s in ('s0', 's1', 's3')), (
        'no training subject matters: the test shows nothing'
    )


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(method='mpfnet_p', gamma='inner'),
        dict(method='mpfnet_p', overrides='compute.trunk=0.5,compute.group=2,pltn.epochs=2'),
        *(dict(method=m) for m in METHODS if m in WIDEST.values()),
    ],
    ids=str,
)
def test_canary_end_to_end(synth_root, tmp_path, kwargs):
    "Through the program, files and caches: the test subject's images become noise, his emotions are shuffled."
    shutil.copytree(synth_root, tmp_path / 'noise')
    r, root = np.random.default_rng(0), tmp_path / 'noise' / 'synth'
    for path in sorted((root / 'frames' / 'sub01').rglob('img*')):
        cv2.imwrite(str(path), r.integers(0, 256, cv2.imread(str(path)).shape).astype(np.uint8))
    table = pd.read_csv(root / 'annotation.csv', dtype=str)
    mine = table['subject'] == 'sub01'
    table.loc[mine, 'emotion'] = table.loc[mine, 'emotion'].to_numpy()[::-1]
    table.to_csv(root / 'annotation.csv', index=False)
    more = kwargs.pop('overrides', '')
    def sha(data, out, subject='sub01'):
        folder = run(
            dataset='synth',
            data_root=str(data),
            out_dir=str(out),
            subjects=f'synth/{subject}',
            device='cpu',
            length=5 if METHODS[kwargs['method']].reads == 'preprocess' else 11,
            overrides=','.join(
                filter(
                    None,
                    [
                        'preprocess.size=16,meta.shot=2,meta.queries=2',
                        *(o for o in f'{CHEAP},{CHEAP_RIVALS}'.split(',') if o.split('=')[0] not in more), more,
                    ],
                )
            ),
            **kwargs,
        )
        return json.loads((folder / 'folds' / f'synth__{subject}.json').read_text())['weights_sha256']

    assert (sha(synth_root, tmp_path / 'a') == sha(tmp_path / 'noise', tmp_path / 'b')
            == sha(tmp_path / 'noise', tmp_path / 'a'))
    if kwargs['method'] == 'pca_lda':
        assert sha(synth_root, tmp_path / 'a', 'sub02') != sha(tmp_path / 'noise', tmp_path / 'b', 'sub02')


def test_cached_priors_of_another_split_are_not_used(tmp_path):
    "Priors are shared between methods of a fold, never between folds."
    clips, x, copies = dataset('flow28')
    weights('mpfnet_p', clips, x, copies, tmp_path)
    first = {p.name for p in tmp_path.rglob('*.safetensors')}
    fit('mpfnet_p', Fold(clips, x, [('demo', 's1')], n_classes=3),
        Context(settings=SETTINGS, artefacts=Artefacts(tmp_path)))
    assert len(first) == 2 and len({p.name for p in tmp_path.rglob('*.safetensors')}) == 4


def test_a_cached_prior_gives_the_weights_of_a_fresh_one(tmp_path):
    clips, x, copies = dataset('frames')
    assert (weights('mpfnet_c', clips, x, copies, tmp_path) == weights('mpfnet_c', clips, x, copies, tmp_path)
            == weights('mpfnet_c', clips, x, copies))


def test_a_fold_hands_out_nothing_of_the_test_subject():
    clips, x, copies = dataset('frames')
    fold = Fold(clips, x, [TEST], copies=copies, n_classes=3)
    assert TEST[1] not in set(fold.clips['subject']) and len(fold.y) == len(fold.X()) == 18
    for ask in (fold.test_features, lambda: fold.X([18]), lambda: fold.magnified([18], [1]), lambda: fold.X([-1])):
        with pytest.raises(LeakageError): ask()
    for inner in fold.inner(3):
        assert TEST not in inner.held_out and TEST[1] not in set(inner.clips['subject'])


class Peeks:
    "Learns from the test clips, by a seal of its own."
    how = 'seals'
    def __init__(self, fold, ctx):
        self.fold, self.seen = fold, fold.X().numpy().mean(0)
        if self.how != 'late': self.look()
    def look(self):
        fold = dict(copies=copy.copy, trunk=lambda f: f.trunk(2)).get(self.how, lambda f: f)(self.fold)
        fold.seal({} if self.how == 'empty' else dict(seen=self.seen))
        self.seen = fold.test_features().numpy().mean(0)
    def scores(self, x): return np.tile([.6, .3, .1], (len(x), 1))
    def state(self):
        if self.how == 'late': self.look()
        return dict(seen=self.seen)


@pytest.mark.parametrize(
    'how, says',
    [
        ('seals', 'sealed already'), ('copies', 'not copied'), ('trunk', 'never tested'), ('late', 'sealed already'),
        ('empty', 'state is empty'),
    ],
)
def test_a_method_that_seals_its_fold_itself_is_found_out(how, says, flow_root, tmp_path, monkeypatch):
    monkeypatch.setattr(Peeks, 'how', how)
    monkeypatch.setitem(METHODS, 'peeks', Method(fit=one(Peeks)))
    with pytest.raises(LeakageError, match=says):
        run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), method='peeks',
            subjects='samm/sa00', device='cpu')
    assert not list(tmp_path.rglob('folds/*.json'))


def test_a_model_that_learns_while_it_predicts_is_caught():
    clips, x, copies = dataset('flow28')
    fold = Fold(clips, x, [TEST], n_classes=3)
    model = fit('scratch', fold, Context(settings=SETTINGS))
    fold.seal(model.state())
    model.matcher.train()                      # batch norm now follows the test clips
    model.scores(fold.test_features())
    with pytest.raises(LeakageError, match='changed while it predicted'): fold.check_unchanged(model.state())
