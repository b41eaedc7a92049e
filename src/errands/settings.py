"""Every setting, typed, read once from the environment.

Names are `ERRANDS_*`; the names that the five systems used are accepted as well. A value that is wrong is
refused at start, with the name of the variable. Names not listed here are not ours and are left alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from errands.core.errors import ConfigurationError
from errands.core.secrets import Keyring
from errands.core.signing import Signer


def _env(*names: str) -> Any:
    return AliasChoices(*names)


_SHORTEST_MEMORY = 3600
# Before an address: let kombu's own Redis transport keep the queues, in lists.
STOCK_LISTS = "stock+"


class Settings(BaseSettings):
    """The settings of an `Errands` app.

    Give values by keyword (`Settings(database_url=…)`) or by environment; keywords win.

    Raises:
        ConfigurationError: a value is wrong; the text names the variable.
    """

    model_config = SettingsConfigDict(
        env_prefix="ERRANDS_", extra="ignore", populate_by_name=True, validate_default=True
    )

    # Where things are
    home: Path = Path(".errands")
    public_url: str = "http://127.0.0.1:8000"
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=_env("ERRANDS_BROKER_URL", "CELERY_BROKER_URL", "REDIS_URL"),
    )
    # Results stay where the broker is unless told otherwise: one server to run.
    result_url: str = Field(
        "", validation_alias=_env("ERRANDS_RESULT_URL", "CELERY_RESULT_BACKEND", "CELERY_RESULT_URL")
    )
    # Events, live states and leases. Only needed where the broker is neither Valkey nor Redis.
    valkey_url: str = ""
    database_url: str = Field("", validation_alias=_env("ERRANDS_DATABASE_URL", "DATABASE_URL"))
    storage_path: Path = Path()  # by default a folder in `home`
    storage_url: str = ""  # by default the folder above
    key_prefix: str = "errands:"

    # Safety
    secret_keys: SecretStr = SecretStr("")
    signing_keys: SecretStr = SecretStr("")
    accept_unsigned: bool = Field(False, description="with signing keys: run unsigned messages as well")
    # An argument belongs into a table or a file, not into every process and log between here and the worker.
    payload_max: int = Field(64 * 1024, gt=0, description="bytes of JSON in one message")
    offload_max: int = Field(
        50 * 1024 * 1024, gt=0, description="bytes of JSON in one call of a task with offload=True"
    )
    result_max: int = Field(64 * 1024, gt=0, description="bytes of a result that the record keeps")
    inline: bool = Field(False, validation_alias=_env("ERRANDS_INLINE", "TASKS_FORCE_INLINE"))

    # Limits: a task that never ends would hold its worker for ever.
    soft_time_limit: float = Field(25 * 60, gt=0, description="seconds")
    time_limit: float = Field(30 * 60, gt=0, description="seconds")
    prefetch: int = Field(4, ge=1)
    # A child is replaced before a slow leak becomes an outage.
    max_tasks_per_child: int = Field(1000, ge=1)
    max_memory_per_child: int = Field(400_000, ge=1, description="KiB")
    max_deliveries: int = Field(3, ge=1, description="workers that a run may take down before it is given up")
    unknown_task_patience: float = Field(
        600.0, ge=0, description="seconds that a message of an unknown task waits for a worker that knows it"
    )
    shutdown_timeout: float = Field(3.0, ge=0, description="seconds that a stopping worker lets runs end in")

    # How long things are kept
    result_expires: int = Field(24 * 3600, gt=0, description="seconds")
    retention_days: int = Field(30, ge=1)
    dead_letter_days: int = Field(90, ge=1)
    outbox_after: float = Field(5.0, ge=0, description="seconds before the relay takes an unsent run")
    events_max: int = Field(1_000_000, ge=1000, description="entries the event stream may hold at most")
    recorder_nice: int = Field(5, ge=0, le=19, description="how far writing the ledger yields to other work")
    progress_interval: float = Field(0.25, ge=0, description="seconds between two progress events of a run")

    # Schedules
    schedule_catch_up_max: int = Field(
        1000, ge=1, description="due times that one schedule with catch_up='all' catches up with at the most"
    )

    # Mail
    smtp_host: str = Field("127.0.0.1", validation_alias=_env("ERRANDS_SMTP_HOST", "SMTP_HOST", "EMAIL_HOST"))
    smtp_port: int = Field(
        587, gt=0, lt=65536, validation_alias=_env("ERRANDS_SMTP_PORT", "SMTP_PORT", "EMAIL_PORT")
    )
    smtp_username: str | None = Field(
        None, validation_alias=_env("ERRANDS_SMTP_USERNAME", "SMTP_USERNAME", "EMAIL_HOST_USER")
    )
    smtp_password: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_SMTP_PASSWORD", "SMTP_PASSWORD", "EMAIL_HOST_PASSWORD")
    )
    smtp_use_tls: bool = Field(
        True, validation_alias=_env("ERRANDS_SMTP_USE_TLS", "SMTP_USE_TLS", "EMAIL_USE_TLS")
    )
    smtp_use_ssl: bool = Field(
        False, validation_alias=_env("ERRANDS_SMTP_USE_SSL", "SMTP_USE_SSL", "EMAIL_USE_SSL")
    )
    mail_from: str = Field(
        "Errands <no-reply@localhost>",
        validation_alias=_env("ERRANDS_MAIL_FROM", "MAIL_FROM", "DEFAULT_FROM_EMAIL"),
    )
    firebase_enabled: bool = Field(
        False, validation_alias=_env("ERRANDS_FIREBASE_ENABLED", "FIREBASE_ENABLED")
    )
    firebase_functions_url: str | None = Field(
        None, validation_alias=_env("ERRANDS_FIREBASE_FUNCTIONS_URL", "FIREBASE_FUNCTIONS_URL")
    )

    # Messaging
    messaging_provider: Literal["console", "whatsapp", "twilio"] = Field(
        "console", validation_alias=_env("ERRANDS_MESSAGING_PROVIDER", "MESSAGING_PROVIDER")
    )
    messaging_limit: str = Field(
        "100/m",
        validation_alias=_env("ERRANDS_MESSAGING_LIMIT", "MESSAGING_LIMIT"),
        description="messages in a time, over all workers; empty: no limit",
    )
    phone_region: str = Field("", validation_alias=_env("ERRANDS_PHONE_REGION", "PHONE_REGION"))
    whatsapp_token: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_WHATSAPP_TOKEN", "WHATSAPP_TOKEN")
    )
    whatsapp_phone_number_id: str | None = Field(
        None, validation_alias=_env("ERRANDS_WHATSAPP_PHONE_NUMBER_ID", "WHATSAPP_PHONE_NUMBER_ID")
    )
    whatsapp_url: str = Field(
        "https://graph.facebook.com/v23.0", validation_alias=_env("ERRANDS_WHATSAPP_URL", "WHATSAPP_URL")
    )
    twilio_account_sid: str | None = Field(
        None, validation_alias=_env("ERRANDS_TWILIO_ACCOUNT_SID", "TWILIO_ACCOUNT_SID")
    )
    twilio_auth_token: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN")
    )
    twilio_from: str | None = Field(None, validation_alias=_env("ERRANDS_TWILIO_FROM", "TWILIO_FROM"))
    twilio_url: str = Field(
        "https://api.twilio.com", validation_alias=_env("ERRANDS_TWILIO_URL", "TWILIO_URL")
    )

    # Webhooks
    webhook_url: str | None = Field(None, validation_alias=_env("ERRANDS_WEBHOOK_URL", "WEBHOOK_URL"))
    webhook_secret: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_WEBHOOK_SECRET", "WEBHOOK_SECRET")
    )
    # host:port, with commas: addresses that the guard lets through though they are not public.
    webhook_allow: str = ""

    # Fetching: the same for addresses that users give to be fetched
    fetch_allow: str = ""

    # OCR
    ocr_engine: Literal["tesserocr", "tesseract"] = "tesserocr"
    ocr_languages: str = Field("eng", description="Tesseract's codes, joined by +")
    ocr_tessdata: Path | None = Field(None, description="a folder with language data")

    # Storage: a bucket, and pictures at Cloudinary
    s3_endpoint: str | None = Field(None, validation_alias=_env("ERRANDS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3"))
    s3_public_endpoint: str | None = None
    s3_region: str = Field("us-east-1", validation_alias=_env("ERRANDS_S3_REGION", "AWS_REGION"))
    s3_access_key_id: str | None = Field(
        None, validation_alias=_env("ERRANDS_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
    )
    s3_session_token: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_S3_SESSION_TOKEN", "AWS_SESSION_TOKEN")
    )
    cloudinary_cloud_name: str | None = Field(
        None, validation_alias=_env("ERRANDS_CLOUDINARY_CLOUD_NAME", "CLOUDINARY_CLOUD_NAME")
    )
    cloudinary_api_key: str | None = Field(
        None, validation_alias=_env("ERRANDS_CLOUDINARY_API_KEY", "CLOUDINARY_API_KEY")
    )
    cloudinary_api_secret: SecretStr | None = Field(
        None, validation_alias=_env("ERRANDS_CLOUDINARY_API_SECRET", "CLOUDINARY_API_SECRET")
    )

    # Push and notifications
    vapid_private_key: SecretStr | None = None
    vapid_subject: str | None = None
    fcm_credentials: Path | None = None
    fcm_project: str | None = None
    quiet_hours: str = ""
    time_zone: str = "UTC"

    # Watching
    admin_token: SecretStr | None = Field(None, description="opens the ready-made API to its holder")
    metrics_open: bool = Field(False, description="/metrics answers whoever asks, not only admins")
    log_level: str = Field("INFO", validation_alias=_env("ERRANDS_LOG_LEVEL", "LOG_LEVEL"))
    log_json: bool = False
    sentry_dsn: SecretStr | None = Field(None, validation_alias=_env("ERRANDS_SENTRY_DSN", "SENTRY_DSN"))

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as exc:
            raise ConfigurationError("; ".join(_explain(error) for error in exc.errors())) from None

    @field_validator("secret_keys")
    @classmethod
    def _keys_are_readable(cls, value: SecretStr) -> SecretStr:
        try:
            Keyring.parse(value.get_secret_value())
        except ConfigurationError as exc:
            raise ValueError(str(exc)) from exc
        return value

    @field_validator("signing_keys")
    @classmethod
    def _signing_keys_are_readable(cls, value: SecretStr) -> SecretStr:
        try:
            Signer.parse(value.get_secret_value())
        except ConfigurationError as exc:
            raise ValueError(str(exc)) from exc
        return value

    @field_validator("log_level")
    @classmethod
    def _level_is_known(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("use DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @model_validator(mode="after")
    def _fill_in(self) -> Settings:
        if self.soft_time_limit > self.time_limit:
            raise ValueError("ERRANDS_SOFT_TIME_LIMIT must not be longer than ERRANDS_TIME_LIMIT")
        if self.signing_keys.get_secret_value() and self.result_expires < _SHORTEST_MEMORY:
            raise ValueError(
                "with ERRANDS_SIGNING_KEYS, ERRANDS_RESULT_EXPIRES must be 3600 seconds or more: what tells "
                "an old message from a new one is that ended runs are remembered"
            )
        if self.firebase_enabled and not self.firebase_functions_url:
            raise ValueError("FIREBASE_ENABLED needs FIREBASE_FUNCTIONS_URL")
        self.home = self.home.absolute()
        given = "storage_path" in self.model_fields_set
        self.storage_path = (self.storage_path if given else self.home / "files").absolute()
        self.database_url = self.database_url or f"sqlite:///{self.home / 'errands.db'}"
        server = self.broker_url.removeprefix(STOCK_LISTS).replace("redis+socket://", "unix://", 1)
        speaks_redis = server.startswith(("redis://", "rediss://", "unix://"))
        self.valkey_url = self.valkey_url or (server if speaks_redis else "redis://127.0.0.1:6379/0")
        self.result_url = self.result_url or self.valkey_url
        return self

    def keyring(self) -> Keyring:
        """The keys that seal secret arguments."""
        return Keyring.parse(self.secret_keys.get_secret_value())

    def signer(self) -> Signer | None:
        """The keys that sign messages; None where there are none."""
        return Signer.parse(self.signing_keys.get_secret_value())

    def link_key(self) -> bytes:
        """The key that signs download links: 32 bytes, derived from the first secret key."""
        return self.keyring().derive("links")


def _explain(error: Any) -> str:
    """One wrong value as one sentence that begins with the variable's name."""
    name = str(error["loc"][0]) if error["loc"] else ""
    for field_name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
        names = names or [f"ERRANDS_{field_name.upper()}"]
        if name in (field_name, *names):
            name = next((candidate for candidate in names if candidate in os.environ), names[0])
            break
    text = error["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
