"""The storage that the settings ask for, in web processes and workers alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from errands import ConfigurationError
from errands.kits.storage.folder import FolderStorage
from errands.kits.storage.links import LinkSigner
from errands.kits.storage.provider import Storage
from errands.kits.storage.s3 import S3Storage
from errands.kits.storage.sigv4 import Credentials

if TYPE_CHECKING:
    from errands import Settings
    from errands.kits.storage.cloudinary import CloudinaryStorage


def link_signer(settings: Settings) -> LinkSigner:
    """The signer of this installation: with the key derived from its secret keys, and its public address."""
    return LinkSigner(settings.link_key(), str(settings.public_url))


def folder_storage(settings: Settings) -> FolderStorage:
    """The storage in the folder that the settings name; the same in the web processes and the workers."""
    return FolderStorage(settings.storage_path or settings.home / "files", link_signer(settings))


def storage_from(settings: Settings) -> Storage:
    """The storage of ERRANDS_STORAGE_URL: a bucket (`s3://bucket/prefix`), a folder (a path, or
    `file:///path`); without it the folder ERRANDS_STORAGE_PATH. Nothing is connected to yet.

    Raises:
        ConfigurationError: the address or the keys make no sense; the text names the variable.
        SecretError: there is no ERRANDS_SECRET_KEYS to sign links with.
    """
    check(settings)
    if not settings.storage_url:
        return folder_storage(settings)
    scheme, host, path, _, _ = urlsplit(settings.storage_url)
    if scheme != "s3":
        folder = unquote(path) if scheme == "file" else settings.storage_url
        return FolderStorage(Path(folder).absolute(), link_signer(settings))
    return S3Storage(
        host,
        path,
        signer=link_signer(settings),
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        credentials=_credentials(settings),
    )


def cloudinary_from(settings: Settings, folder: str = "") -> CloudinaryStorage:
    """Pictures at Cloudinary, with the account of the settings CLOUDINARY_*.

    Raises:
        ConfigurationError: one of them is missing.
    """
    from errands.kits.storage.cloudinary import CloudinaryStorage

    name, key, secret = (
        settings.cloudinary_cloud_name,
        settings.cloudinary_api_key,
        settings.cloudinary_api_secret,
    )
    if not (name and key and secret):
        raise ConfigurationError(
            "Cloudinary needs CLOUDINARY_CLOUD_NAME, CLOUDINARY_API_KEY and CLOUDINARY_API_SECRET"
        )
    return CloudinaryStorage(
        name, key, secret.get_secret_value(), folder=folder, signer=link_signer(settings)
    )


def check(settings: Settings) -> None:
    """Refuse at start what would fail with every file.

    Raises:
        ConfigurationError: it names the variable.
    """
    address = urlsplit(settings.storage_url)
    if address.scheme not in ("", "file", "s3"):
        raise ConfigurationError(
            f"ERRANDS_STORAGE_URL: {address.scheme}:// is not known; write s3://bucket/prefix or a folder"
        )
    if address.scheme == "s3" and not address.netloc:
        raise ConfigurationError("ERRANDS_STORAGE_URL: the bucket is missing; write s3://bucket/prefix")
    if address.scheme == "file" and (address.netloc or not address.path):
        raise ConfigurationError("ERRANDS_STORAGE_URL: write a folder as file:///path")
    if address.scheme == "s3":
        _credentials(settings)


def _credentials(settings: Settings) -> Credentials | None:
    secret, token = settings.s3_secret_access_key, settings.s3_session_token
    if bool(settings.s3_access_key_id) != bool(secret):
        raise ConfigurationError(
            "ERRANDS_S3_ACCESS_KEY_ID and ERRANDS_S3_SECRET_ACCESS_KEY belong together: set both, or neither"
        )
    if not settings.s3_access_key_id or secret is None:
        return None
    return Credentials(
        settings.s3_access_key_id, secret.get_secret_value(), token.get_secret_value() if token else None
    )
