"""Floating-point operations and bytes of a forward and a backward pass, operation by operation, and the time that a
GPU of given rates needs at least if it does them one by one.

    python benchmarks/traffic.py [--quick] [--copy 4.3] [--matrix 790]

A count, not a measurement: a few clips in float32 on any computer, each floating-point number taken for the bytes that
it would have. Every operation reads its inputs and writes its outputs through the GPU's memory; batch norm reads its
input twice, a convolution's gradient reads the outer one twice.
A kernel of our own (`compute.kernels=triton`) moves each tensor that it is given once, sums and statistics with four
bytes a number; it is launched here, but not run, so no Triton is needed. Where batch norm reads its input twice, two
kernels do.
What neighbours read again (the windows of a max-pool, a convolution's) is taken for the cache's, for PyTorch's
operations and for ours. Caches help and bad kernels hurt; neither is counted.
"""
import inspect
from collections import defaultdict
from unittest.mock import patch

import torch
from reference_i3d import I3D
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from turns import parser, publish, verdict

from mpfnet.ca_i3d import CAI3D, encoder_preset
from mpfnet.core.kernels import Kernel, use_kernels

MATRIX, NORM, POOL, COPY, REST = ('convolutions, matrix products', 'batch norm, ReLU', 'max-pool',
                                  'concatenation, copies', 'attention and other')
FAMILIES = dict(convolution=MATRIX, mm=MATRIX, batch_norm=NORM, threshold=NORM, relu=NORM, max_pool=POOL, cat=COPY,
                copy=COPY, clone=COPY)
KERNELS = dict(moments=NORM, settled_moments=NORM, rectify=NORM, slopes=NORM, descend=NORM, pool_clips=POOL,
               unpool_clips=POOL, line_sums=REST, gate=REST)
# of their arguments, in any precision
FLOAT32 = {'found', 'stats', 'sums', 'lines', 'columns', 'a', 'more', 'running_mean', 'running_var', 'weight', 'bias'}
# arguments read a second time
TWICE = {'native_batch_norm': [0], 'native_batch_norm_backward': [0, 1], 'convolution_backward': [0]}
PYTORCH, OURS = 'the library, bf16', 'the library, bf16, our kernels'
# MB a clip, asked of the kernels
MOST = 400


def family(name): return next((f for part, f in FAMILIES.items() if part in name), REST)


def size(x, width): # tensor, or some; bytes of a floating-point number
    if isinstance(x, (list, tuple)): return sum(size(v, width) for v in x)
    return x.numel()*(width if x.is_floating_point() else x.element_size()) if torch.is_tensor(x) else 0


class Traffic(TorchDispatchMode):
    "Per operation: its family, floating-point operations, bytes. Kernels of our own are counted, and not run."

    def __init__(self, width):
        super().__init__()
        self.width, self.ops = width, []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **kwargs or {}), func.overloadpacket.__name__
        moves = not func.is_view and 'view' not in name and not name.startswith(('empty', 'new_empty', 'detach'))
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs or {}, out_val=out) if count else 0
        again = [args[i] for i in TWICE.get(name, ())]
        if moves: self.ops.append((family(name), flops, size([args, out, again], self.width)))
        return out
    def launched(self, kernel, programs, *args, **sizes):
        # what is given twice is read once
        given = {id(a): (name, a) for name, a in zip(inspect.signature(kernel.f).parameters, args)}
        self.ops.append(
            (
                KERNELS[kernel.f.__name__], 0,
                sum(size(a, 4 if name in FLOAT32 else self.width) for name, a in given.values()),
            )
        )


def step(net, batch, spatial, layout, width):
    "What one forward and backward pass does."
    x = torch.randn(batch, 5, 10, spatial, spatial).to(memory_format=layout)
    with Traffic(width) as t, patch.object(Kernel, '__call__', lambda *args, **sizes: t.launched(*args, **sizes)):
        net(x).square().mean().backward()
    return t.ops


def lowest(ops, copy, matrix):
    "Seconds: of each operation the longer of moving its bytes and of computing."
    return sum(max(b/copy, f/matrix) for _, f, b in ops)


def main(argv=None):
    p = parser(__doc__)
    p.add_argument('--copy', type=float, default=4.3, help='TB/s that a copy moves, read and written bytes together')
    p.add_argument('--matrix', type=float, default=790.0,
                   help='TFLOP/s of a large bf16 matrix product; TF32, which takes float32, has half of it')
    args = p.parse_args(argv)
    preset, spatial, batch = ('tiny', 32, 4) if args.quick else ('paper', 128, 8)
    c = encoder_preset(preset)
    ours, frozen = (CAI3D(5, embedding=None, preset=c).to(memory_format=torch.channels_last_3d),
                    I3D(5, c.width, c.embedding, c.grid, c.stem_stride))
    counts = {name: step(use_kernels(ours, which), batch, spatial, torch.channels_last_3d, 2)
              for name, which in ((PYTORCH, ''), (OURS, 'triton'))}
    counts['the frozen one, float32'] = step(frozen, batch, spatial, torch.contiguous_format, 4)
    rows, copy, all_of = [], args.copy*1e12, {name: sum(o[2] for o in ops)/batch/1e6 for name, ops in counts.items()}
    for name, ops in counts.items():
        matrix = args.matrix*1e12/(2 if 'float32' in name else 1)
        groups = defaultdict(lambda: [0, 0])
        for f, flops, moved in ops:
            groups[f][0] += flops
            groups[f][1] += moved
        for f, (flops, moved) in sorted(groups.items(), key=lambda kv: -kv[1][1]):
            rows.append(
                f'| {name} | {f} | {flops / batch / 1e9:.1f} | {moved / batch / 1e6:.0f} | '
                f'{lowest([o for o in ops if o[0] == f], copy, matrix) * 128 / batch * 1e3:.1f} ms |'
            )
        flops, moved, low = sum(o[1] for o in ops), sum(o[2] for o in ops), lowest(ops, copy, matrix)
        rows.append(
            f'| **{name}** | **all** | **{flops / batch / 1e9:.1f}** | **{moved / batch / 1e6:.0f}** | '
            f'**{low * 128 / batch * 1e3:.1f} ms**, {flops / low / matrix:.0%} of the matrix rate |'
        )
    lines = [
        f'`{preset}`, {spatial}×{spatial}. What limits a training step on a GPU: every operation reads its maps from '
        f'memory and writes them back. "At least" is the time of a batch of 128 with {args.copy:g} TB/s for copies '
        f'and {args.matrix:g} TFLOP/s for matrix products in bf16, half of that in TF32 (taken for an H200, not '
        f'measured here; give your own rates): '
        'of each operation the longer of moving and computing. Only fewer or fused operations can be faster: '
        '`compute.kernels=triton`, or `compute.compile`. These are counts; the speed-up from one encoder to the other '
        'is measured by `train_step.py`.',
        '',
        f'Asked of our kernels at `paper`: at most {MOST} MB a clip. Counted here: {all_of[OURS]:.0f}, against '
        f'{all_of[PYTORCH]:.0f} for PyTorch\'s operations'
        f'{"" if args.quick else ": " + verdict(MOST, all_of[OURS], False)}.',
        '',
        '| encoder | operations | GFLOP a clip | MB a clip | at least, 128 clips |',
        '|---|---|---|---|---|',
        *rows,
    ]
    publish(args, 'traffic', 'Bytes of a forward and a backward pass', lines)


if __name__ == '__main__': main()
