"""``steer keys``, and the refusal of ``steer serve`` to serve others without keys."""

import json
import stat
from pathlib import Path

import pytest

from steering_server.access.key_files import read_key_file
from steering_server.access.keyring import Keyring
from steering_server.cli.access import is_loopback, open_gate
from steering_server.cli.listening import listen
from steering_server.config import load_settings
from steering_server.errors import ConfigError
from tests.cli.subprocesses import steer


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def test_a_key_is_printed_once_and_opens_the_server(file: str):
    made = steer("keys", "add", "ci", "--role", "admin", "--expires", "90d", "--profile", "parentheses", "--file", file)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("sk-steer-")
    assert secret not in Path(file).read_text()
    key = Keyring(Path(file)).authenticate(secret.encode())
    assert (key.name, key.role, key.profiles) == ("ci", "admin", ("parentheses",))
    assert key.expires is not None
    assert key.created is not None
    assert (key.expires - key.created).days == 90
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    listed = steer("keys", "list", "--file", file)
    assert "ci" in listed.stdout
    assert secret not in listed.stdout


def test_limits_are_kept_and_hashes_are_printed_for_the_variable(file: str):
    limits = ("--requests-per-minute", "1", "--tokens-per-minute", "2", "--max-sequences", "3", "--baseline-only")
    assert steer("keys", "add", "ci", *limits, "--file", file).returncode == 0
    (key,) = read_key_file(Path(file)).keys
    assert (key.requests_per_minute, key.tokens_per_minute, key.max_sequences, key.profiles) == (1, 2, 3, ())
    assert steer("keys", "list", "--hashes", "--file", file).stdout.strip() == f"ci={key.sha256}"


def test_a_revoked_key_is_gone(file: str):
    steer("keys", "add", "ci", "--file", file)
    assert steer("keys", "revoke", "ci", "--file", file).returncode == 0
    assert json.loads(Path(file).read_text())["keys"] == []
    again = steer("keys", "revoke", "ci", "--file", file)
    assert again.returncode == 1
    assert "no key named 'ci'; known: none" in again.stderr


WRONG = {
    "a name with a space": (["add", "a b"], "name is 'a b'"),
    "a name with a line break": (["add", "a\nb"], "name is"),
    "an unknown role": (["add", "a", "--role", "root"], "role is 'root': input should be 'user' or 'admin'"),
    "an end that is no date": (["add", "a", "--expires", "soon"], "--expires is 'soon'; it must be a date"),
    "an end in the past": (["add", "a", "--expires", "2020-01-01"], "which is over already"),
    "an end beyond the calendar": (["add", "a", "--expires", "99999d999"], "--expires is '99999d999'"),
    "no profile and some": (["add", "a", "--baseline-only", "--profile", "x"], "allows no profile"),
    "no such file": (["list"], "there is no file"),
}


@pytest.mark.parametrize(("words", "says"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_in_one_line(words: list[str], says: str, file: str):
    result = steer("keys", *words, "--file", file)
    assert result.returncode == 1
    assert says in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_are_served_with_keys_or_when_it_is_said_aloud(host: str, file: str):
    with listen(host, 0) as listener:
        with pytest.raises(ConfigError, match=r"others can reach, and there are no API keys: .* or say --insecure"):
            open_gate(load_settings(host=host), listener)
        assert not open_gate(load_settings(host=host, insecure=True), listener).anybody.is_admin
        steer("keys", "add", "ci", "--file", file)
        with_keys = open_gate(load_settings(host=host, api_keys_file=file), listener)
        assert not with_keys.anybody.is_admin


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_served_without_keys_as_an_admin(host: str):
    with listen(host, 0) as listener:
        assert is_loopback(listener)
        assert open_gate(load_settings(host=host), listener).anybody.is_admin


def test_serving_others_without_keys_ends_before_the_model_is_loaded():
    result = steer("serve", "--host", "0.0.0.0", "--port", "0")
    assert result.returncode == 1
    assert "there are no API keys" in result.stderr
