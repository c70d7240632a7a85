r"""Checkpoints that survive being killed, cut short or flipped, and say so.

A checkpoint is a folder ``step_000001000`` with

    state/          the arrays, written by orbax (no array is ever pickled),
    manifest.json   step, configuration, path, shape and dtype of every array, size and SHA-256 of
                    every file, and the SHA-256 of the manifest itself.

It is written under a name that starts with ``.unfinished`` and renamed when everything is on disk,
so that a folder of the final name is complete. `restore` compares every byte with the checksums
before orbax reads it, and falls back, with a warning, to the newest checkpoint that is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

State = TypeVar("State")

_PREFIX, _UNFINISHED = "step_", ".unfinished-"
_MANIFEST, _ARRAYS = "manifest.json", "state"
_FORMAT = 1


class CorruptCheckpointError(ValueError):
    """No checkpoint of a folder is whole, or the one asked for is not."""


def save(
    folder: str | Path,
    step: int,
    state: Any,
    *,
    keep: int = 3,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write ``state`` as the checkpoint of ``step``; atomic, and the newest ``keep`` stay.

    Args:
        folder: where the checkpoints of a run lie; made if it is not there.
        step: number of finished steps.
        state: a pytree of arrays.
        keep: how many checkpoints to keep, at least one.
        config: JSON values that `restore` compares, so that no run is continued as another.

    Returns:
        The folder of the checkpoint.

    Raises:
        ValueError: if ``keep`` is below one.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least the newest checkpoint must be kept")
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)  # of a run that was killed
    final = folder / f"{_PREFIX}{step:09d}"
    working = folder / f"{_UNFINISHED}{final.name}-{os.getpid()}"
    working.mkdir()
    named = _named_arrays(state)
    _write_arrays(working / _ARRAYS, {name: a for name, a in named.items() if a.size})
    _write_manifest(working, step, named, config)
    _sync(working)
    if final.exists():
        os.replace(final, folder / f"{_UNFINISHED}replaced-{os.getpid()}")
    os.replace(working, final)
    _sync_folder(folder)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"{_PREFIX}{old:09d}")
    _remove_unfinished(folder)
    return final


def steps(folder: str | Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, increasing; whole or not."""
    names = (path.name[len(_PREFIX) :] for path in Path(folder).glob(_PREFIX + "*"))
    return sorted(int(name) for name in names if name.isdigit())


def restore(
    folder: str | Path, like: State, *, config: dict[str, Any] | None = None
) -> State | None:
    """The newest whole checkpoint in ``folder``; None if there is no checkpoint at all.

    Damaged ones are passed over with a ``RuntimeWarning`` that says what is wrong with them.

    Args:
        folder: as for `save`.
        like: a state of the same structure, shapes and dtypes (its values are not used).
        config: the configuration of this run, compared with the stored one unless None.

    Returns:
        A state of the structure of ``like`` with NumPy arrays.

    Raises:
        CorruptCheckpointError: if there are checkpoints and none of them is whole.
        ValueError: if the checkpoint is of another configuration or structure.
    """
    damaged = []
    for step in reversed(steps(folder)):
        path = Path(folder).absolute() / f"{_PREFIX}{step:09d}"
        try:
            manifest = verify(path)
        except CorruptCheckpointError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(
                f"{'; '.join(damaged)}. Going on from step {step}", RuntimeWarning, stacklevel=2
            )
        _compare_config(path, manifest["config"], config)
        return _read(path, manifest, like)
    if damaged:
        raise CorruptCheckpointError(
            f"no checkpoint in {folder} is whole: {'; '.join(damaged)}. "
            "Remove the folder to start again"
        )
    return None


