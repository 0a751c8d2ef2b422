"""A model in a folder: every method of the table repeats itself from its file, and what is not as it was written is
refused with a sentence."""
import importlib
import json
import os
import shutil
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CHEAP, CHEAP_RIVALS, write_flow_release
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warm import warm

import mpfnet
from mpfnet.clips import load_clips
from mpfnet.data.frames import read_image
from mpfnet.data.labels import MEGC2019
from mpfnet.loso import run
from mpfnet.methods import METHODS, Method, one, recipe_of, settings_preset
from mpfnet.models import CARD, CONFIG, WEIGHTS, alone_at, fit, load, probe

SMALL = f'{CHEAP},{CHEAP_RIVALS},preprocess.size=16,gray.size=32,dynamic.size=32'


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def takes_flow(method): return 'flow28' in recipe_of(method, settings_preset('tiny')).kinds


@contextmanager
def few_clips():
    "The flow release has 60 clips of twelve subjects instead of 442 of 68, for those who write it and who read it."
    with pytest.MonkeyPatch.context() as patch:
        for dataset in MEGC2019: patch.setitem(MEGC2019, dataset, ((8, 6, 6), 4))
        yield


@pytest.fixture(scope='module')
def made(tmp_path_factory, synth_root):
    "(method, …) → a fitted model's folder; the cheap data where the method takes it."
    base, done = tmp_path_factory.mktemp('models'), {}
    def fitted(method, name, frames=False):
        data = dict(dataset='synth', data_root=synth_root) if frames else dict(dataset='megc2019_flow',
                                                                              data_root=base/'flow')
        with few_clips():
            return fit(method=method, out=base/name, out_dir=base/'runs', preset='tiny', device='cpu', overrides=SMALL,
                       progress=False, calibrate=False, **data)
    def make(method, frames=False):
        frames = frames or not takes_flow(method)
        if (method, frames) not in done: done[method, frames] = fitted(method, f'{method} {frames}', frames)
        return done[method, frames]
    with few_clips(): write_flow_release(base/'flow', seed=3)
    make.base, make.again = base, fitted
    return make


@pytest.fixture
def copy(made, tmp_path): return Path(shutil.copytree(made('pca_lda'), tmp_path/'a copy of it'))


THERE = """
import json, sys, warnings
warnings.simplefilter('ignore')
import mpfnet
from mpfnet.models import probe
models = map(mpfnet.load, sys.argv[1:])
print(json.dumps([m.scores_of(probe(m.shape)).tolist() for m in models]))
"""


def test_every_method_repeats_itself_in_another_process(made):
    """The table as it is, with no list of names to edit. `fit` compares the fitted model with what its state gives,
    and refuses to write anything else."""
    folders = [made(m) for m in METHODS]
    done = warm('-c', THERE, *folders)
    assert done.returncode == 0, done.stderr
    for folder, there in zip(folders, json.loads(done.stdout)):
        model = load(folder)
        assert np.allclose(model.scores_of(probe(model.shape)), there, atol=1e-6), folder
        assert model.classes == ('negative', 'positive', 'surprise') and model.about['data']['subjects'] >= 5
        assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS, CONFIG, CARD])


def test_frames_features_and_tables_give_the_same_scores(made, synth_root):
    clips = load_clips('synth', synth_root)
    for method in ('mpfnet_c', 'lbp_top', 'afn'):
        model, two = load(made(method, frames=True)), clips.table.iloc[[0, 17]]
        found = model.predict(two).filter(like='score_').to_numpy()
        for row, scores in zip(two.itertuples(), found):
            numbers = sorted(k for k in row.frames if row.onset <= k <= row.offset)
            frames = [read_image(row.frames[k]) for k in numbers]
            apex = numbers.index(row.apex)
            assert np.allclose(model.scores(frames, apex=apex), scores, atol=1e-6), method
            if model.recipe.span == 'ends':
                again = model.scores(np.stack([frames[0], frames[apex]]))
                assert np.allclose(again, scores, atol=1e-6) and np.allclose(model.rows_of(frames[:apex + 1]).shape[1:],
                                                                             model.shape)


