"""Pictures at Cloudinary, which makes them smaller and sends them to browsers.

The upload, destroy and download methods are those of its Upload API, `resources` is of its Admin API:
https://cloudinary.com/documentation/image_upload_api_reference
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from errands import ConfigurationError
from errands.core import clock
from errands.kits.storage.blocks import BLOCK, blocks, measured
from errands.kits.storage.errors import StorageRefused, StorageUnavailable, StoredFileNotFound
from errands.kits.storage.keys import check_content_type, check_key, new_key
from errands.kits.storage.links import LinkSigner
from errands.kits.storage.provider import Storage, StoredFile

API = "https://api.cloudinary.com"
IMAGES = {".avif": "avif", ".gif": "gif", ".jpeg": "jpg", ".jpg": "jpg", ".png": "png", ".webp": "webp"}
_SUFFIX_OF = {f"image/{suffix[1:]}": suffix for suffix in IMAGES}
_TEMPORARY = frozenset({408, 420, 425, 429})


@dataclass(frozen=True, slots=True)
class CloudinaryFile(StoredFile):
    """A file at Cloudinary: its public address, and how Cloudinary names it. Sizes in pixels, of images."""

    url: str
    public_id: str
    width: int | None = None
    height: int | None = None


class CloudinaryStorage(Storage):
    """Keeps files in an account at Cloudinary: pictures (by the suffix of their key) as such, others "raw".

    `url` of what `put` returns is public to whoever has it, for use in pages; `link` leads to the
    application's files route. `info` and `exists` ask the Admin API, which counts calls by the hour.

    Args:
        cloud_name, api_key, api_secret: of the account.
        folder: what stands before each public id.
        signer: makes the links.
        api: the address of the API.
        timeout: seconds without an answer.
        client: a client of your own; it is not closed here.

    Raises:
        ConfigurationError: a part of the account is missing.
    """

    def __init__(
        self,
        cloud_name: str,
        api_key: str,
        api_secret: str,
        *,
        signer: LinkSigner,
        folder: str = "",
        api: str = API,
        timeout: float = 60.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        if not (cloud_name and api_key and api_secret):
            raise ConfigurationError("Cloudinary needs a cloud name, an API key and an API secret")
        self.signer = signer
        self._key, self._secret = api_key, api_secret
        self._folder = folder.strip("/")
        self._base = f"{api.rstrip('/')}/v1_1/{quote(cloud_name, safe='')}"
        self._timeout = timeout
        self._given = client
        self._own: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> CloudinaryFile:
        return await self._put(data, content_type, suffix, key, None)

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> CloudinaryFile:
        return await self._put(chunks, content_type, suffix, key, limit)

    async def info(self, key: str) -> CloudinaryFile:
        path = f"/resources/{self._kind(key)}/upload/{quote(self.public_id(key))}"
        found = await self._call("GET", path, key, auth=(self._key, self._secret))
        kept = found.get("context", {}).get("custom", {})
        content_type = kept.get("content_type", "application/octet-stream")
        return _file(key, found, content_type, kept.get("sha256", ""))

    async def read(self, key: str) -> bytes:
        return b"".join([chunk async for chunk in self.stream(key)])

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        values: dict[str, Any] = {"public_id": self.public_id(key), "type": "upload"}
        if self._kind(key) == "image":
            values["format"] = IMAGES[Path(key).suffix]
        values["timestamp"] = int(clock.timestamp())
        path = f"/{self._kind(key)}/download"
        async with self._answer("GET", path, key, params=self._signed(values)) as answer:
            async for block in blocks(answer.aiter_bytes(BLOCK)):
                yield block

    async def exists(self, key: str) -> bool:
        try:
            await self.info(key)
        except StoredFileNotFound:
            return False
        return True

    async def delete(self, key: str) -> None:
        await self.destroy(self.public_id(key), self._kind(key))

    async def destroy(self, public_id: str, resource_type: str = "image") -> bool:
        """Remove what Cloudinary knows as `public_id`, from its copies all over the world too. Tells whether
        it was there. `resource_type`: "image" or "raw"."""
        values = {"public_id": public_id, "invalidate": "true", "timestamp": int(clock.timestamp())}
        path = f"/{quote(resource_type, safe='')}/destroy"
        answer = await self._call("POST", path, public_id, data=self._signed(values))
        return bool(answer.get("result") == "ok")

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        return self.signer.sign(key, filename=filename, expires_in=expires_in, owner=owner)

    def public_id(self, key: str) -> str:
        """How Cloudinary names the file under `key`: of a picture, the suffix is not part of it."""
        check_key(key)
        name = key.removesuffix(Path(key).suffix) if self._kind(key) == "image" else key
        return f"{self._folder}/{name}" if self._folder else name

    async def aclose(self) -> None:
        """Close the connections."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    def _kind(self, key: str) -> str:
        return "image" if Path(check_key(key)).suffix in IMAGES else "raw"

    async def _put(
        self,
        data: bytes | Path | AsyncIterable[bytes],
        content_type: str,
        suffix: str,
        key: str | None,
        limit: int | None,
    ) -> CloudinaryFile:
        check_content_type(content_type)
        key = new_key(suffix or _SUFFIX_OF.get(content_type, "")) if key is None else check_key(key)
        async with measured(data, limit) as found:
            kept = {"content_type": content_type, "sha256": found.sha256}
            values = {
                "context": "|".join(f"{name}={_escaped(value)}" for name, value in kept.items()),
                "invalidate": "true",
                "overwrite": "true",
                "public_id": self.public_id(key),
                "timestamp": int(clock.timestamp()),
            }
            files = {"file": (Path(key).name, found.file, content_type)}
            answer = await self._call(
                "POST", f"/{self._kind(key)}/upload", key, data=self._signed(values), files=files
            )
        return _file(key, answer, content_type, found.sha256)

    def _signed(self, values: Mapping[str, Any]) -> dict[str, str]:
        texts = {name: str(value) for name, value in values.items()}
        return {**texts, "signature": signature(texts, self._secret), "api_key": self._key}

    async def _call(self, method: str, path: str, key: str, **options: Any) -> dict[str, Any]:
        async with self._answer(method, path, key, **options) as answer:
            await answer.aread()
            try:
                found = answer.json()
            except ValueError as exc:
                raise StorageUnavailable(f"Cloudinary answered something that is no JSON: {exc}") from exc
        if not isinstance(found, dict):
            raise StorageUnavailable("Cloudinary answered JSON that is no object")
        return found

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, key: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """The answer, its body still to be read. Errors come as ours."""
        try:
            async with self._client().stream(
                method, self._base + path, timeout=self._timeout, **options
            ) as answer:
                if not answer.is_success:
                    await answer.aread()
                    _refuse(answer, key)
                yield answer
        except httpx.InvalidURL as exc:
            raise StorageRefused(f"the address of Cloudinary is none: {exc}") from exc
        except httpx.HTTPError as exc:
            raise StorageUnavailable(
                f"Cloudinary did not answer: {type(exc).__name__} {exc}".rstrip()
            ) from exc

    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        # Kept connections belong to the event loop that opened them.
        loop = asyncio.get_running_loop()
        if self._own is None or self._loop is not loop:
            self._own, self._loop = httpx.AsyncClient(), loop
        return self._own


