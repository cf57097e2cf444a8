import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from scipy import ndimage

from diffretouch import bake_lut, cli, identity_grid, load_photo
from diffretouch.regions import as_mask, as_regions, blend, colour_mask, guided_filter, luminosity_mask, refine_mask
from diffretouch.settings import settings_of
from diffretouch.settings.region_texts import parse_region, region_mask

from .tiny import tiny_pipeline


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def photo(height=21, width=34, batch=1, seed=0):
    return 0.2 + 0.6 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def integers(image, dtype):
    top = np.iinfo(dtype).max
    return (image[0].permute(1, 2, 0).numpy() * top).round().astype(dtype)


HALF = np.arange(34)[None].repeat(21, 0) >= 17
SOFT = np.linspace(0, 1, 34, dtype=np.float32)[None].repeat(21, 0)
BRIGHT, WARM = [0.0, 0, 0, 0.9], {"temperature": 0.8}


@pytest.mark.filterwarnings("error")
def test_masks_of_long_photos_are_not_said_to_be_turned():
    """The model's thumbnail is square whatever the photo is: nothing is stretched that the photo is not."""
    pipe = tiny_pipeline(clipping_limit=0.01)
    mask = np.linspace(0, 1, 40, dtype=np.float32)[None].repeat(20, 0)
    regions = [(mask, BRIGHT)]
    pipe(photo(20, 40), [0] * 4, regions=regions, output_type="pt")
    pipe.predict_grid(photo(40, 80), [0] * 4, regions=regions)


def test_every_form_of_a_mask():
    grey = np.random.default_rng(0).integers(2, 256, (5, 7), dtype=np.uint8)
    expected = grey / np.float32(255)
    tensor = torch.from_numpy(expected)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    cut_out = np.dstack([np.full_like(grey, 90)] * 3 + [grey])
    forms = [
        grey,
        grey[..., None],
        grey.astype(np.uint16) * 257,
        expected,
        expected.astype(np.float64),
        tensor,
        tensor[None],
        tensor[None, None],
        torch.from_numpy(grey),
        *(Image.fromarray(form) for form in (grey, np.dstack([grey] * 3), opaque, cut_out, expected)),
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])),
    ]
    for form in forms:
        mask = as_mask(form)
        assert mask.dtype == np.float32
        np.testing.assert_allclose(mask, expected, atol=1e-7)
    for form in (HALF, Image.fromarray(HALF), torch.from_numpy(HALF)):
        assert np.array_equal(as_mask(form), HALF)
    assert (as_mask(Image.new("RGBA", (3, 2), (255, 255, 255, 0))) == 0).all()


def test_masks_of_other_sizes():
    for size in ((21, 34), (1, 1), (200, 333), (3, 2)):
        full = as_mask(np.ones((7, 11)), size)
        assert full.shape == size and (full == 1).all()
    large = as_mask(HALF, (63, 102))
    assert (large[:, :45] == 0).all() and (large[:, 57:] == 1).all() and 0 < large[30, 50] < 1
    assert as_mask(HALF, (21, 34)) is not HALF and np.array_equal(as_mask(HALF, (21, 34)), HALF)
    np.testing.assert_allclose(as_mask(SOFT, (7, 11)).mean(), 0.5, atol=1e-3)
    with pytest.warns(UserWarning, match="is it turned"):
        as_mask(HALF, (34, 21))


@pytest.mark.parametrize(
    "mask, error, words",
    [
        (np.zeros((0, 4)), ValueError, "no empty side"),
        (np.zeros((4, 4, 3)), ValueError, "shape"),
        (torch.zeros(2, 4, 4), ValueError, "shape"),
        (np.full((4, 4), 1.5), ValueError, "from 1.5 to 1.5"),
        (np.full((4, 4), -0.2), ValueError, r"in \[0,1\]"),
        (np.full((4, 4), np.nan), ValueError, r"in \[0,1\]"),
        (np.eye(4, dtype=np.uint8), ValueError, "bool or float"),
        (np.eye(4, dtype=np.int64), TypeError, "int64"),
        ([[0, 1]], TypeError, "list"),
        ("sky.png", TypeError, "str"),
        (Image.new("RGB", (4, 4), "red"), ValueError, "grey"),
        (Image.new("HSV", (4, 4)), ValueError, "HSV"),
        (Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 2), np.uint8)), ValueError, "two ways"),
    ],
)
def test_bad_masks(pipe, mask, error, words):
    with pytest.raises(error, match=words):
        pipe(photo(), regions=[(mask, None)])


