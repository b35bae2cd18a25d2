"""Text for the methods section of a paper: what was computed, how, and after whose definitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rankscope.results.columns import ANALYSIS_RECORD
from rankscope.results.record import read_record
from rankscope.results.results import Results


@dataclass(frozen=True)
class Reference:
    """A source, as a reader would look it up."""

    key: str
    text: str


EFFECTIVE_RANK = Reference(
    "Roy and Vetterli (2007)",
    "O. Roy and M. Vetterli. The effective rank: a measure of effective dimensionality. EUSIPCO "
    "2007.",
)
PER = Reference(
    "Diehl Martinez et al. (2024)",
    "R. Diehl Martinez, P. Lesci and P. Buttery. Tending Towards Stability: Convergence Challenges "
    "in Small Language Models. Findings of EMNLP 2024.",
)
STUDY = Reference(
    "Weiss et al. (2025)",
    "Y. Weiss et al. Investigating ReLoRA: Effects on the Learning Dynamics of Small Language "
    "Models. BlackboxNLP 2025.",
)
WEDIN = Reference(
    "Wedin (1972)",
    "P.-Å. Wedin. Perturbation bounds in connection with singular value decomposition. BIT 12 "
    "(1972), 99–111.",
)
INTRUDERS = Reference(
    "Shuttleworth et al. (2024)",
    "R. Shuttleworth et al. LoRA vs Full Fine-tuning: An Illusion of Equivalence. "
    "arXiv:2410.21228.",
)
RANKME = Reference(
    "Garrido et al. (2023)",
    "Q. Garrido, R. Balestriero, L. Najman and Y. LeCun. RankMe: Assessing the downstream "
    "performance of pretrained self-supervised representations by their rank. ICML 2023.",
)
CKA = Reference(
    "Kornblith et al. (2019)",
    "S. Kornblith, M. Norouzi, H. Lee and G. Hinton. Similarity of neural network representations "
    "revisited. ICML 2019.",
)
NOISE = Reference(
    "Bandeira and van Handel (2016)",
    "A. Bandeira and R. van Handel. Sharp nonasymptotic bounds on the norm of random matrices with "
    "independent entries. Ann. Probab. 44 (2016), 2479.",
)


@dataclass(frozen=True)
class Methods:
    """Paragraphs to paste, and the references that they name."""

    paragraphs: list[str]
    references: list[Reference]


def methods(results: Results, versions: Mapping[str, Any]) -> Methods:
    """What the results were computed by; only what they really hold is described."""
    references = [EFFECTIVE_RANK, PER, STUDY, NOISE]
    counts = _checkpoints(results)
    low, high = min(counts), max(counts)
    span = f"{low} to {high} checkpoints" if low < high else f"{high} checkpoint{'s'[: high != 1]}"
    runs = "1 run" if len(counts) == 1 else f"{len(counts)} runs"
    paragraphs = [
        f"We analysed {runs} with {span}{' each' if len(counts) > 1 else ''}, using rankscope "
        f"{versions.get('rankscope', '')} (NumPy {versions.get('numpy', '?')}). Singular values "
        "were computed in float64, each with an interval that contains the exact value of the "
        "matrix as it is stored. Products of factors, such as adapters and attention circuits, "
        "were decomposed from their factors.",
        "The proportional effective rank (PER; Roy and Vetterli 2007; Diehl Martinez et al. 2024) "
        "is exp(−Σ pᵢ ln pᵢ)/min(m, n), where pᵢ is the share of the i-th singular value in their "
        "sum. Condition numbers are the largest singular value over the smallest; for changes and "
        "products of low rank r, over the r-th (κ_r). Values that the rounding of the storage "
        "format may have produced (Bandeira and van Handel 2016) are reported as such and not "
        "counted in ranks. The measures follow Weiss et al. (2025).",
    ]
    subspaces = results.subspaces
    if len(subspaces):
        references += [WEDIN, INTRUDERS]
        overlaps = subspaces[subspaces["measure"] == "overlap"]
        sizes = ", ".join(str(k) for k in sorted(overlaps["k"].unique()) if k)
        paragraphs.append(
            f"Leading singular subspaces were compared by ‖UₖᵀU′ₖ‖²_F/k with k of {sizes}, with "
            "an error bound after Wedin (1972), and with the value that a random change of the "
            "same norm gives. Intruder dimensions follow Shuttleworth et al. (2024): among the ten "
            "leading left vectors, those whose cosine with every earlier vector is below 0.5."
        )
    if results.representations["tokens"].notna().any():
        references += [RANKME]
        paragraphs.append(_on_features(results.representations))
    if len(results.similarities):
        references += [CKA]
        paragraphs.append(
            "Features of the same tokens were compared by linear CKA (Kornblith et al. 2019), with "
            "estimates of HSIC over tokens of different documents only, so that unrelated features "
            "have 0 on average, and with intervals that leave out one block of documents at a time."
        )
    if len(results.evaluation):
        tasks = ", ".join(sorted(results.evaluation["task"].unique()))
        paragraphs.append(
            f"Performance was measured on {tasks}; intervals are at the level of 95 %."
        )
    return Methods(paragraphs, references)


def _on_features(table: pd.DataFrame) -> str:
    counts = sorted({*table["tokens"].dropna().astype(int)})
    tokens = " to ".join(dict.fromkeys(f"{count} tokens" for count in (counts[0], counts[-1])))
    texts = ", ".join(sorted(table["text"].dropna().unique()))
    same = "the same" if table["probe"].nunique() == 1 else "its"
    return (
        f"Every checkpoint read {same} {tokens} of {texts}. The rank of features is RankMe "
        "(Garrido et al. 2023) without its constant: exp(−Σ pᵢ ln pᵢ), where pᵢ is the share of a "
        "singular value of the uncentred features of a layer in the sum of all. Intervals are 95 % "
        "over 16 blocks of documents."
    )


def _checkpoints(results: Results) -> list[int]:
    """How many checkpoints of each run have rows; recorded merges have separate steps."""
    record = read_record(results.path / ANALYSIS_RECORD)
    saved = {
        str(run.get("name")): {checkpoint["step"] for checkpoint in run.get("checkpoints", ())}
        for run in record.get("runs", ())
    }
    return [
        len(steps & saved.get(str(run), steps))
        for run, own in results.distinct(["run", "step"]).groupby("run")
        for steps in [set(map(int, own["step"].unique()))]
    ]
