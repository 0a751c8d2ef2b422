"""Annotation sheets as people leave them: what must make no difference, and what one wrong cell may do."""
import contextlib
import copy
import datetime
import re
import shutil
import signal
import warnings
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from mpfnet.clips import LICENSED, load_clips
from mpfnet.data.readers import SOURCES, DataError, smic
from mpfnet.data.sheets import SheetError, find_table, read_workbook, text, whole
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike

NEEDED = {'smic': 'Subject Filename OnsetF OffsetF Emotion',
          'casme2': 'Subject Filename OnsetFrame ApexFrame OffsetFrame|Estimated Emotion',
          'mmew': 'Subject Filename OnsetFrame ApexFrame OffsetFrame|Estimated Emotion',
          'samm': 'Subject|Filename|Onset Frame|Apex Frame|Offset Frame|Estimated Emotion',
          'casme3': 'Subject Filename Onset Apex Offset emotion',
          'dfme': 'Subject Filename OnsetFrame ApexFrame OffsetFrame Emotion EmotionId Fps',
          'casme3_c': 'sub count onset offset emotion',
          'casme': 'Subject Filename OnsetF ApexF1 ApexF2 OffsetF Emotion',
          '4dme': 'sub_ID fold_name Onset Apex Offset Emotion Positive'}
SIX = LICENSED[:6]    # the later ones: test_newer_datasets.py
CLIP = {'Filename', 'count', 'fold_name'}    # how the column of a clip's name may be called
ROWS = 14         # of the table that are kept: the tests read it some two thousand times
FRAMES = re.compile('(onset|apex|offset)', re.I)


@dataclass
class Book:
    "Sheets as rows of values, with the position of the table in the first."
    sheets: dict
    head: int = None                          # row of the header, None = there is none
    columns: dict = field(default_factory=dict)   # name → column, of those that a reader needs
    dates: bool = False                       # frame columns are formatted as dates
    at: str = ''                              # name of the sheet with the table

    @property
    def grid(self): return self.sheets[self.at]

    @property
    def first(self): return 0 if self.head is None else self.head + 1


def book_of(dataset, path):
    "The untouched workbook of a look-alike."
    book = load_workbook(path)
    b = Book({s.title: [list(r) for r in s.iter_rows(values_only=True)] for s in book.worksheets},
             at=book.worksheets[0].title)
    if dataset == 'casme_sq':
        names = 'subject clip onset apex offset au emotion type'.split()
        b.columns = {n: k for k, n in enumerate(names) if n != 'au'}
        b.sheets[b.at] = sorted(b.grid, key=lambda r: 'macro' in r[7])
    else:
        wanted = (
            NEEDED[dataset].split('|')
            if dataset == 'samm'
            else [
                w for part in NEEDED[dataset].split('|') for w in (part.split() if 'Estimated' not in part else [part])
            ]
        )
        b.head = next(i for i, r in enumerate(b.grid) if CLIP & {*r})
        b.columns = {n: b.grid[b.head].index(n) for n in wanted}
    return b


def write(b, path):
    (write_xls if path.suffix == '.xls' else write_xlsx)(b, path)


def write_xlsx(b, path):
    book = Workbook()
    book.remove(book.active)
    for name, rows in b.sheets.items():
        sheet = book.create_sheet(name)
        for row in rows: sheet.append(row)
        if b.dates and name == b.at:
            for column in [k for n, k in b.columns.items() if FRAMES.match(n)]:
                for row in sheet.iter_rows(min_row=b.first + 1, min_col=column + 1, max_col=column + 1):
                    row[0].number_format = 'yyyy-mm-dd'
    book.save(path)


def write_xls(b, path):
    import xlwt
    book, date = xlwt.Workbook(), xlwt.easyxf(num_format_str='YYYY-MM-DD')
    for name, rows in b.sheets.items():
        sheet = book.add_sheet(name)
        frames = {k for n, k in b.columns.items() if FRAMES.match(n)} if b.dates and name == b.at else ()
        for i, row in enumerate(rows):
            for j, v in enumerate(row):
                if v is not None: sheet.write(i, j, v, *([date] if j in frames and i >= b.first else []))
    book.save(str(path))


@contextlib.contextmanager
def soon(seconds=60):
    "No sheet may keep a reader busy for longer."
    def late(*_): raise RuntimeError(f'not done after {seconds} s')
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- a tree for each dataset, whose sheet is written anew again and again

