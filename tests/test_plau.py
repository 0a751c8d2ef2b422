"""The prior of action units: no real clip decides it, one file serves every fold, what cannot be drawn is refused."""
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mpfnet.core.artefacts import Artefacts, sha256_of
from mpfnet.folds import Fold
from mpfnet.loso import run
from mpfnet.methods import METHODS, override, settings_preset
from mpfnet.preprocess import PreprocessConfig
from mpfnet.results.words import as_words, words_in
from mpfnet.rivals.descriptors import FlowStrain
from mpfnet.rivals.plau import AUZero, PLAUConfig, drawn_faces, encoder_of, flow_normalised, plau_prior, train_plau
from mpfnet.synthetic.unit_flow import UNITS, UnitFlowConfig, draw_clips, draw_units

TINY = PLAUConfig(updates=2, batch=8)
FEW = dict(clips=4, people=2)
CHEAP_PLAU = 'plau.updates=2,plau.batch=8'


def context(artefacts=None, **drawn):
    read = dict(strain=FlowStrain(size=32), preprocess=PreprocessConfig(size=16, length=3))
    return SimpleNamespace(artefacts=Artefacts(artefacts),
                           settings=SimpleNamespace(plau=TINY, unit_flow=UnitFlowConfig(**FEW | drawn), **read))


def fold_of(seed=0, held='s0', **more):
    x = np.random.default_rng(0).uniform(size=(8, 3, 1, 28, 28)).astype(np.float16)
    clips = pd.DataFrame(dict(dataset='demo', subject=[f's{i//2}' for i in range(8)], clip=[f'c{i}' for i in range(8)],
                              label=[0, 1, 2, 0]*2, input='flow28') | more)
    return Fold(clips, x, [('demo', held)], n_classes=3, seed=seed)


def test_one_artefact_serves_every_fold(tmp_path):
    states = {sha256_of(encoder_of(fold_of(held=s), context(tmp_path)).state_dict()) for s in ('s0', 's1', 's2')}
    found = list((tmp_path/'plau').glob('*.safetensors'))
    assert len(states) == 1 and len(found) == 1
    when = found[0].stat().st_mtime_ns
    encoder_of(fold_of(label=[2, 2, 1, 1]*2), context(tmp_path))                   # labels decide nothing
    assert [p.stat().st_mtime_ns for p in found] == [when]
    encoder_of(fold_of(seed=1), context(tmp_path))
    encoder_of(fold_of(), context(tmp_path, noise=.2))
    encoder_of(fold_of(input='frames'), context(tmp_path))
    assert len(list((tmp_path/'plau').glob('*.safetensors'))) == 4


def test_a_torn_artefact_is_made_again(tmp_path):
    first = encoder_of(fold_of(), context(tmp_path)).state_dict()
    path, = (tmp_path/'plau').glob('*.safetensors')
    path.write_bytes(path.read_bytes()[:-100])
    assert sha256_of(encoder_of(fold_of(), context(tmp_path)).state_dict()) == sha256_of(first)


def test_what_nobody_asked_decides_nothing():
    "Neither torch's nor NumPy's own generators."
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    a = train_plau(TINY, UnitFlowConfig(), 3)[0].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert sha256_of(a) == sha256_of(train_plau(TINY, UnitFlowConfig(), 3)[0].state_dict())


def test_more_than_three_classes_are_refused_before_anything_is_trained():
    fold = fold_of()
    fold.n_classes = 5
    with pytest.raises(ValueError, match='au_zero, classes: expected 3: negative, positive, surprise'):
        AUZero(fold, context())
    row = METHODS['au_zero']
    with pytest.raises(ValueError, match='task=3class'): row.probe(row, None, (3, 1, 28, 28), 5)
    assert not row.learns and 'no real label' in row.note


@pytest.mark.parametrize('wrong, says', [
    (dict(negative=0., positive=0., surprise=0.), 'this generator draws nothing'),
    (dict(negative=-.1), 'unit_flow.negative: expected 0 or more'),
    (dict(one_sided=2.), 'unit_flow.one_sided: expected a share'),
    (dict(noise=float('nan')), 'unit_flow.noise: expected a finite number'),
    (dict(clips=0), 'unit_flow.clips: expected 2 or more'),
    (dict(people=0), 'unit_flow.people: expected 1…clips'),
    (dict(clips=8, people=9), 'unit_flow.people: expected 1…clips .8.'),
    (dict(stray=1.5), 'unit_flow.stray: expected a share'),
    (dict(crop=-.1), 'unit_flow.crop: expected 0 or more'),
])
def test_a_generator_that_cannot_draw(wrong, says):
    with pytest.raises(ValueError, match=says): UnitFlowConfig(**wrong)


