"""What the experiments with trained networks share: images, networks, samples, grids of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import processes, schedules
from diffjax.data.images import load_images, prepare
from diffjax.networks import functional, network_denoiser, objectives
from diffjax.networks.mlp import MLPConfig, mlp
from diffjax.networks.objectives import Objective
from diffjax.networks.unet import UNetConfig, unet
from diffjax.noise import normal
from experiments.inputs import class_names, image_folder

T_MIN, T_MAX = 1e-3, 5.0  # of the noise levels of the modern recipe


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
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    shape: tuple[int, int, int]
    mean: np.ndarray
    convention: str


def images(
    data: str, root: str | None, classes: tuple[str, ...] | None, n: int, held_out: int
) -> Images:
    """``n`` training images and up to ``held_out`` others of the embedded digits or of a file.

    Raises:
        ValueError: if there are fewer than ``n + 2`` images.
    """
    chosen = None if classes is None else class_names(classes)
    if data == "digits":
        from sklearn.datasets import load_digits

        raw = load_digits()
        found = prepare(raw.images / 16, raw.target, classes=chosen, dtype=np.float32)
    else:
        folder = image_folder(data, root) if data in ("mnist", "fashion-mnist") else Path(data)
        pad = 32 if data in ("mnist", "fashion-mnist") else None
        found = load_images(folder, classes=chosen, pad=pad, dtype=np.float32)
    if len(found.points) < n + 2:
        raise ValueError(f"n is {n}, but {data} has {len(found.points)} images and 2 are held out")
    order = np.random.default_rng(0).permutation(len(found.points))[: n + held_out]
    pixels = found.points[order].reshape(len(order), -1, found.shape[2])
    shift = pixels[:n].mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    points = (pixels - shift).reshape(len(order), -1)
    return Images(data, points[:n], points[n:], found.shape, found.mean + shift, found.convention)


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
    return objectives.modern(process, t_min=T_MIN, t_max=T_MAX)


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


@partial(jax.jit, static_argnames=("shape", "steps"))
def samples(key: jax.Array, model: Any, shape: tuple[int, int], steps: int) -> jax.Array:
    """Samples ``shape = (M, d)`` by the ancestral chain from pure noise, even in log snr."""
    key_start, key_path = jax.random.split(key)
    low, high = model.data.t_range
    times = schedules.backward_grid(schedules.log_snr(low, high, steps)).astype(jnp.float32)
    start = normal(key_start, shape, jnp.float32)
    x, _ = diffjax.backward(key_path, model, start, times, method="ancestral")
    return x


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
