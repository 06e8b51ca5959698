"""Reading with TensorFlow: any RLDS data set through TFDS, ours or foreign. TensorFlow is imported here alone, and lazily.

TFDS trusts a data set's own files: it follows ``../`` and absolute paths in `filepathTemplate`, formats attribute access in
it, and imports any module that features.json names. So `validate` comes first.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from flywheel.core.errors import FlywheelError

_FEATURES = "tensorflow_datasets.core.features."
_CLASSES = {
    _FEATURES + name
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "dataset_feature.Dataset",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "translation_feature.Translation",
        "video_feature.Video",
    )
}
_PLACEHOLDERS = {"DATASET", "SPLIT", "FILEFORMAT", "SHARD_INDEX", "NUM_SHARDS", "SHARD_X_OF_Y"}
_DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMATS = {"tfrecord", "array_record"}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_DIGITS = re.compile(r"[0-9]{1,18}")
# Protocol buffers read both spellings of a field; one that `validate` does not look at must not carry anything.
_OTHER_SPELLINGS = {"python_class_name", "filepath_template", "shard_lengths", "file_format", "json_feature", "features_dict"}
_LARGEST_JSON = 64 << 20
_DEEPEST = 64


def load(path: Path) -> Any:
    """A `tfds.core.DatasetBuilder` for a data set folder; ``load(path).as_dataset(split="train")`` yields RLDS episodes.

    Raises `FlywheelError` if the folder is no TFDS data set or one that is not safe to read.
    """
    validate(path)
    return importlib.import_module("tensorflow_datasets").builder_from_directory(str(path))


def transformations() -> ModuleType:
    """The module `rlds.transformations`, importable without reverb.

    rlds imports reverb, which exists for TensorFlow up to 2.15 only (github.com/google-research/rlds, issue 6), and needs it for
    nothing but `rlds.transformations.pattern`. So it finds a placeholder while it is imported, which is removed right after.
    """
    if "rlds" in sys.modules or importlib.util.find_spec("reverb") is not None:
        return importlib.import_module("rlds.transformations")
    sys.modules["reverb"] = _Placeholder("reverb")
    try:
        return importlib.import_module("rlds.transformations")
    finally:
        del sys.modules["reverb"]


def validate(path: Path) -> None:
    """Refuse, with a `FlywheelError`, a data set that would make TFDS read outside its folder or import what is not TFDS's."""
    info = _read_json(path / "dataset_info.json")
    name, suffix, splits = info.get("name"), info.get("fileFormat", "tfrecord"), info.get("splits", [])
    if not isinstance(name, str) or not _WORD.fullmatch(name):
        raise _refuse(path, f"its name is {name!r}")
    if suffix not in _FORMATS:
        raise _refuse(path, f"its file format is {suffix!r}, and only {sorted(_FORMATS)} are read")
    if not isinstance(splits, list) or not splits:
        raise FlywheelError(f"The data set {path} holds no episodes yet; TFDS reads it once a first shard is sealed.")
    for split in splits:
        for file in _files(path, name, suffix, split):
            _check_inside(path, file)
    features = _read_json(path / "features.json")
    classes = [*_classes(path, features, 0), *_classes(path, info, 0)]
    if not classes:
        raise _refuse(path, "its features.json names no features")


def shard_files(path: Path) -> dict[str, list[tuple[Path, int]]]:
    """The shards of each split of a data set that `validate` has passed, with their numbers of records."""
    info = _read_json(path / "dataset_info.json")
    found = {}
    for split in info["splits"]:
        files = _files(path, info["name"], info.get("fileFormat", "tfrecord"), split)
        found[split["name"]] = [
            (path / file, int(count)) for file, count in zip(files, split.get("shardLengths", []), strict=True)
        ]
    return found


def _files(path: Path, name: str, suffix: str, split: Any) -> Iterator[str]:
    """The file names that TFDS will read for a split."""
    if not isinstance(split, dict):
        raise _refuse(path, "a split is no JSON object")
    title, template, lengths = split.get("name"), split.get("filepathTemplate", _DEFAULT_TEMPLATE), split.get("shardLengths", [])
    if not isinstance(title, str) or not _WORD.fullmatch(title):
        raise _refuse(path, f"a split's name is {title!r}")
    if not isinstance(lengths, list) or not all(
        isinstance(count, str | int) and _DIGITS.fullmatch(str(count)) for count in lengths
    ):
        raise _refuse(path, f"the shardLengths of {title} are no numbers")
    _check_template(path, template)
    digits = max(5, len(str(len(lengths))))
    for number in range(len(lengths)):
        shard, total = f"{number:0{digits}d}", f"{len(lengths):0{digits}d}"
        yield template.format(
            DATASET=name, SPLIT=title, FILEFORMAT=suffix, SHARD_INDEX=shard, NUM_SHARDS=total, SHARD_X_OF_Y=f"{shard}-of-{total}"
        )


def _check_template(path: Path, template: Any) -> None:
    """Allow the plain placeholders and plain relative file names, nothing else that `str.format` can do."""
    try:
        parts = list(string.Formatter().parse(template))
    except (ValueError, TypeError):
        raise _refuse(path, f"its filepathTemplate is {template!r}") from None
    for literal, placeholder, form, conversion in parts:
        plain = placeholder is None or (placeholder in _PLACEHOLDERS and not form and conversion is None)
        if not plain or not re.fullmatch(r"[A-Za-z0-9_.\-/]*", literal):
            raise _refuse(path, f"its filepathTemplate is {template!r}")


def _check_inside(path: Path, file: str) -> None:
    relative = PurePosixPath(file)
    inside = not relative.is_absolute() and ".." not in relative.parts
    if not inside or not (path / file).resolve().is_relative_to(path.resolve()):
        raise _refuse(path, f"it would read {file}, which is outside")


def _classes(path: Path, value: Any, depth: int) -> Iterator[str]:
    """Every class that a JSON value names, also within JSON in strings; refuses those that are not TFDS's own features."""
    if depth > _DEEPEST:
        raise _refuse(path, "its features are nested too deeply")
    if isinstance(value, list):
        for item in value:
            yield from _classes(path, item, depth + 1)
    if not isinstance(value, dict):
        return
    if _OTHER_SPELLINGS & value.keys():
        raise _refuse(path, f"it uses {sorted(_OTHER_SPELLINGS & value.keys())}")
    for key, item in value.items():
        named = key == "pythonClassName" or (key == "type" and isinstance(item, str))
        if named and item not in _CLASSES:
            raise _refuse(path, f"it names the class {item!r}, which is none of TFDS's own features")
        if named:
            yield item
        inner = _parse(path, item) if key in ("content", "json") and isinstance(item, str) else item
        yield from _classes(path, inner, depth + 1)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise _refuse(file.parent, f"{file.name} is larger than {_LARGEST_JSON >> 20} MiB")
        text = file.read_text()
    except OSError:
        raise FlywheelError(f"There is no TFDS data set at {file.parent}: {file.name} cannot be read.") from None
    except UnicodeDecodeError:
        raise _refuse(file.parent, f"{file.name} is no text") from None
    value = _parse(file.parent, text)
    if not isinstance(value, dict):
        raise _refuse(file.parent, f"{file.name} is no JSON object")
    return value


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _refuse(path, "its JSON cannot be read") from None


def _refuse(path: Path, reason: str) -> FlywheelError:
    return FlywheelError(f"The data set {path} is refused: {reason}. Do not open it with TFDS; get it from a source you trust.")


class _Placeholder(ModuleType):
    """Stands for a module of which only names in annotations are used."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name)

    def __call__(self) -> None:
        """Annotations in `typing` must be callable."""
