"""Networks that are trained inside an experiment: images, networks, samples, clones, grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import processes, records, schedules
from diffjax.data.images import ImageSet, load_images, prepare
from diffjax.networks import functional, network_denoiser, objectives, training
from diffjax.networks.mlp import MLPConfig, mlp
from diffjax.networks.objectives import Objective
from diffjax.networks.unet import UNetConfig, dynamical_regimes_unet, unet
from diffjax.noise import normal
from experiments.inputs import IMAGE_SETS, class_names, image_folder

T_MIN, T_MAX = 5e-3, 4.0
"""OU times of the noise levels of the modern recipe, and between which networks are cloned."""


@dataclass(frozen=True)
class Images:
    """Images in one random order, so that smaller training sets are nested in larger ones.

    Attributes:
        name: for titles.
        train: ``(n, d)``, with mean zero per channel.
        held_out: ``(m, d)``, the images that no network sees.
        shape: ``(H, W, C)``.
        mean: ``(C,)``, subtracted from both.
        convention: pixel convention, one sentence.
        train_labels: ``(n,)`` numbers of the classes; None for images without labels.
        held_out_labels: the same of the held-out images.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    shape: tuple[int, int, int]
    mean: np.ndarray
    convention: str
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


def images(
    data: str,
    root: str | None,
    classes: tuple[str, ...] | None,
    n: int | None = None,
    held_out: int | None = None,
) -> Images:
    """Training images and others of the embedded digits or of a file.

    Args:
        data: ``digits``, ``mnist``, ``fashion-mnist`` (zero-padded to 32 x 32), or a path.
        root: folder of the files of a set that is given by name.
        classes: chosen classes, all by default.
        n: training images; half of all by default.
        held_out: most other images; all that are left by default.

    Raises:
        ValueError: if there are fewer than ``n + 2`` images.
    """
    found = _read(data, root, None if classes is None else class_names(classes))
    total = len(found.points)
    n = total // 2 if n is None else n
    if total < n + 2:
        raise ValueError(f"n is {n}, but {data} has {total} images and 2 are held out")
    order = np.random.default_rng(0).permutation(total)
    order = order[: total if held_out is None else n + held_out]
    pixels = found.points[order].reshape(len(order), -1, found.shape[2])
    shift = pixels[:n].mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    points = (pixels - shift).reshape(len(order), -1)
    labels = (None, None)
    if found.labels is not None:
        labels = (found.labels[order[:n]], found.labels[order[n:]])
    name = data if classes is None else f"{data} {'/'.join(classes)}"
    mean = found.mean + shift
    return Images(name, points[:n], points[n:], found.shape, mean, found.convention, *labels)


def _read(data: str, root: str | None, classes: tuple | None) -> ImageSet:
    if data == "digits":
        from sklearn.datasets import load_digits

        raw = load_digits()
        return prepare(raw.images / 16, raw.target, classes=classes, dtype=np.float32)
    if data not in IMAGE_SETS and root is None:
        return load_images(Path(data), classes=classes, dtype=np.float32)
    pad = 32 if data in IMAGE_SETS else None
    return load_images(image_folder(data, root), classes=classes, pad=pad, dtype=np.float32)


def perceptron(dim: int, width: int, depth: int) -> Any:
    """``(network, initial(key))`` of an MLP on OU times; ``initial`` can be mapped over keys."""
    config = MLPConfig(dim, width=width, depth=depth)
    network, _ = functional(mlp(config))
    return network, lambda key: functional(mlp(config, key=key))[1]


def u_net(channels: int, width: int, multiples: tuple[int, ...]) -> Any:
    """``(network, initial(key))`` of a U-Net on step indices."""
    attention = tuple(level for level in (1, 2) if level < len(multiples))
    config = UNetConfig(channels, width=width, multiples=multiples, attention=attention)
    network, _ = functional(unet(config))
    return network, lambda key: functional(unet(config, key=key))[1]


