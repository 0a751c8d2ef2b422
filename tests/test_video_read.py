"Videos that are odd, damaged or none at all: a sentence, and nothing else."
import base64
import json
import struct

import cv2
import numpy as np
import pytest
from conftest import ROOT

from mpfnet.synthetic.films import Film, Person, even_times, set_rotation, write_film
from mpfnet.video.read import VideoError, open_video, spottable, video_facts, video_notes

PERSON = Person(subject=1, size=120)


def film(fps=25, seconds=1., jitter=0.):
    return Film(people=(PERSON,), times=even_times(seconds, fps, jitter), width=160, height=120, seed=1)


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('videos')


@pytest.fixture(scope='module')
def whole(folder): return write_film(folder/'whole.mp4', film())


def read(path, **kwargs):
    video = open_video(path, **kwargs)
    frames = list(video.frames())
    return video, frames, {n.code for n in video_notes(video)}


@pytest.mark.parametrize('suffix', ['mp4', 'mov', 'avi', 'mkv', 'webm'])
def test_each_kind_is_read_with_its_times(folder, suffix):
    "Also from a name with spaces and letters that are not ASCII."
    path = write_film(folder/f'Grüße an 我们 100 %d.{suffix}', film())
    video, frames, _ = read(path)
    assert np.allclose(video.times, film().times, atol=1.1e-3) and frames[0].image.shape == (120, 160, 3)
    assert video.ended and [f.index for f in frames] == list(range(25))


UNEVEN = ('mp4', None, 2e-4), ('mov', None, 2e-4), ('mkv', None, 6e-4), ('webm', 'VP80', 6e-4), ('webm', 'VP90', 6e-4)


@pytest.mark.parametrize('suffix, code, tolerance', UNEVEN)
def test_uneven_times_are_right_to_the_frame(folder, suffix, code, tolerance):
    uneven = film(fps=30, jitter=.6)
    video, _, notes = read(write_film(folder/f'uneven.{suffix}', uneven, code=code))
    assert np.allclose(video.times, uneven.times, atol=tolerance) and 'uneven' in notes
    assert abs(np.arange(30)/video.tagged - video.times).max() > .02    # what number/rate would have said


@pytest.mark.parametrize('name', ['uneven_hevc.mov', 'uneven_vp9.webm'])
def test_what_a_telephone_and_a_browser_write(folder, name):
    "HEVC and VP9 by their own encoders, with frames 10 to 160 ms apart; frame/rate would be wrong by 150 ms and more."
    known = json.loads((ROOT/'tests/golden/uneven.json').read_text(encoding='utf-8'))
    (folder/name).write_bytes(base64.b64decode(known[name]))
    video, frames, notes = read(folder/name)
    assert np.allclose(video.times, known['times'], atol=1e-9) and {'uneven', 'gaps'} <= notes
    assert abs(np.arange(12)/video.tagged - video.times).max() > .15
    assert frames[0].image.std() > 20                                   # and there is something to see


def sound_only(path, whole):
    "The same file, whose stream says that it is sound."
    path.write_bytes(whole.read_bytes().replace(b'vide', b'soun'))
    return path


