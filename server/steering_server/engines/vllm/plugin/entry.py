"""The entry point ``vllm.general_plugins``.

vLLM logs and forgets a plugin that cannot be imported, and would then answer unsteered. So this module imports nothing
that can fail; what :func:`register` raises stops vLLM.
"""


def register() -> None:
    """Put the plugin in place in this process of vLLM; further calls do nothing.

    Raises:
        ConfigError: this version of vLLM, or one of its functions that the plugin wraps, is not known to the plugin.
    """
    from steering_server.engines.vllm.plugin import conditions, front_end, prefix_cache, runner_v1, runner_v2, seams

    seams.require_known()
    front_end.install()
    conditions.install()
    prefix_cache.install()
    runner_v1.install()
    runner_v2.install()
