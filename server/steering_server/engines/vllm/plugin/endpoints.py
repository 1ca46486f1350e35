"""The entry point ``vllm.endpoint_plugins``: the routes ``/v1/profiles`` and ``/v1/profiles/{name}``."""

from typing import Any

from steering_profiles.effective import described_conditions
from steering_server.engines.vllm.plugin.names import steered_name


class ProfileEndpoints:
    """Routes that describe the served profiles, as ``steer serve`` describes them."""

    name = "steering"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._profiles: dict[str, dict[str, Any]] = {}

    def attach_router(self, app: Any) -> None:
        """Add the routes to vLLM's application."""

        async def list_profiles() -> dict[str, Any]:
            return {"object": "list", "data": list(self._profiles.values())}

        async def get_profile(name: str) -> dict[str, Any]:
            from vllm.exceptions import VLLMNotFoundError

            if name not in self._profiles:
                known = ", ".join(self._profiles) or "none"
                raise VLLMNotFoundError(f"name: no profile named {name[:64]!a}; known: {known}")
            return self._profiles[name]

        app.get("/v1/profiles")(list_profiles)
        app.get("/v1/profiles/{name}")(get_profile)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Describe the profiles of the engine that the server has started."""
        from steering_server.engines.vllm.plugin.served import served_by

        served = served_by(engine_client.vllm_config)
        names = getattr(args, "served_model_name", None) or [args.model]
        model = names if isinstance(names, str) else names[0]
        for name, card in served.cards.items():
            profile = card.entry.profile
            self._profiles[name] = {
                "name": name,
                "object": "profile",
                "description": profile.description,
                "method": profile.method,
                "summary": profile.summary,
                "content_hash": card.entry.content_hash,
                "when": described_conditions(profile),
                "model": profile.model.id,
                "model_name": steered_name(model, name) if card.usable else None,
                "shipped": card.entry.shipped,
                "usable": card.usable,
                "forced": card.forced,
                "reason": card.reason,
            }
