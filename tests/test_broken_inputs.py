"""What people's disks really hold: broken frames, folders and sheets. Each ends in an error that says what and where,
or in a line of the report, and leaves the other clips alone."""
import contextlib
import io
import json
import os
import re
import shutil
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from openpyxl import Workbook, load_workbook

from mpfnet.clips import load_clips
from mpfnet.data.defects import DECISIONS
from mpfnet.data.frames import frame_number, read_image
from mpfnet.data.readers import DataError
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike

#: name -> (dataset, what to spoil, what must be said)
BROKEN = {}


def broken(dataset='samm', *, says=(), finds='', column=None, row=False, clip=True, variant=None, touched=None,
           kept=None, **options):
    """Register a broken input.

    says: words of the error, if there must be one; else finds: decision that must be in the report, for `clip` (True:
    the spoilt one, '': none, None: any), with `row` and `column` of the sheet.
    touched: clips that may change besides the spoilt one ('all': any); kept: whether the spoilt clip is in the table
    still; options: of load_clips."""
    def register(spoil):
        BROKEN[spoil.__name__] = (
            dataset,
            variant,
            spoil,
            dict(says=(says,) if isinstance(says, str) else says, finds=finds, column=column, row=row, clip=clip,
                 touched=touched, kept=kept),
            options,
        )
        return spoil
    return register


# ---- a small tree, and tools to spoil it

@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    "A function (dataset, variant) → data root with a small blank look-alike, made once."
    made, root = {}, tmp_path_factory.mktemp('trees')
    def tree(dataset, variant=None):
        if (dataset, variant) not in made:
            home = root / f'{dataset}-{variant}'
            make_lookalike(dataset, home, subjects=2, blank=True, variant=variant, progress=False)
            made[dataset, variant] = home, quiet(dataset, home)
        return made[dataset, variant]
    return tree


