"""Copies whose folders, sheets or frames lie in another way than their owners give them out: the same clips, the same
frames."""
import csv
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from openpyxl import load_workbook

from mpfnet.clips import load_clips
from mpfnet.data.frames import list_frames, place_in, read_image
from mpfnet.data.readers import CASME2, DataError
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike

KEY = ['dataset', 'subject', 'clip', 'label', 'emotion', 'onset', 'apex', 'offset', 'apex_policy']


def made(dataset, root, **more):
    "A look-alike of small grey pictures, no two frames alike."
    folder = make_lookalike(dataset, root, **(dict(blank=True, progress=False, subjects=2) | more))
    for k, p in enumerate(sorted(p for s in ('*.jpg', '*.bmp') for p in folder.rglob(s))):
        p.unlink()
        p.write_bytes(cv2.imencode('.png', np.full((16, 16, 3), (k % 251, k // 251, 7), np.uint8))[1].tobytes())
    return folder


def clips_in(dataset, root, **more):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_clips(dataset, root, task=None, **more)


def seen(dataset, root):
    "The clips, and their pixels while they lie where they are."
    clips = clips_in(dataset, root)
    return clips, images(clips)


def images(clips, columns=('onset', 'apex')):
    return [read_image(r.frames[getattr(r, k)]) for r in clips.itertuples() for k in columns]


def same(after, before, columns=KEY, all_frames=True):
    "Numbers, labels and pixels, and so all features."
    (after, new), (before, old) = after, before
    assert after.table[columns].equals(before.table[columns]) and len(after)
    for a, b in zip(new, old, strict=True): np.testing.assert_array_equal(a, b)
    if all_frames: assert [sorted(f) for f in after['frames']] == [sorted(f) for f in before['frames']]


def folders_of(folder): return {t['folder']: t for t in lookalike_truth(folder) if t['written']}


# ---- folders of classes

@pytest.mark.parametrize('place', [('{class}', '{subject}', '{clip}'), ('{subject}', '{class}', '{clip}')])
def test_casme2_sorted_into_classes(tmp_path, place):
    folder = made('casme2', tmp_path)
    before = seen('casme2', tmp_path)
    words = {(r.subject, r.clip): r.emotion for r in before[0].itertuples()}
    for d in [d for d in folder.glob('CASME2_RAW_selected/*/*') if d.is_dir()]:
        names = {'class': words.get((d.parent.name, d.name), 'others'), 'subject': d.parent.name, 'clip': d.name}
        to = folder.joinpath('sorted', *(p.format(**names) for p in place))
        to.parent.mkdir(parents=True, exist_ok=True)
        d.rename(to)
    shutil.rmtree(folder/'CASME2_RAW_selected')
    after = seen('casme2', tmp_path)
    same(after, before)
    assert not [f for f in after[0].report['findings'] if f['decision'] == 'class-folder']


@pytest.mark.parametrize('dataset', ['samm', 'smic'])
def test_where_names_say_whose_they_are_folders_of_people_may_be_missing(tmp_path, dataset):
    folder = made(dataset, tmp_path)
    before = clips_in(dataset, tmp_path)
    for at, t in folders_of(folder).items():
        if not (folder/at).is_dir(): continue
        to = folder/'HS'/t['emotion']/Path(at).name
        to.parent.mkdir(parents=True, exist_ok=True)
        (folder/at).rename(to)
    after = clips_in(dataset, tmp_path)
    there = set(zip(after['subject'], after['clip']))
    rows = before.table[[k in there for k in zip(before['subject'], before['clip'])]].reset_index(drop=True)
    assert len(there) >= .8*len(before) and after.table[KEY].equals(rows[KEY])


def test_a_folder_of_another_class_is_told(tmp_path):
    "By clip and row; the sheet decides, and three classes are no contradiction to seven."
    folder = made('casme2', tmp_path)
    before = clips_in('casme2', tmp_path)
    words = {(r.subject, r.clip): ('sur', r.emotion) if r.emotion == 'happiness' else ('negative', 'disgust')
             for r in before.itertuples() if r.emotion in ('happiness', 'disgust')}
    for d in [d for d in folder.glob('CASME2_RAW_selected/*/*') if (d.parent.name, d.name) in words]:
        to = folder/'CASME2_RAW_selected'/words[d.parent.name, d.name][0]/d.parent.name/d.name
        to.parent.mkdir(parents=True, exist_ok=True)
        d.rename(to)
    after = clips_in('casme2', tmp_path)
    assert after.table[KEY].equals(before.table[KEY])
    told = [f for f in after.report['findings'] if f['decision'] == 'class-folder']
    happy = {f'{r.subject}/{r.clip}' for r in before.itertuples() if r.emotion == 'happiness'}
    assert happy and {f['clip'] for f in told} == happy
    assert {(f['found'], f['done'], f['kind']) for f in told} == {('sur', 'happiness', 'noted')}
    assert all(f['row'] for f in told)


def test_two_copies_sorted_differently_stay_two():
    ways = ('3', 'negative', 'sub01', 'EP02_01f'), ('5', 'disgust', 'sub01', 'EP02_01f'), ('3', 'sub01', 'EP02_01f')
    assert [place_in(w, CASME2.patterns)[0] for w in ways] == ['3', '5', '3']


# ---- key frames only

def keep(folder, named):
    "Of each clip onset, apex and offset alone; under their names or their numbers."
    for r in clips_in('casme2', folder.parent).itertuples():
        wanted = {k: Path(r.frames[getattr(r, k)]) for k in ('onset', 'apex', 'offset')}
        for p in list(wanted['onset'].parent.iterdir()):
            if p not in wanted.values(): p.unlink()
        if named:
            for k, p in {p: (k, p) for k, p in wanted.items()}.values(): p.rename(p.with_name(f'{r.clip}_{k}.jpg'))


@pytest.mark.parametrize('named', [True, False])
def test_key_frames_alone_are_enough(tmp_path, named):
    folder = made('casme2', tmp_path, defects=False)
    before = seen('casme2', tmp_path)
    keep(folder, named)
    same(seen('casme2', tmp_path), before, all_frames=False)


# ---- videos

def as_video(folder, frames, fps=30):
    "A folder's frames as a lossless video beside it, in place of it."
    side = 16
    film = cv2.VideoWriter(str(folder.with_suffix('.avi')), cv2.VideoWriter_fourcc(*'PNG '), fps, (side, side))
    assert film.isOpened()
    for p in frames: film.write(cv2.imread(str(p)) if p else np.zeros((side, side, 3), np.uint8))
    film.release()
    shutil.rmtree(folder)


def test_a_video_from_onset_to_offset_is_a_clip(tmp_path, monkeypatch):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path/'cache'))
    folder = made('casme2', tmp_path, defects=False, subjects=1)
    before = seen('casme2', tmp_path)
    for r in before[0].itertuples():
        inside = [p for n, p in sorted(r.frames.items()) if r.onset <= n <= r.offset]
        as_video(Path(inside[0]).parent, inside)
    after = seen('casme2', tmp_path)
    same(after, before)
    assert {Path(p).suffix for f in after[0]['frames'] for p in f.values()} == {'.png'} and folder.is_dir()


def test_recordings_as_videos_are_counted_from_one(tmp_path, monkeypatch):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path/'cache'))
    folder = made('casme_sq', tmp_path, subjects=1)
    before = seen('casme_sq', tmp_path)
    for d in {Path(r.frames[r.onset]).parent for r in before[0].itertuples()}:
        frames = list_frames(d)[0]
        as_video(d, [frames.get(n) for n in range(1, max(frames) + 1)])
    same(seen('casme_sq', tmp_path), before)
    assert not list(folder.rglob('img*.jpg'))


