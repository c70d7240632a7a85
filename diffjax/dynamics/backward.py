"""The driver of backward (generative) trajectories: one interface for every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import Posterior, require
from diffjax.data.point_cloud import PointCloud
from diffjax.diffusion import Diffusion, ScoreModel, score_model
from diffjax.dynamics import methods
from diffjax.dynamics.adaptive import solve_flow
from diffjax.dynamics.guided import (
    check_guidance,
    guided_step,
    observe_pair,
    solve_guided_flow,
    start_guided,
)
from diffjax.dynamics.methods import AdaptiveOde, Exact, Method
from diffjax.dynamics.scan import Observe, chunk_bounds, run_steps
from diffjax.dynamics.span import into_span, out_of_span, worth_reducing
from diffjax.guidance.base import Guidance
from diffjax.processes import Process

_CHUNKS = 20  # pieces of a grid between two reports of progress


@records.register
@dataclass(frozen=True)
class Info:
    """What a driver says about a run.

    Attributes:
        method: name of the method that was used.
        observed: stacked values of ``observe`` with leading axis ``steps`` (None without it).
        finite: whether each final state is finite, shape ``(...)``.
        guidance: final state of the guidance rule (None without a rule).
    """

    method: str = field(metadata={"static": True})
    observed: Any
    finite: Array
    guidance: Any = None


def backward(
    key: Array,
    model: Any,
    x: ArrayLike,
    times: ArrayLike,
    *,
    process: Process | None = None,
    method: str | Method | None = None,
    guidance: Guidance | None = None,
    observe: Observe | None = None,
    span_reduction: bool = True,
    remat: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Array, Info]:
    """Run backward dynamics from ``x`` at ``times[0]`` down to ``times[-1]``.

    Args:
        key: typed PRNG key. The key of step i is ``fold_in(key, i)``, and noise does not depend
            on the batch size: the first rows of a larger batch equal those of a smaller one.
        model: a `Diffusion`, or a score function ``score(x, t)`` (then ``process`` is needed).
        x: states at ``times[0]``, ``(..., d)``; for a chain from pure noise draw them with
            ``Diffusion.sample`` at ``times[0]``, which has no start error.
        times: strictly decreasing OU times ``(S + 1,)``; the last one may be 0.
        process: the process of a bare score function.
        method: a name (``exact``, ``ancestral``, ``ddim``, ``euler_maruyama``, ``heun``,
            ``adaptive_ode``) or a record made by the functions of `diffjax.dynamics.methods`.
            None means ``exact`` where the model can sample its posterior, else ``ancestral``.
        guidance: a rule of `diffjax.guidance`, whose score replaces the model's. Any method but
            ``exact``, which no guided score has; rules that track the class need the noise of
            the reverse SDE (``ancestral``, or ``euler_maruyama`` with noise 1), and rules with
            a state cannot be integrated adaptively.
        observe: ``observe(x, t)``, with ``guidance`` ``observe(x, t, state)``, evaluated after
            every step. It is static: pass the same function object again to reuse the
            compilation.
        span_reduction: run exact trajectories of a point cloud with fewer points than
            dimensions in the span of the points, with the same law; the noise, and so the
            trajectory of a given key, differs. Not used with ``observe``.
        remat: checkpoint segments of about ``sqrt(S)`` steps for reverse-mode gradients.
        progress: ``progress(done, total)`` is called between jitted chunks of the grid; only
            outside ``jit``.

    Returns:
        The states at ``times[-1]``, ``(..., d)``, and an `Info` that names the method.

    Raises:
        ValueError: on a grid that does not decrease, a wrong event size, an unknown method, or a
            method that cannot be guided by the rule.
        TypeError: if ``exact`` is asked of a model without a posterior, or a bare score function
            comes without a process.
        FloatingPointError: if a final state is NaN or infinite (outside ``jit`` only; inside,
            ``info.finite`` says so).

    References:
        Song et al. 2021 (2011.13456); Ho, Jain, Abbeel 2020 (2006.11239).
    """
    model = as_model(model, process)
    if guidance is not None and method is None:
        method = methods.ancestral()
    chosen = _as_method(model, method)
    checks.decreasing(times)
    state = checks.floating(x, "x")
    if isinstance(model, Diffusion):
        checks.event_size(state, model.dim)
    grid = jnp.asarray(times, state.dtype)
    if guidance is not None:
        check_guidance(guidance, model, chosen)
        carry = start_guided(guidance, key, state)
        (state, rule_state), observed = _drive(
            key, guidance, carry, grid, chosen, observe, remat, progress
        )
        return state, _info(chosen, observed, state, rule_state)
    if span_reduction and observe is None and isinstance(chosen, Exact) and _reducible(model):
        key, key_perp = jax.random.split(key)
        reduced, y, frame = into_span(model, state, grid[0])
        y, observed = _drive(key, reduced, y, grid, chosen, observe, remat, progress)
        state = out_of_span(key_perp, model.process, y, frame, grid[0], grid[-1])
    else:
        state, observed = _drive(key, model, state, grid, chosen, observe, remat, progress)
    return state, _info(chosen, observed, state)


def as_model(model: Any, process: Process | None) -> Diffusion | ScoreModel:
    """A `Diffusion` as it is, or a score function wrapped with its process.

    Raises:
        TypeError: if the model is neither, or a score function comes without a process.
    """
    if isinstance(model, (Diffusion, ScoreModel)):
        return model
    if not callable(model):
        raise TypeError(
            f"model must be a Diffusion or a score function, got {type(model).__name__}"
        )
    if process is None:
        raise TypeError("a bare score function needs process=, e.g. ornstein_uhlenbeck()")
    return score_model(model, process)


def _as_method(model: Any, method: str | Method | None) -> Method:
    """The method's record, chosen by capability if None; ``exact`` is refused where impossible."""
    has_posterior = isinstance(model, Diffusion) and isinstance(model.data, Posterior)
    if method is None:
        return methods.exact() if has_posterior else methods.ancestral()
    if isinstance(method, str):
        if method not in methods.METHODS:
            raise ValueError(
                f"unknown method {method!r}; choose one of {', '.join(methods.METHODS)}"
            )
        method = methods.METHODS[method]()
    if isinstance(method, Exact) and not has_posterior:
        require(getattr(model, "data", model), Posterior, "method 'exact'")
    return method


