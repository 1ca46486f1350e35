"""``steer export``: a profile in a form that other servers run, with nothing of ours installed."""

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
"""What vLLM takes as ``--max-lora-rank``."""


def export(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or path of its .json file.")],
    form: Annotated[str, typer.Option("--as", metavar="FORM", help="weights (a checkpoint) or lora (a PEFT adapter).")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to: a new one, or an empty one.")],
    folder: Annotated[
        Path | None, typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles.")
    ] = None,
    strength: Annotated[float, typer.Option(help="Strength at which it is exported.")] = 1.0,
    force: Annotated[bool, typer.Option(help="Export it although it was made for another model.")] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Write a profile in a form that other servers run.

    As weights it is the whole model, steered for good. As lora it is a small
    adapter, which a server that takes LoRA adapters applies per request. Both
    are written in the type that the model is loaded in, see --dtype. What
    they cannot carry (final-layer effects, quantised weights) is refused.

    [dim]steer export parentheses --as lora --out parentheses-lora[/]
    """
    from steering_server.errors import ConfigError

    if form not in FORMS:
        raise ConfigError(f"as is {form!r}; allowed: {', '.join(FORMS)}")

    from steering_profiles.composition import ProfileAtStrength
    from steering_profiles.exportable import require_empty, require_exportable
    from steering_profiles.schema import strength_text
    from steering_profiles.store import find_profile
    from steering_server.config import load_model_source

    applied = ProfileAtStrength(find_profile(profile, folder), strength)
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
    if form == "lora":
        console.print(_how_to_serve(loaded, applied.profile, out), markup=False)


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"


def _how_to_serve(loaded: "LoadedModel", profile: "Profile", out: Path) -> str:
    base = loaded.model.name_or_path or loaded.name
    if Path(base).is_file():
        return "its model is a GGUF file: llama.cpp applies the adapter to it once that is converted to GGUF too"
    rank: int = json.loads((out / "adapter_config.json").read_text())["r"]
    enough = next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)
    if enough is None:
        return f"its rank is {rank}; vLLM serves adapters up to {VLLM_RANKS[-1]}, PEFT, transformers and llama.cpp any"
    words = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{profile.name}={out}"]
    return f"served per request by, for example: {shlex.join([*words, '--max-lora-rank', str(enough)])}"
