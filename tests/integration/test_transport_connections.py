"""Ways to the server: by a user with rights of its own, encrypted, by sentinels, by several addresses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Producer, Queue

from errands.broker.transport import SentinelTransport, TLSTransport, Transport, celery_broker
from errands.doors.local.ports import free_port
from errands.doors.local.valkey import EmbeddedValkey, find_server
from processes import until
from streams import QUEUE, Broker, drain
from tls import EncryptedDoor, make_certificate


class _Quick:
    brpop_timeout = 0.2


class Quick(_Quick, Transport):
    """Waits less long than usual."""


class QuickTLS(_Quick, TLSTransport):
    """The same, encrypted."""


class QuickSentinel(_Quick, SentinelTransport):
    """The same, by sentinels."""


@pytest.fixture
def broker(valkey_url: str, key_prefix: str) -> Iterator[Broker]:
    made = Broker(valkey_url, key_prefix)
    yield made
    made.close()


def goes_there_and_back(broker: Broker, connection: Connection) -> bool:
    """One message, by way of an exchange, acknowledged by the upkeep's own connection."""
    queue = Queue(QUEUE, routing_key=QUEUE)
    Producer(connection.channel()).publish("x", routing_key=QUEUE, declare=[queue], serializer="json")
    received = broker.receive(connection, 1) == ["x"]
    until(lambda: broker.depth().held == 0, what="it is acknowledged")
    return received


def test_a_user_needs_no_rights_but_over_its_own_keys(broker: Broker) -> None:
    prefix = broker.keys.prefix
    rights = (
        f"~{prefix}*", "~_kombu.binding*", f"~{QUEUE}*", "&/0.*", "+@all", "-@dangerous",
    )  # fmt: skip
    broker.client.execute_command("ACL", "SETUSER", "errands", "reset", "on", ">se:cret/", *rights)
    try:
        connection = broker.connect(Quick)
        options = connection.info()["transport_options"]
        address = broker.url.rpartition("@")[2]
        user = Connection(
            f"redis://errands:se%3Acret%2F@{address}", transport=Quick, transport_options=options
        )
        with user:
            assert goes_there_and_back(broker, user)
            assert broker.client.acl_log() == []
        wrong = Connection(f"redis://errands:wrong@{address}", transport=Quick, transport_options=options)
        with pytest.raises(redis.AuthenticationError):
            wrong.connect()
    finally:
        broker.client.acl_deluser("errands")
        broker.client.acl_log_reset()


