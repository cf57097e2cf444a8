"""Applying one colour function to every pixel of a photo of any size, in bounded memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from diffretouch.models.kernels import flat, in_threads, kernel, strips, write_strip
from diffretouch.pixels import ArrayOrTensor, as_float, float_tensor, is_tensor

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 15  # colours that the function is given at a time: what it holds of them stays near the processor
_FEW = 1 << 17  # pixels below which a table of colours costs more than it saves
_LEVELS = np.arange(256, dtype=np.float32) / 255


def map_colours(
    function: Callable[[Any], Any],
    photo: ArrayOrTensor,
    *,
    out: np.ndarray | None = None,
    device: "torch.device | str | None" = "cpu",
) -> ArrayOrTensor:
    """Apply a colour function to a photo.

    Photos of 8 bits, also those that come as floats k/255, have few colours: the function is computed once for each
    colour that occurs, and looked up for each pixel. Nothing is interpolated. Others are computed in strips. Beyond
    photo and result this takes less than 300 MB, whatever the photo's size.

    Args:
        function: takes (n,3) float32 colours, a tensor on `device`, and returns (n,3); of each colour alone. With
            `None` as `device` it takes and returns arrays, and torch is not needed for arrays.
        photo (`numpy.ndarray` or `torch.Tensor`): (H,W,3) uint8, uint16 or float32 in [0,1], any strides, also
            memory-mapped; or a floating-point tensor (3,H,W) in [0,1].
        out (*optional*): written to instead of a new result: an array like `photo` (it may be `photo` itself), or a
            float32 tensor (3,H,W).
        device: where the function is computed.

    Returns:
        An array like `photo`, integers clamped and rounded to the nearest level; or a float32 tensor (3,H,W), on the
        device of `photo`. Floats are not clamped.
    """
    of_arrays = function if device is None else _of_arrays(function, device)
    if is_tensor(photo):
        import torch

        if out is None:
            out = torch.empty(photo.shape, dtype=torch.float32, device=photo.device)
        if photo.device.type != "cpu":
            source, target = photo.permute(1, 2, 0), out.permute(1, 2, 0)
            with torch.no_grad():
                for rows in strips(*source.shape[:2]):
                    strip = source[rows].float().to(device)
                    target[rows] = function(strip.reshape(-1, 3)).reshape(strip.shape).to(out.device)
            return out
        _map_array(of_arrays, photo.detach().float().permute(1, 2, 0).numpy(), out.permute(1, 2, 0).numpy())
        return out
    if out is None:
        out = np.empty(photo.shape, photo.dtype.newbyteorder("="))
    _map_array(of_arrays, photo, out)
    return out


def _of_arrays(function, device):
    """A function of tensors on a device as one of arrays."""
    import torch

    @torch.no_grad()
    def of_arrays(colours):
        return function(float_tensor(colours).to(device)).cpu().numpy()

    return of_arrays


def _map_array(function, photo, out):
    eight_bits = photo.dtype == np.uint8 or photo.dtype.kind == "f"
    many = photo.shape[0] * photo.shape[1] >= _FEW
    if eight_bits and many and _map_by_table(function, photo, out):
        return
    for rows in strips(*photo.shape[:2]):
        colours = as_float(flat(photo[rows])).reshape(-1, 3)
        result = _in_chunks(function, colours)
        out[rows] = _to_levels(result, out.dtype).reshape(out[rows].shape)


def _in_chunks(function, colours):
    """(n,3) float32 array -> (n,3) float32 array."""
    result = np.empty(colours.shape, np.float32)
    for start in range(0, len(colours), _CHUNK):
        result[start : start + _CHUNK] = function(colours[start : start + _CHUNK])
    return result


def _to_levels(values, dtype):
    if dtype.kind == "f":
        return values
    white = np.iinfo(dtype).max
    if not np.isfinite(values).all():
        raise ValueError("The colour function gave NaN or infinite colours, which a photo of integers cannot hold.")
    return np.rint(np.clip(values, 0, 1) * white).astype(dtype)


def _map_by_table(function, photo, out):
    """True, or False with `out` untouched for a float photo that has other values than k/255."""
    name = photo.dtype.newbyteorder("=").name
    if name not in ("uint8", "float32"):
        return False
    tasks = strips(*photo.shape[:2])

    # 1. Which of the 2^24 colours occur
    codes = _colours_of(photo, name, tasks)
    if codes is None:
        return False

    # 2. The function for these
    colours = _LEVELS[np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)]
    values = _to_levels(_in_chunks(function, colours), out.dtype)

    # 3. Look it up
    table = np.empty(1 << 24, np.int32)  # only the places that occur are written or read
    if name == "uint8":
        red, green, blue = values.T.astype(np.int32)
        table[codes] = red | green << 8 | blue << 16
        look_up, values = _look_up_packed, np.zeros((1, 3), np.float32)
    else:
        table[codes] = np.arange(len(codes), dtype=np.int32)
        look_up = _look_up
    look_up = kernel(look_up, (name, 1, True), ("int32", 1, True), ("float32", 2, True), (name, 1, False))

    def write(rows):
        write_strip(out, rows, lambda numbers: look_up(flat(photo[rows]), table, values, numbers))

    in_threads(write, tasks)
    return True


def _colours_of(photo, name, tasks):
    """The numbers (r, g, b in a byte each) of the colours that occur, or None if a float is no k/255."""
    seen = np.zeros(1 << 24, np.uint8)
    mark = kernel(_mark, (name, 1, True), ("float32", 1, True), ("uint8", 1, False), ("uint8", 1, False))

    def find(rows):
        strange = np.zeros(1, np.uint8)
        mark(flat(photo[rows]), _LEVELS, seen, strange)
        return bool(strange[0])

    # the first strip alone: it already tells most photos of more than 8 bits
    if find(tasks[0]) or any(in_threads(find, tasks[1:])):
        return None
    return np.flatnonzero(seen).astype(np.int32)


_u64 = np.uint64


def _mark(pixels, levels, seen, strange):
    """Kernel: mark the colours of pixels (3n,) in `seen`; `strange` is set at a float that is no k/255."""
    for i in range(pixels.shape[0] // 3):
        k = _u64(3) * _u64(i)
        if pixels.itemsize == 1:
            code = np.uint32(pixels[k]) << 16 | np.uint32(pixels[k + _u64(1)]) << 8 | np.uint32(pixels[k + _u64(2)])
            seen[_u64(code)] = 1
        else:
            code = np.uint32(0)
            for c in range(3):
                value = pixels[k + _u64(c)]
                inside = value if value > 0 else np.float32(0)
                inside = inside if inside < 1 else np.float32(1)
                level = np.uint32(inside * np.float32(255) + np.float32(0.5))
                if levels[_u64(level)] != value:
                    strange[0] = 1
                    return
                code = code << np.uint32(8) | level
            seen[_u64(code)] = 1


def _look_up_packed(pixels, table, values, out):
    """Kernel: pixels (3n,) uint8 -> out; the table holds the result's three bytes."""
    for i in range(pixels.shape[0] // 3):
        k = _u64(3) * _u64(i)
        code = np.uint32(pixels[k]) << 16 | np.uint32(pixels[k + _u64(1)]) << 8 | np.uint32(pixels[k + _u64(2)])
        packed = np.uint32(table[_u64(code)])
        out[k] = packed & np.uint32(255)
        out[k + _u64(1)] = packed >> np.uint32(8) & np.uint32(255)
        out[k + _u64(2)] = packed >> np.uint32(16) & np.uint32(255)


def _look_up(pixels, table, values, out):
    """Kernel: pixels (3n,) float32, all k/255 -> out; the table holds the number of the colour in `values` (m,3)."""
    for i in range(pixels.shape[0] // 3):
        k = _u64(3) * _u64(i)
        code = np.uint32(0)
        for c in range(3):
            code = code << np.uint32(8) | np.uint32(pixels[k + _u64(c)] * np.float32(255) + np.float32(0.5))
        place = _u64(np.uint32(table[_u64(code)]))
        for c in range(3):
            out[k + _u64(c)] = values[place, _u64(c)]
