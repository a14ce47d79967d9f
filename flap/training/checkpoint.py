"""Training state on disk, written while training goes on, by torch.distributed.checkpoint (DCP).

1. `Checkpoints.save` copies the state to host memory; what training changes afterwards does
   not reach the copy. A thread writes it, each rank its share.
2. When all shares are on the disk the first rank publishes them (`checkpoint_folder`).
3. `Checkpoints.load` restores the state to the bit, on the same or another number of ranks.

Data order, masks, learning rate and every seed are functions of the step, so no generator of
random numbers has a state to keep. DCP's `.metadata` and the values that are not tensors are
pickles that the run itself made in its own work folder; tensors are read with `weights_only`.
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
from flap.training.checkpoint_storage import ExactPlanner, PublishingWriter, State, cause
from flap.training.distributed import own_rank

# DCP says so at each save and load of a process that is alone.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class Checkpoints:
    """The last `keep` checkpoints of a run and the one of the best score.

    With a process group, of any backend, every rank makes this object and calls `save` and
    `load` at the same steps: DCP's messages go over a gloo group that is made here, since from
    its thread they may not mix with the gradients'. Without one it works alone.
    Leaving the `with` block waits for the write in flight and reports its failure.
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
        if own_rank() == 0:
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
            error.add_note(f"the last checkpoint could not be written either: {failure}")
        finally:
            self._stager.close()

    def save(self, step: int, *, score: float = math.nan) -> None:
        """Begin to write the state after `step` steps; waits first for the write before.

        Args:
            score: of the validation, the higher the better; the first rank's decides.

        Raises:
            OSError: the write before failed, for instance on a full disk (ENOSPC).
        """
        assert step > 0, "before its first step an optimiser has no state; DCP would make it one"
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
        """Wait for the write in flight, if any, and raise what it failed with."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except CheckpointException as error:
            if own_rank() == 0:
                self.folder.remove_partial()
            raise cause(error) from error

    def load(self, chosen: Progress | None = None) -> Progress:
        """Restore the latest checkpoint, or the chosen one; step 0 is returned if there is none.

        Raises:
            UserError: the checkpoint does not fit the model, the optimiser or the average.
        """
        self.wait()
        progress = self._first_ranks(chosen or self.folder.latest() or Progress())
        if progress.step == 0:
            return progress
        state, folder = self._state(), self.folder.of(progress.step)
        try:
            load(
                state,
                storage_reader=FileSystemReader(folder),
                planner=ExactPlanner(folder),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except CheckpointException as error:
            raise cause(error) from error
        self._set_state(state)
        return progress

    def _first_ranks(self, progress: Progress) -> Progress:
        """What the first rank found: on a network's disk the others may see an older folder."""
        found = [progress]
        if self._group is not None:
            dist.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def _state(self) -> State:
        """The tensors themselves, by names that DDP, FSDP and torch.compile do not alter."""
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
            options=dcp_state.StateDictOptions(strict=False),  # see ExactPlanner
        )
        if self._ema is not None:
            dcp_state.set_model_state_dict(self._ema, state["ema"])
