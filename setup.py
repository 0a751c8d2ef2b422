"""Packaging from settings.ini, the one place where name, version and requirements are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
readme = here / 'README.md'
extras = {name: cfg[f'{name}_requirements'].split() for name in ('dev', 'docs', 'phase', 'dlib', 'ray')}
extras['dev'] += extras['docs']  # the tests build the site

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
    package_data={'mpfnet': ['reference/*.csv']},   # the paper's tables
    python_requires=f">={cfg['min_python']}",
    classifiers=[f'Programming Language :: Python :: {v}' for v in cfg['pythons'].split()],
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
        'console_scripts': [f"{cfg['lib_name']}={cfg['lib_name']}.cli:main"],
    },
    zip_safe=False,
)
