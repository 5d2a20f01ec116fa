# ---
# jupyter:
#   lesson:
#     en: Attention
#     zh: 自注意力
#     section: "4.1"
#     minutes: 50
# ---

# %% [markdown] lang="en"
# A word means little alone. In "the bank of the river", what *bank* means is decided by *river*, four words
# further on. Self-attention lets each word fetch what it needs from the others, however far they are.
#
# In this lesson you look words up in a soft dictionary, see why scores are divided by $\sqrt{d_k}$, draw the
# attention of a sentence of your own, and write attention yourself.

# %% [markdown] lang="zh"
# 单独一个词说明不了多少。“他在岸边的银行门口等人”，“银行”是什么意思，要由它周围的词来决定。自注意力让每个词从
# 其他词那里取来所需的信息，不管相隔多远。
#
# 本课中你会在一本“软字典”里查词，看清为什么得分要除以 $\sqrt{d_k}$，画出你自己句子的注意力，并亲手写出注意力。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import attention_map, bar_chart

# %% [markdown] lang="en"
# ## A dictionary that answers softly
#
# A Python dictionary has keys and values: you come with a query, one key is equal to it, and you get its value.
# Attention is the same with one change. Keys need not be equal to the query, only more or less like it, and you
# get a mean of **all** values, weighted by how well their keys fit.
#
# How well two vectors fit is measured by their product. Below are three keys, and a query that points almost the
# way of the second.

# %% [markdown] lang="zh"
# ## 一本回答得“柔和”的字典
#
# Python 的字典有键和值：你带着查询来，有一个键与它相等，你得到对应的值。注意力与此相同，只改一点：键不必等于查询，
# 只要或多或少相像；你得到的是**所有**值的平均，按键的吻合程度加权。
#
# 两个向量有多吻合，用它们的内积衡量。下面有三个键，以及一个几乎指向第二个键方向的查询。

# %%
keys = np.array([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0]])  # (T_k, d_k)
values = np.array([[10.0], [20.0], [30.0]])  # (T_k, d_v)
query = np.array([0.3, 1.0])  # (d_k,)

scores = keys @ query  # (T_k,)
print(scores)

# %% [markdown] lang="en"
# The softmax of lesson 2 makes weights of the scores. **Guess first**: which value, between 10 and 30, will come
# out? Write a number in place of the dots.

# %% [markdown] lang="zh"
# 第 2 课的 softmax 把得分变成权重。**先猜一猜**：得到的值在 10 到 30 之间，会是多少？把省略号换成一个数。

# %% guess="19"
my_value = ...  # your guess

# %%
weights = tt.softmax(scores / np.sqrt(2))
reveal(my_value, (weights @ values).item(), tolerance=1.5)
assert abs((weights @ values).item() - 19.0) < 0.5
bar_chart(
    {label(f"key {i + 1}", f"键 {i + 1}"): w for i, w in enumerate(weights)},
    title=label("weight of each key", "每个键的权重"),
)

# %% [markdown] lang="en"
# The second key gets most of the weight, but not all of it. That is what makes attention trainable: move the
# query a little, and the answer moves a little. A dictionary jumps; its derivative is zero or does not exist.
#
# ## The equation
#
# With many queries at once, stacked as the rows of Q, this is the equation of section 4.1 of the document:
#
# $$
# \text{Attention}(Q, K, V) = \text{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V
# $$
#
# Q holds the queries $(T_q, d_k)$, K the keys $(T_k, d_k)$, V the values $(T_k, d_v)$. The softmax runs along each
# row: every query shares a weight of 1 among all keys. Its id here is **attention**, the code is
# [attention](tinytransformer.formulas.attention.attention), and the weights alone are
# [attention_weights](tinytransformer.formulas.attention.attention_weights).

# %% [markdown] lang="zh"
# 第二个键得到大部分权重，但不是全部。正因如此，注意力才可以训练：查询移动一点，答案也移动一点。普通字典会跳变，
# 它的导数要么是零，要么不存在。
#
# ## 公式
#
# 把许多查询叠成 Q 的各行，一次计算，就是文档 4.1 节的公式：
#
# $$
# \text{Attention}(Q, K, V) = \text{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V
# $$
#
# Q 是查询 $(T_q, d_k)$，K 是键 $(T_k, d_k)$，V 是值 $(T_k, d_v)$。softmax 沿每一行进行：每个查询把总量为 1 的权重分给
# 所有键。它在这里的编号是 **attention**，代码是 [attention](tinytransformer.formulas.attention.attention)；只要权重的话，
# 是 [attention_weights](tinytransformer.formulas.attention.attention_weights)。

