"""Writes docs/queue-transcript.md: the queue that people ask for, from true commands against true
daemons.

    .venv/bin/python docs/queue_transcript.py

The GPUs are simulated and say so; the jobs are real processes. Takes about two minutes.
"""

from pathlib import Path

from transcripts import HERE, Show

SLURM_SCRIPT = """#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --array=1-3%2
#SBATCH --gres=gpu:1
#SBATCH --time=10:00
#SBATCH --partition=batch
#SBATCH --mail-type=END
#SBATCH --output=sweep-%A_%a.log
echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT on GPU $GPUQ_GPU_INDICES"
sleep 1
"""

QUEUES = """
fair_share = true
start_rate = "5/s"

[queues.night]
priority = -5
gpus = "2-3"
max_running = 2
time_limit = "8h"
"""

SAVES = """
import os, pathlib, signal, sys, time
saved = pathlib.Path("steps")
step = int(saved.read_text()) if saved.exists() else 0
print("starts at step", step, flush=True)
def give_way(*_):
    saved.write_text(str(step)); print("saved at step", step, flush=True); sys.exit(0)
signal.signal(getattr(signal, "SIG" + os.environ["GPUQ_PREEMPT_SIGNAL"]), give_way)
while step < 40:
    time.sleep(0.1); step += 1
print("done", flush=True)
"""


def main() -> None:
    show = Show()
    show.say(
        "# The queue, command by command",
        "",
        "Written by `docs/queue_transcript.py` from true commands. The GPUs are simulated, as each",
        "screen says; the jobs are real processes.",
    )
    scenes = (
        arrays, lines, slurm, needs, order, limits, preemption, reservations, changes, later, spool,
        tree,
    )  # fmt: skip
    for scene in scenes:
        scene(show)
    (HERE / "queue-transcript.md").write_text("\n".join(show.lines).rstrip("\n") + "\n")


def arrays(show: Show) -> None:
    show.say("## Arrays and grids")
    with show.box("sim:4x24G"):
        show.type(
            "gpuq submit -n lr --grid lr=0.1,0.01 --grid seed=1-3 -- "
            "sh -c 'sleep 1; echo lr {lr}, seed {seed}, $GPUQ_PARAM_LR'"
        )
        show.type("gpuq submit -n many --array 0-999999%2 sleep 600")
        show.until("gpuq status -a g1", "C")
        show.type("gpuq")
        show.type("gpuq status --limit 4 g7")
        show.type("gpuq wait g1; gpuq logs 5")
        show.type("gpuq kill 9-1000006")
        show.type("gpuq")
        show.run("gpuq kill --now -y g7")


def lines(show: Show) -> None:
    show.say("## Commands from a pipe")
    with show.box("sim:2x24G"):
        show.type("for i in 1 2 3; do echo \"sh -c 'echo seed $i'\"; done | gpuq submit --from -")
        show.type("gpuq wait @ && gpuq logs 3")


def slurm(show: Show) -> None:
    show.say("## A cluster's script")
    with show.box("sim:2x24G") as here:
        (here / "sweep.sh").write_text(SLURM_SCRIPT)
        show.type("cat sweep.sh")
        show.type("gpuq submit --wait sweep.sh")
        show.type("cat sweep-*_*.log")


def needs(show: Show) -> None:
    show.say(
        "## What waits for what",
        "",
        "A failed need skips those behind it; running it again brings them back.",
    )
    with show.box("sim:2x24G") as here:
        show.type("gpuq submit -n prepare -g 0 sh -c 'sleep 2; cat data.txt'")
        show.type("gpuq submit -n train --after 1 sh -c 'echo trained'")
        show.type("gpuq submit -n report -g 0 --after 2:any sh -c 'echo reported'")
        show.type("gpuq")
        show.run("gpuq wait 1-3")
        show.type("gpuq status -a")
        (here / "data.txt").write_text("data\n")
        show.type("echo data > data.txt; gpuq requeue 1")
        show.run("gpuq wait 1-2")
        show.type("gpuq status -a")


def order(show: Show) -> None:
    show.say(
        "## Who is next",
        "",
        "What surely ends before the first in line could start may pass it; what may not waits.",
    )
    with show.box("sim:2x24G"):
        show.type("gpuq submit -n long -t 30m sleep 600")
        show.until("gpuq", "R   long")
        show.type("gpuq submit -n both -g 2 -t 1h sleep 600")
        show.type("gpuq submit -n short -t 10m sleep 600")
        show.type("gpuq submit -n later -t 2h sleep 600")
        show.type("gpuq")
        show.type("gpuq why 2")
        show.type("gpuq why 4")
        show.run("gpuq kill --now -y 1-4")


