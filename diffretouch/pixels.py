"""What callers give as `image`, as pixels to work on, and results in the form they want; for all pipelines."""

import math

import numpy as np
import PIL.Image
import torch


def as_photos(image):
    """What a caller gave as `image` -> list of photos: (H,W,3) uint8/uint16/float32 arrays or (3,H,W) float tensors.

    Raises:
        TypeError: not an image, or a dtype other than uint8, uint16 or floating point.
        ValueError: wrong shape, no pixels, not finite, floats that are not in [0,1], transparency, 16-bit PIL modes.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise ValueError("`image` must be at least one photo, got an empty list.")
        photos = []
        for item in image:
            photos.extend(as_photos(item))
        return photos
    if isinstance(image, PIL.Image.Image):
        if image.has_transparency_data:
            raise ValueError(
                f"`image` must have no transparency, got mode {image.mode}: convert it to RGB, or let load_photo and "
                "save_photo carry the alpha channel."
            )
        if image.mode not in ("RGB", "L", "P", "1", "CMYK", "YCbCr", "HSV", "LAB"):
            raise ValueError(f"`image` must be an 8-bit PIL image, got mode {image.mode}: read it with load_photo.")
        return [np.asarray(image.convert("RGB"))]
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if torch.is_tensor(image):
        return _check_tensor(image)
    raise TypeError(f"`image` must be a PIL image, an array, a tensor or a list of these, got {type(image).__name__}.")


def _check_array(image):
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"`image` arrays must have shape (H,W,3) or (B,H,W,3), got {image.shape}.")
    if image.dtype not in (np.uint8, np.uint16):
        if not np.issubdtype(image.dtype, np.floating):
            raise TypeError(f"`image` arrays must be uint8, uint16 or floating point, got {image.dtype}.")
        for rows in np.array_split(image, max(image.size // 2**24, 1)):  # in pieces: it may be memory-mapped
            if rows.size:
                _check_range(rows, lambda rows: rows.max(-1))
        image = image if image.dtype == np.float32 else image.astype(np.float32)
    return list(image) if image.ndim == 4 else [image]


def _check_tensor(image):
    if not image.is_floating_point():
        raise TypeError(f"`image` tensors must be floating point in [0,1], got {image.dtype}.")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise ValueError(f"`image` tensors must have shape (3,H,W) or (B,3,H,W), got {tuple(image.shape)}.")
    _check_range(image, lambda image: image.amax(-3))
    return list(image) if image.ndim == 4 else [image]


def _check_range(values, brightest_channel):
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("`image` must be finite, got NaN or infinite pixels.")
    # Sharpening leaves [0,1] a little, and colours outside sRGB's gamut are far below 0 in one channel or two, but not
    # in all; 0..255 or -1..1 is another range altogether.
    if low < -0.5 and float(brightest_channel(values).min()) > -0.25:
        low = 0.0
    if low < -0.5 or high > 2:
        raise ValueError(f"`image` floats must be in [0,1], got values from {low:g} to {high:g}.")


def as_float(array):
    return array if array.dtype == np.float32 else np.divide(array, np.iinfo(array.dtype).max, dtype=np.float32)


def as_tensor(photo):
    """Array or tensor photo -> (1,3,H,W) float32 in [0,1]."""
    if torch.is_tensor(photo):
        return photo[None].float()
    # An area-averaged thumbnail needs no more than this: skip pixels of huge photos before converting to float.
    stride = max(min(photo.shape[:2]) // 2048, 1)
    return torch.from_numpy(as_float(np.ascontiguousarray(photo[::stride, ::stride]))).permute(2, 0, 1)[None]


def as_output(result, output_type):
    """(H,W,3) array or (3,H,W) float tensor -> PIL image, (H,W,3) float32 array or (3,H,W) tensor, in [0,1].

    For "np" the result itself is brought into the range: a copy of a large photo takes as long as its retouch.
    """
    if output_type == "pil":
        if torch.is_tensor(result):
            result = result.permute(1, 2, 0).cpu().numpy()
        if result.dtype == np.uint16:
            result = as_float(result)
        if result.dtype != np.uint8:
            result = np.round(np.clip(result, 0, 1) * 255).astype(np.uint8)
        return PIL.Image.fromarray(result)
    if output_type == "pt":
        result = result if torch.is_tensor(result) else torch.from_numpy(result).permute(2, 0, 1)
        return result.clamp(0, 1)
    result = result.permute(1, 2, 0).cpu().numpy() if torch.is_tensor(result) else result
    return np.clip(result, 0, 1, out=result)


def as_one_array(images):
    """Results of `as_output`, "np" or "pt", as one array (B,...) if they are of one size; else the list as it is."""
    if len({image.shape for image in images}) > 1:
        return images
    if len(images) == 1:
        return images[0][None]  # of one large photo no copy
    return torch.stack(images) if torch.is_tensor(images[0]) else np.stack(images)


def check_strength(strength):
    """Raise unless `strength` is a number in [0, 2]."""
    if isinstance(strength, bool) or not isinstance(strength, (int, float, np.number)) or not 0 <= strength <= 2:
        raise ValueError(f"`strength` must be a number in [0, 2] (0: the photo, 1: the retouch), got {strength!r}.")


def shrink(image, size):
    """(B,3,H,W) -> an area-averaged copy with a long side of at most `size` pixels; a smaller photo as it is."""
    height, width = image.shape[-2:]
    ratio = size / max(height, width)
    if ratio >= 1:
        return image
    shape = max(round(height * ratio), 1), max(round(width * ratio), 1)
    return torch.nn.functional.interpolate(image, shape, mode="bilinear", antialias=True)
