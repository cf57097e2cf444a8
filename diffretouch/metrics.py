"""How close a retouch comes to an expert's, what it keeps, and how it obeys: measures on sRGB photos in [0,1]."""

import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d

from diffretouch.colour import LUMA
from diffretouch.colour.lab import srgb_to_lab

_CHECKPOINTS = "in the folder checkpoints of torch.hub.get_dir()"  # not where that lies: reports are handed on
EQUAL_PSNR = 120.0  # dB, of photos without any difference
_STRIP = 2**18  # pixels measured at a time where a measure needs many copies of the photo


class MetricUnavailable(RuntimeError):
    """A metric cannot be computed here: the message says what it needs."""


def psnr(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB, (B,), for a peak of 1; of equal photos, where it is infinite, `EQUAL_PSNR`."""
    return -10 * (image - target).square().mean((1, 2, 3)).clamp(min=10 ** (-EQUAL_PSNR / 10)).log10()


def ssim(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), (B,): Gaussian window of 11 px and sigma 1.5, mean over RGB.

    Whole windows only, as in the authors' code and in the field's tables. The window is applied along rows and
    columns, five times faster on a CPU than torchmetrics' square one.

    Raises:
        ValueError: a side is shorter than the window.
    """
    if min(image.shape[-2:]) < 11:
        raise ValueError(f"`image` must have sides of at least 11 px for SSIM, got {tuple(image.shape[-2:])}.")
    window = torch.exp(-(torch.arange(-5.0, 6, dtype=image.dtype, device=image.device).square()) / (2 * 1.5**2))
    window = window / window.sum()
    height, width = image.shape[-2:]
    rows, total = max(_STRIP // width, 1), 0.0
    for top in range(0, height - 10, rows):  # in strips, each with the rows that its windows reach into
        x, y = (photo[:, :, top : min(top + rows + 10, height)].flatten(0, 1)[:, None] for photo in (image, target))
        moments = torch.cat([x, y, x * x, y * y, x * y], 1).flatten(0, 1)[:, None]  # (B*3*5,1,h,W)
        moments = conv2d(conv2d(moments, window[None, None, :, None]), window[None, None, None])
        mx, my, xx, yy, xy = moments.unflatten(0, (-1, 5)).squeeze(2).unbind(1)
        c1, c2 = 0.01**2, 0.03**2
        structure = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
        similarity = (2 * mx * my + c1) / (mx * mx + my * my + c1) * structure
        total = total + similarity.double().sum((1, 2)).unflatten(0, (-1, 3)).sum(1)
    return total / (3 * (height - 10) * (width - 10))


def delta_e76(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean CIE 1976 colour difference, (B,): the Euclidean distance in CIELAB.

    This is also the "L2 in Lab" of Yan et al. (2016) and of SA-AdjustNet's table 1.
    """
    return (srgb_to_lab(image) - srgb_to_lab(target)).square().sum(1).sqrt().mean((1, 2))


def delta_e2000(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean CIEDE2000 colour difference, (B,). In strips: large photos need no more memory than small ones."""
    rows = max(_STRIP // image.shape[-1], 1)
    total = 0.0
    for a, b in zip(image.split(rows, 2), target.split(rows, 2), strict=True):
        total = total + lab_delta_e2000(srgb_to_lab(a.double()), srgb_to_lab(b.double())).sum((1, 2))
    return total / (image.shape[-2] * image.shape[-1])


def lab_delta_e2000(lab: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """CIEDE2000 (Sharma, Wu and Dalal 2005) of CIELAB colours (B,3,...) -> (B,...)."""
    (l1, a1, b1), (l2, a2, b2) = lab.unbind(1), other.unbind(1)
    mean_chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    a1, a2 = (a * (1.5 - 0.5 * _chroma_weight(mean_chroma)) for a in (a1, a2))
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1) % (2 * math.pi), torch.atan2(b2, a2) % (2 * math.pi)
    grey = (c1 * c2) == 0

    # Differences; hues turn the short way, and grey has none
    turn = h2 - h1
    far = turn.abs() > math.pi
    turn = torch.where(far, turn - 2 * math.pi * turn.sign(), turn)
    turn = torch.where(grey, 0, turn)
    dl, dc, dh = l2 - l1, c2 - c1, 2 * (c1 * c2).sqrt() * torch.sin(turn / 2)

    # Weights at the means
    lightness, chroma, hue = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + h2) / 2
    hue = torch.where(far, torch.where(h1 + h2 < 2 * math.pi, hue + math.pi, hue - math.pi), hue)
    hue = torch.where(grey, h1 + h2, hue)
    cos = lambda k, degrees: torch.cos(k * hue + math.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(1, -30) + 0.24 * cos(2, 0) + 0.32 * cos(3, 6) - 0.20 * cos(4, -63)
    offset = (lightness - 50).square()
    sl, sc, sh = 1 + 0.015 * offset / (20 + offset).sqrt(), 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = math.radians(60) * torch.exp(-(((torch.rad2deg(hue) - 275) / 25).square()))
    rt = -torch.sin(rotation) * 2 * _chroma_weight(chroma)
    dl, dc, dh = dl / sl, dc / sc, dh / sh
    return (dl.square() + dc.square() + dh.square() + rt * dc * dh).clamp(min=0).sqrt()


def _chroma_weight(chroma):
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


def after_gain(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The retouch under the one gain that brings it closest to the target: what is left is not exposure.

    Args:
        image, target (`torch.Tensor`): (B,3,H,W) in [0,1].

    Returns:
        `torch.Tensor`: like `image`, limited to [0,1]; after that limit no other gain comes closer.
    """
    return _gained(image, target)[0]


def _gained(image, target):
    """-> (the photos after their gains, the gains)"""
    gains = [_best_gain(x, y) for x, y in zip(image, target, strict=True)]
    gained = [(gain * x.double()).clamp(max=1) for gain, x in zip(gains, image, strict=True)]
    return _closer(target, torch.stack(gained).to(image), image), gains


def _best_gain(image, target):
    """The gain g of least |min(g x, 1) - y|^2 over a photo's values; 1 of a black one, which none changes.

    Between the gains at which one level and the next reach white the error is a parabola: every one is looked at.
    """
    x, y = image.flatten(), target.flatten().double()
    index = (x * 255).round().long()
    if torch.equal(index.to(x) / 255, x):  # 8 bits need no sorting
        x = torch.arange(256, dtype=y.dtype, device=y.device) / 255
    else:
        x, index = x.double().unique(return_inverse=True)
    # Of each level, brightest first: how many, and the sums of the target and of its square
    n, y, yy = (torch.bincount(index, weights, len(x)).flip(0) for weights in (None, y, y * y))
    x, n, y, yy = (z[(x.flip(0) > 0) & (n > 0)] for z in (x.flip(0), n, y, yy))
    if not len(x):
        return 1.0
    white = (n - 2 * y + yy).cumsum(0).roll(1)  # the error of those that are white already
    white[0] = 0
    xx, xy, yy = (z.flip(0).cumsum(0).flip(0) for z in (n * x * x, x * y, yy))  # of this level and all below
    lowest = torch.cat([x.new_zeros(1), 1 / x[:-1]])
    gain = (xy / xx).minimum(1 / x).maximum(lowest)
    return gain[(white + gain * gain * xx - 2 * gain * xy + yy).argmin()].item()


def after_affine(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As `after_gain`, under the best global 3x4 colour transform: white balance and saturation are taken out too.

    After the limits the error has several minima: the better one of each channel is taken of those that two searches
    reach, from the best gain and from the transform of least squared error before the limits.
    """
    fitted, (gained, gains) = [], _gained(image, target)
    for photo, wanted, gain in zip(image, target, gains, strict=True):
        x = torch.cat([photo, torch.ones_like(photo[:1])]).flatten(1).double()  # (4,N)
        starts = gain * torch.eye(3, 4, dtype=x.dtype, device=x.device)
        channels = [_limited_fit(x, y, start) for y, start in zip(wanted.flatten(1).double(), starts, strict=True)]
        fitted.append((torch.stack(channels) @ x).clamp(0, 1).view_as(wanted))
    return _closer(target, torch.stack(fitted).to(image), gained)


def _limited_fit(x, y, start):
    """Weights w of least |clip(w x) - y|^2, of x (4,N) and y (N), by Gauss-Newton steps from two starts.

    A step is the fit of the pixels that stay within the range, or half of it and so on where that is worse.
    """
    xx, xy = x @ x.mT, x @ y
    solve = lambda xx, xy: torch.linalg.pinv(xx, hermitian=True) @ xy  # noqa: E731  # also of photos in one colour
    measure = lambda weights: ((weights @ x).clamp(0, 1) - y).square().sum()  # noqa: E731
    found = []
    for weights in (start, solve(xx, xy)):
        error, gained = measure(weights), math.inf
        while gained > 1e-7 * error:
            made = weights @ x
            out = ((made < 0) | (made > 1)).nonzero()[:, 0]
            step = solve(xx - x[:, out] @ x[:, out].mT, xy - x[:, out] @ y[out]) - weights
            trials = (weights + share * step for share in (1, 0.5, 0.25, 0.125))
            reached, trial = next(((e, w) for w in trials if (e := measure(w)) < error), (error, weights))
            gained, error, weights = error - reached, reached, trial
        found.append((error, weights))
    return min(found, key=lambda fit: fit[0])[1]


def after_curves(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As `after_gain`, under the best curve of each channel: the mean of the target at each of 256 levels.

    A photo of more levels gets the gain, which is a curve too, where that is closer.
    """
    levels = (image * 255).round().long().flatten(2).flatten(0, 1)
    curves = []
    for level, wanted in zip(levels, target.flatten(2).flatten(0, 1), strict=True):
        number = torch.bincount(level, minlength=256)
        total = torch.bincount(level, wanted.double(), minlength=256)
        curves.append((total / number.clamp(min=1)).to(image)[level])
    return _closer(target, torch.stack(curves).view_as(image), after_gain(image, target))


def _closer(target, image, simpler):
    """Of each photo the version of less squared error: a wider fit is never worse than the one it contains."""
    error, simple = ((x.double() - target).square().sum((1, 2, 3)) for x in (image, simpler))
    return torch.where((error <= simple)[:, None, None, None], image, simpler)


def human_centred(image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """PPR10K's measures that look at the people first (Liang et al., CVPR 2021).

    Both photos are weighted, 1 on the people and 0.5 elsewhere, and then measured: as the released script does.

    Args:
        image, target (`torch.Tensor`): (B,3,H,W) in [0,1].
        mask (`torch.Tensor`): (B,1,H,W), above 0 on people.

    Returns:
        (PSNR in dB, mean CIE 1976 colour difference), (B,) each.
    """
    weight = torch.where(mask > 0, 1.0, 0.5).to(image)
    difference = (srgb_to_lab(image) - srgb_to_lab(target)).square().sum(1, keepdim=True).sqrt()
    return psnr(image * weight, target * weight), (difference * weight).mean((1, 2, 3))


def group_consistency(means: torch.Tensor | np.ndarray, groups: Sequence[str], *, released: bool = False) -> float:
    """PPR10K's group-level consistency (GLC): how unlike in colour the photos of one series are; lower is better.

    The variance (n - 1) over a group's photos of their mean a, and of their mean b, of CIELAB; the mean of both, then
    over the groups. A group of one photo counts as 0, as in the released script. No expert is needed.

    Args:
        means: (n,2), mean a and b of each photo.
        groups: n names; photos of one name belong together.
        released (`bool`): divide by one group more than there are: the released script counts an empty one.
    """
    means, members = np.asarray(means, np.float64), {}
    if means.ndim != 2 or means.shape[1] != 2 or len(means) != len(groups) or not len(means):
        raise ValueError(f"`means` must be (n,2) with a group for each, got {means.shape} and {len(groups)} groups.")
    for row, group in zip(means, groups, strict=True):
        members.setdefault(group, []).append(row)
    spread = sum(np.var(rows, axis=0, ddof=1).mean() for rows in members.values() if len(rows) > 1)
    return float(spread / (len(members) + released))


def gmsd(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Gradient magnitude similarity deviation (Xue et al., TIP 2014), (B,): 0 where structure is kept.

    Luma halved by 2x2 means, Prewitt gradients, whole windows; an even change of contrast hardly counts, lost or
    invented detail does.

    Raises:
        ValueError: a side is shorter than 6 px.
    """
    if min(image.shape[-2:]) < 6:
        raise ValueError(f"`image` must have sides of at least 6 px for GMSD, got {tuple(image.shape[-2:])}.")
    x = torch.stack([image, source], 1).flatten(0, 1).double()
    luma = torch.einsum("j,bjhw->bhw", x.new_tensor(LUMA), x)[:, None]
    luma = torch.nn.functional.avg_pool2d(luma, 2)
    across = x.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    gradient = conv2d(luma, torch.stack([across, across.T])[:, None]).square().sum(1).sqrt()
    a, b = gradient.unflatten(0, (-1, 2)).unbind(1)
    constant = 170 / 255**2
    return ((2 * a * b + constant) / (a * a + b * b + constant)).flatten(1).std(1, correction=0)


def csrnet_lab_l2(image: torch.Tensor, target: torch.Tensor, *, wrapped: bool = True) -> torch.Tensor:
    """The "L2 error in Lab" of the released CSRNet script, (B,), to compare with its table: no CIELAB distance.

    The script takes the distance of 8-bit Lab values (L scaled to 0..255, a and b + 128), and its arrays stay uint8:
    differences and their squares wrap around at 256, so that a difference of 16 counts as 0 and no pixel as more than
    27.7. `wrapped=False` is the same distance without that bug. OpenCV's integer tables differ from the rounded CIELAB
    used here by one level in a tenth of the values: by 0.03 at most in the means of 13 pairs of FiveK around 12.
    """
    a, b = (_lab_8bit(x) for x in (image, target))
    return byte_distance(a, b, wrapped=wrapped).mean((1, 2))


def _lab_8bit(image):
    lab = srgb_to_lab(image.double())
    lab = torch.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1)
    return lab.round().clamp(0, 255)


def byte_distance(a: torch.Tensor, b: torch.Tensor, *, wrapped: bool) -> torch.Tensor:
    """Euclidean distance of byte triples (B,3,...) -> (B,...), in bytes that wrap around or as real numbers."""
    difference = (a - b).double()
    squares = (difference % 256).square() % 256 if wrapped else difference.square()
    return squares.sum(1).sqrt()


def clipped_share(image: torch.Tensor) -> torch.Tensor:
    """Share of the pixels with a channel at 0 or 1 (within half a level of 8 bits), (B,) in [0,1]."""
    return ((image < 0.5 / 255) | (image > 254.5 / 255)).any(1).double().mean((1, 2))


def gradient_correlation(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """How much of the photo's structure a retouch keeps, (B,) in [-1,1]: correlation of both luma gradients.

    1 for every retouch that scales and shifts all tones alike; lost, invented or blurred detail lowers it. Of two
    photos without any gradient it is 1, of one without it 0.
    """
    a, b = (_luma_gradient(x) for x in (image, source))
    norms = a.norm(dim=1) * b.norm(dim=1)
    flat = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    return torch.where(flat, 1.0, (a * b).sum(1) / norms.clamp(min=1e-30))


def _luma_gradient(image):
    luma = sum(weight * channel for weight, channel in zip(LUMA, image.double().unbind(1), strict=True))
    gradient = torch.cat([luma.diff(dim=1).flatten(1), luma.diff(dim=2).flatten(1)], 1)
    return gradient if gradient.shape[1] else gradient.new_zeros(len(image), 1)


def sample_diversity(images: torch.Tensor) -> torch.Tensor:
    """Mean CIE 1976 difference between all pairs of several retouches (S,3,H,W) of one photo: a number.

    Raises:
        ValueError: fewer than two.
    """
    if len(images) < 2:
        raise ValueError(f"`images` must hold at least two retouches, got {len(images)}.")
    first, second = torch.triu_indices(len(images), len(images), 1)
    return delta_e76(images[first], images[second]).mean()


def spearman(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation along the last axis, (...,n) each -> (...), ties by their mean rank.

    NaN where one side is constant: there is no order to compare.
    """
    x, y = (_ranks(v.double()) for v in torch.broadcast_tensors(x, y))
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def _ranks(x):
    below = (x[..., None, :] < x[..., :, None]).sum(-1)
    equal = (x[..., None, :] == x[..., :, None]).sum(-1)
    return below + (equal + 1).double() / 2


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Fréchet distance between the Gaussians of two sets of features (n,d) and (m,d): a number, the FID's formula.

    The square of the 2-Wasserstein distance: `|mean difference|^2 + tr(A + B - 2 (A B)^(1/2))`.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    a, b = a.double(), b.double()
    if min(len(a), len(b)) < 2:
        raise ValueError(f"`a` and `b` must have at least two rows each, got {len(a)} and {len(b)}.")
    # A = X'X and B = Y'Y of the centred sets: tr (A B)^(1/2) is the sum of the singular values of X Y'
    x, y = ((v - v.mean(0)) / math.sqrt(len(v) - 1) for v in (a, b))
    factors = (torch.linalg.qr(v, mode="r").R for v in (x, y))  # no larger than either side of the sets
    cross = torch.linalg.svdvals(next(factors) @ next(factors).T).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * cross
    return distance.clamp(min=0)


def lpips_metric(
    weights: str | os.PathLike[str] | None = None,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """LPIPS (Zhang et al. 2018), version 0.1 on AlexNet, as a function (image, target) -> (B,). Downloads nothing.

    Args:
        weights (*optional*): a file for [`diffretouch.losses.perceptual.Lpips`]; without it the package lpips is
            looked for.

    Raises:
        ValueError: `weights` cannot be read.
        MetricUnavailable: there are no weights, or lpips cannot be imported.
    """
    if weights is not None:
        from diffretouch.losses.perceptual import Lpips

        return torch.no_grad()(Lpips(weights).eval())
    try:
        import lpips
    except Exception as error:  # beside a CPU build of torch, torchvision fails in its own ways
        raise MetricUnavailable(
            "needs its weights (a file for diffretouch.losses.perceptual.Lpips) or the package lpips "
            f"({_first_line(error)})"
        ) from error
    backbone = os.path.join(torch.hub.get_dir(), "checkpoints", "alexnet-owt-7be5be79.pth")
    if not os.path.isfile(backbone):
        name = os.path.basename(backbone)
        raise MetricUnavailable(f"needs the weights of its backbone, {name}, {_CHECKPOINTS}")
    model = lpips.LPIPS(net="alex", verbose=False).eval()

    @torch.no_grad()
    def measure(image, target):
        return model(image.float(), target.float(), normalize=True).flatten()

    return measure


def inception_features(weights: str | os.PathLike[str] | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """The features of the FID as clean-fid makes them (Parmar et al. 2022), as a function (1,3,H,W) -> (2048,).

    The package itself is not used: it asks for torchvision, and for this needs only Pillow and these weights.
    Downloads nothing.

    Args:
        weights (*optional*): the Inception network of StyleGAN2-ADA and clean-fid, `inception-2015-12-05.pt`
            (TorchScript: run as it is, so trust its source); without it looked for where clean-fid and torch hub keep
            it.

    Raises:
        ValueError: `weights` cannot be read or is another network.
        MetricUnavailable: no weights are given, and there are none.
    """
    name = "inception-2015-12-05.pt"
    given, weights = weights, weights or os.path.join(torch.hub.get_dir(), "checkpoints", name)
    if given is None and not os.path.isfile(weights):
        raise MetricUnavailable(f"needs the Inception weights {name} that clean-fid uses, given or {_CHECKPOINTS}")
    try:
        layers = torch.jit.load(weights, map_location="cpu").eval().layers
        with torch.no_grad():
            count = layers(torch.zeros(1, 3, 299, 299)).numel()
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise ValueError(f"`weights` {weights} is not the network {name}: {_first_line(error)}") from error
    if count != 2048:
        raise ValueError(f"`weights` {weights} is not the network {name}: it has {count} features, not 2048.")

    @torch.no_grad()
    def features(image):
        channels = (image[0].float() * 255).round().cpu().numpy()
        resized = [np.asarray(Image.fromarray(c).resize((299, 299), Image.Resampling.BICUBIC)) for c in channels]
        return layers((torch.from_numpy(np.stack(resized))[None].clamp(0, 255) - 128) / 128).flatten()

    return features


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
