"""Models go to repositories of the Hugging Face hub and come back; here a folder stands for it."""

import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from bloodseg import BloodCellSegmenter, SmearFeatures


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a folder that stands for the hub, which no test may reach."""
    folder = tmp_path / "hub"

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        (folder / repo_id).mkdir(parents=True, exist_ok=True)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, folder / repo_id, dirs_exist_ok=True)

    def hf_hub_download(repo_id, filename, *, revision):
        file = folder / repo_id / (revision or "") / filename
        if not file.exists():
            raise FileNotFoundError(f"there is no {repo_id}")
        return str(file)

    def file_exists(self, repo_id, filename):
        return (folder / repo_id / filename).exists()

    monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", file_exists)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return folder


def test_there_and_back(fitted, smears, hub, same_weights):
    assert fitted.push_to_hub("lab/smears") == "https://huggingface.co/lab/smears"
    card = (hub / "lab/smears/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: bloodseg\n")
    assert card.endswith(fitted.card())
    back = BloodCellSegmenter.from_pretrained("lab/smears", pixel_size=0.1)
    assert back.pixel_size == 0.1
    assert back.keep_statistics  # fine-tunes, as from published weights
    assert back.pretrained == str(hub / "lab/smears/model.safetensors")
    for mine, theirs in zip(
        fitted.predict(smears.images), back.predict(smears.images), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert same_weights(SmearFeatures("lab/smears").fit().segmenter_, fitted)


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_what_is_there_is_replaced_only_on_request(fitted, hub, name):
    file = hub / "lab/smears" / name
    file.parent.mkdir(parents=True)
    file.write_text("written by hand")
    text = f"lab/smears holds {name} already, to which something was added perhaps. Choose another"
    with pytest.raises(FileExistsError, match=re.escape(text)):
        fitted.push_to_hub("lab/smears")
    assert file.read_text() == "written by hand"
    assert len(list(file.parent.iterdir())) == 1
    fitted.push_to_hub("lab/smears", overwrite=True)
    assert file.read_bytes()[:15] != b"written by hand"


def test_a_revision(fitted, hub):
    fitted.push_to_hub("lab/smears", private=True, half_precision=True)
    with pytest.raises(OSError, match="there is no lab/smears"):
        BloodCellSegmenter.from_pretrained("lab/smears", revision="v1")
    shutil.copytree(hub / "lab/smears", hub / "v1")
    shutil.move(hub / "v1", hub / "lab/smears/v1")
    found = BloodCellSegmenter.from_pretrained("lab/smears", revision="v1")
    assert Path(found.pretrained).parts[-2] == "v1"


def test_a_file(fitted, hub, tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    fitted.save(tmp_path / "lab/smears")
    monkeypatch.chdir(tmp_path)
    found = BloodCellSegmenter.from_pretrained("lab/smears")  # a file that is there goes first
    assert found.pretrained == str(Path("lab/smears"))
    with pytest.raises(ValueError, match="revision is for repositories of the Hugging Face hub"):
        BloodCellSegmenter.from_pretrained("lab/smears", revision="v1")


@pytest.mark.parametrize("name", ["smears-0", "nowhere/mine.safetensors", "a/b/c", "../x", "/"])
def test_no_model(name, hub):
    text = (
        "name must be that of a published model, one of smears-5, a model file, or a repository of "
        f"the Hugging Face hub, OWNER/NAME; got {name!r}."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        BloodCellSegmenter.from_pretrained(name)


@pytest.mark.parametrize("name", ["mine", "a/b/c", "lab/", "lab/../x"])
def test_no_repository(name, fitted, hub):
    text = f"must be the name of one of the Hugging Face hub, OWNER/NAME; got {name!r}."
    with pytest.raises(ValueError, match=re.escape(text)):
        fitted.push_to_hub(name)
    assert not hub.exists()


def test_without_the_package(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'bloodseg[hub]'")):
        fitted.push_to_hub("lab/smears")
    with pytest.raises(ImportError, match=re.escape("pip install 'bloodseg[hub]'")):
        BloodCellSegmenter.from_pretrained("lab/smears")


def test_what_cannot_be_saved_makes_no_repository(fitted, hub):
    strange = fitted.__class__(**fitted.get_params(deep=False))
    strange.__dict__.update(fitted.__dict__)
    with pytest.raises(ValueError, match="network"):
        strange.set_params(network=lambda: None).push_to_hub("lab/smears")
    assert not hub.exists()
