"""Every setting of the service: its type, unit, range, default and one sentence about it.

Knows names, types and bounds; does not know where a value comes from, nor what a setting does.
Invariant: a value outside its range makes no settings.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

PREFIX: Final = "SHELFRANK_"
ORIGINS: Final = r"^(\*|https?://[^\s/,*]+(,https?://[^\s/,*]+)*)?$"
TENANTS: Final = r"^({each}(,{each})*)?$".format(each=r"[a-z0-9][a-z0-9_-]{0,62}=[1-9][0-9]{0,3}")
ALIASES: Final = r"^({each}(,{each})*)?$".format(each=r"[^\s,=]+=[^\s,=]+")
OTLP_URL: Final = r"^(https?://[^\s/]+(/\S*)?)?$"


class SettingsError(Exception):
    """A setting is unknown or has a value outside its range; the message names it."""


def _setting(default: Any, unit: str, sentence: str, **bounds: Any) -> Any:
    """Describe a setting; its bounds are `low`, `high` and `pattern`, none of them unless given."""
    names = {"low": "ge", "high": "le", "pattern": "pattern"}
    limits = {names[bound]: value for bound, value in bounds.items()}
    return Field(default=default, description=sentence, json_schema_extra={"unit": unit}, **limits)


class Settings(BaseModel):
    """All settings, read once at the start and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    host: str = _setting("127.0.0.1", "address", "Address to listen on.")
    port: int = _setting(
        8000, "port", "Port to listen on; 0 takes a free one and logs it.", low=0, high=65535
    )
    admin_host: str = _setting(
        "127.0.0.1", "address", "Address of the second listener, which has /metrics and the admin calls."
    )
    admin_port: int = _setting(
        9000,
        "port",
        "Port of the second listener; 0 takes a free one and logs it.",
        low=0,
        high=65535,
    )
    admin_key: SecretStr = _setting(
        SecretStr(""),
        "key",
        "Key that admin calls have to show; without one they are answered where admin_host is loopback.",
    )
    api_keys_file: str = _setting(
        "", "path", "File with the sha256 of each API key and whose it is; empty lets everybody in."
    )
    cors_origins: str = _setting(
        "",
        "origins",
        "Web origins, with commas between, whose pages may call; empty allows none and * all.",
        pattern=ORIGINS,
    )
    models_root: Path = _setting(
        Path("models"),
        "path",
        "Directory that holds the bundles; one that is not in `models` is taken from what the installed package brings, unless this is set.",
    )
    bundle: str = _setting("default", "name", "Name of the bundle that answers requests which name no model.")
    bundles: str = _setting(
        "", "name,...", "Names of more bundles to serve, for requests that name them in `model`."
    )
    unknown_model: Literal["answer", "refuse"] = _setting(
        "answer",
        "name",
        "What a request gets that names a model which is not served: an answer as if it named none, or 404.",
    )
    model_aliases: str = _setting(
        "", "name=model,...", "More names for models that are served.", pattern=ALIASES
    )
    unknown_keys: Literal["ignore", "refuse"] = _setting(
        "ignore",
        "name",
        "What becomes of keys that nobody here knows in a request in our own form: ignored and named in the answer, or 422.",
    )
    bundle_ids: str = _setting(
        "",
        "id,...",
        "Ids of the bundles that may be served, as `loaded` logs them, all others being refused; empty allows any.",
        pattern=r"^([0-9a-f]{12}(,[0-9a-f]{12})*)?$",
    )
    canary_compared: float = _setting(
        0.5, "share", "Answers of a canary whose list the stable model ranks afterwards.", low=0, high=1
    )
    canary_overlap: float = _setting(
        0.5,
        "share",
        "Mean overlap of the first ten with the stable model's, below which a canary is taken out.",
        low=0,
        high=1,
    )
    canary_tau: float = _setting(
        0.4,
        "tau",
        "Mean Kendall's tau with the stable model's order, below which a canary is taken out.",
        low=-1,
        high=1,
    )
    canary_slowdown: float = _setting(
        2.0,
        "factor",
        "Time of a canary over that of the stable model, above which it is taken out.",
        low=1,
        high=1_000,
    )
    precision: Literal["default", "fp32", "int8", "fp16"] = _setting(
        "default",
        "name",
        "Which graph of the bundle to run; default is the one its manifest names, on a GPU fp16, else fp32, if it has it.",
    )
    device: Literal["cpu", "cuda", "tensorrt"] = _setting(
        "cpu",
        "name",
        "Where the graph runs; cuda and tensorrt stop the boot if it does not land on a GPU as a whole.",
    )
    engine: Literal["auto", "onnxruntime", "native"] = _setting(
        "auto",
        "name",
        "What computes on the CPU; auto takes native where it can compute the graph, and native stops the boot where not.",
    )
    pin: bool = _setting(
        default=True,
        unit="switch",
        sentence="Keep each worker on a CPU of its own, if there is a worker for every CPU that the process may use.",
    )
    gpu_run_tokens: int = _setting(
        16_384,
        "tokens",
        "Tokens of one run on a GPU, padding included, up to which rows of several requests are put together.",
        low=1_024,
        high=262_144,
    )
    tensorrt_cache: str = _setting(
        "",
        "path",
        "Directory for the engines that TensorRT builds, minutes for each graph; empty builds them at every start.",
    )
    workers: int = _setting(
        0, "threads", "Threads that run the model; 0 takes the CPU quota, or 1 on a GPU.", low=0, high=256
    )
    queue_tokens: int = _setting(
        131_072,
        "tokens",
        "Predicted tokens admitted and not yet answered, above which requests get 429.",
        low=1_000,
        high=100_000_000,
    )
    default_budget_ms: float = _setting(
        2_000,
        "milliseconds",
        "Time from a request's first byte to its answer, if it does not say; what is not scored by then comes unscored.",
        low=1,
        high=600_000,
    )
    max_budget_ms: float = _setting(
        60_000, "milliseconds", "Longest budget; a longer one is cut to it.", low=1, high=600_000
    )
    on_failure: Literal["degrade", "error"] = _setting(
        "degrade",
        "name",
        "What a request gets that cannot be scored whole and does not say: all documents, those not scored last, or an error.",
    )
    tenants: str = _setting(
        "",
        "name=weight,...",
        "Tenants that share the workers by weight; all others are one tenant, default, of weight 1 unless named.",
        pattern=TENANTS,
    )
    cache_bytes: int = _setting(
        67_108_864,
        "bytes",
        "Memory for the scores of pairs that were asked for before; 0 remembers none.",
        low=0,
        high=68_719_476_736,
    )
    cache_ttl_s: float = _setting(
        3_600,
        "seconds",
        "How long a score is remembered, here and in the shared cache.",
        low=1,
        high=2_592_000,
    )
    cache_url: SecretStr = _setting(
        SecretStr(""),
        "url",
        "Redis or Valkey that replicas share scores through, as redis://, rediss://, valkey://, valkeys:// or unix://; needs the extra redis, empty uses none.",
    )
    cache_timeout_ms: float = _setting(
        5, "milliseconds", "Longest wait for the shared cache in a request.", low=0.1, high=1_000
    )
    max_body_bytes: int = _setting(
        1_048_576, "bytes", "Largest request body; more gets 413.", low=1_024, high=67_108_864
    )
    max_documents: int = _setting(
        1_000, "documents", "Most documents in one request; more get 422.", low=1, high=10_000
    )
    max_query_chars: int = _setting(
        2_000, "characters", "Longest query; a longer one gets 422.", low=1, high=1_000_000
    )
    max_field_chars: int = _setting(
        20_000,
        "characters",
        "Characters that are kept of a document's text field; the rest is clipped.",
        low=1,
        high=10_000_000,
    )
    catalogue: str = _setting(
        "",
        "path",
        "Directory of the product catalogue, for requests that name products by id; empty keeps none.",
    )
    catalogue_max_bytes: int = _setting(
        8_589_934_592,
        "bytes",
        "Most that the catalogue's products take; its file grows as needed, to a quarter more, and a full one gets 507.",
        low=1_048_576,
        high=17_592_186_044_416,
    )
    products_max_body_bytes: int = _setting(
        16_777_216,
        "bytes",
        "Largest body that stores or deletes products; more gets 413.",
        low=1_024,
        high=268_435_456,
    )
    receipt_timeout_s: float = _setting(
        2.0, "seconds", "Time to receive a whole request, headers and body, before 408.", low=0.1, high=300
    )
    send_timeout_s: float = _setting(
        5.0,
        "seconds",
        "How long a client may read nothing of its answer before it is cut off.",
        low=0.1,
        high=300,
    )
    keep_alive_s: int = _setting(
        75, "seconds", "How long an idle connection is kept; set it above the proxy's.", low=1, high=3_600
    )
    drain_delay_s: float = _setting(
        2.0, "seconds", "Time that /readyz is red before the listener closes after SIGTERM.", low=0, high=300
    )
    drain_timeout_s: int = _setting(
        10, "seconds", "Longest wait for requests in flight after the listener has closed.", low=1, high=300
    )
    watchdog_s: float = _setting(
        10.0,
        "seconds",
        "Time on one task after which a worker thread counts as stuck, and health turns red.",
        low=0.5,
        high=3_600,
    )
    watchdog_exit: bool = _setting(
        default=True,
        unit="switch",
        sentence="Drain and end with exit code 4 when a worker thread is stuck.",
    )
    docs: bool = _setting(default=True, unit="switch", sentence="Serve /docs and /openapi.json.")
    log_format: Literal["json", "plain"] = _setting("json", "name", "Shape of the log lines on stderr.")
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "name", "Least severe log line that is written; info has one line per request."
    )
    otel_endpoint: str = _setting(
        "",
        "URL",
        "Where traces go over OTLP/HTTP, such as http://collector:4318/v1/traces; empty makes none.",
        pattern=OTLP_URL,
    )
    otel_sample: float = _setting(
        0.1,
        "share",
        "Requests that are traced, of those whose caller has not decided about it.",
        low=0,
        high=1,
    )

    @property
    def other_bundles(self) -> list[str]:
        """Names of the bundles beside the one that answers by default."""
        return [name for name in self.bundles.split(",") if name]

    @property
    def aliases(self) -> dict[str, str]:
        """Model of each alias."""
        return dict(each.split("=") for each in self.model_aliases.split(",") if each)

    @cached_property
    def tenant_weights(self) -> dict[str, float]:
        """Weight of each tenant, that of all who are not named among them."""
        named = (each.split("=") for each in self.tenants.split(",") if each)
        return {"default": 1.0, **{name: float(weight) for name, weight in named}}
