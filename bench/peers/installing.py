"""Gets the peers into a folder of their own, by the clients of Debian and PyPI. Nothing is installed
on the machine: Debian's packages are unpacked, so no service of theirs is ever enabled or started."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers import Absent
from bench.room import loudly

DOWNLOAD_S = 120.0


def from_pypi(folder: Path, distribution: str, proof: str) -> Path:
    """Where `proof`, a file of it, lies: below a folder for this distribution alone."""
    target = folder / distribution
    if not (target / proof).exists():
        loudly(f"installing {distribution} from PyPI into {target}")
        _run([sys.executable, "-m", "pip", "install", "-q", "--target", target, distribution])
    if not (target / proof).exists():
        raise Absent(f"{distribution} from PyPI has no {proof}")
    return target


def version_of(target: Path, distribution: str) -> str:
    """As pip wrote it down."""
    (found,) = target.glob(f"{distribution}-*.dist-info")
    return found.name.removesuffix(".dist-info").partition("-")[2]


def from_debian(folder: Path, package: str, proof: str) -> Path:
    """The root that the package, with what it needs and the machine has not, was unpacked into."""
    root = folder / package
    if (root / proof).exists():
        return root
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise Absent(f"{package} is a package of Debian, and there is no {program} here")
    loudly(f"unpacking {package} from Debian into {root}")
    with_debs = root / "debs"
    with_debs.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", *_missing(package)], cwd=with_debs)
    for deb in with_debs.glob("*.deb"):
        _run(["dpkg", "-x", deb, root])
    if not (root / proof).exists():
        raise Absent(f"{package} of Debian has no {proof}")
    return root


def with_its_libraries(root: Path, environment: dict[str, str], *more: str) -> dict[str, str]:
    libraries = root / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    paths = [str(libraries), *(str(libraries / name) for name in more)]
    return environment | {"LD_LIBRARY_PATH": ":".join(paths)}


def _missing(package: str) -> list[str]:
    """What apt would install for it, and itself though it may be installed."""
    plan = _run(["apt-get", "install", "--simulate", "--no-install-recommends", package])
    named = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    return sorted({package, *named})


def _run(command: Sequence[str | os.PathLike[str]], cwd: Path | None = None) -> str:
    try:
        ran = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=DOWNLOAD_S, check=True
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"{command[0]} took longer than {DOWNLOAD_S:g} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no word"])[-1]
        raise Absent(f"{' '.join(map(str, command))[:80]}: {last[:120]}") from None
    return ran.stdout
