# ---
# jupyter:
#   lesson:
#     en: Embeddings and positions
#     zh: 嵌入与位置
#     section: "5.1"
#     minutes: 60
# ---

# %% [markdown] lang="en"
# A Transformer computes with vectors. Two things must become vectors before it can begin: **what** a token is, and
# **where** it stands. The first is an embedding, `nn.Embedding` in the listings of sections 5.1 and 5.2. The second is
# missing in these listings, and without it "the dog bites the man" and "the man bites the dog" are one and the same.
#
# In this lesson you look up rows of a table and take a gradient back through it, prove that attention sees a set, and
# meet three ways to tell it the order: waves, rotations, and buckets of distances.

# %% [markdown] lang="zh"
# Transformer 用向量计算。开始之前，有两样东西要变成向量：词元**是什么**，以及它**在哪里**。前者是嵌入，即 5.1 和 5.2 节代码中的
# `nn.Embedding`。后者在那些代码里没有，而没有它，“狗咬人”和“人咬狗”就是一回事。
#
# 本课中你会从一张表里查出各行，让梯度反向穿过它；证明注意力看到的只是一个集合；再认识三种告诉它顺序的办法：波、旋转，以及距离的
# 分桶。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.plotting import attention_map, heat_map, line_chart

# %% [markdown] lang="en"
# ## An embedding is a lookup
#
# Every token has a number, its id, from 0 to $V - 1$. Ids are names, not quantities: token 7 is not "more" than token 3,
# and a model must not compute with them. So each id gets a row of a table $W$ of shape $(V, d)$, and these rows are
# **parameters**: they begin at random and training moves them.
#
# $$
# y_t = W_{\mathrm{ids}_t}
# $$
#
# Its id is **embedding** (document 5.1), the code is [embedding](tinytransformer.formulas.layers.embedding). It is a
# matrix product in disguise: write each id as a row of zeros with a single 1 (**one-hot**), and multiply it by $W$. The
# 1 picks out the row.

# %% [markdown] lang="zh"
# ## 嵌入就是查表
#
# 每个词元有一个号码，即编号，从 0 到 $V - 1$。编号是名字，不是数量：7 号词元并不比 3 号“大”，模型不能拿编号去计算。所以每个编号
# 对应表 $W$ 的一行，表的形状是 $(V, d)$。这些行是**参数**：开始时随机，由训练来移动。
#
# $$
# y_t = W_{\mathrm{ids}_t}
# $$
#
# 它的编号是 **embedding**（文档 5.1），代码是 [embedding](tinytransformer.formulas.layers.embedding)。它其实是变了样的矩阵乘法：
# 把每个编号写成只有一个 1、其余全是 0 的一行（**独热**），再乘以 $W$。那个 1 正好挑出对应的一行。

# %% equation="embedding"
rng = np.random.default_rng(0)
W = rng.normal(size=(7, 3))  # V = 7 tokens, d = 3 features
ids = np.array([4, 0, 4, 6])

one_hot = np.eye(7)[ids]  # (4, 7)
np.testing.assert_allclose(tt.embedding(ids, W), one_hot @ W)
np.testing.assert_array_equal(tt.embedding(ids, W), np.stack([W[4], W[0], W[4], W[6]]))
print(one_hot.astype(int))

# %% [markdown] lang="en"
# Nobody multiplies by all those zeros; the lookup costs a copy of $d$ numbers for each token. The table itself is
# another matter.
#
# **Guess**: GPT-2 has $V = 50257$ tokens and $d = 768$ features. How many **million** numbers is its table?

# %% [markdown] lang="zh"
# 没有人真的去乘那么多零；查表时每个词元只要复制 $d$ 个数。但表本身就是另一回事了。
#
# **猜一猜**：GPT-2 有 $V = 50257$ 个词元，$d = 768$ 个特征。它的表有多少**百万**个数？

# %% guess="38.6"
my_millions = ...  # your guess

# %%
table = 50257 * 768
reveal(my_millions, table / 1e6, tolerance=2)
assert abs(table / 1e6 - 38.6) < 0.1
print(
    say(
        f"share of its 124.4 million parameters: {table / 124.4e6:.0%}",
        f"占它 1.244 亿参数的 {table / 124.4e6:.0%}",
    )
)
assert abs(table / 124.4e6 - 0.31) < 0.01

