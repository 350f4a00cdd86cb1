"""What a group of jobs is called whose names differ."""

import re
from collections.abc import Sequence

SHORTEST = 2  # a name of one letter in common is chance
_BREAK = re.compile(r"[^\W\d_]")  # a letter: between two of them no name is broken
_LOOSE_END = re.compile(r"[\W\d_]+$")


def common_name(names: Sequence[str]) -> str:
    """ "vision" of "vision/detect" and "vision/train", "echo and others" where they have nothing in
    common. The first is that of the first job; "" where there are none."""
    if len(set(names)) < 2:
        return names[0] if names else ""
    shared = _beginning(min(names), max(names))
    if any(_BREAK.match(name[len(shared) :]) for name in names) and _BREAK.match(shared[-1:]):
        shared = "".join(re.findall(r"^(.*)[\W\d_]", shared))
    shared = _LOOSE_END.sub("", shared)
    return shared if len(shared) >= SHORTEST else f"{names[0]} and others"


def _beginning(one: str, other: str) -> str:
    """What both begin with; of the first and the last in the alphabet it is what all begin with."""
    end = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if end is None else end]
