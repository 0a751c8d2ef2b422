"""Faces of a licensed dataset do not get into the repository: look-alikes play the licensed root."""
import base64
import io
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
from mpfnet.guard import ALIKE, DRAWINGS, allowed_place, bad_name, bad_notebook, likeness, grey, problems, reference_frames, shows_a_frame, tracked
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


def shown(files, root): # whatever their names
    "Which files show a frame of the root, and the sentence about it."
    frames = reference_frames(root, lookalikes=True)
    return {n: why for n, data in files.items() if (why := shows_a_frame(n, data, frames))}


def test_a_resized_compressed_crop_is_found_wherever_it_hides(licensed):
    files = hiding_places(crop(frame(licensed)))
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('casme2' in f and 'shows' in f for f in found.values())
    assert len(problems(files, licensed, lookalikes=True)) == len(files)


def test_the_same_places_with_another_face_pass(licensed, tmp_path):
    make_lookalike('casme2', tmp_path, subjects=2, seed=772, progress=False)
    assert shown(hiding_places(crop(frame(tmp_path))), licensed) == {}
    assert shown(wrapped_places(crop(frame(tmp_path))) | embedded_films(crop(frame(tmp_path)), tmp_path) | array_places(crop(frame(tmp_path))), licensed) == {}


def test_in_a_figure_in_a_strip_and_in_a_film(licensed, tmp_path):
    face, other = crop(frame(licensed)), np.full((128, 128, 3), 90, np.uint8)
    cv2.circle(other, (60, 60), 40, (20, 200, 90), -1)
    figure = np.full((200, 640, 3), 255, np.uint8)
    figure[30:158, 40:168], figure[30:158, 220:348], figure[20:170, 400:600] = other, face, cv2.resize(other, (200, 150))
    film = cv2.VideoWriter(str(tmp_path/'f.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (128, 128))
    for i in range(30): film.write(face if i == 20 else other)
    film.release()
    for name, data in {'docs/figure.png': as_bytes(figure, '.png'), 'docs/strip.png': as_bytes(np.hstack([other, face, other]), '.png'), 'docs/film.avi': (tmp_path/'f.avi').read_bytes()}.items():
        assert 'shows' in shown({name: data}, licensed).get(name, ''), name


def lines(image): return base64.encodebytes(as_bytes(image, '.png')).decode()          # 76 characters each


def jshtml(image): return 'frames[0] = "data:image/png;base64,' + lines(image).replace('\n', '\\\n') + '"\n'    # as matplotlib writes it


def wrapped_places(image):
    "Base64 in lines, in pieces, or in one long run without a word about what it is."
    long, texts = b64(as_bytes(image, '.png')), lines(image)
    return {'nbs/jshtml.ipynb': notebook({'text/html': jshtml(image).splitlines(True)}), 'nbs/stream.ipynb': notebook({'text/plain': texts.splitlines(True)}),
            'nbs/source.ipynb': notebook(source=f'face = "{long}"'), 'docs/jshtml.html': jshtml(image).encode(), 'docs/jshtml.json': json.dumps([jshtml(image)]).encode(),
            'mpfnet/face.py': f'FACE = b64decode("{long}")'.encode(), 'mpfnet/lines.py': ('FACE = (' + ''.join(f'    {line!r}\n' for line in texts.split()) + ')').encode(),
            'tests/escaped.json': json.dumps(dict(face=texts)).encode(), 'tests/list.json': json.dumps(texts.split(), indent=1).encode(), 'notes.md': f'A face:\n\n{texts}'.encode(),
            'tests/faces.csv': f'name,face\nnobody,{"A"*3000}\nsomebody,{long}\n'.encode(), 'docs/a.svg': f'<svg><!--{long}--></svg>'.encode(), 'docs/a.html': f'<script>x = "{long}"</script>'.encode(),
            'docs/svg.html': f'<img src="data:image/svg+xml;base64,{b64(hiding_places(image)["docs/drawing.svg"])}">'.encode()}


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
    frames, bag = [Image.fromarray(i) for i in (np.full_like(image, 90), np.ascontiguousarray(image[..., ::-1]))], io.BytesIO()
    frames[0].save(bag, 'GIF', save_all=True, append_images=frames[1:])
    return bag.getvalue()


def embedded_films(image, folder):
    mp4, gif = film_of(folder/'f.mp4', image, 'mp4v'), gif_of(image)
    return {'nbs/gif.ipynb': notebook({'image/gif': b64(gif)}), 'nbs/mp4.ipynb': notebook({'video/mp4': b64(mp4)}), 'docs/mp4.html': f'<source src="data:video/mp4;base64,{base64.encodebytes(mp4).decode()}">'.encode(),
            'docs/gif.html': f'<img src="data:image/gif;base64,{b64(gif)}">'.encode(), 'docs/gif.md': b64(gif).encode(), 'docs/avi.md': b64(film_of(folder/'f.avi', image, 'MJPG')).encode()}


def test_embedded_films_are_decoded(licensed, tmp_path):
    files = embedded_films(crop(frame(licensed)), tmp_path)
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), found


def test_what_says_it_is_a_picture_and_cannot_be_decoded_is_refused(licensed):
    noise = b64(bytes(range(256))*4)
    files = {'nbs/a.ipynb': notebook({'image/jxl': noise}), 'docs/a.html': f'<img src="data:video/ogg;base64,{noise}">'.encode()}
    assert shown(files, licensed).keys() == files.keys() and not shown({'docs/run.txt': (noise*3).encode(), 'docs/short.md': b'data:image/png;base64,iVBORw0KGgo= is how it begins'}, licensed)


def array_places(image):
    rgb, kept = np.ascontiguousarray(image[..., ::-1]), {}
    for name, a in {'floats': np.float32(rgb), 'centred': (rgb/127.5 - 1).transpose(2, 0, 1)[None], 'int64': np.int64(rgb[None]), 'int16': np.int16(rgb[..., 1]) - 128, 'rgba': np.dstack([rgb, rgb[..., :1]*0 + 255]), 'one': rgb[None, ..., 1:2]/9., 'half': np.float16(rgb)}.items():
        np.save(bag := io.BytesIO(), a); kept[f'tests/{name}.npy'] = bag.getvalue()
    return kept


def test_arrays_of_any_range_and_kind_are_looked_at(licensed):
    files = array_places(crop(frame(licensed)))
    found = shown(files, licensed)
    assert found.keys() == files.keys() and all('shows' in f for f in found.values()), files.keys() - found.keys()


def test_found_at_many_sizes_and_qualities(licensed):
    frames = reference_frames(licensed, lookalikes=True)
    image = frame(licensed, 5)
    for side, at, size, quality in ((128, 0, 48, 90), (128, 0, 400, 60), (90, 20, 64, 80), (64, 40, 128, 90)):
        part = cv2.imdecode(np.frombuffer(as_bytes(crop(image, side, at, size), '.jpg', cv2.IMWRITE_JPEG_QUALITY, quality), np.uint8), cv2.IMREAD_COLOR)
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


@pytest.mark.parametrize('name', ['CASME2-coding-20140508.xlsx', 'data/CASME2-coding-20190701.csv', 'SMIC-HS-E_annotation.xlsx', 'SMIC-VIS-E_annotation.xls', 'SAMM_Micro_FACS_Codes_v2.xlsx',
                                  'MMEW_Micro_Exp.xlsx', 'CAS(ME)^2code_final.xlsx', 'cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx', 'nbs/images/img46.jpg', 'docs/reg_img46.jpg', 'docs/reg_image001234.bmp',
                                  'nbs/images/face.png', 'docs/x.jpg', 'docs/_static/logo.svg', 'docs/public_flow.png', *(f'nbs/images/x.{s}' for s in 'webm wmv mpg m4v jp2 jfif ppm pgm avif heic tga bz2 xz zst joblib ckpt onnx JP2'.split()),
                                  '006_05562.jpg', 'docs/006_0180.jpg', 'docs/1.jpg', 'face.png', 'paper_figures/fig11.png', 'tests/clip.avi', 'frames.zip', 'figure.pdf', 'faces.pkl'])
def test_names_and_places_that_are_refused(name):
    assert bad_name(name) and problems({name: b'x'})


def test_the_refusal_says_how_to_list_a_drawing(monkeypatch):
    monkeypatch.delenv('MPFNET_DATA', raising=False)
    assert 'add its path to DRAWINGS in nbs/07b_guard.ipynb' in problems({'nbs/images/face.png': b'x'})[0]
    assert not any(map(bad_name, DRAWINGS)) and all((ROOT/d).is_file() for d in DRAWINGS)


def test_images_of_a_marked_lookalike_are_welcome(tmp_path, monkeypatch):
    (tmp_path/'trees/smic').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bad_name('trees/smic/drawn.bmp')
    (tmp_path/'trees/smic/LOOKALIKE.json').write_text('{}')
    assert not bad_name('trees/smic/drawn.bmp') and bad_name('trees/drawn.bmp')


PICTURE = {'image/png': 'iVBORw0KGgo='}


@pytest.mark.parametrize('source, tags, text, why', [
    ("dataset = 'smic'", ['parameters'], '', "dataset='smic'"), ("dataset: str = 'casme2'   # with a type", ['parameters'], '', "dataset='casme2'"),
    ("dataset, task = 'samm', '5class'", ['parameters'], '', "dataset='samm'"), ("dataset = 'megc2019_cd'", ['injected-parameters'], 'UF1 0.7', "dataset='megc2019_cd'"),
    ("data = 'real'", ['injected-parameters'], '', "data='real'"), ('', [], 'REAL clips, SAMM', 'REAL clips, SAMM'), ('', [], 'made from REAL clips, CASME II, NOT the published list', 'REAL clips, CASME II')])
def test_notebooks_that_ran_on_licensed_data(source, tags, text, why):
    assert why in bad_notebook(notebook(PICTURE, {'text/plain': [text]}, source=source, tags=tags))
    assert not bad_notebook(notebook({'text/plain': [text]}, source=source, tags=tags)), 'text shows nobody'


def test_a_notebook_is_one_however_its_name_is_written():
    page = notebook(PICTURE, source="dataset = 'smic'", tags=['parameters'])
    assert [problems({f'a/page.{suffix}': page})[0].partition(': ')[2] for suffix in ('ipynb', 'IPYNB', 'Ipynb')] == ["has pictures, ran with dataset='smic', and no output says LOOK-ALIKE"]*3


def test_a_picture_beside_an_error_about_licensed_data(tmp_path):
    (tmp_path/'nbs').mkdir(); (tmp_path/'settings.ini').touch()
    with pytest.raises(ValueError) as e: allowed_place(tmp_path/'nbs/a.png', 'REAL clips, SMIC-HS')
    for told in (dict(evalue=str(e.value)), dict(evalue='', traceback=['Traceback\n', f'ValueError: {e.value}']), dict(evalue='figure.png: made from licensed data')):
        nb = json.loads(notebook(PICTURE))
        nb['cells'][0]['outputs'].append(dict(output_type='error', ename='ValueError', traceback=[]) | told)
        assert 'has pictures, and its outputs say' in bad_notebook(json.dumps(nb).encode()), told
        nb['cells'][0]['outputs'][0]['data'] = {}
        assert not bad_notebook(json.dumps(nb).encode()), 'text shows nobody'


def test_outputs_that_cannot_be_looked_into():
    nb = json.loads(notebook({'text/plain': ['HBox()'], 'application/vnd.jupyter.widget-view+json': dict(model_id='a')}))
    assert not bad_notebook(json.dumps(nb).encode()), 'a view without its state shows nothing'
    nb['metadata']['widgets'] = {'application/vnd.jupyter.widget-state+json': dict(state={})}
    assert 'clear metadata.widgets' in bad_notebook(json.dumps(nb).encode())
    for bundle in ({'application/vnd.plotly.v1+json': dict(data=[])}, {'text/html': ['<script>Plotly.', 'newPlot("a", [])</script>']}, {'application/pdf': 'JVBERi0='}): assert 'where pictures are not looked for' in bad_notebook(notebook(bundle))


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
