# ---
# jupyter:
#   lesson:
#     en: The Transformer block
#     zh: Transformer 块
#     section: "3.1"
#     minutes: 75
# ---

# %% [markdown] lang="en"
# Section 3.1 of the document names two core parts of the Transformer: multi-head self-attention and the feed-forward
# network (the document writes FNN, most papers FFN). Stack 24 of these as they are, and nothing can be trained. Two
# more parts make it work, which the section does not name: **residuals** and **normalisation**.
#
# In this lesson you meet each part alone, see what it is for by leaving it out, and put them together to a block that
# equals the library's, number for number. GPT, BERT and T5 are stacks of such blocks.

# %% [markdown] lang="zh"
# 文档 3.1 节说，Transformer 的核心组成部分有两个：多头自注意力和前馈神经网络（文档写作 FNN，多数论文写作 FFN）。可是把它们原样叠上
# 24 层，根本训练不动。让它管用的还有两样，那一节没有提到：**残差**和**归一化**。
#
# 本课中你会逐一认识各个部分，把它拿掉，看看它究竟有什么用，再拼成一个块，与库里的结果逐个数字相等。GPT、BERT 和 T5 都是由这样的块叠成的。

# %%
import math

import numpy as np

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.plotting import bar_chart, dot_chart, line_chart

# %% [markdown] lang="en"
# ## Feed-forward: each word thinks for itself
#
# Attention carries things from place to place, but what it carries is only averaged. The feed-forward network then
# works on what has arrived, **at each place alone**, with the same weights everywhere: up to a wider space (usually
# four times as wide), through an activation $\varphi$, and back.
#
# $$
# \mathrm{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2
# $$
#
# Its id is **feed_forward** (document 3.1; Vaswani et al., 2017, equation 2), the code is
# [feed_forward](tinytransformer.formulas.layers.feed_forward). In the original, $\varphi$ is ReLU: negative numbers
# become 0.

# %% [markdown] lang="zh"
# ## 前馈网络：每个词各想各的
#
# 注意力把东西从一处搬到另一处，但搬来的只是加权平均。前馈网络再对搬来的东西加工，**每个位置单独进行**，各处用同样的权重：先升到更宽的
# 空间（通常宽四倍），经过激活函数 $\varphi$，再降回来。
#
# $$
# \mathrm{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2
# $$
#
# 它的编号是 **feed_forward**（文档 3.1；Vaswani 等，2017，公式 2），代码是
# [feed_forward](tinytransformer.formulas.layers.feed_forward)。原始论文中 $\varphi$ 是 ReLU：负数变成 0。

# %% equation="feed_forward"
rng = np.random.default_rng(0)
x = rng.normal(size=(5, 3))  # 5 places, d_model = 3
W_1, b_1 = rng.normal(size=(3, 11)), rng.normal(size=11)  # d_ff = 11
W_2, b_2 = rng.normal(size=(11, 3)), rng.normal(size=3)

rows = []
for place in x:  # one place at a time: none sees another
    inner = place @ W_1 + b_1
    inner[inner < 0] = 0
    rows.append(inner @ W_2 + b_2)
np.testing.assert_allclose(tt.feed_forward(x, W_1, b_1, W_2, b_2), np.stack(rows))

# without an activation, two linear maps are only one
one_map = x @ (W_1 @ W_2) + (b_1 @ W_2 + b_2)
np.testing.assert_allclose(tt.feed_forward(x, W_1, b_1, W_2, b_2, activation=lambda y: y), one_map)

# %% [markdown] lang="en"
# The last two lines show why there must be an activation: without it, going up and down is one linear map, and a
# hundred layers of these are one linear map still.
#
# **Guess**: in a block as wide as GPT-2's, $d = 768$ and 3072 inside, which share of the parameters is in the
# feed-forward network? (Attention has four matrices of $d \times d$.)

# %% [markdown] lang="zh"
# 最后两行说明为什么必须有激活函数：没有它，升上去再降下来只是一个线性变换，一百层叠起来仍然只是一个线性变换。
#
# **猜一猜**：在 GPT-2 那么宽的一块中，$d = 768$，内部 3072，参数有多大比例在前馈网络里？（注意力有四个 $d \times d$ 的矩阵。）

# %% guess="2 / 3"
my_share = ...  # between 0 and 1

# %%
wide = nn.TransformerEncoderLayer(768, 12, 3072, rng=0)
parts = {
    label("attention", "注意力"): wide.self_attention.num_parameters(),
    label("feed-forward", "前馈网络"): wide.feed_forward.num_parameters(),
    label("two layer norms", "两个层归一化"): wide.norm1.num_parameters() + wide.norm2.num_parameters(),
}
share = wide.feed_forward.num_parameters() / wide.num_parameters()
reveal(my_share, share, tolerance=0.03)
assert abs(share - 2 / 3) < 0.01
bar_chart({k: v / 1e6 for k, v in parts.items()}, title=label("million parameters", "参数（百万）"))

