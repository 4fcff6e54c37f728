"""``python -m tiercel``: the command line."""

import sys

from tiercel.cli import main

sys.exit(main())
