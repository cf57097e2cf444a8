"""DiffRetouch: controllable retouching with diffusion and affine bilateral grids (AAAI 2025, arXiv 2407.03757)."""

import copy
import inspect
import math
import warnings
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor

from diffretouch.attributes import (
    ATTRIBUTE_SCALES,
    ATTRIBUTES,
    MEASURE_SIZE,
    as_attributes,
    attribute_labels,
    check_statistics,
    measure_attributes,
    quantile_labels,
)
from diffretouch.fitting import is_same_picture, nearest_attributes
from diffretouch.models.affine_grid import AffineGridHead, identity_grid  # noqa: F401 (resolved by from_pretrained)
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    denoise,
    knows_the_unknown,
    seen_photo,
    thumbnail_fold_and_size,
    unet_thumbnail,
)
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pixels import as_float, as_one_array, as_output, as_photos, as_tensor, check_strength, shrink
from diffretouch.regions import as_mask, as_regions, blend
from diffretouch.sliders import Sliders, screen_copy

logger = logging.get_logger(__name__)


@dataclass
class DiffRetouchOutput(BaseOutput):
    """What `DiffRetouchPipeline` returns.

    Args:
        images: the retouched photos at full resolution, photo by photo, sample by sample: a list of PIL images; or
            (N,H,W,3) float32 in [0,1] for "np" and (N,3,H,W) for "pt" (lists where sizes differ).
        grids (`torch.Tensor`): (N,12,D,gh,gw) float32 affine bilateral grids at strength 1, for `apply_grid`; with
            regions (N,1+R,12,D,gh,gw): the grid below the regions, then that of each visible one.
        c (`torch.Tensor`): (N,4) the attributes used, in the order of `ATTRIBUTES`, NaN where they were unknown; with
            regions (N,1+R,4).
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
        vae (`AutoencoderKL`, *optional*): encodes training targets. For inference only where `grid_head` is `None`, as
            in the paper's ablation: the denoised latents are decoded and enlarged to the photo's size.
        attribute_order (4 `str`): the order of c in the weights; the public order is `ATTRIBUTES`.
        attribute_signs (4 `int`): +1, or -1 where the weights' attribute runs the other way (in the weights' order).
        attribute_scales (4 `float`): one unit of c in each attribute (public order), see `attribute_labels`.
        thumbnail (`str`): "area" or "nearest", how the UNet's thumbnail is made.
        timestep_range (2 `int`, *optional*): use only these timesteps, spaced as in the released sampler.
        default_steps (`int`): `num_inference_steps` when none is given.
        sampling_steps (`int`, *optional*): those for several samples of unknown attributes, which differ only where
            something is denoised; `None` for `default_steps`.
        label_statistics (`dict`, *optional*): of a model whose c are quantiles, see `quantile_labels`.
        clipping_limit (`float`, *optional*): the share of the photo that a retouch may drive to either end of the
            range before all of it is squeezed, in [0,1), see `AffineGridHead.keep_in_range`; `None` for no limit.
    """

    model_cpu_offload_seq = "unet->grid_head"
    _optional_components = ["vae", "grid_head"]
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
        sampling_steps=None,
        label_statistics=None,
        clipping_limit=None,
    ):
        super().__init__()
        if sorted(attribute_order) != sorted(ATTRIBUTES):
            raise ValueError(f"`attribute_order` must be a permutation of {ATTRIBUTES}, got {tuple(attribute_order)}.")
        if len(attribute_signs) != 4 or any(sign not in (1, -1) for sign in attribute_signs):
            raise ValueError(f"`attribute_signs` must be four of 1 or -1, got {attribute_signs!r}.")
        if grid_head is None and vae is None:
            raise ValueError("`grid_head` must be given, or a `vae` that decodes the latents instead.")
        if label_statistics is not None:
            check_statistics(label_statistics)
        if clipping_limit is not None and not 0 <= clipping_limit < 1:
            raise ValueError(f"`clipping_limit` must lie in [0, 1) or be None, got {clipping_limit!r}.")
        self.register_modules(unet=unet, grid_head=grid_head, scheduler=scheduler, vae=vae)
        self.register_to_config(
            attribute_order=list(attribute_order),
            attribute_signs=list(attribute_signs),
            attribute_scales=list(attribute_scales),
            thumbnail=thumbnail,
            timestep_range=timestep_range and list(timestep_range),
            default_steps=default_steps,
            sampling_steps=sampling_steps,
            label_statistics=label_statistics,
            clipping_limit=clipping_limit,
        )

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """Load a pipeline: "small" (bundled), a directory, or a Hub id. Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, name, {"small": "small"}, **kwargs)

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
        regions=None,
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
            c: attributes in the order of `ATTRIBUTES`, in [-1,1], see `as_attributes`: one row for all photos, one row
                per photo, or for a single photo any number of rows (then each row makes one result). `None`: they are
                unknown; the noise decides among the finishes that experts would give the photo, where the model was
                trained so and takes several steps. Zeros: the usual finish.
            regions (list of pairs (mask, c), *optional*): other attributes in parts of the photo: masks of any size,
                see `as_mask`, each with one row of c. All grids come from one batched sampling with the same noise and
                are blended per pixel. Regions lie over each other, the last on top, over what `c` gives; a region
                under a full mask is left out. Several photos share the masks.
            strength (`float`): 0 returns the photo, 1 the model's retouch, values between mix them exactly; up to 2.
            num_inference_steps (`int`, *optional*): denoising steps. Defaults to the model's own: `default_steps`, or
                `sampling_steps` for several samples of unknown attributes.
            num_samples (`int`): results per photo (and row of c), from different noise.
            generator (`torch.Generator` or list of them, *optional*): source of all noise; a list gives every result
                its own. CPU generators give the same picture on every device.
            latents (`torch.Tensor`, *optional*): (N,4,h,w) start noise instead of a drawn one.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images, grids, c).
            callback_on_step_end: called as (pipeline, step, timestep, tensors) after each step; may return a dict with
                new "latents". With regions, the rows of a result's regions stand together.

        Returns:
            [`DiffRetouchOutput`]

        Example:
            >>> pipe = DiffRetouchPipeline.from_pretrained("small")
            >>> pipe(image, c={"brightness": 0.5}, generator=torch.Generator().manual_seed(0)).images[0]
        """
        # 1. Check everything before any work is done
        steps = self._steps(num_inference_steps, c, num_samples)
        self.check_inputs(strength, steps, num_samples, output_type, callback_on_step_end_tensor_inputs)
        photos = as_photos(image)
        c, regions = _with_regions(c, regions)

        # 2. Predict the grids from thumbnails
        thumbnails, callback_inputs = self._thumbnails(photos), callback_on_step_end_tensor_inputs
        grids, c = self._predict_grids(
            thumbnails, c, steps, num_samples, generator, latents, callback_on_step_end, callback_inputs, regions
        )  # (N,12,D,gh,gw), (N,4); with regions (N,1+R,12,D,gh,gw), (N,1+R,4)

        # 3. Slice them against the photos at full resolution
        repeats = len(grids) // len(photos)
        images = []
        for n, grid in enumerate(grids):
            photo = photos[n // repeats]
            if output_type != "pil" and isinstance(photo, np.ndarray):
                photo = as_float(photo)  # nothing is rounded on the way to "np" and "pt"
            images.append(as_output(self._apply_regions(photo, grid, regions, strength), output_type))

        # 4. One array where the sizes allow it
        images = images if output_type == "pil" else as_one_array(images)
        self.maybe_free_model_hooks()
        return DiffRetouchOutput(images, grids, c) if return_dict else (images, grids, c)

    @torch.no_grad()
    def predict_grid(
        self, image, c=None, *, regions=None, num_inference_steps=None, num_samples=1, generator=None, latents=None
    ):  # fmt: skip
        """The grids alone: for other sizes of the same photo, a series, or a film. As `__call__`.

        Returns:
            `torch.Tensor`: (N,12,D,gh,gw); with regions (N,1+R,12,D,gh,gw), for `apply_grid` with the same regions.
        """
        steps = self._steps(num_inference_steps, c, num_samples)
        self.check_inputs(1.0, steps, num_samples, "pt", ())
        c, regions = _with_regions(c, regions)
        thumbnails = self._thumbnails(as_photos(image))
        return self._predict_grids(thumbnails, c, steps, num_samples, generator, latents, regions=regions)[0]

    def _steps(self, asked, c=(), num_samples=1):
        """Denoising steps: those asked for, or the model's own."""
        if asked is not None:
            return asked
        several = c is None and num_samples > 1 and knows_the_unknown(self.unet.config)
        return (self.config.sampling_steps if several else None) or self.config.default_steps

    def _predict_grids(
        self, thumbnails, c, steps, num_samples=1, generator=None, latents=None, callback=None, callback_inputs=(),
        regions=None,
    ):  # fmt: skip
        device, dtype, config = self._execution_device, self.unet.dtype, self.unet.config

        # 1. Attributes in the weights' order and sign
        if c is None and knows_the_unknown(config):
            c = torch.full((len(thumbnails), len(ATTRIBUTES)), torch.nan)
        else:
            c = as_attributes(c, batch_size=len(thumbnails) if len(thumbnails) > 1 else None)  # (B,4)
        c = c.repeat_interleave(num_samples, 0)  # (N,4)
        results, layers = len(c), 1 + len(regions or ())
        if regions is not None:  # the regions' rows stand below the row of their result
            c = torch.stack([c] + [own.expand(results, -1) for _, own in regions], 1).flatten(0, 1)  # (N(1+R),4)
        order = [ATTRIBUTES.index(name) for name in self.config.attribute_order]
        own_c = (c[:, order] * c.new_tensor(self.config.attribute_signs)).to(device)

        # 2. One thumbnail per result: all that the UNet sees of the photo
        thumbnail = thumbnails.to(device).repeat_interleave(len(c) // len(thumbnails), 0)  # (N,C,h,w)

        # 3. Timesteps and start noise
        timesteps = self._set_timesteps(steps, device)
        shape = (results, LATENT_CHANNELS, config.sample_size, config.sample_size)
        if isinstance(generator, list) and len(generator) != results:
            raise ValueError(f"`generator` must be one or a list of {results}, got {len(generator)}.")
        if latents is None:
            generator = generator or torch.Generator().manual_seed(torch.seed())
            latents = randn_tensor(shape, generator, device)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must have shape {shape}, got {tuple(latents.shape)}.")
        latents = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        if layers > 1:
            latents = latents.repeat_interleave(layers, 0)
            generator = _one_generator_per_row(generator, results, layers)

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
        if self.grid_head is None:  # what stands for the grid is a small retouched picture (N,3,h,w)
            latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
            grids = self.vae.decode(latents).sample.float() / 2 + 0.5
        else:
            grids = self.grid_head(affine_latent.to(self.grid_head.dtype)).float()
            if self.config.clipping_limit is not None:
                seen = seen_photo(thumbnail, config)
                grids = self.grid_head.keep_in_range(grids, seen, self.config.clipping_limit)
        if not grids.isfinite().all():
            raise ValueError(
                "The model made a grid that is not finite: its weights are broken or overflow their dtype."
            )
        if regions is not None:
            return grids.unflatten(0, (results, layers)), c.unflatten(0, (results, layers))
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
    def apply_grid(self, image, grid, strength=1.0, *, regions=None, out=None):
        """Retouch a photo of any size with a grid from `predict_grid`.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            grid (`torch.Tensor`): (1,12,D,gh,gw) or (12,D,gh,gw); with regions (1,1+R,12,D,gh,gw) or without the 1.
            strength (`float`): see `__call__`.
            regions (*optional*): those that `predict_grid` was given.
            out (array, *optional*): written to instead of a new array, for array input.

        Returns:
            The retouched photo in the form it came: PIL image, array of the same dtype, or tensor. Integer pixels are
            rounded and limited to their range; floats are not limited.
        """
        if self.grid_head is None:
            raise ValueError("`apply_grid` needs a grid, and this model was trained without one.")
        check_strength(strength)
        photo = _one_photo("image", image)
        if out is not None and torch.is_tensor(photo):
            raise ValueError("`out` is for array input, got a tensor as `image`.")
        _, regions = _with_regions(None, regions)
        form = (12,) if regions is None else (1 + len(regions), 12)
        one = grid[0] if grid.ndim == 4 + len(form) and len(grid) == 1 else grid
        if one.ndim != 3 + len(form) or one.shape[: len(form)] != form:
            form = ",".join(map(str, form))
            raise ValueError(f"`grid` must have shape (1,{form},D,gh,gw), got {tuple(grid.shape)}.")
        result = self._apply_regions(photo, one, regions, strength, out)
        if isinstance(image, PIL.Image.Image):
            return PIL.Image.fromarray(result)
        return result if getattr(image, "ndim", 3) == 3 else result[None]

    def _apply_regions(self, photo, grid, regions, strength, out=None):
        """One pass for each grid (1+R,12,D,gh,gw), each blended over those before; without regions (12,D,gh,gw)."""
        if not regions:
            return self._apply(photo, grid[None] if regions is None else grid, strength, out)
        is_array = isinstance(photo, np.ndarray)
        aside = is_array and out is not None and np.may_share_memory(photo, out)  # every pass reads the photo
        result = self._apply(photo, grid[:1], strength, None if aside else out)
        size, layer = (photo.shape[:2] if is_array else photo.shape[1:]), None
        for (mask, _), own in zip(regions, grid[1:], strict=True):
            layer = self._apply(photo, own[None], strength, layer if is_array else None)
            blend(result, layer, as_mask(mask, size))
        if aside:
            out[...] = result
            return out
        return result

    def _apply(self, photo, grid, strength, out=None):
        """(H,W,3) array -> array of its dtype, (3,H,W) tensor -> float32 tensor."""
        if self.grid_head is None:
            return _enlarge(photo, grid, strength)
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
        if self.grid_head is None:
            raise ValueError("`sliders` interpolate grids, and this model was trained without one.")
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
        self, image, reference, *, iterations=8, limit=2.0, num_inference_steps=None, generator=None
    ):  # fmt: skip
        """The c with which the retouched `image` has the attributes of `reference`, and its look.

        The model stands in the loop: from c = 0, the labels of the reference relative to the model's own result are
        added to c, and the c whose result came closest is kept. A model of quantile labels (`label_statistics`) starts
        from the reference's. Usually `reference` is another version of the same photo, such as an expert's: where it
        is (same shape, same structure), four scores leave open much that its pixels say, and the c near by whose
        result has the least CIELAB difference to it is returned. A crop, or another photo, is matched by scores alone.

        Args:
            image: one photo, in any form that `__call__` takes.
            reference: one photo, of any size.
            iterations (`int`): how often the model is run for the scores, and at most how many steps follow for the
                pixels, of five runs each.
            limit (`float`): c stays in [-limit, limit], at most 3.
            num_inference_steps, generator: as in `__call__`; every run uses the same noise.

        Returns:
            `torch.Tensor`: (4,) in the order of `ATTRIBUTES`.
        """
        _check_count("iterations", iterations, 100)
        if not 0 < limit <= 3:
            raise ValueError(f"`limit` must lie in (0, 3], got {limit!r}.")
        steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        self.check_inputs(1.0, steps, 1, "pt", ())
        photo = _one_photo("image", image)
        thumbnails, small = self._thumbnails([photo]), shrink(as_tensor(photo), MEASURE_SIZE).cpu()
        reference = as_tensor(_one_photo("reference", reference)).cpu().clamp(0, 1)
        generator = generator or torch.Generator().manual_seed(0)
        state = generator.get_state()

        def retouch(c):  # (K,4) -> (K,3,h,w), the same noise each time: only c moves
            noise = [torch.Generator(generator.device).set_state(state) for _ in c]
            grids, _ = self._predict_grids(thumbnails, c, steps, generator=noise)
            return torch.stack([self._apply(small[0], grid[None], 1.0).clamp(0, 1).cpu() for grid in grids])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about extrapolation, which `limit` allows
            c = self._match_scores(retouch, measure_attributes(reference), iterations, limit)
            if is_same_picture(small, reference):
                c = nearest_attributes(retouch, small, reference, c, limit=limit, iterations=iterations)
        return c

    def _match_scores(self, retouch, wanted, iterations, limit):
        """c (4,) whose result's scores come closest to the `wanted` ones (1,4)."""
        statistics = self.config.label_statistics
        c, gain, before, best = torch.zeros(4), torch.ones(4), torch.zeros(4), (math.inf, None)
        if statistics is not None:
            c = quantile_labels(wanted, statistics)[0].clamp(-limit, limit)
        for _ in range(iterations):
            scores = measure_attributes(retouch(c[None]))
            if statistics is None:
                scales = self.config.attribute_scales
                missing = attribute_labels(wanted[:, None], scores, scales=scales, limit=3.0)[0, 0]
            else:
                reached, asked = (quantile_labels(s, statistics, limit=3.0)[0] for s in (scores, wanted))
                missing = asked - reached
            distance = missing.square().sum().item()
            if distance < best[0]:
                best = distance, c
            gain[missing * before < 0] *= 0.5  # what overshot takes half a step from now on
            c, before = (c + gain * missing).clamp(-limit, limit), missing
        return best[1]


def _enlarge(photo, picture, strength):
    """A small retouched picture (1,3,h,w) in the size of a photo (H,W,3) or (3,H,W), mixed with it."""
    is_array = isinstance(photo, np.ndarray)
    full = torch.from_numpy(as_float(photo)).permute(2, 0, 1) if is_array else photo.to(picture.device, torch.float32)
    picture = torch.nn.functional.interpolate(picture, full.shape[1:], mode="bicubic", antialias=True)[0]
    result = torch.lerp(full, picture.to(full.device), float(strength))
    if not is_array:
        return result
    result = result.permute(1, 2, 0).numpy()
    if photo.dtype == np.float32:
        return result
    top = np.iinfo(photo.dtype).max
    return np.round(result.clip(0, 1) * top).astype(photo.dtype)


def _one_photo(name, image):
    photos = as_photos(image)
    if len(photos) != 1:
        raise ValueError(f"`{name}` must be one photo, got {len(photos)}.")
    return photos[0]


def _with_regions(c, regions):
    """(c, regions) with what is hidden left out; `None` stays `None`."""
    if regions is None:
        return c, None
    below, visible = as_regions(regions)
    if below is not None:
        c = below.expand(len(as_attributes(c)), -1)  # as many results as the hidden c would have made
    return c, visible


def _one_generator_per_row(generator, results, layers):
    """The noise of stochastic schedulers: rows of one result draw the same, as copies of its generator."""
    if not isinstance(generator, list):
        one = generator or torch.Generator().manual_seed(torch.seed())
        draw = lambda: torch.randint(2**62, (), generator=one, device=one.device).item()  # noqa: E731
        seeded = lambda: torch.Generator(one.device).manual_seed(draw())  # noqa: E731
        generator = [one] if results == 1 else [seeded() for _ in range(results)]
    copied = lambda one: torch.Generator(one.device).set_state(one.get_state())  # noqa: E731
    return [row for one in generator for row in [one] + [copied(one) for _ in range(layers - 1)]]


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