# %% [markdown] lang="en"
# Two thirds: the famous attention is the smaller part. Much of what a model *knows* sits in the feed-forward networks.
#
# ## The activation: GELU and SiLU
#
# ReLU is flat below 0: a feature that is always negative gets no gradient and stays dead. Newer models round the corner.
# **GELU** multiplies $x$ by the probability that a standard normal number is below $x$:
#
# $$
# \mathrm{GELU}(x) = \tfrac12 x (1 + \mathrm{erf}(x / \sqrt2))
# $$
#
# BERT uses it (id **gelu**, [gelu](tinytransformer.formulas.activations.gelu)). GPT-2 uses an approximation with tanh (id
# **gelu_tanh**, [gelu_tanh](tinytransformer.formulas.activations.gelu_tanh)); both are from Hendrycks & Gimpel, 2016:
#
# $$
# \mathrm{GELU}(x) \approx \tfrac12 x (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))
# $$
#
# **SiLU** or Swish takes the sigmoid for the probability (id **silu**, Elfwing et al., 2017,
# [silu](tinytransformer.formulas.activations.silu)); Llama uses it:
#
# $$
# \mathrm{SiLU}(x) = x\,\sigma(x) = \frac{x}{1 + e^{-x}}
# $$
#
# **Guess**: what is GELU(1)? (A normal number lies within one standard deviation with 68 %.)

# %% [markdown] lang="zh"
# 三分之二：大名鼎鼎的注意力反而是小头。模型所*知道*的东西，很多存在前馈网络里。
#
# ## 激活函数：GELU 与 SiLU
#
# ReLU 在 0 以下是平的：一个总是为负的特征得不到梯度，就此“死掉”。较新的模型把这个拐角磨圆了。**GELU** 把 $x$ 乘以“标准正态随机数小于
# $x$”的概率：
#
# $$
# \mathrm{GELU}(x) = \tfrac12 x (1 + \mathrm{erf}(x / \sqrt2))
# $$
#
# BERT 用的是它（编号 **gelu**，[gelu](tinytransformer.formulas.activations.gelu)）。GPT-2 用的是带 tanh 的近似（编号 **gelu_tanh**，
# [gelu_tanh](tinytransformer.formulas.activations.gelu_tanh)）；两者都出自 Hendrycks & Gimpel，2016：
#
# $$
# \mathrm{GELU}(x) \approx \tfrac12 x (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))
# $$
#
# **SiLU** 又叫 Swish，用 sigmoid 代替那个概率（编号 **silu**，Elfwing 等，2017，
# [silu](tinytransformer.formulas.activations.silu)）；Llama 用的是它：
#
# $$
# \mathrm{SiLU}(x) = x\,\sigma(x) = \frac{x}{1 + e^{-x}}
# $$
#
# **猜一猜**：GELU(1) 是多少？（正态随机数落在一个标准差以内的概率是 68 %。）

# %% guess="0.84"
my_gelu = ...  # your guess

# %% equation="gelu gelu_tanh silu"
x = np.linspace(-4, 4, 401)
below = np.array([math.erf(v / math.sqrt(2)) / 2 + 0.5 for v in x])  # P(normal number < x)
np.testing.assert_allclose(tt.gelu(x), x * below, atol=1e-12)
squashed = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
np.testing.assert_allclose(tt.gelu_tanh(x), (x + x * squashed) / 2, atol=1e-12)
np.testing.assert_allclose(tt.silu(x), x / (1 + np.exp(-x)), atol=1e-12)

reveal(my_gelu, tt.gelu(np.array(1.0)).item(), tolerance=0.02)
counted = (rng.normal(size=200_000) < 1).mean()
print(say("share of normal numbers below 1:", "小于 1 的正态随机数的比例："), counted.round(3))
assert abs(counted - tt.gelu(np.array(1.0)).item()) < 0.005
assert np.abs(tt.gelu_tanh(x) - tt.gelu(x)).max() < 5e-4

# %% [markdown] lang="en"
# 0.84: half of all numbers lie below 0, and half of 68 % between 0 and 1. The approximation is at most 0.0005 off, which is
# enough to make a difference to the third digit when weights of one are used with the other.
#
# **Look at** the first picture below 0: GELU and SiLU dip before they reach 0. And at the second, the derivatives: where
# is ReLU's exactly 0, and what do the others have there?

# %% [markdown] lang="zh"
# 0.84：一半的数小于 0，68 % 的一半在 0 与 1 之间。那个近似最多差 0.0005，但若用一种的权重配另一种的函数，第三位数字就可能不同了。
#
# **看一看**第一幅图 0 以下的部分：GELU 和 SiLU 先下凹，再趋于 0。再看第二幅图，导数：ReLU 的导数在哪里恰好为 0，另外两个在那里又是多少？

# %%
assert abs(tt.gelu(x).min() + 0.17) < 0.001
assert abs(tt.silu(x).min() + 0.278) < 0.001
values, slopes = {}, {}
for name, function in {"ReLU": tt.relu, "GELU": tt.gelu, "SiLU": tt.silu}.items():
    at = tt.Tensor(x, requires_grad=True)
    y = function(at)
    y.sum().backward()
    values[name], slopes[name] = y.numpy(), at.grad.numpy()
line_chart(x, values, title=label("value", "函数值"), across="x")

# %%
line_chart(x, slopes, title=label("derivative", "导数"), across="x")

# %% exercise="gelu"
check(gelu)

