# ---
# jupyter:
#   lesson:
#     en: What a language model is
#     zh: 什么是语言模型
#     section: "2.1"
#     minutes: 45
# ---

# %% [markdown] lang="en"
# "Please turn off the …" You know how this may go on: *light*, *phone*, *radio*; hardly *elephant*. You could even
# bet on it. A **language model** is that knowledge as numbers: it says how probable each next word is, and so how
# probable a whole text is. The document puts it like this in section 2.1: it describes the relations of
# probability among the words of a language.
#
# In this lesson you build one with nothing but counting, on real text. You measure how good it is, let it write,
# and see why counting comes to an end. All later lessons mend what ends here.

# %% [markdown] lang="zh"
# “出门的时候，别忘了带……”后面会是什么，你心里有数：*钥匙*、*手机*、*雨伞*，总不会是*大象*。你甚至可以押注。
# **语言模型**就是把这种知识写成数字：它说出下一个词各有多大可能，从而说出整段文本有多大可能。文档 2.1 节是这样说的：
# 它描述了语言中不同词语间的概率关系。
#
# 本课中你只靠计数，在真实文本上造出一个语言模型，衡量它有多好，让它写几句话，再看看计数为什么会走到尽头。后面的各课，
# 解决的都是这里遇到的难题。

# %%
import collections
import re
from itertools import pairwise

import numpy as np

import tinytransformer as tt
from tinytransformer.plotting import bar_chart
from tinytransformer.text import fingerprint, stdlib_documentation

# %% [markdown] lang="en"
# ## A real text
#
# Every Python carries its own manual: what `help()` shows. That is nearly half a million characters of English,
# with no download. Runs of spaces and line ends become one space here. The text changes a little with the version
# of Python, so the first thing to print is a fingerprint: whoever wants your numbers needs your text.
#
# A model works on a sequence of **tokens**, numbered from 0 to $V-1$. Our tokens are single characters: $V$ is
# small, and every text can be written with them. The last tenth is put aside. The model never sees it; we need it
# for an honest exam.

# %% [markdown] lang="zh"
# ## 一段真实的文本
#
# 每个 Python 都自带一本手册，就是 `help()` 显示的内容：近五十万个字符的英文，不必下载。这里把连续的空格和换行并成一个
# 空格。这份文本随 Python 版本略有变化，所以首先打印它的指纹：别人要重现你的数字，就得有你的文本。
#
# 模型处理的是**词元**的序列，词元从 0 到 $V-1$ 编号。我们的词元是单个字符：$V$ 很小，而且什么文本都写得出来。
# 最后十分之一留出来，模型从不看它；要公正地考试，就得有它。

# %%
text = " ".join(stdlib_documentation().split())
alphabet = sorted(set(text))
number = {character: i for i, character in enumerate(alphabet)}
V = len(alphabet)

ids = np.array([number[character] for character in text])  # (N,)
cut = len(ids) * 9 // 10
train_ids, held_out_ids = ids[:cut], ids[cut:]
train_text, held_out_text = text[:cut], text[cut:]

print(fingerprint(text), "· V =", V)
print(train_text[1000:1200])
assert len(text) > 250_000
assert 90 < V < 130

# %% [markdown] lang="en"
# ## Counting what comes next
#
# How likely is *u* after *q*? Count how often *qu* stands in the text, and divide by how often *q* is followed by
# anything at all. This is the **bigram** model: the next token from the one before it.
#
# $$P(b \mid a) = \frac{\text{count}(ab)}{\sum_{c} \text{count}(ac)}$$
#
# **Guess first**: how many percent of all *q* in this manual are followed by *u*?

# %% [markdown] lang="zh"
# ## 数一数后面是什么
#
# *q* 后面是 *u* 的可能性有多大？数出 *qu* 在文本中出现多少次，除以 *q* 后面有字符的次数。这就是**二元语法**（bigram）
# 模型：由前一个词元推测下一个。
#
# $$P(b \mid a) = \frac{\text{count}(ab)}{\sum_{c} \text{count}(ac)}$$
#
# **先猜一猜**：在这本手册里，*q* 后面有百分之几是 *u*？

