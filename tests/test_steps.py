"""Flow with time: files that somebody or something has spoilt, made-up copies through a run and the command, and the
real sample where there is one."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpfnet.clips import load_clips
from mpfnet.core.files import read_json
from mpfnet.data.readers import DataError
from mpfnet.data.steps import STEPS_FLOW, STEPS_LIST, blocks_in, moving, plain_lines, steps_from
from mpfnet.loso import run
from mpfnet.paper.plan import Paper, plan
from mpfnet.paper.sequence import sequence_study, study_clips
from mpfnet.synthetic.timed_flow import make_timed_flow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def timed_root(tmp_path_factory):
    "Data root with a made-up copy in which the course tells the classes apart; do not change it."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MPFNET_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield make_timed_flow(tmp_path_factory.mktemp('data'), place=.2, course=.6, size=0)


# ---- spoilt files

FINE = ' '.join(['0.5 0.25']*64)
CLIPS = ['casme2-sub01-EP02_01f', *[FINE]*64, 'samm-6-006_1_2', *[FINE]*64]
LIST = ['casme2-sub01-EP02_01f-img59.jpg 1', 'samm-6-006_1_2-006_05588.jpg 0']


def said(tmp_path, flow=CLIPS, listed=LIST, code='ascii'):
    folder = tmp_path/'atnet_flow'
    (folder/'Data').mkdir(parents=True, exist_ok=True)
    (folder/STEPS_FLOW).write_bytes(flow if isinstance(flow, bytes) else '\n'.join(flow).encode(code))
    (folder/STEPS_LIST).write_text('\n'.join(listed))
    with pytest.raises(DataError) as error: load_clips('atnet_flow', tmp_path)
    return str(error.value)


def changed(line, text): return [*CLIPS[:line - 1], text, *CLIPS[line:]]


@pytest.mark.parametrize('flow, sentence', [
    (CLIPS[:100], 'line 66, samm-6-006_1_2: 34 lines of numbers, expected 64, and there the file ends: cut off?'),
    ([*CLIPS[:100], FINE[:40]], 'line 101, samm-6-006_1_2: 9 numbers, expected 128'),
    (changed(5, FINE + ' 1'), 'line 5, casme2-sub01-EP02_01f: 129 numbers, expected 128'),
    (changed(5, FINE.replace('0.5', 'nan', 1)), 'line 5, casme2-sub01-EP02_01f: nan is no finite number'),
    (changed(5, FINE.replace('0.5', '0,5', 1)), "line 5, casme2-sub01-EP02_01f: '0,5' is no number"),
    (changed(5, FINE.replace('0.25', '-0.25', 1)), 'line 5, casme2-sub01-EP02_01f: a magnitude of -0.25'),
    (changed(66, 'samm-6-006_9_9'), 'line 66, samm-6-006_9_9: not in Data/Apex_Cropped_images.txt'),
    (changed(66, 'somebody'), 'line 66, somebody: no name of a clip, as casme2-sub01-EP02_01f is one'),
    ([*CLIPS, *CLIPS[:65]], 'line 131, casme2-sub01-EP02_01f: this clip stands there already, in line 1'),
    (CLIPS[1:], 'line 1: numbers, and no line above them that names their clip'),
    (CLIPS[:65], 'samm-6-006_1_2: in Data/Apex_Cropped_images.txt, and not in Data/OpticalFlowFeatureData.txt'),
    ([''], 'Data/OpticalFlowFeatureData.txt names no clip'),
    ('\n'.join(changed(3, FINE + ' é')).encode('latin-1'), 'line 3: the byte 0xe9, which is no ASCII'),
    ('\n'.join(CLIPS).encode('utf-16')[:-1], 'half a character: another encoding, or damaged?'),
])
def test_what_is_wrong_is_said_with_its_line(tmp_path, monkeypatch, flow, sentence):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path/'cache'))
    text = said(tmp_path, flow)
    assert sentence in text and 'docs/data.md' in text
    assert not (tmp_path/'cache').exists()


@pytest.mark.parametrize('listed, sentence', [
    ([LIST[0].replace(' 1', ' 7'), LIST[1]], "line 1: label '7' is not 0, 1 or 2"),
    ([*LIST, LIST[0]], 'line 3: casme2-sub01-EP02_01f occurs twice'),
    ([LIST[0], 'samm-6-006_1_2 0'], 'line 2: '),
])
def test_so_is_what_is_wrong_with_the_list(tmp_path, listed, sentence):
    assert f'{STEPS_LIST}, {sentence}' in said(tmp_path, listed=listed)


def test_all_of_it_is_said_at_once(tmp_path):
    flow = changed(5, FINE + ' 1')
    text = said(tmp_path, [*flow[:66], FINE + ' 2', *flow[67:]])
    assert '2 problem(s)' in text and 'line 5' in text and 'line 67' in text


def test_a_missing_file_says_how_to_get_it(tmp_path):
    (tmp_path/'atnet_flow').mkdir()
    with pytest.raises(DataError, match='is missing. Expected Data/OpticalFlowFeatureData.txt'):
        load_clips('atnet_flow', tmp_path)


def test_two_good_clips_are_not_the_composite(tmp_path, monkeypatch):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path/'cache'))
    assert 'is not the MEGC 2019 composite' in said(tmp_path)


@pytest.mark.parametrize('code', ['utf-16', 'utf-8-sig'])
def test_another_encoding_that_says_so_is_read(code):
    assert plain_lines('\r\n'.join(CLIPS).encode(code), '') == CLIPS


# ---- runs

def uf1(root, tmp_path, **more):
    asked = dict(dataset='atnet_flow', data_root=str(root), out_dir=str(tmp_path), split='kfold:2', device='cpu',
                 progress=False, preset='tiny')
    folder = run(**asked | more)
    return read_json(folder/'metrics.json')['pooled'], read_json(folder/'config.json')


def test_methods_read_it_and_only_a_sequence_shows_the_course(timed_root, tmp_path):
    given, config = uf1(timed_root, tmp_path, method='pca_lda')
    straight, _ = uf1(timed_root, tmp_path, method='pca_lda', data_options='order=straight')
    ridge, _ = uf1(timed_root, tmp_path, method='hof_ridge')
    assert given['n'] == 442 and given['uf1'] > straight['uf1'] + .2 and given['uf1'] > ridge['uf1'] + .1
    assert config['settings']['preprocess']['input'] == 'flow8' and config['settings']['preprocess']['length'] == 11


CHEAP = 'pltn.epochs=1,plsm.epochs=1,meta.updates=2'

def test_mpfnet_p_reads_the_whole_window(timed_root, tmp_path):
    found, _ = uf1(timed_root, tmp_path, method='mpfnet_p', overrides=CHEAP, data_options='cut=whole',
                   subjects='group1')
    assert found['n'] > 200


def test_mpfnet_p_leaves_some_people_out_and_goes_on_with_others(timed_root, tmp_path):
    "442 clips, one person a fold; what is done stays, and of 68 people only those that are named are trained."
    asked = dict(method='mpfnet_p', overrides=CHEAP, length=3, split='subject')
    first, _ = uf1(timed_root, tmp_path, **asked, subjects='smic/s01')
    fold, = tmp_path.rglob('folds/*.json')
    before = fold.stat().st_mtime_ns
    both, config = uf1(timed_root, tmp_path, **asked, subjects='smic/s01,samm/006')
    assert fold.stat().st_mtime_ns == before and len([*tmp_path.rglob('folds/*.json')]) == 2
    assert 0 < first['n'] < both['n'] and (config['data']['clips'], config['data']['subjects']) == (442, 68)


def test_length_has_no_use_for_the_whole_window(timed_root, tmp_path):
    with pytest.raises(ValueError, match='all 64 steps are read'):
        uf1(timed_root, tmp_path, method='pca_lda', length=5, data_options='cut=whole')
    with pytest.raises(ValueError, match='needs recorded frames'): uf1(timed_root, tmp_path, method='lbp_top')


def test_a_study_goes_on_where_it_stopped(timed_root, tmp_path):
    asked = dict(data_root=str(timed_root), out_dir=str(tmp_path), lengths='3', split='kfold:2', draws=200,
                 device='cpu', progress=False)
    first = sequence_study(**asked)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('folds/*.json')}
    again = sequence_study(**asked)
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('folds/*.json')} and again.said == first.said
    assert first.gaps.set_index('question')['verdict']['course'] == 'beyond'


def test_the_page_says_where_real_clips_would_be(timed_root, tmp_path, monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    assert 'The release is not here' in study_clips(None) and study_clips(timed_root).startswith('The clips of')
    monkeypatch.setenv('MPFNET_DATA', str(timed_root))
    assert 'The release is here, too' in study_clips(None)
    with pytest.raises(DataError, match='atnet_flow: looked'):
        sequence_study(data_root=str(tmp_path), out_dir=str(tmp_path), progress=False)


def test_the_command_makes_and_checks_a_copy(timed_root, tmp_path):
    def mpfnet(*words):
        return subprocess.run([sys.executable, '-m', 'mpfnet', *map(str, words)], capture_output=True, text=True,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)})
    done = mpfnet('data', 'check', 'atnet_flow', '--root', timed_root)
    assert done.returncode == 0 and 'counts as published' in done.stdout and 'LOOK-ALIKE' in done.stdout, done.stderr
    done = mpfnet('data', 'lookalike', 'atnet_flow', tmp_path, '--blank')
    assert done.returncode != 0 and 'no faces to draw' in done.stderr
    done = mpfnet('data', 'lookalike', 'atnet_flow', tmp_path)
    following = done.stdout.partition('Next:')[2].splitlines()[1:]
    assert [line.split()[:2] for line in following] == [['mpfnet', 'data'], ['mpfnet', 'run']], done.stdout
    assert 'made-up flow' in done.stdout


def test_the_paper_plans_its_lengths_where_the_file_is(timed_root, tmp_path, capsys):
    "Figure 8 alone; what other tables need is not asked for where they are not."
    paper = Paper(data='public_flow', preset='tiny', data_root=str(timed_root), out_dir=str(tmp_path), lengths=(3,),
                  device='cpu')
    table = plan(paper, ['fig08'])
    assert dict(zip(table['run'], table['to_train'])) == {'atnet_flow-3class-mpfnet_p-L3': 68,
                                                          'atnet_flow-3class-mpfnet_p': 68}
    assert (table['minutes'] > 0).all() and 'left out, megc2019_flow' in capsys.readouterr().err
    with pytest.raises(ValueError, match='megc2019_flow: looked for'): plan(paper, ['table3'])


# ---- the real sample

@pytest.fixture
def sample():
    "Real clips of the release, where somebody has put some."
    for root in (os.environ.get('MPFNET_DATA'), ROOT.parent/'shared'/'data'):
        if root and (Path(root)/'atnet_sample').is_dir(): return Path(root)/'atnet_sample'
    pytest.skip('needs clips of the real file: set MPFNET_DATA to the folder that holds atnet_sample/')


def test_real_clips_move_between_onset_and_offset_alone(sample):
    problems, n = [], 0
    for path in sorted(sample.glob('*.txt')):
        for b in blocks_in(plain_lines(path.read_bytes(), path), problems):
            steps = steps_from(b.rows)
            rise, fall = moving(steps)
            there = np.flatnonzero(steps.any((0, 2, 3)))
            assert np.array_equal(there, np.arange(rise.start, fall.stop)), b.name
            n += 1
    assert n == 20 and not problems


def test_the_sum_of_the_rise_goes_with_the_other_release(sample, real_root):
    done = subprocess.run([sys.executable, ROOT/'benchmarks'/'flow_with_time.py', sample, real_root], text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert 'casme2: 3 clips, r of u 0.50, of v 0.78' in done.stdout, done.stderr
