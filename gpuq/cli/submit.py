"""`gpuq submit` and `gpuq run`: a command line becomes a job."""

from __future__ import annotations

from gpuq.cli import console
from gpuq.cli.asking import ask
from gpuq.cli.foresight import foresee
from gpuq.cli.job_options import describe, with_options_of
from gpuq.cli.many_options import many_at_once
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

    import typer

    from gpuq.cli.declaring import Option, Words, many
    from gpuq.client import Client
    from gpuq.follow import Follow

SECOND_INTERRUPT_S = 2.0


@with_options_of(describe, many_at_once)
def submit(
    context: typer.Context,
    words: Words = None,
    wait: Annotated[
        bool, Option("-w", "--wait", help="Wait for its end and exit as it does.")
    ] = False,
    follow: Annotated[
        bool, Option("-f", "--follow", help="Follow its log; Ctrl-C only stops following.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would become of it, and queue nothing.")
    ] = False,
    pipeline: Annotated[
        str | None,
        Option(metavar="FILE", help="In place of COMMAND: the stages of a pipeline, in TOML."),
    ] = None,
    from_: Annotated[
        str | None,
        many(
            "--from",
            metavar="FILE|-",
            help="A job for each line: a command, or an object of JSON with argv or shell.",
        ),
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the job as JSON.")] = False,
    **options: Any,
) -> int:
    """Queue a command. It starts as soon as what it asks for is free.

    Examples:
      gpuq submit python train.py --lr 3e-4         on one GPU
      gpuq submit -g 2 -n vit python train.py -g 7  two GPUs; `-g 7` belongs to train.py
      gpuq submit --gpu-mem 20G python eval.py      may share a GPU
      gpuq submit -g 0 -c 4 ./prepare.sh            no GPU, four CPU slots
      gpuq submit --shell 'make && ./a.out > out'   a text for a shell
      gpuq submit --after 12 python eval.py         once job 12 has succeeded
      gpuq submit --pipeline train.toml             several stages, each with its own needs
      gpuq submit --begin 18:00 python train.py     not before that
      gpuq submit --dry-run -g 2 python train.py    would it start now, and where?
      gpuq submit -a 0-99%4 ./eval.sh {i}           a hundred, at most four at once
      gpuq submit --grid lr=0.1,0.01 python train.py --lr {lr}
      generate | gpuq submit -g 0 --from -          a job for each line
      gpuq submit train.sh                          its #GPUQ and #SBATCH lines are options

    Options come before the command; all behind its first word is the job's. On a pipe it prints
    the id alone, or that of the group (g12) where there are many. {i} and {lr} are replaced in the
    command, in --name, --output, --stderr and -e of arrays; {{i}} stands for {i}, and ${i} is left to
    a shell.
    """
    if follow and json:
        raise UsageError("--json and --follow both want stdout: choose one")
    if dry_run and (follow or wait):
        raise UsageError("--dry-run queues nothing: there is nothing to follow or to wait for")
    if pipeline is not None:
        from gpuq.cli.pipeline import check_alone, submit_pipeline

        check_alone(words, follow, options)
        return submit_pipeline(context, pipeline, wait=wait, json=json, dry_run=dry_run)
    if from_ is not None:
        from gpuq.cli.many import check_lines_say_all, submit_from

        check_lines_say_all(words, follow, options)
        return submit_from(context, from_, options, wait=wait, json=json, dry_run=dry_run)
    asked = ask(context, words or [], options)
    if follow:
        _check_is_one(asked, "--follow")
    foresee(context, asked, dry=dry_run)
    if dry_run:
        from gpuq.cli.dry_run import show_verdicts

        with console.connect(context) as client:
            code = show_verdicts(client, [asked], json)
        console.say_kept(context)
        return code
    with console.connect(context, autostart=True) as client:
        if asked.get("array") is not None:
            from gpuq.cli.groups import submit_array

            return submit_array(context, client, asked, wait=wait, json=json)
        number, is_new = _submit(context, client, asked)
        if follow:
            if is_new:
                console.note(f"job {number} queued")
            return _follow(client, number)
        if not (wait and json):
            _say_submitted(context, client, number, json, is_new=is_new)
        return _await(client, number, json) if wait else 0


@with_options_of(describe, many_at_once)
def run(context: typer.Context, words: Words = None, **options: Any) -> int:
    """Queue a command, follow its output, and exit as it does.

    Examples:
      gpuq run python eval.py                  on one GPU
      gpuq run -g 4 torchrun train.py          on four
      gpuq run --shell 'nvidia-smi | head'     a text for a shell

    The first Ctrl-C detaches: the job goes on. A second one, right after, kills it.
    """
    asked = ask(context, words or [], options)
    _check_is_one(asked, "run")
    foresee(context, asked)
    with console.connect(context, autostart=True) as client:
        number, is_new = _submit(context, client, asked)
        said = f"job {number} queued" if is_new else f"this follows job {number}"
        console.note(_come_back(context, number, said))
        try:
            return _follow(client, number)
        except KeyboardInterrupt:
            return _detach_or_kill(context, client, number)
        except BrokenPipeError:
            said = f"nobody reads any more; job {number} goes on"
            console.note(_come_back(context, number, said))
            raise


def _check_is_one(asked: dict[str, Any], who: str) -> None:
    if asked.get("array") is not None:
        raise UsageError(
            f"{who} follows one job, and this is an array: gpuq submit --wait waits for all of it, "
            "gpuq logs -f ID follows one"
        )


def _submit(context: typer.Context, client: Client, asked: dict[str, Any]) -> tuple[int, bool]:
    """Its id, and whether it is a new one, and not that with the same --key."""
    try:
        answer = client.submission([asked])
    except KeyboardInterrupt:
        see = console.hint(context, "gpuq status @")
        console.note(f"interrupted while it was being queued; it may be there. See: {see}")
        raise
    console.say_kept(context)
    return answer["first"], answer.get("is_new", True)


def _say_submitted(
    context: typer.Context, client: Client, number: int, json: bool, *, is_new: bool
) -> None:
    if not json and not console.is_for_a_person(context):
        console.say(str(number))
        return
    answer = client.call("status", refs=[str(number)], after_turn=True)
    if json:
        console.say_json(jobs=answer["jobs"])
        return
    from gpuq.cli.gpu_text import are_simulated
    from gpuq.cli.job_text import greeting

    simulated = are_simulated(answer["gpus"])
    for job in answer["jobs"] if is_new else ():
        release = console.hint(context, f"gpuq release {number}")
        now = console.look(context).now
        console.say(greeting(job, simulated=simulated, now=now, release=release))
    hint = f"  follow: gpuq logs -f {number}      stop: gpuq kill {number}"
    console.say(console.hint(context, hint))


def _await(client: Client, number: int, json: bool) -> int:
    from gpuq.cli.ending import own_failures

    with own_failures():
        jobs = client.wait([number])
    if json:
        console.say_json(jobs=jobs)
    return _leave(jobs[0])


def _follow(client: Client, number: int) -> int:
    from gpuq.cli.ending import own_failures

    with own_failures():
        follow = client.follow(number, from_first=True)
        _pour_with_news(client, follow)
    return _leave(follow.job)


def _pour_with_news(client: Client, follow: Follow) -> None:
    """The log to stdout; beside it, once, where the job runs."""
    from gpuq.cli.gpu_text import are_simulated
    from gpuq.cli.job_text import greeting
    from gpuq.cli.logs import pour

    is_told = False
    for chunk in follow:
        if not is_told and follow.job["state"] in ("starting", "running"):
            is_told = True
            simulated = are_simulated(client.gpus()["gpus"])
            console.note(greeting(follow.job, simulated=simulated))
        pour(chunk)


def _leave(job: Any) -> int:
    """Says how it ended where it did not end well; that is no news of ours but the job's."""
    from gpuq.cli.ending import exit_code

    code = exit_code(job)
    if code:
        from gpuq.cli.job_text import farewell

        console.note(farewell(job))
    return code


def _detach_or_kill(context: typer.Context, client: Client, number: int) -> int:
    import time

    from gpuq.cli.ending import own_failures

    try:
        said = f"detached; job {number} goes on. Ctrl-C again kills it"
        console.note(_come_back(context, number, said))
        time.sleep(SECOND_INTERRUPT_S)
        return 130
    except KeyboardInterrupt:
        console.note(f"ending job {number}")
    with own_failures():
        client.kill([number])
        return _leave(client.wait([number])[0])


def _come_back(context: typer.Context, number: int, what: str) -> str:
    hint = console.hint(context, f"Follow: gpuq logs -f {number}, stop: gpuq kill {number}")
    return f"{what}. {hint}"
