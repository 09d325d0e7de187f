import numpy as np
import pytest
from scipy.io import savemat

from gald.data.reading.files import SampleError
from gald.data.reading.mat import read_mat

LABELS = np.arange(460, dtype=np.uint16).reshape(20, 23)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask.mat"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("do_compression", [False, True])
def test_labels_come_back_whatever_they_are_stored_as(path, dtype, do_compression):
    content = {"S": LABELS.astype(dtype), "names": np.array(["a"], object)}
    savemat(path, content, do_compression=do_compression)
    labels = read_mat(path, "S", 459)
    assert labels.dtype == np.uint16 and labels.flags.c_contiguous
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (LABELS, r"an? S of shape \(20, 23\) with values from 0 to 459, not .* 0\.\.182;"),
        (np.full((2, 3), -1), "values from -1 to -1, not"),
        (np.full((2, 3), 65536), "values from 65536 to 65536, not"),
        (np.full((2, 3), 0.5), r"values from 0\.5 to 0\.5, not"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\) with values"),
        (np.zeros((0, 3)), r"no S that can be read \(ValueError\)"),
        (np.array([["a"]], object), "no S that can be read"),
    ],
)
def test_what_is_no_label_map_is_refused(path, stored, message):
    savemat(path, {"S": stored})
    with pytest.raises(SampleError, match=message) as error:
        read_mat(path, "S", 182)
    assert str(error.value).startswith(f"mask {path} has")


def test_file_without_the_key_is_refused(path):
    savemat(path, {"T": LABELS})
    with pytest.raises(SampleError, match=r"no S that can be read \(KeyError\)"):
        read_mat(path, "S", 459)


@pytest.mark.parametrize("kept", [0, 60, 128, 150, 600, 900])
def test_cut_file_is_refused(path, kept):
    savemat(path, {"S": LABELS})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SampleError, match=r"no S that can be read .*; copy the file again"):
        read_mat(path, "S", 459)


def test_file_that_is_no_mat_is_refused(path):
    path.write_bytes(b"a web page that says 404" * 20)
    with pytest.raises(SampleError, match="no S that can be read"):
        read_mat(path, "S", 459)
