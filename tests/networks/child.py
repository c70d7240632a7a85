"""A training run as a process of its own, to be killed: ``child.py FOLDER MODE [STEP]``.

Modes: ``run`` to the end; ``write STEP`` is killed by itself while it writes the checkpoint of
STEP, after its arrays were written and one of their files was cut in half; ``rename STEP`` just
before the finished folder gets its name; ``slow`` waits after every dispatch, so that somebody
else can kill it.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import jax  # noqa: E402
import numpy as np  # noqa: E402
import toy  # noqa: E402

from diffjax.networks import checkpoints, objectives, training  # noqa: E402

CONFIG = training.modern(
    steps=60, batch=4, warm_up=3, ema=0.9, checkpoint_every=10, keep=2, chunk=8
)


def kill_in_write(step):
    write = checkpoints._write_arrays

    def cut(path, arrays):
        write(path, arrays)
        if int(arrays[".step"]) == step:
            largest = max(
                (f for f in path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
            )
            os.truncate(largest, largest.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._write_arrays = cut


def kill_before_rename(step):
    sync = checkpoints._sync

    def cut(path):
        sync(path)
        if path.name.split("-")[1] == f"step_{step:09d}":
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._sync = cut


def main(folder, mode, step=None):
    if mode == "write":
        kill_in_write(int(step))
    if mode == "rename":
        kill_before_rename(int(step))
    objective = objectives.modern()
    state = training.initial_state(toy.parameters(jax.random.key(3)), CONFIG)
    state = training.resume(state, objective, CONFIG, folder)
    print(f"from {int(state.step)}", flush=True)

    def progress(done, total):
        if mode == "slow":
            time.sleep(0.1)

    state, _ = training.train(
        state, toy.apply, objective, toy.points(), CONFIG, folder=folder, progress=progress
    )
    leaves = jax.tree.leaves(state)
    np.savez(Path(folder) / "final.npz", *map(np.asarray, leaves))


if __name__ == "__main__":
    main(*sys.argv[1:])
