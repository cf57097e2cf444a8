"""What callers give as `image`, as pixels to work on, and results in the form they want; for all pipelines."""

import functools
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

import numpy as np
import PIL.Image

from diffretouch.colour import LUMA
from diffretouch.outside import outside
from diffretouch.photo import icc
from diffretouch.photo.exif import ORIENTATION
from diffretouch.photo.upright import upright, upright_exif

if TYPE_CHECKING:
    import torch
    from numpy.typing import DTypeLike

# What callers give: a PIL image, (H,W,3) array or (3,H,W) tensor; or several: (B,...), or a list
OnePhoto: TypeAlias = Union[PIL.Image.Image, np.ndarray, "torch.Tensor"]  # noqa: UP007  (torch is imported late)
Photos: TypeAlias = OnePhoto | Sequence[OnePhoto]
ArrayOrTensor: TypeAlias = Union[np.ndarray, "torch.Tensor"]  # noqa: UP007
SamePhoto = TypeVar("SamePhoto", PIL.Image.Image, np.ndarray, "torch.Tensor")  # in the form it came

# What a PIL image carries beside its pixels, and a retouch of it still does
_CARRIED = ("exif", "xmp", "dpi", "comment")


def is_tensor(value: Any) -> bool:
    """Whether it is torch's tensor, without importing torch: who has a tensor has done that."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.is_tensor(value)


def as_photos(image: Photos) -> list:
    """What a caller gave as `image` -> list of photos: (H,W,3) uint8/uint16/float32 arrays or (3,H,W) float tensors.

    PIL images come upright (EXIF orientation) and as sRGB: those with another ICC profile as float32, in which colours
    outside sRGB leave [0,1].

    Raises:
        TypeError: not an image, or a dtype other than uint8, uint16 or floating point.
        ValueError: wrong shape, no pixels, not finite, floats that are not in [0,1], transparency, 16-bit PIL modes.
    """
    return [photo for photo, _ in photos_and_origins(image)]


def photos_and_origins(image: Photos, name: str = "image") -> list[tuple]:
    """As `as_photos`, each photo with the PIL image that it came from, else with `None`: see `as_picture`.

    `name` is what errors call the argument.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise ValueError(f"`{name}` must be at least one photo, got an empty list.")
        return [pair for item in image for pair in photos_and_origins(item, name)]
    if isinstance(image, PIL.Image.Image):
        return [(_from_picture(image, name), image)]
    if isinstance(image, np.ndarray):
        return [(photo, None) for photo in _check_array(image, name)]
    if is_tensor(image):
        return [(photo, None) for photo in _check_tensor(image, name)]
    raise TypeError(
        f"`{name}` must be a PIL image, an array, a tensor or a list of these, got {type(image).__name__}."
    )


def one_photo(image: Photos, name: str = "image") -> tuple:
    """The only photo of what a caller gave, and its origin, see `photos_and_origins`.

    Raises:
        TypeError, ValueError: as `as_photos`, and for several photos.
    """
    found = photos_and_origins(image, name)
    if len(found) != 1:
        raise ValueError(f"`{name}` must be one photo, got {len(found)}.")
    return found[0]