def test_who_was_learnt_from_is_told(made, synth_root):
    model, clips = load(made('mpfnet_c', frames=True)), load_clips('synth', synth_root)
    with pytest.warns(UserWarning, match='1 of 1 clips are of subjects that the model learnt from'):
        found = model.predict(clips.table.head(1))
    assert list(found) == ['dataset', 'subject', 'clip', 'prediction', *(f'score_{c}' for c in model.classes)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.predict(clips.table.head(1).assign(subject='somebody else'))


def test_a_model_of_flow_takes_frames_of_anybody(made, synth_root):
    row = load_clips('synth', synth_root).table.iloc[0]
    model = load(made('pca_lda'))
    frames = [read_image(row.frames[k]) for k in (row.onset, row.apex)]
    row28 = model.rows_of(frames)
    assert row28.shape == (1, 3, 1, 28, 28) and 0 <= row28.min() and row28.max() == 1
    assert np.allclose(model.scores(frames), model.scores_of(row28)[0], atol=1e-9)
    grey = [f[..., 0] for f in frames]
    assert model.scores(grey).shape == (3,)


@pytest.mark.parametrize('frames, says', [
    ([np.zeros((32, 32), np.uint8)], 'two or more of one clip'),
    ([np.zeros((32, 32), np.float32)]*2, 'uint8'),
    (np.zeros((32, 32, 3), np.uint8), '16 pixels or more'),
    ([np.zeros((32, 32), np.uint8), np.zeros((32, 40), np.uint8)], 'sizes of the frames'),
    (np.zeros((2, 3, 1, 28, 27), np.float32), 'uint8'),
])
def test_what_are_no_frames(made, frames, says):
    with pytest.raises(ValueError, match=says): load(made('pca_lda')).scores(frames)


def test_positions_and_features_out_of_range(made):
    model, frames = load(made('pca_lda')), np.zeros((4, 32, 32), np.uint8)
    with pytest.raises(ValueError, match='apex: expected the position'): model.scores(frames, apex=4)
    with pytest.raises(ValueError, match='rising numbers'): model.scores(frames, times=[0, 2, 1, 3])
    with pytest.raises(ValueError, match='not finite'): model.scores_of(np.full((1, 3, 1, 28, 28), np.nan))
    other = pd.DataFrame(dict(input=['frames'], dataset='a', subject='b', clip='c'))
    with pytest.raises(ValueError, match='clips: expected ready-made flow images'): model.predict(other)


def edited(folder, **new):
    "A config that says something else, with a hash that fits."
    from mpfnet.core.files import as_json, hash_of
    config = json.loads((folder/CONFIG).read_text()) | new
    config.pop('config_sha256')
    (folder/CONFIG).write_text(as_json(config | dict(config_sha256=hash_of(config))))


def replace_bytes(folder, content):
    from hashlib import sha256
    (folder/WEIGHTS).write_bytes(content)
    edited(folder, weights=dict(file=WEIGHTS, sha256=sha256(content).hexdigest(), bytes=len(content), tensors=1))


def replace_weights(folder, change):
    from safetensors.torch import load_file, save
    replace_bytes(folder, save(change(load_file(folder/WEIGHTS))))


BAD = {
    'no such folder': lambda f: shutil.rmtree(f),
    'model.safetensors is missing': lambda f: (f/WEIGHTS).unlink(),
    'config.json is missing': lambda f: (f/CONFIG).unlink(),
    'The file was cut': lambda f: (f/WEIGHTS).write_bytes((f/WEIGHTS).read_bytes()[:100]),
    'is damaged': lambda f: (f/CONFIG).write_text((f/CONFIG).read_text()[:100]),
    'it was edited': lambda f: (f/CONFIG).write_text((f/CONFIG).read_text().replace('negative', 'positive')),
    'Update mpfnet': lambda f: edited(f, format=2),
    'expected the config.json of a model, found that of a run': lambda f: edited(f, kind=None),
    'which is not here: unknown method': lambda f: edited(f, method='mpfnet_z'),
    'by another recipe': lambda f: edited(f, recipe='0'*16),
    'a pickle, which could run anything': lambda f: torch.save({}, f/WEIGHTS),
    'is not known': lambda f: replace_weights(f, lambda s: s | {'more': torch.ones(2)}),
    'lda.coef is missing': lambda f: replace_weights(f, lambda s: {k: v for k, v in s.items() if k != 'lda.coef'}),
    'has the shape': lambda f: replace_weights(f, lambda s: s | {'pca.mean': s['pca.mean'][:-1].clone()}),
    'no longer says what it said': lambda f: replace_weights(f, lambda s: s | {'lda.coef': s['lda.coef']*2}),
    'cannot be made from what stands there': lambda f: replace_weights(f, lambda s: s | {
        'pca.mean': s['pca.mean']*np.nan}),
    'no safetensors file': lambda f: replace_bytes(f, (2**60).to_bytes(8, 'little') + b'{}'),
    'people, made: missing or of another kind': lambda f: edited(f, people=None, made=[]),
    'stamp: missing or of another kind': lambda f: edited(f, data={}),
    'classes: missing or of another kind': lambda f: edited(f, classes=['negative']),
    'calibration: missing or of another kind': lambda f: edited(f, calibration=dict(temperature='hot')),
    'a model of format True': lambda f: edited(f, format=True),
}


@pytest.mark.parametrize('says', BAD)
def test_what_is_refused(copy, says):
    BAD[says](copy)
    with pytest.raises(ValueError, match=says): mpfnet.load(copy)


def test_a_folder_makes_nothing_run(copy, tmp_path):
    "The name of a method that is an address is not followed, whatever else the folder says."
    (tmp_path/'theirs.py').write_text('open(__file__ + ".ran", "w")\n')
    for name in (f'{tmp_path}/theirs.py:Mine', 'theirs:Mine', 'os:system'):
        edited(copy, method=name)
        with pytest.raises(ValueError, match='which is not here: unknown method'): mpfnet.load(copy)
    assert [p.name for p in tmp_path.glob('theirs*')] == ['theirs.py']
    with pytest.raises(ValueError, match='device: expected cpu or cuda'): mpfnet.load(copy, device='tpu')


def test_pickles_are_not_opened_whatever_they_are_called(copy, tmp_path):
    (copy/WEIGHTS).rename(copy/'model.pt')
    for path in (copy, copy/'model.pt'):
        with pytest.raises(ValueError, match='a pickle, which could run anything'): load(path)
    with pytest.raises(ValueError, match='give the folder that holds'): load(copy/CONFIG)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from([WEIGHTS, CONFIG]))
