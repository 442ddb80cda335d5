"""The tools of the everything server that ask the client: the user, its model, or its roots.

Up to MCP 2025-11-25 a server sends a request of its own while the call waits; since 2026-07-28 it answers with what it
needs to know, and the client calls again (`InputRequiredResult`).

Below: everything_parts. Above: everything_tools, everything_tasks.
"""

from __future__ import annotations

__all__ = ["ASKED", "QUESTIONS"]

import mcp_types as types
from mcp import MCPError
from mcp.shared.message import ServerMessageMetadata

from tests.support.everything_parts import TEXT, Call, Context, Handler, Result, Schema, fields, form, prompt

# -- questions to the client up to 2025-11-25: requests of the server -------------------------------------------------


async def _elicit(context: Context, message: str, schema: Schema) -> Result:
    answer = await context.session.elicit_form(message, schema, related_request_id=context.request_id)
    return f"Elicitation completed: action={answer.action}, content={answer.content}"


async def elicitation(context: Context, call: Call) -> Result:
    return await _elicit(context, str((call.arguments or {}).get("message")), fields(username=TEXT, email=TEXT))


async def elicitation_defaults(context: Context, call: Call) -> Result:
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _elicit(context, "Please fill this in", {"type": "object", "properties": properties})


async def elicitation_enums(context: Context, call: Call) -> Result:
    plain = {"type": "string", "enum": ["option1", "option2", "option3"]}
    titled = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
    names = ["Option One", "Option Two", "Option Three"]
    properties = {
        "untitledSingle": plain,
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": names},
        "untitledMulti": {"type": "array", "items": plain},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _elicit(context, "Please choose", {"type": "object", "properties": properties})


async def sampling(context: Context, call: Call) -> Result:
    request = prompt(str((call.arguments or {}).get("prompt")))
    related = ServerMessageMetadata(related_request_id=context.request_id)
    answer = await context.session.send_request(request, types.CreateMessageResult, metadata=related)
    return f"LLM response: {answer.content}"


# -- questions to the client since 2026-07-28: results that ask -------------------------------------------------------

ASKED: types.InputRequests = {"user_name": form("What is your name?", name=TEXT)}
MANY: types.InputRequests = {
    **ASKED,
    "greeting": prompt("Generate a greeting"),
    "client_roots": types.ListRootsRequest(),
}


def _asks(requests: types.InputRequests, state: str | None = None) -> Handler:
    """A tool that asks all of these at once, and answers when it has the answers (and its own state, if it has one)."""

    async def tool(context: Context, call: Call) -> Result:
        answers = call.input_responses or {}
        if not requests.keys() <= answers.keys() or call.request_state != state:
            return types.InputRequiredResult(input_requests=requests, request_state=state)
        return f"state-ok, {', '.join(f'{key}: {answers[key]!r}' for key in requests)}"

    return tool


async def multi_round(context: Context, call: Call) -> Result:
    answers = call.input_responses or {}
    if call.request_state == "two" and "step2" in answers:
        return "all steps done"
    if call.request_state == "one" and "step1" in answers:
        question = form("Step 2: What is your favorite color?", color=TEXT)
        return types.InputRequiredResult(input_requests={"step2": question}, request_state="two")
    question = form("Step 1: What is your name?", name=TEXT)
    return types.InputRequiredResult(input_requests={"step1": question}, request_state="one")


async def capabilities(context: Context, call: Call) -> Result:
    """Ask only what the client has declared that it can answer."""
    declared = context.session.client_capabilities or types.ClientCapabilities()
    able = {"user_name": declared.elicitation, "greeting": declared.sampling, "client_roots": declared.roots}
    asked = {key: MANY[key] for key, capability in able.items() if capability is not None}
    if asked.keys() <= (call.input_responses or {}).keys():
        return "nothing left to ask"
    return types.InputRequiredResult(input_requests=asked)


async def missing_capability(context: Context, call: Call) -> Result:
    needed = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not context.session.check_client_capability(needed):
        data = types.MissingRequiredClientCapabilityErrorData(required_capabilities=needed)
        said = data.model_dump(by_alias=True, exclude_none=True)
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", said)
    return "sampling is there"


# -- the table ---------------------------------------------------------------------------------------------------------

_CONFIRM: types.InputRequests = {"confirm": form("Please confirm", ok={"type": "boolean"})}

QUESTIONS: dict[str, Handler] = {
    "test_elicitation": elicitation,
    "test_elicitation_sep1034_defaults": elicitation_defaults,
    "test_elicitation_sep1330_enums": elicitation_enums,
    "test_sampling": sampling,
    "test_streaming_elicitation": _asks(ASKED),
    "test_input_required_result_elicitation": _asks(ASKED),
    "test_input_required_result_sampling": _asks({"capital_question": prompt("What is the capital of France?")}),
    "test_input_required_result_list_roots": _asks({"client_roots": types.ListRootsRequest()}),
    "test_input_required_result_request_state": _asks(_CONFIRM, "asked"),
    "test_input_required_result_tampered_state": _asks(_CONFIRM, "asked"),
    "test_input_required_result_multiple_inputs": _asks(MANY, "asked"),
    "test_input_required_result_multi_round": multi_round,
    "test_input_required_result_capabilities": capabilities,
    "test_missing_capability": missing_capability,
}
