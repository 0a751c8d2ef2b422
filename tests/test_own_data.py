"""Clips of one's own: what a spreadsheet and a folder of videos can do to a run, and what a run does about it."""
import json
import os
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from warm import warm

from mpfnet import loso
from mpfnet.cli import main
from mpfnet.clips import load_clips
from mpfnet.data.film_frames import decode_film, film_of
from mpfnet.data.own import own_data
from mpfnet.data.own_data import write_template
from mpfnet.data.readers import DataError
from mpfnet.harness import experiment
from mpfnet.parameters import check_parameters
from mpfnet.preprocess import PreprocessConfig, clip_features

RECIPE = PreprocessConfig(size=16, length=3, face='precropped')
OVERRIDES = 'preprocess.size=16'
DRAWN = dict(cropped='yes', kind='synthetic')
LENGTH = 12


def scene(seed, n=LENGTH, size=48):
    "Frames of a patch that moves; no two scenes are alike."
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:size, :size]
    ground = rng.integers(0, 255, (size, size, 3)).astype(float)
    ground = cv2.GaussianBlur(ground, (0, 0), 2)
    dx, dy = rng.uniform(-3, 3, 2)
    for k in range(n):
        rise = np.sin(np.pi*k/(n - 1))
        shift = [(a + d*rise*np.exp(-((x - 24)**2 + (y - 30)**2)/60)).astype(np.float32) for a, d in ((x, dx), (y, dy))]
        yield np.clip(cv2.remap(ground, *shift, cv2.INTER_LINEAR), 0, 255).astype(np.uint8)


def write_video(path, images, codec='mp4v', fps=100):
    images = list(images)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, images[0].shape[1::-1])
    for image in images: out.write(image)
    out.release()
    return path


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MPFNET_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Four people, three clips each in one video; do not change it."
    root = tmp_path_factory.mktemp('films')
    rows = []
    for who in range(1, 5):
        write_video(root/f'p{who}.mp4', [f for k in range(3) for f in scene(10*who + k)])
        for k, emotion in enumerate(('fear', 'happiness', 'surprise')):
            at = LENGTH*k + 1
            rows.append((f'p{who}', f'c{k}', emotion, at, at + 5, at + LENGTH - 1, f'p{who}.mp4'))
    pd.DataFrame(rows, columns=['subject', 'clip', 'emotion', 'onset', 'apex', 'offset', 'video']).to_csv(
        root/'clips.csv', index=False)
    return root


@pytest.fixture
def sheet(films): return pd.read_csv(films/'clips.csv').astype(object)


def run(dataset, out, **asked):
    asked = dict(method='pca_lda', overrides=OVERRIDES, length=3, data_options='cropped=yes,kind=synthetic') | asked
    return loso.run(dataset=dataset, out_dir=out, device='cpu', progress=False, **asked)


def config(folder): return json.loads((folder/'config.json').read_text())


# --- frames of a video and frames of a folder

@pytest.mark.parametrize('codec, suffix', [('mp4v', 'mp4'), ('FFV1', 'avi')])
def test_a_video_and_a_folder_of_its_frames_have_the_same_features(tmp_path, codec, suffix):
    """FFV1 loses nothing: the frames are those that were drawn. Of a lossy video they are those that it shows."""
    rows = []
    for k, (who, emotion) in enumerate((('a', 'fear'), ('b', 'happiness'))):
        video = write_video(tmp_path/f'{who}.{suffix}', scene(k), codec)
        images, cap = list(scene(k)), cv2.VideoCapture(str(video))
        if codec != 'FFV1': images = [cap.read()[1] for _ in images]
        (tmp_path/who).mkdir()
        for n, image in enumerate(images, 1): cv2.imwrite(str(tmp_path/who/f'{n:03}.png'), image)
        rows += [(who, 'film', emotion, 2, 6, 10, video.name), (who, 'folder', emotion, 2, 6, 11, who)]
    table = pd.DataFrame(rows, columns=['subject', 'clip', 'emotion', 'onset', 'apex', 'offset', 'frames'])
    clips = load_clips(table, tmp_path, **DRAWN)
    assert len(clips) == 4 and [f['decision'] for f in clips.report['findings']] == ['no-rate', 'empty-class']
    F = {(r.subject, r.clip): clip_features(r, RECIPE) for r in clips.table.itertuples()}
    assert all((F[who, 'film'] == F[who, 'folder']).all() for who in 'ab')
    assert not (F['a', 'film'] == F['b', 'film']).all()


def test_seconds_are_the_frames_that_are_shown_then(films, sheet):
    in_seconds = sheet.assign(**{f'{k}_s': (sheet[k].astype(int) - 1)/100 for k in ('onset', 'apex', 'offset')})
    in_seconds = in_seconds.drop(columns=['onset', 'apex', 'offset'])
    wanted = load_clips(sheet, films, **DRAWN)
    for table, unit in ((in_seconds, ''), (in_seconds.rename(columns=lambda c: c.replace('_s', '')), 's')):
        found = load_clips(table, films, **DRAWN, **(dict(unit=unit) if unit else {}))
        assert found[['onset', 'apex', 'offset']].equals(wanted[['onset', 'apex', 'offset']])


