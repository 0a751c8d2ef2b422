"""Files and machines that are not like ours: kills, full disks, drives without locks or maps, two people, other
systems, other versions."""
import ast
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHEAP
from warm import warm

from mpfnet.core import keep
from mpfnet.core.artefacts import read_checked, sha256_of
from mpfnet.core.keep import file_name, locked, temporary_for, this_machine, versions, write_atomically, write_text
from mpfnet.loso import run
from mpfnet.methods import METHODS
from mpfnet.store import RowFile, corrupt_rows, open_rows

ROOT = Path(__file__).parents[1]
MODULES = sorted('.'.join(p.relative_to(ROOT / 'mpfnet').with_suffix('').parts) for p in ROOT.glob('mpfnet/**/*.py')
                 if not p.stem.startswith('_'))
posix = pytest.mark.skipif(os.name != 'posix', reason='kills and users as POSIX has them')
pytestmark = [pytest.mark.filterwarnings('ignore:megc2019_flow. checksum'),
              pytest.mark.filterwarnings('ignore:overrides that')]


def python(code, *args, **environment):
    return warm('-c', code, *args, env=os.environ | dict(PYTHONPATH=str(ROOT)) | environment, cwd=ROOT)


def go(root, out, **kwargs):
    return run(
        **dict(dataset='megc2019_flow', data_root=str(root), out_dir=str(out), overrides=CHEAP,
               subjects='samm/sa00,samm/sa01', device='cpu', method='pltn')
        | kwargs
    )


def folds(folder):
    return {p.name: json.loads(p.read_text(encoding='utf-8')) for p in sorted((folder / 'folds').glob('*.json'))}
def learnt(folder): return {n: r['weights_sha256'] for n, r in folds(folder).items()}


@pytest.fixture(scope='module')
def reference(flow_root, tmp_path_factory):
    "Two folds of one method that has a prior, with their weights."
    return go(flow_root, tmp_path_factory.mktemp('reference'), keep_weights=True)


@pytest.fixture
def copy(reference, tmp_path):
    "The same in a folder of the test's own."
    shutil.copytree(reference.parent, tmp_path/'runs')
    return tmp_path/'runs'/reference.name


# --- killed --------------------------------------------------------------------------------------------------------
DIES = """if 1:
    import os, signal, sys
    from pathlib import Path
    from mpfnet.core import keep
    when, path = sys.argv[1:]
    def die(*a): os.kill(os.getpid(), signal.SIGKILL)
    def write(t):
        if when == 'before': die()
        Path(t).write_text('new', encoding='utf-8')
        if when == 'after': die()
    if when == 'rename': keep._rename = die
    keep.write_atomically(path, write)"""


@posix
@pytest.mark.parametrize('when', ['before', 'after', 'rename'])
def test_killed_while_writing(tmp_path, when):
    """The old file stays whole; the next process that writes there removes what is left, but nothing that it does not
    know."""
    path = write_text(tmp_path/'x.json', 'old')
    (tmp_path / '.x.json-a1b2c3d4').touch()
    (tmp_path / '.x.json~').touch()
    alive = temporary_for(path)
    alive.touch()
    done = python(DIES, when, path)
    assert done.returncode == -signal.SIGKILL and path.read_text(encoding='utf-8') == 'old'
    assert len(left := [p.name for p in tmp_path.iterdir() if keep.UNDER_WAY.fullmatch(p.name) and p != alive]) == 1
    assert (
        python('import sys; from mpfnet.core.keep import write_text; write_text(sys.argv[1], "new")', path).returncode
        == 0
    )
    assert (sorted(p.name for p in tmp_path.iterdir())
            == sorted([path.name, '.x.json-a1b2c3d4', '.x.json~', alive.name]) and left)
    assert path.read_text(encoding='utf-8') == 'new'


