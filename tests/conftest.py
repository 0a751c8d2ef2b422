"""Shared by the tests: quiet hypothesis, a look-alike of the public flow release, and the real one where it is at
hand."""
import multiprocessing
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forks import forked_workers
from hypothesis import settings

from mpfnet.core.keep import locked
from mpfnet.synthetic import synth
from mpfnet.synthetic.synth import make_synth

# read when triton is imported: kernels of our own on CPU tensors
if not torch.cuda.is_available(): os.environ['TRITON_INTERPRET'] = '1'
torch.set_num_threads(1)      # small tensors: more threads only wait for each other
settings.register_profile('mpfnet', deadline=None)
settings.load_profile('mpfnet')

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / 'benchmarks'))
from flow_lookalike import write_flow_release

# cheap settings for tests that are about the machinery, not about scores
CHEAP = 'pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2,encoder.width=0.125'
CHEAP_RIVALS = ('fdp.updates=1,afn.epochs=1,fmanet.epochs=1,phase_flows.size=32,phase_flows.side=16,'
                'skd_tstsan.updates=1,skd_tstsan.width=0.125,skd_tstsan.side=16,three_streams.size=32,'
                'three_streams.flow=dis,ststnet.epochs=2,lbp_top.size=32,bi_woof.size=32,strain.size=32,'
                'plau.updates=2,plau.batch=8,fusion.chosen=false')

# what `synth_root` holds: five subjects of ten clips
FEW_FACES = dict(subjects=5, size=48)


# the files that take longest: they are begun first, so that no process is left with one of them when the others are
# done
LONGEST = ('papermill loso leakage site benchmarks cli paper keep ray kernels gpu_day copies explain splits gpu '
           'structure frames guard face fdp broken_inputs compare drift').split()


def pytest_collection_modifyitems(items):
    "Whole files, the longest first; the order in a file stays."
    rank = {f'test_{name}': k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope='session', autouse=True)
def workers_start_at_once():
    if sys.platform != 'linux': return (yield)
    get_context = forked_workers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, 'get_context', get_context)
        patch.setattr('mpfnet.core.workers.get_context', get_context)
        yield


@pytest.fixture(scope='session', autouse=True)
def features_are_computed_once(tmp_path_factory):
    """Of one data set, by one process: a second run of it, in another folder, gets the first one's rows if it asks for
    exactly the same keys, which are made from the bytes of all files, the settings and the code. What is about
    computing them asks a store by itself, uses few clips, or several processes."""
    from mpfnet import store
    kept, real = tmp_path_factory.mktemp('rows'), store.compute_rows

    def keep(key, entry, row):
        made = kept/f'{key}.{os.getpid()}'
        made.write_bytes(store.as_line(entry) + row)
        made.replace(kept/key)

    def add(table, found):
        "Rows that are known, behind those that are there."
        table.folder.mkdir(parents=True, exist_ok=True)
        with locked(table.folder/'lock'):
            if any(store.beyond(table)) or any(entry['key'] in table.rows for entry, _ in found): return False
            n = len(table.index)
            with open(table.data, 'ab') as f: f.write(b''.join(row for _, row in found))
            lines = [store.as_line(entry | dict(row=n + k)) for k, (entry, _) in enumerate(found)]
            with open(table.lines, 'ab') as f: f.write(b''.join(lines))
            table.refresh()
        return True

    def known(job, phi, key):
        line, _, row = (kept/key).read_bytes().partition(b'\n')
        return store.entry_of(line + b'\n') | dict(clip=job.name, phi=phi), row

    def compute_rows(of, todo, digest, workers, progress):
        of_a_run = of.root.parts[-2:] == ('cache', 'features')
        if workers > 1 or not of_a_run or len(todo) < 20: return real(of, todo, digest, workers, progress)
        if all((kept/key).exists() for *_, key in todo) and add(of.table, [known(*t) for t in todo]): return
        real(of, todo, digest, workers, progress)
        rows, data = of.table.refresh().rows, of.table.data
        if of.table.bytes * len(todo) > 30e6: return
        with open(data, 'rb') as f:
            for *_, key in todo:
                f.seek(rows[key] * of.table.bytes)
                keep(key, of.table.index[rows[key]], f.read(of.table.bytes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, 'compute_rows', compute_rows)
        yield


@pytest.fixture(scope='session')
def flow_root(tmp_path_factory):
    "Data root with a look-alike of megc2019_flow; do not change it."
    return write_flow_release(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='session')
def synth_root(tmp_path_factory):
    "Data root with synthetic clips, fewer and smaller than a user's; do not change it."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synth, 'make_synth', partial(make_synth, **FEW_FACES))
        root = tmp_path_factory.mktemp('synth')
        make_synth(root / 'synth', **FEW_FACES)
        yield root


@pytest.fixture
def real_root():
    "Data root with the real public flow release."
    for root in (os.environ.get('MPFNET_DATA'), ROOT.parent / 'shared' / 'data'):
        if root and (Path(root) / 'megc2019_flow').is_dir(): return Path(root)
    pytest.skip('needs the public flow release: set MPFNET_DATA to the folder that holds megc2019_flow/')


# --- toy clips of rivals that read an array of their own

def four_subjects():
    "24 clips of three classes."
    return pd.DataFrame(
        dict(dataset='demo', subject=[f's{i // 6}' for i in range(24)], clip=[f'c{i:02}' for i in range(24)],
             label=[0, 0, 0, 1, 1, 2] * 4, input='frames')
    )


def subject_as_noise(clips, x, subject):
    "Features and labels of a subject, replaced."
    mine, noisy, labels = np.flatnonzero(clips['subject'] == subject), x.copy(), clips['label'].to_numpy().copy()
    noisy[mine] = np.random.default_rng(9).normal(3, 5, (len(mine), *x.shape[1:]))
    labels[mine] = 2 - labels[mine]
    return clips.assign(label=labels), noisy
