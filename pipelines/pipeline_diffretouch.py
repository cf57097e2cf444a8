"""DiffRetouch: controllable retouching with diffusion and affine bilateral grids (AAAI 2025, arXiv 2407.03757)."""

import copy
import inspect
import math
import os
import warnings
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor

from diffretouch.attributes import (
    ATTRIBUTE_SCALES,
    ATTRIBUTES,
    as_attributes,
    attribute_labels,
    measure_attributes,
)
from diffretouch.models.affine_grid import AffineGridHead, identity_grid  # noqa: F401 (resolved by from_pretrained)
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    denoise,
    thumbnail_fold_and_size,
    unet_thumbnail,
)
from diffretouch.pixels import as_float, as_output, as_photos, as_tensor, check_strength, shrink
from diffretouch.sliders import Sliders, screen_copy

logger = logging.get_logger(__name__)


@dataclass
class DiffRetouchOutput(BaseOutput):
    """What `DiffRetouchPipeline` returns.

    Args:
        images: the retouched photos at full resolution, photo by photo, sample by sample: a list of PIL images; or
            (N,H,W,3) float32 in [0,1] for "np" and (N,3,H,W) for "pt" (lists where sizes differ).
        grids (`torch.Tensor`): (N,12,D,gh,gw) float32 affine bilateral grids at strength 1, for `apply_grid`.
        c (`torch.Tensor`): (N,4) the attributes used, in the order of `ATTRIBUTES`.
    """

    images: list | np.ndarray | torch.Tensor
    grids: torch.Tensor
    c: torch.Tensor