@posix
def test_a_start_sweeps_what_a_killed_run_left(copy, flow_root, tmp_path):
    "In every folder of a run, also where nothing is left to do; a synthetic dataset that was half made, too."
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    for k, there in enumerate((copy, copy / 'folds', copy / 'weights')):
        (there / f'.x~{this_machine()}~{gone.pid}~{k:08x}').touch()
    (copy/'folds'/f'.x~{"0"*12}~{gone.pid}~00000000').touch()
    keep._swept.clear()
    go(flow_root, tmp_path/'runs', keep_weights=True)
    assert [p.parent.name for p in copy.rglob('.x~*')] == ['folds']
    from mpfnet.synthetic.synth import make_synth
    half = tmp_path/'made'/f'.synth~{this_machine()}~{gone.pid}~00000000'
    (half/'frames').mkdir(parents=True)
    make_synth(tmp_path/'made'/'synth', subjects=3, clips=9, size=32)
    assert os.listdir(tmp_path/'made') == ['synth']


PARENT = """
import os, time
from mpfnet.core.workers import in_order
def job(k):
    print(os.getpid(), flush=True)
    time.sleep(60)
if __name__ == '__main__': list(in_order(job, [1, 2], workers=2))"""


@posix
def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path/'parent.py'
    write_text(script, PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE,
                              env=os.environ | dict(PYTHONPATH=str(ROOT)))
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    def runs(pid):                                            # a zombie that nobody waits for is gone, too
        state = Path(f'/proc/{pid}/stat')
        return keep.alive(pid) and not (state.exists()
                                        and state.read_text(encoding='utf-8').rpartition(')')[2].split()[0] == 'Z')
    while any(map(runs, pids)) and time.monotonic() < end: time.sleep(.1)
    assert not any(map(runs, pids))


# --- whose it is ---------------------------------------------------------------------------------------------------
def test_a_prior_of_another_fold_is_not_used(reference, copy, flow_root, tmp_path, capsys):
    "It may have been trained with the test subject. Neither is one of another stage, nor one without a name."
    shutil.rmtree(copy/'folds')
    a, b = sorted((tmp_path/'runs/cache/priors/pltn').glob('*.safetensors'))
    b.write_bytes(a.read_bytes())
    assert learnt(go(flow_root, tmp_path/'runs')) == learnt(reference)
    assert f'cached pltn/{b.stem} is that of pltn/{a.stem}' in capsys.readouterr().out
    (tmp_path/'other').mkdir()
    a.rename(tmp_path/'other'/a.name)
    assert read_checked(tmp_path / 'other' / a.name, f'other/{a.stem}') is None and read_checked(
        tmp_path / 'other' / a.name, f'pltn/{a.stem}'
    )


def test_swapped_keys_of_rows_are_noticed(copy, flow_root, tmp_path):
    "Two clips would have each other's features."
    shutil.rmtree(copy/'folds')
    lines, = (tmp_path/'runs/cache/features').rglob('index.jsonl')
    text = lines.read_text(encoding='utf-8').splitlines(keepends=True)
    a, b = (json.loads(text[k])['key'] for k in (3, 7))
    text[3], text[7] = text[3].replace(a, b), text[7].replace(b, a)
    lines.write_text(''.join(text), encoding='utf-8')
    with pytest.raises(ValueError, match='line 4 is damaged, 438 good rows follow'): go(flow_root, tmp_path/'runs')
    shutil.rmtree(tmp_path/'runs/cache/features')
    assert learnt(go(flow_root, tmp_path/'runs')) == learnt(copy) != {}


@pytest.mark.parametrize(
    'change',
    [
        dict(key='b'), dict(row=1), dict(sha256='0' * 64), dict(clip='other'), dict(phi=3), dict(made=None),
        dict(check='0' * 16), dict(more=1),
    ],
)
def test_a_changed_line_does_not_count(tmp_path, change):
    table = RowFile(tmp_path/'rows', (2,))
    table.append('a', [1, 2], clip='c', phi=0, made=versions())
    entry = json.loads(table.lines.read_text(encoding='utf-8')) | change
    table.lines.write_text(json.dumps(entry) + '\n', encoding='utf-8')
    assert not RowFile(table.folder, (2,)).refresh().index


