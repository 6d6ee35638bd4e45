"""What must never stand in a log."""

from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from service.logs import configure_logs
from service.settings import Settings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_values(
    log_format: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    """API keys and database passwords are among them."""
    configure_logs(Settings(log_format=log_format))

    def recognise(token: str) -> None:
        raise RuntimeError(f"a key of {len(token)} characters")

    try:
        recognise("".join(("sl_", "do_not_show")))
    except RuntimeError:
        structlog.get_logger().exception("unexpected")
    logged = capsys.readouterr().err
    assert "a key of 14 characters" in logged
    assert "recognise" in logged
    assert "sl_do_not_show" not in logged
