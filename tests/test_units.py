"""Action units as a task: from a sheet's column to metrics, on look-alikes and drawn faces; what is refused, what does
not leak, and what a run leaves."""
import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import CHEAP_RIVALS
from openpyxl import load_workbook
from warm import warm

from mpfnet.cli import show_result
from mpfnet.clips import load_clips
from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold
from mpfnet.loso import run
from mpfnet.methods import Context, fit, override, settings_preset
from mpfnet.parameters import check_parameters
from mpfnet.results.compare import compare, verdict
from mpfnet.results.findings import read_result
from mpfnet.results.overview import draw_runs, runs_in, table_of_runs
from mpfnet.results.tasks import scores_table, task_of
from mpfnet.synthetic.lookalike import make_lookalike
from mpfnet.synthetic.unit_flow import UNITS, UnitFlowConfig, draw_clips
from mpfnet.unit_methods import UNIT_METHODS

pytestmark = pytest.mark.filterwarnings('ignore:.*(partial-copy|nobody else shows)')
TASK, SCORED = 'au:1+4+12', (1, 4, 12)
SETTINGS = override(settings_preset('tiny', released_flow=True),
                    f'own.epochs=1,encoder.width=0.125,preprocess.size=16,{CHEAP_RIVALS}')


@pytest.fixture(scope='module')
def sheets(tmp_path_factory):
    "Data root with look-alikes whose frames are blank: only their sheets are read."
    root = tmp_path_factory.mktemp('sheets')
    for name in ('smic', 'casme2', 'samm'): make_lookalike(name, root, subjects=4, blank=True, progress=False)
    return root


@pytest.fixture(scope='module')
def done(synth_root, tmp_path_factory):
    "A run of two seeds on drawn faces: the folder of its summary."
    out = tmp_path_factory.mktemp('runs')
    return run(**asked(synth_root, out), seed='0,1')


def asked(root, out, **more):
    return dict(dataset='synth', task=TASK, method='hof_ridge', data_root=str(root), out_dir=str(out), progress=False,
                overrides='strain.size=32,strain.flow=dis') | more


def test_the_command_prints_scores_of_units(done, capsys):
    show_result(done)
    printed = capsys.readouterr().out
    assert 'F1 (95 %)' in printed and 'AU12' in printed and '  mean ' in printed and 'SYNTHETIC' in printed


# --- what is refused

def test_a_dataset_without_units_is_refused_before_anything_is_read(sheets, tmp_path):
    for name, said in dict(smic='its sheet has emotions only', megc2019_flow='without the sheets of the datasets',
                           megc2019_cd="Without it: dataset='casme2[+]samm'",
                           **{'samm+smic': "Without it: dataset='samm'"}).items():
        with pytest.raises(ValueError, match=f"has no task='au'.*{said}"):
            run(dataset=name, task='au', method='hof_ridge', data_root=str(sheets), out_dir=str(tmp_path/'runs'))
    assert not (tmp_path/'runs').exists()


@pytest.mark.parametrize('task, said', {
    'au:99': 'numbers of units', 'au:': 'numbers of units', 'au:smile': 'numbers of units',
    'au:4+51': 'units of the face',
    'au:28': 'AU28 in no clip.*In its clips are AU12 .10.',
    'audio': 'task=.audio. is unknown; known: 3class, 5class, 7class, au',
}.items())
def test_units_that_nobody_has_and_that_there_are_not(sheets, tmp_path, task, said):
    with pytest.raises(ValueError, match=said):
        run(dataset='casme2', task=task, method='hof_ridge', data_root=str(sheets), out_dir=str(tmp_path))


def test_a_sheet_without_units_and_one_of_two(sheets, tmp_path):
    for name in ('casme2', 'samm'): make_lookalike(name, tmp_path, subjects=4, blank=True, progress=False)
    path = next((tmp_path/'samm').rglob('*.xlsx'))
    book = load_workbook(path)
    for row in book['MICRO_ONLY'].iter_rows():
        for cell in row: cell.value = 'Muscles' if cell.value == 'Action Units' else cell.value
    book.save(path)
    for dataset in ('samm', 'casme2+samm'):
        with pytest.raises(ValueError, match="samm: task='au', columns of the sheet: expected one with action units"):
            load_clips(dataset, tmp_path, task='au')
    with pytest.raises(ValueError, match='au_table reads the units that a coder wrote, and samm has none'):
        run(dataset='samm', method='au_table', data_root=str(tmp_path), out_dir=str(tmp_path/'runs'))
    assert len(load_clips('casme2', tmp_path, task='au'))