def test_damaged_weights_are_made_again(reference, copy, flow_root, tmp_path, capsys):
    "Cut, of another fold, gone; and nothing is trained where they are whole."
    def states(): return {p.name: p.read_bytes() for p in (copy/'weights').glob('*')}
    whole, (a, b) = states(), sorted((copy/'weights').glob('*'))
    for spoil in (lambda: a.write_bytes(a.read_bytes()[:-7]), lambda: a.write_bytes(b.read_bytes()), a.unlink):
        spoil()
        go(flow_root, tmp_path/'runs', keep_weights=True)
        assert states() == whole
    assert capsys.readouterr().out.count('the fold is trained again') == 2
    trained = [p['folds_trained'] for p in json.loads((copy/'env.json').read_text(encoding='utf-8'))['parts']]
    go(flow_root, tmp_path/'runs', keep_weights=True)
    assert (trained == [2, 1, 1, 1]
            == [p['folds_trained'] for p in json.loads((copy / 'env.json').read_text(encoding='utf-8'))['parts']])


@pytest.mark.parametrize('method', ['majority', 'pca_lda', 'mpfnet_p', 'ststnet'])
def test_weights_come_back_as_they_were_hashed(flow_root, tmp_path, method):
    "Whatever a state is made of: else a fold would be trained again at every start."
    assert method in METHODS
    folder = go(flow_root, tmp_path, method=method, subjects='samm/sa00', keep_weights=True, overrides=CHEAP
                + ',ststnet.epochs=1')
    (path,), (record,) = (folder/'weights').iterdir(), folds(folder).values()
    from safetensors.torch import load
    assert sha256_of(load(path.read_bytes())) == record['weights_sha256']


def test_numbers_in_a_state_come_back_as_they_were_hashed(tmp_path):
    from safetensors.torch import load

    from mpfnet.harness import keep_state

    state = dict(a=0.7, b=np.float64(2), c=np.arange(6.0).reshape(2, 3).T, d=torch.tensor(1.0), e=np.array(5), f=True,
                 g=torch.ones(2, 3).T)
    keep_state(tmp_path/'x.safetensors', state)
    assert sha256_of(load((tmp_path/'x.safetensors').read_bytes())) == sha256_of(state)


# --- other versions ------------------------------------------------------------------------------------------------
def test_an_upgrade_is_told_and_recorded(copy, flow_root, tmp_path, monkeypatch):
    "Rows, priors and folds of another version are used; the run warns once of each, and env.json names both."
    old = versions()
    monkeypatch.setattr(torch, '__version__', '99.0')
    monkeypatch.setattr(keep, '_said', set())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        folder = go(flow_root, tmp_path/'runs', subjects='samm/sa00,samm/sa01,samm/sa02')
    texts = [str(w.message) for w in said if 'were made under' in str(w.message)]
    assert folder == copy and all(f'torch {old["torch"]} (now 99.0)' in t for t in texts)
    assert sorted(t.split(' in ')[0] for t in texts) == ['feature rows', 'folds', 'priors (pltn)']
    part = json.loads((folder/'env.json').read_text(encoding='utf-8'))['parts'][-1]
    assert part['torch'] == '99.0' and part['libraries'] == dict(features=[old], folds=[old, versions()],
                                                                 pltn=[old, versions()])
    (folder/'folds'/'samm__sa00.json').unlink()                               # trained from the old prior
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # all of it has been said
        warnings.filterwarnings('ignore', 'megc2019_flow. checksum')
        warnings.filterwarnings('ignore', '.* doubtful')
        warnings.filterwarnings('ignore', 'overrides that')
        go(flow_root, tmp_path/'runs')
    assert (folds(folder)['samm__sa00.json']['priors_made'] == dict(pltn=[old])
            and folds(folder)['samm__sa00.json']['made'] == versions())


# --- drives --------------------------------------------------------------------------------------------------------
def test_a_drive_that_maps_no_files(reference, flow_root, tmp_path, monkeypatch):
    "The rows are read into memory: a warning that names the folder, the same numbers."
    def refuse(*a, **k): raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    monkeypatch.setattr(np, 'memmap', refuse)
    with pytest.warns(UserWarning, match=f'{re.escape(str(tmp_path))}.*maps no files.*read into memory.*out_dir'):
        folder = go(flow_root, tmp_path)
    assert learnt(folder) == learnt(reference)
    table = RowFile(tmp_path / 'rows', (2,))
    table.append('a', [1, 2])
    table.append('b', [3, 4])
    assert (open_rows(table).tolist() == [[1, 2], [3, 4]] and not open_rows(table).flags.writeable
            and not corrupt_rows(table))


