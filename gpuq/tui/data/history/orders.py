"""In which order stands what has ended: of as many as were asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpuq.tui.data.listing.orders import FROM_THE_END
from gpuq.tui.data.listing.orders import ORDERS as LISTED
from gpuq.tui.data.spans import Row

# "ended" is the daemon's own, page by page.
ORDERS: dict[str, Callable[[Row], Any]] = {
    "ended": lambda row: row["ended_at"],
    **LISTED,
    "id": lambda row: row["id"],
    "start": lambda row: row["started_at"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`by` is one of ORDERS."""

    by: str = "ended"
    is_descending: bool = True

    def next(self) -> "Order":
        words = list(ORDERS)
        by = words[(words.index(self.by) + 1) % len(words)]
        return Order(by=by, is_descending=by in (*FROM_THE_END, "ended"))

    def turned(self) -> "Order":
        return replace(self, is_descending=not self.is_descending)


LAST_FIRST = Order()


def in_order(rows: Sequence[Row], order: Order) -> list[Row]:
    """`rows` as the daemon tells them, the last that ended first, which is the order of equals. Those
    without a value are the last, whichever way round."""
    if order == LAST_FIRST:
        return list(rows)
    value = ORDERS[order.by]
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return [*sorted(known, key=value, reverse=order.is_descending), *unknown]