# %% guess="95"
my_percentage = ...  # your guess, 0 to 100

# %%
pairs = collections.Counter(pairwise(train_text))


def after(first):
    """What follows a character, the most frequent first."""
    found = collections.Counter({b: n for (a, b), n in pairs.items() if a == first})
    total = sum(found.values())
    return {b: n / total for b, n in found.most_common()}


reveal(my_percentage, 100 * after("q")["u"], tolerance=5)
assert 0.85 < after("q")["u"] < 1
print({b: round(p, 3) for b, p in after("q").items()})

# %% [markdown] lang="en"
# Nearly always, but not quite: this text is about programs, and names such as `seq_` end in *q*. A model of
# counts knows **its own text**, with all its habits, and nothing else.
#
# Now look at *t*. In the picture, look for how many characters share the probability: *q* is sure of what comes,
# *t* is not. (A space is drawn as ␣.)

# %% [markdown] lang="zh"
# 几乎总是，但不是全部：这份文本讲的是程序，像 `seq_` 这样的名字以 *q* 结尾。计数的模型了解**它自己的那份文本**，
# 连同其中所有的习惯，此外一无所知。
#
# 再看 *t*。看图时注意概率分给了多少个字符：*q* 对后面是什么很有把握，*t* 则没有。（空格画成 ␣。）

# %%
likely = dict(list(after("t").items())[:12])
bar_chart(likely, title=label("P(next character | t)", "t 之后各字符的概率"))

# %% [markdown] lang="en"
# ## The chain rule of probability
#
# A language model gives a probability to a **whole text**. How, when it only ever predicts one token? By the
# chain rule, which holds for every model and every text:
#
# $$P(x_1, \dots, x_T) = \prod_{t=1}^{T} P(x_t \mid x_1, \dots, x_{t-1})$$
#
# It is no assumption, only the definition $P(b \mid a) = P(a, b) / P(a)$ applied again and again. Check it on a
# language of ten sentences: the share of *she reads books* among them must be the product of three shares, each
# among the sentences that began that way.

# %% [markdown] lang="zh"
# ## 概率的链式法则
#
# 语言模型给**整段文本**一个概率。可它每次只预测一个词元，怎么做到？靠链式法则，它对任何模型、任何文本都成立：
#
# $$P(x_1, \dots, x_T) = \prod_{t=1}^{T} P(x_t \mid x_1, \dots, x_{t-1})$$
#
# 这不是假设，只是把定义 $P(b \mid a) = P(a, b) / P(a)$ 一次次用下去。拿一种只有十个句子的语言来验证：*she reads books*
# 在其中所占的比例，必须等于三个比例之积，每个比例都只在“开头相同”的句子里计算。

# %%
sentences = (
    ["she reads books"] * 3
    + ["she reads letters"]
    + ["she writes letters"] * 2
    + ["he reads books"]
    + ["he writes books"] * 3
)
words = ["she", "reads", "books"]
factors = []
for t in range(3):
    begun = [s for s in sentences if s.split()[:t] == words[:t]]
    factors.append(sum(s.split()[t] == words[t] for s in begun) / len(begun))
print(" × ".join(f"{p:.3g}" for p in factors), "=", round(np.prod(factors), 3))
print(say("share of the sentence itself:", "这个句子本身的比例："), sentences.count("she reads books") / 10)
assert abs(np.prod(factors) - 0.3) < 1e-12

