"""Runs: resumed, killed, tampered with, in one process or two; and bad input, before anything is trained."""
import inspect
import json
import os
import re
import signal
import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import CHEAP, CHEAP_RIVALS, write_flow_release
from hypothesis import given
from hypothesis import strategies as st
from warm import warm

from mpfnet import loso, methods
from mpfnet.data.readers import FLOW_IMAGES, FLOW_LIST, DataError
from mpfnet.loso import run
from mpfnet.methods import METHODS, Method, one
from mpfnet.metrics import read_predictions
from mpfnet.motion.face import blaze_lacks
from mpfnet.paper.plan import find_runs
from mpfnet.parameters import options_of
from mpfnet.results import records as kept
from mpfnet.results.report import collect
from mpfnet.results.runs import configs
from mpfnet.synthetic.lookalike import make_lookalike
from mpfnet.tools.validate import validate

FOUR = 'casme2/ca00,samm/sa00,samm/sa01,smic/sm00'
pytestmark = pytest.mark.filterwarnings('ignore:megc2019_flow. checksum')     # look-alikes are not the release


def go(root, out, **kwargs):
    return run(
        **dict(dataset='megc2019_flow', data_root=str(root), out_dir=str(out) if isinstance(out, os.PathLike) else out,
               overrides=CHEAP, subjects=FOUR, device='cpu', method='mpfnet_p')
        | kwargs
    )


@pytest.fixture(scope='module')
def reference(flow_root, tmp_path_factory):
    "An uninterrupted run of four folds in one process."
    return go(flow_root, tmp_path_factory.mktemp('reference'))


def ready(out, **more):
    "A run of ten folds that cost little: of ready-made rows, six clips a person."
    x = np.random.default_rng(0).normal(size=(60, 3, 1, 16, 16))
    small = 'pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2,encoder.width=0.125'
    return run(**dict(dataset=(x, [0, 0, 1, 1, 2, 2]*10, [f's{k // 6}' for k in range(60)]), out_dir=str(out),
                      preset='tiny', overrides=small, device='cpu', method='mpfnet_p') | more)


def script(out, **more):
    "A program that does the same."
    return (f'import numpy as np\nfrom mpfnet.loso import run\n{inspect.getsource(ready)}\n'
            f'if __name__ == "__main__": ready({str(out)!r}, **{more})')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Such a run, uninterrupted and in one process."
    return ready(tmp_path_factory.mktemp('whole'))


def records(folder): return {p.name: p for p in sorted((folder / 'folds').glob('*.json'))}


def test_result_files(reference):
    config, env, metrics = (json.loads((reference / f'{n}.json').read_text()) for n in ('config', 'env', 'metrics'))
    table = read_predictions(reference / 'predictions.csv')
    assert reference.name.startswith('megc2019_flow-3class-mpfnet_p-') and len(reference.name.rsplit('-')[-1]) == 8
    assert (config['settings']['pltn']['epochs'] == 1 and config['settings']['gamma'] == 0.7
            and config['data']['decisions'] == {'megc2019_flow: checksum': 1})
    assert json.loads((reference / 'data_report.json').read_text())['findings'][0]['decision'] == 'checksum' and config[
        'data'
    ]['stamp'].startswith('REAL')
    assert {'torch', 'commit', 'device', 'start', 'seconds'} <= set(env)
    assert set(metrics['pooled']) == {'n', 'acc', 'f1_weighted', 'uf1', 'uar', 'confusion', 'uf1_ci95', 'uar_ci95'}
    assert set(metrics['per_dataset']) == {'smic', 'casme2', 'samm'} and metrics['folds'] == {'done': 4, 'of': 68}
    assert list(table) == ['dataset', 'subject', 'clip', 'label', 'prediction', 'score_0', 'score_1', 'score_2']
    assert (table[['dataset', 'subject', 'clip']].apply(tuple, axis=1).is_monotonic_increasing and len(table)
            == metrics['pooled']['n'])
    r = json.loads(records(reference)['casme2__ca00.json'].read_text())
    assert {'subject', 'clips', 'labels', 'predictions', 'scores', 'weights_sha256', 'seed', 'seconds'} <= set(r)


def test_two_processes_give_the_same_bytes(whole, tmp_path):
    two = ready(tmp_path, workers=2)
    assert (two.name == whole.name and (two / 'predictions.csv').read_bytes()
            == (whole / 'predictions.csv').read_bytes())
    sha = lambda f: {n: json.loads(p.read_text())['weights_sha256'] for n, p in records(f).items()}
    assert sha(two) == sha(whole) and len(sha(two)) == 10