def test_only_what_is_asked_for_is_decoded(tmp_path):
    video = write_video(tmp_path/'a.mp4', [f for k in range(3) for f in scene(k)])
    rows = [('a', 'fear', 2, 5, 8), ('b', 'happiness', 15, 19, 23)]
    table = pd.DataFrame(rows, columns=['subject', 'emotion', 'onset', 'apex', 'offset']).assign(video='a.mp4')
    load_clips(table, tmp_path, **DRAWN)
    assert len(list(film_of(video).folder.glob('*.png'))) == 7 + 9


def test_frames_may_count_from_zero(films, sheet):
    from_zero = sheet.assign(**{k: sheet[k].astype(int) - 1 for k in ('onset', 'apex', 'offset')})
    clips = load_clips(from_zero, films, first='0', **DRAWN)
    paths = [r.frames[r.onset] for r in clips.table.itertuples()]
    assert paths == [r.frames[r.onset] for r in load_clips(sheet, films, **DRAWN).table.itertuples()]
    with pytest.warns(UserWarning, match="count from 1, unless data_options='first=0'"):
        load_clips(from_zero, films, **DRAWN)


# --- a run

def test_a_table_in_one_command_and_again(films, tmp_path):
    "From another folder; the second time nothing is trained; a changed cell and a changed video are other runs."
    root = tmp_path/'mine'
    shutil.copytree(films, root)
    line = ['-m', 'mpfnet', 'run', '--no-notebook', '-q', '-p', 'dataset', 'mine/clips.csv', '-p', 'method', 'majority',
            '-p', 'data_options', 'cropped=yes,kind=synthetic', '-p', 'overrides', OVERRIDES, '-p', 'length', '11',
            '-p', 'out_dir', 'runs']
    done = warm(*line, cwd=tmp_path, env=os.environ | dict(MPFNET_CACHE=str(tmp_path/'cache')), text=True)
    assert done.returncode == 0 and 'SYNTHETIC' in done.stdout, done.stderr
    first, = (tmp_path/'runs').glob('clips-3class-majority-*')
    def made(): return {p.name: p.stat().st_mtime_ns for p in (first/'folds').glob('*.json')}
    before = made()
    assert run(root/'clips.csv', tmp_path/'runs', method='majority', length=11) == first
    assert made() == before and len(before) == 4
    table = pd.read_csv(root/'clips.csv')
    table.assign(offset=table.offset - (table.index == 0)).to_csv(root/'clips.csv', index=False)
    other = run(root/'clips.csv', tmp_path/'runs', method='majority', length=11)
    assert other != first and config(other)['data']['table'] != config(first)['data']['table']
    write_video(root/'p1.mp4', [f for k in range(3) for f in scene(99 + k)])
    newest = run(root/'clips.csv', tmp_path/'runs', method='majority', length=11)
    a, b = config(other)['data'], config(newest)['data']
    assert newest != other and a['table'] == b['table'] and a['sha256'] != b['sha256']


def test_where_the_table_lies_and_how_it_is_written_decides_nothing(films, tmp_path, sheet):
    moved = tmp_path/'elsewhere'
    shutil.copytree(films, moved)
    as_excel = sheet.rename(columns=str.upper).iloc[::-1]
    as_excel.to_excel(moved/'clips.xlsx', index=False)
    hashes = [experiment(check_parameters(dict(dataset=d, data_root=r, method='majority', length=11, out_dir=tmp_path,
                                               overrides=OVERRIDES, data_options='cropped=yes')), progress=False)
              for d, r in ((films/'clips.csv', None), (moved/'clips.xlsx', None), (sheet, films))]
    clips = [e.data.clips[['subject', 'clip', 'label', 'onset', 'apex', 'offset']] for e in hashes]
    assert clips[0].equals(clips[1]) and clips[0].equals(clips[2])
    assert len({tuple(e.data.digests[r] for r in e.data.rows) for e in hashes}) == 1


def test_own_classes_in_their_order(films, tmp_path, sheet):
    table = sheet.drop(columns='emotion').assign(Label=['high', 'low', 'low']*4)
    for task, classes in (('3class', ('high', 'low')), ('low,high', ('low', 'high'))):
        folder = run(table, tmp_path/'runs', data_root=films, task=task)
        assert folder.name.startswith('table-2own-pca_lda-') and config(folder)['task'] == ','.join(classes)
        assert len(json.loads((folder/'metrics.json').read_text())['pooled']['confusion']) == 2
        assert load_clips(table, films, task=task, **DRAWN).classes == classes


