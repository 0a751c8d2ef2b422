"""Features on a GPU, in batches of clips, as far as a computer without one can tell: the meta device knows shapes and
no values; a class of tensors that may not be read stands in for a device that has values."""
import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from golden.make_rows import CASES, FILE, drawn
from golden.make_rows import frames_to_features as before
from safetensors.torch import load_file
from test_gpu import Waits, cuda
from torch.utils._python_dispatch import TorchDispatchMode

from mpfnet import loso, preprocess
from mpfnet import store as stores
from mpfnet.motion.flow import FLOWS, LEARNED, flow
from mpfnet.motion.interpolate import interpolate, sample_recorded
from mpfnet.motion.magnify import magnify
from mpfnet.preprocess import PreprocessConfig, clip_features, features_together, frames_to_features, fuse
from mpfnet.store import FeatureStore, copies_together
from mpfnet.synthetic.synth import make_synth

ON_DEVICE = PreprocessConfig(interpolate_flow='ilk')
SMALL = PreprocessConfig(size=32, length=5, interpolate_flow='ilk')


def close(a, b):
    "Equal up to the last digit of half precision, and what rounding does to flow."
    return np.allclose(a.astype(float), b.astype(float), rtol=1e-3, atol=1e-3)


# the rows of a processor

@pytest.mark.parametrize('size', [24, 48, 128])
@pytest.mark.parametrize('interpolated, between', [('flow', 'dis'), ('flow', 'ilk'), ('frames', 'dis')])
def test_rows_are_to_the_last_bit_those_of_before(size, interpolated, between):
    frames, phis = drawn(size, size, 2 if interpolated == 'flow' else 5), (0, 4, 1)
    times = None if interpolated == 'flow' else [0, 1, 2, 5, 6]
    config = PreprocessConfig(size=size, length=5, interpolate=interpolated, interpolate_flow=between)
    rows = list(frames_to_features(frames, config, phis, times))
    for row, was in zip(rows, before(frames, 5, interpolated, phis, times, between), strict=True):
        assert np.array_equal(row, was.numpy())
    assert np.abs(rows[1][:2]).astype(float).mean() > 2*np.abs(rows[0][:2]).astype(float).mean() > 0


@pytest.mark.parametrize('case', CASES)
def test_rows_are_the_stored_ones(case):
    frames, length, interpolated, phis, times = CASES[case]
    stored = load_file(FILE)[case].numpy().astype(float)
    found = np.stack(
        list(
            frames_to_features(frames, PreprocessConfig(size=frames.shape[-1], length=length, interpolate=interpolated),
                               phis, times)
        )
    )
    assert np.abs(found - stored).max() < 1e-3 < .02*np.abs(stored).max() + 1e-3 and np.abs(stored).max() > .01


# several clips at a time

def several(size, steps=2, n=3): return torch.stack([drawn(k, size, steps) for k in range(n)])


def test_steps_take_several_clips():
    "Each clip gets what it gets alone, up to the order of sums."
    x, recorded = several(40), several(40, 5)
    def check(f, x, dim=0):
        together, alone = f(x), torch.stack([f(c) for c in x], dim)
        assert together.shape == alone.shape and (together - alone).abs().max() < 1e-5
    check(lambda x: flow(x.select(-4, 0), x.select(-4, 1)), x)
    for between in ('ilk', 'dis'):
        check(lambda x: interpolate(x.select(-4, 0), x.select(-4, 1), 6, flow_method=between), x)
    check(lambda x: interpolate(x.select(-4, 0), x.select(-4, 1), 6, 'blend'), x)
    check(lambda x: magnify(x, [2, 5]), recorded, 1)
    check(lambda x: sample_recorded(x, [0, 1, 2, 5, 6], 7), recorded)
    check(lambda x: fuse(x), recorded)