@pytest.mark.parametrize('workers', [1, 2])
def test_killed_run_continues_to_the_same_numbers(whole, tmp_path, workers):
    file = tmp_path / 'go.py'
    file.write_text(script(tmp_path, workers=workers))
    process = warm.begin(file)
    folder = tmp_path / whole.name
    end = time.time() + 120
    while len(records(folder)) < 2 and process.poll() is None and time.time() < end: time.sleep(.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {n: p.stat().st_mtime_ns for n, p in records(folder).items()}
    assert 2 <= len(before) < 10, 'the kill came too late to test anything'
    assert ready(tmp_path) == folder
    after = {n: p.stat().st_mtime_ns for n, p in records(folder).items()}
    assert len(after) == 10 and all(after[n] == t for n, t in before.items()), 'a finished fold was computed again'
    assert (folder / 'predictions.csv').read_bytes() == (whole / 'predictions.csv').read_bytes()


def rewrite(p, **changes):
    "Change a record and its hash, as somebody would who means it."
    r = json.loads(p.read_text()) | changes
    p.write_text(json.dumps(kept.with_hash({k: v for k, v in r.items() if k != 'record_sha256'})))


def damage_truncate(p): p.write_text(p.read_text()[:100])
def damage_empty(p): p.write_bytes(b'')
def damage_list(p): p.write_text('[1, 2]')
def damage_deep(p): p.write_text('['*10**5)
def damage_folder(p):
    p.unlink()
    p.mkdir()
    (p / 'inside').write_text('')
def damage_pipe(p):
    p.unlink()
    os.mkfifo(p)
def damage_digit(p):
    t = p.read_text()
    k = t.index('"scores"')
    k += t[k:].index('0.') + 3
    p.write_text(t[:k] + str((int(t[k]) + 1) % 10) + t[k + 1 :])
def damage_no_hash(p):
    r = json.loads(p.read_text())
    del r['record_sha256']
    p.write_text(json.dumps(r))
def damage_hash(p): p.write_text(json.dumps(json.loads(p.read_text()) | dict(record_sha256='0'*64)))
def damage_config(p): rewrite(p, config='0'*64)
def damage_clips(p): rewrite(p, clips=['other', *json.loads(p.read_text())['clips'][1:]])
def damage_labels(p): rewrite(p, labels=[2 - y or 1 for y in json.loads(p.read_text())['labels']])
def damage_range(p): rewrite(p, predictions=[3 for _ in json.loads(p.read_text())['predictions']])
def damage_argmax(p): rewrite(p, predictions=[(k + 1) % 3 for k in json.loads(p.read_text())['predictions']])
def damage_nan(p):
    r = json.loads(p.read_text())
    r['scores'][0][0] = float('nan')
    p.write_text(json.dumps(r))
def damage_short(p): rewrite(p, scores=json.loads(p.read_text())['scores'][:-1])
def damage_impossible(p): rewrite(p, scores=[[2*v for v in row] for row in json.loads(p.read_text())['scores']])
def damage_text(p): rewrite(p, scores='none')


def test_damaged_records_are_told_of_and_computed_again(flow_root, tmp_path):
    folder = go(flow_root, tmp_path, method='pca_lda')
    whole, damages = ((folder / 'predictions.csv').read_bytes(),
                      [f for n, f in globals().items() if n.startswith('damage_')])
    assert len(damages) == 18
    *paths, untouched = records(folder).values()
    good, before = {p: json.loads(p.read_text()) for p in paths}, untouched.stat().st_mtime_ns
    for k in range(0, len(damages), 3):                                    # three records at once, in three ways
        for damage, path in zip(damages[k:], paths): damage(path)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            go(flow_root, tmp_path, method='pca_lda')
        for damage, path in zip(damages[k:], paths):
            assert any(re.search(f'left out: .*{path.name}', str(w.message)) for w in told), damage.__name__
            again = json.loads(path.read_text())
            assert all(again[n] == v for n, v in good[path].items() if n != 'seconds'), damage.__name__
        assert (folder / 'predictions.csv').read_bytes() == whole
    assert untouched.stat().st_mtime_ns == before
    odd, = untouched.parent.glob('*.odd1')
    assert (odd / 'inside').exists()                                       # what stood in the way is there still


def test_any_changed_digit_of_a_record_shows(reference, tmp_path):
    "In scores, parts, weights, labels, hashes; of the seconds it may not."
    text, path = records(reference)['samm__sa00.json'].read_text(), tmp_path / 'record.json'
    lines, tried = text.splitlines(keepends=True), 0
    for n, line in enumerate(lines):
        if '"seconds"' in line: continue
        for k, c in enumerate(line):
            if not c.isdigit(): continue
            path.write_text(''.join([*lines[:n], line[:k] + str((int(c) + 1) % 10) + line[k + 1:], *lines[n + 1:]]))
            with pytest.raises(ValueError): kept.read_record(path)
            tried += 1
    path.write_text(text)
    assert tried > 200 and 'parts' in kept.read_record(path)


def test_parts_that_do_not_sum_to_the_scores_are_refused(reference, flow_root, tmp_path):
    import shutil
    shutil.copytree(reference.parent, tmp_path / 'r')
    path = tmp_path / 'r' / reference.name / 'folds' / 'samm__sa00.json'
    parts = json.loads(path.read_text())['parts']
    rewrite(path, parts=[parts[0], [[-v for v in row] for row in parts[1]]])
    kept.read_record(path)                                                 # its hash is right
    with pytest.warns(UserWarning, match='none that mpfnet_p can give'): go(flow_root, tmp_path / 'r')
    assert json.loads(path.read_text())['parts'] == parts


def test_odd_files_in_a_run_folder_are_a_sentence(flow_root, tmp_path):
    """A list where a dict was meant, a folder where a file, a file where a folder: in what a run writes, and in what
    the pages read."""
    folder = go(flow_root, tmp_path, method='majority', subjects=None)
    table = collect(tmp_path)
    odd = dict(metrics=lambda p: p.write_text('[]'), env=lambda p: p.write_text('{"parts": [1]}'),
               config=lambda p: (p.unlink(), p.mkdir()))
    for name, damage in odd.items(): damage(folder / f'{name}.json')
    with pytest.warns(UserWarning, match='left out: .*config.json: expected a file, found a folder'):
        assert not len(collect(tmp_path)) and not configs(tmp_path) and not find_runs(tmp_path)
    (folder / 'folds').rename(folder / 'elsewhere')
    (folder / 'folds').write_text('a file')
    (folder / '.lock').unlink(missing_ok=True)
    (folder / '.lock').mkdir()
    with pytest.warns(UserWarning, match='folds.odd1 now'):
        assert go(flow_root, tmp_path, method='majority', subjects=None) == folder
    assert (collect(tmp_path).equals(table) and (folder / 'config.json.odd1').is_dir()
            and json.loads((folder / 'env.json').read_text())['folds_trained'] == 68)
    for text in ('['*10**5, '{"pooled": 3, "folds": 1}', '\xff'):
        (folder / 'metrics.json').write_text(text, encoding='latin-1')
        with pytest.warns(UserWarning, match='left out'): assert not len(collect(tmp_path))


@pytest.mark.parametrize('method', METHODS)
def test_every_method_goes_on(method, synth_root, tmp_path):
    "Of three folds one record is lost and one torn: those two are trained again, to the same bytes."

    def three():
        return run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method=method,
                   subjects='synth/sub01,synth/sub02,synth/sub03', device='cpu',
                   length=5 if METHODS[method].reads == 'preprocess' else 11,
                   overrides=f'{CHEAP},preprocess.size=16,meta.shot=2,meta.queries=2,{CHEAP_RIVALS}')
    folder = three()
    paths, whole = list(records(folder).values()), (folder / 'predictions.csv').read_bytes()
    first, sha = paths[0].stat().st_mtime_ns, [json.loads(p.read_text())['weights_sha256'] for p in paths]
    paths[1].unlink()
    paths[2].write_text(paths[2].read_text()[:-40])
    (folder / 'predictions.csv').unlink()
    assert three() == folder and paths[0].stat().st_mtime_ns == first
    assert (folder / 'predictions.csv').read_bytes() == whole and [
        json.loads(p.read_text())['weights_sha256'] for p in paths
    ] == sha
    assert json.loads((folder / 'env.json').read_text())['folds_trained'] == 5


