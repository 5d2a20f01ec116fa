# ---
# jupyter:
#   lesson:
#     en: Autograd, from one number to tensors
#     zh: 自动求导：从一个数到张量
#     section: "5.1"
#     minutes: 60
# ---

# %% [markdown] lang="en"
# The document's training code, in section 5.1, ends with an optimizer. What it optimizes with is not shown: for
# every one of millions of numbers in a model, the answer to one question. *If I make this number a little larger,
# does the loss go up or down, and how fast?* All these answers together are the **gradient**, and autograd finds
# them in about the time of two or three forward passes, however many numbers there are.
#
# In this lesson you build an engine for single numbers in thirty lines, move on to tensors, and learn to check a
# gradient so that no mistake gets through.

# %% [markdown] lang="zh"
# 文档 5.1 节的训练代码以一个优化器结尾。优化器靠什么来优化，那里没有写：对模型里几百万个数中的每一个，都要回答同一个问题。
# *把这个数调大一点点，损失是升是降，有多快？* 所有答案合在一起就是**梯度**；无论有多少个数，自动求导只需要大约两三次前向计算的时间，
# 就能全部求出来。
#
# 本课中你用三十行代码为单个的数造一个引擎，再走向张量，并学会怎样检查梯度，不让任何错误溜过去。

# %%
import time

import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import computation_graph, line_chart

# %% [markdown] lang="en"
# ## A slope, measured
#
# The derivative of f at x is how much f changes for a small step of x, divided by the step. You need no rule to
# find it, only two values:
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# Smaller steps should give better slopes. **Guess first**: for $f(x) = e^x$ at $x = 1$ in float64, which step gives
# the smallest error: 1e-2, 1e-5, 1e-8 or 1e-12?

# %% [markdown] lang="zh"
# ## 量出来的斜率
#
# f 在 x 处的导数，就是 x 移动一小步时 f 的变化除以步长。不需要任何规则，只要两个函数值就能求出：
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# 步子越小，斜率应该越准。**先猜一猜**：对 float64 中的 $f(x) = e^x$，在 $x = 1$ 处，哪个步长误差最小：1e-2、1e-5、1e-8 还是 1e-12？

# %% guess="1e-5"
my_step = ...  # your guess

# %%
steps = 10.0 ** np.arange(-14, 0)
both_sides = np.abs((np.exp(1 + steps) - np.exp(1 - steps)) / (2 * steps) - np.e)
one_side = np.abs((np.exp(1 + steps) - np.exp(1)) / steps - np.e)
four = [1e-2, 1e-5, 1e-8, 1e-12]
reveal(my_step, min(four, key=lambda h: both_sides[np.argmin(np.abs(steps - h))]))

assert both_sides.min() < 1e-9
assert both_sides[-1] > 1e-3
assert both_sides[0] > 1e-4
assert one_side.min() > 10 * both_sides.min()

errors = {label("two-sided", "两侧"): both_sides, label("one-sided", "单侧"): one_side}
line_chart(
    steps,
    errors,
    title=label("error of the slope", "斜率的误差"),
    across=label("step h", "步长 h"),
    logarithmic="xy",
)

# %% [markdown] lang="en"
# The picture shows the error against the step. On the right the step is too long: the error of the two-sided slope
# falls like $h^2$, of the one-sided like h. On the left the step is too short: $f(x+h)$ and $f(x-h)$ agree in nearly
# all their digits, and the difference is what rounding left over. Between them lies a valley near $10^{-5}$; with
# float32 it would be near $10^{-2}$ and far less deep. **So gradients are checked in float64.**
#
# Measuring is a fine test, but no way to train: a model of a million numbers needs two million forward passes for
# one step.
#
# ## The chain rule, by hand
#
# A computation is a chain of small steps. If y depends on u, and u on x, the slopes multiply; if x has influence on
# **several** ways, the ways add up:
#
# $$\frac{dy}{dx} = \sum_i \frac{\partial y}{\partial u_i} \frac{d u_i}{dx}$$
#
# **Guess**: $y = x \cdot x + x$ at $x = 3$. What is the slope?

