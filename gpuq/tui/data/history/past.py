"""What has ended, as far as it was asked for: pages from the daemon, the last that ended first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import localtime, mktime
from typing import Any

from gpuq.cli.jobs import read_since
from gpuq.errors import UsageError
from gpuq.tui.data.history.orders import LAST_FIRST, Order, in_order
from gpuq.tui.data.listing.filters import ENDS, WORD_OF, Filter, parse_filter, state_words, tokens
from gpuq.tui.data.spans import Row

DAY_S = 86400.0
WINDOWS = ("today", "7 days", "30 days", "all")
_LONG_S = {"7 days": 7 * DAY_S, "30 days": 30 * DAY_S}
# One key goes through them; what is "bad" is what `gpuq history --failed` shows.
CHOICES: Mapping[str, Sequence[str]] = {
    "any end": (),
    "bad": ("failed", "timed_out", "out_of_memory", "lost"),
    **{word: (word,) for word in ENDS},
}
_ASKED_AS_IT_IS = ("user", "tag", "queue")  # the daemon compares these as they are written
_PATTERN = set("*?[")

Cursor = list[float | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`choice` is one of CHOICES, `window` one of WINDOWS. Of the words of the filter `since` (s since
    the epoch) and `asked` are for the daemon; `filter` is all of them but the first, for the rows that
    it gives: what is looked for in names and texts it is not asked for."""

    window: str = "7 days"
    choice: str = "any end"
    only_of: str | None = None  # a user
    text: str = ""
    filter: Filter = field(default_factory=Filter)
    asked: Mapping[str, Any] = field(default_factory=dict)
    since: float | None = None
    is_none: bool = False  # no end can be like that

    def request(self, now: float) -> dict[str, Any]:
        """What the daemon is asked for, beside the place in it."""
        bounds = [at for at in (window_start(self.window, now), self.since) if at is not None]
        states = self.asked.get("states") or CHOICES[self.choice]
        asked = {
            "user": self.only_of,
            **self.asked,
            "states": list(states),
            "since": max(bounds, default=None),
        }
        return {name: value for name, value in asked.items() if value not in (None, [])}

    def holds(self, row: Row) -> bool:
        if self.is_none or (CHOICES[self.choice] and row["outcome"] not in CHOICES[self.choice]):
            return False
        if self.only_of is not None and row["user"] != self.only_of:
            return False
        return self.filter.matches(row, row["reason"])


def window_start(window: str, now: float) -> float | None:
    """Seconds since the epoch; None: whenever."""
    if window == "today":
        year, month, day, *_ = localtime(now)
        return mktime((year, month, day, 0, 0, 0, 0, 0, -1))
    return None if window == "all" else now - _LONG_S[window]


def next_of(words: Sequence[str], word: str, by: int = 1) -> str:
    return words[(words.index(word) + by) % len(words)]


def with_filter(wanted: Wanted, text: str, now: float) -> Wanted:
    """UsageError says which word is wrong."""
    since, kept, asked = None, [], dict[str, Any]()
    is_none = False
    for is_not, name, value, is_quoted in tokens(text):
        if name == "since" and not is_not:
            since = _since(value, now)
            continue
        kept.append(_written(is_not, name, value, is_quoted))
        if is_not or not value:
            continue
        if name in _ASKED_AS_IT_IS and _PATTERN.isdisjoint(value):
            asked[name] = value
        elif name == "state":
            asked["states"] = _ends(value)
            is_none = asked["states"] == []
    return replace(
        wanted,
        text=text.strip(),
        filter=parse_filter(" ".join(kept)),
        asked=asked,
        since=since,
        is_none=is_none,
    )


def _since(value: str, now: float) -> float:
    try:
        return read_since(value, now)
    except UsageError as error:
        raise UsageError(str(error).replace("--since: ", "since: ")) from None


def _written(is_not: bool, name: str | None, value: str, is_quoted: bool) -> str:
    quote = '"' if is_quoted else ""
    return f"{'!' if is_not else ''}{f'{name}:' if name else ''}{quote}{value}{quote}"


def _ends(value: str) -> list[str] | None:
    """The outcomes that are meant; None: any."""
    words = {WORD_OF.get(word, word) for word in state_words(value)}
    return None if "ended" in words else [word for word in ENDS if word in words]


class Past:
    """`rows` are those that hold, of the `loaded` ones, in their `order`. `after` is where the next
    page begins; `is_all`: there is none."""

    def __init__(self, holds: Callable[[Row], bool], order: Order = LAST_FIRST) -> None:
        self.order = order
        self.loaded: list[Row] = []
        self.rows: list[Row] = []
        self.after: Cursor | None = None
        self.is_all = False
        self._holds = holds

    def add_page(self, rows: Sequence[Row], after: Cursor | None) -> None:
        """The one behind what is there."""
        known = {row["id"] for row in self.loaded}
        self._take([*self.loaded, *(row for row in rows if row["id"] not in known)])
        self.after, self.is_all = after, not rows or after is None

    def put_newest(self, rows: Sequence[Row], after: Cursor | None) -> None:
        """The first page anew: who is no longer in it has been brought back into the queue, or was
        pruned. Where it does not reach to what is there, that is given up for it."""
        reaches = bool(rows) and bool(self.loaded) and _place(rows[-1]) <= _place(self.loaded[0])
        if not reaches:
            self.loaded = []
            self.add_page(rows, after)
            return
        new = {row["id"] for row in rows}
        behind = [
            row for row in self.loaded if _place(row) < _place(rows[-1]) and row["id"] not in new
        ]
        self._take([*rows, *behind])

    def drop(self, jobs: set[int]) -> bool:
        """Those that are in the queue again; whether there were any."""
        kept = [row for row in self.loaded if row["id"] not in jobs]
        if len(kept) == len(self.loaded):
            return False
        self._take(kept)
        return True

    def _take(self, loaded: list[Row]) -> None:
        self.loaded = [row if "last_id" in row else row | {"last_id": row["id"]} for row in loaded]
        self.rows = in_order([row for row in self.loaded if self._holds(row)], self.order)

    def sort(self, order: Order) -> None:
        self.order = order
        self.rows = in_order([row for row in self.loaded if self._holds(row)], order)


def _place(row: Row) -> tuple[float, int]:
    return float(row["ended_at"]), int(row["id"])
