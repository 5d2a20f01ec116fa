# ---
# jupyter:
#   lesson:
#     en: Softmax and cross-entropy
#     zh: softmax 与交叉熵
#     section: "4.1"
#     minutes: 40
# ---

# %% [markdown] lang="en"
# Scores become probabilities.

# %% [markdown] lang="zh"
# 得分变成概率。

# %%
import numpy as np

import tinytransformer as tt

x = np.array([2.0, 1.0, -1.0])
print(tt.softmax(x))

# %% exercise="softmax"
check(softmax)
