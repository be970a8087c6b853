"""Looks into an image just built: ``python -P check_image.py cpu|gpu``.

Prints what its packages weigh, and exits with 1 where the image is not what it should be: the job imported from
anywhere but site-packages, scaffolding on board, or CUDA in the variant that has no use for it.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

#: Packages that only a GPU can use.
CUDA = ("nvidia-", "cuda-", "triton")
SCAFFOLDING = ("pipeline.emulators", "pipeline.demo")


def sizes(installed: list[Distribution]) -> dict[str, int]:
    """Bytes on disk by package."""
    return {
        package.metadata["Name"].lower(): sum(file.size or 0 for file in package.files or []) for package in installed
    }


def faults(variant: str, names: list[str]) -> Iterator[str]:
    """What is wrong with the image, a line each."""
    for module in ("pipeline", "transforms"):
        found = importlib.util.find_spec(module)
        site = sysconfig.get_path("purelib")
        if found is None or not (found.origin or "").startswith(site):
            yield f"{module} is {found and found.origin}, not below {site}: run this with python -P, after the install"
    for module in SCAFFOLDING:
        if importlib.util.find_spec("pipeline") and importlib.util.find_spec(module):
            yield f"{module} is installed: leave it out in Dockerfile.dockerignore"
    cuda = sorted(name for name in names if name.startswith(CUDA))
    if variant == "cpu" and cuda:
        yield f"the cpu variant has {', '.join(cuda)}: lock torch to a +cpu build in requirements-cpu.txt"
    if variant == "gpu" and not cuda:
        yield "the gpu variant has no CUDA packages: lock PyPI's torch in requirements-gpu.txt"


def main(variant: str) -> int:
    weights = sizes(list(distributions()))
    print(f"{sum(weights.values()) / 1e6:,.0f} MB in {len(weights)} packages; the largest:")
    for name, size in sorted(weights.items(), key=lambda pair: -pair[1])[:12]:
        print(f"{size / 1e6:10,.1f} MB  {name}")
    wrong = list(faults(variant, list(weights)))
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
