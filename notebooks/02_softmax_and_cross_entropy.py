# ---
# jupyter:
#   lesson:
#     en: Softmax and cross-entropy
#     zh: softmax 与交叉熵
#     section: "4.1"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# A network ends in numbers of any size: a **score** for each token of the vocabulary, also called logit. Two
# functions make them useful. **Softmax** turns scores into probabilities; it also stands in the middle of the
# attention equation, in section 4.1 of the document. **Cross-entropy** says how bad these probabilities were once
# the right token is known; training is nothing but making it small.
#
# In this lesson you turn the temperature up and down, see both functions overflow and mend them, learn the values
# a loss must have at the start and at the end, and derive the most pleasant gradient of the whole field.

# %% [markdown] lang="zh"
# 网络的最后是一些大小不限的数：词表中每个词元一个**得分**，也叫 logit。有两个函数使它们派上用场。**softmax** 把得分变成概率；
# 它也处在文档 4.1 节注意力公式的中央。**交叉熵**则在知道正确词元之后，说出这些概率有多糟；所谓训练，不过是把它变小。
#
# 本课中你会调高调低温度，看两个函数怎样溢出、怎样补救，弄清损失在开始和结束时应当是多少，并推导出整个领域里最讨人喜欢的梯度。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import bar_chart, computation_graph, line_chart, loss_curve
from tinytransformer.text import stdlib_documentation

# %% [markdown] lang="en"
# ## From scores to probabilities
#
# We want numbers that are positive, add up to 1, and keep the order of the scores; and they should change smoothly,
# so that there is a gradient. The exponential does it: it is positive for every score, and it turns a
# **difference** of scores into a **ratio** of probabilities.
#
# **Guess first**: one token has score 5, another 3. How many times as likely is the first?

# %% [markdown] lang="zh"
# ## 从得分到概率
#
# 我们要的数应当是正的、总和为 1、保持得分的次序，还要平滑地变化，这样才有梯度。指数函数做得到：无论得分是多少它都是正的，
# 而且把得分之**差**变成概率之**比**。
#
# **先猜一猜**：一个词元得分 5，另一个得分 3。前者的可能性是后者的几倍？

# %% guess="7.4"
my_ratio = ...  # your guess

# %%
p = tt.softmax(np.array([5.0, 3.0, -1.0]))
reveal(my_ratio, p[0] / p[1], tolerance=0.5)
assert abs(p[0] / p[1] - np.exp(2)) < 1e-9

# %% [markdown] lang="en"
# It is $e^{5-3} = 7.39$, whatever the third score is. Here is the whole equation, as it is used in section 4.1:
#
# $$\text{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# Its id is **softmax**, the code is [softmax](tinytransformer.formulas.activations.softmax). It runs along one
# axis, the last by default: each row of scores becomes one distribution.

# %% [markdown] lang="zh"
# 是 $e^{5-3} = 7.39$，与第三个得分无关。完整的公式如下，4.1 节里用的就是它：
#
# $$\text{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# 它的编号是 **softmax**，代码是 [softmax](tinytransformer.formulas.activations.softmax)。它沿一个轴进行，默认是最后一个：
# 每一行得分变成一个分布。

# %% equation="softmax"
rng = np.random.default_rng(0)
x = rng.normal(size=(3, 5))  # 3 rows of 5 scores
powers = np.e**x
np.testing.assert_allclose(tt.softmax(x), powers / powers.sum(-1)[:, None])
np.testing.assert_allclose(tt.softmax(x, axis=0), powers / powers.sum(0))
print(say("each row adds up to", "每行之和为"), tt.softmax(x).sum(-1))

# %% [markdown] lang="en"
# ## Temperature
#
# Divide all scores by a number T before the softmax, and you decide how much differences count:
#
# $$p_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}$$
#
# T is called temperature, after the same equation in physics. The picture shows the probabilities of four scores
# as T moves. **Look at both ends**: what happens where T is near 0, and where it is large?

