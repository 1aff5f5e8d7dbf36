"""The table of settings: the name of each in the file, in the environment and on the command line, how it is
read, its default and its help. Everything that lists settings is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luna_farm import config_values as read
from luna_farm.config_provenance import PROVENANCES, SOURCE_TYPES
from luna_farm.config_ray import ADDRESS, ENGINES, RESOURCES, read_address, read_resources

ENV_PREFIX = "LUNA_FARM_"
# fmt: off
CATALOGUE_FIELDS = ("prompt", "negative", "model", "loras", "sampler", "seed", "custom", "warnings", "scores")
# fmt: on


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
_PATH = "a path, not a URL, without quotes"
_PATH_LIST = "a list of paths; as text with : between them (on Windows ;) or as JSON"
_COUNT = "a whole number from {} to {}"
_MIB = 2**20

# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("host", "server", "host", "127.0.0.1", read.host, "a host name or an IP address",
            "address of the job listener; beyond loopback it needs token, tls_cert, tls_key, allowed_dirs"),
    Setting("port", "server", "port", 19283, read.whole(0, 65535), _PORT, "TCP port of the job listener"),
    Setting("feed_port", "server", "feed_port", 19284, read.whole(0, 65535, off=True), _PORT + ", or off",
            "port of status feed, dashboard and metrics"),
    Setting("state_dir", "server", "state_dir", None, read.path, _PATH,
            "folder of token, journal, dead letters and log"),
    Setting("allowed_dirs", "server", "allowed_dirs", (), read.paths, _PATH_LIST,
            "output folders must lie in one of these; empty: any folder"),
    Setting("tls_cert", "server", "tls_cert", None, read.path_or_none, _PATH,
            "certificate (PEM) of a listener beyond loopback"),
    Setting("tls_key", "server", "tls_key", None, read.path_or_none, _PATH,
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
            "pixels on their way to the cluster; at most 0.4 of Ray's object store on this machine"),
    Setting("arena_bytes", "arena", "bytes", 0, read.size(_MIB, automatic=True),
            "a size from 1 MiB to 1 PiB such as 256MiB, or 0 for the automatic share",
            "shared memory for pixels on their way"),
    Setting("output_dir", "save", "output_dir", "output", read.path, _PATH,
            "folder for requests that name none"),
    Setting("fallback_dir", "save", "fallback_dir", None, read.path_or_none, _PATH,
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
    Setting("c2pa_certificate", "provenance", "c2pa_certificate", None, read.path_or_none, _PATH,
            "certificate chain (PEM) that signs manifests, the owner's own first"),
    Setting("c2pa_key", "provenance", "c2pa_key", None, read.path_or_none, _PATH,
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
            read.some_of(*CATALOGUE_FIELDS), "a list of some of " + ", ".join(CATALOGUE_FIELDS),
            "what a row keeps beside the file, its size, its format, its job and its times"),
    Setting("catalogue_days", "catalogue", "catalogue_days", 0, read.whole(0, 36_500),
            _COUNT.format(0, 36_500) + " (0: for ever)", "days after which rows are removed; files stay"),
)
# fmt: on
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