def test_overrides_reach_the_generator():
    s = override(settings_preset('tiny'), 'unit_flow.noise=0.2,plau.updates=7,ridge.steps=1')
    assert (s.unit_flow.noise, s.plau.updates, s.ridge.steps) == (.2, 7, 1)
    with pytest.raises(ValueError, match='draws nothing'):
        override(s, 'unit_flow.negative=0,unit_flow.positive=0,unit_flow.surprise=0')


def test_units_that_nobody_has_are_drawn_of_nobody():
    "With one class alone, units of the others appear as distractors only, and then not at all."
    _, amplitude, _ = draw_units(300, UnitFlowConfig(negative=0, surprise=0, distractor=0), np.random.default_rng(0))
    assert {u for u, on in zip(UNITS, amplitude.any(0)) if on} == {6, 12, 25}


def test_clips_are_what_the_release_has():
    "256 steps, each channel from end to end, whatever is drawn; a field of nothing stays finite."
    clips = draw_clips(40, UnitFlowConfig(noise=0, white=0, head=0, texture=0, eyes=0), np.random.default_rng(0))
    steps = clips.x*255
    assert torch.equal(steps, steps.round()) and clips.x.min() == 0 and clips.x.max() == 1
    x = flow_normalised(clips.x)
    assert x.isfinite().all() and flow_normalised(torch.zeros(1, 3, 28, 28)).isfinite().all()


def test_no_label_is_used_and_every_output_says_so(flow_root, tmp_path):
    "Two folds of the look-alike; the note stands in config.json and in the words that tell runs apart."
    folder = run(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), method='au_zero',
                 device='cpu', subjects='samm/sa00,samm/sa01', overrides=CHEAP_PLAU, progress=False)
    config = json.loads((folder/'config.json').read_text())
    assert config['note'] == 'no real label is used' and 'no real label is used' in as_words(words_in(folder))
    assert json.loads((folder/'metrics.json').read_text())['note'] == 'no real label is used'
    folds = [json.loads(p.read_text()) for p in (folder/'folds').glob('*.json')]
    assert len({f['weights_sha256'] for f in folds}) == 1                       # the same model in every fold
    assert len(list((tmp_path/'cache'/'priors'/'plau').glob('*.safetensors'))) == 1


def test_the_prior_and_its_control_name_each_other():
    assert 'random_ridge' in METHODS['au_ridge'].note and 'au_ridge' in METHODS['random_ridge'].note


def test_the_prior_is_trained_from_the_given_seed(tmp_path):
    a, b = (plau_prior(TINY, UnitFlowConfig(), s, True, Artefacts()) for s in (0, 1))
    assert sha256_of(a.state_dict()) != sha256_of(b.state_dict())


def test_drawn_faces_are_an_artefact_of_generator_seed_and_recipe(tmp_path):
    "One for all folds and for every training of the prior; of the recipe how a face is found does not count."
    kept = Artefacts(tmp_path)
    def files(): return len(list((tmp_path/'unit_faces').glob('*.safetensors')))
    def drawn(recipe, seed=0, cfg=TINY, **more):
        return drawn_faces(cfg, UnitFlowConfig(**FEW | more), seed, recipe, kept)
    small = FlowStrain(size=16)
    first = drawn(small)
    assert len(first) == 4 and files() == 1 and first.x.isfinite().all()
    for s in ('s0', 's1'): encoder_of(fold_of(held=s, input='frames'), context(tmp_path))
    assert files() == 2                                                          # the context's recipe has another size
    drawn(FlowStrain(size=16, face='haar', no_face='centre'))
    drawn(small, cfg=PLAUConfig(updates=9, batch=8))
    assert files() == 2
    for other in (dict(seed=1), dict(stray=.9)): drawn(small, **other)
    drawn(PreprocessConfig(size=16, length=3))
    assert files() == 5


def test_both_kinds_of_rows_of_one_drawn_clip_say_the_same_motion():
    "Flow and strain of onset and apex; and the sum of the steps of MPFNet's recipe."
    three = UnitFlowConfig(clips=3, people=3)
    def seen(recipe): return flow_normalised(drawn_faces(TINY, three, 0, recipe, Artefacts()).x)
    a, b = seen(FlowStrain(size=64)), seen(PreprocessConfig(size=64, length=4))
    together = [torch.corrcoef(torch.stack([p[:2].flatten(), q[:2].flatten()]))[0, 1] for p, q in zip(a, b)]
    assert np.mean(together) > .5


def test_nobody_of_a_synthetic_dataset_is_among_the_drawn_people():
    from mpfnet.synthetic.lookalike import HABITS, PARTICIPANTS
    from mpfnet.synthetic.unit_faces import NOBODY
    assert 1000*(1 + len(HABITS)) + max(map(len, PARTICIPANTS.values())) < NOBODY
