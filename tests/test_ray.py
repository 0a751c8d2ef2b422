"""Folds on a Ray cluster: the same records, a node that dies, a driver that dies."""
import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import CHEAP, ROOT

from mpfnet import loso
from mpfnet.harness import held
from mpfnet.tools import ray_engine
from mpfnet.tools.ray_engine import (
    bring_home,
    by_value,
    cluster_address,
    connect,
    fold_task,
    give_up,
    needs,
    of_this_user,
    on_a_node,
    package_files,
    warn_if_nowhere,
)

ray = pytest.importorskip('ray', reason="pip install 'mpfnet[ray]'")
FEW = 'samm/sa00,samm/sa01,smic/sm01,smic/sm02,casme2/ca02,casme2/ca03'


@pytest.fixture(scope='module')
def cluster():
    "Two nodes of one CPU each on this machine."
    from ray.cluster_utils import Cluster
    c = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, num_gpus=1, include_dashboard=False))
    second = c.add_node(num_cpus=1)
    old = os.environ.get('RAY_ADDRESS')
    os.environ['RAY_ADDRESS'] = c.address
    yield c, second
    ray.shutdown()
    c.shutdown()
    if old is None: del os.environ['RAY_ADDRESS']
    else: os.environ['RAY_ADDRESS'] = old


def parameters(flow_root, out, **more):
    return (
        dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(out), method='mpfnet_p', subjects=FEW,
             overrides=CHEAP)
        | more
    )


def scores(run):
    return {f.name: {k: v for k, v in json.loads(f.read_text()).items() if k != 'seconds'}
            for f in (run / 'folds').glob('*.json')}


@pytest.fixture(scope='module')
def alone(flow_root, tmp_path_factory):
    return loso.run(**parameters(flow_root, tmp_path_factory.mktemp('alone')))


def test_the_same_records(cluster, alone, flow_root, tmp_path):
    "Digit for digit what one process makes, weights' hashes included; and weights come home."
    run = loso.run(**parameters(flow_root, tmp_path, engine='ray', keep_weights=True))
    assert run.name == alone.name and scores(run) == scores(alone)
    assert (len(list((run / 'weights').glob('*.safetensors'))) == 6 and (run / 'metrics.json').read_text()
            == (alone / 'metrics.json').read_text())
    assert json.loads((run / 'env.json').read_text())['folds_trained'] == 6


def test_a_benchmark_on_a_cluster(cluster, flow_root, tmp_path):
    "The same table, byte for byte, and the same folder: where folds were trained is no part of what was asked."
    from mpfnet.benchmark import benchmark
    asked = dict(methods='majority,pca_lda', datasets='megc2019_flow', seeds='0', folds=3, data_root=str(flow_root),
                 draws=200, device='cpu', progress=False)
    here, there = (benchmark(out_dir=str(tmp_path/e), engine=e, **asked) for e in ('local', 'ray'))
    assert not there.table['why'].any() and there.folder.name == here.folder.name
    for name in ('benchmark.csv', 'pairs.csv', 'benchmark.json'):
        assert (there.folder/name).read_bytes() == (here.folder/name).read_bytes()
    env = json.loads((tmp_path/'ray'/there.table['run'].iat[1]/'env.json').read_text())
    assert {p['engine'] for p in env['parts']} == {'ray'} and sum(p['folds_trained'] for p in env['parts']) == 3


