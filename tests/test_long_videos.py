"""Long recordings of the licensed datasets, on look-alikes: every published count is read back, every planted defect is
told, and whatever else is wrong with a copy ends in a sentence and leaves the other recordings alone."""
import os
import shutil
import warnings
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from openpyxl import load_workbook

from mpfnet.core.files import hash_of
from mpfnet.data.defects import DECISIONS, against, keep_table, report_table
from mpfnet.data.long_videos import LONG, load_recordings, long_folder, long_images, read_long
from mpfnet.data.readers import DataError
from mpfnet.synthetic.long_lookalike import LONG_BOOKS, LONG_DEFECTS, long_truth, make_long_lookalike
from mpfnet.synthetic.recordings import LongConfig, drawn_images
from mpfnet.video.spotting import RecordingRow

BY = ['subject', 'video', 'kind', 'onset', 'apex', 'offset']


def as_rows(table): return sorted(map(str, table.astype(dict(apex='Int64'))[BY].astype(str).to_numpy().tolist()))


@pytest.mark.parametrize('name', LONG)
def test_the_published_counts_and_every_interval_are_read_back(name, tmp_path):
    folder = make_long_lookalike(name, tmp_path, progress=False)
    facts, (found, report) = LONG[name], read_long(name, folder)
    assert len(found.recordings) == facts.recordings
    assert found.truth['kind'].value_counts().to_dict() == dict(micro=facts.micro, macro=facts.macro)
    made = long_truth(folder)
    assert as_rows(found.truth) == as_rows(pd.DataFrame(made['intervals']))
    rows = pd.DataFrame(made['recordings'])[['subject', 'video', 'frames', 'folder']]
    assert sorted(map(tuple, rows.to_numpy())) == sorted(map(tuple, found.recordings[[*rows]].to_numpy()))
    assert found.stamp.startswith('LOOK-ALIKE') and (found.recordings['fps'] == facts.fps).all()
    assert found.recordings['minutes'].sum() == pytest.approx(rows['frames'].sum()/facts.fps/60)
    told = report_table(report)
    assert not (told['kind'] == 'dropped').any() and not (told['decision'] == 'partial-copy').any()
    planted = pd.Series([i['defect'] for i in made['intervals']]).value_counts()
    assert {k: planted.get(k, 0) for k in LONG_DEFECTS[name]} == {k: d.n for k, d in LONG_DEFECTS[name].items()}
    said = {
        'began before the recording': 'begins-before', 'offset after the end': 'ends-after',
        'apex outside': 'apex-left-out', 'frames missing': 'frames-lacking', 'offset 0': 'offset-is-apex',
        'micro of seconds': 'long-micro', 'shared frames': 'shared-frames'}
    for defect, d in LONG_DEFECTS[name].items():
        if defect in said: assert (told['decision'] == said[defect]).sum() == d.n, defect
    gone = {(i['subject'], i['video']) for i in made['intervals']}
    calm = sum((r.subject, r.video) not in gone for r in found.recordings.itertuples())
    assert told.set_index('decision').loc['no-expression', 'found'] == f'{calm} recordings'


@pytest.mark.parametrize('name, variant', [(n, v) for n, b in LONG_BOOKS.items() for v in [*b][1:]])
def test_other_forms_of_the_sheet_give_the_same(name, variant, tmp_path):
    usual, other = (read_long(name, make_long_lookalike(name, tmp_path/str(v), subjects=2, variant=v, progress=False))
                    for v in (None, variant))
    assert as_rows(usual[0].truth) == as_rows(other[0].truth) and variant not in usual[1]['source']['annotation']


def test_the_same_seed_makes_the_same_tree_and_another_one_another(tmp_path):
    def tree(sub, **more):
        folder = make_long_lookalike('casme_sq_long', tmp_path/sub, **dict(subjects=2, progress=False) | more)
        return {p.relative_to(folder).as_posix(): hash_of(p.read_bytes().hex()) for p in folder.rglob('*.*')
                if p.is_file() and p.suffix != '.json'}
    assert tree('a') == tree('b') != tree('c', seed=1)
    with pytest.raises(ValueError, match='was made with other parameters'): tree('a', seed=2)
    for wrong, words in ((dict(subjects=0), '1 to 22'), (dict(drawn=99), '0 to 20'), (dict(variant='v9'), 'v9')):
        with pytest.raises(ValueError, match=words): tree('d', **wrong)
    with pytest.raises(ValueError, match='casme3_long, casme_sq_long, samm_lv'): make_long_lookalike('samm', tmp_path)


