"""How well are short movements spotted in the drawn videos of tests/videos.py, how fast, in how much memory?

    python benchmarks/spotting.py FOLDER           # writes the section "Spotting" of benchmarks/RESULTS.md
    python benchmarks/spotting.py FOLDER --quick   # prints only, and only what FOLDER has signals of
    python benchmarks/spotting.py FOLDER/2 --model MODEL     # the section "Classes of the events found"

Videos that lie in FOLDER are taken as they are, and their signals, too; an empty folder takes some ten minutes of CPU.
What each set was used for stands in ROWS: videos of seed 2, and those with speech of the last row, were looked at for
this figure only. An event counts as found if its apex lies within 30 ms of the true one, or if half of the two
intervals together is shared. Each finds one at most; what is left is a false alarm, but for blinks, long movements,
speech and what is said to be uncertain.
"""
import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from results import write_section
from sklearn.metrics import f1_score

from mpfnet.synthetic.films import Film, Person, draw_film, write_film
from mpfnet.video.read import open_video
from mpfnet.video.spot import signal_of, spot

sys.path.append(str(Path(__file__).parents[1] / 'tests'))
from videos import SHOWN, make_videos

NEAR, SHARE, BESIDE = .03, .5, .2
KINDS = 'sure hard blink macro speech'.split()
TALKING = 'talking_60', 'talking_100'
#: a row of the table: what its videos are, their seeds, and their names (None = all)
ROWS = (('seed 0, constants chosen on them', [0], None), ('seed 1, what speech is was chosen on them, too', [1], None),
        ('**seed 2, the figure**', [2], None), ('speech, seeds 3–10, chosen on them', range(3, 11), TALKING),
        ('**speech, seeds 11–14, the figure**', range(11, 15), TALKING))


def shared(a, b):
    "Intersection over union of two intervals."
    both = min(a[1], b[1]) - max(a[0], b[0])
    return max(both, 0)/(max(a[1], b[1]) - min(a[0], b[0]))


def kind_of_truth(t): return t['kind'] if t['kind'] != 'micro' else 'hard' if t['hard'] else 'sure'


def match(truth, events):
    "{number of a true event: row of the event that finds it}."
    found = {}
    for n, t in enumerate(truth):
        kinds = ('micro', 'uncertain') if t['kind'] == 'micro' else (t['kind'],)
        for e in events[(events['face'] == t['face']) & events['kind'].isin(kinds)].itertuples():
            near = abs(e.apex - t['apex']) <= NEAR
            if e.Index in found.values(): continue
            if near or shared((e.onset, e.offset), (t['onset'], t['offset'])) >= SHARE:
                found[n] = e.Index
                break
    return found


def talking(truth, e):
    return any(t['kind'] == 'speech' and t['face'] == e.face and t['onset'] - BESIDE < e.apex < t['offset'] + BESIDE
               for t in truth)


def measure(videos, events):
    "Counts of a set of videos; `events` is {file: table}."
    found, there = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    false = dict(outside=0, speech=0, nothing=0)
    off, minutes, talk = [], 0., 0.
    for v in videos:
        truth, table = [t for t in v['truth'] if t['kind'] != 'head'], events[v['file']]
        hits = match(truth, table)
        for n, t in enumerate(truth):
            there[kind_of_truth(t)] += 1
            found[kind_of_truth(t)] += n in hits
            if n in hits and t['kind'] == 'micro': off.append(abs(table['apex'][hits[n]] - t['apex']))
            if t['kind'] == 'speech': talk += (t['offset'] - t['onset'])/60
        minutes += v['seconds']*v['faces']/60
        for e in table[table['kind'] == 'micro'].itertuples():
            if e.Index in hits.values(): continue
            false['speech' if talking(truth, e) else 'outside'] += 1
            false['nothing'] += v['name'].startswith('nothing')
    return dict(found=found, there=there, false=false, off=off, minutes=minutes, talk=talk)


def signals(folder, videos):
    "{file: signal}; computed once and kept beside the videos."
    for v in videos:
        path = folder/f'{v["file"]}.csv'
        if not path.exists(): signal_of(open_video(folder/v['file']).frames()).to_csv(path, index=False)
    return {v['file']: pd.read_csv(folder/f'{v["file"]}.csv') for v in videos}


