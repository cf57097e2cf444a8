"""Instant sliders: sample the model at a few points of the c-cube, interpolate grids between them."""

import functools
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch

from .attributes import Attributes, as_attributes
from .metrics import delta_e76
from .models.affine_grid import AffineGridHead, between_identity
from .pixels import ArrayOrTensor, as_float, check_strength, is_number, to_levels

_BATCH = 8  # samples in one UNet call: much larger ones gain little and need more memory
_MEASURE_SIZE = 256  # long side of the copy on which fidelity is measured


class Fidelity(NamedTuple):
    """How far interpolated retouches lie from truly sampled ones.

    Args:
        mean (`float`): mean CIE 1976 colour difference over the pixels and the probed c.
        worst (`float`): the largest colour difference (mean over the pixels) of one probed c.
    """

    mean: float
    worst: float


def slider_points() -> list[torch.Tensor]:
    """Where [`Sliders`] samples: four batches of (n,4) in the c-cube, the centre first, 25 points in all.

    The centre, the 8 ends of the axes, the 8 corners with an odd number of negative values at half their size, and
    the other 8 corners. Chosen by measurement among designs of 9 to 73 points: interpolation between these comes as
    close to the samples as designs of 33 points do that take whole corners or faces only.
    """
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))  # (16,4)
    odd = corners.prod(1) < 0
    return [torch.zeros(1, 4), axes, 0.5 * corners[odd], corners[~odd]]


def interpolation_weights(c: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Weights (B,n) with which samples at `points` (n,4) are added up to interpolate at `c` (B,4); float64.

    Polyharmonic splines: |c - point|^3 and a linear polynomial (Duchon 1977), exact at the points and for everything
    that is linear in c; nothing to tune, and a point can be added anywhere. `points` is either one point, which then
    stands for all c, or spans the space.
    """
    c, points = c.double(), points.double()
    n = len(points)
    if n == 1:
        return torch.ones(len(c), 1, dtype=torch.float64)

    def linear(x):
        return torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], 1)  # (.,5)

    system = torch.zeros(n + 5, n + 5, dtype=torch.float64)
    system[:n, :n] = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") ** 3
    system[:n, n:] = linear(points)
    system[n:, :n] = linear(points).T
    distances = torch.cdist(c, points, compute_mode="donot_use_mm_for_euclid_dist") ** 3
    return torch.linalg.solve(system, torch.cat([distances, linear(c)], 1).T)[:n].T


def screen_copy(photo: ArrayOrTensor, size: int | None) -> np.ndarray:
    """A photo as it is shown: (H,W,3) uint8, area-averaged to a long side of at most `size` pixels; never enlarged.

    Args:
        photo: an (H,W,3) array of uint8, uint16 or float32, or a (3,H,W) float tensor in [0,1]; floats beyond [0,1]
            are limited to it.
        size (`int`, *optional*): `None` keeps the photo's own.

    Returns:
        `numpy.ndarray`: a copy of its own, also if nothing had to be changed.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise ValueError(f"`size` must be a positive number of pixels or None, got {size!r}.")
    height, width = photo.shape[-2:] if torch.is_tensor(photo) else photo.shape[:2]
    ratio = 1 if size is None else min(size / max(height, width), 1)
    height, width = max(round(height * ratio), 1), max(round(width * ratio), 1)
    if torch.is_tensor(photo):
        photo = photo.float().permute(1, 2, 0).cpu().numpy()
    pixels = np.empty(photo.shape, np.uint8)
    for start in range(0, len(photo), 256):  # in strips: it may be huge and memory-mapped
        rows = photo[start : start + 256]
        if rows.dtype != np.uint8:
            rows = to_levels(as_float(rows))
        pixels[start : start + 256] = rows
    if ratio == 1:
        return pixels
    return np.array(PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BOX))


