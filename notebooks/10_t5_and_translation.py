# ---
# jupyter:
#   lesson:
#     en: T5 and translation
#     zh: T5 与翻译
#     section: "3.1"
#     minutes: 80
# ---

# %% [markdown] lang="en"
# A GPT writes, a BERT reads. To **translate** takes both: read a whole sentence in both directions, then write another,
# word by word. The first Transformer did just that, with an **encoder** and a **decoder**; T5 makes every task of that
# form, text in, text out. Machine translation also heads the document's list of applications.
#
# In this lesson you train a translator of dates from English to Chinese until it makes hardly a mistake, see which
# letters it looks at while it writes, search for better texts with beams, and meet the two ideas of T5.

# %% [markdown] lang="zh"
# GPT 会写，BERT 会读。**翻译**两样都要：先从两个方向读完整个句子，再一个词一个词地写出另一句。最初的 Transformer 正是这样做的，
# 它有一个**编码器**和一个**解码器**；T5 把所有任务都变成这种形式：文本进，文本出。文档列举的应用中，排在最前的也是机器翻译。
#
# 本课中你会训练一个把日期从英文译成中文的模型，直到它几乎不出错；看它写每个字时在看哪些字母；用束搜索找更好的译文；再认识 T5 的
# 两个主意。

# %%
import calendar
import datetime
import math
from types import SimpleNamespace

import numpy as np

import tinytransformer as tt
from tinytransformer import generation
from tinytransformer import text as txt
from tinytransformer.models import T5, T5Config, Transformer, TransformerConfig
from tinytransformer.plotting import attention_map, bar_chart
from tinytransformer.tasks import TaskData, Translation
from tinytransformer.training import Trainer, TrainingSettings, evaluating

# %% [markdown] lang="en"
# ## Pairs of texts
#
# Every date can be written in both languages, so there is no end of examples. The package `babel` holds how each
# language writes dates (the Unicode CLDR). If it is not installed, a few lines do here, and they say the same.
#
# The task has all that makes translation hard: the order is turned around, a month's *name* becomes a *number*, and
# the day of the week moves from the front to the end.

# %% [markdown] lang="zh"
# ## 成对的文本
#
# 每个日期都能用两种语言写出来，所以例子要多少有多少。`babel` 包里有各种语言书写日期的方式（来自 Unicode CLDR）。如果没有安装，
# 这里用几行代码代替，写出来是一样的。
#
# 翻译的难处，这个任务都有：语序要颠倒，月份的*名称*要变成*数字*，星期要从最前面挪到最后面。

# %%
FORMS = ("full", "long", "medium")


def by_hand(day, form):
    """A date in English and in Chinese, as babel writes it."""
    names = calendar.month_abbr if form == "medium" else calendar.month_name
    english = f"{names[day.month]} {day.day}, {day.year}"
    chinese = f"{day.year}年{day.month}月{day.day}日"
    if form == "full":
        return (
            f"{calendar.day_name[day.weekday()]}, {english}",
            f"{chinese}星期{'一二三四五六日'[day.weekday()]}",
        )
    return english, chinese


try:
    from babel.dates import format_date

    def in_both(day, form):
        """A date in English and in Chinese, by babel."""
        return tuple(format_date(day, form, locale=language) for language in ("en", "zh"))

except ImportError:
    print(
        say(
            "babel is not installed: dates are written by hand here",
            "没有安装 babel：这里用手写的几行代码生成日期",
        )
    )
    in_both = by_hand

rng = np.random.default_rng(0)
first = datetime.date(1900, 1, 1)
days = rng.choice(73049, size=6200, replace=False)  # of 1900 to 2099; no date comes twice
rows = [in_both(first + datetime.timedelta(int(d)), FORMS[i % 3]) for i, d in enumerate(days)]
data = TaskData(rows[200:], rows[:200], "dates")
for english, chinese in data.validation[:3]:
    print(f"{english:30} {chinese}")
assert rows[:99] == [
    by_hand(first + datetime.timedelta(int(d)), FORMS[i % 3]) for i, d in enumerate(days[:99])
]