def quiet(dataset, root, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_clips(dataset, root, task=None, **options)


class Copy:
    "A copy of a tree that may be spoilt, and one clip without a defect in it."
    def __init__(self, dataset, source, root):
        shutil.copytree(source, root, copy_function=os.link)
        self.root, self.folder = root, root / dataset
        self.all = [t for t in lookalike_truth(self.folder) if t['written'] or dataset == 'smic']
        self.use(
            next(t for t in self.all if t['defect'] is None and t['offset'] - t['apex'] > 3
                 and t['apex'] - t['onset'] > 3)
        )
        self.touched = set()

    def use(self, t):
        self.t, self.name, self.dir = t, f"{t['subject']}/{t['clip']}", self.folder / t['folder']
        self.onset, self.apex, self.offset = t['onset'], t['apex'], t['offset']
        return self

    def other(self):
        "Another clip of the same subject."
        return next(t for t in self.all if t['subject'] == self.t['subject'] and t['clip'] != self.t['clip']
                    and t['defect'] is None)

    @property
    def files(self):
        return {frame_number(p.name): p for p in sorted(self.dir.iterdir()) if frame_number(p.name) is not None}

    @property
    def book(self): return next(p for p in self.folder.rglob('*.xls*'))

    @contextlib.contextmanager
    def sheet(self, index=0):
        "The annotation sheet, open for changes."
        path = self.book
        book = load_workbook(path)
        sheet = book.worksheets[index]
        self.head = next((r for r in sheet.iter_rows() if any(c.value in ('Filename', 'filename') for c in r)), None)
        yield sheet
        path.unlink()
        book.save(path)

    def column(self, name): return next(c.column for c in self.head if c.value == name)

    def rows(self, sheet): return range(self.head[0].row + 1, sheet.max_row + 1)

    def where(self, sheet):
        "Row of the clip in the sheet."
        names = self.t['clip'], re.sub('^s0', 's', self.t['clip'])
        self.row = next(r
                        for r in self.rows(sheet) if str(sheet.cell(r, self.column('Filename')).value).strip() in names)
        return self.row

    def cell(self, column, value):
        "Write one cell of the clip's row."
        with self.sheet() as sheet: sheet.cell(self.where(sheet), self.column(column)).value = value

    def xml(self, change, part='xl/worksheets/sheet1.xml'):
        "Change a part of the workbook as bytes."
        with zipfile.ZipFile(self.book) as z: parts = {i.filename: z.read(i) for i in z.infolist()}
        parts[part] = change(parts[part])
        zipped(self.book, parts)


def put(path, data):
    "Write a file anew: the frames of a blank tree are one file under many names."
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def zipped(path, parts):
    path.unlink(missing_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in parts.items(): z.writestr(name, data)


def image(suffix, size=16, noise=True):
    return cv2.imencode(
        suffix, np.random.default_rng(0).integers(0, 256 if noise else 1, (size, size, 3)).astype(np.uint8)
    )[1].tobytes()


JPEG = image('.jpg', 64)


# ---- frames

@broken(finds='frame-unreadable', column='Onset Frame', row=True)
def truncated_jpeg_at_onset(c): put(c.files[c.onset], JPEG[:len(JPEG) // 2])

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def truncated_jpeg_at_apex(c): put(c.files[c.apex], JPEG[:-2])

@broken(finds='no-frames', column='Onset Frame', row=True, kept=False)
def truncated_jpeg_everywhere(c):
    for p in c.files.values(): put(p, JPEG[:700])

@broken('smic', finds='frame-unreadable', column='OnsetF', row=True)
def truncated_bmp_at_onset(c): put(c.files[c.onset], image('.bmp')[:300])

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def truncated_png_called_jpg_at_apex(c): put(c.files[c.apex], image('.png')[:200])

@broken(finds='frame-unreadable', column='Onset Frame', row=True)
def empty_file_at_onset(c): put(c.files[c.onset], b'')

@broken(finds='no-frames', row=True, kept=False)
def empty_files_everywhere(c):
    for p in c.files.values(): put(p, b'')

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def text_called_jpg(c): put(c.files[c.apex], b'version https://git-lfs.github.com/spec/v1\n')

@broken(finds='frame-unreadable', column='Onset Frame', row=True)
def gif_called_jpg(c): put(c.files[c.onset], b'GIF89a' + bytes(100))

def _png_of(width, height):
    chunk = lambda tag, body: struct.pack('>I', len(body)) + tag + body + struct.pack('>I', zlib.crc32(tag + body))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
            + chunk(b'IEND', b''))

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def png_of_20000_by_20000(c): put(c.files[c.apex], _png_of(20000, 20000))

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def jpeg_of_60000_by_60000(c):
    at = JPEG.index(b'\xff\xc0')
    put(c.files[c.apex], JPEG[:at + 5] + struct.pack('>HH', 60000, 60000) + JPEG[at + 9:])

@broken(finds='frame-unreadable', column='Apex Frame', row=True)
def tiff_of_60000_by_60000(c):
    entry = lambda tag, n: struct.pack('<HHII', tag, 4, 1, n)
    put(c.files[c.apex], b'II*\0' + struct.pack('<IH', 8, 2) + entry(256, 60000) + entry(257, 60000) + bytes(4))

@broken(finds='frame-missing', column='Apex Frame', row=True)
def pipe_at_apex(c):
    c.files[c.apex].unlink()
    os.mkfifo(c.dir / '006_99.tmp')
    os.rename(c.dir / '006_99.tmp', c.dir / f"{c.t['subject']}_{c.apex:05d}.jpg")

@broken(finds='frame-missing', column='Onset Frame', row=True)
def folder_at_onset(c):
    p = c.files[c.onset]
    p.unlink()
    p.mkdir()

@broken(finds='link-outside', clip='')
def frame_links_outside(c):
    p = c.files[c.onset]
    p.unlink()
    p.symlink_to('/etc/passwd')

@broken(finds='link-outside', clip='')
def frame_links_to_itself(c):
    p = c.files[c.apex]
    p.unlink()
    p.symlink_to(p.name)

@broken(finds='frame-missing', column='Apex Frame', row=True)
def frame_links_nowhere(c):
    p = c.files[c.apex]
    p.unlink()
    p.symlink_to('gone.jpg')

@broken(finds='no-frames', row=True, kept=False)
def every_frame_links_outside(c):
    for p in c.files.values():
        p.unlink()
        p.symlink_to('/etc/hostname')

@broken(finds='frame-missing', column='Onset Frame', row=True)
def onset_frame_missing(c): c.files[c.onset].unlink()

@broken(finds='frame-missing', column='Apex Frame', row=True)
def apex_frame_missing(c): c.files[c.apex].unlink()

@broken(finds='frame-missing', column='Offset Frame', row=True)
def last_frames_missing(c):
    for n, p in c.files.items():
        if n >= c.offset: p.unlink()

@broken(finds='frames-between', row=True)
def frames_missing_in_the_middle(c):
    c.files[c.apex - 1].unlink()
    c.files[c.apex + 1].unlink()

@broken(finds='no-frames', column='Onset Frame', row=True, kept=False)
def first_half_missing(c):
    for n, p in c.files.items():
        if n < (c.onset + c.offset) // 2: p.unlink()

@broken(finds='no-frames', column='Apex Frame', row=True, kept=False)
def only_the_first_frames_left(c):
    for n, p in c.files.items():
        if n > c.onset + 2: p.unlink()
    c.cell('Apex Frame', c.offset)

@broken(finds='no-frames', row=True, kept=False)
def one_frame_left(c):
    for n, p in c.files.items():
        if n != c.apex: p.unlink()

def _renumber(c, first=1):
    files = [p for n, p in c.files.items() if c.onset <= n <= c.offset]
    for n, p in c.files.items():
        if p not in files: p.unlink()
    for k, p in enumerate(files): p.rename(c.dir / f'x{k + first}.jpg')

@broken(finds='renumbered', row=True)
def frames_renumbered_from_1(c): _renumber(c)

@broken(finds='renumbered', row=True)
def frames_renumbered_from_0(c): _renumber(c, 0)

@broken(finds='renumbered', row=True)
def frames_renumbered_and_the_ranges_overlap(c):
    shift = c.onset - 9
    c.files  # the sheet now says 9…, the disk 1…
    _renumber(c)
    with c.sheet() as sheet:
        for k, n in (('Onset Frame', c.onset), ('Apex Frame', c.apex), ('Offset Frame', c.offset)):
            sheet.cell(c.where(sheet), c.column(k)).value = n - shift

@broken(finds='same-number', clip='')
def two_files_with_the_same_number(c): shutil.copy(c.files[c.apex], c.dir / f'a_much_longer_name_{c.apex}.jpg')

@broken(finds='same-number', clip='')
def a_second_download(c):
    for n in (c.onset, c.apex): shutil.copy(c.files[n], c.dir / f'{c.files[n].stem} (1).jpg')

@broken(finds='partial-copy', clip='')
def what_operating_systems_leave_behind(c):
    for name in (
        'Thumbs.db', 'desktop.ini', '.DS_Store', f'._{c.files[c.onset].name}', f'~{c.files[c.onset].name}.tmp',
    ):
        for folder in (c.folder, c.dir.parent, c.dir): put(folder / name, b'\0\5')
    put(c.book.with_name(f'~${c.book.name}'), b'\x05owner')
    put(c.book.with_name(f'._{c.book.name}'), b'\0\5\x16\7')

@broken(finds='choice', column='annotation', clip='')
def names_that_are_no_utf_8(c):
    folder = os.fsencode(c.folder)
    shutil.copy(c.book, folder + b'/caf\xe9.xlsx')
    os.mkdir(folder + b'/\xff\xfe')
    os.symlink('nowhere', folder + b'/\xff')

@broken(says=('caf\\udce9.xlsx', 'web page'))
def the_only_sheet_has_a_name_that_is_no_utf_8(c):
    put(c.book, b'<html>')
    os.rename(c.book, os.fsencode(c.folder) + b'/caf\xe9.xlsx')

@broken(finds='choice', column='annotation', clip='')
def a_second_download_of_the_sheet(c):
    shutil.copy(c.book, c.book.with_name(f'{c.book.stem} (1).xlsx'))
    put(c.book.with_name('codes.xls'), b'')

@broken(finds='partial-copy', clip='')
def suffixes_in_capitals(c):
    for p in c.files.values(): p.rename(p.with_suffix('.JPG'))
    c.touched.add(c.name)


def _undecodable(c, *numbers):
    at = JPEG.index(b'\xff\xc0')
    # a size, an end, and nothing between
    for n in numbers: put(c.files[n], JPEG[:2] + JPEG[at:at + 19] + b'\xff\xd9')

@broken(finds='no-frames', column='Apex Frame', row=True, kept=False, touched='all', apex='motion')
def nothing_can_be_decoded_and_the_apex_is_to_be_found_by_motion(c):
    with c.sheet() as sheet:                              # few others: their frames are looked at, too
        at = c.where(sheet)
        for r in reversed(c.rows(sheet)):
            if abs(r - at) > 2: sheet.delete_rows(r)
    _undecodable(c, *c.files)

@broken(finds='renumbered', row=True, touched='all', apex='midpoint')
def frames_renumbered_and_the_midpoint_is_asked_for(c): _renumber(c)


# ---- folders

@broken(finds='no-folder', row=True, kept=False)
def no_folder(c): shutil.rmtree(c.dir)

@broken(finds='no-frames', row=True, kept=False)
def empty_folder(c):
    for p in c.files.values(): p.unlink()

@broken(finds='no-frames', row=True, kept=False)
def folder_in_the_folder(c):
    (c.dir / c.dir.name).mkdir()
    for p in c.files.values(): p.rename(c.dir / c.dir.name / p.name)

@broken(finds='no-folder', row=True, kept=False)
def file_where_the_folder_should_be(c):
    shutil.rmtree(c.dir)
    put(c.dir, b'')

@broken(finds='link-outside', clip='', kept=False)
def folder_links_outside(c):
    shutil.rmtree(c.dir)
    c.dir.symlink_to('/etc')

@broken(says=('no clip folders', 'link-outside', 'data root', 'SAMM'))
def all_folders_link_outside(c):
    for p in (c.folder / 'SAMM').iterdir():
        if p.is_dir():
            shutil.move(p, c.root / p.name)
            p.symlink_to(c.root / p.name)

@broken(finds='no-folder', row=True, kept=False)
def folder_links_to_another_clip(c):
    shutil.rmtree(c.dir)
    c.dir.symlink_to(c.other()['clip'])

@broken(finds='partial-copy', clip='')
def links_in_circles(c):
    (c.folder / 'SAMM' / 'round').symlink_to('..')
    (c.dir.parent / 'again').symlink_to('../..')
    (c.folder / 'self').symlink_to('self')
    (c.folder / 'a').symlink_to('b')
    (c.folder / 'b').symlink_to('a')
    for k in range(9): (c.folder / f'{k}').symlink_to('SAMM/006' if k % 2 else 'SAMM')

@broken(finds='unreadable-folder', clip=None, touched='all')
def subject_folder_without_permission(c): os.chmod(c.dir.parent, 0)

@broken(finds='unreadable-folder', clip=None, kept=False)
def clip_folder_without_permission(c): os.chmod(c.dir, 0)

@broken(finds='frame-unreadable', column='Onset Frame', row=True)
def frame_without_permission(c):
    put(c.files[c.onset], JPEG)
    os.chmod(c.files[c.onset], 0)

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'Permission'))
def sheet_without_permission(c): os.chmod(c.book, 0)

@broken(says=('no clip folders', 'SAMM/006/006_1_2'))
def only_the_sheet(c):
    for p in (c.folder / 'SAMM').iterdir():
        if p.is_dir(): shutil.rmtree(p)

@broken(says=('no annotation file', 'SAMM_Micro_FACS_Codes_v2.xlsx', 'no .xlsx, .xls or .csv file'))
def no_sheet(c): c.book.unlink()

@broken(says=('no annotation file',))
def empty_dataset_folder(c):
    shutil.rmtree(c.folder)
    c.folder.mkdir()

@broken(says=('looked for the folder', 'is a file'))
def dataset_folder_is_a_file(c):
    shutil.rmtree(c.folder)
    put(c.folder, b'')

@broken(says=('looked for the folder', 'data root is a file'))
def data_root_is_a_file(c):
    shutil.rmtree(c.root)
    put(c.root, b'')

@broken('casme2', finds='choice', column='frames', clip='')
def raw_and_half_of_a_cropped_copy(c):
    for p in sorted((c.folder / 'CASME2_RAW_selected').glob('*/*'))[::2]:
        shutil.copytree(p, c.folder / 'Cropped' / p.parent.name / p.name, copy_function=os.link)

@broken('casme2', finds='no-folder', row=True, kept=False, touched='all', variant=None, **{'variant_': 'cropped'})
def half_of_a_cropped_copy_asked_for(c):
    folders = sorted((c.folder / 'CASME2_RAW_selected').glob('*/*'))
    for p in folders:
        if p != c.dir: shutil.copytree(p, c.folder / 'Cropped' / p.parent.name / p.name, copy_function=os.link)

@broken('casme2', says=('no cropped clip folders', 'CASME2_RAW_selected'), variant_='cropped')
def cropped_copy_asked_for_and_not_there(c): pass

@broken('casme2', finds='choice', column='annotation', clip='')
def two_versions_of_the_annotation(c): shutil.copy(c.book, c.book.with_name('CASME2-coding-20190701.xlsx'))

@broken('casme2', says=("no annotation file with '2019' in its name", 'CASME2-coding-20140508.xlsx'), annotation='2019')
def version_asked_for_and_not_there(c): pass

@broken(finds='partial-copy', clip='')
def marker_is_broken(c): put(c.folder / 'LOOKALIKE.json', b'{"truth": [')

@broken('smic', finds='no-sheet', clip='', column='annotation', touched='all')
def smic_sheet_under_a_name_nobody_knows(c): c.book.rename(c.book.with_name('my notes.xlsx'))

@broken('smic', variant='long', says=('begin before the onset', 'is needed', 'SMIC-hs-E_annotation.xlsx'))
def smic_long_clips_without_their_sheet(c): c.book.unlink()

@broken('smic', finds='no-frames', clip=True, column='folder', kept=False)
def smic_empty_folder_without_a_row(c):
    c.use(next(t for t in c.all if t['defect'] == 'no row'))
    shutil.rmtree(c.dir)
    c.dir.mkdir()


# ---- the file of the sheet

def _file(name, data, *says):
    def spoil(c): put(c.book, data() if callable(data) else data)
    spoil.__name__ = name
    broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', *says))(spoil)

def _sheet_bytes():
    out = io.BytesIO()
    book = Workbook()
    book.active.append(['Subject', 'Filename', 'Onset Frame', 'Estimated Emotion'])
    book.save(out)
    return out.getvalue()

def _zip_of(parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in parts: z.writestr(name, data)
    return out.getvalue()

_file('sheet_is_empty', b'', '0 bytes', 'copy it anew')
_file('sheet_is_a_web_page', b'\xef\xbb\xbf\r\n<!DOCTYPE html><title>Sign in</title>', 'web page', 'copy it anew')
_file('sheet_is_an_lfs_pointer', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull')
_file('sheet_is_a_csv', b'Subject,Filename\n006,006_1_2\n', 'no Excel file', 'save it as .xlsx')
_file('sheet_is_utf_16', 'Subject\tFilename\n'.encode('utf-16'), 'no Excel file')
_file('sheet_is_cut', lambda: _sheet_bytes()[:2000], 'damaged or encrypted', 'copy it anew')
_file('sheet_is_encrypted', b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(24) + struct.pack('<HH', 62, 3) + b'\xfe\xff'
      + bytes(4000), 'encrypted')
_file('sheet_is_a_zip_bomb', lambda: _zip_of([('xl/worksheets/sheet1.xml', bytes(70_000_000))]), 'unpacks to 70 MB')
_file('sheet_has_20_mb_of_nothing', lambda: _zip_of([('xl/worksheets/sheet1.xml', bytes(20_000_000))]),
      'delete the empty rows')
_file('sheet_of_5000_parts', lambda: _zip_of([(f'xl/{k}.xml', b'<a/>') for k in range(5000)]), '5,000 parts')
_file('sheet_is_another_zip', lambda: _zip_of([('006/006_1_2/006_1.jpg', b'')]), 'damaged')
_file('sheet_is_pk_and_no_more', b'PK\3\4', 'damaged')
_file('sheet_is_random_bytes_after_pk', b'PK\3\4' + np.random.default_rng(0).bytes(9000), 'damaged')

@broken(says=('no annotation file', 'no-file'))
def sheet_is_a_pipe(c):
    p = c.book
    p.unlink()
    os.mkfifo(p)

@broken(says=('no annotation file', 'no-file'))
def sheet_is_a_folder(c):
    p = c.book
    p.unlink()
    p.mkdir()

@broken(says=('no annotation file', 'link-outside', 'data root'))
def sheet_links_outside(c):
    p = c.book
    shutil.move(p, c.root / 'elsewhere.xlsx')
    p.symlink_to(c.root / 'elsewhere.xlsx')

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'XML entities'))
def sheet_with_an_entity(c):
    c.xml(
        lambda x: (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "' + b'a' * 99 + b'"><!ENTITY b "&a;&a;&a;&a;">]>'
                   + x.partition(b'?>')[2])
    )

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'XML entities'))
def sheet_with_an_external_doctype(c):
    c.xml(
        lambda x: ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x SYSTEM "file:///etc/passwd">'.encode('utf-16')
                   + x),
        'xl/styles.xml',
    )

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'damaged'))
def sheet_whose_xml_is_cut(c): c.xml(lambda x: x[:len(x) // 2])

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'damaged'))
def sheet_with_a_cell_that_is_no_number(c): c.xml(lambda x: x.replace(b'<v>', b'<v>NaN', 1))

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'no sheet that can be read', 'save it as .xlsx'))
def workbook_without_sheets(c):
    c.xml(lambda x: re.sub(rb'<sheets>.*</sheets>', b'<sheets/>', x, flags=re.S), 'xl/workbook.xml')

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx',))
def sheet_part_is_missing(c):
    with zipfile.ZipFile(c.book) as z:
        parts = {i.filename: z.read(i) for i in z.infolist() if i.filename != 'xl/worksheets/sheet1.xml'}
    zipped(c.book, parts)

