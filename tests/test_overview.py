"""Finding runs: `mpfnet runs`, the words that tell runs apart, and `mpfnet settings`."""
import io
import json
import os
import shutil
import time
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.cli import main
from mpfnet.core.files import write_json
from mpfnet.methods import METHODS, Settings, decided_by, override, recipe_of, settings_preset
from mpfnet.results import overview, records
from mpfnet.results.compare import find_run
from mpfnet.results.overview import age, differing, draw_runs, rows_of_runs, runs_in, table_of_runs
from mpfnet.results.words import PRESETS, apart, as_words, preset_of, told_apart, words_note, words_of
from mpfnet.tools.settings import settings_table

CHANGES = dict(pltn='pltn.epochs=4', scratch='meta.updates=7', fdp='fdp.updates=3', afn='afn.epochs=2',
               ststnet='ststnet.epochs=2', lbp_top='svm.C=2.5', bi_woof='bi_woof.bins=9')


def config_of(method='pltn', overrides='', preset='tiny', seed=0, dataset='smic', stamp='LOOK-ALIKE of SMIC-HS',
              gamma=.8, **more):
    "As `mpfnet.loso` writes it."
    chosen = override(settings_preset(preset, dataset == 'megc2019_flow', gamma=gamma), overrides)
    kind = 'flow28' if dataset == 'megc2019_flow' else 'frames'
    data = dict(stamp=stamp, subjects=3, apex='given', options={}, clips=12, decisions={})
    config = dict(dataset=dataset, task='3class', method=method, device='cpu', code='36898d7da7e60da9', format=3,
                  settings=decided_by(method, chosen, kind), data=data)
    return json.loads(json.dumps(config | (more if 'seeds' in more else dict(seed=seed) | more)))


def write_run(home, name, uf1=None, folds=3, **asked):
    folder = write_json(home/name/'config.json', config_of(**asked)).parent
    for k in range(folds): write_json(folder/'folds'/f'smic__s{k}.json', {})
    if uf1 is not None:
        scores = dict(uf1=uf1, uar=uf1, acc=uf1, uf1_ci95=[uf1 - .1, uf1 + .1])
        write_json(folder/'metrics.json', dict(pooled=scores, folds=dict(done=folds, of=3)))
    return folder


@pytest.fixture
def home(tmp_path):
    "Four runs and a summary, the last one the newest."
    write_run(tmp_path, 'smic-3class-pltn-aaaaaaa0', .5, seed=0)
    write_run(tmp_path, 'smic-3class-pltn-aaaaaaa1', .6, seed=1)
    write_run(tmp_path, 'smic-3class-pltn-aaaaaaa2', .7, 3, seeds=[0, 1],
              runs=['smic-3class-pltn-aaaaaaa0', 'smic-3class-pltn-aaaaaaa1'])
    write_run(tmp_path, 'smic-3class-mpfnet_p-bbbbbbb0', .4, 3, method='mpfnet_p', gamma=.5)
    write_run(tmp_path, 'smic-3class-mpfnet_p-bbbbbbb1', None, 1, method='mpfnet_p', gamma='inner')
    for k, f in enumerate(sorted(tmp_path.iterdir(), key=lambda f: f.name[-8:])):
        for g in (*f.rglob('*'), f): os.utime(g, (1.7e9 + 60*k,)*2)
    return tmp_path


# --- words

@pytest.mark.parametrize('dataset', ['smic', 'megc2019_flow'])
@pytest.mark.parametrize('method', METHODS)
def test_the_preset_is_found_again(method, dataset):
    if dataset == 'megc2019_flow' and 'flow28' not in recipe_of(method, Settings()).kinds: pytest.skip('needs frames')
    for preset in PRESETS:
        found, more = preset_of(config_of(method, preset=preset, dataset=dataset))
        assert found in (preset, '') and more == {}
        if not (text := CHANGES.get(method)): continue
        assert text in as_words(words_of(config_of(method, text, preset, dataset=dataset)))


WORDS = st.dictionaries(st.sampled_from('dataset method γ flow preset seed options pltn.epochs x.y'.split()),
                        st.sampled_from(['', 'a', 'b']))

@given(st.lists(WORDS, min_size=1, max_size=6))
def test_words_that_differ_and_no_others(words):
    said = apart(words)
    assert len(said) == len(words) and len({tuple(w) for w in said}) == 1
    for k in {k for w in words for k in w}:
        values = [w.get(k, '') for w in words]
        absent = k in ('γ', 'flow', 'preset')                     # what a method does not have
        assert (k in said[0]) == (len(set(values) - ({''} if absent else set())) > 1)
        if k in said[0]: assert [w[k] for w in said] == values


