"""Mistakes on the command line end it with one line that names them."""

import socket

import pytest

from tests.cli.subprocesses import steer, steer_and_tell

WRONG = {
    "no such model": (["serve", "--model", "./nowhere/model"], "'./nowhere/model' does not exist"),
    "no such profiles folder": (["serve", "--profiles", "./nowhere"], "nowhere"),
    "unknown dtype": (["serve", "--dtype", "int3"], "dtype is 'int3'"),
    "KV cache memory in no known unit": (["serve", "--kv-cache-memory", "5XB"], "kv_cache_memory is '5XB'"),
    "memory without a size": (["serve", "--max-memory", "cpu"], "DEVICE=SIZE"),
    "a device map that is no JSON": (["serve", "--device-map", "{"], "not JSON"),
    "a limit of memory that nothing looks at": (
        ["evaluate", "parentheses", "--max-memory", "cpu=1GiB"],
        "max_memory needs an automatic device map",
    ),
    "a limit of memory that is no size": (
        ["explain", "--device-map", "auto", "--max-memory", "cpu=lots"],
        "max_memory of cpu is 'lots'",
    ),
    "no such model to fit": (["fit", "parentheses", "--out", ".", "--model", "./nowhere/model"], "does not exist"),
    "no such model to look at": (["anatomy", "./nowhere.gguf"], "model file './nowhere.gguf' does not exist"),
    "no such model to compare": (["compare", "x", "--model", "./nowhere/model"], "'./nowhere/model' does not exist"),
    "unknown dtype for what is not served": (["reproduce", "--dtype", "int3"], "dtype is 'int3'"),
    "a ridge that is none": (["explain", "--ridge", "nan"], "ridge is nan; allowed: finite numbers from 0"),
    "unknown form of export": (["export", "parentheses", "--as", "gguf", "--out", "new"], "as is 'gguf'; allowed: "),
    "a profile that weights cannot carry": (
        ["export", "factual-recall", "--as", "lora", "--out", "new"],
        "cannot be exported: weights can express only scales of heads and neurons",
    ),
    "an export with a condition": (
        ["export", "parentheses", "--as", "lora", "--out", "new"],
        "which are tested token by token (--everywhere leaves them out)",
    ),
    "a folder to export to that is not empty": (
        ["export", "parentheses", "--everywhere", "--as", "lora", "--out", "."],
        "not empty",
    ),
    "a condition that the profile does not have": (
        ["export", "parentheses", "--everywhere", "--condition", "3", "--as", "lora", "--out", "new"],
        "condition is 3; profile 'parentheses' has scales (1) where",
    ),
    "nowhere to write": (["fit", "parentheses", "--out", "/dev/null/x"], "a folder that cannot be written to"),
    "unknown task": (["fit", "poetry", "--out", "."], "known tasks: parentheses"),
    "no task": (["fit", "--out", "."], "neither is given"),
    "two tasks": (["fit", "parentheses", "--task", "arithmetic", "--out", "."], "'parentheses' and 'arithmetic'"),
    "no such file of prompts": (["fit", "--task", "nowhere.jsonl", "--out", "."], "nowhere.jsonl"),
    "unknown method": (["fit", "parentheses", "--out", ".", "--method", "luck"], "stepwise, paper, circuit, random"),
    "an option of another method": (
        ["fit", "parentheses", "--out", ".", "--lambda", "0.1"],
        "--lambda has no effect with method stepwise",
    ),
    "an option of the grid for a search that has none": (
        ["fit", "parentheses", "--out", ".", "--alpha", "1.5"],
        "--alpha has no effect with method stepwise",
    ),
    "an option of the stepwise search for another": (
        ["fit", "parentheses", "--out", ".", "--method", "paper", "--max-scale", "2"],
        "--max-scale has no effect with method paper",
    ),
    "a limit of losses for a search of a grid": (
        ["fit", "parentheses", "--out", ".", "--method", "paper", "--max-lost", "2"],
        "--max-lost has no effect with method paper",
    ),
    "turns for the final layer": (
        ["fit", "capitals", "--out", ".", "--conditions", "--in-turn"],
        "--in-turn has no effect with method final-layer",
    ),
    "conditions without a limit of losses": (
        ["fit", "parentheses", "--out", ".", "--conditions"],
        "--conditions is given without --max-lost",
    ),
    "conditions of a task that has none": (
        ["fit", "capitals-1-shot", "--out", ".", "--conditions"],
        "task capitals-1-shot has none; leave --conditions out",
    ),
    "settings for sub-tasks that nothing tells apart": (
        ["fit", "arithmetic", "--out", ".", "--method", "final-layer", "--per-group"],
        "task arithmetic has no conditions that tell which sub-task a prompt belongs to; leave --per-group out",
    ),
    "settings for each sub-task of another method": (
        ["fit", "parentheses", "--out", ".", "--per-group"],
        "--per-group has no effect with method stepwise",
    ),
    "a gate for each sub-task": (
        ["fit", "capitals", "--out", ".", "--per-group", "--gates"],
        "--gates has no effect with method final-layer with --per-group",
    ),
    "positions for each sub-task": (
        ["fit", "capitals", "--out", ".", "--per-group", "--positions", "all"],
        "--positions has no effect with method final-layer with --per-group",
    ),
    "the final layer for whole answers": (
        ["fit", "arithmetic-whole", "--out", ".", "--method", "final-layer"],
        "method final-layer looks at the next token only, and task arithmetic-whole asks for whole answers",
    ),
    "calibration of whole answers": (
        ["evaluate", "parentheses", "--task", "arithmetic-whole", "--calibration"],
        "--calibration looks at the next token only, and task arithmetic-whole asks for whole answers",
    ),
    "an explanation of whole answers": (
        ["explain", "--task", "arithmetic-whole"],
        "an explanation looks at the next token only, and task arithmetic-whole asks for whole answers",
    ),
    "a margin for a search of a grid": (
        ["fit", "parentheses", "--out", ".", "--method", "paper", "--margin", "2"],
        "--margin has no effect with method paper",
    ),
    "a margin that every answer has": (["fit", "parentheses", "--out", ".", "--margin", "0"], "margin is 0"),
    "turns without conditions": (
        ["fit", "parentheses", "--out", ".", "--max-lost", "2", "--in-turn"],
        "--in-turn is given without --conditions",
    ),
    "a limit of losses that is no share": (
        ["fit", "parentheses", "--out", ".", "--max-lost", "-1"],
        "max lost is -1; allowed: percentage points, 0..100",
    ),
    "an option of a method for facts": (["fit", "capitals", "--out", ".", "--k", "5"], "--k has no effect with method"),
    "attention out of range": (
        ["fit", "capitals", "--out", ".", "--self-only-attention", "2"],
        "self-only attention is 2",
    ),
    "unknown intercept": (["fit", "capitals", "--out", ".", "--intercept", "median"], "regression, mean"),
    "unknown components": (["fit", "parentheses", "--out", ".", "--components", "all"], "heads, neurons, both"),
    "a scale too small to search": (["fit", "parentheses", "--out", ".", "--max-scale", "1"], "max scale is 1"),
    "neurons by patching": (
        ["fit", "parentheses", "--out", ".", "--method", "circuit", "--components", "both"],
        "it takes no neurons",
    ),
    "a model of no published figures": (["reproduce", "BERT"], "model is 'BERT', for which the paper has no figures"),
    "unknown metric": (["fit", "parentheses", "--out", ".", "--metric", "luck"], "f1, recall, precision"),
    "a name no profile may have": (["fit", "parentheses", "--out", ".", "--name", "A+B"], "name is 'A+B'"),
    "problems for programs that are not to be run": (
        ["evaluate", "parentheses", "--humaneval-problems", "3"],
        "--run-humaneval",
    ),
    "a task whose prompts cannot be counted": (
        ["evaluate", "factual-recall", "--exhaustive"],
        "whose prompts cannot all be listed; allowed: parentheses",
    ),
    "unknown profile": (["evaluate", "nope"], "known profiles: factual-recall, parentheses"),
    "unknown profile to show": (["profiles", "nope"], "known profiles: factual-recall, parentheses"),
    "unknown profile to export": (["export", "nope", "--as", "lora", "--out", "new"], "known profiles: factual-recall"),
    "unknown profile to compare": (["compare", "x", "--arms", "baseline,parentheses+nope"], "no profile named 'nope'"),
    "a profile file that is not there": (["evaluate", "./nope.json"], "nope.json"),
    "strength out of range": (["evaluate", "parentheses", "--strength", "nan"], "-10..10"),
    "no server there": (["compare", "x", "--url", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1"),
    "a model for a running server": (["compare", "x", "--url", "http://h", "--model", "m"], "--url asks a running"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_an_error_is_one_line_with_exit_status_one_before_torch_is_imported(arguments: list[str], says: str):
    result, loaded = steer_and_tell(*arguments)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert says in result.stderr
    assert not loaded


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "parentheses", "--out", ".", "--nope"], "No such option: --nope"),
        (["fit", "parentheses"], "Missing option '--out'"),
        (["fit", "parentheses", "--out", ".", "--k", "many"], "Invalid value for '--k'"),
        (["serve", "--port", "70000"], "Invalid value for '--port'"),
        (["poetry"], "No such command 'poetry'"),
    ],
)
def test_a_usage_error_has_exit_status_two_before_torch_is_imported(arguments: list[str], says: str):
    result, loaded = steer_and_tell(*arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert not loaded


def test_too_little_memory_for_one_sequence_is_an_error_of_one_line():
    result = steer("serve", "--kv-cache-memory", "10MiB", "--dtype", "bfloat16", "--port", "0")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "sequence of 8192 tokens takes 180 MiB" in line


def test_a_wrong_variable_is_named():
    result = steer("serve", STEER_MAX_NUM_SEQS="none")
    assert result.returncode == 1
    assert "max_num_seqs is 'none'" in result.stderr


def test_a_port_in_use_is_reported_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = steer("serve", "--port", str(taken.getsockname()[1]), "--model", "./nowhere/model")
    assert result.returncode == 1
    assert "cannot listen on 127.0.0.1 port" in result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "ftp://host", "http://host:port"])
def test_an_invalid_url_is_an_error_of_one_line_that_says_what_is_expected(url: str):
    result = steer("compare", "x", "--url", url)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: base URL is '{url}'; expected is http://HOST:PORT")
