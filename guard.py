"""Who may speak: the secret, the addresses, and a brake on those who guess."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

FAILURES_PER_MINUTE = 10
REMEMBERED_ADDRESSES = 4_096


class SecretGuard:
    """Compares digests in constant time: neither the length nor the content of a guess shows in the answer's time."""

    def __init__(self, secret: str) -> None:
        self._digest = _digest(secret)

    def __repr__(self) -> str:
        return "SecretGuard(...)"

    def accepts(self, claims: Iterable[str]) -> bool:
        """True when one of the claimed secrets is the right one."""
        right = False
        for claim in filter(None, claims):
            right |= hmac.compare_digest(_digest(claim), self._digest)
        return right


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Brake:
    """Counts failures per address and minute. A right secret never gets here, so nobody who knows it is slowed.

    All TradingView users share four addresses: a brake on the address alone would lock out the neighbours.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, address: str) -> int:
        """How many failures of this address there are in the current minute, this one included."""
        now = self._monotonic()
        since, count = self._failures.pop(address, (now, 0))
        if now - since > 60:
            since, count = now, 0
        self._failures[address] = (since, count + 1)
        while len(self._failures) > REMEMBERED_ADDRESSES:
            self._failures.popitem(last=False)
        return count + 1

    def failures(self, address: str) -> int:
        """How many there are already in the current minute."""
        since, count = self._failures.get(address, (0.0, 0))
        return count if self._monotonic() - since <= 60 else 0

    def is_on(self, failures: int) -> bool:
        return failures > FAILURES_PER_MINUTE


def client_address(peer: str, forwarded_for: str, trusted_proxy_hops: int) -> str:
    """The sender's address. Only as many entries of X-Forwarded-For count as there are proxies of ours, from the right.

    Everything further left was written by the sender and can say anything.
    """
    if trusted_proxy_hops <= 0:
        return peer
    entries = [entry.strip() for entry in forwarded_for.split(",") if entry.strip()]
    return _as_ipv4(entries[-trusted_proxy_hops]) if len(entries) >= trusted_proxy_hops else peer


def _as_ipv4(address: str) -> str:
    """A proxy that listens for both kinds may write 1.2.3.4 as ::ffff:1.2.3.4, which would be in no list.

    And all of them are in one network of IPv6: whoever guesses passwords would keep everybody out.
    """
    if not address.lower().startswith("::ffff:"):
        return address
    try:
        return str(IPv6Address(address).ipv4_mapped or address)
    except ValueError:
        return address


def address_is_allowed(address: str, allowed: Sequence[IPv4Network | IPv6Network]) -> bool:
    """An empty list allows all; an address that cannot be read is not in any list."""
    if not allowed:
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in allowed)
