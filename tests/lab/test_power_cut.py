"""A node dies under load: its guest goes on with every acknowledged write, there and back again."""

from hcilab import story


def test_power_cut(site):
    figures = story.play(site, story.Silent())
    assert not figures.losses, "; ".join(figures.losses)
    site.measured("default.power_cut_to_guest_started_s", figures.power_cut_to_guest_started_s)
    site.measured("default.second_cut_to_guest_started_s", figures.second_cut_to_guest_started_s)


def test_power_cut_fast(site):
    figures = story.play(site, story.Silent())
    assert not figures.losses, "; ".join(figures.losses)
    site.measured("fast.power_cut_to_guest_started_s", figures.power_cut_to_guest_started_s)


test_power_cut_fast.profile = "fast"
