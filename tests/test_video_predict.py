"The command on videos: files, exit statuses, and what is odd."
import errno
import json
import os
import resource
import shutil
import warnings
import xml.etree.ElementTree as ET
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import test_site
from conftest import CHEAP, ROOT
from test_video_read import BAD, sound_only

from mpfnet.cli import main
from mpfnet.data.action_units import ACTION_UNITS
from mpfnet.models import fit, load
from mpfnet.predict import predict, predict_again, predict_all, result_folder
from mpfnet.rivals.plau import AUZero, UnitEncoder
from mpfnet.synthetic.films import Act, Film, Person, draw_film, even_times, write_film
from mpfnet.video.name import Strip, heat_picture, model_facts, model_words, name_event, units_of
from mpfnet.video.overlay import write_overlay
from mpfnet.video.read import VideoError

browser = test_site.browser
FROWN = Act(kind='micro', start=.7, units=(4,), peak=2.2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('predict')


def film(acts=(FROWN,), fps=50, people=True):
    who = (Person(subject=1, acts=acts, size=130),) if people else ()
    return Film(people=who, times=even_times(1.6, fps), width=200, height=160, seed=1)


def video(path, **kwargs): return write_film(path, film(**kwargs))


@pytest.fixture(scope='module')
def frown(folder): return video(folder/'a <b> & ü.mp4')


def test_files_and_statuses(folder, frown, capsys):
    "A video that cannot be read does not keep the others from being read."
    (folder/'text.mp4').write_text('no video', encoding='utf-8')
    nobody = video(folder/'nobody.mp4', people=False)
    out = folder/'out'
    assert main(['predict', str(folder/'text.mp4'), str(frown), str(nobody), '--out', str(out), '--quiet']) == 2
    said = capsys.readouterr()
    assert 'is text, not a video' in said.out and 'no evidence of a lie' in said.out and 'Traceback' not in said.err
    assert sorted(p.name for p in out.iterdir()) == sorted([result_folder(out, frown).name, 'nobody.mp4'])
    result = result_folder(out, frown)
    event, = map(json.loads, (result/'events.jsonl').read_text(encoding='utf-8').splitlines())
    assert event['kind'] == 'micro' and abs(event['apex']['time'] - FROWN.apex) < .04
    assert abs(event['apex']['frame'] - 50*FROWN.apex) <= 2 and event['probabilities'] is None
    assert pd.read_csv(result/'events.csv')['region'][0].startswith('brow')
    page = (result/'report.html').read_text(encoding='utf-8')
    assert '<b> &' not in page and 'http' not in page and '<script' not in page
    assert json.loads((out/'nobody.mp4'/'summary.json').read_text(encoding='utf-8'))['status'] == 1
    assert main(['predict', str(frown), '--out', str(out), '--again', '--sensitivity', '60']) == 0
    assert not (result/'events.jsonl').read_text(encoding='utf-8')                  # an empty table is a result


def test_each_bad_file_has_its_sentence_and_no_report(tmp_path, frown, capsys):
    "All in one call: every one is told of, none stops the next, nothing is left of any."
    there, wanted = tmp_path/'ä b', {name: words for name, (_, words) in BAD.items()}
    there.mkdir()
    for name, (make, _) in BAD.items(): (there/name).write_bytes(make(frown.read_bytes()))
    sound_only(there/'sound only.mp4', frown)
    (there/'no pictures').mkdir()
    wanted |= {'nowhere.mp4': 'there is no such file', 'sound only.mp4': 'has sound but no pictures',
               'no pictures': 'holds no pictures'}
    assert main(['predict', *(str(there/n) for n in wanted), '--out', str(tmp_path/'out'), '--quiet']) == 2
    said = capsys.readouterr()
    lines = said.out.splitlines()
    told = {name: lines[lines.index(f'{there/name}: no result') + 1] for name in wanted}
    assert all(words in told[name] for name, words in wanted.items()) and 'Traceback' not in said.err
    assert not list(tmp_path.glob('out/*'))


def no_rate(path):
    "A video whose index gives every frame a length of nothing."
    data = bytearray(video(path, fps=25).read_bytes())
    at = data.index(b'stts') + 8
    for n in range(int.from_bytes(data[at:at + 4], 'big')): data[at + 8*n + 8:at + 8*n + 12] = bytes(4)
    path.write_bytes(data)
    return path


def test_a_video_without_a_rate_or_of_one_frame(tmp_path, capsys):
    "Status 1 and the reason; the first one's rate can be said."
    still = write_film(tmp_path/'still.mp4', list(draw_film(film()))[:1], fps=25)
    timeless = no_rate(tmp_path/'timeless.mp4')
    assert main(['predict', str(still), str(timeless), '--out', str(tmp_path/'out'), '--quiet']) == 1
    said = capsys.readouterr().out
    assert '1 frame(s)' in said and 'at how many frames a second' in said
    found, apex = found_in(timeless, fps=25)
    assert found.status == 0 and abs(apex[0] - FROWN.apex) < .06


def test_who_says_nothing_of_a_model_gets_no_class(frown):
    found = predict(frown, progress=False)
    assert found.status == 0 and 'label' not in found.events


def test_too_slow_is_said_and_can_be_corrected(folder):
    slow = video(folder/'slow.avi', fps=10)
    found = predict(slow, progress=False)
    assert found.status == 1 and not len(found.events) and 'too_slow' in {n.code for n in found.notes}


def test_again_needs_a_result_and_goes_on_without_one(folder, frown, capsys):
    predict(frown, progress=False).save(result_folder(folder/'kept', frown), frown)
    assert main(['predict', 'never seen.mp4', str(frown), '--out', str(folder/'kept'), '--again']) == 2
    said = capsys.readouterr().out
    assert 'the folder of a result' in said and '1 short movement,' in said
    (result_folder(folder/'kept', frown)/'signal.csv').write_text('time,face\n1,x\n')
    assert main(['predict', str(frown), '--out', str(folder/'kept'), '--again']) == 2
    assert 'not as it was written' in capsys.readouterr().out


def test_a_signal_is_kept_with_every_digit(folder, frown):
    found = predict(frown, progress=False)
    found.save(folder/'digits', frown)
    kept = predict_again(folder/'digits')
    pd.testing.assert_frame_equal(kept.signal, found.signal, check_dtype=False, rtol=1e-9, atol=1e-12)
    assert kept.events['onset'].tolist() == found.events['onset'].tolist()


def test_again_is_of_the_same_part_of_the_same_video(tmp_path, frown, capsys):
    "Another face, other seconds: a signal has no answer. Another video of that name: its own path is said."
    predict(frown, start=.2, progress=False).save(result_folder(tmp_path, frown), frown)
    def again(*words, path=frown):
        return main(['predict', str(path), '--out', str(tmp_path), '--again', *words]), capsys.readouterr().out
    for words in (('--face', '7'), ('--from', '1'), ('--to', '1'), ('--finder', 'haar')):
        status, said = again(*words)
        assert status == 2 and ' '.join(words)[:8] in said and 'Read the video again' in said, words
    assert again('--from', '0.2', '--sensitivity', '1')[0] == 0
    assert 'was read from' not in again()[1]
    status, said = again(path=Path('elsewhere')/frown.name)
    assert status == 0 and 'this signal was read from ' in said and f'{frown.name}\n' in said


@pytest.fixture(scope='module')
def kept(folder, frown): return predict(frown, progress=False).save(folder/'to be damaged', frown)


DAMAGES = {
    'row 1: no column frame, sure, x, y, w, h': lambda t: 'time,face\n1,x\n',
    'row 3, column time: expected a number, found .0;02': lambda t: t.replace('\n1,0.02', '\n1,0;02', 1),
    'row 4, column frame: expected a whole number, found .2[.]5': lambda t: t.replace('\n2,', '\n2.5,', 1),
    'row 2, column sure: expected True or False, found .vrai': lambda t: t.replace('True', 'vrai', 1),
    'row .*: the file ends in the middle of it': lambda t: t[:-9],
    'row 1: no column frame, time': lambda t: t.replace(',', ';'),
    'expected 34 fields in line 3': lambda t: t.replace('\n1,', '\n1,,', 1),
}


@pytest.mark.parametrize('says', DAMAGES)
def test_a_signal_that_is_damaged_is_refused_with_its_row(tmp_path, kept, says):
    folder = Path(shutil.copytree(kept, tmp_path/'kept'))
    text = (folder/'signal.csv').read_text(encoding='utf-8')
    changed = DAMAGES[says](text)
    assert changed != text
    (folder/'signal.csv').write_text(changed, encoding='utf-8')
    with pytest.raises(VideoError, match=f'(?i)signal[.]csv is not as it was written: .*{says}.*Read the video again'):
        predict_again(folder)


def test_a_result_that_is_sent_on_names_no_home_folder(tmp_path, frown, model, monkeypatch):
    "ELAN finds the video from the document: no way from the root of the disk, and none into somebody's home."
    home, there = tmp_path/'anna', tmp_path/'shared'
    monkeypatch.setattr(Path, 'home', lambda: home)
    (home/'films').mkdir(parents=True)
    film = home/'films'/'a b.mp4'
    film.write_bytes(frown.read_bytes())
    def media(folder):
        head = ET.fromstring((folder/'events.eaf').read_text(encoding='utf-8')).find('.//MEDIA_DESCRIPTOR')
        return head.get('MEDIA_URL'), head.get('RELATIVE_MEDIA_URL')
    found = predict(film, load(model), progress=False)
    out = found.save(there/'out', film)
    assert media(out) == ('file:///a b.mp4', './a b.mp4')
    for path in out.iterdir(): assert 'anna' not in path.read_text(encoding='utf-8'), path
    assert media(found.save(home/'runs'/'out', film)) == ('file:///a b.mp4', '../../films/a b.mp4')


def test_two_videos_of_one_name_get_two_folders(tmp_path):
    first = result_folder(tmp_path, 'a/clip.mp4')
    assert result_folder(tmp_path, 'b/clip.mp4', [first]).name == 'clip.mp4-2'


def test_stopping_leaves_what_is_finished(folder, frown, monkeypatch):
    "Ctrl-C during the second video: the first one's files are there and whole, of the second there is nothing."
    import mpfnet.predict as module
    out, read = folder/'stopped', module.open_video
    def stop(path, **kwargs):
        if str(path).endswith('second.mp4'): raise KeyboardInterrupt
        return read(path, **kwargs)
    monkeypatch.setattr(module, 'open_video', stop)
    assert main(['predict', str(frown), 'second.mp4', '--out', str(out), '--quiet']) == 130
    assert (result_folder(out, frown)/'summary.json').is_file() and len(list(out.iterdir())) == 1


def test_stopping_while_a_video_is_read_leaves_nothing_of_it(tmp_path, frown, monkeypatch):
    def stop(frames, method='auto'):
        next(iter(frames))
        raise KeyboardInterrupt
    monkeypatch.setattr('mpfnet.predict.signal_of', stop)
    assert main(['predict', str(frown), '--out', str(tmp_path/'out'), '--quiet']) == 130
    assert not list(tmp_path.glob('out/*'))


def files_of(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize('stopped', [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_the_earlier_result(tmp_path, frown, monkeypatch, capsys, stopped):
    "While the report is written: no half of it, and nothing of the new one beside the old."
    out, write = result_folder(tmp_path, frown), Path.write_bytes
    predict(frown, progress=False).save(out, frown)
    before = files_of(out)
    def full(path, data):
        if path.name == 'report.html': raise stopped
        return write(path, data)
    monkeypatch.setattr(Path, 'write_bytes', full)
    status = main(['predict', str(frown), '--sensitivity', '9', '--out', str(tmp_path), '--quiet'])
    said = capsys.readouterr()
    assert files_of(out) == before and len(list(tmp_path.iterdir())) == 1 and 'Traceback' not in said.err
    assert status == 130 if isinstance(stopped, KeyboardInterrupt) else status == 2 and 'No space left' in said.out


def test_where_nothing_can_be_written_no_video_is_read(tmp_path, frown, capsys, monkeypatch):
    "A file that may be no longer than a kilobyte is as good as a full disk."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr('mpfnet.predict.open_video', lambda *a, **k: pytest.fail('it was read'))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try: assert main(['predict', str(frown), '--out', str(tmp_path/'out'), '--quiet']) == 1
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert 'File too large' in said and 'name a folder elsewhere' in said and not (tmp_path/'out').exists()


def test_a_copy_with_the_events_marked(tmp_path, frown):
    "The same length and, where the frown is, its colour around the face; an earlier copy goes with its result."
    table = predict_all([frown], tmp_path, annotated=True, progress=False)
    copy = Path(table.folder[0])/'annotated.webm'
    cap, pictures = cv2.VideoCapture(str(copy)), []
    while (got := cap.read())[0]: pictures.append(got[1].astype(int))
    red = [((p[..., 2] - p[..., 0] > 90) & (p[..., 2] > 130))[:150].sum() for p in pictures]
    assert len(pictures) == 80 and np.median(red[37:45]) > 200 and max(red[:30] + red[55:]) < 60
    predict_all([frown], tmp_path, again=True, progress=False)
    assert not copy.exists() and (copy.parent/'report.html').is_file()


@pytest.mark.parametrize('flag, words', [('--again', 'a copy needs the video'), ('--no-pictures', 'shows faces')])
def test_a_copy_is_not_made_of_nothing(tmp_path, frown, flag, words, capsys):
    assert main(['predict', str(frown), '--video', flag, '--out', str(tmp_path/'x')]) == 1
    assert words in capsys.readouterr().err and not (tmp_path/'x').exists()


def test_a_copy_that_the_disk_does_not_take_is_not_left(tmp_path, frown):
    found, (soft, hard) = predict(frown, progress=False), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(OSError, match='could not be written to its end'):
            write_overlay(found.video, found.events, found.signal, tmp_path/'a.webm')
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def found_in(path, **kwargs):
    found = predict(path, progress=False, **kwargs)
    return found, found.events.loc[found.events['kind'] == 'micro', 'apex'].round(2).tolist()


def as_4k(frames): return (cv2.resize(f, (3840, 2160), interpolation=cv2.INTER_LINEAR) for f in frames)


EARLY = Act(kind='micro', start=.3, units=(4,), peak=2.2)


@pytest.mark.parametrize('kind', ['4k', 'grey', 'lying', 'folder'])
def test_the_frown_is_found_in_odd_pictures(tmp_path, kind):
    "Large, without colours, turned by the file, or as pictures whose names sort wrongly."
    short = Film(people=film([EARLY]).people, times=even_times(.8, 25), width=320, height=180, seed=1)
    frames, fps = draw_film(short), 25
    if kind == '4k': path = write_film(tmp_path/'a.mp4', as_4k(frames), fps=fps, code='MJPG')
    if kind == 'grey':
        path, grey = tmp_path/'a.avi', (cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in frames)
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'MJPG'), fps, (320, 180), False)
        for f in grey: writer.write(f)
        writer.release()
    if kind == 'lying': path = write_film(tmp_path/'a.mov', (cv2.rotate(f, 2) for f in frames), fps=fps, rotate=90)
    if kind == 'folder':
        (path := tmp_path/'a').mkdir()
        for i, f in enumerate(frames): cv2.imwrite(str(path/f'{i}.png'), f)
    found, apex = found_in(path, fps=fps if kind == 'folder' else None)
    assert found.status == 0 and len(apex) == 1 and abs(apex[0] - EARLY.apex) < .045
    assert found.summary['size'] == ([3840, 2160] if kind == '4k' else [320, 180])


@pytest.mark.parametrize('suffix', ['mp4', 'avi', 'webm', 'mkv'])
def test_a_video_that_is_damaged_in_the_middle_is_analysed_and_it_is_said(tmp_path, suffix):
    "A third of the file is noise from its middle on; what lies before is found."
    path = video(tmp_path/f'a.{suffix}', acts=[EARLY])
    data, noise = bytearray(path.read_bytes()), np.random.default_rng(0)
    half, end = len(data)//2, 5*len(data)//6
    data[half:end] = noise.bytes(end - half)
    path.write_bytes(data)
    found, apex = found_in(path)
    assert found.status == 0 and {n.code for n in found.notes} & {'cut_off', 'gaps'}
    assert apex and abs(apex[0] - EARLY.apex) < .04


def test_one_of_two_faces(tmp_path, capsys):
    "Asked for by size or by number; a number that nobody has is said, and who is there."
    people = Person(subject=1, acts=(FROWN,), size=130, x=.3), Person(subject=2, size=100, x=.8)
    path = write_film(tmp_path/'two.mp4', Film(people=people, times=even_times(1.3, 25), width=320, height=160, seed=1))
    found, apex = found_in(path, face='largest')
    assert set(found.signal['face']) == {0} and len(apex) == 1 and 'one_face' in {n.code for n in found.notes}
    assert main(['predict', str(path), '--face', '7', '--out', str(tmp_path/'out'), '--quiet']) == 1
    assert 'there is no face 7; those found: 0, 1' in capsys.readouterr().out
    assert main(['predict', str(path), '--face', 'left', '--out', str(tmp_path/'out'), '--quiet']) == 1
    assert "all, largest, or a face's number" in capsys.readouterr().err


def test_the_summary_holds_numbers_only_json_knows(folder, frown):
    found = predict(frown, progress=False)
    text = (found.save(folder/'one', frown)/'summary.json').read_text(encoding='utf-8')
    assert 'NaN' not in text and np.isfinite(json.loads(text)['fps'])


@pytest.fixture(scope='module')
def model(folder, flow_root):
    "A tiny model of ready-made flow."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return fit('megc2019_flow', 'pca_lda', out=folder/'a <i>model</i>', data_root=flow_root, preset='tiny',
                   out_dir=folder/'runs', device='cpu', progress=False)


@pytest.fixture(scope='module')
def named(folder, frown, model):
    "The folder of a result with a model."
    assert main(['predict', str(frown), '--model', str(model), '--out', str(folder/'named'), '--quiet']) == 0
    return result_folder(folder/'named', frown)


def test_every_output_says_what_the_model_learnt_from(folder, frown, model, named, capsys):
    "A model that knows flow only, too, names what moves in a video."
    stamp = load(model).about['data']['stamp']
    shutil.copytree(named, result := result_folder(folder/'copy', frown))
    event, = map(json.loads, (result/'events.jsonl').read_text(encoding='utf-8').splitlines())
    assert event['label'] in ('negative', 'positive', 'surprise', 'no class') and event['model']['trained_on'] == stamp
    assert sum(event['probabilities'].values()) == pytest.approx(1, abs=1e-3)
    assert pd.read_csv(result/'events.csv')['trained_on'].tolist() == [stamp]
    for name in ('events.eaf', 'report.html', 'summary.json'): assert stamp in (result/name).read_text(encoding='utf-8')
    page = (result/'report.html').read_text(encoding='utf-8')
    assert '<i>model' not in page and page.count('data:image/jpeg') == 5
    assert 'what spoke for' in page and 'is not known' in page
    assert main(['predict', str(frown), '--out', str(folder/'copy'), '--again']) == 0
    assert json.loads((result/'events.jsonl').read_text(encoding='utf-8'))['label'] is None
    assert 'again' in {w['code'] for w in json.loads((result/'summary.json').read_text(encoding='utf-8'))['warnings']}


def test_the_models_own_score_is_said(folder, model):
    facts = model_facts(load(model)) | dict(score=dict(run='a run', n=40, uf1=.4321, uf1_ci95=[.35, .5]))
    assert any('UF1 0.43 (0.35–0.50' in w and 'a run' in w for w in model_words(facts, 50., 90.))


def test_a_report_without_faces(frown):
    "Not a pixel of the video: only arrows on grey."
    found = predict(frown, pictures=False, progress=False)
    (word, address), = found.pictures[0]
    image = cv2.imdecode(np.frombuffer(b64decode(address.partition(',')[2]), np.uint8), cv2.IMREAD_COLOR)
    blue = image[..., 0].astype(int) - image[..., 2] > 20
    plain = abs(image.astype(int) - 225).max(2) < 12
    assert word == 'onset to apex' and blue.any() and plain.mean() > .5 and '--no-pictures' in found.summary['command']
    assert (~plain & ~cv2.dilate(blue.astype(np.uint8), np.ones((9, 9))).astype(bool)).mean() < .01


def test_a_heat_map_without_a_face_is_the_same_for_every_face(model):
    "And it is not a picture of nothing."
    model, row = load(model), np.random.default_rng(0).normal(0, 1, (1, *load(model).shape)).astype(np.float32)
    one, two = np.zeros((28, 28, 3), np.float32), np.random.default_rng(1).random((28, 28, 3)).astype(np.float32)
    (words, bare), = heat_picture(model, row, one, 0, face=False)
    assert words == 'what spoke for negative (covering)' and heat_picture(model, row, two, 0, face=False)[0][1] == bare
    assert heat_picture(model, row, one, 0)[0][1] != heat_picture(model, row, two, 0)[0][1]


@pytest.fixture(scope='module')
def drawn(folder, synth_root):
    "The demo's model with two steps of training: of drawn clips, with encoders that a gradient can be asked for."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return fit('synth', 'mpfnet_c', out=folder/'drawn', data_root=synth_root, preset='tiny', device='cpu',
                   out_dir=folder/'runs', overrides=f'{CHEAP},preprocess.size=16', progress=False)


def test_a_trained_network_shows_where_it_looked(tmp_path, frown, drawn, browser):
    "From `fit synth` to the browser: five pictures in one row, the last one the apex with Grad-CAM over it."
    found = predict(frown, drawn, progress=False)
    (*_, (word, heat)), label = found.pictures[0], found.events['label'][0]
    best = max(found.named[0]['probabilities'], key=found.named[0]['probabilities'].get)
    assert word == f'what spoke for {best} (Grad-CAM)' and label in (best, 'no class')
    image = cv2.imdecode(np.frombuffer(b64decode(heat.partition(',')[2]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (256, 256, 3) and image.std() > 10
    server, address = test_site.serve(found.save(tmp_path/'out', frown))
    async def look(visit):
        page = await visit.open('report.html')
        tops = await page.evaluate('[...document.images].map(i => i.getBoundingClientRect().top)')
        assert len(tops) == 5 and max(tops) - min(tops) < 2 and 'NaN' not in await page.inner_text('body')
    try: assert not browser(look, address, viewport=dict(width=1000, height=800))
    finally: server.shutdown()


def test_action_units_of_a_model_that_knows_some(model):
    zero = AUZero.__new__(AUZero)
    zero.net = UnitEncoder().eval()
    knows = load(model)
    units = units_of(replace(knows, fitted=zero, method='au_zero'), np.zeros((1, 3, 1, 28, 28), np.float32))
    assert list(units) == [f'AU{u}' for u in ACTION_UNITS] and all(0 < p < 1 for p in units.values())
    assert units_of(knows, None) is None


BROKEN = {
    'nothing there': (lambda f: f.rename(f.with_name('elsewhere')), 'no such folder'),
    'no weights': (lambda f: (f/'model.safetensors').unlink(), 'model.safetensors is missing'),
    'cut weights': (lambda f: (f/'model.safetensors').write_bytes(b'cut'), 'not what was written'),
    'edited': (lambda f: (f/'config.json').write_text(
        (f/'config.json').read_text(encoding='utf-8').replace('pca_lda', 'mpfnet_c'), encoding='utf-8'), 'edited')}


@pytest.mark.parametrize('name', BROKEN)
def test_a_bad_model_is_refused_before_the_video_is_read(tmp_path, frown, model, name, capsys):
    spoil, words = BROKEN[name]
    spoil(copy := Path(shutil.copytree(model, tmp_path/'m')))
    assert main(['predict', str(frown), '--model', str(copy), '--out', str(tmp_path/'out'), '--quiet']) in (1, 2)
    said = capsys.readouterr().err
    assert words in said and 'Traceback' not in said and not (tmp_path/'out').exists()


def test_again_names_nothing(folder, frown, model, capsys):
    assert main(['predict', str(frown), '--model', str(model), '--out', str(folder/'x'), '--again']) == 1
    assert 'a class needs the video' in capsys.readouterr().err


def test_a_face_that_the_model_does_not_find_is_left_without_a_class(frown, model):
    model, blank = load(model), np.full((90, 90, 3), 128, np.uint8)
    strip = Strip(event=0, moments=(0, .1, .2), box=(0, 0, 9, 9), frames=[blank]*5, times=[0, .05, .1, .15, .2])
    named = name_event(model, strip)
    assert named['label'] is None and named['flags'] == ['not_named'] and 'face' in named['why']


def test_the_report_in_a_browser(frown, named, browser):
    "Nothing is loaded from elsewhere, nothing complained of, every picture is there, and it fits a telephone."
    server, address = test_site.serve(named)
    async def look(visit):
        page = await visit.open('report.html')
        sizes = await page.evaluate('[...document.images].map(i => i.naturalWidth)')
        assert len(sizes) == 5 and min(sizes) >= 128 and await visit.sideways() <= 0
        assert await page.title() == frown.name
    try: assert not browser(look, address, viewport=dict(width=390, height=800))
    finally: server.shutdown()


def test_the_copy_plays_in_a_browser(tmp_path, frown, browser):
    "At the length of the video, and nothing is complained of."
    folder = Path(predict_all([frown], tmp_path, annotated=True, progress=False).folder[0])
    (folder/'look.html').write_text('<link rel="icon" href="data:,"><video src="annotated.webm" muted></video>')
    server, address = test_site.serve(folder)
    async def look(visit):
        page = await visit.open('look.html')
        await page.wait_for_function('document.querySelector("video").readyState > 1', timeout=20000)
        length, wide = await page.evaluate('(v => [v.duration, v.videoWidth])(document.querySelector("video"))')
        assert abs(length - 1.6) < .1 and wide == 200
    try: assert not browser(look, address)
    finally: server.shutdown()


def test_the_page_takes_a_video(folder, frown, capsys):
    assert main(['page', 'predict']) == 0 and str(ROOT/'nbs/07_predict.ipynb') in capsys.readouterr().out
