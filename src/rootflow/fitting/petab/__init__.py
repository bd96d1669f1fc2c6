"""Problems of the PEtab format with models in SBML, as models and data of rootflow.

`load_petab` reads a problem (version 1), `convert` writes it as a model file and a table. Reading
goes through the text of that model file, so both are one.
"""

from .convert import convert as convert
from .load import load_petab as load_petab
from .nominal import at_guess as at_guess
