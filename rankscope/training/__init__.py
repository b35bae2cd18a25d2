"""A trainer of small language models, with full-rank and with low-rank updates.

To follow a run, read in this order:

1. `train`: a run from its configuration;
2. `loop`: all its steps, from top to bottom;
3. `model`: the Llama decoder;
4. `schedule`: what happens at which step;
5. `adapters`: the low-rank layer and its merge (`lora_linear`), and one cycle of adapters after
   the other (`cycles`);
6. `data.batches`: the sequences of a step;
7. `run_folder`: what is saved (`checkpoint`, `state`) and when (`saves`);
8. `config`: every setting.

The rest measures, prepares data, chooses ranks and subspaces, or joins several processes. The
analysis does not import this room: it reads runs as files, like anybody's checkpoints.
"""
