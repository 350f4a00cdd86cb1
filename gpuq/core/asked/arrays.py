"""Many jobs in one: what people write for indices, grids and tables, as it goes over the wire.

`{i}` and the names of parameters in braces stand for what each element has. Nothing here is done for
each element, however many there are: a range stays one.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

MOST_ELEMENTS = 10_000_000
MOST_SPANS = 2_000  # of indices; each look at an element goes through them
MOST_VALUES = 100_000  # of one axis of a grid
HIGHEST_INDEX = 2**31 - 1
LONGEST_FILLED = 128 * 1024  # signs: one byte more than Linux passes in one string (execve(2))
INDEX = "i"  # the name that stands for the index

_SPAN = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?", re.ASCII)
_NAME = re.compile(r"\w{1,64}", re.ASCII)
_VALUE = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|$)|([^,"]*)(?:,|$)')
_PLACE = re.compile(r"\{\{(\w+)\}\}|(?<!\$)\{(\w+)\}", re.ASCII)

Wire = dict[str, Any]


# ── what people write ──


def parse_array(text: str) -> tuple[list[range], int | None]:
    """Indices and how many may run at a time of "0-99%4", "1-5:2", "1,3,7-9", "%4" (no indices), as
    Slurm has them (https://slurm.schedmd.com/job_array.html); ValueError."""
    spans, percent, most = text.partition("%")
    if percent and not (most.isascii() and most.isdecimal() and int(most) > 0):
        raise ValueError(f"{text!r}: behind % stands how many may run at once, like 0-99%4")
    if not spans.strip() and percent:
        return [], int(most)
    indices = [_parse_span(part.strip()) for part in spans.split(",")]
    _check_once(indices)
    return _joined(indices), int(most) if percent else None


def _parse_span(part: str) -> range:
    match = _SPAN.fullmatch(part)
    if match is None or max(map(len, match.groups(""))) > 10:
        raise ValueError(
            f"{part!r} is no index and no range: write them like 0-99, 1-9:2 or 1,3,7-9"
        )
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first:
        raise ValueError(f"{part!r} runs backwards")
    if last > HIGHEST_INDEX:
        raise ValueError(f"{part!r}: the highest index is {HIGHEST_INDEX}")
    if not step:
        raise ValueError(f"{part!r} stands still: a step is 1 or more")
    return range(first, last + 1, step)


def _check_once(indices: Sequence[range]) -> None:
    """Each index belongs to one element: two would write over each other's results."""
    _check_spans(indices)
    open_spans: list[range] = []
    for span in sorted(indices, key=lambda span: span.start):
        open_spans = [other for other in open_spans if other[-1] >= span.start]
        for other in open_spans:
            few, many = sorted((span, other), key=len)
            if (twice := next((index for index in few if index in many), None)) is not None:
                raise ValueError(f"index {twice} is there twice")
        open_spans.append(span)


def _check_spans(indices: Sequence[range]) -> None:
    if len(indices) > MOST_SPANS:
        raise ValueError(
            f"{len(indices)} single indices and ranges; {MOST_SPANS} are the most. "
            "Put them into a column of a table (--params)"
        )
    check_count(sum(map(len, indices)))


def _joined(indices: Iterable[range]) -> list[range]:
    """1,2,3 is 1-3: what is written one by one takes no more room than a range."""
    joined: list[range] = []
    for span in indices:
        last = joined[-1] if joined else None
        if last is not None and span.step == last.step == 1 and span.start == last.stop:
            joined[-1] = range(last.start, span.stop)
        else:
            joined.append(range(span.start, span.stop) if len(span) == 1 else span)
    return joined


def parse_axis(text: str) -> tuple[str, list[str]]:
    """The name and the values of "lr=0.1,0.01" and "seed=1-5". In double quotes a value may hold a
    comma or look like a range; a quote in there is written twice. ValueError."""
    name, equals, said = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no NAME=VALUES, like lr=0.1,0.01 or seed=1-5")
    check_names([name])
    values = list(chain.from_iterable(_parse_values(name, said)))
    if len(values) > MOST_VALUES:
        raise ValueError(_too_many_values(name, len(values)))
    if twice := _first_twice(values):
        raise ValueError(f"{name}: the value {twice!r} is there twice")
    return name, values


def write_axis(name: str, value: str) -> str:
    """The text that `parse_axis` reads as this one value."""
    try:
        if parse_axis(plain := f"{name}={value}") == (name, [value]):
            return plain
    except ValueError:
        pass
    quoted = value.replace('"', '""')
    return f'{name}="{quoted}"'


def _parse_values(name: str, said: str) -> Iterable[Sequence[str]]:
    at = 0
    while at <= len(said):
        match = _VALUE.match(said, at)
        if match is None:
            raise ValueError(f'{name}: {said[at:]!r}: a value in quotes ends with ", and no more')
        quoted, plain = match.groups()
        yield [quoted.replace('""', '"')] if quoted is not None else _unrolled(name, plain)
        if match.end() == len(said) and said[match.end() - 1 : match.end()] != ",":
            return
        at = match.end()


def _unrolled(name: str, value: str) -> Sequence[str]:
    """ "1-5" as five values; with zeros before them they keep their width, as in a shell's {01..10}."""
    match = _SPAN.fullmatch(value.strip())
    if match is None or match[2] is None:
        if not value.strip():
            raise ValueError(f'{name}: an empty value is written as ""')
        return [value.strip()]
    if max(map(len, match.groups(""))) > 15:
        return [value.strip()]
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if last < first or not step:
        raise ValueError(f"{name}: the range {value.strip()!r} holds nothing")
    span = range(first, last + 1, step)
    if len(span) > MOST_VALUES:
        raise ValueError(_too_many_values(name, len(span)))
    padded = len(match[1]) if match[1].startswith("0") and len(match[1]) > 1 else 1
    return [f"{number:0{padded}}" for number in span]


def _too_many_values(name: str, count: int) -> str:
    return (
        f"{name}: {count} values; {MOST_VALUES} are the most of one --grid. "
        "For whole numbers one after the other use --array and {i}"
    )


def _first_twice(values: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def parse_table(text: str) -> tuple[list[str], list[list[str]]]:
    """The names in the first row of a CSV file and the rows below it; empty lines do not count.
    ValueError names the line."""
    reader = csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True), strict=True)
    columns: list[str] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if not columns:
                columns = [name.strip() for name in row]
                check_names(columns)
            elif len(row) != len(columns):
                raise ValueError(f"{len(row)} values for {len(columns)} names")
            else:
                rows.append(row)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError("there is no row of values below the names")
    return columns, rows


