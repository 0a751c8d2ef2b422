"""What people install who have no clone: the wheel, what it holds, that the source archive builds the same one, and
that it works in a folder of its own, with what it requires and nothing else."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip('setuptools', minversion='77')


def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


WINGS = [p.parent.name for p in ROOT.glob('mpfnet/*/__init__.py')]
PAGES = [p for f in ('nbs', *(f'nbs/{w}' for w in WINGS), 'paper_figures') for p in ROOT.glob(f'{f}/*.ipynb')
         if any('parameters' in c['metadata'].get('tags', []) for c in cells(p))]


def built(folder, kind, out):
    "What setuptools makes of a project, as pip and build ask for it."
    code = f'from setuptools import build_meta as b; print(b.build_{kind}({str(out)!r}))'
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.split()[-1]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of what git knows, and beside it what must not travel: runs, a face, an earlier build."
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=ROOT, capture_output=True,
                            text=True)
    if listed.returncode: pytest.skip('not a git checkout')
    folder = tmp_path_factory.mktemp('project')
    for f in filter(None, listed.stdout.split('\0')):
        if not (ROOT / f).is_file() or f.startswith(('tests/golden', 'benchmarks')): continue
        (folder / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / f, folder / f)
    for f in ('runs/synth-x/metrics.json', 'nbs/runs/out.ipynb', 'nbs/.ipynb_checkpoints/05_loso.ipynb',
              'nbs/images/face.jpg', 'mpfnet/reference/face.png', 'build/lib/mpfnet/gone.py'):
        (folder / f).parent.mkdir(parents=True, exist_ok=True)
        (folder / f).write_text('{}')
    return folder


@pytest.fixture(scope='module')
def wheel(project, tmp_path_factory): return built(project, 'wheel', tmp_path_factory.mktemp('wheel'))


def files_of(wheel):
    "{name: hash of the content}."
    with zipfile.ZipFile(wheel) as z: return {n: hashlib.sha256(z.read(n)).hexdigest() for n in z.namelist()}


def test_the_wheel_holds_the_library_and_its_pages_and_nothing_else(wheel):
    names = [n for n in files_of(wheel) if '.dist-info/' not in n]
    modules = {p.relative_to(ROOT).as_posix() for p in ROOT.glob('mpfnet/**/*.py')}
    tables = {p.relative_to(ROOT).as_posix() for p in (*ROOT.glob('mpfnet/reference/*.csv'),
                                                       *ROOT.glob('mpfnet/published/*.csv'))}
    pages = {f'mpfnet/notebooks/{p.relative_to(ROOT).as_posix()}' for p in PAGES}
    assert modules | tables | pages | {'mpfnet/notebooks/nbs/images/loso.svg'} == set(names)
    assert wheel.stat().st_size < 1_250_000, f'{wheel.stat().st_size / 1e6:.1f} MB'


def test_its_pages_store_nothing_and_show_the_pictures_that_they_name(wheel):
    with zipfile.ZipFile(wheel) as z:
        for name in filter(re.compile(r'.*\.ipynb').fullmatch, z.namelist()):
            page = json.loads(z.read(name))
            assert not [c for c in page['cells'] if c.get('outputs')], name
            source = ROOT / name.removeprefix('mpfnet/notebooks/')
            texts = [''.join(c['source']) for c in cells(source)]
            assert [''.join(c['source']) for c in page['cells']] == texts
            for link in re.findall(r'!\[[^\]]*\]\(([^)]+)\)', '\n'.join(texts)):
                assert os.path.normpath(Path(name).parent / link) in z.namelist(), (name, link)


def test_the_source_archive_builds_the_same_wheel(project, wheel, tmp_path):
    archive = built(project, 'sdist', tmp_path)
    with tarfile.open(archive) as t: t.extractall(tmp_path / 'source', filter='data')
    folder, = (tmp_path / 'source').iterdir()
    there = {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}
    assert {'settings.ini', 'constraints.txt', 'LICENSE', 'nbs/00_clips.ipynb'} <= there
    left = ('tests/', 'runs/', 'nbs/runs', 'build/', 'nbs/.ipynb_checkpoints')
    assert not [f for f in there if f.startswith(left) or f.endswith('.jpg')]
    assert files_of(built(folder, 'wheel', tmp_path)) == files_of(wheel)


def about(wheel):
    "Its metadata, line by line."
    with zipfile.ZipFile(wheel) as z: text = z.read(next(n for n in z.namelist() if n.endswith('/METADATA'))).decode()
    head = text.partition('\n\n')[0].splitlines()
    return [(k, v) for k, _, v in (l.partition(': ') for l in head)]


def test_its_metadata(wheel):
    said = about(wheel)
    assert ('Requires-Python', '>=3.11') in said and ('License-File', 'LICENSE') in said
    for v in ('3.11', '3.12', '3.13'): assert ('Classifier', f'Programming Language :: Python :: {v}') in said
    wanted = [Requirement(v) for k, v in said if k == 'Requires-Dist']
    always = {r.name for r in wanted if not r.marker or r.marker.evaluate(dict(extra=''))}
    with_pages = {r.name for r in wanted if not r.marker or r.marker.evaluate(dict(extra='notebooks'))}
    assert not always & {'papermill', 'ipykernel', 'nbformat', 'matplotlib', 'nbdev', 'jupyterlab', 'fastcore'}
    assert with_pages - always == {'papermill', 'ipykernel', 'nbformat', 'matplotlib', 'captum'}


# --- installed ---

def installed(requirements):
    "Names of the packages that requirements come to, with all that those require."
    todo, found = [*requirements], {}
    while todo:
        r = todo.pop()
        name, extras = canonicalize_name(r.name), {'', *r.extras}
        if extras <= found.get(name, set()): continue
        try: own = distribution(name).requires or ()
        except PackageNotFoundError: continue                   # only elsewhere, as on another system
        found[name] = found.get(name, set()) | extras
        todo += [q for q in map(Requirement, own)
                 if not q.marker or any(q.marker.evaluate(dict(extra=e)) for e in extras)]
    return set(found)


def modules_of(dist): return {Path(f).parts[0].removesuffix('.py') for f in dist.files or ()} - {'..'}


HIDDEN = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split('.')[0] in {} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    """A function that runs Python where the wheel is installed with or without an extra, and what is installed beside
    it is only what it requires. Nothing of the checkout is to be seen."""
    site = tmp_path_factory.mktemp('site')
    pip = ['-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--no-compile', '--target', str(site), str(wheel)]
    done = subprocess.run([sys.executable, *pip], capture_output=True, text=True)
    if 'No module named pip' in done.stderr: pytest.skip('needs pip')
    assert done.returncode == 0, done.stderr
    wanted = [Requirement(v) for k, v in about(wheel) if k == 'Requires-Dist']

    def run(*args, extra='', cwd, **env):
        keep = installed([r for r in wanted if not r.marker or r.marker.evaluate(dict(extra=extra))])
        both = {d: modules_of(d) for d in distributions()}
        kept = {m for d, names in both.items() if canonicalize_name(d.metadata['Name']) in keep for m in names}
        hidden = {m for names in both.values() for m in names if m.isidentifier()} - kept - {'mpfnet'}
        hook = tmp_path_factory.mktemp('hook')
        (hook / 'sitecustomize.py').write_text(HIDDEN.format(hidden))
        path = os.pathsep.join(map(str, (hook, site)))
        env = os.environ | dict(PYTHONPATH=path, PYTHONWARNINGS='ignore') | env
        return subprocess.run([sys.executable, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True,
                              timeout=300)
    run.site = site
    return run


@pytest.fixture(scope='module')
def asked(flow_root):
    return ('-p', 'dataset', 'megc2019_flow', '-p', 'data_root', flow_root, '-p', 'method', 'pca_lda', '-p', 'subjects',
            'samm/sa00', '-p', 'workers', '1')


@pytest.fixture(scope='module')
def demo(bare, asked, tmp_path_factory):
    "The demonstration, of one fold, in an empty folder, where the wheel is installed with what it requires."
    folder = tmp_path_factory.mktemp('empty')
    return folder, bare('-m', 'mpfnet', 'demo', *asked, cwd=folder)


def test_the_library_alone_gives_numbers(demo, bare):
    "And says what it would take to leave a page."
    folder, done = demo
    assert done.returncode == 0, done.stderr[-3000:]
    run, = folder.glob('runs/megc2019_flow-3class-pca_lda-*')
    assert json.loads((run / 'metrics.json').read_text())['folds']['done'] == 1
    assert '1 of 68 folds' in done.stdout and 'notebook' not in done.stdout and 'Traceback' not in done.stderr
    assert 'not installed: papermill, ipykernel, nbformat, matplotlib.' in done.stderr
    assert "pip install 'mpfnet[notebooks]'" in done.stderr
    code = 'import mpfnet, importlib.util as u; print(mpfnet.__file__, *map(u.find_spec, ("papermill", "nbdev")))'
    there, *found = bare('-c', code, cwd=folder).stdout.split()
    assert Path(there).is_relative_to(bare.site) and found == ['None', 'None']


def test_with_the_extra_it_leaves_the_page_that_it_brought(demo, asked, bare):
    "The run goes on where the library alone left it."
    folder, _ = demo
    done = bare('-m', 'mpfnet', 'run', *asked, extra='notebooks', cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    run, = folder.glob('runs/megc2019_flow-3class-pca_lda-*')
    assert f'notebook  runs/{run.name}/executed.ipynb' in done.stdout
    outputs = str([c.get('outputs') for c in cells(run / 'executed.ipynb')])
    assert 'image/png' in outputs and run.name in outputs
    where = bare('-m', 'mpfnet', 'page', 'protocol_audit', cwd=folder).stdout.strip()
    assert where == str(bare.site / 'mpfnet/notebooks/nbs/paper/06_protocol_audit.ipynb')
