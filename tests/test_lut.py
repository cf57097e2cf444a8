import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from diffretouch import CSRNet, CSRNetL, CSRNetPipeline, DiffRetouchPipeline, Lut3D, bake_lut, hald_identity
from diffretouch.lut import fit_table, lut_nodes
from diffretouch.photo import icc

from .tiny import tiny_pipeline

PHOTO = Path(__file__).parent / "photos" / "gb82_flowers-lossless.jpg"


def table(size=5, seed=0):
    return Lut3D(np.random.default_rng(seed).uniform(-0.2, 1.2, (size, size, size, 3)))


def photo(height=37, width=53, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(size=(120, 80)):
    return np.asarray(Image.open(PHOTO).convert("RGB").resize(size, Image.Resampling.BICUBIC))


def csrnet(kind=CSRNet, **config):
    torch.manual_seed(0)
    network = kind(condition_size=48, **config)
    torch.nn.init.normal_(network.convs[2].weight, std=0.2)
    torch.nn.init.constant_(network.convs[2].bias, 0.4)
    return CSRNetPipeline(network)


# Interpolation, against independent ones


@pytest.mark.parametrize("size", [2, 5, 17])
@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_interpolation_equals_colour_science(size, interpolation):
    import colour

    lut, colours = table(size), np.random.default_rng(2).random((30, 40, 3)).astype(np.float32)
    reference = colour.LUT3D(lut.table.transpose(2, 1, 0, 3).astype(float))  # [r, g, b] there
    name = f"table_interpolation_{interpolation}"
    wanted = reference.apply(colours, interpolator=getattr(colour.algebra, name))
    assert np.abs(lut.apply(colours, interpolation=interpolation) - wanted).max() < 2e-6


def test_trilinear_equals_pillow():
    lut, image = table(9), photo()
    clamped = Lut3D(lut.table.clip(0, 1))
    wanted = Image.fromarray(image).filter(ImageFilter.Color3DLUT(9, clamped.table.ravel().tolist()))
    assert np.abs(clamped.apply(image, interpolation="trilinear").astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
@pytest.mark.parametrize("size", [2, 3, 33])
def test_the_identity_changes_nothing(size, interpolation):
    lut = Lut3D(lut_nodes(size).reshape(size, size, size, 3))
    for image in (photo(), photo().astype(np.uint16) * 257, photo(1, 1)):
        assert np.array_equal(lut.apply(image, interpolation=interpolation), image)
    floats = np.random.default_rng(0).random((9, 11, 3), np.float32)
    assert np.abs(lut.apply(floats, interpolation=interpolation) - floats).max() < 1e-6


def test_tetrahedral_greys_depend_on_greys_alone():
    lut = table(7)
    changed = lut.table.copy()
    for b, g, r in itertools.product(range(7), repeat=3):
        if not r == g == b:
            changed[b, g, r] = 9
    greys = np.linspace(0, 1, 100, dtype=np.float32)[:, None, None].repeat(3, 2)
    assert np.array_equal(Lut3D(changed).apply(greys), lut.apply(greys))


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_red_is_the_last_index(interpolation):
    nodes = np.zeros((3, 3, 3, 3), np.float32)
    nodes[0, 0, 2] = 1, 0, 0
    nodes[0, 2, 0] = 0, 1, 0
    nodes[2, 0, 0] = 0, 0, 1
    primaries = np.eye(3, dtype=np.float32)[None]
    assert np.array_equal(Lut3D(nodes).apply(primaries, interpolation=interpolation), primaries)


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_every_form_of_a_photo(interpolation):
    lut, image = table(), photo()
    floats = image.astype(np.float32) / 255
    exact = lut.apply(floats, interpolation=interpolation)
    assert exact.min() < 0 and exact.max() > 1  # floats are not clamped
    wanted = np.rint(exact.clip(0, 1) * 255)
    result = lut.apply(image, interpolation=interpolation)
    assert result.dtype == np.uint8 and np.abs(result - wanted).max() <= 1 and (result != wanted).mean() < 1e-3
    assert np.array_equal(np.asarray(lut.apply(Image.fromarray(image), interpolation=interpolation)), result)
    assert np.array_equal(lut.apply(image[:, ::-1], interpolation=interpolation), result[:, ::-1])
    assert np.array_equal(lut.apply(image[None], interpolation=interpolation)[0], result)
    deep = lut.apply(image.astype(np.uint16) * 257, interpolation=interpolation)
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - exact.clip(0, 1) * 255).max() < 0.02
    tensor = torch.from_numpy(floats).permute(2, 0, 1)
    for form in (tensor, tensor[None], tensor.double()):
        out = lut.apply(form, interpolation=interpolation)
        assert out.shape == form.shape and np.array_equal(out.reshape(tensor.shape).permute(1, 2, 0).numpy(), exact)
    itself = image.copy()
    assert lut.apply(itself, interpolation=interpolation, out=itself) is itself and np.array_equal(itself, result)


def test_a_table_takes_pictures_as_they_are_looked_at():
    """As the pipelines do: upright, by their colour profile, and what they carried is carried on."""
    lut, image, profile = table(), photo(), icc.cicp_profile(12, 13)
    wide = icc.from_srgb(image.astype(np.float32) / 255, profile)
    lying = Image.fromarray(np.rint(wide.clip(0, 1) * 255).astype(np.uint8)).transpose(Image.Transpose.ROTATE_90)
    lying.info["icc_profile"] = profile
    lying.getexif()[0x0112] = 6
    result = lut.apply(lying)
    assert result.size == (image.shape[1], image.shape[0])
    assert result.info["icc_profile"] == profile and result.getexif()[0x0112] == 1
    inside = icc.to_srgb(np.asarray(result, np.float32) / 255, profile)
    assert np.abs(inside - lut.apply(image.astype(np.float32) / 255).clip(0, 1)).mean() < 3 / 255


def test_domain():
    low, high = (-0.1, 0.2, 0.0), (0.9, 0.7, 2.0)
    lut = Lut3D(lut_nodes(9, low, high).reshape(9, 9, 9, 3), low, high)
    colours = np.random.default_rng(3).uniform(-0.4, 1.4, (20, 30, 3)).astype(np.float32)
    assert np.abs(lut.apply(colours) - colours.clip(low, high)).max() < 1e-6  # beyond: the domain's edge


def test_at_strength():
    lut, colours = table(), np.random.default_rng(3).random((20, 30, 3), np.float32)
    for strength in (0.0, 0.4, 1.0, 1.6):
        wanted = colours + strength * (lut.apply(colours) - colours)
        assert np.abs(lut.at_strength(strength).apply(colours) - wanted).max() < 3e-6
    with pytest.raises(ValueError, match="`strength`"):
        lut.at_strength(3)


# Files


@pytest.mark.parametrize("size, domain", [(2, ((0, 0, 0), (1, 1, 1))), (9, ((0.05, -0.1, 0), (0.9, 1.5, 0.75)))])
def test_files_are_read_by_others(tmp_path, size, domain):
    """OpenColorIO is what grading software reads with; colour-science is independent of it."""
    colour, ocio = pytest.importorskip("colour"), pytest.importorskip("PyOpenColorIO")
    lut = Lut3D(table(size).table, *domain, title='An "odd"\nname')
    path = tmp_path / "look.cube"
    lut.save(path)
    inside = np.random.default_rng(4).uniform(*domain, (50, 3)).astype(np.float32)
    wanted = lut.apply(inside[None])[0]

    read = colour.read_LUT(str(path))
    assert read.name == "An odd name" and np.abs(read.table - lut.table.transpose(2, 1, 0, 3)).max() < 1e-7
    found = read.apply(inside, interpolator=colour.algebra.table_interpolation_tetrahedral)
    assert np.abs(found - wanted).max() < 1e-5

    transform = ocio.FileTransform(str(path), interpolation=ocio.INTERP_TETRAHEDRAL)
    found = inside.copy()
    ocio.Config.CreateRaw().getProcessor(transform).getDefaultCPUProcessor().applyRGB(found)
    assert np.abs(found - wanted).max() < 1e-4

    again = Lut3D.load(path)
    assert np.abs(again.table - lut.table).max() < 1e-7 and again.title == "An odd name"
    assert np.allclose((again.domain_min, again.domain_max), domain)


def cube(*lines, size=2, end="\n", rows=8):
    return end.join([*lines, f"LUT_3D_SIZE {size}", *["0.25 0.5 1"] * rows, ""])


@pytest.mark.parametrize(
    "text",
    [
        cube(),
        cube(end="\r\n"),
        cube(end="\r"),
        "\ufeff" + cube(),
        cube("# a comment", "", 'TITLE "x"', "DOMAIN_MIN 0 0 0", "DOMAIN_MAX 1 1 1"),
        cube("LUT_3D_INPUT_RANGE 0.0 1.0"),
        cube().replace(" ", "\t"),
        cube().replace("0.25 0.5 1\n", "  2.5e-1   .5 +1.0  \n# between\n\n"),
        cube().removesuffix("\n"),
    ],
)
def test_ways_to_write_a_cube_file(tmp_path, text):
    path = tmp_path / "look.cube"
    path.write_bytes(text.encode())
    lut = Lut3D.load(path)
    assert lut.size == 2 and np.array_equal(lut.table, np.broadcast_to(np.float32([0.25, 0.5, 1]), (2, 2, 2, 3)))
    assert lut.domain_min == (0, 0, 0) and lut.domain_max == (1, 1, 1)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no colours"),
        (cube(rows=7), "says LUT_3D_SIZE 2, which is 8 lines of 3 numbers, and has 7 of 3"),
        (cube(rows=9), "has more of 3"),
        (cube(size=200), "8000000 lines"),
        (cube(size=257), "must be 2 to 256"),
        (cube(size=1), "must be 2 to 256"),
        (cube(size="99999999999999"), "must be 2 to 256"),
        (cube(size="-2"), "is no size"),
        (cube(size="two"), "is no size"),
        (cube("LUT_3D_SIZE 3"), "not the only one"),
        (cube(rows=7) + "nan 0 0\n", "NaN or infinity in line 8"),
        (cube(rows=7) + "0 inf 0\n", "NaN or infinity in line 8"),
        (cube(rows=7) + "0 1e300 0\n", "beyond all bounds"),
        (cube(rows=7) + "0 zero 0\n", "no 3-D .cube file: .*zero"),
        (cube(rows=7) + "0 0\n", "no 3-D .cube file: .*columns"),
        (cube().replace("0.25 0.5 1", "0.25 0.5"), "8 of 2"),
        (cube().replace("LUT_3D_SIZE 2", "LUT_1D_SIZE 8"), "1-D table"),
        ("LUT_1D_SIZE 2\n" + cube(), "1-D table"),
        (cube().replace("LUT_3D_SIZE 2\n", ""), "no line before says LUT_3D_SIZE"),
        (cube("DOMAIN_MIN 0 0"), "line 1 must have 3 finite numbers"),
        (cube("DOMAIN_MIN 0 0 nan"), "line 1 must have 3 finite numbers"),
        (cube("DOMAIN_MAX 1 0 1"), "empty domain"),
        (cube("LUT_3D_INPUT_RANGE 1 0"), "empty domain"),
        (cube("LUT_IN_VIDEO_RANGE"), "LUT_IN_VIDEO_RANGE', which is not known"),
        ("\xff\xd8\xff\xe0 a picture \x00\x01", "not known"),
    ],
)
def test_broken_cube_files(tmp_path, text, words):
    path = tmp_path / "look.cube"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"(?s)`path`: .*look.cube.*{words}"):
        Lut3D.load(path)


