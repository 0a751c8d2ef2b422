"""The command `mpfnet` as its users start it: exit statuses, messages, pipes, terminals."""
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from warm import warm

from mpfnet.synthetic.lookalike import TREES, make_lookalike

SHELL = [sys.executable, '-m', 'mpfnet']
CLEAN = {k: v for k, v in os.environ.items() if k not
         in ('MPFNET_DATA', 'NO_COLOR', 'FORCE_COLOR', 'COLUMNS', 'LC_ALL', 'LANG', 'PYTHONIOENCODING', 'PYTHONUTF8')}


#: these decide how Python starts
STARTS = {'LANG', 'PYTHONIOENCODING'}


def mpfnet(*args, cwd=ROOT, **env):
    "Run the command; stdout and stderr are text. No run may end in a traceback."
    if STARTS & env.keys():
        done = subprocess.run([*SHELL, *map(str, args)], cwd=cwd, env=CLEAN | env, capture_output=True, timeout=60)
    else: done = warm('-m', 'mpfnet', *args, cwd=cwd, env=CLEAN | env, text=False)
    done.stdout, done.stderr = (s.decode('utf-8', 'backslashreplace') for s in (done.stdout, done.stderr))
    assert 'Traceback' not in done.stderr, done.stderr
    return done


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Data root with a grey look-alike of CASME II; do not change it."
    root = tmp_path_factory.mktemp('whole')
    make_lookalike('casme2', root, blank=True, progress=False)
    return root


@pytest.fixture
def mine(tmp_path):
    """The same for a test that changes it. A frame must be unlinked before it is written: grey frames are one file
    under many names."""
    make_lookalike('casme2', tmp_path / 'data', blank=True, progress=False)
    return tmp_path / 'data'


def frames(root, clip): return sorted((root / 'casme2' / 'CASME2_RAW_selected' / clip).iterdir())


def test_a_good_copy(whole):
    done = mpfnet('data', 'check', 'casme2', '--root', whole, '--strict', '--deep')
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert 'LOOK-ALIKE' in done.stdout and 'differs' not in done.stdout and str(whole) not in done.stdout
    # two folders without a row
    there = sum(len(list(p.iterdir())) for p in whole.glob('casme2/*/*/*') if p.name not in ('EP02_02f', 'EP02_07'))
    assert done.stdout.splitlines()[-1].endswith(f'counts as published; 0 damaged of {there} files')


def test_root_from_the_environment(whole):
    assert mpfnet('data', 'check', 'casme2', '--task', '5class', MPFNET_DATA=str(whole)).returncode == 0


def test_a_clip_without_frames(mine):
    shutil.rmtree(mine / 'casme2' / 'CASME2_RAW_selected' / 'sub25' / 'EP18_04f')
    done = mpfnet('data', 'check', 'casme2', '--root', mine)
    assert done.returncode == 1
    assert 'Clips without frames: 1' in done.stdout and 'EP18_04f' in done.stdout and 'partial-copy' in done.stdout
    assert done.stdout.count('differs') == 6                       # clips and surprise, three times
    strict = mpfnet('data', 'check', 'casme2', '--root', mine, '--strict')
    assert (strict.returncode == 1 and not strict.stdout and 'strict mode refuses' in strict.stderr
            and 'sub25/EP18_04f' in strict.stderr)


def test_another_list(tmp_path):
    make_lookalike('casme2', tmp_path, variant='2019', blank=True, progress=False)
    done = mpfnet('data', 'check', 'casme2', '--root', tmp_path, '--task', '3class')
    assert done.returncode == 1 and 'other-list' in done.stdout and 'Clips without frames' not in done.stdout


def test_no_data(tmp_path):
    nothing, empty = mpfnet('data', 'check', 'samm'), mpfnet('data', 'check', 'samm', '--root', tmp_path)
    assert nothing.returncode == empty.returncode == 1 and not nothing.stdout + empty.stdout
    assert 'MPFNET_DATA' in nothing.stderr and f'{tmp_path}' in empty.stderr and 'lookalike' in empty.stderr
    all_parts = mpfnet('data', 'check', 'megc2019_cd', '--root', tmp_path)
    assert all_parts.returncode == 1 and all(f'mpfnet: {d}:' in all_parts.stderr for d in ('smic', 'casme2', 'samm'))


