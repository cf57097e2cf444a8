"""What holds for every pipeline: one verb, photos as they are looked at, precision, offloading, diffusers' ways."""

import accelerate
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from diffretouch import (
    AdaptiveLut3D,
    AdaptiveLut3DPipeline,
    CSRNet,
    CSRNetL,
    CSRNetPipeline,
    DiffRetouchPipeline,
    HDRNet,
    HDRNetPipeline,
    SAAdjustNet,
    SAAdjustNetPipeline,
    bake_lut,
    luminosity_mask,
)
from diffretouch.models.sa_adjustnet import SMALL_ADJUSTNET
from diffretouch.photo import icc
from diffretouch.regions import as_mask

from .tiny import tiny_pipeline


def csrnet(kind=CSRNet):
    torch.manual_seed(0)
    return CSRNetPipeline(kind(condition_size=32).eval())


def sa_adjustnet(presets=2):
    torch.manual_seed(0)
    return SAAdjustNetPipeline(SAAdjustNet(**SMALL_ADJUSTNET, presets=presets).eval())


def hdrnet():
    torch.manual_seed(0)
    network = HDRNet(input_size=32, grid_size=8, depth=2, knots=3).eval()
    torch.nn.init.normal_(network.prediction.weight, std=0.05)
    return HDRNetPipeline(network)


def adaptive_lut():
    torch.manual_seed(0)
    network = AdaptiveLut3D(size=5).eval()
    network.basis.data += 0.05 * torch.randn(network.basis.shape)
    return AdaptiveLut3DPipeline(network)


PIPELINES = {
    "diffretouch": tiny_pipeline,
    "csrnet": csrnet,
    "csrnet-l": lambda: csrnet(CSRNetL),
    "sa-adjustnet": sa_adjustnet,
    "hdrnet": hdrnet,
    "adaptive-lut": adaptive_lut,
}
every_pipeline = pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)


def noise(pipe):
    return {"generator": torch.Generator().manual_seed(0)} if pipe.has_sliders else {}


def pixels(height=24, width=32):
    return np.random.default_rng(0).integers(40, 210, (height, width, 3), dtype=np.uint8)


def p3():
    return icc.cicp_profile(12, 13)  # Display P3


@every_pipeline
def test_retouch_gives_back_the_form_that_came(make):
    pipe, array = make(), pixels()
    expected = np.asarray(pipe(array, **noise(pipe)).images[0]).astype(int)
    forms = [array, array.astype(np.uint16) * 257, array.astype(np.float32) / 255]
    forms += [Image.fromarray(array), torch.from_numpy(array / np.float32(255)).permute(2, 0, 1), array[None]]
    for form in forms:
        result = pipe.retouch(form, **noise(pipe))
        assert type(result) is type(form)
        if isinstance(form, Image.Image):
            levels = np.asarray(result)
        else:
            assert result.dtype == form.dtype and result.shape == form.shape
            levels = np.asarray(result, np.float64)
            levels = levels.transpose(1, 2, 0) if torch.is_tensor(form) else levels.reshape(array.shape)
            levels = levels * {"uint8": 1, "uint16": 1 / 257}.get(str(form.dtype), 255)
        assert np.abs(levels.clip(0, 255) - expected).max() <= 1.01
    out = np.empty_like(array)
    assert pipe.retouch(array, out=out, **noise(pipe)) is out and np.abs(out.astype(int) - expected).max() == 0
    for bad in (np.empty((2, 2, 3), np.uint8), out.astype(float), [1]):
        with pytest.raises(ValueError, match="`out` must be a writeable uint8 array"):
            pipe.retouch(array, out=bad, **noise(pipe))
    with pytest.raises(ValueError, match="`image` must be one photo, got 2"):
        pipe.retouch([array, array])
    assert isinstance(pipe.has_sliders and pipe.has_regions and pipe.has_colour_function, bool)


