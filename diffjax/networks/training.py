r"""Training of a denoiser that survives: on one device or many, for one seed or several.

A network is a pure function ``apply(params, x, time, *, key)`` with a pytree of float32 parameters;
what it predicts is stated by a `diffjax.networks.objectives.Objective`, and the recipe by a
`TrainConfig`. The steps are those of `diffjax.networks.training_step`; this module hands them to
the device in pieces, writes losses and checkpoints, and stops at signals and at losses that are
not finite. A run that is killed at any moment and resumed ends with the same bits as one that was
not (on a GPU with ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``), because nothing that a step does
depends on where the pieces begin.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.networks import checkpoints
from diffjax.networks.interruptions import Interruptions
from diffjax.networks.loss_curve import LossCurve
from diffjax.networks.objectives import Objective, as_partial
from diffjax.networks.training_step import (
    TrainConfig,
    TrainState,
    advance,
    check,
    initial_state,
    initial_states,
    modern,
    published,
    steps_at_once,
    trained_parameters,
)

__all__ = [
    "NonFiniteLossError",
    "TrainConfig",
    "TrainState",
    "initial_state",
    "initial_states",
    "modern",
    "published",
    "resume",
    "train",
    "trained_parameters",
]

_DISPATCH = 0.5  # seconds of work that are handed to the device at once, where steps are short
_LENGTHS = ("steps", "checkpoint_every", "keep")  # may change when a run is resumed
_CHECKPOINTS = "checkpoints"


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient was NaN or infinite; ``state`` is the last good one."""

    def __init__(self, message: str, step: int, state: TrainState) -> None:
        super().__init__(message)
        self.step = step
        self.state = state


def train(
    state: TrainState,
    network: Any,
    objective: Objective,
    data: ArrayLike,
    config: TrainConfig,
    *,
    labels: ArrayLike | None = None,
    mesh: Mesh | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[TrainState], None] | None = None,
) -> tuple[TrainState, np.ndarray]:
    """Train from ``state.step`` to ``config.steps``.

    Args:
        state: of `initial_state`, `initial_states` or `resume`; its arrays stay valid.
        network: ``apply(params, x (B, ...), time (B,), *, key) -> (B, ...)``, a hashable function;
            `diffjax.networks.functional` makes one of a module.
        objective: what is predicted, and at which noise levels.
        data: examples ``(n, ...)``, put on the device once, shared by all seeds.
        config: recipe.
        labels: class of every example, integers ``(n,)``, for a conditional network
            ``apply(params, x, time, labels (B,), *, key)``, which drops labels itself when it is
            given a key; see `diffjax.networks.conditional`.
        mesh: a mesh with an axis ``data`` over which every batch is split; parameters are copied.
        folder: where checkpoints (``checkpoints/``) and the loss curve (``loss.csv``) are
            written while it runs; None writes nothing.
        progress: ``progress(done, total)`` after every dispatch.
        report: ``report(state)`` after every checkpoint; it must not keep the state.

    Returns:
        The state at ``config.steps`` and the losses of the steps of this call, ``(steps,)``, or
        ``(steps, S)`` for several seeds.

    Raises:
        ValueError: on sizes that do not fit, or a folder that holds later checkpoints.
        NonFiniteLossError: at a loss or gradient that is not finite; the state before that step
            is saved.
        KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after a checkpoint has been written.
    """
    data = checks.floating(data, "data")
    check(config, data.shape[0], mesh)
    labels = None if labels is None else _labels(labels, data.shape[0])
    run = _Run(state, objective, config, folder)
    place = (lambda tree: tree) if mesh is None else partial(_replicate, mesh)
    state, data, labels = place(jax.tree.map(jnp.array, state)), place(data), place(labels)
    network, recipe = (
        as_partial(network),
        _without_lengths(config),
    )  # a longer run is the same program
    length, seconds = 1, 0.0
    with Interruptions() as interruptions:
        while run.step < config.steps:
            length = _next_length(length, seconds, steps_at_once(config, data))
            count = min(length, config.steps - run.step, run.until_checkpoint())
            start = time.perf_counter()
            state, losses = advance(
                state, data, objective, network, np.int32(count), config=recipe, mesh=mesh,
                labels=labels,
            )  # fmt: skip
            run.add(np.asarray(losses)[:count], state)  # waits for the device
            seconds = time.perf_counter() - start
            if progress is not None:
                progress(run.step, config.steps)
            interrupted = interruptions.received is not None
            if interrupted or run.due():
                run.save(state)
                if report is not None and not interrupted:
                    report(state)
            interruptions.act()
    return state, run.losses()