@pytest.mark.parametrize(
    "regions, error, words",
    [
        (3, TypeError, "list of pairs"),
        ("sky.png:brightness=1", TypeError, "list of pairs"),
        ([HALF], TypeError, r"regions\[0\]"),
        ([(HALF, None), (HALF,)], TypeError, r"regions\[1\]"),
        ([(HALF, [[0, 0, 0, 0]] * 2)], ValueError, "one row"),
        ([(HALF, {"exposure": 1})], ValueError, "exposure"),
        ([(HALF, [0, 0, 0, float("nan")])], ValueError, "brightness"),
    ],
)
def test_bad_regions(pipe, regions, error, words):
    with pytest.raises(error, match=words):
        pipe(photo(), regions=regions)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, "tensor"])
def test_a_full_mask_is_the_plain_call_to_the_bit(pipe, dtype):
    image = photo() if dtype == "tensor" else photo()[0].permute(1, 2, 0).numpy()
    if dtype in (np.uint8, np.uint16):
        image = integers(photo(), dtype)
    output = dict(output_type="pil" if dtype is np.uint8 else "np")
    plain = pipe(image, BRIGHT, generator=seeded(), **output)
    for regions in ([(np.ones((3, 5)), BRIGHT)], [(HALF, WARM), (Image.new("1", (9, 4), 1), BRIGHT)]):
        out = pipe(image, {"contrast": 0.5}, regions=regions, generator=seeded(), **output)
        assert np.array_equal(np.asarray(out.images[0]), np.asarray(plain.images[0]))
        assert torch.equal(out.grids[:, 0], plain.grids) and out.grids.shape[1] == 1
        assert torch.equal(out.c, plain.c[:, None])


def test_nothing_covered_is_the_plain_call_to_the_bit(pipe):
    plain = pipe(photo(), BRIGHT, generator=seeded(), output_type="pt")
    assert torch.equal(pipe(photo(), BRIGHT, regions=[], generator=seeded(), output_type="pt").images, plain.images)
    with pytest.warns(UserWarning, match="zero everywhere"):
        out = pipe(photo(), BRIGHT, regions=[(HALF * 0.0, WARM)], generator=seeded(), output_type="pt")
    assert torch.equal(out.images, plain.images)


@pytest.mark.parametrize("form", ["tensor", np.uint8, np.uint16, np.float32])
def test_regions_are_the_plain_results_mixed(pipe, form):
    image = photo()
    if form != "tensor":
        image = photo()[0].permute(1, 2, 0).numpy() if form is np.float32 else integers(photo(), form)
    run = lambda c: pipe(image, c, generator=seeded(), output_type="np", strength=0.8).images[0]  # noqa: E731
    below, bright, warm = run(None), run(BRIGHT), run(WARM)
    regions = [(HALF, BRIGHT), (SOFT, WARM)]
    out = pipe(image, regions=regions, generator=seeded(), output_type="np", strength=0.8)
    over = np.where(HALF[..., None], bright, below)
    expected = over + SOFT[..., None] * (warm - over)  # the later region lies on top
    np.testing.assert_allclose(out.images[0], expected, atol=1e-4)
    assert np.abs(bright - below).max() > 1e-3 and np.abs(warm - below).max() > 1e-3
    assert out.grids.shape == (1, 3, 12, 4, 4, 4) and out.c.shape == (1, 3, 4)