def line(name, m):
    counts = [f'{m["found"][k]} of {m["there"][k]}' for k in KINDS]
    off = f'{1000*np.median(m["off"]):.0f} ({1000*np.percentile(m["off"], 90):.0f})'
    outside = m['false']['outside']/max(m['minutes'] - m['talk'], 1e-9)
    speech = f'{m["false"]["speech"]} ({m["false"]["speech"]/max(m["talk"], 1e-9):.1f})'
    false = f'{outside:.2f} | {m["false"]["nothing"]} | {speech}'
    return f'| {name} | {" | ".join(counts)} | {false} | {off} |'


def videos_of(folder, seeds, only, quick):
    "What is known of the videos of some seeds; those that are not there are drawn."
    for seed in seeds:
        there = folder/str(seed)
        if not (there/'truth.json').exists():
            if quick: continue
            make_videos(there, seed, only)
        known = json.loads((there/'truth.json').read_text(encoding='utf-8'))
        yield from (v | dict(file=f'{seed}/{v["file"]}') for v in known)


def spotting(folder, quick):
    "Lines of the table."
    yield ('| videos | sure | hard | blinks | long | speech | false alarms a minute | where nothing happens '
           '| during speech (a minute of it) | apex off, ms (9 of 10) |')
    yield '|---' * 10 + '|'
    for name, seeds, only in ROWS:
        if not (known := list(videos_of(folder, seeds, only, quick))): continue
        yield line(name, measure(known, {f: spot(s) for f, s in signals(folder, known).items()}))


NAMING = 'python benchmarks/spotting.py FOLDER/2 --model MODEL'
CLASSES = dict(happiness='positive', surprise='surprise', disgust='negative', sadness='negative')


def naming(folder, model):
    "True class and the likeliest one of each short movement that is found; how many are given one."
    from mpfnet.predict import predict
    classes, pairs, sure = {tuple(units): CLASSES[e] for e, units in SHOWN}, [], []
    for v in json.loads((folder/'truth.json').read_text(encoding='utf-8')):
        if not (truth := [t for t in v['truth'] if t['kind'] == 'micro']): continue
        found = predict(folder/v['file'], model, pictures=False, progress=False)
        for n, row in match(truth, found.events).items():
            said = found.named.get(row, {})
            if not said.get('probabilities'): continue
            pairs.append((classes[tuple(truth[n]['units'])], max(said['probabilities'], key=said['probabilities'].get)))
            if said['label'] != 'no class': sure.append(pairs[-1])
    def uf1(pairs):
        if not pairs: return float('nan')
        return f1_score(*zip(*pairs), average='macro', labels=sorted(set(CLASSES.values())), zero_division=0)
    about = json.loads((Path(model)/'config.json').read_text(encoding='utf-8'))
    return (f'Seed {folder.name}, `mpfnet fit {about["dataset"]} --method {about["method"]}`: {len(pairs)} short '
            f'movements found, UF1 of three classes {uf1(pairs):.3f} by the likeliest. {len(sure)} are given a class, '
            f'UF1 {uf1(sure):.3f} of these; of the others two are near. Drawn faces, and a model of drawn faces: says '
            'nothing of people.')


def speed(seconds=6, fps=30):
    "Frames a second of CPU time, and memory in MB before and after: 1080p with one face."
    with tempfile.TemporaryDirectory() as folder:
        times = tuple(np.arange(seconds*fps)/fps)
        film = Film(people=(Person(subject=1, size=400),), times=times, seed=1, width=1920, height=1080)
        path = write_film(Path(folder)/'a.mp4', draw_film(film), fps=fps)
        began, peak = time.process_time(), []
        for repeat in range(3):
            signal = signal_of(open_video(path).frames())
            peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)
        assert signal['face'].nunique() == 1
    return 3*seconds*fps/(time.process_time() - began), peak


def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('folder', type=Path, help='of the videos')
    p.add_argument('--quick', action='store_true', help='print only, from the signals that are there')
    p.add_argument('--model', help='folder of a model; FOLDER is that of one set of videos')
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.model:
        print(said := naming(args.folder, args.model))
        if not args.quick: write_section('naming', 'Classes of the events found', NAMING, [said])
        return
    lines = list(spotting(args.folder, args.quick))
    rate, peak = speed()
    memory = f'most memory after one, two and three passes: {", ".join(map(str, peak))} MB'
    lines += ['', f'1080p at 30 frames/s, one face: {rate:.0f} frames a second of CPU time; {memory}. '
                  'Drawn faces: says nothing of people.']
    print('\n'.join(lines))
    if not args.quick: write_section('spotting', 'Spotting', 'python benchmarks/spotting.py FOLDER', lines)


if __name__ == '__main__': main()
