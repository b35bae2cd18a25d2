"""What each tensor of a model is: its layer, its role, and the matrices that it holds.

Reading order: `names`, `path_numbers` and `layers` read paths; `family` is the table of a model,
`family_files` reads such tables from TOML (`factor_tables` those of low-rank factors), and
`recognition` chooses one. `heads` reads the config; `coordinates` combines all this for a module.
`stacks`, `quantised` and `reparametrised` come first and replace tensors; `no_maps` finds those
that are not linear maps, with `neighbours`; `axes` and `splitting` cut the others into matrices,
and `parameters` does this for a whole checkpoint.
"""
