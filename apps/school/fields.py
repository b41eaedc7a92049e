"""The kinds of input that endpoints take, each with its bounds."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_VISIBLE = frozenset("LNPS")


class Input(BaseModel):
    """A request's body. Fields that nobody asked for are refused: they are mostly typing mistakes."""

    model_config = ConfigDict(extra="forbid")


def one_line(text: str) -> str:
    """`text` composed (NFC), without space around it and with single spaces inside; joiners stay.

    Raises:
        ValueError: control characters, or nothing to be seen.
    """
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text.strip()):
        raise ValueError("must be one line, without control characters")
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if not any(unicodedata.category(letter)[0] in _VISIBLE for letter in text):
        raise ValueError("must not be empty")
    return text


def address(text: str) -> str:
    """The mail address in its normal form (RFC 5321, RFC 6531), not looked up.

    Raises:
        ValueError: it is none.
    """
    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise ValueError(str(exc)) from None


def email_key(email: str) -> str:
    """What two spellings of the same address have in common: people mean the same box."""
    return unicodedata.normalize("NFC", email.casefold())


# The lengths are what fits on a certificate, with room to spare.
FullName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
Email = Annotated[str, Field(min_length=3, max_length=254), AfterValidator(address)]
Password = Annotated[str, Field(min_length=8, max_length=200)]
Id = Annotated[int, Field(ge=1, le=2**31 - 1)]  # of a row, in an address or a body
