"""Writer and planner for torch.distributed.checkpoint (DCP), and the cause of its errors."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from flap.core.errors import UserError
from flap.training.checkpoint_folder import CheckpointFolder, Progress

State = dict[str, Any]


class PublishingWriter(FileSystemWriter):
    """Writes a partial checkpoint, and publishes it when every rank has written its share.

    DCP calls `finish` on the first rank only, and raises its error on all ranks.
    """

    def __init__(self, folder: CheckpointFolder, progress: Progress) -> None:
        # The state is in host memory already. Copying ahead would open a context on the first GPU.
        super().__init__(folder.partial(progress.step), per_thread_copy_ahead=0)
        self._folder, self._progress = folder, progress

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            # On a full disk `torch.save` also fails to close its file, and raises that error only.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        self._folder.publish(self._progress)


class StrictLoadPlanner(DefaultLoadPlanner):
    """Loads only checkpoints with exactly the expected names, shapes and dtypes.

    DCP's default planner casts dtypes and ignores tensors that the model lacks.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def set_up_planner(
        self, state_dict: State, metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Skip optimiser states that the checkpoint lacks: their parameters had no gradient yet."""
        assert metadata is not None
        states = state_dict["optimizer"]["state"]
        for name, parts in list(states.items()):
            saved = (f"optimizer.state.{name}.{part}" for part in parts)
            if not any(part in metadata.state_dict_metadata for part in saved):
                del states[name]
        super().set_up_planner(state_dict, metadata, is_coordinator)

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        saved = {(k, _signature(v)) for k, v in self.metadata.state_dict_metadata.items()}
        expected = {(k, _signature(v)) for k, v in self.state_dict.items()}
        if saved != expected:
            name = min(name for name, _ in saved ^ expected)
            raise UserError(
                f"{self._folder}: the checkpoint is of another model or optimiser ({name} "
                f"differs); remove {self._folder.parent} to train from the start"
            )
        return super().create_local_plan()


def _signature(entry: Any) -> tuple[torch.Size, torch.dtype] | None:
    """Shape and dtype of a tensor in memory or on disk; None for other values."""
    if isinstance(entry, TensorStorageMetadata):
        return entry.size, entry.properties.dtype
    return (entry.size(), entry.dtype) if isinstance(entry, torch.Tensor) else None


def root_cause(error: CheckpointException) -> BaseException:
    """The error behind DCP's: an OSError if any rank had one, else the first error."""
    failures = [failure for failure, _ in error.failures.values()]
    return next((one for one in failures if isinstance(one, OSError)), failures[0])
