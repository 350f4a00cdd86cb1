"""What a process of a user has that begins with a login, for one that a daemon has started. Standard
library only."""

import os
import resource

LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"
USUAL_DESCRIPTORS = 1024
UMASK = 0o022


def reset_oom_score() -> None:
    """A daemon that the kernel is to spare does not pass that on."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 0:
                file.write("0")
    except OSError:
        pass


def set_usual_limits() -> None:
    """As from a shell; the daemon has many more descriptors."""
    os.umask(UMASK)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > USUAL_DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_DESCRIPTORS, hard))


def enter(home: str) -> None:
    """Where there is no home it is the root of all."""
    try:
        os.chdir(home)
    except OSError:
        os.chdir("/")
