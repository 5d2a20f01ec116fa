# ---
# jupyter:
#   lesson:
#     en: "GPT: the next token"
#     zh: GPT：写出下一个词元
#     section: "5.2"
#     minutes: 90
# ---

# %% [markdown] lang="en"
# In lesson 0 you counted characters, and counting came to an end: the longer the context, the fewer texts have ever
# had it. A **GPT** does not count. It turns the context into vectors, lets them attend to each other, and learns what
# comes next by gradient descent. All parts of it you have built in lessons 2 to 7.
#
# In this lesson you put them to work: you train a GPT on real text with a loop of eight lines, beat the n-grams, let
# it write, make it write faster with a cache, and give it better tokens than characters.

# %% [markdown] lang="zh"
# 第 0 课里你数过字符，也看到计数走到了尽头：上下文越长，见过它的文本越少。**GPT** 不计数。它把上下文变成向量，让它们彼此
# 注意，再用梯度下降学会接下来是什么。它的所有零件，你在第 2 至 7 课都造过了。
#
# 本课让它们干活：用一个八行的循环在真实文本上训练一个 GPT，胜过 n 元语法；让它写字；用缓存让它写得更快；最后给它比字符
# 更好的词元。

# %%
import time

import numpy as np

import tinytransformer as tt
from tinytransformer.generation import generate, next_token_probabilities
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.optim import AdamW, WarmupCosine, clip_grad_norm, decay_groups
from tinytransformer.plotting import bar_chart, loss_curve
from tinytransformer.text import (
    Batches,
    BPETokenizer,
    CharacterTokenizer,
    fingerprint,
    split,
    stdlib_documentation,
)
from tinytransformer.training import evaluate, ngram_scores

# %% [markdown] lang="en"
# ## The text, and what is asked
#
# The text is that of lesson 0: Python's own manual, character by character, here with its line ends and indents. The last
# tenth is put aside.
#
# What the model is asked is the chain rule of lesson 0, one factor at each position. The loss is the mean of the
# negative log-probabilities:
#
# $$
# L = -\frac{1}{T} \sum_{t=1}^{T} \log P(x_{t+1} \mid x_1, \dots, x_t)
# $$
#
# So inputs and targets are the same text, one place apart. Look at a few columns: above what is read, below what must
# be guessed.

# %% [markdown] lang="zh"
# ## 文本与题目
#
# 文本就是第 0 课那一份：Python 自带的手册，逐个字符，这回保留换行和缩进。最后十分之一留出来。
#
# 模型要答的是第 0 课的链式法则，每个位置一个因子。损失是负对数概率的平均：
#
# $$
# L = -\frac{1}{T} \sum_{t=1}^{T} \log P(x_{t+1} \mid x_1, \dots, x_t)
# $$
#
# 所以输入和目标是同一段文本，只错开一位。看下面几列：上面一行是读到的，下面一行是要猜的。

# %%
text = stdlib_documentation()
tokenizer = CharacterTokenizer.train(text)
V, context = tokenizer.vocab_size, 64
train, held_out = split(tokenizer.encode(text), context=context)
print(fingerprint(text), "· V =", V)

batches = Batches(train, batch_size=8, context=context, seed=0)
inputs, targets = batches(0)  # (8, 64) each
visible = str.maketrans({" ": "␣", "\n": "⏎"})
print(say("read: ", "读到："), *tokenizer.decode(inputs[0, :24]).translate(visible))
print(say("guess:", "要猜："), *tokenizer.decode(targets[0, :24]).translate(visible))
assert (inputs[:, 1:] == targets[:, :-1]).all()

# %% [markdown] lang="en"
# One text of 64 characters is 64 questions, each with a context of its own length, and the causal mask of lesson 5
# lets the model answer all of them in one pass. That is why a GPT can be trained at all.
#
# Everything depends on this shift. Write it yourself, once, for the case that a model was fed the *whole* text: then
# its last position has no target, and its first token is nobody's target.

