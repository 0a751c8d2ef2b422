"""Copies of datasets in other shapes than their owners give out: resampled, as videos, with other sheets, under other
names, with other people's names in them."""
import csv
import io
import json
import os
import re
import shutil
import time
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_flow_release
from openpyxl import Workbook, load_workbook

from mpfnet.cli import main
from mpfnet.clips import LICENSED, load_clips
from mpfnet.data.frames import list_frames
from mpfnet.data.readers import FLOW_LIST, SOURCES, DataError, smic
from mpfnet.loso import run
from mpfnet.metrics import read_predictions
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike


def tree(dataset, root, **more): return make_lookalike(dataset, root, **(dict(blank=True, progress=False) | more))


def loaded(dataset, root, **more):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_clips(dataset, root, **(dict(task=None) | more))


def said(dataset, root, **more):
    with pytest.raises(DataError) as error: loaded(dataset, root, **more)
    return str(error.value)


def findings(clips, decision): return [f for f in clips.report['findings'] if f['decision'] == decision]


def book(folder): return next(folder.rglob('*.xlsx'))


def clip_folders(folder): return sorted({p.parent for s in ('*.jpg', '*.bmp') for p in folder.rglob(s)})


def listed(folder): return [folder / t['folder'] for t in lookalike_truth(folder) if t['written']]


# ---- frames that are not those of the sheet

@pytest.mark.parametrize('frames, first', [(64, 1), (150, 1), (10, 0)])
def test_clips_interpolated_to_one_length_are_an_error(tmp_path, frames, first):
    folder = tree('casme2', tmp_path, subjects=3)
    for d in clip_folders(folder):
        one = next(d.iterdir())
        data = one.read_bytes()
        for p in d.iterdir(): p.unlink()
        for k in range(first, first + frames): (d / f'img{k}.jpg').write_bytes(data)
    text = said('casme2', tmp_path)
    assert (f'hold the same {frames} frames, {first}…{first + frames - 1}' in text
            and 'interpolated to one length' in text and 'CASME2_RAW_selected/sub01/EP02_01f/img46.jpg' in text)


def test_one_length_beside_the_frames_as_filmed_can_be_told_apart(tmp_path):
    folder = tree('casme2', tmp_path, subjects=2)
    for d in clip_folders(folder):
        other = folder / 'TIM64' / d.parent.name / d.name
        other.mkdir(parents=True)
        for k in range(1, 65): os.link(next(d.iterdir()), other / f'{k}.jpg')
    assert 'take TIM64 out of it' in said('casme2', tmp_path)
    shutil.rmtree(folder / 'TIM64')
    assert len(loaded('casme2', tmp_path)) > 10


def test_smic_without_a_sheet_at_one_length_is_doubted(tmp_path):
    folder = tree('smic', tmp_path, variant='no_sheet', subjects=3)
    for d in clip_folders(folder):
        for k, p in enumerate(sorted(d.iterdir()), 1): p.rename(d / f'image{k}.bmp') if k <= 10 else p.unlink()
    assert findings(loaded('smic', tmp_path), 'resampled')
    with pytest.raises(DataError, match='resampled'): load_clips('smic', tmp_path, strict=True)


def test_smic_long_clips_without_their_sheet_are_an_error_under_any_name(tmp_path):
    folder = tree('smic', tmp_path, variant='long', subjects=2)
    shutil.move(folder / 'SMIC-E_raw image/HS_long/SMIC-HS-E', folder / 'SMIC_HS_E')
    shutil.rmtree(folder / 'SMIC-E_raw image')
    text = said('smic', tmp_path)
    assert all(s in text
               for s in ('begin before the onset', 'SMIC_HS_E', 'is needed', 'SMIC-hs-E_annotation.xlsx', '0.5 s'))


def test_short_margins_are_enough_to_be_seen(tmp_path):
    "Twenty frames of a neutral face on either side of each clip."
    folder = tree('smic', tmp_path, variant='no_sheet', subjects=4)
    assert len(loaded('smic', tmp_path)) > 20
    for d in clip_folders(folder):
        numbers = list(list_frames(d)[0])
        for n in (*range(numbers[0] - 20, numbers[0]), *range(numbers[-1] + 1, numbers[-1] + 21)):
            os.link(next(iter(list_frames(d)[0].values())), d / f'reg_image{n:06d}.bmp')
    assert 'begin before the onset' in said('smic', tmp_path)


