"""One function per request. Handlers check, store what was asked or wished, and answer; they never
touch a process. What follows from a wish is the loop's to do, and to tell."""

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import gpuq
from gpuq import protocol
from gpuq.config import Config
from gpuq.core.asked.spec import parse_signal
from gpuq.core.asked.wire_fields import to_text
from gpuq.core.model import JobState
from gpuq.core.units import format_spans
from gpuq.daemon import faults, installed
from gpuq.daemon.callers.discretion import Discretion
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.linux import investigate, processes
from gpuq.daemon.linux.sentences import sentences
from gpuq.daemon.requests import fields, views
from gpuq.daemon.requests.changes import Changes
from gpuq.daemon.requests.consequences import Consequences, done_by_kill
from gpuq.daemon.requests.editing import Editing
from gpuq.daemon.requests.expectations import Expectations
from gpuq.daemon.requests.gpu_past import tell_history
from gpuq.daemon.requests.gpu_requests import GpuRequests
from gpuq.daemon.requests.groups import Groups
from gpuq.daemon.requests.known_gpus import KnownGpus
from gpuq.daemon.requests.limit_requests import LimitRequests
from gpuq.daemon.requests.listing import Listing
from gpuq.daemon.requests.long_looks import LongLooks
from gpuq.daemon.requests.looking_back import LookingBack
from gpuq.daemon.requests.looking_into import LookingInto
from gpuq.daemon.requests.metrics import Metrics
from gpuq.daemon.requests.needing import stranded_by
from gpuq.daemon.requests.noticing import Noticing
from gpuq.daemon.requests.pruning import Pruning
from gpuq.daemon.requests.refs import References
from gpuq.daemon.requests.reserving import Reserving
from gpuq.daemon.requests.submissions import FIRST_READING_S, Submissions
from gpuq.daemon.requests.subscribing import Subscriptions
from gpuq.daemon.requests.telling import Telling
from gpuq.daemon.requests.waiting import Waiting
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.extract import extract
from gpuq.daemon.store.measured import use_columns
from gpuq.daemon.upkeep.aside import OneByOne
from gpuq.daemon.upkeep.snapshots import make_folder
from gpuq.daemon.watchers import Watchers
from gpuq.errors import GpuqError, NotPermitted, UsageError

LONGEST_WATCH_S = 10.0
# What root of a container may ask: all others change something, or tell of what is outside of it.
LOOKS = {
    "ping",
    "config",
    "status",
    "show",
    "group",
    "events",
    "wait",
    "gpus",
    "why_gpu",
    "gpu_history",
    "metrics",
}
LOOKS |= {"editable", "prunable", "pruning", "limits", "queues", "usage", "reservations"}
LOOKS |= {"history", "stats", "errors", "notices", "extract", "subscribe"}
LOOKS |= {"processes", "series"}
LOOKS |= {"consequences"}

Answer = dict[str, Any]
News = AsyncGenerator[Answer, None]


