# ---
# jupyter:
#   lesson:
#     en: "BERT: hidden tokens"
#     zh: BERT：猜出被遮住的词元
#     section: "5.1"
#     minutes: 70
# ---

# %% [markdown] lang="en"
# "She sat down on the *bank* …" Of a river, or of money? Wait: "… and took off her shoes to feel the water." Readers
# use what comes after. A GPT cannot; its mask forbids it, because it has to write. A model that only has to
# **understand** may look both ways. That is BERT, section 5.1 of the document: an encoder that is bidirectional.
#
# But then "guess the next token" is no task any more: the next token is in plain sight. In this lesson you hide tokens
# instead, pretrain a small BERT on Python's own documentation, ask what it fills in, look at where it looks, and tune
# it to sort texts.

# %% [markdown] lang="zh"
# “他把头一*点*……”，是点头，还是一点钟？等一等：“……，表示同意。”人读句子时会用到后文。GPT 不行，掩码不许它看，因为它要写。
# 只需要**理解**的模型则可以看两边。这就是文档 5.1 节的 BERT：双向的编码器。
#
# 可是这样一来，“猜下一个词元”就不成其为题目了：下一个词元明摆着。本课改为把词元遮住：在 Python 自带的文档上预训练一个
# 小 BERT，问它空里填什么，看它往哪里看，再把它微调成一个给文本分类的模型。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer import text as txt
from tinytransformer.models import BERTConfig, BERTForPretraining
from tinytransformer.plotting import attention_map, bar_chart, loss_curve
from tinytransformer.tasks import Classification, MaskedLanguageModelling, TaskData
from tinytransformer.tasks.pretraining import DocumentTokens, documents_in, split_documents
from tinytransformer.training import Trainer, TrainingSettings, evaluating

# %% [markdown] lang="en"
# ## The text
#
# The topics of Python's manual and the docstrings of its standard library: some eight thousand short documents, with
# no download. A **WordPiece** tokenizer makes 600 tokens of them: whole words where they are frequent, and else
# pieces, of which those inside a word begin with `##`. Beside them there are special tokens: `[CLS]` begins each
# input, `[SEP]` ends each sentence, `[PAD]` fills up, `[MASK]` hides.

# %% [markdown] lang="zh"
# ## 文本
#
# Python 手册的条目和标准库的文档字符串：大约八千篇短文，不必下载。**WordPiece** 分词器从中得出 600 个词元：常见的词
# 整个是一个词元，其余拆成片段，词内部的片段以 `##` 开头。另外有特殊词元：`[CLS]` 开启每个输入，`[SEP]` 结束每个句子，
# `[PAD]` 填充，`[MASK]` 遮盖。

# %%
written = [*txt.stdlib_topics(), *txt.stdlib_docstrings()]
tokenizer = txt.WordPieceTokenizer.train("\n".join(written), 600)
print(txt.fingerprint("\n".join(written)), len(written))
print([tokenizer.tokens[i] for i in tokenizer.encode("Return a dictionary of the interpreter's modules.")])
assert len(written) > 3000

# %% [markdown] lang="en"
# ## Masked language modelling
#
# Choose 15 % of the tokens. They must be guessed, from all the others:
#
# $$
# L = -\frac{1}{|M|} \sum_{n \in M} \log P(x_n \mid \tilde{x})
# $$
#
# $M$ are the chosen places, $\tilde{x}$ is the text with these places disturbed: of the chosen, 80 % become `[MASK]`,
# 10 % a random token, 10 % stay as they are. Why not all `[MASK]`? In later use there is no `[MASK]`. A model that may
# rest wherever it sees none would be good at nothing else. So it must doubt every token, and know every token.
#
# **Guess first**: of 100,000 tokens, how many become `[MASK]`?