# %% [markdown] lang="zh"
# 一段 64 个字符的文本就是 64 道题，每道题的上下文长度不同；有第 5 课的因果掩码，模型一次就能全部作答。GPT 之所以训练得动，
# 靠的就是这一点。
#
# 一切都取决于这一位之差。请亲手写一次，情形是：模型读到的是*整段*文本。这时最后一个位置没有目标，第一个词元也不是任何位置
# 的目标。

# %% exercise="shift_labels"
check(shift_labels)

# %% [markdown] lang="en"
# ## The model
#
# Two blocks of lesson 7, with a causal mask, between a table of characters and the same table again: the logits are
# $z = hE^T$, products with the embeddings of all characters. Using one matrix twice is called **weight tying**. Positions
# are the rotary ones of lesson 6. GPT-2 has learned ones, as `positions="learned"` would here; they must first be learned
# and take clearly more steps to the same loss.
#
# The document's listing in section 5.2 has neither mask nor positions; lesson 12 shows what becomes of it.
#
# **Guess first**: before any training, what is the loss, in nats per character? (The model knows nothing, and there
# are $V$ characters.)

# %% [markdown] lang="zh"
# ## 模型
#
# 两个第 7 课的块，带因果掩码，夹在一张字符表和同一张表之间：logits 是 $z = hE^T$，即与所有字符嵌入的内积。一个矩阵用两次，
# 叫做**权重绑定**（weight tying）。位置用第 6 课的旋转位置。GPT-2 用的是可学习的位置（在这里是 `positions="learned"`），它们
# 得先学会，要降到同样的损失，步数明显更多。
#
# 文档 5.2 节的代码既没有掩码，也没有位置；那样会怎么样，第 12 课会看到。
#
# **先猜一猜**：还没训练时，损失是多少（纳特每字符）？（模型什么都不知道，共有 $V$ 个字符。）

# %% guess="np.log(V)"
my_first_loss = ...  # your guess

# %%
config = GPTConfig(V, context_length=context, d_model=64, num_layers=2, num_heads=4, positions="rotary")
model = GPT(config, np.random.default_rng(0))
first_loss = model.loss(inputs, targets).item()
reveal(my_first_loss, first_loss, tolerance=0.1)
print(f"ln V = {np.log(V):.3f}, {model.num_parameters():,}", say("parameters", "个参数"))
assert abs(first_loss - np.log(V)) < 0.1

# %% [markdown] lang="en"
# $\ln V$: all characters equally likely. It is the first number to look at in every run. A model that starts far above
# it is sure of itself without reason (embeddings drawn too large); one that starts far below it has seen the answers.
#
# Before you train, think of the tied table $E$. It is used at the input *and* at the output. What is its gradient?

# %% [markdown] lang="zh"
# $\ln V$：所有字符同样可能。每次训练都应先看这个数。起点远高于它，说明模型毫无根据地自信（嵌入的初值太大）；远低于它，
# 说明模型看到了答案。
#
# 训练之前，先想想绑定的表 $E$。它既用在输入端，*又*用在输出端。它的梯度是什么？

# %% exercise="tied_gradient"
check(tied_gradient)

# %% [markdown] lang="en"
# ## The optimizer
#
# Plain gradient descent takes the same step size for all weights, though the gradient of a rare character's
# embedding is a thousand times smaller than that of a gain. **Adam** divides each step by the typical size of its
# gradient, and takes running means so that one odd batch does not count for much:
#
# $$
# m \leftarrow \beta_1 m + (1 - \beta_1) g \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \qquad
# \hat m = \frac{m}{1 - \beta_1^t} \qquad \hat v = \frac{v}{1 - \beta_2^t}
# $$
#
# $$
# \theta \leftarrow \theta - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda \theta \right)
# $$
#
# The last term is the **W** of AdamW: each weight shrinks a little, whatever its gradient. Note what Adam does with
# units: scale the loss by 1000, and the step is the same.
#
# **Guess**: at the very first step, with $\eta = 0.001$ and no decay, how far does a weight move whose gradient is
# $10^{-4}$?

