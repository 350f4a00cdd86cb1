"""Who goes before whom among jobs that wait."""

from collections.abc import Iterable, Sequence

from gpuq.core.units import format_spans, merged
from gpuq.tui.data.listing.marks import span_of
from gpuq.tui.data.spans import Row

HIGHEST = 1_000_000  # of priorities; the daemon takes no higher


def wanted_priority(text: str, now: Iterable[int]) -> int:
    """Of "5" or "=-5", and of "+10" or "-10" from what it is now. ValueError where it is none of these,
    or where they have different ones to begin from."""
    word, present = text.strip(), set(now)
    is_step = word.startswith(("+", "-"))
    number = word.removeprefix("+" if is_step else "=")
    digits = number if word.startswith("+") else number.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal():
        raise ValueError("a whole number is wanted: 5 or =-5, or +10 or -10 from what it is")
    if len(digits) > len(str(HIGHEST)):
        raise ValueError(f"a number up to {HIGHEST} is wanted")
    value = int(number)
    if is_step:
        if len(present) != 1:
            told = ", ".join(map(str, sorted(present)))
            raise ValueError(f"they have different ones ({told}): write 5 or =-5")
        value += present.pop()
    if abs(value) > HIGHEST:
        raise ValueError(f"a number up to {HIGHEST} is wanted")
    return value


def passing_words(rows: Iterable[Row], spans: Sequence[range], new: int) -> list[str]:
    """Whom these would pass and who would pass them, of all that wait."""
    waiting = [row for row in rows if row["state"] == "queued"]
    chosen = [row for row in waiting if _is_among(row, spans)]
    old = [row["priority"] for row in chosen]
    if not old or all(number == new for number in old):
        return (
            ["that is what they have" if len(chosen) > 1 else "that is what it has"] if old else []
        )
    others = [row for row in waiting if not _is_among(row, spans)]
    low, high = min(old), max(old)
    passed = [row for row in others if low <= row["priority"] < new]
    passing = [row for row in others if new < row["priority"] <= high]
    told = []
    if passed:
        told.append(f"goes before {_named(passed)}")
    if passing:
        told.append(f"lets {_named(passing)} go first")
    return told or ["nobody else that waits is passed by it"]


def swapped(
    waiting: Sequence[Row], spans: Sequence[range], by: int
) -> tuple[list[range], int] | None:
    """What is moved before which job, so that these go one place earlier (`by` -1) or later (1). Each
    of `waiting` has its `queue_place`; None: there is nobody to change places with."""
    order = sorted(
        (row for row in waiting if row["queue_place"] is not None),
        key=lambda row: int(row["queue_place"]),
    )
    chosen = [n for n, row in enumerate(order) if _is_among(row, spans)]
    if not chosen:
        return None
    priority = order[chosen[0]]["priority"]
    candidates = range(chosen[0] - 1, -1, -1) if by < 0 else range(chosen[-1] + 1, len(order))
    for number in candidates:
        other = order[number]
        if other["priority"] != priority:
            return None
        if by < 0:
            return [part for n in chosen for part in _shared(order[n], spans)], other["id"]
        return [span_of(other)], _shared(order[chosen[0]], spans)[0].start
    return None


def _shared(row: Row, spans: Sequence[range]) -> list[range]:
    parts = (
        range(max(row["id"], span.start), min(row["last_id"] + 1, span.stop)) for span in spans
    )
    return [part for part in parts if part]


def _is_among(row: Row, spans: Sequence[range]) -> bool:
    return bool(_shared(row, spans))


def _named(rows: Sequence[Row]) -> str:
    spans = merged(map(span_of, rows))
    ids = format_spans(spans[:5])
    return ids if len(spans) <= 5 else f"{ids} and {sum(map(len, spans[5:]))} more"
