"""Long recordings: intervals scored by any means give the same numbers; no truth of the test subject reaches what is
learnt; a run that was stopped goes on to the same bytes."""
import os
import signal
import time
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import warm

from mpfnet.core.files import file_hash, read_json, write_json
from mpfnet.data.recordings import Recordings, checked_intervals, checked_recordings
from mpfnet.folds import LeakageError
from mpfnet.results.intervals import (
    LEAST_SHARED,
    challenge_scores,
    counted_both_ways,
    froc,
    interval_counts,
    iou,
    matched,
    spot_summary,
    strs_summary,
)
from mpfnet.results.records import read_record
from mpfnet.video import spotting
from mpfnet.video.spot import FACE_PLACES
from mpfnet.video.spotters import SPOTTERS, Spotter
from mpfnet.video.spotting import SpotFold, compare_spotting, recording_rows, run_spotting, spot_fold, spot_report

ROWS = pd.DataFrame(dict(dataset='d', subject=['a', 'a', 'b', 'c'], video=['1', '2', '1', '1'], frames=600, fps=30.))
spans = st.lists(st.tuples(st.integers(0, 590), st.integers(0, 40)).map(lambda p: (p[0], min(sum(p), 599))), max_size=5)


def intervals(rows, **more):
    "A table of (subject, video, onset, offset)."
    t = pd.DataFrame(rows, columns=['subject', 'video', 'onset', 'offset'])
    return t.assign(dataset='d', kind='micro', **more)


def by_set(a, b):
    "Intersection over union of two intervals, frame by frame."
    a, b = (set(range(x[0], x[1] + 1)) for x in (a, b))
    return len(a & b)/len(a | b)


@settings(max_examples=60, deadline=None)
@given(spans, spans)
def test_iou_and_matching_are_those_of_sets_and_of_all_ways(a, b):
    share = iou(a, b)
    assert share.shape == (len(a), len(b))
    assert np.allclose(share, np.array([[by_set(x, y) for y in b] for x in a]).reshape(share.shape))
    pairs = matched(a, b)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    small = share if len(a) <= len(b) else share.T
    ways = permutations(range(small.shape[1]), len(small))
    most = max((sum(small[i, j] >= LEAST_SHARED for i, j in enumerate(p)) for p in ways), default=0)
    assert len(pairs) == most


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([('a', '1'), ('a', '2'), ('b', '1'), ('c', '1')]), spans), max_size=4),
       st.lists(st.tuples(st.sampled_from([('a', '1'), ('a', '2'), ('b', '1'), ('c', '1')]), spans), max_size=4))
def test_every_interval_is_counted_once(marked, true):
    spotted, truth = (intervals([(*v, *s) for v, ss in t for s in ss]) for t in (marked, true))
    c = interval_counts(spotted, truth, ROWS)
    assert c['hits'].sum() + c['alarms'].sum() == len(spotted) and c['hits'].sum() + c['missed'].sum() == len(truth)
    assert (c[['hits', 'alarms', 'missed']] >= 0).all(axis=None) and c['minutes'].sum() == pytest.approx(4/3)
    shuffled = interval_counts(spotted.sample(frac=1, random_state=0), truth.sample(frac=1, random_state=1), ROWS)
    assert shuffled['hits'].tolist() == c['hits'].tolist()
    s = spot_summary(c, n=50)
    assert s['f1'] is None or 0 <= s['f1_ci95'][0] <= s['f1'] + 1e-9 and s['f1_ci95'][1] <= 1


