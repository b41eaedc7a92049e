"""The parts of the local run that need no process: workers, ports, folder, environment, log lines, screen."""

from __future__ import annotations

import io
import json
import socket
import stat
from pathlib import Path

import pytest

from errands.core.secrets import Keyring
from errands.doors.local.environment import Ports, environment, mail_goes_elsewhere
from errands.doors.local.errors import LocalRunError
from errands.doors.local.home import Home
from errands.doors.local.logs import Logs
from errands.doors.local.ports import free_port, is_free, parse_port, require_free
from errands.doors.local.screen import default_hints, ready_screen
from errands.doors.local.workers import Worker, assign, default_workers, parse_worker, unread

PORTS = Ports(web=1001, valkey=1002, smtp=1003, mail=1004, webhooks=1005)


@pytest.mark.parametrize(
    ("text", "worker"),
    [
        ("io=emails,progress:2", Worker("io", ("emails", "progress"), 2)),
        ("io:emails,progress:2", Worker("io", ("emails", "progress"), 2)),
        ("cpu=*", Worker("cpu", ("*",), 0)),
    ],
)
def test_a_worker_is_read(text: str, worker: Worker) -> None:
    assert parse_worker(text) == worker


@pytest.mark.parametrize("text", ["io", "io=", "io=a:0", "io=a:x", "i o=a:1", "io=a:1:2"])
def test_a_malformed_worker_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(LocalRunError, match="NAME=queue,queue:CONCURRENCY") as refusal:
        parse_worker(text)
    assert repr(text) in str(refusal.value)


def test_the_star_takes_the_queues_nobody_else_reads() -> None:
    workers = assign([Worker("io", ("emails",)), Worker("cpu", ("*",), 1)], ["sums", "emails", "celery"])
    assert workers == [Worker("io", ("emails",)), Worker("cpu", ("celery", "sums"), 1)]
    assert unread(workers, ["sums", "emails", "celery"]) == []


def test_by_default_there_is_a_worker_for_each_kind_of_queue() -> None:
    assert default_workers({"io": ["a", "b"], "cpu": ["c"]}) == [
        Worker("io", ("a", "b"), 0),
        Worker("cpu", ("c",), 1),
    ]
    assert default_workers({"io": ["a"], "cpu": []}) == [Worker("io", ("a",), 0)]


def test_an_unknown_queue_is_refused_by_name() -> None:
    with pytest.raises(LocalRunError, match=r"'default'.*declares: celery, emails"):
        assign([Worker("io", ("default",))], ["emails", "celery"])


def test_two_workers_of_one_name_are_refused() -> None:
    with pytest.raises(LocalRunError, match="Two workers are called io"):
        assign([Worker("io", ("a",)), Worker("io", ("b",))], ["a", "b"])


def test_a_queue_without_a_worker_is_named() -> None:
    assert unread([Worker("io", ("emails",))], ["emails", "certificates"]) == ["certificates"]


def test_a_taken_port_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalRunError, match=f"Port {port} is taken") as refusal:
            require_free(port)
        assert "\n" not in str(refusal.value)
        assert not is_free(port)
        assert free_port(port) != port


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port
    assert free_port(port, avoid=frozenset({port})) != port


@pytest.mark.parametrize("text", ["web", "-1", "65536", ""])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LocalRunError, match="PORT must be a number"):
        parse_port(text)


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LocalRunError, match=r"Cannot write to the folder .*ERRANDS_HOME") as refusal:
        Home(tmp_path / "file" / "home").open()
    assert "\n" not in str(refusal.value)


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    first = Home(tmp_path / "home")
    first.open()
    with pytest.raises(LocalRunError, match="already uses"):
        Home(tmp_path / "home").open()
    first.close()
    second = Home(tmp_path / "home")
    second.open()
    second.close()


