"""A handful of questions in each benchmark's official file layout, with pictures."""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture(path: Path, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path)


def _annotators(*answers: str) -> list[dict]:
    return [{"answer": answer, "answer_id": i + 1} for i, answer in enumerate(answers)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("VG_100K/1.jpg", "VG_100K/2.jpg", "COCO_val2014_000000000042.jpg"):
        _picture(folder / name)
    for name in (
        "train_images/ab01.jpg",
        "cd02.jpg",
        "VizWiz_val_00000000.jpg",
        "val/VizWiz_val_00000001.jpg",
    ):
        _picture(folder / name)
    for name in ("validation_Music_1", "validation_Math_2", "validation_Art_Theory_3"):
        _picture(folder / f"{name}.png")
    return folder


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    root = tmp_path / "benchmarks"
    for name in ("vqav2", "gqa", "pope", "mme", "referring", "textvqa", "vizwiz", "mmmu"):
        (root / name).mkdir(parents=True)
    (root / "vqav2" / "questions.json").write_text(
        json.dumps(
            {
                "data_subtype": "val2014",
                "questions": [
                    {
                        "question_id": 7,
                        "image_id": 1,
                        "image_file": "VG_100K/1.jpg",
                        "question": "What color is the ball?",
                        "novel_combination": True,
                    },
                    {"question_id": 8, "image_id": 42, "question": "Is it red?"},
                ],
            }
        )
    )
    (root / "vqav2" / "annotations.json").write_text(
        json.dumps(
            {
                "annotations": [
                    {
                        "question_id": 8,
                        "question_type": "is it",
                        "answer_type": "yes/no",
                        "multiple_choice_answer": "yes",
                        "answers": _annotators(*["yes"] * 10),
                    },
                    {
                        "question_id": 7,
                        "question_type": "what color is the",
                        "answer_type": "other",
                        "multiple_choice_answer": "red",
                        "answers": _annotators(*["red"] * 8, "dark red", "pink"),
                    },
                ]
            }
        )
    )
    (root / "gqa" / "questions.json").write_text(
        json.dumps(
            {
                "g1": {
                    "question": "Which color is the box?",
                    "imageId": "2",
                    "answer": "blue",
                    "types": {"detailed": "attrQuery", "structural": "query"},
                },
                "g2": {
                    "question": "Is there a cat?",
                    "imageId": "1",
                    "answer": "no",
                    "types": {"detailed": "exist", "structural": "verify"},
                },
            }
        )
    )
    labels = ["yes", "no", "yes", "no"]
    (root / "pope" / "coco_pope_random.json").write_text(
        "".join(
            json.dumps(
                {
                    "question_id": i + 1,
                    "image": "VG_100K/1.jpg",
                    "text": f"Is there a thing {i} in the image?",
                    "label": label,
                }
            )
            + "\n"
            for i, label in enumerate(labels)
        )
    )
    _write_mme(root / "mme")
    _write_scienceqa(root / "scienceqa", tmp_path / "images")
    _write_seedbench(root / "seedbench", tmp_path / "images")
    _write_mmbench(root / "mmbench" / "mmbench_dev_20230712.tsv")
    _write_mmbench(root / "mmbench_cn" / "mmbench_dev_cn_20231003.tsv")
    _write_textvqa(root / "textvqa")
    _write_vizwiz(root / "vizwiz")
    _write_mmmu(root / "mmmu")
    (root / "referring" / "questions.json").write_text(
        json.dumps(
            [
                {
                    "question_id": "r1",
                    "image": "VG_100K/1.jpg",
                    "text": "Where is the ball? Locate the objects with their coordinates.",
                    "boxes": [[0.1, 0.2, 0.5, 0.6]],
                },
                {
                    "question_id": "r2",
                    "image": "VG_100K/2.jpg",
                    "text": "Where is the box? Locate the objects with their coordinates.",
                    "boxes": [[0.5, 0.5, 1.0, 1.0]],
                },
            ]
        )
    )
    return root


def _write_mme(root: Path) -> None:
    def two_questions(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "Is there one ball? Please answer yes or no.\tYes\n"
            "Are there two balls?  Please answer yes or no.\tNo\n"
        )

    for name in ("a", "b"):
        _picture(root / "count" / f"{name}.png")
        two_questions(root / "count" / f"{name}.txt")
    _picture(root / "posters" / "images" / "p.jpg")
    two_questions(root / "posters" / "questions_answers_YN" / "p.txt")
    _picture(root / "code_reasoning" / "c.png")
    two_questions(root / "code_reasoning" / "c.txt")
    (root / "eval_tool" / "Your_Results").mkdir(parents=True)


def _write_scienceqa(root: Path, images: Path) -> None:
    def problem(question: str, choices: list[str], answer: int, **more: str) -> dict:
        row = {
            "question": question,
            "choices": choices,
            "answer": answer,
            "hint": "",
            "image": None,
        }
        return {**row, "subject": "natural science", "split": "test", **more}

    _picture(images / "11" / "image.png")
    _picture(images / "test" / "4" / "image.png")
    root.mkdir()
    problems = {
        "4": problem("Which is warmer?", ["ice", "steam"], 1, hint="Look.", image="image.png"),
        "5": problem("Left out?", ["yes", "no"], 0, split="train"),
        "7": problem("Which rhymes?", ["a", "b", "c", "d", "e"], 4, subject="language science"),
        "11": problem("Which is it?", ["fox", "owl", "elk"], 0, image="image.png"),
    }
    (root / "problems.json").write_text(json.dumps(problems))
    splits = {"train": ["5"], "test": ["11", "7", "4"]}
    (root / "pid_splits.json").write_text(json.dumps(splits))


def _write_seedbench(root: Path, images: Path) -> None:
    def row(key: str | int, dimension: int, answer: str, data_id: str) -> dict:
        choices = {"choice_a": "a cup", "choice_b": "a cat", "choice_c": "a hat", "choice_d": 4}
        return {
            **choices,
            "answer": answer,
            "data_id": data_id,
            "data_type": "video" if dimension == 10 else "image",
            "question": "What is on the table?",
            "question_id": key,
            "question_type_id": dimension,
        }

    # Official pictures have no suffix.
    (images / "SEED-Bench-image").mkdir(parents=True)
    (images / "SEED-Bench-image" / "1454426_2591111986").write_bytes(b"a picture")
    _picture(images / "SEED-Bench-video-image" / "9.png")
    root.mkdir()
    names = {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}
    questions = [
        row("101", 1, "B", "1454426_2591111986"),
        row("102", 1, "A", "1454426_2591111986"),
        row("103", 5, "D", "1454426_2591111986"),
        row(9, 10, "C", "77411.webm"),
    ]
    content = {"questions": questions, "question_type": names}
    (root / "SEED-Bench.json").write_text(json.dumps(content))


def _write_mmbench(path: Path) -> None:
    """Two questions, of four and of two options, each in all its rotations."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 240, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "png")
    encoded = base64.b64encode(picture.getvalue()).decode()
    columns = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image")
    columns += ("source", "l2-category", "comment", "split")

    def rotations(base: int, hint: str, question: str, texts: list[str], category: str) -> list:
        """The first text is the true one."""
        rows = []
        for k in range(len(texts)):
            turned = texts[-k:] + texts[:-k] if k else texts
            cells = [*turned, *[""] * (4 - len(texts))]
            answer = "ABCD"[turned.index(texts[0])]
            image = str(base) if k else encoded
            row = [base + k * 1_000_000, question, hint, *cells, answer, category, image]
            rows.append([*row, "toy", "level 2", "", "dev"])
        return rows

    path.parent.mkdir()
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, dialect="excel-tab")
        table.writerow(columns)
        table.writerows(
            rotations(7, "Look\ntwice.", 'Which "one"?', ["cow", "dog", "emu", "fox"], "identity")
        )
        table.writerows(rotations(241, "", "Is it wet?", ["wet", "dry"], "physical"))


def _write_textvqa(root: Path) -> None:
    rows = [
        ("ab01", 34602, "what does the USA sign say?", ["stop"] * 8 + ["stop sign", "go"]),
        ("cd02", 34603, "what number is it?", ["Five"] * 2 + ["5"] * 4 + ["6"] * 4),
    ]
    data = [
        {"image_id": image, "question_id": number, "question": question, "answers": answers}
        for image, number, question, answers in rows
    ]
    content = {"dataset_type": "val", "dataset_version": "0.5.1", "data": data}
    (root / "TextVQA_0.5.1_val.json").write_text(json.dumps(content))


def _write_vizwiz(root: Path) -> None:
    def row(number: int, question: str, kind: str, *answers: str) -> dict:
        return {
            "image": f"VizWiz_val_{number:08d}.jpg",
            "question": question,
            "answers": [{"answer": answer, "answer_confidence": "yes"} for answer in answers],
            "answer_type": kind,
            "answerable": int(kind != "unanswerable"),
        }

    rows = [
        row(0, "What is this?", "other", *["can"] * 7, "soup", "soup can", "unsuitable"),
        row(1, "Which one is it?", "unanswerable", *["unanswerable"] * 8, "left", "left"),
    ]
    (root / "val.json").write_text(json.dumps(rows))


def _write_mmmu(root: Path) -> None:
    rows = [
        {
            "id": "validation_Music_1",
            "question": "Which note is in <image 1>?",
            "options": "['C', \"D's flat\", 'E']",
            "answer": "B",
            "question_type": "multiple-choice",
        },
        {
            "id": "validation_Math_2",
            "question": "Find x in <image 1>.",
            "options": "[]",
            "answer": "['1/64', '0.016']",
            "question_type": "open",
        },
        {
            "id": "validation_Art_Theory_3",
            "question": "Who painted it? <image 1>",
            "options": "['Paul Klee', 'Joan Miró', 'Both of them', 'None']",
            "answer": "A",
            "question_type": "multiple-choice",
        },
    ]
    (root / "validation.json").write_text(json.dumps(rows))
