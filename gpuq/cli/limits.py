"""`gpuq limit` and `gpuq queues`: what may run at a time, and who may have it."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.render import Column, Look, plain, printable, tabbed, table
from gpuq.core.units import count, format_seconds
from gpuq.errors import UsageError

View = dict[str, Any]


def limit(
    context: typer.Context,
    subject: Annotated[
        str | None, Argument(metavar="user:NAME|tag:NAME|GROUP", show_default=False)
    ] = None,
    max_running: Annotated[
        int | None, Option(metavar="N", help="Jobs of it that run at a time; 0: none starts.")
    ] = None,
    max_gpus: Annotated[
        int | None, Option(metavar="N", help="GPUs that its jobs hold at a time.")
    ] = None,
    off: Annotated[bool, Option("--off", help="Lift its limit.")] = False,
    json: Annotated[bool, Option("--json", help="Print all limits as JSON.")] = False,
) -> None:
    """How many jobs of one user, tag or group may run at a time. It counts at once, and ends nothing.

    Examples:
      gpuq limit                                 all that are in force
      gpuq limit @ --max-running 2               my last submission
      gpuq limit user:alice --max-running 4 --max-gpus 2
      gpuq limit tag:big --max-running 2
      gpuq limit g12 --max-running 2             a group of your own
      gpuq limit tag:big --off

    Where more runs than a lowered limit allows it goes on, and nothing more of it starts until enough
    has ended. A user's own limit goes over the settings max_running_per_user and max_gpus_per_user.
    Users and tags are an admin's to limit, a group is also its owner's. Those of a queue stand in the
    settings: gpuq queues.

    On a pipe the columns are kind, name, max running, running, max GPUs, GPUs in use, who set it or
    the file where it stands.
    """
    if subject is None and (max_running is not None or max_gpus is not None or off):
        raise UsageError("limit what? Name user:NAME, tag:NAME or a group like g12")
    if off and (max_running is not None or max_gpus is not None):
        raise UsageError("--off lifts the limit: it takes no --max-running and no --max-gpus")
    look = console.look(context)
    with console.connect(context) as client:
        if subject is None:
            answer = client.call("limits")
        else:
            if subject.startswith("@"):
                subject = client.job(subject)["group"]
            answer = client.call(
                "limit", subject=subject, max_running=max_running, max_gpus=max_gpus, off=off
            )
    if subject is None:
        _say_limits(answer, look, json)
    elif json:
        console.say_json(limit=answer)
    else:
        console.say(plain(printable(_sentence(answer)), look))
        if answer["note"]:
            console.note(printable(answer["note"]))


def _sentence(answer: View) -> str:
    if answer["off"]:
        return f"{answer['subject']} has no limit of its own any more"
    most = {"running job": answer.get("max_running"), "GPU": answer.get("max_gpus")}
    said = [count(number, noun) for noun, number in most.items() if number is not None]
    return f"{answer['subject']} may have {' and '.join(said)} at a time"


def _say_limits(answer: View, look: Look, json: bool) -> None:
    limits, rates = answer["limits"], answer["start_rates"]
    if json:
        console.say_json(limits=limits, start_rates=rates)
    elif not look.terminal:
        console.say(*map(_limit_row, limits), *map(_rate_row, rates))
    else:
        console.say(*_limit_table(limits, look))
        for rate in rates:
            whose = f"queue {rate['queue']}" if rate["queue"] else "all jobs"
            console.say(
                plain(f"{whose}: {rate['rate']} started ({printable(rate['origin'])})", look)
            )
        if not limits and not rates:
            console.say("no limits: each user may have all there is")


def _limit_table(limits: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column("LIMIT OF", lambda one: printable(_subject(one))),
        Column("RUNNING", lambda one: _of(one["running"], one["max_running"]), unused="-"),
        Column("GPUS", lambda one: _of(one["gpus_in_use"], one["max_gpus"]), unused="-"),
        Column("SET BY", lambda one: printable(one["origin"] or one["actor"] or "")),
    ]
    return table(columns, limits, look)


def _subject(one: View) -> str:
    return "each user" if one["name"] == "*" else f"{one['kind']} {one['name']}"


def _of(has: int | None, most: int | None) -> str:
    """ "2 of 4"."""
    if most is None:
        return "-"
    return f"at most {most}" if has is None else f"{has} of {most}"


def _limit_row(one: View) -> str:
    names = ("kind", "name", "max_running", "running", "max_gpus", "gpus_in_use")
    return tabbed([*(one[name] for name in names), one["origin"] or one["actor"]])


def _rate_row(rate: View) -> str:
    return tabbed(["start_rate", rate["queue"], rate["rate"], None, None, None, rate["origin"]])


def queues(
    context: typer.Context,
    json: Annotated[bool, Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """The named queues: what runs and waits in each, what it gives, and who may use it.

    Examples:
      gpuq queues
      gpuq submit -q night python train.py

    They stand in the settings, as tables like [queues.night], and count once the file is saved. On a
    pipe the columns are name, priority, running, max running, queued, GPUs in use, max GPUs, GPUs,
    time limit and longest time limit in seconds, start rate, users, and whether you may use it.
    """
    look = console.look(context)
    with console.connect(context) as client:
        found = client.call("queues")["queues"]
    if json:
        console.say_json(queues=found)
    elif not look.terminal:
        console.say(*map(_queue_row, found))
    elif found:
        console.say(*_queue_table(found, look))
    else:
        console.note("there are no named queues. A table [queues.NAME] in the settings makes one")


def _queue_row(queue: View) -> str:
    names = ("name", "priority", "running", "max_running", "queued", "gpus_in_use", "max_gpus")
    times = [queue["time_limit_s"], queue["max_time_limit_s"], queue["start_rate"]]
    may = "yes" if queue["may_submit"] else "no"
    lists = [",".join(queue["gpus"]), ",".join(queue["users"])]
    return tabbed([*(queue[name] for name in names), lists[0], *times, lists[1], may])


def _queue_table(found: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column("QUEUE", lambda queue: queue["name"]),
        Column("PRI", lambda queue: f"{queue['priority']:+d}", right=True, unused="+0"),
        Column("RUNNING", lambda queue: _held(queue["running"], queue["max_running"])),
        Column("QUEUED", lambda queue: str(queue["queued"]), right=True),
        Column("GPUS", lambda queue: _held(queue["gpus_in_use"], queue["max_gpus"])),
        Column("ON GPU", lambda queue: ",".join(queue["gpus"])),
        Column("TIME", _times),
        Column("RATE", lambda queue: queue["start_rate"] or ""),
        Column("WHO", lambda queue: printable(_who(queue)), unused="everybody"),
    ]
    return table(columns, found, look)


def _held(has: int, most: int | None) -> str:
    return str(has) if most is None else f"{has} of {most}"


def _times(queue: View) -> str:
    """ "1:00:00, up to 8:00:00"."""
    usual, most = queue["time_limit_s"], queue["max_time_limit_s"]
    said = [] if usual is None else [format_seconds(usual)]
    said += [] if most is None else [f"up to {format_seconds(most)}"]
    return ", ".join(said)


def _who(queue: View) -> str:
    if queue["gone"]:
        return "not in the settings any more"
    users = ", ".join(queue["users"]) or "everybody"
    return users if queue["may_submit"] else f"{users}; not you"