def test_the_challenges_arithmetic_leaves_out_a_subject_and_a_recording():
    truth = intervals([('a', '1', 10, 19), ('b', '1', 10, 19), ('c', '1', 10, 19)], emotion='negative')
    spotted = intervals([('a', '1', 10, 19), ('a', '2', 50, 59), ('b', '1', 300, 309)], emotion='negative')
    theirs = challenge_scores(spotted, truth)
    assert (theirs['hits'], theirs['alarms'], theirs['missed']) == (1, 1, 1)       # c is left out, and a/2 is
    ours = spot_summary(interval_counts(spotted, truth, ROWS))
    assert (ours['hits'], ours['alarms'], ours['missed']) == (1, 2, 2) and ours['f1'] == pytest.approx(1/3)
    table, words = counted_both_ways(spotted, truth, ROWS)
    assert table['f1'].round(3).tolist() == [.333, .5]
    assert any('1 subjects without a mark' in w for w in words) and any('without an expression' in w for w in words)


def test_nothing_marked_and_nothing_there_have_no_score():
    none = intervals([])
    s = spot_summary(interval_counts(none, none, ROWS))
    assert s['f1'] is None and s['precision'] is None and s['alarms_a_minute'] == 0
    assert spot_summary(interval_counts(none, intervals([('a', '1', 1, 9)]), ROWS))['f1'] == 0
    assert froc(none.assign(score=0.), none, ROWS).empty


@pytest.mark.parametrize('wrong, words', [
    (dict(onset=700, offset=710), 'a frame of the recording'), (dict(onset=-1), 'a whole number'),
    (dict(onset=50), 'not after the offset'), (dict(onset=3.5), 'a whole number'),
    (dict(onset='soon'), 'a whole number'), (dict(onset=np.nan), 'a whole number'),
    (dict(kind='blink'), 'micro or macro'), (dict(subject='z'), 'of the list'),
    (dict(video=None), 'a name'), (dict(video='9'), 'of the list')])
def test_a_wrong_interval_is_named(wrong, words):
    rows = checked_recordings(ROWS)
    with pytest.raises(ValueError, match=words) as said:
        checked_intervals(intervals([('a', '1', 10, 19)]).assign(**wrong), 'truth', rows)
    assert 'row 0' in str(said.value)


@pytest.mark.parametrize('wrong', [dict(fps=0.), dict(fps=np.nan), dict(fps=np.inf), dict(frames=np.nan),
                                   dict(frames=-3), dict(frames='many'), dict(video='1', subject='a')])
def test_wrong_recordings_are_refused(wrong):
    with pytest.raises(ValueError, match='recordings: '): checked_recordings(ROWS.assign(**wrong))


# a spotter that costs nothing: the signal is the mean of each frame

def _dark(images, fps): return dict(mean=np.array([float(i.mean()) for i in images()]))


def _learn(known, seed): return dict(level=np.array([np.mean([k.signal['mean'].min() for k in known])]),
                                     there=np.array([sum(len(k.truth) for k in known)]))


