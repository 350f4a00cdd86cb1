"""What a submit says of arrays and scripts, read from the wire and checked."""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from gpuq.core.asked.arrays import (
    HIGHEST_INDEX,
    INDEX,
    MOST_SPANS,
    MOST_VALUES,
    check_count,
    check_names,
    places,
)
from gpuq.core.asked.elements import Elements
from gpuq.core.asked.file_names import differs_by_element
from gpuq.core.asked.scripts import LONGEST_SCRIPT
from gpuq.core.asked.wire_fields import read_flag, read_integer, read_list, to_bytes
from gpuq.errors import UsageError

LONGEST_VALUE = 64 * 1024  # of a parameter, in bytes: it is to fit into a variable and into a word

MOST_INTERPRETER_WORDS = 8
MOST_NAMES = 1_000
MOST_ROWS = 100_000  # of tables, of one submission: each is a row in the database too
MOST_GRID_BYTES = 2 * 2**20  # of the values of all axes: they are read for each look at an element


class Many(NamedTuple):
    elements: Elements | None = None
    rows: tuple[tuple[str, ...], ...] = ()
    max_running: int | None = None


class Script(NamedTuple):
    text: bytes | None = None
    interpreter: tuple[bytes, ...] = ()
    as_slurm: bool = False


# ── arrays ──


def read_array(wire: Mapping[str, Any]) -> Many:
    """The elements of an array, none where it is none."""
    array = wire.get("array")
    if array is None:
        return Many()
    if not isinstance(array, dict):
        raise UsageError(f"array: {_short(array)} is not a mapping")
    try:
        return _read_array(array)
    except ValueError as error:
        raise UsageError(f"array: {error}") from None


def _read_array(array: Mapping[str, Any]) -> Many:
    indices = _read_indices(array)
    count = sum(map(len, indices))
    check_count(count)
    axes = tuple(map(_read_axis, read_list(array, "axes")))
    columns = tuple(map(_read_name, read_list(array, "columns")))
    check_names([*(name for name, _ in axes), *columns])
    if len(axes) + len(columns) > MOST_NAMES:
        raise ValueError(f"more than {MOST_NAMES} parameters")
    if sum(len(value) for _, values in axes for value in values) > MOST_GRID_BYTES:
        raise ValueError(f"the values of its grid are longer than {MOST_GRID_BYTES} bytes")
    if axes and prod(len(values) for _, values in axes) != count:
        raise ValueError(f"its grid does not give the {count} elements that its indices name")
    rows = _read_rows(array, len(columns))
    if len(rows) != (count if columns else 0):
        raise ValueError(f"its table has {len(rows)} rows for {count} elements")
    most = array.get("max_running")
    return Many(
        Elements(indices=indices, axes=axes, columns=columns),
        rows,
        None if most is None else read_integer(array, "max_running", 1, 1, HIGHEST_INDEX),
    )


def check_size(elements: int, rows: int) -> None:
    """Of all that is submitted at once."""
    try:
        check_count(elements)
        _check_rows(rows)
    except ValueError as error:
        raise UsageError(f"array: {error}") from None


def _check_rows(rows: int) -> None:
    if rows > MOST_ROWS:
        raise ValueError(
            f"{rows} rows of tables; {MOST_ROWS} are the most of one submit. "
            "Cut the table into several, or use --grid"
        )


def _read_indices(array: Mapping[str, Any]) -> tuple[range, ...]:
    spans = read_list(array, "indices")
    if not 0 < len(spans) <= MOST_SPANS:
        raise ValueError(f"1 to {MOST_SPANS} ranges of indices are wanted, not {len(spans)}")
    return tuple(map(_read_span, spans))


def _read_span(span: Any) -> range:
    """[start, stop, step], where stop is the first that does not belong to it."""
    is_right = isinstance(span, list) and len(span) == 3 and all(type(n) is int for n in span)
    if not is_right or not 0 <= span[0] < span[1] <= HIGHEST_INDEX + 1 or span[2] < 1:
        raise ValueError(f"{_short(span)} is no range of indices, [start, stop, step]")
    return range(*span)


def _read_axis(axis: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(axis, list) or len(axis) != 2 or not isinstance(axis[1], list):
        raise ValueError(f"{_short(axis)} is no axis, [name, values]")
    name = _read_name(axis[0])
    if not 0 < len(axis[1]) <= MOST_VALUES:
        raise ValueError(f"{name}: 1 to {MOST_VALUES} values are wanted, not {len(axis[1])}")
    return name, tuple(_read_value(name, value) for value in axis[1])


def _read_name(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{_short(name)} is no name of a parameter")
    return name


def _read_rows(array: Mapping[str, Any], width: int) -> tuple[tuple[str, ...], ...]:
    rows = read_list(array, "rows")
    _check_rows(len(rows))
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(
                f"row {number} of its table has not the {width} values that it is to have"
            )
    return tuple(tuple(_read_value("rows", value) for value in row) for row in rows)


def _read_value(name: str, value: Any) -> str:
    """What can stand in a variable and in a word of a command."""
    if len(to_bytes(name, value)) > LONGEST_VALUE:
        raise ValueError(f"{name}: a value of more than {LONGEST_VALUE} bytes")
    return str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


# ── files of many ──


def check_files(many: Many, files: Mapping[str, bytes | None], *, as_slurm: bool) -> None:
    """The elements of an array write to files of their own; those that were written for Slurm may
    write to one, as they do there."""
    elements = many.elements
    if elements is None or len(elements) == 1 or as_slurm:
        return
    names = [INDEX, *(name for name, _ in elements.axes), *elements.columns]
    for option, path in files.items():
        text = "" if path is None else path.decode("utf-8", "surrogateescape")
        if not text or text.startswith("/dev/"):
            continue
        if not places(text, names) and not differs_by_element(text):
            raise UsageError(
                f"--{option} {text}: all {len(elements)} elements of the array would write there. "
                "Put {i} or %a into its name"
            )


# ── scripts ──


def read_script(wire: Mapping[str, Any]) -> Script:
    """A script whose text comes with the job; argv[0] is what it was called."""
    as_slurm = read_flag(wire, "as_slurm")
    text = wire.get("script")
    words = read_list(wire, "interpreter")
    if text is None:
        if words:
            raise UsageError("interpreter: there is no script for it to read")
        return Script(as_slurm=as_slurm)
    if not 0 < len(words) <= MOST_INTERPRETER_WORDS:
        raise UsageError(f"interpreter: 1 to {MOST_INTERPRETER_WORDS} words are wanted")
    interpreter = tuple(to_bytes("interpreter", word) for word in words)
    if not interpreter[0]:
        raise UsageError("interpreter: its first word is empty")
    return Script(_read_text(text), interpreter, as_slurm)


def _read_text(text: Any) -> bytes:
    if not isinstance(text, str):
        raise UsageError(f"script: {_short(text)} is not text")
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError("script: it holds half a character") from error
    if b"\0" in data:
        raise UsageError("script: a script is text, and this holds a NUL byte")
    if len(data) > LONGEST_SCRIPT:
        raise UsageError(f"script: {len(data)} bytes; {LONGEST_SCRIPT} are the most")
    return data