@settings(max_examples=25)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)
                    | st.dictionaries(st.text(max_size=8), x, max_size=3), max_leaves=8))
def test_a_config_of_another_version_is_still_said_in_words(odd):
    "Whatever lies where something else was expected."
    base = config_of()
    for where in ('seed', 'device', 'split', 'code'):
        assert all(isinstance(v, str) for v in words_of(base | {where: odd}).values())
    for where in ('preprocess', 'pltn', 'gamma', 'features'):
        words_of(base | dict(settings=base['settings'] | {where: odd}))
    for where in ('apex', 'options', 'stamp'): words_of(base | dict(data=base['data'] | {where: odd}))


def test_notes_and_errors_say_words(home):
    names = told_apart(sorted(home.iterdir()))
    assert 'smic-3class-mpfnet_p-bbbbbbb0 (γ 0.5, seed 0)' in names and 'smic-3class-pltn-aaaaaaa1 (seed 1)' in names
    two = r'the beginning of 2 runs in .*bbbbbbb0 \(γ 0.5\), .*bbbbbbb1 \(γ inner\)\. Write'
    with pytest.raises(ValueError, match=two): find_run('smic-3class-mpfnet_p', home)
    a, b = config_of(), config_of('plsm', 'preprocess.flow=dis', seed=4)
    assert words_note(a, b) == ['in words, A: flow ilk; B: flow dis'] and words_note(a, a | dict(seed=3)) == []


# --- a folder of runs

def test_a_line_a_run_the_newest_first(home):
    table = table_of_runs(runs_in(home), now=1.7e9 + 300)
    assert table['run'].tolist() == ['bbbbbbb1', 'bbbbbbb0', 'aaaaaaa2', 'aaaaaaa1', 'aaaaaaa0']
    assert table['folds'].tolist() == ['1 of 3', *['3 of 3']*4] and table['UF1 (95 %)'].tolist()[:2] == [
        '', '0.400 (0.300–0.500)']
    assert table['seed'].tolist() == ['0', '0', '0, 1 (summary)', '1', '0']
    assert table['γ'].tolist()[:2] == ['inner', '0.5']
    assert table['changed'].tolist()[0] == '60 s ago' and set(table['clips']) == {'look-alike'}
    assert not {'dataset', 'task', 'preset', 'flow', 'apex', 'settings'} & set(table)
    assert draw_runs(runs_in(home))


def test_other_code_and_other_clips_are_named(tmp_path):
    write_run(tmp_path, 'a', .5)
    write_run(tmp_path, 'b', .5, code='ffff8d7da7e60da9')
    for k, f in enumerate(('b', 'a')):
        for g in (*(tmp_path/f).rglob('*'), tmp_path/f): os.utime(g, (1.7e9 + 60*k,)*2)
    assert differing(runs_in(tmp_path)) == [dict(code='latest'), dict(code='earlier')]


def test_a_csv_says_all(home):
    text = rows_of_runs(runs_in(home)).to_csv(index=False)
    rows = pd.read_csv(io.StringIO(text))
    assert rows['kind'].tolist().count('summary') == 1 and rows['preset'].tolist() == ['tiny']*5
    assert rows['uf1'].tolist()[1:] == [.4, .7, .6, .5]
    assert rows['changed'].str.fullmatch(r'\d{4}-\S+[+-]\d\d:\d\d').all()


@pytest.mark.parametrize('path, text, says', [
    ('config.json', '{"dataset": "sm', 'is damaged'), ('config.json', '[]', 'expected a JSON object'),
    ('config.json', '{}', 'dataset, task, method, data, settings missing'),
    ('config.json', b'\xff\xfe\x00', 'is damaged'),
    ('metrics.json', '{"pooled": {"uf1": "high"}}', 'uf1, uar or acc missing or of another kind'),
    ('metrics.json', '{"pooled": {"uf1": 0.5, "uar": 0.5, "acc": 0.5, "uf1_ci95": [0.4]}}', 'of another kind'),
    ('metrics.json', '', 'is damaged'),
])
def test_what_is_damaged_is_named_and_the_rest_is_listed(home, capsys, path, text, says):
    file = home/'smic-3class-pltn-aaaaaaa1'/path
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(['runs', str(home)]) == 0
    out = capsys.readouterr().out
    assert 'damaged, smic-3class-pltn-aaaaaaa1: ' in out.splitlines()[-1] and says in out.splitlines()[-1]
    assert out.count('aaaaaaa0') == 1 and len(runs_in(home).runs) == (4 if path == 'config.json' else 5)


