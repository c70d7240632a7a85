"""Different record classes have different pytree structures, so that no jit cache mixes them up."""

from itertools import combinations

import jax
import jax.numpy as jnp
import pytest

import diffjax
from diffjax import processes
from diffjax.data.gaussian_mixture import GaussianMixture
from diffjax.diffusion import Diffusion, ScoreModel

PROCESSES = [
    processes.OrnsteinUhlenbeck,
    processes.VariancePreserving,
    processes.VarianceExploding,
    processes.RectifiedFlow,
]


@pytest.mark.parametrize(("one", "other"), list(combinations(PROCESSES, 2)))
def test_processes_differ_in_structure(one, other):
    a, b = jax.tree.structure(one(1.0)), jax.tree.structure(other(1.0))
    assert a != b
    assert jax.tree.structure(Diffusion(0.0, one(1.0))) != jax.tree.structure(
        Diffusion(0.0, other(1.0))
    )
    assert a == jax.tree.structure(one(2.0))
    assert hash(a) == hash(jax.tree.structure(one(2.0)))


def test_diffusion_and_score_model_differ_in_structure():
    process = diffjax.ornstein_uhlenbeck()
    assert jax.tree.structure(Diffusion(0.0, process)) != jax.tree.structure(
        ScoreModel(0.0, process)
    )


def test_static_fields_belong_to_the_structure():
    means = jnp.zeros((2, 3))
    two = diffjax.gaussian_mixture(jnp.ones(2), means, 1.0)
    one = diffjax.gaussian_mixture(jnp.ones(2), means, 1.0, labels=[0, 0])
    assert jax.tree.structure(two) != jax.tree.structure(one)
    back = jax.tree.map(lambda leaf: leaf, one)
    assert isinstance(back, GaussianMixture)
    assert back.classes == 1


def test_leaves_are_named_by_their_fields():
    paths = jax.tree_util.tree_leaves_with_path(diffjax.rectified_flow(0.5))
    assert [(jax.tree_util.keystr(path), leaf) for path, leaf in paths] == [(".temperature", 0.5)]
