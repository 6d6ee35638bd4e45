import stat
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from service.access import keys
from service.errors import DataFolderNotWritable, KeyRefused, LastAdminKey
from service.settings import Settings
from tests import factories
from tests.service.conftest import NOON

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SECRET = b"of the server"


def test_a_key_is_recognised_until_it_is_revoked(session: Session) -> None:
    project = factories.make_project(session)
    keys.create(session, SECRET, name="first", role="admin")
    key, token = keys.create(
        session, SECRET, name="tool", role="annotator", project_id=project.id, annotator="ann"
    )
    assert token.startswith("sl_")
    assert len(token) >= 3 + 43  # 256 bits
    assert token not in key.hash
    found = keys.recognise(session, SECRET, token)
    assert (found.role, found.project_id, found.annotator) == ("annotator", project.id, "ann")
    keys.revoke(session, key, NOON)
    session.flush()
    with pytest.raises(KeyRefused):
        keys.recognise(session, SECRET, token)


@pytest.mark.parametrize("token", ["", "sl_", "sl_nonsense", "ünicode", "x" * 100_000])
def test_other_keys_are_refused(session: Session, token: str) -> None:
    keys.create(session, SECRET, name="first", role="admin")
    with pytest.raises(KeyRefused):
        keys.recognise(session, SECRET, token)


def test_another_secret_knows_no_key(session: Session) -> None:
    _, token = keys.create(session, SECRET, name="first", role="admin")
    with pytest.raises(KeyRefused):
        keys.recognise(session, b"another", token)


def test_the_last_admin_key_stays(session: Session) -> None:
    first, _ = keys.create(session, SECRET, name="first", role="admin")
    keys.create(
        session, SECRET, name="of a project", role="admin", project_id=factories.make_project(session).id
    )
    with pytest.raises(LastAdminKey):
        keys.revoke(session, first, NOON)
    second, _ = keys.create(session, SECRET, name="second", role="admin")
    keys.revoke(session, first, NOON)
    assert first.revoked_at == NOON
    session.flush()
    with pytest.raises(LastAdminKey):
        keys.revoke(session, second, NOON)


def test_use_is_noted_once_a_minute(session: Session) -> None:
    key, _ = keys.create(session, SECRET, name="first", role="admin")
    noted = []
    for seconds in (0, 59, 60, 61):
        keys.note_use(session, key.id, NOON + timedelta(seconds=seconds))
        session.refresh(key)
        noted.append(key.last_used_at)
    assert noted == [NOON, NOON, NOON, NOON + timedelta(seconds=61)]


def test_the_first_admin_key_is_made_once(session: Session) -> None:
    token = keys.create_first_admin(session, SECRET)
    assert token is not None
    assert keys.recognise(session, SECRET, token).role == "admin"
    assert keys.create_first_admin(session, SECRET) is None


def test_a_preset_admin_key_is_good_whatever_was_before(session: Session) -> None:
    preset = "preset by the operator"
    assert keys.create_first_admin(session, SECRET, preset) == preset
    assert keys.create_first_admin(session, SECRET, preset) is None
    assert keys.recognise(session, SECRET, preset).role == "admin"


def test_the_secret_is_made_once_and_only_its_owner_reads_it(settings: Settings) -> None:
    secret = keys.server_secret(settings)
    assert len(secret) >= 32
    assert keys.server_secret(settings) == secret
    assert stat.S_IMODE((settings.data_dir / "secret").stat().st_mode) == 0o600
    assert [path.name for path in settings.data_dir.iterdir()] == ["secret"]
    given = settings.model_copy(update={"secret": Settings(secret="given to all services").secret})
    assert keys.server_secret(given) == b"given to all services"


def test_a_data_folder_that_cannot_be_written_is_said(settings: Settings) -> None:
    (settings.data_dir.parent / "file").write_text("in the way")
    with pytest.raises(DataFolderNotWritable, match="SHORTLIST_DATA_DIR"):
        keys.server_secret(settings.model_copy(update={"data_dir": settings.data_dir.parent / "file"}))