class Sliders:
    """The retouch of one photo at any c, at once. Made by [`DiffRetouchPipeline.sliders`].

    The model is sampled at the points of `slider_points`, all with one noise. As a retouch is linear in its grid, any
    other c is answered by adding up the sampled *grids*: one pass over the pixels, whatever the model costs. At the
    sampled points the answer is the model's own; `fidelity` tells how close it is elsewhere. A c beyond [-1,1] is not
    interpolated: it is sampled, at the cost of sampling.

    All methods may be called from several threads. What is asked for before all points are there is answered from
    those that are, at first from c = 0 alone; `wait` for reproducible answers.

    Args:
        sample: c (B,4) -> grids (B,12,D,gh,gw), always with the same noise; called from the background thread too.
        grid_head (`AffineGridHead`): applies the grids.
        photo (`numpy.ndarray`): (H,W,3) uint8, what is shown.
        shoulder (`float`, *optional*): how its range ends, see `roll_off`.
        background (`bool`): return as soon as c = 0 is sampled, and sample the rest in a thread.
    """

    def __init__(
        self,
        sample: Callable[[torch.Tensor], torch.Tensor],
        grid_head: AffineGridHead,
        photo: np.ndarray,
        *,
        shoulder: float | None = None,
        background: bool = False,
    ) -> None:
        self.photo = photo
        self._sample = sample
        self._apply = functools.partial(grid_head.apply, shoulder=shoulder)
        self._adding = threading.Lock()
        self._buffers = threading.local()
        self._closed = threading.Event()
        self._filled = Future()
        self._probes = torch.quasirandom.SobolEngine(4, scramble=True, seed=0)
        centre, *batches = slider_points()
        self._samples = centre, sample(centre).float()  # replaced as a whole, so that readers need no lock
        if background:
            # Not a daemon: at exit, `_fill` is given the time to end between two batches.
            threading.Thread(target=self._fill, args=(batches,), name="diffretouch-sliders").start()
        else:
            self._fill(batches)
            self._filled.result()

    def _fill(self, batches):
        try:
            for c in batches:
                if self._closed.is_set() or not threading.main_thread().is_alive():
                    break
                with self._adding:
                    self._add(c, self._sample(c))
        except BaseException as error:  # whoever asks next is told
            self._filled.set_exception(error)
        else:
            self._filled.set_result(None)

    def _add(self, c, grids):
        points, known = self._samples
        self._samples = torch.cat([points, c]), torch.cat([known, grids.float()])

    def wait(self, timeout: float | None = None) -> "Sliders":
        """Wait until all points are sampled.

        Args:
            timeout (`float`, *optional*): seconds.

        Returns:
            `Sliders`: this object.

        Raises:
            TimeoutError: they are not within `timeout`.
            Exception: whatever stopped the sampling.
        """
        self._filled.result(timeout)
        return self

    def close(self) -> None:
        """Let the background sampling end after the batch at work. What is sampled stays in use."""
        self._closed.set()

    @property
    def points(self) -> torch.Tensor:
        """(n,4), the c that are sampled so far, in the order of `ATTRIBUTES`."""
        return self._samples[0].clone()

    def grid(self, c: Attributes = None) -> torch.Tensor:
        """The grids (B,12,D,gh,gw) at c, float32: one row or several, see `as_attributes`.

        Raises:
            ValueError, TypeError: as `as_attributes`; and whatever stopped the background sampling.
        """
        c = as_attributes(c)
        if self._filled.done():
            self._filled.result()
        if (c.abs() > 1).any():
            beyond = (c.abs() > 1).any(1)
            inside = self._interpolate(c)
            inside[beyond] = torch.cat([self._sample(rows).float() for rows in c[beyond].split(_BATCH)])
            return inside
        return self._interpolate(c)

    def _interpolate(self, c):
        points, grids = self._samples
        weights = interpolation_weights(c, points).to(grids.device, torch.float32)
        with torch.autocast(grids.device.type, enabled=False):
            return (weights @ grids.flatten(1)).unflatten(1, grids.shape[1:])

    def __call__(
        self, c: Attributes = None, *, strength: float = 1.0, out: np.ndarray | None = None
    ) -> PIL.Image.Image | np.ndarray:
        """The photo retouched at c.

        Args:
            c: one row of attributes in the order of `ATTRIBUTES`, in [-1,1], see `as_attributes`.
            strength (`float`): 0 shows the photo, 1 the retouch, values between mix them exactly; up to 2.
            out (`numpy.ndarray`, *optional*): (H,W,3) uint8, written to and returned; saves making a PIL image.

        Returns:
            `PIL.Image.Image`, or `out`.

        Raises:
            TypeError, ValueError: an argument that is not as said here, named; and whatever stopped the sampling.
        """
        check_strength(strength)
        grid = self.grid(c)
        if len(grid) != 1:
            raise ValueError(f"`c` must be one row, got {len(grid)}.")
        grid = between_identity(grid, strength)
        if out is not None:
            return self._apply(grid, self.photo, out=out)
        # A PIL image of three bands holds a copy of its own, so that one array per thread does for all of them.
        buffer = getattr(self._buffers, "result", None)
        if buffer is None:
            buffer = self._buffers.result = np.empty_like(self.photo)
        return PIL.Image.fromarray(self._apply(grid, self.photo, out=buffer))

    def fidelity(self, n: int = 16, seed: int = 0) -> Fidelity:
        """Compare interpolated with truly sampled retouches at random c of [-1,1]^4. Waits for all points.

        Args:
            n (`int`): how many c; each is sampled.
            seed (`int`): which c.

        Returns:
            [`Fidelity`], measured on a copy of at most 256 px.
        """
        _check_count("n", n)
        self.wait()
        c = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return _summary([self._errors(rows, self._sample(rows)) for rows in c.split(_BATCH)])

    def _errors(self, c, grids):
        shown = torch.from_numpy(screen_copy(self.photo, _MEASURE_SIZE)).permute(2, 0, 1)[None] / 255
        shown = shown.to(grids.device).expand(len(c), -1, -1, -1)
        images = [self._apply(g.float(), shown).clamp(0, 1) for g in (self._interpolate(c), grids)]
        return delta_e76(*images)  # (B,)

    def refine(self, limit: float = 1.5, *, rounds: int = 4) -> Fidelity:
        """Sample more points until the mean colour difference at fresh ones is at most `limit`.

        Each round samples 16 fresh c, spread evenly over the cube, compares them with what was interpolated there,
        and makes them points of the interpolation; it ends when the comparison was good enough.

        Args:
            limit (`float`): mean CIE 1976 colour difference.
            rounds (`int`): at most so many times 16 samples.

        Returns:
            [`Fidelity`] at the last 16, before they were added: rather worse than what is reached.
        """
        if not is_number(limit) or not limit > 0:
            raise ValueError(f"`limit` must be a positive number, got {limit!r}.")
        _check_count("rounds", rounds)
        self.wait()
        for _ in range(rounds):
            with self._adding:
                c = self._probes.draw(2 * _BATCH) * 2 - 1
                grids = [self._sample(rows) for rows in c.split(_BATCH)]
                found = _summary([self._errors(*pair) for pair in zip(c.split(_BATCH), grids, strict=True)])
                self._add(c, torch.cat(grids))
            if found.mean <= limit:
                break
        return found


def _summary(errors):
    errors = torch.cat(errors)
    return Fidelity(errors.mean().item(), errors.max().item())


def _check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