def test_what_a_method_cannot_read_is_an_error_before_anything_runs(flow_root, tmp_path):
    with pytest.raises(
        ValueError,
        match='lbp_top needs recorded frames, this dataset has ready-made flow images; methods that can take them: '
              '.*ststnet, bi_woof',
    ):
        go(flow_root, tmp_path, method='lbp_top')
    assert not list(tmp_path.rglob('*.f16'))


def test_settings_of_other_methods_do_not_touch_a_run(flow_root, tmp_path):
    def one(**more): return go(flow_root, tmp_path, method='pca_lda', subjects='samm/sa00', **more)
    assert one() == one(overrides='ststnet.epochs=1,svm.C=2.5')


def test_a_second_run_trains_nothing(reference, flow_root):
    times = {n: p.stat().st_mtime_ns for n, p in records(reference).items()}
    assert go(flow_root, reference.parent) == reference
    assert {n: p.stat().st_mtime_ns for n, p in records(reference).items()} == times
    assert len(json.loads((reference / 'env.json').read_text())['parts']) == 1


def test_subjects_are_added_to_a_run(whole, tmp_path):
    some = ready(tmp_path, subjects='arrays/s3,arrays/s8')
    assert len(records(some)) == 2
    assert ready(tmp_path) == some and len(json.loads((some / 'env.json').read_text())['parts']) == 2
    assert (some / 'predictions.csv').read_bytes() == (whole / 'predictions.csv').read_bytes()


