"""The canary: nothing that a fold learns may change when its test subject's pixels and labels do."""
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from conftest import CHEAP, CHEAP_RIVALS

from mpfnet.folds import Fold, LeakageError, sha256_of
from mpfnet.methods import METHODS, Context, fit, inner_gamma, override, recipe_of, settings_preset
from mpfnet.loso import run
from mpfnet.plsm import balanced_items, copies_of
from mpfnet.priors import Artefacts

SETTINGS = override(settings_preset('tiny'), 'preprocess.size=16,pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=2,meta.updates=2,encoder.width=0.125,meta.shot=2,meta.queries=2,' + CHEAP_RIVALS)
EVERY = [(m, kind) for m in METHODS for kind in recipe_of(m, SETTINGS).kinds]
TEST = ('demo', 's2')


def dataset(kind, method='mpfnet_c', seed=0):
    "24 clips of four subjects, in rows of what the method reads; magnified copies φ = 1…6 of every clip in the rows behind, where it learns from them."
    r, recipe = np.random.default_rng(seed), recipe_of(method, SETTINGS)
    clips = pd.DataFrame(dict(dataset='demo', subject=[f's{i // 6}' for i in range(24)], clip=[f'c{i:02}' for i in range(24)],
                              label=[0, 0, 0, 1, 1, 2] * 4, input=kind))
    shape = (5, 2, 16, 16) if METHODS[method].reads == 'preprocess' and kind == 'frames' else recipe.shape(kind)
    copied = kind == 'frames' and METHODS[method].copies
    x = r.normal(size=(24 * 7 if copied else 24, *shape)) if METHODS[method].reads == 'preprocess' else r.uniform(size=(24, *shape))
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
    "The same noise on a training subject changes what is learnt; so does the seed, where there is chance."
    clips, x, copies = dataset('frames', method)
    clean = weights(method, clips, x, copies)
    assert weights(method, *with_noise(clips, x, 's1'), copies) != clean
    if method not in ('majority', 'pca_lda', 'lbp_top', 'bi_woof'): assert weights(method, clips, x, copies, seed=1) != clean


TRUNK = override(SETTINGS, 'compute.trunk=0.5,compute.group=2,pltn.epochs=2,plsm.epochs=2')


@pytest.mark.parametrize('kind', ['frames', 'flow28'])
def test_canary_of_a_shared_trunk(tmp_path, kind):
    "s0 and s2 share a trunk: neither is in it, and after the fork each fold is blind to its own."
    clips, x, copies = dataset(kind, 'mpfnet_p')
    def learnt(out, c=clips, v=x, test=TEST): return weights('mpfnet_p', c, v, copies, tmp_path / out, test, TRUNK)
    def trunks(out): return {p.parent.name: p.read_bytes() for p in (tmp_path / out).glob('*-trunk/*.safetensors')}
    clean = {s: learnt('clean', test=('demo', s)) for s in ('s0', 's2')}
    assert sorted(trunks('clean')) == ['plsm-trunk', 'pltn-trunk'] and len(list((tmp_path / 'clean').glob('*-trunk/*.safetensors'))) == 2
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
    clips = clips.assign(label=[2 if s in ('s0', 's2') and k % 6 == 5 else k % 6 > 2 for k, s in enumerate(clips['subject'])]).astype(dict(label=int))
    clips.loc[[6, 18], 'label'] = 2
    fold = Fold(clips, x, [TEST], copies=copies, n_classes=3)
    only = sorted(read_by(fold.trunk(2)) - read_by(fold))
    assert only, 'the trunk reads nothing of its own: the test shows nothing'
    other = x.copy(); other[only] *= 3
    def learnt(v): return weights('plsm', clips, v, copies, tmp_path, settings=settings)
    assert learnt(x) == learnt(x) != learnt(other)


def test_inner_gamma_does_not_see_the_test_subject():
    clips, x, copies = dataset('flow28')
    def chosen(c, v): return inner_gamma(Fold(c, v, [TEST], n_classes=3), Context(settings=SETTINGS), grid=np.linspace(0, 1, 5), n_splits=3)
    clean = chosen(clips, x)
    assert chosen(*with_noise(clips, x, TEST[1])) == clean
    assert any(chosen(*with_noise(clips, x, s)) != clean for s in ('s0', 's1', 's3')), 'no training subject matters: the test shows nothing'


@pytest.mark.parametrize('kwargs', [dict(method='mpfnet_p', gamma='inner'), dict(method='mpfnet_p', overrides='compute.trunk=0.5,compute.group=2,pltn.epochs=2'), *(dict(method=m) for m in METHODS if m not in ('mpfnet_p', 'pltn', 'plsm', 'scratch', 'majority'))], ids=str)
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
        folder = run(dataset='synth', data_root=str(data), out_dir=str(out), subjects=f'synth/{subject}', device='cpu',
                     overrides=','.join(filter(None, ['preprocess.size=16,meta.shot=2', *(o for o in f'{CHEAP},{CHEAP_RIVALS}'.split(',') if o.split('=')[0] not in more), more])), **kwargs)
        return json.loads((folder / 'folds' / f'synth__{subject}.json').read_text())['weights_sha256']
    assert sha(synth_root, tmp_path / 'a') == sha(tmp_path / 'noise', tmp_path / 'b') == sha(tmp_path / 'noise', tmp_path / 'a')
    if kwargs['method'] == 'pca_lda': assert sha(synth_root, tmp_path / 'a', 'sub02') != sha(tmp_path / 'noise', tmp_path / 'b', 'sub02')


def test_cached_priors_of_another_split_are_not_used(tmp_path):
    "Priors are shared between methods of a fold, never between folds."
    clips, x, copies = dataset('flow28')
    weights('mpfnet_p', clips, x, copies, tmp_path)
    first = {p.name for p in tmp_path.rglob('*.safetensors')}
    fit('mpfnet_p', Fold(clips, x, [('demo', 's1')], n_classes=3), Context(settings=SETTINGS, artefacts=Artefacts(tmp_path)))
    assert len(first) == 2 and len({p.name for p in tmp_path.rglob('*.safetensors')}) == 4


def test_a_cached_prior_gives_the_weights_of_a_fresh_one(tmp_path):
    clips, x, copies = dataset('frames')
    assert weights('mpfnet_c', clips, x, copies, tmp_path) == weights('mpfnet_c', clips, x, copies, tmp_path) == weights('mpfnet_c', clips, x, copies)


def test_a_fold_hands_out_nothing_of_the_test_subject():
    clips, x, copies = dataset('frames')
    fold = Fold(clips, x, [TEST], copies=copies, n_classes=3)
    assert TEST[1] not in set(fold.clips['subject']) and len(fold.y) == len(fold.X()) == 18
    for ask in (fold.test_features, lambda: fold.X([18]), lambda: fold.magnified([18], [1]), lambda: fold.X([-1])):
        with pytest.raises(LeakageError): ask()
    for inner in fold.inner(3):
        assert TEST not in inner.held_out and TEST[1] not in set(inner.clips['subject'])


def test_a_model_that_learns_while_it_predicts_is_caught():
    clips, x, copies = dataset('flow28')
    fold = Fold(clips, x, [TEST], n_classes=3)
    model = fit('scratch', fold, Context(settings=SETTINGS))
    fold.seal(model.state())
    model.matcher.train()                      # batch norm now follows the test clips
    model.scores(fold.test_features())
    with pytest.raises(LeakageError, match='changed while it predicted'): fold.check_unchanged(model.state())
