"""Who is held out when: splitters, folds of several subjects that do not leak, and runs that go on; and bad input."""
import json
import os
import shutil
import signal

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import CHEAP, CHEAP_RIVALS, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from warm import warm

from mpfnet import clips as front_door
from mpfnet.core.artefacts import Artefacts, sha256_of
from mpfnet.data import splits
from mpfnet.data.readers import FLOW_IMAGES, FLOW_LIST
from mpfnet.data.splits import (
    LeaveOneDatasetOut,
    LeaveOneSubjectOut,
    Official,
    OfficialRule,
    Split,
    SubjectKFold,
    check_folds,
    split_of,
)
from mpfnet.folds import Fold, subjects_of
from mpfnet.harness import classes_unseen, wanted_copies
from mpfnet.loso import run
from mpfnet.methods import METHODS, Context, fit, override, recipe_of, settings_preset
from mpfnet.metrics import read_predictions
from mpfnet.paper.explain import config_of_one
from mpfnet.paper.protocol_audit import audit
from mpfnet.plsm import balanced_items, copies_of
from mpfnet.results.findings import loso_beside, read_result
from mpfnet.results.records import with_hash
from mpfnet.results.report import collect
from mpfnet.synthetic.lookalike import make_lookalike
from mpfnet.tools.validate import validate

pytestmark = pytest.mark.filterwarnings('ignore:megc2019_flow. checksum', 'ignore:.*partial-copy')


def table(sizes, labels=None):
    "A clip table: clips of each (dataset, subject)."
    rows = [(d, s, f'c{k:02}') for (d, s), n in sizes.items() for k in range(n)]
    out = pd.DataFrame(rows, columns=['dataset', 'subject', 'clip'])
    return out.assign(label=[k % 3 for k in range(len(out))] if labels is None else labels)


names = st.text(st.characters(exclude_characters='/', exclude_categories=['Cs']), min_size=1, max_size=4)
people = st.dictionaries(st.tuples(names.filter(lambda d: not d.startswith('split=')), names), st.integers(1, 5),
                         min_size=4, max_size=12)


@settings(max_examples=40)
@given(people, st.integers(2, 4), st.integers(0, 3), st.randoms())
def test_everybody_is_tested_once_and_never_trained_on_meanwhile(sizes, k, seed, random):
    "Whatever subjects and datasets are called, and in whatever order the rows stand."
    clips = table(sizes)
    order = random.sample(range(len(clips)), len(clips))
    for split in [LeaveOneSubjectOut(), SubjectKFold(k, seed=seed)] + [LeaveOneDatasetOut()]*(
            len({d for d, _ in sizes}) > 1):
        pairs, tested = list(zip(clips['dataset'], clips['subject'])), []
        for train, test in split.split(clips):
            assert len(train) and len(test) and sorted([*train, *test]) == list(range(len(clips)))
            assert not {pairs[i] for i in train} & {pairs[i] for i in test}
            tested += test.tolist()
        assert sorted(tested) == list(range(len(clips)))
        folds = split.folds(clips)
        assert folds == split.folds(clips.iloc[order]) and split.get_n_splits(clips) == len(folds)
        assert sorted(s for g in folds.values() for s in g) == sorted(sizes)
        assert all(isinstance(name, tuple) and len(name) == 2 for name in folds) and list(folds) == sorted(folds)
        same = list(split.split(np.zeros((len(clips), 1)), clips['label'], pairs))
        assert [t.tolist() for _, t in same] == [t.tolist() for _, t in split.split(clips)]


@given(st.integers(2, 6), st.integers(0, 20), st.lists(st.integers(0, 2), min_size=24, max_size=24))
def test_groups_of_alike_people_are_alike(k, seed, classes):
    "Twenty-four people of one class each: no two groups differ by more than one of a class."
    clips = table({('d', f's{i:02}'): 4 for i in range(24)}, np.repeat(classes, 4))
    groups = SubjectKFold(k, seed).folds(clips).values()
    for c in set(classes):
        n = [sum(classes[int(s[1:])] == c for _, s in g) for g in groups]
        assert max(n) - min(n) <= 1


