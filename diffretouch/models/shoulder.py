"""The shoulder: soft ends of the range, for single pixels that a retouch would drive to black or white."""

import torch


def roll_off(retouched: torch.Tensor, photo: torch.Tensor, shoulder: float, white: float = 1.0) -> torch.Tensor:
    """Let what a retouch drives to the ends of the range roll off, so that nothing is clipped that was not.

    A channel has room to move, up to one level of 8 bits short of white or black. A share `shoulder` of it is taken as
    it is asked for; of the rest, the further a retouch wants to go the less it gets: the room itself is never reached.
    Slope and order of tones stay, so detail in highlights is dimmed, not lost; noise and stars do not burn out.

    Args:
        retouched (`torch.Tensor`): like `photo`, not clamped.
        photo (`torch.Tensor`): in [0,`white`]. Beyond it a channel comes no further out than it was.
        shoulder (`float`): in (0,1).

    Returns:
        `torch.Tensor`: like `retouched`.
    """
    up, rest = retouched > photo, 1 - shoulder
    room = (torch.where(up, white - photo, photo) - white / 255).clamp(min=0)
    moved = (retouched - photo).abs()
    far = moved > shoulder * room
    divisor = torch.where(far, moved + (rest - shoulder) * room, 1)
    taken = room * (1 - rest**2 * room / divisor)
    return torch.where(far, photo + torch.where(up, taken, -taken), retouched)
