"""How much work something is, without a clock."""

import sys


def calls(work, *arguments):
    """Calls of Python's and C's functions while `work(*arguments)` runs."""
    count = 0

    def counted(*_):
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        work(*arguments)
    finally:
        sys.setprofile(None)
    return count
