"""Guide, slice and affine in one pass over the full-resolution photo, in bounded memory: the fast `apply`.

What is computed is `AffineGridHead.apply_reference`. Two facts make it cheap. In one row of the photo y is fixed, so
the grid is interpolated in y once per row and each pixel reads 2x2 cells (x, depth) instead of 2x2x2. And guide and
affine can both be re-expressed for the photo's own numbers ([0,1], 0..255 or 0..65535) beforehand, so no pixel is
rescaled.
"""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.models.kernels import in_threads, kernel, strips
from diffretouch.pixels import ArrayOrTensor, is_tensor

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

BACKENDS = ("numba", "torch")

# The numbers that stand for 1.0 in a photo.
WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

_CHUNK = 512  # pixels whose intermediate values the numba kernel keeps, a size for the first-level cache
_PART = 384  # numbers of which is asked at once whether one goes too far
_LANES = 16  # one cell in the kernel's table: 4 inputs (R, G, B, 1) x 4 outputs (R, G, B, padding)

_f32 = np.float32
_u64 = np.uint64


def slice_apply(
    grid: ArrayOrTensor, photo: ArrayOrTensor, guide: Any, pixel_range: Sequence[float] = (0.0, 1.0), *,
    shoulder: float | None = None, out: ArrayOrTensor | None = None, backend: str | None = None,
) -> ArrayOrTensor:  # fmt: skip
    """Apply an affine bilateral grid to a photo at its full resolution. No gradients flow.

    Beyond the photo and the result, memory stays under 200 MB for any size: the photo is worked on in strips of rows,
    so both may be memory-mapped files larger than the machine's memory. The CPU pass has as many threads as
    `kernels.threads()` says. Of arrays it needs no torch.

    Args:
        grid (`torch.Tensor` or array): (B,12,D,gh,gw) affine coefficients for pixels in `pixel_range`, on any device.
        photo (`torch.Tensor` or `numpy.ndarray`): a floating-point tensor (B,3,H,W) in [0,1], or an array (H,W,3) or
            (B,H,W,3) of uint8, uint16 or float32 (floats in [0,1]); any strides and byte order, also read-only and
            memory-mapped. A NaN pixel comes out as NaN and touches no other.
        guide (`Guide`, or a dict of arrays): `matrix` (3,3), `matrix_bias` (3), `thresholds` (3,K), `slopes` (3,K) and
            `bias` ().
        pixel_range (pair of `float`): the range in which grid and guide work.
        shoulder (`float`, *optional*): pixels that would leave the range roll off, see `shoulder.roll_off`.
        out (*optional*): where the result goes: an array like `photo`, or a float32 tensor where `photo` is a tensor.
            It may be `photo` itself.
        backend (`str`, *optional*): "numba" (CPU) or "torch". By default numba on the CPU where it can be imported,
            torch otherwise. Devices other than CPU and CUDA are computed on the CPU.

    Returns:
        A float32 tensor (B,3,H,W), not clamped; or an array of the photo's shape and type: integers are clamped and
        rounded to the nearest level, floats are not clamped.

    Raises:
        ValueError: wrong shapes, an empty photo, an unknown backend or one that cannot serve the photo's device, an
            `out` that partly overlaps `photo`, a guide that is not finite, or a grid that is not where the result is
            integer.
        TypeError: wrong types.
    """
    _check(grid, photo, pixel_range, out)
    backend = _choose_backend(backend, photo)
    if is_tensor(photo):
        import torch

        if out is None:
            out = torch.empty(photo.shape, dtype=torch.float32, device=photo.device)
        if photo.device.type not in ("cpu", "cuda"):
            made = slice_apply(grid, photo.cpu(), guide, pixel_range, shoulder=shoulder, backend=backend)
            return out.copy_(made)
        sources, targets = photo.detach().permute(0, 2, 3, 1), out.detach().permute(0, 2, 3, 1)
        white = 1.0
    else:
        if out is None:
            out = np.empty(photo.shape, photo.dtype.newbyteorder("="))
        sources, targets = np.asarray(photo), np.asarray(out)
        if photo.ndim == 3:
            sources, targets = sources[None], targets[None]
        white = WHITE[photo.dtype.newbyteorder("=")]

    cells = _cells_for_pixels(grid, pixel_range, white)
    curve = _guide_for_pixels(guide, pixel_range, white)
    apply_one = _apply_numba
    if backend == "torch":
        from diffretouch.models.slice_torch import apply_one
    for source, target, one in zip(sources, targets, cells, strict=True):
        apply_one(one, curve, source, target, shoulder)
    return out