# %% [markdown] lang="en"
# **With a gate.** Llama and T5 v1.1 have a third matrix. One linear map, activated, is a gate that scales the features
# of another:
#
# $$
# \mathrm{FFN}(x) = (\varphi(xW + b) \odot (xV + c))W_2 + b_2
# $$
#
# Its id is **gated_feed_forward** (Shazeer, 2020), the code is
# [gated_feed_forward](tinytransformer.formulas.layers.gated_feed_forward). With SiLU it is called SwiGLU. Three matrices
# of $d \times \tfrac83 d$ have as many numbers as two of $d \times 4d$, so that is the width one takes.

# %% [markdown] lang="zh"
# **带门的前馈网络。** Llama 和 T5 v1.1 有第三个矩阵。一个线性变换经过激活，成为一扇“门”，去缩放另一个线性变换的各个特征：
#
# $$
# \mathrm{FFN}(x) = (\varphi(xW + b) \odot (xV + c))W_2 + b_2
# $$
#
# 它的编号是 **gated_feed_forward**（Shazeer，2020），代码是
# [gated_feed_forward](tinytransformer.formulas.layers.gated_feed_forward)。用 SiLU 时叫 SwiGLU。三个 $d \times \tfrac83 d$ 的矩阵
# 与两个 $d \times 4d$ 的参数一样多，所以宽度就取这个。

# %% equation="gated_feed_forward"
x = rng.normal(size=(5, 3))
W, V, W_2 = rng.normal(size=(3, 7)), rng.normal(size=(3, 7)), rng.normal(size=(7, 3))
gate = np.einsum("td,df->tf", x, W)
gate = gate / (1 + np.exp(-gate))  # SiLU
content = np.einsum("td,df->tf", x, V)
np.testing.assert_allclose(tt.gated_feed_forward(x, W, V, W_2), (gate * content) @ W_2)

# %% [markdown] lang="en"
# ## Layer norm: the same loudness everywhere
#
# Each part of a network is tuned to the size of what comes in: too small, and the activation is a straight line; too
# large, and the softmax is hard. **Layer norm** takes the $d$ features of *one* place, subtracts their mean $\mu$,
# divides by their standard deviation $\sigma$, and then lets the model choose a scale $\gamma$ and a shift $\beta$ for
# each feature:
#
# $$
# \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
# $$
#
# Its id is **layer_norm** (Ba et al., 2016), the code is [layer_norm](tinytransformer.formulas.normalization.layer_norm).
# **RMS norm** leaves out the mean and the shift; T5 and Llama use it, since it does as well for less (id **rms_norm**, Zhang &
# Sennrich, 2019, [rms_norm](tinytransformer.formulas.normalization.rms_norm)):
#
# $$
# \gamma \odot \frac{x}{\sqrt{\frac1d \sum_i x_i^2 + \epsilon}}
# $$

# %% [markdown] lang="zh"
# ## 层归一化：处处一样响
#
# 网络的每一部分都适应于一定大小的输入：太小，激活函数就成了直线；太大，softmax 就变“硬”。**层归一化**取*一个*位置的 $d$ 个特征，减去
# 均值 $\mu$，除以标准差 $\sigma$，再让模型为每个特征选择缩放 $\gamma$ 和平移 $\beta$：
#
# $$
# \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
# $$
#
# 它的编号是 **layer_norm**（Ba 等，2016），代码是 [layer_norm](tinytransformer.formulas.normalization.layer_norm)。**RMS 归一化**
# 省去了均值和平移；T5 和 Llama 用它，因为效果不差，计算更省（编号 **rms_norm**，Zhang & Sennrich，2019，
# [rms_norm](tinytransformer.formulas.normalization.rms_norm)）：
#
# $$
# \gamma \odot \frac{x}{\sqrt{\frac1d \sum_i x_i^2 + \epsilon}}
# $$

# %% equation="layer_norm rms_norm"
x = 3 * rng.normal(size=(5, 7)) + 2
gamma, beta = rng.normal(size=(2, 7))

centred = x - np.einsum("td->t", x)[:, None] / 7
spread = np.einsum("td,td->t", centred, centred)[:, None] / 7
np.testing.assert_allclose(tt.layer_norm(x, gamma, beta), centred * (spread + 1e-5) ** -0.5 * gamma + beta)
loudness = np.einsum("td,td->t", x, x)[:, None] / 7
np.testing.assert_allclose(tt.rms_norm(x, gamma), x * (loudness + 1e-6) ** -0.5 * gamma)

# %% [markdown] lang="en"
# Take one place with the features (1, 2, 3, 6), and $\gamma = 1$, $\beta = 0$. The mean is 3, the variance 3.5, so the
# last feature becomes $3/\sqrt{3.5} \approx 1.60$.
#
# **Guess**: multiply the four features by 1000 and add 5. What does the last feature become now?

# %% [markdown] lang="zh"
# 设一个位置的特征为 (1, 2, 3, 6)，$\gamma = 1$，$\beta = 0$。均值是 3，方差是 3.5，所以最后一个特征变成 $3/\sqrt{3.5} \approx 1.60$。
#
# **猜一猜**：把四个特征都乘以 1000 再加 5，现在最后一个特征变成多少？

# %% guess="1.6"
my_feature = ...  # your guess

