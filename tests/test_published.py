"""The numbers of the front page: written by `make results` only, each with its origin, and read by everybody else."""
import json
from pathlib import Path

import pytest

from mpfnet.results.report import as_markdown, origin, published_table

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
        assert (row['command'].startswith('papermill nbs/05_loso.ipynb')
                and f'-p method {row["name"]} ' in row['command'])
        assert row['commit'] and row['date'] and {'processor', 'seconds'} <= set(row)


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
