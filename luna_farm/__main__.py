"""The command line: `luna-farm`, and `python -m luna_farm`. Guarded, because spawned workers import this
module anew; it imports nothing before Ctrl-C can be told in a sentence."""

import sys


def main() -> int:
    """Run the command line. Returns the exit code."""
    try:
        from luna_farm.cli.entry import main as run

        return run()
    except KeyboardInterrupt:  # while modules were loaded
        sys.stderr.write("Stopped.\n")
        return 130


if __name__ == "__main__":
    from luna_farm.cli.checkout import find_packages

    find_packages()
    sys.exit(main())
