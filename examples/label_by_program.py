"""Let a program label: a vision-language model behind any API that speaks OpenAI's chat completions.

    SHORTLIST_KEY=… python examples/label_by_program.py http://localhost:11434/v1 llama3.2-vision --limit 100

What labels is a function, `(bytes of the item, names of the classes) -> the name, or None where it does not know`. Put
your own model there. Its labels are an annotator's like any other: with gold items, `GET …/annotators` says how good
they are.
"""

import argparse
import base64
import os
from collections import Counter
from collections.abc import Callable, Sequence

import httpx2 as httpx

from shortlist_client import Project, Shortlist

Annotator = Callable[[bytes, Sequence[str]], str | None]


def label(project: Project, annotator: Annotator, name: str, *, limit: int | None = None) -> Counter[str]:
    """Outcomes of the labels, and how many items were skipped."""
    outcomes: Counter[str] = Counter()
    for item in project.annotate(name, limit=limit):
        found = annotator(item.read(), project.classes)
        if found is None:
            item.skip("unsure")
            outcomes["skipped"] += 1
        else:
            outcomes[item.label(found)] += 1
    return outcomes


def vision_language_model(http: httpx.Client, model: str) -> Annotator:
    """http: with the base URL of the API, and its key. What answers something else than a class does not know."""

    def annotate(picture: bytes, classes: Sequence[str]) -> str | None:
        question = (
            f"Which of these is in the picture: {', '.join(classes)}? Answer with its name, or with: unsure."
        )
        url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        answer = http.post("chat/completions", json=body).raise_for_status().json()
        said = str(answer["choices"][0]["message"]["content"]).strip().strip(".\"'`*").casefold()
        return next((name for name in classes if name.casefold() == said), None)

    return annotate


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("api", help="its base URL; the key is OPENAI_API_KEY, where it wants one")
    parser.add_argument("model")
    parser.add_argument("--project", help="name or id; needed when there are several")
    parser.add_argument("--limit", type=int, help="items at most")
    given = parser.parse_args()
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    with httpx.Client(base_url=given.api, headers=headers, timeout=120) as http, Shortlist() as client:
        annotator = vision_language_model(http, given.model)
        print(label(client.project(given.project), annotator, given.model, limit=given.limit))


if __name__ == "__main__":
    main()
