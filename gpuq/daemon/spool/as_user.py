"""python -m gpuq.daemon.spool.as_user UID FOLDER SOCKET: becomes that user as a login would, and then
the client that submits what lies in the folder. Without UID it stays who it is.

Standard library only. Nothing of root's is left when the client begins: no descriptor, no group, no
key, no variable of the environment, and neither the daemon's limits nor its place with the OOM killer.
"""

import os
import resource
import sys

from gpuq.daemon.attempt import identity

LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"
USUAL_DESCRIPTORS = 1024
UMASK = 0o022


def main(uid: int | None, folder: str, socket: str) -> None:
    """Does not return. ValueError where nobody has that uid."""
    told = {"GPUQ_SOCKET": socket, "GPUQ_AUTOSTART": "0"}
    if uid is None:
        home, environment, isolation = os.path.expanduser("~"), {**os.environ}, "-P"
    else:
        user = identity.look_up(uid, -1)
        _reset_oom_score()
        identity.become(user)
        login = {os.fsdecode(name): os.fsdecode(value) for name, value in user.login.items()}
        home, isolation = login["HOME"], "-I"
        environment = {"PATH": LOGIN_PATH, "LANG": os.environ.get("LANG", "C.UTF-8"), **login}
    _set_usual_limits()
    _enter(home)
    words = [sys.executable, isolation, "-m", "gpuq", "__spool", folder]
    os.execve(sys.executable, words, environment | told)


def _reset_oom_score() -> None:
    """A daemon that the kernel is to spare does not pass that on."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 0:
                file.write("0")
    except OSError:
        pass


def _set_usual_limits() -> None:
    """Jobs get them, as from a shell; the daemon has many more descriptors."""
    os.umask(UMASK)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > USUAL_DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_DESCRIPTORS, hard))


def _enter(home: str) -> None:
    """As a login would: where there is no home it is the root of all."""
    try:
        os.chdir(home)
    except OSError:
        os.chdir("/")


if __name__ == "__main__":
    *uids, asked_folder, asked_socket = sys.argv[1:]
    main(int(uids[0]) if uids else None, asked_folder, asked_socket)
