"""The entropy code of JPEG XL (ISO 18181-1, annex C): prefix codes, asymmetric numeral systems, copies of before."""

from collections.abc import Callable

from .bits import BitReader

_ENTRIES = 1 << 12  # of a distribution
_FIRST_STATE = 0x130000
CODE_ORDER = (
    1,
    2,
    3,
    4,
    0,
    5,
    17,
    6,
    16,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
)  # in which a prefix code's lengths are told


def _enough(condition):
    if not condition:
        raise ValueError("its entropy code is damaged")


def _small(bits):
    """A number below 256: 0, or of so many bits."""
    if not bits.flag():
        return 0
    size = bits.number(3)
    return (1 << size) + bits.number(size)


class _Split:
    """How a token becomes a number with the bits behind it."""

    def __init__(self, bits, log_alphabet):
        self.split = bits.number(log_alphabet.bit_length())
        self.high = self.low = 0
        if self.split != log_alphabet:
            self.high = bits.number(self.split.bit_length())
            _enough(self.high <= self.split)
            self.low = bits.number((self.split - self.high).bit_length())
            _enough(self.high + self.low <= self.split)

    def number(self, bits, token):
        if token < 1 << self.split:
            return token
        fixed = self.high + self.low
        size = self.split - fixed + ((token - (1 << self.split)) >> fixed)
        _enough(size < 32)
        low = token & ((1 << self.low) - 1)
        token >>= self.low
        return ((((1 << self.high) | token & ((1 << self.high) - 1)) << size | bits.number(size)) << self.low) | low


def _prefix_code(lengths):
    """Lengths of symbols -> {(length, code with its first bit highest): symbol}."""
    code, table = 0, {}
    for length in range(1, 16):
        for symbol, own in enumerate(lengths):
            if own == length:
                table[length, code] = symbol
                code += 1
        _enough(code <= 1 << length)
        code <<= 1
    return table


def _prefixed(bits, table):
    code = 0
    for length in range(1, 16):
        code = code << 1 | bits.number(1)
        if (length, code) in table:
            return table[length, code]
    raise ValueError("its entropy code is damaged")


def _prefix_reader(bits, count):
    """A prefix code as of Brotli (RFC 7932, 3.4 and 3.5) -> the function that reads a symbol."""
    if count == 1:
        return lambda: 0
    skip = bits.number(2)
    if skip == 1:  # up to four symbols are named
        number = bits.number(2) + 1
        symbols = [bits.number((count - 1).bit_length()) for _ in range(number)]
        _enough(max(symbols) < count and len(set(symbols)) == number)
        if number == 1:
            return lambda: symbols[0]
        shape = (1, 1), (1, 2, 2), (2, 2, 2, 2)
        lengths = (1, 2, 3, 3) if number == 4 and bits.flag() else shape[number - 2]
        ordered = [one for length in sorted(set(lengths))
                   for one in sorted(s for s, own in zip(symbols, lengths, strict=True) if own == length)]  # fmt: skip
        table = {key: ordered[n] for key, n in _prefix_code(lengths).items()}
        return lambda: _prefixed(bits, table)
    found, room = [0] * 18, 32
    for place in CODE_ORDER[skip:]:
        word = {(2, 0): 0, (4, 7): 1, (3, 3): 2, (2, 2): 3, (2, 1): 4, (4, 15): 5}
        length = _read(bits, word)
        found[place] = length
        room -= 32 >> length if length else 0
        if room <= 0:
            break
    _enough(room == 0 or sum(map(bool, found)) == 1)
    alone = [n for n, length in enumerate(found) if length]
    table = _prefix_code(found)
    lengths, room, last, repeated = [], 1 << 15, 8, (None, 0)
    while len(lengths) < count and room > 0:
        symbol = alone[0] if len(alone) == 1 else _prefixed(bits, table)
        if symbol < 16:
            lengths.append(symbol)
            room -= 1 << 15 >> symbol if symbol else 0
            last, repeated = symbol or last, (None, 0)
            continue
        extra = symbol - 14  # 16 repeats the last length, 17 zeros
        value = last if symbol == 16 else 0
        before = repeated[1] if repeated[0] == symbol else 0
        total = ((before - 2) << extra if before else 0) + bits.number(extra) + 3
        lengths += [value] * (total - before)
        room -= (total - before) * (1 << 15 >> value) if value else 0
        repeated = symbol, total
    _enough(room == 0 and len(lengths) <= count)
    table = _prefix_code(lengths)
    return lambda: _prefixed(bits, table)


def _read(bits, words):
    """A symbol of {(length, bits as a number, the first lowest): symbol}."""
    value = 0
    for length in range(1, 8):
        value |= bits.number(1) << length - 1
        if (length, value) in words:
            return words[length, value]
    raise ValueError("its entropy code is damaged")


_LOGARITHMS = {(3, 0): 10, (3, 2): 7, (3, 4): 6, (3, 5): 8, (3, 6): 9, (4, 3): 3, (4, 7): 5, (4, 9): 4, (4, 11): 1,
               (4, 15): 2, (5, 17): 0, (6, 33): 11, (7, 1): 12, (7, 65): 13}  # fmt: skip


