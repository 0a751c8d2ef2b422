"""What every part uses: a line for each figure, a verdict for each figure that was asked for, and times."""
import gc
import json
import math
import os
import statistics
import time
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from turns import in_turns, verdict

# what every line says: when the run began, the card, whether it is small
LINE = json.loads(os.environ['GPU_LINE'])
SMOKE = LINE['smoke']
OUT, SCRATCH = Path(os.environ['GPU_OUT']), Path(os.environ['GPU_SCRATCH'])
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
here = SimpleNamespace(part='', until=math.inf)      # the part that this process runs, and when it is stopped


def plain(value):
    "What JSON can hold: numbers with at most six digits, and no NaN."
    if isinstance(value, dict): return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [plain(v) for v in value]
    if isinstance(value, float): return float(f'{value:.6g}') if math.isfinite(value) else str(value)
    return value


def emit(name, **values):
    "A line of results.jsonl, and of the log."
    line = json.dumps(LINE | dict(part=here.part, name=name) | plain(values), default=str)
    with open(OUT/'results.jsonl', 'a', encoding='utf-8') as f: f.write(line + '\n')
    print(line, flush=True)


def judge(what, asked, got, at_least=True, unit=''):
    "A line that says what was asked for, what was found, and whether it holds. Nothing small on a CPU is judged."
    yes = isinstance(asked, bool)
    wanted = 'yes' if yes else f'{"≥" if at_least else "≤"} {asked:g} {unit}'.strip()
    found = ('yes' if got else 'no') if yes else f'{got:.3g} {unit}'.strip()
    emit('judged', what=what, asked=wanted, got=found, verdict='not judged' if SMOKE else verdict(asked, got, at_least))


@contextmanager
def attempt(name):
    "One measurement of a part: an error is a line, and the next one begins with free memory."
    start = time.perf_counter()
    try: yield
    except Exception as e:
        emit(name, error=f'{type(e).__name__}: {e}'[:600], seconds=time.perf_counter() - start)
        traceback.print_exc()
    finally: free()


def free():
    "Give back the memory of what is no longer needed."
    gc.collect()
    if DEVICE == 'cuda': torch.cuda.empty_cache()


def few_faces():
    "In small, `synth` is three faces of ten small clips."
    if not SMOKE: return
    from mpfnet.synthetic import synth
    synth.make_synth = partial(synth.make_synth, subjects=3, size=32)


def cores(spare): return max(1, min(14, (os.cpu_count() or 2) - spare))


def seconds_left(): return here.until - time.time()


def sync():
    if DEVICE == 'cuda': torch.cuda.synchronize()


def ms(step, rounds=10, warm=3, device=DEVICE):
    "Milliseconds of a call: {ms: median, least, most}."
    found = in_turns({'': step}, 1 if SMOKE else rounds, device, warm=0 if SMOKE else warm)['']
    return {k: 1e3*f(found) for k, f in dict(ms=statistics.median, least=min, most=max).items()}


def timed(make):
    "(what it makes, seconds on the clock until the GPU is done)"
    sync()
    start = time.perf_counter()
    out = make()
    sync()
    return out, time.perf_counter() - start


def forget_peak():
    if DEVICE == 'cuda': torch.cuda.reset_peak_memory_stats()


def peak_gb(): return torch.cuda.max_memory_allocated()/2**30 if DEVICE == 'cuda' else 0.


def held_gb(): return torch.cuda.memory_allocated()/2**30 if DEVICE == 'cuda' else 0.


def lines(part, name):
    "What a part has written on this card, in this run or before; the newest last."
    try: text = (OUT/'results.jsonl').read_text(encoding='utf-8')
    except FileNotFoundError: return []
    rows = map(json.loads, text.splitlines())
    return [r for r in rows if (r['card'], r['smoke'], r['part'], r['name']) == (LINE['card'], SMOKE, part, name)]
