"""How photo files are written."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What `save_photo` may be told for every file alike, see there: `save_photo(photo, path, **vars(options))`."""

    overwrite: bool = False
    quality: int | None = None
    dither: bool = False
    background: tuple[float, float, float] | None = None
    keep_profile: bool = True
    keep_metadata: bool = True


AS_THE_PHOTO = WriteOptions()
