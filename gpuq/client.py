"""One blocking Client: the only door to the daemon, for the command line, the screen and your code.

    from gpuq import Client

    with Client() as gpuq:
        job = gpuq.submit(["python", "train.py", "--lr", "0.1"], gpus=2)
        print(gpuq.wait([job])[0]["outcome"])

It blocks, so inside a running event loop call it from a thread: `await asyncio.to_thread(...)`. One
Client serves any number of threads: each request that is under way has a connection of its own. It
reconnects by itself when the daemon is restarted: every request can be asked twice without being
done twice. On the start-up path of every command: standard library only, and no more of it than this
needs.
"""

from __future__ import annotations

import os

from gpuq.link import Link
from gpuq.locate import locate
from gpuq.looking_back import LookingBack, check_filters, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Unpack

    from gpuq.follow import Follow
    from gpuq.group_table import GroupInFull
    from gpuq.link import Stream
    from gpuq.typed import (
        Done,
        Event,
        Folded,
        GpuHistory,
        Gpus,
        Job,
        JobInFull,
        JobOptions,
        JobProcesses,
        NewJob,
        Refs,
        Submission,
        Verdict,
    )

    Answer = dict[str, Any]

ANSWER_S = 60.0
SILENCE_S = (
    30.0  # after which a subscription is taken for dead; it says something three times as often
)
WAIT_SLICE_S = 30.0  # of one request, so that a dead daemon is noticed


