"""Completions and manual pages, made by the installation that they are for: the daemon does not import
the faces."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from gpuq import service
from gpuq.daemon.systemd.trust import Installation
from gpuq.errors import GpuqError

GPUQ = "from gpuq.cli.main import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """What the shells complete by, and the manual pages by their names, as man1/gpuq.1."""

    scripts: Mapping[str, str]
    pages: Mapping[str, str]


def faces_of(installation: Installation) -> Faces:
    scripts = {
        shell: _said_by(installation, "-c", GPUQ, "completion", shell)
        for shell in ("bash", "zsh", "fish")
    }
    return Faces(scripts=scripts, pages=manual_pages(installation))


def manual_pages(installation: Installation) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="gpuq-") as folder:
        _said_by(installation, "-m", "gpuq.manual", folder)
        return {
            os.path.relpath(os.path.join(below, name), folder): _whole(os.path.join(below, name))
            for below, _, names in os.walk(folder)
            for name in names
        }


def _whole(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _said_by(installation: Installation, *words: str) -> str:
    command = [installation.python, "-I", *words]
    ran = subprocess.run(
        command, cwd="/", capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if ran.returncode != 0:
        raise GpuqError(f"{' '.join(command)} failed: {service.last_words(ran)}")
    return ran.stdout
