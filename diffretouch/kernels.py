"""Compiled loops over the pixels of large photos, in strips and threads."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from diffretouch.models.slice_apply import _cache_folder, _compiling

STRIP = 1 << 18  # pixels, one task of a thread


@functools.cache
def _compile_once(function, types):
    import numba

    compile_kernel = functools.partial(numba.njit, numba.void(*types), nogil=True, fastmath={"contract"})
    # Both settings as for the pass of the bilateral grid (`models/slice_apply.py`), which says why
    slp, numba.config.SLP_VECTORIZE = numba.config.SLP_VECTORIZE, 1
    cache_folder, numba.config.CACHE_DIR = numba.config.CACHE_DIR, numba.config.CACHE_DIR or _cache_folder()
    try:
        return compile_kernel(cache=True)(function)
    except Exception:  # nowhere to keep compiled code, or what is kept is damaged; other errors come again
        return compile_kernel()(function)
    finally:
        numba.config.SLP_VECTORIZE, numba.config.CACHE_DIR = slp, cache_folder


def kernel(function, *types):
    """`function` compiled for these types, which are numba's names ("float32"), or ("uint8", ndim, readonly)."""
    with _compiling:
        import numba

        made = []
        for kind in types:
            if isinstance(kind, str):
                made.append(getattr(numba, kind))
            else:
                name, ndim, readonly = kind
                made.append(numba.types.Array(getattr(numba, name), ndim, "C", readonly=readonly))
        return _compile_once(function, tuple(made))


def strips(height, width, pixels=STRIP):
    """Slices of rows of about `pixels` pixels each, which together are all rows."""
    rows = max(1, pixels // width)
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def in_threads(work, tasks):
    """`work(task)` for all tasks, in `torch.get_num_threads()` threads; the results in order."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        return [work(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, tasks))


def flat(strip, dtype=None):
    """A strip of a photo as contiguous numbers in native order, (3n,); a copy only where it must be."""
    strip = np.ascontiguousarray(strip, strip.dtype.newbyteorder("=") if dtype is None else dtype)
    return (strip if strip.flags.aligned else strip.copy()).reshape(-1)


def write_strip(target, rows, compute):
    """Have `compute(numbers)` fill contiguous numbers (3n,) that are, or become, these rows of `target` (H,W,3)."""
    strip = target[rows]
    if strip.flags.c_contiguous and strip.flags.aligned and strip.dtype.isnative:
        compute(strip.reshape(-1))
        return
    result = np.empty(strip.shape, strip.dtype.newbyteorder("="))
    compute(result.reshape(-1))
    strip[...] = result
