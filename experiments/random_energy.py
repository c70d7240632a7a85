"""Random energies: free energy, participation and trees, sampled and exact at every size.

M independent Gaussian energies at N = log(M)/alpha. The averages of log Z, of the participation
ratio and of its square are known exactly at finite M by quadrature, and so are the moments of Z;
they are compared with samples in standard errors, each inverse temperature with its own draws. The
limits (free energy by the minimum over the index, Poisson-Dirichlet participation) are laid over
them, and what separates the finite system from its limit in the condensed phase with the
prediction of order log(N)/N. Two-level trees are sampled with both orders of the levels, in one of
which the levels freeze together.

Source: Derrida, Phys. Rev. B 24, 2613 (1981); J. Physique Lett. 46, L401 (1985).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.random_energy_figure import draw
from experiments.session import Curves, Report, Session
from experiments.style import number
from theory import cumulants, finite_random_energy, grem, rem

ANNEALED = (0.2, 0.3)  # inverse temperatures over the critical one of the moments of Z
BLOCK = 2**20  # energies drawn at once
LIMIT = 241  # temperatures of the limits
ORDERS = ("separate", "merged")  # the level of larger variance first, and last


@dataclass(frozen=True)
class Config:
    """Numbers of energies, temperatures over the critical one, and how many samples of each."""

    counts: tuple[int, ...] = option((64, 1024, 65536), "energies", nargs="+", type=int)
    alpha: float = option(0.5, "log of the number of energies over N")
    variance: float = option(0.7, "variance of an energy over N")
    betas: int = option(8, "inverse temperatures")
    lowest: float = option(0.25, "lowest inverse temperature over the critical one")
    highest: float = option(2.2, "highest inverse temperature over the critical one")
    draws: int = option(2000, "samples of all energies per temperature")
    children: int = option(128, "children of the root and of each of its children, in the trees")
    share: float = option(0.75, "share of the variance in the stronger level of the trees")
    fine: int = option(24, "temperatures of the theory curves")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"counts": (32, 512), "betas": 5, "draws": 600, "children": 24, "fine": 12},
    "quick": {"counts": (64, 1024, 16384), "draws": 1000, "children": 64, "fine": 16},
    "paper": {},
}


def temperatures(config: Config) -> tuple[float, np.ndarray]:
    """The critical inverse temperature, and the measured ones."""
    if config.draws < 2:
        raise ValueError(f"draws is {config.draws}; errors need at least 2")
    if not 0 < config.lowest < 1 < config.highest:
        raise ValueError(
            f"lowest is {config.lowest} and highest {config.highest}; both phases are measured, "
            "so pass numbers below and above 1"
        )
    law = cumulants.gaussian(config.variance)
    critical = float(rem.condensation(config.alpha, law))
    return critical, critical * np.linspace(config.lowest, config.highest, config.betas)


def deviation(config: Config, beta: np.ndarray, log_count: float | np.ndarray) -> np.ndarray:
    """Standard deviation of the logarithm of a term."""
    return np.asarray(beta) * np.sqrt(config.variance * log_count / config.alpha)


def tree_levels(config: Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Alphas and variances of the two-level trees, from the root."""
    strong = config.variance * config.share
    variances = np.array([strong, config.variance - strong])
    alphas = np.full(2, config.alpha / 2)
    return {"separate": (alphas, variances), "merged": (alphas, variances[::-1])}


