import base64
import contextlib
import io
import json
import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch import DiffRetouchPipeline
from diffretouch.demo.histogram import channel_counts, clipped, histogram_svg
from diffretouch.demo.models import Look, Models, regions_of
from diffretouch.demo.visit import SHOWN_PIXELS, Visit, Visits, check_seed, data_url, decode_mask, safe_stem
from diffretouch.photo import PhotoError, load_photo
from diffretouch.regions import colour_mask
from diffretouch.settings import settings_of

from .tiny import tiny_pipeline

PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"
C = (0.4, -0.2, 0.3, 0.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return Models([folder])


@pytest.fixture
def visit(tmp_path):
    visit = Visit(PHOTO, "my dog.jpg", tmp_path)
    yield visit
    visit.close()


def read(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


# Models and visits


def test_directories_come_before_the_bundled_models(models, tmp_path):
    assert models.labels[0] == "tiny" and "DiffRetouch" in models.labels
    assert models["tiny"] is models["tiny"], "loaded once"
    assert models.label_of("small") == "DiffRetouch" and models.label_of("tiny") == "tiny"
    assert models.label_of("another") is None
    with pytest.raises(ValueError, match="`model` must be one of tiny, DiffRetouch"):
        models["/etc"]
    with pytest.raises(ValueError, match="holds no model"):
        Models([tmp_path])


def test_what_is_shown_has_a_megapixel_at_most(visit, tmp_path):
    assert visit.shown.shape == (256, 256, 3), "small photos are not enlarged"
    assert isinstance(visit.photo.pixels, np.memmap), "the photo itself does not stay in memory"
    Image.new("RGB", (3000, 1111)).save(tmp_path / "wide.png")
    height, width, _ = Visit(tmp_path / "wide.png", "wide.png", tmp_path).shown.shape
    assert 0.99 * SHOWN_PIXELS < height * width <= 1.001 * SHOWN_PIXELS and abs(width / height - 2.7) < 0.01


def test_moves_are_those_of_the_sliders(models, visit):
    look = Look("tiny", C, 0.7, seed=3)
    visit.moved(models, look)
    visit._sliders[1].wait()
    noise = torch.Generator().manual_seed(3)
    expected = models["tiny"].sliders(Image.open(PHOTO), generator=noise)(C, 0.7)
    np.testing.assert_array_equal(visit.moved(models, look), np.asarray(expected))
    again = visit._sliders[1]
    visit.moved(models, look._replace(c=(0, 0, 0, 1)))
    assert visit._sliders[1] is again, "the same photo and seed are not sampled again"
    visit.moved(models, look._replace(seed=4))
    assert visit._sliders[1] is not again


def test_a_rested_hand_gets_what_the_pipeline_makes(models, visit):
    look = Look("tiny", C, 1.0, seed=3)
    expected = models["tiny"](Image.open(PHOTO), C, generator=torch.Generator().manual_seed(3)).images[0]
    np.testing.assert_array_equal(visit.sampled(models, look), np.asarray(expected))


def test_areas_have_their_own_sliders(models, visit):
    look = Look("tiny", (0.0, 0.0, 0.0, 0.0))
    plain = visit.sampled(models, look)
    area = visit.add_area(look, "colour=70-170", name="Greens")
    assert (area.name, area.c) == ("Greens", look.c)
    visit.areas[0] = area._replace(c=(0, 0, 0, 1.0))
    mask = colour_mask(np.asarray(Image.open(PHOTO)), 70, 170)
    np.testing.assert_allclose(area.mask, mask)
    assert mask.max() == 1 and mask.min() == 0
    visit.moved(models, look)
    visit._sliders[1].wait()
    for picture in (visit.sampled(models, look), visit.moved(models, look)):
        assert (picture[mask == 1] != plain[mask == 1]).mean() > 0.05
    np.testing.assert_array_equal(visit.sampled(models, look)[mask == 0], plain[mask == 0])
    assert visit.add_area(look, "colour=70-170", name="Greens").name == "Greens 2"
    assert [visit.add_area(look).name, visit.add_area(look).name] == ["Area 1", "Area 2"]
    with pytest.raises(ValueError, match="There can be 4 areas"):
        visit.add_area(look)
    with pytest.raises(ValueError, match="no area 'Area 7'"):
        visit.area("Area 7")


@pytest.mark.parametrize("words", ["mask.png", "/etc/passwd", "colour=9-9", "luminosity=0.9-0.1"])
def test_areas_are_not_read_from_files_by_their_names(visit, words):
    with pytest.raises(ValueError):
        visit.add_area(Look("tiny"), words)
    assert not visit.areas


def test_painted_masks_of_any_size_are_taken(models, visit):
    look = Look("tiny")
    visit.add_area(look)
    assert regions_of(visit.areas) is None, "an area in which nothing is painted changes nothing"
    painted = np.zeros((64, 64), np.uint8)
    painted[:32] = 255
    visit.paint("Area 1", data_url(painted))
    assert visit.areas[0].mask.shape == (256, 256)
    assert visit.areas[0].mask[:120].min() == 1 and visit.areas[0].mask[136:].max() == 0
    visit.paint("Area 1", data_url(painted), follow_edges=True)
    assert 0.9 < visit.areas[0].mask[:100].mean() <= 1 and visit.areas[0].mask[156:].mean() < 0.1


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"mask": 1},
        "",
        "https://example.org/mask.png",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,not base 64!",
        "data:image/svg+xml;base64,AAAA",
        "data:image/png;base64," + "A" * (9 << 20),
        data_url(np.zeros((2100, 2100), np.uint8)),
        data_url(np.zeros((8, 8, 3), np.uint8), lossless=False).replace("jpeg", "png"),
    ],
)
def test_what_is_no_mask_is_refused(data):
    with pytest.raises(ValueError, match="paint it again"):
        decode_mask(data)


