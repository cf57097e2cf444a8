"""What is evaluated: photos with their experts' versions, and the field's data protocols that name such sets."""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from diffretouch.attributes import ATTRIBUTES, as_attributes, attribute_labels, measure_attributes
from diffretouch.data.simulated_experts import camera_input, expert_version, version_label
from diffretouch.photo import load_photo
from diffretouch.pixels import shrink

from .words import counted

SIMULATED_SIZE = 512  # long side of simulated pairs, px
_TEXT = {".csv", ".txt", ".json", ".md", ".xmp"}


class Pair(NamedTuple):
    """One photo and one expert's version of it.

    Args:
        source (`pathlib.Path`): the untouched photo.
        target (`pathlib.Path`): the expert's version, of the same size.
        expert (`str`): whose it is; empty where there is one expert only.
        label (4 `float`, *optional*): c of this version, in the order of `ATTRIBUTES`: knowledge about the target.
        simulated (`int`, *optional*): a seed; `source` is then a finished photo, from which the simulated camera makes
            the input and the simulated expert number `expert` the target.
        mask (`pathlib.Path`, *optional*): where the people are, above 0, for PPR10K's measures of them.
    """

    source: Path
    target: Path
    expert: str = ""
    label: tuple[float, ...] | None = None
    simulated: int | None = None
    mask: Path | None = None


class DataProtocol(NamedTuple):
    """A published way to render and split a data set. Rows of different protocols must not stand in one table.

    Args:
        title (`str`): as in the field's tables.
        rendering (`str`): how its inputs and targets are made.
        count, sha256: number of its test ids, and the first 16 digits of the SHA-256 of the sorted ids, one a line.
        id_pattern (`str`): what of a file's stem is its id.
        side: ("short" or "long", px) of the inputs, where it is part of the protocol.
        group_pattern (`str`): what of a file's stem names its series, where photos come in series.
    """

    title: str
    rendering: str
    count: int | None = None
    sha256: str | None = None
    id_pattern: str = ".*"
    side: tuple[str, int] | None = None
    group_pattern: str | None = None


_FIVEK_ID = r"a\d{4}"
_UPE = 500, "d3c5d449c3318ddb", _FIVEK_ID
_DPE = 498, "2d70c95af09d5cd2", _FIVEK_ID
_CSRNET = 500, None, _FIVEK_ID  # drawn at random, never listed
_PPR10K = 2286, "a11ca7719db62a5e", r"\d+_\d+"
_YAN = 45, "95e597e459b606df", ".*"
DATA_PROTOCOLS = {
    "paired": DataProtocol("paired folder", "as the files are"),
    "simulated": DataProtocol("simulated experts", f"simulated camera, long side {SIMULATED_SIZE} px"),
    "fivek-upe": DataProtocol("FiveK, UPE split", "full resolution, sRGB", *_UPE),
    "fivek-dpe": DataProtocol("FiveK, DPE split", "InputAsShotZeroed, long side 512 px", *_DPE, ("long", 512)),
    "fivek-480p": DataProtocol("FiveK 480p (Zeng et al.)", "8-bit sRGB, short side 480 px", *_DPE, ("short", 480)),
    "fivek-csrnet": DataProtocol(
        "FiveK, CSRNet", "inputs 16-bit ProPhoto RGB, targets sRGB, long side 500 px", *_CSRNET, ("long", 500)
    ),
    **{
        f"ppr10k-{expert}": DataProtocol(
            f"PPR10K, expert {expert}", "camera raw to 8-bit sRGB, 360p or full", *_PPR10K, group_pattern=r"\d+"
        )
        for expert in "abc"
    },
    "yan": DataProtocol("Yan et al. 2016", "8-bit sRGB, long side 512 px", *_YAN, ("long", 512)),
}


