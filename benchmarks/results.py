"""benchmarks/RESULTS.md: every benchmark rewrites its own section and leaves the others alone."""
import re
from pathlib import Path

RESULTS = Path(__file__).with_name('RESULTS.md')
HEAD = ('# Benchmarks\n\nRatios, counts and errors, each section with the command that wrote it; `make bench` '
        'writes all. What is compared takes turns in one run. Speeds depend on the machine; the ratios much less. '
        'No section was measured on a GPU unless it names one. *Asked* is what this project set itself before it '
        'measured; *holds* and *missed* compare it with the median. *The frozen one* is `reference_i3d.py`, the '
        'encoder as one would first write it.\n')


def write_section(key, title, command, lines, path=RESULTS):
    "Replace the section between its two marker comments, or add it."
    begin, end = f'<!-- {key}: written by {command} -->', f'<!-- end of {key} -->'
    section = '\n'.join([begin, f'## {title}', '', f'`{command}`', '', *lines, end])
    text = path.read_text(encoding='utf-8') if path.exists() else HEAD
    pattern = re.compile(rf'<!-- {re.escape(key)}: .*?{re.escape(end)}', re.S)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f'{text.rstrip()}\n\n{section}\n'
    path.write_text(text, encoding='utf-8')