def test_which_cluster(cluster, tmp_path, monkeypatch):
    """RAY_ADDRESS, else what `ray start` left here; none that somebody's program started for itself, and none that
    does not answer."""
    address = cluster[0].address
    assert cluster_address() == address
    monkeypatch.setattr(ray_engine, 'CURRENT', tmp_path / 'current')
    monkeypatch.delenv('RAY_ADDRESS')
    assert cluster_address() is None
    for there, found in ((address, address), ('127.0.0.1:1', None)):
        ray_engine.CURRENT.write_text(there)
        assert cluster_address() == found
    monkeypatch.setenv('RAY_ADDRESS', '127.0.0.1:1')
    with pytest.raises(ValueError, match='RAY_ADDRESS=127.0.0.1:1: .*nothing answers'):
        loso.run(engine='ray', out_dir=str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


def test_an_address_that_another_user_left(cluster, tmp_path, monkeypatch):
    "Whoever may write under /tmp could have it join his cluster. Pipes and folders are no addresses, either."
    monkeypatch.delenv('RAY_ADDRESS')
    monkeypatch.setattr(ray_engine, 'CURRENT', left := tmp_path / 'current')
    left.write_text(cluster[0].address)
    assert cluster_address() == cluster[0].address
    mine = os.getuid()
    monkeypatch.setattr(os, 'getuid', lambda: mine + 1)
    with pytest.warns(UserWarning, match='not used.*RAY_ADDRESS'): assert cluster_address() is None
    monkeypatch.setenv('RAY_ADDRESS', cluster[0].address)
    assert cluster_address() == cluster[0].address                          # named on purpose
    monkeypatch.undo()
    (tmp_path / 'link').symlink_to(left)
    os.mkfifo(tmp_path / 'pipe')
    assert of_this_user(tmp_path / 'link') == of_this_user(tmp_path / 'none') == ''
    for odd in ('pipe', '.'):
        with pytest.warns(UserWarning, match='not used'): assert of_this_user(tmp_path / odd) == ''


def in_a_new_process(code, **env):
    "What a program prints that knows nothing of this one's settings for Ray."
    env = {k: v for k, v in os.environ.items() if not k.startswith('RAY_')} | env
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stderr[-2000:]
    return out.stdout.split()


def test_a_driver_that_knows_the_address_only(cluster):
    code = 'from mpfnet.tools.ray_engine import connect; ray = connect(2); print(ray.get_runtime_context().gcs_address)'
    assert in_a_new_process(code, RAY_ADDRESS=cluster[0].address) == [cluster[0].address]


def test_a_cluster_of_our_own_grows_with_what_is_asked(tmp_path):
    code = f"""
from pathlib import Path
from mpfnet.tools import ray_engine
ray_engine.CURRENT = Path({str(tmp_path)!r}) / 'none'
for n in (1, 2, 1): print(int(ray_engine.connect(n).cluster_resources()['CPU']))"""
    assert in_a_new_process(code) == ['1', '2', '2']


OWN = """
import os, stat, subprocess, sys
from pathlib import Path
from mpfnet.tools import ray_engine
ray_engine.CURRENT = Path.home() / 'none'
ray = ray_engine.connect(1)
import psutil
ours = {p.pid for p in psutil.Process().children(recursive=True)} | {os.getpid()}
listening = [c for c in psutil.net_connections('inet') if c.status == 'LISTEN' and c.pid in ours]
print(*{c.laddr.ip.removeprefix('::ffff:') for c in listening})
print(stat.filemode(ray_engine.token_file().stat().st_mode), os.environ.get('RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'))
comer = f"from ray._raylet import GcsClient; \
print(len(GcsClient(address='{ray.get_runtime_context().gcs_address}').get_all_node_info()))"
env = {k: v for k, v in os.environ.items() if not k.startswith('RAY_')}
for more in ({}, {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': 'a'*64}, {'RAY_AUTH_MODE': 'token'}):
    out = subprocess.run([sys.executable, '-c', comer], env=env | more, capture_output=True, text=True)
    print('in' if out.stdout == '1\\n' else 'refused' if 'InvalidAuthToken' in out.stderr else out.stderr)
"""


def test_a_cluster_of_our_own_is_for_this_user_on_this_machine(tmp_path):
    """It listens on the loopback only, and asks for a token that nobody else can read; without it, or with another
    one, nobody comes in."""
    pytest.importorskip('psutil')
    assert in_a_new_process(OWN, HOME=str(tmp_path)) == ['127.0.0.1', '-rw-------', 'None', 'refused', 'refused', 'in']


def test_processes_stay_with_their_gpu(cluster):
    "The head node says that it has one. What a process has on it serves the next fold, too."
    ray = connect(1)
    def pid(): return os.getpid()
    pid = ray.remote(**needs('cuda', 1))(pid)
    assert len(set(ray.get([pid.remote() for _ in range(4)]))) == 1


def test_nobody_has_what_is_asked(cluster):
    with pytest.warns(UserWarning, match="'GPU': 2"): warn_if_nowhere(connect(1), 'cuda', 1 / 2)


def test_a_relative_folder_is_the_drivers(cluster, alone, flow_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = loso.run(**parameters(flow_root, 'runs', engine='ray', subjects='samm/sa00'))
    assert set(scores(run)) == {'samm__sa00.json'} and list((tmp_path / 'runs' / 'cache' / 'priors').iterdir())


def test_a_node_that_may_not_write_there(alone, flow_root, tmp_path, monkeypatch):
    "Gives the same records and weights."
    nowhere = dict(folder='/proc/none/run', artefacts='/proc/none/priors', weights='/proc/none/run/weights')
    def elsewhere(h, subjects, workers):
        for s in subjects:
            data = held(h.data)
            record, weights, _ = fold_task(replace(h, data=None, **nowhere), data, data.array, s)
            bring_home(h, s, record, weights)
            yield s, record
    monkeypatch.setattr(loso, 'engine_of', lambda name: elsewhere)
    run = loso.run(**parameters(flow_root, tmp_path, subjects='samm/sa00', keep_weights=True))
    assert (scores(run) == {'samm__sa00.json': scores(alone)['samm__sa00.json']}
            and (run / 'weights' / 'samm__sa00.safetensors').is_file())


def test_nodes_run_the_drivers_code(cluster):
    "Whatever is installed there; here it is this package without the added line."
    files = package_files()
    files['__init__.py'] += b"\nNOTE = 'the driver wrote this'\n"
    ray = connect(1)
    # one of this driver's has its code already
    fresh = ray.remote(runtime_env=dict(env_vars=dict(A='new process')))
    with by_value(ray): note = fresh(on_a_node).remote(files, pickle.dumps(eval), "__import__('mpfnet').NOTE")
    assert ray.get(note) == 'the driver wrote this'


def test_a_second_run_trains_nothing(cluster, alone, flow_root):
    before = {f: f.stat().st_mtime_ns for f in (alone / 'folds').glob('*.json')}
    loso.run(**parameters(flow_root, alone.parent, engine='ray'))
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_node_dies(cluster, alone, flow_root, tmp_path):
    "Its folds are done by the others."
    c, second = cluster
    slow = CHEAP.replace('meta.updates=2', 'meta.updates=60')
    code = f'from mpfnet import loso; loso.run(**{parameters(flow_root, tmp_path, engine="ray", overrides=slow)!r})'
    driver = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not list(tmp_path.glob('*/folds/*.json')) and driver.poll() is None and time.time() < deadline: time.sleep(.1)
    left = 6 - len(list(tmp_path.glob('*/folds/*.json')))
    c.remove_node(second, allow_graceful=False)
    out = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, out[-3000:]
    assert left > 0 and len(list(tmp_path.glob('*/folds/*.json'))) == 6


def test_the_driver_dies_and_another_goes_on(cluster, flow_root, tmp_path):
    slow = CHEAP.replace('meta.updates=2', 'meta.updates=60')
    code = f'from mpfnet import loso; loso.run(**{parameters(flow_root, tmp_path, engine="ray", overrides=slow)!r})'
    driver = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while len(list(tmp_path.glob('*/folds/*.json'))) < 2 and driver.poll() is None and time.time() < deadline:
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    time.sleep(2)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.glob('*/folds/*.json')}
    assert 2 <= len(before) < 6
    assert (subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL, timeout=300).returncode
            == 0)
    assert {f: f.stat().st_mtime_ns for f in before} == before and len(list(tmp_path.glob('*/folds/*.json'))) == 6


