"""What `make notebooks` says about stored outputs (pages.py)."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pages = pytest.importorskip('pages', reason='needs nbdev')
ROOT = Path(__file__).parents[1]


def text(t): return [dict(output_type='execute_result', data={'text/plain': t})]


def printed(t, name='stdout'): return [dict(output_type='stream', name=name, text=t)]


@pytest.mark.parametrize(
    'stored, now',
    [
        ('0.5470', '0.5471'),
        ('UF1 0.547 (0.438–0.632)', 'UF1 0.547 (0.438–0.633)'),
        ('3.1 ms', '12 ms'),
        ('1.20 s ± 3 ms', '0.9 s ± 12 ms'),
        ("'9f86d081884c7d65'", "'60303ae22b998861'"),
        ('<A object at 0x7f01>', '<A object at 0x7f02>'),
        ('runs/x/1 of /a/b/c', 'runs/x/1 of /a/d/e'),
        ('2026-11-27T17:33:14+00:00', '2027-01-01'),
        ('torch 2.13.0+cpu', 'torch 2.14.1'),
        ('-1e-9', '3e-8'),
        ('a    b', 'a b'),
        ('1.0e-05', '1.001e-05'),
    ],
)
def test_the_same_but_for_rounding_times_hashes_paths_and_versions(stored, now):
    assert not pages.difference(text(stored), text(now))


@pytest.mark.parametrize(
    'stored, now',
    [
        ('0.537', '0.547'), ('100 clips', '101 clips'), ('majority', 'pca_lda'), ('a b', 'a b c'), ('-0.5', '0.5'),
        ('[1, 2]', '[1, 3]'), ('1 of 2', '1 of 2.5'),
    ],
)
def test_other_numbers_and_words_are_told(stored, now):
    assert stored.split()[0].strip('[,') in pages.difference(
        text(stored), text(now)
    ) or 'words are stored' in pages.difference(text(stored), text(now))


def test_pictures_are_there_or_not_and_stderr_does_not_count():
    picture = [
        dict(output_type='display_data', data={'image/png': 'x', 'text/plain': '<Figure size 640x480 with 1 Axes>'})
    ]
    assert not pages.difference(
        picture,
        [dict(output_type='display_data', data={'image/jpeg': 'y', 'text/plain': '<Figure size 800x600 with 2 Axes>'})],
    )
    assert (pages.difference(picture, []) == 'a picture is stored and not made' and pages.difference([], picture)
            == 'a picture is made and not stored')
    assert not pages.difference(printed('a'), [*printed('99 %', 'stderr'), *printed('a')]) and pages.difference(
        printed('a'), []
    )


def test_a_hash_without_a_letter_is_one_too():
    assert not pages.difference(printed('pca_lda-33586078'), printed('pca_lda-a0c961db'))
    assert pages.difference(printed('1234567 bytes'), printed('1234568 bytes'))
    assert pages.difference(printed('0.33586078'), printed('0.43586078'))


def test_a_page_with_another_output_fails_and_one_that_says_why_does_not(tmp_path):
    "As `make notebooks` runs it; what a slow cell has stored is left alone."

    def cell(source, output, **metadata):
        return dict(cell_type='code', id=f'c{len(source)}', execution_count=None, metadata=metadata, source=source,
                    outputs=text(output))
    title = dict(cell_type='markdown', id='title', metadata={}, source='# A page\n> What for.')
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    (tmp_path / 'nbs').mkdir()
    for name, cells in dict(
        right=[cell('x = 1; x/2', '0.5'), cell('#| slow\nx + 1', '7')],
        stale=[cell('0.547', '0.537')],
        varies=[cell('0.547', '0.537', tags=['varies'])],
        a_sets=[cell("import os, warnings; warnings.simplefilter('always'); os.environ['SET'] = '1'", '')],
        b_finds=[cell("import os, warnings; warnings.filters[0][0] == 'always', 'SET' in os.environ",
                      '(False, False)')],
    ).items():
        nb = dict(cells=[title, *cells],
                  metadata=dict(kernelspec=dict(display_name='python3', language='python', name='python3')), nbformat=4,
                  nbformat_minor=5)
        (tmp_path / f'nbs/{name}.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    done = subprocess.run([sys.executable, ROOT / 'tests/pages.py', '--n_workers', '0'], cwd=tmp_path,
                          capture_output=True, text=True, encoding='utf-8')
    assert (done.returncode == 1 and 'cell 1 (c5): stored “0.537”, now “0.547”' in done.stderr
            and 'stale.ipynb' in done.stderr)
    assert not [n for n in ('right', 'varies', 'a_sets', 'b_finds') if f'{n}.ipynb' in done.stderr], done.stderr


def test_a_drawn_data_set_is_copied_and_no_page_changes_it_for_another(tmp_path):
    drawn = []
    def make(root, **asked):
        drawn.append(asked)
        root.mkdir()
        (root/'a.csv').write_text(str(asked))
    (tmp_path/'shelf').mkdir()
    draw = pages.drawn_once(make, tmp_path/'shelf')
    (draw(tmp_path/'one/synth')/'a.csv').write_text('changed')
    assert (draw(tmp_path/'two')/'a.csv').read_text() == '{}' and drawn == [{}]
    assert (draw(tmp_path/'three', seed=1)/'a.csv').read_text() == "{'seed': 1}" and drawn == [{}, dict(seed=1)]
    with pytest.raises(FileExistsError): draw(tmp_path/'two')                   # it looks for itself
