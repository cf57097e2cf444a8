"""Compiled loops over the pixels of large photos, in strips and threads."""

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

STRIP = 1 << 18  # pixels, one task of a thread

_compiling = threading.Lock()


def kernel(function: Callable[..., Any], *types: Any) -> Callable[..., Any]:
    """`function` compiled for these types, once; it runs without the interpreter's lock.

    Args:
        function: what numba can compile.
        types: a type of numba by name ("float32"), or an array's: (name, ndim, readonly), contiguous, or
            (name, ndim, readonly, layout) with numba's "C", "F" or "A" (any strides).
    """
    with _compiling:
        return _compile_once(function, types)


@functools.cache
def _compile_once(function, types):
    import numba  # takes a second: not before the first use

    compile_kernel = functools.partial(
        numba.njit, numba.void(*map(_numba_type, types)), nogil=True, fastmath={"contract"}
    )
    # Without this pass of LLVM, which is off in numba, the 4-wide sums of `slice_apply` stay scalar: half the speed.
    slp, numba.config.SLP_VECTORIZE = numba.config.SLP_VECTORIZE, 1
    # Beside the source, what numba keeps would outlive an uninstall, and the folder left behind would hide a later
    # editable install.
    cache_folder, numba.config.CACHE_DIR = numba.config.CACHE_DIR, numba.config.CACHE_DIR or _cache_folder()
    try:
        return compile_kernel(cache=True)(function)
    except Exception:  # nowhere to keep compiled code, or what is kept is damaged; other errors come again
        return compile_kernel()(function)
    finally:
        numba.config.SLP_VECTORIZE, numba.config.CACHE_DIR = slp, cache_folder


def _numba_type(kind):
    import numba

    if isinstance(kind, str):
        return getattr(numba, kind)
    name, ndim, readonly, layout = (*kind, "C")[:4]
    return numba.types.Array(getattr(numba, name), ndim, layout, readonly=readonly)


def _cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    return os.path.join(base, "diffretouch")


def strips(height: int, width: int, pixels: int = STRIP) -> list[slice]:
    """Slices of rows of about `pixels` pixels each, which together are all rows."""
    rows = max(1, pixels // width)
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """The threads of one computation: torch's where it is imported, else OMP_NUM_THREADS or all processors."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else processors()


def in_threads(work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """`work(task)` for all tasks, in as many threads as `threads()` says; the results in order.

    The threads are our own and end with the call. Numba's cannot be used from two threads at once under one of its
    threading layers, nor after a fork under another.
    """
    number = min(threads(), len(tasks))
    if number <= 1:
        return [work(task) for task in tasks]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, tasks))


def flat(strip: np.ndarray, dtype: "DTypeLike | None" = None) -> np.ndarray:
    """A strip of a photo as contiguous numbers in native order, (3n,); a copy only where it must be."""
    strip = np.ascontiguousarray(strip, strip.dtype.newbyteorder("=") if dtype is None else dtype)
    return (strip if strip.flags.aligned else strip.copy()).reshape(-1)


def write_strip(target: np.ndarray, rows: slice, compute: Callable[[np.ndarray], Any]) -> None:
    """Have `compute(numbers)` fill contiguous numbers (3n,) that are, or become, these rows of `target` (H,W,3)."""
    strip = target[rows]
    if strip.flags.c_contiguous and strip.flags.aligned and strip.dtype.isnative:
        compute(strip.reshape(-1))
        return
    result = np.empty(strip.shape, strip.dtype.newbyteorder("="))
    compute(result.reshape(-1))
    strip[...] = result
