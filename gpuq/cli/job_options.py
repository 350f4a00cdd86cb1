"""What `submit` and `run` offer to say about a job, written down once for both."""

from __future__ import annotations

from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Annotated, Any, TypeVar

    from gpuq.cli.declaring import Option, ends, order, placement, resources, results

    Read = TypeVar("Read")

MOST_GPUS = 1024  # no machine has so many; a range that is longer would fill the memory


def describe(
    words: Sequence[str],
    *,
    gpus: Annotated[
        int | None, resources("-g", "--gpus", metavar="N", help="GPUs; 1 unless said.")
    ] = None,
    gpu_mem: Annotated[
        str | None,
        resources(
            metavar="SIZE|auto",
            help="Its need on each GPU in all, like 20G; auto: as it used before. It may share one.",
        ),
    ] = None,
    exclusive: Annotated[
        bool, resources("--exclusive", help="With --gpu-mem: a whole GPU with at least that.")
    ] = False,
    cpus: Annotated[
        int | None,
        resources(
            "-c",
            "--cpus",
            metavar="N",
            help="CPUs it may use, where systemd can hold it to that; slots of a job without GPUs.",
        ),
    ] = None,
    mem: Annotated[
        str | None,
        resources(metavar="SIZE", help="Memory of the machine that all of it may use, like 8G."),
    ] = None,
    cpu_after: Annotated[
        str | None,
        resources(
            metavar="TIME",
            help="When it has waited so long for its GPUs, a CPU slot will do: GPUQ_DEVICE=cpu.",
        ),
    ] = None,
    gpu_model: Annotated[
        str | None, placement(metavar="TEXT", help="Only on GPUs with this in their model's name.")
    ] = None,
    gpu_id: Annotated[
        list[str] | None,
        placement(metavar="GPUS", help="Only on these: 0-3,5, a UUID or a bus id; repeatable."),
    ] = None,
    exclude_gpu: Annotated[
        list[str] | None, placement(metavar="GPUS", help="Not on these; repeatable.")
    ] = None,
    max_util: Annotated[
        int | None,
        resources(
            metavar="PCT", help="With --gpu-mem: only beside others who use less of the GPU's time."
        ),
    ] = None,
    visible: Annotated[
        str,
        placement(metavar="HOW", help="What CUDA_VISIBLE_DEVICES holds: auto, uuid or index."),
    ] = "auto",
    cwd: Annotated[
        str | None, placement("-C", "--cwd", metavar="DIR", help="Run it there; here unless said.")
    ] = None,
    snapshot: Annotated[
        bool,
        placement(
            "--snapshot",
            help="Run it in a copy of the git work tree as it is now: what you edit then does not "
            "reach it. What git ignores stays behind; GPUQ_WORK_TREE says where it is.",
        ),
    ] = False,
    queue: Annotated[
        str | None,
        order("-q", "--queue", metavar="NAME", help="In this queue of the settings: gpuq queues."),
    ] = None,
    priority: Annotated[
        int | None, order("-p", "--priority", metavar="N", help="Higher goes first; 0 unless said.")
    ] = None,
    preemptible: Annotated[
        bool,
        order(
            "--preemptible",
            help="It gives way to jobs of higher priority: told so, it has --grace to save, and "
            "runs again later.",
        ),
    ] = False,
    preempt_signal: Annotated[
        str | None,
        order(metavar="SIGNAL", help="How it is told to give way, like USR1; TERM unless said."),
    ] = None,
    after: Annotated[
        list[str] | None,
        order(
            metavar="JOB[:HOW]",
            help="Once these have ended: 12, 12-18,20, @ or g12, and how: ok (unless said), any, fail; "
            "g12:ok:each: element by element; repeatable.",
        ),
    ] = None,
    dependency: Annotated[
        str | None, order(metavar="TEXT", help="The same in Slurm's words.", hidden=True)
    ] = None,
    begin: Annotated[
        str | None,
        order(
            metavar="WHEN",
            help="Not before that: 18:00, tomorrow 08:00, 2026-07-31T18:00, or +2h from now.",
        ),
    ] = None,
    name: Annotated[
        str | None, order("-n", "--name", metavar="NAME", help="What to call it.")
    ] = None,
    tag: Annotated[
        list[str] | None, order(metavar="TAG", help="To find it by; repeatable.")
    ] = None,
    key: Annotated[
        str | None,
        order(
            metavar="TEXT", help="Queue nothing while a job of mine with this key has not ended."
        ),
    ] = None,
    hold: Annotated[
        bool, order("-H", "--hold", help="Let it wait until somebody says gpuq release.")
    ] = False,
    time: Annotated[
        str | None,
        ends("-t", "--time", metavar="TIME", help="End it after so long, like 2h or 1-12:00:00."),
    ] = None,
    heartbeat: Annotated[
        str | None,
        ends(
            metavar="TIME",
            help="End it when it gives no sign of life for so long: no report (gpuq.job), and no "
            "progress bar in its log that moves.",
        ),
    ] = None,
    grace: Annotated[
        str | None, ends(metavar="TIME", help="From TERM to KILL when it is ended, like 30s.")
    ] = None,
    stop_to: Annotated[
        str, ends(metavar="WHOM", help="Who gets the TERM: all of it, or only its main process.")
    ] = "all",
    on_kill: Annotated[
        str | None,
        ends(metavar="CMD", help="For /bin/sh when gpuq ends it, as you, within the grace."),
    ] = None,
    retries: Annotated[
        int | None, ends(metavar="N", help="Try again up to N times when it ends badly.")
    ] = None,
    backoff: Annotated[
        str | None,
        ends(metavar="TIMES", help="Wait before each: 2s,4s,8s, or exp:10s:10m, the usual one."),
    ] = None,
    retry_on: Annotated[
        str | None,
        ends(
            metavar="ENDS",
            help="failed,oom,lost unless said; also timeout and exit:75. A kill is never retried.",
        ),
    ] = None,
    on_failure: Annotated[
        str | None,
        ends(
            metavar="HOW",
            help="Of many: continue, or stop:N: once N have failed and none has succeeded, what waits "
            "is not begun.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        results(
            "-o",
            "--output",
            metavar="FILE",
            help="The log goes there; `gpuq logs` reads it. %j is the job's id, %a its index.",
        ),
    ] = None,
    stderr: Annotated[
        str | None, results(metavar="FILE", help="Standard error goes there.")
    ] = None,
    on_start: Annotated[
        str | None,
        results(metavar="HOOK", help="Done when it starts: a command for /bin/sh, or an address."),
    ] = None,
    on_end: Annotated[
        str | None,
        results(
            metavar="HOOK",
            help="Done when it has ended: mail -s done me, https://host/x, ntfys://topic.",
        ),
    ] = None,
    shell: Annotated[
        str | None, Option(metavar="TEXT", help="In place of COMMAND: a text for /bin/sh.")
    ] = None,
    env: Annotated[
        list[str] | None,
        Option("-e", "--env", metavar="K=V", help="Set over this environment; repeatable."),
    ] = None,
    env_file: Annotated[
        str | None, Option(metavar="FILE", help="The same, one K=V a line; # comments.")
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="GPUQ_SEED; random unless said.")] = None,
) -> dict[str, Any]:
    """What is asked on the command line as the client takes it. The options stand here once, for
    `submit` and `run` alike."""
    if exclusive and gpu_mem is None:
        raise UsageError(
            "--exclusive says how --gpu-mem is meant; without it a job has its GPUs alone anyway"
        )
    if visible not in ("auto", "uuid", "index"):
        raise UsageError(f"--visible {visible}: it is auto, uuid or index")
    if time is not None and time.strip().isdecimal():  # minutes to Slurm, seconds elsewhere
        raise UsageError(f"--time {time}: of what? Write {time}s, {time}m or {time}h")
    if stop_to not in ("all", "main"):
        raise UsageError(f"--stop-to {stop_to}: it is all or main")
    if not retries and (backoff or retry_on):
        said = "--backoff" if backoff else "--retry-on"
        raise UsageError(f"{said} says how to retry, and there are no retries. Add --retries N")
    return {
        "argv": _argv(words, shell),
        "gpus": gpus,
        "gpu_mem": "auto" if gpu_mem == "auto" else None,
        "gpu_mem_bytes": _bytes("--gpu-mem", None if gpu_mem == "auto" else gpu_mem),
        "exclusive": exclusive or None,
        "cpus": cpus,
        "mem_bytes": _bytes("--mem", mem),
        "cpu_after_s": _seconds("--cpu-after", cpu_after),
        "gpu_model": gpu_model,
        "gpu_ids": gpu_words("--gpu-id", gpu_id),
        "exclude_gpus": gpu_words("--exclude-gpu", exclude_gpu),
        "max_util": max_util,
        "visible": visible,
        "cwd": cwd,
        "snapshot": snapshot or None,
        "queue": queue,
        "priority": priority,
        "preemptible": preemptible or None,
        "preempt_signal": preempt_signal,
        "name": name,
        "tags": tag or [],
        "key": key,
        "held": hold or None,
        **_begin(begin),
        **_after(after, dependency),
        "time_limit_s": _seconds("--time", time),
        "heartbeat_s": _seconds("--heartbeat", heartbeat),
        "grace_s": _seconds("--grace", grace),
        "stop_to": None if stop_to == "all" else stop_to,
        "on_kill": on_kill,
        "retries": retries,
        "backoff": backoff,
        "retry_on": retry_on,
        "on_failure": on_failure,
        "output": output,
        "stderr": stderr,
        "on_start": on_start,
        "on_end": on_end,
        "env": environment(env_file, env or []),
        "seed": seed,
    }


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from gpuq.core.units import parse_bytes

    return read_option(option, parse_bytes, text)


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    from gpuq.core.units import parse_seconds

    return read_option(option, parse_seconds, text)


