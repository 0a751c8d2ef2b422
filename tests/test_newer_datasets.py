"""DFME, CAS(ME)³ C, CASME and 4DME: whole look-alikes, sheets as people leave them, and broken copies."""
import contextlib
import copy
import json
import os
import re
import shutil
import time
import warnings
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from test_sheets import EDITS, FRAMES, VALUES, Tree, could_be_right, header_spelling

from mpfnet.cli import main, show_result
from mpfnet.clips import LICENSED, load_clips
from mpfnet.data.defects import DECISIONS
from mpfnet.data.frames import frame_number
from mpfnet.data.labels import DATASETS, DFME_PARTS, label_of
from mpfnet.data.readers import DataError
from mpfnet.data.splits import Official
from mpfnet.loso import run
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike

NEWER = LICENSED[6:]


def quiet(dataset, root, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_clips(dataset, root, **dict(task=None) | options)


def decisions(clips): return Counter(f['decision'] for f in clips.report['findings'])


# ---- DFME as a whole

@pytest.fixture(scope='module')
def dfme(tmp_path_factory):
    "Data root with all 2,629 clips of DFME, blank, and the seconds of work that reading them took."
    root = tmp_path_factory.mktemp('whole')
    make_lookalike('dfme', root, blank=True, progress=False)
    start = time.process_time()
    clips = load_clips('dfme', root, task=None, strict=True)
    yield root, clips, time.process_time() - start
    shutil.rmtree(root)


def test_all_of_dfme_is_read_in_seconds(dfme):
    root, clips, seconds = dfme
    assert seconds < 10 and len(clips) == 2629 and clips['subject'].nunique() == 259 and not clips.report['findings']
    assert clips['frames'].map(len).sum() > 200_000


def test_every_published_count_of_dfme(dfme):
    _, clips, _ = dfme
    assert Counter(clips['emotion']) == DATASETS['dfme'].emotions
    for part, (people, emotions, rates) in DFME_PARTS.items():
        own = clips[clips['part'] == part]
        assert own['subject'].nunique() == people and Counter(own['fps']) == rates
        assert [Counter(own['emotion'])[e] for e in DATASETS['dfme'].emotions] == [*emotions]
    assert Counter(clips.loc[clips['onset'] == 0, 'part']) == {'train': 883, 'test A': 240, 'test B': 117}
    assert (clips.groupby('subject')['fps'].nunique() == 1).all() and set(clips['apex_policy']) == {'given'}
    assert clips.report['source']['fps'] == {200: 831, 300: 805, 500: 993}


def test_the_official_split_of_dfme_trains_on_one_part_and_tests_on_two(dfme):
    _, clips, _ = dfme
    (train, test), = Official().split(clips)
    assert (set(clips['part'].iloc[train]), set(clips['part'].iloc[test])) == ({'train'}, {'test A', 'test B'})
    assert (len(train), len(test)) == (1856, 773) and len(Official().folds(clips)) == 1


def test_dfme_in_seven_classes_and_in_three_is_checked(dfme, capsys):
    root, clips, _ = dfme
    assert Counter(map(label_of, clips['emotion'])) == {0: 1871, 1: 311, 2: 447}
    assert main(['data', 'check', 'dfme', '--task', '7class', '--strict', '--root', str(root)]) == 0
    text = capsys.readouterr().out
    assert '7526 clips in the paper, 2629 in the sheet' in text and '200: 831 clips, 300: 805 clips' in text
    assert 'counts as published' in text.splitlines()[-1]


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "Data root with one person of each part of DFME, drawn small."
    root = tmp_path_factory.mktemp('faces')
    make_lookalike('dfme', root, subjects=3, size=24, progress=False)
    return root


def scores_of(root, out, **asked):
    given = dict(dataset='dfme', data_root=str(root), out_dir=str(out), device='cpu', progress=False)
    folder = run(**given | asked)
    return json.loads((folder / 'metrics.json').read_text()), folder


@pytest.mark.filterwarnings('ignore:.*partial-copy')
def test_a_network_learns_one_part_and_is_scored_on_both_tests(faces, tmp_path, capsys):
    "From drawn frames of three rates to what the command prints."
    cheap = 'preprocess.size=16,encoder.width=0.125,pltn.epochs=1,plsm.epochs=1,meta.updates=2'
    scores, folder = scores_of(faces, tmp_path, task='7class', split='official', method='mpfnet_p', preset='tiny',
                               overrides=cheap)
    assert [*scores['per_part']] == ['test A', 'test B'] and scores['folds'] == dict(done=1, of=1)
    assert scores['pooled']['n'] == sum(p['n'] for p in scores['per_part'].values())
    assert [p.name for p in (folder / 'folds').iterdir()] == ['split=official__test.json']
    show_result(folder)
    printed = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in printed if row[:1] == ['test']] == [['test', 'A'], ['test', 'B']]