#: for each error two processes, forked from one that has imported what they need; what they say goes to files
APPENDS = """if 1:
    import fcntl, json, os, sys
    from mpfnet.store import RowFile
    root, codes = sys.argv[1], json.loads(sys.argv[2])
    def append(code, first):
        os.dup2(os.open(f'{root}/{code}/said{first}', os.O_WRONLY | os.O_CREAT), 2)
        def flock(f, how): raise OSError(codes[code], os.strerror(codes[code]))
        fcntl.flock = flock
        table = RowFile(f'{root}/{code}/rows', (64,))
        for k in range(first, first + 30): table.append(str(k), [k]*64)
    for code in codes:
        children = []
        for first in (0, 20):
            if not (child := os.fork()):
                append(code, first)
                sys.exit()
            children.append(child)
        if any(os.waitpid(c, 0)[1] for c in children): sys.exit(code)"""
WITHOUT_LOCKS = {code: getattr(errno, code, 0) for code in ('ENOLCK', 'ENOSYS', 'EOPNOTSUPP')}


@pytest.fixture(scope='module')
def appended(tmp_path_factory):
    "A folder for each error that a drive without locks may give."
    root = tmp_path_factory.mktemp('appended')
    for code in WITHOUT_LOCKS: (root/code).mkdir()
    done = subprocess.run([sys.executable, '-c', APPENDS, str(root), json.dumps(WITHOUT_LOCKS)], text=True, timeout=100,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)), capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr + ''.join(p.read_text(encoding='utf-8') for p in root.glob('*/said*'))
    return root


@posix
@pytest.mark.parametrize('code', WITHOUT_LOCKS)
def test_a_drive_without_locks(appended, code):
    "Two processes append to one file by turns, by a marker; one warning, which names the folder and the way out."
    tmp_path = appended/code
    said = [(tmp_path/f'said{k}').read_text(encoding='utf-8') for k in (0, 20)]
    assert all(s.count('no locks on this drive') == 1 and str(tmp_path/'rows') in s and 'out_dir' in s for s in said)
    table = RowFile(tmp_path/'rows', (64,)).refresh()
    assert sorted(int(e['key']) for e in table.index) == list(range(50)) and not corrupt_rows(table)
    assert sorted(p.name for p in (tmp_path / 'rows').iterdir() if p.name not in ('features.f16', 'index.jsonl')) in (
        ['lock'], [],
    )


FILLS = """if 1:
    import resource, signal, sys, warnings
    warnings.simplefilter('ignore')
    import numpy as np
    from mpfnet.core.keep import write_atomically
    from mpfnet.store import RowFile
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    table = RowFile(sys.argv[1] + '/rows', (1000,))
    try:
        for k in range(20): table.append(str(k), [k]*1000)
    except OSError as e: print(len(table.refresh().index), e)
    try: write_atomically(sys.argv[1] + '/x.json', lambda t: open(t, 'wb').write(bytes(10**6)))
    except OSError as e: print(e)"""


@posix
def test_a_disk_that_takes_no_more(tmp_path):
    "The path and the way out; what was whole stays, and the store goes on once there is room."
    done = python(FILLS, tmp_path)
    rows, single = done.stdout.strip().splitlines()
    assert rows.startswith('10 ') and str(tmp_path/'rows'/'features.f16') in rows and 'out_dir' in rows, done
    assert str(tmp_path/'x.json') in single and sorted(os.listdir(tmp_path)) == ['rows']
    table = RowFile(tmp_path/'rows', (1000,))
    assert table.append('10', [10]*1000) == 10 and not corrupt_rows(table)