# %% [markdown] lang="en"
# ## What the decoder reads
#
# The model gives the probability of the target, token by token, given the whole source $x$:
#
# $$
# P(y_1, \dots, y_n \mid x) = \prod_{t=1}^{n} P(y_t \mid x, y_1, \dots, y_{t-1})
# $$
#
# In training the decoder reads the **true** beginning of the target, not what it would have written itself: *teacher
# forcing*. So, as in lesson 8, all positions learn in one pass. The encoder needs no mask but that for padding; the
# decoder has the causal one.
#
# To guess $y_1$ there must be something to read: a start token. And there must be an end token, or it would write
# for ever. So the inputs of the decoder are the labels, shifted to the right by one.

# %% [markdown] lang="zh"
# ## 解码器读什么
#
# 模型给出译文的概率，逐个词元，以整个原文 $x$ 为条件：
#
# $$
# P(y_1, \dots, y_n \mid x) = \prod_{t=1}^{n} P(y_t \mid x, y_1, \dots, y_{t-1})
# $$
#
# 训练时，解码器读的是译文**真正的**开头，而不是它自己会写出的：这叫*教师强制*（teacher forcing）。于是像第 8 课一样，所有位置
# 一次学完。编码器只需要填充掩码，解码器则用因果掩码。
#
# 要猜 $y_1$，总得有东西可读：起始词元。还要有结束词元，否则会一直写下去。所以解码器的输入就是标签，向右移一位。

# %% exercise="shift_right"
check(shift_right)

# %% [markdown] lang="en"
# ## Training
#
# Characters are the tokens, two layers of 64 features read and two write. First 200 steps of 32 dates, then 400 more.
#
# **Guess**: after 200 steps it has seen each of the 6,000 dates about once. Which part of 200 dates it has never seen
# will it translate without a single wrong character? And after 600? Guess the second.

# %% [markdown] lang="zh"
# ## 训练
#
# 词元就是字符；两层宽 64 的编码器来读，两层解码器来写。先走 200 步，每步 32 个日期，再走 400 步。
#
# **猜一猜**：走完 200 步，6,000 个日期每个大约见过一次。200 个从没见过的日期中，有多大比例能一字不差地译出来？600 步之后呢？
# 猜后一个数。

# %% guess="0.95"
my_part = ...  # between 0 and 1, after 600 steps

# %%
tokenizer = Translation.new_tokenizer([text for row in data.train for text in row])
V = tokenizer.vocab_size
sizes = {"d_model": 64, "num_heads": 4, "num_encoder_layers": 2, "num_decoder_layers": 2, "d_ff": 128}
config = TransformerConfig(V, V, dropout=0.0, norm_first=True, max_length=64, **sizes)
model = Transformer(config, np.random.default_rng(0))
task = Translation(data, model, tokenizer, batch_size=32, seed=0)
settings = TrainingSettings(steps=600, learning_rate=4e-3, warmup=50, weight_decay=0.01)
trainer = Trainer(model, task, settings, tokenizer)


def scores(num_beams):
    """Exact match on the held-out dates."""
    task.num_beams = num_beams
    return task.score(model)["exact match"]


while trainer.step < 200:
    row = trainer.train_step()
print(row["step"], say("steps, loss", "步，损失"), round(row["loss"], 3))
early = {1: scores(1), 4: scores(4)}  # with one beam and with four: of that later
early_texts = task.written(model, task.validation[:4])
while trainer.step < settings.steps:
    row = trainer.train_step()
print(row["step"], say("steps, loss", "步，损失"), round(row["loss"], 3))

# %%
late = {1: scores(1), 4: scores(4)}
reveal(my_part, late[1], tolerance=0.05)
print(
    say("exact match after 200 steps", "200 步后一字不差的比例"),
    early[1],
    say("after 600", "600 步后"),
    late[1],
)
print(f"{V} {say('characters', '个字符')}, {model.num_parameters():,} {say('parameters', '个参数')}")
for (english, chinese), text in zip(data.validation, early_texts, strict=False):
    print(
        f"{english:28} {say('after 200 steps', '200 步后')} {text:16} {say('right is', '正确的是')} {chinese}"
    )
assert late[1] > 0.85
assert late[1] > early[1]

# %% [markdown] lang="en"
# Half trained, it writes good Chinese, mostly of a wrong date: the form is learned before the content. That is what
# makes mistakes of such models hard to see; they are always fluent.
#
# Now a date of your own. Keep to a form that it knows.

