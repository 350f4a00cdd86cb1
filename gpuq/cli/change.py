"""`gpuq hold`, `release`, `priority`, `move`, `requeue` and `undo`: changes of mind about jobs that
have been submitted."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.declaring import Mine, Name, Queue, State, Tag, Yes
from gpuq.cli.fold_text import called, run_of, together
from gpuq.cli.render import Job, plain, printable, tabbed
from gpuq.cli.selecting import ask_first, chosen
from gpuq.errors import UsageError

Jobs = Annotated[list[str], Argument(metavar="JOB ...", show_default=False)]
AnyJobs = Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)]
BEGINS_ANEW = "This ends {jobs}, to begin anew: {names}. Requeue them?"
AsJson = Annotated[bool, Option("--json", help="Print what was done to each as JSON.")]


def hold(
    context: typer.Context,
    jobs: AnyJobs = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    mine: Mine = False,
    json: AsJson = False,
) -> int:
    """Keep jobs that wait from starting until they are released.

    Examples:
      gpuq hold 184
      gpuq hold 12-18,20
      gpuq hold -q night    all of mine that wait in that queue
      gpuq release 184

    What runs goes on: see gpuq pause. What an admin holds only an admin releases. A selector means
    jobs that wait, unless -s says otherwise.
    """
    with console.connect(context) as client:
        wanted = dict[str, Any](state=state, name=name, tag=tag, queue=queue, mine=mine)
        refs, _ = chosen("hold", client, jobs, usual=["queued"], **wanted)
        return tell(context, client.hold(refs), HOLD, json)


def release(
    context: typer.Context,
    jobs: AnyJobs = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    mine: Mine = False,
    json: AsJson = False,
) -> int:
    """Let jobs that were held wait for their turn again.

    Examples:
      gpuq release 184
      gpuq release @      my last submission
      gpuq release -m     all of mine that are held
    """
    with console.connect(context) as client:
        wanted = dict[str, Any](state=state, name=name, tag=tag, queue=queue, mine=mine)
        refs, _ = chosen("release", client, jobs, usual=["held"], **wanted)
        return tell(context, client.release(refs), RELEASE, json)


def priority(
    context: typer.Context,
    number: Annotated[int, Argument(metavar="N", show_default=False)],
    jobs: AnyJobs = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    mine: Mine = False,
    json: AsJson = False,
) -> int:
    """Give jobs that wait another priority: a higher one goes first. 0 is the usual one.

    Examples:
      gpuq priority -5 184        let others go first
      gpuq priority 10 12-18      before the others, for admins
      gpuq priority -1 -n 'grid*' g88   those of g88 that are called so

    Everybody may lower the priority of their own jobs; to raise one above 0 is for admins. A selector
    means jobs that wait, unless -s says otherwise.
    """
    with console.connect(context) as client:
        wanted = dict[str, Any](state=state, name=name, tag=tag, queue=queue, mine=mine)
        refs, _ = chosen("give that priority to", client, jobs, usual=["queued"], **wanted)
        return tell(context, client.set_priority(refs, number), PRIORITY, json)


def move(
    context: typer.Context,
    jobs: Jobs,
    front: Annotated[bool, Option("--front", help="Before all others of mine.")] = False,
    before: Annotated[
        str | None, Option(metavar="JOB", help="Before this one, which is mine too.")
    ] = None,
    json: AsJson = False,
) -> int:
    """Put jobs that wait before others of the same user.

    Examples:
      gpuq move 184 --front
      gpuq move 190-192 --before 184

    Jobs of others keep their places: to pass those is for admins, by gpuq priority.
    """
    if front == (before is not None):
        raise UsageError("move them where? Give --front, or --before JOB")
    with console.connect(context) as client:
        return tell(context, client.move(jobs, before=before), MOVE, json)


def requeue(
    context: typer.Context,
    jobs: AnyJobs = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    mine: Mine = False,
    yes: Yes = False,
    json: AsJson = False,
) -> int:
    """Run jobs once more, with the same number: those that have ended, or that run.

    Examples:
      gpuq requeue 184          it begins anew, at the end of the queue
      gpuq requeue 12-18,20
      gpuq requeue -s failed g88    those of g88 that failed

    A job that runs is ended as by gpuq kill, and that is none of its --retries; one that waits for
    its next attempt waits no more. What earlier attempts have written stays. Jobs that were skipped
    for a job that is requeued wait for it again.
    """
    with console.connect(context) as client:
        wanted = dict[str, Any](state=state, name=name, tag=tag, queue=queue, mine=mine)
        refs, found = chosen("requeue", client, jobs, **wanted)
        if not yes:
            ask_first(found, BEGINS_ANEW)
        return tell(context, client.requeue(refs), REQUEUE, json)


def undo(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    json: AsJson = False,
) -> int:
    """Take back the cancel of jobs that waited: they wait again, in their old place.

    Examples:
      gpuq undo        all that my last kill cancelled in the queue
      gpuq undo 184

    That can be done for a while: see undo_for in gpuq config. A job that ran is started anew by gpuq
    requeue.
    """
    with console.connect(context) as client:
        return tell(context, client.undo(jobs or []), UNDO, json)


# ── said ──

Sentences = dict[str, Callable[[Job], str]]


def tell(context: typer.Context, done: Sequence[Job], sentences: Sentences, json: bool) -> int:
    """Says what was done to each, those together to which the same was done; returns the exit code. On
    a pipe: the jobs, what was done, and why not."""
    look = console.look(context)
    if json:
        console.say_json(jobs=done)
    elif look.terminal:
        said = [console.hint(context, sentence(run, sentences)) for run in together(done)]
        console.say(*(plain(line, look) for line in said))
    else:
        console.say(*(tabbed([run_of(run), run["done"], run["why"]]) for run in done))
    return 1 if any(run["done"] == "refused" for run in done) else 0


def sentence(run: Job, sentences: Sentences) -> str:
    """What was done to a job, or to those together to which the same was done."""
    if run["done"] == "refused":
        return printable(f"{called(run)}: {verb(run, run['why'], of_several(run['why']))}")
    said = sentences.get(run["done"])
    return printable(f"{called(run)} {said(run) if said else run['done']}")


def _with_it(run: Job) -> str:
    """Who comes back with it; a daemon of an earlier version does not tell."""
    back = run.get("with_it")
    if not back:
        return ""
    again = "wait again" if {",", "-"}.intersection(back) else "waits again"
    return f"; {back}, skipped for it, {again}"


def verb(run: Job, one: str, several: str) -> str:
    return one if run_of(run) == str(run["id"]) else several


def of_several(why: str) -> str:
    """Why something cannot be done to one job, said of several to which it all applies."""
    import re

    verbs = {"is": "are", "has": "have", "was": "were", "runs": "run"}
    why = re.sub(r"\bit (is|has|was|runs)\b", lambda found: f"they {verbs[found[1]]}", why)
    return re.sub(
        r"\bit (did|ended)\b", r"they \1", why.replace("runs it again", "runs them again")
    )


HOLD: Sentences = {
    "held": lambda run: (
        f"{verb(run, 'is', 'are')} held: {verb(run, 'it does', 'they do')} not start before "
        f"gpuq release {run_of(run)}"
    ),
    "already": lambda run: f"{verb(run, 'is', 'are')} held already, by {run['by']}",
}
RELEASE: Sentences = {
    "released": lambda run: verb(run, "waits for its turn again", "wait for their turn again"),
    "already": lambda run: f"{verb(run, 'is', 'are')} not held",
}
PRIORITY: Sentences = {
    "changed": lambda run: (
        f"{verb(run, 'has', 'have')} priority {run['priority']} now, "
        f"{verb(run, 'it was', 'they had')} {run['before']}"
    ),
    "already": lambda run: f"{verb(run, 'has', 'have')} priority {run['priority']} already",
}
MOVE: Sentences = {
    "moved": lambda run: (
        f"{verb(run, 'goes', 'go')} before {run['before'] or 'all others'} of the same user and "
        f"priority. Before others' jobs an admin puts them: gpuq priority 1 {run_of(run)}"
    ),
}
REQUEUE: Sentences = {
    "requeued": lambda run: (
        f"{verb(run, 'is', 'are')} queued again, behind all that wait now{_with_it(run)}"
    ),
    "waits_no_more": lambda run: (
        f"{verb(run, 'waits', 'wait')} no longer for the next attempt, and may start at once"
    ),
    "wants_gpus_again": lambda run: (
        f"{verb(run, 'waits', 'wait')} for GPUs again, and no longer for the CPU"
    ),
    "stopping": lambda run: (
        f"{verb(run, 'is', 'are')} being ended (KILL in {run['grace_s']:g} s), and will be queued "
        "again"
    ),
}
UNDO: Sentences = {
    "undone": lambda run: (
        f"{verb(run, 'is', 'are')} {'held' if run.get('held') else 'queued'} again, as before"
    ),
    "ran": lambda run: (
        f"ran and {verb(run, 'was', 'were')} ended by that kill: gpuq requeue {run_of(run)} runs "
        f"{verb(run, 'it', 'them')} again"
    ),
}
