"""What is looked at: this machine, this installation, and the daemon that is meant."""

import os
import time
from collections.abc import Mapping

from gpuq import paths
from gpuq.cli.doctor.asking import Asking, Told
from gpuq.client import Client
from gpuq.locate import Address

ASK_S, ASK_DEEP_S = 2.0, 20.0


class Scene:
    """`root` is where the files of this machine are found: "/" but for tests."""

    def __init__(
        self, client: Client, environ: Mapping[str, str], *, deep: bool = False, root: str = "/"
    ) -> None:
        self.address: Address = client.address
        self.environ = environ
        self.deep = deep
        self._root = root
        self._until = time.monotonic() + (ASK_DEEP_S if deep else ASK_S)
        self._asking = Asking(client)

    def at(self, path: str) -> str:
        """A file of this machine, like /proc/self/limits."""
        return path if self._root == "/" else self._root + path

    def told(self) -> Told:
        """What the daemon says; waits for it as long as it is given."""
        return self._asking.told(self._until - time.monotonic())

    @property
    def is_system(self) -> bool:
        """Is it the machine's daemon that is meant?"""
        there = self.told().ping
        if there is not None:
            return bool(there["mode"] == "system")
        return self.address.socket == paths.SYSTEM_SOCKET

    @property
    def state_dir(self) -> str | None:
        """Where the daemon keeps its things; None where only it could say."""
        there = self.told().ping
        if there is not None:
            return str(there["state_dir"])
        if self.address.state_dir is None and self.is_system:
            return paths.SYSTEM_STATE_DIR
        return self.address.state_dir

    def read(self, path: str) -> str | None:
        """A small file of this machine; None where it cannot be read."""
        try:
            with open(self.at(path), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return None


def nearest_folder(path: str) -> str:
    """Itself, or what there is of the folders above it."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
