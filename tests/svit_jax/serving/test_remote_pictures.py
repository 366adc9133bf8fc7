"""Pictures fetched for a client: from the hosts that were named, and never from inside."""

import asyncio
import contextlib
import dataclasses
import http.server
import json
import socket
import threading
import time

import httpcore
import pytest
from served import SETTINGS, serving
from test_limits import request

from svit_jax.serving import remote
from svit_jax.serving.conversation import Picture
from svit_jax.serving.errors import ApiError
from svit_jax.serving.remote import PictureFetcher, is_public
from svit_jax.serving.settings import Access


def fetch(url: str, hosts=("pictures.example",), size: int = 1000) -> bytes:
    return asyncio.run(PictureFetcher(hosts).fetch(Picture(url, "url"), size))


def refusal(url: str, **more) -> str:
    with pytest.raises(ApiError) as caught:
        fetch(url, **more)
    assert caught.value.status == 400
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        # RFC 1918, 6598, 3927, 1122, 5737, 1112: private, shared, link-local, this host's,
        # documentation, multicast and reserved.
        *((a, False) for a in ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1")),
        *((a, False) for a in ("100.64.0.1", "169.254.169.254", "127.0.0.1", "127.9.9.9")),
        *((a, False) for a in ("0.0.0.0", "192.0.2.1", "224.0.0.1", "240.0.0.1")),
        ("255.255.255.255", False),
        # RFC 4291, 4193, 6052, 3056, 4380: the same in IPv6, and ways from there to IPv4.
        *((a, False) for a in ("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1")),
        *((a, False) for a in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1")),
        *((a, False) for a in ("2002:7f00:1::", "2001:0:1::1", "2001:db8::1", "ff02::1")),
        ("::127.0.0.1", False),
        *((a, True) for a in ("8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8")),
    ],
)
def test_addresses_of_the_internet_at_large(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "http://pictures.example.evil.example/a.png",
        "http://evilpictures.example/a.png",
        "http://pictures.example@evil.example/a.png",
        "http://evil.example#@pictures.example/a.png",
        "http://user@pictures.example/a.png",
        "http://pictures.example:81/a.png",
        "http://pictures.example./a.png",
        "http://127.0.0.1/a.png",
        "http://2130706433/a.png",
        "http://[::1]/a.png",
        "http:///a.png",
        "http://pictures.example:x/a.png",
        "http://pictures.example\\@evil.example/a.png",
        "http://pictures.example/a b.png",
        "http://pictures.example/\r\nX-Evil: 1",
        "http://ｐictures.example/a.png",
        "http://[pictures.example/a.png",
        "file:///etc/passwd",
        "ftp://pictures.example/a.png",
        "gopher://pictures.example/a.png",
        "//pictures.example/a.png",
        "/etc/passwd",
        "",
    ],
)
def test_what_is_never_asked_for(url, monkeypatch):
    """Nothing is looked up, and nothing connected to."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert refused(refusal(url))


def refused(text: str) -> bool:
    return any(
        words in text
        for words in (
            "a host that this server does not fetch from",
            "is neither a data URL nor one of http or https",
            "has characters that an address can't have",
            "is no address",
        )
    )


def addresses(*found: str):
    def look_up(host, port, *args, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    return look_up


@pytest.mark.parametrize("found", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], []])
def test_allowed_names_with_private_addresses(found, monkeypatch):
    connected = []
    monkeypatch.setattr(socket, "getaddrinfo", addresses(*found))
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", lambda *args: connected.append(args))
    for scheme in ("http", "https"):
        assert "does not fetch from" in refusal(f"{scheme}://pictures.example/a.png")
    assert connected == []


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
        else:
            self.send_response(int(kind) if kind.isdigit() else 200)
        self.end_headers()
        with contextlib.suppress(OSError):
            if kind == "big":
                for _ in range(1000):
                    self.wfile.write(bytes(1000))
            while kind == "slow":
                self.wfile.write(b"x")
                time.sleep(0.05)
            self.wfile.write(self.server.picture)

    def log_message(self, *args):
        pass


@pytest.fixture
def pictures(picture, monkeypatch):
    """A server that passes for one of the internet's: pictures.example has a public address, and
    connections to it come here."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    server.daemon_threads = True
    server.asked, server.picture, server.looked_up, server.connected = [], picture, [], []
    server.moves = False
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def look_up(host, port, *args, **more):
        server.looked_up.append(host)
        moved = server.moves and server.looked_up.count(host) > 1
        return addresses("127.0.0.1" if moved else "8.8.8.8")(host, port)

    real = httpcore.AnyIOBackend.connect_tcp

    async def connect(self, host, port, *args, **more):
        server.connected.append((host, port))
        return await real(self, "127.0.0.1", server.server_port)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    yield server
    server.shutdown()
    server.server_close()


def test_a_picture_is_fetched_from_the_address_that_was_checked(pictures, picture):
    pictures.moves = True
    assert fetch("http://pictures.example/a.jpg?size=1", size=len(picture)) == picture
    assert pictures.asked == [("pictures.example", "/a.jpg?size=1")]
    assert pictures.looked_up == ["pictures.example"]
    assert pictures.connected == [("8.8.8.8", 80)]


def test_a_port_that_was_named(pictures, picture):
    hosts = ["pictures.example:8080"]
    assert fetch("http://pictures.example:8080/", hosts, len(picture)) == picture
    assert pictures.connected == [("8.8.8.8", 8080)]
    assert "does not fetch from" in refusal("http://pictures.example/", hosts=hosts)


def test_every_redirect_is_looked_at(pictures, picture):
    start = "http://pictures.example/to/"
    assert fetch(f"{start}/a.jpg", size=len(picture)) == picture
    assert fetch(f"{start}{'/to/' * 2}/a.jpg", size=len(picture)) == picture
    assert "redirects more than 3 times" in refusal(f"{start}{'/to/' * 3}/a.jpg")
    asked = len(pictures.asked)
    for where in ("http://127.0.0.1/a", "http://evil.example/", "file:///etc/passwd", "//[::1]/"):
        assert refused(refusal(start + where))
        asked += 1
        assert len(pictures.asked) == asked, "a redirect was followed"


def test_a_name_that_moves_inside_between_two_connections(pictures, picture):
    """DNS rebinding: the first answer is public, the next one is not."""
    pictures.moves = True
    fetch("http://pictures.example/a.jpg", size=len(picture))
    assert "does not fetch from" in refusal("http://pictures.example/a.jpg")
    assert pictures.connected == [("8.8.8.8", 80)]


def test_large_slow_and_failing_answers(pictures, monkeypatch):
    assert "is larger than the 1000 bytes" in refusal("http://pictures.example/big")
    assert "is answered with status 404" in refusal("http://pictures.example/404/")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "SECONDS", 0.3)
        assert "took more than 0.3 seconds" in refusal("http://pictures.example/slow")
    pictures.server_close()
    assert "can't be fetched" in refusal("https://pictures.example/a.jpg")


def test_the_server_fetches_for_its_client(tiny_assistant, parrot, pictures):
    access = Access(url_hosts=frozenset(["pictures.example"]))
    settings = dataclasses.replace(SETTINGS, access=access)
    part = {"type": "image_url", "image_url": {"url": "http://pictures.example/a.jpg"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": [part, part]}]}
    with serving(tiny_assistant, parrot, settings) as served, socket.socket() as client:
        # httpcore's connections go elsewhere in this test.
        client.connect(("127.0.0.1", served.port))
        client.sendall(request(json.dumps(body).encode()))
        client.settimeout(60)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert len(pictures.asked) == 1 and len(parrot.tickets[0].prompt.images) == 2