def _check(grid, photo, pixel_range, out):
    number = grid.is_floating_point() if is_tensor(grid) else getattr(grid, "dtype", np.dtype("O")).kind == "f"
    if not number:
        raise TypeError(f"`grid` must be a floating-point tensor (B,12,D,gh,gw), got {_describe(grid)}.")
    if grid.ndim != 5 or grid.shape[1] != 12 or 0 in grid.shape:
        raise ValueError(f"`grid` must have shape (B,12,D,gh,gw) with no empty side, got {tuple(grid.shape)}.")
    if is_tensor(photo):
        if not photo.is_floating_point():
            raise TypeError(f"`photo` must be a floating-point tensor or an array, got {_describe(photo)}.")
        if photo.ndim != 4 or photo.shape[1] != 3 or 0 in photo.shape:
            raise ValueError(f"`photo` must have shape (B,3,H,W) with no empty side, got {tuple(photo.shape)}.")
        batch = photo.shape[0]
    elif isinstance(photo, np.ndarray):
        if photo.dtype.newbyteorder("=") not in WHITE:
            raise TypeError(f"`photo` must be an array of uint8, uint16 or float32, got {photo.dtype}.")
        if photo.ndim not in (3, 4) or photo.shape[-1] != 3 or 0 in photo.shape:
            raise ValueError(
                f"`photo` must have shape (H,W,3) or (B,H,W,3) with no empty side, got {tuple(photo.shape)}."
            )
        batch = photo.shape[0] if photo.ndim == 4 else 1
        if photo.dtype.kind == "u" and not np.isfinite(_float64(grid)).all():
            raise ValueError("`grid` must be finite for a photo of integers, which cannot say NaN; got NaN or inf.")
    else:
        raise TypeError(f"`photo` must be a tensor or a numpy array, got {_describe(photo)}.")
    if grid.shape[0] != batch:
        raise ValueError(f"`grid` must hold one grid per photo ({batch}), got {grid.shape[0]}.")
    if len(pixel_range) != 2 or not pixel_range[0] < pixel_range[1]:
        raise ValueError(f"`pixel_range` must be a pair (low, high) with low < high, got {pixel_range!r}.")
    if out is not None:
        _check_out(photo, out)


def _check_out(photo, out):
    if is_tensor(photo):
        import torch

        if not is_tensor(out) or out.dtype != torch.float32 or out.device != photo.device:
            raise TypeError(f"`out` must be a float32 tensor on {photo.device}, got {_describe(out)}.")
        (start, end), (out_start, out_end) = _span(photo), _span(out)
        same = start == out_start and photo.stride() == out.stride() and photo.dtype == out.dtype
        overlap = start < out_end and out_start < end
    else:
        if not isinstance(out, np.ndarray) or out.dtype.newbyteorder("=") != photo.dtype.newbyteorder("="):
            raise TypeError(f"`out` must be an array of {photo.dtype}, got {_describe(out)}.")
        if not out.flags.writeable:
            raise ValueError("`out` must be writeable, got a read-only array.")
        same = photo.ctypes.data == out.ctypes.data and photo.strides == out.strides
        overlap = np.may_share_memory(photo, out)
    if out.shape != photo.shape:
        raise ValueError(f"`out` must have the photo's shape {tuple(photo.shape)}, got {tuple(out.shape)}.")
    if overlap and not same:
        raise ValueError("`out` must be `photo` itself or lie apart from it, got one that partly overlaps it.")


def _span(tensor):
    """First and one-past-last byte of a tensor."""
    elements = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.data_ptr(), tensor.data_ptr() + elements * tensor.element_size()


def _describe(value):
    if is_tensor(value):
        return f"a {value.dtype} tensor {tuple(value.shape)} on {value.device}"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array {value.shape}"
    return type(value).__name__


def prepare(dtype: "DTypeLike") -> None:
    """Load what applies grids to contiguous arrays of a dtype, or compile it, before it is needed; in a thread, say.

    Raises nothing: what fails here fails where it is used.
    """
    with contextlib.suppress(Exception):
        if _numba_imports():
            _kernel(np.dtype(dtype).newbyteorder("="), True)


