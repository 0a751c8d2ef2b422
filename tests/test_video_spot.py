"Short movements in drawn videos, and what must not be taken for one."
import numpy as np
import pandas as pd
import pytest
from videos import micro, plans

from mpfnet.motion.face import find_faces
from mpfnet.synthetic.films import Act, Film, Person, draw_film, even_times, speech
from mpfnet.video.read import Frame
from mpfnet.video.spot import FACE_PLACES, LAG, SpotConfig, signal_of, spot
from mpfnet.video.track import Tracker

EMPTY = pd.DataFrame(columns=signal_of([]).columns)


def frames_of(film): return (Frame(i, t, f) for i, (t, f) in enumerate(zip(film.times, draw_film(film))))


def signal(motions, seconds=4., rate=50, head=0.):
    "A made-up signal: {place: position (T,) → px downwards}."
    t = np.arange(0, seconds, 1/rate)
    noise = np.random.default_rng(0)
    frame = dict(frame=np.arange(len(t)), time=t, face=0, x=0, y=0, w=9, h=9, sure=True, lag=LAG, head=head)
    rows = pd.DataFrame(frame)
    for place in FACE_PLACES:
        for axis in 'xy': rows[f'{place}_{axis}'] = noise.normal(0, .01, len(t))
        if place in motions: rows[f'{place}_y'] += motions[place](t) - motions[place](t - LAG)
    return rows


def pulse(start, rise=.12, hold=0., fall=.12, px=1.):
    def position(t): return px*np.clip((t - start)/rise, 0, 1)*np.clip((start + rise + hold + fall - t)/fall, 0, 1)
    return position


def test_nothing_gives_nothing():
    "A threshold that stands on the noise can say so; one that stands on the maximum cannot."
    assert not len(spot(signal({}))) and not len(spot(EMPTY))


def test_a_pulse_is_an_event_with_its_times():
    event, = spot(signal({'brow_left': pulse(1.)})).itertuples()
    assert event.kind == 'micro' and event.place == 'brow_left'
    assert np.allclose((event.onset, event.apex, event.offset), (1., 1.12, 1.24), atol=.035)


def test_what_does_not_come_back_is_none(): assert not len(spot(signal({'nose': lambda t: np.clip(5*(t - 1), 0, 1)})))


def test_longer_ones_are_macro_expressions():
    event, = spot(signal({'mouth_left': pulse(1., .3, .6, .3, px=3)})).itertuples()
    assert event.kind == 'macro' and abs(event.offset - 2.2) < .1


def test_both_lids_are_a_blink_and_one_is_not():
    both = spot(signal({'lid_left': pulse(1., px=4), 'lid_right': pulse(1., px=4)}))
    assert both.kind.tolist() == ['blink']
    assert spot(signal({'lid_left': pulse(1., px=4)})).kind.tolist() == ['micro']


def test_places_that_move_together_are_one_event():
    events = spot(signal({'brow_left': pulse(1.), 'brow_right': pulse(1.02), 'mouth_left': pulse(2.5)}))
    assert events.places.tolist() == ['brow_left brow_right', 'mouth_left']


def test_with_head_motion_it_is_uncertain():
    assert spot(signal({'brow_left': pulse(1., px=3)}, head=1.)).kind.tolist() == ['uncertain']


def test_speech_does_not_flood():
    def talk(t): return np.where((t > 1) & (t < 3), 1.5*np.sin(2*np.pi*4*(t - 1)), 0)
    events = spot(signal({'mouth_left': talk, 'lower_lip': talk, 'chin': talk}, seconds=6.))
    assert events.kind.tolist() == ['speech'] and events.onset[0] < 1.3 and events.offset[0] > 2.7


def words(*starts, px=1.5):
    "A mouth that goes to and fro twice at each of these times."
    def position(t): return sum(np.where((t > a) & (t < a + .5), px*np.sin(2*np.pi*4*(t - a)), 0) for a in starts)
    return position


def test_words_that_move_other_places_are_one_speech():
    "The corner of the mouth rests for a second, but the lip does not; a smile a second later is none of it."
    corner, smile = words(1., 2.4, 3.), pulse(4.6)
    rows = signal({'mouth_left': lambda t: corner(t) + smile(t), 'lower_lip': words(1.6, 2.)}, seconds=6.)
    events = spot(rows)
    assert events.kind.tolist() == ['speech', 'micro'] and abs(events.apex[1] - 4.72) < .03
    assert events.onset[0] < 1.2 and events.offset[0] > 3.3
    apart = spot(rows, SpotConfig(talk=.1))                         # turns that are not put together flood
    assert (apart.kind == 'micro').sum() > 1


def test_no_event_over_a_gap():
    rows = signal({'brow_left': pulse(1., .1, .3, .1)})
    assert len(spot(rows)) and not len(spot(rows[(rows.time < 1.15) | (rows.time > 1.35)]))


def test_a_higher_sensitivity_finds_fewer():
    rows = signal({'brow_left': pulse(1., px=.25), 'nose': pulse(2., px=3.)})
    assert [len(spot(rows, SpotConfig(sensitivity=k))) for k in (5, 90)] == [2, 1]
    with pytest.raises(ValueError, match='sensitivity'): SpotConfig(sensitivity=float('nan'))


def test_a_drawn_face_that_blinks_frowns_and_talks():
    "From pixels: the frown is found, the blink is told apart, speech is one stretch."
    acts = (Act(kind='micro', start=.6, units=(4,), peak=2.), Act(kind='blink', start=1.4, units=(43,), peak=7),
            *speech(2.2, 1.2, np.random.default_rng(3)))
    who = Person(subject=1, acts=acts, size=130)
    film = Film(people=(who,), times=even_times(4, 40), width=200, height=160, seed=1)
    events = spot(signal_of(frames_of(film)))
    assert events.kind.tolist()[:3] == ['micro', 'blink', 'speech'] and abs(events.apex[0] - acts[0].apex) < .04
    assert not (events.kind[2:] == 'micro').any()


def test_people_are_numbered_from_left_to_right_and_keep_their_number():
    people = Person(subject=2, x=.74, size=130), Person(subject=1, x=.26, size=130)
    film = Film(people=people, times=even_times(1.2, 10), width=320, height=160, seed=1)
    tracker = Tracker()
    seen = [[(s.face, s.matrix[0, 2] < 130) for s in tracker.squares(f)] for f in frames_of(film)]
    assert all(s == [(0, True), (1, False)] for s in seen)


def test_nobody_is_nobody():
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    assert find_faces(noise) == [] and not len(signal_of([Frame(0, 0., noise), Frame(1, .1, noise)]))


def test_the_plan_of_the_videos_has_all_kinds():
    names = [name for name, *_ in plans(np.random.default_rng(0))]
    assert len(names) == 32 and {n.partition('_')[0] for n in names} >= {'nothing', 'blinks', 'uneven', 'turned', 'two'}
    assert micro(np.random.default_rng(0), 1., 25).rise >= .1       # frames enough to be seen
