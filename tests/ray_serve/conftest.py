"""Without Ray the tests with a cluster are not collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("ray") else ["test_cluster*.py", "test_routing.py", "test_building.py"]
