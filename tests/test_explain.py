"""Fitted folds are rebuilt from what a run has kept, exactly; pages of figures say what is missing instead of
failing."""
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from warm import warm

from mpfnet.clips import load_clips
from mpfnet.core.artefacts import sha256_of
from mpfnet.loso import run
from mpfnet.methods import settings_of_config
from mpfnet.paper.explain import (
    class_similarities,
    clips_in_fold,
    drawn_scripts,
    features_at,
    fold_record,
    kept_folds,
    load_fold,
    moving_region,
    onset_face,
    regions,
    run_data,
)
from mpfnet.preprocess import PreprocessConfig
from mpfnet.results.heat import fused, grad_cam, seen
from mpfnet.synthetic.lookalike import make_lookalike

ROOT = Path(__file__).parents[1]
LITTLE = 'pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2,meta.average=0,encoder.width=0.0625'
METHODS = ('mpfnet_c', 'mpfnet_p', 'plsm', 'pltn', 'scratch')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Look-alikes in data/, runs beside it."
    out = tmp_path_factory.mktemp('explain')
    make_lookalike('smic', out/'data', subjects=3, progress=False)
    return out


def small(folder, method, **more):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return run(
            **dict(dataset='smic', data_root=folder / 'data', preset='tiny', method=method, length=4, out_dir=folder,
                   overrides=LITTLE, keep_weights=True, subjects='smic/s01')
            | more
        )


@pytest.fixture(scope='module')
def runs(folder): return {m: small(folder, m) for m in METHODS}


@pytest.mark.parametrize('method', METHODS)
def test_loaded_model_repeats_its_record(runs, folder, method):
    data, record = run_data(runs[method], folder/'data'), fold_record(runs[method], 'smic__s01')
    model = load_fold(runs[method], 'smic/s01', data)
    x = features_at(data, clips_in_fold(data, ('smic', 's01')))
    assert abs(model.scores(x) - np.array(record['scores'])).max() <= 1e-6
    assert (model.scores(x).argmax(1).tolist() == record['predictions'] and sha256_of(model.state())
            == record['weights_sha256'])
    assert not any(m.training for m in model.matcher.modules())
    s = class_similarities(model, x)
    assert np.allclose((s * np.array(model.weights)[:, None]).sum(1), model.scores(x), atol=1e-5) and s.shape == (
        len(x), 1 + (method == 'mpfnet_p'), 3,
    )


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('pooled', [True, False])
def test_heat_explains_the_score_itself(runs, folder, method, pooled):
    data = run_data(runs[method], folder/'data')
    model, x = load_fold(runs[method], 'smic/s01'), features_at(data, clips_in_fold(data, ('smic', 's01')))
    assert torch.allclose(fused(model, seen(model, x), len(x)), torch.from_numpy(model.scores(x)), atol=1e-6)
    heat = grad_cam(model, x, pooled=pooled)
    assert heat.shape == (len(x), *x.shape[2:]) and np.isfinite(heat).all() and (heat >= 0).all() and heat.any()
    assert np.array_equal(heat, grad_cam(model, x, model.scores(x).argmax(1), pooled=pooled))
    assert not np.array_equal(heat, grad_cam(model, x, (model.scores(x).argmax(1) + 1) % 3, pooled=pooled)), (
        'the target decides'
    )
    assert sha256_of(model.state()) == fold_record(runs[method], 'smic__s01')['weights_sha256'], (
        'looking changes nothing'
    )


@pytest.mark.parametrize(
    'more',
    [
        dict(overrides=LITTLE + ',encoder.grid=2x2x2,meta.support=episodes,meta.mirror=false'),
        dict(overrides=LITTLE + ',encoder.grid='),
        dict(features='flow'),
        dict(features='diff'),
        dict(gamma=0.3, method='mpfnet_p'),
        dict(overrides=LITTLE + ',cascade.k=3,cascade.residual=false,encoder.attention=false'),
    ],
)
def test_settings_that_change_the_network(folder, more):
    made = small(folder, **dict(method='mpfnet_c') | more)
    data = run_data(made, folder/'data')
    model = load_fold(made, ('smic', 's01'), data)
    assert grad_cam(model, features_at(data, clips_in_fold(data, ('smic', 's01')))).any() and (
        'gamma' not in more or model.weights == (1.0, 0.3)
    )


def test_public_flow_of_one_time_step(flow_root, tmp_path):
    made = run(dataset='megc2019_flow', data_root=flow_root, method='mpfnet_p', out_dir=tmp_path, overrides=LITTLE,
               keep_weights=True, subjects='smic/sm00')
    data = run_data(made, flow_root)
    model, here = load_fold(made, kept_folds(made)[0], data), clips_in_fold(data, kept_folds(made)[0])
    assert grad_cam(model, features_at(data, here)).shape == (len(here), 1, 28, 28)


