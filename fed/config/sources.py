"""Where the options of a job come from: arguments, the environment, ``fed.toml``.

An option can be given, strongest first:

1. as an argument of `fed.init` or `fed.job`; None counts as not given;
2. in the environment, as ``FED_`` and its name in capitals; an empty variable counts as not given;
3. in a file: the argument ``config``, else ``FED_CONFIG``, else ``fed.toml`` in the current directory if there is one.

==========================  ===========================  =========================================================
in ``fed.toml``             environment                  what its text means there
==========================  ===========================  =========================================================
``job``, ``party``          ``FED_JOB``, ``FED_PARTY``
``listen``, ``insecure``    ``FED_LISTEN`` and so on
``[parties]``               ``FED_ADDRESSES``            ``alice=host:port,bob=host:port``
``[tls] ca``                ``FED_TLS_CA``               a path, and likewise ``[tls] cert`` and ``[tls] key``:
                                                         ``{party}`` in it stands for this party's name, so that
                                                         one file serves every party
``[ray] address``           ``FED_RAY_ADDRESS``          as is; likewise ``[ray] namespace``
``[ray] proxy_resources``   ``FED_RAY_PROXY_RESOURCES``  ``fed=0.001``; ``none`` undoes what a file says
``[options]`` and below:    ``FED_LEASE_S`` and so on    for ``expose_errors``: ``type``, or a level per party,
every other option                                       ``bob=message,carol=type``
==========================  ===========================  =========================================================

The three credentials are looked up one by one, so that a file may give the authority and the environment the key.
Everything else, the list of parties too, comes whole from the strongest place that gives it. Relative paths in a
file are relative to that file, others to the current directory. A name that nobody knows is refused, with the
nearest valid one. The environment is not only ours: there a name is refused if it is nearly one of ours. Classes and
functions can be given as arguments only.

Variables that begin with ``FED_RUN_`` belong to the command ``fed run``, which talks to its children by them; one is
read here: ``FED_RUN_JOB`` names the job if nothing else does. Likewise ``RAY_ADDRESS``, Ray's own, names the cluster if
nothing else does.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fed.config.model import PATH, RULES, Config, Rule, TLSConfig, check_ray_address, unknown_name, wrong_value
from fed.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_JOB_VARIABLE", "LOG_DIR_VARIABLE", "RAY_ADDRESS_VARIABLE", "gather", "load"]

FILE_NAME: Final = "fed.toml"
ENVIRONMENT_PREFIX: Final = "FED_"
RUN_PREFIX: Final = "FED_RUN_"
DEFAULT_JOB_VARIABLE: Final = "FED_RUN_JOB"
CONFIG_VARIABLE: Final = "FED_CONFIG"
LOG_DIR_VARIABLE: Final = "FED_LOG_DIR"
"""Read by the command line, and known here, since a script may also be started without it."""

RAY_ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
"""Ray's own, by which it is told what cluster to use. It is set in whatever ``ray job submit`` runs."""

_REQUIRED: Final = ("job", "party", "addresses")
_AT_THE_TOP: Final = ("job", "party", "listen", "insecure")
_ARGUMENTS_ONLY: Final = ("exceptions", "types", "failure_handler")

NEAR: Final = 0.8
"""How much a variable must resemble an option's, by `difflib`, to be taken for a misspelt one: LEASE does LEASE_S, and
neither PORT nor PARTY_PORT does PARTY."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One thing that can be given in a file or in the environment: an option, or one of the three credentials.

    Attributes:
        name: The field's name, or ``tls.`` and the field's name.
        rule: What it may hold.
        table: Its table in the file, empty for the top level.
        key: Its key in that table; empty where the whole table is the value.
    """

    name: str
    rule: Rule
    table: str
    key: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")

    @property
    def place(self) -> str:
        """How a sentence names its place in a file."""
        return " ".join(part for part in (self.table and f"[{self.table}]", self.key) if part)

    def checked(self, value: object, where: str, base: Path) -> Any:
        """The value as it is stored; a relative path is taken as one below `base`."""
        checked = self.rule.checked(value, where)
        return base / checked if self.rule is PATH else checked


