"""The JSON Schema of rule files, for editors that complete and check as one types. Knows only the documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from .build import known_tags
from .documents import Document
from .model import Vocabulary

_ADAPTER: TypeAdapter[Document] = TypeAdapter(Annotated[Document, Field(discriminator="schema_")])


def json_schema(catalogue: Vocabulary) -> dict[str, Any]:
    """One schema for every kind of document (JSON Schema 2020-12), with the features and tags that may be named."""
    schema = _ADAPTER.json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Rules, lists, macros, overrides and policy of the API abuse monitor"
    rule = schema["$defs"]["RuleDoc"]["properties"]
    rule["tags"]["items"] = {"enum": list(known_tags())}
    rule["evidence"]["items"] = {"enum": list(catalogue.by_name)}
    rule["when"]["description"] += ". Names: " + ", ".join(catalogue.by_name)
    given = schema["$defs"]["CaseDoc"]["properties"]["given"]
    given["propertyNames"] = {"enum": [*catalogue.by_name, "account_id", "subject", "client_class"]}
    return schema


def schema_text(catalogue: Vocabulary) -> str:
    """The schema as it is committed in ``rules/schema.json``."""
    return json.dumps(_plain(json_schema(catalogue)), indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Without the titles that pydantic makes up from field names."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if not (k == "title" and isinstance(v, str) and " " not in v)}
    return [_plain(v) for v in value] if isinstance(value, list) else value