def test_too_few_clips_for_the_usual_list(sheets, tmp_path):
    make_lookalike('casme_sq', tmp_path, subjects=2, blank=True, progress=False)
    with pytest.raises(ValueError, match="no action unit is in 10 clips or more .*Ask for some: task='au:"):
        load_clips('casme_sq', tmp_path, task='au')


@pytest.mark.parametrize('method', ['mpfnet_c', 'pltn', 'fdp', 'au_table', 'mpfnet_p_ridge'])
def test_a_method_that_does_not_serve_names_those_that_do(method):
    with pytest.raises(ValueError, match=f"{method} does not serve task='au'.*Methods that do: majority, .*scratch"):
        check_parameters(dict(dataset='casme2', task='au', method=method))


MINE = """
import numpy as np
class Each:
    "Distance to the mean clip of each of two classes."
    units = 'each'
    def fit(self, fold):
        x, y = fold.X().flatten(1).numpy(), fold.y.numpy()
        assert y.ndim == 1 and fold.n_classes == 2
        self.means = np.stack([x[y == k].mean(0) for k in (0, 1)])
    def scores(self, x): return -np.linalg.norm(np.asarray(x).reshape(len(x), 1, -1) - self.means, axis=2)
    def state(self): return dict(means=self.means)
class Together(Each):
    units = 'together'
    def fit(self, fold):
        x, y = fold.X().flatten(1).numpy(), fold.y.numpy()
        assert y.shape == (len(x), 3) and fold.n_classes == 3
        self.means = np.stack([[x[y[:, u] == k].mean(0) for k in (0, 1)] for u in range(3)])
    def scores(self, x):
        far = np.linalg.norm(np.asarray(x).reshape(len(x), 1, 1, -1) - self.means, axis=3)
        return far[..., 0] - far[..., 1]
class Silent(Each):
    units = None
"""


def test_a_method_of_one_s_own_serves_units_in_the_way_that_it_says(synth_root, tmp_path):
    "Both ways are the same here, in processes of their own too; who says no way is told of both."
    (tmp_path/'mine.py').write_text(MINE)
    def of(name, **more):
        return run(**asked(synth_root, tmp_path, method=f'{tmp_path}/mine.py:{name}', overrides='') | more)
    folders = [of('Each', workers=2), of('Together')]
    found = [json.loads((f/'config.json').read_text()) for f in folders]
    assert [c['own']['units'] for c in found] == ['each', 'together'] and found[0]['code'] != found[1]['code']
    each, together = (pd.read_csv(f/'predictions.csv').filter(like='score_') for f in folders)
    assert np.allclose(each, together, atol=1e-4)
    assert json.loads((folders[0]/'metrics.json').read_text())['pooled']['mean_f1'] > .35
    with pytest.raises(ValueError, match="Silent does not serve task='au'.*units = 'each'.*units = 'together': y is"):
        of('Silent')


def test_a_unit_that_was_never_drawn_is_refused_by_the_prior(sheets, tmp_path, monkeypatch):
    monkeypatch.setattr('mpfnet.clips.read_units', lambda text: (4, 18) if '4' in str(text) else (1,))
    with pytest.raises(ValueError, match="au_zero, units: expected some of .*task='au:1[+]4', found 'AU18'"):
        run(dataset='casme2', task='au:1+4+18', method='au_zero', data_root=str(sheets), out_dir=str(tmp_path))


def test_a_unit_of_one_person_is_told_of_and_never_found(synth_root, tmp_path, monkeypatch):
    clips = load_clips('synth', synth_root).table
    marked = [(4, 12) if s == 'sub01' else (4,) if k % 2 else () for k, s in enumerate(clips['subject'])]
    coded = iter(marked)
    monkeypatch.setattr('mpfnet.clips.read_units', lambda text: next(coded))
    with pytest.warns(UserWarning, match='synth/sub01: nobody else shows AU12: its clips of that unit cannot be found'):
        folder = run(**asked(synth_root, tmp_path, task='au:4+12', subjects='synth/sub01', method='majority',
                              overrides=''))
    each = json.loads((folder/'metrics.json').read_text())['pooled']['per_unit']
    assert each['AU12'] == each['AU12'] | dict(predicted=0, f1=0.) and each['AU12']['clips'] > 5
    assert set(read_result(folder).table['score_1']) == {-1.}


