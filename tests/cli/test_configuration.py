"""Settings as flags and environment variables, and errors that are reported before a model is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import ModelSource
from steering_profiles.store import save_profile
from steering_server.cli.opening import open_backend
from steering_server.config import ModelSettings, ServerSettings, load_model_source, load_settings
from steering_server.errors import ConfigError
from tests.builders import build_model, build_profile
from tests.cli.subprocesses import steer
from tests.families import build_family


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model folder without weights: a command that is refused for it did not read them."""
    loaded = build_model("llama")
    loaded.model.config.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_max_memory_is_the_same_as_variable_and_as_option(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_MAX_MEMORY", "cpu=20GiB, 0=10GiB")
    assert load_settings().max_memory == {"cpu": "20GiB", 0: "10GiB"}
    monkeypatch.delenv("STEER_MAX_MEMORY")
    assert load_settings(max_memory=["cpu=20GiB", "0=10GiB"]).max_memory == {"cpu": "20GiB", 0: "10GiB"}


def test_a_device_map_is_the_same_as_variable_and_as_option(monkeypatch: pytest.MonkeyPatch):
    for text, means in (("auto", "auto"), ('{"": 0}', {"": 0})):
        monkeypatch.setenv("STEER_DEVICE_MAP", text)
        assert load_settings().device_map == means
        monkeypatch.delenv("STEER_DEVICE_MAP")
        assert load_settings(device_map=text).device_map == means


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STEER_DEVICE_MAP", "{", "not JSON"),
        ("STEER_MAX_MEMORY", "cpu", "DEVICE=SIZE"),
        ("STEER_SHUTDOWN_GRACE", "-1", "shutdown_grace is '-1'"),
        ("STEER_SHUTDOWN_GRACE", "inf", "shutdown_grace is 'inf'"),
        ("STEER_KEEP_ALIVE", "0", "keep_alive is '0': input should be greater than 0"),
        ("STEER_KEEP_ALIVE", "-1", "keep_alive is '-1'"),
        ("STEER_KEEP_ALIVE", "nan", "keep_alive is 'nan'"),
        ("STEER_KEEP_ALIVE", "inf", "keep_alive is 'inf'"),
        ("STEER_KEEP_ALIVE", "soon", "keep_alive is 'soon'"),
        ("STEER_PREFIX_CACHE", "maybe", "prefix_cache is 'maybe'"),
        ("STEER_PROFILES_POLL", "-1", "profiles_poll is '-1'"),
        (
            "STEER_DEFAULT_PROFILE",
            "a@11",
            "default_profile is 'a@11': .* after @ is '11'; allowed: a number in -10..10",
        ),
        ("STEER_DEFAULT_PROFILE", "a@", "default_profile is 'a@': .* after @ is ''"),
        ("STEER_DEFAULT_PROFILE", "a@0", "default_profile is 'a@0': .*no steering"),
        ("STEER_DEFAULT_PROFILE", "baseline", "default_profile is 'baseline': .*no steering"),
        ("STEER_DEFAULT_PROFILE", "a+a", "default_profile is 'a.a': .*profile a is named twice"),
    ],
)
def test_a_variable_with_an_invalid_value_is_named(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says.replace("'", ".")):
        load_settings()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("STEER_PROT", "did you mean STEER_PORT"),
        ("steer_max_num_seq", "did you mean STEER_MAX_NUM_SEQS"),
        ("STEER_WARP", "known: STEER_MODEL, STEER_DTYPE"),
    ],
)
def test_an_unknown_variable_is_refused_and_similar_names_are_suggested(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"unknown environment variable {name}; .*{says}"):
        load_settings()


def test_commands_that_do_not_serve_load_the_same_model(monkeypatch: pytest.MonkeyPatch):
    values = {"model": "own", "dtype": "float32", "device_map": "auto", "max_memory": "cpu=1GiB", "cache_dir": "/cache"}
    assert values.keys() == ModelSettings.model_fields.keys()
    for name, value in values.items():
        monkeypatch.setenv(f"STEER_{name.upper()}", value)
    assert load_model_source() == load_settings().model_source
    assert load_model_source() == ModelSource("own", "float32", "auto", {"cpu": "1GiB"}, Path("/cache"))
    assert load_model_source(model="another").model == "another"


def test_commands_that_do_not_serve_ignore_the_settings_of_a_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_PORT", "none")
    assert load_model_source() == ModelSource()
    with pytest.raises(ConfigError, match="port is 'none'"):
        load_settings()