# %% [markdown] lang="zh"
# ## 优化器
#
# 普通的梯度下降对所有权重用同样的步长，可是一个罕见字符的嵌入，梯度比一个增益的小上千倍。**Adam** 把每一步除以该梯度的
# 典型大小，并取滑动平均，使个别反常的批次影响不大：
#
# $$
# m \leftarrow \beta_1 m + (1 - \beta_1) g \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \qquad
# \hat m = \frac{m}{1 - \beta_1^t} \qquad \hat v = \frac{v}{1 - \beta_2^t}
# $$
#
# $$
# \theta \leftarrow \theta - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda \theta \right)
# $$
#
# 最后一项就是 AdamW 的 **W**：不管梯度如何，每个权重都缩小一点。注意 Adam 与单位的关系：把损失放大 1000 倍，步子不变。
#
# **猜一猜**：在第一步，$\eta = 0.001$、没有衰减时，一个梯度为 $10^{-4}$ 的权重会移动多远？

# %% guess="0.001"
my_step = ...  # your guess

# %%
weight = tt.tensor(np.array([1.0, 1.0, 1.0]), requires_grad=True)
optimizer = AdamW([weight], lr=0.001, weight_decay=0.0)
(weight * np.array([1e-4, 1.0, 50.0])).sum().backward()  # three weights, three sizes of gradient
optimizer.step()
moved = 1.0 - weight.numpy()
reveal(my_step, moved[0], tolerance=1e-5)
print(moved)
np.testing.assert_allclose(moved, 0.001, rtol=1e-3)

# %% [markdown] lang="en"
# All three move by $\eta$. At the first step $\hat m = g$ and $\sqrt{\hat v} = |g|$: only the sign is left. So the
# learning rate of Adam is a distance, and it can be compared with the weights, which are about 0.02 here.

# %% [markdown] lang="zh"
# 三个都移动了 $\eta$。第一步时 $\hat m = g$，$\sqrt{\hat v} = |g|$，剩下的只有符号。所以 Adam 的学习率是一段距离，
# 可以拿来与权重比较；这里的权重大约是 0.02。

# %% exercise="adamw"
check(adamw)

# %% [markdown] lang="en"
# ## The loop
#
# Here is all of training. The rate rises for 60 steps, since Adam's means are worth little at first, and then falls
# along a cosine. The norm of the gradient is clipped at 1, so that one bad batch cannot throw the model off.
#
# **Guess**: 1,000 steps of 512 characters are about once through the text. The bigram needs 3.34 bits for each held-out
# character, the trigram 2.48. How many will the GPT need?

# %% [markdown] lang="zh"
# ## 循环
#
# 训练的全部就在这里。学习率先用 60 步升上来，因为 Adam 的平均一开始还不可靠；然后沿余弦下降。梯度的范数裁到 1，
# 这样一个坏批次不会把模型甩出去。
#
# **猜一猜**：1,000 步，每步 512 个字符，大约把文本过一遍。每个留出的字符，二元语法要 3.34 比特，三元语法要 2.48 比特。
# GPT 要多少？

# %% guess="2.2"
my_bits = ...  # bits per character

# %%
steps = 1000
optimizer = AdamW(decay_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.99))
rate = WarmupCosine(1e-2, warmup=60, total=steps)
one_each = np.ones(V, int)  # each token spells one character
history = []

for step in range(steps):
    loss = model.loss(*batches(step))
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm(model.parameters(), 1.0)
    optimizer.lr = rate(step)
    optimizer.step()
    history.append({"step": step + 1, "loss": loss.item()})
    if (step + 1) % 200 == 0:
        score = evaluate(model, held_out, one_each)
        history[-1]["validation_loss"] = score.nats_per_token
        print(step + 1, say("steps, held-out loss", "步，留出文本上的损失"), round(score.nats_per_token, 3))

