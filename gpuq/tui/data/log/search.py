"""What is looked for in a log: which lines have it, kept while lines come and go."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from gpuq.cli.render import printable
from gpuq.core.units import count
from gpuq.tui.data.log.window import Moved


class Search:
    """For a text as it stands; in either case of letters unless one in it is a capital, as less and
    vim have it. `lines` are those that have it, by their numbers."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        flags = re.IGNORECASE if wanted == wanted.lower() else 0
        self._pattern = re.compile(re.escape(wanted), flags)
        self.lines: list[int] = []

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in it, from one sign to before another."""
        return [match.span() for match in self._pattern.finditer(text)]

    def change(self, moved: Moved, text: Callable[[int], str]) -> None:
        """`text` is what a line says."""
        kept = [line - moved.dropped + moved.added for line in self.lines]
        kept = kept[bisect_left(kept, moved.added) : bisect_left(kept, moved.since)]
        fresh = [*range(moved.added), *range(max(moved.since, moved.added), moved.lines)]
        found = [line for line in fresh if self._pattern.search(text(line))]
        self.lines = sorted(kept + found)

    def next(self, line: int, by: int) -> int | None:
        """The line that has it after that one, or before it where `by` is negative; around the end."""
        if not self.lines:
            return None
        if by > 0:
            return self.lines[bisect_right(self.lines, line) % len(self.lines)]
        return self.lines[bisect_left(self.lines, line) - 1]


def found_words(search: Search, here: int | None) -> str:
    """ "/loss: 2 of 17 lines", where `here` is the line that was gone to."""
    told = f"/{printable(search.wanted)}: "
    if here in search.lines:
        told += f"{search.lines.index(here) + 1} of "
    return told + count(len(search.lines), "line")
