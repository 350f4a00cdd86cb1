"""`gpuq usage`: who has had how much of the GPUs, what they made of it, and what it would have cost."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.job_options import read_option
from gpuq.cli.render import clock, tabbed
from gpuq.cli.results.past_options import (
    Export,
    Json,
    check_export,
    look_back,
    read_by,
    write_export,
)
from gpuq.cli.results.past_text import HAD, foot, simulated_hours, usage_table
from gpuq.core.units import format_seconds

View = dict[str, Any]

ROWS = {"user": "users", "group": "groups", "gpu": "gpus"}  # what an answer calls them
COLUMNS = {
    "user": (
        "user",
        "gpu_s",
        "attempts",
        "running",
        "gpus",
        "share_gpu_s",
        "share_percent",
        *HAD[2:],
    ),
    "group": ("group", "name", *HAD),
    "gpu": ("index", "gpu", "model", "seconds", *HAD),
}


def usage(
    context: typer.Context,
    by: Annotated[str, Option(metavar="WORD", help=f"{', '.join(ROWS)}.")] = "user",
    since: Annotated[
        str | None,
        Option(metavar="TIME", help="GPU hours since then: 24h, 2026-07-31; a week unless said."),
    ] = None,
    price: Annotated[
        str | None,
        Option(metavar="PRICE", help="Of a GPU for an hour, for what it would have cost."),
    ] = None,
    limit: Annotated[
        int | None, Option(metavar="N", help="Of groups: at most N, 500 at the most.")
    ] = None,
    json: Json = False,
    export: Export = None,
) -> None:
    """Who has had how much of the GPUs, what they made of it, and who has some now.

    Examples:
      gpuq usage
      gpuq usage --since 30d --price 1.006     what it would have cost at 1.006 a GPU hour
      gpuq usage --by gpu --since 24h          which GPUs stood idle
      gpuq usage --by group --export groups.csv
      gpuq usage --json | jq '.users[] | {user, hours: (.leased_gpu_s / 3600), cost}'

    GPU HOURS counts from the start of an attempt to its end; where several share a GPU, each
    moment is divided among them. BUSY is what of them the GPU computed, IDLE what it did not or
    stood still, UNMEASURED what nobody knows of. The cost is of the GPU HOURS, each line rounded
    by itself. NOW is what runs at the moment, SHARE what fair share goes by: GPU time without an
    end, but fading, so that what was had a half-life ago counts half. On a pipe seconds are
    GPU-seconds: of users the columns are user, seconds with a shared GPU counted whole, attempts,
    running jobs, GPUs they hold, fading seconds, percent of all of those, seconds, busy, idle,
    unmeasured, energy (J), cost, seconds on simulated GPUs; of groups their group, name, attempts,
    whole seconds, seconds and so on; of GPUs index, uuid, model, seconds in which it could have been
    used, attempts and so on.
    """
    read_by(by, list(ROWS))
    check_export(export, json)
    look = console.look(context)
    _check(price)
    answer = look_back(context, "usage", look.now, by=by, since=since, price=price, limit=limit)
    rows = answer[ROWS[by]]
    if export is not None:
        about = {"by": by, "since": since} | {name: answer[name] for name in ("price", "total")}
        write_export(export, ROWS[by], [_lasting(row) for row in rows], **about)
    elif json:
        console.say_json(**answer)
    elif look.terminal:
        console.say(*usage_table(by, rows, answer["total"], look))
        for line in _foot(by, rows, answer):
            console.say(*foot(line, look))
    else:
        console.say(*(_row(row, COLUMNS[by]) for row in rows))


def _lasting(row: View) -> View:
    """Without what changes while nothing happens."""
    return {name: value for name, value in row.items() if name not in _FADING}


_FADING = ("share_gpu_s", "share_percent", "seconds")


def _check(price: str | None) -> None:
    """It goes to the daemon as it is written: a float would not be it any more."""
    if price is not None:
        from gpuq.core.results.cost import parse_price

        read_option("--price", parse_price, price)


def _row(row: View, names: Sequence[str]) -> str:
    return tabbed([_rounded(name, row[name]) for name in names])


def _rounded(name: str, value: Any) -> Any:
    """Money to the cent."""
    if isinstance(value, float):
        return f"{value:.2f}" if name == "cost" else f"{value:.1f}"
    return value


def _foot(by: str, rows: Sequence[View], answer: View) -> list[str]:
    since = f"since {clock(answer['since'])}"
    if not any(row["leased_gpu_s"] or row.get("running") for row in rows):
        since = f"nobody has had a GPU since {clock(answer['since'])}"
    if answer["more"]:
        since += f"; {answer['more']} more not shown"
    lines = [simulated_hours(answer["total"]), since]
    if by != "user":
        return lines
    half = format_seconds(answer["half_life_s"])
    if answer["fair_share"]:
        return [*lines, f"fair share is on: the smaller share goes first; half-life {half}"]
    return [*lines, "fair share is off (setting fair_share): it is first come, first served"]