class Client(LookingBack):
    """Asks the daemon; connects at the first request.

    `autostart` starts your own daemon where none runs and none is installed for the machine; what
    was started is said through `say`. Every method raises GpuqError or one of its kinds
    (`gpuq.errors`): UsageError, NothingMatched, NotPermitted, NeverFits, DaemonUnreachable.
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
        self._say = say or (lambda line: None)
        self._link = Link(self.address, autostart=autostart, say=self._say)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections; another request opens one again."""
        self._link.close()

    @property
    def daemon(self) -> Answer:
        """What the daemon's hello said; empty before the first request."""
        return self._link.daemon

    def call(self, do: str, *, answer_s: float | None = ANSWER_S, **arguments: Any) -> Answer:
        """One request as it goes over the wire, and its answer; an error of the daemon is raised as it
        was there.

        `answer_s` bounds the wait for the answer (None: as long as it takes); it never ends a job.
        """
        return self._link.call(do, arguments, answer_s)

    def subscribe(
        self,
        *,
        since: int | None = None,
        mark: str | None = None,
        finished_since: float | None = None,
        pace_s: float | None = None,
    ) -> Stream:
        """A picture of queue and GPUs in parts, and then whatever changes: what a screen shows. Each
        part is a dict; `number` is where to go on from (`since`) after the connection was lost, with
        the `mark` that came with it: where that is of another queue, because another database is there
        by now, a new picture comes, and the first part of it says `is_other`. Parts that say
        `is_picture` begin anew, and with the one that has `more` False it is whole; in the others
        `jobs` are rows as they are now, each for the jobs `id` to `last_id`, and of the spans in
        `looked_at` what is in no row is gone. `finished_since` (s since the epoch): also who ended
        since then; `pace_s`: news at most so often. Ends when it is closed; DaemonUnreachable where the
        daemon leaves."""
        asked = {"since": since, "mark": mark, "finished_since": finished_since, "pace_s": pace_s}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._link.stream("subscribe", given, SILENCE_S)

    # ── submitting ──

    def submit(self, argv: Sequence[str], **options: Unpack[JobOptions]) -> int:
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
        self,
        jobs: Sequence[NewJob] | Sequence[dict[str, Any]],
        *,
        group: str | None = None,
        token: str | None = None,
    ) -> range:
        """Queues several jobs in one go, all or none; returns their ids. Without `group` they make one
        of their own, named g and the first id; with it they are added to that one. Who asks again with
        the same `token` (up to 64 ASCII signs) within a day gets the same jobs."""
        answer = self.submission(jobs, group=group, token=token)
        return range(answer["first"], answer["first"] + answer["count"])

    def submit_entries(self, jobs: Sequence[NewJob] | Sequence[dict[str, Any]]) -> list[range]:
        """The same, and returns the ids of each of them: an array has several."""
        return [range(first, last + 1) for first, last in self.submission(jobs)["entries"]]

    def submission(
        self,
        jobs: Sequence[NewJob] | Sequence[dict[str, Any]],
        *,
        group: str | None = None,
        token: str | None = None,
    ) -> Submission:
        """As `submit_many`, and returns the whole answer: `first` and `count` of the ids, `group`, the
        `entries` as pairs of first and last id, a `note`, and `is_new`: False where a `key` was taken,
        so that nothing was queued and the ids are those of who has it."""
        from gpuq.submitting import Submitting

        answer: Any = Submitting(self.call, self._say).submit(jobs, group, token)
        return answer  # type: ignore[no-any-return]

    def dry_run(self, argv: Sequence[str], **options: Unpack[JobOptions]) -> Verdict:
        """What would become of a job that was submitted so; nothing is queued. Raises what `submit`
        would raise. `words` say it; `starting` of `count` would start now, on these `gpus`; else
        `reason` is why not, `waits_for` are jobs of which one has to end, and `expected_start_at` is
        when that may be (s since the epoch; None: nobody knows)."""
        return self.dry_run_many([dict(options, argv=argv)])[0]

    def dry_run_many(self, jobs: Sequence[NewJob] | Sequence[dict[str, Any]]) -> list[Verdict]:
        """The same for several that would be submitted in one go, a verdict for each."""
        from gpuq.submitting import Submitting

        verdicts: list[Verdict] = Submitting(self.call, self._say).dry_run(jobs)["verdict"]
        return verdicts

    # ── looking ──

    def jobs(self, refs: Refs = (), **filters: Any) -> list[Job]:
        """Jobs as `gpuq status --json` shows them; without refs the active ones, with all=True those
        that have ended, too. Filters: mine=True, user, states (a list), name, tag, since (s since the
        epoch), queue, limit. With runs=True jobs that do not differ are one, from `id` to `last_id`."""
        check_filters("jobs", filters)
        jobs: list[Job] = []
        before: int | None = None
        limit = filters.pop("limit", None)
        while True:
            left = None if limit is None else limit - len(jobs)
            page = self.call(
                "status", refs=names(refs), before=before, limit=left, jobs_only=True, **filters
            )
            jobs += page["jobs"]
            before = page.get("before")
            if before is None or (limit is not None and len(jobs) >= limit):
                return sorted(jobs, key=lambda job: int(job["id"]))

    def job(self, ref: int | str) -> JobInFull:
        """One job with its attempts, as `gpuq show --json` has it."""
        job: JobInFull = self.call("show", ref=str(ref))["job"]
        return job

    def processes(self, ref: int | str) -> JobProcesses:
        """The processes that a job is just now; `why` says why there are none. What one has had of
        CPUs (`cpu_s`) counts from its beginning: of two answers the difference, over that of their
        `at`, is how much it uses."""
        found: Any = self.call("processes", ref=str(ref))
        return found  # type: ignore[no-any-return]

    def groups(self, refs: Refs = (), **filters: Any) -> list[Folded]:
        """Groups of several jobs, each as one entry with `counts` by state and outcome; without refs
        those that have an active job. Filters as in `jobs`."""
        entries: Any = self.jobs(refs, fold=True, **filters)
        return [entry for entry in entries if "counts" in entry]

    def group(
        self,
        ref: int | str = "@",
        *,
        best: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **whose: Any,
    ) -> GroupInFull:
        """What came of one group, as `gpuq group --json` has it, and its `jobs` with parameters and
        metrics. `ref` is g12, the id of one of its jobs, @, tag:TAG, or a name; of the last two
        user=NAME or all=True means others' jobs. `best` is like "acc:max", `sort` the name of a metric
        or a parameter, "-acc" the most first. limit=0: without the jobs. NothingMatched where there is
        no such group, and where all of it is over and nobody reported what it is to go by."""
        from gpuq.group_table import read

        return read(self.call, str(ref), best=best, sort=sort, limit=limit, **whose)

    def gpus(self) -> Gpus:
        """All GPUs ("gpus"), each with its state, its readings (None: there is none), the `jobs`
        and the `processes` on it; and where they were looked for ("gpu_backend", "gpu_origin"), with
        what stood in the way ("gpu_trouble")."""
        found: Any = self.call("gpus")
        return found  # type: ignore[no-any-return]

    def gpu_history(self, window_s: float = 300.0, buckets: int | None = None) -> GpuHistory:
        """What all GPUs read in the last `window_s` (up to a day), as means over `step_s` from
        `begin_at` on (s since the epoch): "gpus" has for each uuid a list for each reading, None where
        there is none. At most so many `buckets` (up to 500; None: 300), fewer where none were taken as
        fine as that. The daemon keeps it in memory only: it begins anew when it is restarted."""
        asked = {"window_s": window_s} | ({} if buckets is None else {"buckets": buckets})
        history: Any = self.call("gpu_history", **asked)
        return history  # type: ignore[no-any-return]

    def events(
        self,
        refs: Refs = (),
        *,
        since: int | None = 0,
        since_at: float | None = None,
        follow: bool = False,
    ) -> Iterator[list[Event]]:
        """What happened after the event of that number, in batches; None: only what comes. With
        `since_at` what happened from then on (s since the epoch). Where it follows, an empty batch
        says that nothing came for a while. A daemon that is restarted meanwhile is asked again from
        where the last answer ended, so nothing is missed."""
        asked, wait_s = names(refs), WAIT_SLICE_S if follow else 0.0
        while True:
            from_then = {} if since_at is None else {"since_at": since_at}
            answer = self.call("events", refs=asked, since=since, timeout_s=wait_s, **from_then)
            since, since_at = answer["last"], None
            if answer["events"] or follow:
                yield answer["events"]
            else:
                return

    def logs(self, ref: int | str, *, attempt: int | None = None, lines: int | None = None) -> str:
        """What a job wrote so far, of its last attempt unless one is named; with `lines` only that many
        of its last. Read with your own rights; what is no UTF-8 is replaced by U+FFFD. Empty where it
        has written nothing; GpuqError where the log was removed for its age."""
        from gpuq.follow import text_of

        return text_of(dict(self.job(ref)), attempt, lines)

    def follow(
        self, ref: int | str, *, attempt: int | None = None, tail: int | None = None, **how: Any
    ) -> Follow:
        """The log of a job from before its start to its end, as chunks of bytes; an empty one says that
        nothing came for a while.

        From its last attempt on, or only that `attempt`; with `tail` from that many lines before
        its present end. `how` is what else `Follow` takes: from_first, start, say.
        """
        from gpuq.follow import Follow

        return Follow(self.call, ref, attempt=attempt, tail=tail, **{"say": self._say, **how})

    # ── waiting ──

    def wait(self, refs: Refs, *, any_: bool = False, timeout_s: float | None = None) -> list[Job]:
        """Waits until all of the jobs have ended, or the first (`any_`); returns those ended.

        Raises WaitTimedOut after `timeout_s`, and leaves the jobs alone.
        """
        from gpuq import watching

        return watching.wait(self, names(refs), any_=any_, timeout_s=timeout_s)

    def as_completed(self, refs: Refs, *, timeout_s: float | None = None) -> Iterator[Job]:
        """Each of the jobs once it has ended, in the order in which they end.

        Which jobs are meant is settled when the first is asked for. A job that is tried again ends
        with its last attempt. Raises WaitTimedOut where not all have ended after `timeout_s`.
        """
        from gpuq import watching

        return watching.as_completed(self, names(refs), timeout_s)

    def watch(self, refs: Refs = (), *, every_s: float | None = None) -> Iterator[Job]:
        """Each of the jobs as it is now, and then again whenever something happened to it, until all of
        them have ended; without refs the active jobs of everybody and those that come, without end.

        What happens twice in one moment may be told once, and a change may be told twice. A report of
        progress or metrics is no event: with `every_s` those are looked at so often.
        """
        from gpuq import watching

        return watching.watch(self, names(refs), every_s)

    # ── changing ──

    def kill(
        self, refs: Refs, *, grace_s: float | None = None, signal: int | str | None = None
    ) -> list[Done]:
        """Ends jobs: `grace_s` between TERM and KILL (0: KILL at once; None: what the job was submitted
        with), or `signal` to send one signal, 10 or "USR1", without ending. Returns when that is
        written down, with what was done to each, as runs from `id` to `last_id`."""
        how = {"grace_s": grace_s, "signal": signal}
        asked: Answer = {name: value for name, value in how.items() if value is not None}
        answer = self.call("kill", refs=names(refs), **asked)
        for sentence in answer.get("stranded", ()):
            self._say(sentence)
        done: list[Done] = answer["jobs"]
        return done

    def consequences(self, refs: Refs) -> Answer:
        """What a kill of these jobs would do, and nothing is done: "jobs" as `kill` answers, each with
        its "user" and whether the caller "may"; "stranded" says who waits for them in vain then."""
        return self.call("consequences", refs=names(refs))

    def pause(self, refs: Refs) -> list[Done]:
        """Lets running jobs stand still; returns what was done to each. They keep their GPUs."""
        done: list[Done] = self.call("pause", refs=names(refs))["jobs"]
        return done

    def resume(self, refs: Refs) -> list[Done]:
        """Lets paused jobs go on."""
        done: list[Done] = self.call("pause", refs=names(refs), off=True)["jobs"]
        return done

    def hold(self, refs: Refs) -> list[Done]:
        """Keeps jobs that wait from starting until they are released; returns what was done to each,
        as all of these do: a job that cannot be changed so is "refused", with the reason in "why"."""
        return self._change("hold", refs)

    def release(self, refs: Refs) -> list[Done]:
        """Lets held jobs start when it is their turn."""
        return self._change("hold", refs, off=True)

    def requeue(self, refs: Refs) -> list[Done]:
        """Runs jobs once more, with the same number; those that run are ended for that."""
        return self._change("requeue", refs)

    def set_priority(self, refs: Refs, priority: int) -> list[Done]:
        """Jobs that wait go before those of lower priority. Above 0 it is for admins to raise."""
        return self._change("priority", refs, priority=priority)

    def move(self, refs: Refs, *, before: int | str | None = None) -> list[Done]:
        """Puts jobs that wait before all others of their own user, or before one of those."""
        return self._change("move", refs, before=None if before is None else str(before))

    def undo(self, refs: Refs = ()) -> list[Done]:
        """Takes back the cancel of jobs that waited; without refs that of the caller's last kill."""
        return self._change("undo", refs)

    def editable(self, refs: Refs) -> Answer:
        """What can be changed of a job that waits: its "version" and its "options", named as `edit`
        takes them."""
        return self.call("editable", refs=names(refs))

    def edit(self, refs: Refs, *, version: int | None = None, **changes: Any) -> list[Done]:
        """Changes what jobs that wait ask for: options of `submit`, each with its new value, or None
        for the usual one; `env` is set over what they have of it, a variable with None is taken out.
        With `version`, as `editable` gave it, only where nothing was changed since."""
        return self._change("edit", refs, version=version, changes=changes)

    def drain(self, reason: str | None) -> Answer:
        """Nothing is started any more, for that reason; None: jobs are started again."""
        return self.call("drain", off=reason is None, reason=reason)

    def _change(self, do: str, refs: Refs, **how: Any) -> list[Done]:
        token = os.urandom(12).hex()  # so that it is done once, however often it has to be asked
        done: list[Done] = self.call(do, refs=names(refs), token=token, **how)["jobs"]
        return done
