# ---
# jupyter:
#   lesson:
#     en: Masks
#     zh: 掩码
#     section: "3.2"
#     minutes: 55
# ---

# %% [markdown] lang="en"
# A language model is asked: which word comes next? In training the answer stands in the text, one place to the
# right. The attention of lesson 3 sees all places, so it would simply look it up, learn nothing, and be helpless
# when it has to write and the place to the right is empty.
#
# A **mask** says which query may look at which key. Section 3.2 of the document introduces it: certain positions
# are screened off, so that a word is not known before its time. In this lesson you watch a model cheat, stop it with
# a triangle of booleans, treat padding the same way, and write three functions in which real programs have had real
# bugs.

# %% [markdown] lang="zh"
# 语言模型要回答的问题是：下一个词是什么？训练时，答案就写在文本里，在右边一格。第 3 课的注意力看得到所有位置，它会直接
# 去抄答案，什么也学不到；等到要自己写的时候，右边一格是空的，它就束手无策了。
#
# **掩码**规定哪个查询可以看哪个键。文档 3.2 节引入了它：把某些位置屏蔽起来，不让模型提前知道后面的词。本课中你会看到
# 一个模型如何作弊，用一个布尔三角形制止它，再用同样的办法对付填充，并写出三个函数——真实的程序在这三处都出过真实的错。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.plotting import attention_map, bar_chart, mask_map

# %% [markdown] lang="en"
# ## A model that cheats
#
# To catch a cheat, set an exam that no one can pass. Our text is random: each token is drawn from 16 letters, without
# regard to those before it. Nobody can predict it. The best one can do is to give each letter 1/16, and the loss of
# that is $\ln 16 \approx 2.77$ (lesson 2).
#
# The small model below has one Transformer layer. It reads 8 tokens and predicts, **at each of the 8 places**, the
# token that follows. It trains for 300 steps, once without a mask and once with the mask of this lesson.
#
# **Guess first**: to which mean loss will the model without a mask come? Think of each of the 8 places: where does
# the token that is asked for stand? At the last place, too?

# %% [markdown] lang="zh"
# ## 一个会作弊的模型
#
# 要抓作弊，就出一道谁也答不出的题。我们的文本是随机的：每个词元从 16 个字母中抽取，与前面的毫无关系。谁也预测不了，
# 最好的办法是给每个字母 1/16 的概率，这样的损失是 $\ln 16 \approx 2.77$（第 2 课）。
#
# 下面的小模型只有一层 Transformer。它读入 8 个词元，**在 8 个位置上同时**预测各自的下一个词元。训练 300 步，一次不带
# 掩码，一次带上本课的掩码。
#
# **先猜一猜**：不带掩码的模型，平均损失会降到多少？逐个位置想一想：要猜的词元在哪里？最后一个位置也一样吗？

# %% guess="2.77 / 8"
my_loss = ...  # your guess

# %%
V, T = 16, 8


class SmallModel(nn.Module):
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.tokens = nn.Embedding(V, 32, rng=rng)
        self.positions = nn.Embedding(T, 32, rng=rng)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, norm_first=True, rng=rng)
        self.head = nn.Linear(32, V, rng=rng)

    def forward(self, ids, mask):
        x = self.tokens(ids) + self.positions(np.arange(T))  # (batch, T, 32)
        return self.head(self.layer(x, mask=mask))  # (batch, T, V)


