"""The nodes of a table, and the compiled loop that looks colours up between them."""

from collections.abc import Sequence

import numpy as np


def lut_nodes(
    size: int, domain_min: Sequence[float] = (0, 0, 0), domain_max: Sequence[float] = (1, 1, 1)
) -> np.ndarray:
    """The colours of a table's nodes, (size**3, 3) float32: red runs fastest, then green, then blue."""
    axes = [np.linspace(low, high, size) for low, high in zip(domain_min, domain_max, strict=True)]
    blue, green, red = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([red, green, blue], -1).reshape(-1, 3).astype(np.float32)


_f32 = np.float32
_u64 = np.uint64
_LUT_CHUNK = 512  # pixels whose intermediate values stay in the first-level cache


# ruff: noqa: B023  (the function inside the kernel's loop is inlined where it stands)
def look_up(
    pixels: np.ndarray, out: np.ndarray, table: np.ndarray, size: int, scale: np.ndarray, offset: np.ndarray,
    tetrahedral: bool, half: float, low: float, high: float,
) -> None:  # fmt: skip
    """Kernel: pixels (3n,) -> out (3n,). `table` is (size**3 * 4), in the photo's numbers; NaN ends in the first node.

    Loops over a chunk come apart so that each of them is vectorised; a node's lanes stand side by side.
    """
    total = pixels.shape[0] // 3
    cell = np.empty(_LUT_CHUNK, np.uint32)
    fractions = np.empty((3, _LUT_CHUNK), np.float32)
    second, third = np.empty(_LUT_CHUNK, np.uint32), np.empty(_LUT_CHUNK, np.uint32)
    w0, w1 = np.empty(_LUT_CHUNK, np.float32), np.empty(_LUT_CHUNK, np.float32)
    w2, w3 = np.empty(_LUT_CHUNK, np.float32), np.empty(_LUT_CHUNK, np.float32)
    found = np.empty(3 * _LUT_CHUNK + 1, np.float32)
    top = _f32(size - 1)
    last = np.int32(size - 2)
    red, green, blue = np.int32(4), np.int32(4 * size), np.int32(4 * size * size)
    far = red + green + blue

    for start in range(0, total, _LUT_CHUNK):
        n = min(_LUT_CHUNK, total - start)
        part = pixels[3 * start : 3 * (start + n)]
        for i in range(n):
            cell[i] = 0
        for c in range(3):
            stride = red if c == 0 else green if c == 1 else blue
            for i in range(n):
                x = _f32(part[_u64(3) * _u64(i) + _u64(c)]) * scale[c] + offset[c]
                x = x if x > _f32(0) else _f32(0)
                x = x if x < top else top
                k = np.int32(x)
                k = k if k < last else last
                fractions[c, i] = x - _f32(k)
                cell[i] += np.uint32(k * stride)

        if tetrahedral:
            for i in range(n):
                r, g, b = fractions[0, i], fractions[1, i], fractions[2, i]
                most = r if r > g else g
                least = g if r > g else r
                middle = b if b < most else most
                middle = middle if middle > least else least
                most = most if most > b else b
                least = least if least < b else b
                w0[i], w1[i], w2[i], w3[i] = _f32(1) - most, most - middle, middle - least, least
                first = green if g >= b else blue
                first = red if (r >= g) & (r >= b) else first
                final = green if g <= r else red
                final = blue if (b <= g) & (b <= r) else final
                second[i] = cell[i] + np.uint32(first)
                third[i] = cell[i] + np.uint32(far - final)
            for i in range(n):
                a, b, c, d = w0[i], w1[i], w2[i], w3[i]
                here, one, two = _u64(cell[i]), _u64(second[i]), _u64(third[i])
                three = here + _u64(far)

                def at(lane):
                    lane = _u64(lane)
                    near = a * table[here + lane] + b * table[one + lane]
                    return near + c * table[two + lane] + d * table[three + lane]

                v0, v1, v2, v3 = at(0), at(1), at(2), at(3)
                k = _u64(3) * _u64(i)
                found[k], found[k + _u64(1)], found[k + _u64(2)] = v0, v1, v2
                found[k + _u64(3)] = v3
        else:
            for i in range(n):
                r, g, b = fractions[0, i], fractions[1, i], fractions[2, i]
                here = _u64(cell[i])
                gb, gn = g * b, g - g * b
                bn, nn = b - gb, _f32(1) - g - b + gb
                y00, y10 = nn * (_f32(1) - r), nn * r
                y01, y11 = gn * (_f32(1) - r), gn * r
                z00, z10 = bn * (_f32(1) - r), bn * r
                z01, z11 = gb * (_f32(1) - r), gb * r
                up, deep = _u64(green), _u64(blue)

                def around(lane):
                    p = here + _u64(lane)
                    near = y00 * table[p] + y10 * table[p + _u64(4)]
                    near += y01 * table[p + up] + y11 * table[p + up + _u64(4)]
                    p = p + deep
                    near += z00 * table[p] + z10 * table[p + _u64(4)]
                    return near + z01 * table[p + up] + z11 * table[p + up + _u64(4)]

                v0, v1, v2, v3 = around(0), around(1), around(2), around(3)
                k = _u64(3) * _u64(i)
                found[k], found[k + _u64(1)], found[k + _u64(2)] = v0, v1, v2
                found[k + _u64(3)] = v3

        result = out[3 * start : 3 * (start + n)]
        for i in range(3 * n):
            value = found[i] + half
            value = low if value < low else value
            value = high if value > high else value
            if out.itemsize < 4:
                result[i] = np.int32(value)
            else:
                result[i] = value
