"""`svit chat`: a conversation about a picture in the terminal, answers streaming."""

import sys
from collections.abc import Callable, Iterator, Sequence

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.api import Assistant, Int8, load
from svit_jax.inference.sampler import Sampling
from svit_jax.sharding.mesh import MeshConfig

HELP = (
    "Ask a question. /reset forgets the conversation, /image FILE shows another picture, "
    "/quit ends."
)


def chat(
    checkpoint: PathLike,
    image: PathLike | None,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    mesh: MeshConfig | None = None,
    int8: Int8 = "none",
) -> None:
    """Reads questions from standard input until it ends; prints answers as they are decoded."""
    assistant = load(checkpoint, mesh=mesh, int8=int8)
    if image is not None:
        assistant.picture(image)
    interactive = sys.stdin.isatty()
    if interactive:
        print(HELP)
    converse(assistant, image, _questions(interactive), max_new_tokens, sampling, _say, stop)


def _questions(interactive: bool) -> Iterator[str]:
    while True:
        try:
            yield input("\nUSER: " if interactive else "").strip()
        except EOFError:
            return


def _say(text: str) -> None:
    print(text, end="", flush=True)


def converse(
    assistant: Assistant,
    image: PathLike | None,
    questions: Iterator[str],
    max_new_tokens: int,
    sampling: Sampling,
    say: Callable[[str], None],
    stop: Sequence[str] = (),
) -> list[Turn]:
    """The conversation that the questions lead to; `say` gets every piece of text to show.

    The picture stands in the first question of a conversation, as in training.
    """
    turns: list[Turn] = []
    for question in questions:
        if question in ("/quit", "/exit"):
            break
        if question == "/help":
            say(HELP + "\n")
        elif question == "/reset":
            turns = []
            say("The conversation starts anew.\n")
        elif question.split()[:1] == ["/image"]:
            shown = question.removeprefix("/image").strip()
            if not shown:
                say("picture: /image needs a file, as in /image photo.jpg.\n")
                continue
            try:
                assistant.picture(shown)
                image, turns = shown, []
                say(f"Now about {shown}.\n")
            except UserError as error:
                say(f"{error}\n")
        elif question:
            opening = f"{IMAGE_MARKER}\n" if image is not None and not turns else ""
            asked = [*turns, Turn("human", opening + question)]
            images = [] if image is None else [image]
            say("ASSISTANT: ")
            pieces = []
            try:
                for piece in assistant.stream(asked, images, max_new_tokens, sampling, stop):
                    pieces.append(piece)
                    say(piece)
            except UserError as error:
                say(f"{error}\n")
                continue
            say("\n")
            turns = [*asked, Turn("gpt", "".join(pieces))]
    return turns
