"""What has to become of every file and folder of the real DICOM data: its shape and range, or the reason."""

from __future__ import annotations

from genseg_monai.dicom.faults import SeriesFault as F

__all__ = ["ANNOTATIONS", "FILES", "FOLDERS", "TREE"]

# folder -> (modality, (X, Y, Z), least and greatest value), or the reason
FOLDERS = {
    "ct_liver_3slice_seg": F.NOT_AN_IMAGE,
    "ct_liver_3slice_series": ("CT", (512, 512, 3), (-1024, 1381)),
    "ct_small_4slice_seg": F.NOT_AN_IMAGE,
    "ct_small_4slice_series": F.MISSING_SLICE,  # z = -99.5, 103.0, 104.3, 105.5 mm
    "ct_torso_j2k_labels": F.NO_IMAGES,  # NIfTI
    "ct_torso_j2k_series": ("CT", (512, 512, 20), (-1024, 1839)),
    "dicomdir_tree": F.SEVERAL_SERIES,
    "mr_brain_t1post_series": ("MR", (280, 320, 22), (0, 2040)),
    "mr_hippocampus_crop_series": ("MR", (34, 50, 40), (2, 194)),
    "rtstruct_ct_2slice": ("CT", (512, 512, 2), (-1024, 125)),
    "torture": F.TRUNCATED,  # a folder with broken files is not passed over; see FILES
}

# the series of dicomdir_tree, in the order they are found: number of files and what comes of them
TREE = {
    "CR1": (1, ("CR", (16, 16, 1))),
    "CR2": (1, ("CR", (16, 16, 1))),
    "CR3": (1, ("CR", (16, 16, 1))),
    "CT2": (4, F.MISSING_SLICE),
    "CT2N": (2, F.LOCALIZER),
    "CT5N": (5, ("CT", (16, 16, 5))),
    "MR1/15820": (1, ("MR", (16, 16, 1))),
    "MR1/4919": (1, ("MR", (16, 16, 1))),
    "MR1/5641": (1, ("MR", (16, 16, 1))),
    "MR2/15970": (1, ("MR", (16, 16, 1))),
    "MR2/4950": (3, F.MIXED_ORIENTATION),
    "MR2/6273": (3, F.MIXED_ORIENTATION),
    "MR700": (7, F.MIXED_ORIENTATION),  # projections, turned about an axis
}

_CT = ("CT", (512, 512, 1))
_MR = ("MR", (64, 64, 1), (127, 2145))
_NM = ("NM", (256, 1024, 1))

FILES = {
    "693_J2KR.dcm": (*_CT, (-1024, 1468)),
    "CT1_J2KI.dcm": (*_CT, (-1024, 1385)),
    "CT1_JLSL.dcm": (*_CT, (-1024, 1254)),
    "CT1_JLSN.dcm": (*_CT, (-1024, 1254)),
    "CT1_JPLL.dcm": (*_CT, (-1024, 1254)),
    "CT1_RLE.dcm": (*_CT, (-1024, 1254)),
    "CT1_UNC.dcm": (*_CT, (-1024, 1254)),
    "CT_small.dcm": ("CT", (128, 128, 1), (-896, 1167)),
    "JLSL_16_15_1_1F.dcm": ("", (128, 128, 1), (-16384, 16383)),
    "JPEG-LL.dcm": (*_NM, (0, 278)),
    "JPEG-lossy.dcm": (*_NM, (0, 264)),
    "JPEG2000.dcm": (*_NM, (-30, 245)),
    "JPGExtended.dcm": (*_NM, (0, 264)),
    "MR-SIEMENS-DICOM-WithOverlays.dcm": ("MR", (484, 484, 1), (0, 1123)),
    "MR1_JPLY.dcm": ("MR", (512, 512, 1), (0, 3970)),
    "MR_small.dcm": _MR,
    "MR_small_RLE.dcm": _MR,
    "MR_small_bigendian.dcm": _MR,
    "MR_small_expb.dcm": _MR,
    "MR_small_implicit.dcm": _MR,
    "MR_small_jp2klossless.dcm": _MR,
    "MR_small_jpeg_ls_lossless.dcm": _MR,
    "MR_truncated.dcm": F.TRUNCATED,
    "SC_rgb_jpeg_dcmtk.dcm": F.COLOUR,
    "SC_rgb_rle_16bit_2frame.dcm": F.COLOUR,
    "SC_rgb_rle_2frame.dcm": F.COLOUR,
    "badVR.dcm": F.NOT_AN_IMAGE,  # a dose
    "eCT_Supplemental.dcm": ("CT", (512, 512, 2), (-1024, 172)),
    "emri_small.dcm": F.NO_POSITION,  # ten frames without functional groups
    "emri_small_jpeg_2k_lossless.dcm": F.NO_POSITION,
    "examples_palette.dcm": F.COLOUR,
    "examples_ybr_color.dcm": F.COLOUR,
    "image_dfl.dcm": ("OT", (512, 512, 1), (0, 255)),
    "liver_1frame.dcm": F.NOT_AN_IMAGE,
    "no_meta.dcm": F.NOT_DICOM,
    "reportsi.dcm": F.NOT_AN_IMAGE,
    "rtdose.dcm": F.NOT_AN_IMAGE,
    "rtplan.dcm": F.NOT_AN_IMAGE,
    "rtstruct.dcm": F.NOT_AN_IMAGE,
}

_ROIS = {f"roi-{k}": k for k in range(1, 5)}
# SEG or RTSTRUCT -> the series it is drawn on, the classes of its names, and what comes of it: number of voxels and of
# images it refers to that are not there; or the reason. Not all of it was known beforehand: the voxels of liver.dcm are
# those of test_real_files, those of the RTSTRUCT were confirmed afterwards with matplotlib's point in polygon
ANNOTATIONS = {
    "ct_liver_3slice_seg/liver.dcm": ("ct_liver_3slice_series", {"liver": 1}, (36233 + 35645 + 35220, 0)),
    "ct_small_4slice_seg/seg_image_ct_binary.dcm": ("ct_liver_3slice_series", {"x": 1}, F.SEVERAL_SERIES),
    "rtstruct_ct_2slice/rt.dcm": ("rtstruct_ct_2slice", {"roi-1": 1}, (1443, 0)),
    "rtstruct_ct_2slice/invalid_reference_rt.dcm": ("rtstruct_ct_2slice", _ROIS, (20146, 3)),
    "rtstruct_ct_2slice/non_existent_reference_rt.dcm": ("rtstruct_ct_2slice", _ROIS, (20146, 1)),
    "torture/liver_1frame.dcm": ("ct_liver_3slice_series", {"liver": 1}, F.UNREADABLE),
    "torture/rtstruct.dcm": ("rtstruct_ct_2slice", {"x": 1}, F.SEVERAL_SERIES),
}