def test_methods_share_their_priors(flow_root, tmp_path):
    files = lambda: sorted(p.name for p in (tmp_path / 'cache' / 'priors').rglob('*.safetensors'))
    go(flow_root, tmp_path, subjects='samm/sa00')
    shared = files()
    for method in ('mpfnet_c', 'pltn', 'plsm'): go(flow_root, tmp_path, subjects='samm/sa00', method=method)
    assert len(shared) == 2 and files() == shared


@pytest.mark.parametrize('progress', [False, True])
def test_a_run_shows_bars_unless_it_is_told_not_to(tmp_path, capfd, monkeypatch, progress):
    "Of the features, and of the folds; without them, not a word. The run is the same."
    monkeypatch.setenv('MPFNET_PROGRESS', 'bar')
    root = write_flow_release(tmp_path / 'data', seed=1 + progress)        # features that have to be computed
    folder = go(root, tmp_path, method='majority', overrides='', progress=progress)
    shown = capfd.readouterr()
    assert [word in shown.err for word in ('features:', 'majority seed 0:', '4/4')] == [progress] * 3
    assert not shown.out and (progress or not shown.err) and len(records(folder)) == 4


def test_several_seeds(flow_root, tmp_path):
    folder = go(flow_root, tmp_path, seed='0,1', method='scratch', subjects='samm/sa00,smic/sm00')
    m = json.loads((folder / 'metrics.json').read_text())
    runs = [tmp_path / r for r in json.loads((folder / 'config.json').read_text())['runs']]
    each = [json.loads((r / 'metrics.json').read_text())['pooled']['uf1'] for r in runs]
    assert m['seeds']['uf1']['each'] == each and m['seeds']['uf1']['mean'] == pytest.approx(sum(each) / 2)
    a, b, both = (read_predictions(f / 'predictions.csv') for f in (*runs, folder))
    assert (both['score_1'] - (a['score_1'] + b['score_1']) / 2).abs().max() < 1e-5 and not a['score_1'].equals(
        b['score_1']
    )


def test_seeds_with_different_folds_average_what_they_share(flow_root, tmp_path):
    go(flow_root, tmp_path, seed=0, method='scratch', subjects='samm/sa00,samm/sa01')
    m = json.loads(
        (go(flow_root, tmp_path, seed='0,1', method='scratch', subjects='samm/sa00') / 'metrics.json').read_text()
    )
    assert m['folds'] == {'done': 1, 'of': 68}


def test_features_reach_the_baselines(flow_root, tmp_path):
    both, flow = (
        read_predictions(
            go(flow_root, tmp_path, method='pca_lda', features=f, subjects='samm/sa00') / 'predictions.csv'
        )
        for f in ('both', 'flow')
    )
    assert not both['score_0'].equals(flow['score_0'])


def test_gamma_inside_the_fold_finds_its_copies(synth_root, tmp_path):
    folder = run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='mpfnet_p', gamma='inner',
                 subjects='synth/sub04', device='cpu', length=5, overrides=CHEAP.replace('phi_limit=1', 'phi_limit=5')
                 + ',preprocess.size=16,meta.shot=2,meta.queries=2')
    assert len(records(folder)) == 1


def test_validate(flow_root, tmp_path):
    kwargs = dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), method='pca_lda',
                  device='cpu')
    found = validate('samm/sa00', n_splits=3, **kwargs)
    assert found['n'] == 442 - 5 and found == validate('samm/sa00', n_splits=3, **kwargs | dict(workers=2))
    with pytest.raises(ValueError, match='number of training subjects'): validate('samm/sa00', n_splits=99, **kwargs)
    with pytest.raises(ValueError, match='one outer subject'): validate('samm/sa00,samm/sa01', **kwargs)


def test_divergence_is_an_error_not_class_0(flow_root, tmp_path):
    with pytest.raises(FloatingPointError, match='Lower the learning rate'):
        go(flow_root, tmp_path, overrides=CHEAP.replace('pltn.epochs=1', 'pltn.epochs=3') + ',pltn.lr=1e30')
    assert not list(tmp_path.rglob('folds/*.json')) and not list((tmp_path / 'cache' / 'priors').rglob('*.safetensors'))


