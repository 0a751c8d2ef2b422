"""What a user would otherwise run, against this library: STSTNet's folds, flow of a data set, descriptors, a fold of
MPFNet, reading six data sets.

    python benchmarks/peers.py [--quick]

The other side is `reference_peers.py`, frozen: a loop over folds, pairs, pixels, blocks or sheets, as one would first
write it. Outputs are compared before anything is timed; then both take turns, one thread, CPU time. Whole data sets are
extrapolated from parts, and said to be.
"""
import copy
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import reference_peers as plain
import torch
from fold import composite
from reference_i3d import I3D
from torch import nn
from torch.nn import functional as F
from turns import in_turns, machine, parser, publish, ratio, shown, verdict

from mpfnet.ca_i3d import CAI3D
from mpfnet.clips import load_clips
from mpfnet.core.workers import keep_freed_memory, one_thread
from mpfnet.data.labels import MEGC2019
from mpfnet.episodes import draw_episode, episode_loss, train_episodes
from mpfnet.folds import Fold
from mpfnet.methods import Context, override, settings_preset
from mpfnet.motion.flow import flow
from mpfnet.motion.inputs import NO_AUGMENT
from mpfnet.mpfnet_c import MPFNetC
from mpfnet.mpfnet_p import MPFNetP, Single
from mpfnet.plsm import balanced_items, copies_of, train_plsm
from mpfnet.pltn import train_pltn
from mpfnet.priors import Prepared
from mpfnet.rivals.baselines import Dropout, FittedSTSTNet, STSTNet
from mpfnet.rivals.descriptors import bi_woof, lbp_top, optical_strain
from mpfnet.synthetic.faces import draw_clip, invert, motion
from mpfnet.synthetic.lookalike import make_lookalike
from mpfnet.synthetic.synth import plan_scripts
from mpfnet.train import batches, generator, seeded, stage_generator

PEER, OURS = 'as one would first write it', 'mpfnet'


def gap(a, b): return float((a - b).norm()/b.norm()) # of two tensors, relative


# a row of the table; whole: (words, seconds of the peer, of ours) of the whole task
def line(what, asked, found, agree, whole):
    words, *seconds = whole
    peer, ours = (f'{s/60:.1f} min' if s >= 90 else f'{s:.2g} s' if s < 10 else f'{s:.0f} s' for s in seconds)
    return (f'| {what} | {agree} | {words} | {peer} | {ours} | {asked} | **{shown(found, PEER, OURS)}** | '
            f'{verdict(asked, ratio(found, PEER, OURS)[0])} |')


def medians(found): return [float(np.median(found[k])) for k in (PEER, OURS)]

# ---- STSTNet


def release(quick):
    "Clips in the form of the public flow release, with made-up flow: 442 of 68 subjects."
    r, rows = np.random.default_rng(0), []
    for d, (counts, people) in MEGC2019.items():
        rows += [dict(dataset=d, subject=f's{k % people:02}', clip=f'{k:03}', label=y, input='flow28')
                 for k, y in enumerate(np.repeat([0, 1, 2], counts))]
    clips = pd.DataFrame(rows).sort_values(['dataset', 'subject', 'clip'], ignore_index=True)
    if quick: clips = clips[clips['dataset'] == 'smic'].iloc[::4].reset_index(drop=True)
    x = r.normal(128, 40, (len(clips), 3, 28, 28))
    for i, y in enumerate(clips['label']): x[i, :2, 8*y:8*y + 8] += 12
    return clips, (x.round().clip(0, 255)[:, :, None]/255).astype(np.float16)


def same_start(net, start): # Streams, STSTNet
    "Give the plain network the weights that the fold of this library starts from."
    first = 0
    for stream in net.streams:
        last = first + len(stream[0].weight)
        stream[0].weight.data, stream[0].bias.data = (start[0].weight[first:last].detach().clone(),
                                                      start[0].bias[first:last].detach().clone())
        first = last
    net.head.load_state_dict(start[-1].state_dict())
    return net


