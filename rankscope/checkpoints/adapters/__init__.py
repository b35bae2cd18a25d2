"""Low-rank factors on disk: which tensors make one matrix, and how it changes the weights.

Reading order: `grouping` finds factors by their names, `pairing` checks that two fit, `scaling`
finds their scale, `factor_products` and `product_forms` make matrices of them (`composed_tensors`),
and `separation` does this for a whole checkpoint. `peft_config`, `peft_adapter` and `base_model`
read a folder of PEFT; `inner_adapters` reads layers that carry their adapters; `wrapped_names`
undoes the names that adapters give; `unknown_pairs` finds what may be factors of an unknown kind.
"""
