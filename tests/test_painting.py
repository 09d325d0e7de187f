import numpy as np

from gald.painting import VOID_COLOUR, colourise, viridis

PALETTE = [(10, 20, 30), (40, 50, 60)]


def test_labels_get_their_colour_and_all_others_the_void_colour():
    painted = colourise(np.array([[0, 1, 2, 255]], np.uint8), PALETTE)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[10, 20, 30], [40, 50, 60], list(VOID_COLOUR), list(VOID_COLOUR)]]


def test_values_are_painted_from_dark_to_bright_in_rgb():
    painted = viridis(np.array([[2.0, 3.0], [4.0, 4.0]], np.float32))
    assert painted[0, 0].tolist() == [68, 1, 84], "the first colour of viridis"
    assert np.abs(painted[1].astype(int) - [253, 231, 36]).max() <= 1, "the last colour"
    assert painted[0, 0].sum() < painted[0, 1].sum() < painted[1, 0].sum()


def test_equal_values_get_one_colour():
    painted = viridis(np.full((2, 2), 7.0, np.float32))
    assert (painted == [68, 1, 84]).all()
