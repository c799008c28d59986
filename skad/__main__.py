"""Run the command line: python -m skad."""

import sys

from skad.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
