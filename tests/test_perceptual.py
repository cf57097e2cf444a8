import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from diffretouch.losses.perceptual import Lpips

# The names and shapes of the package lpips' LPIPS(net="alex")
LAYERS = [
    (1, 0, (64, 3, 11)),
    (2, 3, (192, 64, 5)),
    (3, 6, (384, 192, 3)),
    (4, 8, (256, 384, 3)),
    (5, 10, (256, 256, 3)),
]


def write_weights(path, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i, (slot, layer, (after, before, kernel)) in enumerate(LAYERS):
        shape = (after, before, kernel, kernel)
        state[f"net.slice{slot}.{layer}.weight"] = (
            torch.randn(shape, generator=generator) / (before * kernel**2) ** 0.5
        )
        state[f"net.slice{slot}.{layer}.bias"] = 0.1 * torch.randn(after, generator=generator)
        state[f"lin{i}.model.1.weight"] = torch.rand((1, after, 1, 1), generator=generator)
    state["scaling_layer.shift"] = torch.zeros(1)  # what else the package keeps is passed by
    save_file(state, path)
    return path, state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("lpips") / "alex.safetensors")


def photo(seed, size=(48, 37)):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_the_papers(weights):
    """Equation 1 of Zhang et al., written out with AlexNet as a plain list of layers."""
    path, state = weights
    network = []
    for slot, layer, _ in LAYERS:
        stride, padding = {0: (4, 2), 3: (1, 2)}.get(layer, (1, 1))
        network.append((f"net.slice{slot}.{layer}", stride, padding, layer in (3, 6)))
    expected = np.zeros(2)
    features = [(photo(s) * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
                / torch.tensor([0.458, 0.448, 0.450])[:, None, None] for s in (0, 1)]  # fmt: skip
    for i, (name, stride, padding, pooled) in enumerate(network):
        for j in range(2):
            x = F.max_pool2d(features[j], kernel_size=3, stride=2) if pooled else features[j]
            features[j] = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding))
        units = [f / f.norm(dim=1, keepdim=True).clamp(min=1e-10) for f in features]
        weighted = (units[0] - units[1]) ** 2 * state[f"lin{i}.model.1.weight"].reshape(1, -1, 1, 1)
        expected += weighted.sum(1).mean((1, 2)).numpy()
    np.testing.assert_allclose(Lpips(path)(photo(0), photo(1)), expected, rtol=1e-5)


def test_equal_photos_and_gradients(weights):
    lpips = Lpips(weights[0])
    assert not any(p.requires_grad for p in lpips.parameters())
    x = photo(0).requires_grad_()
    assert (lpips(x, x) == 0).all()
    lpips(x, photo(1)).mean().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_tiny_photos(weights):
    assert Lpips(weights[0])(photo(0, (5, 7)), photo(1, (5, 7))).isfinite().all()


def test_missing_weights(tmp_path, weights):
    with pytest.raises(ValueError, match="`weights`"):
        Lpips(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="`weights`"):
        Lpips(tmp_path / "bad.safetensors")
    save_file({k: v for k, v in weights[1].items() if "lin3" not in k}, tmp_path / "few.safetensors")
    with pytest.raises(ValueError, match="lacks 1 of 15"):
        Lpips(tmp_path / "few.safetensors")
    save_file({**weights[1], "lin3.model.1.weight": torch.zeros(1, 192, 1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"lin3.model.1.weight is \(1, 192, 1, 1\), not \(1, 256, 1, 1\)"):
        Lpips(tmp_path / "other.safetensors")
