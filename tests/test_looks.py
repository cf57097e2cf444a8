"""Looks in other software's files: opened by that software, decoded by their descriptions, refused if broken."""

import base64
import hashlib
import re
import shutil
import struct
import subprocess
import warnings
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffretouch import Lut3D, bake_lut
from diffretouch.lut import error_picture, lut_nodes

from .test_lut import csrnet, picture
from .tiny import tiny_pipeline

PHOTO = Path(__file__).parent / "photos" / "gb82_flowers-lossless.jpg"
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?`'|()[]{}@%$#"


def look(size=16):
    """Another curve for each channel, and one that leaks into another."""
    red, green, blue = lut_nodes(size).T
    colours = np.stack([red**0.8, 0.9 * green + 0.05 * red, 0.9 * blue**1.2 + 0.05], -1)
    return Lut3D(colours.reshape(size, size, size, 3), title="Warm <& soft>")


def rough(size=16):
    """As the looks of real retouches: bent in every cell, so that it shows how a program interpolates."""
    shift = np.random.default_rng(0).uniform(-0.03, 0.03, (size, size, size, 3))
    return Lut3D(np.clip(look(size).table + shift, 0, 1), title="Warm <& soft>")


def program(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def run(*command, **environment):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120,
                          env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment})  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


def opened(path):
    import imagecodecs

    codes = imagecodecs.imread(path)[..., :3]
    return codes / np.iinfo(codes.dtype).max * 255


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.png")
    return tmp_path / "in.png"


# The programs themselves


def test_ffmpeg_reads_the_cube(photo, tmp_path):
    ffmpeg = program("ffmpeg")
    rough().save(tmp_path / "look.cube")
    run(ffmpeg, "-v", "error", "-i", photo, "-vf", f"format=gbrp,lut3d={tmp_path}/look.cube:interp=tetrahedral",
        tmp_path / "out.png")  # fmt: skip
    assert np.abs(opened(tmp_path / "out.png") - rough().apply(picture())).max() <= 1


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_rawtherapee_reads_the_pp3(photo, tmp_path, strength):
    rawtherapee = program("rawtherapee-cli")
    rough().save(tmp_path / "look.pp3", strength=strength)
    (tmp_path / "options").write_text(f"[Color Management]\nClutsDirectory={tmp_path}\n")
    run(rawtherapee, "-o", tmp_path / "out.png", "-n", "-b16", "-Y", "-a", "-p", tmp_path / "look.pp3", "-c", photo,
        RT_SETTINGS=str(tmp_path))  # fmt: skip
    wanted = rough().at_strength(strength).apply(picture().astype(np.float32) / 255, interpolation="trilinear") * 255
    assert np.abs(opened(tmp_path / "out.png") - wanted).max() < 0.3
    again = Lut3D.load(tmp_path / "look.pp3")
    assert np.abs(again.table - rough().at_strength(strength).table).max() < 2e-5


def test_darktable_reads_the_style(photo, tmp_path):
    darktable = program("darktable-cli")
    rough().save(tmp_path / "look.dtstyle")
    style = ElementTree.parse(tmp_path / "look.dtstyle")
    parameters = style.findtext(".//op_params")
    assert len(bytes.fromhex(parameters)) == 12940 and style.findtext(".//name") == "Warm <& soft>"
    (tmp_path / "in.xmp").write_text(f"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:darktable="http://darktable.sf.net/" darktable:xmp_version="5" darktable:raw_params="0"
 darktable:auto_presets_applied="1" darktable:history_end="1" darktable:iop_order_version="2">
<darktable:history><rdf:Seq><rdf:li darktable:num="0" darktable:operation="lut3d" darktable:enabled="1"
 darktable:modversion="{style.findtext(".//module")}" darktable:params="{parameters}" darktable:multi_name=""
 darktable:multi_priority="0" darktable:iop_order="0"/></rdf:Seq></darktable:history>
</rdf:Description></rdf:RDF></x:xmpmeta>""")
    run(darktable, photo, tmp_path / "in.xmp", tmp_path / "out.png", "--core", "--configdir", tmp_path / "config",
        "--cachedir", tmp_path / "cache", "--library", ":memory:", "--disable-opencl",
        "--conf", f"plugins/darkroom/lut3d/def_path={tmp_path}", "--conf", "plugins/darkroom/workflow=none",
        "--conf", "plugins/imageio/format/png/bpp=16", HOME=str(tmp_path))  # fmt: skip
    wanted = rough().apply(picture().astype(np.float32) / 255) * 255
    assert np.abs(opened(tmp_path / "out.png") - wanted).max() < 0.3


def test_opencolorio_reads_the_clf(tmp_path):
    ocio = pytest.importorskip("PyOpenColorIO")
    rough(9).save(tmp_path / "look.clf")
    found = np.random.default_rng(0).random((500, 3), np.float32)
    wanted = rough(9).apply(found[None])[0]
    processor = ocio.Config.CreateRaw().getProcessor(ocio.FileTransform(str(tmp_path / "look.clf")))
    processor.getDefaultCPUProcessor().applyRGB(found)
    assert np.abs(found - wanted).max() < 1e-4
    again = Lut3D.load(tmp_path / "look.clf")
    assert np.abs(again.table - rough(9).table).max() < 1e-6 and again.title == "Warm <& soft>"


def baked(kind, nodes):
    """A .3dl file of OpenColorIO's own: squares of the colours."""
    ocio = pytest.importorskip("PyOpenColorIO")
    config, baker = ocio.Config.CreateRaw(), ocio.Baker()
    square = ocio.ExponentTransform([2, 2, 2, 1])
    config.addColorSpace(ocio.ColorSpace(name="a"))
    config.addColorSpace(ocio.ColorSpace(name="b", fromReference=square))
    baker.setConfig(config), baker.setFormat(kind), baker.setCubeSize(nodes)
    baker.setInputSpace("a"), baker.setTargetSpace("b")
    return baker.bake()


@pytest.mark.parametrize("nodes", [17, 33])
def test_opencolorio_reads_the_3dl_and_both_its_kinds_are_read(tmp_path, nodes):
    ocio = pytest.importorskip("PyOpenColorIO")
    look(nodes).save(tmp_path / "look.3dl")
    again = Lut3D.load(tmp_path / "look.3dl")
    assert again.size == nodes and np.abs(again.table - look(nodes).table).max() < 0.51 / 4095
    found = np.random.default_rng(0).random((500, 3), np.float32)
    wanted = again.apply(found[None])[0]
    file = ocio.FileTransform(str(tmp_path / "look.3dl"), interpolation=ocio.INTERP_TETRAHEDRAL)
    ocio.Config.CreateRaw().getProcessor(file).getDefaultCPUProcessor().applyRGB(found)
    assert np.abs(found - wanted).max() < 1e-4
    for kind in ("flame", "lustre"):
        (tmp_path / f"{kind}.3dl").write_text(baked(kind, nodes))
        squares = lut_nodes(nodes).reshape(nodes, nodes, nodes, 3) ** 2
        assert np.abs(Lut3D.load(tmp_path / f"{kind}.3dl").table - squares).max() < 0.51 / 4095


def test_a_3dl_that_would_be_read_wrong_is_not_written(tmp_path):
    with pytest.warns(UserWarning, match="16 nodes on an edge became 17"):
        look().save(tmp_path / "look.3dl", strength=0.5)
    assert np.abs(Lut3D.load(tmp_path / "look.3dl").table - look(17).at_strength(0.5).table).max() < 2e-3
    with pytest.raises(ValueError, match="`path`: .*and this look has none above 0.49; 0.5 is needed"):
        Lut3D(look(17).table * 0.49).save(tmp_path / "dark.3dl")
    assert not (tmp_path / "dark.3dl").exists()


def three_dl(mesh="0 64 128 192 256 320 384 448 512 575 639 703 767 831 895 959 1023", head="", tail="", count=17**3):
    colours = "".join(f"{value} {value} {value}\n" for value in np.linspace(0, 4095, 17**3).astype(int)[-count:])
    return head + mesh + "\n" + colours + tail


@pytest.mark.parametrize("text, words", [
    ("", "has no colours"),
    ("0 512 1023 1535\n", "has no colours|not even"),
    ("LUT_3D_SIZE 2\n", "line 1 says 'LUT_3D_SIZE', which is not known"),
    (three_dl(count=17**3 - 1), "cut off or no table: 17 nodes on an edge are 4913 colours, it has 4912"),
    (three_dl(tail="1 2 3\n"), "it has more than 4913"),
    (three_dl(tail="1 2\n", count=17**3 - 1), "is no .3dl file"),
    (three_dl(tail="1 2 -3\n", count=17**3 - 1), "not whole numbers from 0"),
    (three_dl(tail="1 2 0.5\n", count=17**3 - 1), "not whole numbers from 0"),
    (three_dl(tail="nan 2 1\n", count=17**3 - 1), "not whole numbers from 0"),
    (three_dl(tail="a b c\n", count=17**3 - 1), "is no .3dl file"),
    (three_dl(tail="LUT8\ngamma 2.2\n"), "says 'gamma 2.2' after the colours"),
    (three_dl(head="3DMESH\nMesh 5 12\n"), "line 3 has 17 mesh points"),
    (three_dl(head="3DMESH\nMesh 4 10\n"), "a colour of 4095, more than 10 bits hold"),
    (three_dl(head="Mesh 99999 12\n"), "Mesh 99999 12, 1 to 7"),
    (three_dl(head="Mesh much\n"), "Mesh and two whole numbers"),
    (three_dl(mesh="0 20 128 192 256 320 384 448 512 575 639 703 767 831 895 959 1023"), "not even, from 0 to white"),
    (three_dl(mesh=" ".join(["9" * 5000] * 17)), "which is not known"),
    ("1 2 3\n" * 7, "cut off or no table: 2 nodes on an edge are 8 colours, it has 7"),
])  # fmt: skip
def test_broken_3dl_files(tmp_path, text, words):
    (tmp_path / "look.3dl").write_text(text)
    with pytest.raises(ValueError, match=f"`path`: .*look.3dl.*({words})"):
        Lut3D.load(tmp_path / "look.3dl")


# Lightroom's profile, by a decoder written from its description alone


def decoded(path):
    """-> (table [b, g, r], the numbers at the end, attributes)"""
    crs = "{http://ns.adobe.com/camera-raw-settings/1.0/}"
    description = ElementTree.parse(path).find(".//{*}Description")
    said = {key.removeprefix(crs): value for key, value in description.attrib.items()}
    text, data = said["Table_" + said["RGBTable"]], bytearray()
    for start in range(0, len(text), 5):
        group = text[start : start + 5]
        value = sum(ALPHABET.index(digit) * 85**place for place, digit in enumerate(group))
        data += value.to_bytes(4, "little")[: len(group) - 1]
    block = zlib.decompress(bytes(data[4:]))
    assert len(block) == int.from_bytes(data[:4], "little")
    assert hashlib.md5(block).hexdigest().upper() == said["RGBTable"].upper()
    assert struct.unpack_from("<3I", block) == (1, 1, 3)
    n = struct.unpack_from("<I", block, 12)[0]
    deltas = struct.unpack_from(f"<{3 * n**3}H", block, 16)
    table = np.zeros((n, n, n, 3))
    for number in range(n**3):
        red, green, blue = number // n**2, number // n % n, number % n
        for channel, index in enumerate((red, green, blue)):
            identity = (index * 65535 + n // 2) // (n - 1)
            table[blue, green, red, channel] = (deltas[3 * number + channel] + identity) % 65536 / 65535
    return table, struct.unpack_from("<3I2d", block, 16 + 6 * n**3), said, len(block)


def test_lightrooms_profile_by_its_description(tmp_path):
    look(32).save(tmp_path / "look.xmp")
    table, end, said, length = decoded(tmp_path / "look.xmp")
    assert np.abs(table - look(32).table).max() < 1 / 65535 and length == 196_652
    assert end == (0, 1, 0, 0.0, 2.0)  # sRGB colours and curve, clipped; amounts from 0 to 2
    assert said["PresetType"] == "Look" and re.fullmatch("[0-9A-F]{32}", said["UUID"])
    assert said["Table_" + said["RGBTable"]].startswith("Lir0")  # 196652 in base 85, as in Adobe's own
    again = Lut3D.load(tmp_path / "look.xmp")
    assert np.abs(again.table - table).max() < 1e-7 and again.title == "Warm <& soft>"
    look(5).save(tmp_path / "small.xmp")
    assert np.abs(decoded(tmp_path / "small.xmp")[0] - look(5).table).max() < 1 / 65535
    nothing = Lut3D(lut_nodes(32).reshape(32, 32, 32, 3))
    nothing.save(tmp_path / "nothing.xmp")
    assert (tmp_path / "nothing.xmp").stat().st_size < 3000  # all differences are 0


def profile(tmp_path, change, n=4):
    """A profile whose block was changed, with the right MD5."""
    block = struct.pack("<4I", 1, 1, 3, n) + bytes(6 * n**3) + struct.pack("<3I2d", 0, 1, 0, 0, 2)
    block = change(block)
    data = struct.pack("<I", len(block)) + zlib.compress(block)
    text = ""
    for start in range(0, len(data), 4):
        group = data[start : start + 4]
        value = int.from_bytes(group, "little")
        text += "".join(ALPHABET[value // 85**place % 85] for place in range(len(group) + 1))
    return xmp(hashlib.md5(block).hexdigest(), text)


def xmp(md5, table, more="", head=""):
    return (f'{head}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:RGBTable="{md5}" '
            f'crs:Table_{md5}="{table}" {more}/></rdf:RDF></x:xmpmeta>')  # fmt: skip


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{"&" + a + ";" * 1}{("&" + a + ";") * 9}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda block: block[:12] + struct.pack("<I", 33) + block[16:], "33 nodes on an edge, 2 to 32"),
        (lambda block: block[:12] + struct.pack("<I", 1) + block[16:], "1 nodes on an edge"),
        (lambda block: block[:12] + struct.pack("<I", 4_000_000_000) + block[16:], "4000000000 nodes"),
        (lambda block: block[:-1], "is cut off"),
        (lambda block: block[:200], "is cut off"),
        (lambda block: struct.pack("<I", 2) + block[4:], "another kind of table"),
        (lambda block: block[:8], "another kind of table"),
        (lambda block: block[:-28] + struct.pack("<3I2d", 2, 2, 0, 0, 2), "table for ProPhoto RGB"),
        (lambda block: block[:-16] + struct.pack("<2d", float("nan"), 2), "amount from nan"),
        (lambda block: bytes(200_000_000), "more than 32 nodes"),
    ],
)
def test_wrong_tables_in_profiles(tmp_path, make, words):
    (tmp_path / "look.xmp").write_text(profile(tmp_path, make))
    with pytest.raises(ValueError, match=f"`path`: .*look.xmp.*{words}"):
        Lut3D.load(tmp_path / "look.xmp")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no XMP"),
        ("<a>" * 100_000, "nested too deep"),
        ("no xml", "no XMP"),
        (xmp("0" * 32, "Lir00", head=LAUGHS), "has a document type"),
        (xmp("0" * 32, "Lir00", head='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "has a document type"),
        (xmp("0" * 32, ""), "empty table"),
        (xmp("0" * 32, "a~b"), "'~' in its table"),
        (xmp("0" * 32, "######"), "not in base 85"),
        (xmp("0" * 32, "#####"), "not in base 85"),
        (xmp("0" * 32, "Lir00abcde"), "cannot be unpacked"),
        ("<x/>", "no profile with a table"),
        ("x" * (9 << 20), "more than 8388608 bytes"),
    ],
    ids=range(12),
)
def test_hostile_profiles(tmp_path, text, words):
    (tmp_path / "look.xmp").write_text(text)
    with pytest.raises(ValueError, match=f"`path`: .*look.xmp.*{words}"):
        Lut3D.load(tmp_path / "look.xmp")


def test_a_profile_with_another_md5_and_one_with_more_than_a_table(tmp_path):
    path, whole = tmp_path / "look.xmp", profile(tmp_path, lambda block: block)
    path.write_text(whole)
    assert np.abs(Lut3D.load(path).table - lut_nodes(4).reshape(4, 4, 4, 3)).max() < 1 / 65535
    md5 = re.search('RGBTable="(.*?)"', whole)[1]
    path.write_text(whole.replace(md5, "0" * 32))
    with pytest.raises(ValueError, match=f"is damaged: its table has the MD5 {md5}, not {'0' * 32}"):
        Lut3D.load(path)
    path.write_text(whole.replace("/></rdf", ' crs:Saturation="-20" crs:Sharpness="0"/></rdf'))
    with pytest.warns(UserWarning, match="more than a table, which is left out: Saturation."):
        Lut3D.load(path)


@pytest.mark.parametrize("text, words", [
    ("<!DOCTYPE x []><ProcessList/>", "document type"),
    ("nothing", "no .clf file"),
    ('<ProcessList id="a" compCLFversion="3"><Matrix inBitDepth="32f" outBitDepth="32f"><Array dim="3 3">'
     "1 0 0 0 1 0 0 0 2</Array></Matrix></ProcessList>", "one node, a LUT3D; it has Matrix"),
    ('<ProcessList id="a" compCLFversion="3"><Matrix inBitDepth="32f" outBitDepth="32f"><Array dim="3 3">'
     '1 0 0 0 1 0 0 0 2</Array></Matrix><LUT3D inBitDepth="32f" outBitDepth="32f"><Array dim="2 2 2 3">'
     + "0 0 0 0 0 1 0 1 0 0 1 1 1 0 0 1 0 1 1 1 0 1 1 1</Array></LUT3D></ProcessList>", "it has Matrix, L"),
    ('<ProcessList id="a" compCLFversion="3"><Spell inBitDepth="32f" outBitDepth="32f"/></ProcessList>', ""),
    ('<ProcessList id="a" compCLFversion="3"><LUT3D inBitDepth="32f" outBitDepth="32f"><Array dim="2 2 2 3">0 0 0'
     "</Array></LUT3D></ProcessList>", "no .clf file"),
    ('<ProcessList id="a" compCLFversion="3"><LUT3D inBitDepth="32f" outBitDepth="32f"><Array dim="9999 9999 9999 3">'
     "0 0 0</Array></LUT3D></ProcessList>", "no .clf file"),
])  # fmt: skip
def test_broken_clf_files(tmp_path, text, words):
    pytest.importorskip("PyOpenColorIO")
    (tmp_path / "look.clf").write_text(text)
    with pytest.raises(ValueError, match=f"`path`: .*look.clf.*{words}"):
        Lut3D.load(tmp_path / "look.clf")


@pytest.mark.parametrize("text, words", [
    ("nothing", "no profile of RawTherapee"),
    ("[Exposure]\nA=1\n", "no film simulation"),
    ("[Film Simulation]\nEnabled=true\nClutFilename=a.png\nStrength=much\n", "no profile of RawTherapee"),
    ("[Film Simulation]\nEnabled=true\nClutFilename=a.png\nStrength=900\n", "Strength from 0 to 100"),
    ("[Film Simulation]\nEnabled=false\nClutFilename=a.png\n", "no film simulation"),
    ("[Film Simulation]\nEnabled=true\nClutFilename=../../etc/in.png\n", "must be a Hald image"),
    ("[Film Simulation]\nEnabled=true\nClutFilename=a\\\\gone.png\n", "the Hald image 'gone.png', which does not"),
])  # fmt: skip
def test_broken_pp3_files(tmp_path, photo, text, words):
    (tmp_path / "look.pp3").write_text(text)
    with pytest.raises(ValueError, match=f"`path`: .*look.pp3.*{words}"):
        Lut3D.load(tmp_path / "look.pp3")


def style(parameters, version="3", more=""):
    plugin = (f"<plugin><module>{version}</module><operation>lut3d</operation><op_params>{parameters}</op_params>"
              "<enabled>1</enabled></plugin>")  # fmt: skip
    return f"<darktable_style><info><name>A &lt; B</name></info><style>{plugin}{more}</style></darktable_style>"


def parameters(name=b"look.cube", space=0, nodes=0):
    return struct.pack("<512s3i12288s128s", name, space, 0, nodes, b"", b"")


def test_styles_are_read_as_written_and_as_darktable_writes_them(tmp_path):
    look().save(tmp_path / "look.dtstyle")
    again = Lut3D.load(tmp_path / "look.dtstyle")
    assert np.abs(again.table - look().table).max() < 1e-6 and again.title == "Warm <& soft>"
    packed = "gz12" + base64.b64encode(zlib.compress(parameters())).decode()
    (tmp_path / "packed.dtstyle").write_text(style(packed))
    assert np.array_equal(Lut3D.load(tmp_path / "packed.dtstyle").table, again.table)
    assert Lut3D.load(tmp_path / "packed.dtstyle").title == "A < B"


@pytest.mark.parametrize("text, words", [
    ("nothing", "no style of darktable"),
    ("<!DOCTYPE a []><darktable_style/>", "has a document type"),
    ("<a>" * 100_000, "nested too deep"),
    ("<darktable_style/>", "one enabled module lut 3D, it has 0"),
    (style(parameters().hex(), more=style(parameters().hex())), "one enabled module lut 3D, it has 2"),
    (style(parameters().hex(), version="2"), "lut 3D in version '2', only 3 can be read"),
    (style(parameters().hex()[:-2]), "is cut off: lut 3D has 12940 bytes of parameters, here are 12939"),
    (style("gz99" + base64.b64encode(zlib.compress(bytes(10**8))).decode()), "is cut off"),
    (style("gz99=="), "its parameters cannot be read"),
    (style("xyz"), "its parameters cannot be read"),
    (style(parameters(space=4).hex()), "colour space 4 of lut 3D, only sRGB"),
    (style(parameters(b"look.gmz", nodes=17).hex()), "must name a table in .*it names 'look.gmz'"),
    (style(parameters(b"../../etc/gone.cube").hex()), "names the table 'gone.cube', which does not lie beside it"),
], ids=range(13))  # fmt: skip
def test_broken_styles(tmp_path, text, words):
    (tmp_path / "look.dtstyle").write_text(text)
    with pytest.raises(ValueError, match=f"`path`: .*look.dtstyle.*{words}"):
        Lut3D.load(tmp_path / "look.dtstyle")


# Saving


def test_nodes_and_domain_that_a_format_lacks_are_told(tmp_path):
    with pytest.warns(UserWarning, match="33 nodes on an edge became 32 over"):
        look(33).save(tmp_path / "look.xmp")
    with pytest.warns(UserWarning, match="9 nodes on an edge became 9 over"):
        Lut3D(look(9).table, (0, 0, 0), (1, 1, 0.5)).save(tmp_path / "look.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in (".cube", ".xmp", ".tif"):
            look(16).save(tmp_path / f"as_it_is{suffix}", strength=0.5)
            weaker = Lut3D.load(tmp_path / f"as_it_is{suffix}")
            assert np.abs(weaker.table - look(16).at_strength(0.5).table).max() < 2e-5
    assert np.abs(look(33).resized(17).apply(picture()).astype(int) - look(33).apply(picture())).max() <= 2


def test_neither_of_two_files_is_replaced_or_left_half(tmp_path):
    (tmp_path / "look.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="look.png exists"):
        look().save(tmp_path / "look.pp3")
    assert [path.name for path in tmp_path.iterdir()] == ["look.png"]
    look().save(tmp_path / "look.pp3", overwrite=True)
    assert Lut3D.load(tmp_path / "look.png").size == 16
    with pytest.raises(ValueError, match="at most 511 bytes"):
        look().save(tmp_path / ("n" * 600 + ".dtstyle"))


# A series, and the error as a picture


def test_a_look_for_a_series_has_the_least_error_over_all():
    pipe, first, second = csrnet(), picture(), (255 - picture()) // 2
    series = bake_lut(pipe, [first, second], size=9)
    assert not series.error.exact
    wanted = [pipe.retouch(image).astype(int) for image in (first, second)]

    def error(lut):
        return np.mean([np.abs(lut.apply(image) - retouched).mean() for image, retouched in
                        zip((first, second), wanted, strict=True)])  # fmt: skip

    assert error(series) == pytest.approx(series.error.mean)
    assert error(series) < min(error(bake_lut(pipe, image, size=9)) for image in (first, second))


def test_the_error_picture_is_bright_where_the_table_fails():
    pipe, image = csrnet(), picture()
    lut = bake_lut(pipe, image, size=33)
    exact = error_picture(lut, pipe, image)
    assert exact.shape == image.shape and exact.dtype == np.float32 and 0 <= exact.min() and exact.max() < 0.6
    wrong = error_picture(Lut3D(1 - lut.table), pipe, image)
    assert wrong.mean() > 3 * exact.mean()
    grid = tiny_pipeline()
    assert error_picture(bake_lut(grid, image, size=9), grid, image).shape == image.shape