@broken(finds='partial-copy', clip='')
def a_cell_in_the_last_row(c):
    with c.sheet() as sheet: sheet['A1048576'] = ' '

@broken(finds='partial-copy', clip='')
def a_cell_in_the_last_column(c):
    with c.sheet() as sheet: sheet['XFD2'] = sheet['XFD20'] = 'x'

@broken(finds='partial-copy', clip='')
def rows_beyond_the_last(c):
    c.xml(lambda x: x.replace(b'</sheetData>', b'<row r="999999999"><c r="A999999999"><v>1</v></c></row></sheetData>'))

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'MICRO_ONLY', 'subject, clip, onset, emotion', 'no header'))
def sheet_with_nothing_in_it(c):
    with c.sheet() as sheet: sheet.delete_rows(1, sheet.max_row)

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'MICRO_ONLY', 'no row below'))
def sheet_with_only_a_header(c):
    with c.sheet() as sheet: sheet.delete_rows(15, sheet.max_row)

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', 'no column for onset', 'Filename'))
def sheet_without_onsets(c):
    with c.sheet() as sheet: sheet.delete_cols(c.column('Onset Frame'))

@broken(says=('SAMM_Micro_FACS_Codes_v2.xlsx', "two columns 'Onset frame'", 'row 15'))
def two_columns_of_one_name_differ(c):
    with c.sheet() as sheet:
        sheet.insert_cols(2)
        sheet.cell(14, 2).value = 'Onset  frame '
        for r in range(15, sheet.max_row + 1): sheet.cell(r, 2).value = r

