"""Secrets that lie deep inside of arguments, and everything that may tell them."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, Field, SecretStr, field_serializer, model_serializer, model_validator
from typing_extensions import TypedDict

from errands import ConfigurationError, Errands, InvalidArguments, Keyring, Run, Secret, SecretError, Settings
from errands.core.arguments import Arguments
from errands.core.scrubbing import harmless, scrubbed, variants
from errands.core.secrets import is_sealed, mask

RING = Keyring.parse(Keyring.new_key())
SESAME = "open-sesame-1234"


class Login(BaseModel):
    name: str
    password: Secret[str]
    codes: list[Secret[int]] = []


class Typed(TypedDict):
    name: str
    token: Secret[str]


class Pair(NamedTuple):
    name: str
    token: Secret[str]


@dataclasses.dataclass
class Card:
    holder: str
    number: Secret[str]


class Tree(BaseModel):
    token: Secret[str]
    inner: Tree | None = None


class Account(BaseModel):
    login: Login
    tags: dict[str, Secret[str]] = {}


def of(function: Any, **options: Any) -> Arguments:
    return Arguments("t", function, **options)


def there_and_back(function: Any, *args: Any, **kwargs: Any) -> Any:
    """The call as the task's body gets it, after a way through JSON on which it tells nothing."""
    arguments = of(function)
    ready = arguments.prepare(args, kwargs, RING)
    text = json.dumps(ready)
    assert "sesame" not in text
    assert "4711" not in text
    sent_args, sent_kwargs = json.loads(text)
    assert "sealed" not in str(mask([sent_args, sent_kwargs]))
    opened: list[str] = []
    restored = arguments.restore(sent_args, sent_kwargs, RING, opened)
    assert SESAME in opened
    again = arguments.prepare(*restored, RING)
    assert json.dumps(again) != text, "a nonce was used twice"
    return restored


CASES: list[tuple[Any, Any]] = [
    (Login, Login(name="ann", password=SESAME, codes=[47110815])),
    (list[Secret[str]], [SESAME, "sesame-two"]),
    (dict[str, Secret[str]], {"a": SESAME}),
    (dict[Secret[str], int], {SESAME: 1}),
    (tuple[str, Secret[str]], ("a", SESAME)),
    (Secret[str] | None, SESAME),
    (int | Secret[str], SESAME),
    (Typed, {"name": "ann", "token": SESAME}),
    (Pair, Pair("ann", SESAME)),
    (Card, Card("ann", SESAME)),
    (Secret[Login], Login(name="ann", password=SESAME)),
    (list[Account], [Account(login=Login(name="ann", password=SESAME), tags={"x": "sesame-two"})]),
    (Tree, Tree(token=SESAME, inner=Tree(token="sesame-two"))),
    (Annotated[str, Field(min_length=3)], None),
]


@pytest.mark.parametrize(
    ("hint", "value"), CASES[:-1], ids=lambda case: getattr(case, "__name__", str(case))[:40]
)
def test_a_secret_is_sealed_wherever_it_lies(hint: Any, value: Any) -> None:
    def task(given: Any, *, more: Any = None) -> None: ...

    task.__annotations__ |= {"given": hint}
    assert there_and_back(task, value) == ((value,), {})
    assert there_and_back(task, given=value) == ((), {"given": value})


def test_only_the_secret_itself_is_sealed() -> None:
    def task(account: Account) -> None: ...

    _, kwargs = of(task).prepare((), {"account": {"login": {"name": "ann", "password": SESAME}}}, RING)
    login = kwargs["account"]["login"]
    assert login["name"] == "ann"
    assert is_sealed(login["password"])


def test_of_many_arguments_each_is_sealed() -> None:
    def many(*tokens: Secret[str], **named: Secret[str]) -> None: ...

    assert there_and_back(many, SESAME, "sesame-two", x="sesame-three") == (
        (SESAME, "sesame-two"),
        {"x": "sesame-three"},
    )


def test_nothing_to_seal_is_no_error() -> None:
    def task(token: Secret[str] | None = None, codes: list[Secret[int]] = []) -> None: ...  # noqa: B006

    arguments = of(task)
    assert arguments.prepare((None, []), {}, Keyring([])) == ((None, []), {})
    with pytest.raises(SecretError, match="ERRANDS_SECRET_KEYS"):
        arguments.prepare((SESAME,), {}, Keyring([]))