# %% [markdown] lang="en"
# ## The gradient of a lookup
#
# Forward, the row of a token is copied to each place where it stands. Backward, what comes back to these places goes
# into that row: **copied forward, added up backward**. From the product $y = HW$, with one-hot rows in $H$, it is the
# rule of lesson 1: $dW = H^T g$. Rows of tokens that did not occur get 0.
#
# Take the sentence *the cat sees the dog*, with ids 0 1 2 0 3. To see what goes where, let the gradient that comes
# back to place $t$ be $t + 1$: 1, 2, 3, 4, 5. The row of *the* must get $1 + 4 = 5$.
#
# Many write `dW[ids] += g`. **Guess**: what does the row of *the* (row 0) get then?

# %% [markdown] lang="zh"
# ## 查表的梯度
#
# 前向时，一个词元的那一行被复制到它出现的每个位置。反向时，从这些位置回来的梯度都归到那一行：**前向复制，反向相加**。从乘积
# $y = HW$（$H$ 的各行是独热向量）来看，这就是第 1 课的规则：$dW = H^T g$。没有出现的词元，它们的行梯度为 0。
#
# 取句子 *the cat sees the dog*，编号为 0 1 2 0 3。为了看清去向，设回到位置 $t$ 的梯度为 $t + 1$：1、2、3、4、5。*the* 那一行应当
# 得到 $1 + 4 = 5$。
#
# 很多人写 `dW[ids] += g`。**猜一猜**：这样写，*the* 的那一行（第 0 行）得到多少？

# %% guess="4"
my_gradient = ...  # your guess

# %%
ids, g = np.array([0, 1, 2, 0, 3]), np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
wrong = np.zeros((6, 1))
wrong[ids] += g
W = tt.Tensor(rng.normal(size=(6, 1)), requires_grad=True)
(tt.embedding(ids, W) * g).sum().backward()
reveal(my_gradient, wrong[0].item())
print("dW[ids] += g:", wrong[:, 0])
print("tt:          ", W.grad.numpy()[:, 0])
assert wrong[0] == 4
np.testing.assert_array_equal(W.grad.numpy()[:, 0], [5, 2, 3, 5, 0, 0])
np.testing.assert_array_equal(W.grad.numpy(), np.eye(6)[ids].T @ g)

# %% [markdown] lang="en"
# 4: NumPy reads all rows, adds, and writes them back; of equal ids the last one wins. The mistake is silent, and it hits
# just the frequent words, which occur many times in each batch. Rows 4 and 5 got exactly 0: a word that is not in the
# batch learns nothing from it. (This is why rare words have poor vectors.)

# %% [markdown] lang="zh"
# 是 4：NumPy 先读出所有行，加上，再写回去；编号相同的，最后写的那个算数。这个错误不声不响，而且偏偏打在常用词上，它们在每个批次里都
# 出现很多次。第 4、5 行恰好为 0：不在批次里的词，从这个批次什么也学不到。（罕见词的向量不好，原因就在这里。）

# %% exercise="embedding_backward"
check(embedding_backward)

# %% [markdown] lang="en"
# ## Attention sees a set
#
# Now to the order. In lesson 3 you exchanged two words, and the outputs at the other places did not move. Here is why,
# for any reordering. A reordering of rows is a product with a permutation matrix $P$; and $P^T P = I$, since ordering
# back undoes it. Put $Px$ in the place of $x$, with $Q = xW^Q$ and so on. The scores become
#
# $$(PQ)(PK)^T = P\,(QK^T)\,P^T$$
#
# the same numbers with rows and columns reordered. The softmax works on each row alone, whatever the order in it, so the
# weights become $P A P^T$. Last, the values: $(P A P^T)(P V) = P A V$, since $P^T P = I$. In short,
#
# $$\text{Attention}(Px) = P\,\text{Attention}(x)$$
#
# **Reordering the words reorders the outputs, and does nothing else.** Layer norm and feed-forward work on each place
# alone, so it holds for a whole stack of layers. Whoever then takes the mean over all places, to classify the sentence,
# gets the same for every order.
#
# **Guess**: a Transformer layer with random weights reads "dog bites man" and "man bites dog". By how much do the means
# of its outputs differ?

