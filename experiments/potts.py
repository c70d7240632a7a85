"""First-order ordering of three-colour Potts data, in the data themselves and under noise.

Sites of q = 3 colours with P0 ~ exp(beta sum_c N_c^2 / 2d). Measured: the law of the largest
colour count of clean samples, and of samples that exact backward trajectories end on; the coupling
at which ordered and disordered samples are equally frequent, for several d (the two coexist
there); under noise at a larger coupling, how often two clones end with the same dominant colour,
and their overlap. Theory: the law of the counts is exact at every d, the overlap of two clones is
the squared posterior mean; beta_c, the coupling of coexistence, is approached for large d, as are
the formulas for clones and for the spectral time. Controls: the coupling at which the ordered state
appears and the one at which the disordered state becomes unstable, neither of which is the
transition (with the same shift of finite size), and the law at half of the coupling.

Source: Wu 1982 (Rev. Mod. Phys. 54, 235); Biroli, Mezard 2023 (2306.03518).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.channel
import theory.many_classes
import theory.mean_field
import theory.potentials
from diffjax.data.potts import colour_counts
from diffjax.observables import crossing
from experiments.command_line import option
from experiments.comparison import compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, GREEN, ORANGE, RED, line, number, points

Q = 3
ROWS = 500  # clean samples drawn at once
FEWEST = 10.0  # expected samples in a cell of the chi-square
START = 2.0  # backward chains from the speciation time plus this
OU = diffjax.ornstein_uhlenbeck()


@dataclass(frozen=True)
class Config:
    """Sizes, couplings and samples."""

    dims: tuple[int, ...] = option((64, 256, 1024, 2048), "sites", nargs="+", type=int)
    couplings: tuple[float, ...] = option(
        (-14.0, -10.0, -7.0, -4.0, -1.0, 2.0), "d (beta - beta_c)", nargs="+", type=float
    )
    samples: int = option(10_000, "clean samples per size and coupling")
    noise_dim: int = option(64, "sites under noise")
    noise_beta: float = option(3.2, "coupling under noise, above beta_c")
    states: int = option(2000, "noised states per time, one pair of clones each")
    times: int = option(6, "branching times")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (64, 512), "couplings": (-14.0, -8.0, -3.0, 2.0), "samples": 2000,
        "noise_dim": 32, "states": 500, "times": 4,
    },
    "quick": {},
    "paper": {"dims": (64, 256, 1024, 4096), "samples": 50_000, "states": 10_000},
}  # fmt: skip


def critical() -> theory.mean_field.PottsTransition:
    """Coexistence, jump, spinodal and instability as numbers."""
    return type(theory.mean_field.potts_transition(Q))(
        *(float(v) for v in theory.mean_field.potts_transition(Q))
    )


def betas(config: Config, dim: int) -> np.ndarray:
    """Couplings at which clean samples of one size are drawn."""
    return critical().beta + np.sort(np.asarray(config.couplings)) / dim


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Clean samples for every size, then everything under noise."""
    keys = jax.random.split(jax.random.key(config.seed), 1 + len(config.dims))
    measured: dict[str, Any] = {}
    for dim, key in zip(config.dims, keys[1:]):
        found = session.part(f"clean-d{dim}", partial(_clean, key, dim, config))
        measured[f"largest_d{dim}"] = found["largest"]
    return measured | session.part("noise", lambda: _noise(keys[0], config))


def _clean(key: jax.Array, dim: int, config: Config) -> Curves:
    """Histogram of the largest colour count at every coupling, ``(couplings, d + 1)``."""
    histograms = []
    for i, beta in enumerate(betas(config, dim)):
        data = diffjax.potts(dim, Q, beta, dtype=config.dtype)
        histogram = np.zeros(dim + 1, np.int64)
        for start in range(0, config.samples, ROWS):
            row = jax.random.fold_in(jax.random.fold_in(key, i), start)
            largest = np.asarray(_largest(data, row))[: config.samples - start]
            histogram += np.bincount(largest, minlength=dim + 1)
        histograms.append(histogram)
    return {"largest": np.asarray(histograms)}


@jax.jit
def _largest(data: Any, key: jax.Array) -> jax.Array:
    counts = colour_counts(data.sample(key, ROWS), Q)
    return jnp.round(jnp.max(counts, axis=-1)).astype(jnp.int32)


