"""What is shown as the text of a file, and how that gets there: whole or not at all."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpuq.cli.gpu_text import GPU_COLUMNS, gpu_values
from gpuq.cli.job_text import PIPE_COLUMNS, column_values
from gpuq.cli.render import Gpu, Job
from gpuq.cli.results.exports import as_csv
from gpuq.cli.whole_file import write_whole
from gpuq.core.units import count
from gpuq.errors import GpuqError
from gpuq.tui.data.listing.folding import run_folded
from gpuq.tui.data.listing.listing import Listing


class Export(NamedTuple):
    """`about` says in a few words what the text is, `ending` how the name of its file ends."""

    about: str
    ending: str
    text: str


def picture(svg: str) -> Export:
    return Export("the screen as SVG", "svg", svg)


def table(jobs: Sequence[Job], now: float) -> Export:
    """The columns of `gpuq status` on a pipe, uncut, below a head."""
    values = column_values(now)
    rows = [{name: _no_formula(values[name](job)) for name in PIPE_COLUMNS} for job in jobs]
    head = ",".join(PIPE_COLUMNS) + "\n"
    return Export(f"{count(len(rows), 'row')} as CSV", "csv", as_csv(rows) if rows else head)


def gpu_table(gpus: Sequence[Gpu]) -> Export:
    """The columns of `gpuq gpus` on a pipe, below a head."""
    rows = [{name: _no_formula(value) for name, value in gpu_values(gpu).items()} for gpu in gpus]
    head = ",".join(GPU_COLUMNS) + "\n"
    return Export(f"{count(len(rows), 'GPU')} as CSV", "csv", as_csv(rows) if rows else head)


def _no_formula(value: Any) -> Any:
    """With the quote mark by which a spreadsheet takes it for text, and does not reckon or run it."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def graph(rows: Sequence[dict[str, Any]]) -> Export:
    return Export(f"the graph's {count(len(rows), 'reading')} as CSV", "csv", as_csv(rows))


def jobs_shown(listing: Listing) -> list[Job]:
    """All that the filter lets through, also below folded groups; jobs that do not differ are one."""
    return [
        run_folded(row) if row["last_id"] > row["id"] else row
        for number in range(len(listing.entries))
        if not listing.is_unfolded(number)
        for row in listing.rows_of(number)
    ]


def proposed(export: Export, host: str, now: float) -> str:
    """ "gpuq-box7-20260731-140211.csv", where one is."""
    name = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in host)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return f"gpuq-{name}-{stamp}.{export.ending}"


def whole_path(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def forecast(path: str) -> str:
    """What writing there would do; ValueError says why it cannot be."""
    if not path:
        raise ValueError("a file wants a name")
    whole = whole_path(path)
    folder = os.path.dirname(whole)
    if path.endswith("/") or os.path.isdir(whole):
        raise ValueError(f"{whole} is a folder: name a file in it")
    if not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"you may not write in {folder}")
    return f"{whole} is there already, and is written over" if _is_there(whole) else whole


def write(export: Export, path: str, *, may_replace: bool) -> str:
    """Where it is now. GpuqError: nothing was changed."""
    whole = whole_path(path)
    if not may_replace and _is_there(whole):
        raise GpuqError(f"{whole} has come to be meanwhile: nothing was written. Try again")
    try:
        write_whole(whole, export.text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise GpuqError(
            f"{export.about}: {whole} cannot be written: {error.strerror}. Nothing was changed"
        ) from None
    return whole


def _is_there(path: str) -> bool:
    return os.path.lexists(path)