# %% [markdown] lang="zh"
# ## 注意力看到的是集合
#
# 现在来看顺序。第 3 课里你交换了两个词，其他位置的输出没有变。下面说明为什么，而且对任意的重新排列都成立。重排各行就是左乘一个置换
# 矩阵 $P$；并且 $P^T P = I$，因为再排回去就还原了。用 $Px$ 代替 $x$，其中 $Q = xW^Q$，依此类推。得分变成
#
# $$(PQ)(PK)^T = P\,(QK^T)\,P^T$$
#
# 还是那些数，只是行和列重新排了序。softmax 对每一行单独进行，与行内顺序无关，所以权重变成 $P A P^T$。最后是值：
# $(P A P^T)(P V) = P A V$，因为 $P^T P = I$。总之，
#
# $$\text{Attention}(Px) = P\,\text{Attention}(x)$$
#
# **重排词语，输出就跟着重排，别的什么也不变。**层归一化和前馈网络对每个位置单独进行，所以对整叠的层也成立。要是再对所有位置取平均来给
# 句子分类，那么无论什么语序，得到的都一样。
#
# **猜一猜**：一个权重随机的 Transformer 层分别读“狗 咬 人”和“人 咬 狗”，两次输出的平均相差多少？

# %% guess="0"
my_difference = ...  # your guess

# %%
words = label("dog bites man", "狗 咬 人").split()
vectors = {word: rng.normal(size=12) for word in words}
one = np.stack([vectors[w] for w in words])[None]  # (1, 3, 12)
other = one[:, ::-1]  # man bites dog
layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, rng=0, dtype="float64")
y_one, y_other = layer(one).numpy(), layer(other).numpy()
difference = np.abs(y_one.mean(axis=1) - y_other.mean(axis=1)).max()
reveal(my_difference, difference, tolerance=1e-9)
assert difference < 1e-12

P = np.eye(7)[rng.permutation(7)]
x = rng.normal(size=(7, 5))
np.testing.assert_allclose(tt.attention(P @ x, P @ x, P @ x), P @ tt.attention(x, x, x))

# %% [markdown] lang="en"
# Zero, up to rounding. Dog and man are just two words in a bag.
#
# (A causal mask breaks the proof: it does not move along with the words. The first place sees one key, the tenth sees
# ten, and from that a deep decoder can work out roughly where it is: Haviv et al., 2022, trained such models. It helps
# to say it outright.)
#
# ## First way: waves
#
# The original Transformer **adds** a vector to each embedding that says where the token stands. Think of a clock. The
# second hand turns fast and tells neighbouring moments apart; the hour hand turns slowly and tells the day's parts
# apart; together they name any moment. Here each pair of features is a hand: sine and cosine of an angle that grows with
# the position $p$, fast in the first pair, slowly in the last.
#
# $$
# \mathrm{PE}_{p,2i} = \sin(p / 10000^{2i/d}),\quad \mathrm{PE}_{p,2i+1} = \cos(p / 10000^{2i/d})
# $$
#
# Its id is **sinusoidal_positions** (document 3.1; Vaswani et al., 2017, section 3.5), the code is
# [sinusoidal_positions](tinytransformer.formulas.positions.sinusoidal_positions).

# %% [markdown] lang="zh"
# 舍入误差之内为零。狗和人不过是口袋里的两个词。
#
# （因果掩码会让这个证明失效：掩码并不跟着词一起移动。第 1 个位置看到 1 个键，第 10 个看到 10 个，深层的解码器可以由此大致推断自己的
# 位置；Haviv 等人在 2022 年训练过这样的模型。不过，直接告诉它更好。）
#
# ## 第一种办法：波
#
# 原始的 Transformer 给每个嵌入**加上**一个说明位置的向量。想一想时钟：秒针转得快，分得清相邻的时刻；时针转得慢，分得清上午下午；
# 合在一起就能说出任何时刻。这里每一对特征就是一根指针：一个随位置 $p$ 增长的角度的正弦和余弦，第一对转得快，最后一对转得慢。
#
# $$
# \mathrm{PE}_{p,2i} = \sin(p / 10000^{2i/d}),\quad \mathrm{PE}_{p,2i+1} = \cos(p / 10000^{2i/d})
# $$
#
# 它的编号是 **sinusoidal_positions**（文档 3.1；Vaswani 等，2017，第 3.5 节），代码是
# [sinusoidal_positions](tinytransformer.formulas.positions.sinusoidal_positions)。