@pytest.mark.parametrize('code', ['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'EFBIG'])
def test_what_a_disk_refuses_names_path_and_way_out(tmp_path, code):
    "Where the error itself names nothing, the temporary file, or the folder that could not be made."
    path = tmp_path/'runs/a/x.json'
    for name in ((), (str(path.parent),), (str(temporary_for(path)),)):
        def write(t): raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), *name)
        with pytest.raises(OSError) as e: write_atomically(path, write)
        assert str(path) in str(e.value) and 'out_dir' in str(e.value) and e.value.errno == getattr(errno, code)
        assert not list(path.parent.iterdir())


@posix
@pytest.mark.skipif(os.name == 'posix' and os.geteuid() != 0, reason='to be two users needs root')
@pytest.mark.parametrize('umask, shared', [(0o002, True), (0o022, False)])
def test_two_people_one_folder(tmp_path, umask, shared):
    """With a group's umask everything can be shared; without, the error says whose the file is and what to do. The
    lock file never stands in the way."""
    for p in (tmp_path, *tmp_path.parents):
        if p.owner() == 'root' and p != Path('/'): p.chmod(p.stat().st_mode | 0o055)
    folder = tmp_path / 'runs'
    folder.mkdir()
    os.chown(folder, 1001, 2000)
    folder.chmod(0o2775)
    write_text(tmp_path / 'warm', 'x')
    versions()
    def as_user(uid, f):
        r, w = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                os.setgroups([2000])
                os.setgid(2000)
                os.setuid(uid)
                os.umask(umask)
                f()
                said = 'done'
            except BaseException as e: said = f'{type(e).__name__}: {e}'
            os.write(w, said.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(w)
        with open(r, 'rb') as f: return f.read().decode()
    def work(k):
        with locked(folder/'lock'): write_text(folder/'x.json', str(k))
        RowFile(folder/'rows', (2,)).append(str(k), [k, k])
    assert as_user(1001, lambda: work(1)) == 'done'
    second = as_user(1002, lambda: work(2))
    assert (folder/'x.json').read_text(encoding='utf-8') == '2' and (folder/'lock').stat().st_mode & 0o777 == 0o664
    assert (second == 'done' if shared else 'PermissionError' in second and 'rows' in second and 'user 1001' in second
            and 'umask 002' in second)


# --- systems -------------------------------------------------------------------------------------------------------
POSIX_ONLY = dict(
    os='getuid geteuid getgid getgroups setuid fork forkpty killpg getpgid setsid sched_getaffinity mkfifo '
       'chown fchmod fchown getloadavg uname statvfs nice wait4 pread pwrite'.split(),
    signal='SIGKILL SIGALRM SIGHUP SIGUSR1 SIGUSR2 alarm setitimer pthread_kill SIGCHLD SIGPIPE'.split(),
    time=['tzset'],
)
NO_SUCH_MODULES = 'fcntl pwd grp resource termios tty pty syslog posix'.split()


def trees(): return {p: ast.parse(p.read_text(encoding='utf-8')) for p in sorted(ROOT.glob('mpfnet/**/*.py'))}


def posix_calls(tree, text):
    "What Windows lacks, outside a function that asks first."
    lines = text.splitlines()
    guarded = ['\n'.join(lines[n.lineno - 1:n.end_lineno]) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for n in ast.walk(tree):
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module or '']
            yield from (m for m in names if m.split('.')[0] in NO_SUCH_MODULES)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.attr in POSIX_ONLY.get(n.value.id, ()):
            inside = [g for g in guarded if f'{n.value.id}.{n.attr}' in g]
            if not inside or not all(f"hasattr({n.value.id}, '{n.attr}')" in g or 'os.name' in g for g in inside):
                yield f'{n.value.id}.{n.attr}'
        if (
            isinstance(n, ast.keyword) and n.arg in ('preexec_fn', 'start_new_session')
            and 'os.name' not in ast.unparse(n.value)
        ):
            yield n.arg


def test_no_call_that_windows_lacks():
    found = {
        p.name: calls for p, t in trees().items() if (calls := list(posix_calls(t, p.read_text(encoding='utf-8'))))
    }
    assert not found, f'{found}: ask first (hasattr, os.name), or take another way'
    wrong = ('import fcntl\ndef f(): return os.getuid()\ndef g(): return os.getuid() if hasattr(os, "getuid") else '
             '0\nsubprocess.run(x, preexec_fn=f)')
    assert list(posix_calls(ast.parse(wrong), wrong)) and 'fcntl' in list(posix_calls(ast.parse(wrong), wrong))


ELSEWHERE = """if 1:
    import importlib, sys
    for m in {modules}: sys.modules[m] = None                 # as on Windows
    import torch, cv2, sklearn.svm, pandas, multiprocessing.popen_spawn_posix, subprocess, tempfile, os, signal
    for m, names in {missing}.items():
        for n in names: vars(sys.modules[m]).pop(n, None)
    for m in {ours}: importlib.import_module('mpfnet.' + m)
    if __name__ == '__main__':
        from mpfnet.loso import run
        print(run(dataset='megc2019_flow', data_root=sys.argv[1], out_dir=sys.argv[2], method='pltn', \
subjects='samm/sa00', device='cpu', overrides=sys.argv[3]))"""


@posix
def test_runs_without_what_windows_lacks(reference, flow_root, tmp_path):
    """Every module is imported and a fold trained where POSIX modules and calls are missing, locks included; the same
    numbers."""
    needed = ('SIGCHLD', 'SIGPIPE', 'uname', 'fchmod')                        # by Python and filelock on this system
    missing = {m: [n for n in names if n not in needed] for m, names in POSIX_ONLY.items()}
    code = ELSEWHERE.format(modules=[m for m in NO_SUCH_MODULES if m != 'posix'], missing=missing, ours=MODULES)
    # a fresh one: to import is what is tested
    command = [sys.executable, '-c', code, str(flow_root), str(tmp_path), CHEAP]
    done = subprocess.run(command, env=os.environ | dict(PYTHONPATH=str(ROOT)), cwd=ROOT, capture_output=True,
                          text=True, encoding='utf-8', errors='replace')
    assert done.returncode == 0, done.stderr[-2000:]
    assert learnt(Path(done.stdout.strip().splitlines()[-1])) == {k: v
                                                                  for k, v in learnt(reference).items() if 'sa00' in k}


def mode_of(argument):
    "The mode that an argument of open says, '' if none; of two by a condition, one that reads text if there is one."
    if isinstance(argument, ast.IfExp):
        return min(mode_of(argument.body), mode_of(argument.orelse), key=lambda m: 'b' in m)
    said = str(argument.value) if isinstance(argument, ast.Constant) else ''
    return said if re.fullmatch(r'[rwaxbt+]+', said) else ''


def without_encoding(tree):
    "Calls that open text by the locale's encoding. pandas reads and writes UTF-8 unless told otherwise."
    for n in ast.walk(tree):
        if not isinstance(n, ast.Call): continue
        name = n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, 'id', '')
        keys = {k.arg: k.value for k in n.keywords}
        mode = next((m for a in [keys.get('mode'), *n.args[:2]] if (m := mode_of(a))), 'r')
        plain = isinstance(n.func, ast.Name) or ast.unparse(n.func) in ('io.open', 'os.fdopen')
        opens = name in ('open', 'fdopen') and plain and 'b' not in mode and 'devnull' not in ast.unparse(n)
        text = (name in ('read_text', 'write_text') and isinstance(n.func, ast.Attribute)
                and len(n.args) < (1 if name == 'read_text' else 2))
        asks = name in ('run', 'Popen', 'check_output', 'call') and {'text', 'universal_newlines'} & set(keys)
        if (opens or text or asks) and 'encoding' not in keys: yield f'line {n.lineno}: {ast.unparse(n)[:60]}'


