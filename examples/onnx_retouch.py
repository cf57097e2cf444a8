"""Retouch a photo with an exported model: numpy, Pillow and onnxruntime, no torch.

diffretouch export small -o exported
python examples/onnx_retouch.py exported examples/photo.jpg -o retouched.png --brightness 0.4 --seed 7

The picture is DiffRetouchPipeline's, within a level of 8 bits. The photo is taken for sRGB of 8 bits, whatever its
profile says; docs/onnx.md explains each step.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `diffretouch export` wrote")
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--unknown", action="store_true", help="in several steps, the noise decides on the style")
    for name in ("colorfulness", "contrast", "temperature", "brightness"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    args = parser.parse_args()
    try:
        model, graphs = load(args.folder)
        photo = np.asarray(ImageOps.exif_transpose(Image.open(args.photo)).convert("RGB"))
        if model["kind"] == "csrnet":
            result = apply_colours(colour_function(model, graphs, photo), photo)
        else:
            steps = args.steps or (args.unknown and model["sampling_steps"]) or model["default_steps"]
            c = [getattr(args, name) for name in model["attributes"]]
            if args.unknown:
                c = [np.nan if steps > 1 else 0] * 4  # one step makes the usual finish
            grid = predict_grid(model, graphs, photo, c, noise(args.seed, model["latents"]), steps)
            result = apply_grid(model, grid, photo)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    Image.fromarray(result).save(args.output)
    print(args.output)


def load(folder):
    """-> what model.json says, and a session for each graph."""
    try:
        model = json.loads((folder / "model.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no exported model: it lacks model.json.") from error
    if model.get("format") != 1:
        raise ValueError(f"{folder} has format {model.get('format')}, this program reads 1.")
    for name, of in model["files"].items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != of["bytes"]:
            raise ValueError(f"{folder} is not whole: {name} is missing or has another size.")
    graphs = {name: onnxruntime.InferenceSession(folder / file) for name, file in model["graphs"].items()}
    return model, graphs


def noise(seed, shape):
    """The numbers of torch.randn with torch.Generator().manual_seed(seed), but for rounding: a multiple of 16."""
    bits = np.frombuffer(np.random.RandomState(seed & 0xFFFFFFFF).bytes(4 * int(np.prod(shape))), "<u4")
    uniform = (bits & 0xFFFFFF).reshape(-1, 2, 8).astype(np.float32) * np.float32(2**-24)
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), np.float32(2 * np.pi) * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32).reshape(shape)


def resized(photo, width, height, block=1):
    """(H,W,3) uint8 -> (3,height,width) float32 in [0,1]: bilinear, averaging where it shrinks."""
    planes = [Image.fromarray(photo[..., k].astype(np.float32) / 255) for k in range(3)]
    return np.stack([plane.reduce(block).resize((width, height), Image.Resampling.BILINEAR) for plane in planes])


def seen(model, photo):
    """(H,W,3) uint8 -> the thumbnail (1,3,size,size); the aspect ratio is not kept."""
    size, (height, width) = model["thumbnail"]["size"], photo.shape[:2]
    if model["thumbnail"]["resample"] == "nearest":
        rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
        return (photo[rows[:, None], columns].transpose(2, 0, 1) / np.float32(255))[None]
    return resized(photo, size, size, max(min(height, width) // 2048, 1))[None]


def predict_grid(model, graphs, photo, c, latents, steps=None):
    """One photo -> its affine bilateral grid (12,D,gh,gw): DDIM without noise of its own."""
    thumbnail, x = seen(model, photo), latents[None]
    schedule, c = model["schedule"], np.asarray([c], np.float32)
    steps = str(steps or model["default_steps"])
    if steps not in schedule["steps"]:
        raise ValueError(f"--steps must be one of {', '.join(schedule['steps'])}, got {steps}.")
    for timestep, alpha, following in schedule["steps"][steps]:
        given = {"latents": x, "thumbnail": thumbnail, "c": c, "timestep": np.float32([timestep])}
        output, grid = graphs["denoiser"].run(["output", "grid"], given)
        a, b = np.float32(alpha) ** 0.5, (1 - np.float32(alpha)) ** 0.5
        if schedule["prediction_type"] == "v_prediction":
            clean, epsilon = a * x - b * output, a * output + b * x
        elif schedule["prediction_type"] == "epsilon":
            clean, epsilon = (x - b * output) / a, output
        else:
            clean, epsilon = output, (x - a * output) / b
        if schedule["clip_sample_range"] is not None:
            clean = clean.clip(-schedule["clip_sample_range"], schedule["clip_sample_range"])
        x = (np.float32(following) ** 0.5 * clean + (1 - np.float32(following)) ** 0.5 * epsilon).astype(np.float32)
    if (photo.max(2).astype(int) - photo.min(2)).max() <= 1:  # of grey pixels grey
        luma = np.float32(model["luma"])[:, None, None, None, None]
        grid = np.tile((grid.reshape(3, 4, *grid.shape[2:]) * luma).sum(0), (3, 1, 1, 1))[None]
    if "keep_in_range" in graphs:
        inside = np.ones((1, *thumbnail.shape[2:]), np.float32)
        given = {"grid": grid, "thumbnail": thumbnail, "inside": inside}
        grid = graphs["keep_in_range"].run(None, given)[0]
    return grid[0]


def hats(u, cells):
    """Positions in [0,1] -> each cell's weight, along a new last axis: linear, constant beyond the outer centres."""
    position = np.clip(np.float32(u) * cells - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(position[..., None] - np.arange(cells, dtype=np.float32)))


