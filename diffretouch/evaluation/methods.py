"""What is compared: the protocols of a DiffRetouch pipeline, other pipelines, and methods without learning."""

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps

from diffretouch.attributes import ATTRIBUTES
from diffretouch.metrics import after_curves, psnr

from .cost import count_parameters
from .pairs import as_batch
from .runs import model_digest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from diffretouch.pipelines.pipeline_diffretouch import DiffRetouchPipeline

# How a DiffRetouch pipeline is asked, and what it is told. Only "automatic" is a blind prediction.
PROTOCOLS = {
    "input": "the untouched photo",
    "automatic": "c = 0",
    "best": "c = None in {} steps (1: c = 0), the sample of most PSNR among {} seeds: an oracle, it sees the target",
    "labels": "c from the labels of the expert's version: an oracle, it sees the target",
    "matched": "c by attributes_of(input, reference=target): an oracle, it sees the target",
}

PEERS = {
    "autocontrast": "Pillow's autocontrast, each channel stretched to [0,1]",
    "equalize": "Pillow's histogram equalisation of each channel",
    "clahe": "scikit-image's equalize_adapthist (CLAHE on the value channel)",
    "curve": "the best possible curve of each channel, fitted to the target: an oracle, it sees the target",
}


@dataclass(frozen=True)
class Method:
    """A way to retouch that is measured.

    Args:
        name (`str`): its row in the tables.
        meaning (`str`): what it is, in a few words.
        retouch: (source, target, pair) -> (image (1,3,H,W) in [0,1], dict of what else to record). Photos are
            (1,3,H,W) float32 in [0,1]; only oracles may look at the target or the pair's label.
        oracle (`bool`): whether it sees the target.
        identity: a function without arguments -> what decides the result (JSON-able), for the cache.
        parameters (`int`): of the networks that it runs.
        weights: a function without arguments -> SHA-256 of its weights and settings, where it has any.
    """

    name: str
    meaning: str
    retouch: Callable = field(repr=False)
    oracle: bool = False
    identity: Callable = field(default=lambda: None, repr=False)
    parameters: int = 0
    weights: Callable[[], str] | None = field(default=None, repr=False)


def untouched() -> Method:
    return Method("input", PROTOCOLS["input"], lambda source, target, pair: (source, {}))


def retouch_methods(
    pipe: "DiffRetouchPipeline",
    *,
    suffix: str = "",
    seed: int = 0,
    steps: int | None = None,
    best_of: int = 1,
    labels: bool = False,
) -> list[Method]:
    """The protocols of one [`DiffRetouchPipeline`].

    Args:
        suffix (`str`): appended to the names, to tell several models or numbers of steps apart.
        seed (`int`): the same noise seed for every photo.
        steps (`int`, *optional*): denoising steps; the model's own by default, for the best of several seeds its own
            for samples.
        best_of (`int`): from 2 on, also the best of this many seeds.
        labels (`bool`): also c from the pairs' labels.
    """
    several = steps or pipe.config.sampling_steps or pipe.config.default_steps
    steps = steps or pipe.config.default_steps
    noise = lambda n=0: torch.Generator().manual_seed(seed + n)  # noqa: E731

    def result(source, c=None, steps=steps, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about extrapolation: it is the protocol that chose c
            return pipe(source, c, num_inference_steps=steps, output_type="pt", **kwargs).images.cpu()

    def automatic(source, target, pair):
        return result(source, [0.0] * len(ATTRIBUTES), generator=noise()), {}  # None is not 0 where it is unknown

    def best(source, target, pair):
        images = result(source, steps=several, num_samples=best_of, generator=[noise(n) for n in range(best_of)])
        n = psnr(images, target.expand_as(images)).argmax().item()
        return images[n : n + 1], {"seed": seed + n}

    def from_labels(source, target, pair):
        return result(source, pair.label, generator=noise()), {"c": _short(pair.label)}

    def matched(source, target, pair):
        c = pipe.attributes_of(source, target, num_inference_steps=steps, generator=noise())
        return result(source, c, generator=noise()), {"c": _short(c.tolist())}

    protocols = {"automatic": automatic, "best": best, "labels": from_labels, "matched": matched}
    if best_of < 2:
        del protocols["best"]
    if not labels:
        del protocols["labels"]
    settings = {"seed": seed, "steps": steps, "best_of": best_of}
    digest = functools.cache(lambda: model_digest(pipe))  # once, and only if it is asked for
    return [
        Method(
            name + suffix,
            PROTOCOLS[name].format(several, best_of),
            retouch,
            oracle=name != "automatic",
            identity=lambda name=name: [name, settings | ({"steps": several} if name == "best" else {}), digest()],
            parameters=count_parameters(pipe),
        )
        for name, retouch in protocols.items()
    ]


def _short(c):
    return [round(v, 3) for v in c]


def pipeline_method(name: str, pipe: "DiffusionPipeline", meaning: str) -> Method:
    """A deterministic pipeline with the call `pipe(image, output_type="pt")`, such as `CSRNetPipeline`."""

    def retouch(source, target, pair):
        images = pipe(source, output_type="pt").images
        return images[0][None].float().cpu(), {}

    weights = functools.cache(lambda: model_digest(pipe))
    parameters = count_parameters(pipe)
    return Method(name, meaning, retouch, identity=lambda: [name, weights()], parameters=parameters, weights=weights)


def peer_methods(names: Iterable[str]) -> tuple[list[Method], dict[str, str]]:
    """Methods without learning, of `PEERS`, and the reasons for those that cannot run here.

    Returns:
        (list of [`Method`], dict from name to reason)
    """
    methods, missing = [], {}
    for name in names:
        if name not in PEERS:
            raise ValueError(f"`peer` must be one of {', '.join(PEERS)}, got {name!r}.")
        if name == "clahe":
            try:
                import skimage.exposure  # noqa: F401
            except ImportError:
                missing[name] = "needs scikit-image: pip install scikit-image"
                continue
        methods.append(Method(name, PEERS[name], _PEERS[name], name == "curve", lambda name=name: [name]))
    return methods, missing


def _pillow(operation):
    def retouch(source, target, pair):
        photo = Image.fromarray((source[0].permute(1, 2, 0) * 255).round().byte().numpy())
        return as_batch(np.asarray(operation(photo), np.float32) / 255), {}

    return retouch


def _clahe(source, target, pair):
    from skimage.exposure import equalize_adapthist

    return as_batch(np.float32(equalize_adapthist(source[0].permute(1, 2, 0).numpy()))), {}


def _curve(source, target, pair):
    return after_curves(source, target), {}


_PEERS = {
    "autocontrast": _pillow(ImageOps.autocontrast),
    "equalize": _pillow(ImageOps.equalize),
    "clahe": _clahe,
    "curve": _curve,
}
