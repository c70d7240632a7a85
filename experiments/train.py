"""Train a network on images, with its error at every noise level on seen and on held-out images.

The squared error of the noise prediction, summed over pixels, lies between that of the exact score
of the training images (everything memorised) and that of the best linear denoiser (nothing but the
covariance learned) as long as the network does better than linear; its difference between held-out
and training images is the sign of memorisation. The error of the linear denoiser on the training
images is known exactly from their covariance and tests the measurement.

Loss curve, samples and checkpoints are written while the network is trained, to the subfolder
"training-..." of the output folder; --resume continues from the last good checkpoint and ends with
the same bits.

  python -m experiments train                                     8 x 8 digits, MLP
  python -m experiments train --data mnist --root DIR --classes 1 8 --network unet
  python -m experiments train --data images.npy --network unet --width 32 --multiples 1 2

Source: Ho, Jain, Abbeel 2020 (2006.11239); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import processes, schedules
from diffjax.networks import objectives, training
from diffjax.networks.loss_curve import read_losses
from diffjax.networks.objectives import Objective
from experiments import learned, recognition
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.learned import Images
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, BLUE, GREEN, RED, number, points

GRID = 25  # images of the sample grid


@dataclass(frozen=True)
class Config:
    """Data set, network and recipe."""

    data: str = option("digits", "digits, mnist, fashion-mnist, or a path to images or an array")
    root: str | None = option(None, "folder with the files of mnist or fashion-mnist")
    classes: tuple[str, ...] | None = option(None, "classes; all by default", nargs="+", type=str)
    n: int = option(1500, "training images")
    held_out: int = option(1000, "most images that are held out")
    network: str = option("mlp", "network", choices=("mlp", "unet"))
    width: int = option(256, "width of the MLP, or of the first level of the U-Net")
    depth: int = option(3, "layers of the MLP")
    multiples: tuple[int, ...] = option(
        (1, 2, 4, 4), "widths of the levels of the U-Net", nargs="+", type=int
    )
    recipe: str = option("modern", "training recipe", choices=("published", "modern"))
    steps: int = option(4000, "training steps")
    batch: int = option(128, "images per step")
    learning_rate: float | None = option(None, "learning rate; that of the recipe", type=float)
    warm_up: int | None = option(None, "steps of warm-up; that of the recipe", type=int)
    accumulate: int = option(1, "pieces that a batch is processed in")
    precision: str = option("float32", "arithmetic", choices=("float32", "bfloat16"))
    checkpoint_every: int = option(1000, "steps between checkpoints")
    levels: int = option(16, "noise levels at which the error is measured")
    images: int = option(2048, "noised images per level")
    chain: int = option(100, "steps of the sampler")
    classified: int = option(500, "samples that an independent classifier is shown")
    classifier_steps: int = option(600, "training steps of the classifier; 0 for no classifier")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "n": 200, "held_out": 200, "width": 32, "depth": 1, "steps": 60, "batch": 32,
        "warm_up": 10, "learning_rate": 3e-3, "checkpoint_every": 30, "levels": 6, "images": 1024,
        "chain": 20, "classifier_steps": 0,
    },
    "quick": {"warm_up": 100, "learning_rate": 3e-3},
    "paper": {
        "data": "mnist", "classes": ("1", "8"), "n": 10_000, "network": "unet", "width": 64,
        "recipe": "published", "steps": 100_000, "checkpoint_every": 5000, "images": 4096,
        "chain": 1000,
    },
}  # fmt: skip


def recipe(config: Config) -> training.TrainConfig:
    """The recipe with what the configuration changes of it."""
    changes = {
        name: getattr(config, name)
        for name in ("learning_rate", "warm_up")
        if getattr(config, name) is not None
    }
    preset = {"published": training.published, "modern": training.modern}[config.recipe]
    return preset(
        steps=config.steps,
        batch=config.batch,
        accumulate=config.accumulate,
        precision=config.precision,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
        **changes,
    )


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Trained parameters, errors at every noise level, samples."""
    data = learned.images(config.data, config.root, config.classes, config.n, config.held_out)
    if config.network == "mlp":
        network, initial = learned.perceptron(data.train.shape[1], config.width, config.depth)
        shape: Any = data.train.shape[1]
    else:
        network, initial = learned.u_net(data.shape[2], config.width, config.multiples)
        shape = data.shape
    goal = learned.objective(config.recipe, config.network)
    state, losses = _trained(config, session, data, (network, initial, shape), goal)
    params = training.trained_parameters(state)
    levels = session.part("levels", lambda: _levels(config, data, network, params, goal, shape))
    model = learned.diffusion(goal, network, params, shape)
    drawn = session.part("samples", lambda: {"samples": _samples(config, model, data)})
    seen = session.part("recognised", lambda: _recognised(config, model, data))
    return {"data": data, "losses": losses, "parameters": _count(params)} | levels | drawn | seen


