"""vLLM's load generator (``vllm bench serve``); run by the interpreter of vLLM's own environment.

With ``--backend plain`` the requests leave out fields that OpenAI does not have, for servers that refuse those.
"""

import os
from contextlib import AbstractAsyncContextManager
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm.benchmarks import serve
from vllm.benchmarks.lib import endpoint_request_func as endpoints
from vllm.utils.argparse_utils import FlexibleArgumentParser

_NOT_OPENAI = {"repetition_penalty", "ignore_eos", "logprobs"}


class _PlainSession:
    """An HTTP session that leaves those fields out of what it posts."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def post(self, url: str, json: dict[str, Any], headers: dict[str, str]) -> AbstractAsyncContextManager[Any]:
        plain = {name: value for name, value in json.items() if name not in _NOT_OPENAI}
        response: AbstractAsyncContextManager[Any] = self._session.post(url=url, json=plain, headers=headers)
        return response


async def _plain(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
    return await endpoints.async_request_openai_completions(request_func_input, _PlainSession(session), pbar)


def main() -> None:
    """Take the arguments of ``vllm bench serve``."""
    endpoints.ASYNC_REQUEST_FUNCS["plain"] = _plain
    endpoints.OPENAI_COMPATIBLE_BACKENDS.append("plain")
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    serve.main(parser.parse_args())


if __name__ == "__main__":
    main()