def test_damaged_caches_do_not_become_results(reference, flow_root, tmp_path):
    import shutil
    shutil.copytree(reference.parent, tmp_path / 'r')
    folder, whole = tmp_path / 'r' / reference.name, (reference / 'predictions.csv').read_bytes()
    for name in ('samm__sa00', 'smic__sm00'): (folder / 'folds' / f'{name}.json').unlink()
    for p in (tmp_path / 'r' / 'cache' / 'priors').rglob('*.safetensors'):
        b = bytearray(p.read_bytes())
        b[-40:] = bytes(40)
        p.write_bytes(b)
    assert (go(flow_root, tmp_path / 'r') / 'predictions.csv').read_bytes() == whole
    store, = (tmp_path / 'r' / 'cache' / 'features').rglob('features.f16')
    with open(store, 'r+b') as f:
        f.seek(1000)
        f.write(b'\x11' * 64)
    with pytest.raises(RuntimeError, match='damaged rows'): go(flow_root, tmp_path / 'r')


@pytest.fixture
def whole_frames(monkeypatch):
    "Some of the synthetic clips pass for whole frames; where no face is found in one, its middle is taken."
    from mpfnet import harness, preprocess
    load = harness.load_clips
    def with_whole(*a, subjects=(), **k):
        clips = load(*a, **k)
        clips['cropped'] = ~clips['subject'].isin(with_whole.subjects)
        return clips
    monkeypatch.setattr(harness, 'load_clips', with_whole)
    def auto(finder, subjects):
        with_whole.subjects = subjects
        monkeypatch.setattr(preprocess, 'best_finder', lambda: finder)
        monkeypatch.setattr(preprocess, 'blaze_lacks', lambda: '' if finder == 'blaze' else 'no networks')
    return auto


@pytest.mark.filterwarnings('ignore:.*no face found|.*found by cascades|.*head moves')
@pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}")
@pytest.mark.skipif(not hasattr(cv2, 'CascadeClassifier'), reason=f'OpenCV {cv2.__version__} has no cascades')
def test_what_found_the_faces_decides_a_run_and_stands_in_its_config(whole_frames, synth_root, tmp_path):
    "`auto` is never written down. Crops know nothing of finders: their run is the same on every machine."
    def go_on(finder, subjects, **more):
        whole_frames(finder, subjects)
        folder = run(
            **dict(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='majority', device='cpu',
                   overrides='preprocess.size=16,preprocess.no_face=centre')
            | more
        )
        return folder, json.loads((folder / 'config.json').read_text())
    two = ['sub01', 'sub02']
    runs = {(f, n): go_on(f, two[:n]) for f in ('blaze', 'haar') for n in (0, 2)}
    face = {k: c['settings']['preprocess']['face'] for k, (_, c) in runs.items()}
    assert face == {('blaze', 0): 'precropped', ('haar', 0): 'precropped', ('blaze', 2): 'precropped+blaze',
                    ('haar', 2): 'precropped+haar'}
    assert len({f for f, _ in runs.values()}) == 3 and runs['blaze', 0][0] == runs['haar', 0][0]
    for (finder, n), (folder, c) in runs.items():
        faces, clips = c['data']['faces'], c['data']['clips']
        assert (sum(faces.values()) == clips and faces['precropped'] == c['data']['cropped']
                and set(faces) <= {'precropped', finder, 'lbp', 'centre'} and (len(faces) > 1) == (n > 0))
        assert json.loads((folder / 'data_report.json').read_text())['faces'] == faces
    named, c = go_on('haar', two,
                     overrides='preprocess.size=16,preprocess.no_face=centre,preprocess.face=precropped+blaze')
    assert named == runs['blaze', 2][0], 'naming what auto comes to elsewhere gives the same run'


