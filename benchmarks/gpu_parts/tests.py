"""The tests of tests/ that need a GPU, and no others."""
import os
import re
from importlib.util import find_spec
from pathlib import Path

from gpu_parts.tools import attempt, emit, judge

ROOT = Path(__file__).parents[2]
# how such tests say so: skipif(…, reason='needs a GPU'), or a mark named cuda that is this
REASON = 'needs a GPU'
NAMED = re.compile(r'needs a GPU|^@cuda\b', re.M)


class OnlyThose:
    "For pytest: keeps what needs a GPU, and notes what became of it."
    def __init__(self): self.outcomes, self.failed = [], []
    def pytest_collection_modifyitems(self, items):
        items[:] = [i for i in items if any(REASON in str(m.kwargs.get('reason')) for m in i.iter_markers('skipif'))]
    def pytest_runtest_logreport(self, report):
        if report.when == 'call' or report.outcome != 'passed': self.outcomes.append(report.outcome)
        if report.failed: self.failed.append(f'{report.nodeid}: {str(report.longrepr).splitlines()[-1]}'[:300])


def main():
    missing = [m for m in ('pytest', 'hypothesis') if not find_spec(m)]
    if missing: return emit('tests', skipped=f'without {", ".join(missing)} they do not run; nothing else needs them')
    import pytest
    files = sorted(str(p) for p in (ROOT/'tests').glob('test_*.py') if NAMED.search(p.read_text(encoding='utf-8')))
    os.chdir(ROOT)
    seen = OnlyThose()
    with attempt('tests'):
        status = pytest.main([*files, '-q', '--no-header', '-p', 'no:cacheprovider'], plugins=[seen])
        count = {k: seen.outcomes.count(k) for k in ('passed', 'failed', 'skipped')}
        emit('tests', status=int(status), files=[Path(f).name for f in files], **count, what_failed=seen.failed)
        passed = count['passed'] > 0 and not seen.failed and not count['skipped'] and status == 0
        judge('tests that need a GPU: all are run and pass', True, passed)
