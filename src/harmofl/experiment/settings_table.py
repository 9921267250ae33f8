"""Base class of the tables of an experiment."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class SettingsTable(BaseModel):
    """A table of settings, of which each is known and checked; unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flags_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number must be, also in a list."""
        several = value if isinstance(value, list | tuple) else [value]
        if (
            any(isinstance(one, bool) for one in several)
            and cls.model_fields[info.field_name or ""].annotation is not bool
        ):
            raise ValueError("must not be true or false")
        return value
