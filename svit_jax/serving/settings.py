"""What a server is told when it starts: who may ask, and how much one request may take."""

import dataclasses
import hashlib
import ipaddress
import os
from collections.abc import Sequence

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file

KEYS_VARIABLE = "SVIT_API_KEYS"


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much one request may take. Past a limit it is refused, or dropped, alone.

    picture_pixels: of the square of a picture's long side, as padding makes it one.
    default_tokens: of an answer whose request names no limit; new_tokens: of any answer.
    send_seconds: a reader that takes nothing for so long is dropped.
    """

    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    pictures: int = 8
    picture_pixels: int = 36_000_000
    default_tokens: int = 512
    new_tokens: int = 2048
    send_seconds: float = 30.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                option = field.name.replace("_", "-")
                raise UserError(f"--{option} is {value}; give a number above 0.")


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may ask, and what may be fetched for them.

    keys: SHA-256 digests of the keys, one of which a request must carry; none: anyone may ask.
    hosts: names by which the server may be called; none: any name.
    url_hosts: HOST or HOST:PORT of which pictures may be fetched.
    """

    keys: frozenset[bytes] = frozenset()
    hosts: frozenset[str] = frozenset()
    url_hosts: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, what it calls its base model, whom it serves and how far.

    decoders: threads that decode pictures and make prompts. behind_proxy: believe a proxy on this
    machine about whom it asks for. log_contents: write questions and answers into the log.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = Limits()
    access: Access = Access()
    decoders: int = 4
    behind_proxy: bool = False
    log_contents: bool = False


def read_adapters(given: Sequence[str], base: str) -> dict[str, str]:
    """Name -> path of options NAME=PATH. Raises UserError where one is not of this form, or two
    models would have one name."""
    adapters: dict[str, str] = {}
    for option in given:
        name, _, path = option.partition("=")
        if not (name and path):
            raise UserError(f"--adapter {option}: write NAME=PATH, as in --adapter pets=pets_run.")
        if name == base:
            raise UserError(
                f"--adapter {option}: the base is called {name}, too; choose another name, or "
                "another for the base by --model-name."
            )
        if name in adapters:
            raise UserError(
                f"--adapter {option}: {name} is {adapters[name]} already; choose another name."
            )
        adapters[name] = path
    return adapters


def guarded(path: str) -> bool:
    """Whether the path needs a key, where there are keys."""
    return path.startswith(("/v1/", "/metrics"))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_access(
    host: str, keys_file: PathLike | None, hosts: list[str], url_hosts: list[str]
) -> Access:
    """Keys of a file, a line each, or else of the environment, separated by white space.

    A server on loopback answers to loopback's names alone, unless `hosts` says otherwise: a web
    page could name it by a domain of its own and so read what it serves.
    """
    if keys_file is not None:
        keys = require_file(keys_file, "file of API keys").read_text().split()
        if not keys:
            raise UserError(f"file of API keys {keys_file} is empty; write one key on each line.")
    else:
        keys = os.environ.get(KEYS_VARIABLE, "").split()
    names = set(hosts)
    if not names and is_loopback(host):
        names = {"localhost", "127.0.0.1", "::1", host}
    return Access(
        keys=frozenset(hashlib.sha256(key.encode()).digest() for key in keys),
        hosts=frozenset(name.lower() for name in names),
        url_hosts=frozenset(name.lower() for name in url_hosts),
    )
