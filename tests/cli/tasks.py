"""Task files of users."""

import json
from pathlib import Path


def write_task(path: Path, lines: int = 30) -> Path:
    """A task file whose answers are single characters, with two unusable lines."""
    asked = [
        {"prompt": f"{index} is {'even' if index % 2 == 0 else 'odd'}: ", "answer": "yn"[index % 2]}
        for index in range(lines)
    ]
    unusable = ['{"prompt": "a", "answer": "two tokens"}', "not json"]
    path.write_text("\n".join([*map(json.dumps, asked), *unusable]) + "\n")
    return path
