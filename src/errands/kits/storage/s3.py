"""Files in a bucket of S3, or of a server that speaks as S3 does (MinIO, Ceph, Garage, R2, …)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errands import ConfigurationError
from errands.core import clock
from errands.kits.storage import sigv4
from errands.kits.storage.blocks import BLOCK, measured
from errands.kits.storage.errors import StorageRefused, StorageUnavailable, StoredFileNotFound
from errands.kits.storage.keys import check_content_type, check_key, new_key
from errands.kits.storage.links import LinkSigner, content_disposition
from errands.kits.storage.provider import Storage, StoredFile
from errands.kits.storage.sigv4 import Credentials

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Store

_SHA256 = "sha256"
_PART = 8 * 1024 * 1024
_PARTS_AT_ONCE = 3
# Of the answers 4xx, those that say "later".
_FINAL = re.compile(r"status code: 4(?!08|25|29)\d\d")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

# The process whose threads the client works with. A child by fork has the client and none of its threads.
_pid: int | None = None


class S3Storage(Storage):
    """Keeps files as objects of a bucket, with their content type and, as metadata, their SHA-256.

    An object appears or changes in one step, small or large. A file over 8 MiB is sent in parts, three at
    once. What a killed writer had sent of one stays in the bucket unseen; a lifecycle rule of the bucket
    (`AbortIncompleteMultipartUpload`) removes it.

    Links lead to the bucket itself, which sends the file without a detour. S3 knows nothing of who is
    signed in and signs for seven days at most; so a link for an owner, one that holds for longer, and any
    link where no keys are given leads to the application's files route.

    Args:
        bucket: its name; it must exist.
        prefix: what stands before each key, like `school/files`.
        signer: makes the links of the files route.
        endpoint: the server, like `https://minio.internal:9000`; without it AWS.
        public_endpoint: under which browsers reach it, where that differs.
        region: of the bucket.
        credentials: the keys; without them what the machine has (role, environment) is used.
        timeout: seconds for one request.
        retries: further tries of a request that met a broken connection or 5xx.

    Raises:
        ConfigurationError: the bucket's name or an address is none.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        signer: LinkSigner,
        endpoint: str | None = None,
        public_endpoint: str | None = None,
        region: str = "us-east-1",
        credentials: Credentials | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise ConfigurationError(f"{bucket!r} is no name of a bucket: write s3://bucket/prefix")
        for address in (endpoint, public_endpoint):
            if address and not re.fullmatch(r"https?://[^/?#\s]+/?", address):
                raise ConfigurationError(
                    f"S3 endpoint {address!r}: write it like https://minio.internal:9000"
                )
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.signer = signer
        self._region = region
        self._credentials = credentials
        self._endpoint = endpoint.rstrip("/") if endpoint else None
        self._public = (public_endpoint or endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
        self._timeout = timeout
        self._retries = retries

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> StoredFile:
        return await self._put(data, content_type, suffix, key, None)

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> StoredFile:
        return await self._put(chunks, content_type, suffix, key, limit)

    async def info(self, key: str) -> StoredFile:
        return _stored(key, await self._get(key, head=True))

    async def read(self, key: str) -> bytes:
        found = await self._get(key)
        with self._translated(key):
            return bytes(await found.bytes_async())

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        found = await self._get(key)
        chunks = aiter(found.stream(min_chunk_size=BLOCK))
        while True:
            with self._translated(key):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield bytes(chunk)

    async def exists(self, key: str) -> bool:
        try:
            await self.info(key)
        except StoredFileNotFound:
            return False
        return True

    async def delete(self, key: str) -> None:
        import obstore

        check_key(key)
        with self._translated(key):
            await obstore.delete_async(self._store, key)

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        check_key(key)
        seconds = int(expires_in)
        if owner is not None or self._credentials is None or not 0 < seconds <= sigv4.LONGEST:
            return self.signer.sign(key, filename=filename, expires_in=expires_in, owner=owner)
        return sigv4.presign(
            f"{self._public}/{self.bucket}/{self._path(key)}",
            self._credentials,
            region=self._region,
            expires_in=seconds,
            now=clock.now(),
            query={
                "response-content-disposition": content_disposition(filename),
                "response-cache-control": "private, no-store",
            },
        )

    async def _put(
        self,
        data: bytes | Path | AsyncIterable[bytes],
        content_type: str,
        suffix: str,
        key: str | None,
        limit: int | None,
    ) -> StoredFile:
        import obstore

        key = new_key(suffix) if key is None else check_key(key)
        check_content_type(content_type)
        async with measured(data, limit) as found:
            attributes = {"Content-Type": content_type, _SHA256: found.sha256}
            content: Any = found.file if found.size > _PART else found.file.read()
            with self._translated(key):
                await obstore.put_async(
                    self._store,
                    key,
                    content,
                    attributes=attributes,
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            return StoredFile(key, found.size, content_type, found.sha256)

    async def _get(self, key: str, *, head: bool = False) -> GetResult:
        import obstore

        check_key(key)
        with self._translated(key):
            return await obstore.get_async(self._store, key, options={"head": head})

    def _path(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @cached_property
    def _store(self) -> S3Store:
        from obstore.store import S3Store

        options: dict[str, Any] = {}
        if self._endpoint:
            options["endpoint"] = self._endpoint
        if self._credentials:
            options["access_key_id"] = self._credentials.access_key_id
            options["secret_access_key"] = self._credentials.secret_access_key
            if self._credentials.token:
                options["token"] = self._credentials.token
        patience = timedelta(seconds=self._timeout * (self._retries + 1))
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            region=self._region,
            client_options={
                "allow_http": bool(self._endpoint and self._endpoint.startswith("http://")),
                "timeout": timedelta(seconds=self._timeout),
            },
            retry_config={"max_retries": self._retries, "retry_timeout": patience},
            **options,
        )

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Errors of the client as errors of ours."""
        global _pid
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        if _pid not in (None, os.getpid()):
            # Its threads stayed in the parent: without this the call would wait for ever.
            raise StorageRefused(
                "this process was forked from one that had used S3 already; use S3 after the fork only"
            )
        _pid = os.getpid()
        try:
            yield
        except FileNotFoundError as exc:
            if "NoSuchBucket" in str(exc):
                raise StorageRefused(
                    f"there is no bucket {self.bucket}: make it, or correct ERRANDS_STORAGE_URL"
                ) from exc
            raise StoredFileNotFound(f"there is no stored file {key}") from exc
        except (PermissionDeniedError, UnauthenticatedError) as exc:
            raise StorageRefused(
                f"the bucket {self.bucket} does not let us in, check the keys and their rights: {_line(exc)}"
            ) from exc
        except BaseError as exc:
            if _FINAL.search(str(exc)):
                raise StorageRefused(f"the bucket {self.bucket} refused: {_line(exc)}") from exc
            raise StorageUnavailable(f"the bucket {self.bucket} did not answer: {_line(exc)}") from exc


def _stored(key: str, found: GetResult) -> StoredFile:
    attributes: dict[str, str] = dict(found.attributes)
    content_type = attributes.get("Content-Type", "application/octet-stream")
    return StoredFile(key, int(found.meta["size"]), content_type, attributes.get(_SHA256, ""))


def _line(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:300]
