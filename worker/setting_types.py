"""The kinds of values that settings have: secrets, files, topics, URLs. Each says what is wrong with a bad one.

No error text quotes a value, since that could be a secret.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import structlog
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr, ValidationInfo

from stores.model import is_context_kind

log = structlog.get_logger(__name__)

SECRET_FILE_BYTES = 65_536
SYSTEM = "system"
"""As libpq has it: the authorities that this machine trusts."""
_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_POSTGRES_HOST = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[^:\[\]]*)(:[0-9]{0,5})?")
_POSTGRES_PORTS = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")
_REDIS_PLACE = re.compile(r"rediss?:(/[0-9]*)?")
_TABLE = re.compile(r"[A-Za-z0-9._-]{3,255}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_PREFIX = re.compile(r"[^{}]*(\{[^{}]+\}[^{}]*)?")


class SecretFile(SecretStr):
    """A secret in a file, which is read each time that the secret is asked for: it may be replaced while we run."""

    def __init__(self, path: Path, *, setting: str, check: Callable[[SecretStr], SecretStr]) -> None:
        self.path = path
        self._setting = setting
        self._check = check
        self._problem: str | None = None
        super().__init__(self._read())

    def get_secret_value(self) -> str:
        """What the file holds now; where that is none, as while it is being written, what it held last."""
        problem = None
        try:
            self._secret_value = self._read()
        except ValueError as exc:
            problem = str(exc)
            if problem != self._problem:
                log.warning("secret_file_not_taken", setting=self._setting, why=problem)
        self._problem = problem
        return self._secret_value

    def _read(self) -> str:
        secret = _secret_in(self.path)
        try:
            self._check(SecretStr(secret))
        except ValueError as exc:
            raise ValueError(f"what is in {self.path} {exc}") from None
        return secret


def masked_url(url: str) -> str:
    """The URL without its password, wherever it stands: what may be shown to people."""
    url = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def address_in(url: str) -> str:
    """Hosts and ports of a database's URL: what may be shown of it to anybody."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    host = unquote(parts.netloc.rpartition("@")[2]) or asked.get("host", "")
    # A password with a bare slash or question mark ends the host part too early: then nothing is sure to be the host.
    if not host or "@" in parts.path + parts.query + parts.fragment:
        return "its address"
    return f"{host}:{asked['port']}" if "port" in asked and ":" not in host else host


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with these query parameters over those that it has."""
    if not parameters:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | dict(parameters))))


def authorities_of_system() -> str:
    """The file of this machine's authorities. Raises ValueError where none is known."""
    known = (ssl.get_default_verify_paths().cafile, *_SYSTEM_AUTHORITIES)
    for file in known:
        if file and Path(file).is_file():
            return file
    raise ValueError("is to be that of the system, which has no file of authorities: name one, or set SSL_CERT_FILE")


def with_system_authorities(url: str) -> str:
    """The URL of a PostgreSQL with the file that its `sslrootcert=system` means, which our driver does not know."""
    asked = dict(parse_qsl(urlsplit(url).query))
    is_asked = asked.get("sslrootcert") == SYSTEM
    return with_parameters(url, {"sslrootcert": authorities_of_system()}) if is_asked else url


def trusts_nobody(url: str) -> bool:
    """Whether a PostgreSQL is to be checked by authorities, and nothing says by which."""
    asked = dict(parse_qsl(urlsplit(url).query))
    mode = asked.get("sslmode") or os.environ.get("PGSSLMODE", "")
    named = asked.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    return mode.startswith("verify") and not named and not Path("~/.postgresql/root.crt").expanduser().exists()


def manifests_in(folder: Path) -> tuple[Path, ...]:
    """Every manifest of this folder, sorted: `name.json`, or `name/manifest.json`."""
    return tuple(sorted([*folder.glob("*.json"), *folder.glob("*/manifest.json")]))