# %% [markdown] lang="zh"
# 训练到一半时，它写的中文像模像样，只是日期多半不对：先学会形式，后学会内容。这类模型的错误难以察觉，就是因为它们总是通顺的。
#
# 现在试一个你自己的日期，写法要是它见过的。

# %%
my_date = "Friday, March 14, 2036"


def translate(english, num_beams=1):
    """What the model writes, greedily or with beams."""
    return Translation.predict(model, tokenizer, {"num_beams": num_beams, "max_new_tokens": 20}, english)[0]


print(my_date, "→", translate(my_date))

# %% [markdown] lang="en"
# ## Where it looks while it writes
#
# Each layer of the decoder has a second attention: queries come from the Chinese text so far, keys and values from
# the encoder. The rows of the picture are the characters being written, the columns those that are read. **Look for
# the crossing**: when it writes the year, it looks at the end of the English text; for the day of the week, at the
# beginning. And for `3月`: from where in *March* does it take the 3?

# %% [markdown] lang="zh"
# ## 写的时候往哪里看
#
# 解码器的每一层还有第二个注意力：查询来自已写出的中文，键和值来自编码器。图的行是正在写的字，列是读到的字符。**找出交叉**：
# 写年份时，它看英文的末尾；写星期时，看开头。再看 `3月`：这个 3 是从 *March* 的哪里看来的？


# %%
def cross_attention(english):
    """Weights of the last layer's attention to the source, mean of its heads, and the text it writes."""
    source, target = tokenizer.encode(english + "\3"), tokenizer.encode("\0" + translate(english))
    with evaluating(model):
        memory = model.encode(source[None])  # (1, S, d)
        y = math.sqrt(64) * model.target_embedding(target[None]) + tt.sinusoidal_positions(len(target), 64)
        for layer in model.decoder_layers:
            mask = tt.Mask.causal(len(target))
            x = y + layer.self_attention(layer.norm1(y), mask=mask)  # the query of the second attention
            weights = layer.cross_attention.attention_weights(layer.norm2(x), memory)  # (1, heads, T, S)
            y = layer(y, memory, mask)
    return weights.numpy()[0].mean(0), [*tokenizer.decode(target[1:]), "END"], [*english, "END"]


words_for = dict(
    zip(
        "年月日星期一二三四五六",
        ["year", "month", "day", "week-", "-day", "one", "two", "three", "four", "five", "six"],
        strict=True,
    )
)


W, chinese, english = cross_attention(my_date)
np.testing.assert_allclose(W.sum(-1), 1, rtol=1e-5)
attention_map(W, [label(words_for.get(c, c), c) for c in chinese], english)

# %% [markdown] lang="en"
# Nobody told it which letters belong to which character. The alignment came about because it lowers the loss. For the 3 it
# looks at the M, and also at the end of the word: the M alone could be of May.
#
# It knows what it has seen. **Guess**: which part of dates of the years 1800 to 1899, in the same three forms, does
# it translate without a mistake? It was trained on 1900 to 2099.

# %% [markdown] lang="zh"
# 没有人告诉它哪些字母对应哪个字。这种对齐是自己产生的，因为它能降低损失。写 3 的时候，它看 M，也看这个词的末尾：单凭 M，
# 也可能是 May。
#
# 它懂得的，是它见过的。**猜一猜**：1800 至 1899 年的日期，同样三种写法，它能一字不差地译出多大比例？它是在 1900 至 2099 年上
# 训练的。

# %% guess="0.1"
my_old_part = ...  # between 0 and 1

# %%
old_days = [datetime.date(1800, 1, 1) + datetime.timedelta(int(d)) for d in rng.integers(36500, size=60)]
old = [in_both(day, FORMS[i % 3]) for i, day in enumerate(old_days)]
translated = [translate(english) for english, _ in old]
old_part = np.mean([ours == right for ours, (_, right) in zip(translated, old, strict=True)])
reveal(my_old_part, old_part, tolerance=0.1)
for ours, (english, right) in list(zip(translated, old, strict=True))[:4]:
    print(f"{english:30} {ours:16} {right}")
assert old_part < late[1] - 0.3