# %%
counted = {name: s.bits_per_character for name, s in ngram_scores(train, held_out, V, one_each).items()}
gpt_bits = score.bits_per_character
reveal(my_bits, gpt_bits, tolerance=0.15)
print({name: round(bits, 2) for name, bits in counted.items()}, f"GPT {gpt_bits:.2f}")
assert abs(counted["bigram"] - 3.34) < 0.15
assert abs(counted["trigram"] - 2.48) < 0.15
assert gpt_bits < counted["trigram"] - 0.1

# %% [markdown] lang="en"
# Look at the curve below for three things: how fast it falls to the **unigram** (the model has learned how frequent
# each character is, and nothing else), how it crosses bigram and trigram, and that the held-out loss stays with the
# training loss. When they part, a model has begun to learn its text by heart; once through the text there is no time
# for that.

# %% [markdown] lang="zh"
# 看下面的曲线，注意三件事：它多快降到 **unigram**（模型学会了每个字符有多常见，仅此而已）；它怎样穿过 bigram 和 trigram；
# 以及留出文本的损失始终跟着训练损失。两者分开，就说明模型开始背课文了；只过一遍文本，还来不及背。

# %%
loss_curve(history, baselines=counted, unit=label("bits per character", "比特每字符"), scale=1 / np.log(2))

# %% [markdown] lang="en"
# Where do the bits go? Here is a sentence; replace it by your own. Each bar is the surprise of one character,
# $-\log_2 P$. **Look for the long bars**: are they at the beginnings of words, or at the ends?

# %% [markdown] lang="zh"
# 这些比特花在哪里？下面是一句话，可以换成你自己的（用英文）。每一条是一个字符的意外程度 $-\log_2 P$。
# **找出最长的几条**：它们在词的开头，还是结尾？

# %%
sentence = " The function returns a list."
ids = tokenizer.encode(sentence)  # (T,)
with tt.no_grad():
    log_p = tt.log_softmax(model(ids[None, :-1])).numpy()[0]  # (T - 1, V)
surprise = -log_p[np.arange(len(ids) - 1), ids[1:]] / np.log(2)  # (T - 1,)
bar_chart(
    {
        f"{i + 1:2} {c.replace(' ', '␣')}": bits
        for i, (c, bits) in enumerate(zip(sentence[1:], surprise, strict=True))
    },
    title=label("bits for each character, given those before it", "给定前文，每个字符要几比特"),
)

# %% [markdown] lang="en"
# Words are decided at their beginnings: the first one or two letters cost most, and the rest follows nearly by
# itself. That is where tokens longer than a character come in; more of that below.
#
# ## Writing: temperature and top-k
#
# The model gives a distribution; **sampling** makes text of it. Divide the logits by a temperature $\tau$ before the
# softmax. Below 1 the likely becomes likelier; above 1 all becomes alike. **Top-k** cuts off the tail: only the $k$
# likeliest characters may come.
#
# **Guess**: at temperature 0, how many *different* texts do five draws give?

# %% [markdown] lang="zh"
# 词在开头就定下来了：头一两个字母花得最多，剩下的几乎是顺理成章。比字符更长的词元正是从这里来的，后面会讲。
#
# ## 写字：温度与 top-k
#
# 模型给出的是分布，**采样**把它变成文本。在 softmax 之前把 logits 除以温度 $\tau$：小于 1，可能的更可能；大于 1，大家
# 都差不多。**top-k** 截去尾巴：只有最可能的 $k$ 个字符可以出现。
#
# **猜一猜**：温度为 0 时抽五次，会得到几段*不同*的文本？

# %% guess="1"
my_texts = ...  # 1 to 5

# %%
prompt = tokenizer.encode("The function ")


def write(temperature, seed, top_k=None):
    """Continue the prompt by 50 characters."""
    rng = np.random.default_rng(seed)
    return tokenizer.decode(generate(model, prompt, 50, temperature=temperature, top_k=top_k, rng=rng))


