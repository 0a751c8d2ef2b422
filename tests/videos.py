"""Thirty-two drawn videos of which it is known what happens in them: 25 to 200 frames a second, uneven times, rotated,
two faces, blinks, head motion, long expressions, speech, dark, small, compressed, and some in which nothing happens.

    python tests/videos.py FOLDER --seed 0

Other seeds are other faces, expressions and moments. `FOLDER/truth.json` holds what happens; `hard` events are those
that happen while the head moves or somebody talks, or are smaller than a pixel of a 128 px face.
"""
import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from mpfnet.motion.face import find_faces
from mpfnet.synthetic.faces import EMOTIONS
from mpfnet.synthetic.films import Act, Film, Person, draw_film, even_times, film_truth, speech, write_film

SECONDS = 7
SHOWN = [(e, u) for e, units in EMOTIONS.items() if e in ('happiness', 'surprise', 'disgust', 'sadness') for u in units]


def micro(rng, start, fps, peak=None, emotion=None):
    "A short expression, of at least five frames."
    shown = [u for e, u in SHOWN if e == emotion] if emotion else [u for _, u in SHOWN]
    rise, fall = (max(rng.uniform(.07, .16), 2.5/fps) for _ in range(2))
    a = rng.beta(6, 6)
    return Act(kind='micro', start=start + rng.uniform(-.2, .2), rise=rise, hold=rng.uniform(0, .04), fall=fall,
               units=shown[rng.integers(len(shown))], sides=(2*a, 2 - 2*a), peak=peak or rng.uniform(1., 2.2))


def blink(rng, start):
    return Act(kind='blink', start=start + rng.uniform(-.2, .2), rise=rng.uniform(.06, .1), hold=rng.uniform(.02, .06),
               fall=rng.uniform(.1, .18), units=(43,), peak=rng.uniform(5, 9))


def macro(rng, start):
    return Act(kind='macro', start=start, rise=rng.uniform(.3, .5), hold=rng.uniform(.3, .9), fall=rng.uniform(.3, .5),
               units=(12,) if rng.random() < .5 else (1, 2), peak=rng.uniform(3, 5))


def turn(rng, start):
    move = rng.choice([-1, 1], 4)*rng.uniform((4, 2, .02, 1), (9, 5, .06, 3))
    return Act(kind='head', start=start, rise=rng.uniform(.3, .6), fall=rng.uniform(.3, .6), move=tuple(move.tolist()))


def plans(rng):
    "(name, suffix, frames a second, acts, things to change) of each video."
    def both(fps): return micro(rng, 1.3, fps), blink(rng, 2.8), micro(rng, 4.2, fps), micro(rng, 5.8, fps)
    for fps, suffix in ((30, 'mp4'), (60, 'mkv'), (100, 'avi'), (200, 'mp4')):
        yield f'nothing_{fps}', suffix, fps, (), {}
    for fps in (25, 60, 100): yield f'blinks_{fps}', 'mp4', fps, tuple(blink(rng, t) for t in (1, 2.5, 4, 5.5)), {}
    for fps, suffix in ((25, 'avi'), (30, 'mp4'), (50, 'mkv'), (90, 'mov'), (100, 'mp4'), (120, 'avi'), (200, 'mp4')):
        yield f'micro_{fps}', suffix, fps, both(fps), {}
    for fps, suffix in ((30, 'mov'), (60, 'mp4')): yield f'uneven_{fps}', suffix, fps, both(fps), dict(jitter=.4)
    for angle in (90, 270): yield f'turned_{angle}', 'mp4', 60, both(60), dict(rotate=angle)
    for fps in (60, 100):
        yield f'two_{fps}', 'mp4', fps, both(fps), dict(second=(micro(rng, 2.2, fps), blink(rng, 4.8)))
    for fps in (30, 100):
        acts = micro(rng, 1., fps), turn(rng, 2.), turn(rng, 3.6), micro(rng, 4., fps), micro(rng, 5.8, fps)
        yield f'head_{fps}', 'mp4', fps, acts, {}
    for fps in (60, 100):
        yield f'macro_{fps}', 'mp4', fps, (micro(rng, 1, fps), macro(rng, 2.2), micro(rng, 5.6, fps)), {}
    for fps in (60, 100):
        talk = speech(2., 3., rng, peak=3)
        acts = micro(rng, 1, fps), *talk, micro(rng, 3.5, fps, emotion='surprise'), micro(rng, 6., fps)
        yield f'talking_{fps}', 'mp4', fps, acts, {}
    yield 'dark', 'mp4', 60, both(60), dict(light=.3, noise=2.5)
    yield 'small', 'mp4', 60, both(60), dict(size=80)
    yield 'compressed', 'avi', 60, both(60), dict(jpeg=40)
    yield 'vp8', 'webm', 60, both(60), {}
    yield 'faint', 'mp4', 100, tuple(micro(rng, t, 100, peak=.7) for t in (1.3, 3., 5.)), {}
    yield 'uneven_webm', 'webm', 60, both(60), dict(jitter=.4)


