"""``bloodseg study``."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bloodseg.cli import _study, main
from bloodseg.cli._arguments import make_parser
from bloodseg.datasets import make_smears
from bloodseg.study import load_results, network_names, typed_name

TINY = ["--width", "4", "--max-epochs", "1", "--crop-size", "32", "--seeds", "0", "-q"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smears")
    for part, n in (("train", 6), ("test", 2)):
        smears = make_smears(
            n, image_size=64, random_state=n, red_cell_diameter=16, white_cells=(1, 1)
        )
        for kind, pictures in (("images", smears.images), ("masks", smears.masks)):
            (folder / part / kind).mkdir(parents=True)
            for index, picture in enumerate(pictures):
                Image.fromarray(picture).save(folder / part / kind / f"{index}.png")
    return folder


def parsed(*arguments):
    return make_parser("study").parse_args(["study", *arguments])


def test_options_of_each_study():
    given = parsed("networks", "A", "B", "-o", "C", "--ode-tol", "4=1e-2,5=1e-3,6=1e-2")
    assert given.ode_tol == {4: 1e-2, 5: 1e-3, 6: 1e-2}
    assert given.seeds == [0, 1, 2, 3, 4]
    assert not {"width", "max_epochs", "device"} & vars(given).keys()  # the estimator's own
    given = parsed("tolerance", "A", "B", "-o", "C", "--predict-tolerances", "1e-1", "1e-3")
    assert given.predict_tolerances == [1e-1, 1e-3]
    given = parsed("positions", "A", "B", "-o", "C", "--networks", "ODEUNet5", "--n-jobs", "2")
    assert given.networks == ["ODEUNet5"]
    assert given.n_jobs == 2
    names = ["unet", "U-Net", "resnet-unet", "unet-as-much-time", "nodes-unet-paper-tolerances"]
    given = parsed("networks", "A", "B", "-o", "C", "--networks", *names)
    assert given.networks == [
        *("U-Net", "U-Net", "ResNet", "U-Net (as much time)", "NODEs-UNet (paper tolerances)")
    ]


def test_help_names_the_networks(capsys):
    for study in ("networks", "positions", "tolerance"):
        assert main(["study", study, "--help"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert all(typed_name(name) in out for name in network_names(study))
    assert main(["study", "--help"]) == 0
    assert "exit codes:" in capsys.readouterr().out


def test_study_and_report(data, tmp_path, capsys):
    train, test = str(data / "train"), str(data / "test")
    rows = tmp_path / "docs" / "results.csv"
    out = str(tmp_path / "out")
    arguments = ["study", "networks", train, test, "-o", out, "--results", str(rows), *TINY]
    assert main([*arguments, "--networks", "U-Net", "ResNet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"# {data.name}: Three networks")
    assert said.endswith(f"Results: {out}\n")
    table = load_results(tmp_path / "out")
    assert table.network.tolist() == ["ResNet", "U-Net"]
    assert table.dataset.unique().tolist() == [data.name]
    assert load_results(rows).equals(table)
    assert (tmp_path / "out" / "figures").is_dir()
    assert main(["study", "report", out]) == 0
    assert capsys.readouterr().out == said


def test_a_row_can_be_made_again_by_one_command(data, tmp_path):
    train, test = str(data / "train"), str(data / "test")
    tables = []
    for name, networks in (("a", ["ResNet", "U-Net"]), ("b", ["U-Net"])):
        command = ["study", "networks", train, test, "-o", str(tmp_path / name), *TINY]
        assert main([*command, "--networks", *networks]) == 0
        table = load_results(tmp_path / name)
        tables.append(table[table.network == "U-Net"].drop(columns="seconds"))
    assert np.array_equal(tables[0].to_numpy(), tables[1].to_numpy())


def test_paper_protocol_needs_no_test_folder(data, tmp_path, capsys):
    output = tmp_path / "study"
    arguments = ["study", "networks", str(data / "train"), "-o", str(output), *TINY]
    assert main([*arguments]) == 2
    assert "the folder to test on is missing." in capsys.readouterr().err
    assert not output.exists()
    assert main([*arguments[:3], str(data / "test"), *arguments[3:], "--protocol", "paper"]) == 2
    assert "test must be None where protocol is 'paper'" in capsys.readouterr().err
    no_crop_size = [each for each in arguments if each not in ("--crop-size", "32")]
    assert main([*no_crop_size, "--protocol", "paper"]) == 2
    assert "must be at least 256 pixels high and wide" in capsys.readouterr().err


def test_failed_trainings_are_done_in_part(data, tmp_path, monkeypatch, capsys):
    from bloodseg.study import _run

    def fail(*args):
        raise _run.JobFailed("Training broke down")

    arguments = ["study", "networks", str(data / "train"), str(data / "test"), *TINY]
    assert main([*arguments, "-o", str(tmp_path), "--networks", "U-Net"]) == 0
    monkeypatch.setattr(_run, "_fit", fail)
    assert main([*arguments, "-o", str(tmp_path), "--networks", "U-Net", "ResNet"]) == 1
    assert "resnet-0 came to no result: Training broke down" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_done(data, tmp_path, monkeypatch):
    from bloodseg.study import _run

    fitted = _run._fit

    def stop(job, *args):
        if job.network == "ResNet":
            raise KeyboardInterrupt
        return fitted(job, *args)

    monkeypatch.setattr(_run, "_fit", stop)
    rows = tmp_path / "rows.csv"
    arguments = ["study", "networks", str(data / "train"), str(data / "test"), *TINY]
    arguments += ["-o", str(tmp_path / "out"), "--results", str(rows)]
    assert main([*arguments, "--networks", "U-Net", "ResNet"]) == 130
    assert load_results(rows).network.tolist() == ["U-Net"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["networks", "nowhere", "nowhere", "-o", "out"], "nowhere"),
        (
            ["networks", "A", "B", "-o", "out", "--networks", "V-Net"],
            "resnet-unet-as-much-time for the study of networks; got 'V-Net'. See `bloodseg",
        ),
        (["networks", "A", "-o", "out"], "the folder to test on is missing. Name it after TRAIN"),
        (["networks", "A", "B"], "required: -o/--output"),
        (["report", "empty"], "output must hold finished trainings"),
        (["everything"], "invalid choice: 'everything'"),
    ],
)
def test_wrong_usage(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_names_of_data(tmp_path):
    for folder, name in (("smears/train", "smears"), ("smears", "smears"), ("a/b", "b")):
        assert _study._dataset_name(tmp_path / folder) == name
