"""Gradients by differences."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "numerical_gradient",
    lesson=1,
    title=Say("Gradients by central differences", "用中心差分求梯度"),
    task=Say(
        """Measure the gradient of a function by moving each entry of its argument a little both ways.

    f: a function from an array to a number
    x: an array of floats, any shape; the caller's array must stay as it is
    h: how far to move an entry
    returns: for each entry (f(x + h) - f(x - h)) / 2h, an array of the shape of x""",
        """把自变量的每个元素向两边各移动一点，量出函数的梯度。

    f：从数组到一个数的函数
    x：浮点数组，任意形状；调用者的数组不能被改动
    h：移动的距离
    返回：对每个元素为 (f(x + h) - f(x - h)) / 2h，形状与 x 相同""",
    ),
)


@exercise.driver
def drive(answer, kind, x, h):
    weights = np.cos(np.arange(x.size) + 0.5).reshape(x.shape)
    functions = {
        "linear": lambda a: float((weights * a).sum()),
        "cubic": lambda a: float((weights * a * a * a).sum() + a.sum() ** 2),
        "coupled": lambda a: float(np.exp(0.3 * (weights * a).sum()) + (a**2).sum()),
    }
    kept = x.copy()
    given = x.copy()
    out = np.array(answer(functions[kind], given, h), float)
    return out, bool((given == kept).all())


@exercise.answer
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = h
        gradient[place] = (f(x + step) - f(x - step)) / (2 * h)
    return gradient


@exercise.variant
def on_a_copy(f, x, h=1e-5):
    x = x.copy()
    gradient = np.empty_like(x)
    for i in range(x.size):
        old = x.flat[i]
        x.flat[i] = old + h
        up = f(x)
        x.flat[i] = old - h
        gradient.flat[i] = (up - f(x)) / (2 * h)
        x.flat[i] = old
    return gradient


@exercise.variant
def with_unit_vectors(f, x, h=1e-5):
    units = np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([f(x + h * e) / (2 * h) - f(x - h * e) / (2 * h) for e in units]).reshape(x.shape)


@exercise.variant
def put_back_in_place(f, x, h=1e-5):
    out = np.zeros(x.shape)
    it = np.nditer(x, flags=["multi_index"])
    for value in it:
        at, middle = it.multi_index, float(value)
        values = []
        for moved in (middle + h, middle - h):
            y = np.array(x)
            y[at] = moved
            values.append(f(y))
        out[at] = (values[0] - values[1]) / h / 2
    return out


@exercise.shows("is right for a vector", "向量时正确", points=2)
def vector(rng):
    return [("cubic", rng.normal(size=5), 1e-3), ("linear", rng.normal(size=3), 1e-4)]


@exercise.shows("is right for any shape", "任意形状时正确", points=1)
def shapes(rng):
    return [("coupled", rng.normal(size=(2, 3)), 1e-3), ("cubic", rng.normal(size=(2, 1, 3)), 1e-4)]


@exercise.shows("moves by h both ways", "向两边各移动 h", points=1)
def wide(rng):
    return [("cubic", rng.normal(size=3), 0.5), ("coupled", rng.normal(size=(3, 2)), 0.25)]


@exercise.mistake(
    "You move one way only: the error of that is of order h, of both ways of order h².",
    "你只向一边移动：这样的误差是 h 阶，两边移动则是 h² 阶。",
)
def one_way_only(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = h
        gradient[place] = (f(x + step) - f(x)) / h
    return gradient


@exercise.mistake(
    "Two points that lie 2h apart: you divide by h.",
    "两点相距 2h，你却除以了 h。",
)
def divided_by_h(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = h
        gradient[place] = (f(x + step) - f(x - step)) / h
    return gradient


@exercise.mistake(
    "All entries move at once: that gives the sum of the gradient. Move one at a time.",
    "所有元素同时移动：得到的是梯度之和。应一次只移动一个。",
)
def all_entries_at_once(f, x, h=1e-5):
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


@exercise.mistake(
    "An entry that was moved is not put back: the following ones are measured somewhere else, and the caller's array "
    "is changed.",
    "移动过的元素没有放回去：后面的元素就在别处测量了，调用者的数组也被改动。",
)
def not_put_back(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        x[place] += h
        up = f(x)
        x[place] -= 2 * h
        gradient[place] = (up - f(x)) / (2 * h)
    return gradient


@exercise.mistake(
    "Both moves are made on the same array, so that the second value replaces the first: the difference is 0.",
    "两次移动用的是同一个数组，第二个值盖住了第一个：差为 0。",
)
def both_on_the_same_array(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up = down = x.copy()
        up[place] += h
        down[place] -= h
        gradient[place] = (f(up) - f(down)) / (2 * h)
    return gradient


@exercise.mistake(
    "The sign is turned around.",
    "符号反了。",
)
def sign_turned_around(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = h
        gradient[place] = (f(x - step) - f(x + step)) / (2 * h)
    return gradient


@exercise.mistake(
    "h is ignored: you move by a distance of your own.",
    "没有使用 h：你移动的是自己定的距离。",
)
def h_ignored(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-4
        gradient[place] = (f(x + step) - f(x - step)) / 2e-4
    return gradient
