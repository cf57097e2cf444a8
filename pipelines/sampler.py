"""One run of the denoiser: its timesteps, its noise and its loop. Every run owns them, so that runs do not mix."""

import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor

from diffretouch.attributes import Attributes, as_attributes, in_weights_order
from diffretouch.models.unet import (
    LATENT_CHANNELS,
    denoise,
    knows_the_unknown,
    seen_photo,
    thumbnail_fold_and_size,
    unet_thumbnail,
    with_offset,
)
from diffretouch.pixels import as_tensor, is_monochrome, without_colour
from diffretouch.regions import Regions, as_regions, resized_mask

logger = logging.get_logger(__name__)

# Tried with the bundled model: few steps or many, the picture is that of DDIM
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)


def check_scheduler(scheduler: Any, offset: float = 0.0) -> None:
    """Raise unless runs with a scheduler of this class, or of one it is made from, were tried.

    Args:
        scheduler: any.
        offset: the model's `noise_offset`: `with_offset` is undone after the network only where all that the scheduler
            makes of latents is linear.

    Raises:
        ValueError: another one, such as those of flow matching, which know no noise schedule of this kind; with an
            offset, one that limits latents.
    """
    if not {kind.__name__ for kind in type(scheduler).__mro__} & set(SCHEDULERS):
        raise ValueError(f"`scheduler` must be one of {', '.join(SCHEDULERS)}, got {type(scheduler).__name__}.")
    limits = [name for name in ("clip_sample", "thresholding") if scheduler.config.get(name)]
    if offset and limits:
        raise ValueError(f"`scheduler` must not limit latents with `noise_offset` {offset:g}, got `{limits[0]}` True.")


def check_generator(generator: Any, results: int | None = None) -> None:
    """Raise unless `generator` is a torch.Generator, a list of them (as many as results), or None.

    Raises:
        TypeError: anything else.
        ValueError: a list of another length.
    """
    several = generator if isinstance(generator, list) else [generator] if generator is not None else []
    if not all(isinstance(one, torch.Generator) for one in several):
        got = type(generator).__name__ if not isinstance(generator, list) else "a list of other things"
        raise TypeError(f"`generator` must be a torch.Generator, a list of them or None, got {got}.")
    if results is not None and isinstance(generator, list) and len(generator) != results:
        raise ValueError(f"`generator` must be one or a list of {results}, got {len(generator)}.")


