"""Images of two classes under the exact empirical score: class commitment, entropy and collapse.

MNIST 1 and 8, zero-padded to 32 x 32, n = 10,000, at the published steps of the DDPM schedule, in
OU time ("step s" has noise index s - 1). The clone agreement phi(t) and the collapse curves f^e and
phi_C follow from the exact posterior over the training images, beside the published agreement of a
trained network. Whole clones (diffjax.clones) test phi and phi_C: the same expectations, drawn.
Without --root the 8 x 8 digits 1 and 8 that come with scikit-learn are used, for which nothing is
published.

  python -m experiments images --root DIR          DIR holds the IDX files, or a folder mnist
  python -m experiments images                     embedded digits

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), figures 4 and 5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.collapse
import theory.speciation
from diffjax import schedules
from diffjax.observables import crossing
from diffjax.observables.collapse import collapse_curves, nearest_point
from diffjax.observables.speciation import CROSSING_LEVEL
from diffjax.observables.spectrum import covariance_spectrum
from experiments import inputs, published
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.inputs import DataSet
from experiments.session import Curves, Report, Session
from experiments.speciation import RARE, frequency
from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, line, number, points

STEPS = np.arange(50, 1001, 50)  # published steps, in increasing noise
SIDE = 32


@dataclass(frozen=True)
class Config:
    """Which images, and how large the samples are."""

    root: str | None = option(None, "folder of the MNIST IDX files; without it: embedded digits")
    classes: tuple[str, ...] = option(("1", "8"), "two or more digits", nargs="+", type=str)
    n: int = option(10_000, "training images in total (embedded digits: at most all there are)")
    states: int = option(1000, "noised images per time")
    clones: int = option(1000, "pairs of clones per time")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"states": 1000, "clones": 1000},
    "quick": {"states": 2000, "clones": 500},
    "paper": {"states": 4000, "clones": 1000},
}


def load(config: Config) -> DataSet:
    """MNIST from ``root`` in the published convention, or the embedded digits."""
    if config.root is None:
        data = inputs.digits(config.classes, None, config.dtype)
        n = min(config.n, len(data.points))
        return inputs.digits(config.classes, n, config.dtype)
    return inputs.image_files(
        "mnist", config.root, config.classes, config.n, SIDE, "all", config.dtype
    )


def times_of_steps() -> np.ndarray:
    """OU times of the published steps: step s has noise index ``s - 1``."""
    return np.asarray(schedules.ddpm_linear(), np.float64)[STEPS - 1]


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Spectrum, curves from the posterior over the images, and drawn clones."""
    data, times = load(config), times_of_steps()
    cloud = diffjax.point_cloud(data.points, data.labels)
    diffusion = diffjax.Diffusion(cloud, diffjax.ornstein_uhlenbeck())
    key_curves, key_clones = jax.random.split(jax.random.key(config.seed))
    tag = hashlib.sha256(np.ascontiguousarray(data.points).tobytes()).hexdigest()[:8]

    def curves() -> Curves:
        bar = session.progress("curves")
        found = collapse_curves(key_curves, diffusion, times, config.states, progress=bar)
        names = {
            "phi": found.clone_agreement, "excess": found.excess_entropy,
            "participation": found.participation, "own": found.own_nearest,
        }  # fmt: skip
        arrays = {name: np.asarray(estimate.mean) for name, estimate in names.items()}
        arrays |= {f"{name}_error": np.asarray(e.error) for name, e in names.items()}
        return arrays | {"unresolved": np.asarray(found.unresolved)}

    def spectrum() -> Curves:
        return {"eigenvalues": np.asarray(covariance_spectrum(data.points).eigenvalues)}

    def pairs() -> Curves:
        return _clones(key_clones, diffusion, times, config, session.progress("clones"))

    measured: dict[str, Any] = {"data": data, "times": times}
    for name, work in (("curves", curves), ("spectrum", spectrum), ("clones", pairs)):
        measured |= session.part(f"{name}-{tag}", work)
    return measured


