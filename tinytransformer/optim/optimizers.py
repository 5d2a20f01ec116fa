"""SGD, Adam and AdamW.

An optimizer lays the parameters of a group side by side in one array, and its moments in others like it;
each ``Parameter.data`` is a view of its part. A step is then a dozen array operations for all parameters
together, done piece by piece, each small enough to stay in the processor's cache from the first operation
to the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy

from ..backend import backend_name, module_of, move, running, to_numpy, xp
from ..kernels.cuda.device import runs_kernels
from ..kernels.cuda.optimizer import adam
from ..nn.module import Module, ModuleList, fitting
from ..tensor import Tensor

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "decay_groups", "layerwise_groups"]

PIECE = 65_536  # entries; parameters, gradient, two moments and scratch in float32: 1.25 MiB


class Optimizer:
    """What the optimizers share: groups of parameters, their layout in memory, the state to save.

    A parameter without gradient, or with ``requires_grad`` False, is left alone: no decay, no change of its
    moments, and its step count stands still. A parameter whose array was exchanged since the last step
    (``model.to``) is followed, with its moments.

    Attributes
    ----------
    lr : float
        Learning rate. Set it before each step to follow a schedule.
    groups : list of dict
        ``"params"`` and the hyperparameters of each group; values may be changed between steps. A group
        with an ``"lr_scale"`` learns at so many times ``lr``.
    """

    slots: tuple[str, ...]  # names of the moments

    lr: float
    groups: list[dict[str, Any]]

    def __init__(self, params: Iterable[Any], lr: float, **defaults: Any):
        name = type(self).__name__
        if isinstance(params, (Tensor, dict)):
            raise TypeError(
                f"{name}: params must be a list or iterator of parameters or groups: write [params]"
            )
        given = list(params)
        if given and not isinstance(given[0], dict):
            given = [{"params": given}]
        self.lr = lr
        self.groups = []
        seen: set[int] = set()
        for group in given:
            if not isinstance(group, dict) or "params" not in group:
                raise TypeError(f"{name}: a group is a dict with 'params', not {type(group).__name__}")
            if unknown := group.keys() - {"params", "lr_scale", *defaults}:
                raise ValueError(
                    f"{name}: unknown {min(unknown)!r} in a group; known: lr_scale, {', '.join(defaults)}"
                )
            group = {"lr_scale": 1.0, **defaults, **group, "params": list(group["params"])}
            for p in group["params"]:
                if not isinstance(p, Tensor) or p.node is not None:
                    raise TypeError(f"{name}: parameters are leaf Tensors, not {type(p).__name__}")
                if id(p) in seen:
                    raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
                seen.add(id(p))
            _check(name, {"lr": lr, **group})
            self.groups.append(group)
        if not seen:
            raise ValueError(f"{name}: there are no parameters; was the iterator used before?")
        self._buffers: list[_Buffer] = []
        self._lay_out()

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.groups for p in group["params"])

    def _lay_out(self) -> None:
        """Give every parameter its place in a buffer; moments that it has already move along."""
        known = {id(p): (b, i) for b in self._buffers for i, p in enumerate(b.parameters)}
        self._buffers = []
        for group in self.groups:
            kinds: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                kinds.setdefault((p.backend, p.dtype), []).append(p)
            self._buffers += [_Buffer(group, ps, len(self.slots)) for ps in kinds.values()]
        self._places = {id(p): (b, i) for b in self._buffers for i, p in enumerate(b.parameters)}
        for key, (old, i) in known.items():
            new, j = self._places[key]
            new.set_state(j, old.steps[i], old.moments(i))

    def _follow(self) -> None:
        if any(
            p.data is not view for b in self._buffers for p, view in zip(b.parameters, b.views, strict=True)
        ):
            self._lay_out()

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises
        ------
        ValueError
            If a gradient has another shape than its parameter; then nothing has been changed.
        """
        self._follow()
        for p in self._parameters():
            if p.grad is not None and p.grad.shape != p.shape:
                name = type(self).__name__
                raise ValueError(f"{name}: gradient of shape {p.grad.shape} for a parameter of {p.shape}")
        for buffer in self._buffers:
            lr = self.lr * buffer.group["lr_scale"]
            with running(module_of(buffer.data)):
                for t, entries, gradient in buffer.pieces():
                    moments = [slot[entries] for slot in buffer.slots]
                    work, spare = (scratch[: gradient.size] for scratch in buffer.scratch)
                    self._update(buffer.data[entries], gradient, moments, t, lr, buffer.group, work, spare)

    def _update(
        self, p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], work: Any, spare: Any
    ) -> None:
        """Change a piece of parameters and moments in place, at their t-th step.

        ``work`` and ``spare`` are scratch of the same length. The gradient may lie in ``spare``, or be
        ``p.grad`` itself, which stays as it is.
        """
        raise AttributeError(f"{type(self).__name__} defines no _update()")

    def zero_grad(self) -> None:
        """Forget the gradients: ``grad`` of each parameter becomes None."""
        for p in self._parameters():
            p.grad = None

    def state_dict(self) -> dict[str, numpy.ndarray | int]:
        """Copy the moments and step counts to the host; a run that loads them goes on bit by bit alike.

        Returns
        -------
        dict
            ``"steps"``, one for each parameter, and ``"<moment>.<i>"`` of parameter i in the order of the
            groups. Hyperparameters are not included.
        """
        self._follow()
        places = [self._places[id(p)] for p in self._parameters()]
        state: dict[str, numpy.ndarray | int] = {"steps": numpy.array([b.steps[i] for b, i in places])}
        for n, (buffer, i) in enumerate(places):
            for slot, moment in zip(self.slots, buffer.moments(i), strict=True):
                state[f"{slot}.{n}"] = to_numpy(moment).reshape(buffer.views[i].shape).copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over moments and step counts that `state_dict` returned.

        Raises
        ------
        ValueError
            With every missing, unexpected and misshapen name at once; then nothing has been changed.
        """
        self._follow()
        parameters = list(self._parameters())
        shapes = {f"{slot}.{n}": p.shape for n, p in enumerate(parameters) for slot in self.slots}
        arrays = fitting(type(self).__name__, {"steps": (len(parameters),), **shapes}, state)
        if arrays["steps"].dtype.kind not in "iu" or arrays["steps"].min() < 0:
            raise ValueError(f"{type(self).__name__}: steps must be integers from 0, not {arrays['steps']}")
        for n, p in enumerate(parameters):
            buffer, i = self._places[id(p)]
            moments = [arrays[f"{slot}.{n}"].reshape(-1) for slot in self.slots]
            buffer.set_state(i, int(arrays["steps"][n]), moments)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the layout in memory out: a copied view is a view no longer."""
        return {"lr": self.lr, "groups": self.groups, "state": self.state_dict()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Lay the copied parameters out anew."""
        self.lr, self.groups, self._buffers = saved["lr"], saved["groups"], []
        self._lay_out()
        self.load_state_dict(saved["state"])


def _check(name: str, values: dict[str, Any]) -> None:
    for key in ("lr", "lr_scale", "momentum", "weight_decay", "eps"):
        if key in values and not values[key] >= 0:
            raise ValueError(f"{name}: {key} must be at least 0, not {values[key]}")
    if not all(0 <= beta < 1 for beta in values.get("betas", ())):
        raise ValueError(f"{name}: both betas must be in [0, 1), not {values['betas']}")
    if values.get("nesterov") and not values["momentum"]:
        raise ValueError(f"{name}: nesterov needs a momentum above 0")


class _Buffer:
    """The parameters of one group, dtype and backend in one array, and their moments in others like it."""

    def __init__(self, group: dict[str, Any], parameters: list[Tensor], slots: int):
        module = module_of(parameters[0].data)
        self.group = group
        self.parameters = parameters
        self.steps = [0] * len(parameters)  # updates of each: what bias correction corrects for
        self.data = module.concatenate([p.data.reshape(-1) for p in parameters])
        self.slots = [module.zeros(self.data.size, self.data.dtype) for _ in range(slots)]
        self.places: list[slice] = []
        self.views = []
        start = 0
        for p in parameters:
            self.places.append(slice(start, start + p.size))
            self.views.append(self.data[start : start + p.size].reshape(p.shape))
            p.data = self.views[-1]
            start += p.size
        # a GPU wants few operations on much; a processor wants what fits its cache
        self.limit = min(start, PIECE) if backend_name(self.data) == "numpy" else start
        self.scratch = [module.empty(self.limit, self.data.dtype) for _ in range(2)]

    def moments(self, i: int) -> list[Any]:
        """Return the moments of parameter i, each of one axis."""
        return [slot[self.places[i]] for slot in self.slots]

    def set_state(self, i: int, steps: int, moments: list[Any]) -> None:
        """Set the step count and the moments of parameter i, which may come from another backend."""
        self.steps[i] = steps
        for slot, moment in zip(self.slots, moments, strict=True):
            slot[self.places[i]] = move(moment, backend_name(slot)).astype(slot.dtype, copy=False)

    def pieces(self) -> Iterator[tuple[int, slice, Any]]:
        """Count the step of each parameter with a gradient, and yield (step, entries, gradient) in pieces.

        A piece may hold several parameters, if they lie side by side and have taken equally many steps.
        """
        active = [p.requires_grad and p.grad is not None for p in self.parameters]
        steps = [t if a else -1 for t, a in zip(self.steps, active, strict=True)]
        for t, run in groupby(range(len(steps)), key=steps.__getitem__):
            if t < 0:
                continue
            gradients = []
            places = list(run)
            for i in places:
                self.steps[i] += 1
                self.parameters[i].mark_changed()
                gradients.append(self.parameters[i].grad.data.reshape(-1))  # type: ignore[union-attr]
            start = self.places[places[0]].start
            for parts in _cut(gradients, self.limit):
                size = sum(part.size for part in parts)
                gradient = parts[0] if len(parts) == 1 else xp.concatenate(parts, out=self.scratch[1][:size])
                yield t + 1, slice(start, start + size), gradient
                start += size


def _cut(arrays: list[Any], limit: int) -> Iterator[list[Any]]:
    """Yield consecutive parts of the arrays in lists of ``limit`` entries together; the last has fewer."""
    parts: list[Any] = []
    room = limit
    for array in arrays:
        while array.size > room:
            yield [*parts, array[:room]]
            array, parts, room = array[room:], [], limit
        if array.size:
            parts.append(array)
            room -= array.size
    if parts:
        yield parts


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum if asked for.

    .. math::
        g &\leftarrow \nabla_\theta L + \lambda \theta \\
        v &\leftarrow \mu v + g \\
        \theta &\leftarrow \theta - \eta v, \qquad \text{or with Nesterov}\quad \theta - \eta (g + \mu v)

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group: ``"params"`` and its own values of the arguments below.
    lr : float
        :math:`\eta`.
    momentum : float
        :math:`\mu`; with 0, v is g.
    weight_decay : float
        :math:`\lambda`, an L2 penalty.
    nesterov : bool
        Look ahead along the momentum.

    Raises
    ------
    TypeError
        If ``params`` holds anything but leaf Tensors.
    ValueError
        If there are no parameters, one is given twice, or a hyperparameter is out of range.

    Notes
    -----
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> w = tt.nn.Parameter([4.0])
    >>> optimizer = tt.optim.SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [2.0]
    """

    slots = ("velocity",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)

    def _update(
        self, p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], work: Any, spare: Any
    ) -> None:
        (v,) = moments
        if group["weight_decay"]:
            g = xp.add(xp.multiply(p, group["weight_decay"], out=work), g, out=spare)
        direction = g
        if group["momentum"]:
            v *= group["momentum"]
            v += g
            direction = v
            if group["nesterov"]:
                direction = xp.add(xp.multiply(v, group["momentum"], out=work), g, out=work)
        p -= xp.multiply(direction, lr, out=work)