# ---- broken inputs: one fault a copy

COLUMN = dict(samm_lv=dict(clip=2, onset=4, apex=5, offset=6, kind=8),
              casme_sq_long=dict(clip=2, onset=3, apex=4, offset=5, kind=8),
              casme3_long=dict(subject=1, clip=2, onset=3, apex=4, offset=5, kind=7))
TOP = dict(samm_lv=11, casme_sq_long=1, casme3_long=2)   # the first row of an expression


def linked(old, new):
    try: os.link(old, new)
    except OSError: shutil.copyfile(old, new)     # a file may have that many names and no more


def copied(source, folder): return shutil.copytree(source, folder, copy_function=linked)


class Spoilt:
    "A copy of a small tree, one of its recordings, and an expression in the middle of the sheet."
    def __init__(self, name, tree, folder):
        source, self.whole, self.before = tree
        copied(source, folder)
        self.name, self.folder, self.at = name, folder, COLUMN[name]
        self.row = next(n for n in range(TOP[name] + 2, 60) if self._steady(n))
        t = self.whole.truth[self.whole.truth['row'] == self.row].iloc[0]
        self.video, self.kind = (t['subject'], t['video']), t['kind']
        rows = self.whole.recordings
        mine = (rows['subject'] == t['subject']) & (rows['video'] == t['video'])
        self.place = self.folder/rows[mine]['folder'].iloc[0]

    def _steady(self, n):
        "A row without a neighbour that shares its frames, in a recording of several expressions."
        t = self.whole.truth
        mine = t[t['row'] == n]
        if not len(mine) or pd.isna(mine['apex'].iloc[0]): return False
        same = t[(t['subject'] == mine['subject'].iloc[0]) & (t['video'] == mine['video'].iloc[0])]
        return len(same) > 2 and same['offset'].max() > mine['offset'].iloc[0] and mine['onset'].iloc[0] > 0

    @property
    def book(self): return next(p for p in self.folder.rglob('*.xlsx'))

    def sheet(self, change):
        "Write the sheet anew with something changed."
        path = self.book
        book = load_workbook(path)
        change(book[book.sheetnames[0]], self.row)
        path.unlink()
        book.save(path)

    def cell(self, column, value): self.sheet(lambda s, n: s.cell(n, self.at[column], value))
    def value(self, column): return load_workbook(self.book).worksheets[0].cell(self.row, self.at[column]).value
    def frames(self): return sorted(p for p in self.place.iterdir())
    def unlinked(self, path, data):
        "Write a file that was a link to another."
        path.unlink(missing_ok=True)
        path.write_bytes(data)


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    "name → its folder, what is read from it, and the report."
    root = tmp_path_factory.mktemp('long')
    folders = {n: make_long_lookalike(n, root, subjects=1, defects=False, progress=False) for n in LONG}
    return {n: (f, *read_long(n, f)) for n, f in folders.items()}


def no_sheet(s): s.book.unlink()
def empty_sheet(s): s.unlinked(s.book, b'')
def web_page(s): s.unlinked(s.book, b'<html><body>Sign in</body></html>')
def wrong_column(s):
    if s.name == 'casme_sq_long': # it has no header, but two sheets of rules
        path, book = s.book, load_workbook(s.book)
        book['naming rule2'].title = 'rules'
        path.unlink()
        return book.save(path)
    s.sheet(lambda sheet, n: sheet.cell(TOP[s.name] - 1, s.at['onset'], 'Begin'))
def no_recordings(s):
    for p in sorted(s.folder.rglob('*.jpg')): p.unlink()

def no_row_fits(s):
    def change(sheet, n):
        for k in range(TOP[s.name], sheet.max_row + 1): sheet.cell(k, s.at['kind'], 'blink')
    s.sheet(change)


#: what must be said by an error
REFUSED = {no_sheet: 'no annotation file like', empty_sheet: 'it is empty', web_page: 'saved web page',
           wrong_column: 'naming rule2|no column for onset', no_recordings: 'no frame in any of',
           no_row_fits: r'no row of the sheet is an interval of a recording:\n  - .*unknown-kind'}


