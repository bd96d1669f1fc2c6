"""Holds that the site's search finds what users of other packages look for.

Run after the site was built: python docs/check_search.py SITE. Every term below must be a word (or
its beginning, as in the search box) in a section of the page that it is listed with.
"""

import json
import re
import sys
from pathlib import Path

TERMS = {
    "choose": "choose,equation in time",
    "from_diffrax": "diffeqsolve,ODETerm,SaveAt,PIDController,odeint,solve_ivp,odeint_adjoint,"
    "sdeint,cdeint,ControlTerm,VirtualBrownianTree,BacksolveAdjoint,torchdiffeq,torchsde,torchcde,"
    "LSODA",
    "from_jaxopt": "ProjectedGradient,ProximalGradient,LBFGSB,custom_root,OSQP,ScipyMinimize,"
    "projection_simplex,prox_lasso,AndersonAcceleration,BlockCoordinateDescent",
    "from_diffusers": "DDIMScheduler,DPMSolverMultistepScheduler,EulerDiscreteScheduler",
    "from_deepxde": "TimePDE,dde.data.PDE,PINN,FNN,DirichletBC,GeometryXTime,PDEPointResampler",
    "from_fipy": "CellVariable,FaceVariable,TransientTerm,DiffusionTerm,Grid1D,ScalarField,py-pde",
    "from_copasi_or_petab": "COPASI,PEtab,SBML,AMICI,pyPESTO,parameter estimation,"
    "profile likelihood",
    "from_nonmem": "NONMEM,Monolix,nlmixr,NLME,FOCEI,THETA,OMEGA,IWRES,nonlinear mixed effects",
}


def words(text: str, separator: str) -> set[str]:
    """The words that the index has of a text, which may hold HTML."""
    plain = re.sub(r"&[a-z]+;", " ", re.sub(r"<[^>]+>", " ", text))
    return {word.strip("$@'").lower() for word in re.split(separator, plain) if word}


def missing(site: Path) -> list[str]:
    """The terms that no section of their page has all the words of."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    separator = index["config"]["separator"]
    lost = []
    for page, terms in TERMS.items():
        here = [entry for entry in index["docs"] if entry["location"].startswith(f"guides/{page}/")]
        sections = [words(f"{entry['title']} {entry['text']}", separator) for entry in here]
        for term in terms.split(","):
            asked = words(term, separator)
            if not any(
                all(any(word.startswith(part) for word in section) for part in asked)
                for section in sections
            ):
                lost.append(f"{page}: {term}")
    return lost


if __name__ == "__main__":
    lost = missing(Path(sys.argv[1]))
    if lost:
        raise SystemExit("The search does not find\n" + "\n".join(lost))
    print(f"the search finds all {sum(len(t.split(',')) for t in TERMS.values())} terms")