# %%
four = np.array([1.0, 2.0, 3.0, 6.0])
plain, loud = (tt.layer_norm(v, np.ones(4), np.zeros(4)) for v in (four, 1000 * four + 5))
reveal(my_feature, loud[3].item(), tolerance=0.02)
print(plain.round(3), loud.round(3))
np.testing.assert_allclose(plain, loud, atol=1e-4)
assert abs(plain[3] - 3 / np.sqrt(3.5)) < 1e-4

# %% [markdown] lang="en"
# The same: layer norm forgets mean and size, and keeps the direction alone. With three features one can draw it. The
# points of the picture are random; we look at them along the line where all three features are equal, so that the mean
# is out of sight. **Look at** what is left of 400 scattered points: where are they now, and how far from the middle?

# %% [markdown] lang="zh"
# 还是一样：层归一化忘掉均值和大小，只保留方向。特征有三个时可以画出来。图中的点是随机的；我们沿着“三个特征都相等”的那条直线看过去，
# 这样均值就看不见了。**看一看** 400 个散乱的点变成了什么：它们现在在哪里，离中心多远？

# %%
points = rng.normal(size=(400, 3)) * np.array([2.0, 1.0, 1.0])
normed = tt.layer_norm(points, np.ones(3), np.zeros(3))
np.testing.assert_allclose(np.linalg.norm(normed, axis=1), np.sqrt(3), rtol=0.02)

# two directions at right angles to (1, 1, 1)
plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
clouds = {
    label("before", "之前"): points @ plane.T,
    label("after layer norm", "层归一化之后"): normed @ plane.T,
}
dot_chart(clouds)

# %% [markdown] lang="en"
# On a circle of radius $\sqrt{d} = \sqrt3$: variance 1 means a sum of squares of $d$.
#
# The gradient follows from the picture. To change the mean or the size of $x$ changes nothing, so the gradient of $x$ has no
# part along either: it adds up to 0, and it is at right angles to $x - \mu$. That is what the two extra terms of the
# backward pass do. It also makes a trap for tests:
#
# **Guess**: the loss is the plain *sum* of all outputs of a layer norm with $\gamma = 1$, so all that comes back is ones. What
# is the largest entry of the gradient of $x$?

# %% [markdown] lang="zh"
# 在半径为 $\sqrt{d} = \sqrt3$ 的圆上：方差为 1，就是平方和为 $d$。
#
# 梯度也可以从图上看出来。改变 $x$ 的均值或大小，什么也不会变，所以 $x$ 的梯度在这两个方向上没有分量：它的各分量之和为 0，并且与
# $x - \mu$ 垂直。反向公式里多出来的两项就是干这个的。这也给检验挖了一个坑：
#
# **猜一猜**：损失取 $\gamma = 1$ 的层归一化全部输出之*和*，于是传回来的全是 1。$x$ 的梯度中最大的一个是多少？

# %% guess="0"
my_largest = ...  # your guess

# %%
at = tt.Tensor(x, requires_grad=True)
tt.layer_norm(at, np.ones(7), np.zeros(7)).sum().backward()
reveal(my_largest, np.abs(at.grad.numpy()).max().item(), tolerance=1e-6)
assert np.abs(at.grad.numpy()).max() < 1e-12

at = tt.Tensor(x, requires_grad=True)
(tt.layer_norm(at, gamma, beta) * rng.normal(size=x.shape)).sum().backward()
dx = at.grad.numpy()
np.testing.assert_allclose(dx.sum(axis=-1), 0, atol=1e-12)
np.testing.assert_allclose((dx * centred).sum(axis=-1), 0, atol=1e-4)
print(say("a real gradient is not zero:", "真实的梯度不为零："), np.abs(dx).max().round(3))

# %% [markdown] lang="en"
# Zero (up to rounding): the outputs add up to 0 whatever $x$ is. Who checks a gradient with ones checks nothing here, and a
# backward pass without its last term passes. Use random numbers, as `tt.gradcheck` does.

# %% [markdown] lang="zh"
# 零（舍入误差之内）：无论 $x$ 是什么，输出之和总是 0。用全 1 来检验梯度，在这里等于没有检验；漏掉最后一项的反向公式照样通过。要用随机数，
# `tt.gradcheck` 就是这样做的。

# %% exercise="layer_norm"
check(layer_norm)

# %% exercise="layer_norm_backward"
check(layer_norm_backward)

# %% [markdown] lang="en"
# ## Residuals: what comes in goes out, and something is added
#
# A **residual** adds a part's input to its output: $x + S(x)$, where $S$ is attention or feed-forward. The part need
# not pass everything on; it only writes what it has to add. And the gradient of $x + S(x)$ has a 1 in it: there is a
# way back to the first layer that no matrix touches.
#
# With layer norm there are two ways to join a part. The original Transformer and BERT normalise *after* the sum
# (**post-norm**), GPT-2 and nearly all that came later *before* the part (**pre-norm**):
#
# $$
# \text{post-norm:}\quad x \leftarrow \mathrm{LayerNorm}(x + S(x)) \qquad\qquad \text{pre-norm:}\quad x \leftarrow x + S(\mathrm{LayerNorm}(x))
# $$
#
# In pre-norm the line of $x$ runs from the embeddings to the end without anything on it but additions; one more layer norm
# stands at the very end.
#
# Let us measure. Four ways to join the parts of 24 blocks: the parts alone, with residuals alone, post-norm, pre-norm.
# The matrices are random, with entries of variance 1/(number of inputs), the biases 0. A random gradient comes in at the
# top; how large is it when it has reached the input of each block?
#
# **Guess** for the parts alone: by how many **powers of ten** is the gradient smaller at the first block than at the last?

