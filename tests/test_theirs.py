"""Tables of other programs: however clips, columns and classes are written, they are understood rightly or refused in
words."""
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet.cli import main
from mpfnet.data.labels import MEGC2019, class_names
from mpfnet.metrics import KEY
from mpfnet.results.compare import compare, side_of_tables
from mpfnet.results.published import (
    published_clips,
    published_differences,
    published_predictions,
    published_scores,
    published_side,
    shipped_keys,
    sides_of,
)
from mpfnet.results.theirs import Known, known_clips, meant_by, read_theirs, theirs_of

THREE = class_names('3class')
SMIC = 'ne', 'po', 'sur'


def clips():
    "A composite whose names are written as in the MEGC list; people of CASME II share names of clips."
    rows = [('casme2', f'sub{s:02d}', f'EP{c:02d}_{n:02d}{f}', (s + c) % 3)
            for s in (1, 2, 12) for c, n, f in ((1, 1, 'f'), (2, 1, ''), (2, 1, 'f'))]
    rows += [('samm', f'{s:03d}', f'{s:03d}_{t}_{n}', (s + n) % 3)
             for s in (6, 16) for t, n in ((1, 2), (1, 12), (3, 2))]
    rows += [('smic', f's{s:02d}', f's{s:02d}_{SMIC[y]}_{n:02d}', y) for s in (1, 11) for y in range(3) for n in (1, 2)]
    return pd.DataFrame(rows, columns=[*KEY, 'label'])


TABLE = clips()
KNOWN = known_clips(TABLE, THREE)
LONG = dict(casme2='CASME II', samm='SAMM', smic='SMIC-HS')


def bare(text): return re.sub(r"(?<!\d)0+(?=\d)", "", text)


#: ways to write a clip that leave no doubt: {role: text}
FORMS = dict(
    ours=lambda d, s, c: dict(dataset=d, subject=s, clip=c),
    path=lambda d, s, c: dict(clip=f'{d}/{s}/{c}'),
    windows=lambda d, s, c: dict(clip=rf'D:\data\{LONG[d]}\{s}\{c}.avi'),
    joined=lambda d, s, c: dict(clip=f'{s}_{c}'),
    upper=lambda d, s, c: dict(clip=f'{s}_{c}.MP4'.upper()),
    no_zeros=lambda d, s, c: dict(dataset=LONG[d], subject=bare(s), clip=bare(c)),
    number=lambda d, s, c: dict(subject=f'{int("".join(filter(str.isdigit, s)))}.0', clip=c, dataset=d.upper()),
    derived=lambda d, s, c: dict(clip=f'flow/{LONG[d]}/{s}/{c}_flow.npy'),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(FORMS)), min_size=len(TABLE), max_size=len(TABLE)))
def test_every_spelling_means_its_clip(forms):
    for form, key in zip(forms, KNOWN.keys):
        row = FORMS[form](*key)
        assert meant_by(row, KNOWN) == [key], row


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KNOWN.keys), st.integers(0, 99), st.sampled_from(['path', 'joined', 'ours', 'no_zeros']))
def test_another_person_is_never_taken_for_one_of_the_list(key, person, form):
    "The clip's name alone is not believed where a subject stands beside it."
    d, s, c = key
    if person == int(''.join(filter(str.isdigit, s))) or d != 'casme2': return
    other = (d, f'sub{person:02d}', c)
    assert meant_by(FORMS[form](*other), KNOWN) == ([other] if other in KNOWN.keys else [])


def written(labels, predictions, form='path', names=('video', 'gt', 'y_pred'), **more):
    rows = [FORMS[form](*k) for k in KNOWN.keys]
    return pd.DataFrame(rows).rename(columns=dict(clip=names[0])).assign(
        **{names[1]: [str(v) for v in labels], names[2]: [str(v) for v in predictions]}, **more)


