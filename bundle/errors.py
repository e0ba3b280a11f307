"""Every way in which a bundle can be refused, one class per load step.

Knows the names of the steps; does not know how any of them is carried out.
Invariant: `code` is a closed set of snake_case words, safe as a log field or a metric label.

    BundleError
    ├── InvalidName            the name is outside the grammar
    ├── NotFound               there is no such bundle
    ├── Unreadable             the operating system refused to read it
    ├── NotPlain               a pipe, device or directory where a file belongs, or no directory at all
    ├── ManifestInvalid        manifest.json is not the canonical form of a valid manifest
    ├── FileSetMismatch        a file is missing or was added
    ├── SizeMismatch           a file has another length than the manifest says
    ├── HashMismatch           a file has other content than the manifest says
    ├── UnexpectedBundle       it is whole, and not one of those that may be served
    ├── TextContractMismatch   this code cannot keep the bundle's text contract
    ├── TokenizerInvalid       tokenizer.json does not load
    ├── VocabularyMismatch     the tokenizer's ids do not fit the model's vocabulary
    ├── SessionFailed          the runtime refused the graph
    ├── SignatureMismatch      the graph's inputs or outputs are not the promised ones
    ├── WarmupFailed           the first run failed or gave no finite number
    ├── GoldenMismatch         token ids or scores differ from the recorded ones
    └── AlreadyExists          another bundle is in the way of a write
"""

from typing import ClassVar


class BundleError(Exception):
    """A bundle was refused; `code` names the step that refused it."""

    code: ClassVar[str] = "bundle_error"


class InvalidName(BundleError):
    """The bundle's name is outside the grammar."""

    code: ClassVar[str] = "invalid_name"


class NotFound(BundleError):
    """There is no bundle of this name."""

    code: ClassVar[str] = "not_found"


class Unreadable(BundleError):
    """The operating system refused to open or read a file."""

    code: ClassVar[str] = "unreadable"


class NotPlain(BundleError):
    """Something else is where a plain file, or the bundle's directory, belongs."""

    code: ClassVar[str] = "not_plain"


class ManifestInvalid(BundleError):
    """The manifest is not the canonical form of a valid manifest."""

    code: ClassVar[str] = "manifest_invalid"


class FileSetMismatch(BundleError):
    """The directory holds other files than the manifest names."""

    code: ClassVar[str] = "file_set_mismatch"


class SizeMismatch(BundleError):
    """A file has another length than the manifest says."""

    code: ClassVar[str] = "size_mismatch"


class HashMismatch(BundleError):
    """A file has other content than the manifest says."""

    code: ClassVar[str] = "hash_mismatch"


class UnexpectedBundle(BundleError):
    """The bundle is whole, and its id is not one of those that may be served."""

    code: ClassVar[str] = "unexpected_bundle"


class TextContractMismatch(BundleError):
    """This code cannot keep the bundle's text contract."""

    code: ClassVar[str] = "text_contract_mismatch"


class TokenizerInvalid(BundleError):
    """The tokenizer file does not load."""

    code: ClassVar[str] = "tokenizer_invalid"


class VocabularyMismatch(BundleError):
    """The tokenizer's ids do not fit the model's vocabulary."""

    code: ClassVar[str] = "vocabulary_mismatch"


class SessionFailed(BundleError):
    """The runtime refused the graph."""

    code: ClassVar[str] = "session_failed"


class SignatureMismatch(BundleError):
    """The graph's inputs or outputs are not the promised ones."""

    code: ClassVar[str] = "signature_mismatch"


class WarmupFailed(BundleError):
    """The first run failed or gave no finite number."""

    code: ClassVar[str] = "warmup_failed"


class GoldenMismatch(BundleError):
    """Token ids or scores differ from the recorded ones."""

    code: ClassVar[str] = "golden_mismatch"


class AlreadyExists(BundleError):
    """Another bundle is in the way of a write."""

    code: ClassVar[str] = "already_exists"