# %% [markdown] lang="zh"
# ## 遮盖语言模型
#
# 选出 15 % 的词元，要由其余的词元把它们猜出来：
#
# $$
# L = -\frac{1}{|M|} \sum_{n \in M} \log P(x_n \mid \tilde{x})
# $$
#
# $M$ 是选中的位置，$\tilde{x}$ 是在这些位置动过手脚的文本：选中的词元里，80 % 变成 `[MASK]`，10 % 换成随机词元，10 % 保持
# 原样。为什么不全用 `[MASK]`？因为以后使用时没有 `[MASK]`。如果模型在没有 `[MASK]` 的地方就可以偷懒，它别的什么都学不好。
# 所以它得怀疑每一个词元，也得懂每一个词元。
#
# **先猜一猜**：100,000 个词元中，有多少个变成 `[MASK]`？

# %% guess="12000"
my_masks = ...  # your guess

# %%
rng = np.random.default_rng(0)
plain = rng.integers(5, 600, size=100_000)  # ids 0 to 4 are the special tokens
disturbed, labels = txt.mask_tokens(plain, tokenizer.special_ids, tokenizer.mask_id, 600, rng)

chosen = labels != -100
masked = disturbed == tokenizer.mask_id
reveal(my_masks, int(masked.sum()), tolerance=500)
fates = {
    label("chosen", "选中"): chosen.mean(),
    label("… became [MASK]", "……变成 [MASK]"): masked.mean(),
    label("… became another token", "……换成别的词元"): (chosen & ~masked & (disturbed != plain)).mean(),
    label("… stayed", "……保持原样"): (chosen & (disturbed == plain)).mean(),
}
np.testing.assert_allclose(list(fates.values()), [0.15, 0.12, 0.015, 0.015], atol=0.006)
assert (labels[chosen] == plain[chosen]).all()
bar_chart(fates, title=label("parts of all tokens", "占全部词元的比例"))

# %% [markdown] lang="en"
# 15 % · 80 % = 12 %. The labels hold the original token where one was chosen, and −100, "does not count", elsewhere:
# the ignore index of lesson 2. Now in a sentence; run the cell again for other places.

# %% [markdown] lang="zh"
# 15 % · 80 % = 12 %。标签在选中的位置是原来的词元，其余是 −100，即“不计入”，就是第 2 课的忽略编号。下面放到句子里看；
# 再运行一次，遮住的位置就不同。

# %%
ids, _ = tokenizer.encode_pair(
    "Return the number of items in the list, or raise an error if there is no list."
)
disturbed, labels = txt.mask_tokens(ids, tokenizer.special_ids, tokenizer.mask_id, 600, rng, fraction=0.3)
print(" ".join(tokenizer.tokens[i] for i in disturbed))
print(say("to be guessed:", "要猜的："), [tokenizer.tokens[i] for i in labels[labels != -100]])
assert (disturbed[labels == -100] == ids[labels == -100]).all()

# %% exercise="mask_tokens"
check(mask_tokens)

# %% [markdown] lang="en"
# ## Next-sentence prediction
#
# Many tasks are about two texts: a question and an answer, a claim and its proof. So BERT reads **pairs**, and a
# second objective asks: does the second part follow the first in the text (0), or does it come from elsewhere (1)?
# The answer is read off at `[CLS]`. An embedding for the segment, A or B, tells the parts apart.

# %% [markdown] lang="zh"
# ## 下一句预测
#
# 许多任务涉及两段文本：问题与回答，论断与证明。所以 BERT 读的是**句对**，第二个训练目标问：第二部分在原文中紧跟第一部分
# （0），还是来自别处（1）？答案从 `[CLS]` 处读出。还有一个表示段落 A 或 B 的嵌入，用来区分两部分。

# %%
sentence_end = tokenizer.sep_id
tokens = np.concatenate([*DocumentTokens(tokenizer, sentence_end, sentences=True).encode_chunks(written)])
documents = documents_in(tokens, sentence_end)  # of each document its sentences
train, held_out = split_documents(documents, 0.1)
task = MaskedLanguageModelling(train, held_out, tokenizer, batch_size=32, max_length=32)

