"""Faces of a licensed dataset do not get into the repository: look-alikes play the licensed root."""
import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mpfnet import guard
from mpfnet.guard import ALIKE, allowed_place, bad_name, bad_notebook, likeness, grey, problems, reference_frames, tracked
from mpfnet.synth import make_lookalike

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    "Fingerprints go into a folder of the test's own."
    old = os.environ.get('MPFNET_CACHE')
    os.environ['MPFNET_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    yield
    if old is None: del os.environ['MPFNET_CACHE']
    else: os.environ['MPFNET_CACHE'] = old


@pytest.fixture(scope='module')
def licensed(tmp_path_factory):
    "A data root whose faces nobody may see."
    root = tmp_path_factory.mktemp('licensed')
    make_lookalike('casme2', root, subjects=2, seed=771, progress=False)
    return root


def frame(root, k=3): # a frame that is not the one of its folder that was looked at
    folder = sorted(p for p in root.rglob('EP*') if p.is_dir())[k]
    return cv2.imread(str(sorted(folder.iterdir())[5]))


def crop(image, side=100, at=12, size=128):
    return cv2.resize(image[at:at + side, at:at + side], (size, size))


def as_bytes(image, suffix='.jpg', *options): return cv2.imencode(suffix, image, options)[1].tobytes()


def notebook(*bundles, source='', tags=()):
    cells = [dict(cell_type='code', source=[source], metadata=dict(tags=list(tags)), outputs=[dict(output_type='display_data', data=b) for b in bundles])]
    return json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)).encode()


def b64(data): return base64.b64encode(data).decode()


def hiding_places(image):
    "The same face in every kind of file that is opened."
    import io
    jpg, rgb = as_bytes(image, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 75), np.ascontiguousarray(image[..., ::-1])
    bags = [io.BytesIO() for _ in range(3)]
    np.save(bags[0], rgb[None]); np.savez_compressed(bags[1], x=np.zeros(3), faces=np.float32(rgb/255).transpose(2, 0, 1)[None]); np.save(bags[2], rgb[..., 1])
    return {'nbs/output.ipynb': notebook({'text/plain': ['<Figure>'], 'image/png': b64(as_bytes(image, '.png'))}),
            'nbs/jpeg.ipynb': notebook({'image/jpeg': b64(jpg) + '\n'}),
            'nbs/html.ipynb': notebook({'text/html': [f'<img src="data:image/jpeg;base64,{b64(jpg)}">']}),
            'nbs/svg.ipynb': notebook({'image/svg+xml': [f'<svg><image xlink:href="data:image/png;base64,{b64(as_bytes(image, ".png"))}"/></svg>']}),
            'nbs/markdown.ipynb': json.dumps(dict(cells=[dict(cell_type='markdown', source=['![](attachment:a.png)'], metadata={}, attachments={'a.png': {'image/png': b64(jpg)}})])).encode(),
            'docs/page.html': f'<p>text</p><img src="data:image/jpeg;base64,{b64(jpg)}">'.encode(),
            'README.md': f'![](data:image/jpeg;base64,{b64(jpg)})'.encode(), 'docs/drawing.svg': f'<svg><image href="data:image/jpeg;base64,{b64(jpg)}"/></svg>'.encode(),
            'docs/face.jpg': jpg, 'docs/face.png': as_bytes(image, '.png'), 'docs/face.bmp': as_bytes(image, '.bmp'), 'docs/face.tif': as_bytes(image, '.tiff'), 'docs/face.webp': as_bytes(image, '.webp'),
            'tests/face.npy': bags[0].getvalue(), 'tests/face.npz': bags[1].getvalue(), 'tests/grey.npy': bags[2].getvalue(), 'mpfnet/no_suffix': jpg}


def test_a_resized_compressed_crop_is_found_wherever_it_hides(licensed):
    files = hiding_places(crop(frame(licensed)))
    found = problems(files, licensed, lookalikes=True)
    missed = set(files) - {f.split(':')[0] for f in found}
    assert not missed and all('casme2' in f and 'shows' in f for f in found)


def test_the_same_places_with_another_face_pass(licensed, tmp_path):
    make_lookalike('casme2', tmp_path, subjects=2, seed=772, progress=False)
    assert problems(hiding_places(crop(frame(tmp_path))), licensed, lookalikes=True) == []


