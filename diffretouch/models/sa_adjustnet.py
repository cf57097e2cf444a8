"""SA-AdjustNet: a retouch that knows what it looks at (Nam and Kim, "Deep semantics-aware photo adjustment", 2017,
arXiv 1706.08260).

A residual network and four spatial GRUs describe the surroundings of every pixel; a low-rank bilinear form of that
context and of the pixel's colour makes the pixel's new colour, in CIELAB. Optionally the context is cut down to a
semantic adjustment map: which of K presets, each one colour mapping, retouches the pixel. The paper's equations were
not to be had in print; those here were derived from its text and are ours.
"""

import os
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from transformers import ResNetConfig, ResNetModel

from diffretouch.colour.lab import lab_to_srgb, srgb_to_lab
from diffretouch.regions import guided_fit

# ResNet-50 without its last stage, which the hypercolumn does not use: 256, 512 and 1024 channels at strides 4, 8, 16.
RESNET50 = dict(embedding_size=64, hidden_sizes=(256, 512, 1024), depths=(3, 4, 6), layer_type="bottleneck")

# What the bundled model is made of: 0.4 M parameters
SMALL_ADJUSTNET = dict(
    backbone=dict(embedding_size=32, hidden_sizes=(32, 64, 96), depths=(1, 1, 2), layer_type="basic"),
    renet_hidden=32,
    renet_channels=96,
    context_channels=64,
    rank=32,
    view_size=128,
)

# Photos are worked on in strips of this many pixels.
_STRIP = 1 << 17


