"""The primitives, by kind. Each is a NumPy call with the rules for its gradient right under it."""

from .elementwise import *  # noqa: F403
from .indexing import *  # noqa: F403
from .linalg import *  # noqa: F403
from .reductions import *  # noqa: F403
from .shapes import *  # noqa: F403