def check_latents(latents: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise unless `latents` is None or finite noise of that shape."""
    if latents is None:
        return
    if not torch.is_tensor(latents) or not latents.is_floating_point():
        raise TypeError(f"`latents` must be a float tensor or None, got {type(latents).__name__}.")
    if tuple(latents.shape) != shape:
        raise ValueError(f"`latents` must have shape {shape}, got {tuple(latents.shape)}.")
    if not latents.isfinite().all():
        raise ValueError("`latents` must be finite, got NaN or infinite values.")


def drawn_generator() -> torch.Generator:
    """A CPU generator that the global one seeds: `torch.manual_seed` makes it repeatable, as everywhere in torch."""
    return torch.Generator().manual_seed(torch.randint(2**62, ()).item())


def copies(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """As many generators in the state of one, whose own does not move."""
    return [torch.Generator(generator.device).set_state(generator.get_state()) for _ in range(count)]


def own_scheduler(
    scheduler: Any, steps: int, timestep_range: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> Any:
    """A copy of a scheduler, set to so many steps: a scheduler keeps the state of a run.

    Args:
        scheduler: one of `SCHEDULERS`.
        steps: denoising steps.
        timestep_range (pair, *optional*): only these timesteps, spaced as in the released sampler.

    Raises:
        ValueError: pure noise would enter at a timestep that is not nearly all noise.
    """
    own = copy.deepcopy(scheduler)
    if timestep_range is None:
        own.set_timesteps(steps, device=device)
    elif "timesteps" in inspect.signature(own.set_timesteps).parameters:
        own.set_timesteps(timesteps=spaced_timesteps(steps, *timestep_range), device=device)
    else:
        logger.warning(
            f"{type(own).__name__} takes no timesteps of the caller's: it runs over its own, not only "
            f"{timestep_range[0]} to {timestep_range[1]}, for which the model was made."
        )
        own.set_timesteps(steps, device=device)
    first, last = int(own.timesteps[0]), own.config.num_train_timesteps - 1
    if own.alphas_cumprod[min(first, last)] > max(0.1, 2 * float(own.alphas_cumprod[last])):
        raise ValueError(
            f"`num_inference_steps` {steps}: {type(own).__name__} would start at timestep {first} of {last}, "
            "which is not pure noise; take more steps, or a scheduler with `timestep_spacing='trailing'`."
        )
    return own


@dataclass(frozen=True)
class Run:
    """A run's inputs beside the thumbnails, checked: made by `checked_run`.

    Args:
        c: (N,4) in the public order, NaN where unknown.
        regions: visible ones (mask, c (1,4)), or `None`.
        scheduler: of `own_scheduler`; `predict_grids` works on a copy, so that a run can be made again.
        generator, latents, batch_size: as of the pipeline.
    """

    c: torch.Tensor
    regions: list | None
    scheduler: SchedulerMixin
    generator: torch.Generator | list | None
    latents: torch.Tensor | None
    batch_size: int | None


def check_count(name: str, value: Any, most: int) -> None:
    """Raise unless a value is an integer in 1..most."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise ValueError(f"`{name}` must be an integer in 1..{most}, got {value!r}.")


def check_timestep_range(pair: Sequence[int]) -> None:
    """Raise unless `timestep_range` is two timesteps that rise."""
    whole = len(pair) == 2 and all(isinstance(t, (int, np.integer)) and not isinstance(t, bool) for t in pair)
    if not whole or not 0 <= pair[0] < pair[1]:
        raise ValueError(f"`timestep_range` must be two timesteps, the first smaller, or None, got {pair!r}.")


def check_callback(callback: Any, names: Sequence[str], known: list[str]) -> None:
    """Raise unless `callback_on_step_end` can be called and asks for tensors that there are."""
    if callback is not None and not callable(callback):
        raise TypeError(f"`callback_on_step_end` must be callable or None, got {type(callback).__name__}.")
    if not isinstance(names, (list, tuple)):
        raise TypeError(f"`callback_on_step_end_tensor_inputs` must be a list of names, got {names!r}.")
    if set(names) - set(known):
        raise ValueError(
            f"`callback_on_step_end_tensor_inputs` may name {known}, got {sorted(set(names) - set(known))}."
        )


def checked_run(
    pipe: DiffusionPipeline,
    photos: int,
    c: Attributes,
    regions: Regions | None,
    steps: int | None,
    num_samples: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    batch_size: int | None = None,
) -> Run:
    """Check all that a caller gave for a run on so many photos, before any work is done.

    Raises:
        TypeError, ValueError: what is not as `DiffRetouchPipeline.__call__` says, named.
    """
    config, knows = pipe.config, knows_the_unknown(pipe.unet.config)
    if steps is None:
        several = config.sampling_steps if c is None and knows and num_samples != 1 else None
        steps = several or config.default_steps
    knows = knows and steps != 1  # one step draws no style: it makes the mean of all, which c = 0 is trained to be
    check_scheduler(pipe.scheduler, config.noise_offset)
    check_count("num_inference_steps", steps, pipe.scheduler.config.num_train_timesteps)
    check_count("num_samples", num_samples, 1024)
    if batch_size is not None:
        check_count("batch_size", batch_size, 4096)
    unknown = c is None
    c = as_attributes(c, batch_size=photos if photos > 1 else None)  # (B,4)
    c = torch.full_like(c, torch.nan) if unknown else c
    if regions is not None:
        below, regions = as_regions(regions)
        c = c if below is None else below.expand_as(c)  # as many as the hidden c would make
    if not knows:
        c = c.nan_to_num(0.0)
        regions = regions and [(mask, own.nan_to_num(0.0)) for mask, own in regions]
    c = c.repeat_interleave(num_samples, 0)  # (N,4)
    check_generator(generator, len(c))
    side = pipe.unet.config.sample_size
    check_latents(latents, (len(c), LATENT_CHANNELS, side, side))
    scheduler = own_scheduler(pipe.scheduler, steps, config.timestep_range, pipe._execution_device)
    return Run(c, regions, scheduler, generator, latents, batch_size)


def thumbnails(pipe: DiffusionPipeline, photos: list) -> torch.Tensor:
    """Photos -> what the UNet sees of them, (B,C,h,w)."""
    return torch.cat([_thumbnail(pipe, photo) for photo in photos])


def _thumbnail(pipe, photo):
    if pipe.config.thumbnail == "nearest" and isinstance(photo, np.ndarray):
        # The very pixels that released weights expect, before a huge photo becomes float
        _, size = thumbnail_fold_and_size(pipe.unet.config)
        rows, columns = (np.arange(size) * side // size for side in photo.shape[:2])
        photo = photo[rows[:, None], columns]
    return unet_thumbnail(as_tensor(photo), pipe.unet.config, pipe.config.thumbnail)


def predict_grids(
    pipe: DiffusionPipeline,
    photos: list,
    run: Run,
    *,
    callback: Callable[..., Any] | None = None,
    quiet: bool = False,
    thumbnail: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos -> the grids of a run, and its c.

    Args:
        pipe (`DiffRetouchPipeline`): whose weights, config and device are used; nothing of it is changed.
        photos: B of them; the run's c has N rows, a multiple of B.
        run: of `checked_run`.
        callback (*optional*): see `callback_on_step_end`.
        quiet: without a progress bar.
        thumbnail ((B,C,h,w), *optional*): of `thumbnails`, for photos of which several runs are made.

    Returns:
        (N,12,D,gh,gw), (N,4); with regions (N,1+R,12,D,gh,gw), (N,1+R,4).

    Raises:
        ValueError: the weights make a grid that is not finite.
    """
    device, config, c = pipe._execution_device, pipe.config, run.c

    # 1. Attributes in the weights' order and sign, the regions' rows below that of their result
    results, layers = len(c), 1 + len(run.regions or ())
    if run.regions is not None:
        c = torch.stack([c] + [own.expand(results, -1) for _, own in run.regions], 1).flatten(0, 1)  # (N(1+R),4)
    own_c = in_weights_order(c, config.attribute_order, config.attribute_signs).to(device)

    # 2. One thumbnail per row: all that the UNet sees of the photo
    thumbnail = thumbnails(pipe, photos) if thumbnail is None else thumbnail
    thumbnail = thumbnail.to(device).repeat_interleave(len(c) // len(thumbnail), 0)  # (N(1+R),C,h,w)

    # 3. Denoise
    scheduler = copy.deepcopy(run.scheduler)
    bar = None if quiet else pipe.progress_bar(total=len(scheduler.timesteps))

    def on_step(step, t, latents):
        if bar is not None:
            bar.update()
        if callback is None:
            return latents
        given = callback(pipe, step, t, {"latents": latents})
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"`callback_on_step_end` must return a dict or None, got {type(given).__name__}.")
        new = (given or {}).get("latents", latents)
        check_latents(new, tuple(latents.shape))
        return new.to(latents)

    with bar or contextlib.nullcontext():
        latents, affine_latent = sample(
            pipe.unet, scheduler, thumbnail, own_c, layers=layers, offset=config.noise_offset, generator=run.generator,
            latents=run.latents, batch_size=run.batch_size, on_step=on_step,
        )  # fmt: skip

    # 4. Affine latent -> grid
    head = pipe.grid_head
    if head is None:  # what stands for the grid is a small retouched picture (N,3,h,w)
        clean = with_offset(latents, config.noise_offset).to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
        grids = pipe.vae.decode(clean).sample.float() / 2 + 0.5
    else:
        grids = head(affine_latent.to(head.dtype)).float()
    if not grids.isfinite().all():
        raise ValueError("The model made a grid that is not finite: its weights are broken or overflow their dtype.")
    if head is not None:
        rows = len(grids) // len(photos)
        for n, photo in enumerate(photos):
            if is_monochrome(photo):
                own = slice(n * rows, (n + 1) * rows)
                grids[own] = grids_without_colour(grids[own])
        if config.clipping_limit is not None:
            seen = seen_photo(thumbnail, pipe.unet.config)
            kept = head.keep_in_range(grids, seen, config.clipping_limit)
            for n, (mask, _) in enumerate(run.regions or (), 1):  # a region's grid is judged where its mask is
                own = slice(n, None, layers)
                inside = torch.from_numpy(resized_mask(mask, seen.shape[2:])).to(device)
                kept[own] = head.keep_in_range(grids[own], seen[own], config.clipping_limit, inside)
            grids = kept
    if run.regions is not None:
        return grids.unflatten(0, (results, layers)), c.unflatten(0, (results, layers))
    return grids, c


def grids_from_one_noise(
    pipe: DiffusionPipeline, photo: Any, steps: int | None, generator: torch.Generator | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function c (K,4) -> grids (K,12,D,gh,gw) of one photo, from the same noise each time; for any thread.

    Raises:
        TypeError: a list of generators.
    """
    if isinstance(generator, list):
        raise TypeError("`generator` must be a torch.Generator or None, got list.")
    run = checked_run(pipe, 1, torch.zeros(4), None, steps, 1, generator)
    kept, seen = copies(generator or drawn_generator(), 1)[0], thumbnails(pipe, [photo])

    @torch.no_grad()
    def sample_at(c):
        own = replace(run, c=c, generator=copies(kept, len(c)))
        return predict_grids(pipe, [photo], own, quiet=True, thumbnail=seen)[0]

    return sample_at


def grids_without_colour(grids: torch.Tensor) -> torch.Tensor:
    """Grids (N,12,D,gh,gw) whose results are the luma of what they were: of grey pixels grey."""
    rows: torch.Tensor = without_colour(grids.unflatten(1, (3, 4)), 1)
    return rows.flatten(1, 2)


def sample(
    unet: UNet2DConditionModel,
    scheduler: Any,
    thumbnail: torch.Tensor,
    c: torch.Tensor,
    *,
    layers: int = 1,
    offset: float = 0.0,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    batch_size: int | None = None,
    on_step: Callable[..., Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Denoise from white noise to latents; calls of the UNet also emit affine latents, of which the last is used.

    Args:
        unet (`UNet2DConditionModel`)
        scheduler: of `own_scheduler`, used up by this run.
        thumbnail: (N*layers,C,h,w), see `unet_thumbnail`.
        c: (N*layers,4) in the weights' order and sign, NaN where unknown. The rows of one result stand together and
            share its noise.
        layers: rows of a result.
        offset: of the noise that the UNet knows, see `denoise`.
        generator: see `check_generator`; `None` draws from torch's global one.
        latents (*optional*): (N,4,h,w) start noise instead of a drawn one.
        batch_size (*optional*): the most rows of one call of the UNet.
        on_step (*optional*): called as (step, timestep, latents) after each step; returns the latents to go on with.

    Returns:
        latents (N*layers,4,h,w) float32, affine latent (N*layers,4,h,w).
    """
    device, dtype, results = thumbnail.device, unet.dtype, len(c) // layers
    shape = (results, LATENT_CHANNELS, unet.config.sample_size, unet.config.sample_size)
    check_generator(generator, results)
    check_latents(latents, shape)
    if latents is None:
        latents = randn_tensor(shape, generator, device)
    latents = latents.to(device, torch.float32) * scheduler.init_noise_sigma
    if layers > 1:
        latents = latents.repeat_interleave(layers, 0)
        generator = _one_for_each_row(generator, results, layers)
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for step, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(latents, t)
        parts = zip(*(rows.split(batch_size or len(x)) for rows in (x, thumbnail, c)), strict=True)
        made = [denoise(unet, part, photo, t, own_c, dtype=dtype, offset=offset) for part, photo, own_c in parts]
        output, affine_latent = (torch.cat(halves) for halves in zip(*made, strict=True))
        latents = scheduler.step(output.float(), t, latents, **extra).prev_sample
        if on_step is not None:
            latents = on_step(step, t, latents)
    return latents, affine_latent


def _one_for_each_row(generator, results, layers):
    """The noise of stochastic schedulers: rows of one result draw the same, as copies of its generator."""
    if not isinstance(generator, list):
        one = generator or drawn_generator()
        draw = lambda: torch.randint(2**62, (), generator=one, device=one.device).item()  # noqa: E731
        seeded = lambda: torch.Generator(one.device).manual_seed(draw())  # noqa: E731
        generator = [one] if results == 1 else [seeded() for _ in range(results)]
    return [row for one in generator for row in [one, *copies(one, layers - 1)]]


def spaced_timesteps(steps: int, first: int = 200, last: int = 999) -> list[int]:
    """The released sampler's timesteps: `steps` of them spread over [first, last], descending.

    The positions are accumulated in floating point and rounded to even, as there: for some odd numbers of steps this
    differs by one from rounding exact positions.

    Raises:
        ValueError: more steps than timesteps.
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
