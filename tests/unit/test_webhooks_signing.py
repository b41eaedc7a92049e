"""Signatures of webhooks."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook as Reference
from standardwebhooks.webhooks import WebhookVerificationError

from errands.core import clock
from errands.kits.webhooks import signing
from errands.kits.webhooks.errors import InvalidSecret, InvalidSignature
from errands.kits.webhooks.signing import headers, new_secret, verify

# The published vector of the Standard Webhooks and Svix documentation.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
MESSAGE_ID, STAMP = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
EXPECTED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.fixture(autouse=True)
def then():
    with clock.use(clock.FakeClock(datetime.fromtimestamp(STAMP, UTC))) as fake:
        yield fake


def made(body=BODY, secrets=(SECRET,), **changes):
    values = {"message_id": MESSAGE_ID, "timestamp": STAMP, "event": "user.registered", "secrets": secrets}
    return headers(body, **values | changes)


# Those of the Standard Webhooks libraries' own tests, and of the documentation of verifying by hand.
VECTORS = [
    (SECRET, MESSAGE_ID, STAMP, BODY, EXPECTED),
    (
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
]


@pytest.mark.parametrize(("secret", "message_id", "stamp", "body", "expected"), VECTORS)
def test_the_published_vectors_both_ways(then, secret, message_id, stamp, body, expected):
    then.advance(stamp - STAMP)
    ours = made(body, [secret], message_id=message_id, timestamp=stamp)
    assert ours["webhook-signature"] == expected
    moment = datetime.fromtimestamp(stamp, UTC)
    assert Reference(secret).sign(message_id, moment, body.decode()) == expected
    given = {"webhook-id": message_id, "webhook-timestamp": str(stamp), "webhook-signature": expected}
    assert verify(given, body, secret) == message_id
    for other in (VECTORS[0], VECTORS[1]):
        if other[0] != secret:
            with pytest.raises(InvalidSignature):
                verify(given, body, other[0])


def test_the_standard_headers_and_the_older_ones():
    assert made() == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": str(STAMP),
        "webhook-signature": EXPECTED,
        "X-Webhook-Signature": hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest(),
        "X-Webhook-Event": "user.registered",
    }


def test_any_receiver_with_the_standard_library_of_webhooks_accepts_it():
    now = int(datetime.now(UTC).timestamp())
    old, new = new_secret(), new_secret()
    for secrets in ([new], [new, old]):
        ours = made(secrets=secrets, timestamp=now)
        for secret in secrets:
            assert Reference(secret).verify(BODY, ours) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Reference(old).verify(BODY, made(secrets=[new], timestamp=now))


@pytest.mark.parametrize("body", [b"", b"{}", '{"name":"Zoë ٣ 🎓"}'.encode(), b" \r\n\t", b"x" * 70_000])
def test_what_the_standard_library_of_webhooks_signs_we_accept(body):
    secret, other = new_secret(), new_secret()
    moment = datetime.fromtimestamp(STAMP, UTC)
    signed = Reference(secret).sign("msg_1", moment, body.decode())
    given = {"webhook-id": "msg_1", "webhook-timestamp": str(STAMP), "webhook-signature": signed}
    assert verify(given, body, secret) == "msg_1"
    assert verify(given, body, [other, secret]) == "msg_1"
    with pytest.raises(InvalidSignature):
        verify(given, body + b" ", secret)


def test_while_rotating_both_secrets_sign_and_either_is_enough():
    old, new = new_secret(), new_secret()
    both = made(secrets=[new, old])
    assert both["webhook-signature"].count("v1,") == 2
    for secrets in (old, new, [new_secret(), old]):
        assert verify(both, BODY, secrets) == MESSAGE_ID
    with pytest.raises(InvalidSignature):
        verify(both, BODY, [new_secret(), new_secret()])


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(STAMP + 1)},
        {"webhook-timestamp": f"{STAMP}.5"},
        {"webhook-timestamp": "٣" * 10},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "9" * 12},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,=====,=="},
        {"webhook-signature": "v1,ü"},
        {"webhook-signature": "v1a," + EXPECTED.split(",")[1]},
        {"webhook-signature": EXPECTED + "x"},
        {"webhook-signature": EXPECTED.replace("g0h", "g0H")},
    ],
)
def test_a_changed_header_does_not_verify(change):
    with pytest.raises(InvalidSignature):
        verify(made() | change, BODY, SECRET)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY[:-1], b'{"test":2432232314}', b"\xff\xfe"])
def test_other_bytes_do_not_verify(body):
    with pytest.raises(InvalidSignature):
        verify(made(), body, SECRET)


def test_header_names_in_any_case_and_other_versions_beside():
    given = {name.title(): value for name, value in made().items()}
    given["Webhook-Signature"] = f"v2,abc v1a,def {EXPECTED}"
    assert verify(given, BODY, SECRET) == MESSAGE_ID


@pytest.mark.parametrize(
    ("seconds", "fresh"), [(299, True), (300, True), (301, False), (-300, True), (-301, False)]
)
def test_too_old_or_from_the_future_does_not_verify(then, seconds, fresh):
    given = made()
    then.advance(seconds)
    if fresh:
        assert verify(given, BODY, SECRET)
    else:
        with pytest.raises(InvalidSignature, match="300 s"):
            verify(given, BODY, SECRET)
    assert verify(given, BODY, SECRET, tolerance=1000)


def test_new_secrets_are_of_the_standard_form_and_differ():
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(
        len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32 for secret in secrets
    )


@pytest.mark.parametrize(
    "secret",
    ["", "short", "whsec_", "whsec_!!!!", "whsec_" + base64.b64encode(bytes(23)).decode(),
     "whsec_" + base64.b64encode(bytes(65)).decode(), "whsec_" + "AAAA " * 10, "x" * 23],
)  # fmt: skip
def test_a_weak_or_malformed_secret_is_refused(secret):
    with pytest.raises(InvalidSecret):
        made(secrets=[secret])


def test_a_secret_without_the_prefix_signs_as_the_text_it_is():
    secret = "an old secret, long enough to be one"
    digest = hmac.new(secret.encode(), f"{MESSAGE_ID}.{STAMP}.".encode() + BODY, hashlib.sha256).digest()
    assert made(secrets=[secret])["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert verify(made(secrets=[secret]), BODY, secret)


def test_without_any_secret_nothing_is_sent():
    with pytest.raises(InvalidSecret):
        made(secrets=[])


def test_the_names_of_the_headers():
    assert (signing.ID, signing.TIMESTAMP, signing.SIGNATURE) == (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    )
