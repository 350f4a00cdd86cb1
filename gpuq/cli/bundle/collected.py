"""The parts of a bundle, each a name and a text; what cannot be had says why in its place."""

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gpuq
from gpuq import paths, service
from gpuq.cli.bundle.folding import LEFT_OUT, Folding
from gpuq.cli.doctor.bounded import Look, run
from gpuq.cli.doctor.look_over import as_json, look_over
from gpuq.client import Client

ANSWER_S, TOOL_S, EXTRACT_S = 10.0, 5.0, 30.0
HOOKS = ("on_start", "on_end", "on_gpu_problem", "on_kill")  # settings
LOG_BYTES = 256 * 1024
JOURNAL_LINES = 1000
PACKAGES = ("typer", "apsw", "psutil", "nvidia-ml-py", "watchfiles", "structlog", "dbus-fast")
OF_GPU = """
index uuid model simulated state reason memory_total_bytes memory_used_bytes memory_reserved_bytes
utilization_percent temperature_c power_w power_limit_w is_available jobs exclusive warnings
quarantine test
"""
# Lines of nvidia-smi -q that name programs, and this machine's own hardware.
_NAMES_OF_SMI = re.compile(r"^\s*(Name|Process ID|Serial Number|Board ID|Host\w*)\s*:")
_ENVIRONMENT = re.compile(r"^\s*(\w*Environment\w*|\w*Credential\w*)\s*=")

Part = tuple[str, str]


