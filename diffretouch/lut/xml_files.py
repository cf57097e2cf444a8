"""Small XML files of other programs, read within bounds: their size, how deep they nest, and no document type."""

from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

_LARGEST = 8 << 20  # bytes; the table of a profile, of 32 nodes, has a quarter of a megabyte
_DEEPEST = 64


def walk(
    path: Path,
    what: str,
    start: Callable[[list[str], dict[str, str]], None],
    text: Callable[[list[str], str], None],
    *,
    markup: str | None = None,
    separator: str | None = None,
) -> None:
    """Walk over a file's elements and their texts.

    Args:
        path: of the file.
        what: it should be, for errors: "profile".
        start: called with the tags that an element is in, itself the last, and its attributes.
        text: called with the tags that a text is in, and a part of it.
        markup: it is written in, if that has a name of its own, for errors: "XMP".
        separator: between a name space and a name; without it, prefixes stand as in the file.

    Raises:
        ValueError: more than 8 MB, more than 64 elements in each other, a document type, or no such markup.
    """
    with open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"is no {what}: it has more than {_LARGEST} bytes")
    inside: list[str] = []

    def opened(tag, attributes):
        inside.append(tag)
        start(inside, attributes)
        if len(inside) > _DEEPEST:
            raise ValueError(f"is no {what}: its elements are nested too deep")

    def document_type(*_):
        raise ValueError(f"is no {what}: it has a document type")

    parser = expat.ParserCreate(namespace_separator=separator)
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = opened, lambda tag: inside.pop()
    parser.CharacterDataHandler = lambda part: text(inside, part)
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"is no {markup or what}: {error}") from error
