"""Memory that many random reads meet: arrays on large pages, and asking for a place before its turn.

A rebuild reads millions of places in no order that a processor foresees. Each waits 100 ns for memory, unless it was
asked for while others were worked: the walk over all pairs took three times as long without. An array on pages of 4 kB
waits for the page's address as well, and 2 microseconds for each page when it is first written. Kernels that ask are
made by :mod:`monitor.jit`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_T = TypeVar("_T", bound=np.generic)
_IR: Any = vars(cgutils)["ir"]
"""What writes code for numba; of a package of its own that has no type information."""
_LARGE = 1 << 22
"""Bytes from which numpy asks the system for pages of 2 MB."""


def room(items: int, dtype: type[_T] | np.dtype[_T]) -> npt.NDArray[_T]:
    """An array of so many items, not yet written, on large pages: what a compiled loop makes itself is on small ones.

    From an eighth of a large array on it takes a whole one: memory that nobody writes costs nothing.
    """
    whole = _LARGE // np.dtype(dtype).itemsize
    return np.empty(items if 8 * items < whole else max(items, whole), dtype)[:items]


class _Ask(Protocol):
    """How :data:`ask` is called."""

    def __call__(self, array: npt.NDArray[Any], index: int | np.integer[Any], /) -> None: ...


def _ask(_: Any, array: Any, index: Any) -> Any:
    """Have the processor fetch ``array[index]``, of one dimension, while it goes on; no index is wrong."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), cgutils.voidptr_t)
        word = cgutils.int32_t
        kind = _IR.FunctionType(_IR.VoidType(), [place.type, word, word, word])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", (place.type,), kind)
        builder.call(fetch, [place, word(0), word(3), word(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp), code


ask: _Ask = cast(Any, intrinsic)(_ask)
"""Within a compiled loop: a hint, which changes nothing but when memory comes."""