def test_an_error_in_a_fold_is_an_error_of_the_run(cluster, flow_root, tmp_path):
    what = parameters(flow_root, tmp_path, engine='ray', overrides=CHEAP + ',meta.lr=1e30', method='scratch')
    for _ in range(2):
        with pytest.raises(Exception, match='not finite'): loso.run(**what)
        assert not ray.is_initialized()                                     # nothing goes on that nobody waits for


def test_somebody_elses_connection_stays(cluster, flow_root, tmp_path):
    ray.init(address=cluster[0].address)
    with pytest.raises(Exception, match='not finite'):
        loso.run(
            **parameters(flow_root, tmp_path, engine='ray', subjects='samm/sa00', overrides=CHEAP + ',meta.lr=1e30',
                         method='scratch')
        )
    assert ray.is_initialized()
    ray.shutdown()


def test_results_on_a_store(alone, flow_root, tmp_path, monkeypatch):
    "Another machine goes on with what is on the store, and sends what it adds."
    pytest.importorskip('fsspec')
    address = f'file://{tmp_path}/store'
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path / 'first'))
    loso.run(**parameters(flow_root, address, subjects='samm/sa00,samm/sa01'))
    kept = {f.name: f.stat().st_mtime_ns for f in (tmp_path / 'store').glob('*/folds/*.json')}
    assert len(kept) == 2
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path / 'second'))
    run = loso.run(**parameters(flow_root, address))
    assert scores(run) == scores(alone) and run.is_relative_to(tmp_path / 'second')
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / 'store').glob('*/folds/*.json') if f.name in kept} == kept
    assert scores(tmp_path / 'store' / run.name) == scores(alone)


