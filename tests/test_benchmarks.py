"""The benchmarks run, measure what they say, and leave the rest of RESULTS.md alone."""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from warm import warm

from mpfnet.motion.flow import warp

FOLDER = Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip('quality')


def rows(text, title):
    "The table below a heading in bold: row → numbers."
    table = text.split(f'**{title}')[1].split('\n|---')[1].split('\n\n')[0].split('\n')[1:]
    return {c[0]: [float(re.match(r'[\d.]+', v)[0]) for v in c[1:]]
            for c in ([v.strip() for v in line.strip('|').split('|')] for line in table)}


def test_quality_runs_and_keeps_what_others_wrote(tmp_path):
    out = tmp_path / 'RESULTS.md'
    out.write_text(
        '# Benchmarks\n\n<!-- quality: written by hand -->\nstale\n<!-- end of quality -->\n\nafter\n', encoding='utf-8'
    )
    done = warm(FOLDER / 'quality.py', '--quick', '--out', out)
    assert done.returncode == 0, done.stderr[-2000:]
    text = out.read_text(encoding='utf-8')
    assert (
        text.startswith('# Benchmarks\n\n<!-- quality: ')
        and text.endswith('<!-- end of quality -->\n\nafter\n')
        and 'stale' not in text
        and text.count('## Quality') == 1
    )
    flows, frames, copies = (rows(text, t) for t in ('Optical flow', 'Interpolation', 'Magnification'))
    zero = np.array(flows['nothing moves'])
    assert np.allclose(zero / [.2, .5, 1, 2], .58, atol=.06), 'the moving region is another one'
    assert (np.array(flows['ilk']) < .35 * zero).all() and (np.array(flows['dis']) < .35 * zero).all()
    assert np.abs(np.subtract(flows['ilk'], flows['scikit-image ilk'])).max() <= .005
    assert (min(np.subtract(frames['flow'], frames['blend'])) > 0.5
            and min(np.subtract(frames['flow'], frames['flow, bicubic lookups'])) > 0.3)
    assert min(np.subtract(copies['lagrangian'], copies['phase'])) > 1


def test_the_moved_photograph_moves_as_it_says(quality):
    photo, d = quality.photograph(), quality.pushes(2, 0)
    assert abs(np.sqrt((d**2).sum(0)).max() - 2) < 1e-5
    still, there = quality.moved(photo, 0*d), quality.moved(photo, d)
    inside = (slice(None), slice(8, -8), slice(8, -8))
    away, back = ((there - still)[inside].abs().mean(),
                  (warp(there, torch.tensor(d), 'spline') - still)[inside].abs().mean())
    assert back < .1 * away, 'looking the moved picture up along the motion gives the still one'
    assert abs(quality.error(torch.zeros(2, 128, 128), d) / 2 - .58) < .06 and quality.error(torch.tensor(d), d) == 0


def test_a_target_can_be_missed(quality):
    import pandas as pd

    def found(values, **more):
        return pd.DataFrame(
            [
                dict(row=r, column=c, seed=s, value=v, **more) for r, vs in values.items() for c, v in zip('abcd', vs)
                for s in (0, 1)
            ]
        )

    flows = found(
        {
            'dis': (0.03, 0.065, 0.105, 0.165), 'ilk': (0.03, 0.06, 0.1, 0.24),
            'scikit-image ilk': (0.03, 0.06, 0.1, 0.24),
        },
        seconds=1,
    )
    magnified = found({'lagrangian': (35, 31, 26)}).assign(factor=lambda t: t.column.map(dict(a=5, b=8, c=11)))
    verdicts = quality.verdicts(flows, pd.DataFrame({'ilk': [9.0, 12.0, 13.0]}),
                                found({'flow': (48, 46), 'flow, bicubic lookups': (47.5, 45.9)}), magnified)
    assert {(name, row): ok for name, row, *_, ok in verdicts} == {
        ('flow', 'dis'): True,
        ('flow', 'ilk'): False,
        ('ilk against scikit-image', 'difference'): True,
        ('interpolation', 'flow'): True,
        ('interpolation', 'flow, bicubic lookups'): False,
        ('magnification', 'lagrangian'): True,
        ('factor', 'lagrangian'): False,
        ('speed', 'ilk'): True,
    }


@pytest.mark.parametrize(
    'name, words',
    [
        ('train_step', 'all triplets of the batch'), ('traffic', 'of the matrix rate'),
        ('peak', 'maps before the second block'), ('memory', 'magnified copies'), ('scaling', 'in the last doubling'),
        ('preprocess', 'the same bytes'), ('fold', 'PLTN 1 epochs'), ('faces', 'views found, of 5'),
        ('peers', '| reading six data sets |'),
    ],
)
def test_each_runs(tmp_path, name, words):
    "They compare outputs before they time anything, so a run is a test of those."
    out = tmp_path / 'RESULTS.md'
    done = warm(FOLDER / f'{name}.py', '--quick', '--out', out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert words in out.read_text(encoding='utf-8') and f'python benchmarks/{name}.py --quick' in out.read_text(
        encoding='utf-8'
    )


def test_a_face_found_elsewhere_is_not_found(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import faces
    import pandas as pd
    off = dict(blaze=[1., 13., 13.1, np.inf, 2.], haar=[1., 1., 1., 40., 14.])
    found = pd.DataFrame(
        [
            dict(scene=scene, finder=f, off=o, seconds=0.01) for f, values in off.items()
            for scene, o in zip(['a', 'b', 'c', 'd', 1], values)
        ]
    )
    text = '\n'.join(faces.lines_of(found, dict(blaze=['coins'], haar=[]), (), ['blaze', 'haar']))
    for line in ('| views found, of 4 | ≥ 3 (blaze) | 2, **missed** | 3 |', '| taken for a face elsewhere |  | 1 | 1 |',
                 '| drawn faces found, of 1 |  | 1 | 0 |', 'in which one is found |  | 1 (coins) | 0 |',
                 '| c | 13.1 **wrong** | 1.0 |', '| d | – | 40.0 **wrong** |'):
        assert line in text, line


@pytest.fixture
def passes(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import loso_passes
    return loso_passes


def test_priors_are_trained_once(passes):
    "Counted in a small LOSO, not taken from the formula; the formula agrees."
    shared, naive, *said = passes.measured()
    # pltn and plsm are asked for by three of the five methods each
    assert np.allclose([shared, naive], said) and naive == 3 * shared
    forked, _, formula, _ = passes.measured(trunk=.5)
    assert np.isclose(forked, formula) and forked < shared


def test_the_whole_paper_stays_cheap(passes):
    paper = passes.settings_preset('paper')
    assert passes.total(paper) <= passes.ASKED * passes.total(paper, shared=False)


@pytest.mark.parametrize('wrong', [lambda gx, gz: (gx, 0 * gz), lambda gx, gz: (gx, -gz), lambda gx, gz: (0 * gx, gz)],
                         ids=['no gate', 'gate negated', 'nothing below'])
def test_a_wrong_gradient_is_noticed(monkeypatch, wrong):
    monkeypatch.syspath_prepend(str(FOLDER))
    import train_step

    from mpfnet.ca_i3d import AxisGate
    backward = AxisGate.backward
    monkeypatch.setattr(AxisGate, 'backward', staticmethod(lambda ctx, g: wrong(*backward(ctx, g))))
    with pytest.raises(AssertionError, match='two different gradients'):
        train_step.one_function('tiny', 16, 6, 'cpu', updates=1)
