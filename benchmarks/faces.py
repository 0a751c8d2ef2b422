"""Which finder finds the face: networks (blaze) or cascades (haar)? 25 views of one photograph, drawn faces, pictures
without a face.

    python benchmarks/faces.py            # writes the section "Finding a face" of benchmarks/RESULTS.md
    python benchmarks/faces.py --quick    # five views, prints only

The photograph is scikit-image's astronaut (NASA, public domain), computed with and never stored. Her eyes are where
dlib's 68 points put them. A face counts as found
if the corners of the 128 px crop lie within 13 px of where those eyes put them: a tenth of its side.
"""
import time

import cv2
import numpy as np
import pandas as pd
from quality import filmed, moved, photograph
from skimage import data
from turns import machine, parser, publish, verdict

from mpfnet.core.workers import one_thread
from mpfnet.data.action_units import CENTRE, EXTENT
from mpfnet.motion.face import Face, FaceNotFound, apply_affine, blaze_lacks, find_face, similarity
from mpfnet.motion.flow import flow
from mpfnet.synthetic.faces import draw_face, subject_traits

EYES, SIZE, NEAR = ((203.2, 101.5), (246.8, 104.0)), 128, 13
FINDERS = ('blaze', 'haar')
EMPTY = ('brick checkerboard chelsea clock coffee coins colorwheel grass gravel hubble_deep_field '
         'immunohistochemistry moon page retina rocket text').split()


# Views: each takes the photograph (H, W, 3 uint8) and gives an image, and the matrix (2, 3) from the photograph's
# pixels to its own

def turned(angle=0., scale=1.):
    "About the middle; what was outside is mirrored in."
    def view(image):
        h, w = image.shape[:2]
        m = cv2.getRotationMatrix2D(((w - 1)/2, (h - 1)/2), angle, scale)
        m[:, 2] += [(w*scale - w)/2, (h*scale - h)/2]
        fine = cv2.GaussianBlur(image, (0, 0), .4/scale) if scale < 1 else image
        return cv2.warpAffine(fine, m, (int(w*scale), int(h*scale)), borderMode=cv2.BORDER_REFLECT), m
    return view


def lit(change):
    "Other grey levels in the same place: what a function makes of the image as float."
    return lambda image: (np.clip(np.rint(change(image.astype(float))), 0, 255).astype(np.uint8), np.eye(2, 3))


def cut(left, top, right, bottom):
    return lambda image: (image[top:bottom, left:right].copy(), np.array([[1.0, 0, -left], [0, 1.0, -top]]))
def mirrored(image): return image[:, ::-1].copy(), np.array([[-1., 0, image.shape[1] - 1], [0, 1., 0]])
def grey(image): return np.repeat(image.mean(-1, keepdims=True), 3, -1)
def jpeg(image):
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 5])[1], cv2.IMREAD_COLOR), np.eye(2, 3)


def then(first, second):
    def view(image):
        image, a = first(image)
        image, b = second(image)
        return image, np.c_[b[:, :2]@a[:, :2], apply_affine(b, a[:, 2])]
    return view


noise = np.random.default_rng(0).normal(0, 25, (512, 512, 3))
one_side = np.linspace(.05, 1.3, 512)[None, :, None]

VIEWS = {
    'as filmed': turned(),
    'a third as large': turned(scale=0.35),
    'half as large': turned(scale=0.5),
    'twice as large': turned(scale=2),
    'turned by −45°': turned(-45),
    'turned by −30°': turned(-30),
    'turned by −15°': turned(-15),
    'turned by 15°': turned(15),
    'turned by 30°': turned(30),
    'turned by 45°': turned(45),
    'mirrored': mirrored,
    'upside down': turned(180),
    'dark, 0.3': lit(lambda i: 0.3 * i),
    'very dark, 0.1': lit(lambda i: 0.1 * i),
    'overexposed, 2': lit(lambda i: 2 * i),
    'little contrast, 0.2': lit(lambda i: 100 + 0.2 * (i - 100)),
    'lit from one side': lit(lambda i: i * one_side),
    'noise of 25 grey levels': lit(lambda i: i + noise),
    'grey': lit(grey),
    'blurred, σ = 2 px': lambda i: (cv2.GaussianBlur(i, (0, 0), 2), np.eye(2, 3)),
    'blurred, σ = 5 px': lambda i: (cv2.GaussianBlur(i, (0, 0), 5), np.eye(2, 3)),
    'JPEG of quality 5': jpeg,
    'an ear and a cheek outside': cut(195, 0, 512, 400),
    'the chin outside': cut(0, 0, 512, 150),
    'half as large, dark, grey, turned by 20°': then(turned(20, 0.5), lit(lambda i: 0.3 * grey(i))),
}


def drawn(subject, side=240, left=200, top=120):
    "A drawn face in front of blurred noise, and where its eyes are."
    rng, (tall, wide) = np.random.default_rng(subject), subject_traits(0, subject)['shape']
    image = cv2.GaussianBlur(rng.normal(110, 12, (480, 640, 3)), (0, 0), 1.5)
    image[top : top + side, left : left + side] = 255 * cv2.resize(draw_face(0, subject), (side, side),
                                                                   interpolation=cv2.INTER_AREA)
    eyes = [
        (
            left + (x * 0.42 * wide / EXTENT + 0.5) * side - 0.5,
            top + (-(0.5 * tall + CENTRE[0]) / EXTENT + 0.5) * side - 0.5,
        )
        for x in (-1, 1)
    ]
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8), np.array(eyes)


SQUARE = np.array([(-.5, -.5), (SIZE - .5, -.5), (SIZE - .5, SIZE - .5), (-.5, SIZE - .5)])


def miss(image, eyes, finder):
    "How far the crop's corners lie off, px of the crop (inf: no face found), and the CPU seconds that it took."
    true = similarity(Face(box=(0, 0, 1, 1), eyes=tuple(map(tuple, eyes))), SIZE)
    start = time.process_time()
    try: found = similarity(find_face(image, finder), SIZE)
    except FaceNotFound: return np.inf, time.process_time() - start
    seconds = time.process_time() - start
    return np.hypot(
        *(apply_affine(cv2.invertAffineTransform(true), apply_affine(found, SQUARE)) - SQUARE).T
    ).max(), seconds


def scenes(names):
    "(name, image, eyes) of the views and of twenty drawn faces."
    for name in names:
        image, m = VIEWS[name](data.astronaut())
        eyes = apply_affine(m, EYES)
        # a mirror makes a right eye a left one
        yield name, image, eyes if np.linalg.det(m[:, :2]) > 0 else eyes[::-1]
    for subject in range(1, 21) if len(names) == len(VIEWS) else (1, 2): yield subject, *drawn(subject)


def measure(names, finders):
    "One row for a scene and a finder."
    return pd.DataFrame(
        [
            dict(scene=name, finder=f, off=off, seconds=s) for name, image, eyes in scenes(names) for f in finders
            for off, s in [miss(image, eyes, f)]
        ]
    )


def false_alarms(finders, pictures):
    "{finder: names of pictures without a face in which it finds one}."
    def found(image, finder):
        try: return find_face(image, finder) is not None
        except FaceNotFound: return False
    images = {name: np.asarray(getattr(data, name)(), np.uint8) for name in pictures}
    images = {n: np.ascontiguousarray(i[..., :3]) if i.ndim == 3 else np.repeat(i[..., None], 3, -1)
              for n, i in images.items()}
    return {f: [n for n, i in images.items() if found(i, f)] for f in finders}


# What a movement looks like to the mesh

PLACES = dict(mouth=(61, 291), lip=(0,), brow=(55, 285, 105), nose=(48,), chin=(152,))   # points of the mesh


def followed(places, seeds):
    """Of a movement of 1 px of a 128 px crop, what is seen in its direction at the place itself: by the mesh, by the
    default flow."""
    n, rows = SIZE, []
    as_bytes = lambda frame: np.rint(frame.numpy().transpose(1, 2, 0)*255).astype(np.uint8)
    points = lambda frame: find_face(as_bytes(frame), 'blaze').landmarks
    photo, (y, x) = photograph(), np.mgrid[:n, :n]
    still = moved(photo, np.zeros((2, n, n), np.float32))
    at = points(still)
    four = (0, -1), (0, 1), (1, 0), (-1, 0)
    for place, k, (dx, dy), seed in (
        (p, k, d, s) for p in places for k in PLACES[p] for d in four for s in range(seeds)
    ):
        push = np.exp(-((x - at[k][0])**2 + (y - at[k][1])**2)/2/8**2)
        a, b = filmed(still, k, seed, 0), filmed(moved(photo, np.float32([dx*push, dy*push])), k, seed, 1)
        col, row = np.rint(at[k]).astype(int)
        seen = flow(a, b)[:, row, col].numpy()
        rows.append(dict(place=place, mesh=(points(b) - points(a))[k]@(dx, dy), flow=float(seen@(dx, dy))))
    return pd.DataFrame(rows)