@pytest.mark.parametrize('split', ['subject', 'kfold:2'])
def test_mpfnet_on_own_clips(films, tmp_path, split):
    from conftest import CHEAP
    folder = run(films/'clips.csv', tmp_path/'runs', method='mpfnet_c', split=split, preset='tiny', length=3,
                 overrides=f'{CHEAP},{OVERRIDES}', subjects='clips/p1' if split == 'subject' else 'group1')
    assert len(list((folder/'folds').glob('*.json'))) == 1


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 5, 2, 16, 16))
    y, who = np.tile([0, 1, 2], 4), np.repeat(['a', 'b', 'c', 'd'], 3)
    X += y[:, None, None, None, None]                        # easy
    folder = run((X, y, who), tmp_path, data_options='', overrides='', length=11)
    assert config(folder)['data']['stamp'].startswith('OWN DATA, arrays')
    assert json.loads((folder/'metrics.json').read_text())['pooled']['uf1'] == 1
    shuffled = rng.permutation(12)
    again = run((X[shuffled], y[shuffled], who[shuffled]), tmp_path, data_options='', overrides='', length=11)
    assert json.loads((again/'metrics.json').read_text())['pooled']['uf1'] == 1
    from conftest import CHEAP
    run((X, y, who), tmp_path, method='mpfnet_p', data_options='kind=synthetic', overrides=CHEAP, length=11,
        subjects='arrays/a')
    for method in ('lbp_top', 'fdp', 'ststnet'):
        with pytest.raises(ValueError, match=f'{method} needs .*, this dataset has ready-made features'):
            run((X, y, who), tmp_path, method=method, data_options='', overrides='', length=11)
    with pytest.raises(ValueError, match='X is ready-made'):
        run((X, y, who), tmp_path, data_options='', overrides='', length=3)


def test_arrays_that_are_none():
    X, y, who = np.random.default_rng(0).normal(size=(4, 5, 2, 8, 8)), [0, 1, 0, 1], list('aabb')
    for given, said in (((X[:0], y[:0], who[:0]), r'found \(0, 5, 2, 8, 8\)'),
                        (([[1], [1, 2]], y, who), 'X: expected an array'),
                        ((X[[0, 1, 0, 1]], y, who), r'X\[0\] and X\[2\] are the same clip: of a, 0, and of b, 0'),
                        ((X[[0, 0, 2, 3]], y, who), r'X\[0\] and X\[1\] are the same clip')):
        with pytest.raises(DataError, match=said): own_data(given)
    assert len(own_data((X[[0, 1, 0, 1]], y, ['a']*4)).source[0]) == 4 and own_data((X*0, y, who))


def test_a_model_of_own_clips(films, tmp_path):
    from mpfnet.models import fit, load
    asked = dict(length=3, overrides=OVERRIDES, data_options='cropped=yes', device='cpu', out_dir=tmp_path/'runs')
    folder = fit(films/'clips.csv', 'pca_lda', out=tmp_path/'model', progress=False, **asked)
    card = (folder/'README.md').read_text()
    assert 'OWN DATA' in card and 'mpfnet fit clips.csv' in card and str(films) not in card
    assert load(folder).classes == ('negative', 'positive', 'surprise')


# --- bad input: a sentence with row and column, and nothing else is lost

def findings(table, films, **options):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        clips = load_clips(table, films, **DRAWN | options)
    return clips, [(f['row'], f['column'], f['decision']) for f in clips.report['findings']]


SLIPS = [
    (dict(video='gone.mp4'), 'video', 'no-folder', 'gone.mp4'),
    (dict(video='../p1.mp4'), 'video', 'leads-outside', '../p1.mp4'),
    (dict(video='/etc'), 'video', 'leads-outside', '/etc'),
    (dict(video='clips.csv'), 'video', 'no-folder', 'no folder, and no video'),
    (dict(video=None), 'video', 'bad-row', 'an empty cell'),
    (dict(video='cut.mp4'), 'video', 'video-damaged', 'no index (moov)'),
    (dict(offset=400), 'offset', 'video-ends', 'the video has 36 frames, 1…36'),
    (dict(onset=390, apex=395, offset=400), 'offset', 'video-ends', 'the video has 36 frames'),
    (dict(onset=.13, apex=.18, offset=.24), 'onset', 'no-frame-number', '0.13'),
    (dict(onset='soon'), 'onset', 'bad-row', 'soon'),
    (dict(onset=24, apex=None, offset=13), 'offset', 'onset-after-offset', '24'),
    (dict(emotion='hapiness'), 'emotion', 'unknown-emotion', 'hapiness'),
    (dict(emotion=None), 'emotion', 'bad-row', 'an empty cell'),
    (dict(subject=None), 'subject', 'bad-row', 'an empty cell'),
    (dict(clip='a/b'), 'clip', 'bad-name', 'a/b'),
    (dict(video='x'*5000), 'video', 'no-folder', 'xxx'),
    (dict(fps='fast'), 'fps', 'bad-row', 'fast'),
    (dict(fps=0), 'fps', 'bad-row', '0'),
    (dict(clip='2024-03-02'), 'clip', 'bad-name', '2024-03-02'),
    (dict(cropped='maybe'), 'cropped', 'bad-row', 'maybe; expected yes or no'),
    (dict(unit='ms'), 'unit', 'bad-row', 'ms, but the column is onset_s'),
]


@pytest.mark.parametrize('slip, column, decision, found', SLIPS, ids=lambda v: str(v)[:24])
def test_a_slip_costs_its_row_and_no_other(films, sheet, slip, column, decision, found):
    if not (films/'cut.mp4').exists(): (films/'cut.mp4').write_bytes((films/'p1.mp4').read_bytes()[:600])
    for k, v in slip.items(): sheet.loc[4, k] = v
    if 'unit' in slip: sheet = sheet.assign(**{f'{k}_s': sheet.pop(k)/100 - .01 for k in ('onset', 'apex', 'offset')})
    clips, told = findings(sheet, films)
    assert told == [(6, column, decision)] and len(clips) == 11
    assert found in clips.report['findings'][0]['found']
    with pytest.raises(DataError, match='strict mode refuses 1 case'): load_clips(sheet, films, strict=True, **DRAWN)


