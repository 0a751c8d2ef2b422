"""The numbers and pictures of the front page, on purpose: `make results`, or `python benchmarks/published.py --only
system`.

Runs what is missing below `runs/` (finished folds are kept), then writes `nbs/images/results.json` with the command,
commit,
processor and day of each number, and the pictures beside it. A run that has not finished is an error, and nothing is
written.

`python benchmarks/published.py --gather runs` trains nothing: it reads the finished runs of the release that lie in a
folder, and writes what travels with the package, mpfnet/published/*.csv: scores, differences between methods, and
predictions without labels. Runs that are not finished are left out, and said. `--front` then draws the front page's
table from these files. Run the page nbs/results/09_published.ipynb, and `make readme`, again after either.
The release needs `MPFNET_DATA`; how to fetch it stands in docs/data.md.
"""
import argparse
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mpfnet.core.checks import need, printable  # noqa: E402
from mpfnet.core.files import as_json, read_json  # noqa: E402
from mpfnet.core.keep import write_atomically, write_text  # noqa: E402
from mpfnet.loso import run  # noqa: E402
from mpfnet.metrics import KEY, ensemble, subject_draws, summarise  # noqa: E402
from mpfnet.results.compare import (
    AVERAGED,
    Side,
    compare,
    dataset_masks,
    drawn,
    quantiles,
    run_table,
    score_stack,
    seed_matrices,
    seed_weights,
)
from mpfnet.results.published import SHIPPED, front_row, method_place, published_scores, without_labels
from mpfnet.results.records import read_config  # noqa: E402
from mpfnet.results.report import METHOD_ORDER, as_markdown, publish, run_origin, scores_picture, setting_of
from mpfnet.results.runs import kind_of  # noqa: E402
from mpfnet.results.words import preset_of  # noqa: E402

IMAGES = ROOT / 'nbs' / 'images'
ONE = dict(preset='tiny', device='cpu')
SEEDS = ONE | dict(seed='0,1,2')
#: key of a table → (title of its picture, data set, method → parameters)
TABLES = dict(
    public_flow=(
        'REAL clips: MEGC2019 flow-28, 3-class, LOSO', 'megc2019_flow',
        dict(majority=ONE, pca_lda=ONE, scratch=SEEDS, pltn=SEEDS, plsm=SEEDS, mpfnet_p=SEEDS, mpfnet_c=SEEDS),
    ),
    demo=('SYNTHETIC clips, 3-class, LOSO', 'synth', dict(majority=ONE, mpfnet_c=ONE)),
)


def command_of(parameters):
    "What a reader would type for these numbers."
    given = ' '.join(f'-p {k} {v}' for k, v in parameters.items())
    return f'papermill nbs/05_loso.ipynb runs/{parameters["method"]}.ipynb {given}'


def ran(key, **where):
    "command → folder of each run of a table; what is there already is found, the rest is trained."
    _, dataset, methods = TABLES[key]
    asked = [dict(dataset=dataset, method=m) | p for m, p in methods.items()]
    folders = {}
    for parameters in asked:
        print(command_of(parameters), flush=True)
        folders[command_of(parameters)] = run(**parameters, **where)
    return folders


def draw_front(folder=IMAGES):
    "Fig. 2, read off the modules; it needs no run."
    from mpfnet.paper.drawings import draw_system
    figure = draw_system('paper').figure()
    return write_atomically(Path(folder) / 'system.png', lambda f: figure.savefig(f, format='png', dpi=86))


# %% what travels with the package
RELEASE = dict(dataset='megc2019_flow', task='3class')
DRAWS = 2000


def why_not(folder, config):
    "Why a run is left out, in words; empty if it is whole."
    try: metrics = read_json(folder/'metrics.json')
    except (OSError, ValueError): return 'no metrics.json: not finished'
    folds = metrics.get('folds', {})
    if folds.get('done') != folds.get('of'): return f'{folds.get("done")} of {folds.get("of")} folds'
    if metrics['pooled']['n'] != config['data']['clips']: return 'not every clip'
    preset, more = preset_of(config)
    return f'settings of its own: {", ".join(more)}' if more else ''


def whole_runs(folder):
    "{(method, split): {seed: (folder, config)}} of the finished runs of the release; the others, {name: why}."
    found, left = {}, {}
    for path in sorted(Path(folder).glob(f'{RELEASE["dataset"]}-{RELEASE["task"]}-*/config.json')):
        try: config = read_config(path)
        except (OSError, ValueError) as e: left[path.parent.name] = str(e)
        else:
            if 'runs' in config or 'configs' in config: continue    # a summary: its parts are read
            split, seed = config.get('split', 'subject'), config['seed']
            if why := why_not(path.parent, config): left[path.parent.name] = f'{config["method"]}, {split}, {why}'
            else: found.setdefault((config['method'], split), []).append((seed, path.parent, config))
    for (method, split), runs in found.items():
        names = ', '.join(f.name for _, f, _ in runs)
        need(len({setting_of(c) for *_, c in runs}) == 1, f'runs of {method}, {split}', names, 'one setting')
    order = sorted(found, key=lambda k: (k[1] != 'subject', k[1], method_place(k[0])))
    return {k: {seed: (f, c) for seed, f, c in sorted(found[k], key=lambda r: r[0])} for k in order}, left


