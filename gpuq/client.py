"""One blocking Client: the only door to the daemon, for the command line, the screen and your code.

    from gpuq import Client

    with Client() as gpuq:
        job = gpuq.submit(["python", "train.py", "--lr", "0.1"], gpus=2)
        print(gpuq.wait([job])[0]["outcome"])

It blocks, so inside a running event loop call it from a thread. It reconnects by itself when the
daemon is restarted: every request can be asked twice without being done twice. On the start-up path
of every command: standard library only, and no more of it than this needs.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gpuq
from gpuq import paths, protocol
from gpuq.connection import Connection, Gone
from gpuq.errors import DaemonUnreachable, UsageError, WaitTimedOut
from gpuq.locate import Address, locate

if TYPE_CHECKING:
    from gpuq.follow import Follow

ANSWER_S = 60.0
RESTART_S = 30.0  # how long a client waits for a daemon that is being replaced
# A daemon that dies in the moment in which we come: the next one may answer on the same socket.
MOST_UNGREETED = 3
WAIT_SLICE_S = 30.0  # of one request, so that a dead daemon is noticed

Job = dict[str, Any]
Refs = Iterable[int | str] | int | str  # jobs by id, "12-18", "@", "g12"; one or several


class Client:
    """A connection to the daemon, made at the first request.

    `autostart` starts your own daemon where none runs and none is installed for the machine; what
    was started is said through `say`.
    """

    def __init__(
        self,
        socket: str | None = None,
        state_dir: str | None = None,
        *,
        autostart: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.address = locate(socket, state_dir)
        self.daemon: Job = {}  # what its hello said
        self._autostart = autostart and self.address.may_start
        self._say = say or (lambda line: None)
        self._connection: Connection | None = None
        self._next_id = 0
        self._was_connected = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── requests ──

    def call(self, do: str, *, answer_s: float | None = ANSWER_S, **arguments: Any) -> Job:
        """One request and its answer; an error of the daemon is raised as it was there.

        `answer_s` bounds the wait for the answer (None: as long as it takes); it never ends a job.
        """
        deadline, ungreeted = time.monotonic() + RESTART_S, 0
        while True:
            try:
                return self._ask(do, answer_s, arguments)
            except Gone as gone:
                self.close()
                # Who says that it comes back does, though it said nothing else to us yet.
                self._was_connected |= gone.back_soon
                ungreeted += not self._was_connected
                if gone.for_good or ungreeted > MOST_UNGREETED or time.monotonic() > deadline:
                    raise DaemonUnreachable(str(gone)) from None
                time.sleep(0.1)

    def submit(self, argv: Sequence[str], **options: Any) -> int:
        """Queues one job and returns its id. It is on disk when this returns.

        Options, as `gpuq submit` has them but with units in their names: gpus, gpu_mem_bytes
        (or gpu_mem="auto"), exclusive, max_util, gpu_model, gpu_ids, exclude_gpus, cpus, mem_bytes,
        name, queue, priority, cwd, env (a dict set over this process's environment), grace_s, tags,
        output, stderr, visible, seed, time_limit_s, heartbeat_s, stop_to, retries, backoff, retry_on,
        key, snapshot (True: run in a copy of the git work tree as it stands now), begin_at (s since the
        epoch) or begin_in_s: not before that. after: a list of jobs that have to end first, each
        like {"jobs": "12-18,20", "when": "ok"} ("any", "fail"), {"jobs": "g12", "each": True} from
        element to element, or {"entry": 0} for the first of those submitted together.

        Many at once: array="0-99%4", grid={"lr": [0.1, 0.01]} or params=[{"lr": 0.1}, …]; {i} and {lr}
        in argv, name, output, stderr and env stand for what each has. Returned is the id of the first,
        and g<id> names them all. script: a text that is run by what its first line names, or by
        `interpreter`; argv[0] is what it is called. as_slurm: with SLURM_… in its environment.
        """
        return self.submit_many([dict(options, argv=argv)])[0]

    def submit_many(
        self, jobs: Sequence[Job], *, group: str | None = None, token: str | None = None
    ) -> range:
        """Queues several jobs in one go, all or none; returns their ids. Without `group` they make one
        of their own, named g and the first id; with it they are added to that one. Who asks again with
        the same `token` (up to 64 ASCII signs) within a day gets the same jobs."""
        answer = self.submission(jobs, group=group, token=token)
        return range(answer["first"], answer["first"] + answer["count"])

    def submit_entries(self, jobs: Sequence[Job]) -> list[range]:
        """The same, and returns the ids of each of them: an array has several."""
        return [range(first, last + 1) for first, last in self.submission(jobs)["entries"]]

    def submission(
        self, jobs: Sequence[Job], *, group: str | None = None, token: str | None = None
    ) -> Job:
        """As `submit_many`, and returns the whole answer: `first` and `count` of the ids, `group`, the
        `entries` as pairs of first and last id, a `note`, and `is_new`: False where a `key` was taken,
        so that nothing was queued and the ids are those of who has it."""
        from gpuq import capture

        process = capture.Process()

        environment = capture.environment()
        copies: dict[str, Any] = {}
        request: Job = {
            "jobs": [self._in_snapshot(capture.spec(job, process), copies) for job in jobs],
            "env_hash": capture.digest(environment),
            "token": token or os.urandom(12).hex(),
        }
        if group is not None:
            request["group"] = group
        answer = self.call("submit", **request)
        if answer.get("wanted") == "environment":
            answer = self.call("submit", environment=environment, **request)
        if answer.get("note"):
            self._say(answer["note"])
        return answer

    def dry_run(self, argv: Sequence[str], **options: Any) -> Job:
        """What would become of a job that was submitted so; nothing is queued. Raises what `submit`
        would raise. `words` say it; `starting` of `count` would start now, on these `gpus`; else
        `reason` is why not, `waits_for` are jobs of which one has to end, and `expected_start_at` is
        when that may be (s since the epoch; None: nobody knows)."""
        return self.dry_run_many([dict(options, argv=argv)])[0]

    def dry_run_many(self, jobs: Sequence[Job]) -> list[Job]:
        """The same for several that would be submitted in one go, a verdict for each."""
        from gpuq import capture

        process = capture.Process()
        specs = [capture.spec(job, process) for job in jobs]
        for spec in specs:
            spec.pop("snapshot", None)  # no copy is made for what is not to run
        digest = capture.digest(capture.environment())
        answer = self.call("dry_run", jobs=specs, env_hash=digest)
        if answer.get("note"):
            self._say(answer["note"])
        verdicts: list[Job] = answer["verdict"]
        return verdicts

    def _in_snapshot(self, spec: Job, copies: dict[str, Any]) -> Job:
        """Of a work tree that was to be copied: the job runs in the copy. `copies` are those that were
        taken already, by directory: jobs that are submitted together see the same state."""
        if not spec.pop("snapshot", False):
            return spec
        from gpuq.work_tree.snapshot import take

        copy = copies.get(spec["cwd"])
        if copy is None:
            copy = take(spec["cwd"], self.call("snapshots")["folder"], self._say)
            copies[spec["cwd"]] = copy
        changes = {"GPUQ_WORK_TREE": copy.top, **spec["changes"]}
        return spec | {"cwd": copy.cwd, "snapshot": copy.name, "changes": changes}

    def jobs(self, refs: Refs = (), **filters: Any) -> list[Job]:
        """Jobs as `gpuq status --json` shows them; without refs the active ones. With fold=True a group
        of several is one entry, as with --fold."""
        jobs: list[Job] = []
        before: int | None = None
        limit = filters.pop("limit", None)
        while True:
            left = None if limit is None else limit - len(jobs)
            page = self.call("status", refs=_names(refs), before=before, limit=left, **filters)
            jobs += page["jobs"]
            before = page.get("before")
            if before is None or (limit is not None and len(jobs) >= limit):
                return sorted(jobs, key=lambda job: int(job["id"]))

    def job(self, ref: int | str) -> Job:
        """One job with its attempts, as `gpuq show --json` has it."""
        answer: Job = self.call("show", ref=str(ref))["job"]
        return answer

    def wait(self, refs: Refs, *, any_: bool = False, timeout_s: float | None = None) -> list[Job]:
        """Waits until all of the jobs have ended, or the first (`any_`); returns those ended.

        Raises WaitTimedOut after `timeout_s`, and leaves the jobs alone.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        names = _names(refs)
        while True:
            left = WAIT_SLICE_S if deadline is None else max(deadline - time.monotonic(), 0.0)
            slice_s = min(left, WAIT_SLICE_S)
            answer = self.call("wait", refs=names, any=any_, timeout_s=slice_s)
            if not answer["timed_out"]:
                return self.jobs([answer["ended"]])
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimedOut(f"not all ended within {timeout_s:g} s: {' '.join(names)}")

    def kill(self, refs: Refs, **how: Any) -> list[Job]:
        """Ends jobs: `grace_s` between TERM and KILL (0: KILL at once), or `signal` to send one
        signal without ending. Returns what was done to each, as runs from `id` to `last_id`."""
        answer = self.call("kill", refs=_names(refs), **how)
        for sentence in answer.get("stranded", ()):
            self._say(sentence)
        done: list[Job] = answer["jobs"]
        return done

    def pause(self, refs: Refs) -> list[Job]:
        """Lets running jobs stand still; returns what was done to each. They keep their GPUs."""
        done: list[Job] = self.call("pause", refs=_names(refs))["jobs"]
        return done

    def resume(self, refs: Refs) -> list[Job]:
        """Lets paused jobs go on."""
        done: list[Job] = self.call("pause", refs=_names(refs), off=True)["jobs"]
        return done

    def hold(self, refs: Refs) -> list[Job]:
        """Keeps jobs that wait from starting until they are released; returns what was done to each,
        as all of these do: a job that cannot be changed so is "refused", with the reason in "why"."""
        return self._change("hold", refs)

    def release(self, refs: Refs) -> list[Job]:
        return self._change("hold", refs, off=True)

    def requeue(self, refs: Refs) -> list[Job]:
        """Runs jobs once more, with the same number; those that run are ended for that."""
        return self._change("requeue", refs)

    def set_priority(self, refs: Refs, priority: int) -> list[Job]:
        """Jobs that wait go before those of lower priority. Above 0 it is for admins to raise."""
        return self._change("priority", refs, priority=priority)

    def move(self, refs: Refs, *, before: int | str | None = None) -> list[Job]:
        """Puts jobs that wait before all others of their own user, or before one of those."""
        return self._change("move", refs, before=None if before is None else str(before))

    def undo(self, refs: Refs = ()) -> list[Job]:
        """Takes back the cancel of jobs that waited; without refs that of the caller's last kill."""
        return self._change("undo", refs)

    def editable(self, refs: Refs) -> Job:
        """What can be changed of a job that waits: its "version" and its "options", named as `edit`
        takes them."""
        return self.call("editable", refs=_names(refs))

    def edit(self, refs: Refs, *, version: int | None = None, **changes: Any) -> list[Job]:
        """Changes what jobs that wait ask for: options of `submit`, each with its new value, or None
        for the usual one; `env` is set over what they have of it, a variable with None is taken out.
        With `version`, as `editable` gave it, only where nothing was changed since."""
        return self._change("edit", refs, version=version, changes=changes)

    def _change(self, do: str, refs: Refs, **how: Any) -> list[Job]:
        token = os.urandom(12).hex()  # so that it is done once, however often it has to be asked
        done: list[Job] = self.call(do, refs=_names(refs), token=token, **how)["jobs"]
        return done

    def drain(self, reason: str | None) -> Job:
        """Nothing is started any more, for that reason; None: jobs are started again."""
        return self.call("drain", off=reason is None, reason=reason)

    def events(
        self, refs: Refs = (), *, since: int | None = 0, follow: bool = False
    ) -> Iterator[list[Job]]:
        """What happened after the event of that number, in batches; None: only what comes. Where it
        follows, an empty batch says that nothing came for a while. A daemon that is restarted
        meanwhile is asked again from where the last answer ended, so nothing is missed."""
        names, wait_s = _names(refs), WAIT_SLICE_S if follow else 0.0
        while True:
            answer = self.call("events", refs=names, since=since, timeout_s=wait_s)
            since = answer["last"]
            if answer["events"] or follow:
                yield answer["events"]
            else:
                return

    def gpus(self) -> Job:
        return self.call("gpus")

    def follow(
        self, ref: int | str, *, attempt: int | None = None, tail: int | None = None, **how: Any
    ) -> "Follow":
        """The log of a job from before its start to its end, as chunks of bytes.

        From its last attempt on, or only that `attempt`; with `tail` from that many lines before
        its present end. `how` is what else `Follow` takes: from_first, start, say.
        """
        from gpuq.follow import Follow

        return Follow(self.call, ref, attempt=attempt, tail=tail, **{"say": self._say, **how})

    # ── the line ──

    def _ask(self, do: str, answer_s: float | None, arguments: Job) -> Job:
        self._next_id += 1
        request = protocol.encode({"id": self._next_id, "do": do, **arguments})
        if len(request) > protocol.FRAME_LIMIT:
            raise UsageError(
                f"this {do} takes {len(request) // 2**20 + 1} MiB; a daemon takes "
                f"{protocol.FRAME_LIMIT // 2**20} MiB in one go. Split it"
            )
        line = self._connection or self._connect()
        line.send(request)
        answer = line.receive(answer_s, self._next_id)
        if "error" in answer:
            protocol.raise_failure(answer["error"])
        result: Job = answer["ok"]
        return result

    def _connect(self) -> Connection:
        try:
            line = Connection(self.address.socket)
        except OSError as error:
            line = self._connect_otherwise(error)
        self._connection = line
        line.send(protocol.encode(protocol.hello(gpuq.__version__)))
        greeting = line.receive(ANSWER_S, None)
        if "error" in greeting:
            self.close()
            protocol.raise_failure(greeting["error"])
        self.daemon = greeting.get("hello", {})
        self._was_connected = True
        return line

    def _connect_otherwise(self, error: OSError) -> Connection:
        """Nobody listens there: it is being restarted, or it is to be started, or there is none."""
        if self._was_connected:
            raise Gone(f"the daemon at {self.address.socket} went away") from None
        if self._autostart and isinstance(error, FileNotFoundError | ConnectionRefusedError):
            from gpuq.autostart import start_own_daemon

            self._say(start_own_daemon(self.address.state_dir))
            return Connection(self.address.socket)
        if self.address.socket == paths.SYSTEM_SOCKET and not isinstance(error, PermissionError):
            return self._wait_for_system_daemon()
        raise DaemonUnreachable(_why_unreachable(self.address, error)) from None

    def _wait_for_system_daemon(self) -> Connection:
        deadline = time.monotonic() + RESTART_S
        while time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                return Connection(self.address.socket)
            except OSError:
                continue
        raise DaemonUnreachable(
            f"this machine's daemon does not answer at {self.address.socket}. "
            "See: systemctl status gpuqd"
        )


def _names(refs: Refs) -> list[str]:
    """One text is one reference, not a list of its signs."""
    return [str(refs)] if isinstance(refs, int | str) else [str(ref) for ref in refs]


def _why_unreachable(address: Address, error: OSError) -> str:
    where = f"{address.socket} (from {address.origin})"
    if isinstance(error, PermissionError):
        return f"you may not use the daemon at {where}: {error.strerror}"
    if address.state_dir is None:
        return f"no daemon answers at {where}. Is that the right socket? Start it as it was started"
    return f"no daemon answers at {where}. Start one: gpuq daemon start"
