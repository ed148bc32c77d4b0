"""The kinds of values that settings have, and what every section is. Names end with their unit."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Bytes = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})$")]


def at_most(name: str, value: float, other: str, bound: float) -> None:
    """Check a setting whose bound is another setting.

    Raises:
        ValueError: the value is above the bound. Both may be defaults, so it says both.
    """
    if value > bound:
        raise ValueError(f"{name} is {value}, above {other}, which is {bound}")


class Section(BaseModel):
    """A section of the settings: unknown keys are errors, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
