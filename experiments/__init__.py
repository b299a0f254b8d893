"""Experiments: one file each, with a frozen `Config` and `main(cfg, run) -> rows`."""