class DiffRetouchPipeline(DiffusionPipeline):
    r"""Retouch photos, steered by colorfulness, contrast, temperature and brightness in [-1,1].

    A UNet denoises a small latent of the retouched photo while looking at a thumbnail of the photo and at the
    attributes c; beside the noise it emits an affine latent, from which the head makes an affine bilateral grid. The
    grid of the last step is sliced against the photo at full resolution, so no texture is synthesised.

    Args:
        unet (`UNet2DConditionModel`): sees latent ++ thumbnail, emits model output ++ affine latent.
        grid_head (`AffineGridHead`): affine latent -> grid, photo -> guide.
        scheduler: any diffusers scheduler.
        vae (`AutoencoderKL`, *optional*): encodes training targets; not used for inference.
        attribute_order (4 `str`): the order of c in the weights; the public order is `ATTRIBUTES`.
        attribute_signs (4 `int`): +1, or -1 where the weights' attribute runs the other way (in the weights' order).
        attribute_scales (4 `float`): one unit of c in each attribute (public order), see `attribute_labels`.
        thumbnail (`str`): "area" or "nearest", how the UNet's thumbnail is made.
        timestep_range (2 `int`, *optional*): use only these timesteps, spaced as in the released sampler.
        default_steps (`int`): `num_inference_steps` when none is given.
    """

    model_cpu_offload_seq = "unet->grid_head"
    _optional_components = ["vae"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        unet,
        grid_head,
        scheduler,
        vae=None,
        attribute_order=ATTRIBUTES,
        attribute_signs=(1, 1, 1, 1),
        attribute_scales=ATTRIBUTE_SCALES,
        thumbnail="area",
        timestep_range=None,
        default_steps=20,
    ):
        super().__init__()
        if sorted(attribute_order) != sorted(ATTRIBUTES):
            raise ValueError(f"`attribute_order` must be a permutation of {ATTRIBUTES}, got {tuple(attribute_order)}.")
        if len(attribute_signs) != 4 or any(sign not in (1, -1) for sign in attribute_signs):
            raise ValueError(f"`attribute_signs` must be four of 1 or -1, got {attribute_signs!r}.")
        self.register_modules(unet=unet, grid_head=grid_head, scheduler=scheduler, vae=vae)
        self.register_to_config(
            attribute_order=list(attribute_order),
            attribute_signs=list(attribute_signs),
            attribute_scales=list(attribute_scales),
            thumbnail=thumbnail,
            timestep_range=timestep_range and list(timestep_range),
            default_steps=default_steps,
        )

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """Load a pipeline: "small" (bundled), a directory, or a Hub id. Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        path = str(name)
        if path == "small":
            path = str(files("diffretouch") / "weights" / "small")
        elif os.path.isfile(path):
            raise ValueError(
                f"`name` must be a model directory, a Hub id or 'small', got the file {path}; a released "
                "checkpoint is converted with `diffretouch convert`."
            )
        elif not os.path.isdir(path):
            path = _download(path, {k: kwargs.pop(k) for k in _HUB_ARGUMENTS if k in kwargs})
        if not os.path.isfile(os.path.join(path, "model_index.json")):
            raise ValueError(f"`name`: {path} holds no model (no model_index.json).")
        try:
            return super().from_pretrained(path, **{"use_safetensors": True, **kwargs})
        except Exception as error:  # diffusers raises many types for a broken folder: one clear sentence for all
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"`name`: the model in {path} cannot be loaded: {reason}") from error

    def check_inputs(self, strength, num_inference_steps, num_samples, output_type, callback_tensor_inputs):
        check_strength(strength)
        _check_count("num_inference_steps", num_inference_steps, self.scheduler.config.num_train_timesteps)
        _check_count("num_samples", num_samples, 1024)
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'`output_type` must be "pil", "np" or "pt", got {output_type!r}.')
        unknown = set(callback_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` may name {self._callback_tensor_inputs}, got {sorted(unknown)}."
            )

    @torch.no_grad()
    def __call__(
        self,
        image,
        c=None,
        *,
        strength=1.0,
        num_inference_steps=None,
        num_samples=1,
        generator=None,
        latents=None,
        output_type="pil",
        return_dict=True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs=("latents",),
    ):
        r"""Retouch one photo or several.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            c: attributes, see `as_attributes`: one row for all photos, one row per photo, or for a single photo any
                number of rows (then each row makes one result).
            strength (`float`): 0 returns the photo, 1 the model's retouch, values between mix them exactly; up to 2.
            num_inference_steps (`int`, *optional*): denoising steps. Defaults to the model's own.
            num_samples (`int`): results per photo (and row of c), from different noise.
            generator (`torch.Generator` or list of them, *optional*): source of all noise; a list gives every result
                its own. CPU generators give the same picture on every device.
            latents (`torch.Tensor`, *optional*): (N,4,h,w) start noise instead of a drawn one.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images, grids, c).
            callback_on_step_end: called as (pipeline, step, timestep, tensors) after each step; may return a dict with
                new "latents".

        Returns:
            [`DiffRetouchOutput`]

        Example:
            >>> pipe = DiffRetouchPipeline.from_pretrained("small")
            >>> pipe(image, c={"brightness": 0.5}, generator=torch.Generator().manual_seed(0)).images[0]
        """
        # 1. Check everything before any work is done
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        self.check_inputs(strength, steps, num_samples, output_type, callback_on_step_end_tensor_inputs)
        photos = as_photos(image)

        # 2. Predict the grids from thumbnails
        thumbnails, callback_inputs = self._thumbnails(photos), callback_on_step_end_tensor_inputs
        grids, c = self._predict_grids(
            thumbnails, c, steps, num_samples, generator, latents, callback_on_step_end, callback_inputs
        )  # (N,12,D,gh,gw), (N,4)

        # 3. Slice them against the photos at full resolution
        repeats = len(grids) // len(photos)
        images = []
        for n, grid in enumerate(grids):
            photo = photos[n // repeats]
            if output_type != "pil" and isinstance(photo, np.ndarray):
                photo = as_float(photo)  # nothing is rounded on the way to "np" and "pt"
            images.append(as_output(self._apply(photo, grid[None], strength), output_type))

        # 4. One array where the sizes allow it
        if output_type != "pil" and len({i.shape for i in images}) == 1:
            images = np.stack(images) if output_type == "np" else torch.stack(images)
        self.maybe_free_model_hooks()
        return DiffRetouchOutput(images, grids, c) if return_dict else (images, grids, c)

    @torch.no_grad()
    def predict_grid(
        self, image, c=None, *, num_inference_steps=None, num_samples=1, generator=None, latents=None
    ):  # fmt: skip
        """The grids (N,12,D,gh,gw) alone: for other sizes of the same photo, a series, or a film. As `__call__`."""
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        self.check_inputs(1.0, steps, num_samples, "pt", ())
        thumbnails = self._thumbnails(as_photos(image))
        return self._predict_grids(thumbnails, c, steps, num_samples, generator, latents)[0]

    def _predict_grids(
        self, thumbnails, c, steps, num_samples=1, generator=None, latents=None, callback=None, callback_inputs=()
    ):
        device, dtype, config = self._execution_device, self.unet.dtype, self.unet.config

        # 1. Attributes in the weights' order and sign
        c = as_attributes(c, batch_size=len(thumbnails) if len(thumbnails) > 1 else None)  # (B,4)
        c = c.repeat_interleave(num_samples, 0)  # (N,4)
        order = [ATTRIBUTES.index(name) for name in self.config.attribute_order]
        own_c = (c[:, order] * c.new_tensor(self.config.attribute_signs)).to(device)

        # 2. One thumbnail per result: all that the UNet sees of the photo
        thumbnail = thumbnails.to(device).repeat_interleave(len(c) // len(thumbnails), 0)  # (N,C,h,w)

        # 3. Timesteps and start noise
        timesteps = self._set_timesteps(steps, device)
        shape = (len(c), LATENT_CHANNELS, config.sample_size, config.sample_size)
        if isinstance(generator, list) and len(generator) != len(c):
            raise ValueError(f"`generator` must be one or a list of {len(c)}, got {len(generator)}.")
        if latents is None:
            generator = generator or torch.Generator().manual_seed(torch.seed())
            latents = randn_tensor(shape, generator, device)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must have shape {shape}, got {tuple(latents.shape)}.")
        latents = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma

        # 4. Denoise; every call also emits an affine latent, of which only the last is used
        accepted = inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if "generator" in accepted else {}
        with self.progress_bar(total=len(timesteps)) as bar:
            for i, t in enumerate(timesteps):
                x = self.scheduler.scale_model_input(latents, t)
                noise, affine_latent = denoise(self.unet, x, thumbnail, t, own_c, dtype=dtype)
                latents = self.scheduler.step(noise.float(), t, latents, **extra).prev_sample  # (N,4,h,w)
                if callback is not None:
                    tensors = {}
                    for name in callback_inputs:
                        tensors[name] = locals()[name]
                    latents = (callback(self, i, t, tensors) or {}).get("latents", latents)
                bar.update()

        # 5. Affine latent -> grid
        grids = self.grid_head(affine_latent.to(self.grid_head.dtype)).float()
        if not grids.isfinite().all():
            raise ValueError(
                "The model made a grid that is not finite: its weights are broken or overflow their dtype."
            )
        return grids, c

    def _thumbnails(self, photos):
        return torch.cat([self._thumbnail(photo) for photo in photos])  # (B,C,h,w)

    def _thumbnail(self, photo):
        if self.config.thumbnail == "nearest" and isinstance(photo, np.ndarray):
            # The very pixels that released weights expect, before a huge photo becomes float
            _, size = thumbnail_fold_and_size(self.unet.config)
            rows, columns = (np.arange(size) * side // size for side in photo.shape[:2])
            photo = photo[rows[:, None], columns]
        return unet_thumbnail(as_tensor(photo), self.unet.config, self.config.thumbnail)

    def _set_timesteps(self, steps, device):
        span = self.config.timestep_range
        if span is None:
            self.scheduler.set_timesteps(steps, device=device)
        elif "timesteps" in inspect.signature(self.scheduler.set_timesteps).parameters:
            self.scheduler.set_timesteps(timesteps=spaced_timesteps(steps, *span), device=device)
        else:
            logger.warning(
                f"{type(self.scheduler).__name__} takes no timesteps of the caller's: it runs over its own, not only "
                f"{span[0]} to {span[1]}, for which the model was made."
            )
            self.scheduler.set_timesteps(steps, device=device)
        return self.scheduler.timesteps

    @torch.no_grad()
    def apply_grid(self, image, grid, strength=1.0, *, out=None):
        """Retouch a photo of any size with a grid from `predict_grid`.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            grid (`torch.Tensor`): (1,12,D,gh,gw) or (12,D,gh,gw).
            strength (`float`): see `__call__`.
            out (array, *optional*): written to instead of a new array, for array input.

        Returns:
            The retouched photo in the form it came: PIL image, array of the same dtype, or tensor. Integer pixels are
            rounded and limited to their range; floats are not limited.
        """
        check_strength(strength)
        photo = _one_photo("image", image)
        if out is not None and torch.is_tensor(photo):
            raise ValueError("`out` is for array input, got a tensor as `image`.")
        grid = grid[None] if grid.ndim == 4 else grid
        if grid.ndim != 5 or grid.shape[:2] != (1, 12):
            raise ValueError(f"`grid` must have shape (1,12,D,gh,gw), got {tuple(grid.shape)}.")
        result = self._apply(photo, grid, strength, out)
        if isinstance(image, PIL.Image.Image):
            return PIL.Image.fromarray(result)
        return result if getattr(image, "ndim", 3) == 3 else result[None]

    def _apply(self, photo, grid, strength, out=None):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        grid = grid.to(self.grid_head.device, torch.float32)
        identity = identity_grid(1, device=grid.device)[:, :, :1, :1, :1]
        grid = torch.lerp(identity.expand_as(grid), grid, float(strength))
        if isinstance(photo, np.ndarray):
            return self.grid_head.apply(grid, photo, out=out)
        return self.grid_head.apply(grid, photo[None].to(grid.device, torch.float32))[0]

    def preview(
        self, image, c=None, *, size=1024, strength=1.0, num_inference_steps=None, generator=None
    ):  # fmt: skip
        """The retouch of a screen-sized copy: the grid is that of the whole photo, only fewer pixels are retouched.

        Args:
            image: one photo, in any form that `__call__` takes.
            c: one row of attributes, see `as_attributes`.
            size (`int`): the most pixels along the long side; the copy is area-averaged, never enlarged.
            strength, num_inference_steps, generator: as in `__call__`.

        Returns:
            `PIL.Image.Image`
        """
        check_strength(strength)
        photo = _one_photo("image", image)
        shown = screen_copy(photo, size)
        grids = self.predict_grid(photo, c, num_inference_steps=num_inference_steps, generator=generator)
        if len(grids) != 1:
            raise ValueError(f"`c` must be one row, got {len(grids)}.")
        return PIL.Image.fromarray(self.apply_grid(shown, grids, strength))

    def sliders(self, image, *, size=1024, num_inference_steps=None, generator=None, background=False):
        """The retouch of one photo at any c, at once: for sliders that follow the hand.

        Samples 25 grids with one noise; what lies between is interpolated, see [`Sliders`]. The pipeline can be used
        and its scheduler changed meanwhile.

        Args:
            image: one photo, in any form that `__call__` takes.
            size (`int`, *optional*): the most pixels along the long side of what is shown, `None` for the photo's own.
            num_inference_steps (`int`, *optional*): as in `__call__`.
            generator (`torch.Generator`, *optional*): source of the noise. Its state is copied: it does not advance.
            background (`bool`): return as soon as c = 0 is sampled, and sample the rest in a thread.

        Returns:
            [`Sliders`]

        Example:
            >>> sliders = pipe.sliders(image, generator=torch.Generator().manual_seed(0))
            >>> sliders({"brightness": 0.4}).show()
            >>> pipe.apply_grid(image, sliders.grid({"brightness": 0.4})).save("retouched.jpg")
        """
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        self.check_inputs(1.0, steps, 1, "pil", ())
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` must be a torch.Generator or None, got {type(generator).__name__}.")
        photo = _one_photo("image", image)
        shown = screen_copy(photo, size)
        thumbnails = self._thumbnails([photo])
        generator = generator or torch.Generator().manual_seed(torch.seed())
        device, state = generator.device, generator.get_state()
        scheduler = copy.deepcopy(self.scheduler)

        @torch.no_grad()
        def sample(c):
            # Schedulers keep the state of a run: every run has its own, so that runs in several threads do not mix.
            sampler = copy.copy(self)
            sampler.scheduler = copy.deepcopy(scheduler)
            sampler.set_progress_bar_config(disable=True)
            noise = [torch.Generator(device).set_state(state) for _ in c]
            return sampler._predict_grids(thumbnails, c, steps, generator=noise)[0]

        return Sliders(sample, self.grid_head, shown, background=background)

    @torch.no_grad()
    def attributes_of(
        self, image, reference, *, iterations=6, limit=1.5, num_inference_steps=None, generator=None
    ):  # fmt: skip
        """The c with which the retouched `image` has the attributes of `reference`.

        Usually `reference` is another version of the same photo, such as an expert's. The model stands in the loop:
        from c = 0, the labels of the reference relative to the model's own result are added to c, and the c whose
        result came closest is returned.

        Args:
            image: one photo, in any form that `__call__` takes.
            reference: one photo, of any size.
            iterations (`int`): how often the model is run.
            limit (`float`): c stays in [-limit, limit], at most 3.
            num_inference_steps, generator: as in `__call__`; every run uses the same noise.

        Returns:
            `torch.Tensor`: (4,) in the order of `ATTRIBUTES`.
        """
        _check_count("iterations", iterations, 100)
        if not 0 < limit <= 3:
            raise ValueError(f"`limit` must lie in (0, 3], got {limit!r}.")
        photo = shrink(as_tensor(_one_photo("image", image)), 256)
        wanted = measure_attributes(as_tensor(_one_photo("reference", reference)).clamp(0, 1))
        generator = generator or torch.Generator().manual_seed(0)
        state = generator.get_state()
        c, best = torch.zeros(4), (math.inf, None)
        for _ in range(iterations):
            noise = torch.Generator(generator.device).set_state(state)  # the same each time: only c moves
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about extrapolation, which `limit` allows
                grid = self.predict_grid(photo, c, num_inference_steps=num_inference_steps, generator=noise)
            result = self.grid_head.apply(grid, photo.to(grid.device)).clamp(0, 1)
            missing = attribute_labels(
                wanted[:, None], measure_attributes(result).cpu(), scales=self.config.attribute_scales, limit=3.0
            )[0, 0]
            distance = missing.square().sum().item()
            if distance < best[0]:
                best = distance, c
            c = (c + missing).clamp(-limit, limit)
        return best[1]


_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


def _download(name, arguments):
    """The local folder of a Hub model: json and safetensors files only, whatever else the repository holds."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **arguments)
    except HFValidationError as error:
        raise ValueError(f"`name` must be 'small', a directory or a Hub id, got {name!r}.") from error
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"`name`: {name!r} is neither a directory nor a Hub model that can be reached: {reason}"
        ) from error


def _one_photo(name, image):
    photos = as_photos(image)
    if len(photos) != 1:
        raise ValueError(f"`{name}` must be one photo, got {len(photos)}.")
    return photos[0]


def _check_count(name, value, most):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise ValueError(f"`{name}` must be an integer in 1..{most}, got {value!r}.")


def spaced_timesteps(steps, first=200, last=999):
    """The released sampler's timesteps: `steps` of them spread over [first, last], descending.

    The positions are accumulated in floating point and rounded to even, as there: for some odd numbers of steps this
    differs by one from rounding exact positions.
    """
    most = last - first + 1
    if steps > most:
        raise ValueError(f"`num_inference_steps` must be at most {most} with timesteps {first}..{last}, got {steps}.")
    if steps == 1:
        return [last]
    stride, position, timesteps = (last - first) / (steps - 1), 0.0, []
    for _ in range(steps):
        timesteps.append(first + round(position))
        position += stride
    return timesteps[::-1]