@pytest.mark.parametrize('name', LONG)
@pytest.mark.parametrize('spoil', REFUSED, ids=lambda f: f.__name__)
def test_what_cannot_be_read_at_all_is_an_error_in_words(spoil, name, trees, tmp_path):
    s = Spoilt(name, trees[name], tmp_path/name)
    spoil(s)
    with pytest.raises(DataError, match=REFUSED[spoil]) as said: load_recordings(name, tmp_path)
    assert name in str(said.value) and 'Traceback' not in str(said.value)


def onset_after_offset(s): s.cell('onset', int(s.value('offset')) + 5)
def letters_for_numbers(s): s.cell('onset', 'soon')
def letters_for_the_end(s): s.cell('offset', '12?')
def empty_onset(s): s.cell('onset', ' ')
def below_zero(s): s.cell('onset', -4)
def a_fraction(s): s.cell('offset', 12.5)
def unknown_type(s): s.cell('kind', 'blink')
def both_types(s): s.cell('kind', 'micro or macro')
def name_that_leads_out(s): s.cell('clip', '../../etc/passwd')
def after_the_end(s):
    s.sheet(lambda sheet, n: [sheet.cell(n, s.at[c], v) for c, v in
                              dict(onset=99001, apex=99005, offset=99009).items()])
def no_folder(s): shutil.rmtree(s.place)
def empty_folder(s):
    for p in s.frames(): p.unlink()
def a_link_that_leads_out(s):
    target = s.folder.parent/'elsewhere'
    shutil.move(s.place, target)
    s.place.symlink_to(target)


#: (decision, whether the whole recording is gone)
DROPPED = {onset_after_offset: ('onset-after-offset', False), letters_for_numbers: ('bad-row', False),
           letters_for_the_end: ('bad-row', False), empty_onset: ('bad-row', False), below_zero: ('bad-row', False),
           a_fraction: ('bad-row', False), unknown_type: ('unknown-kind', False), both_types: ('unknown-kind', False),
           name_that_leads_out: ('bad-name', False), after_the_end: ('not-filmed', False),
           no_folder: ('no-folder', True), empty_folder: ('no-frame-at-all', True),
           a_link_that_leads_out: ('no-folder', True)}


@pytest.mark.parametrize('name', LONG)
@pytest.mark.parametrize('spoil', DROPPED, ids=lambda f: f.__name__)
def test_what_is_lost_is_told_and_nothing_else_is_lost(spoil, name, trees, tmp_path):
    s = Spoilt(name, trees[name], tmp_path/name)
    spoil(s)
    decision, all_of_it = DROPPED[spoil]
    found, report = read_long(name, s.folder)
    told = report_table(report)
    of = told[told['decision'] == decision]
    assert s.row in of['row'].tolist(), told[['decision', 'row', 'found']]
    before = s.whole.truth
    if not all_of_it: kept = before[before['row'] != s.row]
    else: kept = before[(before['subject'] != s.video[0]) | (before['video'] != s.video[1])]
    assert as_rows(found.truth) == as_rows(kept)
    assert len(found.recordings) == len(s.whole.recordings) - all_of_it
    assert decision in '; '.join(against(report))
    if name != 'casme_sq_long': return
    with pytest.warns(UserWarning, match=r'\d dropped'): load_recordings(name, tmp_path)
    with pytest.raises(DataError, match=decision): load_recordings(name, tmp_path, strict=True)


def doubled_row(s):
    def change(sheet, n):
        for c in range(1, sheet.max_column + 1): sheet.cell(sheet.max_row + (c == 1), c, sheet.cell(n, c).value)
    s.sheet(change)
def a_remark(s): s.sheet(lambda sheet, n: sheet.cell(sheet.max_row + 1, 1, 'checked twice'))
def a_copied_frame(s):
    first = s.frames()[3]
    shutil.copy(first, first.with_name(f'{first.stem} (1){first.suffix}'))
def a_number_far_away(s):
    first = s.frames()[0]
    shutil.copy(first, first.with_name(f'{first.stem[:-1]}99998{first.suffix}'))
def a_lost_frame(s): s.frames()[4].unlink()
def a_calm_recording(s): # beside the others, without a row
    shutil.copytree(s.place, s.place.with_name(s.place.name[:-1] + '9') if s.name == 'samm_lv' else
                    s.place.with_name('15_0999more') if s.name == 'casme_sq_long' else s.place.parents[1]/'z'/'color')