@pytest.mark.parametrize(
    'config, steps',
    [
        (SMALL, 2), (replace(SMALL, interpolate_flow='dis'), 2), (replace(SMALL, interpolate='blend', flow='dis'), 2),
        (replace(SMALL, interpolate='frames'), 5),
    ],
)
def test_batches_give_what_single_copies_give(config, steps):
    clips, times = several(32, steps), [0, 1, 2, 5, 6][:steps]
    copies = [(c, p) for c, phis in zip(clips, ((0, 3), (2,), (0, 1, 3))) for p in phis]
    rows = features_together(copies, config, times)
    alone = np.concatenate(
        [
            np.stack(list(frames_to_features(c, config, phis, times)))
            for c, phis in zip(clips, ((0, 3), (2,), (0, 1, 3)))
        ]
    )
    assert rows.dtype == torch.float16 and close(rows.numpy(), alone)
    assert len({r.tobytes() for r in rows.numpy()}) == len(copies)                     # every copy is another one


# a device: nothing comes back unasked, nothing is waited for

class WaitsForDevice(Waits):
    "What is read of the processor's own numbers (times of frames) is no wait."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.READS and args[0].device.type == 'cpu':
            return func(*args, **kwargs or {})
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize(
    'config, steps', [(SMALL, 2), (replace(SMALL, interpolate='blend'), 2), (replace(SMALL, interpolate='frames'), 5)]
)
def test_all_of_it_runs_on_the_device(config, steps):
    """Magnification, frames in between, flow and differences, where no value can be read and no tensor of another
    device can join in."""
    clips = several(32, steps).to('meta')
    copies = [(c, p) for c in clips for p in (0, 1, 4)]
    # the first time constants move, too
    for _ in range(2):
        with WaitsForDevice() as waits: rows = features_together(copies, config, [0, 1, 2, 5, 6][:steps])
    assert (not waits.found and rows.device.type == 'meta' and rows.dtype == torch.float16 and rows.shape
            == (9, 5, 4, 32, 32))


def test_what_needs_the_processor_is_noticed():
    "The test above can fail."
    for config in (replace(SMALL, interpolate_flow='dis'), replace(SMALL, flow='farneback')):
        with pytest.raises((RuntimeError, NotImplementedError)):
            features_together([(torch.empty(2, 3, 32, 32, device='meta'), 0)], config)


class Far(torch.Tensor):
    "Values that cannot be read before they were fetched by `.cpu()`, as those of a GPU."
    fetched = 0
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            cls.fetched += 1
            return args[0].as_subclass(torch.Tensor)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.item):
            raise TypeError('lies on a device: use .cpu() first')
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize('method', [m for m in FLOWS if m not in LEARNED])
def test_flow_returns_to_the_device(method):
    "What only a processor can do is done there, and the result is where the images are."
    a, b = drawn(0, 32, 2)
    with pytest.raises(TypeError): a.as_subclass(Far).numpy()
    Far.fetched = 0
    there = flow(a.as_subclass(Far), b.as_subclass(Far), method)
    assert isinstance(there, Far) and (Far.fetched > 0) == (method != 'ilk')
    assert torch.equal(there.cpu(), flow(a, b, method))
    on_meta = (flow(torch.empty(3, 16, 16, device='meta'), torch.empty(3, 16, 16, device='meta'))
               if method == 'ilk' else there)
    assert on_meta.shape[-3] == 2


@pytest.mark.parametrize(
    'config',
    [
        SMALL, replace(SMALL, interpolate_flow='dis', flow='farneback'), replace(SMALL, magnify='phase'),
        replace(SMALL, interpolate='frames'),
    ],
)
def test_only_rows_are_read(config):
    """A clip whose frames lie on a device: its rows are the processor's, and what was fetched is the rows (and what a
    processor's method needs)."""
    if config.magnify == 'phase': pytest.importorskip('pyrtools')
    frames, times = drawn(1, 32, 5 if config.interpolate == 'frames' else 2), [0, 1, 2, 5, 6]
    Far.fetched = 0
    rows = list(frames_to_features(frames.as_subclass(Far), config, (0, 2), times))
    assert (Far.fetched == 2) == (config.flow == 'ilk' and config.interpolate_flow == 'ilk' and config.magnify
                                  == 'lagrangian')
    for row, here in zip(rows, frames_to_features(frames, config, (0, 2), times), strict=True):
        assert np.array_equal(row, here)


# counts

