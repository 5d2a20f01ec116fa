"""Nothing here is collected by pytest: the peers are not installed where the tests run."""

collect_ignore_glob = ["*.py"]
