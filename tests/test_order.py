import pytest

from diffretouch.data.order import EpochOrder


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_epoch_shows_each_photo_once(count):
    order = EpochOrder(count, seed=3)
    epochs = [[order(epoch * count + i) for i in range(count)] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 3 or len({tuple(epoch) for epoch in epochs}) > 1


def test_an_index_decides_whatever_was_asked_before():
    order = EpochOrder(5)
    asked = [order(k) for k in (17, 3, 17, 0)]
    assert asked[0] == asked[2] == EpochOrder(5)(17) and asked[3] == EpochOrder(5)(0)
    assert [EpochOrder(5, seed=1)(k) for k in range(20)] != [order(k) for k in range(20)]


def test_those_that_follow_are_each_photo_once():
    order = EpochOrder(5)
    following = list(order.following(7))
    assert following[0] == order(7) and following[1] == order(8) and sorted(following) == list(range(5))
