import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.ndimage import map_coordinates

from diffretouch.models.affine_grid import AffineGridHead, Guide, identity_grid
from diffretouch.models.slice_apply import BACKENDS, slice_apply

GOLDEN = Path(__file__).parent / "golden/diffretouch/set_a"
MODULE = Path(__file__).parents[1] / "diffretouch" / "models" / "slice_apply.py"
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}

backends = pytest.mark.parametrize("backend", BACKENDS)
dtypes = pytest.mark.parametrize("dtype", WHITE)


def make_head(knots=16, pixel_range=(0.0, 1.0), seed=0):
    """A head whose guide is no longer the plain one: mixed channels, bent curves."""
    generator = torch.Generator().manual_seed(seed)
    head = AffineGridHead(knots=knots, pixel_range=pixel_range).requires_grad_(False)
    guide = head.guide_curve
    for parameter, spread in ((guide.matrix, 0.1), (guide.matrix_bias, 0.05), (guide.bias, 0.05)):
        parameter += spread * torch.randn(parameter.shape, generator=generator)
    guide.slopes += 1.5 / knots * torch.randn(guide.slopes.shape, generator=generator)
    guide.thresholds += 0.02 * torch.randn(guide.thresholds.shape, generator=generator)
    return head


def make_grid(batch=1, depth=8, height=16, width=16, seed=1):
    noise = torch.randn(batch, 12, depth, height, width, generator=torch.Generator().manual_seed(seed))
    return identity_grid(batch, depth, height, width) + 0.2 * noise


