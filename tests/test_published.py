"""The numbers of the front page: written by `make results` only, each with its origin, and read by everybody else."""
import contextlib
import io
import itertools
import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from mpfnet.metrics import KEY, ensemble, read_predictions
from mpfnet.results.published import SHIPPED, published_predictions, shipped_table, without_labels
from mpfnet.results.report import METHOD_ORDER, as_markdown, origin, published_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'nbs/images/results.json'


@pytest.fixture
def script(monkeypatch, synth_root):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import published as module
    cheap = dict(preset='tiny', device='cpu', overrides='preprocess.size=16', data_root=str(synth_root))
    monkeypatch.setattr(
        module, 'TABLES',
        dict(demo=('SYNTHETIC clips', 'synth', dict(majority=cheap | dict(seed='0,1'), pca_lda=dict(cheap)))),
    )
    return module


def contents(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_every_number_of_the_front_page_has_its_origin():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    table = published_table(RESULTS, 'public_flow')
    assert as_markdown(table) in readme and origin(table) in readme
    for row in json.loads(RESULTS.read_text(encoding='utf-8'))['public_flow']['rows']:
        assert (row['command'].startswith(('papermill nbs/05_loso.ipynb', 'mpfnet run'))
                and f'-p method {row["name"]} ' in row['command'])
        assert row['commit'] and row['date'] and {'processor', 'seconds'} <= set(row)


def in_brackets(row): return f'{row["uf1"]:.3f} ({row["uf1_low"]:.3f}–{row["uf1_high"]:.3f})'


def test_the_numbers_of_the_guide_are_the_published_ones():
    "The table of drops, cell by cell, and the scores that its sentences name."
    guide, t = (ROOT / 'docs/experiments.md').read_text(encoding='utf-8'), shipped_table('scores.csv')
    by = t.set_index(['method', 'split', 'data', 'seed'])
    rows = re.findall(r'^\| `(\w+)` \| (.+ \| [+−]\d\.\d+ \(.+) \|$', guide, re.M)
    assert len(rows) == 5
    for method, cells in rows:
        *scores, drop = cells.split(' | ')
        at = [('dataset', d) for d in ('casme2', 'samm', 'smic', 'pooled')] + [('subject', 'pooled')]
        found = [by.loc[method, split, data, '0'] for split, data in at]
        assert scores == [in_brackets(r) for r in found], method
        assert abs(float(drop.split()[0].replace('−', '-')) - found[4]['uf1'] + found[3]['uf1']) < .0011
    mean = by.loc['ststnet', 'subject', 'pooled', 'mean']
    assert f'STSTNet has UF1 {mean["uf1"]:.3f} (mean of three seeds, last epoch, {mean["uf1_low"]:.3f}–' in guide
    linear = by.loc['pca_lda', 'subject', 'pooled', '0']['uf1']
    assert f'takes the classes as equally likely, {linear:.3f}' in guide


def test_looking_at_the_front_page_writes_nothing(tmp_path, monkeypatch):
    "Run from top to bottom, without a run at hand."
    before = contents(ROOT / 'nbs/images')
    cells = json.loads((ROOT / 'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']
    code = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
    (tmp_path / 'nbs/images').mkdir(parents=True)
    for name, data in before.items(): (tmp_path / 'nbs/images' / name).write_bytes(data)
    monkeypatch.chdir(tmp_path / 'nbs')
    for source in code: exec(source, {})
    assert contents(tmp_path / 'nbs/images') == before and not [p for p in tmp_path.iterdir() if p.name != 'nbs']


def test_results_are_run_written_and_found_again(script, tmp_path, capsys):
    (tmp_path / 'results.json').write_text(json.dumps(dict(another=dict(title='', rows=[]))), encoding='utf-8')

    def make():
        return script.main(
            ['--only', 'demo', '--out-dir', str(tmp_path / 'runs'), '--into', str(tmp_path), '--workers', '1']
        )
    assert make() == 0 and 'scores averaged' in capsys.readouterr().out
    table = published_table(tmp_path / 'results.json', 'demo')
    assert list(zip(table['name'], table['seed'])) == [('majority', 'average'), ('majority', '0'), ('majority', '1'),
                                                       ('pca_lda', '0')]
    assert set(json.loads((tmp_path / 'results.json').read_text(encoding='utf-8'))) == {'another', 'demo'}
    assert table['processor'].notna().all() and table['commit'].notna().all() and (tmp_path / 'demo.png').exists()
    first = (tmp_path / 'results.json').read_bytes()
    assert make() == 0 and (tmp_path / 'results.json').read_bytes() == first, (
        'finished folds are found, not trained again'
    )


def test_incomplete_runs_are_refused_and_nothing_is_written(script, tmp_path):
    script.TABLES['demo'][2]['pca_lda'] |= dict(subjects='synth/sub01')
    with pytest.raises(ValueError, match='folds: expected all of them'):
        script.main(['--only', 'demo', '--out-dir', str(tmp_path / 'runs'), '--into', str(tmp_path), '--workers', '1'])
    assert [p.name for p in tmp_path.iterdir()] == ['runs']


def test_a_slip_is_said_before_anything_runs(script, capsys):
    with pytest.raises(SystemExit): script.main(['--only', 'public'])
    assert 'unknown public; known: system, demo' in capsys.readouterr().err


# --- what travels with the package

def write_made_up(out_dir, method, split, seed, folds=30, **settings):
    "The folder of a run on made-up clips in the release's form."
    from mpfnet.core.files import write_json
    from mpfnet.results.records import write_results
    draw = random.Random(f'{method}{split}{seed}')
    rows, words = [], ('ne', 'po', 'sur')
    for dataset, who, i in itertools.product(('casme2', 'samm', 'smic'), range(10), range(4)):
        y = (who + i) % 3
        scores = [round(12*draw.random() - 1 + 4*(k == y), 6) for k in range(3)]
        clip = f's{who:02d}_{words[y]}_{i:02d}' if dataset == 'smic' else f'{i:03d}'
        named = dict(dataset=dataset, subject=f's{who:02d}', clip=clip, label=y, prediction=scores.index(max(scores)))
        rows.append(named | {f'score_{k}': v for k, v in enumerate(scores)})
    folder = out_dir/f'megc2019_flow-3class-{method}-{split}{seed}'
    data = dict(stamp='LOOK-ALIKE of the release', clips=len(rows), subjects=30)
    write_results(folder, pd.DataFrame(rows), 3, folds=dict(done=folds, of=30))
    settings = dict(features='both', preprocess={}) | settings
    write_json(folder/'config.json', dict(dataset='megc2019_flow', task='3class', method=method, split=split, seed=seed,
                                          device='cpu', data=data, settings=settings))
    write_json(folder/'env.json', dict(parts=[dict(commit='a'*40, uncommitted=False, processor='a processor',
                                                   start='2026-11-28T00:00:00+00:00', seconds=2.)]))
    return folder


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    "Two methods and splits, two seeds; one run that is not finished, one that is odd."
    folder = tmp_path_factory.mktemp('finished')
    for k in itertools.product(('majority', 'pca_lda'), ('subject', 'dataset'), (0, 1)): write_made_up(folder, *k)
    part = write_made_up(folder, 'pca_lda', 'subject', 2, folds=1)
    (folder/'megc2019_flow-3class-plsm-00000000').mkdir()
    (folder/'megc2019_flow-3class-plsm-00000000/config.json').write_text('{', encoding='utf-8')
    return folder, part


@pytest.fixture(scope='module')
def gathered(finished, tmp_path_factory):
    "The script, what it has written, and what it has said."
    out, said = tmp_path_factory.mktemp('gathered'), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.syspath_prepend(str(ROOT / 'benchmarks'))
        import published as module
        assert module.main(['--gather', str(finished[0]), '--gather-into', str(out)]) == 0
    return module, out, said.getvalue()


def test_finished_runs_are_gathered_and_others_left_out_in_words(finished, gathered):
    _, out, said = gathered
    assert f'left out: {finished[1].name} (pca_lda, subject, 1 of ' in said and 'plsm-00000000 (' in said
    scores = shipped_table('scores.csv', out)
    assert set(zip(scores['method'], scores['split'])) == {*itertools.product(('majority', 'pca_lda'),
                                                                              ('subject', 'dataset'))}
    assert set(scores['seed']) == {'0', '1', 'mean', 'averaged'} and scores['data'].nunique() == 4
    assert scores['command'].str.startswith('mpfnet run -p dataset megc2019_flow -p method ').all()
    assert scores[['commit', 'processor', 'date']].notna().all(axis=None)
    metrics = json.loads((finished[0]/'megc2019_flow-3class-pca_lda-dataset1/metrics.json').read_text(encoding='utf-8'))
    for data, m in (('pooled', metrics['pooled']), ('smic', metrics['per_dataset']['smic'])):
        row = scores.query('method == "pca_lda" and split == "dataset" and seed == "1" and data == @data').iloc[0]
        assert [row['n'], row['uf1'], row['uf1_low']] == pytest.approx([m['n'], m['uf1'], m['uf1_ci95'][0]], abs=1e-6)
    mean = scores.query('method == "pca_lda" and split == "dataset" and data == "smic"').set_index('seed')['uf1']
    assert mean['mean'] == pytest.approx((mean['0'] + mean['1'])/2, abs=1e-6)


def test_scores_that_ship_name_the_same_classes_when_they_are_averaged(finished, gathered):
    _, out, _ = gathered
    runs = [read_predictions(finished[0]/f'megc2019_flow-3class-pca_lda-subject{i}/predictions.csv') for i in (0, 1)]
    whole = without_labels(ensemble(runs))
    got = [t.assign(label=0) for t in published_predictions('pca_lda', folder=out).values()]
    assert ensemble(got)['prediction'].tolist() == whole['prediction'].tolist()
    one = without_labels(runs[1])
    assert got[1]['prediction'].tolist() == one['prediction'].tolist()
    scores = [f'score_{k}' for k in range(3)]
    assert (got[1][scores] - one[scores]).abs().to_numpy().max() < 1e-4 and one[scores].to_numpy().max() > 10


def test_no_label_ships_not_even_in_a_name_or_an_order(finished, gathered):
    _, out, _ = gathered
    assert sorted(p.name for p in out.iterdir()) == ['differences.csv', 'predictions.csv', 'scores.csv']
    t = shipped_table('predictions.csv', out)
    assert [*t][:5] == [*KEY, 'majority subject 0', 'majority subject 1'] and t.shape == (120, 3 + 8)
    assert t.equals(t.sort_values(KEY)) and not t.loc[t['dataset'] == 'smic', 'clip'].str.contains('_').any()
    assert t[[*t][3:]].apply(lambda c: c.str.fullmatch(r'[012]( -?\d*\.?\d+){3}')).all(axis=None)


def test_the_same_runs_give_the_same_bytes(finished, gathered, tmp_path):
    module, out, _ = gathered
    module.gather(finished[0], tmp_path/'again')
    assert contents(out) == contents(tmp_path/'again')


def test_look_alikes_do_not_get_into_the_package_and_two_settings_are_a_question(finished, gathered, tmp_path):
    module, *_ = gathered
    before = contents(SHIPPED)
    with pytest.raises(ValueError, match='the release: it goes into the package'): module.gather(finished[0])
    with pytest.raises(ValueError, match='finished runs of megc2019_flow'): module.gather(tmp_path/'nothing')
    with pytest.raises(ValueError, match='methods with three seeds'): module.front(tmp_path, gathered[1])
    runs = tmp_path/'runs'
    write_made_up(runs, 'pca_lda', 'subject', 0)
    write_made_up(runs, 'pca_lda', 'subject', 3, grid=[1, 4, 4])
    assert 'settings of its own: grid' in module.whole_runs(runs)[1]['megc2019_flow-3class-pca_lda-subject3']
    write_made_up(runs, 'pca_lda', 'subject', 3, features='flow')
    with pytest.raises(ValueError, match='runs of pca_lda, subject: expected one setting'):
        module.gather(runs, tmp_path/'x')
    assert contents(SHIPPED) == before and not (tmp_path/'x').exists()


def test_what_ships_is_real_whole_and_small():
    scores, names = shipped_table('scores.csv'), {p.name for p in SHIPPED.iterdir()}
    assert names == {'scores.csv', 'differences.csv', 'predictions.csv'}
    assert scores['clips'].str.startswith('REAL clips, public flow').all() and scores['commit'].str.len().ge(40).all()
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 1_000_000
    t = shipped_table('predictions.csv')
    there = {tuple(c.split(' ')[:2]) for c in [*t][3:]}
    assert there == set(scores[['method', 'split']].itertuples(index=False, name=None))
    assert not t['clip'].str.contains('_(?:ne|po|sur)_').any() and 'label' not in t


def test_a_made_up_front_page_is_drawn_from_what_ships(gathered, tmp_path):
    "Where every method has its seeds; here one method stands for all."
    module, out, _ = gathered
    scores = shipped_table('scores.csv', out).query('method == "pca_lda"')
    scores['seeds'] = scores['seeds'].where(scores['seeds'] == 1, 3)
    pd.concat([scores.assign(method=m) for m in METHOD_ORDER]).to_csv(tmp_path/'scores.csv', index=False)
    module.front(tmp_path, tmp_path)
    table = published_table(tmp_path/'results.json', 'public_flow')
    assert table['name'].tolist() == METHOD_ORDER and (tmp_path/'public_flow.png').stat().st_size > 5000
    assert '| `mpfnet_c` | scores averaged | ' in as_markdown(table) and origin(table).startswith('Made by commit ')
