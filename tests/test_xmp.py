"""XMP packets: only our own words change, whoever wrote the rest; the work grows with the packet."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from diffretouch.photo import load_photo, save_photo, xmp
from diffretouch.photo.xmp_upkeep import upkept

from .counted import calls

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" tiff:Orientation="6"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:Thumbnails>old</xmp:Thumbnails>
 <tiff:Make>Canon</tiff:Make></rdf:Description></rdf:RDF></x:xmpmeta>   <?xpacket end="w"?>""".encode()


def test_xmp_keeps_all_but_what_changed():
    packet, lost = upkept(XMP, 6, (60, 40))
    thumbnail = b"<xmp:Thumbnails>old</xmp:Thumbnails>"
    assert packet == XMP.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"').replace(thumbnail, b"") and not lost
    described = xmp.describe(XMP, "first")
    assert xmp.description(described) == "first" and xmp.description(XMP) is None
    assert xmp.describe(xmp.describe(described, "second"), "first") == described


@pytest.mark.parametrize("text", ['{"c": [0.3]}', "<&>\"'", "日本語 ä", "two\nlines", ""])
def test_description_survives_xml(text):
    from xml.etree import ElementTree

    packet = xmp.describe(None, text)
    assert xmp.description(packet) == text
    root = ElementTree.fromstring(packet.decode().split("?>", 1)[1].rsplit("<?", 1)[0])
    assert [node.text or "" for node in root.iter("{http://ns.diffretouch/1.0/}Retouch")] == [text]


@pytest.mark.parametrize("packet", [b"", b"<x/>", b"\xff\xfe<\0x\0"])
def test_xmp_that_cannot_be_edited_raises(packet):
    with pytest.raises(ValueError):
        upkept(packet, 1, (60, 40))


NAMES = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
OWN = 'xmlns:d="http://ns.diffretouch/1.0/"'


@pytest.mark.parametrize("content", [
    f'<rdf:Description rdf:about="" {OWN} xmp:Rating="4" d:Retouch="old"/>',
    f'<rdf:Description rdf:about="" {OWN} xmp:Rating="4" d:Retouch="old"><xmp:Label>red</xmp:Label></rdf:Description>',
    f'<rdf:Description rdf:about="" {OWN}><xmp:Rating>4</xmp:Rating><d:Retouch>old</d:Retouch></rdf:Description>',
    f"<rdf:Description rdf:about='' {OWN}>\n <d:Retouch>old</d:Retouch>\n</rdf:Description>",
])  # fmt: skip
def test_a_second_retouch_replaces_its_own_words_alone(content):
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMES}>{content}</rdf:RDF></x:xmpmeta>'.encode()
    assert xmp.describe(packet, "new") == packet.replace(b"old", b"new")
    assert xmp.description(xmp.describe(packet, "new")) == "new"


def test_entities_are_refused():
    packet = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>' + XMP.split(b"?>", 1)[1]
    with pytest.raises(ValueError, match="document type"):
        xmp.description(packet)


@pytest.mark.parametrize("one", [b"<a/>", b"<rdf:Description d:Retouch='x'/>",
                                 b"<rdf:Description><d:Retouch>x</d:Retouch></rdf:Description>"])  # fmt: skip
def test_work_on_xmp_grows_linearly(one):
    head = f"<rdf:RDF {NAMES} xmlns:d='http://ns.diffretouch/1.0/'>".encode()
    few, many = (calls(xmp.describe, head + one * times + b"</rdf:RDF>", "new") for times in (200, 2000))
    assert many < 10.5 * few


def test_extended_xmp_that_uses_a_prefix_otherwise_is_joined():
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"{}>{}</rdf:RDF></x:xmpmeta>'
    one = '<rdf:Description rdf:about="" a:first="1"/>'
    two = '<rdf:Description rdf:about="" a:second="2"/><rdf:Description xmlns:a="urn:three" rdf:about="" a:third="3"/>'
    main, more = head.format(' xmlns:a="urn:one"', one).encode(), head.format(' xmlns:a="urn:two"', two).encode()
    packet = xmp.Packet(xmp.joined(main, more), frozenset({"urn:one", "urn:two", "urn:three"}))
    assert {node.name: packet.text(node) for node in packet.nodes} == {
        ("urn:one", "first"): "1", ("urn:two", "second"): "2", ("urn:three", "third"): "3"}  # fmt: skip