def test_a_job_of_one_person_who_shows_nothing_ends_without_a_score(synth_root, tmp_path, monkeypatch):
    "Of one fold of many, as a job of an array has it: no number is made up, and all that reads it copes."
    clips = load_clips('synth', synth_root).table
    coded = iter([() if s == 'sub01' else (4,)*(k % 2) for k, s in enumerate(clips['subject'])])
    monkeypatch.setattr('mpfnet.clips.read_units', lambda text: next(coded))
    folder = run(**asked(synth_root, tmp_path, task='au:4', subjects='synth/sub01', method='majority', overrides='',
                         seed='0,1'))
    metrics = json.loads((folder/'metrics.json').read_text())
    assert metrics['pooled']['n'] > 5 and metrics['pooled']['mean_f1'] is None is metrics['seeds']['mean_f1']['mean']
    result, listed = read_result(folder), runs_in(tmp_path)
    assert 'mean F1 n/a' in result.seed_note() and result.by_subject()['UF1_without'].isna().all()
    assert 'n/a' in result.subject_figure().axes[0].get_title() and result.confusion_figure()
    assert (scores_table(metrics)['F1 (95 %)'] == 'n/a').all() and not listed.damaged and draw_runs(listed)
    assert table_of_runs(listed)['UF1 (95 %)'].tolist() == ['mean F1 n/a']*3
    with pytest.raises(ValueError, match='expected one that shows a unit'): compare(folder, folder)


# --- what a run leaves

def test_a_run_of_units_from_faces_to_metrics(done):
    metrics, config = (json.loads((done/f'{n}.json').read_text()) for n in ('metrics', 'config'))
    assert done.name.startswith('synth-au-hof_ridge-') and config['task'] == TASK
    assert config['labels']['units'] == ['AU1', 'AU4', 'AU12'] and config['settings']['ridge']['balance'] == 1
    assert metrics['pooled'].keys() == {'n', 'mean_f1', 'macro_recall', 'per_unit', 'mean_f1_ci95', 'macro_recall_ci95'}
    assert metrics['pooled']['per_unit'].keys() == {'AU1', 'AU4', 'AU12'} and metrics['seeds']['mean_f1']['std'] == 0
    table = pd.read_csv(done/'predictions.csv', dtype=str, keep_default_na=False)
    assert set(table['label']) > {'none', '1', '12'} and [c for c in table if c.startswith('score_')][-1] == 'score_2'
    result = read_result(done)
    assert result.task == task_of(TASK) and result.confusion_figure() and result.subject_figure()
    assert len(result.surest(1)) == 1 and 'mean F1' in result.seed_note()
    found = result.task.evaluate(result.table['label'], result.table['prediction'])
    assert found['mean_f1'] == metrics['pooled']['mean_f1'] and found['mean_f1'] > .35


def test_a_fold_that_is_lost_or_changed_is_trained_again_to_the_same_bytes(synth_root, tmp_path):
    folder = run(**asked(synth_root, tmp_path))
    before, records = (folder/'predictions.csv').read_bytes(), sorted((folder/'folds').glob('*.json'))
    records[0].unlink()
    changed = json.loads(records[1].read_text())
    changed['predictions'][0] = [1 - v for v in changed['predictions'][0]]
    records[1].write_text(json.dumps(changed))
    with pytest.warns(UserWarning, match='its content is not what was written'): run(**asked(synth_root, tmp_path))
    assert (folder/'predictions.csv').read_bytes() == before
    env = json.loads((folder/'env.json').read_text())
    assert env['parts'][-1]['folds_trained'] == 2 if 'parts' in env else env['folds_trained'] == 2


def test_groups_of_subjects_and_three_classes_know_nothing_of_each_other(synth_root, tmp_path):
    folder = run(**asked(synth_root, tmp_path, split='kfold:2', method='majority', overrides=''))
    assert json.loads((folder/'metrics.json').read_text())['folds'] == dict(done=2, of=2)
    classes = run(**asked(synth_root, tmp_path, task='3class', method='majority', overrides=''))
    config = json.loads((classes/'config.json').read_text())
    assert 'labels' not in config and 'uf1' in json.loads((classes/'metrics.json').read_text())['pooled']