def test_a_path_is_found_as_the_disk_spells_it(films, sheet, tmp_path):
    "Double spaces, an accent in two parts, a wide digit, and a table that Excel has saved in the code page of Windows."
    shutil.copytree(films, root := tmp_path/'mine')
    for n, name in enumerate(('a  b.mp4', 'cafe\u0301.mp4', 'full\uff11.mp4', 'caf\u00e9_2.mp4')):
        shutil.move(root/f'p{n + 1}.mp4', root/name)
        sheet.loc[sheet.subject == f'p{n + 1}', 'video'] = name
    sheet.loc[3:5, 'video'] = 'caf\u00e9.mp4'                                   # as it is typed, not as a Mac keeps it
    clips, told = findings(sheet, root)
    assert len(clips) == 12 and not told
    four = sheet[sheet.subject.isin(['p1', 'p4'])]
    (root/'old.csv').write_bytes(four.to_csv(index=False, sep=';').encode('cp1252'))
    clips, told = findings(root/'old.csv', root)
    assert len(clips) == 6 and not told


def test_a_text_that_names_a_video_is_none(films, sheet, tmp_path):
    "A player would open the file that it names, wherever that lies."
    shutil.copytree(films, root := tmp_path/'mine')
    for n, said in enumerate(('ffconcat version 1.0\nfile p1.mp4\n', '#EXTM3U\n#EXTINF:9,\np1.mp4\n', 'hello', '')):
        (root/f't{n}.mp4').write_text(said)
        sheet.loc[n, 'video'] = f't{n}.mp4'
    clips, told = findings(sheet, root)
    assert told == [(n, 'video', 'video-damaged') for n in (2, 3, 4, 5)] and len(clips) == 8


def test_a_copied_film_puts_nobody_on_both_sides(films, sheet, tmp_path):
    "Of another person it is used for none of the two; of the same it is read once."
    shutil.copytree(films, root := tmp_path/'mine')
    for n in ('x', 'y'): shutil.copy(root/'p1.mp4', root/f'{n}.mp4')
    sheet.loc[4, 'video'] = 'x.mp4'                                             # p2's second is p1's second
    sheet = pd.concat([sheet, sheet.iloc[[0]].assign(video='y.mp4', clip='again')])
    clips, told = findings(sheet, root)
    assert sorted(told) == [(3, 'video', 'duplicate'), (6, 'video', 'duplicate'), (14, 'video', 'repeated-row')]
    assert len(clips) == 10
    for name in ('f', 'g'):                                                     # a folder whose end is as its beginning
        (root/name).mkdir()
        for n, image in enumerate(scene(1), 1): cv2.imwrite(str(root/name/f'{n}.png'), image)
    sheet = pd.concat([sheet.iloc[:3], sheet.iloc[6:9]])
    for n, name in ((0, 'f'), (7, 'g')): sheet.loc[n, ['video', 'onset', 'apex', 'offset']] = [name, 1, 6, 12]
    clips, told = findings(sheet, root)
    assert told == [(2, 'video', 'duplicate'), (6, 'video', 'duplicate')] and len(clips) == 4


def test_spans_that_overlap_put_nobody_on_both_sides(films, sheet):
    "Two people in the same pictures: both rows go. One shared picture, or one person, is noted and used."
    for n, (onset, offset) in {3: (8, 18), 4: (24, 30)}.items(): sheet.loc[n, ['onset', 'offset']] = onset, offset
    sheet.loc[3, ['video', 'apex']] = ['p1.mp4', 12]                            # p2 in the middle of p1's first two
    sheet.loc[4, ['video', 'apex']] = ['p1.mp4', 27]                            # and where the second of p1 ends
    sheet.loc[9, ['apex', 'offset']] = 12, 16                                   # p4's first into his second
    clips, told = findings(sheet, films)
    gone = [(n, 'offset', 'two-people') for n in (2, 3, 4, 5, 6)]
    assert sorted(told) == sorted([*gone, (6, 'offset', 'overlap'), (12, 'offset', 'overlap')]) and len(clips) == 7
    assert 'share' in clips.report['findings'][0]['found']


def test_who_wins_is_said(films, sheet):
    "A folder and a video, two columns of one meaning, a label beside an emotion: one is read, none silently."
    both = sheet.assign(frames=['p9', *['']*11], onset_s=0., Participant='x', label=['a', 'b', 'c']*4)
    clips, told = findings(both, films)
    assert sorted(told, key=str) == sorted([(2, 'frames', 'choice'), (None, 'onset', 'choice'),
                                            (None, 'subject', 'choice'), (None, 'label', 'choice')], key=str)
    assert len(clips) == 12 and clips.classes == ('a', 'b', 'c')
    done = {f['column']: (f['found'], f['done']) for f in clips.report['findings']}
    slow = findings(sheet.assign(fps=30), films)[0].report['findings']
    assert len(slow) == 4 and (slow[0]['row'], slow[0]['found'], slow[0]['done']) == (2, '30 and, in p1.mp4, 100', '30')
    with pytest.raises(ValueError, match='are the seconds those that a player shows'):
        seconds = {k: sheet[k]/100 for k in ('onset', 'apex', 'offset')}
        load_clips(sheet.assign(fps=30, unit='s', **seconds), films, **DRAWN)
    assert done['frames'] == ('p9 and p1.mp4', 'p1.mp4') and done['onset'] == ('onset, onset_s', 'onset')