def _clones(
    key: jax.Array, diffusion: diffjax.Diffusion, times: np.ndarray, config: Config, bar: Any
) -> Curves:
    """Fractions of pairs of clones that end in the same class, and on the same image."""
    cloud = diffusion.data
    observe = nearest_point(cloud, diffusion.process)
    found = []
    for i, t in enumerate(times):
        key_x, key_path = jax.random.split(jax.random.fold_in(key, i))
        x = diffusion.sample(key_x, t, config.clones)
        _, info = diffjax.clones(key_path, diffusion, x, [t, 0.0], observe=observe)
        image = info.observed[-1]  # (clones, 2): index of the image that each clone ends on
        label = cloud.labels[image]
        found.append([int(jnp.sum(c[:, 0] == c[:, 1])) for c in (label, image)])
        if bar is not None:
            bar(i + 1, len(times))
    arrays = {}
    for name, count in zip(("clone_phi", "clone_participation"), np.asarray(found).T):
        row = frequency(count, config.clones)
        arrays |= {name: row["phi"], f"{name}_error": row["phi_error"]}
    return arrays


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Times of the spectrum, and the excess entropy of Gaussian data with this spectrum."""
    n, dim = measured["data"].points.shape
    eigenvalues = np.zeros(dim)
    stored = np.asarray(measured["eigenvalues"], np.float64)
    eigenvalues[: len(stored)] = stored
    fine = np.geomspace(measured["times"][0], measured["times"][-1], 120)
    entropy = theory.collapse.spectrum_excess_entropy(fine, np.log(n), eigenvalues)
    spectral = float(theory.speciation.spectral_time(eigenvalues[0]))
    return {
        "fine_times": fine,
        "gaussian_excess": np.asarray(entropy, np.float64),
        "spectral_time": spectral,
        "spectral_index": schedules.step_index(schedules.ddpm_linear(), spectral),
        "gaussian_collapse_time": float(
            theory.collapse.spectrum_collapse_time(np.log(n), eigenvalues)
        ),
    }


def comparisons(config: Config, measured: dict[str, Any]) -> list[Comparison]:
    """Drawn clones against the posterior sums; two wrong readings; the published network."""
    phi, same = measured["phi"], measured["participation"]
    floor = np.sum(_class_fractions(measured["data"]) ** 2)
    found = [
        _drawn("clone_phi", measured, phi, config),
        _drawn("clone_participation", measured, same, config),
        # classes known only as far as the image itself is
        _drawn("clone_phi", measured, phi, config, same + (1 - same) * floor, "image only"),
        # chance that the own image is nearest, for the chance that clones end on one image
        _drawn("clone_participation", measured, same, config, measured["own"], "nearest image"),
    ]
    if _published(config):
        order = np.argsort(published.FIGURE_4_MNIST_TIMES)
        error = np.hypot(measured["phi_error"], published.FIGURE_4_MNIST_ERROR[order])
        found.append(
            compare(
                "phi of the published network", published.FIGURE_4_MNIST_AGREEMENT[order], error,
                phi, exact=False,
            )
        )  # fmt: skip
    return found


def _drawn(
    name: str, measured: dict[str, Any], exact: Any, config: Config, wrong: Any = None,
    label: str = "",
) -> Comparison:  # fmt: skip
    """Frequencies of clones against an expectation that is itself measured, on other states."""
    text = {"clone_phi": "in the same class", "clone_participation": "on the same image"}[name]
    source = {"clone_phi": "phi", "clone_participation": "participation"}[name]
    binomial = np.sqrt(np.clip(exact * (1 - exact), 0, None) / config.clones)
    error = np.hypot(binomial, measured[f"{source}_error"])
    normal = config.clones * np.minimum(exact, 1 - exact) >= RARE
    value = np.where(normal, measured[name], np.nan)
    if wrong is None:
        return compare(f"clones {text}, posterior", value, error, exact)
    return compare(f"clones {text}, {label}", value, error, wrong, control=True)


def _class_fractions(data: DataSet) -> np.ndarray:
    return np.bincount(np.asarray(data.labels)) / len(data.labels)


def _published(config: Config) -> bool:
    """Whether these are the published images."""
    return config.root is not None and (config.n, config.classes) == (10_000, ("1", "8"))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Speciation and collapse times by name, comparisons, one sentence."""
    data, times, found = measured["data"], measured["times"], comparisons(config, measured)
    n, dim = data.points.shape
    alpha = np.log(n) / dim
    floor = float(np.sum(_class_fractions(data) ** 2))
    level = floor + CROSSING_LEVEL * (1 - floor)
    t_phi, e_phi = crossing(times, measured["phi"], measured["phi_error"], level)
    t_same, e_same = crossing(
        times, measured["participation"], measured["participation_error"], 0.5
    )
    largest, t_s = float(measured["eigenvalues"][0]), predicted["spectral_time"]
    index = predicted["spectral_index"]
    where = "" if index is None else f" (index {index} of the DDPM schedule)"
    rows = [
        ("images", f"{data.name}: n = {n}, d = {dim}, alpha = {alpha:.4g}"),
        ("convention", data.convention),
        ("Lambda", f"{largest:.4f}; spectral time {number(t_s)}{where}"),
        (f"phi = {level:.3f}", f"t = {number(t_phi, e_phi)}"),
        ("phi_C = 1/2", f"t = {number(t_same, e_same)}"),
        ("t_C of the spectrum (bound)", number(predicted["gaussian_collapse_time"])),
    ]
    if config.root is None:
        rows.insert(1, ("note", "embedded digits, not MNIST: nothing published to compare with"))
    by_step = {
        str(step): {
            "t": times[i], "phi": measured["phi"][i], "phi_error": measured["phi_error"][i],
            "excess_over_alpha": measured["excess"][i] / alpha,
            "excess_over_alpha_error": measured["excess_error"][i] / alpha,
            "participation": measured["participation"][i],
            "participation_error": measured["participation_error"][i],
        }
        for i, step in enumerate(STEPS)
    }  # fmt: skip
    summary = {
        "data": data.name, "n": n, "dim": dim, "alpha": alpha, "convention": data.convention,
        "largest_eigenvalue": largest, "spectral_time": t_s, "spectral_index": index,
        "crossing_level": level, "crossing_time": t_phi, "crossing_error": e_phi,
        "participation_half_time": t_same, "participation_half_error": e_same,
        "gaussian_collapse_time": predicted["gaussian_collapse_time"],
        "unresolved_fraction": float(np.max(measured["unresolved"])), "published_steps": by_step,
    }  # fmt: skip
    curves, axes = _arrays(measured, predicted)
    finding = (
        f"On {data.name} (n = {n}) clones of the exact empirical score decide their class at "
        f"t = {number(t_phi, e_phi)} (spectral estimate {number(t_s)}) and their training image at "
        f"t = {number(t_same, e_same)}; drawn clones agree with the posterior (reduced chi-square "
        f"{found[0].chi_square:.2f} for the class, {found[1].chi_square:.2f} for the image)"
    )
    if _published(config):
        finding += (
            f", and a network trained on these images has the same phi(t) to within "
            f"{found[-1].discrepancy:.3f}"
        )
    return Report(
        finding=finding + ".", table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


_MEASURED = {
    "times": "OU times of the steps 50, 100, ..., 1000 (T,)",
    "phi": "clone agreement E sum_c p(c|x)^2 (T,)",
    "phi_error": "its standard error",
    "excess": "f^e, nats per dimension (T,)",
    "excess_error": "its standard error",
    "participation": "phi_C = E sum w^2 (T,)",
    "participation_error": "its standard error",
    "own": "probability that the own image is nearest (T,)",
    "own_error": "its standard error",
    "unresolved": "fraction of states whose weights were not resolved (T,)",
    "clone_phi": "fraction of drawn clones in the same class (T,)",
    "clone_phi_error": "its standard error",
    "clone_participation": "fraction of drawn clones on the same image (T,)",
    "clone_participation_error": "its standard error",
    "eigenvalues": "covariance eigenvalues of the images, descending",
}


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    curves = {key: np.asarray(measured[key]) for key in _MEASURED}
    curves |= {key: predicted[key] for key in ("fine_times", "gaussian_excess")}
    return curves, _MEASURED | {
        "fine_times": "OU times of the theory curve",
        "gaussian_excess": "f of Gaussian data of this spectrum (approximate), nats per dimension",
    }


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Clone agreement with the published network; excess entropy and participation."""
    import matplotlib.pyplot as plt

    data, times = measured["data"], measured["times"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    points(
        left, times, measured["clone_phi"], measured["clone_phi_error"], "drawn clones", ORANGE, "s"
    )
    points(left, times, measured["phi"], measured["phi_error"], "exact empirical score", BLUE, ".")
    if _published(config):
        points(
            left, published.FIGURE_4_MNIST_TIMES, published.FIGURE_4_MNIST_AGREEMENT,
            published.FIGURE_4_MNIST_ERROR, "published network", BLACK, "x",
        )  # fmt: skip
    floor = float(np.sum(_class_fractions(data) ** 2))
    left.axhline(floor + CROSSING_LEVEL * (1 - floor), color=BLACK, lw=0.6, ls=":")
    if np.isfinite(predicted["spectral_time"]):
        t_s = predicted["spectral_time"]
        left.axvline(t_s, color=PURPLE, lw=1.5, label=rf"$\frac{{1}}{{2}}\log\Lambda$ = {t_s:.3f}")
    left.set_ylabel(r"clone agreement $\phi(t)$")
    n, dim = data.points.shape
    alpha = np.log(n) / dim
    points(
        right, times, measured["excess"] / alpha, measured["excess_error"] / alpha,
        r"$f^e / \alpha$", GREEN, "^",
    )  # fmt: skip
    line(
        right, predicted["fine_times"], predicted["gaussian_excess"] / alpha,
        "Gaussian of this spectrum (approximate)", GREEN, "--",
    )  # fmt: skip
    points(
        right, times, measured["clone_participation"], measured["clone_participation_error"],
        "clones on one image", ORANGE, "s",
    )  # fmt: skip
    points(
        right, times, measured["participation"], measured["participation_error"],
        r"$\phi_C = E\sum w_\mu^2$", RED, ".",
    )  # fmt: skip
    right.set_ylim(-0.25, 1.08)
    right.axhline(0, color=BLACK, lw=0.7)
    right.set_ylabel("excess entropy over alpha, probability")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("Ornstein-Uhlenbeck time t")
        axis.legend(fontsize=8, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(f"{data.name}: n = {n}, d = {dim}", fontsize=10)
    return figure