@pytest.mark.filterwarnings('ignore:.*partial-copy')
def test_a_person_of_dfme_is_left_out(faces, tmp_path):
    person = lookalike_truth(faces / 'dfme')[0]['subject']
    scores, _ = scores_of(faces, tmp_path, method='pca_lda', subjects=f'dfme/{person}', overrides='preprocess.size=16')
    assert scores['folds'] == dict(done=1, of=3)


@pytest.mark.filterwarnings('ignore:.*partial-copy')
@pytest.mark.parametrize('name', ['casme3_c', '4dme'])
def test_a_run_from_folder_to_metrics(tmp_path, name):
    make_lookalike(name, tmp_path / 'data', subjects=3, size=32, progress=False)
    folder = run(dataset=name, method='pca_lda', data_root=str(tmp_path / 'data'), out_dir=str(tmp_path / 'runs'),
                 overrides='preprocess.size=16', progress=False)
    assert json.loads((folder / 'metrics.json').read_text())['folds'] == dict(done=3, of=3)
    assert 'LOOK-ALIKE' in json.loads((folder / 'config.json').read_text())['data']['stamp']


# ---- what is said of them

@pytest.mark.parametrize('name', ['casme', '4dme'])
def test_a_reader_that_never_saw_a_sheet_says_so(tmp_path, name):
    make_lookalike(name, tmp_path, subjects=3, blank=True, progress=False)
    found = [f['found'] for f in quiet(name, tmp_path).report['findings'] if f['decision'] == 'unsure']
    assert len(found) == 1 and found[0].startswith('no sheet was seen')


def test_counts_that_are_only_known_from_memory_are_not_enforced(tmp_path):
    "One word of a complete copy is another: told, and no doubt cast on the copy."
    folder = make_lookalike('casme', tmp_path, blank=True, progress=False)
    path = folder / 'CASME_B/Section B/Section B.xlsx'
    book = load_workbook(path)
    cell = next(c for c in book.active['L'] if c.value == 'tense')
    cell.value = 'disgust'
    path.unlink()
    book.save(path)
    clips = load_clips('casme', tmp_path, strict=True)
    assert decisions(clips)['unsure-counts'] == 1 and 'NOT the published' not in clips.stamp


def test_defects_of_casme_are_met_one_by_one(tmp_path):
    folder = make_lookalike('casme', tmp_path, blank=True, progress=False)
    clips = load_clips('casme', tmp_path, task=None)
    truth = {(t['subject'], t['clip']): t for t in lookalike_truth(folder)}
    slips = [f for f in clips.report['findings'] if f['decision'] == 'known-slip' and f['found'] != 'comtempt']
    assert {f['clip'] for f in slips} == {f"{s}/{c}" for (s, c), t in truth.items()
                                          if (t['defect'] or '').startswith('known row')}
    for r in clips.itertuples():
        true = truth[r.subject, r.clip]
        if (true['defect'] or '').startswith('known row'): assert (r.onset, r.offset) == (true['onset'], true['offset'])
    assert decisions(clips)['offset-mirrored'] == 6 and decisions(clips)['second-peak'] == 9
    assert clips.loc[clips['emotion'] == 'contempt'].shape[0] == 1 and 'EP10' in set(clips['clip'])
    assert Counter(clips['part']) == {'section A': 96, 'section B': 93}


def test_the_folder_that_is_named_is_one_that_is_there(tmp_path):
    "Of a dataset in parts, too: CASME_raw_selected has the word of a part in its name."
    make_lookalike('casme', tmp_path, subjects=2, blank=True, progress=False)
    clips = quiet('casme', tmp_path)
    assert clips.report['source']['frames'] == 'CASME_raw_selected'
    for folder in (tmp_path/'casme'/'CASME_raw_selected').glob('*/*'):
        shutil.rmtree(folder)
        folder.with_suffix('.avi').write_bytes(b'')
    with pytest.raises(DataError, match=rf'CASME_raw_selected.*files there: {len(clips)} .avi'):
        quiet('casme', tmp_path)