def train(mask):
    model, rng = SmallModel(seed=0), np.random.default_rng(1)
    optimizer = tt.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(300):
        text = rng.integers(V, size=(32, T + 1))
        loss = tt.cross_entropy(model(text[:, :-1], mask), text[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, np.mean(losses[-30:])


cheat, cheat_loss = train(None)
honest, honest_loss = train(tt.Mask.causal(T))
reveal(my_loss, cheat_loss, tolerance=0.1)
assert abs(cheat_loss - np.log(16) / 8) < 0.05
assert abs(honest_loss - np.log(16)) < 0.05
bar_chart(
    {
        label("no mask", "不带掩码"): cheat_loss,
        label("with the mask", "带掩码"): honest_loss,
        label("the best that is honest: ln 16", "不作弊的极限：ln 16"): np.log(16),
    },
    title=label("loss on random text", "随机文本上的损失"),
)

# %% [markdown] lang="en"
# At seven of eight places the answer stands one place to the right, and the model has learned to fetch it from
# there. At the last place there is nothing to the right: there it loses the full $\ln 16$, and the mean is
# $\ln 16 / 8 \approx 0.35$. Remember the symptom: **a loss too good to be true**. On real text it looks like a
# breakthrough, until the model has to write.
#
# The model with the mask stays at $\ln 16$. Let us see what that mask is.
#
# ## The causal mask
#
# Each position may attend to itself and to what came before. In the picture rows are queries and columns are keys,
# as in lesson 3. **Look for** the row of the first word: what can it see? And which word is seen by all? Put in a
# sentence of your own.

# %% [markdown] lang="zh"
# 八个位置中有七个，答案就在右边一格，模型学会了去那里取。最后一个位置右边什么也没有：在那里它要付出完整的 $\ln 16$，
# 所以平均是 $\ln 16 / 8 \approx 0.35$。记住这个症状：**损失好得不像真的**。在真实文本上，它看起来像是重大突破，直到模型
# 要自己动笔。
#
# 带掩码的模型停在 $\ln 16$。我们来看看这个掩码是什么。
#
# ## 因果掩码
#
# 每个位置可以注意自己和之前的位置。与第 3 课一样，图中行是查询，列是键。**看一看**第一个词所在的行：它看得到什么？
# 哪个词被所有词看到？换成你自己的句子试试。

# %%
sentence = label("the cat saw the dog and ran", "猫 看见 了 狗 ， 转身 就 跑").split()
mask = tt.Mask.causal(len(sentence))
mask_map(mask, sentence)

# %% [markdown] lang="en"
# Here there is one convention: a mask is a `tt.Mask` of booleans, and **True means may attend**. Elsewhere there
# are others, even within one library: in PyTorch's `nn.MultiheadAttention` a True *forbids*, in its
# `scaled_dot_product_attention` a True *allows*, and numbers of 0 and $-\infty$ are added to the scores. An inverted
# mask has the right shape and raises no error. That is why `tt.Mask` takes booleans and nothing else.
#
# ## Softmax under a mask
#
# The mask acts inside the softmax. What is allowed shares a weight of 1; everything else gets **exactly** 0:
#
# $$
# \mathrm{softmax}_M(x)_i = M_i e^{x_i} / \sum_j M_j e^{x_j}
# $$
#
# with $M_i$ = 1 for True and 0 for False. Its id is **masked_softmax** (document 3.2); the code is
# [masked_softmax](tinytransformer.formulas.activations.masked_softmax).

# %% [markdown] lang="zh"
# 这里只有一种约定：掩码是布尔值组成的 `tt.Mask`，**True 表示可以注意**。别处还有别的约定，甚至同一个库里也不统一：
# PyTorch 的 `nn.MultiheadAttention` 中 True 表示*禁止*，而它的 `scaled_dot_product_attention` 中 True 表示*允许*；
# 还有一种是把 0 和 $-\infty$ 加到得分上。弄反了的掩码形状完全正确，也不会报错。所以 `tt.Mask` 只收布尔值，别的一概不收。
#
# ## 掩码之下的 softmax
#
# 掩码在 softmax 内部起作用。允许的位置分享总量为 1 的权重，其余的**恰好**得 0：
#
# $$
# \mathrm{softmax}_M(x)_i = M_i e^{x_i} / \sum_j M_j e^{x_j}
# $$
#
# 其中 True 时 $M_i$ = 1，False 时为 0。它的编号是 **masked_softmax**（文档 3.2），代码是
# [masked_softmax](tinytransformer.formulas.activations.masked_softmax)。

# %% equation="masked_softmax"
rng = np.random.default_rng(0)
x = rng.normal(size=(5, 5))  # scores: 5 queries, 5 keys
M = np.tri(5)  # ones on and below the diagonal

shares = M * np.exp(x)
shares /= np.einsum("qk->q", shares)[:, None]
np.testing.assert_allclose(tt.masked_softmax(x, tt.Mask.causal(5)), shares)
np.testing.assert_array_equal(shares[M == 0], 0)
print(shares.round(2))

# %% [markdown] lang="en"
# The equation is all of it, but there are several ways to miss it. The most common one: **multiply the scores** by
# the mask, before the softmax. Take scores of 2, 1 and −1, of which the third is forbidden.
#
# **Guess**: which weight does the forbidden key get if its score is multiplied by 0?

# %% [markdown] lang="zh"
# 公式就这么简单，但写错的方式不少。最常见的一种：在 softmax 之前把**得分乘以**掩码。设得分为 2、1、−1，其中第三个被禁止。
#
# **猜一猜**：如果把它的得分乘以 0，这个被禁止的键会得到多少权重？

# %% guess="0.09"
my_weight = ...  # between 0 and 1

# %%
scores, allowed = np.array([[2.0, 1.0, -1.0]]), np.array([[True, True, False]])
multiplied = tt.softmax(scores * allowed)
no_mask, masked = tt.softmax(scores), tt.masked_softmax(scores, tt.Mask(allowed))
reveal(my_weight, multiplied[0, 2].item(), tolerance=0.02)
assert abs(multiplied[0, 2] - 0.09) < 1e-3
assert abs(no_mask[0, 2] - 0.035) < 1e-3
assert masked[0, 2] == 0
for name, weights in (
    (say("multiplied: ", "相乘：  "), multiplied),
    (say("no mask:    ", "无掩码："), no_mask),
    (say("masked:     ", "掩码：  "), masked),
):
    print(name, weights[0].round(3))

# %% [markdown] lang="en"
# A score of 0 is not "no score": $e^0 = 1$. The forbidden key now has 0.09, *more* than the 0.035 that it would have
# had without any mask. No score but $-\infty$ gives a weight of 0, since $e^{-\infty} = 0$. So programs put
# $-\infty$ in the place of forbidden scores. (Setting weights to 0 *after* a plain softmax is no way out: what is left
# of the row no longer adds up to 1.)
#
# ## Masked attention, and why training sees all positions at once
#
# The attention of a decoder is the equation of lesson 3 with this softmax and the triangle. Its id is
# **masked_attention** (document 3.2), the code is
# [masked_attention](tinytransformer.formulas.attention.masked_attention):
#
# $$
# \mathrm{softmax}_M\left(\frac{QK^T}{\sqrt{d_k}}\right)V,\; M_{ij} = [j \le i]
# $$
#
# The bracket is 1 where it is true. Now the point of it all. How would you train *without* a mask, and without
# cheating? Give the model the first word alone, and ask for the second; give it the first two, and ask for the third;
# and so on: one run for each prefix. The cell does just that, in a loop. Compare with the library, which computes all
# rows in one go.

# %% [markdown] lang="zh"
# 得分为 0 并不是“没有得分”：$e^0 = 1$。被禁止的键现在得到 0.09，比完全不用掩码时的 0.035 *还多*。只有得分为 $-\infty$ 时
# 权重才是 0，因为 $e^{-\infty} = 0$。所以程序用 $-\infty$ 代替被禁止的得分。（先做普通的 softmax，*再*把权重置零也不行：
# 这一行剩下的部分加起来不再是 1。）
#
# ## 掩码注意力，以及训练为什么能同时看到所有位置
#
# 解码器的注意力就是第 3 课的公式，配上这种 softmax 和那个三角形。编号是 **masked_attention**（文档 3.2），代码是
# [masked_attention](tinytransformer.formulas.attention.masked_attention)：
#
# $$
# \mathrm{softmax}_M\left(\frac{QK^T}{\sqrt{d_k}}\right)V,\; M_{ij} = [j \le i]
# $$
#
# 方括号中的条件成立时为 1。下面是关键所在。如果*不用*掩码，又不许作弊，该怎么训练？只给模型第一个词，让它猜第二个；
# 给它前两个词，让它猜第三个；依此类推，每个前缀都要跑一遍。下面的单元格正是用循环这样做的。再与库比较：库一次就算出所有行。

# %% equation="masked_attention"
T_words, d_k = 7, 5
Q, K, V_ = rng.normal(size=(3, T_words, d_k))

one_by_one = []
for t in range(T_words):  # query t with the keys and values of its prefix, and no mask at all
    w = np.exp(K[: t + 1] @ Q[t] / d_k**0.5)
    one_by_one.append(w @ V_[: t + 1] / w.sum())
np.testing.assert_allclose(tt.masked_attention(Q, K, V_), np.stack(one_by_one))
print(say("one pass with the mask = seven runs without", "带掩码算一次 = 不带掩码跑七次"))

# %% [markdown] lang="en"
# **That is what the mask is for.** A text of $T$ tokens holds $T$ prediction tasks. With the mask, one pass does
# them all, and each row is what it would have been had the text ended there. Nothing is lost: what position 3
# computes does not depend on position 4, in any layer, so it need not be computed again when the text grows.
#
# **Guess** what that saves: a text has 64 tokens. Prefix by prefix the model processes $1 + 2 + \dots + 64$ tokens;
# with the mask, 64. How many times as much work is the first?

# %% [markdown] lang="zh"
# **掩码的用处就在这里。**长度为 $T$ 的文本里有 $T$ 道预测题。有了掩码，一次计算就全部做完，每一行的结果都和“文本到此为止”
# 时一样。什么也没有损失：位置 3 算出的东西在任何一层都不依赖位置 4，文本变长时不必重算。
#
# **猜一猜**这能省多少：文本有 64 个词元。逐个前缀计算，模型要处理 $1 + 2 + \dots + 64$ 个词元；用掩码只处理 64 个。前者的
# 工作量是后者的多少倍？

# %% guess="32.5"
my_ratio = ...  # how many times

# %%
reveal(my_ratio, sum(range(1, 65)) / 64, tolerance=1)
assert sum(range(1, 65)) / 64 == 32.5

# %% [markdown] lang="en"
# One more thing about the words of section 3.2. The mask does not keep a model from *predicting* early: at every
# position it predicts the next token, in training and in use. It keeps it from *seeing* what it predicts.
#
# ## Does it leak? A test that looks at the outputs
#
# A mask that looks right may still be used wrongly. So do not inspect the mask: **change a token, and see which
# outputs move**. Change the last one, and no earlier output may move. The function below changes each token in turn.
#
# Three candidates: attention with the mask; attention with the softmax over the wrong axis (queries rather than
# keys), *with the same mask*; and a mask that is off by one. The picture shows the weights of the second candidate.
# **Look** above its diagonal: can you see anything wrong there?

# %% [markdown] lang="zh"
# 关于 3.2 节的说法，还要补充一点。掩码并不阻止模型*预测*得早：无论训练还是使用，它在每个位置都预测下一个词元。掩码阻止的是
# 它*看见*自己要预测的东西。
#
# ## 泄漏了吗？看输出的检验
#
# 看起来正确的掩码也可能用错。所以不要只盯着掩码看：**改动一个词元，看哪些输出变了**。改动最后一个，前面的输出一个都不许变。
# 下面的函数依次改动每个词元。
#
# 三个候选：带掩码的注意力；*带同样掩码*、但 softmax 用错了轴（沿查询而不是沿键）的注意力；掩码差了一格的注意力。
# 图中是第二个候选的权重。**看一看**对角线上方：你看得出有什么不对吗？


# %%
def moved(function, x):
    """Which outputs (rows) move when a token (columns) changes."""
    before = function(x)
    rows = []
    for j in range(len(x)):
        other = x.copy()
        other[j] += 1.0
        rows.append(np.abs(function(other) - before).max(axis=-1) > 1e-9)
    return np.stack(rows, axis=1)  # (T outputs, T tokens)


def wrong_axis_weights(x):
    s = np.where(np.tri(len(x), dtype=bool), x @ x.T / x.shape[1] ** 0.5, -np.inf)
    return tt.softmax(s, axis=0)


def wrong_axis(x):
    return wrong_axis_weights(x) @ x


def off_by_one(x):
    return tt.attention(x, x, x, tt.Mask(np.tri(len(x), k=1, dtype=bool)))


words = rng.normal(size=(6, 4)) / 2
right = moved(lambda x: tt.masked_attention(x, x, x), words)
assert not right[~np.tri(6, dtype=bool)].any()
assert right[np.tri(6, dtype=bool)].all()
assert moved(wrong_axis, words)[:5, 5].any()
assert moved(off_by_one, words)[4, 5]
print(say("output moved (1) when the last word changed:", "改动最后一个词后，哪些输出变了（1）："))
for name, function in (
    (say("right mask", "掩码正确"), lambda x: tt.masked_attention(x, x, x)),
    (say("wrong axis", "用错了轴"), wrong_axis),
    (say("off by one", "差了一格"), off_by_one),
):
    print(name, moved(function, words)[:, -1].astype(int))
attention_map(wrong_axis_weights(words))

# %% [markdown] lang="en"
# Above the diagonal all is 0, just as it should be: whoever looks at the mask or at the weights finds nothing. And yet
# every output moved when the last word changed. Each **column** adds up to 1 there, so key 0 shares itself among all
# queries, and what a later query asks changes what the first one gets.
#
# The same test catches our cheat from the beginning, through all its layers:

# %% [markdown] lang="zh"
# 对角线上方全是 0，与应有的一样：无论看掩码还是看权重，都挑不出毛病。然而改动最后一个词，所有输出都变了。在那里是每一**列**
# 之和为 1，所以键 0 把自己分给所有的查询，后面的查询问了什么，会改变第一个查询得到的东西。
#
# 同样的检验也能抓住开头那个作弊的模型，而且是穿过它所有的层：

# %%
ids = np.arange(T)[None]
changed = ids.copy()
changed[0, -1] = 15
for name, model, m in (
    (say("cheat: ", "作弊的："), cheat, None),
    (say("honest:", "诚实的："), honest, tt.Mask.causal(T)),
):
    difference = np.abs((model(ids, m) - model(changed, m)).numpy())[0].max(axis=-1)  # (T,)
    print(name, (difference > 1e-4).astype(int))
    assert (difference[:-1] > 1e-4).any() == (model is cheat)

# %% [markdown] lang="en"
# ## Padding
#
# A batch is a rectangle, texts are not. Short ones are filled up with a **padding token**, which means nothing and
# must count for nothing.
#
# **Guess**: a text of 3 words is padded to 8. All scores are equal. Without a mask, which share of the attention
# goes to padding?

# %% [markdown] lang="zh"
# ## 填充
#
# 一个批次是矩形，文本却长短不一。短的要用**填充词元**补齐，它没有任何含义，也不应有任何影响。
#
# **猜一猜**：3 个词的文本补到 8 个位置，所有得分都相等。不用掩码的话，注意力有多大比例给了填充？

# %% guess="5 / 8"
my_share = ...  # between 0 and 1

# %%
reveal(my_share, tt.softmax(np.zeros(8))[3:].sum().item(), tolerance=0.01)
padded = tt.Mask.padding([3], length=8)
assert abs(tt.softmax(np.zeros(8))[3:].sum() - 0.625) < 1e-12
assert tt.masked_softmax(np.zeros((1, 1, 8)), padded)[..., 3:].sum() == 0
print(say("shape of the mask:", "掩码的形状："), padded.shape)

# %% [markdown] lang="en"
# More than half, and with longer padding still more. The same text would mean different things in different batches.
#
# The mask over padding depends on the **key** alone: for every query of a text, the same keys are hidden. Its shape is
# (batch, 1, T): an axis of length 1 for the queries, which all share it. Inside multi-head attention it gets one more
# for the heads, (batch, 1, 1, T). The axes matter: with (batch, T), NumPy would line up the batch with the *queries*;
# that raises an error, except when there are as many texts as tokens: then it mixes up the texts in silence.
#
# The proof that padding counts for nothing: a text **alone** and the same text **in a batch** have the same output.

# %% [markdown] lang="zh"
# 超过一半，补得越长就越多。同一段文本放在不同的批次里，意思竟会不同。
#
# 填充的掩码只取决于**键**：对一段文本的每个查询，被遮住的键都一样。它的形状是 (batch, 1, T)：查询那个轴长度为 1，所有查询共用。
# 在多头注意力里还要为头加一个轴，成为 (batch, 1, 1, T)。轴不能含糊：如果写成 (batch, T)，NumPy 会让批次与*查询*对齐；这会报错，
# 除非文本数恰好等于词元数，那时它会不声不响地把各段文本混在一起。
#
# 怎样证明填充没有影响？一段文本**单独**计算，与它**放在批次里**计算，输出应当相同。

# %%
layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, rng=0, dtype="float64")
batch = rng.normal(size=(2, 7, 12))  # two texts; the second has 4 tokens, the rest is padding
alone = layer(batch[1:, :4]).numpy()[0]
with_mask = layer(batch, mask=tt.Mask.padding([7, 4])).numpy()[1, :4]
without = layer(batch).numpy()[1, :4]
np.testing.assert_allclose(with_mask, alone)
print(
    say(
        "largest difference: with mask {:.0e}, without {:.2f}", "最大差别：带掩码 {:.0e}，不带 {:.2f}"
    ).format(np.abs(with_mask - alone).max(), np.abs(without - alone).max())
)
assert np.abs(without - alone).max() > 0.01

# %% [markdown] lang="en"
# Only keys are masked. Padding still stands among the *queries*, and its rows compute something; nobody looks at it,
# because the loss leaves these positions out (the −100 of lesson 2).
#
# ## Both at once
#
# A batch of texts for a decoder needs both: a key must be in the past **and** no padding. `&` combines masks. The
# picture shows the second of two texts. **Look at** the columns of the padding and at the rows of the real words:
# did the second mask take anything away from *them*?

# %% [markdown] lang="zh"
# 遮住的只是键。填充仍然在*查询*之中，它的那些行也会算出点什么；没有人去看，因为损失会跳过这些位置（第 2 课的 −100）。
#
# ## 两种掩码一起用
#
# 给解码器的一批文本两种都要：键必须在过去，**并且**不是填充。用 `&` 把掩码合起来。图中是两段文本中的第二段。**看一看**填充所在的
# 列，再看真实词语所在的行：第二个掩码从*这些行*里去掉了什么吗？

# %%
both = tt.Mask.causal(7) & tt.Mask.padding([7, 4])
assert both.shape == (2, 7, 7)
tokens = [*label("the cat slept here", "猫 在 这里 睡觉").split(), *["[PAD]"] * 3]
mask_map(np.asarray(both)[1], tokens)

# %% [markdown] lang="en"
# It took nothing: padding at the end comes *after* every real word, and the triangle hides it already. A GPT that is
# trained with padding on the right needs no padding mask, only a loss that leaves padding out. An encoder such as BERT,
# which looks both ways, does need it.
#
# In *generation* it is another matter. All texts of a batch must end at the same place, where the next token is
# written, so the padding goes to the **left**. Now look at the first rows.

# %% [markdown] lang="zh"
# 什么也没去掉：末尾的填充排在所有真实词语*之后*，三角形已经把它遮住了。训练 GPT 时如果填充在右边，就不需要填充掩码，只要损失跳过填充
# 即可。BERT 这样双向看的编码器则确实需要。
#
# *生成*时情况不同。一批文本必须在同一个位置结束，下一个词元就写在那里，所以填充要放在**左边**。现在看最上面几行。

# %%
real = np.array([[False, False, False, True, True, True, True]])  # (batch, T)
left = tt.Mask.causal(7) & tt.Mask(real[:, None, :])
mask_map(np.asarray(left)[0], [*["[PAD]"] * 3, *tokens[:4]])

# %% [markdown] lang="en"
# ## The row that may see nothing
#
# The first three queries have **no key at all**. What is the softmax of nothing? The equation says $0/0$.
#
# There are three answers in use. $-\infty$ everywhere gives NaN. A "large" negative number such as $-10^9$ is the
# second. **Guess**: a row has 5 keys, all forbidden, and each score is replaced by $-10^9$. Which weight does each
# forbidden key get?

# %% [markdown] lang="zh"
# ## 什么也看不到的一行
#
# 前三个查询**一个键也没有**。空无一物的 softmax 是什么？按公式是 $0/0$。
#
# 实践中有三种答案。全填 $-\infty$，得到 NaN。第二种是填一个“很大的”负数，比如 $-10^9$。**猜一猜**：一行有 5 个键，全被禁止，
# 得分都换成 $-10^9$。每个被禁止的键得到多少权重？

# %% guess="0.2"
my_weight = ...  # your guess

# %%
nothing = np.zeros((1, 5), dtype=bool)
scores = rng.normal(size=(1, 5))
with np.errstate(invalid="ignore"):
    infinite = tt.softmax(np.where(nothing, scores, -np.inf))
large = tt.softmax(np.where(nothing, scores, -1e9))
zeros = tt.masked_softmax(scores, tt.Mask(nothing))
reveal(my_weight, large[0, 0].item(), tolerance=0.01)
print("-inf: ", infinite[0])
print("-1e9: ", large[0])
print("tt:   ", zeros[0])
assert np.isnan(infinite).all()
np.testing.assert_allclose(large, 0.2)
np.testing.assert_array_equal(zeros, 0)

# %% [markdown] lang="en"
# The softmax sees only differences, and the five numbers do not differ: all forbidden keys get the same share, and
# the query takes the mean of what it must not see. The third answer, the one of this library: weights of 0, so the
# output is a vector of zeros.
#
# "But nobody looks at those rows." True for the forward pass. Yet NaN is contagious: $0 \cdot \text{NaN} = \text{NaN}$,
# so even a loss that multiplies the row by 0 sends NaN back. Watch it reach **all** of the matrix
# that makes the values:

# %% [markdown] lang="zh"
# softmax 只看差值，而这五个数没有差别：所有被禁止的键分得一样多，查询拿到的是它不该看的东西的平均。第三种是本库的答案：权重为 0，
# 输出是零向量。
#
# “可是没有人看这些行呀。”前向计算时确实如此。但 NaN 会传染：$0 \cdot \text{NaN} = \text{NaN}$，哪怕损失把这一行乘以 0，反向传回来的
# 仍是 NaN。看它如何染遍生成值的**整个**矩阵：

# %%
words = rng.normal(size=(1, 7, 6))
row_counts = np.array([0, 0, 0, 1, 1, 1, 1.0])[:, None]  # the loss ignores padding
for name, softmax_of in (
    ("-inf", lambda s: tt.softmax(tt.where(np.asarray(left), s, -np.inf))),
    ("tt  ", lambda s: tt.masked_softmax(s, left)),
):
    W = tt.Tensor(rng.normal(size=(6, 6)), requires_grad=True)
    with np.errstate(invalid="ignore"):
        outputs = softmax_of(words @ words.swapaxes(1, 2)) @ (words @ W)  # W makes the values
        ((outputs * row_counts) ** 2).sum().backward()
    bad = np.isnan(W.grad.numpy()).sum().item()
    print(name, say(f"NaN in the gradient: {bad} of 36", f"梯度中的 NaN：36 个里有 {bad} 个"))
    assert bad == (36 if name == "-inf" else 0)

# %% [markdown] lang="en"
# One optimizer step later, every weight of the model is NaN. Write a softmax that does not do this.

# %% [markdown] lang="zh"
# 优化器再走一步，模型的所有权重就都是 NaN 了。请写一个不会这样的 softmax。

# %% exercise="masked_softmax"
check(masked_softmax)

# %% [markdown] lang="en"
# And the mask over padding, from the token ids:

# %% [markdown] lang="zh"
# 再写填充的掩码，由词元编号得到：

# %% exercise="padding_mask"
check(padding_mask)

# %% [markdown] lang="en"
# ## With a cache the mask is a rectangle
#
# When a model writes, tokens come one at a time. Keys and values of earlier positions never change (that is what the
# mask guarantees), so they are kept in a **cache**, and only the new token is processed: 1 query, many keys. Lesson 8
# builds it; here we need the mask.
#
# The new queries are the **last** positions of the text. So the mask is the *bottom* of the full triangle, not its
# top: a rectangle whose triangle ends at the bottom **right**. In the picture 3 new tokens meet 8 keys. **Look at**
# the last row: the last query must see everything.

# %% [markdown] lang="zh"
# ## 有缓存时掩码是矩形
#
# 模型写作时，词元一个一个地来。之前各位置的键和值不再改变（这正是掩码所保证的），所以把它们存进**缓存**，只处理新词元：一个查询，
# 许多键。第 8 课会实现它；这里我们需要的是掩码。
#
# 新的查询是文本**最后**的几个位置。所以掩码是完整三角形的*底部*，不是顶部：它是一个矩形，三角形的尖落在**右下角**。图中 3 个新词元
# 面对 8 个键。**看一看**最后一行：最后一个查询必须看到全部。

# %%
rectangle = tt.Mask.causal(3, 8)
np.testing.assert_array_equal(rectangle, np.asarray(tt.Mask.causal(8))[-3:])
mask_map(rectangle, ["6", "7", "8"], [str(i) for i in range(1, 9)])

# %% [markdown] lang="en"
# The classic mistake is `np.tril(np.ones((T_q, T_k)))`, whose triangle starts at the top left. **Guess**: with 1 new
# token and 8 keys, how many keys does that new token see?

# %% [markdown] lang="zh"
# 典型的错误是 `np.tril(np.ones((T_q, T_k)))`，它的三角形从左上角开始。**猜一猜**：1 个新词元、8 个键，这样写的话新词元看得到几个键？

# %% guess="1"
my_count = ...  # how many keys?

# %%
top_left = np.tril(np.ones((1, 8)))
reveal(my_count, int(top_left.sum()))
assert top_left.sum() == 1
assert np.asarray(tt.Mask.causal(1, 8)).sum() == 8

# %% [markdown] lang="en"
# One: the very first token of the text. Nothing crashes. The model writes on, and what it writes has nothing to do
# with what went before. The test: **with** a cache, piece by piece, the outputs must be those of the whole text at
# once. Here in three pieces of 5, 2 and 1 tokens:

# %% [markdown] lang="zh"
# 一个：全文的第一个词元。程序不会崩溃，模型照写不误，只是写出来的东西与前文毫无关系。检验办法：**用**缓存一段一段地算，输出必须与
# 整段文本一次算出的相同。下面分成 5、2、1 个词元三段：

# %%
heads = nn.MultiHeadAttention(12, 3, rng=0, dtype="float64")
text = rng.normal(size=(1, 8, 12))
whole = heads(text, mask=tt.Mask.causal(8)).numpy()
cache, pieces = nn.KeyValueCache(), []
with tt.no_grad():
    for start, stop in ((0, 5), (5, 7), (7, 8)):
        mask = tt.Mask.causal(stop - start, stop)  # the new queries, all keys so far
        pieces.append(heads(text[:, start:stop], mask=mask, cache=cache).numpy())
        print(say("queries, keys:", "查询数、键数："), mask.shape)
np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole)

