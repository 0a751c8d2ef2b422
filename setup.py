"""Packaging from settings.ini, the one place where name, version and requirements are written.

The pages that papermill runs travel in the wheel as `mpfnet/notebooks/`: `mpfnet.core.pages` finds them there."""
import json
import re
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser()
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
readme = here / 'README.md'
extras = {name: cfg[f'{name}_requirements'].split() for name in ('dev', 'docs', 'notebooks', 'phase', 'dlib', 'ray')}
extras['dev'] += extras['docs'] + extras['notebooks']  # the tests build the site, and run what the wheel holds


#: where pages lie: the way of the paper, its wings, the figures. Not `nbs/runs`, where somebody has run some
FOLDERS = ['nbs', *(f'nbs/{p.parent.name}' for p in sorted(here.glob('mpfnet/*/__init__.py'))), 'paper_figures']


def pages():
    "Notebooks with a cell of parameters, and the pictures beside them that they show: {path: content}."
    for path in sorted(p for folder in FOLDERS for p in here.glob(f'{folder}/*.ipynb')):
        page = json.loads(path.read_text(encoding='utf-8'))
        if not any('parameters' in c['metadata'].get('tags', ()) for c in page['cells']): continue
        for cell in page['cells']:
            if cell['cell_type'] == 'code': cell.update(outputs=[], execution_count=None)  # papermill makes them again
            for link in re.findall(r'!\[[^\]]*\]\(([^):]+)\)', ''.join(cell['source'])):
                picture = (path.parent / link).resolve()
                yield picture.relative_to(here.resolve()), picture.read_bytes()
        yield path.relative_to(here), (json.dumps(page, indent=1, ensure_ascii=False) + '\n').encode()


class BuildWithPages(build_py):
    "The modules, and the pages below `notebooks/`; nothing that an earlier build has left."

    def run(self):
        if self.editable_mode: return super().run()
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for name, content in pages():
            path = Path(self.build_lib, cfg['lib_name'], 'notebooks', name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    license='Apache-2.0',
    packages=find_packages(include=['mpfnet', 'mpfnet.*']),
    package_data={'mpfnet': ['reference/*.csv', 'published/*.csv']},   # the paper's tables; our results
    python_requires=f">={cfg['min_python']}",
    classifiers=[f'Programming Language :: Python :: {v}' for v in cfg['pythons'].split()],
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
        'console_scripts': [f"{cfg['lib_name']}={cfg['lib_name']}.cli:main"],
    },
    cmdclass={'build_py': BuildWithPages},
    zip_safe=False,
)
