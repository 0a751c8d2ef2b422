"""Questions and answers from the sheets: every licensed dataset, on look-alikes; what is not known is not asked, and
is said; no line holds a path of this machine."""
import json
import os
import warnings
from pathlib import Path

import pytest

from mpfnet.cli import main
from mpfnet.clips import LICENSED, load_clips
from mpfnet.data.labels import THREE
from mpfnet.data.units import UNIT_WORDS
from mpfnet.synthetic.lookalike import lookalike_truth, make_lookalike
from mpfnet.tools.vqa import ASKED, ONE_UNIT_ASKED, dataset_questions, lines_text, write_questions

pytestmark = pytest.mark.filterwarnings('ignore')
SMALL = 'smic', 'samm', 'casme_sq', 'casme3', '4dme', 'casme'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Data root with two subjects of some datasets, grey pictures; do not change it."
    home = tmp_path_factory.mktemp('vqa')
    for name in SMALL: make_lookalike(name, home, subjects=2, blank=True, progress=False)
    make_lookalike('dfme', home, subjects=6, blank=True, progress=False)
    return home


@pytest.mark.parametrize('name', [*SMALL, 'dfme'])
def test_every_clip_is_asked_about_in_the_words_of_its_sheet(root, name):
    lines, said = dataset_questions(name, root)
    table = load_clips(name, root, task=None).table.set_index(['subject', 'clip'])
    assert len({l['id'] for l in lines}) == len(lines) and {(l['subject'], l['clip']) for l in lines} == {*table.index}
    truth = {(t['subject'], t['clip']): t for t in lookalike_truth(root/name)}
    for l in lines:
        row = table.loc[(l['subject'], l['clip'])]
        assert l['question'] in (*ASKED.values(), ONE_UNIT_ASKED) and l['answer'] and l['data'] == 'look-alike'
        folder = l['frames']['folder']
        assert folder == truth[l['subject'], l['clip']]['folder'] and not os.path.isabs(folder)
        assert l['frames']['first'] <= row['onset'] and row['offset'] <= l['frames']['last']
        if l['about'] in ('onset', 'offset', 'apex'): assert l['answer'] == str(row[l['about']])
        if l['about'] == 'coarse' and '+' not in row['emotion']:
            assert l['answer'] == THREE.get(row['emotion'], 'others')
        if l['about'] == 'units' and l['answer'] != 'none':
            assert all(w in UNIT_WORDS.values() for w in l['answer'].split(', '))
    per = {about: {(l['subject'], l['clip']) for l in lines if l['about'] == about} for about in ASKED}
    left = {a: sum(int(s.split(' of ')[1].split()[0]) for s in said if f': {a} of' in s) for a in ASKED}
    assert all(len(per[a]) + left[a] == len(table) for a in ASKED), (left, said)
    assert str(root) not in lines_text(lines)


def test_what_a_sheet_does_not_say_is_left_out_and_said(root):
    lines, said = dataset_questions('smic', root)
    assert {l['about'] for l in lines} == {'coarse', 'kind', 'onset', 'offset'}
    assert any('units' in s and 'emotions only' in s for s in said) and any('no apex' in s for s in said)
    assert any('fine' in s and 'coarse classes only' in s for s in said)
    lines, said = dataset_questions('samm', root)
    assert any('units of' in s and 'cannot be read' in s for s in said) == any(
        t['defect'] == 'ambiguous units' for t in lookalike_truth(root/'samm'))
    assert {l['about'] for l in lines} == {*ASKED}


def test_the_official_split_is_on_each_line_where_there_is_one(root):
    lines, _ = dataset_questions('dfme', root)
    whose = {}
    for l in lines: whose.setdefault(l['subject'], set()).add((l['part'], l['split']))
    assert all(len(s) == 1 for s in whose.values())
    assert {s for x in whose.values() for s in x} == {('train', 'train'), ('test A', 'test'), ('test B', 'test')}
    for name in ('samm', 'casme'): # sections of CASME are no split
        assert not any('split' in l for l in dataset_questions(name, root)[0])


