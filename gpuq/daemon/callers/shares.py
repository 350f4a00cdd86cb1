"""What the connections of one user may take of the daemon: their number, and the bytes that wait in
its memory, to be read as lines, to be answered or to be taken by the client.

Who takes too much loses the connection that did it; nobody else's is touched.
"""

import resource
from collections import Counter

MOST_CONNECTIONS = 4096  # of one user, where the limit of descriptors leaves room for the jobs
MOST_BYTES = 64 * 2**20  # of one user
MOST_BYTES_OF_ALL = 512 * 2**20  # whoever may map uids of a container is many users
MIB = 2**20


class Shares:
    """Counts by uid. What one connection holds is said anew whenever it changes."""

    def __init__(self) -> None:
        self._connections: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()
        self._all_bytes = 0

    def admit(self, uid: int) -> str | None:
        """One more connection; or a sentence on why not, and it is not counted."""
        same, descriptors = self._connections[uid], _descriptors()
        if same >= min(MOST_CONNECTIONS, descriptors // 2):
            return f"you have {same} connections open already; close some first"
        if uid != 0 and self._connections.total() >= descriptors * 3 // 4:
            return "all users together have too many connections open; try again in a moment"
        self._connections[uid] += 1
        return None

    def leave(self, uid: int) -> None:
        self._take(self._connections, uid, -1)

    def hold(self, uid: int, change: int) -> None:
        """A connection of that user holds so many bytes more, or less."""
        self._take(self._bytes, uid, change)
        self._all_bytes += change

    def trouble(self, uid: int, more: int = 0) -> str | None:
        """Why that user may not hold so many bytes more than now."""
        if self._bytes[uid] + more > MOST_BYTES:
            what = f"you have more than {MOST_BYTES // MIB} MiB waiting in the daemon's memory"
            return f"{what}: send less at once, and read the answers. The connection was closed"
        if uid != 0 and self._all_bytes + more > MOST_BYTES_OF_ALL:
            what = f"all users together have more than {MOST_BYTES_OF_ALL // MIB} MiB waiting"
            return (
                f"{what} in the daemon's memory: try again in a moment. The connection was closed"
            )
        return None

    def _take(self, counts: Counter[int], uid: int, change: int) -> None:
        counts[uid] += change
        if not counts[uid]:
            del counts[uid]


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
