"""How somebody reads a log: from where on, and what the lines look like."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """`top` is where in the file the first line begins that is seen, and `part` the row of that line,
    where lines are wrapped; `left` is the first column. `found` is where the line begins that was found
    last, of `wanted`. While the end is followed the place says nothing."""

    follows: bool = True
    top: int = 0
    part: int = 0
    left: int = 0
    wraps: bool = False
    shows_times: bool = False
    wanted: str = ""
    found: int | None = None