# %% [markdown] lang="zh"
# ## 温度
#
# 在 softmax 之前把所有得分除以一个数 T，就能决定差别有多要紧：
#
# $$p_i = \frac{e^{x_i / T}}{\sum_j e^{x_j / T}}$$
#
# T 叫作温度，这个名字来自物理学中的同一个公式。图中是四个得分的概率随 T 的变化。**看两端**：T 接近 0 时怎样？T 很大时怎样？

# %%
four = np.array([4.0, 3.0, 1.0, -2.0])
temperatures = np.geomspace(0.05, 50, 200)
curves = tt.softmax(four / temperatures[:, None])  # (200, 4)

assert abs(curves[0].max() - 1) < 1e-6
assert np.abs(curves[-1] - 0.25).max() < 0.03

lines = {label(f"score {score:.0f}", f"得分 {score:.0f}"): p for score, p in zip(four, curves.T, strict=True)}
line_chart(
    temperatures,
    lines,
    title=label("probabilities of four scores", "四个得分的概率"),
    across=label("temperature T", "温度 T"),
    logarithmic="x",
)

# %% [markdown] lang="en"
# Cold, the best token takes all: it is the argmax. Hot, all tokens become equal, $1/4$ here. The **order never
# changes**. When a model writes text, T is the knob between dull and wild (lesson 8).
#
# Try it on words of your own, and another `temperature`.

# %% [markdown] lang="zh"
# 冷的时候，最好的词元独占一切，也就是 argmax；热的时候，所有词元趋于相等，这里是 $1/4$。**次序从不改变**。
# 模型写作时，T 就是在乏味与狂野之间的旋钮（第 8 课）。
#
# 换上你自己的词和另一个 `temperature` 试试。

# %%
words = {
    label("light", "钥匙"): 4.0,
    label("phone", "手机"): 3.0,
    label("radio", "雨伞"): 1.0,
    label("elephant", "大象"): -2.0,
}
temperature = 1.5
scores = np.array(list(words.values()))
chances = tt.softmax(scores / temperature)
bar_chart(
    dict(zip(words, chances, strict=True)),
    title=label(f"probabilities at T = {temperature}", f"T = {temperature} 时的概率"),
)

# %% [markdown] lang="en"
# ## What softmax does not see
#
# **Guess**: add 100 to *all* scores. Do the probabilities change? Answer "yes" or "no".

# %% [markdown] lang="zh"
# ## softmax 看不见什么
#
# **猜一猜**：给*所有*得分加上 100，概率会变吗？回答 "yes" 或 "no"。

# %% guess="\"no\""
my_answer = ...  # "yes" or "no"

# %%
changes = not np.allclose(tt.softmax(four), tt.softmax(four + 100))
reveal(my_answer, "yes" if changes else "no")
assert not changes

# %% [markdown] lang="en"
# Only differences count: $e^{x_i + c} = e^c e^{x_i}$, and $e^c$ cancels. So scores have no zero of their own, and
# the gradient of anything behind a softmax adds up to 0 along the row. It also is the way out of the next trouble.
#
# ## Overflow
#
# A computer's numbers end. **Guess** the largest whole number $n$ for which $e^n$ is still finite in float32, the
# usual type for networks (it ends near $3.4 \cdot 10^{38}$).

# %% [markdown] lang="zh"
# 起作用的只有差：$e^{x_i + c} = e^c e^{x_i}$，$e^c$ 约掉了。所以得分没有自己的零点；softmax 后面任何东西对一行得分的梯度，
# 加起来都是 0。下面的麻烦，也要靠这一点来解决。
#
# ## 溢出
#
# 计算机的数是有尽头的。**猜一猜**：在 float32 中（网络通常用的类型，到约 $3.4 \cdot 10^{38}$ 为止），使 $e^n$ 仍然有限的最大整数
# $n$ 是多少？

# %% guess="88"
my_largest = ...  # your guess

