"""Errors to gRPC status and back, in one table.

An error crosses as a status with `google.rpc.ErrorInfo` in its details: the class's reason, and what was expected, what
came and what to do. The other side raises the same class again.
"""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from comity import errors
from comity.errors import ComityError, DeadlineExceeded, PeerUnreachable, RemoteFailure, TooManyCalls
from comity.session.egress_rules import ERROR_PARTS
from comity.transport.retry import FIRST_PAUSE_S, milliseconds

DOMAIN = "comity"

STATUS: dict[type[ComityError], grpc.StatusCode] = {
    errors.ComityError: grpc.StatusCode.INTERNAL,
    errors.UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownKey: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidValue: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MissingFile: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AddressInUse: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StateInUse: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RefusedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.PolicyRefusal: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnknownParty: grpc.StatusCode.UNAUTHENTICATED,
    errors.UnsupportedProtocol: grpc.StatusCode.UNIMPLEMENTED,
    errors.UnknownTask: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownWeights: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelSignatureMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TaskMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ContractMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PeerMessageError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownSession: grpc.StatusCode.NOT_FOUND,
    errors.RoundOutOfOrder: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConflictingOffer: grpc.StatusCode.ALREADY_EXISTS,
    errors.NonFiniteValue: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ReceiptInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooManyCalls: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BlobError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnexpectedBlob: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownBlob: grpc.StatusCode.NOT_FOUND,
    errors.BlobSizeMismatch: grpc.StatusCode.OUT_OF_RANGE,
    errors.BlobTruncated: grpc.StatusCode.ABORTED,
    errors.BlobCorrupted: grpc.StatusCode.DATA_LOSS,
    errors.TensorMismatch: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TransportError: grpc.StatusCode.UNAVAILABLE,
    errors.PeerUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.CertificateRejected: grpc.StatusCode.UNAUTHENTICATED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.RemoteFailure: grpc.StatusCode.INTERNAL,
    errors.SessionFailed: grpc.StatusCode.ABORTED,
    errors.TrainingDiverged: grpc.StatusCode.ABORTED,
    errors.ReleaseRefused: grpc.StatusCode.ABORTED,
    errors.LedgerBroken: grpc.StatusCode.DATA_LOSS,
    errors.StorageError: grpc.StatusCode.INTERNAL,
    errors.StorageFailed: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageCorrupted: grpc.StatusCode.DATA_LOSS,
    errors.SchemaMismatch: grpc.StatusCode.INTERNAL,
    errors.ClockSteppedBack: grpc.StatusCode.INTERNAL,
    errors.DataChanged: grpc.StatusCode.UNAVAILABLE,
    errors.SessionCancelled: grpc.StatusCode.ABORTED,
    errors.NodeDraining: grpc.StatusCode.UNAVAILABLE,
    errors.NodeProcessFailed: grpc.StatusCode.ABORTED,
}
"""The status of every error; a test holds it complete."""

_BY_REASON = {error.reason(): error for error in STATUS}
_NUMBERS: dict[grpc.StatusCode, int] = {
    code: code_pb2.Code.Value(code.name) for code in grpc.StatusCode if code is not grpc.StatusCode.CANCELLED
}

_CLOSED = "closed"
"""What grpc says of a call whose channel this side has closed."""

_LONGEST = 500
"""Characters of a part of an error that cross; what a peer sent wrong may be far longer."""


def to_status(error: ComityError) -> grpc.Status:
    """The status, with details, that an error leaves a server as."""
    info = error_details_pb2.ErrorInfo(reason=error.reason(), domain=DOMAIN)
    for name in ERROR_PARTS:
        if value := getattr(error, name):
            info.metadata[name] = _cut(value)
    details = [Any()]
    details[0].Pack(info)
    if isinstance(error, TooManyCalls):
        # When it may be otherwise, for callers that know nothing of Comity.
        hint = error_details_pb2.RetryInfo()
        hint.retry_delay.FromMilliseconds(milliseconds(FIRST_PAUSE_S))
        details.append(Any())
        details[-1].Pack(hint)
    message = status_pb2.Status(code=_NUMBERS[STATUS[type(error)]], message=_cut(str(error)), details=details)
    return rpc_status.to_status(message)


def _cut(text: str) -> str:
    """What of a text fits: all metadata of a call are 8 KiB, and its bytes may travel percent-encoded."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def from_rpc_error(error: grpc.RpcError | grpc.Call) -> ComityError:
    """The error behind a failed call.

    Args:
        error: What grpc raised; a call as well, as all errors of its channels are.
    """
    if not isinstance(error, grpc.Call):
        return RemoteFailure("the call failed", received=error, action="look at the log of the node that was called")
    code, details = error.code(), error.details() or ""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN and info.reason in _BY_REASON:
            fields = info.metadata
            return _BY_REASON[info.reason](
                fields.get("what", details),
                expected=fields.get("expected"),
                received=fields.get("received"),
                action=fields.get("action", ""),
            )
    if code is grpc.StatusCode.UNAVAILABLE:
        return PeerUnreachable(
            "the peer does not answer", received=details, action="check that the node runs and its address"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        action = "check the network between, and whether its machine is overloaded"
        return DeadlineExceeded("the peer did not answer in time", received=details, action=action)
    if code is grpc.StatusCode.CANCELLED and _CLOSED not in details:
        action = "it goes on when tried again; check the network between if it stays so"
        return PeerUnreachable("the peer cut the call, which moved too little", received=details, action=action)
    name = code.name if code is not None else "no status"
    return RemoteFailure("the peer failed", received=f"{name}: {details}", action="look at the peer's log")