def test_a_video_of_another_length_is_not_guessed_at(tmp_path, monkeypatch):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path/'cache'))
    made('casme2', tmp_path, defects=False, subjects=1)
    rows = clips_in('casme2', tmp_path)
    for r in rows.itertuples(): as_video(Path(r.frames[r.onset]).parent, [p for _, p in sorted(r.frames.items())][:-1])
    with pytest.raises(DataError) as error: clips_in('casme2', tmp_path)
    assert 'ffmpeg -i CLIP.avi' in str(error.value) and 'no frame in any of the' in str(error.value)


# ---- other extractions

def test_part_b_of_casme_sq(tmp_path):
    folder = made('casme_sq', tmp_path)
    before = seen('casme_sq', tmp_path)
    for r in before[0].itertuples():
        to = folder/'selectedpic'/'selectedpic'/r.subject/r.clip
        to.mkdir(parents=True)
        for n, p in r.frames.items():
            if r.onset <= n <= r.offset: shutil.copy(p, to/f'img{n}.jpg')
    shutil.rmtree(folder/'rawpic')
    same(seen('casme_sq', tmp_path), before)


def test_recordings_of_casme3_cut_and_counted(tmp_path):
    folder = made('casme3', tmp_path, subjects=3)
    before = seen('casme3', tmp_path)
    book, = folder.rglob('*.xlsx')
    place, count, last = {}, {}, None
    for subject, video, onset, *_ in list(load_workbook(book).worksheets[0].iter_rows(values_only=True))[1:]:
        k = count[subject, video] = count.get((subject, video), 0) + 1 if last == (subject, video) else 1
        place[subject, f'{video}_{onset}'], last = f'{video}{k if k > 1 else ""}', (subject, video)
    for r in before[0].itertuples():
        to = folder/'ME_A'/r.subject/place[r.subject, r.clip]/'color'
        to.mkdir(parents=True, exist_ok=True)
        for p in r.frames.values(): shutil.copy(p, to)
    for p in [p for p in (folder/'part_A').iterdir() if p.name.lower().startswith('spno')]: shutil.rmtree(p)
    same(seen('casme3', tmp_path), before)
    assert any(p.endswith('2') for p in place.values())


def test_a_workbook_of_several_sheets_as_csv_files(tmp_path):
    folder = made('casme_sq', tmp_path)
    before = seen('casme_sq', tmp_path)
    path, = folder.rglob('*.xlsx')
    for sheet in load_workbook(path).worksheets:
        with open(path.with_name(f'{path.stem}-{sheet.title}.csv'), 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerows(sheet.iter_rows(values_only=True))
    path.unlink()
    same(seen('casme_sq', tmp_path), before)
