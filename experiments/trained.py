"""Networks trained inside an experiment, the images they are trained on, and their clones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import records, schedules
from diffjax.noise import normal
from experiments import inputs
from experiments.inputs import DataSet

T_MIN, T_MAX = 5e-3, 4.0
"""OU times between which the perceptrons are trained, and between which all networks are run."""


@records.register
@dataclass(frozen=True)
class Rescaled:
    """A denoiser of ``a / size`` as one of ``a``: ``size D(x / size, scale, std / size)``."""

    model: Any
    size: jax.Array

    @property
    def dim(self) -> int:
        """Dimension of the data."""
        return self.model.dim

    def denoise(self, x: jax.Array, scale: Any, std: Any) -> jax.Array:
        """Estimate of ``E[a | x]``."""
        size = self.size.astype(x.dtype)
        return size * self.model.denoise(x / size, scale, std / size)


def images(
    data: str, root: str | None, classes: tuple[str, ...], n: int | None, dtype: str
) -> DataSet:
    """Embedded digits, or image files below ``root`` (MNIST zero-padded to 32 x 32)."""
    if data == "digits":
        return inputs.digits(classes, n, dtype)
    pad = 32 if data in ("mnist", "fashion-mnist") else None
    return inputs.image_files(data, root, classes, n, pad, "centre", dtype)


def halves(data: DataSet) -> tuple[DataSet, DataSet]:
    """Every other image: one half to train on, one to classify with."""
    labels = data.labels if data.labels is not None else np.zeros(len(data.points), int)
    order = np.argsort(labels, kind="stable")
    first, second = (np.sort(order[k::2]) for k in (0, 1))
    return tuple(  # type: ignore[return-value]
        replace(data, points=data.points[part], labels=labels[part]) for part in (first, second)
    )


def denoisers(
    data: DataSet,
    looks: tuple[int, ...],
    *,
    network: str = "mlp",
    width: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[diffjax.Diffusion, np.ndarray]]:
    """One network in training on ``data``, as a `Diffusion` after each of several steps.

    Args:
        data: the images.
        looks: increasing numbers of optimiser steps.
        network: ``mlp``, a perceptron that predicts v by a modern recipe and sees the points
            divided by their root mean square; or ``unet``, the published network and recipe.
        width: of the perceptron.
        learning_rate: of the perceptron.
        seed: of the weights and the training.
        progress: ``progress(done, total)``.

    Yields:
        The network, and the losses of the steps since the last look.
    """
    from diffjax.networks import network_denoiser, training
    from diffjax.networks.functional import functional

    dim, key = data.points.shape[1], jax.random.key(seed)
    recipe = {"steps": looks[-1], "batch": min(128, len(data.points)), "seed": seed}
    if network == "unet":
        module, event, objective, config = _published(dim, key, recipe)
        size, t_range = 1.0, None
    else:
        recipe |= {"learning_rate": learning_rate, "warm_up": min(200, looks[0] // 2)}
        module, event, objective, config = _perceptron(dim, width, key, recipe)
        size, t_range = float(np.sqrt(np.mean(np.square(data.points)))), (T_MIN, T_MAX)
    function, params = functional(module)
    points = np.reshape(data.points / size, (-1, *event)).astype(np.float32)
    state = training.initial_state(params, config)
    for steps in looks:
        state, losses = training.train(
            state, function.apply, objective, points, replace(config, steps=steps),
            progress=progress,
        )  # fmt: skip
        model = network_denoiser(
            function.apply, training.trained_parameters(state), shape=event,
            process=objective.process, parametrisation=objective.parametrisation, t_range=t_range,
        )  # fmt: skip
        rescaled = Rescaled(model, jnp.asarray(size, jnp.float32))
        yield diffjax.Diffusion(rescaled, diffjax.ornstein_uhlenbeck()), losses


def _perceptron(dim: int, width: int, key: jax.Array, recipe: dict[str, Any]) -> tuple:
    """Module, event shape, objective and recipe of a perceptron."""
    from diffjax.networks import mlp, objectives, training

    module = mlp.mlp(mlp.MLPConfig(dim=dim, width=width), key=key)
    objective = objectives.modern(t_min=T_MIN, t_max=T_MAX)
    return module, (dim,), objective, training.modern(**recipe, ema=0.999, weight_decay=0.0)


def _published(dim: int, key: jax.Array, recipe: dict[str, Any]) -> tuple:
    """The same of the published network."""
    from diffjax.networks import objectives, training, unet

    side = _side(dim)
    module = unet.dynamical_regimes_unet(dim // side**2, key=key)
    event = (side, side, dim // side**2)
    return module, event, objectives.published(), training.published(**recipe)


def _side(dim: int) -> int:
    """Side of square images with one or three channels."""
    for channels in (1, 3):
        side = round(np.sqrt(dim / channels))
        if side * side * channels == dim:
            return side
    raise ValueError(f"points of dimension {dim} are no square images with 1 or 3 channels")


def clone_ends(
    key: jax.Array, model: Any, t: float, pairs: int, steps: int, method: str | None
) -> jax.Array:
    """Clones ``(pairs, 2, d)`` of fresh trajectories that run from noise to ``t`` and branch there.

    Args:
        key: typed key.
        model: a `Diffusion`.
        t: branching time.
        pairs: number of trajectories.
        steps: steps of each of the two parts, even in log snr.
        method: as in `diffjax.backward`.
    """
    key_start, key_path, key_clones = jax.random.split(key, 3)
    dtype = jnp.float32
    x = normal(key_start, (pairs, model.dim), dtype)
    before = schedules.log_snr(t, T_MAX, steps + 1)[::-1].astype(dtype)
    after = schedules.log_snr(T_MIN, t, steps)[::-1].astype(dtype)
    x, _ = diffjax.backward(key_path, model, x, before, method=method)
    ends, _ = diffjax.clones(
        key_clones, model, x, jnp.concatenate([after, jnp.zeros(1, dtype)]), method=method
    )
    return ends


def nearest_points(points: Any) -> Callable[[jax.Array], jax.Array]:
    """Index of the nearest of the given points, for states ``(..., d)``."""
    reference = jnp.asarray(points)

    def nearest(x: jax.Array) -> jax.Array:
        product = jnp.matmul(x, reference.T, precision="highest")
        return jnp.argmin(0.5 * jnp.sum(reference**2, axis=-1) - product, axis=-1)

    return jax.jit(nearest)
