"""ch-image's subcommands that talk to registries: pull, push, login, logout; and list of one image."""

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from chlaunch.cli.asked import Asked, limits_of, name_in_storage
from chlaunch.errors import ChlaunchError, ImageError, UsageError
from chlaunch.image import finding, pull, push, reference
from chlaunch.image import login as keep
from chlaunch.image.auth import Policy
from chlaunch.image.finding import Wanted
from chlaunch.image.manifest import Index, host_platform, parse
from chlaunch.image.push import Goal
from chlaunch.image.reference import Reference
from chlaunch.image.registry import Registry
from chlaunch.image.retry import Patience
from chlaunch.image.store import Store


def pull_image(asked: Asked) -> int:
    """Bring an image into storage; say its name there, and its digest."""
    source = reference.parse(asked.given["source"])
    full = source.complete(asked.environment)
    if asked.given["parse_only"]:
        return _show_parts(source, full)
    target = reference.parse(asked.given["target"]) if asked.given["target"] else source
    platform = asked.platform()
    wanted = Wanted(
        name_in_storage(str(target), platform),
        str(full),
        full.version,
        platform,
        last=asked.given["last_layer"],
        fresh=bool(asked.given["always_download"]),
        limits=limits_of(asked),
    )
    store = asked.store()
    before = store.image(wanted.name)
    with registry(full, asked) as found:
        image = pull.pull(store, found, wanted, asked.events)
    same = before is not None and before.record.digest == image.record.digest != ""
    asked.events.say(f"{'up to date' if same else 'pulled'}: {image.name} {image.record.digest}".rstrip())
    asked.result({"name": image.name, "digest": image.record.digest, "platform": image.record.platform})
    return 0


def push_image(asked: Asked) -> int:
    """Bring an image of storage, or a directory, to a registry; say its digest."""
    source = reference.parse(asked.given["source"])
    target = (reference.parse(asked.given["target"]) if asked.given["target"] else source).complete(
        asked.environment
    )
    if target.digest:
        raise UsageError(f"can't push to a digest: {target}", "a digest is what comes of it: name a tag")
    store = asked.store()
    with registry(target, asked, authenticate=True) as sink:
        if asked.given["image"]:
            manifest = push.push_directory(
                store, Path(asked.given["image"]), Goal(sink, target.tag), asked.events
            )
        else:
            image = store.image(name_in_storage(str(source), asked.platform()))
            if image is None:
                raise ImageError(f"image not in storage: {source}", "ch-image list")
            origin = _neighbour(image.record.reference, target)
            manifest = push.push(store, image, Goal(sink, target.tag, origin), asked.events)
    asked.events.say(f"pushed: {target} {manifest.digest}")
    asked.result({"reference": str(target), "digest": manifest.digest})
    return 0


def login(asked: Asked) -> int:
    """Keep a name and password for a registry, after it has taken them."""
    where = _registry_alone(asked)
    username = asked.given["username"] or _ask("Username")
    password = (
        sys.stdin.readline().rstrip("\n") if asked.given["password_stdin"] else _ask("Password", hidden=True)
    )
    policy = Policy(asked.events.warn, Patience(), verify=not asked.given["tls_no_verify"])
    path = keep.login(where, username, password, asked.environment, policy)
    asked.events.say(f"logged in: {where.registry} ({path})")
    return 0


def logout(asked: Asked) -> int:
    """Forget them."""
    where = _registry_alone(asked)
    keep.logout(where, asked.environment, asked.events.warn)
    asked.events.say(f"logged out: {where.registry}")
    return 0


def show_image(asked: Asked, store: Store | None) -> int:
    """Say what is known of an image here, and what its registry has."""
    source = reference.parse(asked.given["image"])
    full = source.complete(asked.environment)
    stored = None if store is None else store.image(name_in_storage(str(source), asked.platform()))
    said: dict[str, Any] = {
        "name": str(source),
        "reference": str(full),
        "local": None
        if stored is None
        else {"digest": stored.record.digest, "platform": stored.record.platform},
        "host": str(host_platform()),
    }
    try:
        with registry(full, asked) as found:
            said["remote"] = _remote(found, full)
    except ChlaunchError as error:
        said["remote"] = None
        said["why"] = error.message
    if asked.given["json"]:
        click.echo(json.dumps(said))
        return 0
    remote = said["remote"]
    click.echo(f"image:      {said['name']}")
    click.echo(f"in storage: {f'yes ({stored.record.platform}, {stored.record.digest})' if stored else 'no'}")
    click.echo(f"remote:     {said['reference']}")
    click.echo(f"there:      {'yes' if remote else 'no: ' + said['why']}")
    for platform, digest in (remote or {}).items():
        click.echo(f"  {platform:<12} {digest}")
    return 0


@contextmanager
def registry(full: Reference, asked: Asked, *, authenticate: bool = False) -> Iterator[Registry]:
    """Give the registry of a reference, as the options say it shall be talked to."""
    made = Registry(
        full,
        asked.environment,
        authenticate=authenticate
        or bool(asked.given["auth"])
        or asked.environment.get("CH_IMAGE_AUTH") == "yes",
        verify=not asked.given["tls_no_verify"],
        warn=asked.events.warn,
        ask=_who if sys.stdin is not None and sys.stdin.isatty() else None,
    )
    try:
        yield made
    finally:
        made.close()


def _who(where: str) -> tuple[str, str]:
    """Ask on the terminal who the user is at a registry."""
    return _ask(f"Username for {where}"), _ask(f"Password for {where}", hidden=True)


def _ask(what: str, *, hidden: bool = False) -> str:
    """Ask something on the terminal.

    Raises:
        UsageError: there is none.

    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{what.lower()}: there is no terminal to ask", "--username=NAME --password-stdin")
    return getpass.getpass(f"{what}: ") if hidden else input(f"{what}: ")


def _registry_alone(asked: Asked) -> Reference:
    """Return the registry that is meant, which is named alone, without an image."""
    word = asked.given["registry"]
    if not word:
        return replace(reference.parse("x").complete(asked.environment), name="", path=())
    alone = f"{word.rstrip('/')}/x" if "/" not in word.rstrip("/") else word
    return replace(reference.parse(alone).complete(asked.environment), name="", path=(), tag="")


def _neighbour(origin: str, target: Reference) -> str:
    """Return the repository of the same registry from which an image came; empty if from elsewhere."""
    try:
        known = reference.parse(origin)
    except UsageError:
        return ""
    same = (known.host, known.port) == (target.host, target.port) and known.repository != target.repository
    return known.repository if same else ""


def _remote(found: Registry, full: Reference) -> dict[str, str]:
    """Return which platforms a registry has an image for, and the digests."""
    raw, kind = found.manifest(full.version)
    parsed = parse(raw, kind, str(full))
    if isinstance(parsed, Index):
        return {
            str(row.platform): row.digest
            for row in parsed.manifests
            if row.platform is not None and row.platform.os == "linux"
        }
    config = finding.find(found, Wanted("", str(full), full.version, None)).config
    return {str(config.platform): parsed.digest}


def _show_parts(source: Reference, full: Reference) -> int:
    """Say what a reference consists of."""
    click.echo(f"as string:    {source}")
    click.echo(f"for filename: {source.file_name}")
    click.echo("fields:")
    for name in ("host", "port", "path", "name", "tag", "digest"):
        value = getattr(full, name)
        click.echo(f"  {name:<7} {'/'.join(value) if name == 'path' else value or ''}".rstrip())
    return 0
