# ---
# jupyter:
#   lesson:
#     en: Multi-head attention
#     zh: 多头自注意力
#     section: "4.2"
#     minutes: 45
# ---

# %% [markdown] lang="en"
# "Anna gave Ben a book." To understand *gave*, you ask two questions at once: **who** gave, and **to whom**? One
# attention, as in lesson 3, gives each word one answer: a single mean of values. Section 4.2 of the document lets
# several attentions run side by side, each in a subspace of its own. They are the **heads**.
#
# In this lesson you see what one head cannot do and two can, follow the shapes through every step, count the
# parameters, look at heads that a small model has learned by itself, and watch a wrong `reshape` leak the future.

# %% [markdown] lang="zh"
# “小安送给小本一本书。”要理解“送给”，得同时问两个问题：**谁**送的，送给了**谁**？第 3 课的注意力给每个词一个答案：值的一个
# 加权平均。文档 4.2 节让几个注意力并排进行，各在自己的子空间里。它们就是**头**。
#
# 本课中你会看到一个头做不到、两个头做得到的事，跟着形状走过每一步，数一数参数，看看小模型自己学出来的头，
# 并亲眼看着一个写错的 `reshape` 把未来泄漏出去。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import attention_map, loss_curve

# %% [markdown] lang="en"
# ## One head, one mean
#
# Give *Anna*, *gave*, *Ben* vectors with a 1 in a place of their own. Let *gave* look at its two neighbours, half
# and half: that is the softmax of two equal scores.
#
# **Guess first**: with one head, does *gave* get the same vector in "Anna gave Ben" and in "Ben gave Anna"?
# Answer "yes" or "no".

# %% [markdown] lang="zh"
# ## 一个头，一个平均
#
# 给“小安”“送给”“小本”（代码里是 anna、gave、ben）各一个向量，1 在各自的位置上。让“送给”看它的两个邻居，各占一半：
# 这正是两个相等得分的 softmax。
#
# **先猜一猜**：只有一个头时，“送给”在“小安送给小本”和“小本送给小安”里得到的向量相同吗？回答 "yes" 或 "no"。

# %% guess="\"yes\""
my_answer = ...  # "yes" or "no"

# %%
anna, gave, ben = np.eye(3)
there, back = np.array([anna, gave, ben]), np.array([ben, gave, anna])  # (T, d)

both = np.array([0.5, 0.0, 0.5])  # the weights of "gave"
same = np.allclose(both @ there, both @ back)
reveal(my_answer, "yes" if same else "no")
print(say("one head: ", "一个头："), both @ there, both @ back)

before, behind = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
two_heads = [np.concatenate([before @ x, behind @ x]) for x in (there, back)]
print(say("two heads:", "两个头："), *two_heads)
assert same
assert not np.allclose(*two_heads)

# %% [markdown] lang="en"
# The mean of Anna and Ben is the mean of Ben and Anna: who gave and who got is gone. Two heads keep the two
# answers apart, because their outputs are put **beside** one another and not added. That is all there is to it.
#
# ## The projections
#
# How does a head come to look at its own thing? Each head sees the words through matrices of its own. They are
# plain linear maps, the most frequent operation of a Transformer:
#
# $$xW + b$$
#
# Here x holds one vector for each position, $(\dots, d_{in})$, W is $(d_{in}, d_{out})$, and each position is
# mapped alone. Its id is **linear**, the code [linear](tinytransformer.formulas.layers.linear).

# %% [markdown] lang="zh"
# 小安与小本的平均就是小本与小安的平均：谁送谁收，已经看不出来了。两个头能把两个答案分开，因为它们的输出是**并排**放的，
# 没有相加。道理就这么简单。
#
# ## 投影
#
# 一个头怎样看到属于自己的东西？每个头都透过自己的矩阵看词。这些矩阵就是普通的线性映射，Transformer 中最常见的运算：
#
# $$xW + b$$
#
# 其中 x 是每个位置一个向量，$(\dots, d_{in})$，W 是 $(d_{in}, d_{out})$，各位置单独映射。它的编号是 **linear**，
# 代码是 [linear](tinytransformer.formulas.layers.linear)。

# %% equation="linear"
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 5, 12))  # 2 texts of 5 words with 12 features
W, b = rng.normal(size=(12, 7)), rng.normal(size=7)
np.testing.assert_allclose(tt.linear(x, W, b), np.einsum("bti,io->bto", x, W) + b)
print(x.shape, "→", tt.linear(x, W, b).shape)

