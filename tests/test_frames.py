"""Image files as cameras, programs and people who mean harm write them; data of more than 8 bits; frames that were
turned; and files that are none."""
import io
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnet import cli
from mpfnet.clips import load_clips
from mpfnet.data.frames import (
    MAX_PIXELS,
    decode_image,
    decode_raw,
    frame_number,
    frame_problem,
    header,
    image_problem,
    read_image,
)
from mpfnet.data.readers import FLOW_IMAGES, FLOW_LIST, DataError, flow_list, flow_problems
from mpfnet.data.sheets import SheetError, read_workbook
from mpfnet.motion.checkpoints import fingerprint, read_checkpoint
from mpfnet.motion.face import read_landmarks
from mpfnet.preprocess import PreprocessConfig, clip_features
from mpfnet.store import FeatureStore
from mpfnet.synthetic.lookalike import make_lookalike

Image = pytest.importorskip('PIL.Image')
NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
RGB = Image.fromarray(NOISE)
CONFIG = PreprocessConfig(size=32, length=3)


def saved(image, kind, **more):
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def exif(turn):
    e = Image.Exif()
    e[0x112] = turn
    return e


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z: z.writestr('a.txt', 'hidden behind the picture')
    return out.getvalue()


def deep(image): return cv2.imencode('.png', image)[1].tobytes()


THUMBNAIL = saved(RGB.resize((8, 6)), 'JPEG')
BLOCK = b'MM\0*' + struct.pack('>IHHHIII', 8, 1, 0x201, 4, 1, 30, 0) + THUMBNAIL        # EXIF with a whole JPEG in it
JPEG = saved(RGB, 'JPEG', quality=95)
#: what → (bytes, does the decoder give the very pixels of Pillow?)
FILES = {
    'jpeg': (JPEG, True),
    'jpeg progressive': (saved(RGB, 'JPEG', progressive=True), True),
    'jpeg grey': (saved(RGB.convert('L'), 'JPEG'), True),
    'jpeg cmyk': (saved(RGB.convert('CMYK'), 'JPEG'), False),
    'jpeg with a thumbnail': (JPEG[:2] + b'\xff\xe1' + struct.pack('>H', len(BLOCK) + 8) + b'Exif\0\0' + BLOCK
                              + JPEG[2:], True),
    'png': (saved(RGB, 'PNG'), True),
    'png palette': (saved(RGB.convert('P'), 'PNG'), True),
    'png 1 bit': (saved(RGB.convert('1'), 'PNG'), True),
    'png rgba': (saved(RGB.convert('RGBA'), 'PNG'), True),
    'png grey, alpha': (saved(RGB.convert('LA'), 'PNG'), True),
    'webp': (saved(RGB, 'WEBP', lossless=True), True),
    'webp rgba': (saved(RGB.convert('RGBA'), 'WEBP', lossless=True), True),
    'bmp': (saved(RGB, 'BMP'), True),
    'bmp palette': (saved(RGB.convert('P'), 'BMP'), True),
    'tiff': (saved(RGB, 'TIFF'), True),
    'tiff lzw': (saved(RGB, 'TIFF', compression='tiff_lzw'), True),
    'tiff of two pages': (saved(RGB, 'TIFF', save_all=True, append_images=[RGB.rotate(180)]), True),
    'ppm': (saved(RGB, 'PPM'), True),
    'pgm': (saved(RGB.convert('L'), 'PPM'), True),
    'pgm as text, remarks': (b'P2 # made\n# by hand\n3 2 # wide, high\n255\n1 2 3 4 5 255\n', True),
    'jpeg 2000': (saved(RGB, 'JPEG2000'), True),
    'jpeg 2000, bare': (saved(RGB, 'JPEG2000', no_jp2=True), True),
}
TAILS = {'nothing': b'', 'zeros': bytes(5000), 'a text': b'SEFHtrailer ' * 800,
         'another picture': saved(RGB.rotate(180), 'JPEG'), 'a zip': zipped(), 'its own beginning': JPEG[:80]}


# ---- every kind of file

