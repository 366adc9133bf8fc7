"""LoRA runs beside their base: loaded, refused where they don't fit, and asked for by name."""

import dataclasses
import logging
import threading

import jax.numpy as jnp
import numpy as np
import openai
import pytest
from lora_runs import random_adapter, random_base, write_run
from served import ScriptedEngine, serving

import svit_jax
from data_pipeline.common.errors import UserError
from svit_jax.cli.main import main
from svit_jax.inference.continuous import ContinuousEngine
from svit_jax.models.lora import LoraConfig
from svit_jax.serving.settings import read_adapters

LORAS = {"all": LoraConfig(2, 4.0, 0.1), "some": LoraConfig(4, 12.0, 0.0, ("k", "o", "up"))}
QUESTION = "What color is the circle?"


@pytest.fixture(scope="module")
def model(make_run):
    return make_run("finetune").model


@pytest.fixture(scope="module")
def arrays(model):
    """Of the base, and of each LoRA run: the whole model, as training writes it."""
    base = random_base(model)
    return {"base": base} | {
        name: base | random_adapter(model, base, lora, seed)
        for seed, (name, lora) in enumerate(LORAS.items())
    }


@pytest.fixture(scope="module")
def runs(model, arrays, tiny_data, tmp_path_factory):
    root, found = tmp_path_factory.mktemp("adapters"), {}
    for name, parameters in arrays.items():
        config = dataclasses.replace(model, lora=LORAS.get(name))
        # Each answers in the words that it was trained with.
        template = "llava_v1" if name == "base" else "v1"
        found[name] = write_run(root / name, config, parameters, tiny_data.tokenizer, template)
    return found


@pytest.fixture(scope="module")
def loaded(runs):
    adapters = {name: runs[name] for name in LORAS}
    return svit_jax.load(runs["base"], adapters=adapters)


@pytest.fixture(scope="module")
def expected(runs, picture):
    """What each run answers by itself."""
    return {name: svit_jax.load(run).answer(picture, QUESTION, 6) for name, run in runs.items()}


def test_from_python_each_answers_as_by_itself(loaded, picture, expected):
    assert len(set(expected.values())) == 3
    assert loaded.answer(picture, QUESTION, 6) == expected["base"]
    for name, adapted in loaded.adapted.items():
        assert adapted.answer(picture, QUESTION, 6) == expected[name]


def test_requests_choose_by_name(loaded, picture_url, expected):
    """Asked at once, by OpenAI's own client."""
    engine = ContinuousEngine(loaded.engine, rows=3, max_length=256)
    answers = {}
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": picture_url}},
    ]
    messages = [{"role": "user", "content": parts}]

    def ask(client, name):
        reply = client.chat.completions.create(
            model="tiny" if name == "base" else name,
            messages=messages,
            max_tokens=6,
            temperature=0,
        )
        answers[name] = reply.choices[0].message.content

    try:
        with (
            serving(loaded, engine) as served,
            openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client,
        ):
            assert [each.id for each in client.models.list()] == ["tiny", "all", "some"]
            assert client.models.retrieve("some").id == "some"
            threads = [threading.Thread(target=ask, args=(client, name)) for name in expected]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        engine.close(drain=False)
    assert answers == expected