def test_without_git(flow_root, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    env = json.loads((go(flow_root, tmp_path, method='majority') / 'env.json').read_text())
    assert env['commit'] is None and env['torch']


def test_environment_remembers_who_trained(flow_root, tmp_path):
    folder = go(flow_root, tmp_path, method='pca_lda', subjects='samm/sa00')
    go(flow_root, tmp_path, method='pca_lda', subjects='samm/sa00')
    go(flow_root, tmp_path, method='pca_lda')
    env = json.loads((folder / 'env.json').read_text())
    assert [q['folds_trained'] for q in env['parts']] == [1, 3] and env['folds_trained'] == 4 and env['seconds'] > 0


def test_weights_are_kept_if_asked_for(flow_root, tmp_path):
    from safetensors.torch import load_file

    from mpfnet.core.artefacts import sha256_of
    folder = go(flow_root, tmp_path, subjects='samm/sa00', method='mpfnet_c', keep_weights=True)
    state = load_file(folder / 'weights' / 'samm__sa00.safetensors')
    assert any(k.startswith('afe.') for k in state) and 'scaling.scale' in state
    assert sha256_of(state) == json.loads(records(folder)['samm__sa00.json'].read_text())['weights_sha256']


# --- two runs at once -------------------------------------------------------------------------------------------------

def busy(folder, subject, then):
    "A thread that holds a fold's lock until all others are done, and then does something before it lets go."
    import threading
    path, held = folder / 'folds' / f'.{"__".join(subject)}.json.lock', threading.Event()
    path.parent.mkdir(parents=True)
    def hold():
        with loso.locked(path):
            held.set()
            end = time.time() + 120
            while len(records(folder)) < 3 and time.time() < end: time.sleep(.05)
            time.sleep(0.3)
            then()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    return thread


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('killed', [False, True])
def test_a_fold_that_another_process_is_training(killed, workers, flow_root, tmp_path, capfd):
    "It is passed over, then waited for; trained here only if the other was killed."
    reference = go(flow_root, tmp_path / 'a', method='pca_lda')
    folder, first = tmp_path / 'b' / reference.name, ('casme2', 'ca00')
    name = f'{"__".join(first)}.json'
    def finished(): (folder / 'folds' / name).write_bytes((reference / 'folds' / name).read_bytes())
    other = busy(folder, first, (lambda: None) if killed else finished)
    assert go(flow_root, tmp_path / 'b', method='pca_lda', workers=workers) == folder
    other.join()
    assert json.loads((folder / 'env.json').read_text())['folds_trained'] == 3 + killed
    assert (folder / 'predictions.csv').read_bytes() == (reference / 'predictions.csv').read_bytes()
    assert '1 folds are being trained by another process' in capfd.readouterr().err and not list(
        folder.glob('folds/.*')
    )


def test_two_runs_of_one_config_train_every_fold_once(whole, tmp_path):
    other = warm.begin('-c', script(tmp_path))
    folder = ready(tmp_path)
    assert folder == tmp_path / whole.name and other.wait(300) == 0
    env = json.loads((folder / 'env.json').read_text())
    assert env['folds_trained'] == 10 and len(env['parts']) == 2 and all(q['folds_trained'] for q in env['parts'])
    assert (folder / 'predictions.csv').read_bytes() == (whole / 'predictions.csv').read_bytes()
    assert [kept.content_hash(json.loads(p.read_text())) for p in records(folder).values()] == [
        kept.content_hash(json.loads(p.read_text())) for p in records(whole).values()
    ]


# --- a method that has changed ----------------------------------------------------------------------------------------

def test_a_changed_method_does_not_find_its_old_folds(flow_root, tmp_path, monkeypatch):
    "Also where only a module that it imports has changed; a comment changes nothing."
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    (tmp_path / 'my_numbers.py').write_text('RIGHT = .6\n')
    text = ('import numpy as np\nfrom my_numbers import RIGHT\n'
            'class Mine:\n'
            '    def __init__(self, fold, ctx): fold.X()\n'
            '    def scores(self, x): return np.tile([RIGHT, .3, .1], (len(x), 1))\n'
            '    def state(self): return dict(right=RIGHT)\n')
    (tmp_path / 'my_method.py').write_text(text)
    mine = importlib.import_module('my_method')
    def again():
        monkeypatch.setitem(METHODS, 'mine', Method(fit=one(mine.Mine)))
        return go(flow_root, tmp_path / 'runs', method='mine', overrides='')
    first = again()
    assert again() == first and len(json.loads((first / 'env.json').read_text())['parts']) == 1
    (tmp_path / 'my_method.py').write_text('# a comment\n' + text)
    importlib.reload(mine)
    assert again() == first
    (tmp_path / 'my_method.py').write_text(text.replace('.3, .1', '.1, .3'))
    importlib.reload(mine)
    second = again()
    (tmp_path / 'my_numbers.py').write_text('RIGHT = .7\n')
    importlib.reload(sys.modules['my_numbers'])
    importlib.reload(mine)
    third = again()
    assert len({first, second, third}) == 3
    assert [read_predictions(f / 'predictions.csv')['score_1'][0] for f in (first, second, third)] == [.3, .1, .1]
    assert read_predictions(third / 'predictions.csv')['score_0'][0] == .7


def test_every_row_is_known_by_the_code_of_its_class(monkeypatch):
    "A changed file of the class's module changes what a run is found by, whatever the row lists."
    sources = dict(methods._sources)
    for name, row in METHODS.items():
        before, home = methods.code_deciding(name), methods.class_of(row.fit)[0].__module__
        spec, text = methods._sources[home]
        methods._sources[home] = spec, text + '\nCHANGED = 1\n'
        assert methods.code_deciding(name) != before, name
        methods._sources.update(sources | {home: (spec, text)})


def test_a_class_of_no_module_is_refused_before_anything_is_read(flow_root, tmp_path, monkeypatch):
    class Here: pass
    Here.__module__ = '__main__'
    monkeypatch.setitem(METHODS, 'here', Method(fit=one(Here)))
    with pytest.raises(
        ValueError,
        match='here: its class is defined in a notebook or in the script that runs.*put it into a file of its own',
    ):
        go(flow_root, tmp_path, method='here', overrides='')
    assert not list(tmp_path.rglob('*.f16'))


# --- bad input -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    'wrong, says',
    [
        (dict(dataset='nothing'), 'known: synth, megc2019_flow'),
        (dict(method='nothing'), 'known: mpfnet_c'),
        (dict(typo=1), 'known: dataset, task'),
        (dict(preset='huge'), 'known: None, paper'),
        (dict(device='tpu'), 'known: auto, cpu, cuda'),
        (dict(features='diff'), 'u, v and strain only'),
        (dict(overrides='plsm.epochs'), 'stage.field=value'),
        (dict(overrides='plsm.momentun=1'), 'plsm has:'),
        (dict(seed='a'), 'whole number'),
        (dict(subjects='samm/nobody'), 'known: casme2/ca00'),
        (dict(task='5class'), 'no 5class'),
        (dict(workers='many'), 'whole number'),
        (dict(gamma=-1), '≥ 0'),
        (dict(gamma=True), 'expected None'),
        (dict(gamma=0.5, method='plsm'), 'only mpfnet_p weighs two encoders'),
        (dict(subjects=6), 'papermill'),
        (dict(subjects=[]), 'list'),
        (dict(overrides=None), 'expected text'),
        (dict(out_dir=5), 'expected text'),
        (dict(seed=[1.7]), 'whole number'),
        (dict(overrides='encoder.embedding=0'), 'embedding'),
        (dict(overrides='encoder.grid=0x4x4'), 'grid'),
        (dict(overrides='encoder.width=nan'), 'width'),
        (dict(overrides='meta.momentum=-5'), 'momentum'),
        (dict(overrides='meta.tau=nan'), 'finite'),
        (dict(overrides='preprocess.length=40'), 'parameter `length`'),
    ],
)
def test_wrong_values_list_the_known_ones(flow_root, tmp_path, wrong, says):
    with pytest.raises(ValueError) as e: go(flow_root, tmp_path, **wrong)
    assert says in str(e.value) and not list(tmp_path.rglob('*.safetensors'))


