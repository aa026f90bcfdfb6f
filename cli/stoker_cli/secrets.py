"""`stoker secrets`: what apps get as environment variables, and the key that encrypts it at rest.

A value never comes from the command line: other users of the machine could read it there.
"""

import asyncio
import sys
from typing import Annotated, Any

import typer
from msgspec import structs

from stoker.core.errors import Conflict, SecretUnreadable
from stoker.core.ids import new_id
from stoker.core.messages import Secret
from stoker.core.webhooks import Sealed, SigningSecret
from stoker.protocol import Store
from stoker.settings import GatewaySettings, load
from stoker.vault import Vault
from stoker_cli.api import ask
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, items_of, out, print_json, print_table, safe

app = typer.Typer(no_args_is_help=True, help="Secrets that apps get as environment variables.")

Key = Annotated[str, typer.Argument(help="Name of the environment variable.")]


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """Your secrets, with masked values."""
    answer = asyncio.run(ask("GET", "/secrets"))
    if json:
        print_json(answer)
        return
    rows = [
        (secret.get("key"), secret.get("masked_value"), secret.get("description"), secret.get("updated_at"))
        for secret in items_of(answer)
    ]
    print_table("", ("key", "value", "description", "changed"), rows, empty="no secrets")


@app.command("set")
def set_(
    key: Key,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    json: JsonFlag = False,
) -> None:
    """Set a secret to what is typed, or to what comes on stdin without the line break at its end.

    Instances that hold an older value are unloaded when they are idle; runs from now on get the new one.
    """
    body: dict[str, Any] = {"value": read_value(key)}
    if description is not None:
        body["description"] = description
    answer = asyncio.run(ask("PUT", f"/secrets/{key}", json=body))
    if json:
        print_json(answer)
    else:
        out.print(f"secret {safe(key)} is set: {safe(str(answer.get('masked_value')))}")


@app.command()
def delete(key: Key, json: JsonFlag = False) -> None:
    """Delete a secret; runs of apps that need it are refused from now on."""
    asyncio.run(ask("DELETE", f"/secrets/{key}"))
    if json:
        print_json({"key": key, "deleted": True})
    else:
        out.print(f"secret {safe(key)} deleted")


@app.command("rotate-key")
def rotate_key(
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Then remove all other keys from the key file.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Encrypt all secrets of the pool under a new key. Run it where the gateway's settings are.

    What signs webhooks is encrypted anew with them.
    Works on the database, while the system runs. The new key is put into the key file; when STOKER_SECRETS_KEY
    has the keys, put a new one before the others there, start the gateways again, and then run this.
    """
    settings = load(GatewaySettings)
    vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)
    done = asyncio.run(_rotated(settings, vault, drop_old=drop_old))
    if json:
        print_json(done)
    else:
        out.print(f"{done['reencrypted']} secrets are encrypted under the key {done['key_id']}")


def read_value(key: str) -> str:
    """The value, from the terminal without an echo, or from stdin.

    Raises:
        CommandFailed: it is not text.
    """
    if sys.stdin.isatty():
        typed: str = typer.prompt(f"Value of {key}", hide_input=True)
        return typed
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise CommandFailed(
            "the value on stdin is not UTF-8 text", ExitCode.USAGE, "encode it, for instance with base64"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


async def _rotated(settings: GatewaySettings, vault: Vault, *, drop_old: bool) -> dict[str, Any]:
    store = await Store.open(settings.store_url, settings.pool)
    try:
        key_id = vault.add_key() if vault.file else next(iter(vault.keys()))
        count = 0
        for owner_id in await store.secrets.owners():
            for secret in await store.secrets.list(owner_id):
                count += await _reencrypt(store, vault, secret, key_id)
        for record in await store.signing_secrets.list():
            count += await _resign(store, vault, record, key_id)
    finally:
        await store.close()
    if drop_old and vault.file:
        vault.drop_old_keys()
    return {"key_id": key_id, "reencrypted": count, "key_file": str(vault.file) if vault.file else None}


async def _reencrypt(store: Store, vault: Vault, secret: Secret | None, key_id: str) -> bool:
    """Seal one secret anew. Whoever changes it meanwhile has sealed it under the new key."""
    while secret is not None and secret.sealed_by != key_id:
        value = _opened(vault, secret.owner_id, secret.key, secret.sealed, secret.sealed_by)
        sealed, sealed_by = vault.seal(secret.owner_id, secret.key, value)
        fresh = structs.replace(secret, sealed=sealed, sealed_by=sealed_by, revision=new_id())
        try:
            await store.secrets.put(fresh, secret)
        except Conflict:
            secret = (await store.secrets.get_many(secret.owner_id, [secret.key])).get(secret.key)
        else:
            return True
    return False


async def _resign(store: Store, vault: Vault, record: SigningSecret | None, key_id: str) -> int:
    """The same for what signs an owner's webhooks, the secret before the present one too; how many secrets."""
    while record is not None:
        olds = [each for each in (record.current, record.previous) if each and each.sealed_by != key_id]
        if not olds:
            return 0
        news = {old.id: _sealed_anew(vault, record.owner_id, old) for old in olds}
        fresh = structs.replace(
            record,
            revision=new_id(),
            current=news.get(record.current.id, record.current),
            previous=record.previous and news.get(record.previous.id, record.previous),
        )
        try:
            await store.signing_secrets.put(fresh, record)
        except Conflict:
            record = await store.signing_secrets.get(record.owner_id)
        else:
            return len(news)
    return 0


def _sealed_anew(vault: Vault, owner_id: str, old: Sealed) -> Sealed:
    value = _opened(vault, owner_id, old.name, old.sealed, old.sealed_by)
    sealed, sealed_by = vault.seal(owner_id, old.name, value)
    return structs.replace(old, sealed=sealed, sealed_by=sealed_by)


def _opened(vault: Vault, owner_id: str, name: str, sealed: str, sealed_by: str) -> str:
    try:
        return vault.open(owner_id, name, sealed, sealed_by)
    except SecretUnreadable as error:
        raise CommandFailed(
            f"{error.message} (owner {owner_id})",
            ExitCode.FAILED,
            "nothing is lost: what was sealed anew stays readable, and the old keys are kept",
        ) from error