def test_several_emotions_are_one_class_or_none(tmp_path):
    make_lookalike('4dme', tmp_path, blank=True, progress=False)
    every, three = (load_clips('4dme', tmp_path, task=t) for t in (None, '3class'))
    assert Counter(every['emotion_policy']) == {'one': 228, 'several': 39}
    assert Counter(three['emotion_policy']) == {'one': 186, 'only-class': 17}
    both = three[three['emotion_policy'] == 'only-class']
    assert set(both['emotion']) == {'negative+repression'} and set(both['label']) == {0}
    counted = [f for f in three.report['findings'] if f['decision'] in ('several-emotions', 'no-class')]
    told = {f['found']: f['done'] for f in counted}
    assert told['17 × negative+repression'] == 'negative' and told['12 × positive+surprise'] == 'not in 3class'


@pytest.mark.parametrize('apex', ['given', 'midpoint', 'motion'])
def test_part_c_has_no_apex(tmp_path, apex):
    make_lookalike('casme3_c', tmp_path, subjects=2, size=32, progress=False)
    clips = quiet('casme3_c', tmp_path, apex=apex)
    assert set(clips['apex_policy']) == {'motion' if apex == 'motion' else 'midpoint'}
    assert all(r.onset < r.apex <= r.offset for r in clips.itertuples())


def test_part_a_is_never_part_c_nor_the_other_way_round(tmp_path):
    "Both sheets and both trees in each folder; then each with the other's alone."
    for name in ('casme3', 'casme3_c'): make_lookalike(name, tmp_path / 'alone', subjects=2, blank=True, progress=False)
    a, c = (tmp_path / 'alone' / n for n in ('casme3', 'casme3_c'))
    for name in ('casme3', 'casme3_c'):
        for source in (a, c):
            shutil.copytree(source, tmp_path / 'both' / name, dirs_exist_ok=True, copy_function=os.link,
                            ignore=shutil.ignore_patterns('LOOKALIKE.json'))
        both, alone = (quiet(name, tmp_path / where).table for where in ('both', 'alone'))
        assert len(alone) and both.drop(columns='frames').equals(alone.drop(columns='frames'))
    for name, other in (('casme3', c), ('casme3_c', a)):
        shutil.copytree(other, tmp_path / 'wrong' / name)
        for annotation in (None, 'part'):
            with pytest.raises(DataError, match='no annotation file|no column for subject, clip'):
                quiet(name, tmp_path / 'wrong', annotation=annotation)


def test_frames_of_casme_are_found_by_the_last_number_of_their_names(tmp_path):
    folder = make_lookalike('casme', tmp_path, subjects=4, blank=True, progress=False)
    names = {p.name for p in folder.rglob('*.jpg')}
    assert any(re.fullmatch(r'EP\d\d_\d-\d\.jpg', n) for n in names), 'no unpadded number in section A'
    assert any(re.fullmatch(r'EP\d\d_\d-0\d\d\.jpg', n) for n in names), 'no padded one in section B'
    assert frame_number('reg_EP01_5-012.jpg') == 12


# ---- sheets as people leave them

BOOKS = dict(dfme='training', casme='Section A')    # of several sheets, the one that is changed


class PartTree(Tree):
    "Of a dataset in parts, the sheet of one part is changed and the other stays."
    def __init__(self, dataset, root):
        made = make_lookalike(dataset, root, subjects=3, blank=True, progress=False)
        for p in made.rglob('*.xlsx'):
            if dataset in BOOKS and BOOKS[dataset] not in p.name: keep_rows(p, 4)
        super().__init__(dataset, root)


def keep_rows(path, n):
    book = load_workbook(path)
    book.active.delete_rows(n + 2, 10_000)
    path.unlink()
    book.save(path)


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    made = {}
    def tree(dataset):
        if dataset not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr('test_sheets.make_lookalike', lambda *a, **k: None)    # it is there already
                if dataset in BOOKS: patch.setattr('pathlib.Path.rglob', only(BOOKS[dataset]))
                made[dataset] = PartTree(dataset, tmp_path_factory.mktemp(dataset))
        return made[dataset]
    return tree


def only(part):
    "Path.rglob, which finds the sheets of one part first."
    from pathlib import Path
    real = Path.rglob
    def rglob(self, pattern):
        return iter(sorted(real(self, pattern), key=lambda p: (part not in p.name, p.name)))
    return rglob