# %% [markdown] lang="en"
# It has never seen a year that begins with 18, so it writes one that it has: 1982 for 1882. To copy the digits would be
# right for every year, but nothing in its data asked for that rule. A model is as wide as its data, and it does not say
# so: these translations look like all the others.
#
# ## Greedy, or beams
#
# Greedy takes the likeliest token at each step. The likeliest *text* may begin with another. Here is a language of
# four words, as a table: after the start, A has 0.6 and B 0.4; after A, three words share; after B, one is nearly
# certain.

# %% [markdown] lang="zh"
# 它从没见过 18 开头的年份，就写成见过的：把 1882 写成 1982。照抄数字对任何年份都对，可它的数据里没有什么要求它学会这条规则。
# 数据有多宽，模型就有多宽，而且它不会告诉你：这些译文看上去与别的没有两样。
#
# ## 贪心，还是束搜索
#
# 贪心在每一步取最可能的词元。可是最可能的*文本*，也许是以另一个词元开头的。下面用一张表写出一种很小的语言：开头之后，A 是 0.6，
# B 是 0.4；A 之后由三个词平分；B 之后，有一个词几乎是确定的。

# %%
words = ["<start>", "A", "B", "x", "y", "z"]
next_word = np.full((6, 6), 1e-9)
next_word[0, [1, 2]] = 0.6, 0.4
next_word[1, [3, 4, 5]] = 0.4, 0.3, 0.3
next_word[2, [3, 4, 5]] = 0.9, 0.05, 0.05


class Table:
    """A language model that looks its answer up; all that generation asks of one."""

    config = SimpleNamespace(vocab_size=6, context_length=math.inf)

    def __call__(self, input_ids, attention_mask=None, positions=None, cache=None):
        return np.log(next_word[input_ids])  # (batch, T, V)

    def new_cache(self):
        return []

    def modules(self):
        return []


# %% [markdown] lang="en"
# **Beam search** of width $k$ keeps the $k$ likeliest beginnings side by side. **Guess**: how probable is the text of
# two words that it finds with $k = 2$?

# %% [markdown] lang="zh"
# 宽度为 $k$ 的**束搜索**把最可能的 $k$ 个开头并排保留。**猜一猜**：$k = 2$ 时，它找到的两词文本概率是多少？

# %% guess="0.36"
my_probability = ...  # your guess

# %%
probability = {}
for k in (1, 2):
    found = generation.beam_search(Table(), [0], 2, num_beams=k, length_penalty=0.0, use_cache=False)
    probability[k] = np.exp(found.score)
    print(k, [words[i] for i in found.tokens], round(probability[k], 2))
reveal(my_probability, probability[2], tolerance=0.001)
np.testing.assert_allclose([probability[1], probability[2]], [0.24, 0.36], atol=1e-6)

# %% [markdown] lang="en"
# Greedy finds 0.6 · 0.4 = 0.24, two beams 0.4 · 0.9 = 0.36. And the translator? The picture compares greedy with four
# beams, half trained and fully trained. **Look for the gain**: is it large?

# %% [markdown] lang="zh"
# 贪心找到 0.6 · 0.4 = 0.24，两束则找到 0.4 · 0.9 = 0.36。那我们的翻译模型呢？下图比较贪心与四束，分别在训练到一半和训练完时。
# **看看增益**：大吗？

# %%
after = {200: early, 600: late}
after = {200: early, 600: late}
methods = {1: label("greedy", "贪心"), 4: label("4 beams", "4 束")}
bar_chart(
    {f"{label(f'{n} steps', f'{n} 步')}, {methods[k]}": after[n][k] for n in after for k in methods},
    title=label("part of the held-out dates without a mistake", "留出日期中一字不差的比例"),
)

# %% [markdown] lang="en"
# Little: beams find likelier texts, and those are better only as far as the model's probabilities are. Where a model
# is sure there is nothing to search; where it is wrong, beams find its likeliest error. They help most in between,
# with long sentences. One more trap: each further token makes a text less likely, so sums favour short texts. Divide
# by the length to a power $\alpha$:
#
# $$
# \text{score}(y_1, \dots, y_n) = \frac{1}{n^\alpha} \sum_{t=1}^{n} \log P(y_t \mid x, y_1, \dots, y_{t-1})
# $$

