import numpy as np
import pytest
from scipy.io import savemat

from gald.data.reading.mat import read_mat
from gald.data.reading.sample_error import SampleError

LABELS = np.arange(460, dtype=np.uint16).reshape(20, 23)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask.mat"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("do_compression", [False, True])
def test_labels_are_read_from_any_number_type(path, dtype, do_compression):
    content = {"S": LABELS.astype(dtype), "names": np.array(["a"], object)}
    savemat(path, content, do_compression=do_compression)
    labels = read_mat(path, "S", 459)
    assert labels.dtype == np.uint16 and labels.flags.c_contiguous
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (LABELS, r"a key S of shape \(20, 23\) with values 0\.\.459, not .* 0\.\.182;"),
        (np.full((2, 3), -1), r"values -1\.\.-1, not"),
        (np.full((2, 3), 65536), r"values 65536\.\.65536, not"),
        (np.full((2, 3), 0.5), r"values 0\.5\.\.0\.5, not"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\) with values"),
        (np.zeros((0, 3)), r"no readable key S \(ValueError\)"),
        (np.array([["a"]], object), "no readable key S"),
    ],
)
def test_an_array_that_is_not_a_label_map_is_refused(path, stored, message):
    savemat(path, {"S": stored})
    with pytest.raises(SampleError, match=message) as error:
        read_mat(path, "S", 182)
    assert str(error.value).startswith(f"mask {path} has")


def test_file_without_the_key_is_refused(path):
    savemat(path, {"T": LABELS})
    with pytest.raises(SampleError, match=r"no readable key S \(KeyError\)"):
        read_mat(path, "S", 459)


@pytest.mark.parametrize("kept", [0, 60, 128, 150, 600, 900])
def test_truncated_file_is_refused(path, kept):
    savemat(path, {"S": LABELS})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SampleError, match=r"no readable key S .*; copy or download it again"):
        read_mat(path, "S", 459)


def test_file_that_is_not_a_mat_is_refused(path):
    path.write_bytes(b"a web page that says 404" * 20)
    with pytest.raises(SampleError, match="no readable key S"):
        read_mat(path, "S", 459)