# %% equation="sinusoidal_positions"
columns = []
for i in range(4):  # d = 8: four hands
    angle = np.arange(50) / 10000 ** (2 * i / 8)
    columns += [np.sin(angle), np.cos(angle)]
np.testing.assert_allclose(tt.sinusoidal_positions(50, 8, "float64"), np.stack(columns, axis=1))

for i in range(4):
    steps = 2 * np.pi * 10000 ** (2 * i / 8)
    print(say(f"hand {i} turns once in {steps:8.1f} positions", f"第 {i} 根指针每 {steps:8.1f} 个位置转一圈"))
assert abs(2 * np.pi * 10000 ** (6 / 8) - 6283.2) < 0.1

# %% [markdown] lang="en"
# The picture has a row for each position and a column for each feature. **Look** along a column at the left: a fast
# wave. Then at the right: it hardly changes in 100 positions. And look along one row: that is the "time" that this
# position shows, and no two rows are equal.

# %% [markdown] lang="zh"
# 图中每行是一个位置，每列是一个特征。**看**左边的一列，从上到下：波很快。再看右边：100 个位置里几乎不变。再看其中一行：那就是这个位置
# 所显示的“时刻”，没有哪两行相同。

# %%
PE_table = tt.sinusoidal_positions(100, 64, "float64")
heat_map(
    PE_table,
    title=label("sinusoidal positions", "正弦位置编码"),
    down=label("position", "位置"),
    across=label("feature", "特征"),
)

# %% [markdown] lang="en"
# **Guess**: with $d = 64$, what is the sum of squares of one row? (Remember $\sin^2 + \cos^2$.)

# %% [markdown] lang="zh"
# **猜一猜**：$d = 64$ 时，一行的平方和是多少？（想一想 $\sin^2 + \cos^2$。）

# %% guess="32"
my_square = ...  # your guess

# %%
squares = (PE_table**2).sum(axis=1)
reveal(my_square, squares[17].item(), tolerance=0.1)
np.testing.assert_allclose(squares, 32)

# %% [markdown] lang="en"
# 32 pairs, each of length 1: every position is as "loud" as every other.
#
# Why waves, and not simply the number $p$? A number of 5000 would drown the embedding. And waves have a gift: the product
# of two rows is $\sum_i \cos\big((p - q)/10000^{2i/d}\big)$, by the addition theorem. It depends on the **distance** alone.
# Distances are what language cares about: the adjective stands before its noun, at place 3 as at place 300.
#
# **Look at** the three curves: products of one position with all others. They should be one curve, moved.

# %% [markdown] lang="zh"
# 32 对，每对长度为 1：所有位置都同样“响亮”。
#
# 为什么用波，而不直接用数字 $p$？5000 这样的数会把嵌入淹没。而且波有一个好处：由三角恒等式，两行的内积是
# $\sum_i \cos\big((p - q)/10000^{2i/d}\big)$，只取决于**距离**。语言在意的正是距离：形容词在名词之前，不管是在第 3 位还是第 300 位。
#
# **看一看**三条曲线：某个位置与所有位置的内积。它们应当是同一条曲线，只是平移了。

# %%
np.testing.assert_allclose((PE_table @ PE_table[20])[:70], (PE_table @ PE_table[50])[30:])
products = {label(f"position {p}", f"位置 {p}"): PE_table @ PE_table[p] for p in (20, 50, 80)}
line_chart(
    range(100),
    products,
    title=label("product with all positions", "与所有位置的内积"),
    across=label("other position", "另一个位置"),
)

# %% [markdown] lang="en"
# And moving on by $k$ positions is a rotation of every hand by a fixed angle, the same from wherever you start. A matrix
# can do that, so a model can learn "two places back". Keep this in mind for the second way.
#
# **Learned positions.** BERT and GPT-2 take the simplest way of all: a second table, with a row for each position, trained
# like the first. It works as well, up to the last row. There is no row 1024 in GPT-2, so it cannot read longer texts:

# %% [markdown] lang="zh"
# 而且，前进 $k$ 个位置就是每根指针转过一个固定的角度，从哪里出发都一样。这是矩阵能做到的，所以模型学得会“往回数两个”。记住这一点，
# 第二种办法会用到。
#
# **学习得到的位置。** BERT 和 GPT-2 用了最简单的办法：再来一张表，每个位置一行，和第一张表一样训练。效果同样好，但只到最后一行为止。
# GPT-2 没有第 1024 行，所以读不了更长的文本：