def cells_of(page):
    for c in json.loads(page.read_text(encoding='utf-8'))['cells']:
        if c['cell_type'] == 'code':
            yield '\n'.join(l for l in ''.join(c['source']).splitlines() if not l.startswith(('%', '!')))


PAGES = [ROOT / 'nbs/05_loso.ipynb', ROOT / 'nbs/results/05_report.ipynb', ROOT / 'nbs/paper/06_protocol_audit.ipynb',
         ROOT / 'nbs/06_benchmark.ipynb', ROOT / 'nbs/07_predict.ipynb', ROOT / 'nbs/index.ipynb',
         *sorted(ROOT.glob('paper_figures/*.ipynb'))]


def test_text_files_say_their_encoding():
    "Modules, benchmarks, and the pages that people run: else they break on Windows, or where the locale is not UTF-8."
    files = [*ROOT.glob('mpfnet/**/*.py'), *ROOT.glob('benchmarks/**/*.py'), ROOT / 'setup.py', Path(__file__)]
    sources = {str(p.relative_to(ROOT)): [p.read_text(encoding='utf-8')] for p in files}
    sources |= {str(p.relative_to(ROOT)): list(cells_of(p)) for p in PAGES}
    sources['Makefile'] = re.findall(r'^define \w+\n(.*?)^endef', (ROOT / 'Makefile').read_text(encoding='utf-8'),
                                     re.M | re.S)
    assert sources['Makefile']
    found = {n: lines for n, texts in sources.items()
             if (lines := [l for t in texts for l in without_encoding(ast.parse(t))])}
    assert not found
    for wrong in ('open(p)', 'open(p, "w")', 'open(p, "rb" if x else "w")',
                  'p.read_text()', 'p.write_text(t)', 'subprocess.run(x, text=True)'):
        assert list(without_encoding(ast.parse(wrong))), wrong
    for right in (
        'open(p, "rb")', 'open(p, "r+b" if x else "w+b")',
        'open(p, "w", encoding="utf-8")', 'p.open()', 'write_text(p, t)', 'subprocess.run(x)',
    ):
        assert not list(without_encoding(ast.parse(right))), right


