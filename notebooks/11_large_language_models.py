# ---
# jupyter:
#   lesson:
#     en: From language model to large language model
#     zh: 从语言模型到大语言模型
#     section: "2.2"
#     minutes: 60
# ---

# %% [markdown] lang="en"
# What is the difference between a language model and a *large* language model? The document's answer (section 2.2 and
# the first question of its appendix): the number of parameters, and what pre-training with them makes possible.
#
# In this lesson you count parameters from a configuration alone, count the arithmetic of a training step, and measure
# a **scaling law** yourself: how the loss falls as models grow. At the end you adapt a model by training one part in
# a hundred of its weights.

# %% [markdown] lang="zh"
# 语言模型和*大*语言模型有什么区别？文档的回答（2.2 节和附录的第一个问题）是：参数的数量，以及用它们预训练之后所能做到的事。
#
# 本课中你将只凭配置算出参数量，算出一步训练的运算量，并亲手测出一条**缩放定律**：模型变大时损失如何下降。最后，你只训练
# 百分之一的权重来调整一个模型。

# %%
import time

import numpy as np

import tinytransformer as tt
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.nn import lora
from tinytransformer.optim import AdamW, WarmupCosine, clip_grad_norm
from tinytransformer.plotting import bar_chart
from tinytransformer.text import Batches, CharacterTokenizer, split, stdlib_documentation

# %% [markdown] lang="en"
# ## How many parameters?
#
# Count the matrices of one block with $d$ features: four of $d \times d$ for attention (queries, keys, values, output), and
# two of $d \times 4d$ in the feed-forward network. That is $4d^2 + 8d^2 = 12d^2$. With $L$ layers, and a table of $V$
# tokens:
#
# $$
# N \approx 12 L d^2 + V d
# $$
#
# **Guess** before you compute: GPT-2 has $L = 12$, $d = 768$, $V = 50257$. How many *million* parameters?

# %% [markdown] lang="zh"
# ## 有多少参数？
#
# 数一数一个宽度为 $d$ 的块里的矩阵：注意力有四个 $d \times d$ 的矩阵（查询、键、值、输出），前馈网络有两个 $d \times 4d$ 的。
# 合起来是 $4d^2 + 8d^2 = 12d^2$。共 $L$ 层，再加上 $V$ 个词元的表：
#
# $$
# N \approx 12 L d^2 + V d
# $$
#
# 计算之前先**猜一猜**：GPT-2 有 $L = 12$、$d = 768$、$V = 50257$。有多少*百万*个参数？

# %% guess="124"
my_millions = ...  # your guess

