"""Options of the commands that look back, and what they ask the daemon for by them."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.core.units import quoted
from gpuq.errors import UsageError

which = partial(Option, rich_help_panel="Which jobs")
SINCE_HELP = "Only what ended since then, or has not ended: 24h, 2026-07-31, ..."

Jobs = Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)]
Since = Annotated[str | None, which("--since", metavar="TIME", help=SINCE_HELP)]
Mine = Annotated[bool, which("-m", "--mine", help="Only my own.")]
User = Annotated[str | None, which("-u", "--user", metavar="NAME", help="Only theirs.")]
Name = Annotated[
    str | None,
    which("-n", "--name", metavar="NAME", help="Called so; * and ? stand for any letters."),
]
Tag = Annotated[str | None, which("--tag", metavar="TAG", help="Only those with this tag.")]
Queue = Annotated[
    str | None, which("-q", "--queue", metavar="NAME", help="Only those in this queue.")
]
Json = Annotated[bool, Option("--json", help="Print it as JSON.")]
Export = Annotated[
    str | None,
    Option(
        "--export", metavar="FILE", help="Write it to FILE, by its name as .csv, .json or .yaml."
    ),
]

View = dict[str, Any]


def read_moment(text: str | None, now: float) -> float | None:
    from gpuq.cli.jobs import read_since

    return None if text is None else read_since(text, now)


def read_by(by: str, known: Sequence[str]) -> str:
    if by not in known:
        raise UsageError(f"--by: {quoted(by)} is none of {', '.join(known)}")
    return by


def look_back(context: typer.Context, do: str, now: float, **asked: Any) -> View:
    """What the daemon finds in its history; `since` as somebody wrote it."""
    from gpuq.past import ANSWER_S

    since = read_moment(asked.pop("since"), now)
    with console.connect(context) as client:
        return client.call(do, answer_s=ANSWER_S, since=since, **asked)


def is_handed_over(
    answer: View, name: str, export: str | None, json: bool, *, since: str | None
) -> bool:
    """Written to the file or as the JSON that was asked for, where it was. `since` is as somebody
    wrote it: that is the same a minute later."""
    if export is not None:
        write_export(export, name, answer[name], by=answer["by"], since=since)
    elif json:
        console.say_json(**answer)
    return export is not None or json


def check_export(export: str | None, json: bool) -> None:
    """Before anything is asked for: what is to become of a file is known then."""
    if export is None:
        return
    from gpuq.cli.results.exports import format_of

    format_of(export)
    if json:
        raise UsageError("--export and --json exclude each other: the file has it all")


def write_export(path: str, name: str, rows: Sequence[View], **about: Any) -> None:
    from gpuq.cli.results.exports import export

    export(path, name, rows, **about)
    console.note(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} written to {path}")
