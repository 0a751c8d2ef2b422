"""Features from whole frames, from every recorded frame and with a learned back end: what decides them is in their
key."""
import shutil
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mpfnet import preprocess
from mpfnet.methods import override, settings_preset
from mpfnet.motion.face import best_finder, blaze_lacks
from mpfnet.motion.magnet import random_magnet
from mpfnet.preprocess import PreprocessConfig, clip_features, files_used, job_of, settled_face
from mpfnet.store import FeatureStore, verify_folder

CONFIG = PreprocessConfig(size=32, length=5)


@pytest.fixture(scope='module')
def photo():
    return pytest.importorskip('skimage.data').astronaut()


def clip_of(folder, images, name='006_1_2', **more):
    "A row of a clip table around some images, frame 10 being the onset and the last one the apex."
    frames = {}
    for k, image in enumerate(images):
        frames[10 + k] = str(folder / f'{name}_{10 + k}.png')
        cv2.imwrite(frames[10 + k], image[..., ::-1])
    return pd.DataFrame(
        [
            dict(dataset='samm', subject='006', clip=name, onset=10, apex=10 + len(images) - 1, input='frames',
                 frames=frames, **more)
        ]
    )


def shifted(image, dx):
    return cv2.warpAffine(image, np.float32([[1, 0, dx], [0, 1, 0]]), image.shape[1::-1],
                          borderMode=cv2.BORDER_REPLICATE)


def test_a_face_is_found_in_whole_frames_and_the_heads_motion_is_gone(photo, tmp_path):
    images = [photo, shifted(photo, 4)]
    crops, whole = (clip_of(tmp_path, images, f'c{c:d}', cropped=c) for c in (True, False))
    assert job_of(crops.iloc[0], CONFIG).face == 'precropped' and job_of(whole.iloc[0], CONFIG).face == best_finder()
    still, moving = (np.abs(clip_features(t.iloc[0], PreprocessConfig(size=64))[:2].astype(float)).sum(1).mean()
                     for t in (whole, crops))
    assert still < .3 * moving


def test_no_face_is_an_error_that_names_the_clip_or_the_centre(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    whole = clip_of(tmp_path, [noise, noise], cropped=False)
    with pytest.raises(ValueError, match='samm/006/006_1_2'): clip_features(whole.iloc[0], CONFIG)
    assert clip_features(whole.iloc[0], replace(CONFIG, no_face='centre')).shape == (5, 4, 32, 32)


def test_rows_of_crops_and_of_whole_frames_are_different_rows(photo, tmp_path):
    store = FeatureStore(tmp_path / 'store', CONFIG)
    crops, whole = (clip_of(tmp_path, [photo, photo], cropped=c) for c in (True, False))
    assert (
        len(
            {
                *store.ensure(crops, progress=False), *store.ensure(whole, progress=False),
                *store.ensure(crops, progress=False),
            }
        )
        == 2
    )


def with_finder(monkeypatch, finder):
    "As on a machine where `auto` means that finder."
    monkeypatch.setattr(preprocess, 'best_finder', lambda: finder)
    monkeypatch.setattr(preprocess, 'blaze_lacks', lambda: '' if finder == 'blaze' else 'no networks: pip install …')


@pytest.mark.skipif(not hasattr(cv2, 'CascadeClassifier'), reason=f'OpenCV {cv2.__version__} has no cascades')
@pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}")
def test_rows_of_two_finders_are_different_rows_and_those_of_crops_are_not(photo, tmp_path, monkeypatch):
    "One store, `auto` on a machine with the networks and on one without; a row says what found its face."
    store = FeatureStore(tmp_path / 'store', CONFIG)
    crops, whole = (clip_of(tmp_path, [photo, shifted(photo, 1)], f'c{c:d}', cropped=c) for c in (True, False))
    rows = {}
    for finder in ('blaze', 'haar', 'blaze'):
        with_finder(monkeypatch, finder)
        rows[finder] = [*store.ensure(crops, progress=False), *store.ensure(whole, progress=False)]
    assert rows['blaze'][0] == rows['haar'][0] and rows['blaze'][1] != rows['haar'][1] and len(store.table.index) == 3
    assert [store.table.index[r].get('face') for r in (rows['blaze'][0], rows['blaze'][1], rows['haar'][1])] == [
        None, 'blaze', 'haar',
    ]
    assert not np.array_equal(store.F[rows['blaze'][1]], store.F[rows['haar'][1]])


@pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}")
def test_a_named_finder_stays_the_same_everywhere(photo, tmp_path, monkeypatch):
    whole = clip_of(tmp_path, [photo, shifted(photo, 1)], cropped=False)
    for best in ('blaze', 'haar'):
        with_finder(monkeypatch, best)
        for face in ('blaze', 'precropped+blaze', 'haar', 'precropped'):
            assert settled_face(replace(CONFIG, face=face), whole).face == face and job_of(
                whole.iloc[0], replace(CONFIG, face=face)
            ).face == face.removeprefix('precropped+')


def test_cascades_in_place_of_networks_are_told(photo, tmp_path, monkeypatch):
    crops, whole = (clip_of(tmp_path, [photo, photo], f'c{c:d}', cropped=c) for c in (True, False))
    with_finder(monkeypatch, 'haar')
    with pytest.warns(UserWarning, match='found by cascades.*blaze.*pip install'):
        assert settled_face(CONFIG, pd.concat([crops, whole])).face == 'precropped+haar'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert settled_face(CONFIG, crops).face == 'precropped'
        with_finder(monkeypatch, 'blaze')
        assert settled_face(CONFIG, whole).face == 'blaze'


@pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}")
def test_several_processes_find_the_same_faces(photo, tmp_path):
    clips = pd.concat(
        [clip_of(tmp_path, [shifted(photo, k), shifted(photo, k + 1)], f'c{k}', cropped=False) for k in range(3)],
        ignore_index=True,
    )
    one, two = (FeatureStore(tmp_path / f'store{n}', CONFIG) for n in (1, 2))
    for s, n in ((one, 1), (two, 2)): s.ensure(clips, workers=n, progress=False)
    assert (one.table.data.read_bytes() == two.table.data.read_bytes() and one.table.lines.read_bytes()
            == two.table.lines.read_bytes())


def test_recorded_frames_between_onset_and_apex(tmp_path):
    "Motion that is over after a third of the time: resampling what was recorded shows it, interpolation cannot know."
    r = np.random.default_rng(0)
    texture = cv2.GaussianBlur(r.normal(128, 60, (32, 32, 3)), (0, 0), 1.5).clip(0, 255).astype(np.uint8)
    clip = clip_of(tmp_path, [shifted(texture, d) for d in (0, .5, 1, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5)], cropped=True)
    config = PreprocessConfig(size=32, length=4, interpolate='frames')
    assert list(files_used(clip.iloc[0], config)) == list(range(10, 20)) and list(files_used(clip.iloc[0])) == [10, 19]
    u = np.abs(clip_features(clip.iloc[0], config)[0].astype(float))[:, 8:-8, 8:-8].mean((1, 2))
    even = np.abs(clip_features(clip.iloc[0], replace(config, interpolate='flow'))[0].astype(float))[
        :, 8:-8, 8:-8
    ].mean((1, 2))
    assert u[0] > 5 * u[2] and even.max() < 1.5 * even.min()
    assert clip_features(clip.iloc[0], config, phi=2).shape == (5, 3, 32, 32)


