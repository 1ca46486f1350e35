"""Folders of profiles with files of editors and operating systems: profiles are read, other files are ignored."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steering_profiles.errors import ProfileError, ProfileFormatError, ProfileNotFound
from steering_profiles.final_layer_fields import FinalLayer
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, content_hash, find_profile, load_profile, save_profile
from tests.library.examples import INTERCEPT, example

WITH_TENSORS = example(final_layer=FinalLayer(intercept_scale=1.0), tensors=INTERCEPT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one profile, which has tensors."""
    save_profile(WITH_TENSORS, tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return list(Catalogue.open(folder, shipped=False))


@pytest.mark.parametrize(
    "name",
    [
        "._example.json", ".#example.json", ".example.json", ".json", "._example.safetensors", ".DS_Store",
        "example.json~", "#example.json#", "example.json.bak", "example.json.partial", ".example.json.swp", "notes.txt",
        "~$example.json",
    ],
)  # fmt: skip
def test_files_of_editors_and_systems_are_ignored(folder: Path, name: str):
    (folder / name).write_bytes(b"\x00\x05\x16\x07 not JSON")
    assert names(folder) == ["example"]


def test_a_lock_file_of_an_editor_is_ignored(folder: Path):
    (folder / ".#example.json").symlink_to("somebody@somewhere.1234:5678")
    assert names(folder) == ["example"]


def test_a_folder_that_kubernetes_mounts_is_read_through_its_links(tmp_path: Path):
    save_profile(WITH_TENSORS, tmp_path / "..2024_05_01")
    (tmp_path / "..data").symlink_to("..2024_05_01")
    for name in ("example.json", "example.safetensors"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert names(tmp_path) == ["example"]


@pytest.mark.parametrize("name", ["example (1).json", "example copy.json", "Example.json", "example.bak.json"])
def test_a_copy_under_a_name_that_is_not_the_profiles_is_refused(folder: Path, name: str):
    shutil.copy(folder / "example.json", folder / name)
    shutil.copy(folder / "example.safetensors", (folder / name).with_suffix(".safetensors"))
    stem = name.removesuffix(".json").replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ProfileFormatError, match=f"name is 'example'; it must be the name of the file, '{stem}'"):
        names(folder)


def test_a_folder_named_like_a_profile_is_ignored(folder: Path):
    (folder / "other.json").mkdir()
    assert names(folder) == ["example"]


def test_a_link_to_nowhere_that_is_named_like_a_profile_is_refused(folder: Path):
    (folder / "other.json").symlink_to("nowhere")
    with pytest.raises(ProfileError, match=r"other\.json' cannot be read: No such file"):
        names(folder)


@pytest.mark.parametrize("suffix", [".JSON", ".Json"])
@pytest.mark.parametrize("beside", [".safetensors", ".SAFETENSORS", ".SafeTensors"])
def test_a_suffix_may_be_in_capitals(folder: Path, suffix: str, beside: str):
    path = (folder / "example.json").rename(folder / f"example{suffix}")
    (folder / "example.safetensors").rename(folder / f"example{beside}")
    entry = Catalogue.open(folder, shipped=False)["example"]
    assert (entry.path, entry.content_hash) == (path, content_hash(WITH_TENSORS))
    assert content_hash(find_profile(str(path), None)) == content_hash(WITH_TENSORS)


def test_the_error_names_both_files_of_one_profile(folder: Path):
    shutil.copy(folder / "example.json", folder / "example.JSON")
    with pytest.raises(
        ProfileFormatError, match=r"example\.JSON and example\.json are files of the same profile; keep one"
    ):
        names(folder)


def test_the_error_names_both_tensor_files_of_one_profile(folder: Path):
    shutil.copy(folder / "example.safetensors", folder / "example.SAFETENSORS")
    says = r"example\.SAFETENSORS and example\.safetensors are files of the same tensors of example\.json; keep one"
    with pytest.raises(ProfileFormatError, match=says):
        load_profile(folder / "example.json")


@pytest.mark.parametrize("profile", [example(), WITH_TENSORS], ids=["without tensors", "with tensors"])
def test_saving_a_profile_replaces_one_with_a_suffix_in_capitals(folder: Path, profile: Profile):
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix(file.suffix.upper()))
    save_profile(profile, folder)
    assert Catalogue.open(folder, shipped=False)["example"].content_hash == content_hash(profile)


@pytest.mark.parametrize(
    "rewrite",
    [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")],
    ids=["a mark of the encoding", "CRLF"],
)
def test_a_file_with_a_byte_order_mark_is_read(folder: Path, rewrite: Callable[[bytes], bytes]):
    path = folder / "example.json"
    path.write_bytes(rewrite(path.read_bytes()))
    assert content_hash(load_profile(path)) == content_hash(WITH_TENSORS)


@pytest.mark.parametrize("place", ["nowhere", "example.json"])
def test_a_path_that_is_not_a_folder_is_refused(folder: Path, place: str):
    with pytest.raises(ProfileNotFound, match=f"profiles folder '{folder / place}' is not a folder"):
        names(folder / place)
