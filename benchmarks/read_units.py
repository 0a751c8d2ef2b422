"""How well the prior of action units, which has seen no clip of a run, reads the units that a drawn clip shows.

    python benchmarks/read_units.py --datasets synth,smic,casme2,samm,mmew,casme_sq,casme3
    python benchmarks/read_units.py --datasets casme2 --tree 0.3

Other faces, of another seed and geometry, than those that the prior has learnt from. Without --tree onset and apex are
drawn as a look-alike of the dataset draws them, and nothing else; with it, a share of the dataset's people is written
with sheet and folders, and read by all that reads a real one: sheet, frames, face, recipe. All clips are DRAWN
FACES."""
import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mpfnet.clips import load_clips
from mpfnet.core.artefacts import Artefacts
from mpfnet.methods import method_of, override, recipe_of, settings_preset
from mpfnet.motion.face import resize
from mpfnet.preprocess import settled_face
from mpfnet.rivals.plau import flow_normalised, flow_of, mirror_flow, plau_prior
from mpfnet.store import FeatureStore
from mpfnet.synthetic.faces import draw_clip
from mpfnet.synthetic.lookalike import SIDES, TREES, lookalike_clips, make_lookalike
from mpfnet.synthetic.synth import plan_scripts
from mpfnet.synthetic.unit_flow import UNITS

LEAST = 10     # clips that show a unit; rarer ones have no score


def scripts_for(dataset, seed, size=None):
    "(subject, clip) → (what is drawn, whether grey)."
    if dataset == 'synth': return {(str(s.subject), s.clip): (s, False) for s in plan_scripts(seed, 20, 240)}
    tree = next(iter(TREES[dataset].values()))
    made = dict(seed=seed, size=size or SIDES.get(dataset, 128), defects=True)
    clips = lookalike_clips(tree.source or dataset, tree, **made)
    return {(c.subject, c.clip): (c.script, dataset == 'samm') for c in clips if not c.macro}


def fields_drawn(scripts, recipe):
    "u, v, strain (n, 3, 28, 28) of clips of which nothing but onset and apex is drawn."
    def one(s, grey):
        frames = [resize(np.repeat(f, 3, 2) if grey else f, recipe.size) for f in draw_clip(s, (s.onset, s.apex), grey)]
        faces = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        return flow_of(next(iter(recipe.features(faces, [0, 1], 1)))[None])[0]
    return torch.stack([one(*s) for s in scripts])


def fields_read(dataset, share, seed, recipe, root):
    "The same of a tree, read as a real one is; and the (subject, clip) of each."
    make_lookalike(dataset, root, scale=share, seed=seed, progress=False)
    clips = load_clips(dataset, root, task='3class').table
    store = FeatureStore(root/'features', settled_face(recipe, clips), 'frames')
    rows = store.ensure(clips, progress=False)
    return flow_of(store.F[rows]), list(zip(clips['subject'], clips['clip']))


def probabilities(net, x):
    "Of the units (n, 17): means over a clip and its mirror image."
    x, out = flow_normalised(x), []
    with torch.no_grad():
        for r in x.split(64): out.append((net(r)[1] + net(mirror_flow(r))[1])/2)
    return torch.cat(out).sigmoid().numpy()


def f1_scores(said, shown):
    "F1 of each unit; NaN where fewer than `LEAST` clips show it."
    f1 = 2*(said & shown).sum(0)/np.maximum(1, said.sum(0) + shown.sum(0))
    return np.where(shown.sum(0) >= LEAST, f1, np.nan)


def shown_in(scripts):
    "Units of the emotion, and all that move, each (n, 17)."
    sheet = np.array([[u in s.units for u in UNITS] for s in scripts])
    return sheet, sheet | np.array([[u in {k for k, _ in s.stray} for u in UNITS] for s in scripts])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--datasets', default='synth', help='synth, and datasets that have a look-alike')
    parser.add_argument('--tree', type=float, help='share of the people whose tree is written and read')
    parser.add_argument('--clips', type=int, default=150, help='drawn clips of a dataset, at most')
    parser.add_argument('--seed', type=int, default=77, help='of the clips that are read')
    parser.add_argument('--prior', type=int, default=0, help='seed of the prior')
    parser.add_argument('--method', default='au_zero', help='whose rows are read: au_zero, or mpfnet_a')
    parser.add_argument('--overrides', default='')
    parser.add_argument('--folder', help='where trees, rows and priors are kept')
    args = parser.parse_args()
    root = Path(args.folder or tempfile.mkdtemp())
    settings = override(settings_preset('paper'), args.overrides)
    recipe, start = recipe_of(args.method, settings), time.perf_counter()
    cpu = time.process_time()
    net = plau_prior(settings.plau, settings.unit_flow, args.prior, False, Artefacts(root/'priors'), recipe)
    print(f'prior of seed {args.prior}, rows of `{method_of(args.method).reads}`: '
          f'{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} s of a processor')
    print('\n| DRAWN clips like | clips | units with 10 or more | mean F1, all that move | of the emotion alone |')
    print('|---|---|---|---|---|')
    for dataset in args.datasets.split(','):
        found = scripts_for(dataset, args.seed)
        if args.tree:
            x, names = fields_read(dataset, args.tree, args.seed, recipe, root/f'{dataset}-{args.seed}')
        else:
            names = sorted(found)
            names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:args.clips]]
            x = fields_drawn([found[k] for k in names], recipe)
        said, (sheet, moving) = probabilities(net, x) > .5, shown_in([found[k][0] for k in names])
        f1 = f1_scores(said, moving)
        print(f'| {dataset}{", its tree" if args.tree else ""} | {len(names)} | {np.isfinite(f1).sum()} | '
              f'{np.nanmean(f1):.3f} | {np.nanmean(f1_scores(said, sheet)):.3f} |', flush=True)
        print('   ' + json.dumps({u: round(float(v), 2) for u, v in zip(UNITS, f1) if v == v}), flush=True)


if __name__ == '__main__': main()
