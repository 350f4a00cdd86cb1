"""`gpuq stats`: how jobs fared."""

from typing import Annotated

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.render import tabbed
from gpuq.cli.results.past_options import (
    Export,
    Jobs,
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
from gpuq.cli.results.past_text import FARED, foot, rest, simulated_runs, stats_table

BY = ("state", "user", "name", "group", "queue")


def stats(
    context: typer.Context,
    jobs: Jobs = None,
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
      gpuq stats g12                 of one group, or of the jobs 12-18,20
      gpuq stats --by group -n 'sweep*' --export sweeps.csv

    WAIT is from the submission to the first start, RUN from the start of each attempt to its end
    without its pauses; P50 and P95 are what half of them and 95 of 100 did not exceed. Memory is
    the most of any attempt. On a pipe the columns are the name by which they are told apart, jobs,
    queued, running, succeeded, failed (or timed out, out of memory, lost), attempts, wait P50,
    wait P95, run P50, run P95 (seconds), memory and GPU memory (bytes), jobs that turned to the CPU
    (ON CPU), and attempts on simulated GPUs.
    """
    read_by(by, BY)
    check_export(export, json)
    look = console.look(context)
    answer = look_back(
        context,
        "stats",
        look.now,
        refs=list(jobs or []),
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
    if is_handed_over(answer, "stats", export, json, since=since):
        return
    if look.terminal:
        console.say(*stats_table(by, rows, look))
        left_out = rest(len(rows), answer["more"], "there are no such jobs")
        console.say(*foot(simulated_runs(rows), look), *foot(left_out, look))
    else:
        console.say(*(tabbed([row["key"], *(row[name] for name in FARED)]) for row in rows))
