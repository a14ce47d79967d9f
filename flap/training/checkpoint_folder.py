"""The folder of a run's checkpoints: the last few and the best.

`step-00000300/` is a complete checkpoint. `step-00000300.partial/` is a checkpoint that is being
written or removed. A rename turns one into the other, so a kill at any moment leaves only
complete checkpoints under their final names.
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
    """Step and score of a checkpoint."""

    step: int = 0  # steps done; 0 is the start of a run
    score: float = math.nan  # of the validation, higher is better; NaN without a validation


@dataclass(frozen=True)
class CheckpointFolder:
    """One process writes to the folder; others may read."""

    path: Path
    keep: int  # how many of the last checkpoints to keep, at least 1

    def complete(self) -> list[Progress]:
        """All complete checkpoints in the order of their steps."""
        files = self.path.glob(f"step-*[0-9]/{_PROGRESS}")
        found = [Progress(**json.loads(file.read_text())) for file in files]
        return sorted(found, key=lambda progress: progress.step)

    def latest(self) -> Progress | None:
        return next(reversed(self.complete()), None)

    def best(self) -> Progress | None:
        """The checkpoint of the highest score, the first of equals; None if none has a score."""
        return max(
            (progress for progress in self.complete() if not math.isnan(progress.score)),
            key=lambda progress: progress.score,
            default=None,
        )

    def checkpoint(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"

    def partial(self, step: int) -> Path:
        return self.checkpoint(step).with_suffix(_PARTIAL)

    def publish(self, progress: Progress) -> None:
        """Rename `partial(progress.step)` to its final name, and remove outdated checkpoints."""
        partial = self.partial(progress.step)
        with (partial / _PROGRESS).open("w") as file:
            json.dump(asdict(progress), file)
            file.flush()
            os.fsync(file.fileno())
        _sync_names(partial)
        partial.rename(self.checkpoint(progress.step))
        _sync_names(self.path)
        best = self.best()
        for outdated in self.complete()[: -self.keep]:
            if outdated != best:
                self.checkpoint(outdated.step).rename(self.partial(outdated.step))
        self.remove_partial()

    def remove_partial(self) -> None:
        """Remove the leftovers of writes and removals that were killed or failed."""
        for partial in self.path.glob(f"*{_PARTIAL}"):
            shutil.rmtree(partial)


def _sync_names(folder: Path) -> None:
    """Flush the directory entries of `folder`, so that a rename survives a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
