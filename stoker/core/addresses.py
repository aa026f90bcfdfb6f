"""Which network addresses a stranger's URL may lead to. Pure: names are resolved elsewhere."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_CLOSED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.88.99.0/24",  # relays to 6to4
        "168.63.129.16/32",  # a cloud's host, under a public number
        "::/96",  # IPv4 as IPv6, of old
        "64:ff9b:1::/48",  # local translation to IPv4
        "100::/64",  # discard
        "2001::/23",  # protocol assignments
        "3fff::/20",  # documentation; older Pythons do not know it
        "5f00::/16",  # segment routing; the same
        "fec0::/10",  # site-local, of old
    )
)
"""Not public, whatever the tables of this Python's version say."""
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are an IPv4 address, which a translator reaches."""
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def is_public(address: IpAddress) -> bool:
    """Whether an address belongs to the open internet.

    Not so private, loopback, link-local, multicast and reserved ones, carrier-grade NAT and the metadata of
    clouds; an IPv6 address that stands for one of IPv4 is judged as that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner_ipv4(address)
        if inner is not None:
            return is_public(inner)
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in _CLOSED if network.version == address.version)
    )


def _inner_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts (with a port, or with all) and networks that are allowed although they are not public."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[IpNetwork, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "AllowList":
        """From entries such as `files.lan`, `files.lan:9000`, `10.1.2.3`, `[::1]:80`, `10.0.0.0/8`.

        Raises:
            ValueError: names the entry that is none of these.
        """
        hosts: set[tuple[str, int | None]] = set()
        networks: list[IpNetwork] = []
        for entry in entries:
            network = _network(entry)
            if network is not None:
                networks.append(network)
            else:
                hosts.add(_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def has_host(self, host: str, port: int) -> bool:
        """Whether a host is allowed by its name; then whatever it resolves to is."""
        name = host.lower().strip("[]")
        return (name, None) in self.hosts or (name, port) in self.hosts

    def has_address(self, address: IpAddress) -> bool:
        """Whether an address lies in an allowed network."""
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self.networks)


def _network(entry: str) -> IpNetwork | None:
    """`10.0.0.0/8`, or a single address."""
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _host(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":") if ":" in entry else (entry, "", "")
    bare = name.strip("[]")
    known = _HOST.fullmatch(bare) or (name.startswith("[") and _network(bare) is not None)
    if not known or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise ValueError(f"{entry!r} is no host, host:port, address or network (10.0.0.0/8)")
    return bare.lower(), int(port) if colon else None


__all__ = ["AllowList", "IpAddress", "is_public"]