# %% [markdown] lang="en"
# The bigram model comes in with a **cut**: of all that stands before a token it looks at the last one only. An
# n-gram model looks at the last $n-1$:
#
# $$P(x_t \mid x_1, \dots, x_{t-1}) \approx P(x_t \mid x_{t-n+1}, \dots, x_{t-1})$$
#
# *That* is an assumption, and a false one. The Transformer does without it: in lesson 8 it looks at all tokens of
# its window.
#
# One practical matter before we measure. Say each character has a probability of about 0.1, and the text has 400
# characters. **Guess** what Python prints for `0.1**400`.

# %% [markdown] lang="zh"
# 二元语法在这里**砍了一刀**：一个词元之前的全部内容，它只看最后一个。n 元语法看最后 $n-1$ 个：
#
# $$P(x_t \mid x_1, \dots, x_{t-1}) \approx P(x_t \mid x_{t-n+1}, \dots, x_{t-1})$$
#
# *这*才是假设，而且并不成立。Transformer 不需要它：在第 8 课里，它看得到窗口中的所有词元。
#
# 衡量之前还有一件实际的事。设每个字符的概率约为 0.1，文本有 400 个字符。**猜一猜** `0.1**400` 在 Python 里打印出什么。

# %% guess="0.0"
my_product = ...  # your guess

# %%
reveal(my_product, 0.1**400)
print(say("its logarithm:", "它的对数："), 400 * np.log(0.1))
assert 0.1**400 == 0.0

# %% [markdown] lang="en"
# The smallest float above 0 is about $10^{-323}$, and even half a page of text is less likely than that. So
# everyone adds logarithms instead of multiplying probabilities.
#
# ## How good is a model? Perplexity
#
# A good model is not surprised by text it has never seen: it gave high probability to what came. The **surprise**
# at a token is $-\log P$; its mean is the cross-entropy of lesson 2, and $e$ to that mean is the **perplexity**:
#
# $$\text{perplexity} = \exp\left(-\frac{1}{T} \sum_{t=1}^{T} \log P(x_t \mid x_1, \dots, x_{t-1})\right)$$
#
# Read it as a number of choices: perplexity 6 is as unsure as the throw of a fair die. A model that knows nothing
# and gives $1/V$ to each token has perplexity $V$; one that is always sure and right has 1.
#
# **Guess**: in a dry place the sun shines on 9 days of 10, in no order. A model says "sun, 0.9" every day. What is
# its perplexity? (A coin has 2.)

# %% [markdown] lang="zh"
# 大于 0 的最小浮点数约为 $10^{-323}$，而半页文字的概率就比它还小。所以大家都把对数相加，而不是把概率相乘。
#
# ## 模型有多好？困惑度
#
# 好的模型面对没见过的文本不会吃惊：实际出现的词元，它事先给了高概率。对一个词元的**惊讶**是 $-\log P$；其平均就是第 2 课的
# 交叉熵；$e$ 的这个平均值次方，就是**困惑度**（perplexity）：
#
# $$\text{perplexity} = \exp\left(-\frac{1}{T} \sum_{t=1}^{T} \log P(x_t \mid x_1, \dots, x_{t-1})\right)$$
#
# 可以把它读作“有几个选择”：困惑度为 6，就像掷一枚公平的骰子那样没把握。一无所知、给每个词元 $1/V$ 的模型，困惑度为 $V$；
# 永远有把握而且总是对的，困惑度为 1。
#
# **猜一猜**：某个干燥的地方，十天里有九天出太阳，没有先后规律。模型每天都说“出太阳，0.9”。它的困惑度是多少？（抛硬币是 2。）

# %% guess="1.4"
my_perplexity = ...  # your guess

# %%
surprise = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))  # mean over many days
reveal(my_perplexity, np.exp(surprise), tolerance=0.1)
assert abs(np.exp(surprise) - 1.384) < 0.001