# %%
positions = nn.Embedding(1024, 12, rng=0)
try:
    positions([1024])
except IndexError as error:
    print(error)

# %% [markdown] lang="en"
# With positions added, the two sentences of the dog and the man are two at last:

# %% [markdown] lang="zh"
# 加上位置之后，狗和人的两句话终于是两句话了：

# %%
places = tt.sinusoidal_positions(3, 12, "float64")
y_one, y_other = layer(one + places).numpy(), layer(other + places).numpy()
difference = np.abs(y_one.mean(axis=1) - y_other.mean(axis=1)).max()
print(say("difference of the means:", "平均之差："), round(difference, 3))
assert difference > 0.01

# %% exercise="sinusoidal_positions"
check(sinusoidal_positions)

# %% [markdown] lang="en"
# ## Second way: rotations
#
# If moving on is a rotation, why not rotate the tokens themselves? **Rotary positions** (RoPE), used in Llama and most
# of today's models, add nothing to the embeddings. In each attention layer they take every query and every key, cut it
# into pairs of features, and turn each pair by an angle that grows with the position:
#
# $$
# \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix} \mapsto \begin{pmatrix} \cos\phi & -\sin\phi \\ \sin\phi & \cos\phi \end{pmatrix} \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix}, \quad \phi = p\,\theta^{-2i/d}, \quad 0 \le i < d/2
# $$
#
# Its id is **rotary_positions** (Su et al., 2021), the code is
# [rotary_positions](tinytransformer.formulas.positions.rotary_positions). A pair is a complex number, and turning it by
# $\phi$ is multiplying it by $e^{\mathrm{i}\phi}$, which makes the plain NumPy short.

# %% [markdown] lang="zh"
# ## 第二种办法：旋转
#
# 既然前进就是旋转，何不直接旋转词元本身？**旋转位置**（RoPE）用于 Llama 和如今的大多数模型，它不往嵌入上加任何东西。在每个注意力层
# 里，它取每个查询和每个键，把特征两两配对，让每一对转过一个随位置增长的角度：
#
# $$
# \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix} \mapsto \begin{pmatrix} \cos\phi & -\sin\phi \\ \sin\phi & \cos\phi \end{pmatrix} \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix}, \quad \phi = p\,\theta^{-2i/d}, \quad 0 \le i < d/2
# $$
#
# 它的编号是 **rotary_positions**（Su 等，2021），代码是 [rotary_positions](tinytransformer.formulas.positions.rotary_positions)。
# 一对特征就是一个复数，转过 $\phi$ 就是乘以 $e^{\mathrm{i}\phi}$，所以纯 NumPy 写起来很短。

# %% equation="rotary_positions"
x = rng.normal(size=(11, 6))  # 11 positions, d = 6: three pairs
p = np.arange(11)

z = x[:, :3] + 1j * x[:, 3:]
z = z * np.exp(1j * p[:, None] * 10000.0 ** (-2 * np.arange(3) / 6))
np.testing.assert_allclose(tt.rotary_positions(x, p), np.concatenate([z.real, z.imag], axis=1))
np.testing.assert_allclose(np.linalg.norm(tt.rotary_positions(x, p), axis=1), np.linalg.norm(x, axis=1))
print(say("a rotation changes no length", "旋转不改变长度"))

# %% [markdown] lang="en"
# A score is the product of a query, turned by $p$, and a key, turned by $q$. Turn both by the same angle, and their
# product does not change; so it depends on $p - q$ alone.
#
# **Guess**: the vector (1, 0), with $d = 2$, is query at position 8 and key at position 5. What is their product? (With
# $d = 2$ there is one pair, and its angle is the position itself, in radians.)

# %% [markdown] lang="zh"
# 得分是转过 $p$ 的查询与转过 $q$ 的键的内积。两者转过同样的角度，内积不变；所以它只取决于 $p - q$。
#
# **猜一猜**：$d = 2$ 的向量 (1, 0)，作为查询放在位置 8，作为键放在位置 5。它们的内积是多少？（$d = 2$ 时只有一对，角度就是位置本身，
# 单位是弧度。）

# %% guess="-0.99"
my_product = ...  # your guess

