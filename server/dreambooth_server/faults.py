"""Why a server cannot start, in words that the operator and a person can act on."""

import os
from pathlib import Path

from dreambooth_api.exits import ExitCode
from dreambooth_api.names import ENV_TERMINATION_LOG, TERMINATION_LOG
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, dump_result

_EXITS = {
    Reason.INVALID_SPEC: ExitCode.SPEC,
    Reason.ARTIFACT_NOT_FOUND: ExitCode.DATA,
    Reason.ARTIFACT_INVALID: ExitCode.DATA,
    Reason.BASE_MODEL_NOT_FOUND: ExitCode.BASE_MODEL,
    Reason.BASE_MODEL_INVALID: ExitCode.BASE_MODEL,
    Reason.STORE_UNAVAILABLE: ExitCode.STORE_UNAVAILABLE,
    Reason.GPU_OUT_OF_MEMORY: ExitCode.GPU_OUT_OF_MEMORY,
}


class LoadFault(Exception):
    """The model cannot be served; `reason` is the condition's reason, the text says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def exit_code(self) -> int:
        """The process's exit status: the class of this end."""
        return int(_EXITS.get(self.reason, 1))


def leave_message(fault: LoadFault) -> None:
    """Write `fault` where the kubelet reads it; elsewhere than in a pod there is no such file, and none is made."""
    named = os.environ.get(ENV_TERMINATION_LOG)
    path = Path(named or TERMINATION_LOG)
    if named or path.exists():
        path.write_text(dump_result(Fault(reason=fault.reason, message=str(fault)[:2000])))