class Collected:
    """What there is to tell; `parts` asks for one after the other."""

    def __init__(self, client: Client, environ: Mapping[str, str]) -> None:
        self._client = client
        self._environ = environ
        self._folding = Folding(environ, _names(environ))
        self._found = look_over(client, environ)
        self._answers = any(name == "gpus" for name, _ in self._found)
        self._state_dir = self._find_state_dir()

    def parts(self) -> Iterator[Part]:
        yield "doctor.json", self._doctor()
        yield "versions.json", _json(_versions())
        yield "daemon.json", self._asked("ping", _without_notes)
        yield "settings.json", self._asked("config", self._settings)
        yield "gpus.json", self._asked("gpus", _gpus)
        yield "database.json", self._database()
        yield from self._units()
        yield "daemon.log", self._log()
        yield "journal.txt", self._journal()
        yield "kernel.txt", self._kernel()
        yield "nvidia-smi.txt", self._nvidia_smi()

    def _find_state_dir(self) -> str | None:
        """As the daemon says; None where only it could."""
        answer, _ = self._answer("ping")
        address = self._client.address
        if answer is None and address.state_dir is None and address.socket == paths.SYSTEM_SOCKET:
            return paths.SYSTEM_STATE_DIR
        return address.state_dir if answer is None else str(answer["state_dir"])

    def _doctor(self) -> str:
        return _json(self._folding.value(as_json(self._found)))

    def _asked(self, do: str, chosen: Callable[[Any], Any]) -> str:
        """What the daemon answers, or why it does not."""
        answer, trouble = self._answer(do)
        if answer is None:
            return _json({"trouble": self._folding.text(trouble)})
        return _json(self._folding.value(chosen(answer)))

    def _answer(self, do: str) -> tuple[Any, str]:
        if not self._answers:
            return None, "no daemon answers"
        look = Look(lambda: self._client.call(do))
        if not look.is_over(ANSWER_S):
            self._answers = False
            return None, "the daemon did not answer in time"
        return look.found, str(look.fault)

    def _settings(self, answer: Any) -> Any:
        return [
            {"name": one["name"], "value": _value(one), "origin": one["origin"]}
            for one in answer["settings"]
        ]

    # ── the database ──

    def _database(self) -> str:
        """By the daemon, or read beside it with one's own rights."""
        answer, trouble = self._answer("extract")
        if answer is None and self._state_dir is not None:
            command = [sys.executable, "-P", "-m", "gpuq.daemon.extracting", self._state_dir]
            ran = run(command, EXTRACT_S)
            trouble = f"{trouble}; {ran.last_words}"
            answer = json.loads(ran.out) if ran.code == 0 else None
        if answer is None:
            return _json({"trouble": self._folding.text(trouble)})
        return _json(self._folding.value(answer))

    # ── files ──

    def _units(self) -> Iterator[Part]:
        own = service.user_units(self._environ)
        places = [*paths.SYSTEM_UNITS, os.path.join(own, service.SERVICE)]
        found = [path for place in places for path in _with_drop_ins(place)]
        for number, path in enumerate(found, start=1):
            where = f"# {self._folding.text(path)}\n"
            yield f"units/{number}.txt", where + self._unit(path)

    def _unit(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read().replace("\\\n", " ")
        except OSError as error:
            return f"it cannot be read: {error.strerror}\n"
        lines = []
        for line in text.splitlines():
            setting = _ENVIRONMENT.match(line)
            lines.append(f"{setting[1]}={LEFT_OUT}" if setting else self._folding.text(line))
        return "\n".join(lines) + "\n"

    def _log(self) -> str:
        path = os.path.join(self._state_dir or "", paths.LOG_NAME)
        try:
            with open(path, "rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - LOG_BYTES, 0))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"there is none that can be read: {error.strerror}\n"
        return self._folding.text(text)

    # ── programs ──

    def _journal(self) -> str:
        words = ["-u", "gpuqd", "-n", str(JOURNAL_LINES), "-o", "short-iso", "--no-hostname"]
        return self._told("journalctl", *words) + self._told("journalctl", "--user", *words)

    def _kernel(self) -> str:
        lines = self._told("dmesg", "--time-format", "iso", only=("Xid", "NVRM"))
        of_journal = ["-k", "-o", "short-iso", "--no-hostname", "-n", "100000"]
        return lines + self._told("journalctl", *of_journal, only=("Xid", "NVRM"))

    def _nvidia_smi(self) -> str:
        tool = shutil.which("nvidia-smi", path=service.TOOLS if service.is_root() else None)
        if tool is None:
            return "there is no nvidia-smi here\n"
        ran = run([tool, "-q"], TOOL_S)
        if ran.code != 0:
            return f"nvidia-smi: {self._folding.text(ran.last_words)}\n"
        kept = [line for line in ran.out.splitlines() if not _NAMES_OF_SMI.match(line)]
        return "\n".join(kept) + "\n"

    def _told(self, tool: str, *words: str, only: tuple[str, ...] = ()) -> str:
        """What a program says, folded; with `only` its lines that have one of these words."""
        program = service.find_tool(tool)
        title = f"── {tool} {' '.join(words)}\n"
        if program is None:
            return f"{title}there is no {tool} here\n"
        ran = run([program, *words], TOOL_S)
        if ran.code != 0:
            return f"{title}{self._folding.text(ran.last_words)}\n"
        lines = [one for one in ran.out.splitlines() if not only or any(w in one for w in only)]
        return title + self._folding.text("\n".join(lines)) + "\n"


def _names(environ: Mapping[str, str]) -> set[str]:
    """Words that may be gpuq's too, and are here the name of somebody or of this machine."""
    home = os.path.basename((environ.get("HOME") or "").rstrip("/"))
    names = {home, service.own_name(), *re.split(r"\W+", platform.node())}
    return names - {"root", "home", "localhost"}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _versions() -> dict[str, Any]:
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    release = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
    return {
        "gpuq": gpuq.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "system": f"{release.get('NAME', '')} {release.get('VERSION', '')}".strip(),
        "libc": " ".join(platform.libc_ver()),
        "packages": found,
    }


def _without_notes(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "config_notes"}


def _gpus(answer: dict[str, Any]) -> dict[str, Any]:
    told = {name: answer.get(name) for name in ("gpu_backend", "gpu_trouble", "gpu_origin")}
    gpus = [{name: gpu.get(name) for name in OF_GPU.split()} for gpu in answer["gpus"]]
    return told | {"gpus": gpus}


def _value(setting: dict[str, Any]) -> Any:
    """Commands and addresses that are called are secrets as a whole."""
    is_called = setting["name"] in HOOKS
    return LEFT_OUT if is_called and setting["value"] else setting["value"]


def _with_drop_ins(path: str) -> Iterator[str]:
    for unit in (path, path.replace(service.SERVICE, service.SOCKET)):
        if os.path.exists(unit):
            yield unit
        folder = f"{unit}.d"
        if os.path.isdir(folder):
            names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
            yield from (os.path.join(folder, name) for name in names)