def _mark(measured, fps, state):
    low = np.flatnonzero(measured['mean'] < state['level'][0] + 20)
    rows = [('micro', low[0], low[len(low)//2], low[-1], 1.)] if len(low) else []
    return pd.DataFrame(rows, columns=['kind', 'onset', 'apex', 'offset', 'score'])


def _images(row):
    "Grey, and dark for eight frames: later in each person."
    k = 10*'abc'.index(row['subject'])
    for i in range(int(row['frames'])): yield np.full((4, 4, 3), 30 if 100 + k <= i < 108 + k else 200, np.uint8)


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setitem(SPOTTERS, 'dark', Spotter(name='dark', about='', measure=_dark, mark=_mark, learn=_learn))
    truth = intervals([('a', '1', 100, 107), ('b', '1', 110, 117), ('c', '1', 400, 410)])
    return Recordings(name='grey', stamp='MADE UP', recordings=ROWS.assign(frames=500), truth=truth, images=_images)


def test_a_run_stops_and_goes_on_to_the_same_bytes(cheap, tmp_path, monkeypatch):
    whole = run_spotting(cheap, 'dark', out_dir=tmp_path/'whole', progress=False)
    m = read_json(whole/'metrics.json')
    assert (m['micro']['hits'], m['micro']['missed'], m['folds']) == (2, 1, dict(done=3, of=3))
    assert m['micro']['alarms'] == 2                     # a/2, in which nothing happens, and c's

    made, real = [], spotting.write_json
    def stop(path, x):
        if path.parent.name == 'folds':
            if len(made) == 1: raise KeyboardInterrupt
            made.append(path)
        return real(path, x)
    monkeypatch.setattr(spotting, 'write_json', stop)
    with pytest.raises(KeyboardInterrupt): run_spotting(cheap, 'dark', out_dir=tmp_path/'cut', progress=False)
    monkeypatch.setattr(spotting, 'write_json', real)
    before = made[0].stat().st_mtime_ns
    cut = run_spotting(cheap, 'dark', out_dir=tmp_path/'cut', progress=False)
    assert made[0].stat().st_mtime_ns == before          # the finished fold was read
    for name in ('spotted.csv', 'metrics.json', 'truth.csv', 'recordings.csv', 'config.json'):
        assert file_hash(cut/name) == file_hash(whole/name), name


def test_what_is_learnt_does_not_know_the_test_subject(cheap):
    signals = {tuple(r[k] for k in ('dataset', 'subject', 'video')): _dark(lambda r=r: _images(r), 30.)
               for r in recording_rows(cheap)}
    who = ('d', 'b')
    def sha(found, s): return spot_fold(SpotFold(found, s, who), SPOTTERS['dark'])['weights_sha256']
    rng, base = np.random.default_rng(0), sha(cheap, signals)
    noise = {k: dict(mean=rng.uniform(0, 255, 500)) if k[1] == 'b' else v for k, v in signals.items()}
    assert sha(replace(cheap, truth=cheap.truth[cheap.truth['subject'] != 'b']), noise) == base
    other = {k: dict(mean=v['mean'] + 5) if k[1] == 'a' else v for k, v in signals.items()}
    assert sha(cheap, other) != base
    assert sha(replace(cheap, truth=cheap.truth[cheap.truth['subject'] != 'a']), signals) != base
    fold = SpotFold(cheap, signals, who)
    with pytest.raises(LeakageError): fold.test()
    assert {k.who[1] for k in fold.known()} == {'a', 'c'}


def test_other_data_other_truth_or_another_spotter_is_another_run(cheap, tmp_path):
    def folder(found=cheap, **more): return run_spotting(found, 'dark', out_dir=tmp_path, progress=False, **more).name
    names = {folder(), folder(replace(cheap, truth=cheap.truth.head(2))), folder(seed=1),
             folder(replace(cheap, recordings=cheap.recordings.assign(fps=25.)))}
    assert len(names) == 4 and folder() in names


@pytest.mark.parametrize('asked, words', [
    (dict(dataset='casme2'), 'synth_long'), (dict(method='spotme'), 'unknown spotter'),
    (dict(subjects='s99'), 's01, s02'),
    (dict(data_options='people=2'), 'subjects, each'), (dict(data_options='seconds=-3'), 'at least 6'),
    (dict(data_options='subjects=1,each=1,seconds=6', method='learned'), 'two or more')])
def test_a_wrong_request_is_refused_in_words(asked, words, tmp_path):
    with pytest.raises(ValueError, match=words): run_spotting(out_dir=tmp_path, progress=False, **(
        dict(data_options='subjects=2,each=1,seconds=6') | asked))


def test_damage_to_a_run_is_said_or_mended(cheap, tmp_path):
    folder = run_spotting(cheap, 'dark', out_dir=tmp_path, progress=False)
    whole = {p: p.read_bytes() for p in folder.rglob('*.*') if p.is_file()}
    for name, data, words in (('metrics.json', b'{}', 'no folds, macro'), ('spotted.csv', b'', 'is damaged'),
                              ('truth.csv', b'\xff\xfe', 'is damaged'), ('recordings.csv', b'a\n1\n', 'also dataset')):
        (folder/name).write_bytes(data)
        with pytest.raises(ValueError, match=words) as said: spot_report(folder)
        assert name.partition('.')[0] in str(said.value)
        run_spotting(cheap, 'dark', out_dir=tmp_path, progress=False)
        assert {p: p.read_bytes() for p in whole} == whole
    signals, records = sorted((tmp_path/'cache').rglob('*.safetensors')), sorted(folder.glob('folds/*'))
    signals[0].write_bytes(signals[0].read_bytes()[:50])
    for r in records: r.write_bytes(b'null')
    with pytest.warns(UserWarning): run_spotting(cheap, 'dark', out_dir=tmp_path, progress=False)
    assert all(p.read_bytes() == data for p, data in whole.items() if p not in records)
    with pytest.raises(ValueError, match="found 'nobody'"):
        run_spotting(cheap, 'dark', subjects=[], out_dir=tmp_path, progress=False)


def test_a_report_says_where_no_face_was_found(cheap, tmp_path, monkeypatch):
    def images(row): return _images(row) if row['subject'] != 'c' else [np.full((4, 4, 3), 200, np.uint8)]*500
    def measured(images, fps):
        means = _dark(images, fps)['mean']
        return dict(mean=means if means.min() < 60 else means[:0])
    def mark(signal, fps, state): return _mark(signal, fps, dict(level=[30]))
    monkeypatch.setitem(SPOTTERS, 'dark', Spotter(name='dark', about='', measure=measured, mark=mark))
    folder = run_spotting(replace(cheap, images=images), 'dark', out_dir=tmp_path, progress=False)
    assert read_json(folder/'metrics.json')['unseen'] == ['c/1']
    assert spot_report(folder).words[0].startswith('In 1 of 4 recordings no face was found (c/1): nothing could')


def test_a_report_says_how_much_of_a_run_is_there(cheap, tmp_path):
    report = spot_report(run_spotting(cheap, 'dark', subjects='a,b', out_dir=tmp_path, progress=False))
    assert report.words[0] == 'Only 2 of 3 subjects are done.' and report.stamp == 'MADE UP'
    assert report.table['kind'].tolist() == ['micro', 'micro', 'macro', 'macro']


@pytest.mark.parametrize('to', [float, 'category', str])
def test_names_are_text_whatever_their_column_is(to):
    "Numbers, categories and doubled row labels count as text does."
    truth = intervals([(1, 1, 10, 20), (1, 1, 40, 50), (2, 1, 10, 20)], emotion='happy')
    rows = pd.DataFrame(dict(dataset='d', subject=[1, 2, 10], video=1, frames='60', fps='30'))
    wanted = spot_summary(interval_counts(truth, truth, rows.astype(dict(subject=str))), n=20)
    truth.index = [7, 7, 7]
    if to is str: truth['offset'] = truth['offset'].astype(float).astype(str)                       # '20.0'
    truth, rows = (t.astype(dict(subject='category' if to == 'category' else int)) for t in (truth, rows))
    if to is float: truth['subject'] = truth['subject'].astype(float)
    assert spot_summary(interval_counts(truth, truth, rows), n=20) == wanted and wanted['subjects'] == 3
    assert challenge_scores(truth, truth)['hits'] == 3
    assert checked_recordings(rows)['subject'].tolist() == ['1', '10', '2']


def noise(row):
    "Pictures of a recording that says where they are."
    return (np.full((8, 8, 3), row.level, np.uint8) for _ in range(row.frames))


def made_up(**more):
    "Recordings of odd people."
    rows = pd.DataFrame(dict(dataset='d', subject=['NA', '01', '=1'], video='1', frames=30, fps=29.97, level=3))
    return Recordings(name='own', stamp='made up', truth=intervals([('NA', '1', 3, 9)]),
                      **dict(recordings=rows, images=noise) | more)


def test_odd_people_are_scored_and_come_back_from_a_run(tmp_path, monkeypatch):
    monkeypatch.setitem(SPOTTERS, 'all', Spotter(
        name='all', about='', measure=lambda images, fps: dict(n=np.array([sum(1 for _ in images())])),
        mark=lambda s, fps, state: pd.DataFrame(dict(kind='micro', onset=[3], apex=[5], offset=[9], score=1.))))
    report = spot_report(run_spotting(made_up(), 'all', out_dir=tmp_path, progress=False, subjects=['NA', '01', '=1']))
    assert sorted(report.spotted['subject']) == sorted(report.recordings['subject']) == ['01', '=1', 'NA']
    assert report.table['hits'][0] == 1 and report.table['alarms'][0] == 2
    for images, words in ((lambda r: [*noise(r)][:9], 'found 9'), (lambda r: [i[..., 0] for i in noise(r)], 'H, W, 3'),
                          (lambda r: (i/255 for i in noise(r)), 'uint8'), (lambda r: [], 'found 0')):
        with pytest.raises(ValueError, match=words):
            run_spotting(made_up(images=images), 'all', out_dir=tmp_path/words, progress=False)
    with pytest.raises(ValueError, match='workers=1'):
        run_spotting(made_up(images=lambda r: noise(r)), 'all', out_dir=tmp_path/'w', workers=2, progress=False)


def test_a_run_of_spotting_is_not_called_damaged_where_runs_are_listed(tmp_path):
    from mpfnet.results.overview import runs_in
    write_json(tmp_path/'own-spot'/'config.json', dict(dataset='own', task='spot', method='roi_flow', data={}))
    (tmp_path/'broken').mkdir()
    (tmp_path/'broken'/'config.json').write_text('{}')
    assert [*runs_in(tmp_path).damaged] == ['broken']


def test_who_asks_a_run_for_spotting_is_led_to_its_page():
    "By the sentence of every program that reads parameters."
    from mpfnet.loso import run
    for asked in (dict(task='spot'), dict(dataset='synth_long'), dict(dataset='synth_long', task='spot')):
        with pytest.raises(ValueError, match='papermill nbs/video/09_spotting.ipynb'): run(**asked)
    with pytest.raises(ValueError, match='dataset=.synth_long. is unknown'): run(dataset='synth_long', task='3class')


@pytest.mark.parametrize('asked, words', [
    (dict(seed='x'), 'a whole number, 0 or more'), (dict(seed=-1), 'a whole number'),
    (dict(workers=0), 'a whole number, 1 or more'), (dict(data_options=3), 'expected text'),
    (dict(out_dir='s3://bucket'), 'expected a folder'), (dict(data_root='here'), 'synth_long is drawn'),
    (dict(out_dir='a\0b'), 'expected a folder'), (dict(dataset='samm_lv', data_root=3), 'expected a folder'),
    (dict(method=['mdmd']), 'name of a spotter'), (dict(data_options='seed=-1'), 'long.seed'),
    (dict(data_options='seconds=1e12'), 'at most 36000'), (dict(data_options='each=1,each=2'), 'each name once'),
    (dict(dataset='samm_lv', data_options='fps=nan'), 'frames a second')])
def test_a_wrong_value_is_refused_before_anything_is_written(asked, words, tmp_path):
    with pytest.raises(ValueError, match=words): run_spotting(**dict(out_dir=tmp_path/'runs', progress=False) | asked)
    assert not (tmp_path/'runs').exists()


def test_run_hands_over_to_the_page_of_spotting(tmp_path):
    "On the command line; the page of the run lies in its folder, and says what was found."
    few = '-p', 'data_options', 'subjects=2,each=1,seconds=6', '-p', 'out_dir', tmp_path/'runs', '-q'
    asked = '-m', 'mpfnet', 'run', '-p', 'dataset', 'synth_long', '-p', 'task', 'spot', *few
    done = warm(*asked, cwd=tmp_path, kernels=True)
    assert done.returncode == 0, done.stderr
    made, = (tmp_path/'runs').glob('synth_long-spot-roi_flow-*')
    assert 'SYNTHETIC' in done.stdout and str(made) in done.stdout
    assert 'SYNTHETIC' in (made/'executed.ipynb').read_text(encoding='utf-8')
    before = file_hash(made/'metrics.json')
    again = warm(*asked, '--no-notebook', cwd=tmp_path)
    assert again.returncode == 0 and file_hash(made/'metrics.json') == before
    wrong = warm('-m', 'mpfnet', 'run', '-p', 'task', 'spot', '-p', 'preset', 'tiny', cwd=tmp_path)
    assert wrong.returncode == 2 and 'of dataset, method' in wrong.stderr


@pytest.mark.parametrize('asked, words', [
    (dict(dataset='casme2'), 'one of synth_long'), (dict(method='x'), 'unknown spotter'),
    (dict(workers='0'), '1 or more'), (dict(data_options='people=3'), 'one of subjects, each'),
    (dict(dataset='samm_lv', data_options='seconds=3'), 'one of annotation, fps')])
def test_one_slip_has_one_exit_status_however_it_is_asked(asked, words, tmp_path, monkeypatch, capsys):
    from mpfnet.cli import main
    monkeypatch.chdir(tmp_path)
    spot = [x for k, v in asked.items() if k != 'dataset' for x in (f'--{k.replace("_", "-")}', v)]
    run = [x for pair in asked.items() for x in ('-p', *pair)]
    for line in (('spot', asked.get('dataset', 'synth_long'), *spot), ('run', '-p', 'task', 'spot', *run)):
        assert main([*line]) == 2 and words in capsys.readouterr().err, line
    assert not [*tmp_path.iterdir()]


def test_where_there_is_no_data_the_command_that_makes_some_is_named(monkeypatch, capsys):
    from mpfnet.cli import main
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    for line in (('spot', 'samm_lv'), ('data', 'check', 'samm_lv')):
        assert main([*line]) == 1 and 'mpfnet data lookalike samm_lv FOLDER' in capsys.readouterr().err
    assert main(['run', '-p', 'dataset', 'samm_lv']) == 2 and 'mpfnet spot samm_lv' in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    "Killed while it measures, as by a queue that ran out of time."
    asked = '-m', 'mpfnet', 'spot', '--data-options', 'subjects=2,each=1,seconds=6', '--method', 'learned', '--quiet'
    process = warm.begin(*asked, '--out-dir', tmp_path/'cut')
    until = time.monotonic() + 120
    while not (before := [*(tmp_path/'cut').glob('cache/signals/*.safetensors')]) and time.monotonic() < until:
        time.sleep(.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(before) == 1 and not [*(tmp_path/'cut').rglob('metrics.json')], 'the kill came too late'
    kept = before[0].stat().st_mtime_ns
    for name in ('cut', 'whole'):
        done = warm(*asked, '--out-dir', tmp_path/name)
        assert done.returncode == 0, done.stderr
    assert before[0].stat().st_mtime_ns == kept                    # measured once
    cut, whole = (next((tmp_path/name).glob('synth_long-spot-*')) for name in ('cut', 'whole'))
    for name in ('spotted.csv', 'metrics.json', 'truth.csv', 'recordings.csv', 'config.json'):
        assert file_hash(cut/name) == file_hash(whole/name), name
    record, other = (read_record(next(iter(sorted(f.glob('folds/*.json'))))) for f in (cut, whole))
    assert {**record, 'seconds': 0} == {**other, 'seconds': 0}


def test_spot_then_recognise_by_hand_and_by_every_draw():
    """The product is F1 of spotting × UF1 of the hits; its interval that of all sets of people, each as likely as it
    is: here two people, so alone the one (1/4), alone the other (1/4), or both (1/2)."""
    truth = intervals([('a', '1', 10, 19), ('a', '2', 10, 19), ('b', '1', 10, 19), ('b', '1', 100, 109)],
                      emotion=['surprise', 'negative', 'negative', 'others'])
    spotted = intervals([('a', '1', 10, 19), ('a', '2', 10, 19), ('b', '1', 10, 19), ('b', '1', 100, 109),
                         ('b', '1', 300, 309)], emotion=['surprise', 'negative', 'surprise', 'negative', 'negative'])
    s = strs_summary(spotted, truth, ROWS[:3], ('negative', 'positive', 'surprise'))
    assert s['n'] == 3                                              # `others` is spotted, and not recognised
    uf1 = (2/3 + 2/3)/2                                             # nobody shows or is called positive: it counts 0
    assert s['uf1'] == pytest.approx(2*uf1/3) and s['strs'] == pytest.approx(8/9*2*uf1/3)
    assert s['strs_ci95'] == pytest.approx([0, 2/3])                # b: 4/5 · 0; a: 1 · (1 + 0 + 1)/3
    theirs = challenge_scores(spotted, truth)
    assert theirs['f1'] == pytest.approx(8/9) and theirs['strs'] == pytest.approx(theirs['f1']*theirs['f1_analysis'])
    nobody = strs_summary(spotted.assign(onset=500, offset=509), truth, ROWS[:3], ('negative', 'surprise'))
    assert nobody['n'] == 0 and nobody['strs'] is None and nobody['strs_ci95'] == [None, None]


def test_what_is_learnt_of_the_classes_does_not_know_the_test_subject():
    "Neither its words nor its signals; those of anybody else change it."
    from mpfnet.video.recognise import learn_classes
    rng = np.random.default_rng(0)
    columns = [f'{p}_{a}' for p in FACE_PLACES for a in 'xy']
    signals = {('d', s, v): dict(frame=np.arange(600.), face=np.zeros(600)) | {c: rng.normal(size=600) for c in columns}
               for s, v in zip(ROWS['subject'], ROWS['video'])}
    spans = [(s, v, 20 + 40*k, 30 + 40*k) for s, v in zip(ROWS['subject'], ROWS['video']) for k in range(4)]
    truth = intervals(spans, emotion=['happiness', 'surprise']*8)
    found = Recordings(name='x', stamp='', recordings=ROWS, truth=truth, images=None)
    def learnt(found=found, signals=signals): return learn_classes(SpotFold(found, signals, ('d', 'b')).known())
    def same(a, b): return all(np.array_equal(a[k], b[k]) for k in a)
    def renamed(who): return replace(found, truth=truth.assign(
        emotion=truth['emotion'].where(truth['subject'] != who, 'disgust')))
    other = {k: {c: x + 1 for c, x in v.items()} if k[1] == 'b' else v for k, v in signals.items()}
    assert same(learnt(), learnt(renamed('b'))) and same(learnt(), learnt(signals=other))
    assert not same(learnt(), learnt(renamed('a')))


def test_two_runs_of_spotting_are_compared_and_nothing_else_with_them(cheap, tmp_path):
    one = run_spotting(cheap, 'dark', out_dir=tmp_path, progress=False)
    other = run_spotting(cheap, 'dark', seed=1, out_dir=tmp_path, progress=False)
    done = warm('-m', 'mpfnet', 'compare', one.name, other, '--out-dir', tmp_path)
    assert done.returncode == 0 and 'within noise' in done.stdout and 'MADE UP; 3 subjects' in done.stdout, done.stderr
    assert f'\nB  {other.name}\n' in done.stdout       # a line each
    write_json(tmp_path/'synth-3class-majority-0'/'config.json', dict(task='3class'))
    for a, b in ((one, 'synth-3class'), ('synth-3class', one)):
        done = warm('-m', 'mpfnet', 'compare', a, b, '--out-dir', tmp_path)
        assert done.returncode == 1 and 'synth-3class: no run of spotting' in done.stderr
    truth = pd.read_csv(other/'truth.csv')
    truth.assign(offset=truth['offset'] + 1).to_csv(other/'truth.csv', index=False)
    with pytest.raises(ValueError, match='truth of B'): compare_spotting(one, other)   # the same names, other frames
    done = warm('-m', 'mpfnet', 'compare', 'grey-spot', one, '--out-dir', tmp_path)
    assert done.returncode == 1 and 'expected one of grey-spot-dark' in done.stderr