@given(st.text(min_size=1).filter(lambda t: t.strip()), st.sampled_from('"\''))
def test_every_name_of_a_file_can_be_written_as_an_option(name, quote):
    text = f'annotation={quote}{name.replace(quote, quote*2)}{quote}'
    assert options_of(text) == dict(annotation=name) and options_of(f' modality = vis ,{text}') == options_of(
        f'{text}, modality=vis,'
    ) == dict(annotation=name, modality='vis')


@given(
    st.text(st.characters(exclude_characters=',', exclude_categories=['Cc', 'Cs', 'Zl', 'Zp']), min_size=1)
    .map(str.strip) .filter(lambda t: t and t[0] not in '"\'')
)
def test_a_name_without_commas_is_taken_as_it_was_written(name):
    assert (options_of(f'annotation={name}') == dict(annotation=name)
            and options_of(f'modality=hs, annotation = {name} ,variant=raw')['annotation'] == name)


@pytest.mark.parametrize('name', ['SAMM Micro FACS Codes v2 (my copy).xlsx', "Tom's, and \"Ann's\".xlsx"])
def test_a_sheet_is_named_in_a_run(name, tmp_path):
    import shutil
    make_lookalike('samm', tmp_path / 'data', subjects=2, size=48, progress=False)
    sheet, = (tmp_path / 'data' / 'samm').rglob('*.xls*')
    shutil.copy(sheet, sheet.with_name(name))
    quoted = name.replace('"', '""')
    folder = run(dataset='samm', data_root=str(tmp_path / 'data'), out_dir=str(tmp_path / 'out'), method='majority',
                 preset='tiny', data_options=f'annotation="{quoted}"', overrides='preprocess.size=16')
    assert json.loads((folder / 'config.json').read_text())['data']['options'] == dict(annotation=name)
    assert Path(json.loads((folder / 'data_report.json').read_text())['source']['annotation']).name == name


@pytest.mark.parametrize(
    'subjects, more, says',
    [
        (1, {}, 'needs two subjects or more, found 1: samm/'),
        (3, dict(method='mpfnet_p', gamma='inner'), 'n_splits: expected 2…2'),
    ],
)
def test_too_few_subjects_are_an_error_before_the_features(subjects, more, says, tmp_path):
    make_lookalike('samm', tmp_path / 'data', subjects=subjects, blank=True, progress=False)
    with pytest.raises(ValueError) as e:
        run(
            **dict(dataset='samm', data_root=str(tmp_path / 'data'), out_dir=str(tmp_path / 'out'), method='pca_lda',
                   preset='tiny')
            | more
        )
    assert says in str(e.value) and not list((tmp_path / 'out').rglob('*.f16'))