def test_one_batched_sampling_with_the_same_noise(pipe, monkeypatch):
    seen, passes, apply = [], [], pipe.grid_head.apply
    monkeypatch.setattr(pipe.grid_head, "apply", lambda *args, **more: passes.append(1) or apply(*args, **more))
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, :4]))
    pipe(photo(batch=2), num_samples=2, regions=[(HALF, BRIGHT), (SOFT, WARM)], generator=seeded())
    hook.remove()
    assert len(passes) == 4 * 3  # one pass of slicing for each grid of each result
    assert len(seen) == 2 and seen[0].shape[0] == 12
    noise = seen[0].unflatten(0, (4, 3))
    assert torch.equal(noise, noise[:, :1].expand_as(noise))
    assert not torch.equal(noise[0], noise[1])
    # and it is the noise of the plain call
    plain = pipe(photo(batch=2), num_samples=2, generator=seeded()).grids
    out = pipe(photo(batch=2), num_samples=2, regions=[(HALF, BRIGHT)], generator=seeded())
    torch.testing.assert_close(out.grids[:, 0], plain, atol=1e-5, rtol=0)
    assert len(out.images) == 4


@pytest.mark.parametrize("generator", [seeded(3), [seeded(3)], None])
def test_stochastic_schedulers_draw_the_same_for_every_region(generator):
    pipe = tiny_pipeline(scheduler=DDPMScheduler(clip_sample=False))
    out = pipe(photo(), num_inference_steps=4, regions=[(HALF, BRIGHT), (SOFT, None)], generator=generator)
    # the same c, so the same grid, but for where its row stands in the batch
    torch.testing.assert_close(out.grids[0, 0], out.grids[0, 2], atol=1e-5, rtol=0)
    if generator is not None:
        plain = pipe.predict_grid(photo(), num_inference_steps=4, generator=seeded(3))
        torch.testing.assert_close(out.grids[:, 0], plain, atol=1e-5, rtol=0)
    two = pipe(photo(), num_samples=2, num_inference_steps=4, regions=[(HALF, None)], generator=seeded()).grids
    torch.testing.assert_close(two[:, 0], two[:, 1], atol=1e-5, rtol=0)
    assert (two[0] - two[1]).abs().max() > 1e-3


def test_grids_can_be_kept_and_applied_later(pipe, tmp_path):
    regions = [(HALF, BRIGHT), (SOFT, WARM)]
    expected = pipe(photo(), regions=regions, generator=seeded(), output_type="pt").images
    grids = pipe.predict_grid(photo(), regions=regions, generator=seeded())
    for grid in (grids, grids[0]):
        torch.testing.assert_close(pipe.apply_grid(photo(), grid, regions=regions).clamp(0, 1), expected)
    pixels = integers(photo(), np.uint16)
    result = pipe.apply_grid(pixels, grids, regions=regions)
    assert result.dtype == np.uint16
    assert np.abs(result / 65535 - expected[0].permute(1, 2, 0).numpy()).max() < 3e-5
    on_disk = np.memmap(tmp_path / "photo", np.uint16, "w+", shape=pixels.shape)
    pipe.apply_grid(pixels, grids, regions=regions, out=on_disk)
    assert np.array_equal(on_disk, result)
    in_place = pixels.copy()
    pipe.apply_grid(in_place, grids, regions=regions, out=in_place)
    assert np.array_equal(in_place, result)
    for wrong, given in ((grids, None), (grids, regions[:1]), (grids[:, 0], regions)):
        with pytest.raises(ValueError, match="`grid` must have shape"):
            pipe.apply_grid(photo(), wrong, regions=given)


def test_regions_may_be_gone_through_once(pipe):
    regions = [(HALF, BRIGHT), (SOFT, WARM)]
    expected = pipe.retouch(photo(), regions=regions, generator=seeded())
    assert torch.equal(pipe.retouch(photo(), regions=iter(regions), generator=seeded()), expected)


def test_photos_and_masks_with_gradients(pipe):
    """Nothing flows back through a pipeline, and nothing fails of it."""
    image, mask = photo().requires_grad_(), torch.full((4, 6), 0.5, requires_grad=True)
    made = [pipe.retouch(image, regions=[(mask, WARM)]), pipe.apply_grid(image, pipe.predict_grid(image))]
    assert not any(result.requires_grad for result in made)
    pipe.preview(image), pipe.sliders(image)(), bake_lut(pipe, image, size=3)
    luminosity_mask(image, 0, 0.5), colour_mask(image, 0, 90), refine_mask(mask, image)


