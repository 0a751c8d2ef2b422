"""What the card can do: bytes a second of a copy, operations a second of a matrix product, seconds of a launch."""
import torch
from turns import tf32

from gpu_parts.tools import DEVICE, SMOKE, attempt, emit, ms


def copies():
    n = 2**20 if SMOKE else min(2**32, torch.cuda.mem_get_info()[0]//4)
    a = torch.ones(n, dtype=torch.uint8, device=DEVICE)
    b = torch.empty_like(a)
    t = ms(lambda: b.copy_(a))
    emit('copy', bytes_read_and_written=2*n, tb_s=2*n/t['least']/1e9, **t)


def products():
    n = 256 if SMOKE else 8192
    cases = ('bf16', torch.bfloat16, True), ('tf32', torch.float32, True), ('float32', torch.float32, False)
    for name, dtype, rounded in cases:
        with tf32(rounded):
            a = torch.randn(n, n, device=DEVICE, dtype=dtype)
            t = ms(lambda: a @ a, 5)
        emit('matrix', precision=name, n=n, tflop_s=2*n**3/t['least']/1e9, **t)


def launches():
    a = torch.zeros(8, device=DEVICE)
    def many():
        for _ in range(1000): a.add_(1)
    emit('launch', us=ms(many, 5, 1)['ms'])            # a thousand take as many milliseconds as one takes microseconds


def to_the_card():
    side = 16 if SMOKE else 128
    rows = torch.empty(128, 5, 10, side, side)
    pinned = rows.half().pin_memory() if DEVICE == 'cuda' else rows.half()
    for name, x in {'float32': rows, 'float16': rows.half(), 'float16, pinned': pinned}.items():
        t = ms(lambda x=x: x.to(DEVICE, non_blocking=True), 5, 1)
        emit('to_the_card', what=name, gb_s=x.numel()*x.element_size()/max(t['ms'], 1e-6)/1e6, **t)


def main():
    for name, f in dict(copy=copies, matrix=products, launch=launches, to_the_card=to_the_card).items():
        with attempt(name): f()
