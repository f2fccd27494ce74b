"""Clusters: how many machines of which kind, and who has them."""

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.cloud.service import now

# https://learn.microsoft.com/azure/virtual-machines/sizes/overview
_SIZES = (
    ("Standard_D2_v3", 2, 0, 8.0),
    ("Standard_D4s_v3", 4, 0, 16.0),
    ("Standard_NC24ads_A100_v4", 24, 1, 220.0),
)


def vm_sizes() -> list[dict[str, Any]]:
    """Return what machines of a size have, as the service lists it."""
    names = ("name", "vCPUs", "gpus", "memoryGB")
    return [dict(zip(names, size, strict=True)) for size in _SIZES]


class Cluster:
    """An AmlCompute cluster.

    Args:
        name: its name.
        vm_size: size of its machines.
        nodes: the most that it grows to.
        low_priority: whether its machines may be taken away.
        identity: whether its nodes have a managed identity to log in with.

    Attributes:
        paused: while set, no job gets a machine.
        error: a problem that it reports, such as a quota; with one, no job gets a machine.
        state: of its provisioning.
    """

    def __init__(
        self,
        name: str,
        vm_size: str = "STANDARD_NC24ADS_A100_V4",
        nodes: int = 4,
        *,
        low_priority: bool = False,
        identity: bool = False,
    ) -> None:
        self.name, self.vm_size, self.nodes = name, vm_size, nodes
        self.low_priority, self.identity = low_priority, identity
        self.paused = threading.Event()
        self.error: tuple[str, str] | None = None
        self.state = "Succeeded"
        self.running = 0
        self._lock = threading.Lock()

    def take(self, nodes: int, given_up: Callable[[], bool]) -> bool:
        """Wait for so many machines; False where the one who waits gives up."""
        while not given_up():
            with self._lock:
                free = self.nodes - self.running
                if not self.paused.is_set() and self.error is None and free >= nodes:
                    self.running += nodes
                    return True
            time.sleep(0.05)
        return False

    def release(self, nodes: int) -> None:
        """Give machines back."""
        with self._lock:
            self.running -= nodes

    def document(self, scope: str, location: str) -> dict[str, Any]:
        """Return it as the service shows it."""
        code, message = self.error or ("", "")
        identity = {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"}
        errors = [{"error": {"code": code, "message": message}}] if self.error else None
        return {
            "id": f"{scope}/computes/{self.name}",
            "name": self.name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": location,
            "tags": None,
            **({"identity": identity} if self.identity else {}),
            "properties": {
                "computeType": "AmlCompute",
                "computeLocation": location,
                "provisioningState": self.state,
                "createdOn": now(),
                "modifiedOn": now(),
                "isAttachedCompute": False,
                "description": "",
                "resourceId": None,
                "provisioningErrors": None,
                "properties": {
                    "vmSize": self.vm_size,
                    "vmPriority": "LowPriority" if self.low_priority else "Dedicated",
                    "osType": "Linux",
                    "subnet": None,
                    "userAccountCredentials": {},
                    "enableNodePublicIp": True,
                    "virtualMachineImage": None,
                    "isolatedNetwork": False,
                    "remoteLoginPortPublicAccess": "NotSpecified",
                    "scaleSettings": {
                        "maxNodeCount": self.nodes,
                        "minNodeCount": 0,
                        "nodeIdleTimeBeforeScaleDown": "PT120S",
                    },
                    "allocationState": "Steady",
                    "allocationStateTransitionTime": now(),
                    "currentNodeCount": self.running,
                    "targetNodeCount": self.running,
                    "nodeStateCounts": {
                        "idleNodeCount": 0,
                        "leavingNodeCount": 0,
                        "preemptedNodeCount": 0,
                        "preparingNodeCount": 0,
                        "runningNodeCount": self.running,
                        "unusableNodeCount": 0,
                    },
                    "errors": errors,
                },
            },
        }