def test_several_rows_of_c(pipe):
    c = torch.tensor([[0.0, 0, 0, -1], [0, 0, 0, 1]])
    out = pipe(photo(), c, regions=[(HALF, WARM)], generator=seeded())
    assert len(out.images) == 2 and out.c.shape == (2, 2, 4) and torch.equal(out.c[:, 0], c)
    assert len(pipe(photo(), c, regions=[(np.ones((2, 2)), WARM)], generator=seeded()).images) == 2


def test_soft_edges_show_no_seam(pipe):
    """On a gradient the mixed result stays as smooth as its parts; a hard mask, as a control, does not."""
    ramp = np.linspace(0.2, 0.8, 200, dtype=np.float32)[None, :, None].repeat(40, 0).repeat(3, 2)
    distance = np.arange(200)[None].repeat(40, 0) - 100.0
    soft = (1 / (1 + np.exp(-distance / 15))).astype(np.float32)

    grids = identity_grid(2)
    grids[1, 3::4] = 0.2  # the region's retouch: clearly brighter

    def roughness(mask):
        out = pipe.apply_grid(ramp, grids, regions=[(mask, BRIGHT)])
        assert out[20, 0, 0] < 0.25 and out[20, -1, 0] > 0.95
        return np.abs(np.diff(out, 2, axis=1)).max()

    assert roughness(distance > 0) > 0.15
    assert roughness(soft) < 1e-3
    small = as_mask(soft, (5, 20))  # as a segmenter would give it
    assert roughness(small) < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_blended_to_the_nearest_level(dtype):
    rng = np.random.default_rng(1)
    below, above = (rng.integers(0, np.iinfo(dtype).max + 1, (9, 13, 3), dtype=dtype) for _ in range(2))
    mask = rng.random((9, 13), dtype=np.float32)
    expected = np.rint(below + mask.astype(float)[..., None] * (above.astype(float) - below)).astype(int)
    result = blend(below.copy(), above, mask)
    assert result.dtype == dtype and np.abs(result - expected).max() <= 1 and (result != expected).mean() < 0.01
    for end, kept in ((0, below), (1, above)):
        assert np.array_equal(blend(below.copy(), above, np.full((9, 13), end, np.float32)), kept)


def test_luminosity_mask():
    ramp = np.linspace(0, 1, 256)[None, :, None].repeat(3, 0).repeat(3, 2)
    mask = luminosity_mask(ramp, 0.4, 0.6, softness=0.2)
    tones = ramp[0, :, 0]
    assert mask.shape == (3, 256) and mask.dtype == np.float32
    assert (mask[0, (tones > 0.401) & (tones < 0.599)] == 1).all()
    assert (mask[0, (tones < 0.199) | (tones > 0.801)] == 0).all()
    assert abs(mask[0, np.abs(tones - 0.3).argmin()] - 0.5) < 0.02  # half way down
    assert np.abs(np.diff(mask[0])).max() < 0.04
    assert (luminosity_mask(ramp * 1.9, 0.8, 1)[0, tones > 0.5] == 1).all()  # over white, as wide gamut is
    hard = luminosity_mask(ramp, 0, 0.5, softness=0)
    assert set(np.unique(hard)) == {0, 1} and hard[0, 0] == 1
    pixels = np.uint8(ramp * 255)
    for form in (pixels, Image.fromarray(pixels), torch.from_numpy(ramp).permute(2, 0, 1)):
        np.testing.assert_allclose(luminosity_mask(form, 0.4, 0.6), luminosity_mask(ramp, 0.4, 0.6), atol=0.04)