def test_what_is_secret_is_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.open()
    keys = home.secret_keys()
    assert home.secret_keys() == keys
    assert Keyring.parse(keys).seal("token", "context") != "token"
    assert stat.S_IMODE((home / "secret_keys").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    home.close()


def test_ports_are_those_of_the_last_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ports = home.ports(("mail", "smtp"))
    assert len(set(ports.values())) == 2
    with socket.create_server(("127.0.0.1", ports["mail"])):
        again = home.ports(("mail", "smtp"))
    assert again["smtp"] == ports["smtp"]
    assert again["mail"] != ports["mail"]


def test_the_environment_says_where_everything_is(tmp_path: Path) -> None:
    values = environment(Home(tmp_path), PORTS, "redis://broker", "m:app", {"PATH": "/bin"})
    assert values["PATH"] == "/bin"
    assert values["ERRANDS_HOME"] == str(tmp_path)
    assert values["ERRANDS_BROKER_URL"] == values["ERRANDS_VALKEY_URL"] == "redis://broker"
    assert values["ERRANDS_DATABASE_URL"] == f"sqlite:///{tmp_path}/errands.db"
    assert (values["SMTP_HOST"], values["SMTP_PORT"], values["SMTP_USE_TLS"]) == (
        "127.0.0.1",
        "1003",
        "false",
    )
    assert values["ERRANDS_WEBHOOK_ALLOW"] == "127.0.0.1:1005"
    assert values["ERRANDS_PUBLIC_URL"] == "http://127.0.0.1:1001"


def test_the_users_database_and_mail_server_are_left_alone(tmp_path: Path) -> None:
    own = {"ERRANDS_DATABASE_URL": "postgresql://db", "EMAIL_HOST": "mail.example.com"}
    values = environment(Home(tmp_path), PORTS, "redis://broker", "m:app", own)
    assert values["ERRANDS_DATABASE_URL"] == "postgresql://db"
    assert "SMTP_HOST" not in values
    assert mail_goes_elsewhere(own) == "mail.example.com"
    assert mail_goes_elsewhere({}) is None


def test_log_lines_carry_their_name_and_nothing_that_moves_the_cursor(tmp_path: Path) -> None:
    output = io.StringIO()
    logs = Logs(tmp_path, output)
    logs.line("web", "\x1b[2J\x1b[31mred\x1b[0m [bold]kept[/bold] \x07" + "x" * 200)
    logs.say("web ended with status 1")
    logs.close()
    shown, own = output.getvalue().splitlines()
    assert shown == "web          | red [bold]kept[/bold] " + "x" * 200
    assert own == "errands      | web ended with status 1"
    assert (tmp_path / "web.log").read_text().startswith("red [bold]kept")


class ReaderGone(io.StringIO):
    """A pipe whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_logs_go_on_when_nobody_reads_them(tmp_path: Path) -> None:
    logs = Logs(tmp_path, ReaderGone())
    logs.line("web", "one")
    logs.line("web", "two")
    logs.close()
    assert logs.unread
    assert (tmp_path / "web.log").read_text() == "one\ntwo\n"


def test_a_large_log_file_gives_way_to_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("errands.doors.local.logs.LOG_BYTES", 100)
    logs = Logs(tmp_path, io.StringIO())
    for number in range(30):
        logs.line("web", f"line {number:04d}")
    logs.close()
    assert (tmp_path / "web.log").stat().st_size <= 120
    assert (tmp_path / "web.log.1").exists()


def test_the_screen_shows_addresses_and_sign_in_whole(tmp_path: Path) -> None:
    access = {
        "url": "http://127.0.0.1:8000",
        "dashboard_url": "http://127.0.0.1:8000/docs",
        "mail_url": "http://127.0.0.1:1004",
        "messages_url": "http://127.0.0.1:1004/phone",
        "webhooks_url": "http://127.0.0.1:1005",
        "admin_email": "admin@example.com",
        "admin_password": "[secret]",
    }
    output = io.StringIO()
    logs = Logs(tmp_path, output)
    logs.show(ready_screen(access, Path("/home/ann/project/.errands"), 5.25, default_hints(access)))
    logs.close()
    shown = output.getvalue()
    for value in access.values():
        assert value in shown
    assert "Ready after 5.2 s" in shown
    assert "Ctrl-C" in shown
    assert json.dumps(shown).count("What to try") == 1
