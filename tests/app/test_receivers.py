"""Which URLs and addresses webhooks may be sent to; the standard library's registry of addresses as the reference."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.errors import BadWebhookUrl
from app.core.receivers import Address, Receivers, inner, is_public, parsed_networks

PUBLIC = Receivers()
ON_PREMISE = Receivers(networks=parsed_networks("10.1.0.0/16, fd00:1::/32"), http=True)

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
not_public_v4 = st.sampled_from(
    ["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/8"]
).flatmap(lambda network: st.ip_addresses(network=network))


def refused(address: Address | str, port: int = 443, receivers: Receivers = PUBLIC) -> bool:
    try:
        receivers.require_allowed(ip_address(str(address)), port)
    except BadWebhookUrl:
        return True
    return False


@given(v4 | v6 | st.ip_addresses(network="2000::/3"))
@example(IPv6Address("2002:7f00:1::"))
@example(IPv4Address("192.88.99.1"))
def test_what_is_allowed_is_global_and_no_group_of_hosts(address: Address) -> None:
    if not refused(address):
        plain = inner(address)
        assert plain.is_global
        assert not plain.is_multicast
        assert not plain.is_reserved


@given(not_public_v4)
def test_an_inner_ipv4_address_is_refused_however_it_is_wrapped_in_ipv6(address: IPv4Address) -> None:
    number = int(address)
    wrapped: list[Address] = [
        IPv6Address(0xFFFF << 32 | number),  # mapped
        IPv6Address(number),  # compatible
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),  # NAT64
        IPv6Address(int(IPv6Address("64:ff9b:1::")) | number),  # NAT64 of one's own
        IPv6Address(0x2002 << 112 | number << 80),  # 6to4
        IPv6Address(int(IPv6Address("2001::")) | (number ^ 0xFFFFFFFF)),  # Teredo
    ]
    assert all(refused(each) for each in [address, *wrapped])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - an address to be refused
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        "5f00::1",
    ],
)
def test_addresses_with_a_meaning_of_their_own_are_refused(address: str) -> None:
    assert refused(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::808:808"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert not refused(address)
    assert is_public(inner(ip_address(address)))


def test_networks_that_the_operator_names_are_allowed_on_any_port_and_no_others() -> None:
    assert not refused("10.1.2.3", 9999, ON_PREMISE)
    assert not refused("::ffff:10.1.2.3", 9999, ON_PREMISE)
    assert not refused("fd00:1::7", 9999, ON_PREMISE)
    assert refused("10.2.0.1", 443, ON_PREMISE)
    assert refused("fd00:2::7", 443, ON_PREMISE)
    assert refused("8.8.8.8", 6379, ON_PREMISE)


@given(st.integers(0, 65535))
def test_public_receivers_have_the_ports_of_the_web(port: int) -> None:
    assert refused("8.8.8.8", port) == (port not in {80, 443, 8080, 8443})


def spellings(address: IPv4Address) -> list[str]:
    """What resolvers take for the same address."""
    a, b, c, d = address.packed
    return [
        str(int(address)),
        hex(int(address)),
        f"0{int(address):o}",
        f"{a}.{int(address) & 0xFFFFFF}",
        f"{a}.{b}.{c << 8 | d}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.{b}.{c}.{d:#X}",
        f"{a:03d}.{b:03d}.{c:03d}.{d:03d}",
    ]


@given(v4)
@example(IPv4Address("127.0.0.1"))
def test_no_unusual_spelling_of_an_address_gets_as_far_as_a_resolver(address: IPv4Address) -> None:
    for spelling in spellings(address):
        if spelling == str(address):
            continue
        with pytest.raises(BadWebhookUrl, match="usual form"):
            PUBLIC.parse(f"https://{spelling}/hook")
    assert PUBLIC.parse(f"https://{address}/hook").host == str(address)


def test_the_resolver_takes_such_spellings_for_addresses() -> None:
    """Why they are refused before: the same as `127.0.0.1`."""
    assert socket.getaddrinfo("0x7f.1", 80, type=socket.SOCK_STREAM)[0][4][0] == "127.0.0.1"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://@example.com/",
        "https://example.com#@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: other",
        "https://example.com/\t",
        "https://exämple.com/",
        "https://１２７.0.0.1/",
        "https://127。0。0。1/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[v1.x]/",
        "https://exam%70le.com/",
        "https://-bad.example/",
        "https://a..b/",
        "https://localhost./",
        f"https://{'a' * 64}.example/",
        f"https://example.com/{'a' * 2048}",
    ],
)
def test_urls_that_can_be_understood_in_two_ways_are_refused(url: str) -> None:
    with pytest.raises(BadWebhookUrl):
        PUBLIC.parse(url)


def test_a_url_is_taken_apart_once() -> None:
    whole = ON_PREMISE.parse("https://Hooks.Example.com:8443/a/b?c=d&e=%20")
    assert (whole.scheme, whole.host, whole.port, whole.target) == (
        "https",
        "hooks.example.com",
        8443,
        "/a/b?c=d&e=%20",
    )
    bare = ON_PREMISE.parse("http://[fd00:1::7]")
    assert (bare.scheme, bare.host, bare.port, bare.target) == ("http", "fd00:1::7", 80, "/")


@given(st.text(max_size=60).map(lambda text: f"https://{text}"))
def test_whatever_is_written_is_taken_apart_or_refused(url: str) -> None:
    try:
        found = PUBLIC.parse(url)
    except BadWebhookUrl:
        return
    assert found.host
    assert 0 <= found.port <= 65535
    assert found.target.startswith("/")
    assert (found.host + found.target).isascii()


@pytest.mark.parametrize("name", ["localhost", "ip6-localhost"])
def test_a_name_of_this_machine_is_refused_after_it_was_looked_up(name: str) -> None:
    with pytest.raises(BadWebhookUrl, match="no public address"):
        PUBLIC.check(f"https://{name}/hook")


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(BadWebhookUrl, match="no public address"):
        PUBLIC.check("https://nobody.invalid/hook")


def test_one_inner_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.receivers.look_up", lambda host, port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(BadWebhookUrl):
        PUBLIC.check("https://mixed.example/hook")


def test_networks_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1"):
        parsed_networks("10.0.0.1/8")