def test_yes_and_no(films, sheet):
    "An empty cell is the option's; a word in between is no answer."
    sheet['cropped'] = ['yes', 'no', '', 'NA', 1, 0, True, False, 'X', 'n', None, 'Y']
    clips, told = findings(sheet, films)
    wanted = [True, False, True, True, True, False, True, False, True, False, True, True]
    assert not told and clips['cropped'].tolist() == wanted
    assert load_clips(sheet, films, kind='synthetic')['cropped'].tolist()[2:4] == [False, False]
    with pytest.raises(ValueError, match="cropped: expected yes or no, found 'perhaps'"):
        load_clips(sheet, films, cropped='perhaps')


def test_a_rate_that_nobody_says_is_unknown(films, sheet, tmp_path):
    shutil.copytree(films, root := tmp_path/'mine')
    (root/'one').mkdir()
    for n, image in enumerate(scene(77), 1): cv2.imwrite(str(root/'one'/f'{n}.png'), image)
    sheet.loc[0, ['video', 'onset', 'apex', 'offset']] = ['one', 1, 6, 12]
    clips, told = findings(sheet, root)
    assert told == [(None, 'fps', 'no-rate')] and clips['fps'].isna().sum() == 1 and clips['fps'].max() == 100
    assert not findings(sheet, root, fps='50')[1] and not findings(sheet.assign(fps=100), root)[1]


def holed(path, at=.5, part=.04):
    "The file with some of its bytes gone."
    data = bytearray(path.read_bytes())
    a, n = int(len(data)*at), int(len(data)*part)
    data[a:a + n] = bytes(n)
    path.write_bytes(data)


def test_what_a_damaged_film_has_lost_is_counted(films, sheet, tmp_path):
    "By stamps the later clips keep their frames; an AVI file has none, and says so."
    shutil.copytree(films, root := tmp_path/'mine')
    for n, suffix in ((1, 'mkv'), (2, 'avi')):
        write_video(root/f'p{n}.{suffix}', [f for k in range(3) for f in scene(10*n + k)], 'FFV1')
        sheet.loc[sheet.subject == f'p{n}', 'video'] = f'p{n}.{suffix}'
    whole = load_clips(sheet, root, **DRAWN)
    def shown(clips, who):
        rows = [r for r in clips.table.itertuples() if (r.subject, r.clip) == who]
        return [cv2.imread(rows[0].frames[n]) for n in range(rows[0].onset + 1, rows[0].offset)]
    before = shown(whole, ('p1', 'c2'))
    for n, suffix in ((1, 'mkv'), (2, 'avi')): holed(root/f'p{n}.{suffix}')
    clips, told = findings(sheet, root)
    assert (2, 'video', 'frames-lost') in told and (5, 'video', 'frames-lost') in told
    said = {f['row']: f['found'] for f in clips.report['findings'] if f['decision'] == 'frames-lost'}
    assert 'the first at' in said[2] and 'nobody knows which' in said[5]
    assert all((a == b).all() for a, b in zip(before, shown(clips, ('p1', 'c2')), strict=True))
    with pytest.raises(DataError, match='strict mode'): load_clips(sheet, root, strict=True, **DRAWN)


def test_a_film_is_read_once_for_all_its_clips(films, sheet, tmp_path, monkeypatch):
    from mpfnet.data import film_frames
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path))
    reads, real = [], film_frames.stamped
    monkeypatch.setattr(film_frames, 'stamped', lambda path, wanted: reads.append(path.name) or real(path, wanted))
    load_clips(sheet, films, **DRAWN)
    assert sorted(reads) == ['p1.mp4', 'p2.mp4', 'p3.mp4', 'p4.mp4']
    load_clips(sheet, films, **DRAWN)
    assert len(reads) == 4


def test_a_film_that_lies_on_its_side_is_upright_for_both_readers(tmp_path):
    from mpfnet.synthetic.films import set_rotation
    from mpfnet.video.read import open_video
    path = write_video(tmp_path/'a.mp4', scene(3, size=48))
    tall = [f[:32] for f in scene(4)]
    path = write_video(tmp_path/'b.mp4', tall)
    set_rotation(path, 90)
    film = film_of(path, tmp_path)
    decode_film(film, path, [2])
    images = [f.image for f in open_video(path).frames()]
    assert images[2].shape == (48, 32, 3) and (cv2.imread(str(film.picture(2))) == images[2]).all()


def test_people_are_told_apart(films, sheet):
    for names in (['1-1', '1-11', '11-1', '1-111'], ['Marco 1', 'Julia-2', 'maya 1', 'Dec'], ['-', '_', '__', 'x']):
        sheet['subject'] = np.repeat(names, 3)
        clips, told = findings(sheet, films)
        assert len(clips) == 12 and clips['subject'].nunique() == 4 and not told