def test_a_missing_recorded_frame_does_not_shift_time(tmp_path):
    r = np.random.default_rng(1)
    texture = cv2.GaussianBlur(r.normal(128, 60, (32, 32, 3)), (0, 0), 1.5).clip(0, 255).astype(np.uint8)
    config = PreprocessConfig(size=32, length=4, interpolate='frames')
    clip = clip_of(tmp_path, [shifted(texture, d / 6) for d in range(10)], cropped=True)
    whole = clip_features(clip.iloc[0], config).astype(float)
    store = FeatureStore(tmp_path / 'store', config)
    first = store.ensure(clip, progress=False)
    clip.at[0, 'frames'] = {n: p for n, p in clip.at[0, 'frames'].items() if n not in (13, 14)}
    part = clip_features(clip.iloc[0], config).astype(float)
    assert np.abs(whole - part).mean() < .2 * np.abs(whole).mean() and store.ensure(clip, progress=False) != first


def test_a_learned_back_end_needs_its_checkpoint_and_is_keyed_by_its_content(tmp_path):
    with pytest.raises(ValueError, match='magnet expects weights=PATH'): PreprocessConfig(magnify='magnet')
    with pytest.raises(ValueError, match='has no weights'): PreprocessConfig(magnify_weights='x.pth')
    torch.save(random_magnet(0).state_dict(), tmp_path / 'a.pth')
    torch.save(random_magnet(1).state_dict(), tmp_path / 'b.pth')
    (tmp_path / 'copy.pth').write_bytes((tmp_path / 'a.pth').read_bytes())
    a, b, copy = (
        FeatureStore(tmp_path / 'store',
                     PreprocessConfig(size=32, length=3, magnify='magnet', magnify_weights=str(tmp_path / f'{n}.pth')))
        for n in ('a', 'b', 'copy')
    )
    assert a.table.folder != b.table.folder and a.table.folder == copy.table.folder
    r = np.random.default_rng(2)
    clip = clip_of(tmp_path, [r.integers(0, 255, (32, 32, 3), np.uint8)] * 2, cropped=True)
    row, = a.ensure(clip, np.array([3]), progress=False)
    assert np.isfinite(a.F[row].astype(float)).all()


def test_unknown_names_list_the_known_ones():
    for name in ('face', 'interpolate', 'flow', 'magnify'):
        with pytest.raises(ValueError, match='known: '): PreprocessConfig(**{name: 'nothing'})
    with pytest.raises(ValueError, match='face_file goes with'): PreprocessConfig(face='landmarks')


def filled(tmp_path, n=6):
    r = np.random.default_rng(3)
    clips = pd.concat(
        [clip_of(tmp_path, r.integers(0, 255, (2, 32, 32, 3), np.uint8), f'c{k}', cropped=True) for k in range(n)],
        ignore_index=True,
    )
    store = FeatureStore(tmp_path / 'store', CONFIG)
    store.ensure(clips, progress=False)
    return clips, store.table


def test_a_damaged_line_does_not_cost_the_good_rows_behind_it(tmp_path):
    clips, table = filled(tmp_path)
    lines = table.lines.read_bytes().split(b'\n')
    table.lines.write_bytes(b'\n'.join([*lines[:2], b'{"key": 1, "ro', *lines[3:]]))
    before = table.data.read_bytes()
    with pytest.raises(ValueError, match='line 3 is damaged, 3 good rows follow'):
        FeatureStore(tmp_path / 'store', CONFIG).ensure(clips, progress=False)
    assert table.data.read_bytes() == before
    assert verify_folder(table.folder)[2][0]['clip'].startswith('index.jsonl: 4 lines')


@pytest.mark.parametrize(
    'spoil, says',
    [
        (lambda t: t.lines.write_bytes(b''), '6 rows without a line'),
        (lambda t: t.lines.unlink(), '6 rows without a line'),
        (lambda t: t.data.write_bytes(t.data.read_bytes()[:-9]), '1 lines that are damaged'),
    ],
)
def test_verify_sees_what_is_lost(tmp_path, spoil, says):
    _, table = filled(tmp_path)
    assert not verify_folder(table.folder)[2]
    spoil(table)
    assert says in verify_folder(table.folder)[2][-1]['clip']