BAD = {
    'empty.mp4': (lambda data: b'', 'is empty'), 'text.mp4': (lambda data: 'Grüße\n'.encode()*9, 'is text'),
    'list.m3u8': (lambda data: b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n', 'is text'),
    'sound.mp4': (lambda data: b'RIFF\x24\0\0\0WAVEfmt ' + bytes(99), 'is sound without pictures'),
    'picture.mp4': (lambda data: cv2.imencode('.png', np.zeros((9, 9), np.uint8))[1].tobytes(), 'is a picture'),
    'broken off.mp4': (lambda data: data[:len(data)//2], 'index (moov)'),
    'noise.avi': (lambda data: np.random.default_rng(0).bytes(999), 'not a video of a known kind'),
    'head only.mkv': (lambda data: b'\x1aE\xdf\xa3' + bytes(99), 'no frame that OpenCV can decode')}


@pytest.mark.parametrize('name', BAD)
def test_what_is_no_video_is_said_in_a_sentence(folder, whole, name, capfd):
    make, words = BAD[name]
    path = folder/name
    path.write_bytes(make(whole.read_bytes()))
    with pytest.raises(VideoError) as e: open_video(path)
    assert words in str(e.value) and str(path) in str(e.value) and '\n' not in str(e.value)
    assert '[' not in capfd.readouterr().err                   # of OpenCV's: [ERROR:0@1.2] global cap.cpp:212


def test_a_file_with_sound_only(folder, whole):
    with pytest.raises(VideoError, match='has sound but no pictures'): open_video(sound_only(folder/'s.mp4', whole))


def test_what_is_missing(folder):
    with pytest.raises(VideoError, match='there is no such file'): open_video(folder/'nothing.mp4')


@pytest.mark.parametrize('suffix', ['mkv', 'avi', 'webm'])
def test_a_file_that_stops_early_is_noticed(folder, suffix):
    path = write_film(folder/f'long.{suffix}', film(seconds=2.))
    half = folder/f'half.{suffix}'
    half.write_bytes(path.read_bytes()[:path.stat().st_size//2])
    assert 'cut_off' not in read(path)[2]
    video, frames, notes = read(half)
    assert 'cut_off' in notes and 5 < len(frames) < 45


def test_a_file_damaged_in_the_middle_is_noticed(folder):
    path = write_film(folder/'sound.mkv', film(seconds=2.))
    data = bytearray(path.read_bytes())
    data[len(data)//3:len(data)//2] = bytes(len(data)//2 - len(data)//3)
    hurt = folder/'hurt.mkv'
    hurt.write_bytes(data)
    _, frames, notes = read(hurt)
    assert len(frames) < 50 and notes & {'cut_off', 'gaps'}


@pytest.mark.parametrize('degrees', [90, 180, 270])
def test_a_picture_is_turned_as_the_file_asks(folder, whole, degrees):
    path = folder/f'turned{degrees}.mp4'
    path.write_bytes(whole.read_bytes())
    video, frames, notes = read(set_rotation(path, degrees))
    plain = read(whole)[1][3].image
    turned = cv2.rotate(plain, {90: 0, 180: 1, 270: 2}[degrees])
    assert np.array_equal(frames[3].image, turned) and video.size == turned.shape[1::-1] and 'turned' in notes
    back = read(path, rotate=360 - degrees)[1][3].image
    assert np.array_equal(back, plain)


def frames_in(folder, numbers, value=lambda n: 10*n):
    folder.mkdir()
    for n in numbers: cv2.imwrite(str(folder/f'f{n}.png'), np.full((40, 50), value(n), np.uint8))
    return folder


def test_a_folder_is_sorted_by_number_and_grey_is_read(tmp_path):
    video, frames, _ = read(frames_in(tmp_path/'a', (9, 10, 11, 2)), fps=100)
    assert [int(f.image[0, 0, 2]) for f in frames] == [20, 90, 100, 110] and frames[1].time == .07


def test_a_damaged_picture_leaves_a_gap(tmp_path):
    folder = frames_in(tmp_path/'a', range(5))
    (folder/'f3.png').write_bytes(b'\x89PNG and no more')
    video, frames, notes = read(folder, fps=100)
    assert len(frames) == 4 and 'lost' in notes and frames[-1].time == .04


def test_two_series_in_a_folder_are_not_mixed(tmp_path):
    folder = frames_in(tmp_path/'a', range(5))
    for n in range(5): cv2.imwrite(str(folder/f'g{n}.png'), np.zeros((40, 50), np.uint8))
    video, frames, notes = read(folder, fps=100)
    assert [int(f.image[0, 0, 2]) for f in frames] == [0, 10, 20, 30, 40] and 'left_out' in notes


def test_pictures_of_two_sizes_are_refused(tmp_path):
    folder = frames_in(tmp_path/'a', range(3))
    cv2.imwrite(str(folder/'f3.png'), np.zeros((20, 20), np.uint8))
    with pytest.raises(VideoError, match='20×20 px, but the first has 50×40'): read(folder, fps=100)


def test_rates(tmp_path):
    folder = frames_in(tmp_path/'a', range(6))
    def codes(fps): return read(folder, fps=fps)[2]
    assert codes(200) == set() and codes(50) == {'coarse_times'} and codes(30) == {'webcam'} and 'too_slow' in codes(10)


def test_one_frame_is_too_few(tmp_path):
    video, _, notes = read(frames_in(tmp_path/'a', [1]), fps=100)
    assert notes == {'one_frame'} and not spottable(video_notes(video))


def test_slow_motion_is_read_at_the_rate_it_was_filmed(whole):
    video, _, notes = read(whole, fps=200)
    assert video_facts(video)['fps'] == pytest.approx(200) and 'cut_off' not in notes and video.times[-1] == 24/200


def test_a_part_of_a_video(whole):
    video, frames, notes = read(whole, start=.2, stop=.5)
    assert frames[0].index == 5 and .2 <= video.times[0] and video.times[-1] <= .5 and 'cut_off' not in notes


def test_nothing_is_held_while_reading(whole):
    "One frame at a time, however long the video is."
    import gc
    import weakref
    alive = []
    for frame in open_video(whole).frames(): alive.append(weakref.ref(frame.image))
    del frame
    gc.collect()
    assert len(alive) == 25 and not any(a() is not None for a in alive)


def test_an_index_that_is_not_at_the_end_is_refused(folder, whole):
    data = whole.read_bytes()
    path = folder/'first.mp4'
    path.write_bytes(data + struct.pack('>I4s', 8, b'free'))
    with pytest.raises(ValueError, match='index at the end'): set_rotation(path, 90)
