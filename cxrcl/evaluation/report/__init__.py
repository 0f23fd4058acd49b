"""The report of an evaluation: one `content.Page`, written as HTML, Markdown, JSON and CSV.

- `content`: what a report is made of, as plain data.
- `output`: the files.
- `tables`, `score_markdown`: Markdown, for files and the terminal.
- `page`: HTML.
"""