def limits(show: Show) -> None:
    show.say("## Queues, limits, a rate, and whose turn it is")
    with show.box("sim:4x24G") as here:
        settings = here / ".config" / "gpuq"
        settings.mkdir(parents=True)
        (settings / "gpuq.toml").write_text(QUEUES.lstrip())
        show.type("cat .config/gpuq/gpuq.toml")
        show.until("gpuq queues", "night")
        show.type("gpuq submit -q night -n n --array 1-4 sleep 600")
        show.until("gpuq queues", "2")
        show.type("gpuq queues")
        show.type("gpuq submit -n quick --tag big --array 1-4 sleep 600")
        show.type("gpuq limit tag:big --max-running 1")
        show.type("gpuq limit")
        show.until("gpuq", "quick")
        show.type("gpuq")
        show.type("gpuq usage")
        show.run("gpuq kill --now -y 1-8")


def preemption(show: Show) -> None:
    show.say("## Giving way, and going on from there")
    with show.box("sim:1x24G") as here:
        (here / "saves.py").write_text(SAVES)
        (here / ".config" / "gpuq").mkdir(parents=True)
        (here / ".config" / "gpuq" / "gpuq.toml").write_text('preempt_after = "1s"\n')
        show.type("gpuq submit -n train --preemptible --preempt-signal USR1 python3 saves.py")
        show.until("gpuq logs 1", "starts")
        show.type("gpuq submit -n urgent -p 10 sleep 2")
        show.until("gpuq status -a 2", "C   urgent")
        show.run("gpuq wait 1")
        show.type("gpuq logs --attempt 1 1; gpuq logs 1")
        show.type("gpuq show 1 | grep -iE 'attempt|gave|preempt'")


def reservations(show: Show) -> None:
    show.say("## GPUs for a time and a user")
    with show.box("sim:4x24G"):
        show.type(
            "gpuq reserve --gpus 2 --from +10m --for 12h --user daemon -m 'demo for visitors'"
        )
        show.type("gpuq gpus")
        show.type("gpuq submit -n short -g 4 -t 5m sleep 600")
        show.type("gpuq submit -n long -g 4 -t 2h sleep 600")
        show.type("gpuq")
        show.type("gpuq reserve")
        show.type("gpuq reserve --cancel 1")
        show.run("gpuq kill --now -y 1-2")


def changes(show: Show) -> None:
    show.say("## Changing one's mind")
    with show.box("sim:1x24G"):
        show.run(
            "gpuq submit -n first sleep 600; for i in 2 3 4; do gpuq submit -n job$i sleep 600; done"
        )
        show.until("gpuq", "R   first")
        show.type("gpuq hold 2-3")
        show.type("gpuq priority -5 3")
        show.type("gpuq edit 4 --time 2h --name longer --gpus 0")
        show.type("gpuq kill 2; gpuq undo 2")
        show.type("gpuq release 2-3; gpuq move --front 3")
        show.type("gpuq hold 1")
        show.type("gpuq requeue 1")
        show.until("gpuq show 1", "attempt")
        show.type("gpuq")
        show.run("gpuq kill --now -y 1-4")


def later(show: Show) -> None:
    show.say("## Later, once, and only to know")
    with show.box("sim:2x24G"):
        show.type("gpuq submit -n night --begin +2h sleep 600")
        show.type("gpuq submit -n nightly --key nightly sleep 600")
        show.type("gpuq submit -n nightly --key nightly sleep 600")
        show.type("gpuq submit --dry-run -g 1 sleep 600")
        show.type("gpuq submit --dry-run -g 2 sleep 600")
        show.type("gpuq submit --dry-run -g 3 sleep 600")
        show.type("gpuq")
        show.run("gpuq kill --now -y 1-2")


def spool(show: Show) -> None:
    show.say("## A folder of jobs")
    with show.box("sim:2x24G") as here:
        folder = Path(show.type("gpuq spool").strip().replace("~", str(here)))
        (here / "one.sh").write_text(
            "#!/bin/sh\n#GPUQ --gpus 2 --name dropped\necho on $GPUQ_GPU_INDICES\n"
        )
        show.type("cat one.sh")
        (here / "two.sh").write_text("#!/bin/sh\n#GPUQ --gups 2\n")
        show.type("mv one.sh two.sh $(gpuq spool)")
        show.until("ls -R " + str(folder), ".reason")
        show.type("gpuq wait 1; gpuq logs 1; ls accepted rejected 2>/dev/null; gpuq spool --list")


def tree(show: Show) -> None:
    show.say("## The work tree as it was")
    with show.box("sim:1x24G"):
        git = "git -c user.name=alice -c user.email=alice@localhost"
        show.type(
            f"git init -q vit; cd vit; echo 'print(1)' > train.py; git add .; {git} commit -qm one"
        )
        show.type(
            "cd vit; echo 'print(2)' > train.py; gpuq submit --snapshot -g 0 sh -c "
            "'sleep 1; python3 train.py'; echo 'print(3)' > train.py"
        )
        show.type("gpuq wait 1; gpuq logs 1; gpuq show --diff 1")


if __name__ == "__main__":
    main()
