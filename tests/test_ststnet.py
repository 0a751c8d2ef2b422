"""STSTNet's training step: the same function as the layers one after the other, of a fold by itself, with dropout that
every machine draws alike."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mpfnet.core.artefacts import sha256_of
from mpfnet.folds import Fold
from mpfnet.rivals import baselines
from mpfnet.rivals.baselines import Dropout, FittedSTSTNet, Largest, STSTNet, STSTNetConfig, dropout_mask
from mpfnet.train import seeded, stage_generator


def release(n=60, seed=0):
    "Clips in the form of the public flow release: 8 bits, flat patches among them."
    r, y = np.random.default_rng(seed), np.arange(n) % 3
    x = r.integers(0, 256, (n, 3, 1, 28, 28))
    x[:, :, :, 5:12, 5:12] = 128
    for c in range(3): x[y == c, 1, :, 14:, 7*c:9 + 7*c] = 230
    clips = pd.DataFrame(
        dict(dataset='toy', subject=[f's{i // 10}' for i in range(n)], clip=[f'c{i:02}' for i in range(n)], label=y,
             input='flow28')
    )
    return clips, (x/np.float32(255)).astype(np.float16)


def context(features='both', **config):
    return SimpleNamespace(settings=SimpleNamespace(ststnet=STSTNetConfig(**config), features=features), device='cpu',
                           watch=None)


def as_drawn(fold, cfg, index=(0, 1, 2)):
    "The fold's network, trained layer by layer with PyTorch's own steps."
    g = stage_generator(fold, 'ststnet')
    net = seeded(lambda: STSTNet(len(index), fold.n_classes, cfg.dropout), g).train()
    x, optimiser = 255*fold.X()[:, list(index), 0], torch.optim.Adam(net.parameters(), lr=cfg.lr)
    torch.manual_seed(g.initial_seed())
    for _ in range(cfg.epochs):
        for a, b in zip(x.split(cfg.batch), fold.y.split(cfg.batch)):
            optimiser.zero_grad()
            F.cross_entropy(nn.Sequential.forward(net, a), b).backward()
            optimiser.step()
    return net.eval()


def gap(a, b): return max(float((v - b[k]).norm()/(b[k].norm() + 1e-12)) for k, v in a.items() if v.is_floating_point())


@pytest.mark.parametrize('features, index', [('both', (0, 1, 2)), ('flow', (0, 1))])
@pytest.mark.parametrize('dropout', [0., .5, .3])
def test_a_fold_is_trained_as_layer_by_layer(features, index, dropout):
    clips, x = release()
    cfg = dict(epochs=10, batch=32, dropout=dropout)
    fold = Fold(clips, x, [('toy', 's2')])
    ours, plain = FittedSTSTNet(fold, context(features, **cfg)), as_drawn(fold, STSTNetConfig(**cfg), index)
    assert gap(ours.state(), plain.state_dict()) < 2e-3
    assert gap(ours.state(), as_drawn(fold, STSTNetConfig(**cfg | dict(epochs=9)), index).state_dict()) > 2e-3, (
        'an epoch does less than rounding: the test shows nothing'
    )
    with torch.no_grad(): p = plain(255*torch.from_numpy(x[20:30].astype(np.float32))[:, list(index), 0]).softmax(1)
    assert np.abs(ours.scores(x[20:30]) - p.numpy()).max() < 2e-3


@pytest.mark.parametrize('n', [1, 15, 16, 17, 50])
def test_any_number_of_clips_goes_through(n):
    net, x = STSTNet().double().train(), torch.rand(n, 3, 28, 28).double()*255
    found = []
    for way in (net.forward, lambda x: nn.Sequential.forward(net, x)):
        torch.manual_seed(1)
        found.append(torch.autograd.grad(F.cross_entropy(way(x), torch.arange(n) % 3), net.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-10) for a, b in zip(*found))


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x, w, b = (torch.rand(3, 2, 8, 8).double(), torch.randn(4, 2, 3, 3).double().requires_grad_(),
               torch.randn(4).double().requires_grad_())
    assert torch.autograd.gradcheck(lambda w, b: Largest.apply(x, w, b), (w, b))


@pytest.mark.parametrize('gammas', [(1., -.5), (0., 1.), (-1., -1.)])
def test_a_gamma_that_is_not_positive_goes_the_long_way(gammas):
    "There the largest value is not the largest after batch norm."
    net, x = STSTNet(dropout=0.).double().train(), torch.rand(8, 3, 28, 28).double()*255
    net[2].weight.data = torch.tensor(gammas*8).double()
    assert torch.allclose(net(x), nn.Sequential.forward(net, x)) and not torch.allclose(
        net(x), nn.Sequential.forward(net.eval(), x)
    )


def test_the_size_of_a_group_is_rounding(monkeypatch):
    clips, x = release()
    def trained(group):
        monkeypatch.setattr(baselines, 'GROUP', group)
        return FittedSTSTNet(Fold(clips, x, [('toy', 's2')]), context(epochs=3, batch=40)).state()
    assert gap(trained(7), trained(16)) < 1e-3


def test_a_shuffled_fold_and_averaged_weights_are_trained_too():
    clips, x = release()

    def sha(watch=None, **config):
        return sha256_of(
            FittedSTSTNet(Fold(clips, x, [('toy', 's2')]),
                          SimpleNamespace(**vars(context(epochs=3, batch=20, **config)) | dict(watch=watch))).state()
        )
    everything = {sha(shuffle=s, average=a) for s in (True, False) for a in (0., .9)}
    assert len(everything) == 4
    for a in (0.0, 0.9):
        assert sha(average=a, watch=lambda epoch, model: model.scores(x)) == sha(average=a), (
            'looking on changed something'
        )


def test_nothing_of_a_fold_depends_on_those_before_it():
    clips, x = release()
    def sha(s): return sha256_of(FittedSTSTNet(Fold(clips, x, [('toy', s)]), context(epochs=2)).state())
    alone = {s: sha(s) for s in ('s0', 's3')}
    assert {s: sha(s) for s in ('s3', 's0')} == alone and alone['s0'] != alone['s3']


def test_dropout_draws_numbers_that_are_written_down():
    "Of PyTorch's generator on the CPU, by whole numbers: the same on every processor."
    torch.manual_seed(0)
    assert dropout_mask((2, 12), 0.5).long().tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0],
                                                  [1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0]]
    kept = [round(float(dropout_mask((1000, 100), p).double().mean()), 2) for p in (.1, .5, .75, .99)]
    assert kept == [.9, .5, .25, .01]


def test_dropout_keeps_the_mean_and_lets_nothing_through_while_predicting():
    x = torch.ones(200, 4, 5, 5)
    torch.manual_seed(0)
    y = Dropout(.5)(x)
    assert set(y.unique().tolist()) == {0., 2.} and abs(float(y.mean()) - 1) < .05
    assert torch.equal(Dropout(.5).eval()(x), x) and torch.equal(Dropout(0.)(x), x)
