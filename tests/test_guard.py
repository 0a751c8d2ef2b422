"""Faces of a licensed dataset do not get into the repository: look-alikes play the licensed root."""
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import cv2
import numpy as np
import pytest

from mpfnet.synthetic.lookalike import make_lookalike
from mpfnet.tools import guard
from mpfnet.tools.guard import (
    ALIKE,
    DRAWINGS,
    allowed_place,
    bad_kind,
    bad_name,
    bad_notebook,
    checked_frames,
    file_kind,
    grey,
    likeness,
    problems,
    reference_frames,
    shows_a_frame,
    tracked,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    "Fingerprints go into a folder of the test's own."
    old = os.environ.get('MPFNET_CACHE')
    os.environ['MPFNET_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    yield
    if old is None: del os.environ['MPFNET_CACHE']
    else: os.environ['MPFNET_CACHE'] = old


def drawn_root(tmp_path_factory, name, seed, people):
    "A data root with drawn people; another seed draws others."
    make_lookalike('casme2', root := tmp_path_factory.mktemp(name), subjects=people, seed=seed, progress=False)
    return root


@pytest.fixture(scope='module')
def licensed(tmp_path_factory): return drawn_root(tmp_path_factory, 'licensed', 771, 2)    # faces that nobody may see


@pytest.fixture(scope='module')
def others(tmp_path_factory): return drawn_root(tmp_path_factory, 'others', 772, 1)     # of somebody else: may be seen


def frame(root, k=3): # a frame that is not the one of its folder that was looked at
    folder = sorted(p for p in root.rglob('EP*') if p.is_dir())[k]
    return cv2.imread(str(sorted(folder.iterdir())[5]))


def crop(image, side=100, at=12, size=128):
    return cv2.resize(image[at:at + side, at:at + side], (size, size))


def as_bytes(image, suffix='.jpg', *options): return cv2.imencode(suffix, image, options)[1].tobytes()


def notebook(*bundles, source='', tags=()):
    cells = [
        dict(cell_type='code', source=[source], metadata=dict(tags=list(tags)),
             outputs=[dict(output_type='display_data', data=b) for b in bundles])
    ]
    return json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)).encode()


def b64(data): return base64.b64encode(data).decode()


def hiding_places(image):
    "The same face in every kind of file that is opened."
    jpg, rgb = as_bytes(image, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 75), np.ascontiguousarray(image[..., ::-1])
    bags = [io.BytesIO() for _ in range(3)]
    np.save(bags[0], rgb[None])
    np.savez_compressed(bags[1], x=np.zeros(3), faces=np.float32(rgb / 255).transpose(2, 0, 1)[None])
    np.save(bags[2], rgb[..., 1])
    return {
        'nbs/output.ipynb': notebook({'text/plain': ['<Figure>'], 'image/png': b64(as_bytes(image, '.png'))}),
        'nbs/jpeg.ipynb': notebook({'image/jpeg': b64(jpg) + '\n'}),
        'nbs/html.ipynb': notebook({'text/html': [f'<img src="data:image/jpeg;base64,{b64(jpg)}">']}),
        'nbs/svg.ipynb': notebook(
            {
                'image/svg+xml': [
                    f'<svg><image xlink:href="data:image/png;base64,{b64(as_bytes(image, ".png"))}"/></svg>'
                ]
            }
        ),
        'nbs/markdown.ipynb': json.dumps(
            dict(
                cells=[
                    dict(cell_type='markdown', source=['![](attachment:a.png)'], metadata={},
                         attachments={'a.png': {'image/png': b64(jpg)}})
                ]
            )
        ).encode(),
        'docs/page.html': f'<p>text</p><img src="data:image/jpeg;base64,{b64(jpg)}">'.encode(),
        'README.md': f'![](data:image/jpeg;base64,{b64(jpg)})'.encode(),
        'docs/drawing.svg': f'<svg><image href="data:image/jpeg;base64,{b64(jpg)}"/></svg>'.encode(),
        'docs/face.jpg': jpg,
        'docs/face.png': as_bytes(image, '.png'),
        'docs/face.bmp': as_bytes(image, '.bmp'),
        'docs/face.tif': as_bytes(image, '.tiff'),
        'docs/face.webp': as_bytes(image, '.webp'),
        'tests/face.npy': bags[0].getvalue(),
        'tests/face.npz': bags[1].getvalue(),
        'tests/grey.npy': bags[2].getvalue(),
        'mpfnet/no_suffix': jpg,
    }


def shown(files, root): # whatever their names
    "Which files show a frame of the root, and the sentence about it."
    frames, clean = reference_frames(root, lookalikes=True), set()      # the same pixels in other files: looked at once
    return {n: why for n, data in files.items() if (why := shows_a_frame(n, data, frames, clean))}


def test_a_resized_compressed_crop_is_found_wherever_it_hides(licensed):
    files = hiding_places(crop(frame(licensed)))
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('casme2' in f and 'shows' in f for f in found.values())
    assert len(problems(files, licensed, lookalikes=True)) == len(files)


def test_the_same_places_with_another_face_pass(licensed, others, tmp_path):
    face = crop(frame(others))
    assert shown(hiding_places(face), licensed) == {}
    assert shown(wrapped_places(face) | embedded_films(face, tmp_path) | array_places(face), licensed) == {}


