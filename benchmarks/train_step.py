"""A training step of the encoder against a frozen plain one, and triplets mined in a batch against three forward
passes.

    python benchmarks/train_step.py [--quick]

On a CPU one thread and its CPU time, on a GPU CUDA events. Outputs and losses are compared before anything is timed.
"""
import copy

import torch
from reference_i3d import I3D
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from turns import in_turns, machine, parser, publish, ratio, shown, tf32, verdict, wall

from mpfnet.ca_i3d import CAI3D, encoder_preset
from mpfnet.pltn import triplet_loss
from mpfnet.train import ComputeConfig, SGDConfig, forward_of

#: preset, size, batch → the least speed-up asked for in float32 and bfloat16
ON_CPU = {('light', 32, 8): (1.6, 2.0), ('light', 32, 64): (1.6, 2.0), ('light', 64, 4): (1.3, 2.0),
          ('tiny', 48, 64): (None, None)}
ON_GPU = {('light', 64, 64): (None, None), ('paper', 128, 128): (None, 4.)}


def pair(preset, size, device):
    "The library's encoder and the frozen one, with the same weights."
    c = encoder_preset(preset)
    ours = CAI3D(5, embedding=None, preset=c)
    ours.drop.p = 0.
    plain = I3D(5, c.width, c.embedding, c.grid, c.stem_stride)
    plain.load_state_dict(ours.state_dict())
    return ours.to(device, memory_format=torch.channels_last_3d), plain.to(device)


def updating(net, loss, plain=False, lr=1e-4):
    "() → loss, after an update by SGD: the stage's own, or PyTorch's default."
    opt = (torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
           if plain else SGDConfig(lr=lr).optimizer(net.parameters()))
    def step():
        value = loss()
        opt.zero_grad(set_to_none=True)
        value.backward()
        opt.step()
        return value.detach()
    return step


def gap(a, b):
    "Relative difference of two lists of tensors."
    a, b = (torch.cat([v.flatten() for v in side]) for side in (a, b))
    return float((a - b).norm()/b.norm())


def one_function(preset, size, batch, device, updates=20):
    """Relative differences of gradients, and of the losses of the first updates, in float32 and bfloat16 against the
    frozen encoder; too large is an error. Without TF32, whose rounding is larger than what is asked."""
    x, out = torch.randn(batch, 5, 10, size, size, device=device), {}
    for precision, (of_gradients, of_losses) in dict(float32=(.01, 1e-3), bf16=(.5, .1)).items():
        with tf32(False): gradients, gates, losses = differences(preset, size, x, precision, updates)
        assert max(gradients, gates) < of_gradients, (
            f'{precision}: two different gradients: {gradients:.1e}, of the attention {gates:.1e}'
        )
        assert losses < of_losses, f'{precision}: two different networks: losses differ by {losses:.1e}'
        out[precision] = gradients, losses
    return out


def differences(preset, size, x, precision, updates):
    "Of all gradients, of the attention's alone, of the losses of some updates."
    torch.manual_seed(0)
    ours, plain = pair(preset, size, x.device)
    forward = forward_of(ours, ComputeConfig(precision=precision), x.device)
    for f in (forward, plain): f(x).square().mean().backward()
    gradients = gap([p.grad for p in ours.parameters()], [p.grad for p in plain.parameters()])
    gates = gap(
        *([p.grad for m in net.modules() if hasattr(m, 'gates') for p in m.parameters()] for net in (ours, plain))
    )
    a, b = (updating(n, lambda f=f: f(x).square().mean(), lr=.01) for n, f in ((ours, forward), (plain, plain)))
    return gradients, gates, max(abs(float(a())/float(b()) - 1) for _ in range(updates))


def step_times(preset, size, batch, device, rounds):
    """Times of an update: the frozen encoder, the same in channels_last_3d with the fused optimiser, the library's in
    float32 and in bfloat16; on a GPU the library's with TF32 in all products and in none, too."""
    x, (ours, plain) = torch.randn(batch, 5, 10, size, size, device=device), pair(preset, size, device)
    forward = {p: forward_of(ours, ComputeConfig(precision=p), device) for p in ('float32', 'bf16')}
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last_3d)
    steps = {
        'frozen': updating(plain, lambda: plain(x).square().mean(), True),
        'turned': updating(turned, lambda: turned(x).square().mean()),
    } | {p: updating(ours, lambda f=f: f(x).square().mean()) for p, f in forward.items()}
    if torch.device(device).type == 'cuda':
        steps |= {f'TF32 {"on" if on else "off"}': within(tf32, on, steps['float32']) for on in (True, False)}
    with FlopCounterMode(display=False) as count: steps['frozen']()
    return in_turns(steps, rounds, device), count.get_total_flops()


def within(context, argument, step):
    "The step, in a context of its own."
    def inside():
        with context(argument): return step()
    return inside


def compiled_times(preset, size, batch, device, rounds):
    "Times of an update, eager and through torch.compile; and the seconds until the first compiled update is done."
    x, (net, _) = torch.randn(batch, 5, 10, size, size, device=device), pair(preset, size, device)
    steps, setup = {}, {}
    for precision in ('float32', 'bf16'):
        for mode in ('', 'default'):
            forward = forward_of(net, ComputeConfig(precision=precision, compile=mode), device)
            steps[precision, mode] = updating(net, lambda f=forward: f(x).square().mean())
        setup[precision] = wall(steps[precision, mode])
    return in_turns(steps, rounds, device), setup


