"""Where webhooks may be sent. Whoever registers a URL must not reach through this service what only it can reach.

A URL is taken apart once, here, and whoever connects uses the parts, so that no second reader can understand it
differently. Names are resolved once for each connection, every address found is judged, and the connection goes to an
address that was judged (docs/adr/0021-webhooks.md).
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from app.core.errors import BadWebhookUrl

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL: Final = 2048
PORTS: Final = frozenset({80, 443, 8080, 8443})  # Of public receivers: others belong to databases, mail and the like.
# The same for a name that is not known and one that is known inside: nobody shall learn which names there are.
NOWHERE: Final = "The URL's host has no public address."
LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# IANA's special-purpose registry, without exceptions for what of it is globally reachable: no receiver lives there.
NOT_PUBLIC_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by providers; also metadata services of clouds
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's host, inside every virtual machine there
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
GLOBAL_V6: Final = IPv6Network("2000::/3")  # All that has been given out; everything else is something else.
NOT_PUBLIC_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4, given up by RFC 7526; it can hold any IPv4 address
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Destination:
    """A URL in parts: all that is needed to send something there, and nothing left to interpret."""

    scheme: str
    host: str  # lower case; a name, an IPv4 address, or an IPv6 address without brackets
    port: int
    target: str  # path and query


@dataclass(frozen=True)
class Receivers:
    """Which receivers the operator allows."""

    networks: tuple[Network, ...] = ()  # allowed though they are not public, on any port
    http: bool = False

    def parse(self, url: str) -> Destination:
        """The URL in parts. Raises BadWebhookUrl; asks nobody."""
        if len(url) > LONGEST_URL or not re.fullmatch(r"[!-\[\]-~]+", url):
            raise BadWebhookUrl(f"A URL has at most {LONGEST_URL} characters: ASCII without spaces and backslashes.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadWebhookUrl(f"This is no URL: {error}.") from error
        allowed = ("https", "http") if self.http else ("https",)
        if parts.scheme not in allowed:
            raise BadWebhookUrl(f"A webhook's URL begins with {' or '.join(f'{scheme}://' for scheme in allowed)}.")
        if "@" in parts.netloc:
            raise BadWebhookUrl("A webhook's URL has no user name and no password.")
        if "#" in url:
            raise BadWebhookUrl("A webhook's URL has no fragment.")
        host = parts.hostname or ""
        if ("[" in parts.netloc) != (":" in host):
            raise BadWebhookUrl("Brackets are for IPv6 addresses.")
        require_plain_host(host)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if port is None:
            port = 443 if parts.scheme == "https" else 80
        return Destination(parts.scheme, host, port, target)

    def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of the host, all of them allowed. Raises BadWebhookUrl, also if only one is not."""
        found = [ip_address(address) for address in look_up(host, port)]
        for address in found:
            self.require_allowed(address, port)
        return found

    def check(self, url: str) -> None:
        """Raise BadWebhookUrl unless the URL could be sent to at this moment."""
        destination = self.parse(url)
        self.addresses(destination.host, destination.port)

    def require_allowed(self, address: Address, port: int) -> None:
        """Raise BadWebhookUrl for an address that nothing may be sent to."""
        address = inner(address)
        if any(address in network for network in self.networks if network.version == address.version):
            return
        if not is_public(address):
            raise BadWebhookUrl(NOWHERE)
        if port not in PORTS:
            ports = ", ".join(map(str, sorted(PORTS)))
            raise BadWebhookUrl(f"Port {port} is none of those that receivers may have: {ports}.")


def parsed_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation, between commas. Raises ValueError."""
    return tuple(ip_network(each.strip()) for each in text.split(",") if each.strip())


def require_plain_host(host: str) -> None:
    """Raise BadWebhookUrl for what is neither a name nor an address in its usual form.

    A name that ends in a number is an IPv4 address to whoever resolves it, be it written in decimal, octal or
    hexadecimal, in one part or in four.
    """
    if ":" in host or NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            if "%" not in host:
                ip_address(host)
                return
        except ValueError:
            pass
        raise BadWebhookUrl(f"{host!r} is no IP address in its usual form.")
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in host.split(".")):
        raise BadWebhookUrl(f"{host!r} is no host name. Names beyond ASCII are written as xn--….")


def look_up(host: str, port: int) -> list[str]:
    """All addresses of the host, by this machine's resolver. Raises BadWebhookUrl where there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadWebhookUrl(NOWHERE) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def inner(address: Address) -> Address:
    """The IPv4 address that is reached through this IPv6 address, where it stands for one; else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether the address may be anybody's on the Internet; never true for what has a meaning of its own."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in GLOBAL_V6 and not any(address in network for network in NOT_PUBLIC_V6)
