from dataclasses import replace

import numpy as np
import pytest

from tests.views.conftest import volume_at
from workbench.data.images import center_crop
from workbench.views.annotations import Annotation, Box, draw_boxes, read_annotations
from workbench.views.explore import explored_viewer
from workbench.views.explored import open_slice
from workbench.views.export.geometry import upright
from workbench.views.lesions import (
    lesion_figure,
    lesion_figures,
    lesion_ssim,
    lesion_table,
)
from workbench.views.reconstructions import contact_sheet, ssim_image
from workbench_demo.phantom.writing import write_volume

HEADER = "file,slice,study_level,x,y,width,height,label\n"
LINES = (
    HEADER
    + "file1000001,1,No,4,6,10,5,Meniscus Tear\n"
    + "file1000001,1,No,20,18,6,8,Joint Effusion \n"
    + 'file1000002,2,No,12.0,10.0,8.0,8.0,"Cyst, likely"\n'
    + "file1000002,0,Yes,,,,,Normal for age\n"
    + "file9999999,0,No,1,1,2,2,Elsewhere\n"
)


@pytest.fixture
def read(tmp_path):
    """Reads a text as knee.csv."""

    def read(text, **how):
        path = tmp_path / "knee.csv"
        path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text, **how)
        return read_annotations(path)

    return read


@pytest.fixture
def annotations(read):
    return read(LINES)


def test_boxes_labels_and_findings_of_a_study_are_read(annotations):
    first, second = annotations.of("file1000001.h5", 1)
    assert (first.label, first.box) == ("Meniscus Tear", Box(4, 6, 10, 5))
    assert second.label == "Joint Effusion"
    assert annotations.of("file1000001.h5", 0) == []
    assert annotations.of("file1000002.h5")[0].label == "Cyst, likely"
    assert annotations.study_labels("file1000002.h5") == ["Normal for age"]
    assert annotations.study_labels("file1000001.h5") == []
    assert annotations.of("file1000002.h5", 0) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,slice,x,y,width,height\n", "no column study_level, label"),
        (
            HEADER + "a,zero,No,1,1,2,2,b\n",
            r"line 2 \(a, slice zero, b\): slice='zero' is no number",
        ),
        (HEADER + "a,0,No,,1,2,2,b\n", "line 2 .*: x='' is no number"),
        (HEADER + "a,0,No,1,1,-1,2,b\n", "line 2 .*: a box of -1x2 pixels"),
        (HEADER + "a,-1,No,1,1,2,2,b\n", "line 2 .*: slice='-1' is no slice"),
        (HEADER + ",0,No,1,1,2,2,b\n", "line 2 .*: file is empty"),
        ("file," + HEADER + "a,b,3,No,1,2,3,4,Cyst\n", "has a column file twice: keep one"),
        (
            (HEADER + "a,3,No,1,2,3,4,Lésion\n").encode("latin-1"),
            "is no CSV in UTF-8: save it as such",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), r"knee\.csv is no CSV|has no column"),
    ],
)
def test_a_wrong_file_or_line_is_named(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="microsoft/fastmri-plus"):
        read_annotations(tmp_path / "none.csv")