def a_cropped_copy(s):
    top = s.folder/s.whole.recordings['folder'][0].split('/')[0]
    shutil.copytree(top, s.folder/f'{top.name}_cropped', copy_function=linked)


#: (decision, recordings that are more)
TOLD = {doubled_row: ('repeated-row', 0), a_remark: ('remark', 0), a_copied_frame: ('same-number', 0),
        a_number_far_away: ('far-numbers', 0), a_lost_frame: ('frames-lacking', 0),
        a_calm_recording: ('no-expression', 1), a_cropped_copy: ('choice', 0)}


@pytest.mark.parametrize('name', LONG)
@pytest.mark.parametrize('spoil', TOLD, ids=lambda f: f.__name__)
def test_what_is_odd_is_told_and_changes_nothing_else(spoil, name, trees, tmp_path):
    s = Spoilt(name, trees[name], tmp_path/name)
    before = report_table(s.before)
    spoil(s)
    found, report = read_long(name, s.folder)
    decision, more = TOLD[spoil]
    new = report_table(report)
    def cases(t): return t[t['decision'] == decision][['row', 'clip', 'found']].to_numpy().tolist()
    assert str(cases(new)) != str(cases(before)) and (new['decision'] == decision).any()
    assert as_rows(found.truth) == as_rows(s.whole.truth)
    assert len(found.recordings) == len(s.whole.recordings) + more
    assert found.recordings['frames'].sum() == s.whole.recordings['frames'].sum() + more*len(s.frames())


@pytest.mark.parametrize('name', LONG)
def test_an_interval_is_mended_or_kept_as_the_sheet_has_it(name, trees, tmp_path):
    s = Spoilt(name, trees[name], tmp_path/name)
    t = s.whole.truth.set_index('row').loc[s.row]
    def now():
        found, report = read_long(name, s.folder)
        told = report_table(report)
        return found.truth.set_index('row').loc[s.row], told[told['row'] == s.row]['decision'].tolist()
    s.cell('offset', 0)
    mended, told = now()
    assert (mended['offset'], told) == (t['apex'], ['offset-is-apex'])
    s.cell('offset', 9000)
    mended, told = now()
    assert 'ends-after' in told and mended['offset'] == len(s.frames()) - 1
    s.cell('apex', 9500)
    assert now()[1][0] == 'apex-left-out' or 'apex-left-out' in now()[1]
    s.cell('onset', 0)
    mended, told = now()
    assert mended['onset'] == 0 and 'begins-before' in told and pd.isna(mended['apex'])


def test_every_picture_is_shown_once_in_time_and_damaged_ones_are_told(trees, tmp_path):
    s = Spoilt('casme3_long', trees['casme3_long'], tmp_path/'casme3_long')
    for k, p in enumerate(s.frames()): s.unlinked(p, cv2.imencode('.png', np.full((4, 4, 3), k, np.uint8))[1].tobytes())
    by_number = sorted(s.frames(), key=lambda p: int(p.stem))
    s.unlinked(by_number[0], b'')
    s.unlinked(by_number[5], b'no picture')
    by_number[8].unlink()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = load_recordings('casme3_long', tmp_path)
    row = next(r for r in found.recordings.itertuples() if (r.subject, r.video) == s.video)
    with pytest.warns(UserWarning, match='3 frames missing or damaged, the first 1'): images = [*found.images(row)]
    assert len(images) == row.frames and all(i.shape == (4, 4, 3) and i.dtype == np.uint8 for i in images)
    level = [int(i.mean()) for i in images]
    assert level[0] == level[1] and level[5] == level[4] and level[8] == level[7] != level[9]
    with pytest.raises(ValueError, match='a folder inside'):
        next(found.images(row._replace(folder='../../elsewhere')))
    for p in s.frames(): s.unlinked(p, b'nothing')
    with pytest.raises(DataError, match='none of its frames'): next(found.images(row))


