"""What the elements of an array differ in: an index each, and the values of its parameters.

A million elements are one such value: nothing here is done for each of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Element:
    """One of them: its index, and its parameters by name."""

    index: int
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """`axes` are the parameters of a grid, the last of which varies first; `columns` are those whose
    values stand in a table, a row for each element."""

    indices: tuple[range, ...]
    axes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.indices))

    @property
    def words(self) -> str:
        """The indices as one writes them: "0-9", "0-90:10,200"."""
        return ",".join(_words(span) for span in self.indices)

    def words_between(self, first: int, stop: int) -> str:
        """The same of those of these numbers, counted from 0."""
        words = []
        for span in self.indices:
            if part := span[max(first, 0) : max(stop, 0)]:
                words.append(_words(part))
            first, stop = first - len(span), stop - len(span)
        return ",".join(words)

    def at(self, number: int, row: Sequence[str] = ()) -> Element:
        """The element of that number, counted from 0, with its row of the table; IndexError."""
        parameters = self._on_axes(number) | dict(zip(self.columns, row, strict=bool(row)))
        return Element(index=self._index(number), parameters=parameters)

    def _index(self, number: int) -> int:
        left = number
        for span in self.indices:
            if left < len(span):
                return span[left]
            left -= len(span)
        raise IndexError(f"element {number} of {len(self)}")

    def _on_axes(self, number: int) -> dict[str, str]:
        chosen = {}
        for name, values in reversed(self.axes):
            number, place = divmod(number, len(values))
            chosen[name] = values[place]
        return dict(reversed(chosen.items()))


def _words(indices: range) -> str:
    if len(indices) == 1:
        return str(indices[0])
    step = "" if indices.step == 1 else f":{indices.step}"
    return f"{indices[0]}-{indices[-1]}{step}"


def write_elements(elements: Elements) -> str:
    """As the database keeps it."""
    return json.dumps(
        {
            "indices": [(span.start, span.stop, span.step) for span in elements.indices],
            "axes": elements.axes,
            "columns": elements.columns,
        }
    )


def read_elements(text: str) -> Elements:
    kept: dict[str, Any] = json.loads(text)
    return Elements(
        indices=tuple(range(*span) for span in kept["indices"]),
        axes=tuple((name, tuple(values)) for name, values in kept["axes"]),
        columns=tuple(kept["columns"]),
    )