def test_classes_are_balanced_in_the_counts_of_the_benchmark(flow_root):
    "Ten seeds: of each class each fifth holds 12 to 28 %. Groups that are drawn go down to nothing."
    clips = front_door.load_clips('megc2019_flow', flow_root).table
    def shares(groups):
        return np.array([[(clips['label'][[s in set(g) for s in zip(clips['dataset'], clips['subject'])]] == c).sum()
                          for c in range(3)] for g in groups])/np.bincount(clips['label'])
    every = [SubjectKFold(5, seed=k).folds(clips) for k in range(10)]
    found = np.array([shares(f.values()) for f in every])
    assert found.min() > .12 and found.max() < .28
    assert len({str(f) for f in every}) == 10 and every[3] == SubjectKFold(5, seed=3).folds(clips)


def test_they_serve_scikit_learn():
    r = np.random.default_rng(0)
    clips = table({(d, f's{k}'): 6 for d in 'ab' for k in range(3)})
    x = np.eye(3)[clips['label']] + r.normal(0, .3, (36, 3))
    groups = [f'{d}/{s}' for d, s in zip(clips['dataset'], clips['subject'])]
    for split, n in ((LeaveOneSubjectOut(), 6), (LeaveOneDatasetOut(), 2), (SubjectKFold(3), 3)):
        for whose in (groups, clips, [tuple(g.split('/')) for g in groups]):
            assert len(cross_val_score(LogisticRegression(), x, clips['label'], groups=whose, cv=split)) == n
        found = GridSearchCV(LogisticRegression(), dict(C=[.1, 1.]), cv=split).fit(x, clips['label'], groups=groups)
        assert found.n_splits_ == n
    with pytest.raises(ValueError, match='groups: expected whose each row is'): next(LeaveOneSubjectOut().split(x))


def test_a_split_of_somebody_else_is_checked():
    class Twice(Split):
        def held_out(self, rows): return {('x', '1'): subjects_of(rows)[:2], ('x', '2'): subjects_of(rows)[1:3]}
    clips = table({('d', s): 2 for s in 'abcd'})
    with pytest.raises(ValueError, match=r'subject d/b is in two groups, x/1 and x/2'): Twice().folds(clips)
    with pytest.raises(ValueError, match='somebody to test'): check_folds({('x', '1'): []}, clips)
    with pytest.raises(ValueError, match='of whom there are rows'): check_folds({('x', '1'): [('d', 'z')]}, clips)


def test_names_are_text_and_nobody_is_without_one():
    "Numbers are names too, in any mixture; a row of nobody would share a group with others of nobody."
    clips = table({('d', k): 2 for k in range(4)})
    assert list(LeaveOneSubjectOut().folds(clips)) == [('d', str(k)) for k in range(4)]
    assert len(list(LeaveOneSubjectOut().split(clips.assign(subject=[1, 1, 'b', 'b', 3., 3., None, None])[:6]))) == 3
    x = np.zeros((8, 2))
    for wrong in ([1.]*7 + [np.nan], ['s']*7 + [None], clips.assign(subject=['a']*7 + [None])):
        with pytest.raises(ValueError, match='whose each row is'): next(LeaveOneSubjectOut().split(x, groups=wrong))
    with pytest.raises(ValueError, match='whose each of 8 rows of X is'):
        next(SubjectKFold(2).split(x, groups=['a', 'b']*3))
    for seed in (None, -1, 1.5):
        with pytest.raises(ValueError, match='seed: expected a whole number'): SubjectKFold(2, seed)


# --- folds -----------------------------------------------------------------------------------------------------------

SETTINGS = override(settings_preset('tiny'), f'{CHEAP},{CHEAP_RIVALS},preprocess.size=16,meta.shot=2,meta.queries=2')
# the cheaper ones: both encoders of mpfnet_p and mpfnet_c, and all three of mpfnet_a, are among them
WITH_SEVERAL = 'mpfnet_p', 'mpfnet_c', 'mpfnet_a'
FLOW = [m for m in METHODS if 'flow28' in recipe_of(m, SETTINGS).kinds and m not in WITH_SEVERAL]


def drawn(method, seed=0):
    "Six people of three datasets, six clips each, in rows of ready-made flow."
    clips = table({(d, f's{k}'): 6 for d in 'abc' for k in range(2)}).assign(input='flow28')
    shape = recipe_of(method, SETTINGS).shape('flow28')
    return clips, np.random.default_rng(seed).normal(size=(36, *shape)).astype(np.float16)