# %% [markdown] lang="zh"
# 不大：束搜索找到的是更可能的文本，而它们更好的程度，取决于模型的概率有多准。模型有把握时没什么可搜的；模型错了，束搜索找到的
# 是它最可能犯的错。介于两者之间、句子又长时，它最有用。还有一个陷阱：每多一个词元，文本就更不可能，所以求和偏爱短文本。
# 要除以长度的 $\alpha$ 次幂：
#
# $$
# \text{score}(y_1, \dots, y_n) = \frac{1}{n^\alpha} \sum_{t=1}^{n} \log P(y_t \mid x, y_1, \dots, y_{t-1})
# $$

# %% exercise="beam_search"
check(beam_search)

# %% [markdown] lang="en"
# ## T5, first idea: span corruption
#
# How does one pretrain an encoder-decoder without pairs? T5 takes spans out of a text, puts a **sentinel** in the place
# of each, and lets the decoder write what is missing, each span after its sentinel. 15 % of the tokens, in spans of 3
# on average.

# %% [markdown] lang="zh"
# ## T5 的第一个主意：片段遮盖
#
# 没有成对的文本，怎样预训练编码器-解码器？T5 从文本里取出一些片段，每处放一个**哨兵**，让解码器写出缺失的内容：先写哨兵，再写
# 它的片段。取出 15 % 的词元，平均每段 3 个。

# %%
sentence = label(
    "thank you for inviting me to your party last week it was a lot of fun",
    "谢谢 你 上 周 请 我 来 参加 聚会 ， 大家 都 玩 得 非常 开心 ， 下次 再 来",
).split()
sentinels = {len(sentence) + i: f"<{chr(ord('X') + i)}>" for i in range(3)}
names = dict(enumerate(sentence)) | sentinels
inputs, targets = txt.corrupt_spans(
    np.arange(len(sentence)), list(sentinels), rng, density=0.25, mean_length=2
)
print(say("encoder reads: ", "编码器读："), *(names[int(i)] for i in inputs))
print(say("decoder writes:", "解码器写："), *(names[int(i)] for i in targets))
assert sorted([*inputs, *targets]) == sorted([*range(len(sentence)), *list(sentinels)[:2], *sentinels])

# %% [markdown] lang="en"
# **Guess**: a text has 100 tokens; 15 are taken out, in 5 spans. How many tokens must the decoder write? (Each span
# has its sentinel, and one more closes the text.)

# %% [markdown] lang="zh"
# **猜一猜**：一段文本有 100 个词元，取出 15 个，分成 5 段。解码器要写多少个词元？（每段有自己的哨兵，末尾再加一个。）

# %% guess="21"
my_targets = ...  # your guess

# %%
inputs, targets = txt.corrupt_spans(np.arange(100), range(100, 110), rng)
reveal(my_targets, len(targets))
print(
    say("encoder reads {}, decoder writes {}", "编码器读 {} 个，解码器写 {} 个").format(
        len(inputs), len(targets)
    )
)
assert (len(inputs), len(targets)) == (90, 21)

# %% [markdown] lang="en"
# The decoder works on a fifth of the text: that is cheap. And unlike BERT's `[MASK]`, a sentinel does not say how long
# the span is.

# %% [markdown] lang="zh"
# 解码器只处理五分之一的文本，很省。而且与 BERT 的 `[MASK]` 不同，哨兵不透露片段有多长。

# %% exercise="corrupt_spans"
check(corrupt_spans)

# %% [markdown] lang="en"
# ## T5, second idea: positions as a bias
#
# T5 adds no positions to its embeddings. Instead each head has a table of numbers, one for each distance (for each
# *bucket* of distances, lesson 6), which are added to the scores. It does not divide by $\sqrt{d_k}$ either. Attention
# with a bias $B$ and any scale $c$ is
#
# $$
# \mathrm{softmax}\left(c\,QK^T + B\right)V
# $$
#
# with $c = 1/\sqrt{d_k}$, $B = 0$ the attention of lesson 3. Its id is **general_attention** (Raffel et al., 2020,
# section 2.1), the code is [general_attention](tinytransformer.formulas.attention.general_attention), and the weights
# alone, $\mathrm{softmax}(c\,QK^T + B)$, are **general_attention_weights**:
# [general_attention_weights](tinytransformer.formulas.attention.general_attention_weights). It can do one thing more:
# K and V may have fewer heads than Q, each then serves a **group** of query heads (Ainslie et al., 2023). That makes
# the cache of lesson 8 smaller; models of today do so.