def objective(recipe: str, network: str) -> Objective:
    """Objective of a recipe on the clock of a network: OU time for the MLP, else step indices."""
    listed = processes.variance_preserving(schedules.ddpm_linear())
    process = processes.ornstein_uhlenbeck() if network == "mlp" else listed
    if recipe == "published":
        return objectives.published(process)
    # a perceptron that predicts the image itself need not carry the noise through its layers
    kind = ("x0", "v") if network == "mlp" else ("v", "sigmoid")
    return objectives.modern(
        process, t_min=T_MIN, t_max=T_MAX, parametrisation=kind[0], weighting=kind[1]
    )


def time_range(goal: Objective) -> tuple[float, float]:
    """Smallest and largest OU time that is trained."""
    if isinstance(goal.levels, objectives.EvenLogSnr):
        return float(goal.levels.t_min), float(goal.levels.t_max)
    return float(goal.levels.times[0]), float(goal.levels.times[-1])


def diffusion(goal: Objective, network: Any, params: Any, shape: Any) -> diffjax.Diffusion:
    """A trained network as a data distribution, in the process that it was trained in."""
    data = network_denoiser(
        network,
        params,
        shape=shape,
        process=goal.process,
        parametrisation=goal.parametrisation,
        t_range=time_range(goal),
    )
    return diffjax.Diffusion(data, goal.process)


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


def denoisers(
    points: np.ndarray,
    shape: tuple[int, int, int],
    looks: tuple[int, ...],
    *,
    network: str = "mlp",
    width: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[diffjax.Diffusion, np.ndarray]]:
    """One network in training, as a `Diffusion` after each of several numbers of steps.

    Args:
        points: training images ``(n, d)``.
        shape: of an image, ``(H, W, C)``.
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
    key, event = jax.random.key(seed), shape if network == "unet" else points.shape[1:]
    recipe: dict[str, Any] = {"steps": looks[-1], "batch": min(128, len(points)), "seed": seed}
    if network == "unet":
        parts, size = functional(dynamical_regimes_unet(shape[2], key=key)), 1.0
        goal, config = objective("published", network), training.published(**recipe)
    else:
        parts = functional(mlp(MLPConfig(points.shape[1], width=width), key=key))
        size = float(np.sqrt(np.mean(np.square(points))))
        goal = objectives.modern(t_min=T_MIN, t_max=T_MAX)
        recipe |= {"learning_rate": learning_rate, "warm_up": min(200, looks[0] // 2)}
        config = training.modern(**recipe, ema=0.999, weight_decay=0.0)
    examples = (points / size).reshape(-1, *event).astype(np.float32)
    state = training.initial_state(parts[1], config)
    for steps in looks:
        config = replace(config, steps=steps)
        state, losses = training.train(state, parts[0], goal, examples, config, progress=progress)
        model = diffusion(goal, parts[0], training.trained_parameters(state), event).data
        rescaled = Rescaled(model, jnp.asarray(size, jnp.float32))
        yield diffjax.Diffusion(rescaled, diffjax.ornstein_uhlenbeck()), losses


@partial(jax.jit, static_argnames=("shape", "steps"))
def samples(key: jax.Array, model: Any, shape: tuple[int, int], steps: int) -> jax.Array:
    """Samples ``shape = (M, d)`` by the ancestral chain from pure noise, even in log snr."""
    key_start, key_path = jax.random.split(key)
    low, high = model.data.t_range
    times = schedules.backward_grid(schedules.log_snr(low, high, steps)).astype(jnp.float32)
    start = normal(key_start, shape, jnp.float32)
    x, _ = diffjax.backward(key_path, model, start, times, method="ancestral")
    return x


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


def draw_grid(axis: Any, points: np.ndarray, shape: tuple[int, int, int], mean: Any) -> None:
    """The first images of ``points`` as a square on one axis."""
    side = int(np.sqrt(len(points)))
    tiles = np.asarray(points[: side * side]).reshape(side, side, *shape)
    pixels = np.clip(tiles + np.asarray(mean), 0, 1)
    whole = np.pad(pixels, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)], constant_values=0.5)
    whole = whole.transpose(0, 2, 1, 3, 4).reshape(
        side * (shape[0] + 1), side * (shape[1] + 1), shape[2]
    )
    axis.imshow(whole[..., 0] if shape[2] == 1 else whole, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