def with_noise(clips, x, held):
    "Pixels and labels of all held-out clips, replaced."
    mine = np.array([s in held for s in zip(clips['dataset'], clips['subject'])])
    noisy = x.copy()
    noisy[mine] = np.random.default_rng(9).normal(5, 9, noisy[mine].shape)
    return clips.assign(label=np.where(mine, 0, clips['label'])), noisy


def learnt(method, clips, x, text, name, settings=SETTINGS, folder=None):
    folds = split_of(text).folds(clips)
    fold = Fold(clips, x, folds[name], n_classes=3, groups=list(folds.values()))
    return sha256_of(fit(method, fold, Context(settings=settings, artefacts=Artefacts(folder))).state())


@pytest.mark.parametrize('method', FLOW)
def test_canary_of_a_dataset(method):
    "Nothing that is learnt knows any clip of the dataset that is held out; another dataset's clips are known."
    clips, x = drawn(method)
    name = ('split=dataset', 'b')
    clean = learnt(method, clips, x, 'dataset', name)
    assert learnt(method, *with_noise(clips, x, [('b', 's0'), ('b', 's1')]), 'dataset', name) == clean
    assert (learnt(method, *with_noise(clips, x, [('a', 's0')]), 'dataset', name) != clean) == METHODS[method].learns


TRUNK = override(SETTINGS, 'compute.trunk=0.5,compute.group=2,pltn.epochs=2,plsm.epochs=2')


def test_canary_of_groups_that_share_a_trunk(tmp_path):
    "Folds group1 and group3 of four share a trunk: it knows nobody of either, and group1 knows group3 after the fork."
    clips = table({('a', f's{k}'): 6 for k in range(8)}).assign(input='flow28')
    x = np.random.default_rng(0).normal(size=(48, *recipe_of('plsm', SETTINGS).shape('flow28'))).astype(np.float16)
    folds, name = SubjectKFold(4).folds(clips), ('split=kfold-4', 'group1')   # noise in labels would deal anew
    def group(k): return folds['split=kfold-4', f'group{k}']
    def sha(place, *held):
        c, v = with_noise(clips, x, [s for g in held for s in g])
        fold = Fold(c, v, folds[name], n_classes=3, groups=list(folds.values()))
        ctx = Context(settings=TRUNK, artefacts=Artefacts(tmp_path/place))
        weights = sha256_of(fit('plsm', fold, ctx).state())
        return weights, [p.read_bytes() for p in (tmp_path/place).glob('*-trunk/*.safetensors')]
    weights, trunk = sha('clean')
    assert len(trunk) == 1 and sha('own', group(1)) == (weights, trunk)
    other, shared = sha('partner', group(3))
    assert other != weights and shared == trunk
    assert sha('else', group(2))[1] != trunk


def test_every_fold_trunk_and_inner_fold_finds_its_copies():
    "Those that LOSO wants would not be enough: without half of the people a rare class is rarer."
    clips = table({('a', f's{k}'): 6 for k in range(8)}, np.random.default_rng(2).choice(3, 48, p=[.6, .25, .15]))
    groups = list(split_of('kfold:2').folds(clips).values())
    def all_found(split):
        wanted = zip(*wanted_copies(clips, 3, 14, 3, 2, 'fold', split))
        copies = {(int(i), int(phi)): 48 + k for k, (i, phi) in enumerate(wanted)}
        for held in groups:
            x = np.zeros((48 + len(copies), 1, 1, 1, 1))
            fold = Fold(clips, x, held, copies=copies, groups=groups, n_classes=3)
            for f in (fold, *fold.inner(3)): f._copy_rows(*balanced_items(copies_of(f.clips, 3, 14, 'fold')))
    all_found('kfold:2')
    with pytest.raises(KeyError, match='magnified copies are not in the feature store'): all_found('subject')


def test_a_class_that_only_one_dataset_has_is_told_of():
    clips = table({('a', 's0'): 3, ('a', 's1'): 3, ('b', 's0'): 2}, [0, 1, 2, 0, 1, 2, 0, 1])
    said = classes_unseen(clips, 'dataset')
    assert len(said) == 1 and said[0].startswith('split=dataset/a: nobody else shows 2')


# --- runs ------------------------------------------------------------------------------------------------------------

def go(root, out, **kwargs):
    return run(**dict(dataset='megc2019_flow', data_root=str(root), out_dir=str(out), device='cpu', method='pca_lda',
                      split='dataset') | kwargs)


