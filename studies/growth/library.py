"""Time the images of one step, 2,112 at random places, from an array and from shards of MosaicML streaming.

    pip install mosaicml-streaming    # into an environment of its own: it wants an older numpy
    python studies/growth/library.py

Turns alternate in one process.
"""

import tempfile
import time
from collections.abc import Callable

import numpy as np
from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]

COUNT, DRAWN, TURNS = 200_000, 64 + 2048, 10

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(COUNT, 28 * 28), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        with MDSWriter(out=folder, columns={"image": "bytes"}) as writer:
            for image in images:
                writer.write({"image": image.tobytes()})
        shards = StreamingDataset(local=folder, shuffle=False, batch_size=64)
        ways: dict[str, Callable[[list[int]], object]] = {
            "array": lambda rows: images[rows],
            "shards": lambda rows: np.stack([np.frombuffer(shards[row]["image"], np.uint8) for row in rows]),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            rows = rng.integers(COUNT, size=DRAWN).tolist()
            for name, read in ways.items():
                began = time.perf_counter()
                read(rows)
                seconds[name].append(time.perf_counter() - began)
    print({name: f"{1000 * np.median(times):.1f} ms" for name, times in seconds.items()})