class Tree:
    def __init__(self, dataset, root):
        make_lookalike(dataset, root, subjects=2, blank=True, progress=False)
        self.dataset, self.root, self.owners = dataset, root, {}
        self.path = next((root / dataset).rglob('*.xlsx'))
        self.book = book_of(dataset, self.path)
        self.book.grid[self.book.first :] = (
            self.book.grid[self.book.first :][:ROWS]
            + [r for r in self.book.grid[self.book.first :] if 'macro-expression' in r][:2]
        )
        table, report = self.load(self.book)
        kept = table.keys() - {f['clip'] for f in report['findings'] if f['decision'] == 'row-from-folder'}
        folders = {f"{t['subject']}/{t['clip']}": t['folder'] for t in lookalike_truth(root / dataset)}
        for k, f in folders.items():
            if f not in {folders[k] for k in kept}: shutil.rmtree(root / dataset / f, ignore_errors=True)
        self.table, self.report = self.load(self.book)
        assert self.table.keys() == kept and len(kept) > 5

    def load(self, b, suffix='.xlsx'):
        for s in ('.xls', '.xlsx'): self.path.with_suffix(s).unlink(missing_ok=True)
        write(b, self.path.with_suffix(suffix))
        return self.read()

    def read(self):
        with soon(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            table = load_clips(self.dataset, self.root, task=None)
        return {f'{r["subject"]}/{r["clip"]}': r for r in table.astype(object).to_dict('records')}, table.report

    def owner(self, at):
        "The clip that a row is about: what changes when the row is not there."
        if self.dataset == 'smic':
            subject, clip = (self.book.grid[at][self.book.columns[k]] for k in ('Subject', 'Filename'))
            return f"s{int(subject):02d}/{re.sub('^s(?=[0-9]_)', 's0', clip)}"
        if at not in self.owners:
            b = copy.deepcopy(self.book)
            b.grid[at] = []
            self.owners[at] = next(iter(self.table.keys() - self.load(b)[0].keys()), None)
        return self.owners[at]

    def cases(self, report):
        "What a report says, whatever row it stands in."
        return sorted((f['decision'], f['clip'], f['kind'])
                      for f in report['findings'] if f['decision'] not in ('remark', 'choice'))


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    made = {}
    def tree(dataset):
        if dataset not in made: made[dataset] = Tree(dataset, tmp_path_factory.mktemp(dataset))
        return made[dataset]
    return tree


# ---- what must make no difference

WORDS = st.text(st.characters(codec='utf-8', exclude_categories=('Cs', 'Cc', 'Co')), max_size=12)
SPACES = st.sampled_from(('', ' ', '  ', '\xa0', '\u3000', '\t', '\n', '\u200b', '\ufeff'))


def shuffled(b, draw, dataset):
    rows = draw(st.permutations(b.grid[b.first:]))
    b.grid[b.first:] = rows


def more_columns(b, draw, dataset):
    header = draw(st.one_of(st.none(), st.just(7), WORDS.map(lambda w: f'{w} (my own)')))
    at = len(max(b.grid, key=len)) if dataset == 'casme_sq' else draw(st.integers(0, len(b.grid[b.head])))
    if b.head is None: header = None
    fill = draw(st.one_of(st.none(), WORDS, st.integers(-9, 99)))
    for i, row in enumerate(b.grid):
        row += [None] * (at - len(row))
        row.insert(at, header if i == b.head else fill if i >= b.first else None)
    b.columns = {n: k + (k >= at) for n, k in b.columns.items()}


def blank_rows(b, draw, dataset):
    for at in sorted(draw(st.lists(st.integers(0, len(b.grid)), max_size=4)), reverse=True):
        b.grid.insert(at, draw(st.sampled_from(([], [None], [' ', '\xa0'], [None, '']))))
        if b.head is not None and at <= b.head: b.head += 1


def notes(b, draw, dataset):
    for note in draw(st.lists(st.tuples(st.integers(0, 1), WORDS.filter(str.strip)), max_size=3)):
        b.grid.append([None] * note[0] + [f'* {note[1]}'])


def renamed_sheet(b, draw, dataset):
    name = draw(st.sampled_from(('Tabelle1', 'Sheet1 (2)', 'ＨＳ', 'コード', 'x' * 31, ' ')))
    assume(name not in b.sheets)
    b.sheets = {name if k == b.at else k: v for k, v in b.sheets.items()}
    b.at = name


def sheet_before(b, draw, dataset):
    rows = draw(st.lists(st.lists(st.one_of(st.none(), WORDS, st.integers(0, 999)), max_size=5), max_size=4))
    b.sheets = {'notes': rows, **b.sheets}


def as_dates(b, draw, dataset): b.dates = True


def number_types(b, draw, dataset):
    kind = draw(st.sampled_from((str, float, lambda v: f' {v}.0', lambda v: f'{v}\u200b')))
    for row in b.grid[b.first:]:
        for n, k in b.columns.items():
            if (
                k < len(row) and (FRAMES.match(n) or n.lower() == 'subject') and whole(row[k]) is not None
                and (n.lower() != 'subject' or dataset != 'samm' or kind is str)
            ):
                row[k] = kind(whole(row[k]))


def spaces_and_case(b, draw, dataset):
    before, after, change = (draw(SPACES), draw(SPACES),
                             draw(st.sampled_from((str, str.upper, str.lower, str.swapcase, wide))))
    for row in b.grid[b.first:]:
        for n, k in b.columns.items():
            if k < len(row) and isinstance(row[k], str) and not FRAMES.match(n) and not row[k].startswith('*'):
                row[k] = before + change(row[k]) + after


def wide(word):
    "Full-width letters."
    return ''.join(chr(ord(c) + 0xfee0) if '!' <= c <= '~' else c for c in word)


def header_spelling(b, draw, dataset):
    if b.head is None: return
    change = draw(
        st.sampled_from(
            (
                str.upper, str.lower, wide, lambda s: s.replace(' ', '\n'), lambda s: f' {s}\xa0',
                lambda s: ' '.join(re.findall('[A-Z][a-z]*', s) or [s]), lambda s: s.replace(' ', '_') + ':',
            )
        )
    )
    b.grid[b.head] = [change(v) if isinstance(v, str) else v for v in b.grid[b.head]]


EDITS = (shuffled, more_columns, blank_rows, notes, renamed_sheet, sheet_before, as_dates, number_types,
         spaces_and_case, header_spelling)


@pytest.mark.parametrize('dataset', SIX)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_what_makes_no_difference(trees, dataset, data):
    tree = trees(dataset)
    b = copy.deepcopy(tree.book)
    for edit in data.draw(st.lists(st.sampled_from(EDITS), min_size=1, max_size=4, unique=True)):
        edit(b, data.draw, dataset)
    table, report = tree.load(b, data.draw(st.sampled_from(('.xlsx', '.xlsx', '.xls'))))
    assert table == tree.table
    assert tree.cases(report) == tree.cases(tree.report)


@pytest.mark.parametrize('edit', EDITS, ids=lambda e: e.__name__)
@pytest.mark.parametrize('dataset', SIX)
def test_each_edit_alone(trees, dataset, edit):
    tree = trees(dataset)
    @settings(max_examples=6, derandomize=True)
    @given(data=st.data())
    def alone(data):
        b = copy.deepcopy(tree.book)
        edit(b, data.draw, dataset)
        table, report = tree.load(b, data.draw(st.sampled_from(('.xls', '.xlsx'))))
        assert table == tree.table and tree.cases(report) == tree.cases(tree.report)
    alone()


@pytest.mark.parametrize('suffix', ('.xlsx', '.xls'))
def test_dates_are_numbers(tmp_path, suffix):
    "Frame 60 is Excel's 29th of February 1900, which there never was."
    numbers = [0, 1, 46, 59, 60, 61, 40000, 308866]
    write(Book({'Sheet1': [['Onset']] + [[n] for n in numbers]}, 0, {'Onset': 0}, True, 'Sheet1'),
          tmp_path / f'dates{suffix}')
    assert [whole(r[0]) for r in read_workbook(tmp_path / f'dates{suffix}')['Sheet1'][1:]] == numbers


# ---- one wrong cell

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.text(st.characters(codec='utf-8', exclude_categories=('Cs', 'Cc')), max_size=40),
    st.integers(-(10**18), 10**18),
    st.integers(-5, 400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        (
            '#N/A',
            '#REF!',
            '#DIV/0!',
            '=A1',
            '/',
            '?',
            '0',
            '-1',
            '46.0',
            '1e3',
            '٤٦',
            '²',
            '46-50',
            '../..',
            'Subject',
            'Filename',
            'others',
            'micro-expression',
            'macro-expression',
            '9' * 5000,
            '0' * 32000,
            'e\u0301' * 500,
        )
    ),
    st.dates(datetime.date(1901, 1, 1), datetime.date(2100, 1, 1)),
)