def test_two_runs_are_compared_and_a_run_of_classes_is_not_one_of_them(done, synth_root):
    floor = run(**asked(synth_root, done.parent, method='majority', overrides=''))
    one = done.parent/json.loads((done/'config.json').read_text())['runs'][0]
    c = compare(floor, one)
    assert set(c.rows['metric']) == {'mean_f1', 'macro_recall'} and (c.rows['clips'] == 50).all() and c.subjects == 5
    pooled = json.loads((one/'metrics.json').read_text())['pooled']
    assert c.rows['b'].tolist() == [pooled['mean_f1'], pooled['macro_recall']] and 'mean F1' in verdict(c)
    assert (compare(one, one).rows['verdict'] == 'same').all() and len(compare(floor, done).per_seed) == 4
    with pytest.raises(ValueError, match='known: macro_recall, mean_f1'): verdict(c, 'acc')
    classes = run(**asked(synth_root, done.parent, task='3class', method='majority', overrides=''))
    with pytest.raises(ValueError, match='cannot be compared. task: A has'): compare(classes, one)


def test_the_command_lists_and_compares_them(done):
    listed = warm('-m', 'mpfnet', 'runs', done.parent)
    assert listed.returncode == 0 and 'mean F1 0.' in listed.stdout, listed.stderr
    runs = json.loads((done/'config.json').read_text())['runs']
    said = warm('-m', 'mpfnet', 'compare', done.parent/runs[0], done.parent/runs[1])
    assert said.returncode == 0 and 'mean F1' in said.stdout, said.stderr


# --- nothing of the test subject

def drawn():
    "48 synthetic clips of six people, with planted units."
    found = draw_clips(48, UnitFlowConfig(), np.random.default_rng(0))
    marks = found.units[:, [UNITS.index(u) for u in SCORED]].int().tolist()
    clips = pd.DataFrame(dict(dataset='demo', subject=[f's{i//8}' for i in range(48)], input='flow28',
                              clip=[f'c{i:02}' for i in range(48)], label=list(map(tuple, marks))))
    return clips, found.x[:, :, None].numpy()


@pytest.mark.parametrize('method', UNIT_METHODS)
def test_canary_and_that_it_can_fail(method):
    row, (clips, x) = UNIT_METHODS[method], drawn()
    recipe = getattr(SETTINGS, row.reads)
    if 'flow28' not in recipe.kinds:
        clips = clips.assign(input='frames')
        x = np.random.default_rng(1).uniform(size=(48, *recipe.shape('frames')))
    elif row.reads == 'preprocess': x = x - .5
    x = x.astype(np.float16)
    def sha(clips, x):
        fold = Fold(clips, x, [('demo', 's5')], n_classes=3)
        return sha256_of(fit(row, fold, Context(settings=SETTINGS, units=SCORED)).state())
    def noisy(who):
        mine, v = (clips['subject'] == who).to_numpy(), x.copy()
        v[mine] = np.random.default_rng(9).uniform(size=v[mine].shape)
        marks = [tuple(1 - m for m in y) if k else y for y, k in zip(clips['label'], mine)]
        return clips.assign(label=marks), v
    clean = sha(clips, x)
    assert sha(*noisy('s5')) == clean
    if row.learns: assert sha(*noisy('s4')) != clean


def test_the_list_of_units_is_the_protocol_and_stands_in_the_config(sheets, tmp_path):
    clips = load_clips('casme2', sheets, task='au')
    assert clips.task == 'au:' + '+'.join(u[2:] for u in clips.classes) and all(len(m) == len(clips.classes)
                                                                                for m in clips['label'])
    assert all(clips.report['units'][u] >= 10 for u in clips.classes) and len(clips.classes) <= 12
    same = load_clips('casme2', sheets, task=clips.task)
    assert same.table.drop(columns='frames').equals(clips.table.drop(columns='frames'))
    both = load_clips('samm+casme2', sheets, task='au:4+12')
    assert both.name == 'casme2+samm' and set(both['dataset']) == {'casme2', 'samm'}


def test_what_says_two_things_is_left_out_and_told_of(sheets):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', '.*partial-copy')
        clips = load_clips('samm', sheets, task='au:4+12')
    told = [f for f in clips.report['findings'] if f['decision'] == 'units-unread']
    every = load_clips('samm', sheets, task=None)
    assert len(clips) == len(every) - len(told) and all(re.search(r'or|\?', f['found']) for f in told)