# %% [markdown] lang="en"
# ## The equation
#
# Section 4.2 of the document prints
#
# $$
# \text{MultiHead}(Q, K, V) = \text{Concat}(\text{head}_1, \dots, \text{head}_h)W^O
# $$
#
# and leaves out what a head is. The original paper adds it:
#
# $$
# \text{head}_i = \text{Attention}(QW_i^Q, KW_i^K, VW_i^V)
# $$
#
# In *self*-attention Q, K and V are all the same x. Each $W_i$ has $d_k = d_{model} / h$ columns, so the
# concatenation is as wide as x again. In practice the h matrices stand side by side in **one** matrix $W^Q$ of
# $(d_{model}, d_{model})$: head i owns columns $i\,d_k$ to $(i+1)\,d_k$. The id is **multi_head_attention**, the
# code [multi_head_attention](tinytransformer.formulas.attention.multi_head_attention). Below it is written out
# head by head. With the same x three times it is [self_attention](tinytransformer.formulas.attention.self_attention).

# %% [markdown] lang="zh"
# ## 公式
#
# 文档 4.2 节印的是
#
# $$
# \text{MultiHead}(Q, K, V) = \text{Concat}(\text{head}_1, \dots, \text{head}_h)W^O
# $$
#
# 没有说一个头是什么。原论文补上了：
#
# $$
# \text{head}_i = \text{Attention}(QW_i^Q, KW_i^K, VW_i^V)
# $$
#
# 在*自*注意力中，Q、K、V 都是同一个 x。每个 $W_i$ 有 $d_k = d_{model} / h$ 列，所以拼接之后又和 x 一样宽。
# 实际上 h 个矩阵并排放在**一个** $(d_{model}, d_{model})$ 的矩阵 $W^Q$ 里：第 i 个头占第 $i\,d_k$ 到 $(i+1)\,d_k$ 列。
# 编号是 **multi_head_attention**，代码是 [multi_head_attention](tinytransformer.formulas.attention.multi_head_attention)。
# 下面一个头一个头地写出来。三个输入都是 x 时，就是 [self_attention](tinytransformer.formulas.attention.self_attention)。

# %% equation="multi_head_attention self_attention"
W_Q, W_K, W_V, W_O = rng.normal(size=(4, 12, 12)) / np.sqrt(12)
h, d_k = 3, 4
found = []
for i in range(h):
    own = slice(i * d_k, (i + 1) * d_k)  # the columns of this head
    found.append(tt.attention(x @ W_Q[:, own], x @ W_K[:, own], x @ W_V[:, own]))  # (2, 5, 4)
by_hand = np.concatenate(found, axis=-1) @ W_O  # (2, 5, 12)
np.testing.assert_allclose(tt.multi_head_attention(x, x, x, W_Q, W_K, W_V, W_O, heads=h), by_hand)
np.testing.assert_allclose(tt.self_attention(x, W_Q, W_K, W_V, W_O, heads=h), by_hand)
print(say("head by head and all at once: the same", "逐头计算与一次算完：结果相同"), by_hand.shape)

# %% [markdown] lang="en"
# ## The shapes at each step
#
# A loop over heads is slow. The trick is to make the heads an **axis**, like the batch: attention works on the
# last two axes and takes all others along. With $B$ texts, T words, width D and h heads, $d = D / h$:
#
# | step | shape |
# |---|---|
# | x | (B, T, D) |
# | $xW^Q$, $xW^K$, $xW^V$ | (B, T, D) |
# | cut the features | (B, T, h, d) |
# | heads before positions | (B, h, T, d) |
# | scores, weights | (B, h, T, T) |
# | weights times values | (B, h, T, d) |
# | heads behind positions | (B, T, h, d) |
# | join: Concat | (B, T, D) |
# | times $W^O$ | (B, T, D) |
#
# **Guess**: GPT-2 small has 12 heads, and its window is 1,024 tokens. How many numbers are the attention weights
# of one layer for one text, in millions?

