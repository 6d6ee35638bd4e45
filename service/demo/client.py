"""A thin client of the HTTP API: what any annotation tool would write."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx

Json = dict[str, Any]
_ENDED = ("succeeded", "failed", "cancelled")


class DemoFailed(Exception):
    """The demo cannot go on; the message is for people."""


class Client:
    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def get(self, path: str, **params: Any) -> Any:
        return self._checked(self._http.get(path, params=params)).json()

    def post(self, path: str, body: Json) -> Any:
        return self._checked(self._http.post(path, json=body)).json()

    def image(self, url: str) -> bytes:
        return self._checked(self._http.get(url)).content

    @staticmethod
    def _checked(response: httpx.Response) -> httpx.Response:
        if response.is_error:
            raise DemoFailed(f"{response.request.method} {response.request.url.path}: {response.text}")
        return response

    def wait_for(self, job_id: str, on_progress: Callable[[float, str], None]) -> Json:
        """The job once it succeeded; `DemoFailed` with its error otherwise."""
        while True:
            job: Json = self.get(f"/jobs/{job_id}")
            on_progress(job["progress"], job["message"] or job["state"])
            if job["state"] == "succeeded":
                return job
            if job["state"] in _ENDED:
                raise DemoFailed(f"job {job['kind']} {job['state']}: {job['error']}")
            time.sleep(0.2)

    def newest_job(self, project: str, kind: str) -> Json:
        jobs = [job for job in self.pages("/jobs", project=project) if job["kind"] == kind]
        return max(jobs, key=lambda job: str(job["created_at"]))

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every element of a list that comes in cursor pages."""
        cursor: str | None = None
        while True:
            page = self.get(path, **params, **({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return