def test_nested_secrets_open_in_their_task_alone_and_keys_rotate() -> None:
    def task(login: Login) -> None: ...

    old = Keyring.new_key("old")
    arguments = of(task)
    sent = arguments.prepare((Login(name="ann", password=SESAME),), {}, Keyring.parse(old))
    both = Keyring.parse(f"{Keyring.new_key('new')},{old}")
    assert arguments.restore(*sent, both)[0][0].password == SESAME
    with pytest.raises(SecretError, match="something else"):
        Arguments("other", task).restore(*sent, both)
    with pytest.raises(SecretError, match="'old'"):
        arguments.restore(*sent, RING)


def test_a_model_used_elsewhere_is_as_it_was() -> None:
    assert Login(name="ann", password=SESAME).model_dump_json() == (
        '{"name":"ann","password":"open-sesame-1234","codes":[]}'
    )


@pytest.mark.parametrize(
    "value",
    [
        {"name": "ann", "password": ["open-sesame-1234"]},
        {"name": "ann", "password": SESAME, "codes": ["sesame"]},
        {"name": "ann", "password": SESAME, "extra": 1},
        {"password": SESAME},
        "open-sesame-1234",
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_without_what_it_is(value: Any) -> None:
    class Strict(Login):
        model_config = {"extra": "forbid"}

    def task(login: Strict) -> None: ...

    task.__annotations__["login"] = Strict
    with pytest.raises(InvalidArguments, match="login") as refused:
        of(task).prepare((value,), {}, RING)
    assert "sesame" not in str(refused.value) + repr(refused.value)


def test_a_validator_of_the_application_cannot_tell_it() -> None:
    class Talkative(Login):
        @model_validator(mode="after")
        def _check(self) -> Any:
            raise ValueError(f"{self.password} is too simple")

    def task(login: Talkative) -> None: ...

    task.__annotations__["login"] = Talkative
    with pytest.raises(InvalidArguments, match=r"\*\*\* is too simple") as refused:
        of(task).prepare(({"name": "ann", "password": SESAME},), {}, RING)
    assert "sesame" not in repr(refused.value)


class OwnField(BaseModel):
    token: Secret[str]

    @field_serializer("token")
    def _plain(self, value: str) -> str:
        return value


class OwnModel(BaseModel):
    token: Secret[str]

    @model_serializer
    def _plain(self) -> dict[str, str]:
        return {"token": self.token}


class Asterisks(BaseModel):
    token: SecretStr


@pytest.mark.parametrize("hint", [OwnField, OwnModel, list[OwnModel], Asterisks, dict[str, Asterisks]])
def test_a_type_that_would_leak_or_lose_it_is_refused_when_the_task_is_declared(hint: Any) -> None:
    def task(given: Any) -> None: ...

    task.__annotations__["given"] = hint
    with pytest.raises(ConfigurationError, match=r"task 't': parameter 'given'"):
        of(task)


# -- in signatures


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Errands:
    return Errands("secrets", settings=Settings(inline=True, secret_keys=Keyring.new_key()))


def test_signatures_carry_nested_secrets_sealed(app: Errands) -> None:
    @app.task(name="use")
    def use(login: Login, *rest: int, **more: Secret[str]) -> str:
        return login.password

    signature = use.s(login={"name": "ann", "password": SESAME}, x="sesame-two")
    assert "sesame" not in json.dumps(dict(signature), default=str)
    assert signature.apply().get() == SESAME
    with pytest.raises(InvalidArguments, match="by keyword"):
        use.s({"name": "ann", "password": SESAME})


def test_a_retry_sends_the_message_on_as_it_is(app: Errands) -> None:
    """Nested and empty secrets by position: a retry must not take them for unsealed ones."""
    tries = []

    @app.task(name="again", bind=True, max_retries=2)
    def again(self: Any, login: Login, tokens: list[Secret[str]]) -> str:
        tries.append(login.password)
        if len(tries) == 1:
            raise self.retry(countdown=0)
        return "done"

    assert again.delay(Login(name="ann", password=SESAME), []).get() == "done"
    assert tries == [SESAME, SESAME]


def test_ways_that_cannot_seal_are_refused(app: Errands) -> None:
    @app.task(name="use")
    def use(login: Login) -> None: ...

    for way in (use.map, use.starmap, lambda it: use.chunks(it, 2)):
        with pytest.raises(InvalidArguments, match="delay_many"):
            way([({"name": "ann", "password": SESAME},)])


def test_by_name_the_secrets_of_a_task_that_is_known_here_are_sealed(app: Errands) -> None:
    @app.task(name="known")
    def known(login: Login) -> None: ...

    result = app.send_task("known", ({"name": "ann", "password": SESAME},))
    assert "sesame" not in str(app.live.get(result.id))


# -- what a run tells


class Odd(Exception):
    """Keeps what it was given, and tells it by itself."""

    def __init__(self, login: Login) -> None:
        self.login = login
        super().__init__()

    def __str__(self) -> str:
        return f"no access for {self.login!r}"


def _plain(login: Login) -> None:
    raise ConnectionError(f"refused: {login.password}", login)


def _odd(login: Login) -> None:
    raise Odd(login)


def _pydantic(login: Login) -> None:
    class Number(BaseModel):
        value: int

    Number(value=login.password)


def _caused(login: Login) -> None:
    try:
        _pydantic(login)
    except ValueError as exc:
        error = RuntimeError("it failed")
        error.add_note(f"the password was {login.password}")
        raise error from exc


def _grouped(login: Login) -> None:
    raise ExceptionGroup("several", [KeyError(login.password), ValueError(f"{{'p': {login.password!r}}}")])


def _quoted(login: Login) -> None:
    raise OSError(2, "no such file", f"/home/{login.password}")


@pytest.mark.parametrize("fail", [_plain, _odd, _pydantic, _caused, _grouped, _quoted])
def test_no_error_tells_it(app: Errands, fail: Any, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="fail")
    def failing(login: Login) -> None:
        fail(login)

    caplog.set_level(logging.DEBUG)
    result = failing.delay({"name": "ann", "password": SESAME})
    assert result.state == "FAILURE"
    told = str([event.to_json() for event in app.live.events])  # type: ignore[attr-defined]
    assert (
        "sesame" not in told + str(result.result) + repr(result.result) + str(result.traceback) + caplog.text
    )
    assert "***" in told
    live = app.live.get(result.id)
    assert live is not None
    names = {
        _pydantic: "ValidationError",
        _odd: "Odd",
        _grouped: "ExceptionGroup",
        _quoted: "FileNotFoundError",
    }
    assert live.facts["error"]["type"] == names.get(fail, live.facts["error"]["type"])


def test_progress_logs_results_and_celerys_lines_do_not_tell_it(
    app: Errands, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="talk")
    def talk(login: Login, *, run: Run) -> Any:
        run.progress(1, 2, f"with {login.password}")
        run.log(f"log {login.password}")
        return {"used": [login.password, 1], login.password: "key"}

    caplog.set_level(logging.INFO)
    result = talk.delay(Login(name="ann", password=SESAME))
    told = str([event.to_json() for event in app.live.events])  # type: ignore[attr-defined]
    assert "sesame" not in told + caplog.text
    assert "with ***" in told
    assert "log ***" in told
    # Who waits for the result, and what follows the run, gets it as it is.
    assert result.get()["used"] == [SESAME, 1]


def test_texts_are_found_in_the_forms_that_texts_take() -> None:
    secret = 'a"b\nü c/d'
    texts = variants([secret, "abc"])
    for form in (
        secret,
        repr(secret),
        json.dumps(secret),
        "q=a%22b%0A%C3%BC%20c/d",
        "q=a%22b%0A%C3%BC+c%2Fd",
    ):
        assert "***" in scrubbed(form, texts)
        assert "%22b" not in scrubbed(form, texts)
    assert scrubbed("abc", texts) == "abc"


def test_an_error_that_tells_nothing_stays_the_same_object() -> None:
    error = ValueError("nothing", 7)
    assert harmless(error, variants([SESAME])) is error
    assert error.args == ("nothing", 7)


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(SESAME), ValueError("second")
    first.__context__, second.__context__ = second, first
    cleaned = harmless(first, variants([SESAME]))
    assert str(cleaned) == "***"