# %% [markdown] lang="zh"
# 图中是误差随步长的变化。右边步子太大：两边差分的误差按 $h^2$ 下降，单边的按 h 下降。左边步子太小：$f(x+h)$ 与 $f(x-h)$
# 几乎每一位都相同，相减之后剩下的只是舍入误差。两者之间有一个谷底，在 $10^{-5}$ 附近；换成 float32，谷底会在 $10^{-2}$ 附近，
# 而且浅得多。**所以检查梯度要用 float64。**
#
# 测量是很好的检验，却不能用来训练：有一百万个数的模型，走一步就要两百万次前向计算。
#
# ## 手算链式法则
#
# 一次计算是许多小步连成的链。若 y 依赖 u，u 依赖 x，斜率就相乘；若 x 经由**几条**路产生影响，各条路就相加：
#
# $$\frac{dy}{dx} = \sum_i \frac{\partial y}{\partial u_i} \frac{d u_i}{dx}$$
#
# **猜一猜**：$y = x \cdot x + x$，在 $x = 3$ 处的斜率是多少？

# %% guess="7"
my_slope = ...  # your guess

# %%
reveal(my_slope, round((3.001 * 3.001 + 3.001 - (2.999 * 2.999 + 2.999)) / 0.002, 6))

# %% [markdown] lang="en"
# x is used three times, and three ways add up: 3 by the left factor, 3 by the right factor, and 1 by the last term.
#
# ## An engine in thirty lines
#
# A `Number` remembers what it was made from, and how fast it changes with each of these **parents**. `backward`
# then walks from the end to the beginning. Two rules make it right:
#
# 1. Gradients that arrive by several ways are **added**.
# 2. A number passes its gradient on only when all of it has come: after everything that was made from it. Numbers
#    are made one after the other, so the order of making, turned around, is such an order.

# %% [markdown] lang="zh"
# x 用了三次，三条路相加：左边的因子给 3，右边的因子给 3，最后一项给 1。
#
# ## 三十行的引擎
#
# 一个 `Number` 记得自己由什么算出，以及随每个**父节点**变化有多快。然后 `backward` 从末尾走向开头。有两条规则保证正确：
#
# 1. 经由几条路到来的梯度要**相加**。
# 2. 一个数要等自己的梯度到齐才往下传，也就是在所有用到它的数之后。数是一个接一个造出来的，所以把制造的次序倒过来，就是这样一个次序。