def _from_picture(picture, name):
    if 0 in picture.size:
        raise ValueError(f"`{name}` must have pixels, got a picture of {picture.width} x {picture.height}.")
    if picture.has_transparency_data:
        raise ValueError(
            f"`{name}` must have no transparency, got mode {picture.mode}: convert it to RGB, or let load_photo and "
            "save_photo carry the alpha channel."
        )
    if picture.mode not in ("RGB", "L", "P", "1", "CMYK", "YCbCr", "HSV", "LAB"):
        raise ValueError(f"`{name}` must be an 8-bit PIL image, got mode {picture.mode}: read it with load_photo.")
    profile, picture = picture.info.get("icc_profile"), upright(picture)
    if profile:
        try:
            channels = icc.profile_channels(profile)
            if {"RGB": 3, "P": 3, "L": 1, "CMYK": 4}.get(picture.mode) == channels and not icc.is_srgb(profile):
                pixels = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture, np.float32) / 255
                return icc.to_srgb(pixels.reshape(*pixels.shape[:2], channels), profile)
        except ValueError as error:
            said = f"`{name}`: its colour profile is not used, it is read as sRGB: {error}."
            warnings.warn(said, stacklevel=outside())
    return _samples(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _samples(picture):
    """(H,W,3) uint8, an array of its own: in strips, because Pillow packs pixels twice as fast within the cache."""
    samples = np.empty((picture.height, picture.width, 3), np.uint8)
    rows = max(_PACKED // picture.width, 1)
    for y in range(0, picture.height, rows):
        samples[y : y + rows] = picture.crop((0, y, picture.width, min(y + rows, picture.height)))
    return samples


def _picture(samples):
    """The reverse, without the black that `PIL.Image.fromarray` paints first."""
    picture = PIL.Image.new("RGB", (samples.shape[1], samples.shape[0]), None)
    picture.frombytes(np.ascontiguousarray(samples))
    return picture


_PACKED = 1 << 17  # pixels of a strip that comes from Pillow


@functools.lru_cache(maxsize=16)
def _can_be_kept(profile):
    return icc.profile_channels(profile) == 3 and icc.leads_back(profile)


def as_picture(result: np.ndarray, origin: PIL.Image.Image | None = None) -> PIL.Image.Image:
    """(H,W,3) array in [0,1] or of integers, sRGB -> a PIL image of 8 bits, with what its origin carried.

    Its colours are brought back into the origin's ICC profile, and its EXIF says that it is upright.
    """
    profile = origin.info.get("icc_profile") if origin is not None else None
    if profile and result.dtype == np.float32 and _can_be_kept(profile):
        result = icc.from_srgb(result, profile)
    elif profile and (origin.mode != "RGB" or result.dtype == np.float32):
        profile = icc.srgb_profile()  # of a grey or CMYK origin, or one whose profile only leads here
    picture = _picture(to_levels(as_float(result) if result.dtype == np.uint16 else result))
    if origin is None:
        return picture
    picture.info |= {key: origin.info[key] for key in _CARRIED if key in origin.info}
    if profile:
        picture.info["icc_profile"] = profile
    if ORIENTATION in origin.getexif():
        picture.info["exif"] = upright_exif(origin)
    return picture


def to_levels(values: np.ndarray, dtype: "DTypeLike" = np.uint8) -> np.ndarray:
    """Floats in [0,1] -> integers, limited to their range and rounded to the nearest; integers as they are."""
    if values.dtype.kind == "u":
        return values
    return np.rint(np.clip(values, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def checked_out(
    out: np.ndarray | None, photo: ArrayOrTensor, image: Photos, *, in_place: bool = True
) -> np.ndarray | None:
    """What receives a result like `photo`, of an `image` that `one_photo` took: the part of a caller's `out`.

    Without `out` that of a PIL image is its `photo` itself, a copy already; of others it is `None`.

    Args:
        in_place: `out` may be `image` itself.

    Raises:
        ValueError: `out` is not a writeable array like the photo, or lies across it.
    """
    if out is None:
        return photo if in_place and isinstance(image, PIL.Image.Image) else None
    if not isinstance(image, np.ndarray):
        raise ValueError(f"`out` is for array input, got {type(image).__name__} as `image`.")
    given = out[0] if isinstance(out, np.ndarray) and out.ndim == image.ndim == 4 else out
    fits = isinstance(given, np.ndarray) and given.shape == photo.shape and given.dtype == photo.dtype
    if not fits or not given.flags.writeable:
        got = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
        raise ValueError(f"`out` must be a writeable {photo.dtype} array {photo.shape}, got {got}.")
    same = photo.ctypes.data == given.ctypes.data and photo.strides == given.strides
    if np.may_share_memory(photo, given) and not (in_place and same):
        raise ValueError(f"`out` must lie apart from `image`{' or be `image` itself' if in_place else ''}.")
    return given


def in_the_form_of(image: Photos, result: ArrayOrTensor, origin: PIL.Image.Image | None = None) -> Any:
    """A retouched photo, (H,W,3) array or (3,H,W) tensor, in the form in which one photo came as `image`."""
    if origin is not None:
        return as_picture(result, origin)
    while isinstance(image, (list, tuple)):
        image = image[0]
    return result[None] if image.ndim == 4 else result


def _check_array(image, name):
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"`{name}` arrays must have shape (H,W,3) or (B,H,W,3), got {image.shape}.")
    if image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        if not np.issubdtype(image.dtype, np.floating):
            raise TypeError(f"`{name}` arrays must be uint8, uint16 or floating point, got {image.dtype}.")
        for rows in np.array_split(image, max(image.size // 2**24, 1)):  # in pieces: it may be memory-mapped
            if rows.size:
                _check_range(rows, lambda rows: rows.max(-1), name)
        image = image if image.dtype == np.float32 else image.astype(np.float32)
    return list(image) if image.ndim == 4 else [image]


def _check_tensor(image, name):
    if not image.is_floating_point():
        raise TypeError(f"`{name}` tensors must be floating point in [0,1], got {image.dtype}.")
    if image.is_meta or image.layout != sys.modules["torch"].strided:
        raise TypeError(f"`{name}` tensors must be dense and hold their numbers, got {image.layout}, {image.device}.")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise ValueError(f"`{name}` tensors must have shape (3,H,W) or (B,3,H,W), got {tuple(image.shape)}.")
    image = image.detach()  # no gradient flows through a pipeline
    _check_range(image, lambda image: image.amax(-3), name)
    return list(image) if image.ndim == 4 else [image]


def _check_range(values, brightest_channel, name):
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"`{name}` must be finite, got NaN or infinite pixels.")
    # Sharpening leaves [0,1] a little, and colours outside sRGB's gamut are far below 0 in one channel or two, but not
    # in all; 0..255 or -1..1 is another range altogether.
    if low < -0.5 and float(brightest_channel(values).min()) > -0.25:
        low = 0.0
    if low < -0.5 or high > 2:
        raise ValueError(f"`{name}` floats must be in [0,1], got values from {low:g} to {high:g}.")


def is_monochrome(photo: ArrayOrTensor) -> bool:
    """Whether red, green and blue are one everywhere (to a level of 8 bits): (H,W,3) array or (3,H,W) tensor."""
    if is_tensor(photo):
        few = photo[:, :: max(photo.shape[1] // 64, 1), :: max(photo.shape[2] // 64, 1)]
        return all(bool((part.amax(0) - part.amin(0)).max() <= 1.5 / 255) for part in (few, photo))
    most = 1.5 / 255 * (1 if photo.dtype.kind == "f" else np.iinfo(photo.dtype).max)
    few = photo[:: max(len(photo) // 64, 1), :: max(photo.shape[1] // 64, 1)]  # most photos are told by these
    pieces = (few, *np.array_split(photo, max(photo.size // 2**22, 1)))
    return all(float((rows.max(2) - rows.min(2)).max()) <= most for rows in pieces if rows.size)


def without_colour(colours: ArrayOrTensor, dim: int) -> ArrayOrTensor:
    """Their luma for red, green and blue, which lie along `dim`: what a monochrome photo's retouch stays within."""
    if isinstance(colours, np.ndarray):
        luma = (np.moveaxis(colours, dim, -1) @ np.asarray(LUMA, np.float32))[..., None]
        return np.moveaxis(np.broadcast_to(luma, (*luma.shape[:-1], len(LUMA))), -1, dim)
    colours = colours.movedim(dim, -1)
    luma = (colours * colours.new_tensor(LUMA)).sum(-1, keepdim=True)
    return luma.expand(colours.shape).movedim(-1, dim)


def as_float(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.float32 else np.divide(array, np.iinfo(array.dtype).max, dtype=np.float32)


def as_tensor(photo: ArrayOrTensor) -> "torch.Tensor":
    """Array or tensor photo -> (1,3,H,W) float32 in [0,1]; of a huge array the means of blocks, all that is needed."""
    if is_tensor(photo):
        return photo[None].float()
    return float_tensor(np.ascontiguousarray(without_detail(photo))).permute(2, 0, 1)[None]


def float_tensor(array: np.ndarray) -> "torch.Tensor":
    """An array as a float32 tensor of the same shape, in [0,1]; a copy only of integers and of what is read-only."""
    import torch

    array = as_float(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def without_detail(photo: np.ndarray) -> np.ndarray:
    """A photo (H,W,3) that is huge as the means of blocks, float32 in [0,1]: all that is needed; another as it is."""
    side = max(min(photo.shape[:2]) // 2048, 1)
    return photo if side == 1 else _block_means(photo, side)


def _block_means(photo, side):
    """(H,W,3) -> the means of blocks of side x side pixels, float32 in [0,1], in strips; the last may be smaller."""
    height, width = photo.shape[:2]
    columns = np.arange(0, width, side)
    widths = np.diff(np.append(columns, width)).astype(np.float32)[:, None]
    means = np.empty((-(-height // side), len(columns), 3), np.float32)
    top = 1 if photo.dtype.kind == "f" else np.iinfo(photo.dtype).max
    for n in range(len(means)):
        rows = photo[n * side : (n + 1) * side]
        sums = np.add.reduceat(rows.sum(0, dtype=np.float32), columns, axis=0)
        means[n] = sums / (widths * (len(rows) * top))
    return means


def check_output_type(output_type: str) -> None:
    """Raise unless it is a form that pipelines return."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f'`output_type` must be "pil", "np" or "pt", got {output_type!r}.')


def as_output(result: ArrayOrTensor, output_type: str, origin: PIL.Image.Image | None = None) -> Any:
    """(H,W,3) array or (3,H,W) float tensor -> PIL image, (H,W,3) float32 array or (3,H,W) tensor, in [0,1].

    For "np" the result itself is brought into the range: a copy of a large photo takes as long as its retouch.
    """
    if output_type == "pt":
        import torch

        result = result if is_tensor(result) else torch.from_numpy(result).permute(2, 0, 1)
        return result.clamp(0, 1)
    result = result.permute(1, 2, 0).cpu().numpy() if is_tensor(result) else result
    return as_picture(result, origin) if output_type == "pil" else np.clip(result, 0, 1, out=result)


def as_one_array(images: list[Any]) -> Any:
    """Results of `as_output`, "np" or "pt", as one array (B,...) if they are of one size; else the list as it is."""
    if len({image.shape for image in images}) > 1:
        return images
    if len(images) == 1:
        return images[0][None]  # of one large photo no copy
    if not is_tensor(images[0]):
        return np.stack(images)
    import torch

    return torch.stack(images)


def is_number(value: Any) -> bool:
    """Whether it is a whole or real number, and no `bool`."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_strength(strength: float) -> None:
    """Raise unless `strength` is a number in [0, 2]."""
    if not is_number(strength) or not 0 <= strength <= 2:
        raise ValueError(f"`strength` must be a number in [0, 2] (0: the photo, 1: the retouch), got {strength!r}.")


_STRIP = 1 << 18  # pixels that are floats at once, while a photo is shrunk


def resized(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(H,W) or (H,W,3) array -> float32 of that height and width: bilinear, averaging where it shrinks.

    Pillow's, which torch's `antialias=True` was made after: the same but for roundings, without torch.
    """
    if picture.ndim == 3:
        return np.stack([resized(picture[..., k], shape) for k in range(picture.shape[2])], 2)
    height, width = picture.shape
    rows = max(_STRIP // width, 1)
    if height > rows and width > shape[1]:  # as floats at once its numbers would take four times its memory
        across = [resized(picture[y : y + rows], (min(rows, height - y), shape[1])) for y in range(0, height, rows)]
        picture = np.concatenate(across)
    plane = PIL.Image.fromarray(as_float(np.ascontiguousarray(picture)))
    return np.asarray(plane.resize((shape[1], shape[0]), PIL.Image.Resampling.BILINEAR))


def nearest_pixels(photo: ArrayOrTensor, size: int) -> ArrayOrTensor:
    """The pixels (size,size,3) of a photo (H,W,3) that the "nearest" thumbnail is made of."""
    rows, columns = (np.arange(size) * side // size for side in photo.shape[:2])
    return photo[rows[:, None], columns]


def few_pixels(photo: ArrayOrTensor, size: int, smallest: int) -> tuple[ArrayOrTensor, tuple[int, int]]:
    """For a thumbnail with a long side of `size`: every n-th pixel of a large photo (H,W,3), and its height and width.

    Of the photo about sixteen pixels are left for each of the thumbnail's. The thumbnail's short side has at least
    `smallest`.
    """
    height, width = photo.shape[:2]
    step = max(max(height, width) // (4 * size), 1)
    # The short side of a very long photo keeps its pixels
    down, across = (step if side >= 4 * step else 1 for side in (height, width))
    shape = tuple(max(round(side * size / max(height, width)), smallest) for side in (height, width))
    return photo[down // 2 :: down, across // 2 :: across], shape


def shrink(image: ArrayOrTensor, size: int) -> ArrayOrTensor:
    """Tensor (B,3,H,W) or array (H,W,3) -> an area-averaged copy with a long side of at most `size` pixels.

    A smaller photo as it is.
    """
    is_array = isinstance(image, np.ndarray)
    height, width = image.shape[:2] if is_array else image.shape[-2:]
    ratio = size / max(height, width)
    if ratio >= 1:
        return image
    shape = max(round(height * ratio), 1), max(round(width * ratio), 1)
    if is_array:
        return resized(image, shape)
    import torch

    return torch.nn.functional.interpolate(image, shape, mode="bilinear", antialias=True)


def enlarged(photo: ArrayOrTensor, picture: "torch.Tensor", strength: float) -> Any:
    """A small retouched picture (1,3,h,w) in the size of a photo (H,W,3) or (3,H,W), mixed with it."""
    import torch

    is_array = isinstance(photo, np.ndarray)
    full = float_tensor(photo).permute(2, 0, 1) if is_array else photo.to(picture.device, torch.float32)
    picture = torch.nn.functional.interpolate(picture, full.shape[1:], mode="bicubic", antialias=True)[0]
    result = torch.lerp(full, picture.to(full.device), float(strength))
    if not is_array:
        return result
    result = result.permute(1, 2, 0).numpy()
    return result if photo.dtype == np.float32 else to_levels(result, photo.dtype)


def retouch_photos(retouch: Callable[..., Any], image: Photos, strength: float, output_type: str) -> Any:
    """The call of a pipeline without sliders: photo by photo, nothing rounded on the way to "np" and "pt".

    Args:
        retouch: a function (photo, strength, out) -> the retouch, as (H,W,3) array of its dtype, `out` if that is
            given, or (3,H,W) float32 tensor.
        image, strength, output_type: as the pipeline got them.

    Returns:
        list of PIL images, or one array where the sizes allow it.
    """
    check_strength(strength)
    check_output_type(output_type)
    images = []
    for photo, origin in photos_and_origins(image):
        if output_type != "pil" and isinstance(photo, np.ndarray):
            photo = as_float(photo)
        images.append(as_output(retouch(photo, strength, None), output_type, origin))
    return images if output_type == "pil" else as_one_array(images)


def retouch_one(
    retouch: Callable[..., Any],
    image: Photos,
    strength: float,
    out: np.ndarray | None = None,
    *,
    in_place: bool = True,
) -> Any:
    """The same for one photo in the form it came, with `out` for array input; `retouch` as in `retouch_photos`.

    `in_place` says whether `out` may be `image` itself.
    """
    check_strength(strength)
    photo, origin = one_photo(image)
    result = retouch(photo, strength, checked_out(out, photo, image, in_place=in_place))
    return out if out is not None else in_the_form_of(image, result, origin)
