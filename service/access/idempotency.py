"""Answers that are kept, so that a POST sent again with the same `Idempotency-Key` is answered again, not done again.

The answer is stored in the transaction of what it answers: either both are there or neither is. Two requests at
once meet at the unique index, and the later one is undone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import AnswerNotKept, IdempotencyKeyInUse, IdempotencyKeyReused
from service.store.tables import KeptAnswer

KEPT_FOR = timedelta(days=1)


@dataclass(frozen=True)
class Claim:
    """Whose request it is, and which."""

    key_id: int
    idempotency_key: str
    fingerprint: str


@dataclass(frozen=True)
class Answer:
    """`body` is None where it must not be stored: it shows a secret."""

    status: int
    headers: dict[str, str]
    body: str | None


def fingerprint(method: str, path: str, body: bytes) -> str:
    digest = blake2b(f"{method} {path}\n".encode(), digest_size=32)
    digest.update(body)
    return digest.hexdigest()


def find(session: Session, claim: Claim, now: datetime) -> Answer | None:
    """The answer that was given before. Raises `IdempotencyKeyReused`, `AnswerNotKept`."""
    kept = session.get(KeptAnswer, (claim.key_id, claim.idempotency_key))
    if kept is None or kept.created_at < now - KEPT_FOR:
        return None
    if kept.fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused(field="Idempotency-Key")
    if kept.body is None:
        raise AnswerNotKept
    return Answer(kept.status, kept.headers, kept.body)


def keep(session: Session, claim: Claim, answer: Answer, now: datetime) -> None:
    """Raises `IdempotencyKeyInUse` when the same request was done meanwhile; this one must be undone then."""
    session.execute(sa.delete(KeptAnswer).where(KeptAnswer.created_at < now - KEPT_FOR))
    session.add(
        KeptAnswer(
            key_id=claim.key_id,
            idempotency_key=claim.idempotency_key,
            fingerprint=claim.fingerprint,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            created_at=now,
        )
    )
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise IdempotencyKeyInUse from error
