"""The strict loader of params.yaml: what a user gets wrong is named."""

from pathlib import Path

import pytest
from pydantic import RootModel, ValidationError

from flap.audio.config import AudioConfig
from flap.core.config import Section, load_section, read_params
from flap.core.errors import UserError


class Inner(Section):
    sizes: tuple[int, ...]


class Outer(Section):
    rate: float
    on: bool
    inner: Inner


class Many(RootModel[dict[str, Inner]]):
    """Sections by name."""


GOOD = "outer:\n  rate: 5e-5\n  on: true\n  inner: {sizes: [1, 2]}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_good_section_is_typed_and_frozen(tmp_path: Path) -> None:
    section = load_section(write(tmp_path, GOOD), "outer", Outer)
    assert section == Outer(rate=5e-5, on=True, inner=Inner(sizes=(1, 2)))
    with pytest.raises(ValueError, match="frozen"):
        section.rate = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rate:", "rat:"), r"unknown key 'outer.rat'; known keys: rate, on, inner"),
        (("rate:", "rat:"), r"key 'outer.rate' is missing"),
        (("sizes:", "size:"), r"unknown key 'outer.inner.size'"),
        (("true", "1"), r"key 'outer.on'.*\(got 1\)"),
        (("5e-5", "fast"), r"key 'outer.rate'.*\(got 'fast'\)"),
        (("[1, 2]", "[1, 2.5]"), r"key 'outer.inner.sizes.1'.*\(got 2.5\)"),
        (("outer:", "other:"), r"section 'outer' is missing"),
        (("outer:", "outer: ["), r"not valid YAML"),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        load_section(path, "outer", Outer)
    assert str(path) in str(caught.value)


def test_wrong_key_inside_a_map_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "many: {a: {sizes: []}, b: {sizes: [], more: 1}}")
    with pytest.raises(UserError, match=r"unknown key 'many.b.more'"):
        load_section(path, "many", Many)


def test_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's root"):
        load_section(tmp_path / "params.yaml", "outer", Outer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hop_ms", 0.0),
        ("hop_ms", 2000.0),
        ("frame_ms", 0.0),
        ("n_mels", 0),
        ("sample_rate_hz", 0),
        ("max_megabytes", float("inf")),
        ("max_seconds", float("nan")),
        ("max_seconds", 0.01),
    ],
)
def test_a_front_end_that_cannot_be_is_refused(key: str, value: float) -> None:
    values = read_params(Path(__file__).parents[1] / "params.yaml")["audio"]
    AudioConfig.model_validate(values)
    with pytest.raises(ValidationError):
        AudioConfig.model_validate(values | {key: value})