@settings(max_examples=60, deadline=None)
@given(st.permutations([0, 1, 2]), st.sampled_from([0, 1, 5]), st.integers(0, 2**32 - 1), st.booleans())
def test_classes_in_any_order_give_the_same_comparison(order, first, seed, as_float):
    "Told by labels that both know: theirs are numbered from 0, 1 or 5, in any order."
    r = np.random.default_rng(seed)
    y = TABLE['label'].to_numpy()
    p = np.where(r.random(len(y)) < .6, y, r.integers(0, 3, len(y)))
    theirs = np.array([order.index(k) + first for k in range(3)])
    text = '{}.0' if as_float else '{}'
    table = written(*([text.format(theirs[k]) for k in v] for v in (y, p))).sample(frac=1, random_state=1)
    got = theirs_of(table, KNOWN)
    t = got.side.tables[0].set_index(KEY).loc[KNOWN.keys]
    assert t['label'].tolist() == y.tolist() and t['prediction'].tolist() == p.tolist()
    plainly = order == [0, 1, 2] and not first
    assert plainly != any('their classes' in n for n in got.notes)


@pytest.mark.parametrize('words', [('negative', 'positive', 'surprise'), ('Neg', 'POS', 'Sur'),
                                   ('disgust', 'happiness', 'surprise')])
def test_words_need_no_labels_to_be_understood(words):
    y = [words[k] for k in TABLE['label']]
    known = Known(keys=KNOWN.keys, classes=THREE)
    t = theirs_of(written(y, y), known).side.tables[0]
    assert t['label'].tolist() == t['prediction'].tolist() == TABLE['label'].tolist()


def test_how_often_a_class_occurs_in_a_whole_dataset_tells_its_number():
    "Without the reader's data: 88, 32 and 25 clips of CASME II are negative, positive and surprise."
    keys = [k for k in published_clips().keys if k[0] == 'casme2']
    labels = np.repeat(['2', '0', '1'], MEGC2019['casme2'][0])
    table = pd.DataFrame(dict(clip=['/'.join(k) for k in keys], label=labels, prediction=labels))
    got = theirs_of(table, published_clips(), common=True)
    assert np.bincount(got.side.tables[0]['label']).tolist() == [88, 32, 25]
    fewer = table.iloc[1:]
    with pytest.raises(ValueError, match='cannot tell which class 0, 1, 2 stand for'):
        theirs_of(fewer, published_clips(), common=True)