# %%
with np.errstate(over="ignore", invalid="ignore"):
    powers = np.exp(np.arange(200, dtype=np.float32))
    reveal(my_largest, int(np.flatnonzero(np.isfinite(powers))[-1]))
    naive = np.exp(np.float32([100, 99])) / np.exp(np.float32([100, 99])).sum()
print(say("naive:", "直接计算："), naive, say("· the library:", "· 库："), tt.softmax(np.float32([100, 99])))
assert np.isfinite(powers[88])
assert np.isinf(powers[89])
assert np.isnan(naive).all()

# %% [markdown] lang="en"
# A score of 89 is no rare thing, and inf / inf is NaN: one such row, and after the next step the whole model is
# NaN. The cure uses what softmax does not see: shift the scores so that the largest is 0. Then no power exceeds 1,
# and the sum is at least 1.
#
# ## The logarithm of softmax
#
# Losses need $\log p$. Taking the logarithm afterwards is a trap at the other end: a probability below $10^{-45}$
# is 0 in float32, and its logarithm $-\infty$. So one computes it in one go:
#
# $$\log\text{softmax}(x)_i = x_i - \log\sum_j e^{x_j}$$
#
# The id is **log_softmax**, used with the softmax of section 4.1; the code is
# [log_softmax](tinytransformer.formulas.activations.log_softmax). The last term is called **log-sum-exp**. It is
# a soft maximum: never below the largest score, and above it by at most $\log n$ for n scores.

# %% [markdown] lang="zh"
# 得分 89 并不罕见，而 inf / inf 是 NaN：只要有一行这样，下一步之后整个模型都成了 NaN。补救办法利用了 softmax 看不见的东西：
# 平移得分，使最大的为 0。这样没有哪个指数超过 1，总和也至少为 1。
#
# ## softmax 的对数
#
# 损失需要的是 $\log p$。先算 softmax 再取对数，是另一头的陷阱：float32 中小于 $10^{-45}$ 的概率就是 0，它的对数是 $-\infty$。
# 所以要一步算出来：
#
# $$\log\text{softmax}(x)_i = x_i - \log\sum_j e^{x_j}$$
#
# 编号是 **log_softmax**，与 4.1 节的 softmax 配套；代码是 [log_softmax](tinytransformer.formulas.activations.log_softmax)。
# 最后一项叫作 **log-sum-exp**。它是“软”的最大值：不小于最大的得分，而对 n 个得分，至多比它大 $\log n$。

# %% equation="log_softmax"
log_sum_exp = np.logaddexp.reduce(x, axis=-1)  # (3,)
np.testing.assert_allclose(tt.log_softmax(x), x - log_sum_exp[:, None])
assert ((x.max(-1) <= log_sum_exp) & (log_sum_exp <= x.max(-1) + np.log(5))).all()

far = np.float32([0, -200])
with np.errstate(divide="ignore"):
    print(
        say("log of softmax:", "softmax 再取对数："),
        np.log(tt.softmax(far)),
        "· log_softmax:",
        tt.log_softmax(far),
    )
assert np.isfinite(tt.log_softmax(far)).all()

# %% [markdown] lang="en"
# ## Cross-entropy
#
# In lesson 0 the surprise at a token was $-\log P$, and a model was good if its mean surprise was small. That mean
# is the loss. With $p_n = \text{softmax}(z_n)$ for the scores $z_n$ of place n, and $y_n$ the right token there:
#
# $$-\frac1N \sum_n \log p_n(y_n)$$
#
# By the chain rule of section 2.1 it is $-1/N$ times the logarithm of the probability of the whole text. The id
# is **cross_entropy**, the code [cross_entropy](tinytransformer.formulas.losses.cross_entropy). It takes scores, not
# probabilities, so that it can use the line above.

