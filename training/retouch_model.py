"""What a training of DiffRetouch trains: how the models are made or loaded, and the pipeline that is saved of them."""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel

from diffretouch.attributes import ATTRIBUTES, in_weights_order
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.models.csrnet import CSRNet, CSRNetL
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    SMALL_UNET,
    build_retouch_unet,
    denoise,
    freeze_dead_attention,
    knows_the_unknown,
    unet_thumbnail,
)
from diffretouch.pipelines.pipeline_csrnet import CSRNetPipeline
from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline
from diffretouch.training.lora import add_lora, merged, saves_adapter

# Zero terminal SNR (Lin et al., WACV 2024): the first step of a sampler then sees pure noise, as in training, and the
# brightness of the result does not lean towards that of the noise.
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)


class RetouchModel(torch.nn.Module):
    """UNet and grid head as one module, so that data-parallel training sees all gradients in one forward.

    Args:
        unet (`UNet2DConditionModel`), grid_head (`AffineGridHead`, *optional*)
        settings: of the pipeline that it is saved as; the forward follows its thumbnail, and the order and signs in
            which the weights know the attributes. Its latents are those of the UNet: over noise `with_offset`.
    """

    def __init__(self, unet: UNet2DConditionModel, grid_head: AffineGridHead | None = None, **settings: Any) -> None:
        super().__init__()
        self.unet, self.grid_head = unet, grid_head
        own = {"attribute_order": list(ATTRIBUTES), "attribute_signs": [1] * 4}
        own |= {"thumbnail": "antialias", "noise_offset": 0.0}
        self.settings = own | settings
        freeze_dead_attention(unet)

    def forward(
        self,
        latents: torch.Tensor,
        view: torch.Tensor,
        photo: torch.Tensor,
        timesteps: torch.Tensor,
        c: torch.Tensor,
        stride: int = 1,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """-> model output for the scheduler (B,4,h,w), every n-th pixel of the retouched photo, not clamped, the grid.

        `view` is the photo as the UNet's thumbnail shows it, see `seen`. Without a grid head the last two are `None`.
        """
        thumbnail = unet_thumbnail(view, self.unet.config, self.settings["thumbnail"])
        c = in_weights_order(c, self.settings["attribute_order"], self.settings["attribute_signs"])
        output, affine_latent = denoise(self.unet, latents, thumbnail, timesteps, c)
        if self.grid_head is None:
            return output, None, None
        grid = self.grid_head(affine_latent)
        return output, self.grid_head.apply_reference(grid, photo[..., ::stride, ::stride]), grid


def build_models(args: argparse.Namespace) -> tuple[RetouchModel, AutoencoderKL | None, Any]:
    """-> model to train, frozen autoencoder if there is one, noise schedule."""
    name = args.pretrained_model_name_or_path
    of_base = {"revision": args.revision, "variant": args.variant}
    own = {} if args.vae else {"subfolder": "vae", **of_base}
    vae = None
    if args.vae or name:
        vae = AutoencoderKL.from_pretrained(args.vae or name, use_safetensors=True, **own).requires_grad_(False)
    side = latent_side(args, vae)
    strides, token_width = (2, 2) if side >= 64 else (2, 1), 5 if args.unknown_share else 4  # 4 is the paper's
    if args.attribute_tokens == 4:
        token_width = 8
    steps = args.default_steps or (20 if name or args.timestep_range else 1)
    settings = {"thumbnail": args.thumbnail, "timestep_range": args.timestep_range, "default_steps": steps}
    settings["noise_offset"] = args.noise_offset or 0.0
    if args.init:
        pipe = load_start(args.init, args.no_grid)
        unet, scheduler = pipe.unet, pipe.scheduler
        kept = ("attribute_order", "attribute_signs", "thumbnail", "timestep_range", "default_steps", "noise_offset")
        settings = {key: pipe.config[key] for key in kept}
        if args.noise_offset not in (None, settings["noise_offset"]):
            raise SystemExit(
                f"`--noise_offset` must be {settings['noise_offset']:g}, with which `--init` {args.init} was trained, "
                f"got {args.noise_offset:g}."
            )
        if vae is None:
            settings["default_steps"] = 1
            if args.no_grid or settings["timestep_range"] or float(scheduler.alphas_cumprod[-1]):
                raise SystemExit(
                    f"`--vae` is needed: `--init` {args.init} begins with more than noise, or has no grid."
                )
        for name in ("clipping_limit", "shoulder"):
            if getattr(args, name) is None:
                setattr(args, name, pipe.config[name])  # the model keeps its own
    elif name:
        base = UNet2DConditionModel.from_pretrained(name, subfolder="unet", use_safetensors=True, **of_base)
        # What its UNet was trained to predict; from pure noise, which "leading" spacing does not begin with
        own = {"subfolder": "scheduler", "revision": args.revision}
        scheduler = DDIMScheduler.from_pretrained(name, timestep_spacing="trailing", clip_sample=False, **own)
        unet = build_retouch_unet(base, cross_attention_dim=token_width, sample_size=side)
        if args.lora_rank:
            add_lora(unet, args.lora_rank)
    else:
        scheduler = DDIMScheduler(**SCHEDULER)
        unet = UNet2DConditionModel(**SMALL_UNET | {"cross_attention_dim": token_width, "sample_size": side})
    args.noise_offset = settings["noise_offset"]  # for card and checkpoints; training goes by the model's
    if args.timestep_range and not args.init:  # the released sampler draws noise in every step
        variance = f"fixed_{args.sampler_variance}"
        scheduler = DDPMScheduler.from_config(scheduler.config, variance_type=variance, clip_sample=False)
    if unet.config.sample_size != side:
        raise SystemExit(
            f"`--resolution` {args.resolution} gives latents of {side} px, the UNet "
            f"takes {unet.config.sample_size} px."
        )
    if args.unknown_share and not knows_the_unknown(unet.config):
        start = f"`--init` {args.init}" if args.init else "the UNet"
        raise SystemExit(f"{start} has no token for unknown attributes: use `--unknown_share 0`.")
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if args.no_grid:
        head = None
    elif args.init:
        head = pipe.grid_head
    else:
        affine_channels = unet.config.out_channels - LATENT_CHANNELS
        form = {"pixel_range": (-1.0, 1.0)} if args.grid_head == "released" else {"residual": True}
        head = AffineGridHead(latent_channels=affine_channels, splat_strides=strides, **form)
    return RetouchModel(unet, head, **settings), vae, scheduler


def latent_side(args: argparse.Namespace, vae: AutoencoderKL | None) -> int:
    """Pixels along the side of the latents of a training crop; without an autoencoder it is small's quarter."""
    return args.resolution // (4 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1))


def load_start(name: str, no_grid: bool) -> DiffRetouchPipeline:
    """A pipeline to go on from, in whatever order and sign its weights know the attributes."""
    pipe = DiffRetouchPipeline.from_pretrained(name)
    if (pipe.grid_head is None) != no_grid:
        raise SystemExit(f"`--init` {name} has {'no' if pipe.grid_head is None else 'a'} grid head: see `--no_grid`.")
    return pipe


def load_teacher(name: str) -> CSRNet | CSRNetL:
    """A frozen CSRNet that reads sRGB, as training does."""
    network = CSRNetPipeline.from_pretrained(name).network.requires_grad_(False)
    if network.config.input_space != "srgb":
        raise SystemExit(f"`--teacher` must read sRGB, {name} reads {network.config.input_space}.")
    return network


def build_pipeline(
    model: RetouchModel, vae: AutoencoderKL | None, scheduler: Any, args: argparse.Namespace, statistics: dict | None
) -> DiffRetouchPipeline:
    """The model as a pipeline; without a grid the autoencoder belongs to it."""
    extra = {"vae": vae} if args.no_grid else {"clipping_limit": args.clipping_limit, "shoulder": args.shoulder}
    unet = model.unet
    if args.lora_rank:
        name = args.pretrained_model_name_or_path
        name = str(Path(name).resolve()) if Path(name).is_dir() else name  # found from any folder
        base = {"base": name, "revision": args.revision, "variant": args.variant}
        unet = merged(unet) if args.lora_save == "merged" else saves_adapter(unet, base)
    return DiffRetouchPipeline(
        unet,
        model.grid_head,
        scheduler,
        sampling_steps=args.sampling_steps,
        label_statistics=statistics,
        **model.settings,
        **extra,
    )
