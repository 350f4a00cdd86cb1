"""Who had which GPUs for how long, what they made of them, and what energy that took.

A lease counts from the start of an attempt until its end. Where several hold a GPU at a time, each
moment is divided among them evenly: all that is told of one GPU is never more than the time that
passed. How busy an attempt kept its GPUs is known as one mean of all of them over all of its time, so a
part of that time is taken to have been like the rest.
"""

from dataclasses import dataclass
from typing import Literal

from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.reading import Readable

By = Literal["user", "group", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Seconds are GPU-seconds. `held_s` counts a GPU whole for each who shared it, `leased_s` divides
    it among them; that is `busy_s`, `idle_s` (what stood still because somebody paused it, too) and
    what nobody measured. None: nothing is known of it."""

    key: str | int | None  # a uid, a group, the uuid of a GPU; None: of those who are not told of
    name: str | None  # the user's, the group's
    attempts: int
    held_s: float
    leased_s: float
    busy_s: float | None
    idle_s: float | None
    energy_j: float | None
    simulated_s: float = 0.0  # of `leased_s`, on GPUs that are simulated

    @property
    def unmeasured_s(self) -> float:
        return max(self.leased_s - (self.busy_s or 0.0) - (self.idle_s or 0.0), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Those with the most hours, how many there are in all, and all of them together."""

    rows: list[Account]
    number: int
    total: Account


def accounts(
    db: Readable, by: By, *, since: float, now: float, whose: int | None, limit: int
) -> Accounts:
    """What was had between the two moments. Of the groups those are told apart that belong to the uid
    `whose`, or all where that is None; the others come as one."""
    sql = _ACCOUNTS.format(**_KEYS[by])
    rows = db.rows(sql, {"since": since, "now": now, "whose": whose, "limit": limit})
    if not rows:
        return Accounts(rows=[], number=0, total=NOTHING)
    return Accounts(
        rows=[_account(row) for row in rows], number=rows[0]["number"], total=_total(rows[0])
    )


def known_gpus(db: Readable) -> list[Row]:
    """Every GPU that this machine has shown, by index."""
    return db.rows("select * from gpus order by idx, uuid")


def _account(row: Row) -> Account:
    is_measured = row["measured"] > 0
    return Account(
        key=row["key"],
        name=row["name"],
        attempts=row["attempts"],
        held_s=row["held_s"],
        leased_s=row["leased_s"],
        busy_s=row["busy_s"] if is_measured else None,
        idle_s=row["idle_s"] if is_measured or row["idle_s"] else None,
        energy_j=row["energy_j"],
        simulated_s=row["simulated_s"],
    )


def _total(row: Row) -> Account:
    of_all = {name.removeprefix("all_"): row[name] for name in row if name.startswith("all_")}
    return _account({"key": None, "name": None} | of_all)


NOTHING = Account(
    key=None, name=None, attempts=0, held_s=0, leased_s=0, busy_s=None, idle_s=None, energy_j=None
)

_KEYS = {
    "user": {"key": "t.uid", "name": "t.user", "counts": "g.key = 0"},
    "group": {
        "key": "iif(:whose is null or t.uid = :whose, t.group_id, null)",
        "name": "iif(:whose is null or t.uid = :whose, t.name, null)",
        "counts": "g.key = 0",
    },
    "gpu": {"key": "g.value", "name": "null", "counts": "1"},
}

# An attempt has ended since then only if its job has, or has not ended at all. One that stands still
# has done so since paused_mono, and after its end that is where it did until then.
#
# Most have their GPU alone, and their part is all of the time. For the others `turn` is a clock of each
# GPU that goes the slower the more hold it: what it shows at the end of a lease less what it shows at
# its beginning is the part that the lease had.
_ACCOUNTS = """
with tries as (
  select s.uid, s.user, s.name, j.group_id, a.job, a.attempt, a.gpus,
         max(a.started_at, :since) as first,
         max(min(coalesce(a.ended_at, :now), :now), a.started_at, :since) as last,
         max(coalesce(a.ended_at, :now) - a.started_at, 1e-6) as whole_s,
         a.paused_s + coalesce(max(coalesce(a.ended_at, :now) - a.started_at
                                   - (a.paused_mono - a.started_mono), 0), 0) as still_s,
         a.gpu_measured_s, a.gpu_util_mean / 100.0 as busy, a.gpu_energy_j
  from (
    select id from jobs indexed by jobs_ended where state = 'ended' and ended_at >= :since
    union all
    select id from jobs indexed by jobs_unended where state <> 'ended' and attempt > 0
  ) u
  join jobs j on j.id = u.id join specs s on s.id = j.spec join attempts a on a.job = j.id
  where a.started_at <= :now and coalesce(a.ended_at, :now) > :since
),
judged as (
  select *, min(still_s / whole_s, 1) as still_part,
         min(gpu_measured_s / whole_s, 1 - min(still_s / whole_s, 1)) as measured_part,
         gpu_energy_j * (last - first) / whole_s / json_array_length(gpus, '$.uuids') as energy_j,
         coalesce(gpus ->> '$.simulated', 0) as simulated
  from tries
),
held as (
  select {key} as key, {name} as name, {counts} as counts, g.key = 0 as is_first,
         g.value as gpu, t.job, t.attempt, t.first, t.last, t.last - t.first as held_s, t.energy_j,
         t.simulated,
         t.measured_part * t.busy as busy_part,
         t.still_part + coalesce(t.measured_part * (1 - t.busy), 0) as idle_part
  from judged t, json_each(t.gpus, '$.uuids') g
),
beside as materialized (
  select *, coalesce(max(last) over before <= first, true)
            and coalesce(lead(first) over before >= last, true) as is_alone
  from held
  window before as (partition by gpu order by first, job, attempt
                    rows between unbounded preceding and 1 preceding)
),
moves as (
  select *, first as at, 1 as step from beside where not is_alone
  union all
  select *, last, -1 from beside where not is_alone
),
shared as (
  select *, sum(step) over (moved rows between unbounded preceding and current row) as holders,
         coalesce(lead(at) over moved - at, 0) as seconds
  from moves window moved as (partition by gpu order by at, step, job, attempt)
),
turned as (
  select *, coalesce(sum(iif(holders > 0, seconds / holders, 0)) over (
              partition by gpu order by at, step, job, attempt
              rows between unbounded preceding and 1 preceding), 0) as turn
  from shared
),
parts as (
  select key, name, counts, is_first, held_s, energy_j, busy_part, idle_part, simulated,
         held_s as leased_s
  from beside where is_alone
  union all
  select key, name, counts and step = 1, is_first and step = 1, iif(step = 1, held_s, 0),
         iif(step = 1, energy_j, null), busy_part, idle_part, simulated,
         -step * turn
  from turned
),
told as (
  select key, max(name) as name, sum(counts) as attempts, sum(is_first) as first_gpus,
         sum(held_s) as held_s, sum(leased_s) as leased_s, sum(leased_s * busy_part) as busy_s,
         sum(leased_s * idle_part) as idle_s, sum(energy_j) as energy_j,
         sum(leased_s * simulated) as simulated_s,
         count(busy_part) as measured
  from parts group by key
)
select *, count(*) over () as number, sum(first_gpus) over () as all_attempts,
       sum(held_s) over () as all_held_s, sum(leased_s) over () as all_leased_s,
       sum(busy_s) over () as all_busy_s, sum(idle_s) over () as all_idle_s,
       sum(energy_j) over () as all_energy_j, sum(simulated_s) over () as all_simulated_s,
       sum(measured) over () as all_measured
from told order by leased_s desc, name, key limit :limit
"""