@broken(finds='partial-copy', clip='')
def two_columns_of_one_name_agree(c):
    with c.sheet() as sheet:
        sheet.insert_cols(1)
        for r in range(14, sheet.max_row + 1): sheet.cell(r, 1).value = sheet.cell(r, 5).value

@broken(finds='choice', column='sheet', clip='')
def a_shorter_copy_of_the_sheet_before_it(c):
    with c.sheet() as sheet:
        twin = sheet.parent.copy_worksheet(sheet)
        twin.title = 'old'
        twin.delete_rows(20, 99)
        sheet.parent.move_sheet(twin, -1)

@broken(finds='repeated-row', row=True)
def the_same_row_twice(c):
    with c.sheet() as sheet:
        sheet.append([x.value for x in sheet[c.where(sheet)]])
        c.row = sheet.max_row

@broken(finds='duplicate', row=True, kept=False)
def two_rows_that_contradict_each_other(c):
    with c.sheet() as sheet:
        c.where(sheet)
        sheet.append([x.value + 1 if i == c.column('Apex Frame') - 1 else x.value for i, x in enumerate(sheet[c.row])])

@broken(finds='repeated-row', row=True)
def the_same_row_twice_once_as_text(c):
    with c.sheet() as sheet:
        sheet.append([f'{x.value}.0 ' if isinstance(x.value, int) else x.value for x in sheet[c.where(sheet)]])
        c.row = sheet.max_row

