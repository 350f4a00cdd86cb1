"""Where those things lie that are not in the package: units, completions, pages, links to commands."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from gpuq import paths, service


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders by what they are for; `commands` is None where no links to commands are made."""

    units: str
    sysusers: str | None
    tmpfiles: str | None
    commands: str | None
    bash: str
    zsh: str
    fish: str
    pages: str

    def unit_file(self, name: str) -> str:
        """Where a file from `unit_files` goes."""
        if name == "gpuq.sysusers.conf" and self.sysusers is not None:
            return os.path.join(self.sysusers, "gpuq.conf")
        if name == "gpuq.tmpfiles.conf" and self.tmpfiles is not None:
            return os.path.join(self.tmpfiles, "gpuq.conf")
        return os.path.join(self.units, name)

    def completion(self, shell: str) -> str:
        folder, name = {
            "bash": (self.bash, "gpuq"),
            "zsh": (self.zsh, "_gpuq"),
            "fish": (self.fish, "gpuq.fish"),
        }[shell]
        return os.path.join(folder, name)


def system_places(root: str = "/") -> Places:
    """What an administrator puts in by hand goes to /etc and /usr/local: file-hierarchy(7)."""
    etc, local = os.path.join(root, "etc"), os.path.join(root, "usr/local")
    return Places(
        units=f"{etc}/systemd/system",
        sysusers=f"{etc}/sysusers.d",
        tmpfiles=f"{etc}/tmpfiles.d",
        commands=f"{local}/bin",
        bash=f"{local}/share/bash-completion/completions",
        zsh=f"{local}/share/zsh/site-functions",
        fish=f"{local}/share/fish/vendor_completions.d",
        pages=f"{local}/share/man",
    )


def user_places(environ: Mapping[str, str]) -> Places:
    data = environ.get("XDG_DATA_HOME") or ""
    if not data.startswith("/"):
        data = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return Places(
        units=service.user_units(environ),
        sysusers=None,
        tmpfiles=None,
        commands=None,
        bash=f"{data}/bash-completion/completions",
        zsh=f"{data}/zsh/site-functions",
        fish=f"{paths.config_home(environ)}/fish/completions",
        pages=f"{data}/man",
    )
