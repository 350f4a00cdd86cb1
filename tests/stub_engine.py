"""Docker and Podman as far as a job meets them: a client that leaves a container's id in a file, and
an engine that has the container, which does not end with its client.

The last word of `run` is what the container does: it ends at TERM (obedient), it heeds none (deaf), it
ends by itself and is gone (short), or it ends by itself and is kept (kept).
"""

import os
from pathlib import Path

CID = "3f2a9c1b7d44" + "0" * 52

CLIENT = """#!/bin/sh
there={there}
printf '%s\\n' "$(basename "$0")" "$@" . >>$there/calls
last=
for word; do
  case $word in --cidfile=*) file=${{word#--cidfile=}};; esac
  last=$word
done
case " $* " in
*" rm -f "*)
  test -e $there/broken && {{ echo "Error: the engine does not answer" >&2; exit 9; }}
  test -e $there/running/$last || {{ echo "Error: No such container: $last" >&2; exit 1; }}
  rm $there/running/$last; exit 0;;
esac
set -C
echo {cid} >"$file" || exit 125
touch $there/running/{cid}
env >$there/environment
case $last in
obedient) trap 'rm $there/running/{cid}; exit 143' TERM;;
deaf) trap '' TERM;;
short) rm $there/running/{cid}; exit 0;;
kept) exit 0;;
esac
touch $there/ready
while :; do sleep 0.02; done
"""


class StubEngine:
    """`path` is to be the first part of a job's PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "engine"
        (self.folder / "running").mkdir(parents=True)
        (self.folder / "bin").mkdir()
        for name in ("docker", "podman"):
            client = self.folder / "bin" / name
            client.write_text(CLIENT.format(there=self.folder, cid=CID))
            client.chmod(0o755)

    @classmethod
    def again(cls, folder: Path) -> "StubEngine":
        """The one that is there, as if nothing had run yet."""
        engine = cls.__new__(cls)
        engine.folder = folder / "engine"
        (engine.folder / "ready").unlink(missing_ok=True)
        return engine

    @property
    def path(self) -> str:
        return f"{self.folder / 'bin'}:/usr/bin:/bin"

    @property
    def is_running(self) -> bool:
        return bool(os.listdir(self.folder / "running"))

    @property
    def is_ready(self) -> bool:
        return (self.folder / "ready").exists()

    def break_down(self) -> None:
        (self.folder / "broken").touch()

    def calls(self) -> list[list[str]]:
        """The words of each, the client's name first."""
        text = (self.folder / "calls").read_text()
        return [call.splitlines() for call in text.split("\n.\n") if call]

    def environment(self) -> dict[str, str]:
        lines = (self.folder / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