def records(folder): return {p.name: json.loads(p.read_text()) for p in sorted((folder/'folds').glob('*.json'))}


@pytest.fixture(scope='module')
def by_dataset(flow_root, tmp_path_factory):
    "A run of three folds, one a dataset."
    return go(flow_root, tmp_path_factory.mktemp('by_dataset'), method='majority')


def test_what_a_run_by_datasets_leaves(by_dataset, flow_root):
    t, config = read_predictions(by_dataset/'predictions.csv'), json.loads((by_dataset/'config.json').read_text())
    metrics = json.loads((by_dataset/'metrics.json').read_text())
    clips = front_door.load_clips('megc2019_flow', flow_root)
    assert list(records(by_dataset)) == [f'split=dataset__{d}.json' for d in ('casme2', 'samm', 'smic')]
    assert t[['dataset', 'subject', 'clip', 'label']].astype(str).equals(
        clips[['dataset', 'subject', 'clip', 'label']].astype(str))
    assert config['split'] == 'dataset' and metrics['folds'] == dict(done=3, of=3)
    r = records(by_dataset)['split=dataset__samm.json']
    assert r['dataset'] == 'split=dataset' and r['subject'] == 'samm' and len(r['who']) == len(r['clips']) == 133
    assert {d for d, _ in r['who']} == {'samm'} and metrics['per_dataset']['samm']['n'] == 133


def test_runs_of_two_splits_never_meet(by_dataset, flow_root):
    "By subjects it is another folder, and its records are those that they always were. The drop stands beside it."
    assert 'No finished run by subjects' in read_result(by_dataset).split_note()
    loso = go(flow_root, by_dataset.parent, method='majority', split='subject')
    assert loso != by_dataset and len(records(loso)) == 68 and loso_beside(by_dataset) == loso
    assert not any('who' in r for r in records(loso).values())
    found = read_result(by_dataset).by_held_out()
    assert found['subjects'].to_dict() == dict(casme2=24, samm=28, smic=16, pooled=68)
    own, theirs = (read_predictions(f/'predictions.csv') for f in (by_dataset, loso))
    assert own['prediction'].equals(theirs['prediction']) and all(d == (0, 0, 0) for d in found['drop_uf1'])
    assert loso.name in read_result(by_dataset).split_note() and '2018' not in read_result(by_dataset).split_note()
    assert len(collect(by_dataset.parent)) == len(collect(by_dataset.parent, split='dataset')) == 1
    other = go(flow_root, by_dataset.parent, method='majority', split='kfold:3', subjects='group2')
    assert loso_beside(other) == loso and read_result(other).split_note().startswith('3 groups of subjects')


def test_the_report_shows_the_drop(by_dataset, flow_root, tmp_path):
    "The program page, from papermill: the run is found, and the table of held-out datasets stands on it."
    asked = dict(dataset='megc2019_flow', method='majority', split='dataset', data_root=flow_root, device='cpu',
                 out_dir=by_dataset.parent)
    more = [str(word) for name, value in asked.items() for word in ('-p', name, value)]
    page = tmp_path/'out.ipynb'
    done = warm('-m', 'papermill', ROOT/'nbs'/'05_loso.ipynb', page, '--no-progress-bar', *more, cwd=tmp_path,
                kernels=True)
    assert not done.returncode, done.stderr[-2000:]
    said = page.read_text(encoding='utf-8')
    assert '3 of 3 folds (split=dataset)' in said and '| smic | casme2, samm | 164 (16) |' in said


def test_a_record_that_says_other_people_is_computed_again(by_dataset, flow_root, tmp_path):
    shutil.copytree(by_dataset.parent, tmp_path/'runs')
    folder = tmp_path/'runs'/by_dataset.name
    path, whole = folder/'folds'/'split=dataset__samm.json', (folder/'predictions.csv').read_bytes()
    r = json.loads(path.read_text())
    for other in ([['samm', '006']]*len(r['who']), None):
        path.write_text(json.dumps(with_hash({k: v for k, v in (r | dict(who=other)).items() if k != 'record_sha256'})))
        with pytest.warns(UserWarning, match='belongs to another run: other who'):
            go(flow_root, tmp_path/'runs', method='majority')
        assert json.loads(path.read_text())['who'] == r['who'] and (folder/'predictions.csv').read_bytes() == whole