def test_one_long_clip_among_short_ones_is_dropped(tmp_path):
    folder = tree('smic', tmp_path, variant='no_sheet', subjects=4)
    d = clip_folders(folder)[0]
    numbers = list(list_frames(d)[0])
    for n in range(numbers[-1] + 1, numbers[-1] + 120):
        os.link(d / f'reg_image{numbers[0]:06d}.bmp', d / f'reg_image{n:06d}.bmp')
    found = findings(loaded('smic', tmp_path), 'too-long')
    assert (len(found) == 1 and found[0]['kind'] == 'dropped' and ' s: onset and offset lie somewhere inside'
            in found[0]['found'])


# ---- no frames at all

def test_videos_are_told_and_what_would_do(tmp_path):
    folder = tree('casme2', tmp_path, subjects=2)
    n = 0
    for d in clip_folders(folder):
        shutil.rmtree(d)
        d.with_suffix('.avi').write_bytes(b'RIFF')
        n += 1
    text = said('casme2', tmp_path)
    assert (
        all(
            s in text
            for s in (f'{n} .avi', '.avi (the first: sub', 'ffmpeg -i CLIP.avi', '-start_number N',
                      'folders there: sub')
        )
        and len(text) < 3000
    )


@pytest.mark.parametrize(
    'suffix, advice',
    [
        ('.jxl', 'mogrify -format png *.jxl'), ('.mp4', 'ffmpeg -i CLIP.mp4'), ('.zip', 'Unpack the .zip'),
        ('.npy', 'convert'),
    ],
)
def test_folders_full_of_other_files_are_told(tmp_path, suffix, advice):
    folder = tree('casme2', tmp_path, subjects=1)
    for p in folder.rglob('img*.jpg'): p.rename(p.with_suffix(suffix))
    text = said('casme2', tmp_path)
    assert suffix in text and advice in text and 'no frame in any of the' in text


def test_one_clip_as_a_video_is_dropped_and_told(tmp_path):
    folder = tree('casme2', tmp_path, subjects=2)
    d = listed(folder)[0]
    for p in d.iterdir(): p.unlink()
    (d / f'{d.name}.avi').write_bytes(b'RIFF')
    found = findings(loaded('casme2', tmp_path), 'no-frames')
    assert [f['clip'] for f in found] == [f'{d.parent.name}/{d.name}'] and f'1 .avi (the first: {d.name}.avi)' in found[
        0
    ]['found']


def test_a_folder_of_frames_under_another_name_is_told(tmp_path):
    folder = tree('casme2', tmp_path, subjects=2)
    dirs = listed(folder)
    dirs[0].rename(dirs[0].with_name('clip 1'))
    dirs[1].rename(dirs[1].with_name('clip 2'))
    (dirs[2].parent / 'notes').mkdir()
    (dirs[2].parent / 'notes' / 'x.txt').write_text('')
    clips = loaded('casme2', tmp_path)
    place = dirs[0].parent.relative_to(folder)
    assert [f['found'] for f in findings(clips, 'no-pattern')] == [f'{place}/clip 1 and 1 more'] and len(
        findings(clips, 'no-folder')
    ) == 2


def test_nothing_is_told_of_the_folders_that_belong_there(tmp_path):
    for name in LICENSED: assert not findings(loaded(name, tree(name, tmp_path, subjects=3).parent), 'no-pattern'), name


def test_names_that_no_pattern_fits_are_told_with_subject_and_clip(tmp_path):
    path = book(tree('casme2', tmp_path, subjects=2))
    b = load_workbook(path)
    b.active.cell(2, 2).value = 'film 2, clip 1'
    subject = b.active.cell(2, 1).value
    path.unlink()
    b.save(path)
    found = findings(loaded('casme2', tmp_path), 'bad-name')
    assert len(found) == 1 and found[0]['row'] == 2 and f'subject {subject}, clip film 2, clip 1' == found[0]['done']


# ---- sheets

def as_csv(path, by=',', code='utf-8'):
    "A workbook's first sheet as CSV, in place of it."
    grid = load_workbook(path).worksheets[0].iter_rows(values_only=True)
    out = io.StringIO()
    csv.writer(out, delimiter=by).writerows(grid)
    path.with_suffix('.csv').write_bytes(out.getvalue().encode(code))
    path.unlink()