def noise_times(config: Config) -> np.ndarray:
    """Branching times around the spectral time of large d."""
    return _spectral_time(config) + np.linspace(-0.7, 1.3, config.times)


def _spectral_time(config: Config) -> float:
    """``log(d m^2 / q) / 2``."""
    norm = float(theory.mean_field.potts_class_norm(config.noise_dim, Q, config.noise_beta))
    return 0.5 * float(np.log(norm**2 / (Q - 1)))


def _noise(key: jax.Array, config: Config) -> Curves:
    """Clones at every time, the ends of full backward chains, the spectrum of the data."""
    dim, dtype = config.noise_dim, config.dtype
    data = diffjax.potts(dim, Q, config.noise_beta, dtype=dtype)
    diffusion = diffjax.Diffusion(data, OU)
    times = noise_times(config)
    key_top, key_chain, key_clean, key = jax.random.split(key, 4)
    rows = []
    for i, t in enumerate(times.astype(dtype)):
        key_x, key_path = jax.random.split(jax.random.fold_in(key, i))
        x = diffusion.sample(key_x, t, config.states)
        ends, _ = diffjax.clones(key_path, diffusion, x, jnp.asarray([t, t / 2, 0], dtype))
        rows.append((*_same_colour(ends), *_overlap(ends, diffusion.denoise(x, t))))
    top = times[0] + START
    x = diffusion.sample(key_top, np.asarray(top, dtype), config.states)
    ends, _ = diffjax.backward(key_chain, diffusion, x, jnp.asarray([top, top / 2, 0], dtype))
    largest = np.asarray(colour_counts(ends, Q)).max(-1).round().astype(int)
    names = ("phi", "phi_error", "overlap", "overlap_error", "expected_overlap")
    clean = np.asarray(colour_counts(data.sample(key_clean, 4 * config.states), Q), np.float64)
    return {
        "noise_times": times,
        "chain_largest": np.bincount(largest, minlength=dim + 1),
        **dict(zip(names, np.asarray(rows).T)),
        **dict(zip(("eigenvalue", "eigenvalue_error"), _mean(_between(clean, dim)))),
    }


def _same_colour(ends: jax.Array) -> tuple[float, float]:
    """Fraction of pairs with the same dominant colour, ties shared, and its standard error."""
    counts = np.asarray(colour_counts(ends, Q)).round()
    dominant = (counts == counts.max(-1, keepdims=True)).astype(float)
    dominant /= dominant.sum(-1, keepdims=True)
    same = (dominant[:, 0] * dominant[:, 1]).sum(-1)
    return _mean(same)


def _overlap(ends: jax.Array, mean: jax.Array) -> tuple[float, float, float]:
    """``a . a' / d`` of clones, the error of its distance to ``|E a|^2 / d``, and the latter."""
    a, centre = np.asarray(ends, np.float64), np.asarray(mean, np.float64)
    sites = a.shape[-1] // Q
    overlap, expected = (a[:, 0] * a[:, 1]).sum(-1) / sites, (centre**2).sum(-1) / sites
    return overlap.mean(), _mean(overlap - expected)[1], expected.mean()