# %% equation="attention attention_weights"
rng = np.random.default_rng(0)
Q = rng.normal(size=(3, 5))  # 3 queries of 5 features
K = rng.normal(size=(7, 5))  # 7 keys
V = rng.normal(size=(7, 2))  # their values

powers = np.exp(np.einsum("qd,kd->qk", Q, K) / 5**0.5)  # (3, 7)
A = powers / powers.sum(1, keepdims=True)
np.testing.assert_allclose(tt.attention_weights(Q, K), A)
np.testing.assert_allclose(tt.attention(Q, K, V), np.einsum("qk,kd->qd", A, V))
print(
    say("plain NumPy and the library agree; each row adds up to", "纯 NumPy 与库的结果一致；每行之和为"),
    A.sum(1),
)

# %% [markdown] lang="en"
# ## Why divide by $\sqrt{d_k}$?
#
# Take vectors whose entries have mean 0 and variance 1, as they do at the start of training. Their product is a
# sum of $d_k$ terms, each of variance 1.
#
# **Guess**: for $d_k = 64$, what is the standard deviation of the product?

# %% [markdown] lang="zh"
# ## 为什么要除以 $\sqrt{d_k}$？
#
# 取分量均值为 0、方差为 1 的向量，训练开始时正是如此。它们的内积是 $d_k$ 项之和，每一项方差为 1。
#
# **猜一猜**：$d_k = 64$ 时，内积的标准差是多少？

# %% guess="8"
my_deviation = ...  # your guess

# %%
a, b = rng.normal(size=(2, 20000, 64))
products = (a * b).sum(axis=-1)
reveal(my_deviation, products.std(), tolerance=0.3)
assert abs(products.std() - 8) < 0.2

# %% [markdown] lang="en"
# The standard deviation is $\sqrt{64} = 8$. Scores that far apart make the softmax hard: one key takes nearly
# everything, and the gradient of the others is almost zero. Look at the largest weight among 10 keys, with and
# without the division, as the vectors get longer.

# %% [markdown] lang="zh"
# 标准差是 $\sqrt{64} = 8$。得分相差这么大，softmax 就变得很“硬”：一个键几乎拿走全部，其余的梯度接近零。随着向量变长，
# 看看 10 个键中最大的权重，除与不除有什么不同。

# %%
largest = {}
for d_k in (4, 16, 64, 256):
    q, k = rng.normal(size=(500, 1, d_k)), rng.normal(size=(500, 10, d_k))
    s = (q * k).sum(-1)  # (500, 10)
    largest[f"d_k = {d_k}"] = tt.softmax(s).max(-1).mean()
    largest[f"d_k = {d_k}, {label('divided', '相除')}"] = tt.softmax(s / np.sqrt(d_k)).max(-1).mean()
assert largest["d_k = 256"] > 0.9
assert (
    abs(largest[f"d_k = 256, {label('divided', '相除')}"] - largest[f"d_k = 4, {label('divided', '相除')}"])
    < 0.12
)
bar_chart(largest, title=label("mean of the largest of 10 weights", "10 个权重中最大者的平均"))

# %% [markdown] lang="en"
# Divided, the weights look alike for vectors of any length: a wide model starts as soft as a narrow one.
#
# ## The attention of a sentence
#
# Write a sentence of your own below. Its words get random vectors here, equal words the same one; a trained model
# has learned them. The picture shows queries as rows and keys as columns: the darker, the more weight. **Look for
# equal words**: where do they look?

# %% [markdown] lang="zh"
# 除过之后，无论向量多长，权重看起来都差不多：宽的模型一开始和窄的一样柔和。
#
# ## 一句话的注意力
#
# 在下面写一句你自己的话（词之间用空格隔开）。这里每个词得到随机向量，相同的词向量相同；训练过的模型则学到了它们。
# 图中行是查询，列是键：颜色越深，权重越大。**找出相同的词**：它们看向哪里？

# %%
sentence = label("the cat saw the dog and the dog saw the cat", "猫 看见 狗 ， 狗 也 看见 猫").split()
vocabulary = sorted(set(sentence))
vectors = rng.normal(size=(len(vocabulary), 16))
x = vectors[[vocabulary.index(word) for word in sentence]]  # (T, 16)
W = tt.attention_weights(2 * x, x)  # (T, T)
attention_map(W, sentence)

# %% [markdown] lang="en"
# Each word looks mostly at itself and at words equal to it: with $Q = K = x$, nothing is more like a vector than
# the vector itself. That is why a model has matrices: $Q = xW^Q$ and $K = xW^K$ can learn that a verb looks for
# its subject. They are the topic of lesson 4.
#
# **Guess**: exchange two different words of the sentence. Does the output at the *other* places change? Answer
# "yes" or "no".

