"""Images as labelled points: when each pair of classes is decided, and a conditional network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import records, schedules
from diffjax.observables.class_information import class_and_pair_information
from diffjax.observables.class_tracker import track_classes
from diffjax.observables.estimates import crossing
from experiments import inputs
from experiments.inputs import DataSet
from experiments.session import Curves

T_MIN, T_MAX = 5e-3, 4.0
"""OU times between which the network is trained and all trajectories run."""


@records.register
@dataclass(frozen=True)
class RescaledClasses:
    """A conditional denoiser of ``a / size`` as one of ``a``."""

    model: Any
    size: jax.Array

    @property
    def dim(self) -> int:
        """Dimension of the data."""
        return self.model.dim

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.model.classes

    @property
    def class_weights(self) -> jax.Array:
        """Prior weights of the classes."""
        return self.model.class_weights

    def denoise(self, x: jax.Array, scale: Any, std: Any) -> jax.Array:
        """Estimate of ``E[a | x]``."""
        size = self.size.astype(x.dtype)
        return size * self.model.denoise(x / size, scale, std / size)

    def class_denoise(self, x: jax.Array, scale: Any, std: Any) -> jax.Array:
        """Estimate of ``E[a | x, c]``."""
        size = self.size.astype(x.dtype)
        return size * self.model.class_denoise(x / size, scale, std / size)


def data_set(config: Any) -> DataSet:
    """Embedded digits or image files, all classes unless some are named."""
    if config.data == "digits":
        classes = config.classes or tuple(str(c) for c in range(10))
        return inputs.digits(classes, config.n, config.dtype)
    return inputs.image_files(
        config.data, config.root, config.classes or None, config.n, None, "all", config.dtype
    )


def measure(key: jax.Array, data: DataSet, config: Any) -> Curves:
    """Entropy, profiles and pairs of the empirical measure, sampled and tracked."""
    model = diffjax.Diffusion(
        diffjax.point_cloud(data.points, data.labels), diffjax.ornstein_uhlenbeck()
    )
    times = np.geomspace(*config.image_range, config.image_times).astype(config.dtype)
    sampled, tracked = jax.random.split(key)
    whole, pairs = class_and_pair_information(sampled, model, times, samples=config.image_states)
    estimates = [
        ("image_entropy", whole.entropy), ("image_rate", whole.rate),
        ("image_class_loss", whole.class_loss), ("image_class_loss_rate", whole.class_loss_rate),
        ("pair_entropy", pairs.entropy), ("pair_rate", pairs.rate),
    ]  # fmt: skip
    grid = track_grid(config)
    found: Curves = {"image_times": times, "image_grid": np.asarray(grid)}
    if config.image_paths:
        run = track_classes(tracked, model, grid, samples=config.image_paths)
        estimates += [("image_tracked_entropy", run.entropy), ("image_tracked_rate", run.rate)]
    for name, estimate in estimates:
        found[name] = np.asarray(estimate.mean)
        found[f"{name}_error"] = np.asarray(estimate.error)
    return found | {"class_weights": np.asarray(model.data.class_weights)}


def track_grid(config: Any) -> jax.Array:
    """Times of the trajectories, even in log snr."""
    times = schedules.log_snr(T_MIN, T_MAX, config.image_steps)[::-1]
    return jnp.asarray(times, config.dtype)


def network(
    key: jax.Array, data: DataSet, config: Any, progress: Callable[[int, int], None] | None
) -> Curves:
    """Train a conditional perceptron, and track the class through it alone."""
    from diffjax.networks import functional, objectives, training
    from diffjax.networks.conditional import (
        ConditionalMLPConfig,
        conditional_denoiser,
        conditional_mlp,
    )

    labels = data.labels
    labels = data.labels
    if labels is None:
        raise ValueError("a conditional network needs labels")
    key_weights, key_paths = jax.random.split(key)
    classes = len(data.class_names)
    size = float(np.sqrt(np.mean(np.square(data.points))))
    sizes = ConditionalMLPConfig(data.points.shape[1], classes, width=config.width)
    function, params = functional(conditional_mlp(sizes, key=key_weights))
    objective = objectives.modern(t_min=T_MIN, t_max=T_MAX)
    recipe = training.modern(
        steps=config.network_steps, batch=min(128, len(data.points)), learning_rate=1e-3,
        warm_up=min(200, config.network_steps // 2), ema=0.999, weight_decay=0.0, seed=config.seed,
    )  # fmt: skip
    points = (data.points / size).astype(np.float32)
    state, losses = training.train(
        training.initial_state(params, recipe), function.apply, objective, points, recipe,
        labels=labels, progress=progress,
    )  # fmt: skip
    model = conditional_denoiser(
        function.apply, training.trained_parameters(state), classes=classes,
        shape=data.points.shape[1], parametrisation=objective.parametrisation,
        class_weights=np.bincount(labels) / len(labels), t_range=(T_MIN, T_MAX),
    )  # fmt: skip
    rescaled = RescaledClasses(model, jnp.asarray(size, jnp.float32))
    grid = track_grid(config).astype(jnp.float32)
    run = track_classes(
        key_paths, diffjax.Diffusion(rescaled, diffjax.ornstein_uhlenbeck()), grid,
        samples=config.image_paths,
    )  # fmt: skip
    found: Curves = {"network_losses": losses[:: max(1, len(losses) // 200)]}
    for name in ("entropy", "rate", "mismatch"):
        estimate = getattr(run, name)
        found[f"network_{name}"] = np.asarray(estimate.mean)
        found[f"network_{name}_error"] = np.asarray(estimate.error)
    return found


def decision_times(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Times at which half of the information between two classes is there, ``(K, K)``, errors."""
    weights = measured["class_weights"]
    classes = len(weights)
    found = np.full((2, classes, classes), np.nan)
    for i in range(classes):
        for j in range(i):
            q = weights[i] / (weights[i] + weights[j])
            full = -q * np.log(q) - (1 - q) * np.log(1 - q)
            curve = measured["pair_entropy"][:, i, j] / full
            error = measured["pair_entropy_error"][:, i, j] / full
            found[:, i, j] = found[:, j, i] = crossing(
                np.log(measured["image_times"]), curve, error, 0.5
            )
    return np.exp(found[0]), np.exp(found[0]) * found[1]


def tree(times: np.ndarray) -> np.ndarray:
    """Average linkage of the classes by their decision times (scipy's format)."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if not np.all(np.isfinite(times[~np.eye(len(times), dtype=bool)])):
        raise FloatingPointError("a pair of classes is decided outside of the range of times")
    distance = np.where(np.eye(len(times), dtype=bool), 0, times)
    return linkage(squareform(distance), method="average")
