"""Client of the pixell-envoy route API.

| name | what it is |
| --- | --- |
| EnvoyManager | what PAR calls when an agent comes and goes; never raises, heals itself |
| RouteApiClient | the whole route API, with exceptions |
| Reconciler | a background task that keeps Envoy's map equal to a wanted one |
"""

from .backoff import Backoff
from .client import RouteApiClient
from .displacement import Displacement
from .errors import (
    BadRequest,
    ClientClosed,
    FaultyRequest,
    FleetDisabled,
    Forbidden,
    InvalidArgument,
    InvalidRoutes,
    OutcomeUnknown,
    PayloadTooLarge,
    PortInUse,
    PreconditionFailed,
    Refused,
    RetriesExhausted,
    RouteApiError,
    RouteNotFound,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)
from .fleet_map import FleetMap, Peer, PeerReport
from .manager import EnvoyManager
from .models import (
    FleetStatus,
    MapVersion,
    Route,
    RouteLike,
    RouteMap,
    RoutePatch,
    RouteState,
    Status,
    WriteResult,
)
from .problem import Fault, Problem
from .reconciler import Reconciler, ReconcilerState
from .retry import Retry

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "BadRequest",
    "ClientClosed",
    "Displacement",
    "EnvoyManager",
    "Fault",
    "FaultyRequest",
    "FleetDisabled",
    "FleetMap",
    "FleetStatus",
    "Forbidden",
    "InvalidArgument",
    "InvalidRoutes",
    "MapVersion",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "Peer",
    "PeerReport",
    "PortInUse",
    "PreconditionFailed",
    "Problem",
    "Reconciler",
    "ReconcilerState",
    "Refused",
    "RetriesExhausted",
    "Retry",
    "Route",
    "RouteApiClient",
    "RouteApiError",
    "RouteLike",
    "RouteMap",
    "RouteNotFound",
    "RoutePatch",
    "RouteState",
    "Status",
    "Unauthorized",
    "UnexpectedAnswer",
    "Unreachable",
    "WriteResult",
]