# %% [markdown] lang="zh"
# ## 残差：进来的照样出去，再加上一点
#
# **残差**把一个部分的输入加到它的输出上：$x + S(x)$，其中 $S$ 是注意力或前馈网络。这个部分不必把一切都传下去，只需写出它要补充的内容。
# 而且 $x + S(x)$ 的导数里有一个 1：梯度有一条路可以回到第一层，路上不经过任何矩阵。
#
# 与层归一化结合，有两种接法。原始 Transformer 和 BERT 在相加*之后*归一化（**后置归一化**），GPT-2 和后来几乎所有模型在进入各部分*之前*
# 归一化（**前置归一化**）：
#
# $$
# \text{post-norm:}\quad x \leftarrow \mathrm{LayerNorm}(x + S(x)) \qquad\qquad \text{pre-norm:}\quad x \leftarrow x + S(\mathrm{LayerNorm}(x))
# $$
#
# （post-norm 即后置，pre-norm 即前置。）前置归一化中，$x$ 这条线从嵌入一直通到末尾，上面除了加法什么也没有；最末端再放一个层归一化。
#
# 我们来测量。24 个块的各部分有四种接法：什么也不加、只加残差、后置归一化、前置归一化。矩阵是随机的，元素方差为 1/（输入个数），偏置为 0。
# 从顶上送入一个随机的梯度；它到达每个块的输入时还有多大？
#
# **猜一猜**：什么也不加时，梯度在第一个块处比在最后一个块处小**几个数量级**（10 的几次方）？

# %% guess="3.5"
my_powers = ...  # powers of ten

# %%
JOINS = {
    "parts alone": lambda x, part, norm: part(x),
    "residuals alone": lambda x, part, norm: x + part(x),
    "norms alone": lambda x, part, norm: norm(part(x)),
    "post-norm": lambda x, part, norm: norm(x + part(x)),
    "pre-norm": lambda x, part, norm: x + part(norm(x)),
}


def blocks(depth, rng):
    """Blocks with random matrices that on average neither shrink nor stretch a vector."""
    made = [nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, rng=rng) for _ in range(depth)]
    for block in made:
        for name, p in block.named_parameters():
            if p.ndim == 2:
                p.data[...] = rng.normal(size=p.shape) / np.sqrt(p.shape[0])
            elif "norm" not in name:
                p.data[...] = 0
    return made


def measure(kind, depth, seed):
    """Inputs of all blocks, gradients there (their sizes), and that of the last matrix of all."""
    rng = np.random.default_rng(seed)
    made = blocks(depth, rng)
    xs = [tt.Tensor(rng.normal(size=(2, 13, 64)).astype("float32"), requires_grad=True)]
    for block in made:
        x = JOINS[kind](xs[-1], block.self_attention, block.norm1)
        xs.append(JOINS[kind](x, block.feed_forward, block.norm2))
    y = xs[-1]
    if kind in ("pre-norm", "residuals alone"):  # as GPT-2: one more norm at the end
        y = made[-1].norm2(y)
    loss = (y * rng.normal(size=y.shape).astype("float32")).sum()
    gradients = tt.grad(loss, [*xs[:-1], made[-1].feed_forward.linear2.weight])
    sizes = [np.linalg.norm(g.numpy().astype("float64")) for g in gradients]
    return [x.numpy() for x in xs], np.array(sizes[:-1]), sizes[-1]


sizes = {kind: np.mean([measure(kind, 24, seed)[1] for seed in range(3)], axis=0) for kind in JOINS}
powers = np.log10(sizes["parts alone"][-1] / sizes["parts alone"][0])
reveal(my_powers, powers, tolerance=1)
assert 2.5 < powers < 4.5

# %% [markdown] lang="en"
# Now all of them, on a logarithmic scale. The gradient travels from the right (the last block) to the left. **Look
# for** the curve that falls, the one that flies off, and the ones that stay.

# %% [markdown] lang="zh"
# 现在把它们都画出来，用对数刻度。梯度从右边（最后一块）走到左边。**找一找**：哪条往下掉，哪条冲上天，哪些保持平稳。

# %%
assert sizes["residuals alone"][0] > 1e6 * sizes["residuals alone"][-1]
for kind in ("post-norm", "pre-norm"):
    assert 1 / 10 < sizes[kind][0] / sizes[kind][-1] < 10

chinese = {
    "parts alone": "什么也不加",
    "residuals alone": "只加残差",
    "post-norm": "后置归一化",
    "pre-norm": "前置归一化",
}
lines = {label(kind, chinese[kind]): sizes[kind] for kind in chinese}
line_chart(
    range(1, 25),
    lines,
    title=label("size of the gradient at the block's input", "块的输入处梯度的大小"),
    across=label("block", "第几块"),
    logarithmic="y",
)