# %% [markdown] lang="en"
# For characters one often gives the mean surprise with the logarithm to base 2, in **bits per character**: the
# perplexity is 2 to that. It is also how small a perfect packing program could make the text, if it used this
# model: a good model and a good compressor are the same thing.
#
# ## The library's model
#
# What is the perplexity of the plain bigram model on the held-out text? Infinite: it holds at least one pair that
# never stood in the training text, and one zero spoils the product. The way out is to **mix**: trust the bigram
# mostly, the frequency of single characters a little, and give a very small share to "anything is possible":
#
# $$P(b \mid a) = \lambda_0 \frac{1}{V} + \lambda_1 \frac{\text{count}(b)}{N} + \lambda_2 \frac{\text{count}(ab)}{\sum_c \text{count}(ac)}$$
#
# This is what [NGram](tinytransformer.models.ngram.NGram) does, for any n. It chooses the shares $\lambda$ on a part
# of the training text that it keeps aside for that. Here is the same by hand, and the two must agree.

# %% [markdown] lang="zh"
# 对字符常用以 2 为底的对数，给出平均惊讶，单位是**比特每字符**：2 的这个次方就是困惑度。它也是一个完美的压缩程序用这个模型能把
# 文本压到多小：好的模型与好的压缩器是一回事。
#
# ## 库中的模型
#
# 单纯的二元语法在留出文本上困惑度是多少？无穷大：其中至少有一对字符在训练文本里从没出现过，一个零就毁了整个乘积。出路是**混合**：
# 主要相信二元语法，稍微相信单个字符的频率，再拿出极小的一份给“什么都有可能”：
#
# $$P(b \mid a) = \lambda_0 \frac{1}{V} + \lambda_1 \frac{\text{count}(b)}{N} + \lambda_2 \frac{\text{count}(ab)}{\sum_c \text{count}(ac)}$$
#
# [NGram](tinytransformer.models.ngram.NGram) 正是这样做的，n 可以任取。份额 $\lambda$ 由它从训练文本中另留一部分来选定。
# 下面手工算一遍，两者必须一致。

# %%
bigram = tt.models.NGram(order=2, vocab_size=V).fit(train_ids)
print("λ =", bigram.weights.round(4))

singles = collections.Counter(train_text)
by_hand = np.array(
    [
        bigram.weights[0] / V
        + bigram.weights[1] * singles[b] / len(train_text)
        + bigram.weights[2] * after("q").get(b, 0)
        for b in alphabet
    ]
)  # (V,)
np.testing.assert_allclose(bigram.probabilities([number["q"]]), by_hand)
print(say("by hand and by the library: the same; sum", "手算与库的结果一致；和为"), by_hand.sum().round(12))

never_seen = {pair for pair in pairwise(held_out_text) if pair not in pairs}
print(
    say("pairs in the held-out text that were never seen:", "留出文本中从未见过的字符对："), len(never_seen)
)
print(say("perplexity on it:", "在它上面的困惑度："), round(bigram.perplexity(held_out_ids), 1))
assert len(never_seen) > 0
assert 8 < bigram.perplexity(held_out_ids) < 20

# %% [markdown] lang="en"
# From about 100 equal choices down to about a dozen, by nothing but pairs.
#
# ## Where does a text surprise the model?
#
# Write an English sentence of your own; a model that looks at four characters reads it. The picture shows the
# surprise at each character, in bits. **Look for the long bars**: where do they stand within the words?

# %% [markdown] lang="zh"
# 只靠字符对，就从大约 100 个均等的选择降到了十来个。
#
# ## 文本在哪里让模型吃惊？
#
# 写一句你自己的英文（这份文本是英文的）；一个看前四个字符的模型来读它。图中是对每个字符的惊讶，单位为比特。
# **找一找长的条**：它们在单词的什么位置？

# %%
sentence = "the function returns a green elephant"
known = [character for character in sentence if character in number]
fivegram = tt.models.NGram(order=5, vocab_size=V).fit(train_ids)
bits = -fivegram.log_probabilities([number[c] for c in known]) / np.log(2)  # (T,)
print(say("mean over the sentence: {:.2f} bits", "全句平均：{:.2f} 比特").format(bits.mean()))
bar_chart(
    {f"{t} {c.replace(' ', '␣')}": b for t, (c, b) in enumerate(zip(known, bits, strict=True))},
    title=label("surprise in bits", "惊讶（比特）"),
)