@pytest.mark.parametrize(
    'args, says',
    [
        (('data', 'check', 'casme9'), 'casme_sq'),
        (('data', 'check', 'mmew', '--task', '5class'), 'no 5class labels'),
        (('data', 'check', 'samm', '--modality', 'vis'), 'only smic'),
        (('data', 'check', 'synth', '--variant', 'raw'), 'unknown option'),
        (('data', 'lookalike', 'all', 'x', '--variant', 'raw'), 'one dataset'),
        (('data', 'lookalike', 'samm', 'x', '--full'), 'one dataset is whole anyway'),
        ((), 'required'),
        (('data',), 'required'),
    ],
)
def test_wrong_usage(args, says):
    done = mpfnet(*args)
    assert done.returncode == 2 and says in done.stderr and not done.stdout


@pytest.mark.parametrize('content', [b'', b'PK\3\4' + bytes(200)], ids=['empty', 'torn'])
def test_a_broken_sheet(mine, content):
    (mine / 'casme2' / 'CASME2-coding-20140508.xlsx').write_bytes(content)
    done = mpfnet('data', 'check', 'casme2', '--root', mine)
    assert done.returncode == 1 and 'CASME2-coding-20140508.xlsx' in done.stderr


@pytest.mark.parametrize('which', [0, 4])
def test_a_truncated_frame(mine, which):
    frame = frames(mine, first_clip(mine))[which]
    data = frame.read_bytes()
    frame.unlink()
    frame.write_bytes(data[:-20])
    done = mpfnet('data', 'check', 'casme2', '--root', mine, '--task', '5class', '--deep')
    assert (done.returncode == 1 and 'Damaged files: 1' in done.stdout
            and frame.relative_to(mine).as_posix() in done.stdout and 'truncated' in done.stdout)


def first_clip(root):
    folder = next(
        p for p in sorted((root / 'casme2' / 'CASME2_RAW_selected').glob('*/*')) if len(list(p.iterdir())) > 8
    )
    return folder.relative_to(root / 'casme2' / 'CASME2_RAW_selected')


@pytest.mark.parametrize('name', [n for n in TREES if n != 'dfme'])    # see test_newer_datasets.py
def test_a_lookalike_passes_its_check(tmp_path, name):
    made = mpfnet('data', 'lookalike', name, tmp_path / 'a folder', '--blank')
    assert made.returncode == 0 and not made.stderr, made.stderr
    line = next(l for l in made.stdout.splitlines() if l.startswith('  mpfnet data check'))
    done = mpfnet(*shlex.split(line)[1:])
    assert done.returncode == 0 and 'counts as published' in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_some_subjects_drawn(tmp_path):
    made = mpfnet('data', 'lookalike', 'casme_sq', tmp_path, '--subjects', '2', '--size', '32')
    assert (
        made.returncode == 0
        and f'papermill nbs/05_loso.ipynb runs/casme_sq.ipynb -p dataset casme_sq -p preset tiny -p data_root '
            f'{tmp_path}'
        in made.stdout
    )
    assert mpfnet('data', 'check', 'casme_sq', '--root', tmp_path).returncode == 1, (
        'two subjects are not the published counts'
    )
    assert mpfnet('data', 'lookalike', 'casme_sq', tmp_path / 'b', '--subjects', '999').returncode == 1
    other = mpfnet('data', 'lookalike', 'casme_sq', tmp_path, '--subjects', '2', '--size', '32', '--seed', '1')
    assert other.returncode == 1 and 'another' in other.stderr


def test_lookalike_of_another_camera_names_it(tmp_path):
    made = mpfnet('data', 'lookalike', 'smic', tmp_path, '--variant', 'nir', '--subjects', '1', '--size', '32')
    assert (f'data check smic --root {tmp_path} --modality nir' in made.stdout
            and '-p data_options modality=nir' in made.stdout)
    shutil.rmtree(tmp_path / 'smic')
    mpfnet('data', 'lookalike', 'smic', tmp_path, '--variant', 'nir', '--blank')
    assert mpfnet('data', 'check', 'smic', '--root', tmp_path, '--modality', 'nir').returncode == 0


