"""Registration of frozen dataclasses as pytrees whose structures are told apart by their class.

`jax.tree_util.register_dataclass` gives two classes with equally many array fields and equal
static fields structures that compare equal (jaxlib 0.10.1 to 0.11.2 at least); only their hashes
differ. A hash table compares keys as soon as a few bits of their hashes agree, so that now and
then ``jit`` runs the program that it compiled for the other class. Structures of nodes that are
registered with flattening functions of their own compare their classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
from jax.tree_util import GetAttrKey

T = TypeVar("T")


def register(cls: type[T]) -> type[T]:
    """Class decorator: make a dataclass a pytree; ``metadata={"static": True}`` marks statics.

    Fields are treated as `jax.tree_util.register_dataclass` treats them.
    """
    fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    static = tuple(f.name for f in fields if f.metadata.get("static", False))
    traced = tuple(f.name for f in fields if f.name not in static)
    keys = tuple(GetAttrKey(name) for name in traced)

    def flatten(record: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children = tuple(getattr(record, name) for name in traced)
        return children, tuple(getattr(record, name) for name in static)

    def flatten_with_keys(record: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, statics = flatten(record)
        return tuple(zip(keys, children, strict=True)), statics

    def unflatten(statics: Iterable[Any], children: Iterable[Any]) -> T:
        return cls(**dict(zip(traced, children)), **dict(zip(static, statics)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
