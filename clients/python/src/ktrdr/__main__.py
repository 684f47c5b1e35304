"""`python -m ktrdr`."""

import sys

from ._run import command_line

if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
