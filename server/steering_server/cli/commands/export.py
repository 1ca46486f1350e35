"""``steer export``: a profile as a checkpoint or a LoRA adapter, which other servers run."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.loading import open_model
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings

if TYPE_CHECKING:
    from steering_profiles.models import LoadedModel
    from steering_profiles.schema import Profile

FORMS = ("weights", "lora")

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM allows for ``--max-lora-rank``."""


def export(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or path of its .json file.")],
    form: Annotated[
        str,
        typer.Option(
            "--as", metavar="FORM", help="Form of the export: weights (a checkpoint) or lora (a PEFT adapter)."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to; it must be new or empty.")],
    folder: Annotated[
        Path | None,
        typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones."),
    ] = None,
    strength: Annotated[float, typer.Option(help="Strength of the exported profile.")] = 1.0,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere",
            help="Leave the profile's conditions out, so that all of its scales apply at every position.",
        ),
    ] = False,
    condition: Annotated[
        int | None,
        typer.Option(
            "--condition",
            metavar="N",
            help="With --everywhere, of a profile with scales under several conditions: export only those under the "
            "N-th, in the order of steer profiles NAME.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Export a profile that was made for another model, where the shapes permit.")
    ] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Export a profile for other servers: as a checkpoint or as a LoRA adapter.

    The form weights is the whole model with the profile folded in. The form
    lora is a small adapter, which many servers can apply per request. Both are
    written in the type that the model is loaded in (--dtype). Changes that they
    cannot express are refused: those of the final layer, those under a
    condition (--everywhere drops the conditions, and --condition exports the
    scales of one of several), and those of weights that stay quantised.

    [dim]steer export parentheses --everywhere --as lora --out parentheses-lora[/]
    """
    from steering_server.errors import ConfigError

    if form not in FORMS:
        raise ConfigError(f"as is {form!r}; allowed: {', '.join(FORMS)}")

    from steering_profiles.composition import ProfileAtStrength
    from steering_profiles.exportable import require_empty, require_exportable
    from steering_profiles.fields import strength_text
    from steering_profiles.store import find_profile
    from steering_server.config import load_model_source

    found = find_profile(profile, folder)
    exported = found if condition is None else _part(found, condition, everywhere=everywhere)
    left_out = exported.conditions if everywhere else ()
    applied = ProfileAtStrength(exported.everywhere() if left_out else exported, strength)
    require_exportable(applied)
    require_empty(out)
    source = load_model_source(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    require_writable_folder("--out", out)
    loaded = open_model(source)

    from steering_profiles.export import export_lora, export_weights

    write = export_weights if form == "weights" else export_lora
    with Console(stderr=True).status("writing"):
        write(loaded, applied.profile, out, strength, force=force)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"wrote {out}: {applied.profile.name} ({applied.profile.summary}) at strength {strength_text(strength)} "
        f"as {form}, {str(loaded.dtype).removeprefix('torch.')}, {_megabytes(out)}",
        markup=False,
    )
    for one in left_out:
        console.print(f"left out: the condition that {one}; the scales apply at every position", markup=False)
    if form == "lora":
        console.print(_how_to_serve(loaded, applied.profile, out), markup=False)


def _part(profile: "Profile", number: int, *, everywhere: bool) -> "Profile":
    """Return the part of a profile whose scales apply under its condition of this number, the first being 1."""
    from steering_server.errors import ConfigError

    if not everywhere:
        raise ConfigError("--condition is given without --everywhere; weights cannot test a condition")
    parts = profile.split()
    if not 1 <= number <= len(parts):
        wheres = ["everywhere" if part.when is None else f"where {part.when}" for part in parts]
        known = ", ".join(f"({place}) {where}" for place, where in enumerate(wheres, start=1))
        raise ConfigError(f"condition is {number}; profile {profile.name!r} has scales {known}")
    return parts[number - 1]


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"


def _how_to_serve(loaded: "LoadedModel", profile: "Profile", out: Path) -> str:
    base = loaded.model.name_or_path or loaded.name
    if Path(base).is_file():
        return "the model is a GGUF file; llama.cpp applies the adapter to it after the adapter is converted to GGUF"
    rank: int = json.loads((out / "adapter_config.json").read_text())["r"]
    enough = next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)
    if enough is None:
        others = "PEFT, transformers and llama.cpp any rank"
        return f"the rank is {rank}; vLLM serves adapters up to rank {VLLM_RANKS[-1]}, {others}"
    words = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{profile.name}={out}"]
    return f"to serve it per request: {shlex.join([*words, '--max-lora-rank', str(enough)])}"