# %% [markdown] lang="en"
# - **Parts alone**: the gradient fades. Ten blocks more, and another power and a half of ten is gone.
# - **Residuals alone**: it explodes. Each part adds something as large as $x$, the sum grows, and the next part makes it
#   larger still.
# - **Both** together, in either order: it keeps its size through 24 blocks.
#
# What about norms *without* residuals? Their gradients keep their size as well. But look at what becomes of the
# words. The cell takes the outputs of all blocks and measures how alike the vectors of different places are: the mean
# cosine, which is 1 if all point the same way.

# %% [markdown] lang="zh"
# - **什么也不加**：梯度逐渐消失。再多十个块，又会少掉一个半数量级。
# - **只加残差**：梯度爆炸。每个部分加上的东西与 $x$ 一样大，和越来越大，下一部分又把它变得更大。
# - **两样都有**，无论先后：经过 24 个块仍保持大小。
#
# 那么只有归一化*没有*残差呢？梯度的大小也能保持。但看看词变成了什么样。下面取各块的输出，衡量不同位置的向量有多相像：平均余弦，如果全都
# 指向同一方向，它就是 1。


# %%
def alikeness(x):
    """Mean cosine of the vectors of two different places of a text."""
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = u @ u.swapaxes(-1, -2)  # (batch, T, T)
    return cosines[:, ~np.eye(x.shape[1], dtype=bool)].mean()


alike = {
    kind: [alikeness(x.astype("float64")) for x in measure(kind, 24, seed=0)[0]]
    for kind in ("norms alone", "post-norm", "pre-norm")
}
for kind, values in alike.items():
    print(f"{kind:12}", *(f"{v:6.2f}" for v in values[::4]))
assert alike["norms alone"][4] > 0.99
assert alike["post-norm"][8] < alike["norms alone"][8]
assert alike["pre-norm"][24] < 0.95

# %% [markdown] lang="en"
# (From left to right: the input, and the outputs of blocks 4, 8, 12, …) Without residuals all places hold **the same
# vector** after four blocks: attention averages, and averages of averages are all alike. The words have forgotten who
# they are, and no training signal can tell them apart. Dong et al. (2021) call it rank collapse. A residual keeps each
# word's own vector in the sum, and that slows it down: with post-norm the words still differ after eight blocks, with
# pre-norm to the end. (These are random weights; training must begin from there.)
#
# ## Post-norm and pre-norm: what depth does
#
# Look at another gradient: that of the last matrix of the last feed-forward network. In pre-norm, $x$ grows with every
# block, as a sum of $L$ parts of about equal size: by $\sqrt{L}$. The norm at the end divides by that.
#
# **Guess**: from 3 to 48 blocks, sixteen times as deep, by which factor does this gradient get smaller in pre-norm?

# %% [markdown] lang="zh"
# （从左到右：输入，以及第 4、8、12……块的输出。）没有残差，四个块之后所有位置的向量就**一模一样**了：注意力做平均，平均的平均全都一个样。
# 词忘了自己是谁，任何训练信号都无法再把它们分开。Dong 等人（2021）称之为秩坍缩。残差把每个词自己的向量保留在和里，坍缩就慢得多：后置归一化过了
# 八个块词与词仍有差别，前置归一化则直到末尾。（这里是随机权重；训练就要从这里出发。）
#
# ## 后置与前置：深度的影响
#
# 再看另一个梯度：最后一个前馈网络的最后一个矩阵的梯度。前置归一化中，$x$ 每过一块就增大，它是 $L$ 个大小差不多的部分之和，按
# $\sqrt{L}$ 增大。末尾的归一化要除以它。
#
# **猜一猜**：从 3 块到 48 块，深了十六倍，前置归一化中这个梯度缩小到几分之一（写出倍数）？

# %% guess="4"
my_factor = ...  # how many times smaller

# %%
last = {
    kind: {depth: np.mean([measure(kind, depth, seed)[2] for seed in range(3)]) for depth in (3, 12, 48)}
    for kind in ("post-norm", "pre-norm")
}
reveal(my_factor, last["pre-norm"][3] / last["pre-norm"][48], tolerance=1)
for kind, by_depth in last.items():
    print(
        f"{kind:10}", *(say(f"{n:3} blocks {g:5.0f}  ", f"{n:3} 块 {g:5.0f}  ") for n, g in by_depth.items())
    )
assert abs(last["pre-norm"][3] / last["pre-norm"][48] - 4) < 1
assert 0.7 < last["post-norm"][3] / last["post-norm"][48] < 1.4

# %% [markdown] lang="en"
# By about $\sqrt{16} = 4$. In post-norm it does not get smaller at all: near the output of a deep stack the gradients are
# as large as in a shallow one, though there are sixteen times as many blocks to be moved at once. The first steps with
# the full learning rate then go astray. That is why post-norm models need a **warm-up** of the learning rate, and
# pre-norm models can do with little or none (Xiong et al., 2020, who proved just this $\sqrt{L}$). Post-norm has its
# merits, too: once it trains, it often ends up slightly better.
#
# ## Dropout
#
# The last part is for training alone. **Dropout** sets each entry to 0 with probability $p$, so that no feature can rely
# on another one being there. To keep the mean as it was, the others are scaled up:
#
# $$
# x \odot m / (1 - p),\; m \sim \mathrm{Bernoulli}(1 - p)
# $$
#
# Its id is **dropout** (Srivastava et al., 2014), the code is [dropout](tinytransformer.formulas.layers.dropout). It stands
# on the output of each part, before it is added to $x$, on the attention weights, and on the embeddings.
#
# **Guess**: $p = 0.2$, and an entry of 8 is kept. What does it become?