@pytest.mark.parametrize('dataset', SIX)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_one_wrong_cell(trees, dataset, data):
    "At most that clip is another, and unless the value could be right, the report names row and column."
    tree = trees(dataset)
    b = copy.deepcopy(tree.book)
    rows = range(b.first, len(b.grid))
    at, name = (data.draw(st.sampled_from(rows), label='row'),
                data.draw(st.sampled_from(sorted(b.columns)), label='column'))
    column = b.columns[name]
    new = data.draw(st.one_of(VALUES, st.sampled_from([b.grid[i][column] for i in rows])), label='value')
    b.grid[at][column] = new
    try: table, report = tree.load(b)
    except DataError as e:
        assert str(tree.path) in str(e)
        return
    if not (owner := tree.owner(at)):
        assert (table, tree.cases(report)) == (tree.table, tree.cases(tree.report)) or dataset == 'casme_sq'
    lines = [f for f in report['findings'] if f['row'] == at + 1]
    differ = {k for k in table.keys() | tree.table.keys() if table.get(k) != tree.table.get(k)}
    fresh = table.keys() - tree.table.keys()                                # the clip by its new name
    assert len(fresh) <= 1 and differ <= {owner} | fresh | {f['clip'] for f in lines if f['decision'] == 'duplicate'}
    if differ and not could_be_right(name, new, [b.grid[i][column] for i in rows if i != at]):
        assert lines or any(f['clip'] == owner and f['decision'] == 'row-from-folder' for f in report['findings'])
        if FRAMES.match(name):
            assert any(f['column'] == ('ABCDE'[column] if dataset == 'casme_sq' else name) or 'no apex' in f['found']
                       for f in lines)


