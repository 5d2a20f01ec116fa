"""Undo broadcasting in a gradient."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "unbroadcast",
    lesson=1,
    title=Say("Undoing broadcasting", "撤销广播"),
    task=Say(
        """Bring a gradient back to the shape that an operand had before NumPy broadcast it.

    g: the gradient of the output of an operation, of the broadcast shape
    shape: the shape of the operand, a tuple
    returns: the gradient of the operand, of that shape""",
        """把梯度变回操作数被 NumPy 广播之前的形状。

    g：运算输出的梯度，形状为广播后的形状
    shape：操作数的形状，元组
    返回：操作数的梯度，形状为 shape""",
    ),
)


@exercise.answer
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return g.sum(axis=repeated, keepdims=True)


@exercise.variant
def axis_by_axis(g, shape):
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis in range(len(shape)):
        if shape[axis] != g.shape[axis]:
            g = g.sum(axis, keepdims=True)
    return g


@exercise.variant
def all_at_once(g, shape):
    padded = (1,) * (g.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, (m, n) in enumerate(zip(g.shape, padded, strict=True)) if m != n)
    return g.sum(axis=axes, keepdims=True).reshape(shape)


@exercise.variant
def by_adding_each_entry(g, shape):
    out = np.zeros(shape)
    places = np.broadcast_to(np.arange(out.size).reshape(shape), g.shape)
    np.add.at(out.reshape(-1), places, g)
    return out


@exercise.shows("sums over axes that were put in front", "对前面添加的轴求和", points=1)
def in_front(rng):
    return [
        (rng.normal(size=(2, 3, 5)), (5,)),
        (rng.normal(size=(2, 3, 5)), (3, 5)),
        (rng.normal(size=7), ()),
    ]


@exercise.shows("sums over axes of length 1, and keeps them", "对长度为 1 的轴求和并保留它们", points=2)
def stretched(rng):
    return [
        (rng.normal(size=(3, 5)), (3, 1)),
        (rng.normal(size=(5, 3, 7)), (1, 3, 1)),
        (rng.normal(size=(3, 3)), (1, 3)),
    ]


@exercise.shows("does both at once", "两者同时出现时正确", points=1)
def both(rng):
    return [
        (rng.normal(size=(2, 3, 5)), (3, 1)),
        (rng.normal(size=(2, 7, 3, 5)), (1, 5)),
        (rng.normal(size=(2, 3)), (1, 1)),
    ]


@exercise.shows("leaves a gradient of the right shape as it is", "形状已经正确的梯度保持不变", points=1)
def same(rng):
    return [
        (rng.normal(size=(3, 5)), (3, 5)),
        (rng.normal(size=(3, 1)), (3, 1)),
        (rng.normal(size=(5, 2)), (1, 2)),
    ]


@exercise.mistake(
    "You take the mean: an operand that was used many times gets the sum of its gradients.",
    "你取了平均：被多次使用的操作数，梯度应当是各处梯度之和。",
)
def mean_for_sum(g, shape):
    while g.ndim > len(shape):
        g = g.mean(0)
    for axis in range(len(shape)):
        if shape[axis] == 1:
            g = g.mean(axis, keepdims=True)
    return g


@exercise.mistake(
    "Axes of length 1 are lost: sum over them with keepdims=True.",
    "长度为 1 的轴丢了：求和时要用 keepdims=True。",
)
def axes_of_length_1_lost(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(axis for axis, length in enumerate(shape) if length == 1))


@exercise.mistake(
    "Axes put in front are summed, those of length 1 are not.",
    "前面添加的轴求了和，长度为 1 的轴却没有。",
)
def only_axes_in_front(g, shape):
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


@exercise.mistake(
    "Axes of length 1 are summed, those put in front are not.",
    "长度为 1 的轴求了和，前面添加的轴却没有。",
)
def only_axes_of_length_1(g, shape):
    extra = g.ndim - len(shape)
    axes = tuple(extra + axis for axis, length in enumerate(shape) if length == 1)
    return g.sum(axis=axes, keepdims=True)


@exercise.mistake(
    "You keep the first of the repeated entries: all of them count.",
    "你只保留了重复元素中的第一个：它们全都要算。",
)
def first_for_sum(g, shape):
    while g.ndim > len(shape):
        g = g[0]
    for axis in range(len(shape)):
        if shape[axis] == 1:
            g = np.take(g, [0], axis)
    return g


@exercise.mistake(
    "You sum over the last axes: NumPy puts missing axes in front.",
    "你对最后的轴求了和：NumPy 是在前面补上缺少的轴。",
)
def sums_over_the_last_axes(g, shape):
    while g.ndim > len(shape):
        g = g.sum(-1)
    for axis in range(len(shape)):
        if shape[axis] == 1:
            g = g.sum(axis, keepdims=True)
    return g