def in_double(fold, x, y, test, epochs):
    """Relative difference of the weights after some epochs from the same start, with the same draws of dropout, where
    rounding is small. In float32 Adam makes steps of what is only rounding."""
    g = stage_generator(fold, 'ststnet')
    ours = seeded(lambda: STSTNet(3, 3), g).double().train()
    peer, x = same_start(plain.Streams(), ours).double(), x.double()
    peer.dropout = Dropout(.5)
    torch.manual_seed(g.initial_seed())
    plain.ststnet_fold(x, y, test, peer, epochs)
    torch.manual_seed(g.initial_seed())
    optimiser = torch.optim.Adam(ours.parameters(), lr=2e-4)
    for images, labels in list(zip(x[~test].split(256), y[~test].split(256)))*epochs:
        optimiser.zero_grad()
        F.cross_entropy(ours(images), labels).backward()
        optimiser.step()
    return max(gap(ours[0].weight, torch.cat([s[0].weight for s in peer.streams])),
               gap(ours[-1].weight, peer.head.weight))


def ststnet(quick, rounds):
    clips, features = release(quick)
    epochs, held = 2 if quick else 20, clips[['dataset', 'subject']].drop_duplicates().to_numpy()[[0, -1]]
    settings = override(settings_preset('paper'), f'ststnet.epochs={epochs}')
    x, y = 255*torch.from_numpy(features[:, :, 0].astype(np.float32)), torch.from_numpy(clips['label'].to_numpy())
    def fold(who): return Fold(clips, features, [tuple(who)], n_classes=3)
    def ours(): return FittedSTSTNet(fold(held[0]), Context(settings=settings))
    def tested(who): return torch.from_numpy((clips[['dataset', 'subject']] == who).all(axis=1).to_numpy())
    def peer(): return plain.ststnet_fold(x, y, tested(held[0]), plain.Streams(), epochs)
    off = max(in_double(fold(who), x, y, tested(who), 1 if quick else 5) for who in held)
    assert off < 1e-9, f'two different networks: weights in double precision differ by {off:.1e}'
    found = in_turns({PEER: peer, OURS: ours}, rounds)
    folds, times = clips[['dataset', 'subject']].drop_duplicates().shape[0], 200/epochs
    whole = (f'{folds} folds of 200 epochs, from a fold of {epochs}', *(s*folds*times for s in medians(found)))
    return line('STSTNet, a fold', 3, found, f'weights in double precision {off:.0e}', whole)

# ---- optical flow


def filmed(quick):
    "Synthetic faces at CASME II's 200 frames a second: script and grey frames from onset to apex, 8 bits."
    scripts, out = plan_scripts(0, 4, 12, size=64 if quick else 128, fps=200, peak=1., clutter=.7), []
    for s in scripts[:1] if quick else scripts[::4]:
        numbers = list(range(s.onset, s.apex + 1))
        out.append((s, numbers, [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in draw_clip(s, numbers)]))
    return out


