"""lm-evaluation-harness over HTTP gives the scores that it gives on the same weights with transformers.

Its requests echo the prompt with one more token, whose entry it drops; where the model would stop, that is the end. It
also generates, with more stop strings than OpenAI takes and large batches, and asks the server to tokenize.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from steering_profiles.models import LoadedModel, ModelSource, load_model
from tests.builders import build_model
from tests.serving import serving

GENERATE = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
url, model, folder, out = sys.argv[1:]
tasks = TaskManager(include_path=folder, include_defaults=False)
texts = {}
for kind, route, backend, batch in (
    ("local-completions", "completions", "remote", 128), ("local-chat-completions", "chat/completions", None, 1)
):
    arguments = f"model={model},base_url={url}/v1/{route},tokenizer_backend={backend}"
    found = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=["local_texts"], task_manager=tasks, batch_size=batch, device="cpu",
        apply_chat_template=kind == "local-chat-completions",
    )
    texts[kind] = {sample["doc_id"]: sample["resps"][0][0] for sample in found["samples"]["local_texts"]}
with open(out, "w") as file:
    json.dump(texts, file)
"""
STOPS = ["a", "e", "i", "o", "u", "~"]
WORDS = ["apple", "river", "stone", "cloud", "green", "seven", "happy", "window", "table", "music", "garden", "winter"]
EVALUATE = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
weights, served, folder, out = sys.argv[1:]
tasks = TaskManager(include_path=folder, include_defaults=False)
result = {}
for model, arguments in (("hf", weights), ("local-completions", served)):
    found = lm_eval.simple_evaluate(
        model=model, model_args=arguments, tasks=["local_items"], task_manager=tasks, batch_size=4, device="cpu"
    )
    samples = found["samples"]["local_items"]
    scores = {sample["doc_id"]: [float(answer[0][0]) for answer in sample["resps"]] for sample in samples}
    result[model] = {"scores": scores, "accuracy": found["results"]["local_items"]["acc,none"]}
with open(out, "w") as file:
    json.dump(result, file)
"""


def write_task(folder: Path) -> None:
    """100 items of 2 to 5 options, some of which end where a text does."""
    rng = random.Random(0)
    items = []
    for number in range(100):
        count = rng.randint(2, 5)
        ends = [rng.choice(["", ".", "\n", " and so on."]) for _ in range(count)]
        items.append(
            {
                "question": f"Question {number}: which word comes after {rng.choice(WORDS)}? Answer:",
                "options": [f" {word}{end}" for word, end in zip(rng.sample(WORDS, count), ends, strict=True)],
                "answer": rng.randrange(count),
            }
        )
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "local_items",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "local_items.yaml").write_text(yaml.safe_dump(task))


def write_generation_task(folder: Path) -> None:
    """100 prompts whose answers end at one of six stop strings."""
    prompts = [{"question": f"{word} {number}"} for number, word in enumerate(WORDS * 9)][:100]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(item) + "\n" for item in prompts))
    task = {
        "task": "local_texts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "prompts.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "",
        "generation_kwargs": {"until": STOPS, "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "bypass"}],
    }
    (folder / "local_texts.yaml").write_text(yaml.safe_dump(task))


def run(program: str, arguments: list[str], folder: Path) -> dict:
    """Run ``program`` in a process of its own, without a network, and return the JSON that it writes."""
    out = folder / "result.json"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments, str(folder), str(out)],
        capture_output=True,
        text=True,
        timeout=280,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OPENAI_API_KEY": "none", **offline},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(out.read_text())


def compared(loaded: LoadedModel, folder: Path) -> tuple[dict, dict]:
    """Return the harness's scores with transformers and with the server."""
    weights, task = folder / "weights", folder / "task"
    task.mkdir()
    loaded.model.save_pretrained(weights)
    loaded.tokenizer.save_pretrained(weights)
    write_task(task)
    (folder / "profiles").mkdir()
    with serving(loaded, folder / "profiles") as url:
        address = f"base_url={url}/v1/completions,tokenizer={weights},tokenizer_backend=huggingface"
        served = f"model={loaded.name},{address},num_concurrent=8"
        found = run(EVALUATE, [f"pretrained={weights},dtype=float32", served], task)  # one process: it starts slowly
    return found["hf"], found["local-completions"]


def require_equal(theirs: dict, ours: dict) -> None:
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.01)
    assert len(theirs["scores"]) == 100
    for item, scores in theirs["scores"].items():
        assert ours["scores"][item] == pytest.approx(scores, abs=0.01), item
    assert all(score < 0 for scores in ours["scores"].values() for score in scores)


def test_it_generates_in_large_batches_with_many_stops_and_the_servers_tokenizer(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    write_generation_task(tmp_path)
    (tmp_path / "profiles").mkdir()
    with serving(loaded, tmp_path / "profiles") as url:
        texts = run(GENERATE, [url, loaded.name], tmp_path)
        plain = {"max_tokens": 12, "temperature": 0, "stop": STOPS}
        for item, text in texts["local-completions"].items():
            prompt = f"{WORDS[int(item) % len(WORDS)]} {item}"
            answer = httpx.post(f"{url}/v1/completions", json=plain | {"prompt": prompt}).json()
            assert text == answer["choices"][0]["text"]
        assert all(len(found) == 100 for found in texts.values())
        ended = [text for found in texts.values() for text in found.values() if not any(stop in text for stop in STOPS)]
        assert len(ended) >= 100


def test_a_model_that_would_often_stop_gets_the_scores_that_transformers_gives_it(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    with torch.no_grad():
        loaded.model.lm_head.weight[loaded.tokenizer.eos_token_id] *= 8
    require_equal(*compared(loaded, tmp_path))


@pytest.mark.slow
def test_the_real_model_gets_the_scores_that_transformers_gives_it(tmp_path: Path):
    require_equal(*compared(load_model(ModelSource(dtype="float32")), tmp_path))
