"""The shape of the setting `workers`: which slots a machine has, as in the platform's engine.yml."""

from pydantic import BaseModel, ConfigDict, Field


class GpuSlot(BaseModel):
    """One GPU worker: the devices that it owns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpus: tuple[int, ...] = Field(min_length=1, description="Indexes of its GPUs, as nvidia-smi counts them.")


class CpuSlots(BaseModel):
    """The CPU workers of a machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="How many; unset = 2 on a machine without GPU workers, else 0.",
    )


class WorkerSlots(BaseModel):
    """The `workers:` part of the settings file, in the shape of the platform's engine.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpu: tuple[GpuSlot, ...] | None = Field(
        default=None, description="GPU workers; unset = one for each GPU found, [] = none."
    )
    cpu: CpuSlots = CpuSlots()
