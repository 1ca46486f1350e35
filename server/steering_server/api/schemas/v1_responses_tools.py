"""Tools in requests of ``POST /v1/responses``, where a function has no object of its own around it as in chats."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from steering_server.api.schemas.fields import Text
from steering_server.api.schemas.strict import Neutral, Strict
from steering_server.api.schemas.structured import SchemaObject
from steering_server.api.schemas.tools import MAX_TOOLS, FunctionSpec, Mode, Tool, ToolName, ToolUse


class FunctionTool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: SchemaObject | None = Field(None, description="JSON Schema of the arguments, an object.")
    strict: StrictBool | None = Field(None, description="The schema is always enforced, whatever the value.")
    asynchronous: Annotated[Any, Neutral(False)] = Field(None, alias="async")
    allowed_callers: Annotated[Any, Neutral(["direct"], [])] = None
    defer_loading: Annotated[Any, Neutral(False)] = None
    output_schema: Annotated[Any, Neutral()] = None

    @property
    def as_tool(self) -> Tool:
        """The function as a tool of a chat."""
        function = FunctionSpec(
            name=self.name, description=self.description, parameters=self.parameters, strict=self.strict
        )
        return Tool(type="function", function=function)


class ChosenFunction(Strict):
    """The function that must be called."""

    type: Literal["function"]
    name: ToolName


class AllowedFunctions(Strict):
    """A choice of some of the functions."""

    nested: ClassVar[tuple[str, ...]] = ("tools",)

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class ResponsesToolFields(Strict):
    """The fields that offer functions to the model."""

    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Functions; this server has no tools of its own."
    )
    tool_choice: Mode | ChosenFunction | AllowedFunctions | None = Field(
        None,
        description="none: text; auto: text or calls, as the model decides; required: calls; or the function to call.",
    )
    parallel_tool_calls: StrictBool = Field(True, description="Whether one answer may have several calls.")
    max_tool_calls: Annotated[Any, Neutral()] = None

    @model_validator(mode="after")
    def _tools_exist(self) -> Self:
        self.tool_use.check()
        return self

    @property
    def tool_use(self) -> ToolUse:
        """The functions and what may be done with them."""
        choice = self.tool_choice
        mode: Mode = "required"
        named: tuple[str, ...] = ()
        if isinstance(choice, AllowedFunctions):
            mode, named = choice.mode, tuple(tool.name for tool in choice.tools)
        elif isinstance(choice, ChosenFunction):
            named = (choice.name,)
        else:
            mode = choice or "auto"
        return ToolUse(
            given=tuple(tool.as_tool for tool in self.tools or ()),
            mode=mode,
            named=named,
            allows_several_calls=self.parallel_tool_calls and not isinstance(choice, ChosenFunction),
            parameters_field="tools.{}.parameters",
        )
