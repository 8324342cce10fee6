"""`python -m ddlib`: the same as the command `ddlib`."""

import sys

from ddlib.batch.cli import main

if __name__ == "__main__":
    sys.exit(main())