class Finished:
    "Stands for Ray, with some tasks that are done: a value, or an error."
    exceptions = SimpleNamespace(RayError=KeyError)
    def __init__(self, done): self.done, self.ended = done, []
    def wait(self, refs, num_returns, timeout): return [r for r in refs if r in self.done], []
    def get(self, ref): return self.done[ref] if self.done[ref] else {}[ref]
    def cancel(self, ref): self.ended.append(ref)


def test_finished_folds_are_kept_when_another_fails(monkeypatch):
    kept, version = [], ray_engine.torch.__version__
    monkeypatch.setattr(ray_engine, 'bring_home', lambda h, *what: kept.append(what))
    monkeypatch.setattr(connect, 'ours', False)
    fake = Finished({'b': ('record', None, version), 'c': None})
    give_up(fake, None, {'a': ('d', 's1'), 'b': ('d', 's2'), 'c': ('d', 's3')})
    assert kept == [(('d', 's2'), 'record', None)] and fake.ended == ['a', 'c']


def same_here_and_there(here, there):
    "Two runs that made the same: predictions byte for byte, and what every fold has learnt."
    def learnt(run): return {k: v['weights_sha256'] for k, v in scores(run).items()}
    assert here.name == there.name and learnt(here) == learnt(there)
    assert (here/'predictions.csv').read_bytes() == (there/'predictions.csv').read_bytes()


@pytest.mark.parametrize('split, folds', [('kfold:3', 3), ('dataset', 3)])
def test_folds_of_several_subjects_run_on_the_cluster(cluster, flow_root, tmp_path, split, folds):
    what = dict(method='pca_lda', overrides='', subjects=None, split=split)
    here = loso.run(**parameters(flow_root, tmp_path/'here', **what))
    there = loso.run(**parameters(flow_root, tmp_path/'there', **what), engine='ray')
    same_here_and_there(here, there)
    assert len(scores(there)) == folds


def test_a_method_of_ones_own_runs_on_the_cluster(cluster, flow_root, tmp_path):
    "Its file, and the one beside it, go along as text; also for folds of several subjects."
    (tmp_path/'beside_ray.py').write_text('SMALL = 1e-6\n')
    (tmp_path/'mine.py').write_text(
        'import numpy as np\nfrom beside_ray import SMALL\nclass Mine:\n'
        '    def fit(self, fold): self.mean = fold.X().numpy().mean() + SMALL\n'
        '    def scores(self, x): return np.asarray(x).reshape(len(x), -1)[:, :3]*self.mean\n'
        '    def state(self): return dict(mean=self.mean)\n')
    for k, more in enumerate((dict(subjects='samm/sa00,samm/sa01'), dict(subjects=None, split='kfold:3'))):
        mine = dict(method=f'{tmp_path}/mine.py:Mine', overrides='') | more
        here = loso.run(**parameters(flow_root, tmp_path/f'here{k}', **mine))
        same_here_and_there(here, loso.run(**parameters(flow_root, tmp_path/f'there{k}', **mine), engine='ray'))