def test_a_class_without_a_clip_is_said(films, sheet):
    "Three classes of which one is empty: UF1 counts it as 0. A column of labels says which classes there are."
    some = sheet[sheet.emotion != 'fear']
    clips, told = findings(some, films)
    assert told == [(None, '', 'empty-class')] and clips.report['findings'][0]['found'] == 'negative'
    clips, told = findings(some.assign(label=['Surprise', 'positive']*4), films)
    assert clips.classes == ('positive', 'surprise') and told == [(None, 'label', 'choice')]
    assert load_clips(sheet.assign(label=['01', '1', 2]*4), films, **DRAWN).classes == ('1', '2')
    told = findings(sheet.assign(label=['a', 'b', 'a']*4), films, task='a,b,c')[1]
    assert told == [(None, 'label', 'choice'), (None, '', 'empty-class')]
    with pytest.raises(ValueError, match='^table has no 5class labels'): load_clips(sheet, films, task='5class')
    with pytest.raises(ValueError, match=r'cannot be joined with \+'): load_clips(f'casme2+{films/"clips.csv"}')


def test_which_sheet(films, sheet, tmp_path):
    "Of several with clips the longest is read, and said; a name that none has is refused; a workbook may end in .csv."
    with pd.ExcelWriter(tmp_path/'a.xlsx') as book:
        sheet.to_excel(book, sheet_name='all', index=False)
        sheet[sheet.subject != 'p4'].to_excel(book, sheet_name='some', index=False)
    shutil.copy(tmp_path/'a.xlsx', tmp_path/'b.csv')
    for name in ('a.xlsx', 'b.csv'):
        clips, told = findings(tmp_path/name, films)
        assert len(clips) == 12 and told == [(None, '', 'choice')]
    assert len(load_clips(tmp_path/'a.xlsx', films, sheet='some', **DRAWN)) == 9
    with pytest.raises(DataError, match="sheet='none': no such sheet with clips; there is all, some"):
        load_clips(tmp_path/'a.xlsx', films, sheet='none', **DRAWN)


def test_what_programs_write_for_nothing_is_nothing(films, sheet, tmp_path):
    "R writes NA: neither a person nor a class of that name, and an apex that is not known."
    shutil.copytree(films, root := tmp_path/'mine')
    table = sheet.assign(label=['a', 'b', 'a']*4, clip=sheet['clip'] + sheet['subject']).astype(object)
    table.loc[0, 'subject'], table.loc[4, 'label'], table.loc[7, 'apex'] = 'NA', 'NaN', '#N/A'
    table.to_csv(root/'r.csv', index=False)
    clips, told = findings(root/'r.csv', root)
    assert told[1:] == [(2, 'subject', 'bad-row'), (6, 'label', 'bad-row'), (9, 'apex', 'apex-missing')]
    assert len(clips) == 10 and clips.classes == ('a', 'b') and clips['subject'].nunique() == 4


def test_a_cell_that_is_no_cell(films, sheet):
    clips, told = findings(sheet.assign(au=[[1, 2]]*12, onset=[np.arange(2), *sheet.onset[1:]]), films)
    assert len(clips) == 11 and told == [(2, 'onset', 'bad-row')]


def test_what_can_be_mended_is(films, sheet):
    sheet.loc[0, 'apex'], sheet.loc[1, 'apex'], sheet.loc[2, 'offset'] = None, 99, 37
    sheet.loc[3, 'subject'], sheet.loc[4, 'subject'] = 'P2', 'p02'
    clips, told = findings(sheet, films)
    assert len(clips) == 12 and clips['subject'].nunique() == 4
    assert {d for _, _, d in told} == {'apex-missing', 'apex-outside', 'frame-missing', 'one-person'}
    assert (4, 'offset', 'frame-missing') in told


def test_the_same_clip_twice(films, sheet):
    both = pd.concat([sheet, sheet.iloc[[0]], sheet.iloc[[5]].assign(emotion='fear'),
                      sheet.iloc[[7]].assign(subject='p4', clip='mine')])
    clips, told = findings(both, films)
    assert sorted(told) == [(7, 'clip', 'duplicate'), (9, 'onset', 'duplicate'), (14, 'clip', 'repeated-row'),
                            (15, 'clip', 'duplicate'), (16, 'onset', 'duplicate')]
    assert len(clips) == 10


@pytest.mark.parametrize('change, said', [
    (lambda t: t.drop(columns='onset'), 'no column for onset'),
    (lambda t: t.drop(columns=['emotion', 'video']), 'a column emotion or label and a column frames or video'),
    (lambda t: t.replace({'subject': {'p2': '2-Feb'}}), "row 5, column subject: '2-Feb'"),
    (lambda t: t.replace({'subject': {'p2': 2}}), "row 2 has 'p1', row 5 has '2'"),
    (lambda t: t[t.subject == 'p1'], "column subject: only 'p1'"),
    (lambda t: t[t.emotion == 'fear'], "column emotion: only 'fear'"),
    (lambda t: t.assign(emotion='others'), "no-class: found '12 × others'"),
    (lambda t: t.assign(label=np.linspace(0, 1, 12)), '12 different labels in 12 rows'),
    (lambda t: t.assign(label='x'), "every row has 'x'"),
    (lambda t: t.assign(apex=None, offset=t.onset + 2), 'these look like seconds'),
    (lambda t: t.rename(columns=dict(onset='onset_s', offset='offset_s')),
     'the video lasts 0.35 s: are these frame numbers'),
    (lambda t: t.head(0), 'no row below the header'),
])
def test_a_table_that_is_none(films, sheet, tmp_path, change, said):
    with pytest.raises(ValueError, match=said.replace('(', r'\(')): load_clips(change(sheet), films, **DRAWN)


