"""What of an XMP packet no longer holds for the upright picture alone: turned with it if it can be, or taken out."""

import math
from collections import defaultdict

from . import xmp
from .orientation import turn_box, turn_point, turn_subject

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _RDF = "http://ns.adobe.com/xap/1.0/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_CRS = "http://ns.adobe.com/camera-raw-settings/1.0/"
_MWG, _ACDSEE = "http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.acdsee.com/regions/"
_MICROSOFT, _IPTC = "http://ns.microsoft.com/photo/1.2/", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_CAMERA, _CONTAINER = "http://ns.google.com/photos/1.0/camera/", "http://ns.google.com/photos/1.0/container/"

_AREAS = ("http://ns.adobe.com/xmp/sType/Area#", "http://ns.acdsee.com/sType/Area#")  # by the middle
_SIZES = ("http://ns.adobe.com/xap/1.0/sType/Dimensions#", "http://ns.acdsee.com/sType/Dimensions#")
_RECTANGLE = ("http://ns.microsoft.com/photo/1.2/t/Region#", "Rectangle")
_REGIONS = [(_MWG, "Regions"), (_ACDSEE, "Regions"), (_MICROSOFT, "RegionInfo"), (_IPTC, "ImageRegion")]
_PAIRS = [((_TIFF, "ImageWidth"), (_TIFF, "ImageLength")), ((_TIFF, "XResolution"), (_TIFF, "YResolution")),
          ((_EXIF, "PixelXDimension"), (_EXIF, "PixelYDimension")),
          ((_EXIF, "FocalPlaneXResolution"), (_EXIF, "FocalPlaneYResolution"))]  # fmt: skip
_CROP = [(_CRS, f"Crop{side}") for side in ("Left", "Top", "Right", "Bottom")]
_SUBJECT = [(_EXIF, "SubjectArea"), (_EXIF, "SubjectLocation")]
# Pictures, and places in them, that lie as the photo was stored
_STORED = {"http://ns.google.com/photos/1.0/depthmap/": "a depth map",
           "http://ns.google.com/photos/1.0/image/": "a further picture",
           "http://ns.google.com/photos/1.0/panorama/": "the place in a panorama"}  # fmt: skip
_GAIN_MAP = "http://ns.adobe.com/hdr-gain-map/1.0/"
_WANTED = frozenset({_TIFF, _EXIF, _XMP, _CRS, _MWG, _ACDSEE, _MICROSOFT, _IPTC, _CAMERA, _CONTAINER, _GAIN_MAP,
                     *_STORED})  # fmt: skip


def upkept(
    data: bytes, orientation: int, size: tuple[int, int], decoded_upright: bool = False, gain_map: bool = False
) -> tuple[bytes, list[str]]:
    """The packet of a photo that becomes upright, without its thumbnails and what it says of data behind the picture.

    Args:
        data: the packet.
        orientation: how the picture was stored, 1 to 8; 1 is upright.
        size: width and height as stored.
        decoded_upright: the decoder knew better than the metadata how the picture lies.
        gain_map: one is kept; the packet will speak of it again when it is written.

    Returns:
        the packet and the names of what it no longer says (thumbnails are not named).

    Raises:
        ValueError: it cannot be read.
    """
    deep = frozenset(((_CONTAINER, "Directory"), *(_REGIONS + _SUBJECT if orientation > 1 else ())))
    packet = xmp.Packet(data, _WANTED, deep)
    edits = [xmp.removal(node) for node in packet.tops((_XMP, "Thumbnails"))]
    lost = set()
    for node in packet.nodes:
        if node.top is None and node.name[0] in (_CAMERA, _CONTAINER, _GAIN_MAP) and _speaks_of_more(node):
            edits.append(xmp.removal(node))
            if not (gain_map and _speaks_of_it_alone(packet, node)):
                lost.add("a video, gain map or depth behind the picture")
        if node.top is None and orientation > 1 and node.name[0] in _STORED:
            edits.append(xmp.removal(node))
            lost.add(_STORED[node.name[0]])
    edits += [packet.with_value(node, "1") for node in packet.tops((_TIFF, "Orientation"))
              if (orientation > 1 or decoded_upright) and packet.text(node) != "1"]  # fmt: skip
    if orientation > 1:
        for names, turned, called in (
            (_REGIONS, _regions, "regions such as faces"),
            (_SUBJECT, _subject, "the subject's place"),
            (_CROP, _crop, "the crop"),
        ):
            try:
                if packet.crowded and names is not _CROP and packet.tops(*names):
                    called += f" (of more than {xmp.MOST} parts)"
                    raise ValueError(called)
                edits += turned(packet, orientation, size)
            except (ValueError, TypeError, OverflowError):
                edits += [xmp.removal(node) for node in packet.tops(*names)]
                lost.add(called)
    if orientation >= 5:
        for names in _PAIRS:
            edits += _swapped(packet, *(packet.tops(name) for name in names))
    return xmp.without_empty(packet.edited(edits)) if edits else packet.data, sorted(lost)


