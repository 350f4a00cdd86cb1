"""`gpuq stats`: how jobs fared."""

from typing import Annotated

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.render import tabbed
from gpuq.cli.results.past_options import (
    Export,
    Json,
    Mine,
    Name,
    Queue,
    Since,
    Tag,
    User,
    check_export,
    is_handed_over,
    look_back,
    read_by,
)
from gpuq.cli.results.past_text import FARED, stats_table

BY = ("state", "user", "name", "group", "queue")


def stats(
    context: typer.Context,
    by: Annotated[str, Option(metavar="WORD", help=f"{', '.join(BY)}.")] = "state",
    since: Since = None,
    mine: Mine = False,
    user: User = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    limit: Annotated[int, Option(metavar="N", help="At most N lines, 500 at the most.")] = 500,
    json: Json = False,
    export: Export = None,
) -> None:
    """How jobs fared: how long they waited and ran, how many failed, what memory they took.

    Examples:
      gpuq stats                     by state and outcome, of all that is kept
      gpuq stats --by user --since 7d
      gpuq stats --by name --mine
      gpuq stats --by group -n 'sweep*' --export sweeps.csv

    WAIT is from the submission to the first start, RUN from the start of each attempt to its end
    without its pauses; P50 and P95 are what half of them and 95 of 100 did not exceed. Memory is
    the most of any attempt. On a pipe the columns are the name by which they are told apart, jobs,
    queued, running, succeeded, failed (or timed out, out of memory, lost), attempts, wait P50,
    wait P95, run P50, run P95 (seconds), memory and GPU memory (bytes).
    """
    read_by(by, BY)
    check_export(export, json)
    look = console.look(context)
    answer = look_back(
        context,
        "stats",
        look.now,
        by=by,
        since=since,
        mine=mine,
        user=user,
        name=name,
        tag=tag,
        queue=queue,
        limit=limit,
    )
    rows = answer["stats"]
    if is_handed_over(answer, "stats", export, json):
        return
    if look.terminal:
        console.say(*stats_table(by, rows, look))
        note_rest(len(rows), answer["more"], "jobs")
    else:
        console.say(*(tabbed([row["key"], *(row[name] for name in FARED)]) for row in rows))


def note_rest(shown: int, more: int, what: str) -> None:
    """That there were none, or more than are shown."""
    if not shown:
        console.note(f"there are no such {what}")
    elif more:
        console.note(f"{more} more not shown")
