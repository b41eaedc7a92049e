"""Which storage the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import clouds
from errands import ConfigurationError, Keyring, Settings
from errands.kits.storage import FolderStorage, S3Storage, key_for, storage_from

KEY = key_for("reports", "one", ".pdf")


@pytest.fixture
def url() -> Iterator[str]:
    with clouds.s3_server() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, url: str) -> Settings:
    return Settings(
        home=tmp_path,
        secret_keys=Keyring.new_key(),
        storage_url=f"s3://{clouds.BUCKET}/school/files/",
        s3_endpoint=url,
        s3_access_key_id=clouds.KEYS["aws_access_key_id"],
        s3_secret_access_key=clouds.KEYS["aws_secret_access_key"],
    )


async def test_the_settings_name_the_bucket_or_the_folder(
    settings: Settings, tmp_path: Path, url: str
) -> None:
    storage = storage_from(settings)
    assert isinstance(storage, S3Storage)
    await storage.put(b"x", content_type="application/pdf", key=KEY)
    assert clouds.s3_client(url).head_object(Bucket=clouds.BUCKET, Key=f"school/files/{KEY}")
    keys = {"secret_keys": settings.secret_keys, "home": tmp_path}
    folders = {
        "": tmp_path / "files",
        str(tmp_path / "here"): tmp_path / "here",
        f"file://{tmp_path}/a%20b": tmp_path / "a b",
    }
    for given, folder in folders.items():
        found = storage_from(Settings(storage_url=given, **keys))  # type: ignore[arg-type]
        assert isinstance(found, FolderStorage)
        assert found.root == folder


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"storage_url": "ftp://x/y"}, "ERRANDS_STORAGE_URL: ftp://"),
        ({"storage_url": "s3:///x"}, "the bucket is missing"),
        ({"storage_url": "s3://Upper_Case/x"}, "no name of a bucket"),
        ({"storage_url": "file://host/x"}, "file:///path"),
        ({"storage_url": "s3://bucket", "s3_endpoint": "minio:9000"}, "minio:9000"),
        ({"storage_url": "s3://bucket", "s3_access_key_id": "a"}, "belong together"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, str], why: str, tmp_path: Path) -> None:
    keys = {"s3_access_key_id": None, "s3_secret_access_key": None, **given}
    with pytest.raises(ConfigurationError, match=why):
        storage_from(Settings(home=tmp_path, secret_keys=Keyring.new_key(), **keys))  # type: ignore[arg-type]


def test_half_a_pair_of_keys_is_no_matter_to_a_folder(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, secret_keys=Keyring.new_key(), s3_access_key_id="a")
    assert isinstance(storage_from(settings), FolderStorage)
