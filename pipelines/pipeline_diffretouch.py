"""DiffRetouch: controllable retouching with diffusion and affine bilateral grids (AAAI 2025, arXiv 2407.03757)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import BaseOutput

from diffretouch.attributes import ATTRIBUTE_SCALES, ATTRIBUTES, MEASURE_SIZE, Attributes, check_statistics
from diffretouch.fitting import nearest_c
from diffretouch.models.affine_grid import AffineGridHead
from diffretouch.models.unet import knows_the_unknown
from diffretouch.pipelines.layers import apply_grid, apply_layers, apply_one
from diffretouch.pipelines.pretrained import load_pretrained
from diffretouch.pipelines.sampler import (
    check_callback,
    check_count,
    check_timestep_range,
    checked_run,
    grids_from_one_noise,
    predict_grids,
)
from diffretouch.pixels import (
    OnePhoto,
    Photos,
    SamePhoto,
    as_float,
    as_one_array,
    as_output,
    as_photos,
    as_tensor,
    check_output_type,
    check_strength,
    checked_out,
    in_the_form_of,
    is_number,
    one_photo,
    photos_and_origins,
    shrink,
)
from diffretouch.sliders import Sliders, screen_copy


@dataclass
class DiffRetouchOutput(BaseOutput):
    """What `DiffRetouchPipeline` returns.

    Args:
        images: the retouched photos at full resolution, photo by photo, sample by sample: a list of PIL images; or
            (N,H,W,3) float32 in [0,1] for "np" and (N,3,H,W) for "pt" (lists where sizes differ).
        grids (`torch.Tensor`): (N,12,D,gh,gw) float32 affine bilateral grids at strength 1, for `apply_grid`; with
            regions (N,1+R,12,D,gh,gw): the grid below the regions, then that of each visible one.
        c (`torch.Tensor`): (N,4) the attributes used, in the order of `ATTRIBUTES`, NaN where they were unknown (0 in
            one step, see `__call__`); with regions (N,1+R,4).
    """

    images: Any
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
        scheduler: one of `sampler.SCHEDULERS`; a call works on a copy of it.
        vae (`AutoencoderKL`, *optional*): encodes training targets. For inference only where `grid_head` is `None`, as
            in the paper's ablation: the denoised latents are decoded and enlarged to the photo's size.
        attribute_order (4 `str`): the order of c in the weights; the public order is `ATTRIBUTES`.
        attribute_signs (4 `int`): +1, or -1 where the weights' attribute runs the other way (in the weights' order).
        attribute_scales (4 `float`): one unit of c in each attribute (public order), see `attribute_labels`.
        thumbnail (`str`): "antialias" or "nearest", how the UNet's thumbnail is made ("area" in models of before is
            the first).
        timestep_range (2 `int`, *optional*): use only these timesteps, spaced as in the released sampler.
        default_steps (`int`): `num_inference_steps` when none is given.
        sampling_steps (`int`, *optional*): those for several samples of unknown attributes, which differ only where
            something is denoised; `None` for `default_steps`.
        label_statistics (`dict`, *optional*): of a model whose c are quantiles, see `quantile_labels`.
        clipping_limit (`float`, *optional*): the share of the photo that a retouch may drive to either end of the
            range before all of it is squeezed, in [0,1), see `AffineGridHead.keep_in_range`; `None` for no limit.
        shoulder (`float`, *optional*): in (0,1), how single pixels then roll off, so that nothing new is clipped, see
            `roll_off`; `None`: what leaves the range is cut off.
        noise_offset (`float`): in [0, 1000], how much larger the mean of each channel was in the noise that the UNet
            learned from than in white noise, see `with_offset`. `latents` and all noise of a call are white. The
            scheduler must then not limit latents (`clip_sample`, `thresholding`).
    """

    has_sliders = True
    has_regions = True
    has_colour_function = False
    model_cpu_offload_seq = "unet"
    _exclude_from_cpu_offload = ["grid_head"]  # small, and used by parts, not by calls that a hook would see
    _optional_components = ["vae", "grid_head"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        grid_head: AffineGridHead | None,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        attribute_order: list[str] = ATTRIBUTES,
        attribute_signs: list[int] = (1, 1, 1, 1),
        attribute_scales: list[float] = ATTRIBUTE_SCALES,
        thumbnail: str = "antialias",
        timestep_range: list[int] | None = None,
        default_steps: int = 20,
        sampling_steps: int | None = None,
        label_statistics: dict | None = None,
        clipping_limit: float | None = None,
        shoulder: float | None = None,
        noise_offset: float = 0.0,
    ) -> None:
        super().__init__()
        if sorted(attribute_order) != sorted(ATTRIBUTES):
            raise ValueError(f"`attribute_order` must be a permutation of {ATTRIBUTES}, got {tuple(attribute_order)}.")
        if len(attribute_signs) != 4 or any(sign not in (1, -1) for sign in attribute_signs):
            raise ValueError(f"`attribute_signs` must be four of 1 or -1, got {attribute_signs!r}.")
        if len(attribute_scales) != 4 or not all(is_number(scale) and scale > 0 for scale in attribute_scales):
            raise ValueError(f"`attribute_scales` must be four numbers over 0, got {attribute_scales!r}.")
        if thumbnail not in ("antialias", "nearest", "area"):
            raise ValueError(f'`thumbnail` must be "antialias" or "nearest", got {thumbnail!r}.')
        if timestep_range:
            check_timestep_range(timestep_range)
        check_count("default_steps", default_steps, 1000)
        check_count("sampling_steps", sampling_steps or default_steps, 1000)
        if grid_head is None and vae is None:
            raise ValueError("`grid_head` must be given, or a `vae` that decodes the latents instead.")
        if label_statistics is not None:
            check_statistics(label_statistics)
        if clipping_limit is not None and not 0 <= clipping_limit < 1:
            raise ValueError(f"`clipping_limit` must lie in [0, 1) or be None, got {clipping_limit!r}.")
        if shoulder is not None and not 0 < shoulder < 1:
            raise ValueError(f"`shoulder` must lie in (0, 1) or be None, got {shoulder!r}.")
        if not is_number(noise_offset) or not 0 <= noise_offset <= 1000:
            raise ValueError(f"`noise_offset` must lie in [0, 1000], got {noise_offset!r}.")
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
            shoulder=shoulder,
            noise_offset=float(noise_offset),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "DiffRetouchPipeline":
        """Load a pipeline: "small" (bundled), a directory, or a Hub id. Reads safetensors and json files only.

        Raises:
            ValueError: the directory holds no model, or one that cannot be read.
            OSError: the Hub id is unknown or cannot be reached.
        """
        return load_pretrained(cls, pretrained_model_name_or_path, **kwargs)

    @property
    def knows_the_unknown(self) -> bool:
        """Whether c = None means, in several steps, that the attributes are unknown, not that they are 0."""
        return knows_the_unknown(self.unet.config)

    @property
    def scheduler_name(self) -> str:
        return type(self.scheduler).__name__

    @staticmethod
    def seeded(seed: int) -> torch.Generator:
        """A source of noise, the same on every device: for `generator`."""
        return torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(
        self,
        image: Photos,
        c: Attributes = None,
        *,
        regions: list | None = None,
        strength: float = 1.0,
        num_inference_steps: int | None = None,
        num_samples: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> DiffRetouchOutput:
        r"""Retouch one photo or several.

        Args:
            image: a PIL image; an (H,W,3) or (B,H,W,3) array of uint8, uint16 or float in [0,1]; a (3,H,W) or
                (B,3,H,W) float tensor in [0,1]; or a list of these (sizes may differ).
            c: attributes in the order of `ATTRIBUTES`, in [-1,1], see `as_attributes`: one row for all photos, one row
                per photo, or for a single photo any number of rows (then each row makes one result). Zeros: the usual
                finish. `None`: in several steps they are unknown, the noise decides among the finishes that experts
                would give the photo, where the model was trained so; one step cannot, it makes the usual finish.
            regions (list of pairs (mask, c), *optional*): other attributes in parts of the photo: masks of any size,
                see `as_mask`, each with one row of c. All grids come from one batched sampling with the same noise and
                are blended per pixel. Regions lie over each other, the last on top, over what `c` gives; a region
                under a full mask is left out. Several photos share the masks.
            strength (`float`): 0 returns the photo, 1 the model's retouch, values between mix them exactly; up to 2.
            num_inference_steps (`int`, *optional*): denoising steps. Defaults to the model's own: `default_steps`, or
                `sampling_steps` for several samples of unknown attributes.
            num_samples (`int`): results per photo (and row of c), from different noise.
            generator (`torch.Generator` or list of them, *optional*): source of all noise; a list gives every result
                its own. CPU generators give the same picture on every device; without one, torch's global one is
                drawn from.
            latents (`torch.Tensor`, *optional*): (N,4,h,w) start noise instead of a drawn one.
            batch_size (`int`, *optional*): the most rows of one call of the UNet; more go one after the other.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): `False` returns the tuple (images, grids, c), against the annotation.
            callback_on_step_end: called as (pipeline, step, timestep, tensors) after each step; may return a dict with
                new "latents". With regions, the rows of a result's regions stand together.

        Returns:
            [`DiffRetouchOutput`]

        Raises:
            TypeError, ValueError: an input that is not as said here, named; before any work is done.
            ValueError: the model's weights make a grid that is not finite.

        Example:
            >>> pipe = DiffRetouchPipeline.from_pretrained("small")
            >>> pipe(image, c={"brightness": 0.5}, generator=torch.Generator().manual_seed(0)).images[0]
        """
        # 1. Check everything before any work is done
        check_output_type(output_type)
        check_strength(strength)
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        pairs = photos_and_origins(image)
        photos = [photo for photo, _ in pairs]
        run = checked_run(
            self, len(photos), c, regions, num_inference_steps, num_samples, generator, latents, batch_size
        )

        # 2. Predict the grids from thumbnails
        grids, c = predict_grids(self, photos, run, callback=callback_on_step_end)
        # (N,12,D,gh,gw), (N,4); with regions (N,1+R,12,D,gh,gw), (N,1+R,4)

        # 3. Slice them against the photos at full resolution
        repeats, images = len(grids) // len(photos), []
        for n, grid in enumerate(grids):
            photo, origin = pairs[n // repeats]
            if output_type != "pil" and isinstance(photo, np.ndarray):
                photo = as_float(photo)  # nothing is rounded on the way to "np" and "pt"
            result = apply_layers(self, photo, grid, run.regions, strength)
            images.append(as_output(result, output_type, origin))

        # 4. One array where the sizes allow it
        images = images if output_type == "pil" else as_one_array(images)
        self.maybe_free_model_hooks()
        return DiffRetouchOutput(images, grids, c) if return_dict else (images, grids, c)  # type: ignore[return-value]

    @torch.no_grad()
    def predict_grid(
        self, image: Photos, c: Attributes = None, *, regions: list | None = None,
        num_inference_steps: int | None = None, num_samples: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None, latents: torch.Tensor | None = None,
        batch_size: int | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """The grids alone: for other sizes of the same photo, a series, or a film. Arguments and errors as `__call__`.

        Returns:
            `torch.Tensor`: (N,12,D,gh,gw); with regions (N,1+R,12,D,gh,gw), for `apply_grid` with the same regions.
        """
        photos = as_photos(image)
        run = checked_run(
            self, len(photos), c, regions, num_inference_steps, num_samples, generator, latents, batch_size
        )
        grids, _ = predict_grids(self, photos, run)
        self.maybe_free_model_hooks()
        return grids

    @torch.no_grad()
    def retouch(
        self, image: SamePhoto, c: Attributes=None, *, regions: list | None = None, strength: float = 1.0,
        num_inference_steps: int | None = None, generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None, out: np.ndarray | None = None,
    ) -> SamePhoto:  # fmt: skip
        """Retouch one photo, in the form it came: `predict_grid`, then `apply_grid`.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            c: one row of attributes in the order of `ATTRIBUTES`, in [-1,1], or `None`, see `__call__`.
            regions, strength, num_inference_steps, generator, latents: as in `__call__`.
            out (array, *optional*): written to instead of a new array, for array input.

        Returns:
            PIL image, array of the same dtype, or tensor, see `apply_grid`.

        Raises:
            TypeError, ValueError: as `__call__`, and for several photos or rows of c.
        """
        photo, origin = one_photo(image)
        given = checked_out(out, photo, image)
        check_strength(strength)
        regions = list(regions) if isinstance(regions, Iterator) else regions  # they are gone through twice
        grid = self._one_grid(photo, c, regions, num_inference_steps, generator, latents)
        result = self.apply_grid(photo, grid, strength=strength, regions=regions, out=given)
        return out if out is not None else in_the_form_of(image, result, origin)  # type: ignore[return-value]

    @torch.no_grad()
    def apply_grid(
        self, image: SamePhoto, grid: torch.Tensor, *, strength: float = 1.0, regions: list | None = None,
        out: np.ndarray | None = None,
    ) -> SamePhoto:  # fmt: skip
        """Retouch a photo of any size with a grid from `predict_grid`.

        Args:
            image: one photo in any form that `__call__` takes, also a memory-mapped array.
            grid (`torch.Tensor`): (1,12,D,gh,gw) or (12,D,gh,gw); with regions (1,1+R,12,D,gh,gw) or without the 1;
                of a model without a grid head the small picture that stands for it, (3,h,w) for (12,D,gh,gw).
            strength (`float`): see `__call__`.
            regions (*optional*): those that `predict_grid` was given.
            out (array, *optional*): written to instead of a new array, for array input.

        Returns:
            The retouched photo in the form it came: PIL image, array of the same dtype, or tensor. Integer pixels are
            rounded and limited to their range; floats are not limited.
        """
        return apply_grid(self, image, grid, strength, regions, out)

    @torch.no_grad()
    def _one_grid(self, photo, c, regions, steps, generator, latents=None):
        """The grid of one photo at one c, (1,...), see `predict_grid`."""
        run = checked_run(self, 1, c, regions, steps, 1, generator, latents)
        if len(run.c) != 1:
            raise ValueError(f"`c` must be one row, got {len(run.c)}.")
        grid, _ = predict_grids(self, [photo], run)
        self.maybe_free_model_hooks()
        return grid

    def preview(
        self, image: OnePhoto, c: Attributes = None, *, size: int = 1024, strength: float = 1.0,
        num_inference_steps: int | None = None, generator: torch.Generator | None = None,
    ) -> PIL.Image.Image:  # fmt: skip
        """The retouch of a screen-sized copy: the grid is that of the whole photo, only fewer pixels are retouched.

        Args:
            image: one photo, in any form that `__call__` takes.
            c: one row of attributes in the order of `ATTRIBUTES`, in [-1,1], see `as_attributes`.
            size (`int`): the most pixels along the long side; the copy is area-averaged, never enlarged.
            strength, num_inference_steps, generator: as in `__call__`.

        Returns:
            `PIL.Image.Image`
        """
        photo, _ = one_photo(image)
        check_strength(strength)
        shown = screen_copy(photo, size)
        grid = self._one_grid(photo, c, None, num_inference_steps, generator)
        return PIL.Image.fromarray(self.apply_grid(shown, grid, strength=strength))

    def sliders(
        self, image: OnePhoto, *, size: int | None = 1024, num_inference_steps: int | None = None,
        generator: torch.Generator | None = None, background: bool = False,
    ) -> Sliders:  # fmt: skip
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
            >>> pipe.apply_grid(image, sliders.grid({"brightness": 0.4})).save("retouched.png")
        """
        if self.grid_head is None:
            raise ValueError("`sliders` interpolate grids, and this model was trained without one.")
        photo, _ = one_photo(image)
        shown = screen_copy(photo, size)
        sample_at = grids_from_one_noise(self, photo, num_inference_steps, generator)
        return Sliders(sample_at, self.grid_head, shown, shoulder=self.config.shoulder, background=background)

    @torch.no_grad()
    def attributes_of(
        self, image: OnePhoto, reference: OnePhoto, *, iterations: int = 8, limit: float = 2.0,
        num_inference_steps: int | None = None, generator: torch.Generator | None = None,
    ) -> torch.Tensor:  # fmt: skip
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
        check_count("iterations", iterations, 100)
        if not is_number(limit) or not 0 < limit <= 3:
            raise ValueError(f"`limit` must lie in (0, 3], got {limit!r}.")
        photo = one_photo(image)[0]
        small = shrink(as_tensor(photo), MEASURE_SIZE).cpu()
        wanted = as_tensor(one_photo(reference, "reference")[0]).cpu().clamp(0, 1)
        sample_at = grids_from_one_noise(
            self, photo, num_inference_steps, generator or torch.Generator().manual_seed(0)
        )

        def retouch(c):  # (K,4) -> (K,3,h,w), the same noise each time: only c moves
            return torch.stack([apply_one(self, small[0], g[None], 1.0).clamp(0, 1).cpu() for g in sample_at(c)])

        scales, statistics = self.config.attribute_scales, self.config.label_statistics
        return nearest_c(retouch, small, wanted, scales, statistics, iterations=iterations, limit=limit)