def test_saving(tmp_path, monkeypatch):
    lut, path = table(), tmp_path / "look.cube"
    with pytest.raises(ValueError, match="`path` must end in .cube"):
        lut.save(tmp_path / "look.vlt")
    lut.save(path)
    with pytest.raises(FileExistsError, match="overwrite"):
        lut.save(path)
    before = path.read_bytes()
    broken = table(6)
    broken.table = None  # a failure in the middle of writing
    with pytest.raises((TypeError, AttributeError)):
        broken.save(path, overwrite=True)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["look.cube"]
    table(6).save(path, overwrite=True)
    assert Lut3D.load(path).size == 6
    with pytest.raises(OSError):
        lut.save(tmp_path / "missing" / "look.cube")
    with pytest.raises(OSError):
        Lut3D.load(tmp_path / "missing.cube")


@pytest.mark.parametrize("dtype, close", [(np.uint8, 0.003), (np.uint16, 2e-5), (np.float32, 1e-6)])
def test_hald_images(dtype, close):
    identity = hald_identity(3, dtype)
    assert identity.shape == (27, 27, 3) and identity.dtype == dtype
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    assert identity[0, 8, 0] == white and identity[0, 8, 1] == 0  # red runs fastest
    assert identity[0, 9, 0] == 0 and identity[0, 9, 1] > 0 and (identity[-1, -1] == white).all()
    lut = table(9)
    clamped = Lut3D(lut.table.clip(0, 1))
    back = Lut3D.from_hald(clamped.hald(3, dtype))
    assert back.size == 9 and np.abs(back.table - clamped.table).max() < close
    # Hald's order, as others have it: the picture is the list of nodes, red fastest
    assert np.allclose(Lut3D.from_hald(identity).apply(identity), identity, atol=close * white)


