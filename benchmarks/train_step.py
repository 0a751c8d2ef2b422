"""A training step of the encoder against a frozen plain one, and triplets mined in a batch against three forward passes.

    python benchmarks/train_step.py [--quick]

On a CPU one thread and its CPU time, on a GPU CUDA events. Outputs and losses are compared before anything is timed.
"""

import torch
from reference_i3d import I3D
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from turns import in_turns, machine, parser, publish, ratio, shown, verdict

from mpfnet.ca_i3d import CAI3D, encoder_preset
from mpfnet.pltn import triplet_loss
from mpfnet.priors import ComputeConfig, SGDConfig, forward_of

#: preset, size, batch → the least speed-up asked for in float32 and bfloat16
ON_CPU = {('light', 32, 8): (1.6, 2.), ('light', 32, 64): (1.6, 2.), ('light', 64, 4): (1.3, 2.), ('tiny', 48, 64): (None, None)}
ON_GPU = {('light', 64, 64): (None, None), ('paper', 128, 128): (None, 4.)}


def pair(preset, size, device):
    "The library's encoder and the frozen one, with the same weights."
    c = encoder_preset(preset)
    ours = CAI3D(5, embedding=None, preset=c)
    ours.drop.p = 0.
    plain = I3D(5, c.width, c.embedding, c.grid, c.stem_stride)
    plain.load_state_dict(ours.state_dict())
    return ours.to(device, memory_format=torch.channels_last_3d), plain.to(device)


def updating(net, loss, plain=False):
    "() → loss, after an update by SGD: the stage's own, or PyTorch's default."
    opt = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=.9, weight_decay=5e-4) if plain else SGDConfig(lr=1e-4).optimizer(net.parameters())
    def step():
        value = loss()
        opt.zero_grad(set_to_none=True); value.backward(); opt.step()
        return value.detach()
    return step


def same_losses(preset, size, batch, device, updates=20):
    "Largest relative difference of the losses of the first updates, float32 and bfloat16 against the frozen encoder."
    x, out = torch.randn(batch, 5, 10, size, size, device=device), []
    for precision in ('float32', 'bf16'):
        torch.manual_seed(0)
        ours, plain = pair(preset, size, device)
        forward = forward_of(ours, ComputeConfig(precision=precision), device)
        a, b = (updating(n, lambda f=f: f(x).square().mean(), n is plain) for n, f in ((ours, forward), (plain, plain)))
        out.append(max(abs(float(a())/float(b()) - 1) for _ in range(updates)))
    assert out[0] < 1e-3 and out[1] < .05, f'these are two different networks: losses differ by {out}'
    return out


def step_times(preset, size, batch, device, rounds):
    "Times of an update: the frozen encoder, the library's in float32 and in bfloat16."
    x, (ours, plain) = torch.randn(batch, 5, 10, size, size, device=device), pair(preset, size, device)
    forward = {p: forward_of(ours, ComputeConfig(precision=p), device) for p in ('float32', 'bf16')}
    steps = {'frozen': updating(plain, lambda: plain(x).square().mean(), True)} | {p: updating(ours, lambda f=f: f(x).square().mean()) for p, f in forward.items()}
    with FlopCounterMode(display=False) as count: steps['frozen']()
    return in_turns(steps, rounds, device), count.get_total_flops()


def matrix_rate(device, precision, n):
    "Operations a second of the machine's own product of two n×n matrices."
    a = torch.randn(n, n, device=device, dtype=dict(float32=torch.float32, bf16=torch.bfloat16)[precision])
    times = in_turns({'': lambda: a @ a}, 5, device)['']
    return 2*n**3/min(times)


def triplets(preset, size, batch, device, rounds):
    "Anchor, positive and negative each through the network, against every clip once: with the same triplets, and with all of the batch."
    ours, _ = pair(preset, size, device)
    x, y, i = torch.randn(batch, 5, 10, size, size, device=device), torch.arange(batch, device=device) % 3, torch.arange(batch, device=device)
    positive, negative = (i + 3) % batch, (i + 1) % batch                      # one triplet an anchor
    assert batch % 3 == 0 and bool((y[positive] == y).all()) and not bool((y[negative] == y).any())
    def hinge(a, p, n): return F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + .2).mean()
    def three(): return hinge(*(F.normalize(ours(x[k]), dim=1) for k in (i, positive, negative)))
    def once():
        e = F.normalize(ours(x), dim=1)
        return hinge(e, e[positive], e[negative])
    with torch.no_grad(): a, b = float(three()), float(once())
    assert abs(a - b) < 1e-4*a, f'the losses of the same triplets differ: {a}, {b}'
    return in_turns({'three': updating(ours, three), 'once': updating(ours, once), 'all': updating(ours, lambda: triplet_loss(ours(x), y))}, rounds, device)


def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cpu': torch.set_num_threads(1)
    rounds, rows = 2 if args.quick else 9, []
    cases = {('tiny', 16, 6): (None, None)} if args.quick else ON_CPU if device == 'cpu' else ON_GPU
    n = 512 if args.quick else 2048 if device == 'cpu' else 8192
    rates = {p: matrix_rate(device, p, n) for p in ('float32', 'bf16')}
    for (preset, size, batch), asked in cases.items():
        gaps = same_losses(preset, size, batch, device)
        t, flops = step_times(preset, size, batch, device, rounds)
        for precision, least, gap in zip(('float32', 'bf16'), asked, gaps):
            share = flops/min(t[precision])/rates[precision]
            rows.append(f'| {preset}, {size}×{size}, batch {batch} | {min(t["frozen"])*1e3:.0f} ms | {precision} | {least or "–"} | {shown(t, "frozen", precision)} | {verdict(least, ratio(t, "frozen", precision)[0]) if least else ""} | {gap:.0e} | {share:.0%} |')
    case = ('tiny', 16, 6) if args.quick else ('light', 32, 24) if device == 'cpu' else ('paper', 128, 126)
    t = triplets(*case, device, rounds)
    lines = [f'{rounds} rounds in turns, after one that is not counted; {"CPU time, one thread" if device == "cpu" else "CUDA events"}; {machine()}. Speeds are multiples of the other way, median (smallest–largest).', '',
             '**train_step**: forward, back and the update, against `reference_i3d.py`. "losses" is the largest relative difference over the first 20 updates from the same weights. '
             f'"matrix rate" is the share of what the machine does in a {n}×{n} matrix product of that precision ({rates["float32"]/1e12:.2g} and {rates["bf16"]/1e12:.2g} TFLOP/s here).', '',
             '| encoder, input | frozen | precision | asked | got | | losses | matrix rate |', '|---|---|---|---|---|---|---|---|', *rows, '',
             f'**triplets**: {case[0]}, {case[1]}×{case[1]}, {case[2]} clips, against three forward passes.', '',
             '| | asked | got | |', '|---|---|---|---|',
             f'| all triplets of the batch, each clip embedded once | 2.8 | {shown(t, "three", "all")} | {verdict(2.8, ratio(t, "three", "all")[0])} |',
             f'| the very same triplets, each clip embedded once | 2.8 | {shown(t, "three", "once")} | {verdict(2.8, ratio(t, "three", "once")[0])} |']
    publish(args, 'train_step', 'A training step', lines)


if __name__ == '__main__': main()
