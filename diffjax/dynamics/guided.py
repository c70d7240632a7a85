"""Transitions with a guidance rule: every sampler of `methods` at the guided score.

The loop carries ``(x, state)``. Within a step the rule's score at the current state is the score
of the sampler, so that no sampler knows about guidance; afterwards the rule sees the transition and
the variance of the kernel that drew it.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.tree_util import Partial

from diffjax import checks
from diffjax.diffusion import ScoreModel
from diffjax.dynamics import methods
from diffjax.dynamics.adaptive import solve_flow
from diffjax.dynamics.methods import AdaptiveOde, Ancestral, EulerMaruyama, Exact, Method
from diffjax.dynamics.scan import Observe, Step
from diffjax.guidance.base import Guidance

_START = 2**32 - 1  # no step of a grid has this index


def check_guidance(rule: Any, model: Any, method: Method) -> None:
    """Raise unless the method can be guided by the rule.

    Raises:
        TypeError: if ``rule`` is no guidance rule.
        ValueError: if rule and model differ in process or dimension, or if the method is exact,
            too quiet for a rule that tracks the class, or adaptive with a rule that has a state.
    """
    if not isinstance(rule, Guidance):
        raise TypeError(f"guidance must be a rule of diffjax.guidance, got {type(rule).__name__}")
    if type(model.process) is not type(rule.model.process):
        raise ValueError(
            f"model has the process {type(model.process).__name__} and the guidance rule "
            f"{type(rule.model.process).__name__}; pass the rule's model to the sampler"
        )
    if getattr(model, "dim", rule.model.dim) != rule.model.dim:
        raise ValueError(
            f"model has dimension {model.dim} and the guidance rule {rule.model.dim}; pass the "
            "rule's model to the sampler"
        )
    if isinstance(method, Exact):
        raise ValueError(
            "method 'exact' draws from the posterior p(a | x_t), which a guided score does not "
            "have; choose ancestral, ddim, euler_maruyama, heun or adaptive_ode"
        )
    if rule.needs_noise and not _is_reverse_sde(method):
        raise ValueError(
            f"{type(rule).__name__} tracks the class by the likelihood of the reverse SDE's steps "
            f"and cannot guide {methods.NAMES[type(method)]!r} as given; choose ancestral, or "
            "euler_maruyama with noise 1"
        )


def _is_reverse_sde(method: Method) -> bool:
    if isinstance(method, EulerMaruyama):
        return not checks.is_concrete(method.noise) or bool(np.all(np.equal(method.noise, 1)))
    return isinstance(method, Ancestral)


def start_guided(rule: Guidance, key: Array, x: Array) -> tuple[Array, Any]:
    """The pair that the loop carries; the steps' keys are those of an unguided run."""
    return x, rule.init(jax.random.fold_in(key, _START), x)


def guided_step(method: Method, rule: Guidance) -> Step:
    """The transition ``step(key, (x, state), t, t_next)`` of a method with a rule."""

    def step(key: Array, pair: tuple[Array, Any], t: Array, s: Array) -> tuple[Any, Any]:
        x, state = pair
        model = ScoreModel(Partial(rule.guide, state), rule.model.process)
        x_next, info = methods.make_step(method, model)(key, x, t, s)
        variance = methods.kernel_variance(method, model.process, s, t)
        return (x_next, rule.update(state, x, t, x_next, s, variance)), info

    return step


def observe_pair(observe: Observe | None) -> Observe | None:
    """``observe(x, t, state)`` as an observer of the pair."""
    if observe is None:
        return None
    return lambda pair, t: observe(pair[0], t, pair[1])


def solve_guided_flow(
    method: AdaptiveOde, rule: Guidance, pair: Any, times: Array, observe: Observe | None
) -> tuple[Any, Any]:
    """Adaptive probability flow at the guided score of a rule without a state.

    Raises:
        ValueError: if the rule has a state, which changes at the steps of a grid.
    """
    x, state = pair
    if jax.tree.leaves(state):
        raise ValueError(
            f"{type(rule).__name__} has a state, which an adaptive solver cannot carry; choose "
            "heun or ddim"
        )
    model = ScoreModel(Partial(rule.guide, state), rule.model.process)
    looking = None if observe is None else lambda x, t: observe(x, t, state)
    x, observed = solve_flow(method, model, x, times, looking)
    return (x, state), observed