# %%
e = np.array([[1.0, 0.0]])
at = {p: tt.rotary_positions(e, np.array([p]))[0] for p in (5, 8, 1005, 1008)}
reveal(my_product, (at[8] @ at[5]).item(), tolerance=0.02)
assert abs(at[8] @ at[5] - np.cos(3)) < 1e-12
assert abs(at[1008] @ at[1005] - np.cos(3)) < 1e-12

# %% [markdown] lang="en"
# It is $\cos 3 \approx -0.99$, and the same at 1008 and 1005.
#
# In the picture one random query and one random key stand at every position in turn: row $p$, column $q$ holds the product
# of the query at $p$ and the key at $q$. **Look for** stripes along the diagonals: equal distance, equal colour.

# %% [markdown] lang="zh"
# 是 $\cos 3 \approx -0.99$，放在 1008 和 1005 也一样。
#
# 下图中，同一个随机查询和同一个随机键依次放在每个位置：第 $p$ 行第 $q$ 列是位置 $p$ 的查询与位置 $q$ 的键的内积。**留意**沿对角线的
# 条纹：距离相等，颜色就相同。

# %%
T = 40
q, k = rng.normal(size=(2, 1, 16))
Q = tt.rotary_positions(np.repeat(q, T, axis=0), np.arange(T))
K = tt.rotary_positions(np.repeat(k, T, axis=0), np.arange(T))
products = Q @ K.T  # (T, T)
for distance in (-7, 0, 3):
    np.testing.assert_allclose(np.diag(products, distance), np.diag(products, distance)[0], atol=1e-12)

heat_map(
    products,
    title=label("product of query and key", "查询与键的内积"),
    down=label("position of the query", "查询的位置"),
    across=label("position of the key", "键的位置"),
)

# %% [markdown] lang="en"
# Values are not rotated: what a word *says* is the same wherever it stands. And nothing is learned: RoPE has no
# parameters. (Long texts still cause trouble: slow hands reach angles that they never had in training. Larger $\theta$,
# as in Llama 3, is one cure.)
#
# ## Third way: buckets of distances
#
# T5 says it most directly. Each head learns **a number for each distance**, and adds it to the score: "one place back:
# +2", "far ahead: −1". To have a number for each of thousands of distances would be a waste: next door and two doors
# on are quite different, 100 and 101 places on are not. So distances are sorted into 32 **buckets**: half of them for
# keys before the query, half for keys after it. In each half, the near distances have a bucket each, and for the far ones
# buckets grow wider with the logarithm, up to a distance of $D = 128$. With $N$ buckets for one side and $n$ the distance,
#
# $$
# b(n) = \begin{cases} n & n < E \\ \min\left(E + \left\lfloor \dfrac{\ln(n/E)}{\ln(D/E)}\,(N - E) \right\rfloor, N - 1\right) & n \ge E \end{cases} \qquad E = N/2
# $$
#
# Its id is **relative_position_bucket** (Raffel et al., 2020), the code is
# [relative_position_bucket](tinytransformer.formulas.positions.relative_position_bucket). The distance given to it is
# the key's position minus the query's: negative for keys before the query. Keys after it get $N + b(n)$.

# %% [markdown] lang="zh"
# 值不旋转：一个词*说的内容*不随位置而变。而且没有什么要学：RoPE 没有参数。（文本很长时仍有麻烦：慢的指针会转到训练中从未到过的角度。
# 像 Llama 3 那样加大 $\theta$ 是一种对策。）
#
# ## 第三种办法：距离的分桶
#
# T5 说得最直接。每个头为**每种距离学一个数**，加到得分上：“前面一格：+2”，“后面很远：−1”。要是成千上万种距离各有一个数，就太浪费了：
# 隔壁与隔两家大不相同，相隔 100 与 101 个位置却没什么差别。所以把距离分进 32 个**桶**：一半给查询之前的键，一半给查询之后的键。
# 每一半里，近的距离各占一个桶，远的距离按对数分桶，越远桶越宽，直到距离 $D = 128$。设一侧有 $N$ 个桶，距离为 $n$，则
#
# $$
# b(n) = \begin{cases} n & n < E \\ \min\left(E + \left\lfloor \dfrac{\ln(n/E)}{\ln(D/E)}\,(N - E) \right\rfloor, N - 1\right) & n \ge E \end{cases} \qquad E = N/2
# $$
#
# 它的编号是 **relative_position_bucket**（Raffel 等，2020），代码是
# [relative_position_bucket](tinytransformer.formulas.positions.relative_position_bucket)。传给它的距离是键的位置减查询的位置：
# 查询之前的键为负。查询之后的键得到 $N + b(n)$。

