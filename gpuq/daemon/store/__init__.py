"""The only SQL in gpuq. What people asked and wish, and what happened, each with its own writer.

A method is a whole transaction or part of one that its caller holds open (`store.transaction()`);
once it returns outside of one, the change has reached the disk. All of it runs on the loop's own
thread: a durable commit takes a fraction of a millisecond, which is less than handing the work to
another thread and back would cost.
"""

from pathlib import Path

from gpuq.daemon.store.agreed import Agreed
from gpuq.daemon.store.asked import Asked
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.counted import Counted
from gpuq.daemon.store.current import Current
from gpuq.daemon.store.found import Found
from gpuq.daemon.store.happened import Happened
from gpuq.daemon.store.health import Health
from gpuq.daemon.store.inherited import Inherited
from gpuq.daemon.store.learned import Learned
from gpuq.daemon.store.machine import Machine
from gpuq.daemon.store.measured import Measured
from gpuq.daemon.store.pruned import Pruned
from gpuq.daemon.store.told import Told
from gpuq.daemon.store.wished import Wished

__all__ = ["Store"]


class Store:
    """The open database. `asked` and `wished` are the handlers' to write, `happened`, `machine`,
    `health`, `measured`, `learned` and `pruned` the loop's; the others only read."""

    def __init__(self, path: Path | str) -> None:
        """Opens, creates or migrates the file; StoreRefused names what is wrong with it."""
        self.database = Database(path)
        self.asked = Asked(self.database)
        self.wished = Wished(self.database)
        self.happened = Happened(self.database)
        self.machine = Machine(self.database)
        self.measured = Measured(self.database)
        self.learned = Learned(self.database)
        self.health = Health(self.database)
        self.pruned = Pruned(self.database)
        self.current = Current(self.database)
        self.counted = Counted(self.database)
        self.agreed = Agreed(self.database)
        self.inherited = Inherited(self.database)
        self.found = Found(self.database)
        self.told = Told(self.database)
        self.transaction = self.database.transaction

    def close(self) -> None:
        self.database.close()
