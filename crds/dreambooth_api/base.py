"""The base of every model of the API: camelCase in YAML, snake_case in Python."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of a resource.

    Unknown fields are ignored, so that a resource written by a newer release stays readable; where a person's file is
    read directly (`dreambooth run`), `dreambooth_api.parse` refuses them by name.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_enum_values=False,
        validate_default=True,
    )

    def to_dict(self) -> dict:
        """The JSON-ready form with camelCase keys and without unset optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def choices(self) -> dict:
        """The JSON-ready form of what differs from the defaults: the same in a release that knows more fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
