"""Where the parts of a model go: device maps, as accelerate takes them and a little beyond, checked before loading."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from steering_profiles.source import AUTOMATIC, require_limits

DISK = "disk"
_NOT_COMPUTING = ("cpu", DISK)  # beside an accelerator

Device = int | str


def explicit_map(model: PreTrainedModel, device_map: str | Mapping[str, Device]) -> dict[str, Device]:
    """Return from each part of ``model`` to its device, no part inside another and none left out.

    What is given may be one device, or a map in which parts are inside others: ``{"": "cpu", "model.layers.3":
    "disk"}`` is all on the CPU but for one layer, which accelerate by itself does not take.

    Raises:
        ValueError: it names a device that is not there or a part that the model does not have, has no device for
            some part, or puts parts of one layer on different accelerators.
    """
    asked = {"": device_map} if isinstance(device_map, str) else device_map
    given = {part: _number(device) for part, device in asked.items()}
    parts = dict(model.named_modules())
    for part, device in given.items():
        _require_device(device)
        if part not in parts:
            raise ValueError(
                f"the device map names {part!r}, which is no part of the model; its parts are such as "
                f"{', '.join(_examples(model))}"
            )
    whole = dict(_disjoint("", model, given, given.get("")))
    _require_whole_layers(model, whole)
    return whole


def require_max_memory(max_memory: Mapping[Device, str], device_map: str | Mapping[str, Device] | None) -> None:
    """See that limits of memory can be kept.

    Raises:
        ValueError: the device map is not an automatic one, which alone looks at them; there is no such device; or
            a size is not one.
    """
    require_limits(max_memory, device_map)
    for device in max_memory:
        _require_device(device)


def device_of(tensor: str, whole: Mapping[str, Device]) -> Device:
    """Return where a map from :func:`explicit_map` puts the weight of that name."""
    part = tensor
    while part not in whole:
        part = part.rpartition(".")[0]
    return whole[part]


def _number(device: Device) -> Device:
    return int(device) if isinstance(device, str) and device.isdecimal() else device


def _disjoint(
    path: str, module: nn.Module, given: Mapping[str, Device], inherited: Device | None
) -> Iterator[tuple[str, Device]]:
    """Yield the parts of ``module`` and their devices, which is itself where nothing inside it has its own."""
    inside = f"{path}." if path else ""
    # What is computed rather than stored, such as rotary frequencies, may be left out.
    stored = module.state_dict()
    if not any(part != path and part.startswith(inside) for part in given):
        if inherited is not None:
            yield path, inherited
        elif stored:
            part = path or next(iter(stored))
            raise ValueError(f"the device map has no device for {part}; an entry for '' is for whatever has none")
        return
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if inherited is not None:
            yield f"{inside}{name}", inherited
        elif name in stored:
            raise ValueError(f"the device map has no device for {inside}{name}")
    for name, child in module.named_children():
        yield from _disjoint(f"{inside}{name}", child, given, given.get(f"{inside}{name}", inherited))


def _require_device(device: Device) -> None:
    """See that there is such a device.

    Raises:
        ValueError: there is not; the message has those that there are.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator is not None else 0
    if not _is_there(device, accelerator, count):
        kind = "none" if accelerator is None else accelerator.type
        known = ["cpu", DISK, *map(str, range(count))]
        raise ValueError(
            f"device {device!r} is not there; this machine has {', '.join(known)} (numbers are accelerators, of kind "
            f"{kind}); a whole device map can also be {' or '.join(AUTOMATIC)}"
        )


def _is_there(device: Device, accelerator: torch.device | None, count: int) -> bool:
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
    """See that the parts of a layer compute on one device, since they add to each other's results.

    Raises:
        ValueError: some do not.
    """
    if len({str(device) for device in whole.values() if device not in _NOT_COMPUTING}) < 2:
        return  # what is on the CPU or on disk computes on the one accelerator
    for path, module in model.named_modules():
        devices = {str(device) for part, device in whole.items() if part.startswith(f"{path}.")}
        if type(module).__name__ in (model._no_split_modules or ()) and len(devices) > 1:
            raise ValueError(
                f"the device map puts parts of {path} on {' and '.join(sorted(devices))}; with several accelerators "
                "all parts of a layer must be on one device"
            )


def _examples(model: PreTrainedModel) -> list[str]:
    """Return the first few parts that a device map may name."""
    return [path for path, module in model.named_modules() if path and any(True for _ in module.parameters())][:4]
