"""Shared by the tests: quiet hypothesis, a look-alike of the public flow release, and the real one where it is at
hand."""
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from mpfnet.synthetic.synth import make_synth

# read when triton is imported: kernels of our own on CPU tensors
if not torch.cuda.is_available(): os.environ['TRITON_INTERPRET'] = '1'
torch.set_num_threads(1)      # small tensors: more threads only wait for each other
settings.register_profile('mpfnet', deadline=None)
settings.load_profile('mpfnet')

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / 'benchmarks'))
from flow_lookalike import write_flow_release

# cheap settings for tests that are about the machinery, not about scores
CHEAP = 'pltn.epochs=1,plsm.epochs=1,plsm.phi_limit=1,meta.updates=2,encoder.width=0.125'
CHEAP_RIVALS = 'fdp.updates=1,afn.epochs=1,ststnet.epochs=2,lbp_top.size=32,bi_woof.size=32,strain.size=32'


@pytest.fixture(scope='session')
def flow_root(tmp_path_factory):
    "Data root with a look-alike of megc2019_flow; do not change it."
    return write_flow_release(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='session')
def synth_root(tmp_path_factory):
    "Data root with the synthetic clips; do not change it."
    root = tmp_path_factory.mktemp('synth')
    make_synth(root / 'synth')
    return root


@pytest.fixture
def real_root():
    "Data root with the real public flow release."
    for root in (os.environ.get('MPFNET_DATA'), ROOT.parent / 'shared' / 'data'):
        if root and (Path(root) / 'megc2019_flow').is_dir(): return Path(root)
    pytest.skip('needs the public flow release: set MPFNET_DATA to the folder that holds megc2019_flow/')