# %% [markdown] lang="zh"
# ## 每一步的形状
#
# 对头做循环太慢。诀窍是让头成为一个**轴**，像批次一样：注意力作用在最后两个轴上，其他轴一概带着走。
# 设有 $B$ 段文本、T 个词、宽度 D、h 个头，$d = D / h$：
#
# | 步骤 | 形状 |
# |---|---|
# | x | (B, T, D) |
# | $xW^Q$、$xW^K$、$xW^V$ | (B, T, D) |
# | 切分特征 | (B, T, h, d) |
# | 把头移到位置之前 | (B, h, T, d) |
# | 得分、权重 | (B, h, T, T) |
# | 权重乘以值 | (B, h, T, d) |
# | 把头移到位置之后 | (B, T, h, d) |
# | 拼接：Concat | (B, T, D) |
# | 乘以 $W^O$ | (B, T, D) |
#
# **猜一猜**：GPT-2 small 有 12 个头，窗口是 1024 个词元。一段文本在一层里的注意力权重有多少个数，以百万计？

# %% guess="12.6"
my_millions = ...  # your guess

# %%
reveal(my_millions, 12 * 1024 * 1024 / 1e6, tolerance=0.5)
layer = tt.nn.MultiHeadAttention(12, 3, rng=0)
print("x", x.shape)
print(say("cut into heads", "切分成头"), tt.split_heads(x, 3).shape)
print(say("weights", "权重"), layer.attention_weights(x).shape)
print(say("joined again", "重新拼接"), tt.merge_heads(tt.split_heads(x, 3)).shape)
assert 12 * 1024 * 1024 == 12_582_912
assert np.array_equal(tt.merge_heads(tt.split_heads(x, 3)), x)

# %% [markdown] lang="en"
# Twice the window, four times the weights: this is the famous quadratic cost of attention, once for each head.
#
# ## What do heads cost?
#
# **Guess**: a layer of width 768 with biases is changed from 1 head to 12. Its number of parameters changes by
# what factor?

# %% [markdown] lang="zh"
# 窗口加倍，权重变成四倍：这就是注意力有名的平方代价，每个头各付一份。
#
# ## 头要花多少代价？
#
# **猜一猜**：宽度 768、带偏置的一层，从 1 个头改成 12 个头，参数个数变成多少倍？

# %% guess="1"
my_factor = ...  # your guess


# %%
def count(heads):
    return sum(p.size for p in tt.nn.MultiHeadAttention(768, heads, rng=0).parameters())


reveal(my_factor, count(12) / count(1))
print(f"{count(12):,} = 4 · 768² + 4 · 768 = {4 * 768**2 + 4 * 768:,}")
assert count(1) == count(12) == 4 * 768**2 + 4 * 768 == 2_362_368

# %% [markdown] lang="en"
# It does not change: four matrices of $D \times D$ and four biases, however they are cut. The products cost the
# same too. Heads are paid for in another coin: each one is **narrow**. The scores of a head are products of
# vectors with only $d_k$ entries, so its matrix of scores has rank $d_k$ at most. With 1 feature a head, all
# queries put the keys in the same order, or in just the reverse one.

# %% [markdown] lang="zh"
# 不变：四个 $D \times D$ 的矩阵和四个偏置，怎么切都一样。乘法的代价也相同。头的代价付在别处：每个头都很**窄**。
# 一个头的得分是只有 $d_k$ 个分量的向量的内积，所以它的得分矩阵的秩至多为 $d_k$。如果每个头只有 1 个特征，
# 那么所有查询给键排的次序都一样，或者正好相反。

# %%
words = rng.normal(size=(16, 12))  # 16 words, 12 features
for heads in (1, 2, 3, 6, 12):
    wide = 12 // heads
    scores = (words @ W_Q[:, :wide]) @ (words @ W_K[:, :wide]).T  # (16, 16) of head 0
    print(
        f"h = {heads:2}, d_k = {wide:2}:",
        say("rank of the scores", "得分矩阵的秩"),
        np.linalg.matrix_rank(scores),
    )
    assert np.linalg.matrix_rank(scores) == wide

# %% [markdown] lang="en"
# ## Heads that look at different things
#
# To see what heads are for, build three by hand. Each word gets a random vector, and beside it a 1 in the place
# of its position. Head 0 compares a word's position with the positions of the keys, moved by one; head 1 compares
# the words themselves; head 2 asks for position 0. (The factors stand for trained lengths, and for $1/\sqrt{d_k}$.)
#
# Write your own sentence, with a word that comes twice. **Look for** a diagonal beside the main one, for equal
# words that find each other, and for a column.