def test_names_in_errors_figures_and_the_log(named, tiny_assistant, caplog):
    engine = ScriptedEngine(tiny_assistant.tokenizer.encode("red"))
    hello = [{"role": "user", "content": "Hello?"}]
    with (
        caplog.at_level(logging.INFO, "svit_jax.serving"),
        serving(named, engine) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for name in ("dogs", "tiny", "cats", "dogs"):
            reply = client.chat.completions.create(model=name, messages=hello)
            assert reply.model == name
        with pytest.raises(openai.NotFoundError, match="this server has tiny, cats, dogs") as found:
            client.chat.completions.create(model="cat", messages=hello)
        assert (found.value.code, found.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError, match="There is no model 'cat'"):
            client.models.retrieve("cat")
        figures = served.ask("GET", "/metrics")[2].decode()
    assert [ticket.prompt.adapter for ticket in engine.tickets] == [2, 0, 1, 2]
    count = len(engine.tokens)
    assert f'svit_tokens_total{{kind="completion",model="dogs"}} {2 * count}.0' in figures
    assert f'svit_tokens_total{{kind="completion",model="tiny"}} {count}.0' in figures
    assert 'svit_request_seconds_count{model="cats"} 1.0' in figures and '"cat"' not in figures
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    asked = [line.get("model") for line in lines if line["method"] == "POST"]
    assert asked == ["dogs", "tiny", "cats", "dogs", None]


def test_a_base_in_another_dtype_is_the_base(model, arrays, runs, tiny_data, tmp_path):
    """LoRA runs keep what is frozen in bfloat16."""
    lora = LORAS["some"]
    mixed = {
        path: x.astype(jnp.bfloat16) if path in arrays["base"] and "projector" not in path else x
        for path, x in arrays["some"].items()
    }
    config = dataclasses.replace(model, lora=lora)
    run = write_run(tmp_path / "run", config, mixed, tiny_data.tokenizer)
    found = svit_jax.load(runs["base"], adapters={"run": run}, dtype="bfloat16", int8="all")
    dtypes = {path: str(array.dtype) for path, array in found.engine.parameters.items()}
    assert dtypes["decoder/blocks/k_lora/a"] == dtypes["projector/fc1"] == "bfloat16"
    assert dtypes["decoder/blocks/k"] == "int8"


def test_what_does_not_fit_is_refused(model, arrays, runs, tiny_data, tmp_path):
    tokenizer = tiny_data.tokenizer

    def refused(run, message, base=runs["base"]):
        with pytest.raises(UserError, match=message) as found:
            svit_jax.load(base, adapters={"pets": run})
        assert str(found.value).count(". ") == 0

    refused(runs["base"], "adapter pets: .* has no LoRA; give the workdir of a LoRA run")
    refused(runs["some"], "holds a LoRA of its own.*merge it first", base=runs["all"])
    refused(tmp_path / "none", "holds no checkpoint")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "peft", "is LLaVA's or PEFT's; convert it first: svit convert")
    lora = dataclasses.replace(model, lora=LORAS["some"])
    changed = arrays["some"] | {"decoder/norm/scale": arrays["base"]["decoder/norm/scale"] + 1e-3}
    run = write_run(tmp_path / "full", lora, changed, tokenizer)
    refused(run, "pets: .* differs from the base in decoder/norm/scale, so it was trained on anoth")
    other = random_base(model, seed=4)
    run = write_run(tmp_path / "other", lora, arrays["some"] | other, tokenizer)
    refused(run, r"differs from the base in [^,]+, [^,]+, [^,]+ and \d+ more, so it was trained")
    wide = dataclasses.replace(model.decoder, mlp=2 * model.decoder.mlp)
    sizes = dataclasses.replace(lora, decoder=wide)
    run = write_run(tmp_path / "wide", sizes, {"decoder/norm/scale": np.ones(1)}, tokenizer)
    refused(
        run, rf"of another model than the base \(decoder.mlp is {wide.mlp}, not {wide.mlp // 2}\)"
    )
    (tmp_path / "tokenizer").write_bytes(tokenizer.read_bytes() + b"more")
    run = write_run(tmp_path / "words", lora, arrays["some"], tmp_path / "tokenizer")
    refused(run, "has another tokenizer than the base")


def test_options(runs, capsys):
    assert read_adapters(["a=run_a", "b=x=y"], "base") == {"a": "run_a", "b": "x=y"}
    for wrong, message in (
        (["pets"], "write NAME=PATH, as in --adapter pets=pets_run"),
        (["=run"], "write NAME=PATH"),
        (["base=run"], "the base is called base, too; choose another name"),
        (["pets=a", "pets=b"], "pets is a already; choose another name"),
    ):
        with pytest.raises(UserError, match=message):
            read_adapters(wrong, "base")
    run = f"base={runs['some']}"
    assert main(["serve", "--checkpoint", str(runs["base"]), "--adapter", run]) == 1
    assert "the base is called base, too" in capsys.readouterr().err