def test_flow_release(flow_root):
    done = mpfnet('data', 'check', 'megc2019_flow', '--root', flow_root)
    assert (done.returncode == 1 and 'checksum' in done.stdout
            and 'differs' not in done.stdout.replace('differs from', '')), 'made-up images are not the release'


def test_where(whole):
    done = mpfnet('data', 'where', MPFNET_DATA=str(whole))
    found, cards = done.stdout.split('\nCards\n')
    rows = {l.split()[0]: l for l in found.splitlines() if l.strip() and ': ' not in l.partition('  ')[0]}
    card = next(l for l in cards.splitlines() if l.split()[:1] == ['dfme'])
    assert '200, 300, 500' in card and '1024×768' in card and 'mea-lab-421.github.io' in card
    assert done.returncode == 0 and 'MPFNET_DATA' in rows['data'] and '1 of 3 parts' in rows['megc2019_cd']
    assert ('yes: look-alike' in rows['casme2'] and rows['samm'].split()[-1] == 'no'
            and 'lookalike NAME FOLDER' in cards)
    assert ('not set' in mpfnet('data', 'where').stdout
            and 'the argument' in mpfnet('data', 'where', '--root', whole).stdout)


def test_where_knows_the_faces_that_runs_made(tmp_path, synth_root):
    "Runs keep them in OUT_DIR/cache, everything else in the cache folder, a data root has its own."

    def row(*args, **env):
        return next(
            l
            for l in mpfnet(
                'data', 'where', *args, cwd=tmp_path, MPFNET_CACHE=str(tmp_path / 'cache'), **env
            ).stdout.splitlines()
            if l.startswith('  synth ')
        )
    assert row().endswith('no') and 'runs/cache/synth or ' in row()
    shutil.copytree(synth_root / 'synth', tmp_path / 'runs' / 'cache' / 'synth')
    assert row().endswith('yes: synthetic') and 'runs/cache/synth ' in row()
    assert row('--out-dir', 'elsewhere').endswith('no') and row('--root', tmp_path / 'runs').endswith('no')
    assert row('--root', synth_root).endswith('yes: synthetic')
    shutil.move(tmp_path / 'runs' / 'cache', tmp_path / 'cache')
    assert row().endswith('yes: synthetic') and str(tmp_path / 'cache' / 'synth') in row()