# %%
gpt2 = GPTConfig(vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
rule = 12 * 12 * 768**2 + 50257 * 768
print(f"{gpt2.num_parameters:,}", say("counted, rule of thumb", "实际，估算"), f"{rule:,}")
reveal(my_millions, gpt2.num_parameters / 1e6, tolerance=5)
assert abs(gpt2.num_parameters / 124.4e6 - 1) < 0.01
assert abs(rule / gpt2.num_parameters - 1) < 0.01

# %% [markdown] lang="en"
# Where do they lie? Look at the two ends of the picture: in a small model most of them are the table of tokens, in a
# large one almost all are in the blocks.

# %% [markdown] lang="zh"
# 它们都在哪里？看图的两端：小模型中大部分在词元表里，大模型中几乎全在各个块里。

# %%
families = {
    "GPT-2 (L 12, d 768)": (12, 768),
    "GPT-2 XL (L 48, d 1600)": (48, 1600),
    "GPT-3 (L 96, d 12288)": (96, 12288),
}
parts = {}
for name, (L, d) in families.items():
    in_blocks = 12 * L * d**2
    parts[f"{name}: {in_blocks / 1e9:.2f} + {50257 * d / 1e9:.2f} {label('billion', '十亿')}"] = in_blocks / (
        in_blocks + 50257 * d
    )
assert next(iter(parts.values())) < 0.7 < 0.99 < list(parts.values())[2]
bar_chart(parts, title=label("part of the parameters that is in blocks", "块中参数所占的比例"))

# %% [markdown] lang="en"
# ## How much arithmetic?
#
# Each weight is used once for each token: a multiplication and an addition. So forward takes about $2N$ operations a
# token. The way back takes twice that: once for the gradient of the input, once for that of the weight. Together:
#
# $$
# C \approx 6 N D
# $$
#
# for $D$ tokens. Measure it: from the time of a training step and this count comes the speed of your machine.

# %% [markdown] lang="zh"
# ## 有多少运算？
#
# 每个权重对每个词元用一次：一次乘法和一次加法。所以前向对每个词元约需 $2N$ 次运算。反向是它的两倍：一次求输入的梯度，一次求
# 权重的梯度。合起来，对 $D$ 个词元：
#
# $$
# C \approx 6 N D
# $$
#
# 来量一量：由一步训练的时间和这个数，可以得出你机器的速度。

# %%
text = stdlib_documentation()
tokenizer = CharacterTokenizer.train(text)
train, validation = split(tokenizer.encode(text))
V, context, batch_size = tokenizer.vocab_size, 32, 16


def train_gpt(width, steps, seed=0):
    """Train a GPT of two layers on a fixed number of tokens; return it, its loss on held-out text, and the time."""
    learning_rate = 0.008 * (32 / width) ** 0.5  # wider models want smaller steps
    config = GPTConfig(V, context, d_model=width, num_layers=2, num_heads=4)
    model = GPT(config, np.random.default_rng(seed))
    batches = Batches(train, batch_size, context, seed)
    optimizer = AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    schedule = WarmupCosine(learning_rate, steps // 5, steps)
    started = time.perf_counter()
    for step in range(steps):
        optimizer.lr = schedule(step)
        optimizer.zero_grad()
        model.loss(*batches(step)).backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - started
    with tt.no_grad():
        held_out = Batches(validation, 64, context, seed=1)
        loss = np.mean([model.loss(*held_out(k)).item() for k in range(12)])
    return model, loss, seconds


model, loss, seconds = train_gpt(64, 40)
N, D = model.num_parameters(), 40 * batch_size * context
print(f"N = {N:,}, D = {D:,}: {6 * N * D / 1e9:.1f} GFLOP, {6 * N * D / seconds / 1e9:.1f} GFLOP/s")

# %% [markdown] lang="en"
# ## A scaling law of your own
#
# Now the experiment. Four models, each twice as wide as the one before, all trained on the same number of
# tokens. Kaplan et al. (2020) found that the loss falls like a **power** of the number of parameters: a straight line
# when both axes are logarithmic,
#
# $$
# L(N) \approx \left(\frac{N_c}{N}\right)^{\alpha}
# $$
#
# **Guess** first: the largest model here has 64 times the parameters of the smallest. By how many percent is its
# loss lower?

# %% [markdown] lang="zh"
# ## 你自己的缩放定律
#
# 现在做实验。四个模型，每个比前一个宽一倍，都在同样多的词元上训练。Kaplan 等人（2020）发现损失按参数量的**幂**下降：两个坐标轴都取
# 对数时是一条直线，
#
# $$
# L(N) \approx \left(\frac{N_c}{N}\right)^{\alpha}
# $$
#
# 先**猜一猜**：这里最大的模型的参数量是最小的 64 倍。它的损失低百分之几？

# %% guess="20"
my_percent = ...  # your guess

# %%
widths = (8, 16, 32, 64)
sizes, losses = [], []
for width in widths:
    model, loss, seconds = train_gpt(width, 400)
    sizes.append(12 * 2 * width**2)  # what is in blocks
    losses.append(loss)
    print(
        f"d {width:>3}   {sizes[-1]:>7,} {say('parameters in blocks, loss', '块内参数，损失')} {loss:.3f}   {seconds:.1f} s"
    )
reveal(my_percent, 100 * (1 - losses[-1] / losses[0]), tolerance=5)
assert losses == sorted(losses, reverse=True)

# %%
slope, start = np.polyfit(np.log(sizes), np.log(losses), 1)
off = np.abs(np.exp(start + slope * np.log(sizes)) / losses - 1).max()
print(
    f"alpha = {-slope:.3f}",
    say("the line misses no point by more than", "直线与各点的偏差不超过"),
    f"{100 * off:.1f} %",
)
assert 0.02 < -slope < 0.2
assert off < 0.04
bar_chart(
    {f"{n:,}": loss for n, loss in zip(sizes, losses, strict=True)},
    title=label(
        "loss by parameters in blocks: equal steps down for equal factors",
        "损失与块内参数：参数按倍数增长，损失等比下降",
    ),
)

# %% [markdown] lang="en"
# Your exponent is of the size that large experiments found (0.076 for parameters in Kaplan et al., where the data never
# ran out). Small as it is, it is the reason for large models: **double the parameters, and the loss falls by the same
# factor as the last time**, over many powers of ten.
#
# What it does *not* say: that this is the best use of your arithmetic. With $C = 6ND$ fixed, a larger model sees fewer
# tokens. Hoffmann et al. (2022) found that both should grow together, about 20 tokens for each parameter. **Guess**: how
# many tokens, in *billions*, would that be for a model of 70 billion parameters?

# %% [markdown] lang="zh"
# 你的指数与大规模实验得到的同一量级（Kaplan 等人在数据从不枯竭的条件下得到参数指数 0.076）。它虽小，却正是大模型的理由：
# **参数每翻一倍，损失就按同样的比例再降一次**，跨越许多个数量级。
#
# 它*没有*说的是：这样使用运算量最划算。当 $C = 6ND$ 固定时，模型越大，看到的词元就越少。Hoffmann 等人（2022）发现两者应当
# 一起增长，每个参数大约配 20 个词元。**猜一猜**：对 700 亿参数的模型，这是多少个*十亿*词元？

# %% guess="1400"
my_tokens = ...  # your guess

# %%
tokens = 20 * 70e9
reveal(my_tokens, tokens / 1e9, tolerance=50)
work = 6 * 70e9 * tokens
print(
    f"{work:.1e}",
    say("operations; at 400 TFLOP/s on each of 1,000 GPUs:", "次运算；1,000 块 GPU、每块 400 TFLOP/s："),
    f"{work / 400e12 / 1000 / 86400:.0f}",
    say("days", "天"),
)
assert abs(work / 5.9e23 - 1) < 0.02

# %% [markdown] lang="en"
# ## Memory
#
# Training with AdamW in 32 bits keeps four numbers for each parameter: weight, gradient and two moments, 16 bytes. That is
# before a single activation.

# %% [markdown] lang="zh"
# ## 内存
#
# 用 32 位的 AdamW 训练，每个参数要保存四个数：权重、梯度和两个矩，共 16 字节。这还没算任何激活值。

# %%
for name, number in {"GPT-2": 124e6, "7 B": 7e9, "70 B": 70e9}.items():
    print(
        f"{name:<6} {16 * number / 1e9:>8,.0f} GB {say('to train', '训练')}  {2 * number / 1e9:>6,.1f} GB {say('to use in 16 bits', '以 16 位使用')}"
    )

# %% [markdown] lang="en"
# ## LoRA: adapt a large model by a small one
#
# Fine-tuning moves every weight. Hu et al. (2021) observed that the *change* can be of low rank: keep $W$ as it is, and
# train only two thin matrices,
#
# $$
# W' = W + \frac{\alpha}{r} A B, \qquad A \in \mathbb{R}^{d \times r},\ B \in \mathbb{R}^{r \times d}
# $$
#
# Let the last model of the experiment, which knows Python's documentation, learn the Zen of Python, which it has not
# seen. **Guess**: what part of its parameters does LoRA of rank 2 train, in percent?

# %% [markdown] lang="zh"
# ## LoRA：用小模型调整大模型
#
# 微调会动每一个权重。Hu 等人（2021）观察到，*改变量*可以是低秩的：保持 $W$ 不变，只训练两个瘦长的矩阵，
#
# $$
# W' = W + \frac{\alpha}{r} A B, \qquad A \in \mathbb{R}^{d \times r},\ B \in \mathbb{R}^{r \times d}
# $$
#
# 让实验中最后一个模型（它熟悉 Python 文档）学习它没见过的“Python 之禅”。**猜一猜**：秩为 2 的 LoRA 训练其参数的百分之几？

# %% guess="1"
my_part = ...  # your guess

# %%
import codecs
import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):
    import this
zen = tokenizer.encode("".join(c for c in codecs.decode(this.s, "rot13") if c in tokenizer.characters))
windows = np.stack([zen[i : i + context + 1] for i in range(0, len(zen) - context - 1, context)])
ids, targets = windows[:, :-1], windows[:, 1:]

before = model.loss(ids, targets).item()
everything = model.num_parameters()
lora.add(model, rank=2, alpha=4, rng=np.random.default_rng(0))
trained = [p for p in model.parameters() if p.requires_grad]
part = 100 * sum(p.size for p in trained) / everything
reveal(my_part, part, tolerance=0.5)

optimizer = AdamW(trained, lr=2e-2, weight_decay=0.0)
for _ in range(60):
    optimizer.zero_grad()
    model.loss(ids, targets).backward()
    optimizer.step()
after = model.loss(ids, targets).item()
print(f"{before:.2f} -> {after:.2f}")
assert after < before - 0.3
assert part < 1.5

lora.merge(model)
merged = model.loss(ids, targets).item()
print(say("merged into W, no slower than before:", "并入 W 之后，速度与之前一样："), f"{merged:.2f}")
assert abs(merged - after) < 1e-3

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **Comparing models that saw different numbers of tokens**, or with a learning rate that suits only one of them. A scaling
#   law is as good as the worst-tuned of its points.
# - **Reading a line beyond its ends.** Four small models say little about a hundred times their size; people fit over
#   several powers of ten, and are still surprised.
# - **Counting the table of tokens** as part of $N$ in small models: here it would bend the line.
# - **Data.** A law about size says nothing about what the text contains. A large model learns the biases of its data more
#   faithfully, not less (the document names this among the challenges, and privacy beside it).
#
# This lesson takes about an hour; its cells run in about a minute.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **比较看过不同数量词元的模型**，或用只适合其中一个的学习率。缩放定律的好坏取决于调得最差的那个点。
# - **把直线延伸到两端之外。** 四个小模型说明不了大一百倍的模型；人们在好几个数量级上拟合，仍会感到意外。
# - **在小模型中把词元表算进** $N$：在这里它会使直线弯曲。
# - **数据。** 关于规模的定律没有说文本里有什么。大模型会更忠实地学到数据中的偏见，而不是更少（文档把它列为挑战之一，与之并列的
#   还有隐私）。
#
# 本课大约需要一小时；所有单元格大约一分钟运行完。
