from __future__ import annotations

import copy

import pytest
from pydicom.dataset import Dataset

from genseg_monai.dicom.deidentify import Deidentifier, encode
from genseg_monai.dicom.instance import quiet, read_instance
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.uids import Key
from tests.dicom.phi import MARK
from tests.dicom.study import write_study

KEY = Key(bytes(range(32)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), slices=4)


def clean(path, *options, **settings):
    return Deidentifier(Profile(options=frozenset(options), **settings), KEY).process(read_instance(path))


def objects(study):
    return (study.images[0], study.seg, study.rtstruct)


@pytest.mark.parametrize(
    "options", [(), *((option,) for option in Option), tuple(set(Option) - {Option.RETAIN_FULL_DATES})]
)
def test_no_planted_word_is_left_under_any_option(study, options):
    kept_dates = Option.RETAIN_FULL_DATES in options
    kept_uids = Option.RETAIN_UIDS in options
    for path in objects(study):
        content = encode(clean(path, *options).dataset)
        for secret in study.secrets:
            if (secret == "20240229" and kept_dates) or (secret in study.uids and kept_uids):
                continue
            # the mark of a device that the user asked to keep holds no name of the patient: it is still cleaned
            assert secret.lower().encode() not in content.lower(), secret


def test_the_source_is_left_as_it_was(study):
    before = read_instance(study.images[0])
    kept = copy.deepcopy(before)
    Deidentifier(Profile(), KEY).apply(before)
    with quiet():
        assert before == kept
    assert before.PixelData == kept.PixelData


def test_links_between_image_segmentation_and_structure_set_hold(study):
    image, seg, rtstruct = (clean(path).dataset for path in objects(study))
    images = {clean(path).dataset.SOPInstanceUID for path in study.images}
    assert image.SOPInstanceUID not in study.uids
    assert image.StudyInstanceUID == seg.StudyInstanceUID == rtstruct.StudyInstanceUID
    assert image.FrameOfReferenceUID == seg.FrameOfReferenceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced <= images
    assert referenced
    frame = rtstruct.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    refers = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert refers.SeriesInstanceUID == image.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in refers.ContourImageSequence} == images
    contour = rtstruct.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0]
    assert contour.ReferencedSOPInstanceUID in images
    assert image.PatientID == seg.PatientID == rtstruct.PatientID


def test_pseudonyms_depend_on_the_key_and_nothing_else(study):
    first, again = clean(study.images[0]).dataset, clean(study.images[0]).dataset
    assert encode(first) == encode(again)
    other = Deidentifier(Profile(), Key(bytes(32))).apply(read_instance(study.images[0]))
    assert other.PatientID != first.PatientID
    assert other.SOPInstanceUID != first.SOPInstanceUID


def test_pixels_and_geometry_are_untouched(study):
    before, after = read_instance(study.images[2]), clean(study.images[2]).dataset
    with quiet():
        assert (before.pixel_array == after.pixel_array).all()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept", "Modality"):
        assert before[keyword].value == after[keyword].value
    seg = clean(study.seg).dataset
    assert (read_instance(study.seg).pixel_array == seg.pixel_array).all()


def test_group_2_and_preamble_are_made_anew(study):
    made = clean(study.images[0]).dataset
    assert made.preamble == b"\0" * 128
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert {element.keyword for element in made.file_meta} <= {
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
        "ImplementationVersionName",
    }


