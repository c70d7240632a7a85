r"""One training step of a denoiser, and a compiled loop over many of them.

    t, z, dropout from fold_in(key, s);      g = grad (1/B) sum_j loss_j,                      (1)
    params <- optimiser(clip(g)),   ema <- r ema + (1 - r) params,  r = min(ema, (1+s)/(10+s)), (2)

with ``s`` the number of finished steps. Every random number and the order of the examples are
functions of the seed and of ``s``, and the number of steps is an input of the compiled loop:
however a run is cut into pieces, the same program computes the same bits. A step whose loss or
gradient is not finite changes nothing, and nothing follows it.

References:
    Ho, Jain, Abbeel 2020 (2006.11239); Kingma, Ba 2015 (1412.6980); Loshchilov, Hutter 2019
    (1711.05101).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.networks.objectives import Apply, Objective, example_losses
from diffjax.networks.order import batch_indices, check_sizes
from diffjax.noise import normal

PRECISIONS = ("float32", "bfloat16")
_CHUNK = 64
AXIS = "data"
"""Axis of a mesh over which batches are split."""


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; `published` and `modern` are the presets.

    Attributes:
        steps: optimiser steps in all.
        batch: examples per step.
        learning_rate: after the warm-up, constant.
        warm_up: steps over which the learning rate rises linearly from zero.
        clip: largest norm of the gradient; None: no clipping.
        ema: largest weight of the past in the averaged parameters; None: no average.
        weight_decay: of AdamW, on arrays with two axes or more; 0 is Adam.
        accumulate: a batch is processed in this many pieces, one after the other.
        precision: dtype of the network's arithmetic; parameters, optimiser and loss are float32.
        seed: of the order of the examples, of noise and of dropout.
        checkpoint_every: steps between two checkpoints and reports.
        keep: checkpoints that are kept.
        chunk: most steps per dispatch; 1 compiles the bare step without a loop around it. None
            takes 64, and 1 for images on a CPU, where the gradient of a convolution inside of a
            compiled loop runs 7 times slower.
    """

    steps: int = 100_000
    batch: int = 128
    learning_rate: float = 1e-4
    warm_up: int = 0
    clip: float | None = None
    ema: float | None = None
    weight_decay: float = 0.0
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    checkpoint_every: int = 5000
    keep: int = 3
    chunk: int | None = None


def published(**changes: Any) -> TrainConfig:
    """The published recipe: Adam at 1e-4, batch 128, no average, no clipping; 100,000 steps.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), SI (350,000 steps there).
    """
    return dataclasses.replace(TrainConfig(), **changes)


def modern(**changes: Any) -> TrainConfig:
    """AdamW with a warm-up, gradients clipped at norm 1, and averaged parameters."""
    recipe = TrainConfig(learning_rate=2e-4, warm_up=1000, clip=1.0, ema=0.9999, weight_decay=0.01)
    return dataclasses.replace(recipe, **changes)


@records.register
@dataclass(frozen=True)
class TrainState:
    """Everything that a run needs to go on; made by `initial_state` or `initial_states`.

    Attributes:
        step: number of finished steps, int32 ``()``.
        key: data of the key of the run, uint32 ``(2,)``.
        params: parameters, float32.
        ema: averaged parameters, or None.
        optimiser: state of optax.
    """

    step: Array
    key: Array
    params: Any
    ema: Any
    optimiser: Any


def initial_state(params: Any, config: TrainConfig, seed: ArrayLike | None = None) -> TrainState:
    """A run that has not begun.

    Args:
        params: initial parameters, floating arrays.
        config: how it will be trained.
        seed: replaces ``config.seed``; traced values are fine.
    """
    key = jax.random.key(config.seed if seed is None else seed)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        params=params,
        ema=None if config.ema is None else params,
        optimiser=_optimiser(config).init(params),
    )


def initial_states(params: Any, config: TrainConfig, seeds: ArrayLike) -> TrainState:
    """Several runs that go on side by side under ``vmap``, each with its own parameters and seed.

    Args:
        params: initial parameters, each with a leading axis ``(S,)``.
        config: how they will be trained.
        seeds: integers ``(S,)``.

    Returns:
        A state whose arrays have a leading axis S; `train` takes it like any other.
    """
    return jax.vmap(lambda p, s: initial_state(p, config, s))(params, jnp.asarray(seeds))


def trained_parameters(state: TrainState) -> Any:
    """The parameters to use: the averaged ones where there are such."""
    return state.params if state.ema is None else state.ema


def check(config: TrainConfig, n: int, mesh: Mesh | None) -> None:
    """Raise ``ValueError`` on sizes that do not fit."""
    for name in ("steps", "batch", "accumulate", "checkpoint_every", "keep"):
        checks.count(getattr(config, name), name)
    if config.chunk is not None:
        checks.count(config.chunk, "chunk")
    checks.positive(config.learning_rate, "learning_rate")
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision is {config.precision!r}; choose one of {PRECISIONS}")
    if config.ema is not None and not 0 <= config.ema < 1:
        raise ValueError(f"ema must lie in [0, 1), but is {config.ema}; None switches it off")
    if mesh is not None and AXIS not in mesh.shape:
        raise ValueError(f"mesh has axes {tuple(mesh.shape)}, expected one named {AXIS!r}")
    parts = config.accumulate * (1 if mesh is None else mesh.shape[AXIS])
    if config.batch % parts:
        raise ValueError(
            f"batch is {config.batch}, not a multiple of accumulate x devices = {parts}"
        )
    check_sizes(n, config.batch)


