"`python -m mpfnet` is the command `mpfnet`. Written by hand: nbdev exports modules, not this."
import sys

from mpfnet.cli import main

if __name__ == '__main__': sys.exit(main())