def _choose_backend(backend, photo):
    on_cpu = not is_tensor(photo) or photo.device.type != "cuda"
    if backend is None:
        return "numba" if on_cpu and _numba_imports() else "torch"
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)} or None, got {backend!r}.")
    if backend == "numba" and not on_cpu:
        raise ValueError(f'`backend` "numba" serves photos on the CPU, got one on {photo.device}; use "torch".')
    if backend == "numba" and not _numba_imports():
        raise ValueError('`backend` "numba" needs the package numba, which cannot be imported; use "torch".')
    return backend


@functools.cache
def _numba_imports():
    try:
        import numba  # noqa: F401  (takes a second: not before the first use)
    except ImportError:
        return False
    return True


def _cells_for_pixels(grid, pixel_range, white):
    """Grid for pixels in `pixel_range` -> the same grid, a float64 array, for pixels in [0, white]."""
    low, high = pixel_range
    cells = np.array(_float64(grid)).reshape(len(grid), 3, 4, *grid.shape[2:])
    matrix, offset = cells[:, :, :3], cells[:, :, 3]
    offset += low * matrix.sum(2) - low
    offset *= white / (high - low)
    return cells  # (B,3,4,D,gh,gw)


def _float64(value):
    return value.detach().cpu().double().numpy() if is_tensor(value) else np.asarray(value, np.float64)


def _guide_for_pixels(guide, pixel_range, white):
    """The guide's parameters for pixels in [0, white], float64: matrix (4,3) with the bias as last row, thresholds
    (3,K), slopes (3,K) and bias, with which guide = bias + sum of slope * max(y, threshold) before it is clamped.

    The maximum costs one operation less than relu(y - threshold) and loses no digits in float32.
    """
    low, high = pixel_range
    names = ("matrix", "matrix_bias", "thresholds", "slopes", "bias")
    values = [_float64(guide[name] if isinstance(guide, Mapping) else getattr(guide, name)) for name in names]
    for name, value in zip(names, values, strict=True):
        if not np.isfinite(value).all():
            raise ValueError(f"`guide`: {name} must be finite, got NaN or inf.")
    matrix, matrix_bias, thresholds, slopes, bias = values
    matrix = np.vstack([matrix * ((high - low) / white), matrix_bias + low * matrix.sum(0)])
    slopes = slopes / 3  # the mean over the channels
    return matrix, thresholds, slopes, float(bias - (slopes * thresholds).sum())