@pytest.mark.parametrize('tail', TAILS)
@pytest.mark.parametrize('name', FILES)
def test_a_whole_image_is_decoded_whatever_follows_it(name, tail):
    data, exact = FILES[name]
    found, seen = decode_image(data + TAILS[tail]), np.asarray(Image.open(io.BytesIO(data)).convert('RGB'), int)
    assert found.shape == seen.shape and np.abs(found - seen).max() <= (0 if exact else 16)


@given(st.sampled_from(sorted(FILES)), st.floats(0, 1), st.sampled_from([b'', bytes(3000), b'\xff'*50]))
@settings(max_examples=300, deadline=None)
def test_a_cut_image_is_seen_before_it_is_decoded(name, share, padding):
    "The decoder fills up with grey what is missing; a JPEG or a PNG shows it even where a disk has padded the file."
    data, _ = FILES[name]
    cut = data[:int(share*(len(data) - 5))]                    # the last four bytes of a PNG are a checksum
    told = name.startswith(('jpeg', 'png')) and '2000' not in name
    if 'as text' in name or padding and not told: return       # text has no end; of the others a length is checked
    if name.startswith('tiff') and not image_problem(cut):     # it has lost something else than pixels
        try: assert np.array_equal(decode_image(cut), decode_image(data))
        except ValueError: pass
    else: assert image_problem(cut + padding)


def mutated(data, r):
    "A file with some bytes changed, doubled, moved or lost, most of them near its beginning."
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 5))):
        i, j = (r.randrange(min(len(data), r.choice((40, 300, 10**6)))) for _ in 'ij')
        n, how = r.choice((1, 2, 4, 12)), r.randrange(4)
        if how == 0: data[i] = r.choice((0, 1, 0x7f, 0xff, r.randrange(256)))
        if how == 1: data[i:i] = bytes([r.choice((0, 0xff, 0xd8, 0xc0))])
        if how == 2: data[i:i + n] = data[j:j + n]
        if how == 3: data[i:i] = data[j:j + n]
    return bytes(data)


@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_what_is_decoded_has_the_size_that_was_stated(name, seed):
    "Otherwise the limit for the size could be passed by telling it one thing, and the decoder another."
    data = mutated(FILES[name][0], random.Random(seed))
    try: found = decode_raw(data)
    except ValueError: return
    head = header(data)
    assert found.shape[1::-1] == (head.size if head.turn < 5 else head.size[::-1]) and (found.dtype == np.uint16) == (
        head.bits > 8
    )


# ---- what is no frame

def directory(*fields):
    return (b'II*\0\x08\0\0\0' + struct.pack('<H', len(fields)) + b''.join(struct.pack('<HHII', *f) for f in fields)
            + bytes(4))
def chunk(kind, body): return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
def png(*headers):
    return (b'\x89PNG\r\n\x1a\n'
            + b''.join(chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)) for w, h in headers)
            + chunk(b'IEND', b''))
def jpeg_of(width, height): return JPEG[:AT + 5] + struct.pack('>HH', height, width) + JPEG[AT + 9:]