def test_joined_datasets_keep_their_own_folders(root):
    lines, said = dataset_questions('samm+smic', root)
    for l in lines: assert (root/l['dataset']/l['frames']['folder']).is_dir()
    assert {l['dataset'] for l in lines} == {'samm', 'smic'} and any(s.startswith('smic: units') for s in said)
    assert len(lines) == sum(len(dataset_questions(d, root)[0]) for d in ('samm', 'smic'))


@pytest.mark.parametrize('asked, words', [
    ('megc2019_flow', 'expected one of smic'), ('synth', 'expected one of smic'), ('clips.csv', 'expected one of smic'),
    ('../samm', 'expected one of smic'), ('', 'expected one of smic'), ('samm+samm', 'twice'),
    ('mmew', 'looked for the folder'),
    ('samm+synth', 'synth')])
def test_a_wrong_request_is_refused_in_words(root, asked, words):
    with pytest.raises(ValueError, match=words): dataset_questions(asked, root)


def test_a_line_is_a_line_whatever_a_name_holds(tmp_path):
    odd = [dict(clip=c) for c in ('a"b', 'a\nb', 'a\u2028b', 'é\\', '\x00', '</script>', '\ud800')]
    file = write_questions(odd, tmp_path/'odd.jsonl')
    assert [json.loads(l) for l in file.read_bytes().decode('ascii').splitlines()] == odd
    with pytest.raises(ValueError, match='a file, not a folder'): write_questions(odd, tmp_path)
    with pytest.raises(OSError): write_questions(odd, file/'below')
    assert file.read_bytes().count(b'\n') == len(odd)


def test_the_command_writes_lines_and_says_the_rest_elsewhere(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('MPFNET_DATA', str(root))
    out = tmp_path/'a b.jsonl'
    assert main(['data', 'vqa', 'smic', '-o', str(out)]) == 0
    told = capsys.readouterr()
    assert told.out == f'{out}\n' and 'smic: units of' in told.err and 'look-alike' in told.err
    monkeypatch.chdir(tmp_path)
    assert main(['data', 'vqa', 'smic', '-o', '-']) == 0 and not Path('-').exists()
    lines = capsys.readouterr().out.splitlines()
    assert main(['data', 'vqa', 'smic']) == 0 and capsys.readouterr().out.splitlines() == lines
    assert out.read_text().splitlines() == lines and all(json.loads(l)['dataset'] == 'smic' for l in lines)
    before = out.read_bytes()
    assert main(['data', 'vqa', 'nosuch', '-o', str(out)]) == 1 and 'expected one of smic' in capsys.readouterr().err
    assert main(['data', 'vqa', 'smic', '-o', str(root)]) == 1 and str(root) in capsys.readouterr().err
    assert main(['data', 'vqa', 'smic', '--modality', 'xyz']) == 1 and 'hs' in capsys.readouterr().err
    assert main(['data', 'vqa', 'samm', '--annotation', 'v9']) == 1 and 'v9' in capsys.readouterr().err
    assert main(['data', 'vqa']) == 2 and out.read_bytes() == before


def test_frames_outside_the_folder_have_no_place(root, tmp_path):
    from mpfnet.tools.vqa import question_lines
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        clips = load_clips('samm', root, task=None)
    lines, without = question_lines(clips, tmp_path)
    assert all(l['frames'] is None for l in lines)
    assert without['samm', 'place', 'its frames do not lie in the folder of the dataset'] == len(clips)


def test_all_licensed_datasets_have_an_opinion_about_units():
    from mpfnet.tools.vqa import has_fine
    assert [d for d in LICENSED if not has_fine(d)] == ['smic', 'casme_sq', 'casme3_c', '4dme']
    assert Path(__file__).exists()