def could_be_right(name, value, others):
    "A frame number, or a word or name that another row has: nobody can tell that it is wrong."
    # a date is a number in the file
    if FRAMES.match(name): return isinstance(value, datetime.date) or whole(value) is not None and whole(value) >= 0
    if name == 'type' and 'macro' in text(value).lower(): return True
    return text(value).lower() in {text(v).lower() for v in others} | {text(whole(v)) for v in others}


# ---- damaged bytes

@pytest.mark.parametrize('suffix', ('.xlsx', '.xls'))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_damaged_bytes(trees, tmp_path, suffix, data):
    "A table, or a SheetError that names the file; nothing else, and soon."
    path, tree = tmp_path / f'codes{suffix}', trees('samm')
    if not (good := tmp_path / f'good{suffix}').exists(): write(tree.book, good)
    raw = bytearray(good.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)):
        raw[at] = value
    path.write_bytes(raw[:data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    with soon():
        try: find_table(read_workbook(path), SOURCES['samm'].columns, SOURCES['samm'].needed, path)
        except SheetError as e: assert str(path) in str(e) and len(str(e)) < 2000


# ---- several tables in one workbook

def test_smic_reads_the_sheet_of_its_camera(tmp_path):
    header, row = ['Subject', 'Filename', 'OnsetF', 'OffsetF', 'Emotion'], [11, 's11_ne_01', 5, 9, 'negative']
    write(Book({'HS': [header, row, row], 'VIS': [header, row]}, at='HS'), tmp_path / 'SMIC-all.xlsx')
    book = read_workbook(tmp_path / 'SMIC-all.xlsx')
    for m, sheet in (('hs', 'HS'), ('vis', 'VIS')):
        s = smic(m)
        table = find_table(book, s.columns, s.needed, '', s.prefer)
        assert table.sheet == sheet and table.others == [{'HS': 'VIS', 'VIS': 'HS'}[sheet]]


def test_a_header_without_a_table_is_passed_over(tmp_path):
    header = ['Subject', 'Filename', 'Onset', 'Emotion']
    write(Book({'template': [header], 'codes': [header, [1, 'EP02_01f', 46, 'disgust']]}, at='codes'),
          tmp_path / 'a.xlsx')
    table = find_table(read_workbook(tmp_path / 'a.xlsx'), SOURCES['casme2'].columns, SOURCES['casme2'].needed)
    assert (table.sheet, len(table.rows), table.others) == ('codes', 1, ['template'])
