"""Runs: resumed, killed, tampered with, in one process or two; and bad input, before anything is trained."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import CHEAP, CHEAP_RIVALS, write_flow_release

from mpfnet.face import blaze_lacks
from mpfnet.loso import run, validate
from mpfnet.methods import METHODS
from mpfnet.metrics import read_predictions
from mpfnet.readers import FLOW_IMAGES, FLOW_LIST, DataError

SIX = 'casme2/ca00,casme2/ca01,samm/sa00,samm/sa01,smic/sm00,smic/sm01'
pytestmark = pytest.mark.filterwarnings('ignore:megc2019_flow. checksum')     # look-alikes are not the release


def go(root, out, **kwargs):
    return run(**dict(dataset='megc2019_flow', data_root=str(root), out_dir=str(out) if isinstance(out, os.PathLike) else out, overrides=CHEAP, subjects=SIX, device='cpu', method='mpfnet_p') | kwargs)


@pytest.fixture(scope='module')
def reference(flow_root, tmp_path_factory):
    "An uninterrupted run of six folds in one process."
    return go(flow_root, tmp_path_factory.mktemp('reference'))


def records(folder): return {p.name: p for p in sorted((folder / 'folds').glob('*.json'))}


def test_result_files(reference):
    config, env, metrics = (json.loads((reference / f'{n}.json').read_text()) for n in ('config', 'env', 'metrics'))
    table = read_predictions(reference / 'predictions.csv')
    assert reference.name.startswith('megc2019_flow-3class-mpfnet_p-') and len(reference.name.rsplit('-')[-1]) == 8
    assert config['settings']['pltn']['epochs'] == 1 and config['settings']['gamma'] == .7 and config['data']['decisions'] == {'megc2019_flow: checksum': 1}
    assert json.loads((reference / 'data_report.json').read_text())['findings'][0]['decision'] == 'checksum' and config['data']['stamp'].startswith('REAL')
    assert {'torch', 'commit', 'device', 'start', 'seconds'} <= set(env)
    assert set(metrics['pooled']) == {'n', 'acc', 'f1_weighted', 'uf1', 'uar', 'confusion', 'uf1_ci95', 'uar_ci95'}
    assert set(metrics['per_dataset']) == {'smic', 'casme2', 'samm'} and metrics['folds'] == {'done': 6, 'of': 68}
    assert list(table) == ['dataset', 'subject', 'clip', 'label', 'prediction', 'score_0', 'score_1', 'score_2']
    assert table[['dataset', 'subject', 'clip']].apply(tuple, axis=1).is_monotonic_increasing and len(table) == metrics['pooled']['n']
    r = json.loads(records(reference)['casme2__ca00.json'].read_text())
    assert {'subject', 'clips', 'labels', 'predictions', 'scores', 'weights_sha256', 'seed', 'seconds'} <= set(r)


def test_two_processes_give_the_same_bytes(reference, flow_root, tmp_path):
    two = go(flow_root, tmp_path, workers=2)
    assert two.name == reference.name and (two / 'predictions.csv').read_bytes() == (reference / 'predictions.csv').read_bytes()
    sha = lambda f: {n: json.loads(p.read_text())['weights_sha256'] for n, p in records(f).items()}
    assert sha(two) == sha(reference)


@pytest.mark.parametrize('workers', [1, 2])
def test_killed_run_continues_to_the_same_numbers(reference, flow_root, tmp_path, workers):
    code = ('import sys; from mpfnet.loso import run\n'
            f'if __name__ == "__main__": run(dataset="megc2019_flow", data_root={str(flow_root)!r}, out_dir={str(tmp_path)!r}, overrides={CHEAP!r}, '
            f'subjects={SIX!r}, device="cpu", method="mpfnet_p", workers={workers})')
    script = tmp_path / 'go.py'; script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL, start_new_session=True)
    folder = tmp_path / reference.name
    end = time.time() + 120
    while len(records(folder)) < 2 and process.poll() is None and time.time() < end: time.sleep(.02)
    os.killpg(process.pid, signal.SIGKILL); process.wait()
    before = {n: p.stat().st_mtime_ns for n, p in records(folder).items()}
    assert 2 <= len(before) < 6, 'the kill came too late to test anything'
    assert go(flow_root, tmp_path) == folder
    after = {n: p.stat().st_mtime_ns for n, p in records(folder).items()}
    assert len(after) == 6 and all(after[n] == t for n, t in before.items()), 'a finished fold was computed again'
    assert (folder / 'predictions.csv').read_bytes() == (reference / 'predictions.csv').read_bytes()


def damage_truncate(p): p.write_text(p.read_text()[:100])
def damage_empty(p): p.write_bytes(b'')
def damage_list(p): p.write_text('[1, 2]')
def damage_config(p): p.write_text(json.dumps(json.loads(p.read_text()) | dict(config='0' * 64)))
def damage_clips(p): r = json.loads(p.read_text()); r['clips'][0] = 'other'; p.write_text(json.dumps(r))
def damage_labels(p): r = json.loads(p.read_text()); r['labels'][0] = 2 - r['labels'][0] or 1; p.write_text(json.dumps(r))
def damage_range(p): r = json.loads(p.read_text()); r['predictions'][0] = 3; p.write_text(json.dumps(r))
def damage_argmax(p): r = json.loads(p.read_text()); r['predictions'] = [(k + 1) % 3 for k in r['predictions']]; p.write_text(json.dumps(r))
def damage_nan(p): r = json.loads(p.read_text()); r['scores'][0][0] = float('nan'); p.write_text(json.dumps(r))
def damage_short(p): r = json.loads(p.read_text()); r['scores'].pop(); p.write_text(json.dumps(r))


def test_damaged_records_are_computed_again(reference, flow_root, tmp_path):
    folder = go(flow_root, tmp_path, method='pca_lda')
    whole, damages = (folder / 'predictions.csv').read_bytes(), [f for n, f in globals().items() if n.startswith('damage_')]
    assert len(damages) == 10
    for damage in damages:
        path = list(records(folder).values())[0]
        good = json.loads(path.read_text()); damage(path); bad = path.read_bytes()
        go(flow_root, tmp_path, method='pca_lda')
        again = json.loads(path.read_text())
        assert path.read_bytes() != bad and all(again[k] == good[k] for k in good if k != 'seconds'), damage.__name__
        assert (folder / 'predictions.csv').read_bytes() == whole


@pytest.mark.parametrize('method', METHODS)
def test_every_method_goes_on(method, synth_root, tmp_path):
    "Of three folds one record is lost and one torn: those two are trained again, to the same bytes."
    def three(): return run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method=method, subjects='synth/sub01,synth/sub02,synth/sub03', device='cpu',
                            overrides=f'{CHEAP},preprocess.size=16,{CHEAP_RIVALS}')
    folder = three()
    paths, whole = list(records(folder).values()), (folder / 'predictions.csv').read_bytes()
    first, sha = paths[0].stat().st_mtime_ns, [json.loads(p.read_text())['weights_sha256'] for p in paths]
    paths[1].unlink(); paths[2].write_text(paths[2].read_text()[:-40]); (folder / 'predictions.csv').unlink()
    assert three() == folder and paths[0].stat().st_mtime_ns == first
    assert (folder / 'predictions.csv').read_bytes() == whole and [json.loads(p.read_text())['weights_sha256'] for p in paths] == sha
    assert json.loads((folder / 'env.json').read_text())['folds_trained'] == 5


def test_what_a_method_cannot_read_is_an_error_before_anything_runs(flow_root, tmp_path):
    with pytest.raises(ValueError, match='lbp_top needs recorded frames, this dataset has ready-made flow images; methods that can take them: .*ststnet, bi_woof'):
        go(flow_root, tmp_path, method='lbp_top')
    assert not list(tmp_path.rglob('*.f16'))


def test_settings_of_other_methods_do_not_touch_a_run(flow_root, tmp_path):
    assert go(flow_root, tmp_path, method='pca_lda') == go(flow_root, tmp_path, method='pca_lda', overrides='ststnet.epochs=1,svm.C=2.5')


def test_a_second_run_trains_nothing(reference, flow_root):
    times = {n: p.stat().st_mtime_ns for n, p in records(reference).items()}
    assert go(flow_root, reference.parent) == reference
    assert {n: p.stat().st_mtime_ns for n, p in records(reference).items()} == times
    assert len(json.loads((reference / 'env.json').read_text())['parts']) == 1


def test_subjects_are_added_to_a_run(reference, flow_root, tmp_path):
    one = go(flow_root, tmp_path, subjects='samm/sa00')
    six = go(flow_root, tmp_path)
    assert one == six and (six / 'predictions.csv').read_bytes() == (reference / 'predictions.csv').read_bytes()


def test_methods_share_their_priors(flow_root, tmp_path):
    files = lambda: sorted(p.name for p in (tmp_path / 'cache' / 'priors').rglob('*.safetensors'))
    go(flow_root, tmp_path, subjects='samm/sa00'); shared = files()
    for method in ('mpfnet_c', 'pltn', 'plsm'): go(flow_root, tmp_path, subjects='samm/sa00', method=method)
    assert len(shared) == 2 and files() == shared


def test_several_seeds(flow_root, tmp_path):
    folder = go(flow_root, tmp_path, seed='0,1', method='scratch')
    m = json.loads((folder / 'metrics.json').read_text())
    runs = [tmp_path / r for r in json.loads((folder / 'config.json').read_text())['runs']]
    each = [json.loads((r / 'metrics.json').read_text())['pooled']['uf1'] for r in runs]
    assert m['seeds']['uf1']['each'] == each and m['seeds']['uf1']['mean'] == pytest.approx(sum(each) / 2)
    a, b, both = (read_predictions(f / 'predictions.csv') for f in (*runs, folder))
    assert (both['score_1'] - (a['score_1'] + b['score_1']) / 2).abs().max() < 1e-5 and not a['score_1'].equals(b['score_1'])


def test_seeds_with_different_folds_average_what_they_share(flow_root, tmp_path):
    go(flow_root, tmp_path, seed=0, method='scratch', subjects='samm/sa00,samm/sa01')
    m = json.loads((go(flow_root, tmp_path, seed='0,1', method='scratch', subjects='samm/sa00') / 'metrics.json').read_text())
    assert m['folds'] == {'done': 1, 'of': 68}


def test_features_reach_the_baselines(flow_root, tmp_path):
    both, flow = (read_predictions(go(flow_root, tmp_path, method='pca_lda', features=f) / 'predictions.csv') for f in ('both', 'flow'))
    assert not both['score_0'].equals(flow['score_0'])


def test_gamma_inside_the_fold_finds_its_copies(synth_root, tmp_path):
    folder = run(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='mpfnet_p', gamma='inner', subjects='synth/sub04', device='cpu',
                 overrides=CHEAP.replace('phi_limit=1', 'phi_limit=5') + ',preprocess.size=16')
    assert len(records(folder)) == 1


def test_validate(flow_root, tmp_path):
    kwargs = dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), method='pca_lda', device='cpu')
    found = validate('samm/sa00', n_splits=3, **kwargs)
    assert found['n'] == 442 - 5 and found == validate('samm/sa00', n_splits=3, **kwargs | dict(workers=2))
    with pytest.raises(ValueError, match='number of training subjects'): validate('samm/sa00', n_splits=99, **kwargs)
    with pytest.raises(ValueError, match='one outer subject'): validate('samm/sa00,samm/sa01', **kwargs)


def test_divergence_is_an_error_not_class_0(flow_root, tmp_path):
    with pytest.raises(FloatingPointError, match='Lower the learning rate'): go(flow_root, tmp_path, overrides=CHEAP.replace('pltn.epochs=1', 'pltn.epochs=3') + ',pltn.lr=1e30')
    assert not list(tmp_path.rglob('folds/*.json')) and not list((tmp_path / 'cache' / 'priors').rglob('*.safetensors'))


def test_damaged_caches_do_not_become_results(reference, flow_root, tmp_path):
    import shutil
    shutil.copytree(reference.parent, tmp_path / 'r')
    folder, whole = tmp_path / 'r' / reference.name, (reference / 'predictions.csv').read_bytes()
    shutil.rmtree(folder / 'folds')
    for p in (tmp_path / 'r' / 'cache' / 'priors').rglob('*.safetensors'):
        b = bytearray(p.read_bytes()); b[-40:] = bytes(40); p.write_bytes(b)
    assert (go(flow_root, tmp_path / 'r') / 'predictions.csv').read_bytes() == whole
    store, = (tmp_path / 'r' / 'cache' / 'features').rglob('features.f16')
    with open(store, 'r+b') as f: f.seek(1000); f.write(b'\x11' * 64)
    with pytest.raises(RuntimeError, match='damaged rows'): go(flow_root, tmp_path / 'r')


@pytest.fixture
def whole_frames(monkeypatch):
    "Some of the synthetic clips pass for whole frames; where no face is found in one, its middle is taken."
    from mpfnet import loso, preprocess
    load = loso.load_clips
    def with_whole(*a, subjects=(), **k):
        clips = load(*a, **k)
        clips['cropped'] = ~clips['subject'].isin(with_whole.subjects)
        return clips
    monkeypatch.setattr(loso, 'load_clips', with_whole)
    def auto(finder, subjects):
        with_whole.subjects = subjects
        monkeypatch.setattr(preprocess, 'best_finder', lambda: finder)
        monkeypatch.setattr(preprocess, 'blaze_lacks', lambda: '' if finder == 'blaze' else 'no networks')
    return auto


@pytest.mark.filterwarnings('ignore:.*no face found|.*found by cascades|.*head moves')
@pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}")
def test_what_found_the_faces_decides_a_run_and_stands_in_its_config(whole_frames, synth_root, tmp_path):
    "`auto` is never written down. Crops know nothing of finders: their run is the same on every machine."
    def go_on(finder, subjects, **more):
        whole_frames(finder, subjects)
        folder = run(**dict(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='majority', device='cpu', overrides='preprocess.size=16,preprocess.no_face=centre') | more)
        return folder, json.loads((folder / 'config.json').read_text())
    two = ['sub01', 'sub02']
    runs = {(f, n): go_on(f, two[:n]) for f in ('blaze', 'haar') for n in (0, 2)}
    face = {k: c['settings']['preprocess']['face'] for k, (_, c) in runs.items()}
    assert face == {('blaze', 0): 'precropped', ('haar', 0): 'precropped', ('blaze', 2): 'precropped+blaze', ('haar', 2): 'precropped+haar'}
    assert len({f for f, _ in runs.values()}) == 3 and runs['blaze', 0][0] == runs['haar', 0][0]
    for (finder, n), (folder, c) in runs.items():
        faces, clips = c['data']['faces'], c['data']['clips']
        assert sum(faces.values()) == clips and faces['precropped'] == c['data']['cropped'] and set(faces) <= {'precropped', finder, 'lbp', 'centre'} and (len(faces) > 1) == (n > 0)
        assert json.loads((folder / 'data_report.json').read_text())['faces'] == faces
    named, c = go_on('haar', two, overrides='preprocess.size=16,preprocess.no_face=centre,preprocess.face=precropped+blaze')
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
    assert [q['folds_trained'] for q in env['parts']] == [1, 5] and env['folds_trained'] == 6 and env['seconds'] > 0


def test_weights_are_kept_if_asked_for(flow_root, tmp_path):
    from safetensors.torch import load_file
    from mpfnet.folds import sha256_of
    folder = go(flow_root, tmp_path, subjects='samm/sa00', method='mpfnet_c', keep_weights=True)
    state = load_file(folder / 'weights' / 'samm__sa00.safetensors')
    assert any(k.startswith('afe.') for k in state) and 'scaling.scale' in state
    assert sha256_of(state) == json.loads(records(folder)['samm__sa00.json'].read_text())['weights_sha256']


# --- bad input -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('wrong, says', [
    (dict(dataset='nothing'), 'known: synth, megc2019_flow'), (dict(method='nothing'), 'known: mpfnet_c'), (dict(typo=1), 'known: dataset, task'),
    (dict(preset='huge'), 'known: None, paper'), (dict(device='tpu'), 'known: auto, cpu, cuda'), (dict(features='diff'), 'u, v and strain only'),
    (dict(overrides='plsm.epochs'), 'stage.field=value'), (dict(overrides='plsm.momentun=1'), 'plsm has:'), (dict(seed='a'), 'whole number'),
    (dict(subjects='samm/nobody'), 'known: casme2/ca00'), (dict(task='5class'), 'no 5class'), (dict(workers='many'), 'whole number'), (dict(gamma=-1), '≥ 0'), (dict(gamma=True), 'expected None'),
    (dict(gamma=.5, method='plsm'), 'has no meaning'), (dict(subjects=6), 'papermill'), (dict(subjects=[]), 'list'), (dict(overrides=None), 'expected text'), (dict(out_dir=5), 'expected text'),
    (dict(seed=[1.7]), 'whole number'), (dict(overrides='encoder.embedding=0'), 'embedding'), (dict(overrides='encoder.grid=0x4x4'), 'grid'), (dict(overrides='encoder.width=nan'), 'width'),
    (dict(overrides='meta.momentum=-5'), 'momentum'), (dict(overrides='meta.tau=nan'), 'finite'), (dict(overrides='preprocess.length=40'), 'parameter `length`')])
def test_wrong_values_list_the_known_ones(flow_root, tmp_path, wrong, says):
    with pytest.raises(ValueError) as e: go(flow_root, tmp_path, **wrong)
    assert says in str(e.value) and not list(tmp_path.rglob('*.safetensors'))


def test_missing_root_says_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    with pytest.raises(DataError, match='Set MPFNET_DATA.*sparse git clone'): run(dataset='megc2019_flow', out_dir=str(tmp_path))
    with pytest.raises(DataError, match='looked for the folder .*megc2019_flow'): run(dataset='megc2019_flow', data_root=str(tmp_path / 'no'), out_dir=str(tmp_path))


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
    import cv2, numpy as np
    breaks(lambda: cv2.imwrite(str(first), np.zeros((29, 28, 3), np.uint8)), 'expected uint8 28×28×3')
    breaks(lambda: (folder / FLOW_LIST).write_text((folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,sm00,000,7')), "label '7'", clip)
    breaks(lambda: (folder / FLOW_LIST).write_text((folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,sm00,000,1')), 'expected negative/positive/surprise (70, 51, 43)')
    breaks(lambda: (folder / FLOW_LIST).write_text((folder / FLOW_LIST).read_text().replace('smic,sm00,000,0', 'smic,../sm00,000,0')), 'leads out of the folder')
    breaks(lambda: (folder / FLOW_LIST).write_text('nothing\n'), 'no column(s) dataset')
    breaks(lambda: (folder / FLOW_LIST).write_bytes(b'\xff\xfe\x00'), 'CSV')
    extra = images / 'x_y .png'; extra.write_bytes(first.read_bytes())
    breaks(lambda: None, "'x_y .png' has no row"); extra.unlink()


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
    assert go(tmp_path / 'data', tmp_path, method='majority').name == go(flow_root, tmp_path / 'b', method='majority').name


def test_an_engine_that_is_not_installed_is_an_error_at_once(flow_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ValueError, match=r"mpfnet\[ray\]"): go(flow_root, tmp_path, engine='ray')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('more', [dict(engine='ray'), dict(out_dir='memory://somewhere/runs')])
def test_validate_says_what_it_cannot_do(flow_root, more):
    with pytest.raises(ValueError, match='processes of this machine'): validate('samm/sa00', dataset='megc2019_flow', data_root=str(flow_root), method='majority', **more)


def test_an_address_that_became_a_path(flow_root):
    with pytest.raises(ValueError, match='two slashes'): run(dataset='megc2019_flow', data_root=str(flow_root), method='majority', out_dir=Path('s3://bucket/runs'))