def test_no_changed_bit_goes_unseen(copy, where, bit, name):
    whole = (copy/name).read_bytes()
    at = int(where*len(whole))
    (copy/name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:])
    try:
        with pytest.raises(ValueError): load(copy)
    except pytest.fail.Exception:                     # a blank that became another blank says the same
        assert name == CONFIG and load(copy).about == json.loads(whole)
    finally: (copy/name).write_bytes(whole)


def little(flow_root, tmp_path, method='pca_lda', **more):
    return fit('megc2019_flow', method, **dict(data_root=flow_root, out_dir=tmp_path/'runs', progress=False,
                                               out=tmp_path/'ein Modell, größer 李') | more)


def test_a_folder_that_is_there_is_kept(flow_root, tmp_path):
    out = little(flow_root, tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    with pytest.raises(ValueError, match='--force'): little(flow_root, tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    (out/'LICENCE-OF-DATA.txt').write_text('signed')
    with pytest.raises(ValueError, match='it holds LICENCE-OF-DATA.txt, which this command does not remove'):
        little(flow_root, tmp_path, force=True)
    (out/'LICENCE-OF-DATA.txt').unlink()
    again = little(flow_root, tmp_path, force=True)
    assert load(again).about['weights'] == json.loads((out/CONFIG).read_text())['weights']
    assert [p.name for p in tmp_path.iterdir() if p.name not in ('runs', out.name)] == []


def test_two_processes_do_not_fit_into_one_folder(flow_root, tmp_path):
    out = tmp_path/'model'
    with alone_at(out), pytest.raises(ValueError, match='another process is fitting'):
        little(flow_root, tmp_path, out=out)
    assert not out.exists() and little(flow_root, tmp_path, out=out).is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
from mpfnet import models
write = Path.write_bytes
def dies(self, content):
    write(self, content[:100])
    if self.name == models.CONFIG: os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = dies
models.fit('megc2019_flow', 'majority', data_root=sys.argv[1], out_dir=sys.argv[2], out=sys.argv[3], progress=False)
"""


@pytest.mark.skipif(os.name == 'nt', reason='no such signal')
def test_a_fit_that_is_killed_leaves_nothing_half(flow_root, tmp_path):
    out = tmp_path/'models'/'it'
    done = warm('-c', KILLED, flow_root, tmp_path/'runs', out)
    assert done.returncode == -9 and not out.exists() and len(list(out.parent.glob('.it~*'))) == 1
    assert little(flow_root, tmp_path, 'majority', out=out).is_dir()
    assert [p.name for p in out.parent.iterdir()] == ['it'], 'what was left is swept up'


@pytest.mark.parametrize('asked, says', [
    (dict(subjects='smic/sm00'), 'learns from all subjects'), (dict(seed='0,1'), 'one seed'),
    (dict(keep_weights=True), 'kept in any case'), (dict(sed=1), 'unknown parameter'),
    (dict(method='mpfnet'), 'known: '), (dict(length=7), 'length'),
])
def test_what_no_fit_is_asked(flow_root, tmp_path, asked, says):
    with pytest.raises(ValueError, match=says): little(flow_root, tmp_path, **asked)
    assert not list(tmp_path.iterdir())


def test_the_score_is_that_of_the_matching_run(made, synth_root, tmp_path):
    asked = dict(dataset='synth', method='pca_lda', data_root=synth_root, out_dir=made.base/'runs', preset='tiny',
                 device='cpu', overrides='preprocess.size=16', progress=False)
    folder = run(**asked | dict(seed=1))
    def fitted(seed): return load(fit(out=tmp_path/'m', force=True, **asked | dict(seed=seed)))
    assert fitted(0).about['score'] is None, 'another seed'
    told = fitted(1)
    metrics = json.loads((folder/'metrics.json').read_text())['pooled']
    assert {k: told.about['score'][k] for k in ('n', 'uf1', 'uf1_ci95')} == {k: metrics[k] for k in
                                                                         ('n', 'uf1', 'uf1_ci95')}
    assert folder.name in told.card and f"{metrics['uf1']:.3f}" in told.card and 'Art. 5(1)(f)' in told.card
    next((folder/'folds').glob('*.json')).unlink()
    assert 'Not evaluated' in fitted(1).card, 'a fold is missing'


def test_a_run_on_magnified_copies_matches_too(made, synth_root):
    asked = dict(dataset='synth', method='plsm', data_root=synth_root, out_dir=made.base/'runs', preset='tiny',
                 device='cpu', overrides=SMALL, progress=False)
    folder = run(**asked)
    model = load(fit(out=made.base/'plsm beside its run', **asked))
    assert model.about['score']['run'] == folder.name


def test_priors_are_found_again_by_another_method(made):
    made('mpfnet_c')
    def priors(): return {p: p.stat().st_mtime_ns for p in made.base.glob('runs/cache/priors/*/*.safetensors')}
    before = priors()
    made.again('mpfnet_p', 'p')
    assert priors() == before != {}


OWN = """
import numpy as np
class Mine:
    def __init__(self, fold, ctx): self.mean, self.hidden = fold.X().mean(0).numpy(), fold.y.float().mean().item()
    def scores(self, x): return np.stack([np.asarray(x).reshape(len(x), -1).mean(1)*k + {uses} for k in range(3)], 1)
    def state(self): return dict(mean=self.mean)
    @classmethod
    def restore(cls, state, about, ctx):
        new = cls.__new__(cls)
        new.mean, new.hidden = np.asarray(state['mean']), 0.
        return new
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    def write(uses):
        (tmp_path/'own_of_mine.py').write_text(OWN.format(uses=uses))
        importlib.invalidate_caches()
        old = sys.modules.get('own_of_mine')
        module = importlib.reload(old) if old else importlib.import_module('own_of_mine')
        monkeypatch.setitem(METHODS, 'mine', Method(fit=one(module.Mine)))
    yield write
    sys.modules.pop('own_of_mine', None)


def test_a_state_that_forgets_is_found_out(mine, flow_root, tmp_path):
    mine('self.hidden')
    with pytest.raises(ValueError, match='`state` lacks something'): little(flow_root, tmp_path, 'mine')
    assert not list(tmp_path.glob('ein*'))


def test_how_sure_it_may_be_is_learnt_on_people_whom_a_fit_had_not_seen(mine, flow_root, tmp_path, monkeypatch):
    "A third at a time, by fits on the others; the model itself is the same with it and without, and an old one loads."
    mine('0')
    Mine, seen = sys.modules['own_of_mine'].Mine, []
    make = Mine.__init__
    def noted(self, fold, ctx):
        seen.append({*zip(fold.clips['dataset'], fold.clips['subject'])})
        make(self, fold, ctx)
    monkeypatch.setattr(Mine, '__init__', noted)
    plain = load(little(flow_root, tmp_path, 'mine', calibrate=False))
    assert len(seen) == 1
    model = load(little(flow_root, tmp_path, 'mine', out=tmp_path/'sure'))
    whole, held = seen[0], [seen[0] - part for part in seen[2:]]
    assert seen[1] == whole == set.union(*held) and sum(map(len, held)) == len(whole) and len(held) == 3
    assert plain.about['weights'] == model.about['weights'] and plain.about['probe'] == model.about['probe']
    found = model.about['calibration']
    assert (found['fits'], found['clips'], found['subjects']) == (3, model.about['data']['clips'], len(whole))
    assert plain.temperature == 1 != model.temperature and f'temperature of {model.temperature:.3g}' in model.card
    assert 'it was not asked for' in plain.card and plain.about['command'].endswith(' --no-calibration')
    edited(model.folder, calibration=None)
    assert load(model.folder).temperature == 1


def test_a_network_is_fitted_once_more_and_one_that_cannot_be_is_a_model_all_the_same(flow_root, tmp_path, monkeypatch):
    asked = dict(preset='tiny', device='cpu', overrides=SMALL)
    model = load(little(flow_root, tmp_path, 'scratch', **asked))
    assert model.about['calibration']['fits'] == 1 and 0 < model.temperature < 1
    def refuse(e): raise ValueError('too few clips')
    monkeypatch.setattr('mpfnet.models.scores_held_out', refuse)
    without = load(little(flow_root, tmp_path, out=tmp_path/'m'))
    assert without.temperature == 1 and 'Not known: too few clips' in without.card


def test_an_own_method_needs_its_own_source(mine, flow_root, tmp_path, monkeypatch):
    mine('self.mean.mean()')
    out = little(flow_root, tmp_path, 'mine')
    assert load(out).scores_of(probe((3, 1, 28, 28))).shape == (2, 3)
    mine('2*self.mean.mean()')
    with pytest.raises(ValueError, match='the source of .mine. is not the one'): load(out)
    monkeypatch.delitem(METHODS, 'mine')
    with pytest.raises(ValueError, match='which is not here'): load(out)


def test_a_method_without_a_way_back(mine, flow_root, tmp_path, monkeypatch):
    mine('0')
    monkeypatch.delattr(sys.modules['own_of_mine'].Mine, 'restore')
    with pytest.raises(ValueError, match='cannot be made from its state'): little(flow_root, tmp_path, 'mine')


def test_the_command(flow_root, tmp_path):
    asked = ('-m', 'mpfnet', 'fit', 'megc2019_flow', '--method', 'majority', '--data-root', flow_root, '--out', 'm/a b',
             '--out-dir', 'runs', '--seed', '3')
    done = warm(*asked, cwd=tmp_path)
    assert done.returncode == 0 and 'majority of' in done.stdout and 'not evaluated' in done.stdout, done.stderr
    model = load(tmp_path/'m'/'a b')
    assert model.about['seed'] == 3
    assert model.about['command'] == "mpfnet fit megc2019_flow --method majority --out 'm/a b' --seed 3"
    done = warm(*asked, cwd=tmp_path)
    assert done.returncode == 1 and '--force' in done.stderr and 'Traceback' not in done.stderr
    assert warm(*asked, '--force', cwd=tmp_path).returncode == 0
    done = warm('-m', 'mpfnet', 'fit', 'casme9', cwd=tmp_path)
    assert done.returncode == 1 and 'known:' in done.stderr and 'Traceback' not in done.stderr


def test_the_package_knows_nothing_else_by_itself():
    assert mpfnet.load is load
    with pytest.raises(AttributeError, match="no attribute 'lod'"): mpfnet.lod
