"""Images and numbers from a prediction."""

import numpy as np
import pytest

from gald.prediction.prediction import Prediction


@pytest.fixture
def prediction():
    labels = np.array([[0, 1, 1], [1, 255, 0]], np.uint8)
    image = np.full((2, 3, 3), 100, np.uint8)
    return Prediction(
        image, labels, None, None, ("road", "car", "sky"), ((9, 8, 7), (1, 2, 3), (5, 5, 5))
    )


def test_void_is_black_and_no_class(prediction):
    painted = np.asarray(prediction.palette_image().convert("RGB"))
    assert painted[1, 1].tolist() == [0, 0, 0] and painted[0, 0].tolist() == [9, 8, 7]
    shares = prediction.shares()
    assert shares == {"road": pytest.approx(2 / 6), "car": pytest.approx(3 / 6), "sky": 0}


def test_overlay_blends_by_default_sixty_percent_colour_with_the_image(prediction):
    mixed = np.asarray(prediction.overlay())[0, 0]
    np.testing.assert_allclose(mixed, [0.6 * c + 40 for c in (9, 8, 7)], atol=1)