def edits_of(dataset):
    "A column that is split at its capitals is another one here: sub_ID, ApexF1."
    return [e for e in EDITS if e is not header_spelling or dataset in ('dfme', 'casme3_c')]


@pytest.mark.parametrize('dataset', NEWER)
def test_what_makes_no_difference(trees, dataset):
    tree = trees(dataset)
    @settings(max_examples=6 if dataset == 'dfme' else 12, derandomize=True)
    @given(data=st.data())
    def same(data):
        b = copy.deepcopy(tree.book)
        for edit in data.draw(st.lists(st.sampled_from(edits_of(dataset)), min_size=1, max_size=3, unique=True)):
            edit(b, data.draw, dataset)
        table, report = tree.load(b, data.draw(st.sampled_from(('.xlsx', '.xlsx', '.xls'))))
        assert table == tree.table and tree.cases(report) == tree.cases(tree.report)
    same()


@pytest.mark.parametrize('dataset', NEWER)
def test_one_wrong_cell(trees, dataset):
    "At most that clip is another, and unless the value could be right, the report names row and column."
    tree = trees(dataset)
    rows = range(tree.book.first, len(tree.book.grid) - (dataset == '4dme'))         # the last is a sum
    @settings(max_examples=16 if dataset == 'dfme' else 24, derandomize=True)
    @given(data=st.data())
    def wrong(data):
        b = copy.deepcopy(tree.book)
        at, name = data.draw(st.sampled_from(rows)), data.draw(st.sampled_from(sorted(b.columns)))
        column = b.columns[name]
        new = data.draw(st.one_of(VALUES, st.sampled_from([b.grid[i][column] for i in rows])))
        b.grid[at][column] = new
        try: table, report = tree.load(b)
        except DataError as e:
            assert str(tree.path) in str(e)
            return
        owner, lines = tree.owner(at), [f for f in report['findings'] if f['row'] == at + 1]
        differ = {k for k in table.keys() | tree.table.keys() if table.get(k) != tree.table.get(k)}
        fresh = table.keys() - tree.table.keys()
        assert len(fresh) <= 1
        assert differ <= {owner} | fresh | {f['clip'] for f in lines if f['decision'] == 'duplicate'}
        if differ and not could_be_right(name, new, [b.grid[i][column] for i in rows if i != at]):
            assert lines
            if FRAMES.match(name): assert any(f['column'].endswith(name) or 'no apex' in f['found'] for f in lines)
    wrong()


# ---- ten broken copies of each

COLUMNS = dict(
    dfme=dict(subject='Subject', clip='Filename', onset='OnsetFrame', apex='ApexFrame', offset='OffsetFrame',
              emotion='Emotion', number='EmotionId', fps='Fps'),
    casme3_c=dict(subject='sub', clip='count', onset='onset', offset='offset', emotion='emotion', au='au'),
    casme=dict(subject='Subject', clip='Filename', onset='OnsetF', apex='ApexF1', apex2='ApexF2', offset='OffsetF',
               emotion='Emotion'),
    **{'4dme': dict(subject='sub_ID', clip='fold_name', onset='Onset', apex='Apex', offset='Offset', emotion='Emotion',
                    positive='Positive')})


class Copy:
    "A copy of a small tree, and one clip without a defect in it."
    def __init__(self, dataset, source, root):
        shutil.copytree(source, root, copy_function=os.link)
        self.dataset, self.root, self.folder = dataset, root, root / dataset
        self.all = [t for t in lookalike_truth(self.folder) if t['written']]
        whole = [t for t in self.all if t['defect'] is None and t['offset'] - t['apex'] > 2]
        self.t = next(t for t in whole if t['apex'] - t['onset'] > 2)
        self.name, self.dir = f"{self.t['subject']}/{self.t['clip']}", self.folder / self.t['folder']

    @property
    def book(self):
        like = dict(zip(('train', 'test A', 'test B', 'section A', 'section B'),
                        ('training', 'testA', 'testB', 'Section A', 'Section B'))).get(self.t.get('part'), '')
        return next(p for p in sorted(self.folder.rglob('*.xls*')) if like in p.name)

    @contextlib.contextmanager
    def sheet(self):
        path = self.book
        book = load_workbook(path)
        yield book.active
        path.unlink()
        book.save(path)

    def column(self, sheet, key):
        wanted = COLUMNS[self.dataset][key]
        return next(c.column for c in sheet[1] if c.value == wanted)

    def row(self, sheet):
        subject, clip = (self.column(sheet, k) for k in ('subject', 'clip'))
        name = int(self.t['clip'][-2:]) if self.dataset == 'casme3_c' else self.t['clip']
        who = int(re.sub(r'\D', '', self.t['subject']))
        self.at = next(r for r in range(2, sheet.max_row + 1) if sheet.cell(r, clip).value == name
                       and int(re.sub(r'\D', '', str(sheet.cell(r, subject).value or '')) or 0) == who)
        return self.at

    def cell(self, key, value):
        with self.sheet() as s: s.cell(self.row(s), self.column(s, key)).value = value

    def cells(self, **values):
        for k, v in values.items(): self.cell(k, v)

    def frame(self, n): return next(p for p in self.dir.iterdir() if frame_number(p.name) == n)


