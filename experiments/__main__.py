"""``python -m experiments [NAME [--flag value ...]]``."""

import sys

from experiments.command_line import main

sys.exit(main(sys.argv[1:]))
