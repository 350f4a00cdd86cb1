"""python -m gpuq.daemon.notices.deliver: delivers one notice, as the order on its stdin says.

It marks that it begins before it does anything, and writes what came of it into the mark. In between
it becomes the user as whom it is to be done. It outlives the daemon, and is done after a while in any
case. Standard library only, until an address of Apprise is at hand.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from gpuq.core.asked.hooks import HIDDEN, shown_hook
from gpuq.daemon import faults
from gpuq.daemon.attempt import identity, login
from gpuq.daemon.linux import processes
from gpuq.daemon.notices import bounded, by_apprise, mark

MOST_OUTPUT = 4096
MOST_DESCRIPTORS = 65536
NOT_BEGUN = 3  # exit code: somebody else did
# What a command may need to reach the desktop that the daemon was started from, and the network.
OF_A_SESSION = (
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"),
    *(
        "LANG",
        "TZ",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ),
)

Order = Mapping[str, Any]

_PARTS = re.compile(r"[/?&=:;,@#]")  # between the parts of an address


def main() -> int:
    order = json.load(sys.stdin.buffer)
    faults.arm(os.environ)
    faults.here("deliver.beginning")
    pid, start = processes.identity(os.getpid()) or (os.getpid(), 0)
    held = mark.make(order["mark"], pid, start)
    if held is None:
        return NOT_BEGUN
    faults.here("deliver.begun")
    result = _carry_out(order)
    faults.here("deliver.done")
    mark.finish(held, result)
    faults.here("deliver.told")
    return 0


def _carry_out(order: Order) -> Mapping[str, Any]:
    """What came of it: `trouble` in words, or None where it is done, and the `output`."""
    if order["kind"] == "apprise" and not by_apprise.is_there():
        return {"trouble": by_apprise.NOT_THERE, "output": ""}
    try:
        environment = _become(order)
    except (OSError, ValueError) as error:
        return {"trouble": f"it could not be done as uid {order['uid']}: {error}", "output": ""}
    work: Callable[[], int] = {
        "command": lambda: _command(order["target"], environment),
        "webhook": lambda: _webhook(order),
        "apprise": lambda: _apprise(order),
    }[order["kind"]]
    body = json.dumps(order["payload"]).encode()
    ran = bounded.run(work, stdin=body, within_s=order["within_s"], most_bytes=MOST_OUTPUT)
    output = ran.output
    if order["kind"] != "command":
        output = _without_secrets(output, order["target"])
    return {"trouble": _trouble(order, ran, output), "output": output}


def _become(order: Order) -> dict[str, str]:
    """Becomes the user of a root daemon, and goes home. Returns the environment that a command gets:
    none of the daemon's own, but for what leads to a user's own desktop."""
    if order["uid"] is None:
        kept = {name: os.environ[name] for name in OF_A_SESSION if name in os.environ}
        names = ("PATH", "HOME", "USER", "LOGNAME", "SHELL")
        has = {name: os.environ[name] for name in names if name in os.environ} | kept
    else:
        user = identity.look_up(order["uid"], order["gid"])
        login.reset_oom_score()
        identity.become(user)
        has = {os.fsdecode(name): os.fsdecode(value) for name, value in user.login.items()}
    variables: dict[str, str] = order["variables"]
    usual = {"PATH": login.LOGIN_PATH, "LANG": "C.UTF-8", "HOME": "/", "SHELL": "/bin/sh"}
    usual["CUDA_VISIBLE_DEVICES"] = ""  # the GPUs are for jobs
    login.set_usual_limits()
    login.enter(has.get("HOME", "/"))
    return usual | has | variables


def _command(text: str, environment: Mapping[str, str]) -> int:
    os.closerange(3, MOST_DESCRIPTORS)  # of whoever started the daemon
    os.execve("/bin/sh", ["sh", "-c", text], environment)


def _webhook(order: Order) -> int:
    from gpuq.daemon.notices import webhook

    try:
        print(webhook.post(order["target"], json.dumps(order["payload"]).encode(), order["key"]))
    except webhook.Refused as refusal:
        print(refusal, refusal.said, sep="\n")
        return 1
    except (OSError, ValueError) as error:
        print(f"it could not be reached: {getattr(error, 'reason', None) or error}")
        return 1
    return 0


def _apprise(order: Order) -> int:
    payload = order["payload"]
    try:
        by_apprise.send(order["target"], payload["title"], payload["text"], order["mood"])
    except (OSError, ValueError) as error:
        print(error)
        return 1
    print("delivered by Apprise")
    return 0


def _trouble(order: Order, ran: bounded.Ran, output: str) -> str | None:
    if ran.code is None:
        return f"it was not done within {order['within_s']:g} s, and was ended"
    if ran.code == 0:
        return None
    if order["kind"] != "command" and (said := output.partition("\n")[0].strip()):
        return said[:200]
    return f"exit code {ran.code}" if ran.code > 0 else f"killed by signal {-ran.code}"


def _without_secrets(said: str, address: str) -> str:
    """Errors like to quote the address, and an address may hold a token."""
    rest, shown = address.partition("://")[2], shown_hook(address)
    for part in sorted({address, rest, *_PARTS.split(rest)}, key=len, reverse=True):
        if len(part) > 3 and part not in shown:
            said = said.replace(part, HIDDEN)
    return said


if __name__ == "__main__":
    sys.exit(main())