class Counted(TorchDispatchMode):
    "Launches; bytes read and written; the most bytes that were alive at a time, of what was made inside."

    def __init__(self):
        super().__init__()
        self.launches = self.moved = self.live = self.most = 0
        self.alive = {}
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **kwargs or {}), func.overloadpacket.__name__
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, out)) if torch.is_tensor(x)]
        if not func.is_view and 'view' not in name and not name.startswith(('empty', 'detach')):
            self.launches, self.moved = self.launches + 1, self.moved + sum(x.nbytes for x in tensors)
        for storage in {x.untyped_storage()._cdata: x.untyped_storage() for x in torch.utils._pytree.tree_leaves(out)
                        if torch.is_tensor(x)}.values():
            if storage._cdata not in self.alive: self.hold(storage)
        return out
    def hold(self, storage):
        self.live, key, size = self.live + storage.nbytes(), storage._cdata, storage.nbytes()
        self.most = max(self.most, self.live)
        self.alive[key] = weakref.finalize(storage, self.gone, key, size)

    def gone(self, key, size):
        self.live -= size
        del self.alive[key]


def test_counts_are_right():
    x = torch.ones(1000, device='meta')
    with Counted() as c:
        y = x + x
        z = y * 2
        del y
        w = z + 1
    assert c.launches == 3 and c.moved == (3 + 2 + 2)*4000 and c.most == 8000 and w.shape == (1000,)


