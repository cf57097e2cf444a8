"""The ICC profile within the coded picture of a JPEG XL (ISO 18181-1, annex E.4), which imagecodecs does not hand on.

A profile is guessed byte by byte, and what is left is entropy coded: whoever wants to know where the header ends must
decode it. What is written here is valid and plain: no guesses beyond the header's, all bytes of equal length.
"""

import struct

from .bits import BitReader, BitWriter
from .entropy_code import CODE_ORDER, decoder

_LARGEST = 1 << 22  # bytes
_CONTEXTS = 41


def _enough(condition):
    if not condition:
        raise ValueError("its ICC profile is damaged")


def _kind(byte):
    letter, digit = 65 <= byte <= 90 or 97 <= byte <= 122, 48 <= byte <= 57 or byte in (44, 46)
    return 0 if letter else 1 if digit else None


def _context(last, before):
    first = _kind(last)
    if first is None:
        first = last + 2 if last < 2 else 4 if last < 16 else 6 if last == 255 else 5 if last > 240 else 7
    second = _kind(before)
    if second is None:
        second = 2 if before < 16 else 3 if before > 240 else 4
    return 1 + first + 8 * second


def read_profile(bits: BitReader) -> bytes:
    """The ICC profile that begins there, and `bits` behind it.

    Raises:
        ValueError: it is damaged, or longer than 4 MB.
    """
    size = bits.long_number()
    if size > _LARGEST:
        raise ValueError("its ICC profile is longer than 4 MB")
    read, end = decoder(bits, _CONTEXTS)
    coded = bytearray()
    for n in range(size):
        byte = read(_context(coded[-1], coded[-2]) if n > 128 else 0)
        _enough(byte < 256)
        coded.append(byte)
        if n & 0xFFFF == 0xFFFF:  # a few bits that stand for millions of bytes are no profile
            _enough(n < 256 * bits.place // 8)
    end()
    return _unpredicted(bytes(coded))


class _Bytes:
    """Bytes in their order."""

    def __init__(self, data):
        self.data, self.place = data, 0

    @property
    def left(self):
        return len(self.data) - self.place

    def take(self, size):
        _enough(size <= self.left)
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self):
        """Seven bits a byte, the lowest first."""
        value = 0
        for n in range(5):
            (byte,) = self.take(1)
            value |= (byte & 127) << 7 * n
            if byte < 128:
                break
        _enough(value < 1 << 32)
        return value


def _header_guess(size):
    guess = bytearray(128)
    guess[:12] = struct.pack(">3L", size, 0, 4 << 24)
    guess[12:24], guess[36:40], guess[70:80] = b"mntrRGB XYZ ", b"acsp", b"\xf6\xd6\0\1\0\0\0\0\xd3\x2d"
    return guess


def _guess_on(guess, known):
    """What the header's bytes so far say of those that follow."""
    if len(known) == 8:
        guess[80:84] = known[4:8]
    for start, word in ((b"A", b"APPL"), (b"M", b"MSFT"), (b"SG", b"SGI "), (b"SU", b"SUNW")):
        if len(known) == 40 + len(start) and known[40:] == start:
            guess[40:44] = word


_TAGS = (b"cprt", b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"chad",
         b"desc", b"chrm", b"dmnd", b"dmdd", b"lumi")  # fmt: skip
_TYPES = (b"XYZ ", b"desc", b"text", b"mluc", b"para", b"curv", b"sf32", b"gbd ")
_TWENTY = (b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"wtpt", b"bkpt", b"lumi")


def _unpredicted(coded):
    stream = _Bytes(coded)
    size = stream.number()
    if size > _LARGEST:
        raise ValueError("its ICC profile is longer than 4 MB")
    commands = _Bytes(stream.take(stream.number()))
    out, guess = bytearray(), _header_guess(size)
    while len(out) < min(size, 128):
        _guess_on(guess, out)
        out.append((stream.take(1)[0] + guess[len(out)]) & 255)
    if size > 128:
        _tags(out, commands, stream)
    while commands.left:
        _enough(len(out) <= size)
        _content(out, commands, stream)
    _enough(len(out) == size and not stream.left)
    return bytes(out)


