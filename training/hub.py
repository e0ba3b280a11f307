"""Load pretrained weights by hub id or local folder, GGUF-packaged ones included.

Knows transformers' loaders; does not know what the weights are for.
Invariant: weights that cannot be had fail with one line that names them and says what to do.
"""

from __future__ import annotations

from typing import Any

from training.stages import StageError


def load_pretrained(loader: Any, model: str, gguf_file: str = "", **options: Any) -> Any:
    """Call `loader.from_pretrained`; `gguf_file` names a quantised file, dequantised on load.

    Raises StageError when the id or folder cannot be loaded.
    """
    if gguf_file:
        options["gguf_file"] = gguf_file
        if "dtype" in options:
            from transformers import GgufConfig  # noqa: PLC0415 - needs the gguf package, only wanted here

            options["quantization_config"] = GgufConfig(gguf_file=gguf_file, dequantize=True)
    try:
        return loader.from_pretrained(model, **options)
    except (OSError, ValueError) as error:
        raise StageError(
            f"model {model!r} cannot be loaded: it is no local folder with such a model, and the hub did not give it "
            f"({str(error).splitlines()[0]}); download it first and name its folder by --weights {model}=DIR"
        ) from error
