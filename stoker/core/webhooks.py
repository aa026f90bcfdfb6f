"""Webhooks: what a delivery is, how it is signed, and when it is tried again. Pure: no clock, no network, no chance."""

import hashlib
import hmac
import re
import zlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from stoker.core.states import DeliveryState

SIGNATURE: Final = "X-Webhook-Signature"
SIGNATURE_PREVIOUS: Final = "X-Webhook-Signature-Previous"
"""Under the secret before, while both are good: so that the first one has exactly one signature, always."""
TIMESTAMP: Final = "X-Webhook-Timestamp"
EVENT: Final = "X-Webhook-Event"
DELIVERY: Final = "X-Delivery-Id"

TEST_EVENT: Final = "webhook.test"
LANES: Final = 4
"""Tries of one receiver at a time: a slow one gets four times as much, a silent one holds no more."""
REST_TIMES: Final = 3
"""A lane whose receiver said nothing rests so many times as long: silent ones take a quarter of the room at most."""
REST_MAX_S: Final = 60.0
EXCERPT_CHARS: Final = 200
EXCERPT_BYTES: Final = 2048
"""Of an answer that are read at most, for an excerpt."""
_GONE: Final = 410
_LATER: Final = frozenset({429, 503})
_SECRET_CHARS: Final = 4
"""A part of an address that is shorter is a word, and replacing it would spoil the text."""
_UNSHOWN: Final = re.compile(r"[^\x20-\x7e\xa1-\u1fff\u2c00-\ud7ff\uf900-\ufdff]+")
"""Control characters, line ends, and what turns the direction of writing."""


class Delivery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told to one address: a task's ending, or what a chat's hook is told.

    The id is the same for every try, also after a replay.
    """

    id: str
    owner_id: str
    url: str
    event: str
    task_id: str = ""  # '' = a test, or of a chat
    chat_id: str = ""
    part: str = ""  # the chat's run, message or call that it is about
    detail: str = ""
    tries: int = 0  # how many it gets at most; 0 = as the settings say


class Try(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one call. `status`: of the answer, 0 = there was none. Nothing in it holds a secret of the address."""

    at_ms: int
    took_ms: int = 0
    status: int = 0
    error: str = ""
    excerpt: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """A try with what the next step depends on. `hopeless`: another try cannot end better."""

    done: Try
    hopeless: bool = False
    retry_after_s: float = 0.0

    @property
    def arrived(self) -> bool:
        """Whether the receiver said so."""
        return 200 <= self.done.status < 300


class Policy(Struct, frozen=True, kw_only=True):
    """How long a delivery is tried."""

    pause_s: float
    pause_max_s: float
    give_up_s: float
    tries: int


