"""The folder of a run's checkpoints: whole ones only, the last few and the best.

`step-00000300/` is a whole checkpoint, `step-00000300.partial/` one that is being written or
removed. A folder changes from one to the other by a rename, so a process may be killed at any
moment.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

_PARTIAL, _PROGRESS = ".partial", "progress.json"


@dataclass(frozen=True)
class Progress:
    """What a checkpoint says of itself beside its tensors; step 0 is the start of a run."""

    step: int = 0
    score: float = math.nan  # the higher, the better; NaN if there is none


@dataclass(frozen=True)
class CheckpointFolder:
    """Written by one process; others may read."""

    path: Path
    keep: int  # of the last ones, at least 1

    def whole(self) -> list[Progress]:
        """All checkpoints in the order of their steps."""
        files = self.path.glob(f"step-*[0-9]/{_PROGRESS}")
        found = [Progress(**json.loads(file.read_text())) for file in files]
        return sorted(found, key=lambda progress: progress.step)

    def latest(self) -> Progress | None:
        return next(reversed(self.whole()), None)

    def best(self) -> Progress | None:
        """The one of the highest score, the earliest of equals; None if none has a score."""
        return max(
            (progress for progress in self.whole() if not math.isnan(progress.score)),
            key=lambda progress: progress.score,
            default=None,
        )

    def of(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"

    def partial(self, step: int) -> Path:
        return self.of(step).with_suffix(_PARTIAL)

    def publish(self, progress: Progress) -> None:
        """Make a whole checkpoint of `partial(progress.step)`; remove those it outdates."""
        partial = self.partial(progress.step)
        with (partial / _PROGRESS).open("w") as file:
            json.dump(asdict(progress), file)
            file.flush()
            os.fsync(file.fileno())
        _sync_names(partial)
        partial.rename(self.of(progress.step))
        _sync_names(self.path)
        best, whole = self.best(), self.whole()
        for outdated in whole[: -self.keep]:
            if outdated != best:
                self.of(outdated.step).rename(self.partial(outdated.step))
        self.remove_partial()

    def remove_partial(self) -> None:
        """Remove what a killed or failed write, or a removal, left behind."""
        for partial in self.path.glob(f"*{_PARTIAL}"):
            shutil.rmtree(partial)


def _sync_names(folder: Path) -> None:
    """Bring the names in `folder` to the disk: a renamed file survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