def test_four_variations_differ(models, visit):
    pictures = visit.samples(models, Look("tiny", C), [1, 2, 3, 1], size=96)
    assert [picture.shape for picture in pictures] == [(96, 96, 3)] * 4
    np.testing.assert_array_equal(pictures[0], pictures[3])
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()


def test_a_saved_photo_says_how_it_was_made(models, visit, tmp_path):
    look = Look("tiny", C, 0.8, seed=5)
    path, notes = visit.save(models, look)
    assert path.name == "my_dog_retouched.jpg" and not notes
    saved, source = load_photo(path), load_photo(PHOTO)
    settings = settings_of(saved)
    assert tuple(settings.c.values()) == C and (settings.strength, settings.seed, settings.model) == (0.8, 5, "tiny")
    grid = models["tiny"].predict_grid(source.pixels, C, generator=torch.Generator().manual_seed(5))
    expected = models["tiny"].apply_grid(source.pixels, grid, 0.8)
    assert np.abs(saved.pixels - np.clip(expected, 0, 1)).mean() < 0.01
    assert visit.save(models, look, ".png")[0].suffix == ".png"
    folder = path.parent
    assert folder.parent == tmp_path and oct(folder.stat().st_mode)[-3:] == "700"
    visit.close()
    assert not folder.exists(), "results go with the visit"
    with pytest.raises(ValueError, match="closed"):
        visit.save(models, look)


def test_depth_and_transparency_are_kept_or_told(models, tmp_path):
    import tifffile

    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30, 4), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    visit = Visit(tmp_path / "deep.tif", "deep.tif", tmp_path)
    path, notes = visit.save(models, Look("tiny"))
    assert (
        path.suffix == ".tif" and load_photo(path).bit_depth == 16 and load_photo(path).alpha is not None and not notes
    )
    path, notes = visit.save(models, Look("tiny"), ".jpg")
    assert load_photo(path).bit_depth == 8 and any("white" in note for note in notes) and any("16" in n for n in notes)


def broken(kind, path):
    if kind == "text":
        path.write_text("I am no photo.")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "half":
        path.write_bytes(PHOTO.read_bytes()[:2000])
    elif kind == "huge":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.new("1", (20_000, 15_000)).save(path)
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "half", "huge", "missing"])
def test_broken_photos_are_told_by_name_alone(tmp_path, kind):
    path = broken(kind, tmp_path / "secret-folder.png")
    with pytest.raises(PhotoError, match="^holiday.png cannot be read") as told:
        Visit(path, "../../holiday.png", tmp_path)
    assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 3)])
