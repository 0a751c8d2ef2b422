"""How far a run is: a bar on a terminal and in a notebook, a line a fold in a file, nothing where nobody wants it."""
import heapq
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpfnet.core import progress
from mpfnet.core.progress import Pace, Progress, duration, fold_line, folds_told, style_of, with_progress
from mpfnet.loso import run
from mpfnet.paper.plan import Going, Paper, Wanted, follow_runs

ROOT = Path(__file__).parents[1]
LINE = re.compile(r'fold \d+ of \d+ · .*')


class Terminal(io.StringIO):
    def isatty(self): return True


class Clock:
    now = 0.
    def __call__(self): return self.now


# --- a bar or lines

def test_the_stream_decides():
    assert style_of(Terminal(), {}) == 'bar' and style_of(io.StringIO(), {}) == 'lines'
    assert style_of(Terminal(), dict(MPFNET_PROGRESS='lines')) == 'lines'
    with pytest.raises(ValueError, match="MPFNET_PROGRESS: expected bar or lines, found 'none'"):
        style_of(io.StringIO(), dict(MPFNET_PROGRESS='none'))


@pytest.mark.parametrize('words, terminal, style', [
    (('python', '/x/bin/papermill', 'a.ipynb'), '/dev/pts/3', 'bar'),
    (('python', '/x/bin/papermill', 'a.ipynb'), '/x/slurm-1.out', 'lines'),
    (('python', '-m', 'papermill', 'a.ipynb'), 'pipe:[123]', 'lines'),
    (('python', '/x/bin/jupyter-lab', '--notebook-dir', 'papermill'), '/x/lab.log', 'bar'),
    (None, None, 'bar'),                                                                     # no /proc
])
def test_a_notebook_shows_a_bar_unless_papermill_writes_to_a_file(tmp_path, monkeypatch, words, terminal, style):
    monkeypatch.setattr(progress, 'in_ipython', lambda: True)
    if words:
        (tmp_path/'77'/'fd').mkdir(parents=True)
        (tmp_path/'77'/'cmdline').write_bytes(b'\0'.join(map(os.fsencode, words)) + b'\0')
        (tmp_path/'77'/'fd'/'1').symlink_to(terminal)
    assert style_of(io.StringIO(), dict(JPY_PARENT_PID='77'), tmp_path) == style


def test_a_bar_moves_on_one_line():
    screen = Terminal()
    with Progress(3, 'pltn seed 0', stream=screen) as p:
        for k in range(3): p.step(f's{k}', 2., .5)
    shown = screen.getvalue()
    assert '\n' not in shown.strip() and '3/3' in shown and 'UF1 so far 0.50' in shown


def test_lines_are_plain_and_one_a_fold():
    log, clock = io.StringIO(), Clock()
    with Progress(4, 'pltn seed 0', done=1, stream=log, clock=clock) as p:
        for k in range(3):
            clock.now += 10
            p.step(f'smic/s{k}', 10., .4)
    lines = log.getvalue().splitlines()
    assert '\r' not in log.getvalue() and len(lines) == 3 == folds_told(log.getvalue())
    assert lines[0] == 'fold 2 of 4 · pltn seed 0 smic/s0 · UF1 so far 0.40 · 10 s · about 20 s left'
    assert lines[-1] == 'fold 4 of 4 · pltn seed 0 smic/s2 · UF1 so far 0.40 · 10 s'


def test_a_file_that_knows_only_ascii():
    raw = io.BytesIO()
    with Progress(1, 'x', stream=io.TextIOWrapper(raw, 'ascii', write_through=True)) as p: p.step('a/b', 1.)
    assert raw.getvalue() == b'fold 1 of 1 - x a/b - 1.0 s\n'


def test_clips_are_told_every_ten_seconds():
    log, clock = io.StringIO(), Clock()
    with Progress(100, 'features', 'clip', stream=log, clock=clock) as p:
        for _ in range(100):
            clock.now += .25
            p.step()
    lines = log.getvalue().splitlines()
    assert [l.split(' · ')[0] for l in lines] == ['clip 40 of 100', 'clip 80 of 100', 'clip 100 of 100']
    assert lines[0].endswith('about 15 s left') and folds_told(log.getvalue()) == 0


def test_what_fails_on_the_way_is_not_hidden():
    def broken():
        yield 1
        raise OSError('disk')
    with pytest.raises(OSError, match='disk'): list(with_progress(broken(), 2, 'x', 'clip', show=False))


@given(st.integers(1, 999), st.text(st.characters(codec='ascii', exclude_categories=['Cc']), min_size=1),
       st.floats(0, 1e6), st.none() | st.floats(0, 1), st.none() | st.floats(0, 1e7))
def test_a_line_is_read_back_as_one_fold(n, name, seconds, score, left):
    line = fold_line(n, 999, name, 'a/b', seconds, score, left)
    assert folds_told(line) == 1 == len(line.splitlines()) and LINE.fullmatch(line)


@given(st.floats(0, 1e8))
def test_a_duration_is_right_to_half_a_unit(seconds):
    value, unit = duration(seconds).split()
    size = {'s': 1, 'min': 60, 'h': 3600, 'days': 86400}[unit]
    assert abs(float(value)*size - seconds) <= .5001*size*(1 if '.' not in value else .1)


# --- how long the rest takes

def ends_of(durations, workers, start):
    "[(when a fold is finished, its seconds)] of folds that some workers share."
    busy, ends = [start]*workers, []
    for d in durations:
        begun = heapq.heappop(busy)
        heapq.heappush(busy, begun + d)
        ends.append((begun + d, d))
    return sorted(ends)


