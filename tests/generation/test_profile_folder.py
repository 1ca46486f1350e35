"""The folder of profiles is read once a change is complete."""

from pathlib import Path

from steering_profiles.store import Entry, content_hash, save_profile
from steering_server.generation.profile_folder import ProfileFolder
from steering_server.generation.profiles import ProfileCard
from tests.library.examples import example


def usable(entry: Entry) -> ProfileCard:
    return ProfileCard(entry, usable=True, forced=False, reason=None)


def test_a_file_that_is_still_being_written_is_not_read(tmp_path: Path):
    content = save_profile(example(), tmp_path / "elsewhere").read_bytes()
    folder, path = ProfileFolder(tmp_path, usable), tmp_path / "example.json"
    assert not folder.has_settled(), "nothing has changed"
    for end in (10, 50, len(content)):
        path.write_bytes(content[:end])
        assert not folder.has_settled(), "it has changed since the last look"
    assert folder.has_settled()
    read = folder.read({})
    assert (read.cards["example"].entry.content_hash, read.faults) == (content_hash(example()), {})
    assert not folder.has_settled(), "it has been read"


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path):
    save_profile(example(), tmp_path)
    folder = ProfileFolder(tmp_path, usable)
    first = folder.read({}).cards
    save_profile(example(name="other"), tmp_path)
    second = folder.read(first).cards
    assert sorted(second) == ["example", "other"]
    assert second["example"] is first["example"]
