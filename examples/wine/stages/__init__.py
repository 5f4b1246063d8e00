"""Before a stage is imported: hash the code of all stages, and watch over DVC."""

import os
import sys

from exact_stages import begin

if sys.argv[0] == "-m":  # the value while `python -m stages.NAME` imports this package
    begin(int(parent) if (parent := os.environ.get("STAGE_PARENT")) else None)
