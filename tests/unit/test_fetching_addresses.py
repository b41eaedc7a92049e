"""Which addresses may be called."""

import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands.core.errors import Discard
from errands.fetching import AddressRefused, FetchFailed, Guard, SystemResolver, is_public
from errands.fetching.addresses import literal

HOSTILE = [
    # loopback, this host
    "https://127.0.0.1/", "https://127.8.9.10/", "https://0.0.0.0/", "https://[::1]/", "https://[::]/",
    # private, carrier-grade NAT, link-local, the clouds' metadata services
    "https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/",
    "https://100.64.0.1/", "https://100.100.100.200/", "https://169.254.169.254/latest/meta-data/",
    "https://[fe80::1]/", "https://[fc00::1]/", "https://[fd00:ec2::254]/", "https://[fec0::1]/",
    # assigned for other uses, documentation, benchmarking, multicast, reserved, broadcast
    "https://192.0.0.8/", "https://192.0.2.1/", "https://198.51.100.1/", "https://203.0.113.1/",
    "https://198.18.0.1/", "https://224.0.0.1/", "https://239.255.255.250/", "https://240.0.0.1/",
    "https://255.255.255.255/", "https://[ff02::1]/", "https://[2001:db8::1]/", "https://[3fff::1]/",
    "https://[100::1]/", "https://[5f00::1]/",
    # an IPv4 address inside an IPv6 one: mapped, compatible, 6to4, Teredo, NAT64, translated
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/", "https://[2002:7f00:1::]/", "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::a00:1]/", "https://[::ffff:0:127.0.0.1]/",
    "https://192.88.99.1/",
    # the same, written otherwise
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://127.0.1/", "https://017700000001/", "https://0x7f.0x0.0x0.0x1/", "https://127.0.0.1./",
    "https://127。0。0。1/", "https://１２７.0.0.1/", "https://①②⑦.0.0.1/", "https://%31%32%37.0.0.1/",
    "https://0300.0250.1.1/", "https://0xa9fea9fe/", "https://2852039166/", "https://169.254.43518/",
    "https://0xA9.0376.0xa9fe/", "https://0x/", "https://0/", "https://00000000177.1/", "https://10.1/",
    # numbers that are no address
    "https://8.8.8.8.8/", "https://256.1.1.1/", "https://4294967296/", "https://0x100000000/",
    "https://1.2.3.0x1ff/", "https://08.8.8.8/", "https://8..8/", "https://a.1/",
    "https://99999999999999999999/", "https://010.010.010.010/",
    # zone ids
    "https://[fe80::1%25eth0]/", "https://[2606:4700::1%25lo]/", "https://[::1%25lo]/", "https://[fe80::1%lo]/",
    # tunnels and networks that were given back
    "https://[2a00:1450::5efe:10.0.0.1]/", "https://[2a00:1450::200:5efe:7f00:1]/", "https://[3ffe::1]/",
    "https://[2001:2::1]/", "https://[2001:20::1]/", "https://[2620:4f:8000::1]/",
    # what parsers read differently
    "https://example.com@127.0.0.1/", "https://127.0.0.1\\@example.com/", "https://user:pw@example.com/",
    "https://@example.com/", "https://:@example.com/",
    "https://example.com:80@127.0.0.1/", "https://example.com\t.evil.example/", "https://example.com\n/",
    "https://exa mple.com/", "https://example.com /", "https://example.com\x00/", "https://\u202eexample.com/",
    "https://ex%61mple.com/", "https://example..com/", "https://-example.com/", "https://example.com:0/",
    "https://example.com:99999/", "https://example.com:abc/", "https://", "https:///path",
    "https:example.com", "//example.com/", "example.com", "", "https://[::1", "https://example.com:443:443/",
    # other ports and schemes
    "https://example.com:6379/", "https://example.com:11211/", "https://example.com:6667/",
    "https://example.com:22/", "https://example.com:25/", "https://example.com:587/", "http://example.com/",
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "unix:/run/x",
    "data:,x", "ws://example.com/",
    "https://example.com/" + "a" * 2048, "https://example.com/" + "é" * 500,
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_address_is_refused_without_asking_anybody(url):
    with pytest.raises(AddressRefused) as caught:
        Guard().parse(url)
    assert isinstance(caught.value, Discard)


def test_an_address_with_a_password_does_not_show_it():
    with pytest.raises(AddressRefused) as caught:
        Guard().parse("https://user:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "kept"),
    [
        ("https://example.com", "example.com", 443, "https://example.com"),
        ("HTTPS://EXAMPLE.com:443/a?b=c@d#e", "example.com", 443, "https://example.com/a?b=c@d"),
        ("https://example.com.:8443/x", "example.com", 8443, "https://example.com:8443/x"),
        ("https://bücher.example/ä", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example/%C3%A4"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "https://8.8.8.8/"),
        ("https://134744072/a", "8.8.8.8", 443, "https://8.8.8.8/a"),
        ("https://0x8.8.2056/", "8.8.8.8", 443, "https://8.8.8.8/"),
        ("https://010.526344/", "8.8.8.8", 443, "https://8.8.8.8/"),
        ("https://0X08080808./", "8.8.8.8", 443, "https://8.8.8.8/"),
        ("https://1.2.3:8443/", "1.2.0.3", 8443, "https://1.2.0.3:8443/"),
        (
            "https://[2606:4700:4700:0:0:0:0:1111]/",
            "2606:4700:4700::1111",
            443,
            "https://[2606:4700:4700::1111]/",
        ),
        ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111", 443, "https://[2606:4700:4700::1111]/"),
        ("https://a-1.b_2.example.com/", "a-1.b_2.example.com", 443, "https://a-1.b_2.example.com/"),
    ],
)
def test_a_public_address_passes_and_is_kept_in_one_form(url, host, port, kept):
    target = Guard().parse(url)
    assert (target.host, target.port, str(target.url)) == (host, port, kept)
    assert not target.exempt


def test_an_exempt_address_passes_only_at_its_own_port_and_under_its_own_name():
    guard = Guard("127.0.0.1:8001, Receiver:80,[::1]:9000")
    for url in (
        "http://2130706433:8001/",
        "http://127.0.0.1:8001/x",
        "https://127.0.0.1:8001/",
        "http://receiver/",
        "http://[::1]:9000/",
    ):
        assert guard.parse(url).exempt
    for url in (
        "http://127.0.0.1:8002/",
        "http://127.0.0.1/",
        "http://localhost:8001/",
        "http://receiver:81/",
    ):
        with pytest.raises(AddressRefused):
            guard.parse(url)


def test_plain_http_can_be_allowed_to_public_addresses_only():
    guard = Guard(allow_http=True)
    assert guard.parse("http://example.com/").port == 80
    with pytest.raises(AddressRefused):
        guard.parse("http://10.0.0.1/")


@pytest.mark.parametrize(
    "pair", ["localhost", "localhost:", "localhost:x", "localhost:0", "localhost:70000", "1.2.3.4.5:80"]
)
def test_an_exemption_needs_a_host_and_a_port(pair):
    with pytest.raises(ValueError, match="ERRANDS_FETCH_ALLOW"):
        Guard(pair)
    with pytest.raises(ValueError, match="THE_LIST"):
        Guard(pair, setting="THE_LIST")


class Names:
    """A name service whose answers a test writes down, one list for each question."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        if not self.answers.get(host):
            raise FetchFailed(f"{host} cannot be found")
        return self.answers[host].pop(0)


async def test_a_name_is_looked_up_once_and_its_addresses_are_kept():
    names = Names(example_com=[["93.184.216.34", "2606:2800:220:1::1", "93.184.216.34"]])
    target = await Guard(resolver=names).resolve("https://example.com/")
    assert list(map(str, target.addresses)) == ["93.184.216.34", "2606:2800:220:1::1"]
    assert names.asked == ["example.com"]


async def test_an_address_needs_no_name_service():
    names = Names()
    target = await Guard(resolver=names).resolve("https://0x08.0x08.0x08.0x08/")
    assert list(map(str, target.addresses)) == ["8.8.8.8"]
    assert names.asked == []


@pytest.mark.parametrize(
    "inner",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1", "64:ff9b::a00:1",
     "fe80::1%eth0", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100.64.0.1", "0.0.0.0"],
)  # fmt: skip
async def test_one_inner_address_among_the_answers_is_enough_to_refuse(inner):
    answer = ["93.184.216.34", inner]
    with pytest.raises(AddressRefused, match=r"rebind\.example:443 to ERRANDS_FETCH_ALLOW"):
        await Guard(resolver=Names(rebind_example=[answer])).resolve("https://rebind.example/")
    exempt = Guard("rebind.example:443", resolver=Names(rebind_example=[answer]))
    assert (await exempt.resolve("https://rebind.example/")).exempt


@pytest.mark.parametrize("answer", [[], ["nonsense"]])
async def test_an_answer_that_is_none_is_a_failure_that_may_pass(answer):
    with pytest.raises(FetchFailed, match=r"odd\.example"):
        await Guard(resolver=Names(odd_example=[answer])).resolve("https://odd.example/")


async def test_a_name_that_cannot_be_found_now_is_tried_again():
    with pytest.raises(FetchFailed, match=r"nowhere\.example"):
        await Guard(resolver=Names()).resolve("https://nowhere.example/")


async def test_the_systems_own_name_service(monkeypatch):
    assert "127.0.0.1" in await SystemResolver()("localhost")

    def getaddrinfo(host, *_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(FetchFailed, match=r"nowhere\.example cannot be found: .*not known"):
        await SystemResolver()("nowhere.example")


# -- however it is written

_INNER = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip


@st.composite
def spellings(draw, networks):
    """An IPv4 address of one of the networks, in one of the ways in which it can be written."""
    network = ip_network(draw(st.sampled_from(networks)))
    value = int(network.network_address) + draw(st.integers(0, network.num_addresses - 1))
    count = draw(st.integers(1, 4))
    numbers = [(value >> 8 * (3 - place)) & 255 for place in range(count - 1)]
    numbers.append(value & (256 ** (5 - count) - 1))
    form = st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}", "0x000{:x}", "000{:o}"])
    return ip_address(value), ".".join(draw(form).format(number) for number in numbers)


@given(spellings(_INNER))
def test_an_inner_address_is_refused_however_it_is_written(spelling):
    with pytest.raises(AddressRefused):
        Guard(allow_http=True).parse(f"http://{spelling[1]}/")


@given(spellings(["8.8.0.0/16", "93.184.0.0/16", "1.1.1.0/24"]))
def test_a_public_address_is_called_as_what_it_is_however_it_is_written(spelling):
    address, text = spelling
    assert literal(text.lower()) == address
    try:
        target = Guard().parse(f"https://{text}/")
    except AddressRefused:  # four numbers, of which one begins with a zero: read in two ways, so in none
        assert len(text.split(".")) == 4
    else:
        assert (target.host, target.addresses) == (str(address), (address,))


@given(st.text(max_size=40))
def test_nothing_but_an_address_or_a_refusal_comes_of_any_text(text):
    for url in (text, f"https://{text}", f"https://{text}/", f"https://example.com/{text}"):
        try:
            target = Guard().parse(url)
        except AddressRefused:
            continue
        assert target.url.scheme == "https"
        assert not target.url.userinfo
        assert all(is_public(address) for address in target.addresses)
        assert Guard().parse(str(target.url)).url == target.url
