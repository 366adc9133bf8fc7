"""Pictures fetched for a client, from hosts that the server was told of, and never from inside.

A name is resolved once, and the connection goes to the address that was looked at: a DNS server
that changes its mind in between changes nothing. Every redirect is looked at as the first one was.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from svit_jax.serving.conversation import Picture
from svit_jax.serving.errors import ApiError

SECONDS = 10.0
REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_UNICAST = ipaddress.ip_network("2000::/3")
# Of these, what leads to an address of IPv4, which may be a private one: 6to4 and Teredo.
_TUNNELS = [ipaddress.ip_network(network) for network in ("2002::/16", "2001::/32")]


class PictureFetcher:
    """Fetches pictures of `hosts` (HOST or HOST:PORT, in lower case) over HTTP or HTTPS, within
    SECONDS and REDIRECTS."""

    def __init__(self, hosts: Collection[str]):
        self._hosts = frozenset(hosts)

    async def fetch(self, picture: Picture, size: int) -> bytes:
        """The file at a picture's address, of at most `size` bytes. Raises ApiError, which never
        says what was found inside the network."""
        try:
            async with (
                asyncio.timeout(SECONDS),
                httpcore.AsyncConnectionPool(network_backend=_PublicNetwork()) as pool,
            ):
                url = picture.url
                for _ in range(REDIRECTS + 1):
                    found = await self._get(pool, url, size)
                    if isinstance(found, bytes):
                        return found
                    url = found
            raise _RefusedError(f"redirects more than {REDIRECTS} times")
        except _RefusedError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"took more than {SECONDS:g} seconds"
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            reason = "can't be fetched"
        raise ApiError(400, f"{picture.param} {reason}.", "invalid_image_url", picture.param)

    async def _get(self, pool: httpcore.AsyncConnectionPool, url: str, size: int) -> bytes | str:
        """The body of an answer, or where it sends us."""
        target = self._allowed(url)
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", urlsplit(url).netloc),
            ("Accept", "image/*"),
            ("User-Agent", "svit-jax"),
        ]
        async with pool.stream("GET", target, headers=headers) as response:
            names = {name.lower(): value for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in names:
                return urljoin(url, names[b"location"].decode("latin-1"))
            if response.status != 200:
                raise _RefusedError(f"is answered with status {response.status}")
            data = b""
            async for piece in response.aiter_stream():
                data += piece
                if len(data) > size:
                    raise _RefusedError(f"is larger than the {size} bytes that are left for it")
            return data

    def _allowed(self, url: str) -> httpcore.URL:
        """The address as it is connected to, made of the parts that were looked at."""
        if not url.isascii() or any(ord(c) <= 32 or c in "\\\x7f" for c in url):
            raise _RefusedError("has characters that an address can't have")
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            if parts.scheme not in _PORTS:
                raise _RefusedError("is neither a data URL nor one of http or https")
            name = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
            if "@" in parts.netloc or name not in self._hosts:
                raise _RefusedError(
                    "is of a host that this server does not fetch from; send the picture as a "
                    "data URL"
                )
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=path)
        raise _RefusedError("is no address")


class _RefusedError(Exception):
    """Why a picture isn't fetched, as what is said of its parameter."""


class _PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone."""

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        # A public name with a private address among its own is up to something.
        if not addresses or not all(map(is_public, addresses)):
            raise _RefusedError("is of a host that this server does not fetch from")
        return await self._network.connect_tcp(addresses[0], port, timeout)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether the address is one of the internet at large."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found not in _UNICAST or any(found in network for network in _TUNNELS):
            return False
    return found.is_global and not found.is_multicast