AT = JPEG.index(b'\xff\xc0')
SIDE = int(MAX_PIXELS**.5) + 1
BOMBS = {
    'jpeg': jpeg_of(SIDE, SIDE),
    'jpeg, a stray byte': jpeg_of(SIDE, SIDE)[:AT] + b'\0' + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, a marker alone': jpeg_of(SIDE, SIDE)[:AT] + b'\xff\1' + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, a restart marker': jpeg_of(SIDE, SIDE)[:AT] + b'\xff\xd0' + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, ff 00': jpeg_of(SIDE, SIDE)[:AT] + b'\xff\0' + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, padding': jpeg_of(SIDE, SIDE)[:AT] + b'\xff' * 70 + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, two sizes': JPEG[: AT + 19] + jpeg_of(SIDE, SIDE)[AT:],
    'jpeg, two small sizes': JPEG[: AT + 19] + jpeg_of(8, 8)[AT:],
    'jpeg of height 0': jpeg_of(20, 0),
    'jpeg of height 0, told later': jpeg_of(20, 0)[:-2] + b'\xff\xdc\0\4\0\x0c\xff\xd9',
    'png': png((SIDE, SIDE)),
    'png, two headers': png((9, 9), (SIDE, SIDE)),
    'png without header': b'\x89PNG\r\n\x1a\n' + chunk(b'IEND', b''),
    'png of no width': png((0, 9)),
    'tiff': directory((256, 4, 1, SIDE), (257, 4, 1, SIDE)),
    'tiff, width twice': directory((256, 4, 1, SIDE), (256, 4, 1, 9), (257, 4, 1, 9)),
    'tiff, height twice': directory((256, 4, 1, 9), (257, 4, 1, 9), (257, 3, 1, 9)),
    'tiff, width of another kind': directory((256, 16, 1, SIDE), (257, 4, 1, 9)),
    'tiff of huge tiles': directory(
        (256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8), (322, 4, 1, SIDE), (323, 4, 1, SIDE)
    ),
    'tiff, tiles twice': directory(
        (256, 4, 1, 9), (257, 4, 1, 9), (322, 4, 1, 9), (322, 4, 1, SIDE), (323, 4, 1, SIDE)
    ),
    'bmp': b'BM' + struct.pack('<IIIIii', 0, 0, 54, 40, SIDE, SIDE) + bytes(28),
    'bmp, upside down': b'BM' + struct.pack('<IIIIii', 0, 0, 54, 40, SIDE, -SIDE) + bytes(28),
    'bmp of negative width': b'BM' + struct.pack('<IIIIii', 0, 0, 54, 40, -9, 9) + bytes(300),
    'bmp, OS/2': b'BM' + struct.pack('<IIIIHHHH', 0, 0, 26, 12, 60000, 60000, 1, 24),
    'webp': b'RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0' + bytes(4) + b'\xff\xff\x3f\xff\xff\x3f' + bytes(9),
    'webp of an unknown kind': b'RIFF\x1e\0\0\0WEBPXXXX' + bytes(40),
    'ppm': b'P6 %d %d 255\n' % (SIDE, SIDE),
    'ppm, huge numbers': b'P6 99999999999999999999 1 255\n',
    'ppm, negative': b'P6 -5 5 255\n' + bytes(99),
    'ppm, remark for ever': b'P6 #' + b'9 ' * 50_000,
    'jpeg 2000': b'\xff\x4f\xff\x51\0\x2f\0\0'
    + struct.pack('>IIII', SIDE, SIDE, 0, 0)
    + bytes(16)
    + b'\0\3\7\1\1\7\1\1\7\1\1\xff\xd9',
    'jpeg 2000, a size of its own in another box': b'\0\0\0\x0cjP  \r\n\x87\n'
    + struct.pack('>I4s', 60, b'uuid')
    + b'\xff\x4f\xff\x51\0\x2f\0\0'
    + struct.pack('>IIII', 9, 9, 0, 0)
    + bytes(28)
    + b'\0\0\0\0jp2c\xff\x4f\xff\x51\0\x2f\0\0'
    + struct.pack('>IIII', SIDE, SIDE, 0, 0)
    + bytes(16)
    + b'\0\3\7\1\1\7\1\1\7\1\1\xff\xd9',
}
SAID = {  # what → (bytes, words of the error)
    'an apng': (saved(RGB, 'PNG', save_all=True, append_images=[RGB.rotate(180)]), 'several pictures'),
    'an animated webp': (saved(RGB, 'WEBP', save_all=True, append_images=[RGB.rotate(180)]), 'several pictures'),
    'a gif': (saved(RGB.convert('P'), 'GIF'), 'expected an image'),
    'a raw photo': (directory((254, 4, 1, 1), (256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8)), 'preview'),
    'a dng': (directory((256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8), (0xC612, 1, 4, 1)), 'preview'),
    'a bigtiff': (b'II+\0\x08\0\0\0' + bytes(50), 'BigTIFF'),
    'a film': (b'RIFF\x1e\0\0\0AVI LIST' + bytes(30), 'expected an image'),
    'decimals': (saved(Image.fromarray(np.zeros((9, 9), np.float32)), 'TIFF'), 'decimals'),
    '32 bits': (saved(Image.fromarray(np.zeros((9, 9), np.int32)), 'TIFF'), '8-bit PNG'),
    'a jpeg of 12 bits': (JPEG[: AT + 4] + b'\x0c' + JPEG[AT + 5 :], '12 bits'),
    'a pgm of 15 levels': (b'P5 2 2 15\n\1\2\3\4', 'white is 15'),
    'nothing': (b'', 'empty'),
}