def test_what_was_done_is_declared(study):
    made = clean(study.images[0]).dataset
    assert made.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in made.DeidentificationMethodCodeSequence] == ["113100"]
    assert made.LongitudinalTemporalInformationModified == "REMOVED"
    options = set(Option) - {Option.RETAIN_FULL_DATES}
    made = clean(study.images[0], *options).dataset
    codes = [item.CodeValue for item in made.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113103", "113105", "113107", "113108", "113109", "113110", "113111"]
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"
    assert (
        clean(study.images[0], Option.RETAIN_FULL_DATES).dataset.LongitudinalTemporalInformationModified == "UNMODIFIED"
    )


def test_names_of_segments_stay_only_if_asked_for(study):
    def names(*options, **settings):
        seg = clean(study.seg, *options, **settings).dataset
        rtstruct = clean(study.rtstruct, *options, **settings).dataset
        regions = [item.ROIName for item in rtstruct.StructureSetROISequence]
        return [item.SegmentLabel for item in seg.SegmentSequence], regions

    assert names() == (["SEGMENT 1", "SEGMENT 2"], ["", ""])
    assert names(labels=("Liver",)) == (["liver", "SEGMENT 2"], ["liver", ""])
    assert names(Option.CLEAN_DESCRIPTORS) == (["liver", "tumour"], ["liver", "tumour"])
    allowed = clean(study.seg, labels=("Liver",)).dataset
    assert "113105" in [item.CodeValue for item in allowed.DeidentificationMethodCodeSequence]


def test_a_name_made_of_common_words_is_no_hiding_place():
    image = _image(PatientName="Liver^Brain", SeriesDescription="Liver portal", PatientID="4711")
    made = Deidentifier(Profile(options=frozenset({Option.CLEAN_DESCRIPTORS})), KEY).apply(image)
    assert made.SeriesDescription == "portal"


def test_an_id_does_not_stay_as_a_number():
    image = _image(PatientID="A84736251", OtherPatientIDs="84736251", SeriesNumber="84736251", KVP="120")
    made = Deidentifier(Profile(), KEY).apply(image)
    assert "SeriesNumber" not in made
    assert made.KVP == 120


def test_text_in_numbers_and_wrong_representations_goes():
    image = _image()
    image.add_new("PatientWeight", "LO", MARK)  # a text where a number belongs
    image.KVP = 120
    image["KVP"]._value = MARK
    made = Deidentifier(Profile(options=frozenset({Option.RETAIN_PATIENT_CHARACTERISTICS})), KEY).apply(image)
    assert MARK.encode() not in encode(made)


@pytest.mark.parametrize("depth", [40, 3000])
def test_sequences_nested_too_deep_are_refused(depth):
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        inner = outer
    image = _image()
    image.ReferencedImageSequence = [inner]
    with pytest.raises(Quarantined) as caught:
        Deidentifier(Profile(), KEY).apply(image)
    assert caught.value.reason is Reason.TOO_DEEP


@pytest.mark.parametrize("uid", ["", "../../../etc/passwd", "1.2.3\n4", "1" * 65, "1.2.840.10008.1.2"])
def test_a_uid_that_is_none_is_refused(uid):
    with pytest.raises(Quarantined) as caught:
        Deidentifier(Profile(), KEY).apply(_image(SeriesInstanceUID=uid))
    assert caught.value.reason is Reason.BAD_UID
    assert "passwd" not in repr(caught.value)


def test_a_private_class_is_refused():
    with pytest.raises(Quarantined, match="bad_uid"):
        Deidentifier(Profile(), KEY).apply(_image(SOPClassUID="1.3.12.2.1107.5.9.1"))


def test_lost_uids_are_made_from_the_frame_of_reference(study):
    image = read_instance(study.images[0])
    image.SOPClassUID = image.SOPInstanceUID = image.StudyInstanceUID = image.SeriesInstanceUID = ""
    made = Deidentifier(Profile(), KEY).apply(image)
    assert made.SOPInstanceUID == KEY.uid(image.file_meta.MediaStorageSOPInstanceUID)
    assert made.SOPClassUID == image.file_meta.MediaStorageSOPClassUID
    assert made.StudyInstanceUID != made.SeriesInstanceUID


def _image(**values):
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2", "1.2.1", "CT"
    with quiet():
        for keyword, value in values.items():
            setattr(image, keyword, value)
    return image
