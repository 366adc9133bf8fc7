"""`svit <job>`: help, exit codes, and errors of one sentence."""

import argparse
import json
import shlex
import subprocess
import sys

import pytest

from svit_jax.cli import main, make_parser


def jobs() -> dict[str, argparse.ArgumentParser]:
    """ "data shard" -> its parser, for every job."""
    found = {}

    def walk(parser: argparse.ArgumentParser, name: str) -> None:
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if name:
            found[name] = parser
        for action in inner:
            for key, child in action.choices.items():
                walk(child, f"{name} {key}".strip())

    walk(make_parser(), "")
    return found


JOBS = sorted(jobs())


def test_the_planned_jobs_are_there():
    assert {"demo", "train", "eval", "score", "chat", "data annotate", "data generate"} <= set(JOBS)
    assert {"data convert", "data shard"} <= set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_help_has_an_example_that_parses(job, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*job.split(), "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "example:" in text
    example = shlex.split(text.split("example:")[1])
    assert example[: 1 + len(job.split())] == ["svit", *job.split()]
    options, rest = make_parser().parse_known_args(example[1:])
    assert callable(options.run)
    assert all(text.startswith("--") and "." in text for text in rest)


def test_svit_help_without_waiting_for_jax():
    code = (
        "import sys; from svit_jax.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print('jax' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("usage: svit") and found.stdout.endswith("False\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["data"],
        ["data", "fly"],
        ["train", "--config", "a.py"],
        ["chat", "--checkpoint", "run", "--colour", "red"],
        ["score", "--benchmark", "pope", "--predictions", "a", "--data", "b", "--data.train=c"],
        ["train", "--config", "a.py", "--workdir", "w", "--steps=3"],
        ["train", "--config", "a.py", "--workdir", "w", "train.steps=3"],
        ["train", "--config", "a.py", "--workdir", "w", "--train.steps", "3"],
        ["data", "generate", "--scenes", "a", "--out", "b", "--kinds", "poem"],
        ["data", "convert", "--out", "b"],
    ],
)
def test_usage_errors_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "usage: svit" in capsys.readouterr().err


def one_sentence(capsys) -> str:
    """The error's line; only a progress bar may stand before it."""
    printed = capsys.readouterr()
    assert not printed.out and "Traceback" not in printed.err
    bars, line = printed.err[:-1].rpartition("\n")[::2]
    assert all(text.lstrip().startswith("reading") for text in bars.split("\r") if text)
    assert line.startswith("svit: ") and printed.err.endswith("\n")
    return line


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["chat", "--checkpoint", "{tmp}/nothing"], "nothing"),
        (["chat", "--checkpoint", "{tmp}", "--top-p", "2"], "top_p=2.0"),
        (["train", "--config", "{tmp}/none.py", "--workdir", "{tmp}/w"], "none.py"),
        (["data", "shard", "--llava", "{tmp}/x.json", "--images", "{tmp}", "--out", "{tmp}/d",
          "--name", "d"], "x.json"),
        (["data", "convert", "--raw", "{tmp}", "--out", "{tmp}/o.json"], "--scenes"),
        (["data", "convert", "--raw", "{tmp}", "--scenes", "s", "--out", "o", "--limit", "poem=2"],
         "--limit poem=2"),
        (["data", "tokenizer", "--data", "{tmp}/d", "--out", "{tmp}/t.model"], "d"),
        (["score", "--benchmark", "pope", "--predictions", "a", "--data", "{tmp}/p"], "p"),
    ],
)  # fmt: skip
def test_user_errors_are_one_sentence_and_exit_1(arguments, named, tmp_path, capsys):
    assert main([text.format(tmp=tmp_path) for text in arguments]) == 1
    assert named in one_sentence(capsys)


def test_unknown_override_names_the_nearest(configs, tmp_path, capsys):
    arguments = ["train", "--config", f"{configs}/toy.py", "--workdir", str(tmp_path / "w")]
    assert main([*arguments, "--optim.learning_rat=1"]) == 1
    assert "the nearest is 'optim.learning_rate'" in one_sentence(capsys)
    assert not (tmp_path / "w").exists()


def test_interruption_exits_130(monkeypatch, configs, tmp_path, capsys):
    import svit_jax.config

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(svit_jax.config, "load_config", stop)
    arguments = ["train", "--config", f"{configs}/toy.py", "--workdir", str(tmp_path / "w")]
    assert main(arguments) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_train_of_a_finished_run_prints_its_last_metrics(trained, configs, tiny_data, capsys):
    from small_run import SMALL_RUN

    from svit_jax.training.telemetry import last_metrics

    arguments = [
        *("train", "--config", f"{configs}/svit_v1_5_7b_finetune.py:tiny"),
        *("--workdir", str(trained.workdir), "--json"),
        *(f"--{o}" for o in SMALL_RUN),
        *(f"--data.train={tiny_data.dataset}", f"--data.tokenizer={tiny_data.tokenizer}"),
    ]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["steps"]) == (6, 6)
    assert found["metrics"] == last_metrics(trained.workdir)
