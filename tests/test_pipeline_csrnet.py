from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import CSRNet, CSRNetL, CSRNetPipeline, DiffRetouchPipeline
from diffretouch.colour.prophoto import srgb_to_prophoto
from diffretouch.models.colour_map import map_colours
from diffretouch.pipelines.pipeline_csrnet import CSRNetOutput, condition_thumbnail
from diffretouch.pipelines.pretrained import open_pipeline

PHOTO = Path(__file__).parent / "photos" / "gb82_flowers-lossless.jpg"


def pipeline(kind=CSRNet, seed=0, condition_size=32, **config):
    """A network with random weights whose results lie around [0,1]."""
    torch.manual_seed(seed)
    network = kind(condition_size=condition_size, **config)
    torch.nn.init.normal_(network.convs[2].weight, std=0.2)
    for linear in [*network.scales, *network.shifts]:  # so that the photo counts
        torch.nn.init.normal_(linear.weight, std=1.0)
    torch.nn.init.constant_(network.convs[2].bias, 0.4)
    pipe = CSRNetPipeline(network)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo(height=61, width=47, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(height, width):
    """A real photo at any size."""
    return np.asarray(Image.open(PHOTO).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


@torch.no_grad()
def plain(pipe, image, strength=1.0):
    """The network run in one piece on the whole photo, in float64: (H,W,3) in [0,1] -> the same, not clamped."""
    network = pipe.network.double()
    x = torch.from_numpy(image).double().permute(2, 0, 1)[None]
    thumbnail = condition_thumbnail(image.astype(np.float32), network.config.condition_size)
    wide = srgb_to_prophoto if network.config.input_space == "prophoto" else lambda values: values
    result = network(wide(x), wide(thumbnail.double()))
    network.float()
    return (x + strength * (result - x))[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@pytest.mark.parametrize("space", ["srgb", "prophoto"])
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_equals_the_plain_network(kind, space, strength, dtype):
    pipe = pipeline(kind, input_space=space)
    image = photo()
    if dtype != np.uint8:
        image = np.random.default_rng(1).random(image.shape)
        image = (image * 65535).astype(np.uint16) if dtype == np.uint16 else image.astype(np.float32)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    wanted = plain(pipe, image / white, strength)
    result = pipe.retouch(image, strength=strength)
    assert result.dtype == dtype
    if dtype == np.float32:
        assert np.abs(result - wanted).max() < 2e-5
        assert strength < 1.5 or result.min() < 0 or result.max() > 1  # not clamped
    else:
        off = np.abs(result - np.clip(wanted, 0, 1) * white)
        assert off.max() < (0.51 if dtype == np.uint8 else 2)  # rounded to the nearest level


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_unique_colours_equal_every_pixel_by_itself(dtype):
    pipe, image = pipeline(), picture(500, 700)
    image = image if dtype == np.uint8 else image.astype(np.float32) / 255
    calls = []
    function = pipe.colour_function(image)

    def counted(colours):
        calls.append(len(colours))
        return function(colours)

    by_table = map_colours(counted, image)
    unique = len(np.unique(image.reshape(-1, 3), axis=0))
    assert sum(calls) == unique < 0.6 * 500 * 700
    strips = [map_colours(function, image[row : row + 10]) for row in range(0, 500, 10)]  # too small for a table
    assert np.array_equal(np.concatenate(strips), by_table)


def test_floats_of_more_than_8_bits_are_not_rounded():
    pipe, image = pipeline(), picture(400, 500).astype(np.float32) / 255
    image[399, 499, 2] += 1e-3  # the last of 600,000 numbers
    function = pipe.colour_function(image)
    direct = function(torch.from_numpy(image[-1])).numpy()
    assert np.abs(map_colours(function, image)[-1] - direct).max() < 1e-6


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_every_form_of_a_photo_gets_the_same(kind):
    pipe, image = pipeline(kind), photo()
    wanted = pipe.retouch(image)
    floats = image.astype(np.float32) / 255
    tensor = torch.from_numpy(floats).permute(2, 0, 1)
    assert np.array_equal(np.asarray(pipe.retouch(Image.fromarray(image))), wanted)
    assert np.array_equal(pipe.retouch(image[None]), wanted[None])
    assert np.array_equal(pipe.retouch(np.asfortranarray(image)), wanted)
    assert np.array_equal(pipe.retouch(np.repeat(image, 2, 1)[:, ::2]), wanted)
    for form in (floats, floats.astype(np.float64), tensor, tensor[None], tensor.double()):
        result = pipe.retouch(form)
        assert result.shape == form.shape
        result = result.reshape(tensor.shape).permute(1, 2, 0).numpy() if torch.is_tensor(result) else result
        assert result.dtype == np.float32
        assert np.abs(result.clip(0, 1) * 255 - wanted).max() < 0.51
    grey = Image.fromarray(image).convert("L")
    assert np.array_equal(np.asarray(pipe.retouch(grey)), pipe.retouch(np.asarray(grey.convert("RGB"))))


def test_call_returns_what_was_asked_for():
    pipe, image = pipeline(), photo()
    images = pipe([image, Image.fromarray(image)], output_type="np").images
    assert images.shape == (2, 61, 47, 3) and images.dtype == np.float32 and 0 <= images.min() and images.max() <= 1
    assert np.array_equal(images[0], images[1]) and np.abs(images[0] * 255 - pipe.retouch(image)).max() < 0.51
    tensors = pipe([image, photo(9, 8)], output_type="pt").images
    assert [tuple(x.shape) for x in tensors] == [(3, 61, 47), (3, 9, 8)]
    out = pipe(image)
    assert isinstance(out, CSRNetOutput) and np.array_equal(np.asarray(out.images[0]), pipe.retouch(image))
    assert isinstance(pipe(image, return_dict=False), tuple)
    assert np.array_equal(pipe(image, output_type="np").images[0], pipe(image, output_type="np").images[0])


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_strength_zero_is_the_photo(kind):
    pipe = pipeline(kind)
    for image in (photo(), photo().astype(np.uint16) * 251, np.random.default_rng(0).random((9, 8, 3), np.float32)):
        assert np.array_equal(pipe.retouch(image, strength=0), image)


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (4, 4), (5, 5), (2, 37), (33, 517)])
def test_odd_sizes(kind, size):
    result = pipeline(kind).retouch(photo(*size))
    assert result.shape == (*size, 3)


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_the_same_retouch_at_any_size(kind):
    """The condition comes from a thumbnail of one size: colours change alike at 0.02 and at 3 megapixels."""
    pipe = pipeline(kind, condition_size=100)
    small, middle, large = (pipe.colour_function(picture(2 * n, 3 * n)) for n in (60, 300, 700))
    colours = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    assert (middle(colours) - large(colours)).abs().max() < 2 / 255
    assert (small(colours) - large(colours)).abs().max() < 6 / 255
    other = pipe.colour_function(255 - picture(600, 900))
    assert (other(colours) - large(colours)).abs().max() > 4 / 255  # but it depends on the photo


def test_thumbnail_sizes():
    for size, wanted in (((4000, 6000), (67, 100)), ((50, 20), (100, 40)), ((1, 4000), (5, 100)), ((9, 3), (100, 33))):
        thumbnail = condition_thumbnail(np.full((*size, 3), 128, np.uint8), 100)
        assert thumbnail.shape == (1, 3, *wanted) and (thumbnail - 128 / 255).abs().max() < 1e-6
    tensor = torch.rand(3, 700, 900)
    as_array = condition_thumbnail(tensor.permute(1, 2, 0).numpy(), 50)
    assert torch.allclose(condition_thumbnail(tensor, 50), as_array)


@pytest.mark.parametrize("kinds", [(CSRNet, CSRNet), (CSRNet, CSRNetL), (CSRNetL, CSRNetL)])
def test_mixes_two_experts(kinds):
    first, second = pipeline(kinds[0], seed=1), pipeline(kinds[1], seed=2, input_space="prophoto")
    image = photo(40, 30).astype(np.float32) / 255
    a, b = first.retouch(image), second.retouch(image)
    assert np.abs(a - b).max() > 0.1
    for mix in (-0.5, 0.0, 0.3, 1.0, 1.5):
        assert np.abs(first.retouch(image, other=second, mix=mix) - ((1 - mix) * a + mix * b)).max() < 2e-5
    half = first.retouch(image, other=second, mix=0.3, strength=0.5)
    assert np.abs(half - (image + (0.7 * a + 0.3 * b)) / 2).max() < 2e-5


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_out(kind, tmp_path):
    pipe, image = pipeline(kind), photo()
    wanted, out = pipe.retouch(image), np.empty_like(image)
    assert pipe.retouch(image, out=out) is out and np.array_equal(out, wanted)
    mapped = np.lib.format.open_memmap(tmp_path / "in.npy", "w+", np.uint8, image.shape)
    mapped[:] = image
    target = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint8, image.shape)
    pipe.retouch(np.load(tmp_path / "in.npy", mmap_mode="r"), out=target)
    assert np.array_equal(target, wanted)
    if kind is CSRNet:
        itself = image.copy()
        pipe.retouch(itself, out=itself)
        assert np.array_equal(itself, wanted)
    else:
        with pytest.raises(ValueError, match="`out` must lie apart"):
            pipe.retouch(image, out=image)
    with pytest.raises(ValueError, match="`out` must be a writeable uint8"):
        pipe.retouch(image, out=np.empty((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="`out` is for array input"):
        pipe.retouch(torch.rand(3, 9, 9), out=out)


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_half_precision_weights(kind):
    pipe, image = pipeline(kind), photo().astype(np.float32) / 255
    wanted = pipe.retouch(image)
    assert np.abs(pipe.to(torch.bfloat16).retouch(image) - wanted).max() < 0.1


@pytest.mark.parametrize(
    "call, error, words",
    [
        ({"strength": -0.1}, ValueError, "`strength` must be a number in"),
        ({"strength": float("nan")}, ValueError, "`strength`"),
        ({"output_type": "latent"}, ValueError, "`output_type` must be"),
        ({"mix": 0.5}, ValueError, "`mix` needs a second model"),
        ({"other": 3}, TypeError, "`other` must be a CSRNetPipeline"),
        ({"other": pipeline(), "mix": 3}, ValueError, r"`mix` must be a number in \[-1, 2\]"),
        ({"other": pipeline(), "mix": True}, ValueError, "`mix` must be a number"),
        ({"image": "photo.jpg"}, TypeError, "`image` must be a PIL image"),
        ({"image": []}, ValueError, "`image` must be at least one photo"),
        ({"image": np.zeros((9, 9), np.uint8)}, ValueError, r"`image` arrays must have shape \(H,W,3\)"),
        ({"image": np.full((9, 9, 3), np.nan)}, ValueError, "`image` must be finite"),
        ({"image": np.full((9, 9, 3), 200.0)}, ValueError, r"`image` floats must be in \[0,1\]"),
        ({"image": np.zeros((9, 9, 3), np.int32)}, TypeError, "`image` arrays must be uint8"),
        ({"image": Image.new("RGBA", (9, 9))}, ValueError, "`image` must have no transparency"),
        ({"image": Image.new("I;16", (9, 9))}, ValueError, "`image` must be an 8-bit PIL image"),
    ],
)
def test_bad_inputs(call, error, words):
    with pytest.raises(error, match=words):
        pipeline()(**{"image": photo(9, 9), **call})


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_broken_weights_are_told(kind):
    pipe = pipeline(kind)
    pipe.network.convs[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        pipe.retouch(photo(9, 9))


@pytest.mark.parametrize("kind", [CSRNet, CSRNetL])
def test_saved_and_opened(kind, tmp_path):
    pipe, image = pipeline(kind, input_space="prophoto"), photo()
    pipe.save_pretrained(tmp_path)
    for opened in (CSRNetPipeline.from_pretrained(tmp_path), open_pipeline(str(tmp_path))):
        assert type(opened.network) is kind and np.array_equal(opened.retouch(image), pipe.retouch(image))
    (tmp_path / "network" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="`name`: the model in .* cannot be loaded"):
        CSRNetPipeline.from_pretrained(tmp_path)


def test_models_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="`name`: .* holds no model"):
        CSRNetPipeline.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(ValueError, match="names no pipeline"):
        open_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="FluxPipeline, which is not a pipeline of this library"):
        open_pipeline(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="'small' or 'small-l', got the file"):
        CSRNetPipeline.from_pretrained(tmp_path / "weights.pth")


@pytest.mark.parametrize("name, kind", [("small", CSRNet), ("small-l", CSRNetL)])
def test_bundled_models_brighten_a_dull_photo(name, kind):
    pipe = CSRNetPipeline.from_pretrained(name)
    assert type(pipe.network) is kind and pipe.network.config.input_space == "srgb"
    image = picture(200, 300)
    dull = np.clip(40 + 0.3 * image, 0, 255).astype(np.uint8)
    result = pipe(dull).images[0]
    before, after = (np.asarray(x, float) for x in (dull, result))
    assert after.std() > 1.3 * before.std()
    assert np.abs(after - image).mean() < 0.9 * np.abs(before - image).mean()


def test_bundled_models_open_by_one_name():
    class Own(CSRNetPipeline):
        """A class derived from a pipeline knows its models."""

    assert isinstance(Own.from_pretrained("small-l").network, CSRNetL)
    assert isinstance(open_pipeline("small"), DiffRetouchPipeline)
    assert isinstance(open_pipeline("csrnet").network, CSRNet) and isinstance(
        open_pipeline("csrnet-l").network, CSRNetL
    )