def test_lines_that_make_no_sense_are_passed_over_and_named(read):
    wrong = "a,4,No,1,1,-2,2,Cyst\na,x,No,1,1,2,2,Tear\na,5,No,1\n,,,,,,,\n"
    annotations = read(HEADER + "a,3,No,1,1,2,2,ok\n" + wrong)
    assert [each.label for each in annotations.of("a.h5")] == ["ok"]
    assert annotations.remarks == [
        "knee.csv: passed over line 3 (a, slice 4, Cyst): a box of -2x2 pixels",
        "knee.csv: passed over line 4 (a, slice x, Tear): slice='x' is no number",
        "knee.csv: passed over line 5 (a, slice 5, ): label is empty",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("apart", [",", ";", "\t"])
def test_form_of_the_file_does_not_matter(read, apart, start, end):
    lines = ["Label,more,x,y,width,height,slice,study_level,File ", "Cyst,?,1.5,2,3,4,5.0,No,a"]
    text = start + "".join(line.replace(",", apart) + end for line in lines)
    (only,) = read(text, newline="").of("a.h5")
    assert (only.slice, only.label, only.box, only.line) == (5, "Cyst", Box(1.5, 2, 3, 4), 2)


def test_comma_within_a_number_is_a_point_only_where_no_comma_stands_between_columns(read):
    annotations = read(HEADER + 'a,3,No,1,2,3,4,ok\na,3,No,"1,234",2,3,4,Cyst\n')
    assert [each.label for each in annotations.of("a.h5")] == ["ok"]
    assert "line 3 (a, slice 3, Cyst): x='1,234' is no number" in annotations.remarks[0]
    points = read(HEADER.replace(",", ";") + "a;3;No;1,5;2;3;4;Cyst\n")
    assert points.of("a.h5")[0].box == Box(1.5, 2, 3, 4)


def test_findings_off_their_volume_are_passed_over(read):
    annotations = read(
        HEADER
        + "file1,1,No,4,6,10,5,Cyst\nfile1,9,No,4,6,10,5,Cyst\nfile1,1,No,400,6,10,5,Tear\n"
        + "file1,1,No,-2,-2,4,4,Edge\nother,99,No,1,1,1,1,Elsewhere\n"
    )
    volume = volume_at("multicoil_val/file1.h5", "val")
    found = annotations.within([volume])
    assert [each.label for each in found.of(volume.path)] == ["Cyst", "Edge"]
    assert found.remarks == [
        "knee.csv: passed over line 3 (file1.h5, slice 9, Cyst): "
        "multicoil_val/file1.h5 has slices 0 to 2",
        "knee.csv: passed over line 4 (file1.h5, slice 1, Tear): "
        "the box lies outside the image of 32 x 32 pixels",
    ]


def test_findings_of_a_name_that_two_volumes_have_are_nobodys_unless_they_say_the_path(read):
    sites = [volume_at("a_val/file1000001.h5", "val"), volume_at("b_val/file1000001.h5", "val")]
    other = volume_at("a_val/file1000002.h5", "val")
    found = read(LINES).within([*sites, other])
    assert [found.of(site.path) for site in sites] == [[], []]
    assert len(found.of(other.path)) == 1
    assert found.study_labels(other.path) == ["Normal for age"]
    (remark,) = found.remarks
    assert "2 volumes have that name: a_val/file1000001.h5, b_val/file1000001.h5" in remark
    named = read(LINES.replace("file1000001", "b_val/file1000001")).within(sites)
    assert [len(named.of(site.path)) for site in sites] == [0, 2]
    assert named.remarks == []


def test_the_brains_two_test_releases_share_their_findings(annotations):
    splits = ("test", "test_full")
    twins = [volume_at(f"multicoil_{split}/file1000001.h5", split) for split in splits]
    found = annotations.within(twins)
    assert [len(found.of(twin.path)) for twin in twins] == [2, 2]


def test_box_counts_from_the_top_of_the_upright_image_and_is_cut_at_its_edge():
    image = np.zeros((20, 30))
    upright(image)[3:7, 10:15] = 1  # as a radiologist draws it
    inside = Box(10, 3, 5, 4).inside(image.shape)
    assert image[inside].min() == 1
    assert image.sum() == image[inside].sum()
    assert Box(25, -3, 10, 8).inside((20, 30)) == (slice(15, 20), slice(25, 30))


def test_drawn_box_lies_around_what_it_was_drawn_around(annotations):
    image = np.zeros((32, 32), np.float32)
    found = annotations.of("file1000001.h5", 1)
    upright(image)[6:11, 4:14] = 1
    sheet = contact_sheet([image], ["one"])
    draw_boxes(sheet.axes[0], [each.stored((32, 32), (32, 32)) for each in found])
    left, bottom, width, height = sheet.axes[0].patches[0].get_bbox().bounds
    rows, columns = np.nonzero(image)
    assert (left, left + width) == (columns.min() - 0.5, columns.max() + 0.5)
    assert (bottom, bottom + height) == (rows.min() - 0.5, rows.max() + 0.5)
    assert [text.get_text() for text in sheet.axes[0].texts] == ["Meniscus Tear", "Joint Effusion"]


@pytest.mark.parametrize("size", [(24, 23), (25, 24)])
@pytest.mark.parametrize("smaller", [True, False])
def test_a_box_lies_on_the_same_tissue_where_an_image_shows_less_than_the_target(size, smaller):
    """Or more: k-space of fewer columns than the target has, or a target cut from the image."""
    whole = np.zeros((32, 32))
    whole[11:16, 10:20] = 1
    part = center_crop(whole, size)
    target, image = (whole, part) if smaller else (part, whole)
    rows, columns = np.nonzero(upright(target))
    box = Box(columns.min(), rows.min(), 10, 5)
    found = Annotation("a.h5", 0, "Cyst", box).stored(target.shape, image.shape)
    drawn = image[found["y"] : found["y"] + 5, found["x"] : found["x"] + 10]
    assert drawn.sum() == image.sum() == 50


def test_a_viewer_has_its_boxes_where_the_image_is_smaller_than_the_target(tmp_path, read):
    path = tmp_path / "brain/multicoil_val/flair.h5"
    kspace = np.ones((2, 2, 48, 21), np.complex64)
    about = {"recon": (24, 24), "acquisition": "AXFLAIR", "patient_id": "p"}
    write_volume(path, kspace=kspace, target=np.ones((2, 24, 24), np.float32), **about)
    findings = read(HEADER + "flair,1,No,4,6,10,5,Cyst\n")
    explored = replace(open_slice(str(path.parent.parent)), findings=findings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.views.explore.interactive", lambda: True)
        (box,) = explored_viewer(explored).boxes
    assert (box["x"], box["y"]) == (4 - 1, 24 - 6 - 5 - 1)


def test_box_without_extent_is_drawn_as_a_point(read):
    found = read(HEADER + "a,3,No,12,7,0,0,Cyst\na,3,No,2,3,4,0,Tear\n").of("a.h5", 3)
    assert [each.box for each in found] == [Box(12, 7, 0, 0), Box(2, 3, 4, 0)]
    figure = contact_sheet([np.zeros((20, 30))], [""])
    draw_boxes(figure.axes[0], [each.stored((20, 30), (20, 30)) for each in found])
    points = [tuple(float(x[0]) for x in line.get_data()) for line in figure.axes[0].lines]
    assert points == [(11.5, 12.5), (3.5, 16.5)]
    assert np.zeros((20, 30))[found[0].box.inside((20, 30))].shape == (1, 1)


def test_ssim_in_a_box_is_the_mean_of_the_map_there():
    random = np.random.default_rng(0)
    target = random.uniform(size=(32, 32)).astype(np.float32)
    image = target.copy()
    upright(image)[4:14, 4:14] += 0.5 * random.normal(size=(10, 10)).astype(np.float32)
    box = Box(6, 6, 5, 5)
    expected = upright(ssim_image(image, target, 1.0))[6:11, 6:11].mean()
    assert lesion_ssim(image, target, box, 1.0) == pytest.approx(expected)
    assert lesion_ssim(image, target, Box(22, 22, 5, 5), 1.0) == pytest.approx(1)
    assert lesion_ssim(image, target, box, 1.0) < 0.9
    corner = Box(0, 0, 8, 8)  # of which there are 7x7 windows around the inner pixels alone
    inner = upright(ssim_image(image, target, 1.0))[3:8, 3:8].mean()
    assert lesion_ssim(image, target, corner, 1.0) == pytest.approx(inner)
    assert np.isnan(lesion_ssim(image, target, Box(0, 0, 2, 2), 1.0))
    # What is not finite in the box had been left out, so that the rest spoke for it.
    upright(image)[8, 8] = np.nan
    assert np.isnan(lesion_ssim(image, target, box, 1.0))
    assert lesion_ssim(image, target, Box(22, 22, 5, 5), 1.0) == pytest.approx(1)


def test_findings_are_tabled_and_shown_close_up_where_volumes_have_a_target(
    reconstructed, in_project, annotations, read
):
    found = reconstructed()
    table = lesion_table(found, annotations)
    assert sorted(table["label"]) == ["Cyst, likely", "Joint Effusion", "Meniscus Tear"]
    assert table["SSIM in the box"].is_monotonic_increasing
    figures = list(lesion_figures(found, annotations))
    assert len(figures) == 3
    assert any(" in the box, " in axes.get_title() for axes in figures[0].axes)
    assert figures[0]._repr_png_()
    annotation = annotations.of("file1000001.h5")[0]
    bottom, top = lesion_figure(found[0], annotation, annotation.box).axes[1].get_ylim()
    assert (bottom + top) / 2 == pytest.approx(32 - 6 - 2.5)
    assert top - bottom == pytest.approx(30)
    untargeted = read(HEADER + "file1000003,1,No,4,6,10,5,Meniscus Tear\n")
    assert list(lesion_figures(reconstructed("test"), untargeted)) == []
    assert len(lesion_table(reconstructed("test"), untargeted)) == 0
