"""What is a job's own where it shares the rest with others of its array: words, name and files.

A job of no array goes through here too: the signs in the names of its files (%j) are expanded alike.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gpuq.core.asked.arrays import INDEX, fill
from gpuq.core.asked.elements import Element, Elements, read_elements
from gpuq.core.asked.file_names import Naming, expand
from gpuq.core.asked.wire_fields import LONGEST_NAME, split, to_text

# Of all words together Linux passes less, whatever the limit of the stack (execve(2)).
MOST_FILLED = 6 * 2**20

NODE = os.uname().nodename.partition(".")[0]

# Those of one array are looked at one after the other.
_elements = lru_cache(maxsize=16)(read_elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Particulars:
    """`elements` and `element` are None of a job that is in no array. `output` and `stderr` are the
    files that its submitter named."""

    job: int
    array: int  # the id of the first element
    name: str
    command: list[str]
    output: str | None
    stderr: str | None
    elements: Elements | None = None
    element: Element | None = None
    values: Mapping[str, str] = field(default_factory=dict)  # by what stands in braces

    def fill_all(self, texts: Iterable[str]) -> list[str]:
        return list(_filled(texts, self.values))


def particulars(row: Mapping[str, Any], job: int) -> Particulars:
    """Of a row that has what the spec says, the number of the element, and its row of the table in
    "values"."""
    elements = element = None
    if row["element"] is not None:
        elements = _elements(row["elements"])
        element = elements.at(row["element"], json.loads(row["values"] or "[]"))
    values = {} if element is None else {INDEX: str(element.index), **element.parameters}
    naming = Naming(
        job=job,
        array=job - (row["element"] or 0),
        index=0 if element is None else element.index,
        name=_readable(fill(row["name"], values)),
        user=row["user"],
        node=NODE,
    )
    return Particulars(
        job=job,
        array=naming.array,
        name=naming.name,
        command=list(_filled(map(to_text, split(row["argv"])), values)),
        output=_file(row["output"], values, naming),
        stderr=_file(row["stderr"], values, naming),
        elements=elements,
        element=element,
        values=values,
    )


def _readable(name: str) -> str:
    """A value may hold any signs, and as many."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:LONGEST_NAME])


def _filled(words: Iterable[str], values: Mapping[str, str]) -> Iterator[str]:
    """What is more than any program can be passed stays as it was written."""
    length = 0
    for word in words:
        if length <= MOST_FILLED:
            word = fill(word, values)
            length += len(word)
        yield word


def _file(path: bytes | None, values: Mapping[str, str], naming: Naming) -> str | None:
    """The signs first: what a parameter's value holds is no sign."""
    return fill(expand(to_text(path), naming), values) if path else None
