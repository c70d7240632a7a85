"""Small networks trained on patterns of the circle, for the experiment `spurious_states`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from diffjax.networks import objectives, training
from diffjax.observables import memorisation
from experiments import learned
from experiments.session import Curves

TIMES = (5e-5, 3.0)  # trained; patterns of the largest sets are told apart inside


def at_size(config: Any, points: np.ndarray, limits: memorisation.Thresholds, bar: Any) -> Curves:
    """Labels and distances ``(seeds, M)`` of samples of networks trained side by side.

    ``copies`` is the memorised fraction by the ratio of neighbour distances, ``(seeds,)``.
    """
    train = points.astype(np.float32)
    network, initial = learned.perceptron(2, config.width, config.depth)
    goal = objectives.modern(t_min=TIMES[0], t_max=TIMES[1], parametrisation="eps", weighting="eps")
    plan = training.modern(
        steps=config.steps, batch=256, learning_rate=1e-3, warm_up=100, ema=0.999, chunk=256,
        checkpoint_every=config.steps,
    )  # fmt: skip
    key_weights, key_samples = jax.random.split(jax.random.key(config.seed))
    params = jax.vmap(initial)(jax.random.split(key_weights, config.seeds))
    state = training.initial_states(params, plan, config.seed + np.arange(config.seeds))
    # repeats, so that a batch is never larger than the set
    repeated = np.resize(train, (-(-256 // len(train)) * len(train), 2))
    state, losses = training.train(state, network, goal, repeated, plan, progress=bar)

    def of_seed(params: Any, key: jax.Array) -> jax.Array:
        model = learned.diffusion(goal, network, params, 2)
        return learned.samples(key, model, (config.samples, 2), config.chain)

    keys = jax.random.split(key_samples, config.seeds)  # the same noise at every size
    drawn = jax.jit(jax.vmap(of_seed))(training.trained_parameters(state), keys)
    found = [memorisation.fractions(x, train, **limits._asdict()) for x in drawn]
    return {
        "labels": np.stack([f.labels for f in found]),
        "train_distance": np.stack([f.train_distance for f in found]),
        "copies": np.stack([memorisation.gap_ratio(x, train).memorised.mean for x in drawn]),
        "drawn": np.asarray(drawn[0]),
        "loss": losses[-max(1, config.steps // 20) :].mean(0),
    }