def test_in_a_figure_in_a_strip_and_in_a_film(licensed, tmp_path):
    face, other = crop(frame(licensed)), np.full((128, 128, 3), 90, np.uint8)
    cv2.circle(other, (60, 60), 40, (20, 200, 90), -1)
    figure = np.full((200, 640, 3), 255, np.uint8)
    figure[30:158, 40:168], figure[30:158, 220:348], figure[20:170, 400:600] = (other, face,
                                                                                cv2.resize(other, (200, 150)))
    film = cv2.VideoWriter(str(tmp_path/'f.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (128, 128))
    for i in range(30): film.write(face if i == 20 else other)
    film.release()
    for name, data in {'docs/figure.png': as_bytes(figure, '.png'),
                       'docs/strip.png': as_bytes(np.hstack([other, face, other]), '.png'),
                       'docs/film.avi': (tmp_path / 'f.avi').read_bytes()}.items():
        assert 'shows' in shown({name: data}, licensed).get(name, ''), name


def lines(image): return base64.encodebytes(as_bytes(image, '.png')).decode()          # 76 characters each


# as matplotlib writes it
def jshtml(image): return 'frames[0] = "data:image/png;base64,' + lines(image).replace('\n', '\\\n') + '"\n'


def wrapped_places(image):
    "Base64 in lines, in pieces, or in one long run without a word about what it is."
    long, texts = b64(as_bytes(image, '.png')), lines(image)
    return {
        'nbs/jshtml.ipynb': notebook({'text/html': jshtml(image).splitlines(True)}),
        'nbs/stream.ipynb': notebook({'text/plain': texts.splitlines(True)}),
        'nbs/source.ipynb': notebook(source=f'face = "{long}"'),
        'docs/jshtml.html': jshtml(image).encode(),
        'docs/jshtml.json': json.dumps([jshtml(image)]).encode(),
        'mpfnet/face.py': f'FACE = b64decode("{long}")'.encode(),
        'mpfnet/lines.py': ('FACE = (' + ''.join(f'    {line!r}\n' for line in texts.split()) + ')').encode(),
        'tests/escaped.json': json.dumps(dict(face=texts)).encode(),
        'tests/list.json': json.dumps(texts.split(), indent=1).encode(),
        'notes.md': f'A face:\n\n{texts}'.encode(),
        'tests/faces.csv': f'name,face\nnobody,{"A" * 3000}\nsomebody,{long}\n'.encode(),
        'docs/a.svg': f'<svg><!--{long}--></svg>'.encode(),
        'docs/a.html': f'<script>x = "{long}"</script>'.encode(),
        'docs/svg.html': f'<img '
                         f'src="data:image/svg+xml;base64,{b64(hiding_places(image)["docs/drawing.svg"])}">'.encode(),
    }


def test_base64_in_lines_and_in_long_runs_is_decoded(licensed):
    files = wrapped_places(crop(frame(licensed)))
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), files.keys() - found.keys()


def film_of(path, image, fourcc): # a film of three frames; the face is in the second
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), 25, (128, 128))
    for i in range(3): film.write(image if i == 1 else np.full_like(image, 90))
    film.release()
    return path.read_bytes()


def gif_of(image):
    from PIL import Image

    frames, bag = ([Image.fromarray(i) for i in (np.full_like(image, 90), np.ascontiguousarray(image[..., ::-1]))],
                   io.BytesIO())
    frames[0].save(bag, 'GIF', save_all=True, append_images=frames[1:])
    return bag.getvalue()


def embedded_films(image, folder):
    mp4, gif = film_of(folder/'f.mp4', image, 'mp4v'), gif_of(image)
    return {'nbs/gif.ipynb': notebook({'image/gif': b64(gif)}), 'nbs/mp4.ipynb': notebook({'video/mp4': b64(mp4)}),
            'docs/mp4.html': f'<source src="data:video/mp4;base64,{base64.encodebytes(mp4).decode()}">'.encode(),
            'docs/gif.html': f'<img src="data:image/gif;base64,{b64(gif)}">'.encode(), 'docs/gif.md': b64(gif).encode(),
            'docs/avi.md': b64(film_of(folder / 'f.avi', image, 'MJPG')).encode()}


def test_embedded_films_are_decoded(licensed, tmp_path):
    files = embedded_films(crop(frame(licensed)), tmp_path)
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), found


def test_what_says_it_is_a_picture_and_cannot_be_decoded_is_refused(licensed):
    noise = b64(bytes(range(256))*4)
    files = {'nbs/a.ipynb': notebook({'image/jxl': noise}),
             'docs/a.html': f'<img src="data:video/ogg;base64,{noise}">'.encode()}
    assert shown(files, licensed).keys() == files.keys() and not shown(
        {'docs/run.txt': (noise * 3).encode(), 'docs/short.md': b'data:image/png;base64,iVBORw0KGgo= is how it begins'},
        licensed,
    )


def array_places(image):
    rgb, kept = np.ascontiguousarray(image[..., ::-1]), {}
    for name, a in {'floats': np.float32(rgb), 'centred': (rgb / 127.5 - 1).transpose(2, 0, 1)[None],
                    'int64': np.int64(rgb[None]), 'int16': np.int16(rgb[..., 1]) - 128,
                    'rgba': np.dstack([rgb, rgb[..., :1] * 0 + 255]), 'one': rgb[None, ..., 1:2] / 9.0,
                    'half': np.float16(rgb)}.items():
        np.save(bag := io.BytesIO(), a)
        kept[f'tests/{name}.npy'] = bag.getvalue()
    return kept


def test_arrays_of_any_range_and_kind_are_looked_at(licensed):
    files = array_places(crop(frame(licensed)))
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), files.keys() - found.keys()


def test_found_at_many_sizes_and_qualities(licensed):
    frames = reference_frames(licensed, lookalikes=True)
    image = frame(licensed, 5)
    for side, at, size, quality in ((128, 0, 48, 90), (128, 0, 400, 60), (90, 20, 64, 80), (64, 40, 128, 90)):
        part = cv2.imdecode(
            np.frombuffer(as_bytes(crop(image, side, at, size), '.jpg', cv2.IMWRITE_JPEG_QUALITY, quality), np.uint8),
            cv2.IMREAD_COLOR,
        )
        assert likeness(grey(part[..., ::-1]), frames)[0] > ALIKE, (side, at, size, quality)


