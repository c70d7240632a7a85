"""Checkpoints: bit-exact resumption, real kills, damaged files, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import toy  # noqa: E402

from diffjax.networks import checkpoints, loss_curve, objectives, training  # noqa: E402

OBJECTIVE = objectives.published()
CONFIG = training.TrainConfig(
    steps=20, batch=4, ema=0.8, learning_rate=1e-2, checkpoint_every=6, chunk=4, keep=2
)


def beginning(config=CONFIG):
    return training.initial_state(toy.parameters(jax.random.key(2)), config)


def run(folder, config=CONFIG, **options):
    state = training.resume(beginning(), OBJECTIVE, config, folder)
    return training.train(
        state, toy.apply, OBJECTIVE, toy.points(), config, folder=folder, **options
    )


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


STATE = {"a": jnp.arange(2000.0), "b": [jnp.ones((2, 3), jnp.bfloat16), jnp.zeros((0, 4))]}


def fill(folder, count=3, keep=3):
    for step in range(1, count + 1):
        state = jax.tree.map(lambda x, step=step: x + step, STATE)
        checkpoints.save(folder, step, state, keep=keep)


def files_of(folder, step):
    path = folder / f"step_{step:09d}"
    return sorted((f for f in path.rglob("*") if f.is_file()), key=lambda f: -f.stat().st_size)


# Files --------------------------------------------------------------------------------------------


def test_a_state_comes_back_with_its_bits_and_dtypes(tmp_path):
    fill(tmp_path, 4, keep=2)
    assert checkpoints.steps(tmp_path) == [3, 4]
    found = checkpoints.restore(tmp_path, STATE)
    assert_equal(found, jax.tree.map(lambda x: x + 4, STATE))
    assert [x.dtype for x in jax.tree.leaves(found)] == [x.dtype for x in jax.tree.leaves(STATE)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000003", "step_000000004"]


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.restore(tmp_path / "nothing", STATE) is None


def damage_truncate(folder):
    file = files_of(folder, 3)[0]
    os.truncate(file, file.stat().st_size // 2)


def damage_flip(folder):
    file = files_of(folder, 3)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def damage_remove(folder):
    files_of(folder, 3)[0].unlink()


def damage_add(folder):
    (folder / "step_000000003" / "state" / "more").write_bytes(b"x")


def damage_manifest(folder):
    path = folder / "step_000000003" / "manifest.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 7'))


def damage_no_manifest(folder):
    (folder / "step_000000003" / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "bytes"),
        (damage_flip, "does not match its checksum"),
        (damage_remove, "is missing"),
        (damage_add, "does not belong to it"),
        (damage_manifest, "manifest.json was changed"),
        (damage_no_manifest, "no readable manifest"),
    ],
)
def test_damage_is_found_and_the_last_good_one_is_used(tmp_path, damage, message):
    fill(tmp_path)
    damage(tmp_path)
    with pytest.warns(RuntimeWarning, match=rf"step_000000003.*{message}.*Going on from step 2"):
        found = checkpoints.restore(tmp_path, STATE)
    assert_equal(found, jax.tree.map(lambda x: x + 2, STATE))


def test_every_flipped_byte_is_found(tmp_path):
    fill(tmp_path, 1)
    path = tmp_path / "step_000000001"
    for file in files_of(tmp_path, 1):
        content = file.read_bytes()
        for place in (0, len(content) // 3, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 4
            file.write_bytes(changed)
            with pytest.raises(checkpoints.CorruptCheckpointError):
                checkpoints.verify(path)
        file.write_bytes(content)
    assert checkpoints.verify(path)["step"] == 1


def test_nothing_whole_is_an_error(tmp_path):
    fill(tmp_path, 1)
    os.truncate(files_of(tmp_path, 1)[0], 3)
    with pytest.raises(checkpoints.CorruptCheckpointError, match=r"no checkpoint in .* is whole"):
        checkpoints.restore(tmp_path, STATE)


def test_other_networks_and_recipes_are_refused(tmp_path):
    checkpoints.save(tmp_path, 1, STATE, config={"batch": 4, "rate": 0.1})
    assert checkpoints.restore(tmp_path, STATE, config={"batch": 4, "rate": 0.1}) is not None
    with pytest.raises(ValueError, match="batch = 4, now 8"):
        checkpoints.restore(tmp_path, STATE, config={"batch": 8, "rate": 0.1})
    with pytest.raises(ValueError, match="another network"):
        checkpoints.restore(tmp_path, STATE | {"a": jnp.zeros(3)})
    with pytest.raises(ValueError, match="another network"):
        checkpoints.restore(tmp_path, STATE | {"c": jnp.zeros(3)})
    with pytest.raises(ValueError, match="keep is 0"):
        checkpoints.save(tmp_path, 2, STATE, keep=0)


def test_nothing_is_pickled(tmp_path):
    fill(tmp_path, 1)
    for file in files_of(tmp_path, 1):
        assert not file.read_bytes().startswith(b"\x80")  # the first byte of a pickle
    source = Path(checkpoints.__file__).read_text()
    assert "import pickle" not in source


# Resumed runs in this process ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    state, losses = run(folder)
    return folder, state, losses


def stop_at(step):
    """Progress that sends this process a SIGINT once ``step`` has been reached."""

    def progress(done, total):
        if done >= step:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


@pytest.mark.parametrize("step", [1, 11])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, uninterrupted, step):
    folder, state, losses = uninterrupted
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop_at(step))
    assert signal.getsignal(signal.SIGINT) is before
    (*_, stopped) = checkpoints.steps(tmp_path / "checkpoints")
    assert step <= stopped < 20
    resumed, rest = run(tmp_path)
    assert_equal(resumed, state)
    np.testing.assert_array_equal(rest, losses[stopped:])
    assert (tmp_path / "loss.csv").read_text() == (folder / "loss.csv").read_text()
    np.testing.assert_array_equal(
        loss_curve.read_losses(tmp_path / "loss.csv").astype(np.float32), losses
    )


def test_sigterm_asks_for_the_exit_status_of_the_signal(tmp_path):
    def progress(done, total):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        run(tmp_path, progress=progress)
    assert caught.value.code == 128 + signal.SIGTERM
    assert checkpoints.steps(tmp_path / "checkpoints") == [1]


def test_a_run_goes_on_from_the_last_good_checkpoint(tmp_path, uninterrupted):
    _, state, _ = uninterrupted
    run(tmp_path, replace(CONFIG, steps=14))
    newest = files_of(tmp_path / "checkpoints", 14)[0]
    os.truncate(newest, 5)
    with pytest.warns(RuntimeWarning, match="step_000000014.*Going on from step 12"):
        resumed, losses = run(tmp_path)
    assert len(losses) == 8
    assert_equal(resumed, state)


def test_a_finished_run_is_not_begun_again_by_mistake(tmp_path):
    run(tmp_path, replace(CONFIG, steps=2))
    with pytest.raises(ValueError, match="holds the checkpoint of step 2"):
        training.train(beginning(), toy.apply, OBJECTIVE, toy.points(), CONFIG, folder=tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate = 0\.01, now 0\.5"):
        run(tmp_path, replace(CONFIG, learning_rate=0.5))


# Killed processes ---------------------------------------------------------------------------------


def start(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, str(HERE / "child.py"), str(folder), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_rows(process, path, rows):
    """Until the loss curve has that many rows."""
    limit = time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") <= rows:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_killed_runs_end_with_the_same_bits(tmp_path):
    whole = start(tmp_path / "whole", "run")
    _, errors = whole.communicate(timeout=600)
    assert whole.returncode == 0, errors

    folder = tmp_path / "killed"
    slow = start(folder, "slow")  # killed while it takes steps, after the checkpoint of step 10
    wait_for_rows(slow, folder / "loss.csv", 13)
    slow.send_signal(signal.SIGKILL)
    slow.communicate(timeout=600)
    assert slow.returncode == -signal.SIGKILL

    begins = []
    for mode, step in (("write", 40), ("rename", 50)):
        child = start(folder, mode, step)
        out, errors = child.communicate(timeout=600)
        assert child.returncode == -signal.SIGKILL, errors
        begins.append(int(out.split()[1]))
        kept = checkpoints.steps(folder / "checkpoints")
        assert kept[-1] == step - 10
        assert list((folder / "checkpoints").glob(".unfinished-*"))  # what the kill left
    last = start(folder, "run")
    out, errors = last.communicate(timeout=600)
    assert last.returncode == 0, errors
    begins.append(int(out.split()[1]))
    assert 10 <= begins[0] < 40
    assert begins[1:] == [30, 40]
    assert not list((folder / "checkpoints").glob(".unfinished-*"))
    assert json.loads((folder / "checkpoints/step_000000060/manifest.json").read_text())
    with np.load(tmp_path / "whole/final.npz") as a, np.load(folder / "final.npz") as b:
        assert a.files == b.files
        assert len(a.files) > 10
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    curves = [(path / "loss.csv").read_text() for path in (tmp_path / "whole", folder)]
    assert curves[0] == curves[1]