def _settings() -> Iterator[Setting]:
    for name, rule in RULES.items():
        if name == "tls":
            for field in dataclasses.fields(TLSConfig):
                yield Setting(f"tls.{field.name}", PATH, "tls", field.name)
        elif name == "addresses":
            yield Setting(name, rule, "parties", "")
        elif name.startswith("ray_"):
            yield Setting(name, rule, "ray", name.removeprefix("ray_"))
        elif name not in _ARGUMENTS_ONLY:
            yield Setting(name, rule, "" if name in _AT_THE_TOP else "options", name)


SETTINGS: Final = tuple(_settings())
_TABLES: Final = frozenset(setting.table for setting in SETTINGS if setting.table)


def load(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Config:
    """Put a job's options together from every place where they can be given.

    Args:
        arguments: What `fed.init` was given. Beside the fields of `Config`: ``config``, the path of the file. Addresses
            may be strings, ``tls`` a mapping, paths strings. None counts as not given.
        environ: The process's environment.
        directory: Where ``fed.toml`` is looked for, and what relative paths outside of a file are relative to.

    Returns:
        The options, checked, with absolute paths if `directory` is absolute.

    Raises:
        ConfigError: Something is missing, unknown, malformed or contradictory. The message is one sentence that names
            the place and what would be right.
    """
    given = gather(arguments, environ, directory)
    for setting in SETTINGS:
        if setting.name in _REQUIRED and setting.name not in given:
            raise ConfigError(
                f"no {setting.name} given: pass {setting.name}= to fed.init, set {setting.variable}, or write "
                f"{setting.place} in {FILE_NAME}"
            )
    credentials = {name: given.pop(f"tls.{name}") for name in ("ca", "cert", "key") if f"tls.{name}" in given}
    if credentials:
        given["tls"] = _credentials(credentials, given["party"])
    return Config(**given)


def gather(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> dict[str, Any]:
    """Look up what is given anywhere, each option checked for itself, without asking whether it is enough.

    For those who look before `fed.init` is called, as ``fed run`` does. The arguments are those of `load`.

    Returns:
        The given options by the names of the fields of `Config`; the credentials as ``tls.ca`` and so on.

    Raises:
        ConfigError: Something is unknown or malformed.
    """
    from_arguments = _from_arguments(arguments, directory)
    from_environment = _from_environment(environ, directory)
    given = {**_from_file(_file(arguments, environ, directory)), **from_environment, **from_arguments}
    if environ.get(DEFAULT_JOB_VARIABLE):
        given.setdefault("job", environ[DEFAULT_JOB_VARIABLE])
    if "ray_address" not in given and environ.get(RAY_ADDRESS_VARIABLE):
        given["ray_address"] = check_ray_address(environ[RAY_ADDRESS_VARIABLE], RAY_ADDRESS_VARIABLE)
    return given


def _credentials(paths: Mapping[str, Path], party: str) -> TLSConfig:
    for setting in SETTINGS:
        if setting.table == "tls" and setting.key not in paths:
            raise ConfigError(
                f"{setting.key} of tls is missing, though {' and '.join(paths)} {'is' if len(paths) == 1 else 'are'} "
                f"given: set {setting.variable}, or write {setting.place} in {FILE_NAME}"
            )
    return TLSConfig(**{name: Path(str(path).replace("{party}", party)) for name, path in paths.items()})


def _from_arguments(arguments: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in RULES and name != "config":
            raise unknown_name("option", name, [*RULES, "config"], "arguments")
        if value is None or name == "config":
            continue
        checked = RULES[name].checked(value, f"argument {name}")
        if isinstance(checked, TLSConfig):
            for field in dataclasses.fields(checked):
                given[f"tls.{field.name}"] = directory / getattr(checked, field.name)
        else:
            given[name] = checked
    return given


def _from_environment(environ: Mapping[str, str], directory: Path) -> dict[str, Any]:
    settings = {setting.variable: setting for setting in SETTINGS}
    others = (CONFIG_VARIABLE, LOG_DIR_VARIABLE)
    given: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(RUN_PREFIX) or variable in others:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in _ARGUMENTS_ONLY:
            raise ConfigError(f"{variable}: {name} cannot stand in a variable: pass it to fed.init as an argument")
        if variable not in settings:
            _refuse_misspelt(variable, [*settings, *others])
        elif environ[variable]:
            setting = settings[variable]
            given[setting.name] = setting.checked(_read(setting, environ[variable]), variable, directory)
    return given


def _refuse_misspelt(variable: str, valid: Iterable[str]) -> None:
    """Refuse a variable that is nearly one of ours. Any other is somebody else's.

    The prefix is no sign: Kubernetes tells a container of each service, and of one called ``fed-alice`` by
    ``FED_ALICE_PORT`` and the like.
    """
    names = [name.removeprefix(ENVIRONMENT_PREFIX) for name in valid]
    near = difflib.get_close_matches(variable.removeprefix(ENVIRONMENT_PREFIX), names, n=1, cutoff=NEAR)
    if near:
        raise ConfigError(
            f"environment: unknown variable {variable!r}, did you mean {ENVIRONMENT_PREFIX + near[0]!r}? "
            "If it is meant for something else, give it another name"
        )


def _read(setting: Setting, text: str) -> Any:
    try:
        return setting.rule.read(text)
    except ConfigError as error:
        raise ConfigError(f"{setting.variable}: {error}") from None
    except ValueError:
        raise wrong_value(setting.variable, text, setting.rule.expected) from None


def _file(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Path | None:
    if arguments.get("config") is not None:
        return Path(directory, PATH.checked(arguments["config"], "argument config"))
    if environ.get(CONFIG_VARIABLE):
        return directory / environ[CONFIG_VARIABLE]
    path = directory / FILE_NAME
    return path if path.exists() else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    settings = {(setting.table, setting.key): setting for setting in SETTINGS}
    given: dict[str, Any] = {}
    for table, key, value in _entries(path):
        if (table, key) not in settings:
            raise _unknown_key(path, table, key)
        setting = settings[table, key]
        given[setting.name] = setting.checked(value, f"{path}: {setting.place}", path.parent)
    return given


def _entries(path: Path) -> Iterator[tuple[str, str, object]]:
    """What a file holds: table, key and value of each entry; the table of addresses is a single one."""
    for name, value in _parsed(path).items():
        if name not in _TABLES:
            yield "", name, value
        elif not isinstance(value, Mapping):
            raise wrong_value(f"{path}: {name}", value, f"a table, [{name}]")
        elif name == "parties":
            yield name, "", value
        else:
            for key, entry in value.items():
                yield name, key, entry


def _unknown_key(path: Path, table: str, key: str) -> ConfigError:
    where = f"[{table}] of {path}" if table else str(path)
    if key in _ARGUMENTS_ONLY:
        return ConfigError(f"{where}: {key} cannot stand in a file: pass it to fed.init as an argument")
    for setting in SETTINGS:
        if key in (setting.key, setting.name) and setting.table != table:
            home = f"in [{setting.table}]" if setting.table else "at the top of the file"
            home += f" as {setting.key}" if setting.table and setting.key else ""
            return ConfigError(f"{where}: unknown key {key!r}: it belongs {home}")
    valid = {setting.key for setting in SETTINGS if setting.table == table} | (_TABLES if not table else set())
    return unknown_name("key", key, valid, where)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    # Editors of Windows begin UTF-8 with a byte order mark, and offer UTF-16, in which every second byte of these is 0.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ConfigError(f"{path} is UTF-16 or no text at all: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = error.object[error.start]
        raise ConfigError(f"{path}, line {line}: byte {wrong:#04x} is not UTF-8: save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, line, column = _position(str(error), text)
        raise ConfigError(f"{path}, line {line}, column {column}: {problem}") from None


def _position(message: str, text: str) -> tuple[str, int, int]:
    """Split the parser's message into the problem, its line and its column, both from 1."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match:
        return match[1], int(match[2]), int(match[3])
    # The parser says "at end of document" instead of a position.
    lines = text.split("\n")
    return message, len(lines), len(lines[-1]) + 1
