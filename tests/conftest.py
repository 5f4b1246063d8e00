"""One thread for each test process: workers that fight over the cores would wait for one another most of the time."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, so before anything else is
