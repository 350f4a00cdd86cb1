"""The only SQL in gpuq. What people asked and wish, and what happened, each with its own writer.

A method is a whole transaction or part of one that its caller holds open (`store.transaction()`);
once it returns outside of one, the change has reached the disk. All of it runs on the loop's own
thread: a durable commit takes a fraction of a millisecond, which is less than handing the work to
another thread and back would cost.
"""

from pathlib import Path

from gpuq.daemon.store.asked import Asked
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.happened import Happened
from gpuq.daemon.store.health import Health
from gpuq.daemon.store.learned import Learned
from gpuq.daemon.store.machine import Machine
from gpuq.daemon.store.measured import Measured
from gpuq.daemon.store.pruned import Pruned
from gpuq.daemon.store.seen import Seen
from gpuq.daemon.store.wished import Wished

__all__ = ["Store"]


class Store:
    """The open database. `asked` and `wished` are the handlers' to write, `happened`, `machine`,
    `health`, `measured`, `learned` and `pruned` the loop's."""

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
        self.seen = Seen(self.database)
        self.transaction = self.database.transaction

    def close(self) -> None:
        self.database.close()