@pytest.mark.parametrize('name', BOMBS)
def test_a_file_that_states_no_size_or_too_large_a_one_is_refused_before_it_is_decoded(name, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('a decoder was let near it'))
    with pytest.raises(ValueError, match=r'pixels|how large|truncated'): decode_image(BOMBS[name])


@pytest.mark.parametrize('name', SAID)
def test_what_is_no_frame_is_said_before_it_is_decoded(name):
    data, words = SAID[name]
    assert words in frame_problem(data) and ('several' in words or words in image_problem(data))


@pytest.mark.parametrize(
    'data',
    [
        b'\xff\xd8\xff' + b'\xff\1' * 4_000_000,
        b'\xff\xd8' + b'\xff' * 8_000_000,
        b'\x89PNG\r\n\x1a\n' + b'\0\0\0\0IDAT\0\0\0\0' * 700_000,
        b'RIFF\0\0\0\0WEBPVP8X' + bytes(8_000_000),
        b'\0\0\0\x0cjP  \r\n\x87\n' + b'\0\0\0\x08free' * 1_000_000,
        b'P6' + b' #\n' * 3_000_000,
    ],
)
def test_a_file_of_very_many_parts_takes_no_time(data):
    start = time.time()
    with pytest.raises(ValueError): decode_image(data)
    assert time.time() - start < 10


def test_opencv_has_the_same_limit_unless_the_user_has_set_one():
    code = (
        'import os, mpfnet, cv2, numpy as np\nfrom mpfnet.data.frames import '
        'MAX_PIXELS\nprint(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"], MAX_PIXELS)\n'
        'try: print(cv2.imdecode(cv2.imencode(".png", np.zeros((11_000, 10_000), np.uint8))[1], 0).shape)\nexcept '
        'cv2.error as e: print(e.err)'
    )

    def ran(**more):
        return subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True,
            env={k: v for k, v in os.environ.items() if k != 'OPENCV_IO_MAX_IMAGE_PIXELS'} | more,
        ).stdout
    assert ran() == f'{MAX_PIXELS} {MAX_PIXELS}\npixels <= CV_IO_MAX_IMAGE_PIXELS\n'
    assert ran(OPENCV_IO_MAX_IMAGE_PIXELS='5000').startswith('5000 ')


# ---- which way is up

@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_every_orientation_in_every_format(kind, turn):
    from PIL.ImageOps import exif_transpose

    more = (dict(tiffinfo={0x112: turn})
            if kind == 'TIFF' else dict(exif=exif(turn), **(dict(lossless=True) if kind == 'WEBP' else {})))
    data = saved(RGB, kind, **more)
    assert header(data).turn == turn and np.array_equal(
        decode_image(data),
        np.asarray(
            exif_transpose(Image.open(io.BytesIO(data)).convert('RGB')
                           if kind != 'TIFF' else Image.open(io.BytesIO(data)))
        ),
    )


# ---- more than 8 bits

def tree_of(folder, frame, dataset='smic', subjects=2):
    "A look-alike whose frames are frame(number) → bytes; the data root."
    make_lookalike(dataset, folder, subjects=subjects, blank=True, progress=False)
    suffix = '.bmp' if dataset == 'smic' else '.jpg'
    for p in sorted((folder / dataset).rglob(f'*{suffix}')):
        p.unlink()
        p.with_suffix('.png').write_bytes(frame(frame_number(p.name)))
    return folder


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_clips(*args, **options)


