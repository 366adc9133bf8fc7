"""The model in three lines: `svit_jax.load("run").answer("photo.jpg", "What is this?")`."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, UInt8

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file
from data_pipeline.images.statistics import PAD_COLOUR
from data_pipeline.images.transforms import prepare
from data_pipeline.text.encode import encode_dialogue, encode_prompt
from data_pipeline.text.templates import get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.checkpoints.adapters import load_adapter
from svit_jax.checkpoints.bundle import Bundle, read_bundle
from svit_jax.checkpoints.manager import (
    checkpoint_fingerprint,
    load_parameters,
    locate_checkpoint,
    stored_parameters,
)
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.evaluation.run import AnswerAll
from svit_jax.inference.engine import Engine, Prompt
from svit_jax.inference.sampler import GREEDY, Sampling
from svit_jax.inference.text import Stops, TextStream
from svit_jax.models import unstacked
from svit_jax.models.adapters import with_adapters
from svit_jax.models.int8 import has_scales, in_int8
from svit_jax.models.lora import LoraConfig
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import Compute, abstract_model
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules, tree_shardings

Image = PathLike | bytes | None
Int8 = Literal["none", "weights", "all"]
_PARTS = ("weights", "cache")
Shown = Image | Sequence[Image] | NoPicture
"""What a question is about: a picture, a list of them in their order, or none."""


@dataclasses.dataclass(frozen=True)
class Assistant:
    """A trained model with its tokenizer and template, ready to answer.

    adapted: the same model with each of its adapters, by name. adapter: the number of this one's in
    the engine that they share; 0: none.
    """

    bundle: Bundle
    tokenizer: Tokenizer
    engine: Engine
    checkpoint: str
    adapter: int = 0
    adapted: Mapping[str, "Assistant"] = dataclasses.field(default_factory=dict)

    def picture(self, image: Image) -> UInt8[np.ndarray, "Y X 3"]:
        """A picture as the model sees it; None gives a blank one of the padding's colour."""
        size = self.bundle.model.vision.image_size
        if image is None:
            return np.full((size, size, 3), PAD_COLOUR, np.uint8)
        if isinstance(image, bytes):
            return prepare(image, size, self.bundle.image_mode, "given as bytes")
        file = require_file(image, "picture")
        if file.is_dir():
            raise UserError(f"picture: {file} is a folder; give a picture file.")
        return prepare(file.read_bytes(), size, self.bundle.image_mode, str(image))

    def prompt(
        self, turns: Sequence[Turn], images: Sequence[Image], system: str | None = None
    ) -> Prompt:
        """A conversation that ends with the human's turn, as the engine takes it. `system` stands
        in place of the template's own words about the conversation."""
        template = get_template(self.bundle.template, self.bundle.after_eos)
        if system is not None:
            if template.style == "caption":
                raise UserError(
                    f"the model's template {template.name} has no place for a system message; "
                    "leave it out."
                )
            template = dataclasses.replace(template, system=system)
        encoded = encode_prompt(
            turns,
            template,
            self.tokenizer,
            self.bundle.model.vision.patches,
            has_picture=bool(images),
        )
        if encoded.pictures != len(images):
            raise UserError(
                f"the conversation marks {encoded.pictures} pictures and {len(images)} were given; "
                f"write one {IMAGE_MARKER} for each."
            )
        size = self.bundle.model.vision.image_size
        pixels = [self.picture(image) for image in images]
        stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)
        return Prompt(encoded.tokens, encoded.vision_index, stacked, self.adapter)

    def answer(
        self,
        image: Shown,
        question: str,
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> str:
        """The answer to one question about a picture (a path or its bytes) or a list of them,
        without the space around it and what comes from the first stop string on.

        Pictures stand before the question, or where it has an `<image>` for each of a list."""
        asked = _asked(image, question)
        return "".join(self.stream(*asked, max_new_tokens, sampling, stop))

    def answer_all(
        self,
        questions: Iterable[tuple[Shown, str]],
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Yields the answer to each (picture, question), in order, batched by the engine.
        A picture of None is shown as a blank; with TEXT_ALONE the prompt has none."""
        stops = Stops(stop)

        def complete(tokens: Sequence[int]) -> bool:
            return bool(stop) and stops.found(self.tokenizer.decode(tokens))

        waiting = iter(questions)
        # In groups, so that a benchmark's pictures are never all in memory at once; each is several
        # batches long, for the engine to sort by length.
        while group := list(itertools.islice(waiting, 8 * self.engine.batch_size)):
            prompts = [self.prompt(*_asked(image, question)) for image, question in group]
            for found in self.engine.generate(prompts, max_new_tokens, sampling, complete):
                yield stops.before(self.tokenizer.decode(found.tokens)).strip()

    def answerer(self, max_new_tokens: int) -> AnswerAll:
        """`answer_all` with a fixed length, as evaluation takes it."""
        return functools.partial(self.answer_all, max_new_tokens=max_new_tokens)

    def identity(self, max_new_tokens: int) -> str:
        """What decides greedy answers: the checkpoint's content, what of it is in int8, and the
        decoding limit."""
        rounded = has_scales(self.engine.parameters), self.engine.int8_cache
        int8 = "".join(
            f" int8 {part}" for part, is_so in zip(_PARTS, rounded, strict=True) if is_so
        )
        return f"{checkpoint_fingerprint(self.checkpoint)}{int8} greedy {max_new_tokens}"

    def stream(
        self,
        turns: Sequence[Turn],
        images: Sequence[Image],
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Yields the answer piece by piece, as it is decoded; joined, the pieces are what `answer`
        gives."""
        text = TextStream(self.tokenizer.text_decoder(), Stops(stop))
        for token in self.engine.stream(self.prompt(turns, images), max_new_tokens, sampling):
            if piece := text.push(token.id):
                yield piece
            if text.stopped:
                return
        if piece := text.finish():
            yield piece

    def score(
        self, questions: Iterable[tuple[Shown, str, str]]
    ) -> Iterator[Float32[np.ndarray, "n"]]:
        """Yields, for each (picture, question, answer), the log-probability of every token of the
        answer and of the eos after it, as training sees them; in order, batched by the engine."""
        waiting = iter(questions)
        while group := list(itertools.islice(waiting, 8 * self.engine.batch_size)):
            prompts, answers = [], []
            for image, question, answer in group:
                turns, images = _asked(image, question)
                prompts.append(self.prompt(turns, images))
                whole = encode_dialogue(
                    [*turns, Turn("gpt", answer)],
                    get_template(self.bundle.template, self.bundle.after_eos),
                    self.tokenizer,
                    self.bundle.model.vision.patches,
                    has_picture=bool(images),
                )
                answers.append(whole.tokens[len(prompts[-1].tokens) :].tolist())
            yield from self.engine.score(prompts, answers)


def _asked(shown: Shown, question: str) -> tuple[list[Turn], list[Image]]:
    """The conversation that opens with this question, and its pictures."""
    if isinstance(shown, NoPicture):
        return [Turn("human", question)], []
    if shown is None or isinstance(shown, str | bytes | os.PathLike):
        return [Turn("human", f"{IMAGE_MARKER}\n{question}")], [shown]
    opening = "" if IMAGE_MARKER in question else f"{IMAGE_MARKER}\n" * len(shown)
    return [Turn("human", opening + question)], list(shown)


def load(
    path: PathLike,
    *,
    dtype: str = "float32",
    parameter_dtype: str | None = None,
    mesh: MeshConfig | None = None,
    batch_size: int = 1,
    int8: Int8 = "none",
    adapters: Mapping[str, PathLike] | None = None,
) -> Assistant:
    """The newest checkpoint of a workdir, trained or converted (or one checkpoint folder in it),
    each parameter loaded straight into its sharding. The mesh is of this process's devices: each
    process of several has a model of its own. Computes in `dtype`; keeps parameters as they
    are stored, or cast to `parameter_dtype`. `int8` rounds the decoder's kernels ("weights"), or
    these and the cache ("all"), once they are loaded. `adapters` are LoRA runs of this model by
    name: `load(base, adapters={"pets": run}).adapted["pets"]` answers as that run. Raises
    UserError where a folder is not what it should be."""
    checkpoint, workdir = locate_checkpoint(path)
    bundle = read_bundle(workdir)
    if adapters and bundle.model.lora:
        raise UserError(
            f"{path} holds a LoRA of its own, and adapters need a base without; merge it first: "
            "svit convert LORA_RUN --to orbax MERGED."
        )
    device_mesh, rules = make_mesh(mesh or MeshConfig(), jax.local_devices()), Rules()
    structure = abstract_model(bundle.model)
    shapes = flat_parameters(structure)
    shardings = tree_shardings(device_mesh, rules, shapes, logical_axes(structure))
    stored = stored_parameters(checkpoint)
    abstract = {
        name: shape.update(
            dtype=parameter_dtype or stored.get(name, shape).dtype, sharding=shardings[name]
        )
        for name, shape in shapes.items()
    }
    parameters = load_parameters(checkpoint, abstract)
    laid = device_mesh, rules
    loaded = [
        load_adapter(name, run, bundle, parameters, *laid) for name, run in (adapters or {}).items()
    ]
    configs = [each.config for each in loaded]
    if int8 != "none":
        parameters = in_int8(parameters)
    if loaded:
        structure = abstract_model(bundle.model, configs)
        shardings = tree_shardings(*laid, flat_parameters(structure), logical_axes(structure))
        own = [(each.config, each.parameters) for each in loaded]
        parameters = with_adapters(parameters, own, shardings, dtype)
    if unstacked.suits(device_mesh):
        # Nobody else has them yet: here alone the stacks can go while their layers come.
        parameters = unstacked.unstacked(parameters, spend=True)
    compute, cache = Compute(dtype), int8 == "all"
    base = assistant(workdir, parameters, compute, *laid, batch_size, checkpoint, cache, configs)
    adapted = {
        name: dataclasses.replace(
            base, bundle=each.bundle, checkpoint=str(each.checkpoint), adapter=number
        )
        for number, (name, each) in enumerate(zip(adapters or {}, loaded, strict=True), 1)
    }
    return dataclasses.replace(base, adapted=adapted)


def assistant(
    workdir: PathLike,
    parameters: Mapping[str, jax.Array],
    compute: Compute,
    mesh: Mesh,
    rules: Rules,
    batch_size: int,
    checkpoint: PathLike,
    int8_cache: bool = False,
    adapters: Sequence[LoraConfig] = (),
) -> Assistant:
    """The model of a workdir with parameters that are at hand, laid on the mesh by the rules;
    `checkpoint` is what they came from. With `adapters` theirs are among them."""
    bundle = read_bundle(workdir)
    tokenizer = Tokenizer(bundle.tokenizer)
    engine = Engine(
        *(bundle.model, parameters, compute, mesh, rules, tokenizer.eos_id, batch_size),
        int8_cache=int8_cache,
        adapters=adapters,
    )
    return Assistant(bundle, tokenizer, engine, str(checkpoint))
