"""What a body is: what its server says, held against what its first bytes say.

A server's word is not proof: a login page comes as `image/png`, an executable as `text/csv`. What can be
told by a signature is told by it (WHATWG MIME Sniffing has the method); for the rest the word must do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from errands.fetching.errors import WrongType

BEGINNING = 512  # bytes that tell
UNKNOWN = "application/octet-stream"

_ESSENCE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
# Words for "some bytes", which say nothing.
_NOTHING_SAID = frozenset(
    {UNKNOWN, "binary/octet-stream", "application/x-download", "application/force-download"}
)
_ALIASES = {
    "image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp", "image/vnd.microsoft.icon": "image/x-icon",
    "application/x-pdf": "application/pdf", "application/x-zip-compressed": "application/zip",
    "application/x-gzip": "application/gzip", "text/xml": "application/xml", "audio/x-wav": "audio/wav",
    "audio/mp3": "audio/mpeg",
}  # fmt: skip
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"\0\0\1\0", "image/x-icon"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (8, b"AVI ", "video/x-msvideo"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"%!PS", "application/postscript"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"\x7fELF", "application/x-executable"),
)
_RIFF = frozenset({"image/webp", "video/x-msvideo", "audio/wav"})
# Two letters could begin a text as well, so these need a byte that no text has.
_SHORT = ((b"BM", "image/bmp"), (b"MZ", "application/vnd.microsoft.portable-executable"))
_MARKUP = re.compile(
    rb"(?P<html><!doctype html|<(?:html|head|body|script|iframe|title|style|table)[\s>])|<\?xml", re.I
)
_TOLD_BY_SIGNATURE = frozenset(kind for _, _, kind in _SIGNATURES) | {kind for _, kind in _SHORT}
# Formats that are packed in another one.
_INSIDE = {
    "application/zip": ("application/vnd.openxmlformats-", "application/vnd.oasis.opendocument.",
                        "application/epub+zip", "application/java-archive", "application/vnd.ms-excel"),
    "application/x-ole-storage": ("application/msword", "application/vnd.ms-", "application/x-msi"),
    "application/gzip": ("application/x-tar", "application/x-gtar", "application/x-compressed-tar"),
    "video/mp4": ("audio/mp4", "audio/x-m4a", "video/x-m4v", "image/hei", "image/avif", "video/3gpp"),
    "video/webm": ("audio/webm", "video/x-matroska", "audio/x-matroska"),
    "audio/ogg": ("video/ogg", "application/ogg", "audio/opus"),
    "image/heif": ("image/hei", "image/avif"),
}  # fmt: skip
_TEXTS = ("text/", "application/json", "application/xml", "application/javascript", "application/x-ndjson")
# Bytes that no text has (WHATWG MIME Sniffing, 3, binary data byte).
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, which is full of such bytes


def claimed(header: str | None) -> str | None:
    """The type that a Content-Type header names, in its usual spelling; None where it says nothing."""
    essence = (header or "").partition(";")[0].strip().lower()
    if not _ESSENCE.fullmatch(essence) or essence in _NOTHING_SAID:
        return None
    return _ALIASES.get(essence, essence)


def check_claim(claim: str | None, types: Sequence[str]) -> None:
    """Refuse by the header alone what need not be read.

    Raises:
        WrongType: `claim` is none of `types`.
    """
    if claim is not None and not _wanted(claim, types):
        raise WrongType(f"it is {claim}; wanted is {', '.join(types)}")


def judge(claim: str | None, beginning: bytes, types: Sequence[str]) -> str:
    """The type of what begins so.

    Args:
        claim: what its server says, as `claimed` has it.
        beginning: the first `BEGINNING` bytes, or all there are.
        types: what is wanted: names, or patterns such as `image/*`.

    Raises:
        WrongType: it is none of `types`, or not what its server says.
    """
    found = sniff(beginning)
    if found is None:
        if claim is not None and (claim in _TOLD_BY_SIGNATURE or (_is_text(claim) and _is_binary(beginning))):
            raise WrongType(f"its server says it is {claim}, and it does not begin like one")
        found = claim or UNKNOWN
    elif claim is not None and _may_be(claim, found):
        found = claim
    if not _wanted(found, types):
        says = f", though its server says {claim}" if claim not in (None, found) else ""
        raise WrongType(f"it is {found}{says}; wanted is {', '.join(types)}")
    return found


def sniff(beginning: bytes) -> str | None:
    """What the first bytes say; None where they say nothing."""
    for offset, mark, kind in _SIGNATURES:
        riff = kind not in _RIFF or beginning.startswith(b"RIFF")
        if riff and beginning.startswith(mark, offset):
            return kind
    for mark, kind in _SHORT:
        if beginning.startswith(mark) and _BINARY.search(beginning):
            return kind
    markup = _MARKUP.match(beginning.removeprefix(b"\xef\xbb\xbf").lstrip())
    if markup is None:
        return None
    return "text/html" if markup["html"] else "application/xml"


def _wanted(kind: str, types: Sequence[str]) -> bool:
    return any(fnmatchcase(kind, _ALIASES.get(pattern, pattern)) for pattern in types)


def _may_be(claim: str, found: str) -> bool:
    """Whether what is `found` by its first bytes may be what is claimed."""
    if found == "application/xml":
        return claim.endswith(("+xml", "/xml")) or claim in ("text/html", "text/plain")
    if found == "text/html":
        return claim in ("text/plain", "application/xhtml+xml", found)
    return claim == found or claim.startswith(_INSIDE.get(found, ()))


def _is_text(kind: str) -> bool:
    return kind.startswith(_TEXTS) or kind.endswith(("+json", "+xml"))


def _is_binary(beginning: bytes) -> bool:
    return not beginning.startswith(_MARKS) and _BINARY.search(beginning) is not None
