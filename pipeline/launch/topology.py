"""Which nodes train together, and over which network: from `FLAP_…`, or from Slurm's variables."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from flap.core.errors import UserError


@dataclass(frozen=True)
class Interface:
    """A network interface of this machine and its address."""

    name: str
    address: str


@dataclass(frozen=True)
class Topology:
    """One node of a training run.

    `nodes` is their number, or min:max; `head` is host:port of the first node, where all meet,
    None where there is only one; `is_head` says that this is it.
    """

    nodes: str
    head: str | None
    is_head: bool
    interface: Interface


def topology(environ: Mapping[str, str], *, joins: bool = False) -> Topology:
    """What `FLAP_NNODES`, `FLAP_HEAD` and `FLAP_INTERFACE` say; under srun, Slurm sets the rest.

    Args:
        joins: this node joins a run that another one leads.

    Raises:
        UserError: a variable is missing or wrong; the message names it.
    """
    environ = _slurm(environ) | dict(environ)
    nodes = environ.get("FLAP_NNODES") or "1"
    limits = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", nodes)
    if not limits or int(limits[1]) > int(limits[2] or limits[1]):
        raise UserError(f"FLAP_NNODES={nodes}: a number of nodes is expected, or min:max")
    if int(limits[2] or limits[1]) == 1:
        if joins:
            raise UserError("FLAP_NNODES: set it as on the first node, to the number of all nodes")
        return Topology("1", None, True, interface(environ, "127.0.0.1", 0))
    head = environ.get("FLAP_HEAD", "")
    endpoint = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d+)", head)
    if not endpoint or int(endpoint[2]) >= 2**16:
        raise UserError(
            f"FLAP_HEAD={head}: with FLAP_NNODES={nodes}, host:port of the first node is expected"
        )
    is_head = not joins and environ.get("SLURM_NODEID", "0") == "0"
    return Topology(nodes, head, is_head, interface(environ, endpoint[1], int(endpoint[2])))


def _slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """A step of several nodes, as srun describes it to each task; a batch script is no step."""
    nodes = environ.get("SLURM_STEP_NUM_NODES", "1")
    if nodes == "1":
        return {}
    if environ["SLURM_STEP_NUM_TASKS"] != nodes:
        raise UserError("srun: start one task a node: --ntasks-per-node=1, and FLAP_NPROC")
    first = re.match(r"[^\[,]+(\[\d+)?", environ["SLURM_STEP_NODELIST"])  # n[07-09,12],m3 → n07
    assert first
    port = 20000 + int(environ["SLURM_JOB_ID"]) % 10000  # jobs that share a node meet apart
    return {"FLAP_NNODES": nodes, "FLAP_HEAD": f"{first[0].replace('[', '')}:{port}"}


def interface(environ: Mapping[str, str], host: str, port: int) -> Interface:
    """The one that `FLAP_INTERFACE` names, by name or address, or else the one towards `host`.

    Raises:
        UserError: there is none of that name or address, or no way to `host`.
    """
    own = [
        Interface(name, address.address)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    wanted = environ.get("FLAP_INTERFACE") or _address_towards(host, port)
    for one in own:
        if wanted in (one.name, one.address):
            return one
    names = ", ".join(f"{one.name} ({one.address})" for one in own)
    raise UserError(f"FLAP_INTERFACE: no {wanted} on this machine; choose one of {names}")


def _address_towards(host: str, port: int) -> str:
    """Our address on the way to `host`."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: looks up the route, sends nothing
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(f"FLAP_HEAD: {host} cannot be reached: {error.strerror}") from None
    if ipaddress.ip_address(found).is_loopback and host not in ("localhost", found):
        raise UserError(
            f"FLAP_HEAD: {host} is a name of the loopback here ({found}); "
            "give its address in the network, or FLAP_INTERFACE"
        )
    return found
