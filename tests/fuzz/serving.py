"""Coverage-guided fuzzing of the server, by atheris (libFuzzer):

    make fuzz
    python tests/fuzz/serving.py body -runs=10000
    python tests/fuzz/serving.py picture -runs=10000

The whole server but uvicorn gets a body, or a picture in one, that libFuzzer made out of good ones
and of those before that reached something new in our code, Starlette's or Pillow's Python; what is
written in C or Rust, decoders and the JSON parser, is run but not looked into. Any answer that is
no failure will do. One that isn't is printed with the input, which is kept in the folder of
temporary files: give its path in place of -runs to see it again. All other options are libFuzzer's.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
TESTS = Path(__file__).resolve().parents[1]
for folder in ("svit_jax/serving", "data_pipeline/images"):
    sys.path.insert(0, str(TESTS / folder))

import atheris

with atheris.instrument_imports(include=["svit_jax.serving", "data_pipeline", "PIL", "starlette"]):
    from hostile_pictures import hostile_files, saved
    from in_process import about, answering, as_json, check
    from served import ScriptedEngine

    from data_pipeline.text.tokenizer import train_tokenizer
    from svit_jax.api import Assistant, assistant
    from svit_jax.checkpoints.bundle import write_bundle
    from svit_jax.config import default_config, model_config
    from svit_jax.models.svit import Compute
    from svit_jax.serving.schema import ChatRequest
    from svit_jax.sharding.mesh import MeshConfig, make_mesh
    from svit_jax.sharding.rules import Rules

TEXTS = [f"USER: Where is ball {n}? ASSISTANT: At [0.125, 0.5, 0.75, 0.{n}]." for n in range(99)]
LONGEST = 16 * 1024


def small_assistant(folder: Path) -> Assistant:
    """Makes prompts; nobody decodes."""
    import jax

    train_tokenizer(TEXTS, folder / "t.model", 300)
    model = model_config(default_config("tiny").model.to_dict())
    workdir = folder / "workdir"
    write_bundle(workdir, model, "v1", "pad", folder / "t.model")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return assistant(workdir, {}, Compute("float32"), mesh, Rules(), 1, workdir)


def good_pictures() -> list[bytes]:
    kinds = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {})]
    kinds += [("GIF", {"frames": 2}), ("MPO", {"frames": 2}), ("WEBP", {"lossless": True})]
    found = [saved(kind, size=(20, 14), **options) for kind, options in kinds]
    return found + [data for data in hostile_files().values() if len(data) < LONGEST]


def good_bodies() -> list[bytes]:
    question = {"role": "user", "content": "Where is ball 3?"}
    turns = [question, {"role": "assistant", "content": "Here."}, question]
    asked = {"model": "tiny", "messages": [{"role": "system", "content": "Be brief."}, *turns]}
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": -1, "stop": ["a", "b"]}
    more = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    fixed = {"n": 1, "tools": [], "response_format": {"type": "text"}, "metadata": {"a": "b"}}
    return [
        as_json({"model": "tiny", "messages": [question], "max_tokens": 4}),
        *(as_json(asked | extra) for extra in (sampling, more, fixed)),
        about(saved("PNG", size=(2, 2))),
    ]


def main() -> None:
    target, *options = sys.argv[1:]
    inputs = {"body": good_bodies, "picture": good_pictures}[target]()
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz_{target}_"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(inputs):
        (corpus / str(number)).write_bytes(data)
    words = [*ChatRequest.model_fields, "role", "content", "user", "text", "image_url", "url"]
    (folder / "words").write_text("".join(json.dumps(f'"{word}"') + "\n" for word in words))
    model = small_assistant(folder)
    engine = ScriptedEngine(model.tokenizer.encode("Here."))
    with answering(model, engine) as ask:

        def one(data: bytes) -> None:
            check(ask(about(data) if target == "picture" else data))

        ours = [f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=8192", "-print_final_stats=1"]
        ours += [f"-artifact_prefix={folder}/"]
        if target == "body":
            ours.append(f"-dict={folder}/words")
        again = [option for option in options if not option.startswith("-")]
        atheris.Setup([sys.argv[0], *ours, *options, *([] if again else [str(corpus)])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
