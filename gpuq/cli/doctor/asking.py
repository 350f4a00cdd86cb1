"""What the daemon says of itself, asked once and in a thread: one that hangs keeps nobody waiting."""

from typing import Any

from gpuq.cli.doctor.bounded import Look
from gpuq.client import Client
from gpuq.errors import GpuqError

MOST_JOBS = 1000
Answer = dict[str, Any]


class Told:
    """Its answers as they come; None is what it has not answered, or is too old to know. `error` is why
    it answers nothing."""

    def __init__(self) -> None:
        self.ping: Answer | None = None
        self.gpus: Answer | None = None
        self.bounds: Answer | None = None
        self.settings: list[Answer] | None = None
        self.running: list[Answer] | None = None
        self.error: GpuqError | None = None

    @property
    def is_silent(self) -> bool:
        """Neither an answer nor a refusal."""
        return self.ping is None and self.error is None

    def setting(self, name: str) -> str | None:
        """A setting in force, as people write it."""
        return next((one["value"] for one in self.settings or () if one["name"] == name), None)


class Asking:
    """Asks from now on, in the order of what matters most."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._told = Told()
        self._look = Look(self._ask)

    def told(self, within_s: float) -> Told:
        """What it has said by then."""
        self._look.is_over(within_s)
        if isinstance(self._look.fault, GpuqError):
            self._told.error = self._look.fault
        return self._told

    def _ask(self) -> None:
        self._told.ping = self._client.call("ping", deep=True)
        self._told.gpus = self._answer("gpus")
        self._told.bounds = self._answer("bounds")
        settings = self._answer("config")
        self._told.settings = None if settings is None else settings["settings"]
        running = self._answer(
            "status", active=True, states=["starting", "running"], limit=MOST_JOBS
        )
        self._told.running = None if running is None else running["jobs"]

    def _answer(self, do: str, **arguments: Any) -> Answer | None:
        try:
            return self._client.call(do, **arguments)
        except GpuqError:
            return None