DUBLIN = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
LISTS = (
    "<dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>night</rdf:li></rdf:Bag></dc:subject>"
    "<dc:creator><rdf:Seq><rdf:li>Jörg</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Jörg</rdf:li></rdf:Alt></dc:rights>'
)
BEGIN = f'<rdf:Description rdf:about="" {DUBLIN} {OWN}'
ADOBE = {  # as its toolkit writes what it read: properties as attributes where they can be, or each as an element
    "attributes": f'{BEGIN} xmp:Rating="4" d:Retouch="old">{LISTS}</rdf:Description>',
    "elements": f"{BEGIN}><xmp:Rating>4</xmp:Rating><d:Retouch>old</d:Retouch>{LISTS}</rdf:Description>",
    "closed in itself": f'{BEGIN} xmp:Rating="4" d:Retouch="old"/>{BEGIN}>{LISTS}</rdf:Description>',
}
RATED = {"Rating": "4", "Subject": ["sea", "night"], "Creator": "Jörg", "Rights": "© Jörg"}


def read_by_exiftool(path):
    """Of a file's XMP what `RATED` names."""
    done = subprocess.run(
        ["exiftool", "-j", *(f"-XMP:{name}" for name in RATED), path], capture_output=True, check=True
    )
    found = json.loads(done.stdout)[0]
    return {name: str(found[name]) if name == "Rating" else found[name] for name in RATED}


def read_by_exiv2(path):
    with pyexiv2().Image(str(path)) as image:
        found = image.read_xmp()
    assert found["Xmp.dc.creator"] == ["Jörg"]
    return {"Rating": found["Xmp.xmp.Rating"], "Subject": found["Xmp.dc.subject"], "Creator": "Jörg",
            "Rights": found["Xmp.dc.rights"]['lang="x-default"']}  # fmt: skip


def rate_by_exiftool(path, rating):
    said = [
        f"-XMP:Rating={rating}",
        "-XMP:Subject=sea",
        "-XMP:Subject=night",
        "-XMP:Creator=Jörg",
        "-XMP:Rights=© Jörg",
    ]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *said, path], check=True)


def rate_by_exiv2(path, rating):
    said = {"Xmp.xmp.Rating": str(rating), "Xmp.dc.subject": ["sea", "night"], "Xmp.dc.creator": ["Jörg"]}
    with pyexiv2().Image(str(path)) as image:
        image.modify_xmp(said | {"Xmp.dc.rights": {'lang="x-default"': "© Jörg"}})


def pyexiv2():
    return pytest.importorskip("pyexiv2", reason="pyexiv2 is not installed")


@pytest.fixture
def tools():
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    pyexiv2()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize(("rate", "read"), [(rate_by_exiv2, read_by_exiftool), (rate_by_exiftool, read_by_exiv2)])
def test_what_other_programs_said_between_two_retouches_is_kept(tools, rate, read, suffix, tmp_path):
    path = tmp_path / f"photo{suffix}"
    save_photo(np.zeros((8, 8, 3), np.uint8), path, description='{"number": "<0>"}')
    for number in (1, 2):
        rate(path, 2 * number)
        photo = load_photo(path)
        assert photo.description == f'{{"number": "<{number - 1}>"}}' and photo.notes == ()
        save_photo(photo, path, overwrite=True, description=f'{{"number": "<{number}>"}}')
        assert read(path) == RATED | {"Rating": str(2 * number)}
    photo = load_photo(path)
    assert photo.description == '{"number": "<2>"}' and photo.xmp.count(b"number") == 1  # nothing older is left


@pytest.mark.parametrize("form", ADOBE)
def test_packets_in_adobes_forms_are_kept(tools, form, tmp_path):
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMES}>{ADOBE[form]}</rdf:RDF></x:xmpmeta>'.encode()
    Image.new("RGB", (8, 8)).save(tmp_path / "old.jpg", xmp=packet)
    photo = load_photo(tmp_path / "old.jpg")
    assert photo.description == "old"
    save_photo(photo, tmp_path / "new.jpg", description="new")
    photo = load_photo(tmp_path / "new.jpg")
    assert photo.description == "new" and photo.xmp == packet.replace(b"old", b"new")
    assert read_by_exiftool(tmp_path / "new.jpg") == read_by_exiv2(tmp_path / "new.jpg") == RATED