def steps_at_once(config: TrainConfig, data: ArrayLike) -> int:
    """Most steps per dispatch for these examples on this device."""
    if config.chunk is not None:
        return config.chunk
    return 1 if jnp.ndim(data) > 2 and jax.default_backend() == "cpu" else _CHUNK


def _optimiser(config: TrainConfig) -> optax.GradientTransformation:
    rate: Any = config.learning_rate
    if config.warm_up:
        rate = optax.linear_schedule(rate / config.warm_up, rate, config.warm_up - 1)
    chain = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    if config.weight_decay:
        chain.append(optax.adamw(rate, weight_decay=config.weight_decay, mask=_matrices))
    else:
        chain.append(optax.adam(rate))
    return optax.chain(*chain)


def _matrices(params: Any) -> Any:
    """Which arrays decay: weights, not biases or gains."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


@partial(jax.jit, static_argnames=("config", "mesh"), donate_argnums=0)
def advance(
    state: TrainState,
    data: Array,
    objective: Objective,
    apply: Partial,
    count: ArrayLike,
    *,
    config: TrainConfig,
    mesh: Mesh | None,
    labels: Array | None = None,
) -> tuple[TrainState, Array]:
    """``count <= steps_at_once`` steps; losses ``(steps_at_once, ...)``, NaN after the last."""
    steps = partial(_steps, (data, labels), objective, apply, count, config, mesh)
    if state.step.ndim == 0:
        return steps(state, lambda sound: sound)

    def together(sound: Array) -> Array:
        return jax.lax.pmin(sound.astype(jnp.int32), "runs") > 0

    many = jax.vmap(partial(steps, agree=together), out_axes=(0, 1), axis_name="runs")
    return many(state)


def _steps(
    examples: tuple[Array, Array | None],
    objective: Objective,
    apply: Apply,
    count: ArrayLike,
    config: TrainConfig,
    mesh: Mesh | None,
    state: TrainState,
    agree: Callable[[Array], Array],
) -> tuple[TrainState, Array]:
    """A loop over steps whose length is a number of the program, not a part of it."""
    data, _ = examples
    key_order, key_step = jax.random.split(jax.random.wrap_key_data(state.key))
    chunk = steps_at_once(config, data)
    rows = batch_indices(key_order, state.step, chunk, config.batch, data.shape[0])

    def body(i: Array, carry: tuple) -> tuple:
        state, losses, sound = carry
        key = jax.random.fold_in(key_step, state.step)
        chosen = jax.tree.map(lambda v: v[rows[i]], examples)
        loss, gradient = _gradient(key, state.params, chosen, objective, apply, config, mesh)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        sound = sound & agree(finite)
        state = jax.lax.cond(sound, lambda: _update(state, gradient, config), lambda: state)
        return state, losses.at[i].set(loss), sound

    carry = (state, jnp.full(chunk, jnp.nan, data.dtype), jnp.array(True))
    loop = body(jnp.int32(0), carry) if chunk == 1 else jax.lax.fori_loop(0, count, body, carry)
    return loop[0], loop[1]


def _gradient(
    key: Array,
    params: Any,
    examples: tuple[Array, Array | None],
    objective: Objective,
    apply: Apply,
    config: TrainConfig,
    mesh: Mesh | None,
) -> tuple[Array, Any]:
    """Mean loss of a batch and its gradient, piece by piece, eq. (1)."""
    a, labels = examples
    key_time, key_noise, key_network = jax.random.split(key, 3)
    t = objective.levels.draw(key_time, len(a), a.dtype)
    z = normal(key_noise, a.shape, a.dtype)
    network = _in_precision(apply, config.precision)

    def loss(params: Any, batch: tuple, key: Array) -> Array:
        if mesh is not None:
            split = NamedSharding(mesh, PartitionSpec(AXIS))
            batch = jax.lax.with_sharding_constraint(batch, split)
        a, t, z, labels = batch
        losses = example_losses(objective, network, params, a, t, z, key=key, labels=labels)
        return jnp.mean(losses)

    batch = (a, t, z, labels)
    if config.accumulate == 1:
        return jax.value_and_grad(loss)(params, batch, key_network)

    def piece(total: Any, item: Any) -> tuple[Any, None]:
        index, part = item
        value = jax.value_and_grad(loss)(params, part, jax.random.fold_in(key_network, index))
        return jax.tree.map(jnp.add, total, value), None

    pieces = jax.tree.map(lambda v: v.reshape(config.accumulate, -1, *v.shape[1:]), batch)
    zero = (jnp.zeros((), a.dtype), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(piece, zero, (jnp.arange(config.accumulate), pieces))
    return jax.tree.map(lambda v: v / config.accumulate, total)


def _in_precision(apply: Apply, precision: str) -> Apply:
    """The network with its arithmetic in ``precision``; its clock stays as it is."""
    if precision == "float32":
        return apply
    dtype = jnp.dtype(precision)

    def network(params: Any, x: Array, time: Array, *known: Array, key: Array | None) -> Array:
        narrow = jax.tree.map(partial(_cast, dtype), params)
        return apply(narrow, x.astype(dtype), time, *known, key=key)

    return network


def _cast(dtype: Any, leaf: Array) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _update(state: TrainState, gradient: Any, config: TrainConfig) -> TrainState:
    """One step of the optimiser and of the average, eq. (2)."""
    change, optimiser = _optimiser(config).update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, change)
    ema, step = state.ema, state.step + 1
    if config.ema is not None:
        rate = jnp.minimum(config.ema, (1 + step) / (10 + step))
        ema = jax.tree.map(
            lambda old, new: old + (1 - rate).astype(old.dtype) * (new - old), ema, params
        )
    return TrainState(step, state.key, params, ema, optimiser)