# %% [markdown] lang="zh"
# ## 看不同东西的头
#
# 要看清头有什么用，先亲手造三个。每个词有一个随机向量，旁边再用一个 1 标出它的位置。第 0 个头拿词的位置
# 与移了一格的键的位置比较；第 1 个头比较词本身；第 2 个头专找位置 0。（那些系数代替了训练得到的长度和 $1/\sqrt{d_k}$。）
#
# 写一句你自己的话（词之间用空格隔开），其中有一个词出现两次。看图时**找一找**：主对角线旁边的对角线、互相找到的相同的词、
# 以及一整列。

# %%
sentence = label(
    "Anna gave Ben a book and Ben read the book", "小安 送给 小本 一本 书 ， 小本 读 了 书"
).split()
T = len(sentence)
names = sorted(set(sentence))
meaning = rng.normal(size=(len(names), 24))[[names.index(word) for word in sentence]]  # (T, 24)
place = np.eye(T)  # (T, T): position t has its 1 at t

later, first = np.eye(T, k=1), np.zeros((T, T))  # position t becomes t + 1; all positions become 0
first[:, 0] = 1
queries_and_keys = [
    (6 * place, place @ later),  # head 0: a key calls out to the position behind it
    (meaning / 2, meaning),  # head 1: equal words fit
    (6 * place @ first, place),  # head 2: everyone asks for position 0
]
weights = np.stack([tt.softmax(Q @ K.T) for Q, K in queries_and_keys])  # (3, T, T)
assert (weights[0].argmax(-1)[1:] == np.arange(T - 1)).all()
assert (weights[2].argmax(-1) == 0).all()
attention_map(weights, sentence)

# %% [markdown] lang="en"
# One position, three views of it at the same time. (The first word has none before it: in head 0 it looks
# everywhere.) Nobody builds heads by hand, though. Will training find them?
#
# ## Heads that were learned
#
# Here is a task with two questions: random words, and for each position the model shall name the word **one**
# place before it and the word **two** places before it. The model is as small as can be: a vector for each word
# and each place, one attention layer, one linear map. Lesson 8 explains the training loop; here watch only what
# comes out.
#
# **Guess**: 7 different words. A model with **one** head of 24 features is trained. How many percent of its
# answers are right, both questions taken together? (Pure chance is 14.) With the
# answer comes a picture: the loss of **two** heads, and as a dashed line where one head ends. See how far apart they
# are.

# %% [markdown] lang="zh"
# 同一个位置，同时有三种看法。（第一个词前面没有词：在第 0 个头里，它到处都看一点。）不过没有人亲手造头。训练自己找得到它们吗？
#
# ## 学出来的头
#
# 有一项任务包含两个问题：词是随机的，对每个位置，模型要说出**前一个**位置的词和**前两个**位置的词。模型小到不能再小：
# 每个词、每个位置各一个向量，一层注意力，一个线性映射。训练循环第 8 课再讲，这里只看结果。
#
# **猜一猜**：共有 7 种词。只有**一个**头、24 个特征的模型训练之后，两个问题合起来，答对百分之几？（纯靠运气是 14。）
# 随答案会出现一张图：**两个**头的损失，虚线是一个头停下的地方。看它们相差多远。

# %% guess="60"
my_percentage = ...  # your guess, 0 to 100


