"""Memory that a GPU needs for an update, counted: every tensor that is alive, over two updates with momentum.

    python benchmarks/peak.py [--quick] [--preset paper]

Nothing is computed: tensors of PyTorch's `meta` device have shapes and no values. Maps of MPFNet's networks are taken
for bfloat16, as autocast has them; the rivals are trained in float32. Blocks are of 512 bytes, as PyTorch hands them
out; what cuDNN works with, and what lies unused between blocks, is not counted.
"""
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from turns import parser, publish, verdict

from mpfnet.ca_i3d import CAI3D
from mpfnet.episodes import encoders
from mpfnet.methods import settings_preset
from mpfnet.mpfnet_c import MPFNetC
from mpfnet.mpfnet_p import MPFNetP, Single
from mpfnet.rivals.afn import AFNNet
from mpfnet.rivals.fdp import FDPNet, fdp_loss

CLIPS, COPIES, SHAPE = 442, 3580, (5, 10, 128, 128)                     # the composite's rows
# clips of an update, at most: 4 episodes of 3 classes, 5 supports and 5 queries
EPISODE = 120
# GiB that every stage may need, the composite's rows on the GPU included
LIMIT = 20.


class Memory(TorchDispatchMode):
    "Bytes of tensors that are alive on the `meta` device, now and at most."

    def __init__(self):
        super().__init__()
        self.live, self.now, self.most = {}, 0, 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = as_cudnn_lays(func.overloadpacket.__name__, args, func(*args, **kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if torch.is_tensor(t) and t.device.type == 'meta': self.note(t.untyped_storage())
        return out
    def note(self, storage):
        if (key := storage._cdata) in self.live: return
        self.live[key] = -(-storage.nbytes()//512)*512
        self.now += self.live[key]
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.gone, key)
    def gone(self, key): self.now -= self.live.pop(key)


def as_cudnn_lays(name, args, out):
    """Results of a convolution with channels next to each other where its weights are; `meta` knows nothing of that,
    and copies would follow."""
    weight = dict(convolution=1, convolution_backward=2).get(name)
    if weight is None or args[weight].ndim != 5 or not args[weight].is_contiguous(memory_format=torch.channels_last_3d):
        return out
    def lay(v): return v.contiguous(memory_format=torch.channels_last_3d) if torch.is_tensor(v) and v.ndim == 5 else v
    return tuple(map(lay, out)) if isinstance(out, (tuple, list)) else lay(out)


def gigabytes(make, loss): # () → module; module → scalar loss
    "GiB at most of an update that is not the first: momentum is there."
    with Memory() as m:
        net = make().train()
        opt = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
        for p in net.parameters(): p.grad = torch.zeros_like(p)
        opt.step()
        opt.zero_grad()
        loss(net).backward()
        opt.step()
    return m.most/2**30


def encoder(settings): return CAI3D(SHAPE[0], embedding=None, preset=settings.encoder)


def in_halves(net): return net.to('meta', torch.bfloat16, memory_format=torch.channels_last_3d)


def embeddings(x):
    "module → a loss of all its embeddings."
    def loss(net):
        y = net(x)
        return sum(v.float().square().mean() for v in (y if isinstance(y, list) else [y]))
    return loss


def of_prior(settings, batch):
    "GiB of PLTN or PLSM."
    size = settings.preprocess.size
    x = torch.empty(batch, SHAPE[0], SHAPE[1], size, size, device='meta', dtype=torch.bfloat16)
    return gigabytes(lambda: in_halves(encoder(settings)), embeddings(x))


def of_episodes(settings, method, recompute):
    "GiB of an episodic stage."
    make = dict(
        mpfnet_p=lambda: MPFNetP(encoder(settings), encoder(settings)),
        mpfnet_c=lambda: MPFNetC(encoder(settings), encoder(settings)), plsm=lambda: Single(encoder(settings)),
    )[method]
    def matcher():
        net = in_halves(make())
        for e in encoders(net): e.recompute = recompute
        return net
    size = settings.preprocess.size
    return gigabytes(
        matcher, embeddings(torch.empty(EPISODE, SHAPE[0], SHAPE[1], size, size, device='meta', dtype=torch.bfloat16))
    )


def of_fdp(settings):
    c = settings.fdp
    rows, y = (torch.empty(c.batch, 1, 9, c.size, c.size, device='meta'),
               torch.zeros(c.batch, dtype=torch.long, device='meta'))
    return gigabytes(lambda: FDPNet(c, 3).to('meta'), lambda net: fdp_loss(net, rows, y, c))


def of_afn(settings):
    x = torch.empty(settings.afn.batch, 1, 2, 128, 128, device='meta')
    return gigabytes(lambda: AFNNet(1, 3, settings.afn).to('meta'), lambda net: net(x).square().mean())


def beside(settings): # GiB
    "What lies on the GPU besides: the composite's rows in float16, and its training clips in float32."
    number = SHAPE[0]*SHAPE[1]*settings.preprocess.size**2/2**30
    return 2*(CLIPS + COPIES)*number + 4*CLIPS*number


def stages(settings):
    "Name → (GiB of the update, whether the composite's rows are there, too)."
    p, c = settings.pltn, settings.plsm
    yield f'PLTN, batch {p.batch}', of_prior(settings, p.batch), True
    yield f'PLSM, batch {c.batch}', of_prior(settings, c.batch), True
    for method in ('plsm', 'mpfnet_p', 'mpfnet_c'):
        for recompute in (settings.meta.recompute, not settings.meta.recompute):
            yield (
                f'episodes of {method}, {EPISODE} '
                f'clips{", maps before the second block made twice" if recompute else ""}',
                of_episodes(settings, method, recompute), True,
            )
    yield f'fdp, batch {settings.fdp.batch}', of_fdp(settings), False
    yield f'afn, batch {settings.afn.batch}', of_afn(settings), False


def main(argv=None):
    p = parser(__doc__)
    p.add_argument('--preset', default='paper')
    args = p.parse_args(argv)
    settings = settings_preset('tiny' if args.quick else args.preset)
    rest, rows = beside(settings), []
    for name, update, resident in stages(settings):
        total = update + rest*resident
        default = 'made twice' in name or 'episodes' not in name or not settings.meta.recompute
        rows.append(
            f'| {name} | {update:.1f} | {total:.1f} | '
            f'{verdict(LIMIT, total, False) if default else "not the default"} |'
        )
    lines = [
        f'Preset `{"tiny" if args.quick else args.preset}`, GiB, counted and not measured. "In all" includes '
        f'{rest:.1f} GiB for the composite: {CLIPS} clips and {COPIES} copies in float16, and the training clips in '
        f'float32. Asked: {LIMIT:.0f} GiB at most, so that a card of 24 GB holds a fold.',
        '', '| update | by itself | in all | |', '|---|---|---|---|', *rows,
    ]
    publish(args, 'peak', 'Memory of an update on a GPU', lines)


if __name__ == '__main__': main()