def tree_size(config: Config) -> float:
    """The N of the trees."""
    return 2 * math.log(config.children) / config.alpha


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Samples of log Z and of the weights, fresh for every temperature."""
    critical, betas = temperatures(config)
    measured: dict[str, Any] = {"critical": critical, "betas": betas}
    key = jax.random.key(config.seed)
    for index, count in enumerate(config.counts):
        work = partial(_flat, jax.random.fold_in(key, index), count, betas, critical, config)
        measured |= {f"{k}_m{count}": v for k, v in session.part(f"flat-{count}", work).items()}
    for index, (order, (_, variances)) in enumerate(tree_levels(config).items()):
        work = partial(_trees, jax.random.fold_in(key, 1000 + index), variances, betas, config)
        measured |= {f"tree_{k}_{order}": v for k, v in session.part(order, work).items()}
    return measured


def _flat(key: jax.Array, count: int, betas: np.ndarray, critical: float, config: Config) -> Curves:
    log_count = math.log(count)
    size = log_count / config.alpha
    samples = []
    for index, beta in enumerate([*betas, *(critical * np.array(ANNEALED))]):
        sigma = jnp.asarray(deviation(config, beta, log_count), config.dtype)
        log_z, participation = _sample(
            jax.random.fold_in(key, index), sigma, (count,), config.draws
        )
        samples.append(np.asarray([log_z, participation], np.float64))
    log_z, participation = np.stack(samples).swapaxes(0, 1)
    measured = {
        "free": log_z[: len(betas)] / size,
        "participation": participation[: len(betas)],
        "squared": participation[: len(betas)] ** 2,
    }
    # Z over its average, and the square of that
    sigma = deviation(config, critical * np.array(ANNEALED)[:, None], log_count)
    ratio = np.exp(log_z[len(betas) :] - log_count - sigma**2 / 2)
    measured |= {"moment": ratio, "second_moment": ratio**2}
    return _means(measured)


def _trees(key: jax.Array, variances: np.ndarray, betas: np.ndarray, config: Config) -> Curves:
    size = tree_size(config)
    samples = []
    for index, beta in enumerate(betas):
        sigmas = jnp.asarray(beta * np.sqrt(size * variances), config.dtype)
        shape = (config.children, config.children)
        samples.append(_sample(jax.random.fold_in(key, index), sigmas, shape, config.draws)[0])
    return _means({"free": np.asarray(samples, np.float64) / size})


def _means(samples: dict[str, np.ndarray]) -> Curves:
    """Mean over the last axis, and its standard error."""
    found: Curves = {}
    for name, values in samples.items():
        found[name] = values.mean(-1)
        found[f"{name}_error"] = values.std(-1, ddof=1) / math.sqrt(values.shape[-1])
    return found


def _sample(
    key: jax.Array, sigma: jax.Array, shape: tuple[int, ...], draws: int
) -> tuple[jax.Array, jax.Array]:
    """``log Z`` and the participation ratio of sums over the leaves of a tree, ``(draws,)``."""
    block = max(1, min(draws, BLOCK // math.prod(shape)))
    blocks = -(-draws // block)
    values = _blocks(key, jnp.atleast_1d(sigma), shape, block, blocks)
    return values[0][:draws], values[1][:draws]


@partial(jax.jit, static_argnames=("shape", "block", "blocks"))
def _blocks(
    key: jax.Array, sigma: jax.Array, shape: tuple[int, ...], block: int, blocks: int
) -> tuple[jax.Array, jax.Array]:
    def one(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        logs = jnp.zeros((block,) + (1,) * len(shape), sigma.dtype)
        for level in range(len(shape)):
            edges = shape[: level + 1] + (1,) * (len(shape) - level - 1)
            level_key = jax.random.fold_in(jax.random.fold_in(key, index), level)
            logs += sigma[level] * jax.random.normal(level_key, (block, *edges), sigma.dtype)
        logs = logs.reshape(block, -1)
        log_z = jax.nn.logsumexp(logs, axis=1)
        return log_z, jnp.sum(jnp.exp(2 * (logs - log_z[:, None])), axis=1)

    log_z, participation = jax.lax.map(one, jnp.arange(blocks))
    return log_z.reshape(-1), participation.reshape(-1)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact averages at every size, limits, finite-size corrections, and wrong theories."""
    critical, betas = measured["critical"], measured["betas"]
    fine = critical * np.linspace(config.lowest, config.highest, config.fine)
    law = cumulants.gaussian(config.variance)
    dense = critical * np.linspace(config.lowest, config.highest, LIMIT)
    order = np.asarray(rem.order_parameter(dense, config.alpha, law))
    predicted: dict[str, Any] = {
        "fine": fine,
        "dense": dense,
        "limit_dense": np.asarray(rem.free_energy(dense, config.alpha, law)),
        "limit": np.asarray(rem.free_energy(betas, config.alpha, law)),
        "annealed_dense": config.alpha + dense**2 * config.variance / 2,
        "annealed": config.alpha + betas**2 * config.variance / 2,
        "participation_limit_dense": np.asarray(rem.participation_moment(2, order)),
        "squared_limit_dense": np.asarray(rem.squared_participation(order)),
    }
    for count in config.counts:
        predicted |= {f"{k}_m{count}": v for k, v in _exact(config, count, betas, fine).items()}
    for name, (alphas, variances) in tree_levels(config).items():
        size = tree_size(config)
        sigmas = betas[:, None] * np.sqrt(size * variances)
        log_z = _tree_averages(jnp.asarray(sigmas), jnp.asarray(size * alphas))
        predicted[f"tree_free_{name}"] = np.asarray(log_z) / size
        predicted[f"tree_limit_dense_{name}"] = np.asarray(
            grem.free_energy(dense, alphas, variances)
        )
        predicted[f"tree_freezing_{name}"] = np.asarray(grem.freezing(alphas, variances))
    return predicted


