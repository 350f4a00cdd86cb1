"""An Optuna study whose trials are jobs of gpuq: asked for, run four at a time, and told.

    pip install '.[optuna]'    # in the folder of the source
    python examples/optuna_study.py --own-daemon --check

Optuna says which values to try (`study.ask`), gpuq runs each trial as a job on a GPU of its own, and
the study is told how each ended (`study.tell`). The losses that trials report meanwhile go to Optuna's
pruner; what it gives up is killed, and its GPU goes to the next. What fails is told as failed.

Trials are asked for in batches and told in the order in which they were asked for, so what the study
learns does not depend on which trial ends first: the same seed gives the same values as a run without
gpuq, and --check holds the one against the other.

Without --own-daemon the trials go to your own queue. With it a daemon with four simulated GPUs is
started in a temporary directory, and nothing of it is left at the end.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState
from optuna_trial import EPOCHS, train

from gpuq import Client

TRIAL = Path(__file__).with_name("optuna_trial.py")
AT_ONCE = 4
LOOK_S = 0.2


def new_study(seed: int) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_ONCE)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)


def ask(study: optuna.Study, number: int) -> list[Trial]:
    """The next few trials, each with its values."""
    trials = [study.ask() for _ in range(number)]
    for trial in trials:
        trial.suggest_float("lr", 1e-3, 0.6, log=True)
        trial.suggest_float("momentum", 0.0, 0.95)
        trial.suggest_int("units", 2, 10)
    return trials


# ── as jobs ──


class Running:
    """A trial while it is a job."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.epoch = 0  # the last that Optuna was told of
        self.is_pruned = False
        self.outcome: str | None = None
        self.on_simulated = False

    def is_to_end(self, job: dict) -> bool:
        """Tells Optuna of each epoch that has come, in order. True where the pruner gives it up now."""
        self.outcome, self.on_simulated = job["outcome"], job["gpus_simulated"]
        if self.is_pruned:
            return False
        while (loss := job["metrics"].get(f"loss/{self.epoch + 1}")) is not None:
            self.epoch += 1
            self.trial.report(float(loss), self.epoch)
            if self.trial.should_prune():
                self.is_pruned = True
                return job["state"] != "ended"
        return False

    def tell(self, study: optuna.Study, job: int) -> None:
        self.trial.set_user_attr("job", job)
        self.trial.set_user_attr("outcome", self.outcome)
        self.trial.set_user_attr("simulated", self.on_simulated)
        if self.is_pruned:
            study.tell(self.trial, state=TrialState.PRUNED)
        elif self.outcome == "succeeded" and self.epoch == EPOCHS:
            last = study.trials[self.trial.number].intermediate_values[EPOCHS]
            study.tell(self.trial, last)
        else:
            study.tell(self.trial, state=TrialState.FAIL)


def run_as_jobs(client: Client, study: optuna.Study, trials: int, pause_s: float) -> None:
    for first in range(0, trials, AT_ONCE):
        batch = ask(study, min(AT_ONCE, trials - first))
        jobs = client.submit_many([as_job(trial, pause_s) for trial in batch])
        running = dict(zip(jobs, map(Running, batch), strict=True))
        try:
            for job in client.watch(jobs, every_s=LOOK_S):
                if running[job["id"]].is_to_end(job):
                    client.kill(job["id"])
        except BaseException:
            client.kill(jobs)
            raise
        for number, one in running.items():
            one.tell(study, number)


def as_job(trial: Trial, pause_s: float) -> dict:
    values = [word for name, value in trial.params.items() for word in (f"--{name}", str(value))]
    return {
        "argv": [sys.executable, str(TRIAL), *values, "--pause", str(pause_s)],
        "name": f"trial-{trial.number}",
        "gpus": 1,
        "seed": trial.number,
    }


# ── the same without gpuq ──


def run_here(study: optuna.Study, trials: int) -> None:
    for first in range(0, trials, AT_ONCE):
        batch = ask(study, min(AT_ONCE, trials - first))
        ends = [train_here(trial) for trial in batch]
        for trial, (value, state) in zip(batch, ends, strict=True):
            study.tell(trial, value, state=state)


def train_here(trial: Trial) -> tuple[float | None, TrialState]:
    try:
        for epoch, loss in train(**trial.params, seed=trial.number):
            trial.report(loss, epoch)
            if trial.should_prune():
                return None, TrialState.PRUNED
    except ArithmeticError:
        return None, TrialState.FAIL
    return loss, TrialState.COMPLETE


def told(study: optuna.Study) -> list[tuple]:
    """All that a study knows of its trials but for the times."""
    return [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in study.trials]


# ── what is shown ──


def show(study: optuna.Study) -> None:
    print("TRIAL  JOB  LR        MOMENTUM  UNITS  EPOCHS  STATE     OUTCOME    LOSS")
    for t in study.trials:
        values = f"{t.params['lr']:<8.4f}  {t.params['momentum']:<8.3f}  {t.params['units']:<5}"
        attrs, loss = t.user_attrs, "" if t.value is None else f"{t.value:.6f}"
        ends = f"{len(t.intermediate_values):<6}  {t.state.name:<8}  {attrs['outcome']:<9}"
        print(f"{t.number:<5}  {attrs['job']:<3}  {values}  {ends}  {loss}".rstrip())
    simulated = sum(t.user_attrs["simulated"] for t in study.trials)
    if simulated:
        print(f"The GPUs of {simulated} trials were simulated; what they trained is real.")
    best = study.best_trial
    print(f"Best: trial {best.number} with {best.params}: {best.value:.6f}")


@contextmanager
def own_daemon() -> Iterator[str]:
    """A daemon with four simulated GPUs and its state directory; both go at the end."""
    with tempfile.TemporaryDirectory(prefix="gpuq-study-") as folder:
        gpuq = [sys.executable, "-m", "gpuq", "--state-dir", folder, "daemon"]
        subprocess.run([*gpuq, "start", "--gpus", "sim:4x24G"], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*gpuq, "stop"], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pause", type=float, default=0.25, help="seconds after each epoch")
    parser.add_argument("--own-daemon", action="store_true", help="start one for this, and stop it")
    parser.add_argument("--check", action="store_true", help="hold it against a run without gpuq")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = new_study(asked.seed)
    if asked.own_daemon:
        with own_daemon() as folder, Client(state_dir=folder) as client:
            run_as_jobs(client, study, asked.trials, asked.pause)
    else:
        with Client(autostart=True, say=print) as client:
            run_as_jobs(client, study, asked.trials, asked.pause)
    show(study)
    if not asked.check:
        return 0
    plain = new_study(asked.seed)
    run_here(plain, asked.trials)
    is_same = told(plain) == told(study)
    print("A run without gpuq gives", "the same." if is_same else "something else.")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
