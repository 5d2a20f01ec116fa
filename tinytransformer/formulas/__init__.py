"""The equations of the document and of the field, each as its formula on Tensors."""

from .activations import *  # noqa: F403
from .attention import *  # noqa: F403
from .layers import *  # noqa: F403
from .losses import *  # noqa: F403
from .masks import *  # noqa: F403
from .normalization import *  # noqa: F403
from .positions import *  # noqa: F403