# %% [markdown] lang="zh"
# ## 交叉熵
#
# 第 0 课里，对一个词元的惊讶是 $-\log P$，平均惊讶小的模型就是好模型。这个平均就是损失。设 $z_n$ 是第 n 处的得分，
# $p_n = \text{softmax}(z_n)$，$y_n$ 是那里正确的词元：
#
# $$-\frac1N \sum_n \log p_n(y_n)$$
#
# 由 2.1 节的链式法则，它等于整段文本概率的对数乘以 $-1/N$。编号是 **cross_entropy**，代码是
# [cross_entropy](tinytransformer.formulas.losses.cross_entropy)。它接收的是得分而不是概率，这样才用得上前面那一步。

# %% equation="cross_entropy"
z, y = rng.normal(size=(4, 7)), np.array([2, 6, 0, 2])  # 4 places, 7 tokens
of_the_right = [np.exp(z[n, y[n]]) / np.exp(z[n]).sum() for n in range(4)]
np.testing.assert_allclose(tt.cross_entropy(z, y), -np.log(of_the_right).mean())
print(say("probabilities of the right tokens", "正确词元的概率"), np.round(of_the_right, 3))
print(say("loss", "损失"), tt.cross_entropy(z, y))

# %% [markdown] lang="en"
# ## Values that a loss must have
#
# A loss is a number with a meaning, so test it at points you know. Above all: **at the start**. A fresh model
# knows nothing and gives about the same probability to all tokens.
#
# **Guess**: GPT-2 has 50,257 tokens. What is its loss before training?

# %% [markdown] lang="zh"
# ## 损失必须取到的值
#
# 损失是有含义的数，所以要在已知的点上检验它。首先是**开始的时候**：新建的模型一无所知，给所有词元差不多的概率。
#
# **猜一猜**：GPT-2 有 50257 个词元。训练之前它的损失是多少？

# %% guess="10.8"
my_loss = ...  # your guess

# %%
reveal(my_loss, tt.cross_entropy(np.zeros((1, 50257)), [11]), tolerance=0.3)
assert abs(tt.cross_entropy(np.zeros((1, 50257)), [11]) - np.log(50257)) < 1e-9

right = np.zeros((1, 7))
for lead in (0, 1, 5, 20):
    right[0, 3] = lead
    print(
        say("lead {:2}: right {:.2e}, wrong {:.4g}", "领先 {:2}：对了 {:.2e}，错了 {:.4g}").format(
            lead, tt.cross_entropy(right, [3]), tt.cross_entropy(right, [5])
        )
    )
assert tt.cross_entropy(right, [3]) < 1e-7
assert abs(tt.cross_entropy(right, [5]) - 20) < 1e-6

# %% [markdown] lang="en"
# - **Knows nothing**: $\ln V$, here 10.82. A first loss far above it means a bad initialisation; one below it means
#   that the answer leaks.
# - **Sure and right** (an oracle): 0. Never below: a negative loss is a mistake.
# - **Sure and wrong**: about the lead of the wrong token. It grows without bound: to be sure and
#   wrong once costs more than many doubts.
#
# ## The most pleasant gradient
#
# How should the scores change? Softmax alone has a full matrix of derivatives, for each probability depends on all
# scores: $\partial p_i / \partial x_j = p_i (\delta_{ij} - p_j)$, where $\delta_{ij}$ is 1 for $i = j$, else 0. The
# logarithm in the loss cancels nearly all of it. For one place, with $y$ now the vector that has a 1 at the right token:
#
# $$\frac{\partial\, \text{loss}}{\partial z} = p - y$$
#
# *What you said minus what was right.* **Guess**: four tokens, equal scores, and the second is right. What is the
# gradient at the second score?

