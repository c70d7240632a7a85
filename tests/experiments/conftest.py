"""Runs of experiments, shared by the tests of one worker, and what every run must fulfil."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import command_line, session


def _execute(name, folder, preset="test", resume=False, **changes):
    module = importlib.import_module(f"experiments.{name}")
    flags = ["--preset", preset, "--out", str(folder), *(["--resume"] if resume else [])]
    config, options = command_line.parse(name, module, flags)
    return session.run(name, module, replace(config, **changes), options)


@pytest.fixture(scope="session")
def execute():
    """``execute(name, folder, preset="test", resume=False, **changes)`` returns the report."""
    return _execute


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Each experiment's test preset, run once per worker: ``name -> (report, folder)``."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name] = (_execute(name, folder), folder)
        return done[name]

    return run


def _no_constant(name):
    raise ValueError(f"{name} in summary.json")


def _check_run(report, folder, name, *, exact, controls):
    """Files, finite numbers, and the verdicts: exact theory passes and controls are rejected."""
    for file in ("figure.png", "figure.pdf", "curves.npz", "summary.json"):
        assert (folder / file).stat().st_size > 0
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=_no_constant)
    assert summary["experiment"] == name
    assert summary["finding"] == report.finding
    assert "nan" not in report.finding
    with np.load(folder / "curves.npz") as curves:
        assert set(curves.files) == set(summary["curves"])
        assert all(np.all(np.isfinite(curves[key])) for key in curves.files)
    wrong = [c for c in report.comparisons if c.control]
    right = [c for c in report.comparisons if c.exact and not c.control]
    assert len(wrong) == controls
    assert len(right) == exact
    for comparison in wrong + right:
        assert comparison.passed is True, comparison.line()
        assert comparison.points >= 2


@pytest.fixture(scope="session")
def check_run():
    """``check_run(report, folder, name, exact=, controls=)``: see `_check_run`."""
    return _check_run
