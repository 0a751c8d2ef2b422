"""`benchmarks/gpu.py`, the day a GPU is at hand: all its parts run in small, and what goes wrong with one of them
stays there."""
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gpu
import pytest
from conftest import ROOT
from gpu_parts import PARTS, Part, children, report
from warm import forked, warm

SCRIPT = ROOT / 'benchmarks' / 'gpu.py'


def go(*args, folder, **env):
    "The command, from another directory and without an installation."
    kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'MPFNET_DATA', 'OUT')}
    command = [sys.executable, str(SCRIPT), *map(str, args), '--folder', str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, env=kept | env)


def begin_forks():
    "From now on this process begins those of a day as forks of itself."
    if hasattr(os, 'fork'): children.subprocess = SimpleNamespace(Popen=forked)


#: what a process does that has imported all that parts need: one part, and then several as the conductor runs them
FORKS = f"""
import sys, tempfile
from pathlib import Path
sys.path[:0] = [{str(ROOT / 'tests')!r}, {str(ROOT / 'benchmarks')!r}]
import gpu
from test_gpu_day import begin_forks
begin_forks()
if sys.argv[1] == '--part': gpu.main(sys.argv[1:])
else: gpu.conduct(sys.argv[2:], 400, Path(sys.argv[1]), Path(sys.argv[1])/'scratch', sys.executable, patient=True)
"""


def in_small(folder, line, *args):
    "A process for parts that need not import torch."
    (folder / 'scratch').mkdir(exist_ok=True)
    where = os.pathsep.join(map(str, (ROOT / 'benchmarks', ROOT)))
    env = dict(GPU_LINE=json.dumps(line), GPU_OUT=str(folder), GPU_SCRATCH=str(folder / 'scratch'), PYTHONPATH=where,
               OMP_NUM_THREADS='1', TQDM_DISABLE='1', MPLBACKEND='Agg')
    kept = {k: v for k, v in os.environ.items() if k != 'MPFNET_DATA'}
    done = warm('-c', FORKS, *args, cwd=ROOT, env=kept | env, input=f'{time.time() + 400}\n')
    assert done.returncode == 0, f'{args}: {done.stdout[-2000:]}{done.stderr[-4000:]}'
    return done.stdout