# %% [markdown] lang="zh"
# - **一无所知**：$\ln V$，这里是 10.82。最初的损失远高于它，说明初始化不好；低于它，说明答案泄漏了。
# - **有把握而且对**（先知）：0。绝不会更低：损失为负就是出错了。
# - **有把握却错了**：大约等于错误词元领先的得分。它可以无限增大：有把握地错一次，比多次犹豫的代价更大。
#
# ## 最讨人喜欢的梯度
#
# 得分应当怎样变？单看 softmax，它的导数是一个满的矩阵，因为每个概率都依赖所有得分：
# $\partial p_i / \partial x_j = p_i (\delta_{ij} - p_j)$，其中 $\delta_{ij}$ 在 $i = j$ 时为 1，否则为 0。
# 损失里的对数把它几乎全部消掉了。对一个位置，让 $y$ 表示在正确词元处为 1 的向量：
#
# $$\frac{\partial\, \text{loss}}{\partial z} = p - y$$
#
# *你说的减去对的。* **猜一猜**：四个词元，得分相等，第二个是对的。第二个得分处的梯度是多少？

# %% guess="-0.75"
my_gradient = ...  # your guess

# %%
flat = tt.Tensor(np.zeros((1, 4)), requires_grad=True)
tt.cross_entropy(flat, [1]).backward()
reveal(my_gradient, flat.grad.numpy()[0, 1], tolerance=0.01)
np.testing.assert_allclose(flat.grad.numpy(), [[0.25, -0.75, 0.25, 0.25]])

guess = tt.Tensor(scores[None], requires_grad=True)  # your words from above; say the third is right
tt.cross_entropy(guess, [2]).backward()
np.testing.assert_allclose(guess.grad.numpy()[0], tt.softmax(scores) - np.eye(len(scores))[2])
assert abs(guess.grad.numpy().sum()) < 1e-12
bar_chart(
    dict(zip(words, guess.grad.numpy()[0], strict=True)),
    title=label("gradient p - y, where the third word is right", "梯度 p - y，第三个词是对的"),
)

# %% [markdown] lang="en"
# Gradient descent goes *against* the gradient: the right word is pulled up, every other is pushed down by just
# the probability it was given. The pulls add up to 0. No entry is ever larger than 1, and the worse the answer,
# the stronger the pull.
#
# That last point is not a matter of course. Take the squared error of the probabilities instead, and let the
# model be sure and wrong:

# %% [markdown] lang="zh"
# 梯度下降*逆着*梯度走：正确的词被拉上来，其余每个词按各自得到的概率被压下去。这些力加起来为 0。没有哪个分量超过 1，
# 而且答得越糟，拉力越大。
#
# 最后这一点并非理所当然。换成概率的平方误差，让模型有把握却答错，看看：

# %%
pulls = {}
for lead in (0.0, 5.0, 10.0, 20.0):
    for name, loss in (
        (label("cross-entropy", "交叉熵"), lambda z: tt.cross_entropy(z, [1])),
        (label("squared error", "平方误差"), lambda z: ((tt.softmax(z) - np.eye(5)[1]) ** 2).sum()),
    ):
        sure = tt.Tensor(np.array([[lead, 0, 0, 0, 0]]), requires_grad=True)  # token 0 leads, 1 is right
        loss(sure).backward()
        pulls[f"{name}, {lead:g}"] = float(np.abs(sure.grad.numpy()).max())
print({name: f"{pull:.2g}" for name, pull in pulls.items()})
values = list(pulls.values())
assert values[-2] > 0.99
assert values[-1] < 1e-6

# %% [markdown] lang="en"
# Where help is needed most, the squared error gives none: the softmax is saturated and lets no gradient through.
# Cross-entropy is made to cancel exactly that.
#
# ## As a graph
#
# The library has a fused path for the whole loss: one box, in which $p - y$ is written out. With `tt.formulas()`
# it takes the equation apart instead. **Look for** log-softmax (`logsumexp` and `subtract`), the choice of the
# right token (`take_along_axis`), and the mean (`sum` and `divide`).

