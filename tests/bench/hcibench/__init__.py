"""The bench: the same patterns against a raw file, tgt and hci-storaged on the same store, in turn."""