for pair in txt.sentence_pairs(train[40:60], tokenizer.cls_id, tokenizer.sep_id, 32, rng)[:4]:
    print(pair.label, tokenizer.decode(pair.ids))
    assert (np.diff(pair.token_type_ids) >= 0).all()

# %% [markdown] lang="en"
# ## Pretraining
#
# In lesson 8 you wrote the loop. From here on `Trainer` takes the steps: the same eight lines, with a schedule,
# clipping, evaluations and checkpoints. Two layers of 64 features read 32 pairs a step, for 1,200 steps.
#
# A GPT sees the token before at the very place where it guesses. At `[MASK]` a BERT sees nothing: before it can learn
# anything else, its attention must find the neighbours, among 32 places, and at first it looks at all of them alike. A
# large BERT spends thousands of steps on a plateau until it has found them. We have a minute, so we help it over: its
# queries and keys get the rotary positions of lesson 6 (as in newer BERTs), and the heads of the first layer begin with
# looking one place to the left or to the right. All the rest it has to find.
#
# What can be reached without any context? Whoever always says the most frequent token is right in about 3 percent.
# **Guess**: of the hidden tokens of held-out text, what percentage will our BERT get right?

# %% [markdown] lang="zh"
# ## 预训练
#
# 第 8 课你亲手写了循环。从现在起由 `Trainer` 来走这些步：还是那八行，加上学习率日程、裁剪、评估和检查点。一个两层、宽 64 的
# 模型，每步读 32 个句对，共 1,200 步。
#
# GPT 在要猜的那个位置上，就能看到前一个词元。BERT 在 `[MASK]` 处什么也看不到：要学别的，得先让注意力在 32 个位置中找到邻居，
# 而它一开始对所有位置一视同仁。大的 BERT 要在平台上走几千步才找得到。我们只有一分钟，所以扶它一把：查询和键用上第 6 课的旋转
# 位置（较新的 BERT 也这样做），第一层的各个头从看左边一位或右边一位开始。其余的都要它自己去找。
#
# 完全不看上下文能做到多好？永远回答最常见的那个词元，大约能对 3%。**猜一猜**：留出文本中被遮住的词元，我们的 BERT 能猜对
# 百分之多少？

# %% guess="23"
my_percentage = ...  # 0 to 100

# %%
config = BERTConfig(
    tokenizer.vocab_size, max_positions=64, d_model=64, num_layers=2, num_heads=4, d_ff=128, dropout=0.0
)


def new_bert(seed):
    """A BERT whose first layer begins with looking at the neighbours."""
    model = BERTForPretraining(config, np.random.default_rng(seed))
    for layer in model.encoder.layers:
        layer.self_attention.rope_theta = 10000.0  # rotary positions
    first = model.encoder.layers[0].self_attention
    ahead = [tt.rotary_positions(np.full((1, 16), 3.0), np.array([place]))[0] for place in (1, -1, 1, -1)]
    first.W_Q.bias.data[...] = 3.0  # the same query everywhere, rotated by its position;
    first.W_K.bias.data[...] = np.concatenate(ahead)  # keys one place further fit best, head by head
    return model


model = new_bert(0)
settings = TrainingSettings(steps=1200, learning_rate=4e-3, warmup=60, weight_decay=0.01)
trainer = Trainer(model, task, settings, tokenizer)
history = []
while trainer.step < settings.steps:
    history.append(trainer.train_step())
    if trainer.step % 400 == 0:
        scores = task.scores(model)
        history[-1]["validation_loss"] = scores["masked_loss"] + scores["next_sentence_loss"]
        print(trainer.step, {name: round(value, 2) for name, value in scores.items()})

# %%
guesses = task.baseline()
reveal(my_percentage, 100 * scores["masked_accuracy"], tolerance=5)
print(say("without context:", "不看上下文："), {name: round(value, 2) for name, value in guesses.items()})
assert scores["masked_loss"] < guesses["masked_loss"] - 0.7
assert scores["masked_accuracy"] > guesses["masked_accuracy"] + 0.1