class Handlers:
    def __init__(self, store: Store, config: Config, world: World, watchers: Watchers) -> None:
        self._store = store
        self._config = config
        self._world = world
        self._watchers = watchers
        store.database.on_commit = watchers.publish_commit
        self._refs = References(store.found)
        self._machine = KnownGpus(store.machine, config, lambda: world.gpus)
        self._submissions = Submissions(store, config, world, self._machine)
        self._reserving = Reserving(store, world, self._machine.gpus)
        self._gpu_requests = GpuRequests(
            store,
            world,
            config.policy,
            self._machine.gpus,
            self._discretion,
            reservations=self._reserving.of_gpus,
        )
        self._expectations = Expectations(world)
        self._changes = Changes(store, self._refs, config, world, self._find_own)
        self._consequences = Consequences(store, self._refs)
        self._editing = Editing(store, world, self._find_own, self._submissions.read_specs)
        self._listing = Listing(store, self._refs, self._discretion, self._job_view)
        self._waiting = Waiting(store.found, self._refs, watchers)
        self._telling = Telling(
            store.told, self._refs, watchers, lambda: world.gpus, self._discretion
        )
        self._limit_requests = LimitRequests(store, config, world.wake)
        self._pruning = Pruning(store, self._refs, config.state_dir, begin=world.keep_house)
        self._looks = OneByOne()
        self._long_looks = LongLooks(store)
        self._noticing = Noticing(
            store, config, self._refs, self._long_looks, self._machine.gpus, world.wake
        )
        self._looking_back = LookingBack(
            store, config, self._long_looks, self._refs, self._discretion, self._job_view
        )
        self._looking_into = LookingInto(store, self._refs, world, self._discretion)
        self._groups = Groups(store, self._refs, self._discretion, self._long_looks)
        self._subscriptions = Subscriptions(
            store, world, watchers, self._job_view, self._beside_a_screen
        )
        self.metrics = Metrics(store, config, world, self._long_looks, self._discretion)
        self.host_notes: Callable[[], list[str]] = list  # of what the machine does not let us do
        self.open_spool: Callable[[Peer], Awaitable[str]] = _no_spool
        self._started_at = time.time()
        self._started = time.monotonic()
        self._table: dict[str, Callable[[Mapping[str, Any], Peer], Awaitable[Answer | News]]] = {
            "ping": self.ping,
            "submit": self._submissions.submit,
            "submit_alike": self._submissions.submit_alike,
            "dry_run": self._submissions.dry_run,
            "snapshots": self.snapshots,
            "spool": self.spool,
            "status": self.status,
            "subscribe": self._subscriptions.subscribe,
            "show": self.show,
            "processes": self._looking_into.processes,
            "series": self._looking_into.series,
            "group": self._groups.group,
            "wait": self._waiting.wait,
            "kill": self.kill,
            "consequences": self._consequences.consequences,
            "pause": self.pause,
            "hold": self._changes.hold,
            "priority": self._changes.priority,
            "move": self._changes.move,
            "requeue": self._changes.requeue,
            "undo": self._changes.undo,
            "editable": self._editing.editable,
            "edit": self._editing.edit,
            "drain": self.drain,
            "prunable": self._pruning.prunable,
            "prune": self._pruning.prune,
            "pruning": self._pruning.pruning,
            "explain": self.explain,
            "gpus": self.gpus,
            "drain_gpus": self._gpu_requests.drain,
            "resume_gpus": self._gpu_requests.resume,
            "test_gpus": self._gpu_requests.test,
            "why_gpu": self._gpu_requests.why,
            "gpu_history": self.gpu_history,
            "events": self._telling.events,
            "metrics": self.metrics.metrics,
            "notices": self._noticing.notices,
            "test_notice": self._noticing.test_notice,
            "reserve": self._reserving.reserve,
            "cancel_reservation": self._reserving.cancel,
            "reservations": self._reserving.reservations,
            "limit": self._limit_requests.limit,
            "limits": self._limit_requests.limits,
            "queues": self._limit_requests.queues,
            "history": self._looking_back.history,
            "stats": self._looking_back.stats,
            "errors": self._looking_back.errors,
            "usage": self._looking_back.usage,
            "config": self.config,
            "extract": self.extract,
            "bounds": self.bounds,
            "stop": self.stop,
        }

    async def handle(self, request: Mapping[str, Any], peer: Peer) -> Answer | News:
        do = request.get("do")
        handler = self._table.get(do) if isinstance(do, str) else None
        if handler is None:
            raise UsageError(
                f"this daemon (gpuq {gpuq.__version__}) {protocol.UNKNOWN} {do!r}; "
                "a newer client needs a newer daemon: gpuq daemon restart"
            )
        if do not in LOOKS:
            peer.require_change()
        return await handler(request, peer)

    # ── the daemon ──

    async def ping(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        return {
            "version": gpuq.__version__,
            "installed_version": installed.version(),
            "is_stale": bool(request.get("deep")) and installed.is_changed_since(self._started_at),
            "pid": os.getpid(),
            "mode": self._config.mode,
            "uptime_s": time.monotonic() - self._started,
            "started_at": self._started_at,
            "state_dir": self._config.state_dir,
            "database": self._store.database.path,
            "socket": self._config.socket,
            "gpu_backend": self._config.gpus,
            "gpu_trouble": self._world.gpu_trouble,
            "gpus": None if self._world.gpus is None else len(self._world.gpus),
            "turns": self._world.turns,
            "counts": self._store.counted.for_user(peer.uid),
            "drained": self._drained(),
            "config_notes": self._notes(),
        }

    def _drained(self) -> Answer | None:
        drain = self._store.current.drain()
        return None if drain is None else {"actor": drain.actor, "reason": drain.reason}

    async def config(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        return {
            "settings": [
                {"name": name, "value": value, "origin": origin}
                for name, value, origin in self._config.settings()
            ],
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        return [*self._config.notes(), *self._machine.slips(), *self.host_notes()]

    async def bounds(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Why the kernel does not hold jobs to --mem and --cpus here; null: it does."""
        here = await self._world.enforcement()
        return {"mem_trouble": here.mem_trouble, "cpu_trouble": here.cpu_trouble}

    async def extract(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """What a report of a fault needs of the database: of everybody's jobs, or of the caller's."""
        whose = None if peer.is_admin else peer.uid
        return await self._long_looks.look(peer.uid, lambda db: extract(db, whose))

    async def stop(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        peer.require_admin("stop this daemon")
        back = bool(request.get("restart"))
        self._world.ask_to_stop(f"{peer.user} {'restarts' if back else 'stopped'} it", back=back)
        return {"pid": os.getpid(), "counts": self._store.counted.for_user(peer.uid)}

    async def spool(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Where the caller's job files are to be dropped."""
        return {"path": await self.open_spool(peer)}

    async def snapshots(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Where a user's copies of work trees are to be put."""
        return {"folder": make_folder(self._config.state_dir, peer.uid, peer.gid)}

    # ── wished ──

    def _find_own(
        self, request: Mapping[str, Any], peer: Peer, verb: str, *, to_end: bool = False
    ) -> list[Row]:
        """The jobs that are named, if the caller may change all of them."""
        rows = self._refs.find(fields.named(request), peer, to_end=to_end)
        for row in rows:
            if not peer.may_change(row["uid"]):
                raise NotPermitted(
                    f"job {row['id']} belongs to {row['user']}; "
                    f"only its owner or an admin may {verb} it. Nothing was done."
                )
        return rows

    async def pause(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Running jobs are to stand still, or (`off`) to go on."""
        paused = not request.get("off")
        rows = self._find_own(request, peer, "pause" if paused else "resume")
        with self._store.transaction():
            done = [self._pause(row, paused, peer) for row in rows]
        faults.here("pause.committed")
        self._world.wake()
        return {"jobs": done}

    def _pause(self, row: Row, paused: bool, peer: Peer) -> Answer:
        changed = self._store.wished.pause(
            row["id"], paused=paused, actor=peer.user, now=time.time()
        )
        if changed:
            done = "paused" if paused else "resumed"
        else:
            done = "already" if row["state"] in ("starting", "running") else "not_running"
        return {"id": row["id"], "last_id": row["last_id"], "done": done}

    async def drain(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Start nothing any more, for a reason; or (`off`) go on."""
        peer.require_admin("drain this daemon")
        reason = None if request.get("off") else fields.reason(request)
        changed = self._store.wished.drain(reason, actor=peer.user, now=time.time())
        faults.here("drain.committed")
        self._world.wake()
        return {"changed": changed, "drained": self._drained()} | {
            "counts": self._store.counted.for_user(peer.uid)
        }

    async def kill(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        rows = self._find_own(request, peer, "kill", to_end=True)
        number, grace = request.get("signal"), request.get("grace_s")
        if grace is not None and (not isinstance(grace, int | float) or not 0 <= grace <= 86400):
            raise UsageError(f"grace_s: {grace!r} is no length of time of up to a day")
        with self._store.transaction():
            if number is not None:
                done = [self._send_signal(row, parse_signal(number), peer) for row in rows]
            else:
                now = time.time()  # of all of them the same: one kill, that can be undone as one
                done = [self._stop(row, grace, peer, now) for row in rows]
            kills = self._world.note_kills({one["id"] for one in done if one["done"] == "killing"})
        faults.here("kill.committed")
        self._world.strike(kills)
        if len(kills) < len(done):
            self._world.wake()
        stranded = [] if number is not None else stranded_by(self._store.waiting, done, rows)
        return {"jobs": done, "stranded": stranded}

    def _stop(self, row: Row, grace: float | None, peer: Peer, now: float) -> Answer:
        done, span = done_by_kill(row, grace), (row["id"], row["last_id"])
        if done["done"] == "already_ended":
            return done
        grace_s = float(row["grace_s"] if grace is None else grace)
        if self._store.wished.stop(*span, grace_s=grace_s, actor=peer.user, now=now):
            return done
        return done | {"done": "already_ended", "grace_s": None}

    def _send_signal(self, row: Row, number: int, peer: Peer) -> Answer:
        sent = self._store.wished.signal(row["id"], number, actor=peer.user, now=time.time())
        done = "signalled" if sent else "not_running"
        return {"id": row["id"], "last_id": row["last_id"], "done": done, "grace_s": None}

    def end_everything(self, actor: str) -> None:
        """Wishes every job gone, at once."""
        with self._store.transaction():
            for row in self._store.found.jobs(ended=False):
                run = row["id"], row["last_id"]
                self._store.wished.stop(*run, grace_s=0.0, actor=actor, now=time.time())
        self._world.wake()

    # ── seen ──

    def _discretion(self, peer: Peer) -> Discretion:
        """What this caller may see, by the setting as it is now."""
        return Discretion(
            peer=peer, visibility=self._config.visibility, owner_of=self._store.found.owner
        )

    async def status(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """With `jobs_only` without the counts and the GPUs, for programs that ask for jobs alone."""
        if request.get("after_turn"):
            await self._world.settle()
        jobs, cursor = self._listing.page(request, peer)
        page: Answer = {"jobs": jobs, "before": cursor}
        if request.get("jobs_only"):
            self._world.look_closely()  # what they make of their GPUs is told of each
            return page
        return page | self._beside_the_jobs(peer)

    def _beside_the_jobs(self, peer: Peer) -> Answer:
        counts = self._store.counted.for_user(peer.uid)
        return {"counts": counts, "drained": self._drained()} | self._gpus(peer)

    def _beside_a_screen(self, peer: Peer) -> Answer:
        """With who is looking: keys are off that would do what they may not."""
        you = {
            "user": peer.user,
            "uid": peer.uid,
            "is_admin": peer.is_admin,
            "may_act": peer.may_act,
        }
        return {"you": you, "undo_for_s": float(self._config.undo_for)} | self._beside_the_jobs(
            peer
        )

    def _job_view(self, row: Row, peer: Peer) -> Answer:
        row = self._with_latest_use(self._store.found.with_values(row), row["id"])
        row |= {"needs": self._store.waiting.needs_of(row)} | self._expectations.of(row)
        row |= {"hooks_whole": peer.may_see_secrets_of(row["uid"])}
        # Put together anew each time, and of no matter to a job that does not run.
        machine = self._world.gpus if row["state"] == JobState.RUNNING else None
        sight = self._discretion(peer).sight(row["uid"])
        return views.job_view(
            row, self._world.plan, self._config.state_dir, machine or (), sight=sight
        )

    def _with_latest_use(self, row: Row, job: int) -> Row:
        """With what was measured since it was last written down."""
        use = self._world.gpu_use(job, row["attempt"])
        return row if use is None else row | use_columns(use)

    async def show(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        await self._world.settle()
        row = self._refs.find_last(request.get("ref"), peer)
        row = self._store.found.with_values(row)
        job = self._job_view(row, peer)
        sight = self._discretion(peer).sight(row["uid"])
        job["place"] = self._store.counted.place_in_class(row["id"])
        is_placed = job["place"] is not None
        job["place_of"] = self._store.counted.number_in_class(row["id"]) if is_placed else None
        before = self._store.durations.known_of(row["id"])
        if before is not None and row["time_limit_s"] is None:
            job["ran_before"] = {"longest_s": before.longest_s, "runs": before.runs}
        needed_by = self._store.waiting.waiting_for(range(row["id"], row["id"] + 1))
        job["needed_by"] = format_spans(needed_by) or None
        job["attempts"] = [
            views.attempt_view(
                self._with_latest_use(attempt, row["id"]),
                row,
                self._config.state_dir,
                sight=sight,
            )
            for attempt in self._store.found.attempts(row["id"])
        ]
        variables = views.env_set(self._store.agreed.variables_of(row["id"]))
        job["env_names"] = list(variables) if peer.may_see_secrets_of(row["uid"]) else []
        if request.get("with_env"):
            if not peer.may_see_secrets_of(row["uid"]):
                raise NotPermitted(f"the environment of job {row['id']} is {row['user']}'s alone")
            job["env"] = variables
            job["environment"] = to_text(self._store.agreed.environment_of(row["id"])).split("\0")[
                :-1
            ]
        return {"job": job}

    async def explain(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """What a process of this machine is, whose, and why it may not go away. With `watch_s` also
        whether it comes back once it has ended."""
        pid = fields.pid(request)
        reader = None if peer.is_admin else peer.uid
        explained = await self._looks.do(peer.uid, lambda: investigate.explain(pid, reader=reader))
        if explained is None:
            hides = reader is not None and investigate.hides_processes()
            hint = ", or it is not yours: this machine hides those of others" if hides else ""
            return {
                "sentences": [f"there is no process {pid}{hint}"],
                "found": False,
                "job": None,
            }
        job = self._world.owner_of(pid)
        if job is not None and self._discretion(peer).hides(job):
            told = [f"process {pid} belongs to job {job}, which is another user's to look into"]
            return {"sentences": told, "found": True, "job": job}
        again = None
        if watch_s := fields.timeout_s(request.get("watch_s") or 0.0):
            watched = min(watch_s, LONGEST_WATCH_S)
            again = await self._looks.do(
                peer.uid, lambda: investigate.watch_for_respawn(explained, watched, reader=reader)
            )
        gone = watch_s > 0 and processes.identity(pid) != (pid, explained.start)
        told = sentences(explained, job=job, gone=gone, again=again)
        return {"sentences": told, "found": True, "job": job}

    async def gpus(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        await self._world.first_reading(FIRST_READING_S)
        return self._gpus(peer)

    async def gpu_history(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        return tell_history(request, self._world.gpu_history)

    def _gpus(self, peer: Peer) -> Answer:
        self._world.look_closely()
        return {
            "gpus": self._gpu_requests.views(peer),
            "gpu_origin": self._config.origin("gpus"),
            "gpu_backend": self._config.gpus,
            "gpu_trouble": self._world.gpu_trouble,
        }


async def _no_spool(peer: Peer) -> str:
    raise GpuqError("this daemon takes no files from spool folders")
