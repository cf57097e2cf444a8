"""The page's answers as JSON, bytes and files: `/api` lists them. Everything here only calls the library."""

import json
import logging
import secrets
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from diffretouch import __version__
from diffretouch.attributes import ATTRIBUTES
from diffretouch.lut import Lut3D
from diffretouch.photo import Photo, PhotoError, save_photo
from diffretouch.photo.encoders import DEPTHS, SUFFIXES
from diffretouch.settings import FORMAT

from .guard import TooSlow, parts_of
from .looks import area_of, as_numbers, as_seed, look_of
from .opened import MAX_PIXELS, Gone, OpenPhoto, OpenPhotos, own_folder

if TYPE_CHECKING:
    import numpy as np

    from diffretouch.demo.models import Models

MAX_MB = 100
MOST_AREAS = 4
_MOST_JSON = 48 << 20
_MOST_ROWS = 32

logger = logging.getLogger(__name__)


class TooLarge(ValueError):
    """More bytes came than are taken."""


class Routes:
    """What the page and programs can ask for.

    Args:
        models ([`Models`]): what can be chosen.
        photos ([`OpenPhotos`]): what visitors have open.
        folder: where temporary files go.
    """

    def __init__(self, models: "Models", photos: OpenPhotos, folder: Path) -> None:
        self.models, self.photos, self.folder = models, photos, Path(folder)
        self._visitors = {}  # token -> None, the oldest first

    def routes(self) -> list[Route]:
        listed = [
            ("GET", "", self.listing),
            ("GET", "/about", self.about),
            ("GET", "/model", self.model),
            ("POST", "/open", self.open),
            ("GET", "/pixels", self.pixels),
            ("POST", "/grids", self.grids),
            ("POST", "/export", self.export),
            ("POST", "/sheet", self.sheet),
            ("POST", "/close", self.close),
            ("POST", "/retouch", self.retouch),
            ("POST", "/sweep", self.sweep),
            ("POST", "/lut", self.lut),
            ("POST", "/look", self.look),
        ]
        return [Route(f"/api{path}", told(answer), methods=[method]) for method, path, answer in listed]

    async def listing(self, request: Request) -> Response:
        """This list."""
        said = {}
        for route in self.routes():
            text = " ".join((route.endpoint.__doc__ or "").split())
            said[f"{min(route.methods - {'HEAD'})} {route.path}"] = text
        return JSONResponse({"version": __version__, "routes": said})

    async def about(self, request: Request) -> Response:
        """Models with their guide curves, limits, formats; a new visitor's token, for the header `X-Visitor`."""
        visitor = secrets.token_urlsafe(24)
        self._visitors[visitor] = None
        if len(self._visitors) > 1024:
            first = next(iter(self._visitors))
            del self._visitors[first]
            self.photos.close(first)
        said = {
            **facts({label: self.models.described(label) for label in self.models.labels}),
            "visitor": visitor,
            "suffixes": [".jpg", ".png", ".tif", ".webp", ".avif", ".jxl"],
            "tables": [suffix for suffix in TABLES if suffix != ".clf" or find_spec("PyOpenColorIO")],
        }
        return JSONResponse(said)

    async def model(self, request: Request) -> Response:
        """`?label=`: what `about` says of a model that was not loaded yet: it is loaded."""
        label = request.query_params.get("label", "")
        return JSONResponse(await run_in_threadpool(self.models.described, label, True))

    def _visitor(self, request):
        visitor = request.headers.get("x-visitor", "")
        if visitor not in self._visitors:
            raise Gone("The page was left alone for long, or the program was started again: its photos open again.")
        return visitor

    def _photo(self, request, number):
        return self.photos.get(self._visitor(request), str(number))

    async def open(self, request: Request) -> Response:
        """Body: a photo's file; `?name=`. -> its `photo` number, size, and notes on what it carried."""
        visitor = self._visitor(request)
        name = Path(request.query_params.get("name", "photo")).name
        with own_folder(self.folder) as folder:
            path = await received(request, folder / f"photo{Path(name).suffix[:8]}")
            photo = await run_in_threadpool(OpenPhoto, path, name, self.folder)
        width, height = photo.size
        source = photo.photo
        said = {
            "photo": self.photos.add(visitor, photo),
            "name": photo.name,
            "width": width,
            "height": height,
            "format": source.format,
            "bits": source.bit_depth,
            "alpha": source.alpha is not None,
            "notes": source.notes,
        }
        return JSONResponse(said)

    async def pixels(self, request: Request) -> Response:
        """`?photo=`: its pixels, upright sRGB, 8 bits, rows of RGB (`&alpha=1`: RGBA); `&model=&strength=`: retouched;
        `&seen=MODEL`: what that model sees of it, planes of float32."""
        asked = request.query_params
        photo = self._photo(request, asked.get("photo"))
        if "seen" in asked:
            seen = (await run_in_threadpool(photo.seen_by, self.models, asked["seen"]))[0].float().cpu().numpy()
            return floats(seen)
        retouched = None
        if "model" in asked:
            look = look_of(asked)
            retouched = await run_in_threadpool(self.models.retouch, look, photo.photo.pixels)
        width, height = photo.size
        alpha = photo.photo.alpha if asked.get("alpha") else None
        channels = 3 if alpha is None else 4
        size = {"Content-Length": str(channels * width * height), "X-Shape": f"{height},{width},{channels}"}
        return StreamingResponse(photo.rows(retouched, alpha), media_type="application/octet-stream", headers=size)

    async def grids(self, request: Request) -> Response:
        """JSON: `photo`, `model`, `c` (rows of four), `seed` (or one a row). -> float32 grids, shape in `X-Shape`,
        before they are held in range."""
        asked = await json_of(request)
        photo, label = self._photo(request, asked.get("photo")), str(asked.get("model"))
        rows = asked.get("c")
        if not isinstance(rows, list) or not 1 <= len(rows) <= _MOST_ROWS:
            raise ValueError(f"`c` must be 1 to {_MOST_ROWS} rows of four numbers.")
        rows = [as_numbers("c", row, 4) for row in rows]
        seeds = asked.get("seed", 0)
        seeds = [as_seed(seed) for seed in (seeds if isinstance(seeds, list) else [seeds] * len(rows))]
        if len(seeds) != len(rows):
            raise ValueError(f"`seed` must be one or one for each row of `c`, got {len(seeds)} for {len(rows)}.")

        def work():
            self.models.check_steered(label, "a grid")
            return self.models.grids_at(label, photo.seen_by(self.models, label), rows, seeds)

        return floats(await run_in_threadpool(work))

    async def export(self, request: Request) -> Response:
        """JSON: `photo`, `model`, `c`, `strength`, `seed`, `areas`, `suffix`, `quality`. -> the whole photo's file."""
        asked = await json_of(request)
        photo = self._photo(request, asked.get("photo"))
        look = look_of(asked)
        areas = asked.get("areas") or []
        if not isinstance(areas, list) or len(areas) > MOST_AREAS:
            raise ValueError(f"There can be {MOST_AREAS} areas.")
        table = asked.get("table")
        return await run_in_threadpool(self._saved, photo.photo, photo.name, look, asked, areas, table)

    def _saved(self, photo, name, look, asked, areas=(), table=None):
        suffix, quality = asked.get("suffix") or None, asked.get("quality")
        with own_folder(self.folder) as folder:
            if table is None:
                areas = [area_of(one, photo.pixels) for one in areas]
                result = self.models.retouch(look, photo.pixels, areas)
                said = self.models.settings(look, areas).to_json()
            else:
                result, said = (
                    look_up(table, look.strength, folder).apply(photo.pixels, interpolation="trilinear"),
                    None,
                )
            path, notes = save_result(result, photo, name, folder, suffix, quality, said)
            return file_answer(path, notes)

    async def look(self, request: Request) -> Response:
        """Body: a look of other software; `?name=` (.cube, .xmp, .clf, .png, .tif). -> the same as `.cube`."""
        name = Path(request.query_params.get("name", "look.cube")).name
        if Path(name).suffix.lower() not in (".cube", ".xmp", ".clf", ".png", ".tif", ".tiff"):
            raise ValueError(f"{name} is no look that can be read: .cube, .xmp, .clf, or a Hald image .png or .tif.")
        with own_folder(self.folder) as folder:
            path = await received(request, folder / f".look{Path(name).suffix.lower()}")
            return await run_in_threadpool(self._as_cube, path, name, folder / f"{safe_stem(name)}.cube")

    @staticmethod
    def _as_cube(path: Path, name: str, cube: Path) -> Response:
        table, notes = read_look(path, name), []
        if table.size > MOST_NODES:
            notes = [f"{table.size} nodes on an edge became {MOST_NODES}."]
            table = table.resized(MOST_NODES)
        table.save(cube)
        return file_answer(cube, notes)

    async def sheet(self, request: Request) -> Response:
        """JSON: `photo`, `model`, `seed`. -> the contact sheet of the sliders, PNG."""
        asked = await json_of(request)
        photo = self._photo(request, asked.get("photo"))
        return await run_in_threadpool(self._sheet, photo.photo.pixels, photo.name, look_of(asked))

    def _sheet(self, pixels, name, look):
        sheet = self.models.sheet(look, pixels)
        with own_folder(self.folder) as folder:
            path = folder / f"{safe_stem(name)}_sweep.png"
            sheet.save(path)
            return file_answer(path)

    def _table(self, pixels, name, look, asked):
        size, suffix = as_numbers("size", [asked.get("size", 33)], 1)[0], asked.get("suffix") or ".cube"
        if suffix not in TABLES:
            raise ValueError(f"`suffix` must be {', '.join(TABLES)} for a table, got {suffix!r}.")
        with own_folder(self.folder) as folder:
            path = folder / f"{safe_stem(name)}{suffix}"
            if asked.get("table") is not None:
                table = look_up(asked["table"], look.strength, folder)
                path = folder / f"{safe_stem(table.title or name)}{suffix}"
            else:
                table = self.models.table(look, pixels, int(size))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                table.save(path)
            notes = [str(one.message).replace(f"{path}: ", "") for one in said if one.category is UserWarning]
            return file_answer(path, [f"Against the retouch: {table.error}.", *notes] if table.error else notes)

    async def close(self, request: Request) -> Response:
        """Body: a visitor's token, and after a blank a photo's number. Closes that photo, or all of the visitor's."""
        visitor, _, number = (await small_body(request)).decode("utf-8", "replace").strip().partition(" ")
        self.photos.close(visitor, number or None)
        return JSONResponse({})

    async def retouch(self, request: Request) -> Response:
        """For programs. Body: a photo's file; `?brightness=0.4&strength=&seed=&model=&suffix=&name=...`. -> a file."""
        return await self._stateless(request, self._saved)

    async def sweep(self, request: Request) -> Response:
        """For programs. Body: a photo's file; `?seed=&model=&name=`. -> the contact sheet, PNG."""
        return await self._stateless(request, lambda photo, name, look, asked: self._sheet(photo.pixels, name, look))

    async def lut(self, request: Request) -> Response:
        """Body: a photo's file and `?brightness=0.4&size=...`; or JSON with the `photo`. -> a colour table."""
        if request.headers.get("content-type", "").startswith("application/json"):
            asked = await json_of(request)
            photo = self._photo(request, asked.get("photo"))
            return await run_in_threadpool(self._table, photo.photo.pixels, photo.name, look_of(asked), asked)
        return await self._stateless(request, lambda photo, *rest: self._table(photo.pixels, *rest))

    async def _stateless(self, request, answer):
        asked = dict(request.query_params)
        asked.setdefault("model", self.models.labels[0])
        look, name = look_of(asked), Path(asked.get("name", "photo.jpg")).name
        with own_folder(self.folder) as folder:
            path = await received(request, folder / f"photo{Path(name).suffix[:8]}")
            photo = await run_in_threadpool(OpenPhoto, path, name, self.folder)
        return await run_in_threadpool(answer, photo.photo, name, look, asked)