# %% equation="relative_position_bucket"
distances = np.arange(-200, 201)
N, D = 16, 128  # one side has 16 of the 32 buckets
E = N // 2

steps = np.abs(distances)
logarithmic = (N - E) * (np.log(np.maximum(steps, E) / E) / np.log(D / E))
one_side = np.where(steps < E, steps, E + logarithmic.astype(int)).clip(max=N - 1)
both_sides = one_side + np.where(distances > 0, N, 0)
np.testing.assert_array_equal(tt.relative_position_bucket(distances), both_sides)
for distance in (-1, -7, -8, -20, -21, -100, 1):
    print(say("distance", "距离"), distance, "→", tt.relative_position_bucket([distance])[0])

# %% [markdown] lang="en"
# **Guess**: into which bucket does a key fall that stands 300 places *after* the query? The buckets are numbered from 0
# to 31.

# %% [markdown] lang="zh"
# **猜一猜**：一个键在查询*之后* 300 个位置，它落进哪个桶？桶的编号从 0 到 31。

# %% guess="31"
my_bucket = ...  # 0 to 31

# %%
reveal(my_bucket, int(tt.relative_position_bucket([300])[0]))
assert tt.relative_position_bucket([300])[0] == tt.relative_position_bucket([3000])[0] == 31

# %% [markdown] lang="en"
# The last one, with 128 and 3000. T5 can read texts longer than any it was trained on: there is a bucket for every
# distance.
#
# The first picture shows the bucket over the distance. **Look at** the stairs: narrow steps near 0, wide ones far out. The
# dashed line is the decoder: it never sees keys after the query, so all 32 buckets serve the past. The second picture
# gives the buckets random biases and adds them to equal scores: whatever the words are, the weights have stripes.

# %% [markdown] lang="zh"
# 最后一个，与 128 和 3000 在一起。T5 能读比训练时更长的文本：任何距离都有桶。
#
# 第一幅图是桶号随距离的变化。**看一看**台阶：0 附近的窄，远处的宽。虚线是解码器：它从不看查询之后的键，所以 32 个桶全用于过去。第二幅图给每个桶
# 一个随机的偏置，加到全都相等的得分上：不管是什么词，权重都呈条纹状。

# %%
decoder = tt.relative_position_bucket(distances, bidirectional=False)
assert decoder[distances > 0].max() == 0
buckets = {label("encoder", "编码器"): both_sides, label("decoder", "解码器"): decoder}
across = label("key position − query position", "键的位置 − 查询的位置")
line_chart(distances, buckets, title=label("bucket", "桶号"), across=across)

# %%
biases = rng.normal(size=32)  # one head's: a number for each bucket
offsets = np.arange(40) - np.arange(40)[:, None]  # key minus query
stripes = tt.softmax(biases[tt.relative_position_bucket(offsets)])
heat_map(
    stripes,
    title=label("attention weight", "注意力权重"),
    down=label("query", "查询"),
    across=label("key", "键"),
)

# %% [markdown] lang="en"
# The whole table of such numbers has 32 rows and a column for each head: a few hundred parameters. Lesson 10 uses it,
# with the equation for attention with a bias.

# %% [markdown] lang="zh"
# 这些数的整张表有 32 行，每个头一列：一共几百个参数。第 10 课会用到它，那里还有带偏置的注意力公式。

# %% exercise="relative_position_bucket"
check(relative_position_bucket)

# %% [markdown] lang="en"
# ## Your sentence, with and without positions
#
# In a sentence with a repeated word, attention without positions cannot tell the two apart: their rows are **equal**.
# Rotated by their positions, they differ. Write a sentence with a word in it twice, and **look at** its two rows,
# at the left (head 0) without positions and at the right (head 1) rotated.

# %% [markdown] lang="zh"
# ## 你的句子，有位置与没有位置
#
# 句中有重复的词时，没有位置的注意力分不清它们：两行**完全相同**。按位置旋转之后就不同了。写一个有重复词的句子，**看一看**它的那两行：左边
# （head 0）没有位置，右边（head 1）旋转过。