# %% [markdown] lang="zh"
# 最需要帮助的地方，平方误差偏偏给不了：softmax 饱和了，梯度过不去。交叉熵恰好把这一点抵消掉。
#
# ## 画成计算图
#
# 库里对整个损失有一条融合的快速路径：一个方框，里面直接写着 $p - y$。用 `tt.formulas()` 则把公式拆开。
# **找一找** log-softmax（`logsumexp` 与 `subtract`）、选取正确的词元（`take_along_axis`），以及求平均（`sum` 与 `divide`）。

# %%
logits = tt.Tensor(rng.normal(size=(3, 5)), requires_grad=True)
print(say("fused:", "融合："), tt.cross_entropy(logits, [1, 4, 0]).node.operation.name)
with tt.formulas():
    loss = tt.cross_entropy(logits, [1, 4, 0])
computation_graph(loss, {"logits": logits})

# %% [markdown] lang="en"
# ## Learning arrives where counting does
#
# Now let the gradient do the work of lesson 0. The model is a table of scores, one row for each character: row a
# holds the scores of what follows a. It starts with zeros and follows $p - y$. The dashed line is the loss of the
# bigram model found by **counting**. Look where the curve starts, and where it ends.

# %% [markdown] lang="zh"
# ## 学习与计数殊途同归
#
# 现在让梯度来做第 0 课的工作。模型是一张得分表，每个字符一行：第 a 行是 a 之后各字符的得分。从零开始，沿着 $p - y$ 走。
# 虚线是靠**计数**得到的二元语法模型的损失。看曲线从哪里开始，在哪里结束。

# %%
alphabet = "abcdefghijklmnopqrstuvwxyz "
text = "".join(c for c in " ".join(stdlib_documentation().lower().split()) if c in alphabet)[:20000]
ids = np.array([alphabet.index(c) for c in text])
V = len(alphabet)

counts = np.bincount(ids[:-1] * V + ids[1:], minlength=V * V).reshape(V, V)
share = counts / counts.sum(1, keepdims=True).clip(1)
counted = -np.log(share[ids[:-1], ids[1:]]).mean()

