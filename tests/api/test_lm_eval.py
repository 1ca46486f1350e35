"""lm-evaluation-harness over HTTP gives the scores that it gives on the same weights with transformers.

Its requests echo the prompt with one more token, whose entry it drops; where the model would stop, that is the end.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from steering_profiles.models import LoadedModel, ModelSource, load_model
from tests.builders import build_model
from tests.serving import serving

WORDS = ["apple", "river", "stone", "cloud", "green", "seven", "happy", "window", "table", "music", "garden", "winter"]
EVALUATE = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
model, arguments, folder, out = sys.argv[1:]
tasks = TaskManager(include_path=folder, include_defaults=False)
found = lm_eval.simple_evaluate(
    model=model, model_args=arguments, tasks=["local_items"], task_manager=tasks, batch_size=4, device="cpu"
)
samples = found["samples"]["local_items"]
scores = {sample["doc_id"]: [float(answer[0][0]) for answer in sample["resps"]] for sample in samples}
with open(out, "w") as file:
    json.dump({"scores": scores, "accuracy": found["results"]["local_items"]["acc,none"]}, file)
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


def evaluated(model: str, arguments: str, folder: Path) -> dict:
    out = folder / f"{model}.json"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", EVALUATE, model, arguments, str(folder), str(out)],
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
    theirs = evaluated("hf", f"pretrained={weights},dtype=float32", task)
    (folder / "profiles").mkdir()
    with serving(loaded, folder / "profiles") as url:
        address = f"base_url={url}/v1/completions,tokenizer={weights},tokenizer_backend=huggingface"
        ours = evaluated("local-completions", f"model={loaded.name},{address},num_concurrent=8", task)
    return theirs, ours


def require_equal(theirs: dict, ours: dict) -> None:
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.01)
    assert len(theirs["scores"]) == 100
    for item, scores in theirs["scores"].items():
        assert ours["scores"][item] == pytest.approx(scores, abs=0.01), item
    assert all(score < 0 for scores in ours["scores"].values() for score in scores)


def test_a_model_that_would_often_stop_gets_the_scores_that_transformers_gives_it(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    with torch.no_grad():
        loaded.model.lm_head.weight[loaded.tokenizer.eos_token_id] *= 8
    require_equal(*compared(loaded, tmp_path))


@pytest.mark.slow
def test_the_real_model_gets_the_scores_that_transformers_gives_it(tmp_path: Path):
    require_equal(*compared(load_model(ModelSource(dtype="float32")), tmp_path))
