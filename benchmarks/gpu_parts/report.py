"""From the lines of results.jsonl to a summary and to a section of RESULTS.md. Nothing here needs torch."""
import json
import re
from pathlib import Path

from gpu_parts import PARTS


def read(path):
    "The lines of a file; a line that was cut off by a crash is left out."
    rows = []
    for line in Path(path).read_text(encoding='utf-8').splitlines() if Path(path).exists() else ():
        try: rows.append(json.loads(line))
        except ValueError: pass
    return rows


def newest(rows):
    "Of each part the lines of the last run that has any."
    last = {r['part']: r['run'] for r in rows}
    return [r for r in rows if r['run'] == last[r['part']]]


def first(rows, part, name): return next((r for r in rows if (r['part'], r['name']) == (part, name)), {})


def shown(value):
    "A value for a cell or a line: short numbers, lists without brackets."
    if isinstance(value, float): return f'{value:.4g}'
    if isinstance(value, (list, tuple)): return ', '.join(map(shown, value))
    if isinstance(value, dict): return ', '.join(f'{k} {shown(v)}' for k, v in value.items())
    return {'None': '–', 'True': 'yes', 'False': 'no'}.get(str(value), str(value))


def without_paths(text):
    "A message may name folders of one machine."
    return re.sub(r'(?<![\w.])/(?:[^/\s:\'"]+/)+', '…/', text)


def fields(row): return {k: v for k, v in row.items() if k not in ('run', 'card', 'smoke', 'part', 'name')}


def table(rows):
    "Rows with equal or similar fields as a Markdown table."
    columns = list(dict.fromkeys(k for r in rows for k in fields(r)))
    def line(cells): return '| ' + ' | '.join(str(c).replace('|', '/').replace('\n', ' ') for c in cells) + ' |'
    body = [line(shown(r.get(c, '')) for c in columns) for r in rows]
    return [line(c.replace('_', ' ') for c in columns), '|---'*len(columns) + '|', *body]


def judged(rows):
    "Everything that was asked for, the parts in their order."
    found = [r for part in PARTS for r in rows if r['part'] == part and r['name'] == 'judged']
    return table(found) if found else ['Nothing was judged.']


def figures(rows):
    "Tables of a part's figures; what went wrong is a sentence."
    lines = []
    for name in dict.fromkeys(r['name'] for r in rows if r['name'] != 'judged'):
        these = [r for r in rows if r['name'] == name and 'error' not in r]
        failed = [r['error'] for r in rows if r['name'] == name and 'error' in r]
        for error in failed: lines += [f'**{name}** failed: {without_paths(error)}', '']
        if these: lines += [f'*{name.replace("_", " ")}*', '', *table(these), '']
    return lines


def machine(rows, card):
    there, v = first(rows, 'versions', 'card'), first(rows, 'versions', 'versions')
    memory = f', {there["memory_gb"]:.0f} GiB' if there else ''
    return (f'{card or "no GPU"}{memory}; Python {v.get("python")}, torch {v.get("torch")}, CUDA {v.get("cuda")}, '
            f'cuDNN {v.get("cudnn")}, NumPy {v.get("numpy")}, OpenCV {v.get("cv2")}; {v.get("cores")} processor cores; '
            f'commit {str(v.get("commit"))[:7]}.')


def section(rows, card, smoke): # lines of one card
    "(key, title, lines) of the section: what was asked for first, then every part's figures."
    rows, name = newest(rows), card or 'none'
    key = 'gpu-' + re.sub(r'\W+', '-', name.lower()).strip('-')
    small = '**Small sizes, on whatever is there: it shows that all parts run, and says nothing of speed.**'
    lines = [*([small, ''] if smoke else []), machine(rows, card), '', *judged(rows), '']
    for part in PARTS:
        these = [r for r in rows if r['part'] == part and r['name'] != 'judged']
        if these: lines += [f'### {part}: {PARTS[part].what}', '', *figures(these)]
    return key, f'On a GPU: {name}', lines[:-1]


def summary(rows, most=11_000):
    "What is worth a look on a screen: first what was asked for, then errors, then figures, as long as there is room."
    rows = newest(rows)
    judgements = [f'{r["verdict"].strip("*"):10}  {r["what"]}: {r["got"]} (asked: {r["asked"]})' for r in rows
                  if r['name'] == 'judged']
    errors = [f'{r["part"]}, {r["name"]}: {r["error"]}'[:300] for r in rows if 'error' in r]
    others = [f'{r["part"]}, {r["name"]}: {shown(fields(r))}'[:260]
              for r in rows if r['name'] not in ('judged', 'kernel') and 'error' not in r]
    text = '\n'.join(['', *judgements, '', *(['What went wrong:', *errors, ''] if errors else []), *others])
    return text if len(text) <= most else text[:most] + '\n… the rest is in results.jsonl'