def copied(runs, tmp_path): return Path(shutil.copytree(runs['mpfnet_p'], tmp_path/'run'))


def test_what_is_refused(runs, tmp_path, folder):
    made = copied(runs, tmp_path)
    path = made/'weights/smic__s01.safetensors'
    state = load_file(path)
    def refused(why, state):
        save_file(state, path)
        with pytest.raises(ValueError, match=why): load_fold(made, 'smic/s01')
    refused('another network', {k: v for k, v in state.items() if k != 'gfe.head.bias'})
    refused('another network', state | {'gfe.extra': torch.zeros(1)})
    refused('another network', state | {'gfe.head.bias': torch.zeros(7)})
    refused('record, found', state | {'afe.head.bias': state['afe.head.bias'] + 1e-6})
    refused('record, found', state | {'support.0.1': state['support.0.1']*2})
    refused('record, found', state | {'scaling.scale': state['scaling.scale']*2})
    refused('no kept weights', {k: v for k, v in state.items() if k != 'weights'})
    config = json.loads((made/'config.json').read_text())
    save_file(state, path)
    (made / 'config.json').write_text(
        json.dumps(
            config
            | dict(settings=config['settings'] | dict(encoder=config['settings']['encoder'] | dict(embedding=32)))
        )
    )
    with pytest.raises(ValueError, match='another network'): load_fold(made, 'smic/s01')
    (made/'config.json').write_text(json.dumps(config | dict(method='afn')))
    with pytest.raises(ValueError, match='lacks settings'): load_fold(made, 'smic/s01')
    path.unlink()
    with pytest.raises(ValueError, match='keep_weights true'): load_fold(made, 'smic/s01')
    assert kept_folds(made) == []


def test_other_data_are_noticed(runs, tmp_path, folder):
    make_lookalike('smic', tmp_path/'data', subjects=3, seed=9, progress=False)
    made = runs['mpfnet_c']
    with pytest.raises(ValueError, match='scores differ|other clips'):
        load_fold(made, 'smic/s01', run_data(made, tmp_path / 'data'))


def test_paths_of_checkpoints_must_be_given_again(runs):
    config = json.loads((runs['mpfnet_c']/'config.json').read_text())
    config['settings']['preprocess'] |= dict(interpolate='ema_vfi', interpolate_weights='ab'*32)
    with pytest.raises(ValueError, match='interpolate_weights=PATH'): settings_of_config(config)
    assert settings_of_config(config, interpolate_weights='x.pkl').preprocess.interpolate_weights == 'x.pkl'


@pytest.mark.parametrize('dataset', ['samm'])
def test_drawn_regions_follow_the_face_that_was_found(tmp_path, dataset):
    "Where frames are not cropped the face is found first; the region must lie where the pipeline's own flow is large."
    make_lookalike(dataset, tmp_path, subjects=2, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rows = load_clips(dataset, tmp_path)
    from mpfnet.preprocess import clip_features
    recipe, drawn, ratios = PreprocessConfig(size=48, length=3), drawn_scripts(tmp_path/dataset), []
    assert {(r.subject, r.clip) for r in rows.itertuples()} <= set(drawn)
    for row in list(rows.itertuples(index=False))[:6]:
        mask, F = moving_region(row, recipe, drawn[row.subject, row.clip]), np.float32(clip_features(row, recipe))
        speed = np.hypot(*F[:2].sum(1))
        assert mask.shape == (48, 48) and 0 < mask.mean() < .5 and onset_face(row, recipe).shape == (48, 48, 3)
        ratios.append(speed[mask].mean()/speed[~mask].mean())
    assert np.median(ratios) > 1.5, ratios


def test_regions_of_a_run(runs, folder):
    data = run_data(runs['mpfnet_c'], folder/'data')
    masks = regions(data, {'smic': folder/'data/smic'})
    assert (masks['all'].shape == masks['own'].shape == (len(data.clips), 32, 32) and masks['all'].any((1, 2)).all()
            and (masks['all'] != masks['own']).any())


@pytest.mark.parametrize('name, data', [('fig10', 'public_flow'), ('fig11', 'lookalike')])
def test_pages_without_runs_end_with_a_sentence(tmp_path, name, data):
    done = warm(
        '-m', 'papermill', ROOT / f'paper_figures/{name}.ipynb', tmp_path / 'out.ipynb', '--no-progress-bar', '-r',
        'data', data, '-r', 'out_dir', tmp_path / 'runs', cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'{name}: no finished run' in (tmp_path/'out.ipynb').read_text()
