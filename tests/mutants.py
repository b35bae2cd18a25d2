"""One-line faults that the tests must notice: ``python -m tests.mutants`` plants each and reports.

Each fault is planted in a copy of the repository, where the tests that ought to notice it are run;
without a fault they have to pass. This takes many minutes and is not part of the suite. To add a
fault, add a `Mutant` with a text that its file has once. One whose text is no longer there is
reported as stale, which is an error too: plant it anew where the code went.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("rankscope", "tests", "pyproject.toml", "configs")


@dataclass(frozen=True)
class Mutant:
    """A fault: the file, the text in it, what is planted instead, and the tests that must fail."""

    path: str
    now: str
    planted: str
    tests: str


SHARP, BOUNDS, VALUES = (
    f"tests/spectra/test_{name}.py" for name in ("sharpness", "bounds", "singular_values")
)
INVERSE, TWO = (f"tests/spectra/test_{name}.py" for name in ("inverse_route", "symmetric"))
BACKENDS, LIBRARIES, ON_DEVICE = (
    f"tests/spectra/test_{name}.py" for name in ("backends", "lapack_routines", "device_matrices")
)
DEVICE = "tests/analysis/test_device_worker.py"
ROTATIONS, CHANCE = "tests/spectra/test_rotation_gallery.py", "tests/spectra/test_chance.py"
SUBSPACES = "tests/analysis/test_subspaces.py"
METRICS, MEASURE = "tests/test_metrics.py", "tests/results/test_measure.py"
STORE, OLDER = "tests/results/test_spectra_store.py", "tests/results/test_older.py"
COSINES, OWN = "tests/analysis/test_update_cosine.py", "tests/results/test_own_metrics.py"
SHARED, CHANGES = "tests/spectra/test_shared_rounding.py", "tests/components/test_consecutive.py"
CONSECUTIVE = "components/consecutive.py"
FACTORS = "tests/components/test_factor_noise.py"
GAINS, ATTENTIONS = (f"tests/components/test_{name}.py" for name in ("circuit_gains", "attentions"))
OPTIMIZER = "tests/training/test_optimizer_settings.py"
SEVERAL = "tests/training/test_several_processes.py"
LOOP, METHODS = "tests/training/test_loop.py::test_", "tests/training/test_methods.py::test_"
REPEATS = "tests/checkpoints/test_repeats.py"
MANIFEST = "tests/training/test_manifest_of_checkpoints.py"
SETTLING = "tests/training/test_settling.py"
RANKS, PUBLISHED, LOW_RANK = (
    f"tests/training/adapters/test_{name}.py" for name in ("ranks", "published", "low_rank_linear")
)
START, STATE, LOG, CHECKPOINT = (
    f"tests/training/run_folder/test_{name}.py"
    for name in ("start", "state", "metrics_log", "checkpoint")
)
BAD_FILES = "tests/reliability/test_bad_files.py"
FEATURE_SUMS, FEATURE_METRICS, JACKKNIFE, POWER_LAW, CKA, CANONICAL, INPUT_ENERGY = (
    f"tests/representations/test_{name}.py"
    for name in (
        *("feature_sums", "feature_metrics", "jackknife", "power_law"),
        *("cka", "canonical_correlations", "input_energy"),
    )
)
LOSS_PAIRS = "tests/representing/test_loss_pairs.py"
MUTANTS = (
    # Bounds and certificates.
    Mutant("metrics.py", "math.log(s.size - 1)", "math.log(max(s.size - 2, 1))", SHARP),
    Mutant("metrics.py", "- (1 - x) * math.log1p(-x)", "", SHARP),
    Mutant("metrics.py", "distance = min(float(", "distance = 0.5 * min(float(", SHARP),
    Mutant("spectra/bounds.py", "(long_side * trace", "(short_side * trace", SHARP),
    Mutant("spectra/bounds.py", "return 2 * (long_side + 8)", "return (long_side + 8)", SHARP),
    Mutant("spectra/bounds.py", "(upper > noise_floor)", "(upper > 2 * noise_floor)", SHARP),
    Mutant("spectra/bounds.py", "<= 64 * size", "<= 6_400_000 * size", SHARP),
    Mutant("spectra/bounds.py", "8 * (short_side + 1)", "8 * short_side", SHARP),
    Mutant("spectra/bounds.py", "-2 * math.frexp(largest)[1]", "0", BOUNDS),
    Mutant(
        "spectra/bounds.py",
        "np.nextafter(lower - error, -np.inf)",
        "lower - error",
        BOUNDS,
    ),
    Mutant(
        "spectra/bounds.py",
        "np.nextafter(upper + error, np.inf)",
        "upper + error",
        BOUNDS,
    ),
    Mutant("spectra/backends.py", "max(exponent, -1000)", "max(0, -900)", SHARP),
    Mutant("spectra/backends.py", "abs(exponent) <= ORDINARY", "exponent <= ORDINARY", SHARP),
    Mutant("spectra/backends.py", "abs(exponent) <= ORDINARY", "exponent >= -ORDINARY", SHARP),
    Mutant("spectra/dense.py", "max(arithmetic, svd_bound(", "(arithmetic or svd_bound(", SHARP),
    Mutant("spectra/dense.py", "if storage >= computed", "if storage > 0", SHARP),
    Mutant(
        "spectra/dense.py",
        "bounds.widened(arithmetic)",
        "bounds",
        "tests/components/test_composite_errors.py",
    ),
    Mutant("spectra/bounds.py", "(residual + squared + formed)", "(squared + formed)", INVERSE),
    Mutant("spectra/bounds.py", "(residual + squared + formed)", "(residual + formed)", INVERSE),
    Mutant("spectra/bounds.py", "(residual + squared + formed)", "(residual + squared)", INVERSE),
    Mutant("spectra/dense.py", "((1 - bound) / largest)", "(1 / largest)", INVERSE),
    Mutant("spectra/dense.py", "((1 + bound) / smallest)", "(1 / smallest)", INVERSE),
    Mutant("spectra/dense.py", "if not bound <= INVERSE_WITHIN", "if bound > 1", INVERSE),
    Mutant("spectra/dense.py", "if not (ends.lower <= ends.upper).all()", "if False", INVERSE),
    Mutant("spectra/dense.py", "np.sort(values.clip(", "(values.clip(", INVERSE),
    Mutant("spectra/dense.py", "high - low < upper - lower", "high - low > 0", INVERSE),
    Mutant(
        "spectra/symmetric.py", "return stages if _passes(stages) else", "return stages or", TWO
    ),
    Mutant("spectra/symmetric.py", "np.array(matrix, np.float64,", "np.asarray(matrix,", TWO),
    Mutant("spectra/symmetric.py", " and len(matrix) >= stages.least", "", TWO),
    Mutant("spectra/lapack_routines.py", "if info.value:", "if False:", TWO),
    Mutant("spectra/lapack_routines.py", "if all(map(", "if any(map(", LIBRARIES),
    Mutant("spectra/lapack_routines.py", "ctypes.c_int64(0)", "ctypes.c_int64(1 << 40)", LIBRARIES),
    Mutant("spectra/lapack_routines.py", '"scipy_{}_64_", ', "", LIBRARIES),
    Mutant(
        "spectra/lapack_routines.py", 'for suffix in ("64_", "")', "for suffix in ()", LIBRARIES
    ),
    Mutant("spectra/backends.py", "ORDINARY = 200", "ORDINARY = 500", INVERSE),
    Mutant("spectra/backends.py", "max(float(values.max()), -", "max(0, -", BACKENDS),
    Mutant("spectra/backends.py", ", -float(values.min())))", ", 0))", BACKENDS),
    Mutant(
        "spectra/backends.py", '"ij,ij->", tall, tall', '"ij,ij->", triangle, triangle', BACKENDS
    ),
    Mutant("spectra/torch_backend.py", "held.abs().amax()", "held.amax()", BACKENDS),
    Mutant("spectra/torch_backend.py", "(tall * tall)", "(triangle * triangle)", BACKENDS),
    Mutant("spectra/torch_backend.py", "norm(products - one)", "norm(0 * products)", BACKENDS),
    Mutant("spectra/torch_backend.py", "float(products.trace())", "0.0", BACKENDS),
    Mutant("spectra/rounding.py", "smallest) if largest else smallest)", "smallest))", ON_DEVICE),
    Mutant("spectra/device_changes.py", "= 2.0 ** scaling_exponent(largest)", "= 1.0", ON_DEVICE),
    Mutant("spectra/device_matrices.py", "* 2.0**24", "* 2.0**25", ON_DEVICE),
    Mutant("spectra/device_matrices.py", "> LARGEST_HALF", "> 2 * LARGEST_HALF", ON_DEVICE),
    Mutant("spectra/device_matrices.py", "weighted), error)", "weighted), 0.0)", ON_DEVICE),
    Mutant("spectra/device_matrices.py", " or bool((integers & bits).any())", "", ON_DEVICE),
    Mutant(
        "spectra/device_changes.py", "error = UNIT_ROUNDOFF * size.value", "error = 0.0", ON_DEVICE
    ),
    Mutant(
        "spectra/device_changes.py", "size.error + UNIT_ROUNDOFF * size.value", "0.0", ON_DEVICE
    ),
    Mutant("spectra/device_changes.py", "product_sum_bound(values.numel())", "0.0", ON_DEVICE),
    Mutant("analysis/device_worker.py", "in states[:2])", "in states)", DEVICE),
    Mutant("analysis/device_worker.py", "as_planned(job.task.files)", "as_planned(())", DEVICE),
    Mutant("analysis/device_worker.py", "        check_room(recipe)\n", "", DEVICE),
    Mutant("analysis/device_worker.py", "  found = stack_spectra(matrices)", "  raise", DEVICE),
    Mutant("spectra/low_rank.py", "scaling_exponent(float(one))", "0", SHARP),
    Mutant("spectra/low_rank.py", "np.ldexp(one, -exponents) for", "one for", VALUES),
    Mutant("spectra/low_rank.py", "energy < TINY**2", "False", VALUES),
    Mutant(
        "spectra/matrices.py", "np.tri(*transposed.shape[-2:],", "np.tri(factors.shape[-1],", VALUES
    ),
    Mutant(
        "spectra/matrices.py",
        "dtype=np.bool_), transposed, 0.0)",
        "k=1, dtype=np.bool_), transposed, 0.0)",
        VALUES,
    ),
    Mutant("spectra/spectrum.py", "scaled, np.nextafter(scaled, end))", "scaled, scaled)", SHARP),
    Mutant(
        "spectra/spectrum.py",
        "np.maximum(self.upper - self.values, self.values - self.lower)",
        "(self.upper - self.values)",
        SHARP,
    ),
    Mutant(
        "spectra/spectrum.py",
        "not all(map(np.array_equal, bounds.ends(values), (lower, upper)))",
        "False",
        BOUNDS,
    ),
    Mutant("spectra/singular_values.py", "matrix.inner < min(", "matrix.inner <= min(", SHARP),
    Mutant("spectra/singular_values.py", "matrix.inner < min(", "matrix.inner < max(", SHARP),
    # Subspaces and chance.
    Mutant(
        "spectra/bases.py",
        "return sine(self.residual(k), self.gap(k)) + self.defect",
        "return self.defect",
        ROTATIONS,
    ),
    Mutant(
        "spectra/bases.py", "return sine(self.noise_floor, self.gap(k))", "return 0.0", ROTATIONS
    ),
    Mutant(
        "spectra/subspace_measures.py",
        "error = now.error(k) + before.error(k)",
        "error = now.error(k)",
        ROTATIONS,
    ),
    Mutant(
        "spectra/subspace_measures.py", "compute_uv=False)[-1]", "compute_uv=False)[0]", ROTATIONS
    ),
    Mutant("spectra/chance.py", "turns[:, : q - k] +=", "turns[:, : q - k] -= 0 *", CHANCE),
    Mutant("spectra/chance.py", "chisquare(beyond - index", "chisquare(1 + index", CHANCE),
    Mutant("spectra/chance.py", "1 / (4 * k) + 1 / (4 * rest)", "0", CHANCE),
    Mutant(
        "spectra/nulls.py",
        "and max(np.diff(ends)) <= MOST_TOGETHER",
        "",
        "tests/spectra/test_nulls.py",
    ),
    Mutant("spectra/intruders.py", "LEAST_COSINE = 0.5", "LEAST_COSINE = 0.15", ROTATIONS),
    Mutant(
        "analysis/subspace_series.py", "if index or not self.continues:", "if index:", SUBSPACES
    ),
    Mutant("analysis/subspace_plans.py", "sorted(selection.against), read", "read", SUBSPACES),
    Mutant("analysis/subspace_plans.py", "if one.key not in replaced", "", SUBSPACES),
    Mutant(
        "analysis/subspace_plans.py",
        "one.step, min(one.against, one.step)",
        "one.step, one.against",
        SUBSPACES,
    ),
    # Metrics of a spectrum.
    Mutant("metrics.py", "if divisor else", "if divisor > 1e-300 else", SHARP),
    Mutant(
        "results/measure.py",
        "known = spectrum.lower > spectrum.noise_floor",
        "known = spectrum.values > spectrum.noise_floor",
        SHARP,
    ),
    Mutant(
        "results/measure.py",
        "rank = metrics.numerical_rank(spectrum.lower",
        "rank = metrics.numerical_rank(s",
        f"{SHARP} {MEASURE}",
    ),
    Mutant("results/measure.py", "<= 0.01 * s", "<= 0.05 * s", SHARP),
    Mutant("metrics.py", "(resolved >= 0.99 * per)", "(resolved >= 0.9 * per)", METRICS),
    # What several tensors bring into one matrix.
    Mutant("components/factor_noise.py", "rows += vb[:, i] *", "rows += 0 *", FACTORS),
    Mutant("components/factor_noise.py", "+ _largest(wide.gram, forms[0])", "", FACTORS),
    Mutant("components/factor_noise.py", "if not all(one.is_as_stored", "if not all(True", FACTORS),
    # Circuits: the head, the gain, the orientation, the part of a fused map.
    Mutant(
        "components/circuits.py", "[head // (count // len(blocks))]", "[head % len(blocks)]", GAINS
    ),
    Mutant(
        "components/circuits.py",
        "if self.norm is not None:\n            blocks",
        "if False:\n            blocks",
        GAINS,
    ),
    Mutant(
        "components/circuits.py", "blocks = [centred(block) for block in blocks]", "pass", GAINS
    ),
    Mutant("components/circuits.py", "even = centred(whole)", "even = whole", GAINS),
    Mutant("components/circuits.py", "at = widths.index(min(widths)) + 1", "at = 1", GAINS),
    Mutant(
        "components/formed.py",
        "scaled_along(one, offset + column)",
        "scaled_along(one, column)",
        GAINS,
    ),
    Mutant(
        "components/formed.py",
        "beside=math.hypot(scaled.beside, float(",
        "beside=0 * math.hypot(scaled.beside, float(",
        GAINS,
    ),
    Mutant(
        "components/formed.py", "if len(np.unique(gain)) == 1 and one.stored:", "if False:", GAINS
    ),
    Mutant(
        "components/attentions.py",
        "None if isinstance(norm, UnknownNorm) else norm",
        "None",
        ATTENTIONS,
    ),
    Mutant(
        "components/attentions.py",
        "q.link(Cut(heads.count, heads.size), turned=True)",
        "q.link(Cut(heads.count, heads.size))",
        ATTENTIONS,
    ),
    Mutant(
        "components/attentions.py",
        "step=plain + size, start=plain",
        "step=plain + size",
        ATTENTIONS,
    ),
    Mutant(
        "components/attentions.py",
        "if not isinstance(earlier, Circuits):\n        return earlier",
        "if False:\n        return earlier",
        ATTENTIONS,
    ),
    Mutant(
        "checkpoints/families/norms.py",
        'is_centred=table.kind == "layer"',
        "is_centred=False",
        ATTENTIONS,
    ),
    Mutant("checkpoints/families/norms.py", "if gain is None:", "if False:", ATTENTIONS),
    Mutant("checkpoints/families/norms.py", "or _parent(one) in gated", "or True", ATTENTIONS),
    Mutant(
        "checkpoints/families/norms.py", "norm = _gate_in(", "norm = None and _gate_in(", ATTENTIONS
    ),
    Mutant(
        "components/deltas.py",
        "math.hypot(beside, floor, near_zero)",
        "math.hypot(beside, near_zero)",
        "tests/components/test_derived_errors.py",
    ),
    Mutant(
        "components/kronecker_deltas.py",
        "Kronecker(_times(first, scale), moved[1].dense()",
        "Kronecker(_times(first, 1.0), moved[1].dense()",
        "tests/components/test_kronecker_deltas.py",
    ),
    # Cosines of successive changes, and entries.
    Mutant("analysis/history.py", "self.held_before |= {one: seen", "_ = {one: seen", COSINES),
    Mutant("analysis/history.py", "if one in holds}", "}", COSINES),
    Mutant("spectra/cosines.py", "+ 2.1 * sum(", "+ 0.6 * sum(", "tests/spectra/test_cosines.py"),
    Mutant("spectra/cosines.py", "* grown * grown2, terms", "* grown, terms", COSINES),
    Mutant(
        "spectra/shared_rounding.py", "narrow = deviation *", "narrow = 0.7 * deviation *", SHARED
    ),
    Mutant("spectra/shared_rounding.py", "np.hypot(one, other)", "np.maximum(one, other)", SHARED),
    Mutant(
        "spectra/shared_rounding.py",
        "return np.where(deviation < NARROW",
        "return np.where(deviation < 0",
        SHARED,
    ),
    Mutant(
        CONSECUTIVE,
        "_squares(rights[1].values).sum(axis=1)",
        "_squares(rights[1].values).mean(axis=1)",
        CHANGES,
    ),
    Mutant(CONSECUTIVE, "if stored.mantissa < max(", "if stored.mantissa < min(", CHANGES),
    Mutant(CONSECUTIVE, "scale_of(shared) ** 2", "scale_of(shared)", CHANGES),
    Mutant(
        "spectra/entries.py",
        "2 * start + 1 - n",
        "2 * start + 2 - n",
        "tests/spectra/test_entries.py",
    ),
    Mutant(
        "spectra/entries.py",
        "rounded = 8 * (",
        "rounded = 1e-3 * (",
        "tests/spectra/test_entries.py",
    ),
    Mutant("results/own_metrics.py", "scale * spectrum.values", "spectrum.values", OWN),
    Mutant("results/own_metrics.py", "(2.0**-10, 2.0**10)", "(2.0,)", OWN),
    Mutant("results/own_metrics.py", "function(values.copy()", "function(values", OWN),
    # Correlations and text.
    Mutant(
        "scoring/perplexity.py",
        "return sum(map(_leaves, group.parts)) or 1",
        "return len(group.parts) or 1",
        "tests/scoring/test_perplexity.py",
    ),
    Mutant(
        "statistics/co_movement.py",
        "STILL = 1e-12",
        "STILL = 0.0",
        "tests/statistics/test_co_movement.py",
    ),
    Mutant(
        "statistics/co_movement.py",
        "changes[len(changes) // 3 :]",
        "changes[0:]",
        "tests/statistics/test_co_movement.py",
    ),
    Mutant(
        "statistics/co_movement.py",
        "1 + 2 * max(lags[0] * lags[1], 0.0)",
        "1 + 0 * max(lags[0] * lags[1], 0.0)",
        "tests/statistics/test_co_movement.py",
    ),
    # What is stored.
    Mutant(
        "results/spectra_store.py",
        'if one.get("within") else next(intervals)',
        "if one else next(intervals)",
        STORE,
    ),
    Mutant("results/spectra_store.py", 'READABLE = ("1", "2", "3")', 'READABLE = ("3",)', STORE),
    Mutant(
        "results/spectra_store.py",
        "entries = sorted(entries, key=_order)",
        "entries = list(entries)",
        STORE,
    ),
    Mutant("results/older.py", "earlier[0] if", "earlier[-1] if", OLDER),
    Mutant(
        "results/vectors.py",
        "if has_digest and not _is_sound(text, listing, vectors):",
        "if False:",
        "tests/results/test_vectors.py",
    ),
    # The trainer.
    Mutant("training/loop.py", "weight_decay=config.optimizer.weight_decay,", "", OPTIMIZER),
    Mutant("training/loop.py", "eps=config.optimizer.eps,", "", OPTIMIZER),
    Mutant("training/loop.py", "config.optimizer.beta2)", "0.95)", OPTIMIZER),
    Mutant("training/loop.py", "clip or math.inf", "clip or 1.0", OPTIMIZER),
    Mutant("training/loop.py", "self.processes.require_equal(", "(lambda *_: None)(", SEVERAL),
    Mutant("training/loop.py", "self.processes.rank, index", "0, index", SEVERAL),
    Mutant(
        "training/loop.py",
        "torch.compiler.reset()",
        "pass",
        METHODS + "compiled_code_is_dropped_where_ranks_change",
    ),
    Mutant(
        "training/loop.py",
        "self.cycles.starts = {}",
        "pass",
        METHODS + "phases_train_what_they_say_and_the_checkpoints_show_it",
    ),
    Mutant(
        "training/data/held_out.py",
        "before = before[np.searchsorted(ordered, ordered)]",
        "",
        "tests/training/data/test_held_out.py",
    ),
    Mutant(
        "training/data/corpus.py",
        "return Corpus(tokens[:cut], tokens[cut:], data.vocab_size,",
        "return Corpus(tokens[:cut], tokens[cut:], largest + 1,",
        "tests/training/data/test_corpus.py",
    ),
    Mutant(
        "training/data/corpus.py",
        "_tokenizer(data, training)",
        "_tokenizer(data, training + validation)",
        "tests/training/data/test_corpus.py",
    ),
    Mutant(
        "training/data/held_out.py",
        "return Split(below, cut=fraction if is_only_one else 0.0)",
        "return Split(below)",
        "tests/training/data/test_held_out.py",
    ),
    Mutant(
        "training/data/prepare.py",
        "if not held_out and isinstance(text, str))",
        "if isinstance(text, str))",
        "tests/training/data/test_prepare.py",
    ),
    Mutant(
        "training/data/document_sources.py",
        "data_files=escape(name)",
        "data_files=name",
        "tests/training/data/test_document_sources.py",
    ),
    # Safe writing.
    Mutant(
        "durable.py",
        "    _flush(path.parent)\n    shutil.rmtree(doomed)",
        "    shutil.rmtree(doomed)",
        "tests/test_durable.py",
    ),
    Mutant(
        "durable.py",
        'if match["old"] and not (folder / match["name"]).exists():',
        "if False:",
        "tests/test_durable.py",
    ),
    Mutant(
        "durable.py",
        "            _flush(temporary)\n            replace(temporary, path)",
        "            replace(temporary, path)",
        "tests/test_durable.py",
    ),
    Mutant(
        "training/probe.py",
        '"cycle", cycle)',
        '"cycle")',
        LOOP + "the_probes_of_two_cycles_are_other_sequences",
    ),
    Mutant("training/settling.py", "step >= self", "step > self", SETTLING),
    Mutant("training/adapters/ranks.py", "used >= SATURATED", "used > SATURATED", RANKS),
    Mutant("training/adapters/ranks.py", "used <= IDLE", "used < IDLE", RANKS),
    Mutant(
        "training/adapters/cycles.py",
        "overlap(a, old_a)",
        "overlap(a, old_a[:1])",
        "tests/training/adapters/test_cycles.py",
    ),
    Mutant(
        "training/adapters/lora_linear.py",
        "make(nn.Parameter(weight.detach()), a, scale)",
        "make(layer.weight, a, scale)",
        "tests/training/adapters/test_relora.py",
    ),
    Mutant(
        "training/adapters/low_rank_linear.py",
        "with as_given(x):\n            shape,",
        "if True:\n            shape,",
        LOW_RANK,
    ),
    Mutant(
        "training/adapters/low_rank_linear.py",
        "if tokens * (out_features + in_features) <",
        "if 0 * (out_features + in_features) >",
        LOW_RANK,
    ),
    Mutant("training/adapters/published.py", "handle.remove()", "pass", PUBLISHED),
    Mutant(
        "training/run_folder/start.py",
        'run / "merges", run',
        "run",
        LOOP + "half_written_merges_of_a_dead_process_are_swept",
    ),
    Mutant("training/run_folder/state.py", "cycles.starts = ", "_ = ", STATE),
    Mutant("training/run_folder/state.py", "if energies.exists() else {}", "and {}", STATE),
    Mutant("training/run_folder/metrics_log.py", ', "rank_change"}', "}", LOG),
    Mutant(
        "training/run_folder/checkpoint.py",
        "timeline.phase(max(step - 1, 0))",
        "timeline.phase(step)",
        METHODS + "phases_train_what_they_say_and_the_checkpoints_show_it",
    ),
    Mutant(
        "training/run_folder/checkpoint.py",
        "min(step, config.schedule.steps - 1)",
        "step",
        LOOP + "the_last_checkpoint_states_the_rate_of_the_last_update",
    ),
    Mutant("training/run_folder/recording.py", "one.merged_scale", "one.scale", CHECKPOINT),
    Mutant(
        "training/run_folder/checkpoint.py",
        '"use_rslora": adapter.rank_stabilised',
        '"use_rslora": False',
        CHECKPOINT,
    ),
    Mutant(
        "training/run_folder/trained_model.py",
        "return model.eval()",
        "return model",
        LOOP + "a_trained_model_is_opened_for_evaluation",
    ),
    Mutant(
        "checkpoints/manifest.py",
        '"rankscope-relora-checkpoint-", "rankscope-merges-"',
        '"rankscope-relora-checkpoint-",',
        MANIFEST,
    ),
    # Bad files.
    Mutant("checkpoints/families/repeats.py", "path, tuple(inner)", "path, len(inner)", REPEATS),
    Mutant("checkpoints/families/repeats.py", "is_map or told_apart(number)", "is_map", REPEATS),
    Mutant("checkpoints/families/repeats.py", "not block or is_map or", "not block or", REPEATS),
    Mutant("checkpoints/files/safetensors_file.py", "len(table) < len(pairs)", "False", BAD_FILES),
    Mutant(
        "checkpoints/files/safetensors_file.py",
        "if start != end and",
        "if start > end and",
        BAD_FILES,
    ),
    Mutant("checkpoints/files/safetensors_file.py", "if end < size:", "if False:", BAD_FILES),
    Mutant(
        "checkpoints/files/safetensors_file.py",
        "not all(isinstance(one, str) for one in notes.values())",
        "False",
        BAD_FILES,
    ),
    Mutant("checkpoints/merges.py", "if not fits or 0 in", "if 0 in", BAD_FILES),
    Mutant("checkpoints/merges.py", "not math.isfinite(number)", "math.isnan(number)", BAD_FILES),
    Mutant("checkpoints/tensors.py", "left_shift(bits, 16", "left_shift(bits, 15", BAD_FILES),
    Mutant("components/merged.py", "if change.shape != shape:", "if False:", BAD_FILES),
    Mutant("analysis/spectra_files.py", "if len(paths) > 1:", "if False:", BAD_FILES),
    # Representations.
    Mutant("representations/feature_sums.py", "count * share)", "count)", FEATURE_SUMS),
    Mutant("representations/jackknife.py", "times - 1) * without", "times) * without", JACKKNIFE),
    Mutant("representations/power_law.py", "min(LAST, most, len", "min(LAST, len", POWER_LAW),
    Mutant("representations/sensitivities.py", "(2 * s**2)", "s**2", FEATURE_METRICS),
    Mutant("representations/feature_metrics.py", "axis=1) - tokens)", "axis=1))", FEATURE_METRICS),
    Mutant("representations/cka.py", "- 4 * shared", "- 2 * shared", CKA),
    Mutant("representations/cka.py", "different[:, blocks, blocks] = 0", "pass", CKA),
    Mutant("representations/cka.py", "total - 2 * (self.products - self.squares)", "total", CKA),
    Mutant(
        "representations/canonical_correlations.py", "turns.T * first", "turns * first", CANONICAL
    ),
    Mutant(
        "representations/input_energy.py",
        "np.square(directions.values",
        "(directions.values",
        INPUT_ENERGY,
    ),
    Mutant("representations/input_energy.py", "> following + near", "> following", INPUT_ENERGY),
    Mutant("spectra/chance.py", "2 * k * (d - k) * uneven", "k * (d - k) * uneven", INPUT_ENERGY),
    Mutant("representing/loss_pairs.py", "before if is_before else after", "after", LOSS_PAIRS),
)


def fate(mutant: Mutant, copy: Path) -> str:
    """What became of a planted fault: ``killed``, or why not."""
    path = copy / "rankscope" / mutant.path
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    if source.count(mutant.now) != 1:
        return "STALE"
    path.write_text(source.replace(mutant.now, mutant.planted), encoding="utf-8")
    try:
        status = status_of(mutant.tests.split(), copy)
    finally:
        path.write_text(source, encoding="utf-8")
    return {0: "SURVIVED", 1: "killed"}.get(status, f"ERROR {status}")


def status_of(tests: list[str], copy: Path) -> int:
    """Exit status of pytest: 0 if all pass, 1 if one fails, others if they do not run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
    return done.returncode


def main() -> None:
    """Plant all faults, or those whose file has the given text in its path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("only", nargs="?", default="", help="Text in the path of the file.")
    chosen = [mutant for mutant in MUTANTS if parser.parse_args().only in mutant.path]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, copy / name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        tests = sorted({test for mutant in chosen for test in mutant.tests.split()})
        if status_of(tests, copy) != 0:
            sys.exit("the tests fail without a fault: mend them first")
        found = []
        for mutant in chosen:
            found.append(fate(mutant, copy))
            print(f"{found[-1]:9}{mutant.path}: {mutant.now} → {mutant.planted}", flush=True)
    print(f"{found.count('killed')} of {len(found)} killed")
    sys.exit(found.count("killed") != len(found))


if __name__ == "__main__":
    main()
