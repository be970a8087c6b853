"""The Linux control groups over this process, in which a container's bounds stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of the groups that bound ``controller`` ("cpu", "memory") for this process, of either version."""
    groups = root / "sys/fs/cgroup"
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        own = Path(path.strip("/"))
        for top in [groups / controllers] if controllers else [groups, groups / "unified"]:
            # In a container the path may be the host's, of which only the top is there.
            for group in (own, *own.parents):
                yield top / group


def read(path: Path) -> str:
    """The text of a file of the kernel's; nothing where it is not there."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