@pytest.mark.timeout(600)
def test_every_part_runs_in_small(tmp_path):
    """Nothing fails, every part has figures, nothing is judged, and the project's own results stay as they are.
    One of them by the command; a pair by the conductor."""
    before, folder = (ROOT / 'benchmarks' / 'RESULTS.md').read_bytes(), tmp_path / 'out'
    done = go('--smoke', '--seconds', 500, '--only', 'rates', folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'rates: done' in done.stdout
    assert 'says nothing of speed' in (folder / 'RESULTS.md').read_text(encoding='utf-8')
    line = {k: v for k, v in report.read(folder / 'results.jsonl')[0].items() if k in ('run', 'card', 'smoke')}
    assert 'tests' in PARTS['agree'].beside
    told = in_small(folder, line, folder, 'agree', 'tests')
    assert 'agree: done' in told and 'tests: done' in told
    for part in PARTS:
        if part not in ('rates', 'agree', 'tests'): in_small(folder, line, '--part', part, PARTS[part].entry)
    rows = report.read(folder / 'results.jsonl')
    assert not [r for r in rows if 'error' in r]
    assert {r['part'] for r in rows} == set(PARTS)
    assert {r['verdict'] for r in rows if r['name'] == 'judged'} == {'not judged'} and {r['smoke'] for r in rows} == {
        True
    }
    gpu.write(folder, tmp_path / 'PROJECT.md')
    text = (folder / 'RESULTS.md').read_text(encoding='utf-8')
    assert 'says nothing of speed' in text and all(f'### {part}: ' in text for part in PARTS)
    assert (ROOT / 'benchmarks' / 'RESULTS.md').read_bytes() == before and not (tmp_path / 'PROJECT.md').exists()


def test_without_a_gpu_it_says_so(tmp_path):
    import torch
    if torch.cuda.is_available(): pytest.skip('there is a GPU')
    done = go(folder=tmp_path / 'out', PATH='')
    assert (done.returncode != 0 and 'sees no GPU' in done.stderr and 'make gpu PYTHON=' in done.stderr
            and '--smoke' in done.stderr)


def a_python(path, says):
    "A program that answers as a Python would that is asked what it has."
    path.write_text(f"#!/bin/sh\necho 'a banner'\necho '{json.dumps(says)}'\n", encoding='utf-8')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


@pytest.mark.skipif(os.name != 'posix', reason='shell scripts')
def test_the_python_that_sees_a_card_is_chosen(tmp_path):
    "Not the project's own, if that has a build without CUDA; and nothing of anybody's is replaced."
    plain = a_python(tmp_path / 'plain', dict(missing=[], torch='2.13.0+cpu', card=None))
    lacks = a_python(tmp_path / 'lacks', dict(missing=['cv2', 'filelock'], torch='2.11.0', card='A card'))
    card = a_python(tmp_path / 'card', dict(missing=[], torch='2.11.0', card='A card'))
    bare = a_python(tmp_path / 'bare', dict(missing=['torch'], torch=None, card=None))
    nothing = str(tmp_path / 'nothing')
    assert gpu.chosen([bare, plain, lacks, nothing, card])[0] == card
    assert gpu.chosen([bare, plain, card], smoke=True)[0] == plain
    with pytest.raises(SystemExit) as e: gpu.chosen([bare, plain, lacks, nothing])
    for words in (f'{bare} has no torch', f'{plain} has torch 2.13.0+cpu, which sees no GPU',
                  'pip install opencv-python-headless filelock', f'{nothing} does not start'):
        assert words in str(e.value)


@pytest.mark.parametrize(
    'args, words',
    [
        (['--only', 'stepp'], "unknown part 'stepp'; known: versions"), (['--skip', 'x'], "unknown part 'x'"),
        (['--data', 'nowhere'], 'expected a folder that holds megc2019_flow/'),
    ],
)
def test_what_cannot_be_asked_for_is_a_sentence(tmp_path, args, words):
    done = go(*args, folder=tmp_path / 'out')
    assert done.returncode == 2 and words in done.stderr


# --- parts that go wrong ---

ODD = '''
import os, subprocess, sys, time
from gpu_parts.children import begin
from gpu_parts.tools import SCRATCH, emit, here, seconds_left
if 'odd.parts.asks' in sys.argv: time.sleep(.3)                  # it takes that long to start
def fine(): emit('figure', value=1.5, nothing=float('nan'))
def fails(): emit('figure', value=1); raise RuntimeError('no such kernel')
def dies(): os.abort()
def hangs():
    child = begin([sys.executable, '-c', 'import time; time.sleep(600)'], SCRATCH/f'children-{here.part}')
    emit('figure', child=child.pid)
    time.sleep(600)
def missing(): import no_such_module
def asks(): emit('figure', left=seconds_left())
'''


@pytest.fixture
def odd_day(tmp_path, monkeypatch):
    "(parts, seconds) → what the conductor tells, and the lines; with parts that go wrong in their own ways."
    (tmp_path / 'odd').mkdir()
    (tmp_path / 'odd' / 'parts.py').write_text(ODD, encoding='utf-8')
    line = dict(run='now', card=None, smoke=True)
    env = dict(GPU_LINE=json.dumps(line), GPU_OUT=str(tmp_path), GPU_SCRATCH=str(tmp_path),
               PYTHONPATH=os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / 'benchmarks'))))
    for k, v in env.items(): monkeypatch.setenv(k, v)
    if hasattr(os, 'fork'): monkeypatch.setattr(children, 'subprocess', SimpleNamespace(Popen=forked))
    def run(parts, seconds=320, ahead=False):
        monkeypatch.setattr(gpu, 'PARTS', parts)
        told = []
        gpu.conduct(list(parts), seconds, tmp_path, tmp_path, sys.executable, ahead=ahead, tell=told.append)
        return told, report.read(tmp_path / 'results.jsonl')
    return run