def test_a_folder_without_frames_or_with_a_damaged_one(films, sheet, tmp_path):
    shutil.copytree(films, root := tmp_path/'mine')
    (root/'empty').mkdir()
    (root/'one').mkdir()
    for n, image in enumerate(scene(1), 1): cv2.imwrite(str(root/'one'/f'{n}.png'), image)
    (root/'one'/'6.png').write_bytes((root/'one'/'6.png').read_bytes()[:100])
    sheet.loc[0, 'video'] = 'empty'
    sheet.loc[1, ['video', 'onset', 'apex', 'offset']] = ['one', 1, 6, 12]
    sheet.loc[2, ['video', 'onset', 'apex', 'offset']] = ['one', 30, 36, 42]
    with pytest.raises(ValueError, match='no numbered picture in the folder; but a video: say mine/'):
        load_clips(sheet.assign(video='mine'), tmp_path, **DRAWN)
    _, told = findings(sheet, root)
    assert told[:3] == [(2, 'frames', 'no-frames'), (3, 'apex', 'frame-unreadable'), (4, 'onset', 'no-frames')]
    assert told[3:] == [(None, 'fps', 'no-rate')]


def test_links_that_lead_out_are_not_followed(films, sheet, tmp_path):
    shutil.copytree(films, root := tmp_path/'mine')
    (tmp_path/'secret').mkdir()
    for n, image in enumerate(scene(1), 1): cv2.imwrite(str(tmp_path/'secret'/f'{n}.png'), image)
    os.symlink(tmp_path/'secret', root/'link')
    shutil.move(root/'p2.mp4', tmp_path/'p2.mp4')
    os.symlink(tmp_path/'p2.mp4', root/'p2.mp4')
    sheet.loc[0, 'video'] = 'link'
    _, told = findings(sheet, root)
    assert told == [(n, 'video', 'leads-outside') for n in (2, 5, 6, 7)]
    inside = sheet.assign(video=[f'mine/{v}' for v in sheet.video], fps=100)
    assert not findings(inside, tmp_path)[1]


def test_a_name_on_the_line(tmp_path, films):
    env = os.environ | dict(MPFNET_CACHE=str(tmp_path/'cache'))
    def cli(*args): return warm('-m', 'mpfnet', *map(str, args), cwd=tmp_path, env=env, text=True)
    made = cli('data', 'template', 'mine.csv')
    assert made.returncode == 0 and 'mpfnet data check mine.csv' in made.stdout
    assert cli('data', 'template', 'mine.csv').returncode == 1
    bad = cli('data', 'check', 'mine.csv')
    assert bad.returncode == 1 and bad.stdout.count('no-folder') >= 3 and 'row 2, video' in bad.stderr
    good = cli('data', 'check', films/'clips.csv', '--options', 'cropped=yes', '--deep')
    assert good.returncode == 0 and 'OWN DATA, clips.csv' in good.stdout and '0 damaged of 144 frames' in good.stdout
    for line in (('data', 'check', 'nothing.csv'), ('data', 'check', films/'clips.csv', '--variant', 'raw'),
                 ('data', 'check', 'unknown'), ('run', '-p', 'dataset', 'nothing.csv')):
        assert cli(*line).returncode in (1, 2)


def test_the_template_is_read_as_it_is_meant(tmp_path):
    for name in ('a.csv', 'b.xlsx'):
        written = write_template(tmp_path/name)
        with pytest.raises(ValueError, match='no clip of'): load_clips(written[0])       # there are no frames
        with pytest.raises(ValueError, match='it would be lost'): write_template(tmp_path/name)
    with pytest.raises(ValueError, match='a name that ends in'): write_template(tmp_path/'c.ods')


def test_names_of_tables(tmp_path):
    (tmp_path/'samm.csv').write_text('x')
    assert own_data(tmp_path/'samm.csv') == 'own_samm'
    with pytest.raises(ValueError, match='or a table of your own, .csv or .xlsx'): check_parameters(dict(dataset='sam'))
    with pytest.raises(ValueError, match='expected a table, found a folder'): own_data(tmp_path)


# --- action units of one's own

UNITS = ('4', 'AU12+25', 'R1, 2; 5')


@pytest.fixture
def coded(sheet): # a coder's column in the place of emotions
    return sheet.drop(columns='emotion').assign(au=[UNITS[k % 3] for k in range(len(sheet))])


def units(table, films, **options):
    return load_clips(table, films, task='au:4+12', cropped='yes', kind='synthetic', **options)


