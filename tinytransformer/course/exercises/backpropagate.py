"""The walk of an autograd engine."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "backpropagate",
    lesson=1,
    title=Say("The walk back through the graph", "沿计算图反向行走"),
    task=Say(
        """Take a gradient back from the last value of a computation to all others.

    parents: for each value a list of the values it was computed from, by number; parents stand before their
        children, and a value may use another one twice
    slopes: for each value a list of its derivatives with respect to these parents, in the same order
    returns: the derivative of the last value with respect to each value, an array; 0 where there is no way

    A computation may be 20,000 steps deep. Each value passes its gradient on once, when all of it is there.""",
        """把梯度从计算的最后一个值传回其他所有值。

    parents：每个值由哪些值算出，用编号列表表示；父节点排在子节点之前，同一个值可以被用两次
    slopes：每个值对这些父节点的导数，顺序相同
    返回：最后一个值对每个值的导数，数组；没有通路的为 0

    计算可能有 20,000 步深。每个值在收齐全部梯度之后，只向下传一次。""",
    ),
)


@exercise.answer
def backpropagate(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for child in reversed(range(len(parents))):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] += gradient[child] * slope
    return gradient


@exercise.variant
def by_counting_children(parents, slopes):
    waiting = [0] * len(parents)
    for of in parents:
        for p in of:
            waiting[p] += 1
    gradient = [0.0] * len(parents)
    gradient[-1] = 1.0
    ready = [n for n in range(len(parents)) if waiting[n] == 0]
    while ready:
        node = ready.pop()
        for p, s in zip(parents[node], slopes[node], strict=True):
            gradient[p] += gradient[node] * s
            waiting[p] -= 1
            if waiting[p] == 0:
                ready.append(p)
    return np.array(gradient)


@exercise.variant
def by_heap(parents, slopes):
    import heapq

    found = {len(parents) - 1: 1.0}
    heap = [-(len(parents) - 1)]
    while heap:
        node = -heapq.heappop(heap)
        for p, s in zip(parents[node], slopes[node], strict=True):
            if p not in found:
                heapq.heappush(heap, -p)
                found[p] = 0.0
            found[p] += found[node] * s
    return np.array([found.get(n, 0.0) for n in range(len(parents))])


@exercise.variant
def depth_first_with_a_stack(parents, slopes):
    order, seen, stack = [], set(), [(len(parents) - 1, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((p, False) for p in parents[node])
    out = np.zeros(len(parents))
    out[-1] = 1
    for node in order[::-1]:
        for p, s in zip(parents[node], slopes[node], strict=True):
            out[p] = out[p] + out[node] * s
    return out


@exercise.shows("is right along a chain", "一条链时正确", points=1)
def chain(rng):
    slopes = [[], *([s] for s in rng.uniform(0.5, 2, size=6).tolist())]
    return [([[], *([n] for n in range(6))], slopes)]


@exercise.shows("adds up where a value is used more than once", "一个值被多次使用时梯度相加", points=2)
def shared(rng):
    s = rng.uniform(0.5, 2, size=9).tolist()
    parents = [[], [0], [0, 1], [2, 2], [1, 3, 0]]
    return [(parents, [[], s[:1], s[1:3], s[3:5], s[5:8]]), ([[], [0, 0, 0]], [[], s[:3]])]


@exercise.shows("passes a gradient on when all of it is there", "收齐全部梯度后才向下传", points=1)
def diamonds(rng):
    parents: list = [[]]
    for n in range(0, 12, 3):
        parents += [[n], [n, n + 1], [n + 1, n + 2]]
    slopes = [rng.uniform(0.5, 1.5, size=len(of)).tolist() for of in parents]
    return [(parents, slopes)]


@exercise.shows("gives 0 to what the last value does not depend on", "与最后一个值无关的为 0", points=1)
def unused(rng):
    s = rng.uniform(0.5, 2, size=5).tolist()
    return [([[], [], [0], [1], [0]], [[], [], s[:1], s[1:2], s[2:3]]), ([[], [], [0, 1]], [[], [], s[3:5]])]


@exercise.shows("walks 20,000 steps deep", "能走 20,000 步深", points=1)
def deep(rng):
    slopes = [[], *([s] for s in (1 + rng.normal(size=20000) * 1e-4).tolist())]
    return [([[], *([n] for n in range(20000))], slopes)]


@exercise.mistake(
    "= for +=: where a value is used twice only one of its gradients is kept.",
    "把 += 写成了 =：一个值被用两次时，只留下了其中一份梯度。",
)
def assigned_for_added(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for child in reversed(range(len(parents))):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] = gradient[child] * slope
    return gradient


@exercise.mistake(
    "The walk is recursive: Python allows about 1,000 calls within one another. Use a loop.",
    "行走是递归的：Python 只允许约 1000 层调用。请用循环。",
)
def recursive(parents, slopes):
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for parent in parents[node]:
                visit(parent)
            order.append(node)

    visit(len(parents) - 1)
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for child in reversed(order):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] += gradient[child] * slope
    return gradient


@exercise.mistake(
    "Values pass on what they have before all of it has come, and then pass it on again: parts count twice. "
    "Visit a value after all that use it.",
    "值在梯度到齐之前就往下传，之后又传一次：有些部分被算了两次。应在所有使用它的值之后再访问它。",
)
def passes_on_too_early(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    waiting = [len(parents) - 1]
    for node in waiting:
        if len(waiting) > 50000:
            break
        for parent, slope in zip(parents[node], slopes[node], strict=True):
            gradient[parent] += gradient[node] * slope
            waiting.append(parent)
    return gradient


@exercise.mistake(
    "Each value is visited when it is first reached, with the gradient it has by then: what comes later by another "
    "way is not passed on.",
    "每个值在第一次到达时就被访问，只带着当时已有的梯度：之后从别的路来的部分没有传下去。",
)
def visits_when_first_reached(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    waiting, seen = [len(parents) - 1], {len(parents) - 1}
    while waiting:
        node = waiting.pop(0)
        for parent, slope in zip(parents[node], slopes[node], strict=True):
            gradient[parent] += gradient[node] * slope
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return gradient


@exercise.mistake(
    "You go forwards: children must pass their gradient on before their parents do.",
    "方向反了：子节点应先于父节点传出梯度。",
)
def walks_forwards(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for child in range(len(parents)):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] += gradient[child] * slope
    return gradient


@exercise.mistake(
    "The gradient of the child is left out: the chain rule multiplies the slopes along the way.",
    "漏乘了子节点的梯度：链式法则要把沿途的导数相乘。",
)
def chain_rule_forgotten(parents, slopes):
    gradient = np.zeros(len(parents))
    gradient[-1] = 1.0
    for child in reversed(range(len(parents))):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] += slope
    return gradient


@exercise.mistake(
    "Every value starts with a gradient of 1: only the last one does.",
    "每个值的梯度都从 1 开始：只有最后一个值如此。",
)
def ones_everywhere(parents, slopes):
    gradient = np.ones(len(parents))
    for child in reversed(range(len(parents))):
        for parent, slope in zip(parents[child], slopes[child], strict=True):
            gradient[parent] += gradient[child] * slope
    return gradient