def _distribution(bits, log_alphabet):
    """How many of the 4096 entries each symbol has."""
    size = 1 << log_alphabet
    counts = [0] * size
    if bits.flag():  # one symbol or two
        two = bits.flag()
        symbols = [_small(bits) for _ in range(1 + two)]
        _enough(max(symbols) < size and len(set(symbols)) == len(symbols))
        counts[symbols[0]] = bits.number(12) if two else _ENTRIES
        if two:
            counts[symbols[1]] = _ENTRIES - counts[symbols[0]]
        return counts
    if bits.flag():  # all alike
        number = _small(bits) + 1
        _enough(number <= size)
        counts[:number] = [_ENTRIES // number + (n < _ENTRIES % number) for n in range(number)]
        return counts
    length = 0
    while length < 3 and bits.flag():
        length += 1
    shift = bits.number(length) + (1 << length) - 1
    number = _small(bits) + 3
    _enough(shift <= 13 and number <= size)
    logs = []  # or, negative, how often the count before is repeated
    while (done := sum(-log if log < 0 else 1 for log in logs)) < number:
        log = _read(bits, _LOGARITHMS)
        logs.append(log if log < 13 else -(_small(bits) + 4))
    _enough(done == number and max(logs) >= 0)
    rest, place = None, 0
    for log in logs:
        if log < 0:
            _enough(place == 0 or place - 1 != rest)
            counts[place : place - log] = [counts[place - 1] if place else 0] * -log
            place -= log
            continue
        if log == max(logs) and rest is None:
            rest = place  # the first of the largest has what the others leave
        elif log > 1:
            known = min(max(0, shift - ((12 - (log - 1)) >> 1)), log - 1)
            counts[place] = (1 << log - 1) + (bits.number(known) << log - 1 - known)
        else:
            counts[place] = log
        place += 1
    _enough(sum(counts) <= _ENTRIES)
    counts[rest] = _ENTRIES - sum(counts)
    return counts


def _aliases(counts, log_alphabet):
    """Vose's alias method: of each bucket how far it is its own, the other symbol, and that one's offset."""
    size = _ENTRIES >> log_alphabet
    whole = [n for n, count in enumerate(counts) if count == _ENTRIES]
    if whole:
        return [(0, whole[0], size * n) for n in range(len(counts))]
    own, other, offset = list(counts), list(range(len(counts))), [0] * len(counts)
    low = [n for n, count in enumerate(own) if count < size]
    high = [n for n, count in enumerate(own) if count > size]
    while high:
        o, u = high.pop(), low.pop()
        own[o] -= size - own[u]
        other[u], offset[u] = o, own[o]
        if own[o] < size:
            low.append(o)
        elif own[o] > size:
            high.append(o)
    return [(cut, symbol, start - cut if cut < size else 0)
            for cut, symbol, start in zip(own, other, offset, strict=True)]  # fmt: skip


class _State:
    value: int | None = None


def _ans_reader(bits, counts, log_alphabet, state):
    aliases, log_size = _aliases(counts, log_alphabet), 12 - log_alphabet

    def read():
        if state.value is None:
            state.value = bits.number(32)
        index = state.value & 0xFFF
        symbol, place = index >> log_size, index & ((1 << log_size) - 1)
        cut, other, offset = aliases[symbol]
        if place >= cut:
            symbol, place = other, place + offset
        state.value = counts[symbol] * (state.value >> 12) + place
        if state.value < 1 << 16:
            state.value = state.value << 16 | bits.number(16)
        return symbol

    return read


def _clusters(bits, contexts):
    """Which of the codes each context uses."""
    if contexts == 1:
        return [0]
    if bits.flag():
        size = bits.number(2)
        found = [bits.number(size) for _ in range(contexts)]
    else:
        moved = bits.flag()
        read, end = decoder(bits, 1)
        found = [read(0) for _ in range(contexts)]
        end()
        _enough(max(found) < 256)
        if moved:
            order = list(range(256))
            for n, index in enumerate(found):
                found[n] = order.pop(index)
                order.insert(0, found[n])
    _enough(set(found) == set(range(max(found) + 1)))
    return found


def decoder(bits: BitReader, contexts: int) -> tuple[Callable[[int], int], Callable[[], None]]:
    """-> what reads a number in a context (0 to `contexts` - 1), and what checks the end.

    Raises:
        ValueError: the code is damaged or cut off; so do both functions.
    """
    copies = bits.flag()
    if copies:
        least = bits.choice((224, 0), (512, 0), (4096, 0), (8, 15))
        shortest = bits.choice((3, 0), (4, 0), (5, 2), (9, 8))
        lengths = _Split(bits, 8)
    clusters = _clusters(bits, contexts + copies)
    number = max(clusters) + 1
    plain = bits.flag()
    log_alphabet = 15 if plain else 5 + bits.number(2)
    splits = [_Split(bits, log_alphabet) for _ in range(number)]
    state = _State()
    if plain:
        counts = []
        for _ in range(number):
            size = bits.number(4) if bits.flag() else None
            counts.append(1 if size is None else 1 + (1 << size) + bits.number(size))
        tokens = [_prefix_reader(bits, count) for count in counts]
    else:
        tokens = [_ans_reader(bits, _distribution(bits, log_alphabet), log_alphabet, state) for _ in range(number)]
    seen, waiting = [], [0, 0]  # numbers to copy, and from where

    def read(context):
        if not waiting[0]:
            cluster = clusters[context]
            token = tokens[cluster]()
            if not copies or token < least:
                seen.append(splits[cluster].number(bits, token))
                return seen[-1]
            waiting[0] = lengths.number(bits, token - least) + shortest
            cluster = clusters[-1]
            distance = splits[cluster].number(bits, tokens[cluster]()) + 1
            waiting[1] = len(seen) - min(distance, len(seen), 1 << 20)
        waiting[0] -= 1
        seen.append(seen[waiting[1]] if waiting[1] < len(seen) else 0)
        waiting[1] += 1
        return seen[-1]

    def end():
        if not plain:
            _enough((bits.number(32) if state.value is None else state.value) == _FIRST_STATE)

    return read, end
