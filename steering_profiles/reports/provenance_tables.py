"""Tables of a profile's provenance."""

import json
from collections.abc import Sequence

from pydantic import JsonValue

from steering_profiles.reports.report import Report
from steering_profiles.reports.tables import Cell, Column, Table
from steering_profiles.reports.text import number
from steering_profiles.store import content_hash

_LONG = 12
"""Maximum number of entries of a record that is not collapsed."""


def provenance_tables(report: Report) -> list[Table]:
    """Return the profile and its provenance, except long records, which :func:`long_facts` returns."""
    profile, model = report.profile, report.profile.model
    facts: list[tuple[str, str]] = [
        ("profile", profile.name),
        ("content hash", content_hash(profile)),
        ("method", profile.method),
        ("changes", profile.summary),
    ]
    if report.strength != 1:
        facts.append(("measured at strength", number(report.strength)))
    origin = profile.provenance
    if origin is not None:
        facts += [
            ("task", origin.task),
            ("seed", str(origin.seed)),
            ("splits", ", ".join(f"{split} {size}" for split, size in origin.split_sizes.items())),
            ("fitted by", origin.command),
            ("tool version", origin.tool_version),
        ]
        for name, record in _records(report):
            facts += [(f"{name}: {key}", _in_short(value)) for key, value in record.items() if not _is_long(value)]
    architecture = (
        f"{model.architecture}, {model.layers} layers of {model.heads} heads ({model.kv_heads} key-value heads of "
        f"{model.head_dim}) and {model.neurons} neurons, hidden size {model.hidden_size}, vocabulary of "
        f"{model.vocab_size} tokens"
    )
    identity = [("name", model.id), ("architecture", architecture), ("fingerprint", model.fingerprint)]
    return [_facts_table("The profile", facts), _facts_table("The model that the profile was fitted on", identity)]


def long_facts(report: Report) -> list[tuple[str, str]]:
    """Return the long entries of the provenance as ``(title, JSON text)``."""
    return [
        (f"{name}: {key} ({len(value)} entries)", _as_lines(value))
        for name, record in _records(report)
        for key, value in record.items()
        if isinstance(value, list | dict) and _is_long(value)
    ]


def _records(report: Report) -> list[tuple[str, dict[str, JsonValue]]]:
    origin = report.profile.provenance
    if origin is None:
        return []
    records = {
        "grid": origin.grid,
        "chosen": origin.chosen,
        "dev": origin.dev,
        "test": origin.test,
        "side effects": origin.side_effects,
    }
    return [(name, dict(record)) for name, record in records.items()]


def _is_long(value: JsonValue) -> bool:
    return isinstance(value, list | dict) and (len(value) > _LONG or len(_in_short(value)) > 200)


def _in_short(value: JsonValue) -> str:
    if isinstance(value, dict) and not any(isinstance(inner, list | dict) for inner in value.values()):
        return ", ".join(f"{key} {_in_short(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_lines(value: list[JsonValue] | dict[str, JsonValue]) -> str:
    """Return ``value`` as JSON with one entry per line."""
    if isinstance(value, list):
        return "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    entries = (
        f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for key, v in value.items()
    )
    return "{\n" + ",\n".join(entries) + "\n}"


def _facts_table(caption: str, facts: Sequence[tuple[str, str]]) -> Table:
    rows = tuple((Cell(name), Cell(value)) for name, value in facts if value)
    return Table(caption, (Column("", numeric=False), Column("", numeric=False, code=True)), rows)