def test_colour_mask():
    hues = np.arange(360)
    hsv = np.stack([hues / 360, np.full(360, 0.9), np.full(360, 0.8)], -1)[None]
    from skimage.color import hsv2rgb

    wheel = hsv2rgb(hsv)
    for low, high in ((200, 260), (330, 30), (0, 360)):
        inside = (hues - low) % 360 <= ((high - low) % 360 or 360)
        mask = colour_mask(wheel, low, high, softness=20)[0]
        assert (mask[inside] > 0.99).all()
        distance = np.minimum((low - hues) % 360, (hues - high) % 360)
        assert (mask[~inside & (distance > 20)] == 0).all()
    greys = np.linspace(0, 1, 20)[None, :, None].repeat(3, 2)
    assert (colour_mask(greys, 0, 359) == 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda image: luminosity_mask(image, 0.6, 0.4),
        lambda image: luminosity_mask(image, -0.1, 0.4),
        lambda image: luminosity_mask(image, 0, float("nan")),
        lambda image: luminosity_mask(image, 0, 0.5, softness=-1),
        lambda image: luminosity_mask(image.repeat(2, 1, 1, 1), 0, 0.5),
        lambda image: colour_mask(image, 20, 20),
        lambda image: colour_mask(image, 0, 400),
        lambda image: colour_mask(image, 0, 40, softness=200),
        lambda image: luminosity_mask(image, "0", 0.5),
        lambda image: luminosity_mask(image, 0, 0.5, softness=None),
        lambda image: colour_mask(image, 0, "40"),
        lambda image: colour_mask(image, 0, 40, softness="1"),
        lambda image: refine_mask(HALF, image, radius="0.1"),
        lambda image: refine_mask(HALF, image, size=0),
        lambda image: refine_mask(HALF, image, size=None),
        lambda image: refine_mask(HALF, image, radius=0),
        lambda image: refine_mask(HALF, image, epsilon=0),
        lambda image: guided_filter(image, torch.zeros(1, 1, 3, 3), 2),
        lambda image: guided_filter(image, image, 0),
    ],
)
def test_bad_ranges(call):
    with pytest.raises(ValueError, match="`"):
        call(photo())


def test_guided_filter_against_its_definition():
    """Window by window, by least squares with NumPy; and box sums by SciPy."""
    rng = np.random.default_rng(0)
    guide, values, radius, epsilon = rng.random((3, 7, 9)), rng.random((2, 7, 9)), 2, 1e-2
    fits = np.empty((7, 9, 2, 4))
    for y in range(7):
        for x in range(9):
            window = np.s_[:, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            colours, wanted = guide[window].reshape(3, -1), values[window].reshape(2, -1)
            centred = colours - colours.mean(1, keepdims=True)
            covariance = centred @ centred.T / colours.shape[1] + epsilon * np.eye(3)
            slope = np.linalg.solve(
                covariance, centred @ (wanted - wanted.mean(1, keepdims=True)).T / colours.shape[1]
            )
            fits[y, x, :, :3] = slope.T
            fits[y, x, :, 3] = wanted.mean(1) - slope.T @ colours.mean(1)
    expected = np.empty((2, 7, 9))
    for y in range(7):
        for x in range(9):
            mean = fits[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].mean((0, 1))
            expected[:, y, x] = mean[:, :3] @ guide[:, y, x] + mean[:, 3]
    out = guided_filter(torch.from_numpy(guide)[None], torch.from_numpy(values)[None], radius, epsilon)
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-9)
    # a partition stays one
    shares = torch.rand(1, 4, 7, 9).softmax(1)
    total = guided_filter(torch.from_numpy(guide)[None].float(), shares, 50).sum(1)
    torch.testing.assert_close(total, torch.ones(1, 7, 9), atol=1e-5, rtol=0)


