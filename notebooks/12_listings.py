# ---
# jupyter:
#   lesson:
#     en: "The document's listings: run them, see them fail, repair them"
#     zh: 文档中的代码：运行、出错、修好
#     section: "5.1, 5.2"
#     minutes: 60
# ---

# %% [markdown] lang="en"
# Sections 5.1 and 5.2 of the document print a small `Bert` and a small `Gpt`. They look right. They cannot run, and
# once they run they are still wrong, in ways that no error message tells.
#
# That makes them a better exam than any we could invent. You have all it takes from lessons 3 to 9: shapes, masks,
# positions, causality. You will find the faults one by one, each by an experiment.

# %% [markdown] lang="zh"
# 文档第 5.1 和 5.2 节给出了一个小的 `Bert` 和一个小的 `Gpt`。它们看上去没问题，其实跑不起来；勉强跑起来之后，仍然有错，而且
# 没有任何报错会告诉你。
#
# 这比我们能编出来的任何考题都好。第 3 到第 9 课给了你所需的一切：形状、掩码、位置、因果。你将通过一个个实验把错误逐一找出来。

# %%
import numpy as np

import tinytransformer as tt
from tinytransformer import nn, optim
from tinytransformer.models.listings import Bert, Gpt
from tinytransformer.plotting import bar_chart

# %% [markdown] lang="en"
# ## The listing, as printed
#
# This is the class of section 5.1, line for line. Only the import differs: `nn` is ours, with PyTorch's names. (Our
# layers read `(batch, time, features)`; PyTorch's of these defaults read `(time, batch, features)`, which is one more
# trap in the printed code: the texts of a batch attend to one another. You met that mistake in lesson 4.)

# %% [markdown] lang="zh"
# ## 原样的代码
#
# 这就是 5.1 节的类，一行不改，只有导入不同：这里的 `nn` 是我们的，名字与 PyTorch 相同。（我们的层读入 `(batch, time,
# features)`；PyTorch 的这些层默认读入 `(time, batch, features)`，这是原代码的又一个陷阱：同一批的不同文本会互相注意。
# 第 4 课中你见过这个错误。）


