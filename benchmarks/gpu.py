"""A GPU's first day: everything that only a card can tell, in at most nine minutes, the most valuable first.

    python benchmarks/gpu.py                   or: make gpu
    python benchmarks/gpu.py --data FOLDER     the folder that holds megc2019_flow/; else MPFNET_DATA; else a look-alike
    is made
    python benchmarks/gpu.py --only step,fold --seconds 200
    python benchmarks/gpu.py --smoke           all parts in small, without a GPU: says nothing of speed

Nothing needs to be installed but what the library imports, and PyTorch with CUDA. Each part is a process of its own
with a
time box: one that fails, hangs or breaks the GPU's context takes no other with it. runs/gpu/ ($OUT, --folder) gets
results.jsonl, a line as each figure is made; log.txt; summary.txt; and RESULTS.md, the section that also goes into
benchmarks/RESULTS.md.
"""
import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [p for p in (str(HERE), str(ROOT)) if p not in sys.path]

from gpu_parts import PARTS, report
from gpu_parts.children import begin, end, end_noted
from results import RESULTS, write_section

NEEDED = ('torch', 'numpy', 'pandas', 'cv2', 'sklearn', 'safetensors', 'filelock', 'threadpoolctl', 'tqdm')
LEAST = 8          # seconds under which no part is begun
SPARE = 4          # seconds kept for the report


# --- which Python ---

PROBE = f"""
import json
from importlib.util import find_spec
import sys
found = dict(missing=[m for m in {NEEDED} if not find_spec(m)], torch=None, card=None)
if sys.version_info < (3, 11): found['missing'].append('Python 3.11 or newer')
if 'torch' not in found['missing']:
    import torch
    found |= dict(torch=torch.__version__, card=torch.cuda.get_device_name() if torch.cuda.is_available() else None)
print(json.dumps(found))
"""


def probe(python):
    "What a Python has: {missing packages, torch's version, the card that it sees}; None if it is none."
    ask = [str(python), '-c', PROBE]
    try: done = subprocess.run(ask, capture_output=True, text=True, encoding='utf-8', timeout=120)
    except (OSError, subprocess.TimeoutExpired): return None
    try: return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError): return None


def candidates():
    "This Python, the project's own, and the one of the command line."
    own = [ROOT/'.venv'/'bin'/'python', ROOT/'.venv'/'Scripts'/'python.exe']
    found = [sys.executable, *(str(p) for p in own if p.exists()), shutil.which('python3'), shutil.which('python')]
    return list(dict.fromkeys(p for p in found if p))


def chosen(pythons, smoke=False):
    """The first Python that sees a card and has what the library imports; with `smoke`, no card is needed.

    Where there is none, a SystemExit says what each of them lacks."""
    seen = {}
    for python in pythons:
        seen[python] = found = probe(python)
        if found and not found['missing'] and (found['card'] or smoke): return python, found
    lines = '\n  '.join(lacks(p, f) for p, f in seen.items())
    raise SystemExit(
        f'expected a Python whose PyTorch sees a GPU, found none:\n  {lines}\n'
        'Name another one (make gpu PYTHON=…), or install a CUDA build of torch there (pytorch.org/get-started). '
        'Without a GPU: --smoke runs all parts in small.'
    )


def lacks(python, found):
    "What a Python lacks, and what brings it."
    if not found: return f'{python} does not start'
    if not found['torch']: return f'{python} has no torch'
    if not found['card']: return f'{python} has torch {found["torch"]}, which sees no GPU'
    names = ' '.join({'cv2': 'opencv-python-headless', 'sklearn': 'scikit-learn'}.get(m, m) for m in found['missing'])
    return f'{python} sees {found["card"]}, but lacks packages: "{python}" -m pip install {names}'


# --- one part ---

def work(part, entry):
    "What a part's process does: import, wait for its turn, measure until it is done or stopped."
    module, _, function = entry.rpartition('.')
    from gpu_parts import tools
    f = getattr(import_module(module if '.' in module else f'gpu_parts.{module}'), function)
    turn = sys.stdin.readline()                        # when it is stopped; nothing, if the conductor is gone
    if not turn.strip(): return
    tools.here.part, tools.here.until = part, float(turn)
    f()