def test_canary_of_a_dataset_end_to_end(flow_root, tmp_path):
    "Through files: SMIC's images become noise and its labels change places. What the fold of SMIC learns stays."
    shutil.copytree(flow_root, tmp_path/'noise')
    folder, r = tmp_path/'noise'/'megc2019_flow', np.random.default_rng(0)
    for path in sorted((folder/FLOW_IMAGES).glob('sm*.png')):
        cv2.imwrite(str(path), r.integers(0, 256, (28, 28, 3)).astype(np.uint8))
    t = pd.read_csv(folder/FLOW_LIST, dtype=str, keep_default_na=False)
    mine = t['dataset'] == 'smic'
    t.loc[mine, 'label'] = t.loc[mine, 'label'].to_numpy()[::-1]
    t.to_csv(folder/FLOW_LIST, index=False)
    def sha(root, out): return {n: r['weights_sha256'] for n, r in records(go(root, tmp_path/out)).items()}
    clean, noisy = sha(flow_root, 'a'), sha(tmp_path/'noise', 'b')
    assert [clean[n] == noisy[n] for n in sorted(clean)] == [False, False, True]


KILLED = '''
import os, signal
from mpfnet import harness
from mpfnet.loso import run
whole, done = harness.run_fold, []
def fold(h, name):
    if len(done) == 2: os.kill(os.getpid(), signal.SIGKILL)
    done.append(name)
    return whole(h, name)
harness.run_fold = fold
run(**{asked!r})
'''


def test_a_killed_run_of_groups_goes_on_and_two_processes_give_the_same(flow_root, tmp_path):
    asked = dict(dataset='megc2019_flow', data_root=str(flow_root), device='cpu', method='scratch', split='kfold:3',
                 overrides='meta.updates=2,encoder.width=0.125')
    two = run(**asked, out_dir=str(tmp_path/'two'), workers=2)
    done = warm('-c', KILLED.format(asked=asked | dict(out_dir=str(tmp_path/'one'))), cwd=tmp_path,
                env=os.environ | dict(PYTHONPATH=str(ROOT)))
    folder = tmp_path/'one'/two.name
    before = {p.name: p.stat().st_mtime_ns for p in (folder/'folds').glob('*.json')}
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) and len(before) == 2, done.stderr[-2000:]
    assert run(**asked, out_dir=str(tmp_path/'one')) == folder
    assert {n: (folder/'folds'/n).stat().st_mtime_ns for n in before} == before
    assert (folder/'predictions.csv').read_bytes() == (two/'predictions.csv').read_bytes()
    one, both = ([r['weights_sha256'] for r in records(f).values()] for f in (folder, two))
    assert one == both


def test_seeds_of_groups_and_chosen_folds(flow_root, tmp_path):
    "The groups of every seed are the same, one fold is enough for a summary, and weights lie beside its record."
    folder = go(flow_root, tmp_path, seed='0,1', split='kfold:05', subjects='split=kfold-5/group3', keep_weights=True)
    m = json.loads((folder/'metrics.json').read_text())
    config = json.loads((folder/'config.json').read_text())
    assert m['folds'] == dict(done=1, of=5) and m['seeds']['uf1']['std'] == 0 and config['split'] == 'kfold:5'
    first = tmp_path/config['runs'][0]
    assert [p.name for p in (first/'weights').iterdir()] == ['split=kfold-5__group3.safetensors']
    with pytest.raises(ValueError, match="split: expected 'subject'"): config_of_one(first)


def test_inner_folds_are_of_the_other_datasets(flow_root):
    found = validate('smic', n_splits=2, dataset='megc2019_flow', data_root=str(flow_root), method='majority',
                     split='dataset')
    assert found['n'] == 442 - 164


def test_several_datasets_are_one_table(tmp_path):
    for d in ('casme2', 'samm'): make_lookalike(d, tmp_path/'data', subjects=2, blank=True, progress=False)
    asked = dict(data_root=str(tmp_path/'data'), out_dir=str(tmp_path/'runs'), method='majority', split='dataset',
                 preset='tiny', overrides='preprocess.size=16', progress=False)
    folder = run(dataset='samm+casme2', **asked)
    assert folder == run(dataset='casme2+samm', **asked) and folder.name.startswith('casme2+samm-3class-majority-')
    result, report = read_result(folder), json.loads((folder/'data_report.json').read_text())
    assert result.stamp.startswith('LOOK-ALIKE of CASME II + SAMM') and set(report['source']) == {'casme2', 'samm'}
    note = result.split_note()
    assert 'HDE' in note and '| casme2 | samm |' in note and '| samm | casme2 |' in note
    assert set(result.table['dataset']) == {'casme2', 'samm'} and result.metrics['folds'] == dict(done=2, of=2)


