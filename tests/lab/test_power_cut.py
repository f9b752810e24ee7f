"""A node dies under load: its guest goes on with every acknowledged write, there and back again."""

from hcilab import story


def test_power_cut(site):
    figures = story.play(site, story.Silent())
    assert not figures.losses, "; ".join(figures.losses)
    assert figures.power_cut_to_guest_started_s <= 9, f"guest started after {figures.power_cut_to_guest_started_s:.1f} s"
    assert figures.second_cut_to_guest_started_s <= 9, f"guest started after {figures.second_cut_to_guest_started_s:.1f} s"


def test_power_cut_fast(site):
    figures = story.play(site, story.Silent())
    assert not figures.losses, "; ".join(figures.losses)
    assert figures.power_cut_to_guest_started_s <= 4, f"guest started after {figures.power_cut_to_guest_started_s:.1f} s"


test_power_cut_fast.profile = "fast"