def _speaks_of_more(node):
    namespace, local = node.name
    return namespace != _CAMERA or local.startswith(("MicroVideo", "MotionPhoto"))


def _speaks_of_it_alone(packet, node):
    """Whether of the pictures in the file this names the main one and its gain map only."""
    namespace, local = node.name
    items = {packet.text(part) for part in packet.nodes if part.top is node and part.name[1] == "Semantic"}
    if (namespace, local) == (_CONTAINER, "Directory"):
        return items <= {"Primary", "GainMap"}
    return namespace == _GAIN_MAP


def _swapped(packet, ones, others):
    if len(ones) == len(others) == 1:
        pair = ones[0], others[0]
        return [packet.with_value(node, packet.text(pair[1 - n]) or "") for n, node in enumerate(pair)]
    return [xmp.removal(node) for node in (*ones, *others)]


def _number(packet, node):
    value = float(packet.text(node))
    if not math.isfinite(value):
        raise ValueError("a place that is no number")
    return value


def _set(packet, nodes, values):
    return [packet.with_value(node, format(value, ".9g")) for node, value in zip(nodes, values, strict=True)]


def _regions(packet, orientation, size):
    """The edits that turn the regions of the Metadata Working Group, ACDSee, Microsoft and the IPTC."""
    edits, groups = [], defaultdict(dict)
    for node in packet.nodes:
        if node.top is None or node.top.name not in _REGIONS:
            continue
        if node.name == _RECTANGLE:
            box = [float(number) for number in packet.text(node).split(",")]
            turned = turn_box(*box, orientation)
            edits.append(packet.with_value(node, ", ".join(format(value, ".9g") for value in turned)))
        elif node.name[0] in (*_AREAS, *_SIZES) or node.name[0] == _IPTC and node.name[1].startswith("rb"):
            groups[node.parent, node.name[0]][node.name[1]] = node
    units = {parent: packet.text(group["rbUnit"]) for (parent, _), group in groups.items() if "rbUnit" in group}
    for (parent, namespace), group in groups.items():
        if namespace in _SIZES:
            edits += _swapped(packet, [group["w"]], [group["h"]]) if orientation >= 5 else []
            continue
        prefix = "rb" if namespace == _IPTC else ""
        x, y, w, h = (group.get(prefix + (name.upper() if prefix else name)) for name in "xywh")
        if x is None or y is None:
            continue
        unit = packet.text(group["unit"]) if "unit" in group else _unit_of(parent, units)
        whole = size if unit == "pixel" else (1.0, 1.0)
        places = [_number(packet, node) for node in (x, y)]
        if w is not None and h is not None:
            sides = [_number(packet, node) for node in (w, h)]
            if prefix:
                edits += _set(packet, (x, y, w, h), turn_box(*places, *sides, orientation, *whole))
                continue
            edits += _set(packet, (w, h), sides[::-1] if orientation >= 5 else sides)
        edits += _set(packet, (x, y), turn_point(*places, orientation, *whole))
        if "rbRx" in group and orientation >= 5 and unit != "pixel":  # in widths of the picture
            edits += _set(packet, [group["rbRx"]], [_number(packet, group["rbRx"]) * size[0] / size[1]])
    return edits


def _unit_of(parent, units):
    """A vertex has the unit of the boundary around it."""
    for _ in range(8):
        if parent is None or parent in units:
            break
        parent = parent.parent
    return units.get(parent)


def _subject(packet, orientation, size):
    edits, groups = [], defaultdict(list)
    for node in packet.nodes:
        if node.top is not None and node.top.name in _SUBJECT and node.name == (_RDF, "li"):
            groups[node.top].append(node)
    for nodes in groups.values():
        values = [_number(packet, node) for node in nodes]
        edits += _set(packet, nodes, turn_subject(values, orientation, size))
    return edits


def _crop(packet, orientation, _):
    nodes = [packet.tops(name) for name in _CROP]
    if not all(len(found) == 1 for found in nodes):
        return []
    nodes = [found[0] for found in nodes]
    left, top, right, bottom = (_number(packet, node) for node in nodes)
    x, y, w, h = turn_box(left, top, right - left, bottom - top, orientation)
    return _set(packet, nodes, (x, y, x + w, y + h))