def test_an_official_split_is_one_training_and_every_part_is_scored(synth_root, tmp_path, monkeypatch):
    reader, parts = front_door.READERS['synth'], ('train', 'train', 'train', 'test A', 'test B')
    def with_parts(*args):
        rows, report = reader(*args)
        return rows.assign(part=rows['subject'].map(dict(zip(sorted(set(rows['subject'])), parts)))), report
    asked = dict(dataset='synth', data_root=str(synth_root), out_dir=str(tmp_path), method='pca_lda', split='official',
                 overrides='preprocess.size=16', device='cpu', progress=False)
    with pytest.raises(ValueError, match="synth has no official split; datasets that have one: dfme"): run(**asked)
    monkeypatch.setitem(splits.OFFICIAL, 'synth', OfficialRule(test=('test A', 'test B')))
    with pytest.raises(ValueError, match="expected 'part', which holds the official split"): run(**asked)
    monkeypatch.setitem(front_door.READERS, 'synth', with_parts)
    folder = run(**asked)
    result = read_result(folder)
    subjects = sorted(front_door.load_clips('synth', synth_root)['subject'])
    n = {'test A': subjects.count('sub04'), 'test B': subjects.count('sub05')}
    assert list(records(folder)) == ['split=official__test.json'] and len(result.table) == sum(n.values())
    assert {k: m['n'] for k, m in result.metrics['per_part'].items()} == n
    assert f"| test B | {n['test B']} |" in result.split_note()
    assert Official().get_n_splits(front_door.load_clips('synth', synth_root)) == 1


@pytest.mark.parametrize('wrong, says', [
    (dict(split='loso'), 'known: subject, dataset, kfold:K (kfold:5), official'),
    (dict(split=None), 'known: subject, dataset'),
    (dict(split='kfold'), 'known: subject, dataset'),
    (dict(split='kfold:1'), 'a whole number of groups, 2 or more, found 1'),
    (dict(split='kfold:two'), "2 or more, found 'two'"),
    (dict(split='kfold:69'), '2…68, the number of subjects, found 69'),
    (dict(split='official'), 'has no official split; datasets that have one: dfme'),
    (dict(subjects='casme2/ca00'), 'unknown fold(s) casme2/ca00 of split=dataset; known: casme2, samm, smic'),
    (dict(dataset='casme2+casme2'), 'casme2 is named twice'),
    (dict(dataset='megc2019_cd+mmew'), 'megc2019_cd is smic+casme2+samm'),
    (dict(dataset='casme2+megc2019_flow'), 'no method reads both'),
    (dict(dataset='synth+casme2'), 'synth is drawn'),
    (dict(dataset='casme2+nothing'), "'nothing' is unknown; known: smic, casme2"),
    (dict(dataset='casme2+'), "'' is unknown"),
    (dict(dataset='casme2+samm', task='5class'), 'casme2+samm has no 5class labels'),
    (dict(dataset='casme2+samm', data_options='variant=raw'), 'takes no options (variant): they belong to one dataset'),
], ids=str)
def test_what_cannot_be_split_is_a_sentence_before_anything_is_computed(flow_root, tmp_path, wrong, says):
    with pytest.raises(ValueError) as e: go(flow_root, tmp_path, **wrong)
    assert says in str(e.value) and '\n' not in str(e.value) and not list(tmp_path.rglob('*.*'))


def test_one_dataset_cannot_be_left_out(synth_root, tmp_path):
    with pytest.raises(ValueError, match=r"needs two datasets or more, found 1: synth. Join some"):
        go(synth_root, tmp_path, dataset='synth')
    assert not list(tmp_path.rglob('*.*'))


def test_the_audit_is_of_loso(flow_root, tmp_path):
    with pytest.raises(ValueError, match='habits of leave one subject out'):
        audit(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), split='kfold:3')
