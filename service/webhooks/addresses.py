"""Addresses that webhooks may go to: none in networks that only this machine reaches, unless the operator allows it.

A host name is resolved and every address of it judged right before each connection, which then goes to the judged
address. So a name that changes its address in between gains nothing.
"""

import ipaddress
import re

import httpx2

from service.errors import WebhookAddressRefused

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV6_PUBLIC = ipaddress.ip_network("2000::/3")  # the rest is not in use, or not for the Internet
_HOST = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+")
_LOCAL_NAMES = (".localhost", ".local", ".internal")


def checked_url(url: str, private_allowed: bool, field: str) -> str:
    """As far as it can be told without resolving the name. Raises `WebhookAddressRefused`."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise WebhookAddressRefused(field=field, reason=f"it is no URL ({error})") from None
    if parsed.scheme not in ("http", "https") or not _HOST.fullmatch(parsed.raw_host.decode().lower()):
        raise WebhookAddressRefused(
            field=field, reason="it does not begin with https:// or http:// and a host"
        )
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise WebhookAddressRefused(field=field, reason=f"there is no port {parsed.port}")
    if parsed.userinfo or parsed.fragment:
        raise WebhookAddressRefused(field=field, reason="it has a user name, a password or a #fragment")
    name = parsed.host.rstrip(".")
    if not private_allowed and (f".{name}".endswith(_LOCAL_NAMES) or _is_private(name)):
        raise WebhookAddressRefused(field=field, reason=_private(name))
    return url


def check_resolved(addresses: list[str], private_allowed: bool) -> None:
    """All of a name's addresses must be good: one that is not says that the name is not to be trusted.

    Raises `WebhookAddressRefused`.
    """
    for address in addresses:
        if not private_allowed and _is_private(address):
            raise WebhookAddressRefused(field="url", reason=_private(address))


def _private(host: str) -> str:
    return (
        f"{host} lies in a private network. If it is meant, the operator allows such addresses with "
        "SHORTLIST_WEBHOOKS_TO_PRIVATE_ADDRESSES=true"
    )


def _is_private(host: str) -> bool:
    """True if the host is an IP address that is not public; false for names."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return not _is_public(address)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """IPv6 addresses that carry an IPv4 one are as public as that."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried:
            return _is_public(carried)
        if address not in _IPV6_PUBLIC:
            return False
    return address.is_global and not address.is_multicast