def test_without_a_root_or_with_a_marker_pictures_are_not_compared(licensed, monkeypatch):
    files = {DRAWINGS[0]: as_bytes(crop(frame(licensed)))}
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    assert problems(files) == [] and problems(files, licensed) == []
    monkeypatch.setenv('MPFNET_DATA', str(licensed))
    assert problems(files) == [] and problems(files, lookalikes=True)


def test_a_root_without_marker_is_licensed_and_its_cache_is_renewed(licensed, tmp_path):
    shutil.copytree(licensed, tmp_path/'real')
    (tmp_path/'real/casme2/LOOKALIKE.json').unlink()
    assert problems({DRAWINGS[0]: as_bytes(crop(frame(licensed)))}, tmp_path/'real')
    n = len(reference_frames(tmp_path/'real'))
    shutil.rmtree(sorted(p for p in (tmp_path/'real').rglob('EP*') if p.is_dir())[0])
    assert len(reference_frames(tmp_path/'real')) < n


@pytest.mark.parametrize(
    'name',
    [
        'CASME2-coding-20140508.xlsx',
        'data/CASME2-coding-20190701.csv',
        'SMIC-HS-E_annotation.xlsx',
        'SMIC-VIS-E_annotation.xls',
        'SAMM_Micro_FACS_Codes_v2.xlsx',
        'MMEW_Micro_Exp.xlsx',
        'CAS(ME)^2code_final.xlsx',
        'cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx',
        'nbs/images/img46.jpg',
        'docs/reg_img46.jpg',
        'docs/reg_image001234.bmp',
        'nbs/images/face.png',
        'docs/x.jpg',
        'docs/_static/logo.svg',
        'docs/public_flow.png',
        *(
            f'nbs/images/x.{s}'
            for s in 'webm wmv mpg m4v jp2 jfif ppm pgm avif heic tga bz2 xz zst joblib ckpt onnx JP2'.split()
        ),
        '006_05562.jpg',
        'docs/006_0180.jpg',
        'docs/1.jpg',
        'SAMM_LongVideos_V3_Release.csv',
        'CAS(ME)3_part_A_v2.csv',
        'face.png',
        'paper_figures/fig11.png',
        'tests/clip.avi',
        'frames.zip',
        'figure.pdf',
        'faces.pkl',
    ],
)
def test_names_and_places_that_are_refused(name):
    assert bad_name(name) and problems({name: b'x'})


def test_the_refusal_says_how_to_list_a_drawing(monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    assert 'add its path to DRAWINGS in nbs/tools/06_guard.ipynb' in problems({'nbs/images/face.png': b'x'})[0]
    assert not any(map(bad_name, DRAWINGS)) and all((ROOT/d).is_file() for d in DRAWINGS)


def test_images_of_a_marked_lookalike_are_welcome(tmp_path, monkeypatch):
    (tmp_path/'trees/smic').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bad_name('trees/smic/drawn.bmp')
    (tmp_path/'trees/smic/LOOKALIKE.json').write_text('{}')
    assert not bad_name('trees/smic/drawn.bmp') and bad_name('trees/drawn.bmp')


PICTURE = {'image/png': 'iVBORw0KGgo='}


@pytest.mark.parametrize(
    'source, tags, text, why',
    [
        ("dataset = 'smic'", ['parameters'], '', "dataset='smic'"),
        ("dataset: str = 'casme2'   # with a type", ['parameters'], '', "dataset='casme2'"),
        ("dataset, task = 'samm', '5class'", ['parameters'], '', "dataset='samm'"),
        ("dataset = 'megc2019_cd'", ['injected-parameters'], 'UF1 0.7', "dataset='megc2019_cd'"),
        ("data = 'real'", ['injected-parameters'], '', "data='real'"),
        ('', [], 'REAL clips, SAMM', 'REAL clips, SAMM'),
        ('', [], 'made from REAL clips, CASME II, NOT the published list', 'REAL clips, CASME II'),
    ],
)
def test_notebooks_that_ran_on_licensed_data(source, tags, text, why):
    assert why in bad_notebook(notebook(PICTURE, {'text/plain': [text]}, source=source, tags=tags))
    assert not bad_notebook(notebook({'text/plain': [text]}, source=source, tags=tags)), 'text shows nobody'


def test_a_notebook_is_one_however_its_name_is_written():
    page = notebook(PICTURE, source="dataset = 'smic'", tags=['parameters'])
    assert [problems({f'a/page.{suffix}': page})[0].partition(': ')[2] for suffix in ('ipynb', 'IPYNB', 'Ipynb')] == [
        "has pictures, ran with dataset='smic', and no output says LOOK-ALIKE"
    ] * 3


def test_a_picture_beside_an_error_about_licensed_data(tmp_path):
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'settings.ini').touch()
    with pytest.raises(ValueError) as e: allowed_place(tmp_path/'nbs/a.png', 'REAL clips, SMIC-HS')
    for told in (dict(evalue=str(e.value)), dict(evalue='', traceback=['Traceback\n', f'ValueError: {e.value}']),
                 dict(evalue='figure.png: made from licensed data')):
        nb = json.loads(notebook(PICTURE))
        nb['cells'][0]['outputs'].append(dict(output_type='error', ename='ValueError', traceback=[]) | told)
        assert 'has pictures, and its outputs say' in bad_notebook(json.dumps(nb).encode()), told
        nb['cells'][0]['outputs'][0]['data'] = {}
        assert not bad_notebook(json.dumps(nb).encode()), 'text shows nobody'


def test_a_notebook_without_metadata_is_read():
    nb = json.loads(notebook(PICTURE)) | dict(metadata=None)
    assert bad_notebook(json.dumps(nb).encode()) == bad_notebook(notebook(PICTURE))