def scene(number):
    "Values of 0…1 that move a little from frame to frame, and change in brightness."
    y, x = np.mgrid[0:48, 0:48]
    moved = (.5 + .24*np.sin((x - number % 7)/5) + .24*np.cos(y/7))*(.9 + .1*np.sin(number))
    return np.repeat(moved[..., None], 3, 2)


def test_frames_of_ten_bits_give_the_features_of_eight(tmp_path):
    trees = {
        bits: quiet(
            'smic',
            tree_of(tmp_path / f'{bits}',
                    lambda k: deep(np.round(scene(k) * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8))),
            task=None,
        )
        for bits in (8, 10, 12)
    }
    assert 'depth' not in trees[8] and set(trees[10]['depth']) == {10} and set(trees[12]['depth']) == {12}
    said = [f for f in trees[10].report['findings'] if f['decision'] == 'deep-frames']
    assert len(said) == 1 and said[0]['kind'] == 'noted' and '10 bits' in said[0]['done']
    eight, *others = (np.stack([clip_features(r, CONFIG).astype(float) for r in trees[b].head(3).itertuples()])
                      for b in (8, 10, 12))
    for other in others: assert np.abs(eight[:, 2:] - other[:, 2:]).max() < .02 < np.abs(eight[:, 2:]).max()


def test_the_depth_is_the_data_sets_whatever_the_task_and_the_clips(tmp_path):
    """In this data set only one clip, of an emotion that three classes leave out, is bright enough to tell 12 bits
    from 10."""
    root = tree_of(tmp_path, lambda k: deep(np.full((16, 16, 3), 900, np.uint16)), 'samm', 3)
    every = quiet('samm', root, task=None)
    other = next(r for r in every.itertuples() if r.emotion == 'other')
    for p in other.frames.values(): open(p, 'wb').write(deep(np.full((16, 16, 3), 3000, np.uint16)))
    tables = [quiet('samm', root, task=t) for t in (None, '3class', '5class')]
    assert [set(t['depth']) for t in tables] == [{12}]*3 and len(tables[0]) > len(tables[1])


def test_a_frame_that_is_brighter_than_the_depth_is_an_error_not_white(tmp_path):
    root = tree_of(tmp_path, lambda k: deep(np.full((16, 16, 3), 900, np.uint16)))
    clips = quiet('smic', root, task=None)
    row = clips.iloc[0]
    open(row.frames[row.apex], 'wb').write(deep(np.full((16, 16, 3), 5000, np.uint16)))
    with pytest.raises(ValueError, match=r'a value of 5000, where .* 10 bits'): clip_features(row, CONFIG)


def test_the_depth_is_part_of_the_key(tmp_path):
    frames = {n: str(tmp_path / f'{n}.png') for n in (1, 2)}
    for n, p in frames.items(): open(p, 'wb').write(deep(np.round(scene(n)*1023).astype(np.uint16)))
    table = pd.DataFrame(
        [dict(dataset='mine', subject='a', clip='b', onset=1, apex=2, input='frames', frames=frames, cropped=True)]
    )
    store = FeatureStore(tmp_path / 'store', CONFIG)
    rows = [int(store.ensure(t, progress=False)[0])
            for t in (table, table.assign(depth=10), table.assign(depth=12), table.assign(depth=10))]
    assert rows[1] == rows[3] and len(set(rows)) == 3
    brightness = np.float32(store.F)[rows][:, 2:].mean((1, 2, 3, 4))
    assert brightness[0] == brightness[1] and abs(brightness[1]/brightness[2] - 4) < .2


def test_a_table_without_depth_is_scaled_clip_by_clip_never_frame_by_frame(tmp_path):
    frames = {n: str(tmp_path / f'{n}.png') for n in (1, 2)}
    for n, value in ((1, 250), (2, 260)): open(frames[n], 'wb').write(deep(np.full((32, 32, 3), value, np.uint16)))
    row = pd.Series(
        dict(dataset='mine', subject='a', clip='b', onset=1, apex=2, input='frames', frames=frames, cropped=True)
    )
    assert np.abs(clip_features(row, CONFIG)[2:]).max() < .02


