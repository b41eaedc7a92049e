"""The embedded Valkey: real servers in temporary folders."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from errands.doors.local import valkey as valkey_module
from errands.doors.local.errors import LocalRunError
from errands.doors.local.valkey import EmbeddedValkey, find_server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / 'a "folder" with spaces') as server:
        yield server


def test_it_is_a_safe_broker(valkey: EmbeddedValkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    settings = client.config_get("*")
    client.close()
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["bind"] == "127.0.0.1"
    assert valkey.port != 6379


def test_it_asks_for_its_password(valkey: EmbeddedValkey) -> None:
    client = redis.Redis(host="127.0.0.1", port=valkey.port)
    with pytest.raises(redis.AuthenticationError):
        client.ping()
    client.close()


def test_a_crash_loses_nothing_and_keeps_the_address(valkey: EmbeddedValkey) -> None:
    url = valkey.url
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
        valkey.kill()
        valkey.start()
        assert valkey.url == url
        assert client.get("key") == b"value"
        valkey.restart()
        assert client.get("key") == b"value"


def test_another_server_in_the_same_folder_goes_on_with_its_data(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first, redis.Redis.from_url(first.url) as client:
        client.set("key", "value")
    with EmbeddedValkey(tmp_path) as second, redis.Redis.from_url(second.url) as client:
        assert client.get("key") == b"value"


def test_a_port_that_was_taken_meanwhile_is_changed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        with EmbeddedValkey(tmp_path, port=taken) as server:
            assert server.port != taken
            assert server.answers()


def test_a_missing_server_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(valkey_module, "_server_in_wheel", lambda: None)
    with pytest.raises(LocalRunError, match=r"No Valkey server found.*install") as refusal:
        find_server()
    assert "\n" not in str(refusal.value)


def test_a_server_on_path_serves_where_the_wheel_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = find_server()
    (tmp_path / "redis-server").symlink_to(real)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not for this machine")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(valkey_module, "_server_in_wheel", lambda: str(broken))
    assert find_server() == tmp_path / "redis-server"