def test_folders_that_are_no_runs(tmp_path, capsys):
    "Missing, a file, empty, full of other things, and runs one folder below."
    for name, says in (('nowhere', "expected a folder of runs, found 'nothing'"), ('file', "found 'a file'")):
        (tmp_path/'file').touch()
        assert main(['runs', str(tmp_path/name)]) == 1
        assert says in (err := capsys.readouterr().err) and err.count('\n') == 1
    (tmp_path/'empty').mkdir()
    assert main(['runs', str(tmp_path/'empty')]) == 0 and 'no run in it' in capsys.readouterr().out
    for k in range(3000): (tmp_path/'empty'/f'{k}.txt').touch()
    (tmp_path/'empty'/'loop').symlink_to(tmp_path/'empty')
    write_run(tmp_path/'empty'/'paper', 'smic-3class-pltn-aaaaaaa0')
    assert main(['runs', str(tmp_path/'empty')]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f'more runs: {tmp_path}/empty/paper (1)'
    assert main(['runs', str(tmp_path/'empty'), '--csv']) == 0


def test_a_run_that_is_written_at_this_moment(home, monkeypatch):
    "Folders without a config yet, files that vanish between one look and the next."
    (home/'smic-3class-plsm-cccccccc').mkdir()
    (home/'smic-3class-pltn-aaaaaaa0'/'folds'/'.smic__s0.json.lock').touch()
    assert [r.done for r in runs_in(home).runs if r.folder.name.endswith('aaaaaaa0')] == [3]
    look = overview.records_counted
    def gone(folder):
        n = look(folder)
        if folder.name.endswith('aaaaaaa1'): shutil.rmtree(folder)
        return n
    monkeypatch.setattr(overview, 'records_counted', gone)
    assert len(runs_in(home).runs) == 5


def test_hundreds_of_runs_are_read_once_each(tmp_path, monkeypatch):
    for k in range(300): write_run(tmp_path, f'smic-3class-pltn-{k:08x}', .5, 0, seed=k)
    for k in range(2000): (tmp_path/'smic-3class-pltn-00000000'/f'{k}.json').touch()
    seen = []
    whole = overview.read_json
    def counted(path):
        seen.append(str(path))
        return whole(path)
    for module in (overview, records): monkeypatch.setattr(module, 'read_json', counted)
    began = time.process_time()
    table = table_of_runs(runs_in(tmp_path))
    assert len(table) == 300 and len(seen) == len(set(seen)) == 600 and time.process_time() - began < 6


def test_nothing_on_a_terminal_but_text(home, capsys):
    write_run(home, 'smic-3class-\x1b[2J', seed=7, apex='\x1b[31m')
    (home/'bad\x1b[2J').mkdir()
    (home/'bad\x1b[2J'/'config.json').write_text('{', encoding='utf-8')
    for more in ([], ['--csv']):
        assert main(['runs', str(home), *more]) == 0
        got = capsys.readouterr()
        assert '\x1b' not in got.err and (more or '\x1b' not in got.out)


def test_ages():
    said = [age(s) for s in (-5, 3, 90, 7200, 50*3600, 70*86400)]
    assert said == ['now', 'now', '90 s ago', '2.0 h ago', '2 days ago', '2 months ago']


# --- settings

@pytest.mark.parametrize('method', METHODS)
def test_each_setting_that_is_listed_is_one(method):
    "With a value, a meaning, what it may be, and a page that is there."
    for preset in ('paper', 'tiny'):
        table, chosen = settings_table(method, preset), settings_preset(preset)
        assert override(chosen, ','.join(f'{r.override}={r.default}' for r in table.itertuples())) == chosen
    assert (table[['choices', 'meaning', 'page']] != '').all(axis=None)
    root = Path(__file__).parents[1]
    assert all((root/p).is_file() for p in set(table['page']))
    stages = {METHODS[method].reads, *METHODS[method].stages, 'preprocess'}
    assert {o.partition('.')[0] for o in table['override']} <= stages


def test_settings_on_the_command_line(capsys):
    assert main(['settings', 'pltn', '--preset', 'tiny']) == 0
    out = capsys.readouterr().out
    line = next(l for l in out.splitlines() if 'pltn.margin' in l)
    assert 'a positive number' in line and 'nbs/03a_pltn.ipynb' in line and 'preset tiny' in out
    assert main(['settings']) == 0
    assert 'lbp_top.radii' in capsys.readouterr().out
    assert main(['settings', 'pltm']) == 1
    assert "method='pltm' is unknown; known: " in (err := capsys.readouterr().err) and 'mpfnet_c' in err
    assert main(['settings', 'pltn', '--preset', 'huge']) == 2


def test_every_stage_is_listed():
    listed = {o.partition('.')[0] for o in settings_table()['override']}
    assert listed == {f.name for f in fields(settings_preset())} - {'features', 'gamma'}
