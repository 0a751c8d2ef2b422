import os

__version__ = "0.1.0"

# OpenCV reads this when it is first imported: no decoder fills the memory, whoever calls it. A limit that is set already stays. By hand, as the version is: nbdev exports modules, not this.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '100000000')
# And what FFmpeg thinks of a damaged video is said by mpfnet.video.read, in a sentence.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')

# What most scripts begin with, and where it is defined. It is imported when it is first asked for: `import mpfnet` waits for nothing.
_AT_THE_TOP = dict(
    load='mpfnet.models',
    load_clips='mpfnet.clips',
    run='mpfnet.loso',
)


def __getattr__(name):
    if name not in _AT_THE_TOP: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    found = globals()[name] = getattr(import_module(_AT_THE_TOP[name]), name)
    return found


def __dir__(): return sorted({*globals(), *_AT_THE_TOP})