# %% [markdown] lang="zh"
# 每个词主要看向它自己和与它相同的词：当 $Q = K = x$ 时，没有什么比向量自身更像它。所以模型才有矩阵：$Q = xW^Q$、
# $K = xW^K$ 能学会让动词去找它的主语。这是第 4 课的内容。
#
# **猜一猜**：交换句子中两个不同的词。*其他*位置的输出会变吗？回答 "yes" 或 "no"。

# %% guess="\"no\""
my_answer = ...  # "yes" or "no"

# %%
swapped = x.copy()
swapped[[0, 1]] = x[[1, 0]]
before, after = tt.attention(x, x, x), tt.attention(swapped, swapped, swapped)
changed = not np.allclose(before[2:], after[2:])
reveal(my_answer, "yes" if changed else "no")
assert not changed

# %% [markdown] lang="en"
# Attention sees a *set* of words: it has no idea of their order. "The dog bites the man" and "the man bites the
# dog" are the same to it. Lesson 6 adds positions.
#
# ## Your turn
#
# Write the equation for any number of batch axes, with a mask: True where a query may attend. Lesson 5 says more
# about masks. The check tells you at once, and names the mistake if it knows it.

# %% [markdown] lang="zh"
# 注意力看到的是词的*集合*：它不知道顺序。“狗咬人”和“人咬狗”对它是一样的。第 6 课会加上位置。
#
# ## 轮到你了
#
# 写出这个公式，支持任意多个批次轴，并带掩码：True 表示可以注意。关于掩码，第 5 课会讲得更多。检查会立即告诉你结果，
# 如果认得你的错误，还会说出它的名字。

# %% exercise="attention"
check(attention)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The softmax runs over the wrong axis.** The loss falls faster than it should, to values too good to be true:
#   each key shares itself among the queries, so what a later query asks changes an earlier answer. The future
#   leaks. Test: change the last word, and see whether an earlier output moves.
# - **`K.T` on arrays with a batch.** `.T` turns all axes around. It works in the lecture, with two axes, and
#   fails, or worse does not fail, with four.
# - **A row in which everything is masked.** $0/0$ is NaN, and after one step every weight is NaN. Here such a row
#   gives zeros.
# - **No division by $\sqrt{d_k}$.** It trains, only worse; with wide heads it hardly trains at all.
#
# The last one is hard to see because nothing breaks. See it in numbers: how much smaller is the gradient of the
# scores, on average, when 256-dimensional scores are not divided?

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **softmax 用错了轴。** 损失降得比应有的快，好得不像真的：每个键把自己分给各个查询，于是后面的查询会改变前面的答案，
#   未来泄漏了。检验：改动最后一个词，看前面的输出是否变化。
# - **对带批次的数组用 `K.T`。** `.T` 会把所有轴倒过来。课堂上只有两个轴时没问题，有四个轴时会报错，更糟的是有时不报错。
# - **整行都被遮住。** $0/0$ 是 NaN，一步之后所有权重都成了 NaN。在这里，这样的行得到零。
# - **没有除以 $\sqrt{d_k}$。** 也能训练，只是更差；头很宽时几乎训练不动。
#
# 最后一个错误很难发现，因为什么都没有坏。用数字看一看：256 维的得分如果不除，得分的梯度平均小多少倍？

# %%
q, k = rng.normal(size=(200, 1, 256)), rng.normal(size=(200, 10, 256))
sizes = []
for scale in (1.0, 1 / 16):
    s = tt.Tensor((q * k).sum(-1) * scale, requires_grad=True)  # (200, 10)
    (tt.softmax(s) * rng.normal(size=(200, 10))).sum().backward()
    sizes.append(np.abs(s.grad.numpy()).mean())
print(
    say("mean gradient: not divided {:.4f}, divided {:.4f}", "平均梯度：不除 {:.4f}，除 {:.4f}").format(
        *sizes
    )
)
assert sizes[1] > 3 * sizes[0]

# %% [markdown] lang="en"
# ## To take along
#
# - Attention is a lookup that answers with a weighted mean; weights come from products of queries and keys.
# - The softmax runs along the keys; the division by $\sqrt{d_k}$ keeps it soft whatever the width.
# - It knows nothing of order, and each query sees every key, unless a mask says otherwise.
#
# This lesson takes about 50 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 注意力是一种查找，以加权平均作答；权重来自查询与键的内积。
# - softmax 沿键的方向进行；除以 $\sqrt{d_k}$ 使它无论多宽都保持柔和。
# - 它不知道顺序，而且每个查询看得到所有键，除非掩码另有规定。
#
# 本课大约需要 50 分钟；所有单元格几秒钟就能运行完。
