"""`gpuq usage`: who has had how much of the GPUs."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.jobs import read_since
from gpuq.cli.render import Column, Look, clock, printable, tabbed, table
from gpuq.core.units import format_seconds

View = dict[str, Any]


def usage(
    context: typer.Context,
    since: Annotated[
        str | None,
        Option(metavar="TIME", help="GPU hours since then: 24h, 2026-07-31; a week unless said."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Who has had how much of the GPUs, and who has some now.

    Examples:
      gpuq usage
      gpuq usage --since 24h
      gpuq usage --json | jq '.users[] | {user, hours: (.gpu_s / 3600)}'

    A GPU that a job shares counts whole. SHARE is what fair share goes by: the same without an end, but
    fading, so that what was had a half-life ago counts half. On a pipe the columns are user, GPU
    seconds, attempts, running jobs, GPUs they hold, fading GPU seconds, percent of all of those.
    """
    look = console.look(context)
    asked = None if since is None else read_since(since, look.now)
    with console.connect(context) as client:
        answer = client.call("usage", since=asked)
    users = answer["users"]
    if json:
        kept = ("since", "fair_share", "half_life_s")
        console.say_json(users=users, **{name: answer[name] for name in kept})
        return
    if not look.terminal:
        console.say(*map(_row, users))
        return
    console.say(*_table(users, look))
    console.note(_note(answer))


def _row(user: View) -> str:
    names = ("user", "gpu_s", "attempts", "running", "gpus", "share_gpu_s", "share_percent")
    return tabbed([_rounded(user[name]) for name in names])


def _rounded(value: Any) -> Any:
    return f"{value:.1f}" if isinstance(value, float) else value


def _table(users: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column("USER", lambda user: printable(user["user"])),
        Column("GPU HOURS", lambda user: _hours(user["gpu_s"]), right=True),
        Column("RUNS", lambda user: str(user["attempts"]), right=True),
        Column("RUNNING", lambda user: str(user["running"]), right=True),
        Column("GPUS NOW", lambda user: str(user["gpus"]), right=True),
        Column("FADING", lambda user: _hours(user["share_gpu_s"]), right=True),
        Column("SHARE", lambda user: f"{user['share_percent']:.0f}%", right=True),
    ]
    return table(columns, users, look)


def _hours(gpu_s: float) -> str:
    return f"{gpu_s / 3600:.2f}"


def _note(answer: View) -> str:
    since = f"since {clock(answer['since'])}"
    half = format_seconds(answer["half_life_s"])
    if not answer["users"]:
        since = f"nobody has had a GPU since {clock(answer['since'])}"
    if answer["fair_share"]:
        return f"{since}. Fair share is on: who has the smaller share goes first; half-life {half}"
    return f"{since}. Fair share is off (setting fair_share): it is first come, first served"