def test_outputs_that_cannot_be_looked_into():
    nb = json.loads(
        notebook({'text/plain': ['HBox()'], 'application/vnd.jupyter.widget-view+json': dict(model_id='a')})
    )
    assert not bad_notebook(json.dumps(nb).encode()), 'a view without its state shows nothing'
    nb['metadata']['widgets'] = {'application/vnd.jupyter.widget-state+json': dict(state={})}
    assert 'clear metadata.widgets' in bad_notebook(json.dumps(nb).encode())
    for bundle in ({'application/vnd.plotly.v1+json': dict(data=[])},
                   {'text/html': ['<script>Plotly.', 'newPlot("a", [])</script>']}, {'application/pdf': 'JVBERi0='}):
        assert 'where pictures are not looked for' in bad_notebook(notebook(bundle))


@pytest.mark.parametrize(
    'source, tags, text',
    [
        ("dataset = 'smic'", ['parameters'], 'LOOK-ALIKE of SMIC-HS: synthetic faces'),
        ("dataset = 'megc2019_flow'", ['parameters'], 'REAL clips, public flow (MEGC2019 flow-28, CDE 3-class)'),
        ("dataset = 'synth'", ['parameters'], 'SYNTHETIC clips'),
        ("dataset = 'smic'", [], 'an example that was not run with parameters'),
        ("data = 'lookalike'", ['parameters'], ''),
    ],
)
def test_notebooks_that_may_keep_their_pictures(source, tags, text):
    assert not bad_notebook(notebook(PICTURE, {'text/plain': [text]}, source=source, tags=tags))


def test_this_repository_holds_nothing_of_the_kind(monkeypatch):
    "All tracked files; with MPFNET_DATA set, their pictures against the frames there."
    monkeypatch.chdir(ROOT)
    try: files = tracked()
    except subprocess.CalledProcessError: pytest.skip('not a git checkout')
    assert len(files) > 50 and problems(files) == []


def test_this_repositorys_pictures_are_looked_at(licensed):
    "They are decoded, and none is a frame of the licensed root."
    files = {f'nbs/{n}.ipynb': (ROOT / f'nbs/{n}.ipynb').read_bytes()
             for n in ('synthetic/01_faces', '01_preprocess', 'rivals/04_dynamic')}
    assert (all(list(guard.pictures(n, d)) for n, d in files.items()) and problems(files, licensed, lookalikes=True)
            == [])


@pytest.fixture
def checkout(tmp_path):
    "A repository with the hook switched on."

    def git(*words):
        return subprocess.run(['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *words],
                              capture_output=True, text=True, env=env)

    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')} | dict(
        PYTHONPATH=str(ROOT), PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    )
    git('init')
    git('config', 'core.hooksPath', '.githooks')
    shutil.copytree(ROOT/'.githooks', tmp_path/'.githooks')
    return tmp_path, git, env


def test_the_hook_refuses_and_lets_pass(checkout, licensed):
    folder, git, env = checkout
    (folder/'notes.md').write_text('plain text')
    git('add', 'notes.md')
    assert git('commit', '-m', 'one').returncode == 0
    (folder/'a page.ipynb').write_bytes(notebook(PICTURE, source="dataset='samm'", tags=['parameters']))
    git('add', 'a page.ipynb')
    (folder/'a page.ipynb').write_bytes(notebook())                    # cleaned afterwards, but what is staged counts
    done = git('commit', '-m', 'two')
    assert done.returncode and "a page.ipynb: has pictures, ran with dataset='samm'" in done.stderr
    git('add', 'a page.ipynb')
    assert git('commit', '-m', 'two').returncode == 0
    shutil.copytree(licensed, folder / 'data')
    (folder / 'data/casme2/LOOKALIKE.json').unlink()
    env['MPFNET_DATA'] = str(folder/'data')
    (folder/'page.html').write_bytes(hiding_places(crop(frame(licensed)))['docs/page.html'])
    git('add', 'page.html')
    done = git('commit', '-m', 'three')
    assert done.returncode and 'page.html: shows' in done.stderr


def test_a_hook_that_cannot_look_refuses_in_a_sentence(checkout):
    folder, git, env = checkout
    (shim := folder/'bin'/'python3').parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')    # knows no package
    shim.chmod(0o755)
    env['PATH'] = f'{shim.parent}:{env["PATH"]}'
    (folder/'notes.md').write_text('plain text')
    git('add', 'notes.md')
    for done in (git('commit', '-m', 'one'), subprocess.run(['sh', '.githooks/pre-push', 'origin'], cwd=folder, env=env,
                                                            input='', capture_output=True, text=True)):
        assert done.returncode and 'make venv' in done.stderr and 'Traceback' not in done.stderr


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    """A data root with one frame of 640×480 px: a portrait in the public domain, its face 40 % of the height at (224,
    144)."""
    from skimage.data import astronaut
    portrait = cv2.resize(astronaut()[20:240, 115:335], (325, 325), interpolation=cv2.INTER_AREA)
    frame = np.full((480, 640, 3), 150, np.uint8)
    frame[78:403, 158:483] = portrait[..., ::-1]
    folder = tmp_path_factory.mktemp('recording')/'data'
    (folder/'casme2/CASME2_RAW_selected/sub01/EP01').mkdir(parents=True)
    for k in (46, 47): cv2.imwrite(str(folder/f'casme2/CASME2_RAW_selected/sub01/EP01/img{k}.jpg'), frame)
    return folder, frame[144:336, 224:416]


def turned(image, angle):
    h, w = image.shape[:2]
    return cv2.warpAffine(image, cv2.getRotationMatrix2D((w/2, h/2), angle, 1), (w, h), borderMode=cv2.BORDER_REPLICATE)


