"""What an answer of the gateway, or none, means to a command: the errors of `api.py`, each a sentence."""

from types import TracebackType

import httpx
import msgspec

from stoker_cli.output import CommandFailed, ExitCode


class ApiError(CommandFailed):
    """The gateway refused a request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, _exit_code(status))
        self.status = status
        self.error_code = code


class Explained:
    """Turns transport errors, and an answer that is no JSON, into one sentence."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (httpx.InvalidURL, UnicodeEncodeError)):
            raise CommandFailed(
                f"what was given holds characters that cannot be sent: {error}", ExitCode.USAGE
            ) from error
        if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError)):
            raise no_gateway(self.url) from error
        if isinstance(error, httpx.TransportError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise CommandFailed(
                f"the certificate of {self.url} is not trusted here ({error})",
                ExitCode.UNREACHABLE,
                "name the certificate that vouches for it: STOKER_CA_FILE",
            ) from error
        if isinstance(error, httpx.TransportError):
            raise CommandFailed(
                f"no gateway answers at {self.url} ({_named(error)})",
                ExitCode.UNREACHABLE,
                "start one with `stoker up`, or set STOKER_URL to the one that runs",
            ) from error


def gateway_address(url: str) -> httpx.URL:
    """The gateway's address.

    Raises:
        CommandFailed: it is none.
    """
    try:
        found = httpx.URL(url)
        why = "its port is above 65535" if (found.port or 0) > 65535 else ""
    except httpx.InvalidURL as error:
        why = str(error)
    if why:
        raise CommandFailed(
            f"'{url}' is no address of a gateway: {why}",
            ExitCode.USAGE,
            "set STOKER_URL to one such as https://gpubox:8080",
        )
    return found


def raise_for(answer: httpx.Response, url: str) -> None:
    """Raise the gateway's problem as an ApiError, a redirect as a CommandFailed."""
    if answer.is_redirect:
        raise _redirected(answer, url)
    if answer.status_code < 400:
        return
    code, message = "", ""
    try:
        body = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict):
        code = str(body.get("type", "")).rsplit("/", 1)[-1]
        missing = [str(entry.get("message")) for entry in body.get("errors") or [] if isinstance(entry, dict)]
        message = str(body.get("detail") or body.get("message") or " ".join(missing))
    request = answer.request
    message = message or f"{request.method} {request.url.path} was answered with {answer.status_code}"
    raise ApiError(answer.status_code, code, message)


def no_gateway(url: str) -> CommandFailed:
    """Something else answers there: the page of a proxy, for instance."""
    return CommandFailed(
        f"what answers at {url} is no Stoker gateway: its answer is no JSON",
        ExitCode.UNREACHABLE,
        "set STOKER_URL to the gateway's own address",
    )


def _redirected(answer: httpx.Response, url: str) -> CommandFailed:
    """A redirect is not followed: it would carry the key to wherever an answer without TLS says."""
    target = answer.headers.get("Location", "")
    path = str(answer.request.url).removeprefix(url)
    return CommandFailed(
        f"{url} redirects to {target.removesuffix(path) or 'no address'}",
        ExitCode.UNREACHABLE,
        "set STOKER_URL to the address at which the gateway itself answers",
    )


def _named(error: httpx.TransportError) -> str:
    """An error of a connection; one of a header would show the key."""
    name = type(error).__name__
    return name if isinstance(error, httpx.LocalProtocolError) else f"{name}: {error}"


def _exit_code(status: int) -> ExitCode:
    if status in {401, 403}:
        return ExitCode.DENIED
    return ExitCode.USAGE if status < 500 and status != 429 else ExitCode.FAILED
