"""Numbers in the sentences of reports."""


def counted(number: int, noun: str) -> str:
    """ "1 photo", "2 photos"."""
    return f"{number} {noun}{'s' * (number != 1)}"