@broken(finds='remark', clip='')
def remarks_below_the_table(c):
    with c.sheet() as sheet:
        for cells in ([], ['Note: AU codes after Ekman'], [None, '* recorded twice'],
                      ['N', None, None, None, None, None, None, None, None, '159 clips']):
            sheet.append(cells)

@broken(finds='bad-row', column='Subject', row=True, kept=False, touched='all')
def subjects_in_merged_cells(c):
    with c.sheet() as sheet:
        sheet.merge_cells(start_row=15, end_row=16, start_column=1, end_column=1)
        c.row, c.name = 16, ''


# ---- a cell

def _cell(name, at, value, finds, *, dataset='samm', **more):
    def spoil(c): c.cell(at, value(c) if callable(value) else value)
    spoil.__name__ = name
    broken(dataset, finds=finds, **{'column': at, 'row': True, **more})(spoil)

_NO_CLIP = dict(clip='', kept=False)
for k, name in {
    'leads_up': '../../../etc',
    'is_absolute': '/etc/passwd',
    'leads_up_later': '006_1_2/../../../../etc',
    'has_5000_letters': '006_1_' + 'a' * 5000,
    'has_32000_digits': '0' * 32000,
    'is_an_emoji': '006_1_😀',
    'has_arabic_digits': '٠٠٦_١_٢',
    'has_accents': '006_1_e\u0301',
    'has_a_backslash': '006\\006_1_2',
    'is_a_formula': '=006_1_2',
    'is_a_drive': 'C:\\006_1_2',
    'is_true': True,
    'is_a_number': 6.5,
    'is_an_error': '#REF!',
    'is_home': '~/006_1_2',
    'is_a_pattern': '006_*_*',
}.items():
    _cell(f'name_{k}', 'Filename', name, 'bad-row' if k == 'is_a_formula' else 'bad-name', **_NO_CLIP)
