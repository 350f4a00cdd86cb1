"""The settings in force: values with their origins, taken over in place when the file changes.

Where they come from is not known here: who finds them gives a way to find them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpuq.config import table
from gpuq.config.forms import NOTHING
from gpuq.config.queues import queue_rows
from gpuq.core.policy import OverMemory, Policy


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that has another value, both as people write them, and where the new one stands."""

    name: str
    before: str
    after: str
    origin: str


class Config:
    """All settings as values with origins; `config.state_dir` and its like are the values alone.

    A daemon has one for life: what a changed file says is taken over in place, so that whoever holds
    it goes by that at once. `fault` is why the file as it stands is not in force, `pending` is what
    it says that takes a restart.
    """

    def __init__(self, values: Mapping[str, Value], load_again: Callable[[], "Config"]) -> None:
        self._values = dict(values)
        self._load_again = load_again
        self._policy: Policy | None = None
        self.fault: str | None = None
        self.pending: tuple[Change, ...] = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name].value
        except KeyError:
            raise AttributeError(name) from None

    def settings(self) -> list[tuple[str, str, str]]:
        """(name, value as people write it, origin), in the order of the table, named queues last."""
        settings = [
            (setting.name, setting.shown(self._values[setting.name].value), origin)
            for setting in table.SETTINGS
            for origin in [self._values[setting.name].origin]
        ]
        queues = self._values["queues"]
        return settings + [(*row, queues.origin) for row in queue_rows(queues.value).items()]

    def origin(self, name: str) -> str:
        return self._values[name].origin

    def having(self, name: str, value: Any, origin: str) -> "Config":
        """The same with another value in one place."""
        return Config(self._values | {name: Value(value, origin)}, self._load_again)

    def read_again(self) -> "Config":
        """What a daemon that is started now in the same way would go by. UsageError as from `load`."""
        return self._load_again()

    def take_over(self, other: "Config") -> list[Change]:
        """From now on goes by the values of `other`, but for what takes a restart. Returns what has
        changed; in `pending` stands what has not, though the file wants it."""
        changed, pending = [], []
        for setting in table.SETTINGS:
            ours, theirs = self._values[setting.name], other._values[setting.name]
            change = Change(
                name=setting.name,
                before=setting.shown(ours.value),
                after=setting.shown(theirs.value),
                origin=theirs.origin,
            )
            if not setting.at_start:
                self._values[setting.name] = theirs
                changed += [change] if theirs.value != ours.value else []
            # Flags and variables stay as they are for life, and what follows from another setting
            # or was kept from the last start is nobody's wish: only the file can want a change.
            elif theirs.value != ours.value and self.config in (ours.origin, theirs.origin):
                pending.append(change)
        changed += self._take_over_queues(other)
        self._policy, self.fault, self.pending = None, None, tuple(pending)
        return changed

    def _take_over_queues(self, other: "Config") -> list[Change]:
        ours, theirs = self._values["queues"], other._values["queues"]
        self._values["queues"] = theirs
        before, after = queue_rows(ours.value), queue_rows(theirs.value)
        return [
            Change(
                name=name,
                before=before.get(name, NOTHING),
                after=after.get(name, NOTHING),
                origin=theirs.origin,
            )
            for name in before | after
            if before.get(name) != after.get(name)
        ]

    def notes(self) -> list[str]:
        """What keeps the file as it stands from being in force, in sentences."""
        notes = []
        if self.fault is not None:
            stays = "the settings before stay in force"
            notes.append(f"the file was changed and cannot be read: {self.fault}; {stays}")
        if self.pending:
            wants = ", ".join(map(self._wish_words, self.pending))
            notes.append(f"restart needed: {wants}: gpuq daemon restart")
        return notes

    def _wish_words(self, change: Change) -> str:
        says = "the file says" if change.origin == self.config else "no longer in the file:"
        return f"{change.name} (now {change.before}, {says} {change.after})"

    def policy(self) -> Policy:
        """The settings that the scheduler goes by, as they are now."""
        if self._policy is None:
            self._policy = self._make_policy()
        return self._policy

    def _make_policy(self) -> Policy:
        return Policy(
            cpu_slots=self.cpu_slots,
            max_jobs_per_gpu=self.max_jobs_per_gpu,
            max_bypass=self.max_bypass,
            headroom_bytes=self.headroom,
            unkillable_s=self.unkillable_after,
            preempt_signal=self.preempt_signal,
            preempt_after_s=self.preempt_after,
            unknown_job_s=self.unknown_job_time,
            idle_memory_bytes=self.idle_memory,
            idle_utilization_percent=self.idle_utilization,
            calm_samples=self.calm_samples,
            calm_s=self.calm_for,
            cooling_s=self.cooling,
            settle_s=self.settle,
            allow_gpus=self.allow_gpus,
            deny_gpus=self.deny_gpus,
            gpu_order=self.gpu_order,
            reserve_idle=self.reserve_idle,
            reserve_hours=self.reserve_hours,
            ignore_processes=self.ignore_processes,
            ignore_users=self.ignore_users,
            over_memory=OverMemory(self.enforce_gpu_memory),
            idle_job_s=self.idle_after,
            idle_job_percent=self.idle_percent,
            fast_failures=self.fast_failures,
            fast_failure_s=self.fast_failure_within,
            strict_health=self.strict_health,
            max_running_per_user=self.max_running_per_user or None,
            max_gpus_per_user=self.max_gpus_per_user or None,
            queues=self.queues,
            start_rate=self.start_rate,
            fair_share=self.fair_share,
            fair_share_half_life_s=self.fair_share_half_life,
        )
