"""Programs of systemd that do nothing but note how they were called, found before the real ones."""

from pathlib import Path

import pytest

from gpuq import service

SCRIPT = """\
#!/bin/sh
echo "${0##*/} $*" >> FOLDER/calls
case " $* " in
    *" is-active "*) for unit; do :; done; test -e FOLDER/active/$unit; exit ;;
esac
if test -e FOLDER/fails && grep -q -- "$(cat FOLDER/fails)" <<END
${0##*/} $*
END
then echo "Access denied." >&2; exit 1; fi
case " $* " in
    *" start "*|*" restart "*) for unit; do touch FOLDER/active/$unit; done ;;
    *" stop "*) rm -f FOLDER/active/*.service FOLDER/active/*.socket ;;
    *" KillUserProcesses "*) test -e FOLDER/kills && echo "b true" || echo "b false" ;;
    *" enable-linger "*) touch FOLDER/linger/NAME ;;
esac
exit 0
"""
NAMES = ("systemctl", "loginctl", "systemd-sysusers", "systemd-tmpfiles", "busctl")


class FakeSystemd:
    """A machine that is run by systemd, as far as gpuq can see."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("active", "linger"):
            (folder / name).mkdir(parents=True)
        for name in NAMES:
            program = folder / name
            program.write_text(
                SCRIPT.replace("FOLDER", str(folder)).replace("NAME", service.own_name())
            )
            program.chmod(0o755)
        monkeypatch.setattr(service, "TOOLS", f"{folder}:/usr/bin:/bin")
        monkeypatch.setattr(service, "BOOTED", str(folder))
        monkeypatch.setattr(service, "LINGERING", str(folder / "linger"))

    @property
    def calls(self) -> list[str]:
        """All that changes something, in order."""
        noted = self.folder / "calls"
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [line for line in lines if "is-active" not in line and " show " not in line]

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def set_active(self, *units: str) -> None:
        for unit in units:
            (self.folder / "active" / unit).touch()

    def fail(self, what: str) -> None:
        (self.folder / "fails").write_text(what)

    def work(self) -> None:
        (self.folder / "fails").unlink()
