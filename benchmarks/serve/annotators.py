"""Some annotators in one process, each a thread: take a batch, ask the empty endpoint too, think, post the labels.

Prints the seconds of every request as JSON: `{"next_batch": [...], "labels": [...], "empty": [...]}`.
"""

import http.client
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
KEPT_ALIVE_S = 4.0


@dataclass(frozen=True)
class Task:
    service: str
    empty: str
    key: str
    project: str
    annotators: tuple[str, ...]
    batch: int
    think_s: float  # mean of an exponential distribution; 0 thinks not at all
    seconds: float
    labels: int | None = None  # stops after so many, too


class Annotator:
    def __init__(self, name: str, task: Task) -> None:
        self._name, self._task = name, task
        self._dice = random.Random(name)
        self._service = http.client.HTTPConnection(urlsplit(task.service).netloc, timeout=120)
        self._empty = http.client.HTTPConnection(urlsplit(task.empty).netloc, timeout=120)
        self.seconds: dict[str, list[float]] = {"next_batch": [], "labels": [], "empty": []}
        self.labels = 0
        self._used: dict[http.client.HTTPConnection, float] = {}  # when last

    def work(self) -> None:
        self._think(self._dice.random())  # so that they do not all come at once
        until = time.monotonic() + self._task.seconds
        at = f"/projects/{self._task.project}"
        while time.monotonic() < until and (self._task.labels is None or self.labels < self._task.labels):
            batch = self._post(
                self._service,
                "next_batch",
                f"{at}/next-batch",
                {"annotator": self._name, "size": self._task.batch},
            )
            self._post(self._empty, "empty", "/empty", {})
            if not batch["items"]:
                raise RuntimeError(f"nothing to label: {batch['reason']}")
            self._think(self._dice.expovariate(1))
            labels = [
                {"item": item["id"], "class": "cat", "annotator": self._name, "batch": batch["batch"]}
                for item in batch["items"]
            ]
            self._post(self._service, "labels", f"{at}/labels", {"labels": labels})
            self.labels += len(labels)

    def _think(self, times: float) -> None:
        time.sleep(times * self._task.think_s)

    def _post(self, connection: http.client.HTTPConnection, what: str, path: str, body: Json) -> Json:
        content = json.dumps(body)
        headers = {"Authorization": f"Bearer {self._task.key}", "Content-Type": "application/json"}
        if time.monotonic() - self._used.get(connection, 0.0) > KEPT_ALIVE_S:
            connection.close()  # the servers hang up on who is silent for 5 s; the request connects again
        started = time.perf_counter()
        connection.request("POST", path, content, headers)
        response = connection.getresponse()
        answer = response.read()
        self.seconds[what].append(time.perf_counter() - started)
        self._used[connection] = time.monotonic()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {answer.decode()}")
        found: Json = json.loads(answer)
        return found


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    annotators = [Annotator(name, task) for name in task.annotators]
    with ThreadPoolExecutor(len(annotators)) as threads:
        for done in [threads.submit(annotator.work) for annotator in annotators]:
            done.result()  # raises what went wrong
    print(
        json.dumps(
            {
                what: [second for annotator in annotators for second in annotator.seconds[what]]
                for what in ("next_batch", "labels", "empty")
            }
        )
    )


if __name__ == "__main__":
    main()
