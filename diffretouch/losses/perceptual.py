"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018), from weights that the user brings."""

import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

# AlexNet's five convolutions: index in its feature stack, channels in and out, kernel, stride, padding
_CONVOLUTIONS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
_POOLED = (3, 6)  # a 3x3 max pool of stride 2 stands before these


class Lpips(nn.Module):
    """LPIPS v0.1 on AlexNet: the distance of two photos (B,3,H,W) in [0,1] -> (B,); 0 for equal ones.

    Args:
        weights (*optional*): a safetensors file with the state of the package lpips' `LPIPS(net="alex")`: the names
            `net.slice1.0.weight` ... `lin4.model.1.weight`. In an environment that has the package, it is made by
            `safetensors.torch.save_file(dict(lpips.LPIPS(net="alex").state_dict()), "lpips_alex.safetensors")`.
            Without it the network is random.

    Raises:
        ValueError: the file is missing, is no safetensors file, lacks a weight, or has one of another shape.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride, padding)
            for _, before, after, kernel, stride, padding in _CONVOLUTIONS
        )
        self.heads = nn.ModuleList(nn.Conv2d(layer[2], 1, 1, bias=False) for layer in _CONVOLUTIONS)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.requires_grad_(False)
        if weights is not None:
            self._load(weights)

    def _load(self, path):
        try:
            given = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"`weights` {path} cannot be read as LPIPS weights (see diffretouch.losses.perceptual.Lpips): {error}"
            ) from error
        own = {}
        for i, (layer, *_) in enumerate(_CONVOLUTIONS):
            own[f"convolutions.{i}.weight"] = f"net.slice{i + 1}.{layer}.weight"
            own[f"convolutions.{i}.bias"] = f"net.slice{i + 1}.{layer}.bias"
            own[f"heads.{i}.weight"] = f"lin{i}.model.1.weight"
        missing = [name for name in own.values() if name not in given]
        if missing:
            raise ValueError(f"`weights` {path} lacks {len(missing)} of {len(own)} LPIPS weights: {missing[0]}, ...")
        state, shapes = {name: given[theirs] for name, theirs in own.items()}, self.state_dict()
        for name, weight in state.items():
            if weight.shape != shapes[name].shape:
                found, due = tuple(weight.shape), tuple(shapes[name].shape)
                raise ValueError(f"`weights` {path} is not LPIPS on AlexNet: {own[name]} is {found}, not {due}.")
        self.load_state_dict(state)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        distance = 0.0
        for x, y, head in zip(self._features(a), self._features(b), self.heads, strict=True):
            x, y = (z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
            distance = distance + head((x - y).square()).mean((1, 2, 3))
        return distance

    def _features(self, photo):
        x = (photo * 2 - 1 - self.shift) / self.scale
        if min(x.shape[-2:]) < 32:  # the pools leave nothing of less
            x = F.interpolate(x, [max(side, 32) for side in x.shape[-2:]], mode="bilinear")
        for (layer, *_), convolution in zip(_CONVOLUTIONS, self.convolutions, strict=True):
            if layer in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            yield x