def _trained(
    config: Config, session: Session, data: Images, parts: tuple, goal: Objective
) -> tuple[training.TrainState, np.ndarray]:
    """The final state and the losses of all steps, resumed if that is asked for."""
    network, initial, shape = parts
    folder = session.folder / f"training-{session.fingerprint}"
    if not session.resume and folder.exists():
        shutil.rmtree(folder)
    plan = recipe(config)
    params = initial(jax.random.fold_in(jax.random.key(config.seed), 1))
    state = training.resume(training.initial_state(params, plan), goal, plan, folder)
    events = data.train if config.network == "mlp" else data.train.reshape(-1, *data.shape)
    state, _ = training.train(
        state, network, goal, events, plan, folder=folder,
        progress=session.progress(f"training, {_count(params):,} parameters"),
        report=_reporter(config, folder, data, (network, shape), goal),
    )  # fmt: skip
    return state, read_losses(folder / "loss.csv")


def _reporter(
    config: Config, folder: Path, data: Images, parts: tuple, goal: Objective
) -> Callable[[training.TrainState], None]:
    """Draws samples and the loss so far at every checkpoint, to ``progress.png``."""
    network, shape = parts

    def report(state: training.TrainState) -> None:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        model = learned.diffusion(goal, network, training.trained_parameters(state), shape)
        drawn = _samples(config, model, data)
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        _draw_losses(left, read_losses(folder / "loss.csv"))
        learned.draw_grid(right, drawn, data.shape, data.mean)
        right.set_title(f"samples at step {int(state.step)}", fontsize=10)
        figure.savefig(folder / "progress.png", dpi=120)
        plt.close(figure)

    return report


def _samples(config: Config, model: Any, data: Images) -> np.ndarray:
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    return np.asarray(learned.samples(key, model, (GRID, data.train.shape[1]), config.chain))


def _recognised(config: Config, model: Any, data: Images) -> Curves:
    """Fractions of images that a classifier recognises; nothing without labels or classifier."""
    if not config.classifier_steps or data.train_labels is None:
        return {}
    key = jax.random.fold_in(jax.random.key(config.seed), 4)
    shape = (config.classified, data.train.shape[1])
    drawn = np.asarray(learned.samples(key, model, shape, config.chain))
    key = jax.random.fold_in(jax.random.key(config.seed), 5)
    found = recognition.recognise(key, data, drawn, config.classifier_steps)
    return {f"recognised_{name}": np.asarray(value) for name, value in found._asdict().items()}


def _levels(
    config: Config, data: Images, network: Any, params: Any, goal: Objective, shape: Any
) -> Curves:
    """Errors of the network, of the exact empirical score and of the best linear denoiser."""
    times = np.asarray(schedules.log_snr(learned.T_MIN, 3.0, config.levels))
    key = jax.random.fold_in(jax.random.key(config.seed), 3)
    event = (shape,) if isinstance(shape, int) else shape
    cloud = diffjax.point_cloud(data.train)
    exact = objectives.objective(processes.ornstein_uhlenbeck(), goal.levels, "x0", "eps")
    mean, basis, variances = _covariance(data.train)
    plans: dict[str, tuple[Any, Any, Any, np.ndarray]] = {
        "train": (goal, network, params, data.train.reshape(-1, *event)),
        "held_out": (goal, network, params, data.held_out.reshape(-1, *event)),
        "empirical": (exact, _empirical, cloud, data.train),
        "linear": (exact, _linear, (mean, basis, variances), data.train),
    }
    curves: Curves = {"times": times}
    for index, (name, (aim, function, weights, images)) in enumerate(plans.items()):
        found = objectives.noise_losses(
            jax.random.fold_in(key, index), aim, function, weights, jnp.asarray(images), times,
            samples=config.images, batch=min(256, config.images),
        )  # fmt: skip
        curves[name] = np.asarray(found.mean, np.float64)
        curves[f"{name}_error"] = np.asarray(found.error, np.float64)
    return curves


