"""`gpuq daemon start`, `stop` and `restart` where the daemon is a service of systemd."""

import os
from typing import Any

from gpuq import service
from gpuq.cli import console
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.errors import DaemonUnreachable, UsageError
from gpuq.locate import Address
from gpuq.service import Service


def start(kept: Service, client: Client, gpus: str | None) -> None:
    _check_no_gpus(gpus)
    there = who_answers(client) if _may_answer(kept, client.address) else None
    if there is not None:
        console.say(f"it runs already (pid {there['pid']}{keeper(there)})")
        return
    kept.start()
    there = client.call("ping")
    console.say(f"started the daemon (pid {there['pid']}{keeper(there)})")


def _may_answer(kept: Service, address: Address) -> bool:
    """Asking where nobody is costs a long wait for the machine's daemon, and where only the socket is
    there it is what starts one."""
    return kept.is_active() or (not kept.is_system and os.path.exists(address.socket))


def _check_no_gpus(gpus: str | None) -> None:
    if gpus is not None:
        raise UsageError(
            f"--gpus {gpus}: this daemon is a service, which is started without flags. Write it to "
            f'the file that `gpuq config` names: gpus = "{gpus}"; then: gpuq daemon restart'
        )


def keeper(there: dict[str, Any]) -> str:
    return f", kept by systemd as {service.SERVICE}" if service.keeps(there["pid"]) else ""


def stop(kept: Service, client: Client) -> None:
    """Where the socket alone is there, a question would start a daemon only to stop it."""
    there = who_answers(client) if kept.is_active() else None
    kept.stop(lambda: _ask_to_leave(client, restart=False) if there else None)
    units = f"{service.SOCKET} and {service.SERVICE}"
    console.say(f"stopped {units}{goes_on(there['counts']['running'] if there else 0)}")


def _ask_to_leave(client: Client, *, restart: bool) -> int | None:
    try:
        return int(client.call("stop", restart=restart)["pid"])
    except DaemonUnreachable:
        return None


def restart(kept: Service, client: Client, gpus: str | None) -> None:
    """Also where a daemon started otherwise stands in the place of a user's own service."""
    _check_no_gpus(gpus)
    there = who_answers(client) if _may_answer(kept, client.address) else None
    kept.restart(lambda: _ask_to_leave(client, restart=True) if there else None)
    there = client.call("ping")
    jobs = goes_on(there["counts"]["running"])
    console.say(f"restarted the daemon (pid {there['pid']}{keeper(there)}){jobs}")


def goes_on(running: int) -> str:
    if not running:
        return ""
    return f"; {count(running, 'job')} {'keeps' if running == 1 else 'keep'} running"


def who_answers(client: Client) -> dict[str, Any] | None:
    try:
        return client.call("ping")
    except DaemonUnreachable:
        return None
