"""`gpuq errors`: what went wrong, how often, and where."""

from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.render import rfc3339, tabbed
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
from gpuq.cli.results.past_text import error_key_for_pipe, errors_table, foot, rest

BY = ("signature", "outcome", "gpu", "hour")


def errors(
    context: typer.Context,
    jobs: Jobs = None,
    by: Annotated[str, Option(metavar="WORD", help=f"{', '.join(BY)}.")] = "signature",
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
    """What went wrong, how often, and where.

    Examples:
      gpuq errors                    the same error once, however often it was
      gpuq errors g12                of one group, or of the jobs 12-18,20
      gpuq errors --by gpu           whether one GPU is to blame
      gpuq errors --by hour --since 24h
      gpuq errors --by outcome -n 'sweep*'
      gpuq history --failed          the jobs themselves

    Attempts count that failed, ran out of time or memory, or were lost; also those that were tried
    again. A signature is the last exception, or the last line that speaks of an error, with # for
    its numbers; only the owner and admins are told it. An attempt with several GPUs counts at
    each. OF is how many ended there in all. On a pipe the columns are errors, how many ended,
    jobs, users, time and job of the last one, and what they have in common.
    """
    read_by(by, BY)
    check_export(export, json)
    look = console.look(context)
    answer = look_back(
        context,
        "errors",
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
    rows = answer["errors"]
    if is_handed_over(answer, "errors", export, json, since=since):
        return
    if look.terminal:
        console.say(*errors_table(by, rows, look))
        console.say(*foot(rest(len(rows), answer["more"], "nothing went wrong in that time"), look))
    else:
        console.say(*(_row(by, row) for row in rows))


def _row(by: str, row: dict[str, Any]) -> str:
    counts = [row["errors"], row["ended"], row["jobs"], row["users"]]
    return tabbed(
        [*counts, rfc3339(row["last_at"]), row["last_job"], error_key_for_pipe(by, row["key"])]
    )
