"""A reader of a folder sees a whole profile or none, whenever it looks while one is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steering_profiles.errors import ProfileError
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash, delete_profile, load_profile, save_profile
from tests.library.examples import example


def with_tensors(value: float) -> Profile:
    tensors = {INTERCEPT_TENSOR: np.full(6, value, np.float32)}
    return example(final_layer=FinalLayer(intercept_scale=1.0), tensors=tensors)


OLD_AND_NEW = {
    "without tensors": (example(), example(description="new")),
    "gets tensors": (example(), with_tensors(1)),
    "loses tensors": (with_tensors(1), example()),
    "with others": (with_tensors(1), with_tensors(2)),
}


def at_each_step(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    """Call ``look`` after each change of the folder."""
    for change in ("replace", "unlink"):
        original = getattr(Path, change)

        def changed(path: Path, *args: Any, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            result = original(path, *args, **kwargs)
            look()
            return result

        monkeypatch.setattr(Path, change, changed)


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW.values(), ids=OLD_AND_NEW)
def test_no_moment_shows_parts_of_two_versions_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: Profile, new: Profile
):
    path = save_profile(old, tmp_path)
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append(content_hash(load_profile(path)))
        except ProfileError:
            seen.append("no valid profile")

    at_each_step(monkeypatch, look)
    save_profile(new, tmp_path)
    assert set(seen) <= {content_hash(old), content_hash(new), "no valid profile"}
    assert seen[-1] == content_hash(new)


@pytest.mark.parametrize(
    ("old", "new", "written"),
    [(old, new, written) for old, new in OLD_AND_NEW.values() for written in range(1 + bool(new.tensors))],
)
def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: Profile, new: Profile, written: int
):
    path = save_profile(old, tmp_path)
    files = sorted(tmp_path.iterdir())
    left = [True] * written

    def sync(_: int) -> None:
        if not left:
            raise OSError(28, "No space left on device")  # no test can fill the disk
        left.pop()

    monkeypatch.setattr("steering_profiles.writing.os.fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        save_profile(new, tmp_path)
    assert sorted(tmp_path.iterdir()) == files
    assert content_hash(load_profile(path)) == content_hash(old)


def test_a_deleted_profile_leaves_no_file_and_others_alone(tmp_path: Path):
    save_profile(with_tensors(1), tmp_path)
    save_profile(example(name="example2"), tmp_path)
    (tmp_path / "example.json").rename(tmp_path / "example.JSON")
    delete_profile("example", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["example2.json"]
    delete_profile("example", tmp_path)  # once more is no error