table = tt.Tensor(np.zeros((V, V)), requires_grad=True)
optimizer = tt.optim.AdamW([table], lr=0.2, weight_decay=0.0)
history = []
for step in range(150):
    loss = tt.cross_entropy(table[ids[:-1]], ids[1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append({"step": step, "loss": float(loss)})

learned = history[-1]["loss"]
print(say("counted {:.3f}, learned {:.3f}", "计数 {:.3f}，学习 {:.3f}").format(counted, learned))
assert abs(history[0]["loss"] - np.log(V)) < 1e-9
assert 0 <= learned - counted < 0.03
assert np.abs(tt.softmax(table.numpy())[alphabet.index("t")] - share[alphabet.index("t")]).max() < 0.02
loss_curve(history, baselines={label("counting", "计数"): counted, "ln 27": np.log(27)})

# %% [markdown] lang="en"
# It starts at $\ln V$ and ends at the counts. That must be so: where the gradient is zero, $p$ equals $y$ **on the
# mean** over all places with the same character before them, and the mean of $y$ is the share that was counted.
# Nothing with the same view of the text gets lower. For this table learning is a detour; but counting cannot be
# extended to vectors and layers, and learning can.
#
# ## Your turn
#
# Four functions: both equations and both gradients. Mind large scores, scores of $-\infty$, the axis, and the rows
# that do not count.

# %% [markdown] lang="zh"
# 它从 $\ln V$ 开始，到计数的结果结束。必然如此：梯度为零时，在前一个字符相同的所有位置上，$p$ **平均**等于 $y$，
# 而 $y$ 的平均就是数出来的比例。只看前一个字符的模型，谁也不会更低。对这张表来说，学习是绕远路；但计数推广不到向量和多层网络，学习可以。
#
# ## 轮到你了
#
# 四个函数：两个公式和它们的两个梯度。当心很大的得分、$-\infty$ 的得分、轴，以及不计入的行。

# %% exercise="softmax"
check(softmax)

# %% exercise="softmax_backward"
check(softmax_backward)

# %% exercise="cross_entropy"
check(cross_entropy)

# %% exercise="cross_entropy_backward"
check(cross_entropy_backward)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **Softmax twice.** The network ends in a softmax, and the loss does one more. It trains, badly: the inner
#   probabilities lie between 0 and 1, so the outer softmax sees differences of at most 1. The loss has a floor.
# - **The mean over padding.** Rows that only fill up a batch must count neither in the sum nor in the number. Here
#   they have the target −100. Otherwise the loss falls when the texts get shorter.
# - **`log_p[:, targets]`** picks every target from every row: an N × N array whose mean looks like a loss.
# - **`log(softmax(x) + 1e-9)`**, as a patch against $-\infty$: wrong for every token less likely than $10^{-9}$, and
#   it gives them hardly any gradient. Use log-softmax.
# - **Nats and bits.** The library's losses use the natural logarithm; others print base 2. The factor is 0.69.
#
# The floor of the first one is worth a **guess**: 50,257 tokens, softmax twice. How low can the loss get at best?

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **softmax 做了两次。** 网络末尾有一个 softmax，损失里又做一次。能训练，但很差：里面的概率在 0 与 1 之间，
#   外面的 softmax 看到的差别至多为 1。损失于是有了下限。
# - **平均时算进了填充。** 只用来凑满批次的行，求和不能算，计数也不能算。在这里它们的目标是 −100。否则文本越短，损失越低。
# - **`log_p[:, targets]`** 从每一行取出所有目标：得到 N × N 的数组，它的平均看起来也像损失。
# - **`log(softmax(x) + 1e-9)`**，用来应付 $-\infty$ 的补丁：对概率小于 $10^{-9}$ 的词元都是错的，而且几乎不给它们梯度。请用 log-softmax。
# - **奈特与比特。** 库的损失用自然对数，别人可能打印以 2 为底的。相差的因子是 0.69。
#
# 第一条的下限值得**猜一猜**：50257 个词元，softmax 做两次。损失最好能降到多少？

# %% guess="9.8"
my_floor = ...  # your guess

# %%
oracle = np.zeros((1, 50257))
oracle[0, 11] = 1000.0
reveal(my_floor, tt.cross_entropy(tt.softmax(oracle), [11]), tolerance=0.3)
print(say("softmax once:", "只做一次："), tt.cross_entropy(oracle, [11]))
assert abs(tt.cross_entropy(tt.softmax(oracle), [11]) - (np.log(np.e + 50256) - 1)) < 1e-9

padded = np.array([2, 6, -100, -100])
print(
    say("padding left out {:.3f}, counted in {:.3f}", "不计填充 {:.3f}，计入填充 {:.3f}").format(
        tt.cross_entropy(z, padded), tt.cross_entropy(z, padded, reduction="sum") / 4
    )
)
np.testing.assert_allclose(tt.cross_entropy(z, padded), tt.cross_entropy(z[:2], y[:2]))

# %% [markdown] lang="en"
# With softmax twice even an oracle stays above 9.8, where it began at 10.8. If a loss stops early, think of this.
#
# ## To take along
#
# - Softmax turns differences of scores into ratios of probabilities; a shift changes nothing, so shift the largest to
#   0 before you take powers.
# - Cross-entropy is the mean surprise: $\ln V$ for one who knows nothing, 0 for an oracle.
# - Its gradient is $p - y$: what you said minus what was right.
#
# This lesson takes about 50 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# softmax 做两次，连先知也停在 9.8 以上，而起点是 10.8。损失早早就降不下去时，想想这一条。
#
# ## 带走什么
#
# - softmax 把得分之差变成概率之比；平移不起作用，所以取指数之前先把最大的移到 0。
# - 交叉熵是平均惊讶：一无所知时为 $\ln V$，先知为 0。
# - 它的梯度是 $p - y$：你说的减去对的。
#
# 本课大约需要 50 分钟；所有单元格几秒钟就能运行完。