# %% [markdown] lang="en"
# Your function must do both the square and the rectangle.

# %% [markdown] lang="zh"
# 你的函数要能同时应付方形和矩形。

# %% exercise="causal_mask"
check(causal_mask)

# %% [markdown] lang="en"
# ## The attention of a sentence, masked
#
# Last, see the mask at work on your sentence. It has a row for each word, which adds up to 1. **Look at** the first
# word: it has only itself, so its weight must be 1 whatever the vectors are.

# %% [markdown] lang="zh"
# ## 一句话的掩码注意力
#
# 最后，在你的句子上看看掩码的效果。每个词占一行，每行之和为 1。**看一看**第一个词：它只有自己，所以无论向量如何，权重必然是 1。

# %%
vocabulary = sorted(set(sentence))
vectors = rng.normal(size=(len(vocabulary), 16))
x = vectors[[vocabulary.index(word) for word in sentence]]  # (T, 16)
W = tt.attention_weights(x, x, tt.Mask.causal(len(sentence)))
np.testing.assert_allclose(W.sum(axis=-1), 1)
assert W[0, 0] == 1
attention_map(W, sentence)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The mask is inverted.** True means the opposite in another library. Symptom of an inverted causal mask: a loss near
#   0, since each position sees the future, and the last one nothing.
# - **Off by one** (`k=1` in `tril`). One token of the future is seen, and it is just the one that is asked for. Symptom:
#   the loss falls below anything that you have read of, and the generated text is rubbish.
# - **The mask is dropped in silence.** Code that applies a mask only if it has two axes ignores the batched one. The
#   document's own listings (5.1 and 5.2) hand `attention_mask` on as the second argument, where PyTorch's layer expects
#   the mask of (T, T) and not the one over padding; and the GPT of 5.2 makes no causal mask of its own, so with a mask
#   over padding it is the cheat of this lesson. Lesson 12 runs them.
# - **Padding is recognised by id 0.** Other tokenizers pad with other ids, and 0 may be a real word. GPT-2 has no
#   padding token; whoever pads with the end-of-text token must not mask a real end.
# - **−1e9 in half precision.** float16 ends at 65504, so −1e9 becomes −inf, and the NaN is back.
# - **The mask is right, the positions are not.** With padding on the left, position 0 belongs to the first real word.
#   That is a matter for lesson 6.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **掩码弄反了。** 换一个库，True 的含义就相反。因果掩码弄反的症状：损失接近 0，因为每个位置看到的都是未来，最后一个则什么也
#   看不到。
# - **差了一格**（`tril` 里写了 `k=1`）。多看到一个未来的词元，恰恰就是要猜的那个。症状：损失低得闻所未闻，生成的文本却一塌糊涂。
# - **掩码不声不响地丢了。** 有的代码只在掩码有两个轴时才使用它，带批次的就被忽略。文档自己的代码（5.1 和 5.2）把 `attention_mask`
#   作为第二个参数传下去，而 PyTorch 的层在那里要的是 (T, T) 的掩码，不是填充掩码；5.2 的 GPT 又不自己构造因果掩码，只给它填充掩码的话，
#   它就是本课中作弊的那个模型。第 12 课会运行它们。
# - **把编号 0 当作填充。** 别的分词器用别的编号填充，0 也可能是真正的词。GPT-2 没有填充词元；谁用“文本结束”词元来填充，就不能把
#   真正的结尾也遮住。
# - **半精度下的 −1e9。** float16 最大只到 65504，−1e9 会变成 −inf，NaN 又回来了。
# - **掩码对了，位置错了。** 填充在左边时，位置 0 属于第一个真实的词。这是第 6 课的事。

# %% [markdown] lang="en"
# ## To take along
#
# - A mask says which query may attend to which key; forbidden keys get a weight of exactly 0, inside the softmax.
# - The causal mask makes one pass worth $T$ predictions: each row is as if the text ended there.
# - Padding hides keys, for all queries of a text; alone and in a batch must give the same.
# - A row that may see nothing is zeros, never NaN.
# - With a cache the mask is the last rows of the triangle.
# - Test by changing tokens, not by looking at the mask.
#
# This lesson takes about 55 minutes; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 掩码规定哪个查询可以注意哪个键；被禁止的键在 softmax 内部就得到恰好为 0 的权重。
# - 因果掩码让一次计算抵得上 $T$ 次预测：每一行都像文本到此为止。
# - 填充遮住的是键，对一段文本的所有查询都一样；单独计算与放在批次里计算，结果必须相同。
# - 什么也看不到的一行得到零，绝不是 NaN。
# - 有缓存时，掩码是三角形的最后几行。
# - 检验要靠改动词元，而不是盯着掩码看。
#
# 本课大约需要 55 分钟；所有单元格几秒钟就能运行完。