def facts(models: dict[str, Any]) -> dict[str, Any]:
    """What the page must know at its start, with a server or without; of each model what `Models.described` says."""
    limits = {"mb": MAX_MB, "mp": MAX_PIXELS // 1_000_000, "areas": MOST_AREAS}
    said = {"version": __version__, "attributes": ATTRIBUTES, "models": models}
    return said | {"limits": limits, "settings_format": FORMAT}


TABLES = (".cube", ".xmp", ".clf", ".png")
MOST_NODES = 65  # of a look on the page


def look_up(text: Any, strength: float, folder: Path) -> Lut3D:
    """A `.cube` file's text -> the table at a strength."""
    path = folder / ".look.cube"
    path.write_text(str(text), encoding="utf-8")
    return read_look(path, "The look").at_strength(strength)


def read_look(path: Path, name: str) -> Lut3D:
    """`Lut3D.load`, whose errors say the visitor's name for the file."""
    try:
        return Lut3D.load(path)
    except ValueError as error:
        text = str(error).replace(repr(str(path)), name).replace(str(path), name)
        raise ValueError(text.removeprefix("`path`: ")) from error


def told(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """An answer whose failures are JSON: one sentence, and a status that says whose fault it is."""

    async def run(request):
        try:
            return await answer(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Gone as error:
            status, text = 410, error.args[0]
        except TooSlow as error:
            status, text = 408, str(error)
        except TooLarge as error:
            status, text = 413, str(error)
        except (ValueError, TypeError) as error:
            status, text = (415 if isinstance(error, PhotoError) else 422), str(error)
        except (OSError, MemoryError) as error:
            status, text = 507, getattr(error, "strerror", None) or str(error) or "There is not enough memory."
            text = f"There is no room for it here: {text}."
        except Exception:
            logger.exception("The page failed in %s", answer.__name__)
            status, text = 500, "Something went wrong here; the terminal says what. The photo is as it was."
        return JSONResponse({"error": " ".join(text.split()) or "It failed."}, status)

    run.__doc__ = answer.__doc__
    return run


async def received(request: Request, path: Path) -> Path:
    """Write a body to a file, in pieces; returns the path."""
    most = MAX_MB * 1_000_000
    sorry = f"The file has more than {MAX_MB} MB, the most that this page takes."
    if int(request.headers.get("content-length") or 0) > most:
        raise TooLarge(sorry)
    size = 0
    with open(path, "wb") as file:
        async for part in parts_of(request):
            size += len(part)
            if size > most:
                raise TooLarge(sorry)
            file.write(part)
    if not size:
        raise PhotoError("The file is empty: there is no photo in it.")
    return path


async def small_body(request: Request, most: int = 4096) -> bytes:
    body = bytearray()
    async for part in parts_of(request):
        body += part
        if len(body) > most:
            raise TooLarge(f"More than {most} bytes came.")
    return bytes(body)


async def json_of(request: Request) -> dict[str, Any]:
    try:
        asked = json.loads(await small_body(request, _MOST_JSON))
    except (ValueError, RecursionError) as error:
        if isinstance(error, (TooLarge, TooSlow)):
            raise
        raise ValueError("The body must be JSON.") from error
    if not isinstance(asked, dict):
        raise ValueError("The body must be a JSON object.")
    return asked


def floats(array: "np.ndarray") -> Response:
    """A float32 array as its bytes, the shape in `X-Shape`."""
    headers = {"X-Shape": ",".join(map(str, array.shape))}
    return Response(array.tobytes(), media_type="application/octet-stream", headers=headers)


def file_answer(path: Path, notes: Sequence[str] = ()) -> Response:
    """A file as a download; notes in the header `X-Notes`, as JSON."""
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name)}",
        "X-Notes": json.dumps(list(notes)),
    }
    return Response(path.read_bytes(), media_type=_MEDIA.get(path.suffix, "application/octet-stream"), headers=headers)