@every_pipeline
def test_pil_photos_are_upright(make):
    """A photo of a phone that was held upright: its pixels lie, its EXIF says how they are looked at."""
    pipe, upright = make(), Image.fromarray(pixels())
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    lying.info["exif"] = exif.tobytes()
    lying._exif = None
    lying = Image.open(saved(lying, exif=exif.tobytes()))
    expected = pipe(upright, **noise(pipe)).images[0]
    for result in (pipe(lying, **noise(pipe)).images[0], pipe.retouch(lying, **noise(pipe))):
        assert result.size == upright.size and np.array_equal(np.asarray(result), np.asarray(expected))
        kept = result.getexif() if result.getexif() else Image.open(saved(result, exif=result.info["exif"])).getexif()
        assert kept[0x0112] == 1 and kept[0x010F] == "maker"


def saved(image, **options):
    import io

    file = io.BytesIO()
    image.save(file, "PNG", **options)
    file.seek(0)
    return file


@every_pipeline
def test_pil_photos_of_other_profiles_are_read_by_them(make):
    pipe, array = make(), pixels()
    srgb = Image.fromarray(array)
    wide = Image.fromarray(np.rint(icc.from_srgb(array / np.float32(255), p3()) * 255).astype(np.uint8))
    wide.info["icc_profile"] = p3()
    expected = np.asarray(pipe(srgb, strength=0.3, **noise(pipe)).images[0]).astype(int)
    read = pipe(wide, strength=0.3, output_type="np", **noise(pipe)).images[0] * 255  # sRGB
    assert np.abs(read - expected).max() < 4
    for result in (pipe(wide, strength=0.3, **noise(pipe)).images[0], pipe.retouch(wide, strength=0.3, **noise(pipe))):
        assert result.info["icc_profile"] == p3()
        shown = ImageCms.profileToProfile(result, ImageCms.ImageCmsProfile(saved_profile(p3())),
                                          ImageCms.createProfile("sRGB"))  # fmt: skip
        inside = ((expected > 6) & (expected < 249)).all(-1)  # elsewhere P3 and sRGB end at other colours
        assert np.abs(np.asarray(shown).astype(int) - expected)[inside].max() <= 5  # three roundings to 8 bits
    wide.info["icc_profile"] = b"no profile"
    with pytest.warns(UserWarning, match="its colour profile is not used"):
        pipe(wide, **noise(pipe))


def saved_profile(profile):
    import io

    return io.BytesIO(profile)


def test_every_entry_takes_photos_as_they_are_looked_at():
    pipe, upright = tiny_pipeline(), Image.fromarray(pixels())
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[0x0112] = 6
    lying = Image.open(saved(lying, exif=exif.tobytes()))
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    grid = pipe.predict_grid(upright, generator=seeded())
    assert torch.equal(grid, pipe.predict_grid(lying, generator=seeded()))
    same = lambda a, b: np.array_equal(np.asarray(a), np.asarray(b))  # noqa: E731
    assert same(pipe.apply_grid(upright, grid), pipe.apply_grid(lying, grid))
    assert same(pipe.preview(upright, generator=seeded()), pipe.preview(lying, generator=seeded()))
    assert same(pipe.sliders(upright, generator=seeded())(), pipe.sliders(lying, generator=seeded())())
    assert same(pipe.attributes_of(upright, upright, iterations=1), pipe.attributes_of(lying, lying, iterations=1))
    assert same(luminosity_mask(upright, 0.2, 0.5), luminosity_mask(lying, 0.2, 0.5))
    assert same(as_mask(upright.convert("L")), as_mask(Image.open(saved(lying.convert("L"), exif=exif.tobytes()))))
    one = csrnet()
    assert same(bake_lut(one, upright, size=3).table, bake_lut(one, lying, size=3).table)


