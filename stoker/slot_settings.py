"""The shape of the setting `workers`: which slots a machine has, as in the platform's engine.yml."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr

_ENV = "Variables for the processes of its apps; stronger than `app_env`."


class GpuSlot(BaseModel):
    """One GPU worker: the devices that it owns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpus: tuple[int, ...] = Field(min_length=1, description="Indexes of its GPUs, as nvidia-smi counts them.")
    env: dict[str, SecretStr] = Field(default={}, description=_ENV)


class CpuSlots(BaseModel):
    """The CPU workers of a machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="How many; unset = 2 on a machine without GPU workers, else 0.",
    )
    env: dict[str, SecretStr] = Field(default={}, description=_ENV)


class WorkerSlots(BaseModel):
    """The `workers:` part of the settings file, in the shape of the platform's engine.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpu: tuple[GpuSlot, ...] | None = Field(
        default=None, description="GPU workers; unset = one for each GPU found, [] = none."
    )
    cpu: CpuSlots = CpuSlots()

    def env_of(self, *, gpus: tuple[int, ...]) -> dict[str, str]:
        """The variables for apps of the worker that owns these devices; of CPU workers for ()."""
        owners = [slot.env for slot in self.gpu or () if slot.gpus == gpus] if gpus else [self.cpu.env]
        env = owners[0] if owners else {}
        return {name: value.get_secret_value() for name, value in env.items()}