def _tags(out, commands, stream):
    number = commands.number()
    if not number:
        return
    out += struct.pack(">L", number - 1)
    start, length = 128 + 12 * (number - 1), 0
    while commands.left:
        (command,) = commands.take(1)
        code = command & 63
        if code == 0:
            break
        _enough(code < 4 + len(_TAGS))
        name = stream.take(4) if code == 1 else b"rTRC" if code == 2 else b"rXYZ" if code == 3 else _TAGS[code - 4]
        start = commands.number() if command & 64 else start + length
        length = 20 if name in _TWENTY else length
        length = commands.number() if command & 128 else length
        names = {2: (name, b"gTRC", b"bTRC"), 3: (name, b"gXYZ", b"bXYZ")}.get(code, (name,))
        for n, one in enumerate(names):
            place = start + (n * length if code == 3 else 0)
            _enough(place < 1 << 32)
            out += one + struct.pack(">2L", place, length)
        _enough(len(out) <= _LARGEST)


def _content(out, commands, stream):
    (command,) = commands.take(1)
    if command in (1, 2, 3):
        out += _dealt(stream.take(commands.number()), (1, 2, 4)[command - 1])
    elif command == 4:
        (flags,) = commands.take(1)
        width, order = (flags & 3) + 1, flags >> 2 & 3
        stride = commands.number() if flags & 16 else width
        _enough(width != 3 and order != 3 and width <= stride and 4 * stride < len(out))
        _predict(out, _dealt(stream.take(commands.number()), width), width, order, stride)
    elif command == 10:
        out += b"XYZ \0\0\0\0" + stream.take(12)
    else:
        _enough(16 <= command < 16 + len(_TYPES))
        out += _TYPES[command - 16] + bytes(4)


def _dealt(data, width):
    """Bytes that stand by their place in a number -> the numbers."""
    rows = -(-len(data) // width)
    return bytes(data[n] for start in range(rows) for n in range(start, len(data), rows))


def _predict(out, left, width, order, stride):
    """Numbers of `width` bytes by those `stride` bytes before them: the same, on a line, on a parabola."""
    weights = ((1,), (2, -1), (3, -3, 1))[order]
    for n in range(0, len(left), width):
        place = len(out)
        guess = sum(weight * int.from_bytes(out[place - k * stride : place - k * stride + width], "big")
                    for k, weight in enumerate(weights, 1)) & ((1 << 8 * width) - 1)  # fmt: skip
        out += bytes((a + b) & 255 for a, b in zip(left[n : n + width], guess.to_bytes(width, "big"), strict=False))


def _number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def write_profile(bits: BitWriter, profile: bytes) -> None:
    """The ICC profile for `read_profile` and every decoder: each byte in eight bits."""
    guess, left = _header_guess(len(profile)), bytearray()
    for n, byte in enumerate(profile[:128]):
        _guess_on(guess, profile[:n])
        left.append((byte - guess[n]) & 255)
    body = profile[128:]
    commands = b"\0\1" + _number(len(body)) if body else b""
    coded = _number(len(profile)) + _number(len(commands)) + commands + left + body
    bits.long_number(len(coded))
    bits.number(0, 1)  # nothing is copied
    bits.number(1, 1)
    bits.number(0, 2)  # all contexts share one code,
    bits.number(1, 1)  # of prefixes,
    bits.number(8, 4)  # whose tokens below 256 are the numbers
    bits.number(0, 4)
    bits.number(0, 4)
    bits.number(1, 1)
    bits.number(7, 4)
    bits.number(127, 7)  # 256 symbols
    bits.number(0, 2)  # their lengths follow: of lengths only the 8 is used
    for place in CODE_ORDER:
        bits.number(*((7, 4) if place == 8 else (0, 2)))
    for byte in coded:
        bits.number(int(f"{byte:08b}"[::-1], 2), 8)
