"Lets `python -m fcnet` run the program. Kept by hand, like `__init__.py`."
from fcnet.cli import main

if __name__ == '__main__': main()
