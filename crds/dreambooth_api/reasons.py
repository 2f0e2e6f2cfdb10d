"""Phases, condition types and reasons: the words of a status. Every reason names a cause that a person can act on."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a DreamBoothJob is."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SCORING = "Scoring"
    PUBLISHING = "Publishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in (Phase.SUCCEEDED, Phase.FAILED)


class ModelPhase(StrEnum):
    """Where a PersonalizedModel is."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    READY = "Ready"
    DEGRADED = "Degraded"
    # Nobody asks, and no replica runs; the next request wakes one.
    IDLE = "Idle"


class ConditionType(StrEnum):
    """Types of `metav1.Condition`: the first two summarise a job, the others a model."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    READY = "Ready"
    PROGRESSING = "Progressing"


class Reason(StrEnum):
    """Why a condition is as it is."""

    INVALID_SPEC = "InvalidSpec"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_INVALID = "DatasetInvalid"
    SECRET_NOT_FOUND = "SecretNotFound"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    BASE_MODEL_INVALID = "BaseModelInvalid"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    NON_FINITE_LOSS = "NonFiniteLoss"
    CHECKPOINTS_CORRUPT = "CheckpointsCorrupt"
    STORE_UNAVAILABLE = "StoreUnavailable"
    TRACKING_UNAVAILABLE = "TrackingUnavailable"
    NODE_LOST = "NodeLost"
    # Rank 0 answered before, and does not any more.
    UNRESPONSIVE = "Unresponsive"
    PREEMPTED = "Preempted"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BELOW_GATE = "BelowGate"
    NAME_CONFLICT = "NameConflict"
    RESULT_LOST = "ResultLost"
    # A pod ended in a way that says no more than its exit code.
    POD_FAILED = "PodFailed"
    # What is not a failure.
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    # Suspended by a queue (Kueue) or by whoever else suspends Jobs.
    QUEUED = "Queued"
    COMPLETED = "Completed"
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ARTIFACT_INVALID = "ArtifactInvalid"
    JOB_NOT_FINISHED = "JobNotFinished"
    ROLLING_OUT = "RollingOut"
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"
    POOL_NOT_FOUND = "PoolNotFound"
    SCALED_TO_ZERO = "ScaledToZero"
    # A canary did worse than `rollout.analysis` allows, and was rolled back.
    ANALYSIS_FAILED = "AnalysisFailed"
    PAUSED = "Paused"
