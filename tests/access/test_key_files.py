"""Files of keys: read by their owner only, never half written, and refused when they are something else."""

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from steering_server.access.key_files import added, edit_key_file, parse_keys, read_key_file, without
from steering_server.access.keyring import Keyring
from steering_server.access.keys import ApiKey, generate_secret, hash_secret
from steering_server.errors import ConfigError, Unauthorized


def key(name: str, secret: str | None = None, **fields: object) -> ApiKey:
    return ApiKey(name=name, sha256=hash_secret((secret or generate_secret()).encode()), **fields)


def add(path: Path, one: ApiKey) -> None:
    edit_key_file(path, lambda known: added(known, one))


def test_a_secret_has_43_random_characters_after_its_prefix():
    secrets = {generate_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("sk-steer-")
        assert len(secret.removeprefix("sk-steer-")) == 43


def test_the_file_can_be_read_by_its_owner_only_and_holds_no_secret(tmp_path: Path):
    path, secret = tmp_path / "new" / "keys.json", generate_secret()
    add(path, key("ci", secret))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    assert [one.name for one in read_key_file(path).keys] == ["ci"]


def test_what_is_written_is_what_is_read(tmp_path: Path):
    path, now = tmp_path / "keys.json", datetime.now(UTC)
    one = key(
        "ci",
        role="admin",
        created=now,
        expires=now + timedelta(days=1),
        profiles=("heads",),
        requests_per_minute=1,
        tokens_per_minute=2,
        max_sequences=3,
    )
    add(path, one)
    add(path, key("none", profiles=()))
    assert read_key_file(path).keys[0] == one
    assert read_key_file(path).keys[1].profiles == ()


def test_edits_from_many_threads_lose_no_key(tmp_path: Path):
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(path, key(f"key{number}")), range(40)))
    assert {one.name for one in read_key_file(path).keys} == {f"key{number}" for number in range(40)}
    assert {each.name for each in tmp_path.iterdir()} <= {"keys.json", ".keys.json.lock"}


def test_a_link_to_the_file_stays_a_link(tmp_path: Path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "keys.json")
    add(link, key("ci"))
    assert link.is_symlink()
    assert [one.name for one in read_key_file(tmp_path / "keys.json").keys] == ["ci"]


def test_a_name_is_used_once_and_only_a_known_one_is_revoked(tmp_path: Path):
    path = tmp_path / "keys.json"
    add(path, key("ci"))
    with pytest.raises(ConfigError, match="a key named ci already"):
        add(path, key("ci"))
    with pytest.raises(ConfigError, match="no key named 'cd'; known: ci"):
        edit_key_file(path, lambda known: without(known, "cd"))
    edit_key_file(path, lambda known: without(known, "ci"))
    assert read_key_file(path).keys == ()


NO_KEYS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "text": lambda: "sk-steer-123",
    "a list": lambda: "[]",
    "another version": lambda: '{"version": 2, "keys": []}',
    "an unknown field": lambda: json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "secret": "x"}]}),
    "a short hash": lambda: json.dumps({"keys": [{"name": "a", "sha256": "00"}]}),
    "a name with a line break": lambda: json.dumps({"keys": [{"name": "a\nb", "sha256": "0" * 64}]}),
    "two of one name": lambda: json.dumps({"keys": [{"name": "a", "sha256": c * 64} for c in "01"]}),
    "two of one secret": lambda: json.dumps({"keys": [{"name": n, "sha256": "0" * 64} for n in "ab"]}),
    "a time without a zone": lambda: json.dumps(
        {"keys": [{"name": "a", "sha256": "0" * 64, "expires": "2027-01-01T00:00:00"}]}
    ),
    "a pickle": lambda: "\x80\x04N.",
}


@pytest.mark.parametrize("content", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_file_of_keys_is_refused_in_one_line(tmp_path: Path, content: Callable[[], str]):
    path = tmp_path / "keys.json"
    path.write_text(content())
    with pytest.raises(ConfigError, match="is not a list of API keys") as caught:
        Keyring(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"there is no file .*; make it with: steer keys add"):
        Keyring(tmp_path / "keys.json")


def test_hashes_are_read_from_a_variable():
    one, other = key("ci"), key("ops", role="admin")
    listed = parse_keys(f" ci={one.sha256}, ops:admin=sha256:{other.sha256} ")
    assert listed.keys == (one, other)
    assert parse_keys(listed.model_dump_json()) == listed
    for wrong in ("ci", "ci=12", "=" + one.sha256, f"ci:root={one.sha256}", f"a b={one.sha256}"):
        with pytest.raises(ConfigError, match="API key hashes"):
            parse_keys(wrong)


def test_a_key_is_known_by_its_secret_until_it_expires(tmp_path: Path):
    path, now = tmp_path / "keys.json", datetime.now(UTC)
    add(path, key("ci", "one"))
    add(path, key("old", "two", expires=now))
    keyring = Keyring(path)
    assert keyring.authenticate(b"one").name == "ci"
    with pytest.raises(Unauthorized, match="the API key old has expired"):
        keyring.authenticate(b"two")
    for wrong in (b"", b"on", b"onee", b"\xff", hash_secret(b"one").encode()):
        with pytest.raises(Unauthorized, match="incorrect API key"):
            keyring.authenticate(wrong)


def test_a_changed_file_is_noticed_at_once(tmp_path: Path):
    path = tmp_path / "keys.json"
    add(path, key("ci", "one"))
    keyring = Keyring(path)
    for number in range(20):
        add(path, key(f"key{number}", f"secret{number}"))
        assert keyring.authenticate(f"secret{number}".encode()).name == f"key{number}"
    edit_key_file(path, lambda known: without(known, "ci"))
    with pytest.raises(Unauthorized):
        keyring.authenticate(b"one")


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), os.remove], ids=["damaged", "removed"])
def test_keys_stay_valid_while_their_file_cannot_be_read(tmp_path: Path, damage: Callable[[Path], object]):
    path = tmp_path / "keys.json"
    add(path, key("ci", "one"))
    keyring = Keyring(path)
    whole = path.read_bytes()
    damage(path)
    assert keyring.authenticate(b"one").name == "ci"
    with pytest.raises(Unauthorized):
        keyring.authenticate(b"two")
    path.write_bytes(whole)
    add(path, key("cd", "two"))
    assert keyring.authenticate(b"two").name == "cd"


def test_a_key_in_the_file_and_in_the_variable_is_refused(tmp_path: Path):
    path = tmp_path / "keys.json"
    add(path, key("ci"))
    with pytest.raises(ConfigError, match="ci is in the file and in the variable"):
        Keyring(path, parse_keys(f"ci={'0' * 64}"))
