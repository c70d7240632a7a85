"""Directions of a linear manifold that an empirical score loses, and what does not show it.

Gaussian data with two subspaces of different variance, seen by the exact score of N of them, in
variance-exploding coordinates x = y + sqrt(v) z. Three results, each beside the population.

* Condensation: the noise variance at which the participation ratio of a noised training point is
  1/2, against the number of points over two decades and the full random energy model (approximate
  at a few directions; reported). The published Gaussian energies are a control, and fail.
* Loss of subspaces: the retained posterior variance of each subspace at fresh points (medians).
  Which one goes first depends on the dimensions and on the place; both are named.
* The published panel, data of unit norm probed at x = 0: there the gap moves from the strong to the
  weak directions for every N, at the noise that the *population* has, because a shell is seen from
  its centre. Its two eigenvalues are known exactly. It is no evidence of memorisation.

Source: Achilli et al. 2024 (2410.08727); Ventura et al. 2025 (2410.05898).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.manifold
from diffjax.noise import normal
from diffjax.observables import geometry
from diffjax.posterior_sums import point_blocks, posterior_sums
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.geometric_memorisation_figure import AXES, draw
from experiments.session import Curves, Report, Session
from experiments.style import number

VARIANCES = (1.0, 0.09)
REST = 1e-4  # variance of the directions outside both subspaces
PLACES = ("train", "fresh")


@dataclass(frozen=True)
class Config:
    """Sizes of the data sets; the variances are 1, .09 and 1e-4 (deviations 1, .3, .01)."""

    first: tuple[int, ...] = option((2, 5), "d_1, d_2 of the first family", nargs=2, type=int)
    second: tuple[int, ...] = option((10, 5), "the same of the second", nargs=2, type=int)
    dim: int = option(30, "dimension of the space")
    sizes: tuple[int, ...] = option(
        (100, 316, 1000, 3162, 10_000), "numbers of training points N", nargs="+", type=int
    )
    shown: int = option(1000, "N of the spectra and of the retained variance")
    grid: int = option(40, "noise variances")
    sets: int = option(10, "independent data sets")
    states: int = option(120, "states per data set and place")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"sizes": (100, 1000), "grid": 10, "sets": 8, "states": 24},
    "quick": {},
    "paper": {"sizes": (250, 1000, 4000, 20_000), "grid": 150, "sets": 10, "states": 400},
}


def families(config: Config) -> dict[str, tuple[int, int]]:
    """Name and dimensions of the two families."""
    if config.sets < 2:
        raise ValueError(f"sets is {config.sets}; errors between sets need at least 2")
    if config.shown not in config.sizes:
        raise ValueError(f"shown is {config.shown}, expected one of sizes {config.sizes}")
    found = {"first": tuple(config.first), "second": tuple(config.second)}
    for name, dims in found.items():
        if sum(dims) >= config.dim:
            raise ValueError(f"{name} has {sum(dims)} directions, expected fewer than {config.dim}")
    return found  # type: ignore[return-value]


def spectrum(dims: tuple[int, int], dim: int | None = None) -> np.ndarray:
    """Variances of all directions, the strong ones first; without the rest if ``dim`` is None."""
    inside = np.repeat(VARIANCES, dims)
    return inside if dim is None else np.pad(inside, (0, dim - len(inside)), constant_values=REST)


def full_rem(n: int, dims: tuple[int, int]) -> float:
    """Collapse of the full random energy model, third subspace left out."""
    return float(theory.manifold.collapse_variance(np.log(n), spectrum(dims)))


def noise_grid(config: Config, n: int, dims: tuple[int, int]) -> np.ndarray:
    """Noise variances around the collapse."""
    return np.geomspace(0.12, 4.0, config.grid) * full_rem(n, dims)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Condensation and retained variance of every size, spectra of one, the centre of a shell."""
    measured: dict[str, Any] = {}
    root = jax.random.key(config.seed)
    for i, (family, dims) in enumerate(families(config).items()):
        for j, n in enumerate(config.sizes):
            key = jax.random.fold_in(jax.random.fold_in(root, i), j)
            name = f"{family}_{n}"
            bar = session.progress(f"{dims}, N = {n}")
            part = session.part(name, partial(_condensation, key, dims, n, config, bar))
            measured |= {f"{k}_{name}": v for k, v in part.items()}
    measured |= session.part("spectra", partial(_spectra, jax.random.fold_in(root, 101), config))
    for j, n in enumerate(config.sizes):
        part = session.part(
            f"centre_{n}", partial(_centre, jax.random.fold_in(root, 200 + j), n, config)
        )
        measured |= {f"{k}_{n}": v for k, v in part.items()}
    return measured


