"""Every licensed dataset from its folder to pooled metrics, on look-alike trees: the same code that a licence holder
runs."""
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import CHEAP
from openpyxl import load_workbook

from mpfnet.clips import LICENSED, counts_of, load_clips, stamp
from mpfnet.data.defects import report_table
from mpfnet.data.frames import list_frames
from mpfnet.data.labels import DATASETS, FIVE, MEGC2019
from mpfnet.loso import run
from mpfnet.synthetic.lookalike import TREES, lookalike_truth, make_lookalike

pytestmark = pytest.mark.filterwarnings('ignore:.*partial-copy')
SIX, NEWER = LICENSED[:6], ('casme3_c', 'casme', '4dme')    # DFME: test_newer_datasets.py


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    "Data root with four subjects of each dataset, faces drawn small; do not change it."
    root = tmp_path_factory.mktemp('drawn')
    for name in SIX: make_lookalike(name, root, subjects=4, size=48, progress=False)
    return root


@pytest.fixture(scope='session')
def full(tmp_path_factory):
    "Data root with all datasets but DFME in full counts, frames blank; do not change it."
    root = tmp_path_factory.mktemp('full')
    for name in (*SIX, *NEWER): make_lookalike(name, root, blank=True, progress=False)
    return root


@pytest.mark.parametrize(
    'name, task', [('samm', '5class'), ('casme2', '5class'), *((n, '3class') for n in (*SIX, 'megc2019_cd'))]
)
def test_a_run_from_folder_to_metrics(drawn, tmp_path, name, task):
    clips = load_clips(name, drawn, task=task)
    some = ','.join(f'{d}/{s}' for d, s in sorted(set(zip(clips['dataset'], clips['subject'])))[:2])
    folder = run(dataset=name, task=task, method='mpfnet_p', preset='tiny', data_root=str(drawn), out_dir=str(tmp_path),
                 subjects=some, overrides=f'{CHEAP},preprocess.size=32')
    m, config = (json.loads((folder / f'{n}.json').read_text()) for n in ('metrics', 'config'))
    assert m['folds'] == dict(done=2, of=len(set(zip(clips['dataset'], clips['subject'])))) and m['pooled']['n'] == sum(
        f'{d}/{s}' in some.split(',') for d, s in zip(clips['dataset'], clips['subject'])
    )
    assert config['data']['kind'] == 'look-alike' and config['data']['stamp'].startswith('LOOK-ALIKE of')
    assert json.loads((folder / 'data_report.json').read_text())['findings'] and any('partial-copy' in k for k
                                                                                     in config['data']['decisions'])


