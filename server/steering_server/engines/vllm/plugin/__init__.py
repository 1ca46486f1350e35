"""The plugin that lets vLLM apply steering profiles, each request its own, in one batch.

vLLM finds it by the entry points ``vllm.general_plugins`` (:mod:`.entry`) and ``vllm.endpoint_plugins``
(:mod:`.endpoints`), and loads it in all of its processes: front end, engine core and workers.
"""
