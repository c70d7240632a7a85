"""The main job: what a user gets for embedded images, for arrays, and for wrong input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import regimes
from experiments.command_line import parse
from experiments.registry import EXPERIMENTS
from experiments.session import Session, fingerprint, run

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"samples": 300, "times": 8, "trajectories": 30, "steps": 16}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The test preset as the command line runs it."""
    folder = tmp_path_factory.mktemp("digits")
    arguments = ["--preset", "test", "--out", str(folder)]
    config, options = parse("regimes", regimes, arguments)
    return folder, config, options, run("regimes", regimes, config, options)


def test_folder_holds_figure_curves_and_summary(digits):
    folder, _, _, _ = digits
    for name in ("figure.png", "figure.pdf", "curves.npz", "summary.json"):
        assert (folder / name).stat().st_size > 1000
    text = (folder / "summary.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    summary = json.loads(text)
    with np.load(folder / "curves.npz", allow_pickle=False) as curves:
        assert set(curves.files) == set(summary["curves"])
        assert all(np.all(np.isfinite(curves[name])) for name in curves.files)
    assert (
        "[0, 1]" in summary["results"]["Lambda_convention"]
        or "0 to 1" in (summary["results"]["Lambda_convention"])
    )


def test_numbers_agree_with_independent_ones(digits):
    from sklearn.datasets import load_digits

    _, _, _, report = digits
    raw = load_digits()
    rows = [np.nonzero(raw.target == c)[0][:178] for c in (0, 1)]
    points = raw.data[np.sort(np.concatenate(rows))] / 16
    largest = np.linalg.eigvalsh(np.cov(points.T))[-1]
    assert report.summary["Lambda"] == pytest.approx(largest, rel=1e-5)
    found = report.summary["times"]
    spectral = found["speciation, spectral (Lambda e^-2t = 1)"]
    assert spectral["t"] == pytest.approx(0.5 * np.log(largest), rel=1e-5)
    assert spectral["sigma"] == pytest.approx(np.sqrt(largest - 1), rel=1e-4)
    # n = exp(information): the Gaussian information of this spectrum at t_C is log n
    collapse = found["collapse, theory (Gaussian spectrum, approximate)"]["t"]
    snr = 1 / np.expm1(2 * collapse)
    spectrum = np.linalg.eigvalsh(np.cov(points.T))
    assert 0.5 * np.log1p(np.maximum(spectrum, 0) * snr).sum() == pytest.approx(
        np.log(len(points)), rel=1e-4
    )


def test_overlays_pass_and_controls_are_rejected(digits):
    _, _, _, report = digits
    exact = [c for c in report.comparisons if c.exact and not c.control]
    controls = [c for c in report.comparisons if c.control]
    assert len(exact) >= 1
    assert len(controls) >= 1
    assert all(c.passed for c in exact + controls), [c.line() for c in report.comparisons]


def test_resumed_run_ends_with_the_same_numbers(digits):
    folder, config, _, _ = digits
    before = dict(np.load(folder / "curves.npz"))
    parts = sorted((folder / "parts").glob("*.npz"))
    assert len(parts) >= 3
    parts[0].unlink()  # what an interruption would have left out
    session = Session(folder, fingerprint("regimes", config), resume=True, quiet=True)
    measured = regimes.simulate(config, session)
    report = regimes.report(config, measured, regimes.predict(config, measured))
    for name, values in before.items():
        np.testing.assert_array_equal(report.curves[name], values)


@pytest.mark.slow
def test_digits_one_and_eight_have_no_spectral_time():
    config = regimes.Config(classes=("1", "8"), **SMALL)
    data = regimes.load(config)
    points = data.points.astype(np.float64)
    assert np.linalg.eigvalsh(np.cov(points.T))[-1] < 1
    session = Session(Path(), "memory", resume=False, quiet=True, keep=False)
    measured = regimes.simulate(config, session)
    report = regimes.report(config, measured, regimes.predict(config, measured))
    assert ("speciation, spectral (Lambda e^-2t = 1)", "none") in report.table
    assert report.summary["times"]["speciation, spectral (Lambda e^-2t = 1)"]["step_index"] is None


def test_without_labels_there_is_no_phi():
    points = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32) * 2
    report = regimes.analyse(points, **SMALL)
    assert "clone_agreement" not in report.curves
    assert not any("phi crossing" in name for name in report.summary["times"])
    assert np.isfinite(report.summary["times"]["collapse, measured (f_LOO = 0)"]["t"])


@pytest.mark.slow
def test_fewer_points_than_dimensions_give_the_numbers_of_the_full_space():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(size=(24, 10)), np.zeros((24, 30))], axis=1) + 1.0
    rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    reduced = regimes.analyse(points @ rotation, np.arange(24) % 2, **SMALL)
    times = reduced.summary["times"]["collapse, theory (Gaussian spectrum, approximate)"]["t"]
    eigenvalues = np.linalg.eigvalsh(np.cov(points.T))
    information = 0.5 * np.log1p(np.maximum(eigenvalues, 0) / np.expm1(2 * times)).sum()
    assert information == pytest.approx(np.log(24), rel=1e-6)
    # f^e per dimension of the full space saturates at alpha = log n / d at large noise
    alpha = np.log(24) / 40
    assert reduced.curves["excess_entropy"][-1] == pytest.approx(alpha, rel=0.1)


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (np.zeros(4), None, "expected (n, d); for one-dimensional data pass points[:, None]"),
        (np.zeros((0, 3)), None, "empty"),
        (np.ones((1, 3)), None, "n >= 2"),
        (np.ones((5, 3)), None, "all points coincide"),
        (np.array([[0.0, np.nan], [1.0, 2.0]]), None, "NaN or infinite"),
        (np.eye(4), [0, 1, 0], "expected (4,)"),
    ],
)
def test_bad_arrays_get_an_error_with_the_fix(points, labels, message):
    with pytest.raises(ValueError, match=r".") as caught:
        regimes.analyse(points, labels, **SMALL)
    assert message in str(caught.value)


def test_one_class_only_and_duplicates_are_defined():
    rng = np.random.default_rng(2)
    points = np.repeat(rng.normal(size=(20, 3)), 2, axis=0)  # every point twice
    report = regimes.analyse(points, np.zeros(40, int), **SMALL)
    assert "clone_agreement" not in report.curves
    # two copies share the weight: phi_C cannot exceed 1/2 and f^e >= log(2) / d
    assert np.all(report.curves["participation"] <= 0.5 + 1e-9)
    assert np.all(report.curves["excess_entropy"] >= np.log(2) / 3 - 1e-9)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_help_lists_every_experiment_without_importing_jax():
    code = (
        "import sys; from experiments.command_line import main; main(['--help']); "
        "print('jax' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(name in done.stdout for name in EXPERIMENTS)
    assert done.stderr.strip() == "False"


def test_wrong_command_lines_say_what_to_do(tmp_path):
    unknown = command("nothing")
    assert unknown.returncode == 2
    assert "regimes" in unknown.stderr
    missing = command("regimes", "--data", str(tmp_path / "none.npy"))
    assert missing.returncode == 1
    assert "no such file" in missing.stderr
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    pickled = command("regimes", "--data", str(tmp_path / "objects.npy"))
    assert pickled.returncode == 1
    assert "pickle" in pickled.stderr.lower() or "object" in pickled.stderr.lower()
    schedule = command("regimes", "--schedule", "quadratic")
    assert schedule.returncode == 2
    assert "ddpm-linear" in schedule.stderr
