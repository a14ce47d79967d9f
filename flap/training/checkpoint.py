"""Asynchronous checkpoints of the training state, by torch.distributed.checkpoint (DCP).

1. `Checkpoints.save` copies the state to host memory. A thread writes the copy while training
   continues; each rank writes its share.
2. When all shares are on disk, the first rank publishes the checkpoint (`checkpoint_folder`).
3. `Checkpoints.load` restores the state bit by bit, on the same or another number of ranks.

Data order, masks, learning rate and seeds are functions of the step, so a checkpoint needs no
state of random number generators. DCP stores its `.metadata` and non-tensor values as pickles,
and the run reads only those that it wrote to its own work folder. Tensors are read with
`weights_only`.
"""

import math
import warnings
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp_state
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from flap.training.checkpoint_folder import CheckpointFolder, Progress
from flap.training.checkpoint_storage import PublishingWriter, State, StrictLoadPlanner, root_cause
from flap.training.distributed import get_rank

# DCP warns at each save and load without a process group.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class Checkpoints:
    """The last `keep` checkpoints of a run, and the checkpoint of the best score.

    With a process group of any backend, every rank creates this object and calls `save` and
    `load` at the same steps. DCP communicates from a thread, so it gets a gloo group of its own,
    apart from the group of the gradients. The end of the `with` block waits for the last write,
    and raises its error if it failed.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        ema: nn.Module | None = None,
        keep: int = 2,
    ) -> None:
        self.folder = CheckpointFolder(folder, keep)
        self._model, self._optimizer, self._ema = model, optimizer, ema
        self._stager = DefaultStager(StagingOptions(False, False, False, False))  # blocks
        self._writing: Future[Metadata] | None = None
        self._group: dist.ProcessGroup | None = None
        if get_rank() == 0:
            self.folder.remove_partial()
        if dist.is_initialized():
            self._group = dist.new_group(backend="gloo")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"in addition, the last checkpoint could not be written: {failure}")
        finally:
            self._stager.close()

    def save(self, step: int, *, score: float = math.nan) -> None:
        """Wait for the previous write, then start to write the state after `step` steps.

        Args:
            score: of the validation, higher is better. Only the first rank's counts.

        Raises:
            OSError: the previous write failed, for instance on a full disk (ENOSPC).
        """
        assert step > 0, "an optimiser has no state before its first step, and DCP would create one"
        self.wait()
        writer = PublishingWriter(self.folder, Progress(step, score))
        writing = async_save(
            self._state(),
            storage_writer=writer,
            async_stager=self._stager,
            process_group=self._group,
            no_dist=self._group is None,
        )
        self._writing = cast("Future[Metadata]", writing)

    def wait(self) -> None:
        """Wait for the pending write, if any, and raise its error if it failed."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except CheckpointException as error:
            if get_rank() == 0:
                self.folder.remove_partial()
            raise root_cause(error) from error

    def load(self, chosen: Progress | None = None) -> Progress:
        """Restore the chosen checkpoint, by default the latest.

        Returns:
            The progress of the restored checkpoint; step 0 if there is no checkpoint.

        Raises:
            UserError: the checkpoint does not fit the model, the optimiser or the average.
        """
        self.wait()
        progress = self._from_first_rank(chosen or self.folder.latest() or Progress())
        if progress.step == 0:
            return progress
        state, folder = self._state(), self.folder.checkpoint(progress.step)
        try:
            load(
                state,
                storage_reader=FileSystemReader(folder),
                planner=StrictLoadPlanner(folder),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except CheckpointException as error:
            raise root_cause(error) from error
        self._set_state(state)
        return progress

    def _from_first_rank(self, progress: Progress) -> Progress:
        """The first rank's progress: others may see an older state of a network file system."""
        found = [progress]
        if self._group is not None:
            dist.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def _state(self) -> State:
        """The tensors by name; the names do not depend on DDP, FSDP or torch.compile."""
        model, optimizer = dcp_state.get_state_dict(self._model, self._optimizer)
        state: State = {"model": model, "optimizer": optimizer}
        if self._ema is not None:
            state["ema"] = dcp_state.get_model_state_dict(self._ema)
        return state

    def _set_state(self, state: State) -> None:
        dcp_state.set_model_state_dict(self._model, state["model"])
        dcp_state.set_optimizer_state_dict(
            self._model,
            self._optimizer,
            state["optimizer"],
            options=dcp_state.StateDictOptions(strict=False),  # StrictLoadPlanner has checked
        )
        if self._ema is not None:
            dcp_state.set_model_state_dict(self._ema, state["ema"])