def told(durations, workers, start):
    "[(seconds left as estimated, in truth)] after each fold but the last."
    ends, clock, out = ends_of(durations, workers, start), Clock(), []
    pace = Pace(len(ends), workers, clock)
    for clock.now, seconds in ends[:-1]:
        pace.step(seconds)
        out.append((pace.left(), ends[-1][0] - clock.now))
    return out


@given(st.integers(2, 60), st.integers(1, 9), st.floats(.1, 1e4), st.floats(0, 100))
def test_equal_folds_are_foretold_exactly(folds, workers, seconds, start):
    for said, truth in told([seconds]*folds, workers, start):
        assert said == pytest.approx(truth, abs=1e-6*seconds + 1e-9)


@given(st.integers(1, 8), st.floats(0, 60), st.lists(st.floats(.85, 1.15), min_size=20, max_size=70), st.floats(1, 4))
def test_unequal_folds_and_slow_first_ones_are_foretold_within_a_factor(workers, start, lengths, slow):
    "From the second round on, while four rounds are to come; the first folds of each worker load libraries."
    lengths = [10*d*(slow if k < workers else 1) for k, d in enumerate(lengths)]
    for k, (said, truth) in enumerate(told(lengths, workers, start)):
        if k >= 2*workers and truth > 40: assert 1/1.5 < said/truth < 1.5


def test_nothing_is_foretold_from_nothing():
    pace = Pace(3)
    assert pace.left() is None
    for _ in range(3): pace.step(None)
    assert pace.left() == 0.


# --- runs

def test_a_run_without_progress_is_silent_and_one_with_it_tells_of_each_fold(tmp_path, flow_root, capfd):
    asked = dict(dataset='megc2019_flow', data_root=flow_root, method='majority', out_dir=tmp_path, preset='tiny',
                 device='cpu')
    folder = run(progress=False, **asked)
    out, err = capfd.readouterr()
    assert out == err == ''
    for f in sorted((folder/'folds').glob('*.json'))[:3]: f.unlink()
    run(**asked)
    out, err = capfd.readouterr()
    lines, total = err.splitlines(), len([*(folder/'folds').glob('*.json')])
    assert out == '' and len(lines) == 3 and all(map(LINE.fullmatch, lines))
    assert lines[-1].startswith(f'fold {total} of {total} · majority seed 0 ') and 'UF1 so far 0.' in lines[-1]
    run(**asked)                                                                       # nothing to do, nothing to say
    assert capfd.readouterr() == ('', '')


def test_a_notebook_in_a_file_keeps_a_line_a_fold(tmp_path, flow_root):
    "As on a cluster: papermill's output goes into a file."
    command = [sys.executable, '-m', 'papermill', str(ROOT/'nbs'/'05_loso.ipynb'), str(tmp_path/'out.ipynb'),
               '--no-progress-bar', '--stderr-file', '-', '-p', 'dataset', 'megc2019_flow', '-p', 'method', 'majority',
               '-p', 'data_root', str(flow_root), '-p', 'out_dir', str(tmp_path), '-r', 'subjects',
               'samm/sa00,samm/sa01']
    env = os.environ | dict(PYDEVD_DISABLE_FILE_VALIDATION='1')
    with open(tmp_path/'log', 'wb') as log: done = subprocess.run(command, stdout=log, stderr=subprocess.PIPE, env=env)
    text = (tmp_path/'log').read_text(encoding='utf-8')
    assert done.returncode == 0, done.stderr[-2000:]
    assert folds_told(text) == 2 and '\r' not in text and '%|' not in text, text


# --- make paper

def wanted(folder, **minutes):
    "(Paper, rows of a plan): runs by their methods, of ten folds each."
    paper = Paper(out_dir=str(folder), data_root=str(folder))
    rows = [dict(wanted=Wanted(dataset='smic', method=m), to_train=10, minutes=t) for m, t in minutes.items()]
    return paper, pd.DataFrame(rows)


def log(going, method, folds):
    "Let the log of a run tell of its folds."
    path = next(p for w, p in going.logs.items() if w.method == method)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('a warning\n' + ''.join(f'{fold_line(k + 1, 10, method, "a/b", 1.)}\n' for k in range(folds)))


def test_many_runs_move_by_folds(tmp_path):
    paper, rows = wanted(tmp_path, pltn=10., majority=.1)
    clock, screen, over = Clock(), io.StringIO(), threading.Event()
    going = Going(paper, rows, clock)
    assert sum(going.done().values()) == 0 and going.left(going.done()) is None
    clock.now = 300.
    log(going, 'pltn', 5)
    assert going.left(going.done()) == pytest.approx(306, rel=.01)                      # as planned
    clock.now = 600.
    assert 1.5*306 < going.left(going.done()) < 2*306                                   # slower than planned
    over.set()
    with Progress(20, 'runs', stream=screen) as bar:
        follow_runs(going, bar, over)
        going.ended.update(going.folds)
        follow_runs(going, bar, over)
    assert [l.split(' · ')[0] for l in screen.getvalue().splitlines()] == ['fold 5 of 20', 'fold 20 of 20']


def test_a_log_of_yesterday_does_not_count_nor_one_that_says_too_much(tmp_path):
    paper, rows = wanted(tmp_path, pltn=float('nan'))
    log(Going(paper, rows), 'pltn', 4)
    clock = Clock()
    going = Going(paper, rows, clock)
    assert going.done() == {rows['wanted'][0]: 0}
    log(going, 'pltn', 30)
    assert going.done() == {rows['wanted'][0]: 10}
    log(going, 'pltn', 2)
    clock.now = 60.
    assert going.left(going.done()) == pytest.approx(240)                               # nobody has measured it
