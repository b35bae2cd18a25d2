"""Words in the names of checkpoints, grouped by what they say about the number beside them.

All words are in lower case. No word decides on its own what a number means; the rule that uses a
list says what a missing word costs.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["step", "epoch", "tokens", "free"]
Unit = Literal["step", "epoch", "tokens", "samples"]  # what the steps of a run count


def _split(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that count where siblings differ in their numbers. `steps.py` has those that always count.
STEPS = _split(
    "step steps globalstep timestep timesteps iter iters iteration iterations it its update "
    "updates ba"
)
OTHER_COUNTS = _split(
    "episode episodes generation generations round cycle snapshot save checkpoint checkpoints "
    "ckpt chkpt chkpnt"
)
EPOCHS = _split("epoch epochs ep")
TOKENS = _split("tokens token tok toks")
SAMPLES = _split("samples sample examples kimg imgs")
COUNTING: dict[str, Kind] = {
    **dict.fromkeys(STEPS | OTHER_COUNTS, "step"),
    **dict.fromkeys(EPOCHS, "epoch"),
    **dict.fromkeys(TOKENS | SAMPLES, "tokens"),
}

# What is measured at a step.
MEASURES = _split(
    "loss val valid validation eval test train acc accuracy score reward return ppl perplexity bpb "
    "bleu rouge meteor f1 auc auroc map map50 map95 iou miou dice psnr ssim fid lpips mse mae rmse "
    "nll elbo cer wer err error top1 top5 r2 precision recall metric avg mean time timestamp"
)
# What distinguishes one training, or one part of a model, from another.
SETTINGS = _split(
    "seed seeds run runs exp expt experiment trial try attempt fold split rank shard part worker "
    "gpu device node host proc process size dim dims hidden width depth layer layers head heads lr "
    "wd rate bs alpha beta gamma lambda sigma r dropout temp temperature noise version v ver rev "
    "stage phase task class member ensemble config cfg variant expert experts level group cluster "
    "client user teacher student fp bf int bit bits res resolution px img ctx context len length "
    "seq max min total num n warmup topk job id idx no opt lora q"
)
# max_steps_1000 is a setting, not a step that the training reached.
LIMITS = _split("max min total num n warmup up save eval log lr every per")

# The last checkpoint, the best one, and copies.
ENDS = _split(
    "final finish finished last latest end ended done complete completed best newest main"
)
COPIES = _split("copy duplicate dup bak backup")
# Written after a training was resumed.
RESUMED = _split("resume resumed resuming continue continued continuing cont")
# Words that the name of any checkpoint may have.
PLAIN = _split(
    "of a model models checkpoint checkpoints ckpt weights weight state dict pytorch torch net "
    "network params save saved snapshot step steps epoch epochs iter iteration global"
)
