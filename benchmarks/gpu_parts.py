"""Parts of the measurement on a graphics card, in one process: `python benchmarks/gpu_parts.py NAME... SECONDS`.

`gpu.py` starts it; each part is stopped by its own end or by `gpu.py`, and has written what it found by then.
"""

import sys
import time
from importlib import import_module

import psutil
from gpu_notes import Part

PARTS = {
    "checks": ("gpu_checks", "What only a graphics card can show"),
    "steps": ("gpu_speed", "A step at the paper's size, against the loop and the bare products"),
    "scoring": ("gpu_speed", "An evaluation of MSCOCO's size"),
    "epoch": ("gpu_training", "An epoch of Flickr30K's size"),
    "runs": ("gpu_training", "Both losses trained on given data"),
    "kernels": ("gpu_speed", "Where the time of a step goes"),
}
"""Part -> the module that has a function of its name, and its title."""


def run(name: str, ends: float) -> None:
    """Run one part; an error is noted in its file."""
    module, title = PARTS[name]
    part = Part(name, title, ends)
    begun = time.time()
    part.attempt(name, lambda: vars(import_module(module))[name](part))
    errors = part.found["errors"]
    outcome = f"failed, in whole or in part: {'; '.join(errors)}" if errors else "finished"
    part.add(outcome=part.found.get("outcome", outcome), seconds=round(time.time() - begun, 1))


def main() -> None:
    *names, seconds = sys.argv[1:]
    begun = psutil.Process().create_time()
    for name in names:
        run(name, begun + float(seconds))
        begun = time.time()


if __name__ == "__main__":
    main()
