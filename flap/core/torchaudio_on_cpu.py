"""Let torchaudio import beside a CPU build of torch.

The torchaudio wheels on PyPI link their compiled extension against CUDA, so beside a
CPU torch `import torchaudio` fails, and with it every transformers model that looks for
torchaudio. FLAP needs only its Python parts (`compliance.kaldi`), so on a CPU torch an
empty stand-in takes the place of the extension. CUDA machines are left as they are.
"""

import sys
import types
from importlib import metadata

_EXTENSION = "torchaudio._extension"


def install() -> None:
    """Register the stand-in; does nothing on a CUDA torch or once torchaudio is loaded."""
    try:
        is_cpu_torch = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return
    if not is_cpu_torch or _EXTENSION in sys.modules:
        return
    stand_in = types.ModuleType(_EXTENSION)
    stand_in.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=lambda function: function,
    )
    sys.modules[_EXTENSION] = stand_in
