"""Tables as files for other programs: CSV, JSON and YAML, whole or not at all.

The same rows give the same bytes, so that a result that did not change is no change in version control.
"""

from collections.abc import Sequence
from typing import Any

from gpuq.cli.whole_file import write_whole
from gpuq.errors import GpuqError, UsageError
from gpuq.protocol import SCHEMA

Row = dict[str, Any]
FORMATS = ("csv", "json", "yaml")


def format_of(path: str) -> str:
    """By the end of its name; UsageError where that says nothing."""
    ending = path.rpartition(".")[2].lower()
    name = "yaml" if ending == "yml" else ending
    if name not in FORMATS or "." not in path:
        raise UsageError(f"{path}: an export is a file that ends in .csv, .json or .yaml")
    return name


def export(path: str, name: str, rows: Sequence[Row], **about: Any) -> None:
    """Writes rows of the same columns to a file. JSON and YAML have them under `name`, with what else
    there is to say beside it; CSV has the rows alone, each value in a column of its own."""
    text = as_text(format_of(path), name, rows, **about)
    try:
        write_whole(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise GpuqError(
            f"{path}: cannot be written: {error.strerror}. Nothing was changed"
        ) from None


def as_text(form: str, name: str, rows: Sequence[Row], **about: Any) -> str:
    if form == "csv":
        return as_csv(flat(rows))
    told = {"schema": SCHEMA, **about, name: list(rows)}
    if form == "json":
        import json

        return json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"
    import yaml

    return str(yaml.safe_dump(told, allow_unicode=True, sort_keys=False))


def flat(rows: Sequence[Row]) -> list[Row]:
    """For a table of plain values: a column for each parameter and each metric, whatever else is called
    so. All rows have all of them, in one order."""
    if not any(_NESTED & row.keys() for row in rows):
        return list(rows)
    parameters = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    metrics = sorted({name for row in rows for name in row["metrics"]})
    return [_flat(row, parameters, metrics) for row in rows]


_NESTED = {"parameters", "metrics"}


def _flat(row: Row, parameters: Sequence[str], metrics: Sequence[str]) -> Row:
    plainly = {name: value for name, value in row.items() if name not in _NESTED}
    plainly |= {f"parameters.{name}": row["parameters"].get(name) for name in parameters}
    return plainly | {f"metrics.{name}": row["metrics"].get(name) for name in metrics}


def as_csv(rows: Sequence[Row]) -> str:
    """A head and a line for each; None is an empty field (RFC 4180, with LF)."""
    import csv
    from io import StringIO

    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        import json

        return json.dumps(value, ensure_ascii=False)
    return value
