"""Fields of requests about tools, as in OpenAI's chat completions."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StringConstraints, model_validator

from steering_server.api.schemas.fields import Text
from steering_server.api.schemas.strict import IGNORED, Strict
from steering_server.api.schemas.structured import SchemaObject

MAX_TOOLS = 128
ToolName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class FunctionSpec(Strict):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: SchemaObject | None = Field(None, description="JSON Schema of the arguments, an object.")
    strict: StrictBool | None = Field(None, description="The schema is always enforced, whatever the value.")


class Tool(Strict):
    """A tool that the model may call."""

    nested: ClassVar[tuple[str, ...]] = ("function",)

    type: Literal["function"]
    function: FunctionSpec


class FunctionName(Strict):
    """The name of a function."""

    name: ToolName


class NamedTool(Strict):
    """A tool that must be called."""

    nested: ClassVar[tuple[str, ...]] = ("function",)

    type: Literal["function"] = "function"
    function: FunctionName


class AllowedTools(Strict):
    """The tools that may be called."""

    nested: ClassVar[tuple[str, ...]] = ("tools",)

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedToolsChoice(Strict):
    """A choice of some of the tools."""

    nested: ClassVar[tuple[str, ...]] = ("allowed_tools",)

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class CalledFunction(Strict):
    """A function that was called."""

    name: Text
    arguments: Text = Field(description="The arguments as JSON.")


class ToolCall(Strict):
    """A call in an assistant's message."""

    nested: ClassVar[tuple[str, ...]] = ("function",)

    id: Text | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[StrictInt | None, IGNORED] = None


Mode = Literal["none", "auto", "required"]


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request: which of them the model is told about, may call, and must call."""

    given: tuple[Tool, ...]
    mode: Mode
    named: tuple[str, ...]
    """Names of the tools that may be called; empty for all of them."""
    allows_several_calls: bool
    parameters_field: str
    """The field of the request that holds the parameters of the tool with the index ``{}``, for errors."""

    def check(self) -> None:
        """Check that names are unique, and that the tools to be called exist.

        Raises:
            ValueError: they are not, or do not.
        """
        names = [tool.function.name for tool in self.given]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"tools: {repeated[0]} is given more than once")
        if not self.named and not self.requires_call:
            return
        if not names:
            raise ValueError("tool_choice: there are no tools; send tools, or leave it out")
        unknown = [name for name in self.named if name not in names]
        if unknown:
            raise ValueError(f"tool_choice: there is no tool {unknown[0]}; tools: {', '.join(names)}"[:400])

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told about: none if it may not call any."""
        return [] if self.mode == "none" else list(self.given)

    @property
    def callable(self) -> list[Tool]:
        """The offered tools that may be called."""
        return [tool for tool in self.offered if not self.named or tool.function.name in self.named]

    @property
    def requires_call(self) -> bool:
        """Whether the answer must be a call."""
        return self.mode == "required"


class ToolFields(Strict):
    """The fields that offer tools to the model."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Mode | NamedTool | AllowedToolsChoice | None = Field(
        None,
        description="none: text; auto: text or calls, as the model decides; required: calls; or the tool to call.",
    )
    parallel_tool_calls: StrictBool = Field(True, description="Whether one answer may have several calls.")

    @model_validator(mode="after")
    def _tools_exist(self) -> Self:
        self.tool_use.check()
        return self

    @property
    def tool_use(self) -> ToolUse:
        """The tools and what may be done with them."""
        choice = self.tool_choice
        mode: Mode = "required"
        named: tuple[str, ...] = ()
        if isinstance(choice, AllowedToolsChoice):
            mode = choice.allowed_tools.mode
            named = tuple(tool.function.name for tool in choice.allowed_tools.tools)
        elif isinstance(choice, NamedTool):
            named = (choice.function.name,)
        else:
            mode = choice or "auto"
        return ToolUse(
            given=tuple(self.tools or ()),
            mode=mode,
            named=named,
            allows_several_calls=self.parallel_tool_calls and not isinstance(choice, NamedTool),
            parameters_field="tools.{}.function.parameters",
        )