# %% [markdown] lang="zh"
# ## T5 的第二个主意：把位置作为偏置
#
# T5 不在嵌入上加位置。它给每个头一张小表，每种距离（准确说是每个距离*桶*，见第 6 课）对应一个数，加到得分上。它也不除以
# $\sqrt{d_k}$。带偏置 $B$ 和任意系数 $c$ 的注意力是
#
# $$
# \mathrm{softmax}\left(c\,QK^T + B\right)V
# $$
#
# 取 $c = 1/\sqrt{d_k}$、$B = 0$，就是第 3 课的注意力。它的编号是 **general_attention**（Raffel 等，2020，第 2.1 节），代码是
# [general_attention](tinytransformer.formulas.attention.general_attention)；只要权重
# $\mathrm{softmax}(c\,QK^T + B)$ 的话，编号是 **general_attention_weights**，代码是
# [general_attention_weights](tinytransformer.formulas.attention.general_attention_weights)。它还多一项本领：K 和 V 的头可以
# 比 Q 少，每个头服务一**组**查询头（Ainslie 等，2023）。这样第 8 课的缓存就小了，如今的模型都这样做。

# %% equation="general_attention general_attention_weights"
Q = rng.normal(size=(2, 6, 5, 4))  # (batch, heads, T_q, d_k)
K = rng.normal(size=(2, 3, 7, 4))  # half as many heads: each serves two of Q's
V_ = rng.normal(size=(2, 3, 7, 8))
B = rng.normal(size=(1, 6, 5, 7))  # one bias for all texts of the batch
c = 0.3

