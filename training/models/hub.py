"""Load pretrained weights by hub id or local folder, GGUF-packaged ones included.

Knows transformers' loaders; does not know what the weights are for.
Invariant: weights that cannot be had fail with one line that names them and says what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.errors import StageError


def one_line(error: Exception) -> str:
    """Return what an error says, on one line and not for pages."""
    return " ".join(str(error).split())[:300] or type(error).__name__


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
    except Exception as error:
        reason = one_line(error)
        if Path(model).is_dir():
            raise StageError(f"model folder {model} cannot be loaded ({reason})") from error
        raise StageError(
            f"model {model!r} cannot be loaded: it is no local folder with such a model, and the hub did not give it "
            f"({reason}); download it first and name its folder by --weights {model}=DIR"
        ) from error


def load_model(loader: Any, model: str, gguf_file: str = "", **options: Any) -> Any:
    """Load a model's weights as `load_pretrained` does; StageError if most of them are not there.

    The loader itself draws at random what the files lack, which is right for a head alone.
    """
    made, told = load_pretrained(loader, model, gguf_file, output_loading_info=True, **options)
    missing, wanted = len(told["missing_keys"]), len(made.state_dict())
    if 2 * missing > wanted:
        raise StageError(
            f"model {model!r}: its files lack {missing} of the {wanted} weights that its config.json asks for; "
            "they belong to different models"
        )
    return made