def true_flow(s, a, b): # script; two frames
    "Where each pixel of frame a has gone in frame b, px (2, H, W)."
    went, back = motion(s, b) - motion(s, a), invert(motion(s, a))
    y, x = np.mgrid[:s.size, :s.size].astype(np.float32)
    return np.stack(
        [cv2.remap(v, x + back[0], y + back[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for v in went]
    )


def pairs_of(clips, apex): # what `filmed` returns; onset and apex alone, or all neighbours
    "(A, B) of each clip, and the true flows."
    for s, numbers, frames in clips:
        i = [0, -1] if apex else range(len(frames))
        yield (
            [frames[k] for k in i],
            np.stack([true_flow(s, numbers[a], numbers[b]) for a, b in zip(list(i)[:-1], list(i)[1:])]),
        )


def our_flows(frames, method): # grey images
    x = torch.from_numpy(np.stack(frames))[:, None].float()/255
    return flow(x[:-1], x[1:], method).numpy()


def their_flows(frames): return np.stack([plain.tvl1(a, b) for a, b in zip(frames, frames[1:])]).transpose(0, 3, 1, 2)


def error(found, truth):
    "Mean end-point error where the motion is at least 0.3 of its peak, px."
    length = np.hypot(*truth.swapaxes(0, 1))
    return float(np.hypot(*(found - truth).swapaxes(0, 1))[length >= .3*length.max()].mean())


def optical_flow(quick, rounds):
    """Each task by the method that the recipe for it takes: MPFNet's neighbours by `ilk`, the descriptors' pair by
    `dis`."""
    clips, lines = filmed(quick), []
    for name, apex, method, asked in (('neighbours, onset to apex', False, 'ilk', 15),
                                      ('a pair, onset and apex', True, 'dis', 1)):
        work = list(pairs_of(clips, apex))
        n = sum(len(t) for _, t in work)
        def ours(): return [our_flows(f, method) for f, _ in work]
        def theirs(): return [their_flows(f) for f, _ in work]

        off, other, still = (float(np.mean([error(v, truth) for v, (_, truth) in zip(found, work)]))
                             for found in (ours(), theirs(), [0 * t for _, t in work]))
        assert max(off, other) < 0.6 * still if apex else off < still, (
            f'no flow: errors of {off:.3f} and {other:.3f} px where standing still makes {still:.3f}'
        )
        found = in_turns({PEER: theirs, OURS: ours}, rounds)
        whole = (f'255 clips, {n*255//len(clips)} pairs, from {n}', *(s*255/len(clips) for s in medians(found)))
        lines.append(
            line(f'flow, {name}', asked, found,
                 f'end-point error, px: TV-L1 {other:.3f}, `{method}` {off:.3f}, none at all {still:.3f}', whole)
        )
    return lines

# ---- descriptors


def descriptors(quick, rounds):
    s, numbers, frames = filmed(quick)[0]
    volume = np.stack(frames)[:9 if quick else 20]
    push = motion(s, s.apex).astype(np.float64)
    ways = {
        'LBP-TOP, a clip': (lambda: plain.lbp_top(volume), lambda: lbp_top(volume), f'{volume.shape[0]} frames'),
        'Bi-WOOF, a clip': (lambda: plain.bi_woof(push), lambda: bi_woof(push, optical_strain(push).numpy()), 'a flow'),
    }
    lines = []
    for name, (peer, ours, of) in ways.items():
        off = float(np.abs(peer() - ours()).max())
        assert off < 1e-12, f'{name}: two different descriptors, {off:.1e} apart'
        found = in_turns({PEER: peer, OURS: ours}, rounds, warm=0)
        lines.append(
            line(name, 5, found, f'largest difference {off:.0e}',
                 (f'255 clips, from one of {of}, {s.size}×{s.size}', *(v * 255 for v in medians(found))))
        )
    return lines

# ---- a fold of MPFNet


def stages(quick):
    """A fold of the composite in shape (random features), prepared; settings without what the plain one does not have:
    augmentation, averaged weights, mirrored tests."""
    s = override(settings_preset('tiny'),
                 'encoder.dropout=0,pltn.epochs=1,plsm.epochs=1,meta.updates=2,meta.average=0,meta.mirror=false'
                 + (',preprocess.size=16,plsm.phi_limit=1' if quick else ''))
    s = replace(s, augment=NO_AUGMENT)
    fold = composite(s.preprocess.shape('frames'), 'cpu', .1 if quick else .3)
    return s, Prepared(fold, s.features, 'cpu', s.compute)


def frozen(s, ours): # settings; CA-I3D
    "The frozen encoder with the same weights."
    c, channels = s.encoder, ours.stem.conv.in_channels
    net = I3D(channels, c.width, c.embedding, c.grid, c.stem_stride)
    net.load_state_dict(ours.state_dict())
    return net


def agree(s, data):
    """Largest relative difference of what the two ways compute from the same weights: embeddings, and the losses of
    three stages."""
    def encoder(): return CAI3D(5, embedding=None, preset=s.encoder).eval()
    torch.manual_seed(0)
    x, y, gfe, afe = data.x[:24], torch.arange(24) % 3, encoder(), encoder()
    with torch.no_grad():
        for net in (gfe, afe):  # statistics that are not those of an untrained network
            net.train()(x)
            net.eval()
        e, a, p, n = F.normalize(gfe(x), dim=1), torch.arange(18), torch.arange(18) + 3, torch.arange(18) + 1
        ours = [gfe(x), F.relu((e[a] - e[p]).square().sum(1) - (e[a] - e[n]).square().sum(1) + .2).mean()]
        theirs = [frozen(s, gfe).eval()(x), plain.hinge(frozen(s, gfe).eval(), x, a, p, n)]
        support, query = torch.arange(12), torch.arange(12, 24)
        peers = [plain.Parallel(frozen(s, gfe), frozen(s, afe)).eval(),
                 plain.Cascade(frozen(s, gfe), frozen(s, afe)).eval()]
        for peer, m in zip(peers, (MPFNetP(gfe, afe), MPFNetC(gfe, copy.deepcopy(afe)))):
            if hasattr(m, 'bridge'): peer.bridge.load_state_dict(m.bridge.state_dict())
            ours.append(episode_loss(m.eval()(x), y, [(support, query)], m.weights, s.meta.tau, 3))
            theirs.append(plain.query_loss(peer, x, y, support, query, s.meta.tau))
    return max(gap(v, w) for v, w in zip(ours, theirs))


def mpfnet_fold(quick, rounds):
    s, data = stages(quick)
    off = agree(s, data)
    assert off < 1e-3, f'two different networks: {off:.1e} apart'
    y, g = data.y, generator(0, 'peers')
    def encoder(): return CAI3D(5, embedding=None, preset=s.encoder)
    i, phi = balanced_items(copies_of(data.fold.clips, 3, s.plsm.phi_limit, s.plsm.phi))
    # the plain one has them in memory
    copies, labels = data(data.fold.magnified(i, phi)), y[torch.from_numpy(i)]
    anchors = [torch.from_numpy(b) for b in batches(len(data), s.pltn.batch, 1, g)]
    items = [torch.from_numpy(b) for b in batches(len(i), s.plsm.batch, 1, g)]
    drawn = [
        [
            tuple(map(torch.from_numpy, draw_episode(y.numpy(), s.meta.shot, s.meta.queries, g)))
            for _ in range(s.meta.episodes)
        ]
        for _ in range(s.meta.updates)
    ]
    def fresh(): return frozen(s, encoder())
    def episodes(plain_one, our_one):  # () → a matcher
        return lambda: plain.train_episodes(plain_one(), data.x, y, drawn, s.meta.lr), lambda: train_episodes(
            our_one(), data, s.meta, s.augment, 3
        )
    parts = {
        'PLTN': (lambda: plain.train_triplets(fresh(), data.x, y, anchors, s.pltn.lr),
                 lambda: train_pltn(data, s.encoder, s.pltn, s.augment)),
        'PLSM': (
            lambda: plain.train_classifier(
                fresh(), nn.Linear(s.encoder.embedding, 3), copies, labels, items, s.plsm.lr
            ),
            lambda: train_plsm(data, s.encoder, s.plsm, s.augment, 3),
        ),
        'one encoder': episodes(lambda: plain.Alone(fresh()), lambda: Single(encoder())),
        'MPFNet-P': episodes(lambda: plain.Parallel(fresh(), fresh()), lambda: MPFNetP(encoder(), encoder())),
        'MPFNet-C': episodes(lambda: plain.Cascade(fresh(), fresh()), lambda: MPFNetC(encoder(), encoder())),
    }
    t = in_turns({(k, way): f for k, both in parts.items() for way, f in zip((PEER, OURS), both)}, rounds)
    # epochs grow with the clips, episodes do not
    whole, n = settings_preset('tiny'), 442/len(data.fold.clips)
    times = dict(PLTN=whole.pltn.last * n, PLSM=whole.plsm.last * n) | dict.fromkeys(
        ('one encoder', 'MPFNet-P', 'MPFNet-C'), whole.meta.updates / s.meta.updates
    )
    lines = []
    for name, counts, priors in (('the runs P and C', dict.fromkeys(('MPFNet-P', 'MPFNet-C'), 1), 2),
                                 ('the four runs of Table IV', {'one encoder': 2, 'MPFNet-P': 1, 'MPFNet-C': 1}, 3)):
        # priors of each run, or of all
        runs = {PEER: dict(PLTN=priors, PLSM=priors) | counts, OURS: dict(PLTN=1, PLSM=1) | counts}
        found = {way: [sum(times[k] * c * t[k, way][r] for k, c in runs[way].items()) for r in range(rounds)]
                 for way in (PEER, OURS)}
        of = (f'442 clips, `tiny`, from an epoch of PLTN and of PLSM with {len(data)} clips and {s.meta.updates} '
              f'updates of each')
        lines.append(
            line(f'MPFNet, a fold, {name}', 4, found, f'embeddings and losses {off:.0e}', (of, *medians(found)))
        )
    each = ', '.join(f'{k} {shown({w: t[k, w] for w in (PEER, OURS)}, PEER, OURS)}' for k in parts)
    return lines, f'MPFNet, stage by stage, each trained once: {each}.'

# ---- reading


def reading(quick, rounds):
    with tempfile.TemporaryDirectory() as d:
        names, lost, wrong, clips = list(plain.READ)[:2 if quick else None], 0, 0, 0
        for name in names:
            make_lookalike(name, d, blank=True, progress=False, **dict(subjects=3) if quick else {})
            ours, theirs = ({(r.subject, r.clip): r for r in t.itertuples()}
                            for t in (load_clips(name, d), plain.read_clips(name, Path(d) / name)))
            both = ours.keys() & theirs.keys()
            differ = [k for k in both
                      if any(getattr(ours[k], c) != getattr(theirs[k], c) for c in ('label', 'onset', 'offset'))]
            clips, lost, wrong = clips + len(ours), lost + len(ours.keys() ^ theirs.keys()), wrong + len(differ)
            assert len(both) > 0.85 * len(ours) and len(differ) < 0.2 * len(ours), (
                f'{name}: {len(both)} clips in both tables of {len(ours)}, {len(differ)} of them with other times or '
                f'labels'
            )
        found = in_turns(
            {
                PEER: lambda: [plain.read_clips(n, Path(d) / n) for n in names],
                OURS: lambda: [load_clips(n, d) for n in names],
            },
            rounds,
        )
    said = (f'of {clips} clips the plain table lacks, or has too many, {lost}, and has other times for {wrong}: the '
            f'known defects of sheets')
    return line('reading six data sets', 1, found, said,
                ('look-alikes with the published clips, 3 classes', *medians(found)))


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    warnings.simplefilter('ignore')
    rounds = 1 if args.quick else 5
    keep_freed_memory()                                                      # of both sides
    with one_thread():
        fold, stages = mpfnet_fold(args.quick, min(rounds, 3))
        rows = [ststnet(args.quick, rounds), *optical_flow(args.quick, min(rounds, 3)),
                *descriptors(args.quick, min(rounds, 3)), *fold, reading(args.quick, rounds)]
    tv = "OpenCV's" if hasattr(cv2, 'optflow') else "scikit-image's"
    lines = [
        f'Both sides in turns, CPU time of one thread, {machine()}. *Got* is how many times as fast this library is: '
        f'median (smallest–largest) of {rounds} rounds (flow, descriptors, MPFNet: {min(rounds, 3)}). '
        f'The other side is `reference_peers.py`, as one would first write it; TV-L1 is {tv}. Synthetic and made-up '
        f'data.',
        '',
        '| what | outputs, compared first | whole | as one would write it | mpfnet | asked | got | |',
        '|---|---|---|---|---|---|---|---|',
        *rows,
        '',
        stages,
    ]
    publish(args, 'peers', 'Beside what a user would otherwise run', lines)


if __name__ == '__main__': main()