class Adam(Optimizer):
    r"""Steps of about the learning rate in every coordinate, whatever the size of its gradient.

    .. math::
        g &\leftarrow \nabla_\theta L + \lambda \theta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \hat m &= m / (1 - \beta_1^t), \qquad \hat v = v / (1 - \beta_2^t) \\
        \theta &\leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)

    t counts the steps of each parameter, from 1: exactly what the zeros, at which m and v start, have to be
    corrected for.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group: ``"params"`` and its own values of the arguments below.
    lr : float
        :math:`\eta`.
    betas : (float, float)
        :math:`\beta_1, \beta_2`.
    eps : float
        :math:`\epsilon`, outside the root.
    weight_decay : float
        :math:`\lambda`, an L2 penalty: it passes through m and v. For the decoupled one see `AdamW`.

    Raises
    ------
    TypeError
        If ``params`` holds anything but leaf Tensors.
    ValueError
        If there are no parameters, one is given twice, or a hyperparameter is out of range.

    Notes
    -----
    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> w = tt.nn.Parameter([4.0, -400.0])
    >>> optimizer = tt.optim.Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [3.5, -399.5]
    """

    slots = ("m", "v")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(
        self, p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], work: Any, spare: Any
    ) -> None:
        if runs_kernels(xp.module):
            adam(p, g, moments, t, lr, group, l2=group["weight_decay"], decay=0.0)
            return
        if group["weight_decay"]:
            g = xp.add(xp.multiply(p, group["weight_decay"], out=work), g, out=spare)
        self._adapt(p, g, moments, t, lr, group, work)

    def _adapt(
        self, p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], work: Any
    ) -> None:
        m, v = moments
        beta1, beta2 = group["betas"]
        m *= beta1
        m += xp.multiply(g, 1 - beta1, out=work)
        v *= beta2
        g_squared = xp.multiply(g, g, out=work)
        g_squared *= 1 - beta2
        v += g_squared
        denominator = xp.sqrt(v, out=work)  # sqrt(v_hat) + eps
        denominator /= math.sqrt(1 - beta2**t)
        denominator += group["eps"]
        change = xp.divide(m, denominator, out=work)
        change *= lr / (1 - beta1**t)  # the correction of m_hat, in the same pass
        p -= change