def test_missing_root_says_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    with pytest.raises(DataError, match='Set MPFNET_DATA.*sparse git clone'):
        run(dataset='megc2019_flow', out_dir=str(tmp_path))
    with pytest.raises(DataError, match='looked for the folder .*megc2019_flow'):
        run(dataset='megc2019_flow', data_root=str(tmp_path / 'no'), out_dir=str(tmp_path))


def test_every_broken_file_is_named_before_training(tmp_path):
    root = write_flow_release(tmp_path / 'data')
    folder, out = root / 'megc2019_flow', tmp_path / 'out'
    images = folder / FLOW_IMAGES
    first = images / 'sm00_000 .png'
    def breaks(change, *says):
        good = {p: p.read_bytes() for p in (first, folder / FLOW_LIST)}
        change()
        with pytest.raises(DataError) as e: go(root, out)
        for s in says: assert s in str(e.value)
        assert not (out / 'cache' / 'priors').exists() and not list(out.rglob('folds'))
        for p, b in good.items(): p.write_bytes(b)
    clip = 'smic/sm00/000'
    breaks(lambda: first.unlink(), 'sm00_000 .png', 'missing')
    breaks(lambda: first.write_bytes(first.read_bytes()[:50]), 'not a readable image', 'sm00_000 .png')
    breaks(lambda: first.write_bytes(b''), 'not a readable image')
    breaks(lambda: cv2.imwrite(str(first), np.zeros((29, 28, 3), np.uint8)), 'expected uint8 28×28×3')
    breaks(
        lambda: (folder / FLOW_LIST).write_text(
            (folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,sm00,000,7')
        ),
        "label '7'",
        clip,
    )
    breaks(
        lambda: (folder / FLOW_LIST).write_text(
            (folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,sm00,000,1')
        ),
        'expected negative/positive/surprise (70, 51, 43)',
    )
    breaks(
        lambda: (folder / FLOW_LIST).write_text(
            (folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,../sm00,000,0')
        ),
        'leads out of the folder',
    )
    breaks(lambda: (folder / FLOW_LIST).write_text('nothing\n'), 'no column(s) dataset')
    breaks(lambda: (folder / FLOW_LIST).write_bytes(b'\xff\xfe\x00'), 'CSV')
    extra = images / 'x_y .png'
    extra.write_bytes(first.read_bytes())
    breaks(lambda: None, "'x_y .png' has no row")
    extra.unlink()


def test_another_copy_is_a_warning_and_recorded(flow_root, tmp_path):
    with pytest.warns(UserWarning, match='checksum'): folder = go(flow_root, tmp_path, method='majority')
    assert 'expected' in json.loads((folder / 'data_report.json').read_text())['findings'][0]['done']


def test_changed_data_is_another_run(tmp_path, reference):
    other = go(write_flow_release(tmp_path / 'data', seed=1), tmp_path / 'out', method='majority')
    same = go(write_flow_release(tmp_path / 'again', seed=1), tmp_path / 'out', method='majority')
    assert other == same and other.name.rsplit('-')[-1] != reference.name.rsplit('-')[-1]


def test_rows_in_any_order_give_the_same_table(flow_root, tmp_path):
    import shutil
    shutil.copytree(flow_root, tmp_path / 'data')
    path = tmp_path / 'data' / 'megc2019_flow' / FLOW_LIST
    pd.read_csv(path, dtype=str).sample(frac=1, random_state=0).to_csv(path, index=False, lineterminator='\r\n')
    assert (go(tmp_path / 'data', tmp_path, method='majority').name
            == go(flow_root, tmp_path / 'b', method='majority').name)


def test_an_engine_that_is_not_installed_is_an_error_at_once(flow_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ValueError, match=r"mpfnet\[ray\]"): go(flow_root, tmp_path, engine='ray')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('more', [dict(engine='ray'), dict(out_dir='memory://somewhere/runs')])
def test_validate_says_what_it_cannot_do(flow_root, more):
    with pytest.raises(ValueError, match='processes of this machine'):
        validate('samm/sa00', dataset='megc2019_flow', data_root=str(flow_root), method='majority', **more)


def test_an_address_that_became_a_path(flow_root):
    with pytest.raises(ValueError, match='two slashes'):
        run(dataset='megc2019_flow', data_root=str(flow_root), method='majority', out_dir=Path('s3://bucket/runs'))