# %%
sentence = label("the dog saw the cat", "狗 看见 猫 ， 猫 跑 了").split()
vocabulary = sorted(set(sentence))
assert len(vocabulary) < len(sentence), say("use a word twice", "请让一个词出现两次")
table = rng.normal(size=(len(vocabulary), 32)) / 2 + 0.5
x = tt.embedding(np.array([vocabulary.index(word) for word in sentence]), table)  # (T, d)
place = np.arange(len(sentence))
without = tt.attention_weights(x, x)
rotated = tt.attention_weights(tt.rotary_positions(x, place), tt.rotary_positions(x, place))
attention_map(np.stack([without, rotated]), sentence)

# %%
twice = next(word for word in sentence if sentence.count(word) > 1)
first, second = [i for i, word in enumerate(sentence) if word == twice][:2]
np.testing.assert_allclose(without[first], without[second])
assert np.abs(rotated[first] - rotated[second]).max() > 0.01
print(twice, without[first].round(2), without[second].round(2), sep="\n")
print(rotated[first].round(2), rotated[second].round(2), sep="\n")

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **No positions at all,** as in the document's listings. An encoder then is a bag of words. It still trains, and on many
#   a data set for classification it does not even do badly, so nobody notices.
# - **Positions begin at 0 again with a cache.** Each new token stands at place 0. The first word that is generated is
#   right, and the text soon falls apart. Test: generation with a cache must equal generation without.
# - **Padding on the left is counted.** The first real word stands at place 3, say, and the same text gives another answer
#   in another batch. Count positions from the first real word.
# - **Other pairs.** There are two orders in use: pairs of neighbours $(x_0, x_1)$, as in the paper and in Llama's own
#   files, and pairs across the halves $(x_0, x_{d/2})$, as here and in the `transformers` library. Weights of one read
#   with the other give fluent nonsense. So do sines and cosines in halves rather than in turn.
# - **Rotated values**, or rotated embeddings rather than queries and keys.
# - **The sign of the distance.** Key minus query, or query minus key: the wrong one exchanges left and right, and in a T5
#   decoder the whole past falls into bucket 0.
# - **Ids beyond the table**: a tokenizer with another vocabulary. On a GPU such an id may read some other row without any
#   error. This library checks.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **根本没有位置**，文档的代码就是这样。编码器于是成了词袋。它照样能训练，在不少分类数据集上甚至表现不差，所以没有人发现。
# - **用了缓存，位置又从 0 开始。** 每个新词元都站在位置 0。生成的第一个词是对的，接着文本很快就散了架。检验：用缓存生成必须与不用缓存
#   相同。
# - **左边的填充也被计数。** 比如第一个真实的词站在位置 3，同一段文本换个批次就给出不同的答案。位置要从第一个真实的词数起。
# - **配对方式不同。** 有两种顺序在用：相邻配对 $(x_0, x_1)$，见于论文和 Llama 自己的文件；前后两半配对 $(x_0, x_{d/2})$，见于本库和
#   `transformers` 库。用一种方式读另一种的权重，得到的是流利的胡话。正弦和余弦该交替却排成前后两半，也是同样的错。
# - **把值也旋转了**，或者旋转的是嵌入，而不是查询和键。
# - **距离的符号。** 键减查询，还是查询减键：弄反了就左右颠倒；在 T5 的解码器里，整个过去都会落进 0 号桶。
# - **编号超出了表**：用了另一份词表的分词器。在 GPU 上，这样的编号可能不声不响地读到别的行。本库会检查。

# %% [markdown] lang="en"
# ## To take along
#
# - An embedding is a lookup, which is a product with one-hot rows; backward, gradients of equal ids add up.
# - Attention without positions commutes with every reordering: it sees a set.
# - Waves are added to the embeddings; rotations turn queries and keys; buckets add a number to the scores.
# - In the products of waves and of rotated vectors, and in the buckets, what counts is the distance.
#
# This lesson takes about 60 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 嵌入就是查表，等于乘以独热的行；反向时，编号相同的梯度相加。
# - 没有位置的注意力与任何重排都可交换：它看到的是集合。
# - 波加在嵌入上；旋转转动查询和键；分桶把一个数加到得分上。
# - 波的内积、旋转后的内积、分桶，看的都是距离。
#
# 本课大约需要 60 分钟；所有单元格几秒钟就能运行完。