#: test's name → (dataset, what to spoil, what it ends in, the clip is kept, whether other clips may change)
BROKEN = {}


def broken(datasets, finds='', says='', kept=True, others=False, **options):
    def register(spoil):
        for d in datasets.split(): BROKEN[f'{d}-{spoil.__name__}'] = (d, spoil, finds, says, kept, others, options)
        return spoil
    return register


ALL = ' '.join(NEWER)

@broken(ALL, 'bad-row', kept=False)
def onset_is_text(c): c.cell('onset', 'x')

@broken(ALL, 'unknown-emotion', kept=False)
def emotion_of_nobody(c): c.cells(emotion='joy', **dict(number=99) if c.dataset == 'dfme' else {})

@broken(ALL, 'bad-name', kept=False)
def name_leads_up(c): c.cell('clip', '../../etc')

@broken('dfme casme 4dme', 'no-folder', kept=False)
def folder_is_gone(c): shutil.rmtree(c.dir)

@broken('casme3_c', 'no-folder', kept=False, others=True)
def recording_is_gone(c): shutil.rmtree(c.dir)

@broken(ALL, 'frame-unreadable')
def onset_frame_is_empty(c):
    path = c.frame(c.t['onset'])
    path.unlink()
    path.write_bytes(b'')

@broken(ALL, 'repeated-row')
def the_same_row_twice(c):
    with c.sheet() as s: s.append([x.value for x in s[c.row(s)]])

@broken(ALL, 'duplicate', kept=False)
def two_rows_that_differ(c):
    with c.sheet() as s:
        at = c.column(s, 'onset')
        s.append([x.value + 1 if x.column == at else x.value for x in s[c.row(s)]])

@broken(ALL, says='0 bytes')
def a_sheet_is_empty(c):
    path = c.book
    path.unlink()
    path.write_bytes(b'')

@broken(ALL, says='no column for onset')
def a_sheet_without_onsets(c):
    with c.sheet() as s: s.delete_cols(c.column(s, 'onset'))

@broken('dfme', 'fps-missing')
def rate_is_text(c): c.cell('fps', 'fast')

@broken('dfme', 'fps-missing')
def rate_is_0(c): c.cell('fps', 0)

@broken('dfme', 'subject-from-name')
def subject_of_somebody_else(c): c.cell('subject', 'sub0255')

@broken('dfme', 'label-from-number')
def only_the_number_of_the_emotion(c): c.cell('emotion', None)

@broken('dfme', 'no-part', others=True)
def a_test_sheet_is_missing(c): next(c.folder.rglob('testA*')).unlink()

@broken('dfme', 'no-labels', others=True)
def a_test_sheet_without_emotions(c):
    path = next(c.folder.rglob('testA*'))
    book = load_workbook(path)
    book.active.delete_cols(next(x.column for x in book.active[1] if x.value == 'Emotion'))
    path.unlink()
    book.save(path)

@broken('dfme', 'duplicate', kept=False)
def a_clip_in_training_and_test(c):
    with c.sheet() as s: row = [x.value for x in s[c.row(s)]]
    path = next(c.folder.rglob('testA*'))
    book = load_workbook(path)
    book.active.append(row)
    path.unlink()
    book.save(path)

@broken('casme3_c', 'onset-after-offset', kept=False)
def offset_before_onset(c): c.cell('offset', c.t['onset'] - 3)

@broken('casme3_c', says='no annotation file')
def only_the_sheet_of_part_a(c): c.book.rename(c.book.with_name('cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx'))