def signature(values: Mapping[str, str], secret: str) -> str:
    """The signature of a request with these parameters, as Cloudinary documents it: the hex SHA-1 of
    `name=value` in alphabetical order, joined by `&`, and the secret at the end. Not part of it are `file`,
    `api_key`, `cloud_name` and `resource_type`."""
    text = "&".join(f"{name}={value}" for name, value in sorted(values.items()))
    return hashlib.sha1((text + secret).encode(), usedforsecurity=False).hexdigest()


def _file(key: str, answer: Mapping[str, Any], content_type: str, sha256: str) -> CloudinaryFile:
    try:
        return CloudinaryFile(
            key,
            int(answer["bytes"]),
            content_type,
            sha256,
            url=str(answer["secure_url"]),
            public_id=str(answer["public_id"]),
            width=answer.get("width"),
            height=answer.get("height"),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise StorageUnavailable(f"Cloudinary's answer about {key} lacks something: {exc!r}") from exc


def _refuse(answer: httpx.Response, key: str) -> None:
    try:
        why = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        why = answer.headers.get("x-cld-error") or answer.text[:200]
    text = f"Cloudinary answered {answer.status_code}: {why}"
    if answer.status_code == 404:
        raise StoredFileNotFound(f"there is no stored file {key}")
    if answer.status_code in _TEMPORARY or answer.status_code >= 500:
        after = answer.headers.get("retry-after", "")
        raise StorageUnavailable(text, float(after) if after.isdigit() else None)
    raise StorageRefused(text)


def _escaped(value: str) -> str:
    """A value in a `context`, where `=` and `|` part names and values."""
    return value.replace("=", r"\=").replace("|", r"\|")
