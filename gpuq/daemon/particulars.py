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
known_elements = lru_cache(maxsize=16)(read_elements)


@lru_cache(maxsize=4)  # some have megabytes
def words_of(argv: bytes) -> tuple[str, ...]:
    """A command as it was written."""
    return tuple(map(to_text, split(argv)))


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
    """Of a row that has what the spec says, the number of the element, and where there is a table its
    row of that in "values"."""
    elements = element = None
    if row["element"] is not None:
        elements = known_elements(row["elements"])
        given = json.loads(row["values"] or "[]") if elements.columns else ()
        element = elements.at(row["element"], given)
    values = {} if element is None else {INDEX: str(element.index), **element.parameters}
    array, name = job - (row["element"] or 0), _readable(fill(row["name"], values))
    output = stderr = None
    if row["output"] or row["stderr"]:
        naming = Naming(
            job=job,
            array=array,
            index=0 if element is None else element.index,
            name=name,
            user=row["user"],
            node=NODE,
        )
        output = _file(row["output"], values, naming)
        stderr = _file(row["stderr"], values, naming)
    words = words_of(row["argv"])
    return Particulars(
        job=job,
        array=array,
        name=name,
        command=list(_filled(words, values) if values else words),
        output=output,
        stderr=stderr,
        elements=elements,
        element=element,
        values=values,
    )


def _readable(name: str) -> str:
    """A value may hold any signs, and as many."""
    short = name[:LONGEST_NAME]
    if short.isprintable():
        return short
    return "".join(sign if sign.isprintable() else "?" for sign in short)


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