def test_the_smallest_photos_work(models, tmp_path, size):
    Image.new("RGB", size, (90, 120, 60)).save(tmp_path / "dot.png")
    visit = Visit(tmp_path / "dot.png", "dot.png", tmp_path)
    look = Look("tiny", C)
    assert visit.moved(models, look).shape == visit.sampled(models, look).shape == (size[1], size[0], 3)
    assert "path" in histogram_svg(visit.shown, visit.moved(models, look))
    assert load_photo(visit.save(models, look)[0]).pixels.shape == (size[1], size[0], 3)
    visit.close()


class Closable:
    closed = 0

    def close(self):
        self.closed += 1


def test_visits_are_few_short_and_apart():
    now = 0.0
    visits = Visits(most=2, idle=100, clock=lambda: now)
    a, b, c, d = (Closable() for _ in range(4))
    visits.open("a", a)
    visits.open("b", b)
    assert visits["a"] is a and visits["b"] is b
    visits["a"]
    visits.open("c", c)
    assert b.closed and not a.closed, "the quietest makes room"
    with pytest.raises(ValueError, match="No photo is open"):
        visits["b"]
    visits.open("a", d)
    assert a.closed == 1 and visits["a"] is d, "another photo takes the place of the first"
    now = 90.0
    visits["c"]
    now = 150.0
    visits.close_idle()
    assert d.closed and not c.closed
    visits.close("c")
    visits.close("c")
    assert c.closed == 1 and len(visits) == 0


@pytest.mark.parametrize("seed", [-1, 1.5, 2**53, float("nan"), True, None, "7"])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(ValueError, match="seed"):
        check_seed(seed)


def test_names_are_harmless():
    assert safe_stem("../../etc/pass wd.jpg") == "pass_wd" and safe_stem("..") == "photo"
    assert len(safe_stem("x" * 300 + ".png")) == 80 and safe_stem("Überblick ü.tif") == "Überblick_ü"


def test_pictures_travel_without_loss(visit):
    np.testing.assert_array_equal(read(data_url(visit.shown)), visit.shown)
    lossy = read(data_url(visit.shown, lossless=False)).astype(int)
    assert 0 < np.abs(lossy - visit.shown).mean() < 3


def test_histogram_counts(visit):
    half = np.zeros((10, 20, 3), np.uint8)
    half[:, 10:] = 255
    np.testing.assert_array_equal(channel_counts(half), [[100] + [0] * 62 + [100]] * 3)
    assert clipped(half) == (0.5, 0.5)
    assert "50.0% black, 50.0% white" in histogram_svg(half, half)
    counts = channel_counts(visit.shown)
    expected = np.stack([np.histogram(visit.shown[..., k], 64, (0, 256))[0] for k in range(3)])
    assert np.abs(counts / counts.sum() - expected / expected.sum()).max() < 0.01


# The server, as a program sees it


@pytest.fixture(scope="module")
def address(models):
    pytest.importorskip("gradio")
    from diffretouch.demo import server

    patch = pytest.MonkeyPatch()
    patch.setattr(server, "MAX_MB", 1)
    before = dict(os.environ)
    with server.serving(models) as address:
        folder = os.environ["GRADIO_TEMP_DIR"]
        assert address.startswith("http://127.0.0.1:") and Path(folder).is_dir()
        yield address
    assert not Path(folder).exists(), "temporary files go with the server"
    assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == {**before, "PYTEST_CURRENT_TEST": ""}
    patch.undo()


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield client
    client.close()


def ask(client, path, **values):
    from gradio_client import handle_file

    return client.predict(photo=handle_file(str(path)), **values)


def test_programs_see_three_endpoints(client):
    endpoints = client.view_api(return_format="dict")
    assert set(endpoints["named_endpoints"]) == {"/retouch", "/sweep", "/lut"}
    assert not endpoints["unnamed_endpoints"]
    names = [parameter["parameter_name"] for parameter in endpoints["named_endpoints"]["/retouch"]["parameters"]]
    assert names[:8] == "photo colorfulness contrast temperature brightness strength seed model".split()