# %% [markdown] lang="en"
# The surprise stands at the **beginnings** of words, and at words that do not belong: after *func* the rest of
# *function* is no news. The information of a text is not spread evenly, and a model spends its probability where
# it counts.
#
# ## Let it write
#
# A model of the next token is also a writer: draw a token from its probabilities, append it, go on. Read the six
# samples below. **Guess** before: from which n on (1 to 6) are more than 45 percent of the words of four or more
# letters real words, that stand in the manual?

# %% [markdown] lang="zh"
# 惊讶集中在单词的**开头**，以及不该出现的词：看到 *func*，*function* 的后半截就不是新闻了。一段文本的信息并不是均匀分布的，
# 模型把概率花在要紧的地方。
#
# ## 让它来写
#
# 能预测下一个词元的模型也能写作：按它的概率抽一个词元，接上去，再抽下一个。请读下面的六段样本。**先猜一猜**：从哪个 n（1 到 6）起，
# 四个字母以上的“单词”有 45 % 以上是手册里真有的词？

# %% guess="5"
my_order = ...  # your guess, 1 to 6

# %%
rng = np.random.default_rng(0)
vocabulary = set(re.findall("[a-z]{4,}", text))
shares = {}
models = {n: tt.models.NGram(order=n, vocab_size=V).fit(train_ids) for n in (1, 2, 3, 4, 5, 6)}
for n, model in models.items():
    sample = "".join(alphabet[i] for i in model.sample(5000, rng))
    found = re.findall("[a-z]{4,}", sample)
    shares[n] = sum(word in vocabulary for word in found) / len(found)
    print(f"n = {n}:", sample[:110])
reveal(my_order, min(n for n in shares if shares[n] > 0.45), tolerance=0.5)
print(say("real words:", "真词的比例："), {n: round(share, 2) for n, share in shares.items()})
assert shares[2] < 0.1
assert shares[6] > 0.45

# %% [markdown] lang="en"
# With n = 1 it knows letters, with 3 syllables, with 5 or 6 words and turns of phrase. The sense never lasts: the
# model does not know what it wrote six characters ago. Why not simply take n = 20?
#
# ## Why counting comes to an end
#
# There are $V^n$ sequences of n tokens. With 100 characters and n = 8 that is $10^{16}$; our text holds about
# $4 \cdot 10^5$ places. Nearly everything that could be said was never said before, and it is worse with words.
#
# **Guess**: how many percent of the runs of three words in the held-out text never occur in the training text,
# though it is the same manual?

# %% [markdown] lang="zh"
# n = 1 时它认得字母，3 时认得音节，5、6 时认得单词和短语。但意思总是连不下去：六个字符以前写了什么，模型并不知道。
# 为什么不干脆取 n = 20？
#
# ## 计数为什么会走到尽头
#
# n 个词元的序列共有 $V^n$ 种。100 个字符、n = 8 时就有 $10^{16}$ 种，而我们的文本只有约 $4 \cdot 10^5$ 个位置。
# 能说的话几乎都还没人说过，换成单词就更是如此。
#
# **猜一猜**：留出文本中连续三个单词的组合，有百分之几在训练文本中从未出现？要知道，它们出自同一本手册。

# %% guess="75"
my_unseen = ...  # your guess, 0 to 100


# %%
def runs(some_words, n):
    return zip(*(some_words[i:] for i in range(n)), strict=False)


old_words, new_words = train_text.split(), held_out_text.split()
unseen = {}
for n in (1, 2, 3, 4, 5, 6):
    seen = set(runs(old_words, n))
    unseen[n] = 100 * np.mean([run not in seen for run in runs(new_words, n)])
