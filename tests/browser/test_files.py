"""Photo files in and out."""

import sys

import numpy as np
import pytest
from PIL import Image

from diffretouch.photo import icc, load_photo
from diffretouch.settings import settings_of

from .hands import PHOTO, open_photo, picture, press, rest, told


def test_the_file_keeps_what_the_photo_carried(visitor, tmp_path):
    source = tmp_path / "my photo.jpg"
    with Image.open(PHOTO) as photo:
        exif = photo.getexif()
        exif[0x010F] = "A camera"
        exif[0x0112] = 6
        photo.resize((500, 300)).save(source, exif=exif, quality=90)
    page = visitor()
    open_photo(page, source)
    assert "300 × 500" in page.inner_text("#name"), "upright"
    press(page, "temperature", "End")
    with page.expect_download() as download:
        page.dblclick("#save")  # impatience does no harm
    assert download.value.suggested_filename == "my_photo_retouched.jpg"
    download.value.save_as(tmp_path / "library.jpg")
    assert settings_of(load_photo(tmp_path / "library.jpg")).c["temperature"] == 1
    page.route("**/api/export", lambda route: route.abort())
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "browser.jpg")
    for name in ("library.jpg", "browser.jpg"):
        with Image.open(tmp_path / name) as result:
            assert result.size == (300, 500) and result.getexif()[0x010F] == "A camera", name
            assert result.getexif().get(0x0112, 1) == 1, name


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"{more}>'
    "<tiff:Artist>A name</tiff:Artist></rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("space", ["srgb", "display p3", "adobe rgb"])
def test_the_browsers_own_jpeg_keeps_what_the_photo_carried(visitor, tmp_path, space):
    """EXIF and XMP upright, the profile where it is that of the new pixels, and the colours in any case."""
    profiles = {
        "srgb": icc.srgb_profile(),
        "display p3": icc.cicp_profile(12, 13),
        "adobe rgb": icc.adobe_rgb_profile(),
    }
    rng, profile = np.random.default_rng(1), profiles[space]
    pixels = np.kron(rng.integers(0, 256, (3, 4, 3), np.uint8), np.ones((64, 64, 1), np.uint8))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 6
    carried = {"exif": exif, "xmp": XMP.format(more="").encode(), "icc_profile": profile, "comment": b"Seen"}
    Image.fromarray(pixels).save(tmp_path / "carried.jpg", quality=98, subsampling=0, **carried)
    page = visitor()
    page.route("**/api/export", lambda route: route.abort())
    open_photo(page, tmp_path / "carried.jpg")
    press(page, "strength", "Home")
    page.select_option("#format", ".jpg")
    page.fill("#quality", "100")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "saved.jpg")
    with Image.open(tmp_path / "saved.jpg") as saved:
        assert saved.size == (192, 256) and saved.info["comment"] == b"Seen"
        assert saved.getexif()[0x010F] == "A camera" and saved.getexif()[0x0112] == 1
        assert saved.info["xmp"] == XMP.format(more="").replace('n="6"', 'n="1"').encode()
        assert (saved.info.get("icc_profile") == profile) == (space != "adobe rgb"), "that of the new pixels"
    before, after = (load_photo(tmp_path / name).pixels for name in ("carried.jpg", "saved.jpg"))
    assert np.abs(before - after)[8:56, 8:56].mean() * 255 < 2, "the colours are the photo's"


def test_the_browser_says_that_it_keeps_no_gain_map(visitor, tmp_path):
    xmp = XMP.format(more=' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"').encode()
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "hdr.jpg", xmp=xmp)
    page = visitor()
    page.route("**/api/export", lambda route: route.abort())
    open_photo(page, tmp_path / "hdr.jpg")
    page.select_option("#format", ".jpg")
    with page.expect_download() as download:
        page.click("#save")
    told(page, "keeps no HDR rendition")
    with Image.open(download.value.path()) as saved:
        assert "xmp" not in saved.info


