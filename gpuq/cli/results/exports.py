"""Tables as files for other programs: CSV, JSON and YAML, whole or not at all.

The same rows give the same bytes, so that a result that did not change is no change in version control.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

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
    there is to say beside it; CSV has the rows alone."""
    write_whole(path, as_text(format_of(path), name, rows, **about))


def as_text(form: str, name: str, rows: Sequence[Row], **about: Any) -> str:
    if form == "csv":
        return as_csv(rows)
    told = {"schema": SCHEMA, **about, name: list(rows)}
    if form == "json":
        import json

        return json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"
    import yaml

    return str(yaml.safe_dump(told, allow_unicode=True, sort_keys=False))


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


def write_whole(path: str, text: str) -> None:
    """Whoever looks at the file finds all of the old text or all of the new."""
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(partial)
        raise GpuqError(
            f"{path}: cannot be written: {error.strerror}. Nothing was changed"
        ) from None
