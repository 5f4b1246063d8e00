import sys

sys.path.insert(0, f"{__path__[0]}/../src")  # the library beside dvc.yaml, not an installed one