@pytest.mark.parametrize('name', [n for n in LICENSED if n not in ('casme_sq', 'dfme', 'casme')])
def test_a_csv_sheet_is_read_like_a_workbook(tmp_path, name):
    folder = tree(name, tmp_path, subjects=3)
    before = loaded(name, tmp_path)
    as_csv(book(folder), *{'mmew': (';', 'utf-16'), 'casme3': ('\t', 'gb18030')}.get(name, ()))
    after = loaded(name, tmp_path)
    assert after.drop(columns='frames').equals(before.drop(columns='frames')) and after.report['source'][
        'annotation'
    ].endswith('.csv')


def test_csv_files_of_other_things_are_not_taken_for_the_annotation(tmp_path):
    folder = tree('samm', tmp_path, subjects=2)
    one = loaded('samm', tmp_path).iloc[0]
    for name in ('landmarks.csv', 'predictions.csv'):
        (folder / name).write_text(
            f"subject,filename,onset,offset,emotion\n006,006_1_2,{one['onset']},{one['offset']},anger\n".replace(
                '006_1_2', one['clip']
            )
        )
    assert not findings(loaded('samm', tmp_path), 'choice')
    book(folder).unlink()
    assert all(s in said('samm', tmp_path)
               for s in ('no annotation file', 'landmarks.csv', 'annotation=PART_OF_ITS_NAME'))
    assert loaded('samm', tmp_path, annotation='landmarks')['clip'].tolist() == [one['clip']]


def test_a_workbook_beside_its_csv_copy_is_preferred(tmp_path):
    folder = tree('mmew', tmp_path, subjects=2)
    book(folder).with_suffix('.csv').write_text('Filename,OnsetFrame,Estimated Emotion\n')
    clips = loaded('mmew', tmp_path)
    assert clips.report['source']['annotation'].endswith('.xlsx') and [
        f['column'] for f in findings(clips, 'choice')
    ] == ['annotation']


def spotting(path, *more):
    b = Workbook()
    for row in (['subject', 'video', 'start', 'end', *more], ['s1', 's1_ne_01', 2, 40]): b.active.append(row)
    b.save(path)


@pytest.mark.parametrize('sheet',
                         ['SMIC-HS-E_annotation.xlsx', 'SMIC-HS.xlsx', 'labels of all clips, SMIC HS.xlsx', None])
def test_a_sheet_for_spotting_beside_the_annotation_is_set_aside(tmp_path, sheet):
    folder = tree('smic', tmp_path, subjects=3)
    before = loaded('smic', tmp_path)
    if sheet: book(folder).rename(folder / sheet)
    else: book(folder).unlink()
    spotting(folder / 'SMIC_HS_E_spotting.xlsx')
    clips = loaded('smic', tmp_path)
    assert len(clips) == len(before) and bool(findings(clips, 'no-sheet')) == (sheet is None)
    if sheet:
        assert Path(clips.report['source']['annotation']).name == sheet and clips.drop(
            columns='frames'
        ).equals(before.drop(columns='frames'))
    if sheet != 'SMIC-HS-E_annotation.xlsx':
        assert [f['found'] for f in findings(clips, 'other-table')] == [
            'SMIC_HS_E_spotting.xlsx'
        ] or sheet == 'SMIC-HS.xlsx'


def test_a_spotting_sheet_that_was_named_is_an_error(tmp_path):
    folder = tree('smic', tmp_path, subjects=2)
    spotting(folder / 'SMIC_HS_E_spotting.xlsx')
    text = said('smic', tmp_path, annotation='spotting')
    assert 'SMIC_HS_E_spotting.xlsx' in text and 'no column for clip, onset, emotion' in text
    spotting(folder / 'SMIC-HS-E_annotation.xlsx')       # two that are called like the annotation
    assert "To read SMIC-HS-E_annotation.xlsx instead: annotation='SMIC-HS-E_annotation.xlsx'" in said('smic', tmp_path)


# ---- what is known of the datasets

def test_the_list_of_the_benchmark_has_names_that_the_readers_know(real_root):
    "Every one of the 442 published names, EP09f included."
    rows = pd.read_csv(real_root / 'megc2019_flow' / FLOW_LIST, dtype=str)
    from mpfnet.data.sheets import Row
    identify = dict(smic=smic('hs').identify, casme2=SOURCES['casme2'].identify, samm=SOURCES['samm'].identify)
    for r in rows.itertuples():
        entry = identify[r.dataset](
            Row(1,
                dict(subject=r.sub.removeprefix('s') if r.dataset == 'smic' else r.sub, clip=r.filename_o, emotion=''))
        )
        assert (entry.subject, entry.clip) == (r.sub, r.filename_o)


