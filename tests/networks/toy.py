"""A small network in plain JAX, and a small data set, for the tests of training."""

import jax
import jax.numpy as jnp
import numpy as np


def apply(params, x, time, *, key=None):
    tones = jnp.exp(jnp.linspace(-3.0, 1.0, 4)).astype(x.dtype)
    phase = time.astype(x.dtype)[:, None] * tones
    h = jnp.concatenate([x, jnp.sin(phase), jnp.cos(phase)], axis=-1)
    h = jax.nn.silu(h @ params["w1"] + params["b1"])
    return h @ params["w2"] + params["b2"]


def parameters(key, dim=3, width=16, dtype=jnp.float32):
    k1, k2 = jax.random.split(key)
    return {
        "w1": 0.3 * jax.random.normal(k1, (dim + 8, width), dtype),
        "b1": jnp.zeros(width, dtype),
        "w2": 0.3 * jax.random.normal(k2, (width, dim), dtype),
        "b2": jnp.zeros(dim, dtype),
    }


def points(n=10, dim=3):
    return np.random.default_rng(5).normal(size=(n, dim)).astype(np.float32)
