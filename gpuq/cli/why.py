"""`gpuq why`: the reason, in sentences: of a job, of a GPU, of a process."""

from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.gpu_text import are_simulated
from gpuq.cli.job_options import read_option
from gpuq.cli.job_text import why_lines
from gpuq.cli.render import Look, plain, printable
from gpuq.cli.several import reasons, several
from gpuq.client import Client
from gpuq.core.units import parse_seconds
from gpuq.errors import NothingMatched, UsageError

PID = "pid:"
GPUS = ("gpu:", "gpu-", "mig-")


def why(
    context: typer.Context,
    what: Annotated[str, Argument(metavar="JOB|gpu:GPU|pid:PID", show_default=False)],
    watch: Annotated[
        str | None,
        Option(metavar="TIME", help="With pid: see for so long whether it comes back, like 5s."),
    ] = None,
) -> None:
    """Why a job waits or how it ended; what a GPU is doing; what a process is and whose.

    Examples:
      gpuq why 184
      gpuq why @                    your last submission
      gpuq why g88                  how many of a group do what, and why
      gpuq why gpu:3                whose it is, what the ledger reckons, what is held against it
      gpuq why GPU-8f3a             the same by the beginning of its UUID
      gpuq why pid:40121            any process of this machine
      gpuq why pid:40121 --watch 5s and who starts it again

    A number that is no job is taken for a process.
    """
    watch_s = read_option("--watch", parse_seconds, watch)
    look = console.look(context)
    with console.connect(context) as client:
        if watch_s is not None and not what.startswith(PID):
            raise UsageError(f"--watch is for a process: gpuq why {PID}{what} --watch {watch}")
        if what.lower().startswith(GPUS):
            answer = client.call("why_gpu", ref=what)
            lines = [printable(line) for line in answer["sentences"]]
        elif what.startswith(PID):
            lines = _why_process(client, what.removeprefix(PID), watch_s)
        else:
            lines = _why_job_or_process(client, what, look)
    console.say(*(plain(line, look) for line in lines))


def _why_job_or_process(client: Client, what: str, look: Look) -> list[str]:
    if (group := several(client, what)) is not None:
        return [f"{group.words}.", *reasons(group), f"Why one of them: gpuq why {group.first}"]
    try:
        job = client.job(what)
    except NothingMatched:
        if what.isdecimal() and (answer := _explain(client, int(what), None))["found"]:
            return list(answer["sentences"])
        raise
    gpus = client.gpus()["gpus"]
    return why_lines(job, look, simulated=are_simulated(gpus), gpus=gpus)


def _why_process(client: Client, word: str, watch_s: float | None) -> list[str]:
    if not word.isdecimal():
        raise UsageError(f"{PID}{word}: it is the number of a process, as in {PID}40121")
    if watch_s:
        console.note(f"watching for {watch_s:g} s whether process {word} comes back")
    answer = _explain(client, int(word), watch_s)
    if not answer["found"]:
        raise NothingMatched(answer["sentences"][0])
    return list(answer["sentences"])


def _explain(client: Client, pid: int, watch_s: float | None) -> dict[str, Any]:
    return client.call("explain", pid=pid, watch_s=watch_s)