class AdamW(Adam):
    r"""Adam with decoupled weight decay: it shrinks the parameter itself, past m and v.

    .. math::
        \theta &\leftarrow (1 - \eta \lambda)\, \theta \\
        \theta &\leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)
        \qquad \text{with } \hat m, \hat v \text{ of Adam, of } \nabla_\theta L \text{ alone}

    Parameters
    ----------
    params, lr, betas, eps
        As for `Adam`.
    weight_decay : float
        :math:`\lambda`. See `decay_groups` for what should decay.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.

    Notes
    -----
    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2; as in PyTorch
    the decay is multiplied by the learning rate.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> model = tt.nn.Linear(2, 3)
    >>> optimizer = tt.optim.AdamW(tt.optim.decay_groups(model, 0.1), lr=1e-3)
    >>> model(tt.ones((5, 2))).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)

    def _update(
        self, p: Any, g: Any, moments: Any, t: int, lr: float, group: dict[str, Any], work: Any, spare: Any
    ) -> None:
        if runs_kernels(xp.module):
            adam(p, g, moments, t, lr, group, l2=0.0, decay=group["weight_decay"])
            return
        p *= 1 - lr * group["weight_decay"]
        self._adapt(p, g, moments, t, lr, group, work)


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters of a model: matrices decay, vectors (biases and gains) do not.

    Parameters
    ----------
    model : Module
    weight_decay : float
        Of the matrices.

    Returns
    -------
    list of dict
        Groups for an optimizer; every parameter is in exactly one.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> groups = tt.optim.decay_groups(tt.nn.Linear(2, 3), 0.1)
    >>> [(g["weight_decay"], [p.shape for p in g["params"]]) for g in groups]
    [(0.1, [(2, 3)]), (0.0, [(3,)])]
    """
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def layerwise_groups(model: Module, decay: float, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    r"""Let lower layers learn more slowly than higher ones, for fine-tuning: what they know is more general.

    .. math:: \eta_\ell = \eta\, \xi^{L + 1 - \ell}

    Level :math:`\ell` is 0 for what comes before the first layer (the embeddings), i + 1 for layer i of any
    `ModuleList`, and L + 1 for all else (norms at the end, pooler, heads). Of each level matrices decay and
    vectors do not, as in `decay_groups`.

    Parameters
    ----------
    model : Module
        For example a BERT with a head.
    decay : float
        :math:`\xi`, above 0 and at most 1.
    weight_decay : float
        Of the matrices.

    Returns
    -------
    list of dict
        Groups for an optimizer, lowest level first; every parameter is in exactly one. Their ``"lr_scale"``
        is :math:`\eta_\ell / \eta`, with the optimizer's ``lr`` for :math:`\eta`: all follow its schedule.

    Raises
    ------
    ValueError
        If the model has no layers, or the decay is out of range.

    Notes
    -----
    Source: Howard and Ruder, Universal Language Model Fine-tuning, 2018, section 3.2; Sun et al., How to
    Fine-Tune BERT for Text Classification, 2019, section 5.3.4.

    Examples
    --------
    >>> from tinytransformer.models import BERTConfig, BERTForSequenceClassification
    >>> config = BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> groups = layerwise_groups(BERTForSequenceClassification(config), decay=0.5)
    >>> [group["lr_scale"] for group in groups[::2]]
    [0.125, 0.25, 0.5, 1.0]
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layerwise_groups: decay must be above 0 and at most 1, not {decay}")
    stacks = [module for module in model.modules() if type(module) is ModuleList]
    level_in_stack = {
        id(p): i + 1 for stack in stacks for i, layer in enumerate(stack) for p in layer.parameters()
    }
    if not level_in_stack:
        raise ValueError(f"layerwise_groups: {type(model).__name__} has no layers in a ModuleList")
    top = max(level_in_stack.values()) + 1
    levels: list[list[Tensor]] = [[] for _ in range(top + 1)]
    rest = 0  # the level of a parameter outside the stacks: 0 before the first, top after it
    for p in model.parameters():
        level = level_in_stack.get(id(p), rest)
        rest = top if id(p) in level_in_stack else rest
        levels[level].append(p)
    return [
        {"params": part, "lr_scale": decay ** (top - level), "weight_decay": rate}
        for level, parameters in enumerate(levels)
        for rate, part in (
            (weight_decay, [p for p in parameters if p.ndim >= 2]),
            (0.0, [p for p in parameters if p.ndim < 2]),
        )
        if part
    ]
