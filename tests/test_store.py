"""The feature store under violence: kill -9 while it fills, two processes at once, torn files, and properties of
rows."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpfnet.preprocess import PreprocessConfig, clip_features
from mpfnet.store import FeatureStore, RowFile, corrupt_rows, open_rows
from mpfnet.synthetic.synth import make_synth

CONFIG = PreprocessConfig(size=32, length=5)

FILL = """
import sys, pandas as pd
from mpfnet.preprocess import PreprocessConfig
from mpfnet.store import FeatureStore
clips = pd.read_pickle(sys.argv[1])
if sys.argv[3] == 'backwards': clips = clips.iloc[::-1]
store = FeatureStore(sys.argv[2], PreprocessConfig(size=32, length=5))
print('ready', flush=True)
store.ensure(clips, progress=False)
"""


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = make_synth(tmp_path_factory.mktemp('data')/'synth', subjects=3, clips=60, size=64)
    table = pd.read_csv(root/'annotation.csv').assign(dataset='synth', input='frames')
    table['frames'] = [{int(p.stem[3:]): str(p) for p in sorted((root / 'frames' / r.subject / r.clip).iterdir())}
                       for r in table.itertuples()]
    return table


@pytest.fixture(scope='module')
def expected(clips, tmp_path_factory):
    "The store as it looks when nobody disturbs it: (features, index) bytes."
    store = FeatureStore(tmp_path_factory.mktemp('undisturbed'), CONFIG)
    store.ensure(clips, progress=False)
    return store.table.data.read_bytes(), store.table.lines.read_bytes()


def start(clips, root, tmp_path, order='forwards'):
    table = tmp_path/'clips.pkl'
    clips.to_pickle(table)
    env = {**os.environ,
           'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')])}
    p = subprocess.Popen([sys.executable, '-c', FILL, str(table), str(root), order], stdout=subprocess.PIPE, env=env)
    assert p.stdout.readline().strip() == b'ready'
    return p


@pytest.mark.parametrize('rows_before_kill', [1, 20])
def test_kill_9_while_filling(clips, expected, tmp_path, rows_before_kill):
    "Whatever moment the process dies in, the store is valid, and finishing it gives the undisturbed bytes."
    store = FeatureStore(tmp_path/'store', CONFIG)
    p = start(clips, store.root, tmp_path)
    deadline = time.monotonic() + 60
    while len(store.table.refresh().index) < rows_before_kill:
        assert time.monotonic() < deadline and p.poll() is None, 'the process was to be killed while it works'
    p.send_signal(signal.SIGKILL)
    assert p.wait() == -signal.SIGKILL
    after = FeatureStore(store.root, CONFIG)
    found = len(after.F)
    assert rows_before_kill <= found < len(clips) and after.verify() == found
    rows = after.ensure(clips, progress=False)
    assert np.array_equal(rows, np.arange(len(clips)))
    assert (after.table.data.read_bytes(), after.table.lines.read_bytes()) == expected


def test_two_processes_fill_one_store(clips, tmp_path):
    "Both succeed, no row is there twice, and every clip has its own features."
    store = FeatureStore(tmp_path/'store', CONFIG)
    processes = [start(clips, store.root, tmp_path, order) for order in ('forwards', 'backwards')]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    assert store.verify() == len(clips)
    rows = store.ensure(clips, progress=False)
    assert sorted(rows) == list(range(len(clips))) and len({e['key'] for e in store.table.index}) == len(clips)
    for i in (0, 30, 59): assert np.array_equal(store.F[rows[i]], clip_features(clips.iloc[i], CONFIG))


@pytest.mark.parametrize('cut', [1, 17, 200])
def test_any_torn_end_is_repaired(clips, expected, tmp_path, cut):
    "Cut either file short, or add rubbish: what is left is valid and the rest is computed again, to the same bytes."
    store = FeatureStore(tmp_path/'store', CONFIG)
    store.ensure(clips.head(10), progress=False)
    t = store.table
    whole = t.data.read_bytes(), t.lines.read_bytes()
    for data, lines in ((whole[0], whole[1][:-cut]), (whole[0][:-cut], whole[1]),
                        (whole[0] + b'x' * cut, whole[1] + b'{"key": "x' * cut)):
        t.data.write_bytes(data)
        t.lines.write_bytes(lines)
        again = FeatureStore(store.root, CONFIG)
        assert again.verify() in (9, 10)
        again.ensure(clips.head(10), progress=False)
        assert again.verify() == 10
        again.ensure(clips, progress=False)
        assert (t.data.read_bytes(), t.lines.read_bytes()) == expected
        t.data.write_bytes(whole[0])
        t.lines.write_bytes(whole[1])


def test_key_depends_on_pixels_config_and_phi(clips, tmp_path):
    "Other pixels, another configuration or another φ never find an old row."
    store = FeatureStore(tmp_path/'store', CONFIG)
    one = clips.head(1)
    assert store.ensure(one, progress=False)[0] == 0 and store.ensure(one, [1], progress=False)[0] == 1
    assert FeatureStore(store.root, PreprocessConfig(size=32, length=6)).table.folder != store.table.folder
    row, path = one.iloc[0], tmp_path/'other.png'
    path.write_bytes(Path(clips.iloc[5]['frames'][clips.iloc[5]['apex']]).read_bytes())
    changed = one.copy()
    changed['frames'] = [{**row['frames'], row['apex']: str(path)}]
    assert store.ensure(changed, progress=False)[0] == 2
    moved = one.copy()  # the same pixels under another name are the same row
    copy = tmp_path/'same.png'
    copy.write_bytes(Path(row['frames'][row['apex']]).read_bytes())
    moved['frames'] = [{**row['frames'], row['apex']: str(copy)}]
    assert store.ensure(moved, progress=False)[0] == 0


def test_broken_frame_names_clip_and_file(clips, tmp_path):
    bad = clips.head(3).copy()
    path = tmp_path/'broken.png'
    path.write_bytes(Path(bad.iloc[1]['frames'][bad.iloc[1]['apex']]).read_bytes()[:900])
    bad['frames'] = [f if i != 1 else {**f, r.apex: str(path)}
                     for i, (f, r) in enumerate(zip(bad['frames'], bad.itertuples()))]
    store = FeatureStore(tmp_path/'store', CONFIG)
    for workers in (1, 2):
        with pytest.raises(ValueError) as e: store.ensure(bad, workers=workers, progress=False)
        assert 'broken.png' in str(e.value) and bad.iloc[1]['clip'] in str(e.value) and 'truncated' in str(e.value)
    assert store.verify() == 1  # what was done before the error is kept


def test_missing_files_are_all_named_first(clips, tmp_path):
    bad = clips.head(20).copy()
    bad['frames'] = [{n: p + '.gone' for n, p in f.items()} for f in bad['frames']]
    store = FeatureStore(tmp_path/'store', CONFIG)
    with pytest.raises(ValueError) as e: store.ensure(bad, progress=False)
    assert str(e.value).startswith('40 missing files') and str(e.value).count('.gone') == 10
    assert not store.table.folder.exists()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(st.sampled_from('abcdefgh'), min_size=1, max_size=12), cut_data=st.integers(0, 40),
       cut_lines=st.integers(0, 400))
def test_rows_come_back_as_written(tmp_path_factory, keys, cut_data, cut_lines):
    "Any keys in any order, any cut at the ends: the rows that count are a prefix, and hold what was written."
    t = RowFile(tmp_path_factory.mktemp('rows'), (2, 3))
    for k in keys: assert t.append(k, np.full((2, 3), ord(k))) == list(dict.fromkeys(keys)).index(k)
    for path, cut in ((t.data, cut_data), (t.lines, cut_lines)): os.truncate(path, max(0, path.stat().st_size - cut))
    again = RowFile(t.folder, (2, 3)).refresh()
    distinct = list(dict.fromkeys(keys))
    assert [e['key'] for e in again.index] == distinct[:len(again.index)] and not corrupt_rows(again)
    for k in keys: again.append(k, np.full((2, 3), ord(k)))
    assert [int(r[0, 0]) for r in open_rows(again)] == [ord(k) for k in distinct] and not corrupt_rows(again)


@pytest.mark.parametrize(
    'text',
    [
        '[]', '{"shape": 3}', '{"shape": [5, 10, 16, 16]}',
        '{"shape": [5, 10, 16, 16], "settings": [], "input": "frames"}',
    ],
)
def test_a_store_that_does_not_say_what_it_is_is_a_sentence(tmp_path, text):
    from mpfnet.store import verify_folder
    (tmp_path/'store.json').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match='store.json'): verify_folder(tmp_path)
