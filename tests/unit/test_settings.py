"""Settings: typed, named in errors, under the five systems' names too."""

from __future__ import annotations

from pathlib import Path

import pytest

from errands import ConfigurationError, Keyring, Settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REDIS_URL", "DATABASE_URL", "SMTP_HOST", "SMTP_PORT", "EMAIL_HOST", "TASKS_FORCE_INLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ERRANDS_HOME", str(tmp_path))


def test_defaults_follow_from_home(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/errands.db"
    assert settings.storage_path == tmp_path / "files"
    assert settings.result_url == settings.valkey_url == settings.broker_url
    assert settings.inline is False


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("REDIS_URL", "redis://r/1", "broker_url", "redis://r/1"),
        ("SMTP_HOST", "mail.a", "smtp_host", "mail.a"),
        ("EMAIL_HOST", "mail.c", "smtp_host", "mail.c"),
        ("EMAIL_PORT", "2525", "smtp_port", 2525),
        ("EMAIL_USE_TLS", "false", "smtp_use_tls", False),
        ("DEFAULT_FROM_EMAIL", "a@b.c", "mail_from", "a@b.c"),
        ("TASKS_FORCE_INLINE", "true", "inline", True),
    ],
)
def test_the_systems_own_names_are_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_PORT", "many"),
        ("ERRANDS_SMTP_PORT", "99999"),
        ("ERRANDS_PREFETCH", "0"),
        ("ERRANDS_TIME_LIMIT", "soon"),
        ("ERRANDS_LOG_LEVEL", "LOUD"),
        ("ERRANDS_SECRET_KEYS", "k1:short"),
        ("TASKS_FORCE_INLINE", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        Settings()


def test_a_soft_limit_over_the_hard_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ERRANDS_SOFT_TIME_LIMIT"):
        Settings(soft_time_limit=20, time_limit=10)


def test_keys_do_not_show_in_a_printed_settings() -> None:
    key = Keyring.new_key()
    assert key.partition(":")[2] not in repr(Settings(secret_keys=key))


def test_a_broker_that_does_not_speak_redis_keeps_valkey_for_states() -> None:
    settings = Settings(broker_url="amqp://guest@localhost//", valkey_url="redis://v/2")
    assert settings.result_url == settings.valkey_url == "redis://v/2"