W, out = np.empty((2, 6, 5, 7)), np.empty((2, 6, 5, 8))
for head in range(6):
    powers = np.exp(c * np.einsum("bqd,bkd->bqk", Q[:, head], K[:, head // 2]) + B[:, head])
    W[:, head] = powers / powers.sum(-1)[..., None]
    out[:, head] = W[:, head] @ V_[:, head // 2]
np.testing.assert_allclose(tt.general_attention_weights(Q, K, bias=B, scale=c), W)
np.testing.assert_allclose(tt.general_attention(Q, K, V_, bias=B, scale=c), out)
print(say("plain NumPy and the library agree", "纯 NumPy 与库的结果一致"), out.shape)

# %% [markdown] lang="en"
# **Guess**: move a whole sentence 100 places to the right. Do the weights among its words change in T5? And with the
# sines of lesson 6? Answer for T5, "yes" or "no".

# %% [markdown] lang="zh"
# **猜一猜**：把整个句子向右移 100 个位置。在 T5 里，句中各词之间的权重会变吗？用第 6 课的正弦位置呢？请就 T5 回答 "yes" 或
# "no"。

# %% guess="\"no\""
my_answer = ...  # "yes" or "no"

# %%
x, table = rng.normal(size=(12, 16)), rng.normal(size=32)  # a sentence; a head's bias for each bucket


def t5_weights(positions):
    """Weights among the words of x, with a bias for their distances."""
    distance = positions - positions[:, None]  # key minus query
    return tt.general_attention_weights(x, x, bias=table[tt.relative_position_bucket(distance)])


def sine_weights(positions):
    """Weights among the words of x, with sines added to them."""
    with_place = x + tt.sinusoidal_positions(positions, 16, "float64")
    return tt.attention_weights(with_place, with_place)


here, there = np.arange(12), np.arange(100, 112)
change = {f.__name__: np.abs(f(here) - f(there)).max() for f in (t5_weights, sine_weights)}
reveal(my_answer, "no" if change["t5_weights"] < 1e-12 else "yes")
print(change)
assert change["t5_weights"] < 1e-12 < 1e-3 < change["sine_weights"]

# %% [markdown] lang="en"
# Only distances count, so a phrase is the same wherever it stands. The picture shows what the bias alone does, with
# $Q = 0$, in a T5 that is not trained. **Look for stripes** along the diagonal: all pairs of one distance have one
# colour (nearly: each row adds up to 1). Far away from the diagonal the stripes get broader, because distant places
# share a bucket.

# %% [markdown] lang="zh"
# 只有距离起作用，所以一个短语无论在哪里都一样。下图是只有偏置时的权重（$Q = 0$），取自一个未训练的 T5。**找出**沿对角线的
# **条纹**：距离相同的，颜色相同（差不多：每行之和是 1）。离对角线越远，条纹越宽，因为远处的位置共用一个桶。

# %%
t5_config = T5Config(50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout=0.0)
t5 = T5(t5_config, np.random.default_rng(5))
bias = 8 * t5.encoder.bias(24, 24).numpy()  # (1, heads, T, T), made strong so that one can see it
nothing = np.zeros((1, 2, 24, 8))
assert (bias[..., 1:, 1:] == bias[..., :-1, :-1]).all()
attention_map(tt.general_attention_weights(nothing, nothing, bias=bias)[0])

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The decoder reads what it must guess.** Labels not shifted: the loss goes to 0, and translations are garbage. When
#   a loss is too good, look at the shift first.
# - **−100 among the inputs.** Labels of −100 must become padding *after* the shift. Where indices wrap around, −100
#   fetches a wrong row without a word.
# - **No mask over the padding of the source.** The translation of a sentence then depends on its neighbours in the
#   batch.
# - **No end token in the targets.** The model never learns to stop, and writes until the limit.
# - **Teacher forcing hides it.** The loss in training is measured with a true beginning; when it writes, its own first
#   mistake is what it reads on from. So look at what is *written* (exact match), not at the loss alone.
# - **Sums of log-probabilities, compared across lengths.** Beam search then prefers the empty translation.
#
# The third in numbers: the logits for a date alone, and beside a longer one.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **解码器读到了它要猜的。** 标签没有移位：损失趋于 0，译文却一塌糊涂。损失好得过分时，先查移位。
# - **输入里有 −100。** 值为 −100 的标签，移位*之后*必须换成填充。下标会回绕时，−100 会不声不响地取到错误的行。
# - **没有遮住原文的填充。** 一个句子的译文就会受同一批次里其他句子的影响。
# - **目标里没有结束词元。** 模型学不会停，一直写到上限。
# - **教师强制掩盖了问题。** 训练时的损失是在真正的开头上量的；自己写的时候，第一个错误就成了后面的依据。所以要看*写出来的*
#   （一字不差的比例），不能只看损失。
# - **不同长度之间直接比较对数概率之和。** 束搜索就会偏爱空译文。
#
# 用数字看第三条：一个日期单独算，和放在一个更长的日期旁边算。

# %%
sources = [tokenizer.encode(date + "\3") for date in ("May 1, 2000", "Wednesday, September 20, 2000")]
batch, attention_mask = txt.pad(sources, 0)
start = np.zeros((2, 1), int)
with evaluating(model):
    alone = model(sources[0][None], start[:1]).numpy()[0]
    right = model(batch, start, attention_mask).numpy()[0]
    wrong = model(batch, start).numpy()[0]
print(
    say("difference with the mask {:.1g}, without {:.2f}", "有掩码相差 {:.1g}，没有则相差 {:.2f}").format(
        np.abs(right - alone).max(), np.abs(wrong - alone).max()
    )
)
np.testing.assert_allclose(right, alone, atol=1e-3)
assert np.abs(wrong - alone).max() > 0.02

# %% [markdown] lang="en"
# ## To take along
#
# - An encoder reads the source in both directions, a decoder writes with a causal mask, and cross-attention lets it
#   look at the source. The decoder's inputs are the labels, one place to the right.
# - Greedy takes the likeliest token, beams look for the likeliest text; compare texts by score per length.
# - T5: every task is text to text; pretrained by writing missing spans; positions are a bias on the scores that
#   depends on the distance alone.
#
# This lesson takes about 80 minutes; its cells run in about a minute.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 编码器从两个方向读原文，解码器带着因果掩码写，交叉注意力让它能看原文。解码器的输入是标签右移一位。
# - 贪心取最可能的词元，束搜索找最可能的文本；比较文本要看按长度折算的得分。
# - T5：所有任务都是文本到文本；靠写出缺失的片段来预训练；位置是得分上的偏置，只取决于距离。
#
# 本课大约需要 80 分钟；所有单元格大约一分钟运行完。