_cell('name_is_missing', 'Filename', None, 'bad-row', **_NO_CLIP)
for k, name in {'leads_up': '../006', 'is_absolute': '/', 'has_5000_digits': '9' * 5000, 'is_negative': -6,
                'is_a_fraction': 6.5, 'is_not_a_number': 'nan'}.items():
    _cell(f'subject_{k}', 'Subject', name, 'bad-name', **_NO_CLIP)
_cell('subject_of_somebody_else', 'Subject', '007', 'subject-from-name')
_cell('name_has_nothing_but_invisible_letters', 'Filename', '\u200b\u202e\ufeff', 'bad-row', **_NO_CLIP)
_cell('name_of_a_clip_that_is_not_there', 'Filename', lambda c: c.t['clip'] + '9', 'no-folder', clip=None, column=None,
      kept=False)
_cell('name_of_another_clip', 'Filename', lambda c: c.other()['clip'], 'duplicate', clip=None, column=None, kept=False,
      touched='other')

for k, value in {
    'is_text': 'n/a',
    'is_empty': None,
    'is_negative': -46,
    'is_a_fraction': 46.5,
    'is_nan': 'NaN',
    'is_true': True,
    'is_huge': 10**17,
    'is_an_error': '#N/A',
    'is_a_formula': '=A1+1',
    'is_a_date': '15.02.1900',
}.items():
    _cell(f'onset_{k}', 'Onset Frame', value, 'bad-row', kept=False)
    _cell(f'onset_{k}_in_a_cropped_copy', 'OnsetF', value, 'onset-missing', dataset='smic')
    _cell(f'apex_{k}', 'Apex Frame', value, 'apex-missing')
    _cell(f'offset_{k}', 'Offset Frame', value, 'offset-missing')
_cell('onset_after_offset', 'Onset Frame', lambda c: c.offset + 5, 'onset-after-offset', kept=False,
      column='Offset Frame')
