"""Processes of a run are forked from one that has imported what they need: for tests and for pages."""
import multiprocessing
import os

#: what the processes of a run import
OF_WORKERS = ['mpfnet.tools.processes', 'mpfnet.preprocess', 'mpfnet.store', 'mpfnet.methods', 'torch._dynamo',
              'sklearn.decomposition', 'sklearn.discriminant_analysis']
#: what libraries put into the environment when they are imported (scikit-learn, PyTorch), and pytest for each test
OF_LIBRARIES = 'KMP_', 'TORCHINDUCTOR_', 'PYTEST_'


def environment(): return {k: v for k, v in os.environ.items() if not k.startswith(OF_LIBRARIES)}


def forked_workers():
    """`multiprocessing.get_context` whose spawned processes are forks. They are handed the same as ever, pickled; where
    somebody has changed the environment since, they are started as ever, too."""
    before, real = environment(), multiprocessing.get_context
    multiprocessing.set_forkserver_preload(OF_WORKERS)
    def get_context(method=None):
        return real('forkserver' if method == 'spawn' and environment() == before else method)
    return get_context
