"""`svit chat`: a conversation about pictures in the terminal, answers streaming."""

import contextlib
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, write_json, write_text
from svit_jax.api import Assistant, Int8, load
from svit_jax.inference.sampler import Sampling
from svit_jax.sharding.mesh import MeshConfig

HELP = (
    "Ask a question. /image FILE ... shows other pictures and begins anew (so does a file's path "
    "alone), /add FILE ... shows more beside them, /reset forgets the conversation, /save FILE "
    "keeps it (.json or text), /quit ends."
)
_ANEW = "The conversation starts anew.\n"
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_URL_BYTES, _URL_SECONDS = 20 * 2**20, 20
_NARROWEST = 20

Ask = Callable[[Sequence[Turn], Sequence[PathLike | bytes]], Iterator[str]]
Say = Callable[[str], object]


def chat(
    checkpoint: PathLike,
    images: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    mesh: MeshConfig | None = None,
    int8: Int8 = "none",
    allow_urls: bool = False,
) -> None:
    """Reads questions from standard input until it ends; prints answers as they are decoded."""
    assistant = load(checkpoint, mesh=mesh, int8=int8)

    def ask(turns: Sequence[Turn], shown: Sequence[PathLike | bytes]) -> Iterator[str]:
        return assistant.stream(turns, shown, max_new_tokens, sampling, stop)

    interactive = sys.stdin.isatty()
    screen = Screen(shutil.get_terminal_size().columns if interactive else 0)
    conversation = Conversation(assistant, ask, screen.say, allow_urls)
    conversation.show(images)
    if interactive:
        screen.say(HELP + "\n")
    for line in _lines(interactive):
        if not conversation.take(line):
            break


def _lines(interactive: bool) -> Iterator[str]:
    while True:
        try:
            yield input("\nUSER: " if interactive else "").strip()
        except EOFError:
            return


class Screen:
    """Prints text as it comes, broken between words at `width` columns (0: not at all)."""

    def __init__(self, width: int, write: Say | None = None):
        self._width = max(width, _NARROWEST) if width else 0
        self._write = write or (lambda text: print(text, end="", flush=True))
        self._column = 0
        self._word = ""

    def say(self, text: str) -> None:
        """A word shows once it is whole, for only then it is certain on which line it stands."""
        if not self._width:
            self._write(text)
            return
        for character in text:
            if character.isspace():
                self._flush()
                self._column = 0 if character == "\n" else self._column + 1
                self._write(character)
            else:
                self._word += character

    def _flush(self) -> None:
        if self._column and self._column + len(self._word) > self._width:
            self._write("\n")
            self._column = 0
        self._write(self._word)
        self._column += len(self._word)
        self._word = ""


class Conversation:
    """Questions and commands, a line at a time. Pictures stand in the first question that is asked
    once they are shown, as in training."""

    def __init__(self, assistant: Assistant, ask: Ask, say: Say, allow_urls: bool = False):
        self._assistant, self._ask, self._say = assistant, ask, say
        self._allow_urls = allow_urls
        self._names: list[str] = []
        self._pictures: list[PathLike | bytes] = []
        self._placed = 0
        self.turns: list[Turn] = []

    def take(self, line: str) -> bool:
        """Does what the line says; False where it ends the conversation."""
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        try:
            if command == "/help":
                self._say(HELP + "\n")
            elif command == "/reset":
                self._forget()
                self._say(_ANEW)
            elif command in ("/image", "/add"):
                names = _names(rest)
                if not names:
                    raise UserError(f"picture: {command} needs a file, as in {command} photo.jpg.")
                self.show(names, beside=command == "/add")
                self._say(f"Now about {', '.join(self._names)}.\n")
            elif command == "/save":
                self._save(rest.strip())
            elif name := _pasted(line):
                self.show([name])
                self._say(f"Now about {name}.\n")
            elif line:
                self._question(line)
        except UserError as error:
            self._say(f"{error}\n")
        return True

    def show(self, names: Sequence[str], beside: bool = False) -> None:
        """Shows these pictures, in place of the others and anew, or `beside` them. Raises UserError
        where one is not to be had; then nothing changes."""
        pictures = [self._picture(name) for name in names]
        if not beside:
            self._names, self._pictures = [], []
            self._forget()
        self._names += names
        self._pictures += pictures

    def _picture(self, name: str) -> PathLike | bytes:
        shown: PathLike | bytes = name
        if urlsplit(name).scheme in ("http", "https"):
            if not self._allow_urls:
                raise UserError(f"picture: {name} is fetched only with --allow-urls.")
            shown = _fetched(name)
        self._assistant.picture(shown)
        return shown

    def _forget(self) -> None:
        self.turns, self._placed = [], 0

    def _question(self, text: str) -> None:
        opening = f"{IMAGE_MARKER}\n" * (len(self._pictures) - self._placed)
        asked = [*self.turns, Turn("human", opening + text)]
        pieces = []
        self._say("ASSISTANT: ")
        for piece in self._ask(asked, self._pictures):
            pieces.append(piece)
            self._say(piece)
        self._say("\n")
        self.turns = [*asked, Turn("gpt", "".join(pieces))]
        self._placed = len(self._pictures)

    def _save(self, name: str) -> None:
        if not name:
            raise UserError("/save needs a file, as in /save talk.json or /save talk.txt.")
        path = Path(name).expanduser()
        try:
            if path.suffix == ".json":
                said = [{"from": turn.role, "value": turn.text} for turn in self.turns]
                write_json(path, {"image": self._names, "conversations": said})
            else:
                names = {"human": "USER", "gpt": "ASSISTANT"}
                said_text = [f"{names[turn.role]}: {turn.text}\n" for turn in self.turns]
                write_text(path, "".join([f"pictures: {', '.join(self._names)}\n", *said_text]))
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}.") from None
        self._say(f"Saved {len(self.turns) // 2} questions to {path}.\n")


def _names(text: str) -> list[str]:
    """The files of a command: one with spaces in its name if it is there, else one a word."""
    text = text.strip()
    one = _local(text)
    return [one] if Path(one).exists() else [_local(word) for word in text.split()]


def _pasted(line: str) -> str | None:
    """The picture whose path a line is, as terminals paste or drop it; None for a question."""
    name = _local(line)
    if not name.lower().endswith(_PICTURES):
        return None
    with contextlib.suppress(OSError, ValueError):
        if Path(name).is_file():
            return name
    return None


def _local(text: str) -> str:
    """A path without quotes, `file://` and backslashes before spaces."""
    text = text.strip().strip("'\"")
    if text.startswith("file://"):
        return unquote(urlsplit(text).path)
    return text.replace("\\ ", " ")


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_URL_SECONDS) as reply:
            data: bytes = reply.read(_URL_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UserError(f"picture: {url} can't be fetched ({error}).") from None
    if len(data) > _URL_BYTES:
        raise UserError(f"picture: {url} has more than {_URL_BYTES >> 20} MiB; take a smaller one.")
    return data