coldest = {write(0, seed) for seed in range(5)}
reveal(my_texts, len(coldest))
assert len(coldest) == 1
for temperature in (0, 0.7, 1.0, 2.0):
    print(f"τ = {temperature}: {write(temperature, seed=1)!r}")
print(f"τ = 2.0, top-k 5: {write(2.0, seed=1, top_k=5)!r}")

# %% [markdown] lang="en"
# Temperature 0 is greedy: the likeliest character each time, and soon the same words over and over. At 2 it is noise.
# In between it has the sound of the manual, in words that partly do not exist; a model of this size has read for
# seconds.
#
# The picture shows the next character after a prompt at three temperatures. **Look at the tail**: the sum of all
# characters outside the first five.

# %% [markdown] lang="zh"
# 温度 0 是贪心：每次取最可能的字符，很快就来回重复同样的词。温度 2 是噪声。介于两者之间，听起来像手册，只是有些词并不存在；
# 这么小的模型，毕竟只读了几秒钟。
#
# 下图是一段开头之后的下一个字符，在三种温度下的分布。**注意尾巴**：前五名之外所有字符的总和。

# %%
with tt.no_grad():
    logits = model(tokenizer.encode("The function re")[None]).numpy()[0, -1]  # (V,)
best = np.argsort(-logits)[:5]
shares, tails = {}, []
for temperature in (0.5, 1.0, 2.0):
    p = next_token_probabilities(logits, temperature)  # (V,)
    shares |= {f"τ = {temperature}  {tokenizer.tokens[i]}": p[i] for i in best}
    tails.append(1 - p[best].sum())
    shares[f"τ = {temperature}  {label('all others', '其他全部')}"] = tails[-1]
np.testing.assert_allclose(
    next_token_probabilities(logits, 2.0), tt.softmax(logits.astype(float) / 2), atol=1e-9
)
assert tails[0] < tails[1] < tails[2]
bar_chart(shares, title=label("the character after “The function re”", "“The function re” 之后的字符"))

# %% [markdown] lang="en"
# A hot model draws mostly from the tail, where it has learned nothing. Top-k allows a high temperature without that.

# %% [markdown] lang="zh"
# 温度高时，模型多半从尾巴里抽，而那里它什么也没学到。有了 top-k，温度可以高，又不会落到尾巴里。

# %% exercise="sample"
check(sample)

# %% [markdown] lang="en"
# ## The cache
#
# To write one character, the model reads the whole text so far. To write the next, it reads it all again. But under a
# causal mask nothing before has changed: the keys and values of old positions are the same as before. So **keep
# them**, and compute only those of the new character.
#
# **Guess**: to write 200 characters after a prompt of 10, how many positions pass through the model *without* a
# cache? (Ten for the first character, eleven for the second, …)

# %% [markdown] lang="zh"
# ## 缓存
#
# 为了写一个字符，模型要读此前的全部文本；写下一个，又要全读一遍。可是有因果掩码，前面的什么都没变：旧位置的键和值与之前
# 完全一样。那就**把它们留下来**，只算新字符的。
#
# **猜一猜**：在 10 个字符的开头之后写 200 个字符，*没有*缓存时，一共有多少个位置要经过模型？（第一个字符 10 个，第二个
# 11 个，……）

# %% guess="sum(range(10, 210))"
my_positions = ...  # your guess

# %%
without = sum(10 + k for k in range(200))
with_cache = 10 + 199
reveal(my_positions, without, tolerance=200)
print(say("without {:,}, with the cache {}", "没有缓存 {:,}，有缓存 {}").format(without, with_cache))
assert without == 21_900

# %% [markdown] lang="en"
# Now the stopwatch. It needs a longer context; an untrained model of four layers will do, as it takes as long as a
# trained one. The two must write **the same text**, or the cache is wrong.

# %% [markdown] lang="zh"
# 现在掐表。这需要更长的上下文；用一个四层、未训练的模型就行，它和训练过的一样慢。两者必须写出**同样的文本**，否则缓存就
# 是错的。

