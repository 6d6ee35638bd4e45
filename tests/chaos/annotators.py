"""Eight annotators of bad habits in one process, each a thread; what they saw and sent goes into a journal.

They work at several projects in turn, until the file `closed` lies beside the journal. They reload, dawdle until
their reservation runs out, give back, post the same twice, correct themselves out of order, and hang up before the
answer comes. The process may be killed at any moment: what it sends is written down before, what it was answered
right after.
"""

import http.client
import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]
THREADS = 8
CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Site:
    """Services on one database, and what the annotators are told."""

    ports: tuple[int, ...]
    key: str
    projects: tuple[str, ...]
    reservation_ttl_s: float
    closed: Path  # when it exists they go home


class Journal:
    """One JSON object a line, on disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def write(self, what: str, **fields: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"what": what, "at": time.time(), **fields}) + "\n")


class Annotator:
    def __init__(self, name: str, site: Site, journal: Journal, dice: random.Random) -> None:
        self._name, self._site, self._journal, self._dice = name, site, journal, dice
        self._project = ""
        self._connection: http.client.HTTPConnection | None = None

    def work(self) -> None:
        while not self._site.closed.exists():
            self._project = self._dice.choice(self._site.projects)
            batch = self._next_batch()
            if batch["reason"] is not None:
                time.sleep(0.05)
                continue
            if self._dice.random() < 0.05:
                self._give_back(batch)
                continue
            if self._dice.random() < 0.05:
                time.sleep(self._site.reservation_ttl_s * self._dice.uniform(0.5, 1.5))
            if self._dice.random() < 0.1:  # a reload shows the same again
                batch = self._next_batch(new=False)
            half = len(batch["items"]) // 2
            for items in (batch["items"][:half], batch["items"][half:]):
                if items and self._dice.random() < 0.95:  # now and then one half stays undone
                    self._label(items)

    def _next_batch(self, new: bool | None = None) -> Json:
        new = self._dice.random() < 0.1 if new is None else new
        body = {"annotator": self._name, "size": self._dice.randint(1, 60), "new": new}
        asked = time.time()
        batch = self._post("next-batch", body)
        if batch["items"]:
            items = [item["id"] for item in batch["items"]]
            until = datetime.fromisoformat(batch["expires_at"]).timestamp()
            self._write("batch", asked=asked, batch=batch["batch"], items=items, until=until)
        return batch

    def _give_back(self, batch: Json) -> None:
        self._write("given back", batch=batch["batch"])
        self._ask("DELETE", f"/batches/{batch['batch']}")

    def _label(self, items: Sequence[Json]) -> None:
        """With the class that the key tells; wrong at first now and then."""
        first, second, third = [], [], []
        for item in items:
            name, dice = true_class(item["key"]), self._dice.random()
            if dice < 0.03:
                first.append({"item": item["id"], "skip": "unsure", "revision": 1})
            elif dice < 0.06:
                wrong = next(each for each in CLASSES if each != name)
                first.append({"item": item["id"], "class": wrong, "revision": 1})
                second.append({"item": item["id"], "class": wrong, "revision": 2})
                third.append({"item": item["id"], "class": name, "revision": 3})
            else:
                first.append({"item": item["id"], "class": name, "revision": 1})
        for labels in (first, third, second):  # the correction overtakes
            if labels:
                self._send(labels)

    def _send(self, labels: list[Json]) -> None:
        labels = [{**label, "annotator": self._name} for label in labels]
        self._write("sent", labels=labels)
        if self._dice.random() < 0.1:
            self._hang_up("labels", {"labels": labels})
        for _ in range(2 if self._dice.random() < 0.1 else 1):
            answer = self._post("labels", {"labels": labels}, or_refused="revision_taken")
            if "results" not in answer:
                return  # what this one sent, killed a moment ago, arrived only now
            outcomes = [result["outcome"] for result in answer["results"]]
            self._write("answered", labels=labels, outcomes=outcomes)

    def _write(self, what: str, **fields: Any) -> None:
        self._journal.write(what, annotator=self._name, project=self._project, **fields)

    def _post(self, action: str, body: Json, or_refused: str | None = None) -> Json:
        """Again and again, until it is answered: 200, or with that code."""
        status, answer = self._ask("POST", f"/projects/{self._project}/{action}", body)
        if status != 200 and answer.get("code") != or_refused:
            self._write("refused", action=action, status=status, answer=answer)
            sys.exit(f"{action}: {status} {answer}")
        return answer

    def _ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        while True:
            try:
                connection = self._connected()
                self._request(connection, method, path, body)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):  # this service is gone: another one is there
                self._disconnect()
                time.sleep(0.05)
                continue
            if response.status == 503:
                self._write("busy", answer=json.loads(content))
                time.sleep(0.1)
                continue
            return response.status, json.loads(content or b"{}")

    def _hang_up(self, action: str, body: Json) -> None:
        """Send and never read the answer."""
        try:
            self._request(self._connected(), "POST", f"/projects/{self._project}/{action}", body)
        except OSError:
            return
        finally:
            self._disconnect()

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Json | None
    ) -> None:
        headers = {"Authorization": f"Bearer {self._site.key}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            port = self._dice.choice(self._site.ports)
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def true_class(key: str) -> str:
    return CLASSES[int(key) % len(CLASSES)]


def main(site: Site, number: int, seed: int, journal: Path) -> None:
    written = Journal(journal)
    threads = [
        threading.Thread(
            target=Annotator(f"ann {number}.{each}", site, written, random.Random(f"{seed}.{each}")).work
        )
        for each in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written.write("done")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    journal = Path(given["journal"])
    site = Site(
        tuple(given["ports"]),
        given["key"],
        tuple(given["projects"]),
        given["reservation_ttl_s"],
        journal.with_name("closed"),
    )
    main(site, given["number"], given["seed"], journal)
