"""`gpuq gpus`: the GPUs and who is on them; one of them drained, and given out again."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.commands import Command, Verbs, family
from gpuq.cli.gpu_text import (
    drained_words,
    gone_gpu_row,
    gone_process_row,
    gpu_row,
    gpu_table,
    process_row,
    process_table,
    resumed_words,
)
from gpuq.cli.render import Look, clip, plain, printable, tabbed
from gpuq.client import Client
from gpuq.errors import UsageError

gpus = family(
    cls=Verbs,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    options_metavar="[OPTION ...]",
)

NO_GPU = "there is no GPU here. Four simulated ones: GPUQ_GPUS=sim:4x24G gpuq daemon run"

Gpus = Annotated[list[str], Argument(metavar="GPU ...", show_default=False)]


@gpus.callback()
def gpus_(
    context: typer.Context,
    procs: Annotated[
        bool, Option("--procs", help="The processes on them in place of them.")
    ] = False,
    watch: Annotated[
        bool,
        Option(
            "-w", "--watch", help="Redraw it as it changes, until Ctrl-C; on a pipe: add lines."
        ),
    ] = False,
    json: Annotated[bool, Option("--json", help="Print all about them as JSON.")] = False,
) -> None:
    """The GPUs and who is on them, gpuq's jobs and others.

    Examples:
      gpuq gpus
      gpuq gpus --procs          each process
      gpuq gpus -w               watch them
      gpuq gpus drain 3 -m "new fan"
      gpuq gpus --json | jq '.gpus[] | select(.state == "free") | .index'

    On a pipe the columns are index, uuid, model, simulated or real, state, memory used and in all,
    utilisation, temperature, power, jobs, reason. With --watch a pipe gets each GPU, and again
    whenever one of these is otherwise, with the time in front; with --json a line of all of them.
    One that is no more among them is told once more, its state gone; with --procs a process that
    has left is, with gone as one column more.
    All about one of them: gpuq why gpu:3
    """
    if context.invoked_subcommand is not None:
        if watch:
            raise UsageError(
                f"--watch goes with gpuq gpus alone, and not with {context.invoked_subcommand}"
            )
        return
    with console.connect(context) as client:
        if watch:
            _watch(context, client, procs, json)
            return
        answer = client.gpus()
        look = console.look(context)
        jobs = client.call("status")["jobs"] if look.terminal and not json else []
    found = answer["gpus"]
    if json:
        console.say_json(gpus=found)
    elif look.terminal:
        table = process_table(found, look) if procs else gpu_table(found, jobs, look, full=True)
        console.say(*table)
    elif procs:
        console.say(*(process_row(gpu, process) for gpu in found for process in gpu["processes"]))
    else:
        console.say(*map(gpu_row, found))
    if answer["gpu_trouble"]:
        console.note(plain(f"no GPUs: {printable(answer['gpu_trouble'])}", look))
    elif not found:
        console.note(NO_GPU)


def _watch(context: typer.Context, client: Client, procs: bool, json: bool) -> None:
    from gpuq.cli import watch

    if json:
        watch.print_answers(lambda: {"gpus": client.gpus()["gpus"]})
    elif console.draws():
        watch.redraw(lambda columns, rows: _picture(context, client, procs, columns, rows))
    else:
        _append(client, procs)


def _picture(
    context: typer.Context, client: Client, procs: bool, columns: int, rows: int
) -> list[str]:
    look = console.look(context)._replace(width=columns)
    answer = client.gpus()
    found = answer["gpus"]
    if procs:
        lines = process_table(found, look)
    else:
        lines = gpu_table(found, client.call("status")["jobs"], look, full=True)
    if trouble := answer["gpu_trouble"]:
        lines.append(plain(f"no GPUs: {printable(trouble)}", look))
    return [clip(line, columns) for line in lines[:rows]] or [NO_GPU]


def _append(client: Client, procs: bool) -> None:
    from gpuq.cli import watch

    last_rows: dict[Any, str] = {}

    def ask() -> dict[Any, watch.Told]:
        gpus = client.gpus()["gpus"]
        rows = _process_rows(gpus) if procs else _gpu_rows(gpus)
        last_rows.update((key, last) for key, (_, last) in rows.items())
        return {key: watch.Told(row, row) for key, (row, _) in rows.items()}

    watch.append_changes(ask, lambda gone: [last_rows.pop(key) for key in gone])


def _process_rows(gpus: Sequence[Any]) -> dict[Any, tuple[str, str]]:
    """Each with the one that says that it has left."""
    return {
        (gpu["uuid"], process["pid"]): (process_row(gpu, process), gone_process_row(gpu, process))
        for gpu in gpus
        for process in gpu["processes"]
    }


def _gpu_rows(gpus: Sequence[Any]) -> dict[Any, tuple[str, str]]:
    return {gpu["uuid"]: (gpu_row(gpu), gone_gpu_row(gpu)) for gpu in gpus}


@gpus.command("drain", cls=Command)
def drain(
    context: typer.Context,
    gpus: Gpus,
    reason: Annotated[
        str | None, Option("-m", "--message", metavar="WHY", help="Shown to all who look.")
    ] = None,
) -> None:
    """Give a GPU to nobody any more; what runs on it goes on. It lasts through restarts.

    Examples:
      gpuq gpus drain 3 -m "new fan"
      gpuq gpus drain 0-2,5
      gpuq gpus drain GPU-8f3a          by the beginning of its UUID

    Without -m the reason is that none was given. End it: gpuq gpus resume 3
    """
    with console.connect(context) as client:
        done = client.call("drain_gpus", refs=gpus, reason=reason)["gpus"]
    _say(done, console.look(context), drained_words)


@gpus.command("resume", cls=Command)
def resume(
    context: typer.Context,
    gpus: Gpus,
    untested: Annotated[
        bool, Option("--untested", help="One that is set aside, too, without a test.")
    ] = False,
) -> int:
    """Give out a GPU again: one that is drained at once, one that is set aside after a good test.

    Examples:
      gpuq gpus resume 3
      gpuq gpus resume 3 --untested     you know better than a test

    It waits for the test and exits 1 where that was bad. Ctrl-C only stops waiting.
    """
    from gpuq.cli.gpu_tests import follow_tests

    look = console.look(context)
    with console.connect(context) as client:
        before = {gpu["uuid"]: gpu["tested_at"] for gpu in client.gpus()["gpus"]}
        done = client.call("resume_gpus", refs=gpus, untested=untested)["gpus"]
        _say(done, look, resumed_words)
        testing = {gpu["uuid"]: before.get(gpu["uuid"]) for gpu in done if gpu["done"] == "testing"}
        tests = follow_tests(client, testing, look)
    return 1 if any(test["verdict"] != "good" for test in tests) else 0


def _say(done: Sequence[dict[str, Any]], look: Look, sentence: Any) -> None:
    for gpu in done:
        if look.terminal:
            console.say(plain(printable(sentence(gpu)), look))
        else:
            console.say(tabbed([gpu["index"], gpu["uuid"], gpu["done"]]))
