"""A git work tree to try things on, apart from whatever the machine's own git is set to."""

import os
import subprocess
from pathlib import Path

OUTSIDE = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "alice",
    "GIT_AUTHOR_EMAIL": "alice@localhost",
    "GIT_COMMITTER_NAME": "alice",
    "GIT_COMMITTER_EMAIL": "alice@localhost",
}


class Tree:
    """`top` is its directory; what stands in `files` is committed."""

    def __init__(self, top: Path, **files: str) -> None:
        self.top = top
        top.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        if files:
            self.commit(**files)

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.top), *words],
            env={**os.environ, **OUTSIDE},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def write(self, name: str, content: str) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def commit(self, **files: str) -> str:
        """Writes and commits; `train_py` stands for train.py. Returns the commit's id."""
        for name, content in files.items():
            self.write(name.replace("_", "."), content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=more")
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