@pytest.mark.parametrize('name', ['EP20f', 'EP09', 'EP02_01f', 'ep9F', 'EP19_03g_2'])
def test_a_clip_of_casme2_may_have_any_second_number_or_none(tmp_path, name):
    folder = tree('casme2', tmp_path, subjects=1)
    before = len(loaded('casme2', tmp_path))
    path = book(folder)
    b = load_workbook(path)
    old = str(b.active.cell(2, 2).value).strip()
    b.active.cell(2, 2).value = name
    path.unlink()
    b.save(path)
    next(folder.rglob(f'{old}')).rename(next(folder.rglob(old)).with_name(name))
    clips = loaded('casme2', tmp_path)
    assert len(clips) == before and 'EP' + name[2:].lower() in set(clips['clip'])


def test_apex_83_of_a_clip_that_begins_at_112_is_a_known_slip(tmp_path):
    clips = load_clips('casme3', tree('casme3', tmp_path).parent, task=None)
    row = clips[(clips['subject'] == 'spNO.149') & (clips['clip'] == 'd_112')].iloc[0]
    assert (row['onset'], row['apex'], row['apex_policy']) == (112, 167, 'given')
    assert [f['done'] for f in findings(clips, 'known-slip') if f['clip'] == 'spNO.149/d_112'] == ['167'] and len(
        clips
    ) == 860


def test_apexes_that_are_offsets_are_noted(tmp_path):
    clips = loaded('casme2', tree('casme2', tmp_path).parent)
    assert {f['clip'] for f in findings(clips, 'apex-at-offset')} == {'sub05/EP16_04f', 'sub12/EP09_06',
                                                                      'sub20/EP16_01', 'sub25/EP18_04f'}


def grey(path, side):
    path.unlink()
    cv2.imwrite(str(path), np.full((side, side, 3), 128, np.uint8))


def test_mmew_comes_as_crops_and_larger_frames_are_told(tmp_path):
    folder = tree('mmew', tmp_path, subjects=2)
    assert clip_folders(folder) and cv2.imread(str(next(clip_folders(folder)[0].iterdir()))).shape == (231, 231, 3)
    clips = loaded('mmew', tmp_path)
    assert (clips['cropped'].all() and clips.report['source']['variant'] == 'cropped'
            and not findings(clips, 'whole-frames'))
    for p in Path(clips['frames'].iloc[0][clips['onset'].iloc[0]]).parent.iterdir(): grey(p, 400)
    clips = loaded('mmew', tmp_path)
    first = f"{clips['subject'].iloc[0]}/{clips['clip'].iloc[0]}"
    assert (clips['cropped'].tolist() == [False] + [True] * (len(clips) - 1)
            and findings(clips, 'whole-frames')[0]['found']
            == f'1 of {len(clips)} clips are larger than 231×231, the first {first}')
    for f, onset in zip(clips['frames'], clips['onset']): grey(Path(f[onset]), 400)
    clips = loaded('mmew', tmp_path)
    assert not clips['cropped'].any() and clips.report['source']['variant'] == 'raw'


def test_other_subjects_are_not_called_other_emotions(tmp_path):
    "A sheet whose subjects are numbered anew: all clips, all emotions, not as many people."
    path = book(tree('mmew', tmp_path))
    b = load_workbook(path)
    for r in range(2, b.active.max_row + 1):
        if b.active.cell(r, 2).value.startswith('S02-'):
            b.active.cell(r, 2).value = b.active.cell(r, 2).value.replace('S02-', 'S01-9')
    path.unlink()
    b.save(path)
    for d in path.parent.rglob('S02-*'): d.rename(d.with_name(d.name.replace('S02-', 'S01-9')))
    clips = loaded('mmew', tmp_path)
    assert clips['subject'].nunique() == 29 and [
        f['decision'] for f in clips.report['findings'] if f['kind'] == 'doubtful'
    ] == ['other-subjects']
    with pytest.raises(DataError, match='29 subjects.*a complete copy: 300 clips, 30 subjects'):
        load_clips('mmew', tmp_path, task=None, strict=True)


@pytest.mark.parametrize('name', ['casme2', 'mmew', 'casme3'])
def test_both_numbers_are_seen_by_who_checks(tmp_path, capsys, name):
    tree(name, tmp_path)
    assert main(['data', 'check', name, '--root', str(tmp_path), '--strict']) == 0
    text = capsys.readouterr().out
    wanted = dict(casme2='CASME II: 247 clips in the paper, 255 in the sheet',
                  mmew='MMEW: 36 subjects in the paper, 30 in the sheet',
                  casme3='CAS(ME)³ A: 100 subjects in the paper, 94 in the sheet')
    assert wanted[name] in text and 'counts as published' in text