def said_scores(m):
    "Of a metrics.json, as the columns of the file have them."
    ends = {f'{k}_{side}': m[f'{k}_ci95'][i] for k in ('uf1', 'uar') for i, side in enumerate(('low', 'high'))}
    return {k: m[k] for k in ('n', 'acc', 'f1_weighted', 'uf1', 'uar')} | ends


def mean_scores(tables, seeds):
    "The mean of the seeds' scores on some clips, and its interval over other subjects and other seeds."
    m = seed_matrices(tables, 3)
    never = m[0].sum((0, 2)) == 0
    mean = score_stack(m.sum(1), never).mean(0)
    draws = drawn(m, subject_draws(m.shape[1], DRAWS, 0), seed_weights(seeds, DRAWS, 0), never)
    (uf1, uar, *_) = np.quantile(draws, quantiles(m.shape[1]), axis=0).T.clip(0, 1)
    scores = dict(zip(('uf1', 'uar', 'acc', 'f1_weighted'), mean))
    return dict(n=len(tables[0])) | scores | dict(uf1_low=uf1[0], uf1_high=uf1[1], uar_low=uar[0], uar_high=uar[1])


def command_of_run(config, seeds):
    "What a reader would type for a run, or for all its seeds."
    preset, _ = preset_of(config)
    given = [f'-p {k} {v}' for k, v in (('dataset', config['dataset']), ('method', config['method']),
                                        ('split', config.get('split', 'subject')), ('seed', seeds), ('preset', preset),
                                        ('device', config['device'])) if v != '']
    return ' '.join(['mpfnet run', *given])


def rows_of_method(method, split, runs):
    "Of each seed, of their mean and of the averaged scores: pooled and dataset by dataset, with what made them."
    tables = {seed: run_table(f, 3) for seed, (f, _) in runs.items()}
    config, seeds = next(iter(runs.values()))[1], [*runs]
    of = {str(seed): read_json(f/'metrics.json') for seed, (f, _) in runs.items()}
    if len(seeds) > 1: of['averaged'] = summarise(ensemble([*tables.values()]), 3)
    made = {str(seed): run_origin(f) for seed, (f, _) in runs.items()}
    together = {k: ', '.join(sorted({str(m[k]) for m in made.values()})) for k in ('commit', 'processor')}
    together |= dict(date=max(m['date'] for m in made.values()), seconds=sum(m['seconds'] for m in made.values()))
    rows = []
    for data, here in dataset_masks(next(iter(tables.values()))).items():
        scores = {k: said_scores(m['pooled'] if data == 'pooled' else m['per_dataset'][data]) for k, m in of.items()}
        if len(seeds) > 1: scores['mean'] = mean_scores([t[here] for t in tables.values()], seeds)
        for seed in [*map(str, seeds), *(['mean', 'averaged'] if len(seeds) > 1 else [])]:
            which = seed if seed in made else ','.join(map(str, seeds))
            rows.append(dict(method=method, split=split, data=data, seed=seed, seeds=1 if seed in made else len(seeds))
                        | scores[seed] | dict(clips=config['data']['stamp'], command=command_of_run(config, which))
                        | made.get(seed, together))
    return rows


def rows_of_pairs(sides):
    "Every pair of methods of a split: B minus A, paired."
    rows = []
    for (a, b) in itertools.combinations(sides, 2):
        c = compare(sides[a], sides[b], n=DRAWS)
        kept = c.rows[c.rows['metric'].isin(['uf1', 'uar']) & (c.rows['scores'] != AVERAGED)]
        said = ['data', 'scores', 'metric', 'a', 'b', 'difference', 'low', 'high', 'p_swap', 'verdict']
        rows += [dict(method_a=a, method_b=b) | r for r in kept[said].to_dict('records')]
    return rows


def predictions_of(method, split, runs, keys):
    """{column: a text for each clip} of every seed, in an order that says nothing about labels; scores with as few
    digits as name the same classes when they are averaged."""
    tables = {seed: run_table(f, 3) for seed, (f, _) in runs.items()}
    same = all(without_labels(t)[KEY].to_dict('list') == keys for t in tables.values())
    need(same, f'{method}, {split}, clips', 'others', 'those of the other runs')
    names = [c for c in tables[min(tables)] if c.startswith('score_')]
    named, digits = ensemble([*tables.values()])['prediction'], 6            # what the runs themselves have written
    for fewer in (5, 4):
        rounded = ensemble([t.assign(**{c: t[c].round(fewer) for c in names}) for t in tables.values()])
        if (rounded['prediction'] == named).all(): digits = fewer
        else: break
    return {f'{method} {split} {seed}': without_labels(t).apply(in_a_cell, axis=1, args=(names, digits)).tolist()
            for seed, t in tables.items()}