def verify(path: str | Path) -> dict[str, Any]:
    """The manifest of one checkpoint, after every file has been compared with its checksum.

    Raises:
        CorruptCheckpointError: naming the file that is missing, cut short, changed or added.
    """
    path = Path(path)
    try:
        text = (path / _MANIFEST).read_bytes()
        stored = json.loads(text)
        manifest, checksum = stored["manifest"], stored["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpointError(
            f"checkpoint {path.name} has no readable {_MANIFEST}"
        ) from error
    if hashlib.sha256(_as_text(manifest).encode()).hexdigest() != checksum:
        raise CorruptCheckpointError(f"checkpoint {path.name}: {_MANIFEST} was changed")
    found, expected = _files(path), manifest["files"]
    for name in sorted(set(found) ^ set(expected)):
        what = "is missing" if name in expected else "does not belong to it"
        raise CorruptCheckpointError(f"checkpoint {path.name}: {name} {what}")
    for name, entry in expected.items():
        size = found[name].stat().st_size
        if size != entry["bytes"]:
            raise CorruptCheckpointError(
                f"checkpoint {path.name}: {name} has {size} of {entry['bytes']} bytes"
            )
        if _checksum(found[name]) != entry["sha256"]:
            raise CorruptCheckpointError(
                f"checkpoint {path.name}: {name} does not match its checksum"
            )
    return manifest


def _remove_unfinished(folder: Path) -> None:
    for left in folder.glob(_UNFINISHED + "*"):
        shutil.rmtree(left, ignore_errors=True)


def _named_arrays(state: Any) -> dict[str, np.ndarray]:
    """Every leaf on the host under its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two leaves of the state have the same path")
    return named


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(path, args=ocp.args.StandardSave(arrays))


def _read(path: Path, manifest: dict[str, Any], like: State) -> State:
    """The arrays of a verified checkpoint in the structure of ``like``."""
    import orbax.checkpoint as ocp

    named, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {
        jax.tree_util.keystr(key): jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)
        for key, leaf in named
    }
    stored = {
        name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in manifest["arrays"].items()
    }
    for name in dict.fromkeys([*wanted, *stored]):
        mine = (wanted[name].shape, str(wanted[name].dtype)) if name in wanted else None
        if mine != stored.get(name):
            raise ValueError(
                f"checkpoint {path.name} holds {stored.get(name)} as {name}, this run {mine}; "
                "it belongs to another network or optimiser"
            )
    full = {name: leaf for name, leaf in wanted.items() if np.prod(leaf.shape)}
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        arrays = reader.restore(path / _ARRAYS, args=ocp.args.StandardRestore(full))
    leaves = [arrays.get(name, np.zeros(leaf.shape, leaf.dtype)) for name, leaf in wanted.items()]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _write_manifest(
    path: Path, step: int, named: dict[str, np.ndarray], config: dict[str, Any] | None
) -> None:
    manifest = {
        "format": _FORMAT,
        "step": step,
        "config": config,
        "arrays": {
            name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in named.items()
        },
        "files": {
            name: {"bytes": file.stat().st_size, "sha256": _checksum(file)}
            for name, file in _files(path).items()
        },
    }
    manifest = json.loads(_as_text(manifest))  # as it will be read: tuples are lists
    checksum = hashlib.sha256(_as_text(manifest).encode()).hexdigest()
    (path / _MANIFEST).write_text(_as_text({"manifest": manifest, "sha256": checksum}))


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1)


def _files(path: Path) -> dict[str, Path]:
    """Every file of a checkpoint but the manifest, by its path inside."""
    return {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file() and file != path / _MANIFEST
    }


def _checksum(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Everything under ``path`` is on disk when this returns."""
    for file in path.rglob("*"):
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
    for folder in (path, *(p for p in path.rglob("*") if p.is_dir())):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Flush the entries of a folder, where the system lets folders be opened."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _compare_config(path: Path, stored: Any, config: dict[str, Any] | None) -> None:
    """Raise ``ValueError`` naming the entries that differ."""
    if config is None or stored is None:
        return
    mine = json.loads(_as_text(config))
    differ = [
        f"{name} = {stored.get(name)!r}, now {mine.get(name)!r}"
        for name in sorted({*stored, *mine})
        if stored.get(name) != mine.get(name)
    ]
    if differ:
        raise ValueError(
            f"checkpoint {path.name} was written with {'; '.join(differ)}; "
            "take another folder, or the same settings"
        )
