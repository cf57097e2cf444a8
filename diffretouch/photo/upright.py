"""PIL images as they are looked at: turned by their EXIF orientation, which says so afterwards."""

import contextlib

import PIL.Image

from .exif import ORIENTATION, Exif, parse_exif

_METHODS = PIL.Image.Transpose
_TURNS = {2: _METHODS.FLIP_LEFT_RIGHT, 3: _METHODS.ROTATE_180, 4: _METHODS.FLIP_TOP_BOTTOM, 5: _METHODS.TRANSPOSE,
          6: _METHODS.ROTATE_270, 7: _METHODS.TRANSVERSE, 8: _METHODS.ROTATE_90}  # fmt: skip


def upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A PIL image turned by its EXIF orientation, without a copy where it has none. Its EXIF stays as it was."""
    picture.load()  # TIFFs and AVIFs are turned by Pillow, which then takes the orientation away
    orientation = picture.getexif().get(ORIENTATION)
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def upright_exif(picture: PIL.Image.Image) -> bytes:
    """The EXIF of a PIL image, saying that it is upright; of one that nobody can read nothing else."""
    exif = Exif()
    for block in (lambda: picture.getexif().tobytes(), lambda: picture.info["exif"]):
        with contextlib.suppress(Exception):  # Pillow cannot write all that it reads: numbers that are none, say
            exif = parse_exif(block())
            break
    exif.put(exif.image, ORIENTATION, 1)
    return b"Exif\0\0" + exif.tobytes()