def _exact(config: Config, count: int, betas: np.ndarray, fine: np.ndarray) -> Curves:
    """Averages at ``count`` energies on both grids; with twice the variance at the measured."""
    log_count = math.log(count)
    size = log_count / config.alpha
    sigma = deviation(config, np.concatenate([betas, fine, math.sqrt(2) * betas]), log_count)
    averages = _flat_averages(jnp.asarray(sigma), jnp.asarray(log_count))
    found: Curves = {}
    for name, values in zip(("free", "participation", "squared"), averages):
        scaled = np.asarray(values) / (size if name == "free" else 1)
        found[name], found[f"{name}_fine"], found[f"{name}_wrong"] = np.split(
            scaled, [len(betas), len(betas) + len(fine)]
        )
    law = cumulants.gaussian(config.variance)
    found["corrected"] = np.asarray(rem.finite_size_free_energy(betas[-1], size, config.alpha, law))
    # E (Z / EZ)^2 = 1 + (exp(sigma^2) - 1) / M
    critical = float(rem.condensation(config.alpha, law))
    sigma = deviation(config, critical * np.array(ANNEALED), log_count)
    found["moment"] = np.ones(len(ANNEALED))
    found["second_moment"] = 1 + np.expm1(sigma**2) / count
    return found


@jax.jit
def _flat_averages(sigma: jax.Array, log_count: jax.Array) -> tuple[jax.Array, ...]:
    def one(value: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(finite_random_energy.gaussian_partition_averages(value, log_count))

    return jax.lax.map(one, sigma)


@jax.jit
def _tree_averages(sigmas: jax.Array, log_counts: jax.Array) -> jax.Array:
    def one(values: jax.Array) -> jax.Array:
        return finite_random_energy.tree_log_partition(values, log_counts)

    return jax.lax.map(one, sigmas)


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact averages of five quantities, the limit, and four wrong theories."""
    names = [f"m{count}" for count in config.counts]

    def gather(source: dict[str, Any], key: str) -> np.ndarray:
        return np.concatenate([np.atleast_1d(source[f"{key}_{name}"]) for name in names])

    def against(label: str, key: str, theory: Any, **kind: Any) -> Comparison:
        return compare(label, gather(measured, key), gather(measured, f"{key}_error"), theory,
                       **kind)  # fmt: skip

    moments = [np.concatenate([gather(source, key) for key in ("moment", "second_moment")])
               for source in (measured, predicted)]  # fmt: skip
    errors = [gather(measured, f"{key}_error") for key in ("moment", "second_moment")]
    trees = [np.concatenate([source[f"tree_{key}_{order}"] for order in ORDERS])
             for source, key in ((measured, "free"), (measured, "free_error"),
                                 (predicted, "free"))]  # fmt: skip
    swapped = np.concatenate([predicted[f"tree_free_{order}"] for order in ORDERS[::-1]])
    above = np.tile(measured["betas"] > 1.2 * measured["critical"], len(names))
    annealed = np.where(above, np.tile(predicted["annealed"], len(names)), np.nan)
    limit, floor = np.tile(predicted["limit"], len(names)), 1 / config.draws
    return [
        against("E log Z/N, all sizes", "free", gather(predicted, "free")),
        # a ratio near one that was never drawn has a probability of order 1/draws
        against("E Y2", "participation", gather(predicted, "participation"), floor=floor),
        against("E Y2^2", "squared", gather(predicted, "squared"), floor=floor),
        # moments of one sample of Z are correlated: a mean and a square count as one each
        compare("E Z and E Z^2 over (E Z)^k", moments[0], np.concatenate(errors), moments[1]),
        compare("E log Z/N of trees, both orders", *trees),
        against("E log Z/N against its limit", "free", limit, exact=False),
        against("condensed at sqrt(alpha/v)", "free", gather(predicted, "free_wrong"),
                control=True),
        against("E Y2, condensed at sqrt(alpha/v)", "participation",
                gather(predicted, "participation_wrong"), control=True),
        against("annealed beyond condensation", "free", annealed, control=True),
        compare("trees with their levels exchanged", *trees[:2], swapped, control=True),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """What is missing from the limit beside its prediction; comparisons; one sentence."""
    found = comparisons(config, measured, predicted)
    critical, beta = measured["critical"], measured["betas"][-1]
    rows = [("condensation", f"beta_c = {number(critical)}, sqrt(2 alpha/v)")]
    summary: dict[str, Any] = {"critical": critical, "beta": float(beta), "sizes": {}}
    for count in config.counts:
        entry = _missing(config, measured, predicted, count)
        summary["sizes"][str(count)] = entry
        rows.append(
            (
                f"M = {count}, N = {entry['size']:.1f}, beta = {beta / critical:.2g} beta_c",
                f"limit - E log Z/N: {number(entry['missing'], entry['missing_error'])}, of order "
                f"log(N)/N: {number(entry['predicted'])}; Y2: "
                f"{number(entry['participation'], entry['participation_error'])}, limit "
                f"{number(entry['participation_limit'])}",
            )
        )
    for order in ORDERS:
        temperatures_ = predicted[f"tree_freezing_{order}"] / critical
        rows.append((f"tree, {order}", "levels freeze at "
                     + ", ".join(number(t) for t in temperatures_) + " beta_c"))  # fmt: skip
        summary[f"freezing_{order}"] = predicted[f"tree_freezing_{order}"]
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(found, summary), table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _missing(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any], count: int
) -> dict[str, float]:
    """Distance of the coldest system from its limit, measured and predicted."""
    name, limit = f"m{count}", float(predicted["limit"][-1])
    missing = limit - float(measured[f"free_{name}"][-1])
    first_order = limit - float(predicted[f"corrected_{name}"])
    error = float(measured[f"free_error_{name}"][-1])
    return {
        "size": math.log(count) / config.alpha,
        "missing": missing,
        "missing_error": error,
        "predicted": first_order,
        "ratio": missing / first_order,
        "ratio_error": error / first_order,
        "participation": float(measured[f"participation_{name}"][-1]),
        "participation_error": float(measured[f"participation_error_{name}"][-1]),
        "participation_limit": float(predicted["participation_limit_dense"][-1]),
    }


def _finding(found: list[Comparison], summary: dict[str, Any]) -> str:
    missing = ", ".join(
        f"{number(e['missing'], e['missing_error'])} ({number(e['predicted'])})"
        for e in summary["sizes"].values()
    )
    return (
        f"Sampled random energies agree with their exact finite-size free energy and participation "
        f"(reduced chi-square {found[0].chi_square:.2f} and {found[1].chi_square:.2f}); at "
        f"{summary['beta'] / summary['critical']:.2g} beta_c they lie below the limit by "
        f"{missing}, the numbers in brackets being the prediction of order log(N)/N; on trees "
        f"whose deeper level is the stronger one both levels freeze together."
    )


_MEASURED = {
    "free": "E log Z / N",
    "participation": "E Y2",
    "squared": "E Y2^2",
    "moment": "E Z over the exact one, at 0.2 and 0.3 beta_c",
    "second_moment": "E Z^2 over the exact (E Z)^2",
}


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {"betas": measured["betas"]}
    axes = {"betas": "inverse temperatures of the simulation (B,)"}

    def add(name: str, values: Any, text: str) -> None:
        curves[name], axes[name] = np.asarray(values), text

    add("dense", predicted["dense"], "inverse temperatures of the limits (L,)")
    for key in ("limit", "annealed", "participation_limit", "squared_limit"):
        add(f"{key}_dense", predicted[f"{key}_dense"], f"{key.replace('_', ' ')} for large N (L,)")
    for count in config.counts:
        for key, text in _MEASURED.items():
            name = f"{key}_m{count}"
            add(name, measured[name], f"M = {count}: {text}")
            add(f"{key}_error_m{count}", measured[f"{key}_error_m{count}"], "standard error")
            add(f"exact_{name}", predicted[name], f"M = {count}: {text}, exact")
    for order in ORDERS:
        name = f"tree_free_{order}"
        add(name, measured[name], f"trees, levels {order}: E log Z / N (B,)")
        add(f"{name}_error", measured[f"tree_free_error_{order}"], "standard error")
        add(f"exact_{name}", predicted[name], f"trees, levels {order}: exact")
        add(f"tree_limit_dense_{order}", predicted[f"tree_limit_dense_{order}"], "limit (L,)")
    return curves, axes
