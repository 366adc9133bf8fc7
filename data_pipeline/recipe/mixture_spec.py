"""What a mixture is made of, read from YAML: files, the parts of their rows, pictures."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file

SVIT_MIX_665K = Path(__file__).parent / "svit_mix_665k.yaml"
NO_PICTURE = "none"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Input:
    """A LLaVA-format file, and where it comes from."""

    file: str
    origin: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of one origin. Which rows of the file `input` they are, `fits` says.

    `rows` is their exact number, where it is known. `folder` is the first folder of their pictures'
    paths (`none`: they have no picture). One of the texts `says` stands in a question, in any case
    of letters. `leave_out`: the rows are recognised and counted, and not taken. Of parts that are
    counted `together` only the sum is checked.
    """

    name: str
    input: str
    rows: int | None = None
    folder: str | None = None
    says: tuple[str, ...] = ()
    most_questions: int | None = None
    leave_out: bool = False
    together: str | None = None

    def fits(self, folder: str, questions: tuple[str, ...]) -> bool:
        """Whether a row is of this part; `questions` are in lower case."""
        return (
            (self.folder is None or self.folder == folder)
            and (self.most_questions is None or len(questions) <= self.most_questions)
            and (not self.says or any(text in asked for text in self.says for asked in questions))
        )


@dataclasses.dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures: how many it should hold, where they come from, how known faults are
    mended."""

    pictures: int | None = None
    origin: str = ""
    mend: str = ""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`home` is the folder in which the inputs' files are looked for."""

    name: str
    inputs: dict[str, Input]
    parts: tuple[Part, ...]
    folders: dict[str, PictureFolder]
    home: epath.Path

    def folder_of(self, image: str) -> str:
        """The described folder that a picture's path starts with, else the one it lies in."""
        for folder in self.folders:
            if image.startswith(f"{folder}/"):
                return folder
        return image.rpartition("/")[0] or "."

    def files(self, given: Mapping[str, PathLike], home: PathLike | None) -> dict[str, epath.Path]:
        """The path for each input, and for each part that has a file of its own.

        `given` names inputs or parts; other inputs lie in `home` under their official names.
        Raises UserError for a name that is neither.
        """
        known = set(self.inputs) | {part.name for part in self.parts}
        for name in given:
            if name not in known:
                raise UserError(
                    f"mixture {self.name} has no input or part {name!r}; choose from: "
                    f"{', '.join(sorted(known))}."
                )
        root = self.home if home is None else epath.Path(home)
        paths = {name: root / entry.file for name, entry in self.inputs.items()}
        return paths | {name: epath.Path(path) for name, path in given.items()}


def read_mixture(path: PathLike = SVIT_MIX_665K) -> Mixture:
    """The mixture that a YAML file describes; without a path, SVIT-mix-665K.

    Raises UserError naming a key that is unknown, missing or of the wrong type.
    """
    found = require_file(path, "mixture")
    try:
        content = yaml.safe_load(found.read_text())
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())[:160]
        raise UserError(f"mixture {path} is not valid YAML: {detail}") from None
    top = _mapping(content, f"mixture {path}")
    unknown = sorted(set(top) - {"name", "inputs", "parts", "folders"})
    if unknown or not isinstance(top.get("parts"), list) or not isinstance(top.get("name"), str):
        raise UserError(
            f"mixture {path}: expected the keys name (text), inputs, parts (a list) and, if "
            f"wanted, folders; found {', '.join(map(str, top))}."
        )
    described = {
        key: _mapping(top.get(key) or {}, f"mixture {path}, {key}") for key in ("inputs", "folders")
    }
    mixture = Mixture(
        name=top["name"],
        inputs={
            name: _make(Input, entry, f"mixture {path}, input {name}")
            for name, entry in described["inputs"].items()
        },
        parts=tuple(
            _make(Part, entry, f"mixture {path}, part {number}")
            for number, entry in enumerate(top["parts"], start=1)
        ),
        folders={
            name: _make(PictureFolder, entry, f"mixture {path}, folder {name}")
            for name, entry in described["folders"].items()
        },
        home=found.parent if found != epath.Path(SVIT_MIX_665K) else epath.Path("."),
    )
    _check_names(mixture, path)
    return mixture


def _check_names(mixture: Mixture, path: PathLike) -> None:
    names = [part.name for part in mixture.parts]
    if len(set(names)) < len(names):
        raise UserError(f"mixture {path}: two parts have the same name; names are {names}.")
    for part in mixture.parts:
        if part.input not in mixture.inputs:
            raise UserError(
                f"mixture {path}, part {part.name}: there is no input {part.input!r}; "
                f"inputs are {', '.join(mixture.inputs)}."
            )


def _make(kind: type[T], entry: Any, place: str) -> T:
    values = {str(key): value for key, value in _mapping(entry, place).items()}
    if "from" in values:
        values["origin"] = values.pop("from")
    if isinstance(values.get("says"), list):
        values["says"] = tuple(str(text).lower() for text in values["says"])
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in fields:
            known = ", ".join("from" if name == "origin" else name for name in fields)
            raise UserError(f"{place} has the unknown key {key!r}; keys are {known}.")
        if not _is_a(value, fields[key].type):
            raise UserError(f"{place}: {key} is {value!r}; expected {fields[key].type}.")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{place} is incomplete: {error}.") from None


def _is_a(value: Any, wanted: Any) -> bool:
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple)
    return type(value) in (typing.get_args(wanted) or (wanted,))


def _mapping(content: Any, place: str) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{place}: expected keys with values, found {str(content)[:60]!r}.")
    return content