#: the command of a package that was installed without its pages
NO_PAGES = """
import sys
from mpfnet.core import pages
from mpfnet.cli import main
pages.pages_root = lambda: None
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    'args, says',
    [
        (('paper', 'lookalike', '--only', 'table9'), 'known: fig01, fig02'),
        (('paper', 'lookalike', '--only', 'table1'), 'without its pages'),
        (('paper', 'lookalike'), 'without its pages'),
        (('run', '-p', 'method', 'majority'), 'without its pages'),
        (('page', '05_loso'), 'without its pages'),
    ],
    ids=lambda v: ' '.join(v) if isinstance(v, tuple) else '',
)
def test_where_there_are_no_pages(tmp_path, args, says):
    "Is an error at once, not after a minute of drawing faces; so is a project of somebody else's that looks like one."
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'settings.ini').touch()
    done = warm('-c', NO_PAGES, *args, cwd=tmp_path, env=CLEAN | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 1 and says in done.stderr and done.stderr.startswith('mpfnet: ') and not done.stdout
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
    'args, says',
    [
        (('-p', 'datset', 'samm'), 'unknown parameter(s) datset; known: dataset, task'),
        (('-p', 'dataset', 'nothing'), 'known: synth, megc2019_flow'),
        (('-p', 'length', '40'), 'length: expected a whole number, 3…20, found 40'),
        (('-p', 'gamma', '0.5', '-p', 'method', 'plsm'), 'only mpfnet_p weighs two encoders'),
        (('-p', 'seed'), 'expected 2 arguments'),
        (('--out', 'runs/out'), '--out: expected a name that ends in .ipynb'),
        (('--out', str(ROOT / 'nbs' / 'out.ipynb')), 'would be taken for a page'),
        (('--out', 'out.ipynb', '--no-notebook'), '--no-notebook wants none'),
    ],
    ids=lambda v: ' '.join(v[:3]) if isinstance(v, tuple) else '',
)
def test_a_slip_ends_a_run_before_it_begins(tmp_path, args, says):
    where = ROOT if 'nbs' in args[-1] else tmp_path
    done = mpfnet('run', *args, cwd=where, PYTHONPATH=str(ROOT))
    assert done.returncode == 2 and says in done.stderr and not list(tmp_path.iterdir())


def test_run_leaves_the_executed_page_in_the_folder_of_the_run(tmp_path, flow_root):
    "From a folder that is no checkout; -r keeps text. Again without a page: the same run, the same numbers."
    asked = ('-p', 'dataset', 'megc2019_flow', '-r', 'data_root', flow_root, '-p', 'method', 'majority', '-p',
             'subjects', 'samm/sa00')
    done = mpfnet('run', *asked, '-q', cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    folder, = (tmp_path / 'runs').glob('megc2019_flow-3class-majority-*')
    page = json.loads((folder / 'executed.ipynb').read_text(encoding='utf-8'))
    injected = next(c for c in page['cells'] if 'injected-parameters' in c['metadata'].get('tags', []))
    assert f'data_root = "{flow_root}"' in ''.join(injected['source']) and not list(tmp_path.glob('runs/*.ipynb'))
    assert '1 of 68 folds' in done.stdout and f'run       runs/{folder.name}\n' in done.stdout and 'UF1' in done.stdout
    assert f'notebook  runs/{folder.name}/executed.ipynb' in done.stdout and not done.stderr
    numbers = (folder / 'predictions.csv').read_bytes()
    again = mpfnet('run', *asked, '--no-notebook', cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert again.returncode == 0 and 'notebook' not in again.stdout
    assert (folder / 'predictions.csv').read_bytes() == numbers
    assert again.stdout.partition('\nrun')[0] == done.stdout.partition('\nrun')[0]


@pytest.mark.parametrize('more', [(), ('--no-notebook',)], ids=' '.join)
def test_what_a_run_is_refused_is_a_sentence_and_leaves_nothing(tmp_path, more):
    "No data; and a folder where nothing can be written."
    done = mpfnet('run', '-p', 'dataset', 'samm', '-p', 'preset', 'tiny', *more, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and 'no data folder is set' in done.stderr and not list(tmp_path.iterdir())
    (tmp_path / 'runs').touch()
    done = mpfnet('run', '-p', 'method', 'majority', *more, cwd=tmp_path, PYTHONPATH=str(ROOT))
    says = 'a file is where a folder is needed'
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['runs']


BLANK = """
import functools, sys
from mpfnet.cli import main
from mpfnet.synthetic import lookalike
lookalike.make_lookalike = functools.partial(lookalike.make_lookalike, blank=True)       # a plan looks at no frame
sys.exit(main(sys.argv[1:]))"""


def test_a_plan_says_each_warning_once_in_a_line(tmp_path):
    "Tables and figures ask for the same data many times."
    done = warm('-c', BLANK, 'paper', 'lookalike', '--plan', '--only', 'table2,table3', '--lookalike-subjects', '2',
                cwd=tmp_path, env=CLEAN | dict(PYTHONPATH=str(ROOT)))
    said = [l for l in done.stderr.splitlines() if 'UserWarning' in l]
    told = [l for l in done.stderr.splitlines() if ' · look-alike' not in l]            # how far the making is
    assert done.returncode == 0 and len(said) == len(set(said)) == 5 and said == told
    assert all('partial-copy' in l for l in said) and 'smic-3class-mpfnet_p' in done.stdout


def test_what_is_not_installed_is_a_sentence(tmp_path):
    "Annotation sheets and pages need packages that a bare GPU machine may lack."
    code = ("import sys\nfor m in ('openpyxl', 'papermill'): sys.modules[m] = None\nfrom mpfnet.cli import "
            "main\nsys.exit(main(sys.argv[1:]))")
    for args, says in (
        (('data', 'lookalike', 'samm', tmp_path, '--blank'), 'pip install openpyxl'),
        (('paper', 'lookalike', '--only', 'fig02', '--out-dir', tmp_path / 'p'), "pip install 'mpfnet[notebooks]'"),
        (('run', '-p', 'method', 'majority', '--out', tmp_path / 'p.ipynb'), "pip install 'mpfnet[notebooks]'"),
    ):
        done = warm('-c', code, *args, cwd=ROOT)
        assert (done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
                and done.stderr.count('\n') == 1)


@pytest.mark.parametrize(
    'args',
    [
        (),
        ('data',),
        ('features',),
        ('data', 'check', 'samm'),
        ('data', 'check', 'megc2019_cd'),
        ('data', 'where'),
        ('features', 'verify'),
        ('compare', 'a', 'b'),
        ('paper', 'real', '--plan'),
        ('paper', 'public_flow', '--plan'),
        ('paper', 'lookalike', '--plan', '--only', 'fig02'),
    ],
    ids=' '.join,
)
def test_in_an_empty_folder(tmp_path, args):
    "Every command says what is missing, once, and leaves nothing behind."
    done = mpfnet(*args, cwd=tmp_path, PYTHONPATH=str(ROOT), MPFNET_CACHE=str(tmp_path / 'cache'))
    lines = [l for l in done.stderr.splitlines() if l]
    assert (len(set(lines)) == len(lines) and not any(l.count('smic: smic') for l in lines)
            and not list(tmp_path.iterdir()))


def test_where_nothing_can_be_written(tmp_path):
    "The file and the reason, no number of an error."
    (tmp_path / 'file').touch()
    done = mpfnet('data', 'lookalike', 'samm', tmp_path / 'file', '--blank')
    assert done.returncode == 1 and 'Errno' not in done.stderr and str(tmp_path / 'file') in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_page_that_fails_is_no_traceback_of_ours(monkeypatch, capsys):
    from mpfnet import cli
    from mpfnet.paper import plan as paper
    def fails(*args): raise RuntimeError('fig02.ipynb failed (fig02.ipynb); the end of fig02.log:\nKeyError: 1')
    monkeypatch.setattr(paper, 'make', fails)
    assert cli.main(['paper', 'lookalike']) == 1 and capsys.readouterr().err.startswith('mpfnet: fig02.ipynb failed')


def test_version_and_entry_point():
    import mpfnet as package
    assert mpfnet('--version').stdout.split() == ['mpfnet', package.__version__]
    from importlib.metadata import entry_points

    from mpfnet.cli import main
    command, = entry_points(group='console_scripts', name='mpfnet')
    assert command.load() is main


@pytest.mark.parametrize('env', [dict(LANG='C'), dict(PYTHONIOENCODING='ascii')], ids=str)
def test_poor_locales(mine, env):
    (mine / 'casme2' / 'CASME2_RAW_selected' / 'sub26').rename(mine / 'casme2' / 'CASME2_RAW_selected' / 'Zoë 李')
    done = mpfnet('data', 'check', 'casme2', '--root', mine, **env)
    assert done.returncode == 1 and 'Clips without frames' in done.stdout


def test_names_of_a_hostile_kind(mine):
    """A file name can hold what a terminal takes for a command, brackets that rich takes for markup, and bytes that
    are no text."""
    clip = frames(mine, first_clip(mine))
    clip[0].parent.joinpath('[red]\x1b[2Jimg_7.jpg').write_bytes(b'')
    os.rename(os.fsencode(clip[1]), os.fsencode(clip[1].parent) + b'/\xff' + os.fsencode(clip[1].name))
    done = mpfnet('data', 'check', 'casme2', '--root', mine, '--deep')
    assert done.returncode == 1 and '\x1b' not in done.stdout + done.stderr and '[red]\\x1b[2J' in done.stdout


def test_in_a_pipe_a_row_is_a_line(whole):
    from mpfnet.data.defects import DECISIONS
    done = mpfnet('data', 'check', 'casme2', '--root', whole, COLUMNS='40')
    assert (any(l.startswith('  left-out ') and l.endswith(DECISIONS['left-out'][1]) for l in done.stdout.splitlines())
            and '\x1b' not in done.stdout)


def test_head(whole):
    done = subprocess.run(
        f'"{sys.executable}" -m mpfnet data check casme2 --root "{whole}" | head -1; echo ${{PIPESTATUS[0]}}',
        shell=True, executable='/bin/bash', cwd=ROOT, env=CLEAN, capture_output=True, text=True,
    )
    assert done.stdout.startswith('casme2: LOOK-ALIKE') and len(done.stdout.splitlines()) == 2 and not done.stderr


def test_a_closed_pipe_is_no_traceback(whole):
    "The reader is gone before the first line is written."
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*SHELL, 'data', 'check', 'casme2', '--root', str(whole)], cwd=ROOT, env=CLEAN, stdout=write,
                          stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141 and not done.stderr


def on_a_terminal(*args, **env):
    "Run the command on a pseudo-terminal; what it wrote there."
    pty = pytest.importorskip('pty')
    master, slave = pty.openpty()
    p = subprocess.Popen([*SHELL, *map(str, args)], cwd=ROOT,
                         env=CLEAN | dict(TERM='xterm-256color', COLUMNS='80') | env, stdout=slave,
                         stderr=subprocess.DEVNULL)
    os.close(slave)
    out = b''
    while True:
        try: chunk = os.read(master, 65536)
        except OSError: break                                      # Linux: the other end is closed
        if not chunk: break
        out += chunk
    os.close(master)
    p.wait()
    return out.decode()


def test_colours_only_where_they_are_wanted(mine):
    shutil.rmtree(mine / 'casme2' / 'CASME2_RAW_selected' / 'sub01')
    args = ('data', 'check', 'casme2', '--root', mine, '--task', '3class')
    assert '\x1b[31m' in on_a_terminal(*args) and '\x1b' not in on_a_terminal(*args, NO_COLOR='1')


WITHOUT_RICH = '''
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'rich': raise ImportError(name)
sys.meta_path.insert(0, Hidden())
from mpfnet.cli import main
sys.exit(main(sys.argv[1:]))
'''


def test_without_rich(whole):
    done = subprocess.run([sys.executable, '-c', WITHOUT_RICH, 'data', 'check', 'casme2', '--root', str(whole)],
                          cwd=ROOT, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and 'counts as published' in done.stdout and '─' not in done.stdout
    assert (
        'rich'
        not in subprocess.run(
            [sys.executable, '-c', 'import sys, mpfnet.cli; print(*{m.split(".")[0] for m in sys.modules})'], cwd=ROOT,
            env=CLEAN, capture_output=True, text=True,
        ).stdout.split()
    )


def write_run(folder, shift, stamp='REAL clips, public flow', **more):
    "The folder of a run, 40 clips of 10 subjects; one clip in `shift` is wrong."
    folder.mkdir(parents=True)
    config = dict(dataset='megc2019_flow', task='3class', method='plsm', seed=0, code='a' * 64,
                  settings=dict(plsm=dict(epochs=4)), data=dict(subjects=10, stamp=stamp))
    (folder / 'config.json').write_text(json.dumps(config | more), encoding='utf-8')
    rows = [(f'{i % 10:03d}', f'{i}_1', i % 3, (i + (i % shift == 0)) % 3) for i in range(40)]
    scores = [','.join(str(float(k == p)) for k in range(3)) for *_, p in rows]
    (folder / 'predictions.csv').write_text(
        'dataset,subject,clip,label,prediction,score_0,score_1,score_2\n'
        + ''.join(f'samm,{s},{c},{y},{p},{z}\n' for (s, c, y, p), z in zip(rows, scores))
    )
    return folder


@pytest.fixture
def two_runs(tmp_path):
    write_run(tmp_path / 'runs' / 'synth-3class-plsm-aa11bb22', 3)
    write_run(tmp_path / 'runs' / 'synth-3class-pltn-cc33dd44', 4, method='pltn', code='b' * 64, seed=1)
    return tmp_path


def test_compare_by_name_hash_and_folder(two_runs):
    done = mpfnet('compare', 'aa11', 'synth-3class-pltn', cwd=two_runs)
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ['A  synth-3class-plsm-aa11bb22, seed 0', 'B  synth-3class-pltn-cc33dd44, seed 1',
                         'REAL clips, public flow; 40 clips of 10 subjects']
    assert (lines[-1].startswith('B − A = +0.') and lines[-1].endswith('On REAL clips, public flow')
            and 'a' * 12 + '…' in done.stdout and 'a' * 13 not in done.stdout)
    there = mpfnet('compare', two_runs / 'runs' / 'synth-3class-plsm-aa11bb22', 'cc33', '--out-dir', two_runs / 'runs')
    assert there.stdout == done.stdout
    back = mpfnet('compare', 'cc33', 'aa11', '--metric', 'f1_weighted', '--n', '300', '--seed', '5', cwd=two_runs)
    assert (back.returncode == 0 and back.stdout.splitlines()[-1].startswith('B − A = −0.')
            and 'weighted F1 (95 %' in back.stdout.splitlines()[-1])


def test_compare_ends_with_0_whatever_it_finds(two_runs):
    same = mpfnet('compare', 'aa11', 'aa11', cwd=two_runs)
    assert (same.returncode == 0 and 'no difference' in same.stdout.splitlines()[-1]
            and 'What differs: no setting' in same.stdout)


@pytest.mark.parametrize(
    'args, status, says',
    [
        (('compare', 'synth', 'aa11'), 1, "'synth' is the beginning of 2 runs"),
        (('compare', 'samm', 'aa11'), 1, "no run 'samm' in runs; there are synth-3class-plsm-aa11bb22"),
        (('compare', 'runs', 'aa11'), 1, 'not of a run'),
        (('compare', 'aa11', 'cc33', '--n', '5'), 1, 'n: expected'),
        (('compare', 'aa11'), 2, 'RUN_B'),
        (('compare', 'aa11', 'cc33', '--metric', 'f1'), 2, 'f1_weighted'),
        (('compare', 'aa11', 'cc33', '--n', 'many'), 2, '--n'),
        (('compare', 'aa11', 'cc33', '--out-dir', 'nowhere'), 1, 'no other run'),
    ],
)
def test_compare_refuses(two_runs, args, status, says, monkeypatch, capsys):
    from mpfnet.cli import main
    monkeypatch.chdir(two_runs)
    assert main(args) == status
    out, err = capsys.readouterr()
    assert says in err and not out


def test_compare_names_what_is_wrong(two_runs):
    write_run(two_runs / 'runs' / 'fake', 5, stamp='LOOK-ALIKE of SAMM: synthetic faces')
    other = mpfnet('compare', 'aa11', 'fake', cwd=two_runs)
    assert (other.returncode == 1 and 'A has REAL clips, public flow; B has LOOK-ALIKE of SAMM' in other.stderr
            and len(other.stderr.splitlines()) == 1)
    (two_runs / 'runs' / 'fake' / 'predictions.csv').unlink()
    gone = mpfnet('compare', 'aa11', 'fake', cwd=two_runs)
    assert (gone.returncode == 1 and 'fake/predictions.csv' in gone.stderr and not gone.stdout
            and len(gone.stderr.splitlines()) == 1)


def test_compare_in_poor_locales_and_with_hostile_names(two_runs):
    for name in ('x1', 'x2'):
        write_run(two_runs / 'runs' / name, 5, stamp='REAL \x1b[2J clips', settings={'[red]\x1b[2J': name})
    done = mpfnet('compare', 'x1', 'x2', cwd=two_runs, LANG='C', PYTHONIOENCODING='ascii')
    assert done.returncode == 0 and '\x1b' not in done.stdout + done.stderr and '[red]\\x1b[2J' in done.stdout


def test_compare_without_rich(two_runs):
    done = subprocess.run([sys.executable, '-c', WITHOUT_RICH, 'compare', 'aa11', 'cc33'], cwd=two_runs,
                          env=CLEAN | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and 'On REAL clips' in done.stdout and '─' not in done.stdout


def test_ctrl_c(tmp_path):
    "A look-alike that takes minutes is interrupted: no traceback, nothing half-made."
    p = subprocess.Popen(
        [*SHELL, 'data', 'lookalike', 'samm', str(tmp_path)],
        cwd=ROOT,
        env=CLEAN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(200):
        if any(tmp_path.rglob('*.jpg')): break
        time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 130 and 'Traceback' not in err and not list(tmp_path.iterdir())
