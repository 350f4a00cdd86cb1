"""The root folder of a box: a few copied files of this machine's, and its /usr read-only."""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
EMPTY = ("dev", "etc", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var")
COPIED = (
    *("alternatives", "dbus-1", "ld.so.cache", "login.defs", "nsswitch.conf", "os-release"),
    *("pam.conf", "pam.d", "profile", "security", "shells"),
)
ACCOUNTS = ("passwd", "group", "shadow", "gshadow")
LOCAL = "var/usr-local"
PYTHON = Path(sys.base_prefix)


def lay_out(root: Path) -> None:
    """A root that systemd can boot, with nothing of ours in it yet."""
    for name in (*EMPTY, LOCAL):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in MERGED:
        if Path("/usr", name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in COPIED:
        _copy(Path("/etc", name), root / "etc" / name)
    for name in ACCOUNTS:
        _copy_accounts(Path("/etc", name), root / "etc" / name)
    # With an id of its own this is no first boot, on which all that lies in /usr would be enabled.
    (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    (root / "etc/hostname").write_text("box\n")
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for unneeded in ("systemd-firstboot.service", "systemd-networkd.service", "timers.target"):
        (units / unneeded).symlink_to("/dev/null")
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    _make_way_to_python(root)


def copy(root: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", root, to], check=True)
    (to / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")


def binds(root: Path) -> list[str]:
    """What of this machine's is seen in the box, read-only, but for what its admins put in place."""
    local = root / LOCAL
    if PYTHON.is_relative_to("/usr/local"):
        return ["--bind-ro=/usr", f"--overlay=/usr/local:{local}:/usr/local"]
    seen = ["--bind-ro=/usr", f"--bind={local}:/usr/local"]
    return seen if PYTHON.is_relative_to("/usr") else [*seen, f"--bind-ro={PYTHON}"]


def _copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, symlinks=True)
    elif source.exists():
        shutil.copy2(source, to)


def _copy_accounts(source: Path, to: Path) -> None:
    """The system's own; this machine's people stay out of the box."""
    if not source.exists():
        return
    lines = source.read_text().splitlines(keepends=True)
    people = _people()
    to.write_text("".join(line for line in lines if line.split(":", 1)[0] not in people))
    shutil.copymode(source, to)


def _people() -> set[str]:
    lines = Path("/etc/passwd").read_text().splitlines()
    accounts = [line.split(":") for line in lines if line.count(":") >= 6]
    return {words[0] for words in accounts if 1000 <= int(words[2]) < 60000}


def _make_way_to_python(root: Path) -> None:
    """Anybody in the box may look up the interpreter, wherever it lies: in root's home, say."""
    if PYTHON.is_relative_to("/usr"):
        return
    inside = root / PYTHON.relative_to("/")
    inside.mkdir(parents=True)
    for folder in inside.parents:
        if folder == root:
            break
        os.chmod(folder, 0o755)
