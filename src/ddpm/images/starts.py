"""What a training may begin with: clip art, or random weights.

The stage `preprocess` writes its choice to a file, so that only trainings that begin with clip art depend on it. A
param cannot be null there, since DVC wants a file.
"""

CHOSEN, NONE = "data/processed/start", b"none\n"  # the file; what it holds in place of a model
SCRATCH, CLIP_ART = "data/scratch", "data/clip_art.safetensors"  # a small text that stands for no model; a model
