"""A script as it is submitted: what runs it, and what it says of itself in the comments at its head."""

from collections.abc import Iterator
from typing import NamedTuple

LONGEST_SCRIPT = 4 * 2**20
KINDS = ("#GPUQ", "#SBATCH")


class Directive(NamedTuple):
    """A line that says how the script wants to be submitted: "#GPUQ --gpus 2"."""

    line: int
    kind: str
    text: str


def interpreter_of(text: str) -> list[str]:
    """The words of its first line, as the kernel takes them: a program, and all the rest as one word
    (execve(2)). ValueError where it names none."""
    first = text.split("\n", 1)[0]
    words = first.removeprefix("#!").split(None, 1)
    if not first.startswith("#!") or not words:
        raise ValueError("its first line names no interpreter, like #!/bin/bash")
    return [word.strip() for word in words]


def directives(text: str) -> Iterator[Directive]:
    """Those before the first line that is neither empty nor a comment, as with sbatch."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            return
        kind, _, said = line.partition(" ")
        kind, _, more = kind.partition("\t")
        if kind in KINDS:
            yield Directive(number, kind, f"{more} {said}".strip())
