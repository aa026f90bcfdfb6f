"""How this machine joins: its token is exchanged for an identity, once; from then on the identity counts."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import msgspec
from msgspec import Struct

from stoker.core.enrolments import Identity, digest
from stoker.core.errors import CallerError
from stoker.core.events import Event
from stoker.log import get_logger
from stoker.settings import InvalidSettings, WorkerSettings
from stoker_worker.backoff import Backoff

IDENTITY_FILE: Final = "identity.json"
TIMEOUT_S: Final = 30.0

_identity = msgspec.json.Decoder(Identity)
_encode = msgspec.json.Encoder().encode
_log = get_logger("enrolment")


class JoinFailed(CallerError):
    """This machine could not join. Make a new token with `stoker workers enroll NAME`."""

    code = "join_failed"


class Joined(Struct, frozen=True, kw_only=True):
    """Who this machine is to the others; no identity: one that shares the gateway's machine, or needs none."""

    identity: Identity | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """What shows the gateway which engine asks."""
        if self.identity is None:
            return {}
        return {"x-stoker-engine": f"{self.identity.engine_id}:{self.identity.gateway_key}"}


async def join_once(settings: WorkerSettings, folder: Path) -> Joined:
    """The identity in `folder`; with a token that was not used for it, a new one.

    Waits for a gateway that cannot be reached yet.

    Raises:
        JoinFailed: the gateway refused the token, or its answer was lost; or the file cannot be read.
        InvalidSettings: the token would go over a network in the clear.
    """
    known = read_identity(folder)
    address = settings.join.get_secret_value()
    if not address:
        return Joined(identity=known)
    base, token = split(address)
    if known is not None and known.joined_with == digest(token):
        return Joined(identity=known)
    made = await _exchange(base, token, settings)
    write_identity(folder, made)
    _log.info(Event.WORKER_JOINED, engine=made.engine_id, gateway=base)
    return Joined(identity=made)


def applied(settings: WorkerSettings, joined: Joined) -> WorkerSettings:
    """The settings with what the identity says; addresses that are set on this machine are stronger."""
    identity = joined.identity
    if identity is None:
        return settings
    parts = urlsplit(settings.redis_url or identity.redis_url)
    user = f"{quote(identity.redis_user, safe='')}:{quote(identity.redis_password, safe='')}"
    host = parts.netloc.rpartition("@")[2]
    return settings.model_copy(
        update={
            "redis_url": urlunsplit(parts._replace(netloc=f"{user}@{host}")),
            "pool": identity.pool,
            "internal_url": settings.internal_url or settings.public_url or identity.gateway_url,
        }
    )


def split(address: str) -> tuple[str, str]:
    """``https://TOKEN@host:port`` as the gateway's address and the token.

    Raises:
        InvalidSettings: the token would go over a network in the clear.
    """
    parts = urlsplit(address)
    if parts.scheme != "https" and not _loopback(parts.hostname or ""):
        raise InvalidSettings(
            f"join: '{parts.hostname}' is reached over a network, and http:// would show the token and the identity "
            "to it. Give the gateway a certificate (STOKER_TLS_CERT_FILE) or use a tunnel to this machine."
        )
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), parts.username or ""


def read_identity(folder: Path) -> Identity | None:
    """The identity of this directory's engine, or None.

    Raises:
        JoinFailed: the file holds something else.
    """
    path = folder / IDENTITY_FILE
    try:
        return _identity.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JoinFailed(
            f"'{path}' is no identity ({error}). Remove it, and join with a new token."
        ) from error


def write_identity(folder: Path, identity: Identity) -> None:
    """Keep the identity where its owner alone can read it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder / f"{IDENTITY_FILE}.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_encode(identity))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / IDENTITY_FILE)


async def _exchange(base: str, token: str, settings: WorkerSettings) -> Identity:
    backoff = Backoff()
    told = False
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=settings.trust()) as client:
        while True:
            try:
                answer = await client.post(f"{base}/internal/join", headers=headers)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise JoinFailed(
                        f"The certificate of {base} is not trusted here ({error}). Name the certificate that "
                        "vouches for it with STOKER_CA_FILE; the token is still good."
                    ) from error
                if not told:
                    _log.warning(Event.STORE_LOST, reason=f"the gateway at {base} cannot be reached: {error}")
                told = True
            except httpx.TransportError as error:
                raise JoinFailed(
                    f"The answer of the gateway at {base} was lost ({type(error).__name__}: {error}); the token may "
                    "be used up. Revoke this worker and make a new one: stoker workers enroll NAME"
                ) from error
            await backoff.wait()
    if answer.is_error:
        raise JoinFailed(f"The gateway at {base} did not take the token: {_sentence(answer)}")
    return _identity.decode(answer.content)


def _sentence(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.status_code} {answer.text[:300]}"
    return str(body.get("detail") or body) if isinstance(body, dict) else str(body)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