def test_a_task_that_a_dataset_does_not_have_is_an_error_before_anything_is_made(drawn, tmp_path):
    for name in ('smic', 'mmew', 'casme_sq', 'casme3', 'megc2019_cd'):
        with pytest.raises(ValueError, match=f'{name} has no 5class labels'):
            run(dataset=name, task='5class', data_root=str(drawn), out_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_protocols_have_the_published_counts(full):
    composite = load_clips('megc2019_cd', full, strict=True)
    assert (counts_of(composite) == MEGC2019 and len(composite) == 442
            and len(set(zip(composite['dataset'], composite['subject']))) == 68)
    for name, published in FIVE.items():
        assert counts_of(load_clips(name, full, task='5class', strict=True)) == {name: published}
    every = {name: load_clips(name, full, task=None, strict=True) for name in (*SIX, *NEWER)}
    counts = {name: (len(t), t['subject'].nunique()) for name, t in every.items()}
    assert counts == dict(smic=(164, 16), casme2=(255, 26), samm=(159, 29), mmew=(300, 30), casme_sq=(57, 14),
                          casme3=(860, 94), casme3_c=(165, 30), casme=(189, 19), **{'4dme': (267, 41)})
    assert counts == {name: (f.clips, f.subjects) for name, f in DATASETS.items() if name in counts} and (
        'sub09', 'EP09f',
    ) in set(zip(composite['subject'], composite['clip']))


VARIANTS = (
    [('smic', v, {}) for v in ('cropped', 'raw', '2019', 'no_sheet')]
    + [('smic', m, dict(modality=m)) for m in ('vis', 'nir')]
    + [('casme2', v, {}) for v in ('raw', 'cropped', '2019')]
    + [(n, v, {}) for n in ('casme3_c', 'casme', '4dme') for v in TREES[n]]
    + [('samm', 'beside', {}), ('mmew', 'by_subject', {}), ('casme_sq', 'int_codes', {}), ('casme3', 'clips', {})]
)

@pytest.mark.filterwarnings('ignore:.*other-list')
@pytest.mark.parametrize('name, variant, options', VARIANTS, ids=lambda v: v if isinstance(v, str) else '')
def test_every_form_a_dataset_comes_in_gives_the_same_clips(tmp_path, name, variant, options):
    """Frames and numbers may differ between the forms; subject, clip, emotion and the files that are read must be the
    planted ones."""
    folder = make_lookalike(name, tmp_path, variant=variant, blank=True, progress=False)
    truth = {(t['subject'], t['clip']): t for t in lookalike_truth(folder)}
    clips = load_clips(name, tmp_path, task=None, **options)
    facts = DATASETS[f'smic_{variant}' if options else name]
    assert (len(clips), clips['subject'].nunique()) == (facts.clips, facts.subjects) and not report_table(
        clips.report
    )['kind'].isin(['dropped']).any()
    for r in clips.itertuples():
        t = truth[r.subject, r.clip]
        assert str(r.frames[r.onset]).startswith(str(folder / t['folder'])) and r.apex in r.frames
        if t['defect'] is None:
            assert (r.onset, r.offset, r.emotion) == (t['onset'], t['offset'], t['emotion']), (r.subject, r.clip)
        if t['defect'] is None and r.apex_policy == 'given': assert r.apex == t['apex'], (r.subject, r.clip)


def test_the_sheet_of_2019_is_read_and_said_not_to_be_the_benchmarks(tmp_path):
    make_lookalike('casme2', tmp_path, variant='2019', blank=True, progress=False)
    with pytest.warns(UserWarning, match='other-list'): clips = load_clips('casme2', tmp_path)
    assert (counts_of(clips)['casme2'] == ((88, 32, 28), 24) and len(load_clips('casme2', tmp_path, task='5class'))
            == 249)
    with pytest.raises(ValueError, match='other-list'): load_clips('casme2', tmp_path, strict=True)


def test_long_clips_are_cut_by_their_sheet_and_useless_without_a_row(tmp_path):
    "SMIC's long form: two folders have no row, and nothing says where in them the expression is."
    folder = make_lookalike('smic', tmp_path, variant='long', blank=True, progress=False)
    truth = {(t['subject'], t['clip']): t for t in lookalike_truth(folder)}
    with pytest.warns(UserWarning, match='2 dropped'): clips = load_clips('smic', tmp_path)
    assert {f['clip']: f['decision'] for f in clips.report['findings'] if f['kind'] == 'dropped'} == {
        's01/s01_ne_02': 'too-long', 's02/s02_sur_05': 'too-long',
    } and len(clips) == 162
    assert all((r.onset, r.offset) == tuple(truth[r.subject, r.clip][k] for k in ('onset', 'offset'))
               for r in clips.itertuples())


@pytest.mark.parametrize('camera', ['vis', 'nir'])
def test_a_slow_camera_of_smic_has_its_own_counts_and_its_own_name(tmp_path, camera):
    make_lookalike('smic', tmp_path, variant=camera, blank=True, progress=False)
    clips = load_clips('smic', tmp_path, modality=camera, strict=True)
    assert counts_of(clips) == {'smic': ((23, 28, 20), 8)} and stamp(clips).startswith(
        f'LOOK-ALIKE of SMIC-{camera.upper()}:'
    )
    if camera == 'vis':  # in the workbook of HS, whose own sheet has 162 rows; one label against its name, as in HS
        source, said = (clips.report['source'],
                        [f for f in clips.report['findings'] if f['decision'] == 'label-from-name'])
        assert (Path(source['annotation']).name, source['sheet'], source['rows']) == (
            'SMIC-HS-E_annotation.xlsx', 'VIS', 71,
        ) and [f['clip'] for f in said] == ['s18/s18_sur_03']


def test_a_third_expression_is_noted(tmp_path):
    make_lookalike('smic', tmp_path, variant='2019', blank=True, progress=False)
    clips = load_clips('smic', tmp_path, strict=True)
    found = [f['decision'] for f in clips.report['findings']]
    assert (found.count('third-expression') == 5 and found.count('second-expression') == 1
            and found.count('row-from-folder') == 7 and counts_of(clips) == {'smic': MEGC2019['smic']})
    row = next(f for f in clips.report['findings'] if f['decision'] == 'row-from-folder')
    assert row['found'].endswith('frames') and 'onset' in row['done'] and 'offset' in row['done']


def test_the_sheet_of_2018_is_another_list(tmp_path):
    "CASME II's third sheet: 247 rows, no sadness, no fear, and one clip that the others do not list."
    folder = make_lookalike('casme2', tmp_path, blank=True, progress=False)
    first, *_, last = list_frames(folder / 'CASME2_RAW_selected/sub24/EP02_07')[0]
    book = load_workbook(folder / 'CASME2-coding-20140508.xlsx')
    grid = book.active
    for r in range(grid.max_row, 1, -1):
        if grid.cell(r, 9).value in ('sadness', 'fear'): grid.delete_rows(r)
    grid.append(['24', 'EP02_07', None, first, first + 9, last, None, '4', 'disgust'])
    (folder / 'CASME2-coding-20140508.xlsx').unlink()
    book.save(folder / 'CASME2-coding-20181220.xlsx')
    with pytest.warns(UserWarning, match='other-list'): clips = load_clips('casme2', tmp_path, task='5class')
    assert counts_of(clips) == {'casme2': ((32, 25, 64, 27, 99), 26)}
    with pytest.warns(UserWarning, match='other-list'): assert len(load_clips('casme2', tmp_path, task=None)) == 247


def test_missing_folders_are_reported_clip_by_clip(tmp_path):
    make_lookalike('smic', tmp_path, blank=True, defects='missing', progress=False)
    with pytest.warns(UserWarning, match='5 dropped'): clips = load_clips('smic', tmp_path)
    gone = {f['clip'] for f in clips.report['findings'] if f['decision'] == 'no-folder'}
    assert (gone == {'s03/s03_ne_03', 's03/s03_ne_20', 's04/s04_ne_05', 's04/s04_ne_06', 's09/s09_sur_02'}
            and len(clips) == 159)
    with pytest.raises(ValueError, match='s03/s03_ne_03'): load_clips('smic', tmp_path, strict=True)


@pytest.mark.parametrize('name', LICENSED)
def test_xls_and_xlsx_give_the_same_table(tmp_path, name):
    tables = []
    for form, xls in (('new', False), ('old', True)):
        make_lookalike(name, tmp_path / form, subjects=4, blank=True, xls=xls, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            tables.append(load_clips(name, tmp_path / form, task=None).drop(columns='frames'))
    assert tables[0].equals(tables[1])


def test_changed_labels_in_a_complete_copy_are_an_error(tmp_path):
    sheet = make_lookalike('samm', tmp_path, blank=True, progress=False) / 'SAMM' / 'SAMM_Micro_FACS_Codes_v2.xlsx'
    book = load_workbook(sheet)
    grid = book['MICRO_ONLY']
    column = next(c.column for c in grid[14] if c.value == 'Estimated Emotion')
    anger = [r for r in range(15, grid.max_row + 1) if grid.cell(r, column).value == 'Anger']
    surprise = [r for r in range(15, grid.max_row + 1) if grid.cell(r, column).value == 'Surprise']
    grid.cell(anger[0], column).value, grid.cell(surprise[0], column).value = 'Surprise', 'Disgust'
    book.save(sheet)
    with pytest.raises(
        ValueError, match="every clip is there, yet its 5class counts .* annotation='SAMM_Micro_FACS_Codes_v2.xlsx'"
    ):
        load_clips('samm', tmp_path, task='5class')
    with pytest.warns(UserWarning, match='changed-labels'):
        load_clips('samm', tmp_path, task='5class', annotation='SAMM_Micro')


def test_a_look_alike_is_known_without_its_marker(tmp_path):
    (make_lookalike('samm', tmp_path, subjects=3, blank=True, progress=False) / 'LOOKALIKE.json').unlink()
    with pytest.warns(UserWarning, match='partial-copy'): clips = load_clips('samm', tmp_path)
    assert clips.report['kind'] == 'look-alike' and len(clips.report['source']['sha256']) == 64


def test_what_a_task_has_no_class_for_is_counted(full):
    report = load_clips('casme2', full).report
    assert {f['found'] for f in report['findings'] if f['decision'] == 'no-class'} == {'99 × others', '7 × sadness',
                                                                                       '2 × fear'}
    assert {f['clip'] for f in report['findings'] if f['decision'] == 'left-out'} == {
        'sub04/EP12_01f', 'sub05/EP09_05f',
    }


def test_motion_policy_beats_the_midpoint_on_drawn_faces(tmp_path):
    make_lookalike('smic', tmp_path, subjects=3, progress=False)
    truth = {(t['subject'], t['clip']): t for t in lookalike_truth(tmp_path / 'smic')}
    off = {}
    for policy in ('motion', 'midpoint'):
        clips = load_clips('smic', tmp_path, apex=policy)
        assert set(clips['apex_policy']) == {policy}
        off[policy] = np.median(
            [abs(r.apex - truth[r.subject, r.clip]['apex']) / (r.offset - r.onset) for r in clips.itertuples()]
        )
    assert off['motion'] < .1 < off['midpoint']


def test_another_camera_is_named(tmp_path):
    make_lookalike('smic', tmp_path, variant='vis', subjects=2, blank=True, progress=False)
    with pytest.raises(ValueError, match=r"no clips of camera HS .* of VIS \(modality='vis'\)"):
        load_clips('smic', tmp_path)