# ---- size, and other people's names

def add_rows(path, rows):
    "Copies of the last row at the end of a workbook's first sheet, with other words in some columns, {letter: word}."
    with zipfile.ZipFile(path) as z: parts = {name: z.read(name) for name in z.namelist()}
    path.unlink()
    name = 'xl/worksheets/sheet1.xml'
    head, tail = parts[name].decode().split('</sheetData>')
    at, cells = re.findall(r'<row r="(\d+)">(.*?)</row>', head)[-1]
    cells = re.findall(r'<c r="([A-Z]+)\d+" (.*?)</c>', cells)
    def cell(column, k, said, words):
        if column in words: said = f't="inlineStr"><is><t>{words[column]}</t></is>'
        return f'<c r="{column}{k}" {said}</c>'
    more = (f'<row r="{k}">{"".join(cell(c, k, said, words) for c, said in cells)}</row>'
            for k, words in enumerate(rows, int(at) + 1))
    parts[name] = f'{head}{"".join(more)}</sheetData>{tail}'.encode()
    with zipfile.ZipFile(path, 'w') as z:
        for name, data in parts.items(): z.writestr(name, data)


@pytest.mark.parametrize('name', ['smic', 'casme2', 'casme3'])
def test_twenty_thousand_rows_more_take_seconds(tmp_path, name):
    path = book(tree(name, tmp_path, subjects=1))
    words = dict(smic='s1_ne_{}', casme2='EP77_{}', casme3='d').get(name)
    add_rows(path, (dict(B=words.format(k)) | (dict(C=k) if name == 'casme3' else {}) for k in range(1000, 21000)))
    start = time.process_time()
    clips = loaded(name, tmp_path)
    assert (time.process_time() - start < 25
            and sum(f['kind'] == 'dropped' for f in clips.report['findings']) >= 20_000 and len(clips))


def test_a_subject_that_is_a_path_writes_nothing_outside(tmp_path, synth_root):
    shutil.copytree(synth_root, tmp_path / 'data')
    path = tmp_path / 'data' / 'synth' / 'annotation.csv'
    good = path.read_text()
    for bad in ('../../../out', 'a\\b', '..'):
        path.write_text(good.replace('sub01,', f'{bad},', 1))
        with pytest.raises(ValueError, match='cannot be part of a file name'):
            run(dataset='synth', method='majority', data_root=str(tmp_path / 'data'), out_dir=str(tmp_path / 'runs'))
    assert not list(tmp_path.glob('**/*out*.json'))


def test_formulas_in_names_stay_text(tmp_path):
    """A subject called like a formula: trained, compared and read again under its name, and no cell of a CSV file that
    Excel would compute."""
    root = write_flow_release(tmp_path / 'data')
    path = root / 'megc2019_flow' / FLOW_LIST
    path.write_text(
        path.read_text().replace('smic,sm00,', 'smic,=HYPERLINK(1),').replace('=HYPERLINK(1),000', "=HYPERLINK(1),'000")
    )
    for p in (root / 'megc2019_flow').rglob('sm00_* .png'):
        p.rename(p.with_name(p.name.replace('sm00_', '=HYPERLINK(1)_').replace('_000', "_'000")))
    folder = run(dataset='megc2019_flow', method='majority', data_root=str(root), out_dir=str(tmp_path / 'runs'))
    cells = [c for row in csv.reader((folder / 'predictions.csv').open(encoding='utf-8')) for c in row]
    assert "'=HYPERLINK(1)" in cells and "''000" in cells and not any(c.startswith(('=', '+', '@')) for c in cells)
    back = read_predictions(folder / 'predictions.csv')
    assert {('=HYPERLINK(1)', "'000")} <= set(zip(back['subject'], back['clip'])) and json.loads(
        (folder / 'folds' / 'smic__=HYPERLINK(1).json').read_text()
    )['subject'] == '=HYPERLINK(1)'


def test_names_that_end_in_a_size_are_told(tmp_path):
    folder = tree('casme2', tmp_path, subjects=1)
    for p in folder.rglob('img*.jpg'): p.rename(p.with_name(f'{p.stem}_224x224.jpg'))
    assert '_224x224.jpg: expected names that end in the number of the frame' in said('casme2', tmp_path)
