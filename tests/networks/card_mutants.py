"""Damage to what a model file or classifier file says of itself, by structure: run as `-m tests.networks.card_mutants`.

It takes a file, `model` or `classifier`, and the number of mutants; each is loaded or refused with one UserError, in a
process whose memory is bounded. What it prints is read by a test.
"""

import copy
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from ddpm.classifier.model import load_classifier
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.console import UserError

MEGABYTES = 300  # by which the process may grow: torch's own code takes some of them at the first load
SECONDS = 5  # for one mutant, on a machine that is busy
RAW = {  # JSON that json.dumps would not write
    "deep list": "[" * 3000 + "]" * 3000,
    "deep object": '{"a":' * 3000 + "0" + "}" * 3000,
    "shallower": "[" * 300 + "]" * 300,
    "digits": "9" * 5000,
    "infinite": "1e999",
    "not a number": "NaN",
    "half a character": r'"\ud800"',
    "long": json.dumps("x" * 2_000_000),
    "longer than a header": "[" + "0," * 600_000 + "0]",
}
OTHERS = [None, True, False, 0, -1, 1, 2, 28, 1.0, 0.5, 1e-17, 1e-300, 1e308, 2**31, 2**63, 10**400, "", "a\nb", "é"]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a tree of JSON with each of its keys or indices."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def mutate(tree: Any, chance: Random) -> None:
    """Delete, double, rename, retype, nest or enlarge something in the tree."""
    if not (found := places(tree)):
        return
    holder, key = chance.choice(found)
    value = copy.deepcopy(holder[key])  # else it could come to hold itself
    match chance.randrange(7):
        case 0:
            del holder[key]
        case 1:  # a copy beside it, or in the place of something else
            other, place = chance.choice(found)
            if isinstance(other, dict):
                other[chance.choice([place, key, f"{place}2"] if isinstance(key, str) else [place])] = value
            else:
                other.insert(chance.randrange(len(other) + 1), value)
        case 2:
            holder[key] = chance.choice(OTHERS)
        case 3:
            holder[key] = f"<{chance.choice(sorted(RAW))}>"
        case 4:
            holder[key] = chance.choice([[value], {"a": value}, [value] * 3, str(value), [[value]]])
        case 5:
            if isinstance(value, int | float):
                holder[key] = value * chance.choice([-1, 2, 10, 1000, 100_000, 1e-3])
            elif isinstance(value, list | str) and len(text := str(value)) < 1000 and "<" not in text:
                holder[key] = value * chance.choice([0, 2, 1000])
        case 6:
            if isinstance(holder, dict):
                holder[f"{key}<twice>"] = chance.choice([value, *OTHERS])


def written(tree: Any) -> str:
    """The tree as JSON, with what stands for other JSON replaced, and keys that are to be there twice."""
    text = json.dumps(tree).replace("<twice>", "")
    return re.sub(r'"<([a-z ]+)>"', lambda found: RAW.get(found[1], found[0]), text)


def mutants(original: bytes, count: int) -> Iterator[bytes]:
    """Files with the same weights; mostly it is the card that is damaged, and now and then the rest of the header."""
    length = int.from_bytes(original[:8], "little")
    chance = Random(0)
    for _ in range(count):
        header = json.loads(original[8 : 8 + length])
        card = json.loads(header["__metadata__"]["ddpm"])
        for _ in range(chance.choice((1, 1, 2, 5))):
            mutate(card if chance.random() < 0.8 else header, chance)
        if isinstance(header.get("__metadata__"), dict) and isinstance(header["__metadata__"].get("ddpm"), str):
            header["__metadata__"]["ddpm"] = written(card)
        text = written(header).encode()
        yield len(text).to_bytes(8, "little") + text + original[8 + length :]


def main() -> None:
    """Load every mutant."""
    path, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    load = {"model": load_model, "classifier": load_classifier}[kind]
    load(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    loaded = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        mutant = Path(folder, "mutant.safetensors")
        for number, data in enumerate(mutants(path.read_bytes(), count)):
            mutant.write_bytes(data)
            began = time.monotonic()
            resource.setrlimit(resource.RLIMIT_AS, (taken + (MEGABYTES << 20), -1))
            try:
                load(mutant)
                loaded += 1
            except UserError as error:
                lines = str(error).split("\n  ")
                if any("\n" in line or len(line) > 1000 for line in lines) or not lines[0].startswith(str(mutant)):
                    sys.exit(f"mutant {number}: {error!r}")
                if re.search("memory", lines[0], re.IGNORECASE):
                    sys.exit(f"mutant {number} took too much memory: {error}")
            except BaseException as error:
                sys.exit(f"mutant {number}: {error!r:.2000}, of {data[8:2000]!r}")
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            slowest = max(slowest, time.monotonic() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(json.dumps({"loaded": loaded, "slowest": slowest, "megabytes": grown}))


if __name__ == "__main__":
    main()