@every_pipeline
def test_autocast_reaches_no_pixels(make):
    pipe, photo = make(), torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1))
    if pipe.has_sliders:
        grid = pipe.predict_grid(photo, **noise(pipe))
        retouch = lambda: pipe.apply_grid(photo, grid)  # noqa: E731
        sliders = pipe.sliders(photo, **noise(pipe))
    else:
        retouch = lambda: pipe.retouch(photo)  # noqa: E731
    expected = retouch()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(retouch(), expected)
        if pipe.has_sliders:
            assert sliders.grid([0.2, 0, 0, 0]).dtype == torch.float32
    if pipe.has_sliders:
        with torch.autocast("cpu", torch.bfloat16):
            inside = sliders.grid([0.2, 0, 0, 0])
        assert torch.equal(inside, sliders.grid([0.2, 0, 0, 0]))


@every_pipeline
@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_broken_weights_are_told(make, output_type):
    pipe = make()
    for model in pipe.components.values():
        if isinstance(model, torch.nn.Module):
            for parameter in model.parameters():
                parameter.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        pipe(pixels(), output_type=output_type, **noise(pipe))


@every_pipeline
def test_offloading_with_accelerates_hooks(make):
    pipe, array = make(), pixels()
    expected = np.asarray(pipe(array, **noise(pipe)).images[0])
    baked = (
        None if not (pipe.has_sliders or pipe.has_colour_function) else bake_lut(pipe, array, size=3, **noise(pipe))
    )
    pipe.enable_model_cpu_offload(device="cpu")
    assert np.array_equal(np.asarray(pipe(array, **noise(pipe)).images[0]), expected)
    pipe.remove_all_hooks()
    for name, model in pipe.components.items():  # what `enable_sequential_cpu_offload` does, on a CPU
        if isinstance(model, torch.nn.Module) and name not in pipe._exclude_from_cpu_offload:
            accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=len(model._parameters) > 0)
    assert np.array_equal(np.asarray(pipe(array, **noise(pipe)).images[0]), expected)
    if baked is not None:
        assert np.allclose(bake_lut(pipe, array, size=3, **noise(pipe)).table, baked.table, atol=1e-6)


@every_pipeline
def test_diffusers_ways_of_loading(make, tmp_path):
    pipe, array = make(), pixels()
    other = type(pipe).from_pipe(pipe)
    assert np.array_equal(np.asarray(other.retouch(array, **noise(pipe))), pipe.retouch(array, **noise(pipe)))
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(pretrained_model_name_or_path=tmp_path)
    assert np.array_equal(again.retouch(array, **noise(pipe)), pipe.retouch(array, **noise(pipe)))
    derived = type("Derived", (type(pipe),), {}).from_pretrained(tmp_path)
    assert np.array_equal(derived.retouch(array, **noise(pipe)), pipe.retouch(array, **noise(pipe)))
    for kind in {CSRNetPipeline, SAAdjustNetPipeline, DiffRetouchPipeline, HDRNetPipeline} - {type(pipe)}:
        with pytest.raises(ValueError, match=f"holds a {type(pipe).__name__}, which {kind.__name__} cannot open"):
            kind.from_pretrained(tmp_path)
    for given in (None, False):
        with pytest.raises(ValueError, match="`use_safetensors` must be True"):
            type(pipe).from_pretrained(tmp_path, use_safetensors=given)
    for name in (None, 5):
        with pytest.raises(TypeError, match="`name` must be"):
            type(pipe).from_pretrained(name)


def test_a_folder_called_as_a_bundled_model_is_told(tmp_path, monkeypatch):
    csrnet().save_pretrained(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="'small' is the bundled model; the folder .* ./small") as told:
        CSRNetPipeline.from_pretrained("small")
    assert told[0].filename == __file__
    assert CSRNetPipeline.from_pretrained("./small").network.config.condition_size == 32