SPOILED = {'levelled': lambda i: turned(i, 10), 'the other way': lambda i: turned(i, -10),
           'wide': lambda i: cv2.resize(i, (170, 128)), 'high': lambda i: cv2.resize(i, (110, 140)),
           'part': lambda i: i[: len(i) * 6 // 10, : len(i) * 6 // 10], 'mirrored': lambda i: i[:, ::-1],
           'upside down': lambda i: i[::-1], 'quarter': np.rot90, 'dark': lambda i: i * 0.4,
           'bright': lambda i: np.minimum(i * 1.3 + 30, 255),
           'tiny': lambda i: cv2.resize(i, (40, 40), interpolation=cv2.INTER_AREA),
           'grey': lambda i: i[..., 1:2].repeat(3, -1)}


@pytest.mark.parametrize('way', SPOILED)
def test_a_crop_is_recognised_however_it_was_made(way, recording, licensed, others):
    "Of a photograph, and of a drawn face; the same of another drawn face is not."
    root, face = recording
    def changed(i): return as_bytes(np.ascontiguousarray(np.uint8(SPOILED[way](i))))

    assert 'shows' in shown({'a': changed(face)}, root).get('a', '') and 'shows' in shown(
        {'a': changed(crop(frame(licensed)))}, licensed
    ).get('a', '')
    assert (not shown({'a': changed(crop(frame(others)))}, licensed)
            and not shown({'a': changed(crop(frame(others)))}, root) and not shown({'a': changed(face)}, licensed))


def test_points_that_all_fall_on_one_are_no_agreement():
    "Blocks of pixels look alike: many points of a part may be paired with one of the frame."
    rng = np.random.default_rng(0)
    known = np.int8(rng.normal(0, 30, (50, guard.DIMS)))
    there = np.float16(rng.uniform(0, 320, (50, 2)))
    there[:3] = (50, 50), (65, 50), (50, 65)
    # three heaps, ten times as far apart
    points = np.float32(10*(there[:3] - 48).repeat(13, 0) + rng.uniform(-15, 15, (39, 2)))
    looks = np.float32(known[:3].repeat(13, 0))/127 + np.float32(rng.normal(0, .001, (39, guard.DIMS)))
    assert guard.placed(points, looks, there, known)[1] == 3
    assert guard.placed(np.float32(there) / 2, np.float32(known) / 127, there, known)[1] == 50, (
        'while here each has its own'
    )


def test_in_a_sheet_of_many_faces_without_gaps(licensed, others):
    "One among 35 of somebody else, on all sides; without it, none of them."
    others = [cv2.resize(frame(others, k % 9), (64, 64), interpolation=cv2.INTER_AREA) for k in range(35)]
    face = cv2.resize(crop(frame(licensed)), (64, 64), interpolation=cv2.INTER_AREA)
    def sheet(faces): return as_bytes(np.vstack([np.hstack(faces[k:k+6]) for k in range(0, 36, 6)]))
    assert shown({'a': sheet([*others[:7], face, *others[7:]])}, licensed)
    assert not shown({'a': sheet([*others, others[0]])}, licensed)


def test_figures_of_matplotlib_in_every_format_that_a_page_keeps(recording):
    import matplotlib.pyplot as plt
    root, face = recording
    fig, ax = plt.subplots(figsize=(3, 3))
    ax.imshow(face[..., ::-1])
    ax.set_title('onset')
    kept = {k: io.BytesIO() for k in ('png', 'svg', 'jpg', 'pdf')}
    for k, bag in kept.items(): fig.savefig(bag, format=k)
    plt.close(fig)
    svg = kept['svg'].getvalue().decode()
    files = {'nbs/png.ipynb': notebook({'image/png': b64(kept['png'].getvalue())}),
             'nbs/svg.ipynb': notebook({'image/svg+xml': svg.splitlines(True)}), 'docs/page.html': svg.encode(),
             'nbs/jpg.ipynb': notebook({'image/jpeg': b64(kept['jpg'].getvalue())}),
             'docs/quoted.html': f"<img src='data:image/svg+xml,{urllib.parse.quote(svg)}'>".encode()}
    assert shown(files, root).keys() == files.keys()
    assert ('is a pdf' in bad_kind('figure', kept['pdf'].getvalue())
            and 'a pdf in base64' in shown({'a.html': b64(kept['pdf'].getvalue()).encode()}, root)['a.html'])


def by_pillow(image, kind, **how):
    from PIL import Image
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(bag := io.BytesIO(), kind, **how)
    return bag.getvalue()


def test_files_are_known_by_their_first_bytes():
    import bz2
    import gzip
    import lzma
    import pickle
    import tarfile
    import zipfile

    import torch
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    zipfile.ZipFile(z := io.BytesIO(), 'w').writestr('a.txt', 'x')
    torch.save(torch.zeros(3), t := io.BytesIO())
    with tarfile.open(fileobj=(tar := io.BytesIO()), mode='w') as f: f.addfile(tarfile.TarInfo('a'))
    jpg = as_bytes(image)
    files = {f'{k}.dat': by_pillow(image, k)
             for k in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'JPEG2000', 'PCX', 'PPM', 'AVIF')} | {
        'cut.dat': jpg[:-2],
        'longer.dat': jpg + bytes(5000),
        'report.odt': z.getvalue(),
        'weights.bin': t.getvalue(),
        'a': gzip.compress(b'x'),
        'b': bz2.compress(b'x'),
        'c': lzma.compress(b'x'),
        'd': tar.getvalue(),
        'ascii.txt': b'P3\n# a comment\n4 4\n255\n' + b'0 ' * 48,
        'drawn.c': b'/* XPM */',
        'raw.bin': image.tobytes(),
        'f16': np.float16(image / 255).tobytes(),
        'latin.csv': 'é'.encode('latin-1'),
        'lfs.md': b'version https://git-lfs.github.com/spec/v1\noid sha256:0',
        '7z': b'7z\xbc\xaf\x27\x1c',
        'old.doc': b'\xd0\xcf\x11\xe0\xa1\xb1',
        'h5': b'\x89HDF\r\n',
        'exe': b'MZ\0\0',
    }
    files |= {f'pickle{n}': pickle.dumps(image, n) for n in range(6)} | {
        f'list{n}': pickle.dumps([image], n) for n in range(6)
    }
    assert not [n for n, data in files.items() if not bad_kind(n, data)] and len(problems(files)) == len(files)
    for n, data in files.items():      # refused as what it is, not for being unknown
        if n in ('raw.bin', 'f16', 'latin.csv', 'exe', 'list1'): continue
        assert file_kind(data) not in ('unknown', 'text'), n


