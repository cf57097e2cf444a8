"""XMP packets: read once, by expat and without entities, and edited in place: what need not change keeps its bytes."""

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

LARGEST = 1 << 24  # bytes of a packet; more is none
MOST = 10_000  # properties that are looked for, and as many parts of them
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OWN = ("http://ns.diffretouch/1.0/", "Retouch")
_EXTENDED = ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP")

# Well-formed by expat before they are tried, so that they never go back.
_TAG = re.compile(rb"<[^\s/>]+(?:\s+[^\s=/>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*/?>")
_ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")

_EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


@dataclass(eq=False)
class Node:
    """An element or attribute: the bytes from `start` to `end`, its value those of `inner`."""

    name: tuple[str, str]  # name space and local name
    top: "Node | None"  # the property of the photo that it is (None: that itself) or belongs to
    parent: "Node | None"
    start: int
    end: int = 0
    inner: tuple[int, int] = (0, 0)
    value: str | None = None  # of an attribute


@dataclass(eq=False)
class Packet:
    """What stands where in a packet.

    Args:
        data (`bytes`): UTF-8 or UTF-16.
        wanted: name spaces of the properties that are looked for; others are passed over.
        deep: names of those properties whose parts become nodes, too.

    Attributes:
        crowded: there are more than `MOST` parts; not all became nodes.

    Raises:
        ValueError: no well-formed XML, entities, no rdf:RDF, too large, too many properties.
    """

    data: bytes
    wanted: frozenset[str]
    deep: frozenset[tuple[str, str]] = frozenset()
    crowded: bool = False
    nodes: list[Node] = field(default_factory=list)
    root: Node | None = None
    rdf: Node | None = None
    scope: dict[str, str] = field(default_factory=dict)  # prefix -> name space at rdf:RDF
    about: str = ""

    def __post_init__(self):
        if len(self.data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        if self.data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self.data = self.data.decode("utf-16").encode()
        elif b"\0" in self.data[:2]:
            self.data = self.data.decode("utf-16-le" if self.data[1:2] == b"\0" else "utf-16-be").encode()
        self.data = self.data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")
        self._depth, self._rdf_depth, self._outside, self._open = 0, 0, 0, []
        self._scopes, self._declared, self._closed, self._parts = {"xml": ["xml"]}, [], False, 0
        parser = expat.ParserCreate("utf-8")
        parser.ordered_attributes = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = _refuse_doctype
        self._parser = parser
        try:
            parser.Parse(self.data, True)
        except expat.ExpatError as error:
            raise ValueError(f"no well-formed XML: {error}") from error
        finally:
            parser.StartElementHandler = parser.EndElementHandler = self._parser = None
        if self.rdf is None:
            raise ValueError("no rdf:RDF")

    def _name(self, raw, attribute=False):
        prefix, colon, local = raw.partition(":")
        if not colon:
            prefix, local = "", raw
            if attribute:
                return "", local
        uris = self._scopes.get(prefix)
        return (uris[-1] if uris else ""), local

    def _start(self, tag, attributes):
        self._depth += 1
        for n in range(0, len(attributes), 2):
            raw = attributes[n]
            if raw.startswith("xmlns") and raw[5:6] in ("", ":"):
                self._scopes.setdefault(raw[6:], []).append(attributes[n + 1])
                self._declared.append((self._depth, raw[6:]))
        if self._depth == 1:
            self.root = self._open_node(("", tag), None, None)
        if self._closed:
            return
        if not self._rdf_depth:
            if tag.endswith("RDF") and self._name(tag) == (_RDF, "RDF"):
                self._rdf_depth = self._depth
                self.rdf = self.root if self._depth == 1 else self._open_node((_RDF, "RDF"), None, None)
                self._outside = len(self._open)
                self.scope = {prefix: uris[-1] for prefix, uris in self._scopes.items() if uris and prefix != "xml"}
            return
        level = self._depth - self._rdf_depth
        if level == 1:
            self._attributes(attributes, None)
        elif level == 2:
            name = self._name(tag)
            if name[0] in self.wanted:
                node = self._open_node(name, None, None)
                self._keep(node)
                if name in self.deep:
                    self._attributes(attributes, node)
        elif len(self._open) > self._outside and not self.crowded:
            parent = self._open[-1][1]
            top = parent.top or parent
            if top.name in self.deep:
                node = self._open_node(self._name(tag), top, parent)
                self._keep(node)
                self._attributes(attributes, node)

    def _keep(self, node):
        if node.top is not None:
            self._parts += 1
            self.crowded = self._parts > MOST
        elif len(self.nodes) - self._parts >= MOST:
            raise ValueError(f"it has more than {MOST} properties")
        self.nodes.append(node)

    def _open_node(self, name, top, parent):
        start = self._parser.CurrentByteIndex
        end = _TAG.match(self.data, start).end()
        node = Node(name, top, parent, start, end, (end, end))
        self._open.append((self._depth, node))
        return node

    def _attributes(self, attributes, parent):
        """The attributes of a description (parent None) or of an element within a wanted property."""
        found = []
        for n in range(0, len(attributes), 2):
            if attributes[n].startswith("xmlns"):
                continue
            name = self._name(attributes[n], attribute=True)
            if parent is None and name[1] == "about" and name[0] in (_RDF, "") and not self.about:
                self.about = attributes[n + 1]
            if parent is not None or name[0] in self.wanted:
                found.append((attributes[n].encode(), name, attributes[n + 1]))
        if parent is not None and len(found) > MOST:
            self.crowded, found = True, []
        if not found:
            return
        start = self._parser.CurrentByteIndex
        places = {
            match[1]: match for match in _ATTRIBUTE.finditer(self.data, start, _TAG.match(self.data, start).end())
        }
        top = None if parent is None else parent.top or parent
        for raw, name, value in found:
            match = places[raw]
            inner = match.start(2) + 1, match.end(2) - 1
            self._keep(Node(name, top, parent, match.start(), match.end(), inner, value))

    def _end(self, tag):
        if self._open and self._open[-1][0] == self._depth:
            node, place = self._open.pop()[1], self._parser.CurrentByteIndex
            if place != node.end or self.data[place - 2 : place] != b"/>":  # else it is empty and ends there
                node.inner, node.end = (node.end, place), self.data.index(b">", place) + 1
        if self._depth == self._rdf_depth:
            self._closed = True
        while self._declared and self._declared[-1][0] == self._depth:
            self._scopes[self._declared.pop()[1]].pop()
        self._depth -= 1

    def tops(self, *names: tuple[str, str]) -> list[Any]:
        """The photo's own properties of these names."""
        return [node for node in self.nodes if node.top is None and node.name in names]

    def text(self, node: Any, longest: int = 1 << 10) -> str | None:
        """The value of an attribute or of an element without children; None for one that is longer."""
        if node.value is not None:
            return node.value
        if node.inner[1] - node.inner[0] > longest:
            return None
        parts = []
        parser = expat.ParserCreate("utf-8")
        parser.CharacterDataHandler = parts.append
        parser.Parse(b"<a>" + self.data[slice(*node.inner)] + b"</a>", True)
        return "".join(parts)

    def with_value(self, node: Any, text: str) -> tuple[int, int, bytes]:
        """-> the edit that gives the node another value."""
        if node.value is not None:
            return *node.inner, escape(text, {'"': "&quot;", "'": "&apos;", **_SPACE}).encode()
        value = escape(text, {"\r": "&#13;"}).encode()
        if self.data[node.end - 2 : node.end] != b"/>":
            return *node.inner, value
        tag = self.data[node.start : node.end - 2].rstrip()
        return node.start, node.end, tag + b">" + value + b"</" + re.match(rb"<([^\s/>]+)", tag)[1] + b">"

    def at_end(self, xml: bytes) -> tuple[int, int, bytes]:
        """-> the edit that puts further descriptions behind the last one."""
        if self.data[self.rdf.end - 2 : self.rdf.end] != b"/>":
            return self.rdf.inner[1], self.rdf.inner[1], xml
        tag = self.data[self.rdf.start : self.rdf.end - 2].rstrip()
        return self.rdf.start, self.rdf.end, tag + b">" + xml + b"</" + re.match(rb"<([^\s/>]+)", tag)[1] + b">"

    def edited(self, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
        """The packet after the edits (start, end, bytes); one that lies within another is left out."""
        parts, place = [], 0
        for start, end, new in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
            if start >= place:
                parts += self.data[place:start], new
                place = end
        return b"".join([*parts, self.data[place:]])


_SPACE = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def _refuse_doctype(*_):
    raise ValueError("a document type, which XMP may not have")


def removal(node: Any) -> tuple[int, int, bytes]:
    return node.start, node.end, b""


def _description(content, about="", attributes=""):
    quoted = escape(about, {'"': "&quot;", **_SPACE})
    return f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="{quoted}"{attributes}{content}\n'.encode()


def describe(xmp: bytes | None, description: str | None) -> bytes:
    """The packet (a new one for None) with `description` as what was done to the photo; None takes it out.

    An older one is replaced where it stands; nothing else is touched.
    """
    packet = Packet(xmp or _EMPTY, frozenset({_OWN[0]}))
    old = packet.tops(_OWN)
    edits = [removal(node) for node in old]
    if description is not None and old:
        edits[-1] = packet.with_value(old[-1], description)
    elif description is not None:
        element = f"<diffretouch:Retouch>{escape(description, {chr(13): '&#13;'})}</diffretouch:Retouch>"
        edits.append(packet.at_end(_description(f' xmlns:diffretouch="{_OWN[0]}">{element}</rdf:Description>',
                                                packet.about)))  # fmt: skip
    return packet.edited(edits)


def with_description(xmp: bytes | None, content: str) -> bytes:
    """The packet (a new one for None) with one more rdf:Description: its attributes, `>`, its elements and its end."""
    packet = Packet(xmp or _EMPTY, frozenset())
    return packet.edited([packet.at_end(_description(content, packet.about))])


def without_empty(xmp: bytes) -> bytes:
    """The packet without those rdf:Description that say nothing, as others' edits and one's own leave them behind."""
    edits = [
        (start, stop + (xmp[stop : stop + 1] == b"\n"), b"") for start, stop, full, _ in _descriptions(xmp) if not full
    ]
    return Packet(xmp, frozenset()).edited(edits)


def _descriptions(xmp: bytes) -> list[tuple[int, int, bool, set[str]]]:
    """Of each element in rdf:RDF: where it begins and ends, whether it says something, the prefixes it declares."""
    found, depth, within, start, full, declared, prefixes = [], 0, 0, 0, False, set(), set()
    parser = expat.ParserCreate("utf-8", "}")

    def declare(prefix, _):
        declared.add(prefix or "")

    def begin(tag, attributes):
        nonlocal depth, within, start, full, prefixes
        depth += 1
        if within and depth == within + 1:
            start, prefixes = parser.CurrentByteIndex, set(declared)
            full = tag != _RDF + "}Description" or bool(set(attributes) - {_RDF + "}about"})
        elif within:
            full = True
        elif tag == _RDF + "}RDF":
            within = depth
        declared.clear()

    def end(_):
        nonlocal depth, within
        place = parser.CurrentByteIndex
        if within and depth == within + 1:
            stop = xmp.index(b">", place if place > start else _TAG.match(xmp, start).end() - 1) + 1
            found.append((start, stop, full, prefixes))
        within = 0 if depth == within else within
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler, parser.StartNamespaceDeclHandler = begin, end, declare
    parser.Parse(xmp, True)
    return found


def description(xmp: bytes | None) -> str | None:
    """What `describe` wrote, or None."""
    if not xmp:
        return None
    packet = Packet(xmp, frozenset({_OWN[0]}))
    found = packet.tops(_OWN)
    return packet.text(found[-1], LARGEST) if found else None  # older versions wrote the new one behind the old one


# Extended XMP: what one segment of a JPEG cannot hold, a packet of its own that the first one names by its MD5.

EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_NOTE = frozenset({_EXTENDED[0]})


def extension(xmp: bytes, segments: list[bytes]) -> bytes:
    """The packet in extension segments (without `EXTENSION`) that `xmp` names, whole.

    Raises:
        ValueError: it names none, or parts are missing.
    """
    packet = Packet(xmp, _NOTE)
    names = [(packet.text(node) or "").strip() for node in packet.tops(_EXTENDED)]
    parts = [part for part in segments if len(part) >= 40 and part[:32].decode("latin-1") in names]
    places = {int.from_bytes(part[36:40], "big"): part[40:] for part in parts}
    whole = b"".join(places[place] for place in sorted(places))
    if not parts or len(whole) != int.from_bytes(parts[0][32:36], "big"):
        raise ValueError("parts of the extended XMP are missing")
    return whole


def renamed(xmp: bytes, extension: bytes | None) -> bytes:
    """The packet that names `extension`, after that has changed; None if there is none any more."""
    packet = Packet(xmp, _NOTE)
    return packet.edited([removal(node) if extension is None else packet.with_value(node, _digest(extension))
                          for node in packet.tops(_EXTENDED)])  # fmt: skip


def joined(xmp: bytes, extension: bytes) -> bytes:
    """One packet of the two, for files that hold packets of any length. Raises ValueError where that cannot be."""
    main, more = Packet(renamed(xmp, None), _NOTE), Packet(extension, _NOTE)
    names, own = "", {}
    for prefix, uri in more.scope.items():
        quoted = escape(uri, {'"': "&quot;", **_SPACE})
        declaration = f' xmlns:{prefix}="{quoted}"' if prefix else f' xmlns="{quoted}"'
        if main.scope.get(prefix, uri) != uri or not prefix:
            own[prefix] = declaration  # the first packet means something else by it: each description says it itself
        elif prefix not in main.scope:
            names += declaration
    begin, stop = more.rdf.inner
    edits = []
    for start, _, _, declared in _descriptions(more.data) if own else ():
        place = re.compile(rb"<[^\s/>]+").match(more.data, start).end()
        new = "".join(declaration for prefix, declaration in own.items() if prefix not in declared).encode()
        edits.append((place, place, new))
        stop += len(new)
    edit = main.at_end(more.edited(edits)[begin:stop])
    if edit[0] == main.rdf.start:
        raise ValueError("the first packet is empty")
    place = main.rdf.inner[0] - 1
    return main.edited([(place, place, names.encode()), edit])


def split(xmp: bytes) -> tuple[bytes, bytes]:
    """A long packet as a short one, which says what this library did, and its extension, which says the rest."""
    rest = Packet(describe(xmp, None), _NOTE)
    rest = Packet(rest.edited([removal(node) for node in rest.tops(_EXTENDED)]), _NOTE)
    extension = rest.data[rest.root.start : rest.root.end]
    note = f' xmlns:xmpNote="{_EXTENDED[0]}" xmpNote:HasExtendedXMP="{_digest(extension)}"/>'
    first = Packet(_EMPTY, _NOTE)
    return describe(first.edited([first.at_end(_description(note, rest.about))]), description(xmp)), extension


def segments(xmp: bytes, extension: bytes) -> bytes:
    """APP1 segments of a JPEG for the packet and its extension."""
    payloads, step = [b"http://ns.adobe.com/xap/1.0/\0" + xmp], 65000
    for place in range(0, len(extension), step):
        head = EXTENSION + _digest(extension).encode() + struct.pack(">2L", len(extension), place)
        payloads.append(head + extension[place : place + step])
    return b"".join(b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload for payload in payloads)


def _digest(extension):
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