def resume(
    like: TrainState, objective: Objective, config: TrainConfig, folder: str | Path
) -> TrainState:
    """The newest whole checkpoint of a run in ``folder``; ``like`` if there is none.

    Args:
        like: the run's initial state.
        objective: the run's objective.
        config: the run's recipe; ``steps``, ``checkpoint_every`` and ``keep`` may differ from those
            of the checkpoint, anything else is an error.
        folder: as for `train`.

    Raises:
        ValueError: if the checkpoint is of another configuration or network.
        diffjax.networks.checkpoints.CorruptCheckpointError: if no checkpoint is whole.
    """
    identity = _identity(objective, config)
    found = checkpoints.restore(Path(folder) / _CHECKPOINTS, like, config=identity)
    return like if found is None else jax.tree.map(jnp.asarray, found)


class _Run:
    """Host side of a run: counts steps, writes losses and checkpoints, stops at NaN."""

    def __init__(
        self,
        state: TrainState,
        objective: Objective,
        config: TrainConfig,
        folder: str | Path | None,
    ) -> None:
        self.step = int(np.min(np.asarray(state.step)))
        self._config, self._identity = config, _identity(objective, config)
        self._losses: list[np.ndarray] = []
        self._folder = None if folder is None else Path(folder) / _CHECKPOINTS
        self._curve: LossCurve | None = None
        if folder is None or self._folder is None:
            return
        later = [step for step in checkpoints.steps(self._folder) if step > self.step]
        # a damaged later checkpoint has been passed over; a whole one belongs to another run
        if self.step == 0 and later:
            raise ValueError(
                f"{self._folder} holds the checkpoint of step {later[-1]}, this run is at step 0; "
                "resume it, or take another folder"
            )
        runs = 1 if np.ndim(state.step) == 0 else len(state.step)
        self._curve = LossCurve(Path(folder) / "loss.csv", self.step, runs)

    def until_checkpoint(self) -> int:
        """Steps to the next checkpoint."""
        return self._config.checkpoint_every - self.step % self._config.checkpoint_every

    def due(self) -> bool:
        """Whether a checkpoint belongs at this step."""
        at_interval = self.step % self._config.checkpoint_every == 0
        return at_interval or self.step == self._config.steps

    def add(self, losses: np.ndarray, state: TrainState) -> None:
        """Count the steps of a dispatch; raise if one of them was not finite."""
        reached = int(np.min(np.asarray(state.step)))
        done = reached - self.step
        self._losses.append(losses[:done])
        if self._curve is not None:
            self._curve.append(self.step, losses[:done])
        self.step = reached
        if done == len(losses):
            return
        self.save(state)
        values = np.atleast_1d(losses[done])
        which = "" if len(values) == 1 else f" (runs {np.flatnonzero(~np.isfinite(values))})"
        raise NonFiniteLossError(
            f"step {reached}: loss {losses[done]}{which} or its gradient is not finite; the state "
            "before that step is kept. Lower the learning rate or clip the gradient",
            reached,
            state,
        )

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, where there is a folder for it."""
        if self._folder is not None:
            checkpoints.save(
                self._folder, self.step, state, keep=self._config.keep, config=self._identity
            )

    def losses(self) -> np.ndarray:
        """Losses of all steps of this call."""
        return np.concatenate(self._losses) if self._losses else np.zeros(0, np.float32)


def _identity(objective: Objective, config: TrainConfig) -> dict[str, Any]:
    """What a run must share with its checkpoint."""
    recipe = dataclasses.asdict(config)
    kept = {name: value for name, value in recipe.items() if name not in _LENGTHS}
    return kept | {
        "parametrisation": objective.parametrisation,
        "weighting": objective.weighting,
        "process": type(objective.process).__name__,
        "levels": type(objective.levels).__name__,
    }


def _labels(labels: ArrayLike, n: int) -> jax.Array:
    """Checked labels, one integer per example."""
    values = np.asarray(labels)
    if values.shape != (n,) or values.dtype.kind not in "iu" or values.min() < 0:
        raise ValueError(
            f"labels has shape {values.shape} and dtype {values.dtype}, expected one class index "
            f">= 0 for each of {n} examples"
        )
    return jnp.asarray(values, jnp.int32)


def _without_lengths(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, steps=0, checkpoint_every=0, keep=0)


def _next_length(length: int, seconds: float, most: int) -> int:
    """Steps of the next dispatch: about `_DISPATCH` seconds of work, in powers of two."""
    if seconds > _DISPATCH:
        return max(1, length // 2)
    return min(2 * length, most) if 0 < seconds < _DISPATCH / 2 else length


def _replicate(mesh: Mesh, tree: Any) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