def test_the_folder_is_found_and_said(trees, tmp_path, monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    with pytest.raises(DataError, match='set MPFNET_DATA|Set MPFNET_DATA'): long_folder('samm_lv')
    missing = 'casme3_long or .*casme3, which does not exist'
    with pytest.raises(DataError, match=missing): long_folder('casme3_long', tmp_path)
    copied(trees['casme_sq_long'][0], tmp_path/'casme_sq')
    assert long_folder('casme_sq_long', tmp_path) == tmp_path/'casme_sq'       # where the clips are read
    monkeypatch.setenv('MPFNET_DATA', str(tmp_path))
    with pytest.warns(UserWarning, match='partial-copy'): found = load_recordings('casme_sq_long')
    assert found.name == 'casme_sq_long'
    assert all(d in DECISIONS for d, _ in [*DROPPED.values(), *TOLD.values()])


def test_only_one_kind_in_the_sheet_is_told(trees, tmp_path):
    "Macro-expressions that nobody coded would count as false alarms."
    folder = make_long_lookalike('casme3_long', tmp_path, subjects=1, variant='by_kind', progress=False)
    next(Path(folder).rglob('*MaE*.xlsx')).unlink()
    found, report = read_long('casme3_long', folder)
    assert set(found.truth['kind']) == {'micro'}
    assert ('no-part', 'macro') in {(f['decision'], f['found']) for f in report['findings']}


def test_spotting_runs_on_a_licensed_dataset_and_stops_at_a_wrong_request(tmp_path, monkeypatch):
    from mpfnet.video.spotters import SPOTTERS, Spotter
    from mpfnet.video.spotting import run_spotting, spot_report

    def measure(images, fps): return dict(n=np.array([i.mean() for i in images()]))
    def mark(signal, fps, state): return pd.DataFrame(dict(kind='macro', onset=[2], apex=[3], offset=[22], score=1.))
    monkeypatch.setitem(SPOTTERS, 'same', Spotter(name='same', about='', measure=measure, mark=mark))
    make_long_lookalike('casme_sq_long', tmp_path, subjects=2, progress=False)
    asked = dict(data_root=tmp_path, out_dir=tmp_path/'runs', progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        folder = run_spotting('casme_sq_long', 'same', **asked)
        assert run_spotting('casme_sq_long', 'same', **asked) == folder
        report = spot_report(folder)
        for words, wrong in (('one of annotation, fps', dict(data_options='seconds=30')),
                             ('with .v9. in its name', dict(data_options='annotation=v9')),
                             ('people|s15', dict(subjects='s99')), ('looked for', dict(data_root=tmp_path/'no'))):
            with pytest.raises(ValueError, match=words): run_spotting('casme_sq_long', 'same', **asked | wrong)
    assert report.stamp.startswith('LOOK-ALIKE') and len(report.truth) == 36 + 7
    assert report.table['hits'].sum() > 0 and folder.name.startswith('casme_sq_long-spot-same-')


# ---- recordings that are video files

@pytest.fixture(scope='module')
def filmed(tmp_path_factory):
    "name → the same recordings as those of `trees`, each a video file."
    root = tmp_path_factory.mktemp('films')
    return {n: make_long_lookalike(n, root, subjects=1, defects=False, films=True, progress=False) for n in LONG}


@pytest.mark.parametrize('name', LONG)
def test_films_give_the_truth_of_folders(name, trees, filmed):
    found, report = read_long(name, filmed[name])
    _, whole, before = trees[name]
    assert found.truth.equals(whole.truth)
    rest = [c for c in whole.recordings if c != 'folder']
    assert found.recordings[rest].equals(whole.recordings[rest])
    assert [f['decision'] for f in report['findings']] == [f['decision'] for f in before['findings']]
    row = next(found.recordings.itertuples())
    assert row.folder.endswith('.avi') and sum(1 for _ in found.images(row)) == row.frames


def test_a_film_gives_nearly_the_signal_of_its_folder(tmp_path):
    "Differences stay below what a spotter calls a movement; they come from how pictures are coded."
    from mpfnet.synthetic.films import write_film
    from mpfnet.video.spot import FACE_PLACES, SpotConfig
    from mpfnet.video.spotters import roi_measure
    few = LongConfig(subjects=1, each=1, seconds=6, seed=3)
    images = [*islice(drawn_images(few, RecordingRow(subject='s01', video='v1')), 36, 96)]
    (tmp_path/'folder').mkdir()
    for k, image in enumerate(images): cv2.imwrite(str(tmp_path/f'folder/img{k + 1:03}.jpg'), image)
    write_film(tmp_path/'film.avi', images, fps=30)
    one, other = (roi_measure(partial(long_images, tmp_path, RecordingRow(
        subject='s', video='v', folder=name, first=1, frames=60)), 30) for name in ('folder', 'film.avi'))
    assert np.array_equal(one['frame'], other['frame']) and np.array_equal(one['face'], other['face'])
    places = [f'{p}_{a}' for p in FACE_PLACES for a in 'xy']
    one, other = (np.nan_to_num(np.stack([s[p] for p in places])) for s in (one, other))    # (24, T) px
    assert 0 < np.quantile(np.abs(one - other), .99) < SpotConfig().floor < .5*np.abs(one).max()
    k = np.abs(one).max(1).argmax()
    assert np.corrcoef(one[k], other[k])[0, 1] > .98


def empty_film(path): path.write_bytes(b'')
def text_film(path): path.write_bytes(b'<html>Sign in</html>'*20)
def only_the_head(path): path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize('spoil', [empty_film, text_film, only_the_head], ids=lambda f: f.__name__)
def test_a_broken_film_is_told_as_a_missing_folder_is(spoil, filmed, tmp_path):
    folder = shutil.copytree(filmed['casme_sq_long'], tmp_path/'casme_sq_long')
    before, _ = read_long('casme_sq_long', folder)
    row = next(r for r in before.recordings.itertuples() if r.video in set(before.truth['video']))
    spoil(folder/row.folder)
    found, report = read_long('casme_sq_long', folder)
    assert as_rows(found.truth) == as_rows(before.truth[before.truth['video'] != row.video])
    assert row.video not in set(found.recordings['video']) and len(found.recordings) == len(before.recordings) - 1
    told = report_table(report).set_index('decision')
    assert (folder/row.folder).name in told.loc['video-damaged', 'found']
    assert (told.loc[['no-frame-at-all'], 'row'].notna()).all() and 'video-damaged' in '; '.join(against(report))
    with pytest.raises(DataError, match='frames; '): [*before.images(row)]


def test_a_film_that_was_cut_off_or_made_anew_is_doubted(filmed, tmp_path):
    "What is left of it is used; what the sheet says of the rest is dropped, row by row."
    from mpfnet.synthetic.films import write_film
    folder = shutil.copytree(filmed['casme_sq_long'], tmp_path/'casme_sq_long')
    before, _ = read_long('casme_sq_long', folder)
    t = before.truth.groupby('video')['onset'].max()
    video, last = t.idxmax(), int(t.max())
    row = next(r for r in before.recordings.itertuples() if r.video == video)
    data = (folder/row.folder).read_bytes()
    (folder/row.folder).write_bytes(data[:int(len(data)*.5)])
    with pytest.raises(DataError, match=f'{row.frames} when it was looked at first'): [*before.images(row)]
    found, report = read_long('casme_sq_long', folder)
    left = found.recordings.set_index('video').loc[video, 'frames']
    told = report_table(report).set_index('decision')
    assert 0 < left < last and {'film-cut-off', 'not-filmed'} <= {*told.index}
    lost = before.truth[(before.truth['video'] == video) & (before.truth['onset'] >= left)]
    assert sorted(told.loc[['not-filmed'], 'row']) == sorted(lost['row'])

    write_film(folder/row.folder, [np.full((48, 64, 3), 90, np.uint8)]*row.frames, fps=25)
    found, report = read_long('casme_sq_long', folder)
    assert found.recordings.set_index('video').loc[video, 'fps'] == 25.
    assert as_rows(found.truth) == as_rows(before.truth)
    assert ('film-rate', '25, published 30') in {(f['decision'], f['found']) for f in report['findings']}
    found, report = read_long('casme_sq_long', folder, fps=30)         # who knows that only the tag is wrong
    assert (found.recordings['fps'] == 30).all() and 'film-rate' not in report_table(report)['decision'].tolist()
    with pytest.raises(ValueError, match='frames a second'): read_long('casme_sq_long', folder, fps=0)


def test_of_a_folder_and_a_film_the_pictures_are_read(trees, filmed, tmp_path):
    folder = copied(trees['casme_sq_long'][0], tmp_path/'casme_sq_long')
    copied(filmed['casme_sq_long']/'rawpic', folder/'rawvideo')
    row = next(trees['casme_sq_long'][1].recordings.itertuples())
    shutil.copy(filmed['casme_sq_long']/f'{row.folder}.avi', folder/f'{row.folder}.avi')
    found, report = read_long('casme_sq_long', folder)
    assert found.recordings['folder'].tolist() == trees['casme_sq_long'][1].recordings['folder'].tolist()
    assert {f['found'] for f in report['findings'] if f['decision'] == 'choice'} == {'rawvideo', f'{row.folder}.avi'}


def test_odd_names_of_films_lose_nothing(filmed, tmp_path):
    "A name that is not UTF-8 (OpenCV would end the process), a copy or an empty folder beside the film, a link."
    folder = shutil.copytree(filmed['casme_sq_long'], tmp_path/'casme_sq_long')
    before, _ = read_long('casme_sq_long', folder)
    spelt, doubled, emptied = (folder/f for f in before.recordings['folder'][:3])
    os.rename(spelt, os.fsencode(spelt.with_suffix('')) + b'\xff.avi')
    shutil.copy(doubled, doubled.with_name(f'{doubled.stem} (1).avi'))
    emptied.with_suffix('').mkdir()
    (folder/'store').mkdir()
    (folder/'rawpic/s15').rename(folder/'store/person')              # what lies there is found by the link alone
    (folder/'rawpic/s15').symlink_to('../store/person')
    found, report = read_long('casme_sq_long', folder)
    assert as_rows(found.truth.assign(video='')) == as_rows(before.truth.assign(video=''))
    assert set(before.recordings['video'][1:]) < set(found.recordings['video'])
    assert {f['done'] for f in report['findings'] if f['decision'] == 'choice'} == {
        f'read {doubled.name}', f'read {emptied.name}'}
    assert all(sum(1 for _ in found.images(r)) == r.frames for r in found.recordings.itertuples())
    assert hash_of(found.recordings.to_dict('list')) != hash_of(before.recordings.to_dict('list'))
    keep_table(found.recordings, tmp_path/'recordings.csv')
    assert (tmp_path/'recordings.csv').read_text(encoding='utf-8').count('\\udcff') == 2


def test_a_film_whose_times_jump_is_refused_and_not_filled_up(filmed, tmp_path):
    from mpfnet.synthetic.films import set_times, write_film
    folder = shutil.copytree(filmed['casme_sq_long'], tmp_path/'casme_sq_long')
    film = next(folder.rglob('*.avi'))
    write_film(film.with_suffix('.mp4'), [np.full((48, 64, 3), k, np.uint8) for k in range(60)], fps=30)
    set_times(film.with_suffix('.mp4'), [k/30 + 3000*(k > 40) for k in range(60)])
    film.unlink()
    found, report = read_long('casme_sq_long', folder)
    assert film.stem not in set(found.recordings['video'])
    assert 'frames are missing at one place' in report_table(report).set_index('decision').loc['video-damaged', 'found']


def test_the_commands_for_data_know_long_recordings(tmp_path, capsys):
    from mpfnet.cli import main
    def said(*words): return main([*map(str, words)]), *capsys.readouterr()
    status, out, _ = said('data', 'lookalike', 'casme_sq_long', tmp_path, '--blank', '--films', '--subjects', 1)
    assert status == 0 and '6 recordings, 0 of them drawn' in out and 'without --blank' in out
    ask = 'data', 'check', 'casme_sq_long', '--root', tmp_path
    status, out, err = said(*ask, '--deep')
    assert status == 1 and 'partial-copy' in out and 'video-damaged' not in out and 'made up' in out
    next(tmp_path.rglob('*.avi')).write_bytes(b'')
    status, out, _ = said(*ask)
    assert status == 1 and 'is empty (0 bytes)' in out
    assert 'video-damaged' in said(*ask, '--strict')[2]
    for wrong in (('check', 'samm_lv', '--task', '3class'), ('lookalike', 'samm_lv', tmp_path, '--scale', '.5'),
                  ('lookalike', 'samm', tmp_path, '--films'), ('lookalike', 'samm_lv', tmp_path, '--full'),
                  ('lookalike', 'atnet_flow', tmp_path, '--films'), ('check', 'samm_lv', '--modality', 'vis')):
        assert said('data', *wrong)[0] == 2
