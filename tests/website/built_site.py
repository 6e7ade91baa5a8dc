"Where the built site is, and how it is looked at."
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT/'_docs'
AXE = Path(sys.prefix)/'node_modules'/'axe-core'/'axe.min.js'
# theme, width and height of the window
VIEWS = {'light': ('light', 1280, 900), 'dark': ('dark', 1280, 900), 'phone': ('light', 360, 740)}