def _condensation(
    key: jax.Array, dims: tuple[int, int], n: int, config: Config, bar: Any
) -> Curves:
    """Participation ``(sets, places, V)`` and retained variance ``(sets, states, V, 2)``."""
    v = noise_grid(config, n, dims)
    participation, retained = [], []
    for i in range(config.sets):
        found = _one_set(
            jax.random.fold_in(key, i), jnp.asarray(v, config.dtype), dims, n, config.states
        )
        participation.append(found[0])
        retained.append(found[1])
        if bar is not None:
            bar(i + 1, config.sets)
    return {
        "v": v,
        "participation": np.asarray(participation, np.float64),
        "retained": np.asarray(retained, np.float64),
    }


@partial(jax.jit, static_argnames=("dims", "n", "states"))
def _one_set(
    key: jax.Array, v: jax.Array, dims: tuple[int, int], n: int, states: int
) -> tuple[jax.Array, jax.Array]:
    """Mean ``Y_2`` at both places ``(2, V)``, ``rho_k`` at fresh points ``(states, V, 2)``."""
    dtype = v.dtype
    deviation = jnp.asarray(np.sqrt(spectrum(dims)), dtype)
    key_points, key_fresh, key_noise = jax.random.split(key, 3)
    points = deviation * normal(key_points, (n, deviation.size), dtype)
    fresh = deviation * normal(key_fresh, (states, deviation.size), dtype)
    origin = jnp.concatenate([points[jnp.arange(states) % n], fresh])
    blocks = point_blocks(points)
    values = jnp.concatenate([points, jnp.square(points)], axis=1)
    member = jnp.asarray(np.repeat(np.eye(2), dims, axis=0), dtype)
    strength = jnp.asarray(VARIANCES, dtype)

    def at(item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        i, v = item
        x = origin + jnp.sqrt(v) * normal(jax.random.fold_in(key_noise, i), origin.shape, dtype)
        # few directions: rounding is far below the errors
        sums = posterior_sums(blocks, x, 1.0, jnp.sqrt(v), values=values, top=0, refine=False)
        mean, square = jnp.split(sums.mean, 2, axis=-1)
        variance = (square - jnp.square(mean))[states:] @ member
        population = jnp.asarray(dims, dtype) * v * strength / (v + strength)
        return sums.participation.reshape(2, states).mean(1), variance / population

    participation, retained = jax.lax.map(at, (jnp.arange(v.size), v))
    return participation.T, jnp.swapaxes(retained, 0, 1)


def _spectra(key: jax.Array, config: Config) -> Curves:
    """Median sorted spectra of the first family, ``(places, V, d)``, and of the population."""
    dims, n = tuple(config.first), config.shown
    v = np.geomspace(3e-3, 10, min(config.grid, 24))
    variances = spectrum(dims, config.dim)  # type: ignore[arg-type]
    population = diffjax.gaussian_mixture(
        [1.0], np.zeros((1, config.dim), config.dtype), variances[None]
    )
    key_points, key_fresh, key_noise = jax.random.split(key, 3)
    cloud = diffjax.point_cloud(population.sample(key_points, n))
    process = diffjax.variance_exploding()
    states = min(config.states, 40)
    origins = {
        "train": cloud.points[:states],
        "fresh": population.sample(key_fresh, states),
        "zero": jnp.zeros((1, config.dim), config.dtype),
    }
    names, noise = list(origins), np.sqrt(v).astype(config.dtype)[:, None, None]
    count = [len(o) for o in origins.values()]
    stacked = jnp.concatenate(list(origins.values()))
    z = normal(key_noise, (len(v), len(stacked), config.dim), config.dtype)
    x = stacked + noise * z * (jnp.arange(len(stacked)) < sum(count[:2]))[:, None]
    both = geometry.controlled_spectrum(
        diffjax.Diffusion(cloud, process), diffjax.Diffusion(population, process),
        x, np.asarray(process.time(np.sqrt(v)))[:, None],
    )  # fmt: skip
    pieces = np.split(np.asarray(both.empirical.normalised, np.float64), np.cumsum(count)[:-1], 1)
    out = {f"spectrum_{name}": np.median(piece, axis=1) for name, piece in zip(names, pieces)}
    control = np.asarray(both.population.normalised, np.float64).mean(1)
    return {"spectrum_v": v, **out, "spectrum_population": control}


def _centre(key: jax.Array, n: int, config: Config) -> Curves:
    """Data of unit norm seen from 0: means of its covariance eigenvalues, and the gap switch."""
    dims = tuple(config.first)
    deviation = np.sqrt(spectrum(dims, config.dim))  # type: ignore[arg-type]
    found, switch = [], []
    for i in range(config.sets):
        y = np.asarray(normal(jax.random.fold_in(key, i), (n, config.dim), config.dtype), float)
        y = y * deviation
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        square = np.mean(y**2, axis=0)
        groups = np.split(square, np.cumsum(dims))
        found.append([groups[0].mean(), groups[1].mean()])
        switch.append(gap_switch(np.linalg.eigvalsh(np.cov(y.T, bias=True)), dims))
    return {"centre": np.asarray(found), "switch": np.asarray(switch)}


def gap_switch(eigenvalues: np.ndarray, dims: tuple[int, ...]) -> float:
    """Where, going down in v, the gap of the weak directions overtakes the other at x = 0."""
    d, (strong, weak) = len(eigenvalues), dims
    c = np.sort(eigenvalues)[::-1]
    v = np.geomspace(2.0, 0.05, 4000) * (c[0] + c[strong]) / 2
    values = np.sort(np.abs(1 - c / v[:, None]), axis=1)[:, ::-1]
    gap = values[:, :-1] - values[:, 1:]
    overtakes = gap[:, d - weak - 1] > gap[:, d - strong - 1]
    return float(v[np.argmax(overtakes)]) if overtakes.any() else float("nan")


def half(v: np.ndarray, curve: np.ndarray) -> float:
    """Noise variance at which a curve passes 1/2, log-interpolated; NaN if it does not."""
    side = curve > 0.5
    change = np.flatnonzero(side[1:] != side[:-1])
    if not change.size:
        return float("nan")
    i = change[-1]
    part = (0.5 - curve[i]) / (curve[i + 1] - curve[i])
    return float(np.exp(np.log(v[i]) + part * np.log(v[i + 1] / v[i])))


def halves(v: np.ndarray, curves: np.ndarray) -> tuple[float, float]:
    """Mean of `half` over data sets ``(sets, V)`` and its standard error."""
    found = np.array([half(v, curve) for curve in curves])
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


def median_halves(v: np.ndarray, retained: np.ndarray) -> np.ndarray:
    """Half of the pooled median of both subspaces, its error by bootstrap of the sets; (2, 2)."""
    rng = np.random.default_rng(0)
    sets = len(retained)
    draws = [np.arange(sets), *(rng.integers(0, sets, sets) for _ in range(60))]
    found = []
    for chosen in draws:
        medians = np.median(retained[chosen].reshape(-1, len(v), 2), axis=0)
        found.append([half(v, medians[:, k]) for k in range(2)])
    return np.stack([found[0], np.nanstd(found[1:], axis=0, ddof=1)], axis=1)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Collapse of the full model and of Gaussian energies; eigenvalues of data of unit norm."""
    predicted: dict[str, Any] = {}
    fine = np.geomspace(min(config.sizes), max(config.sizes), 60)
    for family, dims in families(config).items():
        variances = spectrum(dims)
        for label, n in (("", np.asarray(config.sizes, float)), ("_fine", fine)):
            predicted[f"rem{label}_{family}"] = np.asarray(
                theory.manifold.collapse_variance(np.log(n), variances), np.float64
            )
            energies = theory.manifold.direction_collapse_variances(np.log(n), variances)
            predicted[f"energies{label}_{family}"] = np.asarray(energies, np.float64)[:, 0]
    unit = theory.manifold.unit_norm_variances(spectrum(tuple(config.first), config.dim))  # type: ignore[arg-type]
    predicted["fine_sizes"] = fine
    predicted["unit_norm"] = np.asarray(unit, np.float64)[[0, config.first[0]]]
    return predicted


def slope(sizes: Any, values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Exponent of a power law in N, least squares in logarithms, and its standard error."""
    x, y = np.log(sizes), np.log(values)
    weight = (values / errors) ** 2
    centred = x - np.average(x, weights=weight)
    norm = np.sum(weight * centred**2)
    return float(np.sum(weight * centred * y) / norm), float(norm**-0.5)


def condensation_points(config: Config, measured: dict[str, Any]) -> dict[str, np.ndarray]:
    """Half-participation against N, ``(N, 2)`` value and error, for each place and family."""
    return {
        f"{place}_{family}": np.array([
            halves(measured[f"v_{family}_{n}"], measured[f"participation_{family}_{n}"][:, k])
            for n in config.sizes
        ])
        for family in families(config)
        for k, place in enumerate(PLACES)
    }  # fmt: skip


def comparisons(config: Config, measured: dict, predicted: dict, found: dict) -> list[Comparison]:
    """Exact eigenvalues of the shell; full model reported; two wrong theories that must fail."""
    centre = np.stack([measured[f"centre_{n}"] for n in config.sizes])  # (N, sets, 2)
    value, error = centre.mean(1), centre.std(1, ddof=1) / np.sqrt(config.sets)
    raw = spectrum(tuple(config.first), config.dim)  # type: ignore[arg-type]
    wrong = np.array(VARIANCES) / raw.sum()
    exact = np.broadcast_to(predicted["unit_norm"], value.shape)
    wrong = np.broadcast_to(wrong, value.shape)
    # both eigenvalues come from the same data sets: the strong ones are taken
    out = [
        compare("strong variance of data of unit norm", value[:, 0], error[:, 0], exact[:, 0]),
        compare(
            "strong variance, variances divided by their sum", value[:, 0], error[:, 0],
            wrong[:, 0], control=True,
        ),
    ]  # fmt: skip
    for family, dims in families(config).items():
        half_v, half_error = found[f"train_{family}"].T
        label = f"half participation of training points, {dims}"
        rem, energies = predicted[f"rem_{family}"], predicted[f"energies_{family}"]
        out.append(compare(f"{label}, full REM", half_v, half_error, rem, exact=False))
        if family == "first":
            name = f"{label}, Gaussian energies"
            out.append(compare(name, half_v, half_error, energies, control=True))
    return out


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Half-variances with errors, exponents, which subspace goes first and where."""
    found = condensation_points(config, measured)
    summary: dict[str, Any] = {"variances": list(VARIANCES), "dim": config.dim}
    rows = []
    for family, dims in families(config).items():
        entry: dict[str, Any] = {"dims": list(dims), "sizes": list(config.sizes)}
        for place in PLACES:
            value, error = found[f"{place}_{family}"].T
            ratio = value / predicted[f"rem_{family}"]
            power, power_error = slope(config.sizes, value, error)
            entry |= {
                f"{place}_half": value, f"{place}_half_error": error,
                f"{place}_over_full_rem": ratio, f"{place}_exponent": power,
                f"{place}_exponent_error": power_error,
            }  # fmt: skip
            rows.append((
                f"{dims}, {place}: v(Y_2 = 1/2) / v_c(full REM)",
                ", ".join(f"N = {n}: {number(r, e / v * r)}" for n, r, v, e in
                          zip(config.sizes, ratio, value, error)),
            ))  # fmt: skip
        rem = predicted[f"rem_{family}"]
        entry["full_rem"] = rem
        entry["full_rem_exponent"] = slope(config.sizes, rem, found[f"train_{family}"][:, 1])[0]
        rows.append((
            f"{dims}: exponent d log v / d log N",
            f"train {number(entry['train_exponent'], entry['train_exponent_error'])}, fresh "
            f"{number(entry['fresh_exponent'], entry['fresh_exponent_error'])}, full REM "
            f"{entry['full_rem_exponent']:.4f}",
        ))  # fmt: skip
        lost = np.stack([
            median_halves(measured[f"v_{family}_{n}"], measured[f"retained_{family}_{n}"])
            for n in config.sizes
        ])  # fmt: skip
        entry["median_retained_half_by_size"] = lost
        entry["median_retained_half"] = lost[config.sizes.index(config.shown)]
        rows.append((
            f"{dims}, fresh: v of median retained variance 1/2, strong; weak",
            ", ".join(f"N = {n}: {number(*row[0])}; {number(*row[1])}"
                      for n, row in zip(config.sizes, lost)),
        ))  # fmt: skip
        summary[family] = entry
    switch = np.array([np.nanmean(measured[f"switch_{n}"]) for n in config.sizes])
    summary["population_switch"] = float(predicted["unit_norm"].sum() / 2)
    summary["switch"] = switch
    rows.append((
        "unit norm at x = 0: switch of the gap",
        f"population {summary['population_switch']:.4f}; "
        + ", ".join(f"N = {n}: {s:.3f}" for n, s in zip(config.sizes, switch)),
    ))  # fmt: skip
    curves = _curves(config, measured, predicted, found)
    checks = comparisons(config, measured, predicted, found)
    return Report(
        finding=_finding(config, summary, predicted), table=rows, summary=summary, curves=curves,
        axes={key: _axis(key) for key in curves}, comparisons=checks,
        figure=lambda: draw(config, curves, families(config), summary),
    )  # fmt: skip


def _finding(config: Config, summary: dict[str, Any], predicted: dict[str, Any]) -> str:
    first = summary["first"]
    ratio, i = first["train_over_full_rem"], config.sizes.index(config.shown)
    wrong = predicted["energies_first"][i] / first["train_half"][i]
    texts = []
    for family in ("first", "second"):
        (strong, e1), (weak, e2) = summary[family]["median_retained_half"]
        texts.append(f"{number(strong, e1)} (strong) and {number(weak, e2)} (weak) for dimensions "
                     f"{tuple(summary[family]['dims'])}")  # fmt: skip
    return (
        f"For dimensions {tuple(first['dims'])} noised training points condense at "
        f"{ratio.min():.2f} to {ratio.max():.2f} times the noise variance of the full random "
        f"energy model and fall with the number of points with the exponent "
        f"{number(first['train_exponent'], first['train_exponent_error'])} (model "
        f"{first['full_rem_exponent']:.3f}), while Gaussian energies are {wrong:.0f} times too "
        f"large; at fresh points the median retained variance of N = {config.shown} passes 1/2 "
        f"at v = {' and '.join(texts)}, so that no general order of loss follows; the switch of "
        f"the gap at x = 0 for data of unit norm is at {summary['population_switch']:.3f} in the "
        f"population and near it for every N, so it is no sign of memorisation."
    )


def _curves(config: Config, measured: dict, predicted: dict, found: dict) -> Curves:
    curves: Curves = {key: np.asarray(v) for key, v in measured.items() if "spectrum" in key}
    curves |= {key: np.asarray(v) for key, v in predicted.items()}
    curves |= {f"half_{key}": value for key, value in found.items()}
    curves["sizes"] = np.asarray(config.sizes, float)
    for family in families(config):
        name = f"{family}_{config.shown}"
        retained = measured[f"retained_{name}"].reshape(-1, config.grid, 2)
        curves[f"retained_v_{family}"] = measured[f"v_{name}"]
        curves[f"retained_quartiles_{family}"] = np.quantile(retained, [0.25, 0.5, 0.75], axis=0)
    return curves


def _axis(key: str) -> str:
    for start, text in AXES.items():
        if key.startswith(start):
            return text
    raise KeyError(key)
