"""The report of an evaluation: one `content.Page`, written as HTML, Markdown, JSON and CSV.

- `content`, `facts`: what a report is made of, as plain data.
- `table`: a table, and its text for files and the terminal.
- `tables`, `score_tables`: the tables, of metrics by their names and of scores; every output shows the same.
- `score_markdown`: scores as Markdown.
- `page`: HTML.
- `output`: the files.
"""