def folder_photos(name: str, folder: str | os.PathLike[str], names: Collection[str] | None = None) -> dict[str, Path]:
    """The photos of a folder by stem, sorted; with `names` (file names, stems or ids) only these, and all of these.

    Hidden files and text beside the photos (.csv, .txt, .json, .md, .xmp) are no photos.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"`{name}` must be a folder, got {folder}.")
    files = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in _TEXT:
            if path.stem in files:
                raise ValueError(f"`{name}`: {folder} holds {files[path.stem].name} and {path.name}: which is meant?")
            files[path.stem] = path
    if names is None:
        return files
    # FiveK's own file names go on after the id: a0001-jmac_DSC1459
    by_id = {stem.split("-")[0]: stem for stem in files} | {path.name: stem for stem, path in files.items()}
    stems = {n: n if n in files else by_id.get(n, by_id.get(Path(n).stem, Path(n).stem)) for n in names}
    missing = [n for n, stem in stems.items() if stem not in files]
    if missing:
        raise ValueError(f"`{name}`: {folder} lacks {len(missing)} of {len(names)} names: {', '.join(missing[:8])}.")
    return {stem: files[stem] for stem in sorted(set(stems.values()))}


def pair_names(
    inputs: str | os.PathLike[str], targets: str | os.PathLike[str], names: Collection[str] | None = None
) -> list[tuple[Path, Path]]:
    """Pairs (input path, target path) with the same stem in both folders, sorted; unpaired names are an error.

    Args:
        inputs, targets: folders.
        names (*optional*): only these photos, see `read_names`.
    """
    sides = [folder_photos("inputs", inputs, names), folder_photos("targets", targets, names)]
    unpaired = sorted(sides[0].keys() ^ sides[1].keys())
    if unpaired or not sides[0]:
        raise ValueError(
            f"`inputs` and `targets` must hold the same names; unpaired: {', '.join(unpaired[:8]) or 'all'}."
        )
    return [(sides[0][stem], sides[1][stem]) for stem in sides[0]]


def expert_pairs(
    inputs: str | os.PathLike[str], targets: str | os.PathLike[str], names: Collection[str] | None = None
) -> list[Pair]:
    """Every [`Pair`] of a folder of inputs and either one expert's folder or a folder of several experts' folders.

    The experts of FiveK (`expertA` or `01-Experts-A` to E), of PPR10K (`target_a` to c) and the effects of Yan et al.
    all lie like that. An expert is named as the folder is.
    """
    if not Path(targets).is_dir():
        raise ValueError(f"`targets` must be a folder, got {targets}.")
    folders = sorted(p for p in Path(targets).iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders or any(p.is_file() and not p.name.startswith(".") for p in Path(targets).iterdir()):
        return [Pair(*pair) for pair in pair_names(inputs, targets, names)]
    return [Pair(*pair, expert=folder.name) for folder in folders for pair in pair_names(inputs, folder, names)]


def expert_labels(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with labels c from the experts' versions of each photo, which must be two or more (an oracle)."""
    by_source = {}
    for pair in pairs:
        by_source.setdefault(pair.source, []).append(pair)
    labelled = {}
    for source, versions in by_source.items():
        if len(versions) < 2:
            raise ValueError(f"`pairs`: labels need versions of two or more experts, {source.name} has one.")
        scores = torch.cat([measure_attributes(photo_tensor(pair.target)) for pair in versions])
        for pair, label in zip(versions, attribute_labels(scores).tolist(), strict=True):
            labelled[pair] = pair._replace(label=tuple(label))
    return [labelled[pair] for pair in pairs]