def _covariance(train: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, principal axes (columns) and variances of the training images."""
    mean = train.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(train.T.astype(np.float64), bias=True))
    values = np.clip(values, 0, None)
    found = [jnp.asarray(a, train.dtype) for a in (mean, vectors, values)]
    return found[0], found[1], found[2]


def _empirical(cloud: Any, x: jax.Array, time: jax.Array, *, key: Any = None) -> jax.Array:
    """The exact denoiser of the training images."""
    process = processes.ornstein_uhlenbeck()
    return cloud.denoise(x, process.scale(time), process.std(time))


def _linear(params: Any, x: jax.Array, time: jax.Array, *, key: Any = None) -> jax.Array:
    """The best linear denoiser: that of a Gaussian of the same mean and covariance."""
    mean, basis, variances = params
    process = processes.ornstein_uhlenbeck()
    scale, noise = process.scale(time)[:, None], process.variance(time)[:, None]
    y = jnp.matmul(x - scale * mean, basis, precision="highest")
    gain = scale * variances / (noise + jnp.square(scale) * variances)
    return mean + jnp.matmul(gain * y, basis.T, precision="highest")


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Error of the best linear denoiser, ``sum_i snr v_i / (1 + snr v_i)``, from the covariance."""
    train = measured["data"].train.astype(np.float64)
    variances = np.clip(np.linalg.eigvalsh(np.cov(train.T, bias=True)), 0, None)

    def error(times: np.ndarray, variances: np.ndarray) -> np.ndarray:
        snr = 1 / np.expm1(2 * times)[:, None]
        return np.sum(snr * variances / (1 + snr * variances), axis=1)

    times = measured["times"]
    fine = np.geomspace(times[0], times[-1], 200)
    return {
        "linear": error(times, variances),
        "isotropic": error(times, np.full_like(variances, variances.mean())),
        "fine_times": fine,
        "linear_fine": error(fine, variances),
    }


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """The measured error of a known denoiser against theory; a wrong covariance."""
    value, error = measured["linear"], measured["linear_error"]
    return [
        compare("error of the linear denoiser", value, error, predicted["linear"]),
        compare(
            "error of the linear denoiser, isotropic covariance", value, error,
            predicted["isotropic"], control=True,
        ),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Loss, errors by noise level, gap, one sentence."""
    data, losses, times = measured["data"], measured["losses"], measured["times"]
    found = comparisons(measured, predicted)
    tail = max(1, len(losses) // 20)
    first, last = float(np.mean(losses[:tail])), float(np.mean(losses[-tail:]))
    gap = measured["held_out"] - measured["train"]
    gap_error = np.hypot(measured["held_out_error"], measured["train_error"])
    at = int(np.argmax(gap / measured["train"]))
    rows = [
        ("images", f"{data.name}: n = {len(data.train)}, {len(data.held_out)} held out"),
        ("convention", data.convention),
        ("network", f"{config.network}, {measured['parameters']:,} parameters"),
        ("loss, first and last 5%", f"{first:.4g}, {last:.4g}"),
        (
            "largest relative gap",
            f"held out {number(measured['held_out'][at], measured['held_out_error'][at])}, train "
            f"{number(measured['train'][at], measured['train_error'][at])} at t = {times[at]:.3g}",
        ),
    ]
    summary = {
        "data": data.name, "n": len(data.train), "held_out": len(data.held_out),
        "parameters": measured["parameters"], "recipe": dataclasses.asdict(recipe(config)),
        "loss_first": first, "loss_last": last, "gap_time": float(times[at]),
        "gap": float(gap[at]), "gap_error": float(gap_error[at]),
        "relative_gap": float(gap[at] / measured["train"][at]),
    }  # fmt: skip
    seen = {
        name.removeprefix("recognised_"): [float(v) for v in np.atleast_1d(value)]
        for name, value in measured.items() if name.startswith("recognised_")
    }  # fmt: skip
    if seen:
        summary["recognised"] = {"above": recognition.CONFIDENT} | seen
        rows.append(("classifier", f"{number(*seen['accuracy'])} of held-out images right"))
        rows.append(
            ("recognised", ", ".join(f"{name.replace('_', ' ')} {number(*seen[name])}"
             for name in ("generated", "held_out", "gaussian")))
        )  # fmt: skip
    finding = (
        f"After {config.steps} steps the loss of the {config.network} fell from {first:.3g} to "
        f"{last:.3g}; its error on held-out {data.name} exceeds that on the {len(data.train)} "
        f"training images by at most {100 * gap[at] / measured['train'][at]:.0f}% (at t = "
        f"{times[at]:.2g})"
    )
    if seen:
        finding += (
            f"; an independent classifier recognises {number(*seen['generated'])} of its samples, "
            f"{number(*seen['held_out'])} of the held-out images and {number(*seen['gaussian'])} "
            "of Gaussian draws of the same covariance"
        )
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=finding + ".", table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(measured, predicted),
    )  # fmt: skip


_AXES = {
    "losses": "training loss of every step, weighted, per pixel",
    "times": "OU times of the noise levels (T,)",
    "train": "squared error of the noise prediction on training images, summed over pixels (T,)",
    "held_out": "the same on held-out images",
    "empirical": "the same of the exact empirical score on training images",
    "linear": "the same of the best linear denoiser on training images",
    "samples": "samples (M, d), pixels minus the mean of the training images",
}


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    curves = {name: np.asarray(measured[name]) for name in _AXES}
    axes = dict(_AXES)
    for name in ("train", "held_out", "empirical", "linear"):
        curves[f"{name}_error"] = measured[f"{name}_error"]
        axes[f"{name}_error"] = f"standard error of {name}"
    curves |= {name: predicted[name] for name in ("fine_times", "linear_fine")}
    axes |= {
        "fine_times": "OU times of the theory curve",
        "linear_fine": "exact error of the best linear denoiser on training images",
    }
    return curves, axes


def _draw_losses(axis: Any, losses: np.ndarray) -> None:
    """Mean and spread of the loss over pieces of the run."""
    pieces = np.array_split(losses, min(len(losses), 100))
    ends = np.cumsum([len(piece) for piece in pieces])
    axis.plot(ends, [np.mean(piece) for piece in pieces], color=BLUE, lw=1.2)
    axis.set_xlabel("step")
    axis.set_ylabel("loss per pixel")
    axis.set_yscale("log")


def draw(measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Loss curve, error by noise level, samples."""
    import matplotlib.pyplot as plt

    data, times = measured["data"], measured["times"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    _draw_losses(left, measured["losses"])
    middle.axhline(1, color=BLACK, lw=1.5, label="best linear denoiser, exact")
    for name, label, colour, marker in (
        ("linear", "best linear denoiser, measured", BLACK, "x"),
        ("held_out", "network, held-out images", RED, "o"),
        ("train", "network, training images", BLUE, "s"),
        ("empirical", "exact empirical score, training images", GREEN, "^"),
    ):
        value, error = (measured[key] / predicted["linear"] for key in (name, f"{name}_error"))
        points(middle, times, value, error, label, colour, marker)
    middle.set_xscale("log")
    middle.set_ylim(-0.03, None)
    middle.set_xlabel("Ornstein-Uhlenbeck time $t$")
    middle.set_ylabel(r"$E|z - \hat\epsilon|^2$ over that of the best linear denoiser")
    middle.legend(fontsize=8)
    learned.draw_grid(right, measured["samples"], data.shape, data.mean)
    right.set_title("samples", fontsize=10)
    return figure