# %% [markdown] lang="zh"
# 大约是 $\sqrt{16} = 4$ 倍。后置归一化中它根本不变小：深层网络靠近输出处的梯度与浅层的一样大，可同时要移动的块却多了十六倍。于是用满的
# 学习率走头几步，就会走偏。所以后置归一化的模型需要学习率**预热**，前置的只要一点点甚至不用（Xiong 等，2020，他们证明的正是这个
# $\sqrt{L}$）。后置也有它的长处：只要训练得起来，最终结果往往略好。
#
# ## 随机失活
#
# 最后一个部分只用于训练。**随机失活**（dropout）以概率 $p$ 把每个元素置 0，使任何特征都不能指望另一个特征一定在场。为了保持平均值不变，
# 其余的要放大：
#
# $$
# x \odot m / (1 - p),\; m \sim \mathrm{Bernoulli}(1 - p)
# $$
#
# 它的编号是 **dropout**（Srivastava 等，2014），代码是 [dropout](tinytransformer.formulas.layers.dropout)。它用在每个部分的输出上
# （加到 $x$ 之前）、注意力权重上和嵌入上。
#
# **猜一猜**：$p = 0.2$，一个为 8 的元素留了下来。它变成多少？

# %% guess="10"
my_entry = ...  # your guess

# %% equation="dropout"
p = 0.2
eights = np.full((1000, 100), 8.0)
m = rng.random(eights.shape) > p  # True stays
dropped = tt.dropout(eights, m, p)
np.testing.assert_allclose(dropped, np.where(m, eights / 0.8, 0.0))

reveal(my_entry, dropped.max().item(), tolerance=1e-6)
print(say("mean before and after:", "之前与之后的平均："), eights.mean(), dropped.mean().round(2))
assert abs(dropped.mean() - 8) < 0.1

# %% [markdown] lang="en"
# When the model is *used*, nothing is dropped and nothing is scaled. Forget to switch it off, and the same input gives
# another answer every time:

# %% [markdown] lang="zh"
# *使用*模型时什么也不丢，什么也不放大。忘了关掉，同样的输入每次给出的答案都不同：

# %%
layer = nn.TransformerEncoderLayer(12, 3, 48, dropout=0.2, rng=0, dtype="float64")
text = rng.normal(size=(2, 5, 12))
training = np.abs(layer(text).numpy() - layer(text).numpy()).max()
layer.eval()
using = np.abs(layer(text).numpy() - layer(text).numpy()).max()
print(
    say("two calls differ by", "两次调用相差"),
    training.round(2),
    say("and, after eval(),", "；eval() 之后"),
    using,
)
assert training > 0.01
assert using == 0

# %% exercise="dropout"
check(dropout)

# %% [markdown] lang="en"
# ## The block
#
# You have all the parts. Here they are as lines, with the additions that let $x$ pass by:
#
# ```text
# pre-norm    x ─┬─ norm ─ attention ─ + ─┬─ norm ─ feed-forward ─ + ─ x
#                └─────────────────────┘  └────────────────────────┘
#
# post-norm   x ─┬─ attention ─ + ─ norm ─┬─ feed-forward ─ + ─ norm ─ x
#                └──────────────┘         └─────────────────┘
# ```
#
# The cell builds both from the library's formulas alone, and compares with
# [TransformerEncoderLayer](tinytransformer.nn.transformer.TransformerEncoderLayer), the layer of the document's
# listings. First it makes gains and biases random: at the start they are 1 and 0, and a mistake with them would not
# show. With a causal mask this is a block of GPT, without it one of BERT.

# %% [markdown] lang="zh"
# ## 拼成一块
#
# 各个部分都齐了。把它们画成线路，加号处让 $x$ 从旁边通过（norm 归一化，attention 注意力，feed-forward 前馈网络）：
#
# ```text
# pre-norm    x ─┬─ norm ─ attention ─ + ─┬─ norm ─ feed-forward ─ + ─ x
#                └─────────────────────┘  └────────────────────────┘
#
# post-norm   x ─┬─ attention ─ + ─ norm ─┬─ feed-forward ─ + ─ norm ─ x
#                └──────────────┘         └─────────────────┘
# ```
#
# 下面只用库里的公式搭出这两种块，并与 [TransformerEncoderLayer](tinytransformer.nn.transformer.TransformerEncoderLayer)，也就是文档
# 代码中用的那个层比较。先把增益和偏置设成随机数：它们开始时是 1 和 0，用错了也看不出来。带因果掩码就是 GPT 的块，不带就是 BERT 的块。

