"""What of XMP must change with the picture: the work grows with the packet, and crowds are left out and said."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretouch.photo import xmp
from diffretouch.photo.xmp_upkeep import upkept

from .counted import calls

NAMES = (
    'xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/" xmlns:a="http://ns.adobe.com/xmp/sType/Area#" '
    'xmlns:m="http://ns.microsoft.com/photo/1.2/" xmlns:p="http://ns.microsoft.com/photo/1.2/t/Region#" '
    'xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:c="http://ns.adobe.com/camera-raw-settings/1.0/"'
)


def packet(content, attributes=""):
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about="" {NAMES} '
        f"{attributes}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


# (before, one, after): `one` many times between the others
REPEATED = {
    "areas": ("<r:Regions>", '<s a:x=".1" a:y=".2" a:w=".2" a:h=".1"/>', "</r:Regions>"),
    "elements": ("<r:Regions>", "<s><a:x>.1</a:x><a:y>.2</a:y></s>", "</r:Regions>"),
    "rectangles": ("<m:RegionInfo>", '<s p:Rectangle="0, 0, .1, .1"/>', "</m:RegionInfo>"),
    "boundaries": ("<i:ImageRegion>", '<s i:rbX="1" i:rbY="1" i:rbUnit="pixel"/>', "</i:ImageRegion>"),
    "subjects": ("<e:SubjectArea>", "<rdf:li>1</rdf:li>", "</e:SubjectArea>"),
    "empty": ("<r:Regions>", "<s/>", "</r:Regions>"),
    "names": ("<r:Regions>", '<s xmlns:q="u"/>', "</r:Regions>"),
    "properties": ("", "<t:Orientation>6</t:Orientation>", ""),
    "regions": ("", '<r:Regions><s a:x="1" a:y="1"/></r:Regions>', ""),
    "strokes": ("<c:Masks>", "<rdf:li>d 0.5 0.5</rdf:li>", "</c:Masks>"),
    "others": ("", "<s>1</s>", ""),
}


def steps(data, orientation):
    """Time without a clock, of packets that are refused, too."""

    def work():
        with suppress(ValueError):
            upkept(data, orientation, (400, 300))

    return calls(work)


@pytest.mark.parametrize("kind", REPEATED)
def test_work_grows_with_the_packet(kind):
    before, one, after = REPEATED[kind]
    few, many = (steps(packet(before + one * times + after), 6) for times in (100, 1000))
    assert many < 10.5 * few


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([*REPEATED]), min_size=1, max_size=4), st.integers(1, 30), st.sampled_from([1, 3, 6]))
def test_work_grows_with_any_mixture_and_depth(kinds, deep, orientation):
    def mixed(times):
        content = "".join(before + one * times + after for before, one, after in map(REPEATED.get, kinds))
        nested = "<s>" * deep * times + "</s>" * deep * times
        return packet(content + f"<r:Regions>{nested}</r:Regions>")

    few, many = (steps(mixed(times), orientation) for times in (20, 100))
    assert many < 5.5 * few


@pytest.mark.parametrize("kind", ["areas", "elements", "rectangles", "boundaries", "empty"])
def test_crowds_of_regions_are_left_out_and_said(kind):
    before, one, after = REPEATED[kind]
    crowd = packet(before + one * (xmp.MOST + 1) + after + "<t:Make>Maker</t:Make>")
    turned, lost = upkept(crowd, 6, (400, 300))
    assert lost == [f"regions such as faces (of more than {xmp.MOST} parts)"]
    assert before.encode() not in turned and b"<t:Make>Maker</t:Make>" in turned
    assert upkept(crowd, 1, (400, 300)) == (crowd, [])  # nothing to turn, nothing to look at
    assert steps(crowd, 6) < 80 * xmp.MOST


def test_crowds_of_properties_are_refused():
    with pytest.raises(ValueError, match=f"more than {xmp.MOST} properties"):
        upkept(packet("<t:Orientation>6</t:Orientation>" * (xmp.MOST + 1)), 6, (400, 300))


def test_long_lists_of_a_raw_converter_are_kept():
    before, one, after = REPEATED["strokes"]
    masks = before + one * 3 * xmp.MOST + after
    turned, lost = upkept(packet(masks + '<r:Regions><s a:x=".2" a:y=".4"/></r:Regions>'), 3, (400, 300))
    assert masks.encode() in turned and b'a:x="0.8" a:y="0.6"' in turned and not lost