def test_the_composite_fits_a_minute():
    """4022 rows of 128×128: launches of 8 µs and bytes at 3 TB/s, one after the other, take a few seconds; the memory
    of a batch fits any card."""
    n = copies_together(ON_DEVICE, 2)
    clips = list(torch.empty(6, 2, 3, 128, 128, device='meta'))
    copies = [(clips[k//9], k % 9) for k in range(n)]
    features_together(copies, ON_DEVICE)                                               # constants
    with Counted() as c: rows = features_together(copies, ON_DEVICE)
    assert rows.shape == (n, 5, 10, 128, 128) and n == 51
    launches, moved = c.launches/n, c.moved/n
    assert 20 < launches < 55 and .5e9 < moved < 1.25e9 and c.most < 1.3e9
    assert 4022*(launches*8e-6 + moved/3e12) < 6


# the store

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = make_synth(tmp_path_factory.mktemp('data')/'synth', subjects=3, clips=12, size=64)
    table = pd.read_csv(root/'annotation.csv').assign(dataset='synth', input='frames')
    table['frames'] = [{int(p.stem[3:]): str(p) for p in sorted((root / 'frames' / r.subject / r.clip).iterdir())}
                       for r in table.itertuples()]
    return table


@pytest.fixture
def card(monkeypatch):
    "This processor stands in for a GPU that takes ten copies at a time; the sizes of the batches are noted."
    sizes, together = [], preprocess.features_together
    def note(copies, *args):
        sizes.append(len(copies))
        return together(copies, *args)
    for module in (preprocess, stores): monkeypatch.setattr(module, 'device_of', lambda recipe: torch.device('cpu'))
    monkeypatch.setattr(stores, 'copies_together', lambda recipe, n: 10)
    monkeypatch.setattr(preprocess, 'features_together', note)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *a: 'a card')
    return sizes


CUDA = replace(SMALL, device='cuda')
PHIS = [0, 1, 5]


def asked(clips): return clips.iloc[np.repeat(np.arange(len(clips)), len(PHIS))], np.tile(PHIS, len(clips))
def lines(store): return [json.loads(line) for line in store.table.lines.read_text(encoding='utf-8').splitlines()]


@pytest.mark.parametrize('workers', [1, 2])
def test_a_store_is_filled_in_batches(clips, tmp_path, card, workers):
    """The rows of a device are the processor's within rounding, in the same order, under other keys, and their lines
    name the card."""
    here, there = (FeatureStore(tmp_path/'store', c) for c in (SMALL, CUDA))
    rows = [s.ensure(*asked(clips), workers=workers, progress=False) for s in (here, there)]
    assert np.array_equal(*rows) and card == [10, 10, 10, 6] and here.table.folder != there.table.folder
    assert close(here.F[rows[0]], there.F[rows[1]]) and there.verify() == 36
    for a, b in zip(lines(here), lines(there), strict=True):
        assert (a['clip'], a['phi']) == (b['clip'], b['phi']) and a['key'] != b['key']
        assert 'device' not in a['made'] and b['made'] == a['made'] | dict(device='a card')
    # found, not made again
    assert np.array_equal(there.ensure(*asked(clips), progress=False), rows[1]) and len(card) == 4
    about = json.loads((there.table.folder/'store.json').read_text(encoding='utf-8'))['settings']
    assert about['device'] == 'cuda' and about['interpolate_flow'] == 'ilk'


def test_what_is_missing_is_made(clips, tmp_path, card):
    "A store that was filled in part, and clips of different lengths where all recorded frames count."
    store = FeatureStore(tmp_path/'store', CUDA)
    store.ensure(clips[4:6], progress=False)
    few, phis = asked(clips)
    rows = store.ensure(few, phis, progress=False)
    assert card == [2, 10, 10, 10, 4] and rows[12] == 0 and sorted(rows) == list(range(36))
    recorded = FeatureStore(tmp_path/'store', replace(CUDA, interpolate='frames'))
    shorter = clips.copy()
    shorter['frames'] = [f if k % 3 else {n: p for n, p in f.items() if n != r.onset + 1}
                         for k, (f, r) in enumerate(zip(clips['frames'], clips.itertuples()))]
    rows = recorded.ensure(*asked(shorter), progress=False)
    here = FeatureStore(tmp_path/'store', replace(SMALL, interpolate='frames'))
    again = here.ensure(*asked(shorter), progress=False)
    assert close(recorded.F[rows], here.F[again]) and sum(card[5:]) == len({*again}) == 36


def test_ready_made_flow_needs_no_device(tmp_path):
    "Its rows pass through untouched, and are the same rows whatever the recipe says."
    import cv2
    cv2.imwrite(str(tmp_path/'flow.png'), np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8))
    ready = pd.DataFrame(
        [
            dict(dataset='casme2', subject='sub01', clip='a', onset=pd.NA, apex=pd.NA, offset=pd.NA,
                 frames={0: str(tmp_path / 'flow.png')}, input='flow28')
        ]
    )
    stores = [FeatureStore(tmp_path/'store', c) for c in (SMALL, CUDA)]
    assert [s.ensure(ready, progress=False).tolist() for s in stores] == [[0], [0]] and stores[
        0
    ].table.folder == stores[1].table.folder


def short_of_memory(monkeypatch, most):
    "A device that has memory for so many copies at a time."
    together, tries = preprocess.features_together, []
    def limited(copies, *args):
        tries.append(len(copies))
        if len(copies) > most:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 9.54 GiB.\nGPU 0 has …')
        return together(copies, *args)
    monkeypatch.setattr(preprocess, 'features_together', limited)
    return tries


def test_short_of_memory_halves_the_batch(clips, tmp_path, card, monkeypatch):
    full, short = (FeatureStore(tmp_path/name, CUDA) for name in 'ab')
    full.ensure(*asked(clips[:4]), progress=False)
    tries = short_of_memory(monkeypatch, 3)
    short.ensure(*asked(clips[:4]), progress=False)
    assert tries == [10, 5, 2, 3, 5, 2, 3, 2] and [e['key'] for e in short.table.index] == [e['key']
                                                                                            for e in full.table.index]
    assert close(full.F, short.F)


def test_no_memory_for_a_single_clip_is_a_sentence(clips, tmp_path, card, monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(
        RuntimeError,
        match='the GPU has too little memory even for a single clip .*Tried to allocate 9.54 '
              'GiB.*preprocess.device=cpu',
    ):
        FeatureStore(tmp_path, CUDA).ensure(clips[:2], progress=False)
    # of a card on which there is no room to begin
    def full(*args): raise RuntimeError('CUDA error: out of memory')
    monkeypatch.setattr(stores, 'copies_on_device', full)
    with pytest.raises(RuntimeError, match='even for a single clip .CUDA error: out of memory'):
        FeatureStore(tmp_path, CUDA).ensure(clips[:2], progress=False)
    def broken(*args): raise RuntimeError('CUDA error: an illegal memory access was encountered')
    monkeypatch.setattr(stores, 'copies_on_device', broken)
    with pytest.raises(RuntimeError, match='illegal memory access was encountered$'):
        FeatureStore(tmp_path, CUDA).ensure(clips[:2], progress=False)


def test_no_gpu_is_said_before_anything_is_read(clips, tmp_path, monkeypatch):
    "And is no matter where the rows are there already."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    broken = clips[:1].copy()
    store = FeatureStore(tmp_path, CUDA)
    for ask in (lambda: store.ensure(clips[:2], progress=False), lambda: clip_features(clips.iloc[0], CUDA)):
        with pytest.raises(ValueError, match='preprocess.device=cuda: expected a GPU.*preprocess.device=cpu'): ask()
    with monkeypatch.context() as m:
        for module in (preprocess, stores): m.setattr(module, 'device_of', lambda recipe: torch.device('cpu'))
        m.setattr(torch.cuda, 'get_device_name', lambda *a: 'a card')
        store.ensure(broken, progress=False)
    assert FeatureStore(tmp_path, CUDA).ensure(broken, progress=False).tolist() == [0]


def test_a_clip_that_cannot_be_read_leaves_the_batches_before_it(clips, tmp_path, card):
    bad = clips.copy()
    path = tmp_path/'broken.png'
    path.write_bytes(b'no image')
    bad['frames'] = [f if k != 11 else {**f, r.apex: str(path)}
                     for k, (f, r) in enumerate(zip(bad['frames'], bad.itertuples()))]
    store = FeatureStore(tmp_path/'store', CUDA)
    with pytest.raises(ValueError, match='broken.png'): store.ensure(*asked(bad), progress=False)
    assert store.verify() >= 20


def test_features_that_are_no_numbers_name_the_clip(clips, tmp_path, card, monkeypatch):
    monkeypatch.setattr(
        preprocess,
        'features_together',
        lambda copies, config, times: torch.full(
            (len(copies), *config.shape('frames')), torch.nan, dtype=torch.float16
        ),
    )
    with pytest.raises(ValueError, match='sub01/.*φ = 0: features are not finite'):
        FeatureStore(tmp_path, CUDA).ensure(clips[:1], progress=False)


def test_settings_of_a_device_are_checked():
    with pytest.raises(ValueError, match="unknown device 'tpu'; known: cpu, cuda"): PreprocessConfig(device='tpu')
    with pytest.raises(ValueError, match="unknown interpolate_flow 'flownet2'; known: dis, farneback, ilk, tvl1"):
        PreprocessConfig(interpolate_flow='flownet2')
    from mpfnet.methods import override, settings_preset
    p = override(settings_preset('tiny'), 'preprocess.device=cuda,preprocess.interpolate_flow=ilk').preprocess
    assert (p.device, p.interpolate_flow, PreprocessConfig().device, PreprocessConfig().interpolate_flow) == (
        'cuda', 'ilk', 'cpu', 'dis',
    )


def test_a_gpu_that_is_not_asked_is_told_of(clips, tmp_path, monkeypatch):
    "Once there are many rows to make, and only of a recipe that it could make."
    said = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(stores, 'say_once', said.append)
    store = FeatureStore(tmp_path/'store', SMALL)
    store.ensure(clips[:2], progress=False)
    monkeypatch.setattr(stores, 'MANY_ROWS', 3)
    store.ensure(clips[2:4], progress=False)
    assert not said
    store.ensure(clips[4:], progress=False)
    store.ensure(clips, progress=False)
    assert (len(said) == 1 and said[0].startswith('8 feature rows')
            and 'preprocess.device=cuda,preprocess.interpolate_flow=ilk' in said[0])


@pytest.mark.parametrize(
    'ask', [lambda x: features_together([(x, 0), (x, 2)], SMALL), lambda x: list(frames_to_features(x, SMALL, (0, 2)))]
)
def test_no_matrix_product_in_tf32(monkeypatch, ask):
    "Whatever the program has allowed, which afterwards is allowed again."
    seen, product = [], torch.Tensor.__matmul__
    def note(a, b):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return product(a, b)
    monkeypatch.setattr(torch.Tensor, '__matmul__', note)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        ask(drawn(0, 32, 2))
        assert (len(seen) > 20 and set(seen) == {(False, False)} and torch.backends.cuda.matmul.allow_tf32
                and torch.backends.cudnn.allow_tf32)
    finally: torch.backends.cuda.matmul.allow_tf32 = False


def test_a_run_says_what_made_its_features(tmp_path, synth_root, card):
    "Its config holds the recipe, its record the card; on another machine the same rows serve."
    what = dict(dataset='synth', method='pca_lda', length=3, data_root=str(synth_root), out_dir=str(tmp_path),
                device='cpu')
    on_card = dict(overrides='preprocess.size=24,preprocess.device=cuda,preprocess.interpolate_flow=ilk')
    plain, run = loso.run(**what, overrides='preprocess.size=24'), loso.run(**what, **on_card)
    config, env = (json.loads((run/name).read_text(encoding='utf-8')) for name in ('config.json', 'env.json'))
    p = config['settings']['preprocess']
    assert run != plain and (p['device'], p['interpolate_flow']) == ('cuda', 'ilk') and max(card) == 10
    assert [m['device'] for m in env['libraries']['features']] == ['a card'] and 'device' not in env['libraries'][
        'folds'
    ][0]
    assert 'device' not in json.loads((plain/'env.json').read_text(encoding='utf-8'))['libraries']['features'][0]
    made = len(card)
    assert loso.run(**what, **on_card) == run and len(card) == made


# where there is one

@cuda
@pytest.mark.parametrize('config, steps', [(SMALL, 2), (ON_DEVICE, 2), (replace(ON_DEVICE, interpolate='frames'), 5)])
def test_a_gpu_makes_the_rows_of_a_processor(config, steps):
    "Flow within 1e-3 px and colours within a tenth of a grey level in float32; the same twice."
    clips, times = several(config.size, steps), [0, 1, 2, 5, 6][:steps]
    def frames_and_fused(x):
        even = (sample_recorded(x, times, config.length) if steps > 2
                else interpolate(x.select(-4, 0), x.select(-4, 1), config.length, flow_method=config.interpolate_flow))
        copies = magnify(x, [3])[0]
        return [v.cpu() for v in (even, copies, fuse(even))]
    (even, copies, fused), there = frames_and_fused(clips), frames_and_fused(clips.cuda())
    assert max((even - there[0]).abs().max(), (copies - there[1]).abs().max()) < .1/255
    assert (fused - there[2])[:, :2].abs().max() < 1e-3 and (fused - there[2])[:, 2:].abs().max() < .1/255
    ask = [(c, p) for c in clips.cuda() for p in (0, 2)]
    rows = [features_together(ask, config, times).cpu().numpy() for _ in range(2)]
    assert np.array_equal(*rows)
    alone = np.concatenate([np.stack(list(frames_to_features(c, config, (0, 2), times))) for c in clips])
    assert close(rows[0], alone)


@cuda
@pytest.mark.parametrize('config',
                         [PreprocessConfig(), replace(ON_DEVICE, flow='farneback'), replace(ON_DEVICE, flow='dis')])
def test_a_gpu_asks_the_processor(config):
    """Methods of OpenCV see 256 grey levels, and a pixel of them may be rounded the other way: the rows are close on
    average."""
    frames = drawn(0, 128, 2)
    rows, here = (np.stack(list(frames_to_features(x, config, (0, 2)))).astype(float) for x in (frames.cuda(), frames))
    assert (np.abs(rows - here).mean() < 1e-3 < 0.1 * np.abs(here[:, :2]).mean() + 1e-3
            and np.abs(here[:, :2]).mean() > 1e-3)


@cuda
def test_a_store_is_filled_by_a_gpu(clips, tmp_path):
    here, there = (FeatureStore(tmp_path/'store', c) for c in (SMALL, CUDA))
    rows = [s.ensure(*asked(clips), workers=2, progress=False) for s in (here, there)]
    assert close(here.F[rows[0]], there.F[rows[1]])
    assert lines(there)[0]['made']['device'] == torch.cuda.get_device_name()