# %%
def learn(heads, seed=0, steps=250):
    """Train the small model; return its losses, its share of right answers, and its attention."""
    rng = np.random.default_rng(seed)
    word, position = tt.nn.Embedding(7, 24, rng=rng), tt.nn.Embedding(9, 24, rng=rng)
    attend, answer = tt.nn.MultiHeadAttention(24, heads, rng=rng), tt.nn.Linear(24, 14, rng=rng)
    parameters = [p for part in (word, position, attend, answer) for p in part.parameters()]
    optimizer = tt.optim.AdamW(parameters, lr=0.01)
    history = []
    for step in range(steps):
        ids = rng.integers(7, size=(32, 9))  # new words at each step: nothing to learn by heart
        x = word(ids) + position(np.arange(9))  # (32, 9, 24)
        guesses = answer(attend(x)).reshape(32, 9, 2, 7)[:, 2:]  # (32, 7, 2, 7)
        right = np.stack([ids[:, 1:-1], ids[:, :-2]], axis=-1)  # (32, 7, 2)
        loss = tt.cross_entropy(guesses, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({"step": step, "loss": float(loss)})
    return history, (guesses.numpy().argmax(-1) == right).mean(), attend.attention_weights(x).numpy()[0]


one, share_one, _ = learn(heads=1)
two, share_two, learned = learn(heads=2)
reveal(my_percentage, 100 * share_one, tolerance=8)
print(
    say("two heads of 12 features: {:.0f} % right", "两个头、各 12 个特征：答对 {:.0f} %").format(
        100 * share_two
    )
)
assert share_one < 0.75
assert share_two > 0.99
loss_curve(two, baselines={label("one head", "一个头"): one[-1]["loss"], "ln 7": np.log(7)})

# %% [markdown] lang="en"
# With one head the loss soon stops falling; with two it goes to zero. Both models have the **same number of
# parameters**. The one head must put both words into one mean, from which the linear map behind it cannot tell
# which was which: it answers one question and nearly gives up the other.
#
# See what the two heads look at. **Look for** the two diagonals. (The first two positions had nothing to learn.)

# %% [markdown] lang="zh"
# 只有一个头时，损失很快就降不动了；有两个头时，它降到零。两个模型的**参数个数相同**。唯一的头只能把两个词放进一个平均，
# 后面的线性映射就分不清哪个是哪个：它答对一个问题，几乎放弃另一个。
#
# 看看两个头各看什么。**找一找**那两条对角线。（最前面的两个位置没有东西可学。）

# %%
offsets = [[learned[i].diagonal(-k).mean() for k in (1, 2)] for i in (0, 1)]
assert sorted(np.argmax(offsets, axis=1)) == [0, 1]
assert np.max(offsets, axis=1).min() > 0.7
attention_map(learned)

# %% [markdown] lang="en"
# Nobody told them to share the work: the gradient did. Which head takes which question depends on the random
# start; with another `seed` they may change places. In large trained models too, some heads look at the word
# before, some at the same word, some at the start of the sentence, and many at nothing one can name.
#
# ## What $W^O$ does
#
# The concatenation puts the heads side by side, $W^O$ mixes them. Cut $W^O$ into h bands of rows, one for each
# head, and the product becomes a **sum**: each head adds its own contribution to the output.
#
# $$\text{Concat}(\text{head}_1, \dots, \text{head}_h)W^O = \sum_{i=1}^{h} \text{head}_i W_i^O$$
#
# So a head can be removed by leaving out its term: that is how one measures what a head is good for.

# %% [markdown] lang="zh"
# 没有人告诉它们怎样分工，是梯度分的。哪个头负责哪个问题，取决于随机的起点；换一个 `seed`，它们可能对调。在训练好的大模型里也是如此：
# 有些头看前一个词，有些看相同的词，有些看句首，还有许多说不出在看什么。
#
# ## $W^O$ 做什么
#
# 拼接把各个头并排放好，$W^O$ 再把它们混合。把 $W^O$ 按行切成 h 条，每个头一条，乘积就成了**求和**：每个头把自己的一份加到输出里。
#
# $$\text{Concat}(\text{head}_1, \dots, \text{head}_h)W^O = \sum_{i=1}^{h} \text{head}_i W_i^O$$
#
# 所以，去掉一项就去掉了一个头：人们正是这样衡量一个头有什么用的。

# %%
terms = [head @ W_O[i * d_k : (i + 1) * d_k] for i, head in enumerate(found)]  # h times (2, 5, 12)
np.testing.assert_allclose(sum(terms), by_hand)
for i in range(h):
    without = sum(terms[:i] + terms[i + 1 :])
    print(say("without head", "去掉头"), i, ":", round(np.abs(by_hand - without).mean(), 3))

# %% [markdown] lang="en"
# ## What a wrong reshape does
#
# To get from (B, T, D) to (B, h, T, d), why not simply `x.reshape(B, h, T, d)`? The shape is right, no error
# comes, and the model even trains. But `reshape` moves nothing: it reads the numbers in the order in which they
# lie in memory, and cuts anew. Below, each entry is the **number of the position** it came from. In the right
# answer, row t of every head must hold nothing but t.

# %% [markdown] lang="zh"
# ## 写错的 reshape 会怎样
#
# 要从 (B, T, D) 变成 (B, h, T, d)，为什么不直接 `x.reshape(B, h, T, d)`？形状对，也不报错，模型甚至还能训练。
# 但 `reshape` 不移动任何东西：它按数字在内存里的顺序读，再重新切开。下面每个元素都写着它来自**第几个位置**。
# 正确的话，每个头的第 t 行应当全是 t。

# %%
came_from = np.repeat(np.arange(4), 6).reshape(1, 4, 6)  # B = 1, T = 4, D = 6
print(say("right, head 0:", "正确，第 0 个头："), tt.split_heads(came_from, 2)[0, 0].tolist())
print(say("wrong, head 0:", "错误，第 0 个头："), came_from.reshape(1, 2, 4, 3)[0, 0].tolist())
print(say("wrong, head 1:", "错误，第 1 个头："), came_from.reshape(1, 2, 4, 3)[0, 1].tolist())
assert (tt.split_heads(came_from, 2)[0, 0] == np.arange(4)[:, None]).all()

# %% [markdown] lang="en"
# Head 0 has only the first half of the text, and its "row 1" is a piece of position 0. A causal mask (lesson 5:
# no position sees a later one) then guards the wrong rows. The test is always the same: change the **last** word
# and see whether an earlier output moves.
#
# **Guess**: 5 words, 3 heads, a causal mask, cut by the wrong reshape and joined in the right way. At how many of
# the first 4 positions does the output move?

# %% [markdown] lang="zh"
# 第 0 个头只有文本的前一半，它的“第 1 行”其实是位置 0 的碎片。因果掩码（第 5 课：任何位置都看不到后面）这时守错了行。
# 检验的办法总是同一个：改动**最后**一个词，看前面的输出动不动。
#
# **猜一猜**：5 个词，3 个头，因果掩码，用错误的 reshape 切分，用正确的方法拼接。前 4 个位置中，有几个位置的输出会动？

# %% guess="2"
my_number = ...  # your guess, 0 to 4


# %%
def attend(x, split, merge):
    heads = [split(x @ W) for W in (W_Q, W_K, W_V)]
    return merge(tt.attention(*heads, mask=tt.Mask.causal(heads[0].shape[2]))) @ W_O


def moved(split, merge, word):
    """How much each position's output moves when one word changes."""
    changed = x.copy()
    changed[:, word] = rng.normal(size=(2, 12))
    return np.abs(attend(changed, split, merge) - attend(x, split, merge)).max(axis=(0, 2))  # (5,)


def cut_right(a):
    return tt.split_heads(a, 3)


def cut_wrong(a):
    return a.reshape(2, 3, 5, 4)


right = moved(cut_right, tt.merge_heads, word=-1)
wrong = moved(cut_wrong, tt.merge_heads, word=-1)
reveal(my_number, int((wrong[:-1] > 1e-9).sum()))
print(say("right:", "正确："), right.round(3))
print(say("wrong:", "错误："), wrong.round(3))
assert (right[:-1] < 1e-12).all()
assert (wrong[:-1] > 1e-9).tolist() == [False, False, True, True]

# %% [markdown] lang="en"
# The future has leaked: positions 2 and 3 know of the last word. In training the loss then falls suspiciously
# low, and the model is worthless when it generates, because there the future does not exist yet.
#
# What if the joining is wrong in the same way? Then the pieces go back to where they came from, and nothing
# leaks: the test above is passed. But now each head sees a third of the text only. Change the **first** word, and
# see whether the **last** output notices.

# %% [markdown] lang="zh"
# 未来泄漏了：位置 2 和 3 知道了最后一个词。训练时损失会低得可疑，生成时模型却毫无用处，因为那时未来还不存在。
#
# 如果拼接也错得一样呢？那么碎片各归原处，什么也不泄漏，上面的检验就通过了。可是这样每个头只看得到文本的三分之一。
# 改动**第一个**词，看**最后**的输出有没有察觉。


# %%
def join_wrong(a):
    return a.reshape(2, 5, 12)


wrong_twice = moved(cut_wrong, join_wrong, word=-1)
reach = [moved(cut, join, word=0)[-1] for cut, join in ((cut_right, tt.merge_heads), (cut_wrong, join_wrong))]
print(say("last word changed, wrong twice:", "改动最后一个词，两处都错："), wrong_twice.round(3))
print(
    say(
        "first word changed, last output, right and wrong twice:",
        "改动第一个词，最后的输出，正确与两处都错：",
    ),
    np.round(reach, 3),
)
assert (wrong_twice[:-1] < 1e-12).all()
assert reach[0] > 0.01
assert reach[1] < 1e-12

# %% [markdown] lang="en"
# So two tests belong together: a later word must **not** move an earlier output, and an earlier word **must** move
# a later one.
#
# ## Your turn
#
# Three functions: cut into heads, join them, and the whole equation. Mind the two mistakes that give the right
# shape: the reshape above, and heads that are interleaved.

# %% [markdown] lang="zh"
# 所以两个检验要一起做：后面的词**不许**影响前面的输出，前面的词则**必须**影响后面的输出。
#
# ## 轮到你了
#
# 三个函数：切分成头，把头拼接起来，以及整个公式。当心两种形状正确的错误：上面的 reshape，以及交错的头。

# %% exercise="split_heads"
check(split_heads)

# %% exercise="merge_heads"
check(merge_heads)

# %% exercise="multi_head_attention"
check(multi_head_attention)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The wrong reshape.** On one side: a loss too good to be true, and nonsense when it generates. On both sides:
#   a model that never gets good, for no head sees the whole text.
# - **Interleaved heads.** Head 0 takes features 0, h, 2h, … It trains as well as any: the features have no order
#   of their own. Symptom: a checkpoint of somebody else's loads without error and talks nonsense.
# - **Q, K and V in the wrong order.** GPT-2 keeps them in one matrix of $3D$ columns. Cut wrongly, everything fits.
# - **Scaled by $\sqrt{d_{model}}$.** Each head has vectors of $d_k$ entries. With 12 heads the scores get
#   $\sqrt{12}$ times too small, and the heads stay nearly uniform; see below.
# - **$W^O$ forgotten.** The heads are never mixed. A test with $W^O = I$ does not notice.
# - **A width that the heads do not divide.** 512 features and 12 heads: the library says so at once.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **写错的 reshape。** 只错一边：损失好得不像真的，生成的却是胡话。两边都错：模型怎么也练不好，因为没有一个头看得到整段文本。
# - **交错的头。** 第 0 个头取特征 0、h、2h……训练效果丝毫不差，因为特征本来就没有顺序。症状：别人的检查点加载时不报错，
#   说出来的却是胡话。
# - **Q、K、V 的顺序弄错。** GPT-2 把它们放在一个有 $3D$ 列的矩阵里。切错了，形状照样都对。
# - **除以 $\sqrt{d_{model}}$。** 每个头的向量只有 $d_k$ 个分量。有 12 个头时，得分就小了 $\sqrt{12}$ 倍，各个头几乎一直是均匀的；
#   见下面。
# - **忘了 $W^O$。** 各个头从未混合。用 $W^O = I$ 做的测试发现不了。
# - **宽度不能被头数整除。** 512 个特征、12 个头：库会立即指出。

# %%
q, k = rng.normal(size=(2, 500, 12, 8, 64))  # 500 texts, 12 heads, 8 words, d_k = 64
largest = [tt.softmax(q @ k.mT / np.sqrt(width)).max(-1).mean() for width in (64, 12 * 64)]
print(say("largest of 8 weights:", "8 个权重中最大的："), np.round(largest, 2), "1/8 =", 1 / 8)
assert largest[0] > 1.5 * largest[1]
try:
    tt.nn.MultiHeadAttention(512, 12)
except ValueError as error:
    print(error)

# %% [markdown] lang="en"
# ## To take along
#
# - One head gives each word one mean; several heads give several, side by side, each in its own subspace.
# - The heads are columns of the same matrices: no parameter more, but narrower vectors.
# - First cut the features, (B, T, h, d), **then** swap axes. Test with sizes that all differ, and change the last
#   word, and the first.
#
# This lesson takes about 45 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 一个头给每个词一个平均；几个头给出几个，并排放置，各在自己的子空间里。
# - 各个头是同一组矩阵的不同列：参数一个不多，只是向量变窄。
# - 先切分特征，得到 (B, T, h, d)，**再**交换轴。测试时各个尺寸都要不同，并改动最后一个词和第一个词看一看。
#
# 本课大约需要 45 分钟；所有单元格几秒钟就能运行完。
