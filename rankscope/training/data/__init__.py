"""From text or token ids to batches.

`corpus` holds what a run learns from, `batches` what one step of it sees. Text becomes a corpus by
way of `document_files`, `held_out` and `corpus_tokenizer`; `prepare` does the same once and leaves
a `token_folder`, also for the other `document_sources`.
"""