reveal(my_unseen, unseen[3], tolerance=10)
assert 40 < unseen[3] < 95
assert all(unseen[n] < unseen[n + 1] for n in range(1, 6))
bar_chart(
    {f"n = {n}": share for n, share in unseen.items()},
    title=label("runs of n words never seen before, percent", "从未见过的 n 词组合，百分比"),
)

# %% [markdown] lang="en"
# A context that was never seen has no counts, and the model falls back on shorter ones. See what that does to the
# bits per character. The picture has two bars for each n: on the training text and on the held-out text. **Look
# at the gap.**

# %% [markdown] lang="zh"
# 没见过的上下文就没有计数，模型只好退回到较短的上下文。看看这对比特每字符有什么影响。图中每个 n 有两条：训练文本上的和留出文本上的。
# **看两者的差距。**

# %%
bits_per_character = {}
gaps = {}
for n, model in models.items():
    inside, outside = (model.cross_entropy(part) / np.log(2) for part in (train_ids, held_out_ids))
    bits_per_character[label(f"n = {n}, training", f"n = {n}，训练")] = inside
    bits_per_character[label(f"n = {n}, held out", f"n = {n}，留出")] = outside
    gaps[n] = outside - inside
assert gaps[6] > 0.4 > abs(gaps[2])
assert models[6].cross_entropy(held_out_ids) < models[2].cross_entropy(held_out_ids)
bar_chart(bits_per_character, title=label("bits per character", "比特每字符"))

# %% [markdown] lang="en"
# On its own text the model gets better and better: it learns the manual by heart. On new text the gain dries up.
# That gap is **overfitting**, and it is why the exam is held on text that was put aside.
#
# There is a deeper reason than lack of text. To a table of counts, *cat* and *dog* are two numbers with nothing
# in common. What it learned of one it cannot use for the other:

# %% [markdown] lang="zh"
# 在自己的文本上，模型越来越好：它在背手册。在新文本上，收益却渐渐枯竭。这个差距就是**过拟合**，所以考试要用留出来的文本。
#
# 除了文本不够，还有更深的原因。对计数表来说，“猫”和“狗”是两个毫不相干的编号。从一个词学到的东西，用不到另一个词上：

# %%
tale = """the cat sleeps . the cat eats . the cat runs .
the dog sleeps . the dog eats . the fish swims ."""
story = tale.split()
names = sorted(set(story))
told = np.array([names.index(word) for word in story])
reader = tt.models.NGram(order=2, vocab_size=len(names)).fit(told)
p = dict(zip(names, reader.probabilities([names.index("dog")]), strict=True))
print(
    say("after dog: runs {:.3f}, swims {:.3f}", "dog 之后：runs {:.3f}，swims {:.3f}").format(
        p["runs"], p["swims"]
    )
)
assert abs(p["runs"] - p["swims"]) < 1e-12

# %% [markdown] lang="en"
# The dog sleeps and eats as the cat does, and yet *the dog runs* is no likelier to it than *the dog swims*. A **neural**
# language model gives each word a vector (lesson 6) and computes the next word from vectors: words that are used
# alike get vectors that are alike, and a context that was never seen still lies near one that was. That, and
# looking back farther than six characters, is what the rest of the course is about.
#
# ## Your turn
#
# Two functions: the table of a bigram model, and the perplexity it gives to a text. The check tells you at once,
# and names the mistake if it knows it. Two things to think of: arrays of indices may hold the same place twice,
# and a long product of probabilities is 0.