# ---- frames that are not alike

def test_an_apex_that_somebody_turned_drops_its_clip_and_no_other(tmp_path):
    make_lookalike('samm', tmp_path, subjects=2, blank=True, progress=False)
    before = quiet('samm', tmp_path, task=None)
    row = before.iloc[0]
    turned = saved(Image.open(row.frames[row.apex]).convert('RGB'), 'JPEG', exif=exif(3))
    os.unlink(row.frames[row.apex])
    open(row.frames[row.apex], 'wb').write(turned)
    after = quiet('samm', tmp_path, task=None)
    said = [f for f in after.report['findings'] if f['decision'] == 'frames-differ']
    assert (len(after) == len(before) - 1 and [f['clip'] for f in said] == [f'{row["subject"]}/{row["clip"]}']
            and 'EXIF orientation' in said[0]['found'])


def test_between_onset_and_apex_it_is_an_error_of_the_features_and_deep_says_so(tmp_path, capsys):
    make_lookalike('samm', tmp_path, subjects=1, blank=True, progress=False)
    row = quiet('samm', tmp_path, task=None).iloc[0]
    between = next(n for n in row.frames if row.onset < n < row.apex)
    os.unlink(row.frames[between])
    open(row.frames[between], 'wb').write(deep(np.zeros((64, 64, 3), np.uint16)))
    with pytest.raises(ValueError, match='bits a sample'):
        clip_features(quiet('samm', tmp_path, task=None).iloc[0],
                      PreprocessConfig(size=32, length=3, interpolate='frames'))
    assert cli.main(['data', 'check', 'samm', '--root', str(tmp_path), '--deep']) == 1
    out = capsys.readouterr().out
    assert (f'{row["subject"]}/{row["clip"]}' in out.split('Clips whose frames are not alike: 1')[1]
            and '1 clip(s) of frames that are not alike; 1 files of 16 bits a sample' in out)


def test_deep_says_how_many_bits_are_in_use_and_what_is_turned(tmp_path, capsys):
    root = tree_of(tmp_path, lambda k: saved(Image.fromarray(np.full((16, 16), 900, np.uint16)), 'PNG', exif=exif(6)))
    cli.main(['data', 'check', 'smic', '--root', str(root), '--deep'])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    n = len(list(root.rglob('*.png')))
    assert (
        f'0 damaged of {n} files; {n} files of 16 bits a sample, read as 10-bit; {n} files turned as their EXIF '
        f'orientation says'
        in last
    )


@pytest.mark.parametrize('suffix', ['.webp', '.pgm', '.ppm', '.pnm', '.jp2'])
def test_frames_of_other_formats(tmp_path, suffix):
    make_lookalike('casme2', tmp_path, subjects=1, blank=True, progress=False)
    before = quiet('casme2', tmp_path, task=None)
    for p in sorted((tmp_path / 'casme2').rglob('*.jpg')):
        p.with_suffix(suffix).write_bytes(
            cv2.imencode(suffix, cv2.resize(cv2.imread(str(p), 0 if suffix == '.pgm' else 1), (64, 64)))[1].tobytes()
        )
        p.unlink()
    after = quiet('casme2', tmp_path, task=None)
    assert before['clip'].tolist() == after['clip'].tolist() and np.isfinite(clip_features(after.iloc[0], CONFIG)).all()


# ---- what is no file

def pipe(path): os.mkfifo(path)
def folder(path): path.mkdir()
def device(path): path.symlink_to('/dev/zero')
def nowhere(path): path.symlink_to('gone')
def wall(path):
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(path.parent)                     # a socket's address has a hundred characters at most
        try: s.bind(path.name)
        finally: os.chdir(here)


def flow_image_at(root): return next((root / 'megc2019_flow' / FLOW_IMAGES).glob('*.png'))
def row_of(path):
    return pd.Series(
        dict(dataset='mine', subject='a', clip='b', onset=1, apex=2, input='frames',
             frames={1: str(path), 2: str(path)}, cropped=True)
    )

