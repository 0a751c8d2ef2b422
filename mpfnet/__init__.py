import os

__version__ = "0.1.0"

# OpenCV reads this when it is first imported: no decoder fills the memory, whoever calls it. A limit that is set already stays. By hand, as the version is: nbdev exports modules, not this.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '100000000')

def __getattr__(name):
    "`mpfnet.load`: a model from its folder. What it needs is imported when it is first asked for."
    if name != 'load': raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from mpfnet.models import load
    return load
