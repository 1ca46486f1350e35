"""Fields of requests that ask for text of a given form: OpenAI's ``response_format`` and those of vLLM."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StringConstraints, model_validator

from steering_server.api.schemas.fields import NonEmptyText, Text
from steering_server.api.schemas.strict import Neutral, Strict

MAX_CHOICES = 1000
SchemaObject = Annotated[dict[str, Any], Field(strict=True)]
Choices = Annotated[list[NonEmptyText], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """A JSON object."""

    type: Literal["json_object"]


class NamedSchema(Strict):
    """A JSON Schema and its name."""

    name: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Text | None = Field(None, description="Not shown to the model.")
    content: SchemaObject = Field(alias="schema")
    strict: StrictBool | None = Field(None, description="The schema is always enforced, whatever the value.")


class JsonSchemaFormat(Strict):
    """A JSON value that is valid under a schema."""

    nested: ClassVar[tuple[str, ...]] = ("json_schema",)

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """vLLM's ways to give the form of the text, of which one is to be given."""

    content: SchemaObject | NonEmptyText | None = Field(None, alias="json", description="A JSON Schema.")
    json_object: StrictBool | None = Field(None, description="Whether the text is a JSON object.")
    regex: NonEmptyText | None = Field(None, description="A regular expression that matches the whole text.")
    choice: Choices | None = Field(None, description="Texts to choose from.")
    grammar: NonEmptyText | None = Field(None, description="A grammar in llguidance's dialect of Lark.")
    disable_any_whitespace: Annotated[Any, Neutral(False)] = None
    disable_additional_properties: Annotated[Any, Neutral(False)] = None
    whitespace_pattern: Annotated[Any, Neutral()] = None
    structural_tag: Annotated[Any, Neutral()] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = (self.content, self.json_object or None, self.regex, self.choice, self.grammar)
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one of json, json_object, regex, choice and grammar")
        return self


class StructuredFields(Strict):
    """The fields that give the form of the text."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: SchemaObject | NonEmptyText | None = Field(None, description="Same as structured_outputs.json.")
    guided_regex: NonEmptyText | None = Field(None, description="Same as structured_outputs.regex.")
    guided_choice: Choices | None = Field(None, description="Same as structured_outputs.choice.")
    guided_grammar: NonEmptyText | None = Field(None, description="Same as structured_outputs.grammar.")

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        given = [name for name in StructuredFields.model_fields if getattr(self, name) is not None]
        if isinstance(self.response_format, TextFormat):
            given.remove("response_format")
        if len(given) > 1:
            raise ValueError(f"{given[1]}: cannot be combined with {given[0]}; send one of them")
        return self
