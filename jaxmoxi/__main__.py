"""`python -m jaxmoxi`: the command `jaxmoxi`."""

import sys

from jaxmoxi.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