def in_a_cell(row, names, digits):
    "Prediction and scores of a clip: '1 .4324 .5583 .0094'."
    def short(v): return re.sub(r'^(-?)0\.', r'\1.', f'{v:.{digits}f}'.rstrip('0').rstrip('.'))
    return ' '.join([str(row['prediction']), *(short(row[c]) for c in names)])


def as_csv(rows, digits=6):
    "Bytes that are the same on every machine."
    table = pd.DataFrame(rows)
    numbers = [c for c in table.select_dtypes('float') if c != 'seconds']
    return table.assign(**{c: table[c].round(digits) for c in numbers}).to_csv(index=False, lineterminator='\n')


def gather(runs, into=SHIPPED):
    "Read the finished runs of a folder, and write what travels with the package. Nothing is written if any is odd."
    found, left = whole_runs(runs)
    for name, why in left.items(): print(printable(f'left out: {name} ({why})'))
    need(found, f'{runs}, finished runs of {RELEASE["dataset"]}', 'none', 'at least one')
    stamps = {c['data']['stamp'] for by_seed in found.values() for _, c in by_seed.values()}
    need(len(stamps) == 1, 'clips of the runs', sorted(stamps), 'the same')
    stamp, into = stamps.pop(), Path(into)
    need(into != SHIPPED or kind_of(stamp) == 'public flow', 'clips', stamp, 'the release: it goes into the package')
    scores, pairs, first = [], [], next(iter(next(iter(found.values())).values()))[0]
    keys = without_labels(run_table(first, 3))[KEY].to_dict('list')
    predictions = dict(keys)
    for split in dict.fromkeys(split for _, split in found):
        sides = {}
        for (method, its), by_seed in found.items():
            if its != split: continue
            print(printable(f'{method}, {split}: seeds {", ".join(map(str, by_seed))}'), flush=True)
            scores += rows_of_method(method, split, by_seed)
            predictions |= predictions_of(method, split, by_seed, keys)
            sides[method] = Side(name=method, tables=[run_table(f, 3) for f, _ in by_seed.values()],
                                 seeds=[*by_seed], n_classes=3, stamp=stamp)
        pairs += [dict(split=split) | r for r in rows_of_pairs(sides)]
    into.mkdir(parents=True, exist_ok=True)
    write_text(into/'scores.csv', as_csv(scores))
    write_text(into/'differences.csv', as_csv(pairs or [dict(split='')], 5))
    write_text(into/'predictions.csv', as_csv(predictions))
    return into


def front(into=IMAGES, folder=SHIPPED):
    "The front page's table of the release from what travels with the package; every method of it must have its seeds."
    whole = set(published_scores(folder=folder).query('seeds >= 3')['method'])
    need(whole >= set(METHOD_ORDER), 'methods with three seeds', sorted(whole), f'all of {", ".join(METHOD_ORDER)}')
    rows = [front_row(m, folder) for m in METHOD_ORDER]
    each = published_scores(seeds='each', folder=folder).rename(columns=dict(method='name'))
    single = [dict(name=r['name'], seed=r['seed'], uf1=r['uf1'], uf1_ci95=[r['uf1_low'], r['uf1_high']])
              for r in each.to_dict('records') if r['name'] in METHOD_ORDER]
    title, path = TABLES['public_flow'][0], Path(into)/'results.json'
    picture = scores_picture(pd.DataFrame(rows + single), title)
    others = read_json(path) if path.exists() else {}
    write_text(path, as_json(others | dict(public_flow=dict(title=title, rows=rows))))
    write_atomically(Path(into)/'public_flow.png', lambda f: picture.savefig(f, format='png'))
    return path


def main(args=None):
    "Make what was asked for; returns the exit status."
    known = ('system', *TABLES)
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', default=','.join(known), help=f'of {",".join(known)}')
    p.add_argument('--out-dir', default=str(ROOT / 'runs'), help='the folder of the runs')
    p.add_argument('--workers', type=int, default=2, help='processes that a run folds')
    p.add_argument('--into', default=str(IMAGES), help='where results.json and the pictures are')
    p.add_argument('--gather', metavar='RUNS', help='train nothing: finished runs of this folder → mpfnet/published')
    p.add_argument('--front', action='store_true', help='train nothing: mpfnet/published → the table of the front page')
    p.add_argument('--gather-into', default=str(SHIPPED), help='another folder than mpfnet/published')
    a = p.parse_args(args)
    if a.gather:
        print(gather(a.gather, Path(a.gather_into)))
        return 0
    if a.front:
        print(front(a.into))
        return 0
    if unknown := [k for k in a.only.split(',') if k not in known]:
        p.error(f'unknown {", ".join(unknown)}; known: {", ".join(known)}')
    for key in a.only.split(','):
        if key == 'system':
            print(draw_front(a.into))
        else:
            print(
                as_markdown(
                    publish(Path(a.into) / 'results.json', key, ran(key, out_dir=a.out_dir, workers=a.workers),
                            TABLES[key][0])
                )
            )
    return 0


if __name__ == '__main__': sys.exit(main())
