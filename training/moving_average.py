"""The moving average of the weights that is saved as the model: for every training script."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from diffusers.training_utils import EMAModel
from torch.distributed.tensor import DTensor


class MovingAverage:
    """The exponential moving average of some parameters, each process keeping that of the part which it holds.

    It is made after `Accelerator.prepare`: before, sharded weights would be averaged whole on every process.

    Args:
        parameters: as the prepared model names them.
        decay: at most this share of the average stays at a step, in [0, 1); less in the first steps. 0 keeps no
            average: the model is then its weights as they are.
        on_cpu: keep it in the processor's memory, 4 bytes a parameter less on the device, for a copy at each step.

    Raises:
        ValueError: `decay` outside [0, 1).
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float, *, on_cpu: bool = False) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must lie in [0, 1), got {decay}.")
        self.parameters, self.device = list(parameters) if decay else [], "cpu" if on_cpu else None
        self._ema = EMAModel([], decay=decay, use_ema_warmup=True, power=3 / 4)
        # float32 also of bf16 weights, whose eight bits would lose what a step adds
        self._ema.shadow_params = [part.to(self.device, torch.float32, copy=True) for part in self._held()]

    @property
    def steps(self) -> int | None:
        """How many steps it has seen; `None` where no average is kept."""
        return self._ema.optimization_step if self.parameters else None

    def step(self) -> None:
        """Move the average towards the weights."""
        if self.parameters:
            moving = zip(self._held(), self.parameters, strict=True)
            self._ema.step([part.to(self.device).requires_grad_(own.requires_grad) for part, own in moving])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages in the place of the weights, for as long as the block lasts."""
        held = self._held()
        self._ema.store(held)
        self._ema.copy_to(held)
        try:
            yield
        finally:
            self._ema.restore(held)

    def state(self) -> dict[str, torch.Tensor]:
        """The averages, whole, by their number. Of sharded weights every process must ask: they are gathered."""
        pairs = enumerate(zip(self._ema.shadow_params, self.parameters, strict=True))
        return {str(i): _whole(shadow, own).cpu().contiguous() for i, (shadow, own) in pairs}

    def load(self, state: dict[str, torch.Tensor], steps: int | None) -> None:
        """Go on from a `state`.

        Raises:
            ValueError: it is that of other parameters, or there is none.
        """
        if not self.parameters:
            return
        shapes = [tuple(state[str(i)].shape) for i in range(len(state))]
        if steps is None or shapes != [tuple(own.shape) for own in self.parameters]:
            raise ValueError("it holds no moving average of these weights: was it made with another `--ema_decay`?")
        for i, (shadow, own) in enumerate(zip(self._ema.shadow_params, self.parameters, strict=True)):
            shadow.copy_(_part(state[str(i)], own))
        self._ema.optimization_step = steps

    def _held(self) -> list[torch.Tensor]:
        """What this process holds of each parameter, in the same memory."""
        held = (parameter.detach() for parameter in self.parameters)
        return [part.to_local() if isinstance(part, DTensor) else part for part in held]


def _whole(part, like):
    if not isinstance(like, DTensor):
        return part.detach()
    place = {"shape": like.shape, "stride": like.stride()}
    return DTensor.from_local(part.to(like.device), like.device_mesh, like.placements, **place).full_tensor()


def _part(whole, like):
    if not isinstance(like, DTensor):
        return whole
    # every process has read the same file, so nothing is sent: each takes its own part
    whole = DTensor.from_local(whole.to(like.device), like.device_mesh)
    return whole.redistribute(placements=like.placements).to_local()
