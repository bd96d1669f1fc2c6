"""Data tables: what is read, how it is batched, and what each mistake is answered with."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootflow.errors import InputError
from rootflow.fitting.examples import example_files
from rootflow.fitting.model import Dose, Model, Noise, Parameter
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.table import assemble, load_table, table_from_columns


def model(**changes):
    parts = dict(
        vector_field=lambda t, y, p, c: {"x": -p["k"] * y["x"]},
        states={"x": 1.0},
        parameters={"k": Parameter(1.0)},
        observed={"x": lambda t, y, p, c: y["x"]},
    )
    return Model(**(parts | changes))


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return load_table(path)

    return read


@pytest.mark.parametrize(
    "content",
    [
        "time,x,note\n0,1.5,a\n1,,b\n",
        "time;x;note\n0;1.5;a\n1;;b\n",
        "time\tx\tnote\n0\t1.5\ta\n1\t\tb\n",
        "\ufefftime,x,note\r\n0,1.5,a\r\n1,NA,b\r\n",
        '# a comment with a "quote\n\n"time", "x", note\n 0 , "1.5",a\n#more\n1,nan,"b, or c"\n',
        "time,x,note\r0,+15e-1,a\r1, ,b\r",
        "sep=;\r\ntime;x;note\r\n0;1.5;a\r\n1;#N/A;b\r\n",
        '\ufeff"sep=|";;\ntime,x,note\n'.replace("|", ",") + "0,1.5,a\n1,NULL,b\n",
        "# of a study\nSEP=\t\ntime\tx\tnote\n0\t1.5\ta\n1\tn/a\tb\n",
    ],
)
def test_dialects_of_csv(read, content):
    table = read(content)
    np.testing.assert_array_equal(table.numbers("time"), [0.0, 1.0])
    np.testing.assert_array_equal(table.numbers("x"), [1.5, math.nan])
    assert table.labels("note")[0] == "a"


def test_lines_are_those_an_editor_shows(read):
    table = read('# one\n\ntime,x,note\n0,1,"two\nlines"\n# skip\n1,2,b\n')
    assert table.lines == (4, 7)
    assert table.place(1, "x").endswith("data.csv, line 7, column 'x'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["the file is empty"]),
        ("# nothing\n\n", ["the file is empty"]),
        ("time,x\n", ["no data rows", "time, x"]),
        ("0,1\n1,2\n", ["line 1", "numbers (0, 1)", "names of the columns"]),
        ("time,x,x\n0,1,2\n", ["line 1", "two columns are called 'x'"]),
        ("time,,x\n0,1,2\n", ["column 2 has no name"]),
        ("time,x\n0,1\n1\n", ["line 3", "1 cell, but the header has 2 columns", "keep its sep"]),
        ("time,x\n0,1,5\n", ["line 2", "3 cells, but the header has 2 columns", "decimal comma"]),
        ('time,x\n0,1\n1,"2\n', ["line 3", "quotes"]),
        ('time,x\n0,"1" \n', ["line 2", "quotes"]),
        ("time,x\n0,one\n", ["line 2, column 'x'", "'one' is not a number", "blank"]),
        ("time;x\n0;1,5\n", ["line 2, column 'x'", "'1,5'", "write 1.5"]),
        ("time,x\n0,inf\n", ["line 2", "'inf' is not a number"]),
        ("time,x\n0,1_000\n", ["line 2", "'1_000'"]),
        ("time,x\n0,<0.1\n", ["line 2", "'<0.1'"]),
        ("time,x\n,1\n", ["line 2, column 'time'", "the time is missing"]),
        ("tme,x\n0,1\n", ["no column 'time' (the time)", "Did you mean 'tme'"]),
        ("time,X\n0,1\n", ["no column 'x' (observed by the model)", "Columns: 'time', 'X'"]),
        ("time,x\n0,\n1,\n", ["column 'x' has no measurements"]),
        ("time,x\n0,1\n-1,2\n", ["line 3, column 'time'", "-1 lies before the start t0 = -0.5"]),
        (b"time,x\n0,\xff\n", ["line 2: byte 0xff is not UTF-8"]),
        ("time,x\n0,-\n", ["'-' is not a number", "--missing '-'"]),
        ("time,x\n0,.\n", ["'.' is not a number", "--missing '.'"]),
        ("time;x\n0;1,5\n", ["'1,5'", "--decimal ,"]),
        ("time,x\n2024-03-01,1\n", ["'2024-03-01'", "a date", "days", "=A2-$A$2"]),
        ("time,x\n1.3.2024 12:30,1\n", ["a date"]),
        ("time,x\n12:30,1\n", ["'12:30'", "time of a clock", "=24*(A2-$A$2)"]),
        ("time,x\n1:05:09 PM,1\n", ["time of a clock"]),
        ("time,x\n0,1\n#N/A,2\n", ["line 3, column 'time'", "the time is missing"]),
        ("time,x\n0,1\n#DIV/0!,2\n", ["line 3, column 'time'", "'#DIV/0!'"]),
        ("sep=|\ntime|x\n0|1\n", ["'|' separates the cells"]),
        ("sep=;\n", ["the file is empty"]),
    ],
)
def test_each_mistake_names_the_place_and_the_way_out(read, content, said):
    with pytest.raises(InputError) as caught:
        assemble(model(t0=-0.5), read(content))
    for words in ("data.csv", *said):
        assert words in str(caught.value)


def test_the_bundled_subjects_are_batched():
    model_file, data_file = example_files("theophylline-subjects")
    data = assemble(load_model(model_file), load_table(data_file))
    assert data.groups == [str(i) for i in range(1, 13)]
    assert data.ts.shape == (12, 11)
    assert data.observations == 132
    assert data.real.all()
    assert data.covariates["dose_mg_per_kg"][:2].tolist() == [4.02, 4.4]
    # Subject 1, the first sample: line 5, below three comments and the header.
    assert data.values["concentration_mg_per_l"][0, 0] == 0.74
    assert data.line(0, 0) == 5


def test_unsorted_and_repeated_times_and_blank_cells():
    table = {"time": [2, 0, 1, 1], "x": [4.0, 1.0, 2.0, None], "y": [1, math.nan, 3, 4]}
    observed = {name: lambda t, y, p, c: y["x"] for name in "xy"}
    data = assemble(model(observed=observed), table)
    np.testing.assert_array_equal(data.ts, [[0, 1, 1, 2]])
    np.testing.assert_array_equal(data.rows, [[1, 2, 3, 0]])
    np.testing.assert_array_equal(data.values["x"], [[1, 2, math.nan, 4]])
    np.testing.assert_array_equal(data.values["y"], [[math.nan, 3, 4, 1]])
    assert data.t0.tolist() == [0.0]
    assert data.groups == [""]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 10), st.none() | st.floats(-5, 5)),
        min_size=1,
        max_size=20,
    )
)
def test_every_cell_maps_back_to_its_row(rows):
    labels, times, values = (list(column) for column in zip(*rows))
    values[0] = 1.0
    table = table_from_columns({"g": labels, "time": times, "x": values})
    data = assemble(model(group="g"), table)
    assert data.groups == list(dict.fromkeys(labels))
    assert sorted(data.rows[data.real]) == list(range(len(rows)))
    assert (np.diff(data.ts, axis=1) >= 0).all()
    for group, slot in zip(*np.nonzero(data.real)):
        row = data.rows[group, slot]
        assert data.groups[group] == labels[row]
        assert data.ts[group, slot] == times[row]
        expected = math.nan if values[row] is None else values[row]
        np.testing.assert_equal(data.values["x"][group, slot], expected)
    assert np.isnan(data.values["x"][~data.real]).all()
    assert data.observations == sum(value is not None for value in values)


def test_groups_need_labels_and_numbers_serve_as_such():
    data = assemble(model(group="g"), {"g": np.array([2.0, 1.0]), "time": [0, 0], "x": [1, 2]})
    assert data.groups == ["2", "1"]
    with pytest.raises(InputError, match="row 1, column 'g': the cell is blank"):
        assemble(model(group="g"), {"g": ["a", " "], "time": [0, 0], "x": [1, 2]})


def test_covariates_are_constant_within_a_group():
    grouped = model(group="g", covariates=("dose",))
    table = {"g": ["a", "a", "b"], "time": [0, 1, 0], "x": [1, 2, 3], "dose": [5, None, 6]}
    assert assemble(grouped, table).covariates["dose"].tolist() == [5, 6]
    with pytest.raises(InputError, match="row 1, column 'dose': the covariate is 4, but 5 before"):
        assemble(grouped, table | {"dose": [5, 4, 6]})
    with pytest.raises(InputError, match="'dose' of group 'b' has no value"):
        assemble(grouped, table | {"dose": [5, 5, None]})


def test_decimal_commas_and_codes_for_missing_cells_are_read_as_told(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("time;x\n0;1,5\n1,5;-\n2;-999,0\n3;BDL\n4;1e-3\n", encoding="utf-8")
    table = load_table(path, decimal=",", missing=("-", "-999", "bdl"))
    np.testing.assert_array_equal(table.numbers("time"), [0, 1.5, 2, 3, 4])
    np.testing.assert_array_equal(table.numbers("x"), [1.5, math.nan, math.nan, math.nan, 1e-3])
    path.write_text("time;x\n0;1.500\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"'1\.500'.*decimal mark of this file is said to be a comma"
    ):
        load_table(path, decimal=",").numbers("x")
    with pytest.raises(InputError, match="decimal mark is ';'"):
        load_table(path, decimal=";")


def test_cells_that_data_frames_and_masked_arrays_call_missing():
    class NAType:  # what pandas calls its own
        pass

    mask = [False, True, False]
    table = table_from_columns(
        {
            "x": np.ma.array([1.0, 9.0, 3.0], mask=mask),
            "n": np.ma.array([1, 9, 3], mask=mask),
            "y": np.array([1.0, NAType(), None], dtype=object),
            "g": np.ma.array(["a", "b", "c"], mask=mask),
        }
    )
    for column, expected in (("x", [1, math.nan, 3]), ("n", [1, math.nan, 3])):
        np.testing.assert_array_equal(table.numbers(column), expected)
    np.testing.assert_array_equal(table.numbers("y"), [1, math.nan, math.nan])
    with pytest.raises(InputError, match="row 1, column 'g': the cell is blank"):
        table.labels("g")
    for kind in ("datetime64[ns]", "timedelta64[h]"):
        with pytest.raises(InputError, match=r"holds dates or durations.*give numbers"):
            table_from_columns({"time": np.array([0, 1], "int64").astype(kind)})


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_lognormal_noise_needs_positive_data(value):
    lognormal = model(noise={"x": Noise("lognormal")})
    with pytest.raises(InputError, match=r"row 1, column 'x'.*lognormal.*blank"):
        assemble(lognormal, {"time": [0, 1], "x": [1.0, value]})


def test_weights_are_positive_where_there_is_a_measurement():
    weighted = model(noise={"x": Noise(weights="w")})
    data = assemble(weighted, {"time": [0, 1], "x": [1.0, None], "w": [4.0, None]})
    assert data.weights["x"].tolist() == [[4.0, 1.0]]
    for bad, shown in ((0.0, "0"), (-1.0, "-1"), (None, "missing")):
        with pytest.raises(InputError, match=f"row 1, column 'w': the weight is {shown}"):
            assemble(weighted, {"time": [0, 1], "x": [1.0, 2.0], "w": [4.0, bad]})


def test_a_group_without_measurements_can_be_predicted_but_not_fitted():
    table = {"g": ["a", "b"], "time": [0, 0], "x": [1.0, None]}
    assert assemble(model(group="g"), table).groups == ["a", "b"]
    own = model(group="g", parameters={"k": Parameter(1.0, per_group=True)})
    with pytest.raises(InputError, match="group 'b' has no measurements, but its own value of k"):
        assemble(own, table)


def test_a_dose_before_the_start():
    dosed = model(doses=(Dose(-1.0, "x", 1.0),))
    with pytest.raises(InputError, match=r"dose into 'x' at time -1 lies before.*set t0 = -1"):
        assemble(dosed, {"time": [0, 1], "x": [1.0, 2.0]})


def test_columns_from_python():
    with pytest.raises(InputError, match=r"differ in length.*time 2, x 1"):
        table_from_columns({"time": [0, 1], "x": [1]})
    with pytest.raises(InputError, match="no data rows"):
        table_from_columns({"time": [], "x": []})
    with pytest.raises(InputError, match=r"'x' has the shape \(1, 2\)"):
        table_from_columns({"x": [[1, 2]]})
    with pytest.raises(InputError, match="give a dictionary"):
        table_from_columns([1, 2])
    with pytest.raises(InputError, match="row 0, column 'x': 'True' is not a number"):
        assemble(model(), {"time": [0], "x": [True]})


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "huge.csv"
    with open(path, "wb") as file:
        file.truncate(300_000_000)  # sparse: takes no room
    with pytest.raises(InputError, match=r"300\.0 MB; the limit"):
        load_table(path)
