"""How fast fnn trains small networks on a CPU, side by side with whatever else is installed.

`python -m examples.benchmark` from the project's folder; `--help` lists the choices. `workloads` says what is computed,
`contenders` how each library computes it, `race` lets them run in turns, `report` writes tables and chart.
"""
