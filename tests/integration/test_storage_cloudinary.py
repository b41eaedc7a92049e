"""Pictures at Cloudinary, against a server that does as its documentation says."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import clouds
from errands import ConfigurationError, Discard, Keyring, Settings
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import (
    LinkSigner,
    StorageRefused,
    StorageUnavailable,
    StoredFileNotFound,
    cloudinary_from,
    key_for,
)
from errands.kits.storage.cloudinary import CloudinaryStorage, signature

SIGNER = LinkSigner(b"k" * 32, "https://school.example")
KEY = key_for("profiles", "7", ".png")


def picture(width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    made = BytesIO()
    Image.new("RGB", (width, height), "teal").save(made, kind)
    return made.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[clouds.Cloudinary]:
    with clouds.Cloudinary().serving() as peer:
        yield peer


@pytest.fixture
def peer(server: clouds.Cloudinary) -> clouds.Cloudinary:
    server.files.clear()
    server.requests.clear()
    server.answers.clear()
    return server


@pytest.fixture
async def storage(peer: clouds.Cloudinary) -> AsyncIterator[CloudinaryStorage]:
    made = CloudinaryStorage(
        peer.name, peer.key, peer.secret, folder="/school/", signer=SIGNER, api=peer.url, timeout=5
    )
    yield made
    await made.aclose()


def test_the_signature_is_the_one_of_the_documentation() -> None:
    values = {
        "timestamp": "1315060510",
        "public_id": "sample_image",
        "eager": "w_400,h_300,c_pad|w_260,h_200,c_crop",
    }
    assert signature(values, "abcd") == "bfd09f95f331f558cbd1320e67aa8d488770583e"


async def test_a_picture_is_told_with_its_address_and_public_id(
    storage: CloudinaryStorage, peer: clouds.Cloudinary
) -> None:
    data = picture()
    file = await storage.put(data, content_type="image/png", key=KEY)
    assert file.public_id == "school/" + KEY.removesuffix(".png") == storage.public_id(KEY)
    assert file.url.startswith(f"{peer.url}/demo/image/upload/v")
    assert file.url.endswith(f"/{file.public_id}.png")
    assert (file.width, file.height, file.size) == (40, 30, len(data))
    assert await storage.info(KEY) == file
    assert await storage.read(KEY) == data
    assert peer.files["image", file.public_id]["context"] == {
        "content_type": "image/png",
        "sha256": file.sha256,
    }


@pytest.mark.parametrize(("content_type", "ending"), [("image/jpeg", ".jpeg"), ("image/webp", ".webp")])
async def test_a_picture_without_a_suffix_gets_one_by_its_type(
    storage: CloudinaryStorage, content_type: str, ending: str
) -> None:
    file = await storage.put(picture(kind=content_type[6:].upper()), content_type=content_type)
    assert file.key.endswith(ending)
    assert await storage.read(file.key)


async def test_deleting_reaches_every_copy_and_may_be_done_twice(
    storage: CloudinaryStorage, peer: clouds.Cloudinary
) -> None:
    file = await storage.put(picture(), content_type="image/png", key=KEY)
    assert await storage.destroy(file.public_id) is True
    assert await storage.destroy(file.public_id) is False
    assert peer.requests[-1][2]["invalidate"] == "true"
    await storage.delete(KEY)
    assert not await storage.exists(KEY)


async def test_the_time_is_signed(storage: CloudinaryStorage, peer: clouds.Cloudinary) -> None:
    with clock.use(FakeClock()):
        await storage.put(picture(), content_type="image/png", key=KEY)
    assert peer.requests[-1][2]["timestamp"] == "1767268800"


async def test_a_wrong_secret_is_final(peer: clouds.Cloudinary) -> None:
    storage = CloudinaryStorage(peer.name, peer.key, "wrong-secret", signer=SIGNER, api=peer.url)
    for call in (
        storage.put(picture(), content_type="image/png", key=KEY),
        storage.delete(KEY),
        storage.read(KEY),
        storage.info(KEY),
    ):
        with pytest.raises(StorageRefused, match="401") as refused:
            await call
        assert isinstance(refused.value, Discard)
        assert "wrong-secret" not in str(refused.value)
    await storage.aclose()


async def test_what_is_no_picture_is_refused_for_good(storage: CloudinaryStorage) -> None:
    with pytest.raises(StorageRefused, match="400: Invalid image file"):
        await storage.put(b"GIF89a, or so they say", content_type="image/gif", suffix=".gif")


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        ((429, {"Retry-After": "17"}, b'{"error": {"message": "slow down"}}'), 17.0),
        ((420, {"X-Cld-Error": "Rate Limit Exceeded"}, b""), None),
        ((500, {}, b"<html>oh no</html>"), None),
        ((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""), None),
        ((200, {}, b"<html>a proxy says hello</html>"), None),
        ((200, {}, b"[]"), None),
        ((200, {}, b'{"public_id": "x"}'), None),
        ("cut", None),
    ],
)
async def test_what_may_pass_is_told_from_what_will_not(
    storage: CloudinaryStorage, peer: clouds.Cloudinary, answer: object, after: float | None
) -> None:
    peer.answers = [answer]
    with pytest.raises(StorageUnavailable, match="Cloudinary") as raised:
        await storage.put(picture(), content_type="image/png", key=KEY)
    assert raised.value.retry_after == after
    assert peer.secret not in str(raised.value)
    await storage.put(picture(), content_type="image/png", key=KEY)


async def test_one_that_does_not_answer_and_one_that_is_not_there(peer: clouds.Cloudinary) -> None:
    peer.answers = ["hang"]
    hasty = CloudinaryStorage(peer.name, peer.key, peer.secret, signer=SIGNER, api=peer.url, timeout=0.3)
    with pytest.raises(StorageUnavailable, match="ReadTimeout"):
        await hasty.put(picture(), content_type="image/png", key=KEY)
    await hasty.aclose()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nowhere = CloudinaryStorage(
            peer.name, peer.key, peer.secret, signer=SIGNER, api=f"http://127.0.0.1:{held.getsockname()[1]}"
        )
        with pytest.raises(StorageUnavailable, match="ConnectError"):
            await nowhere.delete(KEY)
        await nowhere.aclose()


async def test_a_stream_that_is_cut_off_is_no_file(
    storage: CloudinaryStorage, peer: clouds.Cloudinary
) -> None:
    await storage.put(picture(), content_type="image/png", key=KEY)
    peer.answers = ["cut"]
    with pytest.raises(StorageUnavailable):
        await storage.read(KEY)
    await storage.delete(KEY)
    with pytest.raises(StoredFileNotFound):
        await storage.read(KEY)


async def test_the_settings_name_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CLOUD_NAME", "demo"), ("API_KEY", "123"), ("API_SECRET", "abcd")):
        monkeypatch.setenv(f"CLOUDINARY_{name}", value)
    storage = cloudinary_from(Settings(home=tmp_path, secret_keys=Keyring.new_key()), "cadets")
    assert storage.public_id(KEY).startswith("cadets/profiles/")
    assert "abcd" not in repr(Settings(home=tmp_path))
    monkeypatch.delenv("CLOUDINARY_API_KEY")
    with pytest.raises(ConfigurationError, match="CLOUDINARY_API_KEY"):
        cloudinary_from(Settings(home=tmp_path, secret_keys=Keyring.new_key()))
