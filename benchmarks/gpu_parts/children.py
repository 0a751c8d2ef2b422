"""Processes that end with all that they started. Nothing here needs torch."""
import os
import signal
import subprocess
from pathlib import Path


def begin(command, note=None, **kwargs):
    "A process with a group of its own; with `note`, a file that says so, for whoever has to clean up."
    process = subprocess.Popen(command, start_new_session=True, **kwargs)
    if note:
        with open(note, 'a', encoding='utf-8') as f: f.write(f'{process.pid}\n')
    return process


def end(pid):
    "End a process of `begin` and all that it started; nothing happens if it is over."
    try: os.killpg(pid, signal.SIGKILL) if hasattr(os, 'killpg') else os.kill(pid, signal.SIGTERM)
    except OSError: pass


def end_noted(note):
    "End all that a file names."
    if Path(note).exists():
        for pid in Path(note).read_text(encoding='utf-8').split(): end(int(pid))