# ── as it is sent ──


def to_wire(
    array: str | None = None,
    grid: Mapping[str, Sequence[str]] | None = None,
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
) -> Wire | None:
    """The field "array" of a submit, None where nothing is asked for. The index counts from 0 unless
    `array` gives indices: then there have to be as many as the grid or the table gives. ValueError."""
    if array is None and not grid and table is None:
        return None
    if grid and table is not None:
        raise ValueError("--grid and --params both say what the parameters are: choose one")
    indices, most = parse_array(array) if array is not None else ([], None)
    columns, rows = table or ((), ())
    check_names([*(grid or ()), *columns])
    count = prod(map(len, grid.values())) if grid else len(rows)
    if not count and not indices:
        raise ValueError(f"--array {array} gives no indices, and there is no --grid or --params")
    if count and indices and count != (given := sum(map(len, indices))):
        whose = "--grid" if grid else "--params"
        raise ValueError(f"{whose} gives {count} elements, and --array {given} indices")
    check_count(count)
    wire = {
        "indices": [[span.start, span.stop, span.step] for span in indices] or [[0, count, 1]],
        "axes": [[name, list(values)] for name, values in (grid or {}).items()],
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "max_running": most,
    }
    return {name: value for name, value in wire.items() if value}


def rows_of(parameters: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[str]]]:
    """A table of what each element has by name; ValueError where one has other names than the first."""
    if not parameters:
        raise ValueError("params: there are no elements")
    columns = list(parameters[0])
    for number, row in enumerate(parameters):
        if row.keys() != parameters[0].keys():
            raise ValueError(f"params: element {number} has other names than the first")
    return columns, [[str(row[name]) for name in columns] for row in parameters]


def check_count(count: int) -> None:
    if count > MOST_ELEMENTS:
        raise ValueError(f"{count} elements; {MOST_ELEMENTS} are the most of one submit")


def check_names(names: Sequence[str]) -> None:
    """Names of parameters: each gives a variable, GPUQ_PARAM_LR for lr, and stands in braces."""
    variables: dict[str, str] = {}
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"{name!r} cannot name a parameter: letters, digits and _ can, up to 64"
            )
        if name == INDEX:
            raise ValueError(f"{{{INDEX}}} is the index: call the parameter otherwise")
        if (other := variables.setdefault(variable(name), name)) != name:
            raise ValueError(f"{other!r} and {name!r} would both be {variable(name)}")
    if twice := _first_twice(names):
        raise ValueError(f"the parameter {twice!r} is there twice")


def variable(name: str) -> str:
    """The variable by which a job finds a parameter."""
    return f"GPUQ_PARAM_{name.upper()}"


# ── what stands in braces ──


def fill(text: str, values: Mapping[str, str]) -> str:
    """{name} becomes its value, {{name}} becomes {name}. What is no name of `values` stays as it is,
    and so does ${name}, which a shell is to read. What becomes longer than any program can be passed
    ends where it is: a few words of an array could otherwise fill the memory."""
    if "{" not in text:
        return text
    pieces: list[str] = []
    length = at = 0
    for match in _PLACE.finditer(text):
        pieces += text[at : match.start()], _filled(match, values)
        length += len(pieces[-2]) + len(pieces[-1])
        at = match.end()
        if length > LONGEST_FILLED:
            return "".join(pieces)[:LONGEST_FILLED]
    return "".join([*pieces, text[at:]])


def _filled(match: re.Match[str], values: Mapping[str, str]) -> str:
    escaped, name = match.groups()
    if escaped is not None:
        return f"{{{escaped}}}" if escaped in values else match[0]
    return values.get(name, match[0])


def escape(text: str, names: Iterable[str]) -> str:
    """The text that `fill` with these names gives back as it is."""
    known = set(names)
    return _PLACE.sub(lambda m: f"{{{m[0]}}}" if m[2] in known or m[1] in known else m[0], text)


def places(text: str, names: Iterable[str]) -> list[str]:
    """Those of the names whose values are put into the text."""
    known = set(names)
    return [match[2] for match in _PLACE.finditer(text) if match[2] in known]