# %%
wide = GPT(GPTConfig(V, context_length=256, d_model=128, num_layers=4, num_heads=4), np.random.default_rng(1))
seconds, texts = {}, {}
for use_cache in (True, False):
    started = time.perf_counter()
    rng = np.random.default_rng(2)
    texts[use_cache] = generate(wide, prompt[:10], 200, rng=rng, use_cache=use_cache)
    seconds[use_cache] = time.perf_counter() - started
assert np.array_equal(texts[True], texts[False])
print(
    say(
        "the same text; with the cache {:.2f} s, without {:.2f} s: {:.1f} times as fast",
        "文本相同；有缓存 {:.2f} 秒，没有 {:.2f} 秒：快 {:.1f} 倍",
    ).format(seconds[True], seconds[False], seconds[False] / seconds[True])
)
assert seconds[False] > 1.2 * seconds[True]

# %% [markdown] lang="en"
# Positions are a hundred times fewer, but the time is not: each call has its fixed cost, and one row through a matrix
# is slow for its arithmetic, since the whole matrix must be fetched from memory for it. The longer the text and the
# larger the model, the more the cache is worth; no large model is run without.

# %% [markdown] lang="zh"
# 位置少了一百倍，时间却没有少这么多：每次调用有固定的开销；而且只让一行通过矩阵很不划算，为了它得把整个矩阵从内存里取一遍。
# 文本越长、模型越大，缓存越值；没有哪个大模型不用缓存。

# %% exercise="cached_attention"
check(cached_attention)

# %% [markdown] lang="en"
# ## Better tokens: byte-pair encoding
#
# Characters are many tokens for little text; words are too many kinds. **Byte-pair encoding** lies between: begin
# with the 256 bytes, and again and again make the most frequent pair of neighbours a new token. Since it begins with
# bytes, it can write everything, Chinese too.
#
# **Guess**: how many tokens are the three characters “注意力” when nothing has been merged yet?

# %% [markdown] lang="zh"
# ## 更好的词元：字节对编码
#
# 用字符，一点点文本就要很多词元；用词，词的种类又太多。**字节对编码**（BPE）介于两者之间：从 256 个字节开始，一次又一次
# 把最常见的相邻一对变成新词元。因为从字节开始，什么都写得出来，中文也不例外。
#
# **猜一猜**：还没有任何合并时，“注意力”这三个字是几个词元？

# %% guess="9"
my_tokens = ...  # your guess

# %%
reveal(my_tokens, len(BPETokenizer([]).encode("注意力")))
assert len(BPETokenizer([]).encode("注意力")) == 9

merged = BPETokenizer.train(text[:150_000], vocab_size=256 + 400)
sentence = " The function returns a list of arguments."
print([merged.decode([i]) for i in merged.encode(sentence)])
characters_per_token = len(text[-40_000:]) / len(merged.encode(text[-40_000:]))
print(f"{characters_per_token:.2f}", say("characters per token", "个字符每词元"))
assert 2 < characters_per_token < 3.5

# %% [markdown] lang="en"
# With 400 merges a token is worth more than two characters, so a context of 64 tokens reaches twice as far, and
# frequent words are one token. Losses *per token* cannot be compared between tokenizers: a longer token is harder to
# guess. Compare **bits per character**, as above.
#
# A picture of the first merges, by how many characters of the text each made shorter, would only show the spaces and
# *the*; look at the list instead. The later a token comes, the longer and the more of this text it is.

# %% [markdown] lang="zh"
# 合并 400 次之后，一个词元抵两个多字符，64 个词元的上下文看得远一倍多，常见的词只要一个词元。不同的分词器之间不能比较
# *每词元*的损失：越长的词元越难猜。要比就比**每字符的比特数**，就像上面那样。
#
# 看看学到的词元。越靠后的越长，也越是这份文本特有的。