# %% [markdown] lang="en"
# In the picture both losses are added, that of the tokens and that of the pairs. The dashed line is what can be had
# without context. **Look at the first 200 steps**: down to the line the model only learns how frequent tokens are; what
# it gains below the line it has read in the context.

# %% [markdown] lang="zh"
# 图中是两个损失之和：词元的和句对的。虚线是不看上下文所能达到的水平。**看前 200 步**：降到虚线为止，模型只是学会了各个词元
# 有多常见；虚线以下的部分，才是从上下文里读出来的。

# %%
loss_curve(
    history,
    baselines={
        label("without context", "不看上下文"): guesses["masked_loss"] + guesses["next_sentence_loss"]
    },
    unit=label("nats, tokens + pairs", "纳特，词元 + 句对"),
)

# %% [markdown] lang="en"
# And the pairs? A coin is right in half of them, and our model is not much better: to know what follows one must know what
# a text is about, while many tokens can be guessed from a neighbour. Later models dropped this objective and lost nothing
# (RoBERTa, Liu et al., 2019).
#
# ## What it fills in
#
# Write a sentence of your own with one `[MASK]`. The bars are the model's probabilities. Docstrings are all it has
# ever read, so ask about those.

# %% [markdown] lang="zh"
# 句对呢？抛硬币能对一半，我们的模型好不了多少：要知道后面该接什么，得懂文章在讲什么；而许多词元看看邻居就能猜到。后来的
# 模型去掉了这个目标，并没有变差（RoBERTa，Liu 等，2019）。
#
# ## 它填什么
#
# 写一个你自己的句子（英文），其中有一个 `[MASK]`。长条是模型给出的概率。它只读过文档字符串，就问它这方面的。


# %%
def fill(sentence, number=6):
    """The likeliest tokens at [MASK], with their probabilities."""
    ids = np.concatenate(
        [[tokenizer.cls_id], tokenizer.encode(sentence, allow_special=True), [tokenizer.sep_id]]
    )
    with evaluating(model):
        logits = model(ids[None]).logits.numpy()[0, ids == tokenizer.mask_id][0]  # (V,)
    p = tt.softmax(logits.astype(float))
    return {tokenizer.tokens[i]: p[i] for i in np.argsort(-p)[:number]}


my_sentence = "Return True if the object [MASK] a string."
bar_chart(fill(my_sentence), title=my_sentence)

# %% [markdown] lang="en"
# **Guess**: below, only words *after* `[MASK]` change. Do the probabilities at `[MASK]` change? Answer "yes" or "no".
# What would a GPT answer?

# %% [markdown] lang="zh"
# **猜一猜**：下面只改动 `[MASK]` *之后*的词。`[MASK]` 处的概率会变吗？回答 "yes" 或 "no"。换成 GPT 又会怎样？

# %% guess="\"yes\""
my_answer = ...  # "yes" or "no"

# %%
first = fill("Return the [MASK] of the file.")
second = fill("Return the [MASK] of items in the list.")
reveal(my_answer, "yes" if first != second else "no")
for found in (first, second):
    print({token: round(p, 2) for token, p in found.items()})
assert first != second

# %% [markdown] lang="en"
# In a GPT nothing would move, since what comes after is masked. In BERT everything depends on everything. That makes
# it the better reader, and no writer.
#
# ## Where it looks
#
# The attention of both layers on your sentence, the first above. Its heads were told to look left and right. The second
# layer was told nothing. `[MASK]` has no meaning of its own, so its row must get all from elsewhere. **Look at the row
# of** `[MASK]`: what does it take from where? And do the heads of the second layer agree with each other?

