"""Signed addresses of S3: "Signature Version 4", in the query, as AWS documents it.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlsplit

LONGEST = 7 * 24 * 3600
"""Seconds that such an address can hold at the most."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of an account. `token` belongs to keys that hold for a time only."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def presign(
    url: str,
    credentials: Credentials,
    *,
    region: str,
    expires_in: int,
    now: datetime,
    query: Mapping[str, str],
    method: str = "GET",
) -> str:
    """`url`, signed for `method` and `expires_in` seconds from `now` (UTC). `query` is signed with it.

    Args:
        url: scheme, host and path; the path not escaped yet.
    """
    scheme, host, path, _, _ = urlsplit(url)
    path = quote(path, safe="/-_.~")
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    values = {
        **query,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(expires_in),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.token is not None:
        values["X-Amz-Security-Token"] = credentials.token
    signed = "&".join(f"{_escaped(name)}={_escaped(value)}" for name, value in sorted(values.items()))
    request = "\n".join([method, path, signed, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", values["X-Amz-Date"], scope, digest])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return f"{scheme}://{host}{path}?{signed}&X-Amz-Signature={signature}"


def _escaped(text: str) -> str:
    return quote(text, safe="-_.~")