def test_text_and_arrays_are_welcome_by_any_name():
    np.save(a := io.BytesIO(), np.zeros(3))
    np.savez(z := io.BytesIO(), a=np.zeros(3))
    files = {'a.txt': b'', 'b': 'ÄÖ 表情\n\ttab\x1b[0m'.encode(), 'c.csv': '\ufeffä;b'.encode('utf-16'),
             'BM.md': b'BM is how a bitmap begins', 'P3.md': b'P3 is ours', 'PAR1.csv': b'PAR1,1',
             'd.npy': a.getvalue(), 'e.npz': z.getvalue()}
    assert not problems(files)


def test_the_list_lets_pass_what_cannot_be_looked_into(monkeypatch):
    monkeypatch.setattr(guard, 'DRAWINGS', ('docs/font.woff2',))
    assert (not bad_kind('docs/font.woff2', b'wOF2\0\1') and not problems({'docs/font.woff2': b'wOF2\0\1'})
            and problems({'docs/font2.woff2': b'wOF2\0\1'}))


def test_the_feature_store_is_known(licensed, tmp_path):
    "Method fdp's rows are grey frames."
    from mpfnet.clips import load_clips
    from mpfnet.rivals.dynamic import GrayFrames
    from mpfnet.store import FeatureStore
    store = FeatureStore(tmp_path/'results/features', GrayFrames(), 'frames')
    store.ensure(load_clips('casme2', licensed)[:2], progress=False)
    files = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in store.table.folder.iterdir()}
    assert [p.split(':')[0].rsplit('/')[-1] for p in problems(files)] == [
        'features.f16'
    ] and 'belongs under runs/' in problems(files)[0]
    assert 'neither text' in problems({'x.f32': store.table.data.read_bytes()})[0]


def animated(image, kind):
    from PIL import Image

    frames = [Image.fromarray(np.ascontiguousarray(i[..., ::-1]))
              for i in (np.full_like(image, 90), np.full_like(image, 120), image)]
    frames[0].save(bag := io.BytesIO(), kind, save_all=True, append_images=frames[1:])
    return bag.getvalue()


def test_every_page_counts_and_every_depth_and_the_preview_in_a_photo(licensed):
    face, plain = crop(frame(licensed)), np.full((200, 200, 3), 90, np.uint8)
    files = {f'nbs/{k}.ipynb': notebook({f'image/{k.lower()}': b64(animated(face, k))}) for k in ('GIF', 'PNG', 'WEBP')}
    files['nbs/10bit.ipynb'] = notebook({'image/png': b64(as_bytes(np.uint16(face)*4, '.png'))})
    small, whole = as_bytes(face), as_bytes(plain)
    files['nbs/preview.ipynb'] = notebook(
        {'image/jpeg': b64(whole[:2] + b'\xff\xe1' + (2 + len(small)).to_bytes(2) + small + whole[2:])}
    )
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), found
    assert ('several pages'
            in shown({'a.md': f'data:image/tiff;base64,{b64(animated(face, "TIFF"))}'.encode()}, licensed)['a.md'])


def test_cut_images_are_refused_and_what_follows_one_hides_nothing(licensed):
    jpg = as_bytes(crop(frame(licensed)))
    found = shown(
        {
            n: notebook({'image/jpeg': b64(data)})
            for n, data in {
                'cut.ipynb': jpg[:-2], 'half.ipynb': jpg[: len(jpg) // 2], 'longer.ipynb': jpg + bytes(100),
            }.items()
        },
        licensed,
    )
    assert len(found) == 3 and shown({'a.py': b64(jpg[:-2]).encode()}, licensed), (
        'also where nobody says that it is an image'
    )


def giant_png(w, h):
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0))
            + chunk(b'IDAT', os.urandom(400)) + chunk(b'IEND', b''))


def test_what_would_unpack_to_too_much_is_refused(licensed, tmp_path, monkeypatch):
    np.savez_compressed(z := io.BytesIO(), a=np.zeros((60, 1000, 1000), np.uint8))
    np.lib.format.write_array_header_1_0(lying := io.BytesIO(),
                                         dict(descr='<f8', fortran_order=False, shape=(10**6, 10**6)))
    files = {'png.md': f'data:image/png;base64,{b64(giant_png(60_000, 60_000))}'.encode(),
             'gif.md': f'data:image/gif;base64,{b64(b"GIF89a" + bytes([255]) * 4 + bytes(400))}'.encode(),
             'lying.npy': lying.getvalue() + bytes(400), 'z.npz': z.getvalue(), 'deep.ipynb': b'{"cells":'
             + b'[' * 100_000, 'list.ipynb': b'{"cells": ["a", 1]}'}
    monkeypatch.setattr(guard, 'LARGEST', 10_000_000)
    found = problems(files, licensed, lookalikes=True)
    assert [f.split(':')[0] for f in found] == list(files), found
    monkeypatch.setattr(guard, 'MAX_PIXELS', 40_000)
    many = animated(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8), 'GIF')
    film = film_of(tmp_path/'f.avi', np.zeros((128, 128, 3), np.uint8), 'MJPG')
    assert 'giant frames' in shown({'a.md': f'data:video/avi;base64,{b64(film)}'.encode()}, licensed)['a.md']
    assert 'more than 2 pages' in shown({'a.md': f'data:image/gif;base64,{b64(many)}'.encode()}, licensed)['a.md']


def test_a_page_of_too_many_pictures_is_refused(licensed, monkeypatch):
    monkeypatch.setattr(guard, 'MANY_PICTURES', 3)
    pages = {
        n: notebook(
            *(
                {'image/png': b64(as_bytes(np.random.default_rng(k).integers(0, 255, (40, 40, 3), np.uint8), '.png'))}
                for k in range(n)
            )
        )
        for n in (3, 4)
    }
    assert (not shown({'a.ipynb': pages[3]}, licensed)
            and 'more than 3 parts' in shown({'a.ipynb': pages[4]}, licensed)['a.ipynb'])


