"""What a run shows while it trains: one run with all of it, held against its own data."""

import dataclasses
import gzip
import json
import os
import re
import signal
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from small_run import SMALL_RUN

from data_pipeline.common.errors import UserError
from data_pipeline.loading.pipeline import ImageSpec, make_loader
from data_pipeline.loading.plan import Plan
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.templates import get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import abstract_model
from svit_jax.training.loop import train
from svit_jax.training.telemetry import read_metrics


@pytest.fixture(scope="module")
def shown(make_run, tiny_data, tmp_path_factory):
    """Six steps, and every four of them an evaluation on 21 held-out dialogues."""
    folder = tmp_path_factory.mktemp("heldout")
    rows = json.loads((tiny_data.dataset.parent / "rows.json").read_text())
    (folder / "rows.json").write_text(json.dumps(rows[:21]))
    write_dataset([folder / "rows.json"], tiny_data.pictures, folder / "data", "heldout")
    heldout = f"data.heldout={folder / 'data'}"
    config = make_run("finetune", *SMALL_RUN, heldout, "train.eval_every=4", "train.log_every=2")
    workdir = tmp_path_factory.mktemp("runs") / "shown"
    states = {}

    def keep(step, state):
        states[step] = jax.device_get(state.parameters())
        return {"kept": float(step)}

    result = train(config, workdir, hooks=((4, keep),), profile_steps=(2, 3))
    return config, workdir, result, states