# %%
class PrintedBert(nn.Module):
    def __init__(
        self, vocab_size, embedding_size, hidden_size, num_layers, num_attention_heads, num_output_classes
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.encoder = nn.ModuleList(
            [nn.TransformerEncoderLayer(hidden_size, num_attention_heads) for _ in range(num_layers)]
        )
        self.final_layer = nn.Linear(hidden_size, num_output_classes)

    def forward(self, input_ids, attention_mask):
        embedded = self.embedding(input_ids)
        encoded = self.encoder(embedded, attention_mask)
        output = self.final_layer(encoded)
        return output


def first_line(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


sizes = {
    "vocab_size": 100,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_layers": 2,
    "num_attention_heads": 4,
}
printed = PrintedBert(**sizes, num_output_classes=2)
input_ids = np.array([[5, 9, 2, 6, 7], [8, 3, 4, 0, 0]])  # two texts; the second is filled up with 0
attention_mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
print(say("it was built:", "构造成功："), f"{printed.num_parameters():,}")

# %% [markdown] lang="en"
# The constructor works. **Guess**: how many faults must be repaired before `forward` returns an array at all?

# %% [markdown] lang="zh"
# 构造函数没有问题。**猜一猜**：要修好几处错误，`forward` 才能返回一个数组？

# %% guess="3"
my_count = ...  # your guess

# %% [markdown] lang="en"
# ### Fault 1: a list of layers is called

# %% [markdown] lang="zh"
# ### 错误一：调用了一个层的列表

# %%
errors = []
try:
    printed(input_ids, attention_mask)
except Exception as error:
    errors.append(first_line(error))
    print(errors[-1])
assert len(errors) == 1

# %% [markdown] lang="en"
# A `ModuleList` holds layers, so that their parameters are found; it does not know what to do with an input. The
# repair: call each layer with what the one before it returned.

# %% [markdown] lang="zh"
# `ModuleList` 只保存各层，使它们的参数能被找到；它不知道该怎样处理输入。修法：依次调用每一层，输入是上一层的输出。


# %%
class Repaired1(PrintedBert):
    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        for layer in self.encoder:
            x = layer(x, attention_mask)
        return self.final_layer(x)


try:
    Repaired1(**sizes, num_output_classes=2)(input_ids, attention_mask)
except Exception as error:
    errors.append(first_line(error))
    print(errors[-1])
assert len(errors) == 2

# %% [markdown] lang="en"
# ### Fault 2: 16 features enter layers of 32
#
# In the document it is 128 and 512. In BERT both sizes are one number. If they are to differ, something must lead
# from one to the other: a linear map, as in ALBERT. It even saves parameters.
#
# **Guess**: with 10,000 tokens, embeddings of 128 and layers of 512, by what factor do the table and the map together
# have fewer parameters than a table of 512 features?

# %% [markdown] lang="zh"
# ### 错误二：16 个特征进入宽 32 的层
#
# 文档里是 128 和 512。BERT 中这两个大小是同一个数。若要不同，就得有东西把一个变成另一个：像 ALBERT 那样加一个线性变换。
# 它甚至更省参数。
#
# **猜一猜**：10,000 个词元、嵌入 128、层宽 512 时，小表加线性变换的参数量，是 512 宽的大表的几分之一（少几倍）？

# %% guess="3.8"
my_factor = ...  # your guess

# %%
direct, factorised = 10_000 * 512, 10_000 * 128 + 128 * 512
reveal(my_factor, direct / factorised, tolerance=0.4)
assert abs(direct / factorised - 3.8) < 0.1


# %%
class Repaired2(Repaired1):
    def __init__(self, vocab_size, embedding_size, hidden_size, *others):
        super().__init__(vocab_size, embedding_size, hidden_size, *others)
        self.projection = nn.Linear(embedding_size, hidden_size)

    def forward(self, input_ids, attention_mask):
        x = self.projection(self.embedding(input_ids))
        for layer in self.encoder:
            x = layer(x, attention_mask)
        return self.final_layer(x)


try:
    Repaired2(100, 16, 32, 2, 4, 2)(input_ids, attention_mask)
except Exception as error:
    errors.append(first_line(error))
    print(errors[-1])
assert len(errors) == 3

# %% [markdown] lang="en"
# ### Fault 3: one mask in the place of another
#
# `attention_mask` says which tokens are real: `(batch, time)`. A layer wants to know who may attend to whom:
# `(time, time)`, or with a batch. PyTorch refuses the shape too, unless there happen to be as many texts as tokens.
# Then it *adds* the ones and zeros to the scores: nothing is masked, and nothing is said.
#
# Here a mask has a type of its own, and the error above says so. The repair is one line.

# %% [markdown] lang="zh"
# ### 错误三：张冠李戴的掩码
#
# `attention_mask` 说的是哪些词元是真的：`(batch, time)`。层想知道的是谁可以注意谁：`(time, time)`，或再加一个批次轴。PyTorch
# 也会因形状拒绝它，除非文本数恰好等于词元数：那时它会把 1 和 0 *加*到得分上，什么也没遮住，也不报任何错。
#
# 在这里，掩码有自己的类型，上面的报错说的就是这个。修法只有一行。


# %%
class Repaired3(Repaired2):
    def forward(self, input_ids, attention_mask):
        x = self.projection(self.embedding(input_ids))
        mask = tt.Mask(attention_mask[:, None, :] == 1)  # (batch, 1, T_k): every query sees the real keys
        for layer in self.encoder:
            x = layer(x, mask)
        return self.final_layer(x)


model = Repaired3(100, 16, 32, 2, 4, 2).eval()
logits = model(input_ids, attention_mask)
print(logits.shape)
reveal(my_count, len(errors))
assert logits.shape == (2, 5, 2)

# %% [markdown] lang="en"
# ## It runs. Is it right?
#
# From here on nothing raises. Only experiments help: change something that must not matter, or must, and look.
#
# ### Fault 4: the order does not matter
#
# **Guess**: give the model the words in another order. What happens to the logits of each word? Answer "same" or
# "different".

# %% [markdown] lang="zh"
# ## 它跑起来了。它对吗？
#
# 从这里起不再有报错。只有实验能帮忙：改动一个本不该有影响的东西，或本该有影响的东西，然后观察。
#
# ### 错误四：顺序不起作用
#
# **猜一猜**：把词换一种顺序输入，每个词的 logits 会怎样？回答 "same"（不变）或 "different"（改变）。

# %% guess="\"same\""
my_answer = ...  # "same" or "different"

# %%
order = [3, 1, 4, 0, 2]
one, all_real = input_ids[:1], np.ones((1, 5), int)
moved = np.abs(model(one[:, order], all_real).numpy() - model(one, all_real).numpy()[:, order]).max()
print(f"{moved:.1e}")
reveal(my_answer, "same" if moved < 1e-4 else "different")
assert moved < 1e-4

# %% [markdown] lang="en"
# "Dog bites man" is "man bites dog". There are no positions anywhere. The repair: add the sinusoids of lesson 6 to
# the embeddings.
#
# ### Fault 5: Gpt is Bert
#
# The listing of section 5.2 is the same class without `hidden_size`. Nothing in it is causal, though section 3.2 asks
# for it: each token sees the one it is to predict. Change the last token and look at which outputs move.

# %% [markdown] lang="zh"
# “狗咬人”就是“人咬狗”。哪里都没有位置信息。修法：把第 6 课的正弦加到嵌入上。
#
# ### 错误五：Gpt 其实是 Bert
#
# 5.2 节的代码是同一个类，只少了 `hidden_size`。里面没有任何因果性，而 3.2 节正要求这一点：每个词元都看得见它该预测的那个。
# 改动最后一个词元，看哪些输出会动。

# %%
changed = one.copy()
changed[0, -1] = 1
printed_move = np.abs(model(changed, all_real).numpy() - model(one, all_real).numpy()).max(-1)[0]

gpt = Gpt(
    vocab_size=100, embedding_size=16, num_layers=2, num_attention_heads=4, num_output_classes=2, rng=0
).eval()
right_move = np.abs(gpt(changed).numpy() - gpt(one).numpy()).max(-1)[0]

moves = {f"{label('as printed', '原样')}: {t + 1}": float(m) for t, m in enumerate(printed_move)}
moves |= {f"{label('causal', '因果')}: {t + 1}": float(m) for t, m in enumerate(right_move)}
assert (printed_move > 1e-4).all()
assert (right_move[:4] == 0).all()
assert right_move[4] > 0
bar_chart(
    moves, title=label("how far each output moves when token 5 changes", "第 5 个词元改变时各输出移动多少")
)

# %% [markdown] lang="en"
# As printed, all five outputs move: the future leaks into every position. Such a model has a wonderful loss, because
# it copies the answer, and writes nonsense. In the repaired one, only the output of the changed token moves.
#
# ## The repaired pair
#
# `tinytransformer.models.listings` has both classes under the document's names. These calls are exactly as printed:

# %% [markdown] lang="zh"
# 原样的代码里，五个输出全都动了：未来泄漏到了每个位置。这样的模型损失漂亮极了，因为它在抄答案，写出来的却是胡话。修好之后，
# 只有被改动的词元自己的输出会动。
#
# ## 修好的一对
#
# `tinytransformer.models.listings` 中有这两个类，名字与文档相同。下面的调用与文档一字不差：

# %%
model = Bert(
    vocab_size=10000,
    embedding_size=128,
    hidden_size=512,
    num_layers=6,
    num_attention_heads=8,
    num_output_classes=2,
)
optimizer = optim.Adam(model.parameters())
print(f"Bert {model.num_parameters():,}", model.eval()(input_ids, attention_mask).shape)

model = Gpt(vocab_size=10000, embedding_size=128, num_layers=6, num_attention_heads=8, num_output_classes=2)
optimizer = optim.Adam(model.parameters())
print(f"Gpt  {model.num_parameters():,}", model.eval()(input_ids, attention_mask).shape)

# %% [markdown] lang="en"
# A last test: a text must get the same logits alone and in a batch with padding. And then the part that the document
# calls "training code" and leaves out: data, loss, steps. Thirteen random texts with random labels, to be learned by
# heart. **Guess** the loss after 30 steps; guessing at random has $\ln 2 \approx 0.69$.

# %% [markdown] lang="zh"
# 最后一项检验：一段文本单独输入，和与填充一起放进批次，logits 必须相同。然后是文档称为“训练代码”却没有写出的部分：数据、
# 损失、步骤。十三段随机文本配随机标签，要求背下来。**猜一猜** 30 步之后的损失；随机猜测是 $\ln 2 \approx 0.69$。

# %% guess="0.01"
my_loss = ...  # your guess

# %%
together, alone = model(input_ids, attention_mask).numpy(), model([[8, 3, 4]], [[1, 1, 1]]).numpy()
assert np.abs(together[1, :3] - alone[0]).max() < 1e-5

rng = np.random.default_rng(0)
ids, labels, real = rng.integers(0, 1000, (13, 7)), rng.integers(0, 2, 13), np.ones((13, 7), int)
small = Gpt(
    vocab_size=1000, embedding_size=64, num_layers=2, num_attention_heads=4, num_output_classes=2, rng=0
)
optimizer = optim.Adam(small.parameters())
for _ in range(30):
    optimizer.zero_grad()
    loss = tt.cross_entropy(small(ids, real)[:, -1], labels)  # the last token has seen the whole text
    loss.backward()
    optimizer.step()
reveal(my_loss, loss.item(), tolerance=0.05)
assert loss.item() < 0.1

# %% [markdown] lang="en"
# ## What goes wrong in practice
#
# - **Errors are the good case.** Three of the five faults raised. The other two give numbers of the right shape, and
#   the worst of them, the leak, gives a *better* loss.
# - **A shape that fits by accident.** The mask of fault 3 passes in PyTorch when batch equals time. Test with sizes
#   that are different primes.
# - **One test for each promise.** Order matters: permute. Causal: change the last token. Padding is harmless: alone
#   against in a batch. Every parameter learns: look for a gradient of `None`. Four tests, ten lines, and no fault of
#   this lesson gets through.
#
# What each printed line does under PyTorch itself is in the documentation, on the page about the listings.
#
# This lesson takes about an hour; its cells run in a few seconds.

# %% [markdown] lang="zh"
# ## 实践中会出什么错
#
# - **报错是好事。** 五处错误中有三处会报错。另外两处给出形状正确的数，而最糟的那处，即泄漏，损失反而*更好*。
# - **碰巧合得上的形状。** 错误三的掩码在批次大小等于长度时会通过 PyTorch。请用互不相同的素数作大小来测试。
# - **每个承诺一个测试。** 顺序起作用：打乱试试。因果：改动最后一个词元。填充无害：单独与成批对比。每个参数都在学：看有没有
#   梯度是 `None`。四个测试、十行代码，本课的任何错误都逃不过。
#
# 每一行原代码在 PyTorch 中的表现，见文档网站上关于这两段代码的页面。
#
# 本课大约需要一小时；所有单元格几秒钟就能运行完。
