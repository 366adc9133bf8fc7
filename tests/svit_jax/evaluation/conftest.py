"""A handful of questions in each benchmark's official file layout, with pictures."""

import json
from pathlib import Path

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
