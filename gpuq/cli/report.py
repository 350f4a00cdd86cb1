"""`gpuq report`: what a job of any language says of itself."""

import os
from typing import Annotated

from typer import Argument

from gpuq import job
from gpuq.cli import console
from gpuq.cli.render import printable
from gpuq.core.results.progress import not_a_progress
from gpuq.errors import UsageError

WORDS = {"true": True, "false": False, "null": None}


def report(
    values: Annotated[
        list[str] | None, Argument(metavar="NAME=VALUE ...", show_default=False)
    ] = None,
) -> None:
    """Report values from inside a job, in any language; alone it says that the job is alive.

    Examples:
      gpuq report progress=0.4 loss=1.2 acc=0.91
      gpuq report progress=40% stage=warmup
      gpuq report progress=$i/200
      gpuq report            a sign of life, for --heartbeat

    `progress` goes from 0 to 1. A number is one, also nan and inf; true, false and null are what they
    are in JSON, and the rest is text. The last value of each name counts: gpuq show JOB. Outside a job
    nothing is reported, which is said and is no failure, so that the same script runs by hand; nor is
    it one where a full disk takes no report, or where progress is none, as 140%. A word that is no
    NAME=VALUE is a mistake in the script: exit code 2. From Python it is quicker by far without a
    process of its own: from gpuq import job; job.report(loss=1.2)
    """
    said = dict(map(_read, values or ()))
    if why := not_a_progress(said["progress"]) if "progress" in said else None:
        console.note(f"{printable(why)}: this value does not count")
    if not os.environ.get("GPUQ_REPORT"):
        console.note("this is no job of gpuq, so nothing is reported")
    elif not values:
        job.heartbeat()
    elif not job.report(said):
        console.note("the report could not be written; the job goes on")


def _read(word: str) -> tuple[str, float | int | str | bool | None]:
    name, equals, text = word.partition("=")
    if not name or not equals:
        raise UsageError(
            f"a value is NAME=VALUE, as in `gpuq report loss=1.2`, and not {printable(word)!r}"
        )
    if name == "progress" and text.endswith("%"):
        return name, _number(text[:-1], text, parts=100)
    if name == "progress" and "/" in text:
        done, _, total = text.partition("/")
        return name, _number(done, text, parts=_number(total, text))
    return name, WORDS[text] if text in WORDS else _number(text, text)


def _number(text: str, otherwise: str, parts: float | int | str = 1) -> float | int | str:
    """Divided by `parts`; the other text where it is no number. 1_000 is one to Python alone."""
    if "_" in otherwise or isinstance(parts, str):
        return otherwise
    try:
        number = float(text) / parts
    except (ValueError, ZeroDivisionError):
        return otherwise
    return int(text) if parts == 1 and text.lstrip("+-").isdecimal() else number
