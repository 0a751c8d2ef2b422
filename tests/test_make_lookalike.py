"""Look-alike trees: the old Excel format, file systems without hard links, crashes, and files that must not differ
from one writing to the next."""
import hashlib
import os
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from mpfnet.cli import main
from mpfnet.data.frames import frame_number
from mpfnet.data.labels import DATASETS, MEGC2019
from mpfnet.synthetic import lookalike
from mpfnet.synthetic.lookalike import TREES, lookalike_truth, make_lookalike

BLANK = dict(blank=True, progress=False)


def digest(folder):
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.mark.parametrize('dataset, variant', [(d, v) for d in TREES for v in TREES[d]])
def test_every_variant_has_its_frames_and_its_sheet(tmp_path, dataset, variant):
    folder, tree = make_lookalike(dataset, tmp_path, variant=variant, subjects=4, **BLANK), TREES[dataset][variant]
    books = {p.relative_to(folder).as_posix() for p in folder.rglob('*.xlsx')}
    assert books == {f'{book}.xlsx' for book in tree.books.values()}
    for clip in lookalike_truth(folder):
        numbers = {frame_number(p.name) for p in (folder / clip['folder']).iterdir()}
        wanted = set(range(clip['onset'], clip['offset'] + 1))
        assert wanted <= numbers or clip['defect'] in ('frames missing', 'apex frame missing'), clip
        if tree.cut: assert numbers <= wanted, clip


def test_composite_is_three_datasets(tmp_path):
    assert make_lookalike('megc2019_cd', tmp_path, subjects=3, **BLANK) == tmp_path
    assert {p.name for p in tmp_path.iterdir()} == set(MEGC2019)
    for d in MEGC2019: assert len({c['subject'] for c in lookalike_truth(tmp_path/d)}) == 3


def test_old_excel_format_says_the_same(tmp_path):
    pytest.importorskip('xlwt'), pytest.importorskip('xlrd')
    old, new = (
        make_lookalike('samm', tmp_path / str(xls), xls=xls, **BLANK)
        / f'SAMM/SAMM_Micro_FACS_Codes_v2.xls{"" if xls else "x"}' for xls in (True, False)
    )
    assert old.exists() and not old.with_suffix('.xlsx').exists()
    a, b = (pd.read_excel(p, header=13, dtype=str) for p in (old, new))
    pd.testing.assert_frame_equal(a, b)
    assert a.Subject[0] == '006' and len(a) == DATASETS['samm'].clips


@pytest.mark.parametrize('xls', [False, True])
def test_sheets_do_not_know_the_time(tmp_path, xls):
    if xls: pytest.importorskip('xlwt')
    a = digest(make_lookalike('casme3', tmp_path/'a', subjects=2, xls=xls, **BLANK))
    time.sleep(2.1)  # zip files count in steps of two seconds
    assert digest(make_lookalike('casme3', tmp_path/'b', subjects=2, xls=xls, **BLANK)) == a
    assert digest(make_lookalike('casme3', tmp_path/'c', subjects=2, xls=xls, seed=1, **BLANK)) != a


@pytest.mark.parametrize('module, xls', [('openpyxl', False), ('xlwt', True)])
def test_missing_excel_library_is_named(tmp_path, monkeypatch, module, xls):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f'pip install {module}'):
        make_lookalike('samm', tmp_path, subjects=2, xls=xls, **BLANK)
    assert not list(tmp_path.iterdir()), 'a half-written tree was left'


def test_without_hard_links_frames_are_copies(tmp_path, monkeypatch):
    linked = digest(make_lookalike('mmew', tmp_path/'a', subjects=2, **BLANK))
    def refuse(*_): raise OSError('no hard links here')
    monkeypatch.setattr(os, 'link', refuse)
    folder = make_lookalike('mmew', tmp_path/'b', subjects=2, **BLANK)
    assert digest(folder) == linked and all(p.stat().st_nlink == 1 for p in folder.rglob('*.jpg'))


def test_a_crash_leaves_nothing_and_the_next_try_succeeds(tmp_path, monkeypatch):
    real, drawn = lookalike.draw_clip, []
    def failing(*args):
        drawn.append(args)
        if len(drawn) == 5: raise RuntimeError('power cut')
        return real(*args)
    with monkeypatch.context() as m:
        m.setattr(lookalike, 'draw_clip', failing)
        with pytest.raises(RuntimeError): make_lookalike('casme_sq', tmp_path, subjects=2, size=32, progress=False)
    assert not list(tmp_path.iterdir())
    assert make_lookalike('casme_sq', tmp_path, subjects=2, size=32, progress=False) == tmp_path/'casme_sq'


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path/'samm').mkdir()
    (tmp_path/'samm'/'mine.txt').write_text('kept')
    with pytest.raises(ValueError, match='not empty and has no LOOKALIKE.json'):
        make_lookalike('samm', tmp_path, subjects=2, **BLANK)
    assert [p.name for p in tmp_path.rglob('*')] == ['samm', 'mine.txt']


def visible_motion(frame, onset):
    "Strongest local change between two frames, without changes of light."
    change = cv2.GaussianBlur(frame - onset, (0, 0), 1) - cv2.GaussianBlur(frame - onset, (0, 0), 8)
    return np.sort(cv2.GaussianBlur(change**2, (0, 0), 3).ravel())[-200:].mean()


def test_motion_peaks_at_the_apex(tmp_path):
    """What the truth says was drawn, was drawn: half of the clips differ most from their onset at the apex, give or
    take a twentieth of their length."""
    folder, away = make_lookalike('mmew', tmp_path, subjects=2, size=96, progress=False), []
    for clip in lookalike_truth(folder):
        numbers = range(clip['onset'], clip['offset'] + 1)
        frames = [cv2.imread(str(folder / clip['folder'] / f'{n}.jpg'), cv2.IMREAD_GRAYSCALE).astype(np.float32)
                  for n in numbers]
        seen = max(numbers, key=lambda n: visible_motion(frames[n - clip['onset']], frames[0]))
        away.append(abs(seen - clip['apex'])/len(frames))
    assert np.median(away) < .05, away


@pytest.mark.parametrize('words, subjects, size', [
    ((), 4, 64), (('--full',), None, None), (('--subjects', '2'), 2, None), (('--size', '32'), 4, 32)])
def test_all_of_them_are_few_and_small_unless_more_is_asked_for(tmp_path, monkeypatch, capsys, words, subjects, size):
    asked, root = {}, tmp_path/'-'.join(words)
    def instead(name, dest, **given):
        asked[name] = given
        return make_lookalike(name, dest, subjects=1, **BLANK)
    monkeypatch.setattr('mpfnet.cli.make_lookalike', instead)
    monkeypatch.setattr('mpfnet.cli.made_timed', lambda args: print('and flow'))
    assert main(['data', 'lookalike', 'all', str(root), *words]) == 0
    assert [*asked] == [*TREES] and all((a['subjects'], a['size']) == (subjects, size) for a in asked.values())
    printed = capsys.readouterr()
    assert 'and flow' in printed.out and 'mpfnet data check atnet_flow' in printed.out
    assert ('dfme: 313,468 pictures to draw, about' in printed.err) == ('--full' in words)


def test_no_subjects_are_none_and_not_the_usual_few(tmp_path, capsys):
    assert main(['data', 'lookalike', 'all', str(tmp_path/'a'), '--subjects', '0']) == 1
    assert 'expected 1 to 16, found 0' in capsys.readouterr().err and not (tmp_path/'a').exists()
