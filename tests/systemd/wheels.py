"""Wheels of gpuq and of what it needs, made without a network from what is installed here."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import sys_tags

SOURCE = Path(__file__).parents[2]
FITTING = {str(tag) for tag in sys_tags()}
NOT_PACKED = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "tests", "bench")


def make_wheelhouse(folder: Path) -> None:
    """This source as a wheel, beside everything that it requires."""
    own = build_wheel(folder)
    for name in sorted(_required_by(_requirements_of(own), seen=set())):
        _pack(distribution(name), folder)


def build_wheel(folder: Path, version: str | None = None) -> Path:
    """A wheel of this source; of the same with another version number where one is given."""
    source = folder.with_name(f"{folder.name}-source-{version or 'own'}")
    shutil.copytree(SOURCE, source, ignore=NOT_COPIED)
    if version is not None:
        init = source / "gpuq/__init__.py"
        text, found = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text())
        assert found == 1, "gpuq/__init__.py has no version to change"
        init.write_text(text)
    folder.mkdir(exist_ok=True)
    before = set(folder.glob("gpuqd-*.whl"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True)
    shutil.rmtree(source)
    (made,) = set(folder.glob("gpuqd-*.whl")) - before
    return made


def _requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as parts:
        (name,) = (part for part in parts.namelist() if part.endswith(".dist-info/METADATA"))
        lines = parts.read(name).decode().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]


def _required_by(requirements: list[str], seen: set[tuple[str, str]], extra: str = "") -> set[str]:
    """The names of all that is needed, with what is needed for the extras that somebody asks for."""
    for requirement in map(Requirement, requirements):
        name = requirement.name.lower()
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for asked in {"", *requirement.extras} - {e for n, e in seen if n == name}:
                seen.add((name, asked))
                _required_by(distribution(name).requires or [], seen, asked)
    return {name for name, _ in seen}


def _pack(installed: Distribution, folder: Path) -> None:
    """An installed distribution is a wheel unpacked: its files, and a list of them."""
    kept = list(_files_of(installed))
    tags = re.findall(r"^Tag: (\S+)", installed.read_text("WHEEL") or "", re.M)
    tag = next(tag for tag in tags if tag in FITTING)  # one is enough of those it has
    name = re.sub(r"[-_.]+", "_", installed.metadata["Name"])
    (info,) = {file.parts[0] for file in kept if file.parts[0].endswith(".dist-info")}
    record = f"{info}/RECORD"
    lines = [_line(file) for file in kept] + [f"{record},,"]
    with zipfile.ZipFile(folder / f"{name}-{installed.version}-{tag}.whl", "w") as wheel:
        for file in kept:
            wheel.write(str(file.locate()), str(file))
        wheel.writestr(record, "\n".join(lines) + "\n")


def _files_of(installed: Distribution) -> Iterator[PackagePath]:
    for file in installed.files or []:
        outside = file.parts[0] == ".."  # scripts, which pip writes anew
        if not outside and file.suffix != ".pyc" and file.name not in NOT_PACKED:
            yield file


def _line(file: PackagePath) -> str:
    if file.hash is None:
        return f"{file},,"
    return f"{file},{file.hash.mode}={file.hash.value},{file.size}"
