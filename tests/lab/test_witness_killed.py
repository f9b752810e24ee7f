"""The witness dies: nothing happens. It comes back: nothing happens."""


def test_nothing_happens(site):
    site.bring_up()
    log = site.add_guest("app", "a")
    log.wait_writes(300, 30)
    log.reset_silence()
    site.lab.host("w").power_cut()
    log.wait_writes(4000, 60)
    site.lab.host("w").boot()
    log.wait_writes(1000, 30)
    assert site.in_sync("app"), "the volume is no longer mirrored"
    assert len(log.starts) == 1, "the guest was started again"
    site.measured("witness_killed.stall_s", log.silence())
    assert not log.lost(), "; ".join(log.lost())
    # The witness still decides: it kept its records.
    t = site.lab.host("a").power_cut()
    site.wait_guest_process("app", "b", 30, t)
    log.wait_life("b", 2, 60)
    assert not log.lost(), "; ".join(log.lost())