_cell('onset_far_before', 'Onset Frame', lambda c: max(0, c.onset - 100), 'no-frames', kept=False)
_cell('apex_is_a_slash', 'Apex Frame', '/', 'apex-missing')
_cell('apex_beyond_the_offset', 'Apex Frame', lambda c: c.offset + 9, 'apex-outside')
_cell('apex_before_the_onset', 'Apex Frame', lambda c: c.onset - 1, 'apex-outside')
_cell('apex_is_the_onset', 'Apex Frame', lambda c: c.onset, 'apex-at-onset')
_cell('apex_is_0', 'Apex Frame', 0, 'apex-missing')
_cell('offset_before_the_onset', 'Offset Frame', lambda c: c.onset - 1, 'offset-wrong')
_cell('offset_with_a_digit_too_many', 'Offset Frame', lambda c: c.offset * 10, 'offset-wrong')
_cell('offset_is_0', 'Offset Frame', 0, 'offset-missing')
_cell('emotion_is_empty', 'Estimated Emotion', None, 'unknown-emotion', kept=False)
_cell('emotion_of_another_dataset', 'Estimated Emotion', 'repression', 'unknown-emotion', kept=False)
_cell('emotion_is_a_class', 'Estimated Emotion', 'negative', 'unknown-emotion', kept=False)
_cell('emotion_is_a_number', 'Estimated Emotion', 3, 'unknown-emotion', kept=False)
_cell('smic_emotion_against_the_name', 'Emotion', 'happy', 'label-from-name', dataset='smic')
_cell('casme2_subject_as_text_of_a_float', 'Subject', lambda c: f"{int(c.t['subject'][3:])}.0", 'partial-copy',
      dataset='casme2', clip='', column='', row=False)

@broken('casme2', finds='partial-copy', clip='')
def subjects_as_1_and_01_and_1_point_0(c):
    with c.sheet() as sheet:
        for k, r in enumerate(c.rows(sheet)):
            n = int(sheet.cell(r, 1).value)
            sheet.cell(r, 1).value = (n, f'{n:02d}', float(n), f'{n}.0', f' {n:03d}\xa0', f'sub{n:02d}')[k % 6]

@broken(finds='bad-row', column='Onset Frame', clip=None, touched='all', kept=False)
def formulas_that_were_never_calculated(c):
    with c.sheet() as sheet:
        for r in c.rows(sheet): sheet.cell(r, c.column('Onset Frame')).value = f'=A{r}+1'


# ---- CAS(ME)²: no header, and two more sheets that translate

def _sq_row(c, sheet):
    c.row = next(r for r in range(1, sheet.max_row + 1) if 'micro' in str(sheet.cell(r, 8).value)
                 and sheet.cell(r, 2).value == c.t['clip'])
    return c.row

@broken('casme_sq', finds='bad-row', column='H', row=True, clip='', kept=False)
def type_is_misspelt(c):
    with c.sheet() as sheet: sheet.cell(_sq_row(c, sheet), 8).value = 'mirco-expression'

@broken('casme_sq', finds='bad-row', column='C', row=True, kept=False)
def onset_in_the_first_row_is_text(c):
    with c.sheet() as sheet:
        r = _sq_row(c, sheet)
        for k in range(1, 10):
            sheet.cell(1, k).value, sheet.cell(r, k).value = sheet.cell(r, k).value, sheet.cell(1, k).value
        sheet.cell(1, 3).value, c.row = '/', 1

@broken('casme_sq', says=('naming rule1', 'found: CASFEcode_final, naming rule2'))
def a_naming_rule_is_missing(c):
    with c.sheet(1) as sheet: sheet.parent.remove(sheet)

@broken('casme_sq', finds='bad-row', column='A', row=False, clip='', touched='all')
def a_naming_rule_says_two_things(c):
    with c.sheet(1) as sheet:
        sheet.append(
            [99, 's99', sheet.cell(next(r for r in range(1, 400) if sheet.cell(r, 2).value == c.t['subject']), 3).value]
        )

@broken('casme_sq', finds='bad-row', column='A', row=False, clip='', touched='all')
def a_naming_rule_leads_two_subjects_to_one_folder(c):
    with c.sheet(1) as sheet: sheet.append([int(c.t['subject'][1:]), c.t['subject'], 98])

@broken('casme_sq', finds='bad-row', clip='', touched='all')
def a_naming_rule_has_5000_digits(c):
    with c.sheet(2) as sheet:
        sheet.cell(1, 1).value = sheet.cell(2, 1).value = sheet.cell(3, 1).value = sheet.cell(4, 1).value = sheet.cell(
            5, 1
        ).value = sheet.cell(6, 1).value = '9' * 5000

@broken('casme_sq', finds='partial-copy', clip='')
def a_sheet_of_notes_before_the_codes(c):
    with c.sheet() as sheet:
        notes = sheet.parent.create_sheet('notes', 0)
        for row in (['Coded by', 'two people', 3], ['micro-expressions', 57]): notes.append(row)