def test_commands_that_do_not_serve_refuse_a_misspelt_variable_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_MODLE", "own")
    with pytest.raises(ConfigError, match="unknown environment variable STEER_MODLE; did you mean STEER_MODEL"):
        load_model_source()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    default = load_settings()
    for name in ServerSettings.model_fields:
        monkeypatch.setenv(f"STEER_{name.upper()}", "")
    assert load_settings() == default


def test_variables_without_the_prefix_are_ignored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEERING_SERVER_PORT", "tcp://10.0.0.1:8000")
    load_settings()


def refused(*arguments: str, through: Sequence[str] = (), **env: str) -> str:
    """Run ``steer serve``, require one line of output and exit status 1, and return the line."""
    result = steer("serve", "--port", "0", *arguments, through=through, **env)
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "STEER_KV_CACHE_MEMORY",
            "1kB",
            "kv_cache_memory is 0 MiB, but the KV cache of one sequence of 512 tokens takes",
        ),
        ("STEER_MAX_MODEL_LEN", "513", "max_model_len is 513; model takes at most 512 tokens"),
        (
            "STEER_DEVICE_MAP",
            '{"nonesuch": "cpu"}',
            "the device map names 'nonesuch', which is not a part of the model",
        ),
        ("STEER_MAX_MEMORY", "cpu=1GiB", "max_memory needs an automatic device map"),
    ],
)
def test_settings_that_do_not_suit_the_model_are_refused_before_the_weights_are_read(
    bare: Path, variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises((ConfigError, ModelLoadError), match=says):
        open_backend(load_settings(model=str(bare)))


def test_a_family_that_the_engine_does_not_run_is_refused_before_the_weights_are_read(tmp_path: Path):
    loaded = build_family("falcon-rw")
    loaded.model.config.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"model cannot be served: .* computes attention by itself"):
        open_backend(load_settings(model=str(tmp_path / "model")))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model folder with weights."""
    loaded = build_model("llama")
    loaded.model.save_pretrained(tmp_path / "own")
    loaded.tokenizer.save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def refused_without_privileges(*arguments: str, **env: str) -> str:
    """The same, run as a user to whom file permissions apply; they do not apply to root."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return refused(*arguments, through=drop, **env)


@pytest.mark.parametrize("file", [".", "model.safetensors"])
def test_a_file_of_the_model_without_read_permission_is_named(own: Path, file: str):
    forbidden = own / file
    forbidden.chmod(0)
    line = refused_without_privileges("--model", str(own))
    forbidden.chmod(0o755)
    assert "ermission denied" in line
    assert (own / "config.json" if file == "." else forbidden).name in line
    assert str(own) in line


def test_a_profiles_folder_without_read_permission_is_refused_and_not_taken_as_empty(bare: Path, tmp_path: Path):
    (tmp_path / "profiles").mkdir(mode=0)
    line = refused_without_privileges("--model", str(bare), STEER_PROFILES=str(tmp_path / "profiles"))
    assert f"profiles folder '{tmp_path / 'profiles'}' cannot be read: Permission denied" in line


def test_a_cache_of_another_user_is_refused(tmp_path: Path):
    (tmp_path / "cache").mkdir(mode=0o555)
    line = refused_without_privileges("--cache-dir", str(tmp_path / "cache"))
    assert f"the model cache {tmp_path / 'cache'} cannot be written: Permission denied" in line


def test_an_unknown_variable_ends_the_command():
    assert "STEER_PROT" in refused(STEER_PROT="1")


def test_a_profile_for_another_model_is_refused_before_the_weights_are_read(bare: Path, tmp_path: Path):
    stranger = build_profile(build_model("llama", layers=2), "stranger", heads=[(0, 1, 2.0)])
    save_profile(stranger, tmp_path / "profiles")
    own = ["--model", str(bare), "--profiles", str(tmp_path / "profiles")]
    assert "'stranger' was made for tiny-llama, not for model: layers is 3 here, 2 in the profile" in refused(*own)
    assert "cannot load model" in refused(*own, "--force-profiles")  # the weights, which are not there


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "cache").write_text("a file, which root too cannot write into as a folder")
    assert f"the model cache {tmp_path / 'cache'} cannot be written" in refused("--cache-dir", str(tmp_path / "cache"))
