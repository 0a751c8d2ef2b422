"""Does CUDA compute what the CPU does? Modules, the encoder and the losses of a stage, against the CPU."""
import copy
from importlib.util import find_spec

import torch
from fold import composite
from turns import tf32

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, judge
from mpfnet.ca_i3d import CAI3D, CAInception, CoordinateAttention, Unit
from mpfnet.methods import override, settings_preset
from mpfnet.motion.inputs import NO_AUGMENT
from mpfnet.plsm import train_plsm
from mpfnet.pltn import train_pltn
from mpfnet.priors import Prepared
from mpfnet.train import ComputeConfig, forward_of

#: name → device, precision, whether convolutions may use TF32
WAYS = {'cpu float32': ('cpu', 'float32', False), 'cpu bf16': ('cpu', 'bf16', False),
        'gpu float32': (DEVICE, 'float32', False), 'gpu tf32': (DEVICE, 'float32', True),
        'gpu bf16': (DEVICE, 'bf16', True)}
KERNELS = 'gpu bf16, our kernels'                      # compute.kernels=triton, where Triton is
if DEVICE == 'cuda' and find_spec('triton'): WAYS[KERNELS] = DEVICE, 'bf16', True


def relative(a, b):
    "‖a − b‖ / ‖b‖ in float64 on the CPU."
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm()/b.norm().clamp_min(1e-300))


def pass_of(net, x, device, precision, kernels=''):
    "Output, gradient of the input, gradients of the weights, all flat."
    net = copy.deepcopy(net).to(device, x.dtype, memory_format=torch.channels_last_3d)
    x = x.detach().clone().to(device).requires_grad_()
    y = (net(x) if x.dtype == torch.float64
         else forward_of(net, ComputeConfig(precision=precision, kernels=kernels), device)(x))
    weights = torch.linspace(-1, 1, y[0].numel(), dtype=x.dtype).view_as(y[0]).to(device)
    (y*weights).sum().backward()                       # a loss that weighs all outputs
    return y, x.grad, torch.cat([p.grad.flatten() for p in net.parameters()])


def errors(net, x):
    "{way: relative errors of output, input's and weights' gradients}, against float64 on the CPU."
    exact, found = pass_of(net, x.double(), 'cpu', ''), {}
    for way, (device, precision, rounded) in WAYS.items():
        with tf32(rounded): got = pass_of(net, x, device, precision, 'triton' if way == KERNELS else '')
        found[way] = [relative(a, b) for a, b in zip(got, exact)]
    return found


def networks():
    "name → module, its input."
    torch.manual_seed(0)
    c, size, n = (16, (4, 8, 8), 2) if SMOKE else (64, (10, 16, 16), 4)
    x = torch.randn(n, c, *size).relu()                                       # ties at zero, as in the encoder
    for name, net in {'unit, 1×1×1': Unit(c, c), 'unit, 3×3×3': Unit(c, c, 3), 'attention': CoordinateAttention(c),
                      'inception': CAInception(c, c, (c, c), (8, 16), 16)}.items(): yield name, net, x
    preset, size, n = ('tiny', 16, 2) if SMOKE else ('light', 48, 4)
    net = CAI3D(5, embedding=None, preset=preset)
    net.drop.p = 0.
    yield f'encoder, {preset}', net, torch.randn(n, 5, 4 if SMOKE else 10, size, size)


def of_modules():
    for name, net, x in networks():
        with attempt(name):
            found = errors(net, x)
            for way, (output, x_gradient, w_gradient) in found.items():
                emit('rounding', of=name, way=way, output=output, input_gradient=x_gradient, weight_gradient=w_gradient)
            worst = {way: max(e) for way, e in found.items()}
            # a ReLU that flips is an error, too, on either
            for precision, most in (('float32', 5), ('bf16', 2)):
                got, there = (worst[f'{device} {precision}'] for device in ('gpu', 'cpu'))
                judge(f"{name}: error in {precision}, of the CPU's", most, got/max(there, 1e-5), False)
            if KERNELS in worst:
                judge(f"{name}: error of our kernels, of the CPU's in bf16", 2,
                      worst[KERNELS] / max(worst['cpu bf16'], 1e-5), False)


def losses_of(stage, way):
    "The first twenty losses of a stage at a fixed seed, on a small fold of the composite."
    device, precision, rounded = WAYS[way]
    fold = composite((5, 4, 16, 16) if SMOKE else (5, 4, 32, 32), 'cpu', .05 if SMOKE else .15)
    s = override(settings_preset('tiny'), 'plsm.epochs=4,'
                 + ('pltn.epochs=2,plsm.phi_limit=1' if SMOKE else 'pltn.epochs=20'))
    data = Prepared(fold, device=device,
                    compute=ComputeConfig(precision=precision, kernels='triton' if way == KERNELS else ''))
    with tf32(rounded):
        if stage == 'pltn': losses = train_pltn(data, s.encoder, s.pltn, NO_AUGMENT)[1]
        else: losses = train_plsm(data, s.encoder, s.plsm, NO_AUGMENT, 3)[1]
    return losses[:20]


def of_losses():
    for stage in ('pltn', 'plsm'):
        with attempt(f'losses of {stage}'):
            found = {way: losses_of(stage, way)
                     for way in ('cpu float32', 'gpu float32', 'gpu bf16', KERNELS) if way in WAYS}
            for way, values in found.items(): emit('losses', stage=stage, way=way, updates=len(values), losses=values)
            first = found['cpu float32']
            for way, most in (('gpu float32', 1e-3), ('gpu bf16', .1), (KERNELS, .1)):
                if way not in found: continue
                gap = max(abs(a - b)/max(abs(b), abs(first[0])) for a, b in zip(found[way], first))
                judge(f'{stage}: losses from one seed, {way}, from the CPU', most, gap, False)


def main():
    torch.set_num_threads(1 if SMOKE else 4)
    of_losses()
    of_modules()
