"""`make notebooks`: nbdev_test, and beside it what each cell has stored against what it says now. One execution does
both.

All that `nbdev_test --help` lists may be asked here, too: `python tests/pages.py --path nbs/00b_metrics.ipynb`.
"""
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import nbdev.config
import nbdev.test
import pandas as pd
from execnb.shell import CaptureShell
from forks import forked_workers
from matplotlib_inline.config import InlineBackend

#: what may be another one every time
VARIES = [
    (r'<[^>]*>', ' '),                                                              # tags, and the address of an object
    (r'\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.+]\S+)?)?', ' DATE '),
    (r'(?<!\.)\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}(?:…|\b)', ' HASH '),
    (r'(?<![\d.])\d{8}(?![\d.])', ' HASH '),                                   # one of forty hashes has no letter
    (r'(?<![\w.…])(?:~|[A-Z]:)?(?:[/\\][\w.+…-]+){2,}', ' PATH '),
    (r'\btmp\w+', ' PATH '),
    (r'\b\d+\.\d+\.\d+(?:[.+]\w+)*', ' VERSION '),
    (r'-?\d[\d.]*(?:\s*(?:±|to|–|-)\s*\d[\d.]*)?\s*(?:µs|ms|s|seconds?|min|minutes?|h|hours?)\b(?:/\w+)?', ' TIME '),
    (r'[-─=━]{3,}', ' '),
    (r'\b(?:Posix|Windows)Path\b', 'Path'),                                      # fastcore prints a path in its own way
]
NUMBER = re.compile(r'[-−]?\d+(?:\.\d*)?(?:e[-+]?\d+)?')


def tokens(text):
    "Words and numbers of an output, without what varies."
    for pattern, instead in VARIES: text = re.sub(pattern, instead, text)
    return re.findall(rf'{NUMBER.pattern}|[^\W\d]+|[^\w\s]', text)


def alike(a, b):
    "Two words, or two numbers that differ by rounding at most."
    if a == b: return True
    if not (NUMBER.fullmatch(a) and NUMBER.fullmatch(b)): return False
    x, y = (float(t.replace('−', '-')) for t in (a, b))
    decimals = min(len(t.partition('e')[0].partition('.')[2]) for t in (a, b))
    if 'e' not in a + b and not decimals: return x == y         # a count
    last = 0 if 'e' in a + b else 1.01 * 10**-decimals
    return abs(x - y) <= max(last, 2e-3 * max(abs(x), abs(y)), 1e-6)


def said(outputs):
    "What a cell said: its text, and whether there was a picture. Not what went to stderr."
    text, picture = [], False
    for o in outputs:
        if o['output_type'] == 'stream':
            if o['name'] == 'stdout': text.append(''.join(o['text']))
            continue
        data = o.get('data', {})
        picture |= any(k.startswith('image/') for k in data)
        shown = next((data[k] for k in ('text/html', 'text/markdown', 'text/plain') if k in data), '')
        if not any(k.startswith('image/') for k in data):
            text.append(re.sub(r'<style.*?</style>', '', ''.join(shown), flags=re.S))
    return text, picture


def difference(stored, now):
    "In words, how two lists of outputs differ; '' if they say the same."
    (a, picture), (b, pictured) = said(stored), said(now)
    if picture != pictured:
        return f'a picture is {"stored" if picture else "made"} and {"not made" if picture else "not stored"}'
    a, b = (tokens('\n'.join(sorted(t))) for t in (a, b))
    for k, (x, y) in enumerate(zip(a, b, strict=False)):
        if not alike(x, y):
            return f'stored “{" ".join(a[max(0, k - 6) : k + 6])}”, now “{" ".join(b[max(0, k - 6) : k + 6])}”'
    return (
        ''
        if len(a) == len(b) else f'{len(a)} words are stored, now there are {len(b)}: '
             f'“{" ".join((a if len(a) > len(b) else b)[min(len(a), len(b)) :][:12])}”'
    )


def compared(cell):
    "Unless the page says why not; and execnb drops what a last line with ; prints."
    return 'varies' not in cell.metadata.get('tags', []) and not cell.source.rstrip().endswith(';')


@contextlib.contextmanager
def left_as_found():
    "Pages share a process: which warnings are shown, and what the environment says, ends with the page that set it."
    environ = dict(os.environ)
    pd.reset_option('display')
    try:
        with warnings.catch_warnings(): yield
    finally:
        os.environ.clear()
        os.environ.update(environ)


class Compared(CaptureShell):
    """Runs a page, then says which cells no longer say what they have stored. Pictures are drawn once, and not twice as
    fine: that there is one is all that is compared."""
    def __init__(self, path=None, mpl_format='png', **kwargs):
        InlineBackend.instance().print_figure_kwargs = dict(bbox_inches=None)
        super().__init__(path, mpl_format=mpl_format, **kwargs)

    def run_all(self, nb, exc_stop=False, preproc=None, **kwargs):
        stored = {}

        def before(cell):
            if preproc(cell): return True
            stored[cell.id], cell.outputs = json.loads(json.dumps(cell.outputs)), []
        with left_as_found(): super().run_all(nb, exc_stop=exc_stop, preproc=before, **kwargs)
        wrong = [f'cell {c.idx_} ({c.id}): {d}' for c in nb.cells if c.get('id') in stored and compared(c)
                 if (d := difference(stored[c.id], c.outputs))]
        if wrong:
            self.exc = AssertionError(
                '\n'.join(['another output is stored; run the page again, or give the cell the tag `varies`:', *wrong])
            )
            raise self.exc


nbdev.test.CaptureShell = Compared


# --- what many pages make is made once

def drawn_once(make, shelf):
    """`make_synth`, which draws a data set once and then copies it: it is decided, byte for byte, by what it is asked.
    Where there is something already, it looks for itself; the page that defines it runs what it defines."""
    from mpfnet.core.keep import locked
    def make_synth(root, **asked):
        root, kept = Path(root), shelf/'-'.join(['synth', *(f'{k}={v}' for k, v in sorted(asked.items()))])
        if root.exists(): return make(root, **asked)
        with locked(shelf/'lock'):
            if not kept.exists(): make(kept, **asked)
        shutil.copytree(kept, root)
        return root
    return make_synth


@contextlib.contextmanager
def made_once():
    "For all pages of this call, where they are this library's."
    if not nbdev.config.get_config().lib_path.exists(): return (yield)
    from mpfnet.core import workers
    from mpfnet.synthetic import synth
    with tempfile.TemporaryDirectory() as shelf:
        synth.make_synth = drawn_once(synth.make_synth, Path(shelf))
        os.environ['IN_TEST'] = '1'                      # as nbdev_test sets it before it runs a page
        if sys.platform == 'linux':
            workers.get_context = multiprocessing.get_context = forked_workers()
        yield


if __name__ == '__main__':
    with made_once(): nbdev.test.nbdev_test()
