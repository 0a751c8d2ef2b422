"""Frozen: a CA-I3D as one would first write it: contiguous float32, eager, gates multiplied one after the other.
Benchmarks measure against it; it does not change when the library does."""
import torch
from torch import nn
from torch.nn import functional as F


class Unit(nn.Module):
    def __init__(self, c_in, c_out, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv3d(c_in, c_out, kernel, (1, stride, stride), kernel//2, bias=False)
        self.norm = nn.BatchNorm3d(c_out)
    def forward(self, x): return torch.relu(self.norm(self.conv(x)))


class CoordinateAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        waist = max(8, c//32)
        self.shared, self.norm = nn.Conv1d(c, waist, 1, bias=False), nn.BatchNorm1d(waist)
        self.gates = nn.ModuleList(nn.Conv1d(waist, c, 1) for _ in range(3))
    def forward(self, x):
        b, c, t, h, w = x.shape
        pooled = [x.mean(3).mean(3), x.mean(4).mean(2), x.mean(3).mean(2)]
        z = F.hardswish(self.norm(self.shared(torch.cat(pooled, 2))))
        a, d, e = (gate(p).sigmoid() for gate, p in zip(self.gates, z.split([t, h, w], 2)))
        a, d, e = (a.view(b, c, t, 1, 1).expand_as(x), d.view(b, c, 1, h, 1).expand_as(x),
                   e.view(b, c, 1, 1, w).expand_as(x))
        return x*a*d*e


class Inception(nn.Module):
    def __init__(self, c_in, b0, b1, b2, b3):
        super().__init__()
        self.b0 = Unit(c_in, b0)
        self.b1 = nn.Sequential(Unit(c_in, b1[0]), Unit(b1[0], b1[1], 3))
        self.b2 = nn.Sequential(Unit(c_in, b2[0]), Unit(b2[0], b2[1], 3))
        self.b3 = Unit(c_in, b3)
        self.channels = b0 + b1[1] + b2[1] + b3
        self.attention = CoordinateAttention(self.channels)

    def forward(self, x):
        return self.attention(torch.cat([self.b0(x), self.b1(x), self.b2(x), self.b3(F.max_pool3d(x, 3, 1, 1))], 1))


class I3D(nn.Module):
    "(B, C, T, H, W) → (B, embedding); the names of its weights are those of mpfnet.ca_i3d.CAI3D."
    def __init__(self, in_channels, width, embedding, grid, stride):
        super().__init__()
        n = lambda *c: [max(4, round(v*width/4)*4) for v in c]
        block = lambda c_in, *c: (lambda b0, r1, b1, r2, b2, b3: Inception(c_in, b0, (r1, b1), (r2, b2), b3))(*n(*c))
        stem, = n(64)
        self.stem, self.grid = Unit(in_channels, stem, 3, stride), grid
        self.block1 = block(stem, 64, 96, 128, 16, 32, 32)
        self.block2 = block(self.block1.channels, 128, 128, 192, 32, 96, 64)
        self.head = nn.Linear(self.block2.channels*grid[0]*grid[1]*grid[2], embedding)
    def forward(self, x):
        for layer in (self.stem, self.block1): x = F.max_pool3d(layer(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.head(F.adaptive_avg_pool3d(self.block2(x), self.grid).flatten(1))
