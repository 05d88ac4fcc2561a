"""Which files below a folder are pictures: one rule for training, checks and prediction."""

from __future__ import annotations

import collections
import errno
import importlib.util
import os
import pathlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lightnets.support.errors import UserError

# Why a file or folder is left out. For a format that is not read the reason is its name.
NO_IMAGE = "no image"
FOREIGN = "hidden, or kept there by another program"

# Files of larger sets are not opened before training unless they must be (about 1 ms an image and
# core to decode).
UNASKED_LIMIT = 50_000

_HEIC = {".heic": "HEIC", ".heif": "HEIC"}
_has_heif = importlib.util.find_spec("pillow_heif") is not None
# Endings of the formats that are read.
SUFFIXES = {
    **{".bmp": "BMP", ".gif": "GIF", ".png": "PNG", ".webp": "WebP"},
    **{".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF"},
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **(_HEIC if _has_heif else {}),
}
# Endings of pictures that are not.
OTHER_SUFFIXES = {
    **_HEIC,
    **{".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".svg": "SVG"},
    **{".psd": "Photoshop", ".ico": "ICO", ".tga": "TGA", ".dcm": "DICOM", ".exr": "EXR"},
    **dict.fromkeys((".pbm", ".pgm", ".ppm", ".pnm"), "PNM"),
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), "raw"),
}
READ = frozenset(SUFFIXES.values())
# How files of these formats begin, and the brands of others behind `ftyp`.
_STARTS = {
    **{b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"},
    **{b"II*\0": "TIFF", b"MM\0*": "TIFF"},
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1", b"hevc"), "HEIC"),
}
# Largest file that is read: it goes into memory whole.
MAX_BYTES = 256 * 2**20

_FOREIGN_NAMES = {
    *("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found", "__pycache__"),
    *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
# What is no regular file and no folder.
_SPECIAL = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        images: Paths of regular files, the visible ones of each folder sorted, then those of its
            subfolders. Names that are not UTF-8 are as `os.fsdecode` gives them.
        skipped: Path of everything else, with the reason: `NO_IMAGE`, `FOREIGN`, the name of a
            format that is not read, or what kind of thing it is. Of a skipped
            folder only itself is named.
    """

    images: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def find_images(folder: str | os.PathLike, found: Found | None = None) -> Found:
    """Lists the pictures below a folder, however deep, each real folder once.

    Names decide, and the first bytes of files whose names say nothing. So a damaged picture is
    listed too.

    Args:
        folder: Where to look.
        found: To add to.

    Raises:
        UserError: A folder cannot be read.
    """
    found = Found() if found is None else found
    seen = set()
    stack = [os.fspath(folder)]
    while stack:
        current = stack.pop()
        real = os.path.realpath(current)
        if real in seen:
            found.skipped[current] = "a link to a folder that is listed already"
            continue
        seen.add(real)
        stack += reversed(look(current, found))
    return found


def look(folder: str | os.PathLike, found: Found) -> list[str]:
    """Adds what lies directly in `folder` to `found`; returns the folders in it, sorted.

    Raises:
        UserError: It cannot be read.
    """
    folders = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"Cannot read {os.fspath(folder)}: {error.strerror}.") from None
    for entry in entries:
        # What the folder itself says of an entry: asking each file takes minutes for a million.
        is_folder = entry.is_dir(follow_symlinks=False)
        reason = FOREIGN if is_foreign(entry.name) else None
        if reason is None and not is_folder and not entry.is_file(follow_symlinks=False):
            is_folder, reason = _special(entry.path, folder)
        if reason is None and not is_folder:
            reason = _unread(entry.path)
        if reason is not None:
            found.skipped[entry.path] = reason
        elif is_folder:
            folders.append(entry.path)
        else:
            found.images.append(entry.path)
    return folders


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is hidden or some other program's."""
    return name.startswith(".") or name.lower() in _FOREIGN_NAMES


def obstacle(path: str | os.PathLike) -> str | None:
    """Returns what is at `path` instead of a folder or a file that can be read, else None."""
    try:
        status = os.stat(path)  # noqa: PTH116 (names that are not UTF-8)
    except FileNotFoundError:
        return "a broken link" if os.path.islink(path) else "no such file"  # noqa: PTH114
    except OSError as error:
        itself = error.errno == errno.ELOOP
        return "a link to itself" if itself else str(error.strerror).lower()
    if stat.S_ISREG(status.st_mode) and status.st_size > MAX_BYTES:
        return f"a file of {-(-status.st_size // 2**20)} MiB, more than {MAX_BYTES // 2**20} MiB"
    return _SPECIAL.get(stat.S_IFMT(status.st_mode))


def _special(path: str, folder: str | os.PathLike) -> tuple[bool, str | None]:
    """Returns whether a link, or what else is no plain file, is a folder; why it is left out."""
    reason = obstacle(path)
    if reason is not None or not os.path.isdir(path):  # noqa: PTH112
        return False, reason
    inside = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118
    if inside.startswith(os.path.join(os.path.realpath(path), "")):  # noqa: PTH118
        return True, "a link to a folder that it lies in"
    return True, None


def _unread(path: str) -> str | None:
    """Returns why a regular file is not read, None if it is a picture.

    By its name, so that a damaged picture is not passed over, or else by its bytes.
    """
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 (a million of them)
    if suffix in SUFFIXES:
        return None
    if suffix in OTHER_SUFFIXES:
        return OTHER_SUFFIXES[suffix]
    try:
        with pathlib.Path(path).open("rb") as file:
            kind = kind_of(file.read(12))
    except OSError as error:
        return str(error.strerror).lower()
    return None if kind in READ else kind or NO_IMAGE


def kind_of(head: bytes) -> str | None:
    """Returns the format that the first 12 bytes of a file belong to, None if we know none."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return None


def counted(skipped: Mapping[str, str] | Iterable[str]) -> str:
    """Returns `no image (3), TIFF (2)` of what was skipped, the most frequent reason first."""
    reasons = skipped.values() if isinstance(skipped, Mapping) else skipped
    return ", ".join(
        f"{reason} ({number})" for reason, number in collections.Counter(reasons).most_common()
    )