def matrix_rate(device, precision, n):
    "Operations a second of the machine's own product of two n×n matrices."
    a = torch.randn(n, n, device=device, dtype=dict(float32=torch.float32, bf16=torch.bfloat16)[precision])
    times = in_turns({'': lambda: a @ a}, 5, device)['']
    return 2*n**3/min(times)


def triplets(preset, size, batch, device, rounds):
    """Anchor, positive and negative each through the network, against every clip once: with the same triplets, and
    with all of the batch."""
    ours, _ = pair(preset, size, device)
    x, y, i = (torch.randn(batch, 5, 10, size, size, device=device), torch.arange(batch, device=device) % 3,
               torch.arange(batch, device=device))
    positive, negative = (i + 3) % batch, (i + 1) % batch                      # one triplet an anchor
    assert batch % 3 == 0 and bool((y[positive] == y).all()) and not bool((y[negative] == y).any())
    def hinge(a, p, n): return F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + .2).mean()
    def three(): return hinge(*(F.normalize(ours(x[k]), dim=1) for k in (i, positive, negative)))
    def once():
        e = F.normalize(ours(x), dim=1)
        return hinge(e, e[positive], e[negative])
    with torch.no_grad(): a, b = float(three()), float(once())
    assert abs(a - b) < 1e-4*a, f'the losses of the same triplets differ: {a}, {b}'
    return in_turns(
        {
            'three': updating(ours, three), 'once': updating(ours, once),
            'all': updating(ours, lambda: triplet_loss(ours(x), y)),
        },
        rounds,
        device,
    )


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cpu': torch.set_num_threads(1)
    rounds, updates, rows = *((2, 4) if args.quick else (9, 20)), []
    cases = {('tiny', 16, 6): (None, None)} if args.quick else ON_CPU if device == 'cpu' else ON_GPU
    n = 512 if args.quick else 2048 if device == 'cpu' else 8192
    rates = {p: matrix_rate(device, p, n) for p in ('float32', 'bf16')}
    for (preset, size, batch), asked in cases.items():
        gaps = one_function(preset, size, batch, device, updates)
        t, flops = step_times(preset, size, batch, device, rounds)
        for name in sorted(t.keys() & {'TF32 on', 'TF32 off'}):
            rows.append(
                f'| {preset}, {size}×{size}, batch {batch} | {min(t["frozen"]) * 1e3:.0f} ms | float32, {name} | – | '
                f'{shown(t, "frozen", name)} | | {shown(t, "turned", name)} | | |'
            )
        for precision, least in zip(('float32', 'bf16'), asked):
            share = flops/min(t[precision])/rates[precision]
            rows.append(
                f'| {preset}, {size}×{size}, batch {batch} | {min(t["frozen"]) * 1e3:.0f} ms | {precision} | '
                f'{least or "–"} | {shown(t, "frozen", precision)} | '
                f'{verdict(least, ratio(t, "frozen", precision)[0]) if least else ""} | '
                f'{shown(t, "turned", precision)} | {gaps[precision][0]:.0e}, {gaps[precision][1]:.0e} | {share:.0%} '
                f'|'
            )
    case = ('tiny', 16, 6) if args.quick else ('light', 32, 24) if device == 'cpu' else ('paper', 128, 126)
    t = triplets(*case, device, rounds)
    lines = [
        f'{rounds} rounds in turns, after one that is not counted; '
        f'{"CPU time, one thread" if device == "cpu" else "CUDA events"}; {machine()}. Speeds are multiples of the '
        f'other way, median (smallest–largest).',
        '',
        '**train_step**: forward, back and the update, against `reference_i3d.py`. "gradients, losses": relative '
        f'difference of the first gradients, and the largest of the losses of the first {updates} updates from the '
        'same weights. '
        f'"matrix rate" is the share of what the machine does in a {n}×{n} matrix product of that precision '
        f'({rates["float32"] / 1e12:.2g} and {rates["bf16"] / 1e12:.2g} TFLOP/s here).',
        '',
        '| encoder, input | frozen | precision | asked | got | | of the frozen one in channels_last_3d, fused SGD | '
        'gradients, losses | matrix rate |',
        '|---|---|---|---|---|---|---|---|---|',
        *rows,
        '',
        f'**triplets**: {case[0]}, {case[1]}×{case[1]}, {case[2]} clips, against three forward passes.',
        '',
        '| | asked | got | |',
        '|---|---|---|---|',
        f'| all triplets of the batch, each clip embedded once | 2.8 | {shown(t, "three", "all")} | '
        f'{verdict(2.8, ratio(t, "three", "all")[0])} |',
        f'| the very same triplets, each clip embedded once | 2.8 | {shown(t, "three", "once")} | '
        f'{verdict(2.8, ratio(t, "three", "once")[0])} |',
    ]
    if not args.quick:
        case = list(cases)[1]
        t, setup = compiled_times(*case, device, rounds)
        lines += [
            '',
            f'**torch.compile** (`compute.compile=default`): {case[0]}, {case[1]}×{case[1]}, batch {case[2]}, against '
            f'the same step uncompiled.',
            '', '| precision | got | set-up |', '|---|---|---|',
            *[f'| {p} | {shown(t, (p, ""), (p, "default"))} | {setup[p]:.0f} s |' for p in setup],
        ]
    publish(args, 'train_step', 'A training step', lines)


if __name__ == '__main__': main()