# %%
class Number:
    """A number that remembers how it was made."""

    made = 0

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = value, parents, 0.0  # parents: pairs (number, slope)
        Number.made += 1
        self.time = Number.made

    def __add__(self, other):
        return Number(self.value + other.value, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        return Number(self.value * other.value, [(self, other.value), (other, self.value)])

    def tanh(self):
        y = np.tanh(self.value)
        return Number(y, [(self, 1 - y * y)])

    def backward(self):
        behind, left = {self.time: self}, [self]
        while left:  # find everything this number was made from
            for number, _ in left.pop().parents:
                if number.time not in behind:
                    behind[number.time] = number
                    left.append(number)
        self.grad = 1.0
        for moment in sorted(behind, reverse=True):  # the last one made comes first
            number = behind[moment]
            for source, rate in number.parents:
                source.grad += number.grad * rate


x = Number(3.0)
(x * x + x).backward()
print(x.grad)
assert x.grad == 7

# %% [markdown] lang="en"
# That is all of it: the rest of any engine is speed, more operations, and arrays. Here is a neuron, $\tanh(wx + b)$,
# once with your engine and once with the library's `Tensor`. The picture is the graph that the Tensor keeps: inputs
# on top, a box for each operation. **Look for** the way back from the loss to w.

# %% [markdown] lang="zh"
# 全部内容就是这些：任何引擎除此之外只是更快、运算更多、支持数组。下面是一个神经元 $\tanh(wx + b)$，一次用你的引擎，一次用库的
# `Tensor`。图中是 Tensor 保存的计算图：输入在上，每个运算一个方框。**找一找**从末尾回到 w 的路。

# %%
w, x, b = Number(0.5), Number(2.0), Number(-0.3)
(w * x + b).tanh().backward()

W, X, B = (tt.tensor(v, dtype="float64", requires_grad=True) for v in (0.5, 2.0, -0.3))
output = tt.tanh(W * X + B)
output.backward(retain_graph=True)

print("Number:", w.grad, x.grad, b.grad)
print("Tensor:", W.grad.item(), X.grad.item(), B.grad.item())
np.testing.assert_allclose([w.grad, x.grad, b.grad], [W.grad.item(), X.grad.item(), B.grad.item()])
computation_graph(output, {"w": W, "x": X, "b": B})

# %% [markdown] lang="en"
# ## Why the order matters
#
# Many engines walk with a function that calls itself. That works in a lecture, and fails on a text of some thousand
# steps: Python allows about 1,000 calls inside one another. Yours has a loop; let it prove itself.

# %% [markdown] lang="zh"
# ## 为什么次序要紧
#
# 许多引擎用自己调用自己的函数来行走。课堂上没问题，遇到几千步长的计算就失败：Python 只允许约 1000 层嵌套调用。
# 你的引擎用的是循环，让它证明一下。

# %%
start = Number(1.0)
end = start
for _ in range(20_000):
    end = end * Number(1.0001)
end.backward()
print(say("20,000 steps deep:", "两万步深："), start.grad, "e² =", np.exp(2))
assert abs(start.grad - 1.0001**20_000) < 1e-9


def recursive(number):
    return [recursive(source) for source, _ in number.parents]


try:
    recursive(end)
except RecursionError as error:
    print("RecursionError:", str(error)[:40])

# %% exercise="backpropagate"
check(backpropagate)

# %% [markdown] lang="en"
# ## From numbers to tensors
#
# A tensor is many numbers, and one operation on tensors is many operations on numbers. The gradient of a tensor has
# **the shape of that tensor**: one slope for each entry. Nothing else is new, but two things are easy to get wrong.
#
# ### Broadcasting
#
# A bias of shape (5,) is added to each of 3 rows. Each entry is used three times, and ways add up.
#
# **Guess**: the loss is the sum of all 15 entries of `x + b`. What is the gradient of each entry of b?

# %% [markdown] lang="zh"
# ## 从数到张量
#
# 张量就是许多数，张量的一次运算就是数的许多次运算。张量的梯度具有**这个张量的形状**：每个元素一个斜率。此外没有新东西，
# 但有两处容易出错。
#
# ### 广播
#
# 形状为 (5,) 的偏置加到 3 行中的每一行上。每个元素用了三次，而各条路要相加。
#
# **猜一猜**：损失是 `x + b` 全部 15 个元素之和。b 的每个元素的梯度是多少？

# %% guess="3"
my_gradient = ...  # your guess

# %%
rng = np.random.default_rng(0)
x, b = tt.Tensor(rng.normal(size=(3, 5))), tt.Tensor(rng.normal(size=5), requires_grad=True)
(x + b).sum().backward()
reveal(my_gradient, b.grad.numpy()[0])
print("b", b.shape, "· b.grad", b.grad.shape, b.grad.numpy())
assert b.grad.shape == (5,)
assert (b.grad.numpy() == 3).all()

# %% [markdown] lang="en"
# Whatever NumPy repeats on the way forward, the way back must **sum**: over axes put in front, and over axes of
# length 1 that were stretched. It is a sum, not a mean, and the shape must come back exactly.

# %% [markdown] lang="zh"
# NumPy 前向时重复了什么，反向时就要对什么**求和**：对添加在前面的轴，也对被拉长的长度为 1 的轴。是求和，不是求平均；
# 形状也必须分毫不差地回来。

# %% exercise="unbroadcast"
check(unbroadcast)

# %% [markdown] lang="en"
# ### The matrix product
#
# Nearly all work of a Transformer is `a @ b`. Its rule need not be learned by heart. Write out one entry,
# $y_{mn} = \sum_k a_{mk} b_{kn}$: the slope of $y_{mn}$ with $a_{mk}$ is $b_{kn}$. Now add up all ways from
# $a_{mk}$ to the loss, where g is the gradient of y:
#
# $$\frac{\partial L}{\partial a_{mk}} = \sum_n g_{mn} b_{kn} \qquad \frac{\partial L}{\partial b_{kn}} = \sum_m a_{mk} g_{mn}$$
#
# The sums say which axes meet, and so where a transpose must stand. The shapes alone would tell you, too, **if all
# three sizes differ**: with (3, 5), (5, 7) and g of (3, 7) only one product gives (3, 5).

# %% [markdown] lang="zh"
# ### 矩阵乘积
#
# Transformer 几乎所有的计算都是 `a @ b`。它的规则不必死记。写出一个元素 $y_{mn} = \sum_k a_{mk} b_{kn}$：$y_{mn}$ 对
# $a_{mk}$ 的斜率是 $b_{kn}$。再把从 $a_{mk}$ 到损失的所有路加起来，其中 g 是 y 的梯度：
#
# $$\frac{\partial L}{\partial a_{mk}} = \sum_n g_{mn} b_{kn} \qquad \frac{\partial L}{\partial b_{kn}} = \sum_m a_{mk} g_{mn}$$
#
# 求和号说明了哪些轴相遇，转置该放在哪里也就清楚了。单看形状也能推出来，**只要三个尺寸各不相同**：(3, 5)、(5, 7) 和 (3, 7) 的 g，
# 只有一种乘法得到 (3, 5)。

# %%
a = tt.Tensor(rng.normal(size=(3, 5)), requires_grad=True)
c = tt.Tensor(rng.normal(size=(5, 7)), requires_grad=True)
g = rng.normal(size=(3, 7))  # what comes back from the rest of the computation
(a @ c).backward(g)
np.testing.assert_allclose(a.grad.numpy(), np.einsum("mn,kn->mk", g, c.numpy()))
np.testing.assert_allclose(c.grad.numpy(), np.einsum("mk,mn->kn", a.numpy(), g))
print(a.grad.shape, c.grad.shape)

# %% exercise="matmul_backward"
check(matmul_backward)

# %% [markdown] lang="en"
# ## A layer as a graph
#
# Here is the attention of lesson 3 taken apart into primitives, each with one rule of one line. The library keeps
# these rules in a table; `with tt.formulas():` makes it use them instead of its fused paths. **Look for** the two
# matrix products and the pieces of the softmax between them.

# %% [markdown] lang="zh"
# ## 一层网络的计算图
#
# 下面是把第 3 课的注意力拆成基本运算的样子，每个基本运算只有一行规则。库把这些规则放在一张表里；`with tt.formulas():`
# 让它用这些规则，而不走融合的快速路径。**找一找**两个矩阵乘积，以及它们之间 softmax 的各个部分。

# %%
Q, K, V = (tt.Tensor(rng.normal(size=(4, 3)), requires_grad=True) for _ in range(3))
with tt.formulas():
    attended = tt.attention(Q, K, V)
computation_graph(attended, {"Q": Q, "K": K, "V": V})

# %% [markdown] lang="en"
# ## Checking a gradient
#
# Now every rule can be checked against measured slopes. First write the measuring.

# %% [markdown] lang="zh"
# ## 检查梯度
#
# 现在，每条规则都可以拿量出来的斜率来检查。先把测量写出来。

# %% exercise="numerical_gradient"
check(numerical_gradient)

# %% [markdown] lang="en"
# To check a function with many outputs, one makes a single number of them: multiply each by a weight and add. The
# weights are the g that goes backwards, the **cotangent**. Many people take ones, that is, the plain sum.
#
# Watch what happens with softmax. Below stand three candidates for its backward rule. One is the library's, the
# second is nonsense, always zero, and the third lacks a factor.
#
# **Guess**: how many of the two wrong ones pass a check with a cotangent of ones?

# %% [markdown] lang="zh"
# 要检查有许多输出的函数，就把输出合成一个数：各乘一个权重再相加。这些权重就是反向传来的 g，称为**余切向量**（cotangent）。
# 很多人取全 1，也就是直接求和。
#
# 看看 softmax 会怎样。下面是它的反向规则的三个候选：一个是库的，第二个是胡来的，永远是零，第三个少乘了一个因子。
#
# **猜一猜**：两个错误的规则中，有几个能通过余切向量全为 1 的检查？

# %% guess="2"
my_number = ...  # your guess, 0 to 2

# %%
scores = rng.normal(size=5)
s = tt.softmax(scores)


def from_the_library(g):
    leaf = tt.Tensor(scores, requires_grad=True)
    tt.softmax(leaf).backward(g)
    return leaf.grad.numpy()


rules = {
    "library": from_the_library,
    "always zero": lambda g: 0 * g,
    "factor missing": lambda g: g - g @ s,
}


def measured(g, h=1e-5):
    moves = h * np.eye(5)
    return np.array([g @ (tt.softmax(scores + m) - tt.softmax(scores - m)) for m in moves]) / (2 * h)


passed = {}
for kind, cotangent in (("ones", np.ones(5)), ("random", rng.normal(size=5))):
    errors = {name: np.abs(rule(cotangent) - measured(cotangent)).max() for name, rule in rules.items()}
    passed[kind] = [name for name, error in errors.items() if error < 1e-6]
    print(f"{kind:6}", {name: f"{error:.1e}" for name, error in errors.items()})
reveal(my_number, len(passed["ones"]) - 1)
assert len(passed["ones"]) == 3
assert passed["random"] == ["library"]

# %% [markdown] lang="en"
# Both pass. The probabilities add up to 1 whatever the scores, so their plain sum has the gradient 0, and the check
# compares nothing with nothing. It is the same with layer norm at the start of training, when its outputs have a fixed
# mean. **Always take a
# random cotangent.** And mind the other blind spots: equal sizes hide a missing transpose, special values (0, 1,
# equal entries) hide factors.
#
# The library's checker does all that, and names the likely mistake:

# %% [markdown] lang="zh"
# 两个都通过了。无论得分是多少，概率之和总是 1，所以直接求和的梯度是 0，检查不过是拿零比零。训练开始时的层归一化也是如此，它的输出均值是固定的。
# **余切向量一定要随机取。** 还要当心别的盲点：尺寸相等会掩盖漏掉的转置，特殊值（0、1、相等的元素）会掩盖因子。
#
# 库的检查器把这些都做了，还会指出可能的错误：


# %%
@tt.primitive
def square(x):
    return x * x


square.vjp(lambda g, y, x: g * x)  # the 2 is missing
try:
    tt.gradcheck(square, rng.normal(size=(3, 5)))
except tt.GradientError as error:
    message = str(error)
    print(message)
assert "2 times too small" in message

square.vjp(lambda g, y, x: g * 2 * x)
print(say("mended:", "改正后："), tt.gradcheck(square, rng.normal(size=(3, 5)), order=2))

# %% [markdown] lang="en"
# ## The gradient of a gradient
#
# A rule is made of operations, so it can be recorded too, and a gradient has a gradient of its own. Ask for it with
# `create_graph=True`. **Guess**: the second derivative of $x^3$ at $x = 2$.

# %% [markdown] lang="zh"
# ## 梯度的梯度
#
# 规则本身也由运算组成，所以同样可以记录下来，于是梯度又有自己的梯度。用 `create_graph=True` 来要它。
# **猜一猜**：$x^3$ 在 $x = 2$ 处的二阶导数是多少？

# %% guess="12"
my_curvature = ...  # your guess

# %%
x = tt.tensor(2.0, dtype="float64", requires_grad=True)
slope = tt.grad(x * x * x, x, create_graph=True)
curvature = tt.grad(slope, x)
reveal(my_curvature, curvature.item())
assert abs(slope.item() - 12) < 1e-12
assert abs(curvature.item() - 12) < 1e-12

# %% [markdown] lang="en"
# (Both are 12 here: $3x^2$ and $6x$ meet at 2. So much for special values.) What is it good for? Curvature says
# **how far** to go. Gradient descent takes a step of its own size; Newton's method divides the slope by the
# curvature. Both look for the minimum of $x - \log x$, which lies at 1.

# %% [markdown] lang="zh"
# （这里一阶、二阶都是 12：$3x^2$ 与 $6x$ 在 2 处正好相等。特殊值就是这样骗人的。）它有什么用？曲率告诉我们该走**多远**。
# 梯度下降用自己定的步长；牛顿法用斜率除以曲率。两者都来找 $x - \log x$ 的最小值，它在 1 处。

# %%
errors = {}
for method in ("descent", "newton"):
    x = tt.tensor(0.3, dtype="float64", requires_grad=True)
    for _ in range(6):
        slope = tt.grad(x - tt.log(x), x, create_graph=True)
        step = 0.2 * slope.item() if method == "descent" else slope.item() / tt.grad(slope, x).item()
        x = tt.tensor(x.item() - step, dtype="float64", requires_grad=True)
    errors[method] = abs(x.item() - 1)
print({method: f"{error:.1e}" for method, error in errors.items()})
assert errors["newton"] < 1e-9 < 1e-3 < errors["descent"]

# %% [markdown] lang="en"
# Newton doubles its correct digits at each step. Nobody trains large models that way, since the curvature of a
# million numbers is a matrix of $10^{12}$; Adam (lesson 8) makes do with the size of
# the recent gradients. But second-order gradients are the sharpest test a rule can get.
#
# ## What it costs
#
# Backward costs about twice as much as forward: for a product `a @ b` there are two products on the way back. What
# must be **kept** until then is often the larger bill: the inputs of every operation.

# %% [markdown] lang="zh"
# 牛顿法每一步都使正确的位数翻倍。没有人这样训练大模型，因为一百万个数的曲率是一个有 $10^{12}$ 个元素的矩阵；Adam（第 8 课）
# 只用最近梯度的大小来代替。但二阶梯度是对一条规则最严格的检验。
#
# ## 代价是多少
#
# 反向大约是前向的两倍：前向一次乘积 `a @ b`，反向就有两次。往往更贵的是必须一直**保留**的东西：每个运算的输入。

# %%
a = tt.Tensor(rng.normal(size=(500, 500)), requires_grad=True)
c = tt.Tensor(rng.normal(size=(500, 500)), requires_grad=True)
g = rng.normal(size=(500, 500))
there, back = [], []
for _ in range(9):
    begin = time.perf_counter()
    product = a @ c
    middle = time.perf_counter()
    product.backward(g)
    there.append(middle - begin)
    back.append(time.perf_counter() - middle)
print(say("backward / forward: {:.1f}", "反向 / 前向：{:.1f}").format(np.median(back) / np.median(there)))

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **Gradients pile up.** `backward` *adds* to `.grad`, so that several losses can share it. Forget `zero_grad()`, and
#   each step follows the sum of all gradients so far. It trains for a while, then it flies away.
# - **`=` for `+=`.** Right on every chain, wrong where a value is used twice: that is in each residual connection.
# - **The graph is cut.** `.numpy()`, `.item()`, `.detach()` leave the graph; what was computed from them gets no
#   gradient, and no error comes if another way to the parameter is open.
# - **A value is changed in place** after it was used. Its rule then sees the new value. The library refuses.
# - **The check passes, and the rule is wrong**: ones as cotangent, equal sizes, float32, a point with zeros.
#
# See the first and the fourth:

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **梯度越积越多。** `backward` 是往 `.grad` 上*加*，这样几个损失可以共用它。忘了 `zero_grad()`，每一步走的就是历次梯度之和：
#   能训练一阵，然后就飞走了。
# - **把 `+=` 写成 `=`。** 在链上都对，一个值用两次就错：每个残差连接都是这种情形。
# - **计算图断了。** `.numpy()`、`.item()`、`.detach()` 都离开了计算图；由它们算出的东西没有梯度，而只要还有别的路通向参数，
#   就不会报错。
# - **值用过之后又被原地修改。** 规则看到的就是新值了。库会拒绝。
# - **检查通过，规则却是错的**：余切向量全 1、尺寸相等、float32、含零的点。
#
# 看看第一条和第四条：

# %%
p = tt.tensor([2.0], requires_grad=True)
for _ in range(3):
    (p * p).sum().backward()
    print(p.grad.numpy(), end=" ")
assert p.grad.item() == 12

weights = tt.ones((3,), requires_grad=True)
inputs = tt.ones((3,))
loss = (weights * inputs).sum()
inputs[0] = 100.0
try:
    loss.backward()
except RuntimeError as error:
    refused = str(error)
    print("\n" + refused)
assert "changed in place" in refused

# %% [markdown] lang="en"
# ## To take along
#
# - A gradient is one slope for each number, of the shape of the tensor. Slopes multiply along a way, and ways add up.
# - The engine walks backwards, each value after all that use it; what broadcasting repeated is summed.
# - Check each rule against measured slopes: float64, random cotangent, sizes that differ, second order.
#
# This lesson takes about 60 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 梯度是每个数一个斜率，形状与张量相同。沿一条路，斜率相乘；几条路，则相加。
# - 引擎向后走，每个值都排在用到它的值之后；广播时重复了的，要求和。
# - 每条规则都拿量出来的斜率检查：float64、随机的余切向量、各不相同的尺寸、二阶。
#
# 本课大约需要 60 分钟；所有单元格几秒钟就能运行完。