Y = TABLE['label'].to_numpy()
#: what may be wrong with a table → what is said
WRONG = {
    'a clip twice': (lambda t: pd.concat([t, t.iloc[:1].assign(video='CASME2/SUB1/EP1_1F')]),
                     '1 clips occur twice: casme2/'),
    'a clip missing': (lambda t: t.iloc[3:],
                       r'3 of the 27 clips of the run are missing: casme2/sub01/EP01_01f, .* --common'),
    'a clip of nobody': (lambda t: pd.concat([t, t.iloc[:1].assign(video='sub77_EP01_01f')]), '1 clips are not among'),
    'no clip in common': (lambda t: t.assign(video=[f'clip {i}' for i in range(len(t))]),
                          'no clip in common: they begin'),
    'names without subjects': (lambda t: t.assign(video=[v.split('/')[-1] for v in t['video']]),
                               r'9 rows may mean several clips: EP01_01f \(casme2/sub01 or casme2/sub02 or'),
    'other labels': (lambda t: t.assign(gt=[str(v) for v in [*Y[:-1], (Y[-1] + 1) % 3]]),
                     'other labels for 1 of 27 clips'),
    'an empty cell': (lambda t: t.assign(y_pred=['', *t['y_pred'][1:]]), 'an empty cell'),
    'a fourth class': (lambda t: t.assign(y_pred=['3', *t['y_pred'][1:]]), 'cannot tell which class 0, 1, 2, 3'),
    'a word of no class': (lambda t: t.assign(gt='others', y_pred='negative'), "found .'others'"),
    'two columns of labels': (lambda t: t.assign(target=t['gt']), "'gt' and 'target' may both be the label"),
    'no predictions': (lambda t: t.drop(columns='y_pred'), 'one of predictions'),
    'no names': (lambda t: t.drop(columns='video'), 'one that names the clip'),
    'a lost score': (lambda t: t.assign(score_0='.1', score_1='.2', score_2=['', *['.7']*26]),
                     '1 rows in which one is missing'),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_what_cannot_be_told_apart_is_refused(wrong, tmp_path):
    spoil, says = WRONG[wrong]
    spoil(written(Y, Y)).to_csv(tmp_path / 'theirs.csv', index=False)
    with pytest.raises(ValueError, match=says) as e: read_theirs(tmp_path / 'theirs.csv', KNOWN)
    assert str(e.value).startswith(str(tmp_path / 'theirs.csv')) and '\n' not in str(e.value)


def test_scores_and_seeds_of_theirs(tmp_path):
    "Scores in the order of their classes, by word; two seeds, semicolons, decimal commas, a mark of Excel."
    table = pd.concat([written([THREE[k] for k in Y], [THREE[k] for k in Y], seed=s) for s in (3, 4)])
    for k, w in enumerate(THREE): table[f'Prob_{w}'] = ['0,8' if THREE.index(g) == k else '0,1' for g in table['gt']]
    table.to_csv(tmp_path / 't.csv', index=False, sep=';', encoding='utf-8-sig')
    got = read_theirs(tmp_path / 't.csv', KNOWN)
    assert got.side.seeds == [3, 4] and [len(t) for t in got.side.tables] == [27, 27]
    t = got.side.tables[1]
    assert (t[[f'score_{k}' for k in range(3)]].to_numpy().argmax(1) == t['label']).all()
    assert compare(got.side, side_of_tables(got.side.tables[0]), n=100).rows['difference'].eq(0).all()


def test_the_common_part_is_compared_when_asked_for_and_rows_of_nobody_do_not_matter():
    "Not even when their classes are none of the task."
    table = pd.concat([written([THREE[k] for k in Y], [THREE[k] for k in Y]).iloc[2:],
                       pd.DataFrame(dict(video=['sub05_EP99'], gt=['others'], y_pred=['others']))])
    got = theirs_of(table, KNOWN, common=True)
    assert len(got.keys) == 25 and got.notes[0].startswith('ONLY the 25 clips that both have: 2 of the 27 clips')


# --- published methods

@pytest.fixture
def labels():
    "Made-up labels of the published clips; the real ones do not travel."
    return {k: i % 3 for i, k in enumerate(published_clips().keys)}


def test_a_published_method_in_another_hand_is_the_same_method(labels, tmp_path):
    "Its predictions, written in another order of classes and with other names, against itself."
    side = published_side('bi_woof', labels)
    t, other = side.tables[0], np.array([1, 2, 0])
    table = pd.DataFrame(dict(Sub=t['subject'], Video=t['dataset'] + '/' + t['subject'] + '/' + t['clip'],
                              Target=other[t['label']], Pred=other[t['prediction']]))
    with pytest.raises(ValueError, match='cannot tell which class 0, 1, 2'):
        theirs_of(table.astype(str), published_clips())
    got = theirs_of(table.astype(str), published_clips(labels))
    assert compare(got.side, side, n=100).rows['verdict'].eq('same').all()
    assert 'their classes: 0 is surprise, 1 is negative, 2 is positive' in got.notes


def test_clips_of_smic_are_found_by_the_digest_of_their_names():
    names = pd.DataFrame(dict(dataset='smic', subject='s03', clip=['s03_ne_14', 's03_sur_06']))
    keys = [*shipped_keys(names)[KEY].itertuples(index=False, name=None)]
    known = published_clips()
    assert set(keys) <= set(known.keys)
    for text in ('s3_ne_14', 'SMIC/HS/s03/micro/negative/s03_ne_14.avi', r'smic\s3\s3_negative_14',
                 'S03_NE_14_flow.png'):
        assert meant_by(dict(clip=text), known) == keys[:1], text
    assert meant_by(dict(clip='ne_14', subject='s03'), known) == keys[:1]
    assert meant_by(dict(clip='s03_po_99'), known) == []


def test_the_command_compares_a_table_with_a_published_method(labels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPFNET_DATA', str(tmp_path))
    t = published_side('pca_lda', labels).tables[0]
    wrong = (t['prediction'] + (np.arange(len(t)) % 4 == 0)) % 3
    table = pd.DataFrame(dict(key=t['dataset'] + '/' + t['subject'] + '/' + t['clip'],
                              true=[THREE[k] for k in t['label']], pred=[THREE[k] for k in wrong]))
    table.to_csv('theirs.csv', index=False)
    assert main(['compare', 'pca_lda', 'theirs.csv', '--n', '200']) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ['A  pca_lda, published, leave one subject out, seeds 0, 1, 2', 'B  theirs.csv, seed 0']
    assert '  labels are those of the table itself: nothing else here knows them' in out
    assert out[-1].startswith('Mean of seeds: B')
    table.iloc[9:].to_csv('theirs.csv', index=False)
    assert main(['compare', 'pca_lda', 'theirs.csv', '--n', '200']) == 1
    assert '9 of the 442 clips of the published list are missing' in capsys.readouterr().err
    assert main(['compare', 'pca_lda', 'theirs.csv', '--n', '200', '--common']) == 0
    assert 'ONLY the 433 clips' in capsys.readouterr().out
    for args, says in ((['theirs.csv', 'theirs.csv'], 'two tables'), (['pca_lda', 'majority'], 'labels do not travel'),
                       (['theirs.csv', 'pca_lda', '--columns', 'label=x'], 'a column of the table'),
                       (['theirs.csv', 'nobody'], "no run 'nobody'")):
        assert main(['compare', *args]) == 1
        assert says in capsys.readouterr().err, args


def test_a_run_of_other_data_is_not_compared_with_a_published_method(tmp_path, monkeypatch):
    from test_cli import write_run
    folder = write_run(tmp_path / 'runs' / 'x', 3, dataset='samm')
    with pytest.raises(ValueError, match='megc2019_flow 3class, which the published'): sides_of(str(folder), 'pca_lda')
    folder = write_run(tmp_path / 'runs' / 'y', 3, split='kfold:5')
    with pytest.raises(ValueError, match='split of published methods'): sides_of(str(folder), 'pca_lda')


def test_a_difference_that_ships_is_the_one_between_the_scores_that_ship():
    for split in ('subject', 'dataset'):
        d = published_differences('pca_lda', split)
        assert (d['difference'] - (d['b'] - d['a'])).abs().max() < 2e-5 and not set(d['method_b']) & {'pca_lda'}
        uf1 = published_scores(split).set_index('method')['uf1']
        assert (d['b'] - uf1[d['method_b']].to_numpy()).abs().max() < 1e-5
        assert {len(t) for t in published_predictions('pca_lda', split).values()} == {442}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(['', '0', '1', '2.0', 'nan', 'pos', 'sub01_EP01_01f', '006_1_2', '٣', '"']),
                         min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from(',;\t|'))
def test_whatever_stands_in_a_table_the_answer_is_a_side_or_a_sentence(tmp_path_factory, rows, sep):
    path = tmp_path_factory.mktemp('any') / 't.csv'
    path.write_text('\n'.join(sep.join(r) for r in [['clip', 'label', 'pred'], *rows]), encoding='utf-8')
    try: assert read_theirs(path, KNOWN, common=True).keys <= set(KNOWN.keys)
    except ValueError as e: assert str(e).startswith(str(path))
