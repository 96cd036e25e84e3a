from __future__ import annotations

import json
import logging

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from genseg_monai.data import find_cases
from genseg_monai.dicom import convert as convert_module
from genseg_monai.dicom.convert import convert_folder
from genseg_monai.dicom.dataset import load_labels
from genseg_monai.dicom.profile import Profile, Quarantine
from genseg_monai.dicom.uids import Key
from genseg_monai.errors import UserError
from tests.dicom.leaks import find_leaks, tree
from tests.dicom.phi import MARK
from tests.dicom.study import LABELS, write_study

KEY = Key(bytes(range(32)))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Three patients: SEG and RTSTRUCT; SEG alone, oblique; no annotation. And one file that is broken."""
    home = tmp_path_factory.mktemp("in")
    made = [
        write_study(home, patient=1, slices=6),
        write_study(home, patient=2, slices=6, oblique=True, rtstruct=False, seed=1),
        write_study(home, patient=3, slices=5, seg=False, rtstruct=False, seed=2),
    ]
    (home / f"{MARK}_cut.dcm").write_bytes(made[0].images[0].read_bytes()[:3000])
    return home, made


@pytest.fixture(scope="module")
def done(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, convert_folder(studies[0], out, LABELS, key=KEY)


def _case_of(out, study):
    """Return the case whose volume is that of a study."""
    for path in sorted(out.glob("images*/*.nii.gz")):
        image = nib.load(path)
        if image.shape == study.volume.shape and np.array_equal(np.asarray(image.dataobj), study.volume):
            return path.name, image
    raise AssertionError("no case has this volume")


def test_volumes_labels_and_affines_are_those_drawn(studies, done):
    out, result = done
    assert (result.labelled, result.unlabelled) == (2, 1)
    for study in studies[1][:2]:
        name, image = _case_of(out, study)
        assert np.allclose(image.affine, study.affine, atol=1e-4)
        labels = nib.load(out / "labelsTr" / name)
        assert np.array_equal(np.asarray(labels.dataobj), study.labels)
        assert np.allclose(labels.affine, image.affine)
        assert labels.get_data_dtype() == np.uint8
    name, _ = _case_of(out, studies[1][2])
    assert (out / "imagesTs" / name).exists()


def test_train_reads_the_result(done):
    cases = find_cases(done[0])
    labelled = [case for case in cases if case["label"]]
    assert len(labelled) == 2
    assert len({case["group"] for case in labelled}) == 2


def test_no_byte_written_holds_an_original_value(studies, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    secrets = {secret for study in studies[1] for secret in study.secrets}
    convert_folder(studies[0], tmp_path, {"liver": 1}, key=KEY)
    assert not find_leaks(tmp_path, secrets)
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert not [secret for secret in secrets if secret.lower() in text.lower()]


def test_two_runs_write_the_same_bytes(studies, done, tmp_path):
    convert_folder(studies[0], tmp_path, LABELS, key=KEY)
    assert tree(tmp_path) == tree(done[0])


def test_a_run_that_was_stopped_goes_on(studies, done, tmp_path, monkeypatch):
    real, calls = convert_module.write_volume, []

    def failing(path, array, affine):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, array, affine)

    monkeypatch.setattr(convert_module, "write_volume", failing)
    with pytest.raises(KeyboardInterrupt):
        convert_folder(studies[0], tmp_path, LABELS, key=KEY)
    before = len(calls)
    convert_folder(studies[0], tmp_path, LABELS, key=KEY)
    assert tree(tmp_path) == tree(done[0])
    assert len(calls) - before == 5 - 2  # the first case, image and labels, is not written twice
    calls.clear()
    convert_folder(studies[0], tmp_path, LABELS, key=KEY)
    assert not calls


def test_the_manifest_tells_what_there_is(done):
    out, result = done
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["key"] == KEY.fingerprint
    assert len(manifest["cases"]) == 3
    assert manifest["labels"] == LABELS
    assert result.refused
    assert sum(result.refused.values()) == 1
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert (dataset["numTraining"], dataset["numTest"], dataset["modality"]) == (2, 1, {"0": "CT"})


def test_unknown_names_are_told_unless_they_may_identify(studies, tmp_path):
    result = convert_folder(studies[0], tmp_path, {"liver": 1}, key=KEY)
    assert result.unknown == ("tumour",)
    home, out = tmp_path / "named", tmp_path / "out"
    study = write_study(home, slices=4, seg=False)
    rtstruct = dcmread(study.rtstruct)
    rtstruct.StructureSetROISequence[0].ROIName = f"lesion of {MARK}"
    rtstruct.save_as(study.rtstruct)
    result = convert_folder(home, out, {"tumour": 2}, key=KEY)
    assert len(result.unknown) == 1
    assert result.unknown[0].startswith("[withheld ")
    assert result.labelled == 1


def test_names_are_numbered_where_no_labels_are_given(studies, tmp_path):
    result = convert_folder(studies[0], tmp_path, key=KEY)
    assert result.labelled == 2
    assert json.loads((tmp_path / "manifest.json").read_text())["labels"] == {"liver": 1, "tumour": 2}


def test_a_suspected_series_is_refused_and_a_rule_lets_it_pass(tmp_path):
    study = write_study(tmp_path / "in", slices=4, seg=False, rtstruct=False, phi=False)
    for path in study.images:
        image = dcmread(path)
        image.BodyPartExamined = "HEAD"
        image.save_as(path)
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.unlabelled, result.refused) == (0, {"face": 1})
    allowed = Profile(quarantine=Quarantine(allow=({"modality": "CT", "body_part": "HEAD"},)))
    result = convert_folder(tmp_path / "in", tmp_path / "passed", LABELS, key=KEY, profile=allowed)
    assert (result.unlabelled, result.refused) == (1, {})


def test_a_series_with_a_missing_slice_is_refused_and_the_rest_goes_on(tmp_path):
    study = write_study(tmp_path / "in", slices=6, patient=1)
    write_study(tmp_path / "in", slices=6, patient=2)
    study.images[2].unlink()
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.labelled, result.refused) == (1, {"missing_slice": 1})


def test_a_series_with_a_cut_end_slice_is_refused_until_it_is_whole(tmp_path):
    study = write_study(tmp_path / "in", slices=6, seg=False, rtstruct=False)
    write_study(tmp_path / "in", slices=6, patient=2, seg=False, rtstruct=False)
    whole = study.images[5].read_bytes()
    study.images[5].write_bytes(whole[:-500])
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.unlabelled, result.refused) == (1, {"incomplete": 1, "truncated": 1})
    study.images[5].write_bytes(whole)
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.unlabelled, result.refused) == (2, {})


def test_a_file_that_cannot_be_read_is_refused_and_the_rest_goes_on(tmp_path):
    study = write_study(tmp_path / "in" / "a", slices=4)
    write_study(tmp_path / "in" / "b", slices=4, patient=2)
    study.images[1].unlink()
    study.images[1].symlink_to("/proc/self/mem")  # opens, and every read fails
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.labelled, result.refused) == (1, {"incomplete": 1, "unreadable": 1})
    assert not find_leaks(tmp_path / "out", study.secrets)


def test_a_missing_end_slice_is_seen_by_the_annotation(tmp_path):
    study = write_study(tmp_path / "in", slices=6)
    study.images[5].unlink()
    result = convert_folder(tmp_path / "in", tmp_path / "out", LABELS, key=KEY)
    assert (result.labelled, result.refused) == (0, {"incomplete": 1})


def test_other_settings_are_refused(studies, done):
    with pytest.raises(UserError, match="the same labels"):
        convert_folder(studies[0], done[0], {"liver": 1}, key=KEY)
    with pytest.raises(UserError, match="the same key"):
        convert_folder(studies[0], done[0], LABELS, key=Key(bytes(32)))


@pytest.mark.parametrize("text", ["", "[1]", "{liver: 0}", "{liver: one}", "{liver: true}", "{liver: 256}", "{"])
def test_wrong_labels_are_refused(tmp_path, text):
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="wanted"):
        load_labels(path)
