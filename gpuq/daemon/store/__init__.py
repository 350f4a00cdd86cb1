"""The only SQL in gpuq. What people asked and wish, and what happened, each with its own writer.

A method is a whole transaction or part of one that its caller holds open (`store.transaction()`);
once it returns outside of one, the change has reached the disk. All of it runs on the loop's own
thread: a durable commit takes a fraction of a millisecond, which is less than handing the work to
another thread and back would cost.
"""

from pathlib import Path

from gpuq.daemon.store.agreed import Agreed
from gpuq.daemon.store.asked import Asked
from gpuq.daemon.store.awaited import Waiting
from gpuq.daemon.store.changed import Changed
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.counted import Counted
from gpuq.daemon.store.current import Current
from gpuq.daemon.store.durations import Durations
from gpuq.daemon.store.falling import Falling
from gpuq.daemon.store.found import Found
from gpuq.daemon.store.giving_up import GivingUp
from gpuq.daemon.store.giving_way import GivingWay
from gpuq.daemon.store.grouped import Grouped
from gpuq.daemon.store.happened import Happened
from gpuq.daemon.store.health import Health
from gpuq.daemon.store.inherited import Inherited
from gpuq.daemon.store.learned import Learned
from gpuq.daemon.store.limited import Limited
from gpuq.daemon.store.machine import Machine
from gpuq.daemon.store.measured import Measured
from gpuq.daemon.store.needs import Needs
from gpuq.daemon.store.notices import Notices
from gpuq.daemon.store.pruned import Pruned
from gpuq.daemon.store.reported import Reported
from gpuq.daemon.store.reserved import Reserved
from gpuq.daemon.store.returned import Returned
from gpuq.daemon.store.series import SeriesRows
from gpuq.daemon.store.shares import Shares
from gpuq.daemon.store.snapshots import Snapshots
from gpuq.daemon.store.tallies import Tallies
from gpuq.daemon.store.told import Told
from gpuq.daemon.store.wished import Wished

__all__ = ["Store"]


class Store:
    """The open database. `asked`, `wished`, `changed` and `limited` are the handlers' to write,
    `happened`, `falling`, `giving_up`, `machine`, `durations`, `health`, `measured`, `learned`,
    `needs`, `notices`, `pruned`, `returned`, `series` and `shares` the loop's; the others only read."""

    def __init__(self, path: Path | str) -> None:
        """Opens, creates or migrates the file; StoreRefused names what is wrong with it."""
        self.database = Database(path)
        self.asked = Asked(self.database)
        self.wished = Wished(self.database)
        self.changed = Changed(self.database)
        self.limited = Limited(self.database)
        self.happened = Happened(self.database)
        self.machine = Machine(self.database)
        self.measured = Measured(self.database)
        self.reported = Reported(self.database)
        self.series = SeriesRows(self.database)
        self.learned = Learned(self.database)
        self.durations = Durations(self.database)
        self.health = Health(self.database)
        self.needs = Needs(self.database)
        self.notices = Notices(self.database)
        self.waiting = Waiting(self.database)
        self.pruned = Pruned(self.database)
        self.shares = Shares(self.database)
        self.returned = Returned(self.database)
        self.falling = Falling(self.database)
        self.giving_way = GivingWay(self.database)
        self.giving_up = GivingUp(self.database, self.happened)
        self.reserved = Reserved(self.database)
        self.current = Current(self.database)
        self.counted = Counted(self.database)
        self.agreed = Agreed(self.database)
        self.inherited = Inherited(self.database)
        self.found = Found(self.database)
        self.grouped = Grouped(self.database, self.found)
        self.told = Told(self.database)
        self.tallies = Tallies(self.database)
        self.snapshots = Snapshots(self.database)
        self.transaction = self.database.transaction
        self.part = self.database.part

    def close(self) -> None:
        self.database.close()
