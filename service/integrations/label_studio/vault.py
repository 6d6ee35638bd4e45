"""Tokens of tools as they are stored: encrypted, by a key that is derived from the server's secret."""

import base64

from cryptography.fernet import Fernet, InvalidToken

from service.access.keys import derived
from service.integrations.label_studio.errors import ToolTokenUnreadable


def _fernet(secret: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derived(secret, "tokens of tools")))


def encrypted(secret: bytes, token: str) -> str:
    return _fernet(secret).encrypt(token.encode()).decode()


def decrypted(secret: bytes, stored: str) -> str:
    """Raises `ToolTokenUnreadable` where the server's secret is another one now."""
    try:
        return _fernet(secret).decrypt(stored.encode()).decode()
    except InvalidToken:
        raise ToolTokenUnreadable from None
