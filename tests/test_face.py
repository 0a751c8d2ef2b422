"""Finding and aligning faces: rates and invariances that take too long for the page, threads, and what happens without the optional parts."""
import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpfnet import face as module
from mpfnet.face import Face, FaceNotFound, align_clip, apply_affine, find_face, head_motion, motion_size, sample, similarity
from mpfnet.faces import CENTRE, EXTENT, draw_face, subject_traits

SQUARE = np.array([(-.5, -.5), (127.5, -.5), (127.5, 127.5), (-.5, 127.5)])


@pytest.fixture(scope='module')
def photo():
    return pytest.importorskip('skimage.data').astronaut()


def scene(subject, side=240, left=200, top=120):
    "A drawn face in front of blurred noise, and its true eyes."
    rng, (tall, wide) = np.random.default_rng(subject), subject_traits(0, subject)['shape']
    image = cv2.GaussianBlur(rng.normal(110, 12, (480, 640, 3)), (0, 0), 1.5)
    image[top:top + side, left:left + side] = 255 * cv2.resize(draw_face(0, subject), (side, side), interpolation=cv2.INTER_AREA)
    eyes = [(left + (x * .42 * wide / EXTENT + .5) * side - .5, top + (-(.5 * tall + CENTRE[0]) / EXTENT + .5) * side - .5) for x in (-1, 1)]
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8), np.array(eyes)


def turned(image, angle, scale):
    h, w = image.shape[:2]
    m = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, scale)
    m[:, 2] += [(w * scale - w) / 2, (h * scale - h) / 2]
    small = cv2.GaussianBlur(image, (0, 0), .4 / scale) if scale < 1 else image
    return cv2.warpAffine(small, m, (int(w * scale), int(h * scale)), borderMode=cv2.BORDER_REFLECT), m


def crop_corners(image, m):
    "Corners of the crop of a moved photograph, in pixels of the photograph."
    found = find_face(image)
    assert found.eyes, 'the eyes were not found'
    return apply_affine(cv2.invertAffineTransform(m), apply_affine(similarity(found, 128), SQUARE))


def test_the_crop_follows_rotation_and_scale(photo):
    "Corners of the 128 px crop move by less than 3 px for any tilt to 20° and scale from 0.5 to 1.5."
    to_crop = cv2.invertAffineTransform(similarity(find_face(photo), 128))
    miss = {(a, s): np.hypot(*(apply_affine(to_crop, crop_corners(*turned(photo, a, s))) - SQUARE).T).max()
            for a in (-20, -15, -10, -5, 0, 5, 10, 15, 20) for s in (.5, .75, 1, 1.5)}
    assert max(miss.values()) < 3 and np.median(list(miss.values())) < 1, miss


def test_drawn_faces_are_found():
    "At least 15 of 20 subjects, and whenever a face is found it is the drawn one."
    off = []
    for subject in range(1, 21):
        image, eyes = scene(subject)
        try: off.append(np.abs(np.array(find_face(image, lbp=False).eyes) - eyes).max())
        except FaceNotFound: pass
    assert len(off) >= 15 and max(off) < 8, off


def test_haar_falls_back_on_lbp_and_says_so(photo, monkeypatch):
    monkeypatch.setattr(module, '_haar_face', lambda grey: None)
    frames, info = align_clip([photo], 64)
    assert info['method'] == 'lbp' and not info['fallback']
    with pytest.raises(FaceNotFound, match='casme2/sub01/a'): find_face(photo, name='casme2/sub01/a', lbp=False)


def test_a_box_without_eyes_is_used_upright(photo, monkeypatch):
    monkeypatch.setattr(module, '_eyes', lambda grey, start, rounds=3: None)
    found = find_face(photo)
    assert found.eyes is None
    m = similarity(found, 128)
    assert m[0, 1] == m[1, 0] == 0 and np.abs(apply_affine(m, (63.5, 38)) - (225, 100)).max() < 12


@pytest.mark.parametrize('method, needs', [('lbp', 'skimage'), ('dlib', 'dlib')])
def test_a_missing_package_is_named(method, needs):
    code = f"import sys; sys.modules[{needs!r}] = None\nimport numpy as np; from mpfnet.face import find_face\nfind_face(np.zeros((64, 64, 3), np.uint8), {method!r})"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode and 'ImportError' in done.stderr and 'pip install' in done.stderr


def test_dlib_agrees_with_haar(photo):
    if not all(map(importlib.util.find_spec, ('dlib', 'face_recognition_models'))): pytest.skip("needs pip install 'mpfnet[dlib]'")
    found = find_face(photo, 'dlib')
    assert found.landmarks.shape == (68, 2) and np.abs(np.array(found.eyes) - find_face(photo).eyes).max() < 4


def test_threads_have_their_own_cascades(photo):
    with ThreadPoolExecutor(3) as pool: found = list(pool.map(lambda _: find_face(photo).eyes, range(6)))
    assert len(set(found)) == 1


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
    with pytest.raises(ValueError, match=r'p\.csv, (line 2|clip a)'): find_face(np.zeros((100, 100, 3), np.uint8), 'landmarks', 'a', file=tmp_path / 'p.csv')


@given(scale=st.floats(.5, 4), angle=st.floats(-30, 30), x=st.floats(-20, 60), y=st.floats(-20, 60))
def test_sampling_a_ramp_gives_the_ramp(scale, angle, x, y):
    "Bilinear sampling and averaging displace nothing: a plane comes out as the plane it was, at every position inside the image."
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
        kx, ky, ph = rng.normal(0, .12 * 128 / size * .5, 200), rng.normal(0, .12 * 128 / size * .5, 200), rng.uniform(0, 6.3, 200)
        waves = (np.exp(1j * np.outer(np.arange(n) - dy, ky)) * np.exp(1j * ph)) @ np.exp(1j * np.outer(kx, np.arange(n) - dx))
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
    (a, one), (b, two) = align_clip([image, image], 64), align_clip([image, image], 64)
    assert a.tobytes() == b.tobytes() and np.array_equal(a[0], a[1]) and not one['registered'].any()
