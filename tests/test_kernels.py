import numpy as np
import pytest
import torch

from diffretouch.models.kernels import flat, in_threads, kernel, strips, write_strip


def _double(numbers, out):
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            out[i, j] = 2 * numbers[i, j]


@pytest.mark.parametrize("layout", [(), ("A",)])
def test_kernel_takes_what_it_was_compiled_for(layout):
    double = kernel(_double, ("int32", 2, True, *layout), ("int32", 2, False, *layout))
    assert double is kernel(_double, ("int32", 2, True, *layout), ("int32", 2, False, *layout))
    numbers = np.arange(12, dtype=np.int32).reshape(3, 4)
    out = np.empty_like(numbers)
    double(numbers, out)
    assert (out == 2 * numbers).all()
    if layout:
        double(numbers[::2, ::-1], out[:2])
        assert (out[:2] == 2 * numbers[::2, ::-1]).all()
    else:
        with pytest.raises(TypeError):  # strided memory is not read as if it were contiguous
            double(numbers[:, ::2], out[:, ::2])


@pytest.mark.parametrize("height, width", [(1, 1), (7, 5), (10, 3), (3, 100)])
def test_strips_are_all_rows_once(height, width):
    parts = strips(height, width, pixels=10)
    assert np.concatenate([np.arange(height)[part] for part in parts]).tolist() == list(range(height))
    assert all((part.stop - part.start) * width <= max(10, width) for part in parts)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_keep_the_order_and_tell_errors(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert in_threads(lambda n: n * n, range(20)) == [n * n for n in range(20)]
        assert in_threads(str, []) == []
        with pytest.raises(ZeroDivisionError):
            in_threads(lambda n: 1 / n, [2, 1, 0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["plain", "every other column", "other byte order"])
def test_strips_of_any_memory_are_read_and_written(kind):
    target = np.zeros((6, 8, 3), np.uint16)
    if kind == "every other column":
        target = target[:, ::2]
    if kind == "other byte order":
        target = target.astype(target.dtype.newbyteorder())
    values = np.arange(2 * target[0].size)

    def count(numbers):
        assert numbers.flags.c_contiguous and numbers.dtype.isnative
        numbers[:] = values

    write_strip(target, slice(1, 3), count)
    assert not target[0].any() and not target[3:].any()
    numbers = flat(target[1:3])
    assert (numbers == values).all() and numbers.dtype.isnative and numbers.flags.c_contiguous
