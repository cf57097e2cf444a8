"""The page's server as programs and strangers meet it: real requests to a real server."""

import base64
import contextlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from diffretouch.photo import load_photo
from diffretouch.regions import colour_mask, luminosity_mask
from diffretouch.settings import settings_of

from .tiny import tiny_pipeline

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from diffretouch.demo import opened, routes  # noqa: E402
from diffretouch.demo.looks import area_of, as_seed, decode_mask, look_of  # noqa: E402
from diffretouch.demo.models import Models  # noqa: E402
from diffretouch.demo.opened import Gone, OpenPhoto, OpenPhotos, on_disk  # noqa: E402
from diffretouch.demo.server import serving  # noqa: E402

PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"
C = (0.4, -0.2, 0.3, 0.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return Models([folder])


@pytest.fixture(scope="module")
def address(models):
    patch = pytest.MonkeyPatch()
    patch.setattr(routes, "MAX_MB", 1)
    with serving(models) as address:
        yield address
    patch.undo()


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def said(self):
        return json.loads(self.body)


def ask(address, path, body=None, method=None, **headers):
    """One request -> its answer, whatever the status; `Host` and all else can be given."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, own)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def visitor(address):
    return ask(address, "/api/about").said["visitor"]


def opened_by(address, who, path=PHOTO):
    answer = ask(address, "/api/open?" + urlencode({"name": Path(path).name}), Path(path).read_bytes(), X_Visitor=who)
    assert answer.status == 200, answer.body
    return answer.said["photo"]


def asking(**values):
    return json.dumps({"model": "tiny", "c": C, "seed": 3, **values})


# What the page asks for


def test_the_routes_are_listed_with_what_they_take(address):
    said = ask(address, "/api").said["routes"]
    assert len(said) <= 13 and all(len(text) > 9 for text in said.values())
    assert {"POST /api/open", "POST /api/grids", "POST /api/export", "POST /api/lut", "POST /api/sheet"} <= set(said)


def test_grids_are_those_of_the_whole_photo(address, models):
    who = visitor(address)
    photo = opened_by(address, who)
    answer = ask(address, "/api/grids", asking(photo=photo, c=[C, (0, 0, 0, 1)]), X_Visitor=who)
    grids = np.frombuffer(answer.body, np.float32).reshape([int(n) for n in answer.headers["X-Shape"].split(",")])
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    pixels = np.asarray(Image.open(PHOTO))
    expected = models["tiny"].predict_grid(pixels, [C, (0, 0, 0, 1)], generator=noise)
    np.testing.assert_allclose(grids, expected.numpy(), atol=1e-5)


def test_grids_are_held_in_range_by_the_page(address, models):
    """What a browser is told is enough: grids as the model makes them, what it sees of the photo, and the limit."""
    pipe, who = models["DiffRetouch"], visitor(address)
    photo, c, parts = opened_by(address, who), [[1, 1, -1, 1]], []
    asked = json.dumps({"photo": photo, "model": "DiffRetouch", "c": c, "seed": 3})
    for path, body in (("grids", asked), (f"pixels?photo={photo}&seen=DiffRetouch", None)):
        answer = ask(address, f"/api/{path}", body, X_Visitor=who)
        shape = [int(n) for n in answer.headers["X-Shape"].split(",")]
        parts.append(torch.from_numpy(np.frombuffer(answer.body, np.float32).copy()).reshape(shape))
    share = ask(address, "/api/about").said["models"]["DiffRetouch"]["clipping_limit"]
    with torch.no_grad():
        kept = pipe.grid_head.keep_in_range(parts[0], parts[1][None], share)
    noise = torch.Generator().manual_seed(3)
    expected = pipe.predict_grid(np.asarray(Image.open(PHOTO)), c, generator=noise)
    assert not torch.allclose(parts[0], kept, atol=1e-2)
    torch.testing.assert_close(kept, expected, atol=1e-5, rtol=0)


def test_guide_and_grids_are_for_pixels_from_0_to_1(tmp_path):
    """A head that works in [-1,1] inside, as the released one, gives the same picture by what the page is told."""
    from diffretouch.models.affine_grid import AffineGridHead, apply_affine, slice_grid

    torch.manual_seed(0)
    pipe = tiny_pipeline()
    config = {k: v for k, v in pipe.grid_head.config.items() if not k.startswith("_")} | {"pixel_range": (-1, 1)}
    pipe.grid_head = AffineGridHead(**config)
    pipe.save_pretrained(tmp_path / "tiny")
    models, image = Models([tmp_path / "tiny"]), torch.rand(1, 3, 20, 30)
    seen = models.seen("tiny", image[0].permute(1, 2, 0).numpy())
    grid = torch.from_numpy(models.grids_at("tiny", seen, [C], [0]))
    curve = {name: torch.tensor(value, dtype=torch.float32) for name, value in models.guide("tiny").items()}
    y = torch.einsum("bihw,ij->bjhw", image, curve["matrix"]) + curve["matrix_bias"][:, None, None]
    ramps = (y[:, :, None] - curve["thresholds"][:, :, None, None]).relu() * curve["slopes"][:, :, None, None]
    guide = (ramps.sum(2).mean(1, keepdim=True) + curve["bias"]).clamp(0, 1)
    own = models["tiny"]
    expected = own.apply_grid(image[0], own.predict_grid(image[0], C, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(apply_affine(slice_grid(grid, guide), image)[0], expected, atol=2e-5)


def test_the_file_is_the_librarys(address, models):
    who = visitor(address)
    photo = opened_by(address, who)
    areas = [{"name": "Greens", "kind": "colour", "low": 70, "high": 170, "softness": 20, "c": [0, 0, 0, 1]}]
    answer = ask(address, "/api/export", asking(photo=photo, strength=0.8, areas=areas, suffix=".png"), X_Visitor=who)
    assert answer.status == 200 and "gb82_dog-lossless_retouched.png" in answer.headers["Content-Disposition"]
    pixels = np.asarray(Image.open(PHOTO))
    regions, pipe = [(colour_mask(pixels, 70, 170), [0, 0, 0, 1])], models["tiny"]
    grid = pipe.predict_grid(pixels, C, regions=regions, generator=torch.Generator().manual_seed(3))
    expected = pipe.apply_grid(pixels, grid, strength=0.8, regions=regions)
    assert np.abs(np.asarray(Image.open(io.BytesIO(answer.body))).astype(int) - expected).max() <= 1


def test_pixels_come_raw_and_retouched(address, models):
    who = visitor(address)
    photo = opened_by(address, who)
    plain = ask(address, f"/api/pixels?photo={photo}", X_Visitor=who)
    pixels = np.asarray(Image.open(PHOTO))
    np.testing.assert_array_equal(np.frombuffer(plain.body, np.uint8).reshape(pixels.shape), pixels)
    query = urlencode({"photo": photo, "model": "CSRNet (automatic)", "strength": 0.5})
    done = ask(address, f"/api/pixels?{query}", X_Visitor=who)
    expected = np.asarray(models["CSRNet (automatic)"](Image.open(PHOTO), strength=0.5).images[0])
    np.testing.assert_array_equal(np.frombuffer(done.body, np.uint8).reshape(pixels.shape), expected)


def test_sheets_and_tables_of_an_open_photo(address):
    from diffretouch.lut import Lut3D

    who = visitor(address)
    photo = opened_by(address, who)
    sheet = ask(address, "/api/sheet", asking(photo=photo), X_Visitor=who)
    assert sheet.status == 200, sheet.body
    assert Image.open(io.BytesIO(sheet.body)).width > 5 * 256
    table = ask(
        address, "/api/lut", asking(photo=photo, size=9), X_Visitor=who, Content_Type="application/json; charset=utf-8"
    )
    assert json.loads(table.headers["X-Notes"])[0].startswith("Against the retouch")
    assert table.body.count(b"\n") > 9**3
    assert table.status == 200, table.body
    applied = ask(address, "/api/export", asking(photo=photo, table=table.body.decode(), suffix=".png"), X_Visitor=who)
    assert applied.status == 200, applied.body
    pixels = np.asarray(Image.open(io.BytesIO(applied.body)))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "look.cube").write_bytes(table.body)
        expected = Lut3D.load(Path(folder) / "look.cube").apply(
            np.asarray(Image.open(PHOTO)), interpolation="trilinear"
        )
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_an_area_is_what_the_page_shows(models):
    pixels = np.asarray(Image.open(PHOTO))
    tone = area_of({"kind": "tone", "low": 0.1, "high": 0.5, "softness": 0.15, "c": C, "invert": True}, pixels)
    np.testing.assert_allclose(tone.mask, 1 - luminosity_mask(pixels, 0.1, 0.5))
    assert tone.words is None, "the command line has no word for the other way round"
    assert (
        area_of({"kind": "tone", "low": 0, "high": 0.3, "softness": 0.15, "c": C}, pixels).words == "luminosity=0-0.3"
    )
    painted = area_of({"kind": "paint", "mask": png(np.eye(16, dtype=np.uint8) * 255), "c": C}, pixels)
    np.testing.assert_array_equal(painted.mask, np.eye(16))


def png(grey):
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "data",
    [None, {}, "", "https://example.org/mask.png", "data:image/png;base64,AAAA", "data:image/png;base64,no base 64!",
     "data:image/svg+xml;base64,AAAA", "data:image/png;base64," + "A" * (9 << 20),
     png(np.zeros((2100, 2100), np.uint8))],
)  # fmt: skip
def test_what_is_no_mask_is_refused(data):
    with pytest.raises(ValueError, match="paint it again"):
        decode_mask(data)


@pytest.mark.parametrize("seed", [-1, 1.5, 2**53, float("nan"), True, "x", [1]])
def test_variations_are_whole_numbers(seed):
    with pytest.raises(ValueError, match="seed"):
        as_seed(seed)


@pytest.mark.parametrize(
    "asked, told",
    [({"c": [1, 2]}, "`c`"), ({"brightness": "9"}, "`brightness`"), ({"strength": "3"}, "`strength`"),
     ({"strength": "x"}, "`strength`"), ({"contrast": "nan"}, "`c`")],
)  # fmt: skip
def test_looks_out_of_range_are_told(asked, told):
    with pytest.raises(ValueError, match=told):
        look_of({"model": "tiny", **asked})


# Programs


def test_retouch_is_the_command_line(address, models, tmp_path):
    answer = ask(address, "/api/retouch?brightness=0.5&seed=3&name=my%20dog.jpg&suffix=.png", PHOTO.read_bytes())
    (tmp_path / "page.png").write_bytes(answer.body)
    assert "my_dog_retouched.png" in answer.headers["Content-Disposition"]
    from typer.testing import CliRunner

    from diffretouch import cli

    out = tmp_path / "out.png"
    words = ["retouch", PHOTO, "-o", out, "--brightness", 0.5, "--seed", 3, "--model", models._names["tiny"]]
    assert CliRunner().invoke(cli.app, list(map(str, words))).exit_code == 0
    difference = np.asarray(Image.open(tmp_path / "page.png")).astype(int) - np.asarray(Image.open(out))
    assert np.abs(difference).max() <= 1
    assert settings_of(load_photo(tmp_path / "page.png")) == settings_of(load_photo(out))
    (tmp_path / "page.jxl").write_bytes(
        ask(address, "/api/retouch?brightness=0.5&seed=3&suffix=.jxl", PHOTO.read_bytes()).body
    )
    again = ask(address, "/api/retouch?strength=0&name=page.jxl", (tmp_path / "page.jxl").read_bytes())  # opened, too
    assert (
        "page_retouched.jxl" in again.headers["Content-Disposition"] and again.headers["Content-Type"] == "image/jxl"
    )
    (tmp_path / "again.jxl").write_bytes(again.body)
    first, second = (load_photo(tmp_path / name).pixels for name in ("page.jxl", "again.jxl"))
    assert np.abs(first - second).mean() < 0.02 and np.abs(first - np.asarray(Image.open(out)) / 255).mean() < 0.03
    assert ask(address, "/api/sweep?seed=1", PHOTO.read_bytes()).body.startswith(b"\x89PNG")
    assert ask(address, "/api/lut?size=5", PHOTO.read_bytes()).body.count(b"\n") > 125


@pytest.mark.parametrize(
    "query, status, told",
    [
        ("brightness=5", 422, "`brightness`"),
        ("strength=3", 422, "`strength`"),
        ("seed=-4", 422, "seed"),
        ("model=/etc", 422, "/etc"),
        ("suffix=.exe", 422, ".exe"),
    ],
)
def test_wrong_values_are_told(address, query, status, told):
    answer = ask(address, f"/api/retouch?{query}", PHOTO.read_bytes())
    assert answer.status == status and told in answer.said["error"] and "diffretouch-" not in answer.said["error"]


def bad_photo(kind, tmp_path):
    if kind == "huge":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.new("1", (20_000, 15_000)).save(tmp_path / "huge.png")
        return (tmp_path / "huge.png").read_bytes()
    return {"text": b"I am no photo.", "empty": b"", "half": PHOTO.read_bytes()[:2000], "large": bytes(1_100_000)}[
        kind
    ]


@pytest.mark.parametrize(
    "kind, status, told",
    [("text", 415, "holiday.png cannot be read"), ("empty", 415, "empty"), ("half", 415, "holiday.png cannot be read"),
     ("huge", 415, "64 megapixels"), ("large", 413, "1 MB")],
)  # fmt: skip
def test_bad_photos_are_told_by_name_alone(address, tmp_path, kind, status, told):
    answer = ask(address, "/api/retouch?name=..%2F..%2Fholiday.png", bad_photo(kind, tmp_path))
    assert answer.status == status and told in answer.said["error"] and str(tmp_path) not in answer.said["error"]
    assert "diffretouch-" not in answer.said["error"] and "../" not in answer.said["error"]


def test_depth_and_transparency_are_kept_or_told(address, tmp_path):
    import tifffile

    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30, 4), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    data = (tmp_path / "deep.tif").read_bytes()
    answer = ask(address, "/api/retouch?name=deep.tif", data)
    (tmp_path / "result.tif").write_bytes(answer.body)
    result = load_photo(tmp_path / "result.tif")
    assert result.bit_depth == 16 and result.alpha is not None and not json.loads(answer.headers["X-Notes"])
    notes = " ".join(json.loads(ask(address, "/api/retouch?name=deep.tif&suffix=.jpg", data).headers["X-Notes"]))
    assert "white" in notes and "16" in notes


# Strangers


@pytest.mark.parametrize("path", ["/", "/api", "/api/about", "/index.html"])
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::", "10.0.0.9"]
)
def test_foreign_names_are_refused(address, path, host):
    assert ask(address, path, Host=host).status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://127.0.0.1:1"]
)
def test_foreign_pages_are_refused_and_get_no_permission(address, origin):
    for path, body in (("/api/about", None), ("/api/retouch", PHOTO.read_bytes()), ("/api/open", b"x")):
        answer = ask(address, path, body, Origin=origin)
        assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers
    assert ask(address, "/api/about", Sec_Fetch_Site="cross-site").status == 403
    assert ask(address, "/api/about", method="OPTIONS", Origin=origin).status == 403


def test_its_own_page_is_let_in(address):
    own = address.rstrip("/")
    answer = ask(address, "/api/about", Origin=own, Sec_Fetch_Site="same-origin")
    assert answer.status == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    port = urlsplit(address).port
    assert ask(address, "/api/about", Host=f"localhost:{port}", Origin=f"http://localhost:{port}").status == 200


def test_photos_belong_to_who_opened_them(address):
    one, other = visitor(address), visitor(address)
    photo = opened_by(address, one)
    same = opened_by(address, other)  # the very same file
    assert photo != same
    for who in (other, "", "guessed"):
        assert ask(address, "/api/export", asking(photo=photo), X_Visitor=who).status == 410
    ask(address, "/api/close", f"{other} {photo}".encode())
    ask(address, "/api/close", other.encode())
    assert ask(address, "/api/grids", asking(photo=photo, c=[C]), X_Visitor=one).status == 200
    assert ask(address, "/api/grids", asking(photo=same, c=[C]), X_Visitor=other).status == 410
    ask(address, "/api/close", one.encode())
    assert ask(address, "/api/grids", asking(photo=photo, c=[C]), X_Visitor=one).status == 410


@pytest.mark.parametrize(
    "path", ["/../models.py", "/%2e%2e/models.py", "/api/../../setup.cfg", "//etc/passwd", "/samples/../app.py"]
)
def test_files_of_this_computer_are_not_served(address, path):
    answer = ask(address, path)
    assert answer.status in (404, 405) and b"import" not in answer.body


def test_where_others_can_reach_it_a_key_is_asked_for(models, capfd):
    with serving(models, host="0.0.0.0") as address:
        key = capfd.readouterr().err.rpartition("key ")[2].strip()
        assert len(key) >= 16
        assert ask(address, "/").status == 401 and b"password" in ask(address, "/").body
        assert ask(address, "/api/about").status == ask(address, "/page.js").status == 401
        assert ask(address, "/api/about", Authorization="Bearer x").status == 401
        assert ask(address, "/api/about", Authorization=f"Bearer {key}").status == 200
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        let_in = ask(address, "/key", urlencode({"key": key}), **form)
        cookie = let_in.headers["Set-Cookie"]
        assert let_in.status == 303 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert ask(address, "/api/about", Cookie=cookie.split(";")[0]).status == 200
        assert ask(address, "/", Host="evil.example", Authorization=f"Bearer {key}").status == 403
        assert ask(address, "/", Host="192.0.2.7", Authorization=f"Bearer {key}").status == 200, (
            "an address cannot be rebound"
        )


# Photos that are open


def test_photos_are_few_short_and_apart():
    now = 0.0
    photos = OpenPhotos(most=2, idle=100, clock=lambda: now)
    a, b = photos.add("one", "a"), photos.add("other", "b")
    assert photos.get("one", a) == "a"
    with pytest.raises(Gone):
        photos.get("other", a)
    c = photos.add("one", "c")
    with pytest.raises(Gone):
        photos.get("other", b)  # the quietest made room
    now = 90.0
    photos.get("one", c)
    now = 150.0
    photos.close_idle()
    assert len(photos) == 1 and photos.get("one", c) == "c"
    photos.close("other")
    photos.close("one", a)
    assert len(photos) == 1
    photos.close("one")
    assert len(photos) == 0


def test_pixels_lie_on_disk_where_there_is_room(tmp_path):
    photo = OpenPhoto(PHOTO, "../dog.jpg", tmp_path)
    assert isinstance(photo.photo.pixels, np.memmap) and photo.name == "dog.jpg" and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(photo.photo.pixels, np.asarray(Image.open(PHOTO)))


def test_a_full_disk_ends_nothing(tmp_path):
    """A mapped file with holes on a full disk would end the process by a signal."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    try:
        pixels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
        kept = on_disk(pixels, disk)
        assert not isinstance(kept, np.memmap)
        np.testing.assert_array_equal(kept, pixels)
        assert isinstance(on_disk(pixels[:500], disk), np.memmap)
        code = (
            "import sys, numpy as np\nfrom diffretouch.demo.opened import on_disk\n"
            "kept = [on_disk(np.ones((1 << 20, 1), np.uint8), sys.argv[1]) for _ in range(6)]\n"
            "print(sum(isinstance(one, np.memmap) for one in kept), sum(int(one.sum()) for one in kept) >> 20)"
        )
        run = subprocess.run([sys.executable, "-c", code, disk], capture_output=True, text=True)
        assert run.returncode == 0 and run.stdout.split()[1] == "6" and int(run.stdout.split()[0]) < 6, run.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_no_room_for_an_upload_is_told(address, models, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(opened.tempfile, "TemporaryDirectory", full)
    answer = ask(address, "/api/retouch", PHOTO.read_bytes())
    assert answer.status == 507 and "No space left" in answer.said["error"]


LACKS = ["unet/diffusion_pytorch_model.safetensors", "grid_head/config.json", "scheduler/scheduler_config.json"]


@pytest.mark.parametrize("lack", LACKS)
def test_a_model_that_is_not_whole_is_told_by_its_name(tmp_path, models, lack, monkeypatch):
    whole, folder = tmp_path / "whole", tmp_path / "mine"
    tiny_pipeline().save_pretrained(whole)
    shutil.copytree(whole, folder)
    (folder / lack).unlink()
    told = f"the model in mine cannot be loaded: .*{Path(lack).name}.* mine"
    (tmp_path / "own").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    with pytest.raises(ValueError, match=told), serving([folder, whole]):
        pass
    assert not list((tmp_path / "own").iterdir())
    with serving([whole, folder]) as address:  # it is asked for later
        who = visitor(address)
        answer = ask(address, "/api/model?label=mine", X_Visitor=who)
        assert answer.status == 422 and str(tmp_path) not in answer.said["error"]
        photo = opened_by(address, who)
        body = json.dumps({"model": "whole", "c": [[0, 0, 0, 0]], "seed": 0, "photo": photo})
        assert ask(address, "/api/grids", body, X_Visitor=who).status == 200, "the others work"


def test_nothing_is_left_when_the_page_ends(models, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving(models) as address:
        who = visitor(address)
        opened_by(address, who)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(address, timeout=5):
        pytest.fail("it still answers")