def test_hald_of_the_largest_size():
    identity = hald_identity(16, np.uint8)
    assert identity.shape == (4096, 4096, 3)
    assert np.array_equal(Lut3D.from_hald(identity).apply(photo()), photo())


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: Lut3D(np.zeros((2, 2, 2))), ValueError, r"`table` must have shape \(N,N,N,3\)"),
        (lambda: Lut3D(np.zeros((1, 1, 1, 3))), ValueError, "N in 2..256"),
        (lambda: Lut3D(np.zeros((2, 2, 3, 3))), ValueError, "`table` must have shape"),
        (lambda: Lut3D(np.full((2, 2, 2, 3), np.nan)), ValueError, "`table` must be finite"),
        (lambda: Lut3D(table().table, (0, 0)), ValueError, "`domain_min` and `domain_max` must be three"),
        (lambda: Lut3D(table().table, (0, 0, 1)), ValueError, "the first smaller"),
        (lambda: table().apply(photo(), interpolation="cubic"), ValueError, "`interpolation` must be one of"),
        (lambda: table().apply([photo(), photo()]), ValueError, "`image` must be one photo, got 2"),
        (lambda: table().apply(np.full((4, 4, 3), np.nan)), ValueError, "`image` must be finite"),
        (lambda: table().apply(photo(), out=np.empty((3, 3, 3), np.uint8)), ValueError, "`out` must be a writeable"),
        (lambda: table().apply(photo(), out=5), ValueError, "`out` must be a writeable uint8 array"),
        (lambda: table().apply(Image.fromarray(photo()), out=photo()), ValueError, "`out` is for array input"),
        (lambda: table().apply(torch.rand(3, 4, 4), out=photo()), ValueError, "`out` is for array input"),
        (lambda: Lut3D.from_hald(photo(8, 9)), ValueError, "`image` must be a Hald image"),
        (lambda: Lut3D.from_hald(photo(9, 9)), ValueError, "`image` must be a Hald image"),
        (lambda: hald_identity(1), ValueError, r"`level` must be an integer in 2..16"),
        (lambda: hald_identity(4, np.int16), TypeError, "`dtype` must be uint8"),
        (lambda: bake_lut(csrnet(), photo(), size=1), ValueError, "`size` must be an integer in 2..256"),
        (lambda: bake_lut(csrnet(), photo(), size=257), ValueError, "`size` must be an integer in 2..256"),
        (lambda: bake_lut(csrnet(), photo(), domain="mine"), ValueError, "`domain` must be one of full, photo"),
        (lambda: bake_lut(csrnet(), photo(), strength=-1), ValueError, "`strength`"),
        (lambda: bake_lut(csrnet(), photo(), c=[0, 0, 0, 0]), ValueError, "`c` is for a pipeline with attributes"),
        (lambda: bake_lut("small", photo()), TypeError, "`pipeline` must be a DiffRetouchPipeline"),
        (lambda: bake_lut(tiny_pipeline(), photo(), c=torch.zeros(2, 4)), ValueError, "`c` must be one row"),
        (lambda: bake_lut(tiny_pipeline(), photo(), generator=5), TypeError, "`generator` must be a torch.Generator"),
        (lambda: bake_lut(tiny_pipeline(), photo(), regions=[]), ValueError, "`regions` differ between places"),
        (lambda: bake_lut(csrnet(), photo(), other=5, mix=0.5), TypeError, "`other` must be a CSRNetPipeline"),
    ],
)
def test_bad_inputs(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Baking


def test_a_series_has_one_noise(monkeypatch):
    """Also without a generator."""
    states, predict_grid = [], DiffRetouchPipeline.predict_grid

    def watched(self, image, c=None, *, generator):
        states.append(generator.get_state())
        return predict_grid(self, image, c, generator=generator)

    monkeypatch.setattr(DiffRetouchPipeline, "predict_grid", watched)
    bake_lut(tiny_pipeline(), [picture(), picture((60, 40))], size=3)
    assert len(states) == 2 and torch.equal(*states)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_baked_csrnet_is_its_colour_function(strength):
    pipe, image = csrnet(input_space="prophoto"), picture()
    lut = bake_lut(pipe, image, size=17, strength=strength)
    nodes = torch.from_numpy(lut_nodes(17))
    exact = pipe.colour_function(image, strength=strength)(nodes).detach().numpy()
    assert np.abs(lut.table.reshape(-1, 3) - exact).max() < 1e-6
    wanted = pipe.retouch(image, strength=strength).astype(int)
    difference = np.abs(lut.apply(image) - wanted)
    assert lut.error.exact and (lut.error.mean, lut.error.max) == pytest.approx((difference.mean(), difference.max()))
    assert 0 < lut.error.max < 20 and "interpolation alone" in str(lut.error)
    assert bake_lut(pipe, image, size=65, strength=strength).error.mean < lut.error.mean


def test_nodes_are_not_clamped():
    pipe, image = csrnet(), picture()
    pipe.network.convs[2].bias.data.fill_(0.95)
    lut = bake_lut(pipe, image, size=9)
    assert lut.table.max() > 1.1
    clamped = np.abs(Lut3D(lut.table.clip(0, 1)).apply(image).astype(int) - pipe.retouch(image)).mean()
    assert lut.error.mean < clamped


def test_the_photos_own_domain_is_finer():
    pipe, image = csrnet(), (picture() // 4 + 20).astype(np.uint8)
    full, own = bake_lut(pipe, image, size=9), bake_lut(pipe, image, size=9, domain="photo")
    assert own.domain_min == tuple(image.min((0, 1)) / 255) and own.domain_max == tuple(image.max((0, 1)) / 255)
    deep = image.astype(np.float32) / 255
    errors = [np.abs(lut.apply(deep) - pipe.retouch(deep)).mean() for lut in (full, own)]
    assert errors[1] < 0.5 * errors[0]
    flat = bake_lut(pipe, np.full((9, 9, 3), 90, np.uint8), size=3, domain="photo")  # no range at all
    assert flat.error.max <= 1


def test_a_mix_of_experts_is_baked():
    first, second = csrnet(), csrnet(input_space="prophoto")
    image = picture()
    lut = bake_lut(first, image, other=second, mix=0.3)
    wanted = first.retouch(image, other=second, mix=0.3).astype(int)
    assert np.abs(lut.apply(image) - wanted).max() == lut.error.max < 10


@pytest.mark.parametrize("kind", ["grid", "csrnet-l"])
def test_the_nearest_table_of_a_local_retouch(kind):
    image = picture()
    if kind == "grid":
        pipe = tiny_pipeline()
        call = {"c": [0.5, 0, 0, 0], "generator": torch.Generator().manual_seed(0)}
        grid = pipe.predict_grid(image, call["c"], generator=torch.Generator().manual_seed(0))
        wanted = pipe.apply_grid(image, grid)
    else:
        pipe, call = csrnet(CSRNetL), {}
        wanted = pipe.retouch(image)
    lut = bake_lut(pipe, image, size=17, **call)
    error = np.abs(lut.apply(image).astype(int) - wanted)
    assert not lut.error.exact and "no table can hold" in str(lut.error)
    assert (
        lut.error.mean == pytest.approx(error.mean())
        and 0 < lut.error.mean < 0.5 * np.abs(wanted.astype(int) - image).mean()
    )


def test_a_grid_without_places_is_held_well():
    """With one column and row of cells the retouch is a colour function: only interpolation is lost."""
    pipe, image = tiny_pipeline(), picture()
    predict = pipe.predict_grid
    pipe.predict_grid = lambda *args, **call: predict(*args, **call).mean((3, 4), keepdim=True)
    lut = bake_lut(pipe, image, size=33, generator=torch.Generator().manual_seed(0))
    assert lut.error.mean < 0.3 and lut.error.max <= 3


def test_the_fit_is_the_least_squares_one():
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import lsqr

    generator = torch.Generator().manual_seed(0)
    colours, wanted = torch.rand(400, 3, generator=generator), torch.rand(400, 3, generator=generator)
    start = torch.from_numpy(lut_nodes(4))
    found = fit_table(start, colours, wanted, smoothness=0.3, pull=1e-3)
    # The same problem as one matrix: tetrahedral weights by their definition, differences of neighbours, the pull
    rows = np.zeros((400, 64))
    for row, colour in zip(rows, colours.double().numpy() * 3, strict=True):
        cell = np.minimum(colour.astype(int), 2)
        fraction, corner, weight = colour - cell, cell.copy(), 1.0
        for channel in np.argsort(-fraction, kind="stable"):
            row[corner @ (1, 4, 16)] += weight - fraction[channel]
            weight = fraction[channel]
            corner[channel] += 1
        row[corner @ (1, 4, 16)] += weight
    number, steps = np.arange(64).reshape(4, 4, 4), []
    for axis in range(3):
        for a, b in zip(number.take(range(3), axis).ravel(), number.take(range(1, 4), axis).ravel(), strict=True):
            steps.append(np.eye(64)[b] - np.eye(64)[a])
    system = csr_array(np.vstack([rows, np.sqrt(0.3) * np.array(steps), np.sqrt(1e-3) * np.eye(64)]))
    missing = wanted.double().numpy() - rows @ start.double().numpy()
    for channel in range(3):
        right = np.concatenate([missing[:, channel], np.zeros(system.shape[0] - 400)])
        best = lsqr(system, right, atol=1e-12, btol=1e-12, iter_lim=2000)[0]
        assert np.abs((found - start)[:, channel].numpy() - best).max() < 1e-4
