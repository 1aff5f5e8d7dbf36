"""The settings of a farm: one table, read once at start, checked completely, then frozen.

Order: command line, environment, `luna-farm.toml`, default. An unknown key or a value that is not allowed
raises `ConfigError` naming the key, the value, where it came from, what is allowed and, for a key, the
nearest known one. This module must never open a socket, create a folder or guess past an error: a farm with a
misread setting must not start.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from luna_farm import config_destinations
from luna_farm import config_values as read
from luna_farm.config_destinations import Destination
from luna_farm.config_provenance import PROVENANCES, SOURCE_TYPES, Signing
from luna_farm.config_ray import ADDRESS, ENGINES, RESOURCES, RayCluster, read_address, read_resources
from luna_farm.config_values import FEED_OFF as FEED_OFF
from luna_farm.errors import ConfigError

ENV_PREFIX = "LUNA_FARM_"
FILE_NAME = "luna-farm.toml"
TOKEN_LENGTH = 16
"""Characters of a token that others may try to guess."""
# fmt: off
CATALOGUE_FIELDS = ("prompt", "negative", "model", "loras", "sampler", "seed", "custom", "warnings", "scores")
# fmt: on
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
        identity = f"{platform.node()}:{self.state_dir}"
        farm = f"luna-farm-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        return RayCluster(self.ray_address, self.ray_num_cpus, self.ray_resources, self.ray_bytes, farm)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: how a setting is called in each place, how it is read, and what is allowed."""

    name: str  # the field of Config
    section: str
    key: str
    default: Any
    reader: read.Reader[Any]
    allowed: str
    help: str
    secret: bool = False  # environment only: neither process arguments nor a file that gets copied around

    @property
    def env(self) -> str:
        """Name of the environment variable."""
        return ENV_PREFIX + (self.name if self.key == "bytes" else self.key).upper()

    @property
    def option(self) -> str:
        """Name of the command-line option."""
        return "--" + self.name.removesuffix("_s").replace("_", "-")


_PORT = "a whole number from 0 to 65535 (0: any free port)"
_PATH_LIST = "a list of paths (in the environment with : between them, on Windows ;)"
_COUNT = "a whole number from {} to {}"
_MIB = 2**20

# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("host", "server", "host", "127.0.0.1", read.host, "a host name or an IP address",
            "address of the job listener; beyond loopback it needs token, tls_cert, tls_key, allowed_dirs"),
    Setting("port", "server", "port", 19283, read.whole(0, 65535), _PORT, "TCP port of the job listener"),
    Setting("feed_port", "server", "feed_port", 19284, read.whole(0, 65535, off=True), _PORT + ", or off",
            "port of status feed, dashboard and metrics"),
    Setting("state_dir", "server", "state_dir", None, read.path, "a path",
            "folder of token, journal, dead letters and log"),
    Setting("allowed_dirs", "server", "allowed_dirs", (), read.paths, _PATH_LIST,
            "output folders must lie in one of these; empty: any folder"),
    Setting("tls_cert", "server", "tls_cert", None, read.path_or_none, "a path",
            "certificate (PEM) of a listener beyond loopback"),
    Setting("tls_key", "server", "tls_key", None, read.path_or_none, "a path",
            "private key (PEM) of tls_cert"),
    Setting("log_level", "server", "log_level", "info", read.one_of("debug", "info", "warning", "error"),
            "debug, info, warning or error", "least important lines that are still logged"),
    Setting("token", "server", "token", "", read.text, "printable text",
            "explicit token; without one the farm makes a new one at each start", secret=True),
    Setting("min_workers", "pool", "min_workers", 2, read.whole(1, 256), _COUNT.format(1, 256),
            "workers that are always there"),
    Setting("max_workers", "pool", "max_workers", 4, read.whole(1, 256),
            _COUNT.format(1, 256) + ", at least min_workers", "workers at most, while the queue is deep"),
    Setting("idle_timeout_s", "pool", "idle_timeout", 300.0, read.seconds(0.05, 86400),
            "seconds from 0.05 to 86400", "idle time before a worker above the minimum is reaped"),
    Setting("worker_deadline_s", "pool", "worker_deadline", 120.0, read.seconds(0.5, 86400),
            "seconds from 0.5 to 86400",
            "time without progress after which a worker is killed and its image handed to another"),
    Setting("engine", "pool", "engine", "local", read.one_of(*ENGINES), "local, ray or auto",
            "who encodes: this machine, a Ray cluster, or by cost one of the two"),
    Setting("ray_address", "pool", "ray_address", "auto", read_address, ADDRESS,
            "the Ray cluster; auto: the one that a node on this machine belongs to"),
    Setting("ray_max_workers", "pool", "ray_max_workers", 16, read.whole(1, 256), _COUNT.format(1, 256),
            "workers in the Ray cluster at most, while the queue is deep"),
    Setting("ray_num_cpus", "pool", "ray_num_cpus", 1.0, read.seconds(0.01, 256),
            "a number from 0.01 to 256", "CPUs that one worker takes of the Ray cluster"),
    Setting("ray_resources", "pool", "ray_resources", "", read_resources, RESOURCES,
            "further resources that one worker takes of the Ray cluster"),
    Setting("ray_bytes", "pool", "ray_bytes", 512 * _MIB, read.size(_MIB),
            "a size from 1 MiB to 1 PiB such as 512MiB",
            "pixels in the object store at a time; 0.4 of its size on this machine at most"),
    Setting("arena_bytes", "arena", "bytes", 0, read.size(_MIB, automatic=True),
            "a size from 1 MiB to 1 PiB such as 256MiB, or 0 for the automatic share",
            "shared memory for pixels on their way"),
    Setting("output_dir", "save", "output_dir", "output", read.path, "a path",
            "folder for requests that name none"),
    Setting("fallback_dir", "save", "fallback_dir", None, read.path_or_none, "a path",
            "where files go while their own folder cannot be written"),
    Setting("model_dirs", "save", "model_dirs", (), read.paths, _PATH_LIST,
            "folders of models whose files are hashed for galleries, such as ComfyUI/models; empty: none"),
    Setting("preset", "save", "preset", "balanced",
            read.one_of("fast", "balanced", "small", "archive", "web"),
            "fast, balanced, small, archive or web",
            "settings of all formats by intent, for requests that name none"),
    Setting("on_reject", "save", "on_reject", "discard", read.one_of("discard", "keep", "drop"),
            "discard, keep or drop",
            "images that the quality gate rejects: saved into _discarded, saved as usual, or not saved"),
    Setting("follow_links", "save", "follow_links", False, read.switch, "true or false",
            "folders below output_dir may be links, as far as these end in allowed_dirs"),
    Setting("fsync", "save", "fsync", True, read.switch, "true or false",
            "write files through to the disk before they count as saved"),
    Setting("durable", "save", "durable", False, read.switch, "true or false",
            "spool pixels to disk before a job is accepted, so that accepted jobs survive a power cut"),
    Setting("max_jobs", "limits", "max_jobs", 10_000, read.whole(1, 10**6), _COUNT.format(1, 10**6),
            "unfinished jobs"),
    Setting("max_queue_bytes", "limits", "max_queue_bytes", 4096 * _MIB, read.size(_MIB),
            "a size from 1 MiB to 1 PiB such as 4GiB", "pixels of unfinished jobs"),
    Setting("max_images", "limits", "max_images", 10_000, read.whole(1, 10**5), _COUNT.format(1, 10**5),
            "images of one job"),
    Setting("max_pixels", "limits", "max_pixels", 2**28, read.whole(1, 2**31), _COUNT.format(1, 2**31),
            "pixels (height x width) of one image"),
    Setting("max_connections", "limits", "max_connections", 256, read.whole(1, 10**5),
            _COUNT.format(1, 10**5), "clients connected at a time"),
    Setting("journal_bytes", "limits", "journal_bytes", 64 * _MIB, read.size(64 * 1024),
            "a size from 64 KiB to 1 PiB such as 64MiB",
            "journal; compacted before it reaches this, and busy if unfinished jobs alone fill it"),
    Setting("kept_reports", "limits", "kept_reports", 1000, read.whole(0, 10**6), _COUNT.format(0, 10**6),
            "reports of finished jobs that are kept, of 50 images each on the average at most"),
    Setting("spool_bytes", "limits", "spool_bytes", 4096 * _MIB, read.size(_MIB),
            "a size from 1 MiB to 1 PiB such as 4GiB",
            "encoded files in the state folder that wait for their destination; busy beyond it"),
    Setting("thumbnail_bytes", "limits", "thumbnail_bytes", 512 * _MIB, read.size(_MIB, automatic=True),
            "a size from 1 MiB to 1 PiB such as 512MiB, or 0 for none",
            "thumbnails of saved images, for the gallery; the oldest give way"),
    Setting("provenance", "provenance", "provenance", "off", read.one_of(*PROVENANCES),
            "off, xmp or c2pa", "marks of generated images for requests that say nothing about them"),
    Setting("source_type", "provenance", "source_type", "generated", read.one_of(*SOURCE_TYPES),
            "generated or composite", "made by a model alone, or from other images too"),
    Setting("aigc", "provenance", "aigc", "", read.text, "a JSON object of fields of GB 45438-2025",
            "China's label, written into the XMP"),
    Setting("c2pa_certificate", "provenance", "c2pa_certificate", None, read.path_or_none, "a path",
            "certificate chain (PEM) that signs manifests, the owner's own first"),
    Setting("c2pa_key", "provenance", "c2pa_key", None, read.path_or_none, "a path",
            "private key (PEM, no password) of c2pa_certificate"),
    Setting("c2pa_command", "provenance", "c2pa_command", "", read.text, "a command",
            "program that signs instead of c2pa_key: bytes in, signature out (PKCS#11, cloud services)"),
    Setting("c2pa_timestamp_url", "provenance", "c2pa_timestamp_url", "", read.text, "a URL",
            "RFC 3161 service that dates signatures, so that they outlive the certificate"),
    Setting("c2pa_input_dirs", "provenance", "c2pa_input_dirs", (), read.paths, _PATH_LIST,
            "folders that input images named by requests may be read from"),
    Setting("watermark", "provenance", "watermark", "", read.text, "a name",
            "entry point of the group luna_farm.watermarks, run on the pixels of every image"),
    Setting("catalogue", "catalogue", "catalogue", True, read.switch, "true or false",
            "keep a searchable row for each saved image in the state folder"),
    Setting("catalogue_fields", "catalogue", "catalogue_fields", CATALOGUE_FIELDS,
            read.some_of(*CATALOGUE_FIELDS), "a list of " + ", ".join(CATALOGUE_FIELDS),
            "what a row keeps beside the file, its size, its format, its job and its times"),
    Setting("catalogue_days", "catalogue", "catalogue_days", 0, read.whole(0, 36_500),
            _COUNT.format(0, 36_500) + " (0: for ever)", "days after which rows are removed; files stay"),
)
# fmt: on
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


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
        if entry.setting.name not in given:  # the sources come strongest first
            given[entry.setting.name] = _checked(entry)
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