@pytest.mark.parametrize('about', ['', '{}', '[]', '{"shape": "x"}'])
def test_a_folder_that_is_no_store_is_an_error(tmp_path, about):
    _, table = filled(tmp_path, 1)
    (table.folder / 'store.json').write_text(about)
    with pytest.raises(ValueError, match='no readable store.json'): verify_folder(table.folder)


def test_a_store_that_was_removed_is_made_again_in_the_same_process(tmp_path):
    clips, table = filled(tmp_path, 2)
    store = FeatureStore(tmp_path / 'store', CONFIG)
    store.ensure(clips, progress=False)
    shutil.rmtree(table.folder)
    assert len(store.ensure(clips, progress=False)) == 2 and store.verify() == 2


def test_a_missing_face_is_told_and_noted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    store = FeatureStore(tmp_path / 'store', replace(CONFIG, no_face='centre'))
    for _ in range(2):
        with pytest.warns(UserWarning, match='1 of 1 clips: no face found.*006_1_2'):
            store.ensure(clip_of(tmp_path, [noise, noise], cropped=False), progress=False)
    assert store.table.index[0]['fallback'] is True


def test_a_head_that_moves_far_is_followed(photo, tmp_path):
    far = clip_of(tmp_path, [photo, shifted(photo, 16)], cropped=False)
    assert np.abs(clip_features(far.iloc[0], PreprocessConfig(size=64))[:2].astype(float)).sum(1).mean() < .5


def test_slow_drift_gives_no_jump(photo, tmp_path):
    drift = clip_of(tmp_path, [shifted(photo, .05 * k) for k in range(8)], cropped=False)
    u = (
        clip_features(drift.iloc[0], PreprocessConfig(size=64, length=8, interpolate='frames'))[0] .astype(float)
        .mean((1, 2))
    )
    assert np.abs(u).max() < .02


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(apex=10), 'apex must come after the onset'), (dict(apex=pd.NA), 'expected frame numbers'),
        (dict(onset=11, apex=10), 'apex must come after'),
    ],
)
def test_a_clip_without_motion_or_numbers_is_named(tmp_path, change, says):
    clip = clip_of(tmp_path, np.zeros((2, 32, 32, 3), np.uint8), cropped=True).assign(**change)
    with pytest.raises(ValueError, match=f'samm/006/006_1_2.*{says}'): clip_features(clip.iloc[0], CONFIG)


def test_a_broken_checkpoint_does_not_become_features(tmp_path):
    state = random_magnet(0).state_dict()
    next(iter(state.values())).fill_(float('nan'))
    torch.save(state, tmp_path / 'nan.pth')
    clip = clip_of(tmp_path, np.random.default_rng(4).integers(0, 255, (2, 32, 32, 3), np.uint8), cropped=True)
    config = PreprocessConfig(size=32, length=3, magnify='magnet', magnify_weights=str(tmp_path / 'nan.pth'))
    with pytest.raises(ValueError, match='not finite'):
        FeatureStore(tmp_path / 'store', config).ensure(clip, [2], progress=False)
    with pytest.raises(ValueError, match='cannot be read'):
        FeatureStore(tmp_path / 'store', replace(config, magnify_weights='nowhere.pth')).ensure(clip, progress=False)


def test_overrides_can_name_a_back_end_and_its_checkpoint_in_either_order():
    for text in ('preprocess.flow=flownet2,preprocess.flow_weights=a.pth',
                 'preprocess.flow_weights=a.pth,preprocess.flow=flownet2'):
        found = override(settings_preset('tiny'), text).preprocess
        assert (found.flow, found.flow_weights) == ('flownet2', 'a.pth')


def test_a_head_that_cannot_be_followed_is_told(photo, tmp_path):
    gone = clip_of(tmp_path, [photo, np.random.default_rng(5).integers(0, 255, photo.shape, np.uint8)], cropped=False)
    with pytest.warns(UserWarning, match='the head moves too much'):
        FeatureStore(tmp_path / 'store', CONFIG).ensure(gone, progress=False)
