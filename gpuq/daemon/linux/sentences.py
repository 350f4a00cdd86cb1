"""What was found out about a process, in sentences that a person can act on."""

import time

from gpuq.daemon.linux.investigate import Explained, named, respawning_parent

SHOWN_PARENTS = 4


def survivor_sentence(e: Explained) -> str:
    """For a process that KILL did not end."""
    if e.state == "Z":
        return f"{named((e.pid, e.command))} is {_zombie(e)}"
    where = str(e.container) if e.container else f"unit {e.unit}" if e.unit else ""
    family = f"child of {_chain(e)}" if e.parents else ""
    words = [f"{named((e.pid, e.command))} is {_doing(e)}", family, where]
    return ", ".join(filter(None, words))


def respawn_sentence(again: Explained) -> str:
    by = named(again.parents[0]) if again.parents else "a process outside of what can be seen"
    return f"respawned by {by}: {named((again.pid, again.command))} does the same"


def sentences(
    e: Explained, *, job: int | None, gone: bool = False, again: Explained | None = None
) -> list[str]:
    """For whoever asks what a process is. `gone`: it has ended since; `again`: what took its place,
    as watch_for_respawn found it."""
    told = [_who(e), "it has ended since" if gone else f"it is {_doing(e)}"]
    if e.parents:
        told.append(f"it is a child of {_chain(e)}")
    told += _where(e)
    told.append(_whose(job, gone))
    if not gone:
        told += _obstacles(e)
    if e.is_partial:
        told.append(f"where in the kernel it waits is told to {e.user} and to admins alone")
    if job is None:  # what a job starts again ends with the job
        told += _again(e, again)
    return told


def _who(e: Explained) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e.started_at))
    threads = f" with {e.threads} threads" if e.threads > 1 else ""
    return f"{named((e.pid, e.command))} of {e.user} has run since {since}{threads}: {_line(e)}"


def _line(e: Explained) -> str:
    return e.command_line or f"[{e.command}]"  # as ps shows it


def _doing(e: Explained) -> str:
    if e.state == "Z":
        return _zombie(e)
    if e.wait_channel is None:
        return f"in {e.state_words}" if e.state == "D" else e.state_words
    what = "in uninterruptible sleep" if e.state == "D" else e.state_words
    return f"{what} in {e.wait_channel}"


def _zombie(e: Explained) -> str:
    parent = f"its parent {named(e.parents[0])}" if e.parents else "its parent"
    return f"a zombie: it is dead, {parent} has not fetched its exit"


def _chain(e: Explained) -> str:
    """The nearest parents and the last one."""
    shown = [named(parent) for parent in e.parents]
    if len(shown) > SHOWN_PARENTS:
        shown[SHOWN_PARENTS - 1 : -1] = ["…"]
    return " ← ".join(shown)


def _where(e: Explained) -> list[str]:
    inside = "" if e.inner_pid is None else f", where it is pid {e.inner_pid}"
    if e.container is not None:
        return [f"it runs in the {e.container}{inside}"]
    unit = [] if e.unit is None else [f"it runs in the systemd unit {e.unit}"]
    return unit + ([f"it runs in another pid namespace{inside}"] if inside else [])


def _whose(job: int | None, gone: bool) -> str:
    if job is None:
        return "it does not belong to gpuq, which will not touch it"
    return f"it belongs to job {job}" + ("" if gone else f"; end it with: gpuq kill {job}")


def _obstacles(e: Explained) -> list[str]:
    """Why a signal may not end it."""
    if e.is_kernel_thread:
        return ["it is a part of the kernel, which no signal ends"]
    if e.state == "Z":
        return ["no signal ends what is dead: it goes when its parent fetches its exit, or ends"]
    if e.state == "D":
        return [
            "no signal reaches it, KILL neither, before the kernel has what it waits for:"
            " a disk, a network file system or a driver that hangs"
        ]
    if e.state == "T":
        return [f"a signal waits until it goes on (kill -CONT {e.pid}); only KILL does not"]
    if e.state == "t":
        return ["its debugger sees each signal first; only KILL is not held up"]
    if e.is_frozen:
        return ["its control group is frozen: a signal waits for the thaw; only KILL does not"]
    return _deafness(e)


def _deafness(e: Explained) -> list[str]:
    if e.ignores_term:
        return [f"it ignores TERM; this ends it: kill -KILL {e.pid}"]
    if e.blocks_term:
        return [f"it blocks TERM for now; this ends it: kill -KILL {e.pid}"]
    return []


def _again(e: Explained, again: Explained | None) -> list[str]:
    respawner = e.respawner
    if again is None:
        return (
            [] if respawner is None else [f"{respawner.sentence}; to stop that: {respawner.remedy}"]
        )
    if respawner is None and again.parents and again.parents[0][0] != 1:
        respawner = respawning_parent(again.parents[0])
    remedy = "" if respawner is None else f"; to stop that: {respawner.remedy}"
    return [f"{respawn_sentence(again)}{remedy}"]
