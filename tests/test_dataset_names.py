"""Every dataset that can be read is known wherever datasets are listed: cards, command, benchmark, paper, guides, look-
alikes; one that is missing in any of these places is found."""
import json
import re
from pathlib import Path

import pytest

from mpfnet.benchmark import asked_for, options_for, refused
from mpfnet.cli import TITLES, parser
from mpfnet.clips import COMPOSITE, HELP, LICENSED, NAMES, READY_FLOW, check_options, reader_options
from mpfnet.data.datasets import CARDS, PUBLIC
from mpfnet.data.labels import DATASETS
from mpfnet.data.own import TAKEN
from mpfnet.methods import kinds_of, settings_preset
from mpfnet.paper.plan import NO_PLACE, input_kind, paper_places
from mpfnet.parameters import CHOICES
from mpfnet.synthetic.lookalike import HABITS, PARTICIPANTS, SUBJECTS, TREES, WRITTEN_COLUMNS

ROOT = Path(__file__).parents[1]


def text_of(path):
    "Of a guide, or of the Markdown of a page."
    text = (ROOT/path).read_text(encoding='utf-8')
    if not path.endswith('.ipynb'): return text
    return '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown')


def in_backticks(path): return set(re.findall(r'`([\w+]+)`', text_of(path)))


def words_of_help(command):
    "What `mpfnet data NAME --help` or `mpfnet NAME --help` says, in words."
    p = parser()
    for word in command.split():
        p = next(a for a in p._actions if getattr(a, 'choices', None) and word in a.choices).choices[word]
    return set(re.findall(r'\w+', p.format_help()))


FACES = set(LICENSED)                       # given out by their owners
FLOW = set(READY_FLOW)
REAL = FACES | FLOW | set(COMPOSITE)
#: place → (names that have to be there, those that are)
PLACES = {
    'cards': (FACES | FLOW, lambda: {*CARDS, *PUBLIC}),
    'facts': (FACES, lambda: {*DATASETS}),
    'titles of `mpfnet data where`': (set(NAMES) - FACES, lambda: {*TITLES}),
    'how to get it': (FACES | FLOW, lambda: {*HELP}),
    'names that own data may not have': (set(NAMES), lambda: TAKEN),
    'choices of a run': (set(NAMES), lambda: {*CHOICES['dataset']}),
    'help of `mpfnet data check`': (set(NAMES), lambda: words_of_help('data check')),
    'help of `mpfnet fit`': (set(NAMES), lambda: words_of_help('fit')),
    'help of `mpfnet data lookalike`': (REAL - {'megc2019_flow'}, lambda: words_of_help('data lookalike')),
    'look-alikes': (FACES, lambda: {*TREES} & {*HABITS} & {*PARTICIPANTS} & {*SUBJECTS} & {*WRITTEN_COLUMNS}),
    'paper, or why not': (set(NAMES), lambda: {*NO_PLACE} | {d for d in NAMES if paper_places(d)}),
    'README.md': (set(NAMES), lambda: in_backticks('README.md')),
    'nbs/index.ipynb': (set(NAMES), lambda: in_backticks('nbs/index.ipynb')),
    'docs/experiments.md': (set(NAMES), lambda: in_backticks('docs/experiments.md')),
    'docs/data.md': (REAL, lambda: set(re.findall(r'\w+', text_of('docs/data.md')))),
}


@pytest.mark.parametrize('place', PLACES)
def test_no_dataset_is_missing(place):
    wanted, there = PLACES[place]
    assert not wanted - there(), f'{place}: not there: {sorted(wanted - there())}'
    assert 'casme9' not in there()          # a name that is nowhere would be found


def test_a_place_in_the_paper_or_a_reason():
    assert not [d for d in NAMES if bool(paper_places(d)) == (d in NO_PLACE)] and not set(NO_PLACE) - set(NAMES)


@pytest.mark.parametrize('dataset', NAMES)
def test_the_benchmark_takes_it_with_the_options_of_its_reader(dataset):
    "pca_lda reads whatever there is; an option of the reader is passed on, not dropped in silence."
    text = ','.join(f'{k}={dict(variant="raw", modality="hs", cut="rise", order="given").get(k, "kept")}'
                    for k in reader_options(dataset))
    assert not refused(asked_for('pca_lda', dataset, data_options=text))
    assert options_for(reader_options(dataset), dataset) == reader_options(dataset)
    if dataset not in COMPOSITE: check_options(dataset, '3class', 'given', reader_options(dataset))


@pytest.mark.parametrize('dataset', NAMES)
def test_what_its_clips_are_is_what_a_network_reads(dataset):
    assert input_kind(dataset) in kinds_of('mpfnet_p', settings_preset('tiny'))
