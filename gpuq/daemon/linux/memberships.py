"""Where a process runs, from the text of its /proc/PID/cgroup: group, unit of systemd, container.

Version 1 of cgroups has a line for each controller and version 2 one for all; engines name their
groups "docker-ID.scope" under systemd and "docker/ID" without it (cgroups(7), proc_pid_cgroup(5)).
What a user may choose of it leaves here printable.
"""

import re
from dataclasses import dataclass

LONGEST_TEXT = 400

CONTAINERS = (
    ("kubernetes", r"kubepods.*(?<!conmon)[/:-]([0-9a-f]{64})"),
    ("docker", r"/docker[/-]([0-9a-f]{64})"),
    ("podman", r"/libpod-([0-9a-f]{64})"),
    ("containerd", r"/(?:cri-containerd|nerdctl)[-:]([0-9a-f]{64})"),
    ("cri-o", r"/crio-([0-9a-f]{64})"),
    ("lxc", r"/lxc(?:\.payload)?[./](?!monitor|payload)([^/]+)"),
    ("unknown", r"/([0-9a-f]{64})(?:/|$)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """`runtime` is a name in CONTAINERS; `id` is short, as its commands take it."""

    runtime: str
    id: str

    def __str__(self) -> str:
        kind = "" if self.runtime == "unknown" else f"{self.runtime} "
        return f"{kind}container {self.id}"


def place(memberships: str) -> tuple[str | None, str | None, Container | None]:
    """Group, systemd unit and container that a /proc/PID/cgroup tells of.

    The unit is the innermost. cgroup 2 goes first, then systemd's own hierarchy of the older
    layouts, then the rest: where one says nothing the next may.
    """
    found = paths(memberships)
    unit = next(filter(None, map(_unit, found)), None)
    container = next(filter(None, map(_container, found)), None)
    return (printable(found[0]) if found else None), unit, container


def paths(memberships: str) -> list[str]:
    split = [line.split(":", 2) for line in memberships.split("\n")]
    lines = [line for line in split if len(line) == 3]
    known = sorted(lines, key=lambda line: (line[1] != "", line[1] != "name=systemd"))
    found = [path.removesuffix(" (deleted)") for _, _, path in known]
    return [path for path in found if path != "/"]


def _unit(path: str) -> str | None:
    found = re.findall(r"([^/]+\.(?:service|scope))(?=/|$)", path)
    return printable(found[-1]) if found else None


def _container(path: str) -> Container | None:
    for runtime, pattern in CONTAINERS:
        if found := re.findall(pattern, path):
            name = found[-1]
            return Container(runtime=runtime, id=printable(name) if runtime == "lxc" else name[:12])
    return None


def printable(text: str) -> str:
    """On one line, control characters as \\n, and cut where it is long."""
    start = text[: LONGEST_TEXT + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 1] + "…"
