"""`python -m luna_farm`: the command line. Guarded, because spawned workers import this module anew."""

import sys

from luna_farm.cli.checkout import find_packages
from luna_farm.cli.entry import main

if __name__ == "__main__":
    find_packages()
    sys.exit(main())