def test_a_root_that_leads_nowhere_is_an_error(licensed, tmp_path, monkeypatch, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'noframes/samm/SAMM').mkdir(parents=True)
    (tmp_path / 'file').touch()
    for root, why in ((f'{licensed}x', 'Is the drive there'), ('../nowhere', 'found none'),
                      (licensed / 'casme2', "the folder above"), (tmp_path / 'empty', 'found no folder'),
                      (tmp_path / 'noframes', 'expected frames below samm'), (tmp_path / 'file', 'found none')):
        with pytest.raises(ValueError, match=why): problems({}, root)
        monkeypatch.setenv('MPFNET_DATA', str(root))
        monkeypatch.setattr(guard, 'tracked', dict)
        with pytest.raises(SystemExit) as e: guard.main()
        assert 'MPFNET_DATA=' in str(e.value)
    monkeypatch.setenv('MPFNET_DATA', str(licensed))
    guard.main()
    assert 'compared with nothing' in capsys.readouterr().err, (
        'a marked look-alike alone is no error, but not silence either'
    )


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no such pipes and links')
def test_pipes_links_and_broken_files_among_the_frames(recording, tmp_path, capsys):
    root, face = recording
    clip = tmp_path/'data/casme2/CASME2_RAW_selected/sub01/EP01'
    (tmp_path / 'elsewhere').mkdir()
    clip.parent.mkdir(parents=True)
    clip.symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/again').symlink_to(tmp_path / 'elsewhere')  # a loop
    for n, folder in enumerate(('pipe', 'nowhere', 'broken', 'folder')): (clip/folder).mkdir()
    os.mkfifo(clip / 'pipe/img1.jpg')
    (clip / 'nowhere/img1.jpg').symlink_to('gone.jpg')
    (clip / 'broken/img1.jpg').write_bytes(b'\xff\xd8\xff\xe0')
    (clip / 'folder/img1.jpg').mkdir()
    shutil.copy(root/'casme2/CASME2_RAW_selected/sub01/EP01/img46.jpg', clip/'img46.jpg')
    assert len(checked_frames(tmp_path/'data')) == 1
    said = capsys.readouterr().err
    assert 'broken/img1.jpg' in said and 'pipe/img1.jpg: cannot be read (' in said and 'a pipe' in said
    assert problems({'a.md': f'data:image/jpeg;base64,{b64(as_bytes(face))}'.encode()}, tmp_path/'data')


def test_frames_are_read_once(recording, tmp_path, monkeypatch):
    shutil.copytree(recording[0], tmp_path/'data')
    first, read = reference_frames(tmp_path/'data'), []
    monkeypatch.setattr(guard, 'frame_of', lambda p: read.append(p))
    again = reference_frames(tmp_path/'data')
    assert (not read and first.names == again.names and (first.looks == again.looks).all()
            and (first.starts == again.starts).all())
    shutil.copytree(tmp_path/'data/casme2', tmp_path/'data/smic')
    with pytest.raises(Exception): reference_frames(tmp_path/'data')       # the new dataset is read, and only that
    assert read and all('smic' in p for p in read)
    for f in (guard.cache_folder()/'guard').glob('*.npz'): f.write_bytes(b'damaged')
    monkeypatch.undo()
    assert len(reference_frames(tmp_path/'data')) == 2


def commit(git, folder, files, message, *how):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    git('add', '-A')
    git('commit', '-qm', message, *how)
    return git('rev-parse', 'HEAD').stdout.strip()


@pytest.fixture
def shared(checkout, recording, tmp_path_factory, monkeypatch):
    "A checkout with something to push to, on the computer that has the faces."
    folder, git, env = checkout
    env |= dict(MPFNET_DATA=str(recording[0]),
                **{f'GIT_{a}_{b}': 'a@b' for a in ('AUTHOR', 'COMMITTER') for b in ('NAME', 'EMAIL')})
    away = tmp_path_factory.mktemp('away')
    subprocess.run(['git', 'init', '-q', '--bare', str(away)], check=True)
    git('remote', 'add', 'origin', str(away))
    top = commit(git, folder, {'notes.md': b'plain text'}, 'one', '-n')
    assert git('push', '-q', '--no-verify', 'origin', 'HEAD:refs/heads/main').returncode == 0
    bad = commit(git, folder,
                 {'page.html': f'<img src="data:image/jpeg;base64,{b64(as_bytes(recording[1]))}">'.encode()}, 'bad',
                 '-n')
    git('branch', 'bad')
    git('checkout', '-qB', 'work', top)
    commit(git, folder, {'more.md': b'more'}, 'two', '-n')
    return folder, git, bad


@pytest.mark.parametrize('how', ['merge --no-edit bad', 'cherry-pick bad', 'rebase bad', 'reset -q --hard bad'])
def test_a_push_refuses_a_face_however_it_came(shared, how):
    folder, git, bad = shared
    assert git(*how.split()).returncode == 0 and (folder/'page.html').exists()
    git('commit', '-q', '--amend', '-m', 'again')
    done = git('push', '-q', 'origin', 'HEAD:refs/heads/x')
    assert done.returncode and 'page.html: shows' in done.stderr and 'git rebase -i' in done.stderr


def test_a_push_refuses_a_face_that_a_later_commit_removed_and_tags(shared):
    folder, git, bad = shared
    git('checkout', '-q', 'bad')
    (folder / 'page.html').unlink()
    commit(git, folder, {}, 'removed', '-n')
    done = git('push', '-q', 'origin', 'HEAD:refs/heads/x')
    assert done.returncode and f'{bad[:10]} page.html: shows' in done.stderr
    git('tag', '-a', 'v1', '-m', 'x', 'bad')
    assert 'shows' in git('push', '-q', 'origin', 'v1').stderr
    git('tag', 'blob', f'{bad}:page.html')
    assert 'expected commits' in git('push', '-q', 'origin', 'blob').stderr
    assert (git('push', '-q', 'origin', 'work', ':refs/heads/none').returncode == 0
            and git('push', '-q', 'origin', 'work').returncode == 0)