def apply_grid(model, grid, photo, strip=64):
    """Slice the grid (12,D,gh,gw) against the photo (H,W,3) uint8 and apply it, a strip of rows at a time."""
    (low, high), (_, depth, gh, gw) = model["pixel_range"], grid.shape
    curve = {name: np.float32(value) for name, value in model["guide"].items()}
    sides = [np.arange(n) / (n - 1) if n > 1 else np.full(1, 0.5) for n in photo.shape[:2]]
    rows, columns, result = hats(sides[0], gh), hats(sides[1], gw), np.empty_like(photo)
    for start in range(0, len(photo), strip):
        x = photo[start : start + strip].astype(np.float32) / 255 * (high - low) + low  # (h,W,3)
        y = x @ curve["matrix"] + curve["matrix_bias"]
        bent = sum(s * np.maximum(y - t, 0) for s, t in zip(curve["slopes"].T, curve["thresholds"].T, strict=True))
        z = hats(np.clip(bent.mean(2) + curve["bias"], 0, 1), depth)  # (h,W,D)
        cells = rows[start : start + strip] @ grid @ columns.T  # (12,D,h,W)
        affine = np.einsum("kdhw,hwd->hwk", cells, z).reshape(*z.shape[:2], 3, 4)
        y = (affine[..., :3] * x[:, :, None]).sum(3) + affine[..., 3]
        y = rolled_off((y - low) / (high - low), photo[start : start + strip] / np.float32(255), model["shoulder"])
        result[start : start + strip] = np.clip(y * 255, 0, 255) + 0.5
    return result


def rolled_off(y, x, shoulder):
    """What pixels x become, with soft ends of the range."""
    if shoulder is None:
        return y
    room = np.maximum(np.where(y > x, 1 - x, x) - np.float32(1 / 255), 0)
    moved, rest = np.abs(y - x), np.float32(1 - shoulder)
    far = moved > np.float32(shoulder) * room
    taken = room * (1 - rest**2 * room / np.where(far, moved + (rest - np.float32(shoulder)) * room, 1))
    return np.where(far, x + np.sign(y - x) * taken, y)


def colour_function(model, graphs, photo):
    """One photo -> the three layers of its colour function."""
    size, smallest, (height, width) = model["thumbnail"]["size"], model["thumbnail"]["smallest"], photo.shape[:2]
    step = max(max(height, width) // (4 * size), 1)
    down, across = (step if side >= 4 * step else 1 for side in (height, width))
    few = photo[down // 2 :: down, across // 2 :: across]
    ratio = size / max(height, width)
    thumbnail = resized(few, *(max(round(side * ratio), smallest) for side in (width, height)))
    layers = graphs["colours"].run(None, {"thumbnail": thumbnail[None]})
    return [(weight[0], bias[0]) for weight, bias in zip(layers[::2], layers[1::2], strict=True)]


def apply_colours(layers, photo, strip=64):
    result = np.empty_like(photo)
    for start in range(0, len(photo), strip):
        x = photo[start : start + strip].astype(np.float32) / 255
        for k, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            x = np.maximum(x, 0) if k < 2 else x
        result[start : start + strip] = np.rint(x.clip(0, 1) * 255)
    return result


if __name__ == "__main__":
    main()