class Next(Struct, frozen=True):
    """What becomes of a delivery. `pause_s`: before the next try of a pending one. `rest_s`: of its lane, for all in it."""

    state: DeliveryState
    pause_s: float = 0.0
    rest_s: float = 0.0


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of the header: HMAC-SHA256 under the secret's text, over ``<timestamp>.<body>``.

    Args:
        timestamp: seconds since 1970, as the header beside it says.
        body: as it is sent, byte by byte.
    """
    signed = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def pause_after(tries: int, policy: Policy, chance: float) -> float:
    """Seconds before the next try, after `tries` failed ones: doubled each time, of which a random half is left out.

    So receivers that failed together are not called together again.

    Args:
        chance: 0 to 1.
    """
    doubled = policy.pause_s * 2.0 ** min(tries - 1, 60)
    return min(doubled, policy.pause_max_s) * (0.5 + 0.5 * chance)


def decide_next(outcome: Outcome, tries: int, age_s: float, policy: Policy, chance: float) -> Next:
    """What becomes of a delivery after a try.

    Args:
        tries: how many it had in this round, with this one. A replay begins a round.
        age_s: seconds since the round began.
        chance: 0 to 1, for the pause.
    """
    if outcome.arrived:
        return Next(DeliveryState.DELIVERED)
    rest_s = 0.0 if outcome.done.status else min(REST_TIMES * outcome.done.took_ms / 1000, REST_MAX_S)
    if outcome.hopeless or tries >= policy.tries:
        return Next(DeliveryState.DEAD, rest_s=rest_s)
    pause_s = max(pause_after(tries, policy, chance), min(outcome.retry_after_s, policy.pause_max_s))
    if age_s + pause_s > policy.give_up_s:
        return Next(DeliveryState.DEAD, rest_s=rest_s)
    return Next(DeliveryState.PENDING, pause_s, rest_s)


def judge(status: int, headers: Mapping[str, str], done: Try) -> Outcome:
    """What an answer amounts to.

    Args:
        headers: of the answer, with names in lower case.
        done: the try, without the answer's status and error.
    """
    if 200 <= status < 300:
        return Outcome(done=Try(at_ms=done.at_ms, took_ms=done.took_ms, status=status))
    error = f"it answered {status}"
    if 300 <= status < 400:
        error += ", a redirect, and those are not followed"
    if status == _GONE:
        error += ", which says that it wants no more"
    after = headers.get("retry-after", "")
    return Outcome(
        done=Try(at_ms=done.at_ms, took_ms=done.took_ms, status=status, error=error, excerpt=done.excerpt),
        hopeless=status == _GONE,
        retry_after_s=float(after) if status in _LATER and after.isdecimal() and len(after) < 10 else 0.0,
    )


def lane_of(url: str, delivery_id: str) -> str:
    """The lane in which a delivery waits: one of those of its receiver. Tells nothing of the address."""
    parts = _split(url)
    receiver = hashlib.sha256(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower().encode())
    return f"{receiver.hexdigest()[:20]}-{zlib.crc32(delivery_id.encode()) % LANES}"


def shown_receiver(url: str) -> str:
    """An address as far as everybody may see it: without user, path and query, in which receivers put secrets."""
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def without_secrets(text: str, url: str) -> str:
    """A text of a stranger or an error, in which nothing of the address is left but the host."""
    parts = _split(url)
    pieces = {url, parts.path, parts.query, parts.fragment, parts.netloc.rpartition("@")[0]}
    pieces.update(parts.path.split("/"), re.split(r"[&;=]", parts.query))
    pieces.update({parts.username or "", parts.password or ""})
    pieces.update([unquote(piece) for piece in pieces])
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= _SECRET_CHARS:
            text = text.replace(piece, "...")
    return text


def excerpt_of(raw: bytes, url: str) -> str:
    """What is kept of an answer: the beginning, as one line of text that does no harm on a terminal."""
    text = _UNSHOWN.sub(" ", raw[:EXCERPT_BYTES].decode(errors="replace").replace("\ufffd", " "))
    return without_secrets(" ".join(text.split()), url)[:EXCERPT_CHARS]


def _split(url: str) -> SplitResult:
    """The parts of an address; of what is none, nothing."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def sealed_name(secret_id: str) -> str:
    """The name under which a secret that signs is encrypted. No variable of a user's secrets has such a name."""
    return f"webhook:{secret_id}"


class Sealed(Struct, frozen=True, kw_only=True):
    """A secret that signs, encrypted; `sealed` and `sealed_by` mean something to a `Vault` alone."""

    id: str
    sealed: str
    sealed_by: str
    created_ms: int

    @property
    def name(self) -> str:
        """What its encryption is bound to, beside the owner."""
        return sealed_name(self.id)


class SigningSecret(Struct, frozen=True, kw_only=True):
    """What signs the webhooks of one owner: the current secret, and the one before while both are good."""

    owner_id: str
    revision: str  # new with each write
    current: Sealed
    previous: Sealed | None = None
    previous_until_ms: int = 0

    def good(self, now_ms: int) -> tuple[Sealed, ...]:
        """Those to sign with at a time, the current one first."""
        if self.previous is not None and now_ms < self.previous_until_ms:
            return (self.current, self.previous)
        return (self.current,)
