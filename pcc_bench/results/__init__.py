"""Results of lm-eval, read once and in one way: by the gate, the comparison, the report, suites, the demo and `pack`.

`files` says where they lie and what is read of them, `reading` makes a `Run` of a file and texts of its samples, `run`
says what makes two runs another experiment, `rows` is the frame of a task's rows, `frozen` a baseline for git,
`collection` any number of runs with training logs and records of cost.
"""
