"""The keys and the token of a server that asks for them: configured, or made up and shown once."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from emulator.auth import Keys
from emulator.config import Config
from emulator.listening import Listening

PREFIX = "LKWM"  # not AKIA, so that nobody and no scanner takes it for a key of AWS


@dataclass(frozen=True, slots=True)
class Credentials:
    """What lets a caller in. `notice` is for a person's eyes: what was made up, ready to paste."""

    keys: Keys
    token: str = field(repr=False)
    notice: str = field(repr=False)


def credentials(config: Config, where: Listening) -> Credentials | None:
    """The credentials that callers need, or None if the server is open."""
    if config.auth == "off" or (config.auth == "auto" and where.local):
        return None
    key_id, secret, token = config.access_key_id, config.secret_access_key, config.token
    made: dict[str, str] = {}
    if not key_id:
        key_id = made["AWS_ACCESS_KEY_ID"] = PREFIX + _letters(16)
    if not secret:
        secret = made["AWS_SECRET_ACCESS_KEY"] = secrets.token_urlsafe(30)
    if not token:
        token = made["EMULATOR_TOKEN"] = secrets.token_urlsafe(30)
    return Credentials(Keys(key_id, secret), token, _notice(made, where) if made else "")


def _notice(made: dict[str, str], where: Listening) -> str:
    lines = [
        f"# The server listens on {where.address} and asks for a signature (SigV4) or a token.",
        "# These are for this run; docs/settings.md says how to choose your own.",
        *(f"export {name}={value}" for name, value in made.items()),
        "# A browser: add ?token= and the token to an address, once. curl: send the header",
        '# "Authorization: Bearer $EMULATOR_TOKEN".',
    ]
    return "\n".join(lines)


def _letters(number: int) -> str:
    return base64.b32encode(secrets.token_bytes(number)).decode()[:number]
