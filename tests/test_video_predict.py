"The command on videos: files, exit statuses, and what is odd."
import json

import numpy as np
import pandas as pd
import pytest

from mpfnet.cli import main
from mpfnet.predict import predict, result_folder
from mpfnet.synthetic.films import Act, Film, Person, even_times, write_film

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
    (folder/'text.mp4').write_text('no video')
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
    assert json.loads((out/'nobody.mp4'/'summary.json').read_text())['status'] == 1
    assert main(['predict', str(frown), '--out', str(out), '--again', '--sensitivity', '60']) == 0
    assert not (result/'events.jsonl').read_text()                  # an empty table is a result


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