class ReNet(nn.Module):
    """Four directional GRUs over a feature map (Visin et al. 2015): each place learns of the whole picture.

    Along rows to the right and to the left, batch norm, along columns down and up, batch norm, 1x1 convolution.
    """

    def __init__(self, channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.along_rows = nn.GRU(channels, hidden, batch_first=True, bidirectional=True)
        self.norm1 = nn.BatchNorm2d(2 * hidden)
        self.along_columns = nn.GRU(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.norm2 = nn.BatchNorm2d(2 * hidden)
        self.out = nn.Conv2d(2 * hidden, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B,C,h,w) -> (B,out_channels,h,w)
        batch, _, height, width = x.shape
        rows = self.along_rows(x.permute(0, 2, 3, 1).flatten(0, 1))[0]  # (B*h,w,2*hidden)
        x = self.norm1(rows.unflatten(0, (batch, height)).permute(0, 3, 1, 2))
        columns = self.along_columns(x.permute(0, 3, 2, 1).flatten(0, 1))[0]  # (B*w,h,2*hidden)
        x = self.norm2(columns.unflatten(0, (batch, width)).permute(0, 3, 2, 1))
        return self.out(x)


@dataclass
class Context:
    """What `SAAdjustNet.look` saw of a photo: all that retouching its pixels needs.

    Args:
        colour: (B,rank,S/2,S/2), the first layer's share of the colour features.
        gate: (B,rank,S/4,S/4), the context's factor of the bilinear form; `None` with presets.
        weights: (B,K,h,w) in [0,1], the adjustment map; `None` without presets.
        fit: slope (B,3,K,h,w) and offset (B,K,h,w) of the guided filter over the photo, where edges are soft.
        box: top, left, height and width of the photo in the square view.
    """

    colour: torch.Tensor
    gate: torch.Tensor | None
    weights: torch.Tensor | None
    fit: tuple | None
    box: tuple


def _normalised(maps):
    """L2-normalised over the channels, then scaled to a mean square of 1, which spares the next layer tiny inputs."""
    return F.normalize(maps, dim=1) * maps.shape[1] ** 0.5


def _sample(maps, positions, stride):
    """Bilinear: maps (B,C,h,w) of a stride at positions (B,P,2), x and y in pixels of the view -> (B,P,C)."""
    size = positions.new_tensor([maps.shape[3] - 1, maps.shape[2] - 1])
    grid = (positions / stride / size * 2 - 1)[:, None]
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=True)[:, :, 0].transpose(1, 2)


class SAAdjustNet(ModelMixin, ConfigMixin):
    r"""The network: photo -> retouched photo.

    Colour features x of a pixel are its Lab colour and the normalised maps of the backbone's first convolution;
    context features y are a hypercolumn: the normalised maps of three stages and of the ReNet at that pixel, through a
    1x1 convolution. With x and y,

        Lab out = Lab in + P (tanh(U x + b_x) * tanh(V y + b_y)) + b_z     (Lab in units of 100)

    a low-rank bilinear form (Kim et al., ICLR 2017). With `presets` = K, y is a one-hot choice among K: the pixel's
    probabilities come from the hypercolumn, training takes the exact expectation over the choices, and inference the
    likeliest; or, with `soft_edges`, both take the mixture.

    Args:
        backbone (`dict`, *optional*): settings of `ResNetConfig` with three stages; ResNet-50 by default.
        renet_hidden (`int`): width of each directional GRU.
        renet_channels (`int`): channels that the ReNet adds to the hypercolumn.
        context_channels (`int`): width of the hypercolumn after its 1x1 convolution.
        rank (`int`): of the bilinear form.
        presets (`int`): K of the adjustment map, at least 2; 0 for none.
        soft_edges (`bool`): whether `look` mixes the presets, unless it is told; for maps trained as a mixture.
        scene_classes (`int`): classes of the scene-parsing head for the multi-task loss; 0 for none.
        view_size (`int`): side of the square that the backbone sees, a multiple of 16.
    """

    @register_to_config
    def __init__(
        self, *, backbone: dict | None = None, renet_hidden: int = 256, renet_channels: int = 1024,
        context_channels: int = 512, rank: int = 256, presets: int = 0, soft_edges: bool = False,
        scene_classes: int = 0, view_size: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(presets, int) or presets == 1 or presets < 0:
            raise ValueError(f"`presets` must be 0 (no adjustment map) or an integer of at least 2, got {presets!r}.")
        if soft_edges and not presets:
            raise ValueError("`soft_edges` needs `presets`, got 0.")
        if view_size < 32 or view_size % 16:
            raise ValueError(f"`view_size` must be a multiple of 16 and at least 32, got {view_size}.")
        backbone = dict(backbone or RESNET50)
        stem, stages = backbone["embedding_size"], list(backbone["hidden_sizes"])
        if len(stages) != 3:
            raise ValueError(f"`backbone` must have three stages, got hidden_sizes {stages}.")
        backbone.update(hidden_sizes=stages, depths=list(backbone["depths"]))
        self.resnet = ResNetModel(ResNetConfig(**backbone))
        self.renet = ReNet(stages[-1], renet_hidden, renet_channels)
        self.hypercolumn = nn.Linear(sum(stages) + renet_channels, context_channels)
        self.colour_lab = nn.Linear(3, rank)  # U and b_x
        self.colour_maps = nn.Conv2d(stem, rank, 1, bias=False)
        self.context = nn.Linear(context_channels, rank) if not presets else None  # V and b_y
        self.choice = nn.Linear(context_channels, presets) if presets else None
        self.preset_gates = nn.Parameter(torch.randn(presets, rank)) if presets else None  # V_k + b_y
        self.out = nn.Linear(rank, 3)  # P and b_z
        self.scene = nn.Linear(context_channels, scene_classes) if scene_classes else None
        nn.init.normal_(self.out.weight, std=0.005)  # an untrained network leaves the photo about as it is
        nn.init.zeros_(self.out.bias)
        # How often each preset was used of late, for the class weights of training
        usage = torch.full((presets,), 1 / presets) if presets else torch.empty(0)
        self.register_buffer("usage", usage)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def view(self, photo: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int, int, int]]:
        """Photo (B,3,H,W) -> the square (B,3,S,S) that the backbone sees, and the photo's box in it.

        The long side fits exactly; the rest is filled up with edge pixels, as in the paper.
        """
        size = self.config.view_size
        height, width = photo.shape[2:]
        ratio = size / max(height, width)
        small = max(round(height * ratio), 1), max(round(width * ratio), 1)
        thumbnail = F.interpolate(photo.float(), small, mode="bilinear", antialias=True, align_corners=False)
        top, left = (size - small[0]) // 2, (size - small[1]) // 2
        sides = left, size - small[1] - left, top, size - small[0] - top
        return F.pad(thumbnail, sides, mode="replicate"), (top, left, *small)

    def feature_maps(self, view: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """View (B,3,S,S) in [0,1] -> the first layer's maps at stride 2 and four maps at strides 4, 8, 16, 16."""
        first = self.resnet.embedder.embedder((view - self.mean) / self.std)
        x, maps = self.resnet.embedder.pooler(first), []
        for stage in self.resnet.encoder.stages:
            x = stage(x)
            maps.append(x)
        maps.append(self.renet(x))
        return self.colour_maps(_normalised(first)), [_normalised(x) for x in maps]

    def context_at(self, maps: list[torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
        """Hypercolumns at positions (B,P,2), x and y in pixels of the view -> (B,P,context_channels)."""
        columns = [_sample(x, positions, stride) for x, stride in zip(maps, (4, 8, 16, 16), strict=True)]
        return self.hypercolumn(torch.cat(columns, -1))

    def new_lab(self, lab: torch.Tensor, colour: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Lab (...,3) in units of 100, first-layer share (...,rank) and gate (...,rank) -> Lab (...,3)."""
        return lab + self.out(torch.tanh(self.colour_lab(lab) + colour) * gate)

    def sparse(
        self, view: torch.Tensor, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """For training: only some pixels of a view.

        Args:
            view (`torch.Tensor`): (B,3,S,S) in [0,1].
            pixels (`torch.Tensor`): (B,P) int64, row * S + column.

        Returns:
            estimates (B,P,3) in Lab / 100, or (B,P,K,3) for each preset; probabilities (B,P,K) or `None`; scene logits
            (B,P,classes) or `None`.
        """
        size = view.shape[-1]
        positions = torch.stack([pixels % size, pixels // size], -1).to(view.dtype)
        first, maps = self.feature_maps(view)
        colour = _sample(first, positions, 2)
        lab = (srgb_to_lab(view) / 100).flatten(2).gather(2, pixels[:, None].expand(-1, 3, -1)).transpose(1, 2)
        context = self.context_at(maps, positions)
        scene = self.scene(context) if self.scene is not None else None
        if self.choice is None:
            return self.new_lab(lab, colour, torch.tanh(self.context(context))), None, scene
        each = self.new_lab(lab[:, :, None], colour[:, :, None], torch.tanh(self.preset_gates))
        return each, self.choice(context).softmax(-1), scene

    def look(
        self,
        photo: torch.Tensor,
        adjustment_map: torch.Tensor | None = None,
        *,
        soft_edges: bool | None = None,
        radius: float = 0.02,
        epsilon: float = 1e-3,
    ) -> Context:
        """Everything about a photo that its pixels' retouch needs, from a copy of `view_size`.

        Args:
            photo (`torch.Tensor`): (B,3,H,W) in [0,1].
            adjustment_map (`torch.Tensor`, *optional*): (B,K,h,w) weights instead of the predicted ones.
            soft_edges (`bool`, *optional*): presets are mixed along edges that follow the photo's (guided filter);
                else every pixel takes its likeliest preset, with hard boundaries, as in the paper. By default as the
                network was trained (`config.soft_edges`).
            radius, epsilon: of the guided filter, see `refine_mask`.

        Returns:
            [`Context`]
        """
        view, box = self.view(photo)
        top, left, height, width = box
        first, maps = self.feature_maps(view)
        nodes = torch.arange(0, self.config.view_size, 4, device=view.device, dtype=view.dtype)
        y, x = torch.meshgrid(nodes, nodes, indexing="ij")
        positions = torch.stack([x, y], -1).flatten(0, 1).expand(len(view), -1, -1)
        if self.choice is None:
            context = self.context_at(maps, positions)
            gate = torch.tanh(self.context(context)).transpose(1, 2).unflatten(2, (len(nodes), len(nodes)))
            return Context(first, gate, None, None, box)
        weights = adjustment_map
        if weights is None:
            logits = self.choice(self.context_at(maps, positions))
            y, x = torch.meshgrid(torch.arange(height) + top, torch.arange(width) + left, indexing="ij")
            inside = torch.stack([x, y], -1).flatten(0, 1).to(view).expand(len(view), -1, -1)
            logits = logits.transpose(1, 2).unflatten(2, (len(nodes), len(nodes)))
            weights = _sample(logits, inside, 4).softmax(-1).transpose(1, 2).unflatten(2, (height, width))
        fit = None
        if self.config.soft_edges if soft_edges is None else soft_edges:
            guide = view[:, :, top : top + height, left : left + width]
            values = weights.to(guide)
            if values.shape[2:] != guide.shape[2:]:
                values = F.interpolate(values, guide.shape[2:], mode="bilinear", antialias=True)
            fit = guided_fit(guide, values, max(round(radius * max(height, width)), 1), epsilon)
        return Context(first, None, weights, fit, box)

    def retouch_rows(self, context: Context, rows: torch.Tensor, first: int, height: int) -> torch.Tensor:
        """Retouch some rows of a photo.

        Args:
            context ([`Context`]): of the whole photo.
            rows (`torch.Tensor`): (B,3,r,W) in [0,1].
            first, height (`int`): the first row's number, and how many the photo has.

        Returns:
            `torch.Tensor`: (B,3,r,W), not clamped.
        """
        count, width = rows.shape[2:]
        top, left, box_height, box_width = context.box
        u = (torch.arange(width, device=rows.device) + 0.5) / width  # of the photo, in [0,1]
        v = (torch.arange(first, first + count, device=rows.device) + 0.5) / height
        y, x = torch.meshgrid(v * box_height - 0.5 + top, u * box_width - 0.5 + left, indexing="ij")
        positions = torch.stack([x, y], -1).flatten(0, 1).expand(len(rows), -1, -1)
        lab = (srgb_to_lab(rows) / 100).flatten(2).transpose(1, 2)  # (B,r*W,3)
        if self.choice is None:
            gate = _sample(context.gate, positions, 4)
        else:
            y, x = torch.meshgrid(v * 2 - 1, u * 2 - 1, indexing="ij")
            grid = torch.stack([x, y], -1).expand(len(rows), -1, -1, -1)
            over = lambda x: F.grid_sample(x, grid, padding_mode="border", align_corners=False)  # noqa: E731
            if context.fit is None:
                weights = F.one_hot(over(context.weights).argmax(1), self.config.presets).to(rows)  # (B,r,W,K)
            else:
                slope, offset = context.fit
                slope = over(slope.flatten(1, 2)).unflatten(1, slope.shape[1:3])
                weights = ((slope * rows[:, :, None]).sum(1) + over(offset)).clamp(0, 1).permute(0, 2, 3, 1)
                weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
            # The result is linear in the gate, so mixed gates make the mixed result.
            gate = weights.flatten(1, 2) @ torch.tanh(self.preset_gates)
        new = self.new_lab(lab, _sample(context.colour, positions, 2), gate)
        return lab_to_srgb(new.transpose(1, 2).unflatten(2, (count, width)) * 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Photo (B,3,H,W) in [0,1] -> retouched photo, float32, not clamped; the whole at once in strips of rows."""
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            context = self.look(image)
            height, width = image.shape[2:]
            step = max(_STRIP // (width * len(image)), 1)
            strips = [
                self.retouch_rows(context, image[:, :, row : row + step], row, height)
                for row in range(0, height, step)
            ]
            return torch.cat(strips, 2)


def load_backbone(network: SAAdjustNet, name: str | os.PathLike[str]) -> None:
    """Put the weights of a saved ResNet, e.g. one trained on ImageNet, into the network's backbone.

    Args:
        network ([`SAAdjustNet`])
        name: a directory of transformers (config.json and model.safetensors), or a Hub id. Stages beyond the third and
            a classifier are left out.

    Raises:
        ValueError: there is no such model, or its shape is another.
    """
    try:
        model, info = ResNetModel.from_pretrained(
            name, config=network.resnet.config, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises many types for a broken file: one clear sentence for all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = "" if os.path.exists(str(name)) else "is not there and "
        raise ValueError(f"`name`: the backbone {str(name)!r} {where}cannot be loaded: {reason}") from error
    if info["missing_keys"]:
        raise ValueError(f"`name`: the backbone {str(name)!r} lacks {sorted(info['missing_keys'])[0]} and others.")
    network.resnet.load_state_dict(model.state_dict())