def test_refined_masks_follow_the_photo():
    image = np.full((80, 120, 3), 0.25, np.float32)
    image[:, 63:] = 0.7
    image += np.random.default_rng(0).normal(0, 0.01, image.shape).astype(np.float32)
    true = np.zeros((80, 120))
    true[:, 63:] = 1
    rough = ndimage.shift(true, (0, 3), order=0, mode="nearest")  # the edge is drawn 3 px off
    refined = refine_mask(rough, image, radius=0.06, epsilon=1e-4)
    assert refined.shape == (80, 120) and refined.dtype == np.float32
    assert ((refined > 0.5) != true).mean() < 0.2 * (rough != true).mean()
    assert refine_mask(rough, image, size=60).shape == (40, 60)
    assert (refine_mask(np.ones((4, 4)), image) == 1).all()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sky.png:brightness=0.4,temperature=-0.2", ("sky.png", {"brightness": 0.4, "temperature": -0.2})),
        (r"C:\masks\a b.png: contrast = 1", (r"C:\masks\a b.png", {"contrast": 1.0})),
        ("luminosity=0.6-1:brightness=-.3", (("luminosity", 0.6, 1.0), {"brightness": -0.3})),
        ("color=330-30:colorfulness=0.5", (("colour", 330.0, 30.0), {"colorfulness": 0.5})),
    ],
)
def test_parse_region(text, expected):
    assert parse_region(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "sky.png", ":brightness=1", "sky.png:", "sky.png:exposure=1", "a:brightness", "a:brightness=x",
     "a:brightness=nan", "a:brightness=4", "a:contrast=1,contrast=0", "luminosity=0.1.2-1:contrast=1",
     "luminosity=-0.1-0.3:contrast=1", "luminosity=0,2-0.3:contrast=1", "colour=blue:contrast=1"],
)  # fmt: skip
def test_bad_region_texts(text):
    with pytest.raises(ValueError, match="`"):
        parse_region(text)


def test_masks_from_files_are_upright(tmp_path):
    mask = Image.fromarray(np.uint8(HALF) * 255)
    exif = mask.getexif()
    exif[0x0112] = 6  # to be turned by a quarter when shown
    mask.save(tmp_path / "mask.png", exif=exif)
    assert region_mask(str(tmp_path / "mask.png"), None).shape == (34, 21)
    assert np.array_equal(region_mask(("luminosity", 0.5, 1.0), photo()), luminosity_mask(photo(), 0.5, 1.0))
    assert as_regions([(HALF, None)])[0] is None


def test_masks_that_cannot_be_read(tmp_path):
    Image.fromarray(np.uint8(HALF) * 255).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "cut.png", "empty.png", "folder.png"):
        with pytest.raises(ValueError, match=f"`region`: the mask .*{name} cannot be read"):
            region_mask(str(tmp_path / name), None)


def test_command_line(pipe, tmp_path, monkeypatch, capsys):
    pipe.save_pretrained(tmp_path / "model")
    Image.fromarray(integers(photo(), np.uint8)).save(tmp_path / "in.png")
    Image.fromarray(np.uint8(HALF) * 255).save(tmp_path / "mask.png")

    def retouch(name, *more):
        command = ["retouch", tmp_path / "in.png", "-o", tmp_path / name, "--model", tmp_path / "model", *more]
        monkeypatch.setattr("sys.argv", ["diffretouch", *map(str, command)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().err

    mask = f"{tmp_path / 'mask.png'}:brightness=0.9"
    for name, more in (("plain.png", ()), ("bright.png", ("--brightness", 0.9)), ("out.png", ("--region", mask))):
        assert retouch(name, "--contrast", 0.3, *more)[0] == 0  # contrast holds inside the region too
    plain, bright, out = (
        np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in ("plain", "bright", "out")
    )
    assert (plain != bright).any()
    assert np.abs(out - np.where(HALF[..., None], bright, plain)).max() <= 1
    more = ("--region", "luminosity=0.5-1:contrast=1", "--region", mask, "--refine-regions")
    assert retouch("two.png", *more)[0] == 0
    assert settings_of(load_photo(tmp_path / "two.png")).regions == (more[1], "mask.png:brightness=0.9")  # no folder
    for wrong in ("no.png:brightness=1", "mask.png:exposure=1", "luminosity=0.9-0.1:contrast=1", "in.png"):
        code, err = retouch("none.png", "--region", wrong)
        assert code == 1 and "Error" in err and not (tmp_path / "none.png").exists(), err
        assert ("Loading the model" in err) == wrong.startswith("luminosity"), err  # which needs the photo