def all_batches(config, dataset, folder):
    data, plan = config.data, Plan.load(folder)
    steps = -(-len(plan) // data.batch_size)
    return plan, make_loader(
        plan,
        open_records(dataset),
        Tokenizer(data.tokenizer),
        get_template(data.template, data.after_eos),
        ImageSpec(config.model.vision.image_size, data.image_mode),
        data.batch_size,
        0,
        steps,
    )


def test_evaluations_are_logged_when_due_and_at_the_end(shown):
    _, workdir, result, _ = shown
    rows = read_metrics(workdir)
    names = ("loss", "heldout_loss", "kept")
    assert [(row["step"], next(name for name in names if name in row)) for row in rows] == [
        (2, "loss"),
        (4, "loss"),
        (4, "heldout_loss"),
        (4, "kept"),
        (6, "loss"),
        (6, "heldout_loss"),
        (6, "kept"),
    ]
    assert result.metrics["kept"] == 6 and "gradient_norm" in result.metrics


def test_heldout_loss_is_the_mean_over_all_targets_counted_once(shown):
    """By hand: logits of every position of every row, in NumPy from there on. The last batch is not
    full, so rows that came around again must not count."""
    config, workdir, _, states = shown
    plan, batches = all_batches(config, config.data.heldout, workdir / "heldout" / "plan")
    assert len(plan) % config.data.batch_size

    @jax.jit
    def logits(parameters, batch):
        model = with_parameters(abstract_model(config.model), parameters)
        fields = ("tokens", "segment_ids", "positions", "images", "vision_index")
        hidden = model.hidden(*(batch[name] for name in fields), config.compute)
        return model.decoder.unembed(hidden)

    loss = hits = count = seen = 0
    for loaded in batches:
        batch = loaded.batch
        scores = np.asarray(logits(states[4], dataclasses.asdict(batch)), np.float64)
        for row in range(config.data.batch_size):
            if seen == len(plan):
                break
            seen += 1
            for place in np.flatnonzero(batch.loss_weights[row]):
                here, token = scores[row, place - 1], batch.tokens[row, place]
                loss += np.log(np.exp(here - here.max()).sum()) + here.max() - here[token]
                hits += here.argmax() == token
                count += 1
    found = next(row for row in read_metrics(workdir) if "heldout_loss" in row)
    assert found["heldout_target_tokens"] == count
    assert found["heldout_loss"] == pytest.approx(loss / count, rel=1e-5)
    assert found["heldout_accuracy"] == pytest.approx(hits / count, abs=1.5 / count)


def test_timings_are_of_the_real_tokens(shown):
    _, workdir, _, _ = shown
    rows = [json.loads(line) for line in (workdir / "timings.jsonl").open()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    plan = Plan.load(workdir / "plan")
    for row in rows:
        assert "mfu" not in row and 0 <= row["data_wait"] <= 1
        rows_of_interval = range((row["step"] - 2) * 8, row["step"] * 8)
        tokens = sum(int(plan.row(index)[:, 2].sum()) for index in rows_of_interval)
        assert row["tokens_per_second"] * row["seconds_per_step"] * 2 == pytest.approx(tokens)


class Page(HTMLParser):
    """The page's pictures, its tokens' texts by class, and what it would load from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.elsewhere, self.stack = [], [], []
        self.texts = {"loss": [], "plain": [], "picture": []}
        self.headings = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        for name in ("src", "href"):
            if name in found:
                inline = found[name].startswith("data:image/png;base64,")
                (self.pictures if inline else self.elsewhere).append(found[name])
        if tag not in ("meta", "img", "br"):
            self.stack.append((tag, found.get("class")))

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        if not self.stack:
            return
        tag, kind = self.stack[-1]
        if tag == "span" and kind in self.texts:
            self.texts[kind].append(data)
        if tag in ("h2", "h3"):
            self.headings.append(data)


def test_the_first_batch_is_a_page_that_shows_what_carries_loss(shown):
    config, workdir, _, _ = shown
    page = Page((workdir / "first_batch.html").read_text())
    assert not page.elsewhere and not page.stack
    batch = next(all_batches(config, config.data.train, workdir / "plan")[1]).batch
    assert len(page.pictures) == sum(len(set(row[row >= 0] // 16)) for row in batch.vision_index)
    rows = [heading for heading in page.headings if heading.startswith("Row")]
    used = (batch.segment_ids > 0).sum(axis=1)
    assert [int(re.match(r"Row \d+: (\d+) of 128", row)[1]) for row in rows] == used.tolist()
    segments = [re.findall(r"\d+", h) for h in page.headings if h.startswith("Segment")]
    ids = batch.segment_ids
    expected = [
        [s, (ids[row] == s).sum(), (batch.loss_weights[row][ids[row] == s] > 0).sum()]
        for row in range(8)
        for s in range(1, ids[row].max() + 1)
    ]
    assert [[int(n) for n in each] for each in segments] == expected

    # What the model learns to say, and nothing else, is what the records' answers say: in rows of
    # 128 tokens there is room for the first.
    source = open_records(config.data.train)
    plan = Plan.load(workdir / "plan")
    spoken = []
    for index in range(8):
        ((record, dialogue, *_),) = plan.row(index).tolist()
        turns = source[record].dialogues[dialogue].turns
        spoken.append(next(turn.text for turn in turns if turn.role == "gpt"))
    learnt = [text for text in page.texts["loss"] if text != "Highlighted"]
    assert [text.removesuffix("</s>").strip() for text in learnt] == spoken
    assert all(text.endswith("</s>") for text in learnt)
    assert any("USER:" in text for text in page.texts["plain"])
    assert set(page.texts["picture"]) <= {"picture 1: 16 patches", "picture 2: 16 patches"}


def test_the_profile_has_the_steps_that_were_asked_for(shown):
    _, workdir, _, _ = shown
    (trace,) = (workdir / "profile").rglob("perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    steps = {str(e["args"]["step_num"]) for e in events if "step_num" in e.get("args", {})}
    assert steps == {"2", "3"}
    assert list((workdir / "profile").rglob("*.xplane.pb"))


def test_a_profile_of_no_step_is_refused(make_run, tmp_path):
    config = make_run("finetune", *SMALL_RUN)
    with pytest.raises(UserError, match=r"--profile-steps 7:9 holds none of the steps 1 to 6"):
        train(config, tmp_path / "run", profile_steps=(7, 9))


def test_the_account_of_a_whole_run_sums_to_its_wall(shown):
    _, _, result, _ = shown
    assert result.goodput["starts"] == 1
    seconds = result.goodput["seconds"]
    assert all(value >= 0 for value in seconds.values()) and seconds["lost"] == 0
    assert all(seconds[name] > 0 for name in ("step", "compile", "checkpoint", "evaluation"))
    assert sum(seconds.values()) == pytest.approx(result.goodput["wall_seconds"])
    assert sum(result.goodput["share"].values()) == pytest.approx(1)


def test_sigterm_in_an_evaluation_leaves_it_and_it_is_done_again(shown, tmp_path):
    config, workdir, _, _ = shown
    calls = []

    def hook(step, state):
        calls.append(step)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not end the evaluation")
        return {"kept": float(step)}

    with pytest.raises(SystemExit) as stopped:
        train(config, tmp_path / "run", hooks=((4, hook),))
    assert stopped.value.code == 143 and "step 4 of 6 is saved" in str(stopped.value)
    train(config, tmp_path / "run", hooks=((4, hook),))
    assert calls == [4, 4, 6]
    assert read_metrics(tmp_path / "run") == read_metrics(workdir)
