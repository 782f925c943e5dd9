"""What every section of the settings shares: frozen, no unknown key, checks that report all they find at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

CHECKS = "section_checks"
"""Type of the pydantic error that carries the findings of :meth:`Section.checks`."""
FORM = "form"
"""Type of the pydantic error of a value whose form is wrong and that must not be quoted."""


class Section(BaseModel):
    """A frozen group of settings. A subclass yields ``(field, message)`` from :meth:`checks` for what two of its
    fields mean together; field types and ranges are pydantic's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def checks(self) -> Iterator[tuple[str, str]]:
        """Findings across fields; none by default."""
        return iter(())

    @model_validator(mode="after")
    def _run_checks(self) -> Self:
        found = list(self.checks())
        if found:
            raise PydanticCustomError(CHECKS, "{summary}", {"summary": "; ".join(m for _, m in found), "found": found})
        return self


def split(value: Any) -> Any:
    """``a, b`` as two items: lists are written so in the environment."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=1024, strip_whitespace=True)]
"""A string that is not empty."""
