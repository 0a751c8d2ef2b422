"""Folds on a Ray cluster: the same records, a node that dies, a driver that dies."""
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
from conftest import CHEAP, ROOT

from mpfnet import loso
from mpfnet.ray_engine import by_value, connect, on_a_node, package_files

ray = pytest.importorskip('ray', reason="pip install 'mpfnet[ray]'")
FEW = 'samm/sa00,samm/sa01,smic/sm01,smic/sm02,casme2/ca02,casme2/ca03'


@pytest.fixture(scope='module')
def cluster():
    "Two nodes of one CPU each on this machine."
    from ray.cluster_utils import Cluster
    c = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    second = c.add_node(num_cpus=1)
    old = os.environ.get('RAY_ADDRESS')
    os.environ['RAY_ADDRESS'] = c.address
    yield c, second
    ray.shutdown()
    c.shutdown()
    if old is None: del os.environ['RAY_ADDRESS']
    else: os.environ['RAY_ADDRESS'] = old


def parameters(flow_root, out, **more):
    return dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(out), method='mpfnet_p', subjects=FEW, overrides=CHEAP) | more


def scores(run): return {f.name: {k: v for k, v in json.loads(f.read_text()).items() if k != 'seconds'} for f in (run / 'folds').glob('*.json')}


@pytest.fixture(scope='module')
def alone(flow_root, tmp_path_factory):
    return loso.run(**parameters(flow_root, tmp_path_factory.mktemp('alone')))


def test_the_same_records(cluster, alone, flow_root, tmp_path):
    "Digit for digit what one process makes, weights' hashes included; and weights come home."
    run = loso.run(**parameters(flow_root, tmp_path, engine='ray', keep_weights=True))
    assert run.name == alone.name and scores(run) == scores(alone)
    assert len(list((run / 'weights').glob('*.safetensors'))) == 6 and (run / 'metrics.json').read_text() == (alone / 'metrics.json').read_text()
    assert json.loads((run / 'env.json').read_text())['folds_trained'] == 6


def test_a_running_cluster_is_found_without_its_address(cluster):
    code = 'from mpfnet.ray_engine import connect; print(connect(2).get_runtime_context().gcs_address)'
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env={k: v for k, v in os.environ.items() if k != 'RAY_ADDRESS'}, capture_output=True, text=True, timeout=120)
    assert out.stdout.strip() == cluster[0].address, out.stderr[-2000:]


def test_nodes_run_the_drivers_code(cluster):
    "Whatever is installed there; here it is this package without the added line."
    files = package_files()
    files['__init__.py'] += b"\nNOTE = 'the driver wrote this'\n"
    ray = connect(1)
    fresh = ray.remote(runtime_env=dict(env_vars=dict(A='new process')))            # one of this driver's has its code already
    with by_value(ray): note = fresh(on_a_node).remote(files, pickle.dumps(eval), "__import__('mpfnet').NOTE")
    assert ray.get(note) == 'the driver wrote this'


def test_a_second_run_trains_nothing(cluster, alone, flow_root):
    before = {f: f.stat().st_mtime_ns for f in (alone / 'folds').glob('*.json')}
    loso.run(**parameters(flow_root, alone.parent, engine='ray'))
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_node_dies(cluster, alone, flow_root, tmp_path):
    "Its folds are done by the others."
    c, second = cluster
    code = f'from mpfnet import loso; loso.run(**{parameters(flow_root, tmp_path, engine="ray", overrides=CHEAP.replace("meta.updates=2", "meta.updates=60"))!r})'
    driver = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not list(tmp_path.glob('*/folds/*.json')) and driver.poll() is None and time.time() < deadline: time.sleep(.1)
    left = 6 - len(list(tmp_path.glob('*/folds/*.json')))
    c.remove_node(second, allow_graceful=False)
    out = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, out[-3000:]
    assert left > 0 and len(list(tmp_path.glob('*/folds/*.json'))) == 6


def test_the_driver_dies_and_another_goes_on(cluster, flow_root, tmp_path):
    code = f'from mpfnet import loso; loso.run(**{parameters(flow_root, tmp_path, engine="ray", overrides=CHEAP.replace("meta.updates=2", "meta.updates=60"))!r})'
    driver = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while len(list(tmp_path.glob('*/folds/*.json'))) < 2 and driver.poll() is None and time.time() < deadline: time.sleep(.1)
    driver.kill(); driver.wait()
    time.sleep(2)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.glob('*/folds/*.json')}
    assert 2 <= len(before) < 6
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL, timeout=300).returncode == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before and len(list(tmp_path.glob('*/folds/*.json'))) == 6


def test_an_error_in_a_fold_is_an_error_of_the_run(cluster, flow_root, tmp_path):
    what = parameters(flow_root, tmp_path, engine='ray', overrides=CHEAP + ',meta.lr=1e30', method='scratch')
    for _ in range(2):
        with pytest.raises(Exception, match='not finite'): loso.run(**what)
        assert not ray.is_initialized()                                     # nothing goes on that nobody waits for


def test_somebody_elses_connection_stays(cluster, flow_root, tmp_path):
    ray.init(address=cluster[0].address)
    with pytest.raises(Exception, match='not finite'): loso.run(**parameters(flow_root, tmp_path, engine='ray', subjects='samm/sa00', overrides=CHEAP + ',meta.lr=1e30', method='scratch'))
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
