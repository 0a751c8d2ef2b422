"The command on videos: files, exit statuses, and what is odd."
import json
import shutil
import warnings
from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import test_site
from conftest import ROOT

from mpfnet.cli import main
from mpfnet.models import fit, load
from mpfnet.predict import predict, result_folder
from mpfnet.synthetic.films import Act, Film, Person, even_times, write_film
from mpfnet.video.name import Strip, model_facts, model_words, name_event

browser = test_site.browser
FROWN = Act(kind='micro', start=.7, units=(4,), peak=2.2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('predict')


def video(path, acts=(FROWN,), fps=50, people=True):
    who = (Person(subject=1, acts=acts, size=130),) if people else ()
    return write_film(path, Film(people=who, times=even_times(1.6, fps), width=200, height=160, seed=1))


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


def test_who_says_nothing_of_a_model_gets_no_class(frown):
    found = predict(frown, progress=False)
    assert found.status == 0 and 'label' not in found.events


def test_too_slow_is_said_and_can_be_corrected(folder):
    slow = video(folder/'slow.avi', fps=10)
    found = predict(slow, progress=False)
    assert found.status == 1 and not len(found.events) and 'too_slow' in {n.code for n in found.notes}


def test_again_needs_a_result(folder, capsys):
    assert main(['predict', 'never seen.mp4', '--out', str(folder/'none'), '--again']) == 1
    assert 'the folder of a result' in capsys.readouterr().err


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
    assert '<i>model' not in page and page.count('data:image/jpeg') == 4 and 'is not known' in page
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
        assert len(sizes) == 4 and min(sizes) >= 128 and await visit.sideways() <= 0
        assert await page.title() == frown.name
    try: assert not browser(look, address, viewport=dict(width=390, height=800))
    finally: server.shutdown()


def test_the_page_takes_a_video(folder, frown, capsys):
    assert main(['page', 'predict']) == 0 and str(ROOT/'nbs/07_predict.ipynb') in capsys.readouterr().out