# %% [markdown] lang="zh"
# 在 GPT 里什么都不会动，因为后文被遮住了。在 BERT 里，一切都取决于一切。所以它更会读，却不会写。
#
# ## 它往哪里看
#
# 下面是两层在你的句子上的注意力，上面四个是第一层。我们叫第一层的头看左边和右边，对第二层什么也没说。`[MASK]` 本身没有意义，
# 所以它那一行只能全从别处取。**看** `[MASK]` **那一行**：它从哪里取了多少？第二层的各个头，看法一致吗？

# %%
ids = np.concatenate(
    [[tokenizer.cls_id], tokenizer.encode(my_sentence, allow_special=True), [tokenizer.sep_id]]
)
encoder = model.encoder
with evaluating(model):
    x = encoder.token_embedding(ids[None]) + encoder.position_embedding(np.arange(len(ids)))
    x = encoder.norm(x + encoder.segment_embedding(np.zeros((1, 1), int)))  # (1, T, d_model)
    weights = []
    for layer in encoder.layers:
        weights.append(layer.self_attention.attention_weights(x).numpy()[0])  # (heads, T, T)
        x = layer(x)
weights = np.concatenate(weights)  # heads 0 to 3 of the first layer, then those of the second
np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
attention_map(weights, [tokenizer.tokens[i] for i in ids])

# %% [markdown] lang="en"
# ## Fine-tuning
#
# Now the use of it all. Given the docstring of a function, which package is it from? Labelled texts are few; text
# without labels is plentiful, and the encoder has read it already. **Fine-tuning** takes the trained encoder, puts a
# new layer on the output at `[CLS]`, and goes on training with a small learning rate.
#
# To be fair, the same is done with an encoder that has read nothing: the same sizes, the same 400 texts, the same
# steps. **Guess**: which of the two does better on held-out texts, "trained" or "fresh"? And by how much?

# %% [markdown] lang="zh"
# ## 微调
#
# 现在派上用场。给出一个函数的文档字符串，它来自哪个包？带标签的文本不多；不带标签的文本很多，而编码器已经读过了。**微调**就是
# 取训练好的编码器，在 `[CLS]` 处的输出上加一个新的层，用较小的学习率继续训练。
#
# 为了公平，对一个什么都没读过的编码器做同样的事：大小相同，400 篇文本相同，步数相同。**猜一猜**：两者在留出文本上谁更好，
# "trained"（预训练过的）还是 "fresh"（全新的）？好多少？

# %% guess="\"trained\""
my_winner = ...  # "trained" or "fresh"

# %%
whole = Classification.default_data(seed=0)
order = np.random.default_rng(1).permutation(len(whole.train))[:400]
data = TaskData([whole.train[i] for i in order], whole.validation, whole.source)

accuracy = {}
for name, encoder in (("fresh", new_bert(3)), ("trained", model)):
    classifier = Classification.with_head(encoder, data, np.random.default_rng(4))
    sorting = Classification(data, classifier, tokenizer, batch_size=32, seed=0)
    steps = TrainingSettings(steps=120, learning_rate=1e-3, warmup=12, weight_decay=0.01)
    Trainer(classifier, sorting, steps, tokenizer).run(progress=False)
    accuracy[name] = sorting.score(classifier)["accuracy"]
always, scores = sorting.baseline()
accuracy[always] = scores["accuracy"]
reveal(my_winner, max(accuracy, key=accuracy.get))
assert min(accuracy.values()) > 0
bar_chart(accuracy, title=label("accuracy on held-out files", "留出文件上的准确率"))

# %% [markdown] lang="en"
# Compare three things: how far each is above the habit of always saying the same package, how far they are from
# each other, and how few texts 400 are. A model that has read for a minute knows which words go together, and little of
# what they mean; one that has read for weeks can be tuned with a few hundred examples. Run the cell with other seeds
# before you believe in a difference of a few percent.
#
# ## What goes wrong in practice
#
# - **Labels everywhere.** If tokens that can be seen count in the loss, it falls to 0.2 and the model has learned to
#   copy. The loss of honest masking stays far above that, for ever: some words cannot be guessed.
# - **Static masks.** The generator is made anew in each call with the same seed: each epoch hides the same places, and
#   they are learned by heart. Training loss falls, held-out loss rises.
# - **Special tokens hidden**, `[PAD]` above all: guessing padding is easy and looks like progress.
# - **Padding attended to.** Without `attention_mask` the result depends on how long the *other* texts of the batch are.
#   Test: a text alone and in a batch must give the same.
# - **Embedding before segment.** Two sentences without token types are one long sentence; the pair task then stays at
#   a coin's 50 %.
# - **A learning rate for starting used for tuning.** Ten times too large, it wipes out in fifty steps what was learned
#   in a million.
#
# The fourth in numbers: a text alone, and beside a longer one.