# %%
mask = tt.Mask.causal(5)
for norm_first in (False, True):
    layer = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, activation=tt.gelu, norm_first=norm_first, rng=0, dtype="float64"
    )
    for p in layer.parameters():
        if p.ndim == 1:
            p.data[...] = rng.normal(size=p.shape)
    A, F = layer.self_attention, layer.feed_forward
    matrices = [m.weight for m in (A.W_Q, A.W_K, A.W_V, A.W_O)]
    biases = [m.bias for m in (A.W_Q, A.W_K, A.W_V, A.W_O)]

    y = tt.Tensor(text)
    for number, norm in enumerate((layer.norm1, layer.norm2)):
        z = tt.layer_norm(y, norm.weight, norm.bias) if norm_first else y
        if number == 0:
            z = tt.multi_head_attention(z, z, z, *matrices, *biases, heads=3, mask=mask)
        else:
            z = tt.feed_forward(
                z, F.linear1.weight, F.linear1.bias, F.linear2.weight, F.linear2.bias, tt.gelu
            )
        y = y + z
        if not norm_first:
            y = tt.layer_norm(y, norm.weight, norm.bias)
    np.testing.assert_allclose(y.numpy(), layer(text, mask=mask).numpy())
    print(layer.extra_repr(), say("equals the library's layer", "与库中的层相等"))

# %% [markdown] lang="en"
# Now yours: the pre-norm block, with any attention and any feed-forward network.

# %% [markdown] lang="zh"
# 现在轮到你：写前置归一化的块，注意力和前馈网络可以是任意的。

# %% exercise="pre_norm_block"
check(pre_norm_block)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The residual is taken from the normalised input** ($h + S(h)$ with $h = \mathrm{LayerNorm}(x)$). It trains. The
#   free way through all blocks is gone, and deep models train worse, for no visible reason.
# - **No norm at the end of a pre-norm stack.** $x$ has grown with depth, so the logits begin too large: the first loss lies
#   far above $\ln V$.
# - **The wrong GELU.** Weights of GPT-2 with BERT's form, or `nn.TransformerEncoderLayer` with its default, ReLU. All
#   shapes are right, and the text is slightly worse, or much worse.
# - **The wrong ε or the wrong variance.** BERT has $\epsilon = 10^{-12}$, GPT-2 $10^{-5}$. `np.var` divides by $d$, as
#   layer norm does; `torch.var` divides by $d - 1$ unless told otherwise.
# - **Statistics over the wrong axis.** Mean and variance over the *batch* make a text depend on its neighbours: it works
#   in training and breaks with a batch of one. Test: alone and in a batch must be equal.
# - **Dropout left on** (`eval()` forgotten): validation looks worse than training, and answers change from call to call.
#   Or scaled by $1/p$: no one sees it at $p = 0.5$.
# - **float16 in the norm.** Squares overflow from 256 on ($256^2 = 65536 > 65504$), so the statistics are taken in float32.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **残差取自归一化之后的输入**（$h + S(h)$，其中 $h = \mathrm{LayerNorm}(x)$）。照样能训练。只是贯穿所有块的那条畅通的路没有了，深层模型
#   训练得更差，却找不到原因。
# - **前置归一化的末尾漏了归一化。** $x$ 随深度增大了，logits 一开始就太大：最初的损失远高于 $\ln V$。
# - **GELU 用错了。** GPT-2 的权重配了 BERT 的形式，或者 `nn.TransformerEncoderLayer` 用了默认的 ReLU。形状全对，文本差一点，或者差很多。
# - **ε 或方差弄错了。** BERT 的 $\epsilon = 10^{-12}$，GPT-2 是 $10^{-5}$。`np.var` 除以 $d$，层归一化也是；`torch.var` 默认除以
#   $d - 1$。
# - **统计量沿错了轴。** 沿*批次*求均值和方差，一段文本就会依赖它的邻居：训练时没事，批次只有一条时就坏了。检验：单独算与放在批次里算
#   必须相等。
# - **随机失活没关**（忘了 `eval()`）：验证看起来比训练差，每次调用答案都变。或者缩放用了 $1/p$：$p = 0.5$ 时谁也看不出来。
# - **归一化里用了 float16。** 大于等于 256 的数平方就溢出（$256^2 = 65536 > 65504$），所以统计量要用 float32 计算。

# %% [markdown] lang="en"
# ## To take along
#
# - Attention moves information between places; the feed-forward network works on each place alone, and holds two thirds
#   of the parameters.
# - GELU and SiLU are ReLU with a round corner.
# - Layer norm keeps the direction of a vector and sets its size; the gradient lies at right angles to what it forgets.
# - Residuals keep the words apart longer and the way back open; norms keep the size. It takes both.
# - Pre-norm divides the gradient by $\sqrt{L}$ by itself; post-norm needs a warm-up.
#
# This lesson takes about 75 minutes; its cells run in about ten seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 注意力在位置之间搬运信息；前馈网络对每个位置单独加工，参数占三分之二。
# - GELU 和 SiLU 是磨圆了拐角的 ReLU。
# - 层归一化保留向量的方向，规定它的大小；梯度与它忘掉的方向垂直。
# - 残差让词与词保持区别，让回去的路畅通；归一化保持大小。两样缺一不可。
# - 前置归一化自动把梯度除以 $\sqrt{L}$；后置归一化需要预热。
#
# 本课大约需要 75 分钟；所有单元格十来秒就能运行完。