_MEDIA = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".jxl": "image/jxl",
}


def save_result(
    result: "np.ndarray",
    photo: Photo,
    name: str,
    folder: Path,
    suffix: str | None = None,
    quality: int | None = None,
    description: str | None = None,
) -> tuple[Path, list[str]]:
    """Write a retouch of a `Photo` under a name made from `name`, by default as the photo's own kind of file.

    Returns:
        The path, and sentences on what the file could not hold.
    """
    kinds = {kind: own for own, kind in reversed(SUFFIXES.items())}
    if suffix is None:
        own = Path(name).suffix.lower()
        suffix = own if SUFFIXES.get(own) == photo.format else kinds.get(photo.format, ".tif")
    if suffix not in SUFFIXES:
        raise ValueError(f"`suffix` must be {', '.join(SUFFIXES)}, got {suffix!r}.")
    if quality is not None:
        quality = int(as_numbers("quality", [quality], 1)[0]) if SUFFIXES[suffix] not in ("PNG", "TIFF") else None
    depths = DEPTHS[SUFFIXES[suffix]]
    path = folder / f"{safe_stem(name)}_retouched{suffix}"
    transparent = photo.alpha is not None and SUFFIXES[suffix] == "JPEG"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save_photo(
            result,
            path,
            like=photo,
            quality=quality,
            bit_depth=photo.bit_depth if photo.bit_depth in depths else max(depths),
            background=(1.0, 1.0, 1.0) if transparent else None,
            description=description,
        )
    notes = [str(one.message).replace(f"{str(path)!r}: ", "") for one in said if one.category is UserWarning]
    if transparent:
        notes.append("JPEG has no transparency: it was laid on white.")
    if photo.bit_depth not in depths:
        notes.append(f"{suffix} holds {max(depths)} bits a channel, the photo has {photo.bit_depth}.")
    return path, notes


def safe_stem(name: str) -> str:
    """ "../My photo.jpg" -> "My_photo": a name that any system takes."""
    import re

    return re.sub(r"[^\w.-]+", "_", Path(str(name)).stem).strip("._")[:80] or "photo"
