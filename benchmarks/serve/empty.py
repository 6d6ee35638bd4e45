"""The cost of an answer before it holds anything: an empty FastAPI endpoint, served as Shortlist is."""

import uvicorn
from fastapi import FastAPI

from service.operations.serving import listen
from service.settings import Settings

app = FastAPI()


@app.post("/empty")
def empty() -> dict[str, str]:
    return {}


def main() -> None:
    with listen(Settings(port=0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
