"""API keys: a random secret, of which only the hash is kept, and what its holder may do."""

import hashlib
import secrets
from collections import Counter
from datetime import datetime
from typing import Annotated, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

Role = Literal["user", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

SECRET_PREFIX = "sk-steer-"
_SECRET_BYTES = 32  # 43 URL-safe characters

KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""The names that keys may have. They appear in logs, so they are plain."""


class ApiKey(BaseModel):
    """One API key: who holds it, the hash of its secret, and what it allows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=KEY_NAME)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the secret, in hexadecimal digits. The secret has 256 random bits: a slow hash would add nothing."""
    role: Role = "user"
    created: Annotated[AwareDatetime, Field(strict=False)] | None = None
    expires: Annotated[AwareDatetime, Field(strict=False)] | None = None
    """From this time on the key is refused."""
    profiles: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """The profiles that it may use, besides the baseline; None for all."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompts and completions."""
    max_sequences: Annotated[int, Field(ge=1)] | None = None
    """Sequences that run or wait at the same time."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether the key is refused at ``now``."""
        return self.expires is not None and self.expires <= now


class KeyList(BaseModel):
    """The keys of a server; no two have the same name or the same secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    keys: Annotated[tuple[ApiKey, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _different(self) -> Self:
        for what in ("name", "sha256"):
            value, count = next(iter(Counter(getattr(key, what) for key in self.keys).most_common(1)), ("", 0))
            if count > 1:
                raise ValueError(f"two keys have the {what} {value}")
        return self


def generate_secret() -> str:
    """Return a new random secret: the prefix and 43 URL-safe characters."""
    return SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(secret: bytes) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits."""
    return hashlib.sha256(secret).hexdigest()
