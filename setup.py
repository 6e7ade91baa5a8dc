"Builds the package from settings.ini, which describes it; license and classifiers stand here."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

# A package index shows the README away from the repository, so its links are made whole.
readme = (here/'README.md').read_text(encoding='utf-8')
readme = re.sub(r'(!\[[^\]]*\]\()(?!https?:|#)', rf'\g<1>{cfg["git_url"]}/raw/{cfg["branch"]}/', readme)
readme = re.sub(r'((?<!!)\[[^\]]*\]\()(?!https?:|#)', rf'\g<1>{cfg["git_url"]}/blob/{cfg["branch"]}/', readme)

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], license='Apache-2.0 AND CC-BY-SA-3.0', # MNIST is under the second
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    long_description=readme, long_description_content_type='text/markdown',
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Education',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    python_requires=f'>={cfg["min_python"]}',
    packages=['fcnet'], include_package_data=False, package_data={'fcnet': ['mnist/*', '*.mplstyle']},
    install_requires=cfg['requirements'].split(),
    extras_require={name: cfg[f'{name}_requirements'].split() for name in ('dev', 'site', 'bench')},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': ['fcnet=fcnet._modidx:d']},  # names in back-ticks become links on the site
)