# The section

def shown(off): return '–' if not np.isfinite(off) else f'{off:.1f}' + (' **wrong**' if off > NEAR else '')


def table(head, rows): return ['', *(f'| {" | ".join(r)} |' for r in (head, ['---']*len(head), *rows))]


# corner errors of the views and their seconds, by view; of the drawn faces last
def in_words(off, seconds, alarms, finder):
    "The cells of a finder in the first table."
    views, drawn = (off[[isinstance(name, str) is kind for name in off.index]] for kind in (True, False))
    found, ms = int((views <= NEAR).sum()), 1e3*seconds[views.index]
    judged = lambda text, *v: f'{text}, {verdict(*v)}' if finder == 'blaze' else text
    return {f'views found, of {len(views)}': judged(str(found), len(views) - 1, found),
            'taken for a face elsewhere': str(int((np.isfinite(views) & (views > NEAR)).sum())),
            'median corner error where found, px': f'{views[views <= NEAR].median():.1f}',
            'ms a view, median (largest)': judged(f'{ms.median():.0f} ({ms.max():.0f})', 50, ms.median(), False),
            f'drawn faces found, of {len(drawn)}': str(int((drawn <= NEAR).sum())),
            'pictures without a face in which one is found': str(len(alarms))
            + (f' ({", ".join(alarms)})' if alarms else '')}


def lines_of(found, alarms, motion, finders):
    wide = found.pivot(index='scene', columns='finder').reindex(found['scene'].drop_duplicates())
    cells = {f: in_words(wide['off'][f], wide['seconds'][f], alarms[f], f) for f in finders}
    views = [name for name in wide.index if isinstance(name, str)]
    asked = {f'views found, of {len(views)}': f'≥ {len(views) - 1} (blaze)',
             'ms a view, median (largest)': '≤ 50 (blaze)'}
    out = [
        f'CPU time of one thread; {machine()}, OpenCV {cv2.__version__}. {NEAR} px of a {SIZE} px crop count as found.'
    ]
    out += table(['', 'asked', *finders],
                 [[what, asked.get(what, ''), *(cells[f][what] for f in finders)] for what in cells[finders[0]]])
    out += ['', 'Corners off, px (– = no face found).']
    out += table(['view', *finders], [[name, *(shown(wide['off'][f][name]) for f in finders)] for name in views])
    if not len(motion): return out
    means = motion.groupby('place', sort=False)[['mesh', 'flow']].mean()
    out += [
        '',
        f'**Framing only.** A place of the photograph ({SIZE} px) moves by 1 px (a Gaussian push, σ = 8 px; four '
        f'directions, noise of one grey level). '
        f'What is seen there, px: mesh {motion["mesh"].mean():.2f}, flow {motion["flow"].mean():.2f}.',
    ]
    return out + table(['place', 'mesh', 'flow'], [[p, f'{r.mesh:.2f}', f'{r.flow:.2f}'] for p, r in means.iterrows()])


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    finders = [f for f in FINDERS if f != 'blaze' or not blaze_lacks()]
    if 'blaze' not in finders: print(f'without blaze: {blaze_lacks()}')
    names = list(VIEWS)[:10:2] if args.quick else list(VIEWS)
    with one_thread():
        for f in finders: find_face(data.astronaut(), f)                     # loading a network does not count
        found, alarms = measure(names, finders), false_alarms(finders, EMPTY[:2] if args.quick else EMPTY)
        motion = followed(['mouth'] if args.quick else PLACES, 1 if args.quick else 2) if 'blaze' in finders else ()
    publish(args, 'faces', 'Finding a face', lines_of(found, alarms, motion, finders))


if __name__ == '__main__': main()