def test_what_cannot_be_opened_is_told(visitor, tmp_path):
    page = visitor()
    open_photo(page)
    for name, data, words in (
        ("holiday.png", b"I am no photo.", "holiday.png cannot be read"),
        ("broken.jpg", PHOTO.read_bytes()[:2000], "broken.jpg cannot be read"),
        ("nothing.jpg", b"", "nothing.jpg is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#files", tmp_path / name)
        assert "/" not in told(page, words)
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(200_000_000)
    page.set_input_files("#files", tmp_path / "large.png")
    told(page, "large.png has 200 MB; the most is 100 MB")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    page.set_input_files("#files", tmp_path / "huge.png")
    told(page, "64 megapixels")
    assert page.get_attribute("#stage", "data-state") == "photo", "the photo that was open stays"
    assert page.locator("#strip button").count() <= 1
    Image.new("CMYK", (40, 30), (10, 200, 90, 20)).save(tmp_path / "print.jpg")
    open_photo(page, tmp_path / "print.jpg")
    np.testing.assert_allclose(
        picture(page, plain=True).astype(int), np.rint(load_photo(tmp_path / "print.jpg").pixels * 255), atol=1
    )
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    open_photo(page, tmp_path / "dot.png")
    assert tuple(picture(page, plain=True)[0, 0]) == (0, 128, 128)


def test_one_bad_file_of_several_stops_none(visitor, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(PHOTO.read_bytes()[:2000])
    (tmp_path / "text.png").write_bytes(b"I am no photo.")
    (tmp_path / "nothing.jpg").write_bytes(b"")
    page = visitor()
    page.set_input_files("#files", [tmp_path / "nothing.jpg", tmp_path / "broken.jpg", PHOTO, tmp_path / "text.png"])
    said = told(page, "nothing.jpg is empty.*broken.jpg cannot be read")
    assert "text.png" not in said and page.inner_text("#name").startswith(PHOTO.name)
    rest(page)
    assert page.locator("#strip button").count() == 2
    downloads = []
    page.on("download", lambda one: downloads.append(one))
    page.click("#save-all")
    told(page, "1 of 2 photos are in your downloads. text.png cannot be read")
    assert len(downloads) == 1 and page.inner_text("#name").startswith(PHOTO.name)


@pytest.mark.parametrize("package, name, head", [
    ("pillow_heif", "IMG_1.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    ("rawpy", "IMG_2.dng", b"II*\0\x08\0\0\0\1\0\x12\xc6\1\0\4\0\0\0\1\4\0\0\0\0\0\0"),
])  # fmt: skip
def test_without_its_package_a_camera_file_opens_by_its_preview(visitor, tmp_path, monkeypatch, package, name, head):
    """What to install is said, and what the camera put beside the picture is open meanwhile."""
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    (tmp_path / name).write_bytes(head + bytes(400) + PHOTO.read_bytes())
    page = visitor()
    page.set_input_files("#files", tmp_path / name)
    told(page, "pip install .diffretouch.*preview is open meanwhile")
    rest(page)
    assert page.inner_text("#name").startswith(f"{name} (preview).jpg") and picture(page).shape == (256, 256, 3)


def test_a_second_photo_comes_over_the_first(visitor, tmp_path):
    Image.new("RGB", (3000, 2000), (120, 80, 60)).save(tmp_path / "first.tif")
    page = visitor()
    page.evaluate("() => {}")
    page.set_input_files("#files", tmp_path / "first.tif")
    page.set_input_files("#files", PHOTO)
    page.wait_for_function("() => document.querySelector('#name').innerText.startsWith('gb82')")
    rest(page)
    assert picture(page).shape == (256, 256, 3)


def test_two_visitors_never_see_each_other(visitor, tmp_path):
    Image.new("RGB", (300, 200), (200, 60, 60)).save(tmp_path / "red.png")
    Image.new("RGB", (300, 200), (60, 60, 200)).save(tmp_path / "blue.png")
    pages = [visitor(), visitor()]
    for page, name in zip(pages, ("red", "blue"), strict=True):
        page.set_input_files("#files", tmp_path / f"{name}.png")  # both at once
    for page, channel in zip(pages, (0, 2), strict=True):
        page.wait_for_selector('#stage[data-state="photo"]')
        rest(page)
        assert picture(page).mean((0, 1)).argmax() == channel
    pages[0].close()
    press(pages[1], "brightness", "End")