# %% [markdown] lang="zh"
# 比较三件事：两者各比“永远回答同一个包”高出多少，彼此相差多少，还要想到 400 篇文本是很少的。只读了一分钟的模型知道哪些词常在一起，
# 却不太懂它们的意思；读了几个星期的模型，用几百个例子就能微调好。如果只差几个百分点，先换几个随机种子再运行，然后再下结论。
#
# ## 实践中会出什么错
#
# - **处处都有标签。** 如果看得见的词元也计入损失，损失会降到 0.2，模型学会的只是抄写。老老实实遮盖时，损失永远远高于此：
#   有些词是猜不出来的。
# - **固定的遮盖。** 每次调用都用同一个种子新建生成器：每一轮遮的是同样的位置，模型就把它们背下来了。训练损失下降，留出文本上
#   的损失上升。
# - **遮住了特殊词元**，尤其是 `[PAD]`：猜填充很容易，看起来像是有进步。
# - **注意了填充。** 没有 `attention_mask`，结果会取决于批次里*别的*文本有多长。检验：一段文本单独算和放在批次里算，结果必须
#   相同。
# - **漏了段落编号。** 两个句子没有段落嵌入，就成了一个长句；句对任务只能停在抛硬币的 50 %。
# - **用预训练的学习率来微调。** 大了十倍，五十步就能抹掉一百万步学到的东西。
#
# 用数字看第四条：一段文本单独算，和放在一段更长的文本旁边算。

# %%
short, long = (
    tokenizer.encode_pair(s)[0] for s in ("Close the file.", "Return a list of all names in the module.")
)
batch, attention_mask = txt.pad([short, long], tokenizer.pad_id)
with evaluating(classifier):
    alone = classifier(short[None]).numpy()[0]
    right = classifier(batch, attention_mask).numpy()[0]
    wrong = classifier(batch).numpy()[0]
print(
    say("difference with the mask {:.1g}, without {:.2g}", "有掩码相差 {:.1g}，没有则相差 {:.2g}").format(
        np.abs(right - alone).max(), np.abs(wrong - alone).max()
    )
)
np.testing.assert_allclose(right, alone, atol=1e-4)
assert np.abs(wrong - alone).max() > 10 * np.abs(right - alone).max()

# %% [markdown] lang="en"
# ## To take along
#
# - BERT reads both ways, so it cannot guess the next token; it guesses hidden ones. 15 % are chosen, of these 80 %
#   become `[MASK]`, 10 % another token, 10 % stay; only the chosen count in the loss.
# - Pretraining needs no labels. Fine-tuning puts a small head on the trained encoder and needs few.
# - A reader, not a writer: for writing there is GPT, for reading *and* writing the next lesson.
#
# This lesson takes about 70 minutes; its cells run in one to two minutes.

# %% [markdown] lang="zh"
# ## 带走什么
#
# - BERT 往两边看，所以不能猜下一个词元，而是猜被遮住的。选中 15 %，其中 80 % 变成 `[MASK]`，10 % 换成别的词元，10 % 不变；
#   只有选中的计入损失。
# - 预训练不需要标签。微调是给训练好的编码器加一个小小的头，只需要少量标签。
# - 它会读，不会写。要写，有 GPT；又读*又*写，是下一课。
#
# 本课大约需要 70 分钟；所有单元格一两分钟运行完。
