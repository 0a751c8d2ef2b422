"""What is there: versions, the card, and what the library makes of them."""
import os
import platform
import subprocess
from importlib.util import find_spec

import torch

from gpu_parts.tools import DEVICE, attempt, emit
from mpfnet import loso
from mpfnet.results.machines import environment

OPTIONAL = ('triton', 'pytest', 'hypothesis', 'nbdev', 'papermill', 'openpyxl', 'captum', 'ray', 'rich', 'matplotlib')
SHOWN = ('nvidia-smi', 'nvcc --version', 'lscpu', 'free -g')


def said(command):
    "The end of what a command prints, for the log."
    asked = dict(capture_output=True, text=True, encoding='utf-8', timeout=15)
    try: return subprocess.run(command.split(), **asked).stdout[-2500:]
    except (OSError, subprocess.TimeoutExpired) as e: return f'{command}: {e}'


def libraries():
    import cv2
    import numpy
    import pandas
    import sklearn
    there = {m: find_spec(m) is not None for m in OPTIONAL}
    emit('versions', python=platform.python_version(), torch=torch.__version__, cuda=torch.version.cuda,
         cudnn=torch.backends.cudnn.version(), numpy=numpy.__version__, pandas=pandas.__version__, cv2=cv2.__version__,
         sklearn=sklearn.__version__, cores=os.cpu_count(), commit=environment(DEVICE)['commit'],
         without=[m for m, yes in there.items() if not yes])


def main():
    for command in SHOWN: print(said(command), flush=True)
    libraries()
    with attempt('card'):
        if DEVICE == 'cuda':
            p, free = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()[0]
            emit('card', memory_gb=p.total_memory/2**30, free_gb=free/2**30, multiprocessors=p.multi_processor_count,
                 l2_mb=getattr(p, 'L2_cache_size', 0)/2**20, cards=torch.cuda.device_count())
    with attempt('resolved'):
        device, s = loso.resolve(loso.check_parameters(dict(dataset='synth')))
        emit('resolved', dataset='synth', device=device, precision=s.compute.precision, size=s.preprocess.size,
             batch=s.pltn.batch)