def positions(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel i of a side -> the cell before it and the fraction of the way to the next, constant at both ends."""
    u = np.arange(pixels) / (pixels - 1) if pixels > 1 else np.full(1, 0.5)
    position = np.clip(u * cells - 0.5, 0, cells - 1)
    cell = np.clip(position.astype(np.int32), 0, max(cells - 2, 0))
    return cell, (position - cell).astype(np.float32)


def _apply_numba(cells, curve, source, target, shoulder):
    """One photo (H,W,3), a CPU tensor or an array, into `target` of the same shape."""
    height, width = source.shape[:2]
    # A side of one cell becomes two equal ones, so that the kernel always finds a neighbour.
    positions_y, positions_x = positions(height, cells.shape[3]), positions(width, cells.shape[4])
    depth = cells.shape[2]
    for axis in (2, 3, 4):
        if cells.shape[axis] == 1:
            cells = cells.repeat(2, axis)
    table = np.zeros((*cells.shape[3:], cells.shape[2], 4, 4), np.float32)  # y, x, depth, input, output
    table[..., :3] = cells.transpose(3, 4, 2, 1, 0)

    matrix, thresholds, slopes, bias = curve
    ramps = np.zeros((3, 2, -(-thresholds.shape[1] // 4) * 4), np.float32)  # padded: the kernel takes four at a time
    ramps[:, 0, : thresholds.shape[1]] = thresholds
    ramps[:, 1, : thresholds.shape[1]] = slopes * depth

    dtype = np.dtype(np.float32) if is_tensor(source) else source.dtype.newbyteorder("=")
    integer = dtype.kind == "u"
    white = WHITE[dtype]
    soft = (np.float32(0 if shoulder is None else shoulder), np.float32(white / 255), np.float32(white * 254 / 255))
    stride, most = np.int64(table.shape[2] * _LANES), np.float32(white if integer else np.inf)
    places = *positions_y, positions_x[0] * np.int32(stride), positions_x[1]
    ends = np.float32(0.5 if integer else 0), np.float32(0 if integer else -np.inf), most
    guiding = matrix.astype(np.float32), ramps, np.float32(bias * depth - 0.5), np.float32(depth - 1)
    constants = table.reshape(len(table), -1), stride, *places, *guiding, *soft, *ends

    def retouch(rows):
        if is_tensor(source):
            pixels = source[rows].float().numpy()
            result = finished = target[rows].numpy()
        else:
            pixels, finished = source[rows], target[rows]
            if not (pixels.dtype.isnative and pixels.flags.aligned):
                pixels = pixels.astype(dtype)
            direct = finished.dtype.isnative and finished.flags.aligned
            result = finished if direct else np.empty(finished.shape, dtype)
        flat = pixels.flags.c_contiguous and result.flags.c_contiguous
        if flat:
            shape = len(pixels), 3 * width
            _kernel(dtype, True)(pixels.reshape(shape), result.reshape(shape), rows.start, *constants)
        else:
            _kernel(dtype, False)(pixels, result, rows.start, *constants)
        if result is not finished:
            finished[...] = result

    in_threads(retouch, strips(height, width))


@functools.cache
def _kernel(dtype, flat):
    ndim, layout = (2, "C") if flat else (3, "A")
    return kernel(
        _retouch_rows,
        *((dtype.name, ndim, True, layout), (dtype.name, ndim, False, layout), "int64"),
        *(("float32", 2, False), "int64", ("int32", 1, False), ("float32", 1, False)),
        *(("int32", 1, False), ("float32", 1, False), ("float32", 2, False), ("float32", 3, False)),
        *["float32"] * 8,
    )


# ruff: noqa: B023  (the function inside the kernel's loop is inlined where it stands)
def _retouch_rows(
    photo, out, first, table, node, row_cell, row_fraction, column_cell, column_fraction, matrix, ramps,
    depth_bias, depth_top, shoulder, black, white, half, low, high,
):  # fmt: skip
    """The numba kernel: rows of a photo, `first` being the number of the first one in the whole photo.

    `photo` and `out` are (rows,3W) where the memory is contiguous, else (rows,W,3). `table` is (gh, gw*D*16); in x
    two neighbouring cells lie `node` numbers apart, in depth 16. Loops over a chunk come apart so that each of them
    is vectorised; unsigned indices, because numba's check for negative ones prevents that.
    """
    rows = photo.shape[0]
    width = column_cell.shape[0]
    below = _u64(node)
    last_cell = np.int32(node // _LANES - 2)
    knots = ramps.shape[2]
    rest = _f32(1) - shoulder
    cells = np.empty(table.shape[1], np.float32)
    red, green, blue = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    y, depth = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    cell = np.empty(_CHUNK, np.int32)
    retouched, plain = np.empty(3 * _CHUNK + 1, np.float32), np.empty(3 * _CHUNK, np.float32)

    for row in range(rows):
        top, fraction = row_cell[first + row], row_fraction[first + row]
        for i in range(cells.shape[0]):  # the row's cells, (gw*D*16)
            cells[i] = table[top, i] + fraction * (table[top + 1, i] - table[top, i])

        for start in range(0, width, _CHUNK):
            size = min(_CHUNK, width - start)
            if photo.ndim == 2:
                pixels = photo[row, 3 * start : 3 * (start + size)]
                for i in range(size):
                    k = _u64(3) * _u64(i)
                    red[i] = _f32(pixels[k])
                    green[i] = _f32(pixels[k + _u64(1)])
                    blue[i] = _f32(pixels[k + _u64(2)])
            else:
                for i in range(size):
                    red[i] = _f32(photo[row, start + i, 0])
                for i in range(size):
                    green[i] = _f32(photo[row, start + i, 1])
                for i in range(size):
                    blue[i] = _f32(photo[row, start + i, 2])

            # Guide, in cells along the depth. Comparisons are written so that NaN ends in cell 0.
            for i in range(size):
                depth[i] = depth_bias
            for c in range(3):
                m0, m1, m2, m3 = matrix[0, c], matrix[1, c], matrix[2, c], matrix[3, c]
                for i in range(size):
                    y[i] = red[i] * m0 + green[i] * m1 + blue[i] * m2 + m3
                for k in range(0, knots, 4):
                    t0, t1, t2, t3 = ramps[c, 0, k], ramps[c, 0, k + 1], ramps[c, 0, k + 2], ramps[c, 0, k + 3]
                    s0, s1, s2, s3 = ramps[c, 1, k], ramps[c, 1, k + 1], ramps[c, 1, k + 2], ramps[c, 1, k + 3]
                    for i in range(size):
                        r0 = y[i] if y[i] > t0 else t0
                        r1 = y[i] if y[i] > t1 else t1
                        r2 = y[i] if y[i] > t2 else t2
                        r3 = y[i] if y[i] > t3 else t3
                        depth[i] += s0 * r0 + s1 * r1 + s2 * r2 + s3 * r3
            for i in range(size):
                z = depth[i]
                z = z if z > _f32(0) else _f32(0)
                z = z if z < depth_top else depth_top
                k = np.int32(z)
                k = k if k < last_cell else last_cell
                depth[i] = z - _f32(k)
                cell[i] = column_cell[start + i] + k * np.int32(_LANES)

            # Slice and affine: per input (R, G, B, 1) the coefficients of four outputs stand side by side. The fourth
            # output is padding; the next pixel overwrites it.
            for i in range(size):
                fx, fz = column_fraction[start + i], depth[i]
                w3 = fx * fz
                w2 = fx - w3
                w1 = fz - w3
                w0 = _f32(1) - fx - w1
                here = _u64(np.uint32(cell[i]))
                beside = here + below
                r, g, b = red[i], green[i], blue[i]

                def at(k):
                    k = _u64(k)
                    return (
                        w0 * cells[here + k]
                        + w1 * cells[here + k + _u64(16)]
                        + w2 * cells[beside + k]
                        + w3 * cells[beside + k + _u64(16)]
                    )

                o0 = at(0) * r + at(4) * g + at(8) * b + at(12)
                o1 = at(1) * r + at(5) * g + at(9) * b + at(13)
                o2 = at(2) * r + at(6) * g + at(10) * b + at(14)
                o3 = at(3) * r + at(7) * g + at(11) * b + at(15)
                k = _u64(3) * _u64(i)
                retouched[k], retouched[k + _u64(1)], retouched[k + _u64(2)] = o0, o1, o2
                retouched[k + _u64(3)] = o3

            # What goes further than a share of its room to either end rolls off, see `roll_off`: few parts hold any.
            if shoulder > _f32(0):
                for i in range(size):
                    k = _u64(3) * _u64(i)
                    plain[k], plain[k + _u64(1)], plain[k + _u64(2)] = red[i], green[i], blue[i]
                for part in range(0, 3 * size, _PART):
                    before, after = plain[part : min(part + _PART, 3 * size)], retouched[part : 3 * size]
                    far = 0
                    for i in range(before.shape[0]):
                        x = before[i]
                        moved = after[i] - x
                        up, down = shoulder * (white - x), shoulder * (black - x)
                        up = up if up > _f32(0) else _f32(0)
                        down = down if down < _f32(0) else _f32(0)
                        far += (moved > up) | (moved < down)
                    if far == 0:
                        continue
                    for i in range(before.shape[0]):
                        x = before[i]
                        moved = after[i] - x
                        room = white - x if moved > _f32(0) else x - black
                        room = room if room > _f32(0) else _f32(0)
                        length = moved if moved > _f32(0) else -moved
                        if length > shoulder * room:
                            taken = room * (_f32(1) - rest * rest * room / (length + (rest - shoulder) * room))
                            after[i] = x + taken if moved > _f32(0) else x - taken

            if out.ndim == 2:
                result = out[row, 3 * start : 3 * (start + size)]
                for i in range(3 * size):
                    value = retouched[i] + half
                    value = low if value < low else value
                    value = high if value > high else value
                    if out.itemsize < 4:  # float -> int32 -> uint8 is vectorised, the direct way is not
                        result[i] = np.int32(value)
                    else:
                        result[i] = value
            else:
                for c in range(3):
                    for i in range(size):
                        value = retouched[_u64(3) * _u64(i) + _u64(c)] + half
                        value = low if value < low else value
                        value = high if value > high else value
                        if out.itemsize < 4:
                            out[row, start + i, c] = np.int32(value)
                        else:
                            out[row, start + i, c] = value
