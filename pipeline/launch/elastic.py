"""torchrun, with readable errors.

If a worker dies, torchrun restarts all workers. If a worker ends with a `UserError`, a restart
would end with the same error. The run therefore stops, and the message is shown once.
"""

import json
import os
import sys
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousTimeoutError,
)
from torch.distributed.launcher import api

from flap.core.errors import UserError


class _Agent(LocalElasticAgent):
    """Stops the run, instead of restarting it, if a failed worker left a message."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.is_failed() and self._pcontext:
            for path in map(Path, self._pcontext.error_files.values()):
                if path.exists():
                    raise UserError(json.loads(path.read_text())["message"])
        return result


def run(arguments: list[str]) -> None:
    """Run `torchrun ARGUMENTS…` and wait for its end.

    Raises:
        UserError: a worker's message, or the reason why the workers or nodes could not continue.
    """
    # A store shared between agents keeps the addresses of dead workers; new workers would connect
    # to these addresses.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    vars(api)["LocalElasticAgent"] = _Agent  # torchrun has no option for the agent class
    try:
        torchrun.run(torchrun.parse_args(arguments))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f"exit code {failure.exitcode}" if failure.exitcode >= 0 else failure.signal_name()
        raise UserError(
            f"rank {rank} failed ({how}) once more than FLAP_MAX_RESTARTS allows; its output says "
            "why; run again to go on from the last checkpoint"
        ) from None
    except RendezvousClosedError:
        raise UserError("another node has ended the run; its output says why") from None
    except RendezvousTimeoutError:
        raise UserError("fewer nodes than FLAP_NNODES have come, in ten minutes") from None
    except RendezvousConnectionError:
        raise UserError(
            "FLAP_HEAD does not answer: the run there is over, lost, or not begun in ten minutes, "
            "or a firewall stands between"
        ) from None
