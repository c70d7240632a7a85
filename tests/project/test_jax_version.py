"""Guards against jax releases that silently compute wrong numbers on CPU."""

import jax
import jax.numpy as jnp
import numpy as np


def test_jit_equals_numpy_for_vmapped_sum_of_squares():
    # jax-ml/jax#39103: thousands of wrong rows above 16,384 in jax 0.10.2, a relative in 0.11.0.
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3)).astype(np.float32)
    r = rng.normal(size=(40_000, 3)).astype(np.float32)
    expected = ((r @ A.T) ** 2).sum(-1)
    norm = jax.jit(jax.vmap(lambda v: jnp.sum((jnp.asarray(A) @ v) ** 2)))
    np.testing.assert_allclose(norm(r), expected, rtol=2e-5, atol=1e-6)