def odd(function, seconds=60, beside=()): return Part(f'odd.parts.{function}', seconds, 'a test', beside)


@pytest.mark.parametrize('ahead, wrong',
                         [(False, ('fails', 'dies', 'missing', 'nowhere')), (True, ('fails', 'nowhere'))])
def test_a_part_that_goes_wrong_takes_no_other_with_it(odd_day, tmp_path, ahead, wrong):
    told, rows = odd_day({name: odd(name) for name in (*wrong, 'fine')}, ahead=ahead)
    assert [t.split(',')[0].split(' (')[0] for t in told] == [*(f'{name}: failed' for name in wrong), 'fine: done']
    assert {r['part'] for r in rows if 'error' in r} == {*wrong}
    assert [(r['part'], r['value']) for r in rows if 'value' in r] == [('fails', 1), ('fine', 1.5)], (
        'figures of before stay'
    )
    assert 'fails, part: failed (status 1); see log.txt' in report.summary(rows)
    assert 'no such kernel' in (tmp_path / 'log.txt').read_text(encoding='utf-8')


def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    return Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z' if Path('/proc').is_dir() else True


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(odd_day):
    start = time.monotonic()
    told, rows = odd_day(dict(hangs=odd('hangs', 4), fine=odd('fine', 60)), seconds=68)
    assert 'stopped after' in told[0] and told[1].startswith('fine: done') and time.monotonic() - start < 90
    child = next(r['child'] for r in rows if 'child' in r)
    time.sleep(.5)
    assert not alive(child)


def test_when_the_time_is_over_the_rest_is_named(odd_day):
    told, _ = odd_day(dict(fine=odd('fine'), late=odd('fine'), later=odd('fine')), seconds=gpu.LEAST + gpu.SPARE - 1)
    assert told == [f'{p}: no time left' for p in ('fine', 'late', 'later')]


def test_a_part_knows_when_it_is_stopped(odd_day):
    "What it takes to start is part of its time."
    _, rows = odd_day(dict(asks=odd('asks', 60)), seconds=60 + gpu.SPARE)
    (left,) = [r['left'] for r in rows if 'left' in r]
    assert 0 < left < 58.8


def test_time_that_is_left_over_is_shared_out(monkeypatch):
    monkeypatch.setattr(gpu, 'PARTS', dict(a=odd('fine', 10, ('b',)), b=odd('fine', 30), c=odd('fine', 70)))
    assert gpu.groups(['a', 'b', 'c']) == [['a', 'b'], ['c']] and gpu.groups(['b', 'c']) == [['b'], ['c']]
    assert gpu.stretched([['a', 'b'], ['c']], 200) == 2 and gpu.stretched([['c']], 140) == 2
    assert gpu.stretched([['a', 'b'], ['c']], 50) == 1, 'the first ones get what was planned for them'


def test_the_plan_fits_into_nine_minutes():
    planned = sum(map(gpu.planned, gpu.groups(list(PARTS))))
    assert planned <= gpu.arguments([]).seconds <= 525 and max(p.seconds for p in PARTS.values()) < 120


# --- what is written ---

def lines(card, smoke=False, run='1', **more):
    base = dict(run=run, card=card, smoke=smoke)
    return [
        base | dict(part='versions', name='versions', python='3.12.3', torch='2.11.0', cores=16, commit='abcdef012'),
        base | dict(part='step', name='judged', what='speed', asked='≥ 4', got='3.9', verdict='**missed**'),
        base | dict(part='step', name='step', what='bf16 | eager', ms=1.23456),
        base | dict(part='fold', name='stage', error='OutOfMemoryError: in /usr/lib/x/y.py') | more,
    ]


def write(folder, rows):
    (folder / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows) + '{"cut off', encoding='utf-8')
    results = folder / 'PROJECT.md'
    results.write_text('# Benchmarks\n\nbefore\n', encoding='utf-8')
    for _ in range(2): gpu.write(folder, results)
    return results.read_text(encoding='utf-8')


