"""What `benchmarks/gpu.py` measures. A part is a function of a module of this folder; each has a process of its own."""
from typing import NamedTuple


class Part(NamedTuple):
    entry: str           # module.function in this folder
    seconds: int         # planned for it on a GPU, its start included
    what: str            # what it tells
    beside: tuple = ()   # parts that run at the same time, since neither they nor this one time anything


#: the most valuable first: what comes late may find no time left
PARTS = dict(
    versions=Part('versions.main', 25, 'what is there'),
    agree=Part('agree.main', 50, 'does CUDA compute what the CPU does', ('tests', 'loso_cpu')),
    tests=Part('tests.main', 70, 'the tests of tests/ that need a GPU'),
    loso_cpu=Part('loso.on_the_cpu', 70, 'tiny LOSO of the public flow on the CPU, to compare with'),
    same=Part('same.main', 30, 'the same seed twice'),
    rates=Part('rates.main', 15, 'copies, matrix products, launches: what the card can do'),
    step=Part('step.main', 75,
              "the paper preset's training step: of the frozen encoder's speed, of the bytes that it moves"),
    fold=Part('fold.main', 60, 'a fold of the composite at the paper preset: epochs cut, extrapolated; memory'),
    loso_paper=Part('loso.at_paper_width', 85, 'LOSO of the public flow, 68 folds, at paper width'),
    loso_tiny=Part('loso.tiny', 50, 'tiny LOSO of the public flow, 68 folds, both priors; its UF1 against the CPU'),
    graphs=Part('graphs.main', 20, 'launches of a small update, and what a CUDA graph saves'),
    compiled=Part('compiled.main', 30, "torch.compile of the paper preset's step"),
    preprocess=Part('preprocess.main', 30, 'features: rows a second on the GPU, and what the CPU gives'),
    methods=Part('methods.main', 30, 'every method: a fold of the synthetic clips, twice'),
)