# %%
learned = [merged.decode([i]) for i in range(256, merged.vocab_size)]
print(say("first:", "最先："), learned[:16])
print(say("last:", "最后："), learned[-16:])
assert max(map(len, learned[-50:])) > max(map(len, learned[:10]))

# %% [markdown] lang="en"
# Your turn, twice: learn the merges, and use them. The order in which they were learned matters when you encode.

# %% [markdown] lang="zh"
# 轮到你了，共两题：学出合并，再使用它们。编码时，学习的先后顺序很重要。

# %% exercise="train_bpe"
check(train_bpe)

# %% exercise="encode_bpe"
check(encode_bpe)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **No shift.** Inputs and targets are the same text at the same place. The loss falls to 0.01 within a hundred
#   steps, and the model writes one character for ever: it has learned to copy.
# - **No causal mask**, as in the document's listing. The same symptom: the answer can be read off the next position.
# - **The cache forgets positions.** Each new character believes it stands at place 0. Nothing breaks; the text only
#   gets worse after the first character. So compare with the text written without a cache, as you did.
# - **Forgotten `zero_grad`.** Gradients pile up, each step goes where all earlier batches wanted to go; the loss
#   falls at first, then rises.
# - **Probabilities where logits are expected**: a softmax of a softmax is nearly uniform, at every temperature.
# - **A copy instead of a tie.** Equal at the start, the two tables drift apart.
#
# The test for the first two takes three lines, and belongs into every project: change the **last** token, and see
# that no earlier output moves.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **没有移位。** 输入和目标是同一段文本的同一位置。损失在一百步内降到 0.01，模型写来写去只有一个字符：它学会的是抄写。
# - **没有因果掩码**，就像文档里的代码。症状相同：答案从下一个位置就能读到。
# - **缓存忘了位置。** 每个新字符都以为自己在位置 0。什么都不报错，只是从第一个字符之后写得越来越差。所以要像上面那样，与
#   不用缓存写出的文本对比。
# - **忘了 `zero_grad`。** 梯度越积越多，每一步都朝着此前所有批次想去的方向走；损失先降后升。
# - **该给 logits 的地方给了概率**：softmax 的 softmax 几乎是均匀的，温度是多少都一样。
# - **复制而不是绑定。** 两张表开始时相等，然后越走越远。
#
# 检验前两条只要三行，每个项目都该有：改动**最后一个**词元，看前面的输出是否纹丝不动。

# %%
changed = inputs.copy()
changed[:, -1] = (changed[:, -1] + 1) % V
with tt.no_grad():
    difference = np.abs(model(inputs).numpy() - model(changed).numpy()).max(axis=(0, 2))  # (64,)
print(
    say("moved at the last position {:.1f}, before it {:.1g}", "最后位置变了 {:.1f}，之前变了 {:.1g}").format(
        difference[-1], difference[:-1].max()
    )
)
assert difference[:-1].max() < 1e-3 < 0.1 < difference[-1]

# %% [markdown] lang="en"
# ## To take along
#
# - A GPT is trained to guess each next token; inputs and targets are one text, one place apart. The loss starts at
#   $\ln V$.
# - Adam makes the size of a step independent of the size of the gradient; AdamW lets weights decay beside that.
# - Sampling: first the temperature, then top-k, then draw. A cache changes the time and never the text.
# - Byte-pair encoding writes everything, and what is frequent with few tokens. Compare models in bits per character.
#
# This lesson takes about an hour and a half; its cells run in about a minute.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - GPT 被训练去猜每一个下一词元；输入和目标是同一段文本，错开一位。损失从 $\ln V$ 开始。
# - Adam 使步子的大小与梯度的大小无关；AdamW 另外让权重衰减。
# - 采样：先温度，再 top-k，然后抽取。缓存只改变时间，绝不改变文本。
# - 字节对编码什么都写得出来，常见的内容用的词元少。模型之间要比每字符的比特数。
#
# 本课大约需要一个半小时；所有单元格大约一分钟运行完。
