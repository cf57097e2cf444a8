import numpy as np
import pytest
import torch
from scipy import ndimage

from diffretouch.data.square_views import SquareView


def smooth_photo(height=24, width=40):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x * 5).sin() * 0.4 + 0.5])


def test_upright_it_is_the_photo_in_the_middle():
    photo = smooth_photo()
    scene = torch.arange(24 * 40).view(24, 40)
    view = SquareView(40, pixels=100)(photo, 1 - photo, scene)
    torch.testing.assert_close(view["input"][:, 8:32], photo, atol=1e-5, rtol=0)
    torch.testing.assert_close(view["target"][:, 8:32], 1 - photo, atol=1e-5, rtol=0)
    torch.testing.assert_close(view["input"][:, :8], photo[:, :1].expand(-1, 8, -1), atol=1e-5, rtol=0)  # edge fill
    assert torch.equal(view["scene"][8:32], scene) and (view["scene"][:8] == -1).all()
    assert view["pixels"].shape == (100,) and ((view["pixels"] // 40 >= 8) & (view["pixels"] // 40 < 32)).all()


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_turned_and_flipped_as_by_scipy(seed):
    photo = smooth_photo(40, 40)
    rng = np.random.default_rng(seed)
    angle, flip = rng.uniform(-10, 10), rng.random() < 0.5
    view = SquareView(40, pixels=50)(photo, photo**2, None, np.random.default_rng(seed))
    source = photo.flip(2) if flip else photo
    turned = ndimage.rotate(source.numpy(), -angle if flip else angle, (2, 1), reshape=False, order=1, mode="nearest")
    inner = np.s_[:, 4:-4, 4:-4]
    np.testing.assert_allclose(view["input"].numpy()[inner], turned[inner], atol=0.01)
    torch.testing.assert_close(view["input"] ** 2, view["target"], atol=0.01, rtol=0)  # moved alike
    assert (view["scene"] == -1).all()


def test_pixels_lie_inside_and_are_drawn_once():
    rng = np.random.default_rng(0)
    for _ in range(5):
        view = SquareView(32, pixels=300)(smooth_photo(20, 64), smooth_photo(20, 64), torch.zeros(20, 64).long(), rng)
        assert len(set(view["pixels"].tolist())) == 300
        assert (view["scene"].flatten()[view["pixels"]] == 0).all()
    tiny = SquareView(32, pixels=300)(smooth_photo(2, 64), smooth_photo(2, 64), None, rng)["pixels"]
    assert len(tiny) == 300 and len(set(tiny.tolist())) < 100  # fewer than asked for: with repetition
    upright = SquareView(32, pixels=7)(smooth_photo(1, 1), smooth_photo(1, 1))
    assert upright["input"].shape == (3, 32, 32) and upright["input"].isfinite().all()
