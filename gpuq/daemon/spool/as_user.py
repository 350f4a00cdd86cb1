"""python -m gpuq.daemon.spool.as_user UID FOLDER SOCKET: becomes that user as a login would, and then
the client that submits what lies in the folder. Without UID it stays who it is.

Standard library only. Nothing of root's is left when the client begins: no descriptor, no group, no
key, no variable of the environment, and neither the daemon's limits nor its place with the OOM killer.
"""

import os
import sys

from gpuq.daemon.attempt import identity, login


def main(uid: int | None, folder: str, socket: str) -> None:
    """Does not return. ValueError where nobody has that uid."""
    told = {"GPUQ_SOCKET": socket, "GPUQ_AUTOSTART": "0"}
    if uid is None:
        home, environment, isolation = os.path.expanduser("~"), {**os.environ}, "-P"
    else:
        user = identity.look_up(uid, -1)
        login.reset_oom_score()
        identity.become(user)
        has = {os.fsdecode(name): os.fsdecode(value) for name, value in user.login.items()}
        home, isolation, lang = has["HOME"], "-I", os.environ.get("LANG", "C.UTF-8")
        environment = {"PATH": login.LOGIN_PATH, "LANG": lang, **has}
    login.set_usual_limits()
    login.enter(home)
    words = [sys.executable, isolation, "-m", "gpuq", "__spool", folder]
    os.execve(sys.executable, words, environment | told)


if __name__ == "__main__":
    *uids, asked_folder, asked_socket = sys.argv[1:]
    main(int(uids[0]) if uids else None, asked_folder, asked_socket)
