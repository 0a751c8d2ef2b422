"""torch.compile of the paper preset's step: what it takes to make, what it brings, whether the losses stay."""
import torch
import train_step

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, forget_peak, judge, ms, peak_gb, timed
from mpfnet.train import ComputeConfig, forward_of

PRESET, SIZE, BATCH = ('tiny', 16, 6) if SMOKE else ('paper', 128, 128)
# '' = eager; a compiler takes too long for a smoke test
MODES = ('',) if SMOKE else ('', 'default', 'reduce-overhead')


def main():
    eager = None
    for mode in MODES:
        with attempt(mode or 'eager'):
            torch.manual_seed(0)
            forget_peak()
            net, _ = train_step.pair(PRESET, SIZE, DEVICE)
            x = torch.randn(BATCH, 5, 10, SIZE, SIZE, device=DEVICE)
            forward = forward_of(net, ComputeConfig(precision='bf16', compile=mode), DEVICE)
            step = train_step.updating(net, lambda: forward(x).square().mean(), lr=1e-3)
            first, setup = timed(step)
            losses = [float(first), *(float(step().clone()) for _ in range(3))]
            emit('step', how=mode or 'eager', setup_s=setup, losses=losses, peak_gb=peak_gb(), **(t := ms(step)))
            if not mode: eager = t['ms'], losses
            elif eager:
                emit('faster', how=mode, times=eager[0]/t['ms'])
                gap = max(abs(a/b - 1) for a, b in zip(losses, eager[1]))
                judge(f'compiled ({mode}): losses from the eager ones, relative', .01, gap, False)
