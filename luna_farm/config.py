"""The settings of a farm: one table, read once at start, checked completely, then frozen.

Order: command line, environment, `luna-farm.toml`, default. An unknown key or a value that is not allowed
raises `ConfigError` naming the key, the value, where it came from, what is allowed and, for a key, the
nearest known one. This module must never open a socket, create a folder or guess past an error: a farm with a
misread setting must not start.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from luna_farm import config_destinations
from luna_farm import config_values as read
from luna_farm.config_destinations import Destination
from luna_farm.config_provenance import Signing
from luna_farm.config_ray import RayCluster, missing_ray
from luna_farm.config_settings import BY_NAME, ENV_PREFIX, SETTINGS, Setting
from luna_farm.config_values import FEED_OFF as FEED_OFF
from luna_farm.errors import ConfigError

FILE_NAME = "luna-farm.toml"
TOKEN_LENGTH = 16
"""Characters of a token that others may try to guess."""
# Known in the environment, but no settings: the file to load, and what tests and fault injection use.
OTHER_ENV = ("LUNA_FARM_CONFIG",)
OTHER_ENV_PREFIXES = ("LUNA_FARM_TEST_", "LUNA_FARM_CRASH")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one farm, checked. Times in seconds, sizes in bytes, paths absolute.

    `feed_port` -1 means no feed, port 0 any free port; `arena_bytes` 0 the documented share of memory;
    `fallback_dir` None no fallback; `allowed_dirs` empty any folder; `token` "" a new one per start.
    """

    host: str
    port: int
    feed_port: int
    state_dir: Path
    allowed_dirs: tuple[Path, ...]
    tls_cert: Path | None
    tls_key: Path | None
    log_level: str
    token: str = field(repr=False)
    min_workers: int
    max_workers: int
    idle_timeout_s: float
    worker_deadline_s: float
    engine: str
    ray_address: str
    ray_max_workers: int
    ray_num_cpus: float
    ray_resources: Mapping[str, float]
    ray_bytes: int
    arena_bytes: int
    output_dir: Path
    fallback_dir: Path | None
    model_dirs: tuple[Path, ...]
    preset: str
    on_reject: str
    follow_links: bool
    fsync: bool
    durable: bool
    max_jobs: int
    max_queue_bytes: int
    max_images: int
    max_pixels: int
    max_connections: int
    journal_bytes: int
    kept_reports: int
    spool_bytes: int
    thumbnail_bytes: int
    provenance: str
    source_type: str
    aigc: str
    c2pa_certificate: Path | None
    c2pa_key: Path | None
    c2pa_command: str
    c2pa_timestamp_url: str
    c2pa_input_dirs: tuple[Path, ...]
    watermark: str
    catalogue: bool
    catalogue_fields: tuple[str, ...]
    catalogue_days: int
    given: frozenset[str] = frozenset()
    """Names of the settings that were set, if only to what the default is."""
    destinations: tuple[Destination, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Credentials of destinations, for the log to hide."""

    @property
    def signing(self) -> Signing:
        """What workers need to sign and to watermark."""
        return Signing(
            str(self.c2pa_certificate or ""),
            str(self.c2pa_key or ""),
            self.c2pa_command,
            self.c2pa_timestamp_url,
            tuple(str(folder) for folder in self.c2pa_input_dirs),
            self.watermark,
        )

    @property
    def ray_cluster(self) -> RayCluster:
        """The Ray cluster, and what its workers take of it. The name of the farm is that of its state folder
        on this machine, so that a restarted farm finds what its predecessor left."""
        import hashlib  # it and platform take 5 ms, which other farms need not wait for
        import platform

        identity = f"{platform.node()}:{self.state_dir}"
        farm = f"luna-farm-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        return RayCluster(self.ray_address, self.ray_num_cpus, self.ray_resources, self.ray_bytes, farm)


class _Given(NamedTuple):
    """One value as it was given."""

    setting: Setting
    value: Any
    source: str  # for the error message
    folder: Path  # that relative paths start from


def load(
    cli: Mapping[str, Any], environ: Mapping[str, str], file: Path | None, *, serving: bool = True
) -> Config:
    """Return the checked settings of a farm; with `serving` False those of a client of one, anywhere.

    `cli` maps names of Config fields to values (None: not given); `environ` is usually os.environ; `file` is
    a TOML file or None. Relative paths start from the working folder, those of the file from its own folder.
    Raises ConfigError for an unknown key, a value that is not allowed, or a file that cannot be read.
    """
    here = Path.cwd()
    given: dict[str, Any] = {}
    for entry in (*_from_cli(cli, here), *_from_environment(environ, here), *_from_file(file)):
        value = _checked(entry)  # also of one that gives way: it would fail on the day when it does not
        given.setdefault(entry.setting.name, value)  # the sources come strongest first
    values = {
        setting.name: _default(setting, here) for setting in SETTINGS if setting.name not in given
    } | given
    # Who sets one end of the range means it: the default of the other end gives way.
    if "max_workers" not in given:
        values["max_workers"] = max(values["max_workers"], values["min_workers"])
    if "min_workers" not in given:
        values["min_workers"] = min(values["max_workers"], values["min_workers"])
    section = _parsed(file).get(config_destinations.SECTION, {}) if file else {}
    destinations, secrets = config_destinations.destinations(section, environ, file)
    config = Config(**values, given=frozenset(given), destinations=destinations, secrets=secrets)
    _check_together(config, serving)
    if serving:
        _check_listener(config)
        absent = missing_ray() if config.engine != "local" else ""
        if absent:
            raise ConfigError(absent, "engine", config.engine, "local, or another once Ray is installed")
    return config


def find_file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the settings file to read, None without one.

    It is the one LUNA_FARM_CONFIG names, else ./luna-farm.toml, else the one in the user's config folder.
    """
    named = environ.get("LUNA_FARM_CONFIG")
    if named:
        return cwd / named
    places = (cwd, user_config_dir())
    return next((place / FILE_NAME for place in places if (place / FILE_NAME).is_file()), None)


def user_config_dir() -> Path:
    """Return the platform's folder for the settings of a user's programs, such as ~/.config/luna-farm."""
    import platformdirs

    return Path(platformdirs.user_config_dir("luna-farm", appauthor=False))


def default_state_dir() -> Path:
    """Return the platform's folder for the state of a user's programs, such as ~/.local/state/luna-farm."""
    import platformdirs

    return Path(platformdirs.user_state_dir("luna-farm", appauthor=False))


def in_url(host: str) -> str:
    """Return a host as it stands before a port: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return whether `host` is reachable from this machine only (by its name: nothing is looked up)."""
    return host == "localhost" or (read.is_address(host) and ipaddress.ip_address(host).is_loopback)


def _default(setting: Setting, here: Path) -> Any:
    return default_state_dir() if setting.name == "state_dir" else setting.reader(setting.default, here)


def _from_cli(cli: Mapping[str, Any], here: Path) -> Iterator[_Given]:
    for name, value in cli.items():
        if name not in BY_NAME:
            raise _unknown(name, "the command line", BY_NAME)
        if value is not None:
            yield _Given(BY_NAME[name], value, f"the command line, {BY_NAME[name].option}", here)


def _from_environment(environ: Mapping[str, str], here: Path) -> Iterator[_Given]:
    by_env = {setting.env: setting for setting in SETTINGS}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name in OTHER_ENV or name.startswith(OTHER_ENV_PREFIXES):
            continue
        if config_destinations.is_known(name):
            continue
        if name not in by_env:
            raise _unknown(name, "the environment", (*by_env, *OTHER_ENV))
        if value != "":  # an empty variable is how shells and unit files take one back
            yield _Given(by_env[name], value, f"the environment, {name}", here)


def _from_file(file: Path | None) -> Iterator[_Given]:
    if file is None:
        return
    by_key = {f"{setting.section}.{setting.key}": setting for setting in SETTINGS if not setting.secret}
    for section, entries in _parsed(file).items():
        if section == config_destinations.SECTION:
            continue
        # A bare key is unknown whatever it is called: every setting lives in a section.
        for key, value in entries.items() if isinstance(entries, dict) else [("", entries)]:
            name = f"{section}.{key}".rstrip(".")
            if name not in by_key:
                raise _unknown(name, str(file), by_key)
            yield _Given(by_key[name], value, f"{file}, {name}", file.absolute().parent)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        import tomllib as toml
    except ModuleNotFoundError:  # Python 3.10
        import tomli as toml  # type: ignore[no-redef, unused-ignore]
    try:
        return toml.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        text = f"The settings file {file} cannot be read: {error.strerror}."
        raise ConfigError(text, "file", str(file), "a readable TOML file") from error
    except ValueError as error:  # not TOML, or not UTF-8
        text = f"The settings file {file} is not valid TOML: {error}."
        raise ConfigError(text, "file", str(file), "a readable TOML file") from error


def _checked(entry: _Given) -> Any:
    setting = entry.setting
    try:
        return setting.reader(entry.value, entry.folder)
    except (ValueError, OverflowError, RuntimeError):  # RuntimeError: ~ of a user that does not exist
        shown = "(hidden)" if setting.secret else repr(entry.value)
        text = f"{setting.name}: {shown} is not allowed (from {entry.source}); allowed: {setting.allowed}."
        raise ConfigError(text, setting.name, shown, setting.allowed) from None


def _unknown(key: str, source: str, known: Iterable[str]) -> ConfigError:
    names = list(known)
    # The right name in a wrong place, or in none, is nearer than any other spelling.
    last = key.rpartition(".")[2]
    alike = [name for name in names if name.rpartition(".")[2] == last]
    import difflib  # only here: a farm without mistakes does without it

    near = (alike or difflib.get_close_matches(key, names, n=1, cutoff=0.0))[0]
    section, _, plain = near.rpartition(".")
    where = f" It belongs below [{section}]." if plain == key and section else ""
    text = f"{key}: there is no such setting (from {source}); the nearest known one is {near}.{where}"
    return ConfigError(text, key, "", ", ".join(names))


def _check_together(config: Config, serving: bool) -> None:
    """Refuse values that are allowed one by one but not together."""
    if config.min_workers > config.max_workers:
        raise _refused(
            "min_workers", config.min_workers, f"at most max_workers, which is {config.max_workers}"
        )
    if config.port and config.port == config.feed_port:
        raise _refused("feed_port", config.feed_port, "a port other than that of the job listener")
    if serving and (config.tls_cert is None) != (config.tls_key is None):  # a client only trusts one
        raise _refused(
            "tls_key" if config.tls_key is None else "tls_cert",
            None,
            "both of tls_cert and tls_key or neither",
        )


def _check_listener(config: Config) -> None:
    """Refuse to listen beyond this machine unless that was prepared for."""
    needed = ("token", "tls_cert", "tls_key", "allowed_dirs")
    if not is_loopback(config.host) and not all(getattr(config, name) for name in needed):
        unset = ", ".join(name for name in needed if not getattr(config, name))
        raise _refused(
            "host", config.host, f"127.0.0.1, ::1, localhost, or another once {unset} are set, too"
        )
    if not is_loopback(config.host) and len(config.token) < TOKEN_LENGTH:
        raise ConfigError(
            f"token: it has {len(config.token)} characters, which can be tried out from elsewhere; allowed:"
            f" at least {TOKEN_LENGTH} once the farm listens beyond this machine.",
            "token",
            "(hidden)",
            f"at least {TOKEN_LENGTH} characters",
        )
    fallback, allowed = config.fallback_dir, config.allowed_dirs
    if fallback and allowed and not any(fallback.is_relative_to(folder) for folder in allowed):
        raise _refused(
            "fallback_dir", str(fallback), f"a folder below allowed_dirs: {', '.join(map(str, allowed))}"
        )


def _refused(key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{key}: {value!r} is not allowed; allowed: {allowed}.", key, repr(value), allowed)
