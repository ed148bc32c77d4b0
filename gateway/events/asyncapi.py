"""The events of a fleet as an AsyncAPI 3.0 document, for tools that make clients and pages.

AsyncAPI 3.0.0 specification: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.events.schemas import BASE_URI, Document

_HEADERS_KEY: Final = "cloudevent-headers."
"""No message type ends with a dot."""
_HEADERS: Final = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "<tenant>:<device>:<outbox>:<seq>"},
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "description": "<outbox>:<seq>"},
        "ce-source": {"type": "string", "description": "tidegate:<tenant>/<device>"},
        "ce-type": {"type": "string"},
        "ce-time": {"type": "string", "format": "date-time"},
        "traceparent": {"type": "string"},
    },
    "required": ["Nats-Msg-Id", "ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time"],
}


def asyncapi(schemas: Mapping[str, Document], *, title: str, version: str) -> dict[str, Any]:
    """Describe the stream EVENTS.

    Args:
        schemas: by file name, as in the folder of schemas.
        title: of the document.
        version: of the document.
    """
    names = sorted(schemas)
    types = [name.removesuffix(".json") for name in names]
    components = {
        kind: _inlined(schemas[name], kind) for name, kind in zip(names, types, strict=True)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": {kind: _channel(kind) for kind in types},
        "operations": {f"receive.{kind}": _operation(kind) for kind in types},
        "components": {
            "messages": {kind: _message(kind) for kind in types},
            "schemas": {_HEADERS_KEY: _HEADERS, **components},
        },
    }


def _channel(kind: str) -> dict[str, Any]:
    return {
        "address": f"events.{{tenant}}.{{device}}.{kind}",
        "parameters": {
            "tenant": {"description": "Tenant of the device."},
            "device": {"description": "Id of the device."},
        },
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"}},
    }


def _operation(kind: str) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{kind}"},
        "messages": [{"$ref": f"#/channels/{kind}/messages/{kind}"}],
    }


def _message(kind: str) -> dict[str, Any]:
    return {
        "name": kind,
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{_HEADERS_KEY}"},
        "payload": {"$ref": f"#/components/schemas/{kind}"},
    }


def _inlined(value: Any, kind: str) -> Any:
    """The schema with references that hold in this document: to its own parts, to other files."""
    if isinstance(value, list):
        return [_inlined(each, kind) for each in value]
    if not isinstance(value, dict):
        return value
    inlined = {key: _inlined(each, kind) for key, each in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str):
        file, _, pointer = reference.removeprefix(BASE_URI).removeprefix("./").partition("#")
        inlined["$ref"] = f"#/components/schemas/{file.removesuffix('.json') or kind}{pointer}"
    return inlined