class Running:
    "A part that was started: it imports what it needs, and waits to be told to go."
    def __init__(self, part, scratch, python, log):
        self.part, self.note = part, scratch/f'children-{part}'
        command = [python, str(HERE/'gpu.py'), '--part', part, PARTS[part].entry]
        self.process = begin(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    def go(self, seconds):
        self.began, self.until = time.monotonic(), time.monotonic() + seconds
        try:
            self.process.stdin.write(f'{time.time() + seconds - 1}\n')
            self.process.stdin.close()
        except OSError:
            pass                            # it is dead already: seen at the next look
    def over(self):
        "None while it works; else how it ended."
        status, late = self.process.poll(), time.monotonic() > self.until
        if status is None and not late: return None
        self.stop()
        if status is None: return f'stopped after {self.until - self.began:.0f} s'
        return f'failed (status {status})' if status else 'done'
    def stop(self):
        end(self.process.pid)
        end_noted(self.note)
        self.process.wait()


# --- the conductor ---

def groups(wanted):
    "Parts that run one after another, each with those that run beside it."
    beside, out = set(), []
    for part in wanted:
        if part in beside: continue
        others = [p for p in PARTS[part].beside if p in wanted]
        beside |= {*others}
        out.append([part, *others])
    return out


def planned(group): return max(PARTS[p].seconds for p in group)


def stretched(todo, left): # groups that are still to come; seconds
    """How much longer than planned a part may take: what others did not need is shared out. While there is time,
    nobody gets less."""
    return max(1., left/sum(map(planned, todo)))


def conduct(wanted, seconds, folder, scratch, python, ahead=False, patient=False, tell=print):
    """Run parts until the time is over; a line of results.jsonl for each that did not end well.

    ahead: a part may start, and wait, while another one works; patient: each may take all the time that is left."""
    end_at, todo, running, waiting = time.monotonic() + seconds - SPARE, groups(wanted), [], []
    with open(folder/'log.txt', 'a', encoding='utf-8') as log:
        def start(group): return [Running(p, scratch, python, log) for p in group]
        try:
            while todo:
                left = end_at - time.monotonic()
                if left < LEAST: break
                longer, group = math.inf if patient else stretched(todo, left), todo.pop(0)
                running = waiting or start(group)
                for r in running: r.go(min(PARTS[r.part].seconds*longer, left))
                waiting = start(todo[0]) if ahead and todo else []
                while running:
                    time.sleep(.1)
                    running = [r for r in running if not ended(r, folder, tell)]
        finally:
            for r in running + waiting: r.stop()
    for part in (p for group in todo for p in group): tell(f'{part}: no time left')


def ended(running, folder, tell):
    "Whether a part is over; what became of it is told."
    how = running.over()
    if not how: return False
    if how != 'done': note_end(folder, running.part, how)
    tell(f'{running.part}: {how}, {time.monotonic() - running.began:.0f} s ({PARTS[running.part].what})')
    return True


def note_end(folder, part, how):
    "A part that was stopped or has failed is a line, too."
    row = json.loads(os.environ['GPU_LINE']) | dict(part=part, name='part', error=f'{how}; see log.txt')
    with open(folder/'results.jsonl', 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')


def write(folder, results):
    "summary.txt and RESULTS.md of the folder; in benchmarks/RESULTS.md a section for each card that was measured."
    rows = report.read(folder/'results.jsonl')
    (folder/'summary.txt').write_text(text := report.summary(rows), encoding='utf-8')
    (folder/'RESULTS.md').unlink(missing_ok=True)
    for card, smoke in dict.fromkeys((r['card'], r['smoke']) for r in rows):
        key, title, lines = report.section([r for r in rows if (r['card'], r['smoke']) == (card, smoke)], card, smoke)
        command = 'python benchmarks/gpu.py' + ' --smoke'*smoke
        write_section(key, title, command, lines, folder/'RESULTS.md')
        if card and not smoke: write_section(key, title, command, lines, results)
    return text


def arguments(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=520., help='for everything (520)')
    p.add_argument('--only', default='', help='parts, separated by commas')
    p.add_argument('--skip', default='', help='likewise')
    p.add_argument('--list', action='store_true', help='the parts and their time boxes')
    p.add_argument('--smoke', action='store_true', help='all parts in small, on a CPU if there is no GPU')
    p.add_argument('--data', type=Path, help='the folder that holds megc2019_flow/')
    p.add_argument('--folder', type=Path, help='for results ($OUT, else runs/gpu)')
    p.add_argument('--out', type=Path, default=RESULTS, help='whose section is replaced (benchmarks/RESULTS.md)')
    p.add_argument('--write', action='store_true',
                   help='measure nothing: write the sections from what lies in the folder')
    p.add_argument('--part', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    unknown = [n for n in f'{a.only},{a.skip}'.split(',') if n and n not in PARTS]
    if unknown: p.error(f'unknown part {unknown[0]!r}; known: {", ".join(PARTS)}')
    if a.data and not (a.data/'megc2019_flow').is_dir():
        p.error(f'--data {a.data}: expected a folder that holds megc2019_flow/, found none')
    return a


def measure(a, wanted, folder):
    "Choose a Python, and run the parts with it."
    began = time.monotonic()
    python, found = chosen(candidates(), a.smoke)
    folder.mkdir(parents=True, exist_ok=True)
    tell = partial(print, flush=True)
    tell(
        f'{found["card"] or "no GPU"}; {python}, torch {found["torch"]}; at most {a.seconds:.0f} s; results in {folder}'
    )
    if a.data: os.environ['MPFNET_DATA'] = str(a.data.resolve())
    line = dict(run=datetime.now(timezone.utc).isoformat(timespec='seconds'), card=found['card'], smoke=a.smoke)
    where = [str(HERE), str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    with tempfile.TemporaryDirectory(prefix='gpu-', ignore_cleanup_errors=True) as scratch:
        os.environ |= dict(GPU_LINE=json.dumps(line), GPU_OUT=str(folder), GPU_SCRATCH=scratch,
                           PYTHONPATH=os.pathsep.join(where), PYTHONUNBUFFERED='1', OMP_NUM_THREADS='1',
                           TQDM_DISABLE='1', MPLBACKEND='Agg')
        left, ahead = a.seconds - (time.monotonic() - began), (os.cpu_count() or 1) >= 4
        conduct(wanted, left, folder, Path(scratch), python, ahead=ahead, patient=a.smoke, tell=tell)
    tell(f'{time.monotonic() - began:.0f} s in all')


def main(argv=None):
    a = arguments(argv)
    if a.part: return work(*a.part)
    wanted = [p for p in PARTS if (not a.only or p in a.only.split(',')) and p not in a.skip.split(',')]
    if a.list: return print('\n'.join(f'{p:12} {PARTS[p].seconds:4} s  {PARTS[p].what}' for p in wanted))
    folder = (a.folder or Path(os.environ.get('OUT') or ROOT/'runs'/('gpu-smoke' if a.smoke else 'gpu'))).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))      # ends the parts, too
    if not a.write:
        measure(a, wanted, folder)
    elif not (folder / 'results.jsonl').exists():
        sys.exit(f'{folder}: no results there. Run without --write first, or name another --folder')
    print(write(folder, a.out))


if __name__ == '__main__': main()