def test_a_push_looks_at_what_a_merge_itself_adds_but_not_at_what_is_there_already(shared, monkeypatch):
    folder, git, bad = shared
    git('checkout', '-q', 'bad')
    git('push', '-q', '--no-verify', 'origin', 'bad')
    git('fetch', '-q')
    commit(git, folder, {'three.md': b'3'}, 'three', '-n')
    assert git('push', '-q', 'origin', 'HEAD:refs/heads/y').returncode == 0, 'the other side has the face already'
    git('checkout', '-q', 'work')
    git('merge', '-q', '--no-commit', '--no-ff', 'bad~1')
    commit(git, folder, {'face.md': (git('show', 'bad~1:page.html').stdout).encode()}, 'evil', '-n')
    assert 'face.md: shows' in git('push', '-q', 'origin', 'HEAD:refs/heads/z').stderr


def test_the_other_side_may_be_an_address(shared, tmp_path_factory):
    folder, git, bad = shared
    away = tmp_path_factory.mktemp('address')
    subprocess.run(['git', 'init', '-q', '--bare', str(away)], check=True)
    assert (git('push', '-q', str(away), 'HEAD:refs/heads/x').returncode == 0
            and 'shows' in git('push', '-q', str(away), 'bad:refs/heads/y').stderr)


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no such names')
def test_files_of_odd_names_are_looked_at_themselves(checkout, licensed, monkeypatch):
    folder, git, env = checkout
    (folder / 'LICENSE').write_text('plain')
    face = hiding_places(crop(frame(licensed)))['docs/page.html']
    odd = ['0:LICENSE', ':LICENSE', '1:LICENSE', 'a\nb.html', ' blank ', '-x', '"q".html', os.fsdecode(b'caf\xe9.html'),
           'ü.html', '[a]*?.html', 'HEAD', ':(top)x']
    for name in odd: (folder/name).write_bytes(face)
    (folder / 'link').symlink_to('/dev/zero')
    os.mkfifo(folder / 'pipe')
    git('add', '-A')
    monkeypatch.chdir(folder)
    for k in [k for k in os.environ if k.startswith('GIT_')]: monkeypatch.delenv(k)
    files = guard.staged()
    assert (set(odd) <= files.keys() and files['0:LICENSE'] == face and files['LICENSE'] == b'plain' and files['link']
            == b'/dev/zero' and all(files[n] == face for n in odd))
    assert shown(files, licensed).keys() == set(odd) and guard.tracked() == files


def test_submodules_giants_and_removed_files(checkout, monkeypatch):
    folder, git, env = checkout
    head = commit(git, folder, {'a.md': b'x', 'b.md': b'y'}, 'one', '-n')
    git('update-index', '--add', '--cacheinfo', f'160000,{head},module')
    git('rm', '-q', 'a.md')
    (folder / 'giant.txt').write_bytes(b'x' * 1000)
    git('add', 'giant.txt')
    (folder / 'last.txt').write_bytes(b'z')
    git('add', 'last.txt')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(guard, 'LARGEST', 99)
    files = guard.staged()
    assert {n: len(d) for n, d in files.items()} == {
        'giant.txt': 100, 'last.txt': 1,
    } and 'more than 99 bytes' in problems(files)[0]


def test_a_picture_is_compared_once(licensed, recording, monkeypatch, tmp_path):
    monkeypatch.setenv('MPFNET_CACHE', str(tmp_path))
    compared = []
    monkeypatch.setattr(guard, 'matches', lambda part, frames, real=guard.matches: compared.append(1)
                        or real(part, frames))
    files = {'a.md': f'data:image/jpeg;base64,{b64(as_bytes(crop(frame(licensed))))}'.encode()}

    def seen(root):
        compared.clear()
        return guard.look([(files, '')], root), bool(compared)
    assert [seen(recording[0]) for _ in range(2)] == [([], True), ([], False)]
    (tmp_path / 'guard/clean.json').write_text('{"key": 1}')
    assert seen(recording[0]) == ([], True)
    shutil.copytree(licensed, tmp_path / 'real')
    (tmp_path / 'real/casme2/LOOKALIKE.json').unlink()
    found, looked = seen(tmp_path/'real')
    assert looked and 'shows' in found[0] and 'shows' in seen(tmp_path / 'real')[0][0], (
        'another root, another verdict; what is found is not kept'
    )


def test_figures_of_real_faces_go_under_runs(tmp_path):
    for name in ('nbs', 'runs/paper-real'): (tmp_path/'here'/name).mkdir(parents=True)
    (tmp_path/'here/settings.ini').touch()
    with pytest.raises(ValueError, match='under here/runs'):
        allowed_place(tmp_path / 'here/nbs/a.png', 'REAL clips, SMIC-HS')
    (tmp_path/'here/nbs/runs.png').touch()
    with pytest.raises(ValueError): allowed_place(tmp_path/'here/nbs/runs.png', 'REAL clips, SAMM')
    (tmp_path/'here/runs/out').symlink_to(tmp_path/'here/nbs')
    # a link that leads out of runs
    with pytest.raises(ValueError): allowed_place(tmp_path/'here/runs/out/a.png', 'REAL clips, SAMM')
    assert allowed_place(tmp_path / 'here/runs/paper-real/a.png', 'REAL clips, SMIC-HS') and allowed_place(
        tmp_path / 'a.png', 'REAL clips, SMIC-HS'
    )
    assert allowed_place(tmp_path/'here/nbs/a.png', 'LOOK-ALIKE of SMIC-HS: synthetic faces')
