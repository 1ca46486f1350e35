"""Device maps: completed and checked before a model is loaded."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from steering_profiles.source import AUTOMATIC, require_limits

DISK = "disk"
_NOT_COMPUTING = ("cpu", DISK)  # if there is an accelerator

Device = int | str


def explicit_map(model: PreTrainedModel, device_map: str | Mapping[str, Device]) -> dict[str, Device]:
    """Return a complete device map of ``model``, in which no part is inside another.

    ``device_map`` may be one device, or a map with nested parts, which accelerate does not accept: ``{"": "cpu",
    "model.layers.3": "disk"}`` puts everything on the CPU except for one layer.

    Raises:
        ValueError: the map names a device or a part that does not exist, has no device for a part, or puts parts of
            one layer on different accelerators.
    """
    asked = {"": device_map} if isinstance(device_map, str) else device_map
    given = {part: _number(device) for part, device in asked.items()}
    parts = dict(model.named_modules())
    for part, device in given.items():
        _require_device(device)
        if part not in parts:
            raise ValueError(
                f"the device map names {part!r}, which is not a part of the model; examples of its parts: "
                f"{', '.join(_examples(model))}"
            )
    whole = dict(_disjoint("", model, given, given.get("")))
    _require_whole_layers(model, whole)
    return whole


def require_max_memory(max_memory: Mapping[Device, str], device_map: str | Mapping[str, Device] | None) -> None:
    """Check memory limits.

    Raises:
        ValueError: the device map is not automatic (others do not use the limits), a device does not exist, or a size
            is invalid.
    """
    require_limits(max_memory, device_map)
    for device in max_memory:
        _require_device(device)


def device_of(tensor: str, whole: Mapping[str, Device]) -> Device:
    """Return the device of the weight named ``tensor`` in a map from :func:`explicit_map`."""
    part = tensor
    while part not in whole:
        part = part.rpartition(".")[0]
    return whole[part]


def _number(device: Device) -> Device:
    return int(device) if isinstance(device, str) and device.isdecimal() else device


def _disjoint(
    path: str, module: nn.Module, given: Mapping[str, Device], inherited: Device | None
) -> Iterator[tuple[str, Device]]:
    """Yield the largest parts of ``module`` that are on one device, with their devices."""
    inside = f"{path}." if path else ""
    # Computed buffers that are not stored, such as rotary frequencies, may be left out.
    stored = module.state_dict()
    if not any(part != path and part.startswith(inside) for part in given):
        if inherited is not None:
            yield path, inherited
        elif stored:
            part = path or next(iter(stored))
            raise ValueError(
                f"the device map has no device for {part}; an entry for '' applies to all parts without one"
            )
        return
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if inherited is not None:
            yield f"{inside}{name}", inherited
        elif name in stored:
            raise ValueError(f"the device map has no device for {inside}{name}")
    for name, child in module.named_children():
        yield from _disjoint(f"{inside}{name}", child, given, given.get(f"{inside}{name}", inherited))


def _require_device(device: Device) -> None:
    """Check that a device exists.

    Raises:
        ValueError: it does not; the message has the devices that exist.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator is not None else 0
    if not _exists(device, accelerator, count):
        kind = "none" if accelerator is None else accelerator.type
        known = ["cpu", DISK, *map(str, range(count))]
        raise ValueError(
            f"device {device!r} does not exist; this machine has {', '.join(known)} (numbers are accelerators, of type "
            f"{kind}); a device map can also be {' or '.join(AUTOMATIC)}"
        )


def _exists(device: Device, accelerator: torch.device | None, count: int) -> bool:
    if isinstance(device, int):
        return not isinstance(device, bool) and 0 <= device < count
    if device in _NOT_COMPUTING:
        return True
    try:
        named = torch.device(device)
    except RuntimeError:
        return False
    return accelerator is not None and named.type == accelerator.type and (named.index or 0) < count


def _require_whole_layers(model: PreTrainedModel, whole: Mapping[str, Device]) -> None:
    """Check that all parts of a layer compute on one device, because they add to each other's results.

    Raises:
        ValueError: a layer has parts on several accelerators.
    """
    if len({str(device) for device in whole.values() if device not in _NOT_COMPUTING}) < 2:
        return  # parts on the CPU or on disk compute on the only accelerator
    for path, module in model.named_modules():
        devices = {str(device) for part, device in whole.items() if part.startswith(f"{path}.")}
        if type(module).__name__ in (model._no_split_modules or ()) and len(devices) > 1:
            raise ValueError(
                f"the device map puts parts of {path} on {' and '.join(sorted(devices))}; with several accelerators "
                "all parts of a layer must be on one device"
            )


def _examples(model: PreTrainedModel) -> list[str]:
    """Return a few parts that a device map may name."""
    return [path for path, module in model.named_modules() if path and any(True for _ in module.parameters())][:4]