def _begin(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    from gpuq.cli.moments import read_moment

    moment = read_moment("--begin", text)
    return {"begin_in_s": moment.in_s} if moment.at is None else {"begin_at": moment.at}


def _after(after: Sequence[str] | None, dependency: str | None) -> dict[str, Any]:
    if not after and dependency is None:
        return {}
    from gpuq.cli.after import read_after, read_dependency

    needs = read_after(after)
    return {"after": needs + (read_dependency(dependency) if dependency is not None else [])}


def gpu_words(option: str, said: Sequence[str] | None) -> list[str] | None:
    """Names of GPUs with the ranges among them written out; a UUID has dashes of its own."""
    if not said:
        return None
    from gpuq.core.units import parse_ranges

    words: list[str] = []
    for part in ",".join(said).split(","):
        word = part.strip()
        if not word:
            raise UsageError(f"{option} names no GPU: write it like 0-2,5 or GPU-8f3a")
        if word[:1].isdecimal() and ":" not in word:
            spans = read_option(option, parse_ranges, word) or []
            if any(span.stop > MOST_GPUS for span in spans):
                raise UsageError(f"{option} {word}: no machine has a GPU above {MOST_GPUS - 1}")
            words += [str(index) for span in spans for index in span]
        else:
            words.append(word)
    return words


def _argv(words: Sequence[str], shell: str | None) -> list[str]:
    if shell is not None and words:
        raise UsageError(f"--shell holds the whole command, so {words[0]!r} has no place beside it")
    if shell is not None:
        return ["/bin/sh", "-c", shell]
    if not words:
        raise UsageError(
            "there is no command to run: write it behind the options, as in "
            "gpuq submit -g 2 python train.py"
        )
    return list(words)


def environment(path: str | None, settings: Sequence[str]) -> dict[str, str]:
    """What -e says goes over what the file says."""
    pairs = [_pair(line, path) for line in _lines(path)] if path is not None else []
    return dict(pairs + [_pair(setting, "-e") for setting in settings])


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n") for line in file]
    except OSError as error:
        raise UsageError(f"--env-file {path}: {error.strerror}") from None
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _pair(setting: str, where: str | None) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{where}: {setting!r} is no K=V")
    return name.strip(), value


def read_option(option: str, parse: Callable[[str], Read], text: str | None) -> Read | None:
    """A value as its parser reads it; what is wrong with it names the option."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def with_options_of(*offers: Callable[..., Any]) -> Callable[[Any], Any]:
    """Gives a command the options of other functions in place of its own `**options`."""

    def lend(command: Any) -> Any:
        command.offers = offers
        return command

    return lend
