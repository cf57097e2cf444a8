import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import SAAdjustNetPipeline, cli
from diffretouch.colour.lab import srgb_to_lab
from diffretouch.data.local_effects import local_effect
from diffretouch.metrics import delta_e76

from .test_sa_adjustnet import photo, tiny_network

PHOTOS = Path(__file__).parent / "photos"


@pytest.fixture(scope="module")
def pipe():
    return SAAdjustNetPipeline(tiny_network(presets=3))


def test_every_form_of_a_photo_gives_the_same(pipe):
    pixels = (photo()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = pipe(tensor, output_type="pt").images
    assert expected.shape == (1, 3, 21, 34)
    with torch.no_grad():
        torch.testing.assert_close(expected, pipe.network(tensor[None]).clamp(0, 1), atol=1e-5, rtol=0)
    forms = [
        pixels,
        pixels[None],
        pixels.astype(np.uint16) * 257,
        pixels.astype(np.float64) / 255,
        Image.fromarray(pixels),
        [Image.fromarray(pixels)],
        tensor[None],
    ]
    for form in forms:
        torch.testing.assert_close(pipe(form, output_type="pt").images, expected, atol=2e-5, rtol=0)
    as_np = pipe(pixels, output_type="np").images
    np.testing.assert_allclose(as_np, expected.permute(0, 2, 3, 1).numpy(), atol=2e-5)
    assert np.abs(np.asarray(pipe(pixels).images[0]).astype(int) - np.round(as_np[0] * 255)).max() <= 1
    mixed = pipe([photo(4, 9), photo(1, 1), photo(120, 7)], output_type="pt")
    assert [tuple(i.shape) for i in mixed.images] == [(3, 4, 9), (3, 1, 1), (3, 120, 7)]
    assert len(mixed.adjustment_maps) == 3


def test_strips_show_no_seam(pipe, monkeypatch):
    whole = pipe(photo(50, 40), output_type="pt").images
    monkeypatch.setattr("diffretouch.pipelines.pipeline_sa_adjustnet._STRIP", 120)
    torch.testing.assert_close(pipe(photo(50, 40), output_type="pt").images, whole, atol=1e-5, rtol=0)


def test_strength_is_an_exact_lerp(pipe):
    image = photo()
    full = pipe(image, output_type="pt").images
    for strength in (0, 0.25, 1):
        out = pipe(image, strength=strength, output_type="pt").images
        inside = (full > 0) & (full < 1)
        expected = torch.lerp(image, full, float(strength))
        assert inside.float().mean() > 0.9
        torch.testing.assert_close(out[inside], expected[inside], atol=2e-6, rtol=0)
    for dtype in (np.uint8, np.uint16):
        pixels = (image[0].permute(1, 2, 0).numpy() * np.iinfo(dtype).max).round().astype(dtype)
        out = pipe(pixels, strength=0, output_type="np").images[0]
        assert np.array_equal(out, pixels.astype(np.float32) / np.iinfo(dtype).max)


@pytest.mark.parametrize("soft_edges", [False, True])
def test_the_map_used_gives_the_same_again(pipe, soft_edges):
    first = pipe(photo(40, 50), output_type="pt", soft_edges=soft_edges)
    (weights,) = first.adjustment_maps
    assert weights.shape == (3, 26, 32)
    torch.testing.assert_close(weights.sum(0), torch.ones(26, 32))
    again = pipe(photo(40, 50), weights, output_type="pt", soft_edges=soft_edges)
    torch.testing.assert_close(again.images, first.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.adjustment_maps[0], weights)


def test_a_users_map_replaces_the_networks(pipe):
    image = photo(40, 50)
    labels = np.zeros((40, 50), np.uint8)
    labels[:, 25:] = 2
    whole = [pipe(image, np.full((1, 1), k), output_type="pt").images for k in range(3)]
    assert (whole[0] - whole[2]).abs().max() > 1e-3
    expected = torch.cat([whole[0][..., :25], whole[2][..., 25:]], 3)
    for form in (labels, torch.from_numpy(labels), labels.astype(np.int64), Image.fromarray(labels)):
        torch.testing.assert_close(pipe(image, form, output_type="pt").images, expected, atol=1e-5, rtol=0)
    enlarged = labels.repeat(3, 0).repeat(3, 1)  # of another size
    torch.testing.assert_close(pipe(image, enlarged, output_type="pt").images, expected, atol=1e-5, rtol=0)
    weights = np.stack([labels == k for k in range(3)]) * 7.0
    torch.testing.assert_close(pipe(image, weights, output_type="pt").images, expected, atol=1e-5, rtol=0)
    two = pipe([image[0], image[0]], [labels, 2 - labels], output_type="pt").images
    torch.testing.assert_close(two[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(two[1], torch.cat([whole[2][..., :25], whole[0][..., 25:]], 3)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "given, first, second",
    [
        (np.full((1, 1), 1), 1, 1),
        (np.full((300, 500), 1, np.uint16), 1, 1),
        (Image.new("P", (9, 6), 1), 1, 1),
        (Image.new("1", (9, 6)), 0, 0),
        (np.ones((3, 4, 6)) * np.array([0, 3, 0.5])[:, None, None], 1, 1),  # overlapping: the likeliest
        (np.ones((3, 4, 6), np.float32) * np.float32(3e38) * np.float32([1, 1, 0])[:, None, None], 0, 1),
        (torch.ones(3, 4, 6, dtype=torch.float64) * torch.tensor([0, 2, 2])[:, None, None], 1, 2),
    ],
)
def test_odd_maps(pipe, given, first, second):
    """Hard maps take the likeliest preset; softly, overlapping ones are mixed by their weights."""
    whole = [pipe(photo(), np.full((1, 1), k), output_type="pt").images for k in range(3)]
    torch.testing.assert_close(pipe(photo(), given, output_type="pt").images, whole[first], atol=1e-5, rtol=0)
    if first != second:  # of equal weight; mixed in Lab
        out = pipe(photo(), given, output_type="pt", soft_edges=True).images
        ends = torch.stack([whole[first], whole[second], out])
        inside = ((ends > 0.02) & (ends < 0.98)).all(0).all(1)
        expected = (srgb_to_lab(whole[first]) + srgb_to_lab(whole[second])) / 2
        moved = (srgb_to_lab(out) - expected).movedim(1, -1)[inside]
        assert inside.float().mean() > 0.5 and moved.abs().max() < 0.05
        assert (out - whole[first]).abs().max() > 1e-3


def test_a_turned_map_is_told(pipe):
    with pytest.warns(UserWarning, match="`adjustment_map` of 40x50 is stretched .* is it turned") as told:
        pipe(photo(40, 50), np.zeros((50, 40), int))
    assert told[0].filename == __file__


def test_soft_edges_follow_the_photo_and_show_no_jump(pipe):
    """A map whose boundary lies 3 px beside the photo's edge, on a photo with a smooth ramp elsewhere."""
    image = torch.linspace(0.3, 0.6, 64).expand(3, 48, 64).clone()
    labels = np.zeros((48, 64), np.uint8)
    labels[:24] = 2  # along nothing: the boundary crosses a smooth place
    hard, soft = (
        pipe(image, labels, output_type="pt", soft_edges=edges, edge_radius=0.1).images for edges in (False, True)
    )
    jump = lambda x: x.diff(dim=2).abs().max().item()  # noqa: E731
    assert jump(soft) < 0.4 * jump(hard)
    image[:, 21:] += 0.3  # now the photo has an edge, 3 px above the map's
    out = pipe(image, labels, output_type="pt", soft_edges=True, edge_radius=0.15, edge_epsilon=1e-5).images
    above, below = (pipe(image, np.full((1, 1), k), output_type="pt").images for k in (2, 0))
    share = ((out - below).abs().sum(1) / (above - below).abs().sum(1)).mean(2)[0]
    assert share[19] > 0.6 and share[22] < 0.4 and share[19] - share[22] > 2 * (share[14] - share[19]).abs()


@pytest.mark.parametrize(
    "given, error, words",
    [
        (np.zeros((4, 5)), TypeError, "integers"),
        (np.full((4, 5), 3), ValueError, r"0\.\.2, got 3\.\.3"),
        (np.full((4, 5), -1), ValueError, r"0\.\.2"),
        (np.ones((2, 4, 5)), ValueError, r"\(3,h,w\), got \(2, 4, 5\)"),
        (np.ones((1, 3, 4, 5)), ValueError, "adjustment_map"),
        (np.zeros((3, 4, 5)), ValueError, "not be zero"),
        (-np.ones((3, 4, 5)), ValueError, "not negative"),
        (np.full((3, 4, 5), np.nan), ValueError, "finite"),
        (np.zeros((0, 5), int), ValueError, "empty side"),
        (np.full((3, 4, 5), 1e308), ValueError, "finite"),
        (np.ones((4, 4, 5)), ValueError, r"\(3,h,w\), got \(4, 4, 5\)"),
        (torch.zeros(4, 5, dtype=torch.complex64), TypeError, "complex64"),
        (Image.new("RGB", (4, 5)), ValueError, "RGB"),
        (Image.new("LA", (4, 5)), ValueError, "LA"),
        (Image.new("RGBA", (4, 5)), ValueError, "RGBA"),
        ("sky", TypeError, "str"),
        ([np.zeros((4, 5), int)] * 2, ValueError, "list of 1"),
    ],
)
def test_bad_maps(pipe, given, error, words):
    with pytest.raises(error, match=words):
        pipe(photo(), given)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strength": -1},
        {"strength": "1"},
        {"output_type": "jpeg"},
        {"soft_edges": "no"},
        {"edge_radius": 0},
        {"edge_radius": 1.0},
        {"edge_radius": "0.1"},
        {"edge_epsilon": 0},
        {"edge_epsilon": float("nan")},
    ],
)
def test_bad_arguments(pipe, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        pipe(photo(), **arguments)


def test_half_precision_is_refused():
    half = SAAdjustNetPipeline(tiny_network(presets=2)).to(torch.bfloat16)
    with pytest.raises(ValueError, match="float32"):
        half(photo())


def test_without_presets_there_is_no_map():
    plain = SAAdjustNetPipeline(tiny_network())
    out = plain(photo(), output_type="pt")
    assert out.adjustment_maps is None and (out.images - photo()).abs().max() > 0.01
    for arguments in ({"adjustment_map": np.zeros((4, 4), int)}, {"soft_edges": True}):
        with pytest.raises(ValueError, match="needs a network with presets"):
            plain(photo(), **arguments)
    assert len(plain(photo(), return_dict=False)) == 2


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["network"] == ["diffretouch.models.sa_adjustnet", "SAAdjustNet"]
    loaded = SAAdjustNetPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded(photo(), output_type="pt").images, pipe(photo(), output_type="pt").images)
    next(tmp_path.glob("network/*.safetensors")).write_bytes(b"")
    with pytest.raises(ValueError, match="`name`"):
        SAAdjustNetPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no-such"):
        SAAdjustNetPipeline.from_pretrained(tmp_path / "no-such folder")


def test_bundled_model_knows_the_effect():
    """Photos that its training never saw; simulated on the spot."""
    pipe = SAAdjustNetPipeline.from_pretrained("small")
    assert sum(p.numel() for p in pipe.network.parameters()) < 500_000
    errors = []
    for path in sorted(PHOTOS.glob("*.jpg")):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
        target = local_effect(pixels, "foreground_pop_out")[None]
        soft, hard = (pipe(pixels, output_type="pt", soft_edges=edges).images for edges in (None, False))
        errors.append([delta_e76(x, target).item() for x in (pixels[None], soft, hard)])
    before, soft, hard = np.mean(errors, 0)
    assert soft < hard < 0.3 * before  # it mixes its presets unless it is told not to


def test_command_line(pipe, tmp_path, monkeypatch, capsys):
    pipe.save_pretrained(tmp_path / "model")
    command = ["retouch", PHOTOS / "gb82_dog-lossless.jpg", "-o", tmp_path / "out.png", "--model", tmp_path / "model"]
    monkeypatch.setattr("sys.argv", ["diffretouch", *map(str, command)])
    cli.app(standalone_mode=False)
    with Image.open(PHOTOS / "gb82_dog-lossless.jpg") as image, Image.open(tmp_path / "out.png") as out:
        expected = np.asarray(pipe(image.convert("RGB")).images[0]).astype(int)
        assert np.abs(np.asarray(out).astype(int) - expected).max() <= 1