@broken('casme3', finds='bad-row', column='Onset', row=True, clip='', kept=False)
def casme3_onset_is_text(c):
    with c.sheet() as sheet:
        r = next(r for r in c.rows(sheet) if sheet.cell(r, 1).value == c.t['subject']
                 and sheet.cell(r, c.column('Onset')).value == str(c.onset))
        sheet.cell(r, c.column('Onset')).value, c.row = 'x', r


# ---- the tests

_watch = None


def _audit(event, args):
    if (
        _watch is not None and event in ('open', 'os.scandir', 'os.listdir')
        and isinstance(args[0], (str, bytes, os.PathLike))
    ):
        _watch.append(os.fspath(args[0]))


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(root, seconds=60):
    "Stop after some seconds; afterwards no file but the tree's and Python's may have been opened."
    global _watch
    def late(*_): raise TimeoutError(f'not done after {seconds} s')
    before, _watch = signal.signal(signal.SIGALRM, late), []
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        opened, _watch = _watch, None
    real = {os.path.realpath(os.fsdecode(p)) for p in opened}
    allowed = (os.path.realpath(root), *(os.path.realpath(p) for p in sys.path if p), os.path.realpath(sys.base_prefix),
               os.devnull)
    assert not [p for p in real if not p.startswith(allowed)]


@contextlib.contextmanager
def as_nobody(wanted):
    "Root may read everything, so a test of permissions is run as nobody."
    if not wanted or os.geteuid():
        yield
        return
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)


def lines(table, root):
    "(subject/clip) → everything the table says of it, with paths relative to the root."
    rows = table.assign(frames=[{n: os.path.relpath(p, root) for n, p in f.items()} for f in table['frames']])
    return {f"{r['subject']}/{r['clip']}": str(r) for r in rows.astype(object).to_dict('records')}


@pytest.fixture
def place(request, tmp_path):
    "Where the tree is copied to: somewhere that nobody may read, for tests of permissions."
    if not request.node.callspec.params['name'].endswith('_permission'):
        yield tmp_path
        # a file has at most some 65,000 hard links
        for p in tmp_path.iterdir(): shutil.rmtree(p) if p.is_dir() else p.unlink()
        return
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        yield Path(d)
        for p, folders, _ in os.walk(d):
            for f in folders: os.chmod(Path(p) / f, 0o755)


@pytest.mark.parametrize('name', BROKEN)
def test_broken(name, trees, place):
    dataset, variant, spoil, expected, options = BROKEN[name]
    options = {k.rstrip('_'): v for k, v in options.items()}
    (source, before), permission = trees(dataset, variant), name.endswith('_permission')
    c = Copy(dataset, source, place / 'data')
    spoil(c)
    def load(**more):
        with watched(c.root), as_nobody(permission): return quiet(dataset, c.root, **options, **more)
    if expected['says']:
        with pytest.raises(DataError) as error: load()
        assert all(w in str(error.value) for w in expected['says']), str(error.value)
        assert len(str(error.value)) < 3000 and str(c.root) in str(error.value)
        return
    table = load()
    json.dumps(table.report, ensure_ascii=False).encode()
    hits = [f for f in table.report['findings'] if f['decision'] == expected['finds']]
    where = c.name if expected['clip'] is True else expected['clip']
    hits = [f for f in hits if (where is None or f['clip'] == where)
            and (expected['column'] is None or f['column'] == expected['column'])
            and (not expected['row'] or f['row'] in (getattr(c, 'row', None), row_of(c)))]
    assert hits, [f for f in table.report['findings'] if f['decision'] not in ('partial-copy', 'whole-frames')]
    old, new = lines(before, source), lines(table, c.root)
    if expected['touched'] != 'all':
        other = {f"{c.t['subject']}/{c.other()['clip']}"} if expected['touched'] == 'other' else set()
        assert {k: v for k, v in old.items() if k != c.name and k not in other} == {k: v for k, v in new.items()
                                                                                    if k != c.name and k not in other}
    if expected['kept'] is not None: assert (c.name in new) == expected['kept']
    elif not expected['touched'] and c.name: assert c.name in new
    if hits[0]['kind'] == 'dropped':
        with pytest.raises(DataError, match=expected['finds']): load(strict=True)
    if c.name in new:
        row = next(r for r in table.itertuples() if f'{r.subject}/{r.clip}' == c.name)
        assert row.onset in row.frames and row.apex in row.frames and row.onset < row.apex <= row.offset
        for n in (row.onset, row.apex): read_image(row.frames[n])


def row_of(c):
    "The clip's row, if the sheet can be read and has a header."
    try:
        book = load_workbook(c.book, read_only=True)
        rows = list(book.worksheets[0].iter_rows(values_only=True, max_row=400))
        return next(
            (
                i + 1 for i, r in enumerate(rows)
                if any(str(v).strip() in (c.t['clip'], re.sub('^s0', 's', c.t['clip'])) for v in r)
            ),
            None,
        )
    except Exception: return None


def test_there_are_enough():
    assert len(BROKEN) >= 45 and {e['finds'] for *_, e, _ in BROKEN.values() if e['finds']} <= set(DECISIONS)
