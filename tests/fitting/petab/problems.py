"""Small PEtab problems in a folder: A <=> B with rates k1 and k2, as in the test suite."""

import libsbml


def conversion(
    starts=None, values=None, parameters=(), rules=False, change=lambda model: None
) -> str:
    """The SBML text.

    Args:
        starts: formulas of initial assignments.
        values: initial concentrations.
        parameters: names of further constants.
        rules: rate rules instead of reactions, B a parameter.
        change: called with the model of libsbml before it is written.
    """
    starts = {"A": "a0", "B": "b0"} if starts is None else starts
    values = {} if values is None else values
    document = libsbml.SBMLDocument(3, 1)
    model = document.createModel()
    model.setId("conversion")
    place = model.createCompartment()
    place.setId("compartment")
    place.setConstant(True)
    place.setSize(1.0)
    for name in "A" if rules else "AB":
        species = model.createSpecies()
        species.setId(name)
        species.setCompartment("compartment")
        for setter in ("setBoundaryCondition", "setConstant", "setHasOnlySubstanceUnits"):
            getattr(species, setter)(False)
        if name in values:
            species.setInitialConcentration(values[name])
    names = ["k1", "k2", *(x for x in starts.values() if x.isidentifier()), *parameters]
    for name in [*names, *(["B"] if rules else [])]:
        parameter = model.createParameter()
        parameter.setId(name)
        parameter.setConstant(name != "B")
        if name != "B":
            parameter.setValue(1.0 if name in starts.values() else 0.0)
    for name, text in starts.items():
        assignment = model.createInitialAssignment()
        assignment.setSymbol(name)
        assignment.setMath(libsbml.parseL3Formula(text))
    if rules:
        for name, text in (("A", "k2*B - k1*A"), ("B", "-compartment*k2*B + compartment*k1*A")):
            rule = model.createRateRule()
            rule.setVariable(name)
            rule.setMath(libsbml.parseL3Formula(text))
    else:
        for name, (used, made), rate in (("fwd", "AB", "k1*A"), ("rev", "BA", "k2*B")):
            reaction(model, name, {used: 1}, {made: 1}, f"compartment*{rate}")
    change(model)
    return libsbml.writeSBMLToString(document)


def reaction(model, name, used, made, rate):
    """Adds a reaction to a model of libsbml."""
    new = model.createReaction()
    new.setId(name)
    new.setReversible(False)
    new.setFast(False)
    for species, number, create in (
        *((s, n, new.createReactant) for s, n in used.items()),
        *((s, n, new.createProduct) for s, n in made.items()),
    ):
        reference = create()
        reference.setSpecies(species)
        reference.setStoichiometry(number)
        reference.setConstant(True)
    new.createKineticLaw().setMath(libsbml.parseL3Formula(rate))


YAML = """\
format_version: 1
parameter_file: parameters.tsv
problems:
- condition_files: [conditions.tsv]
  measurement_files: [measurements.tsv]
  observable_files: [observables.tsv]
  sbml_files: [model.xml]
"""
CONDITIONS = "conditionId\nc0"
MEASUREMENTS = "observableId simulationConditionId time measurement"
OBSERVABLES = "observableId observableFormula noiseFormula\nobs_a A 0.5"
DATA = f"{MEASUREMENTS}\nobs_a c0 0 0.7\nobs_a c0 10 0.1"
PARAMETERS = "parameterId parameterScale lowerBound upperBound nominalValue estimate"
RATES = "k1 lin 0 10 0.8 1\nk2 lin 0 10 0.6 1"
STARTS = "a0 lin 0 10 1 1\nb0 lin 0 10 0 1"
ALL = f"{PARAMETERS}\n{STARTS}\n{RATES}"


def write(folder, *, sbml=None, yaml=YAML, **tables):
    """Writes a problem; tables are texts whose cells stand between spaces, `_` is an empty one.

    Returns:
        The YAML file.
    """
    texts = {
        "conditions": CONDITIONS, "measurements": DATA, "observables": OBSERVABLES,
        "parameters": ALL,
    } | tables  # fmt: skip
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        rows = [line.split() for line in text.strip().splitlines()]
        lines = ["\t".join("" if cell == "_" else cell for cell in row) for row in rows]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "model.xml").write_text(sbml or conversion(), encoding="utf-8")
    (folder / "problem.yaml").write_text(yaml, encoding="utf-8")
    return folder / "problem.yaml"