def people_of(rng, seed, acts, second, size):
    "The first subjects whom the finder takes for faces."
    def cast(subjects):
        if second is None: return (Person(subject=subjects[0], acts=acts, size=size),)
        return (Person(subject=subjects[0], acts=acts, size=size, x=.27),
                Person(subject=subjects[1], acts=second, size=size - 20, x=.74))
    while True:
        people = cast(rng.integers(1, 400, 2).tolist())
        first = next(draw_film(Film(people=people, times=(0.,), seed=seed, width=480, height=360)))
        if len(find_faces(np.ascontiguousarray(first[..., ::-1]))) == len(people): return people


def is_hard(event, acts):
    "Small, or while the head moves or somebody talks."
    others = [a for a in acts if a.kind in ('speech', 'head') and a.start < event.end + .1 and a.end > event.start - .1]
    return event.kind == 'micro' and (event.peak < 1 or bool(others))


def draw_one(folder, number, seed, name, suffix, fps, acts, *, jitter=0., second=None, size=150, rotate=0, jpeg=None,
             **filmed):
    "Write a video; what is known of it."
    rng = np.random.default_rng([seed, number])
    people, times = people_of(rng, seed, acts, second, size), even_times(SECONDS, fps, jitter, seed)
    film = Film(people=people, times=times, seed=seed, width=480, height=360, **filmed)
    path, frames = folder/f'{number:02d} {name}.{suffix}', film
    if rotate:                                     # stored lying: a player turns it upright
        back = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 270: cv2.ROTATE_90_CLOCKWISE}[rotate]
        frames = (cv2.rotate(f, back) for f in draw_film(film))
    if jpeg:
        flags = [cv2.IMWRITE_JPEG_QUALITY, jpeg]
        frames = (cv2.imdecode(cv2.imencode('.jpg', f, flags)[1], cv2.IMREAD_COLOR) for f in draw_film(film))
    write_film(path, frames, fps=fps, rotate=rotate)
    hard = {round(a.start, 6): is_hard(a, p.acts) for p in film.people for a in p.acts}
    truth = [t | dict(hard=hard[round(t['onset'], 6)]) for t in film_truth(film)]
    return dict(file=path.name, name=name, fps=fps, seconds=film.times[-1], faces=len(film.people), truth=truth)


def make_videos(folder, seed=0, only=None):
    "Write the videos that are not there yet; the list of what is known of them."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    todo = list(enumerate(plans(np.random.default_rng([seed, 99]))))
    known = [draw_one(folder, n, seed, *plan[:4], **plan[4]) for n, plan in todo if only is None or plan[0] in only]
    (folder/'truth.json').write_text(json.dumps(known, indent=1, default=float), encoding='utf-8')
    return known


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('folder')
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    print(len(make_videos(args.folder, args.seed)), 'videos in', args.folder)