@every_pipeline
@pytest.mark.parametrize("dtype, most", [(torch.float64, 1), (torch.bfloat16, 6), (torch.float16, 2)], ids=str)
def test_networks_of_another_precision(make, dtype, most):
    pipe, array = make(), pixels()
    expected = pipe.retouch(array, **noise(pipe))
    pipe.to(dtype)
    if isinstance(pipe, SAAdjustNetPipeline):
        with pytest.raises(ValueError, match="`network` must be in float32"):
            pipe.retouch(array)
        return
    assert np.abs(pipe.retouch(array, **noise(pipe)).astype(int) - expected).max() <= most


def test_a_region_is_judged_where_its_mask_is():
    """Bright pixels far from a region of shadows do not hold its brightness back."""
    pipe = DiffRetouchPipeline.from_pretrained("small")
    pipe.set_progress_bar_config(disable=True)
    dark = np.tile(np.linspace(20, 60, 64)[:, None, None], (1, 64, 3))
    split = np.concatenate([dark, np.full((64, 64, 3), 235.0)], 1).astype(np.uint8)
    mask = np.zeros((64, 128), np.float32)
    mask[:, :64] = 1
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    c = {"brightness": 1.0}
    region = pipe(split, [0] * 4, regions=[(mask, c)], generator=seeded(), output_type="np").images[0][:, :64]
    free = pipe.config.clipping_limit
    pipe.register_to_config(clipping_limit=None)
    unlimited = pipe(split, c, generator=seeded(), output_type="np").images[0][:, :64]
    pipe.register_to_config(clipping_limit=free)
    whole = pipe(split, c, generator=seeded(), output_type="np").images[0][:, :64]
    assert abs(region.mean() - unlimited.mean()) < 0.01 and whole.mean() < region.mean()


def test_integer_maps_of_two_photos_are_not_weights():
    with pytest.raises(TypeError, match="`adjustment_map`.*come as a list"):
        sa_adjustnet(2)(pixels(), np.zeros((2, 4, 5), np.int64))


def test_wide_gamut_stays_at_strength_0():
    wide = np.random.default_rng(0).uniform(-0.1, 1.2, (8, 9, 3)).astype(np.float32)
    for make in PIPELINES.values():
        pipe = make()
        np.testing.assert_allclose(pipe.retouch(wide, strength=0.0, **noise(pipe)), wide, atol=1e-5)


@pytest.mark.parametrize("kind", ["csrnet", "csrnet-l", "sa", "hdrnet", "lut"])
@pytest.mark.parametrize("form", [np.uint8, np.float32, "tensor"])
def test_monochrome_stays_monochrome_in_every_pipeline(kind, form):
    torch.manual_seed(0)
    pipe = {
        "csrnet": lambda: CSRNetPipeline.from_pretrained("small"),
        "csrnet-l": lambda: CSRNetPipeline.from_pretrained("small-l"),
        "sa": lambda: SAAdjustNetPipeline.from_pretrained("small"),
        "hdrnet": lambda: HDRNetPipeline(HDRNet()),
        "lut": lambda: AdaptiveLut3DPipeline(AdaptiveLut3D()),
    }[kind]()
    if kind in ("hdrnet", "lut"):  # as they begin they have no colours of their own
        for values in pipe.network.parameters():
            values.data += 0.02 * torch.randn(values.shape)
    rows, columns = np.mgrid[0:70, 0:90] / 90
    grey = (0.45 + 0.3 * np.sin(5 * columns) * np.cos(4 * rows))[..., None].repeat(3, 2)
    photo = (255 * grey).astype(np.uint8) if form == np.uint8 else grey.astype(np.float32)
    result = pipe.retouch(torch.from_numpy(photo).permute(2, 0, 1) if form == "tensor" else photo)
    result = result.permute(1, 2, 0).numpy() if form == "tensor" else result
    assert np.abs(result.astype(float) - photo).max() > 0 and np.ptp(result, axis=2).max() < 1e-6
    tinted = photo.copy()
    tinted[:9, :9, 2] //= 2 if form == np.uint8 else tinted.dtype.type(2)
    assert np.ptp(pipe.retouch(tinted), axis=2)[40:].max() > 0  # a photo with colours anywhere is none
