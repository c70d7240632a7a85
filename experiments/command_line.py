"""The command line: lists the experiments, turns a ``Config`` into flags, and runs one."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from typing import Any

from experiments.registry import EXPERIMENTS

PRESET_NAMES = ("test", "quick", "paper")


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_listing())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        print(f"unknown experiment {name!r}; choose one of {known}", file=sys.stderr)
        return 2
    # Theory is solved in float64; simulations stay in the dtype of --dtype.
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        module = importlib.import_module(f"experiments.{name}")
        config, options = parse(name, module, rest)
        from experiments.session import run

        run(name, module, config, options)
    except (ValueError, TypeError, FileNotFoundError, FloatingPointError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def _listing() -> str:
    """The text of ``python -m experiments``."""
    lines = ["usage: python -m experiments NAME [--preset test|quick|paper] [--flag value ...]", ""]
    width = max(map(len, EXPERIMENTS))
    for name, entry in EXPERIMENTS.items():
        lines.append(f"  {name:{width}s}  {entry.summary}")
        lines.append(f"  {'':{width}s}    [{entry.source}; {entry.duration} on 2 cores]")
    lines += ["", "python -m experiments NAME --help lists the flags of one experiment."]
    return "\n".join(lines)


def parse(name: str, module: Any, arguments: list[str]) -> tuple[Any, argparse.Namespace]:
    """Flags of the experiment's ``Config`` and the shared ones; flags override the preset."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", choices=PRESET_NAMES, default="quick", help="sizes of the run")
    parser.add_argument("--out", default=None, help=f"output folder (default runs/{name})")
    parser.add_argument(
        "--resume", action="store_true", help="take finished parts of the same run from --out"
    )
    for field in dataclasses.fields(module.Config):
        _add_flag(parser, field)
    options = parser.parse_args(arguments)
    given = {
        field.name: _frozen(getattr(options, field.name))
        for field in dataclasses.fields(module.Config)
        if getattr(options, field.name) is not None
    }
    return module.Config(**{**module.PRESETS[options.preset], **given}), options


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """One flag for one field of a ``Config``; ``nargs`` in the metadata is passed on."""
    flag = "--" + field.name.replace("_", "-")
    shown = field.default if field.default is not dataclasses.MISSING else None
    note = f"{field.metadata.get('help', '')} (default {shown})"
    kind = field.metadata.get("type", type(shown) if shown is not None else str)
    if isinstance(shown, bool):
        parser.add_argument(
            flag, dest=field.name, action=argparse.BooleanOptionalAction, default=None, help=note
        )
    elif "nargs" in field.metadata:
        parser.add_argument(
            flag, dest=field.name, nargs=field.metadata["nargs"], type=kind, default=None, help=note
        )
    else:
        parser.add_argument(
            flag,
            dest=field.name,
            type=kind,
            default=None,
            choices=field.metadata.get("choices"),
            help=note,
        )


def _frozen(value: Any) -> Any:
    """Lists of values as tuples, so that a ``Config`` can be hashed and compared."""
    return tuple(value) if isinstance(value, list) else value


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A field of a ``Config``: help text, and ``choices``, ``type``, ``nargs`` of its flag."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})
