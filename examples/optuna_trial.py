"""One trial of examples/optuna_study.py: a small network learns sin(x), in plain Python.

As a job it tells the loss of each epoch by gpuq.job, and fails where the loss runs away. Started by
hand it prints the same numbers:

    python examples/optuna_trial.py --lr 0.05 --momentum 0.9 --units 8
"""

import argparse
import math
import random
import time
from collections.abc import Iterator

from gpuq import job

EPOCHS = 12
PASSES = 10  # over the points, in an epoch
POINTS = [(x / 4, math.sin(x / 4)) for x in range(-12, 13)]
RUNS_AWAY = 100.0


def train(lr: float, momentum: float, units: int, seed: int) -> Iterator[tuple[int, float]]:
    """(epoch, mean squared error), from epoch 1 on. ArithmeticError where it diverges."""
    dice = random.Random(seed)
    weights = [dice.gauss(0.0, 1.0) for _ in range(3 * units)]  # in, bias, out of each unit
    speed = [0.0] * len(weights)
    for epoch in range(1, EPOCHS + 1):
        for _ in range(PASSES):
            loss, slopes = loss_and_slopes(weights, units)
            speed = [momentum * v - lr * slope for v, slope in zip(speed, slopes, strict=True)]
            weights = [weight + v for weight, v in zip(weights, speed, strict=True)]
        if not loss < RUNS_AWAY:  # not a number, too
            raise ArithmeticError(f"the loss ran away in epoch {epoch}: {loss}")
        yield epoch, loss


def loss_and_slopes(weights: list[float], units: int) -> tuple[float, list[float]]:
    into, bias, out = weights[:units], weights[units : 2 * units], weights[2 * units :]
    loss, slopes = 0.0, [0.0] * len(weights)
    for x, wanted in POINTS:
        values = [math.tanh(w * x + b) for w, b in zip(into, bias, strict=True)]
        error = sum(w * value for w, value in zip(out, values, strict=True)) - wanted
        loss += error**2 / len(POINTS)
        for unit, value in enumerate(values):
            slope = 2 * error / len(POINTS)
            back = slope * out[unit] * (1 - value**2)
            slopes[unit] += back * x
            slopes[units + unit] += back
            slopes[2 * units + unit] += slope * value
    return loss, slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--units", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each epoch")
    told = parser.parse_args()
    seed = job.seed()
    for epoch, loss in train(told.lr, told.momentum, told.units, 0 if seed is None else seed):
        # A name of its own for each epoch: of one name only the last value is kept.
        job.report({f"loss/{epoch}": loss, "progress": epoch / EPOCHS})
        print(f"epoch {epoch}: loss {loss:.6f}", flush=True)
        time.sleep(told.pause)  # a larger network would take its time


if __name__ == "__main__":
    main()