def test_retouch_endpoint_is_the_command_line(client, models, tmp_path, monkeypatch):
    import sys

    from diffretouch import cli

    result = Path(ask(client, PHOTO, brightness=0.5, seed=3, api_name="/retouch"))
    assert result.name == "gb82_dog-lossless_retouched.jpg"
    out = tmp_path / "out.jpg"
    arguments = ["retouch", PHOTO, "-o", out, "--brightness", 0.5, "--seed", 3, "--model", models._names["tiny"]]
    monkeypatch.setattr(sys, "argv", ["diffretouch", *map(str, arguments)])
    with contextlib.suppress(SystemExit):
        cli.main()
    np.testing.assert_array_equal(np.asarray(Image.open(result)), np.asarray(Image.open(out)))
    assert settings_of(load_photo(result)).c["brightness"] == 0.5


def test_sweep_endpoint_makes_a_sheet(client):
    sheet = Image.open(ask(client, PHOTO, api_name="/sweep"))
    assert sheet.format == "PNG" and sheet.width > 5 * 256 and sheet.height > 4 * 256


def test_lut_endpoint_makes_a_table(client):
    from diffretouch.lut import Lut3D

    table = Lut3D.load(ask(client, PHOTO, temperature=1, size=9, api_name="/lut"))
    assert table.size == 9
    assert (table.apply(np.full((1, 1, 3), 0.5, np.float32)) != 0.5).any()


@pytest.mark.parametrize(
    "values, told",
    [
        (dict(brightness=5), "brightness"),
        (dict(strength=3), "strength"),
        (dict(seed=-4), "seed"),
        (dict(model="/etc"), "/etc"),
        (dict(suffix=".exe"), ".exe"),
        (dict(photo="text"), "holiday.png.? cannot be read"),
    ],
)
def test_endpoints_tell_what_is_wrong(client, tmp_path, values, told):
    values = dict(values)
    path = broken(values.pop("photo"), tmp_path / "holiday.png") if "photo" in values else PHOTO
    with pytest.raises(Exception, match=told) as error:
        ask(client, path, api_name="/retouch", **values)
    assert "diffretouch-" not in str(error.value), "says where the server keeps its files"


def get(address, path):
    try:
        with urllib.request.urlopen(address.rstrip("/") + path) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.mark.parametrize("path", ["/etc/passwd", "setup.cfg", str(PHOTO), "../../etc/passwd", __file__])
def test_files_of_this_computer_are_not_served(address, path):
    assert get(address, f"/gradio_api/file={path}")[0] == 403


def test_too_large_uploads_are_refused(address):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(1_100_000)
    body += b"\r\n--x--\r\n"
    request = urllib.request.Request(
        address + "gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(request)
    assert told.value.code == 413


def test_the_page_keeps_to_itself(address):
    config = json.loads(get(address, "/config")[1])
    assert not config["analytics_enabled"] and not config.get("run_history", False)
    page = get(address, "/")[1].decode()
    assert "fonts.googleapis" not in page and "cdnjs" not in page
    functions = config["dependencies"]
    public = {function["api_name"] for function in functions if function["api_visibility"] == "public"}
    assert public == {"retouch", "sweep", "lut"}
    assert get(address, "/monitoring/summary")[0] in (403, 404, 405) or b"disabled" in get(address, "/monitoring")[1]


def test_help_names_the_page():
    from typer.testing import CliRunner

    from diffretouch import cli

    answer = CliRunner().invoke(cli.app, ["demo", "--help"])
    assert answer.exit_code == 0 and "--port" in answer.output


def test_bundled_model_is_offered():
    assert isinstance(Models()["DiffRetouch"], DiffRetouchPipeline)


def test_what_a_retouch_by_region_cannot_is_told():
    models, look = Models(), Look("SA-AdjustNet (automatic)", strength=0.5)
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    assert not models.is_steered(look.model) and (models.retouch(look, pixels) != pixels).any()
    for ask, words in ((models.table, "retouches by region"), (models.sheet, "has no sliders")):
        with pytest.raises(ValueError, match=words):
            ask(look, pixels)
