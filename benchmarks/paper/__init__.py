"""The paper's tables and figures, measured on any target: `drtl bench paper`.

`__main__` reads the options; a file for each table and figure says which trainings it needs (`plan`) and reads their
records (`table`); `study` makes the trainings; `drawings` draws. Reading and drawing know the JSON of records alone.
"""