# %% [markdown] lang="zh"
# 狗和猫一样吃、一样睡，可在它看来，*the dog runs* 并不比 *the dog swims* 更有可能。**神经**语言模型给每个词一个向量（第 6 课），
# 由向量算出下一个词：用法相近的词得到相近的向量，没见过的上下文也总落在某个见过的附近。这一点，加上能看到六个字符以外，
# 就是这门课其余部分的内容。
#
# ## 轮到你了
#
# 两个函数：二元语法模型的概率表，以及它对一段文本的困惑度。检查会立即告诉你结果，如果认得你的错误，还会说出它的名字。
# 要想到两件事：下标数组里同一个位置可能出现两次；很多概率连乘会得 0。

# %% exercise="bigram_probabilities"
check(bigram_probabilities)

# %% exercise="perplexity"
check(perplexity)

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **The exam was in the training text.** Copies of the same page stand in both parts, and the model shines by
#   memory. Symptom: numbers too good to be true, which do not hold for users. Look for long passages that stand in
#   both; the cell below does, and finds some even here.
# - **Comparing perplexities of different tokens.** Perplexity is *per token*. A model of characters with 3.6 and
#   one of words with 1,150 are equally good: a word of 4.5 characters and a space costs $3.6^{5.5}$. Compare bits
#   per character, or bits per byte.
# - **Another alphabet.** A character that was not in the training text has no number at all. Byte-level tokens
#   (lesson 8) do not have this problem.
# - **A zero.** One event of probability 0, and the perplexity of a whole book is infinite. Mix or smooth.
# - **Mean of perplexities.** $e$ to the mean of logarithms is not the mean of $e$ to the logarithms. Average the
#   logarithms over *all tokens*, then take the exponential once.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **考题就在训练文本里。** 同一页的副本在两部分里都有，模型靠记忆出彩。症状：数字好得不像真的，到用户手里却不灵。
#   要找两边都有的长段落；下面的单元格就来找，连这里也找得到一些。
# - **拿不同词元的困惑度相比。** 困惑度是*每个词元*的。字符模型的 3.6 与单词模型的 1150 一样好：一个 4.5 个字符的单词加一个空格，
#   代价是 $3.6^{5.5}$。应当比较比特每字符，或比特每字节。
# - **字母表不同。** 训练文本里没有的字符根本没有编号。字节级词元（第 8 课）没有这个问题。
# - **出现一个零。** 只要有一处概率为 0，整本书的困惑度就是无穷大。要混合或平滑。
# - **对困惑度求平均。** 对数的平均再取 $e$ 的幂，不等于幂的平均。应先对*所有词元*的对数求平均，最后只取一次幂。

# %%
n = 60
passages = {train_text[i : i + n] for i in range(len(train_text) - n)}
places = range(0, len(held_out_text) - n, 5)
copied = 100 * np.mean([held_out_text[i : i + n] in passages for i in places])
print(
    say(
        "{:.0f} % of the passages of 60 characters in the held-out text also stand in the training text",
        "留出文本中长 60 个字符的段落，有 {:.0f} % 也在训练文本里",
    ).format(copied)
)
assert 1 < copied < 50
print("3.6 ** 5.5 =", round(3.6**5.5))
assert 1000 < 3.6**5.5 < 1300

# %% [markdown] lang="en"
# ## To take along
#
# - A language model gives probabilities to texts; the chain rule makes that one prediction for each token.
# - Perplexity is $e$ to the mean surprise: the number of equal choices the model is as unsure as. It is measured
#   on text the model has not seen, and compared only between models of the same tokens.
# - Counting fails where contexts get long: nearly all of them are new, and counts know no similarity.
#
# This lesson takes about 45 minutes; its cells run in under 20 seconds.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - 语言模型给文本以概率；链式法则把它变成对每个词元的一次预测。
# - 困惑度是 $e$ 的平均惊讶次方：模型的没把握程度，相当于在这么多个均等的选择里挑一个。要在没见过的文本上衡量，
#   而且只有词元相同的模型之间才能比较。
# - 上下文一长，计数就失灵：几乎所有上下文都是新的，而计数不懂得相似。
#
# 本课大约需要 45 分钟；所有单元格 20 秒内就能运行完。