def _between(counts: np.ndarray, dim: int) -> np.ndarray:
    """``sum_c (N_c - d/q)^2 / d (q - 1)``, whose mean is the eigenvalue between the colours.

    It has q - 1 eigenvectors, uniform over the sites.
    """
    return ((counts - dim / Q) ** 2).sum(-1) / (dim * (Q - 1))


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def law_of_counts(dim: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """All colour counts ``(q, K)`` and their probabilities."""
    from scipy.special import gammaln

    first, second = np.meshgrid(*[np.arange(dim + 1)] * 2, indexing="ij")
    kept = first + second <= dim
    counts = np.stack([first[kept], second[kept], dim - first[kept] - second[kept]])
    log_p = np.sum(beta * counts**2 / (2 * dim) - gammaln(counts + 1), axis=0)
    p = np.exp(log_p - log_p.max())
    return counts, p / p.sum()


def law_of_largest(dim: int, beta: float) -> np.ndarray:
    """Exact law of the largest count, ``(d + 1,)``, by summation over all counts."""
    counts, p = law_of_counts(dim, beta)
    return np.bincount(counts.max(0), p, minlength=dim + 1)


def order(dim: int) -> np.ndarray:
    """Order parameter ``(q max_c N_c / d - 1) / (q - 1)`` of every largest count."""
    return (Q * np.arange(dim + 1) / dim - 1) / (Q - 1)


def ordered(law: np.ndarray) -> np.ndarray:
    """Share of samples with an order parameter beyond half of the jump."""
    return law[..., order(law.shape[-1] - 1) > critical().magnetization / 2].sum(-1)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact laws of the counts; large-d clone agreement and times."""
    predicted: dict[str, Any] = {}
    for dim in config.dims:
        grid = betas(config, dim)
        laws = np.asarray([law_of_largest(dim, beta) for beta in grid])
        predicted[f"largest_d{dim}"] = laws
        predicted[f"ordered_d{dim}"] = ordered(laws)
        predicted[f"equal_d{dim}"] = crossing(grid, ordered(laws), np.ones(len(grid)), 0.5)[0]
    dim, beta = config.noise_dim, config.noise_beta
    predicted["half_largest"] = law_of_largest(dim, beta / 2)
    predicted["chain_largest"] = law_of_largest(dim, beta)
    counts, p = law_of_counts(dim, beta)
    predicted["exact_eigenvalue"] = float(_between(counts.T, dim) @ p)
    norm = float(theory.mean_field.potts_class_norm(dim, Q, beta))
    times = measured["noise_times"]
    fine = np.linspace(times[0], times[-1], 60)
    kappa = norm * np.exp(-fine) / np.sqrt(-np.expm1(-2 * fine))
    weights = np.full(Q, 1 / Q)
    predicted |= {
        "fine_times": fine,
        "phi_fine": np.asarray(theory.many_classes.simplex_clone_agreement(kappa, weights)),
        "eigenvalue": float(theory.mean_field.potts_top_eigenvalue(dim, Q, beta)),
        "spectral_time": _spectral_time(config),
        "spinodal_time": float(theory.potentials.simplex_spinodal_time(norm, Q)),
        "dynamic_time": float(theory.potentials.simplex_dynamic_time(norm, Q)),
    }
    predicted["phi"] = np.interp(times, fine, predicted["phi_fine"])
    return predicted


def cells(histogram: np.ndarray, law: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
    """Shares, errors, ``law`` and ``other`` in cells of neighbours that expect enough samples."""
    total = histogram.sum()
    label = np.floor(np.cumsum(law) * total / (3 * FEWEST) - 1e-9).astype(int)
    label = np.unique(label, return_inverse=True)[1]
    share, expected, wrong = (np.bincount(label, v) for v in (histogram / total, law, other))
    used = total * expected >= FEWEST
    error = np.sqrt(expected * (1 - expected) / total)
    return share[used], error[used], expected[used], wrong[used]


def equal_weight(config: Config, measured: dict[str, Any], dim: int) -> tuple[float, float]:
    """Coupling at which half of the clean samples are ordered, and its error."""
    share = ordered(measured[f"largest_d{dim}"]) / config.samples
    error = np.sqrt(share * (1 - share) / config.samples)
    return crossing(betas(config, dim), share, error, 0.5)


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact laws and identities, large-d formulas, three wrong transitions and couplings."""
    chain = cells(measured["chain_largest"], predicted["chain_largest"], predicted["half_largest"])
    clean = [
        cells(*(source[f"largest_d{dim}"][i] for source in (measured, predicted, predicted)))
        for dim in config.dims
        for i in range(len(config.couplings))
    ]
    share, error, expected = (np.concatenate([c[k] for c in clean]) for k in range(3))
    equal = np.asarray([equal_weight(config, measured, dim) for dim in config.dims]).T
    exact_equal = np.asarray([predicted[f"equal_d{dim}"] for dim in config.dims])
    transition = critical()

    def instead(beta: float) -> np.ndarray:
        """Another transition with the same shift of finite size."""
        return exact_equal - transition.beta + beta

    return [
        compare("largest count of clean samples, all d", share, error, expected),
        compare("largest count at the end of backward chains", *chain[:3]),
        compare("coupling of equal weights, finite d", *equal, exact_equal),
        compare(
            "overlap of clones, squared posterior mean", measured["overlap"],
            measured["overlap_error"], measured["expected_overlap"],
        ),
        compare("backward chains, half of the coupling", chain[0], chain[1], chain[3],
                control=True),
        compare("coupling of equal weights, where the ordered state appears", *equal,
                instead(transition.spinodal), control=True),
        compare("coupling of equal weights, where the disordered one is unstable", *equal,
                instead(transition.instability), control=True),
        compare("coupling of equal weights, beta_c", *equal, 0 * exact_equal + transition.beta,
                exact=False),
        compare("clone agreement, formula", measured["phi"], measured["phi_error"],
                predicted["phi"], exact=False),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Couplings of equal weight, spectrum, times, comparisons, one sentence."""
    found, transition = comparisons(config, measured, predicted), critical()
    rows, summary = [], {"beta_c": transition.beta, "spinodal": transition.spinodal}
    for dim in config.dims:
        value, error = equal_weight(config, measured, dim)
        shift = dim * (value - transition.beta)
        summary[f"d{dim}"] = {
            "equal_weight": value, "error": error, "exact": predicted[f"equal_d{dim}"],
            "shift_times_d": shift, "shift_times_d_error": dim * error,
        }  # fmt: skip
        text = f"{number(value, error)}, d (beta - beta_c) = {number(shift, dim * error)}"
        rows.append((f"d = {dim}: coupling of equal weights", text))
    text = f"{transition.beta:.4f}, {transition.spinodal:.4f}, {transition.instability:g}"
    rows.append(("beta_c, spinodal, instability", text))
    value, error = float(measured["eigenvalue"]), float(measured["eigenvalue_error"])
    exact, theirs = predicted["exact_eigenvalue"], predicted["eigenvalue"]
    text = f"{number(value, error)}, exact {exact:.3f}, large d {theirs:.3f}"
    rows.append(("eigenvalue between the colours", text))
    level = 1 / Q + 0.5 * (1 - 1 / Q)
    half, half_error = crossing(
        measured["noise_times"], measured["phi"], measured["phi_error"], level
    )
    summary["eigenvalue"] = {"value": value, "error": error, "exact": exact, "large_d": theirs}
    summary["half_agreement_time"] = {
        "value": half, "error": half_error, "spectral": predicted["spectral_time"],
    }  # fmt: skip
    text = (
        f"{number(half, half_error)}; spectral {predicted['spectral_time']:.3f}, "
        f"spinodal {predicted['spinodal_time']:.3f}, instability {predicted['dynamic_time']:.3f}"
    )
    rows.append(("time of half of the clone agreement", text))
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(config: Config, found: list, summary: dict[str, Any]) -> str:
    dim = max(config.dims)
    entry = summary[f"d{dim}"]
    return (
        f"Ordered and disordered samples of the three-colour magnet are equally frequent at beta "
        f"= {number(entry['equal_weight'], entry['error'])} for d = {dim}, which tends to beta_c "
        f"= {summary['beta_c']:.4f} (exact laws of finite d: reduced chi-square "
        f"{found[0].chi_square:.2f}) and not to the spinodal {summary['spinodal']:.4f} or to the "
        f"instability at {Q}; two clones overlap as the squared posterior mean says (reduced "
        f"chi-square {found[3].chi_square:.2f})."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}
    for dim in config.dims:
        for name, value, text in (
            (f"betas_d{dim}", betas(config, dim), "couplings"),
            (f"largest_d{dim}", measured[f"largest_d{dim}"], "histogram of the largest count"),
            (f"law_d{dim}", predicted[f"largest_d{dim}"], "its exact law"),
        ):
            curves[name], axes[name] = np.asarray(value), f"d = {dim}: {text}"
    for name, text in (
        ("noise_times", "OU branching times"), ("phi", "clones with equal dominant colour"),
        ("phi_error", "its standard error"), ("overlap", "overlap of two clones per site"),
        ("overlap_error", "standard error of its distance to expected_overlap"),
        ("expected_overlap", "squared posterior mean per site"),
    ):  # fmt: skip
        curves[name], axes[name] = np.asarray(measured[name]), f"d = {config.noise_dim}: {text}"
    for name in ("fine_times", "phi_fine"):
        curves[name], axes[name] = predicted[name], "large-d formula for the clone agreement"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Coexistence, weight of the ordered states, its coupling against 1/d, clones."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), layout="constrained")
    _coexistence(axes[0], config, measured, predicted)
    for i, dim in enumerate(config.dims):
        colour, marker = COLOURS[i % len(COLOURS)], "os^Dv<"[i % 6]
        place = dim * (betas(config, dim) - critical().beta)
        share = ordered(measured[f"largest_d{dim}"]) / config.samples
        error = np.sqrt(share * (1 - share) / config.samples)
        line(axes[1], place, predicted[f"ordered_d{dim}"], "exact" if i == 0 else "", colour)
        points(axes[1], place, share, error, f"d = {dim}", colour, marker)
        value, spread = equal_weight(config, measured, dim)
        points(axes[2], [1 / dim], [value], [spread], "measured" if i == 0 else "", BLACK)
    axes[1].axhline(0.5, color=BLACK, lw=0.8, ls=":")
    axes[1].set_xlabel(r"$d\,(\beta-\beta_c)$")
    axes[1].set_ylabel("ordered samples")
    exact = [predicted[f"equal_d{dim}"] for dim in config.dims]
    line(axes[2], 1 / np.asarray(config.dims), exact, "exact, finite d", COLOURS[0])
    for (name, value), colour, style in zip(
        (("coexistence", critical().beta), ("spinodal", critical().spinodal)), (GREEN, RED), "-:"
    ):
        axes[2].axhline(value, color=colour, lw=1.2, ls=style, label=name)
    axes[2].set_xscale("log")
    axes[2].set_xlabel("1 / d")
    axes[2].set_ylabel(r"$\beta$ of equal weights")
    line(axes[3], predicted["fine_times"], predicted["phi_fine"], "formula, large d", COLOURS[0])
    points(axes[3], measured["noise_times"], measured["phi"], measured["phi_error"],
           "equal dominant colour", BLACK)  # fmt: skip
    points(axes[3], measured["noise_times"], measured["overlap"], measured["overlap_error"],
           "overlap of clones", ORANGE, "s")  # fmt: skip
    line(axes[3], measured["noise_times"], measured["expected_overlap"],
         "squared posterior mean", ORANGE, "--")  # fmt: skip
    for key, colour, label in (
        ("spectral_time", GREEN, "spectral time"), ("dynamic_time", RED, "instability"),
    ):  # fmt: skip
        axes[3].axvline(predicted[key], color=colour, lw=0.8, ls=":", label=label)
    axes[3].set_xlabel("Ornstein-Uhlenbeck time t")
    axes[3].set_title(rf"clones, $\beta$ = {config.noise_beta:g}, d = {config.noise_dim}",
                      fontsize=10)  # fmt: skip
    for axis in axes:
        axis.legend(fontsize=8)
    return figure


def _coexistence(
    axis: Any, config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> None:
    """Histogram of the order parameter nearest to equal weights, at the largest size."""
    dim = max(config.dims)
    i = int(np.argmin(np.abs(predicted[f"ordered_d{dim}"] - 0.5)))
    width = max(1, dim // 48)
    first = int(np.ceil(dim / Q))
    groups = np.arange(first, dim - width, width)
    density = width * Q / dim / (Q - 1)
    for source, total in ((predicted, 1), (measured, config.samples)):
        law = source[f"largest_d{dim}"][i]
        value = np.asarray([law[g : g + width].sum() for g in groups]) / total / density
        place = order(dim)[groups] + 0.5 * density
        if total == 1:
            line(axis, place, value, "exact law", COLOURS[0])
            continue
        error = np.sqrt(np.maximum(value * density, 1 / total) / total) / density
        points(axis, place, value, error, "clean samples", BLACK)
    axis.set_xlim(0, 0.85)
    axis.set_xlabel(r"order parameter $(q\,\max_cN_c/d-1)/(q-1)$")
    axis.set_ylabel("density")
    axis.set_title(rf"coexistence, d = {dim}, $\beta$ = {betas(config, dim)[i]:.4f}", fontsize=10)