def _reducible(model: Any) -> bool:
    return isinstance(model.data, PointCloud) and worth_reducing(model.data)


@partial(jax.jit, static_argnames=("observe", "remat"))
def _run(
    key: Array,
    model: Any,
    x: Any,
    times: Array,
    first: int | Array,
    method: Method,
    observe: Observe | None,
    remat: bool,
) -> tuple[Any, Any]:
    """The loop; for a guidance rule as ``model`` the state ``x`` is a pair with the rule's."""
    if isinstance(model, Guidance):
        if isinstance(method, AdaptiveOde):
            return solve_guided_flow(method, model, x, times, observe)
        step, observe = guided_step(method, model), observe_pair(observe)
    elif isinstance(method, AdaptiveOde):
        return solve_flow(method, model, x, times, observe)
    else:
        step = methods.make_step(method, model)
    return run_steps(step, key, x, times, observe=observe, first=first, remat=remat)


def _drive(
    key: Array,
    model: Any,
    x: Any,
    times: Array,
    method: Method,
    observe: Observe | None,
    remat: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Any, Any]:
    """`_run`, with ``progress`` piece by piece: the same numbers, reporting in between."""
    if progress is None or isinstance(method, AdaptiveOde):
        return _run(key, model, x, times, 0, method, observe, remat)
    steps, pieces = times.shape[0] - 1, []
    for start, stop in chunk_bounds(steps, _CHUNKS):
        grid = times[start : stop + 1]
        x, observed = _run(key, model, x, grid, start, method, observe, remat)
        pieces.append(observed)
        progress(stop, steps)
    if observe is None:
        return x, None
    return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


def _info(method: Method, observed: Any, x: Array, state: Any = None) -> Info:
    """Build the `Info`, and raise on a trajectory that left the finite numbers."""
    finite = jnp.all(jnp.isfinite(x), axis=-1)
    if checks.is_concrete(finite) and not bool(jnp.all(finite)):
        lost = int(np.sum(~np.asarray(finite)))
        raise FloatingPointError(
            f"{lost} of {finite.size} trajectories ended in NaN or infinity with method "
            f"{methods.NAMES[type(method)]!r}; take smaller steps or method='exact'"
        )
    return Info(methods.NAMES[type(method)], observed, finite, state)
