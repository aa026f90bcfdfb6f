"""What attempts measure, on their way from the worker to the scheduler. No behaviour here."""

from msgspec import Struct


class Measures(Struct, frozen=True, kw_only=True):
    """What an attempt measured; zero = nobody did."""

    engine: str = ""
    worker: str = ""
    setup_key: str = ""
    load_s: float = 0.0
    run_s: float = 0.0
    vram_bytes: int = 0
    vram_short: int = 0  # GPU memory ran out; with how much the setup is to be counted
    instance_ended: bool = False
    at_fault: str = ""  # what failed on the worker, and not in the app