def test_each_card_has_its_section(tmp_path):
    text = write(tmp_path, lines('Card One') + lines('Card One', run='2') + lines('Card 2') + lines(None, smoke=True)
                 + lines('Card One', smoke=True))
    assert (
        text.startswith('# Benchmarks\n\nbefore\n')
        and text.count('## On a GPU: Card One') == 1
        and text.count('## On a GPU: Card 2') == 1
    )
    assert 'On a GPU: none' not in text and 'says nothing of speed' not in text, (
        'what is small stays out of the project'
    )
    assert ('| speed | ≥ 4 | 3.9 | **missed** |' in text and '| bf16 / eager | 1.235 |' in text
            and 'commit abcdef0.' in text)
    assert '**stage** failed: OutOfMemoryError: in …/y.py' in text, 'no paths of one machine'
    assert text.count('<!-- gpu-card-one: ') == 1 and 'On a GPU: none' in (tmp_path / 'RESULTS.md').read_text(
        encoding='utf-8'
    )


def test_a_later_run_of_some_parts_keeps_the_others(tmp_path):
    later = [r for r in lines('Card One', run='2') if r['part'] == 'step']
    later[1]['ms'] = 9.
    text = write(tmp_path, lines('Card One') + later)
    assert '| bf16 / eager | 9 |' in text and '1.235' not in text and 'torch 2.11.0' in text


def test_a_target_can_be_missed_and_nothing_small_is_judged(tmp_path, monkeypatch):
    code = ("from gpu_parts import tools; tools.judge('a', 4, 3.9); tools.judge('b', 4, 4.1); tools.judge('c', 2, "
            "2.1, False, 's'); tools.judge('d', True, False)")
    def verdicts(smoke):
        (tmp_path / 'results.jsonl').unlink(missing_ok=True)
        env = os.environ | dict(GPU_LINE=json.dumps(dict(run='1', card=None, smoke=smoke)), GPU_OUT=str(tmp_path),
                                GPU_SCRATCH=str(tmp_path),
                                PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / 'benchmarks'))))
        assert warm('-c', code, env=env).returncode == 0
        return [(r['asked'], r['got'], r['verdict']) for r in report.read(tmp_path / 'results.jsonl')]

    assert verdicts(False) == [('≥ 4', '3.9', '**missed**'), ('≥ 4', '4.1', 'holds'), ('≤ 2 s', '2.1 s', '**missed**'),
                               ('yes', 'no', '**missed**')]
    assert {v for *_, v in verdicts(True)} == {'not judged'}


UF1 = """
import json
from gpu_parts import loso
def run(*wrong, of=8): return [dict(dataset='d', subject=str(i), labels=[0, 1, 2], predictions=[0, 1, 0 if i in wrong \
else 2]) for i in range(of)]
loso.against(run(), [run(1), run(1, 2), run(2)])            # near the CPU
loso.against(run(*range(8)), [run(1), run(1, 2), run(2)])   # far from it
loso.against(run(of=3), [run(1), run(1, 2)])                # the CPU was stopped after three folds
loso.against(run(), [run()])                                # one seed has no spread
"""


def test_uf1_is_compared_on_the_folds_that_all_have(tmp_path):
    env = dict(GPU_LINE=json.dumps(dict(run='1', card=None, smoke=False)), GPU_OUT=str(tmp_path),
               GPU_SCRATCH=str(tmp_path), PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / 'benchmarks'))))
    done = warm('-c', UF1, env=os.environ | env)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = report.read(tmp_path / 'results.jsonl')
    near, far, few = (r for r in rows if r['name'] == 'judged')
    assert near['verdict'] == 'holds' and far['verdict'] == '**missed**' and '3 folds' in few['what']
    assert [r['folds'] for r in rows if r['name'] == 'uf1'] == [8, 8, 3, 8] and rows[-1]['noise'] is None
