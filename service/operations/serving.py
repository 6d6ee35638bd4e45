"""Serving the API from this process: what must hold first, the socket, uvicorn."""

import errno
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from service.access import keys
from service.errors import (
    CannotListen,
    DataFolderNotWritable,
    NoKeys,
    PortInUse,
    WeakAdminKey,
)
from service.settings import Settings
from service.store.session import open_database, read_session, write_session
from service.store.tables import Key

STOP_S = 3  # how long requests that run at the end may take
ADMIN_KEY_LENGTH = 16


def check_data_folder(settings: Settings) -> None:
    """Make it when missing. Raises `DataFolderNotWritable`."""
    probe = settings.data_dir / ".writable"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataFolderNotWritable(path=str(settings.data_dir), reason=reason) from None


@contextmanager
def database(settings: Settings) -> Iterator[sa.Engine]:
    """Raises `DataFolderNotWritable`, `DatabaseUnreachable`."""
    check_data_folder(settings)
    engine = open_database(settings.database)
    try:
        yield engine
    finally:
        engine.dispose()


def first_admin_key(engine: sa.Engine, settings: Settings, make: bool) -> str | None:
    """The key to show: the preset one when it is new, or with `make` one made because there was none."""
    preset = settings.admin_key.get_secret_value() if settings.admin_key else None
    if preset is not None and len(preset) < ADMIN_KEY_LENGTH:
        raise WeakAdminKey
    if preset is None and not make:
        return None
    with write_session(engine) as session:
        return keys.create_first_admin(session, keys.server_secret(settings), preset)


def check_reachable_only_with_keys(engine: sa.Engine, settings: Settings) -> None:
    """Raises `NoKeys` where strangers could reach a service that nobody has a key for."""
    with read_session(engine) as session:
        any_key = session.scalar(sa.select(Key.id).where(Key.revoked_at.is_(None)).limit(1))
    if any_key is None and not is_loopback(settings.host):
        raise NoKeys(host=settings.host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(settings: Settings) -> socket.socket:
    """Taken before anything is started, so that a port in use is one sentence. Raises `PortInUse`."""
    where = {"host": settings.host, "port": settings.port}
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as on_refusal:
            listener = on_refusal.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
            on_refusal.pop_all()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(**where) from None
        raise CannotListen(**where, reason=error.strerror or error) from None
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, then return."""
    import uvicorn  # here, so that commands that serve nothing load no web framework

    from service.main import create_app

    # uvicorn hears the signal, stops, and raises it once more for whoever listened before: nobody has to.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    app = create_app(settings)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.parts.event_streams.close()  # it would wait for them
            await super().shutdown(sockets)

    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=STOP_S)
    Server(config).run(sockets=[listener])
