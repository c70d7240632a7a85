"""The shape of the project: two wings that never meet, public names, a light import."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import diffjax

ROOT = Path(__file__).parents[2]
# What each package must not import, anywhere in its files (also not inside functions).
FORBIDDEN = {
    "diffjax": {"theory", "experiments", "benchmarks", "tests"},
    "theory": {"diffjax", "experiments", "benchmarks", "tests"},
}
HEAVY = ("flax", "optax", "numpyro", "matplotlib", "diffrax", "sklearn", "PIL", "theory")


def imported(file):
    """Top-level names that a file imports anywhere; relative imports stay in their package."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (a.value.partition(".")[0] for a in node.args if isinstance(a, ast.Constant))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_wings_never_meet(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    meetings = [
        (str(file.relative_to(ROOT)), name)
        for file in files
        for name in imported(file)
        if name in FORBIDDEN[package]
    ]
    assert meetings == []


def test_the_import_scan_sees_what_it_should(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "from theory.roots import bisect\ndef f():\n    import experiments.regimes as r\n"
        "    importlib.import_module('diffjax.data')\nfrom . import y\n"
    )
    assert sorted(imported(file)) == ["diffjax", "experiments", "theory"]


def public_objects():
    """Every name that diffjax or one of its public modules exports."""
    modules = [diffjax, *(v for v in vars(diffjax).values() if inspect.ismodule(v))]
    for module in modules:
        names = getattr(module, "__all__", None)
        if names is None:  # what the module defines itself
            names = [
                name
                for name, value in vars(module).items()
                if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
            ]
        for name in names:
            yield f"{module.__name__}.{name}", getattr(module, name, None)


def test_every_public_name_exists_and_is_documented():
    found = dict(public_objects())
    assert len(found) > 30
    missing = [name for name, value in found.items() if value is None]
    assert missing == []
    bare = [
        name
        for name, value in found.items()
        if (callable(value) or inspect.ismodule(value)) and not inspect.getdoc(value)
    ]
    assert bare == []


def test_public_methods_are_documented():
    records = [value for _, value in public_objects() if inspect.isclass(value)]
    assert len(records) > 4
    bare = [
        f"{record.__name__}.{name}"
        for record in records
        for name, method in vars(record).items()
        if not name.startswith("_") and inspect.isfunction(method) and not method.__doc__
    ]
    assert bare == []


def run(code):
    # The test run's own switches stay out of it.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_import_is_light_and_sets_no_global_flag():
    code = (
        "import jax; before = dict(jax.config.values); import diffjax, sys; "
        f"print([m for m in {HEAVY!r} if m in sys.modules]); "
        "print(before == dict(jax.config.values))"
    )
    assert run(code).split("\n") == ["[]", "True"]


@pytest.mark.slow  # a measurement of time; run it on an idle machine
def test_import_time_is_close_to_that_of_jax():
    def seconds(module):
        start = time.perf_counter()
        run(f"import {module}")
        return time.perf_counter() - start

    run("import diffjax")  # byte code and page cache
    rounds = [(seconds("jax"), seconds("diffjax")) for _ in range(3)]
    jax_time, own_time = (min(column) for column in zip(*rounds))
    assert own_time < 1.2 * jax_time, f"diffjax {own_time:.2f} s, jax {jax_time:.2f} s"


def test_submodules_are_found_by_name():
    import theory

    assert theory.speciation is importlib.import_module("theory.speciation")
    assert "collapse" in dir(theory)
    with pytest.raises(AttributeError, match="nothing"):
        theory.nothing  # noqa: B018