def make_photo(shape, dtype="uint8", seed=2):
    """Smooth gradients with grain, over the whole range; (H,W,3) or (B,H,W,3)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, shape[-3]), np.linspace(0, 1, shape[-2])
    photo = 0.5 * rows[:, None, None] + 0.5 * columns[None, :, None] + generator.normal(0, 0.1, shape)
    photo = photo.clip(0, 1) * WHITE[dtype]
    return photo.astype(dtype) if dtype == "float32" else photo.round().astype(dtype)


def as_tensor(photo):
    """An array of a photo -> (B,3,H,W) in [0,1]."""
    photo = photo if photo.ndim == 4 else photo[None]
    return torch.from_numpy(photo.astype(np.float32) / np.float32(WHITE[photo.dtype.name])).permute(0, 3, 1, 2)


def reference(head, grid, photo, **how):
    """`apply_reference` on an array, result of the same type."""
    with torch.no_grad():
        result = head.apply_reference(grid, as_tensor(photo), **how).permute(0, 2, 3, 1).numpy()
    result = result if photo.ndim == 4 else result[0]
    if photo.dtype.kind == "u":
        result = (result.clip(0, 1) * WHITE[photo.dtype.name]).round().astype(photo.dtype)
    return result


def assert_close(result, expected):
    assert result.dtype == expected.dtype and result.shape == expected.shape
    if expected.dtype.kind == "u":
        assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


SIZES = [  # B, H, W, depth, grid height, grid width, knots
    (1, 37, 53, 8, 16, 16, 16),
    (2, 20, 31, 8, 16, 16, 16),
    (1, 1, 40, 8, 16, 16, 16),
    (1, 40, 1, 8, 16, 16, 16),
    (3, 1, 1, 8, 16, 16, 16),
    (1, 2, 2, 8, 16, 16, 16),
    (1, 5, 1027, 8, 16, 16, 16),  # wider than the kernel's chunk
    (1, 33, 17, 1, 16, 16, 16),
    (1, 33, 17, 8, 1, 16, 16),
    (1, 33, 17, 8, 16, 1, 16),
    (1, 33, 17, 1, 1, 1, 1),
    (1, 33, 17, 2, 3, 5, 3),
    (1, 33, 47, 13, 64, 70, 5),  # a grid larger than the photo
    (1, 21, 22, 4, 8, 8, 67),
]


@backends
@pytest.mark.parametrize("pixel_range", [(0, 1), (-1, 1), (-0.5, 2)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_reference_operators(size, pixel_range, backend):
    batch, height, width, depth, grid_height, grid_width, knots = size
    head = make_head(knots, pixel_range)
    grid = make_grid(batch, depth, grid_height, grid_width)
    photo = make_photo((batch, height, width, 3), "float32")
    expected = reference(head, grid, photo)
    assert_close(slice_apply(grid, photo, head.guide_curve, pixel_range, backend=backend), expected)
    planar = torch.from_numpy(photo).permute(0, 3, 1, 2).contiguous()
    result = slice_apply(grid, planar, head.guide_curve, pixel_range, backend=backend)
    assert_close(result.permute(0, 2, 3, 1).numpy(), expected)


@backends
@dtypes
@pytest.mark.parametrize("shape", [(37, 53, 3), (1, 9, 3), (9, 1, 3), (1, 37, 53, 3), (2, 20, 31, 3)], ids=str)
def test_every_dtype_keeps_its_type(shape, dtype, backend):
    head = make_head(pixel_range=(-1, 1))
    grid = make_grid(shape[0] if len(shape) == 4 else 1)
    photo = make_photo(shape, dtype)
    before = photo.copy()
    result = slice_apply(grid, photo, head.guide_curve, (-1, 1), backend=backend)
    assert_close(result, reference(head, grid, photo))
    assert np.array_equal(photo, before)


@backends
def test_equals_an_interpolation_in_float64(backend):
    head, grid, photo = make_head(), make_grid(), make_photo((41, 59, 3), "float32")
    guide = {name: value.double().numpy() for name, value in head.guide_curve.named_parameters()}
    y = photo.astype(float) @ guide["matrix"] + guide["matrix_bias"]
    knots = [np.concatenate([[-9], np.sort(t), [9]]) for t in guide["thresholds"]]
    curves = [
        np.interp(y[..., c], x, (np.maximum(x[:, None] - guide["thresholds"][c], 0) * guide["slopes"][c]).sum(1))
        for c, x in enumerate(knots)
    ]
    z = np.clip(np.mean(curves, 0) + guide["bias"], 0, 1) * 8 - 0.5
    rows, columns = np.meshgrid(np.linspace(0, 1, 41) * 16 - 0.5, np.linspace(0, 1, 59) * 16 - 0.5, indexing="ij")
    cells = grid[0].double().numpy()
    matrix = np.stack([map_coordinates(part, (z, rows, columns), order=1, mode="nearest") for part in cells], -1)
    matrix = matrix.reshape(41, 59, 3, 4)
    expected = (matrix[..., :3] * photo[..., None, :]).sum(-1) + matrix[..., 3]
    result = slice_apply(grid, photo, head.guide_curve, backend=backend)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@backends
@pytest.mark.parametrize("name", ["single_reg", "single_odd"])
def test_equals_the_released_numbers(name, backend):
    weights = load_file(GOLDEN / "head.safetensors")
    guide = Guide(16)
    with torch.no_grad():
        for own, released in (("matrix", "M"), ("matrix_bias", "M_bias"), ("bias", "bias"),
                              ("slopes", "slopes"), ("thresholds", "thresholds")):  # fmt: skip
            parameter = getattr(guide, own)
            parameter.copy_(weights[f"hdrdecoder.guide.{released}"].float().reshape(parameter.shape))
    golden = np.load(GOLDEN / f"{name}.npz")
    grid = torch.from_numpy(golden["grid"])
    photo = golden["image_u8"].astype(np.float32) / 255
    expected = (golden["applied"].transpose(0, 2, 3, 1) + 1) / 2
    result = slice_apply(grid, photo, guide, (-1, 1), backend=backend)
    np.testing.assert_allclose(result, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    levels = slice_apply(grid, golden["image_u8"], guide, (-1, 1), backend=backend)
    assert np.abs(levels - expected.clip(0, 1) * 255).max() <= 0.51


@backends
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_are_rounded_and_clamped(dtype, backend):
    photo = np.arange(256, dtype=dtype).repeat(3).reshape(16, 16, 3) * (WHITE[dtype] // 255)
    white = WHITE[dtype]
    for levels in (0, 0.4, 0.6, -0.4, -0.6, 3.0, -3.0):
        grid = identity_grid()
        grid[:, 3::4] += levels / white
        expected = (photo + np.round(levels)).clip(0, white)
        assert np.array_equal(slice_apply(grid, photo, Guide(16), backend=backend), expected)


@backends
def test_floats_are_not_clamped(backend):
    photo = make_photo((8, 8, 3), "float32") * 3 - 1
    result = slice_apply(2 * identity_grid(), photo, Guide(16), backend=backend)
    np.testing.assert_allclose(result, 2 * photo, rtol=1e-5, atol=1e-6)


def _unaligned(photo):
    buffer = np.zeros(photo.nbytes + 1, np.uint8)
    view = buffer[1:].view(photo.dtype).reshape(photo.shape)
    view[...] = photo
    return view


def _read_only(photo):
    photo = photo.copy()
    photo.flags.writeable = False
    return photo


LAYOUTS = {
    "upside down": lambda photo: photo[::-1].copy()[::-1],
    "mirrored": lambda photo: photo[:, ::-1].copy()[:, ::-1],
    "bgr": lambda photo: photo[..., ::-1].copy()[..., ::-1],
    "planar": lambda photo: photo.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "column by column": lambda photo: np.asfortranarray(photo),
    "every second pixel": lambda photo: photo.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "with alpha": lambda photo: np.concatenate([photo, photo[..., :1]], -1)[..., :3],
    "other byte order": lambda photo: photo.astype(photo.dtype.newbyteorder()),
    "unaligned": _unaligned,
    "read-only": _read_only,
}


@backends
@dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout, dtype, backend):
    head, grid, plain = make_head(), make_grid(), make_photo((23, 19, 3), dtype)
    photo = LAYOUTS[layout](plain)
    expected = slice_apply(grid, plain, head.guide_curve, backend=backend)
    result = slice_apply(grid, photo, head.guide_curve, backend=backend)
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_allclose(result, expected, atol=1e-6 if dtype == "float32" else 0)
    if photo.flags.writeable:
        out = LAYOUTS[layout](np.zeros_like(plain))
        assert slice_apply(grid, plain, head.guide_curve, out=out, backend=backend) is out
        np.testing.assert_allclose(out.astype(dtype), expected, atol=1e-6 if dtype == "float32" else 0)


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_tensors_become_float32(dtype, backend):
    head, grid = make_head(), make_grid(2)
    photo = as_tensor(make_photo((2, 17, 29, 3))).to(dtype)
    result = slice_apply(grid.to(dtype), photo, head.guide_curve, backend=backend)
    expected = head.apply_reference(grid.to(dtype).float(), photo.float())
    assert result.dtype == torch.float32 and result.is_contiguous()
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    strided = photo.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        slice_apply(grid.to(dtype), strided, head.guide_curve, backend=backend), expected, atol=1e-5, rtol=1e-5
    )


@backends
def test_autocast_does_not_change_the_result(backend):
    head, grid, photo = make_head(), make_grid(), as_tensor(make_photo((17, 29, 3)))
    expected = slice_apply(grid, photo, head.guide_curve, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(slice_apply(grid, photo, head.guide_curve, backend=backend), expected)


@backends
@dtypes
def test_out(dtype, backend):
    head, grid, photo = make_head(), make_grid(2), make_photo((2, 40, 30, 3), dtype)
    expected = slice_apply(grid, photo, head.guide_curve, backend=backend)
    out = np.zeros_like(photo)
    assert slice_apply(grid, photo, head.guide_curve, out=out, backend=backend) is out
    assert np.array_equal(out, expected)
    assert slice_apply(grid, photo, head.guide_curve, out=photo, backend=backend) is photo
    assert np.array_equal(photo, expected)


@backends
def test_out_for_tensors(backend):
    head, grid, photo = make_head(), make_grid(2), as_tensor(make_photo((2, 40, 30, 3))).contiguous()
    expected = slice_apply(grid, photo, head.guide_curve, backend=backend)
    out = torch.zeros_like(photo)
    assert slice_apply(grid, photo, head.guide_curve, out=out, backend=backend) is out
    assert torch.equal(out, expected)
    assert slice_apply(grid, photo, head.guide_curve, out=photo, backend=backend) is photo
    assert torch.equal(photo, expected)


@backends
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_a_bad_pixel_touches_no_other(value, backend):
    head, grid, photo = make_head(), make_grid(), make_photo((20, 30, 3), "float32")
    expected = slice_apply(grid, photo, head.guide_curve, backend=backend)
    photo[7, 11, 1] = value
    photo[0, 0] = photo[19, 29] = value
    result = slice_apply(grid, photo, head.guide_curve, backend=backend)
    bad = [(7, 11), (0, 0), (19, 29)]
    if np.isnan(value):
        assert all(np.isnan(result[place]).all() for place in bad)
    for place in bad:
        expected[place] = result[place] = 0
    assert np.array_equal(result, expected)


@backends
def test_a_bad_grid_cell_stays_visible_in_floats(backend):
    grid = make_grid()
    grid[:, :, :, 0, 0] = np.nan
    result = slice_apply(grid, make_photo((64, 64, 3), "float32"), Guide(16), backend=backend)
    assert np.isnan(result[0, 0]).all() and np.isfinite(result[-1, -1]).all()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_memory_mapped_tiff_to_memory_mapped_tiff(tmp_path, dtype, byteorder):
    head, grid, photo = make_head(), make_grid(), make_photo((300, 211, 3), dtype)
    expected = slice_apply(grid, photo, head.guide_curve)
    tifffile.imwrite(tmp_path / "in.tif", photo, photometric="rgb", byteorder=byteorder)
    source = tifffile.memmap(tmp_path / "in.tif", mode="r")
    target = tifffile.memmap(
        tmp_path / "out.tif", shape=photo.shape, dtype=source.dtype, photometric="rgb", byteorder=byteorder
    )
    assert slice_apply(grid, source, head.guide_curve, out=target) is target
    target.flush()
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    assert np.array_equal(tifffile.imread(tmp_path / "in.tif"), photo)


@pytest.mark.parametrize("layout", ["contiguous", "planar", "other byte order"])
def test_memory_stays_small(layout, tmp_path):
    height, width = 2000, 3000
    dtype = np.dtype(np.uint16)
    dtype = dtype.newbyteorder() if layout == "other byte order" else dtype
    shape = (3, height, width) if layout == "planar" else (height, width, 3)
    source = np.lib.format.open_memmap(tmp_path / "in.npy", "w+", dtype, shape)
    target = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", dtype, shape)
    source[:] = 1000
    if layout == "planar":
        source, target = source.transpose(1, 2, 0), target.transpose(1, 2, 0)
    slice_apply(make_grid(), source[:4], Guide(16), out=target[:4])
    tracemalloc.start()
    slice_apply(make_grid(), source, Guide(16), out=target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # the photo has 36 MB
    assert target[-1, -1].any()


def test_threads_and_strips_give_one_result():
    head, grid, photo = make_head(), make_grid(), make_photo((700, 800, 3))
    planar = as_tensor(photo).contiguous()
    arrays, tensors, before = [], [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            arrays.append(slice_apply(grid, photo, head.guide_curve, backend="numba"))
            with torch.inference_mode():
                tensors.append(slice_apply(grid, planar, head.guide_curve, backend="numba"))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(arrays[0], other) for other in arrays[1:])
    assert all(torch.equal(tensors[0], other) for other in tensors[1:])
    expected = reference(head, grid, photo)
    assert_close(arrays[0], expected)
    assert_close(slice_apply(grid, photo, head.guide_curve, backend="torch"), expected)


@dtypes
def test_calls_from_several_threads(dtype):
    head, grid = make_head(), make_grid()
    photos = [make_photo((300, 400, 3), dtype, seed) for seed in range(4)]
    expected = [slice_apply(grid, photo, head.guide_curve) for photo in photos]
    results = [None] * 4

    def work(i):
        for _ in range(3):
            results[i] = slice_apply(grid, photos[i], head.guide_curve)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 18), st.integers(1, 18)),
    knots=st.integers(1, 20),
    low=st.floats(-2, 0.5),
    seed=st.integers(0, 1000),
)
def test_both_backends_agree_with_the_reference(shape, grid, knots, low, seed):
    head, cells = make_head(knots, (low, 1), seed), make_grid(1, *grid, seed=seed)
    for dtype in WHITE:
        photo = make_photo((*shape, 3), dtype, seed)
        expected = reference(head, cells, photo)
        for backend in BACKENDS:
            assert_close(slice_apply(cells, photo, head.guide_curve, (low, 1), backend=backend), expected)


@backends
@dtypes
@pytest.mark.parametrize("shape", [(37, 53, 3), (2, 5, 1027, 3)], ids=str)
def test_the_shoulder_is_the_references(shape, dtype, backend):
    head, grid = make_head(pixel_range=(-1, 1)), make_grid(shape[0] if len(shape) == 4 else 1)
    photo = make_photo(shape, dtype)
    if dtype == "float32":
        photo = photo * 1.2 - 0.1  # what lies outside already
    how = {"shoulder": 0.7, "backend": backend}
    result = slice_apply(grid, photo, head.guide_curve, (-1, 1), **how)
    plain = slice_apply(grid, photo, head.guide_curve, (-1, 1), backend=backend)
    assert_close(result, reference(head, grid, photo, shoulder=0.7))
    assert (result != plain).mean() > 0.02
    if dtype != "float32":
        ends = np.array([0, WHITE[dtype]])
        assert np.isin(plain[~np.isin(photo, ends)], ends).any()
        room = WHITE[dtype] / 255  # one level of 8 bits
        inside = (photo > room) & (photo < WHITE[dtype] - room)
        assert not np.isin(result[inside], ends).any()


array, tensor = np.zeros((4, 5, 3), np.uint8), torch.zeros(1, 3, 4, 5)
BAD = {
    "grid is a list": (TypeError, "`grid`", {"grid": np.zeros((1, 12, 8, 4, 4)).tolist()}),
    "grid is an array of integers": (TypeError, "`grid`", {"grid": np.zeros((1, 12, 8, 4, 4), int)}),
    "grid of integers": (TypeError, "`grid`", {"grid": torch.zeros(1, 12, 8, 4, 4, dtype=torch.int)}),
    "grid without batch": (ValueError, "`grid`", {"grid": torch.zeros(12, 8, 4, 4)}),
    "grid of 9": (ValueError, "`grid`", {"grid": torch.zeros(1, 9, 8, 4, 4)}),
    "empty grid": (ValueError, "`grid`", {"grid": torch.zeros(1, 12, 0, 4, 4)}),
    "two grids": (ValueError, "`grid`", {"grid": identity_grid(2)}),
    "NaN grid, integers": (ValueError, "`grid`", {"grid": identity_grid() * np.nan}),
    "photo is a list": (TypeError, "`photo`", {"photo": [[0.5]]}),
    "photo of int32": (TypeError, "`photo`", {"photo": array.astype(np.int32)}),
    "photo of float64": (TypeError, "`photo`", {"photo": array.astype(float)}),
    "photo of bool": (TypeError, "`photo`", {"photo": array.astype(bool)}),
    "photo grey": (ValueError, "`photo`", {"photo": array[..., 0]}),
    "photo with alpha": (ValueError, "`photo`", {"photo": np.zeros((4, 5, 4), np.uint8)}),
    "photo planar": (ValueError, "`photo`", {"photo": np.zeros((3, 4, 5), np.uint8)}),
    "photo empty": (ValueError, "`photo`", {"photo": array[:0]}),
    "photo without width": (ValueError, "`photo`", {"photo": array[:, :0]}),
    "no photo": (ValueError, "`photo`", {"photo": np.zeros((0, 4, 5, 3), np.uint8), "grid": identity_grid(1)[:1]}),
    "tensor of uint8": (TypeError, "`photo`", {"photo": tensor.byte()}),
    "tensor without batch": (ValueError, "`photo`", {"photo": tensor[0]}),
    "tensor of 4 channels": (ValueError, "`photo`", {"photo": torch.zeros(1, 4, 4, 5)}),
    "tensor empty": (ValueError, "`photo`", {"photo": tensor[..., :0]}),
    "tensors, one grid": (ValueError, "`grid`", {"photo": tensor.repeat(2, 1, 1, 1)}),
    "unknown backend": (ValueError, "`backend`", {"backend": "cuda"}),
    "range turned": (ValueError, "`pixel_range`", {"pixel_range": (1, 0)}),
    "range empty": (ValueError, "`pixel_range`", {"pixel_range": (1, 1)}),
    "range of one": (ValueError, "`pixel_range`", {"pixel_range": (1,)}),
    "out of another type": (TypeError, "`out`", {"out": np.zeros((4, 5, 3), np.uint16)}),
    "out is a tensor": (TypeError, "`out`", {"out": torch.zeros(1, 3, 4, 5)}),
    "out is an array": (TypeError, "`out`", {"photo": tensor, "out": np.zeros((1, 3, 4, 5), np.float32)}),
    "out in half precision": (TypeError, "`out`", {"photo": tensor, "out": tensor.half()}),
    "out of another shape": (ValueError, "`out`", {"out": np.zeros((5, 4, 3), np.uint8)}),
    "out of another shape, tensor": (ValueError, "`out`", {"photo": tensor, "out": torch.zeros(1, 3, 5, 4)}),
    "out read-only": (ValueError, "`out`", {"out": _read_only(array)}),
    "out overlaps": (ValueError, "`out`", {"photo": array[:3], "out": array[1:]}),
    "out overlaps, tensor": (ValueError, "`out`", {"photo": tensor[:, :, :3], "out": tensor[:, :, 1:]}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs(case):
    error, named, changes = BAD[case]
    arguments = {"grid": identity_grid(), "photo": array, "guide": Guide(16), **changes}
    with pytest.raises(error, match=named):
        slice_apply(**arguments)


@pytest.mark.parametrize("name", ["matrix", "matrix_bias", "thresholds", "slopes", "bias"])
def test_a_guide_that_is_not_finite(name):
    guide = Guide(16)
    getattr(guide, name).data.view(-1)[0] = np.nan
    with pytest.raises(ValueError, match=f"`guide`: {name} "):
        slice_apply(identity_grid(), array, guide)


class TestHead:
    def test_fast_path_without_gradient(self):
        head, grid, photo = make_head(pixel_range=(-1, 1)), make_grid(), as_tensor(make_photo((33, 44, 3)))
        result = head.apply(grid, photo)
        torch.testing.assert_close(result, head.apply_reference(grid, photo), atol=1e-5, rtol=1e-5)
        assert torch.equal(result, slice_apply(grid, photo, head.guide_curve, (-1, 1)))

    def test_inference_mode(self):
        head, photo = make_head(), as_tensor(make_photo((33, 44, 3)))
        with torch.inference_mode():
            grid = make_grid()
            result = head.apply(grid, photo)
            torch.testing.assert_close(result, head.apply_reference(grid, photo), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("which", ["grid", "photo", "guide"])
    def test_gradients_flow(self, which):
        head, grid, photo = make_head(), make_grid(), as_tensor(make_photo((9, 10, 3)))
        leaf = {"grid": grid, "photo": photo, "guide": head.guide_curve.slopes}[which].requires_grad_()
        head.apply(grid, photo).square().sum().backward()
        assert leaf.grad.abs().sum() > 0
        with torch.no_grad():
            assert not head.apply(grid, photo).requires_grad

    def test_float64_stays_float64(self):
        head, grid, photo = make_head(), make_grid().double(), as_tensor(make_photo((9, 10, 3))).double()
        assert head.apply(grid, photo).dtype == torch.float64

    def test_half_precision_weights(self):
        head, grid, photo = make_head().to(torch.bfloat16), make_grid(), as_tensor(make_photo((33, 44, 3)))
        torch.testing.assert_close(head.apply(grid, photo), head.apply_reference(grid, photo), atol=1e-5, rtol=1e-5)

    @dtypes
    def test_arrays_though_the_weights_are_trainable(self, dtype):
        head, grid, photo = make_head().requires_grad_(), make_grid(), make_photo((33, 44, 3), dtype)
        out = np.empty_like(photo)
        assert head.apply(grid, photo, out=out) is out
        assert_close(out, reference(head, grid, photo))


# The module on its own (importing diffusers takes seconds), a guide and a grid that change nothing.
ALONE = """
import importlib.util, sys, types, numpy, torch
spec = importlib.util.spec_from_file_location("slice_apply", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert "numba" not in sys.modules, "numba is imported before its first use"
guide = types.SimpleNamespace(matrix=torch.eye(3), matrix_bias=torch.zeros(3), thresholds=torch.zeros(3, 1),
                              slopes=torch.ones(3, 1), bias=torch.zeros(()))
grid = torch.eye(3, 4).flatten()[None, :, None, None, None].clone()
photo = numpy.arange(60, dtype=numpy.uint8).reshape(4, 5, 3)
"""


def _run(code, path, **environment):
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, str(path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_nowhere_to_keep_compiled_code(tmp_path):
    copy = tmp_path / "slice_apply.py"
    copy.write_text(MODULE.read_text())
    (tmp_path / "__pycache__").write_text("a file, so that no folder can be made")
    nowhere = str(tmp_path / "__pycache__" / "x")
    code = """
assert numpy.array_equal(module.slice_apply(grid, photo, guide, backend="numba"), photo)
"""
    _run(code, copy, HOME=nowhere, XDG_CACHE_HOME=nowhere, LOCALAPPDATA=nowhere, NUMBA_CACHE_DIR="")


def test_compiled_code_is_kept_in_the_users_cache(tmp_path):
    copy = tmp_path / "slice_apply.py"
    copy.write_text(MODULE.read_text())
    code = """
assert numpy.array_equal(module.slice_apply(grid, photo, guide, backend="numba"), photo)
"""
    _run(code, copy, XDG_CACHE_HOME=str(tmp_path / "cache"), NUMBA_CACHE_DIR="")
    kept = {path.parts[len(tmp_path.parts)] for path in tmp_path.rglob("*.nbi")}
    assert kept == {"cache"}


def test_without_numba(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('not here')")
    code = """
assert numpy.array_equal(module.slice_apply(grid, photo, guide), photo)
try:
    module.slice_apply(grid, photo, guide, backend="numba")
except ValueError as error:
    assert "`backend`" in str(error)
else:
    raise AssertionError("no error")
"""
    _run(code, MODULE, PYTHONPATH=str(tmp_path))
