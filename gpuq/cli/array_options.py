"""What --array, --grid and --params ask for, as it is sent."""

from collections.abc import Sequence
from typing import Any

from gpuq.core.asked.arrays import INDEX, parse_axis, parse_table, places, to_wire, variable
from gpuq.errors import UsageError


def elements(
    *, array: str | None, grid: Sequence[str] | None, params: str | None, shell: str | None = None
) -> dict[str, Any] | None:
    """The field "array" of a job."""
    axes = _axes(grid or ())
    table = None if params is None else _table(params)
    try:
        made = to_wire(array, axes, table)
    except ValueError as error:
        raise UsageError(f"--array: {error}" if not (axes or table) else str(error)) from None
    if shell is not None:
        _check_shell(shell, [*axes, *(table or ((),))[0]])
    return made


def _axes(grid: Sequence[str]) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for text in grid:
        try:
            name, values = parse_axis(text)
        except ValueError as error:
            raise UsageError(f"--grid: {error}") from None
        if name in axes:
            raise UsageError(f"--grid {name} is there twice: all its values go into one")
        axes[name] = values
    return axes


def _table(path: str) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return parse_table(file.read())
    except OSError as error:
        raise UsageError(f"--params {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--params {path}: {error}") from None


def _check_shell(text: str, names: Sequence[str]) -> None:
    """A value put into a shell's text would be read by the shell, spaces, quotes and all."""
    if found := places(text, [INDEX, *names]):
        name = found[0]
        instead = "GPUQ_ARRAY_INDEX" if name == INDEX else variable(name)
        raise UsageError(
            f"--shell: a shell would read the value of {{{name}}} as text of its own: "
            f'write "${instead}", or {{{{{name}}}}} for the braces themselves'
        )