def _resolved(path: object, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the configuration file."""
    if not isinstance(path, (str, Path)) or not str(path):
        raise ValueError("should be the path of a file or folder")
    folder = (info.context or {}).get("folder", Path())
    return Path(folder) / Path(path).expanduser()


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(SECRET_FILE_BYTES)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror}") from None


def _secret_file(path: object, info: ValidationInfo) -> SecretFile:
    if isinstance(path, SecretFile):
        return path
    return SecretFile(_resolved(path, info), setting=info.field_name or "", check=lambda secret: secret)


def _secret_in(path: Path) -> str:
    secret = _read(path).strip()
    if not secret:
        raise ValueError(f"{path} is empty: it should hold the secret and nothing else")
    return secret


def _authorities(path: object, info: ValidationInfo) -> str:
    return authorities_of_system() if path == SYSTEM else _file(path, info)


def _file(path: object, info: ValidationInfo) -> str:
    resolved = _resolved(path, info)
    _read(resolved)
    return str(resolved)


def _folder(path: object, info: ValidationInfo) -> Path:
    resolved = _resolved(path, info)
    if not resolved.is_dir():
        raise ValueError(f"{resolved} is not a folder")
    return resolved


def _topic(name: str) -> str:
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError("is not a name that Kafka takes for a topic: letters, digits, '.', '_' and '-', at most 249")
    return name


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ValueError(f"is not a regular expression: {exc}") from None
    return text


def _context_kind(name: str) -> str:
    if not is_context_kind(name):
        raise ValueError("is not a context kind: letters, digits, '.', '_' and '-', and neither 'kind' nor 'multi'")
    return name


def _postgres_url(dsn: SecretStr) -> SecretStr:
    text = dsn.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("should begin with postgresql://, as in postgresql://user:password@host:5432/database")
    try:
        fits = _is_postgres_url(text)
    except ValueError:  # its text quotes what may be a part of the password
        fits = False
    if not fits:
        raise ValueError(
            "should be that of a PostgreSQL, as in postgresql://user:password@host:5432/database, with characters such "
            "as / ? # @ : [ ] % in a password written as %2F %3F %23 %40 %3A %5B %5D %25"
        )
    return dsn


def _is_postgres_url(text: str) -> bool:
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    user, at, hosts = parts.netloc.rpartition("@")
    # A bare slash, question mark or hash in a password makes what follows, @ and all, a part of something else.
    is_cut = (
        "@" in user + parts.path or bool(parts.fragment) or ("@" in parts.query and not at + options.get("user", ""))
    )
    ports = options.get("port")
    return (
        not is_cut
        and all(map(_POSTGRES_HOST.fullmatch, hosts.split(",")))
        and (ports is None or _POSTGRES_PORTS.fullmatch(ports) is not None)
    )


def _redis_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        fits = _REDIS_PLACE.fullmatch(f"{parts.scheme}:{parts.path}") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, or brackets in a password; its text quotes them
        fits = False
    if not fits:
        raise ValueError(
            "should be that of a Redis, as in redis://user:password@host:6379/0, with characters such as / ? # [ ] % "
            "in a password written as %2F %3F %23 %5B %5D %25"
        )
    if parts.query or parts.fragment:
        raise ValueError("should end with the number of the database: options behind it are not read")
    return url


def _web_url(url: SecretStr) -> SecretStr:
    if not re.match("https?://[^/]", url.get_secret_value()):
        raise ValueError("should begin with https:// or http://")
    try:
        is_address = bool(urlsplit(url.get_secret_value()).hostname) and urlsplit(url.get_secret_value()).port != 0
    except ValueError:  # its text quotes what may be a part of a password
        is_address = False
    if not is_address:
        raise ValueError("should be an address, as in https://host:443")
    return url


def _table(name: str) -> str:
    if not _TABLE.fullmatch(name):
        raise ValueError("is not a name that DynamoDB takes: letters, digits, '.', '_' and '-', 3 to 255 of them")
    return name


def _region(name: str) -> str:
    if not _REGION.fullmatch(name):
        raise ValueError("is not the name of a region, as in eu-west-1")
    return name


def _prefix(text: str) -> str:
    # In a cluster what stands in braces decides where a key is, so that must be there, and once.
    if not _PREFIX.fullmatch(text):
        raise ValueError("should have no braces, or one pair of them with something in it, as in {production}")
    return text


def _checked_file(check: Callable[[SecretStr], SecretStr]) -> BeforeValidator:
    """A file whose secret must pass this check."""

    def checked(path: object, info: ValidationInfo) -> SecretFile:
        if isinstance(path, SecretFile):
            return path
        return SecretFile(_resolved(path, info), setting=info.field_name or "", check=check)

    return BeforeValidator(checked)


_SHOW_PATH = PlainSerializer(lambda file: file and str(file.path), return_type=str | None)
_SHOW_URL = PlainSerializer(lambda url: url and masked_url(url.get_secret_value()), return_type=str | None)

Name = Annotated[str, Field(min_length=1, max_length=255)]
Port = Annotated[int, Field(ge=0, le=65_535)]
TopicName = Annotated[str, AfterValidator(_topic)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]
ContextKind = Annotated[str, AfterValidator(_context_kind)]
ReadableFile = Annotated[str, BeforeValidator(_file)]
Authorities = Annotated[str, BeforeValidator(_authorities)]
Folder = Annotated[Path, BeforeValidator(_folder)]
SecretFromFile = Annotated[SecretFile, BeforeValidator(_secret_file), _SHOW_PATH]
DsnFromFile = Annotated[SecretFile, _checked_file(_postgres_url), _SHOW_PATH]
Dsn = Annotated[SecretStr, AfterValidator(_postgres_url), _SHOW_URL]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url), _SHOW_URL]
RedisUrlFromFile = Annotated[SecretFile, _checked_file(_redis_url), _SHOW_PATH]
WebUrl = Annotated[SecretStr, AfterValidator(_web_url), _SHOW_URL]
Table = Annotated[str, AfterValidator(_table)]
Region = Annotated[str, AfterValidator(_region)]
Prefix = Annotated[str, AfterValidator(_prefix)]