def test_in_a_figure_in_a_strip_and_in_a_film(licensed, tmp_path):
    face, other = crop(frame(licensed)), np.full((128, 128, 3), 90, np.uint8)
    cv2.circle(other, (60, 60), 40, (20, 200, 90), -1)
    figure = np.full((200, 640, 3), 255, np.uint8)
    figure[30:158, 40:168], figure[30:158, 220:348], figure[20:170, 400:600] = other, face, cv2.resize(other, (200, 150))
    film = cv2.VideoWriter(str(tmp_path/'f.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (128, 128))
    for i in range(30): film.write(face if i == 20 else other)
    film.release()
    for name, data in {'docs/figure.png': as_bytes(figure, '.png'), 'docs/strip.png': as_bytes(np.hstack([other, face, other]), '.png'), 'docs/film.avi': (tmp_path/'f.avi').read_bytes()}.items():
        assert problems({name: data}, licensed, lookalikes=True), name


def test_found_at_many_sizes_and_qualities(licensed):
    frames = reference_frames(licensed, lookalikes=True)
    image = frame(licensed, 5)
    for side, at, size, quality in ((128, 0, 48, 90), (128, 0, 400, 60), (90, 20, 64, 80), (64, 40, 128, 90)):
        part = cv2.imdecode(np.frombuffer(as_bytes(crop(image, side, at, size), '.jpg', cv2.IMWRITE_JPEG_QUALITY, quality), np.uint8), cv2.IMREAD_COLOR)
        assert likeness(grey(part[..., ::-1]), frames)[0] > ALIKE, (side, at, size, quality)


def test_without_a_root_or_with_a_marker_pictures_are_not_compared(licensed, monkeypatch):
    files = {'docs/face.jpg': as_bytes(crop(frame(licensed)))}
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    assert problems(files) == [] and problems(files, licensed) == []
    monkeypatch.setenv('MPFNET_DATA', str(licensed))
    assert problems(files) == [] and problems(files, lookalikes=True)


def test_a_root_without_marker_is_licensed_and_its_cache_is_renewed(licensed, tmp_path):
    shutil.copytree(licensed, tmp_path/'real')
    (tmp_path/'real/casme2/LOOKALIKE.json').unlink()
    assert problems({'docs/face.jpg': as_bytes(crop(frame(licensed)))}, tmp_path/'real')
    n = len(reference_frames(tmp_path/'real'))
    shutil.rmtree(sorted(p for p in (tmp_path/'real').rglob('EP*') if p.is_dir())[0])
    assert len(reference_frames(tmp_path/'real')) < n


@pytest.mark.parametrize('name', ['CASME2-coding-20140508.xlsx', 'data/CASME2-coding-20190701.csv', 'SMIC-HS-E_annotation.xlsx', 'SMIC-VIS-E_annotation.xls', 'SAMM_Micro_FACS_Codes_v2.xlsx',
                                  'MMEW_Micro_Exp.xlsx', 'CAS(ME)^2code_final.xlsx', 'cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx', 'nbs/images/img46.jpg', 'docs/reg_img46.jpg', 'docs/reg_image001234.bmp',
                                  '006_05562.jpg', 'docs/006_0180.jpg', 'docs/1.jpg', 'face.png', 'paper_figures/fig11.png', 'tests/clip.avi', 'frames.zip', 'figure.pdf', 'faces.pkl'])
def test_names_and_places_that_are_refused(name):
    assert bad_name(name) and problems({name: b'x'})


def test_images_of_a_marked_lookalike_are_welcome(tmp_path, monkeypatch):
    (tmp_path/'trees/smic').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bad_name('trees/smic/drawn.bmp')
    (tmp_path/'trees/smic/LOOKALIKE.json').write_text('{}')
    assert not bad_name('trees/smic/drawn.bmp') and bad_name('trees/drawn.bmp')


PICTURE = {'image/png': 'iVBORw0KGgo='}


@pytest.mark.parametrize('source, tags, text, why', [
    ("dataset = 'smic'", ['parameters'], '', "dataset='smic'"), ("dataset = 'megc2019_cd'", ['injected-parameters'], 'UF1 0.7', "dataset='megc2019_cd'"),
    ("data = 'real'", ['injected-parameters'], '', "data='real'"), ('', [], 'REAL clips, SAMM', 'REAL clips, SAMM'), ('', [], 'made from REAL clips, CASME II, NOT the published list', 'REAL clips, CASME II')])
def test_notebooks_that_ran_on_licensed_data(source, tags, text, why):
    assert why in bad_notebook(notebook(PICTURE, {'text/plain': [text]}, source=source, tags=tags))
    assert not bad_notebook(notebook({'text/plain': [text]}, source=source, tags=tags)), 'text shows nobody'


@pytest.mark.parametrize('source, tags, text', [
    ("dataset = 'smic'", ['parameters'], 'LOOK-ALIKE of SMIC-HS: synthetic faces'), ("dataset = 'megc2019_flow'", ['parameters'], 'REAL clips, public flow (MEGC2019 flow-28, CDE 3-class)'),
    ("dataset = 'synth'", ['parameters'], 'SYNTHETIC clips'), ("dataset = 'smic'", [], 'an example that was not run with parameters'), ("data = 'lookalike'", ['parameters'], '')])
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
    files = {f'nbs/{n}.ipynb': (ROOT/f'nbs/{n}.ipynb').read_bytes() for n in ('00e_faces', '01_preprocess', '01i_dynamic')}
    assert all(list(guard.pictures(n, d)) for n, d in files.items()) and problems(files, licensed, lookalikes=True) == []


@pytest.fixture
def checkout(tmp_path):
    "A repository with the hook switched on."
    def git(*words): return subprocess.run(['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *words], capture_output=True, text=True, env=env)
    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')} | dict(PYTHONPATH=str(ROOT), PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    git('init'); git('config', 'core.hooksPath', '.githooks')
    shutil.copytree(ROOT/'.githooks', tmp_path/'.githooks')
    return tmp_path, git, env


def test_the_hook_refuses_and_lets_pass(checkout, licensed):
    folder, git, env = checkout
    (folder/'notes.md').write_text('plain text')
    git('add', 'notes.md'); assert git('commit', '-m', 'one').returncode == 0
    (folder/'a page.ipynb').write_bytes(notebook(PICTURE, source="dataset='samm'", tags=['parameters']))
    git('add', 'a page.ipynb')
    (folder/'a page.ipynb').write_bytes(notebook())                    # cleaned afterwards, but what is staged counts
    done = git('commit', '-m', 'two')
    assert done.returncode and "a page.ipynb: has pictures, ran with dataset='samm'" in done.stderr
    git('add', 'a page.ipynb'); assert git('commit', '-m', 'two').returncode == 0
    shutil.copytree(licensed, folder/'data'); (folder/'data/casme2/LOOKALIKE.json').unlink()
    env['MPFNET_DATA'] = str(folder/'data')
    (folder/'page.html').write_bytes(hiding_places(crop(frame(licensed)))['docs/page.html'])
    git('add', 'page.html'); done = git('commit', '-m', 'three')
    assert done.returncode and 'page.html: shows' in done.stderr


def test_figures_of_real_faces_go_under_runs(tmp_path):
    for name in ('nbs', 'runs/paper-real'): (tmp_path/'here'/name).mkdir(parents=True)
    (tmp_path/'here/settings.ini').touch()
    with pytest.raises(ValueError, match='under here/runs'): allowed_place(tmp_path/'here/nbs/a.png', 'REAL clips, SMIC-HS')
    (tmp_path/'here/nbs/runs.png').touch()
    with pytest.raises(ValueError): allowed_place(tmp_path/'here/nbs/runs.png', 'REAL clips, SAMM')
    (tmp_path/'here/runs/out').symlink_to(tmp_path/'here/nbs')
    with pytest.raises(ValueError): allowed_place(tmp_path/'here/runs/out/a.png', 'REAL clips, SAMM')     # a link that leads out of runs
    assert allowed_place(tmp_path/'here/runs/paper-real/a.png', 'REAL clips, SMIC-HS') and allowed_place(tmp_path/'a.png', 'REAL clips, SMIC-HS')
    assert allowed_place(tmp_path/'here/nbs/a.png', 'LOOK-ALIKE of SMIC-HS: synthetic faces')
