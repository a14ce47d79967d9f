"""The nodes of a training run and their network, from the variables `FLAP_…` or from Slurm."""

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
    """The position of this machine in a training run.

    Attributes:
        nodes: number of nodes, or min:max.
        head: host:port of the first node; None if there is only one node.
        is_head: whether this machine is the first node.
        interface: the network interface for training.
    """

    nodes: str
    head: str | None
    is_head: bool
    interface: Interface


def topology(environ: Mapping[str, str], *, joins: bool = False) -> Topology:
    """Read `FLAP_NNODES`, `FLAP_HEAD` and `FLAP_INTERFACE`; under srun, Slurm gives the defaults.

    Args:
        joins: this node joins the run of another node.

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
    """`FLAP_NNODES` and `FLAP_HEAD` of an srun step of several nodes; empty in a batch script."""
    nodes = environ.get("SLURM_STEP_NUM_NODES", "1")
    if nodes == "1":
        return {}
    if environ["SLURM_STEP_NUM_TASKS"] != nodes:
        raise UserError("srun: start one task a node: --ntasks-per-node=1, and FLAP_NPROC")
    first = re.match(r"[^\[,]+(\[\d+)?", environ["SLURM_STEP_NODELIST"])  # n[07-09,12],m3 → n07
    assert first
    port = 20000 + int(environ["SLURM_JOB_ID"]) % 10000  # differs between jobs on a node
    return {"FLAP_NNODES": nodes, "FLAP_HEAD": f"{first[0].replace('[', '')}:{port}"}


def interface(environ: Mapping[str, str], host: str, port: int) -> Interface:
    """The interface with the name or address `FLAP_INTERFACE`; default: the one towards `host`.

    Raises:
        UserError: no interface has that name or address, or `host` cannot be reached.
    """
    found = [
        Interface(name, address.address)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    wanted = environ.get("FLAP_INTERFACE") or _address_towards(host, port)
    for candidate in found:
        if wanted in (candidate.name, candidate.address):
            return candidate
    names = ", ".join(f"{each.name} ({each.address})" for each in found)
    raise UserError(f"FLAP_INTERFACE: no {wanted} on this machine; choose one of {names}")


def _address_towards(host: str, port: int) -> str:
    """The address of this machine on the route to `host`."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # a datagram socket looks up the route and sends nothing
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(f"FLAP_HEAD: {host} cannot be reached: {error.strerror}") from None
    if ipaddress.ip_address(found).is_loopback and host not in ("localhost", found):
        raise UserError(
            f"FLAP_HEAD: {host} is a name of the loopback here ({found}); "
            "give its address in the network, or FLAP_INTERFACE"
        )
    return found