def test_one_s_own_units_are_a_task_without_a_column_of_emotions(films, coded, tmp_path):
    clips = units(coded, films)
    assert clips.classes == ('AU4', 'AU12') and len(clips) == 12
    assert set(clips.table['label']) == {(1, 0), (0, 1), (0, 0)}
    coded.to_csv(films/'coded.csv', index=False)
    folder = run(films/'coded.csv', tmp_path, task='au:4+12')
    found = json.loads((folder/'metrics.json').read_text())['pooled']
    assert set(found['per_unit']) == {'AU4', 'AU12'} and 0 <= found['mean_f1'] <= 1
    assert config(folder)['dataset'] == 'coded' and config(folder)['task'] == 'au:4+12'


def test_a_cell_nobody_can_read_and_an_empty_one_are_told_and_left_out(films, coded):
    coded.loc[0, 'au'], coded.loc[1, 'au'], coded.loc[2, 'au'] = 'smile', None, '0'
    with pytest.warns(UserWarning, match='2 of 12 clips left out: no action units that can be read'):
        clips = units(coded, films)
    found = {f['decision']: f for f in clips.report['findings']}
    assert len(clips) == 10 and found['units-unread']['found'] == 'smile' and 'units-missing' in found
    assert clips.table.query("subject == 'p1' and clip == 'c2'")['label'].item() == (0, 0)      # 0: a coder saw none


def test_a_cell_that_a_spreadsheet_took_for_a_date_is_told_with_what_to_write(films, coded):
    coded.loc[0, 'au'], coded.loc[1, 'au'] = '45389', 'smile'
    with pytest.warns(UserWarning, match='45389: a date[?] A spreadsheet .* write 4[+]7, in a column .* as text'):
        clips = units(coded, films)
    told = [f['done'] for f in clips.report['findings'] if f['decision'] == 'units-unread']
    assert told[1] == 'left out' and 'write 4+7' in told[0]
    with pytest.raises(DataError, match='(?s)refuses 2 case.*45389.*write 4[+]7.*smile'):
        units(coded, films, strict=True)


def test_units_in_lists_are_read_and_a_column_without_any_is_said(films, coded):
    lists = coded.assign(au=[[4], [12, 25], (1, 2, 5)]*(len(coded)//3))
    assert units(lists, films)['label'].tolist() == units(coded, films)['label'].tolist()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='no clip shows an action unit.*AU12'):
        units(coded.assign(au='smile'), films)


def test_a_check_counts_the_clips_of_each_unit(films, coded, capsys):
    coded.to_csv(films/'coded.csv', index=False)
    main(['data', 'check', str(films/'coded.csv'), '--task', 'au:4+12', '--options', 'cropped=yes'])
    told = capsys.readouterr().out
    assert 'Clips of each unit' in told and re.search(r'all [0-9]+ +4 +4 +12', told), told


def test_emotions_stay_beside_units_and_words_that_no_task_knows_drop_nothing(films, sheet):
    sheet['Action Units'], sheet['emotion'] = [UNITS[k % 3] for k in range(len(sheet))], 'puzzled'
    clips = units(sheet, films)
    assert len(clips) == 12 and set(clips.table['emotion']) == {'puzzled'}


def test_units_of_arrays(tmp_path):
    rng = np.random.default_rng(0)
    y, subjects = [UNITS[k % 2] for k in range(12)], [f's{k % 4}' for k in range(12)]
    clips = load_clips((rng.normal(size=(12, 5, 2, 16, 16)), y, subjects), task='au:4+12+25')
    assert clips.table.groupby('subject')['label'].agg(set).to_list() == [{(1, 0, 0)}, {(0, 1, 1)}]*2


def test_arrays_with_an_empty_y_leave_its_clip_out_and_are_refused_where_it_is_a_class(tmp_path):
    X, s = np.random.default_rng(0).normal(size=(12, 5, 2, 16, 16)), [f's{k % 4}' for k in range(12)]
    y = ['', None, *(UNITS[k % 2] for k in range(10))]
    with pytest.warns(UserWarning, match='2 of 12 clips left out.*s0/00000: empty'):
        clips = load_clips((X, y, s), task='au:4')
    assert clips['clip'].tolist()[0] == '00004' and len(clips) == 10
    with pytest.warns(UserWarning):
        folder = loso.run(dataset=(X, y, s), task='au:4', method='pca_lda', out_dir=tmp_path, device='cpu',
                          progress=False)
    assert json.loads((folder/'metrics.json').read_text())['pooled']['n'] == 10
    with pytest.raises(DataError, match='y.0.: expected a name'): load_clips((X, y, s))


@pytest.mark.parametrize('change, said', [
    (lambda t: t.drop(columns='au'), 'expected a column au, found subject'),
    (lambda t: t.assign(au='18'), 'AU4, AU12 in no clip.*AU18 [(]12[)]'),
    (lambda t: t.assign(subject='p1', clip=range(12)), "only 'p1' in .* with nobody else"),
    (lambda t: t.assign(au='smile'), 'no clip shows an action unit')])
@pytest.mark.filterwarnings('ignore:12 of 12 clips left out')
def test_units_that_cannot_be_a_task(films, coded, change, said):
    with pytest.raises(ValueError, match=said): units(change(coded), films)


def test_units_that_are_no_column_of_classes(films, coded):
    with pytest.raises(DataError, match='expected a column emotion or label, found'):
        load_clips(coded, films, cropped='yes', kind='synthetic')
