"""Phone numbers in their one international form (ITU-T E.164): `+491701234567`."""

from __future__ import annotations

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat

from errands import ConfigurationError
from errands.kits.messaging.errors import InvalidNumber

LONGEST = 40  # characters of a number as people write it


def normalised(text: str, region: str | None = None) -> str:
    """`text` in E.164.

    Args:
        text: as people write it: `+49 170 1234567`, `0049…` only with a region that dials so.
        region: the country of numbers that name none, as two letters ("DE"); None takes only those with a
            `+`.

    Raises:
        InvalidNumber: it is no number, belongs to no country, or has not as many digits as numbers have
            there.
    """
    if len(text) > LONGEST:
        raise InvalidNumber(f"a phone number has at most {LONGEST} characters, not {len(text):,}")
    try:
        number = phonenumbers.parse(text, region)
    except NumberParseException as exc:
        whole = region or text.lstrip().startswith("+")
        hint = "" if whole else "; without PHONE_REGION it must begin with + and the country"
        raise InvalidNumber(f"{text!r} is no phone number: {_lower(str(exc))}{hint}") from exc
    # Letters on keys and extensions are read as numbers too, and nothing can be sent there.
    if number.extension or any(c.isalpha() for c in text):
        raise InvalidNumber(f"{text!r} is no number that messages can be sent to: use digits alone")
    if not phonenumbers.is_valid_number(number):
        raise InvalidNumber(f"{text!r} is no phone number: no country has such a number")
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def check_region(region: str | None) -> str | None:
    """`region` as `normalised` takes it; "" is None.

    Raises:
        ConfigurationError: there is no such region.
    """
    if not region:
        return None
    if region.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ConfigurationError(f"PHONE_REGION {region!r}: use the two letters of a country, such as DE")
    return region.upper()


def _lower(text: str) -> str:
    text = text.rpartition(") ")[2]  # the library begins with a number of its own
    return text[:1].lower() + text[1:].rstrip(".")