@broken('casme3_c', says='no column for subject, clip')
def only_the_older_sheet(c):
    path = c.book.with_name('CAS(ME)3_part_C.xlsx')
    c.book.rename(path)
    book = load_workbook(path)
    for x, name in zip(book.active[1], ('Subject', 'diff', 'Onset', 'Offset', 'Exp_type', 'risk')): x.value = name
    path.unlink()
    book.save(path)

@broken('casme', 'apex-missing')
def a_backslash_for_the_apex(c): c.cell('apex', '\\')

@broken('casme', 'offset-mirrored')
def a_backslash_for_the_offset(c): c.cell('offset', '\\')

@broken('casme', 'no-part', others=True)
def section_b_is_missing(c): next(c.folder.rglob('Section B.xlsx')).unlink()

@broken('casme', 'by-position')
def columns_of_other_names(c):
    with c.sheet() as s:
        for x in s[1]: x.value = x.value and f'column {x.column}'

@broken('casme', says='no annotation file')
def sheets_of_casme_2(c):
    for k, p in enumerate(sorted(c.folder.rglob('*.xlsx'))): p.rename(p.with_name(f'CASME2-coding-{k}.xlsx'))

@broken('4dme', 'unknown-emotion', kept=False)
def one_of_two_words_is_unknown(c): c.cell('emotion', 'Positive+Anger')

@broken('4dme', 'marks-differ')
def words_and_marks_differ(c):
    with c.sheet() as s:
        x = s.cell(c.row(s), c.column(s, 'positive'))
        x.value = 1 - x.value

@broken('4dme', 'sum-differs')
def a_row_was_marked_after_the_sum(c):
    with c.sheet() as s:
        at = c.column(s, 'positive')
        s.cell(s.max_row, at).value += 1

@broken('4dme', 'sum-differs', others=True)
def a_row_is_missing_above_the_sum(c):
    with c.sheet() as s:
        words = {x.value: x.column for x in s[1]}
        s.delete_rows(next(r for r in range(2, s.max_row) if r != c.row(s) and s.cell(r, words['Negative']).value))

@broken('4dme', says='no annotation file')
def only_a_sheet_with_macro_expressions(c): c.book.rename(c.book.with_name('Micro_and_Macro-expression_labels.xlsx'))

@broken('4dme', 'remark')
def a_sum_with_a_name(c):
    with c.sheet() as s: s.cell(s.max_row, 1).value = 'Total'


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    made, root = {}, tmp_path_factory.mktemp('small')
    def tree(dataset):
        if dataset not in made:
            make_lookalike(dataset, root / dataset, subjects=3, blank=True, progress=False)
            made[dataset] = root / dataset, rows_of(quiet(dataset, root / dataset), root / dataset)
        return made[dataset]
    return tree


def rows_of(clips, root):
    "subject/clip → all that the table says, with paths relative to the root."
    frames = [{n: os.path.relpath(p, root) for n, p in f.items()} for f in clips['frames']]
    rows = clips.table.assign(frames=frames).astype(object).to_dict('records')
    return {f"{r['subject']}/{r['clip']}": str(r) for r in rows}


@pytest.mark.parametrize('name', BROKEN)
def test_broken(name, small, tmp_path):
    dataset, spoil, finds, says, kept, others, options = BROKEN[name]
    source, before = small(dataset)
    c = Copy(dataset, source, tmp_path / 'data')
    spoil(c)
    if says:
        with pytest.raises(DataError) as error: quiet(dataset, c.root, **options)
        assert says in str(error.value) and str(c.root) in str(error.value) and len(str(error.value)) < 3000
        return
    clips = quiet(dataset, c.root, **options)
    json.dumps(clips.report, ensure_ascii=False)
    found, after = [f for f in clips.report['findings'] if f['decision'] == finds], rows_of(clips, c.root)
    assert found, clips.report['findings']
    if getattr(c, 'at', None) and finds not in ('remark', 'repeated-row', 'by-position', 'sum-differs'):
        assert any(f['row'] == c.at for f in found), found
    assert (c.name in after) == kept
    if not others:
        assert {k: v for k, v in before.items() if k != c.name} == {k: v for k, v in after.items() if k != c.name}
    if DECISIONS[finds][0] in ('dropped', 'doubtful'):
        with pytest.raises(DataError, match=finds): quiet(dataset, c.root, strict=True, **options)


def test_ten_of_each():
    counts = Counter(d for d, *_ in BROKEN.values())
    assert all(counts[d] >= 10 for d in NEWER), counts
