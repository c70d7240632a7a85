"""Training: loss falls, order of the examples, accumulation, precision, averages, NaN, devices."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import toy

from diffjax.networks import loss_curve, objectives, training, training_step
from diffjax.networks.order import batch_indices, epoch_order

OBJECTIVE = objectives.modern()
CONFIG = training.TrainConfig(steps=12, batch=8, learning_rate=3e-3, checkpoint_every=5, chunk=4)


def run(config, state=None, data=None, **options):
    if state is None:
        state = training.initial_state(toy.parameters(jax.random.key(1)), config)
    data = toy.points() if data is None else data
    return training.train(state, toy.apply, OBJECTIVE, data, config, **options)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_loss_of_a_single_point_falls():
    config = replace(CONFIG, steps=600, chunk=64)
    _, losses = run(config, data=toy.points(1))
    assert losses.shape == (600,)
    assert losses.dtype == np.float32
    assert np.mean(losses[-50:]) < 0.3 * np.mean(losses[:20])


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (3, 8), (1, 2)])
def test_every_epoch_visits_each_example_once(n, batch, key):
    steps = 2 * n + 3
    indices = jax.jit(batch_indices, static_argnums=(2, 3, 4))
    whole = np.asarray(indices(key, jnp.int32(0), steps, batch, n))
    flat = whole.reshape(-1)
    epochs = flat[: len(flat) // n * n].reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))
    if n > 6:
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # and in another order
    # any piece of a run sees what the whole run sees
    for first in (1, n - 1, n, n + 1):
        piece = indices(key, jnp.int32(first), 2, batch, n)
        np.testing.assert_array_equal(piece, whole[first : first + 2])


def test_orders_are_uniform(key):
    # the six orders of three examples, over 6000 epochs: chi-square with five degrees of freedom
    orders = jax.vmap(lambda epoch: epoch_order(key, epoch, 3))(jnp.arange(6000))
    counts = np.bincount(np.asarray(orders) @ np.array([9, 3, 1]))
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert np.sum((counts - 1000) ** 2 / 1000) < 20.5  # exceeded once in a thousand


def test_order_is_right_beyond_the_range_of_32_bits(key):
    n, batch, first = 1000, 4096, 2_000_000  # example 8.2e9
    rows = np.asarray(batch_indices(key, jnp.int32(first), 1, batch, n))[0]
    epoch, place = divmod(first * batch, n)
    order = epoch_order(key, epoch, n)
    np.testing.assert_array_equal(rows[: n - place], order[place:])
    with pytest.raises(ValueError, match="below 2"):
        run(replace(CONFIG, batch=2**31))


def test_pieces_of_a_batch_add_up_to_the_batch():
    whole, losses = run(CONFIG)
    pieces, losses_of_pieces = run(replace(CONFIG, accumulate=4))
    # float32 sums in another order; Adam divides by the root of a squared gradient
    np.testing.assert_allclose(losses, losses_of_pieces, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(pieces.params)):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_two_devices_give_the_losses_of_one():
    if jax.device_count() < 2:
        pytest.skip("one device")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    _, one = run(CONFIG)
    state, two = run(CONFIG, mesh=mesh)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert len(state.params["w1"].sharding.device_set) == 2
    other = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("rows",))
    with pytest.raises(ValueError, match="one named 'data'"):
        run(CONFIG, mesh=other)


def test_length_of_the_pieces_does_not_change_a_bit(monkeypatch):
    state, losses = run(CONFIG)
    monkeypatch.setattr(training, "_next_length", lambda *_: 3)
    other, other_losses = run(CONFIG)
    np.testing.assert_array_equal(losses, other_losses)
    assert_equal(state, other)


def test_bfloat16_is_for_the_arithmetic_of_the_network_only():
    seen = []

    def apply(params, x, time, *, key):
        seen.append((params["w1"].dtype.name, x.dtype.name, time.dtype.name))
        return toy.apply(params, x, time)

    config = replace(CONFIG, precision="bfloat16", ema=0.9)
    state = training.initial_state(toy.parameters(jax.random.key(1)), config)
    state, losses = training.train(state, apply, OBJECTIVE, toy.points(), config)
    assert set(seen) == {("bfloat16", "bfloat16", "float32")}
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.ema))}
    assert kinds == {jnp.dtype("float32")}
    _, exact = run(CONFIG)
    # eight bits of mantissa in a few products: within some per cent, and not equal
    np.testing.assert_allclose(losses, exact, rtol=0.1)
    assert np.any(losses != exact)


def test_first_steps_are_those_of_optax():
    config = replace(
        CONFIG, steps=3, ema=0.5, clip=0.1, warm_up=4, weight_decay=0.03, chunk=1, batch=5
    )
    state = training.initial_state(toy.parameters(jax.random.key(1)), config)
    done, losses = run(config, state)
    params = ema = state.params
    key_order, key_step = jax.random.split(jax.random.key(0))
    optimiser = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.adamw(
            lambda count: 3e-3 * (count + 1) / 4,
            weight_decay=0.03,
            mask=lambda tree: {k: k in ("w1", "w2") for k in tree},
        ),
    )
    moments, data = optimiser.init(params), jnp.asarray(toy.points())
    for step in range(3):
        rows = batch_indices(key_order, jnp.int32(step), 1, 5, 10)[0]
        k_t, k_z, k_net = jax.random.split(jax.random.fold_in(key_step, step), 3)
        t = OBJECTIVE.levels.draw(k_t, 5, jnp.float32)
        z = jax.random.normal(k_z, (5, 3), jnp.float32)

        def loss(params, rows=rows, t=t, z=z, key=k_net):
            return jnp.mean(
                objectives.example_losses(OBJECTIVE, toy.apply, params, data[rows], t, z, key=key)
            )

        value, gradient = jax.value_and_grad(loss)(params)
        np.testing.assert_allclose(losses[step], value, rtol=1e-5)
        change, moments = optimiser.update(gradient, moments, params)
        params = optax.apply_updates(params, change)
        rate = min(0.5, (1 + step + 1) / (10 + step + 1))
        ema = jax.tree.map(lambda old, new, r=rate: r * old + (1 - r) * new, ema, params)
    for found, expected in ((done.params, params), (done.ema, ema)):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert_equal(training.trained_parameters(done), done.ema)


def poisoned(params, x, time, *, key):
    """NaN once a bias has moved by more than two steps of Adam: in the middle of a dispatch."""
    far = jnp.max(jnp.abs(params["b1"])) > 0.008
    return toy.apply(params, x, time) + jnp.where(far, jnp.nan, 0.0).astype(x.dtype)


@pytest.mark.parametrize("seeds", [None, 2])
def test_nan_stops_at_its_step_with_the_state_before_it(tmp_path, seeds):
    if seeds is None:
        state = training.initial_state(toy.parameters(jax.random.key(1)), CONFIG)
    else:
        many = jax.vmap(toy.parameters)(jax.random.split(jax.random.key(1), seeds))
        state = training.initial_states(many, CONFIG, np.arange(seeds))
    with pytest.raises(training.NonFiniteLossError) as caught:
        training.train(state, poisoned, OBJECTIVE, toy.points(), CONFIG, folder=tmp_path)
    step, good = caught.value.step, caught.value.state
    assert 2 < step < 12
    assert f"step {step}: loss" in str(caught.value)
    assert np.all(np.asarray(good.step) == step)  # all runs side by side stop together
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(good.params))
    stored = training.resume(state, OBJECTIVE, CONFIG, tmp_path)
    assert_equal(stored, good)
    losses = loss_curve.read_losses(tmp_path / "loss.csv")
    assert losses.shape == ((step,) if seeds is None else (step, seeds))
    assert np.all(np.isfinite(losses))


@pytest.mark.slow
def test_runs_side_by_side_are_the_runs_one_by_one():
    # three seeds in one vmap
    many = jax.vmap(toy.parameters)(jax.random.split(jax.random.key(7), 3))
    config = replace(CONFIG, ema=0.9, clip=1.0)
    state = training.initial_states(many, config, jnp.array([4, 9, 2]))
    state, losses = run(config, state)
    assert losses.shape == (12, 3)
    for i, seed in enumerate((4, 9, 2)):
        first = training.initial_state(jax.tree.map(lambda p, i=i: p[i], many), config, seed)
        alone, alone_losses = run(config, first)
        np.testing.assert_allclose(losses[:, i], alone_losses, rtol=2e-5)
        for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(alone.ema)):
            np.testing.assert_allclose(a[i], b, atol=1e-4)


def test_caller_keeps_its_state_and_dtype_under_x64():
    state = training.initial_state(toy.parameters(jax.random.key(1)), CONFIG)
    before = jax.tree.map(np.array, state)
    done, _ = run(replace(CONFIG, warm_up=3, weight_decay=0.1, ema=0.9, clip=1.0))
    assert {leaf.dtype for leaf in jax.tree.leaves(done.params)} == {jnp.dtype("float32")}
    run(CONFIG, state)
    assert_equal(jax.tree.map(np.array, state), before)


def test_progress_and_reports(tmp_path):
    calls, reports = [], []
    run(
        CONFIG,
        folder=tmp_path,
        progress=lambda done, total: calls.append((done, total)),
        report=lambda state: reports.append(int(state.step)),
    )
    assert calls[-1] == (12, 12)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert reports == [5, 10, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch must be an integer >= 1"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\)"),
        ({"accumulate": 3}, "not a multiple of accumulate x devices = 3"),
    ],
)
def test_bad_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        run(replace(CONFIG, **changes))


def test_presets():
    assert training.published() == training.TrainConfig()
    assert training.published(steps=7).steps == 7
    recipe = training.modern(batch=16)
    assert recipe.ema == 0.9999
    assert recipe.clip == 1.0
    assert recipe.batch == 16
    assert training_step.PRECISIONS == ("float32", "bfloat16")


def test_images_on_a_cpu_are_trained_by_bare_steps():
    config = training.published()
    images = 1 if jax.default_backend() == "cpu" else 64
    assert training_step.steps_at_once(config, np.zeros((3, 8, 8, 1))) == images
    assert training_step.steps_at_once(config, np.zeros((3, 8))) == 64
    assert training_step.steps_at_once(replace(config, chunk=5), np.zeros((3, 8, 8, 1))) == 5
