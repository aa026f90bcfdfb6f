"""The clock of decisions is the server's, whatever the machine's wall clock does."""

from stoker_scheduler.clock import ServerClock


class Machine:
    mono_s, wall_s = 50.0, 1_000_000.0


def clock(machine):
    return ServerClock(lambda: machine.mono_s, lambda: machine.wall_s)


def test_it_is_the_machines_until_the_server_has_answered():
    assert clock(Machine())() == 1_000_000_000


def test_it_is_the_servers_and_goes_on_with_the_machine():
    machine = Machine()
    found = clock(machine)
    found.set(7_000_000)
    machine.mono_s += 2.5
    assert found() == 7_002_500


def test_a_step_of_the_machines_clock_changes_nothing():
    machine = Machine()
    found = clock(machine)
    found.set(7_000_000)
    machine.wall_s -= 3600
    assert found() == 7_000_000