def read_labels(path: str | os.PathLike[str], pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with labels c of a JSON file: {photo name or id: c}, c as `as_attributes` takes it.

    Several experts: {expert: {photo: c}}. The JSON files of the released DiffRetouch have another order
    (colorfulness, brightness, contrast, temperature): name the attributes there.
    """
    try:
        labels = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"`labels`: {path} is no JSON file: {error}") from error
    if not isinstance(labels, dict):
        raise ValueError(f"`labels`: {path} must hold an object from photo names to c.")
    found = []
    for pair in pairs:
        own = labels.get(pair.expert, labels) if pair.expert else labels
        c = next((own[n] for n in (pair.source.name, pair.source.stem, photo_id(pair.source)) if n in own), None)
        if c is None:
            raise ValueError(f"`labels`: {path} has no c for {pair.source.name} {pair.expert}".rstrip() + ".")
        try:
            label = as_attributes(c, 1)
        except (TypeError, ValueError) as error:
            where = f"{pair.source.name} {pair.expert}".rstrip()
            raise ValueError(f"`labels`: {path}, {where}: {error}") from error
        found.append(pair._replace(label=tuple(label[0].tolist())))
    return found


def with_masks(pairs: Sequence[Pair], folder: str | os.PathLike[str]) -> list[Pair]:
    """The pairs with the masks of a folder, one for every photo, of the same stem."""
    masks = folder_photos("masks", folder)
    missing = [pair.source.stem for pair in pairs if pair.source.stem not in masks]
    if missing:
        raise ValueError(f"`masks`: {folder} lacks {counted(len(missing), 'photo')}: {', '.join(missing[:8])}.")
    return [pair._replace(mask=masks[pair.source.stem]) for pair in pairs]


def load_mask(path: str | os.PathLike[str], size: Sequence[int]) -> torch.Tensor:
    """A mask as (1,1,H,W) float32 of the size (height, width) of its photo, by nearest pixels.

    Raises:
        ValueError: it has other proportions: it may be turned.
    """
    pixels = load_photo(path).pixels.max(-1)
    if not 0.8 < pixels.shape[0] / pixels.shape[1] / (size[0] / size[1]) < 1.25:
        sizes = "{1}x{0} px over a photo of {3}x{2}".format(*pixels.shape, *size)
        raise ValueError(f"{path} is a mask of {sizes}: is it turned?")
    mask = torch.from_numpy(np.ascontiguousarray(pixels))[None, None]
    return mask if mask.shape[2:] == tuple(size) else torch.nn.functional.interpolate(mask, size, mode="nearest-exact")


def photo_groups(pairs: Sequence[Pair], pattern: str) -> list[str]:
    """The series of each pair: what its file's stem matches of the pattern, a regular expression.

    Raises:
        ValueError: the pattern is none, or fits a photo not at all.
    """
    try:
        found = [re.match(pattern, pair.source.stem) for pair in pairs]
    except re.error as error:
        raise ValueError(f"`groups` must be a regular expression, got {pattern!r}: {error}.") from error
    for match, pair in zip(found, pairs, strict=True):
        if not match or not match[0]:
            raise ValueError(f"`groups`: {pattern!r} fits {pair.source.stem} not at all.")
    return [match[0] for match in found]


def simulated_pairs(
    folder: str | os.PathLike[str], names: Collection[str] | None = None, *, experts: int = 3, seed: int = 0
) -> list[Pair]:
    """Pairs from finished photos alone: a simulated camera makes the inputs, simulated experts the targets.

    The expert "photographer" is the finished photo itself (c = 0); "1", "2", ... re-finish it with an asked c, drawn
    by (seed, photo name, expert). The label of each is measured.
    """
    photos = folder_photos("folder", folder, names).values()
    if not photos:
        raise ValueError(f"`folder` must hold photos, {folder} holds none.")
    names = ["photographer", *(str(k + 1) for k in range(experts))]
    return [Pair(path, path, name, None, seed) for name in names for path in photos]


def load_pair(pair: Pair, *, fit: bool = False) -> tuple[torch.Tensor, torch.Tensor, Pair]:
    """Input and target as (1,3,H,W) float32 in [0,1], and the pair with its label, if it has one.

    Args:
        fit (`bool`): bring a target of another size to the input's: to be looked at, not to be measured.

    Raises:
        ValueError: the two differ in size.
        PhotoError: one cannot be read.
    """
    return open_pair(pair, fit=fit)[:3]


def open_pair(pair: Pair, *, fit: bool = False) -> tuple[torch.Tensor, torch.Tensor, Pair, list[float]]:
    """`load_pair`, and what was lost by it: the shares of the pixels of input and target that lie outside [0,1]."""
    if pair.simulated is None:
        (source, *lost), (target, *more) = _limited(pair.source), _limited(pair.target)
        if fit and source.shape != target.shape:
            target = torch.nn.functional.interpolate(target, source.shape[2:], mode="bilinear", antialias=True)
        if source.shape != target.shape:
            sizes = " and ".join("x".join(map(str, x.shape[:1:-1])) for x in (source, target))
            raise ValueError(f"{pair.source} and {pair.target} differ in size: {sizes}.")
        return source, target, pair, lost + more
    finished, *lost = _limited(pair.source)
    finished = as_array(shrink(finished, SIMULATED_SIZE))
    source, target = simulated_camera(finished, pair.source.name, pair.simulated), finished
    if pair.expert != "photographer":
        rng = np.random.default_rng([pair.simulated, zlib.crc32(os.fsencode(pair.source.name)), int(pair.expert)])
        target = expert_version(finished, rng.uniform(-1, 1, 4) * (rng.random(4) < 0.6), rng)
    label = tuple(version_label(target, finished).tolist())
    return as_batch(source), (as_batch(target) * 255).round() / 255, pair._replace(label=label), lost * 2


def simulated_camera(finished: np.ndarray, name: str, seed: int) -> np.ndarray:
    """The finished photo (H,W,3) as a camera would have left it, by (seed, name) alone."""
    return camera_input(finished, np.random.default_rng([seed, zlib.crc32(os.fsencode(name))]))


def photo_tensor(path: str | os.PathLike[str]) -> torch.Tensor:
    """The photo of a file as (1,3,H,W) float32, limited to [0,1]."""
    return _limited(path)[0]


def _limited(path):
    """-> (photo, share of its pixels that were outside by half a level of 8 bits and more)"""
    photo = as_batch(load_photo(path).pixels)
    return photo.clamp(0, 1), ((photo < -0.5 / 255) | (photo > 1 + 0.5 / 255)).any(1).double().mean().item()


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def as_array(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy())


def photo_id(path: Path, pattern: str = _FIVEK_ID) -> str:
    """What of a file's stem is its id: the start that fits the pattern, or else the stem."""
    match = re.match(pattern, path.stem)
    return match[0] if match else path.stem


def describe_data(pairs: Sequence[Pair], protocol: str | None = None, rendering: str | None = None) -> dict[str, Any]:
    """What a report records about its data: protocol, rendering, split, and whether the split is the published one.

    Args:
        pairs: of [`Pair`].
        protocol (`str`, *optional*): of `DATA_PROTOCOLS`; by default "simulated" for such pairs, else "paired".
        rendering (`str`, *optional*): how the files at hand were made, where the protocol does not tell.
    """
    protocol = protocol or ("simulated" if pairs[0].simulated is not None else "paired")
    if protocol not in DATA_PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(DATA_PROTOCOLS)}, got {protocol!r}.")
    if (protocol == "simulated") != (pairs[0].simulated is not None):
        made = "files" if pairs[0].simulated is None else "simulated"
        raise ValueError(f"`protocol` must say what the pairs are, got {protocol!r} for pairs that are {made}.")
    known = DATA_PROTOCOLS[protocol]
    ids = sorted({photo_id(pair.source, known.id_pattern) for pair in pairs})
    digest = hashlib.sha256(os.fsencode("\n".join(ids))).hexdigest()[:16]
    split = counted(len(ids), "photo")
    if digest == known.sha256:
        split = f"the {known.count} published test photos"
    elif known.sha256 is not None:
        split += f", not the {known.count} published test photos: do not compare with published rows"
    elif known.count is not None:
        split += f"; the {known.count} published test photos were never listed"
    return {
        "protocol": protocol,
        "title": known.title,
        "rendering": rendering or known.rendering,
        "rendering_stated_by": "user" if rendering else "protocol",
        "split": split,
        "split_sha256": digest,
        "photos": len(ids),
        "experts": list(dict.fromkeys(pair.expert for pair in pairs if pair.expert)),
        "attributes": list(ATTRIBUTES),
    }


def describe_sizes(sizes: Iterable[tuple[int, int]], protocol: str = "paired") -> str:
    """What a report says of the photos' sizes (width, height), and whether they are the protocol's."""
    sizes = list(sizes)
    if len(set(sizes)) == 1:
        text = "{}x{} px".format(*sizes[0])
    else:
        spans = []
        for name, choose in (("long", max), ("short", min)):
            lengths = sorted({choose(size) for size in sizes})
            spans.append(f"{name} side {lengths[0]}" + f" to {lengths[-1]}" * (len(lengths) > 1) + " px")
        kinds = {"landscape": 0, "portrait": 0, "square": 0}
        for width, height in sizes:
            kinds["landscape" if width > height else "portrait" if width < height else "square"] += 1
        text = f"{', '.join(spans)} ({', '.join(f'{count} {kind}' for kind, count in kinds.items() if count)})"
    side = DATA_PROTOCOLS[protocol].side
    if side and any({"short": min, "long": max}[side[0]](size) != side[1] for size in sizes):
        text += f"; the protocol's {side[0]} side is {side[1]} px: do not compare with published rows"
    return text
