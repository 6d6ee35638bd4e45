"""A Label Studio as version 1.23.2 answers (../shared/design/label-studio.md, recorded), as a real HTTP server."""

import base64
import io
import json
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.signature"
CHOICES = """<View><Image name="image" value="$image"/>
<Choices name="label" toName="image" choice="single"><Choice value="cat"/><Choice value="dog"/></Choices></View>"""
BOXES = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels></View>"""
TEXTS = """<View><Text name="text" value="$text"/>
<Choices name="label" toName="text"><Choice value="cat"/><Choice value="dog"/></Choices></View>"""


def picture(number: int) -> bytes:
    """A PNG that no other number gives."""
    image = Image.new("RGB", (16, 16), (number % 256, number // 256 % 256, 90))
    image.putpixel((number % 16, 3), (255, 255, 255))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def chosen(*classes: str) -> list[dict[str, Any]]:
    value = {"choices": list(classes)}
    return [{"from_name": "label", "to_name": "image", "type": "choices", "value": value}]


def boxed(*classes: str) -> list[dict[str, Any]]:
    return [
        {
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {"x": 10 * number, "y": 5, "width": 9.5, "height": 7, "rectanglelabels": [name]},
        }
        for number, name in enumerate(classes)
    ]


class FakeLabelStudio:
    """State that tests look at and change; `calls` are those it was sent, as "GET /api/tasks"."""

    def __init__(self) -> None:
        self.url = ""
        self.release: str | None = "1.23.2"
        self.label_config = CHOICES
        self.sampling = "Sequential sampling"
        self.model_version = ""
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.users = {1: "ann@lab.local", 2: "bob@lab.local"}
        self.calls: list[str] = []
        self.down = self.revoked = False
        self.refuses_webhooks = False
        self.access = "access-1"
        # A test's own mishaps, before a call is answered, and after what it asks for was done.
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self._lock = threading.RLock()
        self._annotations = self._last_task = 0

    # What people do in it.

    def add_task(self, **data: Any) -> int:
        self._last_task = number = self._last_task + 1
        self.tasks[number] = {"id": number, "data": data, "updated_at": _now(), "annotations": []}
        return number

    def add_pictures(self, count: int) -> list[int]:
        return [self.add_task(image=data_uri(picture(len(self.tasks) + 1))) for _ in range(count)]

    def annotate(self, task: int, result: Any, by: int = 1, *, cancelled: bool = False) -> dict[str, Any]:
        self._annotations += 1
        annotation = {
            "id": self._annotations,
            "result": result,
            "was_cancelled": cancelled,
            "completed_by": by,
            "unique_id": str(uuid.uuid4()),
            "created_at": _now(),
            "updated_at": _now(),
            "lead_time": 1.5,
            "task": task,
            "project": 7,
        }
        self.tasks[task]["annotations"].append(annotation)
        self.tasks[task]["updated_at"] = _now()
        return annotation

    def change(self, annotation: dict[str, Any], result: Any) -> None:
        annotation |= {"result": result, "updated_at": _now()}
        self.tasks[annotation["task"]]["updated_at"] = _now()

    def delete(self, annotation: dict[str, Any]) -> None:
        task = self.tasks[annotation["task"]]
        task["annotations"].remove(annotation)
        task["updated_at"] = _now()

    def order(self) -> list[int]:
        """Open tasks as "uncertainty sampling" hands them out: by the predictions of the project's model version."""
        scores = {
            each["task"]: each["score"]
            for each in self.predictions
            if each["model_version"] == self.model_version
        }
        open_tasks = [number for number, task in self.tasks.items() if not task["annotations"]]
        return sorted((n for n in open_tasks if n in scores), key=lambda number: scores[number])

    def open_tasks(self) -> list[int]:
        """As "sequential sampling" hands them out."""
        return sorted(number for number, task in self.tasks.items() if not task["annotations"])

    def send_webhooks(self, body: dict[str, Any]) -> list[int]:
        """One attempt each, as it does; the statuses."""
        statuses = []
        for hook in self.webhooks:
            request = urllib.request.Request(
                hook["url"],
                json.dumps(body).encode(),
                {"Content-Type": "application/json", **hook["headers"]},
            )
            with urllib.request.urlopen(request, timeout=5) as answer:
                statuses.append(answer.status)
        return statuses

    # What programs ask of it.

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        with self._lock:
            match method, [part for part in path.split("/") if part]:
                case "GET", ["api", "version"]:
                    return 200, {"release": self.release}
                case "GET", ["api", "users"]:
                    return 200, [{"id": number, "email": email} for number, email in self.users.items()]
                case "GET", ["api", "projects", "7"]:
                    return 200, self._project()
                case "PATCH", ["api", "projects", "7"]:
                    return self._change_project(body)
                case "GET", ["api", "tasks"]:
                    return 200, self._page(query)
                case "POST", ["api", "projects", "7", "import"]:
                    for given in body:
                        number = self.add_task(**given["data"])
                        self.predictions += [each | {"task": number} for each in given.get("predictions", ())]
                    return 201, {"task_count": len(body)}
                case "GET", ["api", "tasks", number] if int(number) in self.tasks:
                    return 200, self.tasks[int(number)]
                case "DELETE", ["api", "tasks", number] if int(number) in self.tasks:
                    del self.tasks[int(number)]
                    return 204, {}
                case "POST", ["api", "projects", "7", "import", "predictions"]:
                    self.predictions += body
                    return 201, {"created": len(body)}
                case "GET", ["api", "projects", "7", "model-versions"]:
                    return 200, self._versions()
                case "DELETE", ["api", "projects", "7", "model-versions"]:
                    before = len(self.predictions)
                    version = body["model_version"]
                    self.predictions = [e for e in self.predictions if e["model_version"] != version]
                    return 200, {"deleted": before - len(self.predictions)}
                case "GET", ["api", "webhooks"]:
                    return 200, self.webhooks
                case "POST", ["api", "webhooks"]:
                    if self.refuses_webhooks:
                        return 403, {"detail": "URL resolves to a reserved network address"}
                    self.webhooks.append(body | {"id": len(self.webhooks) + 1})
                    return 201, self.webhooks[-1]
                case "PATCH", ["api", "webhooks", number]:
                    self.webhooks[int(number) - 1] |= body
                    return 200, self.webhooks[int(number) - 1]
        return 404, {"detail": "Not found."}

    def _project(self) -> dict[str, Any]:
        return {
            "id": 7,
            "title": "Pets",
            "label_config": self.label_config,
            "sampling": self.sampling,
            "model_version": self.model_version,
            "task_number": len(self.tasks),
        }

    def _change_project(self, body: dict[str, Any]) -> tuple[int, Any]:
        version = body.get("model_version")
        if version is not None and version not in self._versions():
            return 400, {"detail": "Model version doesn't exist"}
        self.model_version = version or self.model_version
        self.sampling = body.get("sampling", self.sampling)
        return 200, self._project()

    def _versions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.predictions:
            found[each["model_version"]] = found.get(each["model_version"], 0) + 1
        return found

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        asked = json.loads(query["query"][0])
        rows = [self.tasks[number] for number in sorted(self.tasks)]
        for item in asked.get("filters", {}).get("items", ()):
            assert item["filter"] == "filter:tasks:updated_at"
            assert item["operator"] == "greater"
            since = datetime.fromisoformat(item["value"])
            rows = [row for row in rows if datetime.fromisoformat(row["updated_at"]) > since]
        size, page = int(query["page_size"][0]), int(query["page"][0])
        part = rows[(page - 1) * size : page * size]
        if query["fields"] == ["task_only"]:
            part = [{"id": row["id"]} for row in part]
        return {"total": len(rows), "tasks": part}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def fake_label_studio() -> Iterator[FakeLabelStudio]:
    fake = FakeLabelStudio()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = f"{self.command} {split.path}"
            fake.calls.append(call)
            fake.before(call)
            if fake.down:
                return self.say(502, b"Bad gateway", "text/html")
            if split.path == "/api/token/refresh/":
                good = json.loads(body) == {"refresh": PERSONAL}
                return self.say_json(
                    *((200, {"access": fake.access}) if good else (401, {"detail": "Token is invalid"}))
                )
            if fake.revoked or self.headers.get("Authorization") not in (
                f"Token {LEGACY}",
                f"Bearer {fake.access}",
            ):
                return self.say_json(401, {"detail": "Invalid token."})
            if split.path in fake.files:
                return self.say(200, fake.files[split.path], "image/png")
            given = json.loads(body) if body else None
            answer = fake.answer(self.command, split.path, parse_qs(split.query), given)
            fake.after(call)
            if fake.down:
                return self.say(502, b"Bad gateway", "text/html")
            return self.say_json(*answer)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def say_json(self, status: int, answer: Any) -> None:
            self.say(status, b"" if status == 204 else json.dumps(answer).encode(), "application/json")

        def say(self, status: int, data: bytes, kind: str) -> None:
            self.send_response_only(status)
            self.send_header("Date", format_datetime(datetime.now(UTC), usegmt=True))
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def long_ago(task: dict[str, Any]) -> None:
    """Only a full look finds this task."""
    task["updated_at"] = (datetime.now(UTC) - timedelta(days=1)).isoformat()
