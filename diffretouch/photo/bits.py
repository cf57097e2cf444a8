"""Whole numbers from bits and into them, the least significant first, as JPEG XL (ISO 18181-1, annex B) has them."""


class BitReader:
    """Raises ValueError where the data end early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def number(self, size: int) -> int:
        first, last = self.place // 8, (self.place + size + 7) // 8
        if last > len(self.data):
            raise ValueError("its header is cut off")
        value = int.from_bytes(self.data[first:last], "little") >> self.place % 8
        self.place += size
        return value & ((1 << size) - 1)

    def flag(self) -> bool:
        return bool(self.number(1))

    def choice(self, *ways: tuple[int, int]) -> int:
        """One of four ways: (a number, bits to add)."""
        base, size = ways[self.number(2)]
        return base + self.number(size)

    def long_number(self) -> int:
        """Of up to 64 bits."""
        kind = self.number(2)
        if kind < 3:
            return (0, 1, 17)[kind] + self.number((0, 4, 8)[kind])
        value, shift = self.number(12), 12
        while self.flag():
            if shift == 60:
                return value | self.number(4) << 60
            value |= self.number(8) << shift
            shift += 8
        return value


class BitWriter:
    def __init__(self) -> None:
        self._whole, self._value, self._size = bytearray(), 0, 0

    def number(self, value: int, size: int) -> None:
        self._value |= value << self._size
        self._size += size
        if self._size >= 64:
            self._whole += (self._value & (1 << 64) - 1).to_bytes(8, "little")
            self._value >>= 64
            self._size -= 64

    def long_number(self, value: int) -> None:
        """Of up to 60 bits."""
        if value < 17:
            self.number(*((0, 2) if value == 0 else (1 | (value - 1) << 2, 6)))
        elif value < 273:
            self.number(2 | (value - 17) << 2, 10)
        else:
            self.number(3 | (value & 4095) << 2, 14)
            value >>= 12
            while value:
                self.number(1 | (value & 255) << 1, 9)
                value >>= 8
            self.number(0, 1)

    def tobytes(self) -> bytes:
        """Filled up with zeros."""
        return bytes(self._whole) + self._value.to_bytes(-(-self._size // 8), "little")
