"""Drive the `openai` package, and print what it saw as JSON: the plan and the answer are those of py_client.py."""

import json
import sys

import openai


def whole(client, step, facts):
    """One completion, waited for."""
    facts["result"] = client.chat.completions.create(**step["params"]).model_dump()


def stream(client, step, facts):
    """A completion chunk by chunk."""
    facts["chunks"] = [
        chunk.model_dump() for chunk in client.chat.completions.create(stream=True, **step["params"])
    ]


def summed(client, step, facts):
    """The client's own sum of the chunks."""
    with client.chat.completions.stream(**step["params"]) as stream:
        for event in stream:
            if event.type == "content.delta":
                facts["last_snapshot"] = event.snapshot
        facts["result"] = stream.get_final_completion().model_dump()


def models(client, step, facts):
    """What models there are, and one of them."""
    facts["ids"] = [model.id for model in client.models.list()]
    facts["one"] = client.models.retrieve(step["model"]).model_dump()


VERBS = {"whole": whole, "stream": stream, "summed": summed, "models": models}


def main():
    plan = json.load(sys.stdin)
    facts = {}
    for step in plan["steps"]:
        known = facts[step["name"]] = {}
        client = openai.OpenAI(
            api_key=step.get("key", plan["key"]), base_url=step.get("base_url", plan["base_url"])
        )
        try:
            VERBS[step["do"]](client, step, known)
        except openai.APIError as error:
            known["error"] = {
                "type": type(error).__name__,
                "text": str(error),
                "status_code": getattr(error, "status_code", None),
                "code": error.code,
                "kind": error.type,
            }
    json.dump(facts, sys.stdout)


main()