@posix
def test_the_program_runs_in_a_locale_that_is_not_utf_8(flow_root, tmp_path):
    "The page reads its own files as UTF-8."
    args = ['-p', 'dataset', 'megc2019_flow', '-p', 'data_root', str(flow_root), '-p', 'method', 'majority', '-p',
            'subjects', 'samm/sa00']
    done = subprocess.run(
        [sys.executable, '-m', 'papermill', str(ROOT / 'nbs/05_loso.ipynb'), 'out.ipynb', '--no-progress-bar', *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding='utf-8',
        errors='replace',
        env=os.environ | dict(PYTHONPATH=str(ROOT), LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'),
    )
    assert done.returncode == 0, done.stderr[-1500:]


RESERVED = {'con', 'prn', 'aux', 'nul', *(f'{d}{k}' for d in ('com', 'lpt') for k in range(1, 10))}


def test_names_that_every_file_system_takes(reference):
    "No character that Windows refuses, no reserved name, nothing that differs in case only, in all that a run writes."
    files = [p.relative_to(reference.parent) for p in reference.parent.rglob('*')]
    parts = {part for p in files for part in p.parts}
    bad = [n for n in parts if set(n) & set('<>:"/\\|?*') or n[-1] in '. ' or n.split('.')[0].lower() in RESERVED]
    assert len(files) > 20 and not bad
    assert len({str(p).lower() for p in files}) == len(files) and max(len(str(p)) for p in files) < 150


@pytest.mark.parametrize('subject',
                         ['a:b', 'con', 'aux.', '../x', '..', 'a/b', 'a\\b', 'Zoë 李', 'nul', ' ', 'a?*|<>"', 'x' * 60])
def test_subjects_of_any_name_have_a_record_in_the_folder(tmp_path, subject):
    "`../` leads nowhere else, and no two names share a file."
    from mpfnet.harness import record_path
    path = record_path(tmp_path, ('mine', subject))
    write_text(path, '{}')
    assert path.parent == tmp_path / 'folds' and [p.name for p in (tmp_path / 'folds').iterdir()] == [
        f'{file_name("mine", subject)}.json'
    ]
    assert path.stem.split('.')[0].lower() not in RESERVED and not set(path.name) & set('<>:"/\\|?*')


def test_a_tilde_is_the_home_folder_wherever_no_shell_expands_it(tmp_path, monkeypatch):
    from mpfnet.clips import dataset_folder
    from mpfnet.core.keep import cache_folder

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    monkeypatch.setenv('MPFNET_CACHE', '~/cache')
    assert cache_folder() == tmp_path/'cache' and dataset_folder('synth', '~/data') == tmp_path/'data'/'synth'