def test_connections_are_encrypted_and_the_certificate_is_checked(broker: Broker, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    plain = redis.Redis.from_url(broker.url).connection_pool.connection_kwargs
    options = {"key_prefix": broker.keys.prefix}
    with EncryptedDoor(certificate, plain["port"]) as door:
        address = f"rediss://:{plain['password']}@127.0.0.1:{door.port}/0"
        assert celery_broker(address) == (address, "errands.broker.transport:TLSTransport")
        trusting = Connection(
            f"{address}?ssl_ca_certs={certificate}", transport=QuickTLS, transport_options=options
        )
        with trusting:
            assert goes_there_and_back(broker, trusting)
        assert door.passed >= 3  # reading, publishing and the upkeep
        with Connection(address, transport=QuickTLS, transport_options=options) as strict:
            with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
                strict.connect()
        careless = Connection(f"{address}?ssl_cert_reqs=none", transport=QuickTLS, transport_options=options)
        with careless:
            assert goes_there_and_back(broker, careless)


def test_a_socket_in_the_file_system(tmp_path: Path, key_prefix: str) -> None:
    path = tmp_path / "s"
    port = free_port()
    server = subprocess.Popen(
        [find_server(), "--port", str(port), "--unixsocket", path, "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        until(path.exists)
        url, transport = celery_broker(f"unix://{path}?db=2")
        assert transport is None
        broker = Broker(f"redis://127.0.0.1:{port}/2", key_prefix)
        with Connection(url, transport_options={"key_prefix": key_prefix}) as connection:
            assert type(connection.transport) is Transport
            assert goes_there_and_back(broker, connection)
        broker.close()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[EmbeddedValkey]]:
    with EmbeddedValkey(tmp_path / "one") as one, EmbeddedValkey(tmp_path / "two") as two:
        yield [one, two]


def test_the_next_address_is_ours_as_well(servers: list[EmbeddedValkey], key_prefix: str) -> None:
    """kombu chooses the transport of the next address by its scheme."""
    one, two = servers
    one.kill()
    broker = Broker(two.url, key_prefix)
    connection = Connection(
        f"{one.url};{two.url}", transport=Transport, transport_options={"key_prefix": key_prefix}
    )
    with connection:
        connection.ensure_connection(max_retries=4, interval_start=0, interval_step=0)
        assert type(connection.transport) is Transport
        assert connection.port == two.port
        assert goes_there_and_back(broker, connection)
    broker.close()


@pytest.fixture
def sentinel(servers: list[EmbeddedValkey], tmp_path: Path) -> Iterator[int]:
    """A sentinel that watches the first server, whose replica the second one is."""
    one, two = servers
    for server, other in ((one, two), (two, one)):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("masterauth", other.password)
            client.config_set("requirepass", one.password)
    two.password = one.password
    with redis.Redis.from_url(two.url) as client, redis.Redis.from_url(one.url) as first:
        first.config_set("masterauth", one.password)
        client.config_set("masterauth", one.password)
        client.replicaof("127.0.0.1", one.port)
        until(lambda: client.info("replication")["master_link_status"] == "up")
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nsentinel monitor letters 127.0.0.1 {one.port} 1\n"
        f"sentinel auth-pass letters {one.password}\nsentinel down-after-milliseconds letters 500\n"
        "sentinel failover-timeout letters 5000\n"
    )
    process = subprocess.Popen([find_server(), configuration, "--sentinel"], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        until(lambda: _answers(client) and client.sentinel_slaves("letters"), what="the sentinel knows both")
        yield port
    finally:
        client.close()
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _leads(client: redis.Redis) -> bool:
    try:
        return bool(client.info("replication")["role"] == "master")
    except redis.ConnectionError:
        return False  # it cuts connections when its part changes


def test_sentinels_say_where_the_server_is(
    servers: list[EmbeddedValkey], sentinel: int, key_prefix: str
) -> None:
    one, two = servers
    url = f"sentinel://:{one.password}@127.0.0.1:{sentinel}/0;sentinel://127.0.0.1:{free_port()}/0"
    assert celery_broker(url) == (url, "errands.broker.transport:SentinelTransport")
    options = {"key_prefix": key_prefix, "master_name": "letters", "socket_connect_timeout": 1.0}

    def connect() -> Connection:
        return Connection(url, transport=QuickSentinel, transport_options=options)

    before = Broker(one.url, key_prefix)
    with connect() as connection:
        assert goes_there_and_back(before, connection)
    before.close()
    one.kill()
    after = Broker(two.url, key_prefix)
    until(lambda: _leads(after.client), what="the second server takes over")
    with connect() as connection:
        connection.ensure_connection(max_retries=20, interval_start=0.2, interval_step=0)
        assert goes_there_and_back(after, connection)
    after.close()


def test_a_server_that_became_a_replica_is_left(servers: list[EmbeddedValkey], key_prefix: str) -> None:
    """Reading it says READONLY; that must be an error of the connection, on which workers connect anew."""
    one, two = servers
    broker = Broker(one.url, key_prefix)
    connection = broker.connect(Quick)
    with broker.consuming(connection) as found:
        broker.send("before")
        drain(connection, found, 1)
        broker.client.config_set("masterauth", two.password)
        broker.client.replicaof("127.0.0.1", two.port)
        with pytest.raises(connection.connection_errors):
            drain(connection, found, 2)
    broker.client.execute_command("REPLICAOF", "NO", "ONE")
    broker.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h/0", ("redis://h/0", "errands.broker.transport:Transport")),
        ("stock+redis://h/0", ("redis://h/0", "errands.broker.lists:Transport")),
        ("redis+socket:///tmp/s?virtual_host=1", ("errands+socket:///tmp/s?virtual_host=1", None)),
        ("amqp://guest@h//", ("amqp://guest@h//", None)),
    ],
)
def test_the_address_chooses_the_transport(url: str, expected: Any) -> None:
    assert celery_broker(url) == expected