OPENED = {  # what a user's file is → (its path in a folder, how it is opened)
    'a frame': ('img1.jpg', read_image),
    'frames of one\'s own table': ('img1.jpg', lambda p: clip_features(row_of(p), CONFIG)),
    'a sheet': ('a.xlsx', read_workbook),
    'landmarks': ('a.csv', read_landmarks),
    'a checkpoint': ('a.pth', read_checkpoint),
    'its fingerprint': ('a.pth', fingerprint),
    'a face file': (
        'a.csv',
        lambda p: FeatureStore(p.parent / 'store', PreprocessConfig(face='landmarks', face_file=str(p))).table,
    ),
    'the list of the flow release': (FLOW_LIST, lambda p: flow_list(p.parent)),
}


@pytest.fixture
def in_time():
    "A minute, then a failure: a pipe would be waited for and a device be read for ever."
    def late(*_): raise TimeoutError('it is still waiting')
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('what', [pipe, folder, device, nowhere, wall], ids=lambda f: f.__name__)
@pytest.mark.parametrize('name', OPENED)
def test_what_is_no_file_is_refused_with_a_sentence(name, what, tmp_path, in_time):
    where, opened = OPENED[name]
    what(tmp_path / where)
    with pytest.raises((ValueError, OSError)) as e: opened(tmp_path / where)
    assert where in str(e.value) and ('ordinary file' in str(e.value) or what is nowhere), str(e.value)


@pytest.mark.parametrize('what', [pipe, folder, device, nowhere, wall], ids=lambda f: f.__name__)
def test_and_so_it_is_among_the_images_of_the_flow_release(what, flow_root, tmp_path, in_time):
    import shutil
    shutil.copytree(flow_root, tmp_path / 'data')
    path = flow_image_at(tmp_path / 'data')
    path.unlink()
    what(path)
    with pytest.raises(DataError, match=path.stem.strip().replace('_', '.')):
        load_clips('megc2019_flow', tmp_path / 'data')


def test_a_clips_folder_full_of_them_loses_its_frames_and_nothing_waits(tmp_path, in_time):
    make_lookalike('samm', tmp_path, subjects=1, blank=True, progress=False)
    before = quiet('samm', tmp_path, task=None)
    for path, what in zip(list(before.iloc[0].frames.values()), [pipe, folder, device, nowhere, wall]*200):
        os.unlink(path)
        what(type(tmp_path)(path))
    after = quiet('samm', tmp_path, task=None)
    assert len(after) == len(before) - 1 and {'no-file', 'link-outside', 'no-frames'} <= {
        f['decision'] for f in after.report['findings']
    }


# ---- long lists

def test_a_list_with_many_rows_too_many_is_refused_soon(flow_root):
    table = flow_list(flow_root / 'megc2019_flow')
    more = pd.concat(
        [table, pd.DataFrame([('smic', f's{k}', str(k), '0') for k in range(20_000)], columns=table.columns)],
        ignore_index=True,
    )
    start = time.time()
    bad = flow_problems(pd.concat([more, more.tail(3)], ignore_index=True), flow_root / 'megc2019_flow' / FLOW_IMAGES)
    assert len(bad) == 20_006 and sum('occurs twice' in b for b in bad) == 3 and time.time() - start < 30


def test_a_list_of_megabytes_is_not_read(tmp_path):
    (tmp_path / FLOW_LIST).write_text('dataset,sub,filename_o,label\n' + 'smic,s1,1,0\n'*400_000)
    with pytest.raises(DataError, match='more than the 4,000,000'): flow_list(tmp_path)


def test_a_workbook_of_many_sheets_with_a_cell_in_the_last_row(tmp_path):
    from openpyxl import Workbook
    book = Workbook()
    for k in range(300): book.create_sheet(f'S{k}')['A1048576'] = 1
    book.save(tmp_path / 'a.xlsx')
    start = time.time()
    with pytest.raises(SheetError, match='together'): read_workbook(tmp_path / 'a.xlsx')
    assert time.time() - start < 30
